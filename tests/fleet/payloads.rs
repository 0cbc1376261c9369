//! Payloads of notifications: keys of landings and numbers of purges, and nothing that identifies a card or
//! authenticates a request.

use cmiot_proxy::store::fleet::CHANNEL;
use cmiot_simulator::{Gate, Rule};
use serde_json::json;
use tokio::task::JoinSet;

use crate::harness::Nodes;
use crate::support::{GATEWAY_PASSWORD, ICCID, IMSI, MSISDN, eventually, secrets, within};

/// Lookups, flights that other nodes follow, and purges.
#[tokio::test]
async fn no_notification_has_a_card_a_transid_a_token_or_a_password() {
    let nodes = Nodes::start(3).await;
    nodes.wait_for_members(3).await;
    let heard = nodes.server.listen(CHANNEL).await;
    let mut hidden = vec![GATEWAY_PASSWORD.to_owned()];
    let mut purges = Vec::new();
    for (round, card) in [MSISDN, ICCID, IMSI].iter().enumerate() {
        let gate = Gate::new();
        nodes.carrier.set_rules([Rule::any().gate(&gate)]);
        let mut lookups = JoinSet::new();
        for node in nodes.iter() {
            let (client, query) = ((**node).clone(), node.sign(card));
            hidden.extend([query.transid(), query.value("token"), card.number].map(str::to_owned));
            lookups.spawn(async move { client.get(&query).await });
        }
        eventually("nodes that follow", async || {
            let mut followed = 0.0;
            for node in nodes.iter() {
                let metrics = node.metrics().await;
                followed += metrics.value("cmiot_fleet_lookups_total", [("result", "follow")]).unwrap();
            }
            (followed == 2.0 * (round + 1) as f64).then_some(())
        })
        .await;
        gate.open();
        for response in within("the responses", lookups.join_all()).await {
            response.assert_normal();
        }
        nodes[round].look_up(card).await.assert_normal();
        let request = json!({ (card.kind): card.number }).to_string();
        let purged = within("the purge", nodes[round].admin_post("/cache/purge", "", &request)).await;
        assert_eq!(purged.status, 200, "{purged:?}");
        purges.push(format!("purge {}", purged.json()["fleet"]["purge"]));
    }
    let all = json!({ "all": true }).to_string();
    let purged = within("the purge", nodes[0].admin_post("/cache/purge", "", &all)).await;
    purges.push(format!("purge {}", purged.json()["fleet"]["purge"]));
    nodes.server.sql(&format!("NOTIFY {CHANNEL}, 'last'")).await;
    eventually("the last", async || heard.payloads().contains(&"last".to_owned()).then_some(())).await;

    let calls = nodes.carrier.calls();
    assert_eq!(calls.len(), 3, "one per flight");
    secrets::register_tokens_of(&nodes.carrier);
    hidden.extend(calls.into_iter().map(|call| call.transid));
    let hexadecimal = |text: &str| text.bytes().map(|byte| format!("{byte:02x}")).collect::<String>();
    let (mut landed, mut others) = (0, Vec::new());
    for payload in heard.payloads() {
        secrets::assert_no_secret("a notification", &payload);
        for secret in &hidden {
            let found = payload.contains(secret.as_str()) || payload.contains(&hexadecimal(secret));
            assert!(!found, "{payload} has {secret}");
        }
        match payload.strip_prefix("landed ") {
            Some(key) if key.len() == 32 && key.bytes().all(|byte| byte.is_ascii_hexdigit()) => landed += 1,
            _ => others.push(payload),
        }
    }
    assert_eq!(landed, 3, "the landings that other nodes awaited");
    purges.push("last".to_owned());
    assert_eq!(others, purges, "nothing else is notified");
}
