//! Opens a database file of the proxy: checks its kind and version, and migrates it before anything else.
//!
//! Every file has its kind in `application_id` and the number of migrations applied in `user_version`.
//! Migrations are append-only: `migrations/KIND/NNNN_name.sql` at the workspace's root, each applied in one
//! transaction with its number. Nothing is written into a file before it is known to be ours and not newer.

use std::ffi::OsStr;
use std::fs;
use std::io;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::Path;

use rusqlite::{Connection, OpenFlags, TransactionBehavior};

use super::files::{BUSY_TIMEOUT, database_files};
use super::{Fault, StoreError, blocks, wal};

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Kind {
    Cache,
    State,
    Audit,
}

/// The failures that a commit survives.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Synchronous {
    /// A power loss: every commit waits for the disk.
    Full,
    /// The end of the process, not a power loss.
    Normal,
}

impl Synchronous {
    /// The value of `PRAGMA synchronous`.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Full => "full",
            Self::Normal => "normal",
        }
    }
}

/// One step of a schema, embedded from its file.
struct Migration {
    #[cfg_attr(not(test), expect(dead_code, reason = "a test compares it with the folder"))]
    file: &'static str,
    sql: &'static str,
}

macro_rules! migration {
    ($kind:literal, $file:literal) => {
        Migration { file: $file, sql: include_str!(concat!("../../../migrations/", $kind, "/", $file)) }
    };
}

const CACHE: &[Migration] = &[
    migration!("cache", "0001_answers.sql"),
    migration!("cache", "0002_stale.sql"),
    migration!("cache", "0003_age.sql"),
    migration!("cache", "0004_parameters.sql"),
    migration!("cache", "0005_purges.sql"),
    migration!("cache", "0006_carrier.sql"),
];
const STATE: &[Migration] = &[
    migration!("state", "0001_sequences.sql"),
    migration!("state", "0002_budgets.sql"),
    migration!("state", "0003_leases.sql"),
    migration!("state", "0004_window.sql"),
    migration!("state", "0005_webhooks.sql"),
    migration!("state", "0006_fleet_budgets.sql"),
];
const AUDIT: &[Migration] =
    &[migration!("audit", "0001_records.sql"), migration!("audit", "0002_bodies.sql")];

/// A WAL that grew because of a long reader is truncated to this many bytes when SQLite writes it from its start again.
const WAL_KEPT: i64 = 64 << 20;

/// The first SQLite without the race between a WAL reset and a checkpoint that corrupts databases.
const OLDEST_LIBRARY: i32 = 3_051_003;

impl Kind {
    /// "cmi" and the kind's letter.
    const fn application_id(self) -> i32 {
        i32::from_be_bytes(match self {
            Self::Cache => *b"cmic",
            Self::State => *b"cmis",
            Self::Audit => *b"cmia",
        })
    }

    const fn migrations(self) -> &'static [Migration] {
        match self {
            Self::Cache => CACHE,
            Self::State => STATE,
            Self::Audit => AUDIT,
        }
    }

    /// The version that this proxy writes: the number of migrations it knows.
    pub(super) fn known(self) -> i64 {
        // The table does not have 2^63 lines.
        i64::try_from(self.migrations().len()).unwrap_or(i64::MAX)
    }
}

/// Opens a file for reading and writing: creates it if needed, settles the WAL that it finds, and applies migrations. A
/// segment of the audit keeps its version.
///
/// # Errors
/// When another program or a newer proxy wrote it, or it cannot be read or written.
pub(super) fn open(path: &Path, kind: Kind, synchronous: Synchronous) -> Result<Connection, StoreError> {
    // SQLite gives the -wal and -shm files the mode of the database, so this sets the mode of all three.
    fs::OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(false)
        .mode(0o600)
        .open(path)
        .map_err(StoreError::io(path))?;
    let small = blocks::check_room(path)?;
    let sqlite = StoreError::sqlite(path);
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let mut connection = Connection::open_with_flags(path, flags).map_err(sqlite)?;
    connection.busy_timeout(BUSY_TIMEOUT).map_err(sqlite)?;
    let version = version(&connection, path, kind)?;

    wal::enter_wal_mode(&connection, path)?;
    connection.pragma_update(None, "synchronous", synchronous.name()).map_err(sqlite)?;
    connection.pragma_update(None, "journal_size_limit", WAL_KEPT).map_err(sqlite)?;
    wal::configure_checkpoints(&mut connection).map_err(sqlite)?;
    wal::settle(&connection, path)?;
    // A segment keeps the schema with which it began: its hashed rows do.
    let is_kept = kind == Kind::Audit && version > 0;
    if version < kind.known() && !is_kept {
        migrate(&mut connection, path, kind)?;
    }
    if small {
        // With its first frame SQLite writes to the whole index, while there is room.
        touch(&connection).map_err(sqlite)?;
    }
    Ok(connection)
}

/// Opens an existing file read-only, at any version up to this proxy's. A file in WAL mode needs its WAL, which SQLite
/// cannot create on a read-only mount or in another user's folder; without a WAL such a file is opened as immutable. A proxy
/// that did not stop cleanly leaves such a file, and so did earlier versions.
///
/// # Errors
/// When it does not exist, another program or a newer proxy wrote it, or it cannot be read.
pub(super) fn open_read_only(path: &Path, kind: Kind) -> Result<Connection, StoreError> {
    let [_, wal, _] = database_files(path);
    match open_for_reading(path, path.as_os_str(), kind) {
        Err(error) if error.is_denied() && fs::metadata(wal).map_or(true, |wal| wal.len() == 0) => {
            match immutable(path) {
                Some(name) => open_for_reading(path, name.as_ref(), kind),
                None => Err(error),
            }
            // SQLite reports a missing file as one that it cannot open.
            .map_err(|error| match fs::metadata(path) {
                Err(missing) if missing.kind() == std::io::ErrorKind::NotFound => {
                    StoreError::io(path)(missing)
                }
                _ => error,
            })
        }
        opened => opened,
    }
}

/// The URI with which SQLite opens a file without searching for a WAL (https://sqlite.org/uri.html).
fn immutable(path: &Path) -> Option<String> {
    let mut name = "file:".to_owned();
    for c in std::path::absolute(path).ok()?.to_str()?.chars() {
        match c {
            '%' => name.push_str("%25"),
            '?' => name.push_str("%3f"),
            '#' => name.push_str("%23"),
            c => name.push(c),
        }
    }
    name.push_str("?immutable=1");
    Some(name)
}

fn open_for_reading(path: &Path, name: &OsStr, kind: Kind) -> Result<Connection, StoreError> {
    let sqlite = StoreError::sqlite(path);
    let flags =
        OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX | OpenFlags::SQLITE_OPEN_URI;
    let connection = Connection::open_with_flags(name, flags).map_err(sqlite)?;
    connection.busy_timeout(BUSY_TIMEOUT).map_err(sqlite)?;
    connection.pragma_update(None, "query_only", true).map_err(sqlite)?;
    if version(&connection, path, kind)? == 0 {
        return Err(StoreError::new(path, Fault::Malformed { value: "schema: it is empty" }));
    }
    Ok(connection)
}

/// Refuses a linked SQLite that is too old, as that of a distribution can be; the bundled one is not.
///
/// # Errors
/// [`Fault::OldLibrary`].
pub(super) fn check_library(folder: &Path) -> Result<(), StoreError> {
    if rusqlite::version_number() < OLDEST_LIBRARY {
        return Err(StoreError::new(folder, Fault::OldLibrary { found: rusqlite::version() }));
    }
    Ok(())
}

/// Creates the store's folder, accessible to its owner alone, unless it exists.
///
/// # Errors
/// When it cannot be created or is not a folder.
pub(super) fn create_folder(path: &Path) -> Result<(), StoreError> {
    fs::DirBuilder::new().recursive(true).mode(0o700).create(path).map_err(StoreError::io(path))?;
    // The folder's own name must survive a power loss too.
    match path.canonicalize().map(|path| path.parent().map(fs::File::open)) {
        Ok(Some(Ok(parent))) => parent.sync_all().map_err(StoreError::io(path)),
        // A parent without read permission existed before.
        _ => Ok(()),
    }
}

/// The file's version; 0 when nothing was ever written to it.
fn version(connection: &Connection, path: &Path, kind: Kind) -> Result<i64, StoreError> {
    let sqlite = StoreError::sqlite(path);
    let of = |name| connection.pragma_query_value(None, name, |row| row.get::<_, i64>(0)).map_err(sqlite);
    let (id, version) = (of("application_id")?, of("user_version")?);
    if id == 0 && version == 0 {
        let objects: i64 = connection
            .query_row("SELECT count(*) FROM sqlite_schema", [], |row| row.get(0))
            .map_err(sqlite)?;
        if objects == 0 {
            return Ok(0);
        }
    }
    if id != i64::from(kind.application_id()) || version < 1 {
        return Err(StoreError::new(path, Fault::Foreign));
    }
    if version > kind.known() {
        return Err(StoreError::new(path, Fault::Newer { found: version, known: kind.known() }));
    }
    Ok(version)
}

fn migrate(connection: &mut Connection, path: &Path, kind: Kind) -> Result<(), StoreError> {
    let sqlite = StoreError::sqlite(path);
    for (number, migration) in (1_i64..).zip(kind.migrations()) {
        let step = connection.transaction_with_behavior(TransactionBehavior::Immediate).map_err(sqlite)?;
        // Read under the write lock: a crash may have left the file at any version.
        if version(&step, path, kind)? >= number {
            continue;
        }
        step.execute_batch(migration.sql).map_err(sqlite)?;
        step.pragma_update(None, "application_id", kind.application_id()).map_err(sqlite)?;
        step.pragma_update(None, "user_version", number).map_err(sqlite)?;
        step.commit().map_err(sqlite)?;
    }
    Ok(())
}

/// The version of a file's schema.
///
/// # Errors
/// When SQLite refuses.
pub(super) fn version_of(connection: &Connection) -> rusqlite::Result<i64> {
    connection.pragma_query_value(None, "user_version", |row| row.get(0))
}

/// Writes a page without a change of content: its commit shows whether the disk accepts a write.
pub(super) fn touch(connection: &Connection) -> rusqlite::Result<()> {
    connection.pragma_update(None, "user_version", version_of(connection)?)
}

/// Builds the schema of this kind and version in an empty database.
///
/// # Errors
/// When SQLite refuses.
pub(super) fn build_in_memory(connection: &Connection, kind: Kind, version: i64) -> rusqlite::Result<()> {
    let steps = usize::try_from(version).unwrap_or(0);
    kind.migrations().iter().take(steps).try_for_each(|migration| connection.execute_batch(migration.sql))
}

/// Whether a file of the store exists and is not empty.
///
/// # Errors
/// When its metadata cannot be read.
pub(super) fn exists(path: &Path) -> Result<bool, StoreError> {
    match fs::metadata(path) {
        Ok(found) => Ok(found.len() > 0),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(error) => Err(StoreError::io(path)(error)),
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    const KINDS: [(Kind, &str); 3] = [(Kind::Cache, "cache"), (Kind::State, "state"), (Kind::Audit, "audit")];

    fn user_version(connection: &Connection) -> i64 {
        connection.pragma_query_value(None, "user_version", |row| row.get(0)).unwrap()
    }

    #[test]
    fn the_tables_of_migrations_are_the_folders_contents() {
        for (kind, folder) in KINDS {
            let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../migrations").join(folder);
            let mut found: Vec<String> = fs::read_dir(folder)
                .unwrap()
                .map(|entry| entry.unwrap().file_name().into_string().unwrap())
                .collect();
            found.sort();
            let known: Vec<&str> = kind.migrations().iter().map(|migration| migration.file).collect();
            assert_eq!(found, known);
            for (number, file) in (1..).zip(&known) {
                assert!(file.starts_with(&format!("{number:04}_")), "{file} is not number {number}");
            }
        }
    }

    #[test]
    fn a_new_file_is_created_for_its_owner_alone_and_opens_again() {
        let dir = tempfile::tempdir().unwrap();
        for (kind, name) in KINDS {
            let path = dir.path().join(name);
            let first = open(&path, kind, Synchronous::Full).unwrap();
            assert_eq!(user_version(&first), kind.known());
            for file in database_files(&path) {
                assert_eq!(fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o600, "{file:?}");
            }
            drop(first);
            assert_eq!(user_version(&open(&path, kind, Synchronous::Full).unwrap()), kind.known());
            assert_eq!(user_version(&open_read_only(&path, kind).unwrap()), kind.known());
        }
    }

    #[test]
    fn a_newer_database_is_refused_and_left_as_it_is() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("state.db");
        let later = Kind::State.known() + 1;
        open(&path, Kind::State, Synchronous::Full)
            .unwrap()
            .pragma_update(None, "user_version", later)
            .unwrap();
        let error = open(&path, Kind::State, Synchronous::Full).unwrap_err();
        assert_eq!(error.fault(), &Fault::Newer { found: later, known: later - 1 });
        let text = error.to_string();
        assert!(text.contains("state.db") && text.contains("`cmiot-proxy restore` of a backup"), "{text}");
        assert_eq!(user_version(&Connection::open(&path).unwrap()), later);
    }

    #[test]
    fn a_foreign_database_is_refused_and_left_as_it_is() {
        let dir = tempfile::tempdir().unwrap();
        let theirs = dir.path().join("theirs.db");
        Connection::open(&theirs).unwrap().execute_batch("CREATE TABLE theirs (it)").unwrap();
        let before = fs::read(&theirs).unwrap();
        for (kind, _) in KINDS {
            assert_eq!(open(&theirs, kind, Synchronous::Full).unwrap_err().fault(), &Fault::Foreign);
        }
        assert_eq!(fs::read(&theirs).unwrap(), before);

        let ours = dir.path().join("cache.db");
        drop(open(&ours, Kind::Cache, Synchronous::Normal).unwrap());
        assert_eq!(open(&ours, Kind::State, Synchronous::Full).unwrap_err().fault(), &Fault::Foreign);
        assert_eq!(open_read_only(&ours, Kind::Audit).unwrap_err().fault(), &Fault::Foreign);
    }

    #[test]
    fn a_failed_migration_leaves_no_half_of_itself() {
        // A crash before the first migration leaves an empty file in WAL mode.
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("cache.db");
        let bare = Connection::open(&path).unwrap();
        bare.pragma_update(None, "journal_mode", "wal").unwrap();
        drop(bare);
        assert_eq!(
            user_version(&open(&path, Kind::Cache, Synchronous::Normal).unwrap()),
            Kind::Cache.known()
        );

        // A disk without room for a table: the transaction is rolled back.
        let path = dir.path().join("full.db");
        let mut full = Connection::open(&path).unwrap();
        full.pragma_update(None, "journal_mode", "wal").unwrap();
        full.pragma_update(None, "max_page_count", 1).unwrap();
        let error = migrate(&mut full, &path, Kind::Cache).unwrap_err();
        assert!(error.to_string().contains("make room"), "{error}");
        assert_eq!(user_version(&full), 0);
        full.pragma_update(None, "max_page_count", 1_000).unwrap();
        migrate(&mut full, &path, Kind::Cache).unwrap();
        assert_eq!(user_version(&full), Kind::Cache.known());
    }

    #[test]
    fn a_file_in_wal_mode_is_read_where_no_other_file_can_be_created() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("50% of #1?.db");
        let connection = open(&path, Kind::Cache, Synchronous::Normal).unwrap();
        connection
            .execute_batch("INSERT INTO answer (\"group\", operation, kind, card, code, status, answered_at, body, stale)
                 VALUES ('g', 'o', 'imsi', '1', '0', NULL, 1, x'00', 0)")
            .unwrap();
        wal::finish(&connection, &path);
        drop(connection);
        // In WAL mode, and the only file of its folder.
        assert_eq!((fs::read(&path).unwrap()[18], fs::read_dir(dir.path()).unwrap().count()), (2, 1));
        let name = immutable(&path).unwrap();
        let reader = open_for_reading(&path, name.as_ref(), Kind::Cache).unwrap();
        let rows: i64 = reader.query_row("SELECT count(*) FROM answer", [], |row| row.get(0)).unwrap();
        assert_eq!((rows, fs::read_dir(dir.path()).unwrap().count()), (1, 1));
    }

    #[test]
    fn the_library_is_new_enough() {
        assert_eq!(check_library(Path::new("data")), Ok(()));
    }
}
