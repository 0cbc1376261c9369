//! What commands did to the audit, left for its writer: one file a note, since only one process writes the chain.
//!
//! `note-MICROS-WHAT`, its text the detail. Taken at the writer's start and whenever it keeps house.

use std::fs;
use std::path::{Path, PathBuf};

use super::super::StoreError;
use super::NoteRow;
use super::identity::write_secret;
use crate::clock::Time;

/// What there are notes of.
const KNOWN: [&str; 2] = ["erased", "pruned"];

/// Leaves a note.
///
/// # Errors
/// When it cannot be written.
pub(super) fn leave(dir: &Path, note: &NoteRow) -> Result<(), StoreError> {
    let path = dir.join(format!("note-{}-{}", note.at.as_micros(), note.what));
    write_secret(&path, note.detail.as_bytes())
}

/// The notes that wait, oldest first. What cannot be read waits on.
pub(super) fn pending(dir: &Path) -> Vec<(PathBuf, NoteRow)> {
    let entries = fs::read_dir(dir).into_iter().flatten().flatten();
    let mut notes: Vec<_> = entries.filter_map(|entry| read(entry.path())).collect();
    notes.sort_by_key(|(_, note)| note.at);
    notes
}

/// Removes a note that has become a row.
pub(super) fn done(path: &Path) {
    if let Err(error) = fs::remove_file(path) {
        tracing::warn!(file = %path.display(), %error, "a note was written down, and will be once more");
    }
}

fn read(path: PathBuf) -> Option<(PathBuf, NoteRow)> {
    let (at, what) = path.file_name()?.to_str()?.strip_prefix("note-")?.split_once('-')?;
    let at = Time::from_micros(at.parse().ok()?);
    let what = KNOWN.into_iter().find(|known| *known == what)?;
    let detail = fs::read_to_string(&path).ok()?;
    Some((path, NoteRow { at, what, detail }))
}
