//! Where the simulator gets the time from: handed in by a test, or the system's.

use std::fmt;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

/// A clock: time since the Unix epoch, on demand.
///
/// It dates answers, cuts seconds and days for the throttle, and stamps the list of calls. Latency is waited
/// for on tokio's timer instead.
#[derive(Clone)]
pub struct Clock(Arc<dyn Fn() -> Duration + Send + Sync>);

impl Clock {
    /// The system's clock.
    #[must_use]
    #[expect(clippy::disallowed_methods, reason = "the simulator stands outside the proxy and its clock")]
    pub fn system() -> Self {
        Self::new(|| SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default())
    }

    /// A clock that a test sets.
    #[must_use]
    pub fn new(now: impl Fn() -> Duration + Send + Sync + 'static) -> Self {
        Self(Arc::new(now))
    }

    pub(crate) fn now(&self) -> Duration {
        (self.0)()
    }
}

impl Default for Clock {
    fn default() -> Self {
        Self::system()
    }
}

impl fmt::Debug for Clock {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Clock(..)")
    }
}
