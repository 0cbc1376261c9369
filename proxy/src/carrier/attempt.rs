//! One attempt: transid → write → send → read, its row in the audit, and its counts.

use std::sync::Arc;

use bytes::Bytes;
use cmiot_signer::Transid;

use super::account::CallPermit;
use super::charset::ContentType;
use super::client::Response;
use super::dialect::{self, Authorization, Dialect, Read, WireCall};
use super::fault::Fault;
use super::token::Token;
use super::verdict::Class;
use super::{Attempt, Call, Carrier, CarrierResponse};
use crate::clock::Time;
use crate::config::Account;
use crate::inline_str::InlineStr;
use crate::store::audit::CallRow;
use crate::units::Secret;

impl Carrier {
    /// One attempt of a call with the token, or else with the password of the permit.
    pub(super) async fn attempt(
        &self,
        permit: &CallPermit,
        token: Option<&Token>,
        call: Call<'_>,
        previous: Option<Transid>,
    ) -> Attempt {
        let authorization = match token {
            Some(token) => Authorization::Token(token.text()),
            None => Authorization::Password(permit.password()),
        };
        let attempt = self.attempt_with(permit.account(), authorization, call, previous).await;
        if let Some(token) = token.filter(|_| attempt.is_token_refused()) {
            self.token_refused(permit.state(), token);
        }
        attempt
    }

    /// One attempt, without budget and breakers. Takes at most the client's timeout. `previous` is the transid of the
    /// attempt that it follows, for the audit.
    pub(super) async fn attempt_with(
        &self,
        account: &Account,
        authorization: Authorization<'_>,
        call: Call<'_>,
        previous: Option<Transid>,
    ) -> Attempt {
        let at = self.clock.now();
        let started = self.clock.monotonic();
        let (transid, received, result) = match self.transid(account).await {
            Ok(transid) => {
                let (received, result) = self.ask(account, authorization, transid, call).await;
                (Some(transid), received, result)
            }
            Err(fault) => (None, None, Err(fault)),
        };
        let latency = self.clock.monotonic().saturating_sub(started);
        let attempt = Attempt { account: Arc::clone(&account.name), transid, latency, result };
        self.append_row(call, at, previous, &attempt, received.as_ref());
        self.report(account.dialect(), call, &attempt);
        attempt
    }

    pub(super) async fn transid(&self, account: &Account) -> Result<Transid, Fault> {
        if let Some(transid) = self.transids.try_next(&account.appid) {
            return Ok(transid);
        }
        let transids = Arc::clone(&self.transids);
        let appid = account.appid;
        // Leasing the next block of numbers waits for the disk, which an async worker must not do.
        match tokio::task::spawn_blocking(move || transids.next(&appid)).await {
            Ok(Ok(transid)) => Ok(transid),
            Ok(Err(error)) => {
                tracing::error!(account = %account.name, %error, "no transid for a carrier call");
                Err(Fault::Sequence)
            }
            Err(_) => Err(Fault::Sequence),
        }
    }

    /// Sends a call. Returns the body of a complete response too, whatever it says, and the result.
    async fn ask(
        &self,
        account: &Account,
        authorization: Authorization<'_>,
        transid: Transid,
        call: Call<'_>,
    ) -> (Option<Received>, Result<CarrierResponse, Fault>) {
        // A page about an error may repeat the call.
        let hide = |fault: Fault| match authorization {
            Authorization::Token(token) => fault.hiding(token),
            Authorization::Password(_) => fault,
        };
        let write = |base_url: &str| dialect::write(base_url, account, authorization, transid, call);
        let mut response = match self.send(write).await {
            Ok(response) => response,
            Err(fault) => return (None, Err(fault)),
        };
        let (bytes, token) = (response.body.len(), dialect::token_of(account, authorization, &transid));
        if account.dialect().needs_token() {
            // Gateways get the message of an unknown code.
            response.body = without(response.body, &token);
        }
        let body = response.body.clone();
        match self.read(account, call, response) {
            Ok(response) => (Some(Received { bytes, body: without(body, &token) }), Ok(response)),
            Err(fault) => {
                let secrets =
                    dialect::sent_passwords(account).iter().map(Secret::expose).chain([token.as_bytes()]);
                let body = secrets.fold(body, |body, secret| without_parts(&body, secret));
                (Some(Received { bytes, body }), Err(hide(fault)))
            }
        }
    }

    /// Reads the reply in a response.
    fn read(&self, account: &Account, call: Call<'_>, response: Response) -> Result<CarrierResponse, Fault> {
        let Response { body, content_type, .. } = response.ok()?;
        let read =
            dialect::read_reply(account, call, &body).map_err(|why| Fault::not_an_envelope(why, &body))?;
        self.note_code(account, call.operation.name, &read);
        Ok(CarrierResponse::new(body, content_type, read, self.clock.now()))
    }

    /// Sends a call, and compares the clock with the carrier's.
    pub(super) async fn send(&self, write: impl FnOnce(&str) -> Option<WireCall>) -> Result<Response, Fault> {
        let sent = self.clock.moment();
        // Called when the head of a response has been received, whatever its status.
        let dated = |carrier_time: Time| {
            let drift = self.clock.compare(sent, carrier_time);
            self.metrics.clock_drift(drift.seconds);
            self.publish_clock();
        };
        let received = self.stopping.run_until_cancelled(self.client.send(write, dated)).await;
        received.unwrap_or(Err(Fault::Shutdown))
    }

    /// Logs a code of unknown meaning, once.
    pub(super) fn note_code(&self, account: &Account, operation: &'static str, read: &Read) {
        /// A carrier that writes any text as a code must not fill memory.
        const MOST: usize = 256;
        let Some(translated) = read.translated.as_ref().filter(|_| read.verdict.class == Class::Unknown)
        else {
            return;
        };
        let mut known = self.unknown_codes();
        if known.len() < MOST && known.insert(translated.code) {
            tracing::warn!(
                account = %account.name, operation, code = %translated.code,
                "a code of the carrier is not in the table of codes, or says that base_url has no such path: the reply is not \
                 stored, and yields to a stale entry; docs/carrier-side.md has the table"
            );
        }
    }

    /// Appends the audit's row of an attempt.
    fn append_row(
        &self,
        call: Call<'_>,
        at: Time,
        previous: Option<Transid>,
        attempt: &Attempt,
        received: Option<&Received>,
    ) {
        let transid = |transid: Transid| InlineStr::new(transid.as_str());
        let response = attempt.result.as_ref().ok();
        let state = |response: &CarrierResponse| match &response.translated {
            Some(translated) => translated.state,
            None => response.verdict.status.as_ref().map(|status| InlineStr::new(status.code())),
        };
        self.audit.append_call(CallRow {
            at,
            transid: attempt.transid.map(transid),
            previous: previous.map(transid),
            card: Some(*call.card),
            account: Arc::clone(&attempt.account),
            operation: call.operation.name,
            code: response.map(|response| InlineStr::new(response.carrier_code().as_str())),
            fault: attempt.result.as_ref().err().map(Fault::name),
            status: response.and_then(state),
            latency: attempt.latency,
            bytes: received.map(|received| received.bytes),
            body: received.and_then(|received| self.audit.body(&received.body)),
        });
    }

    /// Counts every attempt, and logs those that failed.
    fn report(&self, dialect: Dialect, call: Call<'_>, attempt: &Attempt) {
        let operation = call.operation.name;
        let code = attempt.result.as_ref().map(CarrierResponse::carrier_code);
        let label = match &code {
            Ok(code) => dialect.label(code),
            Err(fault) => fault.name(),
        };
        self.metrics.carrier_call(&attempt.account, label, attempt.latency);
        match &attempt.result {
            Ok(response) if response.verdict.class.refuses_account() => {
                tracing::error!(
                    account = %attempt.account, operation, code = %response.carrier_code(),
                    "the carrier refuses the account's credentials: run `cmiot-proxy check --live`"
                );
            }
            Ok(_) => {}
            Err(fault) => {
                let card = call.card.masked();
                tracing::warn!(account = %attempt.account, operation, %card, %fault, "carrier call failed");
            }
        }
    }
}

/// The body of a response, for the audit.
struct Received {
    /// The length that was received.
    bytes: usize,
    /// The body without secrets of the call.
    body: Bytes,
}

/// A body without this secret, which the carrier may repeat in its message.
fn without(body: Bytes, secret: &str) -> Bytes {
    let escaped = serde_json::Value::from(secret).to_string();
    let mut kept = body;
    for text in [secret, escaped.trim_matches('"')] {
        let finder = memchr::memmem::Finder::new(text);
        if text.is_empty() || finder.find(&kept).is_none() {
            continue;
        }
        let (mut out, mut from) = (Vec::with_capacity(kept.len()), 0);
        while let Some(at) = finder.find(&kept[from..]) {
            out.extend_from_slice(&kept[from..from + at]);
            out.extend_from_slice(b"***");
            from += at + text.len();
        }
        out.extend_from_slice(&kept[from..]);
        kept = out.into();
    }
    kept
}

/// A body of no known form without the parts of a secret, in either case: a page about an error may repeat the call
/// with other escapes, or cut it off.
fn without_parts(body: &[u8], secret: &[u8]) -> Bytes {
    /// Shorter parts occur in other words, and reveal too little of a token.
    const PART: usize = 8;
    let part = PART.min(secret.len()).max(1);
    let (lower, secret) = (body.to_ascii_lowercase(), secret.to_ascii_lowercase());
    let is_part = |text: &[u8]| memchr::memmem::find(&secret, text).is_some();
    let (mut kept, mut hidden_to) = (Vec::with_capacity(body.len()), 0);
    for (at, byte) in body.iter().enumerate() {
        if lower.get(at..at + part).is_some_and(is_part) {
            if at >= hidden_to {
                kept.extend_from_slice(b"***");
            }
            hidden_to = at + part;
        }
        if at >= hidden_to {
            kept.push(*byte);
        }
    }
    kept.into()
}

impl CarrierResponse {
    /// A response that was read, with the body that was received, at this time.
    pub(super) fn new(received: Bytes, content_type: ContentType, read: Read, at: Time) -> Self {
        let content_type = if read.body.is_some() { ContentType::UTF_8 } else { content_type };
        Self {
            body: read.body.unwrap_or(received),
            translated: read.translated,
            content_type,
            verdict: read.verdict,
            at,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_secret_is_not_in_the_body_that_is_kept() {
        let kept =
            |body: &'static str, secret| String::from_utf8(without(body.into(), secret).to_vec()).unwrap();
        assert_eq!(
            kept(r#"{"message":"token T0KEN of T0KEN"}"#, "T0KEN"),
            r#"{"message":"token *** of ***"}"#
        );
        assert_eq!(kept(r#"{"message":"a\"b\\c"}"#, r#"a"b\c"#), r#"{"message":"***"}"#);
        assert_eq!(kept(r#"{"status":"0"}"#, "T0KEN"), r#"{"status":"0"}"#);
    }

    #[test]
    fn no_part_of_a_secret_is_in_a_page_that_is_kept() {
        let kept = |body: &str, secret: &str| {
            String::from_utf8(without_parts(body.as_bytes(), secret.as_bytes()).to_vec()).unwrap()
        };
        let token = "0123456789abcdef-FEDCBA98";
        for (page, expected) in [
            ("<p>0123456789ABCDEF%2DFEDCBA98</p>", "<p>***%2D***</p>"),
            ("bad token 0123456789abc", "bad token ***"),
            ("456789abcdef-fedc and 01234567", "*** and ***"),
            ("0123456", "0123456"),
            ("<h1>502 Bad Gateway</h1>", "<h1>502 Bad Gateway</h1>"),
        ] {
            assert_eq!(kept(page, token), expected);
        }
        assert_eq!(kept("a b", ""), "a b");
        assert_eq!(kept("a T0KEN", "T0KEN"), "a ***");
    }
}
