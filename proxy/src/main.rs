//! `cmiot-proxy`: the commands. One subcommand, one file under `cli/`.
//!
//! Exit codes: 0 done, 1 failed, 2 wrong usage, 3 done, but not known to count in the running proxy (`client`).

mod cli;

use std::io::{self, IsTerminal as _};
use std::process::ExitCode;
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use clap::Parser;
use cmiot_proxy::config::ConfigErrors;
use cmiot_proxy::language::Language;
use cmiot_proxy::{log, printable};
use tracing::Level;

/// `cargo xtask hostile`: after 10,000 connections glibc's allocator keeps the memory of all of them, this one does not;
/// and musl's is slow under many threads.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    cli::language::select(Language::of_environment(|name| std::env::var_os(name)));
    let cli = match cli::Cli::try_parse() {
        Ok(cli) => cli,
        Err(help_or_error) => return explain(&help_or_error),
    };
    match cli.run() {
        Ok(code) => code,
        // `cmiot-proxy ... | head`: the reader needs no more.
        Err(error)
            if error.downcast_ref().is_some_and(|e: &io::Error| e.kind() == io::ErrorKind::BrokenPipe) =>
        {
            ExitCode::SUCCESS
        }
        Err(error) => {
            let text = format!("cmiot-proxy: {}", cli::language::error(&error));
            // The line breaks between the problems of a configuration are the program's own; it escapes those within one.
            let lines = error.is::<ConfigErrors>();
            complain(&if lines { printable::escape_lines(&text) } else { printable::escape(&text) });
            ExitCode::FAILURE
        }
    }
}

/// Prints help, or a usage error, which repeats arguments; returns 0 or 2.
fn explain(help_or_error: &clap::Error) -> ExitCode {
    let text = help_or_error.to_string();
    let shown = printable::escape_lines(&text);
    let is_terminal =
        if help_or_error.use_stderr() { io::stderr().is_terminal() } else { io::stdout().is_terminal() };
    if is_terminal && shown == text {
        let _ = help_or_error.print(); // with colours; the exit code says it too
    } else if help_or_error.use_stderr() {
        complain(shown.trim_end());
    } else {
        let _ = io::Write::write_all(&mut io::stdout(), shown.as_bytes()); // `--help | head`
    }
    u8::try_from(help_or_error.exit_code()).map_or(ExitCode::FAILURE, ExitCode::from)
}

/// Prints an error to standard error, and gives up after a second if no program reads there.
fn complain(error: &str) {
    let (said, done) = mpsc::channel();
    let shown = log::for_stderr(error, Level::ERROR).into_owned();
    let text = shown.clone();
    let spawned = thread::Builder::new().spawn(move || {
        cli::write_error(&text);
        let _ = said.send(()); // the receiver may have waited long enough
    });
    match spawned {
        Ok(_) => drop(done.recv_timeout(Duration::from_secs(1))), // the exit code says it too
        // The error may be that no thread can be started.
        Err(_) => cli::write_error(&shown),
    }
}
