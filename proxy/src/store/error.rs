//! What can go wrong with a file of the store: which file, what, and what the operator does about it.
//!
//! Errors are texts by the time they leave the store, so that one failure can be told to many waiters.

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};

use rusqlite::{ErrorCode, ffi};

/// A fault of one file; [`fmt::Display`] names the file, the fault and the remedy, in one line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoreError {
    file: PathBuf,
    fault: Fault,
    /// Whether a sync failed: what the disk has of the pages written before is not known then.
    unsynced: bool,
}

/// What is wrong with the file.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Fault {
    /// SQLite refused.
    Sqlite {
        /// Its class of error, when it gave one.
        code: Option<ErrorCode>,
        /// Its own words.
        text: String,
    },
    /// The operating system refused.
    Io {
        /// Its class of error.
        kind: io::ErrorKind,
        /// Its own words.
        text: String,
    },
    /// Written by a newer proxy.
    Newer {
        /// The file's version.
        found: i64,
        /// The newest version that this proxy knows.
        known: i64,
    },
    /// Another program's database, or another of the proxy's own under the wrong name.
    Foreign,
    /// `state.db` is missing, empty or unreadable where it must exist.
    StateLost,
    /// The folder belongs to another user.
    OthersFolder {
        /// Its owner.
        owner: u32,
        /// The user of this process.
        own: u32,
    },
    /// Every user of the machine can write it.
    Writable {
        /// Its mode.
        mode: u32,
    },
    /// A key that every user of the machine can read.
    Readable {
        /// Its mode.
        mode: u32,
    },
    /// A symbolic link, which would be followed.
    Link,
    /// Another process works in this folder.
    Locked {
        /// The other process, as it named itself in the lock file.
        holder: String,
    },
    /// The SQLite library is older than the first without the WAL-reset race.
    OldLibrary {
        /// Its version.
        found: &'static str,
    },
    /// Committed frames of the write-ahead log are gone from memory, after a sync that failed.
    WalLost {
        /// The first one that is gone; 0 for the header.
        frame: u64,
    },
    /// A stored value that the proxy never writes.
    Malformed {
        /// Which value.
        what: &'static str,
    },
    /// The folder has no segment of the month that was named, or no segment at all.
    NoSegment {
        /// The months that it has; empty when it has none.
        found: String,
    },
    /// A command cannot do with this file what it was asked to do.
    Unable {
        /// Why not.
        why: &'static str,
        /// What to do instead.
        remedy: &'static str,
    },
    /// An identity key that rows were written with is not in its file any more.
    KeyLost,
    /// A line of a text file that is not what it claims to be.
    Line {
        /// Its number, from 1.
        number: usize,
        /// What it claims to be.
        what: &'static str,
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
    pub(super) fn io(file: &Path) -> impl Fn(io::Error) -> Self + Copy + '_ {
        |error| Self::new(file, Fault::Io { kind: error.kind(), text: error.to_string() })
    }

    /// For `map_err`: a sync of `file` that failed.
    pub(super) fn sync(file: &Path) -> impl Fn(io::Error) -> Self + Copy + '_ {
        |error| Self { unsynced: true, ..Self::io(file)(error) }
    }

    /// Whether a sync failed: nothing may be appended to the file before its WAL is settled.
    pub(super) fn is_unsynced(&self) -> bool {
        self.unsynced
    }

    /// The file at fault.
    pub fn file(&self) -> &Path {
        &self.file
    }

    /// What is wrong with it.
    pub fn fault(&self) -> &Fault {
        &self.fault
    }

    /// What the operator does about it.
    pub fn remedy(&self) -> &'static str {
        match &self.fault {
            Fault::Newer { .. } => {
                "start the cmiot-proxy that wrote it, or restore the folder from before that upgrade"
            }
            Fault::Foreign => "point `dir` of [store] at a folder of the proxy's own",
            Fault::StateLost => {
                "restore it from a backup, or run `cmiot-proxy serve --accept-lost-state` once, which starts over above every transid in the audit"
            }
            Fault::OthersFolder { .. } => {
                "run this as that user, or give the folder to this one (chown -R), or point `dir` of [store] at another"
            }
            Fault::Writable { .. } => "chmod o= it, and look whether somebody changed what is in it",
            Fault::Readable { .. } => {
                "chmod 600 it; if somebody may have read it, move it away, and a new one is made"
            }
            Fault::Link => "remove the link, or put the file itself there",
            Fault::Locked { .. } => "stop that process, or give this one a `dir` of its own in [store]",
            Fault::OldLibrary { .. } => {
                "build with rusqlite's feature `bundled`, or link SQLite 3.51.3 or later"
            }
            Fault::Closed => "the proxy is shutting down; ask again after its restart",
            Fault::KeyLost => {
                "restore the file from a backup, or remove the file: a new key is made then, and nobody can tell which cards the rows so far are about"
            }
            Fault::WalLost { .. } => {
                "check the disk, and start again: a start recovers what was synced before"
            }
            Fault::Malformed { .. } => "restore the file from a backup",
            Fault::NoSegment { found } if found.is_empty() => {
                "name the folder that holds the segments: `dir` of [store], or a copy of it"
            }
            Fault::NoSegment { .. } => "name a month that the folder has, or another folder",
            Fault::Unable { remedy, .. } => remedy,
            Fault::Line { .. } => "read the file as it was kept, or take that line out of a copy",
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

    /// Whether frames of the WAL are gone, which no further attempt brings back.
    pub(super) fn is_wal_lost(&self) -> bool {
        matches!(self.fault, Fault::WalLost { .. })
    }

    /// Whether another program keeps the file from being written: nothing was.
    pub(super) fn is_busy(&self) -> bool {
        matches!(
            self.fault,
            Fault::Sqlite { code: Some(ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked), .. }
        )
    }

    /// Whether something that belongs to the file could not be created or written.
    pub(super) fn is_denied(&self) -> bool {
        matches!(
            self.fault,
            Fault::Sqlite {
                code: Some(ErrorCode::CannotOpen | ErrorCode::ReadOnly | ErrorCode::PermissionDenied),
                ..
            }
        )
    }

    /// Whether what the file holds can no longer be read as a database.
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
                write!(f, "its version {found} is newer than this proxy, which knows up to {known}")
            }
            Self::Foreign => f.write_str("not a database of this kind and of this proxy"),
            Self::StateLost => {
                f.write_str("lost, though the folder has been in use: transids could be sent twice")
            }
            Self::OthersFolder { owner, own } => {
                write!(f, "the folder belongs to user {owner}, and this process is user {own}'s")
            }
            Self::Writable { mode } => write!(f, "every user of this machine can write it (mode {mode:04o})"),
            Self::Readable { mode } => {
                write!(f, "every user of this machine can read this key (mode {mode:04o})")
            }
            Self::Link => f.write_str("is a symbolic link, and none is followed here"),
            Self::Locked { holder } => write!(f, "the folder is in use by process {holder}"),
            Self::OldLibrary { found } => write!(f, "SQLite {found} can corrupt a WAL"),
            Self::WalLost { frame } => {
                write!(f, "frame {frame} of the write-ahead log cannot be read back after a failed sync")
            }
            Self::Malformed { what } => write!(f, "holds a malformed {what}"),
            Self::NoSegment { found } if found.is_empty() => {
                f.write_str("the folder has no segment of the audit (audit-YYYY-MM.db)")
            }
            Self::NoSegment { found } => write!(f, "the folder has no segment of this month; it has {found}"),
            Self::Unable { why, .. } => f.write_str(why),
            Self::KeyLost => f.write_str("holds no key, though rows of its month were written with one"),
            Self::Line { number, what } => {
                write!(f, "line {number} cannot be read as the {what} it contains")
            }
            Self::Closed => f.write_str("closed"),
        }
    }
}

impl std::error::Error for StoreError {}
