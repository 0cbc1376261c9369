//! Checkpoints of a busy WAL on a thread of its own, so that no commit waits for them.
//!
//! A checkpoint writes some hundred pages into the database and syncs it. The thread does that in parallel with the commits,
//! through a connection of its own. A WAL is written from its start again only after all of its frames were moved, and while
//! commits go on the thread never moves the last ones: when the WAL is long and few frames remain, the commit moves these.

use std::path::Path;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;

use rusqlite::config::DbConfig;
use rusqlite::hooks::Wal;
use rusqlite::{Connection, ErrorCode, OpenFlags};

use super::StoreError;
use super::wal::{CHECKPOINT_FRAMES, checkpoint_after_commit};

/// Frames of a WAL that is to be written from its start again.
const LONG: i32 = 4 * CHECKPOINT_FRAMES;

/// Frames that a commit moves at most: a few commits' worth.
const REST: i32 = 128;

/// Frames after which a commit waits for the thread, which is too slow, and moves the rest however long.
const LONGEST: i32 = 16 * CHECKPOINT_FRAMES;

/// The thread and its connection, until [`Checkpointer::stop`].
pub(super) struct Checkpointer {
    shared: Arc<Shared>,
    thread: Mutex<Option<JoinHandle<()>>>,
}

struct Shared {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Default)]
struct State {
    /// Frames of the WAL at the last commit, and those of them that the thread has moved.
    frames: i32,
    moved: i32,
    /// The number of times that the WAL was written from its start again.
    lap: u64,
    /// Whether the thread has a checkpoint to make, or is making it.
    is_wanted: bool,
    is_stopped: bool,
    failure: Option<StoreError>,
}

impl Checkpointer {
    /// Starts the thread for a database in WAL mode. Commits of `connection` then leave checkpoints to it.
    ///
    /// # Errors
    /// When the thread or its connection cannot be opened.
    pub(super) fn start(connection: &mut Connection, path: &Path) -> Result<Self, StoreError> {
        let sqlite = StoreError::sqlite(path);
        let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
        let own = Connection::open_with_flags(path, flags).map_err(sqlite)?;
        own.set_db_config(DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, true).map_err(sqlite)?;
        let shared = Arc::new(Shared { state: Mutex::default(), changed: Condvar::new() });
        let committed = Arc::clone(&shared);
        connection
            .wal_hook(Some(move |wal: &mut Wal, frames| committed.after_commit(wal, frames)))
            .map_err(sqlite)?;
        let (checkpoints, of) = (Arc::clone(&shared), path.to_owned());
        let thread = std::thread::Builder::new()
            .name("checkpoints".into())
            .spawn(move || checkpoints.run(&own, &of))
            .map_err(StoreError::io(path))?;
        Ok(Self { shared, thread: Mutex::new(Some(thread)) })
    }

    /// Takes the failure of the thread's last checkpoint.
    pub(super) fn failure(&self) -> Option<StoreError> {
        self.shared.lock().failure.take()
    }

    /// Ends the thread and closes its connection, before the WAL is settled or the database is closed. Commits then make the
    /// checkpoints themselves.
    pub(super) fn stop(&self) {
        self.shared.stop();
        let thread = self.thread.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(thread) = thread
            && thread.join().is_err()
        {
            tracing::error!("the thread of the audit's checkpoints panicked");
        }
    }
}

impl Drop for Checkpointer {
    fn drop(&mut self) {
        self.stop();
    }
}

impl Shared {
    /// After a commit: requests a checkpoint, or makes it if little is left.
    fn after_commit(&self, wal: &mut Wal, frames: i32) -> rusqlite::Result<()> {
        let mut state = self.lock();
        if frames < state.frames {
            (state.moved, state.lap) = (0, state.lap + 1);
        }
        state.frames = frames;
        while frames >= LONGEST && state.is_wanted && !state.is_stopped {
            state = self.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
        let rest = frames - state.moved;
        let is_for_commit = match frames {
            LONGEST.. => true,
            LONG.. => rest <= REST,
            _ => false,
        };
        if is_for_commit || state.is_stopped {
            drop(state);
            return checkpoint_after_commit(wal, frames);
        }
        if rest >= CHECKPOINT_FRAMES && !state.is_wanted {
            state.is_wanted = true;
            drop(state);
            self.changed.notify_all();
        }
        Ok(())
    }

    /// The thread.
    fn run(&self, connection: &Connection, path: &Path) {
        // Also in a panic: no commit waits for a thread that has ended.
        let _ended = StopOnDrop(self);
        let mut state = self.lock();
        loop {
            while !state.is_wanted && !state.is_stopped {
                state = self.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
            }
            if state.is_stopped {
                return;
            }
            let lap = state.lap;
            drop(state);
            // The pages of a passive checkpoint are written while other connections commit and read.
            let moved: rusqlite::Result<i32> =
                connection.query_row("PRAGMA wal_checkpoint(PASSIVE)", [], |row| row.get(2));
            state = self.lock();
            state.is_wanted = false;
            self.changed.notify_all();
            match moved {
                // Less than before, if a commit was moving the rest.
                Ok(moved) if lap == state.lap => state.moved = state.moved.max(moved),
                Ok(_) => {}
                Err(error) if error.sqlite_error_code() == Some(ErrorCode::DatabaseBusy) => {}
                Err(error) => state.failure = Some(StoreError::sqlite(path)(error)),
            }
        }
    }

    fn stop(&self) {
        self.lock().is_stopped = true;
        self.changed.notify_all();
    }

    /// A poisoned lock is no error: no code that can panic runs under it.
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Leaves the checkpoints to the commits when it is dropped.
struct StopOnDrop<'a>(&'a Shared);

impl Drop for StopOnDrop<'_> {
    fn drop(&mut self) {
        self.0.stop();
    }
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use super::super::files::database_files;
    use super::super::schema::{self, Kind, Synchronous};
    use super::super::wal;
    use super::super::wal::tests::{days, put};
    use super::*;

    /// A database whose commits wait for no disk, its path, and its thread.
    fn database(dir: &Path) -> (Connection, PathBuf, Checkpointer) {
        let path = dir.join("state.db");
        let mut connection = schema::open(&path, Kind::State, Synchronous::Full).unwrap();
        connection.pragma_update(None, "synchronous", "off").unwrap();
        let checkpointer = Checkpointer::start(&mut connection, &path).unwrap();
        (connection, path, checkpointer)
    }

    #[test]
    fn commits_and_the_thread_together_keep_the_log_short_and_move_every_row() {
        let dir = tempfile::tempdir().unwrap();
        let (connection, path, checkpointer) = database(dir.path());
        let [_, wal_file, _] = database_files(&path);
        let mut laps = 0;
        for n in 0..60_000 {
            put(&connection, n);
            let state = checkpointer.shared.lock();
            laps = state.lap;
            assert!(state.frames < LONGEST + 100, "{} frames after row {n}", state.frames);
        }
        assert!(laps > 0, "the log was never written from its start again");
        let length = i32::try_from(wal_file.metadata().unwrap().len() / 4_120).unwrap();
        assert!(length < LONGEST + 100, "{length} frames");
        checkpointer.stop();
        assert!(checkpointer.failure().is_none());
        assert!(wal::checkpoint(&connection, &path).unwrap(), "nothing holds the log any more");
        // The database alone has every row.
        let copy = dir.path().join("copy.db");
        std::fs::copy(&path, &copy).unwrap();
        assert_eq!(days(&copy).len(), 60_000);
    }

    #[test]
    fn a_stopped_thread_leaves_the_checkpoints_to_the_commits() {
        let dir = tempfile::tempdir().unwrap();
        let (connection, path, checkpointer) = database(dir.path());
        checkpointer.stop();
        let [_, wal_file, _] = database_files(&path);
        (0..3_000).for_each(|n| put(&connection, n));
        assert!(wal_file.metadata().unwrap().len() < 2_000 * 4_120);
    }
}
