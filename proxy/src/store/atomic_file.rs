//! Files that are complete or absent: written under a temporary name, synced, renamed; then their folder is synced.
//!
//! The temporary name is the file's own with the suffix `.part`. Its writer holds a lock (flock(2)) on it, which
//! distinguishes a file in use from one that a killed process left: the next writer of the same file removes the latter.

use std::fs::{self, File, OpenOptions, Permissions, TryLockError};
use std::io::{self, Write};
use std::os::unix::fs::{FileExt, MetadataExt, OpenOptionsExt, PermissionsExt, fchown};
use std::path::{Path, PathBuf};

use rustix::fs::{CWD, RenameFlags};

/// The suffix of temporary names.
const PART: &str = "part";

/// Attempts to create a temporary file while other processes remove it as abandoned, before it is locked.
const CREATE_ATTEMPTS: u32 = 16;

/// Handling of an existing file with the final name.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Existing {
    /// The existing file stays, and the new file is an error.
    Keep,
    /// The new file replaces it.
    Replace,
}

/// A file that is being written. Dropping it before [`AtomicFile::finish`] removes the temporary file.
#[derive(Debug)]
pub struct AtomicFile {
    file: File,
    part: PathBuf,
    path: PathBuf,
}

impl AtomicFile {
    /// Creates the temporary file with this mode, regardless of the umask.
    ///
    /// # Errors
    /// [`io::ErrorKind::ResourceBusy`] when another process is writing it, or an error of the system.
    pub fn create(path: &Path, mode: u32) -> io::Result<Self> {
        let part = path.with_added_extension(PART);
        for _ in 0..CREATE_ATTEMPTS {
            match OpenOptions::new().read(true).write(true).create_new(true).mode(mode & 0o600).open(&part) {
                Ok(file) => {
                    // A file system without such locks cannot distinguish an abandoned file from another.
                    if matches!(file.try_lock(), Err(TryLockError::WouldBlock)) {
                        continue;
                    }
                    let created = Self { file, part, path: path.to_owned() };
                    created.file.set_permissions(Permissions::from_mode(mode))?;
                    return Ok(created);
                }
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => remove_abandoned(&part)?,
                Err(error) => return Err(error),
            }
        }
        Err(busy(&part))
    }

    /// The temporary path.
    pub fn part(&self) -> &Path {
        &self.part
    }

    pub fn file(&self) -> &File {
        &self.file
    }

    /// Gives the file to the owner of its folder when the superuser writes it, so that the proxy can read files that
    /// commands of root leave for it.
    ///
    /// # Errors
    /// When the system refuses.
    pub fn for_owner_of_folder(&self) -> io::Result<()> {
        if rustix::process::geteuid().is_root() {
            let owner = fs::metadata(folder(&self.path))?.uid();
            fchown(&self.file, Some(owner), None)?;
        }
        Ok(())
    }

    /// Syncs the file, gives it its final name, and syncs the folder, so that the name survives a power loss.
    ///
    /// # Errors
    /// [`io::ErrorKind::AlreadyExists`] when a file with this name must stay, or an error of the system. The file with the
    /// final name is then the one from before, or absent.
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
        // After `finish` no file has the temporary name, or one of another process does: that one is not removed.
        let ours = fs::metadata(&self.part).is_ok_and(|found| {
            self.file.metadata().is_ok_and(|own| own.ino() == found.ino() && own.dev() == found.dev())
        });
        if ours {
            let _: io::Result<()> = fs::remove_file(&self.part);
        }
    }
}

/// Writes a complete file with this mode.
///
/// # Errors
/// As [`AtomicFile::create`] and [`AtomicFile::finish`].
pub fn write(path: &Path, bytes: &[u8], mode: u32, existing: Existing) -> io::Result<()> {
    let mut created = AtomicFile::create(path, mode)?;
    created.file.write_all(bytes)?;
    created.finish(existing)
}

/// Appends a line, which ends with a line break, and syncs it. A truncated last line is ended first, so that the new line
/// is separate. A new file gets this mode, regardless of the umask.
///
/// # Errors
/// When the system refuses.
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

/// Removes temporary files that killed processes left, of files whose names begin with one of the prefixes. A file that
/// another process is writing stays.
pub fn sweep(dir: &Path, prefixes: &[&str]) {
    for entry in fs::read_dir(dir).into_iter().flatten().flatten() {
        let path = entry.path();
        let name = entry.file_name();
        let Some(stem) = name.to_str().and_then(|name| name.strip_suffix(".part")) else { continue };
        if prefixes.iter().any(|prefix| stem.starts_with(prefix)) {
            match remove_abandoned(&path) {
                Err(error) if error.kind() != io::ErrorKind::ResourceBusy => {
                    tracing::warn!(file = %path.display(), %error, "cannot remove an unfinished file: remove it");
                }
                _ => {}
            }
        }
    }
}

/// Removes a file; returns false if it does not exist.
///
/// # Errors
/// When it exists and cannot be removed.
pub fn remove(path: &Path) -> io::Result<bool> {
    match fs::remove_file(path) {
        Ok(()) => Ok(true),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(error) => Err(error),
    }
}

/// Syncs the folder of a path, so that a created or removed name survives a power loss.
///
/// # Errors
/// When the system refuses.
pub fn sync_folder(path: &Path) -> io::Result<()> {
    File::open(folder(path))?.sync_all()
}

/// Removes a temporary file, unless another process is writing it.
fn remove_abandoned(part: &Path) -> io::Result<()> {
    // A link is removed, not followed; other kinds of files are not opened.
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
        // Not every file system supports the flag.
        Err(Errno::INVAL | Errno::NOSYS | Errno::NOTSUP) => match fs::symlink_metadata(to) {
            Ok(_) => Err(io::Error::from(io::ErrorKind::AlreadyExists)),
            Err(_) => fs::rename(from, to),
        },
        renamed => Ok(renamed?),
    }
}

/// The folder of a path; the working directory for a bare name.
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
    fn a_finished_file_has_its_name_and_an_unfinished_one_is_removed() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("key");
        let mut unfinished = AtomicFile::create(&path, 0o600).unwrap();
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
    fn an_abandoned_file_is_removed_and_one_in_use_is_not() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("copy");
        fs::write(dir.path().join("copy.part"), "left by a killed process").unwrap();
        let writer = AtomicFile::create(&path, 0o600).unwrap();
        assert_eq!(fs::read(writer.part()).unwrap(), b"");
        let error = AtomicFile::create(&path, 0o600).unwrap_err();
        assert!(error.kind() == io::ErrorKind::ResourceBusy && error.to_string().contains("copy.part"));
        sweep(dir.path(), &["co"]);
        assert_eq!(names(dir.path()), ["copy.part"]);
        writer.finish(Existing::Keep).unwrap();
        assert_eq!(names(dir.path()), ["copy"]);
        for left in ["copy.part", "other.part"] {
            fs::write(dir.path().join(left), "left by a killed process").unwrap();
        }
        sweep(dir.path(), &["co"]);
        assert_eq!(names(dir.path()), ["copy", "other.part"]);
    }

    #[test]
    fn a_line_after_a_truncated_one_is_separate() {
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
