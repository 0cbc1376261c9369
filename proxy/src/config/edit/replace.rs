//! Replaces the text of a file and keeps its owner, group, mode and extended attributes (access lists, labels), so that
//! every user that could read it still can. A symbolic link stays, and its target is replaced.

use std::ffi::CStr;
use std::fs::{self, File, OpenOptions, Permissions};
use std::io::{self, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt, PermissionsExt, fchown};
use std::path::{Path, PathBuf};

use super::super::error::{self, ConfigError};
use crate::language::text;

/// The longest extended attribute that is copied, and the longest list of their names, in bytes.
const LONGEST_ATTRIBUTE: usize = 64 << 10;

/// A new text that is written and not in effect yet. Dropped before [`Replacement::commit`], it leaves nothing.
pub(super) struct Replacement {
    /// The file that is written.
    part: PathBuf,
    /// The file that it will replace, which is not a link.
    target: PathBuf,
}

impl Replacement {
    /// Writes it next to the file that it will replace, under a name with the same extension.
    pub(super) fn write(path: &Path, text: &str) -> Result<Self, ConfigError> {
        let target =
            fs::canonicalize(path).map_err(|e| ConfigError::of_file(path, error::cannot_be_read(&e)))?;
        let extension = path.extension().and_then(|extension| extension.to_str()).unwrap_or("new");
        let new = Self { part: target.with_extension(format!("{}.{extension}", std::process::id())), target };
        let wrong = |e: io::Error| ConfigError::of_file(&new.part, error::cannot_be_written(&e));
        let _ = fs::remove_file(&new.part); // of a killed process that had our id
        let mut file =
            OpenOptions::new().write(true).create_new(true).mode(0o600).open(&new.part).map_err(wrong)?;
        file.write_all(text.as_bytes()).map_err(wrong)?;
        new.take_over(&file)?;
        file.sync_all().map_err(wrong)?;
        Ok(new)
    }

    /// Its path until it is committed.
    pub(super) fn path(&self) -> &Path {
        &self.part
    }

    /// Puts it in place of the old one.
    pub(super) fn commit(self) -> Result<(), ConfigError> {
        let put = fs::rename(&self.part, &self.target).and_then(|()| match self.target.parent() {
            Some(folder) => File::open(folder)?.sync_all(),
            None => Ok(()),
        });
        put.map_err(|e| ConfigError::of_file(&self.target, text!("cannot be replaced: {e}", "无法替换：{e}")))
    }

    /// Gives it what the old one has: owner and group first, since a change of them clears bits of the mode.
    fn take_over(&self, file: &File) -> Result<(), ConfigError> {
        let wrong = |e: io::Error| {
            let problem =
                text!("its owner, group and mode cannot be kept: {e}", "无法保留它的所有者、组和权限：{e}");
            ConfigError::of_file(&self.target, problem)
                .remedy(text!("do this as root, or as the owner of the file", "请以 root 或文件的所有者执行"))
        };
        let (old, new) = (fs::metadata(&self.target).map_err(wrong)?, file.metadata().map_err(wrong)?);
        if (old.uid(), old.gid()) != (new.uid(), new.gid()) {
            fchown(file, Some(old.uid()), Some(old.gid())).map_err(wrong)?;
        }
        file.set_permissions(Permissions::from_mode(old.mode() & 0o7777)).map_err(wrong)?;
        // A file system without them, or one that refuses a label, is no reason to leave a client unrevoked.
        let _: io::Result<()> = copy_attributes(&self.target, file);
        Ok(())
    }
}

impl Drop for Replacement {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.part); // not there any more when it was put in place
    }
}

fn copy_attributes(from: &Path, to: &File) -> io::Result<()> {
    let from = File::open(from)?;
    let mut names = vec![0; LONGEST_ATTRIBUTE];
    let length = rustix::fs::flistxattr(&from, &mut names)?;
    let mut value = vec![0; LONGEST_ATTRIBUTE];
    for name in names[..length].split_inclusive(|&byte| byte == 0) {
        let Ok(name) = CStr::from_bytes_with_nul(name) else { continue };
        if let Ok(length) = rustix::fs::fgetxattr(&from, name, &mut value[..]) {
            let _ = rustix::fs::fsetxattr(to, name, &value[..length], rustix::fs::XattrFlags::empty());
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mode_group_and_link_stay_and_nothing_is_left_beside() {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir(dir.path().join("shared")).unwrap();
        let target = dir.path().join("shared/list.csv");
        let link = dir.path().join("clients.csv");
        fs::write(&target, "old").unwrap();
        fs::set_permissions(&target, Permissions::from_mode(0o640)).unwrap();
        // Root's tests give it to another group; as any other user the group is one's own.
        let _ = std::os::unix::fs::chown(&target, Some(65_534), Some(65_534));
        std::os::unix::fs::symlink("shared/list.csv", &link).unwrap();
        let before = fs::metadata(&target).unwrap();
        drop(Replacement::write(&link, "dropped").unwrap());
        assert_eq!(fs::read_to_string(&target).unwrap(), "old");
        Replacement::write(&link, "new").unwrap().commit().unwrap();
        let after = fs::metadata(&target).unwrap();
        assert!(fs::symlink_metadata(&link).unwrap().is_symlink());
        assert_eq!(fs::read_to_string(&target).unwrap(), "new");
        assert_eq!((after.mode(), after.uid(), after.gid()), (before.mode(), before.uid(), before.gid()));
        assert_ne!(after.ino(), before.ino(), "replaced in one step, not rewritten");
        assert_eq!(fs::read_dir(dir.path().join("shared")).unwrap().count(), 1);
    }
}
