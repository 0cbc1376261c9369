//! The clients of one configuration, and the one place where tokens are checked.
//!
//! Every check does the same work: as many key derivations and hashes as the costliest client needs, whether the appid
//! is listed, derived, revoked or unknown; and looks at memory that is as cold. Nothing is compared but by constant-time
//! equality.

use std::sync::Arc;
use std::time::Duration;

use cmiot_signer::{AppId, Ebid, Password, Token};
use ipnet::IpNet;

use crate::config::file::Format;
use crate::config::{Client, Config, Derived};
use crate::gateway::request::{Request, SentTransid};
use crate::operation::Operation;

/// The clients, and what must be known of all of them before one is known.
pub(super) struct Directory {
    config: Arc<Config>,
    decoy: Password,
    /// Every listed client, to stand in for those in no list.
    stand_ins: Vec<Arc<Client>>,
    /// Some client has two valid passwords: two are hashed for everybody.
    rotating: bool,
    /// Some client may send lenient transids.
    pub(super) lenient: bool,
    /// Networks that may ask at all.
    pub(super) peers: Vec<IpNet>,
    /// The widest window of all clients; none means any distance.
    pub(super) widest: Option<Duration>,
    /// The narrowest one.
    pub(super) narrowest: Option<Duration>,
    /// The widest window that is one: transids are remembered for so long.
    pub(super) remembered: Duration,
}

impl Directory {
    pub(super) fn new(config: &Arc<Config>) -> Self {
        let all = || {
            let listed = config.clients.values().map(|client| &client.rights);
            listed.chain(config.derived.iter().map(|derived| &derived.rights))
        };
        let windows = || all().map(|rights| rights.window);
        Self {
            decoy: Password::new(b"nobody's password").expect("17 bytes are a password's length"),
            stand_ins: config.clients.values().map(Arc::clone).collect(),
            rotating: !config.derived.is_empty()
                || config.clients.values().any(|client| client.previous.is_some()),
            lenient: all().any(|rights| rights.format == Format::Lenient),
            peers: config.gateway.peers.clone(),
            widest: windows().max_by_key(|window| window.unwrap_or(Duration::MAX)).flatten(),
            narrowest: windows().flatten().min(),
            remembered: windows().flatten().max().unwrap_or_default(),
            config: Arc::clone(config),
        }
    }

    /// The client of this appid, revoked or not.
    pub(super) fn known(&self, appid: &AppId) -> Option<Arc<Client>> {
        let listed = self.config.clients.get(appid).map(Arc::clone);
        listed.or_else(|| self.derived(appid).map(|derived| Arc::new(derived.client(*appid))))
    }

    /// The client whose token this is.
    pub(super) fn authenticate(&self, request: &Request<'_>) -> Option<Arc<Client>> {
        let appid = &request.appid;
        // Derived for everybody where it is for anybody.
        let fitting = self.derived(appid);
        let derived = fitting.or(self.config.derived.first()).map(|derived| Arc::new(derived.client(*appid)));
        let listed = self.config.clients.get(appid);
        let known = listed.is_some() || fitting.is_some();
        let derived = derived.filter(|_| listed.is_none() && fitting.is_some());
        let listed = listed.or_else(|| self.stand_in(appid)).map(Arc::clone);
        let client = derived.or(listed);
        let current = client.as_ref().map_or(&self.decoy, |client| &client.password);
        let mut genuine = token(request, current).verify(request.token.expose());
        if self.rotating {
            let previous = client.as_ref().and_then(|client| client.previous.as_ref());
            let fits = token(request, previous.unwrap_or(&self.decoy)).verify(request.token.expose());
            genuine |= fits & previous.is_some();
        }
        let revoked = self.config.revoked.contains(appid);
        client.filter(|_| known && genuine && !revoked)
    }

    /// Whose password an unknown appid is checked with, and never let in: one out of many, which lies in memory as cold
    /// as a known one's. A decoy at hand shows, by 300 ns over the loopback (`cargo xtask bench timing`).
    fn stand_in(&self, appid: &AppId) -> Option<&Arc<Client>> {
        let spread = appid
            .as_str()
            .bytes()
            .fold(0_usize, |sum, byte| sum.wrapping_mul(31).wrapping_add(usize::from(byte)));
        self.stand_ins.get(spread.checked_rem(self.stand_ins.len())?)
    }

    /// The ebid that a client must send for this operation.
    pub(super) fn ebid_of(&self, client: &Client, operation: &Operation) -> Option<Ebid> {
        self.config.ebid_of(client, operation)
    }

    /// Whose prefix this appid has, the longest first.
    fn derived(&self, appid: &AppId) -> Option<&Derived> {
        self.config.derived.iter().find(|derived| appid.as_str().starts_with(&derived.prefix))
    }
}

fn token(request: &Request<'_>, password: &Password) -> Token {
    match &request.transid {
        SentTransid::Strict(transid) => Token::sign(&request.appid, password, transid),
        // Letters and digits, 48 at most: checked when it was read.
        SentTransid::Lenient(text) => {
            Token::sign_unchecked_transid(&request.appid, password, text.as_bytes())
        }
    }
}
