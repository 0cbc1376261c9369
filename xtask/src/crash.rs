//! `cargo xtask crash`: kill -9 under load, again and again; then the audit verifies and has every answer.
//!
//! Gateways ask a real proxy over sockets and note each transid whose answer came whole. After the kill the chain is
//! verified and every noted transid looked for. With `--power` a preload (`crash/synced.c`) notes how long each file was
//! when it was last synced, and every file is cut back to that before it is looked at: what was written but not synced
//! is gone, as with a lost machine. Under `durability = "process"` that must lose answers, or it would prove nothing.

use std::collections::HashSet;
use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::net::TcpStream;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::thread;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result, bail, ensure};
use cmiot_signer::{AppId, Card, CardKind, Ebid, Password, Sequence, Signer, Stamp};

use crate::run::{Run, root, target};
use crate::serving::Serving;

/// How to crash.
#[derive(clap::Args)]
pub(crate) struct Options {
    /// How often
    #[arg(long, default_value_t = 200)]
    rounds: u32,
    /// Cut every file back to what was synced, as a power loss does; shows too that `process` does not survive it
    #[arg(long)]
    power: bool,
    /// The executable to kill, instead of a debug build
    #[arg(long, value_name = "FILE")]
    program: Option<PathBuf>,
}

/// What a run of rounds came to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Tally {
    answered: usize,
    lost: usize,
    broken_chains: u32,
}

const GATEWAYS: u32 = 8;
const EBID: &str = "0001000000009";

/// Crashes and prints; an error when an answer was lost.
pub(crate) fn command(options: &Options) -> Result<()> {
    let program = match &options.program {
        Some(program) => program.clone(),
        None => build()?,
    };
    let tally = crash(&program, options.rounds, "power", options.power)?;
    tell("power", &tally);
    ensure!(
        tally.lost == 0 && tally.broken_chains == 0,
        "an answered request is missing, or the chain is broken"
    );
    if options.power {
        let tally = crash(&program, options.rounds.min(20), "process", true)?;
        tell("process", &tally);
        ensure!(tally.lost > 0, "nothing was lost under durability = \"process\": the cut proves nothing");
    }
    Ok(())
}

fn tell(durability: &str, tally: &Tally) {
    let chain = if tally.broken_chains == 0 { "ok" } else { "BROKEN" };
    println!(
        "durability {durability}: answered {}, audited {}, lost {}, chain {chain}",
        tally.answered,
        tally.answered - tally.lost,
        tally.lost
    );
}

fn crash(program: &Path, rounds: u32, durability: &str, cut: bool) -> Result<Tally> {
    let folder = root().join("target").join(format!("crash-{}-{durability}-{cut}", std::process::id()));
    let _ = fs::remove_dir_all(&folder); // an earlier run's
    fs::create_dir_all(folder.join("synced"))?;
    let (_carrier, base_url) = carrier(program)?;
    crate::run::write_private(&folder.join("proxy.toml"), &config(&base_url, durability))?;
    let preload = if cut { Some(preload(&folder)?) } else { None };
    let sequence = Arc::new(AtomicU32::new(1));
    let mut tally = Tally::default();
    let mut seen = HashSet::new();
    for round in 0..rounds {
        let (mut proxy, address) = proxy(program, &folder, preload.as_deref())?;
        let gateways: Vec<_> = (0..GATEWAYS)
            .map(|_| {
                let (address, sequence) = (address.clone(), Arc::clone(&sequence));
                thread::spawn(move || ask(&address, &sequence))
            })
            .collect();
        // At no particular point: the rounds differ by a step that shares no factor with anything here.
        thread::sleep(Duration::from_millis(100 + u64::from(round * 37 % 401)));
        proxy.kill()?;
        for gateway in gateways {
            seen.extend(gateway.join().map_err(|_| anyhow::anyhow!("a gateway panicked"))??);
        }
        if cut {
            cut_back(&folder)?;
        }
        let verified =
            Command::new(program).args(["audit", "verify", "--dir"]).arg(folder.join("data")).output()?;
        if !verified.status.success() {
            eprintln!("{}", String::from_utf8_lossy(&verified.stdout));
            tally.broken_chains += 1;
        }
        let audited = audited(program, &folder)?;
        let lost = seen.iter().filter(|transid: &&String| !audited.contains(transid.as_str())).count();
        tally.answered += seen.len();
        tally.lost += lost;
        seen.clear();
    }
    fs::remove_dir_all(&folder)?;
    ensure!(tally.answered >= rounds as usize, "{} answers in {rounds} rounds are no load", tally.answered);
    Ok(tally)
}

/// One gateway: on and on over one connection until it breaks; the transids whose answers came whole.
fn ask(address: &str, sequence: &AtomicU32) -> Result<Vec<String>> {
    let (appid, ebid) = (AppId::parse("GW0001")?, Ebid::parse(EBID)?);
    let password = Password::new(b"gateway-password")?;
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
            Some(body) if body.contains("\"status\":\"0\"") => answered.push(transid),
            // A busy machine misses its deadlines; that promises nothing.
            Some(body) if body.contains("\"status\":\"73\"") => {}
            Some(body) => bail!("not an answer of the carrier's: {body}"),
            None => return Ok(answered),
        }
    }
}

/// A whole answer's body, or none when the connection broke before.
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
        .args(["audit", "query", "--format", "csv", "--limit", "100000000", "--since", "2m", "--dir"])
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

/// Cuts every file of the proxy back to what it was when it was last synced.
fn cut_back(folder: &Path) -> Result<()> {
    for entry in fs::read_dir(folder.join("data"))? {
        let path = entry?.path();
        let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
        // The index of a WAL is memory that the next process builds anew.
        if name.ends_with("-shm") {
            fs::remove_file(&path)?;
            continue;
        }
        let file = fs::OpenOptions::new().write(true).open(&path)?;
        let length = synced_length(folder, &path, file.metadata()?.ino())?;
        if file.metadata()?.len() > length {
            file.set_len(length)?;
        }
    }
    Ok(())
}

/// How long this very file was when it was last synced. By its inode: a WAL of this name may have come and gone before,
/// and by its path: an inode may have been another file's.
fn synced_length(folder: &Path, path: &Path, inode: u64) -> Result<u64> {
    let Ok(note) = fs::read_to_string(folder.join("synced").join(inode.to_string())) else { return Ok(0) };
    let (length, noted) = note.trim_end().split_once(' ').context("a note of the preload")?;
    Ok(if Path::new(noted) == path { length.parse()? } else { 0 })
}

fn preload(folder: &Path) -> Result<PathBuf> {
    let library = folder.join("synced.so");
    let source = root().join("xtask/src/crash/synced.c");
    Run::new("cc")
        .args(["-shared", "-fPIC", "-O1", "-Wall", "-o"])
        .args([&library, &source])
        .args(["-ldl"])
        .run()?;
    Ok(library)
}

/// Builds the proxy.
fn build() -> Result<PathBuf> {
    Run::cargo("build --package cmiot-proxy --bins").run()?;
    let path = target().join("debug/cmiot-proxy");
    ensure!(path.is_file(), "{} is not built", path.display());
    Ok(path)
}

/// A simulated carrier, and its base URL.
fn carrier(program: &Path) -> Result<(Serving, String)> {
    let account = format!("100001:{EBID}:carrier-password");
    let mut carrier = Serving::start(Command::new(program).args([
        "simulate",
        "--listen",
        "127.0.0.1:0",
        "--account",
        &account,
    ]))?;
    let base_url = carrier.told("simulated carrier ")?;
    Ok((carrier, base_url))
}

/// The proxy, and where gateways ask.
fn proxy(program: &Path, folder: &Path, preload: Option<&Path>) -> Result<(Serving, String)> {
    let mut command = Command::new(program);
    command.args(["serve", "--config"]).arg(folder.join("proxy.toml")).env("RUST_LOG", "error");
    if let Some(preload) = preload {
        command.env("LD_PRELOAD", preload).env("SYNCED", folder.join("synced"));
    }
    let mut proxy = Serving::start(&mut command)?;
    let address = proxy.told("gateway http://")?;
    Ok((proxy, address))
}

/// Freshness by default: the first look-ups of a round are calls, most are hits.
fn config(base_url: &str, durability: &str) -> String {
    format!(
        r#"[gateway]
listen = "127.0.0.1:0"
[admin]
listen = "127.0.0.1:0"
[carrier]
base_url = "{base_url}"
[audit]
durability = "{durability}"
[[account]]
name = "fleet"
appid = "100001"
ebid = "{EBID}"
password = "carrier-password"
[[client]]
group = "fleet"
appid = "GW0001"
password = "gateway-password"
"#
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_kill_loses_no_answer() {
        let program = build().unwrap();
        let tally = crash(&program, 10, "power", false).unwrap();
        assert!(tally.answered > 0);
        assert_eq!((tally.lost, tally.broken_chains), (0, 0));
    }

    #[test]
    fn a_power_loss_loses_no_answer_and_the_cut_is_real() {
        let program = build().unwrap();
        let tally = crash(&program, 10, "power", true).unwrap();
        assert!(tally.answered > 0);
        assert_eq!((tally.lost, tally.broken_chains), (0, 0));
        assert!(crash(&program, 10, "process", true).unwrap().lost > 0);
    }
}
