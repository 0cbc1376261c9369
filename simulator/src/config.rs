//! Configuration of a simulated carrier.

use std::time::Duration;

use crate::account::Account;
use crate::clock::Clock;
use crate::rule::Rule;
use crate::throttle::Throttle;
use crate::v5;

/// Configuration of a simulated carrier. Most of it can be changed while the simulator runs.
///
/// ```
/// use std::time::Duration;
/// use cmiot_simulator::{Account, Config, Rule};
/// let config = Config {
///     rules: vec![Rule::prefix("1476").status("02")],
///     latency: Duration::from_millis(300),
///     ..Config::new([Account::new("100001", "0001000000009", "example-password")])
/// };
/// assert_eq!(config.accounts.len(), 1);
/// ```
#[derive(Clone, Debug)]
pub struct Config {
    /// Accounts that may call API v2.
    pub accounts: Vec<Account>,
    /// Accounts that may call API v5.
    pub v5_accounts: Vec<v5::Account>,
    /// The script: the first rule that matches decides.
    pub rules: Vec<Rule>,
    /// Delay before every answer, refusals included, unless a rule sets another.
    pub latency: Duration,
    /// The carrier's limits.
    pub throttle: Throttle,
    /// Seconds by which every `Date` header is ahead of (negative: behind) the clock.
    pub date_offset: i64,
    /// A path before `/v2/` and `/v5/`, as in old deployments (`/iot`); empty for none.
    pub prefix: String,
    /// Refuses (code 10) a transid that is not appid, 14 digits, 8 digits. The real carrier appears to
    /// accept others, so the default is off. API v5 always refuses them (code 11000), for tests of its clients.
    pub strict_transid: bool,
    /// Refuses (code 7, or 11000 of API v5) a transid that the account has used before. The real carrier appears not to do
    /// so; repeats are counted and listed in either case.
    pub refuse_repeats: bool,
    /// Length of the list of the latest calls.
    pub keep_calls: usize,
    /// Number of the latest transids that are stored to find repeats (about 40 bytes each).
    pub keep_transids: usize,
    /// The clock.
    pub clock: Clock,
}

impl Config {
    /// A carrier without faults and with these accounts of API v2: no rules, no latency, no limits, no prefix, tolerant, with the
    /// system's clock, 10,000 listed calls and a million stored transids.
    #[must_use]
    pub fn new(accounts: impl IntoIterator<Item = Account>) -> Self {
        Self {
            accounts: accounts.into_iter().collect(),
            v5_accounts: Vec::new(),
            rules: Vec::new(),
            latency: Duration::ZERO,
            throttle: Throttle::default(),
            date_offset: 0,
            prefix: String::new(),
            strict_transid: false,
            refuse_repeats: false,
            keep_calls: 10_000,
            keep_transids: 1_000_000,
            clock: Clock::default(),
        }
    }
}
