//! Reads a segment's rows ordered by number, batch by batch, and hashes them.
//!
//! After a batch at fault the scan goes on with the hash that the batch has stored, so that the report distinguishes one
//! altered batch from a chain that is broken after it.

use super::index::Index;
use super::names::Names;
use super::source::{Expected, MOST_DAMAGE, Source, faults_of, hash_rows};
use super::tables::{StoredBatch, Tables};
use super::{BatchSpan, SegmentVerifier};
use crate::store::audit::log::chain::{Digest, Hash, Limits};
use crate::store::audit::log::columns::Table;
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

impl SegmentVerifier<'_, '_> {
    /// Reads every row, ordered by number. `seed` and `before` are the hash and the number that the first batch follows.
    pub(super) fn rows(&mut self, seed: Hash, before: i64) -> rusqlite::Result<Scanned> {
        let connection = self.connection;
        let schema = schema::version_of(connection)?;
        let mut statements = Tables::prepare(connection, schema)?;
        let mut scan = Scan {
            schema,
            names: Names::read(connection)?,
            tables: Tables::open(&mut statements, i64::MIN)?,
            index: Index::open(connection)?,
            scanned: Scanned { span: None, last: before, head: seed, since: i64::MAX, until: i64::MIN },
        };
        let most = self.report.damage.len() + MOST_DAMAGE;
        let mut batches = connection.prepare(StoredBatch::SELECT)?;
        let mut batches = batches.query([i64::MIN])?;
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
        let expected = Expected { limits: *limits, schema: *schema, partial: false };
        let hashed = hash_rows(expected, tables, names, digest, wrong, |tables, row, names| {
            if row.table == Table::Note && !row.is_faulty {
                self.noted.row(tables, names)?;
            }
            if let Some(stored) = tables.row(row.table) {
                index.note(row.table, row.id, stored)?;
            }
            self.report.rows += 1;
            if self.report.rows.is_multiple_of(STEP) {
                (self.progress)(self.report.rows);
            }
            Ok(())
        })?;
        Ok(!hashed.is_faulty)
    }
}
