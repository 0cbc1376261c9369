//! The replies of API v5: the envelope of v2, with other fields in its result.
//!
//! ```json
//! {"status":"0","message":"正确","result":[{"token":"…","ttl":"3600"}]}
//! {"status":"0","message":"正确","result":[{"cardStatus":"2","lastChangeDate":"…"}]}
//! {"status":"12021","message":"…","result":[]}
//! ```
//!
//! The rules of [`Reply`](crate::Reply) hold here, too. Only fields of the first result are read.

mod collect;

use core::fmt::{self, Write};

use super::decode::Decode;
use super::walk::Value;
use super::{Code, Message, ReplyError, Status, UnknownStatus, decode_into};
use crate::text::Text;
use crate::v5::Token;
use collect::collect;

/// The code of an expired or unknown token.
const TOKEN_EXPIRED: &str = "12021";

/// The ttl of a token whose reply states none, and the longest that is believed: one hour, in seconds.
const TTL: u32 = 3600;

/// A well-formed reply to a query, with any code; it borrows the body.
#[derive(Clone, Copy, Debug)]
pub struct Reply<'a> {
    code: Code,
    message: Message<'a>,
    field: Option<Field<'a>>,
    results: usize,
}

/// A well-formed reply to a request for a token, with any code; it borrows the body. `Debug` hides the token.
#[derive(Clone, Copy, Debug)]
pub struct TokenReply<'a> {
    code: Code,
    message: Message<'a>,
    token: Option<Token<'a>>,
    ttl: Option<u32>,
    results: usize,
}

/// A text or a number of a result, decoded when printed. `Debug` hides it, since it may be a card's number.
#[derive(Clone, Copy)]
pub struct Field<'a> {
    escaped: &'a [u8],
    is_number: bool,
}

/// The state of a card: `cardStatus` of 25S04.
///
/// The carrier's two platforms write it in two alphabets, which would collide as numbers: `02` is stopped and `2` is
/// active. Therefore it is never a number here, and a `cardStatus` that a reply has as a JSON number, from which a zero
/// may have been lost, is unknown.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum CardStatus {
    /// A status of the older platform (PB): two characters, as `STATUS` of v2. Never [`Status::Unknown`].
    Pb(Status),
    /// A status of the newer platform (CT): one character.
    Ct(CtStatus),
    /// A value that neither table has, as received, truncated to 16 bytes.
    Unknown(UnknownStatus),
}

/// A status of the newer platform (CT).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub enum CtStatus {
    /// `1` 待激活
    AwaitingActivation,
    /// `2` 已激活
    Active,
    /// `4` 停机, in one direction or both
    Barred,
    /// `6` 可测试
    Testing,
    /// `7` 库存
    InStock,
    /// `8` 预销户
    PreCancelled,
    /// `9` 已销户
    Cancelled,
}

/// The reason why a well-formed reply does not contain what was asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refusal<'a> {
    /// The token is expired or unknown (12021): fetch one, and repeat the query once, with a new transid.
    TokenExpired,
    /// The carrier refused the request.
    Refused {
        /// The envelope code.
        code: Code,
        /// The envelope's message.
        message: Message<'a>,
    },
    /// The code is `0`, but there is no result.
    NoResult,
    /// The code is `0`, but the first result has no valid token.
    NoToken,
    /// The code is `0`, but the first result has no `cardStatus`: a reply to another query.
    NoStatus,
    /// The code is `0`, but the first result has no text or number of the name that was asked for.
    NoField,
}

impl<'a> Reply<'a> {
    /// Reads a reply to 25S04, with its `cardStatus`.
    ///
    /// # Errors
    /// When the body is not a reply. A refusal by the carrier is not an error; [`into_status`](Self::into_status)
    /// returns it.
    pub fn scan(body: &'a [u8]) -> Result<Self, ReplyError> {
        Self::scan_field(body, "cardStatus")
    }

    /// Reads a reply to any query, with the text or number that the first result has under this name, such as
    /// `dataAmount`; `field` is ASCII.
    ///
    /// # Errors
    /// As [`scan`](Self::scan).
    pub fn scan_field(body: &'a [u8], field: impl AsRef<[u8]>) -> Result<Self, ReplyError> {
        let found = collect(body, [field.as_ref(), b""])?;
        let (code, message) = found.envelope()?;
        let [field, _] = found.fields;
        Ok(Self { code, message, field: field.and_then(Field::of), results: found.results })
    }

    /// The envelope code, as text.
    #[must_use]
    pub fn code(&self) -> &str {
        self.code.as_str()
    }

    /// The message; empty when there is none.
    #[must_use]
    pub fn message(&self) -> Message<'a> {
        self.message
    }

    /// The number of results; only the first is read.
    #[must_use]
    pub fn results(&self) -> usize {
        self.results
    }

    /// Whether the code says that the token is expired or unknown (12021).
    #[must_use]
    pub fn is_token_expired(&self) -> bool {
        is_expired(&self.code)
    }

    /// The field that was read; `None` if the first result has none, or has neither text nor number there.
    #[must_use]
    pub fn field(&self) -> Option<Field<'a>> {
        self.field
    }

    /// The field as `cardStatus`.
    #[must_use]
    pub fn status(&self) -> Option<CardStatus> {
        self.field.map(CardStatus::of)
    }

    /// The field of a success.
    ///
    /// # Errors
    /// When the carrier refused the query, or when the result or the field is missing.
    pub fn into_field(self) -> Result<Field<'a>, Refusal<'a>> {
        refusal(self.code, self.message, self.results)?;
        self.field.ok_or(Refusal::NoField)
    }

    /// The card's status, for a reply that [`scan`](Self::scan) read.
    ///
    /// # Errors
    /// When the carrier refused the query, or when the result or its `cardStatus` is missing.
    pub fn into_status(self) -> Result<CardStatus, Refusal<'a>> {
        refusal(self.code, self.message, self.results)?;
        self.status().ok_or(Refusal::NoStatus)
    }
}

impl<'a> TokenReply<'a> {
    /// Reads a reply to a request for a token.
    ///
    /// # Errors
    /// When the body is not a reply. A refusal by the carrier is not an error; [`into_token`](Self::into_token) returns
    /// it.
    pub fn scan(body: &'a [u8]) -> Result<Self, ReplyError> {
        let found = collect(body, [b"token", b"ttl"])?;
        let (code, message) = found.envelope()?;
        let [token, ttl] = found.fields;
        let token = match token {
            Some(Value::Text(escaped)) => Token::from_escaped(escaped),
            _ => None,
        };
        let ttl = ttl.and_then(Field::of).and_then(Field::seconds);
        Ok(Self { code, message, token, ttl, results: found.results })
    }

    /// The envelope code, as text.
    #[must_use]
    pub fn code(&self) -> &str {
        self.code.as_str()
    }

    /// The message; empty when there is none.
    #[must_use]
    pub fn message(&self) -> Message<'a> {
        self.message
    }

    /// The seconds that the token has left, as the reply states them, in a text or a number; `None` if it states none,
    /// or something else than whole seconds.
    #[must_use]
    pub fn ttl(&self) -> Option<u32> {
        self.ttl
    }

    /// The seconds from now after which to fetch the next token: the ttl without a margin of a tenth, or of a minute if
    /// that is more, but at least half of the ttl. A ttl that is missing, wrong or 0 counts as an hour, so that it does
    /// not cause fetches in a loop, and so does a longer one.
    #[must_use]
    pub fn renew_after(&self) -> u32 {
        let ttl = self.ttl.filter(|&ttl| ttl > 0).unwrap_or(TTL).min(TTL);
        let margin = (ttl / 10).max(60).min(ttl / 2);
        ttl.saturating_sub(margin)
    }

    /// The token.
    ///
    /// # Errors
    /// When the carrier refused the request, or when the result or a valid token is missing.
    pub fn into_token(self) -> Result<Token<'a>, Refusal<'a>> {
        refusal(self.code, self.message, self.results)?;
        self.token.ok_or(Refusal::NoToken)
    }
}

impl<'a> Field<'a> {
    fn of(value: Value<'a>) -> Option<Self> {
        match value {
            Value::Text(escaped) => Some(Self { escaped, is_number: false }),
            Value::Number(escaped) => Some(Self { escaped, is_number: true }),
            _ => None,
        }
    }

    /// Whether the reply has it as a JSON number.
    #[must_use]
    pub const fn is_number(&self) -> bool {
        self.is_number
    }

    /// The characters between the quotes, or of the number, as received: escaped, in any encoding.
    #[must_use]
    pub const fn raw(&self) -> &'a [u8] {
        self.escaped
    }

    /// Writes the field decoded. A lone surrogate, and every byte that is not UTF-8, becomes U+FFFD.
    ///
    /// # Errors
    /// The error of `out`, which may have received a part.
    pub fn write_to(&self, out: &mut impl Write) -> fmt::Result {
        Decode::new(self.escaped).try_for_each(|c| out.write_char(c))
    }

    /// Whole seconds: digits only.
    fn seconds(self) -> Option<u32> {
        let mut seconds = None;
        for c in Decode::new(self.escaped) {
            let digit = c.to_digit(10)?;
            seconds = Some(seconds.unwrap_or(0_u32).checked_mul(10)?.checked_add(digit)?);
        }
        seconds
    }
}

impl fmt::Display for Field<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.write_to(f)
    }
}

impl fmt::Debug for Field<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Field(hidden)")
    }
}

impl CardStatus {
    /// The status of a code as received, such as `02` or `2`.
    #[must_use]
    pub fn from_code(code: &str) -> Self {
        match Status::from_code(code) {
            Status::Unknown(text) => Self::from_unknown(text),
            known => Self::Pb(known),
        }
    }

    fn of(field: Field<'_>) -> Self {
        let mut text = Text::EMPTY;
        // A text that does not fit is truncated.
        decode_into(field.escaped, &mut text);
        match (field.is_number, Status::from_text(text)) {
            (true, _) => Self::Unknown(UnknownStatus(text)),
            (false, Status::Unknown(text)) => Self::from_unknown(text),
            (false, known) => Self::Pb(known),
        }
    }

    fn from_unknown(text: UnknownStatus) -> Self {
        CtStatus::known(text.0.as_bytes()).map_or(Self::Unknown(text), Self::Ct)
    }

    /// The carrier's code, as received.
    #[must_use]
    pub fn code(&self) -> &str {
        match self {
            Self::Pb(status) => status.code(),
            Self::Ct(status) => status.code(),
            Self::Unknown(unknown) => unknown.as_str(),
        }
    }

    /// [`code`](Self::code) as bytes, without the cost of proving that they are UTF-8.
    #[must_use]
    pub fn code_bytes(&self) -> &[u8] {
        match self {
            Self::Pb(status) => status.code_bytes(),
            Self::Ct(status) => status.code().as_bytes(),
            Self::Unknown(unknown) => unknown.0.as_bytes(),
        }
    }

    /// The `STATUS` of v2 with the same meaning: of CT, `1` is 07, `2` is 00, `4` is 02, `8` is 03 and `9` is 04.
    /// `None` for CT's `6` and `7`, which v2 does not have, and for an unknown status.
    #[must_use]
    pub const fn as_v2(&self) -> Option<Status> {
        match self {
            Self::Pb(status) => Some(*status),
            Self::Ct(CtStatus::AwaitingActivation) => Some(Status::AwaitingActivation),
            Self::Ct(CtStatus::Active) => Some(Status::Normal),
            Self::Ct(CtStatus::Barred) => Some(Status::Barred),
            Self::Ct(CtStatus::PreCancelled) => Some(Status::PreCancelled),
            Self::Ct(CtStatus::Cancelled) => Some(Status::Cancelled),
            Self::Ct(CtStatus::Testing | CtStatus::InStock) | Self::Unknown(_) => None,
        }
    }
}

impl CtStatus {
    /// The carrier's code: one character.
    #[must_use]
    pub const fn code(&self) -> &'static str {
        match self {
            Self::AwaitingActivation => "1",
            Self::Active => "2",
            Self::Barred => "4",
            Self::Testing => "6",
            Self::InStock => "7",
            Self::PreCancelled => "8",
            Self::Cancelled => "9",
        }
    }

    fn known(code: &[u8]) -> Option<Self> {
        Some(match code {
            b"1" => Self::AwaitingActivation,
            b"2" => Self::Active,
            b"4" => Self::Barred,
            b"6" => Self::Testing,
            b"7" => Self::InStock,
            b"8" => Self::PreCancelled,
            b"9" => Self::Cancelled,
            _ => return None,
        })
    }
}

impl fmt::Display for Refusal<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::TokenExpired => {
                f.write_str("the token is expired or unknown: fetch one, and repeat the query once")
            }
            Self::Refused { code, message } => {
                write!(f, "the carrier refused with code {code} ({message}): see its list of error codes")
            }
            Self::NoResult => f.write_str("the carrier replied without a result: retry later"),
            Self::NoField => f.write_str("the result has no field of this name: check the path and the name"),
            Self::NoToken => {
                f.write_str("the result has no valid token: check that the path is that of the token")
            }
            Self::NoStatus => {
                f.write_str("the result has no cardStatus: check that the path is that of the status query")
            }
        }
    }
}

impl core::error::Error for Refusal<'_> {}

/// The bytes of an escaped text; a character beyond U+00FF becomes 0.
pub(crate) struct Unescape<'a>(Decode<'a>);

impl<'a> Unescape<'a> {
    pub(crate) fn new(escaped: &'a [u8]) -> Self {
        Self(Decode::new(escaped))
    }
}

impl Iterator for Unescape<'_> {
    type Item = u8;

    fn next(&mut self) -> Option<u8> {
        self.0.next().map(|c| u8::try_from(u32::from(c)).unwrap_or_default())
    }
}

fn is_expired(code: &Code) -> bool {
    code.0.as_bytes() == TOKEN_EXPIRED.as_bytes()
}

/// The refusal of a reply that is no success with a result.
fn refusal<'a>(code: Code, message: Message<'a>, results: usize) -> Result<(), Refusal<'a>> {
    if is_expired(&code) {
        Err(Refusal::TokenExpired)
    } else if !code.is_zero() {
        Err(Refusal::Refused { code, message })
    } else if results == 0 {
        Err(Refusal::NoResult)
    } else {
        Ok(())
    }
}
