//! One batch: inserts its rows into their tables, replaces names by numbers, and extends the chain.
//!
//! Lookups are many: one statement inserts [`WIDE`] of them. `OR ROLLBACK`: a batch is written whole or not at all, so that
//! SQLite need not be able to undo one statement.

use std::collections::HashMap;
use std::sync::LazyLock;

use foldhash::fast::RandomState;
use rusqlite::{Connection, params};

use super::chain::{Digest, Limits};
use super::columns::{Table, VERSION};
use super::identity::IdentityKey;
use super::insert::Insert;
use super::link::Head;
use super::row::{self, Row};
use super::value::Value;

/// Lookups per statement. More would save little: the cost per statement is a small part of the cost by then.
const WIDE: usize = 16;

/// The numbers of the names in a file.
pub(crate) type Names = HashMap<Box<str>, i64, RandomState>;

/// The statements that insert one row, by version and table.
static INSERTS: LazyLock<[[String; Table::ALL.len()]; VERSION as usize]> = LazyLock::new(|| {
    std::array::from_fn(|index| Table::ALL.map(|table| table.insert_sql(1, index as i64 + 1)))
});
/// The statement that inserts [`WIDE`] lookups, whose columns are the same in all versions.
static INSERT_WIDE: LazyLock<String> = LazyLock::new(|| Table::Record.insert_sql(WIDE, VERSION));

/// Inserts rows (at least one) and their batch into a segment of this version. `with_card` gets the card, as it is written, and the number of each row
/// that has one.
pub(crate) fn append<'a>(
    connection: &Connection,
    names: &mut Names,
    key: Option<&IdentityKey>,
    version: i64,
    head: Head,
    rows: impl Iterator<Item = &'a Row> + Clone,
    mut with_card: impl FnMut(&str, i64),
) -> rusqlite::Result<Head> {
    let mut inserts: [Option<Insert<'_, '_>>; Table::ALL.len()] = [const { None }; Table::ALL.len()];
    let mut wide: Option<Insert<'_, '_>> = None;
    let lookups = rows.clone().filter(|row| matches!(row, Row::Lookup(_))).count();
    // Full statements first; single inserts for the rest.
    let mut in_wide = lookups - lookups % WIDE;
    let mut digest = Digest::batch(&head.hash);
    let singles = &INSERTS[usize::try_from(version - 1).unwrap_or(0).min(INSERTS.len() - 1)];
    let identities = row::identities(rows.clone(), key);
    let first = head.last + 1;
    let Head { mut last, mut horizon, .. } = head;
    let mut begins = i64::MAX;
    let mut values = Vec::with_capacity(24);
    for (row, identity) in rows.zip(&identities) {
        last += 1;
        let at = row.at().as_micros();
        (begins, horizon) = (begins.min(at), horizon.max(at));
        if let Some(card) = identity.card(row.card()) {
            with_card(card, last);
        }
        let table = row.values(identity, &mut values);
        values.truncate(table.columns(version).len());
        digest.row(table.tag(), last);
        values.iter().for_each(|value| digest.value(*value));
        let (insert, sql, count) = if table == Table::Record && in_wide > 0 {
            in_wide -= 1;
            (&mut wide, &INSERT_WIDE[..], WIDE)
        } else {
            (&mut inserts[table as usize], &singles[table as usize][..], 1)
        };
        let insert = match insert {
            Some(insert) => insert,
            unprepared => {
                let parameters = count * (values.len() + 1);
                unprepared.insert(Insert::new(connection.prepare_cached(sql)?, parameters))
            }
        };
        insert.bind(Value::Int(last), None)?;
        for &value in &values {
            let number = match value {
                Value::Name(text) if !insert.is_bound(value) => Some(number(connection, names, text)?),
                _ => None,
            };
            insert.bind(value, number)?;
        }
        insert.execute_if_full()?;
    }
    let hash = digest.finish_batch(Limits { version, first, last, begins, horizon });
    connection
        .prepare_cached(
            "INSERT INTO batch (last, first, version, begins, horizon, hash) VALUES (?1, ?2, ?3, ?4, ?5, ?6)",
        )?
        .execute(params![last, first, version, begins, horizon, hash.as_bytes()])?;
    Ok(Head { last, horizon, hash })
}

/// The number of a name in this file, assigned at its first use.
fn number(connection: &Connection, names: &mut Names, text: &str) -> rusqlite::Result<i64> {
    if let Some(&number) = names.get(text) {
        return Ok(number);
    }
    connection.prepare_cached("INSERT INTO name (text) VALUES (?1)")?.execute([text])?;
    let number = connection.last_insert_rowid();
    names.insert(text.into(), number);
    Ok(number)
}
