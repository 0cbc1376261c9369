//! The carrier's answer: an envelope code, a message, and for a look-up of status the card's `STATUS`.
//!
//! ```json
//! {"status":"0","message":"正确","result":[{"STATUS":"00"}]}
//! {"status":"10","message":"请求参数不正确，请参考能力调用文档","result":[]}
//! ```
//!
//! Carrier page, "返回参数说明". Two readers make one [`Reply`]: [`Reply::parse`] with serde-json-core, behind a
//! guard that keeps its recursion and its leniency out of reach, and [`Reply::scan`] without. What both hold to:
//!
//! - At most [`Reply::MAX_LEN`] bytes and [`Reply::MAX_DEPTH`] containers deep, and strict JSON, unknown fields
//!   included. A byte-order mark, white space around and NULs behind are borne with; other trailing bytes not.
//! - The envelope code is compared decoded (`"\u0030"` is zero), may be a number, and keeps leading zeros.
//! - No message, however long, escaped or badly encoded, costs the answer: it is decoded when asked for.
//! - `result` may be missing or of any shape. Elements beyond the first are counted and skipped.
//! - A key that is read here and occurs twice is refused. Other keys may repeat.
//! - Success is code `0` *and* a result.

mod cursor;
mod decode;
#[cfg(feature = "serde")]
mod json;
mod scan;
mod walk;

use core::error::Error;
use core::fmt::{self, Write};

use crate::text::Text;
use decode::Decode;
use scan::{Field, Fields};
use walk::Value;

/// A well-formed answer, whatever it says; borrows the body for its message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Reply<'a> {
    code: Code,
    message: Message<'a>,
    status: Option<Status>,
    results: usize,
}

/// The envelope's code: 1 to 16 printable ASCII characters, as the carrier wrote them.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Code(Text<{ Code::MAX_LEN }>);

/// The envelope's message, decoded when printed. Empty when the answer had none.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Message<'a>(&'a [u8]);

/// What state a card is in: `STATUS` of operation 2002.
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
    /// Something the carrier's page does not list.
    Unknown(UnknownStatus),
}

/// A `STATUS` as it came; beyond 16 bytes it is cut.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct UnknownStatus(Text<16>);

/// Why a body is no answer. None of these is the carrier saying no: that is a [`Reply`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ReplyError {
    /// It ends too early.
    Truncated,
    /// It breaks JSON's grammar, or something follows it.
    Malformed,
    /// It does not begin as a JSON object does: an HTML page, perhaps.
    NotJson,
    /// More than [`Reply::MAX_LEN`] bytes.
    TooLong,
    /// More than [`Reply::MAX_DEPTH`] containers in one another.
    TooDeep,
    /// `status`, `message`, `result` or the first `STATUS` occurs twice.
    DuplicateKey,
    /// A JSON object whose `status` is missing or is no short text or number.
    NotEnvelope,
}

/// Why a well-formed answer holds no card's status.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refusal<'a> {
    /// The carrier said no.
    Refused {
        /// Its reason, by number.
        code: Code,
        /// Its reason, in words.
        message: Message<'a>,
    },
    /// The code is `0` and there is no result.
    NoResult,
    /// The code is `0` and the first result has no `STATUS`: the answer to another operation.
    NoStatus,
}

impl<'a> Reply<'a> {
    /// The longest body read, in bytes.
    pub const MAX_LEN: usize = 64 * 1024;

    /// How many containers may lie in one another.
    pub const MAX_DEPTH: usize = walk::MAX_DEPTH;

    /// Reads an answer with serde-json-core.
    ///
    /// # Errors
    /// When the body is no answer at all; what the carrier answered is for [`into_status`](Self::into_status).
    #[cfg(feature = "serde")]
    pub fn parse(body: &'a [u8]) -> Result<Self, ReplyError> {
        Self::parse_up_to(body, Self::MAX_LEN)
    }

    /// The same for a body of up to `most` bytes, for whoever has the memory.
    ///
    /// # Errors
    /// As `parse`.
    #[cfg(feature = "serde")]
    pub fn parse_up_to(body: &'a [u8], most: usize) -> Result<Self, ReplyError> {
        let body = walk::trim(body, most)?;
        Self::from_fields(json::collect(body)?)
    }

    /// Whether the first result of a body, which may have any length, has this field, whatever it holds: the answer to
    /// another operation than 2002. The body is read as tolerantly as a status is; `field` is ASCII.
    #[must_use]
    pub fn has_result_field(body: &[u8], field: &str) -> bool {
        walk::trim(body, usize::MAX)
            .and_then(|body| scan::has_result_field(body, field.as_bytes()))
            .unwrap_or(false)
    }

    /// Reads an answer without serde: the same reply and the same errors in a third of the flash.
    ///
    /// # Errors
    /// As `parse`.
    #[cfg(feature = "scan")]
    pub fn scan(body: &'a [u8]) -> Result<Self, ReplyError> {
        let body = walk::trim(body, Self::MAX_LEN)?;
        Self::from_fields(scan::collect(body)?)
    }

    /// The rules about values, common to both readers.
    fn from_fields(fields: Fields<'a>) -> Result<Self, ReplyError> {
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
        let status = match fields.get(Field::Status) {
            Some(Value::Text(status) | Value::Number(status)) => {
                let mut text = Text::EMPTY;
                // What does not fit is cut.
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

    /// The envelope's code, as text: `0`, `10`, `01016`.
    #[must_use]
    pub fn code(&self) -> &str {
        self.code.as_str()
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

    /// How many results there are; only the first is read.
    #[must_use]
    pub fn results(&self) -> usize {
        self.results
    }

    /// The card's status, if this is a success that states one.
    ///
    /// # Errors
    /// Says whether the carrier refused, with its reason, or what is missing.
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

    /// Whether it is the carrier's "正确": `0` and no other spelling.
    #[must_use]
    pub fn is_zero(&self) -> bool {
        matches!(self.0.as_bytes(), [b'0'])
    }

    fn from_escaped(raw: &[u8]) -> Option<Self> {
        let mut text = Text::EMPTY;
        let whole = decode_into(raw, &mut text);
        let printable = text.as_bytes().iter().all(u8::is_ascii_graphic);
        (whole && printable && !raw.is_empty()).then_some(Self(text))
    }
}

impl<'a> Message<'a> {
    /// The bytes between the quotes, as they came: escaped, and in whatever encoding.
    #[must_use]
    pub const fn raw(&self) -> &'a [u8] {
        self.0
    }

    /// Whether there is no message.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Writes the message decoded. A lone surrogate, and whatever is not UTF-8, becomes U+FFFD.
    ///
    /// # Errors
    /// What `out` says; it may have taken a part.
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

    /// The carrier's code: two digits, or whatever came if unknown.
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

    /// Its name in English, as a word of configuration: `one-way-barred`.
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
        match *text.as_bytes() {
            [b'0', b'0'] => Self::Normal,
            [b'0', b'1'] => Self::OneWayBarred,
            [b'0', b'2'] => Self::Barred,
            [b'0', b'3'] => Self::PreCancelled,
            [b'0', b'4'] => Self::Cancelled,
            [b'0', b'5'] => Self::Transferred,
            [b'0', b'6'] => Self::Dormant,
            [b'0', b'7'] => Self::AwaitingActivation,
            [b'9', b'9'] => Self::NoSuchNumber,
            _ => Self::Unknown(UnknownStatus(text)),
        }
    }
}

/// Decodes an escaped string into `text`, as far as whole characters fit; whether all did.
// Not inlined, and into a place handed in: it is called twice, and moving a text takes stack.
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
            Self::Truncated => "the answer ends too early: read on, or ask again",
            Self::Malformed => "the answer is broken JSON: ask again, and tell the operator if it stays so",
            Self::NotJson => {
                "the answer is not JSON but perhaps a web page: check the URL and proxies on the way"
            }
            Self::TooLong => "the answer is longer than 64 KiB: check the URL",
            Self::TooDeep => "the answer is nested deeper than 16: check the URL",
            Self::DuplicateKey => "the answer says something twice: do not rely on it, and tell the operator",
            Self::NotEnvelope => "the answer is JSON but has no status code: check the URL",
        })
    }
}

impl fmt::Display for Refusal<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Refused { code, message } => {
                write!(f, "the carrier refused with code {code} ({message}): see its list of error codes")
            }
            Self::NoResult => f.write_str("the carrier answered without a result: ask again later"),
            Self::NoStatus => {
                f.write_str("the result has no STATUS: check that the path is the status look-up's")
            }
        }
    }
}

impl Error for ReplyError {}
impl Error for Refusal<'_> {}
