//! The part of a simulator's handle that concerns API v5.

use std::fmt;
use std::sync::Arc;

use crate::simulator::Simulator;
use crate::state::Shared;
use crate::v5::account::Account;
use crate::v5::counts::Counts;
use crate::v5::tokens::IssuedToken;

/// Accounts, tokens and counters of API v5, from [`Simulator::v5`].
#[derive(Clone)]
pub struct Handle {
    shared: Arc<Shared>,
}

impl Handle {
    pub(crate) fn new(shared: Arc<Shared>) -> Self {
        Self { shared }
    }

    /// Adds an account, or replaces the settings of an existing one. Its tokens stay, and keep the life that they have.
    pub fn set_account(&self, account: Account) {
        self.shared.with(|state| state.v5.set_account(account));
    }

    /// Changes an account's password; returns whether the account exists. Its tokens stay.
    pub fn set_password(&self, appid: &str, password: impl Into<String>) -> bool {
        let password = password.into();
        self.shared.with(|state| state.v5.set_password(appid, password))
    }

    /// Ends all tokens of an account before their ttl; returns whether the account exists.
    pub fn end_tokens(&self, appid: &str) -> bool {
        self.shared.with(|state| state.v5.end_tokens(appid))
    }

    /// Fetches a token as another program with the same appid would, with `refresh=1`; returns whether the account
    /// exists. The account decides whether this revokes the present token.
    pub fn fetch_elsewhere(&self, appid: &str) -> bool {
        let now = self.shared.now();
        self.shared.with(|state| state.v5.fetch_elsewhere(appid, now))
    }

    /// The tokens of an account in the order of their issue; none for an unknown account.
    #[must_use]
    pub fn tokens(&self, appid: &str) -> Vec<IssuedToken> {
        let now = self.shared.now();
        self.shared.with(|state| state.v5.tokens(appid, now))
    }

    /// The counters of all accounts.
    #[must_use]
    pub fn counts(&self) -> Counts {
        self.shared.with(|state| state.v5.counts)
    }
}

impl fmt::Debug for Handle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Handle").field("counts", &self.counts()).finish_non_exhaustive()
    }
}

impl Simulator {
    /// The part of this handle that concerns API v5.
    #[must_use]
    pub fn v5(&self) -> Handle {
        Handle::new(self.shared())
    }
}
