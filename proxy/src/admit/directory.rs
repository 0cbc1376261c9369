//! The clients of one configuration, and the only check of tokens.
//!
//! Every refusal does the same work, whether the appid is listed, derived, revoked or unknown: as many key derivations and
//! blocks of SHA-256 as the costliest client needs, on memory that is equally cold. All comparisons take constant time.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use cmiot_signer::{AppId, Ebid, Password, Token};
use foldhash::fast::RandomState;
use ipnet::IpNet;

use super::replay::WITHOUT_WINDOW;
use crate::config::file::Format;
use crate::config::{Client, Config, Derived};
use crate::operation::Operation;
use crate::wire::request::Request;
use crate::wire::transid::SentTransid;

/// The password of a dummy verification when no client is listed.
const DUMMY_PASSWORD: &[u8] = b"a dummy password.";

/// The length of a derived password: a hash in hex.
const DERIVED_LEN: usize = 64;

/// The block length of SHA-256, in bytes.
const BLOCK: usize = 64;

/// Input that is hashed in addition if a password is short: for each of two passwords, the blocks of the longest.
const PADDING: [u8; 2 * (Password::MAX_LEN + BLOCK)] = [0; 2 * (Password::MAX_LEN + BLOCK)];

/// The clients, and the facts about all of them that apply before a request's client is known.
pub(super) struct Directory {
    config: Arc<Config>,
    /// The listed clients without the revoked ones, which count as unknown.
    listed: HashMap<AppId, Arc<Client>, RandomState>,
    dummy_password: Password,
    /// The listed clients, for the dummy verification of unknown appids.
    dummy_clients: Vec<Arc<Client>>,
    /// The length of the longest password, in bytes.
    longest: usize,
    /// Some client has two valid passwords, so two are hashed for every request.
    rotating: bool,
    /// Some client may send lenient transids.
    pub(super) lenient: bool,
    /// The networks from which requests are accepted; empty means all.
    pub(super) peers: Vec<IpNet>,
    /// The widest window of all clients; `None` means unlimited.
    pub(super) widest_window: Option<Duration>,
    /// The widest limited window: transids are stored for this long.
    pub(super) replay_horizon: Duration,
    /// The maximum number of stored transids of one group.
    pub(super) transids_per_group: usize,
}

impl Directory {
    pub(super) fn new(config: &Arc<Config>) -> Self {
        let all = || {
            let listed = config.clients.values().map(|client| &client.permissions);
            listed.chain(config.derived.iter().map(|derived| &derived.rights))
        };
        // A client that may send lenient transids has no window.
        let lenient = all().any(|rights| rights.format == Format::Lenient);
        let windows = || all().map(|rights| rights.window);
        let widest = windows().max_by_key(|window| window.unwrap_or(Duration::MAX)).flatten();
        let revoked = |appid: &AppId| config.revoked.contains(appid);
        let listed: HashMap<_, _, RandomState> = config
            .clients
            .iter()
            .filter(|(appid, _)| !revoked(appid))
            .map(|(appid, client)| (*appid, Arc::clone(client)))
            .collect();
        let passwords =
            || listed.values().flat_map(|client| [Some(&client.password), client.previous.as_deref()]);
        let longest = passwords()
            .flatten()
            .map(Password::len)
            .max()
            .unwrap_or(DUMMY_PASSWORD.len())
            .max(DUMMY_PASSWORD.len());
        Self {
            dummy_password: Password::new(DUMMY_PASSWORD).expect("17 bytes are a password's length"),
            dummy_clients: listed.values().map(Arc::clone).collect(),
            longest: if config.derived.is_empty() { longest } else { longest.max(DERIVED_LEN) },
            rotating: !config.derived.is_empty()
                || config.clients.values().any(|client| client.previous.is_some()),
            lenient,
            peers: config.gateway.peers.clone(),
            widest_window: widest.filter(|_| !lenient),
            replay_horizon: windows()
                .map(|window| window.unwrap_or(WITHOUT_WINDOW))
                .max()
                .unwrap_or_default(),
            transids_per_group: config.gateway.transids.per_group,
            listed,
            config: Arc::clone(config),
        }
    }

    /// The client of this appid, revoked or not.
    pub(super) fn known(&self, appid: &AppId) -> Option<Arc<Client>> {
        let listed = self.config.clients.get(appid).map(Arc::clone);
        listed.or_else(|| self.derived(appid).map(|derived| Arc::new(derived.client(*appid))))
    }

    /// The client, if the request's token is the client's.
    pub(super) fn authenticate(&self, request: &Request<'_>) -> Option<Arc<Client>> {
        let appid = &request.appid;
        // Computed for every request, needed or not.
        let dummy = self.dummy_client(appid);
        let listed = self.listed.get(appid);
        // Once any client is derived, a password is derived for every request.
        let matching = self.derived(appid).filter(|_| !self.config.revoked.contains(appid));
        let derived =
            matching.or(self.config.derived.first()).map(|derived| Arc::new(derived.client(*appid)));
        let known = listed.is_some() || matching.is_some();
        let derived = derived.filter(|_| listed.is_none() && matching.is_some());
        let client = derived.or_else(|| listed.or_else(|| self.dummy_clients.get(dummy)).map(Arc::clone));
        let current = client.as_ref().map_or(&self.dummy_password, |client| &client.password);
        let mut genuine = token(request, current).verify(request.token.expose());
        let mut blocks = self.blocks_spared(request, current);
        if self.rotating {
            let previous = client.as_ref().and_then(|client| client.previous.as_deref());
            let password = previous.unwrap_or(&self.dummy_password);
            genuine |= token(request, password).verify(request.token.expose()) & previous.is_some();
            blocks += self.blocks_spared(request, password);
        }
        if !(known && genuine) {
            std::hint::black_box(ring::digest::digest(&ring::digest::SHA256, &PADDING[..blocks * BLOCK]));
            return None;
        }
        client
    }

    /// The number of blocks by which the hash of the longest password is longer than that of this one.
    fn blocks_spared(&self, request: &Request<'_>, password: &Password) -> usize {
        // FIPS 180-4, 5.1.1: a bit and a length of 8 bytes end the text.
        let blocks = |password: usize| {
            (request.appid.as_bytes().len() + password + request.transid.as_bytes().len() + 9).div_ceil(BLOCK)
        };
        blocks(self.longest) - blocks(password.len())
    }

    /// The index of the client whose password the dummy verification of an unknown appid uses. It is one of many clients,
    /// so that its memory is as cold as that of a known one: a single dummy in the CPU's cache is 300 ns faster, which
    /// shows over the loopback (`cargo xtask bench timing`).
    fn dummy_client(&self, appid: &AppId) -> usize {
        let spread = appid
            .as_bytes()
            .iter()
            .fold(0_usize, |sum, &byte| sum.wrapping_mul(31).wrapping_add(usize::from(byte)));
        spread.checked_rem(self.dummy_clients.len()).unwrap_or(0)
    }

    /// The ebid that a client must send for this operation.
    pub(super) fn ebid_of(&self, client: &Client, operation: &Operation) -> Option<Ebid> {
        self.config.ebid_of(client, operation)
    }

    /// The derived client with the longest prefix that this appid has.
    fn derived(&self, appid: &AppId) -> Option<&Derived> {
        self.config.derived.iter().find(|derived| appid.as_str().starts_with(&derived.prefix))
    }
}

fn token(request: &Request<'_>, password: &Password) -> Token {
    match &request.transid {
        SentTransid::Strict { transid, .. } => Token::sign(&request.appid, password, transid),
        // Letters and digits, at most 48: the parser has checked it.
        SentTransid::Lenient(text) => {
            Token::sign_unchecked_transid(&request.appid, password, text.as_bytes())
        }
    }
}
