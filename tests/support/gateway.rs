//! A gateway: its credentials, and queries that it signs with sha2 directly, without the signer under test.

use std::sync::atomic::{AtomicU32, Ordering};

use cmiot_proxy::clock::Clock;
use cmiot_signer::Stamp;

use super::{EBID, GATEWAY_APPID, GATEWAY_PASSWORD, secrets};

/// A card, identified by one of its three numbers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Card<N = &'static str> {
    pub(crate) kind: &'static str,
    pub(crate) number: N,
}

impl<N> Card<N> {
    pub(crate) const fn new(kind: &'static str, number: N) -> Self {
        Self { kind, number }
    }
}

/// The msisdn of the card with this number in a test's fleet.
pub(crate) fn card_number(n: u32) -> Card<String> {
    Card::new("msisdn", format!("1064{n:07}"))
}

/// A gateway's credentials and clock.
#[derive(Clone, Debug)]
pub(crate) struct Gateway {
    pub(crate) appid: String,
    pub(crate) ebid: String,
    pub(crate) password: String,
    clock: Clock,
}

impl Gateway {
    /// The client in each [`Setup`](super::Setup), with this clock.
    pub(crate) fn new(clock: Clock) -> Self {
        Self { appid: GATEWAY_APPID.into(), ebid: EBID.into(), password: GATEWAY_PASSWORD.into(), clock }
    }

    /// A gateway with other credentials.
    pub(crate) fn named(&self, appid: &str, password: &str) -> Self {
        Self { appid: appid.into(), password: password.into(), ..self.clone() }
    }

    /// A new transid, stamped with the clock's time.
    pub(crate) fn transid(&self) -> String {
        self.transid_at(self.clock.now().as_secs())
    }

    /// A new transid with this stamp, in Unix seconds.
    pub(crate) fn transid_at(&self, unix: u64) -> String {
        // Distinct from the sequences of the proxy's own transids.
        static SEQUENCE: AtomicU32 = AtomicU32::new(50_000_001);
        let stamp = Stamp::from_unix(unix).expect("a year from 2000 to 2099");
        format!("{}{stamp}{:08}", self.appid, SEQUENCE.fetch_add(1, Ordering::Relaxed))
    }

    /// The gateway's time in Unix seconds.
    pub(crate) fn now(&self) -> u64 {
        self.clock.now().as_secs()
    }

    /// A lookup of `card` with a new transid; the parameters are in the order of the carrier page.
    pub(crate) fn sign<N: AsRef<str>>(&self, card: &Card<N>) -> Query {
        self.sign_transid(card, &self.transid())
    }

    /// A lookup with this transid, even a malformed one.
    pub(crate) fn sign_transid<N: AsRef<str>>(&self, card: &Card<N>, transid: &str) -> Query {
        let token = secrets::token(&self.appid, &self.password, transid);
        let number = card.number.as_ref();
        // Shorter numbers are no cards, and other numbers contain them.
        if number.len() >= 11 {
            secrets::register(number);
            secrets::register(&number.to_ascii_uppercase());
        }
        secrets::register(&self.password);
        secrets::register(&token);
        Query(vec![
            ("appid", self.appid.clone()),
            ("transid", transid.to_owned()),
            ("ebid", self.ebid.clone()),
            ("token", token),
            (card.kind, number.to_owned()),
        ])
    }
}

/// The ordered parameters of a lookup, encoded as they are sent.
#[derive(Clone, Debug)]
pub(crate) struct Query(Vec<(&'static str, String)>);

impl Query {
    /// These parameters, without a signature.
    pub(crate) fn of<const N: usize>(pairs: [(&'static str, &str); N]) -> Self {
        Self(pairs.map(|(name, value)| (name, value.to_owned())).into())
    }

    /// Replaces the value of a parameter, or appends the parameter.
    pub(crate) fn with(mut self, name: &'static str, value: &str) -> Self {
        match self.0.iter_mut().find(|(one, _)| *one == name) {
            Some((_, old)) => value.clone_into(old),
            None => self.0.push((name, value.to_owned())),
        }
        self
    }

    /// Appends a parameter, even if the name is present.
    pub(crate) fn and(mut self, name: &'static str, value: &str) -> Self {
        self.0.push((name, value.to_owned()));
        self
    }

    pub(crate) fn without(mut self, name: &str) -> Self {
        self.0.retain(|(one, _)| *one != name);
        self
    }

    /// The same parameters in the order of these names.
    pub(crate) fn in_order<const N: usize>(&self, names: [&'static str; N]) -> Self {
        assert_eq!(names.len(), self.0.len(), "the order names each parameter once");
        Self(names.map(|name| (name, self.value(name).to_owned())).into())
    }

    pub(crate) fn value(&self, name: &str) -> &str {
        let found = self.0.iter().find(|(one, _)| *one == name);
        found.map(|(_, value)| value.as_str()).expect("a parameter that was set")
    }

    pub(crate) fn transid(&self) -> &str {
        self.value("transid")
    }

    /// `name=value&name=value`, without percent-encoding.
    pub(crate) fn text(&self) -> String {
        let pairs: Vec<String> = self.0.iter().map(|(name, value)| format!("{name}={value}")).collect();
        pairs.join("&")
    }

    /// The first `n` parameters, and the others.
    pub(crate) fn split(&self, n: usize) -> (Self, Self) {
        let (head, tail) = self.0.split_at(n);
        (Self(head.to_vec()), Self(tail.to_vec()))
    }
}
