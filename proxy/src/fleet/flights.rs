//! Shared answers and flights: a miss asks the fleet before it calls the carrier.
//!
//! [`Fleet::enter`] has four results: another node's *answer*; the *lead*, with a [`Lease`] that must land the result of the
//! call or give up; a leader to *follow*, by a [`Follower`]; or *alone*, without the database: then the node makes its own
//! call, as without a fleet. A group is shared among the nodes that mean the same accounts by its name: a hash of them is
//! part of each key.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use cmiot_signer::Card;

use super::Fleet;
use super::hints::Hint;
use super::orphans::Orphan;
use super::statuses::SWEEP_INTERVAL;
use crate::clock::{Time, timeout_exact};
use crate::store::fleet::LinkError;
pub use crate::store::fleet::flights::Known;
use crate::store::fleet::flights::{
    self, Answer, Asked, Entered, Followed, LandEffect, Landable, Landed, Landing, SharedKey,
};

/// Pauses between the polls of a follower; the last one repeats. A hint ends a pause early.
const POLLS: [Duration; 4] = [
    Duration::from_millis(50),
    Duration::from_millis(100),
    Duration::from_millis(200),
    Duration::from_millis(250),
];

/// Pauses before a landing is tried again.
const LANDINGS: [Duration; 4] = [
    Duration::from_millis(200),
    Duration::from_millis(400),
    Duration::from_millis(800),
    Duration::from_millis(1_600),
];

/// Interval of the maintenance.
const MAINTENANCE: Duration = Duration::from_secs(5);

/// Rows that one statement sweeps at most.
const SWEPT: i64 = 1_000;

/// The error by which two answers may be taken for different ones: the same response is some time on its way between nodes.
const MARGIN: Duration = Duration::from_secs(1);

/// A lookup in the terms of the fleet.
#[derive(Clone, Debug)]
pub struct Lookup {
    /// The name of the whole lookup.
    pub key: SharedKey,
    /// The name of its card.
    pub card: SharedKey,
    pub group: Arc<str>,
    pub operation: &'static str,
}

/// The position of a lookup after [`Fleet::enter`].
#[derive(Debug)]
pub enum Position {
    /// The database is away: nothing is shared.
    Alone,
    /// A response of another node, newer than the known one.
    Answer(SharedResponse),
    /// This node makes the call.
    Lead(Lease),
    /// Another node makes it.
    Follow(Follower),
}

/// A carrier response of another node, by the clock of this one.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct SharedResponse {
    pub body: Bytes,
    pub charset: Option<String>,
    /// Never later than it was: the time on the way counts as age.
    pub answered_at: Time,
    /// The account and the transid of the call.
    pub account: Arc<str>,
    pub transid: Option<String>,
    /// The reply of the carrier itself, if the body is not its own.
    pub carrier: Option<String>,
    /// Names the response in [`Known::Version`].
    pub version: i64,
}

/// The end of a flight that was followed.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Ending {
    /// The carrier's response.
    Response(SharedResponse),
    /// The call ended with this fault.
    Fault { fault: String, account: Arc<str>, transid: Option<String> },
    /// The leader has given up, or is gone: enter again.
    Lost,
    /// The database is away.
    Alone,
}

/// The result of a call, for the fleet.
#[derive(Clone, Debug)]
pub struct CallResult {
    pub account: Arc<str>,
    pub transid: Option<String>,
    /// The carrier's response, or the name of a fault.
    pub result: Result<CallResponse, String>,
}

/// A carrier response, for the fleet.
#[derive(Clone, Debug)]
pub struct CallResponse {
    pub body: Bytes,
    pub charset: Option<String>,
    /// The reply of the carrier itself, if the body is not its own.
    pub carrier: Option<String>,
    /// The STATUS of the card, by which purges select.
    pub status: Option<String>,
    pub answered_at: Time,
    /// Time from the response to the end of its freshness; none if it must not answer later lookups.
    pub fresh: Option<Duration>,
}

/// The lead of a flight. Dropped without a result, it is given up.
#[derive(Debug)]
pub struct Lease {
    fleet: Arc<Fleet>,
    lookup: Lookup,
    fence: i64,
    generation: i64,
    settled: bool,
    /// The leader before is gone.
    pub takeover: bool,
}

/// A flight that another node leads.
#[derive(Debug)]
pub struct Follower {
    fleet: Arc<Fleet>,
    key: SharedKey,
    fence: i64,
    hint: Hint,
}

impl Fleet {
    /// The lookup of these parts; none if the configuration has no such group.
    pub fn lookup(
        &self,
        group: &Arc<str>,
        operation: &'static str,
        card: &Card,
        parameters: &str,
    ) -> Option<Lookup> {
        let accounts = *self.agreement.load().groups.get(group)?;
        let (kind, number) = (card.kind().as_str().as_bytes(), card.as_bytes());
        let parts = [
            b"lookup",
            group.as_bytes(),
            &accounts,
            operation.as_bytes(),
            kind,
            number,
            parameters.as_bytes(),
        ];
        Some(Lookup {
            key: self.shared_key(&parts),
            card: self.card_key(card),
            group: Arc::clone(group),
            operation,
        })
    }

    /// The name of a card in shared tables.
    pub fn card_key(&self, card: &Card) -> SharedKey {
        self.shared_key(&[b"card", card.kind().as_str().as_bytes(), card.as_bytes()])
    }

    /// Asks for an answer that is newer than the known one, or for the lead. Another node may take the lead after the time
    /// of `lease`.
    pub async fn enter(self: &Arc<Self>, lookup: &Lookup, known: Known, lease: Duration) -> Position {
        let Some(life) = self.life() else { return Position::Alone };
        let asked = Asked {
            key: &lookup.key,
            card: &lookup.card,
            group: &lookup.group,
            operation: lookup.operation,
            life,
            known,
            lease,
        };
        let at = self.local.clock.now();
        match flights::enter(&self.link, &asked).await {
            Ok(Entered::Answer(answer)) => Position::Answer(SharedResponse::new(answer, at)),
            Ok(Entered::Lead { fence, generation, takeover }) => {
                self.fences.insert(fence);
                Position::Lead(Lease {
                    fleet: Arc::clone(self),
                    lookup: lookup.clone(),
                    fence,
                    generation,
                    settled: false,
                    takeover,
                })
            }
            Ok(Entered::Follow { fence }) => Position::Follow(Follower {
                fleet: Arc::clone(self),
                key: lookup.key,
                fence,
                hint: self.hints.expect(lookup.key),
            }),
            Err(error) => {
                tracing::debug!(%error, "a lookup is not shared with the fleet");
                // The statement may have made this life the leader.
                self.disown(lookup.key, Orphan::Life(life));
                Position::Alone
            }
        }
    }
}

impl Fleet {
    /// Listens for hints, sweeps old answers and flights, and compares the accounts of groups. Runs until it is dropped.
    pub async fn run_flights(self: Arc<Self>) {
        tokio::join!(self.hints.run(&self.link), self.maintain());
    }

    async fn maintain(&self) {
        let mut swept = self.local.clock.monotonic();
        loop {
            tokio::time::sleep(jitter(MAINTENANCE, &[0; 16], self.node, 0)).await;
            let Some(life) = self.life() else { continue };
            if let Err(error) = self.maintain_once(life).await {
                tracing::debug!(%error, "the shared answers are not maintained now");
            }
            let now = self.local.clock.monotonic();
            if now.saturating_sub(swept) >= SWEEP_INTERVAL {
                swept = now;
                if let Err(error) = self.sweep_statuses().await {
                    tracing::debug!(%error, "the STATUS values of cards are not swept now");
                }
            }
        }
    }

    async fn maintain_once(&self, life: i64) -> Result<(), LinkError> {
        self.compare_configurations(life).await?;
        while flights::sweep(&self.link, SWEPT).await? >= SWEPT {}
        Ok(())
    }
}

/// The known answer of this age, so that the same one is not taken for a newer one.
pub fn known(answered_at: Option<Time>, now: Time) -> Known {
    answered_at.map_or(Known::Nothing, |answered_at| {
        let age = now.since(answered_at);
        Known::Aged(age - MARGIN.min(age / 2))
    })
}

impl SharedResponse {
    /// An answer to a statement that was sent `at` this time.
    fn new(answer: Answer, at: Time) -> Self {
        Self {
            body: answer.body.into(),
            charset: answer.charset,
            answered_at: at.minus(answer.age),
            account: answer.account.into(),
            transid: answer.transid,
            carrier: answer.carrier,
            version: answer.version,
        }
    }
}

impl Lease {
    /// Lands the result: followers get it, and later lookups of other nodes if it may answer them. A landing that fails is
    /// tried again for some seconds.
    pub async fn land(mut self, call: &CallResult) {
        self.settled = true;
        for pause in LANDINGS.into_iter().map(Some).chain([None]) {
            match self.land_once(call).await {
                Ok(_) => return,
                Err(error) => tracing::debug!(%error, "the result of a flight is not shared"),
            }
            if let Some(pause) = pause {
                tokio::time::sleep(pause).await;
            }
        }
        self.fleet.disown(self.lookup.key, Orphan::Fence(self.fence));
    }

    async fn land_once(&self, call: &CallResult) -> Result<LandEffect, LinkError> {
        let response = call.result.as_ref().map_err(String::as_str);
        let result = response.map(|response| Landable {
            body: &response.body,
            charset: response.charset.as_deref(),
            carrier: response.carrier.as_deref(),
            status: response.status.as_deref(),
            age: self.fleet.local.clock.now().since(response.answered_at),
            fresh: response.fresh,
        });
        let Lookup { key, card, group, operation } = &self.lookup;
        let landing = Landing {
            key,
            card,
            group,
            operation,
            fence: self.fence,
            generation: self.generation,
            result,
            account: &call.account,
            transid: call.transid.as_deref(),
        };
        flights::land(&self.fleet.link, &landing).await
    }

    /// Gives up the lead, so that a follower takes it at once.
    pub async fn release(mut self) {
        self.settled = true;
        if let Err(error) = flights::release(&self.fleet.link, &self.lookup.key, self.fence).await {
            tracing::debug!(%error, "a flight of this node is given up later");
            self.fleet.disown(self.lookup.key, Orphan::Fence(self.fence));
        }
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        self.fleet.fences.remove(self.fence);
        // The flight's task has ended without a result.
        if !self.settled {
            self.fleet.disown(self.lookup.key, Orphan::Fence(self.fence));
        }
    }
}

impl Follower {
    /// Waits for the end of the flight.
    pub async fn ending(mut self) -> Ending {
        for round in 0_usize.. {
            let pause = jitter(POLLS[round.min(POLLS.len() - 1)], &self.key, self.fleet.node, round);
            let _ = timeout_exact(pause, self.hint.heard()).await;
            let at = self.fleet.local.clock.now();
            return match flights::poll(&self.fleet.link, &self.key, self.fence).await {
                Ok(Followed::InFlight) => continue,
                Ok(Followed::Lost) => Ending::Lost,
                Ok(Followed::Landed(Landed::Response(answer))) => {
                    Ending::Response(SharedResponse::new(answer, at))
                }
                Ok(Followed::Landed(Landed::Fault { fault, account, transid })) => {
                    Ending::Fault { fault, account: account.into(), transid }
                }
                Err(error) => {
                    tracing::debug!(%error, "a flight of another node is not followed any further");
                    Ending::Alone
                }
            };
        }
        Ending::Lost // after 2^64 rounds
    }
}

/// 80 to 120 percent of a pause, different for each node, key and round.
fn jitter(pause: Duration, key: &SharedKey, node: u8, round: usize) -> Duration {
    let seed = key
        .iter()
        .fold(usize::from(node), |seed, byte| seed.wrapping_mul(31).wrapping_add(usize::from(*byte)));
    let percent = 80 + seed.wrapping_add(round.wrapping_mul(17)) % 41;
    pause * u32::try_from(percent).unwrap_or(100) / 100
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pause_varies_by_a_fifth() {
        let pauses: std::collections::HashSet<_> =
            (0..50).map(|node| jitter(POLLS[1], &[7; 16], node, 3)).collect();
        assert!(pauses.len() > 20, "{}", pauses.len());
        assert!(pauses.iter().all(|pause| (80..=120).contains(&pause.as_millis())));
    }

    #[test]
    fn an_answer_is_newer_by_more_than_its_time_on_the_way() {
        let now = Time::from_secs(1_000);
        let aged = |age: u64| known(Some(now.minus(Duration::from_millis(age))), now);
        assert_eq!(known(None, now), Known::Nothing);
        assert_eq!(aged(60_000), Known::Aged(Duration::from_secs(59)));
        assert_eq!(aged(100), Known::Aged(Duration::from_millis(50)));
        assert_eq!(aged(0), Known::Aged(Duration::ZERO));
    }
}
