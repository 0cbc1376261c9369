//! Known answers: every row of `vectors.tsv` signed, and each of its texts compared.
#![allow(clippy::unwrap_used)] // In a test, to panic is to fail.

use cmiot_signer::{AppId, Card, CardKind, Ebid, PATH, Password, Sequence, Signer, Stamp, Token, Transid};

/// A row of the table, whose head lists the columns.
struct Vector<'a> {
    appid: &'a str,
    password: &'a str,
    stamp: &'a str,
    sequence: &'a str,
    ebid: &'a str,
    kind: &'a str,
    card: &'a str,
    transid: &'a str,
    token: &'a str,
    query: &'a str,
}

fn vectors() -> Vec<Vector<'static>> {
    let rows = include_str!("vectors.tsv").lines().filter(|line| !line.starts_with('#'));
    rows.map(|row| {
        let columns: Vec<&str> = row.split('\t').collect();
        let [appid, password, stamp, sequence, ebid, kind, card, transid, token, query] = columns[..] else {
            panic!("not ten columns: {row}");
        };
        Vector { appid, password, stamp, sequence, ebid, kind, card, transid, token, query }
    })
    .collect()
}

#[test]
fn the_table_is_whole() {
    assert_eq!(vectors().len(), 65);
}

#[test]
fn every_vector_signs_as_known() {
    for vector in vectors() {
        let appid: AppId = vector.appid.parse().unwrap();
        let ebid: Ebid = vector.ebid.parse().unwrap();
        let password: Password = vector.password.parse().unwrap();
        let stamp: Stamp = vector.stamp.parse().unwrap();
        let sequence = Sequence::new(vector.sequence.parse().unwrap()).unwrap();
        let kind = [CardKind::Msisdn, CardKind::Iccid, CardKind::Imsi]
            .into_iter()
            .find(|kind| kind.as_str() == vector.kind)
            .unwrap();
        let card = Card::parse(kind, vector.card).unwrap();

        let request = Signer::new(&appid, &ebid, &password).sign(stamp, sequence, &card);
        assert_eq!(request.transid().as_str(), vector.transid);
        assert_eq!(request.token().as_str(), vector.token);
        assert_eq!(request.query(), vector.query);
        assert_eq!(request.target::<512>(PATH).unwrap(), format!("{PATH}?{}", vector.query).as_str());

        let mut bytes = [0; 512];
        let len = request.query_into(&mut bytes).unwrap();
        assert_eq!(&bytes[..len], vector.query.as_bytes());

        let mut bytes = [0; 512];
        let len =
            Signer::new(&appid, &ebid, &password).sign_into(stamp, sequence, &card, &mut bytes).unwrap();
        assert_eq!(&bytes[..len], vector.query.as_bytes());
    }
}

#[test]
fn every_vector_is_verified_from_its_texts() {
    for vector in vectors() {
        let transid: Transid = vector.transid.parse().unwrap();
        assert_eq!(transid.appid().as_str(), vector.appid);
        assert_eq!(transid.stamp().to_string(), vector.stamp);
        assert_eq!(transid.sequence().get().to_string(), vector.sequence);

        let token = Token::sign(&transid.appid(), &vector.password.parse().unwrap(), &transid);
        assert!(token.verify(vector.token));
        assert!(token.verify(vector.token.to_ascii_uppercase()));
        let other = Token::sign(&transid.appid(), &Password::new(b"another").unwrap(), &transid);
        assert!(!other.verify(vector.token));
    }
}
