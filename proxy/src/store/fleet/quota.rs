//! The calls of an account's day: one row per account and day counts everything that the nodes may spend.
//!
//! A grant is one upsert, which the lock of the row makes exact whatever races. A reply that is lost wastes its grant: no
//! statement is repeated under the same grant. The day comes from `fleet.now()`.

use std::time::Duration;

use tokio_postgres::Row;
use tokio_postgres::types::Type;

use super::{Link, LinkError, UPKEEP_LIMIT};

/// Microseconds of a day.
const DAY: i64 = 86_400_000_000;

/// The day at the moment of a statement, and the time since its midnight.
const TODAY: &str = "today AS MATERIALIZED (
  SELECT n.micros / 86400000000 AS day, n.micros % 86400000000 AS since
  FROM (SELECT (extract(epoch FROM fleet.now()) * 1000000)::bigint + 28800000000 AS micros) n)";

/// The limits of one grant, in calls per day.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct DayLimits {
    /// All calls of the account.
    pub limit: u64,
    /// Calls that are granted in blocks.
    pub ceiling: u64,
    /// Calls that all nodes together may keep in reserve.
    pub reserves: u64,
}

/// The day by the clock of the database.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct FleetDay {
    /// Days since 1970 at UTC+8.
    pub day: u64,
    /// The time since its midnight.
    pub since_midnight: Duration,
}

/// A granted block of calls.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct BlockGrant {
    /// The day of its calls, which is today.
    pub today: FleetDay,
    /// The number of calls; 0 when the day's calls are spent.
    pub granted: u64,
    /// Calls of the day that were granted in blocks, this one included.
    pub leased: u64,
}

/// Calls that a node keeps in reserve.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct ReserveGrant {
    /// Days since 1970 at UTC+8.
    pub day: u64,
    /// The number of calls.
    pub granted: u64,
}

impl Link {
    /// Grants up to `block` calls of today. `lone` has a day and the calls of it that this node made without the fleet and
    /// has not reported: they count first. Removes the rows of days that have long passed.
    ///
    /// # Errors
    /// [`LinkError`]; the grant may be lost then, and is never made twice.
    pub async fn lease_calls(
        &self,
        appid: &str,
        block: u64,
        limits: DayLimits,
        lone: Option<(u64, u64)>,
    ) -> Result<BlockGrant, LinkError> {
        // excluded.granted is the block, and excluded.leased the calls to count first.
        let sql = format!(
            "WITH {TODAY},
             old AS (DELETE FROM fleet.quota q USING today WHERE q.appid = $1 AND q.day < today.day - 40),
             lease AS (
               INSERT INTO fleet.quota AS q (appid, day, leased, granted)
               SELECT $1, day, n + least($2, greatest(0, $4 - n)), least($2, greatest(0, $4 - n))
               FROM (SELECT day, CASE WHEN $5 >= day THEN $6 ELSE 0 END AS n FROM today) t
               ON CONFLICT (appid, day) DO UPDATE SET
                 granted = least($2, greatest(0, least($4, $3 - q.reserved) - q.leased - excluded.leased + excluded.granted)),
                 leased = q.leased + excluded.leased - excluded.granted
                   + least($2, greatest(0, least($4, $3 - q.reserved) - q.leased - excluded.leased + excluded.granted))
               RETURNING q.granted, q.leased)
             SELECT today.day, today.since, lease.granted, lease.leased FROM today, lease"
        );
        let (lone_day, lone_calls) = lone.unwrap_or_default();
        let rows = self
            .query(
                &sql,
                &[
                    (&appid, Type::TEXT),
                    (&to_sql(block), Type::INT8),
                    (&to_sql(limits.limit), Type::INT8),
                    (&to_sql(limits.ceiling), Type::INT8),
                    (&to_sql(lone_day), Type::INT8),
                    (&to_sql(lone_calls), Type::INT8),
                ],
            )
            .await?;
        let row = only(&rows)?;
        Ok(BlockGrant { today: day(row, 0)?, granted: count(row, 2)?, leased: count(row, 3)? })
    }

    /// Grants the reserve of a node, up to `reserve` calls per day, for the days after `known` from today to `ahead` days
    /// after it.
    ///
    /// # Errors
    /// As [`Self::lease_calls`].
    pub async fn reserve_calls(
        &self,
        appid: &str,
        reserve: u64,
        limits: DayLimits,
        known: Option<u64>,
        ahead: u64,
    ) -> Result<Vec<ReserveGrant>, LinkError> {
        let sql = format!(
            "WITH {TODAY}
             INSERT INTO fleet.quota AS q (appid, day, reserved, granted)
             SELECT $1, d, least($2, $4, $3), least($2, $4, $3)
             FROM today, generate_series(greatest(today.day, $5 + 1), today.day + $6) d ORDER BY d
             ON CONFLICT (appid, day) DO UPDATE SET
               granted = least($2, greatest(0, least($4 - q.reserved, $3 - q.leased - q.reserved))),
               reserved = q.reserved + least($2, greatest(0, least($4 - q.reserved, $3 - q.leased - q.reserved)))
             RETURNING q.day, q.granted"
        );
        let known = known.map_or(-1, to_sql);
        let rows = self
            .maintain(
                &sql,
                &[
                    (&appid, Type::TEXT),
                    (&to_sql(reserve), Type::INT8),
                    (&to_sql(limits.limit), Type::INT8),
                    (&to_sql(limits.reserves), Type::INT8),
                    (&known, Type::INT8),
                    (&to_sql(ahead), Type::INT8),
                ],
                // No request waits for it.
                UPKEEP_LIMIT,
            )
            .await?;
        rows.iter().map(|row| Ok(ReserveGrant { day: count(row, 0)?, granted: count(row, 1)? })).collect()
    }
}

/// Days since 1970 at UTC+8 and the time since midnight, from two columns.
pub(super) fn day(row: &Row, column: usize) -> Result<FleetDay, LinkError> {
    let since: i64 = row.try_get(column + 1)?;
    let since = u64::try_from(since.clamp(0, DAY)).unwrap_or_default(); // never negative
    Ok(FleetDay { day: count(row, column)?, since_midnight: Duration::from_micros(since) })
}

/// A count, which no table lets be negative.
pub(super) fn count(row: &Row, column: usize) -> Result<u64, LinkError> {
    Ok(u64::try_from(row.try_get::<_, i64>(column)?).unwrap_or_default())
}

/// The only row of a result.
pub(super) fn only(rows: &[Row]) -> Result<&Row, LinkError> {
    // Each of these statements returns a row whatever the tables have.
    rows.first().ok_or(LinkError::Away)
}

pub(super) fn to_sql(calls: u64) -> i64 {
    // Limits are at most 2^53 or so; a sum of two must not overflow.
    i64::try_from(calls).unwrap_or(i64::MAX).min(i64::MAX / 4)
}
