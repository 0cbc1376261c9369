//! `cmiot-proxy`: the commands. One subcommand, one file under `cli/`.
//!
//! Exit codes: 0 done, 1 failed, 2 wrong usage, 3 done, but not known to count in the running proxy (`client`).

mod cli;

use std::io;
use std::process::ExitCode;
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use clap::Parser;

/// `cargo xtask hostile`: after 10,000 connections glibc's allocator keeps the memory of all of them, this one does not;
/// and musl's is slow under many threads.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    // `parse` prints help and usage errors itself and ends with 0 or 2.
    match cli::Cli::parse().run() {
        Ok(code) => code,
        // `cmiot-proxy ... | head`: whoever read has seen enough.
        Err(error)
            if error.downcast_ref().is_some_and(|e: &io::Error| e.kind() == io::ErrorKind::BrokenPipe) =>
        {
            ExitCode::SUCCESS
        }
        Err(error) => {
            complain(format!("cmiot-proxy: {error:#}"));
            ExitCode::FAILURE
        }
    }
}

/// Says an error on standard error, and leaves it at that when nobody reads there.
fn complain(error: String) {
    let (said, done) = mpsc::channel();
    thread::spawn(move || {
        cli::warn(&error);
        let _ = said.send(()); // the receiver may have waited long enough
    });
    let _ = done.recv_timeout(Duration::from_secs(1)); // the exit code says it too
}
