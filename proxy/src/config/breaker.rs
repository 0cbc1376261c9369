//! `[breaker]`: the failures after which an account's calls stop, and for how long.
//!
//! Each wait doubles when the call that tries again fails too, up to its maximum.

use std::time::Duration;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::error;
use super::reader::SourceFiles;
use crate::language::text;
use crate::units::HumanDuration;
use crate::units::schema::Positive;

/// `[breaker]` as written.
#[derive(Clone, Debug, Deserialize, JsonSchema, Serialize)]
#[serde(deny_unknown_fields, default)]
pub struct Breaker {
    /// Failures and busy codes in a row that stop an account.
    #[schemars(range(min = 1), extend("x-unit" = "failures"))]
    pub failures: u32,
    /// The first wait after `failures`.
    #[schemars(with = "Positive")]
    pub open: HumanDuration,
    /// The longest wait after `failures`.
    pub max_open: HumanDuration,
    /// The first cool-down of an account, after a throttled code (71, 72, 75).
    #[schemars(with = "Positive")]
    pub cool_down: HumanDuration,
    /// The longest cool-down.
    pub max_cool_down: HumanDuration,
    /// The first wait of an account, or of one operation, after its credentials were refused (3-8).
    #[schemars(with = "Positive")]
    pub credentials_open: HumanDuration,
    /// The longest wait after refused credentials.
    pub max_credentials_open: HumanDuration,
}

impl Default for Breaker {
    fn default() -> Self {
        Self {
            failures: 5,
            open: HumanDuration::secs(1),
            max_open: HumanDuration::secs(30),
            cool_down: HumanDuration::secs(5),
            max_cool_down: HumanDuration::secs(300),
            credentials_open: HumanDuration::secs(30),
            max_credentials_open: HumanDuration::secs(300),
        }
    }
}

/// The thresholds of an account's breakers, by kind of failure.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Thresholds {
    /// For failures and busy codes.
    pub transport: BreakerConfig,
    /// For throttled codes.
    pub cool_down: BreakerConfig,
    /// For refused credentials and subscriptions.
    pub credentials: BreakerConfig,
}

/// The settings of one breaker.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct BreakerConfig {
    /// Failures in a row that open it.
    pub failures: u32,
    /// The time that it is open at first.
    pub open: Duration,
    /// The longest time that it is open.
    pub max_open: Duration,
}

pub(super) fn check(raw: &Breaker, reader: &mut SourceFiles<'_>) -> Option<Thresholds> {
    let before = reader.problems.len();
    if raw.failures == 0 {
        reader.problem("[breaker] failures", error::at_least_one());
    }
    for (key, first, longest) in [
        ("open", raw.open, raw.max_open),
        ("cool_down", raw.cool_down, raw.max_cool_down),
        ("credentials_open", raw.credentials_open, raw.max_credentials_open),
    ] {
        if first.0.is_zero() || first > longest {
            let problem = text!(
                "must be longer than zero and at most max_{key} = \"{longest}\"",
                "必须大于零，且不超过 max_{key} = \"{longest}\""
            );
            reader.problem(format!("[breaker] {key} = \"{first}\""), problem);
        }
    }
    let breaker = |failures, open: HumanDuration, max_open: HumanDuration| BreakerConfig {
        failures,
        open: open.0,
        max_open: max_open.0,
    };
    (reader.problems.len() == before).then_some(Thresholds {
        transport: breaker(raw.failures, raw.open, raw.max_open),
        cool_down: breaker(1, raw.cool_down, raw.max_cool_down),
        credentials: breaker(1, raw.credentials_open, raw.max_credentials_open),
    })
}
