//! Queries and the rows that they must find.

use std::time::Duration;

use cmiot_signer::CardKind;

use super::*;
use crate::store::audit::tests::{NOON, row};
use crate::store::audit::{AuditStore, CallRow, Identifiers, LookupRow, Options, RefusedRow};

fn at(minutes: u64) -> Time {
    NOON.plus(Duration::from_secs(60 * minutes))
}

fn card(last: u64) -> Card {
    Card::parse(CardKind::Msisdn, &format!("1476500{last:04}")).unwrap()
}

/// Sixty lookups of ten cards in two months, one per minute, the first thirty in January.
fn written(identifiers: Identifiers) -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    let (clock, hand) = Clock::manual(NOON);
    let options = Options { run: 7, block: 2, identifiers, ..Options::default() };
    let store = AuditStore::open(dir.path(), options, clock).unwrap();
    let counted = RefusedRow { peer: None, reason: "token", count: 9, first: at(1), last: at(2) };
    store.append_refused(counted);
    for n in 0..60 {
        if n == 30 {
            // A row in the future would be written to the present month.
            hand.advance(Duration::from_secs(30 * 86_400));
        }
        let month = if n < 30 { 0 } else { 30 * 24 * 60 };
        let row = LookupRow {
            card: Some(card(n % 10)),
            outcome: if n % 3 == 0 { "miss" } else { "hit" },
            status: Some(if n < 35 { "00".into() } else { "02".into() }),
            latency: Duration::from_micros(100 + n),
            age: None,
            carrier_transid: (n % 3 == 0).then(|| format!("1000012026011511593300000{n:03}").as_str().into()),
            ..row(at(month + n), &format!("t{n}"))
        };
        if n % 3 == 0 {
            store.append_call(CallRow {
                at: row.at,
                transid: row.carrier_transid,
                previous: None,
                card: Some(card(n % 10)),
                account: "fleet-1".into(),
                operation: "userstatusrealsingle",
                code: Some("0".into()),
                fault: None,
                status: row.status,
                latency: Duration::from_millis(30),
                bytes: Some(60),
                body: None,
            });
        }
        assert_eq!(store.append(row).wait(), Ok(()));
    }
    store.close();
    dir
}

fn transids(rows: &[Vec<Field>]) -> Vec<String> {
    rows.iter()
        .map(|row| match &row[9] {
            Field::Text(text) => text.clone(),
            other => panic!("a transid, not {other:?}"),
        })
        .collect()
}

fn asked(dir: &Path, filter: &Filter) -> Vec<String> {
    transids(&lookups(dir, filter, 100, None).unwrap())
}

#[test]
fn a_cards_lookups_are_found_in_runs_and_after_them_newest_first() {
    for identifiers in [Identifiers::Plain, Identifiers::Keyed] {
        let dir = written(identifiers);
        let filter = Filter { card: Some(card(4)), ..Filter::default() };
        assert_eq!(asked(dir.path(), &filter), ["t54", "t44", "t34", "t24", "t14", "t4"]);
        let page = lookups(dir.path(), &filter, 2, None).unwrap();
        assert_eq!(transids(&page), ["t54", "t44"]);
        let Field::Int(last) = page[1][0] else { panic!("a number") };
        let next = Filter { before: Some(last), ..filter.clone() };
        assert_eq!(transids(&lookups(dir.path(), &next, 2, None).unwrap()), ["t34", "t24"]);
        let filter = Filter { outcome: Some("miss".into()), since: Some(at(5)), ..filter };
        assert_eq!(asked(dir.path(), &filter), ["t54", "t24"]);
    }
}

#[test]
fn every_filter_picks_what_it_names() {
    let dir = written(Identifiers::Plain);
    let none = Filter::default;
    let count = |filter: &Filter| asked(dir.path(), filter).len();
    assert_eq!(count(&none()), 60);
    assert_eq!(count(&Filter { since: Some(at(10)), until: Some(at(20)), ..none() }), 10);
    assert_eq!(count(&Filter { client: Some("GW0001".into()), ..none() }), 60);
    assert_eq!(count(&Filter { client: Some("GW0002".into()), ..none() }), 0);
    assert_eq!(count(&Filter { account: Some("fleet-1".into()), ..none() }), 60);
    assert_eq!(count(&Filter { peer: Some("192.0.2.8".into()), ..none() }), 0);
    assert_eq!(count(&Filter { outcome: Some("miss".into()), ..none() }), 20);
    assert_eq!(count(&Filter { code: Some("0".into()), ..none() }), 60);
    assert_eq!(count(&Filter { status: Some("02".into()), ..none() }), 25);
    assert_eq!(asked(dir.path(), &Filter { transid: Some("t7".into()), ..none() }), ["t7"]);
    let carrier = Filter { transid: Some("1000012026011511593300000033".into()), ..none() };
    assert_eq!(asked(dir.path(), &carrier), ["t33"]);
}

#[test]
fn a_look_up_is_shown_with_its_calls() {
    let dir = written(Identifiers::Plain);
    let of = |transid: &str| {
        let found =
            lookups(dir.path(), &Filter { transid: Some(transid.into()), ..Filter::default() }, 1, None)
                .unwrap();
        let Field::Int(id) = found[0][0] else { panic!("a number") };
        lookup(dir.path(), id).unwrap().unwrap().calls
    };
    assert_eq!(of("t33").len(), 1);
    assert_eq!(of("t33")[0][2], Field::Text("1000012026011511593300000033".into()));
    assert_eq!(of("t34"), Vec::<Vec<Field>>::new());
    assert_eq!(lookup(dir.path(), 1_000_000).unwrap(), None);
}

#[test]
fn changes_are_seen_across_months() {
    let dir = written(Identifiers::Plain);
    let mut seen = Vec::new();
    let filter = Filter { card: Some(card(4)), ..Filter::default() };
    changes(dir.path(), &filter, None, |change| {
        seen.push(change);
        ControlFlow::Continue(())
    })
    .unwrap();
    let text = |text: &str| Field::Text(text.into());
    assert_eq!(seen.len(), 1);
    assert_eq!(seen[0][..4], [text("14765000004"), text("msisdn"), text("00"), text("02")]);
    let mut all = 0;
    changes(dir.path(), &Filter::default(), None, |_| {
        all += 1;
        ControlFlow::Continue(())
    })
    .unwrap();
    assert_eq!(all, 10);
}

#[test]
fn statistics_add_up() {
    let dir = written(Identifiers::Plain);
    let days = stats(dir.path(), &Filter::default(), Bucket::Day).unwrap();
    assert_eq!(days.len(), 2);
    let BucketStats { begin, stats: first } = &days[0];
    assert_eq!(begin.to_string(), "2026-01-15T00:00:00.000+08:00");
    assert_eq!((first.lookups, first.calls, first.counted), (30, 10, 9));
    assert_eq!((first.outcome("hit"), first.outcome("miss"), first.saved()), (20, 10, 20));
    assert!((first.hit_percent() - 66.67).abs() < 0.01);
    assert_eq!(first.latency, LatencyPercentiles { p50: 114, p95: 128, p99: 129 });
    assert_eq!(first.codes.get("0"), Some(&30));
    let hours =
        stats(dir.path(), &Filter { until: Some(at(10)), ..Filter::default() }, Bucket::Hour).unwrap();
    assert_eq!(hours.iter().map(|hour| hour.stats.lookups).sum::<u64>(), 10);
    assert_eq!(hours.iter().map(|hour| hour.stats.counted).sum::<u64>(), 9);
}

#[test]
fn a_question_that_takes_too_long_is_stopped() {
    let dir = tempfile::tempdir().unwrap();
    let (clock, hand) = Clock::manual(NOON);
    let options = Options { queue: 10_000, ..Options::default() };
    let store = AuditStore::open(dir.path(), options, clock.clone()).unwrap();
    let rows: Vec<_> = (0..3_000).map(|n| store.append(row(NOON, &n.to_string()))).collect();
    assert!(rows.into_iter().all(|row| row.wait() == Ok(())));
    let filter = Filter { peer: Some("nobody".into()), ..Filter::default() };
    let deadline = Deadline { clock: clock.clone(), at: clock.monotonic() };
    assert_eq!(lookups(dir.path(), &filter, 1, Some(&deadline)), Ok(vec![]));
    hand.advance(Duration::from_secs(1));
    let error = lookups(dir.path(), &filter, 1, Some(&deadline)).unwrap_err();
    assert!(timed_out(&error), "{error}");
}

fn changes_of(groups: &AccountGroups) -> Answers<'_> {
    Answers { calls: Calls::Changes, groups, is_held: &|_| false }
}

#[test]
fn a_page_ends_before_an_answer_that_is_held_and_the_next_one_continues_there() {
    let dir = written(Identifiers::Plain);
    let groups = AccountGroups::from([("fleet-1".into(), "fleet".into())]);
    let page = |position, held_from: Option<Time>, known: &mut LastStatuses| {
        let is_held = |at| held_from.is_some_and(|from| at >= from);
        let answers = Answers { calls: Calls::Answers, groups: &groups, is_held: &is_held };
        events_after(dir.path(), position, 10_000, Some(answers), known).unwrap()
    };
    let whole = page(0, None, &mut LastStatuses::default());
    let of_status = |event: &&Event| matches!(event.kind, EventKind::Status(_));
    let answers: Vec<_> = whole.events.iter().filter(of_status).collect();
    assert!(answers.len() > 3);
    let mut known = LastStatuses::default();
    let (mut position, mut found) = (0, Vec::new());
    for held in [answers[0], answers[2], answers[2]] {
        let page = page(position, Some(held.at), &mut known);
        assert_eq!((page.through, page.is_last), (held.row - 1, true));
        position = page.through;
        found.extend(page.events);
    }
    // The same answers with the same STATUS before each, as if none had been held.
    found.extend(page(position, None, &mut known).events);
    assert_eq!(found, whole.events);
}

#[test]
fn changes_are_events_although_an_older_month_cannot_be_read() {
    let dir = written(Identifiers::Plain);
    let groups = AccountGroups::from([("fleet-1".into(), "fleet".into())]);
    let page = |position, known: &mut LastStatuses| {
        events_after(dir.path(), position, 10_000, Some(changes_of(&groups)), known).unwrap()
    };
    let cards = |page: &Page| -> Vec<String> {
        let of = |event: &Event| match &event.kind {
            EventKind::Status(change) => change.card.clone(),
            other => panic!("{other:?}"),
        };
        page.events.iter().map(of).collect()
    };
    // The last row of January. The earlier STATUS of the first two cards is there, that of the third in February.
    let position = page(0, &mut LastStatuses::default()).through;
    let all = ["14765000006", "14765000009", "14765000002"];
    assert_eq!(cards(&page(position, &mut LastStatuses::default())), all);
    let january = Month::of(NOON).path(dir.path());
    for end in ["-wal", "-shm"] {
        let mut path = january.as_os_str().to_owned();
        path.push(end);
        drop(std::fs::remove_file(path));
    }
    std::fs::write(january, "no database".repeat(1_000)).unwrap();
    assert_eq!(cards(&page(position, &mut LastStatuses::default())), all[2..]);
}
