//! Reads the audit back: its own read-only connections, nothing held longer than a call.

use std::collections::BTreeSet;
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use cmiot_signer::{AppId, Card, Stamp};
use rusqlite::{Connection, OptionalExtension, Row};

use super::evidence::lost;
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

/// Reads the segments of a folder; nothing else has to be open.
#[derive(Clone, Debug)]
pub struct AuditReader {
    dir: PathBuf,
}

/// What the audit says about an authenticated request that had a transid.
#[derive(Clone, Debug)]
pub struct PastRequest<'a> {
    /// Who asked.
    pub client: AppId,
    /// Its transid, as it was sent.
    pub transid: &'a str,
    /// When it came.
    pub at: Time,
    /// About which card.
    pub card: Option<PastCard>,
    /// Which look-up.
    pub operation: Option<&'a str>,
    /// What became of it.
    pub outcome: &'a str,
    /// Why, if it was refused or failed: not every refusal burns the transid.
    pub reason: Option<&'a str>,
}

/// An action that the audit knows to have been begun.
#[derive(Clone, Copy, Debug)]
pub struct PastAction<'a> {
    /// The number of the row that says so.
    pub row: i64,
    /// Who asked for it.
    pub client: AppId,
    /// The client's transid.
    pub transid: &'a str,
    /// When it was asked for.
    pub at: Time,
}

impl AuditReader {
    /// A reader of the segments in `dir`.
    pub fn new(dir: &Path) -> Self {
        Self { dir: dir.to_owned() }
    }

    /// Visits the authenticated requests that came at or after `since`, in whatever segment, the last written first, until
    /// there are no more or `visit` breaks. Blocks. Returns those that cannot be read: their segment is
    /// missing, or damaged.
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
            // A key that cannot be read is as good as none.
            let key = IdentityKey::read(&self.dir, month).ok().flatten().map(Arc::new);
            visit_from(connection, path, key.as_ref(), first, since, &mut visit)
        })
    }

    /// Visits the actions that were begun at or after `since`, in whatever segment. Blocks. Returns those that
    /// cannot be read.
    ///
    /// # Errors
    /// When the newest segment cannot be read.
    pub fn begun_since(
        &self,
        since: Time,
        mut visit: impl FnMut(PastAction<'_>),
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
                        visit(PastAction { row: id, client, transid, at });
                    }
                }
                Ok(())
            };
            read().map_err(StoreError::sqlite(path)).map(ControlFlow::Continue)
        })
    }

    /// Notes rows that cannot be read as lost, unless they are already. Up to when requests are to be refused for that
    /// until the writer says so itself. Blocks.
    ///
    /// # Errors
    /// When the folder cannot be read or the note not be written.
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

    /// Reads the segments that may have rows at or after `since`, the newest first: by what the newest says of those before
    /// it, since a segment's name does not tell when its rows were written. Returns the rows of those that cannot be read.
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
            match schema::open_read_only(&path, Kind::Audit)
                .and_then(|connection| read(month, &path, &connection))
            {
                Ok(ControlFlow::Continue(())) => {}
                Ok(ControlFlow::Break(())) => break,
                Err(error) if month == newest => return Err(error),
                Err(error) => {
                    tracing::error!(%error, "a segment of the audit cannot be read");
                    unreadable.push(loss(month));
                }
            }
        }
        Ok(unreadable)
    }

    /// The sequences of an account's calls that have a row, of stamps from `since` to `until`. Blocks.
    ///
    /// # Errors
    /// When a segment cannot be read.
    pub fn called(&self, appid: &AppId, since: Stamp, until: Stamp) -> Result<BTreeSet<u32>, StoreError> {
        let mut found = BTreeSet::new();
        // Behind every sequence of eight digits.
        let (first, last) = (format!("{appid}{since}"), format!("{appid}{until}:"));
        // Stamp and sequence are 22; an appid is 26 at most.
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
            // The last 22 characters of a transid are stamp and sequence, whatever the appid before them.
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

/// None when the row holds what the writer never writes.
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
