//! Dialects of the carrier's API: only a dialect knows the carrier's codes and fields, and how a call is written.
//!
//! The account decides the dialect of a call and of its reply ([`Account::dialect`]). Gateways speak API v2: a dialect
//! returns a reply in the form of v2, so a stored reply has that form, whichever account answered. A further API version is
//! a variant of [`Dialect`], a folder below and an arm in each of these functions; cache, flights, budget, breakers and
//! audit call no dialect by its name.
//!
//! | function | result |
//! | --- | --- |
//! | `Dialect::needs_token` | whether its calls need a token that the carrier issues |
//! | `write`, `write_token_request` | a call of one account about one card, and a request for a token, as they are sent |
//! | `token_of`, `sent_passwords` | the secrets of a call, which a reply may repeat |
//! | `read_reply`, `read_token` | their replies |
//! | [`Dialect::label`] | a code as a metric label |
//! | `Dialect::lacks_card`, `lacks_path` | whether a code says that the account has no such card, or the carrier no such path |
//! | [`stop_reasons`] | the meaning of the digits of a stop reason |
//! | [`read_gateway_form`], [`stored_verdict`] | the verdict of a reply in the form of v2: of another node, or stored |
//! | `refusal_hint` | the likely cause of a refused account |

mod v2;
mod v5;

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use cmiot_signer::{Password, Status, Transid};
use zeroize::Zeroizing;

use super::Call;
use super::verdict::{Code, NotAnEnvelope, Translated, Verdict};
pub use crate::config::Dialect;
use crate::config::{Account, Api};
use crate::language::Text;
use crate::units::Secret;

/// A call as it is sent: a GET without a body, or a POST of JSON. It holds a password or a token.
pub(super) struct WireCall {
    pub(super) url: Zeroizing<String>,
    pub(super) body: Option<Bytes>,
    /// Whether the reply has a secret: its bytes are wiped after use.
    pub(super) wipes_reply: bool,
}

/// The secret that authorizes a call.
#[derive(Clone, Copy)]
pub(super) enum Authorization<'a> {
    /// A signature with this password.
    Password(&'a Password),
    /// A token that the carrier issued.
    Token(&'a str),
}

/// A reply that was read.
pub(super) struct Read {
    /// The body for gateways; none if it is the carrier's, byte for byte.
    pub(super) body: Option<Bytes>,
    /// The meaning of the body for gateways.
    pub(super) verdict: Verdict,
    /// The carrier's code and card state, where the body is not its own.
    pub(super) translated: Option<Arc<Translated>>,
}

/// One digit of a stop reason that is not `0`.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct StopReason {
    /// Its position: 1 is the first digit from the left.
    pub position: usize,
    /// The character that the carrier wrote there.
    pub digit: char,
    /// Its meaning; none if the table does not have it.
    pub meaning: Option<Text>,
}

/// The reply to a request for a token.
pub(super) enum TokenReply {
    Token {
        token: Zeroizing<String>,
        /// The time that the carrier says it is left.
        ttl: Option<Duration>,
    },
    /// A code in the place of a token.
    Refused(Read),
}

impl Dialect {
    /// Whether its calls need a token that the carrier issues.
    pub(super) fn needs_token(self) -> bool {
        match self {
            Self::V2 => false,
            Self::V5 => true,
        }
    }

    /// Whether its replies are made into the form that gateways get.
    pub fn is_translated(self) -> bool {
        self != Self::V2
    }

    /// Whether a code says that the account has no such card: an account of another API may have it.
    pub(super) fn lacks_card(self, code: &Code) -> bool {
        match self {
            Self::V2 => v2::lacks_card(code),
            Self::V5 => v5::lacks_card(code),
        }
    }

    /// Whether a code says that the carrier has no such path: the base URL is wrong.
    pub(super) fn lacks_path(self, code: &Code) -> bool {
        match self {
            Self::V2 => false,
            Self::V5 => v5::lacks_path(code),
        }
    }

    /// The code as a metric label. All codes that the dialect does not list share one label, since a carrier may write any.
    pub fn label(self, code: &Code) -> &str {
        match self {
            Self::V2 => v2::label(code),
            Self::V5 => v5::label(code),
        }
    }
}

/// A call under a base URL. `None` if the account cannot make it: without an ebid, a twin or this authorization.
pub(super) fn write(
    base_url: &str,
    account: &Account,
    authorization: Authorization<'_>,
    transid: Transid,
    call: Call<'_>,
) -> Option<WireCall> {
    match &account.api {
        Api::V2(_) => v2::write(base_url, account, authorization, transid, call),
        Api::V5(access) => v5::write(base_url, access, authorization, &transid, call),
    }
}

/// A request for a token with the account's password of this index; `refresh` requests another one than the carrier has.
/// `None` if the dialect has no tokens.
pub(super) fn write_token_request(
    base_url: &str,
    account: &Account,
    password: usize,
    transid: &Transid,
    refresh: bool,
) -> Option<WireCall> {
    match &account.api {
        Api::V2(_) => None,
        Api::V5(access) => v5::write_token_request(base_url, account, access, password, transid, refresh),
    }
}

/// The token of a call: the one that the carrier issued, or the signature of the transid. A reply may repeat it.
pub(super) fn token_of(
    account: &Account,
    authorization: Authorization<'_>,
    transid: &Transid,
) -> Zeroizing<String> {
    Zeroizing::new(match authorization {
        Authorization::Token(token) => token.to_owned(),
        Authorization::Password(password) => {
            cmiot_signer::Token::sign(&account.appid, password, transid).as_str().to_owned()
        }
    })
}

/// The passwords that requests of an account hold. API v2 sends signatures only.
pub(super) fn sent_passwords(account: &Account) -> &[Secret] {
    match &account.api {
        Api::V2(_) => &[],
        Api::V5(access) => &access.secrets,
    }
}

/// Reads the reply to a call.
///
/// # Errors
/// [`NotAnEnvelope`] for a body that is not a carrier reply: HTML, truncated, without a status.
pub(super) fn read_reply(account: &Account, call: Call<'_>, body: &[u8]) -> Result<Read, NotAnEnvelope> {
    match &account.api {
        Api::V2(_) => {
            let verdict = v2::read_reply(body, call.operation.verdict)?;
            Ok(Read { body: None, verdict, translated: None })
        }
        Api::V5(access) => v5::read_reply(body, call, access),
    }
}

/// Reads the reply to a request for a token.
///
/// # Errors
/// [`NotAnEnvelope`] for a body that is not a carrier reply, or a success without a token.
pub(super) fn read_token(account: &Account, body: &[u8]) -> Result<TokenReply, NotAnEnvelope> {
    match &account.api {
        Api::V2(_) => Err(NotAnEnvelope::NoToken),
        Api::V5(_) => v5::read_token(body),
    }
}

/// Reads a reply in the form that gateways get; `field` of the result must be there in a success.
///
/// # Errors
/// [`NotAnEnvelope`] for a body that does not have this form.
pub fn read_gateway_form(body: &[u8], field: &str) -> Result<Verdict, NotAnEnvelope> {
    v2::read_reply(body, field)
}

/// The verdict of a reply that was stored with the code and the STATUS that gateways get.
pub fn stored_verdict(code: Code, status: Option<Status>) -> Verdict {
    v2::stored_verdict(code, status)
}

/// The digits of a stop reason that are not `0`. `None` if the text is not as long as one.
pub fn stop_reasons(digits: &str) -> Option<Vec<StopReason>> {
    v5::stop_reasons(digits)
}

/// Whether the carrier's own code of a translated reply is a success: it has the card.
pub fn has_card(translated: &Translated) -> bool {
    v5::is_success(&translated.code)
}

/// The likely cause when the carrier refuses an account with this code, for the operator. No two dialects have a code for
/// this in common.
pub(super) fn refusal_hint(code: &Code) -> Text {
    v5::refusal_hint(code).unwrap_or_else(|| v2::refusal_hint(code))
}
