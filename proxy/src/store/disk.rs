//! What a disk really has of a file: read back past the memory that the system keeps of it, and written into new blocks
//! where it has nothing.
//!
//! Not by rustix what writes and syncs, since a preload of the tests does not see its system calls.

use std::collections::HashMap;
use std::fs::{File, OpenOptions};
use std::num::NonZeroU64;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::Path;
use std::sync::{Arc, LazyLock, Mutex, PoisonError};

use rustix::fs::{Advice, FallocateFlags};

use super::StoreError;

/// The blocks that are compared and written anew.
const BLOCK: u64 = 4_096;

/// Files by device and inode.
type Files = HashMap<(u64, u64), Arc<File>>;

/// Opens a database's own file and keeps it open as long as the process lives: to close it would give up every lock that
/// SQLite holds on it in this process.
pub(super) fn open_for_good(path: &Path) -> Result<Arc<File>, StoreError> {
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

/// Has the system forget pages that are on the disk, so that the next read shows what the disk has. Best effort: pages that
/// others use stay.
pub(super) fn drop_from_memory(file: &File, at: u64, length: usize) {
    let _: rustix::io::Result<()> =
        rustix::fs::fadvise(file, at, NonZeroU64::new(length as u64), Advice::DontNeed);
}

/// Writes bytes over themselves and syncs them; what the disk does not have then is written into new blocks.
pub(super) fn write_back(file: &File, path: &Path, at: u64, bytes: &[u8]) -> Result<(), StoreError> {
    file.write_all_at(bytes, at).map_err(StoreError::io(path))?;
    file.sync_data().map_err(StoreError::sync(path))?;
    let missing = missing(file, at, bytes);
    if missing.is_empty() { Ok(()) } else { write_anew(file, path, &missing) }
}

/// Writes what the disk does not have into new blocks, and sees to it that it has it then.
pub(super) fn write_anew(file: &File, path: &Path, pieces: &[(u64, Vec<u8>)]) -> Result<(), StoreError> {
    let length = file.metadata().map_err(StoreError::io(path))?.len();
    for (at, bytes) in pieces {
        // Whole blocks that the piece fills, or fills to the file's end: the others keep what they have. Where it is not
        // possible, writing has to do.
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
    Err(StoreError::sync(path)(std::io::Error::other("the disk does not keep what was synced")))
}

/// The blocks of `bytes` that the disk does not have at `at`.
fn missing(file: &File, at: u64, bytes: &[u8]) -> Vec<(u64, Vec<u8>)> {
    let mut found = vec![0; bytes.len()];
    drop_from_memory(file, at / BLOCK * BLOCK, bytes.len() + 2 * BLOCK as usize);
    if file.read_exact_at(&mut found, at).is_ok() && found == bytes {
        return Vec::new();
    }
    let mut pieces = Vec::new();
    let (mut place, mut wanted, mut found) = (at, bytes, &found[..]);
    while !wanted.is_empty() {
        // To the end of the file's block.
        let length = usize::try_from(BLOCK - place % BLOCK).unwrap_or(1).min(wanted.len());
        let (piece, rest) = wanted.split_at(length);
        let (here, others) = found.split_at(length);
        if here != piece {
            pieces.push((place, piece.to_vec()));
        }
        (place, wanted, found) = (place + length as u64, rest, others);
    }
    pieces
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_missing_is_found_by_block_and_written_anew() {
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
        write_anew(&file, &path, &found).unwrap();
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
        assert!(Arc::ptr_eq(&open_for_good(&path).unwrap(), &open_for_good(&path).unwrap()));
    }
}
