//! Segments as earlier versions wrote them: see `tests/data/audit-1/README.md`.

use super::*;

/// A copy of the folder as a proxy of schema version 1 left it.
fn version_1() -> TempDir {
    let from = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/data/audit-1");
    let dir = tempfile::tempdir().unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        fs::copy(entry.path(), dir.path().join(entry.file_name())).unwrap();
    }
    dir
}

#[test]
fn ended_and_running_segments_of_version_1_verify_against_their_anchors() {
    let dir = version_1();
    let anchors = anchors(dir.path());
    let key = PublicKey::of_folder(dir.path()).unwrap();
    let scope = Scope { anchors: &anchors, public_keys: std::slice::from_ref(&key), ..Scope::default() };
    let report = verify(dir.path(), &scope, |_, _| {}).unwrap();
    assert_eq!(report.damage, []);
    assert_eq!((report.segments.len(), report.rows, report.anchors), (2, 70, 4));
    assert_eq!(report.confirmed.map(|(month, row)| (month.to_string(), row)), Some(("2026-02".into(), 70)));
}
