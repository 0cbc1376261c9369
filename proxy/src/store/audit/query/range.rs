//! The row numbers of a range of time.
//!
//! Rows are not sorted by `at`: requests overtake each other and clocks are stepped back. A batch's `horizon`
//! never falls, so every row at or after a moment is in or after the first batch whose horizon reaches it.

use std::ops::RangeInclusive;

use rusqlite::{Connection, OptionalExtension};

use super::Filter;
use crate::clock::Time;

/// The first row of the first batch whose horizon reaches `since`, by binary search: horizons never fall.
pub(crate) fn first_since(connection: &Connection, since: Time) -> rusqlite::Result<Option<i64>> {
    let ends: Option<(i64, i64)> =
        connection.query_row("SELECT min(last), max(last) FROM batch", [], |row| {
            Ok(Option::zip(row.get::<_, Option<i64>>(0)?, row.get::<_, Option<i64>>(1)?))
        })?;
    let Some((mut low, mut high)) = ends else { return Ok(None) };
    let mut at_or_after = connection
        .prepare("SELECT last, first, horizon FROM batch WHERE last >= ?1 ORDER BY last LIMIT 1")?;
    let mut found = None;
    while low <= high {
        let middle = low + (high - low) / 2;
        // There is one: `high` is never above the last batch.
        let batch: Option<(i64, i64, i64)> =
            at_or_after.query_row([middle], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?))).optional()?;
        let Some((last, first, horizon)) = batch else { break };
        if horizon >= since.as_micros() {
            found = Some(first);
            high = middle - 1;
        } else {
            low = last + 1;
        }
    }
    Ok(found)
}

/// The row numbers that can meet the filter's times and cursor; none when no row can.
pub(super) fn row_numbers(
    connection: &Connection,
    filter: &Filter,
) -> rusqlite::Result<Option<RangeInclusive<i64>>> {
    let first = match filter.since {
        Some(since) => first_since(connection, since)?,
        None => connection.query_row("SELECT min(first) FROM batch", [], |row| row.get(0))?,
    };
    let last: Option<i64> = match filter.until {
        // The last batch that begins before `until`: no later one can have such a row.
        Some(until) => connection
            .query_row(
                "SELECT last FROM batch WHERE begins < ?1 ORDER BY last DESC LIMIT 1",
                [until.as_micros()],
                |row| row.get(0),
            )
            .optional()?,
        None => connection.query_row("SELECT max(last) FROM batch", [], |row| row.get(0))?,
    };
    let last = last.map(|last| filter.before.map_or(last, |before| last.min(before - 1)));
    Ok(Option::zip(first, last).filter(|(first, last)| first <= last).map(|(first, last)| first..=last))
}
