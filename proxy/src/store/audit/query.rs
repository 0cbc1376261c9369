//! Queries: lookups newest first, one row of any kind, status changes, statistics per hour or day.
//!
//! Each query opens the segments read-only with connections of its own and sees one state of each; nothing stays open
//! between pages. Row numbers continue from segment to segment, so a row number is the cursor of a page.

mod changes;
mod events;
mod fold;
mod list;
pub(crate) mod range;
mod row;
mod stats;
mod tail;

use std::ops::{ControlFlow, RangeInclusive};
use std::path::{Path, PathBuf};
use std::time::Duration;

use cmiot_signer::Card;
use rusqlite::types::ValueRef;
use rusqlite::{Connection, OptionalExtension, ToSql};

use self::range::row_numbers;
use super::index::find::for_card;
use super::log::chain::Hash;
use super::log::columns::select_list;
use super::log::identity::IdentityKey;
use super::log::link;
use super::log::month::{self, Month};
use crate::clock::{Clock, Time};
use crate::store::schema::{self, Kind};
use crate::store::{Fault, StoreError};

pub use self::changes::changes;
pub use self::events::{
    AccountGroups, Answers, Calls, Event, EventKind, LastStatus, LastStatuses, Page, StatusAnswer,
    events_after, head,
};
pub use self::fold::{Counted, CountedLookup, first_row_since, fold};
pub use self::list::{Listed, calls_of, list};
pub use self::row::{ShownRow, row};
pub use self::stats::{Bucket, BucketStats, LatencyPercentiles, Stats, stats};
pub use self::tail::{NewRows, Tail, TailRow};
pub use super::log::columns::{CALL, CHANGE, GAP, LOOKUP, NOTE, REFUSED, ViewColumn, ViewKind, position};

/// The lookups to find: those that meet every condition that is set.
#[derive(Clone, Debug, Default)]
pub struct Filter {
    /// The card; where the audit has hashes, found by the keys in the folder.
    pub card: Option<Card>,
    /// The client's appid.
    pub client: Option<String>,
    /// The account of the carrier call.
    pub account: Option<String>,
    /// The address that the request came from.
    pub peer: Option<String>,
    /// The transid, the gateway's or the carrier's.
    pub transid: Option<String>,
    /// The outcome: `hit`, `refused`, ...
    pub outcome: Option<String>,
    /// The reason of a refusal or failure.
    pub reason: Option<String>,
    /// The code in the response.
    pub code: Option<String>,
    /// The STATUS in the response.
    pub status: Option<String>,
    /// At this time or later.
    pub since: Option<Time>,
    /// Before this time.
    pub until: Option<Time>,
    /// Row numbers below this one, the last of the previous page.
    pub before: Option<i64>,
}

/// A value as the views show it.
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

/// A row's values, in the order of its columns.
pub type Fields = Vec<Field>;

/// A time limit for a query.
#[derive(Clone, Debug)]
pub struct Deadline {
    /// The clock that it is read from.
    pub clock: Clock,
    /// The monotonic time at which the query stops.
    pub at: Duration,
}

/// A lookup and the carrier calls that it cost.
#[derive(Clone, Debug, PartialEq)]
pub struct LookupWithCalls {
    /// Its fields, in the order of [`LOOKUP`].
    pub lookup: Fields,
    /// The calls, the last first, their fields in the order of [`CALL`].
    pub calls: Vec<Fields>,
}

/// The newest lookups, newest first, at most `limit` of them. Blocks.
///
/// # Errors
/// When a segment cannot be read, or the deadline has passed.
pub fn lookups(
    dir: &Path,
    filter: &Filter,
    limit: usize,
    deadline: Option<&Deadline>,
) -> Result<Vec<Fields>, StoreError> {
    let mut found = Vec::new();
    for month in month::list(dir)? {
        if found.len() >= limit {
            break;
        }
        // Rows may be dated a little before or after their month, by a clock that was stepped.
        let connection = open(dir, month, deadline)?;
        let mut take = |row: Fields| {
            found.push(row);
            if found.len() < limit { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
        };
        in_segment(&connection, dir, month, filter, &mut take)
            .map_err(StoreError::sqlite(&month.path(dir)))?;
    }
    Ok(found)
}

/// The lookup of this number with its carrier calls. Blocks.
///
/// # Errors
/// When a segment cannot be read.
pub fn lookup(dir: &Path, id: i64) -> Result<Option<LookupWithCalls>, StoreError> {
    for month in month::list(dir)? {
        let path = month.path(dir);
        let sqlite = StoreError::sqlite(&path);
        let connection = open(dir, month, None)?;
        let version = schema::version_of(&connection).map_err(sqlite)?;
        let sql = format!("SELECT {} FROM lookup WHERE id = ?1", select_list(LOOKUP, version));
        let row =
            connection.query_row(&sql, [id], |row| fields(row, LOOKUP.len())).optional().map_err(sqlite)?;
        let Some(lookup) = row else { continue };
        let sql = format!(
            "SELECT {} FROM carrier_call WHERE id IN (SELECT call FROM lookup_call WHERE lookup = ?1) ORDER BY id DESC",
            select_list(CALL, version)
        );
        let calls = connection
            .prepare(&sql)
            .and_then(|mut calls| {
                calls.query_map([id], |row| fields(row, CALL.len()))?.collect::<rusqlite::Result<Vec<_>>>()
            })
            .map_err(sqlite)?;
        return Ok(Some(LookupWithCalls { lookup, calls }));
    }
    Ok(None)
}

/// A month's segment in one state, to be exported.
pub struct Export {
    connection: Connection,
    path: PathBuf,
}

/// The rows that an export has in one file.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Exported {
    /// The lookups.
    Lookups,
    /// The carrier calls.
    Calls,
}

impl Exported {
    /// The columns of its rows.
    pub fn columns(self) -> &'static [ViewColumn] {
        match self {
            Self::Lookups => LOOKUP,
            Self::Calls => CALL,
        }
    }
}

impl Export {
    /// Opens the segment of a month. Its state stays the same until this is dropped.
    ///
    /// # Errors
    /// When there is no such segment, or it cannot be read.
    pub fn open(dir: &Path, month: Month) -> Result<Self, StoreError> {
        let path = month::of_month(dir, month)?;
        Ok(Self { connection: open(dir, month, None)?, path })
    }

    /// The last row of the segment and the head of its chain; none if it has no row.
    ///
    /// # Errors
    /// When the segment cannot be read.
    pub fn head(&self) -> Result<Option<(i64, Hash)>, StoreError> {
        let head = link::head(&self.connection).map_err(StoreError::sqlite(&self.path))?;
        Ok(head.map(|head| (head.last, head.hash)))
    }

    /// Visits every row, oldest first. `visit` also gets their number. Blocks.
    ///
    /// # Errors
    /// When the segment cannot be read; the error of `visit`.
    pub fn rows<E: From<StoreError>>(
        &self,
        exported: Exported,
        mut visit: impl FnMut(u64, &[Field]) -> Result<(), E>,
    ) -> Result<(), E> {
        let (table, view) = match exported {
            Exported::Lookups => ("record", "lookup"),
            Exported::Calls => ("call", "carrier_call"),
        };
        let (sqlite, columns) = (StoreError::sqlite(&self.path), exported.columns());
        let version = schema::version_of(&self.connection).map_err(sqlite)?;
        let count: i64 = self
            .connection
            .query_row(&format!("SELECT count(*) FROM {table}"), [], |row| row.get(0))
            .map_err(sqlite)?;
        let sql = format!("SELECT {} FROM {view} ORDER BY id", select_list(columns, version));
        let mut all = self.connection.prepare(&sql).map_err(sqlite)?;
        let mut rows = all.query([]).map_err(sqlite)?;
        while let Some(row) = rows.next().map_err(sqlite)? {
            visit(count.unsigned_abs(), &fields(row, columns.len()).map_err(sqlite)?)?;
        }
        Ok(())
    }
}

/// The number of a row of a view.
pub fn id(row: &[Field]) -> Option<i64> {
    const ID: usize = position(LOOKUP, "id");
    const { assert!(ID == position(CALL, "id")) };
    match row.get(ID) {
        Some(Field::Int(id)) => Some(*id),
        _ => None,
    }
}

/// Opens a segment for one query, which sees one state of it.
fn open(dir: &Path, month: Month, deadline: Option<&Deadline>) -> Result<Connection, StoreError> {
    let path = month.path(dir);
    let mut connection = schema::open_read_only(&path, Kind::Audit)?;
    connection.execute_batch("BEGIN").map_err(StoreError::sqlite(&path))?;
    if let Some(Deadline { clock, at }) = deadline.cloned() {
        connection
            .progress_handler(10_000, Some(move || clock.monotonic() > at))
            .map_err(StoreError::sqlite(&path))?;
    }
    Ok(connection)
}

/// Finds the lookups of one segment that meet the filter, newest first.
fn in_segment(
    connection: &Connection,
    dir: &Path,
    month: Month,
    filter: &Filter,
    take: &mut dyn FnMut(Fields) -> ControlFlow<()>,
) -> rusqlite::Result<()> {
    let Some(ids) = row_numbers(connection, filter)? else { return Ok(()) };
    let mut conditions = Conditions::of(filter);
    let mut statement = connection.prepare(&conditions.sql())?;
    let mut run = |ids: RangeInclusive<i64>| -> rusqlite::Result<ControlFlow<()>> {
        let mut rows = statement.query(conditions.parameters(&ids))?;
        while let Some(row) = rows.next()? {
            if take(fields(row, LOOKUP.len())?).is_break() {
                return Ok(ControlFlow::Break(()));
            }
        }
        Ok(ControlFlow::Continue(()))
    };
    let Some(card) = &filter.card else {
        return run(ids).map(|_| ());
    };
    for_card(connection, &stored_forms(dir, month, card), &ids, &mut |id| run(id..=id))
}

/// The conditions of a filter in SQL, and the values of their parameters. The first two are the range of row numbers.
struct Conditions {
    sql: Vec<String>,
    parameters: Vec<Box<dyn ToSql>>,
}

impl Conditions {
    fn of(filter: &Filter) -> Self {
        let mut conditions = Self {
            sql: vec!["record.id BETWEEN ?1 AND ?2".to_owned()],
            parameters: vec![Box::new(0), Box::new(0)],
        };
        // The card and the numbers are not conditions: the index and the range find the rows.
        let Filter {
            card: _,
            client,
            account,
            peer,
            transid,
            outcome,
            reason,
            code,
            status,
            since,
            until,
            before: _,
        } = filter;
        for (condition, value) in [
            ("record.client = ?", client),
            ("record.account = (SELECT id FROM name WHERE text = ?)", account),
            ("record.peer = ?", peer),
            ("(record.transid = ? OR record.carrier_transid = ?)", transid),
            ("record.outcome = (SELECT id FROM name WHERE text = ?)", outcome),
            ("record.reason = (SELECT id FROM name WHERE text = ?)", reason),
            ("record.code = ?", code),
            ("record.status = ?", status),
        ] {
            if let Some(value) = value {
                conditions.add(condition, Box::new(value.clone()));
            }
        }
        for (condition, value) in [("record.at >= ?", since), ("record.at < ?", until)] {
            if let Some(value) = value {
                conditions.add(condition, Box::new(value.as_micros()));
            }
        }
        conditions
    }

    /// Adds a condition; every `?` in it is the same parameter.
    fn add(&mut self, condition: &str, value: Box<dyn ToSql>) {
        self.parameters.push(value);
        self.sql.push(condition.replace('?', &format!("?{}", self.parameters.len())));
    }

    fn sql(&self) -> String {
        let columns =
            LOOKUP.iter().map(|column| format!("lookup.\"{}\"", column.name)).collect::<Vec<_>>().join(", ");
        format!(
            "SELECT {columns} FROM record CROSS JOIN lookup ON lookup.id = record.id WHERE {} ORDER BY record.id DESC",
            self.sql.join(" AND ")
        )
    }

    fn parameters<'p>(
        &'p mut self,
        ids: &RangeInclusive<i64>,
    ) -> rusqlite::ParamsFromIter<std::slice::Iter<'p, Box<dyn ToSql>>> {
        (self.parameters[0], self.parameters[1]) = (Box::new(*ids.start()), Box::new(*ids.end()));
        rusqlite::params_from_iter(self.parameters.iter())
    }
}

/// The forms in which a month may hold a card: the number itself, and its hash.
fn stored_forms(dir: &Path, month: Month, card: &Card) -> [String; 2] {
    let plain = card.as_str().to_owned();
    // Without a readable key the rows cannot be found by hash.
    let key = IdentityKey::read(dir, month).ok().flatten();
    let hashed = key.map_or_else(|| plain.clone(), |key| key.hash(card.kind(), card.as_str()));
    [plain, hashed]
}

fn fields(row: &rusqlite::Row<'_>, count: usize) -> rusqlite::Result<Fields> {
    (0..count)
        .map(|column| {
            Ok(match row.get_ref(column)? {
                ValueRef::Null | ValueRef::Blob(_) => Field::Null,
                ValueRef::Integer(number) => Field::Int(number),
                ValueRef::Real(number) => Field::Real(number),
                ValueRef::Text(text) => Field::Text(String::from_utf8_lossy(text).into_owned()),
            })
        })
        .collect()
}

/// Whether an error means that the deadline passed.
pub fn timed_out(error: &StoreError) -> bool {
    matches!(error.fault(), Fault::Sqlite { code: Some(rusqlite::ErrorCode::OperationInterrupted), .. })
}

#[cfg(test)]
mod tests;
