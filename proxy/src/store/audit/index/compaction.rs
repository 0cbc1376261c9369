//! The merge of runs into a block, step by step, so that no commit waits for all of it.
//!
//! Runs that this process sorted are merged from memory. Of other runs, which exist after a start, a few entries are
//! read ahead and kept between the steps; the cost of a step depends on its entries, not on the number of runs.

use std::cmp::Reverse;
use std::collections::binary_heap::PeekMut;
use std::collections::{BinaryHeap, VecDeque};
use std::vec;

use rusqlite::{Connection, OptionalExtension, params};

use super::packed::Packed;
use super::{IndexEntry, Sorted, read_entry};
use crate::inline_str::InlineStr;

/// Entries of a run per read.
const AHEAD: u32 = 64;

/// An unfinished block.
pub(super) struct Compaction {
    /// The block's number: that of its last run.
    block: i64,
    runs: Vec<Run>,
    /// Per run that is not at its end, its next entry and its index in `runs`.
    next: BinaryHeap<Reverse<(IndexEntry, usize)>>,
}

struct Run {
    number: i64,
    ahead: Ahead,
}

/// The entries of a run that are in memory.
enum Ahead {
    /// All remaining entries.
    Whole(Packed),
    /// The entries of the last read.
    Read(vec::IntoIter<IndexEntry>),
}

impl Run {
    /// The next entry after `entry`.
    fn next(&mut self, connection: &Connection, entry: IndexEntry) -> rusqlite::Result<Option<IndexEntry>> {
        let ahead = match &mut self.ahead {
            Ahead::Whole(entries) => return Ok(entries.next()),
            Ahead::Read(read) => read,
        };
        if let Some(next) = ahead.next() {
            return Ok(Some(next));
        }
        *ahead = read(connection, self.number, entry)?;
        Ok(ahead.next())
    }
}

impl Compaction {
    /// Opens the merge of the runs after `blocked`, the last run in a block, up to `through`; takes those that are in
    /// `fresh`. Continues after the entries that are merged already.
    pub(super) fn open(
        connection: &Connection,
        blocked: i64,
        through: i64,
        fresh: &mut VecDeque<Sorted>,
    ) -> rusqlite::Result<Self> {
        // The greatest merged entry: all greater ones remain.
        let so_far = connection
            .prepare_cached(
                "SELECT card, id FROM card_block_entry WHERE block = ?1 ORDER BY card DESC, id DESC LIMIT 1",
            )?
            .query_row([through], read_entry)
            .optional()?
            .unwrap_or(IndexEntry { card: InlineStr::new(""), id: 0 });
        let mut compaction = Self { block: through, next: BinaryHeap::new(), runs: Vec::new() };
        for number in blocked + 1..=through {
            // `fresh` is ordered by run number.
            let ahead = match fresh.pop_front_if(|fresh| fresh.run == number) {
                Some(Sorted { entries, .. }) => Ahead::Whole(entries),
                None => Ahead::Read(Vec::new().into_iter()),
            };
            let mut run = Run { number, ahead };
            if let Some(first) = run.next(connection, so_far)? {
                compaction.next.push(Reverse((first, compaction.runs.len())));
                compaction.runs.push(run);
            }
        }
        Ok(compaction)
    }

    /// The block's number.
    pub(super) fn block(&self) -> i64 {
        self.block
    }

    /// Takes at most so many entries, in order.
    pub(super) fn take(
        &mut self,
        connection: &Connection,
        entries: usize,
    ) -> rusqlite::Result<Vec<IndexEntry>> {
        let mut taken = Vec::with_capacity(entries);
        while taken.len() < entries
            && let Some(mut least) = self.next.peek_mut()
        {
            let Reverse((entry, place)) = *least;
            taken.push(entry);
            match self.runs[place].next(connection, entry)? {
                Some(following) => *least = Reverse((following, place)),
                None => _ = PeekMut::pop(least),
            }
        }
        Ok(taken)
    }

    /// Whether all entries are taken.
    pub(super) fn is_finished(&self) -> bool {
        self.next.is_empty()
    }
}

/// Reads the next entries of a run after one.
fn read(connection: &Connection, run: i64, after: IndexEntry) -> rusqlite::Result<vec::IntoIter<IndexEntry>> {
    let entries: Vec<IndexEntry> = connection
        .prepare_cached(
            "SELECT card, id FROM card_entry WHERE run = ?1 AND (card, id) > (?2, ?3) ORDER BY card, id LIMIT ?4",
        )?
        .query_map(params![run, after.card.as_str(), after.id, AHEAD], read_entry)?
        .collect::<rusqlite::Result<_>>()?;
    Ok(entries.into_iter())
}
