//! API v5: a token that the carrier issues authorizes each call; JSON over POST, or a query in the URL.
//!
//! Gateways do not speak it: each reply is made into the one that API v2 would have. The carrier's own code and card state stay
//! with it ([`Translated`](crate::carrier::verdict::Translated)).

mod reply;
mod request;
mod stop_reason;
mod tables;

use super::{Authorization, Read, TokenReply, WireCall};
use crate::carrier::Call;
use crate::carrier::verdict::{Code, NotAnEnvelope};
use crate::config::{Account, TokenAccess};
use crate::language::Text;
use cmiot_signer::Transid;
pub(super) use stop_reason::stop_reasons;

/// Whether a code of API v5 is a success.
pub(super) fn is_success(code: &Code) -> bool {
    code.as_str() == tables::OK
}

/// A query. `None` if the account is not authorized with a token, or API v5 has no twin of the operation.
pub(super) fn write(
    base_url: &str,
    access: &TokenAccess,
    authorization: Authorization<'_>,
    transid: &Transid,
    call: Call<'_>,
) -> Option<WireCall> {
    match authorization {
        Authorization::Token(token) => request::query(base_url, access, token, transid, call),
        Authorization::Password(_) => None,
    }
}

/// The request for a token, with the password of this index.
pub(super) fn write_token_request(
    base_url: &str,
    account: &Account,
    access: &TokenAccess,
    password: usize,
    transid: &Transid,
    refresh: bool,
) -> Option<WireCall> {
    request::token(base_url, account, access, password, transid, refresh)
}

/// Reads the reply to a query.
///
/// # Errors
/// [`NotAnEnvelope`] for a body that is not a carrier reply.
pub(super) fn read_reply(body: &[u8], call: Call<'_>, access: &TokenAccess) -> Result<Read, NotAnEnvelope> {
    reply::read(body, call, access)
}

/// Reads the reply to a request for a token.
///
/// # Errors
/// [`NotAnEnvelope`] for a body that is not a carrier reply, or has no token.
pub(super) fn read_token(body: &[u8]) -> Result<TokenReply, NotAnEnvelope> {
    reply::read_token(body)
}

/// The code as a metric label: all codes that the table does not have share one.
pub(super) fn label(code: &Code) -> &str {
    if tables::meaning(code.as_str(), true).is_some() { code.as_str() } else { "other" }
}

/// Whether a code says that the account has no such card.
pub(super) fn lacks_card(code: &Code) -> bool {
    tables::meaning(code.as_str(), false).is_some_and(|meaning| meaning.gateway == tables::GatewayCode::Card)
}

/// Whether a code says that the carrier has no such path.
pub(super) fn lacks_path(code: &Code) -> bool {
    code.as_str() == tables::NO_PATH
}

/// The likely cause when the carrier refuses an account with this code; none of a code of another dialect.
pub(super) fn refusal_hint(code: &Code) -> Option<Text> {
    tables::refusal_hint(code)
}
