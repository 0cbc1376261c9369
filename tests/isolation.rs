//! Two groups that ask about the same cards: what one does is nothing to the other.
//!
//! Any interleaving of look-ups, landings, purges, changes at the carrier and time is played three times: with both
//! groups, and with each of them alone. What a group is answered, header by header, and what it costs at the carrier
//! must be the same with the other one there as without. So no entry, flight, budget, breaker or generation crosses.
//!
//! The clock is set by hand, and each step ends when nothing moves any more: whoever asked was answered or has its seat
//! in a flight, and every flight's call stands at the carrier's gate.

use std::time::Duration;

use cmiot_simulator::{Account, Config, Gate, Outcome, Rule, Simulator};
use proptest::prelude::*;
use tokio::task::JoinHandle;

use crate::support::{
    ACCOUNT_APPID, ACCOUNT_PASSWORD, Answer, Clocked, EBID, Gateway, Setup, card_number, soon, until,
};

const GROUPS: [&str; 2] = ["fleet", "second"];
const APPIDS: [&str; 2] = [ACCOUNT_APPID, "100002"];
/// So few that some of them are refused.
const CALLS_A_DAY: u32 = 9;

#[derive(Clone, Copy, Debug)]
enum Step {
    /// A gateway of a group asks about a card, and perhaps wants it fresher than it is.
    Ask {
        group: usize,
        card: u32,
        fresh: bool,
    },
    /// The carrier answers all calls of a group that it holds.
    Land {
        group: usize,
    },
    /// What is kept for a group is forgotten, or only for the carrier's bad days.
    Purge {
        group: usize,
        soft: bool,
    },
    /// What the carrier says to a group from now on.
    Say {
        group: usize,
        what: usize,
    },
    Advance(u64),
}

/// Two that are kept, one that is not found, one that throttles, one that refuses the account.
const SAYINGS: usize = 5;

impl Step {
    fn is_of(self, of: usize) -> bool {
        match self {
            Self::Ask { group, .. }
            | Self::Land { group }
            | Self::Purge { group, .. }
            | Self::Say { group, .. } => group == of,
            Self::Advance(_) => true,
        }
    }
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let group = || 0_usize..2;
    let step = prop_oneof![
        8 => (group(), 0_u32..2, any::<bool>()).prop_map(|(group, card, fresh)| Step::Ask { group, card, fresh }),
        4 => group().prop_map(|group| Step::Land { group }),
        2 => (group(), any::<bool>()).prop_map(|(group, soft)| Step::Purge { group, soft }),
        2 => (group(), 0..SAYINGS).prop_map(|(group, what)| Step::Say { group, what }),
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

/// What a group saw and what it cost.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Seen {
    answers: Vec<Vec<(String, String)>>,
    calls: Vec<(String, Option<String>)>,
}

async fn play(steps: &[Step]) -> [Seen; 2] {
    let mut stage = Stage::set().await;
    for step in steps {
        stage.play(*step).await;
    }
    stage.end().await
}

/// Carrier, proxy and the look-ups that wait.
struct Stage {
    carrier: Simulator,
    proxy: Clocked,
    gateways: [Gateway; 2],
    gates: [Gate; 2],
    says: [usize; 2],
    asked: [Vec<JoinHandle<Answer>>; 2],
}

impl Stage {
    async fn set() -> Self {
        let accounts = APPIDS.map(|appid| Account::new(appid, EBID, ACCOUNT_PASSWORD));
        let carrier = Simulator::start_local(Config::new(accounts)).await.unwrap();
        let second = format!(
            "name = \"second\"\nappid = \"{}\"\nebid = \"{EBID}\"\npassword = \"{ACCOUNT_PASSWORD}\"",
            APPIDS[1]
        );
        let client = "group = \"second\"\nappid = \"GW0002\"\npassword = \"another-gateways\"";
        let setup = Setup::before(&carrier)
            .add("account", &second)
            .add("client", client)
            .set("account.0.calls_per_day", CALLS_A_DAY)
            .set("account.1.calls_per_day", CALLS_A_DAY)
            .set("cache.max_age_floor", "0s")
            // Longer than a look-up waits for its flight: what waits is answered by a landing and nothing else.
            .set("carrier.stale_wait", "1h");
        let setup = ["normal", "one_way_barred", "barred", "pre_cancelled", "not_found"]
            .into_iter()
            .fold(setup, |setup, kind| setup.keep(kind, "30s", "20s", "40s"));
        let proxy = setup.start_clocked().await;
        let gateways = [proxy.gateway.clone(), proxy.gateway.named("GW0002", "another-gateways")];
        let gates = [Gate::new(), Gate::new()];
        let stage = Self { carrier, proxy, gateways, gates, says: [0; 2], asked: Default::default() };
        stage.tell();
        stage
    }

    async fn play(&mut self, step: Step) {
        match step {
            Step::Ask { group, card, fresh } => self.ask(group, card, fresh).await,
            Step::Land { group } => self.land(group).await,
            Step::Purge { group, soft } => {
                let purge = format!("{{\"group\": \"{}\", \"soft\": {soft}}}", GROUPS[group]);
                assert_eq!(self.proxy.admin_post("/cache/purge", &purge).await.status, 200);
            }
            Step::Say { group, what } => {
                self.says[group] = what;
                self.tell();
            }
            Step::Advance(seconds) => self.proxy.clock.advance(Duration::from_secs(seconds)),
        }
        self.settled().await;
    }

    /// The carrier's script: to each group its own, held at its own gate.
    fn tell(&self) {
        self.carrier.set_rules([0, 1].map(|group| {
            let rule = Rule::any().appid(APPIDS[group]).gate(&self.gates[group]);
            match self.says[group] {
                0 | 1 => rule.status(format!("0{}", group * 2 + self.says[group])),
                2 => rule.code("12"),
                3 => rule.code("71"),
                _ => rule.code("7"),
            }
        }));
    }

    async fn ask(&mut self, group: usize, card: u32, fresh: bool) {
        let (door, query) = ((*self.proxy).clone(), self.gateways[group].sign(&card_number(card)));
        let wish = if fresh { "Cache-Control: max-age=10\r\n" } else { "" };
        self.asked[group].push(tokio::spawn(async move { door.get_with(&query, wish).await }));
    }

    async fn land(&mut self, group: usize) {
        std::mem::take(&mut self.gates[group]).open();
        self.tell();
        until("every look-up of a group answered", || async {
            self.asked[group].iter().all(JoinHandle::is_finished).then_some(())
        })
        .await;
        until("every call of a group answered", || async {
            let calls = self.carrier.calls();
            let under_way = |group: usize| {
                calls.iter().any(|call| call.appid == APPIDS[group] && call.outcome == Outcome::InFlight)
            };
            (!under_way(group)).then_some(())
        })
        .await;
    }

    /// Nothing moves any more.
    async fn settled(&self) {
        until("everything to rest", || async {
            let asked = self.asked.iter().flatten();
            let unanswered = asked.filter(|asked| !asked.is_finished()).count();
            let held = self.carrier.counts().in_flight;
            let levels = self.proxy.admin("/metrics").await;
            let level = |name: &str| -> Option<u64> {
                levels.text().lines().find_map(|line| line.strip_prefix(name)?.trim().parse().ok())
            };
            let rest = level("cmiot_waiters ")? == unanswered as u64 && level("cmiot_flights ")? == held;
            rest.then_some(())
        })
        .await;
    }

    async fn end(mut self) -> [Seen; 2] {
        let mut seen: [Seen; 2] = Default::default();
        for (group, seen) in seen.iter_mut().enumerate() {
            self.land(group).await;
            self.settled().await;
            for asked in std::mem::take(&mut self.asked[group]) {
                let Answer { headers, body, .. } = soon("an answer", asked).await.unwrap();
                // The machine's own time, and the length of the body.
                let told = headers.into_iter().filter(|(name, _)| name != "date");
                let body = ("body".to_owned(), String::from_utf8(body).unwrap());
                seen.answers.push(told.chain([body]).collect());
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
