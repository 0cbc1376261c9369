//! The link to the database of a fleet: a pool of connections, one time limit per statement, one breaker for all of it.
//!
//! A statement that exceeds its time limit takes its connection out of the pool, which closes it: a dropped future leaves
//! its statement in the pipeline, and each later statement of the connection would wait for it. One time-out or three
//! errors in a row open the breaker; while it is open no statement of a request is sent. The heartbeat is the probe that
//! closes it ([`Link::probe`]).

use std::sync::Mutex;
use std::sync::PoisonError;
use std::time::Duration;

use deadpool_postgres::{Manager, ManagerConfig, Object, Pool, RecyclingMethod};
use tokio_postgres::config::{SslMode, TargetSessionAttrs};
use tokio_postgres::types::{ToSql, Type};
use tokio_postgres::{NoTls, Row};
use tokio_postgres_rustls::MakeRustlsConnect;

use crate::clock::timeout;
use crate::config::fleet::{Fleet, Host};

/// Errors in a row that open the breaker.
const ERRORS: u32 = 3;

/// Time to connect, for one server.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(1);

/// Settings of each session: the server's own end of a statement, a lock and an idle transaction.
const SESSION: &str =
    "-c statement_timeout=1000 -c lock_timeout=500 -c idle_in_transaction_session_timeout=5000";

/// A parameter of a statement with its type, so that no statement needs to be prepared.
pub type Parameter<'a> = (&'a (dyn ToSql + Sync), Type);

/// The database of a fleet, as one node reaches it.
pub struct Link {
    pool: Pool,
    timeout: Duration,
    breaker: Mutex<Breaker>,
}

/// Failure of a statement.
#[derive(Debug, thiserror::Error)]
pub enum LinkError {
    /// The breaker is open: nothing was sent.
    #[error("the database of the fleet is away")]
    Away,
    /// The time limit has passed; whether the statement took effect is not known.
    #[error("the database of the fleet did not answer within {0:?}")]
    TimedOut(Duration),
    /// No connection.
    #[error("the database of the fleet cannot be reached: {0}")]
    Connect(String),
    /// The server refused the statement.
    #[error("the database of the fleet refused a statement: {0}")]
    Statement(#[from] tokio_postgres::Error),
}

#[derive(Default)]
struct Breaker {
    open: bool,
    errors: u32,
}

impl Link {
    /// A link with these settings; connects when first used.
    pub fn new(settings: &Fleet, node: u8) -> Self {
        let pool = pool(settings, &format!("cmiot-proxy/{node}"), settings.pool);
        Self { pool, timeout: settings.timeout, breaker: Mutex::default() }
    }

    /// Runs one statement for a request, within the time limit of the settings.
    ///
    /// # Errors
    /// [`LinkError`]; after [`LinkError::TimedOut`] the statement may have taken effect.
    pub async fn query(&self, sql: &str, parameters: &[Parameter<'_>]) -> Result<Vec<Row>, LinkError> {
        if self.is_open() {
            return Err(LinkError::Away);
        }
        self.run(sql, parameters, self.timeout).await
    }

    /// Runs one statement whether the breaker is open or not; success closes it.
    ///
    /// # Errors
    /// As [`Self::query`].
    pub async fn probe(
        &self,
        sql: &str,
        parameters: &[Parameter<'_>],
        limit: Duration,
    ) -> Result<Vec<Row>, LinkError> {
        self.run(sql, parameters, limit).await
    }

    /// Whether the breaker is open.
    pub fn is_open(&self) -> bool {
        self.breaker().open
    }

    async fn run(
        &self,
        sql: &str,
        parameters: &[Parameter<'_>],
        limit: Duration,
    ) -> Result<Vec<Row>, LinkError> {
        let mut connection: Option<Object> = None;
        let statement = async {
            let client = self.pool.get().await.map_err(|error| LinkError::Connect(error.to_string()))?;
            let client = connection.insert(client);
            client.query_typed(sql, parameters).await.map_err(LinkError::Statement)
        };
        let result = timeout(limit, statement).await.unwrap_or(Err(LinkError::TimedOut(limit)));
        if let (Err(LinkError::TimedOut(_)), Some(connection)) = (&result, connection) {
            drop(Object::take(connection));
        }
        self.breaker().record(&result);
        result
    }

    fn breaker(&self) -> std::sync::MutexGuard<'_, Breaker> {
        // No code under this lock can panic in the middle of a change.
        self.breaker.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Breaker {
    fn record<T>(&mut self, result: &Result<T, LinkError>) {
        match result {
            Ok(_) => *self = Self::default(),
            Err(LinkError::TimedOut(_)) => self.open = true,
            Err(_) => {
                self.errors += 1;
                self.open |= self.errors >= ERRORS;
            }
        }
    }
}

/// A pool of connections with these settings, under the name that `pg_stat_activity` shows.
pub fn pool(settings: &Fleet, name: &str, connections: usize) -> Pool {
    let config = connect_config(settings, name);
    let recycling = ManagerConfig { recycling_method: RecyclingMethod::Fast };
    let manager = match &settings.tls {
        Some(tls) => Manager::from_config(config, MakeRustlsConnect::new(tls.as_ref().clone()), recycling),
        None => Manager::from_config(config, NoTls, recycling),
    };
    Pool::builder(manager).max_size(connections).build().expect("a pool without time limits needs no runtime")
}

/// How to connect: hosts, role, time limits of the socket.
pub fn connect_config(settings: &Fleet, name: &str) -> tokio_postgres::Config {
    let mut config = tokio_postgres::Config::new();
    for host in &settings.hosts {
        match host {
            Host::Tcp(host, port) => config.host(host).port(*port),
            Host::Unix(folder) => config.host_path(folder).port(5432),
        };
    }
    config
        .dbname(&settings.database)
        .user(&settings.user)
        .application_name(name)
        .options(SESSION)
        .connect_timeout(CONNECT_TIMEOUT)
        .tcp_user_timeout(Duration::from_secs(3))
        .keepalives_idle(Duration::from_secs(5))
        .keepalives_interval(Duration::from_secs(2))
        .keepalives_retries(3)
        .target_session_attrs(TargetSessionAttrs::ReadWrite)
        .ssl_mode(if settings.tls.is_some() { SslMode::Require } else { SslMode::Disable });
    if let Some(password) = &settings.password {
        config.password(password.expose());
    }
    config
}
