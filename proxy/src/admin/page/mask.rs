//! Card numbers on pages: masked for every role.

use cmiot_signer::{Card, CardKind};

/// Digits in a row from which a text may contain a card number; the shortest, an msisdn, has eleven.
const MIN_DIGITS: usize = 10;
/// The longest run that may be one, an iccid with some margin: longer ones are hashes.
const MAX_DIGITS: usize = 32;

/// A card of an audit row: `masked` where the row has a hash.
pub(super) fn card(kind: &str, number: &str, masked: &str) -> String {
    if !masked.is_empty() {
        return masked.to_owned();
    }
    match kind_of(kind).map(|kind| Card::parse(kind, number)) {
        Some(Ok(card)) => card.masked().to_string(),
        _ if number.is_empty() => String::new(),
        _ => "*".repeat(11),
    }
}

/// The detail of a note: its words `msisdn=...`, `iccid=...` and `imsi=...` name cards.
pub(super) fn detail(text: &str) -> String {
    let masked = |word: &str| {
        let (name, value) = word.split_once('=')?;
        kind_of(name)?;
        Some(format!("{name}={}", card(name, value, "")))
    };
    let words = text.split(' ').map(|word| masked(word).unwrap_or_else(|| word.to_owned()));
    words.collect::<Vec<_>>().join(" ")
}

/// The body of a carrier reply: long runs of digits, and of the letters of an iccid, may be cards.
pub(super) fn body(text: &str) -> String {
    let mut shown = String::with_capacity(text.len());
    let mut run = String::new();
    for character in text.chars().chain(['\0']) {
        if character.is_ascii_hexdigit() {
            run.push(character);
            continue;
        }
        let is_card = (MIN_DIGITS..=MAX_DIGITS).contains(&run.len())
            && run.bytes().filter(u8::is_ascii_digit).count() >= MIN_DIGITS;
        match is_card {
            true => shown.push_str(&"*".repeat(run.len())),
            false => shown.push_str(&run),
        }
        run.clear();
        shown.extend(Some(character).filter(|character| *character != '\0'));
    }
    shown
}

fn kind_of(name: &str) -> Option<CardKind> {
    [CardKind::Msisdn, CardKind::Iccid, CardKind::Imsi].into_iter().find(|kind| kind.as_str() == name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_card_is_masked_wherever_it_stands() {
        assert_eq!(card("msisdn", "14765004176", ""), "1476****176");
        assert_eq!(card("msisdn", "b3b1c3d2", "1476****176"), "1476****176", "a hash");
        assert_eq!(card("msisdn", "14765004176x", ""), "***********", "no card, and not shown");
        assert_eq!(card("", "", ""), "");
        assert_eq!(
            detail("by=token from=127.0.0.1 memory=1 mode=hard msisdn=14765004176"),
            "by=token from=127.0.0.1 memory=1 mode=hard msisdn=1476****176"
        );
        assert_eq!(
            body(
                r#"{"status":"0","result":[{"MSISDN":"14765004176","ICCID":"898600D6991330004146","STATUS":"00"}]}"#
            ),
            r#"{"status":"0","result":[{"MSISDN":"***********","ICCID":"********************","STATUS":"00"}]}"#
        );
        assert_eq!(body("14765004176"), "***********", "at the end too");
        let hash = format!("sha256:{}", "1a".repeat(32));
        assert_eq!(body(&hash), hash);
    }
}
