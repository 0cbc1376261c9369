//! What commands do to a folder of segments, while the proxy serves or not: prune, erase, back up.
//!
//! Only the writer writes the chain, so each leaves a note that it makes a row of. A segment that goes stays in the
//! manifest of every later one, so the rest verifies.

use std::fs::{self, OpenOptions};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use rusqlite::{Connection, OpenFlags};

use super::super::schema;
use super::super::{Fault, StoreError};
use super::identity::{IdentityKey, sync_folder};
use super::segment::{self, Month};
use super::{NoteRow, notes};
use crate::clock::Time;

/// Network logs must be kept for so long in China (Cybersecurity Law, article 21).
pub const LEAST_MONTHS: u32 = 6;

/// The segments older than the last `keep` months; the newest of all is never among them.
///
/// # Errors
/// When the folder cannot be read.
pub fn prunable(dir: &Path, keep: u32, now: Time) -> Result<Vec<Month>, StoreError> {
    let oldest_kept = Month::of(now).minus(keep.saturating_sub(1));
    let older = segment::list(dir)?.into_iter().skip(1).filter(|month| *month < oldest_kept);
    let mut months: Vec<Month> = older.collect();
    months.reverse();
    Ok(months)
}

/// Deletes a segment that is over, with its identity key.
///
/// # Errors
/// When it cannot be deleted.
pub fn prune(dir: &Path, month: Month, now: Time) -> Result<(), StoreError> {
    let path = month.path(dir);
    notes::leave(dir, &NoteRow { at: now, what: "pruned", detail: month.to_string() })?;
    for file in schema::family(&path).into_iter().chain([IdentityKey::path(dir, month)]) {
        match fs::remove_file(&file) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                return Err(StoreError::io(&file)(error));
            }
            _ => {}
        }
    }
    sync_folder(&path)
}

/// Destroys the key of a month's identities: its cards are nobody's from here on, and the chain stays whole.
///
/// # Errors
/// When there is no such key, when the month is still written into, or when it cannot be destroyed.
pub fn erase(dir: &Path, month: Month, now: Time) -> Result<(), StoreError> {
    let path = IdentityKey::path(dir, month);
    let io = StoreError::io(&path);
    let newest = segment::list(dir)?.first().copied();
    if newest.is_none_or(|newest| month >= newest) {
        let text = "the month is not over: its key is in use";
        return Err(io(io::Error::new(io::ErrorKind::ResourceBusy, text)));
    }
    // Overwritten first: a file system that keeps old blocks may keep it all the same.
    let mut file = OpenOptions::new().write(true).open(&path).map_err(io)?;
    file.write_all(&[b'0'; 64]).and_then(|()| file.sync_all()).map_err(io)?;
    fs::remove_file(&path).map_err(io)?;
    sync_folder(&path)?;
    notes::leave(dir, &NoteRow { at: now, what: "erased", detail: month.to_string() })
}

/// Copies a segment as it is now into a new file, which verifies on its own. Its readers and writers go on.
///
/// # Errors
/// When the segment cannot be read, or the file exists or cannot be written.
pub fn back_up(dir: &Path, month: Month, to: &Path) -> Result<PathBuf, StoreError> {
    let path = month.path(dir);
    if to.exists() {
        return Err(StoreError::io(to)(io::Error::from(io::ErrorKind::AlreadyExists)));
    }
    let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let source = Connection::open_with_flags(&path, flags).map_err(StoreError::sqlite(&path))?;
    let Some(name) = to.to_str() else {
        return Err(StoreError::new(to, Fault::Malformed { what: "name: it is not UTF-8" }));
    };
    source.execute("VACUUM INTO ?1", [name]).map_err(StoreError::sqlite(to))?;
    fs::File::open(to).and_then(|file| file.sync_all()).map_err(StoreError::io(to))?;
    Ok(to.to_owned())
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::super::tests::{NOON, row};
    use super::super::verify::{Scope, verify};
    use super::super::{AuditStore, Identifiers, Options};
    use super::*;
    use crate::clock::Clock;

    fn month(days: u64) -> Time {
        NOON.plus(Duration::from_secs(days * 86_400))
    }

    #[test]
    fn what_is_pruned_and_erased_is_noted_and_the_rest_verifies() {
        let dir = tempfile::tempdir().unwrap();
        let (clock, hand) = Clock::manual(NOON);
        let options = Options { identifiers: Identifiers::Keyed, ..Options::default() };
        let store = AuditStore::open(dir.path(), options, clock.clone()).unwrap();
        for days in [0, 30, 60, 90] {
            assert_eq!(store.append(row(month(days), "t")).wait(), Ok(()));
        }
        let months: Vec<Month> = [0, 30, 60, 90].map(|days| Month::of(month(days))).into();
        assert_eq!(prunable(dir.path(), 3, month(90)).unwrap(), months[..1]);
        assert_eq!(prunable(dir.path(), 1, month(900)).unwrap(), months[..3], "the newest stays");
        prune(dir.path(), months[0], month(90)).unwrap();
        assert!(IdentityKey::read(dir.path(), months[0]).unwrap().is_none());
        erase(dir.path(), months[1], month(91)).unwrap();
        assert!(IdentityKey::read(dir.path(), months[1]).unwrap().is_none());
        assert!(erase(dir.path(), months[1], month(91)).is_err(), "it is gone");
        assert!(erase(dir.path(), months[3], month(91)).is_err(), "it is in use");
        let copy = tempfile::tempdir().unwrap();
        back_up(dir.path(), months[3], &copy.path().join("audit-2026-04.db")).unwrap();
        assert!(back_up(dir.path(), months[3], &copy.path().join("audit-2026-04.db")).is_err());
        store.close();
        hand.set(month(92));
        AuditStore::open(dir.path(), options, clock).unwrap().close();
        let connection = Connection::open(months[3].path(dir.path())).unwrap();
        let notes: Vec<(String, String)> = connection
            .prepare("SELECT text, detail FROM note JOIN name ON name.id = what ORDER BY note.id")
            .unwrap()
            .query_map([], |row| Ok((row.get(0)?, row.get(1)?)))
            .unwrap()
            .map(Result::unwrap)
            .collect();
        let expected = [("pruned", months[0]), ("erased", months[1])];
        assert_eq!(notes, expected.map(|(what, month)| (what.to_owned(), month.to_string())));
        drop(connection);
        for folder in [dir.path(), copy.path()] {
            let report = verify(folder, &Scope::default(), |_, _| {}).unwrap();
            assert_eq!(report.damage, []);
            assert!(!report.pruned.is_empty());
        }
    }
}
