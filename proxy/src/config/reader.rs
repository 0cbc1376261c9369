//! Reads the files that a configuration names, and keeps their list, so that a change of any of them is noticed.
//!
//! A secret that every user of the machine can read is refused (`[process] allow_world_readable_secrets`), and so is any
//! file that every user can write. In place of a secret's path, `credential:NAME` names a file of the folder that the
//! service manager passes in CREDENTIALS_DIRECTORY (systemd.exec(5), `LoadCredential=`).

use std::collections::HashSet;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use cmiot_signer::Password;
use zeroize::Zeroizing;

use super::certificates::Validity;
use super::error::{self, ConfigError};
use super::text::{self, Entry};
use super::watch::FileStamp;
use crate::language::{Text, text};
use crate::plain_file;
use crate::units::Secret;

/// The files that were read, and everything that was noticed along the way.
pub(super) struct SourceFiles<'a> {
    /// The folder that relative paths are relative to.
    folder: &'a Path,
    allow_world_readable: bool,
    /// Every file that was read, as it looked just before.
    pub(super) files: Vec<FileStamp>,
    known: HashSet<PathBuf>,
    /// Errors: with any of them there is no configuration.
    pub(super) problems: Vec<ConfigError>,
    /// Settings that work but should be changed.
    pub(super) warnings: Vec<Text>,
    /// The validity of the certificates that were read.
    pub(super) certificates: Vec<Validity>,
}

impl<'a> SourceFiles<'a> {
    pub(super) fn new(folder: &'a Path, allow_world_readable: bool) -> Self {
        Self {
            folder,
            allow_world_readable,
            files: Vec::new(),
            known: HashSet::new(),
            problems: Vec::new(),
            warnings: Vec::new(),
            certificates: Vec::new(),
        }
    }

    /// Notes the problem of a result without a value.
    pub(super) fn keep<T>(&mut self, result: Result<T, ConfigError>) -> Option<T> {
        result.map_err(|problem| self.problems.push(problem)).ok()
    }

    /// Notes a problem of a key.
    pub(super) fn problem(&mut self, key: impl Into<String>, problem: Text) {
        self.problems.push(ConfigError::new(key, problem));
    }

    /// The bytes of a secret file without one closing line break.
    pub(super) fn secret(&mut self, key: &str, path: &Path) -> Option<Zeroizing<Vec<u8>>> {
        let path = self.register(key, path, Contents::Secret)?;
        self.keep(read_without_line_break(&path).map_err(|e| unreadable(key, &path, &e)))
    }

    /// The bytes of a file that is no secret.
    pub(super) fn bytes(&mut self, key: &str, path: &Path) -> Option<Vec<u8>> {
        let path = self.register(key, path, Contents::Public)?;
        self.keep(plain_file::read(&path).map_err(|e| unreadable(key, &path, &e)))
    }

    /// The text of a file that holds secrets among other things.
    pub(super) fn secret_text(&mut self, key: &str, path: &Path) -> Option<Zeroizing<String>> {
        let path = self.register(key, path, Contents::Secret)?;
        self.keep(
            plain_file::read_to_string(&path).map(Zeroizing::new).map_err(|e| unreadable(key, &path, &e)),
        )
    }

    /// The entries of a list, without blank lines and comments.
    pub(super) fn list(&mut self, key: &str, path: &Path) -> Option<Vec<Entry>> {
        let path = self.register(key, path, Contents::Public)?;
        let text = self.keep(plain_file::read_to_string(&path).map_err(|e| unreadable(key, &path, &e)))?;
        Some(text::entries(&text))
    }

    /// Those of these files that were read.
    pub(super) fn seen(&self, paths: [&Option<PathBuf>; 2]) -> Vec<FileStamp> {
        let paths: Vec<_> = paths.into_iter().flatten().map(|path| self.folder.join(path)).collect();
        self.files.iter().filter(|file| paths.iter().any(|path| path == file.path())).cloned().collect()
    }

    /// Adds a file to the list, as it looks before it is read, and refuses one that others can change, or read where it
    /// is secret.
    fn register(&mut self, key: &str, path: &Path, contents: Contents) -> Option<PathBuf> {
        let path = match contents {
            Contents::Secret => self.keep(credential(key, path))?,
            Contents::Public => None,
        }
        .unwrap_or_else(|| self.folder.join(path));
        if !self.known.contains(&path) {
            self.known.insert(path.clone());
            self.files.push(FileStamp::of(&path));
        }
        let found = self.keep(fs::metadata(&path).map_err(|e| unreadable(key, &path, &e)))?;
        if found.is_dir() {
            let problem = error::is_a_folder().about(path.display());
            self.problems.push(ConfigError::new(key, problem).remedy(text!("name a file", "请指定一个文件")));
            return None;
        }
        let contents = if self.allow_world_readable { Contents::Public } else { contents };
        let private = refuse_others(&path, &found, contents).map_err(|error| ConfigError {
            key: key.to_owned(),
            problem: error.problem.about(path.display()),
            remedy: error.remedy,
            location: error.location,
        });
        self.keep(private)?;
        Some(path)
    }
}

/// Begins the value of a key that names a credential of the service manager.
const CREDENTIAL: &str = "credential:";

/// Whether the value of a key names a credential.
pub(super) fn names_credential(value: &Path) -> bool {
    value.as_os_str().as_encoded_bytes().starts_with(CREDENTIAL.as_bytes())
}

/// The path of the credential that a value names; none if the value is a path.
///
/// # Errors
/// When the name is not that of a file, or the service manager passed no credentials.
fn credential(key: &str, value: &Path) -> Result<Option<PathBuf>, ConfigError> {
    let Some(name) = value.to_str().and_then(|value| value.strip_prefix(CREDENTIAL)) else { return Ok(None) };
    if matches!(name, "" | "." | "..") || name.contains('/') {
        let problem = text!(
            "the name of a credential is not empty and has no slash",
            "凭据的名称不能为空，也不能含有斜杠"
        );
        return Err(ConfigError::new(key, problem.about(value.display())));
    }
    match std::env::var_os("CREDENTIALS_DIRECTORY") {
        Some(folder) if !folder.is_empty() => Ok(Some(Path::new(&folder).join(name))),
        _ => {
            let problem = text!(
                "no service manager passed credentials (CREDENTIALS_DIRECTORY is not set)",
                "服务管理器没有传入凭据（没有设置 CREDENTIALS_DIRECTORY）"
            );
            Err(ConfigError::new(key, problem.about(value.display())).remedy(text!(
                "add LoadCredential={name}:/PATH to the unit; in a shell, set CREDENTIALS_DIRECTORY to the folder of the \
                 file {name}",
                "请在 unit 中添加 LoadCredential={name}:/PATH；在 shell 中，请把 CREDENTIALS_DIRECTORY 设为文件 {name} \
                 所在的文件夹"
            )))
        }
    }
}

fn unreadable(key: &str, path: &Path, error: &std::io::Error) -> ConfigError {
    ConfigError::new(key, error::cannot_be_read(error).about(path.display()))
}

/// Whether every user of the machine may read a file.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Contents {
    Secret,
    Public,
}

/// Refuses a file that every user of this machine can write, and a secret that every user can read.
///
/// # Errors
/// The problem and the remedy; the caller adds file and key.
pub(super) fn refuse_others(
    path: &Path,
    found: &fs::Metadata,
    contents: Contents,
) -> Result<(), ConfigError> {
    let mode = found.permissions().mode();
    let (shown, bits) = (path.display(), mode & 0o7777);
    if mode & 0o002 != 0 {
        let problem = text!(
            "every user of this machine can change it (mode {bits:04o})",
            "本机的每个用户都能修改它（权限 {bits:04o}）"
        );
        return Err(ConfigError::new("", problem).remedy(text!("chmod o= {shown}", "chmod o= {shown}")));
    }
    if mode & 0o004 != 0 && contents == Contents::Secret {
        let problem = text!(
            "every user of this machine can read this secret (mode {bits:04o})",
            "本机的每个用户都能读取这个密钥文件（权限 {bits:04o}）"
        );
        return Err(ConfigError::new("", problem).remedy(text!(
            "chmod o= {shown}, or set [process] allow_world_readable_secrets = true",
            "chmod o= {shown}，或设置 [process] allow_world_readable_secrets = true"
        )));
    }
    Ok(())
}

/// The three sources that a password may come from; at most one is set.
pub(super) struct PasswordSource<'a> {
    /// The name of the keys: `password`, `previous_password`.
    pub(super) key: &'static str,
    pub(super) file: Option<&'a Path>,
    pub(super) env: Option<&'a str>,
    pub(super) text: Option<&'a Secret>,
}

impl PasswordSource<'_> {
    /// The password, which may be absent: then the inner option is none. The outer option is empty after a problem.
    pub(super) fn read_optional(
        &self,
        table: &str,
        reader: &mut SourceFiles<'_>,
    ) -> Option<Option<Password>> {
        self.read_as(table, reader, |bytes| Password::new(bytes).map_err(error::credential))
    }

    /// [`Self::read_optional`] as another type: `check` makes it from the bytes of the password, or says what is wrong.
    pub(super) fn read_as<T>(
        &self,
        table: &str,
        reader: &mut SourceFiles<'_>,
        check: impl Fn(&[u8]) -> Result<T, Text>,
    ) -> Option<Option<T>> {
        let key = self.key;
        let of_file = |bytes: &[u8]| {
            let problem = match std::str::from_utf8(bytes) {
                Err(_) => error::is_not_utf8(),
                Ok(text) if text.contains(['\n', '\r']) => text!("has more than one line", "不止一行"),
                Ok(text) if !text.is_empty() && text.trim().is_empty() => {
                    text!("has nothing but blanks", "只有空白字符")
                }
                Ok(_) => return Ok(()),
            };
            let error = ConfigError::new(format!("{table}: {key}_file"), problem);
            Err(error.remedy(text!(
                "write the password alone; one line break after it is not part of it",
                "请只写密码；其后的一个换行不属于密码"
            )))
        };
        let checked = |bytes: &[u8], suffix: &str| {
            let wrong = |error| ConfigError::new(format!("{table}: {key}{suffix}"), error);
            check(bytes).map(Some).map_err(wrong)
        };
        let read = match *self {
            Self { file: Some(path), env: None, text: None, .. } => {
                let bytes = reader.secret(&format!("{table}: {key}_file"), path)?;
                of_file(&bytes).and_then(|()| checked(&bytes, "_file"))
            }
            Self { file: None, env: Some(name), text: None, .. } => match std::env::var_os(name) {
                Some(value) => checked(value.as_encoded_bytes(), "_env"),
                None => {
                    // Text that is not the name of a variable may be the password itself.
                    let named =
                        name.bytes().all(|b| b.is_ascii_uppercase() || b.is_ascii_digit() || b == b'_');
                    let problem = match named {
                        true => text!("{name} is not set in the environment", "没有设置环境变量 {name}"),
                        false => text!(
                            "the variable that it names is not set in the environment",
                            "没有设置它指定的环境变量"
                        ),
                    };
                    Err(ConfigError::new(format!("{table}: {key}_env"), problem))
                }
            },
            Self { file: None, env: None, text: Some(secret), .. } => checked(secret.expose(), ""),
            Self { file: None, env: None, text: None, .. } => Ok(None),
            _ => {
                let problem = text!(
                    "{key}_file, {key}_env and {key} exclude each other",
                    "{key}_file、{key}_env 和 {key} 不能同时使用"
                );
                Err(ConfigError::new(table, problem).remedy(error::keep_one()))
            }
        };
        reader.keep(read)
    }

    /// The password, which must be there.
    pub(super) fn read(&self, table: &str, reader: &mut SourceFiles<'_>) -> Option<Password> {
        let read = self.read_optional(table, reader)?;
        self.require(read, table, reader)
    }

    /// A password that was read, which must be there.
    pub(super) fn require<T>(&self, read: Option<T>, table: &str, reader: &mut SourceFiles<'_>) -> Option<T> {
        let key = self.key;
        let missing = || {
            let remedy = text!(
                "add {key}_file = \"FILE\" or {key}_env = \"NAME\"",
                "请添加 {key}_file = \"FILE\" 或 {key}_env = \"NAME\""
            );
            ConfigError::new(table, text!("no password", "没有密码")).remedy(remedy)
        };
        reader.keep(read.ok_or_else(missing))
    }
}

/// The bytes of a secret file without one closing line break, and without a byte-order mark.
///
/// # Errors
/// [`ConfigError`] that names the file.
pub fn read_secret(path: &Path) -> Result<Zeroizing<Vec<u8>>, ConfigError> {
    read_without_line_break(path).map_err(|e| ConfigError::of_file(path, error::cannot_be_read(&e)))
}

fn read_without_line_break(path: &Path) -> std::io::Result<Zeroizing<Vec<u8>>> {
    let mut bytes = Zeroizing::new(plain_file::read(path)?);
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
