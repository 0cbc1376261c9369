//! File systems whose blocks are smaller than a page of memory (ext4 chooses 1 KiB below 512 MiB).
//!
//! SQLite maps the index of a WAL (`-shm`) into memory. It allocates the index by writing one byte per page; the page's
//! other blocks are allocated when the memory is first written to. On a full file system this ends the process (SIGBUS),
//! where a write call would have failed. So with such blocks a database is opened only while there is room, its index is
//! written to at once, and the audit stops writing before the room is used up.

use std::io;
use std::path::Path;

use rustix::fs::{StatVfs, statvfs};

use super::{Fault, StoreError};

/// Bytes per page by which SQLite extends the index.
const PAGE: u64 = 4_096;

/// Room for the index of a WAL that grew because of a reader: 32 KiB per 16 MiB of the WAL.
pub(super) const MIN_FREE: u64 = 1 << 20;

/// The block size of the file system of `folder`, if it is smaller than a page.
///
/// # Errors
/// When statvfs(3) fails.
pub(super) fn small(folder: &Path) -> Result<Option<u64>, StoreError> {
    statvfs(folder).map(|disk| small_of(&disk)).map_err(|error| StoreError::io(folder)(error.into()))
}

/// Whether the blocks of a file that is about to be opened are small.
///
/// # Errors
/// [`io::ErrorKind::StorageFull`] when they are and too little is free, or when statvfs(3) fails.
pub(super) fn check_room(path: &Path) -> Result<bool, StoreError> {
    let disk = statvfs(path).map_err(|error| StoreError::io(path)(error.into()))?;
    let free = disk.f_bavail.saturating_mul(disk.f_frsize);
    match small_of(&disk) {
        None => Ok(false),
        Some(_) if free >= MIN_FREE => Ok(true),
        Some(size) => {
            let text = format!(
                "{} KiB free; with blocks of {size} bytes at least {} KiB are required",
                free >> 10,
                MIN_FREE >> 10
            );
            Err(StoreError::new(path, Fault::Io { kind: io::ErrorKind::StorageFull, text }))
        }
    }
}

/// The block size, if it is smaller than a page.
pub(super) fn small_of(disk: &StatVfs) -> Option<u64> {
    small_size(disk.f_bsize, disk.f_frsize)
}

/// The two sizes are equal where the block size is fixed. Where they differ (ZFS, network file systems), the file system
/// allocates the larger one at once.
fn small_size(preferred: u64, fragment: u64) -> Option<u64> {
    Some(preferred.max(fragment)).filter(|size| *size < PAGE)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn blocks_below_a_page_are_small() {
        // ext4 -b 1024, ext4 -b 4096, ZFS.
        for (preferred, fragment, small) in
            [(1_024, 1_024, Some(1_024)), (4_096, 4_096, None), (131_072, 512, None)]
        {
            assert_eq!(small_size(preferred, fragment), small);
        }
    }
}
