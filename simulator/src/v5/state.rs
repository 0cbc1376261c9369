//! The accounts of API v5 with their tokens, and the carrier's checks of a call.

use std::collections::HashMap;
use std::time::Duration;

use crate::behaviour::Answer;
use crate::calls::CallLog;
use crate::lookup::Lookup;
use crate::request::Parameters;
use crate::transid;
use crate::v5::Operation;
use crate::v5::account::Account;
use crate::v5::counts::Counts;
use crate::v5::reply::Reply;
use crate::v5::tokens::{IssuedToken, Tokens};

/// Accounts, tokens and counters.
#[derive(Default)]
pub(crate) struct State {
    accounts: HashMap<String, Registered>,
    /// For every token that was issued: its account and its number there.
    owners: HashMap<String, (String, usize)>,
    pub(super) counts: Counts,
}

struct Registered {
    account: Account,
    tokens: Tokens,
}

/// A call that passed the checks.
pub(crate) enum Checked {
    /// A fetch of a token of this account; `renew` means `refresh=1`.
    Fetch { appid: String, renew: bool },
    /// A query.
    Query(Lookup),
}

impl Checked {
    /// The account that called.
    pub(crate) fn appid(&self) -> &str {
        match self {
            Self::Fetch { appid, .. } => appid,
            Self::Query(lookup) => &lookup.appid,
        }
    }
}

impl State {
    pub(crate) fn new(accounts: Vec<Account>) -> Self {
        let mut state = Self::default();
        accounts.into_iter().for_each(|account| state.set_account(account));
        state
    }

    /// Adds an account, or changes an existing one; its tokens stay.
    pub(super) fn set_account(&mut self, account: Account) {
        match self.accounts.get_mut(&account.appid) {
            Some(registered) => registered.account = account,
            None => {
                let registered = Registered { account, tokens: Tokens::default() };
                self.accounts.insert(registered.account.appid.clone(), registered);
            }
        }
    }

    /// Changes an account's password; returns whether the account exists.
    pub(super) fn set_password(&mut self, appid: &str, password: String) -> bool {
        let found = self.accounts.get_mut(appid);
        found.map(|registered| registered.account.password = password).is_some()
    }

    /// Ends all tokens of an account; returns whether the account exists.
    pub(super) fn end_tokens(&mut self, appid: &str) -> bool {
        self.accounts.get_mut(appid).map(|registered| registered.tokens.end()).is_some()
    }

    pub(super) fn tokens(&self, appid: &str, now: Duration) -> Vec<IssuedToken> {
        self.accounts.get(appid).map_or_else(Vec::new, |registered| registered.tokens.issued(now))
    }

    pub(crate) fn reset_counts(&mut self) {
        self.counts = Counts::default();
    }

    /// The account of a call: the appid as sent, or that of the token.
    pub(crate) fn caller(&self, parameters: &Parameters) -> String {
        let sent = |name| parameters.optional(name).ok().flatten();
        let owner =
            || sent("token").and_then(|token| self.owners.get(token)).map(|(appid, _)| appid.as_str());
        sent("appid").or_else(owner).unwrap_or_default().to_owned()
    }

    /// Counts a call before its checks.
    pub(crate) fn count(&mut self, operation: Operation, secret_in_url: bool) {
        self.counts.secrets_in_urls += u64::from(secret_in_url);
        match operation {
            Operation::Token => self.counts.fetches += 1,
            _ => self.counts.queries += 1,
        }
    }

    /// Counts the code of a call's answer; `None` for an answer that is no envelope.
    pub(crate) fn count_code(&mut self, operation: Operation, code: Option<&str>) {
        match operation {
            Operation::Token => self.counts.fetches_refused += u64::from(code != Some("0")),
            _ => self.counts.queries_refused += u64::from(code == Some("12021")),
        }
    }

    /// The carrier's checks, in the order of the module's documentation; otherwise the code of the refusal.
    pub(crate) fn check(
        &mut self,
        operation: Operation,
        parameters: &Parameters,
        log: &mut CallLog,
        refuse_repeats: bool,
        now: Duration,
    ) -> Result<Checked, &'static str> {
        let required = |name| parameters.required(name).map_err(|_| "11000");
        let transid = required("transid")?;
        if !transid::has_tail(transid) {
            self.counts.malformed_transids += 1;
        }
        let checked = match operation {
            Operation::Token => {
                let (appid, password) = (required("appid")?, required("password")?);
                let registered = self.accounts.get(appid).ok_or("12004")?;
                if registered.account.password != password {
                    return Err("12022");
                }
                let renew = match parameters.optional("refresh") {
                    Ok(Some("1")) => true,
                    Ok(Some("0") | None) => false,
                    _ => return Err("11000"),
                };
                Checked::Fetch { appid: appid.to_owned(), renew }
            }
            _ => Checked::Query(self.check_query(operation, parameters, transid, now)?),
        };
        if !transid::is_well_formed(transid, checked.appid()) {
            return Err("11000");
        }
        if log.record_transid(checked.appid(), transid) && refuse_repeats {
            return Err("11000");
        }
        Ok(checked)
    }

    fn check_query(
        &mut self,
        operation: Operation,
        parameters: &Parameters,
        transid: &str,
        now: Duration,
    ) -> Result<Lookup, &'static str> {
        let card = parameters.card().map_err(|_| "11000");
        self.counts.malformed_cards += u64::from(card.is_err());
        let token = parameters.required("token").map_err(|_| "11000")?;
        let (appid, number) = self.owners.get(token).ok_or("12021")?;
        let is_foreign = |other: &&String| *other != appid && transid::is_well_formed(transid, other);
        if self.accounts.keys().any(|other| is_foreign(&other)) {
            self.counts.foreign_tokens += 1;
            return Err("12021");
        }
        let registered = self.accounts.get_mut(appid).ok_or("12021")?;
        if !registered.tokens.authorize(*number, now) {
            return Err("12021");
        }
        Ok(Lookup {
            operation: operation.into(),
            appid: appid.clone(),
            transid: transid.to_owned(),
            card: card?,
        })
    }

    /// The reply to a fetch that the script answers with `answer`. Only an answer that carries the carrier's own token
    /// issues one.
    pub(crate) fn answer_fetch(&mut self, appid: &str, renew: bool, answer: &Answer, now: Duration) -> Reply {
        match answer {
            Answer::Default | Answer::Truncate(_) | Answer::Stall(_) | Answer::Oversized(_) => {
                self.fetch(appid, renew, false, now).unwrap_or(Reply::Empty)
            }
            Answer::Code(code) if code == "0" => self.fetch(appid, renew, false, now).unwrap_or(Reply::Empty),
            // The script replaces the text.
            Answer::Status(_) => {
                let account = self.accounts.get(appid).map(|registered| &registered.account);
                let ttl = account.and_then(|account| Tokens::default().ttl(0, account, now));
                Reply::Token { text: String::new(), ttl }
            }
            Answer::Code(code) => self.refusal(appid, code),
            _ => Reply::Empty,
        }
    }

    /// Fetches a token as another program would; returns whether the account exists.
    pub(super) fn fetch_elsewhere(&mut self, appid: &str, now: Duration) -> bool {
        let found = self.fetch(appid, true, true, now).is_some();
        self.counts.fetches_elsewhere += u64::from(found);
        found
    }

    fn fetch(&mut self, appid: &str, renew: bool, elsewhere: bool, now: Duration) -> Option<Reply> {
        let Registered { account, tokens } = self.accounts.get_mut(appid)?;
        let (number, is_new) = tokens.fetch(account, renew, elsewhere, now);
        let text = tokens.text(number).to_owned();
        if is_new {
            self.counts.tokens += 1;
            self.owners.insert(text.clone(), (appid.to_owned(), number));
        }
        Some(Reply::Token { text, ttl: tokens.ttl(number, account, now) })
    }

    /// The result of a refusal of an account with `code`.
    pub(crate) fn refusal(&self, appid: &str, code: &str) -> Reply {
        match self.accounts.get(appid) {
            Some(registered) if code == "12022" && registered.account.refuses_with_token => Reply::NoToken,
            _ => Reply::Empty,
        }
    }
}
