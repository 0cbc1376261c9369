//! The current segment: opened or created, appended to, indexed after the commit.
//!
//! A new segment links the one before ([`link`]). Cards are indexed after the waiters were notified
//! ([`index`](crate::store::audit::index)). A segment that has ended is closed here and sealed by [`seal`](super::seal).

use std::fs::{self, OpenOptions, Permissions};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::time::Duration;

use rusqlite::{Connection, ErrorCode, Transaction, TransactionBehavior};

use crate::alarms::{Alarms, Condition};
use crate::language::{Text, text};
use crate::store::audit::index::Index;
use crate::store::audit::log::append::{Names, append};
use crate::store::audit::log::identity::IdentityKey;
use crate::store::audit::log::link::{self, ClosedSegment, Head};
use crate::store::audit::log::month::Month;
use crate::store::audit::log::row::Row;
use crate::store::audit::log::segment_identity::SegmentIdentity;
use crate::store::audit::{Identifiers, Options};
use crate::store::checkpoint::Checkpointer;
use crate::store::locks::{self, BlockedOperation};
use crate::store::schema::{self, Kind, Synchronous};
use crate::store::{Fault, StoreError, files, folder, wal};

pub(crate) struct Segment {
    /// Stopped before the connection is closed.
    checkpointer: Checkpointer,
    pub(crate) connection: Connection,
    pub(crate) month: Month,
    /// The version of its schema and of its new rows.
    version: i64,
    path: PathBuf,
    synchronous: Synchronous,
    names: Names,
    key: Option<IdentityKey>,
    head: Head,
    /// The identity of its files when they were opened.
    identity: SegmentIdentity,
    /// The number of rows in the last commit.
    committed: i64,
    index: Index,
    /// The failure of a checkpoint after the last commit, which was made.
    checkpoint_failed: Option<StoreError>,
    /// Raised while another process prevents writing.
    pub(crate) alarms: Option<Alarms>,
}

impl Segment {
    /// Opens a month's segment, or creates it: after the one before, or after a closed one that is missing.
    pub(crate) fn open(
        dir: &Path,
        month: Month,
        options: &Options,
        after: Option<&ClosedSegment>,
    ) -> Result<Self, StoreError> {
        let path = month.path(dir);
        let sqlite = StoreError::sqlite(&path);
        let synchronous = options.durability.synchronous();
        create(&path, options)?;
        let mut connection = schema::open(&path, Kind::Audit, synchronous)?;
        connection.busy_timeout(NAMED_AFTER).map_err(sqlite)?;
        let key = match options.identifiers {
            Identifiers::Plain => None,
            Identifiers::Keyed => {
                Some(IdentityKey::ensure(dir, month, || link::uses_key(&connection, &path))?)
            }
        };
        let version = schema::version_of(&connection).map_err(sqlite)?;
        link::begin(&connection, dir, month, after)?;
        let head = link::head(&connection).map_err(sqlite)?;
        let head = head.ok_or_else(|| StoreError::new(&path, Fault::Malformed { value: "segment" }))?;
        let names = connection
            .prepare("SELECT text, id FROM name")
            .and_then(|mut all| all.query_map([], |row| Ok((row.get(0)?, row.get(1)?)))?.collect())
            .map_err(sqlite)?;
        let index = Index::open(&connection, head.last, options.run, options.block).map_err(sqlite)?;
        let identity = SegmentIdentity::of(&path)?;
        let checkpointer = Checkpointer::start(&mut connection, &path)?;
        Ok(Self {
            checkpointer,
            connection,
            month,
            version,
            path,
            synchronous,
            names,
            key,
            head,
            identity,
            committed: 0,
            index,
            checkpoint_failed: None,
            alarms: None,
        })
    }

    pub(crate) fn head(&self) -> Head {
        self.head
    }

    /// Appends rows (at least one) in one transaction. Also makes one pending index step, which saves it a transaction of
    /// its own. After an error the segment must be opened again.
    pub(crate) fn commit<'a>(
        &mut self,
        rows: impl Iterator<Item = &'a Row> + Clone,
    ) -> Result<(), StoreError> {
        let sqlite = StoreError::sqlite(&self.path);
        let batch = begin_batch(&self.connection, &self.path, self.alarms.as_ref())?;
        if self.index.is_pending(self.head.last) {
            self.index.step(&batch, self.head.last, self.committed).map_err(sqlite)?;
        }
        let (index, key) = (&mut self.index, self.key.as_ref());
        let head = append(&batch, &mut self.names, key, self.version, self.head, rows, |card, id| {
            index.note(card, id);
        })
        .map_err(sqlite)?;
        if let Err(error) = batch.commit().map_err(sqlite) {
            // A commit that was made reports the failure of its checkpoint.
            if link::head(&self.connection).ok().flatten() != Some(head) {
                return Err(error);
            }
            self.checkpoint_failed = Some(error);
        }
        self.committed = head.last - self.head.last;
        self.head = head;
        Ok(())
    }

    /// Whether an index step is pending.
    pub(crate) fn index_is_pending(&self) -> bool {
        self.index.is_pending(self.head.last)
    }

    /// Makes one index step in a transaction of its own. Not synced: a lost step is made again. After an error the segment
    /// must be opened again.
    pub(crate) fn index(&mut self) -> Result<(), StoreError> {
        let sqlite = StoreError::sqlite(&self.path);
        let syncs = self.synchronous == Synchronous::Full;
        if syncs {
            self.connection.pragma_update(None, "synchronous", Synchronous::Normal.name()).map_err(sqlite)?;
        }
        let step = begin_batch(&self.connection, &self.path, self.alarms.as_ref())?;
        self.index
            .step(&step, self.head.last, self.committed)
            .and_then(|()| step.commit())
            .map_err(sqlite)?;
        if syncs {
            self.connection.pragma_update(None, "synchronous", self.synchronous.name()).map_err(sqlite)?;
        }
        Ok(())
    }

    /// Commits a transaction without rows, to test whether a commit works.
    pub(crate) fn probe(&mut self) -> Result<(), StoreError> {
        let sqlite = StoreError::sqlite(&self.path);
        let probe = begin_batch(&self.connection, &self.path, self.alarms.as_ref())?;
        schema::touch(&probe).map_err(sqlite)?;
        probe.commit().map_err(sqlite)
    }

    /// Syncs the WAL if commits do not: an anchor names only rows that the disk has.
    pub(crate) fn sync(&self) -> Result<(), StoreError> {
        let [_, wal, _] = files::database_files(&self.path);
        match self.synchronous {
            Synchronous::Full => Ok(()),
            Synchronous::Normal => match fs::File::open(&wal) {
                Ok(file) => file.sync_data().map_err(StoreError::io(&wal)),
                // A checkpoint moved it into the database and synced that.
                Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(()),
                Err(error) => Err(StoreError::io(&wal)(error)),
            },
        }
    }

    /// Takes the failure of a checkpoint.
    pub(crate) fn checkpoint_failure(&mut self) -> Option<StoreError> {
        self.checkpoint_failed.take().or_else(|| self.checkpointer.failure())
    }

    /// Makes the WAL durable after a failure; see [`wal`]. The segment must be opened again.
    pub(crate) fn settle(&self) -> Result<(), StoreError> {
        self.checkpointer.stop();
        wal::settle(&self.connection, &self.path)
    }

    /// Whether its files are still at its path.
    pub(crate) fn is_in_place(&self) -> Result<bool, StoreError> {
        Ok(SegmentIdentity::of(&self.path)? == self.identity)
    }

    /// Checkpoints the database, wherever it is by now. Removes nothing.
    pub(crate) fn checkpoint(&self) {
        self.checkpointer.stop();
        if let Err(error) = wal::checkpoint(&self.connection, &self.path) {
            tracing::warn!(%error, "the segment that is no longer at its path was not checkpointed");
        }
    }

    /// Closes it without a checkpoint.
    pub(crate) fn leave(self) -> ClosedSegment {
        ClosedSegment {
            month: self.month,
            head: self.head,
            previous: link::previous(&self.connection).ok().flatten(),
            manifest: link::manifest(&self.connection).ok().flatten(),
            identity: self.identity,
            successor: None,
        }
    }

    /// Checkpoints and closes it; it is sealed later.
    pub(crate) fn close(self) -> ClosedSegment {
        self.checkpointer.stop();
        wal::finish(&self.connection, &self.path);
        self.leave()
    }

    /// Closes it at a stop: auditors read the file as it is until the next start.
    pub(crate) fn close_for_readers(self) {
        self.checkpointer.stop();
        wal::finish_for_readers(&self.connection, &self.path);
    }

    pub(crate) fn wal_bytes(&self) -> u64 {
        let [_, wal, _] = files::database_files(&self.path);
        fs::metadata(wal).map_or(0, |wal| wal.len())
    }
}

/// Begins a transaction. A process that blocks it for longer than [`NAMED_AFTER`] is named while this waits.
fn begin_batch<'c>(
    connection: &'c Connection,
    path: &Path,
    alarms: Option<&Alarms>,
) -> Result<Transaction<'c>, StoreError> {
    let mut waits = 1;
    loop {
        match Transaction::new_unchecked(connection, TransactionBehavior::Immediate) {
            Ok(batch) => {
                if let Some(alarms) = alarms.filter(|_| waits > 1) {
                    alarms.clear(Condition::AuditLocked);
                }
                return Ok(batch);
            }
            Err(error) => {
                let error = StoreError::sqlite(path)(error);
                if !error.is_busy() {
                    return Err(error);
                }
                let holder = locks::describe(&locks::holders(path, BlockedOperation::Commit));
                if let Some(alarms) = alarms {
                    let Text { english, chinese } = &holder;
                    let text = text!(
                        "{english} holds a lock, and no record can be written: end it, and let only trusted users into audit_group",
                        "{chinese}持有锁，无法写入任何记录：请结束该进程，并只让可信用户加入 audit_group"
                    );
                    alarms.raise(Condition::AuditLocked, text);
                }
                if waits >= WAITS {
                    let text = format!("it is locked by {holder}");
                    return Err(StoreError::new(
                        path,
                        Fault::Sqlite { code: Some(ErrorCode::DatabaseBusy), text },
                    ));
                }
                waits += 1;
            }
        }
    }
}

/// The time that another process may block a commit before it is named, and the number of these waits before the commit
/// fails.
const NAMED_AFTER: Duration = Duration::from_secs(1);
const WAITS: u32 = 5;

/// Creates the file with the mode and group that its -wal and -shm take over.
fn create(path: &Path, options: &Options) -> Result<(), StoreError> {
    let io = StoreError::io(path);
    let (group, mode) = (options.group, options.mode());
    match OpenOptions::new().write(true).create_new(true).mode(mode).open(path) {
        Ok(file) => {
            if group.is_some() {
                // The umask may have removed the group's bit.
                file.set_permissions(Permissions::from_mode(mode)).map_err(io)?;
            }
            if let Some(group) = group {
                folder::give_to_group(&file, path, group)?;
            }
            Ok(())
        }
        Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => Ok(()),
        Err(error) => Err(io(error)),
    }
}
