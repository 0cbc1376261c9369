//! `cmiot-proxy cache warm`: fetches every card of a file, and writes the outcome of each to a result file.
//!
//! `cards.rs` reads the cards, `results.rs` describes the result file. The proxy's budget sets the pace: misses of gateways
//! come first.

mod cards;
mod results;

use std::collections::HashSet;
use std::io::{IsTerminal as _, Write as _};
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context, bail};
use cmiot_signer::Card;
use indicatif::{ProgressBar, ProgressStyle};
use serde_json::Value;
use tokio::task::JoinSet;

use super::{Scope, With};
use crate::cli::admin_client::{AdminClient, AdminResponse, ProxyArgs};
use crate::cli::shown_path;

/// Attempts per card while the proxy responds with `Retry-After`.
const TRIES: u32 = 20;
/// The longest wait between two tries: a day's budget that is spent is a reason to stop, not to wait.
const LONGEST_WAIT: u64 = 60;

#[derive(clap::Args)]
pub(super) struct Warm {
    /// File with one card per line, in its first column, or - for standard input; a first line without a digit is a heading
    #[arg(long, value_name = "CSV")]
    file: PathBuf,
    /// File for the outcomes, one line per card in the order of the cards [default: the cards' file with .result.csv]
    #[arg(long, value_name = "CSV")]
    result: Option<PathBuf>,
    /// Report progress on standard error although it is no terminal: a line every ten seconds
    #[arg(long)]
    progress: bool,
    /// Cards that are fetched at the same time
    #[arg(long, default_value_t = 8, value_parser = clap::value_parser!(u32).range(1..=256))]
    at_once: u32,
    #[command(flatten)]
    of: Scope,
    #[command(flatten)]
    with: With,
    #[command(flatten)]
    at: ProxyArgs,
}

/// The result for one card.
struct Done {
    outcome: String,
    line: String,
}

impl Warm {
    pub(super) fn run(self) -> anyhow::Result<ExitCode> {
        let client = self.at.client()?;
        let path = match &self.result {
            Some(path) => path.clone(),
            None if self.file.as_os_str() == "-" => {
                bail!("--file -: name the file for the outcomes with --result")
            }
            None => self.file.with_extension("result.csv"),
        };
        let inputs = cards::read(&self.file)?;
        let before = results::finished(&path)?;
        let with = self.with.suffix();
        let mut seen = HashSet::new();
        let once = inputs.iter().map(|input| input.card).filter(|card| seen.insert(*card));
        let (done, left): (Vec<Card>, Vec<Card>) =
            once.partition(|card| before.contains(&results::key(card, &with)));
        let mut result = results::open(&path)?;
        let mut progress = Progress::new(left.len(), self.progress);
        let total = done.len() + left.len();
        let failed = super::super::runtime()?.block_on(self.fetch(&client, left, |done| {
            progress.advance(done.outcome == "failed");
            writeln!(result, "{}", done.line).with_context(|| path.display().to_string())
        }))?;
        progress.finish();
        result.sync_all().with_context(|| path.display().to_string())?;
        results::put_in_order(&path, &inputs, &with)?;
        let (before, path) = (done.len(), shown_path(&path));
        say!(
            "{total} cards, {before} done before, {failed} failed: {path}",
            "{total} 张卡，此前已完成 {before} 张，失败 {failed} 张：{path}"
        );
        Ok(if failed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE })
    }

    /// Fetches all cards, `at_once` of them at a time; returns the number of failures.
    async fn fetch(
        &self,
        client: &AdminClient,
        cards: Vec<Card>,
        mut write: impl FnMut(&Done) -> anyhow::Result<()>,
    ) -> anyhow::Result<u64> {
        let mut failed = 0;
        let mut cards = cards.into_iter();
        let mut asking = JoinSet::new();
        loop {
            while asking.len() < self.at_once as usize {
                let Some(card) = cards.next() else { break };
                let (client, wanted) = (client.clone(), self.with.to(self.of.about(Some(&card)))?);
                let name = results::name(&card, &self.with.suffix());
                asking.spawn(async move { one(&client, card, &name, &wanted).await });
            }
            let Some(done) = asking.join_next().await else { return Ok(failed) };
            let done = done.context("a fetch died")??;
            failed += u64::from(done.outcome == "failed");
            write(&done)?;
        }
    }
}

/// One card, tried again while the proxy says that waiting helps.
async fn one(client: &AdminClient, card: Card, name: &str, wanted: &Value) -> anyhow::Result<Done> {
    let mut tries = TRIES;
    loop {
        let answer = AdminResponse::of(&client.post("/cache/fetch", wanted.to_string()).await?)?;
        if let Some(error) = answer.body["error"].as_str() {
            bail!("{}: {error}", card.masked());
        }
        tries -= 1;
        match answer.retry_after {
            Some(wait) if !answer.ok && tries > 0 && wait <= LONGEST_WAIT => {
                tokio::time::sleep(Duration::from_secs(wait)).await;
            }
            _ => {
                let of = |name: &str| answer.body[name].as_str().unwrap_or_default().to_owned();
                let result = ["outcome", "code", "status", "reason"].map(&of);
                return Ok(Done { outcome: of("outcome"), line: results::line(name, &result) });
            }
        }
    }
}

/// Progress on standard error: a bar on a terminal, otherwise a line every [`INTERVAL`] if it is asked for.
struct Progress {
    bar: ProgressBar,
    lines: bool,
    total: usize,
    done: usize,
    failed: usize,
    next: Duration,
}

/// The interval between lines of progress.
const INTERVAL: Duration = Duration::from_secs(10);

impl Progress {
    fn new(total: usize, wanted: bool) -> Self {
        let style = ProgressStyle::with_template(&said!(
            "{{bar:40}} {{pos}}/{{len}} cards, {{msg}}{{per_sec}}, {{eta}} left",
            "{{bar:40}} {{pos}}/{{len}} 张卡，{{msg}}{{per_sec}}，剩余 {{eta}}"
        ));
        // Without a terminal indicatif draws nothing.
        let bar =
            ProgressBar::new(total as u64).with_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()));
        let lines = wanted && !std::io::stderr().is_terminal();
        Self { bar, lines, total, done: 0, failed: 0, next: INTERVAL }
    }

    fn advance(&mut self, failed: bool) {
        self.done += 1;
        if failed {
            self.failed += 1;
            self.bar.set_message(said!("{failed} failed, ", "失败 {failed} 张，", failed = self.failed));
        }
        self.bar.inc(1);
        if self.lines && self.bar.elapsed() >= self.next {
            self.next = self.bar.elapsed() + INTERVAL;
            self.print();
        }
    }

    fn finish(&self) {
        self.bar.finish_and_clear();
        if self.lines {
            self.print();
        }
    }

    fn print(&self) {
        let seconds = self.bar.elapsed().as_secs_f64().max(0.001);
        let rate = self.done as f64 / seconds;
        let Self { done, total, failed, .. } = self;
        crate::cli::warn(&said!(
            "{done}/{total} cards, {failed} failed, {rate:.1} per second",
            "{done}/{total} 张卡，失败 {failed} 张，每秒 {rate:.1} 张"
        ));
    }
}
