//! `cmiot-proxy client list`: the clients as a table, JSON or CSV, without passwords.

use clap::ValueEnum;
use cmiot_proxy::audit::render;
use cmiot_proxy::config::file::{Format as TransidFormat, ReplayMode};
use cmiot_proxy::config::{Client, Config, Derived, Permissions};
use cmiot_proxy::printable;
use cmiot_proxy::store::audit::query::Field;
use cmiot_proxy::units::HumanDuration;
use comfy_table::Table;
use serde::Serialize;

use crate::cli::language::heading;
use crate::cli::table;

/// Output format of the list.
#[derive(Clone, Copy, ValueEnum)]
pub(super) enum Format {
    /// A table for people, with the most important columns
    Table,
    /// A JSON array with one object per client
    Json,
    /// CSV (RFC 4180), a header line first
    Csv,
}

/// Whether a client is accepted; JSON and CSV have these words too.
#[derive(Clone, Copy, Serialize)]
#[serde(rename_all = "lowercase")]
enum State {
    Valid,
    Revoked,
    Derived,
}

/// A client, or the clients of a `[[derive]]`, without passwords.
#[derive(Serialize)]
struct Row<'a> {
    /// The appid; for derived clients their prefix and `*`.
    appid: String,
    group: &'a str,
    ebid: &'a str,
    state: State,
    /// Valid passwords: two during a rotation.
    passwords: u8,
    /// The epoch of derived passwords.
    epoch: Option<u32>,
    rate: Option<u32>,
    burst: Option<u32>,
    /// Prefixes of cards; empty, and without `cards_listed`, means all.
    cards: &'a [String],
    /// The number of cards in `cards_file`.
    cards_listed: Option<usize>,
    peers: Vec<String>,
    operations: &'a [String],
    replay: ReplayMode,
    format: TransidFormat,
    /// `any`, or a duration.
    clock_skew: String,
    max_age_floor: String,
    max_stale_ceiling: String,
    certificate: Option<&'a str>,
}

impl<'a> Row<'a> {
    fn of(client: &'a Client, config: &Config) -> Self {
        let revoked = config.revoked.contains(&client.appid);
        Self {
            appid: client.appid.as_str().to_owned(),
            state: if revoked { State::Revoked } else { State::Valid },
            passwords: if client.previous.is_some() { 2 } else { 1 },
            epoch: None,
            certificate: client.certificate.as_deref(),
            ..Self::with(&client.group, client.ebid.as_str(), &client.permissions)
        }
    }

    fn derived(derived: &'a Derived) -> Self {
        Self {
            appid: format!("{}*", derived.prefix),
            state: State::Derived,
            passwords: 2,
            epoch: Some(derived.epoch),
            ..Self::with(&derived.group, derived.ebid.as_str(), &derived.rights)
        }
    }

    fn with(group: &'a str, ebid: &'a str, permissions: &'a Permissions) -> Self {
        Self {
            appid: String::new(),
            group,
            ebid,
            state: State::Valid,
            passwords: 0,
            epoch: None,
            rate: permissions.rate.map(|rate| rate.per_second.get()),
            burst: permissions.rate.map(|rate| rate.burst.get()),
            cards: &permissions.cards,
            cards_listed: permissions.card_list.as_ref().map(|list| list.len()),
            peers: permissions.peers.iter().map(ToString::to_string).collect(),
            operations: &permissions.operations,
            replay: permissions.replay,
            format: permissions.format,
            clock_skew: permissions.window.map_or("any".to_owned(), duration),
            max_age_floor: duration(permissions.max_age_floor),
            max_stale_ceiling: duration(permissions.max_stale_ceiling),
            certificate: None,
        }
    }
}

fn duration(duration: std::time::Duration) -> String {
    HumanDuration(duration).to_string()
}

/// Prints the clients of all groups, or of one.
pub(super) fn list(config: &Config, group: Option<&str>, format: Format, wide: bool) -> anyhow::Result<()> {
    if let Some(group) = group.filter(|group| !config.groups.contains_key(*group)) {
        let mut known: Vec<_> = config.groups.keys().map(|group| format!("\"{group}\"")).collect();
        known.sort();
        anyhow::bail!("--group {group}: no account has it; known: {}", known.join(", "));
    }
    let mut clients: Vec<_> = config.clients.values().collect();
    clients.sort_by_key(|client| client.appid);
    let rows = clients.into_iter().map(|client| Row::of(client, config));
    let rows = rows.chain(config.derived.iter().map(Row::derived));
    let rows: Vec<_> = rows.filter(|row| group.is_none_or(|group| row.group == group)).collect();
    match format {
        Format::Table => out!("{}", table(&rows, wide)),
        Format::Json => out!("{}", printable::escape_json_lines(&serde_json::to_string_pretty(&rows)?)),
        Format::Csv => csv(&rows)?,
    }
    Ok(())
}

fn table(rows: &[Row<'_>], wide: bool) -> Table {
    let mut table = table::new(wide);
    let [appid, group, rate, replay] = ["appid", "group", "rate", "replay"].map(heading);
    let (passwords, state) = (said!("passwords", "密码"), said!("state", "状态"));
    table.set_header([appid, group, rate, replay, &passwords, &state]);
    table::wrap_only(&mut table, &[appid, group]);
    for row in rows {
        let rate = row.rate.map_or("-".to_owned(), |rate| rate.to_string());
        let passwords = match (row.epoch, row.passwords) {
            (Some(epoch), _) => said!("of epoch {epoch}", "第 {epoch} 期"),
            (None, 2) => said!("2, rotating", "2，更换中"),
            (None, number) => number.to_string(),
        };
        let replay = name(&row.replay);
        let group = printable::escape(row.group);
        let state = match row.state {
            State::Valid => said!("valid", "有效"),
            State::Revoked => said!("revoked", "已吊销"),
            State::Derived => said!("derived", "派生"),
        };
        table.add_row([row.appid.as_str(), &group, &rate, &replay, &passwords, &state]);
    }
    table
}

fn csv(rows: &[Row<'_>]) -> anyhow::Result<()> {
    out!(
        "appid,group,ebid,state,passwords,epoch,rate,burst,cards,cards_listed,peers,operations,replay,format,clock_skew,\
         max_age_floor,max_stale_ceiling,certificate"
    );
    let text = |text: &str| Field::Text(text.to_owned());
    let number = |number: Option<u32>| number.map_or(Field::Null, |number| Field::Int(number.into()));
    for row in rows {
        let cells = [
            text(&row.appid),
            text(row.group),
            text(row.ebid),
            text(&name(&row.state)),
            Field::Int(row.passwords.into()),
            number(row.epoch),
            number(row.rate),
            number(row.burst),
            text(&row.cards.join(" ")),
            row.cards_listed.map_or(Field::Null, |cards| text(&cards.to_string())),
            text(&row.peers.join(" ")),
            text(&row.operations.join(" ")),
            text(&name(&row.replay)),
            text(&name(&row.format)),
            text(&row.clock_skew),
            text(&row.max_age_floor),
            text(&row.max_stale_ceiling),
            row.certificate.map_or(Field::Null, text),
        ];
        out!("{}", render::csv_line(&cells));
    }
    Ok(())
}

/// A value as the configuration writes it.
fn name(value: &impl Serialize) -> String {
    let value = serde_json::to_value(value).unwrap_or_default();
    value.as_str().unwrap_or_default().to_owned()
}
