//! The operations on the month: commands of the proxy's executable, as an operator runs them while the proxy serves.

use std::fs;
use std::path::{Path, PathBuf};
use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};

use super::Month;
use crate::bench::peers::middle;
use crate::run::Run;

/// The first card's msisdn, as in `bench/benches/scale/month.rs`.
const FIRST_CARD: u64 = 14_766_000_000;

/// A use of the month.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Operation {
    /// For comparison.
    Nothing,
    Card,
    Day,
    Verify,
    Backup,
    Csv,
    Parquet,
}

/// All of them, in the order in which they are measured.
pub(super) const OPERATIONS: [Operation; 7] = [
    Operation::Nothing,
    Operation::Card,
    Operation::Day,
    Operation::Verify,
    Operation::Backup,
    Operation::Csv,
    Operation::Parquet,
];

impl Operation {
    /// Its name in the table.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Nothing => "nothing",
            Self::Card => "a card's latest 50",
            Self::Day => "a day's stats",
            Self::Verify => "`audit verify`",
            Self::Backup => "`backup`",
            Self::Csv => "`audit export`, CSV",
            Self::Parquet => "`audit export`, Parquet",
        }
    }
}

/// The times of an operation.
#[derive(Clone, Copy, Debug)]
pub(super) struct Timed {
    /// The median, in seconds.
    pub(super) seconds: f64,
    /// Rows that it read, where it reads each once.
    pub(super) rows: Option<u64>,
}

/// Runs operations.
pub(super) struct Operations {
    program: PathBuf,
    config: PathBuf,
    /// Folder of what they write.
    out: PathBuf,
    month: Month,
    /// Seconds for which an operation is repeated.
    least: Duration,
    /// Number of commands so far.
    count: u64,
    /// The verdict of the last verification.
    pub(super) verified: String,
}

impl Operations {
    /// On the month of the proxy in this folder. An operation is repeated until `least` has passed.
    pub(super) fn new(program: &Path, folder: &Path, month: Month, least: Duration) -> Result<Self> {
        let operations = Self {
            program: program.to_owned(),
            config: folder.join("cmiot-proxy.toml"),
            out: folder.join("out"),
            month,
            least,
            count: 0,
            verified: String::new(),
        };
        fs::create_dir_all(&operations.out)?;
        Ok(operations)
    }

    /// Times an operation, on these processors or on all.
    #[expect(clippy::disallowed_methods, reason = "times another process")]
    pub(super) fn repeat(&mut self, operation: Operation, processors: Option<&str>) -> Result<Timed> {
        let begun = Instant::now();
        let mut times = Vec::new();
        loop {
            let start = Instant::now();
            let rows = self.run(operation, processors).with_context(|| operation.name())?;
            times.push(start.elapsed().as_secs_f64());
            if begun.elapsed() >= self.least {
                return Ok(Timed { seconds: middle(times), rows });
            }
        }
    }

    /// Removes what the operations wrote.
    pub(super) fn clean_up(&self) -> Result<()> {
        fs::remove_dir_all(&self.out)?;
        Ok(fs::create_dir_all(&self.out)?)
    }

    /// Runs it once and checks its result. Returns the number of rows that it read, where it reads each once.
    fn run(&mut self, operation: Operation, processors: Option<&str>) -> Result<Option<u64>> {
        self.count += 1;
        let month = &self.month;
        let to = self.out.join(self.count.to_string());
        let to = to.to_str().context("the workspace's path is not UTF-8")?;
        let run = |words: &[&str]| self.command(words, processors);
        let read = match operation {
            Operation::Nothing => {
                sleep(self.least);
                return Ok(None);
            }
            Operation::Card => {
                let card = (FIRST_CARD + self.count * 7_919 % month.cards).to_string();
                let printed = run(&["audit", "query", "--card", &card, "--limit", "50", "--format", "csv"])?;
                let rows = printed.lines().count().saturating_sub(1);
                ensure!(rows == 50, "{rows} rows of {card}");
                return Ok(None);
            }
            Operation::Day => {
                let [since, until] = &month.day;
                let printed = run(&["audit", "stats", "--since", since, "--until", until])?;
                let read = number(&printed, " lookups, ")? + number(&printed, " carrier calls, ")?;
                // Longer months have 31 days.
                ensure!(read >= month.rows / 32, "{read} rows on {since}");
                return Ok(Some(read));
            }
            Operation::Verify => {
                let printed = run(&["audit", "verify"])?;
                let verdict = printed.lines().last().unwrap_or_default();
                ensure!(verdict.ends_with(": chain ok"), "{printed}");
                let read = number(verdict, " rows: ")?;
                self.verified = verdict.to_owned();
                read
            }
            Operation::Backup => {
                let printed = run(&["backup", to])?;
                number(&printed, " of ")?
            }
            Operation::Csv | Operation::Parquet => {
                let format = if operation == Operation::Csv { "csv" } else { "parquet" };
                let printed = run(&["audit", "export", "--month", &month.name, "--format", format, to])?;
                number(&printed, " lookups, ")? + number(&printed, " carrier calls, ")?
            }
        };
        let rows = self.month.rows;
        ensure!(read >= rows, "{read} rows of {rows}");
        Ok(Some(read))
    }

    /// Runs a command of the proxy with its configuration; returns what it printed.
    fn command(&self, words: &[&str], processors: Option<&str>) -> Result<String> {
        let run = match processors {
            Some(list) => Run::new("taskset").args(["-c", list]).args([&self.program]),
            None => Run::new(&self.program),
        };
        run.args(words).args(["--config"]).args([&self.config]).env("LC_ALL", "C").output()
    }
}

/// The number before these words.
fn number(printed: &str, words: &str) -> Result<u64> {
    let (before, _) = printed.split_once(words).with_context(|| format!("no `{words}` in {printed}"))?;
    let digits = before.rsplit(|c: char| !c.is_ascii_digit()).next().unwrap_or_default();
    digits.parse().with_context(|| format!("no number before `{words}` in {printed}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_found_before_their_words() {
        let printed = "12 lookups, SHA-256 ab\n3 carrier calls, SHA-256 cd\n";
        assert_eq!(number(printed, " lookups, ").unwrap(), 12);
        assert_eq!(number(printed, " carrier calls, ").unwrap(), 3);
        assert!(number(printed, " rows: ").is_err() && number("rows: 1", "rows").is_err());
    }
}
