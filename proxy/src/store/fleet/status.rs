//! The last STATUS of each card over all nodes, so that a change is found once, whichever node made the calls.
//!
//! [`changes`] passes the answers that the carrier gave to one node. For each answer that changed the STATUS the database
//! keeps a row with the STATUS before it, so that the same answer, passed again, is the same change: a webhook that
//! continues at a stored position, and another one of the same node, get what the first one got. Ages are microseconds: no
//! time of a node is compared with a time of the database.

use std::time::Duration;

use tokio_postgres::types::Type;

use super::flights::SharedKey;
use super::link::{Link, LinkError};
use super::{UPKEEP_LIMIT, micros};

/// Answers of one statement. Their rows are locked for its time.
pub const BATCH: usize = 200;

/// An answer of the carrier.
#[derive(Clone, Debug)]
pub struct Answered<'a> {
    /// The name of card, operation and group.
    pub key: SharedKey,
    /// The name of the answer: no other answer has it.
    pub event: &'a str,
    /// The STATUS.
    pub status: &'a str,
    /// Time since the answer.
    pub age: Duration,
    /// The STATUS before it and the time since then, as far as this node knows: for a card that the fleet does not know.
    pub known: Option<(&'a str, Duration)>,
}

/// The STATUS before a change.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Before {
    /// The STATUS.
    pub status: String,
    /// Time since it was last answered.
    pub age: Duration,
}

/// Remembers answers, at most [`BATCH`], and returns for each one the STATUS before it if it was another one. An answer that
/// is older than the last one of its card changes nothing.
///
/// # Errors
/// [`LinkError`]; after a time-out the answers may have been remembered, and may be passed again.
pub async fn changes(link: &Link, answers: &[Answered<'_>]) -> Result<Vec<Option<Before>>, LinkError> {
    // Rows are locked in the order of their keys, and the answers of one card in the order of their rows.
    const STATEMENT: &str = r#"
        SELECT a.position, c.previous, (extract(epoch FROM fleet.now() - c.seen) * 1000000)::bigint AS age
        FROM (SELECT * FROM unnest($1, $2, $3, $4, $5, $6) WITH ORDINALITY
              AS one(key, event, status, age, known, known_age, position) ORDER BY key, position) a
        CROSS JOIN LATERAL fleet.note_status(a.key, a.event, a.status, a.age, a.known, a.known_age) c"#;
    let keys: Vec<&[u8]> = answers.iter().map(|one| one.key.as_slice()).collect();
    let events: Vec<&str> = answers.iter().map(|one| one.event).collect();
    let statuses: Vec<&str> = answers.iter().map(|one| one.status).collect();
    let ages: Vec<i64> = answers.iter().map(|one| micros(one.age)).collect();
    let known: Vec<Option<&str>> = answers.iter().map(|one| one.known.map(|(status, _)| status)).collect();
    let known_ages: Vec<Option<i64>> =
        answers.iter().map(|one| one.known.map(|(_, age)| micros(age))).collect();
    let parameters = [
        (&keys as _, Type::BYTEA_ARRAY),
        (&events as _, Type::TEXT_ARRAY),
        (&statuses as _, Type::TEXT_ARRAY),
        (&ages as _, Type::INT8_ARRAY),
        (&known as _, Type::TEXT_ARRAY),
        (&known_ages as _, Type::INT8_ARRAY),
    ];
    let mut changes = vec![None; answers.len()];
    for row in link.maintain(STATEMENT, &parameters, UPKEEP_LIMIT).await? {
        let position: i64 = row.try_get("position")?;
        let index = usize::try_from(position - 1).unwrap_or(usize::MAX); // ordinality begins with 1
        let Some(status) = row.try_get::<_, Option<String>>("previous")? else { continue };
        if let Some(change) = changes.get_mut(index) {
            // Negative after a step of the database's clock.
            let age = u64::try_from(row.try_get::<_, i64>("age")?).unwrap_or(0);
            *change = Some(Before { status, age: Duration::from_micros(age) });
        }
    }
    Ok(changes)
}

/// Deletes at most so many changes that no webhook may pass again, and the STATUS of cards without an answer for as long as
/// the audit is searched for an earlier one (three months); several nodes may do so at once.
///
/// # Errors
/// [`LinkError`].
pub async fn sweep(link: &Link, most: i64) -> Result<i64, LinkError> {
    const STATEMENT: &str = r#"
        WITH changes AS (
          DELETE FROM fleet.status_change WHERE event IN (
            SELECT event FROM fleet.status_change WHERE at < fleet.now() - interval '40 days'
            LIMIT $1 FOR UPDATE SKIP LOCKED) RETURNING 1),
        cards AS (
          DELETE FROM fleet.card_status WHERE key IN (
            SELECT key FROM fleet.card_status WHERE seen < fleet.now() - interval '92 days'
            LIMIT $1 FOR UPDATE SKIP LOCKED) RETURNING 1)
        SELECT (SELECT count(*) FROM changes) + (SELECT count(*) FROM cards) AS swept"#;
    let rows = link.maintain(STATEMENT, &[(&most, Type::INT8)], UPKEEP_LIMIT).await?;
    Ok(rows.first().map_or(Ok(0), |row| row.try_get("swept"))?)
}
