//! The card of a lookup, identified by exactly one of msisdn, iccid or imsi.
//!
//! Carrier page, "业务参数": a msisdn is at most 13 digits, an iccid 20 characters, an imsi at most 15 digits.
//! Iccids with hexadecimal letters exist, in either case (`898602C99816C0445401`), and have no Luhn digit. They are
//! upper-cased here, so that one card has one spelling, and not checked further.
//!
//! A card number identifies a person: `Debug` prints the masked form, so that a log cannot leak it by accident;
//! `Display` and `as_str` print it in full.

use core::fmt;
use core::mem::MaybeUninit;

use crate::credentials::plain_text;
use crate::error::CardError;
use crate::text::{Alphabet, Case, Text};

/// A card's telephone number: 1 to 13 digits.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Msisdn(Text<{ Msisdn::MAX_LEN }>);

/// A card's serial number: 20 of `0-9A-F`.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Iccid(Text<{ Iccid::LEN }>);

/// A card's subscriber identity: 1 to 15 digits.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Imsi(Text<{ Imsi::MAX_LEN }>);

/// A card, identified by one of its three numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Card {
    /// By telephone number.
    Msisdn(Msisdn),
    /// By serial number.
    Iccid(Iccid),
    /// By subscriber identity.
    Imsi(Imsi),
}

/// The number that identifies a card.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum CardKind {
    /// `msisdn`
    Msisdn,
    /// `iccid`
    Iccid,
    /// `imsi`
    Imsi,
}

/// A card number that prints as its first four and last three characters with stars between: `1476****176`.
/// A number of fewer than eleven characters prints as stars only.
#[derive(Clone, Copy)]
pub struct Masked<'a>(&'a [u8]);

impl Msisdn {
    /// The longest msisdn, in digits.
    pub const MAX_LEN: usize = 13;

    /// Checks a msisdn.
    ///
    /// # Errors
    /// When it is not 1 to 13 ASCII digits.
    pub const fn parse(text: &str) -> Result<Self, CardError> {
        match Text::checked(text.as_bytes(), Alphabet::Digits, Case::Kept) {
            Ok(text) => Ok(Self(text)),
            Err(_) => Err(CardError::Msisdn),
        }
    }
}

impl Iccid {
    /// The length of every iccid, in characters.
    pub const LEN: usize = 20;

    /// Checks an iccid and puts it into upper case.
    ///
    /// # Errors
    /// When it is not 20 of `0-9A-Fa-f`.
    pub const fn parse(text: &str) -> Result<Self, CardError> {
        if text.len() != Self::LEN {
            return Err(CardError::Iccid);
        }
        match Text::checked(text.as_bytes(), Alphabet::Hex, Case::Upper) {
            Ok(text) => Ok(Self(text)),
            Err(_) => Err(CardError::Iccid),
        }
    }
}

impl Imsi {
    /// The longest imsi, in digits.
    pub const MAX_LEN: usize = 15;

    /// Checks an imsi.
    ///
    /// # Errors
    /// When it is not 1 to 15 ASCII digits.
    pub const fn parse(text: &str) -> Result<Self, CardError> {
        match Text::checked(text.as_bytes(), Alphabet::Digits, Case::Kept) {
            Ok(text) => Ok(Self(text)),
            Err(_) => Err(CardError::Imsi),
        }
    }
}

plain_text!(Msisdn, CardError);
plain_text!(Iccid, CardError);
plain_text!(Imsi, CardError);

impl Card {
    /// Checks a number of the given kind.
    ///
    /// # Errors
    /// When the text breaks the rule of that kind; the error names the kind.
    pub const fn parse(kind: CardKind, text: &str) -> Result<Self, CardError> {
        // `?` and closures are not allowed in a const fn.
        match kind {
            CardKind::Msisdn => match Msisdn::parse(text) {
                Ok(msisdn) => Ok(Self::Msisdn(msisdn)),
                Err(error) => Err(error),
            },
            CardKind::Iccid => match Iccid::parse(text) {
                Ok(iccid) => Ok(Self::Iccid(iccid)),
                Err(error) => Err(error),
            },
            CardKind::Imsi => match Imsi::parse(text) {
                Ok(imsi) => Ok(Self::Imsi(imsi)),
                Err(error) => Err(error),
            },
        }
    }

    /// Checks a number of the given kind and stores it in `place`, without a copy on the stack.
    ///
    /// # Errors
    /// As [`parse`](Self::parse); then `place` contains no valid card.
    pub fn parse_into<'p>(
        kind: CardKind,
        text: &[u8],
        place: &'p mut MaybeUninit<Self>,
    ) -> Result<&'p Self, CardError> {
        let card = place.write(match kind {
            CardKind::Msisdn => Self::Msisdn(Msisdn(Text::EMPTY)),
            CardKind::Iccid => Self::Iccid(Iccid(Text::EMPTY)),
            CardKind::Imsi => Self::Imsi(Imsi(Text::EMPTY)),
        });
        let set = match card {
            Self::Msisdn(Msisdn(place)) => place.set(text, Alphabet::Digits, Case::Kept),
            Self::Iccid(Iccid(_)) if text.len() != Iccid::LEN => return Err(CardError::Iccid),
            Self::Iccid(Iccid(place)) => place.set(text, Alphabet::Hex, Case::Upper),
            Self::Imsi(Imsi(place)) => place.set(text, Alphabet::Digits, Case::Kept),
        };
        match (set, kind) {
            (Ok(()), _) => Ok(card),
            (Err(_), CardKind::Msisdn) => Err(CardError::Msisdn),
            (Err(_), CardKind::Iccid) => Err(CardError::Iccid),
            (Err(_), CardKind::Imsi) => Err(CardError::Imsi),
        }
    }

    /// The kind of number.
    #[must_use]
    pub const fn kind(&self) -> CardKind {
        match self {
            Self::Msisdn(_) => CardKind::Msisdn,
            Self::Iccid(_) => CardKind::Iccid,
            Self::Imsi(_) => CardKind::Imsi,
        }
    }

    /// The number, in full.
    #[must_use]
    pub fn as_str(&self) -> &str {
        match self {
            Self::Msisdn(msisdn) => msisdn.as_str(),
            Self::Iccid(iccid) => iccid.as_str(),
            Self::Imsi(imsi) => imsi.as_str(),
        }
    }

    /// The number as bytes, in full, without the cost of proving that they are UTF-8.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        match self {
            Self::Msisdn(msisdn) => msisdn.as_bytes(),
            Self::Iccid(iccid) => iccid.as_bytes(),
            Self::Imsi(imsi) => imsi.as_bytes(),
        }
    }

    /// The number in the form that a log may contain.
    #[must_use]
    pub fn masked(&self) -> Masked<'_> {
        Masked(self.as_bytes())
    }
}

impl CardKind {
    /// The carrier's parameter name.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Msisdn => "msisdn",
            Self::Iccid => "iccid",
            Self::Imsi => "imsi",
        }
    }
}

impl fmt::Display for Card {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

impl fmt::Display for CardKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

impl fmt::Display for Masked<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        /// Below this, seven shown characters would leave too few to guess.
        const SHORTEST_SHOWN: usize = 11;
        let len = self.0.len();
        for (at, &byte) in self.0.iter().enumerate() {
            let shown = len >= SHORTEST_SHOWN && (at < 4 || at + 3 >= len);
            fmt::Write::write_char(f, if shown { char::from(byte) } else { '*' })?;
        }
        Ok(())
    }
}

impl fmt::Debug for Masked<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl fmt::Debug for Msisdn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&Masked(self.as_bytes()), f)
    }
}

impl fmt::Debug for Iccid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&Masked(self.as_bytes()), f)
    }
}

impl fmt::Debug for Imsi {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&Masked(self.as_bytes()), f)
    }
}

impl From<Msisdn> for Card {
    fn from(msisdn: Msisdn) -> Self {
        Self::Msisdn(msisdn)
    }
}

impl From<Iccid> for Card {
    fn from(iccid: Iccid) -> Self {
        Self::Iccid(iccid)
    }
}

impl From<Imsi> for Card {
    fn from(imsi: Imsi) -> Self {
        Self::Imsi(imsi)
    }
}

#[cfg(test)]
mod tests {
    extern crate std;
    use std::{format, string::ToString};

    use super::*;

    #[test]
    fn an_iccid_has_one_spelling_and_no_luhn_digit() {
        let lower: Iccid = "898602c99816c0445401".parse().unwrap();
        assert_eq!(lower.as_str(), "898602C99816C0445401");
        assert_eq!(Ok(lower), "898602C99816C0445401".parse());
        for bad in ["898602C99816C044540", "898602C99816C04454011", "898602G99816C0445401", ""] {
            assert_eq!(bad.parse::<Iccid>(), Err(CardError::Iccid), "{bad}");
        }
    }

    #[test]
    fn digits_only_and_bounded() {
        for good in ["1", "14765004176", "1064830000000"] {
            assert_eq!(good.parse::<Msisdn>().unwrap().to_string(), good);
        }
        for bad in ["", "10648300000001", "+8614765004176", "1476500417a", "１４７"] {
            assert_eq!(bad.parse::<Msisdn>(), Err(CardError::Msisdn), "{bad}");
        }
        assert!("460079650004176".parse::<Imsi>().is_ok());
        assert_eq!("4600796500041760".parse::<Imsi>(), Err(CardError::Imsi));
    }

    #[test]
    fn a_masked_number_shows_its_ends_at_most() {
        let masked = |kind, text| Card::parse(kind, text).unwrap().masked().to_string();
        assert_eq!(masked(CardKind::Msisdn, "14765004176"), "1476****176");
        assert_eq!(masked(CardKind::Iccid, "898602C99816C0445401"), "8986*************401");
        assert_eq!(masked(CardKind::Msisdn, "1476500417"), "**********");
        assert_eq!(masked(CardKind::Imsi, "1"), "*");
        let card = Card::parse(CardKind::Msisdn, "14765004176").unwrap();
        assert_eq!(format!("{card:?}"), "Msisdn(1476****176)");
    }

    #[test]
    fn in_place_is_the_same() {
        for text in
            ["", "1", "14765004176", "898602c99816c0445401", "898602g99816c0445401", "460079650004176", "1a"]
        {
            for kind in [CardKind::Msisdn, CardKind::Iccid, CardKind::Imsi] {
                let mut place = MaybeUninit::uninit();
                assert_eq!(
                    Card::parse_into(kind, text.as_bytes(), &mut place).copied(),
                    Card::parse(kind, text)
                );
            }
        }
    }

    #[test]
    fn a_card_has_its_kind() {
        for kind in [CardKind::Msisdn, CardKind::Imsi] {
            let card = Card::parse(kind, "123").unwrap();
            assert_eq!((card.kind(), card.as_str()), (kind, "123"));
        }
    }
}
