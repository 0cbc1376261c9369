//! API v5: its reader agrees with that of v2 on every body, and what it reads can be sent again.
#![no_main]

use cmiot_signer::v5::{CardStatus, Query, Reply, Token, TokenReply, TokenStore};
use cmiot_signer::{Card, CardKind, Reply as V2Reply, Status, Transid};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|body: &[u8]| {
    let (v2, v5) = (V2Reply::scan(body), Reply::scan_field(body, "STATUS"));
    assert_eq!(v2.err(), v5.err());
    if let (Ok(v2), Ok(v5)) = (v2, v5) {
        assert_eq!((v2.code(), v2.message(), v2.results()), (v5.code(), v5.message(), v5.results()));
        let status = v5.field().map(|field| Status::from_code(&field.to_string()));
        assert_eq!(v2.status(), status);
    }
    if let Some(status) = Reply::scan(body).ok().and_then(|reply| reply.status()) {
        // Only a code of its own alphabet has a meaning in v2.
        assert!(status.as_v2().is_none() || CardStatus::from_code(status.code()) == status);
    }
    let Ok(reply) = TokenReply::scan(body) else { return };
    assert!((1..=3240).contains(&reply.renew_after()));
    if let Ok(token) = reply.into_token() {
        sends_again(token);
    }
});

/// A body with this token is JSON from which the same token is read.
fn sends_again(token: Token<'_>) {
    let mut store = TokenStore::new();
    store.set(token);
    let card = Card::parse(CardKind::Msisdn, "1440000000001").unwrap();
    let transid = Transid::parse("2000012014101615303080000001").unwrap();
    let mut buffer = [0; Query::BODY_MAX];
    let len = Query::new(transid, store.get().unwrap(), &card).body_into(&mut buffer).unwrap();
    let sent = core::str::from_utf8(&buffer[..len]).unwrap();
    let wrapped = format!(r#"{{"status":"0","result":[{sent}]}}"#);
    let back = TokenReply::scan(wrapped.as_bytes()).unwrap().into_token().unwrap();
    assert!(back.expose().eq(token.expose()));
}
