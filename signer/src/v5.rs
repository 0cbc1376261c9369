//! The carrier's newer API, v5: one secret token authorizes every query, and no call is signed.
//!
//! The facts come from public clients; the carrier's own document is not published. A device fetches a token with appid
//! and password, keeps it until [`TokenReply::renew_after`] or until a query is refused with [`Refusal::TokenExpired`],
//! and then fetches the next one. The requests are JSON bodies for POST, which keeps password and token out of URLs, or
//! queries for GET.
//!
//! ```
//! use cmiot_signer::v5::{CardStatus, CtStatus, Operation, Query, Reply, TOKEN_PATH, TokenReply, TokenRequest, TokenStore};
//! use cmiot_signer::{AppId, Card, CardKind, Password, Sequence, Stamp, Transid};
//!
//! let appid = AppId::parse("200001")?;
//! let password = Password::new(b"example-password")?;
//! let transid = Transid::new(&appid, Stamp::from_unix(1_413_444_630)?, Sequence::new(1)?);
//!
//! // POST to TOKEN_PATH.
//! assert_eq!(TOKEN_PATH, "/v5/ec/get/token");
//! let mut buffer = [0; 1024];
//! let len = TokenRequest::new(transid, &password)?.body_into(&mut buffer)?;
//! assert!(buffer[..len].starts_with(br#"{"appid":"200001","password":"example-password","transid":"200001"#));
//! let response = br#"{"status":"0","message":"","result":[{"token":"example-token","ttl":"3600"}]}"#;
//! let reply = TokenReply::scan(response)?;
//! assert_eq!(reply.renew_after(), 3240);
//! let mut store = TokenStore::new();
//! store.set(reply.into_token()?);
//!
//! // POST to the operation's path, with a new transid.
//! let transid = Transid::new(&appid, Stamp::from_unix(1_413_444_631)?, Sequence::new(1)?);
//! let card = Card::parse(CardKind::Msisdn, "1440000000001")?;
//! assert_eq!(Operation::SimStatus.path(), "/v5/ec/query/sim-status");
//! if let Some(token) = store.get() {
//!     let len = Query::new(transid, token, &card).body_into(&mut buffer)?;
//!     assert!(buffer[..len].ends_with(br#""token":"example-token","msisdn":"1440000000001"}"#));
//! }
//! let response = br#"{"status":"0","message":"","result":[{"cardStatus":"2"}]}"#;
//! assert_eq!(Reply::scan(response)?.into_status()?, CardStatus::Ct(CtStatus::Active));
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

mod request;
mod token;

use core::fmt;

pub use crate::reply::v5::{CardStatus, CtStatus, Field, Refusal, Reply, TokenReply};
pub use request::{Query, TokenRequest};
pub use token::{Token, TokenStore};

/// The path of the token.
pub const TOKEN_PATH: &str = "/v5/ec/get/token";

/// A query, or the one action, of API v5.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub enum Operation {
    /// 25S04: the card's status; [`Reply::scan`] reads it.
    SimStatus,
    /// 25M01: the card's data sessions.
    SimSession,
    /// 25M00: whether the device is switched on; field `status`.
    OnOffStatus,
    /// 25U04: the data used this month in KB; field `dataAmount`.
    DataUsage,
    /// 25U05: the short messages sent this month.
    SmsUsage,
    /// 23B01: the balance; field `amount`.
    Balance,
    /// 23S00: the card's numbers and dates; field `openDate` and others.
    BasicInfo,
    /// 25S02: why the card is out of service; field `stopReason`.
    StopReason,
    /// 25M02: resets the state of short messages. A call changes state at the carrier.
    SmsReset,
}

impl Operation {
    /// The path of its requests.
    #[must_use]
    pub const fn path(self) -> &'static str {
        match self {
            Self::SimStatus => "/v5/ec/query/sim-status",
            Self::SimSession => "/v5/ec/query/sim-session",
            Self::OnOffStatus => "/v5/ec/query/on-off-status",
            Self::DataUsage => "/v5/ec/query/sim-data-usage",
            Self::SmsUsage => "/v5/ec/query/sim-sms-usage",
            Self::Balance => "/v5/ec/query/balance-info",
            Self::BasicInfo => "/v5/ec/query/sim-basic-info",
            Self::StopReason => "/v5/ec/query/sim-stop-reason",
            Self::SmsReset => "/v5/ec/reset/sim-sms-status",
        }
    }
}

/// A secret that a request of API v5 cannot carry.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub enum SecretError {
    /// A password is 1 to 256 printable characters of ASCII, blanks included.
    Password,
    /// A token is 1 to [`Token::MAX_LEN`] printable characters of ASCII without blanks, and not `-1`.
    Token,
}

impl fmt::Display for SecretError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Password => {
                "a password of API v5 is 1 to 256 printable ASCII characters: check for a newline at its end"
            }
            Self::Token => {
                "a token of API v5 is 1 to 512 printable ASCII characters without blanks: fetch a new one"
            }
        })
    }
}

impl core::error::Error for SecretError {}
