//! The last purge of a fleet that `cache.db` has applied.

use rusqlite::{Connection, OptionalExtension, named_params};

use super::writer::Write;
use super::{Applied, CacheStore};
use crate::store::StoreError;

/// A purge of a fleet.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct PurgeMark {
    /// Identity of the fleet.
    pub fleet: String,
    /// Number of the purge.
    pub generation: i64,
}

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

impl PurgeMark {
    pub(super) fn insert(&self, connection: &Connection) -> rusqlite::Result<()> {
        let mut statement = connection.prepare_cached(
            "INSERT INTO purged (one, fleet, generation) VALUES (1, :fleet, :generation)
             ON CONFLICT DO UPDATE SET fleet = excluded.fleet, generation = excluded.generation",
        )?;
        statement.execute(named_params! { ":fleet": self.fleet, ":generation": self.generation }).map(drop)
    }
}
