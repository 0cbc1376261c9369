//! Who asks, and may they: every request passes here before anything about a card is revealed.
//!
//! The order is part of the contract: window, token, ebid, rights, replay looked up, rate, and last the transid is
//! burnt (one atomic step decides). A bad token or a 72 burns nothing. The transid's form was checked before, while
//! parsing, and must be: the carrier's token is a plain hash over the secret *followed by* the transid, so a longer
//! transid could be signed by anyone who saw a shorter one. A lenient transid, too, is only letters and digits and at
//! most 48 of them: no hash padding fits into that.
//!
//! Before the token is checked, nothing tells one client from another or from none: the window is the widest of all,
//! and whether a client may send lenient transids is looked at afterwards.

pub mod actions;
pub mod idempotency;
pub mod replay;

mod directory;
mod rate;

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
use crate::peer::Peer;
use crate::refusal::{Malformed, Refusal};
use crate::wire::request::{Request, SentTransid};
use directory::Directory;
use idempotency::{IdempotencyCache, RetryState};
use replay::{Owner, ReplayCache, ReplayError, TransidKey};

/// The time for which the alarm about a full share stays after the last refusal.
const ALARMED: Duration = Duration::from_secs(60);

/// Admits requests, or says why not.
pub struct Admit {
    directory: ArcSwap<Directory>,
    replay: ReplayCache,
    /// Responses kept for retries with the same transid.
    pub idempotency: IdempotencyCache,
    clock: Clock,
    /// When a full share was last reported, by the monotonic clock; none when there is no alarm.
    last_alarm: Mutex<Option<Duration>>,
}

/// Admits one request: all of it is decided by the clients of one configuration, whenever a reload comes.
pub struct AdmissionSnapshot<'a> {
    directory: Guard<Arc<Directory>>,
    replay: &'a ReplayCache,
    repeats: &'a IdempotencyCache,
}

/// A request that may be answered.
#[derive(Debug)]
pub struct Admitted {
    /// Who asks.
    pub client: Arc<Client>,
    /// How it gets its response.
    pub replay_check: ReplayCheck,
}

/// What becomes of a request whose transid may be used.
#[derive(Debug)]
pub enum ReplayCheck {
    /// It is answered, and its transid was not used before.
    New,
    /// It is answered although its transid was used before: `replay = "observe"`.
    Observed,
    /// It may be sent again: `replay = "same-answer"`.
    Repeatable(RetryState),
}

impl Admit {
    /// For the clients of a configuration.
    pub fn new(config: &Arc<Config>, clock: Clock) -> Self {
        Self {
            directory: ArcSwap::from_pointee(Directory::new(config)),
            replay: ReplayCache::new(config.gateway.transids.total),
            idempotency: IdempotencyCache::default(),
            clock,
            last_alarm: Mutex::default(),
        }
    }

    /// From now on for the clients of this configuration; what is burnt stays so.
    pub fn reload(&self, config: &Arc<Config>) {
        self.directory.store(Arc::new(Directory::new(config)));
    }

    /// How far back the transids go that must be remembered at start.
    pub fn replay_horizon(&self) -> Duration {
        self.directory.load().replay_horizon
    }

    /// The table of used transids.
    pub fn replay(&self) -> &ReplayCache {
        &self.replay
    }

    /// Notes a transid that was used, as the audit says, whoever may ask now: a client that has gone from the
    /// configuration may come back.
    pub fn restore_used(&self, appid: &AppId, number: TransidKey) {
        let client = self.directory.load().known(appid);
        self.replay.restore(appid, client.as_ref().map(|client| &client.group), number);
    }

    /// Transids remembered.
    pub fn used_transids(&self) -> usize {
        self.replay.transid_count()
    }

    /// Frees what has left the window; called on a ticker.
    pub fn run_maintenance(&self) {
        let now = self.clock.moment();
        self.replay.sweep(self.replay_horizon(), now);
        self.idempotency.sweep(now.believed.minus(self.replay_horizon()).as_secs());
    }

    /// Transids remembered of each group, and what one group may hold.
    pub fn shares(&self) -> (Vec<(Arc<str>, usize)>, usize) {
        (self.replay.transid_count_by_group(), self.directory.load().transids_per_group)
    }

    /// Raises an alarm while requests are refused since a share of the replay table is full; called on a ticker.
    pub fn report(&self, alarms: &Alarms) {
        let now = self.clock.monotonic();
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
        alarms.raise(
            Condition::ReplayFull,
            format!(
                "requests are refused with 72, since no more used transids can be held: {}: the log names a client; \
                 limit it by `rate`, or raise the [gateway] key",
                groups.collect::<Vec<_>>().join(", ")
            ),
        );
    }

    /// Where a request asks to be let in.
    pub fn snapshot(&self) -> AdmissionSnapshot<'_> {
        AdmissionSnapshot {
            directory: self.directory.load(),
            replay: &self.replay,
            repeats: &self.idempotency,
        }
    }
}

impl AdmissionSnapshot<'_> {
    /// Whether some client may send lenient transids.
    pub fn reads_lenient(&self) -> bool {
        self.directory.lenient
    }

    /// Whether this address may ask at all.
    ///
    /// # Errors
    /// [`Refusal::Peer`].
    pub fn check_peer(&self, peer: IpAddr) -> Result<(), Refusal> {
        if allows(&self.directory.peers, peer) { Ok(()) } else { Err(Refusal::Peer) }
    }

    /// Admits a request that came at this moment: its client, with the transid burnt.
    ///
    /// # Errors
    /// The refusal; none but an admitted request has burnt its transid.
    pub fn admit(&self, request: &Request<'_>, origin: &Peer, came: Moment) -> Result<Admitted, Denied> {
        let number = match &request.transid {
            SentTransid::Strict(transid) => Some(TransidKey::of(transid)),
            // Has no stamp; was read because some client may send it.
            SentTransid::Lenient(_) => None,
        };
        let client = self.authenticate(request, number, came).map_err(Denied::unknown)?;
        match self.authorize(&client, request, number, origin, came) {
            Ok(passed) => Ok(Admitted { client, replay_check: passed }),
            Err(refusal) => Err(Denied { client: Some(client), refusal }),
        }
    }

    /// Window and token. An unknown appid costs the same hashing as a wrong token and is refused alike.
    fn authenticate(
        &self,
        request: &Request<'_>,
        number: Option<TransidKey>,
        came: Moment,
    ) -> Result<Arc<Client>, Refusal> {
        if let Some(number) = number {
            self.check_window(number.unix(), self.directory.widest_window, came)?;
        }
        self.directory.authenticate(request).ok_or(Refusal::Token)
    }

    /// Everything about a client whose token was genuine; uses the transid.
    fn authorize(
        &self,
        client: &Client,
        request: &Request<'_>,
        number: Option<TransidKey>,
        origin: &Peer,
        came: Moment,
    ) -> Result<ReplayCheck, Refusal> {
        let rights = &client.permissions;
        match number {
            // A client that may send anything is held to no form that its transid has by chance. An action is: it is
            // done once, and for as long as its transid can be remembered.
            Some(_) if rights.format == Format::Lenient && request.operation.is_lookup() => {}
            Some(number) => self.check_window(number.unix(), rights.window, came)?,
            None if rights.format == Format::Lenient => {}
            None => return Err(Refusal::Malformed(Malformed::Transid)),
        }
        match request.ebid.as_deref() {
            Some(ebid) => {
                let due = self.directory.ebid_of(client, request.operation).ok_or(Refusal::Operation)?;
                if ebid.as_bytes() != due.as_bytes() {
                    return Err(Refusal::Ebid);
                }
            }
            None => return Err(Refusal::Malformed(Malformed::Missing("ebid"))),
        }
        if !allows(&rights.peers, origin.address) {
            return Err(Refusal::Peer);
        }
        if !presents(origin, client.certificate.as_deref()) {
            return Err(Refusal::Certificate);
        }
        if !rights.opens_operation(request.operation) {
            return Err(Refusal::Operation);
        }
        if !rights.opens_card(&request.card) {
            return Err(Refusal::CardNotAllowed);
        }
        // An action changes something: it is done once, whatever its client's mode.
        let mode = if request.operation.is_lookup() { rights.replay } else { ReplayMode::Refuse };
        if mode != rights.replay && (rights.window.is_none() || number.is_none()) {
            return Err(Refusal::Operation);
        }
        let owner = Owner {
            appid: &client.appid,
            group: &client.group,
            group_share: self.directory.transids_per_group,
        };
        let observed = |again| if again { ReplayCheck::Observed } else { ReplayCheck::New };
        let passed = match number {
            Some(number) => {
                let pass = || self.replay.check_and_record(owner, number, rights, mode, came);
                match mode {
                    ReplayMode::Observe => pass().map(observed),
                    ReplayMode::Refuse => {
                        let passed = pass();
                        // Not of an action, which is another request than the one that may be sent again.
                        if passed == Err(ReplayError::Reused) && rights.replay == ReplayMode::Refuse {
                            self.repeats.refused(client.appid, number);
                        }
                        passed.map(observed)
                    }
                    ReplayMode::SameAnswer => {
                        let asked = idempotency::Fingerprint {
                            group: Arc::clone(&client.group),
                            operation: request.operation,
                            card: request.card,
                            parameters: request.parameters.clone(),
                        };
                        self.repeats.enter(client.appid, number, asked, pass).map(ReplayCheck::Repeatable)
                    }
                }
            }
            None => self
                .replay
                .record_only(&client.appid, digest(&request.transid), rights, came.monotonic)
                .map(observed),
        };
        passed.map_err(|why| refusal(why, came))
    }

    fn check_window(&self, unix: u64, window: Option<Duration>, came: Moment) -> Result<(), Refusal> {
        self.replay.check_window(unix, window, came).map_err(|why| refusal(why, came))
    }
}

/// A refusal, and whose it is: known once the token was genuine.
#[derive(Debug)]
pub struct Denied {
    /// The client that was authenticated.
    pub client: Option<Arc<Client>>,
    /// Why it is refused all the same.
    pub refusal: Refusal,
}

impl Denied {
    fn unknown(refusal: Refusal) -> Self {
        Self { client: None, refusal }
    }
}

fn refusal(why: ReplayError, came: Moment) -> Refusal {
    match why {
        ReplayError::Stale => Refusal::StaleTransid(came.wall),
        ReplayError::Reused => Refusal::ReusedTransid,
        ReplayError::TooFast(wait) => Refusal::TooFast(wait),
        ReplayError::Full(wait) => Refusal::ReplayFull(wait),
    }
}

/// Whether a list of networks lets an address through; an empty list lets everybody.
fn allows(networks: &[IpNet], address: IpAddr) -> bool {
    networks.is_empty() || networks.iter().any(|network| network.contains(&address.to_canonical()))
}

/// Whether the connection's certificate has the name that a client must show.
fn presents(origin: &Peer, wanted: Option<&str>) -> bool {
    let Some(wanted) = wanted else { return true };
    origin.names.iter().flat_map(|names| names.iter()).any(|name| name == wanted)
}

/// What stands for a lenient transid among those observed. A collision only miscounts a repetition.
fn digest(sent: &SentTransid) -> u64 {
    let mut hasher = DefaultHasher::new();
    sent.hash(&mut hasher);
    hasher.finish()
}
