//! Walks through a segment's rows in the order of their numbers, batch by batch, and hashes them.
//!
//! Numbers are given out without gaps over all tables, so a missing row shows by its number alone, as does one too
//! many. After a batch at fault the walk goes on with the hash that the batch has stored, so that the report can tell
//! one altered batch from a chain that is broken behind it.

use std::collections::{HashMap, HashSet};

use rusqlite::fallible_streaming_iterator::FallibleStreamingIterator;
use rusqlite::types::ValueRef;
use rusqlite::{Connection, Row, Rows};

use super::super::anchor::Anchor;
use super::super::chain::{Digest, Hash, Limits};
use super::super::segment::Month;
use super::super::table::{Cell, TABLES, VERSION};
use super::index::Index;
use super::{BatchSpan, Report};

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

pub(super) fn walk(
    connection: &Connection,
    month: Month,
    seed: Hash,
    before: i64,
    anchors: &[&Anchor],
    report: &mut Report,
    progress: &mut dyn FnMut(u64),
) -> rusqlite::Result<Walked> {
    let names: HashMap<i64, String> = connection
        .prepare("SELECT id, text FROM name")?
        .query_map([], |row| Ok((row.get(0)?, row.get(1)?)))?
        .collect::<rusqlite::Result<_>>()?;
    let mut used = HashSet::new();
    let mut statements = TABLES
        .iter()
        .map(|table| connection.prepare(&table.select_sql()))
        .collect::<rusqlite::Result<Vec<_>>>()?;
    let mut tables = Vec::with_capacity(TABLES.len());
    for statement in &mut statements {
        let mut rows = statement.query([])?;
        rows.advance()?;
        tables.push(rows);
    }
    let mut index = Index::open(connection)?;
    let mut batches =
        connection.prepare("SELECT last, first, version, begins, horizon, hash FROM batch ORDER BY last")?;
    let mut batches = batches.query([])?;

    let mut walked = Walked { span: None, last: before, head: seed, since: i64::MAX, until: i64::MIN };
    let already = report.damage.len();
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
        let mut wrong = Vec::new();
        walked.span.get_or_insert(span);
        if limits.first != walked.last + 1 {
            wrong.push(format!(
                "begins with row {} after row {}: a batch is missing or altered",
                limits.first, walked.last
            ));
        }
        if limits.version != VERSION {
            wrong.push(format!(
                "its rows are of version {}, and this program knows {VERSION}",
                limits.version
            ));
        }
        let mut digest = Digest::batch(&walked.head);
        let mut whole = true;
        for id in limits.first..=limits.last {
            // A row that no batch has: it comes before its turn.
            for (table, rows) in tables.iter_mut().enumerate() {
                while let Some(extra) = number(rows)?.filter(|&extra| extra < id) {
                    wrong.push(format!("row {extra} of table {} belongs to no batch", TABLES[table].name));
                    rows.advance()?;
                }
            }
            let mut found = None;
            for (table, rows) in tables.iter().enumerate() {
                if number(rows)? == Some(id) && found.replace(table).is_some() {
                    wrong.push(format!("row {id} is in two tables"));
                    whole = false;
                }
            }
            let Some(table) = found else {
                wrong.push(format!("row {id} is missing"));
                whole = false;
                // The rest of a batch whose numbers are nonsense is not worth a line each.
                break;
            };
            if let Some(row) = tables[table].get() {
                whole &= hash_row(&mut digest, table, id, row, &names, &mut used)?;
                index.note(table, id, row)?;
            }
            tables[table].advance()?;
            report_progress(&mut report.rows, progress);
        }
        let hash = digest.finish_batch(limits);
        let stored = Hash::from_slice(&stored);
        if !whole || stored != Some(hash) {
            wrong.push("its rows are not those that were committed, or not in that order".to_owned());
        }
        let room = (already + MOST_DAMAGE).saturating_sub(report.damage.len());
        wrong.into_iter().take(room).for_each(|what| report.damage(month, Some(span), what));
        walked.head = stored.unwrap_or(hash);
        walked.last = limits.last;
        walked.since = walked.since.min(limits.begins);
        walked.until = walked.until.max(limits.horizon);
        for anchor in anchors.iter().filter(|anchor| anchor.last == limits.last) {
            report.anchors += 1;
            if anchor.head != walked.head.to_string() {
                report.damage(month, Some(span), format!("contradicts the anchor of {}", anchor.time));
            }
        }
        report.batches += 1;
    }
    for (table, rows) in tables.iter_mut().enumerate() {
        if let Some(id) = number(rows)? {
            report.damage(
                month,
                None,
                format!("row {id} of table {} belongs to no batch", TABLES[table].name),
            );
        }
    }
    for anchor in anchors {
        if anchor.last > walked.last {
            let what = format!(
                "is cut off: the anchor of {} knows row {}, and the last one here is {}",
                anchor.time, anchor.last, walked.last
            );
            report.damage(month, None, what);
        }
    }
    if let Some((_, name)) = names.iter().find(|(number, _)| !used.contains(*number)) {
        report.damage(month, None, format!("no row has the name \"{name}\""));
    }
    index.finish(month, report)?;
    Ok(walked)
}

fn report_progress(rows: &mut u64, progress: &mut dyn FnMut(u64)) {
    *rows += 1;
    if rows.is_multiple_of(STEP) {
        progress(*rows);
    }
}

/// The number of the row that comes next.
fn number(rows: &Rows<'_>) -> rusqlite::Result<Option<i64>> {
    rows.get().map(|row| row.get(0)).transpose()
}

/// False when a value cannot have been written: a name that there is not, bytes, a fraction.
fn hash_row(
    digest: &mut Digest,
    table: usize,
    id: i64,
    row: &Row<'_>,
    names: &HashMap<i64, String>,
    used: &mut HashSet<i64>,
) -> rusqlite::Result<bool> {
    digest.row(TABLES[table].letter, id);
    for (place, column) in (1..).zip(TABLES[table].columns) {
        let cell = match row.get_ref(place)? {
            ValueRef::Null => Cell::Null,
            ValueRef::Integer(number) if column.is_name => {
                used.insert(number);
                match names.get(&number) {
                    Some(name) => Cell::Name(name),
                    None => return Ok(false),
                }
            }
            ValueRef::Integer(number) => Cell::Int(number),
            ValueRef::Text(text) => match std::str::from_utf8(text) {
                Ok(text) => Cell::Text(text.as_bytes()),
                Err(_) => return Ok(false),
            },
            ValueRef::Real(_) | ValueRef::Blob(_) => return Ok(false),
        };
        digest.cell(cell);
    }
    Ok(true)
}
