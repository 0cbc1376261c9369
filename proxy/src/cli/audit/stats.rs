//! `cmiot-proxy audit stats`: statistics per hour or day, and a small chart.

use std::process::ExitCode;

use clap::ValueEnum;
use cmiot_proxy::audit::filter;
use cmiot_proxy::clock::Time;
use cmiot_proxy::store::audit::query::{self, Bucket, BucketStats, Filter, LatencyPercentiles};

use super::super::table;
use super::{Folder, chart, time_args};

/// Count lookups, hits, carrier calls saved, codes and latency per hour or day (at +08:00).
#[derive(clap::Args)]
#[command(after_help = "Examples:
  cmiot-proxy audit stats --dir data --since 24h
  cmiot-proxy audit stats --dir data --by day --since 2026-01-01 --until 2026-02-01")]
pub(super) struct Stats {
    #[command(flatten)]
    folder: Folder,
    /// One line per hour or per day
    #[arg(long, value_enum, default_value = "hour")]
    by: By,
    /// Begin: 24h (ago), 2026-01-15 (at +08:00), RFC 3339
    #[arg(long, value_parser = time_args::time, default_value = "24h")]
    since: Time,
    /// End; by default now
    #[arg(long, value_parser = time_args::time)]
    until: Option<Time>,
    /// Print the table at its full width instead of at most 100 columns
    #[arg(long)]
    wide: bool,
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
        let found = query::stats(&self.folder.with_segments()?, &filter, bucket)?;
        let most = found.iter().map(|bucket| bucket.stats.lookups).max().unwrap_or(0);
        let mut table = table::new(self.wide);
        // Without `wide` there is no room for one of the percentiles.
        let shown = |cells: [String; 12]| {
            let cells = cells.into_iter().enumerate();
            cells.filter(|(index, _)| self.wide || *index != 9).map(|(_, cell)| cell)
        };
        let codes_heading = said!("codes", "返回码");
        table.set_header(shown([
            said!("from", "起始"),
            said!("lookups", "查询"),
            String::new(),
            said!("hit %", "命中 %"),
            said!("calls", "调用"),
            said!("saved", "节省"),
            said!("refused", "拒绝"),
            said!("failed", "失败"),
            said!("p50 ms", "p50 毫秒"),
            "p95".to_owned(),
            "p99".to_owned(),
            codes_heading.clone(),
        ]));
        table::wrap_only(&mut table, &[&codes_heading]);
        for BucketStats { begin, stats } in &found {
            let LatencyPercentiles { p50, p95, p99 } = stats.latency;
            let [p50, p95, p99] = [p50, p95, p99].map(|micros| format!("{:.2}", f64::from(micros) / 1e3));
            table.add_row(shown([
                begin.to_string().chars().take(16).collect::<String>().replace('T', " "),
                stats.lookups.to_string(),
                chart::bar(stats.lookups, most),
                format!("{:.1}", stats.hit_percent()),
                stats.calls.to_string(),
                stats.saved().to_string(),
                (stats.outcome("refused") + stats.counted).to_string(),
                stats.outcome("failed").to_string(),
                p50,
                p95,
                p99,
                codes(stats),
            ]));
        }
        out!("{table}");
        let sum = |of: fn(&query::Stats) -> u64| found.iter().map(|bucket| of(&bucket.stats)).sum::<u64>();
        say!(
            "{lookups} lookups, {calls} carrier calls, {saved} saved",
            "{lookups} 次查询，{calls} 次运营商调用，节省 {saved} 次",
            lookups = sum(|stats| stats.lookups),
            calls = sum(|stats| stats.calls),
            saved = sum(query::Stats::saved)
        );
        Ok(ExitCode::SUCCESS)
    }
}

/// The most frequent codes.
fn codes(stats: &query::Stats) -> String {
    let mut codes: Vec<_> = stats.codes.iter().collect();
    codes.sort_by_key(|(_, count)| std::cmp::Reverse(**count));
    codes.into_iter().take(4).map(|(code, count)| format!("{code}:{count}")).collect::<Vec<_>>().join(" ")
}
