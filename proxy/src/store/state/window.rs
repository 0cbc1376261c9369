//! The widest window in which transids were accepted, until it no longer matters.
//!
//! A record can be older than its transid's stamp by the window that applied then. After `clock_skew` was narrowed, a start
//! that reads the audit with the new window would miss records of stamps that it still accepts. So the widest window is
//! stored until every stamp that it accepted is older than all stamps that are accepted now.

use std::time::Duration;

use rusqlite::{Connection, OptionalExtension, TransactionBehavior};

use super::super::StoreError;
use super::StateStore;
use crate::clock::Time;

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Windows {
    /// In seconds.
    current: i64,
    widest: i64,
    /// No record was written under another window after this second.
    until: i64,
}

impl Windows {
    /// The windows after a start or a reload with `current`: no record is later than `latest`, stamps before `from` are
    /// refused.
    fn next(known: Option<Self>, current: i64, latest: i64, from: i64) -> Self {
        let Some(known) = known else { return Self { current, widest: current, until: latest } };
        if known.current != current {
            return Self { current, widest: known.widest.max(current), until: latest.max(known.until) };
        }
        let expired = from > known.until.saturating_add(known.widest);
        Self { widest: if expired { current } else { known.widest }, ..known }
    }
}

impl StateStore {
    /// Stores the window that applies from now on, and returns the widest one that may still matter. No record is later than
    /// `latest`, and stamps before `from` are refused. Blocks until a change is on the disk.
    ///
    /// # Errors
    /// When it was not committed.
    pub fn keep_window(&self, window: Duration, latest: Time, from: Time) -> Result<Duration, StoreError> {
        let sqlite = StoreError::sqlite(&self.path);
        let current = i64::try_from(window.as_secs()).unwrap_or(i64::MAX);
        let seconds = |time: Time| time.as_micros().div_euclid(1_000_000);
        let widest = self.commit(|connection| {
            let storing =
                connection.transaction_with_behavior(TransactionBehavior::Immediate).map_err(sqlite)?;
            let known = read(&storing).map_err(sqlite)?;
            let next = Windows::next(known, current, seconds(latest).saturating_add(1), seconds(from));
            if known != Some(next) {
                storing
                    .execute(
                        "INSERT INTO window (one, current, widest, until) VALUES (1, ?1, ?2, ?3)
                         ON CONFLICT DO UPDATE
                         SET current = excluded.current, widest = excluded.widest, until = excluded.until",
                        (next.current, next.widest, next.until),
                    )
                    .and_then(|_| storing.commit())
                    .map_err(sqlite)?;
            }
            Ok(next.widest)
        })?;
        Ok(Duration::from_secs(u64::try_from(widest).unwrap_or(0)))
    }
}

fn read(connection: &Connection) -> rusqlite::Result<Option<Windows>> {
    connection
        .query_row("SELECT current, widest, until FROM window", [], |row| {
            Ok(Windows { current: row.get(0)?, widest: row.get(1)?, until: row.get(2)? })
        })
        .optional()
}

#[cfg(test)]
mod tests {
    use super::super::OnStateLoss;
    use super::*;

    #[test]
    fn the_widest_window_is_stored_until_its_stamps_are_refused() {
        let dir = tempfile::tempdir().unwrap();
        let keep = |window: u64, latest: i64| {
            let state = StateStore::open(dir.path(), OnStateLoss::Refuse).unwrap();
            let from = Time::from_secs(latest).minus(Duration::from_secs(window));
            state.keep_window(Duration::from_secs(window), Time::from_secs(latest), from).unwrap().as_secs()
        };
        assert_eq!(keep(300, 10_000), 300);
        assert_eq!(keep(3_600, 10_100), 3_600, "widened");
        assert_eq!(keep(300, 10_200), 3_600, "narrowed: records up to here have stamps up to 13,801");
        assert_eq!(keep(600, 10_300), 3_600, "changed again: up to 10,301 under other windows");
        assert_eq!(keep(600, 10_301 + 3_600 + 600), 3_600);
        assert_eq!(keep(600, 10_301 + 3_600 + 601), 600, "every stamp that the widest accepted is refused");
        assert_eq!(keep(600, 9_000), 600, "also with an earlier clock");
        assert_eq!(keep(300, 9_000), 600);
    }
}
