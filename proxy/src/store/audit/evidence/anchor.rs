//! Anchors: signed heads of the chain, kept outside the file that they vouch for.
//!
//! One JSON object per line, in `anchors.log` and in the log. A chain alone cannot detect a truncated tail; an anchor
//! kept elsewhere can. The owner of the host has the key too: ship the lines off the host. [`read`] reads them.
//!
//! ```text
//! signed = "cmiot-audit-anchor-1" 00, at (i64), month (7 bytes), last (i64), head (32 bytes)     integers big-endian
//! ```

use std::fs::{self, OpenOptions, Permissions};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use ring::rand::SystemRandom;
use ring::signature::{self, Ed25519KeyPair, KeyPair};
use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

use crate::clock::Time;
use crate::store::atomic_file::{self, Existing};
use crate::store::audit::log::chain::Hash;
use crate::store::audit::log::loss::Loss;
use crate::store::audit::log::month::Month;
use crate::store::key_file::{hex, is_blank, unhex};
use crate::store::{Fault, StoreError, folder};

mod copy_key;
mod follow;
mod lines;

pub(crate) use self::copy_key::CopyKey;
pub(crate) use self::follow::AnchorLog;
pub(crate) use self::lines::tail;
pub use self::lines::{Lines, read};

/// The file that anchors are appended to, in the store's folder.
pub const LOG: &str = "anchors.log";
/// The private key, created at the first start.
pub(crate) const KEY: &str = "audit-anchor.key";
/// The fault of a file that has something else.
const NO_KEY: Fault = Fault::Unable {
    why: "holds no key that signs anchors (Ed25519, PKCS #8): it is cut off or was overwritten",
    remedy: "restore it from a backup, or move it away: the proxy then creates a new key, and records the change; keep \
             the present audit-anchor.pub, since it verifies the anchors so far",
};
/// The public key, for verification.
pub(crate) const PUBLIC: &str = "audit-anchor.pub";

/// A signed head: the chain had this head at this time.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Anchor {
    /// The time, in microseconds since 1970.
    pub at: i64,
    /// The same time for people.
    pub time: String,
    /// The segment: `2026-01`.
    pub segment: String,
    /// The last row's number.
    pub last: i64,
    /// The head of the chain, in hex.
    pub head: String,
    /// Ed25519 over all of the above but `time`, in hex.
    pub signature: String,
}

/// The public half of the key that signs anchors.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct PublicKey([u8; 32]);

impl PublicKey {
    /// From 64 hex digits, as printed at the first start and in `audit-anchor.pub`.
    pub fn parse(text: &str) -> Option<Self> {
        unhex(text.trim()).map(|bytes| Self(*bytes))
    }

    /// The public key of a folder.
    ///
    /// # Errors
    /// When there is no such file, or it holds no key.
    pub fn of_folder(dir: &Path) -> Result<Self, StoreError> {
        let path = dir.join(PUBLIC);
        let text = fs::read_to_string(&path).map_err(StoreError::io(&path))?;
        Self::parse(&text).ok_or_else(|| StoreError::new(&path, Fault::Malformed { value: "public key" }))
    }

    /// Its bytes.
    pub fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }

    /// From its bytes.
    pub fn from_slice(bytes: &[u8]) -> Option<Self> {
        bytes.try_into().ok().map(Self)
    }

    /// Whether the key signed a message.
    pub(crate) fn has_signed(&self, message: &[u8], signature: &[u8]) -> bool {
        signature::UnparsedPublicKey::new(&signature::ED25519, &self.0).verify(message, signature).is_ok()
    }

    /// The public half of the private key in a folder; none if the folder has no such key.
    pub(crate) fn of_private(dir: &Path) -> Result<Option<Self>, StoreError> {
        let path = dir.join(KEY);
        let bytes = match fs::read(&path) {
            Ok(bytes) => Zeroizing::new(bytes),
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(StoreError::io(&path)(error)),
        };
        let malformed = || StoreError::new(&path, Fault::Malformed { value: "anchor key" });
        let key = Ed25519KeyPair::from_pkcs8(&bytes).map_err(|_| malformed())?;
        key.public_key().as_ref().try_into().map(|bytes| Some(Self(bytes))).map_err(|_| malformed())
    }
}

impl std::fmt::Display for PublicKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&hex(&self.0))
    }
}

impl Anchor {
    /// Whether the key signed it.
    pub fn is_signed_by(&self, key: &PublicKey) -> bool {
        let (Some(message), Some(signature)) = (self.message(), from_hex(&self.signature)) else {
            return false;
        };
        key.has_signed(&message, &signature)
    }

    /// The head of the chain.
    pub(crate) fn head_bytes(&self) -> Vec<u8> {
        from_hex(&self.head).unwrap_or_default()
    }

    /// The signature.
    pub(crate) fn signature_bytes(&self) -> Vec<u8> {
        from_hex(&self.signature).unwrap_or_default()
    }

    /// From the signed parts, as another database has them.
    pub(crate) fn of_parts(at: i64, segment: String, last: i64, head: &[u8], signature: &[u8]) -> Self {
        let (head, signature) = (hex(head).to_string(), hex(signature).to_string());
        Self { at, time: Time::from_micros(at).to_string(), segment, last, head, signature }
    }

    /// The month of its segment.
    pub fn month(&self) -> Option<Month> {
        Month::parse(&self.segment)
    }

    /// Whether it is of the lost rows, or of the row that they followed.
    pub(crate) fn is_covered_by(&self, loss: &Loss) -> bool {
        self.month() == Some(loss.month)
            && (loss.first.saturating_sub(1)..=loss.last).contains(&self.last)
            && self.at <= loss.through.as_micros()
    }

    /// Whether its fields have the form of a signed anchor.
    fn is_well_formed(&self) -> bool {
        let signature = from_hex(&self.signature).is_some_and(|bytes| bytes.len() == 64);
        self.month().is_some() && self.message().is_some() && signature
    }

    /// The signed bytes; none when a field has another form.
    fn message(&self) -> Option<Vec<u8>> {
        let head = unhex(&self.head)?;
        if self.segment.len() != 7 {
            return None;
        }
        let mut message = b"cmiot-audit-anchor-1\0".to_vec();
        message.extend_from_slice(&self.at.to_be_bytes());
        message.extend_from_slice(self.segment.as_bytes());
        message.extend_from_slice(&self.last.to_be_bytes());
        message.extend_from_slice(head.as_ref());
        Some(message)
    }
}

/// Signs heads, logs them and appends them to `anchors.log`.
pub(crate) struct AnchorSigner {
    key: Ed25519KeyPair,
    log: PathBuf,
    /// The mode of the files that auditors read.
    mode: u32,
}

impl AnchorSigner {
    /// Opens the folder's key, or creates one. New files of anchors and of the public key get `mode`. If the key
    /// differs from the folder's public key, or did not sign the last anchor, calls `changed` with "from A to B" before
    /// it writes anything.
    pub(crate) fn open(
        dir: &Path,
        mode: u32,
        changed: impl FnOnce(String) -> Result<(), StoreError>,
    ) -> Result<Self, StoreError> {
        let path = dir.join(KEY);
        folder::check_key(&path)?;
        let bytes = match fs::read(&path) {
            // Left by a crash while an earlier version created it.
            Ok(bytes) if is_blank(&bytes) => {
                tracing::error!(file = %path.display(), "the key that signs anchors is lost: a new one is created");
                create_key(&path)?
            }
            Ok(bytes) => Zeroizing::new(bytes),
            Err(error) if error.kind() == io::ErrorKind::NotFound => create_key(&path)?,
            Err(error) => return Err(StoreError::io(&path)(error)),
        };
        let key = Ed25519KeyPair::from_pkcs8(&bytes).map_err(|_| StoreError::new(&path, NO_KEY))?;
        let (log, public) = (dir.join(LOG), dir.join(PUBLIC));
        let text = format!("{}\n", *hex(key.public_key().as_ref()));
        let before = fs::read_to_string(&public).ok();
        if let Some(former) = former_key(before.as_deref(), &log, key.public_key().as_ref()) {
            tracing::error!(
                former,
                public_key = text.trim_end(),
                "the key that signs audit anchors has changed: find out why, and keep both public keys to verify"
            );
            changed(format!("from {former} to {}", text.trim_end()))?;
        }
        if before.as_deref() != Some(&text) {
            atomic_file::write(&public, text.as_bytes(), mode, Existing::Replace)
                .map_err(StoreError::io(&public))?;
            tracing::info!(
                public_key = text.trim_end(),
                "audit anchors are signed; keep this public key and the anchors on another machine"
            );
        }
        for file in [&public, &log] {
            share(file, mode);
        }
        Ok(Self { key, log, mode })
    }

    /// Signs a head, appends it to the file and logs it.
    pub(crate) fn anchor(&self, at: Time, segment: String, last: i64, head: Hash) -> Result<(), StoreError> {
        let mut anchor = Anchor {
            at: at.as_micros(),
            time: at.to_string(),
            segment,
            last,
            head: head.to_string(),
            signature: String::new(),
        };
        let message = anchor.message().unwrap_or_default();
        anchor.signature = hex(self.key.sign(&message).as_ref()).to_string();
        let mut line = serde_json::to_string(&anchor).unwrap_or_default();
        tracing::info!(anchor = line, "audit anchor");
        line.push('\n');
        repair(&self.log)?;
        atomic_file::append_line(&self.log, self.mode, &line).map_err(StoreError::io(&self.log))
    }
}

/// Gives a file the mode of the present configuration; it may have that of an earlier one.
fn share(file: &Path, mode: u32) {
    let lacks = |found: fs::Metadata| found.permissions().mode() & mode != mode;
    if fs::metadata(file).is_ok_and(lacks)
        && let Err(error) = fs::set_permissions(file, Permissions::from_mode(mode))
    {
        tracing::warn!(file = %file.display(), %error, "its mode cannot be set to {mode:o}");
    }
}

/// The key that signed before, if it was another one: from the file of the public key, or from the last anchor. Both files
/// of the key can be replaced together, and then only the anchor shows it.
fn former_key(before: Option<&str>, log: &Path, now: &[u8]) -> Option<String> {
    let is_now = |key: &PublicKey| key.0[..] == *now;
    if let Some(key) = before.and_then(PublicKey::parse).filter(|key| !is_now(key)) {
        return Some(key.to_string());
    }
    let last = tail(log).pop()?;
    let same = <[u8; 32]>::try_from(now).is_ok_and(|now| last.is_signed_by(&PublicKey(now)));
    (!same).then(|| "an unknown key".to_owned())
}

/// Repairs the last line of the anchors if a crash has torn it: ends it if it is whole, else truncates it.
fn repair(log: &Path) -> Result<(), StoreError> {
    let io = StoreError::io(log);
    let mut file = match OpenOptions::new().read(true).write(true).open(log) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        file => file.map_err(io)?,
    };
    let length = file.metadata().map_err(io)?.len();
    let start = length.saturating_sub(lines::TAIL);
    let mut end = Vec::new();
    file.seek(SeekFrom::Start(start)).and_then(|_| file.read_to_end(&mut end)).map_err(io)?;
    if end.last().is_none_or(|&last| last == b'\n') {
        return Ok(());
    }
    let line = end.iter().rposition(|&byte| byte == b'\n').map_or(0, |newline| newline + 1);
    let torn = &end[line..];
    if serde_json::from_slice::<Anchor>(torn).is_ok_and(|anchor| anchor.is_well_formed()) {
        file.write_all(b"\n").map_err(io)?;
    } else {
        tracing::warn!(file = %log.display(), bytes = torn.len(), "the last anchor was torn and is removed");
        file.set_len(start + line as u64).map_err(io)?;
    }
    file.sync_data().map_err(io)
}

fn create_key(path: &Path) -> Result<Zeroizing<Vec<u8>>, StoreError> {
    let made = Ed25519KeyPair::generate_pkcs8(&SystemRandom::new())
        .map_err(|_| StoreError::io(path)(io::Error::other("the system has no randomness")))?;
    atomic_file::write(path, made.as_ref(), 0o600, Existing::Replace).map_err(StoreError::io(path))?;
    Ok(Zeroizing::new(made.as_ref().to_vec()))
}

fn from_hex(text: &str) -> Option<Vec<u8>> {
    let digits = |pair| u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok();
    (text.len().is_multiple_of(2) && text.is_ascii())
        .then(|| text.as_bytes().chunks(2).map(digits).collect())?
}

#[cfg(test)]
mod tests {
    use super::*;

    fn open(dir: &Path) -> Result<AnchorSigner, StoreError> {
        AnchorSigner::open(dir, 0o600, |_| panic!("the key is the same"))
    }

    #[test]
    fn an_anchor_is_signed_by_its_folders_key_and_nothing_of_it_may_change() {
        let dir = tempfile::tempdir().unwrap();
        let signer = open(dir.path()).unwrap();
        signer.anchor(Time::from_secs(1_768_449_600), "2026-01".into(), 7, Hash::NONE).unwrap();
        open(dir.path()).unwrap().anchor(Time::EPOCH, "2026-01".into(), 8, Hash::NONE).unwrap();
        let key = PublicKey::of_folder(dir.path()).unwrap();
        assert_eq!(PublicKey::parse(&key.to_string()), Some(key.clone()));
        let anchors = read(&dir.path().join(LOG)).unwrap().anchors;
        assert_eq!(anchors.len(), 2, "the key of the first start is the second's");
        let good = &anchors[0];
        assert!(anchors.iter().all(|anchor| anchor.is_signed_by(&key)));
        for changed in [
            Anchor { at: good.at + 1, ..good.clone() },
            Anchor { last: 8, ..good.clone() },
            Anchor { segment: "2026-02".into(), ..good.clone() },
            Anchor { head: good.head.replacen('0', "1", 1), ..good.clone() },
            Anchor { signature: anchors[1].signature.clone(), ..good.clone() },
            Anchor { signature: String::new(), ..good.clone() },
        ] {
            assert!(!changed.is_signed_by(&key), "{changed:?}");
        }
        let other = tempfile::tempdir().unwrap();
        open(other.path()).unwrap();
        assert!(!good.is_signed_by(&PublicKey::of_folder(other.path()).unwrap()));
    }
    #[test]
    fn another_key_is_reported_before_it_signs() {
        let signed = |dir: &Path| {
            open(dir).unwrap().anchor(Time::EPOCH, "2026-01".into(), 7, Hash::NONE).unwrap();
        };
        let reported = |dir: &Path| {
            let mut reported = None;
            AnchorSigner::open(dir, 0o600, |text| {
                reported = Some(text);
                Ok(())
            })
            .unwrap();
            reported
        };
        let dir = tempfile::tempdir().unwrap();
        signed(dir.path());
        let former = PublicKey::of_folder(dir.path()).unwrap();
        fs::remove_file(dir.path().join(KEY)).unwrap();
        let text = reported(dir.path()).unwrap();
        let now = PublicKey::of_folder(dir.path()).unwrap();
        assert_eq!(text, format!("from {former} to {now}"));
        // Until the new key has signed: a process that ends before that has not written the note.
        assert!(reported(dir.path()).is_some());
        AnchorSigner::open(dir.path(), 0o600, |_| Ok(()))
            .unwrap()
            .anchor(Time::EPOCH, "2026-01".into(), 8, Hash::NONE)
            .unwrap();
        assert_eq!(reported(dir.path()), None, "it has signed");
        // Another folder's key, with its public key.
        let other = tempfile::tempdir().unwrap();
        signed(other.path());
        for file in [KEY, PUBLIC] {
            fs::copy(other.path().join(file), dir.path().join(file)).unwrap();
        }
        let theirs = PublicKey::of_folder(other.path()).unwrap();
        assert_eq!(reported(dir.path()), Some(format!("from an unknown key to {theirs}")));
        // Both files gone: the last anchor shows it.
        for file in [KEY, PUBLIC] {
            fs::remove_file(dir.path().join(file)).unwrap();
        }
        assert!(reported(dir.path()).unwrap().starts_with("from an unknown key to "));
        // A lost public key alone is only written again.
        fs::remove_file(dir.path().join(LOG)).unwrap();
        signed(dir.path());
        fs::remove_file(dir.path().join(PUBLIC)).unwrap();
        assert_eq!(reported(dir.path()), None);
    }

    #[test]
    fn a_key_that_is_cut_off_is_named_with_the_remedy() {
        let dir = tempfile::tempdir().unwrap();
        open(dir.path()).unwrap();
        let path = dir.path().join(KEY);
        let whole = fs::read(&path).unwrap();
        for end in [2, whole.len() / 2, whole.len() - 1] {
            fs::write(&path, &whole[..end]).unwrap();
            let error = AnchorSigner::open(dir.path(), 0o600, |_| Ok(())).err().unwrap().to_string();
            for part in [KEY, "cut off", "restore it from a backup, or move it away"] {
                assert!(error.contains(part), "{end}: {error}");
            }
        }
    }

    #[test]
    fn a_torn_last_anchor_is_cut_off_and_a_whole_one_is_ended() {
        let dir = tempfile::tempdir().unwrap();
        let log = dir.path().join(LOG);
        let sign = |last| open(dir.path()).unwrap().anchor(Time::EPOCH, "2026-01".into(), last, Hash::NONE);
        sign(1).unwrap();
        let whole = fs::read(&log).unwrap();
        for end in [1, 9, whole.len() / 2, whole.len() - 2, whole.len() - 1] {
            fs::write(&log, [&whole[..], &whole[..end]].concat()).unwrap();
            sign(2).unwrap();
            let kept = read(&log).unwrap();
            assert_eq!(kept.warnings, [""; 0], "{end}");
            let rows: Vec<i64> = kept.anchors.iter().map(|anchor| anchor.last).collect();
            assert_eq!(rows, if end == whole.len() - 1 { vec![1, 1, 2] } else { vec![1, 2] }, "{end}");
        }
    }
}
