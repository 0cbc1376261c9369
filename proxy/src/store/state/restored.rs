//! A state that was restored from a backup: the proxy continued after the backup was made, and used more transids and
//! numbers than the state knows.

use rusqlite::TransactionBehavior;

use super::super::StoreError;
use super::{StateStore, to_sql};

impl StateStore {
    /// Starts a new lap of every sequence, and every later sequence, above `floor` and above every stamp that the state
    /// knows. `floor` must be above every stamp that was used since the backup; in seconds since 1970. `age` is the time
    /// since the backup in seconds: the state can be ahead of the clock, and a second restore of the same backup must start
    /// above the first. The webhooks begin at the end of the restored audit, without earlier conditions and dead letters.
    /// Returns the floor that applies. Blocks until it is on the disk.
    ///
    /// # Errors
    /// When it was not committed.
    pub fn start_above(&self, floor: u64, age: u64) -> Result<u64, StoreError> {
        let sqlite = StoreError::sqlite(&self.path);
        self.commit(|connection| {
            let raising =
                connection.transaction_with_behavior(TransactionBehavior::Immediate).map_err(sqlite)?;
            let known: i64 = raising
                .query_row(
                    "SELECT max(coalesce((SELECT max(ceiling) FROM sequence), 0), (SELECT floor FROM beginning))",
                    [],
                    |row| row.get(0),
                )
                .map_err(sqlite)?;
            // 2: a lap that began just after the backup has the floor `known` + 1. A further lap takes longer than its
            // ceiling is ahead of the clock, so `age` covers it.
            let floor = floor.max(self.seconds(known)?.saturating_add(2).saturating_add(age));
            raising
                .execute("UPDATE beginning SET floor = ?1", [to_sql(floor)])
                .and_then(|_| {
                    raising.execute("UPDATE sequence SET next = 1, floor = ?1, ceiling = ?1", [to_sql(floor)])
                })
                // The events behind these positions were delivered after the backup, or are not in the restored audit.
                .and_then(|_| raising.execute("DELETE FROM webhook", []))
                // Their rows were given to other records after the restore.
                .and_then(|_| raising.execute("DELETE FROM dead_letter", []))
                // With a condition from before the backup, the next start of the same one would not be noted.
                .and_then(|_| raising.execute("DELETE FROM condition", []))
                // Reserves that may have been spent after the backup.
                .and_then(|_| raising.execute("DELETE FROM reserve", []))
                .and_then(|_| raising.commit())
                .map_err(sqlite)?;
            Ok(floor)
        })
    }
}
