//! Blocks of numbers that were leased, kept until every call with one of them is known to have its row in the audit.

use cmiot_signer::AppId;
use rusqlite::{Connection, named_params};

use super::{HighWaterMark, StateStore, StoreError, to_sql};
use crate::store::Fault;

/// Blocks that are kept of one (appid, node). The calls under way are far fewer than their numbers.
const KEPT: u32 = 16;

/// How far the machine's clock may have been set back after a lease, in seconds, for the stamps of its numbers to be
/// looked for.
const SET_BACK: u64 = 86_400;

/// A block of numbers that was leased, and not accounted for since.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Leased {
    /// Later blocks have greater ones.
    pub id: i64,
    /// Whose.
    pub appid: AppId,
    /// Which node's.
    pub node: u8,
    /// The first number of the lap.
    pub first: u32,
    /// The number behind the last.
    pub past: u32,
    /// No stamp of theirs is before it, in Unix seconds.
    pub since: u64,
    /// No stamp of theirs is after it, in Unix seconds.
    pub until: u64,
}

impl StateStore {
    /// The blocks that are not accounted for, the earliest first. Blocks.
    ///
    /// # Errors
    /// When they cannot be read.
    pub fn leased(&self) -> Result<Vec<Leased>, StoreError> {
        let held = self.lock();
        let sqlite = StoreError::sqlite(&self.path);
        let mut all = held
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
                .map_err(|_| StoreError::new(&self.path, Fault::Malformed { what: "leased" }))?;
            let (since, until) = (self.seconds(since)?, self.seconds(until)?);
            found.push(Leased { id, appid, node, first, past, since, until });
        }
        Ok(found)
    }

    /// All blocks up to this one are accounted for. Blocks until that is on the disk.
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

/// Keeps the block by which a position has moved on, if it has, within the transaction that moves it.
pub(super) fn keep(
    connection: &Connection,
    appid: &AppId,
    node: u8,
    (read, written): (HighWaterMark, HighWaterMark),
    now: u64,
) -> rusqlite::Result<()> {
    if written.next == read.next && written.floor == read.floor {
        return Ok(()); // Only the ceiling has risen.
    }
    let first = if written.floor == read.floor { read.next } else { 1 };
    if written.next <= first {
        return Ok(());
    }
    let since = written.floor.max(now.saturating_sub(SET_BACK));
    connection
        .prepare_cached(
            "INSERT INTO leased (appid, node, first, past, since) VALUES (:appid, :node, :first, :past, :since)",
        )?
        .execute(named_params! {
            ":appid": appid.as_str(), ":node": node, ":first": first, ":past": written.next, ":since": to_sql(since),
        })?;
    connection
        .prepare_cached(
            "DELETE FROM leased WHERE appid = :appid AND node = :node AND id NOT IN
             (SELECT id FROM leased WHERE appid = :appid AND node = :node ORDER BY id DESC LIMIT :kept)",
        )?
        .execute(named_params! { ":appid": appid.as_str(), ":node": node, ":kept": KEPT })?;
    Ok(())
}
