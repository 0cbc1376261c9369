//! Tokens of accounts whose API issues them: one per account, in memory only.
//!
//! A token is used until its ttl has ended or the carrier refuses it. One request for another one is in flight per account,
//! however many calls need it: they wait for its result. A token in use is renewed in the background before its ttl has
//! ended, and stays in use until the new one is there. After a failed request the next one waits for a cool-down, which
//! grows; calls that need a token meanwhile are not sent.
//!
//! Nothing public says whether a new token ends the one before it: the rules hold in both cases.

use std::collections::VecDeque;
use std::fmt;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use arc_swap::ArcSwapOption;
use zeroize::Zeroizing;

use super::fault::Fault;
use super::verdict::Class;
use super::{Attempt, CarrierResponse};

/// The time of a token whose time the carrier does not say.
const ASSUMED_TTL: Duration = Duration::from_secs(3_600);

/// The longest time of a token that is believed.
const LONGEST_TTL: Duration = Duration::from_secs(86_400);

/// The least time before its end at which a token is renewed, if its time is twice as long.
const LEAST_MARGIN: Duration = Duration::from_secs(60);

/// The cool-down after the first failed request for a token, which doubles with each, and the longest one.
const COOL_DOWN: Duration = Duration::from_secs(1);
const LONGEST_COOL_DOWN: Duration = Duration::from_secs(60);

/// Tokens that end early within this time raise the alarm, if there are as many as [`SHARED`].
const WATCHED: Duration = Duration::from_secs(3_600);
const SHARED: usize = 2;

/// A token that the carrier issued.
pub(super) struct Token {
    pub(super) text: Zeroizing<String>,
    /// The position among the tokens of its account.
    number: u64,
    /// The times of its renewal and of its end, by the monotonic clock.
    renewal: Duration,
    end: Duration,
    /// Whether the carrier said how long it is left.
    has_ttl: bool,
    /// Whether a call was made with it.
    pub(super) is_used: AtomicBool,
    pub(super) is_refused: AtomicBool,
}

impl Token {
    pub(super) fn text(&self) -> &str {
        &self.text
    }
}

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Token").field("number", &self.number).finish_non_exhaustive()
    }
}

/// The tokens of one account.
#[derive(Debug, Default)]
pub(super) struct Tokens {
    pub(super) present: ArcSwapOption<Token>,
    issued: AtomicU64,
    /// Held by the one request in flight.
    pub(super) request: tokio::sync::Mutex<Option<Failure>>,
    pub(super) is_renewing: AtomicBool,
    /// Whether the last request returned the refused token, and the next one is for another token.
    pub(super) returned_refused: AtomicBool,
    /// When tokens ended early, by the monotonic clock.
    early: Mutex<VecDeque<Duration>>,
    /// The end of the cool-down after a request that failed without a refusal, in microseconds of the monotonic clock.
    blocked_until: AtomicU64,
}

/// The last request, if it failed.
#[derive(Clone, Debug)]
pub(super) struct Failure {
    /// The indexes of the passwords that the carrier has refused since the last cool-down.
    refused: Vec<usize>,
    in_a_row: u32,
    pub(super) until: Duration,
    /// The refusal of the credentials, if that was its result.
    pub(super) refusal: Option<Box<CarrierResponse>>,
}

impl Tokens {
    /// The token to use at this time, if there is one.
    pub(super) fn usable(&self, now: Duration) -> Option<Arc<Token>> {
        let token = self.present.load_full()?;
        (now < token.end && !token.is_refused.load(Ordering::Relaxed)).then_some(token)
    }

    /// Whether the token is to be renewed: one that no call has used is not.
    pub(super) fn is_due(&self, now: Duration) -> bool {
        self.usable(now).is_some_and(|token| now >= token.renewal && token.is_used.load(Ordering::Relaxed))
    }

    /// The time for which no call that needs a token can be sent: there is none, and the last request for one has failed.
    pub(super) fn wait(&self, now: Duration) -> Option<Duration> {
        let until = Duration::from_micros(self.blocked_until.load(Ordering::Relaxed));
        let wait = until.checked_sub(now).filter(|wait| !wait.is_zero())?;
        self.usable(now).is_none().then_some(wait)
    }

    /// Blocks calls until the end of a cool-down; `None` ends it.
    pub(super) fn block(&self, until: Option<Duration>) {
        let micros = until.map_or(0, |until| u64::try_from(until.as_micros()).unwrap_or(u64::MAX));
        self.blocked_until.store(micros, Ordering::Relaxed);
    }

    /// A token that was requested at this time replaces the present one.
    ///
    /// The carrier may return the present one again, with the time that it has left: it is then not renewed before its end,
    /// since each request would return it.
    pub(super) fn store(
        &self,
        text: Zeroizing<String>,
        ttl: Option<Duration>,
        spread: u32,
        now: Duration,
    ) -> Arc<Token> {
        let same = self
            .present
            .load_full()
            .filter(|one| *one.text == *text && !one.is_refused.load(Ordering::Relaxed));
        let rest = same.as_ref().map(|same| same.end.saturating_sub(now));
        let time = ttl.or(rest).unwrap_or(ASSUMED_TTL).min(LONGEST_TTL);
        let margin = (time / 10).max(LEAST_MARGIN).min(time / 2);
        // Up to a fifth of the margin earlier, so that the accounts and nodes of an operator do not renew together.
        let jitter = margin / 5 * (spread % 100) / 100;
        let token = Arc::new(Token {
            text,
            number: self.issued.fetch_add(1, Ordering::Relaxed) + 1,
            renewal: match same {
                Some(_) => now.saturating_add(time),
                None => now.saturating_add(time.saturating_sub(margin).saturating_sub(jitter)),
            },
            end: now.saturating_add(time),
            has_ttl: ttl.is_some(),
            is_used: AtomicBool::new(false),
            is_refused: AtomicBool::new(false),
        });
        self.present.store(Some(Arc::clone(&token)));
        token
    }

    /// The carrier refused a token. Returns whether that is news, and the token's time was not over.
    pub(super) fn refuse(&self, token: &Token, now: Duration) -> bool {
        if token.is_refused.swap(true, Ordering::Relaxed) {
            return false;
        }
        // After another one was issued, a refusal of the one before it is expected.
        let is_present = self.present.load().as_ref().is_some_and(|present| present.number == token.number);
        // A new token may end the present one before its reply is here.
        let is_replaced = self.request.try_lock().is_err();
        let is_early = is_present && !is_replaced && token.has_ttl && now < token.end;
        if is_early {
            let mut early = self.early();
            early.push_back(now);
            if early.len() > SHARED {
                early.pop_front();
            }
        }
        is_early
    }

    /// Whether so many tokens have ended early that another program must be using the appid.
    pub(super) fn is_shared(&self, now: Duration) -> bool {
        let early = self.early();
        early.iter().filter(|at| now.saturating_sub(**at) < WATCHED).count() >= SHARED
    }

    fn early(&self) -> MutexGuard<'_, VecDeque<Duration>> {
        // No code under this lock can panic.
        self.early.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Failure {
    /// After another failure, by its result.
    pub(super) fn after(before: Option<&Self>, password: usize, attempt: &Attempt, now: Duration) -> Self {
        let in_a_row = before.map_or(0, |failure| failure.in_a_row);
        let wait = COOL_DOWN.saturating_mul(2_u32.saturating_pow(in_a_row.min(16))).min(LONGEST_COOL_DOWN);
        let refusal = match &attempt.result {
            Ok(response) if response.verdict.class == Class::Credentials => Some(Box::new(response.clone())),
            _ => None,
        };
        // A connection that was closed while it was idle: the next request is made at once.
        let is_closed = in_a_row == 0 && attempt.result.as_ref().is_err_and(Fault::may_retry);
        let until = if is_closed { now } else { now.saturating_add(wait) };
        let mut refused = before
            .filter(|before| now < before.until)
            .map(|before| before.refused.clone())
            .unwrap_or_default();
        refused.extend(refusal.is_some().then_some(password));
        Self { refused, in_a_row: in_a_row.saturating_add(1), until, refusal }
    }

    /// Whether a request with this password has to wait. Another password is tried at once.
    pub(super) fn prevents(&self, password: usize, now: Duration) -> bool {
        now < self.until && (self.refusal.is_none() || self.has_refused(password))
    }

    /// Whether the carrier has refused this password since the last cool-down.
    pub(super) fn has_refused(&self, password: usize) -> bool {
        self.refused.contains(&password)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Duration = Duration::from_secs(1_000);

    fn text(text: &str) -> Zeroizing<String> {
        Zeroizing::new(text.to_owned())
    }

    #[test]
    fn a_token_is_renewed_before_its_time_is_over() {
        for (ttl, earliest, latest) in
            [(Some(3_600), 3_168, 3_240), (None, 3_168, 3_240), (Some(120), 48, 60), (Some(2), 0, 1)]
        {
            for spread in [0, 50, 99] {
                let tokens = Tokens::default();
                let token = tokens.store(text("T"), ttl.map(Duration::from_secs), spread, NOW);
                let after = (token.renewal - NOW).as_secs();
                assert!((earliest..=latest).contains(&after), "{ttl:?} {spread}: {after}");
                assert!(!tokens.is_due(token.renewal), "no call has used it");
                token.is_used.store(true, Ordering::Relaxed);
                assert!(tokens.is_due(token.renewal));
                assert!(tokens.usable(token.renewal).is_some(), "it stays in use");
                assert!(tokens.usable(token.end).is_none());
            }
        }
    }

    #[test]
    fn a_refusal_of_an_earlier_token_says_nothing_about_the_present_one() {
        let tokens = Tokens::default();
        let first = tokens.store(text("T"), Some(ASSUMED_TTL), 0, NOW);
        // The carrier may return the same text again.
        let second = tokens.store(text("T"), Some(ASSUMED_TTL), 0, NOW);
        assert!(!tokens.refuse(&first, NOW));
        assert!(tokens.usable(NOW).is_some_and(|token| token.number == second.number));
        assert!(tokens.refuse(&second, NOW), "it is early");
        assert!(!tokens.refuse(&second, NOW), "and counts once");
        assert!(tokens.usable(NOW).is_none());
    }

    #[test]
    fn two_tokens_that_end_early_within_an_hour_are_an_alarm() {
        let tokens = Tokens::default();
        let refuse = |ttl, at| {
            let token = tokens.store(text("T"), ttl, 0, at);
            tokens.refuse(&token, at)
        };
        assert!(refuse(Some(ASSUMED_TTL), NOW));
        assert!(!refuse(None, NOW), "its time is not known");
        assert!(!tokens.is_shared(NOW));
        let later = NOW + Duration::from_secs(1_800);
        assert!(refuse(Some(ASSUMED_TTL), later));
        assert!(tokens.is_shared(later));
        assert!(!tokens.is_shared(NOW + WATCHED));
    }

    #[test]
    fn a_token_that_ends_while_another_one_is_requested_is_not_early() {
        let tokens = Tokens::default();
        let token = tokens.store(text("T"), Some(ASSUMED_TTL), 0, NOW);
        let in_flight = tokens.request.try_lock().unwrap();
        assert!(!tokens.refuse(&token, NOW));
        drop(in_flight);
        assert!(tokens.usable(NOW).is_none(), "it is refused all the same");
    }

    #[test]
    fn a_token_that_is_returned_again_is_used_until_its_end_and_not_renewed_again() {
        let tokens = Tokens::default();
        let hour = Duration::from_secs(3_600);
        let first = tokens.store(text("T"), Some(hour), 0, NOW);
        for ttl in [Some(Duration::from_secs(360)), None] {
            let again = tokens.store(text("T"), ttl, 0, NOW + Duration::from_secs(3_240));
            again.is_used.store(true, Ordering::Relaxed);
            assert_eq!((again.end, again.renewal), (first.end, first.end), "{ttl:?}");
            assert!(!tokens.is_due(first.end - Duration::from_secs(1)));
        }
        let other = tokens.store(text("U"), Some(hour), 0, first.end);
        assert!(other.renewal < other.end);
    }

    #[test]
    fn calls_wait_for_the_end_of_the_cool_down_only_without_a_token() {
        let tokens = Tokens::default();
        let second = Duration::from_secs(1);
        assert_eq!(tokens.wait(NOW), None);
        tokens.block(Some(NOW + second));
        assert_eq!(tokens.wait(NOW), Some(second));
        assert_eq!(tokens.wait(NOW + second), None);
        tokens.store(text("T"), None, 0, NOW);
        assert_eq!(tokens.wait(NOW), None, "a renewal that fails delays nothing");
    }

    #[test]
    fn a_token_is_not_in_its_debug_output() {
        let token = Tokens::default().store(text("a-secret-token"), None, 0, NOW);
        assert!(!format!("{token:?}").contains("secret"));
    }
}
