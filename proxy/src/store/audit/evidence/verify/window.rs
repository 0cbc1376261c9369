//! Verifies the end of an ended segment: the rows that a start reads back, against the manifest of a later segment.
//!
//! The chain is hashed from the batch before the first one in the window: its horizon is before the window, and horizons
//! never fall, so no earlier batch can have such a row.

use rusqlite::{Connection, OptionalExtension};

use super::names::Names;
use super::source::{Expected, Source, faults_of, hash_rows};
use super::tables::{StoredBatch, Tables};
use crate::clock::Time;
use crate::store::audit::log::chain::{self, Digest, Hash, Manifest};
use crate::store::audit::log::link::{self, Head};
use crate::store::audit::query::range::first_since;
use crate::store::schema;

/// The first fault of an ended segment; none when it is the one that the manifest describes, and its rows at or after
/// `since` are those that were committed.
pub(crate) fn fault_of_ended(
    connection: &Connection,
    known: &Manifest,
    since: Time,
) -> rusqlite::Result<Option<String>> {
    let fault = |what: &str| Ok(Some(what.to_owned()));
    let head = Head { last: known.last, horizon: known.until, hash: known.head };
    if link::head(connection)? != Some(head) {
        return fault("its last row, or the head of its chain, is not that of the next segment's manifest");
    }
    let (name, before, seed): (String, i64, Vec<u8>) =
        connection.query_row("SELECT month, before, seed FROM segment", [], |row| {
            Ok((row.get(0)?, row.get(1)?, row.get(2)?))
        })?;
    let (previous, manifest) = (link::previous(connection)?, link::manifest(connection)?);
    let (Some(previous), Some(manifest), Some(seed)) = (previous, manifest, Hash::from_slice(&seed)) else {
        return fault("a hash in table segment or manifest is malformed");
    };
    if name != known.month || seed != chain::seed(&name, &previous, before, &manifest) {
        return fault("it is another segment, or table segment or manifest was altered");
    }
    let first = first_since(connection, since)?.unwrap_or(known.last.saturating_add(1));
    let earlier = |row: i64| {
        connection
            .query_row(
                "SELECT last, hash FROM batch WHERE last < ?1 ORDER BY last DESC LIMIT 1",
                [row],
                |row| Ok((row.get::<_, i64>(0)?, Hash::from_slice(row.get_ref(1)?.as_blob()?))),
            )
            .optional()
    };
    let start = match earlier(first)? {
        Some((last, _)) => earlier(last)?,
        None => None,
    };
    let (last, hash) = start.unwrap_or((before, Some(seed)));
    let Some(hash) = hash else { return fault("the hash of a batch is malformed") };
    chain_fault(connection, last, hash)
}

/// The first fault of the batches after row `last`, whose chain has this head.
fn chain_fault(connection: &Connection, mut last: i64, mut head: Hash) -> rusqlite::Result<Option<String>> {
    let schema = schema::version_of(connection)?;
    let mut statements = Tables::prepare(connection, schema)?;
    let mut tables = Tables::open(&mut statements, last.saturating_add(1))?;
    let mut names = Names::read(connection)?;
    let mut batches = connection.prepare(StoredBatch::SELECT)?;
    let mut batches = batches.query([last.saturating_add(1)])?;
    while let Some(row) = batches.next()? {
        let StoredBatch { limits, hash } = StoredBatch::read(row)?;
        let mut wrong = faults_of(&limits, last, schema);
        let mut digest = Digest::batch(&head);
        let expected = Expected { limits, schema, partial: false };
        hash_rows(expected, &mut tables, &mut names, &mut digest, &mut wrong, |_, _, _| Ok(()))?;
        let hashed = digest.finish_batch(limits);
        if wrong.is_empty() && hash != Some(hashed) {
            wrong.push("its rows are not those that were committed".to_owned());
        }
        if let Some(what) = wrong.into_iter().next() {
            return Ok(Some(format!("batch of rows {} to {}: {what}", limits.first, limits.last)));
        }
        (last, head) = (limits.last, hashed);
    }
    Ok(tables
        .unread()
        .into_iter()
        .next()
        .map(|(table, id)| format!("row {id} of table {} belongs to no batch", table.name())))
}
