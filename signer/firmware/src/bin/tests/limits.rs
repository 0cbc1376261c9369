//! Limits: the longest credentials, the first and last dates, and bodies made to exhaust a chip.
//!
//! Hostile bodies are in flash, since they are longer than the RAM of one of the boards. The readers' stack is measured
//! with them, because a stack overflow is how such a body crashes a chip.

use core::hint::black_box;

use cmiot_signer::{
    AppId, BufferTooSmall, Card, CardKind, CredentialError, Ebid, Password, QUERY_MAX, Reply, ReplyError,
    Sequence, Signer, Stamp, StampError, Transid, TransidError,
};
use cmiot_signer_firmware::measure;

use crate::Test;

pub(crate) const TESTS: &[Test] = &[
    ("limits::the_longest_query", the_longest_query),
    ("limits::credentials", credentials),
    ("limits::clocks", clocks),
    ("limits::every_day_has_its_name", every_day_has_its_name),
    ("limits::sequences", sequences),
    ("limits::transids", transids),
    ("limits::depth", depth),
    ("limits::length", length),
    ("limits::stack_does_not_grow_with_hostile_bodies", stack_does_not_grow_with_hostile_bodies),
];

fn the_longest_query() {
    let (appid, ebid) = (AppId::parse(LETTERS).expect("26"), Ebid::parse("99999999999999999999999999999999"));
    let (ebid, password) = (ebid.expect("32"), Password::new(&[0xFF; Password::MAX_LEN]).expect("256"));
    let card = Card::parse(CardKind::Iccid, "898602c99816c0445401").expect("either case");
    let signer = Signer::new(&appid, &ebid, &password);
    let mut buffer = [b'.'; QUERY_MAX];
    let sign = |out: &mut [u8]| signer.sign_into(Stamp::LAST, Sequence::LAST, &card, out);
    assert_eq!(sign(&mut buffer[..QUERY_MAX - 1]), Err(BufferTooSmall));
    assert!(buffer.iter().all(|&byte| byte == b'.'));
    assert_eq!(sign(&mut buffer), Ok(QUERY_MAX));
    assert!(buffer.starts_with(b"appid=ABC") && buffer.ends_with(b"&iccid=898602C99816C0445401"));
}

fn credentials() {
    assert_eq!(AppId::parse(""), Err(CredentialError::Empty));
    assert_eq!(AppId::parse("ABCDEFGHIJKLMNOPQRSTUVWXYZ0"), Err(CredentialError::TooLong));
    assert_eq!(AppId::parse("密"), Err(CredentialError::BadCharacter));
    assert_eq!(Password::new(&[0; Password::MAX_LEN + 1]).err(), Some(CredentialError::TooLong));
    for (kind, number) in [
        (CardKind::Msisdn, "12345678901234"),
        (CardKind::Msisdn, "+861064765"),
        (CardKind::Iccid, "8986020000000000000"),
        (CardKind::Iccid, "8986020000000000000G"),
        (CardKind::Imsi, "1234567890123456"),
        (CardKind::Imsi, ""),
    ] {
        assert!(Card::parse(kind, number).is_err(), "{number}");
    }
}

fn clocks() {
    for unset in [0, 1, 946_655_999] {
        assert_eq!(Stamp::from_unix(unset), Err(StampError::Unset));
    }
    for late in [4_102_416_000, u64::from(u32::MAX), 1_413_444_630_000, u64::MAX] {
        assert_eq!(Stamp::from_unix(late), Err(StampError::TooLate));
    }
    for (unix, digits) in [
        (946_656_000, b"20000101000000"),
        (951_753_600, b"20000229000000"),
        (1_413_444_630, b"20141016153030"),
        // The second after which a signed 32-bit clock wraps.
        (2_147_483_648, b"20380119111408"),
        (4_102_415_999, b"20991231235959"),
    ] {
        let stamp = Stamp::from_unix(unix).unwrap_or_else(|error| panic!("{error}"));
        assert_eq!((&stamp.digits(), stamp.to_unix()), (digits, unix));
    }
}

fn every_day_has_its_name() {
    let mut previous = Stamp::FIRST.digits();
    for day in 1..36_525 {
        let stamp = Stamp::from_unix(Stamp::FIRST.to_unix() + day * 86_400 + 86_399).unwrap_or(Stamp::LAST);
        let digits = stamp.digits();
        assert!(digits > previous);
        assert_eq!(core::str::from_utf8(&digits).map(Stamp::parse), Ok(Ok(stamp)));
        previous = digits;
    }
    assert_eq!(&previous, b"20991231235959");
}

fn sequences() {
    assert!(
        Sequence::new(0).is_err() && Sequence::new(100_000_000).is_err() && Sequence::new(u32::MAX).is_err()
    );
    assert_eq!(Sequence::LAST.next(), Sequence::FIRST);
    for (number, digits) in [(1, b"00000001"), (80_000_001, b"80000001"), (99_999_999, b"99999999")] {
        assert_eq!(Sequence::new(number).map(Sequence::digits).as_ref(), Ok(digits));
    }
}

fn transids() {
    for (text, error) in [
        ("2014101615303080000001", TransidError::TooShort),
        ("ABCDEFGHIJKLMNOPQRSTUVWXYZ12014101615303080000001", TransidError::TooLong),
        ("100001\u{80}20141016153030800000010", TransidError::BadCharacter),
        ("1000012014131615303080000001", TransidError::Stamp),
        ("1000012014101615303000000000", TransidError::Sequence),
    ] {
        assert_eq!(Transid::parse(text), Err(error), "{text}");
    }
}

fn depth() {
    assert_eq!(Reply::scan(&BRACKETS), Err(ReplyError::TooDeep));
    assert_eq!(Reply::parse(&BRACKETS), Err(ReplyError::TooDeep));
    let deepest = br#"{"status":"0","x":[[[[[[[[[[[[[[[0]]]]]]]]]]]]]]]}"#;
    const { assert!(Reply::MAX_DEPTH == 16) };
    assert!(Reply::scan(deepest).is_ok() && Reply::parse(deepest).is_ok());
}

fn length() {
    let longest = BLANKS.len() - 1;
    for (body, verdict) in [
        (&BLANKS[..], Err(ReplyError::TooLong)),
        (&BLANKS[..longest], Ok("0")),
        // A message of 60,000 characters is no error.
        (&LONG_MESSAGE[..], Ok("7")),
    ] {
        assert_eq!(Reply::scan(body).as_ref().map(Reply::code).map_err(|&error| error), verdict);
        assert_eq!(Reply::parse(body).as_ref().map(Reply::code).map_err(|&error| error), verdict);
    }
}

fn stack_does_not_grow_with_hostile_bodies() {
    let scans: [measure::Workload; 3] = [
        || Reply::scan(black_box(b"{}")).is_ok(),
        || Reply::scan(black_box(&BRACKETS)).is_ok(),
        || Reply::scan(black_box(&LONG_MESSAGE)).is_ok(),
    ];
    let [least, ..] = scans.map(measure::stack);
    for scan in scans {
        let stack = measure::stack(scan);
        assert!(stack <= least + 64, "{stack} B where {{}} takes {least}");
    }
    // serde-json-core recurses over unknown fields: as deep as the guard allows, and no deeper.
    let stack = measure::stack(|| Reply::parse(black_box(&BRACKETS)).is_ok());
    assert!(stack < 4_000, "{stack} B");
}

const LETTERS: &str = "ABCDEFGHIJKLMNOPQRSTUVWXYZ";

/// `{"x":[[[[…`: what overwrites a chip's memory through a parser that recurses.
static BRACKETS: [u8; 400] = start(b"{\"x\":", b'[');

/// A reply, padded with blanks to one byte more than the limit.
static BLANKS: [u8; Reply::MAX_LEN + 1] = start(br#"{"status":"0","result":[{"STATUS":"00"}]}"#, b' ');

static LONG_MESSAGE: [u8; 60_000] = {
    let mut body = start(br#"{"status":"7","message":""#, b'x');
    let end = body.len();
    body[end - 2] = b'"';
    body[end - 1] = b'}';
    body
};

/// `head`, and `fill` for the rest.
const fn start<const N: usize>(head: &[u8], fill: u8) -> [u8; N] {
    let mut body = [fill; N];
    let (room, _) = body.split_at_mut(head.len());
    room.copy_from_slice(head);
    body
}
