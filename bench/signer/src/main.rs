//! The cost of a token and of a request on a host: the signer against OpenSSL's SHA-256 of the same bytes, in turns.
//!
//! OpenSSL has several interfaces. `SHA256()` and `EVP_Digest` look the algorithm up at each call. It is fastest with a
//! digest fetched beforehand and a context that is reused, so this interface is compared. A round measures each
//! implementation once; the median of the rounds is printed, then the ratios of medians.

use std::hint::black_box;
use std::time::Instant;

use cmiot_signer::{AppId, Card, CardKind, Ebid, Password, Sequence, Signer, Stamp, Token, Transid};
use openssl::hash::MessageDigest;
use openssl::md::Md;
use openssl::md_ctx::MdCtx;

/// Each contender's median, in ns.
struct Medians {
    token: f64,
    request: f64,
    fetched: f64,
    evp: f64,
    sha256: f64,
}

fn main() {
    let (rounds, calls) = match std::env::args().nth(1).as_deref() {
        None => (101, 20_000),
        Some("short") => (3, 1_000),
        Some(other) => panic!("`short` or nothing, not {other}"),
    };
    println!("OpenSSL: {}", openssl::version::version());
    for (blocks, appid, password) in
        [(1, "100001", "password"), (2, "100001000000001", "a-password-of-26-letters-x")]
    {
        let medians = measure(appid, password, blocks, rounds, calls);
        let Medians { token, request, fetched, evp, sha256 } = medians;
        println!(
            "{blocks} block(s): token {token:.0} ns, request with its query {request:.0} ns; OpenSSL fetched {fetched:.0} ns, \
             EVP_Digest {evp:.0} ns, SHA256() {sha256:.0} ns"
        );
        println!(
            "{blocks} block(s): token {:.2} of OpenSSL fetched, {:.2} of EVP_Digest, {:.2} of SHA256()",
            token / fetched,
            token / evp,
            token / sha256
        );
    }
}

fn measure(appid: &str, password: &str, blocks: usize, rounds: usize, calls: u32) -> Medians {
    let appid = AppId::parse(appid).expect("6 or 15 digits");
    let ebid = Ebid::parse("0001000000009").expect("13 digits");
    let card = Card::parse(CardKind::Msisdn, "14765004176").expect("11 digits");
    let secret = Password::new(password.as_bytes()).expect("a few letters");
    let stamp = Stamp::from_unix(1_790_000_000).expect("a moment of this century");
    let sequence = |n: u32| Sequence::new(n % 99_999_999 + 1).expect("1 to 99,999,999");
    let transid = Transid::new(&appid, stamp, sequence(0));
    let text = [appid.as_str(), password, transid.as_str()].concat();
    // 9 bytes of padding at least: SHA-256, FIPS 180-4 5.1.1.
    assert_eq!((text.len() + 9).div_ceil(64), blocks, "{} bytes", text.len());

    let md = Md::fetch(None, "SHA256", None).expect("OpenSSL has SHA-256");
    let mut context = MdCtx::new().expect("memory for a context");
    let mut fetched_digest = |text: &[u8]| {
        let mut digest = [0; 32];
        context.digest_init(&md).expect("a fetched digest");
        context.digest_update(text).expect("an initialised context");
        context.digest_final(&mut digest).expect("32 bytes of room");
        digest
    };
    let hex: String = fetched_digest(text.as_bytes()).iter().map(|byte| format!("{byte:02x}")).collect();
    assert_eq!(Token::sign(&appid, &secret, &transid).as_str(), hex, "both sign alike");

    let signer = Signer::new(&appid, &ebid, &secret);
    let mut out = [0; 512];
    let mut times: [Vec<f64>; 5] = Default::default();
    for _ in 0..rounds {
        times[0].push(nanoseconds(calls, |_| {
            black_box(Token::sign(black_box(&appid), black_box(&secret), black_box(&transid)));
        }));
        times[1].push(nanoseconds(calls, |n| {
            let signed = signer.sign(black_box(stamp), sequence(n), black_box(&card));
            black_box(signed.query_into(&mut out).expect("512 bytes of room"));
        }));
        times[2].push(nanoseconds(calls, |_| {
            black_box(fetched_digest(black_box(text.as_bytes())));
        }));
        times[3].push(nanoseconds(calls, |_| {
            black_box(
                openssl::hash::hash(MessageDigest::sha256(), black_box(text.as_bytes())).expect("SHA-256"),
            );
        }));
        times[4].push(nanoseconds(calls, |_| {
            black_box(openssl::sha::sha256(black_box(text.as_bytes())));
        }));
    }
    let [token, request, fetched, evp, sha256] = times.map(median);
    Medians { token, request, fetched, evp, sha256 }
}

fn nanoseconds(calls: u32, mut call: impl FnMut(u32)) -> f64 {
    let begun = Instant::now();
    (0..calls).for_each(&mut call);
    begun.elapsed().as_secs_f64() * 1e9 / f64::from(calls)
}

fn median(mut of: Vec<f64>) -> f64 {
    of.sort_by(f64::total_cmp);
    of[of.len() / 2]
}
