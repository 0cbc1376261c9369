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

pub mod repeat;
pub mod replay;

mod directory;
mod rate;

use std::hash::{DefaultHasher, Hash, Hasher};
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::{ArcSwap, Guard};
use cmiot_signer::AppId;
use ipnet::IpNet;

use crate::clock::{Clock, Moment, Time};
use crate::config::file::{Format, ReplayMode};
use crate::config::{Client, Config};
use crate::gateway::request::{Request, SentTransid};
use crate::outcome::{Malformed, Refusal};
use directory::Directory;
use replay::{Number, Replay, Unusable};

/// Admits requests, or says why not.
pub struct Admit {
    directory: ArcSwap<Directory>,
    replay: Replay,
    clock: Clock,
}

/// Admits one request: all of it is decided by the clients of one configuration, whenever a reload comes.
pub struct Door<'a> {
    directory: Guard<Arc<Directory>>,
    replay: &'a Replay,
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
    /// Its transid was used before: never true under `replay = "refuse"`.
    pub again: bool,
}

impl Admit {
    /// For the clients of a configuration.
    pub fn new(config: &Arc<Config>, clock: Clock) -> Self {
        Self {
            directory: ArcSwap::from_pointee(Directory::new(config)),
            replay: Replay::new(config.gateway.replay_entries),
            clock,
        }
    }

    /// From now on for the clients of this configuration; what is burnt stays so.
    pub fn reload(&self, config: &Arc<Config>) {
        self.replay.reloaded(self.directory.load().narrowest);
        self.directory.store(Arc::new(Directory::new(config)));
    }

    /// How far back the transids go that must be remembered at start.
    pub fn memory(&self) -> Duration {
        self.directory.load().remembered
    }

    /// Notes a transid that was answered before a restart, and says whether its client repeats answers.
    pub fn remember(&self, appid: &AppId, number: Number, now: Time) -> bool {
        // A client that has gone from the configuration is refused by its token anyway.
        let Some(client) = self.directory.load().known(appid) else { return false };
        let Some(window) = client.rights.window else { return false };
        self.replay.remember(appid, number, window, now);
        client.rights.replay == ReplayMode::SameAnswer
    }

    /// Transids remembered.
    pub fn remembered(&self) -> usize {
        self.replay.held()
    }

    /// Frees what has left the window; called on a ticker.
    pub fn tidy(&self) {
        self.replay.sweep(self.memory(), self.clock.monotonic());
    }

    /// Where a request asks to be let in.
    pub fn door(&self) -> Door<'_> {
        Door { directory: self.directory.load(), replay: &self.replay }
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
        let client = self.authenticate(request, number, came.wall).map_err(Refused::unknown)?;
        match self.authorize(&client, request, number, origin, came) {
            Ok(again) => Ok(Admitted { client, again }),
            Err(refusal) => Err(Refused { client: Some(client), refusal }),
        }
    }

    /// Window and token. An unknown appid costs the same hashing as a wrong token and is refused alike.
    fn authenticate(
        &self,
        request: &Request<'_>,
        number: Option<Number>,
        now: Time,
    ) -> Result<Arc<Client>, Refusal> {
        if let Some(number) = number {
            self.check_window(number.unix(), self.directory.widest, now)?;
        }
        self.directory.authenticate(request).ok_or(Refusal::Token)
    }

    /// Everything about a client whose token was genuine; says whether the transid was used before.
    fn authorize(
        &self,
        client: &Client,
        request: &Request<'_>,
        number: Option<Number>,
        origin: &Origin,
        came: Moment,
    ) -> Result<bool, Refusal> {
        let Moment { wall: now, ticks } = came;
        let rights = &client.rights;
        match number {
            Some(number) => self.check_window(number.unix(), rights.window, now)?,
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
        let passed = match (number, &request.transid) {
            (Some(number), _) => self.replay.pass(&client.appid, number, rights, mode, now, ticks),
            (None, sent) => self.replay.observe(&client.appid, digest(sent), rights, ticks),
        };
        passed.map_err(|why| refusal(why, now))
    }

    fn check_window(&self, unix: u64, window: Option<Duration>, now: Time) -> Result<(), Refusal> {
        self.replay.check_window(unix, window, now).map_err(|why| refusal(why, now))
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

fn refusal(why: Unusable, now: Time) -> Refusal {
    match why {
        Unusable::Stale => Refusal::StaleTransid(now),
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
