//! Looking into the cache, purging it and filling it, by the commands and by the operators' pages.

use cmiot_simulator::{Gate, Rule};

use crate::support::{Finished, ICCID, MSISDN, Proxy, Setup, card_number, carrier, run, soon};

async fn cache(proxy: &Proxy, arguments: &[&str]) -> Finished {
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
    let proxy = Proxy::before(&carrier).await;
    cache(&proxy, &["show", MSISDN.number]).await.failed(1, []);
    proxy.ask(&MSISDN).await.is_normal();
    let shown = json(&cache(&proxy, &["show", MSISDN.number]).await.did_it().out);
    assert_eq!((shown["code"].as_str(), shown["status"].as_str()), (Some("0"), Some("00")));
    assert_eq!(shown["body"]["result"][0]["STATUS"], "00");
    assert_eq!((shown["good_for"].as_str(), shown["tier"].as_str()), (Some("fresh"), Some("memory")));
    assert!(shown["fresh_until"].as_str().is_some_and(|until| until.ends_with("+08:00")), "{shown}");

    let purged = json(&cache(&proxy, &["purge", "--card", MSISDN.number]).await.did_it().out);
    assert_eq!((purged["memory"].as_u64(), purged["file"].as_u64()), (Some(1), Some(1)));
    assert_eq!(proxy.ask(&MSISDN).await.cache(), "fwd=uri-miss; stored");
    assert_eq!(carrier.count(), 2);
}

#[tokio::test]
async fn purges_select_and_need_a_selection() {
    let carrier = carrier().await;
    let proxy = Proxy::before(&carrier).await;
    carrier.set_rules([Rule::any().status("02").times(1)]);
    proxy.ask(&ICCID).await;
    proxy.ask(&MSISDN).await.is_normal();
    cache(&proxy, &["purge"]).await.failed(1, []);
    cache(&proxy, &["purge", "--group", "nobodys"]).await.failed(1, []);
    let purged = json(&cache(&proxy, &["purge", "--status", "02"]).await.did_it().out);
    assert_eq!(purged["file"].as_u64(), Some(1));
    assert!(proxy.ask(&MSISDN).await.cache().starts_with("hit"));
    assert_eq!(proxy.ask(&ICCID).await.cache(), "fwd=uri-miss; stored");
    let stats = json(&cache(&proxy, &["stats"]).await.did_it().out);
    assert_eq!((stats["file"].as_u64(), stats["generation"].as_u64()), (Some(2), Some(2)), "{stats}");
    let purged = json(&cache(&proxy, &["purge", "--all"]).await.did_it().out);
    assert_eq!(purged["file"].as_u64(), Some(2));
}

#[tokio::test]
async fn what_is_purged_softly_serves_the_carriers_bad_days_through_a_restart() {
    let carrier = carrier().await;
    let mut proxy = Proxy::before(&carrier).await;
    proxy.ask(&MSISDN).await.is_normal();
    cache(&proxy, &["purge", "--all", "--soft"]).await.did_it();
    proxy.restart().await;
    carrier.kill().await;
    let stale = proxy.ask(&MSISDN).await;
    stale.is_normal();
    assert_eq!(stale.cache(), "hit; ttl=-1; detail=connect");
    carrier.restart().await.unwrap();
    assert_eq!(proxy.ask(&MSISDN).await.cache(), "fwd=stale; stored");
}

#[tokio::test]
async fn a_purge_during_a_flight_wins() {
    let carrier = carrier().await;
    let (before, after) = (Gate::new(), Gate::new());
    carrier
        .set_rules([Rule::any().status("02").gate(&before).times(1), Rule::any().status("00").gate(&after)]);
    let proxy = Proxy::before(&carrier).await;
    let door = (*proxy).clone();
    let early = tokio::spawn(async move { door.ask(&MSISDN).await });
    carrier.wait_for_calls(1).await;
    cache(&proxy, &["purge", "--card", MSISDN.number]).await.did_it();
    // Who asks now does not join the flight from before the purge.
    let door = (*proxy).clone();
    let late = tokio::spawn(async move { door.ask(&MSISDN).await });
    carrier.wait_for_calls(2).await;
    after.open();
    soon("the later answer", late).await.unwrap().is_normal();
    before.open();
    let early = soon("the earlier answer", early).await.unwrap();
    assert_eq!(early.cache(), "fwd=uri-miss", "told to who waited for it, and kept nowhere");
    let kept = proxy.ask(&MSISDN).await;
    kept.is_normal();
    assert!(kept.cache().starts_with("hit"));
    assert_eq!(carrier.count(), 2);
}

#[tokio::test]
async fn a_fleet_is_warmed_within_the_budget_and_goes_on_where_it_was_cut_off() {
    let carrier = carrier().await;
    let proxy = Setup::before(&carrier).set("account.0.calls_per_second", 100).start().await;
    let file = proxy.config().with_file_name("cards.csv");
    let cards: String = (0..30).map(|n| format!("{},a place\n", card_number(n).number)).collect();
    std::fs::write(&file, format!("msisdn,where\n{cards}")).unwrap();
    proxy.ask(&card_number(0)).await.is_normal();
    carrier.set_rules([Rule::card(card_number(7).number).code("73")]);
    cache(&proxy, &["warm", "--file", "cards.csv"]).await.did_it();
    assert_eq!(carrier.count(), 1 + 29 + 1, "one was fresh; a busy code is asked once more");
    for n in 1..30 {
        if n != 7 {
            assert!(proxy.ask(&card_number(n)).await.cache().starts_with("hit"));
        }
    }
    let result = std::fs::read_to_string(proxy.config().with_file_name("cards.result.csv")).unwrap();
    assert_eq!(result.lines().count(), 31);
    assert!(result.contains(&format!("msisdn:{},fresh,0,00,\n", card_number(0).number)), "{result}");
    assert!(result.contains(&format!("msisdn:{},fetched,0,00,\n", card_number(1).number)), "{result}");
    // Begun again, nothing is asked that was done.
    let calls = carrier.count();
    cache(&proxy, &["warm", "--file", "cards.csv"]).await.did_it();
    assert_eq!(carrier.count(), calls);
}
