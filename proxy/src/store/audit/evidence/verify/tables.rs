//! The tables of a segment, as a source of rows.

use rusqlite::fallible_streaming_iterator::FallibleStreamingIterator;
use rusqlite::types::ValueRef;
use rusqlite::{Connection, Row, Rows, Statement};

use super::BatchSpan;
use super::source::{Cell, Source};
use crate::store::audit::log::chain::{Hash, Limits};
use crate::store::audit::log::columns::Table;

/// All tables, each at its next row.
pub(crate) struct Tables<'s> {
    rows: Vec<Rows<'s>>,
    /// By table, the number of the next row.
    next: [Option<i64>; Table::ALL.len()],
}

impl<'s> Tables<'s> {
    /// The statements of all tables in a segment of this version.
    pub(crate) fn prepare(connection: &Connection, schema: i64) -> rusqlite::Result<Vec<Statement<'_>>> {
        Table::ALL.iter().map(|table| connection.prepare(&table.select_sql(schema))).collect()
    }

    /// The rows from number `first` on.
    pub(crate) fn open(statements: &'s mut [Statement<'_>], first: i64) -> rusqlite::Result<Self> {
        Self::open_without(statements, first, None)
    }

    /// The same; one table has no rows then.
    pub(crate) fn open_without(
        statements: &'s mut [Statement<'_>],
        first: i64,
        without: Option<Table>,
    ) -> rusqlite::Result<Self> {
        let rows = Table::ALL
            .iter()
            .zip(statements)
            .map(|(table, statement)| {
                // No row has the greatest number.
                statement.query([if Some(*table) == without { i64::MAX } else { first }])
            })
            .collect::<rusqlite::Result<_>>()?;
        let mut tables = Self { rows, next: [None; Table::ALL.len()] };
        Table::ALL.into_iter().try_for_each(|table| tables.advance(table))?;
        Ok(tables)
    }

    pub(crate) fn row(&self, table: Table) -> Option<&Row<'s>> {
        self.rows[table as usize].get()
    }
}

impl Source for Tables<'_> {
    type Error = rusqlite::Error;

    fn next(&self, table: Table) -> Option<i64> {
        self.next[table as usize]
    }

    fn advance(&mut self, table: Table) -> rusqlite::Result<()> {
        let rows = &mut self.rows[table as usize];
        rows.advance()?;
        self.next[table as usize] = rows.get().map(|row| row.get(0)).transpose()?;
        Ok(())
    }

    fn cell(&self, table: Table, place: usize) -> rusqlite::Result<Cell<'_>> {
        let Some(row) = self.row(table) else { return Ok(Cell::Null) };
        Ok(match row.get_ref(place)? {
            ValueRef::Null => Cell::Null,
            ValueRef::Integer(number) => Cell::Int(number),
            ValueRef::Text(text) => Cell::Text(text),
            ValueRef::Blob(bytes) => Cell::Blob(bytes),
            ValueRef::Real(_) => Cell::Other,
        })
    }
}

/// A batch as its row has it.
pub(crate) struct StoredBatch {
    pub(crate) limits: Limits,
    /// None when it is no hash.
    pub(crate) hash: Option<Hash>,
}

impl StoredBatch {
    pub(crate) const SELECT: &str = "SELECT last, first, version, begins, horizon, hash FROM batch NOT INDEXED WHERE last >= ?1 ORDER BY last";

    pub(crate) fn read(row: &Row<'_>) -> rusqlite::Result<Self> {
        let limits = Limits {
            last: row.get(0)?,
            first: row.get(1)?,
            version: row.get(2)?,
            begins: row.get(3)?,
            horizon: row.get(4)?,
        };
        let hash: Vec<u8> = row.get(5)?;
        Ok(Self { limits, hash: Hash::from_slice(&hash) })
    }

    pub(crate) fn span(&self) -> BatchSpan {
        let Limits { first, last, begins, .. } = self.limits;
        BatchSpan { first, last, begins }
    }
}
