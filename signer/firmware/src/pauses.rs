//! The pauses of a gateway after lookups without a response: each is twice as long as the one before, up to a limit.
//!
//! It needs neither chip nor clock: `signer/capi/tests/gateways.rs` includes this file to test it on a host.

/// The first pause, in milliseconds.
pub const FIRST: u32 = 1_000;

/// The longest pause, in milliseconds.
pub const LONGEST: u32 = 32_000;

/// The pauses of one lookup, in milliseconds.
#[derive(Debug)]
pub struct Pauses(u32);

impl Pauses {
    /// The pauses of a new lookup.
    #[must_use]
    pub fn new() -> Self {
        Self(FIRST)
    }

    /// The next pause.
    pub fn next_pause(&mut self) -> u32 {
        let pause = self.0;
        self.0 = pause.saturating_mul(2).min(LONGEST);
        pause
    }
}

impl Default for Pauses {
    fn default() -> Self {
        Self::new()
    }
}
