//! Rows of other kinds than lookups, newest first: carrier calls, notes, counted refusals. And the carrier calls of many
//! lookups.

use std::collections::HashMap;
use std::path::Path;

use rusqlite::types::Value;

use super::events::bounds;
use super::range::row_numbers;
use super::row::{NOTES, REFUSALS};
use super::{CALL, Deadline, Fields, Filter, NOTE, REFUSED, ViewColumn, fields, open};
use crate::clock::Time;
use crate::store::StoreError;
use crate::store::audit::log::columns::select_list;
use crate::store::audit::log::month;
use crate::store::schema;

/// A kind of row.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Listed {
    /// Attempts at the carrier.
    Calls,
    /// Notes.
    Notes,
    /// Counts of refused requests.
    Refusals,
}

impl Listed {
    /// The columns of its rows.
    pub fn columns(self) -> &'static [ViewColumn] {
        match self {
            Self::Calls => CALL,
            Self::Notes => NOTE,
            Self::Refusals => REFUSED,
        }
    }

    /// The source of its columns, its table, and the table's time of a row.
    fn source(self) -> (&'static str, &'static str, &'static str) {
        match self {
            Self::Calls => ("carrier_call", "call", "at"),
            Self::Notes => (NOTES, "note", "at"),
            Self::Refusals => (REFUSALS, "refused", "last"),
        }
    }

    /// A field of the filter that rows of this kind do not have; none if all can be applied.
    pub fn unknown_field(self, filter: &Filter) -> Option<&'static str> {
        let Filter { client, account, peer, transid, outcome, code, status, .. } = filter;
        let fields = [
            ("client", client, false),
            ("outcome", outcome, false),
            ("account", account, self == Self::Calls),
            ("transid", transid, self == Self::Calls),
            ("code", code, self == Self::Calls),
            ("status", status, self == Self::Calls),
            ("peer", peer, self == Self::Refusals),
        ];
        fields.into_iter().find(|(_, value, has)| value.is_some() && !has).map(|(name, ..)| name)
    }

    /// The conditions on the columns that the filter's fields are about. [`Self::unknown_field`] finds those without a column.
    fn conditions(self, filter: &Filter) -> Vec<(&'static str, String)> {
        let of = |column: &'static str, value: &Option<String>| value.clone().map(|value| (column, value));
        let all = match self {
            Self::Calls => vec![
                of("account", &filter.account),
                of("transid", &filter.transid),
                of("code", &filter.code),
                of("fault", &filter.reason),
                of("status", &filter.status),
            ],
            Self::Notes => vec![of("what", &filter.reason)],
            Self::Refusals => vec![of("peer", &filter.peer), of("reason", &filter.reason)],
        };
        all.into_iter().flatten().collect()
    }
}

/// The newest rows of a kind that meet the filter, newest first, at most `limit` of them. `reason` is the fault of a call, and
/// the kind of a note. Blocks.
///
/// # Errors
/// When a segment cannot be read, or the deadline has passed.
pub fn list(
    dir: &Path,
    listed: Listed,
    filter: &Filter,
    limit: usize,
    deadline: Option<&Deadline>,
) -> Result<Vec<Fields>, StoreError> {
    let (source, table, at) = listed.source();
    let conditions = listed.conditions(filter);
    let mut sql = String::new();
    for (index, (column, _)) in conditions.iter().enumerate() {
        sql.push_str(&format!(" AND shown.\"{column}\" = ?{}", index + 6));
    }
    let mut found = Vec::new();
    for month in month::list(dir)? {
        if found.len() >= limit {
            break;
        }
        let path = month.path(dir);
        let sqlite = StoreError::sqlite(&path);
        let connection = open(dir, month, deadline)?;
        let Some(ids) = row_numbers(&connection, filter).map_err(sqlite)? else { continue };
        let version = schema::version_of(&connection).map_err(sqlite)?;
        let columns = select_list(listed.columns(), version);
        let sql = format!(
            "SELECT {columns} FROM {source} AS shown WHERE id IN
               (SELECT id FROM {table} WHERE id BETWEEN ?1 AND ?2 AND {at} >= ?3 AND {at} < ?4){sql}
             ORDER BY id DESC LIMIT ?5"
        );
        let times = [
            filter.since.map_or(i64::MIN, Time::as_micros),
            filter.until.map_or(i64::MAX, Time::as_micros),
            i64::try_from(limit - found.len()).unwrap_or(i64::MAX),
        ];
        let numbers = [*ids.start(), *ids.end()].into_iter().chain(times).map(Value::Integer);
        let values = numbers.chain(conditions.iter().map(|(_, value)| Value::Text(value.clone())));
        let mut rows = connection.prepare(&sql).map_err(sqlite)?;
        let rows =
            rows.query_map(rusqlite::params_from_iter(values), |row| fields(row, listed.columns().len()));
        let rows = rows.and_then(Iterator::collect::<rusqlite::Result<Vec<_>>>).map_err(sqlite)?;
        found.extend(rows);
    }
    Ok(found)
}

/// The carrier calls of each of these lookups, the last call first, their fields in the order of [`CALL`]. Blocks.
///
/// # Errors
/// When a segment cannot be read, or the deadline has passed.
pub fn calls_of(
    dir: &Path,
    lookups: &[i64],
    deadline: Option<&Deadline>,
) -> Result<HashMap<i64, Vec<Fields>>, StoreError> {
    let mut found: HashMap<i64, Vec<Fields>> = HashMap::new();
    let Some(oldest) = lookups.iter().min() else { return Ok(found) };
    for month in month::list(dir)? {
        let path = month.path(dir);
        let sqlite = StoreError::sqlite(&path);
        let connection = open(dir, month, deadline)?;
        let segment = bounds(&connection).map_err(sqlite)?;
        let version = schema::version_of(&connection).map_err(sqlite)?;
        let sql = format!(
            "SELECT {} FROM carrier_call WHERE id IN (SELECT call FROM lookup_call WHERE lookup = ?1) ORDER BY id DESC",
            select_list(CALL, version)
        );
        let mut calls = connection.prepare(&sql).map_err(sqlite)?;
        for &id in lookups.iter().filter(|id| (segment.before + 1..=segment.last).contains(*id)) {
            let rows = calls.query_map([id], |row| fields(row, CALL.len()));
            let rows = rows.and_then(Iterator::collect::<rusqlite::Result<Vec<_>>>).map_err(sqlite)?;
            found.insert(id, rows);
        }
        if segment.before < *oldest {
            break;
        }
    }
    Ok(found)
}
