//! One transaction's worth: rows into their tables, names into numbers, all of it into the chain.

use std::collections::HashMap;
use std::sync::LazyLock;

use rusqlite::types::Null;
use rusqlite::{CachedStatement, Connection, params};

use super::Clip;
use super::chain::{Digest, Hash, Limits};
use super::identity::{IdentityKey, Shown};
use super::row::Row;
use super::table::{Cell, TABLES, VERSION};

/// Numbers of the names in a file.
pub(super) type Names = HashMap<Box<str>, i64>;

/// How far a segment has got.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Head {
    /// The last row's number.
    pub(super) last: i64,
    /// The last batch's horizon, in microseconds since 1970.
    pub(super) horizon: i64,
    /// The last batch's hash, or the segment's seed.
    pub(super) hash: Hash,
}

/// A row that is to be found by its card; ordered by card, then number.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(super) struct Carded {
    /// As it stands in the file; a keyed hash is the longest.
    pub(super) card: Clip<32>,
    pub(super) id: i64,
}

/// The statements that insert, in the order of the tables.
static INSERTS: LazyLock<[String; TABLES.len()]> =
    LazyLock::new(|| std::array::from_fn(|table| TABLES[table].insert_sql()));

/// Inserts rows, of which there is at least one, and their batch; puts those that have a card into `carded`.
pub(super) fn append<'a>(
    connection: &Connection,
    names: &mut Names,
    key: Option<&IdentityKey>,
    head: Head,
    rows: impl Iterator<Item = &'a Row>,
    carded: &mut Vec<Carded>,
) -> rusqlite::Result<Head> {
    let mut inserts: [Option<CachedStatement<'_>>; TABLES.len()] = [const { None }; TABLES.len()];
    let mut digest = Digest::batch(&head.hash);
    let mut shown = Shown::default();
    let first = head.last + 1;
    let Head { mut last, mut horizon, .. } = head;
    let mut begins = i64::MAX;
    for row in rows {
        last += 1;
        let at = row.at().as_micros();
        (begins, horizon) = (begins.min(at), horizon.max(at));
        shown.show(row.card(), row.peer(), key);
        if let Some(card) = shown.card() {
            carded.push(Carded { card: Clip::new(card), id: last });
        }
        let mut cells = Vec::with_capacity(24);
        let table = row.cells(&shown, &mut cells);
        digest.row(TABLES[table].letter, last);
        cells.iter().for_each(|cell| digest.cell(*cell));
        let insert = match &mut inserts[table] {
            Some(insert) => insert,
            unprepared => unprepared.insert(connection.prepare_cached(&INSERTS[table])?),
        };
        insert.raw_bind_parameter(1, last)?;
        for (place, cell) in (2..).zip(&cells) {
            match *cell {
                Cell::Null => insert.raw_bind_parameter(place, Null)?,
                Cell::Int(number) => insert.raw_bind_parameter(place, number)?,
                Cell::Text(text) => insert.raw_bind_parameter(place, text)?,
                Cell::Name(text) => insert.raw_bind_parameter(place, number(connection, names, text)?)?,
            }
        }
        insert.raw_execute()?;
    }
    let hash = digest.finish_batch(Limits { version: VERSION, first, last, begins, horizon });
    connection
        .prepare_cached(
            "INSERT INTO batch (last, first, version, begins, horizon, hash) VALUES (?1, ?2, ?3, ?4, ?5, ?6)",
        )?
        .execute(params![last, first, VERSION, begins, horizon, hash.as_bytes()])?;
    Ok(Head { last, horizon, hash })
}

/// The number of a name in this file, given out at its first use.
fn number(connection: &Connection, names: &mut Names, text: &str) -> rusqlite::Result<i64> {
    if let Some(&number) = names.get(text) {
        return Ok(number);
    }
    connection.prepare_cached("INSERT INTO name (text) VALUES (?1)")?.execute([text])?;
    let number = connection.last_insert_rowid();
    names.insert(text.into(), number);
    Ok(number)
}
