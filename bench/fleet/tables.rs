//! M13 and M14: the sizes of the shared tables over a day, and their contents.

use std::collections::BTreeMap;
use std::time::Duration;

use cmiot_proxy::store::fleet::CHANNEL;
use serde_json::json;

use crate::harness::{Mode, Nodes, Postgres};
use crate::load::{all_members, at_once, three};
use crate::support::card_number;
use crate::{Line, Options};

/// Cards that are looked up in each part of the day.
const CARDS: u32 = 500;

/// M13: a day in parts, between which all clocks are set forward. After each, rows that are over are removed.
pub(crate) async fn day(options: &Options) -> Vec<Line> {
    let fleet = Nodes::start_with_clocks(3, |setup, _| setup.set("fleet.timeout", "1s")).await;
    all_members(&fleet).await;
    let parts = options.scaled(6, 2);
    let lookups = options.scaled(10_000, 300);
    let mut sizes: Vec<BTreeMap<String, (u64, u64)>> = Vec::new();
    for part in 0..parts {
        set_clocks(&fleet, i64::from(part) * 86_400 / i64::from(parts)).await;
        look_up(&fleet, lookups, i64::from(part) * 86_400 / i64::from(parts)).await;
        sizes.push(settled(&fleet).await);
    }
    let mut lines = Vec::new();
    for (table, (rows, bytes)) in &sizes[0] {
        let (last_rows, last_bytes) = sizes[sizes.len() - 1][table];
        let grown = last_rows > rows * 3 / 2 + 50;
        // A row per purge and per life is kept for a day, a row per day's budget for forty.
        let bound = ["purge", "life", "grouping"].contains(&table.as_str());
        lines.push(Line {
            what: format!(
                "fleet.{table} after the first and the last of {parts} parts of a day, {lookups} lookups each"
            ),
            bound: if bound { "" } else { "flat" },
            seen: format!("{rows} and {last_rows} rows, {} and {} KiB", bytes / 1024, last_bytes / 1024),
            met: (!bound).then_some(!grown),
        });
    }
    lines
}

/// Sets the clocks of the nodes, the carrier and the database to so many seconds ahead.
async fn set_clocks(fleet: &Nodes, ahead: i64) {
    fleet.carrier.set_date_offset(ahead);
    fleet.iter().for_each(|node| node.set_clock_offset(ahead));
    let function = format!(
        "CREATE OR REPLACE FUNCTION fleet.now() RETURNS timestamptz LANGUAGE sql VOLATILE
         AS 'SELECT clock_timestamp() + interval ''{ahead} seconds'''"
    );
    fleet.server.sql(&function).await;
    // Leases have ended by that.
    tokio::time::sleep(Duration::from_secs(2)).await;
    all_members(fleet).await;
}

async fn look_up(fleet: &Nodes, lookups: u32, ahead: i64) {
    const GATEWAYS: u32 = 24;
    let mut gateways = tokio::task::JoinSet::new();
    for gateway in 0..GATEWAYS {
        let client = crate::load::client(&fleet[gateway as usize % 3]);
        gateways.spawn(async move {
            for lookup in (gateway..lookups).step_by(GATEWAYS as usize) {
                let stamp = client.gateway.now().saturating_add_signed(ahead);
                let card = card_number(lookup % CARDS);
                client.get(&client.gateway.sign_transid(&card, &client.gateway.transid_at(stamp))).await;
            }
        });
    }
    gateways.join_all().await;
    for card in 0..5 {
        let purge = json!({ "msisdn": card_number(card).number }).to_string();
        fleet[0].admin_post("/cache/purge", "", &purge).await;
    }
}

/// Rows and bytes of each table, once flights and the transids of earlier parts are removed: some minutes after the floor
/// could rise.
async fn settled(fleet: &Nodes) -> BTreeMap<String, (u64, u64)> {
    // The number is the seconds since 2000 at UTC+8 and the sequence.
    const OVER: &str = "SELECT (SELECT count(*) FROM fleet.flight) + (SELECT count(*) FROM fleet.used_transid
         WHERE (number >> 27) + 946656000 < extract(epoch FROM fleet.now()) - 1200)";
    for _ in 0..200 {
        if fleet.server.value(OVER).await == "0" {
            break;
        }
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
    let mut sizes = BTreeMap::new();
    for table in tables(&fleet.server).await {
        fleet.server.sql(&format!("VACUUM fleet.{table}")).await;
        let count = |sql: String| async move { fleet.server.value(&sql).await.parse::<u64>().unwrap() };
        let rows = count(format!("SELECT count(*) FROM fleet.{table}")).await;
        let bytes = count(format!("SELECT pg_total_relation_size('fleet.{table}')")).await;
        sizes.insert(table, (rows, bytes));
    }
    sizes
}

async fn tables(server: &Postgres) -> Vec<String> {
    let rows = server.sql("SELECT tablename FROM pg_tables WHERE schemaname = 'fleet' ORDER BY 1").await;
    rows.into_iter().flatten().flatten().collect()
}

/// M14: no card in clear in a table or in a notification.
pub(crate) async fn clear_text(options: &Options) -> Vec<Line> {
    let fleet = three(|setup, _| setup).await;
    let heard = fleet.server.listen(CHANNEL).await;
    fleet.carrier.set_latency(Duration::from_millis(20));
    let cards = options.scaled(200, 20);
    for card in 0..cards {
        at_once(&fleet, 6, &card_number(card)).await.join_all().await;
        if card % 10 == 0 {
            let purge = json!({ "msisdn": card_number(card).number }).to_string();
            fleet[0].admin_post("/cache/purge", "", &purge).await;
        }
    }
    // What a node accepts while it is alone is inserted afterwards.
    fleet[1].partition.set(Mode::Refuse);
    for card in 0..20 {
        fleet[1].look_up(&card_number(card)).await;
    }
    fleet[1].partition.set(Mode::Pass);
    all_members(&fleet).await;
    tokio::time::sleep(Duration::from_secs(3)).await;
    let mut rows = 0;
    let mut found = 0;
    let is_clear = |text: &str| {
        (0..cards).any(|card| {
            let number = card_number(card).number;
            let hexadecimal: String = number.bytes().map(|byte| format!("{byte:02x}")).collect();
            text.contains(&number) || text.contains(&hexadecimal)
        })
    };
    for table in tables(&fleet.server).await {
        // Numbers of transids contain any digits.
        let columns = format!(
            "SELECT coalesce(string_agg(format('%I', column_name), ', '), '''''') FROM information_schema.columns
             WHERE table_schema = 'fleet' AND table_name = '{table}' AND data_type IN ('text', 'bytea', 'uuid')"
        );
        let columns = fleet.server.value(&columns).await;
        let texts = fleet.server.sql(&format!("SELECT ROW({columns})::text FROM fleet.{table}")).await;
        for text in texts.into_iter().flatten().flatten() {
            rows += 1;
            found += usize::from(is_clear(&text));
        }
    }
    let heard = heard.payloads();
    found += heard.iter().filter(|text| is_clear(text)).count();
    assert!(rows > 100 && heard.len() > 10, "{rows} rows and {} notifications show little", heard.len());
    vec![Line::counted(
        format!("{rows} rows of all tables and {} notifications: cards in clear", heard.len()),
        "0",
        found.to_string(),
        found == 0,
    )]
}
