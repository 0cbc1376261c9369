//! The cache: keys, groups, negative replies, restarts, size.

use cmiot_simulator::{Account, Rule};

use crate::support::{
    ACCOUNT_APPID, ACCOUNT_PASSWORD, Card, EBID, ICCID, IMSI, MSISDN, Proxy, Setup, card_number, carrier,
    eventually,
};

#[tokio::test]
async fn a_repeat_is_answered_without_a_call() {
    let carrier = carrier().await;
    let proxy = Proxy::with_carrier(&carrier).await;
    let first = proxy.look_up(&MSISDN).await;
    for _ in 0..5 {
        let again = proxy.look_up(&MSISDN).await;
        assert_eq!(again.body, first.body);
        assert!(again.cache().starts_with("hit; ttl="), "{again:?}");
    }
    assert_eq!(carrier.count(), 1);
}

#[tokio::test]
async fn numbers_of_different_kinds_are_different_cards() {
    let carrier = carrier().await;
    let proxy = Proxy::with_carrier(&carrier).await;
    let digits = "1476500417600";
    proxy.look_up(&Card::new("msisdn", digits)).await.assert_normal();
    let other = proxy.look_up(&Card::new("imsi", digits)).await;
    assert_eq!(other.cache(), "fwd=uri-miss; stored");
    assert_eq!(carrier.count(), 2);
}

#[tokio::test]
async fn an_iccid_is_one_card_in_either_case() {
    let carrier = carrier().await;
    let proxy = Proxy::with_carrier(&carrier).await;
    proxy.look_up(&ICCID).await.assert_normal();
    let lower = proxy.look_up(&Card::new("iccid", "898600d6991330004146")).await;
    assert!(lower.cache().starts_with("hit"), "{lower:?}");
    assert_eq!(carrier.count(), 1);
}

#[tokio::test]
async fn a_no_is_kept_too_and_called_negative() {
    let carrier = carrier().await;
    let proxy = Proxy::with_carrier(&carrier).await;
    for (code, n) in ["2", "9", "11", "12", "22", "24", "25", "205"].into_iter().zip(1..) {
        carrier.set_rules([Rule::any().code(code)]);
        let no = proxy.look_up(&card_number(n)).await;
        assert_eq!((no.code().as_str(), no.cache()), (code, "fwd=uri-miss; stored; detail=negative"));
        let again = proxy.look_up(&card_number(n)).await;
        assert_eq!(again.body, no.body);
        assert!(
            again.cache().starts_with("hit; ttl=") && again.cache().ends_with("; detail=negative"),
            "{again:?}"
        );
        assert_eq!(carrier.count_for(&card_number(n).number), 1);
    }
}

/// Codes of a busy carrier; the proxy retries once.
const BUSY: [&str; 4] = ["1", "73", "99", "200"];

#[tokio::test]
async fn an_error_inside_http_200_is_never_kept() {
    let codes =
        ["10", "13", "20", "71", "72", "75", "1", "73", "99", "200", "103", "401", "10006", "31415", "01016"];
    for code in codes {
        // A new carrier and proxy per code, since a throttled account is in cool-down.
        let carrier = carrier().await;
        let proxy = Setup::with_carrier(&carrier).set("breaker.cool_down", "1ms").start().await;
        let card = card_number(1);
        carrier.set_rules([Rule::any().code(code)]);
        let refused = proxy.look_up(&card).await;
        assert_eq!(refused.code(), code);
        assert!(!refused.cache().contains("stored"), "{code}: {refused:?}");
        assert_eq!(refused.header("proxy-status"), None, "the carrier said it");
        let calls = carrier.count();
        assert_eq!(calls, if BUSY.contains(&code) { 2 } else { 1 }, "{code}");
        carrier.set_rules([]);
        proxy.look_up(&card).await.assert_normal();
        assert_eq!(carrier.count(), calls + 1, "{code}");
        assert_eq!(carrier.duplicates(), [], "each attempt has a new transid");
    }
}

#[tokio::test]
async fn what_says_later_says_when() {
    let carrier = carrier().await;
    let proxy = Proxy::with_carrier(&carrier).await;
    for (code, n) in ["71", "72", "75", "73", "20"].into_iter().zip(1..) {
        carrier.set_rules([Rule::any().code(code)]);
        let later = proxy.look_up(&card_number(n)).await;
        let wait = later.header("retry-after").expect("waiting helps");
        assert!(wait.parse::<u64>().is_ok_and(|seconds| seconds > 0), "{wait}");
    }
}

#[tokio::test]
async fn a_restart_keeps_answers_and_their_age() {
    let carrier = carrier().await;
    let mut proxy = Proxy::with_carrier(&carrier).await;
    let first = proxy.look_up(&MSISDN).await;
    // Old enough to differ from an age that starts again at zero.
    eventually("an age of two seconds", || async { (proxy.look_up(&MSISDN).await.age() >= 2).then_some(()) })
        .await;
    proxy.restart().await;
    let kept = proxy.look_up(&MSISDN).await;
    assert_eq!(kept.body, first.body);
    assert!(kept.age() >= 2, "{kept:?}");
    assert!(kept.cache().starts_with("hit; ttl="));
    assert_eq!(carrier.count(), 1);
}

#[tokio::test]
async fn the_cache_may_be_deleted_at_will() {
    let carrier = carrier().await;
    let proxy = Proxy::with_carrier(&carrier).await;
    proxy.look_up(&MSISDN).await.assert_normal();
    let setup = proxy.setup().clone();
    let folder = proxy.stop().await;
    std::fs::remove_file(folder.path().join("data/cache.db")).unwrap();
    let proxy = Proxy::start_in(folder, setup).await;
    let miss = proxy.look_up(&MSISDN).await;
    assert_eq!(miss.cache(), "fwd=uri-miss; stored");
    assert_eq!(carrier.count(), 2);
}

#[tokio::test]
async fn what_is_older_than_the_file_may_keep_leaves_it_after_a_start() {
    let carrier = carrier().await;
    let mut proxy = Setup::with_carrier(&carrier).set("cache.file_age", "1ms").start().await;
    proxy.look_up(&MSISDN).await.assert_normal();
    proxy.restart().await;
    let data = proxy.data();
    eventually("an empty file", || async {
        let number = MSISDN.number.as_bytes();
        let holds = ["cache.db", "cache.db-wal"].iter().any(|name| {
            let bytes = std::fs::read(data.join(name)).unwrap_or_default();
            bytes.windows(number.len()).any(|window| window == number)
        });
        let stats = proxy.admin("/cache/stats", "").await;
        (!holds && stats.text().contains("\"file\":0")).then_some(())
    })
    .await;
}

#[tokio::test]
async fn memory_may_be_too_small() {
    let carrier = carrier().await;
    let proxy = Setup::with_carrier(&carrier).set("cache.memory_entries", 2).start().await;
    for n in 0..20 {
        proxy.look_up(&card_number(n)).await.assert_normal();
    }
    // `/cache/show` does not load an entry into memory.
    eventually("two entries in memory, 18 in the file only", || async {
        let mut tiers = Vec::new();
        for n in 0..20 {
            let body = format!(r#"{{"msisdn": "{}"}}"#, card_number(n).number);
            tiers.push(proxy.admin_post("/cache/show", "", &body).await.json()["tier"].clone());
        }
        let count = |tier: &str| tiers.iter().filter(|one| *one == tier).count();
        ((count("memory"), count("file")) == (2, 18)).then_some(())
    })
    .await;
    for n in 0..20 {
        assert!(proxy.look_up(&card_number(n)).await.cache().starts_with("hit"), "{n}");
    }
    assert_eq!(carrier.count(), 20);
}

#[tokio::test]
async fn one_group_never_sees_anothers_answer() {
    let carrier = carrier().await;
    carrier.set_accounts([
        Account::new(ACCOUNT_APPID, EBID, ACCOUNT_PASSWORD),
        Account::new("200002", EBID, "the-other-customers-secret"),
    ]);
    carrier.set_rules([Rule::any().appid("200002").status("02")]);
    let proxy = Setup::with_carrier(&carrier)
        .add("account", &format!("name = \"other\"\nappid = \"200002\"\nebid = \"{EBID}\"\npassword = \"the-other-customers-secret\""))
        .add("client", "group = \"other\"\nappid = \"GW0002\"\npassword = \"another-gateways-secret\"")
        .start()
        .await;
    let other = proxy.gateway.named("GW0002", "another-gateways-secret");
    for _ in 0..2 {
        proxy.look_up(&MSISDN).await.assert_normal();
        assert_eq!(proxy.get(&other.sign(&MSISDN)).await.json()["result"][0]["STATUS"], "02");
    }
    assert_eq!(carrier.count(), 2);
}

#[tokio::test]
async fn clients_of_one_group_share_what_is_known() {
    let carrier = carrier().await;
    let proxy = Setup::with_carrier(&carrier)
        .add("client", "group = \"fleet\"\nappid = \"GW0002\"\npassword = \"another-gateways-secret\"")
        .start()
        .await;
    let other = proxy.gateway.named("GW0002", "another-gateways-secret");
    proxy.look_up(&IMSI).await.assert_normal();
    assert!(proxy.get(&other.sign(&IMSI)).await.cache().starts_with("hit"));
    assert_eq!(carrier.count(), 1);
}
