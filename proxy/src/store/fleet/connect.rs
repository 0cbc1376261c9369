//! Connections to the database of a fleet: hosts, role, session settings, and the limits of the socket.
//!
//! Of several hosts the one that last accepted writes is tried first. Each host has its own time limit, which covers the
//! whole exchange until the session is ready: a server that accepts connections and answers nothing must not prevent the
//! use of the next one.
//!
//! No connection depends on session state, so that PgBouncer may multiplex transactions: statements are unnamed, and the
//! settings of the session only repeat time limits that this side has too. PgBouncer refuses the startup parameter
//! `options` unless `ignore_startup_parameters` names it.

use std::fmt;
use std::future::poll_fn;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use deadpool::managed::{Manager, Metrics, RecycleError, RecycleResult};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::mpsc;
use tokio_postgres::config::{SslMode, TargetSessionAttrs};
use tokio_postgres::{AsyncMessage, Client, Config, Connection, Error, NoTls, Notification};
use tokio_postgres_rustls::MakeRustlsConnect;
use tokio_util::task::AbortOnDropHandle;

use crate::clock::timeout_exact;
use crate::config::fleet::{Fleet, Host};

/// Time for one host, from the connect until the session is ready.
const HOST_TIMEOUT: Duration = Duration::from_secs(1);

/// The server's own end of a statement of a request.
pub const STATEMENT_TIMEOUT: Duration = Duration::from_secs(1);

/// Notifications that wait for their reader; further ones are dropped, since they are hints only.
const NOTIFICATIONS: usize = 1_024;

/// Reason for which no session was opened.
#[derive(Debug, thiserror::Error)]
pub enum ConnectError {
    /// The host did not answer in time.
    #[error("{host}: no session within {HOST_TIMEOUT:?}")]
    TimedOut {
        /// Address or folder.
        host: String,
    },
    /// The host refused the connection or the session.
    #[error("{host}: {}", Chain(.source))]
    Refused {
        /// Address or folder.
        host: String,
        /// The error of the socket, or of the server.
        source: Error,
    },
}

/// An error with its causes: the error of PostgreSQL's client alone says "db error".
pub struct Chain<'a>(pub &'a Error);

impl fmt::Display for Chain<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0.as_db_error() {
            Some(error) => write!(f, "{} (SQLSTATE {})", error.message(), error.code().code()),
            None => {
                write!(f, "{}", self.0)?;
                match std::error::Error::source(self.0) {
                    Some(source) => write!(f, ": {source}"),
                    None => Ok(()),
                }
            }
        }
    }
}

/// A boxed future. Its type has no name, so that the compiler does not prove again, for each future around it, that all
/// parts of a client of PostgreSQL may be sent to another thread.
pub(super) type Erased<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// A session. Its connection is closed when it is dropped, also while a statement is pending: the client alone would
/// wait for the statement's end.
pub struct Session {
    /// Statements.
    pub client: Client,
    /// Notifications of other nodes, after a LISTEN. Ends with the connection.
    pub notifications: mpsc::Receiver<Notification>,
    _connection: AbortOnDropHandle<()>,
}

impl fmt::Debug for Session {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Session").field("is_closed", &self.client.is_closed()).finish_non_exhaustive()
    }
}

/// Opens sessions of one purpose.
#[derive(Clone)]
pub struct Connector {
    hosts: Arc<[(String, Config)]>,
    tls: Option<MakeRustlsConnect>,
    /// The host that last accepted writes, by its index. All connectors of a node share it.
    preferred: Arc<AtomicUsize>,
}

impl Connector {
    /// A connector with these settings. `name` is shown by `pg_stat_activity`; the server ends a statement after
    /// `statement_timeout`.
    pub fn new(
        settings: &Fleet,
        name: &str,
        statement_timeout: Duration,
        preferred: Arc<AtomicUsize>,
    ) -> Self {
        let hosts = settings.hosts.iter().map(|host| {
            let config = connect_config(settings, std::slice::from_ref(host), name, statement_timeout);
            (host.to_string(), config)
        });
        let tls = settings.tls.as_ref().map(|tls| MakeRustlsConnect::new(tls.as_ref().clone()));
        Self { hosts: hosts.collect(), tls, preferred }
    }

    /// Opens a session at the first host that accepts writes.
    ///
    /// # Errors
    /// That of the last host.
    pub async fn session(&self) -> Result<Session, ConnectError> {
        let first = self.preferred.load(Ordering::Relaxed);
        let mut result = None;
        for index in 0..self.hosts.len() {
            let index = (first + index) % self.hosts.len();
            let opened = self.session_at(index).await;
            if opened.is_ok() {
                self.preferred.store(index, Ordering::Relaxed);
                return opened;
            }
            result = Some(opened);
        }
        result.expect("the configuration has a host at least")
    }

    async fn session_at(&self, index: usize) -> Result<Session, ConnectError> {
        let (host, config) = &self.hosts[index];
        let (hints, notifications) = mpsc::channel(NOTIFICATIONS);
        // The future of a connection is large, and each time limit around it would double that on the stack.
        let open: Erased<'_, Result<_, tokio_postgres::Error>> = Box::pin(async {
            Ok(match &self.tls {
                Some(tls) => {
                    let (client, connection) = config.connect(tls.clone()).await?;
                    (client, tokio::spawn(drive(connection, hints)))
                }
                None => {
                    let (client, connection) = config.connect(NoTls).await?;
                    (client, tokio::spawn(drive(connection, hints)))
                }
            })
        });
        let (client, connection) = timeout_exact(HOST_TIMEOUT, open)
            .await
            .map_err(|_| ConnectError::TimedOut { host: host.clone() })?
            .map_err(|source| ConnectError::Refused { host: host.clone(), source })?;
        Ok(Session { client, notifications, _connection: AbortOnDropHandle::new(connection) })
    }
}

impl Manager for Connector {
    type Type = Session;
    type Error = ConnectError;

    async fn create(&self) -> Result<Session, ConnectError> {
        self.session().await
    }

    /// Keeps each connection that is open: a statement that tests it would cost a round trip per request.
    async fn recycle(&self, session: &mut Session, _: &Metrics) -> RecycleResult<ConnectError> {
        if session.client.is_closed() { Err(RecycleError::message("closed")) } else { Ok(()) }
    }
}

/// Reads and writes the connection of a client until it ends.
async fn drive<S, T>(mut connection: Connection<S, T>, hints: mpsc::Sender<Notification>)
where
    S: AsyncRead + AsyncWrite + Unpin,
    T: AsyncRead + AsyncWrite + Unpin,
{
    loop {
        match poll_fn(|context| connection.poll_message(context)).await {
            Some(Ok(AsyncMessage::Notification(hint))) => {
                let _ = hints.try_send(hint); // see NOTIFICATIONS
            }
            Some(Ok(_)) => {}
            Some(Err(error)) => {
                tracing::debug!("a connection to the database of the fleet has ended: {}", Chain(&error));
                return;
            }
            None => return,
        }
    }
}

/// Configuration of a connection to these hosts: role, session settings, time limits of the socket.
pub fn connect_config(settings: &Fleet, hosts: &[Host], name: &str, statement_timeout: Duration) -> Config {
    let mut config = Config::new();
    for host in hosts {
        match host {
            Host::Tcp(host, port) => config.host(host).port(*port),
            Host::Unix(folder) => config.host_path(folder).port(5432),
        };
    }
    // The server's own end of a statement, of a lock and of an idle transaction.
    let session = format!(
        "-c statement_timeout={} -c lock_timeout=500 -c idle_in_transaction_session_timeout=5000",
        statement_timeout.as_millis()
    );
    config
        .dbname(&settings.database)
        .user(&settings.user)
        .application_name(name)
        .options(session)
        .connect_timeout(HOST_TIMEOUT)
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
