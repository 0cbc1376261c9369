//! The last purge of a fleet that `cache.db` has applied.

use rusqlite::OptionalExtension;

use super::writer::Write;
use super::{Applied, CacheStore, PurgeMark};
use crate::store::StoreError;

impl CacheStore {
    /// The last purge that the file has applied; none in a file that no node of a fleet has used. Blocks.
    ///
    /// # Errors
    /// When the file cannot be read.
    pub fn purge_mark(&self) -> Result<Option<PurgeMark>, StoreError> {
        self.read(|connection, path| {
            let read = connection.query_row("SELECT fleet, generation FROM purged", [], |row| {
                Ok(PurgeMark { fleet: row.get("fleet")?, generation: row.get("generation")? })
            });
            read.optional().map_err(StoreError::sqlite(path))
        })
    }

    /// Stores the last purge that the file has applied, after the writes queued before.
    pub fn set_purge_mark(&self, mark: PurgeMark) -> Applied<()> {
        self.send(|done| Write::Mark(mark, done))
    }
}
