//! The `.rpm`, by the crate `rpm`: no rpmbuild is needed, and the time in it is the package's.

use std::fs;
use std::path::Path;

use anyhow::{Context, Result};
use rpm::{BuildConfig, CompressionType, Dependency, FileOptions, PackageBuilder};

use super::contents::{Kind, folded};
use super::{DESCRIPTION, LICENCE, MAINTAINER, NAME, Package, SUMMARY};
use crate::run::root;

pub(super) fn write(package: &Package, out: &Path) -> Result<()> {
    let time = u32::try_from(package.time).context("a time before 2106")?;
    let config = BuildConfig::v4().compression(CompressionType::Gzip).source_date(time);
    let arch = package.executable.arch.rpm();
    let (first, rest) = SUMMARY.split_at(1);
    let summary = first.to_uppercase() + rest;
    let mut builder = PackageBuilder::new(NAME, &package.version, LICENCE, arch, &summary);
    builder
        .using_config(config)
        .release(package.revision.to_string())
        .description(folded(DESCRIPTION, ""))
        .packager(MAINTAINER)
        .group("System Environment/Daemons")
        .build_host("localhost")
        .post_install_script(script("post")?)
        .pre_uninstall_script(script("preun")?)
        .post_uninstall_script(script("postun")?)
        .add_changelog_entry(
            format!("{MAINTAINER} - {}-{}", package.version, package.revision),
            format!("- Release {}; changelog.gz has the changes", package.version),
            time,
        );
    if let Some((major, minor)) = package.executable.glibc {
        builder.requires(Dependency::any(format!("libc.so.6(GLIBC_{major}.{minor})(64bit)")));
    }
    let folder = |path: String, mode: u16| FileOptions::dir(path).permissions(mode);
    builder.with_dir_entry(folder(format!("/etc/{NAME}"), 0o750))?;
    builder.with_dir_entry(folder(format!("/usr/share/doc/{NAME}"), 0o755))?;
    for file in package.files.iter().filter(|file| file.kind != Kind::Debian) {
        let mode = u16::try_from(file.mode).context("twelve bits of a mode")?;
        let options = FileOptions::new(&file.path).permissions(mode);
        let options = match file.kind {
            Kind::Configuration => options.config().noreplace(),
            Kind::Manual | Kind::Documentation => options.doc(),
            Kind::Licence => options.license().doc(),
            Kind::Program | Kind::Unit | Kind::Completion | Kind::Debian => options,
        };
        builder.with_file_contents(file.content.clone(), options)?;
    }
    let built = builder.build()?;
    let mut bytes = Vec::new();
    built.write(&mut bytes)?;
    fs::write(out, bytes).with_context(|| out.display().to_string())
}

fn script(name: &str) -> Result<String> {
    let path = root().join("packaging/rpm").join(name);
    fs::read_to_string(&path).with_context(|| path.display().to_string())
}
