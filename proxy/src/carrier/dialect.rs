//! Dialects of the carrier's API: only a dialect knows the carrier's codes and fields, and how a call is written.
//!
//! The account decides the dialect of a call and of its reply ([`Account::dialect`]). Gateways speak API v2: a dialect
//! returns a reply in the form of v2, so a stored reply has that form, whichever account answered. A further API version is
//! a variant of [`Dialect`], a folder below and an arm in each of these functions; cache, flights, budget, breakers and
//! audit call no dialect by its name.
//!
//! | function | result |
//! | --- | --- |
//! | `Dialect::sign`, `SignedCall::url` | a call of one account about one card, and its URL |
//! | [`Dialect::read_reply`] | the verdict of a reply |
//! | [`Dialect::label`] | a code as a metric label |
//! | [`read_gateway_form`], [`stored_verdict`] | the verdict of a reply in the form of v2: of another node, or stored |
//! | `refusal_hint` | the likely cause of a refused account |

mod v2;

use cmiot_signer::{Password, Status, Transid};

use super::Call;
use super::verdict::{Code, NotAnEnvelope, Verdict};
use crate::config::Account;
pub use crate::config::Dialect;
use crate::language::Text;

/// A call with its signature.
pub(super) enum SignedCall<'a> {
    V2(v2::SignedCall<'a>),
}

impl SignedCall<'_> {
    /// The URL under a base URL. It holds a token.
    pub(super) fn url(&self, base_url: &str) -> String {
        match self {
            Self::V2(call) => call.url(base_url),
        }
    }
}

impl Dialect {
    /// Signs a call. `None` if the account has no ebid for the operation.
    pub(super) fn sign<'a>(
        self,
        account: &'a Account,
        password: &'a Password,
        transid: Transid,
        call: Call<'a>,
    ) -> Option<SignedCall<'a>> {
        match self {
            Self::V2 => v2::SignedCall::new(account, password, transid, call).map(SignedCall::V2),
        }
    }

    /// Reads a reply; `field` of the result must be there in a success.
    ///
    /// # Errors
    /// [`NotAnEnvelope`] for a body that is not a carrier reply: HTML, truncated, without a status.
    pub fn read_reply(self, body: &[u8], field: &str) -> Result<Verdict, NotAnEnvelope> {
        match self {
            Self::V2 => v2::read_reply(body, field),
        }
    }

    /// The code as a metric label. All codes that the dialect does not list share one label, since a carrier may write any.
    pub fn label(self, code: &Code) -> &str {
        match self {
            Self::V2 => v2::label(code),
        }
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

/// The likely cause when the carrier refuses an account with this code, for the operator. The dialects' codes for this
/// differ.
pub(super) fn refusal_hint(code: &Code) -> Text {
    v2::refusal_hint(code)
}
