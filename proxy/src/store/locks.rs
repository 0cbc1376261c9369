//! The processes whose locks prevent writing to a database, read from `/proc/locks` (proc(5)).
//!
//! A user who may read a database may also take shared locks on it (fcntl(2)), and a shared lock on certain bytes of the
//! `-shm` file blocks the writer. The kernel lists each lock with its process.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use super::files::database_files;
use crate::language::{Language, Text, text};

/// The bytes of the `-shm` file that are the locks for writing, checkpointing and recovery (SQLite's walformat, 2.3).
const WRITE_LOCKS: std::ops::RangeInclusive<u64> = 120..=122;

/// A process that holds a lock, and the file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct LockHolder {
    /// None where the kernel does not list it: a process of another namespace, or a lock of an open file.
    process: Option<(u32, String)>,
    file: PathBuf,
}

/// The operation that a lock prevents.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum BlockedOperation {
    /// A commit in WAL mode, which readers of the database do not prevent.
    Commit,
    /// Entering or leaving WAL mode, which every other connection prevents.
    ModeChange,
}

/// One line of `/proc/locks`.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Lock {
    process: Option<u32>,
    exclusive: bool,
    device: (u32, u32),
    inode: u64,
    first: u64,
    last: u64,
}

/// The other processes whose locks prevent the operation; empty when they have released them, or the kernel lists none.
pub(super) fn holders(path: &Path, blocked: BlockedOperation) -> Vec<LockHolder> {
    let text = fs::read_to_string("/proc/locks").unwrap_or_default();
    let locks: Vec<Lock> = text.lines().filter_map(parse).collect();
    let mut holders = Vec::new();
    let [database, _, index] = database_files(path);
    for (file, is_index) in [(database, false), (index, true)] {
        let Ok(found) = fs::metadata(&file) else { continue };
        let device = (rustix::fs::major(found.dev()), rustix::fs::minor(found.dev()));
        let on_inode: Vec<&Lock> = locks.iter().filter(|lock| lock.inode == found.ino()).collect();
        // Some file systems list another device here than stat(2) reports.
        let exact = on_inode.iter().any(|lock| lock.device == device);
        for lock in on_inode.into_iter().filter(|lock| !exact || lock.device == device) {
            let blocks = if is_index {
                lock.first <= *WRITE_LOCKS.end() && lock.last >= *WRITE_LOCKS.start()
            } else {
                lock.exclusive || blocked == BlockedOperation::ModeChange
            };
            if blocks && lock.process != Some(std::process::id()) {
                let process = lock.process.map(|id| (id, name(id)));
                let holder = LockHolder { process, file: file.clone() };
                if !holders.contains(&holder) {
                    holders.push(holder);
                }
            }
        }
    }
    holders
}

/// The processes as part of a sentence; "another process" if none was found.
pub(super) fn describe(holders: &[LockHolder]) -> Text {
    if holders.is_empty() {
        return text!("another process", "另一个进程");
    }
    let texts: Vec<Text> = holders.iter().map(LockHolder::text).collect();
    let join =
        |language, separator| texts.iter().map(|text| text.of(language)).collect::<Vec<_>>().join(separator);
    Text { english: join(Language::English, ", "), chinese: join(Language::Chinese, "、") }
}

impl LockHolder {
    /// `process 4711 (sqlite3) on audit-2026-01.db-shm`
    fn text(&self) -> Text {
        let file = self.file.file_name().unwrap_or_default().display();
        match &self.process {
            Some((id, name)) => text!("process {id} ({name}) on {file}", "进程 {id}（{name}，文件 {file}）"),
            None => text!(
                "a process that the kernel does not name here on {file}",
                "内核没有在此列出的进程（文件 {file}）"
            ),
        }
    }
}

/// The program's name without control characters, so that it cannot end a line of the log.
fn name(process: u32) -> String {
    let name = fs::read_to_string(format!("/proc/{process}/comm")).unwrap_or_default();
    let name: String = name.trim().chars().filter(|c| !c.is_control()).collect();
    if name.is_empty() { "unknown".to_owned() } else { name }
}

/// `1: POSIX  ADVISORY  READ 4711 fe:00:131075 120 120`; none for a process that waits for a lock (`->`), and for other kinds.
fn parse(line: &str) -> Option<Lock> {
    let mut words = line.split_ascii_whitespace().skip(1);
    let kind = words.next()?;
    if !matches!(kind, "POSIX" | "OFDLCK") {
        return None;
    }
    let (_advisory, access) = (words.next()?, words.next()?);
    let process = words.next()?.parse::<i64>().ok()?;
    let mut file = words.next()?.split(':');
    let mut hex = || u32::from_str_radix(file.next()?, 16).ok();
    let device = (hex()?, hex()?);
    let inode = file.next()?.parse().ok()?;
    let first = words.next()?.parse().ok()?;
    let last = match words.next()? {
        "EOF" => u64::MAX,
        last => last.parse().ok()?,
    };
    Some(Lock {
        process: u32::try_from(process).ok().filter(|&id| id > 0),
        exclusive: access == "WRITE",
        device,
        inode,
        first,
        last,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_of_the_kernel_are_read() {
        let lock = Lock {
            process: Some(4711),
            exclusive: false,
            device: (0xfe, 1),
            inode: 131_075,
            first: 120,
            last: 120,
        };
        assert_eq!(parse("1: POSIX  ADVISORY  READ 4711 fe:01:131075 120 120"), Some(lock.clone()));
        let open_file = Lock { process: None, exclusive: true, first: 0, last: u64::MAX, ..lock };
        assert_eq!(parse("12: OFDLCK ADVISORY  WRITE -1 fe:01:131075 0 EOF"), Some(open_file));
        for other in [
            "1: -> POSIX  ADVISORY  WRITE 4712 fe:01:131075 120 120",
            "3: FLOCK  ADVISORY  WRITE 4713 fe:01:131075 0 EOF",
            "4: POSIX  ADVISORY",
            "",
        ] {
            assert_eq!(parse(other), None, "{other}");
        }
    }

    #[test]
    fn holders_are_named_and_without_one_it_is_another_process() {
        let file = PathBuf::from("data/audit-2026-01.db-shm");
        let holders = [
            LockHolder { process: Some((4711, "sqlite3".to_owned())), file: file.clone() },
            LockHolder { process: None, file },
        ];
        let described = describe(&holders);
        assert_eq!(
            described.english,
            "process 4711 (sqlite3) on audit-2026-01.db-shm, a process that the kernel does not name here on audit-2026-01.db-shm"
        );
        assert_eq!(
            described.chinese,
            "进程 4711（sqlite3，文件 audit-2026-01.db-shm）、内核没有在此列出的进程（文件 audit-2026-01.db-shm）"
        );
        assert_eq!(describe(&[]), text!("another process", "另一个进程"));
        assert_ne!(name(std::process::id()), "unknown");
    }
}
