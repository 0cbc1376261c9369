//! Files that are whole or absent: written beside under a temporary name, synced, renamed; then their folder is synced.
//!
//! The temporary name is the file's own with `.part` behind it. Whoever writes it holds a lock (flock(2)) on it, so what a
//! killed process left is told from what another process is writing: the next one to write the same file removes it.

use std::fs::{self, File, OpenOptions, Permissions, TryLockError};
use std::io::{self, Write};
use std::os::unix::fs::{FileExt, MetadataExt, OpenOptionsExt, PermissionsExt, fchown};
use std::path::{Path, PathBuf};

use rustix::fs::{CWD, RenameFlags};

/// What a temporary name ends with.
const PART: &str = "part";

/// How often a temporary file is tried to be created while others remove what they take for an abandoned one.
const TRIES: u32 = 16;

/// What becomes of a file that has the final name already.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Existing {
    /// It stays, and the new file is an error.
    Keep,
    /// The new file takes its place.
    Replace,
}

/// A file that is being written. Dropped before [`AtomicFile::finish`], it leaves nothing.
#[derive(Debug)]
pub struct AtomicFile {
    file: File,
    part: PathBuf,
    path: PathBuf,
}

impl AtomicFile {
    /// Begins a file of this mode, whatever the umask.
    ///
    /// # Errors
    /// [`io::ErrorKind::ResourceBusy`] when another process is writing it, or what the system says.
    pub fn begin(path: &Path, mode: u32) -> io::Result<Self> {
        let part = path.with_added_extension(PART);
        for _ in 0..TRIES {
            match OpenOptions::new().read(true).write(true).create_new(true).mode(mode & 0o600).open(&part) {
                Ok(file) => {
                    // Where the file system knows no such locks, nothing tells an abandoned file from another.
                    if matches!(file.try_lock(), Err(TryLockError::WouldBlock)) {
                        continue;
                    }
                    let whole = Self { file, part, path: path.to_owned() };
                    whole.file.set_permissions(Permissions::from_mode(mode))?;
                    return Ok(whole);
                }
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => remove_abandoned(&part)?,
                Err(error) => return Err(error),
            }
        }
        Err(busy(&part))
    }

    /// Where it is written until it is finished.
    pub fn part(&self) -> &Path {
        &self.part
    }

    /// What is written into.
    pub fn file(&self) -> &File {
        &self.file
    }

    /// Gives the file to the owner of its folder when the superuser writes it, so that the proxy can read what root's
    /// commands leave for it.
    ///
    /// # Errors
    /// The system's.
    pub fn for_owner_of_folder(&self) -> io::Result<()> {
        if rustix::process::geteuid().is_root() {
            let owner = fs::metadata(folder(&self.path))?.uid();
            fchown(&self.file, Some(owner), None)?;
        }
        Ok(())
    }

    /// Syncs the file, gives it its name, and makes the name outlive a power loss.
    ///
    /// # Errors
    /// [`io::ErrorKind::AlreadyExists`] when there is a file that has to stay, or what the system says. Nothing has the
    /// final name then but what had it before.
    pub fn finish(self, existing: Existing) -> io::Result<()> {
        self.file.sync_all()?;
        match existing {
            Existing::Replace => fs::rename(&self.part, &self.path)?,
            Existing::Keep => rename_if_absent(&self.part, &self.path)?,
        }
        sync_folder(&self.path)
    }
}

impl Drop for AtomicFile {
    fn drop(&mut self) {
        // There is nothing of this name once it is finished: others wait for the lock before they create it.
        let ours = fs::metadata(&self.part).is_ok_and(|found| {
            self.file.metadata().is_ok_and(|own| own.ino() == found.ino() && own.dev() == found.dev())
        });
        if ours {
            let _: io::Result<()> = fs::remove_file(&self.part);
        }
    }
}

/// Writes a whole file of this mode.
///
/// # Errors
/// As [`AtomicFile::begin`] and [`AtomicFile::finish`].
pub fn write(path: &Path, bytes: &[u8], mode: u32, existing: Existing) -> io::Result<()> {
    let mut whole = AtomicFile::begin(path, mode)?;
    whole.file.write_all(bytes)?;
    whole.finish(existing)
}

/// Appends a line, which ends with a line break, and syncs it. A last line that was cut off is ended first, so that the new
/// one stands alone. A file that is created gets this mode, whatever the umask.
///
/// # Errors
/// The system's.
pub fn append_line(path: &Path, mode: u32, line: &str) -> io::Result<()> {
    let mut open = OpenOptions::new();
    open.read(true).append(true);
    let mut file = match open.open(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            let file = open.create_new(true).mode(mode & 0o600).open(path)?;
            file.set_permissions(Permissions::from_mode(mode))?;
            sync_folder(path)?;
            file
        }
        opened => opened?,
    };
    let mut last = [b'\n'];
    if let Some(end) = file.metadata()?.len().checked_sub(1) {
        file.read_exact_at(&mut last, end)?;
    }
    let ended = if last == [b'\n'] { line.to_owned() } else { format!("\n{line}") };
    file.write_all(ended.as_bytes())?;
    file.sync_data()
}

/// Removes what killed processes left under temporary names of files whose names begin with one of these. What another
/// process is writing stays.
pub fn sweep(dir: &Path, begins: &[&str]) {
    for entry in fs::read_dir(dir).into_iter().flatten().flatten() {
        let path = entry.path();
        let name = entry.file_name();
        let Some(stem) = name.to_str().and_then(|name| name.strip_suffix(".part")) else { continue };
        if begins.iter().any(|begin| stem.starts_with(begin)) {
            match remove_abandoned(&path) {
                Err(error) if error.kind() != io::ErrorKind::ResourceBusy => {
                    tracing::warn!(file = %path.display(), %error, "an unfinished file stays: remove it");
                }
                _ => {}
            }
        }
    }
}

/// Removes a file if it is there.
///
/// # Errors
/// When it is there and stays.
pub fn remove(path: &Path) -> io::Result<bool> {
    match fs::remove_file(path) {
        Ok(()) => Ok(true),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(error) => Err(error),
    }
}

/// Makes a name that was created or removed outlive a power loss.
///
/// # Errors
/// The system's.
pub fn sync_folder(path: &Path) -> io::Result<()> {
    File::open(folder(path))?.sync_all()
}

/// Removes a temporary file that nobody writes any more.
fn remove_abandoned(part: &Path) -> io::Result<()> {
    // A link is removed, not followed; anything else is not ours to open.
    if fs::symlink_metadata(part).is_ok_and(|found| found.is_file()) {
        match File::open(part) {
            Ok(file) if matches!(file.try_lock(), Err(TryLockError::WouldBlock)) => return Err(busy(part)),
            _ => {}
        }
    }
    remove(part).map(|_| ())
}

fn busy(part: &Path) -> io::Error {
    let text = format!("another process is writing {}", part.display());
    io::Error::new(io::ErrorKind::ResourceBusy, text)
}

fn rename_if_absent(from: &Path, to: &Path) -> io::Result<()> {
    use rustix::io::Errno;
    match rustix::fs::renameat_with(CWD, from, CWD, to, RenameFlags::NOREPLACE) {
        // Not every file system knows the flag.
        Err(Errno::INVAL | Errno::NOSYS | Errno::NOTSUP) => match fs::symlink_metadata(to) {
            Ok(_) => Err(io::Error::from(io::ErrorKind::AlreadyExists)),
            Err(_) => fs::rename(from, to),
        },
        renamed => Ok(renamed?),
    }
}

/// The folder that a name stands in.
fn folder(path: &Path) -> &Path {
    path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(dir: &Path) -> Vec<String> {
        let entries = fs::read_dir(dir).unwrap();
        let mut names: Vec<_> =
            entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names
    }

    #[test]
    fn a_file_has_its_name_when_it_is_whole_and_nothing_stays_of_one_that_is_not() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("key");
        let mut unfinished = AtomicFile::begin(&path, 0o600).unwrap();
        unfinished.file.write_all(b"half").unwrap();
        assert_eq!(names(dir.path()), ["key.part"]);
        drop(unfinished);
        assert_eq!(names(dir.path()), [""; 0]);
        write(&path, b"whole", 0o640, Existing::Keep).unwrap();
        assert_eq!((names(dir.path()), fs::read(&path).unwrap()), (vec!["key".to_owned()], b"whole".into()));
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o640);
        let error = write(&path, b"other", 0o600, Existing::Keep).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::AlreadyExists);
        assert_eq!((names(dir.path()).len(), fs::read(&path).unwrap()), (1, b"whole".into()));
        write(&path, b"other", 0o600, Existing::Replace).unwrap();
        assert_eq!((names(dir.path()).len(), fs::read(&path).unwrap()), (1, b"other".into()));
    }

    #[test]
    fn what_a_killed_process_left_is_removed_and_what_another_one_writes_is_not() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("copy");
        fs::write(dir.path().join("copy.part"), "of a killed one").unwrap();
        let writes = AtomicFile::begin(&path, 0o600).unwrap();
        assert_eq!(fs::read(writes.part()).unwrap(), b"");
        let error = AtomicFile::begin(&path, 0o600).unwrap_err();
        assert!(error.kind() == io::ErrorKind::ResourceBusy && error.to_string().contains("copy.part"));
        sweep(dir.path(), &["co"]);
        assert_eq!(names(dir.path()), ["copy.part"]);
        writes.finish(Existing::Keep).unwrap();
        assert_eq!(names(dir.path()), ["copy"]);
        for left in ["copy.part", "other.part"] {
            fs::write(dir.path().join(left), "of a killed one").unwrap();
        }
        sweep(dir.path(), &["co"]);
        assert_eq!(names(dir.path()), ["copy", "other.part"]);
    }

    #[test]
    fn a_line_behind_one_that_was_cut_off_stands_alone() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("log");
        append_line(&path, 0o640, "one\n").unwrap();
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o640);
        append_line(&path, 0o600, "two\n").unwrap();
        fs::write(&path, "one\ntw").unwrap();
        append_line(&path, 0o600, "three\n").unwrap();
        assert_eq!(fs::read_to_string(&path).unwrap(), "one\ntw\nthree\n");
    }
}
