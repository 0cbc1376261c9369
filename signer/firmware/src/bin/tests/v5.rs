//! API v5: the known answers of its requests, both alphabets of its status, and its tokens.

use cmiot_signer::v5::{
    CardStatus, CtStatus, Query, Refusal, Reply, Token, TokenReply, TokenRequest, TokenStore,
};
use cmiot_signer::{Card, CardKind, Password, Status, Transid};

use crate::Test;

pub(crate) const TESTS: &[Test] = &[
    ("v5::every_vector_is_written", every_vector_is_written),
    ("v5::the_alphabets_are_kept_apart", the_alphabets_are_kept_apart),
    ("v5::a_token_is_kept_and_expires", a_token_is_kept_and_expires),
];

fn every_vector_is_written() {
    let rows = include_str!("../../../../tests/v5.tsv").lines().filter(|line| !line.starts_with('#'));
    let mut count = 0;
    for row in rows {
        let mut columns = row.split('\t');
        let mut next = || columns.next().unwrap();
        let (kind, transid, secret, refresh, card, body, query) =
            (next(), next(), next(), next(), next(), next(), next());
        let transid = Transid::parse(transid).unwrap();
        let mut out = [0; 1600];
        if kind == "token" {
            let password = Password::new(secret.as_bytes()).unwrap();
            let request = TokenRequest::new(transid, &password).unwrap();
            let request = if refresh == "1" { request.renewing() } else { request };
            let len = request.body_into(&mut out).unwrap();
            assert_eq!(out[..len], *body.as_bytes());
            let len = request.query_into(&mut out).unwrap();
            assert_eq!(out[..len], *query.as_bytes());
        } else {
            let kinds = [CardKind::Msisdn, CardKind::Iccid, CardKind::Imsi];
            let kind = kinds.into_iter().find(|one| one.as_str() == kind).unwrap();
            let card = Card::parse(kind, card).unwrap();
            let request = Query::new(transid, Token::parse(secret.as_bytes()).unwrap(), &card);
            let len = request.body_into(&mut out).unwrap();
            assert_eq!(out[..len], *body.as_bytes());
            let len = request.query_into(&mut out).unwrap();
            assert_eq!(out[..len], *query.as_bytes());
        }
        count += 1;
    }
    assert!(count > 30);
}

fn the_alphabets_are_kept_apart() {
    for (body, status) in [
        (br#"{"status":"0","result":[{"cardStatus":"02"}]}"#.as_slice(), CardStatus::Pb(Status::Barred)),
        (br#"{"status":"0","result":[{"cardStatus":"2"}]}"#, CardStatus::Ct(CtStatus::Active)),
    ] {
        assert_eq!(Reply::scan(body).unwrap().into_status(), Ok(status));
    }
    let number = Reply::scan(br#"{"status":0,"result":[{"cardStatus":2}]}"#).unwrap().into_status();
    assert!(matches!(number, Ok(CardStatus::Unknown(_))));
}

fn a_token_is_kept_and_expires() {
    let body = br#"{"status":"0","result":[{"token":"a\/b","ttl":100}]}"#;
    let reply = TokenReply::scan(body).unwrap();
    assert_eq!(reply.renew_after(), 50);
    let mut store = TokenStore::new();
    store.set(reply.into_token().unwrap());
    assert!(store.get().unwrap().expose().eq(*b"a/b"));
    let expired = Reply::scan(br#"{"status":"12021","result":[]}"#).unwrap();
    assert_eq!(expired.into_status(), Err(Refusal::TokenExpired));
}
