//! Authorization of a call of an account whose API has tokens: the token in use, or the result of a request for one.
//!
//! One request is in flight per account, however many calls need a token: they wait for its result. A request has a row of
//! its own in the audit, without card and body, and is a call of the budget.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use cmiot_signer::Transid;
use zeroize::Zeroizing;

use super::account::{AccountState, CallPermit};
use super::charset::ContentType;
use super::client::Response;
use super::dialect::{self, TokenReply};
use super::fault::Fault;
use super::token::{Failure, Token};
use super::{Attempt, Carrier, CarrierResponse, NotSent};
use crate::alarms::{Condition, Severity};
use crate::config::{Api, TokenRefresh};
use crate::inline_str::InlineStr;
use crate::language::{Text, text};
use crate::store::audit::CallRow;
use crate::urgency::{SharedUrgency, Urgency};

/// The operation of a request for a token, in the audit and in logs.
const OPERATION: &str = "token";

/// The authorization of a call.
pub(super) enum Authorized {
    /// The permit of the call, and its token if its API has tokens.
    Call(CallPermit, Option<Arc<Token>>),
    /// No token: the result of the call is that of the request for one.
    Refused(CallPermit, Box<Attempt>),
    /// After the request for a token, this account may send no call.
    NotSent(Arc<str>, NotSent),
}

impl Carrier {
    /// Authorizes a call: with the account's token if its API has tokens, which is requested if there is none.
    pub(super) async fn authorize(&self, mut permit: CallPermit, urgency: &SharedUrgency) -> Authorized {
        if !permit.account().dialect().needs_token() {
            return Authorized::Call(permit, None);
        }
        let state = Arc::clone(permit.state());
        let tokens = state.tokens();
        let ready = |permit, token: Arc<Token>| {
            token.is_used.store(true, Ordering::Relaxed);
            Authorized::Call(permit, Some(token))
        };
        let mut force = false;
        loop {
            if let Some(token) = tokens.usable(self.clock.monotonic()) {
                return ready(permit, token);
            }
            let Some(mut failure) = self.stopping.run_until_cancelled(tokens.request.lock()).await else {
                permit.cancel();
                return Authorized::NotSent(Arc::clone(&state.account.name), NotSent::Shutdown);
            };
            let now = self.clock.monotonic();
            if let Some(token) = tokens.usable(now) {
                return ready(permit, token);
            }
            let password = permit.password_index();
            if let Some(failed) = failure.as_ref().filter(|failed| failed.prevents(password, now)) {
                let result = match &failed.refusal {
                    Some(refusal) if failed.has_refused(password) => Ok((**refusal).clone()),
                    _ => Err(Fault::NoToken),
                };
                let account = Arc::clone(&permit.account().name);
                let attempt = Attempt { account, transid: None, latency: Duration::ZERO, result };
                return Authorized::Refused(permit, Box::new(attempt));
            }
            let requested = match self.request_token(&state, password, force, &mut failure).await {
                Ok(requested) => requested,
                Err(attempt) => return Authorized::Refused(permit, Box::new(attempt)),
            };
            // The request has used the call of the permit. Calls that wait for the token hold the calls at once for which
            // the next permit waits: the lock ends first.
            drop(failure);
            permit = match permit.next_call(urgency).await {
                Ok(permit) => permit,
                Err(not_sent) => return Authorized::NotSent(Arc::clone(&state.account.name), not_sent),
            };
            match requested {
                Some(token) => return ready(permit, token),
                None => force = true,
            }
        }
    }

    /// The carrier refused a token.
    pub(super) fn token_refused(&self, state: &AccountState, token: &Token) {
        if state.tokens().refuse(token, self.clock.monotonic()) {
            self.metrics.token_ended_early(&state.account.name);
            tracing::warn!(
                account = %state.account.name,
                "the carrier refuses a token before its ttl has ended: another program may use this appid"
            );
            self.report_tokens();
        }
    }

    /// Requests a token with the password of this index, while the caller holds the lock and has a call of the budget.
    /// `None` if the carrier returned the refused token and the account requests another one then: the next request does,
    /// with another call of the budget, for which nothing waits under the lock. `force` says that this is that request.
    async fn request_token(
        &self,
        state: &AccountState,
        password: usize,
        force: bool,
        failure: &mut Option<Failure>,
    ) -> Result<Option<Arc<Token>>, Attempt> {
        let tokens = state.tokens();
        let refused = tokens.present.load_full().filter(|token| token.is_refused.load(Ordering::Relaxed));
        let may_force =
            matches!(&state.account.api, Api::V5(access) if access.refresh == TokenRefresh::Force);
        let returned_refused = tokens.returned_refused.swap(false, Ordering::Relaxed);
        let force = may_force && refused.is_some() && (force || returned_refused);
        let asked = self.clock.monotonic();
        match self.ask_for_token(state, password, force).await {
            Ok((text, ttl, transid)) => {
                *failure = None;
                tokens.block(None);
                let is_same = refused.is_some_and(|refused| *refused.text == *text);
                self.metrics.token_requested(&state.account.name, if is_same { "same" } else { "issued" });
                state.accept_password(password);
                if is_same && may_force && !force {
                    tokens.returned_refused.store(true, Ordering::Relaxed);
                    return Ok(None);
                }
                Ok(Some(tokens.store(text, ttl, transid.sequence().get(), asked)))
            }
            Err(attempt) => {
                let result = if attempt.result.is_ok() { "refused" } else { "failed" };
                self.metrics.token_requested(&state.account.name, result);
                let failed = Failure::after(failure.as_ref(), password, &attempt, self.clock.monotonic());
                // After a refusal of the credentials the other password may be tried at once.
                tokens.block(failed.refusal.is_none().then_some(failed.until));
                *failure = Some(failed);
                Err(attempt)
            }
        }
    }

    /// One request for a token. Its row in the audit has no card and no body, which would hold the token.
    async fn ask_for_token(
        &self,
        state: &AccountState,
        password: usize,
        refresh: bool,
    ) -> Result<(Zeroizing<String>, Option<Duration>, Transid), Attempt> {
        let account = &state.account;
        let (at, started) = (self.clock.now(), self.clock.monotonic());
        let (transid, result) = match self.transid(account).await {
            Ok(transid) => {
                let write = |base_url: &str| {
                    dialect::write_token_request(base_url, account, password, &transid, refresh)
                };
                let result = self.send(write).await.and_then(Response::ok).and_then(|response| {
                    let read = dialect::read_token(account, &response.body);
                    let read = read.map_err(|why| Fault::not_an_envelope(why, &response.body))?;
                    Ok((read, response.body.len()))
                });
                // Any page may repeat the password.
                (Some(transid), result.map_err(Fault::without_excerpt))
            }
            Err(fault) => (None, Err(fault)),
        };
        let latency = self.clock.monotonic().saturating_sub(started);
        let bytes = result.as_ref().ok().map(|(_, bytes)| *bytes);
        let row = |code: Option<&str>, fault: Option<&'static str>| CallRow {
            at,
            transid: transid.map(|transid| InlineStr::new(transid.as_str())),
            previous: None,
            card: None,
            account: Arc::clone(&account.name),
            operation: OPERATION,
            code: code.map(InlineStr::new),
            fault,
            status: None,
            latency,
            bytes,
            body: None,
        };
        let attempt = |result| Attempt { account: Arc::clone(&account.name), transid, latency, result };
        match (result, transid) {
            (Ok((TokenReply::Token { token, ttl }, _)), Some(transid)) => {
                self.audit.append_call(row(Some("0"), None));
                self.metrics.carrier_call(&account.name, "0", latency);
                Ok((token, ttl, transid))
            }
            (Ok((TokenReply::Refused(read), _)), _) => {
                self.note_code(account, OPERATION, &read);
                let nothing = bytes::Bytes::new();
                let response = CarrierResponse::new(nothing, ContentType::UTF_8, read, self.clock.now());
                let code = response.carrier_code();
                self.audit.append_call(row(Some(code.as_str()), None));
                self.metrics.carrier_call(&account.name, account.dialect().label(&code), latency);
                tracing::error!(
                    account = %account.name, password = password + 1, %code, "the carrier issues no token to the account"
                );
                Err(attempt(Ok(response)))
            }
            (Ok(_), None) => Err(attempt(Err(Fault::Sequence))),
            (Err(fault), _) => {
                self.audit.append_call(row(None, Some(fault.name())));
                self.metrics.carrier_call(&account.name, fault.name(), latency);
                tracing::warn!(account = %account.name, %fault, "request for a token failed");
                Err(attempt(Err(fault)))
            }
        }
    }

    /// Requests a token with the password of this index, whatever token is present: for an operator's check, which has a call
    /// of the budget. `None` if the carrier returned the refused token: the check takes another call of the budget and says
    /// `force`.
    ///
    /// # Errors
    /// The result of the request.
    pub(super) async fn token_of_password(
        &self,
        state: &AccountState,
        password: usize,
        force: bool,
    ) -> Result<Option<Arc<Token>>, Attempt> {
        let mut failure = state.tokens().request.lock().await;
        self.request_token(state, password, force, &mut failure).await
    }

    /// The accounts whose token is to be renewed now. [`Self::renew_token`] must follow for each.
    pub fn tokens_to_renew(&self) -> Vec<Arc<AccountState>> {
        let now = self.clock.monotonic();
        let groups = self.groups.load();
        let accounts = groups.values().flat_map(|of| of.iter());
        let due = accounts.filter(|one| {
            one.tokens().is_due(now) && !one.tokens().is_renewing.swap(true, Ordering::Relaxed)
        });
        due.map(Arc::clone).collect()
    }

    /// Renews the token of an account; the present one stays in use until then, and after a failure. If the carrier refuses a
    /// password, the other one is tried.
    pub async fn renew_token(&self, state: Arc<AccountState>) {
        let (tokens, urgency) = (state.tokens(), SharedUrgency::new(Urgency::Refresh));
        for _ in 0..state.account.passwords.len() {
            let is_prevented = |failure: &Option<Failure>| {
                let (now, password) = (self.clock.monotonic(), state.password_in_use() - 1);
                failure.as_ref().is_some_and(|failed| failed.prevents(password, now))
            };
            // A tick during the cool-down costs no call of the budget.
            if tokens.request.try_lock().is_ok_and(|failure| is_prevented(&failure)) {
                break;
            }
            let Ok(_call) = state.take_budget(&urgency).await else { break };
            let mut failure = tokens.request.lock().await;
            let is_due = tokens.is_due(self.clock.monotonic());
            if is_prevented(&failure) || !is_due || self.stopping.is_cancelled() {
                break;
            }
            let password = state.password_in_use() - 1;
            // A failure has its log line, and the next tick tries again after the cool-down.
            let is_done = self.request_token(&state, password, false, &mut failure).await.is_ok();
            let is_refused = failure.as_ref().is_some_and(|failed| failed.refusal.is_some());
            if is_done || !is_refused || !state.refuse_password(password) {
                break;
            }
        }
        tokens.is_renewing.store(false, Ordering::Relaxed);
    }

    /// Keeps the alarm about appids that another program uses up to date.
    pub(super) fn report_tokens(&self) {
        let now = self.clock.monotonic();
        let groups = self.groups.load();
        let shared = groups.values().flat_map(|of| of.iter()).filter(|one| one.tokens().is_shared(now));
        let texts: Vec<_> = shared
            .map(|one| {
                text!(
                    "another program uses the appid of account {name}: the carrier refuses its tokens before their ttl has ended. \
                     Find the other program (a test system, an earlier proxy, another node) and give it an appid of its own",
                    "另一个程序在使用账号 {name} 的应用编码（appid）：运营商在 token 到期之前就拒绝它。请找到该程序（测试系统、旧的代理、\
                     其他节点），并让它使用自己的应用编码",
                    name = one.account.name
                )
            })
            .collect();
        self.audit.alarms().set_if(Condition::SharedAppid, Severity::Warning, Text::join(&texts));
    }
}
