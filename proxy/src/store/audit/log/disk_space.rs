//! Free-space check: the audit stops while the disk still has room, before SQLite and other programs fail.

use std::io;
use std::path::Path;

use crate::store::{Fault, StoreError, blocks};

/// Fails if fewer than `min_free` bytes of the disk that holds `dir` are free for this process. A disk with small
/// blocks needs some in any case; see [`blocks`].
///
/// # Errors
/// [`Fault::Io`] with [`io::ErrorKind::StorageFull`], or the error of the system call.
pub(crate) fn check(dir: &Path, min_free: u64) -> Result<(), StoreError> {
    let disk = rustix::fs::statvfs(dir).map_err(|error| StoreError::io(dir)(error.into()))?;
    let min_free = blocks::small_of(&disk).map_or(min_free, |_| min_free.max(blocks::MIN_FREE));
    let free = disk.f_bavail.saturating_mul(disk.f_frsize);
    if free >= min_free {
        return Ok(());
    }
    let text = format!("{} MiB free, and [audit] min_free asks for {} MiB", free >> 20, min_free >> 20);
    Err(StoreError::new(dir, Fault::Io { kind: io::ErrorKind::StorageFull, text }))
}
