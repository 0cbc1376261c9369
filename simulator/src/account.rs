//! Credentials that the simulated carrier issued, and the check of a token.
//!
//! `token = hex(SHA-256(appid + password + transid))`, 64 characters, implemented here from the carrier's page
//! ("token") and not shared with the signer, so that tests reveal a mistake in either.

use std::fmt;
use std::str::FromStr;

use sha2::{Digest, Sha256};

use crate::operation::Operation;

/// One customer's credentials: an appid, its password, and an ebid per API.
///
/// `"APPID:EBID:PASSWORD".parse()` reads the form of the command line; the password is everything after
/// the second colon.
#[derive(Clone)]
pub struct Account {
    appid: String,
    password: Vec<u8>,
    ebid: String,
    own_ebids: Vec<(Operation, String)>,
}

impl Account {
    /// An account whose `ebid` opens every operation.
    #[must_use]
    pub fn new(appid: impl Into<String>, ebid: impl Into<String>, password: impl Into<Vec<u8>>) -> Self {
        Self { appid: appid.into(), password: password.into(), ebid: ebid.into(), own_ebids: Vec::new() }
    }

    /// The same account with a separate ebid for `operation`: the carrier issues one per API.
    #[must_use]
    pub fn with_ebid(mut self, operation: Operation, ebid: impl Into<String>) -> Self {
        self.own_ebids.push((operation, ebid.into()));
        self
    }

    /// The account's appid.
    #[must_use]
    pub fn appid(&self) -> &str {
        &self.appid
    }

    /// The ebid that opens `operation`.
    #[must_use]
    pub fn ebid(&self, operation: Operation) -> &str {
        let own = self.own_ebids.iter().rev().find(|(one, _)| *one == operation);
        own.map_or(&self.ebid, |(_, ebid)| ebid)
    }

    pub(crate) fn set_password(&mut self, password: Vec<u8>) {
        self.password = password;
    }

    /// Whether `sent` is the token of `transid`, in hex of either case. The comparison is not constant in time, since the
    /// calling tests know all secrets.
    pub(crate) fn token_is(&self, transid: &str, sent: &str) -> bool {
        let mut hash = Sha256::new();
        hash.update(self.appid.as_bytes());
        hash.update(&self.password);
        hash.update(transid.as_bytes());
        let digit = |hex: u8| char::from(hex).to_digit(16);
        let is_byte = |(byte, pair): (&u8, &[u8])| match (digit(pair[0]), digit(pair[1])) {
            (Some(high), Some(low)) => high * 16 + low == u32::from(*byte),
            _ => false,
        };
        sent.len() == 64 && hash.finalize().iter().zip(sent.as_bytes().chunks_exact(2)).all(is_byte)
    }
}

impl fmt::Debug for Account {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Account")
            .field("appid", &self.appid)
            .field("ebid", &self.ebid)
            .finish_non_exhaustive()
    }
}

impl FromStr for Account {
    type Err = AccountError;

    fn from_str(text: &str) -> Result<Self, AccountError> {
        let mut parts = text.splitn(3, ':');
        match (parts.next(), parts.next(), parts.next()) {
            (Some(appid), Some(ebid), Some(password))
                if !appid.is_empty() && !ebid.is_empty() && !password.is_empty() =>
            {
                Ok(Self::new(appid, ebid, password))
            }
            _ => Err(AccountError),
        }
    }
}

/// A text that is not `APPID:EBID:PASSWORD`. The error does not contain the text, which may include a password.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AccountError;

impl fmt::Display for AccountError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an account has the form APPID:EBID:PASSWORD, with none of the three empty")
    }
}

impl std::error::Error for AccountError {}

#[cfg(test)]
mod tests {
    use super::*;

    fn account() -> Account {
        Account::new("100001", "2300000000000001", "example-password")
    }

    // Computed with `printf %s 100001example-password1000012014101615303080000001 | sha256sum`.
    const TRANSID: &str = "1000012014101615303080000001";
    const TOKEN: &str = "599a332d6caf2c44b76f1b02d786d3889c44fbf778fef24a58772c8c63ca8819";

    #[test]
    fn the_token_is_that_of_sha256sum_in_either_case() {
        assert!(account().token_is(TRANSID, TOKEN));
        assert!(account().token_is(TRANSID, &TOKEN.to_uppercase()));
    }

    #[test]
    fn anything_else_is_no_token() {
        for wrong in
            ["", &TOKEN[..63], &TOKEN.replace('5', "6"), &format!(" {}", &TOKEN[..63]), &"é".repeat(32)]
        {
            assert!(!account().token_is(TRANSID, wrong), "{wrong:?}");
        }
        assert!(!account().token_is("1000012014101615303080000002", TOKEN));
    }

    #[test]
    fn an_ebid_of_its_own_replaces_the_general_one() {
        let account = account().with_ebid(Operation::Power, "0001000000008");
        assert_eq!(account.ebid(Operation::Power), "0001000000008");
        assert_eq!(account.ebid(Operation::Status), "2300000000000001");
    }

    #[test]
    fn the_command_lines_form_is_read_and_a_password_may_hold_colons() {
        let account: Account = "0NZ:0001000000009:a:b".parse().unwrap();
        assert_eq!((account.appid(), account.ebid(Operation::Status)), ("0NZ", "0001000000009"));
        assert_eq!(account.password, b"a:b");
        for wrong in ["", "a", "a:b", "a:b:", ":b:c", "a::c"] {
            assert_eq!(wrong.parse::<Account>().err(), Some(AccountError), "{wrong:?}");
        }
    }

    #[test]
    fn debug_shows_no_password() {
        assert!(!format!("{:?}", account()).contains("example-password"));
    }
}
