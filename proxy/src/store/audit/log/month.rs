//! Months and their segments: `audit-YYYY-MM.db`, one per month of the carrier's time zone (UTC+8).

use std::fmt;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use crate::clock::Time;
use crate::store::{Fault, StoreError};

/// Microseconds of a day, and of the offset of UTC+8.
const DAY: i64 = 86_400_000_000;
const ZONE: i64 = 8 * 3_600_000_000;

/// A month at UTC+8, years 1 to 9999.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Month {
    year: i16,
    month: i8,
}

impl Month {
    /// The month of a moment; the nearest of year 1 or 9999 beyond those.
    pub fn of(at: Time) -> Self {
        let (first, last) = (jiff::civil::date(1, 1, 1), jiff::civil::date(9999, 12, 31));
        let days = at.as_micros().saturating_add(ZONE).div_euclid(DAY);
        let day = jiff::Span::new().try_days(days).and_then(|span| UNIX.checked_add(span));
        let day = day.unwrap_or(if days < 0 { first } else { last }).clamp(first, last);
        Self { year: day.year(), month: day.month() }
    }

    /// The first moment of the next month.
    pub fn end(self) -> Time {
        let (year, month) = if self.month == 12 { (self.year + 1, 1) } else { (self.year, self.month + 1) };
        // The year after 9999 is outside the calendar: no clock reads a later time.
        match jiff::civil::Date::new(year, month, 1).and_then(|day| UNIX.until(day)) {
            Ok(span) => Time::from_micros(i64::from(span.get_days()) * DAY - ZONE),
            Err(_) => Time::from_micros(i64::MAX),
        }
    }

    /// The month so many months earlier.
    pub fn minus(self, months: u32) -> Self {
        let since = i64::from(self.year) * 12 + i64::from(self.month) - 1 - i64::from(months);
        let (year, month) = (since.div_euclid(12).clamp(1, 9999), since.rem_euclid(12) + 1);
        // Both are in range here.
        Self { year: i16::try_from(year).unwrap_or(1), month: i8::try_from(month).unwrap_or(1) }
    }

    /// The segment's path.
    pub fn path(self, dir: &Path) -> PathBuf {
        dir.join(format!("audit-{self}.db"))
    }

    /// As a number: 202601.
    pub(crate) fn number(self) -> i32 {
        i32::from(self.year) * 100 + i32::from(self.month)
    }

    /// From its number.
    pub(crate) fn of_number(number: i32) -> Option<Self> {
        let (year, month) = (i16::try_from(number / 100).ok()?, i8::try_from(number % 100).ok()?);
        ((1..=9999).contains(&year) && (1..=12).contains(&month)).then_some(Self { year, month })
    }

    fn of_file(name: &str) -> Option<Self> {
        Self::parse(name.strip_prefix("audit-")?.strip_suffix(".db")?)
    }

    /// From `2026-01`.
    pub fn parse(text: &str) -> Option<Self> {
        let (year, month) = text.split_once('-')?;
        let digits =
            |text: &str, count| text.len() == count && text.bytes().all(|byte| byte.is_ascii_digit());
        if !digits(year, 4) || !digits(month, 2) {
            return None;
        }
        let found = Self { year: year.parse().ok()?, month: month.parse().ok()? };
        (found.year >= 1 && (1..=12).contains(&found.month)).then_some(found)
    }
}

const UNIX: jiff::civil::Date = jiff::civil::date(1970, 1, 1);

impl fmt::Display for Month {
    /// `2026-01`
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:04}-{:02}", self.year, self.month)
    }
}

/// The segments in a folder, newest first. A folder that does not exist has none.
///
/// # Errors
/// When the folder cannot be read.
pub fn list(dir: &Path) -> Result<Vec<Month>, StoreError> {
    let entries = match fs::read_dir(dir) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        entries => entries.map_err(StoreError::io(dir))?,
    };
    let mut months = Vec::new();
    for entry in entries {
        let name = entry.map_err(StoreError::io(dir))?.file_name();
        months.extend(name.to_str().and_then(Month::of_file));
    }
    months.sort_unstable_by(|a, b| b.cmp(a));
    Ok(months)
}

/// The segments in a folder that must have one, newest first.
///
/// # Errors
/// When the folder has none or cannot be read.
pub fn existing(dir: &Path) -> Result<Vec<Month>, StoreError> {
    let months = list(dir)?;
    match months.is_empty() {
        true => Err(StoreError::new(dir, Fault::NoSegment { found: String::new() })),
        false => Ok(months),
    }
}

/// The segment of a month.
///
/// # Errors
/// When the folder has no such segment, with the months that it has; when it cannot be read.
pub fn of_month(dir: &Path, month: Month) -> Result<PathBuf, StoreError> {
    let months = existing(dir)?;
    let path = month.path(dir);
    if months.contains(&month) {
        return Ok(path);
    }
    let found = match (months.last(), months.first()) {
        (Some(first), Some(last)) if months.len() > 2 => {
            format!("{} months from {first} to {last}", months.len())
        }
        _ => months.iter().rev().map(Month::to_string).collect::<Vec<_>>().join(" and "),
    };
    Err(StoreError::new(&path, Fault::NoSegment { found }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn months_turn_at_midnight_in_china() {
        // 2026-01-31T16:00:00Z is 2026-02-01T00:00:00+08:00.
        let boundary = Time::from_secs(1_769_875_200);
        let before = Time::from_micros(boundary.as_micros() - 1);
        assert_eq!(Month::of(before).to_string(), "2026-01");
        assert_eq!(Month::of(boundary).to_string(), "2026-02");
        assert_eq!(Month::of(before).end(), boundary);
        // 2026-12-31T16:00:00Z
        assert_eq!(Month { year: 2026, month: 12 }.end(), Time::from_secs(1_798_732_800));
    }

    #[test]
    fn months_are_counted_back_over_the_year() {
        let january = Month { year: 2026, month: 1 };
        let shown = [0, 1, 13].map(|months| january.minus(months).to_string());
        assert_eq!(shown, ["2026-01", "2025-12", "2024-12"]);
    }

    #[test]
    fn every_time_has_a_month() {
        assert_eq!(Month::of(Time::from_micros(i64::MIN)).to_string(), "0001-01");
        assert_eq!(Month::of(Time::from_micros(i64::MAX)).to_string(), "9999-12");
        assert_eq!(Month::of(Time::EPOCH).to_string(), "1970-01");
    }

    #[test]
    fn a_month_that_is_not_there_is_named_with_those_that_are() {
        let dir = tempfile::tempdir().unwrap();
        let january = Month { year: 2026, month: 1 };
        let error = |month| of_month(dir.path(), month).unwrap_err().to_string();
        assert!(error(january).contains("no segment of the audit (audit-YYYY-MM.db)"), "{}", error(january));
        for (name, has) in [
            ("audit-2025-10.db", "it has 2025-10;"),
            ("audit-2025-12.db", "it has 2025-10 and 2025-12;"),
            ("audit-2025-11.db", "it has 3 months from 2025-10 to 2025-12;"),
        ] {
            fs::write(dir.path().join(name), "").unwrap();
            let text = error(january);
            assert!(text.contains("audit-2026-01.db") && text.contains(has), "{text}");
            assert!(text.contains("name a month that the folder has") && !text.contains("mode"), "{text}");
        }
        assert_eq!(of_month(dir.path(), january.minus(1)), Ok(dir.path().join("audit-2025-12.db")));
    }

    #[test]
    fn only_segments_are_listed() {
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(list(&dir.path().join("none")), Ok(Vec::new()));
        for name in [
            "audit-2026-01.db",
            "audit-2025-12.db",
            "audit-2026-01.db-wal",
            "audit-2026-13.db",
            "audit-26-01.db",
            "audit-0000-01.db",
            "audit-2026-1.db",
            "audit.db",
            "cache.db",
        ] {
            fs::write(dir.path().join(name), "").unwrap();
        }
        let months: Vec<String> = list(dir.path()).unwrap().iter().map(Month::to_string).collect();
        assert_eq!(months, ["2026-01", "2025-12"]);
    }
}
