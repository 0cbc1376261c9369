//! Properties of every input: written texts parse to the same values, and no input causes a panic.
#![allow(clippy::unwrap_used)] // In a test, to panic is to fail.

use cmiot_signer::{
    AppId, Card, CardKind, Ebid, Password, QUERY_MAX, Sequence, Signer, Stamp, Token, Transid,
};
use proptest::prelude::*;

prop_compose! {
    fn stamps()(unix in 946_656_000u64..=4_102_415_999) -> Stamp { Stamp::from_unix(unix).unwrap() }
}

prop_compose! {
    fn sequences()(number in 1u32..=99_999_999) -> Sequence { Sequence::new(number).unwrap() }
}

fn cards() -> impl Strategy<Value = Card> {
    prop_oneof![
        "[0-9]{1,13}".prop_map(|text| Card::parse(CardKind::Msisdn, &text).unwrap()),
        "[0-9A-Fa-f]{20}".prop_map(|text| Card::parse(CardKind::Iccid, &text).unwrap()),
        "[0-9]{1,15}".prop_map(|text| Card::parse(CardKind::Imsi, &text).unwrap()),
    ]
}

proptest! {
    #[test]
    fn a_stamp_reads_back(stamp in stamps()) {
        prop_assert_eq!(Stamp::from_unix(stamp.to_unix()), Ok(stamp));
        prop_assert_eq!(stamp.to_string().parse(), Ok(stamp));
    }

    #[test]
    fn stamps_order_as_their_digits(a in stamps(), b in stamps()) {
        prop_assert_eq!(a.cmp(&b), a.to_string().cmp(&b.to_string()));
    }

    #[test]
    fn fourteen_digits_are_refused_or_read_back(text in "20[0-9]{2}[01][0-9][0-3][0-9][0-2][0-9]([0-5][0-9]){2}") {
        if let Ok(stamp) = Stamp::parse(&text) {
            prop_assert_eq!(stamp.to_string(), text);
        }
    }

    #[test]
    fn a_transid_parses_into_its_parts(
        appid in "[0-9A-Za-z]{1,26}", stamp in stamps(), sequence in sequences()
    ) {
        let appid = AppId::parse(&appid).unwrap();
        let transid = Transid::new(&appid, stamp, sequence);
        prop_assert_eq!(transid.to_string().parse(), Ok(transid));
        prop_assert_eq!((transid.appid(), transid.stamp(), transid.sequence()), (appid, stamp, sequence));
    }

    #[test]
    fn a_transid_that_reads_is_its_parts(text in "[0-9A-Za-z]{0,26}2[0-9]{13}[0-9]{8}|.*") {
        if let Ok(transid) = Transid::parse(&text) {
            prop_assert_eq!(transid.as_str(), text);
            let again = Transid::new(&transid.appid(), transid.stamp(), transid.sequence());
            prop_assert_eq!(again, transid);
        }
    }

    #[test]
    fn a_card_reads_back(card in cards()) {
        prop_assert_eq!(Card::parse(card.kind(), card.as_str()), Ok(card));
        prop_assert_eq!(card.masked().to_string().len(), card.as_str().len());
    }

    #[test]
    fn nothing_read_panics(text in ".*", bytes in any::<Vec<u8>>()) {
        let _ = (AppId::parse(&text).is_ok(), Ebid::parse(&text).is_ok(), Password::new(&bytes).is_ok());
        let _ = (Stamp::parse(&text).is_ok(), Transid::parse(&text).is_ok(), Transid::parse_bytes(&bytes).is_ok());
        for kind in [CardKind::Msisdn, CardKind::Iccid, CardKind::Imsi] {
            if let Ok(card) = Card::parse(kind, &text) {
                prop_assert!(card.as_str().eq_ignore_ascii_case(&text));
            }
        }
        let _ = (Stamp::from_unix(bytes.len() as u64).is_ok(), Stamp::from_http_date(&bytes).is_ok());
    }

    #[test]
    fn every_query_fits_and_needs_no_encoding(
        appid in "[0-9A-Za-z]{1,26}", ebid in "[0-9A-Za-z]{1,32}", password in prop::collection::vec(any::<u8>(), 1..=256),
        stamp in stamps(), sequence in sequences(), card in cards()
    ) {
        let (appid, ebid) = (appid.parse().unwrap(), ebid.parse().unwrap());
        let password = Password::new(&password).unwrap();
        let request = Signer::new(&appid, &ebid, &password).sign(stamp, sequence, &card);
        let query = request.query();
        prop_assert!(!query.is_empty() && query.len() <= QUERY_MAX);
        prop_assert!(query.bytes().all(|b| b.is_ascii_alphanumeric() || b"=&".contains(&b)));
        prop_assert!(Token::sign(&appid, &password, request.transid()).verify(request.token().as_str()));
        let last = format!("&{}={}", card.kind(), card);
        prop_assert!(query.ends_with(&last));
    }
}
