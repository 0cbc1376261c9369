//! What a simulated carrier is started with.

use std::time::Duration;

use crate::account::Account;
use crate::clock::Clock;
use crate::rule::Rule;
use crate::throttle::Throttle;

/// The carrier to be simulated. Most of it can be changed while it runs.
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
    /// Who may call.
    pub accounts: Vec<Account>,
    /// The script: the first rule that matches decides.
    pub rules: Vec<Rule>,
    /// How long every answer takes, refusals included, unless a rule says otherwise.
    pub latency: Duration,
    /// The carrier's limits.
    pub throttle: Throttle,
    /// Seconds by which every `Date` header is ahead of (negative: behind) the clock.
    pub date_offset: i64,
    /// A path in front of `/v2/`, as old deployments have (`/iot`); empty for none.
    pub prefix: String,
    /// Refuses (code 10) a transid that is not appid, 14 digits, 8 digits. The real carrier evidently
    /// tolerates others, so this is off by default.
    pub strict_transid: bool,
    /// Refuses (code 7) a transid that the account has used before. The real carrier evidently does not;
    /// repeats are counted and listed either way.
    pub refuse_repeats: bool,
    /// How many of the latest calls are listed.
    pub keep_calls: usize,
    /// How many of the latest transids are remembered to find repeats (about 40 bytes each).
    pub keep_transids: usize,
    /// The time.
    pub clock: Clock,
}

impl Config {
    /// A carrier on a good day with these accounts: no rules, no latency, no limits, no prefix, tolerant, on
    /// the system's clock, keeping 10,000 calls and a million transids.
    #[must_use]
    pub fn new(accounts: impl IntoIterator<Item = Account>) -> Self {
        Self {
            accounts: accounts.into_iter().collect(),
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
