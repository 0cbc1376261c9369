//! No transid twice although a backup is restored, of which the state knows fewer transids than were used.

use super::*;
use crate::store::backup::{About, back_up, restore};

#[derive(Clone, Debug)]
enum Event {
    Use {
        other: bool,
        count: u32,
    },
    Restart,
    /// A whole lap, which takes longer than a lease runs ahead of the clock.
    Lap,
    Wait(u64),
    BackUp,
    Restore,
}

fn event() -> impl Strategy<Value = Event> {
    prop_oneof![
        5 => (any::<bool>(), 1_u32..30).prop_map(|(other, count)| Event::Use { other, count }),
        2 => Just(Event::Restart),
        1 => Just(Event::Lap),
        2 => (0_u64..200).prop_map(Event::Wait),
        2 => Just(Event::BackUp),
        2 => Just(Event::Restore),
    ]
}

fn about(clock: &Clock) -> About {
    About {
        version: "1.0.0".to_owned(),
        accounts: vec!["100001".to_owned()],
        node: 0,
        by: "by=test".to_owned(),
        now: clock.now(),
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, ..ProptestConfig::default() })]

    #[test]
    fn no_transid_is_used_twice_after_restores(
        events in prop::collection::vec(event(), 1..40),
        block in 1_u32..20,
    ) {
        let folders = tempfile::tempdir().unwrap();
        let folder = |number: usize| folders.path().join(number.to_string());
        let (clock, manual) = at_start();
        let (mut number, mut backup) = (0, None);
        fs::create_dir(folder(number)).unwrap();
        let open = |dir: &std::path::Path| {
            let state = state(dir);
            let source = source(&state, 0, &clock, block);
            (state, source)
        };
        let (mut store, mut transids) = open(&folder(0));
        let mut carriers = [Carrier::default(), Carrier::default()];
        // The second account may have no transid before the backup.
        let appids = [appid(), AppId::parse("100002").unwrap()];
        let mut uses = |transids: &TransidSource, other: bool, count: u32| {
            for _ in 0..count {
                carriers[usize::from(other)].take(&transids.next(&appids[usize::from(other)]).unwrap());
            }
        };
        for (step, event) in events.into_iter().enumerate() {
            match event {
                Event::Use { other, count } => uses(&transids, other, count),
                Event::Restart => {
                    let current = folder(number);
                    drop((store, transids));
                    (store, transids) = open(&current);
                }
                Event::Lap => {
                    manual.advance(Duration::from_secs(120));
                    skip_to_the_end(&store, 0, 2);
                }
                Event::Wait(seconds) => manual.advance(Duration::from_secs(seconds)),
                Event::BackUp => {
                    let to = folders.path().join(format!("backup-{step}"));
                    back_up(&folder(number), &to, &about(&clock), false).unwrap();
                    backup = Some(to);
                }
                Event::Restore => {
                    let Some(from) = &backup else { continue };
                    number += 1;
                    restore(from, &folder(number), None, &about(&clock), &clock).unwrap();
                    // As the command does: a second restore has another floor.
                    manual.advance(Duration::from_secs(1));
                    drop((store, transids));
                    (store, transids) = open(&folder(number));
                    uses(&transids, false, 1);
                    uses(&transids, true, 1);
                }
            }
        }
    }
}
