//! What the carrier's envelope code means: its class decides whether an answer is stored, relayed or retried.
//!
//! The codes and classes are the carrier's error table for API v2. Texts drift between its releases, codes do not, so
//! nothing here looks at a text. A code that the table does not know is relayed and never stored ([`Class::Other`]).

use std::fmt;

use cmiot_signer::{Reply, ReplyError, Status};

/// The envelope code of an answer: 1-16 characters, leading zeros kept (`01016`).
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Code {
    bytes: [u8; Self::MAX_LEN],
    len: u8,
}

impl Code {
    /// The longest code that is believed to be one.
    pub const MAX_LEN: usize = 16;

    /// From text; `None` when empty, longer than [`Self::MAX_LEN`] or not of letters and digits.
    pub fn parse(text: &str) -> Option<Self> {
        let fits =
            (1..=Self::MAX_LEN).contains(&text.len()) && text.bytes().all(|b| b.is_ascii_alphanumeric());
        fits.then(|| {
            let mut bytes = [0; Self::MAX_LEN];
            bytes[..text.len()].copy_from_slice(text.as_bytes());
            // At most 16, as just checked.
            #[expect(clippy::cast_possible_truncation)]
            let len = text.len() as u8;
            Self { bytes, len }
        })
    }

    /// The code as a metric's label: one for all codes that the table does not know, since a carrier may write any.
    pub fn label(&self) -> &str {
        match Class::of(self.as_str()) {
            Class::Other => "other",
            _ => self.as_str(),
        }
    }

    /// The code as the carrier wrote it.
    pub fn as_str(&self) -> &str {
        // Only ASCII letters and digits come in through `parse`.
        std::str::from_utf8(&self.bytes[..usize::from(self.len)]).unwrap_or_default()
    }
}

impl fmt::Display for Code {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl fmt::Debug for Code {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Code({self})")
    }
}

/// What kind of answer a code makes.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Class {
    /// Code 0: the result counts.
    Ok,
    /// The account's own credentials are refused: never the gateway's fault, never relayed as it is.
    Credentials,
    /// The parameters are wrong.
    BadRequest,
    /// The card does not exist or is not the account's: stored for a short time.
    NotFound,
    /// Not computed yet: later.
    NotReady,
    /// Too many calls: wait.
    Throttled,
    /// The carrier is busy or broken inside.
    Busy,
    /// Anything else, unknown codes included.
    Other,
}

impl Class {
    /// The class of a code.
    pub fn of(code: &str) -> Self {
        match code {
            "0" => Self::Ok,
            "3" | "4" | "5" | "6" | "7" | "8" => Self::Credentials,
            "10" | "13" | "14" | "15" | "17" | "18" | "19" | "21" | "23" | "26" | "28" | "29" | "38"
            | "01016" => Self::BadRequest,
            "2" | "9" | "11" | "12" | "22" | "24" | "25" | "27" | "32" | "34" | "35" | "36" | "39" | "40"
            | "41" | "43" | "81" | "205" => Self::NotFound,
            "20" | "42" => Self::NotReady,
            "71" | "72" | "75" => Self::Throttled,
            "1" | "37" | "73" | "74" | "99" | "100" | "101" | "102" | "200" | "201" | "202" | "204"
            | "300" => Self::Busy,
            _ => Self::Other,
        }
    }

    /// Its name, for machines.
    pub fn name(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Credentials => "carrier-credentials",
            Self::BadRequest => "bad-request",
            Self::NotFound => "not-found",
            Self::NotReady => "not-ready",
            Self::Throttled => "throttled",
            Self::Busy => "busy",
            Self::Other => "other",
        }
    }

    /// Whether a stale entry that is allowed is a better answer than this one.
    pub fn yields_to_stale(self) -> bool {
        matches!(self, Self::Credentials | Self::NotReady | Self::Throttled | Self::Busy)
    }
}

/// An answer of the carrier, understood.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Verdict {
    /// The envelope code.
    pub code: Code,
    /// What it means.
    pub class: Class,
    /// `result[0].STATUS` of a success, where that is the operation's verdict.
    pub status: Option<Status>,
}

impl Verdict {
    /// Reads a body; `field` of `result[0]` is where the operation's verdict stands.
    ///
    /// # Errors
    /// [`NotAnEnvelope`] for whatever is not the carrier's answer: HTML, cut off, no status.
    pub fn read(body: &[u8], field: &str) -> Result<Self, NotAnEnvelope> {
        // Its length was bounded when it was read.
        let reply = Reply::parse_up_to(body, usize::MAX).map_err(NotAnEnvelope::Unreadable)?;
        let code = Code::parse(reply.code()).ok_or(NotAnEnvelope::Code)?;
        Ok(match Class::of(code.as_str()) {
            Class::Ok if field == STATUS && reply.status().is_some() => {
                Self { code, class: Class::Ok, status: reply.status() }
            }
            // A success that does not say what was asked is relayed, and no answer to keep: it replaces none.
            Class::Ok if field == STATUS || !Reply::has_result_field(body, field) => {
                Self { code, class: Class::Other, status: None }
            }
            class => Self { code, class, status: None },
        })
    }

    /// A verdict that was stored: its code and STATUS.
    pub fn stored(code: Code, status: Option<Status>) -> Self {
        Self { code, class: Class::of(code.as_str()), status }
    }
}

/// The field of the user-status look-up, whose values are a card's.
const STATUS: &str = "STATUS";

/// Why a body is not the carrier's answer.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum NotAnEnvelope {
    /// Not JSON, cut off, or without what an envelope has.
    #[error("{0}")]
    Unreadable(ReplyError),
    /// The status is empty, over-long or not of letters and digits.
    #[error("the envelope's status is no code")]
    Code,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_that_are_not_known_share_one_label() {
        let label = |code| Code::parse(code).unwrap().label().to_owned();
        assert_eq!(["0", "71", "01016"].map(label), ["0", "71", "01016"]);
        assert_eq!(["103", "00", "nonsense", "10006"].map(label), ["other"; 4]);
    }

    #[test]
    fn each_listed_code_has_its_class() {
        let listed = |from: u32, to: u32| (from..=to).map(|code| code.to_string());
        for code in listed(3, 8) {
            assert_eq!(Class::of(&code), Class::Credentials, "{code}");
        }
        for code in listed(17, 19).chain(listed(13, 15)).chain(["10", "38", "01016"].map(str::to_owned)) {
            assert_eq!(Class::of(&code), Class::BadRequest, "{code}");
        }
        for code in listed(34, 36).chain(listed(39, 41)).chain(["12", "205"].map(str::to_owned)) {
            assert_eq!(Class::of(&code), Class::NotFound, "{code}");
        }
        for code in listed(200, 202).chain(listed(100, 102)) {
            assert_eq!(Class::of(&code), Class::Busy, "{code}");
        }
        for code in ["103", "203", "10006", "00", "nonsense"] {
            assert_eq!(Class::of(code), Class::Other, "{code}");
        }
    }

    #[test]
    fn the_two_99s_are_different_things() {
        let envelope = Verdict::read(br#"{"status":"99","message":"x","result":[]}"#, STATUS).unwrap();
        assert_eq!((envelope.class, envelope.status), (Class::Busy, None));
        let card = Verdict::read(
            "{\"status\":\"0\",\"message\":\"正确\",\"result\":[{\"STATUS\":\"99\"}]}".as_bytes(),
            STATUS,
        )
        .unwrap();
        assert_eq!((card.class, card.status), (Class::Ok, Some(Status::NoSuchNumber)));
    }

    #[test]
    fn a_success_without_what_was_asked_is_no_answer_to_keep() {
        let class = |body: &str| Verdict::read(body.as_bytes(), "GPRSSTATUS").unwrap().class;
        assert_eq!(class(r#"{"status":"0","message":"","result":[{"GPRSSTATUS":""}]}"#), Class::Ok);
        for body in [r#"{"status":"0","result":[{"IP":"x"}]}"#, r#"{"status":"0","result":[[]]}"#] {
            assert_eq!(class(body), Class::Other, "{body}");
        }
        for body in [r#"{"status":"0","result":[]}"#, r#"{"status":"0","result":[{"X":"00"}]}"#] {
            assert_eq!(Verdict::read(body.as_bytes(), STATUS).unwrap().class, Class::Other, "{body}");
        }
    }

    #[test]
    fn sister_operations_are_read_as_tolerantly_as_the_status() {
        for body in [
            &b"{\"status\":\"0\",\"message\":\"\xd5\xfd\xc8\xb7\",\"result\":[{\"GPRSSTATUS\":\"00\"}]}"[..],
            b"\xef\xbb\xbf{\"status\":\"0\",\"result\":[{\"GPRSSTATUS\":\"00\"}]}\0\0",
            b"{\"status\":\"0\",\"message\":\"\\ud83d\",\"result\":[{\"IP\":\"\\udc00\",\"GPRSSTATUS\":\"00\"}]}",
            b"{\"status\":\"0\",\"result\":[{\"\\u0047PRSSTATUS\":null},{\"x\":1}]}",
        ] {
            let verdict = Verdict::read(body, "GPRSSTATUS").unwrap();
            assert_eq!(verdict.class, Class::Ok, "{}", String::from_utf8_lossy(body));
        }
        let other =
            br#"{"status":"0","GPRSSTATUS":"00","result":[{"a":{"GPRSSTATUS":"00"}},{"GPRSSTATUS":"00"}]}"#;
        assert_eq!(
            Verdict::read(other, "GPRSSTATUS").unwrap().class,
            Class::Other,
            "only the first result's own"
        );
    }

    #[test]
    fn what_is_not_an_envelope_is_told_apart() {
        for body in ["", "<html>502</html>", "{\"status\":\"0\",\"mess", "{}", "[]", "{\"status\":\"a b\"}"] {
            assert!(Verdict::read(body.as_bytes(), STATUS).is_err(), "{body}");
        }
    }
}
