//! The transids that the nodes of a fleet have accepted: `fleet.used_transid`.
//!
//! A row is inserted once, whichever nodes try at the same time. A process may insert its own rows again, so that a
//! statement whose reply was lost can be repeated.
//!
//! Rows are removed below `fleet.transid_floor`, and transids below it are refused. The floor rises first, and rows are
//! removed below a floor that was read at least [`SETTLE`] before. A statement that still sees a lower floor began before
//! that time: no process waits for its result any more.

use std::time::Duration;

use tokio_postgres::types::{ToSql, Type};

use super::link::{Link, LinkError};

/// Time from the rise of the floor to the removal of rows below it. Longer than any process waits for an insertion.
pub const SETTLE: Duration = Duration::from_secs(60);

/// Rows that one statement removes at most.
const REMOVED: i64 = 5_000;

/// Time for a statement that no request waits for.
const MAINTENANCE: Duration = Duration::from_secs(5);

/// Inserts what is at or above the floor, in the order of the primary key, so that two batches never wait for each other.
/// Returns the others, and whether each is below the floor. Without a floor all are.
const INSERT: &str = "\
    WITH sent AS (SELECT number, appid FROM unnest($1::int8[], $2::text[]) AS sent (number, appid)),
    floor AS (SELECT coalesce((SELECT number FROM fleet.transid_floor), 9223372036854775807) AS number),
    kept AS (
      INSERT INTO fleet.used_transid AS used (number, node, process, appid)
      SELECT sent.number, $3, $4, sent.appid FROM sent, floor WHERE sent.number >= floor.number
      ORDER BY sent.number, sent.appid COLLATE \"C\"
      ON CONFLICT (number, appid) DO UPDATE SET process = excluded.process
        WHERE used.node = excluded.node AND used.process = excluded.process
      RETURNING used.number, used.appid)
    SELECT sent.number, sent.appid, sent.number < floor.number FROM sent, floor
    WHERE NOT EXISTS (SELECT FROM kept WHERE kept.number = sent.number AND kept.appid = sent.appid)";

/// Inserts rows after their transids were accepted. Returns those that were there.
const INSERT_LATE: &str = "\
    WITH sent AS (SELECT number, appid FROM unnest($1::int8[], $2::text[]) AS sent (number, appid)),
    kept AS (
      INSERT INTO fleet.used_transid (number, node, process, appid)
      SELECT number, $3, $4, appid FROM sent ORDER BY number, appid COLLATE \"C\"
      ON CONFLICT DO NOTHING RETURNING number, appid)
    SELECT sent.number, sent.appid FROM sent
    WHERE NOT EXISTS (SELECT FROM kept WHERE kept.number = sent.number AND kept.appid = sent.appid)";

/// Keeps those of another node's. Returns the ones that were not kept before.
const INSERT_TWICE: &str = "\
    INSERT INTO fleet.accepted_twice (number, appid, node, other)
    SELECT used.number, used.appid, $3, used.node
    FROM unnest($1::int8[], $2::text[]) AS sent (number, appid)
    JOIN fleet.used_transid used ON used.number = sent.number AND used.appid = sent.appid COLLATE \"C\"
    WHERE used.node <> $3
    ON CONFLICT DO NOTHING RETURNING 1";

/// Stores the node's window. Returns the time in Unix seconds, and the widest window of the other nodes.
const STORE_WINDOW: &str = "\
    WITH own AS (
      INSERT INTO fleet.transid_window (node, seconds) VALUES ($1, $2)
      ON CONFLICT (node) DO UPDATE SET seconds = excluded.seconds)
    SELECT floor(extract(epoch FROM fleet.now()))::int8,
      coalesce((SELECT max(seconds) FROM fleet.transid_window WHERE node <> $1), 0)";

const RAISE_FLOOR: &str = "UPDATE fleet.transid_floor SET number = greatest(number, $1) RETURNING number";

const REMOVE: &str = "\
    WITH removed AS (
      DELETE FROM fleet.used_transid WHERE ctid = ANY (ARRAY(
        SELECT ctid FROM fleet.used_transid WHERE number < $1 ORDER BY number LIMIT $2 FOR UPDATE SKIP LOCKED))
      RETURNING 1)
    SELECT count(*) FROM removed";

const REMOVE_TWICE: &str = "DELETE FROM fleet.accepted_twice WHERE found < fleet.now() - interval '400 days'";

/// A start of a node.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Process {
    /// The number of the node.
    pub node: i16,
    /// A random number.
    pub process: i32,
}

/// Transids as columns: `numbers[i]` and `appids[i]` are one transid, and no two are equal.
#[derive(Clone, Debug, Default)]
pub struct Transids<'a> {
    /// Stamp and sequence.
    pub numbers: Vec<i64>,
    /// The clients.
    pub appids: Vec<&'a str>,
}

/// A transid that was not inserted.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct NotInserted {
    /// Stamp and sequence.
    pub number: i64,
    /// The client.
    pub appid: String,
    /// Its number is below the floor; otherwise another process has inserted it.
    pub below_floor: bool,
}

impl Link {
    /// Inserts transids for requests that wait, within a time limit. Returns those that were not inserted.
    ///
    /// # Errors
    /// As [`Link::query`]; whether a row was inserted is not known then.
    pub async fn insert_transids(
        &self,
        process: Process,
        transids: &Transids<'_>,
        limit: Duration,
    ) -> Result<Vec<NotInserted>, LinkError> {
        let parameters = [
            (&transids.numbers as &(dyn ToSql + Sync), Type::INT8_ARRAY),
            (&transids.appids, Type::TEXT_ARRAY),
            (&process.node, Type::INT2),
            (&process.process, Type::INT4),
        ];
        let rows = self.query_within(INSERT, &parameters, limit).await?;
        rows.iter()
            .map(|row| {
                Ok(NotInserted {
                    number: row.try_get(0)?,
                    appid: row.try_get(1)?,
                    below_floor: row.try_get(2)?,
                })
            })
            .collect()
    }

    /// Inserts transids that the node accepted while it was alone. Returns the number of those that were not there, and of
    /// those that another node has accepted too, which are kept in `fleet.accepted_twice`, without those that were kept before.
    ///
    /// # Errors
    /// [`LinkError`]; the same call again completes it.
    pub async fn insert_transids_late(
        &self,
        process: Process,
        transids: &Transids<'_>,
    ) -> Result<(usize, usize), LinkError> {
        let (numbers, appids) = (&transids.numbers, &transids.appids);
        let present = self
            .maintain(
                INSERT_LATE,
                &[
                    (numbers, Type::INT8_ARRAY),
                    (appids, Type::TEXT_ARRAY),
                    (&process.node, Type::INT2),
                    (&process.process, Type::INT4),
                ],
                MAINTENANCE,
            )
            .await?;
        let inserted = transids.numbers.len().saturating_sub(present.len());
        if present.is_empty() {
            return Ok((inserted, 0));
        }
        // A statement of its own: the snapshot of the first one does not have rows that were committed meanwhile.
        let numbers = present.iter().map(|row| row.try_get(0)).collect::<Result<Vec<i64>, _>>()?;
        let appids = present.iter().map(|row| row.try_get(1)).collect::<Result<Vec<String>, _>>()?;
        let twice = self
            .maintain(
                INSERT_TWICE,
                &[(&numbers, Type::INT8_ARRAY), (&appids, Type::TEXT_ARRAY), (&process.node, Type::INT2)],
                MAINTENANCE,
            )
            .await?;
        Ok((inserted, twice.len()))
    }

    /// Stores the widest window of this node's clients. Returns the database's time, in Unix seconds, and the widest window
    /// of all nodes.
    ///
    /// # Errors
    /// [`LinkError`].
    pub async fn store_transid_window(
        &self,
        node: i16,
        window: Duration,
    ) -> Result<(u64, Duration), LinkError> {
        let seconds = i64::try_from(window.as_secs()).unwrap_or(i64::MAX);
        let parameters: [(&(dyn tokio_postgres::types::ToSql + Sync), Type); 2] =
            [(&node, Type::INT2), (&seconds, Type::INT8)];
        let rows = self.maintain(STORE_WINDOW, &parameters, MAINTENANCE).await?;
        let [now, widest]: [i64; 2] = match rows.first() {
            Some(row) => [row.try_get(0)?, row.try_get(1)?],
            None => [0, i64::MAX],
        };
        let widest = Duration::from_secs(u64::try_from(widest).unwrap_or(u64::MAX));
        Ok((u64::try_from(now).unwrap_or(0), widest.max(window)))
    }

    /// Raises the floor to at least this number. Returns the floor.
    ///
    /// # Errors
    /// [`LinkError`].
    pub async fn raise_transid_floor(&self, number: i64) -> Result<i64, LinkError> {
        let rows = self.maintain(RAISE_FLOOR, &[(&number, Type::INT8)], MAINTENANCE).await?;
        rows.first().map_or(Ok(0), |row| Ok(row.try_get(0)?))
    }

    /// Removes some of the rows below a floor that was read [`SETTLE`] ago. Returns whether there may be more.
    ///
    /// # Errors
    /// [`LinkError`].
    pub async fn remove_transids(&self, floor: i64) -> Result<bool, LinkError> {
        let parameters: [(&(dyn tokio_postgres::types::ToSql + Sync), Type); 2] =
            [(&floor, Type::INT8), (&REMOVED, Type::INT8)];
        let rows = self.maintain(REMOVE, &parameters, MAINTENANCE).await?;
        let removed: i64 = rows.first().map_or(Ok(0), |row| row.try_get(0))?;
        if removed < REMOVED {
            self.maintain(REMOVE_TWICE, &[], MAINTENANCE).await?;
        }
        Ok(removed == REMOVED)
    }
}
