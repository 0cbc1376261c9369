//! Cool-downs and refusals that the nodes of a fleet share.
//!
//! The node that met one sends the probe when it ends; the others wait a little longer, and learn the result. A rest that
//! is ended elsewhere ends here: the open time of the breaker has ended, and the next call is its probe.

use std::fmt;
use std::time::Duration;

use super::{Code, Health, NotSent, TrackedBreaker};

/// A cool-down or a refusal that another node has met.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct SharedRest {
    /// The breaker.
    pub kind: Kind,
    /// Its end, by the monotonic clock.
    pub until: Duration,
    /// The code of a refusal.
    pub code: Option<Code>,
}

/// A cool-down or a refusal that this node has met.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct OwnRest {
    /// The breaker.
    pub kind: Kind,
    /// The end of its open time, by the monotonic clock; none during a probe.
    pub until: Option<Duration>,
    /// The code of a refusal.
    pub code: Option<Code>,
}

/// A breaker of an account that the nodes share.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub enum Kind {
    /// The carrier throttles the account.
    CoolDown,
    /// The carrier refuses the credentials.
    Credentials,
    /// The carrier refuses the account for this operation.
    Subscription(String),
}

impl Kind {
    /// The name in the database.
    pub fn parse(name: &str) -> Option<Self> {
        match name {
            "cool-down" => Some(Self::CoolDown),
            "credentials" => Some(Self::Credentials),
            _ => name.strip_prefix("subscription/").map(|operation| Self::Subscription(operation.to_owned())),
        }
    }

    /// Whether it depends on the credentials with which a node calls.
    pub fn depends_on_credentials(&self) -> bool {
        *self != Self::CoolDown
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::CoolDown => f.write_str("cool-down"),
            Self::Credentials => f.write_str("credentials"),
            Self::Subscription(operation) => write!(f, "subscription/{operation}"),
        }
    }
}

impl Health {
    /// The cool-down and the refusals that this node has met and that have not ended.
    pub fn own_rests(&self) -> Vec<OwnRest> {
        let own = |kind, tracked: &TrackedBreaker| {
            let code = tracked.code().filter(|_| kind != Kind::CoolDown);
            let until = tracked.breaker.open_until();
            (!tracked.breaker.is_closed()).then_some(OwnRest { kind, until, code })
        };
        let subscriptions = self.subscriptions.iter();
        [own(Kind::CoolDown, &self.cool_down), own(Kind::Credentials, &self.credentials)]
            .into_iter()
            .flatten()
            .chain(subscriptions.filter_map(|(name, one)| own(Kind::Subscription((*name).to_owned()), one)))
            .collect()
    }

    /// Replaces the rests that other nodes have met.
    pub fn set_shared(&mut self, rests: Vec<SharedRest>) {
        self.shared = rests;
    }

    /// A rest of this node that was ended elsewhere: the next call is the probe.
    pub fn end_open_time(&mut self, kind: &Kind, now: Duration) {
        let tracked = match kind {
            Kind::CoolDown => Some(&mut self.cool_down),
            Kind::Credentials => Some(&mut self.credentials),
            Kind::Subscription(operation) => self.subscriptions.get_mut(operation.as_str()),
        };
        if let Some(tracked) = tracked {
            tracked.breaker.end_open_time(now);
        }
    }

    /// Whether the rests of other nodes let a call for this operation pass.
    pub(super) fn check_shared(&self, operation: &str, now: Duration) -> Result<(), NotSent> {
        for SharedRest { kind, until, code } in &self.shared {
            let wait = until.saturating_sub(now);
            let concerns = match kind {
                Kind::Subscription(of) => of == operation,
                Kind::CoolDown | Kind::Credentials => true,
            };
            if wait.is_zero() || !concerns {
                continue;
            }
            return Err(code.map_or(NotSent::CoolDown(wait), |code| NotSent::Credentials(code, wait)));
        }
        Ok(())
    }
}
