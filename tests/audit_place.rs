//! A segment that is removed, renamed or replaced while it is written: noticed, and begun anew with a note.

use std::path::Path;

use rusqlite::{Connection, OpenFlags, OptionalExtension};

use crate::support::{Proxy, Setup, card_number, carrier, until};

const TAILS: [&str; 3] = ["", "-wal", "-shm"];

fn with(path: &Path, tail: &str) -> String {
    format!("{}{tail}", path.display())
}

/// The number and text of the note that a segment was lost.
fn note(path: &Path) -> Option<(i64, String)> {
    let segment = Connection::open_with_flags(path, OpenFlags::SQLITE_OPEN_READ_ONLY).ok()?;
    segment
        .query_row(
            "SELECT note.id, detail FROM note JOIN name ON name.id = what WHERE text = 'segment-lost'",
            [],
            |row| Ok((row.get(0)?, row.get(1)?)),
        )
        .optional()
        .ok()?
}

/// The numbers of all records of a file.
fn numbers(path: &Path) -> Vec<i64> {
    let segment = Connection::open_with_flags(path, OpenFlags::SQLITE_OPEN_READ_ONLY).expect("a segment");
    let mut numbers = segment.prepare("SELECT id FROM record ORDER BY id").expect("a table");
    numbers.query_map([], |row| row.get(0)).expect("rows").map(|row| row.expect("a number")).collect()
}

/// Does something to a segment with records, without anybody asking; a new one follows it, and goes on.
async fn is_begun_anew(harm: impl Fn(&Path)) -> Proxy {
    let carrier = carrier().await;
    let mut proxy = Setup::before(&carrier).start().await;
    for n in 0..5 {
        proxy.ask(&card_number(n)).await.is_normal();
    }
    let path = proxy.audit_file();
    let last = *numbers(&path).last().expect("records");
    harm(&path);
    let (first, text) = until("the note", || async { note(&path) }).await;
    assert_eq!(first, last + 1, "numbers go on");
    assert!(text.contains(&format!("after row {last}")), "{text}");
    assert!(proxy.log().contains("was removed, renamed or replaced"), "{}", proxy.log());
    until("to be ready", || async { (proxy.admin("/ready", "").await.status == 200).then_some(()) }).await;
    proxy.ask(&card_number(7)).await.is_normal();
    crate::audit_faults::verified(&proxy.data()).await;
    let before = numbers(&path);
    proxy.restart().await;
    assert_eq!(numbers(&path), before, "what is written afterwards lasts");
    crate::audit_faults::verified(&proxy.data()).await;
    proxy
}

#[tokio::test]
async fn removed() {
    is_begun_anew(|path| {
        for tail in TAILS {
            std::fs::remove_file(with(path, tail)).unwrap();
        }
    })
    .await;
}

#[tokio::test]
async fn renamed_and_whole_under_its_new_name() {
    let proxy = is_begun_anew(|path| {
        for tail in TAILS {
            std::fs::rename(with(path, tail), with(&path.with_file_name("away.db"), tail)).unwrap();
        }
    })
    .await;
    assert_eq!(numbers(&proxy.data().join("away.db")).len(), 5);
}

#[tokio::test]
async fn its_database_alone_renamed() {
    let proxy = is_begun_anew(|path| std::fs::rename(path, path.with_file_name("away.db")).unwrap()).await;
    assert_eq!(numbers(&proxy.data().join("away.db")).len(), 5, "its WAL was moved into it");
}

#[tokio::test]
async fn replaced_by_an_older_copy_which_is_kept() {
    let proxy = is_begun_anew(|path| {
        let copy = path.with_file_name("copy");
        std::fs::copy(path, &copy).unwrap();
        std::fs::rename(copy, path).unwrap();
    })
    .await;
    let kept = format!("{}.lost-1", proxy.audit_file().display());
    assert!(Path::new(&kept).exists());
}

#[tokio::test]
async fn a_removed_wal_loses_nothing_and_a_hard_link_is_not_noticed() {
    let carrier = carrier().await;
    let proxy = Setup::before(&carrier).start().await;
    for n in 0..5 {
        proxy.ask(&card_number(n)).await.is_normal();
    }
    let path = proxy.audit_file();
    std::fs::hard_link(&path, path.with_file_name("backup")).unwrap();
    for tail in ["-wal", "-shm"] {
        std::fs::remove_file(with(&path, tail)).unwrap();
    }
    until("a new WAL", || async { Path::new(&with(&path, "-wal")).exists().then_some(()) }).await;
    proxy.ask(&card_number(7)).await.is_normal();
    assert_eq!(numbers(&path).len(), 6);
    assert_eq!(note(&path), None, "the segment has all of its rows");
    crate::audit_faults::verified(&proxy.data()).await;
}
