//! `cmiot-proxy audit query|show|changes`: lookups, one row, and status changes.

use std::ops::ControlFlow;
use std::process::ExitCode;

use clap::ValueEnum;
use cmiot_proxy::audit::{filter, render};
use cmiot_proxy::clock::Time;
use cmiot_proxy::store::audit::query::{
    self, CALL, CHANGE, Field, Fields, Filter, LOOKUP, ShownRow, ViewColumn, ViewKind,
};
use comfy_table::Table;

use super::super::card::{self, CardArg};
use super::super::language::heading;
use super::super::table;
use super::{Folder, time_args};

/// Find lookups, newest first.
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
    /// Number of lookups at most, up to a million
    #[arg(long, default_value_t = 50, value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    limit: u32,
    /// Only lookups with a smaller number: the last number of the previous page
    #[arg(long, value_name = "ID", value_parser = clap::value_parser!(i64).range(1..))]
    before: Option<i64>,
    /// Output format
    #[arg(long, value_enum, default_value = "table")]
    format: Format,
    /// Show all columns of the table, whatever its width
    #[arg(long)]
    wide: bool,
}

/// The lookups to find.
#[derive(clap::Args)]
struct Filters {
    /// Only lookups of this card, - for one on standard input; where the audit has hashes, the keys in the folder are used
    #[arg(long, value_parser = card::argument)]
    card: Option<CardArg>,
    /// Only lookups of the client with this appid
    #[arg(long, value_name = "APPID")]
    client: Option<String>,
    /// Only lookups whose carrier call used this account
    #[arg(long, value_name = "NAME")]
    account: Option<String>,
    /// Only lookups from this address
    #[arg(long, value_name = "ADDRESS")]
    peer: Option<String>,
    /// Only lookups with this transid, the gateway's or the carrier's
    #[arg(long)]
    transid: Option<String>,
    /// Only lookups with this outcome: hit, stale, miss, collapsed, refused, failed
    #[arg(long)]
    outcome: Option<String>,
    /// Only lookups with this code in the response
    #[arg(long)]
    code: Option<String>,
    /// Only lookups with this STATUS in the response
    #[arg(long)]
    status: Option<String>,
    /// Only lookups at this time or later: 2h (ago), 2026-01-15 (at +08:00), RFC 3339
    #[arg(long, value_parser = time_args::time)]
    since: Option<Time>,
    /// Only lookups before this time
    #[arg(long, value_parser = time_args::time)]
    until: Option<Time>,
}

#[derive(Clone, Copy, ValueEnum)]
enum Format {
    /// A table for people
    Table,
    /// One JSON object per line
    Json,
    /// CSV (RFC 4180), a header line first
    Csv,
}

impl Query {
    pub(super) fn run(self) -> anyhow::Result<ExitCode> {
        let limit = self.limit as usize;
        let Filters { card, client, account, peer, transid, outcome, code, status, since, until } =
            self.filters;
        let (before, card) = (self.before, card.as_ref().map(CardArg::read).transpose()?);
        let filter = Filter {
            card,
            client,
            account,
            peer,
            transid,
            outcome,
            reason: None,
            code,
            status,
            since,
            until,
            before,
        };
        let filter = filter::checked(filter).map_err(|error| anyhow::anyhow!("--{error}"))?;
        let found = query::lookups(&self.folder.with_segments()?, &filter, limit, None)?;
        self.format.print(LOOKUP, &found, self.wide)?;
        if let (Format::Table, true, Some(last)) =
            (self.format, found.len() == limit, found.last().and_then(|row| query::id(row)))
        {
            say!("older ones: --before {last}", "更早的：--before {last}");
        }
        Ok(ExitCode::SUCCESS)
    }
}

impl Format {
    fn print(self, columns: &[ViewColumn], rows: &[Fields], wide: bool) -> anyhow::Result<()> {
        match self {
            Self::Json => {
                for row in rows {
                    out!("{}", render::json_line(columns, row));
                }
            }
            Self::Csv => {
                out!("{}", render::csv_head(columns));
                for row in rows {
                    out!("{}", render::csv_line(row));
                }
            }
            Self::Table => out!("{}", table(columns, rows, wide)),
        }
        Ok(())
    }
}

/// Show one row: a lookup with the carrier calls that it cost, a carrier call, a note (such as the intent of an action,
/// whose number Proxy-Status gives), or a count.
#[derive(clap::Args)]
#[command(after_help = "Example:\n  cmiot-proxy audit show --dir data 4711")]
pub(super) struct Show {
    #[command(flatten)]
    folder: Folder,
    /// Number of the row
    #[arg(value_parser = clap::value_parser!(i64).range(1..))]
    id: i64,
}

impl Show {
    pub(super) fn run(self) -> anyhow::Result<ExitCode> {
        match query::row(&self.folder.with_segments()?, self.id)? {
            Some(ShownRow::Lookup(found)) => {
                out!("{}", vertical_table(LOOKUP, &found.lookup));
                say!("carrier calls: {calls}", "运营商调用：{calls}", calls = found.calls.len());
                for call in &found.calls {
                    out!("{}", vertical_table(CALL, call));
                }
            }
            Some(ShownRow::Other { kind, columns, fields }) => {
                out!("{}", heading(kind));
                out!("{}", vertical_table(columns, &fields));
            }
            None => {
                crate::cli::warn(&said!(
                    "no row has the number {id}",
                    "没有编号为 {id} 的记录行",
                    id = self.id
                ));
                return Ok(ExitCode::FAILURE);
            }
        }
        Ok(ExitCode::SUCCESS)
    }
}

/// Show where a card's STATUS changed, and between which two carrier replies.
#[derive(clap::Args)]
#[command(after_help = "Example:\n  cmiot-proxy audit changes --dir data --since 2026-01-01 --format csv")]
pub(super) struct Changes {
    #[command(flatten)]
    folder: Folder,
    /// Only changes of this card; - reads it from standard input
    #[arg(long, value_parser = card::argument)]
    card: Option<CardArg>,
    /// Only changes seen at this time or later
    #[arg(long, value_parser = time_args::time)]
    since: Option<Time>,
    /// Only changes seen before this time
    #[arg(long, value_parser = time_args::time)]
    until: Option<Time>,
    /// Output format
    #[arg(long, value_enum, default_value = "table")]
    format: Format,
    /// Show all columns of the table, whatever its width
    #[arg(long)]
    wide: bool,
}

impl Changes {
    pub(super) fn run(self) -> anyhow::Result<ExitCode> {
        let card = self.card.as_ref().map(CardArg::read).transpose()?;
        let filter = Filter { card, since: self.since, until: self.until, ..Filter::default() };
        let filter = filter::checked(filter).map_err(|error| anyhow::anyhow!("--{error}"))?;
        let mut found: Vec<Fields> = Vec::new();
        query::changes(&self.folder.with_segments()?, &filter, None, |change| {
            found.push(change);
            ControlFlow::Continue(())
        })?;
        self.format.print(CHANGE, &found, self.wide)?;
        Ok(ExitCode::SUCCESS)
    }
}

/// The columns that 100 characters have room for, with times to the second; or all (`wide`).
fn table(columns: &[ViewColumn], rows: &[Fields], wide: bool) -> Table {
    let mut table = table::new(wide);
    let shown = |column: &ViewColumn| wide || column.narrow;
    table.set_header(columns.iter().filter(|column| shown(column)).map(|column| heading(column.name)));
    table::wrap_only(&mut table, &["client", "reason", "meaning"].map(heading));
    for row in rows {
        let fields = columns.iter().zip(row).filter(|(column, _)| shown(column));
        table.add_row(fields.map(|(column, field)| match (column.kind, field) {
            (ViewKind::Time, Field::Text(time)) if !wide => {
                time.chars().take("2026-01-15T08:00:00".len()).collect::<String>().replace('T', " ")
            }
            _ => render::cell(field),
        }));
    }
    table
}

/// One row as a list of its names and values; null values are left out.
fn vertical_table(columns: &[ViewColumn], row: &[Field]) -> Table {
    let mut table = table::of_one_row();
    for (column, field) in columns.iter().zip(row).filter(|(_, field)| **field != Field::Null) {
        table.add_row([heading(column.name).to_owned(), render::cell(field)]);
    }
    table
}
