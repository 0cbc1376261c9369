//! A segment's own row and its links to the segments before it: head, previous head, manifest.
//!
//! [`chain`](super::chain) defines the digests.

use std::path::Path;

use rusqlite::{Connection, OptionalExtension, params};

use super::chain::{self, Hash, Manifest};
use super::month::{self, Month};
use super::segment_identity::SegmentIdentity;
use crate::store::schema::{self, Kind};
use crate::store::{Fault, StoreError};

/// The head of a segment: its last row and hash.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Head {
    /// The last row's number.
    pub(crate) last: i64,
    /// The last batch's horizon in microseconds since 1970; `i64::MIN` without a batch.
    pub(crate) horizon: i64,
    /// The last batch's hash, or the segment's seed.
    pub(crate) hash: Hash,
}

/// A segment that the writer closed after a failure, or whose files are no longer at its path. A file that is created
/// there follows it.
pub(crate) struct ClosedSegment {
    pub(crate) month: Month,
    /// The head of the segment.
    pub(crate) head: Head,
    /// The head that its first row followed; none when it could no longer be read.
    pub(crate) previous: Option<Hash>,
    /// The segments before it; none when they could no longer be read.
    pub(crate) manifest: Option<Vec<Manifest>>,
    /// The identity of its files.
    pub(crate) identity: SegmentIdentity,
    /// The file that was created after it, while its first row is not yet written.
    pub(crate) successor: Option<SegmentIdentity>,
}

/// Writes the segment's own row and its manifest, unless they exist.
pub(crate) fn begin(
    connection: &Connection,
    dir: &Path,
    month: Month,
    after: Option<&ClosedSegment>,
) -> Result<(), StoreError> {
    let path = month.path(dir);
    let sqlite = StoreError::sqlite(&path);
    let rows: i64 =
        connection.query_row("SELECT count(*) FROM segment", [], |row| row.get(0)).map_err(sqlite)?;
    if rows > 0 {
        return Ok(());
    }
    let (previous, before, manifest) = match after {
        None => before(dir, month)?,
        Some(after) => {
            let manifest = match &after.manifest {
                Some(manifest) => manifest.clone(),
                None => before(dir, month)?.2,
            };
            // A segment without rows is created as it was: its own head is its seed, which no other segment has.
            let previous = if after.head.horizon == i64::MIN { after.previous } else { None };
            (previous.unwrap_or(after.head.hash), after.head.last, manifest)
        }
    };
    let seed = chain::seed(&month.to_string(), &previous, before, &manifest);
    let link = || {
        connection.execute_batch("BEGIN IMMEDIATE")?;
        for Manifest { month, first, last, count, since, until, head } in &manifest {
            connection.execute(
                "INSERT INTO manifest (month, first, last, count, since, until, head)
                 VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)",
                params![month, first, last, count, since, until, head.as_bytes()],
            )?;
        }
        connection.execute(
            "INSERT INTO segment (month, previous, before, seed) VALUES (?1, ?2, ?3, ?4)",
            params![month.to_string(), previous.as_bytes(), before, seed.as_bytes()],
        )?;
        connection.execute_batch("COMMIT")
    };
    link().map_err(sqlite)
}

/// The predecessor of the segment of `month`: head and last row number, and the manifest of all segments so far.
fn before(dir: &Path, month: Month) -> Result<(Hash, i64, Vec<Manifest>), StoreError> {
    let Some(earlier) = month::list(dir)?.into_iter().find(|&earlier| earlier < month) else {
        return Ok((Hash::NONE, 0, Vec::new()));
    };
    let path = earlier.path(dir);
    let sqlite = StoreError::sqlite(&path);
    let connection = schema::open_read_only(&path, Kind::Audit)?;
    let malformed = || StoreError::new(&path, Fault::Malformed { value: "segment" });
    let head = head(&connection).map_err(sqlite)?.ok_or_else(malformed)?;
    let mut manifest = manifest(&connection).map_err(sqlite)?.ok_or_else(malformed)?;
    let first: Option<i64> =
        connection.query_row("SELECT min(first) FROM batch", [], |row| row.get(0)).map_err(sqlite)?;
    if let Some(first) = first {
        let since =
            connection.query_row("SELECT min(begins) FROM batch", [], |row| row.get(0)).map_err(sqlite)?;
        manifest.push(Manifest {
            month: earlier.to_string(),
            first,
            last: head.last,
            count: head.last - first + 1,
            since,
            until: head.horizon,
            head: head.hash,
        });
    }
    Ok((head.hash, head.last, manifest))
}

/// Whether a row of the segment was written with an identity key. Reads every row if none was.
pub(crate) fn uses_key(connection: &Connection, path: &Path) -> Result<bool, StoreError> {
    connection
        .query_row(
            "SELECT EXISTS (SELECT 1 FROM record WHERE key IS NOT NULL)
                 OR EXISTS (SELECT 1 FROM call WHERE key IS NOT NULL)",
            [],
            |row| row.get(0),
        )
        .map_err(StoreError::sqlite(path))
}

/// The head of a segment; none when its own row is missing or malformed.
pub(crate) fn head(connection: &Connection) -> rusqlite::Result<Option<Head>> {
    let batch = connection
        .query_row("SELECT last, horizon, hash FROM batch ORDER BY last DESC LIMIT 1", [], |row| {
            Ok((row.get(0)?, row.get(1)?, Hash::from_slice(row.get_ref(2)?.as_blob()?)))
        })
        .optional()?;
    let found = match batch {
        Some(found) => Some(found),
        None => connection
            .query_row("SELECT before, seed FROM segment", [], |row| {
                Ok((row.get(0)?, i64::MIN, Hash::from_slice(row.get_ref(1)?.as_blob()?)))
            })
            .optional()?,
    };
    Ok(found.and_then(|(last, horizon, hash)| Some(Head { last, horizon, hash: hash? })))
}

/// The head that its first row follows; none when it is malformed.
pub(crate) fn previous(connection: &Connection) -> rusqlite::Result<Option<Hash>> {
    connection
        .query_row("SELECT previous FROM segment", [], |row| Ok(Hash::from_slice(row.get_ref(0)?.as_blob()?)))
}

/// The manifest: the segments before; none when a head is malformed.
pub(crate) fn manifest(connection: &Connection) -> rusqlite::Result<Option<Vec<Manifest>>> {
    let mut statement = connection.prepare(
        "SELECT month, first, last, count, since, until, head FROM manifest NOT INDEXED ORDER BY month",
    )?;
    let rows = statement.query_map([], |row| {
        let head = Hash::from_slice(row.get_ref(6)?.as_blob()?);
        Ok(match head {
            None => None,
            Some(head) => Some(Manifest {
                month: row.get(0)?,
                first: row.get(1)?,
                last: row.get(2)?,
                count: row.get(3)?,
                since: row.get(4)?,
                until: row.get(5)?,
                head,
            }),
        })
    })?;
    rows.collect()
}
