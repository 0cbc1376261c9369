//! Leased blocks of numbers, stored until every call with one of them is known to have its row in the audit.

use cmiot_signer::AppId;
use rusqlite::{Connection, named_params};

use super::{Advance, StateStore, StoreError, to_sql};
use crate::store::Fault;

/// Stored blocks per (appid, node). The calls in flight are far fewer than the numbers of these blocks.
const MAX_BLOCKS: u32 = 16;

/// Maximum by which the machine's clock may be set back after a lease, in seconds, so that the stamps of its numbers are
/// still found.
const MAX_CLOCK_STEP: u64 = 86_400;

/// A leased block of numbers that is not accounted for.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Leased {
    /// Later blocks have greater ones.
    pub id: i64,
    pub appid: AppId,
    pub node: u8,
    /// The first number.
    pub first: u32,
    /// The number after the last.
    pub past: u32,
    /// The earliest stamp with one of the numbers, in Unix seconds.
    pub since: u64,
    /// The latest stamp with one of the numbers, in Unix seconds.
    pub until: u64,
}

impl StateStore {
    /// The blocks that are not accounted for, oldest first. Blocks on the disk.
    ///
    /// # Errors
    /// When they cannot be read.
    pub fn leased(&self) -> Result<Vec<Leased>, StoreError> {
        let database = self.lock();
        let sqlite = StoreError::sqlite(&self.path);
        let mut all = database
            .connection
            .prepare(
                "SELECT id, appid, node, first, past, since, ceiling
                 FROM leased JOIN sequence USING (appid, node) ORDER BY id",
            )
            .map_err(sqlite)?;
        let mut rows = all.query([]).map_err(sqlite)?;
        let mut found = Vec::new();
        while let Some(row) = rows.next().map_err(sqlite)? {
            let read = || {
                let appid: String = row.get(1)?;
                let seconds = (row.get::<_, i64>(5)?, row.get::<_, i64>(6)?);
                Ok((row.get(0)?, appid, row.get(2)?, row.get(3)?, row.get(4)?, seconds))
            };
            let (id, appid, node, first, past, (since, until)) = read().map_err(sqlite)?;
            let appid = AppId::parse(&appid)
                .map_err(|_| StoreError::new(&self.path, Fault::Malformed { value: "leased" }))?;
            let (since, until) = (self.seconds(since)?, self.seconds(until)?);
            found.push(Leased { id, appid, node, first, past, since, until });
        }
        Ok(found)
    }

    /// Records that all blocks up to this one are accounted for. Blocks until that is on the disk.
    ///
    /// # Errors
    /// When it was not committed.
    pub fn account_for(&self, last: i64) -> Result<(), StoreError> {
        let sqlite = StoreError::sqlite(&self.path);
        self.commit(|connection| {
            connection.execute("DELETE FROM leased WHERE id <= ?1", [last]).map(drop).map_err(sqlite)
        })
    }
}

/// Stores the block of numbers that an advance leases, if any, in the transaction of the advance.
pub(super) fn insert(
    connection: &Connection,
    appid: &AppId,
    node: u8,
    Advance { before, after }: Advance,
    now: u64,
) -> rusqlite::Result<()> {
    if after.next == before.next && after.floor == before.floor {
        return Ok(()); // Only the ceiling has risen.
    }
    let first = if after.floor == before.floor { before.next } else { 1 };
    if after.next <= first {
        return Ok(());
    }
    let since = after.floor.max(now.saturating_sub(MAX_CLOCK_STEP));
    connection
        .prepare_cached(
            "INSERT INTO leased (appid, node, first, past, since) VALUES (:appid, :node, :first, :past, :since)",
        )?
        .execute(named_params! {
            ":appid": appid.as_str(), ":node": node, ":first": first, ":past": after.next, ":since": to_sql(since),
        })?;
    connection
        .prepare_cached(
            "DELETE FROM leased WHERE appid = :appid AND node = :node AND id NOT IN
             (SELECT id FROM leased WHERE appid = :appid AND node = :node ORDER BY id DESC LIMIT :kept)",
        )?
        .execute(named_params! { ":appid": appid.as_str(), ":node": node, ":kept": MAX_BLOCKS })?;
    Ok(())
}
