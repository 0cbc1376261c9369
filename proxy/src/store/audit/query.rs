//! Questions to the audit: look-ups newest first, one look-up with its calls, status changes, figures by hour or day.
//!
//! Every question opens the segments read-only for itself, sees one state of each and ends by itself; nothing is held
//! between pages. Numbers count on from segment to segment, so a number is the cursor of a page.

mod changes;
pub(crate) mod range;
mod stats;

use std::ops::{ControlFlow, RangeInclusive};
use std::path::Path;

use cmiot_signer::Card;
use rusqlite::types::ValueRef;
use rusqlite::{Connection, OptionalExtension, ToSql};

use self::range::numbers;
use super::index::find::for_card;
use super::log::identity::IdentityKey;
use super::log::month::{self, Month};
use crate::clock::{Clock, Time};
use crate::store::schema::{self, Kind};
use crate::store::{Fault, StoreError};

pub use self::changes::changes;
pub use self::stats::{Bucket, Stats, figures};

/// Which look-ups; what is none is not asked for.
#[derive(Clone, Debug, Default)]
pub struct Filter {
    /// About this card; where the audit has hashes, by the keys that are in the folder.
    pub card: Option<Card>,
    /// By the client's appid.
    pub client: Option<String>,
    /// By the account that the carrier was asked with.
    pub account: Option<String>,
    /// From this address.
    pub peer: Option<String>,
    /// With this transid, the gateway's or the carrier's.
    pub transid: Option<String>,
    /// That ended so: `hit`, `refused`, ...
    pub outcome: Option<String>,
    /// Answered with this code.
    pub code: Option<String>,
    /// Answered with this STATUS.
    pub status: Option<String>,
    /// At this time or later.
    pub since: Option<Time>,
    /// Before this time.
    pub until: Option<Time>,
    /// Of a smaller number than this: the last one of the page before.
    pub before: Option<i64>,
}

/// A value, as the views show it.
#[derive(Clone, Debug, PartialEq)]
pub enum Field {
    /// Nothing.
    Null,
    /// A number.
    Int(i64),
    /// A number with a fraction.
    Real(f64),
    /// A text.
    Text(String),
}

/// One row's values, in the order of its columns.
pub type Fields = Vec<Field>;

/// The columns of a look-up, in the order of its fields.
pub const LOOKUP: [&str; 22] = [
    "id",
    "time",
    "client",
    "group",
    "account",
    "peer",
    "operation",
    "kind",
    "card",
    "transid",
    "outcome",
    "reason",
    "code",
    "meaning",
    "carrier_code",
    "status",
    "card_is",
    "age_s",
    "carrier_transid",
    "latency_ms",
    "authenticated",
    "masked",
];

/// The columns of a carrier call, in the order of its fields.
pub const CALL: [&str; 14] = [
    "id",
    "time",
    "transid",
    "previous",
    "account",
    "operation",
    "kind",
    "card",
    "code",
    "fault",
    "status",
    "latency_ms",
    "bytes",
    "masked",
];

/// The columns of a status change.
pub const CHANGE: [&str; 7] = ["card", "kind", "from", "to", "after", "before", "lookup"];

/// What stops a question that takes too long: the clock, and by its monotonic time when.
pub type Limit<'a> = Option<(&'a Clock, std::time::Duration)>;

/// The newest look-ups first, at most `limit` of them. Blocks.
///
/// # Errors
/// When a segment cannot be read, or the time is over.
pub fn look_ups(
    dir: &Path,
    filter: &Filter,
    limit: usize,
    until: Limit<'_>,
) -> Result<Vec<Fields>, StoreError> {
    let mut found = Vec::new();
    for month in month::list(dir)? {
        if found.len() >= limit {
            break;
        }
        // Rows may be dated a little before or after their month, by a clock that was stepped.
        let connection = open(dir, month, until)?;
        let mut take = |row: Vec<Field>| {
            found.push(row);
            if found.len() < limit { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
        };
        of_segment(&connection, dir, month, filter, &mut take)
            .map_err(StoreError::sqlite(&month.path(dir)))?;
    }
    Ok(found)
}

/// A look-up of this number, and the carrier calls that it cost, the last first. Blocks.
///
/// # Errors
/// When a segment cannot be read.
pub fn show(dir: &Path, id: i64) -> Result<Option<(Fields, Vec<Fields>)>, StoreError> {
    for month in month::list(dir)? {
        let path = month.path(dir);
        let sqlite = StoreError::sqlite(&path);
        let connection = open(dir, month, None)?;
        let sql = format!("SELECT {} FROM lookup WHERE id = ?1", columns(&LOOKUP));
        let row =
            connection.query_row(&sql, [id], |row| fields(row, LOOKUP.len())).optional().map_err(sqlite)?;
        let Some(row) = row else { continue };
        let sql = format!(
            "SELECT {} FROM carrier_call WHERE id IN (SELECT call FROM lookup_call WHERE lookup = ?1) ORDER BY id DESC",
            columns(&CALL)
        );
        let calls = connection
            .prepare(&sql)
            .and_then(|mut calls| {
                calls.query_map([id], |row| fields(row, CALL.len()))?.collect::<rusqlite::Result<Vec<_>>>()
            })
            .map_err(sqlite)?;
        return Ok(Some((row, calls)));
    }
    Ok(None)
}

/// Every look-up of a month, the oldest first. Blocks; one state of the segment. How many there are is told first.
///
/// # Errors
/// When the segment cannot be read; what `visit` returns.
pub fn every<E: From<StoreError>>(
    dir: &Path,
    month: Month,
    mut visit: impl FnMut(u64, &[Field]) -> Result<(), E>,
) -> Result<(), E> {
    let path = month::of_month(dir, month)?;
    let sqlite = StoreError::sqlite(&path);
    let connection = open(dir, month, None)?;
    let count: i64 =
        connection.query_row("SELECT count(*) FROM record", [], |row| row.get(0)).map_err(sqlite)?;
    let sql = format!("SELECT {} FROM lookup ORDER BY id", columns(&LOOKUP));
    let mut all = connection.prepare(&sql).map_err(sqlite)?;
    let mut rows = all.query([]).map_err(sqlite)?;
    while let Some(row) = rows.next().map_err(sqlite)? {
        visit(count.unsigned_abs(), &fields(row, LOOKUP.len()).map_err(sqlite)?)?;
    }
    Ok(())
}

fn open(dir: &Path, month: Month, limit: Limit<'_>) -> Result<Connection, StoreError> {
    let path = month.path(dir);
    let mut connection = schema::open_read_only(&path, Kind::Audit)?;
    // One state of the segment for all that a question reads of it.
    connection.execute_batch("BEGIN").map_err(StoreError::sqlite(&path))?;
    if let Some((clock, end)) = limit {
        let clock = clock.clone();
        connection
            .progress_handler(10_000, Some(move || clock.monotonic() > end))
            .map_err(StoreError::sqlite(&path))?;
    }
    Ok(connection)
}

fn of_segment(
    connection: &Connection,
    dir: &Path,
    month: Month,
    filter: &Filter,
    take: &mut dyn FnMut(Vec<Field>) -> ControlFlow<()>,
) -> rusqlite::Result<()> {
    let Some(ids) = numbers(connection, filter)? else { return Ok(()) };
    let mut conditions = vec!["record.id BETWEEN ?1 AND ?2".to_owned()];
    let mut given: Vec<Box<dyn ToSql>> = vec![Box::new(*ids.start()), Box::new(*ids.end())];
    let mut ask = |condition: &str, value: Box<dyn ToSql>| {
        given.push(value);
        conditions.push(condition.replace('?', &format!("?{}", given.len())));
    };
    let Filter { client, account, peer, transid, outcome, code, status, since, until, .. } = filter;
    for (condition, value) in [
        ("record.client = ?", client),
        ("record.account = (SELECT id FROM name WHERE text = ?)", account),
        ("record.peer = ?", peer),
        ("(record.transid = ? OR record.carrier_transid = ?)", transid),
        ("record.outcome = (SELECT id FROM name WHERE text = ?)", outcome),
        ("record.code = ?", code),
        ("record.status = ?", status),
    ] {
        if let Some(value) = value {
            ask(condition, Box::new(value.clone()));
        }
    }
    for (condition, value) in [("record.at >= ?", since), ("record.at < ?", until)] {
        if let Some(value) = value {
            ask(condition, Box::new(value.as_micros()));
        }
    }
    let shown = LOOKUP.map(|column| format!("lookup.\"{column}\"")).join(", ");
    let conditions = conditions.join(" AND ");
    let sql = format!(
        "SELECT {shown} FROM record CROSS JOIN lookup ON lookup.id = record.id WHERE {conditions} ORDER BY record.id DESC"
    );
    let mut statement = connection.prepare(&sql)?;
    let mut run =
        |ids: RangeInclusive<i64>, given: &mut Vec<Box<dyn ToSql>>| -> rusqlite::Result<ControlFlow<()>> {
            (given[0], given[1]) = (Box::new(*ids.start()), Box::new(*ids.end()));
            let mut rows = statement.query(rusqlite::params_from_iter(given.iter()))?;
            while let Some(row) = rows.next()? {
                if take(fields(row, LOOKUP.len())?).is_break() {
                    return Ok(ControlFlow::Break(()));
                }
            }
            Ok(ControlFlow::Continue(()))
        };
    let Some(card) = &filter.card else {
        return run(ids, &mut given).map(|_| ());
    };
    for_card(connection, &spellings(dir, month, card), &ids, &mut |id| run(id..=id, &mut given))
}

/// How a card may stand in a month: as it is, and hashed.
fn spellings(dir: &Path, month: Month, card: &Card) -> [String; 2] {
    let plain = card.as_str().to_owned();
    // A key that cannot be read is as good as none: the rows are not found by it.
    let key = IdentityKey::read(dir, month).ok().flatten();
    let hashed = key.map_or_else(|| plain.clone(), |key| key.hash(card.kind(), card.as_str()));
    [plain, hashed]
}

fn columns(names: &[&str]) -> String {
    names.iter().map(|name| format!("\"{name}\"")).collect::<Vec<_>>().join(", ")
}

fn fields(row: &rusqlite::Row<'_>, count: usize) -> rusqlite::Result<Vec<Field>> {
    (0..count)
        .map(|place| {
            Ok(match row.get_ref(place)? {
                ValueRef::Null | ValueRef::Blob(_) => Field::Null,
                ValueRef::Integer(number) => Field::Int(number),
                ValueRef::Real(number) => Field::Real(number),
                ValueRef::Text(text) => Field::Text(String::from_utf8_lossy(text).into_owned()),
            })
        })
        .collect()
}

/// Whether an error means that the time was over.
pub fn timed_out(error: &StoreError) -> bool {
    matches!(error.fault(), Fault::Sqlite { code: Some(rusqlite::ErrorCode::OperationInterrupted), .. })
}

#[cfg(test)]
mod tests;
