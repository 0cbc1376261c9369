//! An ended segment whose rows a start still reads: it must be the one that the newest segment follows.

use super::*;
use crate::store::audit::Loss;
use crate::store::audit::evidence::lost;
use crate::store::audit::retention::prune;

const MONTH: Duration = Duration::from_secs(30 * 86_400);
const SECOND: Duration = Duration::from_secs(1);

fn losses(dir: &Path, since: Time) -> Vec<Loss> {
    AuditReader::new(dir).authenticated_since(since, |_| std::ops::ControlFlow::Continue(())).unwrap()
}

/// Two months, the first with three rows. Returns an older copy of the first, and a time in the second.
fn two_months(dir: &Path) -> (Vec<u8>, Time) {
    drop(settle(&mut writer(dir, NOON).0, vec![row(NOON, "a")]));
    let older = fs::read(Month::of(NOON).path(dir)).unwrap();
    let (mut writer, hand) = writer(dir, NOON.plus(SECOND));
    for (second, transid) in [(1, "b"), (2, "c")] {
        assert_eq!(settle(&mut writer, vec![row(NOON.plus(SECOND * second), transid)]), [Ok(())]);
    }
    hand.advance(MONTH);
    let now = writer.clock.now();
    assert_eq!(settle(&mut writer, vec![row(now, "d")]), [Ok(())]);
    (older, now)
}

/// Changes a segment as a user can who may write the file.
fn change(file: &Path, sql: &str) {
    let connection = Connection::open(file).unwrap();
    let triggers: Vec<String> = connection
        .prepare("SELECT name FROM sqlite_schema WHERE type = 'trigger'")
        .unwrap()
        .query_map([], |row| row.get(0))
        .unwrap()
        .map(Result::unwrap)
        .collect();
    triggers.iter().for_each(|name| connection.execute_batch(&format!("DROP TRIGGER {name}")).unwrap());
    connection.execute_batch(sql).unwrap();
}

#[test]
fn an_ended_segment_that_is_not_as_it_was_written_is_a_loss() {
    type Damaging = fn(&Path, &Path, &[u8]);
    let damages: [(&str, Damaging); 7] = [
        ("rolled back", |file, _, older| fs::write(file, older).unwrap()),
        ("another month's", |file, newest, _| assert!(fs::copy(newest, file).is_ok())),
        ("cut", |file, _, _| {
            change(file, "DELETE FROM record WHERE id > 2; DELETE FROM batch WHERE last > 2");
        }),
        ("cut rows", |file, _, _| change(file, "DELETE FROM record WHERE id = 3")),
        ("edited rows", |file, _, _| change(file, "UPDATE record SET transid = 'x' WHERE id = 3")),
        ("edited names", |file, _, _| change(file, "UPDATE name SET text = 'refused' WHERE text = 'hit'")),
        ("edited times", |file, _, _| {
            change(file, "UPDATE batch SET horizon = 1 WHERE last = 2");
        }),
    ];
    for (how, damage) in damages {
        let dir = tempfile::tempdir().unwrap();
        let (older, now) = two_months(dir.path());
        let (january, february) = (Month::of(NOON), Month::of(now));
        // The second row is the first in the window.
        let since = NOON.plus(SECOND);
        assert_eq!(losses(dir.path(), since), [], "{how}");
        damage(&january.path(dir.path()), &february.path(dir.path()), &older);
        let found = losses(dir.path(), since);
        let rows: Vec<_> = found.iter().map(|loss| (loss.month, loss.first, loss.last)).collect();
        assert_eq!(rows, [(january, 1, 3)], "{how}");
        assert_eq!(losses(dir.path(), now), [], "{how}: not in the window");
        // Stamps of its time are refused until the acknowledgement, and the alarm is raised.
        let through = AuditReader::new(dir.path()).note_unreadable(&found, now).unwrap();
        assert_eq!(through, Some(NOON.plus(SECOND * 2)), "{how}");
        let (mut later, hand) = writer(dir.path(), now.plus(SECOND));
        later.run_maintenance();
        assert!(later.shared.alarms.holds(Condition::RowsLost), "{how}");
        lost::acknowledge(dir.path(), "by=test", later.clock.now()).unwrap();
        hand.advance(SECOND);
        later.run_maintenance();
        drop(later);
        assert_eq!(AuditReader::new(dir.path()).note_unreadable(&found, now), Ok(None), "{how}");
    }
}

#[test]
fn an_ended_segment_that_is_removed_while_the_next_is_written_is_a_loss() {
    for (how, pruned) in [("removed", false), ("renamed", false), ("pruned", true), ("pruned, noted", true)] {
        let dir = tempfile::tempdir().unwrap();
        let (_, now) = two_months(dir.path());
        let (mut writer, hand) = writer(dir.path(), now.plus(SECOND));
        let check = |writer: &mut Writer| {
            hand.advance(SECOND);
            writer.check_path();
            writer.run_maintenance();
        };
        check(&mut writer);
        lost::acknowledge(dir.path(), "by=test", writer.clock.now()).unwrap();
        check(&mut writer);
        assert!(!writer.shared.alarms.holds(Condition::RowsLost), "{how}");
        let january = Month::of(NOON);
        let file = january.path(dir.path());
        match how {
            "removed" => fs::remove_file(&file).unwrap(),
            "renamed" => fs::rename(&file, dir.path().join("january.db")).unwrap(),
            "pruned" => prune(dir.path(), january, "by=test", now).unwrap(),
            // The note becomes a row before the file is deleted.
            _ => {
                notes::leave(dir.path(), &NoteRow { at: now, what: "pruned", detail: january.to_string() })
                    .unwrap();
                check(&mut writer);
                fs::remove_file(&file).unwrap();
            }
        }
        for _ in 0..2 {
            check(&mut writer);
            assert_eq!(writer.shared.alarms.holds(Condition::RowsLost), !pruned, "{how}");
            assert_eq!(writer.shared.lost(), None, "{how}: this process knows what was used");
        }
        let text = writer.shared.alarms.list().pop().map(|alarm| alarm.text).unwrap_or_default();
        assert_eq!(text.english.contains("2026-01 rows 1-3 through "), !pruned, "{how}: {text}");
        let at = writer.clock.now();
        assert_eq!(settle(&mut writer, vec![row(at, "e")]), [Ok(())]);
        drop(writer);
        let (later, _) = self::writer(dir.path(), now.plus(SECOND * 20));
        assert_eq!(later.shared.alarms.holds(Condition::RowsLost), !pruned, "{how}: after a start");
    }
}

#[test]
fn a_segment_that_was_missing_when_the_next_month_began_is_found_by_its_anchor() {
    let dir = tempfile::tempdir().unwrap();
    let (mut first, _) = writer(dir.path(), NOON);
    assert_eq!(settle(&mut first, vec![row(NOON, "a"), row(NOON, "b")]), [Ok(()); 2]);
    first.run_maintenance();
    drop(first);
    fs::remove_file(Month::of(NOON).path(dir.path())).unwrap();
    // As an earlier version did it: the month begins as if there were none before.
    let (anchors, hidden) = (dir.path().join("anchors.log"), dir.path().join("hidden"));
    fs::rename(&anchors, &hidden).unwrap();
    let february = NOON.plus(MONTH);
    drop(writer(dir.path(), february));
    fs::rename(&hidden, &anchors).unwrap();
    for _ in 0..2 {
        let (writer, _) = writer(dir.path(), february.plus(SECOND));
        assert_eq!(writer.shared.lost().map(|lost| lost.through), Some(NOON));
    }
    let ended = lost::acknowledge(dir.path(), "by=test", february.plus(SECOND * 2)).unwrap();
    assert!(ended.len() == 1 && ended[0].starts_with("2026-01 rows 1-2 "), "{ended:?}");
}
