//! The segment that is being written: opened or begun, appended to, indexed after the commit, sealed at its end.
//!
//! A new segment links the one before: see [`chain`](super::chain). Cards are indexed in sorted runs ([`Options::run`]),
//! each in a transaction of its own after the askers were told, since a live index would dirty a page a row.
//! A sealed segment is checkpointed, out of WAL mode and read-only; it is never opened for writing again.

use std::fs::{self, OpenOptions, Permissions};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use rusqlite::{Connection, OptionalExtension, TransactionBehavior, params};

use super::super::schema::{self, Kind, Synchronous};
use super::super::{Fault, StoreError};
use super::append::{Carded, Head, Names, append};
use super::chain::{self, Hash, Manifest};
use super::identity::IdentityKey;
use super::row::Row;
use super::segment::{self, Month};
use super::{Clip, Identifiers, Options};

/// An open segment.
pub(super) struct Segment {
    pub(super) connection: Connection,
    pub(super) month: Month,
    path: PathBuf,
    synchronous: Synchronous,
    run: i64,
    names: Names,
    key: Option<IdentityKey>,
    head: Head,
    /// The last row in a run.
    indexed: i64,
    /// Rows behind it that have a card.
    carded: Vec<Carded>,
}

impl Segment {
    /// Opens a month's segment, or begins it.
    pub(super) fn open(dir: &Path, month: Month, options: &Options) -> Result<Self, StoreError> {
        let path = month.path(dir);
        let sqlite = StoreError::sqlite(&path);
        let synchronous = options.durability.synchronous();
        create(&path, options)?;
        let connection = schema::open(&path, Kind::Audit, synchronous)?;
        let key = match options.identifiers {
            Identifiers::Plain => None,
            Identifiers::Keyed => Some(IdentityKey::ensure(dir, month)?),
        };
        begin(&connection, dir, month)?;
        let head = head(&connection).map_err(sqlite)?;
        let head = head.ok_or_else(|| StoreError::new(&path, Fault::Malformed { what: "segment" }))?;
        let names = connection
            .prepare("SELECT text, id FROM name")
            .and_then(|mut all| all.query_map([], |row| Ok((row.get(0)?, row.get(1)?)))?.collect())
            .map_err(sqlite)?;
        let (indexed, carded) = unindexed(&connection, head.last).map_err(sqlite)?;
        Ok(Self {
            connection,
            month,
            path,
            synchronous,
            run: options.run.into(),
            names,
            key,
            head,
            indexed,
            carded,
        })
    }

    /// How far it has got.
    pub(super) fn head(&self) -> Head {
        self.head
    }

    /// Appends rows, of which there is at least one, in one transaction. After an error the segment is to be opened
    /// anew.
    pub(super) fn commit<'a>(&mut self, rows: impl Iterator<Item = &'a Row>) -> Result<(), StoreError> {
        let sqlite = StoreError::sqlite(&self.path);
        let batch =
            self.connection.transaction_with_behavior(TransactionBehavior::Immediate).map_err(sqlite)?;
        let head = append(&batch, &mut self.names, self.key.as_ref(), self.head, rows, &mut self.carded)
            .map_err(sqlite)?;
        batch.commit().map_err(sqlite)?;
        self.head = head;
        Ok(())
    }

    /// Whether there are enough rows for a run.
    pub(super) fn wants_run(&self) -> bool {
        self.head.last - self.indexed >= self.run
    }

    /// Sorts what is in no run yet into one. Not synced: a run that is lost is built again.
    pub(super) fn build_run(&mut self) -> Result<(), StoreError> {
        self.try_build_run().map_err(StoreError::sqlite(&self.path))
    }

    fn try_build_run(&mut self) -> rusqlite::Result<()> {
        self.carded.sort_unstable();
        self.connection.pragma_update(None, "synchronous", "normal")?;
        let transaction = self.connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
        transaction
            .prepare_cached("INSERT INTO card_run (first, last) VALUES (?1, ?2)")?
            .execute([self.indexed + 1, self.head.last])?;
        let run = transaction.last_insert_rowid();
        let mut insert =
            transaction.prepare_cached("INSERT INTO card_entry (run, card, id) VALUES (?1, ?2, ?3)")?;
        for Carded { card, id } in &self.carded {
            insert.execute(params![run, card.as_str(), id])?;
        }
        drop(insert);
        transaction.commit()?;
        self.connection.pragma_update(None, "synchronous", self.synchronous.name())?;
        self.indexed = self.head.last;
        self.carded.clear();
        Ok(())
    }

    /// Commits nothing, to learn whether a commit works.
    pub(super) fn probe(&mut self) -> Result<(), StoreError> {
        let sqlite = StoreError::sqlite(&self.path);
        let probe =
            self.connection.transaction_with_behavior(TransactionBehavior::Immediate).map_err(sqlite)?;
        schema::touch(&probe).map_err(sqlite)?;
        probe.commit().map_err(sqlite)
    }

    /// Moves the WAL into the file; it will be opened again.
    pub(super) fn close(self) {
        schema::checkpoint(&self.connection, &self.path);
    }

    /// How long the WAL is, in bytes.
    pub(super) fn wal_bytes(&self) -> u64 {
        let [_, wal, _] = schema::family(&self.path);
        fs::metadata(wal).map_or(0, |wal| wal.len())
    }
}

/// Makes a segment that is over read-only for good; does nothing if it is already. A reader that has it open keeps it
/// from being sealed: the next attempt comes with the next anchor.
pub(super) fn seal(path: &Path) -> Result<(), StoreError> {
    let io = StoreError::io(path);
    let mode = fs::metadata(path).map_err(io)?.permissions().mode();
    if mode & 0o222 == 0 {
        return Ok(());
    }
    let sqlite = StoreError::sqlite(path);
    let connection = Connection::open(path).map_err(sqlite)?;
    schema::checkpoint(&connection, path);
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

/// Creates the file with the mode and group that its -wal and -shm take over.
fn create(path: &Path, options: &Options) -> Result<(), StoreError> {
    let io = StoreError::io(path);
    let (group, mode) = (options.group, options.mode());
    match OpenOptions::new().write(true).create_new(true).mode(mode).open(path) {
        Ok(file) => {
            if group.is_some() {
                // The umask may have taken the group's bit.
                file.set_permissions(Permissions::from_mode(mode)).map_err(io)?;
                std::os::unix::fs::chown(path, None, group).map_err(io)?;
            }
            Ok(())
        }
        Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => Ok(()),
        Err(error) => Err(io(error)),
    }
}

/// Writes the segment's own row and its manifest, unless they are there.
fn begin(connection: &Connection, dir: &Path, month: Month) -> Result<(), StoreError> {
    let path = month.path(dir);
    let sqlite = StoreError::sqlite(&path);
    let begun: i64 =
        connection.query_row("SELECT count(*) FROM segment", [], |row| row.get(0)).map_err(sqlite)?;
    if begun > 0 {
        return Ok(());
    }
    let (previous, before, manifest) = before(dir, month)?;
    let seed = chain::seed(&month.to_string(), &previous, before, &manifest);
    let link = || {
        connection.execute_batch("BEGIN IMMEDIATE")?;
        for Manifest { month, first, last, count, since, until, head } in &manifest {
            connection.execute(
                "INSERT INTO manifest (month, first, last, count, since, until, head)
                 VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)",
                params![month, first, last, count, since, until, head.as_bytes()],
            )?;
        }
        connection.execute(
            "INSERT INTO segment (month, previous, before, seed) VALUES (?1, ?2, ?3, ?4)",
            params![month.to_string(), previous.as_bytes(), before, seed.as_bytes()],
        )?;
        connection.execute_batch("COMMIT")
    };
    link().map_err(sqlite)
}

/// What the segment of `month` follows: the head and the last number before it, and all segments so far.
fn before(dir: &Path, month: Month) -> Result<(Hash, i64, Vec<Manifest>), StoreError> {
    let Some(earlier) = segment::list(dir)?.into_iter().find(|&earlier| earlier < month) else {
        return Ok((Hash::NONE, 0, Vec::new()));
    };
    let path = earlier.path(dir);
    let sqlite = StoreError::sqlite(&path);
    let connection = schema::open_read_only(&path, Kind::Audit)?;
    let malformed = || StoreError::new(&path, Fault::Malformed { what: "segment" });
    let head = head(&connection).map_err(sqlite)?.ok_or_else(malformed)?;
    let mut manifest = manifest(&connection).map_err(sqlite)?.ok_or_else(malformed)?;
    let first: Option<i64> =
        connection.query_row("SELECT min(first) FROM batch", [], |row| row.get(0)).map_err(sqlite)?;
    if let Some(first) = first {
        let since =
            connection.query_row("SELECT min(begins) FROM batch", [], |row| row.get(0)).map_err(sqlite)?;
        manifest.push(Manifest {
            month: earlier.to_string(),
            first,
            last: head.last,
            count: head.last - first + 1,
            since,
            until: head.horizon,
            head: head.hash,
        });
    }
    Ok((head.hash, head.last, manifest))
}

/// How far a segment has got; none when its own row is missing or malformed.
pub(super) fn head(connection: &Connection) -> rusqlite::Result<Option<Head>> {
    let batch = connection
        .query_row("SELECT last, horizon, hash FROM batch ORDER BY last DESC LIMIT 1", [], |row| {
            Ok((row.get(0)?, row.get(1)?, Hash::from_slice(row.get_ref(2)?.as_blob()?)))
        })
        .optional()?;
    let found = match batch {
        Some(found) => Some(found),
        None => connection
            .query_row("SELECT before, seed FROM segment", [], |row| {
                Ok((row.get(0)?, i64::MIN, Hash::from_slice(row.get_ref(1)?.as_blob()?)))
            })
            .optional()?,
    };
    Ok(found.and_then(|(last, horizon, hash)| Some(Head { last, horizon, hash: hash? })))
}

/// The segments before; none when a head is malformed.
pub(super) fn manifest(connection: &Connection) -> rusqlite::Result<Option<Vec<Manifest>>> {
    let mut statement = connection
        .prepare("SELECT month, first, last, count, since, until, head FROM manifest ORDER BY month")?;
    let rows = statement.query_map([], |row| {
        let head = Hash::from_slice(row.get_ref(6)?.as_blob()?);
        Ok(match head {
            None => None,
            Some(head) => Some(Manifest {
                month: row.get(0)?,
                first: row.get(1)?,
                last: row.get(2)?,
                count: row.get(3)?,
                since: row.get(4)?,
                until: row.get(5)?,
                head,
            }),
        })
    })?;
    rows.collect()
}

/// The last row in a run, and the rows behind it that have a card.
fn unindexed(connection: &Connection, last: i64) -> rusqlite::Result<(i64, Vec<Carded>)> {
    let indexed: Option<i64> =
        connection.query_row("SELECT max(last) FROM card_run", [], |row| row.get(0))?;
    let indexed = match indexed {
        Some(indexed) => indexed,
        None => connection
            .query_row("SELECT coalesce(min(first) - 1, ?1) FROM batch", [last], |row| row.get(0))?,
    };
    let mut statement = connection.prepare(
        "SELECT card, id FROM record WHERE id > ?1 AND card IS NOT NULL
         UNION ALL SELECT card, id FROM call WHERE id > ?1 AND card IS NOT NULL",
    )?;
    let rows = statement.query_map([indexed], |row| {
        Ok(Carded { card: Clip::new(row.get_ref(0)?.as_str()?), id: row.get(1)? })
    })?;
    Ok((indexed, rows.collect::<rusqlite::Result<_>>()?))
}
