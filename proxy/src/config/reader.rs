//! Reads the files that a configuration names, and keeps their list, so that a change of any of them is noticed.
//!
//! A secret that every user of the machine can read is refused (`[process] allow_world_readable_secrets`), and so is any
//! file that every user can write.

use std::collections::HashSet;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use cmiot_signer::Password;
use zeroize::Zeroizing;

use super::certificates::Validity;
use super::text::{self, Entry};
use super::watch::FileStamp;
use crate::units::Secret;

/// Where relative paths begin, what was read, and what was noticed along the way.
pub(super) struct SourceFiles<'a> {
    folder: &'a Path,
    allow_world_readable: bool,
    /// Every file that was read, as it looked just before.
    pub(super) files: Vec<FileStamp>,
    known: HashSet<PathBuf>,
    /// What works but should be changed.
    pub(super) warnings: Vec<String>,
    /// When the certificates that were read are valid.
    pub(super) certificates: Vec<Validity>,
}

impl<'a> SourceFiles<'a> {
    pub(super) fn new(folder: &'a Path, allow_world_readable: bool) -> Self {
        Self {
            folder,
            allow_world_readable,
            files: Vec::new(),
            known: HashSet::new(),
            warnings: Vec::new(),
            certificates: Vec::new(),
        }
    }

    /// A secret file's bytes without one closing line break.
    pub(super) fn secret(&mut self, path: &Path) -> Result<Zeroizing<Vec<u8>>, String> {
        let path = self.note(path, true)?;
        read_secret(&path)
    }

    /// The bytes of a file that is no secret.
    pub(super) fn bytes(&mut self, path: &Path) -> Result<Vec<u8>, String> {
        let path = self.note(path, false)?;
        fs::read(&path).map_err(|e| unreadable(&path, &e))
    }

    /// The text of a file that holds secrets among other things.
    pub(super) fn secret_text(&mut self, path: &Path) -> Result<Zeroizing<String>, String> {
        let path = self.note(path, true)?;
        fs::read_to_string(&path).map(Zeroizing::new).map_err(|e| unreadable(&path, &e))
    }

    /// The entries of a list: blanks and what follows a `#` do not count.
    pub(super) fn list(&mut self, path: &Path) -> Result<Vec<Entry>, String> {
        let path = self.note(path, false)?;
        let text = fs::read_to_string(&path).map_err(|e| unreadable(&path, &e))?;
        Ok(text::entries(&text))
    }

    /// Those of these files that were read.
    pub(super) fn seen(&self, paths: [&Option<PathBuf>; 2]) -> Vec<FileStamp> {
        let paths: Vec<_> = paths.into_iter().flatten().map(|path| self.folder.join(path)).collect();
        self.files.iter().filter(|file| paths.iter().any(|path| path == file.path())).cloned().collect()
    }

    /// Takes a file's look, before it is read, and refuses one that others can change, or read where it is secret.
    fn note(&mut self, path: &Path, secret: bool) -> Result<PathBuf, String> {
        let path = self.folder.join(path);
        if !self.known.contains(&path) {
            self.known.insert(path.clone());
            self.files.push(FileStamp::of(&path));
        }
        let found = fs::metadata(&path).map_err(|e| unreadable(&path, &e))?;
        let open = !secret || self.allow_world_readable;
        refuse_others(&path, &found, open).map_err(|what| format!("{}: {what}", path.display()))?;
        Ok(path)
    }
}

fn unreadable(path: &Path, error: &std::io::Error) -> String {
    format!("{}: cannot be read: {error}", path.display())
}

/// Refuses a file that every user of this machine can write, and one that every user can read unless it is `open`.
///
/// # Errors
/// A sentence with the remedy; the caller names the file.
pub(super) fn refuse_others(path: &Path, found: &fs::Metadata, open: bool) -> Result<(), String> {
    let mode = found.permissions().mode();
    let (shown, bits) = (path.display(), mode & 0o7777);
    if mode & 0o002 != 0 {
        return Err(format!("every user of this machine can change it (mode {bits:04o}): chmod o= {shown}"));
    }
    if mode & 0o004 != 0 && !open {
        return Err(format!(
            "every user of this machine can read this secret (mode {bits:04o}): chmod o= {shown}, or set [process] \
             allow_world_readable_secrets = true"
        ));
    }
    Ok(())
}

/// The three places where a password may be; exactly one is used.
pub(super) struct PasswordSource<'a> {
    /// What the keys are called: `password`, `previous_password`.
    pub(super) key: &'static str,
    pub(super) file: Option<&'a Path>,
    pub(super) env: Option<&'a str>,
    pub(super) text: Option<&'a Secret>,
}

impl PasswordSource<'_> {
    /// The password, or none where none of the three is given.
    pub(super) fn read_optional(
        &self,
        place: &str,
        reader: &mut SourceFiles<'_>,
    ) -> Result<Option<Password>, String> {
        let key = self.key;
        let checked = |bytes: &[u8], suffix: &str| {
            Password::new(bytes).map(Some).map_err(|e| format!("{place}: {key}{suffix}: {e}"))
        };
        match *self {
            Self { file: Some(path), env: None, text: None, .. } => {
                let bytes = reader.secret(path).map_err(|e| format!("{place}: {key}_file: {e}"))?;
                checked(&bytes, "_file")
            }
            Self { file: None, env: Some(name), text: None, .. } => {
                let value = std::env::var_os(name).ok_or_else(|| {
                    // What is no variable's name may be the password itself.
                    let named =
                        name.bytes().all(|b| b.is_ascii_uppercase() || b.is_ascii_digit() || b == b'_');
                    let shown = if named { name } else { "the variable that it names" };
                    format!("{place}: {key}_env: {shown} is not set in the environment")
                })?;
                checked(value.as_encoded_bytes(), "_env")
            }
            Self { file: None, env: None, text: Some(secret), .. } => checked(secret.expose(), ""),
            Self { file: None, env: None, text: None, .. } => Ok(None),
            _ => Err(format!("{place}: {key}_file, {key}_env and {key} exclude each other: keep one")),
        }
    }

    /// The password, which must be there.
    pub(super) fn read(&self, place: &str, reader: &mut SourceFiles<'_>) -> Result<Password, String> {
        let key = self.key;
        self.read_optional(place, reader)?
            .ok_or_else(|| format!("{place}: no password: add {key}_file = \"FILE\" or {key}_env = \"NAME\""))
    }
}

/// The bytes of a secret file without one closing line break, and without a byte-order mark.
///
/// # Errors
/// A sentence that names the file.
pub fn read_secret(path: &Path) -> Result<Zeroizing<Vec<u8>>, String> {
    let mut bytes =
        Zeroizing::new(fs::read(path).map_err(|e| format!("{}: cannot be read: {e}", path.display()))?);
    if bytes.starts_with(b"\xef\xbb\xbf") {
        // Copied into a buffer that is wiped too: shifting in place would leave the last bytes.
        bytes = Zeroizing::new(bytes[3..].to_vec());
    }
    if bytes.last() == Some(&b'\n') {
        bytes.pop();
        if bytes.last() == Some(&b'\r') {
            bytes.pop();
        }
    }
    Ok(bytes)
}
