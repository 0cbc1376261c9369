//! The disk's reserve: the audit stops while there is still room, before SQLite and everything else there fails.

use std::io;
use std::path::Path;

use crate::store::{Fault, StoreError, blocks};

/// Whether at least `min_free` bytes of the disk that holds `dir` are free for us. With small blocks some are needed in any
/// case; see [`blocks`].
///
/// # Errors
/// [`Fault::Io`] with [`io::ErrorKind::StorageFull`], or what kept the system from telling.
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
