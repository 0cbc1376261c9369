//! The identity of an open segment's files: whether the files at its path are still the open ones, and the files that
//! replace them if not.
//!
//! A process continues to write a removed or renamed file that it has open, and readers do not find those rows. So the
//! writer compares device and inode at each path with those that it opened: a missing file, or another one, is a loss.
//! A hard link elsewhere is no loss.

use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use crate::store::{StoreError, files};

/// Device and inode of a name and of the file that it leads to: a symbolic link is another file.
type Identity = [(u64, u64); 2];

/// The database, its WAL and its shared-memory index.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct SegmentIdentity([Option<Identity>; 3]);

impl SegmentIdentity {
    /// The files at a segment's path now.
    pub(crate) fn of(path: &Path) -> Result<Self, StoreError> {
        let [database, wal, index] = files::database_files(path);
        Ok(Self([identity(&database)?, identity(&wal)?, identity(&index)?]))
    }

    /// Whether it is the same database, even if the other files differ.
    pub(crate) fn is_same_database(&self, other: &Self) -> bool {
        self.0[0].is_some() && self.0[0] == other.0[0]
    }
}

fn identity(path: &Path) -> Result<Option<Identity>, StoreError> {
    let entry = fs::symlink_metadata(path).and_then(|entry| Ok([entry, fs::metadata(path)?]));
    match entry {
        Ok(found) => Ok(Some(found.map(|found| (found.dev(), found.ino())))),
        Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => {
            Ok(None)
        }
        Err(error) => Err(StoreError::io(path)(error)),
    }
}

/// Renames the files at a segment's path to `NAME.lost-N`, so that a new file can be created there: SQLite would apply
/// a foreign WAL to the new database. Returns the new name, unless there was nothing to keep.
pub(crate) fn set_aside(path: &Path) -> Result<Option<PathBuf>, StoreError> {
    let files = files::database_files(path);
    let length = |file: &Path| fs::metadata(file).map_or(0, |found| found.len());
    // Without a database and without frames there is nothing to keep.
    if length(&files[0]) == 0 && length(&files[1]) == 0 {
        for file in &files {
            gone(fs::remove_file(file)).map_err(StoreError::io(file))?;
        }
        return Ok(None);
    }
    let free = |aside: &PathBuf| files::database_files(aside).iter().all(|file| !file.exists());
    let aside = (1_u32..).map(|n| path.with_added_extension(format!("lost-{n}"))).find(free);
    let Some(aside) = aside else { return Ok(None) };
    for (from, to) in files.iter().zip(files::database_files(&aside)) {
        gone(fs::rename(from, to)).map_err(StoreError::io(from))?;
    }
    Ok(Some(aside))
}

/// A file that is not there needs neither.
fn gone(done: io::Result<()>) -> io::Result<()> {
    match done {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        done => done,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_hard_link_changes_nothing_and_a_removal_a_renaming_and_a_copy_do() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("audit-2026-01.db");
        for file in files::database_files(&path) {
            fs::write(file, "x").unwrap();
        }
        let identity = SegmentIdentity::of(&path).unwrap();
        fs::hard_link(&path, dir.path().join("backup")).unwrap();
        assert_eq!(SegmentIdentity::of(&path).unwrap(), identity);
        for file in files::database_files(&path) {
            let away = dir.path().join("away");
            fs::rename(&file, &away).unwrap();
            assert_ne!(SegmentIdentity::of(&path).unwrap(), identity, "{file:?} is missing");
            std::os::unix::fs::symlink(&away, &file).unwrap();
            assert_ne!(SegmentIdentity::of(&path).unwrap(), identity, "{file:?} is a link to it");
            fs::remove_file(&file).unwrap();
            fs::copy(&away, &file).unwrap();
            assert_ne!(SegmentIdentity::of(&path).unwrap(), identity, "{file:?} is another");
            fs::rename(&away, &file).unwrap();
            assert_eq!(SegmentIdentity::of(&path).unwrap(), identity);
        }
    }

    #[test]
    fn what_is_found_is_kept_under_a_name_of_its_own() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("audit-2026-01.db");
        let [database, wal, index] = files::database_files(&path);
        assert_eq!(set_aside(&path), Ok(None));
        fs::write(&index, "x").unwrap();
        fs::write(&wal, "").unwrap();
        assert_eq!(set_aside(&path), Ok(None));
        assert!(!wal.exists() && !index.exists());
        for n in 1..3 {
            fs::write(&database, format!("{n}")).unwrap();
            fs::write(&wal, "frames").unwrap();
            let aside = dir.path().join(format!("audit-2026-01.db.lost-{n}"));
            assert_eq!(set_aside(&path), Ok(Some(aside.clone())));
            assert_eq!(fs::read_to_string(aside).unwrap(), format!("{n}"));
            assert!(!database.exists() && !wal.exists());
        }
    }
}
