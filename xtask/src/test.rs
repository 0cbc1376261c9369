//! `cargo xtask test`: fetches what the tests need, builds the workspace, and runs every test and documented example,
//! except the tests that need PostgreSQL or a browser. `cargo xtask ci fleet page` runs these; the command prints that line.
//!
//! It fails when a test fails and also when one is skipped: a test that does not run proves nothing. The counts come
//! from the runners' own closing lines; the last lines printed are nextest's, then one for both runners:
//!
//! ```text
//!      Summary [   2.100s] 120 tests run: 120 passed, 0 skipped
//! tests: 134 passed, 0 failed, 0 skipped
//! ```

use std::process::ExitCode;
use std::thread;

use anyhow::{Context, Result, ensure};

use crate::firmware;
use crate::run::{Run, Stream};
use crate::tools;

/// Result of the tests.
pub(crate) struct Tally {
    /// Nextest's closing line of each run.
    summaries: Vec<String>,
    /// Nextest's tests and documented examples together.
    counts: Counts,
}

#[derive(Clone, Copy, Debug, Default, PartialEq)]
struct Counts {
    passed: u64,
    failed: u64,
    skipped: u64,
}

/// The command: brings the toolchain, runs everything, prints the closing lines.
///
/// # Errors
/// When something is missing or does not build. Tests that fail make the exit code 1.
pub(crate) fn command() -> Result<ExitCode> {
    tools::toolchain()?;
    let tally = run()?;
    println!(
        "The tests that need PostgreSQL or a browser are not among these: run them by `cargo xtask ci fleet page`."
    );
    tally.print();
    Ok(if tally.is_good() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// Runs everything and counts.
///
/// # Errors
/// When something is missing or does not build, or a runner fails without naming a test.
pub(crate) fn run() -> Result<Tally> {
    tools::packages()?;
    let nextest = tools::NEXTEST.ready()?;
    // The tests build these themselves, but none should be slow for having been the first.
    firmware::build_gateways()?;
    let (summary, tests) = tests(nextest, &["--workspace"])?;
    let examples = documented_examples()?;
    Ok(Tally { summaries: vec![summary], counts: tests.plus(examples) })
}

/// Installs PostgreSQL, then runs and counts the tests that need it. `proxy/Cargo.toml` excludes them from other runs.
///
/// # Errors
/// As [`run`].
pub(crate) fn fleet() -> Result<Tally> {
    tools::postgres()?;
    tests_of("fleet")
}

/// Installs a browser, then runs and counts the tests that need it. `proxy/Cargo.toml` excludes them from other runs.
///
/// # Errors
/// As [`run`].
pub(crate) fn page() -> Result<Tally> {
    tools::browser()?;
    tests_of("page")
}

impl Counts {
    fn plus(self, other: Self) -> Self {
        Self {
            passed: self.passed + other.passed,
            failed: self.failed + other.failed,
            skipped: self.skipped + other.skipped,
        }
    }
}

impl Tally {
    /// Whether every test ran and passed.
    pub(crate) fn is_good(&self) -> bool {
        self.counts.failed == 0 && self.counts.skipped == 0
    }

    /// Both runs together.
    pub(crate) fn plus(mut self, other: Self) -> Self {
        self.summaries.extend(other.summaries);
        Self { counts: self.counts.plus(other.counts), ..self }
    }

    /// Prints the closing lines.
    pub(crate) fn print(&self) {
        let Counts { passed, failed, skipped } = self.counts;
        if skipped > 0 {
            println!("A skipped test proves nothing, so the run counts as failed: let it run, or remove it.");
        }
        println!("{}", self.summaries.join("\n"));
        println!("tests: {passed} passed, {failed} failed, {skipped} skipped");
    }
}

/// Runs and counts the tests of a binary that [`run`] leaves out. Cargo selects it with all the others, which are not run:
/// with another selection, dependencies have other features and are compiled again.
fn tests_of(binary: &str) -> Result<Tally> {
    tools::cpp()?;
    // Those of the other binaries count as skipped; no test of this one can be, as ignored ones are run.
    let only = format!("binary(={binary})");
    let all = ["--workspace", "--lib", "--bins", "--examples", "--test", "*"];
    let which = [&all[..], &["--run-ignored", "all", "-E", &only]].concat();
    let (summary, counts) = tests(tools::NEXTEST.ready()?, &which)?;
    let (summary, _) = summary.rsplit_once(", ").context("nextest's closing line has no skipped tests")?;
    Ok(Tally { summaries: vec![summary.to_owned()], counts: Counts { skipped: 0, ..counts } })
}

/// The tests that cargo finds with these arguments.
fn tests(nextest: Run, which: &[&str]) -> Result<(String, Counts)> {
    let mut found = None;
    // With as many tests as processors, these were idle for a third of the time: end-to-end tests wait for processes.
    let threads = thread::available_parallelism().map_or(2, |processors| processors.get() + 1).to_string();
    // Nextest reports on standard error; colours would hide the counts.
    let options = ["--color", "never", "--test-threads", &threads];
    let status = nextest.args(["run"]).args(which).args(options).run_reading(Stream::Stderr, |line| {
        if let Some(counts) = nextest_counts(line) {
            found = Some((line.to_owned(), counts));
        }
    })?;
    let (summary, counts) = found.with_context(|| format!("no test was run ({status})"))?;
    ensure!(status.success() || counts.failed > 0, "nextest failed, but counted no failed test ({status})");
    Ok((summary, counts))
}

/// The examples in the documentation, which nextest does not run.
fn documented_examples() -> Result<Counts> {
    let mut sum = Counts::default();
    let run = Run::cargo("test --doc --workspace --no-fail-fast --color never");
    let status = run.run_reading(Stream::Stdout, |line| {
        if let Some(counts) = doctest_counts(line) {
            sum.passed += counts.passed;
            sum.failed += counts.failed;
            sum.skipped += counts.skipped;
        }
    })?;
    ensure!(status.success() || sum.failed > 0, "the documented examples did not run ({status})");
    Ok(sum)
}

/// Reads nextest's closing line. What ran and did not pass has failed, whatever nextest calls it ("timed out",
/// "exec failed"), and so has what was to run and did not (`3/5 tests run`).
fn nextest_counts(line: &str) -> Option<Counts> {
    let (_, rest) = line.trim_start().strip_prefix("Summary [")?.split_once("] ")?;
    let (ran, results) = rest.split_once(": ")?;
    let total: u64 = ran.split_whitespace().next()?.rsplit('/').next()?.parse().ok()?;
    let passed = count_before("passed", results)?;
    let skipped = count_before("skipped", results).unwrap_or(0);
    Some(Counts { passed, failed: total.checked_sub(passed)?, skipped })
}

/// Reads the closing line that rustdoc prints for each crate.
fn doctest_counts(line: &str) -> Option<Counts> {
    let results = line.strip_prefix("test result: ")?;
    Some(Counts {
        passed: count_before("passed", results)?,
        failed: count_before("failed", results)?,
        skipped: count_before("ignored", results)?,
    })
}

/// The number in front of a word: 4 for "failed" in `12 passed (1 slow), 4 failed`.
fn count_before(word: &str, text: &str) -> Option<u64> {
    let words: Vec<_> = text.split([' ', ',', ';', '(', ')']).filter(|word| !word.is_empty()).collect();
    let [number, _] = words.windows(2).find(|pair| pair[1] == word)? else { return None };
    number.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nextest_closing_lines() {
        let read = |line| nextest_counts(line).map(|c| (c.passed, c.failed, c.skipped));
        assert_eq!(read("     Summary [   0.010s] 5 tests run: 5 passed, 0 skipped"), Some((5, 0, 0)));
        assert_eq!(
            read("     Summary [   0.010s] 1 test run: 1 passed (1 slow), 3 skipped"),
            Some((1, 0, 3))
        );
        let mixed = "Summary [  60.002s] 9 tests run: 5 passed (1 slow, 1 leaky), 2 failed, 1 exec failed, 1 timed out, 0 skipped";
        assert_eq!(read(mixed), Some((5, 4, 0)));
        assert_eq!(read("     Summary [   0.010s] 3/5 tests run: 3 passed, 0 skipped"), Some((3, 2, 0)));
        assert_eq!(read("        PASS [   0.010s] xtask test::tests::passed"), None);
    }

    #[test]
    fn doctest_closing_lines() {
        let line = "test result: FAILED. 2 passed; 1 failed; 3 ignored; 0 measured; 0 filtered out; finished in 0.36s";
        assert_eq!(doctest_counts(line), Some(Counts { passed: 2, failed: 1, skipped: 3 }));
        assert_eq!(doctest_counts("running 2 tests"), None);
    }

    #[test]
    fn a_skipped_test_spoils_the_run() {
        let tally =
            |failed, skipped| Tally { summaries: Vec::new(), counts: Counts { passed: 1, failed, skipped } };
        assert!(tally(0, 0).is_good());
        assert!(!tally(1, 0).is_good());
        assert!(!tally(0, 1).is_good());
        assert!(!tally(0, 0).plus(tally(1, 0)).is_good());
        assert_eq!(tally(0, 0).plus(tally(0, 0)).counts.passed, 2);
    }
}
