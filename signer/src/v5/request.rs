//! The requests of API v5, as a JSON body for POST or as a query for GET.
//!
//! Every value is text. In JSON, `"` and `\` are escaped (RFC 8259, section 7); in a query, every byte that RFC 3986,
//! section 2.3, does not call unreserved is percent-encoded.

use core::fmt;

use super::{SecretError, Token};
use crate::card::{Card, Iccid};
use crate::credentials::{AppId, Password};
use crate::error::BufferTooSmall;
use crate::transid::Transid;

/// A request for a token. Its body and its query contain the password.
#[derive(Clone, Copy)]
pub struct TokenRequest<'a> {
    transid: Transid,
    /// Printable ASCII.
    password: &'a [u8],
    renew: bool,
}

/// A query, or the one action. Its body and its query contain the token.
#[derive(Clone, Copy)]
pub struct Query<'a> {
    transid: Transid,
    token: Token<'a>,
    card: &'a Card,
}

impl<'a> TokenRequest<'a> {
    /// The longest possible body, in bytes.
    pub const BODY_MAX: usize = r#"{"appid":"","password":"","transid":"","refresh":"0"}"#.len()
        + AppId::MAX_LEN
        + 2 * Password::MAX_LEN
        + Transid::MAX_LEN;

    /// The longest possible query, in bytes.
    pub const QUERY_MAX: usize = "appid=&password=&transid=&refresh=0".len()
        + AppId::MAX_LEN
        + 3 * Password::MAX_LEN
        + Transid::MAX_LEN;

    /// A request of the transid's appid.
    ///
    /// # Errors
    /// [`SecretError::Password`] when the password has a byte that is not printable ASCII.
    pub fn new(transid: Transid, password: &'a Password) -> Result<Self, SecretError> {
        Self::of(transid, password.expose())
    }

    /// A request whose password is part of the program and stays in flash; see
    /// [`Signer::with_static_password`](crate::Signer::with_static_password).
    ///
    /// # Errors
    /// [`SecretError::Password`] when the password is empty, longer than [`Password::MAX_LEN`], or has a byte that is not
    /// printable ASCII.
    pub fn with_static_password(transid: Transid, password: &'static [u8]) -> Result<Self, SecretError> {
        Password::check(password).map_err(|_| SecretError::Password)?;
        Self::of(transid, password)
    }

    fn of(transid: Transid, password: &'a [u8]) -> Result<Self, SecretError> {
        let is_text = password.iter().all(|byte| byte.is_ascii_graphic() || *byte == b' ');
        if is_text { Ok(Self { transid, password, renew: false }) } else { Err(SecretError::Password) }
    }

    /// The same request with `refresh=1`: for a carrier that returned the token that it has just refused. Otherwise
    /// `refresh` is 0, with which public clients are known to work.
    #[must_use]
    pub const fn renewing(self) -> Self {
        Self { renew: true, ..self }
    }

    /// The transid.
    #[must_use]
    pub const fn transid(&self) -> &Transid {
        &self.transid
    }

    fn fields(&self) -> [(&'static str, Value<'_>); 4] {
        [
            ("appid", Value::Text(self.transid.appid_bytes())),
            ("password", Value::Text(self.password)),
            ("transid", Value::Text(self.transid.as_bytes())),
            ("refresh", Value::Text(if self.renew { b"1" } else { b"0" })),
        ]
    }
}

impl<'a> Query<'a> {
    /// The longest possible body, in bytes.
    pub const BODY_MAX: usize =
        r#"{"transid":"","token":"","iccid":""}"#.len() + Transid::MAX_LEN + 2 * Token::MAX_LEN + Iccid::LEN;

    /// The longest possible query, in bytes.
    pub const QUERY_MAX: usize =
        "transid=&token=&iccid=".len() + Transid::MAX_LEN + 3 * Token::MAX_LEN + Iccid::LEN;

    /// A query about `card`.
    #[must_use]
    pub const fn new(transid: Transid, token: Token<'a>, card: &'a Card) -> Self {
        Self { transid, token, card }
    }

    /// The transid.
    #[must_use]
    pub const fn transid(&self) -> &Transid {
        &self.transid
    }

    fn fields(&self) -> [(&'static str, Value<'_>); 3] {
        [
            ("transid", Value::Text(self.transid.as_bytes())),
            ("token", Value::Token(self.token)),
            (self.card.kind().as_str(), Value::Text(self.card.as_bytes())),
        ]
    }
}

/// The same methods of both requests.
macro_rules! encodings {
    ($request:ty) => {
        impl $request {
            /// The length of the body in bytes, for its `Content-Length`.
            #[must_use]
            pub fn body_len(&self) -> usize {
                len(&self.fields(), Form::Json)
            }

            /// The length of the query in bytes.
            #[must_use]
            pub fn query_len(&self) -> usize {
                len(&self.fields(), Form::Query)
            }

            /// Writes the body of a POST, of type `application/json`, and returns its length.
            ///
            /// # Errors
            /// When the body does not fit; then nothing was written.
            pub fn body_into(&self, out: &mut [u8]) -> Result<usize, BufferTooSmall> {
                write(&self.fields(), Form::Json, out)
            }

            /// Writes the query of a GET, without `?`, and returns its length. A URL with it is a secret.
            ///
            /// # Errors
            /// When the query does not fit; then nothing was written.
            pub fn query_into(&self, out: &mut [u8]) -> Result<usize, BufferTooSmall> {
                write(&self.fields(), Form::Query, out)
            }
        }
    };
}

encodings!(TokenRequest<'_>);
encodings!(Query<'_>);

impl fmt::Debug for TokenRequest<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "TokenRequest({}, redacted)", self.transid)
    }
}

impl fmt::Debug for Query<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Query({}, redacted, {:?})", self.transid, self.card)
    }
}

#[derive(Clone, Copy)]
enum Form {
    Json,
    Query,
}

/// The value of a parameter: printable ASCII.
#[derive(Clone, Copy)]
enum Value<'a> {
    Text(&'a [u8]),
    Token(Token<'a>),
}

/// The place of the next byte; bytes beyond the end of `out` are counted only.
struct Writer<'o> {
    out: &'o mut [u8],
    len: usize,
    form: Form,
}

fn len(fields: &[(&str, Value<'_>)], form: Form) -> usize {
    let mut writer = Writer { out: &mut [], len: 0, form };
    writer.all(fields);
    writer.len
}

fn write(fields: &[(&str, Value<'_>)], form: Form, out: &mut [u8]) -> Result<usize, BufferTooSmall> {
    let len = len(fields, form);
    Writer { out: out.get_mut(..len).ok_or(BufferTooSmall)?, len: 0, form }.all(fields);
    Ok(len)
}

impl Writer<'_> {
    // Not inlined: both passes of every request use it.
    #[inline(never)]
    fn all(&mut self, fields: &[(&str, Value<'_>)]) {
        let (mut before, between, after): (&[u8], &[u8], &[u8]) = match self.form {
            Form::Json => (b"{\"", b"\":\"", b"\""),
            Form::Query => (b"", b"=", b""),
        };
        for (name, value) in fields {
            self.put_all(before);
            self.put_all(name.as_bytes());
            self.put_all(between);
            match value {
                Value::Text(text) => text.iter().for_each(|&byte| self.encode(byte)),
                Value::Token(token) => token.expose().for_each(|byte| self.encode(byte)),
            }
            self.put_all(after);
            before = match self.form {
                Form::Json => b",\"",
                Form::Query => b"&",
            };
        }
        if let Form::Json = self.form {
            self.put(b'}');
        }
    }

    fn encode(&mut self, byte: u8) {
        match self.form {
            Form::Json => {
                if byte == b'"' || byte == b'\\' {
                    self.put(b'\\');
                }
                self.put(byte);
            }
            Form::Query => {
                if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
                    self.put(byte);
                } else {
                    self.put_all(&[b'%', hex(byte >> 4), hex(byte & 15)]);
                }
            }
        }
    }

    fn put_all(&mut self, bytes: &[u8]) {
        bytes.iter().for_each(|&byte| self.put(byte));
    }

    fn put(&mut self, byte: u8) {
        if let Some(slot) = self.out.get_mut(self.len) {
            *slot = byte;
        }
        self.len = self.len.wrapping_add(1);
    }
}

/// The digit of a number below 16, in upper case (RFC 3986, section 2.1).
fn hex(number: u8) -> u8 {
    if number < 10 { b'0' + number } else { b'A' - 10 + number }
}

#[cfg(test)]
mod tests {
    extern crate std;
    use std::format;
    use std::string::String;

    use super::*;
    use crate::card::CardKind;
    use crate::sequence::Sequence;
    use crate::stamp::Stamp;

    fn transid() -> Transid {
        Transid::parse("2000012014101615303080000001").unwrap()
    }

    fn text(len: usize, write: impl FnOnce(&mut [u8]) -> Result<usize, BufferTooSmall>) -> String {
        let mut buffer = [0; 4096];
        assert_eq!(write(&mut buffer), Ok(len));
        String::from_utf8(buffer.get(..len).unwrap().into()).unwrap()
    }

    #[test]
    fn a_token_is_requested_by_post_and_get() {
        let password = Password::new(b"example-password").unwrap();
        let request = TokenRequest::new(transid(), &password).unwrap();
        assert_eq!(
            text(request.body_len(), |out| request.body_into(out)),
            r#"{"appid":"200001","password":"example-password","transid":"2000012014101615303080000001","refresh":"0"}"#
        );
        assert_eq!(
            text(request.query_len(), |out| request.renewing().query_into(out)),
            "appid=200001&password=example-password&transid=2000012014101615303080000001&refresh=1"
        );
    }

    #[test]
    fn a_query_names_token_and_card() {
        let card = Card::parse(CardKind::Iccid, "898602c99816c0445401").unwrap();
        let query = Query::new(transid(), Token::parse(b"example-token").unwrap(), &card);
        assert_eq!(
            text(query.body_len(), |out| query.body_into(out)),
            r#"{"transid":"2000012014101615303080000001","token":"example-token","iccid":"898602C99816C0445401"}"#
        );
        assert_eq!(
            text(query.query_len(), |out| query.query_into(out)),
            "transid=2000012014101615303080000001&token=example-token&iccid=898602C99816C0445401"
        );
    }

    #[test]
    fn special_characters_are_escaped() {
        let request = TokenRequest::with_static_password(transid(), br#" "\+&=%~"#).unwrap();
        let body = text(request.body_len(), |out| request.body_into(out));
        assert!(body.contains(r#""password":" \"\\+&=%~","#), "{body}");
        let query = text(request.query_len(), |out| request.query_into(out));
        assert!(query.contains("password=%20%22%5C%2B%26%3D%25~&"), "{query}");
    }

    #[test]
    fn the_constants_are_the_longest_texts_and_a_buffer_gets_all_or_nothing() {
        let appid = AppId::parse(&"A".repeat(AppId::MAX_LEN)).unwrap();
        let transid = Transid::new(&appid, Stamp::LAST, Sequence::LAST);
        let request = TokenRequest::with_static_password(transid, &[b'"'; Password::MAX_LEN]).unwrap();
        let token = [b'"'; Token::MAX_LEN];
        let card = Card::parse(CardKind::Iccid, "898602C99816C0445401").unwrap();
        let query = Query::new(transid, Token::parse(&token).unwrap(), &card);
        assert_eq!(
            (request.body_len(), request.query_len()),
            (TokenRequest::BODY_MAX, TokenRequest::QUERY_MAX)
        );
        assert_eq!((query.body_len(), query.query_len()), (Query::BODY_MAX, Query::QUERY_MAX));

        let mut short = [b'.'; Query::BODY_MAX - 1];
        assert_eq!(query.body_into(&mut short), Err(BufferTooSmall));
        assert!(short.iter().all(|&byte| byte == b'.'));
    }

    #[test]
    fn a_password_that_is_no_text_is_refused() {
        for wrong in [b"".as_slice(), b"a\n", "é".as_bytes(), b"\x7f", &[b'a'; Password::MAX_LEN + 1]] {
            let wrong = std::boxed::Box::leak(std::boxed::Box::<[u8]>::from(wrong));
            let request = TokenRequest::with_static_password(transid(), wrong);
            assert_eq!(request.err(), Some(SecretError::Password), "{wrong:?}");
        }
        let password = Password::new(b"a\n").unwrap();
        assert_eq!(TokenRequest::new(transid(), &password).err(), Some(SecretError::Password));
    }

    #[test]
    fn debug_hides_password_token_and_card() {
        let card = Card::parse(CardKind::Msisdn, "14765004176").unwrap();
        let request = TokenRequest::with_static_password(transid(), b"example-password").unwrap();
        let query = Query::new(transid(), Token::parse(b"example-token").unwrap(), &card);
        let text = format!("{request:?} {query:?}");
        for secret in ["example-password", "example-token", "14765004176"] {
            assert!(!text.contains(secret), "{text}");
        }
    }
}
