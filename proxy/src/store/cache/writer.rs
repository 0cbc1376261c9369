//! The one thread that writes `cache.db`: everything that has come is one transaction; between two, a step of retention.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use cmiot_signer::Card;
use rusqlite::{Connection, TransactionBehavior, named_params};
use tokio::sync::oneshot;

use super::super::queue::Received;
use super::super::schema::{self, Kind, Synchronous};
use super::super::{StoreError, files, wal};
use super::retention::Keeper;
use super::{CacheRow, Selection, Shared};
use crate::clock::Time;

/// Under which an answer is stored.
pub(super) struct Key {
    pub(super) group: Arc<str>,
    pub(super) operation: Arc<str>,
    pub(super) card: Card,
}

/// One thing to be done, and whom to tell.
pub(super) enum Write {
    /// A row, and the moment after which a row that is there was answered in the future.
    Save(Box<CacheRow>, Time),
    Remove(Key, oneshot::Sender<Result<u64, StoreError>>),
    RemoveWhere(Selection, oneshot::Sender<Result<u64, StoreError>>),
    MarkWhere(Selection, oneshot::Sender<Result<u64, StoreError>>),
    Flush(oneshot::Sender<Result<(), StoreError>>),
    /// A reader found the file of this age corrupt.
    BeginAnew(u64, StoreError),
}

pub(super) struct Writer {
    shared: Arc<Shared>,
    /// None after a failure; opened again for the next batch.
    connection: Option<Connection>,
    keeper: Keeper,
    /// Whether the last batch failed: a failure is logged when it begins and when it ends.
    failing: bool,
}

/// Opens the file, and begins it anew if it is corrupt.
pub(super) fn open(path: &Path) -> Result<Connection, StoreError> {
    let opened = match schema::open(path, Kind::Cache, Synchronous::Normal) {
        Err(error) if error.is_corrupt() => {
            quarantine(path, &error)?;
            schema::open(path, Kind::Cache, Synchronous::Normal)
        }
        opened => opened,
    };
    let connection = opened?;
    // What is deleted or replaced is overwritten: card numbers are in it. The pragma answers with a row.
    connection
        .pragma_update_and_check(None, "secure_delete", true, |_| Ok(()))
        .map_err(StoreError::sqlite(path))?;
    Ok(connection)
}

impl Writer {
    pub(super) fn new(shared: Arc<Shared>, connection: Connection, keeper: Keeper) -> Self {
        Self { shared, connection: Some(connection), keeper, failing: false }
    }

    /// Until the queue is closed and empty.
    pub(super) fn run(mut self) {
        let shared = Arc::clone(&self.shared);
        let taker = shared.queue.consumer();
        let mut batch = Vec::new();
        loop {
            match taker.take(&mut batch, Some(self.keeper.pause())) {
                Received::Items => {
                    let bytes = batch.iter().map(Write::body_bytes).sum();
                    self.settle(&mut batch, bytes);
                }
                Received::Nothing => {}
                Received::Closed => break,
            }
            self.keep();
        }
        if let Some(connection) = self.connection {
            wal::finish(&connection, &shared.path);
        }
    }

    /// A step of retention, if it is time. A failure waits for the next pass.
    fn keep(&mut self) {
        if !self.keeper.pause().is_zero() {
            return;
        }
        let path = &self.shared.path;
        let stepped = match &mut self.connection {
            Some(connection) => self.keeper.step(connection, path),
            closed => open(path).and_then(|connection| self.keeper.step(closed.insert(connection), path)),
        };
        if let Err(error) = stepped {
            tracing::error!(%error, "answers that may not be kept any longer are still in the cache's file");
            self.connection = None;
            self.keeper.rest();
        }
    }

    /// Applies a batch whose bodies have so many bytes, a second time on a new file if this one is corrupt, and tells who
    /// waits.
    fn settle(&mut self, batch: &mut Vec<Write>, bytes: usize) {
        let mut applied = match self.reported_corrupt(batch) {
            Some(error) => Err(error),
            None => self.apply(batch),
        };
        if let Err(error) = &applied
            && error.is_corrupt()
        {
            applied = self.begin_anew(&error.clone()).and_then(|()| self.apply(batch));
        }
        self.log(applied.as_ref().err());
        // Before anybody is told: whoever has waited finds the room free.
        self.shared.waiting.fetch_sub(bytes, Ordering::Relaxed);
        match applied {
            Ok(removed) => batch.drain(..).zip(removed).for_each(|(write, removed)| write.tell(Ok(removed))),
            Err(error) => {
                let saves = batch.iter().filter(|write| matches!(write, Write::Save(..))).count();
                self.shared.failed.fetch_add(saves as u64, Ordering::Relaxed);
                batch.drain(..).for_each(|write| write.tell(Err(error.clone())));
            }
        }
    }

    /// What a reader said about the file as it is now, if one did.
    fn reported_corrupt(&self, batch: &[Write]) -> Option<StoreError> {
        let now = self.shared.readers().age;
        batch.iter().find_map(|write| match write {
            Write::BeginAnew(age, error) if *age == now => Some(error.clone()),
            _ => None,
        })
    }

    /// One transaction; for each write the rows that it removed.
    fn apply(&mut self, batch: &[Write]) -> Result<Vec<u64>, StoreError> {
        let path = &self.shared.path;
        let sqlite = StoreError::sqlite(path);
        let connection = match &mut self.connection {
            Some(connection) => connection,
            closed => closed.insert(open(path)?),
        };
        let applied = (|| {
            let step = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
            let removed = batch.iter().map(|write| write.apply(&step)).collect::<rusqlite::Result<_>>()?;
            step.commit()?;
            Ok(removed)
        })()
        .map_err(sqlite);
        if applied.is_err() {
            self.connection = None;
        }
        applied
    }

    fn begin_anew(&mut self, error: &StoreError) -> Result<(), StoreError> {
        self.connection = None;
        let mut readers = self.shared.readers();
        readers.age += 1;
        readers.idle.clear();
        quarantine(&self.shared.path, error)?;
        // Created under the readers' lock, so that none of them finds no file.
        self.connection = Some(open(&self.shared.path)?);
        Ok(())
    }

    fn log(&mut self, error: Option<&StoreError>) {
        match (error, self.failing) {
            (Some(error), false) => tracing::error!(%error, "answers are not stored in the cache's file"),
            (None, true) => tracing::info!("answers are stored in the cache's file again"),
            _ => {}
        }
        self.failing = error.is_some();
    }
}

impl Write {
    /// Bytes of the body that it stores.
    fn body_bytes(&self) -> usize {
        if let Self::Save(row, _) = self { row.body.len() } else { 0 }
    }

    fn apply(&self, connection: &Connection) -> rusqlite::Result<u64> {
        match self {
            Self::Save(row, latest) => row.insert(connection, *latest).map(|()| 0),
            Self::Remove(key, _) => {
                let mut statement = connection.prepare_cached(
                    r#"DELETE FROM answer
                       WHERE "group" = :group AND operation = :operation AND kind = :kind AND card = :card"#,
                )?;
                statement
                    .execute(named_params! {
                        ":group": &*key.group,
                        ":operation": &*key.operation,
                        ":kind": key.card.kind().as_str(),
                        ":card": key.card.as_str(),
                    })
                    .map(|removed| removed as u64)
            }
            Self::RemoveWhere(selection, _) => selection.change(connection, "DELETE FROM answer"),
            Self::MarkWhere(selection, _) => selection.change(connection, "UPDATE answer SET stale = 1"),
            Self::Flush(_) | Self::BeginAnew(..) => Ok(0),
        }
    }

    /// Tells who waits. Who has gone away is not told.
    fn tell(self, removed: Result<u64, StoreError>) {
        match self {
            Self::Remove(_, done) | Self::RemoveWhere(_, done) | Self::MarkWhere(_, done) => {
                drop(done.send(removed));
            }
            Self::Flush(done) => drop(done.send(removed.map(|_| ()))),
            Self::Save(..) | Self::BeginAnew(..) => {}
        }
    }
}

impl CacheRow {
    fn insert(&self, connection: &Connection, latest: Time) -> rusqlite::Result<()> {
        let mut statement = connection.prepare_cached(
            r#"INSERT INTO answer ("group", operation, kind, card, parameters, code, status, answered_at, body, charset, stale)
               VALUES (:group, :operation, :kind, :card, :parameters, :code, :status, :answered_at, :body, :charset, :stale)
               ON CONFLICT DO UPDATE SET
                   code = excluded.code, status = excluded.status,
                   answered_at = excluded.answered_at, body = excluded.body, charset = excluded.charset,
                   stale = excluded.stale
               WHERE excluded.answered_at >= answer.answered_at OR answer.answered_at > :latest"#,
        )?;
        statement.execute(named_params! {
            ":group": &*self.group,
            ":operation": &*self.operation,
            ":kind": self.card.kind().as_str(),
            ":card": self.card.as_str(),
            ":parameters": self.parameters,
            ":code": self.code,
            ":status": self.status,
            ":answered_at": self.answered_at.as_micros(),
            ":body": &*self.body,
            ":charset": self.charset,
            ":stale": self.stale,
            ":latest": latest.as_micros(),
        })?;
        Ok(())
    }
}

impl Selection {
    /// Removes or marks; returns how many rows. `what` is a statement of ours without its condition.
    fn change(&self, connection: &Connection, what: &str) -> rusqlite::Result<u64> {
        let mut statement = connection.prepare_cached(&format!(
            r#"{what}
               WHERE (:group IS NULL OR "group" = :group)
                 AND (:operation IS NULL OR operation = :operation)
                 AND (:card IS NULL OR (card = :card AND kind = :kind))
                 AND (:status IS NULL OR status = :status)
                 AND (:before IS NULL OR answered_at < :before)
                 AND (:after IS NULL OR answered_at > :after)"#,
        ))?;
        statement
            .execute(named_params! {
                ":group": self.group.as_deref(),
                ":operation": self.operation.as_deref(),
                ":card": self.card.as_ref().map(Card::as_str),
                ":kind": self.card.as_ref().map(|card| card.kind().as_str()),
                ":status": self.status,
                ":before": self.answered_before.map(Time::as_micros),
                ":after": self.answered_after.map(Time::as_micros),
            })
            .map(|changed| changed as u64)
    }
}

/// Renames the files to `cache.db.corrupt*`, over those of an earlier corruption.
fn quarantine(path: &Path, error: &StoreError) -> Result<(), StoreError> {
    let aside = super::quarantine_path(path);
    tracing::warn!(%error, aside = %aside.display(), "the cache's file is corrupt: it is begun anew");
    files::move_aside(path, &aside)
}
