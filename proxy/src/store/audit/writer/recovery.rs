//! The segment after a failure: its WAL is settled, it is opened again, or created again where it is no longer at its path.
//!
//! After a failed sync nothing is committed before the WAL is settled (see [`wal`](super::super::super::wal)): at once, and
//! again after [`LONGEST_PAUSE`]. If that fails too, the process ends; a start recovers what was synced before. What a
//! failed commit left in the WAL is truncated, so its rows do not reappear.

use super::*;
use crate::store::audit::log::columns::NoteRow;
use crate::store::audit::log::loss::{self, Loss};
use crate::store::audit::log::segment_identity::{self, SegmentIdentity};

/// Attempts to settle the WAL.
const SETTLING: u32 = 2;

impl Writer {
    /// Runs `act` on the segment, and again if a sync failed and the WAL could be settled.
    pub(super) fn act(
        &mut self,
        act: &impl Fn(&mut Segment) -> Result<(), StoreError>,
    ) -> Result<(), StoreError> {
        // Of a checkpoint since the last commit.
        let failed = self.segment.as_mut().and_then(Segment::checkpoint_failure);
        self.note_checkpoint_failure(failed);
        if self.unsettled.is_some() {
            self.settle_segment()?;
        }
        let Err(error) = self.act_once(act) else { return Ok(()) };
        if !error.is_unsynced() {
            return Err(error);
        }
        tracing::warn!(%error, "a sync of the audit failed: its WAL is written again before the next commit");
        self.settle_segment()?;
        self.act_once(act)
    }

    fn act_once(&mut self, act: &impl Fn(&mut Segment) -> Result<(), StoreError>) -> Result<(), StoreError> {
        let mut segment = self.open_segment()?;
        if segment.alarms.is_none() {
            segment.alarms = Some(self.shared.alarms.clone());
        }
        let done = act(&mut segment);
        let failed = segment.checkpoint_failure();
        self.note_checkpoint_failure(failed);
        match &done {
            Ok(()) => self.segment = Some(segment),
            // Kept open: the connection has the committed length of the WAL.
            Err(error) if error.is_unsynced() => {
                self.unsettled = Some(0);
                self.segment = Some(segment);
            }
            // The connection's state of the file may be wrong now. Frames that were not committed are truncated, as far as the
            // disk allows.
            Err(error) => {
                let settled = if error.is_busy() { Ok(()) } else { segment.settle() };
                match settled {
                    Err(error) if error.is_unsynced() => {
                        self.unsettled = Some(0);
                        self.segment = Some(segment);
                    }
                    _ => self.closed = Some(segment.leave()),
                }
            }
        }
        done
    }

    fn note_checkpoint_failure(&mut self, failure: Option<StoreError>) {
        let Some(error) = failure else { return };
        tracing::warn!(%error, "the audit's WAL is not moved into its file");
        if error.is_unsynced() {
            self.unsettled.get_or_insert(0);
        }
    }

    /// Makes the WAL durable, then opens the segment again. Too many failures end the writing.
    fn settle_segment(&mut self) -> Result<(), StoreError> {
        let settled = match &self.segment {
            Some(segment) => segment.settle(),
            None => Ok(()),
        };
        let done = settled.and_then(|()| {
            if let Some(segment) = self.segment.take() {
                self.closed = Some(segment.leave());
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

    /// Takes the segment; opens it if necessary, and creates it again if it is no longer at its path.
    fn open_segment(&mut self) -> Result<Segment, StoreError> {
        Ok(match self.segment.take() {
            Some(segment) => segment,
            None => match self.closed.take() {
                None => Segment::open(&self.dir, self.month, &self.options, None)?,
                Some(mut known) => match self.open_after(&mut known) {
                    Ok(segment) => segment,
                    Err(error) => {
                        self.closed = Some(known);
                        return Err(error);
                    }
                },
            },
        })
    }

    /// The segment after one that was closed: the same file if it is there with all known rows, else a new one whose first
    /// row says so.
    fn open_after(&mut self, known: &mut ClosedSegment) -> Result<Segment, StoreError> {
        let path = known.month.path(&self.dir);
        let found = SegmentIdentity::of(&path)?;
        if found.is_same_database(&known.identity) {
            let segment = Segment::open(&self.dir, self.month, &self.options, None)?;
            if known.month != self.month || segment.head().last >= known.head.last {
                if found != known.identity && known.month == self.month {
                    tracing::info!("the audit's segment has all of its rows: writing continues");
                }
                return Ok(segment);
            }
        }
        let is_successor = known.successor.is_some_and(|successor| found.is_same_database(&successor));
        let aside = if is_successor { None } else { segment_identity::set_aside(&path)? };
        if let Some(aside) = &aside {
            tracing::warn!(file = %aside.display(), "the file found at the segment's path is kept here");
        }
        let segment = Segment::open(&self.dir, self.month, &self.options, Some(known));
        known.successor = SegmentIdentity::of(&path).ok();
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
        let loss = Loss::after(known, at);
        // With those that are open already: their notes may have been in the missing file.
        let losses = self.losses.not_acknowledged().chain(&loss);
        notes.extend(losses.map(|loss| note(loss::LOST, loss.to_string())));
        segment.commit(notes.iter())?;
        // This process still knows the transids of the lost rows; the next start knows the loss by its note.
        if let Some(loss) = loss {
            self.losses.remember(loss);
            self.shared.set_lost(&self.losses);
        }
        tracing::warn!(after = last, "a new segment follows the missing one");
        Ok(segment)
    }

    /// Checks that the segment is still at its path, and begins a new one if not; then that the ended ones are.
    pub(super) fn check_path(&mut self) {
        let now = self.clock.monotonic();
        if now < self.path_check_at {
            return;
        }
        self.path_check_at = now.saturating_add(CHECK_EVERY);
        self.check_current();
        self.check_ended();
    }

    fn check_current(&mut self) {
        let Some(segment) = self.segment.take() else { return };
        // A folder that cannot be read shows with the next write.
        if segment.is_in_place().unwrap_or(true) {
            self.segment = Some(segment);
            return;
        }
        self.leave_missing(segment);
        self.attempt(|_| Ok(()));
    }

    /// Leaves a segment that is no longer at its path; the next attempt begins a new one.
    pub(super) fn leave_missing(&mut self, segment: Segment) {
        self.shared.healthy.store(false, Ordering::Release);
        tracing::error!(
            file = %self.month.path(&self.dir).display(),
            "the audit's segment was removed, renamed or replaced while it was written: rows up to {} are where it is now; \
             no request is answered until a new one is created",
            segment.head().last
        );
        self.anchor(&segment);
        if self.unsettled.take().is_none() {
            segment.checkpoint();
        }
        self.closed = Some(segment.leave());
    }

    /// Closes the segment; checkpoints it unless the WAL may show frames that the disk lacks.
    pub(super) fn close(&self, segment: Segment) -> ClosedSegment {
        match self.unsettled {
            None => segment.close(),
            Some(_) => segment.leave(),
        }
    }
}

/// The kind of the note that is the first row after a lost segment.
const LOST: &str = "segment-lost";
