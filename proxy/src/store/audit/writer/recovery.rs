//! The segment after a failure: settled, opened again, or begun anew where it is no longer at its path.
//!
//! After a failed sync nothing is committed before the WAL is settled (see [`wal`](super::super::super::wal)): at once, and
//! once more after [`LONGEST_PAUSE`]. If that fails too, the process ends: a start recovers what was synced before. What a
//! failed commit left in the WAL is cut off, so its rows are not found again.

use super::*;
use crate::store::audit::log::columns::NoteRow;
use crate::store::audit::log::loss::{self, Loss};
use crate::store::audit::log::segment_identity::{self, SegmentIdentity};

/// How often it is tried to settle the WAL.
const SETTLING: u32 = 2;

impl Writer {
    /// Does something with the segment; once more if a sync failed and all could be made good.
    pub(super) fn act(
        &mut self,
        act: &impl Fn(&mut Segment) -> Result<(), StoreError>,
    ) -> Result<(), StoreError> {
        if self.unsettled.is_some() {
            self.settle_segment()?;
        }
        let Err(error) = self.act_once(act) else { return Ok(()) };
        if !error.is_unsynced() {
            return Err(error);
        }
        tracing::warn!(%error, "a sync of the audit failed: its WAL is written again before anything is committed");
        self.settle_segment()?;
        self.act_once(act)
    }

    fn act_once(&mut self, act: &impl Fn(&mut Segment) -> Result<(), StoreError>) -> Result<(), StoreError> {
        let mut segment = self.open_segment()?;
        if segment.alarms.is_none() {
            segment.alarms = Some(self.shared.alarms.clone());
        }
        let done = act(&mut segment);
        if let Some(error) = segment.checkpoint_failure() {
            tracing::warn!(%error, "the audit's WAL is not moved into its file");
            if error.is_unsynced() {
                self.unsettled.get_or_insert(0);
            }
        }
        match &done {
            Ok(()) => self.segment = Some(segment),
            // Kept open: it knows which frames of the WAL are committed.
            Err(error) if error.is_unsynced() => {
                self.unsettled = Some(0);
                self.segment = Some(segment);
            }
            // What the connection believes about the file may be wrong now. Frames that were not committed are cut off as far
            // as the disk lets it.
            Err(error) => {
                let settled = if error.is_busy() { Ok(()) } else { segment.settle() };
                match settled {
                    Err(error) if error.is_unsynced() => {
                        self.unsettled = Some(0);
                        self.segment = Some(segment);
                    }
                    _ => self.known = Some(segment.leave()),
                }
            }
        }
        done
    }

    /// Makes durable what the WAL holds, then opens the segment anew. Too many failures are one for good.
    fn settle_segment(&mut self) -> Result<(), StoreError> {
        let settled = match &self.segment {
            Some(segment) => segment.settle(),
            None => Ok(()),
        };
        let done = settled.and_then(|()| {
            if let Some(segment) = self.segment.take() {
                self.known = Some(segment.leave());
            }
            self.segment = Some(self.open_segment()?);
            Ok(())
        });
        match &done {
            Ok(()) => self.unsettled = None,
            Err(error) => {
                let failures = self.unsettled.unwrap_or(0) + 1;
                self.unsettled = Some(failures);
                if failures >= SETTLING || error.is_wal_lost() {
                    self.ended = true;
                    self.shared.failure.fail(format!(
                        "the disk does not take the audit, and what was written since its last sync may be lost: {error}; \
                         check the disk, then start the proxy again: what was answered is on the disk"
                    ));
                }
            }
        }
        done
    }

    /// Takes the segment; opens it if need be, and begins it anew if it is no longer where it was.
    fn open_segment(&mut self) -> Result<Segment, StoreError> {
        Ok(match self.segment.take() {
            Some(segment) => segment,
            None => match self.known.take() {
                None => Segment::open(&self.dir, self.month, &self.options, None)?,
                Some(mut known) => match self.open_after(&mut known) {
                    Ok(segment) => segment,
                    Err(error) => {
                        self.known = Some(known);
                        return Err(error);
                    }
                },
            },
        })
    }

    /// The segment after one that was closed: the same file if it is there and has all that is known, else a new one that
    /// says so in its first row.
    fn open_after(&mut self, known: &mut ClosedSegment) -> Result<Segment, StoreError> {
        let path = known.month.path(&self.dir);
        let found = SegmentIdentity::of(&path)?;
        if found.is_same_database(&known.place) {
            let segment = Segment::open(&self.dir, self.month, &self.options, None)?;
            if known.month != self.month || segment.head().last >= known.head.last {
                if found != known.place {
                    tracing::info!("the audit's segment has all of its rows: it is written on");
                }
                return Ok(segment);
            }
        }
        let begun = known.begun.is_some_and(|begun| found.is_same_database(&begun));
        let aside = if begun { None } else { segment_identity::set_aside(&path)? };
        if let Some(aside) = &aside {
            tracing::warn!(file = %aside.display(), "what stood at the segment's path is kept here");
        }
        let segment = Segment::open(&self.dir, self.month, &self.options, Some(known));
        known.begun = SegmentIdentity::of(&path).ok();
        let mut segment = segment?;
        let (last, hash) = (known.head.last, known.head.hash);
        let kept = aside.as_deref().and_then(Path::file_name).map(|name| name.display().to_string());
        let kept = kept.map_or_else(String::new, |name| format!("; what was found there is {name}"));
        let detail = format!(
            "{} was removed, renamed or replaced after row {last}, head {hash}{kept}",
            path.display()
        );
        let at = self.clock.now();
        let note = |what, detail| Row::Note(NoteRow { at, what, detail });
        let mut notes = vec![note(LOST, detail)];
        let loss = Loss::behind(known, at);
        // Those that are open already too: their notes may have been in the file that is gone.
        let losses = self.standing.open.iter().chain(&loss);
        notes.extend(losses.map(|loss| note(loss::LOST, loss.to_string())));
        segment.commit(notes.iter())?;
        // What was used is known to this process; the next start knows the loss by its note.
        if let Some(loss) = loss {
            self.standing.remember(loss);
            self.shared.set_lost(&self.standing);
        }
        tracing::warn!(after = last, "a new segment is begun after the one that is gone");
        Ok(segment)
    }

    /// Whether the segment is still at its path; a new one is begun if not.
    pub(super) fn look(&mut self) {
        let now = self.clock.monotonic();
        if now < self.look_at {
            return;
        }
        self.look_at = now.saturating_add(RESERVE_EVERY);
        let Some(segment) = self.segment.take() else { return };
        // A folder that cannot be looked at shows when something is written.
        if segment.is_in_place().unwrap_or(true) {
            self.segment = Some(segment);
            return;
        }
        self.shared.healthy.store(false, Ordering::Release);
        tracing::error!(
            file = %self.month.path(&self.dir).display(),
            "the audit's segment was removed, renamed or replaced while it was written: rows up to {} are where it is now; \
             nothing is answered until a new one is begun",
            segment.head().last
        );
        self.anchor(&segment);
        if self.unsettled.take().is_none() {
            segment.checkpoint();
        }
        self.known = Some(segment.leave());
        self.attempt(|_| Ok(()));
    }

    /// Closes the segment; moves its WAL into the file unless the disk may not have what the WAL shows.
    pub(super) fn close(&self, segment: Segment) {
        if self.unsettled.is_none() {
            segment.close();
        }
    }
}

/// The note that is the first row after a segment that was lost.
const LOST: &str = "segment-lost";
