//! The audit records of the demo in short: equal lookups counted together, in the order of the first of each.

use std::collections::BTreeMap;
use std::path::Path;

use cmiot_proxy::audit::render;
use cmiot_proxy::store::StoreError;
use cmiot_proxy::store::audit::query::{self, Fields, Filter, LOOKUP};

/// The columns by which lookups are equal.
const EQUAL_BY: [&str; 6] = ["client", "card", "outcome", "reason", "code", "status"];

/// Lookups that differ only in their time, transid and latency.
pub(super) struct Group {
    pub(super) lookups: u64,
    /// Carrier calls, failed attempts included. A call counts for the lookup that led it, or, if that has no record, for
    /// the first lookup that shared it.
    pub(super) carrier_calls: u64,
    /// Their values in the columns [`EQUAL_BY`].
    pub(super) values: [String; EQUAL_BY.len()],
}

/// Summarizes the lookups of a folder.
pub(super) fn summarize(dir: &Path) -> Result<Vec<Group>, StoreError> {
    let mut rows = query::lookups(dir, &Filter::default(), usize::MAX, None)?;
    rows.reverse();
    // Per carrier transid, the lookup that led the call.
    let mut leaders: BTreeMap<String, &Fields> = BTreeMap::new();
    for row in &rows {
        let transid = value(row, "carrier_transid");
        if transid.is_empty() {
            continue;
        }
        let leader = leaders.entry(transid).or_insert(row);
        if value(leader, "outcome") == "collapsed" && value(row, "outcome") != "collapsed" {
            *leader = row;
        }
    }
    let mut groups: Vec<Group> = Vec::new();
    for row in &rows {
        let is_leader = leaders.get(&value(row, "carrier_transid")).is_some_and(|leader| *leader == row);
        let led = match query::id(row).filter(|_| is_leader) {
            Some(id) => query::lookup(dir, id)?,
            None => None,
        };
        let calls = led.map_or(0, |lookup| lookup.calls.len() as u64);
        let values = EQUAL_BY.map(|column| value(row, column));
        match groups.iter_mut().find(|group| group.values == values) {
            Some(group) => {
                group.lookups += 1;
                group.carrier_calls += calls;
            }
            None => groups.push(Group { lookups: 1, carrier_calls: calls, values }),
        }
    }
    Ok(groups)
}

fn value(row: &Fields, column: &str) -> String {
    render::cell(&row[query::position(LOOKUP, column)])
}
