//! The signer does not allocate on a host: a counting allocator checks signing, writing and both readers.

#![cfg(feature = "serde")]

use cmiot_signer::{AppId, Card, CardKind, Ebid, Password, Reply, Sequence, Signer, Stamp, Transid};

const ANSWER: &str = r#"{"status":"0","message":"正确","result":[{"STATUS":"00"}]}"#;

/// A lookup from its parts to its reply, all of it in this frame. The result depends on each step.
fn look_up() -> Option<usize> {
    let appid = AppId::parse("100001000000001").ok()?;
    let ebid = Ebid::parse("0001000000009").ok()?;
    let password = Password::new(b"a-password").ok()?;
    let card = Card::parse(CardKind::Msisdn, "14765004176").ok()?;
    let stamp = Stamp::from_unix(1_790_000_000).ok()?;
    let signer = Signer::new(&appid, &ebid, &password);
    let signed = signer.sign(stamp, Sequence::new(1).ok()?, &card);
    let mut out = [0; 512];
    let written = signed.query_into(&mut out).ok()?;
    let url = signed.url::<512>("https://api.iot.10086.cn", cmiot_signer::PATH).ok()?;
    let transid = Transid::parse_bytes(signed.transid().as_bytes()).ok()?;
    let claimed = signed.token().verify(signed.token().as_bytes());
    let read = Reply::parse(ANSWER.as_bytes()).ok()?.status().is_some();
    #[cfg(feature = "scan")]
    let read = read && Reply::scan(ANSWER.as_bytes()).ok()?.status().is_some();
    (claimed && read).then_some(written + url.len() + transid.as_bytes().len())
}

#[test]
fn a_look_up_allocates_nothing() {
    let mut done = None;
    let counted = allocation_counter::measure(|| done = look_up());
    assert!(done.is_some_and(|bytes| bytes > 300), "every step was done: {done:?}");
    assert_eq!((counted.count_total, counted.bytes_total), (0, 0));
    // The counter counts.
    let counted = allocation_counter::measure(|| drop(std::hint::black_box(vec![0u8; 7])));
    assert_eq!((counted.count_total, counted.bytes_total), (1, 7));
}
