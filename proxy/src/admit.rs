//! Admission: every request is authenticated and authorized here before anything about a card is revealed.
//!
//! The order of checks is part of the contract: window, token, ebid, permissions, replay cache, rate; last the transid is
//! marked used, in one atomic step. A wrong token or a 72 marks nothing used. The parser has checked the transid's form
//! before, and must: the carrier's token is a plain hash over the secret *followed by* the transid, so with a longer
//! transid anyone who saw a shorter one could extend its token. A lenient transid, too, has only letters and digits, at
//! most 48 of them: no hash padding fits into that.
//!
//! Before the token is checked, the response is the same for every client and for none: the window is the widest of all
//! clients, and whether this client may send lenient transids is checked afterwards.

pub mod actions;
pub mod idempotency;
pub mod replay;

mod directory;
mod rate;
mod throttled;

use std::hash::{DefaultHasher, Hash, Hasher};
use std::net::IpAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use arc_swap::{ArcSwap, Guard};
use cmiot_signer::AppId;
use ipnet::IpNet;

use crate::alarms::{Alarms, Condition};
use crate::clock::{Clock, Moment};
use crate::config::file::{Format, ReplayMode};
use crate::config::{Client, Config};
use crate::language::text;
use crate::peer::Peer;
use crate::refusal::{Malformed, Refusal};
use crate::wire::request::Request;
use crate::wire::transid::TransidKey;
use directory::Directory;
use idempotency::{Fingerprint, IdempotencyCache, RetryState};
use replay::{Owner, ReplayCache, ReplayError};
use throttled::Throttled;

/// The time from the last refusal until the alarm about a full replay cache is cleared.
const ALARMED: Duration = Duration::from_secs(60);

/// Authentication and authorization of requests.
pub struct Admit {
    directory: ArcSwap<Directory>,
    replay: ReplayCache,
    /// Responses kept for retries with the same transid.
    pub idempotency: IdempotencyCache,
    clock: Clock,
    throttled: Throttled,
    /// The last report of a full replay cache, by the monotonic clock; `None` without an alarm.
    last_alarm: Mutex<Option<Duration>>,
}

/// The state for the admission of one request: the clients of one configuration, even if a reload happens meanwhile.
pub struct AdmissionSnapshot<'a> {
    directory: Guard<Arc<Directory>>,
    replay: &'a ReplayCache,
    idempotency: &'a IdempotencyCache,
    throttled: &'a Throttled,
}

/// An admitted request.
#[derive(Debug)]
pub struct Admitted {
    pub client: Arc<Client>,
    pub replay_check: ReplayCheck,
    /// The transid, if this request alone may be executed with it: a fleet must accept it too. None for retries, and for
    /// lookups under `replay = "observe"`.
    pub exclusive: Option<TransidKey>,
}

/// The used transids of each group, and their limit.
#[derive(Clone, Debug)]
pub struct GroupShares {
    /// Transids in the replay cache, by group.
    pub used: Vec<(Arc<str>, usize)>,
    /// The number that the replay cache holds for one group at most.
    pub max_per_group: usize,
}

/// The result of the check against replays.
#[derive(Debug)]
pub enum ReplayCheck {
    /// The transid was not used before.
    New,
    /// The transid was used before, and the client's mode is `replay = "observe"`.
    Observed,
    /// The client's mode is `replay = "same-answer"`, so the request may be repeated.
    Repeatable(RetryState),
    /// An action: its transid was not used before, whatever the client's mode.
    Action(TransidKey),
}

impl Admit {
    pub fn new(config: &Arc<Config>, clock: Clock) -> Self {
        Self {
            directory: ArcSwap::from_pointee(Directory::new(config)),
            replay: ReplayCache::new(config.gateway.transids.total),
            idempotency: IdempotencyCache::default(),
            throttled: Throttled::default(),
            clock,
            last_alarm: Mutex::default(),
        }
    }

    /// Applies the clients of another configuration; used transids stay used.
    pub fn reload(&self, config: &Arc<Config>) {
        self.directory.store(Arc::new(Directory::new(config)));
    }

    /// The greatest age of a stamp that some client's window accepts: older transids need not be restored at start.
    pub fn replay_horizon(&self) -> Duration {
        self.directory.load().replay_horizon
    }

    pub fn replay(&self) -> &ReplayCache {
        &self.replay
    }

    /// Marks a transid used that the audit lists, even if its client is no longer configured: the client may be added
    /// again.
    pub fn restore_used(&self, appid: &AppId, transid: TransidKey) {
        let client = self.directory.load().known(appid);
        self.replay.restore(appid, client.as_ref().map(|client| &client.group), transid);
    }

    /// The number of transids in the replay cache.
    pub fn used_transids(&self) -> usize {
        self.replay.transid_count()
    }

    /// Removes transids that have left the window; called on a ticker.
    pub fn run_maintenance(&self) {
        let now = self.clock.moment();
        self.replay.sweep(self.replay_horizon(), now);
        self.idempotency.sweep(now.believed.minus(self.replay_horizon()).as_secs());
    }

    /// The used transids per group.
    pub fn group_shares(&self) -> GroupShares {
        GroupShares {
            used: self.replay.transid_count_by_group(),
            max_per_group: self.directory.load().transids_per_group,
        }
    }

    /// The number of transids that the replay cache has room for.
    pub fn max_transids(&self) -> usize {
        self.replay.limit()
    }

    /// Raises an alarm while requests are refused because the replay cache is full, and logs the clients that keep to their
    /// rate again; called on a ticker.
    pub fn report(&self, alarms: &Alarms) {
        let now = self.clock.monotonic();
        self.throttled.report(now);
        let full = self.replay.take_full_reports();
        let mut alarmed = self.last_alarm.lock().unwrap_or_else(PoisonError::into_inner);
        if full.is_empty() {
            if alarmed.is_some_and(|last| now.saturating_sub(last) >= ALARMED) {
                *alarmed = None;
                alarms.clear(Condition::ReplayFull);
            }
            return;
        }
        let new = alarmed.replace(now).is_none();
        for (group, full) in &full {
            if new {
                tracing::warn!(client = %full.client, %group, refused = full.refused, bound = full.bound.key(),
                    "no room for further transids of this client");
            }
        }
        let groups = full.iter().map(|(group, full)| format!("group \"{group}\" ({})", full.bound.key()));
        let groups = groups.collect::<Vec<_>>().join(", ");
        alarms.raise(
            Condition::ReplayFull,
            text!(
                "requests are refused with 72, since no more used transids can be held: {groups}: the log names a client; \
                 limit it by `rate`, or raise the [gateway] key",
                "请求以返回码 72 被拒绝，因为无法再记住更多用过的事务编码：{groups}；日志给出一个客户端：用 `rate` 限制它，\
                 或调大该 [gateway] 配置项"
            ),
        );
    }

    /// The clients of one configuration, for the admission of one request.
    pub fn snapshot(&self) -> AdmissionSnapshot<'_> {
        AdmissionSnapshot {
            directory: self.directory.load(),
            replay: &self.replay,
            idempotency: &self.idempotency,
            throttled: &self.throttled,
        }
    }
}

impl AdmissionSnapshot<'_> {
    /// The form that a transid must have before its client is known: lenient if some client may send lenient ones.
    pub fn transid_format(&self) -> Format {
        if self.directory.lenient { Format::Lenient } else { Format::Strict }
    }

    /// Checks the address before the client is known.
    ///
    /// # Errors
    /// [`Refusal::Peer`].
    pub fn check_peer(&self, peer: IpAddr) -> Result<(), Refusal> {
        if allows(&self.directory.peers, peer) { Ok(()) } else { Err(Refusal::Peer) }
    }

    /// Admits a request that arrived at this moment, and marks its transid used.
    ///
    /// # Errors
    /// The refusal. Only an admitted request has marked its transid used.
    pub fn admit(&self, request: &Request<'_>, peer: &Peer, arrived: Moment) -> Result<Admitted, Denied> {
        let unknown = |refusal| Denied { client: None, refusal };
        let client = self.authenticate(request, arrived).map_err(unknown)?;
        let checked = self
            .authorize(&client, request, peer, arrived)
            .and_then(|()| self.use_transid(&client, request, arrived));
        match checked {
            Ok(replay_check) => {
                let exclusive = match &replay_check {
                    ReplayCheck::Action(key) => Some(*key),
                    ReplayCheck::Repeatable(RetryState::New(_)) => request.transid.key(),
                    ReplayCheck::New if client.permissions.replay == ReplayMode::Refuse => {
                        request.transid.key()
                    }
                    _ => None,
                };
                Ok(Admitted { client, replay_check, exclusive })
            }
            Err(refusal) => {
                if matches!(refusal, Refusal::TooFast(_)) {
                    self.throttled.record(client.appid, arrived);
                }
                Err(Denied { client: Some(client), refusal })
            }
        }
    }

    /// Checks window and token. An unknown appid costs the same hashing as a wrong token, and is refused alike.
    fn authenticate(&self, request: &Request<'_>, arrived: Moment) -> Result<Arc<Client>, Refusal> {
        // A lenient transid has no stamp.
        if let Some(key) = request.transid.key() {
            self.check_window(key.unix(), self.directory.widest_window, arrived)?;
        }
        self.directory.authenticate(request).ok_or(Refusal::Token)
    }

    /// Checks the request against the permissions of its authenticated client.
    fn authorize(
        &self,
        client: &Client,
        request: &Request<'_>,
        peer: &Peer,
        arrived: Moment,
    ) -> Result<(), Refusal> {
        let permissions = &client.permissions;
        match request.transid.key() {
            // A client that may send lenient transids is not bound to the window by one that happens to be strict. An
            // action is: it is executed once, which holds as long as its transid is stored.
            Some(_) if permissions.format == Format::Lenient && request.operation.is_lookup() => {}
            Some(key) => self.check_window(key.unix(), permissions.window, arrived)?,
            None if permissions.format == Format::Lenient => {}
            None => return Err(Refusal::Malformed(Malformed::Transid)),
        }
        let ebid = request.ebid.as_deref().ok_or(Refusal::Malformed(Malformed::Missing("ebid")))?;
        let expected = self.directory.ebid_of(client, request.operation).ok_or(Refusal::Operation)?;
        if ebid.as_bytes() != expected.as_bytes() {
            return Err(Refusal::Ebid);
        }
        if !allows(&permissions.peers, peer.address) {
            return Err(Refusal::Peer);
        }
        if !presents(peer, client.certificate.as_deref()) {
            return Err(Refusal::Certificate);
        }
        if !permissions.opens_operation(request.operation) {
            return Err(Refusal::Operation);
        }
        if !permissions.opens_card(&request.card) {
            return Err(Refusal::CardNotAllowed);
        }
        Ok(())
    }

    /// Looks up the transid in the replay cache, takes one request of the rate, and marks the transid used.
    fn use_transid(
        &self,
        client: &Client,
        request: &Request<'_>,
        arrived: Moment,
    ) -> Result<ReplayCheck, Refusal> {
        let permissions = &client.permissions;
        let refused = |error| refusal(error, arrived);
        let observed = |repeated| if repeated { ReplayCheck::Observed } else { ReplayCheck::New };
        let is_action = !request.operation.is_lookup();
        let Some(key) = request.transid.key() else {
            if is_action {
                return Err(Refusal::Operation);
            }
            let digest = digest(request.transid.as_bytes());
            let repeated = self
                .replay
                .record_only(&client.appid, digest, permissions, arrived.monotonic)
                .map_err(refused)?;
            return Ok(observed(repeated));
        };
        let owner = Owner {
            appid: &client.appid,
            group: &client.group,
            group_share: self.directory.transids_per_group,
        };
        // An action is executed once, in each mode of its client. It needs a window, so that its transid is stored.
        let mode = if is_action { ReplayMode::Refuse } else { permissions.replay };
        if mode != permissions.replay && permissions.window.is_none() {
            return Err(Refusal::Operation);
        }
        let mark_used =
            || self.replay.check_and_record(owner, key, permissions, mode, arrived).map_err(refused);
        match mode {
            ReplayMode::Observe => mark_used().map(observed),
            ReplayMode::Refuse => {
                let checked = mark_used();
                // The response that is stored for a client in another mode belongs to a lookup, not to this action.
                if checked == Err(Refusal::ReusedTransid) && permissions.replay == mode {
                    self.idempotency.refused(client.appid, key);
                }
                checked.map(|repeated| if is_action { ReplayCheck::Action(key) } else { observed(repeated) })
            }
            ReplayMode::SameAnswer => {
                let fingerprint = Fingerprint {
                    group: Arc::clone(&client.group),
                    operation: request.operation,
                    card: request.card,
                    parameters: request.parameters.clone(),
                };
                self.idempotency.enter(client.appid, key, fingerprint, mark_used).map(ReplayCheck::Repeatable)
            }
        }
    }

    fn check_window(&self, unix: u64, window: Option<Duration>, arrived: Moment) -> Result<(), Refusal> {
        self.replay.check_window(unix, window, arrived).map_err(|error| refusal(error, arrived))
    }
}

/// A refusal, and the client once its token was verified.
#[derive(Debug)]
pub struct Denied {
    pub client: Option<Arc<Client>>,
    pub refusal: Refusal,
}

fn refusal(error: ReplayError, arrived: Moment) -> Refusal {
    match error {
        ReplayError::Stale => Refusal::StaleTransid(arrived.wall),
        ReplayError::Reused => Refusal::ReusedTransid,
        ReplayError::TooFast(wait) => Refusal::TooFast(wait),
        ReplayError::Full(wait) => Refusal::ReplayFull(wait),
    }
}

/// Whether a list of networks allows an address; an empty list allows all.
fn allows(networks: &[IpNet], address: IpAddr) -> bool {
    networks.is_empty() || networks.iter().any(|network| network.contains(&address.to_canonical()))
}

/// Whether the connection's certificate has the name that the client must present.
fn presents(peer: &Peer, required: Option<&str>) -> bool {
    let Some(required) = required else { return true };
    peer.names.iter().flat_map(|names| names.iter()).any(|name| name == required)
}

/// The hash under which the transids of observed clients are stored that have no stamp. A collision only miscounts a
/// repetition.
fn digest(transid: &[u8]) -> u64 {
    let mut hasher = DefaultHasher::new();
    transid.hash(&mut hasher);
    hasher.finish()
}
