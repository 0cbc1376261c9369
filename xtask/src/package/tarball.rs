//! The `.tar.gz`, and the archives in other packages: files of root with the package's time, and their folders.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use anyhow::{Context, Result};
use tar::{Builder, EntryType, Header};

use super::contents::{Entry, Kind, gzip};
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

/// The path of a file below the folder of the `.tar.gz`. `None` for a file of Debian's own.
fn path_of(file: &Entry) -> Result<Option<String>> {
    let name = file.path.rsplit('/').next().unwrap_or_default();
    let document = || {
        let document = file.path.split_once(&format!("/doc/{NAME}/"));
        document.map(|(_, path)| path).with_context(|| format!("{} is not below /doc/{NAME}/", file.path))
    };
    Ok(Some(match file.kind {
        Kind::Program | Kind::Configuration | Kind::Licence => name.to_owned(),
        Kind::Unit if file.path.contains("/systemd/") => format!("systemd/{name}"),
        Kind::Unit if file.path.contains("/sysusers.d/") => format!("sysusers.d/{name}"),
        Kind::Unit => format!("tmpfiles.d/{name}"),
        Kind::Manual => format!("man/{name}"),
        Kind::Completion => format!("completions/{name}"),
        Kind::Documentation => match document()?.strip_prefix("examples/") {
            Some(drop_in) if drop_in.ends_with(".conf") => format!("systemd/{NAME}.service.d/{drop_in}"),
            Some(example) => example.to_owned(),
            None => document()?.to_owned(),
        },
        Kind::Debian => return Ok(None),
    }))
}

/// One folder: the executable, the configuration, units, manual pages, completions, licences and documents.
pub(super) fn write(package: &Package, out: &Path) -> Result<()> {
    let folder = format!("{NAME}-{}-{}-linux", package.version, package.executable.arch.rpm());
    let mut tar = Tar::new(package.time);
    for file in &package.files {
        if let Some(path) = path_of(file)? {
            tar.file(&format!("{folder}/{path}"), file.mode, &file.content)?;
        }
    }
    let compose = root().join("packaging/compose.yaml");
    let compose = fs::read(&compose).with_context(|| compose.display().to_string())?;
    tar.file(&format!("{folder}/compose.yaml"), 0o644, &compose)?;
    fs::write(out, gzip(&tar.finish()?)?).with_context(|| out.display().to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_file_has_its_folder() {
        let path = |path: &str, kind| {
            path_of(&Entry { path: path.to_owned(), mode: 0o644, content: Vec::new(), kind }).unwrap()
        };
        let doc = "/usr/share/doc/cmiot-proxy";
        for (installed, kind, expected) in [
            ("/usr/bin/cmiot-proxy", Kind::Program, "cmiot-proxy"),
            ("/etc/cmiot-proxy/cmiot-proxy.toml", Kind::Configuration, "cmiot-proxy.toml"),
            ("/usr/lib/systemd/system/cmiot-proxy.socket", Kind::Unit, "systemd/cmiot-proxy.socket"),
            ("/usr/lib/sysusers.d/cmiot-proxy.conf", Kind::Unit, "sysusers.d/cmiot-proxy.conf"),
            ("/usr/lib/tmpfiles.d/cmiot-proxy.conf", Kind::Unit, "tmpfiles.d/cmiot-proxy.conf"),
            ("/usr/share/man/man1/cmiot-proxy.1.gz", Kind::Manual, "man/cmiot-proxy.1.gz"),
            ("/usr/share/zsh/site-functions/_cmiot-proxy", Kind::Completion, "completions/_cmiot-proxy"),
            (&format!("{doc}/third-party-notices.txt"), Kind::Licence, "third-party-notices.txt"),
            (&format!("{doc}/docs/fleet.md"), Kind::Documentation, "docs/fleet.md"),
            (
                &format!("{doc}/examples/audit-group.conf"),
                Kind::Documentation,
                "systemd/cmiot-proxy.service.d/audit-group.conf",
            ),
            (&format!("{doc}/examples/prometheus/rules.yml"), Kind::Documentation, "prometheus/rules.yml"),
            (
                &format!("{doc}/examples/grafana/dashboard.json"),
                Kind::Documentation,
                "grafana/dashboard.json",
            ),
        ] {
            assert_eq!(path(installed, kind).as_deref(), Some(expected), "{installed}");
        }
        assert_eq!(path(&format!("{doc}/copyright"), Kind::Debian), None);
    }
}
