//! Which rows a card has: sorted runs and blocks, appended behind the commits, so that no commit waits for them.
//!
//! A live index would dirty a page a row. Instead, rows that are committed wait in the *tail*; when there are
//! [`Options::run`](super::Options::run) of them they are sorted into a *run* (`card_run`, `card_entry`), and
//! [`Options::block`](super::Options::block) runs into a *block* (`card_block`, `card_block_entry`), a small step at a
//! time, since each step keeps the next commit waiting. Whoever looks for a card asks every block and every run behind
//! the last one, and scans the tail. Nothing is deleted: runs that a block covers stay, unread.
//!
//! A block has the number of its last run. Entries of a number that is greater than every block's are a block in the
//! making, which goes on where it stopped, after a crash too.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

use rusqlite::{Connection, OptionalExtension, Row, Transaction, TransactionBehavior, params};

use super::Clip;

/// How far the index of a segment has got.
pub(super) struct Index {
    /// Rows of a run, runs of a block.
    run: i64,
    block: i64,
    /// The last row in a run; the last run, and the last one in a block.
    indexed: i64,
    last_run: i64,
    blocked: i64,
}

/// A row that is to be found by its card; ordered by card, then number.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(super) struct Carded {
    /// As it stands in the file; a keyed hash is the longest.
    pub(super) card: Clip<32>,
    pub(super) id: i64,
}

/// The entries of a run: what has a card behind the last run, sorted so that each insertion is next to the one before.
/// One statement, in which SQLite keeps its place in the tree.
const ENTRIES: &str = "
    INSERT OR ROLLBACK INTO card_entry (run, card, id)
    SELECT ?1, card, id
    FROM (SELECT card, id FROM record WHERE id > ?2 AND card IS NOT NULL
          UNION ALL
          SELECT card, id FROM call WHERE id > ?2 AND card IS NOT NULL)
    ORDER BY card, id";

impl Index {
    /// Of a segment whose last row is `last`.
    pub(super) fn open(connection: &Connection, last: i64, run: u32, block: u32) -> rusqlite::Result<Self> {
        // One for each run of a block, beside all others.
        connection.set_prepared_statement_cache_capacity(usize::try_from(block).unwrap_or(0).min(256) + 32);
        let most = |sql| connection.query_row(sql, [], |row| row.get::<_, Option<i64>>(0));
        let indexed = match most("SELECT max(last) FROM card_run")? {
            Some(indexed) => indexed,
            None => most("SELECT min(first) - 1 FROM batch")?.unwrap_or(last),
        };
        Ok(Self {
            run: run.max(1).into(),
            block: block.max(1).into(),
            indexed,
            last_run: most("SELECT max(id) FROM card_run")?.unwrap_or(0),
            blocked: most("SELECT max(id) FROM card_block")?.unwrap_or(0),
        })
    }

    /// Whether there is something to do, the last row being `last`.
    pub(super) fn is_behind(&self, last: i64) -> bool {
        last - self.indexed >= self.run || self.last_run - self.blocked >= self.block
    }

    /// Does a piece of it after a commit of `rows` rows, in transactions of its own: enough not to fall behind.
    pub(super) fn step(&mut self, connection: &mut Connection, last: i64, rows: i64) -> rusqlite::Result<()> {
        if last - self.indexed >= self.run {
            let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
            self.append_run(transaction, last)?;
        }
        if self.last_run - self.blocked >= self.block {
            let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
            // One entry a row would do.
            let entries = (2 * rows).max(self.run / 8).max(64);
            self.extend_block(transaction, self.blocked + self.block, entries)?;
        }
        Ok(())
    }

    /// Does all of it, for a segment that is over: what is left, however little, is a run and a block.
    pub(super) fn complete(mut self, connection: &mut Connection, last: i64) -> rusqlite::Result<()> {
        if last > self.indexed {
            let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
            self.append_run(transaction, last)?;
        }
        while self.blocked < self.last_run {
            let through = self.last_run.min(self.blocked + self.block);
            let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
            self.extend_block(transaction, through, self.run)?;
        }
        Ok(())
    }

    /// Sorts the tail into a run.
    fn append_run(&mut self, transaction: Transaction<'_>, last: i64) -> rusqlite::Result<()> {
        transaction
            .prepare_cached("INSERT INTO card_run (first, last) VALUES (?1, ?2)")?
            .execute([self.indexed + 1, last])?;
        let run = transaction.last_insert_rowid();
        transaction.prepare_cached(ENTRIES)?.execute([run, self.indexed])?;
        transaction.commit()?;
        (self.indexed, self.last_run) = (last, run);
        Ok(())
    }

    /// Merges so many more `entries` of the runs behind the last block, up to run `through`, into the block of that number.
    fn extend_block(
        &mut self,
        transaction: Transaction<'_>,
        through: i64,
        entries: i64,
    ) -> rusqlite::Result<()> {
        let done = {
            // The greatest so far: whatever is greater is still to come.
            let so_far = transaction
                .prepare_cached(
                    "SELECT card, id FROM card_block_entry WHERE block = ?1 ORDER BY card DESC, id DESC LIMIT 1",
                )?
                .query_row([through], carded)
                .optional()?
                .unwrap_or(Carded { card: Clip::new(""), id: 0 });
            let mut runs = (0..through - self.blocked)
                .map(|place| {
                    // A text of its own, so that each of them is prepared once and kept.
                    transaction.prepare_cached(&format!(
                        "SELECT card, id FROM card_entry WHERE run = ?1 AND (card, id) > (?2, ?3)
                         ORDER BY card, id -- {place}"
                    ))
                })
                .collect::<rusqlite::Result<Vec<_>>>()?;
            let mut runs = (self.blocked + 1..)
                .zip(&mut runs)
                .map(|(run, entries)| entries.query(params![run, so_far.card.as_str(), so_far.id]))
                .collect::<rusqlite::Result<Vec<_>>>()?;
            let mut next = BinaryHeap::with_capacity(runs.len());
            for (place, run) in runs.iter_mut().enumerate() {
                if let Some(row) = run.next()? {
                    next.push(Reverse((carded(row)?, place)));
                }
            }
            let mut insert = transaction
                .prepare_cached("INSERT INTO card_block_entry (block, card, id) VALUES (?1, ?2, ?3)")?;
            for _ in 0..entries {
                let Some(Reverse((Carded { card, id }, place))) = next.pop() else { break };
                insert.execute(params![through, card.as_str(), id])?;
                if let Some(row) = runs[place].next()? {
                    next.push(Reverse((carded(row)?, place)));
                }
            }
            next.is_empty()
        };
        if done {
            transaction.execute(
                "INSERT INTO card_block (id, first, last)
                 SELECT ?2, min(first), max(last) FROM card_run WHERE id BETWEEN ?1 AND ?2",
                [self.blocked + 1, through],
            )?;
        }
        transaction.commit()?;
        if done {
            self.blocked = through;
        }
        Ok(())
    }
}

fn carded(row: &Row<'_>) -> rusqlite::Result<Carded> {
    Ok(Carded { card: Clip::new(row.get_ref(0)?.as_str()?), id: row.get(1)? })
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::super::tests::{NOON, row};
    use super::super::verify::{Scope, verify};
    use super::super::{AuditRow, AuditStore, Options};
    use crate::clock::Clock;

    #[test]
    fn a_block_goes_on_where_it_stopped_and_a_month_that_is_over_is_in_blocks_whole() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("audit-2026-01.db");
        let counts = || -> (i64, i64, i64) {
            rusqlite::Connection::open(&path)
                .unwrap()
                .query_row(
                    "SELECT (SELECT count(*) FROM card_run), (SELECT count(*) FROM card_block),
                            (SELECT count(*) FROM card_block_entry)",
                    [],
                    |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?)),
                )
                .unwrap()
        };
        let options = Options { run: 100, block: 3, ..Options::default() };
        let (clock, hand) = Clock::manual(NOON);
        let mut seen = Vec::new();
        // Started anew for each commit: nothing of a block is only in memory.
        for n in 0..8_u32 {
            let store = AuditStore::open(dir.path(), options, clock.clone()).unwrap();
            let rows = (0..50).map(|m| store.append(row(NOON, &format!("{n} {m}"))));
            let rows: Vec<_> = rows.collect();
            assert!(rows.into_iter().all(|row| row.wait() == Ok(())));
            store.close();
            seen.push(counts());
        }
        assert!(seen.iter().any(|(_, blocks, entries)| *blocks == 0 && *entries > 0), "{seen:?}");
        let later = NOON.plus(Duration::from_secs(30 * 86_400));
        hand.set(later);
        let store = AuditStore::open(dir.path(), options, clock).unwrap();
        assert_eq!(store.append(AuditRow { at: later, ..row(later, "later") }).wait(), Ok(()));
        store.close();
        let (_, blocks, entries) = counts();
        assert!(blocks >= 2 && entries == 400, "{blocks} blocks, {entries} entries");
        assert_eq!(verify(dir.path(), &Scope::default(), |_, _| {}).unwrap().damage, []);
    }
}
