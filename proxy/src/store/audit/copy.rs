//! Shipments: rows after a position, in the order of the chain, to be copied to a central database.
//!
//! A position is a row and the head of the chain there, as the central database has it. [`next`] finds it in the segments, and
//! reads the rows after it from one segment. A position that the segments do not have is no error:
//!
//! - rows after it are no longer here, since their segment was pruned or lost: the shipment says which, and begins after
//!   them;
//! - the segments have another head at its row, or end before it: the audit was restored from a backup, rolled back or
//!   replaced. The caller finds the last common head ([`has`]) and begins another chain there.

mod locate;

use std::path::Path;

use rusqlite::Connection;

use self::locate::{Located, locate};
use super::evidence::verify::names::Names;
use super::evidence::verify::source::{Expected, ReadRow, hash_rows, value};
use super::evidence::verify::tables::{StoredBatch, Tables};
use super::log::chain::{Digest, Hash};
use super::log::copy_digest;
use super::log::month::Month;
use super::log::value::Value;
use crate::clock::Time;
use crate::store::{Fault, StoreError};

pub(crate) use self::locate::{has, origin};
pub(crate) use super::evidence::verify::source::{Cell, Source};
pub(crate) use super::log::chain::Limits;
pub(crate) use super::log::columns::{Class, Table, VERSION};
pub(crate) use super::log::copied::{CopiedBatch, CopiedRow, CopiedValue, EnteredSegment, MissingRows};

/// Batches that one shipment looks at, at most: most of them may have no row to copy.
const MOST_BATCHES: usize = 20_000;

/// A position of the copy.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Position {
    /// The row.
    pub(crate) last: i64,
    /// The head of the node's chain there.
    pub(crate) head: Hash,
    /// The digest of everything that is copied.
    pub(crate) digest: Hash,
}

impl Position {
    /// The position of a chain of which nothing is copied.
    pub(crate) fn base(last: i64, head: Hash) -> Self {
        Self { last, head, digest: copy_digest::base(last, &head) }
    }
}

/// Rows of one segment that are copied in one transaction.
#[derive(Debug)]
pub(crate) struct Shipment {
    /// The position before.
    pub(crate) from: Position,
    /// The position after it.
    pub(crate) to: Position,
    /// The last row of the audit.
    pub(crate) known: i64,
    /// The month of the segment.
    pub(crate) month: Month,
    /// Rows before the segment that are no longer here; none are missing if it is empty.
    pub(crate) missing: Option<MissingRows>,
    /// The segment, if this is its first shipment.
    pub(crate) entered: Option<EnteredSegment>,
    /// Batches with at least one copied row.
    pub(crate) batches: Vec<CopiedBatch>,
    /// The copied rows, by table.
    pub(crate) rows: [Vec<CopiedRow>; Table::ALL.len()],
    /// The time of the oldest row that this shipment does not have; none if it has the last one.
    pub(crate) next_since: Option<Time>,
}

/// The result of [`next`].
pub(crate) enum Next {
    Shipment(Box<Shipment>),
    /// Nothing yet.
    Nothing,
    /// The audit does not continue this position.
    Fork,
}

/// The rows after a position, about `most` of them; without records unless `with_records`. Blocks.
///
/// # Errors
/// When a segment cannot be read, or has rows that cannot have been written.
pub(crate) fn next(
    dir: &Path,
    position: &Position,
    with_records: bool,
    most: i64,
) -> Result<Next, StoreError> {
    let (segment, known) = match locate(dir, position)? {
        Located::Nothing => return Ok(Next::Nothing),
        Located::Fork => return Ok(Next::Fork),
        Located::Found { segment, known } => (segment, known),
    };
    let path = segment.month.path(dir);
    let mut shipment = Shipment {
        from: position.clone(),
        to: position.clone(),
        known,
        month: segment.month,
        missing: None,
        entered: None,
        batches: Vec::new(),
        rows: Default::default(),
        next_since: None,
    };
    if segment.is_new {
        let to = &mut shipment.to;
        if (to.last, to.head) != (segment.before, segment.previous) {
            let missing = MissingRows {
                first: to.last.saturating_add(1),
                last: segment.before,
                head: segment.previous,
            };
            let digest = copy_digest::missing(&to.digest, missing.first, missing.last, &missing.head);
            *to = Position { last: missing.last, head: missing.head, digest };
            shipment.missing = Some(missing);
        }
        shipment.entered = Some(EnteredSegment {
            month: segment.month,
            before: segment.before,
            previous: segment.previous,
            seed: segment.seed,
            digest: to.digest,
            manifest: segment.manifest,
        });
        to.digest = copy_digest::segment(&to.digest, segment.before, &segment.seed);
        to.head = segment.seed;
    }
    let malformed = || StoreError::new(&path, Fault::Malformed { value: "batch" });
    let is_whole = read(&segment.connection, segment.schema, &mut shipment, with_records, most)
        .map_err(StoreError::sqlite(&path))?;
    is_whole.then_some(()).ok_or_else(malformed)?;
    if shipment.next_since.is_none() && shipment.to.last < known {
        // In the next segment.
        shipment.next_since = Some(segment.month.end());
    }
    Ok(Next::Shipment(Box::new(shipment)))
}

/// Reads batches after the shipment's position. False when a batch is damaged.
fn read(
    connection: &Connection,
    schema: i64,
    shipment: &mut Shipment,
    with_records: bool,
    most: i64,
) -> rusqlite::Result<bool> {
    let first = shipment.to.last.saturating_add(1);
    let mut statements = Tables::prepare(connection, schema)?;
    let without = (!with_records).then_some(Table::Record);
    let mut tables = Tables::open_without(&mut statements, first, without)?;
    let mut names = Names::read(connection)?;
    let mut batches = connection.prepare(StoredBatch::SELECT)?;
    let mut batches = batches.query([first])?;
    let (mut rows, mut seen) = (0, 0);
    while let Some(row) = batches.next()? {
        let StoredBatch { limits, hash } = StoredBatch::read(row)?;
        if rows >= most || seen >= MOST_BATCHES {
            shipment.next_since = Some(Time::from_micros(limits.begins));
            break;
        }
        seen += 1;
        let Some(hash) = hash else { return Ok(false) };
        let Position { last, head: previous, digest } = shipment.to;
        if limits.first != last.saturating_add(1) || limits.last < limits.first {
            return Ok(false);
        }
        let mut digests =
            (copy_digest::batch(&digest, &previous, &hash), with_records.then(|| Digest::batch(&previous)));
        let expected = Expected { limits, schema, partial: !with_records };
        let mut wrong = Vec::new();
        let copied = &mut shipment.rows;
        let hashed = hash_rows(
            expected,
            &mut tables,
            &mut names,
            &mut digests,
            &mut wrong,
            |tables, ReadRow { table, id, is_faulty }, names| {
                if !is_faulty {
                    copied[table as usize]
                        .push(CopiedRow { id, values: values(tables, table, schema, names)? });
                }
                Ok(())
            },
        )?;
        let (digest, whole) = digests;
        let is_altered = whole.is_some_and(|whole| whole.finish_batch(limits) != hash);
        if hashed.is_faulty || is_altered || !wrong.is_empty() {
            return Ok(false);
        }
        (shipment.to.last, shipment.to.head) = (limits.last, hash);
        if hashed.rows > 0 {
            shipment.to.digest = digest.finish_batch(limits);
            shipment.batches.push(CopiedBatch {
                limits,
                previous,
                hash,
                copied: hashed.rows,
                digest: shipment.to.digest,
            });
            rows += hashed.rows;
        }
    }
    Ok(true)
}

/// The values of a table's next row, whose types were checked.
fn values(
    tables: &Tables<'_>,
    table: Table,
    schema: i64,
    names: &mut Names,
) -> rusqlite::Result<Vec<CopiedValue>> {
    let all = table.columns(VERSION);
    let stored = table.columns(schema).len();
    let mut values = Vec::with_capacity(all.len());
    for (place, column) in (1..).zip(all) {
        if place > stored {
            values.push(CopiedValue::Null);
            continue;
        }
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned().into_boxed_str();
        values.push(match value(column, tables.cell(table, place)?, names) {
            Ok(Value::Int(number)) => CopiedValue::Int(number),
            Ok(Value::Text(bytes)) => CopiedValue::Text(text(bytes)),
            Ok(Value::Name(name)) => CopiedValue::Text(name.into()),
            Ok(Value::Blob(bytes)) => CopiedValue::Blob(bytes.into()),
            Ok(Value::Null) | Err(_) => CopiedValue::Null,
        });
    }
    Ok(values)
}

#[cfg(test)]
mod tests;
