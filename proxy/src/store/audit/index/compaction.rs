//! A block in the making: its runs merged in order, a piece at a time, so that no commit waits for all of it.
//!
//! Runs that were sorted by this process are merged from memory. Of others, which are there after a start, a few entries
//! each are read ahead and kept between the pieces; a piece costs as much as it has entries, however many runs there are.

use std::cmp::Reverse;
use std::collections::binary_heap::PeekMut;
use std::collections::{BinaryHeap, VecDeque};
use std::vec;

use rusqlite::{Connection, OptionalExtension, params};

use super::packed::Packed;
use super::{IndexEntry, Sorted, carded};
use crate::inline_str::InlineStr;

/// Entries of a run that are read at once.
const AHEAD: u32 = 64;

/// See the module's text.
pub(super) struct Compaction {
    /// The block's number: that of its last run.
    through: i64,
    runs: Vec<Run>,
    /// The next entry of each run that is not at its end, and which one that is.
    next: BinaryHeap<Reverse<(IndexEntry, usize)>>,
}

struct Run {
    number: i64,
    ahead: Ahead,
}

/// What is at hand of a run.
enum Ahead {
    /// All of it that is still to come.
    Whole(Packed),
    /// What was read of it last.
    Read(vec::IntoIter<IndexEntry>),
}

impl Run {
    /// The next entry; `entry` is the one before, where there was one.
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
            .unwrap_or(IndexEntry { card: InlineStr::new(""), id: 0 });
        let mut merge = Self { through, next: BinaryHeap::new(), runs: Vec::new() };
        for number in blocked + 1..=through {
            // They are in the order of their numbers, as they were sorted.
            let ahead = match fresh.pop_front_if(|fresh| fresh.run == number) {
                Some(Sorted { entries, .. }) => Ahead::Whole(entries),
                None => Ahead::Read(Vec::new().into_iter()),
            };
            let mut run = Run { number, ahead };
            if let Some(first) = run.next(connection, so_far)? {
                merge.next.push(Reverse((first, merge.runs.len())));
                merge.runs.push(run);
            }
        }
        Ok(merge)
    }

    /// The block's number.
    pub(super) fn through(&self) -> i64 {
        self.through
    }

    /// The next entries, as many at most.
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

    /// Whether all is taken.
    pub(super) fn is_over(&self) -> bool {
        self.next.is_empty()
    }
}

/// The entries of a run behind one, a few.
fn read(
    connection: &Connection,
    run: i64,
    behind: IndexEntry,
) -> rusqlite::Result<vec::IntoIter<IndexEntry>> {
    let entries: Vec<IndexEntry> = connection
        .prepare_cached(
            "SELECT card, id FROM card_entry WHERE run = ?1 AND (card, id) > (?2, ?3) ORDER BY card, id LIMIT ?4",
        )?
        .query_map(params![run, behind.card.as_str(), behind.id, AHEAD], carded)?
        .collect::<rusqlite::Result<_>>()?;
    Ok(entries.into_iter())
}
