//! A card, identified by one of its three numbers.

use std::fmt;

/// A card, with the identifier that the caller used.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Card {
    /// The kind of `number`.
    pub kind: CardKind,
    /// Its digits; for an ICCID its characters, converted to upper case.
    pub number: String,
}

impl Card {
    /// Parses a parameter's value; `None` when the carrier would answer 38.
    ///
    /// The carrier's page gives the lengths ("校验规则"): at most 13 digits, exactly 20 characters, at most
    /// 15 digits. ICCIDs in use contain letters, so no check digit is computed.
    pub(crate) fn read(kind: CardKind, value: &str) -> Option<Self> {
        let digits = |most: usize| value.len() <= most && value.bytes().all(|byte| byte.is_ascii_digit());
        let formed = match kind {
            CardKind::Msisdn => digits(13),
            CardKind::Iccid => value.len() == 20 && value.bytes().all(|byte| byte.is_ascii_alphanumeric()),
            CardKind::Imsi => digits(15),
        };
        (formed && !value.is_empty()).then(|| Self { kind, number: value.to_ascii_uppercase() })
    }
}

impl fmt::Display for Card {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.number)
    }
}

/// The three identifiers of a card.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum CardKind {
    /// The telephone number, at most 13 digits.
    Msisdn,
    /// The number of the chip card, 20 characters.
    Iccid,
    /// The subscriber's number, at most 15 digits.
    Imsi,
}

impl CardKind {
    /// All three, in the order of the carrier's page.
    pub const ALL: [Self; 3] = [Self::Msisdn, Self::Iccid, Self::Imsi];

    /// The request parameter of this kind.
    #[must_use]
    pub const fn parameter(self) -> &'static str {
        match self {
            Self::Msisdn => "msisdn",
            Self::Iccid => "iccid",
            Self::Imsi => "imsi",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn well_formed_cards_are_read() {
        for (kind, value) in [
            (CardKind::Msisdn, "14765004176"),
            (CardKind::Msisdn, "1064830000000"),
            (CardKind::Iccid, "898600D6991330004146"),
            (CardKind::Imsi, "460079650004176"),
        ] {
            assert_eq!(Card::read(kind, value), Some(Card { kind, number: value.to_owned() }));
        }
    }

    #[test]
    fn an_iccid_is_one_card_in_either_case() {
        let lower = Card::read(CardKind::Iccid, "898602c99816c0445401");
        assert_eq!(lower, Card::read(CardKind::Iccid, "898602C99816C0445401"));
        assert!(lower.is_some());
    }

    #[test]
    fn malformed_cards_are_refused() {
        for (kind, value) in [
            (CardKind::Msisdn, ""),
            (CardKind::Msisdn, "14765004176001"),
            (CardKind::Msisdn, "1476500417x"),
            (CardKind::Iccid, "898600D699133000414"),
            (CardKind::Iccid, "898600D69913300041466"),
            (CardKind::Iccid, "898600D699133000414-"),
            (CardKind::Imsi, "4600796500041760"),
        ] {
            assert_eq!(Card::read(kind, value), None, "{value:?}");
        }
    }
}
