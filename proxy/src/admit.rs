//! Who asks, and may they: every request passes here before anything about a card is revealed.
//!
//! The order is part of the contract: window, token, ebid, rights, replay looked up, rate, and last the transid is
//! burnt (one atomic insert decides). A bad token or a 72 burns nothing. The transid's form was checked before, while
//! parsing, and must be: the carrier's token is a plain hash over the secret *followed by* the transid, so a longer
//! transid could be signed by anyone who saw a shorter one.

pub mod replay;

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::Arc;

use cmiot_signer::{AppId, Password, Token};
use governor::clock::Clock as _;
use governor::middleware::NoOpMiddleware;
use governor::nanos::Nanos;
use governor::state::{InMemoryState, NotKeyed};
use governor::{Quota, RateLimiter};
use ipnet::IpNet;

use crate::clock::{Clock, Time};
use crate::config::{Client, Config};
use crate::gateway::request::Request;
use crate::outcome::{Malformed, Refusal};
use replay::{Replay, Unusable};

/// Admits requests, or says why not.
pub struct Admit {
    clients: HashMap<AppId, Admitted>,
    decoy: Password,
    peers: Vec<IpNet>,
    replay: Replay,
    clock: Clock,
}

/// A client and the state of its rate.
struct Admitted {
    client: Arc<Client>,
    rate: Option<RateLimiter<NotKeyed, InMemoryState, Ticks, NoOpMiddleware<Nanos>>>,
}

impl Admit {
    /// For the clients of a configuration.
    pub fn new(config: &Config, clock: Clock) -> Self {
        let clients = config
            .clients
            .iter()
            .map(|(appid, client)| {
                let rate = client.rate.map(|rate| {
                    let quota = Quota::per_second(rate.per_second).allow_burst(rate.burst);
                    RateLimiter::direct_with_clock(quota, Ticks(clock.clone()))
                });
                (*appid, Admitted { client: Arc::clone(client), rate })
            })
            .collect();
        Self {
            clients,
            decoy: Password::new(b"nobody's password").expect("17 bytes are a password's length"),
            peers: config.gateway.peers.clone(),
            replay: Replay::new(config.gateway.clock_skew.0),
            clock,
        }
    }

    /// The transids that were answered, to fill at start.
    pub fn replay(&self) -> &Replay {
        &self.replay
    }

    /// Whether this address may ask at all.
    ///
    /// # Errors
    /// [`Refusal::Peer`].
    pub fn check_peer(&self, peer: IpAddr) -> Result<(), Refusal> {
        if contains(&self.peers, peer) { Ok(()) } else { Err(Refusal::Peer) }
    }

    /// Admits a request: its client, with the transid burnt.
    ///
    /// # Errors
    /// The refusal; none but an admitted request has burnt its transid.
    pub fn admit(&self, request: &Request, peer: IpAddr) -> Result<Arc<Client>, Refused> {
        let now = self.clock.now();
        let known = self.authenticate(request, now).map_err(Refused::unknown)?;
        let client = Arc::clone(&known.client);
        match self.authorize(known, request, peer, now) {
            Ok(()) => Ok(client),
            Err(refusal) => Err(Refused { client: Some(client), refusal }),
        }
    }

    /// Window and token. An unknown appid costs the same hashing as a wrong token and is refused alike.
    fn authenticate(&self, request: &Request, now: Time) -> Result<&Admitted, Refusal> {
        self.replay.check_window(&request.transid, now).map_err(unusable)?;
        let known = self.clients.get(&request.appid);
        let password = known.map_or(&self.decoy, |known| &known.client.password);
        let genuine = Token::sign(&request.appid, password, &request.transid).verify(request.token.expose());
        known.filter(|_| genuine).ok_or(Refusal::Token)
    }

    fn authorize(&self, known: &Admitted, request: &Request, peer: IpAddr, now: Time) -> Result<(), Refusal> {
        let client = &known.client;
        match request.ebid.as_deref() {
            Some(ebid) if ebid == client.ebid.as_str() => {}
            Some(_) => return Err(Refusal::Ebid),
            None => return Err(Refusal::Malformed(Malformed::Missing("ebid"))),
        }
        if !contains(&client.peers, peer) {
            return Err(Refusal::Peer);
        }
        let allowed = |list: &[String], fits: &dyn Fn(&str) -> bool| {
            list.is_empty() || list.iter().any(|item| fits(item))
        };
        if !allowed(&client.operations, &|name| name == request.operation.name) {
            return Err(Refusal::Operation);
        }
        if !allowed(&client.cards, &|prefix| request.card.as_str().starts_with(prefix)) {
            return Err(Refusal::CardNotAllowed);
        }
        self.replay.check_unused(&request.transid).map_err(unusable)?;
        if let Some(rate) = &known.rate {
            let ticks = Ticks(self.clock.clone());
            rate.check().map_err(|not_until| Refusal::TooFast(not_until.wait_time_from(ticks.now())))?;
        }
        self.replay.burn(&request.transid, now).map_err(unusable)
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

fn unusable(why: Unusable) -> Refusal {
    match why {
        Unusable::Stale => Refusal::StaleTransid,
        Unusable::Reused => Refusal::ReusedTransid,
    }
}

/// Whether a list of networks lets an address through; an empty list lets everybody.
fn contains(networks: &[IpNet], address: IpAddr) -> bool {
    networks.is_empty() || networks.iter().any(|network| network.contains(&address.to_canonical()))
}

/// Our clock, as the rate limiter wants it.
#[derive(Clone, Debug)]
struct Ticks(Clock);

impl governor::clock::Clock for Ticks {
    type Instant = Nanos;

    fn now(&self) -> Nanos {
        Nanos::from(self.0.monotonic())
    }
}
