//! One transaction's worth: rows into their tables, names into numbers, all of it into the chain.
//!
//! Look-ups come in numbers: they are inserted [`WIDE`] a statement. `OR ROLLBACK`: a batch is written whole or not at
//! all, so that SQLite need not be able to take back one statement.

use std::collections::HashMap;
use std::sync::LazyLock;

use rusqlite::{Connection, params};

use super::chain::{Digest, Limits};
use super::columns::{RECORD, TABLES, VERSION, Value};
use super::identity::IdentityKey;
use super::insert::Insert;
use super::link::Head;
use super::row::{Row, RowIdentity};

/// Look-ups that one statement inserts. More of them would spare little: what is done once a statement is a small part
/// of it by then.
const WIDE: usize = 16;

/// Numbers of the names in a file.
pub(crate) type Names = HashMap<Box<str>, i64>;

/// The statements that insert one row, in the order of the tables.
static INSERTS: LazyLock<[String; TABLES.len()]> =
    LazyLock::new(|| std::array::from_fn(|table| TABLES[table].insert_sql(1)));
/// The statement that inserts [`WIDE`] look-ups.
static INSERT_WIDE: LazyLock<String> = LazyLock::new(|| TABLES[RECORD].insert_sql(WIDE));

/// Inserts rows, of which there is at least one, and their batch. `with_card` gets the card, as it is written, and the
/// number of each row that has one.
pub(crate) fn append<'a>(
    connection: &Connection,
    names: &mut Names,
    key: Option<&IdentityKey>,
    head: Head,
    rows: impl Iterator<Item = &'a Row> + Clone,
    mut with_card: impl FnMut(&str, i64),
) -> rusqlite::Result<Head> {
    let mut inserts: [Option<Insert<'_, '_>>; TABLES.len()] = [const { None }; TABLES.len()];
    let mut wide: Option<Insert<'_, '_>> = None;
    let look_ups = rows.clone().filter(|row| matches!(row, Row::LookUp(_))).count();
    // Full statements first; what is left over is inserted one by one.
    let mut in_wide = look_ups - look_ups % WIDE;
    let mut digest = Digest::batch(&head.hash);
    let shown = RowIdentity::all(rows.clone(), key);
    let first = head.last + 1;
    let Head { mut last, mut horizon, .. } = head;
    let mut begins = i64::MAX;
    let mut cells = Vec::with_capacity(24);
    for (row, shown) in rows.zip(&shown) {
        last += 1;
        let at = row.at().as_micros();
        (begins, horizon) = (begins.min(at), horizon.max(at));
        if let Some(card) = shown.card(row.card()) {
            with_card(card, last);
        }
        let table = row.cells(shown, &mut cells);
        digest.row(TABLES[table].letter, last);
        cells.iter().for_each(|cell| digest.cell(*cell));
        let (insert, sql, count) = if table == RECORD && in_wide > 0 {
            in_wide -= 1;
            (&mut wide, &INSERT_WIDE[..], WIDE)
        } else {
            (&mut inserts[table], &INSERTS[table][..], 1)
        };
        let insert = match insert {
            Some(insert) => insert,
            unprepared => {
                let parameters = count * (cells.len() + 1);
                unprepared.insert(Insert::new(connection.prepare_cached(sql)?, parameters))
            }
        };
        insert.bind(Value::Int(last), None)?;
        for &cell in &cells {
            let number = match cell {
                Value::Name(text) if !insert.stands(cell) => Some(number(connection, names, text)?),
                _ => None,
            };
            insert.bind(cell, number)?;
        }
        insert.execute_if_full()?;
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
