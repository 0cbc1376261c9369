//! `cmiot-proxy serve`: runs the proxy until a signal ends it.

mod service_manager;

use std::io::{IsTerminal, Write};
use std::path::PathBuf;
use std::pin::pin;
use std::process::ExitCode;
use std::thread;
use std::time::Duration;

use anyhow::Context;
use cmiot_proxy::app::{App, open_store};
use cmiot_proxy::clock::Clock;
use cmiot_proxy::config::watch::Watch;
use cmiot_proxy::config::{Config, ListenConfig, LogFormat, token};
use cmiot_proxy::language::Text;
use cmiot_proxy::log::{self, Log, LogForm, is_journal};
use cmiot_proxy::process;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tracing_subscriber::EnvFilter;

/// The interval between checks of the configuration's files.
const CHECK_INTERVAL: Duration = Duration::from_secs(2);

/// The duration of a load after which an alarm is raised.
const SLOW: Duration = Duration::from_secs(5);

/// The time that the end of the process waits for the log to be written.
const FLUSH: Duration = Duration::from_secs(1);

/// Serve gateways.
///
/// SIGTERM or SIGINT drains: the proxy accepts no new connection, finishes requests in flight within [gateway]
/// drain_timeout, flushes the databases, and exits with 0. A second signal exits at once: calls in flight then have no
/// row in the audit. SIGHUP, or a change of the configuration or of a file that it names, reloads all of it; if it is
/// wrong, the old one stays in effect, /ready reports that, and the proxy tries again every few seconds. If the
/// databases cannot continue (a failed sync that could not be recovered), the proxy drains and exits with 1: let a
/// supervisor restart it. RUST_LOG sets the log level (default `info`). systemd is notified of all this
/// (`Type=notify-reload`), and `systemctl status` shows the result of the last reload.
#[derive(clap::Args)]
#[command(after_help = "Example:\n  cmiot-proxy serve --config /etc/cmiot-proxy/cmiot-proxy.toml")]
pub(super) struct Serve {
    /// Configuration file
    #[arg(long, value_name = "FILE")]
    config: PathBuf,
    /// Start with a new state.db although the folder has other databases of a proxy: use it only if state.db is lost.
    /// Transids then continue above all transids in the audit
    #[arg(long)]
    accept_lost_state: bool,
}

impl Serve {
    pub(super) fn run(self) -> anyhow::Result<ExitCode> {
        self.serve().inspect_err(|error| {
            // The problems of a configuration are one per line; the log has all of them.
            let error = format!("{error:#}");
            service_manager::status(&format!("failed: {}", error.lines().next().unwrap_or_default()));
        })
    }

    fn serve(&self) -> anyhow::Result<ExitCode> {
        process::protect_memory().context("cannot prevent core dumps")?;
        let (mut config, _) = Config::load(&self.config)?;
        let runtime = super::runtime()?;
        // The runtime is dropped before the log, which has the lines of its end.
        let (_log, runtime) = (log(config.log.format).context("cannot set up the log")?, runtime);
        for warning in &config.warnings {
            tracing::warn!("{warning}");
        }
        process::harden(&config.process)
            .context("cannot apply process restrictions (core dumps, umask, open files)")?;
        {
            let _entered = runtime.enter();
            process::survive_file_size_limit().context("cannot handle SIGXFSZ")?;
        }
        let clock = Clock::system();
        service_manager::status("opening the databases");
        let store = open_store(&config, self.accept_lost_state, &clock)?;
        let dir = config.store_dir.clone();
        if config.find_token(&dir)? {
            let path = dir.join(token::FILE);
            tracing::info!(path = %path.display(), "made a token for the admin listener; it has every role");
        }
        runtime.block_on(async {
            // Registered before anything is served, so that no signal is missed.
            let mut signals = Signals::register()?;
            let mut files =
                Files { path: self.config.clone(), dir, watch: Watch::new(&config.files), refused: None };
            let (gateway, admin) = (scheme(&config.gateway.limits), scheme(&config.admin.limits));
            let app = App::start(config, store, clock).await?;
            let addresses = [
                format!("gateway {gateway}://{}", app.gateway()),
                format!("admin {admin}://{}", app.admin()),
            ];
            // For the program that started this one: the ports, if 0 was configured. Nothing else goes to standard output.
            announce(format!("{}\n", addresses.join("\n")));
            service_manager::ready(&format!("serving: {}", addresses.join(", ")));
            let _watchdog = service_manager::watchdog();
            let failed = serve_until_ended(&app, &mut files, &mut signals).await?;
            service_manager::stopping(if failed { "draining: the store failed" } else { "draining" });
            drain(app, &mut signals).await;
            Ok(if failed { ExitCode::FAILURE } else { ExitCode::SUCCESS })
        })
    }
}

fn scheme(listener: &ListenConfig) -> &'static str {
    if listener.tls.is_some() { "https" } else { "http" }
}

/// The signals that the process handles.
struct Signals {
    terminate: Signal,
    interrupt: Signal,
    hang_up: Signal,
}

impl Signals {
    fn register() -> anyhow::Result<Self> {
        Ok(Self {
            terminate: signal(SignalKind::terminate()).context("cannot listen for SIGTERM")?,
            interrupt: signal(SignalKind::interrupt()).context("cannot listen for SIGINT")?,
            hang_up: signal(SignalKind::hangup()).context("cannot listen for SIGHUP")?,
        })
    }
}

/// Serves, and reloads the configuration when its files change or a reload is requested, until the proxy is to drain.
/// Returns whether its store has failed.
async fn serve_until_ended(app: &App, files: &mut Files, signals: &mut Signals) -> anyhow::Result<bool> {
    let Signals { terminate, interrupt, hang_up } = signals;
    let mut ended = pin!(ended(app, terminate, interrupt));
    let mut requests = app.reloads();
    loop {
        let (requested, requester) = tokio::select! {
            failed = &mut ended => return Ok(failed),
            _ = hang_up.recv() => (true, None),
            Some(requester) = requests.recv() => (true, Some(requester)),
            () = tokio::time::sleep(CHECK_INTERVAL) => (false, None),
        };
        let is_signal = requested && requester.is_none();
        if is_signal {
            service_manager::reloading();
        }
        let loaded = tokio::select! {
            failed = &mut ended => return Ok(failed),
            loaded = files.load(requested, app) => loaded?,
        };
        let Some(result) = apply(app, loaded) else { continue };
        let status = match &result {
            Ok(()) => "serving with the reloaded configuration".to_owned(),
            Err(error) => {
                format!("serving with the earlier configuration; the changed one is refused: {error}")
            }
        };
        if is_signal {
            service_manager::ready(&status);
        } else {
            service_manager::status(&status);
        }
        match requester {
            Some(requester) => drop(requester.send(result)), // the requester may have disconnected
            None => app.note_reload(if is_signal { "signal" } else { "file" }, &result),
        }
    }
}

/// Applies the configuration that was loaded, if any. Returns the result of the reload; none if it was returned before.
fn apply(app: &App, loaded: Loaded) -> Option<Result<(), String>> {
    match loaded {
        Loaded::Unchanged | Loaded::Refused { report: false, .. } => None,
        Loaded::Read(config) => Some(app.reload(*config)),
        Loaded::Refused { error, .. } => {
            app.reject_reload(&error);
            Some(Err(error.english))
        }
    }
}

/// Drains the proxy. A second signal ends the process at once.
async fn drain(app: App, Signals { terminate, interrupt, .. }: &mut Signals) {
    tokio::select! {
        () = app.drain() => return,
        _ = terminate.recv() => {}
        _ = interrupt.recv() => {}
    }
    // Without waiting for a thread that writes. What is committed is kept.
    log::flush(FLUSH / 10);
    std::process::exit(1);
}

/// Resolves when the proxy is to drain: to `true` if its store has failed.
async fn ended(app: &App, terminate: &mut Signal, interrupt: &mut Signal) -> bool {
    tokio::select! {
        _ = terminate.recv() => false,
        _ = interrupt.recv() => false,
        reason = app.failed() => {
            tracing::error!("the store cannot go on, and the process ends: {reason}");
            true
        }
    }
}

/// The configuration's files.
#[derive(Clone)]
struct Files {
    path: PathBuf,
    /// The store's folder, which stays until the next start.
    dir: PathBuf,
    watch: Watch,
    /// The reason for which the current files were last refused.
    refused: Option<Text>,
}

/// The result of a check of the files.
enum Loaded {
    /// There was no reason to load them.
    Unchanged,
    /// A configuration that is in order.
    Read(Box<Config>),
    /// They are refused. `report`: a reload was requested, or the error differs from the last one.
    Refused { error: Text, report: bool },
}

impl Files {
    /// [`Self::check`] on a blocking thread, which a file system that does not respond may block without limit. If it
    /// takes longer than [`SLOW`], the alarm about the configuration is raised, unless the last one was refused.
    async fn load(&mut self, requested: bool, app: &App) -> anyhow::Result<Loaded> {
        let mut files = self.clone();
        let mut checking = tokio::task::spawn_blocking(move || {
            let loaded = files.check(requested);
            (files, loaded)
        });
        let prompt = tokio::time::timeout(SLOW, &mut checking).await;
        let slow = prompt.is_err();
        if slow {
            app.report_slow_load(SLOW);
        }
        let checked = match prompt {
            Ok(checked) => checked,
            Err(_) => checking.await,
        };
        let loaded;
        (*self, loaded) = checked.context("cannot check the configuration")?;
        // A configuration that was read or refused changes the alarm itself.
        if slow && matches!(loaded, Loaded::Unchanged) {
            app.load_ended();
        }
        Ok(loaded)
    }

    /// Loads them if a reload is requested, or if a change or a retry is due.
    fn check(&mut self, requested: bool) -> Loaded {
        // Checked in any case, so that a change causes one reload, not two, when a reload is requested too.
        let due = self.watch.is_due();
        if !due && !requested {
            return Loaded::Unchanged;
        }
        let loaded = Config::load(&self.path).and_then(|(mut config, _)| {
            config.find_token(&self.dir)?;
            Ok(config)
        });
        match loaded {
            Ok(config) => {
                self.watch = Watch::new(&config.files);
                self.refused = None;
                Loaded::Read(Box::new(config))
            }
            Err(error) => {
                let error = error.summary();
                self.watch.refused();
                let report = requested || self.refused.as_ref() != Some(&error);
                self.refused = Some(error.clone());
                Loaded::Refused { error, report }
            }
        }
    }
}

/// Prints the addresses to standard output. In a thread, since a pipe that no program reads blocks the writer.
fn announce(lines: String) {
    let spawned = thread::Builder::new().name("announce".to_owned()).spawn(move || {
        let mut out = std::io::stdout();
        let _ = out.write_all(lines.as_bytes()).and_then(|()| out.flush()); // the log has the addresses too
    });
    if let Err(error) = spawned {
        tracing::warn!(%error, "the addresses are not on standard output");
    }
}

/// Sets up the log: one line per event, to standard error, through a queue. When the returned value is dropped, the queued
/// lines are written, within [`FLUSH`].
fn log(format: LogFormat) -> std::io::Result<Flush> {
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new("info"));
    let colours = format == LogFormat::Text
        && std::io::stderr().is_terminal()
        && std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty());
    let journal = is_journal(std::io::stderr());
    let form = match (format, journal) {
        (LogFormat::Json, _) => LogForm::Json,
        (LogFormat::Text, true) => LogForm::Journal,
        (LogFormat::Text, false) => LogForm::Text(colours),
    };
    let builder = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(Log::to_stderr()?.lines(form))
        .with_ansi(colours)
        .with_target(false);
    // The journal has a timestamp of its own for each line.
    match (format, journal) {
        (LogFormat::Text, false) => builder.init(),
        (LogFormat::Text, true) => builder.without_time().init(),
        (LogFormat::Json, false) => builder.json().flatten_event(true).init(),
        (LogFormat::Json, true) => builder.json().flatten_event(true).without_time().init(),
    }
    // The default hook writes to standard error itself, and blocks while no program reads it.
    std::panic::set_hook(Box::new(|panic| {
        let thread = thread::current();
        let backtrace = std::backtrace::Backtrace::capture();
        tracing::error!(thread = thread.name().unwrap_or("?"), %panic, %backtrace, "a thread panicked");
    }));
    Ok(Flush)
}

/// Writes the queued log lines when it is dropped.
struct Flush;

impl Drop for Flush {
    fn drop(&mut self) {
        log::flush(FLUSH);
    }
}
