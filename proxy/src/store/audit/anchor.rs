//! Anchors: signed heads of the chain, kept outside the file that they vouch for.
//!
//! One JSON object a line, in `anchors.log` and in the log. A chain alone does not miss its tail when that is cut off;
//! an anchor held elsewhere does. Whoever owns the host owns the key: ship the lines off it.
//!
//! ```text
//! signed = "cmiot-audit-anchor-1" 00, at (i64), month (7 bytes), last (i64), head (32 bytes)     integers big-endian
//! ```

use std::fs::{self, Permissions};
use std::io::{self, BufRead, BufReader};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use ring::rand::SystemRandom;
use ring::signature::{self, Ed25519KeyPair, KeyPair};
use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

use super::super::whole::{self, Existing};
use super::super::{Fault, StoreError};
use super::chain::Hash;
use super::identity::{hex, is_blank, unhex};
use crate::clock::Time;

/// The file that anchors are appended to, in the store's folder.
pub const LOG: &str = "anchors.log";
/// The private key, made at the first start.
const KEY: &str = "audit-anchor.key";
/// The public key, for whoever verifies.
const PUBLIC: &str = "audit-anchor.pub";

/// What is signed: at this time the chain had got this far.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Anchor {
    /// When, in microseconds since 1970.
    pub at: i64,
    /// The same for people.
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
    /// When there is none, or it is not one.
    pub fn of_folder(dir: &Path) -> Result<Self, StoreError> {
        let path = dir.join(PUBLIC);
        let text = fs::read_to_string(&path).map_err(StoreError::io(&path))?;
        Self::parse(&text).ok_or_else(|| StoreError::new(&path, Fault::Malformed { what: "public key" }))
    }
}

impl std::fmt::Display for PublicKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&hex(&self.0))
    }
}

impl Anchor {
    /// Reads a file of anchors. Lines of a log around them are passed over.
    ///
    /// # Errors
    /// When the file cannot be read, or a line that has a signature is not an anchor.
    pub fn read_all(path: &Path) -> Result<Vec<Self>, StoreError> {
        let file = fs::File::open(path).map_err(StoreError::io(path))?;
        let mut anchors = Vec::new();
        for line in BufReader::new(file).lines() {
            let line = line.map_err(StoreError::io(path))?;
            if !line.contains("\"signature\"") {
                continue;
            }
            let anchor = serde_json::from_str(&line)
                .map_err(|_| StoreError::new(path, Fault::Malformed { what: "anchor" }))?;
            anchors.push(anchor);
        }
        Ok(anchors)
    }

    /// Whether the key signed it.
    pub fn is_signed_by(&self, key: &PublicKey) -> bool {
        let (Some(message), Some(signature)) = (self.message(), from_hex(&self.signature)) else {
            return false;
        };
        signature::UnparsedPublicKey::new(&signature::ED25519, &key.0).verify(&message, &signature).is_ok()
    }

    /// None when a field is not what was ever signed.
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

/// Signs heads and writes them down.
pub(super) struct Notary {
    key: Ed25519KeyPair,
    log: PathBuf,
    /// Of the files that auditors read.
    mode: u32,
}

impl Notary {
    /// With the folder's key, which is made if there is none. Anchors and public key get `mode` when they are made.
    pub(super) fn open(dir: &Path, mode: u32) -> Result<Self, StoreError> {
        let path = dir.join(KEY);
        let bytes = match fs::read(&path) {
            // What a crash left while an earlier version made it.
            Ok(bytes) if is_blank(&bytes) => {
                tracing::error!(file = %path.display(), "the key that signs anchors is lost: a new one is made");
                make(&path)?
            }
            Ok(bytes) => Zeroizing::new(bytes),
            Err(error) if error.kind() == io::ErrorKind::NotFound => make(&path)?,
            Err(error) => return Err(StoreError::io(&path)(error)),
        };
        let key = Ed25519KeyPair::from_pkcs8(&bytes)
            .map_err(|_| StoreError::new(&path, Fault::Malformed { what: "anchor key" }))?;
        let public = dir.join(PUBLIC);
        let text = format!("{}\n", *hex(key.public_key().as_ref()));
        if fs::read_to_string(&public).ok().as_deref() != Some(&text) {
            whole::write(&public, text.as_bytes(), mode, Existing::Replace)
                .map_err(StoreError::io(&public))?;
            tracing::info!(
                public_key = text.trim_end(),
                "audit anchors are signed; keep this public key and the anchors on another machine"
            );
        }
        let log = dir.join(LOG);
        for file in [&public, &log] {
            share(file, mode);
        }
        Ok(Self { key, log, mode })
    }

    /// Signs a head, appends it to the file and logs it.
    pub(super) fn anchor(&self, at: Time, segment: String, last: i64, head: Hash) -> Result<(), StoreError> {
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
        whole::append_line(&self.log, self.mode, &line).map_err(StoreError::io(&self.log))
    }
}

/// Opens a file to those who may read it by the configuration of now; it may be of an earlier one.
fn share(file: &Path, mode: u32) {
    let lacks = |found: fs::Metadata| found.permissions().mode() & mode != mode;
    if fs::metadata(file).is_ok_and(lacks)
        && let Err(error) = fs::set_permissions(file, Permissions::from_mode(mode))
    {
        tracing::warn!(file = %file.display(), %error, "its mode cannot be set to {mode:o}");
    }
}

fn make(path: &Path) -> Result<Zeroizing<Vec<u8>>, StoreError> {
    let made = Ed25519KeyPair::generate_pkcs8(&SystemRandom::new())
        .map_err(|_| StoreError::io(path)(io::Error::other("the system gives no randomness")))?;
    whole::write(path, made.as_ref(), 0o600, Existing::Replace).map_err(StoreError::io(path))?;
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

    #[test]
    fn an_anchor_is_signed_by_its_folders_key_and_nothing_of_it_may_change() {
        let dir = tempfile::tempdir().unwrap();
        let notary = Notary::open(dir.path(), 0o600).unwrap();
        notary.anchor(Time::from_secs(1_768_449_600), "2026-01".into(), 7, Hash::NONE).unwrap();
        Notary::open(dir.path(), 0o600)
            .unwrap()
            .anchor(Time::EPOCH, "2026-01".into(), 8, Hash::NONE)
            .unwrap();
        let key = PublicKey::of_folder(dir.path()).unwrap();
        assert_eq!(PublicKey::parse(&key.to_string()), Some(key.clone()));
        let anchors = Anchor::read_all(&dir.path().join(LOG)).unwrap();
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
        Notary::open(other.path(), 0o600).unwrap();
        assert!(!good.is_signed_by(&PublicKey::of_folder(other.path()).unwrap()));
    }
}
