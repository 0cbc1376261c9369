//! Actions: operations that change something. Each is sent once for its transid, and never without a row that says so.
//!
//! The intent (`begun`, a note in the audit) is committed before the call. From then on the transid's action is open until
//! a record says how it ended. While it is open, the same request is answered with code 99 and the number of the intent's
//! row, also after a restart: whether the carrier did it has to be found out, and asking again would do it twice.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use cmiot_signer::AppId;

use crate::refusal::Refusal;
use crate::wire::transid::TransidKey;

/// The actions that no record says the end of, by the transid that they were asked for with.
#[derive(Debug, Default)]
pub struct Actions {
    open: Mutex<BTreeMap<(TransidKey, AppId), State>>,
}

/// How far an action has got.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum State {
    /// Its intent is on its way to the disk.
    Asked,
    /// Its intent is the row of this number: it may have been sent.
    Begun(i64),
    /// Its client was told that nothing was sent, and nothing may be.
    GivenUp,
}

/// An action, by the transid that it was asked for with.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Action {
    /// Who asked.
    pub client: AppId,
    /// The client's transid.
    pub transid: TransidKey,
}

impl Actions {
    /// Notes an action that was begun before a restart, and whose end no record says.
    pub fn restore(&self, action: Action, row: i64) {
        self.lock().insert(action.key(), State::Begun(row));
    }

    /// Why the same request is not sent again; none when nothing is open.
    pub fn refusal(&self, action: Action) -> Option<Refusal> {
        match self.lock().get(&action.key())? {
            State::Asked => Some(Refusal::Begun(None)),
            State::Begun(row) => Some(Refusal::Begun(Some(*row))),
            State::GivenUp => None,
        }
    }

    /// Forgets transids with stamps before this Unix second, which are refused for their age.
    pub fn sweep(&self, floor: u64) {
        let mut open = self.lock();
        while open.first_key_value().is_some_and(|((number, _), _)| number.unix() < floor) {
            open.pop_first();
        }
    }

    /// Its record says how it ended.
    pub fn end(&self, action: Action) {
        self.lock().remove(&action.key());
    }

    /// It is asked for: nothing of it is on the disk yet.
    pub fn register(&self, action: Action) {
        self.lock().insert(action.key(), State::Asked);
    }

    /// Whether it may be sent, now that its intent is committed.
    pub fn begin(&self, action: Action, row: i64) -> bool {
        match self.lock().get_mut(&action.key()) {
            Some(state @ State::Asked) => {
                *state = State::Begun(row);
                true
            }
            _ => false,
        }
    }

    /// What its client is told when nobody waits for it any more: that it may have been done, or that it never will be.
    pub fn abandon(&self, action: Action) -> Refusal {
        match self.lock().get_mut(&action.key()) {
            Some(State::Begun(row)) => Refusal::Begun(Some(*row)),
            Some(state) => {
                *state = State::GivenUp;
                Refusal::Audit
            }
            None => Refusal::Audit,
        }
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<(TransidKey, AppId), State>> {
        // The map is whole at every step.
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
    fn an_open_action_names_its_row_until_a_record_says_its_end() {
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
    fn an_action_whose_client_was_told_that_nothing_was_sent_is_not_sent_later() {
        let (actions, action) = (Actions::default(), action());
        actions.register(action);
        assert_eq!(actions.abandon(action), Refusal::Audit);
        assert!(!actions.begin(action, 7), "its intent came too late");
        assert_eq!(actions.refusal(action), None, "refused as a transid that was used");
    }
}
