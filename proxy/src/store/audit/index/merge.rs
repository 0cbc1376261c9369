//! A block in the making: its runs merged in order, a piece at a time, so that no commit waits for all of it.
//!
//! Runs that were sorted by this process are merged from memory. Of others, which are there after a start, a few entries
//! each are read ahead and kept between the pieces; a piece costs as much as it has entries, however many runs there are.

use std::cmp::Reverse;
use std::collections::binary_heap::PeekMut;
use std::collections::{BinaryHeap, VecDeque};
use std::vec;

use rusqlite::{Connection, OptionalExtension, params};

use super::super::Clip;
use super::{Carded, Sorted, carded};

/// Entries of a run that are read at once.
const AHEAD: u32 = 64;

/// See the module's text.
pub(super) struct Merge {
    /// The block's number: that of its last run.
    through: i64,
    runs: Vec<Run>,
    /// The next entry of each run that is not at its end, and which one that is.
    next: BinaryHeap<Reverse<(Carded, usize)>>,
}

struct Run {
    number: i64,
    ahead: vec::IntoIter<Carded>,
    /// Nothing of it is to be read.
    whole: bool,
}

impl Merge {
    /// Of the runs behind the last block, `blocked`, up to `through`, of which it takes those that are `fresh`. Goes on
    /// behind what is merged already.
    pub(super) fn open(
        connection: &Connection,
        blocked: i64,
        through: i64,
        fresh: &mut VecDeque<Sorted>,
    ) -> rusqlite::Result<Self> {
        // The greatest so far: whatever is greater is still to come.
        let so_far = connection
            .prepare_cached(
                "SELECT card, id FROM card_block_entry WHERE block = ?1 ORDER BY card DESC, id DESC LIMIT 1",
            )?
            .query_row([through], carded)
            .optional()?
            .unwrap_or(Carded { card: Clip::new(""), id: 0 });
        let mut run = |number| {
            // In the order of their numbers, as they were sorted.
            let fresh = fresh.pop_front_if(|fresh| fresh.run == number);
            let whole = fresh.is_some();
            let ahead = match fresh {
                Some(Sorted { entries, .. }) => entries.into_iter(),
                None => read(connection, number, so_far)?,
            };
            Ok(Run { number, ahead, whole })
        };
        let runs = (blocked + 1..=through).map(&mut run).collect::<rusqlite::Result<Vec<_>>>()?;
        let mut merge = Self { through, next: BinaryHeap::with_capacity(runs.len()), runs };
        for place in 0..merge.runs.len() {
            if let Some(entry) = merge.runs[place].ahead.next() {
                merge.next.push(Reverse((entry, place)));
            }
        }
        Ok(merge)
    }

    /// The block's number.
    pub(super) fn through(&self) -> i64 {
        self.through
    }

    /// The next entries, as many at most.
    pub(super) fn take(&mut self, connection: &Connection, entries: usize) -> rusqlite::Result<Vec<Carded>> {
        let mut taken = Vec::with_capacity(entries);
        while taken.len() < entries
            && let Some(mut least) = self.next.peek_mut()
        {
            let Reverse((entry, place)) = *least;
            taken.push(entry);
            let run = &mut self.runs[place];
            let mut following = run.ahead.next();
            if following.is_none() && !run.whole {
                run.ahead = read(connection, run.number, entry)?;
                following = run.ahead.next();
            }
            match following {
                Some(following) => *least = Reverse((following, place)),
                None => _ = PeekMut::pop(least),
            }
        }
        Ok(taken)
    }

    /// Whether all is taken.
    pub(super) fn is_over(&self) -> bool {
        self.next.is_empty()
    }
}

/// The entries of a run behind one, a few.
fn read(connection: &Connection, run: i64, behind: Carded) -> rusqlite::Result<vec::IntoIter<Carded>> {
    let entries: Vec<Carded> = connection
        .prepare_cached(
            "SELECT card, id FROM card_entry WHERE run = ?1 AND (card, id) > (?2, ?3) ORDER BY card, id LIMIT ?4",
        )?
        .query_map(params![run, behind.card.as_str(), behind.id, AHEAD], carded)?
        .collect::<rusqlite::Result<_>>()?;
    Ok(entries.into_iter())
}
