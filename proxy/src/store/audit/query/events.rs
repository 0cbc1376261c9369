//! Events behind a row of the audit: carrier calls that answered another STATUS than the last known one of the card, or all
//! that answered a STATUS, and notes about alarms and breakers. Rows are read in order and in bounded pages, so that a row number is a position.
//!
//! The last known STATUS is that of the newest earlier call for the same card, operation and group, found through the index
//! of cards; without one among the newest [`SEARCHED`] rows of the card, the newest lookup of the group that was answered
//! with a STATUS. So no group's event has a STATUS that another group's account was answered.
//! Hashes of cards differ from month to month: under `keyed`, they name the cards of one month only.

use std::collections::{BTreeSet, HashMap};
use std::ops::ControlFlow;
use std::path::Path;
use std::sync::Arc;

use cmiot_signer::CardKind;
use data_encoding::HEXLOWER;
use ring::digest::{Context, SHA256};
use rusqlite::{Connection, OptionalExtension};

use super::open;
use crate::clock::Time;
use crate::store::StoreError;
use crate::store::audit::index::find::for_card;
use crate::store::audit::log::month::{self, Month};
use crate::store::audit::log::value::kind_of_number;

/// Rows of a card in one segment that are searched for its last call.
const SEARCHED: usize = 1_000;

/// Segments that are searched for the last known STATUS of a card, the current one included.
const SEGMENTS: usize = 3;

/// Cards whose last STATUS is remembered while pages are read.
const REMEMBERED: usize = 50_000;

/// The group of each configured account, by the account's name.
pub type AccountGroups = HashMap<Arc<str>, Arc<str>>;

/// An event, and the row that it follows from.
#[derive(Clone, Debug, PartialEq)]
pub struct Event {
    /// The number of the row.
    pub row: i64,
    /// Derived from the row and the hash of its batch: no other row has it, in whatever audit.
    pub id: String,
    /// When it was seen: the end of the call, or the time of the note.
    pub at: Time,
    /// The kind of event, with its facts.
    pub kind: EventKind,
}

/// A kind of event, with its facts.
#[derive(Clone, Debug, PartialEq)]
pub enum EventKind {
    /// The carrier answered a STATUS.
    Status(StatusAnswer),
    /// A note.
    Note {
        /// Its kind.
        what: String,
        /// Its text.
        detail: String,
    },
}

/// Calls that are events.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Calls {
    /// Those that answered another STATUS than the last known one.
    Changes,
    /// Those that answered a STATUS, for a caller that compares them with those of other nodes.
    Answers,
}

/// A STATUS that the carrier answered.
#[derive(Clone, Debug, PartialEq)]
pub struct StatusAnswer {
    /// The card as the audit has it.
    pub card: String,
    /// The kind of its number: `msisdn`, `iccid` or `imsi`.
    pub kind: &'static str,
    /// The masked number, where `card` is a hash.
    pub masked: Option<String>,
    /// The key of the hash, where `card` is one.
    pub key: Option<String>,
    /// The account whose call was answered.
    pub account: String,
    /// The operation.
    pub operation: String,
    /// The transid of the call.
    pub transid: Option<String>,
    /// The last known STATUS, if there is one.
    pub before: Option<LastStatus>,
    /// The STATUS now.
    pub to: String,
}

/// A STATUS, and when it was answered.
#[derive(Clone, Debug, PartialEq)]
pub struct LastStatus {
    /// The STATUS.
    pub status: String,
    /// When it was last answered.
    pub at: Time,
}

impl StatusAnswer {
    /// Whether the last known STATUS was another one.
    pub fn is_change(&self) -> bool {
        self.before.as_ref().is_some_and(|before| before.status != self.to)
    }
}

/// The answers that are events.
#[derive(Clone, Copy)]
pub struct Answers<'a> {
    /// Whether all of them, or the changes alone.
    pub calls: Calls,
    /// The groups that their histories belong to.
    pub groups: &'a AccountGroups,
    /// Whether an answer of this time, and the rows behind the first one, are left for a later page.
    pub is_held: &'a dyn Fn(Time) -> bool,
}

/// Some rows of the audit.
#[derive(Clone, Debug, PartialEq)]
pub struct Page {
    /// The events in them, in order.
    pub events: Vec<Event>,
    /// The last row that was read.
    pub through: i64,
    /// Whether it was the last row of the audit.
    pub is_last: bool,
}

/// The last STATUS of the cards that were read, so that the index is asked once per card. After an error of
/// [`events_after`] it is ahead of the position and must not be used again.
#[derive(Debug, Default)]
pub struct LastStatuses {
    answers: HashMap<History, LastStatus>,
    /// Months that could not be searched, for one warning each.
    unreadable: BTreeSet<Month>,
}

/// The calls among which a STATUS is compared with the one before it.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
struct History {
    /// As the segment has it.
    card: String,
    kind: i64,
    operation: String,
    owner: Owner,
}

/// The group of a call's account; the account alone if the configuration does not have it.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
enum Owner {
    Group(Arc<str>),
    Account(String),
}

impl Owner {
    fn of(account: &str, groups: &AccountGroups) -> Self {
        match groups.get(account) {
            Some(group) => Self::Group(Arc::clone(group)),
            None => Self::Account(account.to_owned()),
        }
    }
}

impl LastStatuses {
    /// Remembers an answer, and returns the one before it.
    fn replace(&mut self, of: History, answer: LastStatus) -> Option<LastStatus> {
        if self.answers.len() >= REMEMBERED && !self.answers.contains_key(&of) {
            self.answers.clear();
        }
        self.answers.insert(of, answer)
    }

    fn warn_of(&mut self, month: Month, error: &StoreError) {
        if self.unreadable.insert(month) {
            tracing::warn!(
                %error,
                "webhook: this month is not searched for earlier STATUS values; changes since then may not be sent"
            );
        }
    }
}

/// The number of the last row of the audit; 0 without one. Blocks.
///
/// # Errors
/// When the newest segment cannot be read.
pub fn head(dir: &Path) -> Result<i64, StoreError> {
    let Some(newest) = month::list(dir)?.into_iter().next() else { return Ok(0) };
    let connection = open(dir, newest, None)?;
    bounds(&connection).map(|bounds| bounds.last).map_err(StoreError::sqlite(&newest.path(dir)))
}

/// The events in the `most` rows behind row `position`; without `answers`, notes alone.
/// Rows of segments that no longer exist are passed over. An older segment that cannot be read has no last known STATUS. Blocks.
///
/// # Errors
/// When the segment of the rows cannot be read, or a newer one.
pub fn events_after(
    dir: &Path,
    position: i64,
    most: i64,
    answers: Option<Answers<'_>>,
    known: &mut LastStatuses,
) -> Result<Page, StoreError> {
    let months = month::list(dir)?;
    let mut segment = None;
    let mut head = position;
    for (index, &month) in months.iter().enumerate() {
        let connection = open(dir, month, None)?;
        let bounds = bounds(&connection).map_err(StoreError::sqlite(&month.path(dir)))?;
        head = head.max(bounds.last);
        if bounds.last > position {
            segment = Some((index, month, connection, bounds));
        }
        if bounds.before <= position {
            break;
        }
    }
    let Some((index, month, connection, bounds)) = segment else {
        return Ok(Page { events: Vec::new(), through: position, is_last: true });
    };
    let first = position.max(bounds.before) + 1;
    let mut through = bounds.last.min(first.saturating_add(most - 1));
    let mut segment =
        Segment { dir, connection: &connection, older: &months[index + 1..], opened: Vec::new() };
    let path = month.path(dir);
    let mut events = Vec::new();
    let mut is_held = false;
    if let Some(of) = answers {
        let (found, held) = segment.answers(first, through, of, known).map_err(StoreError::sqlite(&path))?;
        events = found;
        if of.calls == Calls::Changes {
            events.retain(|event| matches!(&event.kind, EventKind::Status(answer) if answer.is_change()));
        }
        if let Some(held) = held {
            (through, is_held) = (held - 1, true);
        }
    }
    events.extend(segment.notes(first, through).map_err(StoreError::sqlite(&path))?);
    events.sort_by_key(|event| event.row);
    // The rows behind a held answer are read when the audit is looked at again.
    Ok(Page { events, through, is_last: is_held || through >= head })
}

/// The rows of a segment.
#[derive(Clone, Copy)]
pub(super) struct Bounds {
    /// The last row before it.
    pub(super) before: i64,
    /// Its last row, or that before it.
    pub(super) last: i64,
}

pub(super) fn bounds(connection: &Connection) -> rusqlite::Result<Bounds> {
    let before =
        connection.query_row("SELECT before FROM segment", [], |row| row.get(0)).optional()?.unwrap_or(0);
    let last: Option<i64> = connection.query_row("SELECT max(last) FROM batch", [], |row| row.get(0))?;
    Ok(Bounds { before, last: last.unwrap_or(before) })
}

/// A segment whose rows are read, and those before it.
struct Segment<'a> {
    dir: &'a Path,
    connection: &'a Connection,
    /// The months before, newest first.
    older: &'a [Month],
    /// Those of them that were opened; none is one that cannot be read.
    opened: Vec<Option<Connection>>,
}

impl Segment<'_> {
    /// The notes about conditions.
    fn notes(&self, first: i64, last: i64) -> rusqlite::Result<Vec<Event>> {
        let mut notes = self.connection.prepare(
            "SELECT note.id, note.at, name.text, note.detail FROM note JOIN name ON name.id = note.what
             WHERE note.id BETWEEN ?1 AND ?2 AND name.text IN ('alarm', 'breaker')",
        )?;
        let mut rows = notes.query((first, last))?;
        let mut events = Vec::new();
        while let Some(row) = rows.next()? {
            let id = row.get(0)?;
            events.push(Event {
                row: id,
                id: self.message_id(id)?,
                at: Time::from_micros(row.get(1)?),
                kind: EventKind::Note { what: row.get(2)?, detail: row.get(3)? },
            });
        }
        Ok(events)
    }

    /// The calls that answered a STATUS, and the row of the first one that is held.
    fn answers(
        &mut self,
        first: i64,
        last: i64,
        of: Answers<'_>,
        known: &mut LastStatuses,
    ) -> rusqlite::Result<(Vec<Event>, Option<i64>)> {
        let Answers { groups, is_held, .. } = of;
        let connection = self.connection;
        let mut calls = connection.prepare(
            "SELECT call.id, call.at + call.latency, call.card, call.kind, call.masked, keyed.text, account.text,
                    operation.text, call.transid, call.status
             FROM call
             JOIN name AS account ON account.id = call.account
             JOIN name AS operation ON operation.id = call.operation
             LEFT JOIN name AS keyed ON keyed.id = call.key
             WHERE call.id BETWEEN ?1 AND ?2 AND call.status IS NOT NULL AND call.card IS NOT NULL
             ORDER BY call.id",
        )?;
        let mut rows = calls.query((first, last))?;
        let mut events = Vec::new();
        while let Some(row) = rows.next()? {
            let id: i64 = row.get(0)?;
            let now = LastStatus { status: row.get(9)?, at: Time::from_micros(row.get(1)?) };
            if is_held(now.at) {
                return Ok((events, Some(id)));
            }
            let (key, account): (Option<String>, String) = (row.get(5)?, row.get(6)?);
            let of = History {
                card: row.get(2)?,
                kind: row.get::<_, Option<i64>>(3)?.unwrap_or_default(),
                operation: row.get(7)?,
                owner: Owner::of(&account, groups),
            };
            let before = match known.replace(of.clone(), now.clone()) {
                Some(before) => Some(before),
                None => self.last_known(&of, id, key.is_some(), groups, known)?,
            };
            events.push(Event {
                row: id,
                id: self.message_id(id)?,
                at: now.at,
                kind: EventKind::Status(StatusAnswer {
                    kind: kind_of_number(of.kind).map_or("", CardKind::as_str),
                    card: of.card,
                    masked: row.get(4)?,
                    key,
                    account,
                    operation: of.operation,
                    transid: row.get(8)?,
                    before,
                    to: now.status,
                }),
            });
        }
        Ok((events, None))
    }

    /// The last STATUS of a card before a row.
    fn last_known(
        &mut self,
        of: &History,
        row: i64,
        hashed: bool,
        groups: &AccountGroups,
        known: &mut LastStatuses,
    ) -> rusqlite::Result<Option<LastStatus>> {
        if let Some(answer) = last_in(self.connection, of, row, groups)? {
            return Ok(Some(answer));
        }
        // Another month has another hash.
        let older: &[Month] = if hashed { &[] } else { self.older };
        for (index, &month) in older.iter().take(SEGMENTS - 1).enumerate() {
            if index == self.opened.len() {
                let opened = open(self.dir, month, None);
                self.opened.push(opened.inspect_err(|error| known.warn_of(month, error)).ok());
            }
            let Some(connection) = &self.opened[index] else { continue };
            match last_in(connection, of, row, groups) {
                Ok(None) => {}
                Ok(found) => return Ok(found),
                // One damaged month must not stop the webhook for good.
                Err(error) => {
                    known.warn_of(month, &StoreError::sqlite(&month.path(self.dir))(error));
                    self.opened[index] = None;
                }
            }
        }
        Ok(None)
    }

    /// The hash of a batch covers its rows and all before them: with the number of a row it names one row of one audit.
    fn message_id(&self, row: i64) -> rusqlite::Result<String> {
        let hash: Vec<u8> = self
            .connection
            .prepare_cached("SELECT hash FROM batch WHERE last >= ?1 ORDER BY last LIMIT 1")?
            .query_row([row], |row| row.get(0))?;
        let mut digest = Context::new(&SHA256);
        digest.update(b"cmiot-webhook-1\0");
        digest.update(&hash);
        digest.update(&row.to_be_bytes());
        Ok(format!("msg_{}", HEXLOWER.encode(&digest.finish().as_ref()[..16])))
    }
}

/// The last STATUS of a history before a row, in one segment.
fn last_in(
    connection: &Connection,
    of: &History,
    row: i64,
    groups: &AccountGroups,
) -> rusqlite::Result<Option<LastStatus>> {
    let History { card, kind, operation, owner } = of;
    let of_owner = |account: &str| Owner::of(account, groups) == *owner;
    // Calls that are in no run yet: the index visits lookups only there.
    let mut tail = connection.prepare_cached(
        "SELECT call.status, call.at + call.latency, account.text
         FROM call JOIN name AS account ON account.id = call.account
         WHERE call.id > (SELECT coalesce(max(last), 0) FROM card_run) AND call.id < ?1 AND card = ?2 AND kind = ?3
           AND operation = (SELECT id FROM name WHERE text = ?4) AND status IS NOT NULL
         ORDER BY call.id DESC",
    )?;
    let mut in_tail = tail.query((row, card, kind, operation))?;
    while let Some(found) = in_tail.next()? {
        if of_owner(found.get_ref(2)?.as_str()?) {
            return answer(found).map(Some);
        }
    }
    let mut call = connection.prepare_cached(
        "SELECT status, at + latency, account.text FROM call JOIN name AS account ON account.id = call.account
         WHERE call.id = ?1 AND kind = ?2 AND operation = (SELECT id FROM name WHERE text = ?3)
           AND status IS NOT NULL",
    )?;
    let mut lookup = connection.prepare_cached(
        "SELECT status, at - coalesce(age, 0) FROM record
         WHERE id = ?1 AND kind = ?2 AND operation = (SELECT id FROM name WHERE text = ?3) AND status IS NOT NULL
           AND \"group\" = (SELECT id FROM name WHERE text = ?4)",
    )?;
    let (mut called, mut looked_up, mut visited) = (None, None, 0);
    for_card(connection, &[card.clone(), card.clone()], &(0..=row - 1), &mut |id| {
        visited += 1;
        let found = call.query_row((id, kind, operation), |row| {
            of_owner(row.get_ref(2)?.as_str()?).then(|| answer(row)).transpose()
        });
        called = found.optional()?.flatten();
        if let (None, None, Owner::Group(group)) = (&called, &looked_up, owner) {
            looked_up = lookup.query_row((id, kind, operation, group), answer).optional()?;
        }
        let done = called.is_some() || visited >= SEARCHED;
        Ok(if done { ControlFlow::Break(()) } else { ControlFlow::Continue(()) })
    })?;
    Ok(called.or(looked_up))
}

fn answer(row: &rusqlite::Row<'_>) -> rusqlite::Result<LastStatus> {
    Ok(LastStatus { status: row.get(0)?, at: Time::from_micros(row.get(1)?) })
}
