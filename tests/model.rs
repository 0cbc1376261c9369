//! Any order of look-ups, time and changes at the carrier, against a reference of a few lines.
//!
//! Two groups ask about the same cards with accounts of their own, and the carrier says to each something else. An
//! answer is what the carrier said to that group at the moment that its Age tells; it is never older than allowed; a
//! key is asked for at most once in each of its windows of freshness.

use std::collections::HashMap;
use std::time::Duration;

use cmiot_simulator::{Account, Config, Rule, Simulator};
use proptest::prelude::*;

use crate::support::{ACCOUNT_APPID, ACCOUNT_PASSWORD, EBID, Setup, card_number};

const FRESH: u64 = 60;
const APPIDS: [&str; 2] = [ACCOUNT_APPID, "100002"];

#[derive(Clone, Debug)]
enum Step {
    Ask { group: usize, card: u32 },
    Advance(u64),
    Change([u8; 2]),
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        4 => (0_usize..2, 0_u32..3).prop_map(|(group, card)| Step::Ask { group, card }),
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
    let setup = Setup::before(&carrier).add("account", &second).add("client", client);
    let setup = kinds
        .into_iter()
        .chain(["awaiting_activation"])
        .fold(setup, |setup, kind| setup.keep(kind, "60s", "0s", "0s"));
    let proxy = setup.start_clocked().await;
    let gateways = [proxy.gateway.clone(), proxy.gateway.named("GW0002", "another-gateways")];

    let mut now = 0;
    // What the carrier says to each group from when on.
    let mut said = vec![(0, [0, 1])];
    let mut calls: HashMap<(usize, u32), u64> = HashMap::new();
    let tell = |statuses: [u8; 2]| {
        let rule = |group: usize| Rule::any().appid(APPIDS[group]).status(format!("0{}", statuses[group]));
        carrier.set_rules([rule(0), rule(1)]);
    };
    tell([0, 1]);
    for step in steps {
        match step {
            Step::Advance(seconds) => {
                now += seconds;
                proxy.clock.advance(Duration::from_secs(seconds));
            }
            Step::Change(statuses) => {
                said.push((now, statuses));
                tell(statuses);
            }
            Step::Ask { group, card } => {
                let due = calls.get(&(group, card)).is_none_or(|last| now - last >= FRESH);
                let before = carrier.count();
                let answer = proxy.get(&gateways[group].sign(&card_number(card))).await;
                assert_eq!(carrier.count() - before, u64::from(due), "{answer:?}");
                if due {
                    calls.insert((group, card), now);
                }
                let age = answer.age();
                assert!(age < FRESH, "{answer:?}");
                assert_eq!(now - age, calls[&(group, card)], "Age counts from when the carrier said it");
                // Of changes at one moment the last that came before the call counts: any of that moment's will do.
                let moment = now - age;
                let current = said.iter().rfind(|(from, _)| *from < moment).or(said.first()).unwrap().1;
                let mut allowed =
                    said.iter().filter(|(from, _)| *from == moment).map(|(_, s)| *s).chain([current]);
                let status = answer.json()["result"][0]["STATUS"].as_str().unwrap().to_owned();
                assert!(
                    allowed.any(|statuses| status == format!("0{}", statuses[group])),
                    "{status} in {said:?}"
                );
            }
        }
    }
    proxy.stop().await;
}
