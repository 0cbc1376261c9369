//! Seals segments that are over: indexed to their last row, checkpointed, out of WAL mode, read-only.
//!
//! In a thread of its own: a month rolls without a pause. A sealed segment is never opened for writing again, whatever
//! schema later versions bring.

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

/// Seals what is over, one thread at a time.
#[derive(Default)]
pub(crate) struct Sealer(Option<JoinHandle<()>>);

impl Sealer {
    /// Begins to seal the segments before `month` that are not sealed, unless it is still at it. What fails is logged,
    /// and tried again at the next call: a reader that has a segment open keeps it from being sealed.
    pub(crate) fn begin(&mut self, dir: &Path, month: Month, options: Options) {
        if self.0.as_ref().is_some_and(|thread| !thread.is_finished()) {
            return;
        }
        let over: Vec<PathBuf> = month::list(dir)
            .unwrap_or_default()
            .into_iter()
            .filter(|&earlier| earlier < month)
            .map(|earlier| earlier.path(dir))
            .filter(|path| !is_sealed(path))
            .collect();
        if over.is_empty() {
            return;
        }
        let seal_all = move || {
            for path in over {
                if let Err(error) = seal(&path, &options) {
                    tracing::warn!(%error, "a segment that is over is not sealed yet");
                }
            }
        };
        match std::thread::Builder::new().name("audit-sealer".into()).spawn(seal_all) {
            Ok(thread) => self.0 = Some(thread),
            Err(error) => tracing::warn!(%error, "a segment that is over is not sealed yet"),
        }
    }

    /// Waits for what is under way: less than a block is left to be indexed, which takes about a second.
    pub(crate) fn finish(self) {
        if let Some(thread) = self.0
            && thread.join().is_err()
        {
            tracing::error!("the thread that seals segments panicked");
        }
    }
}

/// What cannot be looked at counts as sealed: there is nothing to be done about it.
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
    // The checkpoint syncs it all.
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
