//! Purges of a fleet: numbered in the order of their commits, since each takes its number under the lock of shared answers
//! and flights (`fleet.purge_where`).

use std::time::Duration;

use tokio_postgres::types::Type;

use super::flights::SharedKey;
use super::link::{Link, LinkError};
use super::micros;

/// The most purges of one page.
const PAGE: i64 = 500;

/// A purge to order.
#[derive(Clone, Debug)]
pub struct PurgeOrder<'a> {
    /// The name of the selected card in shared tables.
    pub card: Option<&'a SharedKey>,
    /// The selected group.
    pub group: Option<&'a str>,
    /// The selected operation.
    pub operation: Option<&'a str>,
    /// The selected STATUS.
    pub status: Option<&'a str>,
    /// Marks answers stale instead of removing them.
    pub soft: bool,
    /// The selected card, sealed for the other nodes.
    pub sealed: Option<&'a [u8]>,
}

/// A purge, as the database has it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct OrderedPurge {
    /// Its number.
    pub generation: i64,
    /// The selected group.
    pub group: Option<String>,
    /// The selected operation.
    pub operation: Option<String>,
    /// The selected STATUS.
    pub status: Option<String>,
    /// Marks entries stale instead of removing them.
    pub soft: bool,
    /// The selected card, sealed.
    pub sealed: Option<Vec<u8>>,
}

/// The nodes that have not applied a purge.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct NodesBehind {
    /// Those with a current lease.
    pub live: Vec<i16>,
    /// Those whose lease has ended without a drain: they apply it before they share again, and until then they may answer
    /// from their own caches.
    pub away: Vec<i16>,
}

/// The purges after a number.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct PurgePage {
    /// Identity of the fleet.
    pub fleet: String,
    /// The number of the last purge; zero without any.
    pub last: i64,
    /// The number of the first purge that is still known; zero without any.
    pub first: i64,
    /// The next purges, at most 500.
    pub purges: Vec<OrderedPurge>,
}

const ORDER: &str = "SELECT fleet.purge_where($1, $2, $3, $4, $5, $6)";

const AFTER: &str = r#"
    SELECT about.fleet::text AS fleet, known.last, known.first,
           p.generation, p."group", p.operation, p.status, p.soft, p.sealed
    FROM fleet.about
    CROSS JOIN (SELECT coalesce(max(generation), 0) AS last, coalesce(min(generation), 0) AS first FROM fleet.purge) known
    LEFT JOIN LATERAL (SELECT * FROM fleet.purge WHERE generation > $1 ORDER BY generation LIMIT $2) p ON true
    ORDER BY p.generation"#;

const REPORT: &str = "UPDATE fleet.life SET applied = greatest(applied, $2) WHERE id = $1 AND NOT gone";

// A life that has ended without a drain may be that of a process that still answers from its cache.
const BEHIND: &str = r#"
    SELECT node, until > fleet.now() AS live FROM fleet.life
    WHERE NOT gone AND applied < $1 ORDER BY node"#;

const SWEEP: &str = r#"
    WITH old AS (
      DELETE FROM fleet.purge WHERE at < fleet.now() - $1 * interval '1 microsecond'
        AND generation < (SELECT max(generation) FROM fleet.purge) RETURNING 1)
    SELECT count(*) FROM old"#;

impl Link {
    /// Orders a purge: shared answers and flights that it covers are gone when this returns. Returns its number.
    ///
    /// # Errors
    /// [`LinkError`]; after a time-out it may be ordered.
    pub async fn order_purge(&self, order: &PurgeOrder<'_>, limit: Duration) -> Result<i64, LinkError> {
        let card = order.card.map(SharedKey::as_slice);
        // Not through the pool, whose statements are ended after a second: every answer may have to be removed. One at a
        // time, so that many purges use one connection.
        let _one = self.ordering.lock().await;
        let rows = self
            .dedicated("purge", limit)
            .query(
                ORDER,
                &[
                    (&card, Type::BYTEA),
                    (&order.group, Type::TEXT),
                    (&order.operation, Type::TEXT),
                    (&order.status, Type::TEXT),
                    (&order.soft, Type::BOOL),
                    (&order.sealed, Type::BYTEA),
                ],
                limit,
            )
            .await?;
        Ok(rows.first().map_or(Ok(0), |row| row.try_get(0))?)
    }

    /// The purges after a number, in their order.
    ///
    /// # Errors
    /// [`LinkError`].
    pub async fn purges_after(&self, generation: i64, limit: Duration) -> Result<PurgePage, LinkError> {
        let rows = self.maintain(AFTER, &[(&generation, Type::INT8), (&PAGE, Type::INT8)], limit).await?;
        let mut page = PurgePage { fleet: String::new(), last: 0, first: 0, purges: Vec::new() };
        for row in &rows {
            (page.fleet, page.last, page.first) =
                (row.try_get("fleet")?, row.try_get("last")?, row.try_get("first")?);
            if let Some(generation) = row.try_get("generation")? {
                page.purges.push(OrderedPurge {
                    generation,
                    group: row.try_get("group")?,
                    operation: row.try_get("operation")?,
                    status: row.try_get("status")?,
                    soft: row.try_get("soft")?,
                    sealed: row.try_get("sealed")?,
                });
            }
        }
        Ok(page)
    }

    /// Stores that a life has applied all purges up to this number.
    ///
    /// # Errors
    /// [`LinkError`].
    pub async fn report_purged(&self, life: i64, generation: i64, limit: Duration) -> Result<(), LinkError> {
        self.maintain(REPORT, &[(&life, Type::INT8), (&generation, Type::INT8)], limit).await.map(drop)
    }

    /// The nodes that have not applied this purge.
    ///
    /// # Errors
    /// [`LinkError`].
    pub async fn nodes_behind(&self, generation: i64, limit: Duration) -> Result<NodesBehind, LinkError> {
        let mut behind = NodesBehind::default();
        for row in self.maintain(BEHIND, &[(&generation, Type::INT8)], limit).await? {
            let nodes = if row.try_get("live")? { &mut behind.live } else { &mut behind.away };
            nodes.push(row.try_get("node")?);
        }
        Ok(behind)
    }

    /// Deletes purges that are older than this, but for the last one. A node that was away for longer empties its cache.
    ///
    /// # Errors
    /// [`LinkError`].
    pub async fn sweep_purges(&self, age: Duration, limit: Duration) -> Result<i64, LinkError> {
        let rows = self.maintain(SWEEP, &[(&micros(age), Type::INT8)], limit).await?;
        Ok(rows.first().map_or(Ok(0), |row| row.try_get(0))?)
    }
}
