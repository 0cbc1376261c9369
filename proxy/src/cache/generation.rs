//! Generations: no entry that is older than a purge is inserted after it.
//!
//! A reader of new entries (a flight, or a read of `cache.db`) takes a [`FillToken`] first, and inserts its entry only if
//! no purge has covered it meanwhile. Each purge is a generation of the cache; the list of purges goes back as far as the
//! oldest token. An insertion takes the lock that a purge takes, so no purge comes between the check and the insertion.
//!
//! A read of the file may also see a row whose removal is queued and not applied. Until it is applied, the result of such
//! a read is not inserted; once it is, every read that started before is outdated.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::{Entry, Key};
use crate::store::cache::Selection;

/// The purges that concern tokens in use.
#[derive(Debug, Default)]
pub(super) struct Generations(Mutex<State>);

#[derive(Debug, Default)]
struct State {
    current: u64,
    /// Oldest first; each is later than some token.
    purges: VecDeque<Purge>,
    /// Tokens in use by the generation in which they were taken.
    fill_tokens: BTreeMap<u64, usize>,
    /// Purges whose removal from the file is queued and not applied.
    pending: Vec<Pending>,
}

#[derive(Debug)]
struct Pending {
    generation: u64,
    selection: Selection,
}

#[derive(Debug)]
struct Purge {
    generation: u64,
    selection: Selection,
    scope: Scope,
}

/// The sources whose entries a purge outdates.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Scope {
    All,
    FileReads,
}

/// Source of an entry.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Source {
    Carrier,
    File,
}

/// The generation in which a call or a read started: its entry is not inserted if a later purge covers it.
#[derive(Debug)]
pub struct FillToken {
    generations: Arc<Generations>,
    taken: u64,
}

impl Generations {
    /// The number of purges so far.
    pub(super) fn current(&self) -> u64 {
        self.state().current
    }

    pub(super) fn fill_token(self: &Arc<Self>) -> FillToken {
        let mut state = self.state();
        let taken = state.current;
        *state.fill_tokens.entry(taken).or_default() += 1;
        FillToken { generations: Arc::clone(self), taken }
    }

    /// Starts a purge: earlier calls and reads are outdated. `act` runs before any other entry can be inserted.
    pub(super) fn start<T>(&self, selection: &Selection, act: impl FnOnce() -> T) -> (u64, T) {
        let mut state = self.state();
        let generation = state.advance(selection, Scope::All);
        state.pending.push(Pending { generation, selection: selection.clone() });
        (generation, act())
    }

    /// Ends a purge: it has been applied to the file.
    pub(super) fn end(&self, generation: u64, selection: &Selection) {
        let mut state = self.state();
        state.pending.retain(|pending| pending.generation != generation);
        state.advance(selection, Scope::FileReads);
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // Nothing under this lock can panic half-way through a change.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn advance(&mut self, selection: &Selection, scope: Scope) -> u64 {
        self.current += 1;
        if !self.fill_tokens.is_empty() {
            let purge = Purge { generation: self.current, selection: selection.clone(), scope };
            self.purges.push_back(purge);
        }
        self.current
    }

    fn drop_old_purges(&mut self) {
        let oldest = self.fill_tokens.first_key_value().map_or(u64::MAX, |(taken, _)| *taken);
        while self.purges.front().is_some_and(|purge| purge.generation <= oldest) {
            self.purges.pop_front();
        }
    }
}

impl FillToken {
    /// Runs `insert`, unless a purge has covered the entry since the token was taken. Returns whether it did.
    pub(super) fn insert_if_current(
        &self,
        source: Source,
        key: &Key,
        entry: &Entry,
        insert: impl FnOnce(),
    ) -> bool {
        let state = self.generations.state();
        let covers = |selection: &Selection| {
            let status = entry.reply.verdict.status.as_ref().map(cmiot_signer::Status::code);
            selection.covers(&key.group, key.operation.name, &key.card, status, entry.answered_at)
        };
        let outdated = state.purges.iter().any(|purge| {
            purge.generation > self.taken
                && (source == Source::File || purge.scope == Scope::All)
                && covers(&purge.selection)
        });
        let unsure = source == Source::File && state.pending.iter().any(|pending| covers(&pending.selection));
        if outdated || unsure {
            return false;
        }
        insert();
        true
    }
}

impl Drop for FillToken {
    fn drop(&mut self) {
        let mut state = self.generations.state();
        if let Some(count) = state.fill_tokens.get_mut(&self.taken) {
            *count -= 1;
            if *count == 0 {
                state.fill_tokens.remove(&self.taken);
                state.drop_old_purges();
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cache::tests::{entry, key};

    fn one(number: &str) -> Selection {
        Selection { card: Some(key(number).card), ..Selection::default() }
    }

    fn inserts(token: &FillToken, source: Source, number: &str) -> bool {
        token.insert_if_current(source, &key(number), &entry("00", 0), || {})
    }

    #[test]
    fn a_call_before_a_purge_inserts_other_cards_only() {
        let generations = Arc::new(Generations::default());
        let before = generations.fill_token();
        let (generation, ()) = generations.start(&one("1064800000001"), || {});
        let after = generations.fill_token();
        assert!(!inserts(&before, Source::Carrier, "1064800000001"));
        assert!(inserts(&before, Source::Carrier, "1064800000002"));
        assert!(inserts(&after, Source::Carrier, "1064800000001"));
        generations.end(generation, &one("1064800000001"));
        assert!(inserts(&after, Source::Carrier, "1064800000001"), "a flight does not read the file");
    }

    #[test]
    fn a_read_inserts_neither_across_a_purge_nor_while_it_is_queued() {
        let generations = Arc::new(Generations::default());
        let before = generations.fill_token();
        let (generation, ()) = generations.start(&one("1064800000001"), || {});
        let during = generations.fill_token();
        assert!(!inserts(&before, Source::File, "1064800000001"));
        assert!(!inserts(&during, Source::File, "1064800000001"), "the row may still be there");
        generations.end(generation, &one("1064800000001"));
        assert!(
            !inserts(&during, Source::File, "1064800000001"),
            "it may have been read before it was removed"
        );
        assert!(inserts(&generations.fill_token(), Source::File, "1064800000001"));
    }

    #[test]
    fn a_purge_by_status_covers_that_status_alone() {
        let generations = Arc::new(Generations::default());
        let before = generations.fill_token();
        generations.start(&Selection { status: Some("02".into()), ..Selection::default() }, || {});
        assert!(inserts(&before, Source::Carrier, "1064800000001"));
        assert!(!before.insert_if_current(Source::Carrier, &key("1064800000001"), &entry("02", 0), || {}));
    }

    #[test]
    fn purges_are_listed_while_tokens_need_them() {
        let generations = Arc::new(Generations::default());
        generations.start(&Selection::default(), || {});
        assert!(generations.state().purges.is_empty());
        let token = generations.fill_token();
        generations.start(&Selection::default(), || {});
        assert_eq!(generations.state().purges.len(), 1);
        drop(token);
        assert!(generations.state().purges.is_empty() && generations.state().fill_tokens.is_empty());
    }
}
