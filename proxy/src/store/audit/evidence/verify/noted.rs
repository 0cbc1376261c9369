//! Notes of the verified segments that explain missing data: months that were pruned, rows that were found missing.

use std::fmt;

use super::names::Names;
use super::source::{Cell, Source};
use crate::clock::Time;
use crate::store::audit::log::columns::Table;
use crate::store::audit::log::loss::{ACKNOWLEDGED, LOST, Loss};
use crate::store::audit::log::month::Month;

/// Pruned months and losses, oldest first.
#[derive(Default)]
pub(super) struct Noted {
    pruned: Vec<(Month, Time)>,
    losses: Vec<NotedLoss>,
}

/// A loss with the time of its note.
pub(super) struct NotedLoss {
    loss: Loss,
    at: Time,
    pub(super) acknowledged: Option<Time>,
}

impl Noted {
    /// Adds the next row of table `note`, whose values have the right types.
    pub(super) fn row<S: Source>(&mut self, source: &S, names: &mut Names) -> Result<(), S::Error> {
        const AT: usize = Table::Note.position("at");
        const WHAT: usize = Table::Note.position("what");
        const DETAIL: usize = Table::Note.position("detail");
        let cell = |place| source.cell(Table::Note, place);
        let (Cell::Int(at), Cell::Text(detail)) = (cell(AT)?, cell(DETAIL)?) else { return Ok(()) };
        let what = match cell(WHAT)? {
            Cell::Int(number) => names.text(number),
            Cell::Name(text) => Some(text),
            _ => None,
        };
        if let (Some(what), Ok(detail)) = (what, std::str::from_utf8(detail)) {
            self.take(Time::from_micros(at), what, detail);
        }
        Ok(())
    }

    /// Adds a note.
    pub(super) fn take(&mut self, at: Time, what: &str, detail: &str) {
        match what {
            // Behind the month: who pruned it.
            "pruned" => {
                let month = detail.split(' ').next().and_then(Month::parse);
                self.pruned.extend(month.map(|month| (month, at)));
            }
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

    /// The time of the note that explains a pruned month. Pruning deletes a month only after all before it, and an
    /// earlier note disappears with its segment, so the note of a later month explains the earlier ones. The newest
    /// segment is never pruned: no note explains it, nor a month after it.
    pub(super) fn pruned(&self, month: Month, newest: Option<Month>) -> Option<Time> {
        newest.filter(|newest| month < *newest)?;
        self.pruned.iter().filter(|(pruned, _)| *pruned >= month).min().map(|&(_, at)| at)
    }

    /// The last loss for which `explains` holds.
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
