//! `cargo xtask crash`: kill -9 under load, repeatedly; after each kill the audit must verify and have every answer.
//!
//! Gateways send requests to a real proxy over sockets, and note each request with a complete response. After the kill the
//! chain is verified, and every noted transid must be in the audit; after the next start the last of these requests are
//! sent again, and all must be refused. With `--power` the proxy's files are on a disk that keeps only synced data
//! ([`disk`]), and the power is lost at each kill: some of the other pages are kept, some are not. In most rounds syncs
//! fail as well: one, several in a row, so many that the process ends itself and is started again, or every nth; with and
//! without a reader that prevents checkpoints. Under `durability = "process"` a power loss must lose answers, or the test
//! would prove nothing.

mod disk;

use std::collections::HashSet;
use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::thread;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result, bail, ensure};
use cmiot_signer::{AppId, Card, CardKind, Ebid, Password, Sequence, Signer, Stamp};

use self::disk::Disk;
use crate::debug_build;
use crate::run::root;
use crate::server_process::ServerProcess;
use crate::setup::{self, EBID, GATEWAY};

/// Options of the crashes.
#[derive(clap::Args)]
pub(crate) struct Options {
    /// Number of rounds
    #[arg(long, default_value_t = 200)]
    rounds: u32,
    /// Lose the power too: files keep what was synced, and syncs fail; shows as well that `process` does not survive it
    #[arg(long)]
    power: bool,
    /// The executable to kill, instead of a debug build
    #[arg(long, value_name = "FILE")]
    program: Option<PathBuf>,
}

/// Result of all rounds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Tally {
    answered: usize,
    lost: usize,
    broken_chains: u32,
    /// Requests that were answered, sent again after the next start.
    repeated: usize,
    /// Those of them that were not refused.
    accepted: usize,
    /// Restarts after the process ended itself.
    restarts: u32,
}

/// Which syncs fail in a round.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Syncs {
    Well,
    /// So many in a row, at some moment.
    Fail(i32),
    /// Each so many.
    FailEvery(i32),
}

const GATEWAYS: u32 = 8;
/// Number of answered requests that are sent again after a start.
const REPEATED: usize = 40;
/// Time until the proxy retries a failed sync for the last time, with a margin.
const LAST_ATTEMPT: Duration = Duration::from_millis(5_700);
/// Attempts to restart a proxy that ended itself: a start may fail while syncs fail.
const STARTS: u32 = 20;

/// Crashes and prints; an error when an answer was lost.
pub(crate) fn command(options: &Options) -> Result<()> {
    let program = match &options.program {
        Some(program) => program.clone(),
        None => debug_build::program()?,
    };
    let tally = crash(&program, options.rounds, "power", options.power)?;
    tell("power", &tally);
    ensure!(
        tally.lost == 0 && tally.broken_chains == 0 && tally.accepted == 0,
        "an answered request is missing or was answered again, or the chain is broken"
    );
    if options.power {
        let tally = crash(&program, options.rounds.min(20), "process", true)?;
        tell("process", &tally);
        ensure!(
            tally.lost > 0,
            "nothing was lost under durability = \"process\": the power loss proves nothing"
        );
    }
    Ok(())
}

fn tell(durability: &str, tally: &Tally) {
    let chain = if tally.broken_chains == 0 { "ok" } else { "BROKEN" };
    println!(
        "durability {durability}: sent again {}, accepted {}; restarted after failed syncs {}",
        tally.repeated, tally.accepted, tally.restarts
    );
    println!(
        "durability {durability}: answered {}, audited {}, lost {}, chain {chain}",
        tally.answered,
        tally.answered - tally.lost,
        tally.lost
    );
}

fn crash(program: &Path, rounds: u32, durability: &str, power: bool) -> Result<Tally> {
    let folder = root().join("target").join(format!("crash-{}-{durability}-{power}", std::process::id()));
    let _ = fs::remove_dir_all(&folder); // an earlier run's
    fs::create_dir_all(&folder)?;
    let data = folder.canonicalize()?.join("data");
    let (_carrier, base_url) = carrier(program)?;
    crate::run::write_private(&folder.join("proxy.toml"), &config(&base_url, durability))?;
    let mut disk = if power { Some(Disk::new(&folder, data.clone())?) } else { None };
    let sequence = Arc::new(AtomicU32::new(1));
    let mut tally = Tally::default();
    let mut answered: Vec<Asked> = Vec::new();
    for round in 0..rounds {
        // Under `process` it is shown that answers are lost without any failure.
        let syncs = if power && durability == "power" { syncs_of(round) } else { Syncs::Well };
        let (mut proxy, address) = proxy(program, &folder, disk.as_ref())?;
        // Those that a power loss took under `process` have no record.
        if durability == "power" {
            tally.repeated += answered.len();
            tally.accepted += again(&address, &answered)?;
        }
        answered.clear();
        let mut gateways = ask_all(&address, &sequence);
        let reader = if power && round % 2 == 1 { Some(reader(&data)?) } else { None };
        // At no particular point: the rounds differ by a step that shares no factor with anything here.
        thread::sleep(Duration::from_millis(100 + u64::from(round * 37 % 401)));
        if let Some(disk) = &disk {
            fail_syncs(disk, syncs)?;
        }
        // Three failures in a row end the process, later on a busy machine.
        let mut looks = if matches!(syncs, Syncs::Fail(3..)) { 100 } else { 0 };
        while looks > 0 && !proxy.has_ended()? {
            thread::sleep(Duration::from_millis(100));
            looks -= 1;
        }
        if proxy.has_ended()? {
            tally.restarts += 1;
            let again = restart(program, &folder, disk.as_ref())?;
            proxy = again.0;
            gateways.extend(ask_all(&again.1, &sequence));
            thread::sleep(Duration::from_millis(300));
        }
        proxy.kill()?;
        for gateway in gateways {
            answered.extend(gateway.join().map_err(|_| anyhow::anyhow!("a gateway panicked"))??);
        }
        drop(reader);
        if let Some(disk) = &mut disk {
            disk.fail(0, 0)?;
            let share = [0, 0, 50, 90][usize::try_from(disk.below(4))?];
            disk.lose_power(share)?;
        }
        if let Some(damage) = verify(program, &folder)? {
            eprintln!("round {round}, {syncs:?}: {damage}");
            tally.broken_chains += 1;
        }
        let audited = audited(program, &folder)?;
        let lost = answered.iter().filter(|asked| !audited.contains(&asked.transid)).count();
        if lost > 0 && durability == "power" {
            eprintln!("round {round}, {syncs:?}: {lost} of {} answers are lost", answered.len());
        }
        tally.answered += answered.len();
        tally.lost += lost;
        answered.drain(..answered.len().saturating_sub(REPEATED));
    }
    fs::remove_dir_all(&folder)?;
    ensure!(tally.answered >= rounds as usize, "{} answers in {rounds} rounds are no load", tally.answered);
    Ok(tally)
}

/// Starts the failures of this round, and waits for their effect.
fn fail_syncs(disk: &Disk, syncs: Syncs) -> Result<()> {
    match syncs {
        Syncs::Well => return Ok(()),
        Syncs::Fail(left) => disk.fail(left, 0)?,
        Syncs::FailEvery(every) => disk.fail(0, every)?,
    }
    // After this time the proxy writes again, or has ended.
    let has_last_attempt = matches!(syncs, Syncs::Fail(2..));
    thread::sleep(if has_last_attempt { LAST_ATTEMPT } else { Duration::from_millis(300) });
    Ok(())
}

/// The damage that `audit verify` reports, if any.
fn verify(program: &Path, folder: &Path) -> Result<Option<String>> {
    let verified =
        Command::new(program).args(["audit", "verify", "--dir"]).arg(folder.join("data")).output()?;
    let damage = String::from_utf8_lossy(&verified.stdout).into_owned();
    Ok((!verified.status.success()).then_some(damage))
}

/// One, several in a row, so many that the process ends, every so many, and none: with an odd number of kinds, each comes
/// with a reader and without.
fn syncs_of(round: u32) -> Syncs {
    match round % 7 {
        0 => Syncs::Well,
        1 | 5 => Syncs::Fail(1),
        2 => Syncs::Fail(2),
        3 => Syncs::Fail(3 + (round / 7 % 4).cast_signed()),
        4 => Syncs::FailEvery(3 + (round % 11).cast_signed()),
        _ => Syncs::FailEvery(20 + (round % 31).cast_signed()),
    }
}

/// Gateways that ask until the proxy is gone.
fn ask_all(address: &str, sequence: &Arc<AtomicU32>) -> Vec<thread::JoinHandle<Result<Vec<Asked>>>> {
    (0..GATEWAYS)
        .map(|_| {
            let (address, sequence) = (address.to_owned(), Arc::clone(sequence));
            thread::spawn(move || ask(&address, &sequence))
        })
        .collect()
}

/// A request that was answered.
struct Asked {
    transid: String,
    url: String,
}

/// Sends requests again; how many were not refused as repeated.
fn again(address: &str, asked: &[Asked]) -> Result<usize> {
    let stream = TcpStream::connect(address)?;
    stream.set_read_timeout(Some(Duration::from_secs(20)))?;
    let mut reader = BufReader::new(stream.try_clone()?);
    let mut writer = stream;
    let mut accepted = 0;
    for Asked { url, .. } in asked {
        write!(writer, "GET {url} HTTP/1.1\r\nHost: x\r\n\r\n")?;
        let body = answer(&mut reader).context("no answer to a request that was sent again")?;
        accepted += usize::from(!body.contains("\"status\":\"7\""));
    }
    Ok(accepted)
}

/// An auditor's shell that holds a transaction open, and with it the WAL.
fn reader(data: &Path) -> Result<Reader> {
    let segment = fs::read_dir(data)?
        .filter_map(Result::ok)
        .map(|entry| entry.path())
        .find(|path| {
            let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
            name.starts_with("audit-2") && name.ends_with(".db")
        })
        .context("no segment")?;
    let mut shell = Command::new("sqlite3")
        .arg("-readonly")
        .arg(segment)
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .spawn()
        .context("sqlite3: run `cargo xtask test` once, which brings it")?;
    let input = shell.stdin.as_mut().context("a pipe that was asked for")?;
    writeln!(input, "BEGIN; SELECT count(*) FROM record;")?;
    Ok(Reader(shell))
}

struct Reader(Child);

impl Drop for Reader {
    fn drop(&mut self) {
        // Its input ends with it.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Starts a proxy that ended itself, as a supervisor does.
fn restart(program: &Path, folder: &Path, disk: Option<&Disk>) -> Result<(ServerProcess, String)> {
    let mut last = None;
    for _ in 0..STARTS {
        match proxy(program, folder, disk) {
            Ok(started) => return Ok(started),
            Err(error) => last = Some(error),
        }
    }
    Err(last.context("no start was tried")?)
}

/// One gateway: on and on over one connection until it breaks; the requests whose answers came whole.
fn ask(address: &str, sequence: &AtomicU32) -> Result<Vec<Asked>> {
    let (appid, ebid) = (AppId::parse(GATEWAY.appid)?, Ebid::parse(EBID)?);
    let password = Password::new(GATEWAY.password.as_bytes())?;
    let mut answered = Vec::new();
    let Ok(stream) = TcpStream::connect(address) else { return Ok(answered) };
    stream.set_read_timeout(Some(Duration::from_secs(20)))?;
    let mut reader = BufReader::new(stream.try_clone()?);
    let mut writer = stream;
    loop {
        let number = sequence.fetch_add(1, Ordering::Relaxed);
        let card = Card::parse(CardKind::Msisdn, &format!("147650{:05}", number % 40))?;
        #[expect(clippy::disallowed_methods, reason = "a gateway has the real time")]
        let now = SystemTime::now().duration_since(UNIX_EPOCH)?.as_secs();
        let signed =
            Signer::new(&appid, &ebid, &password).sign(Stamp::from_unix(now)?, Sequence::new(number)?, &card);
        let mut url = String::new();
        signed.write_url("", cmiot_signer::PATH, &mut url)?;
        let transid = url.split_once("transid=").and_then(|(_, rest)| rest.split('&').next());
        let transid = transid.context("a URL without a transid")?.to_owned();
        if write!(writer, "GET {url} HTTP/1.1\r\nHost: x\r\n\r\n").is_err() {
            return Ok(answered);
        }
        match answer(&mut reader) {
            Some(body) if body.contains("\"status\":\"0\"") => answered.push(Asked { transid, url }),
            // A busy machine misses its deadlines, and nothing is answered while syncs fail; that promises nothing.
            Some(body) if body.contains("\"status\":\"73\"") => thread::sleep(Duration::from_millis(5)),
            Some(body) => bail!("not a carrier response: {body}"),
            None => return Ok(answered),
        }
    }
}

/// Body of a complete response; `None` when the connection broke.
fn answer(reader: &mut impl BufRead) -> Option<String> {
    let mut length = 0;
    loop {
        let mut line = String::new();
        reader.read_line(&mut line).ok().filter(|read| *read > 0)?;
        let line = line.trim_end();
        if line.is_empty() {
            break;
        }
        if let Some(value) = line.to_ascii_lowercase().strip_prefix("content-length:") {
            length = value.trim().parse().ok()?;
        }
    }
    let mut body = vec![0; length];
    reader.read_exact(&mut body).ok()?;
    String::from_utf8(body).ok()
}

/// Every transid that the audit has.
fn audited(program: &Path, folder: &Path) -> Result<HashSet<String>> {
    let output = Command::new(program)
        .args(["audit", "query", "--format", "csv", "--limit", "1000000", "--since", "2m", "--dir"])
        .arg(folder.join("data"))
        .output()?;
    if !output.status.success() {
        // A cut may leave nothing of a file: then it has no answer.
        eprintln!("audit query: {}", String::from_utf8_lossy(&output.stderr).trim());
        return Ok(HashSet::new());
    }
    let text = String::from_utf8(output.stdout)?;
    // The tenth column; none before it holds a comma.
    Ok(text.lines().skip(1).filter_map(|line| line.split(',').nth(9)).map(str::to_owned).collect())
}

/// A simulated carrier, and its base URL.
fn carrier(program: &Path) -> Result<(ServerProcess, String)> {
    let mut carrier = ServerProcess::start(setup::simulate(&mut Command::new(program)))?;
    let base_url = carrier.wait_for_line("simulated carrier ")?;
    Ok((carrier, base_url))
}

/// The proxy, and where gateways ask.
fn proxy(program: &Path, folder: &Path, disk: Option<&Disk>) -> Result<(ServerProcess, String)> {
    let mut command = Command::new(program);
    command.args(["serve", "--config"]).arg(folder.join("proxy.toml")).env("RUST_LOG", "off");
    if let Some(disk) = disk {
        disk.under(&mut command);
    }
    let mut proxy = ServerProcess::start(&mut command)?;
    let address = proxy.wait_for_line("gateway http://")?;
    Ok((proxy, address))
}

/// Freshness by default: the first lookups of a round are calls, most are hits.
fn config(base_url: &str, durability: &str) -> String {
    let settings = format!("audit.durability = \"{durability}\"");
    setup::config(base_url, &settings) + &setup::client_table(GATEWAY)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_kill_loses_no_answer() {
        let program = debug_build::program().unwrap();
        let tally = crash(&program, 10, "power", false).unwrap();
        assert!(tally.answered > 0);
        assert_eq!((tally.lost, tally.broken_chains, tally.accepted), (0, 0, 0));
    }

    #[test]
    fn a_power_loss_with_failing_syncs_loses_no_answer_and_is_real() {
        let program = debug_build::program().unwrap();
        // Each kind of failing syncs once.
        let tally = crash(&program, 7, "power", true).unwrap();
        assert!(tally.answered > 0 && tally.repeated > 0 && tally.restarts > 0, "{tally:?}");
        assert_eq!((tally.lost, tally.broken_chains, tally.accepted), (0, 0, 0));
        assert!(crash(&program, 10, "process", true).unwrap().lost > 0);
    }
}
