//! Webhooks of a fleet: a change of STATUS is one message, whichever nodes made the calls.

use std::time::Duration;

use cmiot_proxy::store::fleet::Link;
use cmiot_proxy::store::fleet::flights::SharedKey;
use cmiot_proxy::store::fleet::status::{self, Answered, Before};
use cmiot_simulator::Rule;

use crate::harness::{Mode, Nodes, Postgres, create_tables, link_of};
use crate::support::{MSISDN, Receiver, WEBHOOK_SECRET, eventually, write_secret};

const KEY: SharedKey = [0x5a; 16];
const MINUTE: Duration = Duration::from_secs(60);

/// An answer of some minutes ago.
fn answered<'a>(
    event: &'a str,
    status: &'a str,
    minutes: u32,
    known: Option<(&'a str, u32)>,
) -> Answered<'a> {
    let known = known.map(|(status, minutes)| (status, MINUTE * minutes));
    Answered { key: KEY, event, status, age: MINUTE * minutes, known }
}

/// The STATUS before each answer that was a change.
async fn changes(link: &Link, answers: &[Answered<'_>]) -> Vec<Option<String>> {
    let found = status::changes(link, answers).await.unwrap();
    found.into_iter().map(|before| before.map(|before| before.status)).collect()
}

#[tokio::test]
async fn an_answer_is_compared_with_the_last_one_of_any_node() {
    let server = Postgres::start().await;
    create_tables(&server).await;
    let link = link_of(1, vec![format!("unix:{}", server.socket_folder().display())], "10s", 4);
    let from = |status: &str| Some(status.to_owned());
    assert_eq!(changes(&link, &[answered("a", "00", 9, None)]).await, [None], "the first one");
    let both = [answered("b", "00", 8, None), answered("c", "02", 7, None)];
    assert_eq!(changes(&link, &both).await, [None, from("00")]);
    // Passed again, by a webhook that continues at a stored position.
    assert_eq!(changes(&link, &both).await, [None, from("00")]);
    let late = [answered("d", "00", 8, None), answered("e", "00", 6, None)];
    assert_eq!(changes(&link, &late).await, [None, from("02")], "an older answer changes nothing");
    assert_eq!(changes(&link, &both).await, [None, from("00")], "after later changes");
    // A card that the fleet does not know, and the node does.
    let other = Answered { key: [1; 16], ..answered("f", "02", 5, Some(("00", 6))) };
    let found = status::changes(&link, std::slice::from_ref(&other)).await.unwrap();
    let Some(Before { status, age }) = &found[0] else { panic!("{found:?}") };
    assert!(status == "00" && (MINUTE * 6..MINUTE * 7).contains(age), "{found:?}");

    // Two webhooks of a node pass the same answer at once.
    for minute in 1..5 {
        let (event, status) = (format!("twice-{minute}"), if minute % 2 == 1 { "01" } else { "00" });
        let one = [answered(&event, status, 5 - minute, None)];
        let (first, second) = tokio::join!(changes(&link, &one), changes(&link, &one));
        assert!(first[0].is_some() && first == second, "{first:?} {second:?}");
    }
    server.sql("DELETE FROM fleet.status_change WHERE event LIKE 'twice%'").await;

    assert_eq!(status::sweep(&link, 100).await.unwrap(), 0);
    server.sql("UPDATE fleet.status_change SET at = at - interval '50 days' WHERE event = 'c'").await;
    server.sql("UPDATE fleet.card_status SET seen = seen - interval '99 days' WHERE status = '02'").await;
    assert_eq!(status::sweep(&link, 100).await.unwrap(), 2);
    let left = "SELECT (SELECT count(*) FROM fleet.card_status) || ' ' || (SELECT count(*) FROM fleet.status_change)";
    assert_eq!(server.value(left).await, "1 2");
}

#[tokio::test]
async fn a_change_that_two_nodes_see_is_one_message() {
    let (secrets, receiver) = (tempfile::tempdir().unwrap(), Receiver::start().await);
    let secret = secrets.path().join("secret");
    write_secret(&secret, WEBHOOK_SECRET);
    let table = format!(
        "name = \"desk\"\nurl = \"{}\"\nsecret_file = \"{}\"\nevents = [\"status\"]\n",
        receiver.url(),
        secret.display()
    );
    let nodes =
        Nodes::start_with(3, |setup, _| setup.set("cache.max_age_floor", "0s").add("webhook", &table)).await;
    nodes.wait_for_members(3).await;
    let ask = async |node: usize, status: &str| {
        nodes.carrier.set_rules([Rule::any().status(status)]);
        let signed = nodes[node].sign(&MSISDN);
        let response = nodes[node].get_with(&signed, "Cache-Control: no-cache\r\n").await;
        assert!(response.text().contains(&format!("\"STATUS\":\"{status}\"")), "{response:?}");
    };
    let seen = async || {
        let seen = nodes.server.sql("SELECT seen FROM fleet.card_status").await;
        seen.into_iter().flatten().flatten().next().unwrap_or_default()
    };
    let ask_and_compare = async |node: usize, status: &str| {
        let before = seen().await;
        ask(node, status).await;
        eventually("the answer to be compared", async || (seen().await != before).then_some(())).await;
    };
    // From and to of the last message, once there are so many; never more.
    let message = async |count: usize| {
        let messages = receiver.wait_for(count).await;
        assert_eq!(messages.len(), count, "{messages:?}");
        let data = messages[count - 1].json()["data"].clone();
        (data["from"].as_str().unwrap().to_owned(), data["to"].as_str().unwrap().to_owned())
    };
    ask_and_compare(0, "00").await;
    // Another node sees the change, and has no earlier answer of its own; then all see it.
    ask_and_compare(1, "02").await;
    assert_eq!(message(1).await, ("00".to_owned(), "02".to_owned()));
    ask_and_compare(0, "02").await;
    ask_and_compare(2, "02").await;
    ask_and_compare(2, "00").await;
    assert_eq!(message(2).await, ("02".to_owned(), "00".to_owned()));
    // A node that is alone compares with its own answers: its last one was 02.
    nodes[1].partition.set(Mode::Refuse);
    eventually("a node that is alone", async || {
        (nodes[1].metrics().await.value("cmiot_fleet_alone", []) == Some(1.0)).then_some(())
    })
    .await;
    ask(1, "00").await;
    assert_eq!(message(3).await, ("02".to_owned(), "00".to_owned()));
}
