//! M7: a purge on one node while three fetch the card.

use cmiot_simulator::Rule;
use serde_json::json;

use crate::load::{at_once, three};
use crate::support::card_number;
use crate::{Line, Options};

/// Lookups that are in flight during a purge.
const LOOKUPS: usize = 9;

/// Rounds of a purge during lookups; the card's STATUS at the carrier changes before each purge.
pub(crate) async fn rounds(options: &Options) -> Vec<Line> {
    let fleet = three(|setup, _| setup).await;
    let rounds = options.scaled(1_000, 10);
    let (mut old, mut waited) = (0, 0);
    let card = card_number(1);
    for round in 0..rounds {
        let expected = if round.is_multiple_of(2) { "00" } else { "02" };
        // Lookups of before the change and after it.
        let in_flight = at_once(&fleet, LOOKUPS, &card).await;
        fleet.carrier.set_rules([Rule::any().status(expected)]);
        let purge = json!({ "msisdn": card.number }).to_string();
        let response = fleet[round as usize % 3].admin_post("/cache/purge", "", &purge).await;
        assert_eq!(response.status, 200, "{}", response.text());
        waited += usize::from(response.json()["fleet"]["waiting"] != json!([]));
        for node in fleet.iter() {
            let answer = node.look_up(&card).await.json();
            old += usize::from(answer["result"][0]["STATUS"] != expected);
        }
        in_flight.join_all().await;
    }
    vec![Line::counted(
        format!(
            "{rounds} purges while 3 nodes fetch the card: answers of before the purge ({waited} purges without a node)"
        ),
        "0",
        old.to_string(),
        old == 0,
    )]
}
