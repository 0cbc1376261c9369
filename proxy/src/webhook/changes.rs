//! Changes of STATUS in a fleet: an answer is compared with the last one of its card over all nodes, so that a change is sent
//! once, by the node that made the call.
//!
//! While the node is alone, an answer is compared with those of this node, and a change that another node has seen too may
//! be sent twice. Hashes of cards (`[audit] identifiers = "keyed"`) differ from node to node, and are compared there alone.

use std::time::Duration;

use crate::clock::Time;
use crate::fleet::Fleet;
use crate::fleet::statuses::StatusAnswer;
use crate::store::audit::query::{AccountGroups, Event, EventKind, LastStatus};

/// The age from which on an answer is compared: other nodes have passed their earlier answers by then, unless their
/// receiver fails.
const GRACE: Duration = Duration::from_secs(2);

/// Whether an answer of this time is too new to be compared.
pub(super) fn is_young(at: Time, now: Time) -> bool {
    // An answer of the future is from before this machine's clock was set back.
    at <= now && now.since(at) < GRACE
}

/// Replaces the STATUS before each answer by that of the fleet.
pub(super) async fn compare_in_fleet(fleet: &Fleet, groups: &AccountGroups, events: &mut [Event]) {
    let answers: Vec<_> = events.iter().filter_map(|event| answer(event, groups)).collect();
    if answers.is_empty() {
        return;
    }
    match fleet.status_changes(&answers).await {
        Ok(changes) => {
            let is_compared: Vec<_> = events.iter().map(|event| answer(event, groups).is_some()).collect();
            let compared = events.iter_mut().zip(is_compared).filter(|(_, is_compared)| *is_compared);
            for ((event, _), before) in compared.zip(changes) {
                let EventKind::Status(answer) = &mut event.kind else { continue };
                answer.before = before.map(|(status, at)| LastStatus { status, at });
            }
        }
        Err(error) => tracing::debug!(%error, "webhook: answers are compared with those of this node only"),
    }
}

/// The answer in an event, if other nodes name its card alike.
fn answer<'a>(event: &'a Event, groups: &'a AccountGroups) -> Option<StatusAnswer<'a>> {
    let EventKind::Status(answer) = &event.kind else { return None };
    if answer.key.is_some() {
        return None;
    }
    let owner = match groups.get(&*answer.account) {
        Some(group) => [&b"status of a group"[..], group.as_bytes()],
        None => [&b"status of an account"[..], answer.account.as_bytes()],
    };
    Some(StatusAnswer {
        parts: [
            owner[0],
            owner[1],
            answer.operation.as_bytes(),
            answer.kind.as_bytes(),
            answer.card.as_bytes(),
        ],
        event: &event.id,
        now: (&answer.to, event.at),
        known: answer.before.as_ref().map(|before| (&*before.status, before.at)),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_is_held_for_two_seconds_unless_it_is_of_the_future() {
        let now = Time::from_secs(1_768_449_600);
        for (at, held) in [
            (now, true),
            (now.minus(GRACE).plus(Duration::from_millis(1)), true),
            (now.minus(GRACE), false),
            (now.plus(Duration::from_millis(1)), false),
            (now.plus(Duration::from_secs(3_600)), false),
        ] {
            assert_eq!(is_young(at, now), held, "{at}");
        }
    }
}
