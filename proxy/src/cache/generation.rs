//! Generations: why an older answer never lands after a purge.
//!
//! Whoever is about to learn an answer (a flight, a read of `cache.db`) takes a [`FillToken`] first, and keeps what it
//! learnt only if no purge that covers it came in between. Each purge is a generation of the cache; the list of them
//! is only as long as the oldest ticket needs. Keeping happens under the lock that a purge takes, so that there is no
//! moment between the check and the keeping.
//!
//! A read of the file has one more enemy: a removal that is queued, and not yet applied. Until it is, what such a read
//! brings is not believed; and when it is, every read that began before is outdated.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::{Entry, Key};
use crate::store::cache::Selection;

/// The purges that somebody may have to know of.
#[derive(Debug, Default)]
pub(super) struct Generations(Mutex<State>);

#[derive(Debug, Default)]
struct State {
    current: u64,
    /// Oldest first; none that no ticket is older than.
    purges: VecDeque<Purge>,
    /// How many tickets were taken at each generation.
    fill_tokens: BTreeMap<u64, usize>,
    /// Removals that are queued and not applied.
    pending: Vec<(u64, Selection)>,
}

#[derive(Debug)]
struct Purge {
    generation: u64,
    selection: Selection,
    /// Only reads of the file are outdated by it.
    reads_alone: bool,
}

/// Where an answer is learnt from.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Source {
    Carrier,
    File,
}

/// A place in time: what is learnt with it is not kept if a purge came since.
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

    /// Begins a purge: what was asked before is outdated. `act` runs before anybody can keep anything again.
    pub(super) fn begin<T>(&self, selection: &Selection, act: impl FnOnce() -> T) -> (u64, T) {
        let mut state = self.state();
        let generation = state.advance(selection, false);
        state.pending.push((generation, selection.clone()));
        (generation, act())
    }

    /// Ends a purge: the file has forgotten too.
    pub(super) fn end(&self, generation: u64, selection: &Selection) {
        let mut state = self.state();
        state.pending.retain(|(pending, _)| *pending != generation);
        state.advance(selection, true);
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // Nothing under this lock can panic half-way through a change.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn advance(&mut self, selection: &Selection, reads_alone: bool) -> u64 {
        self.current += 1;
        if !self.fill_tokens.is_empty() {
            let purge = Purge { generation: self.current, selection: selection.clone(), reads_alone };
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
    /// Keeps what was learnt, unless a purge that covers it came since the ticket was taken. Says whether it did.
    pub(super) fn insert_if_current(
        &self,
        source: Source,
        key: &Key,
        entry: &Entry,
        keep: impl FnOnce(),
    ) -> bool {
        let state = self.generations.state();
        let covers = |selection: &Selection| {
            let status = entry.reply.verdict.status.as_ref().map(cmiot_signer::Status::code);
            selection.covers(&key.group, key.operation.name, &key.card, status, entry.answered_at)
        };
        let outdated = state.purges.iter().any(|purge| {
            purge.generation > self.taken
                && (source == Source::File || !purge.reads_alone)
                && covers(&purge.selection)
        });
        let unsure = source == Source::File && state.pending.iter().any(|(_, selection)| covers(selection));
        if outdated || unsure {
            return false;
        }
        keep();
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

    fn keeps(ticket: &FillToken, source: Source, number: &str) -> bool {
        ticket.insert_if_current(source, &key(number), &entry("00", 0), || {})
    }

    #[test]
    fn what_was_asked_before_a_purge_is_not_kept_and_other_cards_are() {
        let generations = Arc::new(Generations::default());
        let before = generations.fill_token();
        let (generation, ()) = generations.begin(&one("1064800000001"), || {});
        let after = generations.fill_token();
        assert!(!keeps(&before, Source::Carrier, "1064800000001"));
        assert!(keeps(&before, Source::Carrier, "1064800000002"));
        assert!(keeps(&after, Source::Carrier, "1064800000001"));
        generations.end(generation, &one("1064800000001"));
        assert!(keeps(&after, Source::Carrier, "1064800000001"), "a flight does not care about the file");
    }

    #[test]
    fn a_read_is_believed_neither_across_a_purge_nor_while_it_is_queued() {
        let generations = Arc::new(Generations::default());
        let before = generations.fill_token();
        let (generation, ()) = generations.begin(&one("1064800000001"), || {});
        let during = generations.fill_token();
        assert!(!keeps(&before, Source::File, "1064800000001"));
        assert!(!keeps(&during, Source::File, "1064800000001"), "the row may be there still");
        generations.end(generation, &one("1064800000001"));
        assert!(
            !keeps(&during, Source::File, "1064800000001"),
            "it may have been read before it was removed"
        );
        assert!(keeps(&generations.fill_token(), Source::File, "1064800000001"));
    }

    #[test]
    fn a_purge_by_status_covers_that_status_alone() {
        let generations = Arc::new(Generations::default());
        let before = generations.fill_token();
        generations.begin(&Selection { status: Some("02".into()), ..Selection::default() }, || {});
        assert!(keeps(&before, Source::Carrier, "1064800000001"));
        assert!(!before.insert_if_current(Source::Carrier, &key("1064800000001"), &entry("02", 0), || {}));
    }

    #[test]
    fn nothing_is_remembered_for_nobody() {
        let generations = Arc::new(Generations::default());
        generations.begin(&Selection::default(), || {});
        assert!(generations.state().purges.is_empty());
        let ticket = generations.fill_token();
        generations.begin(&Selection::default(), || {});
        assert_eq!(generations.state().purges.len(), 1);
        drop(ticket);
        assert!(generations.state().purges.is_empty() && generations.state().fill_tokens.is_empty());
    }
}
