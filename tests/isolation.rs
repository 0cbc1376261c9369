//! Isolation of two groups that look up the same cards.
//!
//! A random sequence of lookups, replies, purges, carrier changes and time runs three times: with both groups, and with
//! each group alone. The responses to a group (headers and bodies) and its carrier calls must not depend on the other
//! group. So the groups share no entry, flight, budget, breaker or generation.
//!
//! The clock is manual. Each step ends in a stable state: each lookup has its response or waits for a flight, and the
//! call of each flight waits at the carrier's gate.

use std::time::Duration;

use cmiot_simulator::{Account, Config, Gate, Outcome, Rule, Simulator};
use proptest::prelude::*;
use tokio::task::JoinHandle;

use crate::support::{
    ACCOUNT_APPID, ACCOUNT_PASSWORD, Clocked, EBID, Gateway, Response, Setup, card_number, eventually, within,
};

const GROUPS: [&str; 2] = ["fleet", "second"];
const APPIDS: [&str; 2] = [ACCOUNT_APPID, "100002"];
/// The day budget, low enough that some calls are refused.
const CALLS_PER_DAY: u32 = 9;

#[derive(Clone, Copy, Debug)]
enum Step {
    /// A gateway of a group looks a card up, perhaps with `max-age=10`.
    LookUp {
        group: usize,
        card: u32,
        fresh: bool,
    },
    /// The carrier replies to all calls of a group in flight.
    Land {
        group: usize,
    },
    /// Purge of a group's entries; a soft purge keeps them for carrier failures.
    Purge {
        group: usize,
        soft: bool,
    },
    /// The kind of the carrier's replies to a group from now on.
    Reply {
        group: usize,
        kind: usize,
    },
    Advance(u64),
}

/// Number of kinds of replies: two statuses, not found, throttled, credentials refused.
const REPLIES: usize = 5;

impl Step {
    fn is_of(self, of: usize) -> bool {
        match self {
            Self::LookUp { group, .. }
            | Self::Land { group }
            | Self::Purge { group, .. }
            | Self::Reply { group, .. } => group == of,
            Self::Advance(_) => true,
        }
    }
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let group = || 0_usize..2;
    let step = prop_oneof![
        8 => (group(), 0_u32..2, any::<bool>()).prop_map(|(group, card, fresh)| Step::LookUp { group, card, fresh }),
        4 => group().prop_map(|group| Step::Land { group }),
        2 => (group(), any::<bool>()).prop_map(|(group, soft)| Step::Purge { group, soft }),
        2 => (group(), 0..REPLIES).prop_map(|(group, kind)| Step::Reply { group, kind }),
        2 => (1_u64..50).prop_map(Step::Advance),
    ];
    proptest::collection::vec(step, 2..40)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 16, ..ProptestConfig::default() })]

    #[test]
    fn what_one_group_does_is_nothing_to_the_other(steps in steps()) {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
        let both = runtime.block_on(play(&steps));
        for (group, with_the_other) in both.iter().enumerate() {
            let own: Vec<Step> = steps.iter().copied().filter(|step| step.is_of(group)).collect();
            let alone = &runtime.block_on(play(&own))[group];
            prop_assert_eq!(with_the_other, alone, "{}", GROUPS[group]);
        }
    }
}

/// The responses to a group, and its carrier calls.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Observed {
    responses: Vec<Vec<(String, String)>>,
    calls: Vec<(String, Option<String>)>,
}

async fn play(steps: &[Step]) -> [Observed; 2] {
    let mut harness = Harness::start().await;
    for step in steps {
        harness.play(*step).await;
    }
    harness.end().await
}

/// Carrier, proxy, and the lookups that wait.
struct Harness {
    carrier: Simulator,
    proxy: Clocked,
    gateways: [Gateway; 2],
    gates: [Gate; 2],
    replies: [usize; 2],
    asked: [Vec<JoinHandle<Response>>; 2],
}

impl Harness {
    async fn start() -> Self {
        let accounts = APPIDS.map(|appid| Account::new(appid, EBID, ACCOUNT_PASSWORD));
        let carrier = Simulator::start_local(Config::new(accounts)).await.unwrap();
        let second = format!(
            "name = \"second\"\nappid = \"{}\"\nebid = \"{EBID}\"\npassword = \"{ACCOUNT_PASSWORD}\"",
            APPIDS[1]
        );
        let client = "group = \"second\"\nappid = \"GW0002\"\npassword = \"another-gateways\"";
        let setup = Setup::with_carrier(&carrier)
            .add("account", &second)
            .add("client", client)
            .set("account.0.calls_per_day", CALLS_PER_DAY)
            .set("account.1.calls_per_day", CALLS_PER_DAY)
            .set("cache.max_age_floor", "0s")
            // Longer than any lookup waits, so that only a carrier reply ends its wait.
            .set("carrier.stale_timeout", "1h");
        let setup = ["normal", "one_way_barred", "barred", "pre_cancelled", "not_found"]
            .into_iter()
            .fold(setup, |setup, kind| setup.freshness(kind, "30s", "20s", "40s"));
        let proxy = setup.start_clocked().await;
        let gateways = [proxy.gateway.clone(), proxy.gateway.named("GW0002", "another-gateways")];
        let gates = [Gate::new(), Gate::new()];
        let harness = Self { carrier, proxy, gateways, gates, replies: [0; 2], asked: Default::default() };
        harness.set_rules();
        harness
    }

    async fn play(&mut self, step: Step) {
        match step {
            Step::LookUp { group, card, fresh } => self.look_up(group, card, fresh).await,
            Step::Land { group } => self.land(group).await,
            Step::Purge { group, soft } => {
                let purge = format!("{{\"group\": \"{}\", \"soft\": {soft}}}", GROUPS[group]);
                assert_eq!(self.proxy.admin_post("/cache/purge", &purge).await.status, 200);
            }
            Step::Reply { group, kind } => {
                self.replies[group] = kind;
                self.set_rules();
            }
            Step::Advance(seconds) => self.proxy.clock.advance(Duration::from_secs(seconds)),
        }
        self.settled().await;
    }

    /// The carrier's rules: one per group, each with its gate.
    fn set_rules(&self) {
        self.carrier.set_rules([0, 1].map(|group| {
            let rule = Rule::any().appid(APPIDS[group]).gate(&self.gates[group]);
            match self.replies[group] {
                0 | 1 => rule.status(format!("0{}", group * 2 + self.replies[group])),
                2 => rule.code("12"),
                3 => rule.code("71"),
                _ => rule.code("7"),
            }
        }));
    }

    async fn look_up(&mut self, group: usize, card: u32, fresh: bool) {
        let (client, query) = ((*self.proxy).clone(), self.gateways[group].sign(&card_number(card)));
        let headers = if fresh { "Cache-Control: max-age=10\r\n" } else { "" };
        self.asked[group].push(tokio::spawn(async move { client.get_with(&query, headers).await }));
    }

    async fn land(&mut self, group: usize) {
        std::mem::take(&mut self.gates[group]).open();
        self.set_rules();
        eventually("a response to each lookup of the group", || async {
            self.asked[group].iter().all(JoinHandle::is_finished).then_some(())
        })
        .await;
        eventually("a reply to each call of the group", || async {
            let calls = self.carrier.calls();
            let in_flight = |group: usize| {
                calls.iter().any(|call| call.appid == APPIDS[group] && call.outcome == Outcome::InFlight)
            };
            (!in_flight(group)).then_some(())
        })
        .await;
    }

    /// Waits for a stable state.
    async fn settled(&self) {
        eventually("a stable state", || async {
            let asked = self.asked.iter().flatten();
            let unanswered = asked.filter(|asked| !asked.is_finished()).count();
            let held = self.carrier.counts().in_flight;
            let metrics = self.proxy.metrics().await;
            let stable = metrics.value("cmiot_waiters", [])? == unanswered as f64
                && metrics.value("cmiot_flights", [])? == held as f64;
            stable.then_some(())
        })
        .await;
    }

    async fn end(mut self) -> [Observed; 2] {
        let mut seen: [Observed; 2] = Default::default();
        for (group, seen) in seen.iter_mut().enumerate() {
            self.land(group).await;
            self.settled().await;
            for asked in std::mem::take(&mut self.asked[group]) {
                let Response { headers, body, .. } = within("a response", asked).await.unwrap();
                // Without Date, which is the host's real time, and the transid, which no two runs share.
                let headers =
                    headers.into_iter().filter(|(name, _)| name != "date" && name != "cmiot-transid");
                let body = ("body".to_owned(), String::from_utf8(body).unwrap());
                seen.responses.push(headers.chain([body]).collect());
            }
            let calls = self.carrier.calls();
            let own = calls.iter().filter(|call| call.appid == APPIDS[group]);
            seen.calls =
                own.map(|call| (call.card.as_ref().unwrap().number.clone(), call.code.clone())).collect();
        }
        self.proxy.stop().await;
        seen
    }
}
