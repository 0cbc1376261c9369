//! Reads the audit back for the proxy's start: read-only connections that stay open for one call only.

use std::collections::BTreeSet;
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use cmiot_signer::{AppId, Card, Stamp};
use rusqlite::{Connection, OptionalExtension, Row};

use super::evidence::lost;
use super::evidence::verify::fault_of_ended;
use super::log::identity::{HashedCard, IdentityKey, PastCard};
use super::log::link::manifest;
use super::log::loss::Loss;
use super::log::month::{self, Month};
use super::log::row::BegunRow;
use super::log::value::kind_of_number;
use super::query::range::first_since;
use crate::clock::Time;
use crate::store::schema::{self, Kind};
use crate::store::{Fault, StoreError};

/// Reads the segments of a folder. It needs no open store.
#[derive(Clone, Debug)]
pub struct AuditReader {
    dir: PathBuf,
}

/// An authenticated request with a transid, as the audit recorded it.
#[derive(Clone, Debug)]
pub struct PastRequest<'a> {
    /// The client.
    pub client: AppId,
    /// Its transid, as sent.
    pub transid: &'a str,
    /// Its arrival.
    pub at: Time,
    /// The card.
    pub card: Option<PastCard>,
    /// The operation.
    pub operation: Option<&'a str>,
    /// The outcome.
    pub outcome: &'a str,
    /// The reason, if it was refused or failed: not every refusal marks the transid used.
    pub reason: Option<&'a str>,
}

/// The intent of an action, as the audit recorded it.
#[derive(Clone, Copy, Debug)]
pub struct RecordedIntent<'a> {
    /// The number of its row.
    pub row: i64,
    /// The client.
    pub client: AppId,
    /// The client's transid.
    pub transid: &'a str,
    /// The arrival of the request.
    pub at: Time,
}

impl AuditReader {
    /// A reader of the segments in `dir`.
    pub fn new(dir: &Path) -> Self {
        Self { dir: dir.to_owned() }
    }

    /// Visits the authenticated requests that arrived at or after `since`, in all segments, the last written first,
    /// until `visit` breaks. Blocks. Returns the rows that cannot be read: their segment is missing or damaged.
    ///
    /// # Errors
    /// When the newest segment cannot be read.
    pub fn authenticated_since(
        &self,
        since: Time,
        mut visit: impl FnMut(PastRequest<'_>) -> ControlFlow<()>,
    ) -> Result<Vec<Loss>, StoreError> {
        self.segments_since(since, |month, path, connection| {
            let Some(first) = first_since(connection, since).map_err(StoreError::sqlite(path))? else {
                return Ok(ControlFlow::Continue(()));
            };
            // Without a readable key the cards are unknown.
            let key = IdentityKey::read(&self.dir, month).ok().flatten().map(Arc::new);
            visit_from(connection, path, key.as_ref(), first, since, &mut visit)
        })
    }

    /// Visits the intents of actions that arrived at or after `since`, in all segments. Blocks. Returns the rows that cannot be
    /// read.
    ///
    /// # Errors
    /// When the newest segment cannot be read.
    pub fn begun_since(
        &self,
        since: Time,
        mut visit: impl FnMut(RecordedIntent<'_>),
    ) -> Result<Vec<Loss>, StoreError> {
        self.segments_since(since, |_, path, connection| {
            let mut read = || {
                let Some(first) = first_since(connection, since)? else { return Ok(()) };
                let mut begun = connection.prepare(
                    "SELECT id, at, detail FROM note
                     WHERE id >= ?1 AND at >= ?2 AND what = (SELECT id FROM name WHERE text = ?3)",
                )?;
                let mut rows = begun.query((first, since.as_micros(), BegunRow::WHAT))?;
                while let Some(row) = rows.next()? {
                    let (id, at) = (row.get(0)?, Time::from_micros(row.get(1)?));
                    if let Some((client, transid)) = BegunRow::read(row.get_ref(2)?.as_str()?) {
                        visit(RecordedIntent { row: id, client, transid, at });
                    }
                }
                Ok(())
            };
            read().map_err(StoreError::sqlite(path)).map(ControlFlow::Continue)
        })
    }

    /// Leaves notes of rows that cannot be read, unless there are some already. Returns the time up to which requests
    /// must be refused until the writer says so itself. Blocks.
    ///
    /// # Errors
    /// When the folder cannot be read or the note cannot be written.
    pub fn note_unreadable(&self, losses: &[Loss], now: Time) -> Result<Option<Time>, StoreError> {
        lost::note_unreadable(&self.dir, losses, now)
    }

    /// The time of the last record. Blocks.
    ///
    /// # Errors
    /// When a segment cannot be read.
    pub fn newest_record(&self) -> Result<Option<Time>, StoreError> {
        for month in month::list(&self.dir)? {
            let path = month.path(&self.dir);
            let at: Option<i64> = schema::open_read_only(&path, Kind::Audit)?
                .query_row("SELECT at FROM record ORDER BY id DESC LIMIT 1", [], |row| row.get(0))
                .optional()
                .map_err(StoreError::sqlite(&path))?;
            if let Some(at) = at {
                return Ok(Some(Time::from_micros(at)));
            }
        }
        Ok(None)
    }

    /// Reads the segments that may have rows at or after `since`, newest first. The newest segment's manifest says
    /// which: a segment's name does not say when its rows were written. Returns the rows of segments that cannot be
    /// read, or that are not what that manifest describes.
    fn segments_since(
        &self,
        since: Time,
        mut read: impl FnMut(Month, &Path, &Connection) -> Result<ControlFlow<()>, StoreError>,
    ) -> Result<Vec<Loss>, StoreError> {
        let months = month::list(&self.dir)?;
        let Some(&newest) = months.first() else { return Ok(Vec::new()) };
        let known = {
            let path = newest.path(&self.dir);
            let connection = schema::open_read_only(&path, Kind::Audit)?;
            manifest(&connection).map_err(StoreError::sqlite(&path))?.unwrap_or_default()
        };
        let of = |month: Month| {
            let name = month.to_string();
            known.iter().find(|known| known.month == name)
        };
        let until = |month: Month| of(month).map(|known| Time::from_micros(known.until));
        // A clock that was ahead may have dated rows after the month that they were written in.
        let end = |month: Month| until(month).map_or(month.end(), |until| until.min(month.end()));
        let missing = known
            .iter()
            .filter_map(|known| Month::parse(&known.month))
            .filter(|month| !months.contains(month) && end(*month) >= since);
        let loss = |month: Month| Loss::of_segment(month, of(month), end(month));
        let mut unreadable: Vec<Loss> = missing.map(loss).collect();
        for month in months {
            if until(month).is_some_and(|until| until < since) {
                continue;
            }
            let path = month.path(&self.dir);
            let ended = of(month).filter(|_| month != newest);
            let mut fault = None;
            match schema::open_read_only(&path, Kind::Audit).and_then(|connection| {
                fault = match ended {
                    Some(known) => {
                        fault_of_ended(&connection, known, since).map_err(StoreError::sqlite(&path))?
                    }
                    None => None,
                };
                read(month, &path, &connection)
            }) {
                Ok(flow) => {
                    if let Some(fault) = fault {
                        let file = path.display();
                        tracing::error!(%file, fault, "an ended segment of the audit is not as it was written");
                        unreadable.push(loss(month));
                    }
                    if flow.is_break() {
                        break;
                    }
                }
                Err(error) if month == newest => return Err(error),
                Err(error) => {
                    tracing::error!(%error, "a segment of the audit cannot be read");
                    unreadable.push(loss(month));
                }
            }
        }
        Ok(unreadable)
    }

    /// The sequences of an account's recorded calls with stamps from `since` to `until`. Blocks.
    ///
    /// # Errors
    /// When a segment cannot be read.
    pub fn called(&self, appid: &AppId, since: Stamp, until: Stamp) -> Result<BTreeSet<u32>, StoreError> {
        let mut found = BTreeSet::new();
        // After every sequence of eight digits.
        let (first, last) = (format!("{appid}{since}"), format!("{appid}{until}:"));
        // Stamp and sequence have 22 characters; an appid has 26 at most.
        let length = i64::try_from(appid.as_str().len() + 22).unwrap_or(i64::MAX);
        for month in month::list(&self.dir)? {
            let path = month.path(&self.dir);
            let connection = schema::open_read_only(&path, Kind::Audit)?;
            let mut read = || {
                let mut calls = connection.prepare(
                    "SELECT substr(transid, -8) FROM call
                     WHERE transid >= ?1 AND transid < ?2 AND length(transid) = ?3",
                )?;
                let mut rows = calls.query((&first, &last, length))?;
                while let Some(row) = rows.next()? {
                    found.extend(row.get_ref(0)?.as_str()?.parse::<u32>().ok());
                }
                Ok(())
            };
            read().map_err(StoreError::sqlite(&path))?;
        }
        Ok(found)
    }

    /// The greatest stamp of all transids that were sent to the carrier. Blocks, and reads every row of every
    /// segment: some seconds for ten million.
    ///
    /// # Errors
    /// When a segment cannot be read.
    pub fn highest_carrier_stamp(&self) -> Result<Option<Stamp>, StoreError> {
        let mut highest = None;
        for month in month::list(&self.dir)? {
            let path = month.path(&self.dir);
            // The last 22 characters of a transid are stamp and sequence, after any appid.
            let found: Option<String> = schema::open_read_only(&path, Kind::Audit)?
                .query_row(
                    "SELECT max(stamp) FROM (SELECT max(substr(carrier_transid, -22, 14)) AS stamp FROM record
                                             UNION ALL SELECT max(substr(transid, -22, 14)) FROM call)",
                    [],
                    |row| row.get(0),
                )
                .map_err(StoreError::sqlite(&path))?;
            if let Some(text) = found {
                let stamp = Stamp::parse(&text)
                    .map_err(|_| StoreError::new(&path, Fault::Malformed { value: "carrier_transid" }))?;
                highest = highest.max(Some(stamp));
            }
        }
        Ok(highest)
    }
}

fn visit_from(
    connection: &Connection,
    path: &Path,
    key: Option<&Arc<IdentityKey>>,
    first: i64,
    since: Time,
    visit: &mut impl FnMut(PastRequest<'_>) -> ControlFlow<()>,
) -> Result<ControlFlow<()>, StoreError> {
    let sqlite = StoreError::sqlite(path);
    let mut statement = connection
        .prepare(
            "SELECT record.client, record.transid, record.at, record.kind, record.card,
                    operated.text, ended.text, reasoned.text, record.key IS NOT NULL
             FROM record
             JOIN name AS ended ON ended.id = record.outcome
             LEFT JOIN name AS reasoned ON reasoned.id = record.reason
             LEFT JOIN name AS operated ON operated.id = record.operation
             WHERE record.id >= ?1 AND record.at >= ?2 AND record.authenticated = 1
               AND record.client IS NOT NULL AND record.transid IS NOT NULL
             ORDER BY record.id DESC",
        )
        .map_err(sqlite)?;
    let mut rows = statement.query([first, since.as_micros()]).map_err(sqlite)?;
    while let Some(row) = rows.next().map_err(sqlite)? {
        let past = past(row, key).map_err(sqlite)?;
        let past = past.ok_or_else(|| StoreError::new(path, Fault::Malformed { value: "record" }))?;
        if visit(past).is_break() {
            return Ok(ControlFlow::Break(()));
        }
    }
    Ok(ControlFlow::Continue(()))
}

/// None when the row has values that the writer never writes.
fn past<'a>(row: &'a Row<'_>, key: Option<&Arc<IdentityKey>>) -> rusqlite::Result<Option<PastRequest<'a>>> {
    let text = |column| row.get_ref(column).and_then(|value| Ok(value.as_str_or_null()?));
    let (Some(client), Some(transid), Some(outcome)) = (text(0)?, text(1)?, text(6)?) else {
        return Ok(None);
    };
    let Ok(client) = AppId::parse(client) else { return Ok(None) };
    let card = match (row.get::<_, Option<i64>>(3)?, text(4)?) {
        (Some(_), Some(hash)) if row.get(8)? => {
            Some(key.map_or(PastCard::Unknown, |key| PastCard::Hashed(HashedCard::new(key, hash))))
        }
        (Some(kind), Some(card)) => {
            let Some(kind) = kind_of_number(kind) else { return Ok(None) };
            let Ok(card) = Card::parse(kind, card) else { return Ok(None) };
            Some(PastCard::Plain(card))
        }
        _ => None,
    };
    let at = Time::from_micros(row.get(2)?);
    Ok(Some(PastRequest { client, transid, at, card, operation: text(5)?, outcome, reason: text(7)? }))
}
