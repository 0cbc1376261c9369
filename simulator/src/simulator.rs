//! Handle of a running simulator: start, script, count, stop, kill, restart.

use std::fmt;
use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::net::TcpSocket;
use tokio_util::sync::{CancellationToken, DropGuard};

use crate::account::Account;
use crate::calls::{Call, Counts, Repeated};
use crate::config::Config;
use crate::operation::Operation;
use crate::rule::{Rule, Script};
use crate::server::Session;
use crate::state::{self, Shared};
use crate::throttle::Throttle;

/// The most connections that wait to be accepted: a bench opens hundreds at once.
const BACKLOG: u32 = 1024;

/// A running simulated carrier. Clones are handles of the same carrier; dropping the last one kills it.
///
/// Its tasks run on the tokio runtime that called [`start`](Self::start).
#[derive(Clone)]
pub struct Simulator {
    inner: Arc<Inner>,
}

struct Inner {
    shared: Arc<Shared>,
    addr: SocketAddr,
    prefix: String,
    /// Bound to the address and never listening: during an outage it reserves the port, and connections to it are
    /// refused.
    _reserved: TcpSocket,
    session: Mutex<Session>,
    root: CancellationToken,
    _kill_when_dropped: DropGuard,
}

impl Simulator {
    /// Starts a carrier at `addr`; port 0 takes a free one.
    ///
    /// # Errors
    /// When the address cannot be bound.
    pub async fn start(addr: SocketAddr, config: Config) -> io::Result<Self> {
        let reserved = bind(addr)?;
        let addr = reserved.local_addr()?;
        let listener = bind(addr)?.listen(BACKLOG)?;
        let prefix = config.prefix.trim_end_matches('/').to_owned();
        let shared = Arc::new(Shared::new(config));
        let root = CancellationToken::new();
        let session = Session::start(listener, Arc::clone(&shared), &root);
        let inner = Inner {
            shared,
            addr,
            prefix,
            _reserved: reserved,
            session: Mutex::new(session),
            _kill_when_dropped: root.clone().drop_guard(),
            root,
        };
        Ok(Self { inner: Arc::new(inner) })
    }

    /// Starts a carrier at a free port of 127.0.0.1.
    ///
    /// # Errors
    /// When no port can be bound.
    pub async fn start_local(config: Config) -> io::Result<Self> {
        Self::start((Ipv4Addr::LOCALHOST, 0).into(), config).await
    }

    /// The address on which it listens.
    #[must_use]
    pub fn addr(&self) -> SocketAddr {
        self.inner.addr
    }

    /// The base URL before `/v2/...` and `/v5/...`: `http://127.0.0.1:PORT` and the prefix, if any.
    #[must_use]
    pub fn base_url(&self) -> String {
        format!("http://{}{}", self.inner.addr, self.inner.prefix)
    }

    // Start and stop.

    /// Stops accepting, breaks off calls that hang or are held at a gate, answers the others, and returns when all
    /// connections are closed. It waits for callers that are still sending a request.
    pub async fn stop(&self) {
        let session = self.session();
        session.stop.cancel();
        session.tasks.close();
        session.tasks.wait().await;
    }

    /// Simulates an outage: drops the listener and all connections at once. Afterwards connections are refused.
    pub async fn kill(&self) {
        let session = self.session();
        session.kill.cancel();
        session.tasks.close();
        session.tasks.wait().await;
    }

    /// Calls [`kill`](Self::kill) and listens again at the same address. Script and counts stay.
    ///
    /// # Errors
    /// When the address is in use.
    pub async fn restart(&self) -> io::Result<()> {
        self.kill().await;
        let listener = bind(self.inner.addr)?.listen(BACKLOG)?;
        let session = Session::start(listener, Arc::clone(&self.inner.shared), &self.inner.root);
        *self.inner.session.lock().unwrap_or_else(PoisonError::into_inner) = session;
        Ok(())
    }

    // Script.

    /// Replaces the script.
    pub fn set_rules(&self, rules: impl IntoIterator<Item = Rule>) {
        let script = Script::new(rules.into_iter().collect());
        self.inner.shared.with(|state| state.script = script);
    }

    /// Adds a rule after all others.
    pub fn add_rule(&self, rule: Rule) {
        self.inner.shared.with(|state| state.script.append(rule));
    }

    /// Adds a rule before all others.
    pub fn put_rule_first(&self, rule: Rule) {
        self.inner.shared.with(|state| state.script.put_first(rule));
    }

    /// Replaces the accounts of API v2.
    pub fn set_accounts(&self, accounts: impl IntoIterator<Item = Account>) {
        let accounts = state::by_appid(accounts.into_iter().collect());
        self.inner.shared.with(|state| state.accounts = accounts);
    }

    /// Changes the password of an account of API v2; returns whether the account exists.
    pub fn set_password(&self, appid: &str, password: impl Into<Vec<u8>>) -> bool {
        let password = password.into();
        self.inner.shared.with(|state| {
            let account = state.accounts.get_mut(appid);
            account.map(|account| account.set_password(password)).is_some()
        })
    }

    /// Changes the latency of answers whose rule has none.
    pub fn set_latency(&self, latency: Duration) {
        self.inner.shared.with(|state| state.latency = latency);
    }

    /// Changes the limits. Calls of the last second and of the day still count.
    pub fn set_throttle(&self, throttle: Throttle) {
        self.inner.shared.with(|state| state.throttle = throttle);
    }

    /// Changes the seconds by which every `Date` header is ahead of the clock.
    pub fn set_date_offset(&self, seconds: i64) {
        self.inner.shared.with(|state| state.date_offset = seconds);
    }

    // Counts.

    /// All counters.
    #[must_use]
    pub fn counts(&self) -> Counts {
        self.inner.shared.with(|state| state.calls.counts())
    }

    /// Calls that arrived.
    #[must_use]
    pub fn count(&self) -> u64 {
        self.counts().calls
    }

    /// Calls that arrived for the card of this number, in either case.
    #[must_use]
    pub fn count_for(&self, card: &str) -> u64 {
        self.inner.shared.with(|state| state.calls.count_for(card))
    }

    /// Calls that were given this code.
    #[must_use]
    pub fn count_code(&self, code: &str) -> u64 {
        self.inner.shared.with(|state| state.calls.count_code(code))
    }

    /// Calls of this operation that arrived.
    #[must_use]
    pub fn count_operation(&self, operation: Operation) -> u64 {
        self.inner.shared.with(|state| state.calls.count_operation(operation))
    }

    /// The most calls that were in flight at once.
    #[must_use]
    pub fn max_in_flight(&self) -> u64 {
        self.counts().max_in_flight
    }

    /// The latest calls in the order of their arrival ([`Config::keep_calls`] of them).
    #[must_use]
    pub fn calls(&self) -> Vec<Call> {
        self.inner.shared.with(|state| state.calls.calls())
    }

    /// The transids that known accounts used more than once, with any answer.
    #[must_use]
    pub fn duplicates(&self) -> Vec<Repeated> {
        self.inner.shared.with(|state| state.calls.repeated())
    }

    /// Resets all counters, those of API v5 included, to 0, and empties the list of calls. Calls in flight and recorded transids stay.
    pub fn reset_counts(&self) {
        self.inner.shared.with(|state| {
            state.calls.reset();
            state.v5.reset_counts();
        });
    }

    /// Waits until at least `calls` calls were received.
    pub async fn wait_for_calls(&self, calls: u64) {
        self.wait_until(|counts| counts.calls >= calls).await;
    }

    /// Waits until no call is in flight.
    pub async fn wait_until_idle(&self) {
        self.wait_until(|counts| counts.in_flight == 0).await;
    }

    /// Waits until the counters satisfy `enough`, and returns them. Changes in quick succession may be merged.
    pub async fn wait_until(&self, mut enough: impl FnMut(&Counts) -> bool) -> Counts {
        let mut counts = self.inner.shared.watch();
        let found = counts.wait_for(|counts| enough(counts)).await.map(|counts| *counts);
        // The sender lives as long as this handle, so the wait ends only with success.
        found.unwrap_or_else(|_| self.counts())
    }

    pub(crate) fn shared(&self) -> Arc<Shared> {
        Arc::clone(&self.inner.shared)
    }

    fn session(&self) -> Session {
        self.inner.session.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

impl fmt::Debug for Simulator {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Simulator")
            .field("base_url", &self.base_url())
            .field("counts", &self.counts())
            .finish_non_exhaustive()
    }
}

/// A socket at `addr`, in addition to the one that reserves the address. Linux allows two if both reuse addresses and
/// neither listens when the other is bound.
fn bind(addr: SocketAddr) -> io::Result<TcpSocket> {
    let socket = if addr.is_ipv4() { TcpSocket::new_v4() } else { TcpSocket::new_v6() }?;
    socket.set_reuseaddr(true)?;
    socket.bind(addr)?;
    Ok(socket)
}
