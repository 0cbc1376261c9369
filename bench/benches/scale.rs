//! Files of a large fleet, and what its cards cost in memory: started by `cargo xtask bench scale` and `bench month`, a
//! process a mode.
//!
//! | mode | |
//! | --- | --- |
//! | `fill STORE CARDS` | `cache.db` with an answer for each card, given a moment ago |
//! | `window STORE RECORDS` | this month's audit with this number of lookups of the last four minutes, each with its own transid |
//! | `month STORE ROWS BATCH` | a month's audit with this number of rows, this many given to the writer together |
//! | `memory CONFIG CARDS` | takes each card of `cache.db` into memory: bytes per card, ns per card found again |
//! | `idle PROCESS ADDRESS GATEWAYS [CERTIFICATE]` | gateways that ask once and stay: bytes of that process |

#[path = "scale/idle.rs"]
mod idle;
#[path = "scale/month.rs"]
mod month;
#[path = "../tls_client.rs"]
mod tls_client;

use std::collections::HashMap;
use std::fs;
use std::hint::black_box;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use cmiot_proxy::cache::{Cache, Key};
use cmiot_proxy::clock::{Clock, Time};
use cmiot_proxy::config::Config;
use cmiot_proxy::operation::USER_STATUS;
use cmiot_proxy::store::audit::{self, AuditStore, Durability, LookupRow};
use cmiot_proxy::store::cache::{CacheRow, CacheStore};
use cmiot_proxy::store::state::{OnStateLoss, StateStore};
use cmiot_signer::{AppId, Card, CardKind, Sequence, Stamp, Transid};

type Result<T> = std::result::Result<T, Box<dyn std::error::Error>>;

/// The account, its group and its client, as in `xtask/src/setup.rs`.
const GROUP: &str = "fleet";
const APPID: &str = "100001";
const EBID: &str = "0001000000009";
const PASSWORD: &str = "account-password";

const BODY: &str = r#"{"status":"0","message":"正确","result":[{"STATUS":"00"}]}"#;

fn main() -> Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).filter(|argument| argument != "--bench").collect();
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    match words[..] {
        ["fill", store, cards] => fill(Path::new(store), cards.parse()?),
        ["window", store, records] => window(Path::new(store), records.parse()?),
        ["month", store, rows, batch] => month::fill(Path::new(store), rows.parse()?, batch.parse()?),
        ["memory", config, cards] => memory(Path::new(config), cards.parse()?),
        ["idle", process, address, gateways] => {
            idle::idle(process.parse()?, address, gateways.parse()?, None)
        }
        ["idle", process, address, gateways, certificate] => {
            idle::idle(process.parse()?, address, gateways.parse()?, Some(Path::new(certificate)))
        }
        // `cargo bench` runs every bench there is.
        _ => {
            println!("run by `cargo xtask bench scale` and `bench month`");
            Ok(())
        }
    }
}

fn card(n: u64) -> Card {
    Card::parse(CardKind::Msisdn, &(14_765_000_000 + n).to_string()).expect("eleven digits")
}

/// A folder that a proxy has used.
fn begin(store: &Path) -> Result<()> {
    fs::create_dir_all(store)?;
    StateStore::open(store, OnStateLoss::Refuse)?;
    Ok(())
}

fn fill(store: &Path, cards: u64) -> Result<()> {
    begin(store)?;
    let file = CacheStore::open(store, 20_000)?;
    let clock = Clock::system();
    let (group, operation) = (Arc::<str>::from(GROUP), Arc::<str>::from(USER_STATUS.name));
    for n in 0..cards {
        let row = CacheRow {
            group: Arc::clone(&group),
            operation: Arc::clone(&operation),
            card: card(n),
            parameters: String::new(),
            code: "0".to_owned(),
            status: Some("00".to_owned()),
            answered_at: clock.now(),
            body: Bytes::from_static(BODY.as_bytes()),
            charset: None,
            carrier: None,
            stale: false,
        };
        file.save(row, Time::from_micros(i64::MAX));
        if n % 10_000 == 9_999 {
            file.flush().wait()?;
        }
    }
    file.flush().wait()?;
    file.close();
    assert_eq!((file.losses().dropped, file.losses().failed), (0, 0), "every card is on file");
    Ok(())
}

fn window(store: &Path, records: u64) -> Result<()> {
    begin(store)?;
    let clock = Clock::system();
    let options =
        audit::Options { durability: Durability::Process, queue: 100_000, ..audit::Options::default() };
    let file = AuditStore::open(store, options, clock.clone())?;
    let client = AppId::parse(APPID).expect("six digits");
    let group = Arc::<str>::from(GROUP);
    let begun = clock.now().minus(Duration::from_secs(240));
    let step = Duration::from_secs(240) / u32::try_from(records)?.max(1);
    for n in 0..records {
        let at = begun.plus(step * u32::try_from(n)?);
        let stamp = Stamp::from_unix(at.as_secs()).expect("a moment of this century");
        let sequence = Sequence::new(u32::try_from(n)? + 1).expect("fewer than a hundred million");
        let record = file.append(LookupRow {
            at,
            client: Some(client),
            group: Some(Arc::clone(&group)),
            account: None,
            peer: "127.0.0.1".parse()?,
            operation: Some(USER_STATUS.name),
            card: Some(card(n)),
            transid: Some(Transid::new(&client, stamp, sequence).as_str().into()),
            outcome: "hit",
            reason: None,
            code: "0".into(),
            carrier_code: Some("0".into()),
            status: Some("00".into()),
            age: Some(Duration::from_secs(1)),
            carrier_transid: None,
            latency: Duration::from_micros(100),
            authenticated: true,
            action: false,
        });
        if n % 1_000 == 999 || n + 1 == records {
            record.wait()?;
        }
    }
    file.close();
    Ok(())
}

fn memory(config: &Path, cards: u64) -> Result<()> {
    let (config, _) = Config::load(config)?;
    let clock = Clock::system();
    let file = Arc::new(CacheStore::open(&config.store_dir, 20_000)?);
    let cache = Cache::new(&config, file, clock.clone());
    let group = config.groups.keys().next().expect("one account, one group");
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build()?;
    let before = resident("self")?;
    for n in 0..cards {
        let key = Key::new(group, USER_STATUS, &card(n));
        assert!(runtime.block_on(cache.look_up(&key)).is_some(), "card {n} is on file and fresh");
        if n % 1_000 == 999 {
            cache.run_maintenance();
        }
    }
    cache.run_maintenance();
    let grown = resident("self")?.saturating_sub(before);
    // A multiplicative hash spreads the cards; which is all that randomness is for here.
    let random = |n: u64| (n.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 20) % cards;
    let keys: HashMap<u64, Key> =
        (0..100_000).map(|n| (n, Key::new(group, USER_STATUS, &card(random(n))))).collect();
    let begun = clock.monotonic();
    let found =
        keys.values().filter(|key| black_box(cache.get_in_memory(key, clock.now())).is_some()).count();
    let took = clock.monotonic().saturating_sub(begun);
    assert_eq!(found, keys.len());
    println!("RESULT {} {} {}", cache.entry_count(), grown, took.as_nanos() / found as u128);
    Ok(())
}

/// Resident memory of a process, in bytes.
fn resident(process: &str) -> Result<u64> {
    let status = fs::read_to_string(format!("/proc/{process}/status"))?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).ok_or("no VmRSS")?;
    Ok(line.trim().trim_end_matches(" kB").parse::<u64>()? * 1_024)
}
