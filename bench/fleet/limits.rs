//! M5 and M6: the calls of a day and of a second, for all nodes together.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use cmiot_simulator::Call;
use tokio::task::JoinSet;

use crate::harness::{Mode, Nodes};
use crate::load::{all_members, client, three};
use crate::support::{Connection, STATUS_PATH, card_number};
use crate::{Line, Options};

/// Gateways that look up new cards.
const GATEWAYS: u32 = 24;

/// Refusals in a row by which the budget counts as spent.
const SPENT: u32 = 200;

/// M5: the budget of a day over midnight, without faults and with kills and cuts.
pub(crate) async fn day(options: &Options) -> Vec<Line> {
    let limit = options.scaled(10_000, 300);
    let mut lines = Vec::new();
    let whole = two_days(limit, false).await;
    lines.push(Line::counted(
        format!("{limit} calls a day, 3 nodes, nothing is cut: calls of two days"),
        "90 to 100 %",
        format!("{whole:?}"),
        whole.iter().all(|calls| (limit * 9 / 10..=limit).contains(calls)),
    ));
    let (mut most, mut least) = (0, u32::MAX);
    let runs = options.scaled(20, 1);
    for _ in 0..runs {
        let [one, other] = two_days(limit, true).await;
        most = most.max(one.max(other));
        least = least.min(one.min(other));
    }
    lines.push(Line::counted(
        format!("the same with kills and cuts, {runs} runs: calls of a day, from {least} to"),
        "≤ 100 %",
        most.to_string(),
        most <= limit,
    ));
    lines
}

/// The carrier calls of one day, and of the next.
async fn two_days(limit: u32, faults: bool) -> [u32; 2] {
    let mut fleet = three(|setup, _| setup.set("account.0.calls_per_day", i64::from(limit))).await;
    let card = Arc::new(AtomicU32::new(0));
    let mut days = [0; 2];
    for (day, until_midnight) in days.iter_mut().zip([43_200, 3]) {
        set_until_midnight(&fleet, until_midnight).await;
        if until_midnight < 60 {
            tokio::time::sleep(Duration::from_secs(until_midnight + 1)).await;
        }
        all_members(&fleet).await;
        let before = fleet.carrier.count();
        if faults {
            let spending = spend(&fleet, &card);
            break_things(&mut fleet).await;
            spending.join_all().await;
        }
        // A node that started again has other addresses, and one that was cut off has calls again.
        spend(&fleet, &card).join_all().await;
        *day = u32::try_from(fleet.carrier.count() - before).unwrap();
    }
    days
}

/// Looks up new cards at all nodes until refusals alone come back.
fn spend(fleet: &Nodes, card: &Arc<AtomicU32>) -> JoinSet<()> {
    let refused = Arc::new(AtomicU32::new(0));
    let mut gateways = JoinSet::new();
    for gateway in 0..GATEWAYS {
        let client = client(&fleet[gateway as usize % 3]);
        let (card, refused) = (Arc::clone(card), Arc::clone(&refused));
        gateways.spawn(async move {
            while refused.load(Ordering::Relaxed) < SPENT {
                let query = client.sign(&card_number(card.fetch_add(1, Ordering::Relaxed)));
                let request = format!("GET {STATUS_PATH}?{} HTTP/1.1\r\nHost: x\r\n\r\n", query.text());
                let Ok(mut connection) = Connection::try_to(client.address).await else { return };
                if connection.try_send(request).await.is_err() {
                    return;
                }
                match connection.try_response().await.map(|response| response.code()) {
                    Some(code) if code == "0" => refused.store(0, Ordering::Relaxed),
                    Some(_) => drop(refused.fetch_add(1, Ordering::Relaxed)),
                    None => return,
                }
            }
        });
    }
    gateways
}

/// Each node is cut off or killed while calls are made.
async fn break_things(fleet: &mut Nodes) {
    let modes = [Mode::Stall, Mode::Reset, Mode::StallResponses];
    for (node, mode) in modes.into_iter().enumerate() {
        fleet[node].partition.set(mode);
        tokio::time::sleep(Duration::from_millis(700)).await;
        fleet[node].partition.cut().await;
        let killed = (node + 1) % 3;
        fleet[killed].kill9().await;
        fleet[killed].start_again().await;
    }
    all_members(fleet).await;
}

/// Sets the clock of the database to so many seconds before midnight at UTC+8.
async fn set_until_midnight(fleet: &Nodes, seconds: u64) {
    let ahead = format!(
        "SELECT extract(epoch FROM date_trunc('day', at) + interval '1 day' - interval '{seconds} seconds' - at)
         FROM (SELECT clock_timestamp() AT TIME ZONE 'Asia/Shanghai' AS at) AS now"
    );
    let ahead = fleet.server.value(&ahead).await;
    let function = format!(
        "CREATE OR REPLACE FUNCTION fleet.now() RETURNS timestamptz LANGUAGE sql VOLATILE
         AS 'SELECT clock_timestamp() + interval ''{ahead} seconds'''"
    );
    fleet.server.sql(&function).await;
    all_members(fleet).await;
}

/// M6: the calls of a second, while all cards are stale.
pub(crate) async fn rate(options: &Options) -> Vec<Line> {
    const RATE: usize = 180;
    let cards = options.scaled(10_000, 400);
    let fleet = three(|setup, _| {
        setup
            .set("account.0.calls_per_second", i64::try_from(RATE).unwrap())
            .set("carrier.max_queued_calls", 20_000)
            .set("carrier.queue_timeout", "10s")
            .freshness("normal", "1s", "1h", "1h")
    })
    .await;
    let mut most = 0;
    let mut calls = 0;
    // All cards are new, and then all are stale.
    for _ in 0..2 {
        fleet.carrier.reset_counts();
        look_all_up(&fleet, cards).await;
        let made = fleet.carrier.calls();
        calls += made.len();
        most = most.max(most_in_a_second(&made));
    }
    vec![Line::counted(
        format!(
            "{RATE} calls a second, {cards} cards new and then stale at once, {calls} calls: most in a second"
        ),
        "≤ 180",
        most.to_string(),
        most <= RATE,
    )]
}

async fn look_all_up(fleet: &Nodes, cards: u32) {
    const GATEWAYS: u32 = 300;
    let mut gateways = JoinSet::new();
    for gateway in 0..GATEWAYS {
        let client = client(&fleet[gateway as usize % 3]);
        gateways.spawn(async move {
            for card in (gateway..cards).step_by(GATEWAYS as usize) {
                client.look_up(&card_number(card)).await;
            }
        });
    }
    gateways.join_all().await;
    // Refreshes in the background.
    tokio::time::sleep(Duration::from_secs(3)).await;
}

/// The most calls in any second.
fn most_in_a_second(calls: &[Call]) -> usize {
    let mut at: Vec<_> = calls.iter().map(|call| call.at).collect();
    at.sort();
    let mut first = 0;
    let mut most = 0;
    for (last, time) in at.iter().enumerate() {
        while *time - at[first] >= Duration::from_secs(1) {
            first += 1;
        }
        most = most.max(last - first + 1);
    }
    most
}
