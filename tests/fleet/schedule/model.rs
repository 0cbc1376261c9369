//! The reference model: the rules that a fleet keeps through any faults, checked over a history of one run.
//!
//! A history has only facts from outside the proxies: the calls that the carrier received, the responses that clients
//! received, the rows of each node's audit, and the table of the transids that two nodes have accepted. [`check`] returns
//! each rule that the history breaks:
//!
//! - no transid arrives twice at the carrier;
//! - a node accepts a client's transid once; under `when_alone = "refuse"` so does the whole fleet; under `"serve"` all but
//!   one of the nodes that accepted it were alone, which their records and notes state, and the table has the transid;
//! - each response has a record;
//! - no day has more carrier calls than the budget.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::time::Duration;

/// The time around a midnight in which a call may belong to either day: it was on its way while its node was paused, or its
/// node was cut off and has the time of the database by its own clock only.
const AROUND_MIDNIGHT: Duration = Duration::from_secs(12);

/// The facts of one run.
#[derive(Clone, Debug, Default)]
pub(super) struct History {
    /// `when_alone = "refuse"`.
    pub(super) refuses_alone: bool,
    /// Calls at the carrier, oldest first.
    pub(super) calls: Vec<CarrierCall>,
    /// Responses at the clients.
    pub(super) responses: Vec<Received>,
    pub(super) nodes: Vec<NodeAudit>,
    /// The transids of `fleet.accepted_twice`.
    pub(super) listed: BTreeSet<String>,
    /// Carrier calls of a day, at most.
    pub(super) limit: u64,
    /// The midnights during the run, by the carrier's clock.
    pub(super) midnights: Vec<Duration>,
}

#[derive(Clone, Debug)]
pub(super) struct CarrierCall {
    pub(super) transid: String,
    /// By the carrier's clock.
    pub(super) at: Duration,
}

#[derive(Clone, Debug)]
pub(super) struct Received {
    pub(super) node: usize,
    pub(super) transid: String,
    pub(super) code: String,
}

/// The audit of one node.
#[derive(Clone, Debug, Default)]
pub(super) struct NodeAudit {
    pub(super) records: Vec<Record>,
    /// In the order of their rows.
    pub(super) notes: Vec<AloneNote>,
    /// Whether its wall clock was stepped: the times of its rows cannot be compared.
    pub(super) is_stepped: bool,
}

/// The record of a lookup.
#[derive(Clone, Debug)]
pub(super) struct Record {
    /// Rows of a node are numbered in the order of their commits, notes included.
    pub(super) id: i64,
    /// Arrival of the request, in microseconds.
    pub(super) at: i64,
    /// Time until the response, in microseconds.
    pub(super) latency: i64,
    pub(super) transid: String,
    pub(super) code: String,
    /// Whether the response was the carrier's: the transid was accepted.
    pub(super) is_answered: bool,
    /// Whether the record states that the node was alone.
    pub(super) is_alone: bool,
}

/// A note that a node begins to be alone, or ends.
#[derive(Clone, Copy, Debug)]
pub(super) struct AloneNote {
    pub(super) id: i64,
    /// In microseconds.
    pub(super) at: i64,
    pub(super) begins: bool,
}

/// A rule that a history breaks.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Violation {
    /// The carrier received this transid more than once.
    RepeatedCall { transid: String },
    /// One node accepted this transid more than once.
    RepeatedAtNode { transid: String, node: usize },
    /// Two nodes accepted this transid, and more than one of them did not state that it was alone.
    AcceptedTwice { transid: String },
    /// Two nodes accepted this transid under `when_alone = "refuse"`.
    AcceptedAlone { transid: String },
    /// Two nodes accepted this transid, and the table does not have it.
    NotListed { transid: String },
    /// A record states that its node was alone, and no notes do.
    NotNoted { transid: String, node: usize },
    /// More responses than records of this transid and code.
    Unaudited { transid: String, node: usize, code: String },
    /// More calls of one day, or of all days, than the budget allows.
    OverBudget { calls: u64, most: u64 },
}

/// All rules that the history breaks.
pub(super) fn check(history: &History) -> BTreeSet<Violation> {
    let mut found = BTreeSet::new();
    found.extend(repeated_calls(history));
    found.extend(accepted_more_than_once(history));
    found.extend(not_noted(history));
    found.extend(unaudited(history));
    found.extend(over_budget(history));
    found
}

fn repeated_calls(history: &History) -> Vec<Violation> {
    let mut seen = BTreeSet::new();
    let repeated = history.calls.iter().filter(|call| !seen.insert(&call.transid));
    repeated.map(|call| Violation::RepeatedCall { transid: call.transid.clone() }).collect()
}

fn accepted_more_than_once(history: &History) -> Vec<Violation> {
    let mut accepted: BTreeMap<&str, Vec<(usize, &Record)>> = BTreeMap::new();
    for (node, audit) in history.nodes.iter().enumerate() {
        for record in audit.records.iter().filter(|record| record.is_answered) {
            accepted.entry(record.transid.as_str()).or_default().push((node, record));
        }
    }
    let mut found = Vec::new();
    for (transid, records) in accepted {
        let transid = transid.to_owned();
        let nodes: BTreeSet<_> = records.iter().map(|(node, _)| *node).collect();
        for node in &nodes {
            if records.iter().filter(|(one, _)| one == node).count() > 1 {
                found.push(Violation::RepeatedAtNode { transid: transid.clone(), node: *node });
            }
        }
        if nodes.len() < 2 {
            continue;
        }
        if history.refuses_alone {
            found.push(Violation::AcceptedAlone { transid: transid.clone() });
        }
        if records.iter().filter(|(_, record)| !record.is_alone).count() > 1 {
            found.push(Violation::AcceptedTwice { transid: transid.clone() });
        }
        if !history.listed.contains(&transid) {
            found.push(Violation::NotListed { transid });
        }
    }
    found
}

fn not_noted(history: &History) -> Vec<Violation> {
    let mut found = Vec::new();
    for (node, audit) in history.nodes.iter().enumerate() {
        let alone = audit.records.iter().filter(|record| record.is_answered && record.is_alone);
        for record in alone.filter(|record| !audit.is_noted(record)) {
            found.push(Violation::NotNoted { transid: record.transid.clone(), node });
        }
    }
    found
}

impl NodeAudit {
    /// Whether the notes state that the node was alone at some moment of a request.
    fn is_noted(&self, record: &Record) -> bool {
        (self.notes.iter().enumerate()).filter(|(_, note)| note.begins && note.id < record.id).any(
            |(index, begin)| {
                let end = self.notes.get(index + 1).map_or(i64::MAX, |note| note.at);
                self.is_stepped || begin.at <= record.at + record.latency && record.at <= end
            },
        )
    }
}

fn unaudited(history: &History) -> Vec<Violation> {
    let mut records: HashMap<(usize, &str, &str), usize> = HashMap::new();
    for (node, audit) in history.nodes.iter().enumerate() {
        for record in &audit.records {
            *records.entry((node, &record.transid, &record.code)).or_default() += 1;
        }
    }
    let mut found = Vec::new();
    for Received { node, transid, code } in &history.responses {
        match records.get_mut(&(*node, transid.as_str(), code.as_str())) {
            Some(left) if *left > 0 => *left -= 1,
            _ => {
                let (transid, code) = (transid.clone(), code.clone());
                found.push(Violation::Unaudited { transid, node: *node, code });
            }
        }
    }
    found
}

fn over_budget(history: &History) -> Vec<Violation> {
    let History { calls, limit, midnights, .. } = history;
    let begins = std::iter::once(Duration::ZERO).chain(midnights.iter().map(|at| *at + AROUND_MIDNIGHT));
    let ends =
        midnights.iter().map(|at| at.saturating_sub(AROUND_MIDNIGHT)).chain(std::iter::once(Duration::MAX));
    let days = begins.zip(ends).map(|(begin, end)| {
        let made = calls.iter().filter(|call| (begin..end).contains(&call.at)).count() as u64;
        (made, *limit)
    });
    let all = (calls.len() as u64, limit * (midnights.len() as u64 + 1));
    let exceeded = days.chain([all]).filter(|(made, most)| made > most);
    exceeded.map(|(calls, most)| Violation::OverBudget { calls, most }).collect()
}

/// Each rule is shown to be checked: the sound history with one change that breaks it.
mod tests {
    use super::*;

    fn record(id: i64, transid: &str, is_alone: bool) -> Record {
        let (transid, code) = (transid.to_owned(), "0".to_owned());
        Record { id, at: id * 1_000, latency: 500, transid, code, is_answered: true, is_alone }
    }

    fn received(node: usize, transid: &str) -> Received {
        Received { node, transid: transid.to_owned(), code: "0".to_owned() }
    }

    fn call(transid: &str, seconds: u64) -> CarrierCall {
        CarrierCall { transid: transid.to_owned(), at: Duration::from_secs(seconds) }
    }

    /// Node 0 accepts `a` and `b`; node 1 accepts `b` too, while it is alone, and `c`.
    fn sound() -> History {
        let note = |id: i64, begins| AloneNote { id, at: id * 1_000, begins };
        History {
            refuses_alone: false,
            calls: vec![call("1", 10), call("2", 20), call("3", 70), call("4", 80)],
            responses: vec![received(0, "a"), received(0, "b"), received(1, "b"), received(1, "c")],
            nodes: vec![
                NodeAudit {
                    records: vec![record(1, "a", false), record(2, "b", false)],
                    ..NodeAudit::default()
                },
                NodeAudit {
                    records: vec![record(2, "b", true), record(4, "c", false)],
                    notes: vec![note(1, true), note(3, false)],
                    is_stepped: false,
                },
            ],
            listed: ["b".to_owned()].into(),
            limit: 2,
            midnights: vec![Duration::from_secs(45)],
        }
    }

    /// The violations of the sound history after a change.
    fn broken(change: impl FnOnce(&mut History)) -> Vec<Violation> {
        let mut history = sound();
        change(&mut history);
        check(&history).into_iter().collect()
    }

    #[test]
    fn the_sound_history_breaks_no_rule() {
        assert_eq!(broken(|_| {}), []);
    }

    #[test]
    fn a_transid_that_the_carrier_receives_twice_is_found() {
        let found = broken(|history| history.calls[3].transid = "1".to_owned());
        assert_eq!(found, [Violation::RepeatedCall { transid: "1".to_owned() }]);
    }

    #[test]
    fn a_transid_that_one_node_accepts_twice_is_found() {
        let found = broken(|history| history.nodes[0].records.push(record(3, "a", false)));
        assert_eq!(found, [Violation::RepeatedAtNode { transid: "a".to_owned(), node: 0 }]);
    }

    #[test]
    fn a_transid_that_two_nodes_accept_is_found_unless_one_was_alone_and_all_is_listed() {
        let b = || "b".to_owned();
        let unmarked = broken(|history| history.nodes[1].records[0].is_alone = false);
        assert_eq!(unmarked, [Violation::AcceptedTwice { transid: b() }]);
        let unlisted = broken(|history| history.listed.clear());
        assert_eq!(unlisted, [Violation::NotListed { transid: b() }]);
        let refusing = broken(|history| history.refuses_alone = true);
        assert_eq!(refusing, [Violation::AcceptedAlone { transid: b() }]);
    }

    #[test]
    fn a_record_that_states_alone_without_notes_of_that_time_is_found() {
        let violation = [Violation::NotNoted { transid: "b".to_owned(), node: 1 }];
        assert_eq!(broken(|history| history.nodes[1].notes.clear()), violation);
        assert_eq!(broken(|history| history.nodes[1].records[0].at = 9_000), violation, "after the end");
        assert_eq!(broken(|history| history.nodes[1].records[0].id = 0), violation, "before its note");
    }

    #[test]
    fn a_response_without_a_record_is_found() {
        let unaudited = |transid: &str| Violation::Unaudited {
            transid: transid.to_owned(),
            node: 0,
            code: "0".to_owned(),
        };
        assert_eq!(broken(|history| drop(history.nodes[0].records.remove(0))), [unaudited("a")]);
        assert_eq!(broken(|history| history.nodes[0].records[0].code = "73".to_owned()), [unaudited("a")]);
        // One record is one response.
        assert_eq!(broken(|history| history.responses.push(received(0, "b"))), [unaudited("b")]);
    }

    #[test]
    fn more_calls_than_the_budget_of_a_day_are_found() {
        let over = |calls, most| Violation::OverBudget { calls, most };
        let second = broken(|history| history.calls.push(call("5", 90)));
        assert_eq!(second, [over(3, 2), over(5, 4)]);
        // Around midnight a call may be of either day, and the sum still counts.
        assert_eq!(broken(|history| history.calls.push(call("5", 50))), [over(5, 4)]);
        assert_eq!(broken(|history| history.limit = 1), [over(2, 1), over(4, 2)]);
    }
}
