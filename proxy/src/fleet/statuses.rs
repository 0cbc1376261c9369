//! The last STATUS of each card over all nodes: the messages about changes are sent once in the fleet, each by the node that
//! made the call.

use std::time::Duration;

use super::Fleet;
use crate::clock::Time;
use crate::store::fleet::LinkError;
use crate::store::fleet::status::{self, Answered, BATCH};

/// Interval between two sweeps.
pub(super) const SWEEP_INTERVAL: Duration = Duration::from_secs(3_600);

/// Rows of one sweep.
const SWEPT: i64 = 1_000;

/// A STATUS, and when it was answered.
pub type Seen<'a> = (&'a str, Time);

/// An answer of the carrier to this node.
#[derive(Clone, Debug)]
pub struct StatusAnswer<'a> {
    /// The parts by which nodes name the same card, operation and group.
    pub parts: [&'a [u8]; 5],
    /// The name of the answer: no other answer of any node has it.
    pub event: &'a str,
    /// The STATUS.
    pub now: Seen<'a>,
    /// The one before it, as far as this node knows.
    pub known: Option<Seen<'a>>,
}

impl Fleet {
    /// Remembers answers in the fleet, and returns for each one the last STATUS of the card, over all nodes, if it was another
    /// one. Passing an answer again returns the same.
    ///
    /// # Errors
    /// [`LinkError`] while the node is alone, or if the database fails: some answers may have been remembered.
    pub async fn status_changes(
        &self,
        answers: &[StatusAnswer<'_>],
    ) -> Result<Vec<Option<(String, Time)>>, LinkError> {
        self.life().ok_or(LinkError::Away)?;
        let mut changes = Vec::with_capacity(answers.len());
        for batch in answers.chunks(BATCH) {
            let now = self.local.clock.now();
            let answered: Vec<_> = batch
                .iter()
                .map(|answer| Answered {
                    key: self.shared_key(&answer.parts),
                    event: answer.event,
                    status: answer.now.0,
                    age: now.since(answer.now.1),
                    known: answer.known.map(|(status, at)| (status, now.since(at))),
                })
                .collect();
            let found = status::changes(&self.link, &answered).await?;
            changes.extend(found.into_iter().map(|before| {
                before.map(|before| (before.status, self.local.clock.now().minus(before.age)))
            }));
        }
        Ok(changes)
    }

    /// Deletes what no node needs any more.
    pub(super) async fn sweep_statuses(&self) -> Result<(), LinkError> {
        while status::sweep(&self.link, SWEPT).await? >= SWEPT {}
        Ok(())
    }
}
