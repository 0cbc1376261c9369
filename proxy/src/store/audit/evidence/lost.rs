//! Lost rows: an anchor knows them and the folder no longer has them. A start finds them and leaves a note; a command
//! acknowledges them.
//!
//! The note `lost` names the rows, their segment and their last time ([`Loss`]); the note `anchors-lost` says that no anchor
//! is left, so that missing rows would not be found; the note `acknowledged` ends all earlier ones. All are in the chain,
//! or wait as files, so that a later start and a later verification read them.

use std::path::Path;

use rusqlite::Connection;

use super::anchor::{self, Anchor};
use crate::clock::Time;
use crate::language::{Text, text};
use crate::store::audit::log::columns::NoteRow;
use crate::store::audit::log::link;
use crate::store::audit::log::loss::{ACKNOWLEDGED, ANCHORS_LOST, LOST, Loss, up_to_the_millisecond};
use crate::store::audit::log::month;
use crate::store::audit::log::notes::{self, Notes};
use crate::store::schema::{self, Kind};
use crate::store::{Fault, StoreError};

/// Rows are missing, and that is not acknowledged.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct OpenLoss {
    /// The time of the last anchor that knows them: requests up to it may no longer have a record.
    pub through: Time,
}

/// The losses that the notes name, in the chain and as files.
#[derive(Debug, Default)]
pub(crate) struct Losses {
    /// All losses in the segments that were read, acknowledged ones too.
    known: Vec<Loss>,
    /// The losses that are not acknowledged.
    open: Vec<Loss>,
    /// Losses while this process wrote, not acknowledged: it knows which transids those rows used.
    remembered: Vec<Loss>,
    /// The text of the note that the folder has lost its anchors, if that is not acknowledged.
    anchors: Option<String>,
}

impl Losses {
    /// Applies a note. Notes come in the order in which they were or will be written.
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
            ANCHORS_LOST => self.anchors = Some(detail.to_owned()),
            ACKNOWLEDGED => {
                self.open.clear();
                self.remembered.clear();
                self.anchors = None;
            }
            _ => {}
        }
    }

    /// Applies notes that have just become rows. Returns whether any of them is about losses, and the number of
    /// acknowledgements.
    pub(crate) fn take_rows<'a>(&mut self, notes: impl Iterator<Item = &'a NoteRow>) -> (bool, u64) {
        let (mut any, mut acknowledged) = (false, 0);
        for note in notes {
            any |= [LOST, ANCHORS_LOST, ACKNOWLEDGED].contains(&note.what);
            acknowledged += u64::from(note.what == ACKNOWLEDGED);
            self.take(note.what, &note.detail);
        }
        (any, acknowledged)
    }

    /// Adds rows that were lost while this process wrote.
    pub(crate) fn remember(&mut self, loss: Loss) {
        self.known.push(loss.clone());
        self.remembered.push(loss);
    }

    /// All losses that are not acknowledged.
    pub(crate) fn not_acknowledged(&self) -> impl Iterator<Item = &Loss> {
        self.open.iter().chain(&self.remembered)
    }

    /// Whether rows were lost while this process wrote, and that is not acknowledged.
    pub(crate) fn lost_while_running(&self) -> bool {
        !self.remembered.is_empty()
    }

    /// Whether a note names these rows, or more of them.
    fn knows(&self, loss: &Loss) -> bool {
        self.known.iter().any(|known| known.month == loss.month && known.through >= loss.through)
    }

    /// The time up to which requests may have no record.
    pub(crate) fn through(&self) -> Option<Time> {
        self.open.iter().map(|loss| loss.through).max()
    }

    /// The alarm text while losses are not acknowledged.
    pub(crate) fn alarm(&self) -> Option<Text> {
        let losses: Vec<String> = self.not_acknowledged().map(Loss::to_string).collect();
        let rows = (!losses.is_empty()).then(|| {
            text!(
                "audit rows are missing: {losses}; find out why (for a segment that exists and cannot be read, the log says \
                 why), keep what you have of them in another folder, and end this with `cmiot-proxy audit acknowledge`",
                "审计缺少记录行：{losses}；请查明原因（分段存在而无法读取时，原因在日志中），把现有数据保存到另一目录，然后用 \
                 `cmiot-proxy audit acknowledge` 结束本告警",
                losses = losses.join(", ")
            )
        });
        let anchors = self.anchors.as_ref().map(|anchors| {
            text!(
                "{anchors}, so rows that are missing too would not be noticed; find out why, compare the audit with \
                 anchors that were kept elsewhere (`cmiot-proxy audit verify --anchors`), and end this with \
                 `cmiot-proxy audit acknowledge`",
                "{anchors}，因此同时缺失的记录行也不会被发现；请查明原因，把审计与保存在别处的锚点比对\
                 （`cmiot-proxy audit verify --anchors`），然后用 `cmiot-proxy audit acknowledge` 结束本告警"
            )
        });
        let texts: Vec<Text> = rows.into_iter().chain(anchors).collect();
        Text::join(&texts)
    }
}

/// Reads the notes in the newest segments, back to the last acknowledgement, and those that wait as files.
fn read_losses(dir: &Path) -> Result<Losses, StoreError> {
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
            // Opening it for writing, or verifying it, says what is wrong.
            Err(error) => tracing::debug!(%error, "notes of a loss are not read here"),
        }
    }
    let mut losses = Losses::default();
    chain.iter().for_each(|(what, detail)| losses.take(what, detail));
    let waiting = Notes::default().pending(dir);
    waiting.iter().for_each(|(_, note)| losses.take(note.what, &note.detail));
    Ok(losses)
}

fn read_notes(path: &Path) -> Result<Vec<(String, String)>, StoreError> {
    let connection = schema::open_read_only(path, Kind::Audit)?;
    let read = || {
        connection
            .prepare(
                "SELECT name.text, note.detail FROM note JOIN name ON name.id = note.what
                 WHERE note.what IN (SELECT id FROM name WHERE text IN (?1, ?2, ?3)) ORDER BY note.id",
            )?
            .query_map([LOST, ANCHORS_LOST, ACKNOWLEDGED], |row| Ok((row.get(0)?, row.get(1)?)))?
            .collect::<rusqlite::Result<_>>()
    };
    read().map_err(StoreError::sqlite(path))
}

/// The losses at a start, after a comparison of the newest segment with the folder's last anchor of its month or a newer
/// one. Leaves a note of a new loss. Call it before a segment is opened for writing, which creates a missing one again.
pub(crate) fn at_start(dir: &Path, now: Time) -> Result<Losses, StoreError> {
    let mut losses = read_losses(dir)?;
    for loss in [missing(dir)?, missing_before_newest(dir)?].into_iter().flatten() {
        leave(dir, &mut losses, &loss, now)?;
    }
    if losses.anchors.is_none()
        && let Some(detail) = anchors_missing(dir)?
    {
        notes::leave(dir, &NoteRow { at: now, what: ANCHORS_LOST, detail: detail.clone() })?;
        losses.take(ANCHORS_LOST, &detail);
    }
    Ok(losses)
}

/// Says so if the folder has rows and no anchor: one is written before the first row.
fn anchors_missing(dir: &Path) -> Result<Option<String>, StoreError> {
    if !anchor::tail(&dir.join(anchor::LOG)).is_empty() {
        return Ok(None);
    }
    let head = |month: month::Month| {
        let connection = schema::open_read_only(&month.path(dir), Kind::Audit).ok()?;
        link::head(&connection).ok()?
    };
    let last = month::list(dir)?.into_iter().find_map(head).map_or(0, |head| head.last);
    Ok((last > 0).then(|| format!("{} has no anchor, although the audit has rows up to {last}", anchor::LOG)))
}

/// Leaves notes of segments that have ended and cannot be read. Returns the time up to which requests must be refused until
/// the writer has read the notes.
pub(crate) fn note_unreadable(
    dir: &Path,
    unreadable: &[Loss],
    now: Time,
) -> Result<Option<Time>, StoreError> {
    if unreadable.is_empty() {
        return Ok(None);
    }
    let mut losses = read_losses(dir)?;
    let mut through = None;
    for loss in unreadable {
        if leave(dir, &mut losses, loss, now)? {
            through = through.max(Some(loss.through));
        }
    }
    Ok(through)
}

/// Leaves the note of a loss, unless there is one. Returns whether it did.
fn leave(dir: &Path, losses: &mut Losses, loss: &Loss, now: Time) -> Result<bool, StoreError> {
    if losses.knows(loss) {
        return Ok(false);
    }
    let note = NoteRow { at: now, what: LOST, detail: loss.to_string() };
    notes::leave(dir, &note)?;
    losses.take(LOST, &note.detail);
    Ok(true)
}

/// The rows that the last anchor knows and the folder lacks.
fn missing(dir: &Path) -> Result<Option<Loss>, StoreError> {
    let anchors = anchor::tail(&dir.join(anchor::LOG));
    let Some((month, last)) = anchors.last().and_then(|last| Some((last.month()?, last))) else {
        return Ok(None);
    };
    let listed = month::list(dir)?;
    let first = match listed.first() {
        // Its month has ended: `verify` checks ended segments.
        Some(newest) if *newest > month => return Ok(None),
        Some(newest) if *newest == month => match first_missing(&month.path(dir), &anchors, last) {
            Ok(first) => first,
            // An empty file is created again like a missing one.
            Err(error) if matches!(error.fault(), Fault::Malformed { .. }) => Some(1),
            // Opening it for writing says what is wrong.
            Err(_) => None,
        },
        _ => Some(1),
    };
    let Some(first) = first else { return Ok(None) };
    // Numbers continue from the segment before.
    let before = listed.iter().find(|&&earlier| earlier < month).and_then(|earlier| {
        let connection = schema::open_read_only(&earlier.path(dir), Kind::Audit).ok()?;
        link::head(&connection).ok()?
    });
    let first = first.max(before.map_or(1, |head| head.last.saturating_add(1))).min(last.last);
    Ok(Some(Loss { month, first, last: last.last, through: up_to_the_millisecond(last.at) }))
}

/// The rows that the last anchor of an earlier month knows, and that the newest segment does not follow: their segment was
/// gone when the newest one was created.
fn missing_before_newest(dir: &Path) -> Result<Option<Loss>, StoreError> {
    let Some(newest) = month::list(dir)?.first().copied() else { return Ok(None) };
    let anchors = anchor::tail(&dir.join(anchor::LOG));
    let months = anchors.iter().rev().filter_map(|last| Some((last.month()?, last)));
    let Some((month, last)) = months.into_iter().find(|(month, _)| *month < newest) else { return Ok(None) };
    let before = schema::open_read_only(&newest.path(dir), Kind::Audit).ok().and_then(|connection| {
        connection.query_row("SELECT before FROM segment", [], |row| row.get::<_, i64>(0)).ok()
    });
    // Another check, or opening it for writing, says what is wrong with the newest segment.
    let missing = before.filter(|&before| before < last.last);
    Ok(missing.map(|before| Loss {
        month,
        first: before.saturating_add(1),
        last: last.last,
        through: up_to_the_millisecond(last.at),
    }))
}

/// The first row that the last anchor knows and the file lacks or has altered; none when all rows are there.
fn first_missing(path: &Path, anchors: &[Anchor], last: &Anchor) -> Result<Option<i64>, StoreError> {
    let connection = schema::open_read_only(path, Kind::Audit)?;
    let sqlite = StoreError::sqlite(path);
    let Some(head) = link::head(&connection).map_err(sqlite)? else { return Ok(Some(1)) };
    if holds(&connection, last).map_err(sqlite)? {
        return Ok(None);
    }
    if head.last < last.last {
        return Ok(Some(head.last.saturating_add(1)));
    }
    // Rows with these numbers exist, but differ after the last anchor that holds.
    for anchor in anchors.iter().rev().filter(|anchor| anchor.segment == last.segment) {
        if holds(&connection, anchor).map_err(sqlite)? {
            return Ok(Some(anchor.last.saturating_add(1)));
        }
    }
    Ok(Some(1))
}

/// Whether a batch ends at the anchor's row with its head, or the segment begins there.
fn holds(connection: &Connection, anchor: &Anchor) -> rusqlite::Result<bool> {
    connection.query_row(
        "SELECT EXISTS (SELECT 1 FROM batch WHERE last = ?1 AND lower(hex(hash)) = ?2)
             OR EXISTS (SELECT 1 FROM segment WHERE before = ?1 AND lower(hex(seed)) = ?2)",
        (anchor.last, &anchor.head),
        |row| row.get(0),
    )
}

/// Leaves the note that acknowledges the losses so far, and returns them as their notes describe them. `by` says who
/// acknowledges them, and from where.
///
/// # Errors
/// When the folder cannot be read or the note cannot be written.
pub fn acknowledge(dir: &Path, by: &str, now: Time) -> Result<Vec<String>, StoreError> {
    let Losses { open, anchors, .. } = read_losses(dir)?;
    let losses: Vec<String> = open.iter().map(Loss::to_string).chain(anchors).collect();
    let found = if losses.is_empty() { "no loss is noted".to_owned() } else { losses.join(", ") };
    let detail = format!("{by} {found}");
    notes::leave(dir, &NoteRow { at: now, what: ACKNOWLEDGED, detail })?;
    Ok(losses)
}

#[cfg(test)]
mod tests;
