//! The store's folder: its owner, the process that uses it, and the group that may read the audit.
//!
//! The process that uses the folder locks `store.lock` (flock(2)) and writes its id into it and, for the commands that run
//! at the same time, the address of its admin listener on a second line, and that of the gateways' on a third.

use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{self, Read, Seek, Write};
use std::os::unix::fs::{FileTypeExt, MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::Path;
use std::time::Duration;

use super::{Fault, StoreError};

pub(super) const LOCK: &str = "store.lock";

/// A command that checks whether a process uses the folder holds a shared lock for a moment. So the lock is attempted this
/// many times, with this delay in between, before the folder counts as in use.
const LOCK_ATTEMPTS: u32 = 10;
const LOCK_RETRY_DELAY: Duration = Duration::from_millis(20);

/// The systemd settings with which the packaged unit can use `[audit] audit_group`.
const DROP_IN: &str = "packaging/cmiot-proxy.service.d/audit-group.conf";

/// Refuses a folder that belongs to another user, that every user can write to, or that has a symbolic link in it: each
/// would let another user choose which files this process overwrites. Refuses FIFOs and devices, too. A folder of the superuser counts as the own one.
pub(super) fn check(dir: &Path) -> Result<(), StoreError> {
    let found = fs::metadata(dir).map_err(StoreError::io(dir))?;
    let own = rustix::process::geteuid().as_raw();
    if found.uid() != own && found.uid() != 0 {
        return Err(StoreError::new(dir, Fault::OthersFolder { owner: found.uid(), own }));
    }
    check_entries(dir)
}

/// Does the same for a command whose files belong to the owner of the folder, whom the superuser may not be.
pub(super) fn check_for_owner(dir: &Path) -> Result<(), StoreError> {
    if rustix::process::geteuid().is_root() { check_entries(dir) } else { check(dir) }
}

fn check_entries(dir: &Path) -> Result<(), StoreError> {
    let found = fs::metadata(dir).map_err(StoreError::io(dir))?;
    if found.mode() & 0o002 != 0 {
        return Err(StoreError::new(dir, Fault::Writable { mode: found.mode() & 0o7777 }));
    }
    for entry in fs::read_dir(dir).map_err(StoreError::io(dir))? {
        let entry = entry.map_err(StoreError::io(dir))?;
        let Ok(kind) = entry.file_type() else { continue };
        if kind.is_symlink() {
            return Err(StoreError::new(&entry.path(), Fault::Link));
        }
        // A socket may be that of the admin listener, and cannot be opened as a file.
        if kind.is_fifo() || kind.is_char_device() || kind.is_block_device() {
            return Err(StoreError::new(&entry.path(), Fault::NotPlain));
        }
    }
    Ok(())
}

/// Refuses a key that every user of the machine can read.
pub(super) fn check_key(path: &Path) -> Result<(), StoreError> {
    match fs::metadata(path) {
        Ok(found) if found.mode() & 0o007 != 0 => {
            Err(StoreError::new(path, Fault::Readable { mode: found.mode() & 0o7777 }))
        }
        _ => Ok(()),
    }
}

/// Gives the group access to the folder and to the files that are created in it: by the folder's set-group-ID bit, unless
/// files of this process belong to the group anyway. A failure is logged with its remedy and is not an error: the group can
/// then read less than it should, and lookups are answered.
pub(super) fn share_with_group(dir: &Path, group: u32) -> Result<(), StoreError> {
    let io = StoreError::io(dir);
    let found = fs::metadata(dir).map_err(io)?;
    let set = || {
        if found.gid() != group {
            std::os::unix::fs::chown(dir, None, Some(group))?;
        }
        let inherits = found.mode() & 0o2000 != 0 || rustix::process::getegid().as_raw() == group;
        if found.gid() != group || found.mode() & 0o050 != 0o050 || !inherits {
            fs::set_permissions(dir, fs::Permissions::from_mode(0o2750))?;
        }
        Ok(())
    };
    set().or_else(|error| {
        cannot_share(dir, &error);
        Ok(())
    })
}

/// Gives a file to the group, unless it belongs to it.
pub(super) fn give_to_group(file: &File, path: &Path, group: u32) -> Result<(), StoreError> {
    if file.metadata().map_err(StoreError::io(path))?.gid() != group
        && let Err(error) = std::os::unix::fs::fchown(file, None, Some(group))
    {
        cannot_share(path, &error);
    }
    Ok(())
}

fn cannot_share(path: &Path, error: &io::Error) {
    tracing::warn!(
        file = %path.display(), %error,
        "cannot give this to [audit] audit_group: under systemd install {DROP_IN}, elsewhere add the process's user to the group"
    );
}

/// Locks the folder for this process.
pub(super) fn lock(dir: &Path) -> Result<File, StoreError> {
    let path = &dir.join(LOCK);
    let io = StoreError::io(path);
    let mut file = OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .mode(0o600)
        .open(path)
        .map_err(io)?;
    for _ in 1..LOCK_ATTEMPTS {
        if !matches!(file.try_lock(), Err(TryLockError::WouldBlock)) {
            break;
        }
        std::thread::sleep(LOCK_RETRY_DELAY);
    }
    match file.try_lock() {
        Ok(()) => {
            file.set_len(0).map_err(io)?;
            write!(file, "{}", std::process::id()).map_err(io)?;
            Ok(file)
        }
        Err(TryLockError::Error(error)) => Err(io(error)),
        Err(TryLockError::WouldBlock) => {
            Err(StoreError::new(path, Fault::Locked { holder: read(&mut file).process }))
        }
    }
}

/// Gives a file to the owner of its folder when the superuser runs this, so that the proxy can use it.
pub(super) fn give_to_owner(path: &Path) -> Result<(), StoreError> {
    let give = || match path.parent().filter(|_| rustix::process::geteuid().is_root()) {
        Some(folder) => std::os::unix::fs::chown(path, Some(fs::metadata(folder)?.uid()), None),
        None => Ok(()),
    };
    give().map_err(StoreError::io(path))
}

/// Whether no process has ever used the folder: it is a copy of one.
pub(super) fn is_copy(dir: &Path) -> bool {
    !dir.join(LOCK).exists()
}

/// The file in a folder while a backup is restored into it.
pub(super) const RESTORING: &str = "restore.unfinished";

/// Refuses a folder in which the restore of a backup did not finish.
pub(super) fn check_restored(dir: &Path) -> Result<(), StoreError> {
    let path = dir.join(RESTORING);
    match path.exists() {
        true => Err(StoreError::new(
            &path,
            Fault::Unable {
                why: "the restore of a backup into this folder did not finish",
                remedy: "run `cmiot-proxy restore` again",
            },
        )),
        false => Ok(()),
    }
}

/// Writes the address of the admin listener into the lock file.
pub(super) fn announce(mut lock: &File, admin: &str, gateway: &str) -> io::Result<()> {
    lock.set_len(0)?;
    lock.rewind()?;
    write!(lock, "{}\n{admin}\n{gateway}", std::process::id())
}

/// The process that uses a folder, as its lock file describes it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Holder {
    /// The process id.
    pub process: String,
    /// The address of its admin listener; none while it starts.
    pub admin: Option<String>,
    /// The address of its gateways' listener; none while it starts.
    pub gateway: Option<String>,
}

/// The process that uses a folder now, if there is one.
///
/// # Errors
/// When the lock cannot be checked.
pub fn holder(dir: &Path) -> Result<Option<Holder>, StoreError> {
    let path = &dir.join(LOCK);
    let mut file = match File::open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(StoreError::io(path)(error)),
    };
    match file.try_lock_shared() {
        Ok(()) => Ok(None),
        Err(TryLockError::Error(error)) => Err(StoreError::io(path)(error)),
        Err(TryLockError::WouldBlock) => Ok(Some(read(&mut file))),
    }
}

fn read(file: &mut File) -> Holder {
    let mut text = String::new();
    // The text is information for the operator; the lock alone decides.
    let _: io::Result<usize> = file.rewind().and_then(|()| file.read_to_string(&mut text));
    let mut lines = text.lines().filter(|line| !line.is_empty());
    Holder {
        process: lines.next().unwrap_or("(unknown)").to_owned(),
        admin: lines.next().map(str::to_owned),
        gateway: lines.next().map(str::to_owned),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_folder_that_others_can_write_or_that_holds_a_link_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let mode = |bits| fs::set_permissions(dir.path(), fs::Permissions::from_mode(bits)).unwrap();
        for (bits, fits) in [(0o700, true), (0o750, true), (0o2750, true), (0o777, false), (0o1777, false)] {
            mode(bits);
            assert_eq!(check(dir.path()).is_ok(), fits, "{bits:o}");
        }
        mode(0o700);
        let victim = dir.path().join("victim");
        fs::write(&victim, "precious").unwrap();
        for name in ["audit-anchor.pub", "store.lock", "state.db", "anything"] {
            std::os::unix::fs::symlink(&victim, dir.path().join(name)).unwrap();
            let error = check(dir.path()).unwrap_err();
            assert!(error.file().ends_with(name) && *error.fault() == Fault::Link, "{error}");
            fs::remove_file(dir.path().join(name)).unwrap();
        }
        assert_eq!(check(dir.path()), Ok(()));
    }

    #[test]
    fn a_folder_of_another_user_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        // Only the superuser can create such a folder; other users compare with a folder of the superuser.
        if std::os::unix::fs::chown(dir.path(), Some(65_534), None).is_ok() {
            let error = check(dir.path()).unwrap_err();
            assert_eq!(*error.fault(), Fault::OthersFolder { owner: 65_534, own: 0 });
            assert!(error.to_string().contains("chown"), "{error}");
        } else {
            assert_eq!(check(Path::new("/")), Ok(()));
        }
    }

    #[test]
    fn a_key_that_others_can_read_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let key = dir.path().join("a.key");
        assert_eq!(check_key(&key), Ok(()), "no such file");
        fs::write(&key, "").unwrap();
        for (bits, fits) in [(0o600, true), (0o640, true), (0o644, false), (0o602, false)] {
            fs::set_permissions(&key, fs::Permissions::from_mode(bits)).unwrap();
            assert_eq!(check_key(&key).is_ok(), fits, "{bits:o}");
        }
    }

    #[test]
    fn the_lock_names_the_process_that_uses_a_folder() {
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(holder(dir.path()), Ok(None));
        let taken = lock(dir.path()).unwrap();
        let found = holder(dir.path()).unwrap().unwrap();
        assert_eq!(found, Holder { process: std::process::id().to_string(), admin: None, gateway: None });
        announce(&taken, "http://127.0.0.1:8081", "unix:/run/gateway.sock").unwrap();
        let found = holder(dir.path()).unwrap().unwrap();
        assert_eq!(found.admin.as_deref(), Some("http://127.0.0.1:8081"));
        assert_eq!(found.gateway.as_deref(), Some("unix:/run/gateway.sock"));
        assert!(lock(dir.path()).unwrap_err().to_string().contains("in use by process"));
        drop(taken);
        assert_eq!(holder(dir.path()), Ok(None), "the text of a process that has ended does not count");
    }

    #[test]
    fn a_group_and_a_mode_that_are_right_are_left_alone() {
        let dir = tempfile::tempdir().unwrap();
        let own = rustix::process::getegid().as_raw();
        fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o750)).unwrap();
        let gid = fs::metadata(dir.path()).unwrap().gid();
        share_with_group(dir.path(), gid).unwrap();
        let mode = fs::metadata(dir.path()).unwrap().mode() & 0o7777;
        assert_eq!(mode, if gid == own { 0o750 } else { 0o2750 });
        fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o700)).unwrap();
        share_with_group(dir.path(), gid).unwrap();
        assert_eq!(fs::metadata(dir.path()).unwrap().mode() & 0o7777, 0o2750);
    }

    #[test]
    fn a_fifo_in_the_folder_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        assert!(check(dir.path()).is_ok());
        let made = std::process::Command::new("mkfifo").arg(dir.path().join("anchors.log")).status();
        assert!(made.unwrap().success());
        let error = check(dir.path()).unwrap_err();
        assert!(error.file().ends_with("anchors.log") && *error.fault() == Fault::NotPlain, "{error}");
    }
}
