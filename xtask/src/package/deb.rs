//! The `.deb` (deb(5)): an `ar` archive of the format's version, the control files and the data.

use std::fs;
use std::path::Path;

use anyhow::{Context, Result};

use super::contents::{Kind, folded, gzip};
use super::tarball::Tar;
use super::{DESCRIPTION, MAINTAINER, NAME, Package, SUMMARY};
use crate::run::root;

pub(super) fn write(package: &Package, out: &Path) -> Result<()> {
    let file = fs::File::create(out).with_context(|| out.display().to_string())?;
    let mut archive = ar::Builder::new(file);
    let members = [
        ("debian-binary", b"2.0\n".to_vec()),
        ("control.tar.gz", gzip(&control(package)?)?),
        ("data.tar.gz", gzip(&data(package)?)?),
    ];
    for (name, content) in members {
        let mut header = ar::Header::new(name.as_bytes().to_vec(), content.len() as u64);
        header.set_mode(0o100_644);
        header.set_mtime(package.time);
        archive.append(&header, &*content)?;
    }
    Ok(())
}

fn data(package: &Package) -> Result<Vec<u8>> {
    let mut tar = Tar::new(package.time);
    for file in &package.files {
        // Debian's zsh reads completions of packages from a folder of its own.
        let path = file.path.replace("/usr/share/zsh/site-functions/", "/usr/share/zsh/vendor-completions/");
        // Debian has the text of this licence in common-licenses.
        if !path.ends_with("/LICENSE-APACHE") {
            tar.file(&format!(".{path}"), file.mode, &file.content)?;
        }
    }
    tar.finish()
}

fn control(package: &Package) -> Result<Vec<u8>> {
    let installed: usize = package.files.iter().map(|file| file.content.len().div_ceil(1024)).sum();
    let depends =
        package.executable.glibc.map(|(major, minor)| format!("Depends: libc6 (>= {major}.{minor})\n"));
    let control = format!(
        "Package: {NAME}\nVersion: {}-{}\nArchitecture: {}\nMaintainer: {MAINTAINER}\nInstalled-Size: {installed}\n{}\
         Section: net\nPriority: optional\nDescription: {SUMMARY}\n{}",
        package.version,
        package.revision,
        package.executable.arch.debian(),
        depends.unwrap_or_default(),
        folded(DESCRIPTION, " ")
    );
    let configuration = package.files.iter().filter(|file| file.kind == Kind::Configuration);
    let conffiles: String = configuration.map(|file| format!("{}\n", file.path)).collect();
    let mut tar = Tar::new(package.time);
    tar.file("./conffiles", 0o644, conffiles.as_bytes())?;
    tar.file("./control", 0o644, control.as_bytes())?;
    for script in ["postinst", "postrm", "prerm"] {
        let path = root().join("packaging/deb").join(script);
        let text = fs::read(&path).with_context(|| path.display().to_string())?;
        tar.file(&format!("./{script}"), 0o755, &text)?;
    }
    tar.finish()
}
