//! Random sequences of lookups, time and carrier changes, against a reference model.
//!
//! Two groups look up the same cards with separate accounts, and the carrier replies differently to each. A response has
//! the carrier's reply to that group at the time that Age states; it is never older than the freshness lifetime; and each
//! key is fetched at most once per lifetime.

use std::collections::HashMap;
use std::time::Duration;

use cmiot_simulator::{Account, Config, Rule, Simulator};
use proptest::prelude::*;

use crate::support::{ACCOUNT_APPID, ACCOUNT_PASSWORD, EBID, Setup, card_number};

const FRESH: u64 = 60;
const APPIDS: [&str; 2] = [ACCOUNT_APPID, "100002"];

#[derive(Clone, Debug)]
enum Step {
    LookUp {
        group: usize,
        card: u32,
    },
    Advance(u64),
    /// New statuses, one per group.
    Change([u8; 2]),
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        4 => (0_usize..2, 0_u32..3).prop_map(|(group, card)| Step::LookUp { group, card }),
        2 => (1_u64..80).prop_map(Step::Advance),
        1 => [0_u8..8, 0_u8..8].prop_map(Step::Change),
    ];
    proptest::collection::vec(step, 1..60)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, ..ProptestConfig::default() })]

    #[test]
    fn every_answer_is_its_groups_and_young_enough_and_no_call_is_needless(steps in steps()) {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
        runtime.block_on(play(steps));
    }
}

async fn play(steps: Vec<Step>) {
    let accounts = APPIDS.map(|appid| Account::new(appid, EBID, ACCOUNT_PASSWORD));
    let carrier = Simulator::start_local(Config::new(accounts)).await.unwrap();
    let second = format!(
        "name = \"second\"\nappid = \"100002\"\nebid = \"{EBID}\"\npassword = \"{ACCOUNT_PASSWORD}\""
    );
    let client = "group = \"second\"\nappid = \"GW0002\"\npassword = \"another-gateways\"";
    let kinds =
        ["normal", "one_way_barred", "barred", "pre_cancelled", "cancelled", "transferred", "dormant"];
    let setup = Setup::with_carrier(&carrier).add("account", &second).add("client", client);
    let setup = kinds
        .into_iter()
        .chain(["awaiting_activation"])
        .fold(setup, |setup, kind| setup.freshness(kind, "60s", "0s", "0s"));
    let proxy = setup.start_clocked().await;
    let gateways = [proxy.gateway.clone(), proxy.gateway.named("GW0002", "another-gateways")];

    let mut now = 0;
    // The carrier's statuses, one per group, with the time from which they hold.
    let mut statuses_from = vec![(0, [0, 1])];
    let mut calls: HashMap<(usize, u32), u64> = HashMap::new();
    let set_statuses = |statuses: [u8; 2]| {
        let rule = |group: usize| Rule::any().appid(APPIDS[group]).status(format!("0{}", statuses[group]));
        carrier.set_rules([rule(0), rule(1)]);
    };
    set_statuses([0, 1]);
    for step in steps {
        match step {
            Step::Advance(seconds) => {
                now += seconds;
                proxy.clock.advance(Duration::from_secs(seconds));
            }
            Step::Change(statuses) => {
                statuses_from.push((now, statuses));
                set_statuses(statuses);
            }
            Step::LookUp { group, card } => {
                let due = calls.get(&(group, card)).is_none_or(|last| now - last >= FRESH);
                let before = carrier.count();
                let response = proxy.get(&gateways[group].sign(&card_number(card))).await;
                assert_eq!(carrier.count() - before, u64::from(due), "{response:?}");
                if due {
                    calls.insert((group, card), now);
                }
                let age = response.age();
                assert!(age < FRESH, "{response:?}");
                assert_eq!(now - age, calls[&(group, card)], "Age starts at the carrier's reply");
                // Several changes may have this time; the call may be between them.
                let moment = now - age;
                let current = statuses_from
                    .iter()
                    .rfind(|(from, _)| *from < moment)
                    .or(statuses_from.first())
                    .unwrap()
                    .1;
                let mut allowed = statuses_from
                    .iter()
                    .filter(|(from, _)| *from == moment)
                    .map(|(_, s)| *s)
                    .chain([current]);
                let status = response.json()["result"][0]["STATUS"].as_str().unwrap().to_owned();
                assert!(
                    allowed.any(|statuses| status == format!("0{}", statuses[group])),
                    "{status} in {statuses_from:?}"
                );
            }
        }
    }
    proxy.stop().await;
}
