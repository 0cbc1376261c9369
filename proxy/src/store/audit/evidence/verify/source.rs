//! Rows of a chain from any source: a segment ([`Tables`](super::tables::Tables)), or the copy of a chain elsewhere.
//!
//! A source yields the rows of each table ordered by number. Numbers are assigned without gaps over all tables, so a missing
//! row shows by its number alone, as does a row too many.

use super::names::Names;
use crate::store::audit::log::chain::{Limits, RowSink};
use crate::store::audit::log::columns::{Class, Column, Table};
use crate::store::audit::log::value::Value;

/// The most damage that is reported per segment: more helps no reader.
pub(crate) const MOST_DAMAGE: usize = 100;

/// A value as a source has it.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Cell<'v> {
    Null,
    Int(i64),
    Text(&'v [u8]),
    /// The text of a name, from a source that spells names out.
    Name(&'v str),
    Blob(&'v [u8]),
    /// Of a type that is never written.
    Other,
}

/// Rows of all tables, each table at its next row.
pub(crate) trait Source {
    /// A source that cannot be read.
    type Error;

    /// The number of a table's next row.
    fn next(&self, table: Table) -> Option<i64>;

    /// Goes to the row after a table's next row.
    fn advance(&mut self, table: Table) -> Result<(), Self::Error>;

    /// A value of a table's next row, by the position of its column; the number has position 0.
    fn cell(&self, table: Table, place: usize) -> Result<Cell<'_>, Self::Error>;

    /// Skips rows that belong to no batch: their numbers are before the next one expected.
    fn skip_before(&mut self, id: i64, wrong: &mut Vec<String>) -> Result<(), Self::Error> {
        for table in Table::ALL {
            while let Some(extra) = self.next(table).filter(|&extra| extra < id) {
                if wrong.len() < MOST_DAMAGE {
                    wrong.push(format!("row {extra} of table {} belongs to no batch", table.name()));
                }
                self.advance(table)?;
            }
        }
        Ok(())
    }

    /// The next row of each table that has one.
    fn unread(&self) -> Vec<(Table, i64)> {
        Table::ALL.into_iter().filter_map(|table| Some((table, self.next(table)?))).collect()
    }
}

/// The tables whose next row has a number.
enum Holder {
    None,
    One(Table),
    Several,
}

fn holder_of(source: &impl Source, id: i64) -> Holder {
    let mut holders = Table::ALL.into_iter().filter(|&table| source.next(table) == Some(id));
    match (holders.next(), holders.next()) {
        (None, _) => Holder::None,
        (Some(table), None) => Holder::One(table),
        (Some(_), Some(_)) => Holder::Several,
    }
}

/// The version of a source's tables, and that of a batch in it.
#[derive(Clone, Copy)]
struct Versions {
    schema: i64,
    batch: i64,
}

/// The result of [`hash_rows`].
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(crate) struct Hashed {
    /// The number of rows that the source has.
    pub(crate) rows: i64,
    /// Rows that it lacks, or that cannot have been written.
    pub(crate) is_faulty: bool,
}

/// The rows of a batch that a source should have.
#[derive(Clone, Copy)]
pub(crate) struct Expected {
    pub(crate) limits: Limits,
    /// The version of the source's tables.
    pub(crate) schema: i64,
    /// Whether the source may lack rows.
    pub(crate) partial: bool,
}

/// A row that was read, by table and number.
#[derive(Clone, Copy)]
pub(crate) struct ReadRow {
    pub(crate) table: Table,
    pub(crate) id: i64,
    /// Whether it has a value that cannot have been written.
    pub(crate) is_faulty: bool,
}

/// Reads a batch's rows into the digest. `visit` gets each, while the source is at it.
pub(crate) fn hash_rows<S: Source>(
    Expected { limits, schema, partial }: Expected,
    source: &mut S,
    names: &mut Names,
    digest: &mut impl RowSink,
    wrong: &mut Vec<String>,
    mut visit: impl FnMut(&S, ReadRow, &mut Names) -> Result<(), S::Error>,
) -> Result<Hashed, S::Error> {
    let versions = Versions { schema, batch: limits.version };
    let mut hashed = Hashed::default();
    let mut id = limits.first;
    while id <= limits.last {
        source.skip_before(id, wrong)?;
        let table = match holder_of(source, id) {
            Holder::One(table) => table,
            Holder::None if partial => {
                // The limits may be nonsense: only rows that exist are visited.
                let next = Table::ALL.into_iter().filter_map(|table| source.next(table)).min();
                let Some(next) = next.filter(|&next| next <= limits.last) else { break };
                id = next;
                continue;
            }
            Holder::None => {
                // The rest of a batch whose numbers are nonsense is not worth a line per row.
                wrong.push(format!("row {id} is missing"));
                hashed.is_faulty = true;
                break;
            }
            Holder::Several => {
                wrong.push(format!("row {id} is in two tables"));
                hashed.is_faulty = true;
                break;
            }
        };
        let fault = hash_row(digest, table, versions, id, source, names)?.err();
        visit(source, ReadRow { table, id, is_faulty: fault.is_some() }, names)?;
        hashed.is_faulty |= fault.is_some();
        wrong.extend(fault);
        source.advance(table)?;
        hashed.rows += 1;
        let Some(next) = id.checked_add(1) else { break };
        id = next;
    }
    Ok(hashed)
}

/// The faults of a batch that show before its rows are read.
pub(crate) fn faults_of(limits: &Limits, last: i64, schema: i64) -> Vec<String> {
    let mut wrong = Vec::new();
    if last.checked_add(1) != Some(limits.first) {
        let first = limits.first;
        wrong.push(format!("begins with row {first} after row {last}: a batch is missing or altered"));
    }
    wrong.extend(own_faults_of(limits, schema));
    wrong
}

/// The same, without its relation to the batch before.
pub(crate) fn own_faults_of(limits: &Limits, schema: i64) -> Vec<String> {
    let mut wrong = Vec::new();
    if limits.first > limits.last {
        wrong.push("has no row".to_owned());
    }
    if !(1..=schema).contains(&limits.version) {
        wrong.push(format!("its rows are of version {}, and the segment is of {schema}", limits.version));
    }
    wrong
}

/// Adds the next row of a table to the digest of its batch; a column that the batch's version lacks must be NULL. The inner
/// error is the fault of a value that cannot have been written: it has another type than its column, or the number of no
/// name.
fn hash_row<S: Source>(
    digest: &mut impl RowSink,
    table: Table,
    versions: Versions,
    id: i64,
    source: &S,
    names: &mut Names,
) -> Result<Result<(), String>, S::Error> {
    digest.row(table.tag(), id);
    let hashed = table.columns(versions.batch).len();
    for (place, column) in (1..).zip(table.columns(versions.schema)) {
        let value = match source.cell(table, place)? {
            Cell::Null if place > hashed => continue,
            _ if place > hashed => Err("holds a value, and the version of its batch has no such column"),
            stored => value(column, stored, names),
        };
        match value {
            Ok(value) => digest.value(value),
            Err(fault) => {
                let (table, column) = (table.name(), column.name);
                return Ok(Err(format!("row {id} of table {table}, column {column}, {fault}")));
            }
        }
    }
    Ok(Ok(()))
}

/// A value as it is hashed. The error is the fault of one that cannot have been written.
pub(crate) fn value<'v>(
    column: &Column,
    cell: Cell<'v>,
    names: &'v mut Names,
) -> Result<Value<'v>, &'static str> {
    match (column.class, cell) {
        (Class::Int, Cell::Int(number)) => Ok(Value::Int(number)),
        (Class::Text, Cell::Text(text)) => match std::str::from_utf8(text) {
            Ok(text) => Ok(Value::Text(text.as_bytes())),
            Err(_) => Err("holds bytes that are no text"),
        },
        (Class::Name, Cell::Int(number)) => {
            names.text(number).map(Value::Name).ok_or("holds the number of no name")
        }
        (Class::Name, Cell::Name(text)) => Ok(Value::Name(text)),
        (Class::Blob, Cell::Blob(bytes)) => Ok(Value::Blob(bytes)),
        (_, Cell::Null) if column.nullable => Ok(Value::Null),
        (_, Cell::Null) => Err("holds NULL"),
        (Class::Blob, Cell::Int(_) | Cell::Text(_)) => Err("holds no bytes"),
        (_, Cell::Int(_)) => Err("holds a number instead of a text"),
        (Class::Int, Cell::Text(_)) => Err("holds a text instead of a number"),
        (Class::Name, Cell::Text(_)) => Err("holds a text instead of the number of a name"),
        (_, Cell::Name(_) | Cell::Blob(_) | Cell::Other) => {
            Err("holds a value of a type that is never written")
        }
    }
}
