//! A card on the command line: its kind told from its form, or named.

use cmiot_signer::{Card, CardKind};

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
