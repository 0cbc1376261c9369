//! `cmiot-proxy cache` and the admin pages below `/cache`: show, stats, purge, warm.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use cmiot_simulator::{Gate, Rule};

use crate::support::{ICCID, MSISDN, Output, Proxy, Setup, card_number, carrier, run, say, scripted, within};

async fn cache(proxy: &Proxy, arguments: &[&str]) -> Output {
    let (config, url) = (proxy.config(), format!("http://{}", proxy.admin_address()));
    let at = ["--config", config.to_str().unwrap(), "--url", &url];
    run(config.parent().unwrap(), &[&["cache"], arguments, &at].concat(), &[]).await
}

fn json(text: &str) -> serde_json::Value {
    serde_json::from_str(text).unwrap_or_else(|error| panic!("{error}: {text}"))
}

#[tokio::test]
async fn a_cards_entry_is_shown_and_purged() {
    let carrier = carrier().await;
    let proxy = Proxy::with_carrier(&carrier).await;
    cache(&proxy, &["show", MSISDN.number]).await.failed(1, []);
    proxy.look_up(&MSISDN).await.assert_normal();
    let shown = json(&cache(&proxy, &["show", MSISDN.number]).await.success().out);
    assert_eq!((shown["code"].as_str(), shown["status"].as_str()), (Some("0"), Some("00")));
    assert_eq!(shown["body"]["result"][0]["STATUS"], "00");
    assert_eq!((shown["good_for"].as_str(), shown["tier"].as_str()), (Some("fresh"), Some("memory")));
    assert!(shown["fresh_until"].as_str().is_some_and(|until| until.ends_with("+08:00")), "{shown}");

    let purged = json(&cache(&proxy, &["purge", "--card", MSISDN.number]).await.success().out);
    assert_eq!((purged["memory"].as_u64(), purged["file"].as_u64()), (Some(1), Some(1)));
    assert_eq!(proxy.look_up(&MSISDN).await.cache(), "fwd=uri-miss; stored");
    assert_eq!(carrier.count(), 2);
}

#[tokio::test]
async fn purges_select_and_need_a_selection() {
    let carrier = carrier().await;
    let proxy = Proxy::with_carrier(&carrier).await;
    carrier.set_rules([Rule::any().status("02").times(1)]);
    proxy.look_up(&ICCID).await;
    proxy.look_up(&MSISDN).await.assert_normal();
    cache(&proxy, &["purge"]).await.failed(1, ["name what to purge"]);
    cache(&proxy, &["purge", "--group", "nobodys"]).await.failed(1, ["group"]);
    cache(&proxy, &["purge", "--status", "barred"]).await.failed(1, ["02 barred"]);
    let purged = json(&cache(&proxy, &["purge", "--status", "02"]).await.success().out);
    assert_eq!(purged["file"].as_u64(), Some(1));
    assert!(proxy.look_up(&MSISDN).await.cache().starts_with("hit"));
    assert_eq!(proxy.look_up(&ICCID).await.cache(), "fwd=uri-miss; stored");
    let stats = json(&cache(&proxy, &["stats"]).await.success().out);
    assert_eq!((stats["file"].as_u64(), stats["generation"].as_u64()), (Some(2), Some(2)), "{stats}");
    let counted = json(&cache(&proxy, &["purge", "--status", "00", "--dry-run"]).await.success().out);
    assert_eq!((counted["memory"].as_u64(), counted["file"].as_u64()), (Some(2), Some(2)), "{counted}");
    let counted = json(&cache(&proxy, &["purge", "--all", "--dry-run"]).await.success().out);
    assert_eq!((counted["dry_run"].as_bool(), counted["file"].as_u64()), (Some(true), Some(2)), "{counted}");
    assert!(proxy.look_up(&MSISDN).await.cache().starts_with("hit"), "nothing was purged");
    let purged = cache(&proxy, &["purge", "--all"]).await.success();
    assert!(purged.err.contains("removes 2 entries in memory and 2 in cache.db"), "{purged:?}");
    assert_eq!(json(&purged.out)["file"].as_u64(), Some(2));
}

/// The setup for a carrier whose replies contain the requested date, with an operation that declares this parameter.
async fn by_date(calls: &Arc<AtomicU64>) -> Setup {
    let calls = Arc::clone(calls);
    let url = scripted(move |head, _, _, stream| {
        calls.fetch_add(1, Ordering::SeqCst);
        let date = head.split("query_date=").nth(1).map_or("none", |rest| &rest[..8]);
        let body = format!(r#"{{"status":"0","message":"","result":[{{"sms":"{date}"}}]}}"#);
        async move { say(stream, &body).await }
    })
    .await;
    let row = "name = \"smsusedbydate\"\nverdict = \"sms\"\nfresh = \"5m\"\nparameters = [\"query_date\"]";
    Setup::calling(&url).set("account.0.ebids.smsusedbydate", "40").add("operation", row)
}

#[tokio::test]
async fn each_value_of_a_declared_parameter_is_an_entry_that_the_commands_see() {
    let calls = Arc::new(AtomicU64::new(0));
    let setup = by_date(&calls).await.set("client.0.operations", vec!["smsusedbydate"]);
    let proxy = setup.start().await;
    for (count, date) in [(1, "20260101"), (2, "20260102"), (2, "20260101")] {
        let query = proxy.sign(&MSISDN).with("ebid", "40");
        let target = format!("/v2/smsusedbydate?{}&query_date={date}", query.text());
        assert_eq!(proxy.get_target(&target, "").await.json()["result"][0]["sms"], date);
        assert_eq!(calls.load(Ordering::SeqCst), count);
    }
    let of = ["--operation", "smsusedbydate"];
    let show = |more: &'static [&'static str]| {
        let arguments = [&["show", MSISDN.number], &of[..], more].concat();
        let proxy = &proxy;
        async move { cache(proxy, &arguments).await }
    };
    for date in ["query_date=20260101", "query_date=20260102"] {
        let arguments = [&["show", MSISDN.number], &of[..], &["--parameter", date]].concat();
        let shown = json(&cache(&proxy, &arguments).await.success().out);
        assert!(date.ends_with(shown["body"]["result"][0]["sms"].as_str().unwrap()), "{shown}");
    }
    show(&[]).await.failed(1, ["without parameters", "smsusedbydate declares query_date"]);
    show(&["--parameter", "query_date=20260103"]).await.failed(1, ["with query_date=20260103"]);
    show(&["--parameter", "date=1"]).await.failed(1, ["\"date\" is not declared", "declares query_date"]);
    show(&["--parameter", "query_date"]).await.failed(2, ["NAME=VALUE"]);
    show(&["--parameter", "query_date=1", "--parameter", "query_date=2"]).await.failed(1, ["given twice"]);

    // `warm` fills the entries that gateways use.
    let folder = tempfile::tempdir().unwrap();
    let cards = folder.path().join("cards.csv");
    std::fs::write(&cards, format!("{}\n", MSISDN.number)).unwrap();
    for date in ["query_date=20260101", "query_date=20260103", "query_date=20260103"] {
        let file = ["warm", "--file", cards.to_str().unwrap(), "--parameter", date];
        cache(&proxy, &[&file[..], &of].concat()).await.success();
    }
    assert_eq!(calls.load(Ordering::SeqCst), 3);
    let results = std::fs::read_to_string(folder.path().join("cards.result.csv")).unwrap();
    let lines: Vec<&str> = results.lines().skip(1).collect();
    assert_eq!(lines.len(), 2, "one line per value, and no second fetch: {results}");
    assert!(
        lines[0].contains("?query_date=20260101,fresh") && lines[1].contains("?query_date=20260103,fetched")
    );

    // A purge of the card covers all values of the parameter.
    let body = format!(r#"{{"msisdn": "{}", "parameters": {{"query_date": "20260101"}}}}"#, MSISDN.number);
    let refused = proxy.admin_post("/cache/purge", "", &body).await;
    assert_eq!(refused.status, 400);
    assert!(refused.text().contains("covers every value"), "{}", refused.text());
    let purged = json(&cache(&proxy, &["purge", "--card", MSISDN.number]).await.success().out);
    assert_eq!((purged["memory"].as_u64(), purged["file"].as_u64()), (Some(3), Some(3)));
    show(&["--parameter", "query_date=20260102"]).await.failed(1, ["nothing is known"]);
}

#[tokio::test]
async fn what_is_purged_softly_serves_the_carriers_bad_days_through_a_restart() {
    let carrier = carrier().await;
    let mut proxy = Proxy::with_carrier(&carrier).await;
    proxy.look_up(&MSISDN).await.assert_normal();
    cache(&proxy, &["purge", "--all", "--soft"]).await.success();
    proxy.restart().await;
    carrier.kill().await;
    let stale = proxy.look_up(&MSISDN).await;
    stale.assert_normal();
    assert_eq!(stale.cache(), "hit; ttl=-1; detail=connect");
    carrier.restart().await.unwrap();
    assert_eq!(proxy.look_up(&MSISDN).await.cache(), "fwd=stale; stored");
}

#[tokio::test]
async fn a_purge_during_a_flight_wins() {
    let carrier = carrier().await;
    let (before, after) = (Gate::new(), Gate::new());
    carrier
        .set_rules([Rule::any().status("02").gate(&before).times(1), Rule::any().status("00").gate(&after)]);
    let proxy = Proxy::with_carrier(&carrier).await;
    let client = (*proxy).clone();
    let early = tokio::spawn(async move { client.look_up(&MSISDN).await });
    carrier.wait_for_calls(1).await;
    cache(&proxy, &["purge", "--card", MSISDN.number]).await.success();
    // A later lookup does not join the flight from before the purge.
    let client = (*proxy).clone();
    let late = tokio::spawn(async move { client.look_up(&MSISDN).await });
    carrier.wait_for_calls(2).await;
    after.open();
    within("the later response", late).await.unwrap().assert_normal();
    before.open();
    let early = within("the earlier response", early).await.unwrap();
    assert_eq!(early.cache(), "fwd=uri-miss", "its waiter gets it, and it is not stored");
    let kept = proxy.look_up(&MSISDN).await;
    kept.assert_normal();
    assert!(kept.cache().starts_with("hit"));
    assert_eq!(carrier.count(), 2);
}

#[tokio::test]
async fn a_fleet_is_warmed_within_the_budget_and_goes_on_where_it_was_cut_off() {
    let carrier = carrier().await;
    let proxy = Setup::with_carrier(&carrier).set("account.0.calls_per_second", 100).start().await;
    let file = proxy.config().with_file_name("cards.csv");
    let cards: String = (0..30).map(|n| format!("{},a place\n", card_number(n).number)).collect();
    let first = card_number(0).number;
    std::fs::write(&file, format!("msisdn,where\n{cards}msisdn:{first},the first again\n")).unwrap();
    proxy.look_up(&card_number(0)).await.assert_normal();
    carrier.set_rules([Rule::card(card_number(7).number).code("73")]);
    let warmed = cache(&proxy, &["warm", "--file", "cards.csv", "--progress"]).await.success();
    assert!(warmed.err.contains("30/30 cards, 0 failed"), "{warmed:?}");
    assert!(warmed.out.contains("30 cards, 0 done before, 0 failed"), "{warmed:?}");
    assert_eq!(carrier.count(), 1 + 29 + 1, "one was fresh; a busy code is retried once");
    for n in 1..30 {
        if n != 7 {
            assert!(proxy.look_up(&card_number(n)).await.cache().starts_with("hit"));
        }
    }
    let result = std::fs::read_to_string(proxy.config().with_file_name("cards.result.csv")).unwrap();
    let lines: Vec<&str> = result.lines().collect();
    assert_eq!(lines.len(), 1 + 31, "a line per card of the file, in its order: {result}");
    assert_eq!(lines[1], format!("msisdn:{first},fresh,0,00,,{first}"));
    for n in 1..30 {
        let number = card_number(n).number;
        let found = lines[1 + n as usize];
        assert!(
            found.starts_with(&format!("msisdn:{number},fetched,")) && found.ends_with(&number),
            "{found}"
        );
    }
    assert_eq!(lines[31], format!("msisdn:{first},fresh,0,00,,msisdn:{first}"));
    // A second run repeats no call.
    let calls = carrier.count();
    cache(&proxy, &["warm", "--file", "cards.csv"]).await.success();
    assert_eq!(carrier.count(), calls);
    let again = std::fs::read_to_string(proxy.config().with_file_name("cards.result.csv")).unwrap();
    assert_eq!(again, result);
}
