//! The processes of a server: its children, signals to them, and their end, also after a test that was killed.

use std::fs;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};

/// A process; its start distinguishes it from a later one with the same id.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Process {
    pub(super) id: u32,
    /// Start in clock ticks since boot.
    started: String,
}

impl Process {
    /// The process with this id, unless it has ended.
    pub(super) fn with_id(id: u32) -> Option<Self> {
        let Stat { started, .. } = Stat::of(id)?;
        Some(Self { id, started })
    }

    /// Its child processes, without those that have ended.
    pub(super) fn children(&self) -> Vec<Self> {
        let entries = fs::read_dir("/proc").expect("Linux").filter_map(Result::ok);
        let ids = entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok());
        ids.filter_map(|id| {
            let stat = Stat::of(id)?;
            (stat.parent == self.id).then_some(Self { id, started: stat.started })
        })
        .collect()
    }

    /// Whether it runs or is stopped. A process that ended and that its parent has not waited for is not alive.
    pub(super) fn is_alive(&self) -> bool {
        Stat::of(self.id).is_some_and(|stat| stat.started == self.started)
    }

    /// Whether it is stopped by a signal.
    pub(super) fn is_stopped(&self) -> bool {
        Stat::of(self.id).is_some_and(|stat| stat.started == self.started && stat.state == 'T')
    }

    /// Sends a signal; does nothing when the process has ended.
    pub(super) fn signal(&self, signal: Signal) {
        if self.is_alive() {
            let id = i32::try_from(self.id).ok().and_then(Pid::from_raw).expect("a process id");
            let _ = kill_process(id, signal); // an error when it has ended since
        }
    }

    /// Sends SIGSTOP, and waits until the process is stopped or has ended.
    pub(super) fn stop(&self) {
        self.signal(Signal::STOP);
        blocking("a stopped process", || self.is_stopped() || !self.is_alive());
    }

    /// Waits for its end, for as long as a destructor may block.
    pub(super) fn wait_for_end(&self) {
        blocking("the end of a process", || !self.is_alive());
    }
}

/// A shell that ends a server after the death of the test's process, which runs no destructor when it is killed: a paused
/// server would never end.
pub(super) struct Guard(Child);

impl Guard {
    /// Guards the server of a postmaster and its folder.
    pub(super) fn new(postmaster: u32, folder: &Path) -> Self {
        // The test holds the other end of its standard input.
        let script = r#"trap "" TERM INT HUP
            read -r _
            kill -CONT $(ps -o pid= --ppid "$1") "$1"
            kill -QUIT "$1"
            while kill -0 "$1"; do sleep 0.1; done
            rm -rf -- "$2""#;
        let mut shell = Command::new("sh");
        shell.args(["-c", script, "guard", &postmaster.to_string()]).arg(folder);
        shell.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::null()).process_group(0);
        Self(shell.spawn().expect("a shell is on every system"))
    }

    /// Lets the guard end the server, as the death of the test's process does.
    pub(super) fn release(&mut self) {
        drop(self.0.stdin.take());
    }
}

impl Drop for Guard {
    fn drop(&mut self) {
        let _ = self.0.kill(); // an error if it has ended
        let _ = self.0.wait();
    }
}

/// The fields of `/proc/PID/stat` that the harness uses.
struct Stat {
    state: char,
    parent: u32,
    started: String,
}

impl Stat {
    /// Those of a process that has not ended.
    fn of(id: u32) -> Option<Self> {
        let text = fs::read_to_string(format!("/proc/{id}/stat")).ok()?;
        // The name is in parentheses, and may contain spaces and parentheses.
        let (_, fields) = text.rsplit_once(") ")?;
        let fields: Vec<&str> = fields.split(' ').collect();
        let state = fields.first()?.chars().next()?;
        let ended = ['Z', 'X', 'x'].contains(&state);
        (!ended).then_some(Self {
            state,
            parent: fields.get(1)?.parse().ok()?,
            started: (*fields.get(19)?).to_owned(),
        })
    }
}

/// Polls until `done`, without a runtime; panics after ten seconds, unless the test panics already.
pub(super) fn blocking(what: &str, done: impl Fn() -> bool) {
    for _ in 0..2_000 {
        if done() {
            return;
        }
        std::thread::sleep(Duration::from_millis(5)); // to yield the processor
    }
    assert!(std::thread::panicking(), "{what}: not within ten seconds");
}
