//! Random schedules of kills, pauses, stalls, cuts and clock steps over three nodes under load, against a reference model.
//!
//! The seed is printed, and decides the faults, their times and the requests of each gateway; the machine decides the rest.
//! `SCHEDULE_SEED=N` repeats a schedule, `SCHEDULE_STEPS=N` makes it longer (8 steps by default, some 15 s), and
//! `SCHEDULE_RUNS=N` plays so many, each with the next seed:
//!
//! ```sh
//! SCHEDULE_STEPS=100 SCHEDULE_RUNS=20 cargo test -p cmiot-proxy --test fleet a_random_schedule -- --nocapture
//! ```

mod faults;
mod load;
mod model;
mod random;
mod records;

use std::collections::HashSet;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use cmiot_proxy::clock::Clock;
use cmiot_simulator::Simulator;

use self::faults::Step;
use self::load::Load;
use self::model::{CarrierCall, History, Violation, check};
use self::random::Random;
use crate::harness::Nodes;
use crate::support::{GatewayClient, Setup, card_number, eventually};

const NODES: usize = 3;

/// Calls per day. The load asks for more.
const LIMIT: u64 = 120;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_random_schedule_of_faults_breaks_no_rule() {
    let now = Clock::system().now().as_micros().unsigned_abs();
    let first = number("SCHEDULE_SEED").unwrap_or(now % 1_000_000);
    let steps = usize::try_from(number("SCHEDULE_STEPS").unwrap_or(8)).unwrap();
    for seed in first..first + number("SCHEDULE_RUNS").unwrap_or(1) {
        eprintln!("SCHEDULE_SEED={seed} SCHEDULE_STEPS={steps}");
        let broken = check(&play(seed, steps).await);
        assert!(broken.is_empty(), "SCHEDULE_SEED={seed} SCHEDULE_STEPS={steps} repeats it: {broken:#?}");
    }
}

/// The same load without faults, and each rule removed: by the configuration, or in the database.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_model_finds_each_rule_that_is_removed() {
    const LIMIT: u64 = 30;
    // The third node answers although nothing can be recorded.
    let unaudited = |setup: Setup, number| match number {
        3 => setup.set("audit.on_failure", "answer").set("audit.min_free", "1000000GiB"),
        _ => setup,
    };
    let fleet = start(LIMIT, "serve", "local", unaudited).await;
    let load = Load::start(&fleet, &mut Random::new(1));
    // The grants of the day are forgotten.
    eventually("more calls than the budget has", async || {
        fleet.server.sql("DELETE FROM fleet.quota").await;
        (fleet.carrier.count() > LIMIT).then_some(())
    })
    .await;
    let responses = load.stop().await;
    repeat_transids(&fleet.carrier).await;
    let broken = check(&History { responses, limit: LIMIT, ..collect(&fleet, &[false; NODES]).await });
    let has = |is: fn(&Violation) -> bool| broken.iter().any(is);
    assert!(has(|one| matches!(one, Violation::AcceptedTwice { .. })), "{broken:#?}");
    assert!(has(|one| matches!(one, Violation::NotListed { .. })), "{broken:#?}");
    assert!(has(|one| matches!(one, Violation::Unaudited { .. })), "{broken:#?}");
    assert!(has(|one| matches!(one, Violation::OverBudget { .. })), "{broken:#?}");
    assert!(has(|one| matches!(one, Violation::RepeatedCall { .. })), "{broken:#?}");
}

/// Two proxies without a fleet have one number, until the carrier has received a transid from both.
async fn repeat_transids(carrier: &Simulator) {
    let node = Setup::with_carrier(carrier).set("carrier.node", 9);
    let (one, other) = (node.start().await, node.start().await);
    let next = AtomicU32::new(500_000);
    eventually("a transid that is repeated", async || {
        let card = card_number(next.fetch_add(1, Ordering::Relaxed));
        tokio::join!(one.look_up(&card), other.look_up(&card));
        let calls = carrier.calls().into_iter().map(|call| call.transid);
        let transids: Vec<_> = calls.filter(|transid| !transid.is_empty()).collect();
        (transids.iter().collect::<HashSet<_>>().len() < transids.len()).then_some(())
    })
    .await;
}

/// Figures of one schedule.
#[allow(dead_code, reason = "the bench prints them")]
pub(crate) struct Summary {
    pub(crate) refuses_alone: bool,
    /// Requests with a response.
    pub(crate) responses: usize,
    /// Those with a carrier response.
    pub(crate) answers: usize,
    /// Transids that two nodes accepted.
    pub(crate) twice: usize,
    pub(crate) calls: usize,
    /// Days of which the run has a part, and their calls at most.
    pub(crate) days: usize,
    pub(crate) limit: u64,
    /// The rules that it broke.
    pub(crate) broken: Vec<String>,
}

/// Plays a schedule and checks it.
#[allow(dead_code, reason = "the bench plays schedules")]
pub(crate) async fn summary(seed: u64, steps: usize) -> Summary {
    let history = play(seed, steps).await;
    Summary {
        refuses_alone: history.refuses_alone,
        responses: history.responses.len(),
        answers: history.responses.iter().filter(|response| response.code == "0").count(),
        twice: history.listed.len(),
        calls: history.calls.len(),
        days: history.midnights.len() + 1,
        limit: LIMIT,
        broken: check(&history).iter().map(|broken| format!("{broken:?}")).collect(),
    }
}

/// Plays a schedule, waits until all nodes act together again, and collects its history.
async fn play(seed: u64, count: usize) -> History {
    let mut random = Random::new(seed);
    let when_alone = random.one_of(&["serve", "serve", "refuse"]);
    let steps = Step::schedule(&mut random, count, NODES);
    let length: Duration = steps.iter().map(Step::duration).sum();
    let until_midnight = random.one_of(&[length / 2, Duration::from_secs(43_200)]);
    eprintln!("when_alone = {when_alone}, {length:?}, midnight after {until_midnight:?}");
    steps.iter().for_each(|step| eprintln!("{step:?}"));
    let mut fleet = start(LIMIT, when_alone, "shared", |setup, _| setup).await;
    let midnight = set_midnight(&fleet, until_midnight).await;
    all_members(&fleet).await;
    let load = Load::start(&fleet, &mut random);
    let mut is_stepped = [false; NODES];
    for step in &steps {
        step.stepped().for_each(|node| is_stepped[node] = true);
        step.play(&mut fleet, &load).await;
    }
    all_members(&fleet).await;
    let before = load.responses();
    eventually("responses after the faults", async || (load.responses() > before + 100).then_some(())).await;
    let responses = load.stop().await;
    let answered = responses.iter().filter(|response| response.code == "0").count();
    assert!(answered > 50, "{answered} answers of {} show little", responses.len());
    let history = async || History {
        refuses_alone: when_alone == "refuse",
        responses: responses.clone(),
        limit: LIMIT,
        midnights: if until_midnight < length { vec![midnight] } else { Vec::new() },
        ..collect(&fleet, &is_stepped).await
    };
    // A node shares the transids that it accepted alone within seconds.
    for _ in 0..100 {
        let history = history().await;
        if !check(&history).iter().any(|broken| matches!(broken, Violation::NotListed { .. })) {
            eprintln!(
                "{} calls, {} responses, {answered} answers, {} transids accepted by two nodes",
                history.calls.len(),
                responses.len(),
                history.listed.len()
            );
            return history;
        }
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
    history().await
}

/// Starts a fleet with this budget per day.
async fn start(
    limit: u64,
    when_alone: &str,
    replay: &str,
    configure: impl Fn(Setup, usize) -> Setup,
) -> Nodes {
    let fleet = Nodes::start_with_clocks(NODES, |setup, number| {
        configure(setup, number)
            .set("account.0.calls_per_day", i64::try_from(limit).unwrap())
            .set("fleet.when_alone", when_alone)
            .set("fleet.replay", replay)
            .set("fleet.timeout", "500ms")
            // Further refusals would be counted, without a record of each.
            .set("audit.refusals", 1_000_000)
    })
    .await;
    // Faults must meet calls in flight.
    fleet.carrier.set_latency(Duration::from_millis(30));
    all_members(&fleet).await;
    fleet
}

/// Waits until no node is alone.
async fn all_members(fleet: &Nodes) {
    for node in fleet.iter() {
        eventually("a member", async || {
            (node.metrics().await.value("cmiot_fleet_alone", []) == Some(0.0)).then_some(())
        })
        .await;
    }
}

/// Sets the clock of the database, so that its midnight at UTC+8 comes after this time. Returns that moment by the clock of
/// the carrier.
async fn set_midnight(fleet: &Nodes, after: Duration) -> Duration {
    let ahead = format!(
        "SELECT extract(epoch FROM date_trunc('day', at) + interval '1 day' - interval '{} seconds' - at)
         FROM (SELECT clock_timestamp() AT TIME ZONE 'Asia/Shanghai' AS at) AS now",
        after.as_secs_f64()
    );
    let ahead = fleet.server.value(&ahead).await;
    let function = format!(
        "CREATE OR REPLACE FUNCTION fleet.now() RETURNS timestamptz LANGUAGE sql VOLATILE
         AS 'SELECT clock_timestamp() + interval ''{ahead} seconds'''"
    );
    fleet.server.sql(&function).await;
    // The carrier lists each request with its time.
    let probe = GatewayClient { address: fleet.carrier.addr(), gateway: fleet[0].gateway.clone() };
    probe.get_target("/", "").await;
    fleet.carrier.calls().last().expect("the request").at + after
}

/// The facts of a run but those of its load.
async fn collect(fleet: &Nodes, is_stepped: &[bool]) -> History {
    let calls = fleet.carrier.calls().into_iter().filter(|call| !call.transid.is_empty());
    let audits = fleet.iter().zip(is_stepped);
    History {
        calls: calls.map(|call| CarrierCall { transid: call.transid, at: call.at }).collect(),
        nodes: audits.map(|(node, is_stepped)| records::read(node, *is_stepped)).collect(),
        listed: records::listed(&fleet.server).await,
        ..History::default()
    }
}

fn number(variable: &str) -> Option<u64> {
    std::env::var(variable).ok().map(|value| value.parse().unwrap())
}
