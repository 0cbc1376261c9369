//! The credentials that the carrier issues to an account: appid, ebid and password, checked once on entry.
//!
//! Carrier page, "公共参数": every transid begins with the appid. A transid has at most 48 characters, of which 22
//! are stamp and sequence, so an appid has at most 26. It is opaque: leading zeros count (`0NZ`).
//! The password is any sequence of bytes. It is used only in the token's hash, and is wiped when dropped.

use core::fmt;
use core::mem::MaybeUninit;
use core::str::FromStr;

use zeroize::Zeroize;

use crate::error::CredentialError;
use crate::text::{Alphabet, Case, Fault, Text, copy};

/// The carrier's *application code*, which identifies the caller: 1 to 26 of `0-9A-Za-z`.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct AppId(pub(crate) Text<{ AppId::MAX_LEN }>);

/// The carrier's *capability code*, which identifies the operation: 1 to 32 of `0-9A-Za-z`. The token does not cover it.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Ebid(Text<{ Ebid::MAX_LEN }>);

/// The account's secret: 1 to 256 bytes of any value, wiped on drop, never printed or compared.
///
/// A firmware whose password is a constant in flash does not need this type: see
/// [`Signer::with_static_password`](crate::Signer::with_static_password).
#[derive(Clone)]
pub struct Password {
    bytes: [u8; Password::MAX_LEN],
    len: u16,
}

impl AppId {
    /// The longest appid, in characters: 48 minus 14 for the stamp and 8 for the sequence.
    pub const MAX_LEN: usize = 26;

    /// Checks an appid.
    ///
    /// # Errors
    /// When it is empty, longer than [`Self::MAX_LEN`], or contains a character outside `0-9A-Za-z`.
    pub const fn parse(text: &str) -> Result<Self, CredentialError> {
        match Text::checked(text.as_bytes(), Alphabet::Alphanumeric, Case::Kept) {
            Ok(text) => Ok(Self(text)),
            Err(fault) => Err(from_fault(fault)),
        }
    }

    /// Checks an appid and stores it in `place`, without a copy on the stack.
    ///
    /// # Errors
    /// As [`parse`](Self::parse); then `place` contains no valid appid.
    pub fn parse_into<'p>(
        text: &[u8],
        place: &'p mut MaybeUninit<Self>,
    ) -> Result<&'p Self, CredentialError> {
        let this = place.write(Self(Text::EMPTY));
        this.0.set(text, Alphabet::Alphanumeric, Case::Kept).map_err(from_fault)?;
        Ok(this)
    }
}

impl Ebid {
    /// The longest ebid accepted, in characters. The carrier issues 13 or 16 and states no limit.
    pub const MAX_LEN: usize = 32;

    /// Checks an ebid.
    ///
    /// # Errors
    /// When it is empty, longer than [`Self::MAX_LEN`], or contains a character outside `0-9A-Za-z`.
    pub const fn parse(text: &str) -> Result<Self, CredentialError> {
        match Text::checked(text.as_bytes(), Alphabet::Alphanumeric, Case::Kept) {
            Ok(text) => Ok(Self(text)),
            Err(fault) => Err(from_fault(fault)),
        }
    }

    /// Checks an ebid and stores it in `place`, without a copy on the stack.
    ///
    /// # Errors
    /// As [`parse`](Self::parse); then `place` contains no valid ebid.
    pub fn parse_into<'p>(
        text: &[u8],
        place: &'p mut MaybeUninit<Self>,
    ) -> Result<&'p Self, CredentialError> {
        let this = place.write(Self(Text::EMPTY));
        this.0.set(text, Alphabet::Alphanumeric, Case::Kept).map_err(from_fault)?;
        Ok(this)
    }
}

impl Password {
    /// The longest password accepted, in bytes. The carrier states no limit.
    pub const MAX_LEN: usize = 256;

    /// Copies a password. Nothing is trimmed: the caller removes the trailing newline of a file.
    ///
    /// # Errors
    /// When it is empty or longer than [`Self::MAX_LEN`].
    pub fn new(secret: &[u8]) -> Result<Self, CredentialError> {
        Self::check(secret)?;
        let mut bytes = [0; Self::MAX_LEN];
        copy(secret, &mut bytes).ok_or(CredentialError::TooLong)?;
        Ok(Self { bytes, len: secret.len() as u16 })
    }

    /// The password's length in bytes: 1 to [`Self::MAX_LEN`].
    #[expect(clippy::len_without_is_empty, reason = "a password is never empty")]
    pub const fn len(&self) -> usize {
        self.len as usize
    }

    /// Whether these bytes are a valid password.
    pub(crate) const fn check(secret: &[u8]) -> Result<(), CredentialError> {
        match secret.len() {
            0 => Err(CredentialError::Empty),
            1..=Self::MAX_LEN => Ok(()),
            _ => Err(CredentialError::TooLong),
        }
    }

    /// The secret; only the hasher uses it.
    pub(crate) fn expose(&self) -> &[u8] {
        self.bytes.get(..usize::from(self.len)).unwrap_or_default()
    }
}

impl Drop for Password {
    fn drop(&mut self) {
        self.bytes.zeroize();
        self.len.zeroize();
    }
}

impl fmt::Debug for Password {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Password(redacted)")
    }
}

/// Implements views, printing and `FromStr` (through the type's own `parse`) for a plain text type.
macro_rules! plain_text {
    ($name:ident, $error:ty) => {
        impl $name {
            /// The characters.
            #[must_use]
            pub fn as_str(&self) -> &str {
                self.0.as_str()
            }

            /// The characters as bytes, without the cost of proving that they are UTF-8.
            #[must_use]
            pub fn as_bytes(&self) -> &[u8] {
                self.0.as_bytes()
            }
        }

        impl core::fmt::Display for $name {
            fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
                f.pad(self.as_str())
            }
        }

        impl core::str::FromStr for $name {
            type Err = $error;

            fn from_str(text: &str) -> Result<Self, Self::Err> {
                Self::parse(text)
            }
        }
    };
}
pub(crate) use plain_text;

plain_text!(AppId, CredentialError);
plain_text!(Ebid, CredentialError);

impl fmt::Debug for AppId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "AppId({})", self.as_str())
    }
}

impl fmt::Debug for Ebid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Ebid({})", self.as_str())
    }
}

impl FromStr for Password {
    type Err = CredentialError;

    fn from_str(secret: &str) -> Result<Self, Self::Err> {
        Self::new(secret.as_bytes())
    }
}

const fn from_fault(fault: Fault) -> CredentialError {
    match fault {
        Fault::Empty => CredentialError::Empty,
        Fault::TooLong => CredentialError::TooLong,
        Fault::BadCharacter => CredentialError::BadCharacter,
    }
}

#[cfg(test)]
mod tests {
    extern crate std;
    use std::{format, string::ToString};

    use super::*;

    #[test]
    fn an_appid_keeps_its_leading_zeros() {
        assert_eq!(AppId::parse("0NZ").map(|a| a.to_string()), Ok("0NZ".to_string()));
    }

    #[test]
    fn lengths_and_alphabet_are_checked() {
        assert!(AppId::parse(&"A".repeat(26)).is_ok());
        assert_eq!(AppId::parse(&"A".repeat(27)), Err(CredentialError::TooLong));
        assert_eq!(AppId::parse(""), Err(CredentialError::Empty));
        for bad in ["10 0001", "1000-1", "密", "100001\n", "a\0"] {
            assert_eq!(AppId::parse(bad), Err(CredentialError::BadCharacter), "{bad:?}");
            assert_eq!(Ebid::parse(bad), Err(CredentialError::BadCharacter), "{bad:?}");
        }
        assert!(Ebid::parse(&"0".repeat(32)).is_ok());
        assert_eq!(Ebid::parse(&"0".repeat(33)), Err(CredentialError::TooLong));
    }

    #[test]
    fn in_place_is_the_same() {
        for text in ["100001", "", "10 1", &"A".repeat(27)] {
            let (mut appid, mut ebid) = (MaybeUninit::uninit(), MaybeUninit::uninit());
            assert_eq!(AppId::parse_into(text.as_bytes(), &mut appid).copied(), AppId::parse(text));
            assert_eq!(Ebid::parse_into(text.as_bytes(), &mut ebid).copied(), Ebid::parse(text));
        }
    }

    #[test]
    fn a_password_is_any_bytes_up_to_its_limit() {
        assert_eq!(Password::new(b"").err(), Some(CredentialError::Empty));
        assert_eq!(Password::new(&[0; 257]).err(), Some(CredentialError::TooLong));
        let longest = [0xFF; 256];
        assert_eq!(Password::new(&longest).map(|p| p.expose().len()).ok(), Some(256));
    }

    #[test]
    fn debug_hides_the_password() {
        let password: Password = "open sesame".parse().unwrap();
        assert_eq!(format!("{password:?}"), "Password(redacted)");
    }
}
