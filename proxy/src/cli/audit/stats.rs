//! `cmiot-proxy audit stats`: figures by hour or day, and a small chart.

use std::process::ExitCode;

use clap::ValueEnum;
use cmiot_proxy::audit::filter;
use cmiot_proxy::clock::Time;
use cmiot_proxy::store::audit::query::{self, Bucket, Filter, figures};
use comfy_table::presets::UTF8_FULL_CONDENSED;
use comfy_table::{ContentArrangement, Table};

use super::{Folder, chart, time_args};

/// Count look-ups, hits, carrier calls saved, codes and latency by hour or day (at +08:00).
#[derive(clap::Args)]
#[command(after_help = "Examples:
  cmiot-proxy audit stats --dir data --since 24h
  cmiot-proxy audit stats --dir data --by day --since 2026-01-01 --until 2026-02-01")]
pub(super) struct Stats {
    #[command(flatten)]
    folder: Folder,
    /// One line an hour, or a day
    #[arg(long, value_enum, default_value = "hour")]
    by: By,
    /// Since then: 24h, 2026-01-15 (at +08:00), RFC 3339
    #[arg(long, value_parser = time_args::time, default_value = "24h")]
    since: Time,
    /// Until then
    #[arg(long, value_parser = time_args::time)]
    until: Option<Time>,
}

#[derive(Clone, Copy, ValueEnum)]
enum By {
    Hour,
    Day,
}

impl Stats {
    pub(super) fn run(self) -> anyhow::Result<ExitCode> {
        let filter = Filter { since: Some(self.since), until: self.until, ..Filter::default() };
        let filter = filter::checked(filter).map_err(|error| anyhow::anyhow!("--{error}"))?;
        let bucket = match self.by {
            By::Hour => Bucket::Hour,
            By::Day => Bucket::Day,
        };
        let found = figures(&self.folder.with_segments()?, &filter, bucket)?;
        let most = found.iter().map(|(_, figures)| figures.look_ups).max().unwrap_or(0);
        let mut table = Table::new();
        table.load_style(UTF8_FULL_CONDENSED).set_content_arrangement(ContentArrangement::Dynamic);
        table.set_header([
            "from", "look-ups", "", "hit %", "calls", "saved", "refused", "failed", "codes", "p50 ms", "p95",
            "p99",
        ]);
        for (begin, figures) in &found {
            let [p50, p95, p99] = figures.latency.map(|micros| format!("{:.2}", f64::from(micros) / 1e3));
            table.add_row([
                begin.to_string().chars().take(16).collect(),
                figures.look_ups.to_string(),
                chart::bar(figures.look_ups, most),
                format!("{:.1}", figures.hit_percent()),
                figures.calls.to_string(),
                figures.saved().to_string(),
                (figures.outcome("refused") + figures.counted).to_string(),
                figures.outcome("failed").to_string(),
                codes(figures),
                p50,
                p95,
                p99,
            ]);
        }
        out!("{table}");
        let sum = |of: fn(&query::Stats) -> u64| found.iter().map(|(_, figures)| of(figures)).sum::<u64>();
        out!(
            "{} look-ups, {} carrier calls, {} saved",
            sum(|figures| figures.look_ups),
            sum(|figures| figures.calls),
            sum(query::Stats::saved)
        );
        Ok(ExitCode::SUCCESS)
    }
}

/// The most frequent codes.
fn codes(figures: &query::Stats) -> String {
    let mut codes: Vec<_> = figures.codes.iter().collect();
    codes.sort_by_key(|(_, count)| std::cmp::Reverse(**count));
    codes.into_iter().take(4).map(|(code, count)| format!("{code}:{count}")).collect::<Vec<_>>().join(" ")
}
