//! Segments that have ended and are removed or renamed while the proxy serves: their rows are lost, and the alarm is that
//! of any other loss.
//!
//! The folder is listed with each check of the current segment's path. A month that was there and is not is lost, unless
//! it was pruned: `audit prune` leaves its note before it deletes. Only the name counts: what a file holds is verified by
//! a start, as far as it needs the file, and by `audit verify`.

use std::collections::BTreeSet;

use super::*;
use crate::store::audit::log::loss::{LOST, Loss};
use crate::store::audit::log::{link, month};

/// The kind of the note that a month was pruned.
const PRUNED: &str = "pruned";

/// The month that a note of pruning names before who pruned it.
fn pruned_month(detail: &str) -> Option<Month> {
    detail.split(' ').next().and_then(Month::parse)
}

/// The ended segments of the folder.
#[derive(Debug, Default)]
pub(super) struct EndedSegments {
    /// Those at the last check.
    present: BTreeSet<Month>,
    /// Months whose notes of pruning this process has written.
    pruned: BTreeSet<Month>,
}

impl EndedSegments {
    /// Takes a note that has become a row.
    pub(super) fn take_note(&mut self, note: &NoteRow) {
        if note.what == PRUNED {
            self.pruned.extend(pruned_month(&note.detail));
        }
    }
}

impl Writer {
    /// Reports ended segments that have gone since the last check.
    pub(super) fn check_ended(&mut self) {
        if self.backoff.is_some() {
            return;
        }
        // A folder that cannot be read shows with the next write.
        let Ok(listed) = month::list(&self.dir) else { return };
        let mut present: BTreeSet<Month> = listed.into_iter().filter(|&ended| ended < self.month).collect();
        let gone: Vec<Month> = self.ended_segments.present.difference(&present).copied().collect();
        for month in gone {
            let pruned = self.ended_segments.pruned.contains(&month)
                || notes::any_waits(&self.dir, PRUNED, |detail| pruned_month(detail) == Some(month));
            if !pruned && !self.lose_ended(month) {
                // Noted at the next check.
                present.insert(month);
            }
        }
        self.ended_segments.present = present;
    }

    /// Notes the loss of an ended segment. Returns whether that is done.
    fn lose_ended(&mut self, month: Month) -> bool {
        let Some(segment) = &self.segment else { return false };
        let Ok(manifest) = link::manifest(&segment.connection) else { return false };
        let name = month.to_string();
        let manifest = manifest.unwrap_or_default();
        // A segment without rows is in no manifest.
        let Some(known) = manifest.iter().find(|known| known.month == name) else { return true };
        let through = Time::from_micros(known.until).min(month.end());
        let loss = Loss::of_segment(month, Some(known), through);
        let note = Row::Note(NoteRow { at: self.clock.now(), what: LOST, detail: loss.to_string() });
        self.attempt(|segment| segment.commit(std::iter::once(&note)));
        if self.backoff.is_some() {
            return false;
        }
        tracing::error!(
            file = %month.path(&self.dir).display(),
            "a segment of the audit that has ended was removed or renamed"
        );
        // This process still knows the transids of these rows, as far as their time is in the window.
        self.losses.remember(loss);
        self.shared.set_lost(&self.losses);
        true
    }
}
