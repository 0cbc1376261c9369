//! One server under load: started in a process group of its own on processor 0, its CPU read from /proc, ended by id.

use std::fs;
use std::io::{BufRead, BufReader};
use std::net::{TcpListener, TcpStream};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread::sleep;
use std::time::Duration;

use anyhow::{Context, Result, bail};

use crate::run::{root, target};

/// What the load signs with: the account's own credentials.
pub(super) const APPID: &str = "100001";
/// Its password.
pub(super) const PASSWORD: &str = "bench-password";
/// Its ebid.
pub(super) const EBID: &str = "0001000000009";

/// A server to measure.
pub(super) struct Spec {
    /// Its name in the table.
    pub(super) name: &'static str,
    /// One of ours: the others are what it is compared with.
    pub(super) ours: bool,
    /// The folder to work in, the carrier behind it, the proxy's executable, and the port.
    command: fn(&Path, &Origin, &Path, u16) -> Result<Command>,
}

/// Ours, whose answers outlive a loss of power.
pub(super) const POWER: Spec = Spec {
    name: "cmiot-proxy power",
    ours: true,
    command: |at, origin, program, port| ours(at, origin, program, port, "audit.durability = \"power\""),
};

/// The same, with room in memory for any number of cards that a bench has.
pub(super) const FLEET: Spec = Spec {
    name: "cmiot-proxy fleet",
    ours: true,
    command: |at, origin, program, port| {
        ours(at, origin, program, port, "audit.durability = \"power\"\ncache.memory_entries = 10_000_000")
    },
};

/// Ours, whose answers outlive a kill.
pub(super) const PROCESS: Spec = Spec {
    name: "cmiot-proxy process",
    ours: true,
    command: |at, origin, program, port| ours(at, origin, program, port, "audit.durability = \"process\""),
};

/// A hyper server that does nothing else.
pub(super) const FLOOR: Spec = Spec {
    name: "bare hyper (floor)",
    ours: false,
    command: |_, _, _, port| {
        let mut command = Command::new(target().join("release/examples/floor"));
        command.arg(local(port));
        Ok(command)
    },
};

/// Every server, ours first.
pub(super) const ALL: [Spec; 6] = [
    POWER,
    PROCESS,
    FLOOR,
    Spec { name: "HAProxy", ours: false, command: haproxy },
    Spec { name: "nginx", ours: false, command: nginx },
    Spec { name: "Varnish", ours: false, command: varnish },
];

fn ours(at: &Path, origin: &Origin, program: &Path, port: u16, settings: &str) -> Result<Command> {
    let config = at.join("cmiot-proxy.toml");
    crate::run::write_private(
        &config,
        &format!(
            r#"
            gateway.listen = "{}"
            admin.listen = "127.0.0.1:0"
            carrier.base_url = "http://{}"
            freshness.normal = "2h"
            # So that callgrind can be asked for its counts.
            process.allow_core_dumps = true
            {settings}
            [[account]]
            name = "bench"
            appid = "{APPID}"
            ebid = "{EBID}"
            password = "{PASSWORD}"
            "#,
            local(port),
            origin.address
        ),
    )?;
    let mut command = Command::new(program);
    command.args(["serve", "--config"]);
    // One line a request is for people; here nobody reads it, as nobody reads the peers' logs.
    command.arg(config).env("RUST_LOG", "warn");
    Ok(command)
}

fn haproxy(at: &Path, origin: &Origin, _: &Path, port: u16) -> Result<Command> {
    let mut command = Command::new("haproxy");
    command.arg("-db").arg("-f").arg(template("haproxy.cfg", at, origin, port)?);
    Ok(command)
}

fn nginx(at: &Path, origin: &Origin, _: &Path, port: u16) -> Result<Command> {
    let mut command = Command::new("nginx");
    command.arg("-p").arg(at).arg("-c").arg(template("nginx.conf", at, origin, port)?);
    Ok(command)
}

fn varnish(at: &Path, origin: &Origin, _: &Path, port: u16) -> Result<Command> {
    let mut command = Command::new("varnishd");
    command.arg("-F").arg("-n").arg(at.join("varnish")).arg("-a").arg(local(port));
    command.arg("-f").arg(template("varnish.vcl", at, origin, port)?);
    command.args(["-s", "malloc,256m", "-p", "thread_pools=1"]);
    Ok(command)
}

fn template(name: &str, at: &Path, origin: &Origin, port: u16) -> Result<PathBuf> {
    let (host, origin_port) = origin.address.split_once(':').context("an address with a port")?;
    let text = fs::read_to_string(root().join("bench/peers").join(name))?
        .replace("@PORT@", &port.to_string())
        .replace("@ORIGIN@", &origin.address)
        .replace("@ORIGIN_HOST@", host)
        .replace("@ORIGIN_PORT@", origin_port)
        .replace("@DIR@", &at.display().to_string());
    let file = at.join(name);
    fs::write(&file, text)?;
    Ok(file)
}

fn local(port: u16) -> String {
    format!("127.0.0.1:{port}")
}

/// The simulated carrier behind all of them, beside the load.
pub(super) struct Origin {
    process: Child,
    /// Host and port.
    pub(super) address: String,
    /// Its executable, which is the proxy's too unless another one is named.
    pub(super) program: PathBuf,
}

impl Origin {
    /// Starts it on a free port: this executable, or else the release build.
    pub(super) fn start(program: Option<&Path>) -> Result<Self> {
        let program = program.map_or_else(|| target().join("release/cmiot-proxy"), Path::to_owned);
        let account = format!("{APPID}:{EBID}:{PASSWORD}");
        let mut command = Command::new(&program);
        command.args(["simulate", "--listen", "127.0.0.1:0", "--account", &account]);
        let mut process =
            pinned(&command, 1).stdout(Stdio::piped()).spawn().context("cmiot-proxy simulate")?;
        let mut line = String::new();
        BufReader::new(process.stdout.take().context("its output")?).read_line(&mut line)?;
        let address = line.trim().rsplit('/').next().unwrap_or_default().to_owned();
        Ok(Self { process, address, program })
    }
}

impl Drop for Origin {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// A running server.
pub(super) struct Server {
    process: Child,
    address: String,
}

impl Server {
    /// Starts it and waits until it accepts.
    pub(super) fn start(spec: &Spec, at: &Path, origin: &Origin) -> Result<Self> {
        Self::start_under(&[], spec, at, origin, &origin.program)
    }

    /// The same with another executable of the proxy's, under a program that runs it (none when there is no word).
    pub(super) fn start_under(
        under: &[String],
        spec: &Spec,
        at: &Path,
        origin: &Origin,
        program: &Path,
    ) -> Result<Self> {
        // Free a moment ago; a bench that loses this race fails and is run again.
        let port = TcpListener::bind("127.0.0.1:0")?.local_addr()?.port();
        let log = fs::File::create(at.join("log"))?;
        let process = pinned_under(under, &(spec.command)(at, origin, program, port)?, 0)
            .stdout(log.try_clone()?)
            .stderr(log)
            .spawn()
            .with_context(|| spec.name.to_owned())?;
        let mut server = Self { process, address: local(port) };
        // Ten seconds, or a minute where every instruction is counted.
        for _ in 0..if under.is_empty() { 200 } else { 1_200 } {
            if TcpStream::connect(&server.address).is_ok() {
                return Ok(server);
            }
            if let Some(status) = server.process.try_wait()? {
                bail!("{}: {status}; its log is {}", spec.name, at.join("log").display());
            }
            sleep(Duration::from_millis(50));
        }
        bail!("{} does not accept; its log is {}", spec.name, at.join("log").display());
    }

    /// Host and port.
    pub(super) fn address(&self) -> &str {
        &self.address
    }

    /// Its process's number, which is that of its group.
    pub(super) fn id(&self) -> u32 {
        self.process.id()
    }

    /// CPU time of the process group so far, user and system.
    pub(super) fn cpu(&self) -> Result<Duration> {
        let group = self.process.id();
        let mut ticks = 0;
        for entry in fs::read_dir("/proc")?.flatten() {
            let Ok(stat) = fs::read_to_string(entry.path().join("stat")) else { continue };
            // proc(5): after the name in parentheses come state, ppid, pgrp, ...; utime and stime are 14 and 15.
            let Some((_, rest)) = stat.rsplit_once(") ") else { continue };
            let fields: Vec<&str> = rest.split(' ').collect();
            if fields.get(2).and_then(|field| field.parse().ok()) == Some(group) {
                let tick = |index: usize| fields.get(index).and_then(|field| field.parse::<u64>().ok());
                ticks += tick(11).unwrap_or(0) + tick(12).unwrap_or(0);
            }
        }
        // USER_HZ is 100 on every Linux that this runs on.
        Ok(Duration::from_millis(ticks * 10))
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // The whole group: nginx and Varnish have children.
        let group = format!("-{}", self.process.id());
        let _ = Command::new("kill").args(["-s", "TERM", "--", &group]).status();
        let _ = self.process.wait();
    }
}

/// The same command on one processor and in a process group of its own.
fn pinned(command: &Command, processor: u8) -> Command {
    pinned_under(&[], command, processor)
}

/// The same, run by another program.
fn pinned_under(under: &[String], command: &Command, processor: u8) -> Command {
    let mut pinned = Command::new("taskset");
    pinned
        .args(["-c", &processor.to_string()])
        .args(under)
        .arg(command.get_program())
        .args(command.get_args());
    pinned.envs(command.get_envs().filter_map(|(name, value)| Some((name, value?))));
    pinned.stdin(Stdio::null()).current_dir(root()).process_group(0);
    pinned
}
