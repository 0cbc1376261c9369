//! Answers and flights in the database: who leads a key, what followers get, and what is kept.

use std::sync::Arc;
use std::time::Duration;

use cmiot_proxy::store::fleet::agreement::{self, Compared};
use cmiot_proxy::store::fleet::flights::{
    self, Answer, Asked, Entered, Followed, Known, LandEffect, Landable, Landed, Landing, SharedKey,
};
use cmiot_proxy::store::fleet::{CHANNEL, Link};
use tokio::task::JoinSet;

use crate::harness::{Postgres, create_tables, lift_time_limits, link_of};
use crate::support::{eventually, within};

/// Connections of the pool.
const POOL: usize = 16;

const KEY: SharedKey = [0x5a; 16];
const CARD: SharedKey = [0xca; 16];
const BODY: &[u8] = b"{\"status\":\"0\"}";
const HOUR: Duration = Duration::from_secs(3_600);

/// The tables of a fleet, with a clock that a test sets, and the link of one node.
struct Tables {
    server: Postgres,
    link: Arc<Link>,
}

impl Tables {
    async fn start() -> Self {
        let server = Postgres::start().await;
        create_tables(&server).await;
        let owner = server.try_client("cmiot_owner").await.unwrap();
        let moved = "CREATE TABLE fleet.moved (by interval NOT NULL);
             INSERT INTO fleet.moved VALUES ('0');
             CREATE OR REPLACE FUNCTION fleet.now() RETURNS timestamptz LANGUAGE sql VOLATILE
             AS 'SELECT clock_timestamp() + (SELECT by FROM fleet.moved)'";
        owner.batch_execute(moved).await.unwrap();
        owner.batch_execute("SELECT fleet.grant_node('cmiot_node')").await.unwrap();
        let link = link(&server);
        Self { server, link }
    }

    /// A life of a node whose lease is over after these seconds.
    async fn life(&self, node: u8, seconds: u32) -> i64 {
        let begin = format!(
            "SELECT life FROM fleet.begin_life({node}::smallint, '\\x{node:02x}', '\\x{node:02x}', 'a test', '{seconds} s')"
        );
        self.server.value(&begin).await.parse().unwrap()
    }

    /// Moves the clock of the fleet forward.
    async fn pass(&self, seconds: u32) {
        self.server.sql(&format!("UPDATE fleet.moved SET by = by + interval '{seconds} s'")).await;
    }

    async fn enter(&self, life: i64, known: Known) -> Entered {
        flights::enter(&self.link, &asked(life, known)).await.unwrap()
    }

    /// Enters as the leader, and returns the fence and the last purge.
    async fn lead(&self, life: i64) -> (i64, i64) {
        match self.enter(life, Known::Nothing).await {
            Entered::Lead { fence, generation, takeover: false } => (fence, generation),
            other => panic!("no lead: {other:?}"),
        }
    }

    async fn follow(&self, life: i64) -> i64 {
        match self.enter(life, Known::Nothing).await {
            Entered::Follow { fence } => fence,
            other => panic!("nobody to follow: {other:?}"),
        }
    }

    /// Lands a response of this age that is fresh for an hour.
    async fn land(&self, (fence, generation): (i64, i64), age: Duration) -> LandEffect {
        flights::land(&self.link, &landing(fence, generation, Ok(response(age)))).await.unwrap()
    }

    /// Waits until so many statements wait for a lock. [`lift_time_limits`] must have been called.
    async fn statements_wait(&self, count: u32) {
        let waiting = "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock'";
        eventually("statements that wait", async || {
            (self.server.value(waiting).await == count.to_string()).then_some(())
        })
        .await;
    }

    async fn poll(&self, fence: i64) -> Followed {
        flights::poll(&self.link, &KEY, fence).await.unwrap()
    }
}

/// A link over the socket of the server.
fn link(server: &Postgres) -> Arc<Link> {
    link_of(1, vec![format!("unix:{}", server.socket_folder().display())], "10s", POOL)
}

fn asked(life: i64, known: Known) -> Asked<'static> {
    let lease = Duration::from_secs(30);
    Asked { key: &KEY, card: &CARD, group: "fleet", operation: "status", life, known, lease }
}

fn response(age: Duration) -> Landable<'static> {
    Landable {
        body: BODY,
        charset: Some("GBK"),
        carrier: Some("0/daily"),
        status: Some("00"),
        age,
        fresh: Some(HOUR),
    }
}

fn landing<'a>(fence: i64, generation: i64, result: Result<Landable<'a>, &'a str>) -> Landing<'a> {
    Landing {
        key: &KEY,
        card: &CARD,
        group: "fleet",
        operation: "status",
        fence,
        generation,
        result,
        account: "main",
        transid: Some("100001"),
    }
}

fn is_from_main(answer: &Answer) -> bool {
    let Answer { body, charset, account, transid, carrier, .. } = answer;
    body == BODY
        && charset.as_deref() == Some("GBK")
        && account == "main"
        && transid.as_deref() == Some("100001")
        && carrier.as_deref() == Some("0/daily")
}

#[tokio::test]
async fn one_leads_and_its_response_is_the_answer_of_all() {
    let tables = Tables::start().await;
    let (one, other) = (tables.life(1, 60).await, tables.life(2, 60).await);
    let lead = tables.lead(one).await;
    let followed = tables.follow(other).await;
    assert_eq!(followed, lead.0);
    assert_eq!(tables.poll(followed).await, Followed::InFlight);
    let effect = tables.land(lead, Duration::from_secs(3)).await;
    assert_eq!(effect, LandEffect { kept: true, landed: true });
    let Followed::Landed(Landed::Response(shared)) = tables.poll(followed).await else { panic!() };
    assert!(is_from_main(&shared), "{shared:?}");
    assert!((3..60).contains(&shared.age.as_secs()), "{:?}", shared.age);
    for life in [one, other] {
        let Entered::Answer(answer) = tables.enter(life, Known::Nothing).await else { panic!() };
        assert!(is_from_main(&answer) && answer.version == shared.version, "{answer:?}");
    }
}

#[tokio::test]
async fn a_reply_of_the_carrier_belongs_to_the_call_that_it_names() {
    let tables = Tables::start().await;
    let (one, other) = (tables.life(1, 60).await, tables.life(2, 60).await);
    let lead = tables.lead(one).await;
    tables.land(lead, Duration::ZERO).await;
    // As a node of a version without this column replaces a row.
    for table in ["fleet.answer", "fleet.flight"] {
        tables.server.sql(&format!("UPDATE {table} SET transid = '100002'")).await;
    }
    let Followed::Landed(Landed::Response(followed)) = tables.poll(lead.0).await else { panic!() };
    let Entered::Answer(answer) = tables.enter(other, Known::Nothing).await else { panic!() };
    for answer in [followed, answer] {
        assert_eq!((answer.transid.as_deref(), answer.carrier), (Some("100002"), None));
    }
}

#[tokio::test]
async fn of_many_that_enter_at_once_one_leads() {
    let tables = Arc::new(Tables::start().await);
    let mut lives = Vec::new();
    for node in 1..=12 {
        lives.push(tables.life(node, 60).await);
    }
    for _ in 0..20 {
        let mut entering = JoinSet::new();
        for life in lives.clone() {
            let tables = Arc::clone(&tables);
            entering.spawn(async move { tables.enter(life, Known::Nothing).await });
        }
        let entered = within("all", entering.join_all()).await;
        let leads = entered.iter().filter(|one| matches!(one, Entered::Lead { .. })).count();
        let follows = entered.iter().filter(|one| matches!(one, Entered::Follow { .. })).count();
        assert_eq!((leads, follows), (1, 11), "{entered:?}");
        tables.server.sql("DELETE FROM fleet.flight").await;
    }
}

#[tokio::test]
async fn an_answer_is_returned_if_it_is_newer_than_the_known_one() {
    let tables = Tables::start().await;
    let (one, other) = (tables.life(1, 6_000).await, tables.life(2, 6_000).await);
    let lead = tables.lead(one).await;
    tables.land(lead, Duration::from_secs(30)).await;
    let older = Known::Aged(Duration::from_secs(300));
    let Entered::Answer(answer) = tables.enter(other, older).await else { panic!() };
    let newer = Known::Aged(Duration::from_secs(10));
    let Entered::Lead { fence, .. } = tables.enter(other, newer).await else { panic!() };
    assert!(flights::release(&tables.link, &KEY, fence).await.unwrap());
    let same = tables.enter(other, Known::Version(answer.version)).await;
    assert!(matches!(same, Entered::Lead { .. }), "{same:?}");
}

#[tokio::test]
async fn an_answer_ends_with_the_freshness_of_the_node_that_stored_it() {
    let tables = Tables::start().await;
    let (one, other) = (tables.life(1, 60_000).await, tables.life(2, 60_000).await);
    let lead = tables.lead(one).await;
    tables.land(lead, Duration::from_secs(60)).await;
    tables.pass(3_500).await;
    assert!(matches!(tables.enter(other, Known::Nothing).await, Entered::Answer(_)));
    tables.pass(60).await;
    assert!(matches!(tables.enter(other, Known::Nothing).await, Entered::Lead { takeover: false, .. }));
}

#[tokio::test]
async fn an_answer_from_before_the_clock_was_set_back_is_replaced() {
    let tables = Tables::start().await;
    let (one, other) = (tables.life(1, 60_000).await, tables.life(2, 60_000).await);
    let lead = tables.lead(one).await;
    tables.land(lead, Duration::ZERO).await;
    tables.server.sql("UPDATE fleet.moved SET by = by - interval '1 hour'").await;
    let lead = tables.lead(other).await;
    let effect = tables.land(lead, Duration::from_secs(1)).await;
    assert_eq!(effect, LandEffect { kept: true, landed: true });
    let Entered::Answer(answer) = tables.enter(one, Known::Nothing).await else { panic!() };
    assert!((1..60).contains(&answer.age.as_secs()), "{answer:?}");
}

/// The landing of a response commits between the snapshot of another node's statement and its lock of the row.
#[tokio::test]
async fn a_landing_that_commits_after_the_snapshot_is_found_all_the_same() {
    let tables = Tables::start().await;
    let (one, other) = (tables.life(1, 60).await, tables.life(2, 60).await);
    lift_time_limits(&tables.link, POOL).await;
    let lead = tables.lead(one).await;
    // Holds the row, so that the landing and the question wait for it in this order.
    let holder = tables.server.client().await;
    holder.batch_execute("BEGIN; SELECT FROM fleet.flight FOR UPDATE").await.unwrap();
    let landing = async { tables.land(lead, Duration::ZERO).await };
    let question = async {
        tables.statements_wait(1).await;
        tables.enter(other, Known::Nothing).await
    };
    let release = async {
        tables.statements_wait(2).await;
        holder.batch_execute("COMMIT").await.unwrap();
    };
    let (effect, entered, ()) = tokio::join!(landing, question, release);
    assert_eq!(effect, LandEffect { kept: true, landed: true });
    assert!(matches!(entered, Entered::Answer(ref answer) if is_from_main(answer)), "{entered:?}");
}

#[tokio::test]
async fn a_fault_is_shared_and_the_next_one_leads() {
    let tables = Tables::start().await;
    let (one, other) = (tables.life(1, 60).await, tables.life(2, 60).await);
    let (fence, generation) = tables.lead(one).await;
    let followed = tables.follow(other).await;
    let fault = landing(fence, generation, Err("http-status 503"));
    let effect = flights::land(&tables.link, &fault).await.unwrap();
    assert_eq!(effect, LandEffect { kept: false, landed: true });
    let Followed::Landed(Landed::Fault { fault, account, transid }) = tables.poll(followed).await else {
        panic!()
    };
    assert_eq!((&*fault, &*account, transid.as_deref()), ("http-status 503", "main", Some("100001")));
    tables.lead(other).await;
}

#[tokio::test]
async fn a_response_that_is_not_stored_is_shared_with_followers_alone() {
    let tables = Tables::start().await;
    let (one, other) = (tables.life(1, 60).await, tables.life(2, 60).await);
    let (fence, generation) = tables.lead(one).await;
    let followed = tables.follow(other).await;
    let relayed = Landable { fresh: None, ..response(Duration::ZERO) };
    flights::land(&tables.link, &landing(fence, generation, Ok(relayed))).await.unwrap();
    assert!(matches!(tables.poll(followed).await, Followed::Landed(Landed::Response(_))));
    tables.lead(other).await;
    assert_eq!(tables.server.value("SELECT count(*) FROM fleet.answer").await, "0");
}

#[tokio::test]
async fn a_lead_that_is_given_up_is_lost_to_followers() {
    let tables = Tables::start().await;
    let (one, other) = (tables.life(1, 60).await, tables.life(2, 60).await);
    let (fence, _) = tables.lead(one).await;
    let followed = tables.follow(other).await;
    assert!(flights::release(&tables.link, &KEY, fence).await.unwrap());
    assert!(!flights::release(&tables.link, &KEY, fence).await.unwrap());
    assert_eq!(tables.poll(followed).await, Followed::Lost);
    tables.lead(other).await;
}

#[tokio::test]
async fn a_row_is_taken_when_its_life_or_its_time_has_ended() {
    let tables = Tables::start().await;
    for (end, what) in [
        ("UPDATE fleet.life SET gone = true WHERE node = 1", "gone"),
        ("UPDATE fleet.life SET until = fleet.now() WHERE node = 1", "the lease"),
        ("DELETE FROM fleet.life WHERE node = 1", "deleted"),
        ("UPDATE fleet.flight SET until = fleet.now()", "the time of the flight"),
    ] {
        let (one, other) = (tables.life(1, 60).await, tables.life(2, 60).await);
        let lead = tables.lead(one).await;
        let followed = tables.follow(other).await;
        assert_eq!(tables.poll(followed).await, Followed::InFlight, "{what}");
        tables.server.sql(end).await;
        assert_eq!(tables.poll(followed).await, Followed::Lost, "{what}");
        let taken = tables.enter(other, Known::Nothing).await;
        let Entered::Lead { fence, generation, takeover: true } = taken else { panic!("{what}: {taken:?}") };
        // The late landing: its fence has ended, and its response is kept.
        let late = tables.land(lead, Duration::from_secs(9)).await;
        assert_eq!(late, LandEffect { kept: true, landed: false }, "{what}");
        assert_eq!(tables.poll(fence).await, Followed::InFlight, "{what}");
        let effect = tables.land((fence, generation), Duration::from_secs(1)).await;
        assert_eq!(effect, LandEffect { kept: true, landed: true }, "{what}");
        // And again, later still: it is not the newest.
        let later = tables.land(lead, Duration::from_secs(9)).await;
        assert_eq!(later, LandEffect { kept: false, landed: false }, "{what}");
        tables.server.sql("DELETE FROM fleet.flight; DELETE FROM fleet.answer; DELETE FROM fleet.life").await;
    }
}

#[tokio::test]
async fn a_node_takes_its_own_row_again() {
    let tables = Tables::start().await;
    let (one, other) = (tables.life(1, 60).await, tables.life(2, 60).await);
    let (before, _) = tables.lead(one).await;
    let (fence, _) = tables.lead(one).await;
    assert_ne!(before, fence);
    assert_eq!(tables.follow(other).await, fence);
    assert_eq!(tables.poll(before).await, Followed::Lost);
}

#[tokio::test]
async fn a_landing_whose_reply_was_lost_is_repeated() {
    let tables = Tables::start().await;
    let (one, other) = (tables.life(1, 60).await, tables.life(2, 60).await);
    let lead = tables.lead(one).await;
    let followed = tables.follow(other).await;
    tables.land(lead, Duration::ZERO).await;
    let again = tables.land(lead, Duration::from_secs(1)).await;
    assert!(again.landed);
    let Followed::Landed(Landed::Response(shared)) = tables.poll(followed).await else { panic!() };
    assert!(is_from_main(&shared));
    assert!(matches!(tables.enter(other, Known::Nothing).await, Entered::Answer(_)));
}

#[tokio::test]
async fn a_response_that_a_later_purge_covers_is_not_kept() {
    let tables = Tables::start().await;
    let (one, other) = (tables.life(1, 60).await, tables.life(2, 60).await);
    let card = "'\\x".to_owned() + &"ca".repeat(16) + "'";
    let covering = [
        ("card", &*card),
        ("\"group\"", "'fleet'"),
        ("operation", "'status'"),
        ("status", "'00'"),
        ("card, status", &format!("{card}, '00'")),
    ];
    let other_lookups = [("card", "'\\x00'"), ("\"group\"", "'b'"), ("operation", "'b'"), ("status", "'02'")];
    for (column, value, kept) in covering
        .into_iter()
        .map(|(column, value)| (column, value, false))
        .chain(other_lookups.into_iter().map(|(column, value)| (column, value, true)))
    {
        let lead = tables.lead(one).await;
        let followed = tables.follow(other).await;
        let purge = format!(
            "INSERT INTO fleet.purge (generation, {column}, soft, sealed)
             SELECT coalesce(max(generation), 0) + 1, {value}, false, '' FROM fleet.purge"
        );
        tables.server.sql(&purge).await;
        assert_eq!(tables.land(lead, Duration::ZERO).await, LandEffect { kept, landed: true }, "{column}");
        assert!(matches!(tables.poll(followed).await, Followed::Landed(_)), "it was asked before the purge");
        if !kept {
            // Nor does the row that has just landed answer anybody: this one asks after the purge.
            let lead = tables.lead(other).await;
            assert!(tables.land(lead, Duration::ZERO).await.kept, "this call began after the purge");
        }
        tables.server.sql("DELETE FROM fleet.flight; DELETE FROM fleet.answer").await;
    }
}

#[tokio::test]
async fn an_answer_that_is_purged_softly_is_none() {
    let tables = Tables::start().await;
    let one = tables.life(1, 60).await;
    let lead = tables.lead(one).await;
    tables.land(lead, Duration::from_secs(5)).await;
    tables.server.sql("UPDATE fleet.answer SET stale = true; DELETE FROM fleet.flight").await;
    let lead = tables.lead(one).await;
    tables.land(lead, Duration::ZERO).await;
    assert!(
        matches!(tables.enter(one, Known::Nothing).await, Entered::Answer(_)),
        "a newer one is not stale"
    );
}

#[tokio::test]
async fn only_an_awaited_landing_is_notified_and_names_a_key() {
    let tables = Tables::start().await;
    let (one, other) = (tables.life(1, 60).await, tables.life(2, 60).await);
    let mut heard = tables.link.dedicated("listen", Duration::from_secs(5));
    let session = heard.session().await.unwrap();
    session.client.batch_execute(&format!("LISTEN {}", CHANNEL)).await.unwrap();
    let unheard = tables.lead(one).await;
    tables.land(unheard, Duration::ZERO).await;
    tables.server.sql("DELETE FROM fleet.flight; DELETE FROM fleet.answer").await;
    let lead = tables.lead(one).await;
    tables.follow(other).await;
    tables.land(lead, Duration::ZERO).await;
    tables.server.sql("DELETE FROM fleet.flight; DELETE FROM fleet.answer").await;
    let (fence, _) = tables.lead(one).await;
    tables.follow(other).await;
    flights::release(&tables.link, &KEY, fence).await.unwrap();
    tables.server.sql("NOTIFY cmiot_fleet, 'last'").await;
    let mut payloads = Vec::new();
    while payloads.last().is_none_or(|last| last != "last") {
        let notification = within("a notification", session.notifications.recv()).await.unwrap();
        payloads.push(notification.payload().to_owned());
    }
    let landed = format!("landed {}", "5a".repeat(16));
    assert_eq!(payloads, [landed.clone(), landed, "last".to_owned()]);
}

#[tokio::test]
async fn old_rows_are_swept_and_others_stay() {
    let tables = Tables::start().await;
    let one = tables.life(1, 60_000).await;
    let lead = tables.lead(one).await;
    tables.land(lead, Duration::ZERO).await;
    let count = "SELECT (SELECT count(*) FROM fleet.answer) || ' ' || (SELECT count(*) FROM fleet.flight)";
    assert_eq!(flights::sweep(&tables.link, 100).await.unwrap(), 0);
    tables.pass(20).await;
    assert_eq!(flights::sweep(&tables.link, 100).await.unwrap(), 1);
    assert_eq!(tables.server.value(count).await, "1 0", "the answer is fresh for an hour");
    tables.server.sql("DELETE FROM fleet.flight").await;
    // Another sweep has the row.
    tables.pass(3_600).await;
    let holder = tables.server.client().await;
    holder.batch_execute("BEGIN; SELECT FROM fleet.answer FOR UPDATE").await.unwrap();
    assert_eq!(flights::sweep(&tables.link, 100).await.unwrap(), 0);
    holder.batch_execute("COMMIT").await.unwrap();
    assert_eq!(flights::sweep(&tables.link, 100).await.unwrap(), 1);
    tables.lead(one).await;
    tables.pass(20).await;
    assert_eq!(flights::sweep(&tables.link, 100).await.unwrap(), 0, "its leader may still land it");
    tables.pass(30).await;
    assert_eq!(flights::sweep(&tables.link, 100).await.unwrap(), 1);
}

#[tokio::test]
async fn a_killed_server_loses_answers_and_flights_and_nothing_else() {
    let mut tables = Tables::start().await;
    let (one, other) = (tables.life(1, 6_000).await, tables.life(2, 6_000).await);
    let lead = tables.lead(one).await;
    let followed = tables.follow(other).await;
    tables.server.kill();
    tables.server.start_again().await;
    tables.link = link(&tables.server);
    assert_eq!(tables.poll(followed).await, Followed::Lost);
    let next = tables.lead(other).await;
    assert_ne!(next.0, lead.0, "no fence is given out twice");
    assert!(!tables.land(lead, Duration::ZERO).await.landed);
}

#[tokio::test]
async fn hashes_of_current_lives_that_differ_are_named() {
    for what in [Compared::Groups, Compared::Settings] {
        let tables = Tables::start().await;
        let (one, other) = (tables.life(1, 60).await, tables.life(2, 60).await);
        let compare = async |life, named: &[(&str, SharedKey)]| {
            agreement::compare(&tables.link, life, what, named).await.unwrap()
        };
        assert_eq!(compare(one, &[("a", [1; 16]), ("b", [2; 16])]).await, []);
        assert_eq!(compare(other, &[("b", [3; 16]), ("a", [1; 16])]).await, [("b".to_owned(), 1)]);
        assert_eq!(compare(one, &[("a", [1; 16]), ("b", [2; 16])]).await, [("b".to_owned(), 2)]);
        assert_eq!(compare(other, &[("a", [1; 16])]).await, [], "it has the name no longer");
        assert_eq!(compare(one, &[("a", [1; 16]), ("b", [2; 16])]).await, []);
        assert_eq!(compare(other, &[("a", [4; 16])]).await, [("a".to_owned(), 1)]);
        tables.server.sql("UPDATE fleet.life SET gone = true WHERE node = 2").await;
        assert_eq!(compare(one, &[("a", [1; 16])]).await, []);
    }
}
