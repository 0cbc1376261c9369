//! Shared answers and flights: one statement per step of a flight.
//!
//! [`enter`] is the one statement of a miss. It returns an answer, or makes this life the leader of the key's row, or finds
//! another leader to follow. A row may be taken when it has landed, when its `until` has passed, or when its life has
//! ended; each leader gets a fence of its own, and [`land`] and [`release`] change a row of their fence only. Ages and
//! lifetimes are microseconds: no time of a node is compared with a time of the database.

use std::time::Duration;

use tokio_postgres::Row;
use tokio_postgres::types::Type;

use super::link::{Link, LinkError, Parameter};
use super::{UPKEEP_LIMIT, micros};

/// The name of a lookup, or of a card, in shared tables.
pub type SharedKey = [u8; 16];

/// A lookup that memory and file cannot answer.
#[derive(Clone, Debug)]
pub struct Asked<'a> {
    /// The name of the lookup.
    pub key: &'a SharedKey,
    /// The name of its card.
    pub card: &'a SharedKey,
    /// Its group and operation, by which purges select.
    pub group: &'a str,
    pub operation: &'a str,
    /// The life that asks.
    pub life: i64,
    /// The answer that the node has: only a newer one is returned.
    pub known: Known,
    /// The time after which another node may take the row, if this one leads.
    pub lease: Duration,
}

/// The answer that a node has already, which does not suffice.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Known {
    /// None.
    Nothing,
    /// One of this age, by the clock of the node.
    Aged(Duration),
    /// The one of this version, as the database returned it.
    Version(i64),
}

/// The position of a lookup after [`enter`].
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Entered {
    /// An answer that the node that stored it took for fresh.
    Answer(Answer),
    /// The row is this life's. `generation` is the last purge so far; `takeover`: the leader before had not landed.
    Lead { fence: i64, generation: i64, takeover: bool },
    /// Another life leads, with this fence.
    Follow { fence: i64 },
}

/// A carrier response of another node.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Answer {
    pub body: Vec<u8>,
    pub charset: Option<String>,
    /// Time since the carrier's response when the statement ran.
    pub age: Duration,
    /// The account and the transid of the call.
    pub account: String,
    pub transid: Option<String>,
    /// The reply of the carrier itself, if the body is not its own.
    pub carrier: Option<String>,
    /// Orders the answers of one key; see [`Known::Version`].
    pub version: i64,
}

/// The row of a flight that a node follows.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Followed {
    /// The leader has not landed.
    InFlight,
    /// It has landed.
    Landed(Landed),
    /// The row is gone or another's, or its leader is: enter again.
    Lost,
}

/// The result of a flight that has landed.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Landed {
    /// The carrier's response.
    Response(Answer),
    /// The call ended without a response: its fault, its account and transid.
    Fault { fault: String, account: String, transid: Option<String> },
}

/// A result to land.
#[derive(Clone, Debug)]
pub struct Landing<'a> {
    pub key: &'a SharedKey,
    pub card: &'a SharedKey,
    pub group: &'a str,
    pub operation: &'a str,
    /// As [`Entered::Lead`] has them.
    pub fence: i64,
    pub generation: i64,
    pub result: Result<Landable<'a>, &'a str>,
    pub account: &'a str,
    pub transid: Option<&'a str>,
}

/// A carrier response to land.
#[derive(Clone, Debug)]
pub struct Landable<'a> {
    pub body: &'a [u8],
    pub charset: Option<&'a str>,
    /// The reply of the carrier itself, if the body is not its own. Not kept without a transid.
    pub carrier: Option<&'a str>,
    /// The STATUS of the card, by which purges select.
    pub status: Option<&'a str>,
    /// Time since the carrier's response.
    pub age: Duration,
    /// Time from the response to the end of its freshness; none if it must not answer later lookups.
    pub fresh: Option<Duration>,
}

/// Effect of [`land`].
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct LandEffect {
    /// The response answers later lookups.
    pub kept: bool,
    /// The row was of this fence, and has landed.
    pub landed: bool,
}

/// The condition under which a row `f` that has not landed may be taken: its time has ended, or the life of its leader has.
macro_rules! leader_is_gone {
    () => {
        "(f.until < fleet.now() OR NOT EXISTS
            (SELECT FROM fleet.life l WHERE l.id = f.life AND NOT l.gone AND l.until > fleet.now()))"
    };
}

// A row that landed a moment ago may have committed after the snapshot of `held`: if its response was stored and is newer
// than the known one, it is the answer, and the row is not taken. A row of the same life that has not landed belongs to a
// flight that a purge took off the table of the node, or whose landing was lost: it is taken.
const ENTER: &str = concat!(
    r#"WITH bound AS MATERIALIZED (
         SELECT now, coalesce('epoch'::timestamptz + $7 * interval '1 microsecond',
                              now - $6 * interval '1 microsecond') AS newer_than
         FROM (SELECT fleet.now() AS now) clock),
       held AS MATERIALIZED (
         SELECT a.body, a.charset, a.answered_at, a.account, a.transid, a.carrier FROM fleet.answer a, bound
         WHERE a.key = $1 AND NOT a.stale AND a.keep_until > now AND a.answered_at <= now
           AND (newer_than IS NULL OR a.answered_at > newer_than)),
       mine AS MATERIALIZED (SELECT nextval('fleet.fence') AS fence WHERE NOT EXISTS (SELECT FROM held)),
       led AS (
         INSERT INTO fleet.flight AS f (key, card, "group", operation, life, fence, until)
         SELECT $1, $2, $3, $4, $5, fence, now + $8 * interval '1 microsecond' FROM mine, bound
         ON CONFLICT (key) DO UPDATE SET
           (life, fence, until, awaited, takeover, landed_at, stored, fault, body, charset, age, account, transid,
            carrier) =
           (SELECT CASE WHEN free THEN excluded.life ELSE f.life END,
                   CASE WHEN free THEN excluded.fence ELSE f.fence END,
                   CASE WHEN free THEN excluded.until ELSE f.until END,
                   NOT free,
                   CASE WHEN free THEN f.landed_at IS NULL AND f.life <> excluded.life ELSE f.takeover END,
                   CASE WHEN NOT free THEN f.landed_at END, NOT free AND f.stored,
                   CASE WHEN NOT free THEN f.fault END, CASE WHEN NOT free THEN f.body END,
                   CASE WHEN NOT free THEN f.charset END, CASE WHEN NOT free THEN f.age END,
                   CASE WHEN NOT free THEN f.account END, CASE WHEN NOT free THEN f.transid END,
                   CASE WHEN NOT free THEN f.carrier END
            FROM (SELECT CASE
                    WHEN f.landed_at IS NULL THEN f.life = excluded.life OR "#,
    leader_is_gone!(),
    r#"             ELSE NOT (f.stored AND f.landed_at BETWEEN fleet.now() - interval '2 seconds' AND fleet.now() AND coalesce(
                       f.landed_at - f.age > (SELECT newer_than FROM bound), true)) END AS free) judged)
         RETURNING f.fence, f.takeover, f.landed_at - f.age AS answered_at, f.body, f.charset, f.account, f.transid,
                   f.carrier)
       SELECT coalesce(held.body, led.body) AS body, coalesce(held.charset, led.charset) AS charset,
              coalesce(held.account, led.account) AS account, coalesce(held.transid, led.transid) AS transid,
              coalesce(held.carrier, led.carrier) AS carrier,
              (extract(epoch FROM fleet.now() - coalesce(held.answered_at, led.answered_at)) * 1000000)::bigint AS age,
              (extract(epoch FROM coalesce(held.answered_at, led.answered_at)) * 1000000)::bigint AS version,
              led.fence, led.fence = mine.fence AS leads, led.takeover,
              (SELECT coalesce(max(generation), 0) FROM fleet.purge) AS generation
       FROM bound LEFT JOIN held ON true LEFT JOIN mine ON true LEFT JOIN led ON true"#
);

// An answer of the future was stored before the clock of the database was set back: it is replaced.
// The lock of fleet.answer precedes the snapshot: a purge has committed before it, or begins after this statement.
const LAND: &str = concat!(
    r#"
    WITH clock AS MATERIALIZED (SELECT fleet.now() AS now),
    kept AS (
      INSERT INTO fleet.answer AS a
        (key, card, "group", operation, status, answered_at, keep_until, body, charset, account, transid,
         carrier)
      SELECT $1, $2, $3, $4, $5, now - $6 * interval '1 microsecond', now + ($7 - $6) * interval '1 microsecond',
             $8, $9, $10, $11, $15 FROM clock
      WHERE $7 > $6 AND NOT EXISTS (
        SELECT FROM fleet.purge p WHERE p.generation > $12
          AND (p.card IS NULL OR p.card = $2) AND (p."group" IS NULL OR p."group" = $3)
          AND (p.operation IS NULL OR p.operation = $4) AND (p.status IS NULL OR p.status = $5))
      ON CONFLICT (key) DO UPDATE SET
        (card, "group", operation, status, answered_at, keep_until, stale, body, charset, account, transid,
         carrier) =
        (excluded.card, excluded."group", excluded.operation, excluded.status, excluded.answered_at,
         excluded.keep_until, false, excluded.body, excluded.charset, excluded.account, excluded.transid,
         excluded.carrier)
      WHERE a.answered_at < excluded.answered_at OR a.answered_at > (SELECT now FROM clock)
      RETURNING true AS kept),
    landed AS (
      UPDATE fleet.flight f SET landed_at = now, stored = coalesce((SELECT kept FROM kept), false), fault = $14, body = $8,
        charset = $9, age = $6 * interval '1 microsecond', account = $10, transid = $11, carrier = $15
      FROM clock WHERE f.key = $1 AND f.fence = $13 RETURNING f.awaited)
    SELECT EXISTS (SELECT FROM kept) AS kept, EXISTS (SELECT FROM landed) AS landed,
           (SELECT pg_notify('"#,
    channel!(),
    r#"', 'landed ' || encode($1, 'hex')) FROM landed WHERE awaited) IS NULL"#
);

const RELEASE: &str = concat!(
    r#"
    WITH released AS (DELETE FROM fleet.flight WHERE key = $1 AND fence = $2 RETURNING awaited)
    SELECT EXISTS (SELECT FROM released) AS released,
           (SELECT pg_notify('"#,
    channel!(),
    r#"', 'landed ' || encode($1, 'hex')) FROM released WHERE awaited) IS NULL"#
);

const POLL: &str = concat!(
    r#"SELECT f.landed_at IS NOT NULL AS landed, f.fault, f.body, f.charset, f.account, f.transid, f.carrier,
              (extract(epoch FROM fleet.now() - (f.landed_at - f.age)) * 1000000)::bigint AS age,
              (extract(epoch FROM f.landed_at - f.age) * 1000000)::bigint AS version,
              f.landed_at IS NULL AND "#,
    leader_is_gone!(),
    r#" AS gone
       FROM fleet.flight f WHERE f.key = $1 AND f.fence = $2"#
);

const SWEEP: &str = r#"
    WITH answers AS (
      DELETE FROM fleet.answer WHERE key IN (
        SELECT key FROM fleet.answer WHERE keep_until < fleet.now() LIMIT $1 FOR UPDATE SKIP LOCKED) RETURNING 1),
    flights AS (
      DELETE FROM fleet.flight WHERE key IN (
        SELECT key FROM fleet.flight WHERE coalesce(landed_at, until) < fleet.now() - interval '10 seconds'
        LIMIT $1 FOR UPDATE SKIP LOCKED) RETURNING 1)
    SELECT (SELECT count(*) FROM answers) + (SELECT count(*) FROM flights) AS swept"#;

/// Finds an answer that is newer than the known one, or the leader of the key's flight, which may be this life.
///
/// # Errors
/// [`LinkError`]; after a time-out the row may be this life's.
pub async fn enter(link: &Link, asked: &Asked<'_>) -> Result<Entered, LinkError> {
    let (age, version) = match asked.known {
        Known::Nothing => (None, None),
        Known::Aged(age) => (Some(micros(age)), None),
        Known::Version(version) => (None, Some(version)),
    };
    let rows = link
        .query(
            ENTER,
            &[
                (&asked.key.as_slice(), Type::BYTEA),
                (&asked.card.as_slice(), Type::BYTEA),
                (&asked.group, Type::TEXT),
                (&asked.operation, Type::TEXT),
                (&asked.life, Type::INT8),
                (&age, Type::INT8),
                (&version, Type::INT8),
                (&micros(asked.lease), Type::INT8),
            ],
        )
        .await?;
    let row = only(&rows);
    if let Some(answer) = answer(row)? {
        return Ok(Entered::Answer(answer));
    }
    let fence = row.try_get("fence")?;
    Ok(match row.try_get("leads")? {
        true => Entered::Lead {
            fence,
            generation: row.try_get("generation")?,
            takeover: row.try_get("takeover")?,
        },
        false => Entered::Follow { fence },
    })
}

/// Lands a flight: keeps the response for later lookups, unless a later purge covers it or a newer one is kept, and passes
/// the result to followers if the row is still of this fence. May be repeated.
///
/// # Errors
/// [`LinkError`]; after a time-out it may have landed.
pub async fn land(link: &Link, landing: &Landing<'_>) -> Result<LandEffect, LinkError> {
    let response = landing.result.as_ref().ok();
    let fault = landing.result.as_ref().err();
    let age = response.map_or(0, |response| micros(response.age));
    let fresh = response.and_then(|response| response.fresh).map_or(0, micros);
    let carrier = response.and_then(|response| Some(format!("{} {}", landing.transid?, response.carrier?)));
    let rows = link
        .query(
            LAND,
            &[
                (&landing.key.as_slice(), Type::BYTEA),
                (&landing.card.as_slice(), Type::BYTEA),
                (&landing.group, Type::TEXT),
                (&landing.operation, Type::TEXT),
                (&response.and_then(|response| response.status), Type::TEXT),
                (&age, Type::INT8),
                (&fresh, Type::INT8),
                (&response.map(|response| response.body), Type::BYTEA),
                (&response.and_then(|response| response.charset), Type::TEXT),
                (&landing.account, Type::TEXT),
                (&landing.transid, Type::TEXT),
                (&landing.generation, Type::INT8),
                (&landing.fence, Type::INT8),
                (&fault, Type::TEXT),
                (&carrier, Type::TEXT),
            ],
        )
        .await?;
    let row = only(&rows);
    Ok(LandEffect { kept: row.try_get("kept")?, landed: row.try_get("landed")? })
}

/// Gives up a flight without a result, so that another node leads; returns whether the row was of this fence.
///
/// # Errors
/// [`LinkError`].
pub async fn release(link: &Link, key: &SharedKey, fence: i64) -> Result<bool, LinkError> {
    let rows = link.query(RELEASE, &[(&key.as_slice(), Type::BYTEA), (&fence, Type::INT8)]).await?;
    Ok(only(&rows).try_get("released")?)
}

/// Deletes the row of a flight that has not landed, if it is of this fence.
///
/// # Errors
/// [`LinkError`].
pub async fn delete(link: &Link, key: &SharedKey, fence: i64) -> Result<(), LinkError> {
    const STATEMENT: &str = "DELETE FROM fleet.flight WHERE key = $1 AND fence = $2 AND landed_at IS NULL";
    let parameters: [Parameter<'_>; 2] = [(&key.as_slice(), Type::BYTEA), (&fence, Type::INT8)];
    link.maintain(STATEMENT, &parameters, UPKEEP_LIMIT).await.map(drop)
}

/// Deletes the row of a flight of this life that has not landed, unless its fence is one of `led`.
///
/// # Errors
/// [`LinkError`].
pub async fn disown(link: &Link, key: &SharedKey, life: i64, led: &[i64]) -> Result<(), LinkError> {
    const STATEMENT: &str =
        "DELETE FROM fleet.flight WHERE key = $1 AND life = $2 AND landed_at IS NULL AND fence <> ALL ($3)";
    let parameters: [Parameter<'_>; 3] =
        [(&key.as_slice(), Type::BYTEA), (&life, Type::INT8), (&led, Type::INT8_ARRAY)];
    link.maintain(STATEMENT, &parameters, UPKEEP_LIMIT).await.map(drop)
}

/// Reads the row of a flight that this node follows.
///
/// # Errors
/// [`LinkError`].
pub async fn poll(link: &Link, key: &SharedKey, fence: i64) -> Result<Followed, LinkError> {
    let rows = link.query(POLL, &[(&key.as_slice(), Type::BYTEA), (&fence, Type::INT8)]).await?;
    let Some(row) = rows.first() else { return Ok(Followed::Lost) };
    if row.try_get("gone")? {
        return Ok(Followed::Lost);
    }
    if !row.try_get::<_, bool>("landed")? {
        return Ok(Followed::InFlight);
    }
    Ok(Followed::Landed(match answer(row)? {
        Some(answer) => Landed::Response(answer),
        None => Landed::Fault {
            fault: row.try_get::<_, Option<_>>("fault")?.unwrap_or_default(),
            account: row.try_get::<_, Option<_>>("account")?.unwrap_or_default(),
            transid: row.try_get("transid")?,
        },
    }))
}

/// Deletes at most so many answers and flights whose time has ended; several nodes may do so at once.
///
/// # Errors
/// [`LinkError`].
pub async fn sweep(link: &Link, most: i64) -> Result<i64, LinkError> {
    let rows = link.maintain(SWEEP, &[(&most, Type::INT8)], UPKEEP_LIMIT).await?;
    Ok(only(&rows).try_get("swept")?)
}

/// The response in a row; none without a body.
fn answer(row: &Row) -> Result<Option<Answer>, LinkError> {
    let Some(body) = row.try_get::<_, Option<Vec<u8>>>("body")? else { return Ok(None) };
    let transid: Option<String> = row.try_get("transid")?;
    let carrier: Option<String> = row.try_get("carrier")?;
    let own =
        |carrier: String| Some(carrier.strip_prefix(transid.as_deref()?)?.strip_prefix(' ')?.to_owned());
    Ok(Some(Answer {
        body,
        charset: row.try_get("charset")?,
        carrier: carrier.and_then(own),
        // Negative after a step of the database's clock.
        age: Duration::from_micros(u64::try_from(row.try_get::<_, i64>("age")?).unwrap_or(0)),
        account: row.try_get::<_, Option<_>>("account")?.unwrap_or_default(),
        transid,
        version: row.try_get("version")?,
    }))
}

/// The row of a statement that always returns one.
fn only(rows: &[Row]) -> &Row {
    rows.first().expect("a SELECT of subqueries returns one row")
}
