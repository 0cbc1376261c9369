//! The shared rate: slots of an account, and the nodes that take their calls from them.
//!
//! A slot is the moment at which one call may leave. The slots of an account are one stretched interval apart, over all nodes.
//! [`crate::fleet::rate`] has the proof that no second has too many calls.

use std::time::Duration;

use tokio_postgres::types::Type;

use super::micros;
use super::quota::{FleetDay, day, only};
use super::rest::{Rest, rest};
use super::{Link, LinkError};

/// The time for which a beat makes a node a pacer, from the moment of the reply before it.
pub const LEASE: Duration = Duration::from_secs(4);
/// No slot is booked whose account has booked slots up to this time ahead.
pub const AHEAD: Duration = Duration::from_secs(1);
/// The longest time from the first to the last slot of one booking.
pub const SPAN: Duration = Duration::from_millis(250);
/// A second, stretched: a call leaves up to 50 ms after its slot.
pub const STRETCHED_SECOND: Duration = Duration::from_millis(1_050);

/// The rate of one account, divided among nodes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Pace {
    /// Calls per second of all nodes.
    pub per_second: u32,
    /// Calls per second of each node that is alone.
    pub alone: u32,
    /// The greatest number of nodes.
    pub nodes: u32,
}

/// Slots of one booking.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Booking {
    /// The number of slots; 0 when too many are booked, or this node is no pacer.
    pub slots: u32,
    /// From the statement to the first slot, in microseconds; with no slots, to the moment of another try.
    pub first: i64,
    /// From one slot to the next.
    pub step: Duration,
}

/// The reply to a beat.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Beat {
    /// The clock of the database, in microseconds since 1970.
    pub at: i64,
    /// The day by that clock.
    pub today: FleetDay,
    /// Cool-downs and refusals that hold, or have ended within [`Rest::LISTED`].
    pub rests: Vec<Rest>,
}

impl Link {
    /// Makes the node a pacer until [`LEASE`] after `seen`, the clock of the database in the reply before, and reads the
    /// rests. Without `seen` the node does not become a pacer, but learns the clock.
    ///
    /// The end does not depend on the moment at which the statement arrives: one that was delayed extends nothing.
    ///
    /// # Errors
    /// [`LinkError`]; the node may have become a pacer.
    pub async fn beat(&self, node: u8, seen: Option<i64>) -> Result<Beat, LinkError> {
        const SQL: &str = "WITH now AS MATERIALIZED (SELECT fleet.now() AS t),
            wanted AS MATERIALIZED (
              SELECT 'epoch'::timestamptz + $2 * interval '1 microsecond' + $3 * interval '1 microsecond' AS until),
            pacer AS (
              INSERT INTO fleet.pacer AS p (node, until)
              SELECT $1, wanted.until FROM now, wanted
              WHERE wanted.until > now.t AND wanted.until <= now.t + $3 * interval '1 microsecond'
              ON CONFLICT (node) DO UPDATE SET until = least(greatest(p.until, excluded.until),
                (SELECT t FROM now) + $3 * interval '1 microsecond'))
            SELECT (extract(epoch FROM now.t) * 1000000)::bigint, d.micros / 86400000000, d.micros % 86400000000,
              r.appid, r.what, r.credentials, r.code, r.node,
              (extract(epoch FROM r.until - now.t) * 1000000)::bigint
            FROM now
            CROSS JOIN LATERAL (SELECT (extract(epoch FROM now.t) * 1000000)::bigint + 28800000000 AS micros) d
            LEFT JOIN fleet.rest r ON r.until > now.t - $4 * interval '1 microsecond'";
        let listed = micros(Rest::LISTED);
        let rows = self
            .query(
                SQL,
                &[
                    (&i16::from(node), Type::INT2),
                    (&seen, Type::INT8),
                    (&micros(LEASE), Type::INT8),
                    (&listed, Type::INT8),
                ],
            )
            .await?;
        let first = only(&rows)?;
        let rests = rows.iter().filter_map(|row| rest(row, 3).transpose()).collect::<Result<_, _>>()?;
        Ok(Beat { at: first.try_get(0)?, today: day(first, 1)?, rests })
    }

    /// Books up to `slots` slots of an account. A row that did not exist begins after every slot that may have been given
    /// out before it was lost.
    ///
    /// # Errors
    /// [`LinkError`]; slots that were booked are lost then.
    pub async fn book(&self, appid: &str, node: u8, pace: Pace, slots: u32) -> Result<Booking, LinkError> {
        // One more than the last slot that a booking may have had: the clock of the database was set back.
        const SQL: &str = "WITH now AS MATERIALIZED (SELECT fleet.now() AS t),
            pacers AS MATERIALIZED (
              SELECT count(*) AS n, coalesce(bool_or(node = $2), false) AS own FROM fleet.pacer, now
              WHERE until > t AND until <= t + $9 * interval '1 microsecond'),
            pace AS MATERIALIZED (
              SELECT t, own, t + $7 * interval '1 microsecond' AS last,
                ceil($6 / greatest(1, $3 - greatest(0, $5 - n) * $4)::float8) * interval '1 microsecond' AS step
              FROM now, pacers),
            free AS MATERIALIZED (
              SELECT t, step, last, last + $8 * interval '1 microsecond' + step AS beyond,
                CASE WHEN own THEN least($10, 1 + floor($8 / (extract(epoch FROM step) * 1000000))::int) ELSE 0 END AS n
              FROM pace),
            booked AS (
              INSERT INTO fleet.pace AS p (appid, next, first, step, granted)
              SELECT $1, beyond, t, step, 0 FROM free
              ON CONFLICT (appid) DO UPDATE SET (next, first, step, granted) = (
                SELECT CASE WHEN p.next > last THEN least(p.next, beyond) ELSE greatest(p.next, t) + n * free.step END,
                  greatest(p.next, t), free.step, CASE WHEN p.next > last THEN 0 ELSE n END
                FROM free)
              RETURNING p.granted, p.next, p.first, p.step)
            SELECT granted, (extract(epoch FROM CASE WHEN granted > 0 THEN first - t ELSE next - last END) * 1000000)::bigint,
              (extract(epoch FROM booked.step) * 1000000)::bigint
            FROM booked, free";
        let asked = i32::try_from(slots).unwrap_or(i32::MAX);
        let rows = self
            .query(
                SQL,
                &[
                    (&appid, Type::TEXT),
                    (&i16::from(node), Type::INT2),
                    (&i64::from(pace.per_second), Type::INT8),
                    (&i64::from(pace.alone), Type::INT8),
                    (&i64::from(pace.nodes), Type::INT8),
                    (&micros(STRETCHED_SECOND), Type::INT8),
                    (&micros(AHEAD), Type::INT8),
                    (&micros(SPAN), Type::INT8),
                    (&micros(LEASE), Type::INT8),
                    (&asked, Type::INT4),
                ],
            )
            .await?;
        let row = only(&rows)?;
        let step: i64 = row.try_get(2)?;
        Ok(Booking {
            slots: u32::try_from(row.try_get::<_, i32>(0)?).unwrap_or_default(), // never negative
            first: row.try_get(1)?,
            step: Duration::from_micros(u64::try_from(step).unwrap_or_default()), // never negative
        })
    }
}
