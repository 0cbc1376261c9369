//! Puts a backup into an empty folder. Everything is checked before the first byte is written.
//!
//! The file `restore.unfinished` is in the folder until the restore has finished; the proxy does not start meanwhile. The
//! restored store differs from the backup in three respects, since a proxy used the original after the backup was made:
//! its transids start above all that can have been used ([`StateStore::start_above`]); a note `lost` makes the proxy
//! refuse client transids up to the time of the restore, which it may have answered; responses in `cache.db` are stale,
//! since a later purge may have removed them.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io;
use std::path::Path;
use std::time::Duration;

use super::manifest::{About, FORMAT, MANIFEST, Manifest, ManifestFile, Role};
use super::{MARGIN, check_room, file_name, hash, unfit};
use crate::clock::{Clock, Time};
use crate::config::token;
use crate::plain_file;
use crate::store::atomic_file::{self, AtomicFile, Existing};
use crate::store::audit::anchor::PublicKey;
use crate::store::audit::identity::IdentityKey;
use crate::store::audit::month::Month;
use crate::store::audit::{AuditReader, LOST, Loss, NoteRow, UNKNOWN, leave_note};
use crate::store::schema::{self, Kind, Synchronous};
use crate::store::state::{self, OnStateLoss, StateStore};
use crate::store::{Fault, START_OVER_MARGIN, StoreError, cache, folder, wal};

/// The kind of the note about a restore.
const RESTORED: &str = "restored";

/// Files that an empty folder may have: the lock, the token of the admin listener, a folder that the file system makes.
const IGNORED: [&str; 3] = [folder::LOCK, token::FILE, "lost+found"];

/// A finished restore.
#[derive(Debug)]
pub struct Restored {
    /// The content of the backup.
    pub manifest: Manifest,
    /// No carrier call will have a transid with an earlier stamp; in seconds since 1970.
    pub floor: u64,
    /// Client transids with stamps up to this time plus the widest `clock_skew` are refused until `audit acknowledge`.
    pub through: Time,
}

/// Restores the backup `from` into `dir`, which is created if needed. The Unix group `group` may read the audit. Transids
/// and refusals begin at the end of the copying, by `clock`, at the earliest at `about.now`. Blocks.
///
/// # Errors
/// Before anything is written: when the backup is incomplete, altered, newer than this program, made later than the
/// present time, or of another fleet; when `dir` is in use or not empty, or has keys of another fleet; when the disk has
/// too little space. Later: when a file cannot be written; the restore can then be run again.
pub fn restore(
    from: &Path,
    dir: &Path,
    group: Option<u32>,
    about: &About,
    clock: &Clock,
) -> Result<Restored, StoreError> {
    let manifest = read_manifest(from, about)?;
    if let Some(holder) = folder::holder(dir)? {
        return Err(StoreError::new(&dir.join(folder::LOCK), Fault::Locked { holder: holder.process }));
    }
    check_target(dir, &manifest)?;
    let mut needed = MARGIN;
    for file in &manifest.files {
        check_file(from, file)?;
        needed = needed.saturating_add(file.bytes);
    }
    let existing = dir.ancestors().find(|path| path.exists()).unwrap_or(Path::new("."));
    check_room(existing, needed)?;

    schema::create_folder(dir)?;
    folder::check_for_owner(dir)?;
    // Files that are created later inherit it.
    group.map_or(Ok(()), |group| folder::share_with_group(dir, group))?;
    let mode = if group.is_some() { 0o640 } else { 0o600 };
    let _lock = folder::lock(dir)?;
    let (lock, marker) = (dir.join(folder::LOCK), dir.join(folder::RESTORING));
    folder::give_to_owner(&lock)?;
    // A proxy may have started and stopped there while the backup was checked.
    let leftovers = check_target(dir, &manifest)?;
    atomic_file::write(&marker, b"run `cmiot-proxy restore` again\n", 0o600, Existing::Replace)
        .map_err(StoreError::io(&marker))?;
    for name in &leftovers {
        let path = dir.join(name);
        atomic_file::remove(&path).map_err(StoreError::io(&path))?;
    }
    for file in &manifest.files {
        copy(from, dir, file, mode)?;
    }
    // Large files take long: another proxy may still have used the original meanwhile.
    let now = clock.now().max(about.now);
    let floor = raise(dir, now, Time::from_micros(manifest.at))?;
    mark_stale(dir)?;
    let through = leave_notes(dir, &manifest, about, now)?;
    atomic_file::remove(&marker).map_err(StoreError::io(&marker))?;
    atomic_file::sync_folder(&marker).map_err(StoreError::io(dir))?;
    Ok(Restored { manifest, floor, through })
}

/// Reads the manifest and checks that this program and this configuration can restore the backup.
fn read_manifest(from: &Path, about: &About) -> Result<Manifest, StoreError> {
    const DAMAGED: &str = "use another backup";
    const OLDER: &str = "restore with the cmiot-proxy that made the backup, or a later one";
    let path = from.join(MANIFEST);
    let io = StoreError::io(&path);
    let text = plain_file::read_to_string(&path).map_err(io)?;
    let value: serde_json::Value = serde_json::from_str(&text).map_err(|error| io(error.into()))?;
    let version = value.get("version").and_then(serde_json::Value::as_str).unwrap_or_default();
    let format = value.get("format").and_then(serde_json::Value::as_u64);
    // Before the rest is read: a later format may have other fields.
    if format.is_some_and(|format| format > FORMAT.into()) || is_later(version, &about.version) {
        let own = &about.version;
        let why = format!("cmiot-proxy {version} made the backup, and this program is {own}, an older one");
        return Err(unfit(&path, &why, OLDER));
    }
    let manifest: Manifest = serde_json::from_value(value).map_err(|error| io(error.into()))?;
    let mut names = BTreeSet::new();
    for ManifestFile { name, schema, .. } in &manifest.files {
        let Some(role) = Role::of(name).filter(|_| names.insert(name.as_str())) else {
            let why = format!("it lists \"{}\", which is no file of a backup", name.escape_debug());
            return Err(unfit(&path, &why, DAMAGED));
        };
        if let (Role::Database(kind), &Some(version)) = (role, schema)
            && version > kind.known()
        {
            let known = kind.known();
            let why =
                format!("{name} has version {version}, and this program supports versions up to {known}");
            return Err(unfit(&path, &why, OLDER));
        }
    }
    if !names.contains(state::FILE) {
        return Err(unfit(&path, "it does not list state.db", DAMAGED));
    }
    if !manifest.accounts.is_empty() && !manifest.accounts.iter().any(|appid| about.accounts.contains(appid))
    {
        let (theirs, ours) = (manifest.accounts.join(", "), about.accounts.join(", "));
        let why = format!(
            "the backup belongs to another fleet: it has the accounts {theirs}, and the configuration has {ours}"
        );
        return Err(unfit(&path, &why, "name the backup or the configuration of the same accounts"));
    }
    let made = Time::from_micros(manifest.at);
    if about.now < made {
        let why = format!("the backup was made at {made}, and the clock of this machine shows {}", about.now);
        return Err(unfit(&path, &why, "set the clock: transids must continue above all that were used"));
    }
    Ok(manifest)
}

/// Whether version `one` is later than `other`: three numbers, without their suffix.
fn is_later(one: &str, other: &str) -> bool {
    let numbers = |version: &str| {
        let release = version.split(['-', '+']).next().unwrap_or_default();
        release.split('.').map(|number| number.parse::<u64>().unwrap_or(0)).collect::<Vec<_>>()
    };
    numbers(one) > numbers(other)
}

/// Checks that the folder is empty, apart from keys of the same fleet, or has what an unfinished restore left. Returns the
/// names of the files to remove.
fn check_target(dir: &Path, manifest: &Manifest) -> Result<Vec<String>, StoreError> {
    const EMPTY: &str =
        "restore into an empty folder: move the files away, and keep them until the proxy serves";
    let io = StoreError::io(dir);
    let entries = match fs::read_dir(dir) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        entries => entries.map_err(io)?,
    };
    let names: Vec<String> =
        entries.map(|entry| Ok(file_name(&entry?.path()))).collect::<io::Result<_>>().map_err(io)?;
    let is_unfinished = names.iter().any(|name| name == folder::RESTORING);
    let mut leftovers = Vec::new();
    for name in names {
        let stem = ["-journal", "-wal", "-shm", ".part"].iter().find_map(|end| name.strip_suffix(end));
        match Role::of(stem.unwrap_or(&name)) {
            Some(role) if role.is_key() && stem.is_none() => check_key(dir, &name, role, manifest)?,
            Some(_) if is_unfinished => leftovers.push(name),
            None if IGNORED.contains(&name.as_str()) || name == folder::RESTORING => {}
            // Left by a process that was killed while it wrote the marker, which replaces it.
            None if name.strip_suffix(".part") == Some(folder::RESTORING) => {}
            _ => return Err(unfit(dir, &format!("the folder is not empty: it contains {name}"), EMPTY)),
        }
    }
    Ok(leftovers)
}

/// Refuses a key in the folder that is not the one of the backup.
fn check_key(dir: &Path, name: &str, role: Role, manifest: &Manifest) -> Result<(), StoreError> {
    let (found, expected) = match role {
        Role::IdentityKey(month) => (
            IdentityKey::read(dir, month)?.map(|key| key.id().to_owned()),
            manifest.identity_keys.get(&month.to_string()),
        ),
        _ => (PublicKey::of_private(dir)?.map(|key| key.to_string()), manifest.anchor_key.as_ref()),
    };
    if found.is_some() && found.as_ref() == expected {
        return Ok(());
    }
    let why = "the backup belongs to another key: this one is of another fleet";
    Err(unfit(
        &dir.join(name),
        why,
        "put the key of the proxy that was backed up there, or move this one away",
    ))
}

/// Compares a file with its hash.
fn check_file(from: &Path, file: &ManifestFile) -> Result<(), StoreError> {
    let path = from.join(&file.name);
    let opened = File::open(&path).map_err(StoreError::io(&path))?;
    if hash(&path, opened)? == (file.bytes, file.sha256.clone()) {
        return Ok(());
    }
    Err(unfit(&path, "it differs from the manifest of the backup", "use another copy of the backup"))
}

/// Copies a file under a temporary name, compares it with its hash again, and renames it.
fn copy(from: &Path, dir: &Path, file: &ManifestFile, mode: u32) -> Result<(), StoreError> {
    let (source, target) = (from.join(&file.name), dir.join(&file.name));
    let role = Role::of(&file.name);
    if role.is_some_and(Role::is_key) && target.exists() {
        return Ok(()); // The same key, as was checked.
    }
    let is_for_auditors = matches!(role, Some(Role::Evidence | Role::Database(Kind::Audit)));
    let io = StoreError::io(&target);
    let written = AtomicFile::create(&target, if is_for_auditors { mode } else { 0o600 }).map_err(io)?;
    written.for_owner_of_folder().map_err(io)?;
    let mut opened = File::open(&source).map_err(StoreError::io(&source))?;
    io::copy(&mut opened, &mut written.file()).map_err(io)?;
    let copied = File::open(written.part()).map_err(io)?;
    if hash(&target, copied)? != (file.bytes, file.sha256.clone()) {
        return Err(unfit(&source, "it changed while it was copied", "run the restore again"));
    }
    written.finish(Existing::Replace).map_err(io)
}

/// Starts the transids above those of the audit, and above those of every process whose clock was not ahead of this one.
fn raise(dir: &Path, now: Time, made: Time) -> Result<u64, StoreError> {
    let audited = AuditReader::new(dir).highest_carrier_stamp()?.map_or(0, cmiot_signer::Stamp::to_unix);
    let state = StateStore::open(dir, OnStateLoss::Refuse)?;
    let age = now.as_secs().saturating_sub(made.as_secs());
    let floor = now.as_secs().saturating_add(START_OVER_MARGIN.as_secs());
    let floor = state.start_above(floor.max(audited.saturating_add(1).saturating_add(age)), age)?;
    state.close();
    Ok(floor)
}

/// Marks all responses stale: one that was purged after the backup must not be fresh again.
fn mark_stale(dir: &Path) -> Result<(), StoreError> {
    let path = dir.join(cache::FILE);
    if !schema::exists(&path)? {
        return Ok(());
    }
    let connection = schema::open(&path, Kind::Cache, Synchronous::Full)?;
    connection.execute("UPDATE answer SET stale = 1", []).map_err(StoreError::sqlite(&path))?;
    wal::finish(&connection, &path);
    Ok(())
}

/// Leaves the notes about the restore. Returns the time up to which requests may have been answered without a record.
fn leave_notes(dir: &Path, manifest: &Manifest, about: &About, now: Time) -> Result<Time, StoreError> {
    let head = manifest.head.as_ref();
    let month = head.and_then(|head| Month::parse(&head.segment)).unwrap_or(Month::of(now));
    let first = head.map_or(1, |head| head.last.saturating_add(1));
    // Its text has milliseconds, which must not end before the restore.
    let through = now.plus(Duration::from_millis(1));
    let loss = Loss { month, first, last: UNKNOWN, through };
    let detail = format!("{} selection={} version={}", about.by, manifest.time, manifest.version);
    leave_note(dir, &NoteRow { at: now, what: RESTORED, detail })?;
    leave_note(dir, &NoteRow { at: through, what: LOST, detail: loss.to_string() })?;
    Ok(through)
}
