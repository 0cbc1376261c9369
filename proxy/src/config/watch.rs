//! Detects that a configuration, or a file that it names, was changed.
//!
//! The files are polled every few seconds, since that works on every file system. A file counts as changed if it was
//! rewritten or replaced, or if its mode or owner differs. A change counts once two polls in a row find the same, so that
//! no half-written file is read. Each file is polled before it is read, so that a change during a load counts. A refused
//! configuration is loaded again every `RETRY` polls: the remedy may be a file that is not polled.

use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

/// Polls from a refusal to the next load.
const RETRY: u32 = 2;

/// A file and its metadata at a poll.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct FileStamp {
    path: PathBuf,
    metadata: Metadata,
}

impl FileStamp {
    /// The file in its present state.
    pub fn of(path: &Path) -> Self {
        Self { path: path.to_owned(), metadata: poll(path) }
    }

    /// Its path.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Device and inode; none if the file does not exist.
    pub fn id(&self) -> Option<(u64, u64)> {
        self.metadata.map(|(device, inode, ..)| (device, inode))
    }
}

/// The files of a configuration, and their metadata.
#[derive(Clone, Debug)]
pub struct Watch {
    /// When the configuration was loaded.
    loaded: Vec<FileStamp>,
    /// At the last poll.
    last: Vec<Metadata>,
    /// When a changed configuration was refused, and the polls since then.
    refused: Option<(Vec<Metadata>, u32)>,
}

/// Device, inode, size, and the times of the last change of the contents and of the last change of any kind, mode and owner
/// included. None for a file that does not exist.
type Metadata = Option<(u64, u64, u64, i64, i64, i64, i64)>;

impl Watch {
    /// Watches the files that a configuration was read from.
    pub fn new(files: &[FileStamp]) -> Self {
        let last = files.iter().map(|file| file.metadata).collect();
        Self { loaded: files.to_vec(), last, refused: None }
    }

    /// Polls the files; returns whether to load the configuration now.
    pub fn is_due(&mut self) -> bool {
        let now: Vec<_> = self.loaded.iter().map(|file| poll(&file.path)).collect();
        let settled = now == self.last;
        self.last.clone_from(&now);
        if !settled {
            return false;
        }
        match &mut self.refused {
            Some((tried, since)) => {
                *since += 1;
                *since >= RETRY || now != *tried
            }
            None => !now.iter().eq(self.loaded.iter().map(|file| &file.metadata)),
        }
    }

    /// Records that the configuration was refused, so that it is loaded again.
    pub fn refused(&mut self) {
        self.refused = Some((self.last.clone(), 0));
    }
}

fn poll(path: &Path) -> Metadata {
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
    fn a_change_counts_when_two_polls_agree() {
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
    fn a_change_after_the_poll_and_before_the_end_of_the_load_counts() {
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
    fn a_refused_configuration_is_loaded_again() {
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
