//! Shares of one client and of one group in the replay table, the flights and the connections.

use cmiot_simulator::{Account, Gate, Rule, Simulator};

use crate::support::{
    ACCOUNT_APPID, ACCOUNT_PASSWORD, EBID, ICCID, MSISDN, STATUS_PATH, Setup, card_number, carrier,
    eventually,
};

/// Two groups with one account each; the first has two clients.
async fn two_groups() -> (Simulator, Setup) {
    let carrier = carrier().await;
    carrier.set_accounts([
        Account::new(ACCOUNT_APPID, EBID, ACCOUNT_PASSWORD),
        Account::new("100002", EBID, "second-secret"),
    ]);
    let second = format!("name='second'\nappid='100002'\nebid='{EBID}'\npassword='second-secret'");
    let setup = Setup::with_carrier(&carrier)
        .add("account", &second)
        .add("client", "group='fleet'\nappid='SISTER'\npassword='sisters-password'")
        .add("client", "group='second'\nappid='OTHER'\npassword='others-password'");
    (carrier, setup)
}

#[tokio::test]
async fn a_client_that_fills_its_share_of_the_replay_table_locks_nobody_else_out() {
    let (_carrier, setup) = two_groups().await;
    // 100 entries: 75 per group and 37 per client, since the configured 1,000,000 is not below that.
    let proxy = setup.set("gateway.max_transids", 100).start().await;
    let answered = async |appid: &str, password: &str| {
        let gateway = proxy.gateway.named(appid, password);
        for n in 0.. {
            let response = proxy.get(&gateway.sign(&MSISDN)).await;
            if response.code() != "0" {
                response.assert_refusal_for("72", "too many transids");
                // The time until a transid leaves the window.
                let wait: u64 = response.header("retry-after").unwrap().parse().unwrap();
                assert!((200..=301).contains(&wait), "{wait}");
                return n;
            }
        }
        unreachable!()
    };
    let own = (proxy.gateway.appid.clone(), proxy.gateway.password.clone());
    assert_eq!(answered(&own.0, &own.1).await, 37);
    assert_eq!(answered("SISTER", "sisters-password").await, 37);
    let other = proxy.gateway.named("OTHER", "others-password");
    proxy.get(&other.sign(&MSISDN)).await.assert_normal();
    let metrics = proxy.metrics().await;
    for (group, count) in [("fleet", 74.0), ("second", 1.0)] {
        assert_eq!(metrics.value("cmiot_used_transids_by_group", [("group", group)]), Some(count));
    }
    assert_eq!(metrics.value("cmiot_max_transids_per_group", []), Some(75.0));
    let alarm = eventually("the alarm", async || {
        let ready = proxy.admin("/ready", "").await;
        assert_eq!(ready.status, 200);
        ready.text().contains("alarm: replay-full: ").then(|| ready.text().to_owned())
    })
    .await;
    assert!(alarm.contains("group \"fleet\" (max_transids_per_client)"), "{alarm}");
    let log = proxy.log();
    assert!(log.contains("SISTER") && log.contains("max_transids_per_client"), "{log}");
}

#[tokio::test]
async fn a_flight_whose_asker_has_left_counts_until_it_ends() {
    let (carrier, setup) = two_groups().await;
    let gate = Gate::new();
    carrier.set_rules([Rule::any().gate(&gate)]);
    let proxy = setup.set("carrier.max_waiters_per_client", 3).start().await;
    for n in 0..3 {
        let mut connection = proxy.connect().await;
        let query = proxy.sign(&card_number(n));
        connection.send(format!("GET {STATUS_PATH}?{} HTTP/1.1\r\nHost: x\r\n\r\n", query.text())).await;
        carrier.wait_for_calls(u64::from(n) + 1).await;
        connection.reset();
    }
    eventually("no waiter", async || {
        (proxy.metrics().await.value("cmiot_waiters", [])? == 0.0).then_some(())
    })
    .await;
    proxy.look_up(&MSISDN).await.assert_refusal_for("73", "too many wait already");
    // Another client of the group and another group are not affected.
    let sister = proxy.gateway.named("SISTER", "sisters-password");
    let other = proxy.gateway.named("OTHER", "others-password");
    let (sister, other) = (sister.sign(&MSISDN), other.sign(&ICCID));
    let asked = tokio::join!(proxy.get(&sister), proxy.get(&other), async {
        carrier.wait_for_calls(5).await;
        gate.open();
    });
    asked.0.assert_normal();
    asked.1.assert_normal();
    eventually("its flights to end", async || (proxy.look_up(&MSISDN).await.code() == "0").then_some(()))
        .await;
}

#[tokio::test]
async fn a_group_leaves_flights_to_the_others() {
    let (carrier, setup) = two_groups().await;
    let gate = Gate::new();
    carrier.set_rules([Rule::any().gate(&gate)]);
    // 8 flights: 6 per group and 3 per client.
    let setup = setup.set("carrier.max_flights", 8).set("carrier.max_waiters_per_client", 8);
    let proxy = setup.start().await;
    let gateways = [proxy.gateway.clone(), proxy.gateway.named("SISTER", "sisters-password")];
    let mut connections = Vec::new();
    for n in 0..6 {
        let query = gateways[usize::from(n > 2)].sign(&card_number(n));
        let mut connection = proxy.connect().await;
        connection.send(format!("GET {STATUS_PATH}?{} HTTP/1.1\r\nHost: x\r\n\r\n", query.text())).await;
        carrier.wait_for_calls(u64::from(n) + 1).await;
        connections.push(connection);
    }
    for gateway in &gateways {
        proxy.get(&gateway.sign(&MSISDN)).await.assert_refusal_for("73", "too many wait already");
    }
    let other = proxy.gateway.named("OTHER", "others-password").sign(&MSISDN);
    let (response, ()) = tokio::join!(proxy.get(&other), async {
        carrier.wait_for_calls(7).await;
        gate.open();
    });
    response.assert_normal();
}

#[tokio::test]
async fn a_share_that_is_not_below_its_total_is_lowered_and_said() {
    let (_carrier, setup) = two_groups().await;
    let folder = tempfile::tempdir().unwrap();
    let setup = setup
        .set("gateway.max_transids", 1_000)
        .set("gateway.max_transids_per_group", 1_000)
        .set("carrier.max_flights", 100)
        .set("carrier.max_waiters_per_client", 100);
    crate::support::write_config(&folder.path().join("c.toml"), &setup.text());
    let checked = crate::support::run(folder.path(), &["check", "--config", "c.toml"], &[]).await.success();
    for (key, used) in [
        ("[gateway] max_transids_per_group = 1000", "750 is used"),
        ("[gateway] max_transids_per_client = 1000000", "375 is used"),
        ("[carrier] max_waiters_per_client = 100", "37 is used"),
    ] {
        let line = checked.err.lines().chain(checked.out.lines()).find(|line| line.contains(key));
        assert!(line.is_some_and(|line| line.contains(used)), "{key}: {} {}", checked.out, checked.err);
    }
}

#[tokio::test]
async fn the_last_tenth_of_the_connections_is_for_peers_with_fewer_than_two() {
    let (_carrier, setup) = two_groups().await;
    let proxy = setup.set("gateway.max_connections", 20).start().await;
    let connect = async |last: u8| {
        let socket = tokio::net::TcpSocket::new_v4().unwrap();
        socket.bind(([127, 0, 0, last], 0).into()).unwrap();
        socket.connect(proxy.address).await.unwrap()
    };
    // Seven connections from each of three addresses.
    let mut held = Vec::new();
    for n in 0..21 {
        held.push(connect(2 + n / 7).await);
    }
    eventually("nine tenths of the connections", async || {
        let peers = proxy.admin("/peers", "").await;
        let open = peers.json()["connections"].as_u64().unwrap();
        let refused: u64 = peers.json()["peers"]
            .as_array()
            .unwrap()
            .iter()
            .map(|one| one["turned_away"].as_u64().unwrap())
            .sum();
        (open == 18 && refused == 3).then_some(())
    })
    .await;
    proxy.look_up(&MSISDN).await.assert_normal();
}
