//! The write-ahead log (WAL) of a database, and its recovery after a sync that failed.
//!
//! Linux marks the pages of a failed sync clean: a file that is read shows them, the disk does not have them, and no later
//! sync writes them. A power loss then also loses the frames appended after such pages, however often they are synced,
//! since SQLite recovers a WAL up to its first bad frame. So nothing is appended to a WAL that was found at start, or
//! whose sync failed, before [`settle`] has written it again, synced it and moved it into the database.
//!
//! A disk that was full for a moment may keep the blocks of a failed write unallocated, so that the same bytes written there
//! again are lost too (ext4: the extent stays unwritten). So [`settle`] evicts the synced bytes from the page cache, reads
//! them back, and writes bytes that differ into new blocks; see [`disk`](super::disk).
//!
//! No connection checkpoints when it is closed, since SQLite would ignore a failed sync there, and the result of each
//! checkpoint is checked. A failed sync of the database file needs no recovery: SQLite counts its pages as not moved.

use std::collections::BTreeMap;
use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::time::Duration;

use rusqlite::config::DbConfig;
use rusqlite::hooks::Wal;
use rusqlite::{Connection, ErrorCode};

use super::files::{BUSY_TIMEOUT, database_files};
use super::locks::BlockedOperation;
use super::{Fault, StoreError, disk, locks};

/// Frames after which a commit moves the WAL into the database, as SQLite does by default.
pub(super) const CHECKPOINT_FRAMES: i32 = 1_000;

/// Attempts to read the WAL's length without a commit of another connection in between.
const LENGTH_ATTEMPTS: u32 = 5;

/// Number of times that [`enter_wal_mode`] waits [`BUSY_TIMEOUT`] for the readers of a file.
const READER_WAITS: u32 = 12;

/// Bytes that are read, written again and synced at once: about the size of a WAL that no reader holds.
const CHUNK: usize = 4 << 20;

const HEADER: usize = 32;
const FRAME_HEADER: usize = 24;

/// Configures the connection to checkpoint after commits, not when it is closed. A commit then reports the failure of its
/// checkpoint, although the commit itself was made.
pub(super) fn configure_checkpoints(connection: &mut Connection) -> rusqlite::Result<()> {
    connection.set_db_config(DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, true)?;
    connection.wal_hook(Some(|wal: &mut Wal, frames| checkpoint_after_commit(wal, frames)))
}

/// Moves the WAL into the database if it has [`CHECKPOINT_FRAMES`].
///
/// # Errors
/// When SQLite reports one, except that another connection is checkpointing.
pub(super) fn checkpoint_after_commit(wal: &mut Wal, frames: i32) -> rusqlite::Result<()> {
    if frames < CHECKPOINT_FRAMES {
        return Ok(());
    }
    match wal.checkpoint() {
        Err(error) if error.sqlite_error_code() == Some(ErrorCode::DatabaseBusy) => Ok(()),
        done => done,
    }
}

/// Makes the contents of the WAL durable: writes its frames again, syncs them, and moves them into the database, as far as
/// readers allow. Truncates the WAL after its last committed frame (a commit whose sync failed may follow).
///
/// # Errors
/// [`Fault::WalLost`] when a committed frame can no longer be read back; otherwise when a write or a sync fails.
pub(super) fn settle(connection: &Connection, path: &Path) -> Result<(), StoreError> {
    let [_, wal, _] = database_files(path);
    let sqlite = StoreError::sqlite(path);
    let frames = begin_at_last_frame(connection, path)?;
    let rewritten = rewrite(&wal, frames);
    connection.execute_batch("ROLLBACK").map_err(sqlite)?;
    rewritten?;
    if frames == 0 {
        return Ok(());
    }
    let moved = move_frames(connection, path)?;
    check_moved(path, &wal, moved)?;
    // A reader may prevent this; the rewritten WAL can be appended to anyway.
    connection.busy_timeout(Duration::ZERO).map_err(sqlite)?;
    let emptied = checkpoint(connection, path);
    connection.busy_timeout(BUSY_TIMEOUT).map_err(sqlite)?;
    emptied.map(drop)
}

/// Moves frames into the database as far as readers allow; returns the number of frames that it has now.
fn move_frames(connection: &Connection, path: &Path) -> Result<u64, StoreError> {
    let mut done = Ok(0);
    // Linux reports a failed write once to each open file: those of SQLite, for the WAL and for the database, may still
    // report a failure that has been repaired. `check_moved` compares the moved pages with the disk afterwards.
    for _ in 0..3 {
        let moved: rusqlite::Result<i64> =
            connection.query_row("PRAGMA wal_checkpoint(PASSIVE)", [], |row| row.get(2));
        done = match moved {
            Ok(moved) => Ok(u64::try_from(moved).unwrap_or(0)),
            Err(error) if error.sqlite_error_code() == Some(ErrorCode::DatabaseBusy) => Ok(0),
            Err(error) => Err(StoreError::sqlite(path)(error)),
        };
        if !matches!(&done, Err(error) if error.is_unsynced()) {
            break;
        }
    }
    done
}

/// Compares the first `moved` frames with the database's pages on the disk, and writes pages that differ again. The WAL
/// still has them until it is emptied.
fn check_moved(path: &Path, wal: &Path, moved: u64) -> Result<(), StoreError> {
    if moved == 0 {
        return Ok(());
    }
    let log = File::open(wal).map_err(StoreError::io(wal))?;
    let mut header = [0; HEADER];
    read(&log, wal, &mut header, 0)?;
    let page = Checksum::of_header(&header).ok_or_else(|| lost(wal, 0))?.page;
    // The position of each page's last frame.
    let mut last = BTreeMap::new();
    for frame in 0..moved {
        let at = HEADER as u64 + frame * (FRAME_HEADER + page) as u64;
        let mut number = [0; 4];
        read(&log, wal, &mut number, at)?;
        last.insert(u32::from_be_bytes(number), at + FRAME_HEADER as u64);
    }
    let database = disk::open_permanently(path)?;
    let offset = |number: u32| u64::from(number).saturating_sub(1) * page as u64;
    for &number in last.keys() {
        disk::evict_from_page_cache(&database, offset(number), page);
    }
    let mut differ = Vec::new();
    let mut found = vec![0; page];
    for (number, at) in last {
        let mut bytes = vec![0; page];
        read(&log, wal, &mut bytes, at)?;
        let read = database.read_exact_at(&mut found, offset(number));
        if read.is_err() || found != bytes {
            differ.push((offset(number), bytes));
        }
    }
    if differ.is_empty() {
        return Ok(());
    }
    tracing::warn!(file = %path.display(), pages = differ.len(), "the disk lost synced pages: writing them again");
    disk::write_to_new_blocks(&database, path, &differ)
}

/// Moves the whole WAL into the database and empties it; returns false when a reader prevents it.
pub(super) fn checkpoint(connection: &Connection, path: &Path) -> Result<bool, StoreError> {
    let busy: Result<bool, _> = connection.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |row| row.get(0));
    match busy {
        Ok(busy) => Ok(!busy),
        Err(error) if error.sqlite_error_code() == Some(ErrorCode::DatabaseBusy) => Ok(false),
        Err(error) => Err(StoreError::sqlite(path)(error)),
    }
}

/// Moves the whole WAL into the database before the connection is closed; closing the last connection then removes the WAL.
/// Nothing is lost without this checkpoint: a failure is only logged, and the next start settles the WAL.
pub(super) fn finish(connection: &Connection, path: &Path) {
    match checkpoint(connection, path) {
        Ok(true) => {
            // An empty WAL has no frames to move.
            let _: rusqlite::Result<bool> =
                connection.set_db_config(DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, false);
        }
        Ok(false) => {
            tracing::info!(file = %path.display(), "a reader prevents the last checkpoint of the WAL");
        }
        Err(error) => tracing::warn!(%error, "the last checkpoint of the WAL failed"),
    }
}

/// Does the same and leaves WAL mode, so that users with read access to the folder alone can open the file: in WAL mode
/// SQLite must be able to create the other two files. The file stays in WAL mode while another process has it open.
pub(super) fn finish_for_readers(connection: &Connection, path: &Path) {
    finish(connection, path);
    // Does not wait for other processes: nothing is lost if the file stays in WAL mode.
    let left = connection
        .busy_timeout(Duration::ZERO)
        .and_then(|()| connection.pragma_update_and_check(None, "journal_mode", "delete", |_| Ok(())));
    if let Err(error) = left {
        tracing::info!(file = %path.display(), %error, "the file stays in WAL mode: another process has it open");
    }
}

/// Enters WAL mode. After a clean stop the file is not in WAL mode, and a process that reads it prevents the change: this
/// waits for such processes, and logs which they are.
///
/// # Errors
/// When the readers do not finish in time, or the file system does not support WAL mode.
pub(super) fn enter_wal_mode(connection: &Connection, path: &Path) -> Result<(), StoreError> {
    let mut waits = 0;
    loop {
        let entered =
            connection.pragma_update_and_check(None, "journal_mode", "wal", |row| row.get::<_, String>(0));
        let (code, text) = match entered.map_err(StoreError::sqlite(path)) {
            Ok(mode) if mode == "wal" => return Ok(()),
            Ok(mode) => (None, format!("journal_mode=wal is not possible here, only {mode}")),
            Err(error) if error.is_busy() => {
                let who = locks::describe(&locks::holders(path, BlockedOperation::ModeChange));
                if waits < READER_WAITS {
                    waits += 1;
                    tracing::warn!(file = %path.display(), %who, "waiting for another process to stop reading the file: it cannot be written before");
                    continue;
                }
                (Some(ErrorCode::DatabaseBusy), format!("it is locked by {who}"))
            }
            Err(error) => return Err(error),
        };
        return Err(StoreError::new(path, Fault::Sqlite { code, text }));
    }
}

/// Begins a transaction that excludes other writers; returns the number of committed frames of the WAL.
fn begin_at_last_frame(connection: &Connection, path: &Path) -> Result<u64, StoreError> {
    let sqlite = StoreError::sqlite(path);
    let version =
        || connection.pragma_query_value(None, "data_version", |row| row.get::<_, i64>(0)).map_err(sqlite);
    for _ in 0..LENGTH_ATTEMPTS {
        // The length cannot be read inside a transaction; the version shows whether it is still valid.
        let before = version()?;
        let frames: i64 =
            connection.query_row("PRAGMA wal_checkpoint(NOOP)", [], |row| row.get(1)).map_err(sqlite)?;
        connection.execute_batch("BEGIN IMMEDIATE").map_err(sqlite)?;
        match version() {
            // A negative number: there is no WAL.
            Ok(now) if now == before => return Ok(u64::try_from(frames).unwrap_or(0)),
            Ok(_) => connection.execute_batch("ROLLBACK").map_err(sqlite)?,
            Err(error) => {
                // The first error is the one to report.
                let _: rusqlite::Result<()> = connection.execute_batch("ROLLBACK");
                return Err(error);
            }
        }
    }
    let text = "another program writes to it continuously".to_owned();
    Err(StoreError::new(path, Fault::Sqlite { code: Some(ErrorCode::DatabaseBusy), text }))
}

/// Writes the first `frames` frames again, byte for byte, syncs them, and truncates the file after them. The caller holds
/// SQLite's write lock. It does not use rustix, since the tests' preloaded library does not intercept its system calls.
fn rewrite(wal: &Path, frames: u64) -> Result<(), StoreError> {
    let io = StoreError::io(wal);
    let file = match OpenOptions::new().read(true).write(true).open(wal) {
        Err(error) if error.kind() == io::ErrorKind::NotFound && frames == 0 => return Ok(()),
        opened => opened.map_err(io)?,
    };
    let length = file.metadata().map_err(io)?.len();
    if frames == 0 {
        // Every frame is in the database or was never committed, and no reader uses one.
        return if length > 0 { file.set_len(0).map_err(io) } else { Ok(()) };
    }
    let mut header = [0; HEADER];
    read(&file, wal, &mut header, 0)?;
    let mut sum = Checksum::of_header(&header).ok_or_else(|| lost(wal, 0))?;
    let size = FRAME_HEADER + sum.page;
    let end = HEADER as u64 + frames * size as u64;
    if length > end {
        file.set_len(end).map_err(io)?;
    }
    let at_once = (CHUNK / size).max(1);
    let (mut at, mut done) = (0, 0);
    let mut chunk = Vec::new();
    while done < frames {
        let count = usize::try_from(frames - done).map_or(at_once, |left| left.min(at_once));
        // The header is written with the first frames, so that each block is written whole.
        let before = if done == 0 { HEADER } else { 0 };
        chunk.resize(before + count * size, 0);
        read(&file, wal, &mut chunk, at)?;
        for frame in chunk[before..].chunks_exact(size) {
            done += 1;
            if !sum.accepts(frame) {
                return Err(lost(wal, done));
            }
        }
        disk::write_back(&file, wal, at, &chunk)?;
        at += chunk.len() as u64;
    }
    Ok(())
}

/// Fills `bytes`; an earlier end of the file is a lost frame.
fn read(file: &File, wal: &Path, bytes: &mut [u8], at: u64) -> Result<(), StoreError> {
    file.read_exact_at(bytes, at).map_err(|error| match error.kind() {
        io::ErrorKind::UnexpectedEof => lost(wal, 0),
        _ => StoreError::io(wal)(error),
    })
}

fn lost(wal: &Path, frame: u64) -> StoreError {
    StoreError::new(wal, Fault::WalLost { frame })
}

/// The running checksum of a WAL: https://sqlite.org/fileformat2.html#walformat.
struct Checksum {
    big_endian: bool,
    page: usize,
    salt: [u8; 8],
    sum: [u32; 2],
}

impl Checksum {
    /// None when the header is invalid.
    fn of_header(header: &[u8]) -> Option<Self> {
        let word = |at: usize| Some(u32::from_be_bytes(header.get(at..at + 4)?.try_into().ok()?));
        let magic = word(0)?;
        let page = usize::try_from(word(8)?).ok()?;
        if magic & !1 != 0x377f_0682 || !(512..=65_536).contains(&page) || !page.is_power_of_two() {
            return None;
        }
        let salt = header.get(16..24)?.try_into().ok()?;
        let mut sum = Self { big_endian: magic & 1 == 1, page, salt, sum: [0; 2] };
        sum.add(header.get(..24)?);
        (sum.sum == [word(24)?, word(28)?]).then_some(sum)
    }

    /// Whether this is the next frame of the log.
    fn accepts(&mut self, frame: &[u8]) -> bool {
        let Some((header, page)) = frame.split_at_checked(FRAME_HEADER) else { return false };
        self.add(&header[..8]);
        self.add(page);
        let [first, second] = self.sum.map(u32::to_be_bytes);
        header[8..16] == self.salt && header[16..20] == first && header[20..24] == second
    }

    /// Adds bytes, whose count is a multiple of eight.
    fn add(&mut self, bytes: &[u8]) {
        let word = if self.big_endian { u32::from_be_bytes } else { u32::from_le_bytes };
        let [mut first, mut second] = self.sum;
        for pair in bytes.as_chunks::<8>().0 {
            let [a, b, c, d, e, f, g, h] = *pair;
            first = first.wrapping_add(word([a, b, c, d])).wrapping_add(second);
            second = second.wrapping_add(word([e, f, g, h])).wrapping_add(first);
        }
        self.sum = [first, second];
    }
}

#[cfg(test)]
pub(super) mod tests {
    use std::path::PathBuf;

    use rusqlite::OpenFlags;

    use super::super::schema::{self, Kind, Synchronous};
    use super::*;

    /// A database with a few commits in its WAL, and the WAL's path.
    fn database_with_wal(dir: &Path) -> (Connection, PathBuf, PathBuf) {
        let path = dir.join("state.db");
        let connection = schema::open(&path, Kind::State, Synchronous::Full).unwrap();
        for n in 0..5 {
            put(&connection, n);
        }
        let [_, wal, _] = database_files(&path);
        (connection, path, wal)
    }

    /// Commits a row.
    pub(in crate::store) fn put(connection: &Connection, n: i64) {
        connection
            .execute("INSERT INTO spending (appid, day, leased) VALUES (?1, ?2, 0)", (n.to_string(), n))
            .unwrap();
    }

    /// The rows of a database.
    pub(in crate::store) fn days(path: &Path) -> Vec<i64> {
        let connection = Connection::open_with_flags(path, OpenFlags::SQLITE_OPEN_READ_ONLY).unwrap();
        let mut days = connection.prepare("SELECT day FROM spending ORDER BY day").unwrap();
        days.query_map([], |row| row.get(0)).unwrap().map(Result::unwrap).collect()
    }

    #[test]
    fn settling_moves_committed_rows_into_the_database() {
        let dir = tempfile::tempdir().unwrap();
        let (connection, path, wal) = database_with_wal(dir.path());
        assert!(wal.metadata().unwrap().len() > 0);
        settle(&connection, &path).unwrap();
        assert_eq!(wal.metadata().unwrap().len(), 0);
        // The database alone has every row.
        let copy = dir.path().join("copy.db");
        std::fs::copy(&path, &copy).unwrap();
        assert_eq!(days(&copy), [0, 1, 2, 3, 4]);
        put(&connection, 5);
        settle(&connection, &path).unwrap();
        assert_eq!(days(&path), [0, 1, 2, 3, 4, 5]);
    }

    #[test]
    fn settling_with_a_reader_keeps_the_log_and_truncates_uncommitted_frames() {
        let dir = tempfile::tempdir().unwrap();
        let (connection, path, wal) = database_with_wal(dir.path());
        let reader = Connection::open_with_flags(&path, OpenFlags::SQLITE_OPEN_READ_ONLY).unwrap();
        reader.execute_batch("BEGIN").unwrap();
        let seen: i64 = reader.query_row("SELECT count(*) FROM spending", [], |row| row.get(0)).unwrap();
        put(&connection, 5);
        let before = std::fs::read(&wal).unwrap();
        // A commit whose sync failed leaves whole frames after the last committed one.
        let mut left = before.clone();
        left.extend_from_slice(&before[HEADER..]);
        std::fs::write(&wal, &left).unwrap();
        settle(&connection, &path).unwrap();
        assert_eq!(std::fs::read(&wal).unwrap(), before);
        let again: i64 = reader.query_row("SELECT count(*) FROM spending", [], |row| row.get(0)).unwrap();
        assert_eq!((seen, again), (5, 5), "the reader keeps what it reads");
        drop(reader);
        assert_eq!(days(&path), [0, 1, 2, 3, 4, 5]);
    }

    #[test]
    fn a_lost_frame_is_an_error_and_a_start_recovers_the_frames_before_it() {
        let dir = tempfile::tempdir().unwrap();
        let (connection, path, wal) = database_with_wal(dir.path());
        // The pages of the last frames are zeros, as after an eviction.
        let length = wal.metadata().unwrap().len();
        let file = OpenOptions::new().write(true).open(&wal).unwrap();
        file.write_all_at(&[0; 2_000], length - 2_000).unwrap();
        let error = settle(&connection, &path).unwrap_err();
        assert!(matches!(error.fault(), Fault::WalLost { frame } if *frame > 0), "{error}");
        assert_eq!(wal.metadata().unwrap().len(), length, "nothing was moved");
        assert!(connection.is_autocommit());
        // A crash leaves no shared memory of the connections.
        let copy = dir.path().join("copy.db");
        for (from, to) in database_files(&path).iter().zip(database_files(&copy)).take(2) {
            std::fs::copy(from, to).unwrap();
        }
        drop(schema::open(&copy, Kind::State, Synchronous::Full).unwrap());
        assert_eq!(days(&copy), [0, 1, 2, 3]);
    }

    #[test]
    fn opening_empties_the_log_that_it_finds() {
        let dir = tempfile::tempdir().unwrap();
        let (connection, path, wal) = database_with_wal(dir.path());
        drop(connection);
        assert!(wal.metadata().unwrap().len() > 0, "closing moves nothing");
        let connection = schema::open(&path, Kind::State, Synchronous::Full).unwrap();
        assert_eq!(wal.metadata().unwrap().len(), 0);
        finish(&connection, &path);
        drop(connection);
        assert!(!wal.exists());
        assert_eq!(days(&path), [0, 1, 2, 3, 4]);
    }

    #[test]
    fn commits_keep_the_log_short() {
        let dir = tempfile::tempdir().unwrap();
        let (connection, path, wal) = database_with_wal(dir.path());
        connection.pragma_update(None, "synchronous", "off").unwrap();
        for n in 5..3_000 {
            put(&connection, n);
        }
        assert!(wal.metadata().unwrap().len() < 2_000 * 4_120, "{}", wal.metadata().unwrap().len());
        assert_eq!(days(&path).len(), 3_000);
    }

    #[test]
    fn a_file_leaves_wal_mode_unless_a_process_has_it_open_and_enters_it_again() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("cache.db");
        let mode = || std::fs::read(&path).unwrap()[18];
        let open = || schema::open(&path, schema::Kind::Cache, schema::Synchronous::Full).unwrap();
        let connection = open();
        let reader = schema::open_read_only(&path, schema::Kind::Cache).unwrap();
        finish_for_readers(&connection, &path);
        assert_eq!(mode(), 2, "the reader continues");
        drop(reader);
        finish_for_readers(&connection, &path);
        drop(connection);
        assert_eq!((mode(), std::fs::read_dir(dir.path()).unwrap().count()), (1, 1));
        drop(open());
        assert_eq!(mode(), 2);
    }
}
