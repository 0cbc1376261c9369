//! Servers to measure: each in a process group of its own, ended by its id, its CPU read from /proc.

mod specs;

use std::fs;
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread::sleep;
use std::time::Duration;

use anyhow::{Context, Result, bail};

use crate::run::{root, target};
use crate::server_process::ServerProcess;
use crate::setup::{self, Certificate};

pub(super) use self::specs::{
    ALL, BASELINE, FLEET, POWER, PROCESS, V5, config, configure, nginx, ours, varnish,
};

/// The limit for a server's start. Under valgrind a start is fifty times slower.
const START_TIMEOUT: Duration = Duration::from_secs(60);
/// Time between two attempts to connect.
const PAUSE: Duration = Duration::from_millis(50);

/// One processor is the server's; load and carrier have the other.
pub(super) const SERVER_PROCESSOR: &str = "0";
pub(super) const CARRIER_PROCESSOR: &str = "1";

/// A kind of server.
#[derive(Clone, Copy)]
pub(super) struct Spec {
    /// Name in the table.
    pub(super) name: &'static str,
    /// This project's proxy; the others are its peers.
    pub(super) is_ours: bool,
    pub(super) command: fn(&Site) -> Result<Command>,
}

/// The surroundings of one server.
pub(super) struct Site {
    pub(super) folder: PathBuf,
    pub(super) carrier: SocketAddr,
    /// Executable of the proxy.
    pub(super) program: PathBuf,
    /// Words before the server's own command line.
    pub(super) runner: Vec<String>,
    /// Seconds for which an entry is fresh, where a configuration has a place for them.
    pub(super) fresh: u64,
    pub(super) address: SocketAddr,
    /// TLS towards gateways.
    pub(super) tls: Option<Certificate>,
}

impl Site {
    /// A new folder and a free port. The port was free a moment ago; a bench that loses this race fails.
    pub(super) fn new(folder: &Path, carrier: SocketAddr, program: &Path, fresh: u64) -> Result<Self> {
        fs::create_dir_all(folder)?;
        let address = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?.local_addr()?;
        let (folder, program) = (folder.to_owned(), program.to_owned());
        Ok(Self { folder, carrier, program, runner: Vec::new(), fresh, address, tls: None })
    }

    /// The same for a server on a processor of its own, with entries that outlast the bench.
    pub(super) fn on_one_processor(folder: &Path, carrier: &Carrier) -> Result<Self> {
        let site = Self::new(folder, carrier.address, &carrier.program, 7_200)?;
        Ok(Self { runner: ["taskset", "-c", SERVER_PROCESSOR].map(str::to_owned).into(), ..site })
    }

    /// The part of a configuration about TLS, empty without.
    fn tls_words(&self, words: impl FnOnce(&Certificate) -> String) -> String {
        self.tls.as_ref().map_or_else(String::new, words)
    }

    /// Writes a configuration file: the template in `bench/peers` with its placeholders replaced.
    pub(super) fn fill(&self, template: &str) -> Result<PathBuf> {
        let template = root().join("bench/peers").join(template);
        let text = fs::read_to_string(&template)
            .with_context(|| template.display().to_string())?
            .replace("@PORT@", &self.address.port().to_string())
            .replace("@ORIGIN@", &self.carrier.to_string())
            .replace("@ORIGIN_HOST@", &self.carrier.ip().to_string())
            .replace("@ORIGIN_PORT@", &self.carrier.port().to_string())
            .replace("@FRESH@", &self.fresh.to_string())
            .replace("@HAPROXY_TLS@", &self.tls_words(|tls| format!("ssl crt {}", tls.pair.display())))
            .replace("@NGINX_TLS@", &self.tls_words(|_| "ssl".to_owned()))
            .replace(
                "@NGINX_CERTIFICATE@",
                &self.tls_words(|tls| {
                    let (chain, key) = (tls.chain.display(), tls.key.display());
                    format!("ssl_certificate {chain}; ssl_certificate_key {key};")
                }),
            )
            .replace("@ROOT@", &root().display().to_string())
            .replace("@DIR@", &self.folder.display().to_string());
        let file = self.folder.join(template.file_name().context("a template is a file")?);
        fs::write(&file, text)?;
        Ok(file)
    }
}

/// The simulated carrier as a process.
pub(super) struct Carrier {
    _process: ServerProcess,
    pub(super) address: SocketAddr,
    /// Executable of the carrier, and of the proxy where no other one is named.
    pub(super) program: PathBuf,
}

impl Carrier {
    /// Starts it on a free port, from this executable or from the release build.
    pub(super) fn start(program: Option<&Path>) -> Result<Self> {
        Self::start_with(program, setup::simulate)
    }

    /// The same for API v5, with the account of [`V5`].
    pub(super) fn start_v5(program: Option<&Path>) -> Result<Self> {
        Self::start_with(program, specs::simulate_v5)
    }

    /// The same with the arguments that `simulate` adds.
    pub(super) fn start_with(
        program: Option<&Path>,
        simulate: fn(&mut Command) -> &mut Command,
    ) -> Result<Self> {
        let program = program.map_or_else(|| target().join("release/cmiot-proxy"), Path::to_owned);
        let mut command = Command::new("taskset");
        command.args(["-c", CARRIER_PROCESSOR]).arg(&program);
        simulate(&mut command);
        let mut process = ServerProcess::start(command.current_dir(root()).process_group(0))?;
        let address = process.wait_for_line("simulated carrier http://")?.parse()?;
        Ok(Self { _process: process, address, program })
    }
}

/// A running server; its process group is ended with it.
pub(super) struct Server {
    spec: Spec,
    site: Site,
    process: Child,
}

impl Server {
    /// Starts it and waits until it accepts.
    pub(super) fn start(spec: &Spec, site: Site) -> Result<Self> {
        let process = spawn(spec, &site)?;
        let mut server = Self { spec: *spec, site, process };
        server.wait_until_it_accepts()?;
        Ok(server)
    }

    /// Ends it and starts it again over the same folder and port.
    pub(super) fn restart(&mut self) -> Result<()> {
        self.end();
        self.process = spawn(&self.spec, &self.site)?;
        self.wait_until_it_accepts()
    }

    pub(super) fn address(&self) -> SocketAddr {
        self.site.address
    }

    /// Its address as the load needs it.
    pub(super) fn url(&self) -> String {
        format!("http{}://{}", if self.site.tls.is_some() { "s" } else { "" }, self.site.address)
    }

    pub(super) fn site(&self) -> &Site {
        &self.site
    }

    pub(super) fn is_ours(&self) -> bool {
        self.spec.is_ours
    }

    /// Number of its process, and of its process group.
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

    fn wait_until_it_accepts(&mut self) -> Result<()> {
        let (name, log) = (self.spec.name, self.site.folder.join("log"));
        for _ in 0..START_TIMEOUT.as_millis() / PAUSE.as_millis() {
            if TcpStream::connect(self.site.address).is_ok() {
                return Ok(());
            }
            if let Some(status) = self.process.try_wait()? {
                bail!("{name}: {status}; its log is {}", log.display());
            }
            sleep(PAUSE);
        }
        bail!("{name} does not accept; its log is {}", log.display())
    }

    fn end(&mut self) {
        // The whole group: the peers have children.
        let group = format!("-{}", self.process.id());
        let _ = Command::new("kill").args(["-s", "TERM", "--", &group]).status();
        let _ = self.process.wait();
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.end();
    }
}

fn spawn(spec: &Spec, site: &Site) -> Result<Child> {
    let log = fs::OpenOptions::new().create(true).append(true).open(site.folder.join("log"))?;
    let own = (spec.command)(site)?;
    let mut words = site.runner.iter().map(AsRef::as_ref).chain([own.get_program()]).chain(own.get_args());
    let mut command = Command::new(words.next().context("a command has a program")?);
    command.args(words).envs(own.get_envs().filter_map(|(name, value)| Some((name, value?))));
    command.stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log).current_dir(root()).process_group(0);
    command.spawn().with_context(|| spec.name.to_owned())
}
