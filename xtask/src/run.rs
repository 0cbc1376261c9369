//! One child process: its command line is printed before it starts, its failure is an error that repeats it.
//!
//! Every child starts in the workspace's root without a standard input, so that no child can wait for input.

use std::ffi::OsStr;
use std::fmt;
use std::fs;
use std::io::{self, BufRead, BufReader, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus, Stdio};
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result, bail};

/// Writes a file that only its owner can read: the proxy refuses passwords in any other.
pub(crate) fn write_private(path: &Path, text: &str) -> Result<()> {
    let _ = fs::remove_file(path); // whose mode would stay
    let file = fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(path);
    file.and_then(|mut file| file.write_all(text.as_bytes()))
        .with_context(|| format!("cannot write {}", path.display()))
}

/// A command line to print and run.
pub(crate) struct Run {
    command: Command,
    shown: String,
}

/// Which of a child's two streams to read along with.
#[derive(Clone, Copy)]
pub(crate) enum Stream {
    Stdout,
    Stderr,
}

impl Run {
    /// A program, found on PATH unless it is a path.
    pub(crate) fn new(program: impl AsRef<OsStr>) -> Self {
        let mut command = Command::new(&program);
        command.current_dir(root()).stdin(Stdio::null());
        for (name, _) in std::env::vars_os() {
            // `cargo run` describes the xtask itself in these. Build scripts watch some of them, and would run
            // again in every command that is started once from here and once by hand.
            if name
                .to_str()
                .is_some_and(|name| name.starts_with("CARGO_PKG_") || name == "CARGO_MANIFEST_DIR")
            {
                command.env_remove(name);
            }
        }
        Self { command, shown: quoted(program.as_ref()) }
    }

    /// `cargo` with a line of arguments that hold no spaces.
    pub(crate) fn cargo(arguments: &str) -> Self {
        Self::new("cargo").args(arguments.split_whitespace())
    }

    /// Further arguments.
    pub(crate) fn args<A: AsRef<OsStr>>(mut self, arguments: impl IntoIterator<Item = A>) -> Self {
        for argument in arguments {
            self.shown = format!("{} {}", self.shown, quoted(argument.as_ref()));
            self.command.arg(argument);
        }
        self
    }

    /// An environment variable for this child alone.
    pub(crate) fn env(mut self, name: &str, value: &str) -> Self {
        self.shown = format!("{name}={} {}", quoted(value.as_ref()), self.shown);
        self.command.env(name, value);
        self
    }

    /// Starts it in a folder of the workspace, instead of in the root.
    pub(crate) fn within(self, folder: &str) -> Self {
        self.inside(&root().join(folder))
    }

    /// Starts it in this folder, wherever that is.
    pub(crate) fn inside(mut self, folder: &Path) -> Self {
        self.shown = format!("(cd {} && {})", quoted(folder.as_ref()), self.shown);
        self.command.current_dir(folder);
        self
    }

    /// Hides one of our own environment variables from this child.
    pub(crate) fn without_env(mut self, name: &str) -> Self {
        self.command.env_remove(name);
        self
    }

    /// Prints the command line and runs it.
    ///
    /// # Errors
    /// When it cannot be started, or does not exit with 0.
    pub(crate) fn run(mut self) -> Result<()> {
        println!("$ {self}");
        let status = self.command.status().with_context(|| format!("cannot start `{self}`"))?;
        self.expect_success(status)
    }

    /// As [`Run::run`], and kills the child, with all that it started, when it takes longer than `limit`.
    ///
    /// # Errors
    /// As [`Run::run`], and when the limit has passed.
    pub(crate) fn run_within(mut self, limit: Duration) -> Result<()> {
        const PAUSE: Duration = Duration::from_millis(100);
        println!("$ {self}   # for {} s at most", limit.as_secs());
        // A process group of its own is what lets its children be ended with it.
        let mut child =
            self.command.process_group(0).spawn().with_context(|| format!("cannot start `{self}`"))?;
        let mut waited = Duration::ZERO;
        loop {
            if let Some(status) = child.try_wait()? {
                return self.expect_success(status);
            }
            if waited >= limit {
                Run::new("sh").args(["-c", &format!("kill -s KILL -- -{}", child.id())]).output()?;
                child.wait()?;
                bail!("`{self}` took longer than {} s", limit.as_secs());
            }
            thread::sleep(PAUSE);
            waited += PAUSE;
        }
    }

    /// Prints the command line, runs it, and hands each line of one stream to `each` while passing it on.
    ///
    /// A non-zero exit is not an error here: what the lines say decides.
    ///
    /// # Errors
    /// When it cannot be started, or its output cannot be read.
    pub(crate) fn run_reading(mut self, stream: Stream, mut each: impl FnMut(&str)) -> Result<ExitStatus> {
        println!("$ {self}");
        match stream {
            Stream::Stdout => self.command.stdout(Stdio::piped()),
            Stream::Stderr => self.command.stderr(Stdio::piped()),
        };
        let mut child = self.command.spawn().with_context(|| format!("cannot start `{self}`"))?;
        let reader: Box<dyn io::Read> = match stream {
            Stream::Stdout => Box::new(child.stdout.take().context("no standard output to read")?),
            Stream::Stderr => Box::new(child.stderr.take().context("no standard error to read")?),
        };
        for line in BufReader::new(reader).split(b'\n') {
            let line = line.with_context(|| format!("cannot read what `{self}` prints"))?;
            let mut out = io::stdout().lock();
            out.write_all(&line)?;
            out.write_all(b"\n")?;
            each(&String::from_utf8_lossy(&line));
        }
        Ok(child.wait()?)
    }

    /// Runs it silently and returns what it wrote to standard output.
    ///
    /// # Errors
    /// When it cannot be started, or does not exit with 0; the error holds what it wrote to standard error.
    pub(crate) fn output(mut self) -> Result<String> {
        let output = self.command.output().with_context(|| format!("cannot start `{self}`"))?;
        if !output.status.success() {
            bail!("`{self}`: {}: {}", output.status, String::from_utf8_lossy(&output.stderr).trim());
        }
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    }

    fn expect_success(&self, status: ExitStatus) -> Result<()> {
        if !status.success() {
            bail!("`{self}`: {status}");
        }
        Ok(())
    }
}

impl fmt::Display for Run {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.shown)
    }
}

/// The workspace's root folder.
pub(crate) fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("the folder of the xtask is in the workspace's")
}

/// Cargo's target folder.
pub(crate) fn target() -> PathBuf {
    std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| root().join("target"), PathBuf::from)
}

/// The file of this name on PATH, if there is one.
pub(crate) fn on_path(program: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH")?;
    std::env::split_paths(&path).map(|folder| folder.join(program)).find(|file| file.is_file())
}

/// As a shell would need it; paths in the workspace are shown from its root.
fn quoted(word: &OsStr) -> String {
    let word = Path::new(word).strip_prefix(root()).map_or(word, Path::as_os_str).to_string_lossy();
    let plain = |c: char| c.is_ascii_alphanumeric() || "-_./=:,+@".contains(c);
    if !word.is_empty() && word.chars().all(plain) {
        word.into_owned()
    } else {
        format!("'{}'", word.replace('\'', r"'\''"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_printed_line_can_be_pasted_into_a_shell() {
        let run = Run::cargo("doc --no-deps").env("RUSTDOCFLAGS", "-D warnings").args(["it's"]);
        assert_eq!(run.to_string(), r"RUSTDOCFLAGS='-D warnings' cargo doc --no-deps 'it'\''s'");
        assert_eq!(Run::new(root().join("target/tools/bin/x")).to_string(), "target/tools/bin/x");
    }

    #[test]
    fn a_failed_child_is_an_error_that_names_it() {
        let error = Run::new("sh").args(["-c", "exit 3"]).run().unwrap_err().to_string();
        assert!(error.contains("exit 3") && error.contains("status: 3"), "{error}");
        let error = Run::new("no-such-program").run().unwrap_err().to_string();
        assert!(error.contains("no-such-program"), "{error}");
    }

    #[test]
    fn a_child_that_outstays_its_limit_is_ended() {
        let error = Run::new("sleep").args(["60"]).run_within(Duration::ZERO).unwrap_err().to_string();
        assert!(error.contains("longer than 0 s"), "{error}");
    }

    #[test]
    fn lines_of_the_chosen_stream_are_read_and_the_exit_status_is_the_childs() {
        let mut lines = Vec::new();
        let run = Run::new("sh").args(["-c", "echo one; echo two >&2; exit 4"]);
        let status = run.run_reading(Stream::Stdout, |line| lines.push(line.to_owned())).unwrap();
        assert_eq!((lines.join(","), status.code()), ("one".to_owned(), Some(4)));
    }
}
