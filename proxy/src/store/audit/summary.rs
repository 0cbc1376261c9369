//! What a segment holds, in short: equal look-ups counted together, in the order of their first.

use std::path::Path;

use rusqlite::Connection;

use super::super::StoreError;
use super::super::schema::{self, Kind};

/// Look-ups that differ only in their time, transid and latency.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Summary {
    /// How many.
    pub look_ups: i64,
    /// How many carrier calls they made, attempts that failed included. A call is counted once: to the look-up that led
    /// it, or, if that has no record, to the first of those that shared it.
    pub carrier_calls: i64,
    /// Who asked, or claimed to.
    pub client: Option<String>,
    /// About which card.
    pub card: Option<String>,
    /// What became of them.
    pub outcome: String,
    /// Why, where refused or failed.
    pub reason: Option<String>,
    /// The code answered.
    pub code: String,
    /// The STATUS answered.
    pub status: Option<String>,
}

/// Summarizes one segment. Blocks; reads every row.
///
/// # Errors
/// When the segment cannot be read.
pub fn summarize(segment: &Path) -> Result<Vec<Summary>, StoreError> {
    let connection = schema::open_read_only(segment, Kind::Audit)?;
    read(&connection).map_err(StoreError::sqlite(segment))
}

fn read(connection: &Connection) -> rusqlite::Result<Vec<Summary>> {
    let mut statement = connection.prepare(
        "WITH leader AS (
             SELECT coalesce(min(CASE WHEN outcome <> 'collapsed' THEN id END), min(id)) AS id
             FROM lookup WHERE carrier_transid IS NOT NULL GROUP BY carrier_transid),
         cost AS (
             SELECT leader.id AS id, count(*) AS calls
             FROM leader CROSS JOIN lookup_call ON lookup_call.lookup = leader.id GROUP BY leader.id)
         SELECT count(*), coalesce(sum(cost.calls), 0), client, card, outcome, reason, lookup.code, lookup.status
         FROM lookup LEFT JOIN cost ON cost.id = lookup.id
         GROUP BY client, card, outcome, reason, lookup.code, lookup.status ORDER BY min(lookup.id)",
    )?;
    let rows = statement.query_map([], |row| {
        Ok(Summary {
            look_ups: row.get(0)?,
            carrier_calls: row.get(1)?,
            client: row.get(2)?,
            card: row.get(3)?,
            outcome: row.get(4)?,
            reason: row.get(5)?,
            code: row.get(6)?,
            status: row.get(7)?,
        })
    })?;
    rows.collect()
}
