//! Backup of a whole store while a proxy serves; [`restore`] puts it back.
//!
//! A backup is a folder of copies and a [`Manifest`] of their hashes. It is written under a temporary name (`DIR.part`),
//! synced and renamed, so that it is whole or absent. The order of the copies makes it a state that a restart can meet:
//! anchors before the segments that hold their rows, and leased transids before the rows of their calls.

mod manifest;
mod restore;

use std::collections::BTreeMap;
use std::fs::{self, DirBuilder, File, OpenOptions, TryLockError};
use std::io::{self, Read, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use ring::digest::{Context, SHA256};
use rustix::fs::statvfs;

pub use self::manifest::{About, Manifest, ManifestFile, ManifestHead};
use self::manifest::{FORMAT, MANIFEST, Role};
pub use self::restore::{Restored, restore};
use super::audit::anchor::{self, PublicKey};
use super::audit::identity::IdentityKey;
use super::audit::month;
use super::audit::retention::note_act;
use super::audit::{chain_head, is_note};
use super::schema::{self, Kind};
use super::{Fault, StoreError, atomic_file, cache, key_file, state};

/// Free space that a copy leaves, in bytes.
const MARGIN: u64 = 16 << 20;

/// The kind of the note about a backup.
const BACKUP: &str = "backup";

/// A finished backup.
#[derive(Debug)]
pub struct BackedUp {
    /// Its content.
    pub manifest: Manifest,
    /// The reason for which `cache.db` is not in it. Only responses of the carrier are in that file.
    pub without_cache: Option<StoreError>,
    /// The reason for which the audit gets no note about it; none if it gets one.
    pub not_noted: Option<StoreError>,
}

/// Copies the store in `dir` into the new folder `to`, which gets its name when it is whole. The process that uses the
/// store continues. Leaves a note about it in `dir` for the audit. Blocks.
///
/// # Errors
/// When `to` exists and is not an empty folder, when it cannot be written or has too little space, or when a file of the
/// store cannot be read. Nothing is left under the final name then.
pub fn back_up(dir: &Path, to: &Path, about: &About, keys: bool) -> Result<BackedUp, StoreError> {
    fs::metadata(dir).map_err(StoreError::io(dir))?;
    let part = PartFolder::create(to)?;
    check_space(dir, &part.path)?;
    let mut copies = Copies { dir, to: &part.path, files: Vec::new() };
    copies.anchors()?;
    copies.plain(anchor::PUBLIC)?;
    copies.notes()?;
    copies.database(state::FILE, Kind::State)?;
    let without_cache = copies.cache()?;
    let mut identity_keys = BTreeMap::new();
    // After the anchors: each anchor's month is in the list.
    let months = month::list(dir)?;
    for &month in months.iter().rev() {
        copies.database(&file_name(&month.path(dir)), Kind::Audit)?;
        if let Some(key) = IdentityKey::read(dir, month)? {
            identity_keys.insert(month.to_string(), key.id().to_owned());
            if keys {
                copies.plain(&file_name(&IdentityKey::path(dir, month)))?;
            }
        }
    }
    if keys {
        copies.plain(anchor::KEY)?;
    }
    let head = months.first().map(|&newest| chain_head(&part.path, newest)).transpose()?.flatten();
    let manifest = Manifest {
        format: FORMAT,
        version: about.version.clone(),
        at: about.now.as_micros(),
        time: about.now.to_string(),
        accounts: about.accounts.clone(),
        node: about.node,
        anchor_key: PublicKey::of_folder(dir).ok().map(|key| key.to_string()),
        identity_keys,
        keys,
        head: months.first().zip(head).map(|(month, (last, head))| ManifestHead {
            segment: month.to_string(),
            last,
            head: head.to_string(),
        }),
        files: copies.files,
    };
    part.finish(&manifest)?;
    let keys = if keys { " keys" } else { "" };
    let detail = format!("{} selection={}{keys}", about.by, to.display());
    let not_noted = note_act(dir, BACKUP, detail, about.now).err();
    Ok(BackedUp { manifest, without_cache, not_noted })
}

/// The copies that were made so far.
struct Copies<'a> {
    dir: &'a Path,
    to: &'a Path,
    files: Vec<ManifestFile>,
}

impl Copies<'_> {
    /// Copies the state of a database at this moment.
    fn database(&mut self, name: &str, kind: Kind) -> Result<(), StoreError> {
        let (from, to) = (self.dir.join(name), self.to.join(name));
        let source = schema::open_read_only(&from, kind)?;
        let sqlite = StoreError::sqlite(&from);
        let version = source.pragma_query_value(None, "user_version", |row| row.get(0)).map_err(sqlite)?;
        // The copy is another database of this connection, which the pragma concerns too; this one is opened read-only.
        source.pragma_update(None, "query_only", false).map_err(sqlite)?;
        drop(create(&to)?);
        let path = to.to_str().ok_or_else(|| unfit(&to, "the name is not UTF-8", "name another folder"))?;
        let copied = source.execute("VACUUM INTO ?1", [path]);
        copied.map_err(|error| match fs::metadata(&from) {
            Ok(_) => StoreError::sqlite(&to)(error),
            Err(missing) => StoreError::io(&from)(missing),
        })?;
        self.add(name, Some(version))
    }

    /// Copies `cache.db`, unless it is missing or damaged, which ends no backup: the proxy creates it again.
    fn cache(&mut self) -> Result<Option<StoreError>, StoreError> {
        match self.database(cache::FILE, Kind::Cache) {
            Ok(()) => Ok(None),
            Err(error) if error.is_corrupt() || error.is_missing() => {
                let path = self.to.join(cache::FILE);
                atomic_file::remove(&path).map_err(StoreError::io(&path))?;
                Ok(Some(error))
            }
            Err(error) => Err(error),
        }
    }

    /// Copies a file that is replaced as a whole, if it exists.
    fn plain(&mut self, name: &str) -> Result<(), StoreError> {
        match fs::read(self.dir.join(name)) {
            Ok(bytes) => self.write(name, &zeroize::Zeroizing::new(bytes)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            Err(error) => Err(StoreError::io(&self.dir.join(name))(error)),
        }
    }

    /// Copies the whole lines of the anchors: the proxy may be writing the last one.
    fn anchors(&mut self) -> Result<(), StoreError> {
        match fs::read(self.dir.join(anchor::LOG)) {
            Ok(bytes) => {
                let whole = bytes.iter().rposition(|&byte| byte == b'\n').map_or(0, |last| last + 1);
                self.write(anchor::LOG, &bytes[..whole])
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            Err(error) => Err(StoreError::io(&self.dir.join(anchor::LOG))(error)),
        }
    }

    /// Copies notes that are not in the audit yet. An acknowledgement is not copied: after a restore it would end a later
    /// alarm.
    fn notes(&mut self) -> Result<(), StoreError> {
        let io = StoreError::io(self.dir);
        for entry in fs::read_dir(self.dir).map_err(io)? {
            let name = file_name(&entry.map_err(io)?.path());
            if is_note(&name) && !name.ends_with("-acknowledged") {
                self.plain(&name)?;
            }
        }
        Ok(())
    }

    fn write(&mut self, name: &str, bytes: &[u8]) -> Result<(), StoreError> {
        let path = self.to.join(name);
        create(&path)?.write_all(bytes).map_err(StoreError::io(&path))?;
        self.add(name, None)
    }

    /// Syncs a copy and adds it to the list.
    fn add(&mut self, name: &str, schema: Option<i64>) -> Result<(), StoreError> {
        let path = self.to.join(name);
        let file = File::open(&path).map_err(StoreError::io(&path))?;
        file.sync_all().map_err(StoreError::io(&path))?;
        let (bytes, sha256) = hash(&path, file)?;
        self.files.push(ManifestFile { name: name.to_owned(), bytes, sha256, schema });
        Ok(())
    }
}

/// A backup that is being made. Dropping it before [`PartFolder::finish`] removes it.
struct PartFolder {
    path: PathBuf,
    to: PathBuf,
    /// Distinguishes a folder in use from one that a killed process left.
    lock: File,
    is_finished: bool,
}

impl PartFolder {
    fn create(to: &Path) -> Result<Self, StoreError> {
        const ANOTHER: &str = "name a folder that does not exist yet, such as /mnt/backup/2026-01-15";
        let io = StoreError::io(to);
        if to.file_name().is_none() {
            return Err(unfit(to, "the path has no name of its own", ANOTHER));
        }
        match fs::read_dir(to) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(io(error)),
            Ok(mut entries) => {
                if entries.next().is_some() {
                    return Err(unfit(to, "the folder is not empty", ANOTHER));
                }
                // The finished folder is renamed to this name, which is not possible over a mount point.
                let device = |path: &Path| fs::metadata(path).map(|found| found.dev()).map_err(io);
                if device(to)? != device(&to.join(".."))? {
                    return Err(unfit(to, "the folder is a mount point", ANOTHER));
                }
            }
        }
        let path = to.with_added_extension("part");
        let made = DirBuilder::new().mode(0o700).create(&path);
        if made.as_ref().is_err_and(|error| error.kind() == io::ErrorKind::AlreadyExists) {
            remove_abandoned(&path)?;
            DirBuilder::new().mode(0o700).create(&path).map_err(StoreError::io(&path))?;
        } else {
            made.map_err(StoreError::io(&path))?;
        }
        let lock = lock_folder(&path)?;
        Ok(Self { path, to: to.to_owned(), lock, is_finished: false })
    }

    fn finish(mut self, manifest: &Manifest) -> Result<(), StoreError> {
        let path = self.path.join(MANIFEST);
        let io = StoreError::io(&path);
        let text = serde_json::to_string_pretty(manifest).map_err(|error| io(error.into()))?;
        let mut file = create(&path)?;
        file.write_all(format!("{text}\n").as_bytes()).and_then(|()| file.sync_all()).map_err(io)?;
        self.lock.sync_all().map_err(StoreError::io(&self.path))?;
        fs::rename(&self.path, &self.to).map_err(StoreError::io(&self.to))?;
        self.is_finished = true;
        atomic_file::sync_folder(&self.to).map_err(StoreError::io(&self.to))
    }
}

impl Drop for PartFolder {
    fn drop(&mut self) {
        if !self.is_finished {
            // The error that ended the backup is reported; the next run removes what is left.
            let _: Result<(), StoreError> = empty(&self.path);
        }
    }
}

fn lock_folder(path: &Path) -> Result<File, StoreError> {
    let folder = File::open(path).map_err(StoreError::io(path))?;
    match folder.try_lock() {
        Err(TryLockError::WouldBlock) => {
            Err(unfit(path, "another process writes it", "wait until it has finished"))
        }
        // A file system without such locks cannot distinguish an abandoned folder from another.
        _ => Ok(folder),
    }
}

/// Removes the folder that a killed process left. Only files that a backup has are removed.
fn remove_abandoned(path: &Path) -> Result<(), StoreError> {
    let found = fs::symlink_metadata(path).map_err(StoreError::io(path))?;
    if !found.is_dir() {
        return Err(unfit(path, "it exists and is not the folder of an unfinished backup", "remove it"));
    }
    let _lock = lock_folder(path)?;
    empty(path)
}

fn empty(path: &Path) -> Result<(), StoreError> {
    let io = StoreError::io(path);
    for entry in fs::read_dir(path).map_err(io)? {
        let name = file_name(&entry.map_err(io)?.path());
        let database = ["-journal", "-wal", "-shm"].iter().find_map(|suffix| name.strip_suffix(suffix));
        if name == MANIFEST || Role::of(database.unwrap_or(&name)).is_some() {
            fs::remove_file(path.join(&name)).map_err(io)?;
        }
    }
    fs::remove_dir(path).map_err(|error| {
        unfit(path, &format!("it has files of another origin ({error})"), "move it away, and run this again")
    })
}

/// Refuses a disk without room for copies of all files of the folder.
fn check_space(from: &Path, to: &Path) -> Result<(), StoreError> {
    let mut needed = MARGIN;
    let io = StoreError::io(from);
    for entry in fs::read_dir(from).map_err(io)? {
        let entry = entry.map_err(io)?;
        let name = file_name(&entry.path());
        // A WAL may hold pages that the database lacks.
        if Role::of(name.strip_suffix("-wal").unwrap_or(&name)).is_some() {
            needed = needed.saturating_add(entry.metadata().map_or(0, |found| found.len()));
        }
    }
    check_room(to, needed)
}

fn check_room(to: &Path, needed: u64) -> Result<(), StoreError> {
    let disk = statvfs(to).map_err(|error| StoreError::io(to)(error.into()))?;
    let free = disk.f_bavail.saturating_mul(disk.f_frsize);
    if free >= needed {
        return Ok(());
    }
    let text = format!("{} MiB free, and {} MiB are needed", free >> 20, needed.div_ceil(1 << 20));
    Err(StoreError::new(to, Fault::Io { kind: io::ErrorKind::StorageFull, text }))
}

fn create(path: &Path) -> Result<File, StoreError> {
    OpenOptions::new().write(true).create_new(true).mode(0o600).open(path).map_err(StoreError::io(path))
}

/// The length of a file and its hash in hex.
fn hash(path: &Path, mut file: impl Read) -> Result<(u64, String), StoreError> {
    let mut digest = Context::new(&SHA256);
    let mut buffer = vec![0; 1 << 16];
    let mut bytes = 0;
    loop {
        let read = file.read(&mut buffer).map_err(StoreError::io(path))?;
        if read == 0 {
            return Ok((bytes, key_file::hex(digest.finish().as_ref()).to_string()));
        }
        digest.update(&buffer[..read]);
        bytes += read as u64;
    }
}

/// The last part of a path; empty if it is not UTF-8, which no file of the store is.
fn file_name(path: &Path) -> String {
    path.file_name().and_then(|name| name.to_str()).unwrap_or_default().to_owned()
}

fn unfit(file: &Path, why: &str, remedy: &'static str) -> StoreError {
    StoreError::new(file, Fault::Unfit { why: why.to_owned(), remedy })
}

#[cfg(test)]
mod tests;
