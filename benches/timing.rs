//! Whether the time of a refusal tells who is known: run by `cargo xtask bench timing`.
//!
//! Refused alike, with the same words: a wrong token of a listed client, an appid that nobody has, a revoked client, and
//! a derived appid. Each try is one of them at random, so that whatever else this machine does falls on all alike. A
//! difference of medians counts against its noise: how far the medians of two random halves of one kind differ.

use std::path::Path;
use std::time::Instant;

use cmiot_proxy::admit::{Admit, Origin};
use cmiot_proxy::clock::{Clock, Time};
use cmiot_proxy::config::{Config, ConfigFile};
use cmiot_proxy::gateway::request::{Claims, Request};
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

fn main() -> Result<(), Box<dyn std::error::Error>> {
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
        let measured = measure(&folder, derives, tries);
        std::fs::remove_dir_all(&folder)?;
        report(&measured?);
    }
    Ok(())
}

/// Nanoseconds by kind.
type Measured = Vec<(&'static str, Vec<u32>)>;

#[expect(clippy::disallowed_methods, reason = "measures times, which is what this bench is for")]
fn measure(folder: &Path, derives: bool, tries: usize) -> Result<Measured, Box<dyn std::error::Error>> {
    let (clock, _) = Clock::manual(NOON);
    let config =
        Config::check(&ConfigFile::parse(Path::new("timing.toml"), &config(folder, derives)?)?, folder)?;
    let admit = Admit::new(&config.into(), clock);
    let origin = Origin { address: [192, 0, 2, 7].into(), names: None };
    let kinds = &KINDS[..if derives { 4 } else { 3 }];
    let requests: Vec<Vec<Request<'_>>> = kinds
        .iter()
        .map(|(_, begin)| (0..REQUESTS).map(|n| request(&format!("{begin}{n:06}"))).collect())
        .collect();
    let mut measured: Measured = kinds.iter().map(|(kind, _)| (*kind, Vec::with_capacity(tries))).collect();
    let mut random = Random(0x9e37_79b9_7f4a_7c15);
    while measured.iter().any(|(_, times)| times.len() < tries) {
        let kind = random.below(kinds.len());
        let request = &requests[kind][random.below(REQUESTS as usize)];
        let start = Instant::now();
        let refused = std::hint::black_box(admit.admit(request, &origin));
        let took = start.elapsed();
        assert!(refused.is_err(), "none of these may pass");
        measured[kind].1.push(u32::try_from(took.as_nanos()).unwrap_or(u32::MAX));
    }
    Ok(measured)
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

/// How far the medians of two random halves differ, 19 times of 20.
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

fn config(folder: &Path, derives: bool) -> std::io::Result<String> {
    let mut config = "[gateway]\nlisten = \"127.0.0.1:0\"\nrevoked_file = \"revoked\"\n[carrier]\n\
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

/// In every respect but its token as it should be. It borrows from its target, which stays: there are few.
fn request(appid: &str) -> Request<'static> {
    let stamp = Stamp::from_unix(NOON.as_secs()).expect("a moment of this century");
    let token = "0123456789abcdef".repeat(4);
    let target = format!(
        "/v2/userstatusrealsingle?appid={appid}&transid={appid}{stamp}00000001&ebid=0001000000009&token={token}&msisdn=14765004176"
    );
    let uri: &Uri = Box::leak(Box::new(target.parse().expect("a target")));
    let (operations, headers) = (operations(), HeaderMap::new());
    Request::parse(uri, &headers, b"", &operations, false, &mut Claims::default()).expect("a look-up")
}

fn operations() -> cmiot_proxy::operation::Operations {
    let mut operations = cmiot_proxy::operation::Operations::of(Vec::new());
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
