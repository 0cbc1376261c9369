//! The calls of today and the accepted transids of all nodes, for people.

use std::time::Duration;

use super::{OperateError, Session};

/// The part of the shared tables that counts calls and requests.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Usage {
    /// The calls of today, by the appid of the account.
    pub days: Vec<DayUsage>,
    /// The newest transids that the nodes have accepted, by client, most first.
    pub clients: Vec<ClientUsage>,
}

/// The calls of an account today, by the clock of the database.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct DayUsage {
    /// The account.
    pub appid: String,
    /// Calls that were granted in blocks.
    pub leased: i64,
    /// Calls that nodes keep in reserve, spent or not.
    pub reserved: i64,
}

/// The newest transids that are counted: the table can have millions.
const NEWEST: i64 = 50_000;

/// The accepted transids of a client at a node.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ClientUsage {
    /// The client.
    pub appid: String,
    /// The node that accepted them.
    pub node: i16,
    /// Their number.
    pub transids: i64,
}

impl Session {
    /// Counts calls, and the newest 50,000 transids; at most `most` clients. The server ends a statement after `limit`.
    ///
    /// # Errors
    /// [`OperateError`].
    pub async fn usage(&self, most: i64, limit: Duration) -> Result<Usage, OperateError> {
        let client = &self.0.client;
        client.batch_execute(&format!("SET statement_timeout = {}", limit.as_millis())).await?;
        let days = client
            .query(
                "SELECT appid, leased, reserved FROM fleet.quota
                 WHERE day = (extract(epoch FROM fleet.now())::bigint + 28800) / 86400 ORDER BY appid",
                &[],
            )
            .await?;
        let clients = client
            .query(
                "SELECT appid, node, count(*) AS transids
                 FROM (SELECT appid, node FROM fleet.used_transid ORDER BY number DESC LIMIT $2) AS newest
                 GROUP BY appid, node ORDER BY transids DESC, appid, node LIMIT $1",
                &[&most, &NEWEST],
            )
            .await?;
        let day = |row: &tokio_postgres::Row| DayUsage {
            appid: row.get("appid"),
            leased: row.get("leased"),
            reserved: row.get("reserved"),
        };
        let client = |row: &tokio_postgres::Row| ClientUsage {
            appid: row.get("appid"),
            node: row.get("node"),
            transids: row.get("transids"),
        };
        Ok(Usage { days: days.iter().map(day).collect(), clients: clients.iter().map(client).collect() })
    }
}
