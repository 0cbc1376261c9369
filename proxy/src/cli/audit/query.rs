//! `cmiot-proxy audit query|show|changes`: look-ups, one look-up, and where a STATUS changed.

use std::ops::ControlFlow;
use std::process::ExitCode;

use clap::ValueEnum;
use cmiot_proxy::audit::{filter, render};
use cmiot_proxy::clock::Time;
use cmiot_proxy::store::audit::query::{
    CALL, CHANGE, Field, Fields, Filter, LOOKUP, changes, look_ups, show,
};
use cmiot_signer::Card;
use comfy_table::presets::UTF8_FULL_CONDENSED;
use comfy_table::{ContentArrangement, Table};

use super::super::card;
use super::{Folder, time_args};

/// Find look-ups, the newest first.
#[derive(clap::Args)]
#[command(after_help = "Examples:
  cmiot-proxy audit query --config cmiot-proxy.toml --card 14765004176
  cmiot-proxy audit query --dir data --since 2h --outcome failed --format json
  cmiot-proxy audit query --dir data --client GW0001 --since 2026-01-15 --until 2026-01-16 --format csv")]
pub(super) struct Query {
    #[command(flatten)]
    folder: Folder,
    #[command(flatten)]
    filters: Filters,
    /// At most so many, up to a million
    #[arg(long, default_value_t = 50, value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    limit: u32,
    /// Only those of a smaller number: the last one of the page before
    #[arg(long, value_name = "ID", value_parser = clap::value_parser!(i64).range(1..))]
    before: Option<i64>,
    /// How they are printed
    #[arg(long, value_enum, default_value = "table")]
    format: Format,
}

/// Which look-ups.
#[derive(clap::Args)]
struct Filters {
    /// About this card; where the audit has hashes, by the keys in the folder
    #[arg(long, value_parser = card::parse)]
    card: Option<Card>,
    /// By the client's appid
    #[arg(long, value_name = "APPID")]
    client: Option<String>,
    /// By the account that the carrier was asked with
    #[arg(long, value_name = "NAME")]
    account: Option<String>,
    /// From this address
    #[arg(long, value_name = "ADDRESS")]
    peer: Option<String>,
    /// With this transid, the gateway's or the carrier's
    #[arg(long)]
    transid: Option<String>,
    /// That ended so: hit, stale, miss, collapsed, refused, failed
    #[arg(long)]
    outcome: Option<String>,
    /// Answered with this code
    #[arg(long)]
    code: Option<String>,
    /// Answered with this STATUS
    #[arg(long)]
    status: Option<String>,
    /// Since then: 2h, 2026-01-15 (at +08:00), RFC 3339
    #[arg(long, value_parser = time_args::time)]
    since: Option<Time>,
    /// Until then
    #[arg(long, value_parser = time_args::time)]
    until: Option<Time>,
}

#[derive(Clone, Copy, ValueEnum)]
enum Format {
    /// For people
    Table,
    /// One JSON object a line
    Json,
    /// RFC 4180
    Csv,
}

impl Query {
    pub(super) fn run(self) -> anyhow::Result<ExitCode> {
        let limit = self.limit as usize;
        let Filters { card, client, account, peer, transid, outcome, code, status, since, until } =
            self.filters;
        let before = self.before;
        let filter =
            Filter { card, client, account, peer, transid, outcome, code, status, since, until, before };
        let filter = filter::checked(filter).map_err(|error| anyhow::anyhow!("--{error}"))?;
        let found = look_ups(&self.folder.with_segments()?, &filter, limit, None)?;
        match self.format {
            Format::Json => {
                for row in &found {
                    out!("{}", render::json_line(&LOOKUP, row));
                }
            }
            Format::Csv => {
                out!("{}", render::csv_head(&LOOKUP));
                for row in &found {
                    out!("{}", render::csv_line(row));
                }
            }
            Format::Table => {
                out!(
                    "{}",
                    table(
                        &NARROW.map(|column| LOOKUP[column]),
                        found.iter().map(|row| NARROW.map(|column| render::cell(&row[column])).to_vec())
                    )
                );
                if let (true, Some(Field::Int(last))) =
                    (found.len() == limit, found.last().map(|row| &row[0]))
                {
                    out!("older ones: --before {last}");
                }
            }
        }
        Ok(ExitCode::SUCCESS)
    }
}

/// What a terminal has room for: id, time, client, peer, card, transid, outcome, reason, code, STATUS, age, latency.
const NARROW: [usize; 12] = [0, 1, 2, 5, 8, 9, 10, 11, 12, 15, 17, 19];

/// Show one look-up with the carrier calls that it cost.
#[derive(clap::Args)]
#[command(after_help = "Example:\n  cmiot-proxy audit show --dir data 4711")]
pub(super) struct Show {
    #[command(flatten)]
    folder: Folder,
    /// Its number
    #[arg(value_parser = clap::value_parser!(i64).range(1..))]
    id: i64,
}

impl Show {
    pub(super) fn run(self) -> anyhow::Result<ExitCode> {
        let Some((row, calls)) = show(&self.folder.with_segments()?, self.id)? else {
            crate::cli::warn(&format!("no look-up has the number {}", self.id));
            return Ok(ExitCode::FAILURE);
        };
        out!("{}", upright(&LOOKUP, &row));
        out!("carrier calls: {}", calls.len());
        for call in &calls {
            out!("{}", upright(&CALL, call));
        }
        Ok(ExitCode::SUCCESS)
    }
}

/// Show where a card's STATUS was seen to change, and between which two answers of the carrier's.
#[derive(clap::Args)]
#[command(after_help = "Example:\n  cmiot-proxy audit changes --dir data --since 2026-01-01 --format csv")]
pub(super) struct Changes {
    #[command(flatten)]
    folder: Folder,
    /// Of this card
    #[arg(long, value_parser = card::parse)]
    card: Option<Card>,
    /// Seen since then
    #[arg(long, value_parser = time_args::time)]
    since: Option<Time>,
    /// Seen until then
    #[arg(long, value_parser = time_args::time)]
    until: Option<Time>,
    /// How they are printed
    #[arg(long, value_enum, default_value = "table")]
    format: Format,
}

impl Changes {
    pub(super) fn run(self) -> anyhow::Result<ExitCode> {
        let filter = Filter { card: self.card, since: self.since, until: self.until, ..Filter::default() };
        let filter = filter::checked(filter).map_err(|error| anyhow::anyhow!("--{error}"))?;
        let mut found: Vec<Fields> = Vec::new();
        changes(&self.folder.with_segments()?, &filter, |change| {
            found.push(change);
            ControlFlow::Continue(())
        })?;
        match self.format {
            Format::Json => {
                for row in &found {
                    out!("{}", render::json_line(&CHANGE, row));
                }
            }
            Format::Csv => {
                out!("{}", render::csv_head(&CHANGE));
                for row in &found {
                    out!("{}", render::csv_line(row));
                }
            }
            Format::Table => {
                out!("{}", table(&CHANGE, found.iter().map(|row| row.iter().map(render::cell).collect())));
            }
        }
        Ok(ExitCode::SUCCESS)
    }
}

fn table(columns: &[&str], rows: impl Iterator<Item = Vec<String>>) -> Table {
    let mut table = Table::new();
    table.load_style(UTF8_FULL_CONDENSED).set_content_arrangement(ContentArrangement::Dynamic);
    table.set_header(columns.iter().copied());
    table.add_rows(rows);
    table
}

/// One row as a list of what it has.
fn upright(columns: &[&str], row: &[Field]) -> Table {
    let mut table = Table::new();
    table.load_style(UTF8_FULL_CONDENSED).set_content_arrangement(ContentArrangement::Dynamic);
    for (column, field) in columns.iter().zip(row).filter(|(_, field)| **field != Field::Null) {
        table.add_row([(*column).to_owned(), render::cell(field)]);
    }
    table
}
