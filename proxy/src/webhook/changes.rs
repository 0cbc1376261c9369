//! Changes of STATUS in a fleet: an answer is compared with the last one of its card over all nodes, so that a change is sent
//! once, by the node that made the call.
//!
//! While the node is alone, an answer is compared with those of this node, and a change that another node has seen too may
//! be sent twice. Hashes of cards (`[audit] identifiers = "keyed"`) differ from node to node, and are compared there alone.

use std::time::Duration;

use crate::clock::Time;
use crate::fleet::Fleet;
use crate::fleet::statuses::StatusAnswer;
use crate::store::audit::query::{AccountGroups, Event, EventKind, LastStatus, Page};

/// The age from which on an answer is compared: other nodes have passed their earlier answers by then, unless their
/// receiver fails.
const GRACE: Duration = Duration::from_secs(2);

/// Ends a page before the first answer that is too new to be compared; returns whether there is one.
pub(super) fn hold_back(page: &mut Page, now: Time) -> bool {
    // An answer of the future is from before this machine's clock was set back.
    let is_young = |at: Time| at <= now && now.since(at) < GRACE;
    let is_new = |event: &Event| matches!(event.kind, EventKind::Status(_)) && is_young(event.at);
    let Some(first) = page.events.iter().position(is_new) else { return false };
    page.through = page.events[first].row - 1;
    page.events.truncate(first);
    // The rows behind it are read when the audit is looked at again.
    page.is_last = true;
    true
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
