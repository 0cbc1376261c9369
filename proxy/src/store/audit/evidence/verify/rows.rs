//! Reads a segment's rows ordered by number, batch by batch, and hashes them.
//!
//! Numbers are assigned without gaps over all tables, so a missing row shows by its number alone, as does a row too many.
//! After a batch at fault the scan goes on with the hash that the batch has stored, so that the report distinguishes one
//! altered batch from a chain that is broken after it.

use rusqlite::fallible_streaming_iterator::FallibleStreamingIterator;
use rusqlite::types::ValueRef;
use rusqlite::{Row, Rows};

use super::index::Index;
use super::names::Names;
use super::{BatchSpan, SegmentVerifier};
use crate::store::audit::log::chain::{Digest, Hash, Limits};
use crate::store::audit::log::columns::{Class, Column, Table};
use crate::store::audit::log::value::Value;
use crate::store::schema;

/// A segment's rows up to the last batch that was read.
pub(super) struct Scanned {
    /// The first batch.
    pub(super) span: Option<BatchSpan>,
    pub(super) last: i64,
    pub(super) head: Hash,
    pub(super) since: i64,
    pub(super) until: i64,
}

/// A batch as its row has it.
pub(super) struct StoredBatch {
    pub(super) limits: Limits,
    /// None when it is no hash.
    pub(super) hash: Option<Hash>,
}

/// The state of a scan.
struct Scan<'s, 'c> {
    /// The version of the segment's schema.
    schema: i64,
    tables: Tables<'s>,
    names: Names,
    index: Index<'c>,
    scanned: Scanned,
}

/// Rows between two reports of progress.
const STEP: u64 = 65_536;
/// The most damage that is reported per segment: more helps no reader.
const MOST_DAMAGE: usize = 100;

impl SegmentVerifier<'_, '_> {
    /// Reads every row, ordered by number. `seed` and `before` are the hash and the number that the first batch follows.
    pub(super) fn rows(&mut self, seed: Hash, before: i64) -> rusqlite::Result<Scanned> {
        let connection = self.connection;
        let schema = schema::version_of(connection)?;
        let mut statements = Table::ALL
            .iter()
            .map(|table| connection.prepare(&table.select_sql(schema)))
            .collect::<rusqlite::Result<Vec<_>>>()?;
        let mut scan = Scan {
            schema,
            names: Names::read(connection)?,
            tables: Tables::open(&mut statements, i64::MIN)?,
            index: Index::open(connection)?,
            scanned: Scanned { span: None, last: before, head: seed, since: i64::MAX, until: i64::MIN },
        };
        let most = self.report.damage.len() + MOST_DAMAGE;
        let mut batches = connection.prepare(StoredBatch::SELECT)?;
        let mut batches = batches.query([])?;
        while let Some(row) = batches.next()? {
            let batch = StoredBatch::read(row)?;
            let span = batch.span();
            let wrong = self.batch(&mut scan, &batch)?;
            let room = most.saturating_sub(self.report.damage.len());
            wrong.into_iter().take(room).for_each(|what| self.report.damage(self.month, Some(span), what));
            self.anchors.check_head(span.last, &[&scan.scanned.head], Some(span));
            self.report.batches += 1;
        }
        for (table, id) in scan.tables.unread() {
            let what = format!("row {id} of table {} belongs to no batch", table.name());
            self.report.damage(self.month, None, what);
        }
        if let Some(name) = scan.names.unused() {
            self.report.damage(self.month, None, format!("no row has the name \"{name}\""));
        }
        scan.index.finish(self.month, self.report)?;
        Ok(scan.scanned)
    }

    /// Reads one batch; everything that is wrong with it.
    fn batch(&mut self, scan: &mut Scan<'_, '_>, batch: &StoredBatch) -> rusqlite::Result<Vec<String>> {
        let mut wrong = faults_of(&batch.limits, scan.scanned.last, scan.schema);
        let mut digest = Digest::batch(&scan.scanned.head);
        let is_whole = self.batch_rows(scan, &batch.limits, &mut digest, &mut wrong)?;
        let hash = digest.finish_batch(batch.limits);
        if !is_whole || batch.hash != Some(hash) {
            wrong.push("its rows are not those that were committed, or not in that order".to_owned());
        }
        let Limits { last, begins, horizon, .. } = batch.limits;
        let Scanned { span, since, until, .. } = scan.scanned;
        scan.scanned = Scanned {
            span: span.or(Some(batch.span())),
            last,
            head: batch.hash.unwrap_or(hash),
            since: since.min(begins),
            until: until.max(horizon),
        };
        Ok(wrong)
    }

    /// Reads a batch's rows into the digest. False when one is missing or cannot have been written.
    fn batch_rows(
        &mut self,
        scan: &mut Scan<'_, '_>,
        limits: &Limits,
        digest: &mut Digest,
        wrong: &mut Vec<String>,
    ) -> rusqlite::Result<bool> {
        let Scan { schema, tables, names, index, .. } = scan;
        let versions = Versions { schema: *schema, batch: limits.version };
        let mut is_whole = true;
        for id in limits.first..=limits.last {
            tables.skip_before(id, wrong)?;
            // The rest of a batch whose numbers are nonsense is not worth a line per row.
            let Some(table) = tables.holder_of(id, wrong) else { return Ok(false) };
            if let Some(row) = tables.row(table) {
                if let Err(fault) = hash_row(digest, table, versions, id, row, names)? {
                    is_whole = false;
                    wrong.push(fault);
                } else if table == Table::Note {
                    self.noted.row(row, names)?;
                }
                index.note(table, id, row)?;
            }
            tables.advance(table)?;
            self.report.rows += 1;
            if self.report.rows.is_multiple_of(STEP) {
                (self.progress)(self.report.rows);
            }
        }
        Ok(is_whole)
    }
}

impl StoredBatch {
    const SELECT: &str =
        "SELECT last, first, version, begins, horizon, hash FROM batch NOT INDEXED ORDER BY last";

    pub(super) fn read(row: &Row<'_>) -> rusqlite::Result<Self> {
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

    fn span(&self) -> BatchSpan {
        let Limits { first, last, begins, .. } = self.limits;
        BatchSpan { first, last, begins }
    }
}

/// The faults of a batch that show before its rows are read.
pub(super) fn faults_of(limits: &Limits, last: i64, schema: i64) -> Vec<String> {
    let mut wrong = Vec::new();
    if last.checked_add(1) != Some(limits.first) {
        let first = limits.first;
        wrong.push(format!("begins with row {first} after row {last}: a batch is missing or altered"));
    }
    if limits.first > limits.last {
        wrong.push("has no row".to_owned());
    }
    if !(1..=schema).contains(&limits.version) {
        wrong.push(format!("its rows are of version {}, and the segment is of {schema}", limits.version));
    }
    wrong
}

/// All tables, each at its next row.
pub(super) struct Tables<'s> {
    rows: Vec<Rows<'s>>,
    /// By table, the number of the next row.
    next: [Option<i64>; Table::ALL.len()],
}

impl<'s> Tables<'s> {
    pub(super) fn open(statements: &'s mut [rusqlite::Statement<'_>], first: i64) -> rusqlite::Result<Self> {
        let rows = statements
            .iter_mut()
            .map(|statement| statement.query([first]))
            .collect::<rusqlite::Result<_>>()?;
        let mut tables = Self { rows, next: [None; Table::ALL.len()] };
        Table::ALL.into_iter().try_for_each(|table| tables.advance(table))?;
        Ok(tables)
    }

    pub(super) fn advance(&mut self, table: Table) -> rusqlite::Result<()> {
        let rows = &mut self.rows[table as usize];
        rows.advance()?;
        self.next[table as usize] = rows.get().map(|row| row.get(0)).transpose()?;
        Ok(())
    }

    pub(super) fn row(&self, table: Table) -> Option<&Row<'s>> {
        self.rows[table as usize].get()
    }

    /// Skips rows that belong to no batch: their numbers are before the next one expected.
    pub(super) fn skip_before(&mut self, id: i64, wrong: &mut Vec<String>) -> rusqlite::Result<()> {
        for table in Table::ALL {
            while let Some(extra) = self.next[table as usize].filter(|&extra| extra < id) {
                if wrong.len() < MOST_DAMAGE {
                    wrong.push(format!("row {extra} of table {} belongs to no batch", table.name()));
                }
                self.advance(table)?;
            }
        }
        Ok(())
    }

    /// The table whose next row has this number; none when no table has, or several have.
    pub(super) fn holder_of(&self, id: i64, wrong: &mut Vec<String>) -> Option<Table> {
        let mut holders = Table::ALL.into_iter().filter(|&table| self.next[table as usize] == Some(id));
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

    /// The next row of each table that has one.
    pub(super) fn unread(&self) -> impl Iterator<Item = (Table, i64)> + '_ {
        Table::ALL.into_iter().zip(self.next).filter_map(|(table, id)| Some((table, id?)))
    }
}

/// The version of a segment's schema, and that of a batch in it.
#[derive(Clone, Copy)]
pub(super) struct Versions {
    pub(super) schema: i64,
    pub(super) batch: i64,
}

/// Adds a row to the digest of its batch; a column that the batch's version lacks must be NULL. The inner error is the fault of a value that cannot have been written: it has
/// another type than its column, or the number of no name.
pub(super) fn hash_row(
    digest: &mut Digest,
    table: Table,
    versions: Versions,
    id: i64,
    row: &Row<'_>,
    names: &mut Names,
) -> rusqlite::Result<Result<(), String>> {
    digest.row(table.tag(), id);
    let hashed = table.columns(versions.batch).len();
    for (place, column) in (1..).zip(table.columns(versions.schema)) {
        let value = match row.get_ref(place)? {
            ValueRef::Null if place > hashed => continue,
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

fn value<'v>(column: &Column, value: ValueRef<'v>, names: &'v mut Names) -> Result<Value<'v>, &'static str> {
    match (column.class, value) {
        (Class::Int, ValueRef::Integer(number)) => Ok(Value::Int(number)),
        (Class::Text, ValueRef::Text(text)) => match std::str::from_utf8(text) {
            Ok(text) => Ok(Value::Text(text.as_bytes())),
            Err(_) => Err("holds bytes that are no text"),
        },
        (Class::Name, ValueRef::Integer(number)) => {
            names.text(number).map(Value::Name).ok_or("holds the number of no name")
        }
        (Class::Blob, ValueRef::Blob(bytes)) => Ok(Value::Blob(bytes)),
        (_, ValueRef::Null) if column.nullable => Ok(Value::Null),
        (_, ValueRef::Null) => Err("holds NULL"),
        (Class::Blob, ValueRef::Integer(_) | ValueRef::Text(_)) => Err("holds no bytes"),
        (_, ValueRef::Integer(_)) => Err("holds a number instead of a text"),
        (Class::Int, ValueRef::Text(_)) => Err("holds a text instead of a number"),
        (Class::Name, ValueRef::Text(_)) => Err("holds a text instead of the number of a name"),
        (_, ValueRef::Real(_) | ValueRef::Blob(_)) => Err("holds a value of a type that is never written"),
    }
}
