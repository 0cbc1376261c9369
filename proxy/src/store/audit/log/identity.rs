//! The written form of a card: the number (`plain`), or a keyed hash and a masked form (`keyed`).
//!
//! ```text
//! card = lower-case hex of the first 16 bytes of HMAC-SHA256(key, "cmiot-audit-card-1" 00, kind, 00, number)
//! file = audit-YYYY-MM.key: 32 random bytes in hex, one per month      key id = first 8 hex of SHA-256(key)
//! ```
//!
//! A file of zeros, or an empty one, holds no key: a crash left it while the key was created or destroyed.
//!
//! Without its key a month's hashes can no longer be linked to cards: destroying the file erases the identities and
//! leaves every row, and so the chain, unchanged.

use std::fs::{self, OpenOptions};
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::sync::Arc;

use cmiot_signer::{Card, CardKind};
use ring::rand::{SecureRandom, SystemRandom};
use ring::{digest, hmac};
use zeroize::Zeroizing;

use super::month::Month;
use crate::store::atomic_file::{self, Existing};
use crate::store::key_file::{hex, is_blank, unhex};
use crate::store::{Fault, StoreError, folder};

/// The key of one month.
pub struct IdentityKey {
    key: hmac::Key,
    id: String,
}

impl IdentityKey {
    /// The file of a month's key.
    pub fn path(dir: &Path, month: Month) -> PathBuf {
        dir.join(format!("audit-{month}.key"))
    }

    /// Reads a month's key; none when the file is missing (never keyed, or erased) or holds no key.
    ///
    /// # Errors
    /// When the file exists but cannot be read, or holds something else.
    pub fn read(dir: &Path, month: Month) -> Result<Option<Self>, StoreError> {
        let path = Self::path(dir, month);
        let text = match fs::read_to_string(&path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            text => Zeroizing::new(text.map_err(StoreError::io(&path))?),
        };
        if is_blank(text.as_bytes()) {
            return Ok(None);
        }
        folder::check_key(&path)?;
        let bytes = unhex(text.trim_end());
        let bytes =
            bytes.ok_or_else(|| StoreError::new(&path, Fault::Malformed { value: "identity key" }))?;
        Ok(Some(Self::new(bytes.as_ref())))
    }

    /// Reads a month's key, or creates it. Replaces a file that holds no key only if `used` says that no row was
    /// written with one.
    ///
    /// # Errors
    /// When it can be neither read nor written, and when the key of existing rows is lost.
    pub(crate) fn ensure(
        dir: &Path,
        month: Month,
        used: impl FnOnce() -> Result<bool, StoreError>,
    ) -> Result<Self, StoreError> {
        if let Some(key) = Self::read(dir, month)? {
            return Ok(key);
        }
        let path = Self::path(dir, month);
        match (path.exists(), used()?) {
            (true, true) => return Err(StoreError::new(&path, Fault::KeyLost)),
            (true, false) => {
                tracing::warn!(file = %path.display(), "an identity key was never written in full: a new one is created");
            }
            // Removed by the operator, as the error above says, or lost unnoticed.
            (false, true) => tracing::error!(
                file = %path.display(),
                "the month's identity key is gone and a new one is created: the cards of its rows so far can no longer be identified"
            ),
            (false, false) => {}
        }
        let mut bytes = Zeroizing::new([0_u8; 32]);
        SystemRandom::new()
            .fill(bytes.as_mut())
            .map_err(|_| StoreError::io(&path)(io::Error::other("the system has no randomness")))?;
        atomic_file::write(&path, hex(bytes.as_ref()).as_bytes(), 0o600, Existing::Replace)
            .map_err(StoreError::io(&path))?;
        Ok(Self::new(bytes.as_ref()))
    }

    /// Destroys a month's key, and the unfinished file of a killed process. Returns whether there was any.
    ///
    /// # Errors
    /// When it cannot be overwritten or removed.
    pub(crate) fn destroy(dir: &Path, month: Month) -> Result<bool, StoreError> {
        let path = Self::path(dir, month);
        let mut any = false;
        for file in [path.with_added_extension("part"), path] {
            let io = StoreError::io(&file);
            // Overwritten first; a file system that keeps old blocks may still keep it.
            match OpenOptions::new().write(true).open(&file) {
                Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
                opened => opened
                    .and_then(|mut opened| opened.write_all(&[b'0'; 64]).and_then(|()| opened.sync_all()))
                    .map_err(io)?,
            }
            any |= atomic_file::remove(&file).map_err(io)?;
            atomic_file::sync_folder(&file).map_err(io)?;
        }
        Ok(any)
    }

    fn new(bytes: &[u8]) -> Self {
        let id = hex(&digest::digest(&digest::SHA256, bytes).as_ref()[..4]).to_string();
        Self { key: hmac::Key::new(hmac::HMAC_SHA256, bytes), id }
    }

    /// An identifier of this key that reveals nothing about it.
    pub fn id(&self) -> &str {
        &self.id
    }

    /// The keyed hash of a body's SHA-256.
    pub(super) fn hash_body(&self, sha256: &[u8; 32]) -> [u8; 32] {
        let mut context = hmac::Context::with_key(&self.key);
        context.update(b"cmiot-audit-body-1\0");
        context.update(sha256);
        let mut hash = [0; 32];
        hash.copy_from_slice(context.sign().as_ref());
        hash
    }

    /// The hash of a card in the month's rows.
    pub fn hash(&self, kind: CardKind, number: &str) -> String {
        let mut context = hmac::Context::with_key(&self.key);
        context.update(b"cmiot-audit-card-1\0");
        context.update(match kind {
            CardKind::Msisdn => b"msisdn\0",
            CardKind::Iccid => b"iccid\0",
            CardKind::Imsi => b"imsi\0",
        });
        context.update(number.as_bytes());
        hex(&context.sign().as_ref()[..16]).to_string()
    }
}

/// The card of an earlier request, as far as the audit still identifies it.
#[derive(Clone, Debug)]
pub enum PastCard {
    /// The number.
    Plain(Card),
    /// The hash.
    Hashed(HashedCard),
    /// A hash whose key is gone.
    Unknown,
}

impl PastCard {
    /// Whether it was this card; false if unknown.
    pub fn is(&self, card: &Card) -> bool {
        match self {
            Self::Plain(past) => past == card,
            Self::Hashed(HashedCard { key, hash }) => key.hash(card.kind(), card.as_str()) == *hash,
            Self::Unknown => false,
        }
    }
}

/// The hash of a card with the key that made it.
#[derive(Clone)]
pub struct HashedCard {
    key: Arc<IdentityKey>,
    hash: String,
}

impl HashedCard {
    pub(crate) fn new(key: &Arc<IdentityKey>, hash: &str) -> Self {
        Self { key: Arc::clone(key), hash: hash.to_owned() }
    }
}

impl std::fmt::Debug for HashedCard {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("HashedCard").field(&self.hash).finish()
    }
}

/// The written form of a row's card, peer and detail, where it differs from the row's own.
pub(crate) struct RowIdentity {
    keyed: Option<Keyed>,
    /// Shared by consecutive rows of one peer.
    peer: Option<Rc<str>>,
    /// The text of a note that names a card.
    detail: Option<Box<str>>,
    /// The body of a carrier reply.
    body: Option<Box<[u8]>>,
}

struct Keyed {
    card: String,
    masked: String,
    key: String,
}

impl RowIdentity {
    pub(super) fn new(
        key: Option<&IdentityKey>,
        card: Option<&Card>,
        peer: Option<Rc<str>>,
        detail: Option<Box<str>>,
        body: Option<Box<[u8]>>,
    ) -> Self {
        let keyed = card.zip(key).map(|(card, key)| Keyed {
            card: key.hash(card.kind(), card.as_str()),
            masked: masked(card.as_str()),
            key: key.id.clone(),
        });
        Self { keyed, peer, detail, body }
    }

    /// The card's hash, or without a key the card itself.
    pub(super) fn card<'a>(&'a self, card: Option<&'a Card>) -> Option<&'a str> {
        self.keyed.as_ref().map_or_else(|| card.map(Card::as_str), |keyed| Some(&keyed.card))
    }

    pub(super) fn masked(&self) -> Option<&str> {
        self.keyed.as_ref().map(|keyed| &*keyed.masked)
    }

    pub(super) fn key(&self) -> Option<&str> {
        self.keyed.as_ref().map(|keyed| &*keyed.key)
    }

    pub(super) fn detail(&self) -> &str {
        self.detail.as_deref().unwrap_or_default()
    }

    pub(super) fn body(&self) -> Option<&[u8]> {
        self.body.as_deref()
    }

    pub(super) fn peer(&self) -> Option<&str> {
        self.peer.as_deref()
    }
}

/// Digits of a card that its masked form shows, and the least length of a card that shows them.
const SHOWN: usize = 3;
const LONG: usize = 11;

/// The first three digits and the length, or the length alone of a short one: too little to find one card of a known list.
fn masked(number: &str) -> String {
    let shown = if number.len() < LONG { 0 } else { SHOWN };
    number.chars().enumerate().map(|(at, digit)| if at < shown { digit } else { '*' }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::Time;

    #[test]
    fn a_card_hashes_by_month_kind_and_number() {
        let dir = tempfile::tempdir().unwrap();
        let months = [Time::from_secs(1_768_449_600), Time::from_secs(1_771_000_000)].map(Month::of);
        let keys = months.map(|month| IdentityKey::ensure(dir.path(), month, || Ok(false)).unwrap());
        let again = IdentityKey::read(dir.path(), months[0]).unwrap().unwrap();
        let hashes = [
            keys[0].hash(CardKind::Msisdn, "14765004176"),
            keys[0].hash(CardKind::Msisdn, "14765004177"),
            keys[0].hash(CardKind::Imsi, "14765004176"),
            keys[1].hash(CardKind::Msisdn, "14765004176"),
        ];
        assert_eq!(again.hash(CardKind::Msisdn, "14765004176"), hashes[0]);
        assert!(hashes.iter().all(|hash| hash.len() == 32));
        for (n, hash) in hashes.iter().enumerate() {
            assert!(!hashes[..n].contains(hash));
        }
        assert_ne!(keys[0].id(), keys[1].id());
        fs::remove_file(IdentityKey::path(dir.path(), months[0])).unwrap();
        assert!(IdentityKey::read(dir.path(), months[0]).unwrap().is_none());
    }

    #[test]
    fn a_file_without_a_key_in_it_is_replaced_unless_rows_used_one() {
        let month = Month::of(Time::from_secs(1_768_449_600));
        for blank in ["", "\n", &"0".repeat(64), &"\0".repeat(64)] {
            let dir = tempfile::tempdir().unwrap();
            let path = IdentityKey::path(dir.path(), month);
            fs::write(&path, blank).unwrap();
            assert!(IdentityKey::read(dir.path(), month).unwrap().is_none());
            let error = IdentityKey::ensure(dir.path(), month, || Ok(true)).err().unwrap();
            assert!(error.to_string().contains("remove the file"), "{error}");
            assert_eq!(fs::read_to_string(&path).unwrap(), blank, "it is left as it is");
            let made = IdentityKey::ensure(dir.path(), month, || Ok(false)).unwrap();
            let read = IdentityKey::ensure(dir.path(), month, || Ok(true)).unwrap();
            assert_eq!(made.id(), read.id());
        }
        // What is neither blank nor a key is not ours to replace.
        let dir = tempfile::tempdir().unwrap();
        fs::write(IdentityKey::path(dir.path(), month), "something").unwrap();
        assert!(IdentityKey::ensure(dir.path(), month, || Ok(false)).is_err());
    }

    #[test]
    fn a_key_is_destroyed_with_what_a_killed_process_left_of_it() {
        let dir = tempfile::tempdir().unwrap();
        let month = Month::of(Time::from_secs(1_768_449_600));
        IdentityKey::ensure(dir.path(), month, || Ok(false)).unwrap();
        let part = IdentityKey::path(dir.path(), month).with_added_extension("part");
        fs::write(&part, "1").unwrap();
        assert_eq!(IdentityKey::destroy(dir.path(), month), Ok(true));
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 0);
        assert_eq!(IdentityKey::destroy(dir.path(), month), Ok(false));
    }

    #[test]
    fn three_digits_and_the_length_stay() {
        for (number, shown) in [
            ("14765004176", "147********"),
            ("898602C99816C0445401", "898*****************"),
            ("1476500417", "**********"),
            ("1", "*"),
        ] {
            assert_eq!(masked(number), shown);
        }
    }

    #[test]
    fn a_known_key_gives_what_another_program_computes() {
        // Python: hmac.new(bytes(range(32)), b"cmiot-audit-card-1\0msisdn\x0014765004176", "sha256").hexdigest()[:32]
        let bytes: Vec<u8> = (0..32).collect();
        let key = IdentityKey::new(&bytes);
        assert_eq!(key.hash(CardKind::Msisdn, "14765004176"), "266acd909efe2acf33878766d065c1f9");
        assert_eq!(key.id(), "630dcd29");
    }
}
