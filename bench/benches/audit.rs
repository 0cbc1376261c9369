//! The cost of an audit record, and the time of queries: run by `cargo xtask bench audit`.
//!
//! Callers are tasks that wait for each commit before they append again. CPU is the process's own, callers included,
//! and the writer thread's. Files are filled with lookups of a month, a million distinct cards at random.

use std::fs;
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use cmiot_proxy::clock::{Clock, Time};
use cmiot_proxy::store::audit::query::{Bucket, Filter, changes, lookups, stats};
use cmiot_proxy::store::audit::verify::{Scope, verify};
use cmiot_proxy::store::audit::{AuditStore, Durability, LookupRow, Options};
use cmiot_signer::{AppId, Card, CardKind};

/// 2026-01-01T00:00:00+08:00
const NEW_YEAR: Time = Time::from_secs(1_767_196_800);
const CARDS: u64 = 1_000_000;
const HOUR: u64 = 3_600;
const DAY: u64 = 24 * HOUR;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut seconds = 3;
    let mut sizes = vec![100_000, 1_000_000, 10_000_000];
    let mut arguments = std::env::args().skip(1);
    while let Some(argument) = arguments.next() {
        let mut value = || arguments.next().unwrap_or_default();
        match argument.as_str() {
            "--seconds" => seconds = value().parse()?,
            "--rows" => sizes = value().split(',').map(str::parse).collect::<Result<_, _>>()?,
            // cargo's own.
            _ => {}
        }
    }
    println!("durability  callers  records/s  CPU us/record  writer us/record");
    for durability in [Durability::Power, Durability::Process] {
        for callers in [1, 32, 256, 1_024] {
            record(durability, callers, Duration::from_secs(seconds))?;
        }
    }
    for rows in sizes {
        find(rows)?;
    }
    Ok(())
}

/// The most frequent lookup, a hit.
fn row(n: u64, at: Time, shared: &(AppId, Arc<str>)) -> LookupRow {
    // A multiplicative hash spreads the cards; which is all that randomness is for here.
    let card = n.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 20;
    let card = Card::parse(CardKind::Msisdn, &format!("147{:08}", card % CARDS)).expect("eleven digits");
    LookupRow {
        at,
        client: Some(shared.0),
        group: Some(Arc::clone(&shared.1)),
        account: None,
        peer: "192.0.2.7".parse().expect("an address"),
        operation: Some("userstatusrealsingle"),
        card: Some(card),
        transid: Some(format!("GW000120260115120000{:08}", n % 100_000_000).as_str().into()),
        outcome: "hit",
        reason: None,
        code: "0".into(),
        carrier_code: Some("0".into()),
        status: Some(if n.is_multiple_of(1_000) { "02".into() } else { "00".into() }),
        age: Some(Duration::from_micros(27_250_000 + n % 1_000)),
        carrier_transid: None,
        latency: Duration::from_micros(100 + n % 900),
        authenticated: true,
        action: false,
    }
}

fn shared() -> (AppId, Arc<str>) {
    (AppId::parse("GW0001").expect("an appid"), "fleet".into())
}

fn record(durability: Durability, callers: u64, time: Duration) -> Result<(), Box<dyn std::error::Error>> {
    let dir = tempfile::tempdir_in(target())?;
    let clock = Clock::system();
    let store =
        Arc::new(AuditStore::open(dir.path(), Options { durability, ..Options::default() }, clock.clone())?);
    let (stop, count) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    let (cpu, writer, started) = (process_cpu()?, writer_cpu()?, clock.monotonic());
    // As the proxy has one.
    let notified = Arc::clone(&store);
    runtime.spawn(async move { notified.notifier().await });
    runtime.block_on(async {
        let mut tasks = tokio::task::JoinSet::new();
        for caller in 0..callers {
            let (store, stop, count, clock) =
                (Arc::clone(&store), Arc::clone(&stop), Arc::clone(&count), clock.clone());
            tasks.spawn(async move {
                let shared = shared();
                let mut n = caller << 32;
                while !stop.load(Ordering::Relaxed) {
                    n += 1;
                    store.append(row(n, clock.now(), &shared)).await.expect("a writable disk");
                    count.fetch_add(1, Ordering::Relaxed);
                }
            });
        }
        tokio::time::sleep(time).await;
        stop.store(true, Ordering::Relaxed);
        while tasks.join_next().await.is_some() {}
    });
    let took = clock.monotonic().saturating_sub(started).as_secs_f64();
    let records = count.load(Ordering::Relaxed) as f64;
    println!(
        "{:<10}  {callers:>7}  {:>9.0}  {:>13.2}  {:>16.2}",
        format!("{durability:?}").to_lowercase(),
        records / took,
        (process_cpu()? - cpu) * 1e6 / records,
        (writer_cpu()? - writer) * 1e6 / records,
    );
    store.close();
    Ok(())
}

/// Fills a segment with this number of rows, and times queries over it.
fn find(rows: u64) -> Result<(), Box<dyn std::error::Error>> {
    let dir = tempfile::tempdir_in(target())?;
    let folder = dir.path();
    let clock = Clock::system();
    let segment = fill(folder, rows, &clock)?;
    let filter = |since: Time, length: u64| {
        let until = Some(since.plus(Duration::from_secs(length)));
        Filter { since: Some(since), until, ..Filter::default() }
    };
    let of_card = |n| Filter { card: Some(card(n)), ..Filter::default() };
    timed(&clock, "a card's latest 50", 100, |n| {
        lookups(folder, &of_card(n), 50, None).expect("a segment").len()
    });
    timed(&clock, "50 of an hour three days ago", 20, |n| {
        let since = NEW_YEAR.plus(Duration::from_secs(27 * DAY + u64::from(n) * HOUR));
        lookups(folder, &filter(since, HOUR), 50, None).expect("a segment").len()
    });
    timed(&clock, "stats of a day by hour", 5, |n| {
        let since = NEW_YEAR.plus(Duration::from_secs(DAY * (5 + 3 * u64::from(n))));
        stats(folder, &filter(since, DAY), Bucket::Hour).expect("a segment").len()
    });
    timed(&clock, "a card's status changes", 1, |n| {
        let mut found = 0;
        changes(folder, &of_card(n), None, |_| {
            found += 1;
            ControlFlow::Continue(())
        })
        .expect("a segment");
        found
    });
    timed(&clock, "verify", 1, |_| {
        verify(folder, &Scope::default(), |_, _| {}).expect("a segment").damage.len()
    });
    timed(&clock, "by_card in the sqlite3 shell", 5, |n| shell(&segment, card(n).as_str()));
    Ok(())
}

/// Writes a segment of January with this number of rows, and returns its file.
fn fill(folder: &Path, rows: u64, clock: &Clock) -> Result<PathBuf, Box<dyn std::error::Error>> {
    let (manual, _hand) = Clock::manual(NEW_YEAR);
    let options = Options { durability: Durability::Process, queue: 100_000, ..Options::default() };
    let store = AuditStore::open(folder, options, manual)?;
    let shared = shared();
    let step = 30 * DAY * 1_000_000 / rows;
    let (writer, started) = (writer_cpu()?, clock.monotonic());
    let mut n = 0;
    while n < rows {
        let chunk = 1_000.min(rows - n);
        let mut last = None;
        for _ in 0..chunk {
            let at = NEW_YEAR.plus(Duration::from_micros(n * step));
            last = Some(store.append(row(n, at, &shared)));
            n += 1;
        }
        last.map_or(Ok(()), cmiot_proxy::store::audit::Appended::wait)?;
    }
    let filled = clock.monotonic().saturating_sub(started);
    let writer = (writer_cpu()? - writer) * 1e6 / rows as f64;
    store.close();
    let segment = folder.join("audit-2026-01.db");
    let bytes = fs::metadata(&segment)?.len() / rows;
    println!(
        "\n{rows} rows, {CARDS} cards: {bytes} bytes per row, writer {writer:.2} us per row, filled in {filled:.1?}"
    );
    Ok(segment)
}

/// Prints the median and the longest time of a query, and the rows that it found in all.
fn timed(clock: &Clock, name: &str, times: u32, mut query: impl FnMut(u32) -> usize) {
    let mut took: Vec<Duration> = Vec::new();
    let mut found = 0;
    for n in 0..times {
        let before = clock.monotonic();
        found += query(n);
        took.push(clock.monotonic().saturating_sub(before));
    }
    took.sort_unstable();
    let (median, worst) = (took[took.len() / 2], took[took.len() - 1]);
    println!("  {name:<40} median {median:>9.2?}  worst {worst:>9.2?}  ({found} rows)");
}

/// One of the cards, another for each number.
fn card(n: u32) -> Card {
    Card::parse(CardKind::Msisdn, &format!("147{:08}", u64::from(n) * 7_919 % CARDS)).expect("a card")
}

/// The stock shell's rows; the time is that of the whole process.
fn shell(path: &Path, card: &str) -> usize {
    let sql = format!("SELECT * FROM by_card WHERE card = '{card}' ORDER BY id DESC LIMIT 50");
    let output = Command::new("sqlite3").arg("-readonly").arg(path).arg(sql).output();
    output.map_or(0, |output| output.stdout.split(|byte| *byte == b'\n').count() - 1)
}

/// A folder on the disk of the workspace: a temporary folder may be in memory.
fn target() -> &'static Path {
    Path::new(env!("CARGO_TARGET_TMPDIR"))
}

/// Seconds of CPU of this process, to 10 ms.
fn process_cpu() -> std::io::Result<f64> {
    let stat = fs::read_to_string("/proc/self/stat")?;
    let fields: Vec<&str> = stat.rsplit(')').next().unwrap_or_default().split_whitespace().collect();
    let ticks = |index: usize| fields.get(index).and_then(|field| field.parse::<f64>().ok()).unwrap_or(0.0);
    Ok((ticks(11) + ticks(12)) / 100.0)
}

/// Seconds of CPU of the audit's writer thread.
fn writer_cpu() -> std::io::Result<f64> {
    for task in fs::read_dir("/proc/self/task")? {
        let task = task?.path();
        if fs::read_to_string(task.join("comm")).is_ok_and(|name| name.trim() == "audit-writer") {
            let spent = fs::read_to_string(task.join("schedstat"))?;
            return Ok(
                spent.split_whitespace().next().and_then(|ns| ns.parse::<f64>().ok()).unwrap_or(0.0) / 1e9
            );
        }
    }
    Ok(0.0)
}
