//! Notices that a configuration, or a file that it names, was changed.
//!
//! Looked at every few seconds: no mechanism of one file system, and a file that is replaced counts as well as one that
//! is rewritten. A change counts once nothing has changed between two looks, so that no half-written file is read.

use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

/// The files, and how they looked.
#[derive(Debug)]
pub struct Watch {
    files: Vec<PathBuf>,
    /// When the configuration was loaded.
    loaded: Vec<Looks>,
    /// At the last look.
    last: Vec<Looks>,
}

/// Device, inode, size and time of the last change; none for a file that is not there.
type Looks = Option<(u64, u64, u64, i64, i64)>;

impl Watch {
    /// Of a configuration and the files that it was read from, as they look now.
    pub fn new(path: &Path, others: &[PathBuf]) -> Self {
        let files: Vec<_> = std::iter::once(path.to_owned()).chain(others.iter().cloned()).collect();
        let looks: Vec<_> = files.iter().map(|file| look(file)).collect();
        Self { files, last: looks.clone(), loaded: looks }
    }

    /// Whether there is a change that has come to rest; says so once for each.
    pub fn changed(&mut self) -> bool {
        let now: Vec<_> = self.files.iter().map(|file| look(file)).collect();
        let rests = now == self.last;
        self.last.clone_from(&now);
        let changed = rests && now != self.loaded;
        if changed {
            self.loaded = now;
        }
        changed
    }
}

fn look(path: &Path) -> Looks {
    let file = std::fs::metadata(path).ok()?;
    Some((file.dev(), file.ino(), file.size(), file.mtime(), file.mtime_nsec()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_change_counts_once_and_only_when_it_rests() {
        let folder = tempfile::tempdir().unwrap();
        let (path, other) = (folder.path().join("a.toml"), folder.path().join("b"));
        std::fs::write(&path, "1").unwrap();
        let mut watch = Watch::new(&path, std::slice::from_ref(&other));
        assert!(!watch.changed());
        std::fs::write(&path, "12").unwrap();
        assert!(!watch.changed(), "it may still be written");
        assert!(watch.changed());
        assert!(!watch.changed(), "told once");
        std::fs::write(&other, "").unwrap();
        assert!(!watch.changed());
        assert!(watch.changed(), "a file that was missing appeared");
    }
}
