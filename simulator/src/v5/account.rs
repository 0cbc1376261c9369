//! Credentials of API v5, and the carrier's treatment of their tokens.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

/// The ttl of a token, from public clients.
const TTL: Duration = Duration::from_secs(3600);

/// The longest token, in bytes.
const MAX_TOKEN: usize = 512;

/// One customer's credentials of API v5, and the carrier's treatment of its tokens.
///
/// By default, a token lives as long as its ttl says, a new token revokes the old one, and `refresh` is honoured.
/// `"APPID:PASSWORD".parse()` reads the form of the command line; the password is everything after the first colon.
#[derive(Clone)]
pub struct Account {
    pub(super) appid: String,
    pub(super) password: String,
    pub(super) ttl: Duration,
    pub(super) ttl_form: Ttl,
    pub(super) life: Option<Duration>,
    pub(super) calls: Option<u32>,
    pub(super) refresh: Refresh,
    pub(super) keeps_old: bool,
    pub(super) returns_dead: bool,
    pub(super) refuses_with_token: bool,
    pub(super) token_prefix: String,
    pub(super) token_length: usize,
}

/// The carrier's treatment of the parameter `refresh` of a fetch.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Refresh {
    /// `0` (or absent) returns the present token with the rest of its ttl, or a new one if there is none; `1` returns
    /// a new one.
    #[default]
    Honoured,
    /// Ignored: every fetch returns a new token.
    AlwaysNew,
    /// Ignored: every fetch returns the present token while there is one.
    AlwaysPresent,
}

/// The form of `ttl` in the response of a fetch.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Ttl {
    /// The seconds left as a string: `"3600"`.
    #[default]
    Text,
    /// The seconds left as a number: `3600`.
    Number,
    /// No `ttl`.
    Absent,
    /// This JSON value in place of the seconds left, such as `"0"` in quotes, `-1` or `null`.
    Json(String),
}

impl Account {
    /// An account with the defaults that the type describes, and tokens of 40 characters.
    #[must_use]
    pub fn new(appid: impl Into<String>, password: impl Into<String>) -> Self {
        Self {
            appid: appid.into(),
            password: password.into(),
            ttl: TTL,
            ttl_form: Ttl::default(),
            life: None,
            calls: None,
            refresh: Refresh::default(),
            keeps_old: false,
            returns_dead: false,
            refuses_with_token: false,
            token_prefix: String::new(),
            token_length: 40,
        }
    }

    /// The account's appid.
    #[must_use]
    pub fn appid(&self) -> &str {
        &self.appid
    }

    /// The same account with this ttl of its tokens, in whole seconds. Without [`dies_after`](Self::dies_after), the
    /// tokens also live that long.
    #[must_use]
    pub fn ttl(mut self, ttl: Duration) -> Self {
        self.ttl = ttl;
        self
    }

    /// The same account with this form of the ttl in the responses of fetches.
    #[must_use]
    pub fn ttl_form(mut self, form: Ttl) -> Self {
        self.ttl_form = form;
        self
    }

    /// The same account with tokens that die after this time, by the simulator's clock, whatever their ttl says.
    #[must_use]
    pub fn dies_after(mut self, life: Duration) -> Self {
        self.life = Some(life);
        self
    }

    /// The same account with tokens that die after this many queries; 0 means at once.
    #[must_use]
    pub fn dies_after_calls(mut self, calls: u32) -> Self {
        self.calls = Some(calls);
        self
    }

    /// The same account with this treatment of `refresh`.
    #[must_use]
    pub fn refresh(mut self, refresh: Refresh) -> Self {
        self.refresh = refresh;
        self
    }

    /// The same account, where a new token leaves older ones alive.
    #[must_use]
    pub fn keeps_old_tokens(mut self) -> Self {
        self.keeps_old = true;
        self
    }

    /// The same account, where a fetch that returns the present token also returns one that died before its ttl.
    #[must_use]
    pub fn returns_dead_tokens(mut self) -> Self {
        self.returns_dead = true;
        self
    }

    /// The same account, whose refused fetches (12022) have the result `[{"token":"-1"}]`.
    #[must_use]
    pub fn refuses_with_token(mut self) -> Self {
        self.refuses_with_token = true;
        self
    }

    /// The same account with tokens that begin with this text, such as characters that a URL must encode.
    #[must_use]
    pub fn token_prefix(mut self, prefix: impl Into<String>) -> Self {
        self.token_prefix = prefix.into();
        self
    }

    /// The same account with tokens of this many bytes, 16 to 512, prefix included; other values are clamped.
    #[must_use]
    pub fn token_length(mut self, bytes: usize) -> Self {
        self.token_length = bytes.clamp(16, MAX_TOKEN);
        self
    }
}

impl fmt::Debug for Account {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Account").field("appid", &self.appid).finish_non_exhaustive()
    }
}

impl FromStr for Account {
    type Err = AccountError;

    fn from_str(text: &str) -> Result<Self, AccountError> {
        match text.split_once(':') {
            Some((appid, password)) if !appid.is_empty() && !password.is_empty() => {
                Ok(Self::new(appid, password))
            }
            _ => Err(AccountError),
        }
    }
}

/// A text that is not `APPID:PASSWORD`. The error does not contain the text, which may include a password.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AccountError;

impl fmt::Display for AccountError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an account of API v5 has the form APPID:PASSWORD, with neither of the two empty")
    }
}

impl std::error::Error for AccountError {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_lines_form_is_read_and_a_password_may_hold_colons() {
        let account: Account = "200001:a:b".parse().unwrap();
        assert_eq!((account.appid(), account.password.as_str()), ("200001", "a:b"));
        for wrong in ["", "a", "a:", ":b"] {
            assert_eq!(wrong.parse::<Account>().err(), Some(AccountError), "{wrong:?}");
        }
    }

    #[test]
    fn debug_shows_no_password() {
        assert!(!format!("{:?}", Account::new("200001", "example-password")).contains("example-password"));
    }
}
