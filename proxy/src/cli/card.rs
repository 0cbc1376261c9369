//! A card on the command line, or on standard input: its kind follows from its form, or from a prefix.
//!
//! Every user of the machine can read the command line of a process; `-` keeps a card out of it.

use std::io::{BufRead as _, Read as _, stdin};

use anyhow::{Context, bail};
use cmiot_signer::{Card, CardKind};

/// A card, or the place to read it from.
#[derive(Clone, Debug)]
pub(super) enum CardArg {
    Given(Card),
    /// `-`: the first line of standard input.
    Stdin,
}

/// Reads a card as [`parse`] does, or `-`.
pub(super) fn argument(text: &str) -> Result<CardArg, String> {
    if text == "-" { Ok(CardArg::Stdin) } else { parse(text).map(CardArg::Given) }
}

impl CardArg {
    /// The card.
    ///
    /// # Errors
    /// Standard input that does not begin with a card.
    pub(super) fn read(&self) -> anyhow::Result<Card> {
        match self {
            Self::Given(card) => Ok(*card),
            Self::Stdin => parse(&line()?).map_err(|error| anyhow::anyhow!("standard input: {error}")),
        }
    }
}

/// The first line of standard input, without blanks around it.
///
/// # Errors
/// Standard input that cannot be read as text, or that is empty.
pub(super) fn line() -> anyhow::Result<String> {
    /// More than any card with its kind.
    const MAX: u64 = 128;
    let mut line = String::new();
    stdin().lock().take(MAX).read_line(&mut line).context("standard input")?;
    if line.trim().is_empty() {
        bail!("standard input: has no card in its first line");
    }
    Ok(line.trim().to_owned())
}

/// Reads `14765004176`, `iccid:898602B0011430000544` and the like.
///
/// Without a kind, 20 characters are an iccid, 15 digits an imsi, anything shorter an msisdn.
pub(super) fn parse(text: &str) -> Result<Card, String> {
    let (kind, number) = match text.split_once(':') {
        Some(("msisdn", number)) => (CardKind::Msisdn, number),
        Some(("iccid", number)) => (CardKind::Iccid, number),
        Some(("imsi", number)) => (CardKind::Imsi, number),
        Some((other, _)) => {
            return Err(format!("`{other}` is no kind of card: write msisdn:, iccid: or imsi:"));
        }
        None if text.len() == 20 => (CardKind::Iccid, text),
        None if text.len() == 15 => (CardKind::Imsi, text),
        None => (CardKind::Msisdn, text),
    };
    Card::parse(kind, number).map_err(|e| format!("{}: {e}", kind.as_str()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_kind_is_told_from_the_form_or_named() {
        for (text, kind) in [
            ("14765004176", CardKind::Msisdn),
            ("1064830000000", CardKind::Msisdn),
            ("460079650004176", CardKind::Imsi),
            ("898602b0011430000544", CardKind::Iccid),
            ("imsi:460079650", CardKind::Imsi),
        ] {
            assert_eq!(parse(text).unwrap().kind(), kind, "{text}");
        }
        assert!(parse("sim:1").unwrap_err().contains("msisdn:"));
        assert!(parse("12a").unwrap_err().contains("msisdn"));
    }
}
