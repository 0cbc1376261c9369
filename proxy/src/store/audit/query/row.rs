//! One row of any table, by its number.

use std::path::Path;

use rusqlite::OptionalExtension;

use super::{CALL, Fields, GAP, LookupWithCalls, NOTE, REFUSED, ViewColumn, fields, lookup, open};
use crate::store::StoreError;
use crate::store::audit::log::columns::select_list;
use crate::store::audit::log::month;
use crate::store::schema;

/// One row of the audit.
#[derive(Clone, Debug, PartialEq)]
pub enum ShownRow {
    /// A lookup.
    Lookup(LookupWithCalls),
    /// A row of another table.
    Other {
        /// Its kind, such as `note`.
        kind: &'static str,
        /// The columns, in the order of the fields.
        columns: &'static [ViewColumn],
        /// The fields.
        fields: Fields,
    },
}

/// A time in microseconds as the views show it.
macro_rules! time {
    ($column:literal) => {
        concat!(
            "strftime('%Y-%m-%dT%H:%M:%S', ",
            $column,
            " / 1000000 + 28800, 'unixepoch') || printf('.%03d+08:00', ",
            $column,
            " / 1000 % 1000)"
        )
    };
}

/// Notes with the columns of [`NOTE`].
pub(super) const NOTES: &str = concat!(
    "(SELECT note.id, ",
    time!("at"),
    " AS time, (SELECT text FROM name WHERE name.id = note.what) AS what, detail FROM note)"
);

/// Counts of refused requests with the columns of [`REFUSED`].
pub(super) const REFUSALS: &str = concat!(
    "(SELECT refused.id, ",
    time!("first"),
    " AS first, ",
    time!("last"),
    " AS last, peer, (SELECT text FROM name WHERE name.id = refused.reason) AS reason, count FROM refused)"
);

/// The row of this number, of whatever table. Blocks.
///
/// # Errors
/// When a segment cannot be read.
pub fn row(dir: &Path, id: i64) -> Result<Option<ShownRow>, StoreError> {
    if let Some(lookup) = lookup(dir, id)? {
        return Ok(Some(ShownRow::Lookup(lookup)));
    }
    for month in month::list(dir)? {
        let path = month.path(dir);
        let sqlite = StoreError::sqlite(&path);
        let connection = open(dir, month, None)?;
        let version = schema::version_of(&connection).map_err(sqlite)?;
        for (kind, columns, source) in OTHERS {
            let sql = format!("SELECT {} FROM {source} WHERE id = ?1", select_list(columns, version));
            let found = connection.query_row(&sql, [id], |row| fields(row, columns.len())).optional();
            if let Some(fields) = found.map_err(sqlite)? {
                return Ok(Some(ShownRow::Other { kind, columns, fields }));
            }
        }
    }
    Ok(None)
}

/// The kinds of rows that are no lookups: their columns, and where these are selected from.
const OTHERS: [(&str, &[ViewColumn], &str); 4] = [
    ("carrier call", CALL, "carrier_call"),
    ("note", NOTE, NOTES),
    ("count of refused requests", REFUSED, REFUSALS),
    (
        "count of requests without a record",
        GAP,
        concat!(
            "(SELECT id, ",
            time!("first"),
            " AS first, ",
            time!("last"),
            " AS last, answered, refused FROM gap)"
        ),
    ),
];
