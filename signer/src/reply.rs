//! The carrier's reply: an envelope code, a message, and for a status lookup the card's `STATUS`.
//!
//! ```json
//! {"status":"0","message":"正确","result":[{"STATUS":"00"}]}
//! {"status":"10","message":"请求参数不正确，请参考能力调用文档","result":[]}
//! ```
//!
//! Carrier page, "返回参数说明". Two readers produce the same [`Reply`]: [`Reply::parse`] uses serde-json-core, after
//! a strict parser that excludes its recursion and its leniency; [`Reply::scan`] does not. The rules of both:
//!
//! - At most [`Reply::MAX_LEN`] bytes, at most [`Reply::MAX_DEPTH`] nested containers, and strict JSON, unknown fields
//!   included. A byte-order mark, surrounding white space and trailing NULs are accepted; other trailing bytes are not.
//! - The envelope code is compared decoded (`"\u0030"` is zero), may be a number, and keeps leading zeros.
//! - A long, escaped or badly encoded message is no error: it is decoded on demand. A body that is not JSON in UTF-8 is
//!   read as GBK.
//! - `result` may be missing or of any type. Elements after the first are counted and skipped.
//! - A duplicate of a key that is read here is an error. Other keys may repeat.
//! - Success is code `0` *and* a result.

mod cursor;
mod decode;
#[cfg(feature = "serde")]
mod json;
mod scan;
#[cfg(feature = "v5")]
pub(crate) mod v5;
mod walk;

use core::error::Error;
use core::fmt::{self, Write};
#[cfg(feature = "scan")]
use core::mem::MaybeUninit;

use crate::text::Text;
use decode::Decode;
use scan::{Field, Fields};
use walk::Value;

/// A well-formed reply with any code; it borrows the body for its message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Reply<'a> {
    code: Code,
    message: Message<'a>,
    status: Option<Status>,
    results: usize,
}

/// The envelope code: 1 to 16 printable ASCII characters, as the carrier wrote them.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Code(Text<{ Code::MAX_LEN }>);

/// The envelope's message, decoded when printed. Empty when the reply has none.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Message<'a>(&'a [u8]);

/// The state of a card: `STATUS` of operation 2002.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Status {
    /// `00` 正常
    Normal,
    /// `01` 单向停机
    OneWayBarred,
    /// `02` 停机
    Barred,
    /// `03` 预销号
    PreCancelled,
    /// `04` 销号
    Cancelled,
    /// `05` 过户
    Transferred,
    /// `06` 休眠
    Dormant,
    /// `07` 待激
    AwaitingActivation,
    /// `99` 号码不存在
    NoSuchNumber,
    /// A status that the carrier's page does not list.
    Unknown(UnknownStatus),
}

/// A `STATUS` as received, truncated to 16 bytes.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct UnknownStatus(Text<16>);

/// The reason why a body is not a reply. A refusal by the carrier is not an error: it is a [`Reply`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub enum ReplyError {
    /// It ends too early.
    Truncated,
    /// It is not valid JSON, or other bytes follow it.
    Malformed,
    /// It does not begin with a JSON object: an HTML page, perhaps.
    NotJson,
    /// More than [`Reply::MAX_LEN`] bytes.
    TooLong,
    /// More than [`Reply::MAX_DEPTH`] nested containers.
    TooDeep,
    /// `status`, `message`, `result` or the first `STATUS` occurs twice.
    DuplicateKey,
    /// A JSON object whose `status` is missing, too long, or neither text nor number.
    NotEnvelope,
}

/// The reason why a well-formed reply contains no card status.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refusal<'a> {
    /// The carrier refused the lookup.
    Refused {
        /// The envelope code.
        code: Code,
        /// The envelope's message.
        message: Message<'a>,
    },
    /// The code is `0`, but there is no result.
    NoResult,
    /// The code is `0`, but the first result has no `STATUS`: a reply to another operation.
    NoStatus,
}

impl<'a> Reply<'a> {
    /// The longest body read, in bytes.
    pub const MAX_LEN: usize = 64 * 1024;

    /// The most containers that may be nested.
    pub const MAX_DEPTH: usize = walk::MAX_DEPTH;

    /// Reads a reply with serde-json-core.
    ///
    /// # Errors
    /// When the body is not a reply. A refusal by the carrier is not an error; [`into_status`](Self::into_status)
    /// returns it.
    #[cfg(feature = "serde")]
    pub fn parse(body: &'a [u8]) -> Result<Self, ReplyError> {
        Self::parse_up_to(body, Self::MAX_LEN)
    }

    /// [`parse`](Self::parse) of a body of up to `most` bytes, for callers that have the memory.
    ///
    /// # Errors
    /// As `parse`.
    #[cfg(feature = "serde")]
    pub fn parse_up_to(body: &'a [u8], most: usize) -> Result<Self, ReplyError> {
        let body = walk::trim(body, most)?;
        Self::from_fields(json::collect(body)?)
    }

    /// Whether the first result of a body has this field, with a value other than blank text: for replies to operations
    /// other than 2002. White space and control, format and zero-width characters are blank.
    /// The body may have any length and is read as tolerantly as by [`parse`](Self::parse); `field` is ASCII.
    #[must_use]
    pub fn has_result_field(body: &[u8], field: &str) -> bool {
        walk::trim(body, usize::MAX)
            .and_then(|body| scan::has_result_field(body, field.as_bytes()))
            .unwrap_or(false)
    }

    /// Reads a reply without serde: the same reply and the same errors in a third of the flash.
    ///
    /// # Errors
    /// As `parse`.
    #[cfg(feature = "scan")]
    pub fn scan(body: &'a [u8]) -> Result<Self, ReplyError> {
        Self::from_fields(scan::collect(walk::trim(body, Self::MAX_LEN)?)?)
    }

    /// [`scan`](Self::scan) in place, without a copy on the stack.
    ///
    /// # Errors
    /// As [`scan`](Self::scan); then `place` contains no valid reply.
    #[cfg(feature = "scan")]
    pub fn scan_into<'p>(body: &'a [u8], place: &'p mut MaybeUninit<Self>) -> Result<&'p Self, ReplyError> {
        let fields = scan::collect(walk::trim(body, Self::MAX_LEN)?)?;
        let (code, message) = envelope(&fields)?;
        let reply = place.write(Self {
            code: Code(Text::EMPTY),
            message: Message(message),
            status: None,
            results: fields.results,
        });
        if !reply.code.fill(code) {
            return Err(ReplyError::NotEnvelope);
        }
        if let Some(Value::Text(escaped) | Value::Number(escaped)) = fields.get(Field::Status) {
            let status = reply.status.insert(Status::Unknown(UnknownStatus(Text::EMPTY)));
            if let Status::Unknown(UnknownStatus(text)) = status {
                decode_into(escaped, text);
                if let Some(known) = Status::known(text.as_bytes()) {
                    *status = known;
                }
            }
        }
        Ok(reply)
    }

    /// Checks the values; both readers use it.
    fn from_fields(fields: Fields<'a>) -> Result<Self, ReplyError> {
        let (code, message) = envelope(&fields)?;
        let status = match fields.get(Field::Status) {
            Some(Value::Text(status) | Value::Number(status)) => {
                let mut text = Text::EMPTY;
                // A text that does not fit is truncated.
                decode_into(status, &mut text);
                Some(Status::from_text(text))
            }
            _ => None,
        };
        Ok(Self {
            code: Code::from_escaped(code).ok_or(ReplyError::NotEnvelope)?,
            message: Message(message),
            status,
            results: fields.results,
        })
    }

    /// The envelope code, as text: `0`, `10`, `01016`.
    #[must_use]
    pub fn code(&self) -> &str {
        self.code.as_str()
    }

    /// The envelope code as bytes, without the cost of proving that they are UTF-8.
    #[must_use]
    pub fn code_bytes(&self) -> &[u8] {
        self.code.0.as_bytes()
    }

    /// Whether the code is `0` and there is a result.
    #[must_use]
    pub fn is_ok(&self) -> bool {
        self.code.is_zero() && self.results > 0
    }

    /// The message; empty when there is none.
    #[must_use]
    pub fn message(&self) -> Message<'a> {
        self.message
    }

    /// `STATUS` of the first result; `None` if it has none.
    #[must_use]
    pub fn status(&self) -> Option<Status> {
        self.status
    }

    /// The number of results; only the first is read.
    #[must_use]
    pub fn results(&self) -> usize {
        self.results
    }

    /// The card's status.
    ///
    /// # Errors
    /// When the carrier refused the lookup, or when the result or its `STATUS` is missing.
    pub fn into_status(self) -> Result<Status, Refusal<'a>> {
        if !self.code.is_zero() {
            return Err(Refusal::Refused { code: self.code, message: self.message });
        }
        if self.results == 0 {
            return Err(Refusal::NoResult);
        }
        self.status.ok_or(Refusal::NoStatus)
    }
}

impl Code {
    /// The longest code accepted, in characters. The longest seen has nine.
    pub const MAX_LEN: usize = 16;

    /// The characters.
    #[must_use]
    pub fn as_str(&self) -> &str {
        self.0.as_str()
    }

    /// Whether it is the code for success ("正确"): `0` and no other spelling.
    #[must_use]
    pub fn is_zero(&self) -> bool {
        matches!(self.0.as_bytes(), [b'0'])
    }

    fn from_escaped(raw: &[u8]) -> Option<Self> {
        let mut code = Self(Text::EMPTY);
        code.fill(raw).then_some(code)
    }

    /// Decodes a code into this empty one; returns whether it is valid.
    fn fill(&mut self, raw: &[u8]) -> bool {
        let whole = decode_into(raw, &mut self.0);
        whole && self.0.as_bytes().iter().all(u8::is_ascii_graphic) && !raw.is_empty()
    }
}

impl<'a> Message<'a> {
    /// The bytes between the quotes, as received: escaped, in any encoding.
    #[must_use]
    pub const fn raw(&self) -> &'a [u8] {
        self.0
    }

    /// Whether there is no message.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Writes the message decoded. A lone surrogate, and every byte that is not UTF-8, becomes U+FFFD.
    ///
    /// # Errors
    /// The error of `out`, which may have received a part.
    pub fn write_to(&self, out: &mut impl Write) -> fmt::Result {
        Decode::new(self.0).try_for_each(|c| out.write_char(c))
    }
}

impl Status {
    /// The status of a code, such as `00`.
    #[must_use]
    pub fn from_code(code: &str) -> Self {
        let mut text = Text::EMPTY;
        // Stops at the first character that does not fit.
        let _ = code.chars().all(|c| text.push(c.encode_utf8(&mut [0; 4]).as_bytes()));
        Self::from_text(text)
    }

    /// The carrier's code: two digits, or an unknown text as received.
    #[must_use]
    pub fn code(&self) -> &str {
        match self {
            Self::Normal => "00",
            Self::OneWayBarred => "01",
            Self::Barred => "02",
            Self::PreCancelled => "03",
            Self::Cancelled => "04",
            Self::Transferred => "05",
            Self::Dormant => "06",
            Self::AwaitingActivation => "07",
            Self::NoSuchNumber => "99",
            Self::Unknown(unknown) => unknown.as_str(),
        }
    }

    /// [`code`](Self::code) as bytes, without the cost of proving that they are UTF-8.
    #[must_use]
    pub fn code_bytes(&self) -> &[u8] {
        match self {
            Self::Unknown(unknown) => unknown.0.as_bytes(),
            known => known.code().as_bytes(),
        }
    }

    /// The status's name in configuration files: `one-way-barred`.
    #[must_use]
    pub const fn as_str(&self) -> &'static str {
        match self {
            Self::Normal => "normal",
            Self::OneWayBarred => "one-way-barred",
            Self::Barred => "barred",
            Self::PreCancelled => "pre-cancelled",
            Self::Cancelled => "cancelled",
            Self::Transferred => "transferred",
            Self::Dormant => "dormant",
            Self::AwaitingActivation => "awaiting-activation",
            Self::NoSuchNumber => "no-such-number",
            Self::Unknown(_) => "unknown",
        }
    }

    fn from_text(text: Text<16>) -> Self {
        Self::known(text.as_bytes()).unwrap_or(Self::Unknown(UnknownStatus(text)))
    }

    /// The status that the carrier's page lists under this code.
    fn known(code: &[u8]) -> Option<Self> {
        Some(match code {
            [b'0', b'0'] => Self::Normal,
            [b'0', b'1'] => Self::OneWayBarred,
            [b'0', b'2'] => Self::Barred,
            [b'0', b'3'] => Self::PreCancelled,
            [b'0', b'4'] => Self::Cancelled,
            [b'0', b'5'] => Self::Transferred,
            [b'0', b'6'] => Self::Dormant,
            [b'0', b'7'] => Self::AwaitingActivation,
            [b'9', b'9'] => Self::NoSuchNumber,
            _ => return None,
        })
    }
}

/// The envelope's code and message, still escaped.
fn envelope<'a>(fields: &Fields<'a>) -> Result<(&'a [u8], &'a [u8]), ReplyError> {
    if fields.duplicate {
        return Err(ReplyError::DuplicateKey);
    }
    let (Some(Value::Text(code)) | Some(Value::Number(code))) = fields.get(Field::Code) else {
        return Err(ReplyError::NotEnvelope);
    };
    let message = match fields.get(Field::Message) {
        Some(Value::Text(message)) => message,
        _ => b"",
    };
    Ok((code, message))
}

/// Decodes an escaped string into `text`, as far as whole characters fit; returns whether all of them did.
// Not inlined, and into the caller's variable: it is called twice, and moving a text takes stack.
#[inline(never)]
fn decode_into(escaped: &[u8], text: &mut Text<16>) -> bool {
    Decode::new(escaped).all(|c| text.push(c.encode_utf8(&mut [0; 4]).as_bytes()))
}

impl UnknownStatus {
    /// The characters.
    #[must_use]
    pub fn as_str(&self) -> &str {
        self.0.as_str()
    }
}

impl fmt::Display for Code {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

impl fmt::Debug for Code {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Code({})", self.as_str())
    }
}

impl fmt::Display for Message<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.write_to(f)
    }
}

impl fmt::Debug for Message<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_char('"')?;
        Decode::new(self.0).flat_map(char::escape_debug).try_for_each(|c| f.write_char(c))?;
        f.write_char('"')
    }
}

impl fmt::Debug for UnknownStatus {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self.as_str(), f)
    }
}

impl fmt::Display for ReplyError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Truncated => "the reply ends too early: read on, or retry",
            Self::Malformed => {
                "the reply is not valid JSON: retry, and inform the operator if it happens again"
            }
            Self::NotJson => {
                "the reply is not JSON but perhaps a web page: check the URL and the proxies on the path"
            }
            Self::TooLong => "the reply is longer than 64 KiB: check the URL",
            Self::TooDeep => "the reply is nested deeper than 16: check the URL",
            Self::DuplicateKey => "the reply has a duplicate key: do not rely on it, and inform the operator",
            Self::NotEnvelope => "the reply is JSON but has no status code: check the URL",
        })
    }
}

impl fmt::Display for Refusal<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Refused { code, message } => {
                write!(f, "the carrier refused with code {code} ({message}): see its list of error codes")
            }
            Self::NoResult => f.write_str("the carrier replied without a result: retry later"),
            Self::NoStatus => {
                f.write_str("the result has no STATUS: check that the path is that of the status lookup")
            }
        }
    }
}

#[cfg(feature = "defmt")]
impl defmt::Format for Code {
    fn format(&self, f: defmt::Formatter<'_>) {
        defmt::write!(f, "{=str}", self.as_str());
    }
}

#[cfg(feature = "defmt")]
impl defmt::Format for Status {
    fn format(&self, f: defmt::Formatter<'_>) {
        defmt::write!(f, "{=str}", self.as_str());
    }
}

impl Error for ReplyError {}
impl Error for Refusal<'_> {}
