//! The `.tar.gz`, and the archives in other packages: files of root with the package's time, and their folders.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use anyhow::{Context, Result};
use tar::{Builder, EntryType, Header};

use super::contents::{Kind, gzip};
use super::{NAME, Package};
use crate::run::root;

/// A tar archive in memory.
pub(super) struct Tar {
    archive: Builder<Vec<u8>>,
    time: u64,
    folders: BTreeSet<String>,
}

impl Tar {
    pub(super) fn new(time: u64) -> Self {
        Self { archive: Builder::new(Vec::new()), time, folders: BTreeSet::new() }
    }

    /// Adds a file, after the folders above it.
    pub(super) fn file(&mut self, path: &str, mode: u32, content: &[u8]) -> Result<()> {
        let slashes: Vec<_> = path.match_indices('/').map(|(at, _)| at).collect();
        for at in slashes {
            self.folder(&path[..=at], 0o755, 0)?;
        }
        self.add(path, EntryType::Regular, mode, 0, content)
    }

    /// Adds a folder of this user, unless it is in the archive already. Its path ends in a slash.
    pub(super) fn folder(&mut self, path: &str, mode: u32, user: u64) -> Result<()> {
        if self.folders.insert(path.to_owned()) {
            self.add(path, EntryType::Directory, mode, user, &[])?;
        }
        Ok(())
    }

    fn add(&mut self, path: &str, kind: EntryType, mode: u32, user: u64, content: &[u8]) -> Result<()> {
        let mut header = Header::new_gnu();
        header.set_entry_type(kind);
        header.set_mode(mode);
        header.set_uid(user);
        header.set_gid(user);
        header.set_mtime(self.time);
        header.set_size(content.len() as u64);
        if user == 0 {
            header.set_username("root")?;
            header.set_groupname("root")?;
        }
        self.archive.append_data(&mut header, path, content).with_context(|| path.to_owned())
    }

    pub(super) fn finish(self) -> Result<Vec<u8>> {
        Ok(self.archive.into_inner()?)
    }
}

/// An archive of these files, in one folder.
///
/// # Errors
/// When it cannot be written.
pub(crate) fn plain(out: &Path, folder: &str, files: &[(&str, Vec<u8>)]) -> Result<()> {
    let mut tar = Tar::new(super::time()?);
    for (path, content) in files {
        tar.file(&format!("{folder}/{path}"), 0o644, content)?;
    }
    fs::write(out, gzip(&tar.finish()?)?).with_context(|| out.display().to_string())
}

/// One folder: the executable, the configuration, units, manual pages, completions, licences and documents.
pub(super) fn write(package: &Package, out: &Path) -> Result<()> {
    let folder = format!("{NAME}-{}-{}-linux", package.version, package.executable.arch.rpm());
    let mut tar = Tar::new(package.time);
    for file in &package.files {
        let name = file.path.rsplit('/').next().unwrap_or_default();
        let place = match file.kind {
            Kind::Program | Kind::Configuration | Kind::Licence => name.to_owned(),
            Kind::Unit if file.path.contains("/systemd/") => format!("systemd/{name}"),
            Kind::Unit if file.path.contains("/sysusers.d/") => format!("sysusers.d/{name}"),
            Kind::Unit => format!("tmpfiles.d/{name}"),
            Kind::Manual => format!("man/{name}"),
            Kind::Completion => format!("completions/{name}"),
            Kind::Documentation => match file.path.split_once("/examples/") {
                Some((_, example)) => format!("systemd/{NAME}.service.d/{example}"),
                None => file.path.split_once(&format!("/doc/{NAME}/")).context("a document")?.1.to_owned(),
            },
            Kind::Debian => continue,
        };
        tar.file(&format!("{folder}/{place}"), file.mode, &file.content)?;
    }
    let compose = root().join("packaging/compose.yaml");
    let compose = fs::read(&compose).with_context(|| compose.display().to_string())?;
    tar.file(&format!("{folder}/compose.yaml"), 0o644, &compose)?;
    fs::write(out, gzip(&tar.finish()?)?).with_context(|| out.display().to_string())
}
