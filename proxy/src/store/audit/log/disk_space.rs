//! Free-space check: the audit stops while the disk still has room, before SQLite and other programs fail.

use std::io;
use std::path::Path;

use crate::alarms::{Alarms, Condition};
use crate::language::text;
use crate::store::{Fault, StoreError, blocks};

/// Free space above `min_free` below which the operator is warned; at most a twentieth of the disk.
const NEAR: u64 = 1 << 30;

/// The free space of a disk, in bytes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct DiskSpace {
    /// Free for this process.
    pub(crate) free: u64,
    /// Size of the disk.
    pub(crate) size: u64,
    /// The free space below which nothing is written.
    pub(crate) min_free: u64,
}

impl DiskSpace {
    /// That of the disk that holds `dir`. A disk with small blocks needs some free space in any case; see [`blocks`].
    ///
    /// # Errors
    /// The error of the system call.
    pub(crate) fn of(dir: &Path, min_free: u64) -> Result<Self, StoreError> {
        let disk = rustix::fs::statvfs(dir).map_err(|error| StoreError::io(dir)(error.into()))?;
        Ok(Self {
            free: disk.f_bavail.saturating_mul(disk.f_frsize),
            size: disk.f_blocks.saturating_mul(disk.f_frsize),
            min_free: blocks::small_of(&disk).map_or(min_free, |_| min_free.max(blocks::MIN_FREE)),
        })
    }

    /// Fails if fewer than `min_free` bytes are free.
    ///
    /// # Errors
    /// [`Fault::Io`] with [`io::ErrorKind::StorageFull`].
    pub(crate) fn check(&self, dir: &Path) -> Result<(), StoreError> {
        if self.free >= self.min_free {
            return Ok(());
        }
        let text = format!(
            "{} MiB free, and [audit] min_free asks for {} MiB",
            self.free >> 20,
            self.min_free >> 20
        );
        Err(StoreError::new(dir, Fault::Io { kind: io::ErrorKind::StorageFull, text }))
    }

    /// Raises the alarm below `min_free`, warns near it, and otherwise ends the alarm.
    pub(crate) fn report(&self, dir: &Path, alarms: &Alarms) {
        let (free, min_free) = (self.free >> 20, self.min_free >> 20);
        let dir = dir.display();
        if self.free < self.min_free {
            alarms.raise(
                Condition::Disk,
                text!(
                    "{free} MiB free in {dir}, below [audit] min_free ({min_free} MiB): no record is written: enlarge the disk, \
                     remove other files, or move old months to another disk (`cmiot-proxy audit backup`, then `audit \
                     prune`); remove no file of [store] dir by hand",
                    "{dir} 可用 {free} MiB，低于 [audit] min_free（{min_free} MiB）：不写入任何记录：请扩大磁盘、删除其他文件，\
                     或把旧月份移到其他磁盘（先 `cmiot-proxy audit backup`，再 `audit prune`）；不要手工删除 [store] dir 中的文件"
                ),
            );
        } else if self.is_near(alarms.holds(Condition::Disk)) {
            alarms.raise_warning(
                Condition::Disk,
                text!(
                    "{free} MiB free in {dir}: below [audit] min_free ({min_free} MiB) no record is written: enlarge the disk, \
                     remove other files, or move old months to another disk (`cmiot-proxy audit backup`, then `audit \
                     prune`); remove no file of [store] dir by hand",
                    "{dir} 可用 {free} MiB：低于 [audit] min_free（{min_free} MiB）时不写入任何记录：请扩大磁盘、删除其他文件，\
                     或把旧月份移到其他磁盘（先 `cmiot-proxy audit backup`，再 `audit prune`）；不要手工删除 [store] dir 中的文件"
                ),
            );
        } else {
            alarms.clear(Condition::Disk);
        }
    }

    /// Whether the free space is near `min_free`; once it was, until a tenth more is free.
    fn is_near(&self, was: bool) -> bool {
        let margin = NEAR.min(self.size / 20).max(self.min_free.min(self.size / 20));
        let limit = self.min_free.saturating_add(margin);
        self.free < if was { limit.saturating_add(margin / 10) } else { limit }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::{Clock, Time};

    const GIB: u64 = 1 << 30;

    #[test]
    fn a_disk_is_near_its_limit_before_it_is_below() {
        let alarms = Alarms::new(Clock::manual(Time::EPOCH).0);
        let dir = Path::new("/var/lib/cmiot-proxy");
        let report = |free| {
            DiskSpace { free, size: 100 * GIB, min_free: 64 << 20 }.report(dir, &alarms);
            alarms.list().first().map(|alarm| alarm.severity.name())
        };
        assert_eq!(report(2 * GIB), None);
        assert_eq!(report(GIB), Some("warning"));
        assert_eq!(report(GIB + (100 << 20)), Some("warning"), "it ends a tenth later");
        assert_eq!(report(63 << 20), Some("error"));
        assert_eq!(report(2 * GIB), None);
        // On a small disk the margin is a twentieth of it.
        let small = DiskSpace { free: 40 << 20, size: 100 << 20, min_free: 1 << 20 };
        assert!(!small.is_near(false));
        assert!(DiskSpace { free: 5 << 20, ..small }.is_near(false));
    }
}
