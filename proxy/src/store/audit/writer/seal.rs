//! Seals segments that have ended: indexes them to their last row, checkpoints them, takes them out of WAL mode and makes
//! them read-only.
//!
//! A thread of its own does this, so a month rolls without a pause. A sealed segment is never opened for writing again,
//! whatever schema later versions have.

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::thread::JoinHandle;

use rusqlite::Connection;

use crate::store::audit::Options;
use crate::store::audit::index::Index;
use crate::store::audit::log::link;
use crate::store::audit::log::month::{self, Month};
use crate::store::{Fault, StoreError, wal};

/// The thread that seals, while it runs.
#[derive(Default)]
pub(crate) struct Sealer(Option<JoinHandle<()>>);

impl Sealer {
    /// Starts to seal the unsealed segments before `month`, unless the thread is still running. Logs failures; the next
    /// call tries again: a reader that has a segment open prevents its sealing.
    pub(crate) fn start(&mut self, dir: &Path, month: Month, options: Options) {
        if self.0.as_ref().is_some_and(|thread| !thread.is_finished()) {
            return;
        }
        let ended: Vec<PathBuf> = month::list(dir)
            .unwrap_or_default()
            .into_iter()
            .filter(|&earlier| earlier < month)
            .map(|earlier| earlier.path(dir))
            .filter(|path| !is_sealed(path))
            .collect();
        if ended.is_empty() {
            return;
        }
        let seal_all = move || {
            for path in ended {
                if let Err(error) = seal(&path, &options) {
                    tracing::warn!(%error, "a segment that has ended is not sealed yet");
                }
            }
        };
        match std::thread::Builder::new().name("audit-sealer".into()).spawn(seal_all) {
            Ok(thread) => self.0 = Some(thread),
            Err(error) => tracing::warn!(%error, "a segment that has ended is not sealed yet"),
        }
    }

    /// Waits for the thread: less than a block is left to index, which takes about a second.
    pub(crate) fn finish(self) {
        if let Some(thread) = self.0
            && thread.join().is_err()
        {
            tracing::error!("the thread that seals segments panicked");
        }
    }
}

/// A file whose state cannot be read counts as sealed: sealing would fail too.
fn is_sealed(path: &Path) -> bool {
    fs::metadata(path).map_or(true, |found| found.permissions().mode() & 0o222 == 0)
}

fn seal(path: &Path, options: &Options) -> Result<(), StoreError> {
    let io = StoreError::io(path);
    let mode = fs::metadata(path).map_err(io)?.permissions().mode();
    let sqlite = StoreError::sqlite(path);
    let mut connection = Connection::open(path).map_err(sqlite)?;
    wal::configure_checkpoints(&mut connection).map_err(sqlite)?;
    wal::settle(&connection, path)?;
    // The checkpoint syncs everything.
    connection.pragma_update(None, "synchronous", "normal").map_err(sqlite)?;
    if let Some(head) = link::head(&connection).map_err(sqlite)? {
        let index = Index::open(&connection, head.last, options.run, options.block).map_err(sqlite)?;
        index.complete(&mut connection, head.last).map_err(sqlite)?;
    }
    if !wal::checkpoint(&connection, path)? {
        tracing::info!(file = %path.display(), "a reader keeps the WAL from its last checkpoint");
    }
    let mode_now: String = connection
        .pragma_update_and_check(None, "journal_mode", "delete", |row| row.get(0))
        .map_err(sqlite)?;
    drop(connection);
    if mode_now != "delete" {
        let text = format!("journal_mode stays {mode_now}");
        return Err(StoreError::new(path, Fault::Sqlite { code: None, text }));
    }
    fs::set_permissions(path, Permissions::from_mode(mode & 0o440)).map_err(io)
}
