//! Notes that commands leave for the writer, one file per note: only one process writes the chain.
//!
//! The file `note-MICROS-WHAT` holds the detail. The writer reads notes at its start and in its maintenance.

use std::collections::HashSet;
use std::ffi::OsString;
use std::fs;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::columns::NoteRow;
use crate::clock::Time;
use crate::store::StoreError;
use crate::store::atomic_file::{AtomicFile, Existing};

/// The kinds of notes.
const KNOWN: [&str; 10] = [
    "acknowledged",
    "anchors-lost",
    "backup",
    "clients",
    "erased",
    "export",
    "key-changed",
    "lost",
    "pruned",
    "restored",
];

/// The most notes of one kind that commands leave at the same time; each takes the next microsecond.
const SAME_TIME: u64 = 10_000;

/// Leaves a note, unless one of the same kind and detail waits. Its time is after those of all notes that wait, even if the
/// clock was set back: an acknowledgement must not be read before the loss. The file belongs to the owner of the folder, who
/// must read it.
///
/// # Errors
/// When it cannot be written.
pub(crate) fn leave(dir: &Path, note: &NoteRow) -> Result<(), StoreError> {
    if waits(dir, note.what, &note.detail) {
        return Ok(());
    }
    let waiting = files(dir).filter(|(path, _, kind)| read(path, kind).is_ok());
    let first = waiting.map(|(_, at, _)| at.plus(Duration::from_micros(1))).max();
    let first = first.map_or(note.at, |first| first.max(note.at));
    for later in 0..SAME_TIME {
        let at = first.plus(Duration::from_micros(later));
        let path = dir.join(format!("note-{}-{}", at.as_micros(), note.what));
        match write(&path, &note.detail) {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
            written => return written.map_err(StoreError::io(&path)),
        }
    }
    Err(StoreError::io(dir)(io::Error::from(io::ErrorKind::AlreadyExists)))
}

/// Whether such a note waits for the writer.
fn waits(dir: &Path, what: &str, detail: &str) -> bool {
    any_waits(dir, what, |text| text == detail)
}

/// Whether a note of this kind waits for the writer whose detail `is` accepts.
pub(crate) fn any_waits(dir: &Path, what: &str, is: impl Fn(&str) -> bool) -> bool {
    files(dir).any(|(path, _, kind)| kind == what && fs::read_to_string(path).is_ok_and(|text| is(&text)))
}

fn write(path: &Path, detail: &str) -> io::Result<()> {
    let whole = AtomicFile::create(path, 0o600)?;
    whole.for_owner_of_folder()?;
    whole.file().write_all(detail.as_bytes())?;
    whole.finish(Existing::Keep)
}

/// The notes of a folder, for its writer.
#[derive(Default)]
pub(crate) struct Notes {
    /// Unreadable notes that are in the log already.
    reported: HashSet<PathBuf>,
}

impl Notes {
    /// The notes that wait, oldest first. An unreadable one keeps waiting, and is logged once.
    pub(crate) fn pending(&mut self, dir: &Path) -> Vec<(PathBuf, NoteRow)> {
        let mut notes = Vec::new();
        for (path, at, kind) in files(dir) {
            match read(&path, &kind) {
                Ok((what, detail)) => notes.push((path, NoteRow { at, what, detail })),
                // Taken after the list was read.
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(error) => self.report(path, &error),
            }
        }
        notes.sort_by_key(|(_, note)| note.at);
        notes
    }

    fn report(&mut self, path: PathBuf, error: &io::Error) {
        if !self.reported.contains(&path) {
            tracing::error!(
                file = %path.display(), %error,
                "the note of a command cannot be read, so the audit does not record what the command did; give the file to the proxy's user"
            );
            self.reported.insert(path);
        }
    }
}

/// Removes a note that has become a row.
pub(crate) fn done(path: &Path) {
    if let Err(error) = fs::remove_file(path) {
        tracing::warn!(file = %path.display(), %error, "cannot delete a processed note: it will be recorded again");
    }
}

/// Whether a file of this name is a note.
pub(crate) fn is_name(name: &str) -> bool {
    parse_name(name).is_some()
}

/// The time and the kind of a note.
fn parse_name(name: &str) -> Option<(Time, String)> {
    let (at, what) = name.strip_prefix("note-")?.split_once('-')?;
    // A name with a suffix, such as that of an unfinished file, is not a note's.
    let is_kind = what.bytes().all(|byte| byte.is_ascii_lowercase() || byte == b'-');
    is_kind.then_some((Time::from_micros(at.parse().ok()?), what.to_owned()))
}

/// Every note's file, its time and its kind.
fn files(dir: &Path) -> impl Iterator<Item = (PathBuf, Time, String)> {
    let named = |name: OsString| parse_name(name.to_str()?);
    fs::read_dir(dir)
        .into_iter()
        .flatten()
        .flatten()
        .filter_map(move |entry| named(entry.file_name()).map(|(at, what)| (entry.path(), at, what)))
}

fn read(path: &Path, kind: &str) -> io::Result<(&'static str, String)> {
    let invalid = |text: &str| io::Error::new(io::ErrorKind::InvalidData, text.to_owned());
    let what = KNOWN.into_iter().find(|known| *known == kind);
    let what = what.ok_or_else(|| invalid("this version knows no such note"))?;
    let detail = fs::read_to_string(path)?;
    if detail.is_empty() {
        return Err(invalid("it is empty"));
    }
    Ok((what, detail))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    const NOON: Time = Time::from_secs(1_768_449_600);

    fn note(what: &'static str, detail: &str) -> NoteRow {
        NoteRow { at: NOON, what, detail: detail.to_owned() }
    }

    #[test]
    fn notes_of_one_moment_are_all_kept_and_none_is_left_twice() {
        let dir = tempfile::tempdir().unwrap();
        for (what, detail) in
            [("pruned", "2025-01"), ("pruned", "2025-02"), ("erased", "2025-03"), ("pruned", "2025-01")]
        {
            leave(dir.path(), &note(what, detail)).unwrap();
        }
        let pending = Notes::default().pending(dir.path());
        let kept: Vec<_> = pending.iter().map(|(_, note)| (note.what, note.detail.as_str())).collect();
        assert_eq!(kept, [("pruned", "2025-01"), ("pruned", "2025-02"), ("erased", "2025-03")]);
        for (path, _) in &pending {
            assert_eq!(fs::metadata(path).unwrap().permissions().mode() & 0o777, 0o600);
            done(path);
        }
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 0);
    }

    #[test]
    fn a_note_comes_after_those_that_wait_although_the_clock_was_set_back() {
        let dir = tempfile::tempdir().unwrap();
        for (n, what) in (0..).zip(["lost", "acknowledged", "lost", "acknowledged"]) {
            let at = NOON.minus(Duration::from_secs(n));
            leave(dir.path(), &NoteRow { at, ..note(what, &n.to_string()) }).unwrap();
        }
        let pending = Notes::default().pending(dir.path());
        let order: Vec<_> = pending.iter().map(|(_, note)| note.detail.as_str()).collect();
        assert_eq!(order, ["0", "1", "2", "3"]);
    }

    #[test]
    fn a_note_that_cannot_be_read_waits_and_is_reported_once() {
        let dir = tempfile::tempdir().unwrap();
        leave(dir.path(), &note("pruned", "2025-01")).unwrap();
        for (name, text) in
            [("note-1-pruned", ""), ("note-2-melted", "2025-01"), ("note-3-pruned.part", "2025-02")]
        {
            fs::write(dir.path().join(name), text).unwrap();
        }
        // A folder of that name cannot be read as a file by any user.
        fs::create_dir(dir.path().join("note-4-erased")).unwrap();
        let mut notes = Notes::default();
        for _ in 0..2 {
            assert_eq!(notes.pending(dir.path()).len(), 1);
            let reported =
                ["note-1-pruned", "note-2-melted", "note-4-erased"].map(|name| dir.path().join(name));
            assert_eq!(notes.reported, HashSet::from(reported));
        }
    }
}
