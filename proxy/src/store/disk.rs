//! The bytes of a file that the disk really has: read back without the page cache, and written into new blocks where they
//! differ.
//!
//! Writes and syncs do not use rustix, since the tests' preloaded library does not intercept its system calls.

use std::collections::HashMap;
use std::fs::{File, OpenOptions};
use std::num::NonZeroU64;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::Path;
use std::sync::{Arc, LazyLock, Mutex, PoisonError};

use rustix::fs::{Advice, FallocateFlags};

use super::StoreError;

/// Bytes per block that is compared and written again.
const BLOCK: u64 = 4_096;

/// Files by device and inode.
type Files = HashMap<(u64, u64), Arc<File>>;

/// Opens a database's own file and keeps it open until the process ends: closing it would release every lock that SQLite
/// holds on it in this process.
pub(super) fn open_permanently(path: &Path) -> Result<Arc<File>, StoreError> {
    static OPEN: LazyLock<Mutex<Files>> = LazyLock::new(Mutex::default);
    let io = StoreError::io(path);
    let found = std::fs::metadata(path).map_err(io)?;
    let mut open = OPEN.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(file) = open.get(&(found.dev(), found.ino())) {
        return Ok(Arc::clone(file));
    }
    let file = Arc::new(OpenOptions::new().read(true).write(true).open(path).map_err(io)?);
    open.insert((found.dev(), found.ino()), Arc::clone(&file));
    Ok(file)
}

/// Evicts clean pages from the page cache, so that the next read comes from the disk. Best effort: pages in use by other
/// processes stay.
pub(super) fn evict_from_page_cache(file: &File, at: u64, length: usize) {
    let _: rustix::io::Result<()> =
        rustix::fs::fadvise(file, at, NonZeroU64::new(length as u64), Advice::DontNeed);
}

/// Overwrites bytes with themselves and syncs them; writes those that the disk still lacks into new blocks.
pub(super) fn write_back(file: &File, path: &Path, at: u64, bytes: &[u8]) -> Result<(), StoreError> {
    file.write_all_at(bytes, at).map_err(StoreError::io(path))?;
    file.sync_data().map_err(StoreError::sync(path))?;
    let missing = missing(file, at, bytes);
    if missing.is_empty() { Ok(()) } else { write_to_new_blocks(file, path, &missing) }
}

/// Writes pieces that the disk lacks into new blocks, and checks that the disk has them afterwards.
pub(super) fn write_to_new_blocks(
    file: &File,
    path: &Path,
    pieces: &[(u64, Vec<u8>)],
) -> Result<(), StoreError> {
    let length = file.metadata().map_err(StoreError::io(path))?.len();
    for (at, bytes) in pieces {
        // Deallocates the blocks that the piece fills, or fills up to the file's end; other blocks keep their bytes. Where
        // the file system cannot do this, the write alone must suffice.
        let end = at + bytes.len() as u64;
        let end = if end >= length { end.next_multiple_of(BLOCK) } else { end / BLOCK * BLOCK };
        let first = at.next_multiple_of(BLOCK);
        if first < end {
            let flags = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
            let _: rustix::io::Result<()> = rustix::fs::fallocate(file, flags, first, end - first);
        }
        file.write_all_at(bytes, *at).map_err(StoreError::io(path))?;
    }
    file.sync_data().map_err(StoreError::sync(path))?;
    if pieces.iter().all(|(at, bytes)| missing(file, *at, bytes).is_empty()) {
        return Ok(());
    }
    Err(StoreError::sync(path)(std::io::Error::other("the disk does not keep synced bytes")))
}

/// The blocks of `bytes` that the disk does not have at `at`.
fn missing(file: &File, at: u64, bytes: &[u8]) -> Vec<(u64, Vec<u8>)> {
    let mut found = vec![0; bytes.len()];
    evict_from_page_cache(file, at / BLOCK * BLOCK, bytes.len() + 2 * BLOCK as usize);
    if file.read_exact_at(&mut found, at).is_ok() && found == bytes {
        return Vec::new();
    }
    let mut pieces = Vec::new();
    let (mut offset, mut expected, mut found) = (at, bytes, &found[..]);
    while !expected.is_empty() {
        // To the end of the file's block.
        let length = usize::try_from(BLOCK - offset % BLOCK).unwrap_or(1).min(expected.len());
        let (piece, expected_rest) = expected.split_at(length);
        let (on_disk, found_rest) = found.split_at(length);
        if on_disk != piece {
            pieces.push((offset, piece.to_vec()));
        }
        (offset, expected, found) = (offset + length as u64, expected_rest, found_rest);
    }
    pieces
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn missing_blocks_are_found_and_written_to_new_blocks() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("file");
        let wanted: Vec<u8> = (0..40_000_u32).map(|n| (n % 251) as u8 + 1).collect();
        std::fs::write(&path, &wanted).unwrap();
        let file = OpenOptions::new().read(true).write(true).open(&path).unwrap();
        // A piece that begins and ends within blocks.
        let (at, piece) = (100_u64, &wanted[100..39_000]);
        assert_eq!(missing(&file, at, piece), []);
        file.write_all_at(&[0; 5_000], 9_000).unwrap();
        let found = missing(&file, at, piece);
        assert_eq!(found.iter().map(|(at, _)| *at).collect::<Vec<_>>(), [8_192, 12_288]);
        write_to_new_blocks(&file, &path, &found).unwrap();
        assert_eq!(std::fs::read(&path).unwrap(), wanted);
        file.write_all_at(&[0; 39_000], 0).unwrap();
        let pieces = missing(&file, at, piece);
        assert_eq!(pieces.first().map(|(at, bytes)| (*at, bytes.len())), Some((100, 3_996)));
        write_back(&file, &path, at, piece).unwrap();
        assert_eq!(std::fs::read(&path).unwrap()[100..], wanted[100..]);
    }

    #[test]
    fn a_file_is_opened_once() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("file");
        std::fs::write(&path, "x").unwrap();
        assert!(Arc::ptr_eq(&open_permanently(&path).unwrap(), &open_permanently(&path).unwrap()));
    }
}
