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
pub mod repeat;
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
use crate::gateway::request::{Request, SentTransid};
use crate::outcome::{Malformed, Refusal};
use directory::Directory;
use repeat::{Repeats, Turn};
use replay::{Number, Owner, Replay, Unusable};

/// The time for which the alarm about a full share stays after the last refusal.
const ALARMED: Duration = Duration::from_secs(60);

/// Admits requests, or says why not.
pub struct Admit {
    directory: ArcSwap<Directory>,
    replay: Replay,
    /// Responses kept for retries with the same transid.
    pub repeats: Repeats,
    clock: Clock,
    /// When a full share was last reported, by the monotonic clock; none when there is no alarm.
    alarmed: Mutex<Option<Duration>>,
}

/// Admits one request: all of it is decided by the clients of one configuration, whenever a reload comes.
pub struct Door<'a> {
    directory: Guard<Arc<Directory>>,
    replay: &'a Replay,
    repeats: &'a Repeats,
}

/// Where a request comes from.
#[derive(Clone, Debug)]
pub struct Origin {
    /// The gateway's address, behind whatever trusted proxies there are.
    pub address: IpAddr,
    /// The DNS names of its certificate, in lower case, where it showed one.
    pub names: Option<Arc<[String]>>,
}

/// A request that may be answered.
#[derive(Debug)]
pub struct Admitted {
    /// Who asks.
    pub client: Arc<Client>,
    /// How it gets its response.
    pub passed: Passed,
}

/// What becomes of a request whose transid may be used.
#[derive(Debug)]
pub enum Passed {
    /// It is answered, and its transid was not used before.
    New,
    /// It is answered although its transid was used before: `replay = "observe"`.
    Observed,
    /// It may be sent again: `replay = "same-answer"`.
    Repeatable(Turn),
}

impl Admit {
    /// For the clients of a configuration.
    pub fn new(config: &Arc<Config>, clock: Clock) -> Self {
        Self {
            directory: ArcSwap::from_pointee(Directory::new(config)),
            replay: Replay::new(config.gateway.replay_entries),
            repeats: Repeats::default(),
            clock,
            alarmed: Mutex::default(),
        }
    }

    /// From now on for the clients of this configuration; what is burnt stays so.
    pub fn reload(&self, config: &Arc<Config>) {
        self.directory.store(Arc::new(Directory::new(config)));
    }

    /// How far back the transids go that must be remembered at start.
    pub fn memory(&self) -> Duration {
        self.directory.load().remembered
    }

    /// The table of used transids.
    pub fn replay(&self) -> &Replay {
        &self.replay
    }

    /// Notes a transid that was used, as the audit says, whoever may ask now: a client that has gone from the
    /// configuration may come back.
    pub fn remember(&self, appid: &AppId, number: Number) {
        let client = self.directory.load().known(appid);
        self.replay.remember(appid, client.as_ref().map(|client| &client.group), number);
    }

    /// Transids remembered.
    pub fn remembered(&self) -> usize {
        self.replay.held()
    }

    /// Frees what has left the window; called on a ticker.
    pub fn tidy(&self) {
        let now = self.clock.moment();
        self.replay.sweep(self.memory(), now);
        self.repeats.sweep(now.believed.minus(self.memory()).as_secs());
    }

    /// Transids remembered of each group, and what one group may hold.
    pub fn shares(&self) -> (Vec<(Arc<str>, usize)>, usize) {
        (self.replay.held_by_group(), self.directory.load().group_share)
    }

    /// Raises an alarm while requests are refused since a share of the replay table is full; called on a ticker.
    pub fn report(&self, alarms: &Alarms) {
        let now = self.clock.monotonic();
        let full = self.replay.take_full();
        let mut alarmed = self.alarmed.lock().unwrap_or_else(PoisonError::into_inner);
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
    pub fn door(&self) -> Door<'_> {
        Door { directory: self.directory.load(), replay: &self.replay, repeats: &self.repeats }
    }
}

impl Door<'_> {
    /// Whether some client may send lenient transids.
    pub fn reads_lenient(&self) -> bool {
        self.directory.lenient
    }

    /// Whether this address may ask at all.
    ///
    /// # Errors
    /// [`Refusal::Peer`].
    pub fn check_peer(&self, peer: IpAddr) -> Result<(), Refusal> {
        if contains(&self.directory.peers, peer) { Ok(()) } else { Err(Refusal::Peer) }
    }

    /// Admits a request that came at this moment: its client, with the transid burnt.
    ///
    /// # Errors
    /// The refusal; none but an admitted request has burnt its transid.
    pub fn admit(&self, request: &Request<'_>, origin: &Origin, came: Moment) -> Result<Admitted, Refused> {
        let number = match &request.transid {
            SentTransid::Strict(transid) => Some(Number::of(transid)),
            // Has no stamp; was read because some client may send it.
            SentTransid::Lenient(_) => None,
        };
        let client = self.authenticate(request, number, came).map_err(Refused::unknown)?;
        match self.authorize(&client, request, number, origin, came) {
            Ok(passed) => Ok(Admitted { client, passed }),
            Err(refusal) => Err(Refused { client: Some(client), refusal }),
        }
    }

    /// Window and token. An unknown appid costs the same hashing as a wrong token and is refused alike.
    fn authenticate(
        &self,
        request: &Request<'_>,
        number: Option<Number>,
        came: Moment,
    ) -> Result<Arc<Client>, Refusal> {
        if let Some(number) = number {
            self.check_window(number.unix(), self.directory.widest, came)?;
        }
        self.directory.authenticate(request).ok_or(Refusal::Token)
    }

    /// Everything about a client whose token was genuine; uses the transid.
    fn authorize(
        &self,
        client: &Client,
        request: &Request<'_>,
        number: Option<Number>,
        origin: &Origin,
        came: Moment,
    ) -> Result<Passed, Refusal> {
        let rights = &client.rights;
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
        if !contains(&rights.peers, origin.address) {
            return Err(Refusal::Peer);
        }
        if !shows(origin, client.certificate.as_deref()) {
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
        let owner =
            Owner { appid: &client.appid, group: &client.group, group_share: self.directory.group_share };
        let observed = |again| if again { Passed::Observed } else { Passed::New };
        let passed = match number {
            Some(number) => {
                let pass = || self.replay.pass(owner, number, rights, mode, came);
                match mode {
                    ReplayMode::Observe => pass().map(observed),
                    ReplayMode::Refuse => {
                        let passed = pass();
                        // Not of an action, which is another request than the one that may be sent again.
                        if passed == Err(Unusable::Reused) && rights.replay == ReplayMode::Refuse {
                            self.repeats.refused(client.appid, number);
                        }
                        passed.map(observed)
                    }
                    ReplayMode::SameAnswer => {
                        let asked = repeat::Asked {
                            group: Arc::clone(&client.group),
                            operation: request.operation,
                            card: request.card,
                            parameters: request.parameters.clone(),
                        };
                        self.repeats.enter(client.appid, number, asked, pass).map(Passed::Repeatable)
                    }
                }
            }
            None => {
                self.replay.observe(&client.appid, digest(&request.transid), rights, came.ticks).map(observed)
            }
        };
        passed.map_err(|why| refusal(why, came))
    }

    fn check_window(&self, unix: u64, window: Option<Duration>, came: Moment) -> Result<(), Refusal> {
        self.replay.check_window(unix, window, came).map_err(|why| refusal(why, came))
    }
}

/// A refusal, and whose it is: known once the token was genuine.
#[derive(Debug)]
pub struct Refused {
    /// The client that was authenticated.
    pub client: Option<Arc<Client>>,
    /// Why it is refused all the same.
    pub refusal: Refusal,
}

impl Refused {
    fn unknown(refusal: Refusal) -> Self {
        Self { client: None, refusal }
    }
}

fn refusal(why: Unusable, came: Moment) -> Refusal {
    match why {
        Unusable::Stale => Refusal::StaleTransid(came.wall),
        Unusable::Reused => Refusal::ReusedTransid,
        Unusable::TooFast(wait) => Refusal::TooFast(wait),
        Unusable::Full(wait) => Refusal::ReplayFull(wait),
    }
}

/// Whether a list of networks lets an address through; an empty list lets everybody.
fn contains(networks: &[IpNet], address: IpAddr) -> bool {
    networks.is_empty() || networks.iter().any(|network| network.contains(&address.to_canonical()))
}

/// Whether the connection's certificate has the name that a client must show.
fn shows(origin: &Origin, wanted: Option<&str>) -> bool {
    let Some(wanted) = wanted else { return true };
    origin.names.iter().flat_map(|names| names.iter()).any(|name| name == wanted)
}

/// What stands for a lenient transid among those observed. A collision only miscounts a repetition.
fn digest(sent: &SentTransid) -> u64 {
    let mut hasher = DefaultHasher::new();
    sent.hash(&mut hasher);
    hasher.finish()
}
