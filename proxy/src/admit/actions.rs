//! Actions: operations that change something. Each is sent once per transid, and never without an audit row.
//!
//! The intent (`begun`, a note in the audit) is committed before the call. From then on the action is open until a record
//! states its result. While it is open, the same request is refused with code 99 and the number of the intent's row, also
//! after a restart: whether the carrier executed it is unknown, and another call might execute it twice.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use cmiot_signer::AppId;

use crate::refusal::Refusal;
use crate::wire::transid::TransidKey;

/// The open actions, by their transid.
#[derive(Debug, Default)]
pub struct Actions {
    open: Mutex<BTreeMap<(TransidKey, AppId), State>>,
}

/// The progress of an open action.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum State {
    /// Its intent is not committed yet.
    Registered,
    /// Its intent is the row of this number; it may have been sent.
    Begun(i64),
    /// The response said that nothing was sent, so nothing may be sent.
    Abandoned,
}

/// An action, by its client and transid.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Action {
    pub client: AppId,
    pub transid: TransidKey,
}

impl Actions {
    /// Opens an action again whose intent was committed before a restart, and whose result no record states.
    pub fn restore(&self, action: Action, row: i64) {
        self.lock().insert(action.key(), State::Begun(row));
    }

    /// The refusal of the same request, if its action is open.
    pub fn refusal(&self, action: Action) -> Option<Refusal> {
        match self.lock().get(&action.key())? {
            State::Registered => Some(Refusal::Begun(None)),
            State::Begun(row) => Some(Refusal::Begun(Some(*row))),
            State::Abandoned => None,
        }
    }

    /// Removes actions with stamps before this Unix second: their transids are refused as stale.
    pub fn sweep(&self, floor: u64) {
        let mut open = self.lock();
        while open.first_key_value().is_some_and(|((number, _), _)| number.unix() < floor) {
            open.pop_first();
        }
    }

    /// Closes an action, since its record states the result.
    pub fn end(&self, action: Action) {
        self.lock().remove(&action.key());
    }

    /// Adds an action before its intent is committed.
    pub fn register(&self, action: Action) {
        self.lock().insert(action.key(), State::Registered);
    }

    /// Records the committed intent. Returns whether the action may be sent.
    pub fn begin(&self, action: Action, row: i64) -> bool {
        match self.lock().get_mut(&action.key()) {
            Some(state @ State::Registered) => {
                *state = State::Begun(row);
                true
            }
            _ => false,
        }
    }

    /// The refusal when the request no longer waits: the action may have been executed, or it never will be.
    pub fn abandon(&self, action: Action) -> Refusal {
        match self.lock().get_mut(&action.key()) {
            Some(State::Begun(row)) => Refusal::Begun(Some(*row)),
            Some(state) => {
                *state = State::Abandoned;
                Refusal::Audit
            }
            None => Refusal::Audit,
        }
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<(TransidKey, AppId), State>> {
        // No step leaves the map inconsistent.
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Action {
    fn key(self) -> (TransidKey, AppId) {
        (self.transid, self.client)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use cmiot_signer::{Sequence, Stamp, Transid};

    fn action() -> Action {
        let client = AppId::parse("A1").unwrap();
        Action { client, transid: TransidKey::of(&Transid::new(&client, Stamp::FIRST, Sequence::FIRST)) }
    }

    #[test]
    fn an_open_action_is_refused_with_its_row_until_a_record_states_its_result() {
        let (actions, action) = (Actions::default(), action());
        assert_eq!(actions.refusal(action), None);
        actions.register(action);
        assert_eq!(actions.refusal(action), Some(Refusal::Begun(None)));
        assert!(actions.begin(action, 7));
        assert!(!actions.begin(action, 8), "once");
        for _ in 0..2 {
            assert_eq!(actions.abandon(action), Refusal::Begun(Some(7)));
            assert_eq!(actions.refusal(action), Some(Refusal::Begun(Some(7))));
        }
        actions.end(action);
        assert_eq!(actions.refusal(action), None);
        actions.restore(action, 9);
        assert_eq!(actions.refusal(action), Some(Refusal::Begun(Some(9))));
        actions.sweep(Stamp::FIRST.to_unix());
        assert_eq!(actions.refusal(action), Some(Refusal::Begun(Some(9))), "its stamp is in the window");
        actions.sweep(Stamp::FIRST.to_unix() + 1);
        assert_eq!(actions.refusal(action), None);
    }

    #[test]
    fn an_abandoned_action_is_not_sent_later() {
        let (actions, action) = (Actions::default(), action());
        actions.register(action);
        assert_eq!(actions.abandon(action), Refusal::Audit);
        assert!(!actions.begin(action, 7), "its intent was committed too late");
        assert_eq!(actions.refusal(action), None, "the replay cache refuses its transid");
    }
}
