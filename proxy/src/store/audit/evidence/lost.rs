//! Rows that an anchor knows and the folder no longer has: found at start, noted in the chain, acknowledged by command.
//!
//! The note `lost` says which rows of which segment and up to when; the note `acknowledged` ends what was lost before it.
//! Both are in the chain, or wait beside it, so that a later start and a later verification know.
//!
//! ```text
//! lost = month " rows " first "-" last " through " time, rounded up to the millisecond
//! ```

use std::path::Path;

use rusqlite::Connection;

use super::anchor::{self, Anchor};
use crate::clock::Time;
use crate::store::audit::log::columns::NoteRow;
use crate::store::audit::log::link;
use crate::store::audit::log::loss::{ACKNOWLEDGED, LOST, Loss, up_to_the_millisecond};
use crate::store::audit::log::month;
use crate::store::audit::log::notes::{self, Notes};
use crate::store::schema::{self, Kind};
use crate::store::{Fault, StoreError};

/// Rows are missing that nobody has acknowledged.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Lost {
    /// The time of the last anchor that knows them: requests up to it may have no record any more.
    pub through: Time,
}

/// What the notes say, in the chain and beside it.
#[derive(Debug, Default)]
pub(crate) struct Standing {
    /// All losses, acknowledged ones too, of the segments that were looked into.
    known: Vec<Loss>,
    /// Those that are not acknowledged.
    pub(crate) open: Vec<Loss>,
    /// The same of what was lost while this process wrote: it knows which transids those rows used.
    remembered: Vec<Loss>,
}

impl Standing {
    /// Takes notes in the order in which they were or will be written.
    fn take(&mut self, what: &str, detail: &str) {
        match what {
            LOST => {
                if let Some(loss) = Loss::parse(detail) {
                    for losses in [&mut self.known, &mut self.open] {
                        if !losses.contains(&loss) {
                            losses.push(loss.clone());
                        }
                    }
                }
            }
            ACKNOWLEDGED => {
                self.open.clear();
                self.remembered.clear();
            }
            _ => {}
        }
    }

    /// Takes the notes that have just become rows; whether any of them is about losses, and how many acknowledge them.
    pub(crate) fn take_rows<'a>(&mut self, notes: impl Iterator<Item = &'a NoteRow>) -> (bool, u64) {
        let (mut any, mut acknowledged) = (false, 0);
        for note in notes {
            any |= [LOST, ACKNOWLEDGED].contains(&note.what);
            acknowledged += u64::from(note.what == ACKNOWLEDGED);
            self.take(note.what, &note.detail);
        }
        (any, acknowledged)
    }

    /// Takes rows that were lost while this process wrote them.
    pub(crate) fn remember(&mut self, loss: Loss) {
        self.known.push(loss.clone());
        self.remembered.push(loss);
    }

    /// Whether some are not acknowledged whose transids this process knows.
    pub(crate) fn lost_while_running(&self) -> bool {
        !self.remembered.is_empty()
    }

    /// Whether a note is of these rows, or of more of them.
    fn knows(&self, loss: &Loss) -> bool {
        self.known.iter().any(|known| known.month == loss.month && known.through >= loss.through)
    }

    /// Up to when requests may have no record.
    pub(crate) fn through(&self) -> Option<Time> {
        self.open.iter().map(|loss| loss.through).max()
    }

    /// What the operator is told while losses are open.
    pub(crate) fn alarm(&self) -> Option<String> {
        let losses: Vec<String> = self.open.iter().chain(&self.remembered).map(Loss::to_string).collect();
        (!losses.is_empty()).then(|| {
            format!(
                "audit rows are missing: {}; find out why (of a segment that is there and cannot be read, the log says \
                 why), keep what you have of them in another folder, and end this with `cmiot-proxy audit acknowledge`",
                losses.join(", ")
            )
        })
    }
}

/// What stands by the notes: those in the newest segments, back to the last acknowledgement, and those that wait.
pub(crate) fn standing(dir: &Path) -> Result<Standing, StoreError> {
    let mut chain = Vec::new();
    for month in month::list(dir)? {
        match read_notes(&month.path(dir)) {
            Ok(mut notes) => {
                let ends = notes.iter().any(|(what, _)| what == ACKNOWLEDGED);
                notes.append(&mut chain);
                chain = notes;
                if ends {
                    break;
                }
            }
            // Another's business: opening it for writing, or verifying it, says what is wrong.
            Err(error) => tracing::debug!(%error, "notes of a loss are not read here"),
        }
    }
    let mut standing = Standing::default();
    chain.iter().for_each(|(what, detail)| standing.take(what, detail));
    let waiting = Notes::default().pending(dir);
    waiting.iter().for_each(|(_, note)| standing.take(note.what, &note.detail));
    Ok(standing)
}

fn read_notes(path: &Path) -> Result<Vec<(String, String)>, StoreError> {
    let connection = schema::open_read_only(path, Kind::Audit)?;
    let read = || {
        connection
            .prepare(
                "SELECT name.text, note.detail FROM note JOIN name ON name.id = note.what
                 WHERE note.what IN (SELECT id FROM name WHERE text IN (?1, ?2)) ORDER BY note.id",
            )?
            .query_map([LOST, ACKNOWLEDGED], |row| Ok((row.get(0)?, row.get(1)?)))?
            .collect::<rusqlite::Result<_>>()
    };
    read().map_err(StoreError::sqlite(path))
}

/// What stands at a start, after the newest segment was compared with the folder's last anchor of its month or a newer
/// one. A new loss leaves its note. To be called before a segment is opened for writing, which begins one that is gone.
pub(crate) fn at_start(dir: &Path, now: Time) -> Result<Standing, StoreError> {
    let mut standing = standing(dir)?;
    let Some(loss) = missing(dir)? else { return Ok(standing) };
    leave(dir, &mut standing, &loss, now)?;
    Ok(standing)
}

/// Leaves notes of segments that are over and cannot be read. Up to when requests are to be refused until the writer has
/// taken them.
pub(crate) fn unreadable(dir: &Path, losses: &[Loss], now: Time) -> Result<Option<Time>, StoreError> {
    if losses.is_empty() {
        return Ok(None);
    }
    let mut standing = standing(dir)?;
    let mut through = None;
    for loss in losses {
        if leave(dir, &mut standing, loss, now)? {
            through = through.max(Some(loss.through));
        }
    }
    Ok(through)
}

/// Leaves the note of a loss, unless there is one. Whether it did.
fn leave(dir: &Path, standing: &mut Standing, loss: &Loss, now: Time) -> Result<bool, StoreError> {
    if standing.knows(loss) {
        return Ok(false);
    }
    // Behind what waits already, whatever the clock says.
    let last = Notes::default().pending(dir).last().map(|(_, note)| note.at.as_micros() + 1);
    let at = now.max(Time::from_micros(last.unwrap_or(i64::MIN)));
    let note = NoteRow { at, what: LOST, detail: loss.to_string() };
    notes::leave(dir, &note)?;
    standing.take(LOST, &note.detail);
    Ok(true)
}

/// What the last anchor knows and the folder does not have.
fn missing(dir: &Path) -> Result<Option<Loss>, StoreError> {
    let anchors = anchor::tail(&dir.join(anchor::LOG));
    let Some((month, last)) = anchors.last().and_then(|last| Some((last.month()?, last))) else {
        return Ok(None);
    };
    let listed = month::list(dir)?;
    let first = match listed.first() {
        // Its month was left behind: a segment that is over is for `verify`.
        Some(newest) if *newest > month => return Ok(None),
        Some(newest) if *newest == month => match first_missing(&month.path(dir), &anchors, last) {
            Ok(first) => first,
            // Emptied: begun anew like one that is gone.
            Err(error) if matches!(error.fault(), Fault::Malformed { .. }) => Some(1),
            // Opening it for writing says what is wrong.
            Err(_) => None,
        },
        _ => Some(1),
    };
    let Some(first) = first else { return Ok(None) };
    // Numbers go on from the segment before.
    let before = listed.iter().find(|&&earlier| earlier < month).and_then(|earlier| {
        let connection = schema::open_read_only(&earlier.path(dir), Kind::Audit).ok()?;
        link::head(&connection).ok()?
    });
    let first = first.max(before.map_or(1, |head| head.last.saturating_add(1))).min(last.last);
    Ok(Some(Loss { month, first, last: last.last, through: up_to_the_millisecond(last.at) }))
}

/// The first row that the last anchor knows and the file does not have as it was; none when all is there.
fn first_missing(path: &Path, anchors: &[Anchor], last: &Anchor) -> Result<Option<i64>, StoreError> {
    let connection = schema::open_read_only(path, Kind::Audit)?;
    let sqlite = StoreError::sqlite(path);
    let Some(head) = link::head(&connection).map_err(sqlite)? else { return Ok(Some(1)) };
    if stands(&connection, last).map_err(sqlite)? {
        return Ok(None);
    }
    if head.last < last.last {
        return Ok(Some(head.last.saturating_add(1)));
    }
    // Other rows stand there: they are others from behind the last anchor that holds.
    for anchor in anchors.iter().rev().filter(|anchor| anchor.segment == last.segment) {
        if stands(&connection, anchor).map_err(sqlite)? {
            return Ok(Some(anchor.last.saturating_add(1)));
        }
    }
    Ok(Some(1))
}

/// Whether a batch ends at the anchor's row with its head, or the segment begins there.
fn stands(connection: &Connection, anchor: &Anchor) -> rusqlite::Result<bool> {
    connection.query_row(
        "SELECT EXISTS (SELECT 1 FROM batch WHERE last = ?1 AND lower(hex(hash)) = ?2)
             OR EXISTS (SELECT 1 FROM segment WHERE before = ?1 AND lower(hex(seed)) = ?2)",
        (anchor.last, &anchor.head),
        |row| row.get(0),
    )
}

/// Leaves the note that ends what is lost so far; which losses it ends.
///
/// # Errors
/// When the folder cannot be read or the note not be written.
pub fn acknowledge(dir: &Path, now: Time) -> Result<Vec<Loss>, StoreError> {
    let open = standing(dir)?.open;
    let losses: Vec<String> = open.iter().map(Loss::to_string).collect();
    let detail = if losses.is_empty() { "no loss is noted".to_owned() } else { losses.join(", ") };
    notes::leave(dir, &NoteRow { at: now, what: ACKNOWLEDGED, detail })?;
    Ok(open)
}

#[cfg(test)]
mod tests;
