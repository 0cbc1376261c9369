//! Credentials and permissions of gateways, checked.

use std::collections::HashSet;
use std::fmt;
use std::num::NonZeroU32;
use std::sync::Arc;
use std::time::Duration;

use cmiot_signer::{AppId, Card, Ebid, Password};
use ipnet::IpNet;
use ring::hmac;

use super::file::{Format, ReplayMode};
use crate::operation::Operation;

/// Credentials that a gateway signs with, and what they open.
#[derive(Clone, Debug)]
pub struct Client {
    /// The appid that it signs with.
    pub appid: AppId,
    /// The group whose accounts answer it.
    pub group: Arc<str>,
    /// The ebid that it must send.
    pub ebid: Ebid,
    /// The password that it signs with.
    pub password: Password,
    /// The password before that one, which is valid too while a rotation lasts. Boxed: the room of one that is not there would
    /// be copied along with what it held before.
    pub previous: Option<Box<Password>>,
    /// A DNS name of the certificate that it must connect with.
    pub certificate: Option<Arc<str>>,
    pub permissions: Arc<Permissions>,
}

/// The permissions of a client.
#[derive(Clone, Debug)]
pub struct Permissions {
    /// Networks that it may ask from; empty means all.
    pub peers: Vec<IpNet>,
    /// Operations that it may ask for; empty means every lookup and no action.
    pub operations: Vec<String>,
    /// Prefixes of the cards that it may ask for.
    pub cards: Vec<String>,
    /// Whole cards that it may ask for; without it, and with no prefix, all.
    pub card_list: Option<Arc<HashSet<String>>>,
    /// Average and burst, where bounded.
    pub rate: Option<Rate>,
    /// The response to a transid that was used before.
    pub replay: ReplayMode,
    /// Which transids are read.
    pub format: Format,
    /// The greatest distance between a stamp and the clock, in either direction; none means any distance.
    pub window: Option<Duration>,
    /// Transids remembered at once.
    pub share: usize,
    /// An entry younger than this is fresh enough for it, whatever it wants.
    pub max_age_floor: Duration,
    /// Something stale for longer than this is not answered to it without asking.
    pub max_stale_ceiling: Duration,
}

impl Permissions {
    /// Whether this operation may be asked for. An action changes something, so it has to be named.
    pub fn opens_operation(&self, operation: &Operation) -> bool {
        match self.operations.is_empty() {
            true => operation.is_lookup(),
            false => self.operations.iter().any(|name| name == operation.name),
        }
    }

    /// Whether this card may be asked for.
    pub fn opens_card(&self, card: &Card) -> bool {
        if self.cards.is_empty() && self.card_list.is_none() {
            return true;
        }
        let card = card.as_str();
        self.card_list.as_ref().is_some_and(|list| list.contains(card))
            || self.cards.iter().any(|prefix| card.starts_with(prefix.as_str()))
    }
}

/// Limit of lookups.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Rate {
    /// Lookups per second, on average.
    pub per_second: NonZeroU32,
    /// Lookups at once.
    pub burst: NonZeroU32,
}

/// Gateways whose passwords follow from their appids.
#[derive(Clone)]
pub struct Derived {
    /// The group whose accounts answer them.
    pub group: Arc<str>,
    /// The prefix of their appids.
    pub prefix: String,
    /// The ebid that they must send.
    pub ebid: Ebid,
    /// The current epoch.
    pub epoch: u32,
    /// The permissions of each of them.
    pub rights: Arc<Permissions>,
    pub(super) key: hmac::Key,
}

impl Derived {
    /// A gateway of this appid, with the passwords of this epoch and the one before.
    pub fn client(&self, appid: AppId) -> Client {
        Client {
            appid,
            group: Arc::clone(&self.group),
            ebid: self.ebid,
            password: derive_password(&self.key, self.epoch, &appid),
            // Epoch 0 has none before it: its own twice, so that it takes as long as any other.
            previous: Some(Box::new(derive_password(&self.key, self.epoch.saturating_sub(1), &appid))),
            certificate: None,
            permissions: Arc::clone(&self.rights),
        }
    }
}

impl fmt::Debug for Derived {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Derived")
            .field("group", &self.group)
            .field("prefix", &self.prefix)
            .field("epoch", &self.epoch)
            .finish_non_exhaustive()
    }
}

/// The password of an appid: lower-case hex of HMAC-SHA256(key, "cmiot-derive-1" ‖ epoch, big end first ‖ appid).
pub fn derive_password(key: &hmac::Key, epoch: u32, appid: &AppId) -> Password {
    let mut context = hmac::Context::with_key(key);
    context.update(b"cmiot-derive-1");
    context.update(&epoch.to_be_bytes());
    context.update(appid.as_bytes());
    let mut hex = [0; 64];
    for (byte, digits) in context.sign().as_ref().iter().zip(hex.as_chunks_mut::<2>().0) {
        *digits = [byte >> 4, byte & 0xF].map(|digit| digit + if digit < 10 { b'0' } else { b'a' - 10 });
    }
    Password::new(&hex).expect("64 bytes are a password's length")
}

#[cfg(test)]
mod tests {
    use super::*;
    use cmiot_signer::{CardKind, Sequence, Stamp, Token, Transid};

    #[test]
    fn a_derived_password_is_what_other_tools_compute() {
        // printf 'cmiot-derive-1\0\0\0\x07GW0000042' | openssl dgst -sha256 -mac HMAC -macopt key:0123456789abcdef0123456789abcdef
        let key = hmac::Key::new(hmac::HMAC_SHA256, b"0123456789abcdef0123456789abcdef");
        let appid = AppId::parse("GW0000042").unwrap();
        let computed = b"3d4b642e66c2828d4fa8d0258de664cc6de0eecf665b864106c033b4f5bcd56f";
        // A password cannot be read, so the tokens that both passwords sign are compared.
        let transid = Transid::new(&appid, Stamp::FIRST, Sequence::FIRST);
        let token = Token::sign(&appid, &derive_password(&key, 7, &appid), &transid);
        assert!(token.verify(Token::sign(&appid, &Password::new(computed).unwrap(), &transid).as_str()));
    }

    #[test]
    fn a_card_is_open_by_prefix_or_by_list_or_when_there_is_neither() {
        let rights = |cards: &[&str], list: Option<&[&str]>| Permissions {
            peers: Vec::new(),
            operations: Vec::new(),
            cards: cards.iter().map(|card| (*card).to_owned()).collect(),
            card_list: list.map(|list| Arc::new(list.iter().map(|card| (*card).to_owned()).collect())),
            rate: None,
            replay: ReplayMode::Refuse,
            format: Format::Strict,
            window: None,
            share: 1,
            max_age_floor: Duration::ZERO,
            max_stale_ceiling: Duration::MAX,
        };
        let card = Card::parse(CardKind::Msisdn, "1064").unwrap();
        assert!(rights(&[], None).opens_card(&card));
        assert!(rights(&["106"], None).opens_card(&card));
        assert!(!rights(&["107"], None).opens_card(&card));
        assert!(rights(&["107"], Some(&["1064"])).opens_card(&card));
        assert!(!rights(&[], Some(&[])).opens_card(&card));
    }
}
