//! Rows in the order of their numbers, each once, for sums that are kept: which rows were read is a range of numbers, whatever
//! the clock did meanwhile.

use std::collections::HashMap;
use std::ops::RangeInclusive;
use std::path::Path;
use std::sync::Arc;

use rusqlite::Connection;

use super::events::bounds;
use super::range::first_since;
use super::{Deadline, open};
use crate::clock::Time;
use crate::store::StoreError;
use crate::store::audit::log::month;

/// A row, as sums count it.
#[derive(Clone, Debug)]
pub enum Counted<'a> {
    /// A lookup.
    Lookup(CountedLookup<'a>),
    /// An attempt at the carrier.
    Call {
        /// When it began.
        at: Time,
        /// Its account.
        account: &'a Arc<str>,
    },
    /// Requests that were refused and only counted.
    Refused {
        /// The last of them.
        at: Time,
        /// The address that they came from; none if there were several.
        peer: Option<&'a str>,
        /// The reason.
        reason: &'a Arc<str>,
        /// The number of requests.
        count: u64,
    },
}

/// A lookup, as sums count it.
#[derive(Clone, Debug)]
pub struct CountedLookup<'a> {
    /// Its arrival.
    pub at: Time,
    /// The outcome.
    pub outcome: &'a Arc<str>,
    /// The reason, if it was refused or failed.
    pub reason: Option<&'a Arc<str>>,
    /// The client; only claimed unless `authenticated`.
    pub client: Option<&'a str>,
    /// Whether the token was right.
    pub authenticated: bool,
    /// The address that it came from.
    pub peer: &'a str,
    /// The gateway's transid.
    pub transid: Option<&'a str>,
    /// Microseconds from its arrival until its record.
    pub latency: u32,
}

/// The number of the first row that can be at `since` or later; none without such a row. Blocks.
///
/// # Errors
/// When a segment cannot be read.
pub fn first_row_since(dir: &Path, since: Time) -> Result<Option<i64>, StoreError> {
    let mut first = None;
    for month in month::list(dir)? {
        let path = month.path(dir);
        let sqlite = StoreError::sqlite(&path);
        let connection = open(dir, month, None)?;
        let Some(found) = first_since(&connection, since).map_err(sqlite)? else { break };
        first = Some(found);
        if found > bounds(&connection).map_err(sqlite)?.before + 1 {
            break;
        }
    }
    Ok(first)
}

/// Visits the rows with these numbers: the lookups, then the calls, then the counted refusals of each segment. Blocks.
///
/// # Errors
/// When a segment cannot be read, or the deadline has passed; some rows were visited then.
pub fn fold(
    dir: &Path,
    ids: &RangeInclusive<i64>,
    deadline: Option<&Deadline>,
    visit: &mut dyn FnMut(Counted<'_>),
) -> Result<(), StoreError> {
    for month in month::list(dir)? {
        let path = month.path(dir);
        let sqlite = StoreError::sqlite(&path);
        let connection = open(dir, month, deadline)?;
        let segment = bounds(&connection).map_err(sqlite)?;
        if segment.last >= *ids.start() && segment.before < *ids.end() {
            in_segment(&connection, (*ids.start(), *ids.end()), visit).map_err(sqlite)?;
        }
        if segment.before < *ids.start() {
            break;
        }
    }
    Ok(())
}

fn in_segment(
    connection: &Connection,
    span: (i64, i64),
    visit: &mut dyn FnMut(Counted<'_>),
) -> rusqlite::Result<()> {
    let names = names(connection)?;
    let unknown: Arc<str> = "".into();
    let name = |number: i64| names.get(&number).unwrap_or(&unknown);
    let mut lookups = connection.prepare(
        "SELECT at, outcome, reason, client, authenticated, peer, transid, latency FROM record WHERE id BETWEEN ?1 AND ?2",
    )?;
    let mut rows = lookups.query(span)?;
    while let Some(row) = rows.next()? {
        visit(Counted::Lookup(CountedLookup {
            at: Time::from_micros(row.get(0)?),
            outcome: name(row.get(1)?),
            reason: row.get::<_, Option<i64>>(2)?.map(name),
            client: row.get_ref(3)?.as_str_or_null()?,
            authenticated: row.get(4)?,
            peer: row.get_ref(5)?.as_str()?,
            transid: row.get_ref(6)?.as_str_or_null()?,
            latency: u32::try_from(row.get::<_, i64>(7)?).unwrap_or(u32::MAX),
        }));
    }
    let mut calls = connection.prepare("SELECT at, account FROM call WHERE id BETWEEN ?1 AND ?2")?;
    let mut rows = calls.query(span)?;
    while let Some(row) = rows.next()? {
        visit(Counted::Call { at: Time::from_micros(row.get(0)?), account: name(row.get(1)?) });
    }
    let mut refused =
        connection.prepare("SELECT last, peer, reason, count FROM refused WHERE id BETWEEN ?1 AND ?2")?;
    let mut rows = refused.query(span)?;
    while let Some(row) = rows.next()? {
        visit(Counted::Refused {
            at: Time::from_micros(row.get(0)?),
            peer: row.get_ref(1)?.as_str_or_null()?,
            reason: name(row.get(2)?),
            count: row.get::<_, i64>(3)?.unsigned_abs(),
        });
    }
    Ok(())
}

/// The names of a segment, by number.
pub(super) fn names(connection: &Connection) -> rusqlite::Result<HashMap<i64, Arc<str>>> {
    let mut names = connection.prepare("SELECT id, text FROM name")?;
    let named = names.query_map([], |row| Ok((row.get(0)?, Arc::from(row.get_ref(1)?.as_str()?))))?;
    named.collect()
}
