//! The key of the anchors, which also signs what is copied to a central database.

use std::fs;
use std::path::Path;

use ring::signature::Ed25519KeyPair;
use zeroize::Zeroizing;

use super::{KEY, NO_KEY};
use crate::store::audit::log::chain::Hash;
use crate::store::audit::log::copy_digest;
use crate::store::{StoreError, folder};

/// Signs positions of the copy.
pub(crate) struct CopyKey(Ed25519KeyPair);

impl CopyKey {
    /// The key of a folder, which the audit's writer has created.
    ///
    /// # Errors
    /// When it cannot be read, or is no key.
    pub(crate) fn open(dir: &Path) -> Result<Self, StoreError> {
        let path = dir.join(KEY);
        folder::check_key(&path)?;
        let bytes = Zeroizing::new(fs::read(&path).map_err(StoreError::io(&path))?);
        Ed25519KeyPair::from_pkcs8(&bytes).map(Self).map_err(|_| StoreError::new(&path, NO_KEY))
    }

    /// The signature of a position: row, head, and digest of what is copied up to there.
    pub(crate) fn sign(&self, last: i64, head: &Hash, digest: &Hash) -> Vec<u8> {
        self.0.sign(&copy_digest::signed(last, head, digest)).as_ref().to_vec()
    }
}
