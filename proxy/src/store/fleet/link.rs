//! The link to the database of a fleet: a pool of connections, a time limit, one breaker for all of it.
//!
//! A connection leaves the pool and is closed unless its statement has ended: a dropped future leaves its statement in the
//! pipeline, and each later statement of the connection would wait for it. One time-out or three errors in a row open the
//! breaker; while it is open no statement of a request is sent, and requests that wait for a connection stop to wait. So
//! the requests that pay the time limit are those whose statements were sent, at most as many as the pool has connections.
//! The heartbeat, which has a connection of its own ([`Link::dedicated`]), sends the probe that closes the breaker
//! ([`Link::probe`]).

use std::ops::Deref;
use std::sync::atomic::AtomicUsize;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use deadpool::managed::{Object, Pool, PoolError};
use tokio::sync::watch;
use tokio_postgres::types::{ToSql, Type};
use tokio_postgres::{Error, Row};

use super::connect::{Chain, ConnectError, Connector, Erased, STATEMENT_TIMEOUT, Session};
use crate::clock::timeout_exact;
use crate::config::fleet::Fleet;
use crate::metrics::Metrics;

/// Errors in a row that open the breaker.
const ERRORS: u32 = 3;

/// A parameter of a statement with its type, so that no statement needs to be prepared.
pub type Parameter<'a> = (&'a (dyn ToSql + Sync), Type);

/// The database of a fleet, as one node reaches it.
pub struct Link {
    settings: Arc<Fleet>,
    /// The name that `pg_stat_activity` shows.
    name: String,
    pool: Pool<Connector>,
    preferred: Arc<AtomicUsize>,
    /// Held while a purge is ordered.
    pub(super) ordering: tokio::sync::Mutex<()>,
    breaker: Mutex<Breaker>,
    is_open: watch::Sender<bool>,
    metrics: Arc<Metrics>,
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
    Connect(#[from] ConnectError),
    /// The server refused the statement, or the connection ended.
    #[error("the database of the fleet refused a statement: {}", Chain(.0))]
    Statement(#[from] Error),
}

impl LinkError {
    /// The SQLSTATE of a statement that the server refused, such as `42P01`.
    pub fn sqlstate(&self) -> Option<&str> {
        match self {
            Self::Statement(error) => error.code().map(tokio_postgres::error::SqlState::code),
            Self::Away | Self::TimedOut(_) | Self::Connect(_) => None,
        }
    }

    /// The kind of failure that the metric counts; none if nothing was sent.
    fn kind(&self) -> Option<&'static str> {
        match self {
            Self::Away => None,
            Self::TimedOut(_) => Some("timeout"),
            Self::Connect(_) => Some("connect"),
            Self::Statement(_) => Some("statement"),
        }
    }
}

#[derive(Debug, Default)]
struct Breaker {
    open: bool,
    errors: u32,
}

impl Link {
    /// A link with these settings; connects when first used.
    pub fn new(settings: &Arc<Fleet>, node: u8, metrics: Arc<Metrics>) -> Self {
        let name = format!("cmiot-proxy/{node}");
        let preferred = Arc::default();
        let connector = Connector::new(settings, &name, STATEMENT_TIMEOUT, Arc::clone(&preferred));
        let pool = Pool::builder(connector).max_size(settings.pool).build();
        Self {
            settings: Arc::clone(settings),
            name,
            pool: pool.expect("a pool without time limits needs no runtime"),
            preferred,
            ordering: tokio::sync::Mutex::default(),
            breaker: Mutex::default(),
            is_open: watch::Sender::new(false),
            metrics,
        }
    }

    /// Runs one statement of a request within the time limit of the settings.
    ///
    /// # Errors
    /// [`LinkError`]; after [`LinkError::TimedOut`] the statement may have taken effect.
    pub async fn query(&self, sql: &str, parameters: &[Parameter<'_>]) -> Result<Vec<Row>, LinkError> {
        self.query_within(sql, parameters, self.settings.timeout).await
    }

    /// Runs one statement of requests that have waited already: `limit` is the rest of their time limit. Stops to wait for a
    /// connection when the breaker opens.
    ///
    /// # Errors
    /// As [`Self::query`].
    pub async fn query_within(
        &self,
        sql: &str,
        parameters: &[Parameter<'_>],
        limit: Duration,
    ) -> Result<Vec<Row>, LinkError> {
        let mut opened = self.opened();
        if *opened.borrow_and_update() {
            return Err(LinkError::Away);
        }
        let connection = async {
            tokio::select! {
                // First, so that a request that is next in the pool after one that gave up opens no connection.
                biased;
                _ = opened.wait_for(|open| *open) => Err(LinkError::Away),
                connection = self.lease() => connection,
            }
        };
        let statement: Erased<'_, _> = Box::pin(async { connection.await?.query(sql, parameters).await });
        let result = timeout_exact(limit, statement).await.unwrap_or(Err(LinkError::TimedOut(limit)));
        self.record(&result, false);
        result
    }

    /// Runs one statement through the pool within `limit`, whether the breaker is open or not; success closes it.
    ///
    /// # Errors
    /// As [`Self::query`].
    pub async fn probe(
        &self,
        sql: &str,
        parameters: &[Parameter<'_>],
        limit: Duration,
    ) -> Result<Vec<Row>, LinkError> {
        let result = self.send(sql, parameters, limit).await;
        self.record(&result, true);
        result
    }

    /// Runs one statement that no request waits for through the pool within `limit`, unless the breaker is open. Its result
    /// does not change the breaker: it may take longer than a request waits.
    ///
    /// # Errors
    /// As [`Self::query`].
    pub async fn maintain(
        &self,
        sql: &str,
        parameters: &[Parameter<'_>],
        limit: Duration,
    ) -> Result<Vec<Row>, LinkError> {
        if self.is_open() {
            return Err(LinkError::Away);
        }
        self.send(sql, parameters, limit).await
    }

    /// A connection outside the pool, for `purpose`: a word that `pg_stat_activity` shows after the name of the node. The
    /// server ends a statement of it after `statement_timeout`.
    pub fn dedicated(&self, purpose: &str, statement_timeout: Duration) -> Dedicated {
        let name = format!("{} {purpose}", self.name);
        let preferred = Arc::clone(&self.preferred);
        Dedicated {
            connector: Connector::new(&self.settings, &name, statement_timeout, preferred),
            session: None,
        }
    }

    /// Whether the breaker is open.
    pub fn is_open(&self) -> bool {
        *self.is_open.borrow()
    }

    /// A receiver of the state of the breaker: `true` while it is open.
    pub fn opened(&self) -> watch::Receiver<bool> {
        self.is_open.subscribe()
    }

    /// Opens the breaker: a request continues without the database, and the others have to as well until the next probe.
    pub fn trip(&self) {
        self.change(|breaker| breaker.open = true);
    }

    async fn send(
        &self,
        sql: &str,
        parameters: &[Parameter<'_>],
        limit: Duration,
    ) -> Result<Vec<Row>, LinkError> {
        let statement: Erased<'_, _> = Box::pin(async { self.lease().await?.query(sql, parameters).await });
        timeout_exact(limit, statement).await.unwrap_or(Err(LinkError::TimedOut(limit)))
    }

    async fn lease(&self) -> Result<Lease, LinkError> {
        match self.pool.get().await {
            Ok(connection) => Ok(Lease(Some(connection))),
            Err(PoolError::Backend(error)) => Err(error.into()),
            // The pool has no time limits, no hooks, and is never closed.
            Err(_) => Err(LinkError::Away),
        }
    }

    fn record<T>(&self, result: &Result<T, LinkError>, is_probe: bool) {
        if let Some(kind) = result.as_ref().err().and_then(LinkError::kind) {
            self.metrics.fleet_database_failure(kind);
        }
        self.change(|breaker| breaker.record(result, is_probe));
    }

    fn change(&self, change: impl FnOnce(&mut Breaker)) {
        let opened = {
            let mut breaker = self.breaker();
            change(&mut breaker);
            // Under the lock, so that two results at once are published in their order.
            let open = breaker.open;
            self.is_open.send_if_modified(|before| std::mem::replace(before, open) != open) && open
        };
        if opened {
            // The idle connections go the same way as the one that failed.
            drop(self.pool.retain(|_, _| false));
        }
    }

    fn breaker(&self) -> MutexGuard<'_, Breaker> {
        // No code under this lock can panic in the middle of a change.
        self.breaker.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A connection outside the pool, which is opened when first used, and again after a failure.
pub struct Dedicated {
    connector: Connector,
    session: Option<Session>,
}

impl Dedicated {
    /// The session, opened if there is none. It is one that was opened before if its connection has not ended.
    ///
    /// # Errors
    /// [`LinkError::Connect`].
    pub async fn session(&mut self) -> Result<&mut Session, LinkError> {
        match self.session.take() {
            Some(session) if !session.client.is_closed() => Ok(self.session.insert(session)),
            _ => {
                let session = self.connector.session().await?;
                Ok(self.session.insert(session))
            }
        }
    }

    /// Runs one statement within `limit`. The connection is closed unless the server has answered.
    ///
    /// # Errors
    /// As [`Link::query`].
    pub async fn query(
        &mut self,
        sql: &str,
        parameters: &[Parameter<'_>],
        limit: Duration,
    ) -> Result<Vec<Row>, LinkError> {
        let statement: Erased<'_, _> = Box::pin(async {
            self.session().await?;
            // Taken until the server has answered, so that a time-out, or a caller that stops to wait, drops it.
            let session = self.session.take().expect("a session that was just opened");
            let result = session.client.query_typed(sql, parameters).await;
            if is_usable_after(&result) {
                self.session = Some(session);
            }
            result.map_err(LinkError::from)
        });
        timeout_exact(limit, statement).await.unwrap_or(Err(LinkError::TimedOut(limit)))
    }

    /// Closes the connection.
    pub fn close(&mut self) {
        self.session = None;
    }
}

/// A connection of the pool. It leaves the pool and is closed when this is dropped before its statement has ended.
struct Lease(Option<Object<Connector>>);

impl Lease {
    async fn query(mut self, sql: &str, parameters: &[Parameter<'_>]) -> Result<Vec<Row>, LinkError> {
        let result = self.client.query_typed(sql, parameters).await;
        if is_usable_after(&result) {
            drop(self.0.take());
        }
        Ok(result?)
    }
}

impl Deref for Lease {
    type Target = Session;

    fn deref(&self) -> &Session {
        self.0.as_ref().expect("taken at the end of the statement alone")
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        if let Some(connection) = self.0.take() {
            drop(Object::take(connection));
        }
    }
}

/// Whether a connection can be used after a statement with this result. A server that is shut down, or that became a
/// standby in a failover, refuses each further statement; the next connection may reach another server.
fn is_usable_after<T>(result: &Result<T, Error>) -> bool {
    let Err(error) = result else { return true };
    let Some(code) = error.code() else { return false };
    // Classes of errors in a statement or its data: data, constraint, transaction, access rule, state of an object.
    ["22", "23", "40", "42", "55"].iter().any(|class| code.code().starts_with(class))
        || *code == tokio_postgres::error::SqlState::QUERY_CANCELED
}

impl Breaker {
    /// Counts a result. Only the success of a probe closes the breaker: that of a request that was sent before it opened
    /// does not.
    fn record<T>(&mut self, result: &Result<T, LinkError>, is_probe: bool) {
        match result {
            Ok(_) if is_probe => *self = Self::default(),
            Ok(_) => self.errors = 0,
            Err(LinkError::Away) => {}
            Err(LinkError::TimedOut(_)) => self.open = true,
            Err(LinkError::Connect(_) | LinkError::Statement(_)) => {
                self.errors += 1;
                self.open |= self.errors >= ERRORS;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn timed_out() -> Result<(), LinkError> {
        Err(LinkError::TimedOut(Duration::from_millis(100)))
    }

    fn refused() -> Result<(), LinkError> {
        Err(LinkError::Connect(ConnectError::TimedOut { host: "db1:5432".to_owned() }))
    }

    #[test]
    fn one_time_out_or_three_errors_in_a_row_open_the_breaker() {
        let mut breaker = Breaker::default();
        breaker.record(&refused(), false);
        breaker.record(&refused(), false);
        breaker.record(&Ok(()), false);
        breaker.record(&refused(), false);
        breaker.record(&refused(), false);
        breaker.record::<()>(&Err(LinkError::Away), false);
        assert!(!breaker.open, "a success and a statement that was not sent do not count");
        breaker.record(&refused(), false);
        assert!(breaker.open);
        breaker.record(&Ok(()), true);
        assert!(!breaker.open);
        breaker.record(&timed_out(), false);
        assert!(breaker.open);
    }

    #[test]
    fn the_success_of_a_request_does_not_close_the_breaker() {
        let mut breaker = Breaker::default();
        breaker.record(&timed_out(), false);
        breaker.record(&Ok(()), false);
        assert!(breaker.open);
    }
}
