//! The statements of operators' commands about a fleet: its nodes, their lives, and the release of a node's number.

mod usage;

use std::sync::Arc;
use std::time::Duration;

use tokio_postgres::Client;
use tokio_postgres::error::SqlState;

use super::connect::{self, ConnectError, Connector};
use super::migrate;
use crate::config::fleet::{Fleet, Secret};

pub use usage::{ClientUsage, DayUsage, Usage};

/// The server's own end of a statement of a command, such as a step of the schema.
const STATEMENT_TIMEOUT: Duration = Duration::from_secs(60);

/// The first version of the schema with copies of audits.
pub(super) const COPIES_SINCE: i32 = 2;

/// A connection of an operator's command.
pub struct Session(connect::Session);

/// Failure of an operator's command.
#[derive(Debug, thiserror::Error)]
pub enum OperateError {
    /// No connection.
    #[error("cannot connect to the database of the fleet: {0}")]
    Connect(#[from] ConnectError),
    /// The role may not do it.
    #[error("the role may not do this: {0}")]
    Rights(String),
    /// The server refused a statement.
    #[error("the database of the fleet refused a statement: {0}")]
    Statement(String),
    /// The schema is absent.
    #[error("the database has no fleet: run `cmiot-proxy fleet migrate` first")]
    NoSchema,
    /// The schema is of before the copies of audits.
    #[error("the database has no copies of audits: run `cmiot-proxy fleet migrate` first")]
    NoCopies,
}

impl From<tokio_postgres::Error> for OperateError {
    fn from(error: tokio_postgres::Error) -> Self {
        let rights = error.code() == Some(&SqlState::INSUFFICIENT_PRIVILEGE);
        // The text of the error itself has no more than "db error".
        let text = error.as_db_error().map_or_else(|| error.to_string(), |error| error.message().to_owned());
        if rights { Self::Rights(text) } else { Self::Statement(text) }
    }
}

/// The state of a fleet.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Overview {
    /// Identity of the fleet.
    pub fleet: String,
    /// The version of the schema, and the oldest version of a node that may use it.
    pub version: i32,
    /// The oldest version of a node that may use the schema.
    pub oldest: i32,
    /// The version of the server.
    pub server: String,
    /// The number of the last purge.
    pub generation: i64,
    /// The nodes, by number.
    pub nodes: Vec<Node>,
}

/// A node of a fleet.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Node {
    /// Its number, 0 to 99.
    pub number: i16,
    /// The public key of its store.
    pub store: Vec<u8>,
    /// Its last life; none if it never started.
    pub life: Option<Life>,
    /// The copy of its audit; none before its first row.
    pub copy: Option<AuditCopy>,
}

/// The copy of a node's audit.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct AuditCopy {
    /// The row up to which it is copied.
    pub last: i64,
    /// The rows that the node had after it when it copied that row.
    pub behind: i64,
    /// Seconds since then.
    pub seconds: i64,
}

/// One start of a node.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Life {
    /// Its number in the fleet.
    pub id: i64,
    /// Whether its heartbeat is recent: it takes part in the fleet.
    pub is_alive: bool,
    /// Whether it has ended for good.
    pub gone: bool,
    /// Seconds since its begin, by the clock of the database.
    pub seconds: i64,
    /// The heartbeats that it stored.
    pub beats: i64,
    /// The last purge that it applied.
    pub applied: i64,
}

/// Result of the release of a node's number.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Released {
    /// The number is free.
    Free,
    /// No store has this number.
    Unknown,
    /// The node runs: its number stays.
    Alive,
}

impl Session {
    /// Connects with the settings of `[fleet]`, or as another role.
    ///
    /// # Errors
    /// [`OperateError::Connect`].
    pub async fn connect(
        settings: &Fleet,
        role: Option<(&str, Option<Secret>)>,
    ) -> Result<Self, OperateError> {
        let mut settings = settings.clone();
        if let Some((user, password)) = role {
            (settings.user, settings.password) = (user.to_owned(), password);
        }
        let connector = Connector::new(&settings, "cmiot-proxy/operator", STATEMENT_TIMEOUT, Arc::default());
        Ok(Self(connector.session().await?))
    }

    /// Applies the missing steps of the schema, and gives the role of the nodes its rights. Returns the versions before
    /// and after.
    ///
    /// # Errors
    /// [`OperateError`]; nothing of a failed step is applied.
    pub async fn migrate(&mut self, node_role: &str) -> Result<(i32, i32), OperateError> {
        let client: &mut Client = &mut self.0.client;
        Ok(migrate::migrate(client, node_role).await?)
    }

    /// The version of the schema; zero without one.
    ///
    /// # Errors
    /// [`OperateError`].
    pub async fn version(&self) -> Result<i32, OperateError> {
        let client: &Client = &self.0.client;
        Ok(migrate::applied(client).await?)
    }

    /// The nodes and their lives.
    ///
    /// # Errors
    /// [`OperateError`]; [`OperateError::NoSchema`] before the first migration.
    pub async fn overview(&self) -> Result<Overview, OperateError> {
        let version = self.version().await?;
        if version == 0 {
            return Err(OperateError::NoSchema);
        }
        let mut copies = if version < COPIES_SINCE { Vec::new() } else { self.copies().await? };
        let about = self
            .0
            .client
            .query_one(
                "SELECT fleet::text, version, oldest, current_setting('server_version') AS server,
                        (SELECT coalesce(max(generation), 0) FROM fleet.purge) AS generation
                 FROM fleet.about",
                &[],
            )
            .await?;
        let rows = self
            .0
            .client
            .query(
                "SELECT n.node, n.store, l.id, l.gone, NOT l.gone AND l.until > fleet.now() AS alive,
                        extract(epoch FROM fleet.now() - l.began)::bigint AS seconds, l.beats, l.applied
                 FROM fleet.node n
                 LEFT JOIN LATERAL (SELECT * FROM fleet.life WHERE node = n.node ORDER BY id DESC LIMIT 1) l ON true
                 ORDER BY n.node",
                &[],
            )
            .await?;
        let nodes = rows.iter().map(|row| Node {
            number: row.get("node"),
            store: row.get("store"),
            copy: copies
                .iter()
                .position(|(store, _)| *store == row.get::<_, &[u8]>("store"))
                .map(|at| copies.swap_remove(at).1),
            life: row.get::<_, Option<i64>>("id").map(|id| Life {
                id,
                is_alive: row.get("alive"),
                gone: row.get("gone"),
                seconds: row.get("seconds"),
                beats: row.get("beats"),
                applied: row.get("applied"),
            }),
        });
        Ok(Overview {
            fleet: about.get("fleet"),
            version: about.get("version"),
            oldest: about.get("oldest"),
            server: about.get("server"),
            generation: about.get("generation"),
            nodes: nodes.collect(),
        })
    }

    /// The copies of the stores' audits: the latest chain of each.
    async fn copies(&self) -> Result<Vec<(Vec<u8>, AuditCopy)>, OperateError> {
        let rows = self
            .0
            .client
            .query(
                "SELECT DISTINCT ON (store) store, last, known - last AS behind,
                        extract(epoch FROM fleet.now() - copied_at)::bigint AS seconds
                 FROM audit.chain ORDER BY store, id DESC",
                &[],
            )
            .await?;
        let read = |row: &tokio_postgres::Row| {
            let copy =
                AuditCopy { last: row.get("last"), behind: row.get("behind"), seconds: row.get("seconds") };
            (row.get("store"), copy)
        };
        Ok(rows.iter().map(read).collect())
    }

    pub(super) fn client(&mut self) -> &mut Client {
        &mut self.0.client
    }

    /// Frees a node's number for another store, unless the node runs.
    ///
    /// # Errors
    /// [`OperateError`].
    pub async fn release(&mut self, node: i16) -> Result<Released, OperateError> {
        let transaction = self.0.client.transaction().await?;
        let found = transaction
            .query_opt(
                "SELECT EXISTS (SELECT FROM fleet.life WHERE node = $1 AND NOT gone AND until > fleet.now()) AS alive
                 FROM fleet.node WHERE node = $1 FOR UPDATE",
                &[&node],
            )
            .await?;
        match found.map(|row| row.get("alive")) {
            None => Ok(Released::Unknown),
            Some(true) => Ok(Released::Alive),
            Some(false) => {
                // The row is locked, and a node that began a life while this waited for the lock is seen here.
                let deleted = transaction
                    .execute(
                        "DELETE FROM fleet.node WHERE node = $1 AND NOT EXISTS
                           (SELECT FROM fleet.life l WHERE l.node = $1 AND NOT l.gone AND l.until > fleet.now())",
                        &[&node],
                    )
                    .await?;
                transaction.commit().await?;
                Ok(if deleted == 0 { Released::Alive } else { Released::Free })
            }
        }
    }

    /// Seconds by which the clock of the database is ahead of `unix`, negative if it is behind.
    ///
    /// # Errors
    /// [`OperateError`].
    pub async fn clock_ahead(&self, unix: f64) -> Result<f64, OperateError> {
        let row = self.0.client.query_one("SELECT extract(epoch FROM fleet.now())::float8", &[]).await?;
        Ok(row.get::<_, f64>(0) - unix)
    }

    /// The tables, sequences and functions of the fleet, with the rights on them that a node needs and this role lacks, such
    /// as "fleet.answer (INSERT)".
    ///
    /// # Errors
    /// [`OperateError`].
    pub async fn missing_rights(&self) -> Result<Vec<String>, OperateError> {
        let rows = self
            .0
            .client
            .query(
                "SELECT format('fleet.%s (%s)', c.relname, p.wanted)
                 FROM pg_class c
                 JOIN pg_namespace s ON s.oid = c.relnamespace AND s.nspname = 'fleet'
                 CROSS JOIN unnest(ARRAY['SELECT', 'INSERT', 'UPDATE', 'DELETE']) AS p(wanted)
                 WHERE c.relkind = 'r' AND (c.relname <> 'about' OR p.wanted = 'SELECT')
                   AND NOT has_table_privilege(c.oid, p.wanted)
                 UNION ALL
                 SELECT format('audit.%s (%s)', c.relname, p.wanted)
                 FROM pg_class c
                 JOIN pg_namespace s ON s.oid = c.relnamespace AND s.nspname = 'audit'
                 JOIN (VALUES ('r', 'INSERT'), ('p', 'INSERT'), ('chain', 'SELECT'), ('anchor', 'SELECT')) AS p(what, wanted)
                   ON p.what IN (c.relkind::text, c.relname)
                 WHERE NOT c.relispartition AND c.relname <> 'dropped' AND NOT (c.relname = 'chain' AND p.wanted = 'INSERT')
                   AND NOT has_table_privilege(c.oid, p.wanted)
                 UNION ALL
                 SELECT format('fleet.%s (USAGE)', c.relname)
                 FROM pg_class c
                 JOIN pg_namespace s ON s.oid = c.relnamespace AND s.nspname = 'fleet'
                 -- CASE, since the function fails for what is no sequence.
                 WHERE CASE WHEN c.relkind = 'S' THEN NOT has_sequence_privilege(c.oid, 'USAGE') END
                 UNION ALL
                 SELECT format('%s.%s (EXECUTE)', s.nspname, f.proname)
                 FROM pg_proc f
                 JOIN pg_namespace s ON s.oid = f.pronamespace
                 WHERE (s.nspname = 'fleet' AND NOT f.proname LIKE 'grant%'
                        OR s.nspname = 'audit' AND f.proname IN ('add_month', 'begin_chain', 'advance', 'head_at'))
                   AND NOT has_function_privilege(f.oid, 'EXECUTE')
                 ORDER BY 1",
                &[],
            )
            .await?;
        Ok(rows.iter().map(|row| row.get(0)).collect())
    }
}
