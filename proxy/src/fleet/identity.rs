//! The identity of this node: its number, its store, and the folder on this machine.

use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use ring::digest;

use crate::store::fleet::nodes::Identity;

/// The identity of the node with this number whose store has this public key and this folder.
///
/// # Errors
/// When the folder cannot be examined.
pub fn identity_of(node: u8, store: [u8; 32], dir: &Path) -> io::Result<Identity> {
    let found = fs::metadata(dir)?;
    let line = |path: &str| fs::read_to_string(path).map(|text| text.trim().to_owned()).unwrap_or_default();
    // A copy of the folder has another inode, and another machine, or this one after a restart, another boot.
    let mut context = digest::Context::new(&digest::SHA256);
    context.update(line("/proc/sys/kernel/random/boot_id").as_bytes());
    context.update(&found.dev().to_be_bytes());
    context.update(&found.ino().to_be_bytes());
    let mut folder = [0; 32];
    folder.copy_from_slice(context.finish().as_ref()); // SHA-256 has 32 bytes
    let path = dir.canonicalize().unwrap_or_else(|_| dir.to_owned());
    let place = format!("{}:{}", line("/proc/sys/kernel/hostname"), path.display());
    Ok(Identity { node, store, folder, place })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_folder_keeps_its_identity_and_a_copy_has_another() {
        let (first, second) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let of = |dir: &Path| identity_of(7, [1; 32], dir).unwrap().folder;
        assert_eq!(of(first.path()), of(&first.path().join(".")));
        assert_ne!(of(first.path()), of(second.path()));
        assert!(identity_of(7, [1; 32], &first.path().join("absent")).is_err());
    }
}
