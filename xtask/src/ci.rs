//! `cargo xtask ci [STAGE]...`: what a change must pass, as named stages that each run alone. Two more, which take long and
//! seldom find anything, run by name only.
//!
//! Every stage runs, whether or not one before it failed, so that one run shows all there is to mend. Then comes a
//! table of results and times, and last the test runners' closing lines.

mod api;
mod arrows;
mod bench;
mod deny;
mod fuzz;
mod packages;
mod signer;

use std::process::ExitCode;
use std::time::{Duration, Instant};

use anyhow::Result;
use clap::builder::{PossibleValue, PossibleValuesParser};

use crate::firmware;
use crate::prose;
use crate::release;
use crate::run::Run;
use crate::test::{self, Tally};
use crate::tools;

/// Stages that read files only, and start no cargo.
const READERS: &[&str] = &["arrows", "prose"];

struct Stage {
    name: &'static str,
    about: &'static str,
    run: fn() -> Result<Option<Tally>>,
}

/// All stages, in the order in which they run: the quick ones that fail most often first.
const STAGES: &[Stage] = &[
    Stage { name: "fmt", about: "The code is formatted", run: || plain(fmt) },
    Stage { name: "clippy", about: "No warning anywhere, with and without features", run: || plain(clippy) },
    Stage {
        name: "prose",
        about: "Comments, messages and documents use plain words (xtask/prose.toml)",
        run: || plain(prose::stage),
    },
    Stage {
        name: "arrows",
        about: "The proxy's modules import each other as ARCHITECTURE.md says, without cycles",
        run: || plain(arrows::stage),
    },
    Stage { name: "test", about: "cargo xtask test", run: || test::run().map(Some) },
    Stage {
        name: "fleet",
        about: "Several proxies over one PostgreSQL server pass their tests",
        run: || test::fleet().map(Some),
    },
    Stage {
        name: "page",
        about: "The operators' page passes its tests in a browser",
        run: || test::page().map(Some),
    },
    Stage {
        name: "api",
        about: "The operators' listener answers as docs/openapi.yaml says",
        run: || plain(api::stage),
    },
    Stage { name: "docs", about: "The documentation builds without a warning", run: || plain(docs) },
    Stage {
        name: "no-std",
        about: "The signer builds for each chip with each set of features",
        run: || plain(signer::no_std),
    },
    Stage {
        name: "publish",
        about: "The signer's packages are complete: a dry run of their publication",
        run: || plain(signer::publish),
    },
    Stage {
        name: "firmware",
        about: "The signer passes its tests on emulated chips, within its budgets; its archives for chips work as unpacked",
        run: || plain(|| firmware::stage().and_then(|()| release::libraries())),
    },
    Stage {
        name: "msrv",
        about: "The signer builds with the oldest Rust it promises",
        run: || plain(signer::msrv),
    },
    Stage {
        name: "deny",
        about: "Dependencies: licences, bans, sources, advisories",
        run: || plain(deny::stage),
    },
    Stage {
        name: "bench",
        about: "The benches of our own code run for a second",
        run: || plain(bench::stage),
    },
    Stage {
        name: "packages",
        about: "The packages install, start, upgrade and purge, and lintian and rpmlint find nothing",
        run: || plain(packages::stage),
    },
    Stage {
        name: "corpus",
        about: "The fuzz targets build, and each accepts its corpus",
        run: || plain(fuzz::corpus),
    },
];

/// Stages that run by name only.
const BY_NAME: &[Stage] = &[
    Stage {
        name: "peers",
        about: "The benches with other servers run for a second (by name only)",
        run: || plain(bench::peers),
    },
    Stage {
        name: "fuzz",
        about: "Parsers of untrusted bytes, fuzzed for 20 s per target (by name only)",
        run: || plain(fuzz::stage),
    },
];

/// Result of a stage.
struct Report {
    name: &'static str,
    took: Duration,
    /// Reason of a failure.
    failure: Option<String>,
}

/// Runs the stages of these names, or all of [`STAGES`] when there are none.
///
/// # Errors
/// When the toolchain is not available. Stages that fail make the exit code 1.
pub(crate) fn command(names: &[String]) -> Result<ExitCode> {
    if names.is_empty() || names.iter().any(|name| !READERS.contains(&name.as_str())) {
        tools::toolchain()?;
    }
    let mut reports = Vec::new();
    let mut tally: Option<Tally> = None;
    let named = |stage: &&Stage| names.iter().any(|name| name == stage.name);
    let stages: Vec<_> = match names {
        [] => STAGES.iter().collect(),
        _ => STAGES.iter().chain(BY_NAME).filter(named).collect(),
    };
    for stage in stages {
        println!("\n=== {}: {}", stage.name, stage.about);
        let (result, took) = timed(stage.run);
        let failure = match result {
            Ok(None) => None,
            Ok(Some(tests)) => {
                let failure = (!tests.is_good()).then(|| "not every test ran and passed".to_owned());
                tally = Some(match tally {
                    Some(earlier) => earlier.plus(tests),
                    None => tests,
                });
                failure
            }
            Err(error) => Some(format!("{error:#}")),
        };
        if let Some(failure) = &failure {
            println!("error: {failure}");
        }
        reports.push(Report { name: stage.name, took, failure });
    }
    print!("\n{}", table(&reports));
    if let Some(tally) = tally {
        tally.print();
    }
    let good = reports.iter().all(|report| report.failure.is_none());
    Ok(if good { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// For the command line: the names that [`command`] takes, with their help.
pub(crate) fn stage_names() -> PossibleValuesParser {
    let value = |stage: &Stage| PossibleValue::new(stage.name).help(stage.about);
    STAGES.iter().chain(BY_NAME).map(value).collect::<Vec<_>>().into()
}

fn fmt() -> Result<()> {
    Run::cargo("fmt --all --check").run()
}

fn clippy() -> Result<()> {
    tools::cpp()?;
    // Two are not among all targets, since they are no tests of `cargo test`.
    let all = "--workspace --all-targets --test fleet --test page --all-features";
    Run::cargo(&format!("clippy {all} -- -D warnings")).run()?;
    Run::cargo("clippy --package cmiot-signer --all-targets --no-default-features -- -D warnings").run()?;
    // Without its tests, for which many more packages would be compiled with other features.
    Run::cargo("clippy --package cmiot-proxy --lib --bins --no-default-features -- -D warnings").run()
}

fn docs() -> Result<()> {
    Run::cargo("doc --workspace --all-features --no-deps").env("RUSTDOCFLAGS", "-D warnings").run()
}

/// A stage that runs no tests.
fn plain(stage: fn() -> Result<()>) -> Result<Option<Tally>> {
    stage().map(|()| None)
}

fn timed<T>(work: impl FnOnce() -> T) -> (T, Duration) {
    #[expect(clippy::disallowed_methods, reason = "duration of a stage, for the table only")]
    let start = Instant::now();
    (work(), start.elapsed())
}

fn table(reports: &[Report]) -> String {
    let mut table = format!("{:<10}{:<8}{:>8}\n", "stage", "result", "seconds");
    for Report { name, took, failure } in reports {
        let result = if failure.is_some() { "FAILED" } else { "ok" };
        let reason = failure.as_deref().and_then(|reason| reason.lines().next()).unwrap_or("");
        let row = format!("{name:<10}{result:<8}{:>8.1}  {reason}", took.as_secs_f64());
        table.push_str(row.trim_end());
        table.push('\n');
    }
    table
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_has_a_row_a_stage_and_the_first_line_of_each_failure() {
        let report = |name, failure: Option<&str>| Report {
            name,
            took: Duration::from_millis(1_250),
            failure: failure.map(str::to_owned),
        };
        assert_eq!(
            table(&[report("fmt", None), report("clippy", Some("`cargo clippy`: exit status: 101\nmore"))]),
            "stage     result   seconds\n\
             fmt       ok           1.2\n\
             clippy    FAILED       1.2  `cargo clippy`: exit status: 101\n"
        );
    }
}
