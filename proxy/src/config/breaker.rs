//! `[breaker]`: what an account bears before calls stop for a while, and for how long.
//!
//! Each wait doubles when the call that tries again fails too, up to its longest.

use serde::{Deserialize, Serialize};

use crate::units::HumanDuration;

/// `[breaker]`.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields, default)]
pub struct Breaker {
    /// Failures and busy codes in a row that stop an account.
    pub failures: u32,
    /// For how long at first.
    pub open: HumanDuration,
    /// For how long at most.
    pub open_longest: HumanDuration,
    /// How long an account rests after a throttled code (71, 72, 75) at first.
    pub cool_down: HumanDuration,
    /// For how long at most.
    pub cool_down_longest: HumanDuration,
    /// How long an account, or one operation of it, rests after its credentials were refused (3-8) at first.
    pub credentials: HumanDuration,
    /// For how long at most.
    pub credentials_longest: HumanDuration,
}

impl Default for Breaker {
    fn default() -> Self {
        Self {
            failures: 5,
            open: HumanDuration::secs(1),
            open_longest: HumanDuration::secs(30),
            cool_down: HumanDuration::secs(5),
            cool_down_longest: HumanDuration::secs(300),
            credentials: HumanDuration::secs(30),
            credentials_longest: HumanDuration::secs(300),
        }
    }
}

impl Breaker {
    /// Checks what one value alone does not show.
    ///
    /// # Errors
    /// A sentence that names the key.
    pub fn check(&self) -> Result<(), String> {
        if self.failures == 0 {
            return Err("[breaker] failures: must be at least 1".to_owned());
        }
        for (key, first, longest) in [
            ("open", self.open, self.open_longest),
            ("cool_down", self.cool_down, self.cool_down_longest),
            ("credentials", self.credentials, self.credentials_longest),
        ] {
            if first.0.is_zero() || first > longest {
                return Err(format!(
                    "[breaker] {key} = \"{first}\": must be longer than zero and at most {key}_longest = \"{longest}\""
                ));
            }
        }
        Ok(())
    }
}
