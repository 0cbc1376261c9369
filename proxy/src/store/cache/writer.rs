//! The one thread that writes `cache.db`: it commits all queued writes as one transaction, and runs a step of retention
//! between two transactions.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use cmiot_signer::Card;
use rusqlite::{Connection, Statement, ToSql, TransactionBehavior, named_params};
use tokio::sync::oneshot;

use super::super::queue::Received;
use super::super::schema::{self, Kind, Synchronous};
use super::super::{StoreError, files, wal};
use super::retention::Pruner;
use super::{CacheRow, PurgeMark, Selection, Shared};
use crate::clock::Time;

/// Key of the stored responses for one card, with any parameters.
pub(super) struct Key {
    pub(super) group: Arc<str>,
    pub(super) operation: Arc<str>,
    pub(super) card: Card,
}

/// One queued write, and the channel for its result.
pub(super) enum Write {
    /// A row, and the moment after which a stored row's time is in the future.
    Save(Box<CacheRow>, Time),
    Remove(Key, oneshot::Sender<Result<u64, StoreError>>),
    RemoveWhere(Selection, oneshot::Sender<Result<u64, StoreError>>),
    MarkWhere(Selection, oneshot::Sender<Result<u64, StoreError>>),
    Flush(oneshot::Sender<Result<(), StoreError>>),
    /// The last purge of a fleet that the file has applied.
    Mark(PurgeMark, oneshot::Sender<Result<(), StoreError>>),
    /// A reader found the file of this generation corrupt.
    Recreate {
        generation: u64,
        error: StoreError,
    },
}

pub(super) struct Writer {
    shared: Arc<Shared>,
    /// None after a failure; the next batch opens it again.
    connection: Option<Connection>,
    pruner: Pruner,
    /// Whether the last batch failed: the first failed batch is logged, and the first that succeeds again.
    failing: bool,
}

/// Opens the file, and replaces it if it is corrupt.
pub(super) fn open(path: &Path) -> Result<Connection, StoreError> {
    let opened = match schema::open(path, Kind::Cache, Synchronous::Normal) {
        Err(error) if error.is_corrupt() => {
            quarantine(path, &error)?;
            schema::open(path, Kind::Cache, Synchronous::Normal)
        }
        opened => opened,
    };
    let connection = opened?;
    // Deleted and replaced rows are overwritten, since they contain card numbers. The pragma returns a row.
    connection
        .pragma_update_and_check(None, "secure_delete", true, |_| Ok(()))
        .map_err(StoreError::sqlite(path))?;
    Ok(connection)
}

impl Writer {
    pub(super) fn new(shared: Arc<Shared>, connection: Connection, pruner: Pruner) -> Self {
        Self { shared, connection: Some(connection), pruner, failing: false }
    }

    /// Runs until the queue is closed and empty.
    pub(super) fn run(mut self) {
        let shared = Arc::clone(&self.shared);
        let consumer = shared.queue.consumer();
        let mut batch = Vec::new();
        loop {
            match consumer.take(&mut batch, Some(self.pruner.pause())) {
                Received::Items => {
                    let bytes = batch.iter().map(Write::body_bytes).sum();
                    self.commit(&mut batch, bytes);
                }
                Received::TimedOut => {}
                Received::Closed => break,
            }
            self.run_retention_step();
        }
        if let Some(connection) = self.connection {
            wal::finish(&connection, &shared.path);
        }
    }

    /// Runs a step of retention if it is due. After a failure the next pass tries again.
    fn run_retention_step(&mut self) {
        if !self.pruner.pause().is_zero() {
            return;
        }
        let path = &self.shared.path;
        let stepped = match &mut self.connection {
            Some(connection) => self.pruner.step(connection, path),
            closed => open(path).and_then(|connection| self.pruner.step(closed.insert(connection), path)),
        };
        if let Err(error) = stepped {
            tracing::error!(%error, "retention failed: cache.db still has responses past their limit");
            self.connection = None;
            self.pruner.end_pass();
        }
    }

    /// Commits a batch whose bodies have this many bytes, on a new file if this one is corrupt, and reports the results.
    fn commit(&mut self, batch: &mut Vec<Write>, bytes: usize) {
        let mut applied = match self.reported_corrupt(batch) {
            Some(error) => Err(error),
            None => self.apply(batch),
        };
        if let Err(error) = &applied
            && error.is_corrupt()
        {
            applied = self.recreate(&error.clone()).and_then(|()| self.apply(batch));
        }
        self.log(applied.as_ref().err());
        // Before the results are sent: a caller that waited for one finds room in the queue.
        self.shared.queued_bytes.fetch_sub(bytes, Ordering::Relaxed);
        match applied {
            Ok(removed) => {
                batch.drain(..).zip(removed).for_each(|(write, removed)| write.complete(Ok(removed)));
            }
            Err(error) => {
                let saves = batch.iter().filter(|write| matches!(write, Write::Save(..))).count();
                self.shared.failed.fetch_add(saves as u64, Ordering::Relaxed);
                batch.drain(..).for_each(|write| write.complete(Err(error.clone())));
            }
        }
    }

    /// The corruption that a reader reported of the current file, if any.
    fn reported_corrupt(&self, batch: &[Write]) -> Option<StoreError> {
        let current = self.shared.readers().generation;
        batch.iter().find_map(|write| match write {
            Write::Recreate { generation, error } if *generation == current => Some(error.clone()),
            _ => None,
        })
    }

    /// Applies the batch as one transaction; returns the number of rows that each write removed.
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

    fn recreate(&mut self, error: &StoreError) -> Result<(), StoreError> {
        self.connection = None;
        let mut readers = self.shared.readers();
        readers.generation += 1;
        readers.idle.clear();
        quarantine(&self.shared.path, error)?;
        // Created under the readers' lock, so that no reader finds the file missing.
        self.connection = Some(open(&self.shared.path)?);
        Ok(())
    }

    fn log(&mut self, error: Option<&StoreError>) {
        match (error, self.failing) {
            (Some(error), false) => tracing::error!(%error, "responses are not stored in cache.db"),
            (None, true) => tracing::info!("responses are stored in cache.db again"),
            _ => {}
        }
        self.failing = error.is_some();
    }
}

impl Write {
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
            Self::Mark(mark, _) => mark.insert(connection).map(|()| 0),
            Self::Flush(_) | Self::Recreate { .. } => Ok(0),
        }
    }

    /// Sends the result to the waiter, unless it has dropped its [`Applied`](super::Applied).
    fn complete(self, removed: Result<u64, StoreError>) {
        match self {
            Self::Remove(_, done) | Self::RemoveWhere(_, done) | Self::MarkWhere(_, done) => {
                drop(done.send(removed));
            }
            Self::Flush(done) | Self::Mark(_, done) => drop(done.send(removed.map(|_| ()))),
            Self::Save(..) | Self::Recreate { .. } => {}
        }
    }
}

impl CacheRow {
    fn insert(&self, connection: &Connection, latest: Time) -> rusqlite::Result<()> {
        let mut statement = connection.prepare_cached(
            r#"INSERT INTO answer ("group", operation, kind, card, parameters, code, status, answered_at, body, charset,
                                   carrier, stale)
               VALUES (:group, :operation, :kind, :card, :parameters, :code, :status, :answered_at, :body, :charset,
                       :carrier, :stale)
               ON CONFLICT DO UPDATE SET
                   code = excluded.code, status = excluded.status,
                   answered_at = excluded.answered_at, body = excluded.body, charset = excluded.charset,
                   carrier = excluded.carrier, stale = excluded.stale
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
            ":carrier": self.carrier,
            ":stale": self.stale,
            ":latest": latest.as_micros(),
        })?;
        Ok(())
    }
}

impl PurgeMark {
    pub(super) fn insert(&self, connection: &Connection) -> rusqlite::Result<()> {
        let mut statement = connection.prepare_cached(
            "INSERT INTO purged (one, fleet, generation) VALUES (1, :fleet, :generation)
             ON CONFLICT DO UPDATE SET fleet = excluded.fleet, generation = excluded.generation",
        )?;
        statement.execute(named_params! { ":fleet": self.fleet, ":generation": self.generation }).map(drop)
    }
}

impl Selection {
    /// Runs a statement, given without its condition, on the selected rows; returns the number of rows changed.
    fn change(&self, connection: &Connection, statement: &str) -> rusqlite::Result<u64> {
        self.run(connection, statement, |statement, parameters| statement.execute(parameters))
            .map(|changed| changed as u64)
    }

    /// The number of the selected rows.
    pub(super) fn count(&self, connection: &Connection) -> rusqlite::Result<u64> {
        self.run(connection, "SELECT count(*) FROM answer", |statement, parameters| {
            statement.query_row(parameters, |row| row.get::<_, i64>(0))
        })
        .map(i64::unsigned_abs)
    }

    fn run<T>(
        &self,
        connection: &Connection,
        statement: &str,
        run: impl FnOnce(&mut Statement<'_>, &[(&str, &dyn ToSql)]) -> rusqlite::Result<T>,
    ) -> rusqlite::Result<T> {
        let mut statement = connection.prepare_cached(&format!(
            r#"{statement}
               WHERE (:group IS NULL OR "group" = :group)
                 AND (:operation IS NULL OR operation = :operation)
                 AND (:card IS NULL OR (card = :card AND kind = :kind))
                 AND (:status IS NULL OR status = :status)
                 AND (:before IS NULL OR answered_at < :before)
                 AND (:after IS NULL OR answered_at > :after)"#,
        ))?;
        run(
            &mut statement,
            named_params! {
                ":group": self.group.as_deref(),
                ":operation": self.operation.as_deref(),
                ":card": self.card.as_ref().map(Card::as_str),
                ":kind": self.card.as_ref().map(|card| card.kind().as_str()),
                ":status": self.status,
                ":before": self.answered_before.map(Time::as_micros),
                ":after": self.answered_after.map(Time::as_micros),
            },
        )
    }
}

/// Renames the files to `cache.db.corrupt*`, over those of an earlier corruption.
fn quarantine(path: &Path, error: &StoreError) -> Result<(), StoreError> {
    let aside = super::quarantine_path(path);
    tracing::warn!(%error, aside = %aside.display(), "cache.db is corrupt: creating it again");
    files::move_aside(path, &aside)
}
