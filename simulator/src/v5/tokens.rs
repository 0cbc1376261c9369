//! The tokens of one account: issued by fetches, used by queries, dead by time, by number of calls or by command.

use std::fmt;
use std::fmt::Write as _;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use sha2::{Digest, Sha256};

use crate::v5::account::{Account, Refresh, Ttl};

/// A token that the carrier issued, as a test sees it.
#[derive(Clone)]
pub struct IssuedToken {
    text: String,
    /// Queries that it authorized.
    pub queries: u64,
    /// Queries that were refused because it was dead.
    pub refused: u64,
    /// Fetches that returned it, the one that created it included.
    pub fetches: u64,
    /// Whether another program caused it, by [`fetch_elsewhere`](crate::v5::Handle::fetch_elsewhere).
    pub is_from_elsewhere: bool,
    /// Whether a query with it passes now.
    pub is_alive: bool,
}

impl IssuedToken {
    /// The token itself, for tests that search outputs for it.
    #[must_use]
    pub fn expose(&self) -> &str {
        &self.text
    }
}

impl fmt::Debug for IssuedToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("IssuedToken")
            .field("queries", &self.queries)
            .field("refused", &self.refused)
            .field("fetches", &self.fetches)
            .field("is_from_elsewhere", &self.is_from_elsewhere)
            .field("is_alive", &self.is_alive)
            .finish_non_exhaustive()
    }
}

/// An account's tokens, in the order of their issue. The last one is the present one.
#[derive(Default)]
pub(super) struct Tokens(Vec<Token>);

struct Token {
    issued: IssuedToken,
    /// The end of its ttl, by the simulator's clock.
    expires: Duration,
    /// The end of its life.
    dies: Duration,
    calls_left: Option<u32>,
    ended: bool,
}

impl Token {
    fn is_alive(&self, now: Duration) -> bool {
        !self.ended && now < self.dies && self.calls_left != Some(0)
    }
}

impl Tokens {
    /// The token of a fetch; the present one if `account` says so. Returns its number and whether it is new.
    pub(super) fn fetch(
        &mut self,
        account: &Account,
        renew: bool,
        elsewhere: bool,
        now: Duration,
    ) -> (usize, bool) {
        let keeps = match account.refresh {
            Refresh::Honoured => !renew,
            Refresh::AlwaysNew => false,
            Refresh::AlwaysPresent => true,
        };
        if let Some(present) = self.0.last_mut()
            && keeps
            && (present.is_alive(now) || (account.returns_dead && now < present.expires))
        {
            present.issued.fetches += 1;
            return (self.0.len() - 1, false);
        }
        if !account.keeps_old {
            self.end();
        }
        self.0.push(Token {
            issued: IssuedToken {
                text: new_text(account),
                queries: 0,
                refused: 0,
                fetches: 1,
                is_from_elsewhere: elsewhere,
                is_alive: true,
            },
            expires: now.saturating_add(account.ttl),
            dies: now.saturating_add(account.life.unwrap_or(account.ttl)),
            calls_left: account.calls,
            ended: false,
        });
        (self.0.len() - 1, true)
    }

    /// The text of token `number`.
    pub(super) fn text(&self, number: usize) -> &str {
        self.0.get(number).map_or("", |token| &token.issued.text)
    }

    /// The ttl of token `number` in the form of `account`, as JSON.
    pub(super) fn ttl(&self, number: usize, account: &Account, now: Duration) -> Option<String> {
        let left = self.0.get(number).map_or(account.ttl, |token| token.expires.saturating_sub(now));
        match &account.ttl_form {
            Ttl::Text => Some(format!("\"{}\"", left.as_secs())),
            Ttl::Number => Some(left.as_secs().to_string()),
            Ttl::Absent => None,
            Ttl::Json(json) => Some(json.clone()),
        }
    }

    /// Uses token `number` for a query; returns whether it is alive.
    pub(super) fn authorize(&mut self, number: usize, now: Duration) -> bool {
        let Some(token) = self.0.get_mut(number) else { return false };
        let alive = token.is_alive(now);
        if alive {
            token.issued.queries += 1;
            token.calls_left = token.calls_left.map(|calls| calls.saturating_sub(1));
        } else {
            token.issued.refused += 1;
        }
        alive
    }

    /// Ends every token.
    pub(super) fn end(&mut self) {
        self.0.iter_mut().for_each(|token| token.ended = true);
    }

    pub(super) fn issued(&self, now: Duration) -> Vec<IssuedToken> {
        let all = self.0.iter();
        all.map(|token| IssuedToken { is_alive: token.is_alive(now), ..token.issued.clone() }).collect()
    }
}

/// A text that no other token of this process has: the account's prefix, then hexadecimal digits of hashes.
fn new_text(account: &Account) -> String {
    static NUMBER: AtomicU64 = AtomicU64::new(0);
    let number = NUMBER.fetch_add(1, Ordering::Relaxed);
    let mut text = account.token_prefix.clone();
    // 16 digits at least, so that the texts differ whatever the prefix is.
    let length = account.token_length.max(text.len() + 16);
    for round in 0_u64.. {
        if text.len() >= length {
            break;
        }
        let mut hash = Sha256::new();
        hash.update(account.appid.as_bytes());
        hash.update(number.to_be_bytes());
        hash.update(round.to_be_bytes());
        for byte in hash.finalize() {
            // Writing to a String cannot fail.
            let _ = write!(text, "{byte:02x}");
        }
    }
    text.truncate(length);
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Duration = Duration::from_secs(1_767_196_800);

    fn account() -> Account {
        Account::new("200001", "example-password")
    }

    fn at(seconds: u64) -> Duration {
        NOW + Duration::from_secs(seconds)
    }

    #[test]
    fn refresh_decides_between_the_present_and_a_new_token() {
        for (refresh, renew, expected) in [
            (Refresh::Honoured, false, false),
            (Refresh::Honoured, true, true),
            (Refresh::AlwaysNew, false, true),
            (Refresh::AlwaysPresent, true, false),
        ] {
            let (mut tokens, account) = (Tokens::default(), account().refresh(refresh));
            assert_eq!(tokens.fetch(&account, renew, false, NOW), (0, true));
            assert_eq!(tokens.fetch(&account, renew, false, NOW).1, expected, "{refresh:?} {renew}");
        }
    }

    #[test]
    fn a_new_token_revokes_the_old_one_or_not() {
        for (account, expected) in [(account(), false), (account().keeps_old_tokens(), true)] {
            let mut tokens = Tokens::default();
            tokens.fetch(&account, true, false, NOW);
            tokens.fetch(&account, true, false, NOW);
            assert_eq!((tokens.authorize(0, NOW), tokens.authorize(1, NOW)), (expected, true));
        }
    }

    #[test]
    fn a_token_dies_by_time_by_calls_and_by_command() {
        let mut tokens = Tokens::default();
        tokens.fetch(&account(), true, false, NOW);
        assert!(tokens.authorize(0, at(3599)) && !tokens.authorize(0, at(3600)));

        let (mut tokens, early) = (Tokens::default(), account().dies_after(Duration::from_secs(10)));
        tokens.fetch(&early, true, false, NOW);
        assert_eq!(tokens.ttl(0, &early, at(5)).as_deref(), Some("\"3595\""));
        assert!(tokens.authorize(0, at(9)) && !tokens.authorize(0, at(10)));

        let (mut tokens, counted) = (Tokens::default(), account().dies_after_calls(2));
        tokens.fetch(&counted, true, false, NOW);
        let passed = [(); 3].map(|()| tokens.authorize(0, NOW));
        assert_eq!(passed, [true, true, false]);
        let issued = &tokens.issued(NOW)[0];
        assert_eq!((issued.queries, issued.refused, issued.is_alive), (2, 1, false));

        let mut tokens = Tokens::default();
        tokens.fetch(&account(), true, false, NOW);
        tokens.end();
        assert!(!tokens.authorize(0, NOW));
    }

    #[test]
    fn a_dead_token_is_replaced_unless_the_account_returns_it() {
        for (account, new) in [(account(), true), (account().returns_dead_tokens(), false)] {
            let account = account.dies_after_calls(0);
            let mut tokens = Tokens::default();
            tokens.fetch(&account, false, false, NOW);
            assert_eq!(tokens.fetch(&account, false, false, NOW).1, new);
            assert!(tokens.fetch(&account, false, false, at(3600)).1, "its ttl has passed");
        }
    }

    #[test]
    fn texts_differ_and_have_their_length_and_prefix() {
        let account = account().token_prefix("+/=\"\\").token_length(512);
        let (first, second) = (new_text(&account), new_text(&account));
        assert_eq!((first.len(), second.len()), (512, 512));
        assert!(first.starts_with("+/=\"\\") && first != second);
    }

    #[test]
    fn debug_shows_no_token() {
        let mut tokens = Tokens::default();
        tokens.fetch(&account(), true, false, NOW);
        let issued = tokens.issued(NOW);
        assert!(!format!("{issued:?}").contains(issued[0].expose()));
    }
}
