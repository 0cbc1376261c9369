//! The faults of the store's files: the file, the fault, and the operator's remedy.
//!
//! Outside the store an error is text, so that one failure can be reported to many waiters.

use std::ffi::OsStr;
use std::fmt;
use std::io;
use std::path::{Path, PathBuf};

use rusqlite::{ErrorCode, ffi};

/// A fault of one file; [`fmt::Display`] names the file, the fault and the remedy, in one line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoreError {
    file: PathBuf,
    fault: Fault,
    /// Whether a sync failed: which of the pages written before are on the disk is then unknown.
    unsynced: bool,
}

/// The fault of a file.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Fault {
    /// SQLite refused.
    Sqlite {
        /// SQLite's error code, if it gave one.
        code: Option<ErrorCode>,
        /// SQLite's message.
        text: String,
    },
    /// The operating system refused.
    Io {
        /// The class of error.
        kind: io::ErrorKind,
        /// The system's message.
        text: String,
    },
    /// Written by a newer proxy.
    Newer {
        /// The file's version.
        found: i64,
        /// The newest version that this proxy can read.
        known: i64,
    },
    /// A database of another program, or another database of the proxy under the wrong name.
    Foreign,
    /// `state.db` is missing, empty or unreadable where it must exist.
    StateLost,
    /// The folder belongs to another user.
    OthersFolder {
        /// User id of the owner.
        owner: u32,
        /// User id of this process.
        own: u32,
    },
    /// Every user of the machine can write to it.
    Writable {
        /// The permission bits.
        mode: u32,
    },
    /// A key that every user of the machine can read.
    Readable {
        /// The permission bits.
        mode: u32,
    },
    /// A symbolic link, which opening the file would follow.
    Link,
    /// A FIFO or a device, which could block the thread that opens it.
    NotPlain,
    /// Another process uses this folder.
    Locked {
        /// The other process's id, from the lock file.
        holder: String,
    },
    /// The SQLite library is older than the first without the WAL-reset race.
    OldLibrary {
        /// The version of the library.
        found: &'static str,
    },
    /// Committed frames of the write-ahead log can no longer be read after a sync that failed.
    WalLost {
        /// The number of the first lost frame; 0 for the header.
        frame: u64,
    },
    /// A stored value that the proxy never writes.
    Malformed {
        /// A name for the value.
        value: &'static str,
    },
    /// The folder has no segment of the given month, or no segment at all.
    NoSegment {
        /// The months of its segments; empty without any.
        found: String,
    },
    /// A command cannot do its work with this file.
    Unable {
        /// The reason.
        why: &'static str,
        /// An alternative for the operator.
        remedy: &'static str,
    },
    /// A backup, or the folder of a backup or of a restore, does not fit.
    Unfit {
        /// The reason.
        why: String,
        /// An alternative for the operator.
        remedy: &'static str,
    },
    /// The file no longer has the identity key with which rows were written.
    KeyLost,
    /// A line of a text file with invalid content.
    Line {
        /// The line's number, from 1.
        number: usize,
        /// The content that the line should have.
        content: &'static str,
    },
    /// The store has been closed.
    Closed,
}

impl StoreError {
    pub(crate) fn new(file: &Path, fault: Fault) -> Self {
        Self { file: file.to_owned(), fault, unsynced: false }
    }

    /// For `map_err`: an error of SQLite on `file`.
    pub(super) fn sqlite(file: &Path) -> impl Fn(rusqlite::Error) -> Self + Copy + '_ {
        |error| {
            let extended = error.sqlite_error().map(|error| error.extended_code);
            let fault = Fault::Sqlite { code: error.sqlite_error_code(), text: error.to_string() };
            let unsynced = matches!(extended, Some(ffi::SQLITE_IOERR_FSYNC | ffi::SQLITE_IOERR_DIR_FSYNC));
            Self { unsynced, ..Self::new(file, fault) }
        }
    }

    /// For `map_err`: an error of the operating system on `file`.
    pub(crate) fn io(file: &Path) -> impl Fn(io::Error) -> Self + Copy + '_ {
        |error| Self::new(file, Fault::Io { kind: error.kind(), text: error.to_string() })
    }

    /// For `map_err`: a failed sync of `file`.
    pub(super) fn sync(file: &Path) -> impl Fn(io::Error) -> Self + Copy + '_ {
        |error| Self { unsynced: true, ..Self::io(file)(error) }
    }

    /// Whether a sync failed: nothing may be appended to the file until its WAL is settled.
    pub(super) fn is_unsynced(&self) -> bool {
        self.unsynced
    }

    pub fn file(&self) -> &Path {
        &self.file
    }

    pub fn fault(&self) -> &Fault {
        &self.fault
    }

    /// The action for the operator.
    pub fn remedy(&self) -> &'static str {
        match &self.fault {
            // docs/operations.md, "Upgrade and rollback", has the same order.
            Fault::Newer { .. } if self.file.file_name() == Some(OsStr::new("cache.db")) => {
                "start the cmiot-proxy that wrote it, or a later one; or remove the file, which is only a cache"
            }
            Fault::Newer { .. } => {
                "start the cmiot-proxy that wrote it, or a later one; do not replace the file by an older copy: the last resort is `cmiot-proxy restore` of a backup from before the upgrade"
            }
            Fault::Foreign => "set `dir` of [store] to a folder that the proxy alone uses",
            Fault::StateLost => {
                "restore it from a backup, or run `cmiot-proxy serve --accept-lost-state` once, which starts again above every transid in the audit"
            }
            Fault::OthersFolder { .. } => {
                "run this as that user, or give the folder to this user (chown -R), or set `dir` of [store] to another folder"
            }
            Fault::Writable { .. } => "chmod o= it, and check whether another user changed its contents",
            Fault::Readable { .. } => {
                "chmod 600 it; if another user may have read it, move it away: the proxy then creates a new key"
            }
            Fault::NotPlain => "remove it",
            Fault::Link => "remove the link, or replace it by the file itself",
            Fault::Locked { .. } => "stop that process, or set another `dir` in [store] for this one",
            Fault::OldLibrary { .. } => {
                "build with rusqlite's feature `bundled`, or link SQLite 3.51.3 or later"
            }
            Fault::Closed => "the proxy is shutting down; retry after its restart",
            Fault::KeyLost => {
                "restore the file from a backup, or remove the file: the proxy then creates a new key, and the existing rows can no longer be linked to cards"
            }
            Fault::WalLost { .. } => {
                "check the disk, and start again: the start recovers the rows that were synced before"
            }
            Fault::Malformed { .. } => "restore the file from a backup",
            Fault::NoSegment { found } if found.is_empty() => {
                "name the folder that has the segments: `dir` of [store], or a copy of it"
            }
            Fault::NoSegment { .. } => "name a month that the folder has, or another folder",
            Fault::Unable { remedy, .. } | Fault::Unfit { remedy, .. } => remedy,
            Fault::Line { .. } => "use an unchanged copy of the file, or remove that line from a copy",
            Fault::Io { kind, .. } => match kind {
                io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => FULL,
                io::ErrorKind::PermissionDenied | io::ErrorKind::ReadOnlyFilesystem => DENIED,
                io::ErrorKind::NotFound | io::ErrorKind::NotADirectory | io::ErrorKind::IsADirectory => {
                    "check the path"
                }
                io::ErrorKind::AlreadyExists => "name another file, or remove this one first",
                _ => "check the disk and the mount",
            },
            Fault::Sqlite { code, .. } => match code {
                Some(ErrorCode::DiskFull) => FULL,
                Some(ErrorCode::CannotOpen | ErrorCode::ReadOnly | ErrorCode::PermissionDenied) => DENIED,
                Some(ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked) => {
                    "stop the other program that has the file open for writing"
                }
                Some(ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase) => {
                    "move the file aside, keep it for recovery, and restore a backup"
                }
                _ => "check the disk and the mount",
            },
        }
    }

    /// Whether frames of the WAL are lost; no further attempt can recover them.
    pub(super) fn is_wal_lost(&self) -> bool {
        matches!(self.fault, Fault::WalLost { .. })
    }

    /// Whether another program's lock prevented a write; nothing was written.
    pub(super) fn is_busy(&self) -> bool {
        matches!(
            self.fault,
            Fault::Sqlite { code: Some(ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked), .. }
        )
    }

    /// Whether the database or one of its other files could not be created or written.
    pub(super) fn is_denied(&self) -> bool {
        matches!(
            self.fault,
            Fault::Sqlite {
                code: Some(ErrorCode::CannotOpen | ErrorCode::ReadOnly | ErrorCode::PermissionDenied),
                ..
            }
        )
    }

    /// Whether the file does not exist.
    pub(super) fn is_missing(&self) -> bool {
        matches!(self.fault, Fault::Io { kind: io::ErrorKind::NotFound, .. })
    }

    /// Whether the contents can no longer be read as a database.
    pub(super) fn is_corrupt(&self) -> bool {
        matches!(
            self.fault,
            Fault::Malformed { .. }
                | Fault::Sqlite { code: Some(ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase), .. }
        )
    }
}

const FULL: &str = "make room on that disk";
const DENIED: &str = "check the owner and mode of the file and its folder, and that the mount is writable";

impl fmt::Display for StoreError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}; {}", self.file.display(), self.fault, self.remedy())
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Sqlite { text, .. } | Self::Io { text, .. } => f.write_str(text),
            Self::Newer { found, known } => {
                write!(
                    f,
                    "its version {found} is newer than this proxy, which supports versions up to {known}"
                )
            }
            Self::Foreign => f.write_str("not a database of this kind and of this proxy"),
            Self::StateLost => {
                f.write_str("lost, although the folder has been in use: transids could be sent twice")
            }
            Self::OthersFolder { owner, own } => {
                write!(f, "the folder belongs to user {owner}, and this process runs as user {own}")
            }
            Self::Writable { mode } => {
                write!(f, "every user of this machine can write to it (mode {mode:04o})")
            }
            Self::Readable { mode } => {
                write!(f, "every user of this machine can read this key (mode {mode:04o})")
            }
            Self::NotPlain => f.write_str("is not a plain file"),
            Self::Link => f.write_str("is a symbolic link, which the proxy does not follow here"),
            Self::Locked { holder } => write!(f, "the folder is in use by process {holder}"),
            Self::OldLibrary { found } => write!(f, "SQLite {found} can corrupt a WAL"),
            Self::WalLost { frame } => {
                write!(f, "frame {frame} of the write-ahead log cannot be read back after a failed sync")
            }
            Self::Malformed { value } => write!(f, "has a malformed {value}"),
            Self::NoSegment { found } if found.is_empty() => {
                f.write_str("the folder has no segment of the audit (audit-YYYY-MM.db)")
            }
            Self::NoSegment { found } => write!(f, "the folder has no segment of this month; it has {found}"),
            Self::Unable { why, .. } => f.write_str(why),
            Self::Unfit { why, .. } => f.write_str(why),
            Self::KeyLost => f.write_str("has no key, although rows of its month were written with one"),
            Self::Line { number, content } => {
                write!(f, "line {number} is not a valid {content}")
            }
            Self::Closed => f.write_str("closed"),
        }
    }
}

impl std::error::Error for StoreError {}
