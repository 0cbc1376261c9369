//! Plain files, opened without waiting: a FIFO or a device in the place of a file is an error, since it could block the
//! thread that opens it without limit.

use std::fs::{File, OpenOptions};
use std::io::{self, Read as _};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use rustix::fs::OFlags;

/// The content of a plain file.
///
/// # Errors
/// The kernel's, or that it is not a plain file.
pub fn read(path: &Path) -> io::Result<Vec<u8>> {
    let (mut file, len) = open(path)?;
    let mut bytes = Vec::with_capacity(len);
    file.read_to_end(&mut bytes)?;
    Ok(bytes)
}

/// The content of a plain file, which is UTF-8.
///
/// # Errors
/// The kernel's, that it is not a plain file, or that it is not UTF-8.
pub fn read_to_string(path: &Path) -> io::Result<String> {
    let (mut file, len) = open(path)?;
    let mut text = String::with_capacity(len);
    file.read_to_string(&mut text)?;
    Ok(text)
}

/// The file, and the capacity for its content: reading it moves no secret to another allocation.
fn open(path: &Path) -> io::Result<(File, usize)> {
    let flags = (OFlags::NONBLOCK | OFlags::NOCTTY).bits().cast_signed();
    let file = OpenOptions::new().read(true).custom_flags(flags).open(path)?;
    let found = file.metadata()?;
    if !found.is_file() {
        return Err(io::Error::other("it is not a plain file"));
    }
    // A byte more, so that the end is found without growing.
    let len = usize::try_from(found.len()).unwrap_or_default().saturating_add(1);
    Ok((file, len.min(1 << 30)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_plain_files_are_read() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("file");
        std::fs::write(&path, "text").unwrap();
        assert_eq!((read(&path).unwrap(), read_to_string(&path).unwrap()), (b"text".to_vec(), "text".into()));
        let fifo = folder.path().join("fifo");
        let made = std::process::Command::new("mkfifo").arg(&fifo).status().unwrap();
        assert!(made.success());
        for other in [&fifo, folder.path(), Path::new("/dev/zero")] {
            let error = read(other).unwrap_err().to_string();
            assert!(error.contains("not a plain file"), "{}: {error}", other.display());
        }
    }
}
