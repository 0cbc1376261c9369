//! The segment that is being written: opened or begun, appended to, indexed after the commit.
//!
//! A new segment links the one before: see [`chain`](crate::store::audit::log::chain). Cards are indexed after the askers were told: see
//! [`index`](crate::store::audit::index). A segment that is over is closed here and sealed elsewhere: see [`seal`](crate::store::audit::writer::seal).

use std::fs::{self, OpenOptions, Permissions};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::time::Duration;

use rusqlite::{Connection, ErrorCode, Transaction, TransactionBehavior};

use crate::alarms::{Alarms, Condition};
use crate::store::audit::index::Index;
use crate::store::audit::log::append::{Names, append};
use crate::store::audit::log::identity::IdentityKey;
use crate::store::audit::log::link::{self, ClosedSegment, Head};
use crate::store::audit::log::month::Month;
use crate::store::audit::log::row::Row;
use crate::store::audit::log::segment_identity::SegmentIdentity;
use crate::store::audit::{Identifiers, Options};
use crate::store::locks::{self, BlockedOperation};
use crate::store::schema::{self, Kind, Synchronous};
use crate::store::{Fault, StoreError, files, folder, wal};

/// An open segment.
pub(crate) struct Segment {
    pub(crate) connection: Connection,
    pub(crate) month: Month,
    path: PathBuf,
    synchronous: Synchronous,
    names: Names,
    key: Option<IdentityKey>,
    head: Head,
    /// Where its files were when they were opened.
    place: SegmentIdentity,
    /// How many rows the last commit had.
    committed: i64,
    index: Index,
    /// Why a checkpoint failed after the last commit, which was made.
    checkpoint_failed: Option<StoreError>,
    /// Where it says that another process keeps it from writing.
    pub(crate) alarms: Option<Alarms>,
}

impl Segment {
    /// Opens a month's segment, or begins it: after the one before, or after one that is no longer there.
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
        let connection = schema::open(&path, Kind::Audit, synchronous)?;
        connection.busy_timeout(NAMED_AFTER).map_err(sqlite)?;
        let key = match options.identifiers {
            Identifiers::Plain => None,
            Identifiers::Keyed => {
                Some(IdentityKey::ensure(dir, month, || link::uses_key(&connection, &path))?)
            }
        };
        link::begin(&connection, dir, month, after)?;
        let head = link::head(&connection).map_err(sqlite)?;
        let head = head.ok_or_else(|| StoreError::new(&path, Fault::Malformed { value: "segment" }))?;
        let names = connection
            .prepare("SELECT text, id FROM name")
            .and_then(|mut all| all.query_map([], |row| Ok((row.get(0)?, row.get(1)?)))?.collect())
            .map_err(sqlite)?;
        let index = Index::open(&connection, head.last, options.run, options.block).map_err(sqlite)?;
        let place = SegmentIdentity::of(&path)?;
        Ok(Self {
            connection,
            month,
            path,
            synchronous,
            names,
            key,
            head,
            place,
            committed: 0,
            index,
            checkpoint_failed: None,
            alarms: None,
        })
    }

    /// How far it has got.
    pub(crate) fn head(&self) -> Head {
        self.head
    }

    /// Appends rows, of which there is at least one, in one transaction. It takes along the step of the index for which
    /// there was no leisure before: that spares the step a transaction of its own. After an error the segment is to be
    /// opened anew.
    pub(crate) fn commit<'a>(
        &mut self,
        rows: impl Iterator<Item = &'a Row> + Clone,
    ) -> Result<(), StoreError> {
        let sqlite = StoreError::sqlite(&self.path);
        let batch = begin_batch(&self.connection, &self.path, self.alarms.as_ref())?;
        if self.index.is_behind(self.head.last) {
            self.index.step(&batch, self.head.last, self.committed).map_err(sqlite)?;
        }
        let index = &mut self.index;
        let head = append(&batch, &mut self.names, self.key.as_ref(), self.head, rows, |card, id| {
            index.note(card, id);
        })
        .map_err(sqlite)?;
        if let Err(error) = batch.commit().map_err(sqlite) {
            // A checkpoint that fails is reported by the commit before it, which was made.
            if link::head(&self.connection).ok().flatten() != Some(head) {
                return Err(error);
            }
            self.checkpoint_failed = Some(error);
        }
        self.committed = head.last - self.head.last;
        self.head = head;
        Ok(())
    }

    /// Whether there is a step of the index to be made.
    pub(crate) fn index_is_behind(&self) -> bool {
        self.index.is_behind(self.head.last)
    }

    /// Makes one step of the index by itself. Not synced: a step that is lost is made again. After an error the segment is
    /// to be opened anew.
    pub(crate) fn index(&mut self) -> Result<(), StoreError> {
        let sqlite = StoreError::sqlite(&self.path);
        let waits = self.synchronous == Synchronous::Full;
        if waits {
            self.connection.pragma_update(None, "synchronous", Synchronous::Normal.name()).map_err(sqlite)?;
        }
        let step = begin_batch(&self.connection, &self.path, self.alarms.as_ref())?;
        self.index
            .step(&step, self.head.last, self.committed)
            .and_then(|()| step.commit())
            .map_err(sqlite)?;
        if waits {
            self.connection.pragma_update(None, "synchronous", self.synchronous.name()).map_err(sqlite)?;
        }
        Ok(())
    }

    /// Commits nothing, to learn whether a commit works.
    pub(crate) fn probe(&mut self) -> Result<(), StoreError> {
        let sqlite = StoreError::sqlite(&self.path);
        let probe = begin_batch(&self.connection, &self.path, self.alarms.as_ref())?;
        schema::touch(&probe).map_err(sqlite)?;
        probe.commit().map_err(sqlite)
    }

    /// Syncs the WAL where commits do not: an anchor names only rows that the disk has.
    pub(crate) fn sync(&self) -> Result<(), StoreError> {
        let [_, wal, _] = files::database_files(&self.path);
        match self.synchronous {
            Synchronous::Full => Ok(()),
            Synchronous::Normal => match fs::File::open(&wal) {
                Ok(file) => file.sync_data().map_err(StoreError::io(&wal)),
                // A checkpoint moved it into the database, and synced that.
                Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(()),
                Err(error) => Err(StoreError::io(&wal)(error)),
            },
        }
    }

    /// Why a checkpoint failed since this was last asked.
    pub(crate) fn checkpoint_failure(&mut self) -> Option<StoreError> {
        self.checkpoint_failed.take()
    }

    /// Makes what the WAL holds durable after a failure; see [`wal`]. The segment is to be opened anew.
    pub(crate) fn settle(&self) -> Result<(), StoreError> {
        wal::settle(&self.connection, &self.path)
    }

    /// Whether its files are still at its path.
    pub(crate) fn is_in_place(&self) -> Result<bool, StoreError> {
        Ok(SegmentIdentity::of(&self.path)? == self.place)
    }

    /// Moves into the database, wherever that is by now, what is only in the WAL. Nothing is removed.
    pub(crate) fn checkpoint(&self) {
        if let Err(error) = wal::checkpoint(&self.connection, &self.path) {
            tracing::warn!(%error, "the segment that is no longer at its path was not checkpointed");
        }
    }

    /// Closes it without moving anything, and says what is known of it.
    pub(crate) fn leave(self) -> ClosedSegment {
        ClosedSegment {
            month: self.month,
            head: self.head,
            previous: link::previous(&self.connection).ok().flatten(),
            manifest: link::manifest(&self.connection).ok().flatten(),
            place: self.place,
            begun: None,
        }
    }

    /// Moves the WAL into the file; it will be opened again.
    pub(crate) fn close(self) {
        wal::finish(&self.connection, &self.path);
    }

    /// The same at a stop: auditors read the file as it is until the next start.
    pub(crate) fn close_for_readers(self) {
        wal::finish_for_readers(&self.connection, &self.path);
    }

    /// How long the WAL is, in bytes.
    pub(crate) fn wal_bytes(&self) -> u64 {
        let [_, wal, _] = files::database_files(&self.path);
        fs::metadata(wal).map_or(0, |wal| wal.len())
    }
}

/// Begins a transaction. Who holds it up for longer than [`NAMED_AFTER`] is named while it is waited for.
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
                let who = locks::describe(&locks::holders(path, BlockedOperation::Commit));
                if let Some(alarms) = alarms {
                    let text = format!(
                        "{who} holds a lock, and no record can be written: end it, and let nobody into audit_group who is not trusted"
                    );
                    alarms.raise(Condition::AuditLocked, text);
                }
                if waits >= WAITS {
                    let text = format!("it is locked by {who}");
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

/// How long another process may hold up a commit before it is named, and how often that is waited before it fails.
const NAMED_AFTER: Duration = Duration::from_secs(1);
const WAITS: u32 = 5;

/// Creates the file with the mode and group that its -wal and -shm take over.
fn create(path: &Path, options: &Options) -> Result<(), StoreError> {
    let io = StoreError::io(path);
    let (group, mode) = (options.group, options.mode());
    match OpenOptions::new().write(true).create_new(true).mode(mode).open(path) {
        Ok(file) => {
            if group.is_some() {
                // The umask may have taken the group's bit.
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
