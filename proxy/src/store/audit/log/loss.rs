//! A loss: rows that are known to have existed and are missing. Its note names them.
//!
//! ```text
//! lost = month " rows " first "-" [last] " through " time, rounded up to the millisecond
//! ```

use std::fmt;

use super::chain::Manifest;
use super::link::ClosedSegment;
use super::month::Month;
use crate::clock::Time;

/// The kind of the note of a loss.
pub(crate) const LOST: &str = "lost";
/// The kind of the note that the folder has lost its anchors.
pub(crate) const ANCHORS_LOST: &str = "anchors-lost";
/// The kind of the note that acknowledges losses.
pub(crate) const ACKNOWLEDGED: &str = "acknowledged";

/// The number of the last missing row if that is not known.
pub(crate) const UNKNOWN: i64 = i64::MAX;

/// Missing rows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Loss {
    /// The segment.
    pub month: Month,
    /// The first row that is missing.
    pub first: i64,
    /// The last missing row; `UNKNOWN` after a restore of a backup.
    pub last: i64,
    /// The time up to which requests may have lost their record, rounded up to the millisecond.
    pub through: Time,
}

impl Loss {
    /// All rows of a segment that is no longer at its path; none when it had none. `now` is not enough: the clock may
    /// have been ahead when they were written.
    pub(crate) fn after(closed: &ClosedSegment, now: Time) -> Option<Self> {
        let before =
            closed.manifest.as_ref().and_then(|manifest| manifest.last()).map_or(0, |last| last.last);
        let (month, first, last) = (closed.month, before.saturating_add(1), closed.head.last);
        let until = now.as_micros().max(closed.head.horizon);
        (first <= last).then(|| Self { month, first, last, through: up_to_the_millisecond(until) })
    }

    /// All rows of a segment that has ended and cannot be read, as a later manifest knows it.
    pub(crate) fn of_segment(month: Month, manifest: Option<&Manifest>, through: Time) -> Self {
        let (first, last) = manifest.map_or((0, 0), |manifest| (manifest.first, manifest.last));
        Self { month, first, last, through: up_to_the_millisecond(through.as_micros()) }
    }

    /// Reads the text of its note.
    pub(crate) fn parse(detail: &str) -> Option<Self> {
        let (month, rest) = detail.split_once(" rows ")?;
        let (rows, through) = rest.split_once(" through ")?;
        let (first, last) = rows.split_once('-')?;
        let through: jiff::Timestamp = through.parse().ok()?;
        Some(Self {
            month: Month::parse(month)?,
            first: first.parse().ok()?,
            last: if last.is_empty() { UNKNOWN } else { last.parse().ok()? },
            through: Time::from_micros(through.as_microsecond()),
        })
    }

    /// Whether these rows of the month are among them.
    pub(crate) fn covers_rows(&self, month: Month, first: i64, last: i64) -> bool {
        month == self.month && self.first <= first && last <= self.last
    }
}

impl fmt::Display for Loss {
    /// The text of its note.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { month, first, last, through } = self;
        match *last {
            UNKNOWN => write!(f, "{month} rows {first}- through {through}"),
            last => write!(f, "{month} rows {first}-{last} through {through}"),
        }
    }
}

/// Rounds up to the precision of times in notes.
pub(crate) fn up_to_the_millisecond(micros: i64) -> Time {
    Time::from_micros(micros.saturating_add(999).div_euclid(1_000).saturating_mul(1_000))
}
