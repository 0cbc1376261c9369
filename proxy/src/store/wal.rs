//! The write-ahead log (WAL) of a database, and what is done when the disk did not take it.
//!
//! Linux marks the pages of a failed sync clean: a file that is read shows them, the disk does not have them, and no later
//! sync writes them. Frames appended behind such pages are lost with them at a power loss, however often they are synced,
//! since SQLite recovers a WAL up to its first bad frame. So nothing is appended to a WAL that was found at start, or
//! whose sync failed, before [`settle`] has written it again, synced it and moved it into the database.
//!
//! A disk that was full for a moment may keep the blocks of a failed write unallocated, so that the same bytes written there
//! again are lost too (ext4: the extent stays unwritten). So what was synced is dropped from memory and read back, and what
//! does not come back is written into new blocks; see [`disk`](super::disk).
//!
//! No connection checkpoints when it is closed, and none checkpoints without its result being looked at: SQLite would
//! ignore a failed sync there. A database whose own sync failed needs nothing: SQLite counts those pages as not moved.

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
use super::locks::Against;
use super::{Fault, StoreError, disk, locks};

/// Frames after which a commit moves the WAL into the database, as SQLite does by default.
const CHECKPOINT_AT: i32 = 1_000;

/// How often the WAL's length is read again because another connection commits meanwhile.
const ATTEMPTS: u32 = 5;

/// How often [`BUSY_TIMEOUT`] is waited for those who read a file that is to enter WAL mode.
const ENTERING: u32 = 12;

/// Bytes that are read, written again and synced at once. A WAL that no reader keeps has about as many.
const CHUNK: usize = 4 << 20;

const HEADER: usize = 32;
const FRAME_HEADER: usize = 24;

/// Has the connection checkpoint after commits, whose failure the commit then reports (though it was made), and not when
/// it is closed.
pub(super) fn attend(connection: &mut Connection) -> rusqlite::Result<()> {
    connection.set_db_config(DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, true)?;
    connection.wal_hook(Some(|wal: &mut Wal, frames| {
        if frames < CHECKPOINT_AT {
            return Ok(());
        }
        match wal.checkpoint() {
            // Another connection is at it.
            Err(error) if error.sqlite_error_code() == Some(ErrorCode::DatabaseBusy) => Ok(()),
            done => done,
        }
    }))
}

/// Makes what the WAL holds durable: writes its frames again, syncs them, and moves them into the database, as far as
/// readers allow. What follows the last committed frame (a commit whose sync failed) is cut off.
///
/// # Errors
/// [`Fault::WalLost`] when a committed frame cannot be read back any more; else when the disk does not take it.
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
    // A reader may hold it back: what was rewritten may be appended to all the same.
    connection.busy_timeout(Duration::ZERO).map_err(sqlite)?;
    let emptied = checkpoint(connection, path);
    connection.busy_timeout(BUSY_TIMEOUT).map_err(sqlite)?;
    emptied.map(drop)
}

/// Moves frames into the database as far as readers allow; how many of them are there.
fn move_frames(connection: &Connection, path: &Path) -> Result<u64, StoreError> {
    let mut done = Ok(0);
    // Linux reports a failed write once to each open file: SQLite's may still report one that has been made good, of the WAL
    // and of the database. What is moved is compared with the disk afterwards.
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

/// Compares the pages of the database that were moved out of the first `moved` frames with those frames, as the disk has
/// them, and writes again what differs: until the WAL is emptied, it has them.
fn check_moved(path: &Path, wal: &Path, moved: u64) -> Result<(), StoreError> {
    if moved == 0 {
        return Ok(());
    }
    let log = File::open(wal).map_err(StoreError::io(wal))?;
    let mut header = [0; HEADER];
    read(&log, wal, &mut header, 0)?;
    let page = Sum::of_header(&header).ok_or_else(|| lost(wal, 0))?.page;
    // Where each page's last frame is.
    let mut last = BTreeMap::new();
    for frame in 0..moved {
        let at = HEADER as u64 + frame * (FRAME_HEADER + page) as u64;
        let mut number = [0; 4];
        read(&log, wal, &mut number, at)?;
        last.insert(u32::from_be_bytes(number), at + FRAME_HEADER as u64);
    }
    let database = disk::open_for_good(path)?;
    let place = |number: u32| u64::from(number).saturating_sub(1) * page as u64;
    for &number in last.keys() {
        disk::drop_from_memory(&database, place(number), page);
    }
    let mut differ = Vec::new();
    let mut found = vec![0; page];
    for (number, at) in last {
        let mut bytes = vec![0; page];
        read(&log, wal, &mut bytes, at)?;
        let here = database.read_exact_at(&mut found, place(number));
        if here.is_err() || found != bytes {
            differ.push((place(number), bytes));
        }
    }
    if differ.is_empty() {
        return Ok(());
    }
    tracing::warn!(file = %path.display(), pages = differ.len(), "pages that the disk did not keep are written again");
    disk::write_anew(&database, path, &differ)
}

/// Moves the whole WAL into the database and empties it; false when a reader is in the way.
pub(super) fn checkpoint(connection: &Connection, path: &Path) -> Result<bool, StoreError> {
    let busy: Result<bool, _> = connection.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |row| row.get(0));
    match busy {
        Ok(busy) => Ok(!busy),
        Err(error) if error.sqlite_error_code() == Some(ErrorCode::DatabaseBusy) => Ok(false),
        Err(error) => Err(StoreError::sqlite(path)(error)),
    }
}

/// Moves the whole WAL into the database before the connection is closed; the last one then removes the WAL. The file is
/// whole without it: a failure is only logged, and the next start settles what is left.
pub(super) fn finish(connection: &Connection, path: &Path) {
    match checkpoint(connection, path) {
        Ok(true) => {
            // Of an empty WAL nothing is left to be moved.
            let _: rusqlite::Result<bool> =
                connection.set_db_config(DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, false);
        }
        Ok(false) => {
            tracing::info!(file = %path.display(), "a reader keeps the WAL from its last checkpoint");
        }
        Err(error) => tracing::warn!(%error, "no last checkpoint"),
    }
}

/// The same, and takes the file out of WAL mode, so that whoever may only read the folder can open it: in WAL mode SQLite
/// needs the files beside it. Whoever has it open keeps it in WAL mode, and the files beside it with that.
pub(super) fn finish_for_readers(connection: &Connection, path: &Path) {
    finish(connection, path);
    // Waits for nobody: there is nothing to be lost.
    let left = connection
        .busy_timeout(Duration::ZERO)
        .and_then(|()| connection.pragma_update_and_check(None, "journal_mode", "delete", |_| Ok(())));
    if let Err(error) = left {
        tracing::info!(file = %path.display(), %error, "the file stays in WAL mode: another process has it open");
    }
}

/// Enters WAL mode. A file that a clean stop took out of it may be being read, which keeps it out of it: that is waited for,
/// and the log says for whom.
///
/// # Errors
/// When it is read all the time, or WAL mode is not possible there.
pub(super) fn enter(connection: &Connection, path: &Path) -> Result<(), StoreError> {
    let mut waits = 0;
    loop {
        let entered =
            connection.pragma_update_and_check(None, "journal_mode", "wal", |row| row.get::<_, String>(0));
        let (code, text) = match entered.map_err(StoreError::sqlite(path)) {
            Ok(mode) if mode == "wal" => return Ok(()),
            Ok(mode) => (None, format!("journal_mode=wal is not possible here, only {mode}")),
            Err(error) if error.is_busy() => {
                let who = locks::named(&locks::holders(path, Against::Changing));
                if waits < ENTERING {
                    waits += 1;
                    tracing::warn!(file = %path.display(), who, "the file is read, and cannot be written before that ends");
                    continue;
                }
                (Some(ErrorCode::DatabaseBusy), format!("it is locked by {who}"))
            }
            Err(error) => return Err(error),
        };
        return Err(StoreError::new(path, Fault::Sqlite { code, text }));
    }
}

/// Begins a transaction that keeps others from writing; returns how many frames of the WAL are committed.
fn begin_at_last_frame(connection: &Connection, path: &Path) -> Result<u64, StoreError> {
    let sqlite = StoreError::sqlite(path);
    let version =
        || connection.pragma_query_value(None, "data_version", |row| row.get::<_, i64>(0)).map_err(sqlite);
    for _ in 0..ATTEMPTS {
        // The length cannot be read inside a transaction; the version shows whether it is still true.
        let before = version()?;
        let frames: i64 =
            connection.query_row("PRAGMA wal_checkpoint(NOOP)", [], |row| row.get(1)).map_err(sqlite)?;
        connection.execute_batch("BEGIN IMMEDIATE").map_err(sqlite)?;
        match version() {
            // Less than none: there is no WAL.
            Ok(now) if now == before => return Ok(u64::try_from(frames).unwrap_or(0)),
            Ok(_) => connection.execute_batch("ROLLBACK").map_err(sqlite)?,
            Err(error) => {
                // The first error is the one that counts.
                let _: rusqlite::Result<()> = connection.execute_batch("ROLLBACK");
                return Err(error);
            }
        }
    }
    let text = "another program writes into it all the time".to_owned();
    Err(StoreError::new(path, Fault::Sqlite { code: Some(ErrorCode::DatabaseBusy), text }))
}

/// Writes the first `frames` frames again, byte for byte, and syncs them; cuts off what follows them. The caller holds
/// SQLite's write lock. Not by rustix, whose system calls a preload of the tests does not see.
fn rewrite(wal: &Path, frames: u64) -> Result<(), StoreError> {
    let io = StoreError::io(wal);
    let file = match OpenOptions::new().read(true).write(true).open(wal) {
        Err(error) if error.kind() == io::ErrorKind::NotFound && frames == 0 => return Ok(()),
        opened => opened.map_err(io)?,
    };
    let length = file.metadata().map_err(io)?.len();
    if frames == 0 {
        // All of it is in the database, or was never committed; no reader has any of it.
        return if length > 0 { file.set_len(0).map_err(io) } else { Ok(()) };
    }
    let mut header = [0; HEADER];
    read(&file, wal, &mut header, 0)?;
    let mut sum = Sum::of_header(&header).ok_or_else(|| lost(wal, 0))?;
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
        // The header goes with the first frames, so that a block is written as a whole.
        let before = if done == 0 { HEADER } else { 0 };
        chunk.resize(before + count * size, 0);
        read(&file, wal, &mut chunk, at)?;
        for frame in chunk[before..].chunks_exact(size) {
            done += 1;
            if !sum.takes(frame) {
                return Err(lost(wal, done));
            }
        }
        disk::write_back(&file, wal, at, &chunk)?;
        at += chunk.len() as u64;
    }
    Ok(())
}

/// Reads all of `bytes`; an end before that is a lost frame.
fn read(file: &File, wal: &Path, bytes: &mut [u8], at: u64) -> Result<(), StoreError> {
    file.read_exact_at(bytes, at).map_err(|error| match error.kind() {
        io::ErrorKind::UnexpectedEof => lost(wal, 0),
        _ => StoreError::io(wal)(error),
    })
}

fn lost(wal: &Path, frame: u64) -> StoreError {
    StoreError::new(wal, Fault::WalLost { frame })
}

/// The running checksum of a WAL, as https://sqlite.org/fileformat2.html#walformat says.
struct Sum {
    big_endian: bool,
    page: usize,
    salt: [u8; 8],
    sum: [u32; 2],
}

impl Sum {
    /// None when the header is not one.
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

    /// Whether this is the frame that follows.
    fn takes(&mut self, frame: &[u8]) -> bool {
        let Some((header, page)) = frame.split_at_checked(FRAME_HEADER) else { return false };
        self.add(&header[..8]);
        self.add(page);
        let [first, second] = self.sum.map(u32::to_be_bytes);
        header[8..16] == self.salt && header[16..20] == first && header[20..24] == second
    }

    /// Adds bytes, whose count is a multiple of eight.
    fn add(&mut self, bytes: &[u8]) {
        let word = |bytes: [u8; 4]| match self.big_endian {
            true => u32::from_be_bytes(bytes),
            false => u32::from_le_bytes(bytes),
        };
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
mod tests {
    use rusqlite::OpenFlags;

    use super::super::schema::{self, Kind, Synchronous};
    use super::*;

    /// A database with a few commits in its WAL, and the WAL's path.
    fn begun(dir: &Path) -> (Connection, std::path::PathBuf, std::path::PathBuf) {
        let path = dir.join("state.db");
        let connection = schema::open(&path, Kind::State, Synchronous::Full).unwrap();
        for n in 0..5 {
            put(&connection, n);
        }
        let [_, wal, _] = database_files(&path);
        (connection, path, wal)
    }

    fn put(connection: &Connection, n: i64) {
        connection
            .execute("INSERT INTO spending (appid, day, leased) VALUES (?1, ?2, 0)", (n.to_string(), n))
            .unwrap();
    }

    fn days(path: &Path) -> Vec<i64> {
        let connection = Connection::open_with_flags(path, OpenFlags::SQLITE_OPEN_READ_ONLY).unwrap();
        let mut days = connection.prepare("SELECT day FROM spending ORDER BY day").unwrap();
        days.query_map([], |row| row.get(0)).unwrap().map(Result::unwrap).collect()
    }

    #[test]
    fn what_was_committed_is_in_the_database_afterwards() {
        let dir = tempfile::tempdir().unwrap();
        let (connection, path, wal) = begun(dir.path());
        assert!(wal.metadata().unwrap().len() > 0);
        settle(&connection, &path).unwrap();
        assert_eq!(wal.metadata().unwrap().len(), 0);
        // The file alone has it all.
        let copy = dir.path().join("copy.db");
        std::fs::copy(&path, &copy).unwrap();
        assert_eq!(days(&copy), [0, 1, 2, 3, 4]);
        put(&connection, 5);
        settle(&connection, &path).unwrap();
        assert_eq!(days(&path), [0, 1, 2, 3, 4, 5]);
    }

    #[test]
    fn with_a_reader_the_log_is_as_it_was_and_what_was_not_committed_is_cut_off() {
        let dir = tempfile::tempdir().unwrap();
        let (connection, path, wal) = begun(dir.path());
        let reader = Connection::open_with_flags(&path, OpenFlags::SQLITE_OPEN_READ_ONLY).unwrap();
        reader.execute_batch("BEGIN").unwrap();
        let seen: i64 = reader.query_row("SELECT count(*) FROM spending", [], |row| row.get(0)).unwrap();
        put(&connection, 5);
        let before = std::fs::read(&wal).unwrap();
        // A commit whose sync failed leaves whole frames behind the last committed one.
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
    fn a_frame_that_is_gone_is_an_error_and_a_start_recovers_what_stands_before_it() {
        let dir = tempfile::tempdir().unwrap();
        let (connection, path, wal) = begun(dir.path());
        // The pages of the last frames are zeros, as after an eviction.
        let length = wal.metadata().unwrap().len();
        let file = OpenOptions::new().write(true).open(&wal).unwrap();
        file.write_all_at(&[0; 2_000], length - 2_000).unwrap();
        let error = settle(&connection, &path).unwrap_err();
        assert!(matches!(error.fault(), Fault::WalLost { frame } if *frame > 0), "{error}");
        assert_eq!(wal.metadata().unwrap().len(), length, "nothing was moved");
        assert!(connection.is_autocommit());
        // As a crash leaves it: nothing of the memory that connections share.
        let copy = dir.path().join("copy.db");
        for (from, to) in database_files(&path).iter().zip(database_files(&copy)).take(2) {
            std::fs::copy(from, to).unwrap();
        }
        drop(schema::open(&copy, Kind::State, Synchronous::Full).unwrap());
        assert_eq!(days(&copy), [0, 1, 2, 3]);
    }

    #[test]
    fn opening_leaves_no_log_that_it_found() {
        let dir = tempfile::tempdir().unwrap();
        let (connection, path, wal) = begun(dir.path());
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
        let (connection, path, wal) = begun(dir.path());
        connection.pragma_update(None, "synchronous", "off").unwrap();
        for n in 5..3_000 {
            put(&connection, n);
        }
        assert!(wal.metadata().unwrap().len() < 2_000 * 4_120, "{}", wal.metadata().unwrap().len());
        assert_eq!(days(&path).len(), 3_000);
    }

    #[test]
    fn a_file_is_left_out_of_wal_mode_unless_somebody_has_it_open_and_enters_it_again() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("cache.db");
        let mode = || std::fs::read(&path).unwrap()[18];
        let open = || schema::open(&path, schema::Kind::Cache, schema::Synchronous::Full).unwrap();
        let connection = open();
        let reader = schema::open_read_only(&path, schema::Kind::Cache).unwrap();
        finish_for_readers(&connection, &path);
        assert_eq!(mode(), 2, "the reader goes on");
        drop(reader);
        finish_for_readers(&connection, &path);
        drop(connection);
        assert_eq!((mode(), std::fs::read_dir(dir.path()).unwrap().count()), (1, 1));
        drop(open());
        assert_eq!(mode(), 2);
    }
}
