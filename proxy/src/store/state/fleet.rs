//! Calls of a day under a fleet: what its database has granted, and the reserve for the time when it is away.
//!
//! `spending` goes on counting every call of this node, so that a node that leaves the fleet during a day knows its own.

use cmiot_signer::AppId;
use rusqlite::{Connection, OptionalExtension, Transaction, TransactionBehavior, named_params};

use super::{StateStore, StoreError, to_sql};
use crate::store::Fault;

/// The reserve of one day.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Reserve {
    /// Days since 1970 at UTC+8.
    pub day: u64,
    /// Calls that are not leased.
    pub left: u64,
}

impl StateStore {
    /// Records a granted block, before it is used, and that the database has counted `reported` calls that were leased without
    /// a fleet. Blocks until it is on the disk.
    ///
    /// # Errors
    /// When it was not committed; the calls must not be used then.
    pub fn record_grant(
        &self,
        appid: &AppId,
        day: u64,
        granted: u64,
        reported: u64,
    ) -> Result<(), StoreError> {
        self.commit(|connection| {
            let sqlite = StoreError::sqlite(&self.path);
            let recording =
                connection.transaction_with_behavior(TransactionBehavior::Immediate).map_err(sqlite)?;
            spend(&recording, appid, day, granted, reported).map_err(sqlite)?;
            recording.commit().map_err(sqlite)
        })
    }

    /// The latest day with calls that were leased without a fleet and not reported, and their number; none without such
    /// calls. Blocks.
    ///
    /// # Errors
    /// When it cannot be read.
    pub fn unreported(&self, appid: &AppId) -> Result<Option<(u64, u64)>, StoreError> {
        let row: Option<(i64, i64)> = self
            .lock()
            .connection
            .prepare_cached("SELECT day, leased - shared FROM spending WHERE appid = ?1 AND leased > shared")
            .and_then(|mut statement| {
                statement.query_row([appid.as_str()], |row| Ok((row.get(0)?, row.get(1)?))).optional()
            })
            .map_err(StoreError::sqlite(&self.path))?;
        row.map(|(day, calls)| Ok((self.calls(day)?, self.calls(calls)?))).transpose()
    }

    /// Adds granted calls to the reserves of days, as (day, calls). Blocks until it is on the disk.
    ///
    /// # Errors
    /// When it was not committed; the calls must not be used then.
    pub fn add_reserves(&self, appid: &AppId, granted: &[(u64, u64)]) -> Result<(), StoreError> {
        self.commit(|connection| {
            let sqlite = StoreError::sqlite(&self.path);
            let adding =
                connection.transaction_with_behavior(TransactionBehavior::Immediate).map_err(sqlite)?;
            add_reserves(&adding, appid, granted).map_err(sqlite)?;
            adding.commit().map_err(sqlite)
        })
    }

    /// The days of the reserve of an account, in order. Blocks.
    ///
    /// # Errors
    /// When they cannot be read.
    pub fn reserves(&self, appid: &AppId) -> Result<Vec<Reserve>, StoreError> {
        let sqlite = StoreError::sqlite(&self.path);
        let rows: Vec<(i64, i64)> = self
            .lock()
            .connection
            .prepare_cached("SELECT day, granted - leased FROM reserve WHERE appid = ?1 ORDER BY day")
            .and_then(|mut statement| {
                statement.query_map([appid.as_str()], |row| Ok((row.get(0)?, row.get(1)?)))?.collect()
            })
            .map_err(sqlite)?;
        rows.into_iter()
            .map(|(day, left)| Ok(Reserve { day: self.calls(day)?, left: self.calls(left)? }))
            .collect()
    }

    /// Leases up to `block` calls of the reserve of a day, of which this node may use `most`. Returns the number of leased
    /// calls, and of those that are left. Blocks until it is on the disk.
    ///
    /// # Errors
    /// When it was not committed; the calls must not be used then.
    pub fn lease_reserve(
        &self,
        appid: &AppId,
        day: u64,
        block: u64,
        most: u64,
    ) -> Result<(u64, u64), StoreError> {
        self.commit(|connection| {
            let sqlite = StoreError::sqlite(&self.path);
            let leasing =
                connection.transaction_with_behavior(TransactionBehavior::Immediate).map_err(sqlite)?;
            let row: Option<(i64, i64)> = reserve_of(&leasing, appid, day).map_err(sqlite)?;
            let (granted, leased) = row.unwrap_or_default();
            let left = self.calls(granted)?.min(most).saturating_sub(self.calls(leased)?);
            let taken = block.min(left);
            if taken > 0 {
                take_reserve(&leasing, appid, day, taken).map_err(sqlite)?;
            }
            leasing.commit().map_err(sqlite)?;
            Ok((taken, left - taken))
        })
    }

    fn calls(&self, stored: i64) -> Result<u64, StoreError> {
        u64::try_from(stored).map_err(|_| StoreError::new(&self.path, Fault::Malformed { value: "spending" }))
    }
}

/// Counts calls that the database of the fleet has granted. A day before the latest one counts as that one.
fn spend(
    connection: &Connection,
    appid: &AppId,
    day: u64,
    granted: u64,
    reported: u64,
) -> rusqlite::Result<()> {
    connection
        .prepare_cached(
            "INSERT INTO spending (appid, day, leased, shared) VALUES (:appid, :day, :granted, :granted)
             ON CONFLICT DO UPDATE SET
               day = max(day, excluded.day),
               leased = iif(day < excluded.day, 0, leased) + :granted,
               shared = iif(day < excluded.day, 0, min(leased, shared + :reported)) + :granted",
        )?
        .execute(named_params! {
            ":appid": appid.as_str(), ":day": to_sql(day),
            ":granted": to_sql(granted), ":reported": to_sql(reported),
        })
        .map(drop)
}

fn add_reserves(adding: &Transaction<'_>, appid: &AppId, granted: &[(u64, u64)]) -> rusqlite::Result<()> {
    let mut add = adding.prepare_cached(
        "INSERT INTO reserve (appid, day, granted, leased) VALUES (?1, ?2, ?3, 0)
         ON CONFLICT DO UPDATE SET granted = granted + excluded.granted",
    )?;
    for (day, calls) in granted {
        add.execute((appid.as_str(), to_sql(*day), to_sql(*calls)))?;
    }
    // The days before the earliest granted one have passed.
    let Some(first) = granted.iter().map(|(day, _)| *day).min() else { return Ok(()) };
    adding
        .prepare_cached("DELETE FROM reserve WHERE appid = ?1 AND day + 30 < ?2")?
        .execute((appid.as_str(), to_sql(first)))
        .map(drop)
}

fn reserve_of(connection: &Connection, appid: &AppId, day: u64) -> rusqlite::Result<Option<(i64, i64)>> {
    connection
        .prepare_cached("SELECT granted, leased FROM reserve WHERE appid = ?1 AND day = ?2")?
        .query_row((appid.as_str(), to_sql(day)), |row| Ok((row.get(0)?, row.get(1)?)))
        .optional()
}

fn take_reserve(connection: &Connection, appid: &AppId, day: u64, calls: u64) -> rusqlite::Result<()> {
    connection
        .prepare_cached("UPDATE reserve SET leased = leased + ?3 WHERE appid = ?1 AND day = ?2")?
        .execute((appid.as_str(), to_sql(day), to_sql(calls)))?;
    spend(connection, appid, day, calls, 0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::state::OnStateLoss;

    fn open(dir: &std::path::Path) -> StateStore {
        StateStore::open(dir, OnStateLoss::Refuse).unwrap()
    }

    fn appid() -> AppId {
        AppId::parse("100001").unwrap()
    }

    #[test]
    fn a_node_that_joins_a_fleet_reports_the_calls_that_it_made_alone_once() {
        let dir = tempfile::tempdir().unwrap();
        let state = open(dir.path());
        assert_eq!(state.unreported(&appid()).unwrap(), None);
        state.lease_calls(&appid(), 7, 10, 100).unwrap();
        assert_eq!(state.unreported(&appid()).unwrap(), Some((7, 10)));
        state.record_grant(&appid(), 7, 5, 10).unwrap();
        assert_eq!(state.unreported(&appid()).unwrap(), None);
        // And one that leaves it knows all of its calls.
        let lease = state.lease_calls(&appid(), 7, 10, 100).unwrap();
        assert_eq!((lease.granted, lease.leased), (10, 25));
        assert_eq!(state.unreported(&appid()).unwrap(), Some((7, 10)));
        // A new day without the fleet, and with it.
        state.lease_calls(&appid(), 8, 3, 100).unwrap();
        assert_eq!(state.unreported(&appid()).unwrap(), Some((8, 3)));
        state.record_grant(&appid(), 9, 5, 0).unwrap();
        assert_eq!(state.unreported(&appid()).unwrap(), None);
        assert_eq!(state.last_lease(&appid()).unwrap().unwrap().leased, 5);
    }

    #[test]
    fn a_reserve_is_spent_once_through_a_restart() {
        let dir = tempfile::tempdir().unwrap();
        let state = open(dir.path());
        assert_eq!(state.lease_reserve(&appid(), 7, 2, 100).unwrap(), (0, 0));
        state.add_reserves(&appid(), &[(7, 5), (8, 6)]).unwrap();
        assert_eq!(state.lease_reserve(&appid(), 7, 2, 100).unwrap(), (2, 3));
        drop(state);
        let state = open(dir.path());
        assert_eq!(state.lease_reserve(&appid(), 7, 2, 100).unwrap(), (2, 1));
        assert_eq!(state.lease_reserve(&appid(), 7, 2, 4).unwrap(), (0, 0), "the limit was lowered");
        assert_eq!(state.lease_reserve(&appid(), 7, 2, 100).unwrap(), (1, 0));
        assert_eq!(state.lease_reserve(&appid(), 7, 2, 100).unwrap(), (0, 0));
        assert_eq!(
            state.reserves(&appid()).unwrap(),
            [Reserve { day: 7, left: 0 }, Reserve { day: 8, left: 6 }]
        );
        assert_eq!(state.last_lease(&appid()).unwrap().unwrap().leased, 5, "they are spent calls");
        assert_eq!(state.unreported(&appid()).unwrap(), None, "which the database knows");
        state.add_reserves(&appid(), &[(50, 1)]).unwrap();
        assert_eq!(state.reserves(&appid()).unwrap(), [Reserve { day: 50, left: 1 }]);
    }
}
