//! Whether the time of a refusal tells who is known: run by `cargo xtask bench timing`.
//!
//! Refused alike, with the same words: a wrong token of a listed client, an unknown appid, a revoked client, and
//! a derived appid. Each try is one of them at random, so that whatever else this machine does falls on all alike. A
//! difference of medians counts against its noise: how far the medians of two random halves of one kind differ.
//!
//! Measured twice: around the check alone, in this process, where nanoseconds show; and around a whole exchange over the
//! loopback, which is nearer than any attacker comes.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::Path;
use std::time::{Duration, Instant};

use cmiot_proxy::admit::Admit;
use cmiot_proxy::app::{App, open_store};
use cmiot_proxy::clock::{Clock, Time};
use cmiot_proxy::config::file::Format;
use cmiot_proxy::config::{Config, ConfigFile};
use cmiot_proxy::peer::Peer;
use cmiot_proxy::wire::request::{Accepted, Claims, Request, RequestParts};
use cmiot_signer::Stamp;
use hyper::{HeaderMap, Uri};

/// 2026-01-15T12:00:00+08:00
const NOON: Time = Time::from_secs(1_768_449_600);

/// Clients in the list.
const LISTED: u32 = 1_000;

/// Requests of a kind, in turn: of as many appids.
const REQUESTS: u32 = 200;

/// Random halves by which the noise of a kind is found.
const HALVES: u32 = 200;

/// A kind of refusal, and how the appids begin that are refused so.
const KINDS: [(&str, &str); 4] =
    [("wrong token", "GW"), ("unknown appid", "NO"), ("revoked", "RV"), ("derived, wrong token", "DV")];

fn main() -> Result<(), Failure> {
    let mut tries = 100_000;
    let mut arguments = std::env::args().skip(1);
    while let Some(argument) = arguments.next() {
        // Others are cargo's own.
        if argument == "--tries" {
            tries = arguments.next().unwrap_or_default().parse()?;
        }
    }
    for (list, derives) in [("listed clients", false), ("listed and derived clients", true)] {
        println!("{list}\n{:<24}{:>10}{:>12}{:>14}{:>12}", "", "tries", "median ns", "difference", "noise");
        let folder = std::env::temp_dir().join(format!("cmiot-timing-{}", std::process::id()));
        std::fs::create_dir_all(&folder)?;
        let measured = check(&folder, derives, tries)
            .and_then(|checks| Ok((checks, exchange(&folder, derives, tries)?)));
        std::fs::remove_dir_all(&folder)?;
        let (checks, exchanges) = measured?;
        report(&checks);
        println!("  over the loopback");
        report(&exchanges);
    }
    Ok(())
}

type Failure = Box<dyn std::error::Error>;

/// Nanoseconds by kind.
type Measured = Vec<(&'static str, Vec<u32>)>;

/// Tries each kind so often, in random order; `attempt` is handed the kind and which of its requests.
fn measure(derives: bool, tries: usize, mut attempt: impl FnMut(usize, usize) -> Duration) -> Measured {
    let kinds = &KINDS[..if derives { 4 } else { 3 }];
    let mut measured: Measured = kinds.iter().map(|(kind, _)| (*kind, Vec::with_capacity(tries))).collect();
    let mut random = Random(0x9e37_79b9_7f4a_7c15);
    while measured.iter().any(|(_, times)| times.len() < tries) {
        let kind = random.below(kinds.len());
        let took = attempt(kind, random.below(REQUESTS as usize));
        measured[kind].1.push(u32::try_from(took.as_nanos()).unwrap_or(u32::MAX));
    }
    measured
}

/// Around the check alone.
#[expect(clippy::disallowed_methods, reason = "measures times, which is what this bench is for")]
fn check(folder: &Path, derives: bool, tries: usize) -> Result<Measured, Failure> {
    let clock = Clock::manual(NOON).0;
    let admit = Admit::new(&checked(folder, derives)?.into(), clock.clone());
    let origin = Peer { address: [192, 0, 2, 7].into(), names: None };
    let requests: Vec<Vec<Request<'_>>> = all(|target| request(&target));
    Ok(measure(derives, tries, |kind, n| {
        let start = Instant::now();
        let refused =
            std::hint::black_box(admit.snapshot().admit(&requests[kind][n], &origin, clock.moment()));
        let took = start.elapsed();
        assert!(refused.is_err(), "none of these may pass");
        took
    }))
}

/// Around a whole exchange on one connection.
#[expect(clippy::disallowed_methods, reason = "measures times, which is what this bench is for")]
fn exchange(folder: &Path, derives: bool, tries: usize) -> Result<Measured, Failure> {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build()?;
    let config = checked(folder, derives)?;
    let clock = Clock::manual(NOON).0;
    let store = open_store(&config, false, &clock)?;
    let app = runtime.block_on(App::start(config, store, clock))?;
    let mut line = TcpStream::connect(app.gateway().tcp().ok_or("TCP")?)?;
    line.set_nodelay(true)?;
    let requests = all(|target| format!("GET {target} HTTP/1.1\r\nHost: x\r\n\r\n"));
    let mut answer = [0; 1_024];
    let measured = measure(derives, tries, |kind, n| {
        let start = Instant::now();
        line.write_all(requests[kind][n].as_bytes()).expect("a proxy that listens");
        let read = line.read(&mut answer).expect("an answer");
        let took = start.elapsed();
        // Short enough to come at once.
        assert!(answer[..read].ends_with(b"\"result\":[]}"), "none of these may pass");
        took
    });
    drop(line);
    runtime.block_on(app.drain());
    Ok(measured)
}

/// The requests of all kinds.
fn all<T>(make: impl Fn(String) -> T) -> Vec<Vec<T>> {
    let of = |begin: &str| (0..REQUESTS).map(|n| make(target(&format!("{begin}{n:06}")))).collect();
    KINDS.iter().map(|(_, begin)| of(begin)).collect()
}

fn report(measured: &Measured) {
    let mut random = Random(0xd1b5_4a32_d192_ed03);
    let known = median(measured[0].1.clone());
    for (kind, times) in measured {
        let own = median(times.clone());
        let noise = noise(times, &mut random);
        println!("{kind:<24}{:>10}{own:>12.1}{:>+14.1}{noise:>12.1}", times.len(), own - known);
    }
}

/// The difference between the medians of two random halves that 95 % of the halves stay below.
fn noise(times: &[u32], random: &mut Random) -> f64 {
    let mut differences: Vec<f64> = (0..HALVES)
        .map(|_| {
            let (mut one, mut other) = (Vec::new(), Vec::new());
            for time in times {
                if random.below(2) == 0 { one.push(*time) } else { other.push(*time) }
            }
            (median(one) - median(other)).abs()
        })
        .collect();
    differences.sort_by(f64::total_cmp);
    differences[differences.len() * 19 / 20]
}

/// To a fraction of the clock's step: the mean of the middle fifth.
fn median(mut times: Vec<u32>) -> f64 {
    times.sort_unstable();
    let middle = &times[times.len() * 2 / 5..times.len() * 3 / 5];
    middle.iter().map(|time| f64::from(*time)).sum::<f64>() / middle.len() as f64
}

fn checked(folder: &Path, derives: bool) -> Result<Config, Failure> {
    Ok(Config::check(&ConfigFile::parse(Path::new("timing.toml"), &config(folder, derives)?)?, folder)?)
}

fn config(folder: &Path, derives: bool) -> std::io::Result<String> {
    let mut config = "[gateway]\nlisten = \"127.0.0.1:0\"\nrevoked_file = \"revoked\"\nmax_requests_per_connection = 1000000000\n[admin]\nlisten = \"127.0.0.1:0\"\n[carrier]\n\
        base_url = \"http://127.0.0.1:1\"\n[[account]]\nname = \"fleet\"\nappid = \"100001\"\n\
        ebid = \"0001000000009\"\npassword = \"the-carriers\"\n"
        .to_owned();
    let mut revoked = String::new();
    for n in 0..LISTED {
        for kind in ["GW", "RV"] {
            config.push_str(&format!(
                "[[client]]\ngroup = \"fleet\"\nappid = \"{kind}{n:06}\"\npassword = \"password-{n}\"\n"
            ));
        }
        revoked.push_str(&format!("RV{n:06}\n"));
    }
    secret(&folder.join("revoked"), &revoked)?;
    if derives {
        config.push_str(
            "[[derive]]\ngroup = \"fleet\"\nappid_prefix = \"DV\"\nkey_file = \"key\"\nepoch = 1\n",
        );
        secret(&folder.join("key"), &"0123456789abcdef".repeat(4))?;
    }
    Ok(config)
}

fn secret(path: &Path, text: &str) -> std::io::Result<()> {
    use std::os::unix::fs::PermissionsExt;
    std::fs::write(path, text)?;
    std::fs::set_permissions(path, PermissionsExt::from_mode(0o600))
}

/// A valid lookup except for its token.
fn target(appid: &str) -> String {
    let stamp = Stamp::from_unix(NOON.as_secs()).expect("a moment of this century");
    let token = "0123456789abcdef".repeat(4);
    format!(
        "/v2/userstatusrealsingle?appid={appid}&transid={appid}{stamp}00000001&ebid=0001000000009&token={token}&msisdn=14765004176"
    )
}

/// It borrows from its target, which stays: there are few.
fn request(target: &str) -> Request<'static> {
    let uri: &Uri = Box::leak(Box::new(target.parse().expect("a target")));
    let (operations, headers) = (operations(), HeaderMap::new());
    let parts = RequestParts { uri, headers: &headers, body: b"" };
    let accepted = Accepted { operations: &operations, format: Format::Strict };
    Request::parse(parts, &accepted, &mut Claims::default()).expect("a lookup")
}

fn operations() -> cmiot_proxy::operation::Operations {
    let mut operations = cmiot_proxy::operation::Operations::of(Vec::new()).expect("the built-in ones");
    operations.serve(|_| true);
    operations
}

/// Marsaglia's xorshift: order at random is all that it is for.
struct Random(u64);

impl Random {
    fn below(&mut self, most: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        usize::try_from(self.0 >> 33).expect("31 bits") % most
    }
}
