//! The look-up that goes out: who signs, and the query with its five parameters.
//!
//! Carrier page, "API请求URL示例": `appid`, `transid`, `ebid`, `token` and exactly one of `msisdn`, `iccid`,
//! `imsi`; this is the order written here. The checked types hold nothing that a query would have to
//! percent-encode; paths and base URLs are the caller's, and encoded where they must be.

use core::fmt::{self, Write};

use crate::card::Card;
use crate::credentials::{AppId, Ebid, Password};
use crate::error::{BufferTooSmall, CredentialError};
use crate::sequence::Sequence;
use crate::stamp::Stamp;
use crate::text::copy;
use crate::token::{Token, write_token};
use crate::transid::{self, TAIL_LEN, Transid};

/// The path of operation 2002, the status of a card. Sister look-ups share the signature under other paths.
pub const PATH: &str = "/v2/userstatusrealsingle";

/// The longest possible query, in bytes.
pub const QUERY_MAX: usize = "appid=&transid=&ebid=&token=&iccid=".len()
    + AppId::MAX_LEN
    + Transid::MAX_LEN
    + Ebid::MAX_LEN
    + Token::LEN
    + crate::card::Iccid::LEN;

/// The longest possible request target with [`PATH`], in bytes.
pub const TARGET_MAX: usize = PATH.len() + 1 + QUERY_MAX;

/// An account's credentials, borrowed: it costs a few pointers, so make one where it is needed.
#[derive(Clone, Copy)]
pub struct Signer<'a> {
    appid: &'a AppId,
    ebid: &'a Ebid,
    /// Checked as a [`Password`] is.
    password: &'a [u8],
}

/// A signed look-up, ready to be written; borrows what it does not make itself.
#[derive(Clone, Debug)]
pub struct SignedRequest<'a> {
    transid: Transid,
    token: Token,
    ebid: &'a Ebid,
    card: &'a Card,
}

impl<'a> Signer<'a> {
    /// Signs for this account.
    #[must_use]
    pub fn new(appid: &'a AppId, ebid: &'a Ebid, password: &'a Password) -> Self {
        Self { appid, ebid, password: password.expose() }
    }

    /// Signs with a password that is part of the program: it stays in flash, where a [`Password`] would copy
    /// it into RAM. It cannot be wiped, and whoever reads out the flash has it.
    ///
    /// ```
    /// use cmiot_signer::{AppId, Ebid, Signer};
    /// static APPID: AppId = match AppId::parse("100001") {
    ///     Ok(appid) => appid,
    ///     Err(_) => panic!("checked when compiled"),
    /// };
    /// static EBID: Ebid = match Ebid::parse("0001000000009") {
    ///     Ok(ebid) => ebid,
    ///     Err(_) => panic!("checked when compiled"),
    /// };
    /// static SIGNER: Signer<'static> = match Signer::with_static_password(&APPID, &EBID, b"example-password") {
    ///     Ok(signer) => signer,
    ///     Err(_) => panic!("checked when compiled"),
    /// };
    /// ```
    ///
    /// # Errors
    /// When the password is empty or longer than [`Password::MAX_LEN`].
    pub const fn with_static_password(
        appid: &'a AppId,
        ebid: &'a Ebid,
        password: &'static [u8],
    ) -> Result<Self, CredentialError> {
        match Password::check(password) {
            Ok(()) => Ok(Self { appid, ebid, password }),
            Err(error) => Err(error),
        }
    }

    /// Signs a look-up of `card` at `stamp`; `sequence` tells it from others of the same second.
    #[must_use]
    pub fn sign(&self, stamp: Stamp, sequence: Sequence, card: &'a Card) -> SignedRequest<'a> {
        self.sign_transid(Transid::new(self.appid, stamp, sequence), card)
    }

    /// Signs a look-up straight into a buffer and says how long its query is: the bytes of
    /// `sign(…).query_into(out)`, for chips whose stack has no room for a [`SignedRequest`] beside them.
    ///
    /// # Errors
    /// When it does not fit; then nothing was written.
    pub fn sign_into(
        &self,
        stamp: Stamp,
        sequence: Sequence,
        card: &Card,
        out: &mut [u8],
    ) -> Result<usize, BufferTooSmall> {
        let (appid, ebid) = (self.appid.as_bytes(), self.ebid.as_bytes());
        let (name, number) = (name(card), card.as_bytes());
        let transid_at = "appid=&transid=".len() + appid.len();
        let transid_end = transid_at + appid.len() + TAIL_LEN;
        let token_at = transid_end + "&ebid=&token=".len() + ebid.len();
        let len = token_at + Token::LEN + name.len() + number.len();

        let out = out.get_mut(..len).ok_or(BufferTooSmall)?;
        let (front, behind) = out.split_at_mut_checked(token_at).ok_or(BufferTooSmall)?;
        let (token, tail) = behind.split_first_chunk_mut().ok_or(BufferTooSmall)?;
        let rest = append(&mut *front, b"appid=");
        let rest = append(rest, appid);
        let rest = append(rest, b"&transid=");
        let rest = append(rest, appid);
        let rest = append(rest, &transid::tail(stamp, sequence));
        let rest = append(rest, b"&ebid=");
        let rest = append(rest, ebid);
        append(rest, b"&token=");
        append(append(tail, name), number);
        write_token(&[appid, self.password, front.get(transid_at..transid_end).unwrap_or_default()], token);
        Ok(len)
    }

    /// Signs a look-up under a ready-made transid. The query's appid is the transid's.
    #[must_use]
    pub fn sign_transid(&self, transid: Transid, card: &'a Card) -> SignedRequest<'a> {
        let token = Token::of([self.appid.as_bytes(), self.password, transid.as_bytes()]);
        SignedRequest { transid, token, ebid: self.ebid, card }
    }
}

impl fmt::Debug for Signer<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Signer({}, {}, redacted)", self.appid, self.ebid)
    }
}

impl SignedRequest<'_> {
    /// The look-up's name.
    #[must_use]
    pub fn transid(&self) -> &Transid {
        &self.transid
    }

    /// Its proof.
    #[must_use]
    pub fn token(&self) -> &Token {
        &self.token
    }

    /// Writes `appid=…&transid=…&ebid=…&token=…&msisdn=…`.
    ///
    /// # Errors
    /// What `out` says; it may have taken a part. [`query`](Self::query) and
    /// [`query_into`](Self::query_into) write all or nothing.
    pub fn write_query(&self, out: &mut impl Write) -> fmt::Result {
        for part in &self.parts() {
            out.write_str(core::str::from_utf8(part).map_err(|_| fmt::Error)?)?;
        }
        Ok(())
    }

    /// Writes the request target, path and query, as it stands in a request line. Characters that a path may
    /// not hold are percent-encoded; `%` is kept, as the mark of what is encoded already.
    ///
    /// # Errors
    /// What `out` says; it may have taken a part.
    pub fn write_target(&self, path: &str, out: &mut impl Write) -> fmt::Result {
        if !path.starts_with('/') {
            out.write_char('/')?;
        }
        write_encoded(path, b"", out)?;
        out.write_char('?')?;
        self.write_query(out)
    }

    /// Writes the full URL. `base` is scheme, host and whatever port and path prefix a deployment has
    /// (`http://10.0.0.1:8080/iot`); slashes at its end are dropped.
    ///
    /// # Errors
    /// What `out` says; it may have taken a part.
    pub fn write_url(&self, base: &str, path: &str, out: &mut impl Write) -> fmt::Result {
        // An IPv6 address stands in brackets.
        write_encoded(base.trim_end_matches('/'), b"[]", out)?;
        self.write_target(path, out)
    }

    /// The query in a buffer that fits any.
    #[must_use]
    pub fn query(&self) -> heapless::String<QUERY_MAX> {
        // QUERY_MAX is the sum of the parts' limits, so writing cannot fail.
        self.all_or_nothing(|out| self.write_query(out)).unwrap_or_default()
    }

    /// The request target in a buffer of `N` bytes; [`TARGET_MAX`] fits any with [`PATH`].
    ///
    /// # Errors
    /// When it does not fit.
    pub fn target<const N: usize>(&self, path: &str) -> Result<heapless::String<N>, BufferTooSmall> {
        self.all_or_nothing(|out| self.write_target(path, out))
    }

    /// The full URL in a buffer of `N` bytes; `base` and [`TARGET_MAX`] fit any with [`PATH`].
    ///
    /// # Errors
    /// When it does not fit.
    pub fn url<const N: usize>(&self, base: &str, path: &str) -> Result<heapless::String<N>, BufferTooSmall> {
        self.all_or_nothing(|out| self.write_url(base, path, out))
    }

    /// Writes the query as bytes and says how many. This way links neither `core::fmt` nor UTF-8 tables.
    ///
    /// # Errors
    /// When it does not fit; then nothing was written.
    pub fn query_into(&self, out: &mut [u8]) -> Result<usize, BufferTooSmall> {
        let parts = self.parts();
        let len = parts.iter().map(|part| part.len()).sum();
        parts.iter().fold(out.get_mut(..len).ok_or(BufferTooSmall)?, |rest, part| append(rest, part));
        Ok(len)
    }

    /// The query in pieces.
    pub(crate) fn parts(&self) -> [&[u8]; 10] {
        [
            b"appid=",
            self.transid.appid_bytes(),
            b"&transid=",
            self.transid.as_bytes(),
            b"&ebid=",
            self.ebid.as_bytes(),
            b"&token=",
            self.token.as_bytes(),
            name(self.card),
            self.card.as_bytes(),
        ]
    }

    fn all_or_nothing<const N: usize>(
        &self,
        write: impl FnOnce(&mut heapless::String<N>) -> fmt::Result,
    ) -> Result<heapless::String<N>, BufferTooSmall> {
        let mut out = heapless::String::new();
        write(&mut out).map_err(|_| BufferTooSmall)?;
        Ok(out)
    }
}

/// The card's parameter, up to its value.
fn name(card: &Card) -> &'static [u8] {
    match card {
        Card::Msisdn(_) => b"&msisdn=",
        Card::Iccid(_) => b"&iccid=",
        Card::Imsi(_) => b"&imsi=",
    }
}

/// Copies a part to the head of a buffer that has room for it, and returns the rest.
fn append<'a>(out: &'a mut [u8], part: &[u8]) -> &'a mut [u8] {
    copy(part, out).unwrap_or_default()
}

/// Writes `text`, percent-encoding what neither RFC 3986's `pchar` nor `also` allows; `/` and `%` are kept.
fn write_encoded(text: &str, also: &[u8], out: &mut impl Write) -> fmt::Result {
    for &byte in text.as_bytes() {
        let plain = byte.is_ascii_alphanumeric() || b"/%-._~!$&'()*+,;=:@".contains(&byte);
        if plain || also.contains(&byte) {
            out.write_char(char::from(byte))?;
        } else {
            write!(out, "%{byte:02X}")?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    extern crate std;
    use std::{format, string::String};

    use super::*;
    use crate::card::CardKind;

    fn with_longest(check: impl FnOnce(SignedRequest<'_>)) {
        let appid = AppId::parse(&"A".repeat(26)).unwrap();
        let ebid = Ebid::parse(&"9".repeat(32)).unwrap();
        let password = Password::new(&[0xFF; 256]).unwrap();
        let card = Card::parse(CardKind::Iccid, "898602C99816C0445401").unwrap();
        check(Signer::new(&appid, &ebid, &password).sign(Stamp::LAST, Sequence::LAST, &card));
    }

    #[test]
    fn the_constants_are_the_longest_query_and_target() {
        with_longest(|request| {
            assert_eq!(request.query().len(), QUERY_MAX);
            assert_eq!(request.target::<TARGET_MAX>(PATH).unwrap().len(), TARGET_MAX);
        });
    }

    #[test]
    fn a_buffer_gets_all_or_nothing() {
        with_longest(|request| {
            let mut buffer = [b'.'; QUERY_MAX];
            assert_eq!(request.query_into(&mut buffer[..QUERY_MAX - 1]), Err(BufferTooSmall));
            assert!(buffer.iter().all(|&b| b == b'.'), "nothing was written");
            assert_eq!(request.query_into(&mut buffer), Ok(QUERY_MAX));
            assert_eq!(&buffer, request.query().as_bytes());
            assert_eq!(request.target::<{ TARGET_MAX - 1 }>(PATH), Err(BufferTooSmall));
            assert_eq!(request.url::<8>("http://localhost", PATH), Err(BufferTooSmall));
        });
    }

    #[test]
    fn urls_are_joined_with_one_slash_and_encoded() {
        with_longest(|request| {
            let query = request.query();
            for (base, path, head) in [
                ("https://api.iot.10086.cn", PATH, "https://api.iot.10086.cn/v2/userstatusrealsingle"),
                ("http://[::1]:8080/iot/", "v2/x", "http://[::1]:8080/iot/v2/x"),
                ("http://h//", "/a b?c#d\r\n%41", "http://h/a%20b%3Fc%23d%0D%0A%41"),
                ("http://h", "/用", "http://h/%E7%94%A8"),
            ] {
                let mut url = String::new();
                request.write_url(base, path, &mut url).unwrap();
                assert_eq!(url, format!("{head}?{query}"));
            }
        });
    }

    #[test]
    fn a_password_in_flash_signs_the_same() {
        let (appid, ebid) = (AppId::parse("100001").unwrap(), Ebid::parse("1").unwrap());
        let card = Card::parse(CardKind::Imsi, "460079650004176").unwrap();
        let owned = Password::new(b"example-password").unwrap();
        let in_flash = Signer::with_static_password(&appid, &ebid, b"example-password").unwrap();
        let query = |signer: Signer<'_>| signer.sign(Stamp::FIRST, Sequence::FIRST, &card).query();
        assert_eq!(query(in_flash), query(Signer::new(&appid, &ebid, &owned)));
        assert!(!format!("{in_flash:?}").contains("example-password"));
        assert_eq!(Signer::with_static_password(&appid, &ebid, b"").err(), Some(CredentialError::Empty));
        assert_eq!(
            Signer::with_static_password(&appid, &ebid, &[1; 257]).err(),
            Some(CredentialError::TooLong)
        );
    }

    #[test]
    fn debug_tells_neither_password_nor_token_nor_card() {
        with_longest(|request| {
            let text = format!("{request:?}");
            assert!(!text.contains(request.token().as_str()), "{text}");
            assert!(!text.contains("898602C99816C0445401"), "{text}");
        });
    }
}
