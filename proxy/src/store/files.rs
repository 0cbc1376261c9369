//! The files of one SQLite database: the database itself, its write-ahead log (`-wal`) and the log's index (`-shm`).

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::{StoreError, atomic_file};

/// Time that a connection waits for the write lock of another one, for instance of an operator's SQLite shell.
pub(super) const BUSY_TIMEOUT: Duration = Duration::from_secs(5);

/// The paths of the database, its WAL and the WAL's index.
pub(super) fn database_files(path: &Path) -> [PathBuf; 3] {
    ["", "-wal", "-shm"].map(|suffix| {
        let mut name = path.as_os_str().to_owned();
        name.push(suffix);
        name.into()
    })
}

/// Renames a database and its other files to `aside`, over those of an earlier one.
///
/// # Errors
/// When a file cannot be renamed.
pub(super) fn move_aside(path: &Path, aside: &Path) -> Result<(), StoreError> {
    // SQLite would read an earlier database's WAL as the log of the one that replaces it.
    let replaces_earlier = path.exists();
    for (from, to) in database_files(path).iter().zip(database_files(aside)) {
        let moved = match fs::rename(from, &to) {
            Err(error) if error.kind() == io::ErrorKind::NotFound && replaces_earlier => {
                atomic_file::remove(&to).map(drop)
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            moved => moved,
        };
        moved.map_err(StoreError::io(path))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn write(path: &Path, suffixes: &[&str], text: &str) {
        for (file, suffix) in database_files(path).iter().zip(["", "-wal", "-shm"]) {
            if suffixes.contains(&suffix) {
                fs::write(file, text).unwrap();
            }
        }
    }

    fn texts(path: &Path) -> [Option<String>; 3] {
        database_files(path).map(|file| fs::read_to_string(file).ok())
    }

    #[test]
    fn a_database_that_is_moved_aside_replaces_all_files_of_an_earlier_one() {
        let dir = tempfile::tempdir().unwrap();
        let (path, aside) = (dir.path().join("a.db"), dir.path().join("a.db.lost"));
        write(&aside, &["", "-wal"], "earlier");
        // A log without its database leaves the earlier database where it is.
        write(&path, &["-shm"], "log");
        move_aside(&path, &aside).unwrap();
        assert_eq!(texts(&aside), [Some("earlier".into()), Some("earlier".into()), Some("log".into())]);
        write(&path, &["", "-shm"], "later");
        move_aside(&path, &aside).unwrap();
        assert_eq!(texts(&aside), [Some("later".into()), None, Some("later".into())]);
        assert_eq!(texts(&path), [None, None, None]);
    }
}
