//! `cmiot-proxy serve`: runs the proxy until it is told to stop.

use std::io::{IsTerminal, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::thread;
use std::time::Duration;

use anyhow::Context;
use cmiot_proxy::app::{App, open_store};
use cmiot_proxy::clock::Clock;
use cmiot_proxy::config::watch::Watch;
use cmiot_proxy::config::{Config, ConfigError, LogFormat};
use cmiot_proxy::log::{self, Form, Log};
use cmiot_proxy::process;
use tokio::signal::unix::{SignalKind, signal};
use tracing_subscriber::EnvFilter;

/// How often the configuration's files are looked at.
const LOOK: Duration = Duration::from_secs(2);

/// How long the end of the process waits for the log to be written.
const FLUSH: Duration = Duration::from_secs(1);

/// Serve gateways.
///
/// SIGTERM or SIGINT drains: no new connection, what is under way finishes within [gateway] grace, the databases are
/// flushed, exit 0. A second signal exits at once. SIGHUP, or a change of the configuration or of a file that it names,
/// loads all of it anew; when it is wrong the old one stays. When the databases cannot go on (a failed sync that could not
/// be made good), it drains and exits 1: have a supervisor start it again. RUST_LOG sets the log level (default `info`).
#[derive(clap::Args)]
#[command(after_help = "Example:\n  cmiot-proxy serve --config /etc/cmiot-proxy/cmiot-proxy.toml")]
pub(super) struct Serve {
    /// Configuration file
    #[arg(long, value_name = "FILE")]
    config: PathBuf,
    /// Start over with a new state.db although the folder holds other databases of a proxy: only when it is lost for
    /// good. Transids then continue above everything that the audit knows
    #[arg(long)]
    accept_lost_state: bool,
}

impl Serve {
    pub(super) fn run(self) -> anyhow::Result<ExitCode> {
        let (config, _) = Config::load(&self.config)?;
        let _log = log(config.log_format).context("cannot set up the log")?;
        for warning in &config.warnings {
            tracing::warn!("{warning}");
        }
        process::harden(&config.process).context("cannot ask the kernel to keep secrets and files apart")?;
        let clock = Clock::system();
        let store = open_store(&config, self.accept_lost_state, &clock)?;
        super::runtime()?.block_on(async {
            // Asked for before anything is served, so that no signal is missed.
            let mut terminate = signal(SignalKind::terminate()).context("cannot listen for SIGTERM")?;
            let mut interrupt = signal(SignalKind::interrupt()).context("cannot listen for SIGINT")?;
            let mut hang_up = signal(SignalKind::hangup()).context("cannot listen for SIGHUP")?;
            let mut watch = Watch::new(&self.config, &config.files);
            let scheme = |tls: bool| if tls { "https" } else { "http" };
            let (gateway, admin) = (scheme(config.gateway_tls.is_some()), scheme(config.admin.tls.is_some()));
            let app = App::start(config, store, clock).await?;
            // For whoever started us: the ports, where 0 was asked for. Nothing else goes to standard output.
            announce(format!("gateway {gateway}://{}\nadmin {admin}://{}\n", app.gateway(), app.admin()));
            let mut failed = false;
            loop {
                let asked = tokio::select! {
                    _ = terminate.recv() => break,
                    _ = interrupt.recv() => break,
                    why = app.failed() => {
                        tracing::error!("the store cannot go on, and the process ends: {why}");
                        failed = true;
                        break;
                    }
                    _ = hang_up.recv() => true,
                    () = tokio::time::sleep(LOOK) => false,
                };
                let path = self.config.clone();
                // Elsewhere: files may be long, or on a disk that hangs, and look-ups go on.
                let loaded;
                (watch, loaded) = tokio::task::spawn_blocking(move || look(watch, &path, asked))
                    .await
                    .context("cannot look at the configuration")?;
                match loaded {
                    Some(Ok(config)) => app.reload(config),
                    Some(Err(error)) => app.keep_config(&error),
                    None => {}
                }
            }
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

/// Loads the configuration if somebody asked for that; a changed file counts as well as a signal.
fn look(mut watch: Watch, path: &Path, asked: bool) -> (Watch, Option<Result<Config, ConfigError>>) {
    // Looked at in any case, so that a change that was asked for counts once.
    let changed = watch.changed();
    if !changed && !asked {
        return (watch, None);
    }
    match Config::load(path) {
        Ok((config, _)) => (Watch::new(path, &config.files), Some(Ok(config))),
        Err(error) => (watch, Some(Err(error))),
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
    let form = if format == LogFormat::Json { Form::Json } else { Form::Text(colours) };
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
