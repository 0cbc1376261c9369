//! The known answers of the signer's tests, each text compared: signed as a whole, in pieces, and parsed.

use cmiot_signer::{
    AppId, Card, CardKind, Ebid, PATH, Password, Sequence, Signer, Stamp, TARGET_MAX, Token, Transid,
};

use crate::Test;

pub(crate) const TESTS: &[Test] = &[
    ("vectors::the_table_is_whole", the_table_is_whole),
    ("vectors::every_vector_signs_as_known", every_vector_signs_as_known),
    ("vectors::every_vector_signs_straight_into_a_buffer", every_vector_signs_straight_into_a_buffer),
    ("vectors::every_vector_is_verified_from_its_texts", every_vector_is_verified_from_its_texts),
];

fn the_table_is_whole() {
    assert_eq!(rows().count(), 65);
}

fn every_vector_signs_as_known() {
    for row in rows() {
        let signer = Signer::new(&row.appid, &row.ebid, &row.password);
        let request = signer.sign(row.stamp, row.sequence, &row.card);
        assert_eq!(request.transid().as_str(), row.transid);
        assert_eq!(request.token().as_str(), row.token);
        assert_eq!(request.query(), row.query);
        let target = request.target::<TARGET_MAX>(PATH).expect("the constant fits any");
        assert_eq!(target.strip_prefix(PATH).and_then(|rest| rest.strip_prefix('?')), Some(row.query));
        let mut bytes = [0; 256];
        let len = request.query_into(&mut bytes).expect("it fits");
        assert_eq!(&bytes[..len], row.query.as_bytes());
    }
}

fn every_vector_signs_straight_into_a_buffer() {
    for row in rows() {
        let signer = Signer::new(&row.appid, &row.ebid, &row.password);
        let mut bytes = [0; 256];
        let len = row.query.len();
        assert!(signer.sign_into(row.stamp, row.sequence, &row.card, &mut bytes[..len - 1]).is_err());
        assert_eq!(signer.sign_into(row.stamp, row.sequence, &row.card, &mut bytes), Ok(len));
        assert_eq!(&bytes[..len], row.query.as_bytes());
    }
}

fn every_vector_is_verified_from_its_texts() {
    let other = Password::new(b"another").expect("seven bytes");
    for row in rows() {
        let transid = Transid::parse(row.transid).expect("known to be well-formed");
        assert_eq!(
            (transid.appid(), transid.stamp(), transid.sequence()),
            (row.appid, row.stamp, row.sequence)
        );
        assert!(Token::sign(&row.appid, &row.password, &transid).verify(row.token));
        assert!(!Token::sign(&row.appid, &other, &transid).verify(row.token));
    }
}

struct Row {
    appid: AppId,
    password: Password,
    stamp: Stamp,
    sequence: Sequence,
    ebid: Ebid,
    card: Card,
    transid: &'static str,
    token: &'static str,
    query: &'static str,
}

fn rows() -> impl Iterator<Item = Row> {
    include_str!("../../../../tests/vectors.tsv").lines().filter(|line| !line.starts_with('#')).map(row)
}

fn row(line: &'static str) -> Row {
    let mut columns = line.split('\t');
    let mut column = || columns.next().expect("ten columns");
    let appid = AppId::parse(column()).expect("an appid");
    let password = Password::new(column().as_bytes()).expect("a password");
    let stamp = Stamp::parse(column()).expect("a stamp");
    let sequence = column().parse().ok().and_then(|number| Sequence::new(number).ok()).expect("a sequence");
    let ebid = Ebid::parse(column()).expect("an ebid");
    let kind = match column() {
        "msisdn" => CardKind::Msisdn,
        "iccid" => CardKind::Iccid,
        "imsi" => CardKind::Imsi,
        other => panic!("a card by {other}"),
    };
    let card = Card::parse(kind, column()).expect("a card");
    Row { appid, password, stamp, sequence, ebid, card, transid: column(), token: column(), query: column() }
}
