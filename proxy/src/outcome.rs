//! The outcome of a lookup, by one vocabulary for responses, metrics and audit.

/// The source of a response.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Outcome {
    /// From the cache, fresh.
    Hit,
    /// From the cache, no longer fresh.
    Stale,
    /// From a call that this request led.
    Miss,
    /// From a call that another request led.
    Collapsed,
    /// From the proxy: the gateway has to change its request.
    Refused,
    /// From the proxy: the carrier, or the proxy itself, has a problem.
    Failed,
}

impl Outcome {
    /// All outcomes, by number.
    pub const ALL: [Self; 6] =
        [Self::Hit, Self::Stale, Self::Miss, Self::Collapsed, Self::Refused, Self::Failed];
    /// The outcomes with a carrier response: the first of [`ALL`](Self::ALL).
    pub const ANSWERED: [Self; 4] = [Self::Hit, Self::Stale, Self::Miss, Self::Collapsed];

    /// The name in metrics and audit.
    pub fn name(self) -> &'static str {
        match self {
            Self::Hit => "hit",
            Self::Stale => "stale",
            Self::Miss => "miss",
            Self::Collapsed => "collapsed",
            Self::Refused => "refused",
            Self::Failed => "failed",
        }
    }
}
