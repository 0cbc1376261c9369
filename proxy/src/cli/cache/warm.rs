//! `cmiot-proxy cache warm`: fetches every card of a file, and writes down what came of each.
//!
//! The file has a card in the first column of each line, `msisdn:`, `iccid:` or `imsi:` before it where its form does
//! not tell; a heading (a first line without a digit), blank lines, `#` comments and a byte-order mark are skipped. The result file has a line a card
//! (`card,outcome,code,status,reason`), appended as each is done: begun again, the command goes on where it was cut
//! off, and tries those that failed once more. Declared parameters stand behind the card in it
//! (`msisdn:14765004176?query_date=20260101`). The proxy's budget sets the pace: misses of gateways come first.

use std::collections::HashSet;
use std::fs::{File, OpenOptions};
use std::io::Write as _;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, bail};
use cmiot_proxy::audit::render;
use cmiot_proxy::config::text::without_mark;
use cmiot_proxy::store::audit::query::Field;
use cmiot_signer::Card;
use indicatif::{ProgressBar, ProgressStyle};
use serde_json::Value;
use tokio::task::JoinSet;

use super::{AdminArgs, Scope, With, card};
use crate::cli::admin_client::{AdminClient, AdminResponse};

/// Attempts per card while the proxy responds with `Retry-After`.
const TRIES: u32 = 20;
/// The longest wait between two tries: a day's budget that is spent is a reason to stop, not to wait.
const LONGEST_WAIT: u64 = 60;

#[derive(clap::Args)]
pub(super) struct Warm {
    /// File with a card a line, in its first column; a first line without a digit is a heading
    #[arg(long, value_name = "CSV")]
    file: PathBuf,
    /// File for what came of each [default: the cards' file with .result.csv]
    #[arg(long, value_name = "CSV")]
    result: Option<PathBuf>,
    /// Cards asked about at once
    #[arg(long, default_value_t = 8, value_parser = clap::value_parser!(u32).range(1..=256))]
    at_once: u32,
    #[command(flatten)]
    of: Scope,
    #[command(flatten)]
    with: With,
    #[command(flatten)]
    at: AdminArgs,
}

/// The result for one card.
struct Done {
    outcome: String,
    line: String,
}

impl Warm {
    pub(super) fn run(self) -> anyhow::Result<ExitCode> {
        let client = Arc::new(self.at.client()?);
        let cards = cards(&self.file)?;
        let path = self.result.clone().unwrap_or_else(|| self.file.with_extension("result.csv"));
        let before = finished(&path)?;
        let with = self.with.suffix();
        let left: Vec<Card> =
            cards.iter().filter(|card| !before.contains(&cell(named(card) + &with))).copied().collect();
        let mut result = open(&path)?;
        let bar = bar(left.len() as u64);
        let failed = super::super::runtime()?.block_on(self.fetch(&client, left, |done| {
            bar.inc(1);
            writeln!(result, "{}", done.line).with_context(|| path.display().to_string())
        }))?;
        bar.finish_and_clear();
        result.sync_all().with_context(|| path.display().to_string())?;
        let total = cards.len();
        out!("{total} cards, {} done before, {failed} failed: {}", before.len(), path.display());
        Ok(if failed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE })
    }

    /// Fetches all of them, so many at once; returns how many failed.
    async fn fetch(
        &self,
        client: &Arc<AdminClient>,
        cards: Vec<Card>,
        mut write: impl FnMut(&Done) -> anyhow::Result<()>,
    ) -> anyhow::Result<u64> {
        let mut failed = 0;
        let mut cards = cards.into_iter();
        let mut asking = JoinSet::new();
        loop {
            while asking.len() < self.at_once as usize {
                let Some(card) = cards.next() else { break };
                let (client, wanted) = (Arc::clone(client), self.with.to(self.of.about(Some(&card)))?);
                let name = named(&card) + &self.with.suffix();
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
                let told = ["outcome", "code", "status", "reason"].map(|name| Field::Text(of(name)));
                let row: Vec<Field> = [Field::Text(name.to_owned())].into_iter().chain(told).collect();
                return Ok(Done { outcome: of("outcome"), line: render::csv_line(&row) });
            }
        }
    }
}

fn cards(path: &Path) -> anyhow::Result<Vec<Card>> {
    let text = std::fs::read_to_string(path)
        .with_context(|| format!("{}: cannot be read as UTF-8 text", path.display()))?;
    let mut cards = Vec::new();
    let mut is_first = true;
    for (index, line) in without_mark(&text).lines().enumerate() {
        let mut cells = line.split(',').map(|cell| cell.trim().trim_matches('"').trim());
        let first = cells.next().unwrap_or_default();
        let more = cells.any(|cell| !cell.is_empty());
        if first.starts_with('#') || first.is_empty() && !more {
            continue;
        }
        // Without a digit: a number with a slip in it is no heading.
        let is_heading = std::mem::take(&mut is_first) && !line.bytes().any(|byte| byte.is_ascii_digit());
        let what = match card::parse(first) {
            Ok(card) => {
                cards.push(card);
                continue;
            }
            Err(_) if is_heading => continue,
            Err(_) if first.is_empty() => "the first column is blank, and has to hold the card".to_owned(),
            Err(error) => error,
        };
        bail!("{}, line {}: {what}", path.display(), index + 1);
    }
    let mut seen = HashSet::new();
    cards.retain(|card| seen.insert(*card));
    Ok(cards)
}

/// The cards of a result file that need not be tried again.
fn finished(path: &Path) -> anyhow::Result<HashSet<String>> {
    let text = match std::fs::read_to_string(path) {
        Ok(text) => text,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => String::new(),
        Err(error) => return Err(error).with_context(|| path.display().to_string()),
    };
    // The last line counts when it was written to its end.
    let whole = text.rfind('\n').map_or("", |end| &text[..end]);
    let done = whole.lines().filter_map(|line| {
        let mut reader = csv::ReaderBuilder::new().has_headers(false).from_reader(line.as_bytes());
        let columns = reader.records().next()?.ok()?;
        matches!(columns.get(1)?, "fetched" | "fresh").then(|| columns[0].to_owned())
    });
    Ok(done.collect())
}

fn open(path: &Path) -> anyhow::Result<File> {
    let mut file = OpenOptions::new()
        .create(true)
        .append(true)
        // Card numbers are in it: for its owner alone.
        .mode(0o600)
        .open(path)
        .with_context(|| path.display().to_string())?;
    let text = std::fs::read(path).with_context(|| path.display().to_string())?;
    if text.is_empty() {
        writeln!(file, "card,outcome,code,status,reason")?;
    } else if !text.ends_with(b"\n") {
        writeln!(file)?; // cut off in the middle of a line, which is not counted
    }
    Ok(file)
}

/// The text of a cell of the result file.
fn cell(text: String) -> String {
    render::cell(&Field::Text(text))
}

/// The card as the files name it.
fn named(card: &Card) -> String {
    format!("{}:{}", card.kind().as_str(), card.as_str())
}

fn bar(cards: u64) -> ProgressBar {
    let style = ProgressStyle::with_template("{bar:40} {pos}/{len} cards, {per_sec}, {eta} left");
    ProgressBar::new(cards).with_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_of_cards_is_read_with_its_heading_comments_and_further_columns() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("cards.csv");
        std::fs::write(
            &path,
            "card,place\n\"14765004176\",here\n# no\n\niccid:898602b0011430000544\n14765004176\n",
        )
        .unwrap();
        let cards: Vec<_> = cards(&path).unwrap().iter().map(named).collect();
        assert_eq!(cards, ["msisdn:14765004176", "iccid:898602B0011430000544"]);
        std::fs::write(&path, "14765004176\nnot a card\n").unwrap();
        assert!(super::cards(&path).unwrap_err().to_string().contains("line 2"));
    }

    #[test]
    fn no_line_of_a_file_of_cards_is_left_out_unsaid() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("cards.csv");
        let read = |text: &str| {
            std::fs::write(&path, text).unwrap();
            cards(&path).map(|cards| cards.len()).map_err(|error| error.to_string())
        };
        for (text, count) in [
            ("\u{feff}14765000001\r\n14765000002\r\n", 2),
            ("\u{feff}card,place\r\n14765000001,here\r\n,\r\n", 1),
            ("# sweep\n\ncard\n14765000001\n", 1),
            (",place\n14765000001,here\n", 1),
        ] {
            assert_eq!(read(text), Ok(count), "{text:?}");
        }
        for (text, line) in [
            ("147650O0003\n14765000004\n", "line 1"),
            ("card\ncard\n14765000004\n", "line 2"),
            ("place,card\nhere,14765000004\n", "line 2"),
            ("card\n,14765000004\n", "line 2"),
            ("14765000004;here\n", "line 1"),
        ] {
            assert!(read(text).unwrap_err().contains(line), "{text:?}");
        }
    }

    #[test]
    fn what_failed_and_what_was_cut_off_is_tried_again() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("result.csv");
        assert!(finished(&path).unwrap().is_empty());
        std::fs::write(
            &path,
            "card,outcome\nmsisdn:1,fetched,0,00,\nmsisdn:2,failed,73,,connect\nmsisdn:3,fresh,0",
        )
        .unwrap();
        assert_eq!(finished(&path).unwrap(), HashSet::from(["msisdn:1".to_owned()]));
        let name = "msisdn:4?x=a,\"b\"\u{202e}".to_owned();
        let row = [Field::Text(name.clone()), Field::Text("fresh".into())];
        std::fs::write(&path, format!("card,outcome\n{}\n", render::csv_line(&row))).unwrap();
        assert_eq!(finished(&path).unwrap(), HashSet::from([cell(name)]));
        std::fs::write(&path, "card,outcome\nmsisdn:3,fresh,0").unwrap();
        drop(open(&path).unwrap());
        assert!(std::fs::read_to_string(&path).unwrap().ends_with("fresh,0\n"));
    }
}
