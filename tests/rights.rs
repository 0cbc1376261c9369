//! Authorization: networks, cards, operations, rates, the account's own credentials.

use cmiot_simulator::{Account, Config, Operation, Simulator};

use crate::support::{
    ACCOUNT_APPID, ACCOUNT_PASSWORD, Card, EBID, ICCID, MSISDN, Proxy, Setup, carrier, write_secret,
};

#[tokio::test]
async fn a_peer_outside_the_proxys_networks_is_a_6() {
    let carrier = carrier().await;
    let proxy =
        Setup::with_carrier(&carrier).set("gateway.peers", vec!["10.0.0.0/8", "2001:db8::/32"]).start().await;
    proxy.look_up(&MSISDN).await.assert_refusal_for("6", "address");
    proxy.get_target("/", "").await.assert_refusal("6");
    assert_eq!(carrier.count(), 0);
}

#[tokio::test]
async fn a_peer_outside_the_clients_networks_is_a_6_and_only_after_the_token() {
    let carrier = carrier().await;
    let proxy = Setup::with_carrier(&carrier).set("client.0.peers", vec!["10.0.0.0/8"]).start().await;
    proxy.look_up(&MSISDN).await.assert_refusal_for("6", "address");
    proxy.get(&proxy.sign(&MSISDN).with("token", "0")).await.assert_refusal("7");
    assert_eq!(carrier.count(), 0);
}

#[tokio::test]
async fn a_peer_inside_both_is_served_whatever_it_says_it_forwards() {
    let carrier = carrier().await;
    let proxy = Setup::with_carrier(&carrier)
        .set("gateway.peers", vec!["127.0.0.0/8"])
        .set("client.0.peers", vec!["127.0.0.1/32"])
        .start()
        .await;
    proxy
        .get_with(&proxy.sign(&MSISDN), "X-Forwarded-For: 10.0.0.1\r\nForwarded: for=10.0.0.1\r\n")
        .await
        .assert_normal();
    let refuses = Setup::with_carrier(&carrier).set("gateway.peers", vec!["10.0.0.0/8"]).start().await;
    refuses.get_with(&refuses.sign(&MSISDN), "X-Forwarded-For: 10.0.0.1\r\n").await.assert_refusal("6");
}

#[tokio::test]
async fn a_card_outside_the_clients_prefixes_is_an_8() {
    let carrier = carrier().await;
    let proxy = Setup::with_carrier(&carrier).set("client.0.cards", vec!["1476", "898600D"]).start().await;
    proxy.look_up(&MSISDN).await.assert_normal();
    proxy.look_up(&ICCID).await.assert_normal();
    proxy.look_up(&Card::new("iccid", "898600d6991330004146")).await.assert_normal();
    proxy.look_up(&Card::new("msisdn", "14865004176")).await.assert_refusal_for("8", "card");
    assert_eq!(carrier.count(), 2);
}

#[tokio::test]
async fn an_operation_that_the_client_is_given_is_served_and_no_other() {
    const OPERATIONS: [(&str, &str); 2] =
        [("userstatusrealsingle", EBID), ("onandoffrealsingle", "0001000000003")];
    let account = Account::new(ACCOUNT_APPID, EBID, ACCOUNT_PASSWORD);
    let account = account.with_ebid(Operation::Power, OPERATIONS[1].1);
    let carrier = Simulator::start_local(Config::new([account])).await.unwrap();
    for (given, _) in OPERATIONS {
        let proxy = Setup::with_carrier(&carrier)
            .set("account.0.ebids.onandoffrealsingle", OPERATIONS[1].1)
            .set("client.0.operations", vec![given])
            .start()
            .await;
        for (name, ebid) in OPERATIONS {
            let query = proxy.sign(&MSISDN).with("ebid", ebid);
            let response = proxy.get_target(&format!("/v2/{name}?{}", query.text()), "").await;
            if name == given {
                assert_eq!(response.code(), "0", "{name}: {response:?}");
            } else {
                response.assert_refusal_for("3", "operation");
            }
        }
    }
    assert_eq!(carrier.count(), 2);
}

#[tokio::test]
async fn an_operation_that_the_client_is_not_given_is_a_3_and_only_after_the_token() {
    let carrier = carrier().await;
    let proxy = Setup::with_carrier(&carrier)
        .set("account.0.ebids.onandoffrealsingle", "0001000000003")
        .set("client.0.operations", vec!["onandoffrealsingle"])
        .start()
        .await;
    proxy.look_up(&MSISDN).await.assert_refusal_for("3", "operation");
    proxy.get(&proxy.sign(&MSISDN).with("token", &"0".repeat(64))).await.assert_refusal("7");
    assert_eq!(carrier.count(), 0);
}

#[tokio::test]
async fn too_fast_is_a_72_that_says_when_and_burns_nothing() {
    let carrier = carrier().await;
    let proxy =
        Setup::with_carrier(&carrier).set("client.0.rate", 1).set("client.0.burst", 3).start_clocked().await;
    for _ in 0..3 {
        proxy.look_up(&MSISDN).await.assert_normal();
    }
    let query = proxy.sign(&MSISDN);
    let refused = proxy.get(&query).await;
    refused.assert_refusal_for("72", "too fast");
    assert_eq!(refused.header("retry-after"), Some("1"));

    proxy.clock.advance(std::time::Duration::from_secs(1));
    proxy.get(&query).await.assert_normal();
    proxy.look_up(&MSISDN).await.assert_refusal("72");
    proxy.stop().await;
}

#[tokio::test]
async fn one_clients_rate_is_not_anothers() {
    let carrier = carrier().await;
    let proxy = Setup::with_carrier(&carrier)
        .set("client.0.rate", 1)
        .add("client", "group = \"fleet\"\nappid = \"GW0002\"\npassword = \"another-gateways-secret\"")
        .start_clocked()
        .await;
    proxy.look_up(&MSISDN).await.assert_normal();
    proxy.look_up(&MSISDN).await.assert_refusal("72");
    let other = proxy.gateway.named("GW0002", "another-gateways-secret");
    proxy.get(&other.sign(&MSISDN)).await.assert_normal();
    // Requests with a wrong token do not use the rate.
    proxy.clock.advance(std::time::Duration::from_secs(1));
    for _ in 0..5 {
        proxy.get(&proxy.sign(&MSISDN).with("token", "0")).await.assert_refusal("7");
    }
    proxy.look_up(&MSISDN).await.assert_normal();
    proxy.stop().await;
}

#[tokio::test]
async fn an_accounts_own_credentials_count_where_no_client_is_named_or_by_its_own_word() {
    let carrier = carrier().await;
    let setup = || Setup::with_carrier(&carrier);
    let list = |text: &'static str| {
        let folder = tempfile::tempdir().unwrap();
        write_secret(&folder.path().join("clients.csv"), text);
        (folder, setup().without("client").set("gateway.clients_file", "clients.csv"))
    };
    let without_list = |setup| (tempfile::tempdir().unwrap(), setup);
    let second = |setup: Setup| {
        let written = "name = \"second\"\nappid = \"200002\"\nebid = \"0001000000009\"\npassword = \"the-second-accounts-own\"";
        setup.add("account", written)
    };
    for (name, (folder, setup), accepted) in [
        ("no client is named", without_list(setup().without("client")), true),
        ("a client is", without_list(setup()), false),
        (
            "a client of another group is",
            without_list(second(setup().set("client.0.group", "second"))),
            false,
        ),
        ("a list is", list("appid,group,password\nGW1,fleet,one\n"), false),
        ("a list was emptied", list("appid,group,password\n"), false),
        ("opted in", without_list(setup().set("account.0.carrier_credentials", true)), true),
        (
            "opted out",
            without_list(setup().without("client").set("account.0.carrier_credentials", false)),
            false,
        ),
    ] {
        let proxy = Proxy::start_in(folder, setup).await;
        let account = proxy.gateway.named(ACCOUNT_APPID, ACCOUNT_PASSWORD);
        let response = proxy.get(&account.sign(&MSISDN)).await;
        assert_eq!(response.code(), if accepted { "0" } else { "7" }, "{name}: {response:?}");
        let warned = proxy.log().contains("no client is named");
        assert_eq!(warned, name == "no client is named", "{name}");
    }
}
