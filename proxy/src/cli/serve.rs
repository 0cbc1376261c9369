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
use cmiot_proxy::config::{Config, LogFormat, token};
use cmiot_proxy::log::{self, Log, LogForm};
use cmiot_proxy::process;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tracing_subscriber::EnvFilter;

/// The interval between checks of the configuration's files.
const LOOK: Duration = Duration::from_secs(2);

/// The duration of a load after which an alarm is raised.
const SLOW: Duration = Duration::from_secs(5);

/// The time that the end of the process waits for the log to be written.
const FLUSH: Duration = Duration::from_secs(1);

/// Serve gateways.
///
/// SIGTERM or SIGINT drains: the proxy accepts no new connection, finishes requests in flight within [gateway]
/// drain_timeout, flushes the databases, and exits with 0. A second signal exits at once. SIGHUP, or a change of the
/// configuration or of a file that it names, reloads all of it; if it is wrong, the old one stays in effect, /ready reports
/// that, and the proxy tries again every few seconds. If the databases cannot continue (a failed sync that could not be
/// recovered), the proxy drains and exits with 1: let a supervisor restart it. RUST_LOG sets the log level (default `info`).
/// systemd is notified of all this (`Type=notify-reload`), and `systemctl status` shows the result of the last reload.
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
        let (mut config, _) = Config::load(&self.config)?;
        let _log = log(config.log_format).context("cannot set up the log")?;
        for warning in &config.warnings {
            tracing::warn!("{warning}");
        }
        process::harden(&config.process)
            .context("cannot apply process restrictions (core dumps, umask, open files)")?;
        let runtime = super::runtime()?;
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
            let mut terminate = signal(SignalKind::terminate()).context("cannot listen for SIGTERM")?;
            let mut interrupt = signal(SignalKind::interrupt()).context("cannot listen for SIGINT")?;
            let mut hang_up = signal(SignalKind::hangup()).context("cannot listen for SIGHUP")?;
            let mut files =
                Files { path: self.config.clone(), dir, watch: Watch::new(&config.files), refused: None };
            let scheme = |tls: bool| if tls { "https" } else { "http" };
            let (gateway, admin) =
                (scheme(config.gateway.limits.tls.is_some()), scheme(config.admin.limits.tls.is_some()));
            let app = App::start(config, store, clock).await?;
            // For whoever started us: the ports, where 0 was asked for. Nothing else goes to standard output.
            let addresses = [
                format!("gateway {gateway}://{}", app.gateway()),
                format!("admin {admin}://{}", app.admin()),
            ];
            announce(format!("{}\n", addresses.join("\n")));
            service_manager::ready(&format!("serving: {}", addresses.join(", ")));
            let _watchdog = service_manager::watchdog();
            let mut requests = app.reloads();
            let failed = {
                let mut ended = pin!(ended(&app, &mut terminate, &mut interrupt));
                loop {
                    let (asked, asker) = tokio::select! {
                        failed = &mut ended => break failed,
                        _ = hang_up.recv() => (true, None),
                        Some(asker) = requests.recv() => (true, Some(asker)),
                        () = tokio::time::sleep(LOOK) => (false, None),
                    };
                    let signalled = asked && asker.is_none();
                    if signalled {
                        service_manager::reloading();
                    }
                    // On another thread, which a file system that does not respond may block without limit.
                    let loaded;
                    (files, loaded) = tokio::select! {
                        failed = &mut ended => break failed,
                        loaded = files.load(asked, &app) => loaded?,
                    };
                    let told = match loaded {
                        Loaded::Unchanged => continue,
                        Loaded::Taken(config) => app.reload(*config),
                        Loaded::Refused { error, news } => {
                            if news {
                                app.reject_reload(&error);
                            }
                            Err(error)
                        }
                    };
                    let status = match &told {
                        Ok(()) => "serving with the reloaded configuration".to_owned(),
                        Err(error) => {
                            format!(
                                "serving with the earlier configuration; the changed one is refused: {error}"
                            )
                        }
                    };
                    if signalled {
                        service_manager::ready(&status);
                    } else {
                        service_manager::status(&status);
                    }
                    if let Some(asker) = asker {
                        let _ = asker.send(told); // who asked may have left
                    }
                }
            };
            service_manager::stopping(if failed { "draining: the store failed" } else { "draining" });
            let again = tokio::select! {
                () = app.drain() => false,
                _ = terminate.recv() => true,
                _ = interrupt.recv() => true,
            };
            if again {
                // At once means at once: not even waiting for a thread that writes. What it had committed stays.
                log::flush(FLUSH / 10);
                std::process::exit(1);
            }
            Ok(if failed { ExitCode::FAILURE } else { ExitCode::SUCCESS })
        })
    }
}

/// Resolves when the proxy is to drain: to `true` if its store has failed.
async fn ended(app: &App, terminate: &mut Signal, interrupt: &mut Signal) -> bool {
    tokio::select! {
        _ = terminate.recv() => false,
        _ = interrupt.recv() => false,
        why = app.failed() => {
            tracing::error!("the store cannot go on, and the process ends: {why}");
            true
        }
    }
}

/// The configuration's files.
struct Files {
    path: PathBuf,
    /// The store's folder, which stays until the next start.
    dir: PathBuf,
    watch: Watch,
    /// The reason for which the current files were last refused.
    refused: Option<String>,
}

/// The result of a check of the files.
enum Loaded {
    /// There was no reason to load them.
    Unchanged,
    /// A configuration to take over.
    Taken(Box<Config>),
    /// They are refused; `news` says that somebody asked, or that the reason is another one than the last time.
    Refused { error: String, news: bool },
}

impl Files {
    /// [`Self::look`] on a blocking thread. While it takes longer than [`SLOW`], the alarm about the configuration is raised.
    async fn load(self, asked: bool, app: &App) -> anyhow::Result<(Self, Loaded)> {
        let mut looking = tokio::task::spawn_blocking(move || self.look(asked));
        let prompt = tokio::time::timeout(SLOW, &mut looking).await;
        let slow = prompt.is_err();
        if slow {
            app.report_slow_load(SLOW);
        }
        let looked = match prompt {
            Ok(looked) => looked,
            Err(_) => looking.await,
        };
        let (files, mut loaded) = looked.context("cannot look at the configuration")?;
        match &mut loaded {
            Loaded::Unchanged if slow => app.load_ended(files.refused.as_deref()),
            Loaded::Refused { news, .. } => *news |= slow,
            _ => {}
        }
        Ok((files, loaded))
    }

    /// Loads them if somebody asked for that, or where a change, or a retry, is due.
    fn look(mut self, asked: bool) -> (Self, Loaded) {
        // Looked at in any case, so that a change that was asked for counts once.
        let due = self.watch.is_due();
        if !due && !asked {
            return (self, Loaded::Unchanged);
        }
        let loaded = Config::load(&self.path).and_then(|(mut config, _)| {
            config.find_token(&self.dir)?;
            Ok(config)
        });
        match loaded {
            Ok(config) => {
                self.watch = Watch::new(&config.files);
                self.refused = None;
                (self, Loaded::Taken(Box::new(config)))
            }
            Err(error) => {
                let error = error.summary();
                self.watch.refused();
                let news = asked || self.refused.as_ref() != Some(&error);
                self.refused = Some(error.clone());
                (self, Loaded::Refused { error, news })
            }
        }
    }
}

/// Says on standard output where the proxy listens. By a thread: whoever started us may not read it, or have closed it.
fn announce(lines: String) {
    let said = thread::Builder::new().name("announce".to_owned()).spawn(move || {
        let mut out = std::io::stdout();
        let _ = out.write_all(lines.as_bytes()).and_then(|()| out.flush()); // the log says it too
    });
    if let Err(error) = said {
        tracing::warn!(%error, "the addresses are not on standard output");
    }
}

/// The log goes to standard error, one line an event, through a queue. What is queued is written, within [`FLUSH`], when
/// the returned value is dropped.
fn log(format: LogFormat) -> std::io::Result<Flush> {
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new("info"));
    let colours = format == LogFormat::Text
        && std::io::stderr().is_terminal()
        && std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty());
    let form = if format == LogFormat::Json { LogForm::Json } else { LogForm::Text(colours) };
    let builder = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(Log::to_stderr()?.lines(form))
        .with_ansi(colours)
        .with_target(false);
    match format {
        LogFormat::Text => builder.init(),
        LogFormat::Json => builder.json().flatten_event(true).init(),
    }
    // The usual hook writes to standard error itself, and waits for whoever reads it.
    std::panic::set_hook(Box::new(|panic| {
        let thread = thread::current();
        let backtrace = std::backtrace::Backtrace::capture();
        tracing::error!(thread = thread.name().unwrap_or("?"), %panic, %backtrace, "a thread panicked");
    }));
    Ok(Flush)
}

/// Has the log written when it is dropped.
struct Flush;

impl Drop for Flush {
    fn drop(&mut self) {
        log::flush(FLUSH);
    }
}
