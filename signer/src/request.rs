//! The signed lookup: the signer, and the query with its five parameters.
//!
//! Carrier page, "API请求URL示例": `appid`, `transid`, `ebid`, `token` and exactly one of `msisdn`, `iccid`,
//! `imsi`, written here in this order. The checked types contain no character that must be percent-encoded in a query;
//! paths and base URLs come from the caller and are encoded where necessary.

use core::fmt::{self, Write};

use crate::card::Card;
use crate::credentials::{AppId, Ebid, Password};
use crate::error::{BufferTooSmall, CredentialError};
use crate::sequence::Sequence;
use crate::sha256::{CompressionFunction, DefaultCompression};
use crate::stamp::Stamp;
use crate::token::{Token, write_token};
use crate::transid::{self, TAIL_LEN, Transid};

/// The path of operation 2002, the status of a card. Other operations use the same signature under other paths.
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

/// An account's borrowed credentials: a few pointers, cheap to make per lookup.
///
/// `C` computes the tokens' hashes; [`with_compression`](Self::with_compression) replaces it.
#[derive(Clone, Copy)]
pub struct Signer<'a, C = DefaultCompression> {
    appid: &'a AppId,
    ebid: &'a Ebid,
    /// Checked by the rules of [`Password`].
    password: &'a [u8],
    compression: C,
}

/// A signed lookup, ready to be written; it borrows ebid and card.
#[derive(Clone, Debug)]
pub struct SignedRequest<'a> {
    transid: Transid,
    token: Token,
    ebid: &'a Ebid,
    card: &'a Card,
}

impl<'a> Signer<'a> {
    /// A signer for this account.
    #[must_use]
    pub fn new(appid: &'a AppId, ebid: &'a Ebid, password: &'a Password) -> Self {
        Self { appid, ebid, password: password.expose(), compression: DefaultCompression }
    }

    /// A signer whose password is part of the program: it stays in flash, where a [`Password`] would copy it into RAM.
    /// It cannot be wiped, and a dump of the flash contains it.
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
            Ok(()) => Ok(Self { appid, ebid, password, compression: DefaultCompression }),
            Err(error) => Err(error),
        }
    }

    /// The same account, whose tokens are computed by another compression function, such as the chip's hardware.
    #[must_use]
    pub const fn with_compression<D: CompressionFunction>(self, compression: D) -> Signer<'a, D> {
        Signer { appid: self.appid, ebid: self.ebid, password: self.password, compression }
    }
}

impl<'a, C: CompressionFunction> Signer<'a, C> {
    /// Signs a lookup of `card` at `stamp`; `sequence` distinguishes it from others of the same second.
    #[must_use]
    pub fn sign(&self, stamp: Stamp, sequence: Sequence, card: &'a Card) -> SignedRequest<'a> {
        self.sign_transid(Transid::new(self.appid, stamp, sequence), card)
    }

    /// The length in bytes of the query of a lookup of `card`.
    #[must_use]
    pub fn query_len(&self, card: &Card) -> usize {
        "appid=&transid=&ebid=&token=".len()
            + 2 * self.appid.as_bytes().len()
            + TAIL_LEN
            + self.ebid.as_bytes().len()
            + Token::LEN
            + name(card).len()
            + card.as_bytes().len()
    }

    /// Signs a lookup directly into a buffer and returns the query's length. The bytes are those of
    /// `sign(…).query_into(out)`; this function is for chips whose stack has no room for a [`SignedRequest`] as well.
    ///
    /// # Errors
    /// When the query does not fit; then nothing was written.
    pub fn sign_into(
        &self,
        stamp: Stamp,
        sequence: Sequence,
        card: &Card,
        out: &mut [u8],
    ) -> Result<usize, BufferTooSmall> {
        let (appid, ebid) = (self.appid.as_bytes(), self.ebid.as_bytes());
        let (name, number) = (name(card), card.as_bytes());
        let transid_len = appid.len() + TAIL_LEN;
        let token_at = "appid=&transid=&ebid=&token=".len() + appid.len() + transid_len + ebid.len();
        let len = token_at + Token::LEN + name.len() + number.len();

        let out = out.get_mut(..len).ok_or(BufferTooSmall)?;
        let (front, back) = out.split_at_mut_checked(token_at).ok_or(BufferTooSmall)?;
        let (token, end) = back.split_first_chunk_mut().ok_or(BufferTooSmall)?;
        let rest = append(front, b"appid=");
        let rest = append(rest, appid);
        let rest = append(rest, b"&transid=");
        let (transid, rest) = rest.split_at_mut_checked(transid_len).ok_or(BufferTooSmall)?;
        transid::write_tail(stamp, sequence, append(transid, appid));
        let rest = append(rest, b"&ebid=");
        let rest = append(rest, ebid);
        append(rest, b"&token=");
        append(append(end, name), number);
        write_token(&self.compression, &[appid, self.password, transid], token);
        Ok(len)
    }

    /// Signs a lookup with an existing transid. The query's appid is that of the transid.
    #[must_use]
    pub fn sign_transid(&self, transid: Transid, card: &'a Card) -> SignedRequest<'a> {
        let token = Token::of(&self.compression, [self.appid.as_bytes(), self.password, transid.as_bytes()]);
        SignedRequest { transid, token, ebid: self.ebid, card }
    }
}

impl<C> fmt::Debug for Signer<'_, C> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Signer({}, {}, redacted)", self.appid, self.ebid)
    }
}

impl SignedRequest<'_> {
    /// The transid, which identifies the lookup.
    #[must_use]
    pub fn transid(&self) -> &Transid {
        &self.transid
    }

    /// The token, which authenticates the transid.
    #[must_use]
    pub fn token(&self) -> &Token {
        &self.token
    }

    /// Writes `appid=…&transid=…&ebid=…&token=…&msisdn=…`.
    ///
    /// # Errors
    /// The error of `out`, which may have received a part. [`query`](Self::query) and
    /// [`query_into`](Self::query_into) write all or nothing.
    pub fn write_query(&self, out: &mut impl Write) -> fmt::Result {
        for part in &self.parts() {
            out.write_str(core::str::from_utf8(part).map_err(|_| fmt::Error)?)?;
        }
        Ok(())
    }

    /// Writes the request target of a request line: path and query. Characters that a path may not contain are
    /// percent-encoded; `%` is kept, since it marks characters that are encoded already.
    ///
    /// # Errors
    /// The error of `out`, which may have received a part.
    pub fn write_target(&self, path: &str, out: &mut impl Write) -> fmt::Result {
        if !path.starts_with('/') {
            out.write_char('/')?;
        }
        write_encoded(path, b"", out)?;
        out.write_char('?')?;
        self.write_query(out)
    }

    /// Writes the full URL. `base` is scheme, host, and the port and path prefix of the deployment, if any
    /// (`http://10.0.0.1:8080/iot`); trailing slashes are dropped.
    ///
    /// # Errors
    /// The error of `out`, which may have received a part.
    pub fn write_url(&self, base: &str, path: &str, out: &mut impl Write) -> fmt::Result {
        // An IPv6 address has brackets.
        write_encoded(base.trim_end_matches('/'), b"[]", out)?;
        self.write_target(path, out)
    }

    /// The query, in a buffer that is large enough for every query.
    #[must_use]
    pub fn query(&self) -> heapless::String<QUERY_MAX> {
        // QUERY_MAX is the sum of the parts' limits, so writing cannot fail.
        self.all_or_nothing(|out| self.write_query(out)).unwrap_or_default()
    }

    /// The request target in a buffer of `N` bytes; [`TARGET_MAX`] is enough for [`PATH`].
    ///
    /// # Errors
    /// When the buffer is too small.
    pub fn target<const N: usize>(&self, path: &str) -> Result<heapless::String<N>, BufferTooSmall> {
        self.all_or_nothing(|out| self.write_target(path, out))
    }

    /// The full URL in a buffer of `N` bytes; the length of `base` plus [`TARGET_MAX`] is enough for
    /// [`PATH`].
    ///
    /// # Errors
    /// When the buffer is too small.
    pub fn url<const N: usize>(&self, base: &str, path: &str) -> Result<heapless::String<N>, BufferTooSmall> {
        self.all_or_nothing(|out| self.write_url(base, path, out))
    }

    /// Writes the query as bytes and returns their count. This function links neither `core::fmt` nor UTF-8 tables.
    ///
    /// # Errors
    /// When the query does not fit; then nothing was written.
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

/// The name of the card's parameter, with `&` and `=`.
fn name(card: &Card) -> &'static [u8] {
    match card {
        Card::Msisdn(_) => b"&msisdn=",
        Card::Iccid(_) => b"&iccid=",
        Card::Imsi(_) => b"&imsi=",
    }
}

/// Copies a part to the beginning of a buffer that is large enough, and returns the rest of the buffer.
fn append<'a>(out: &'a mut [u8], part: &[u8]) -> &'a mut [u8] {
    let (head, rest) = out.split_at_mut_checked(part.len()).unwrap_or_default();
    // A loop, because `copy_from_slice` would link its panic.
    for (slot, &byte) in head.iter_mut().zip(part) {
        *slot = byte;
    }
    rest
}

/// Writes `text` and percent-encodes bytes that are neither RFC 3986 `pchar` nor in `also`; `/` and `%` are kept.
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
        assert_eq!(in_flash.query_len(&card), query(in_flash).len());
        assert_eq!(query(in_flash), query(Signer::new(&appid, &ebid, &owned)));
        assert!(!format!("{in_flash:?}").contains("example-password"));
        assert_eq!(Signer::with_static_password(&appid, &ebid, b"").err(), Some(CredentialError::Empty));
        assert_eq!(
            Signer::with_static_password(&appid, &ebid, &[1; 257]).err(),
            Some(CredentialError::TooLong)
        );
    }

    #[test]
    fn debug_hides_password_token_and_card() {
        with_longest(|request| {
            let text = format!("{request:?}");
            assert!(!text.contains(request.token().as_str()), "{text}");
            assert!(!text.contains("898602C99816C0445401"), "{text}");
        });
    }
}
