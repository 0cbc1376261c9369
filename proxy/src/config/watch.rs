//! Notices that a configuration, or a file that it names, was changed.
//!
//! Looked at every few seconds: no mechanism of one file system, and a file that is replaced, or whose mode or owner is
//! changed, counts as well as one that is rewritten. A change counts once nothing has changed between two looks, so that
//! no half-written file is read. Each file's look is taken before it is read, so that a change during a load counts. What
//! was refused is tried again every `RETRY` looks: the remedy may be a file that is not among those looked at.

use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

/// Looks from a refusal to the next try.
const RETRY: u32 = 2;

/// A file, and how it looked.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct FileStamp {
    path: PathBuf,
    looks: FileStamps,
}

impl FileStamp {
    /// As it looks now.
    pub fn of(path: &Path) -> Self {
        Self { path: path.to_owned(), looks: look(path) }
    }

    /// Its path.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Device and inode; none where it was not there.
    pub fn id(&self) -> Option<(u64, u64)> {
        self.looks.map(|(device, inode, ..)| (device, inode))
    }
}

/// The files of a configuration, and how they looked.
#[derive(Debug)]
pub struct Watch {
    /// When the configuration was loaded.
    loaded: Vec<FileStamp>,
    /// At the last look.
    last: Vec<FileStamps>,
    /// When a changed configuration was refused, and the looks since then.
    refused: Option<(Vec<FileStamps>, u32)>,
}

/// Device, inode, size, time of the last change of the contents, and of the last change at all: mode and owner too. None
/// for a file that is not there.
type FileStamps = Option<(u64, u64, u64, i64, i64, i64, i64)>;

impl Watch {
    /// Of the files that a configuration was read from.
    pub fn new(files: &[FileStamp]) -> Self {
        let last = files.iter().map(|file| file.looks).collect();
        Self { loaded: files.to_vec(), last, refused: None }
    }

    /// Looks, and says whether to load the configuration now.
    pub fn is_due(&mut self) -> bool {
        let now: Vec<_> = self.loaded.iter().map(|file| look(&file.path)).collect();
        let rests = now == self.last;
        self.last.clone_from(&now);
        if !rests {
            return false;
        }
        match &mut self.refused {
            Some((tried, since)) => {
                *since += 1;
                *since >= RETRY || now != *tried
            }
            None => !now.iter().eq(self.loaded.iter().map(|file| &file.looks)),
        }
    }

    /// Notes that the configuration was refused: it is tried again.
    pub fn refused(&mut self) {
        self.refused = Some((self.last.clone(), 0));
    }
}

fn look(path: &Path) -> FileStamps {
    let file = std::fs::metadata(path).ok()?;
    Some((
        file.dev(),
        file.ino(),
        file.size(),
        file.mtime(),
        file.mtime_nsec(),
        file.ctime(),
        file.ctime_nsec(),
    ))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    fn watch(paths: &[&Path]) -> Watch {
        Watch::new(&paths.iter().map(|path| FileStamp::of(path)).collect::<Vec<_>>())
    }

    #[test]
    fn a_change_counts_when_it_rests() {
        let folder = tempfile::tempdir().unwrap();
        let (path, other) = (folder.path().join("a.toml"), folder.path().join("b"));
        std::fs::write(&path, "1").unwrap();
        let mut watched = watch(&[&path, &other]);
        assert!(!watched.is_due());
        std::fs::write(&path, "12").unwrap();
        assert!(!watched.is_due(), "it may still be written");
        assert!(watched.is_due());
        let mut watched = watch(&[&path, &other]);
        assert!(!watched.is_due(), "loaded");
        std::fs::write(&other, "").unwrap();
        assert!(!watched.is_due());
        assert!(watched.is_due(), "a file that was missing appeared");
    }

    #[test]
    fn a_change_of_the_mode_counts() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a");
        std::fs::write(&path, "1").unwrap();
        let mut watched = watch(&[&path]);
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600)).unwrap();
        assert!(!watched.is_due());
        assert!(watched.is_due());
    }

    #[test]
    fn a_change_after_the_look_and_before_the_end_of_the_load_counts() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a");
        std::fs::write(&path, "1").unwrap();
        let seen = FileStamp::of(&path);
        std::fs::write(&path, "while it was loaded").unwrap();
        let mut watched = Watch::new(&[seen]);
        assert!(!watched.is_due());
        assert!(watched.is_due());
    }

    #[test]
    fn what_was_refused_is_tried_again() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a");
        std::fs::write(&path, "1").unwrap();
        let mut watched = watch(&[&path]);
        watched.refused();
        assert!(!watched.is_due());
        assert!(watched.is_due(), "though nothing has changed");
        watched.refused();
        std::fs::write(&path, "12").unwrap();
        assert!(!watched.is_due());
        assert!(watched.is_due());
    }
}
