//! What the notes of the verified segments explain: months that were pruned, rows that were found missing.

use std::fmt;

use rusqlite::Row;

use super::names::Names;
use crate::clock::Time;
use crate::store::audit::log::columns::Table;
use crate::store::audit::log::loss::{ACKNOWLEDGED, LOST, Loss};
use crate::store::audit::log::month::Month;

/// The notes that explain something, oldest first.
#[derive(Default)]
pub(super) struct Noted {
    pruned: Vec<(Month, Time)>,
    losses: Vec<NotedLoss>,
}

/// A loss, and when it was noted.
pub(super) struct NotedLoss {
    loss: Loss,
    at: Time,
    pub(super) acknowledged: Option<Time>,
}

impl Noted {
    /// A row of table `note`, whose values are of their types.
    pub(super) fn row(&mut self, row: &Row<'_>, names: &mut Names) -> rusqlite::Result<()> {
        const AT: usize = Table::Note.position("at");
        const WHAT: usize = Table::Note.position("what");
        const DETAIL: usize = Table::Note.position("detail");
        let (at, what, detail) =
            (Time::from_micros(row.get(AT)?), row.get(WHAT)?, row.get_ref(DETAIL)?.as_str()?);
        if let Some(what) = names.text(what) {
            self.take(at, what, detail);
        }
        Ok(())
    }

    /// A note.
    pub(super) fn take(&mut self, at: Time, what: &str, detail: &str) {
        match what {
            "pruned" => self.pruned.extend(Month::parse(detail).map(|month| (month, at))),
            LOST => {
                self.losses.extend(Loss::parse(detail).map(|loss| NotedLoss {
                    loss,
                    at,
                    acknowledged: None,
                }));
            }
            ACKNOWLEDGED => {
                for loss in &mut self.losses {
                    loss.acknowledged.get_or_insert(at);
                }
            }
            _ => {}
        }
    }

    /// When the month was pruned, as a note says. Pruning deletes a month only after all before it, and the note of an
    /// earlier pruning goes with the segment that it stands in, so the note of a later month explains the earlier ones.
    pub(super) fn pruned(&self, month: Month) -> Option<Time> {
        self.pruned.iter().filter(|(pruned, _)| *pruned >= month).min().map(|&(_, at)| at)
    }

    /// The last loss of which this holds.
    pub(super) fn loss(&self, explains: impl Fn(&Loss) -> bool) -> Option<&NotedLoss> {
        self.losses.iter().rev().find(|noted| explains(&noted.loss))
    }
}

impl fmt::Display for NotedLoss {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "noted at {} as lost: {}", self.at, self.loss)?;
        match self.acknowledged {
            Some(at) => write!(f, ", acknowledged at {at}"),
            None => f.write_str(", not acknowledged"),
        }
    }
}
