//! Walks through a segment's rows in the order of their numbers, batch by batch, and hashes them.
//!
//! Numbers are given out without gaps over all tables, so a missing row shows by its number alone, as does one too
//! many. After a batch at fault the walk goes on with the hash that the batch has stored, so that the report can tell
//! one altered batch from a chain that is broken behind it.

use rusqlite::fallible_streaming_iterator::FallibleStreamingIterator;
use rusqlite::types::ValueRef;
use rusqlite::{Connection, Row, Rows};

use super::index::Index;
use super::names::Names;
use super::{BatchSpan, Walk};
use crate::store::audit::log::chain::{Digest, Hash, Limits};
use crate::store::audit::log::columns::{Class, Column, NOTE, TABLES, Table, VERSION, Value};
use crate::store::audit::log::month::Month;

/// A segment, walked to its end.
pub(super) struct Walked {
    /// The first batch.
    pub(super) span: Option<BatchSpan>,
    pub(super) last: i64,
    pub(super) head: Hash,
    pub(super) since: i64,
    pub(super) until: i64,
}

/// How often progress is told, in rows.
const STEP: u64 = 65_536;
/// More damage than this of one segment helps nobody.
const MOST_DAMAGE: usize = 100;

impl Walk<'_, '_> {
    /// Every row, in the order of their numbers.
    pub(super) fn rows(
        &mut self,
        connection: &Connection,
        month: Month,
        seed: Hash,
        before: i64,
        progress: &mut dyn FnMut(u64),
    ) -> rusqlite::Result<Walked> {
        let mut names = Names::read(connection)?;
        let mut statements = TABLES
            .iter()
            .map(|table| connection.prepare(&table.select_sql()))
            .collect::<rusqlite::Result<Vec<_>>>()?;
        let mut tables = Tables::begin(&mut statements)?;
        let mut index = Index::open(connection)?;
        let mut batches = connection.prepare(
            "SELECT last, first, version, begins, horizon, hash FROM batch NOT INDEXED ORDER BY last",
        )?;
        let mut batches = batches.query([])?;

        let mut walked = Walked { span: None, last: before, head: seed, since: i64::MAX, until: i64::MIN };
        let already = self.report.damage.len();
        while let Some(batch) = batches.next()? {
            let limits = Limits {
                last: batch.get(0)?,
                first: batch.get(1)?,
                version: batch.get(2)?,
                begins: batch.get(3)?,
                horizon: batch.get(4)?,
            };
            let stored: Vec<u8> = batch.get(5)?;
            let span = BatchSpan { first: limits.first, last: limits.last, begins: limits.begins };
            let mut wrong = faults_of(&limits, &walked);
            walked.span.get_or_insert(span);
            let mut digest = Digest::batch(&walked.head);
            let mut whole = true;
            for id in limits.first..=limits.last {
                tables.skip_before(id, &mut wrong)?;
                let Some(table) = tables.holder_of(id, &mut wrong) else {
                    whole = false;
                    // The rest of a batch whose numbers are nonsense is not worth a line each.
                    break;
                };
                if let Some(row) = tables.row(table) {
                    if let Err(fault) = hash_row(&mut digest, table, id, row, &mut names)? {
                        whole = false;
                        wrong.push(fault);
                    } else if table == NOTE {
                        self.noted.row(row, &mut names)?;
                    }
                    index.note(table, id, row)?;
                }
                tables.advance(table)?;
                report_progress(&mut self.report.rows, progress);
            }
            let hash = digest.finish_batch(limits);
            let stored = Hash::from_slice(&stored);
            if !whole || stored != Some(hash) {
                wrong.push("its rows are not those that were committed, or not in that order".to_owned());
            }
            let room = (already + MOST_DAMAGE).saturating_sub(self.report.damage.len());
            wrong.into_iter().take(room).for_each(|what| self.report.damage(month, Some(span), what));
            walked.head = stored.unwrap_or(hash);
            walked.last = limits.last;
            walked.since = walked.since.min(limits.begins);
            walked.until = walked.until.max(limits.horizon);
            self.passing.reach(limits.last, &[&walked.head], Some(span));
            self.report.batches += 1;
        }
        for (table, id) in tables.left() {
            let what = format!("row {id} of table {} belongs to no batch", TABLES[table].name);
            self.report.damage(month, None, what);
        }
        if let Some(name) = names.unused() {
            self.report.damage(month, None, format!("no row has the name \"{name}\""));
        }
        index.finish(month, self.report)?;
        Ok(walked)
    }
}

/// What is wrong with a batch before any row of it is read.
fn faults_of(limits: &Limits, walked: &Walked) -> Vec<String> {
    let mut wrong = Vec::new();
    if walked.last.checked_add(1) != Some(limits.first) {
        let (first, last) = (limits.first, walked.last);
        wrong.push(format!("begins with row {first} after row {last}: a batch is missing or altered"));
    }
    if limits.first > limits.last {
        wrong.push("has no row".to_owned());
    }
    if limits.version != VERSION {
        wrong.push(format!("its rows are of version {}, and this program knows {VERSION}", limits.version));
    }
    wrong
}

/// All tables, each at its next row.
struct Tables<'s> {
    rows: Vec<Rows<'s>>,
    /// The number of each one's next row.
    next: [Option<i64>; TABLES.len()],
}

impl<'s> Tables<'s> {
    fn begin(statements: &'s mut [rusqlite::Statement<'_>]) -> rusqlite::Result<Self> {
        let rows =
            statements.iter_mut().map(|statement| statement.query([])).collect::<rusqlite::Result<_>>()?;
        let mut tables = Self { rows, next: [None; TABLES.len()] };
        (0..TABLES.len()).try_for_each(|table| tables.advance(table))?;
        Ok(tables)
    }

    fn advance(&mut self, table: usize) -> rusqlite::Result<()> {
        self.rows[table].advance()?;
        self.next[table] = self.rows[table].get().map(|row| row.get(0)).transpose()?;
        Ok(())
    }

    fn row(&self, table: usize) -> Option<&Row<'s>> {
        self.rows[table].get()
    }

    /// Rows that no batch has: they come before their turn.
    fn skip_before(&mut self, id: i64, wrong: &mut Vec<String>) -> rusqlite::Result<()> {
        for (table, of) in TABLES.iter().enumerate() {
            while let Some(extra) = self.next[table].filter(|&extra| extra < id) {
                if wrong.len() < MOST_DAMAGE {
                    wrong.push(format!("row {extra} of table {} belongs to no batch", of.name));
                }
                self.advance(table)?;
            }
        }
        Ok(())
    }

    /// The table whose next row has this number; none when no table has, or several have.
    fn holder_of(&self, id: i64, wrong: &mut Vec<String>) -> Option<usize> {
        let mut holders = (0..TABLES.len()).filter(|&table| self.next[table] == Some(id));
        let Some(holder) = holders.next() else {
            wrong.push(format!("row {id} is missing"));
            return None;
        };
        if holders.next().is_some() {
            wrong.push(format!("row {id} is in two tables"));
            return None;
        }
        Some(holder)
    }

    /// Each table's next row, where there is one.
    fn left(&self) -> impl Iterator<Item = (usize, i64)> + '_ {
        self.next.iter().enumerate().filter_map(|(table, id)| Some((table, (*id)?)))
    }
}

fn report_progress(rows: &mut u64, progress: &mut dyn FnMut(u64)) {
    *rows += 1;
    if rows.is_multiple_of(STEP) {
        progress(*rows);
    }
}

/// Adds a row to the hash of its batch; what is wrong where a value cannot have been written: of another type than its
/// column's, or a name that there is not.
fn hash_row(
    digest: &mut Digest,
    table: usize,
    id: i64,
    row: &Row<'_>,
    names: &mut Names,
) -> rusqlite::Result<Result<(), String>> {
    let Table { name, letter, columns } = &TABLES[table];
    digest.row(*letter, id);
    for (place, column) in (1..).zip(*columns) {
        match cell(column, row.get_ref(place)?, names) {
            Ok(cell) => digest.cell(cell),
            Err(fault) => {
                return Ok(Err(format!("row {id} of table {name}, column {}, {fault}", column.name)));
            }
        }
    }
    Ok(Ok(()))
}

fn cell<'v>(column: &Column, value: ValueRef<'v>, names: &'v mut Names) -> Result<Value<'v>, &'static str> {
    match (column.class, value) {
        (Class::Int, ValueRef::Integer(number)) => Ok(Value::Int(number)),
        (Class::Text, ValueRef::Text(text)) => match std::str::from_utf8(text) {
            Ok(text) => Ok(Value::Text(text.as_bytes())),
            Err(_) => Err("holds bytes that are no text"),
        },
        (Class::Name, ValueRef::Integer(number)) => {
            names.text(number).map(Value::Name).ok_or("holds the number of no name")
        }
        (_, ValueRef::Null) if column.nullable => Ok(Value::Null),
        (_, ValueRef::Null) => Err("holds NULL"),
        (_, ValueRef::Integer(_)) => Err("holds a number instead of a text"),
        (Class::Int, ValueRef::Text(_)) => Err("holds a text instead of a number"),
        (Class::Name, ValueRef::Text(_)) => Err("holds a text instead of the number of a name"),
        (_, ValueRef::Real(_) | ValueRef::Blob(_)) => Err("holds a value of a type that is never written"),
    }
}
