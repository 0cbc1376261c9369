//! The segment that continues a position.

use std::path::Path;

use rusqlite::{Connection, OptionalExtension};

use super::Position;
use crate::store::audit::log::chain::{Hash, Manifest};
use crate::store::audit::log::link::{self, Head};
use crate::store::audit::log::month::{self, Month};
use crate::store::schema::{self, Kind};
use crate::store::{Fault, StoreError};

/// The place of a position in the segments.
pub(super) enum Located {
    /// Nothing follows it yet.
    Nothing,
    /// The segments do not have it, and do not continue it.
    Fork,
    /// The segment with the rows after it.
    Found {
        segment: Box<Segment>,
        /// The last row of the audit.
        known: i64,
    },
}

/// A segment in one state.
pub(super) struct Segment {
    pub(super) month: Month,
    pub(super) connection: Connection,
    pub(super) schema: i64,
    pub(super) before: i64,
    pub(super) previous: Hash,
    pub(super) seed: Hash,
    pub(super) manifest: Vec<Manifest>,
    /// Whether the copy enters it now.
    pub(super) is_new: bool,
    head: Head,
}

/// Finds the segment with the rows after a position.
///
/// # Errors
/// When a segment cannot be read.
pub(super) fn locate(dir: &Path, position: &Position) -> Result<Located, StoreError> {
    let Position { last, head, .. } = *position;
    let mut known = None;
    let mut is_covered = false;
    // The segment after the one that is looked at.
    let mut later: Option<Segment> = None;
    for month in month::list(dir)? {
        let mut segment = open(dir, month)?;
        let known = *known.get_or_insert(segment.head.last);
        let found = |segment: Segment| Ok(Located::Found { segment: Box::new(segment), known });
        if last == segment.before && head == segment.previous {
            segment.is_new = true;
            return found(segment);
        }
        let is_here =
            (last == segment.before && head == segment.seed) || has_batch(&segment, dir, last, head)?;
        if is_here && last < segment.head.last {
            return found(segment);
        }
        if is_here {
            // It ends here. A later segment that does not follow it comes after missing rows.
            return match later {
                None => Ok(Located::Nothing),
                Some(later) if later.before < last => Ok(Located::Fork),
                Some(later) => found(Segment { is_new: true, ..later }),
            };
        }
        is_covered |= (segment.before..=segment.head.last).contains(&last);
        if segment.head.last < last {
            break;
        }
        if segment.before >= last {
            later = Some(segment);
        }
    }
    Ok(match (later, known) {
        (Some(later), Some(known)) if !is_covered && later.before > last => {
            Located::Found { segment: Box::new(Segment { is_new: true, ..later }), known }
        }
        (_, None) => Located::Nothing,
        _ => Located::Fork,
    })
}

/// Whether the segments have this head after this row.
///
/// # Errors
/// When a segment cannot be read.
pub(crate) fn has(dir: &Path, last: i64, head: Hash) -> Result<bool, StoreError> {
    for month in month::list(dir)? {
        let segment = open(dir, month)?;
        let begins = last == segment.before && [segment.previous, segment.seed].contains(&head);
        if begins || has_batch(&segment, dir, last, head)? {
            return Ok(true);
        }
        if segment.head.last < last {
            return Ok(false);
        }
    }
    Ok(false)
}

/// The row and the head that the oldest segment follows; none without a segment.
///
/// # Errors
/// When the segment cannot be read.
pub(crate) fn origin(dir: &Path) -> Result<Option<(i64, Hash)>, StoreError> {
    let Some(&oldest) = month::list(dir)?.last() else { return Ok(None) };
    let segment = open(dir, oldest)?;
    Ok(Some((segment.before, segment.previous)))
}

fn has_batch(segment: &Segment, dir: &Path, last: i64, head: Hash) -> Result<bool, StoreError> {
    let found: Option<Vec<u8>> = segment
        .connection
        .query_row("SELECT hash FROM batch WHERE last = ?1", [last], |row| row.get(0))
        .optional()
        .map_err(StoreError::sqlite(&segment.month.path(dir)))?;
    Ok(found.is_some_and(|found| found == head.as_bytes()))
}

fn open(dir: &Path, month: Month) -> Result<Segment, StoreError> {
    let path = month.path(dir);
    let connection = schema::open_read_only(&path, Kind::Audit)?;
    let read = || -> rusqlite::Result<_> {
        connection.execute_batch("BEGIN")?;
        let own = connection
            .query_row("SELECT before, seed FROM segment", [], |row| {
                Ok((row.get(0)?, Hash::from_slice(row.get_ref(1)?.as_blob()?)))
            })
            .optional()?;
        let Some((before, Some(seed))) = own else { return Ok(None) };
        let (previous, head) = (link::previous(&connection)?, link::head(&connection)?);
        let manifest = link::manifest(&connection)?;
        let schema = schema::version_of(&connection)?;
        Ok(previous.zip(head).zip(manifest).map(|parts| (before, seed, schema, parts)))
    };
    let parts = read().map_err(StoreError::sqlite(&path))?;
    let (before, seed, schema, ((previous, head), manifest)) =
        parts.ok_or_else(|| StoreError::new(&path, Fault::Malformed { value: "segment" }))?;
    Ok(Segment { month, schema, before, previous, seed, manifest, is_new: false, head, connection })
}
