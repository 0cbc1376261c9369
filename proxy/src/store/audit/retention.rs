//! Commands on a folder of segments, with or without a running proxy: prune, erase, back up.
//!
//! Only the writer writes the chain, so each command leaves a note that becomes a row. A deleted segment stays in the
//! manifest of every later one, so the rest still verifies.

use std::collections::BTreeSet;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use rusqlite::{Connection, OpenFlags};

use super::log::columns::NoteRow;
use super::log::identity::IdentityKey;
use super::log::month::{self, Month};
use super::log::{link, notes};
use super::reader::AuditReader;
use crate::clock::Time;
use crate::store::atomic_file::{self, AtomicFile, Existing};
use crate::store::schema::{self, Kind};
use crate::store::{Fault, StoreError, folder};

/// The least months that network logs must be kept in China (Cybersecurity Law, article 21).
pub const LEAST_MONTHS: u32 = 6;

/// The kinds of notes.
const PRUNED: &str = "pruned";
const ERASED: &str = "erased";

/// The most that the clock may be ahead of the newest record: a month without any request.
const IDLE: Duration = Duration::from_secs(31 * 86_400);

/// The time of the newest record, if the clock is ahead of it by more than a month: one of the two is wrong, or there
/// was no request for that long.
pub fn clock_ahead_of(dir: &Path, now: Time) -> Option<Time> {
    newest_record(dir).filter(|newest| now.since(*newest) > IDLE)
}

/// Also none when the newest segments cannot be read.
fn newest_record(dir: &Path) -> Option<Time> {
    AuditReader::new(dir).newest_record().ok().flatten()
}

/// The months before the last `keep` ones that have files, oldest first: a segment, one that was moved aside, or a key or
/// a WAL that an interrupted command left. The last month is that of the clock, of the newest record or of the newest segment,
/// whichever is the earliest: a wrong clock deletes nothing that a right one would keep. The month of the newest
/// segment is never among them.
///
/// # Errors
/// When the folder cannot be read.
pub fn prunable(dir: &Path, keep: u32, now: Time) -> Result<Vec<Month>, StoreError> {
    let newest = month::list(dir)?.first().copied();
    let last =
        [newest, newest_record(dir).map(Month::of)].into_iter().flatten().fold(Month::of(now), Month::min);
    let oldest_kept = last.minus(keep.saturating_sub(1));
    let months: BTreeSet<Month> = files(dir)?.into_iter().map(|(month, _)| month).collect();
    let is_prunable = |month: &Month| *month < oldest_kept && Some(*month) != newest;
    Ok(months.into_iter().filter(is_prunable).collect())
}

/// The files in a folder that belong to a month by their name.
fn files(dir: &Path) -> Result<Vec<(Month, PathBuf)>, StoreError> {
    let io = StoreError::io(dir);
    let mut found = Vec::new();
    for entry in fs::read_dir(dir).map_err(io)? {
        let entry = entry.map_err(io)?;
        let month = entry.file_name().to_str().and_then(month_of_file);
        found.extend(month.map(|month| (month, entry.path())));
    }
    Ok(found)
}

/// Leaves the note about an act of an operator that changes nothing here, such as an export, for the process that owns the
/// folder. `detail` says who did it, from where, and what was selected.
///
/// # Errors
/// When the folder is a copy, which no process owns, or cannot be written.
pub fn note_act(dir: &Path, what: &'static str, detail: String, now: Time) -> Result<(), StoreError> {
    if folder::is_copy(dir) {
        return Err(StoreError::new(
            dir,
            Fault::Unable { why: "the folder is a copy", remedy: "only the folder of a proxy records acts" },
        ));
    }
    notes::leave(dir, &NoteRow { at: now, what, detail })
}

/// The month of a file that this program or SQLite made: `audit-2026-01.db` or `.key`, unfinished (`.part`) or moved
/// aside (`.lost-1`), and SQLite's files of it. Other names are an operator's.
fn month_of_file(name: &str) -> Option<Month> {
    let (month, rest) = name.strip_prefix("audit-")?.split_at_checked("2026-01".len())?;
    let rest =
        ["-wal", "-shm", "-journal"].into_iter().find_map(|end| rest.strip_suffix(end)).unwrap_or(rest);
    let number = |end: &str| !end.is_empty() && end.bytes().all(|byte| byte.is_ascii_digit());
    let is_ours = match rest {
        ".db" | ".key" | ".db.part" | ".key.part" => true,
        rest => rest.strip_prefix(".db.lost-").is_some_and(number),
    };
    is_ours.then(|| Month::parse(month))?
}

/// Deletes a segment that has ended with all files of its month, its identity key first: an interrupted command leaves no
/// cards that can still be identified. Run again, it deletes the rest.
///
/// # Errors
/// When a file cannot be deleted.
pub fn prune(dir: &Path, month: Month, by: &str, now: Time) -> Result<(), StoreError> {
    notes::leave(dir, &NoteRow { at: now, what: PRUNED, detail: format!("{month} {by}") })?;
    IdentityKey::destroy(dir, month)?;
    for (_, file) in files(dir)?.into_iter().filter(|(of, _)| *of == month) {
        atomic_file::remove(&file).map_err(StoreError::io(&file))?;
    }
    atomic_file::sync_folder(&month.path(dir)).map_err(StoreError::io(dir))
}

/// Destroys the identity key of a month: its card hashes can no longer be linked to cards, and the chain stays whole.
/// Run again after an interruption, it leaves the missing note.
///
/// # Errors
/// When there is no such key and a note says that it was destroyed, when the month has not ended, or when the key
/// cannot be destroyed.
pub fn erase(dir: &Path, month: Month, by: &str, now: Time) -> Result<(), StoreError> {
    let unable =
        |why, remedy| Err(StoreError::new(&IdentityKey::path(dir, month), Fault::Unable { why, remedy }));
    let months = month::existing(dir)?;
    if months.first() == Some(&month) {
        return unable(
            "the month is not over: its key is in use",
            "run this again when the proxy has started the next month",
        );
    }
    if months.first().is_some_and(|newest| month > *newest) {
        month::of_month(dir, month)?;
    }
    if !IdentityKey::destroy(dir, month)? {
        if is_noted(dir, month)? {
            return unable("there is no key: it was erased before", "nothing is left to do");
        }
        month::of_month(dir, month)?;
        if !was_keyed(dir, month)? {
            return unable(
                "there is no key: the month holds cards as they are",
                "prune the month to remove its cards",
            );
        }
    }
    notes::leave(dir, &NoteRow { at: now, what: ERASED, detail: format!("{month} {by}") })
}

/// The digits of cards that the rows of a month show although its key is destroyed.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct KeptDigits {
    /// Rows show the last digits in addition to the first ones, as earlier versions wrote them.
    pub last: bool,
    /// Rows have the whole number: they were written without a key, before the configuration changed.
    pub all: bool,
}

/// Whether rows of the month show more of a card than its first digits. Reads every row if none does.
///
/// # Errors
/// When the segment cannot be read.
pub fn keeps_more(dir: &Path, month: Month) -> Result<KeptDigits, StoreError> {
    let path = month.path(dir);
    if !path.exists() {
        return Ok(KeptDigits::default());
    }
    schema::open_read_only(&path, Kind::Audit)?
        .query_row(
            "SELECT EXISTS (SELECT 1 FROM record WHERE substr(masked, -1) <> '*')
                 OR EXISTS (SELECT 1 FROM call WHERE substr(masked, -1) <> '*'),
                 EXISTS (SELECT 1 FROM record WHERE card IS NOT NULL AND key IS NULL)
                 OR EXISTS (SELECT 1 FROM call WHERE card IS NOT NULL AND key IS NULL)",
            [],
            |row| Ok(KeptDigits { last: row.get(0)?, all: row.get(1)? }),
        )
        .map_err(StoreError::sqlite(&path))
}

/// Whether rows of the month were written with a key.
fn was_keyed(dir: &Path, month: Month) -> Result<bool, StoreError> {
    let path = month.path(dir);
    match path.exists() {
        true => link::uses_key(&schema::open_read_only(&path, Kind::Audit)?, &path),
        false => Ok(false),
    }
}

/// Whether the erasure of a month is noted, in the chain or in a waiting note.
fn is_noted(dir: &Path, month: Month) -> Result<bool, StoreError> {
    // Earlier versions wrote the month alone.
    let name = month.to_string();
    if notes::any_waits(dir, ERASED, |detail| detail.split(' ').next() == Some(&name)) {
        return Ok(true);
    }
    for later in month::list(dir)?.into_iter().filter(|later| *later > month) {
        let path = later.path(dir);
        let noted: bool = schema::open_read_only(&path, Kind::Audit)?
            .query_row(
                "SELECT EXISTS (SELECT 1 FROM note JOIN name ON name.id = what WHERE text = ?1 AND (detail = ?2 OR detail LIKE ?2 || ' %'))",
                [ERASED, name.as_str()],
                |row| row.get(0),
            )
            .map_err(StoreError::sqlite(&path))?;
        if noted {
            return Ok(true);
        }
    }
    Ok(false)
}

/// Copies a segment in its present state into a new file, which verifies on its own. Readers and the writer continue.
/// The file gets its name when the copy is whole.
///
/// # Errors
/// When the segment cannot be read, or the file exists or cannot be written.
pub fn back_up(dir: &Path, month: Month, to: &Path) -> Result<PathBuf, StoreError> {
    let path = month::of_month(dir, month)?;
    let io = StoreError::io(to);
    if to.exists() {
        return Err(io(io::Error::from(io::ErrorKind::AlreadyExists)));
    }
    let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let source = Connection::open_with_flags(&path, flags).map_err(StoreError::sqlite(&path))?;
    let copy = AtomicFile::create(to, 0o600).map_err(io)?;
    let Some(name) = copy.part().to_str() else {
        return Err(StoreError::new(to, Fault::Malformed { value: "name: it is not UTF-8" }));
    };
    // Left by an interrupted copy: SQLite would apply it to this one.
    let mut journal = copy.part().as_os_str().to_owned();
    journal.push("-journal");
    atomic_file::remove(Path::new(&journal)).map_err(io)?;
    source.execute("VACUUM INTO ?1", [name]).map_err(StoreError::sqlite(to))?;
    copy.finish(Existing::Keep).map_err(io)?;
    Ok(to.to_owned())
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::super::evidence::verify::{Scope, verify};
    use super::super::tests::{NOON, row};
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
        hand.advance(Duration::from_secs(90 * 86_400));
        for days in [0, 30, 60, 90] {
            assert_eq!(store.append(row(month(days), "t")).wait(), Ok(()));
        }
        let months: Vec<Month> = [0, 30, 60, 90].map(|days| Month::of(month(days))).into();
        assert_eq!(prunable(dir.path(), 3, month(90)).unwrap(), months[..1]);
        assert_eq!(prunable(dir.path(), 1, month(900)).unwrap(), months[..3], "the newest stays");
        prune(dir.path(), months[0], "by=test", month(90)).unwrap();
        assert!(IdentityKey::read(dir.path(), months[0]).unwrap().is_none());
        erase(dir.path(), months[1], "by=test", month(91)).unwrap();
        assert!(IdentityKey::read(dir.path(), months[1]).unwrap().is_none());
        assert!(
            erase(dir.path(), months[1], "by=test", month(91)).is_err(),
            "it is gone, and a note says so"
        );
        assert!(erase(dir.path(), months[3], "by=test", month(91)).is_err(), "it is in use");
        let copy = tempfile::tempdir().unwrap();
        back_up(dir.path(), months[3], &copy.path().join("audit-2026-04.db")).unwrap();
        assert!(back_up(dir.path(), months[3], &copy.path().join("audit-2026-04.db")).is_err());
        store.close();
        hand.advance(Duration::from_secs(2 * 86_400));
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
        assert_eq!(notes, expected.map(|(what, month)| (what.to_owned(), format!("{month} by=test"))));
        drop(connection);
        let report = verify(dir.path(), &Scope::default(), |_, _| {}).unwrap();
        assert_eq!((report.damage, report.pruned.len()), (vec![], 1));
        // The copy of one month verifies as that month; of those before it nothing there says that they were pruned.
        let from = |from| verify(copy.path(), &Scope { from, ..Scope::default() }, |_, _| {}).unwrap();
        assert_eq!(from(Some(months[3])).damage, []);
        assert_eq!(from(None).damage.len(), 3);
    }

    /// Segments of four months with keys, closed.
    fn four_months(dir: &Path) -> Vec<Month> {
        let options = Options { identifiers: Identifiers::Keyed, ..Options::default() };
        let (clock, hand) = Clock::manual(NOON);
        let store = AuditStore::open(dir, options, clock).unwrap();
        hand.advance(Duration::from_secs(90 * 86_400));
        let days = [0, 30, 60, 90];
        for days in days {
            assert_eq!(store.append(row(month(days), "t")).wait(), Ok(()));
        }
        store.close();
        days.map(|days| Month::of(month(days))).into()
    }

    #[test]
    fn a_wrong_clock_deletes_no_month_that_a_right_one_would_keep() {
        let dir = tempfile::tempdir().unwrap();
        let months = four_months(dir.path());
        for (keep, gone) in [(1, 3), (2, 2), (3, 1), (4, 0)] {
            for days in [90, 120, 3_650] {
                assert_eq!(prunable(dir.path(), keep, month(days)).unwrap(), months[..gone], "{days} days");
            }
        }
        assert_eq!(prunable(dir.path(), 2, month(60)).unwrap(), months[..1], "earlier: the clock counts");
        assert_eq!(clock_ahead_of(dir.path(), month(90 + 31)), None);
        let later = month(90 + 31).plus(Duration::from_secs(1));
        assert_eq!(clock_ahead_of(dir.path(), later), Some(month(90)));
        // A month that a wrong clock began, without records yet.
        AuditStore::open(dir.path(), Options::default(), Clock::manual(month(900)).0).unwrap().close();
        assert_eq!(prunable(dir.path(), 3, month(901)).unwrap(), months[..1]);
        // Nothing that can be read: by the segment's name.
        for later in month::list(dir.path()).unwrap() {
            fs::write(later.path(dir.path()), "").unwrap();
        }
        assert_eq!(prunable(dir.path(), 12, month(9_000)).unwrap(), months);
        let empty = tempfile::tempdir().unwrap();
        assert_eq!(clock_ahead_of(empty.path(), month(900)), None);
    }

    fn left_of(dir: &Path, months: &[Month]) -> Vec<String> {
        let names = fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap());
        names.filter(|name| months.iter().any(|month| name.starts_with(&format!("audit-{month}")))).collect()
    }

    fn notes_of(dir: &Path) -> usize {
        fs::read_dir(dir)
            .unwrap()
            .filter(|entry| entry.as_ref().unwrap().file_name().to_str().unwrap().starts_with("note-"))
            .count()
    }

    #[test]
    fn what_an_interrupted_prune_left_is_deleted_by_the_next_one() {
        let dir = tempfile::tempdir().unwrap();
        let months = four_months(dir.path());
        // Killed after the note, after the segment's file, and between the files: each leaves a part of the month.
        let detail = format!("{} by=test", months[0]);
        notes::leave(dir.path(), &NoteRow { at: month(90), what: PRUNED, detail }).unwrap();
        for left in [".db-wal", ".db-shm"] {
            fs::write(dir.path().join(format!("audit-{}{left}", months[1])), "").unwrap();
        }
        fs::remove_file(months[1].path(dir.path())).unwrap();
        fs::remove_file(months[2].path(dir.path())).unwrap();
        fs::write(IdentityKey::path(dir.path(), months[2]).with_added_extension("part"), "ab").unwrap();
        let prunable = prunable(dir.path(), 1, month(90)).unwrap();
        assert_eq!(prunable, months[..3]);
        for &one in &prunable {
            prune(dir.path(), one, "by=test", month(90)).unwrap();
        }
        assert_eq!(left_of(dir.path(), &months[..3]), [""; 0]);
        assert_eq!(notes_of(dir.path()), 3);
        assert_eq!(super::prunable(dir.path(), 1, month(90)).unwrap(), []);
    }

    #[test]
    fn every_file_of_a_pruned_month_is_deleted_and_an_operators_files_stay() {
        let dir = tempfile::tempdir().unwrap();
        let months = four_months(dir.path());
        let write = |month: Month, end: &str| {
            fs::write(dir.path().join(format!("audit-{month}{end}")), "rows").unwrap();
        };
        let ours = [
            ".db-journal",
            ".db.lost-1",
            ".db.lost-1-wal",
            ".db.lost-1-shm",
            ".db.lost-12",
            ".db.part",
            ".db.part-journal",
            ".key.part",
        ];
        let theirs = [".db.bak", ".db.lost-", ".db.lost-x", ".db.lost-1.gz", ".csv", ".db.old-wal"];
        for end in ours.iter().chain(&theirs) {
            write(months[0], end);
        }
        // Of a month whose segment is gone, and of one that stays.
        let gone = Month::parse("2020-02").unwrap();
        write(gone, ".db.lost-1");
        write(months[1], ".db.lost-1");
        let prunable = prunable(dir.path(), 3, month(90)).unwrap();
        assert_eq!(prunable, [gone, months[0]]);
        prunable.iter().for_each(|&one| prune(dir.path(), one, "by=test", month(90)).unwrap());
        assert_eq!(left_of(dir.path(), &[gone]), [""; 0]);
        let mut left = left_of(dir.path(), &months[..1]);
        left.sort_unstable();
        let mut stay: Vec<String> = theirs.iter().map(|end| format!("audit-{}{end}", months[0])).collect();
        stay.sort_unstable();
        assert_eq!(left, stay);
        assert!(left_of(dir.path(), &months[1..2]).contains(&format!("audit-{}.db.lost-1", months[1])));
    }

    #[test]
    fn the_key_goes_before_the_rows_that_it_tells_about() {
        let dir = tempfile::tempdir().unwrap();
        let months = four_months(dir.path());
        // A folder in its place cannot be destroyed as a key.
        let key = IdentityKey::path(dir.path(), months[0]);
        fs::remove_file(&key).unwrap();
        fs::create_dir(&key).unwrap();
        prune(dir.path(), months[0], "by=test", month(90)).unwrap_err();
        assert!(months[0].path(dir.path()).exists());
    }

    #[test]
    fn an_interrupted_erasure_is_completed_and_noted_once() {
        let dir = tempfile::tempdir().unwrap();
        let months = four_months(dir.path());
        // Killed after the overwriting, and after the removal.
        fs::write(IdentityKey::path(dir.path(), months[0]), "0".repeat(64)).unwrap();
        fs::remove_file(IdentityKey::path(dir.path(), months[1])).unwrap();
        for &one in &months[..2] {
            assert!(IdentityKey::read(dir.path(), one).unwrap().is_none());
            erase(dir.path(), one, "by=test", month(91)).unwrap();
            erase(dir.path(), one, "by=test", month(91)).unwrap_err();
            assert!(!IdentityKey::path(dir.path(), one).exists());
        }
        assert_eq!(notes_of(dir.path()), 2);
        let options = Options { identifiers: Identifiers::Keyed, ..Options::default() };
        AuditStore::open(dir.path(), options, Clock::manual(month(92)).0).unwrap().close();
        assert_eq!(notes_of(dir.path()), 0);
        let error = erase(dir.path(), months[1], "by=test", month(93)).unwrap_err();
        assert!(error.to_string().contains("erased before"), "{error}");
    }

    #[test]
    fn a_backup_has_its_name_when_it_is_whole_and_replaces_what_an_interrupted_one_left() {
        let dir = tempfile::tempdir().unwrap();
        let months = four_months(dir.path());
        let to = tempfile::tempdir().unwrap();
        let copy = to.path().join("audit-2026-04.db");
        for left in ["audit-2026-04.db.part", "audit-2026-04.db.part-journal"] {
            fs::write(to.path().join(left), "of an interrupted one").unwrap();
        }
        // Not a database: nothing is left of a copy that fails.
        fs::write(dir.path().join("audit-2020-01.db"), "x".repeat(4_096)).unwrap();
        back_up(dir.path(), Month::parse("2020-01").unwrap(), &copy).unwrap_err();
        assert_eq!(fs::read_dir(to.path()).unwrap().count(), 0);
        back_up(dir.path(), months[3], &copy).unwrap();
        assert_eq!(fs::read_dir(to.path()).unwrap().count(), 1);
        assert_eq!(fs::metadata(&copy).unwrap().permissions().mode() & 0o777, 0o600);
    }

    #[test]
    fn a_month_whose_rows_show_more_than_the_first_digits_is_told_from_one_whose_rows_do_not() {
        let dir = tempfile::tempdir().unwrap();
        let months = four_months(dir.path());
        assert_eq!(keeps_more(dir.path(), months[3]), Ok(KeptDigits::default()));
        // As an earlier version wrote it.
        Connection::open(months[3].path(dir.path()))
            .unwrap()
            .execute_batch("DROP TRIGGER record_stays; UPDATE record SET masked = '1476****176' WHERE masked IS NOT NULL")
            .unwrap();
        assert_eq!(keeps_more(dir.path(), months[3]), Ok(KeptDigits { last: true, all: false }));
        assert_eq!(keeps_more(dir.path(), Month::parse("2020-01").unwrap()), Ok(KeptDigits::default()));
        // A month that began without a key.
        let dir = tempfile::tempdir().unwrap();
        for identifiers in [Identifiers::Plain, Identifiers::Keyed] {
            let options = Options { identifiers, ..Options::default() };
            let store = AuditStore::open(dir.path(), options, Clock::manual(NOON).0).unwrap();
            assert_eq!(store.append(row(NOON, "t")).wait(), Ok(()));
            store.close();
        }
        let expected = KeptDigits { last: false, all: true };
        assert_eq!(keeps_more(dir.path(), Month::of(NOON)), Ok(expected));
    }
}
