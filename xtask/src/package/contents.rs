//! The files of a package: where each is installed, with which mode, and what kind it is.

use std::fs;
use std::path::Path;

use anyhow::{Context, Result, ensure};
use flate2::{Compression, GzBuilder};

use super::dependencies::Dependencies;
use super::{LICENCE, MAINTAINER, NAME, notices};
use crate::debug_build;
use crate::run::{Run, root, target};

/// A file of a package.
pub(super) struct Entry {
    /// Absolute path once installed.
    pub(super) path: String,
    pub(super) mode: u32,
    pub(super) content: Vec<u8>,
    pub(super) kind: Kind,
}

/// The kind of a file, which decides what an upgrade does with it and which package has it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Kind {
    Program,
    /// Kept by an upgrade if it was changed.
    Configuration,
    /// Of systemd.
    Unit,
    Manual,
    Completion,
    Documentation,
    Licence,
    /// Only in the `.deb`.
    Debian,
}

/// Collects all files.
///
/// # Errors
/// When one is missing, or the manual pages cannot be made.
pub(super) fn gather(
    program: Vec<u8>,
    dependencies: &Dependencies,
    bill: &[u8],
    time: u64,
) -> Result<Vec<Entry>> {
    let doc = format!("/usr/share/doc/{NAME}");
    let read =
        |path: &str| fs::read(root().join(path)).with_context(|| root().join(path).display().to_string());
    let mut files =
        vec![Entry { path: format!("/usr/bin/{NAME}"), mode: 0o755, content: program, kind: Kind::Program }];
    let mut add = |path: String, content: Vec<u8>, kind: Kind| {
        let mode = if kind == Kind::Configuration { 0o640 } else { 0o644 };
        files.push(Entry { path, mode, content, kind });
    };
    add(format!("/etc/{NAME}/{NAME}.toml"), read("packaging/proxy.toml")?, Kind::Configuration);
    for unit in ["service", "socket"] {
        let name = format!("{NAME}.{unit}");
        add(format!("/usr/lib/systemd/system/{name}"), read(&format!("packaging/{name}"))?, Kind::Unit);
    }
    for folder in ["sysusers", "tmpfiles"] {
        let source = read(&format!("packaging/{folder}.conf"))?;
        add(format!("/usr/lib/{folder}.d/{NAME}.conf"), source, Kind::Unit);
    }
    let drop_in = read(&format!("packaging/{NAME}.service.d/audit-group.conf"))?;
    add(format!("{doc}/examples/audit-group.conf"), drop_in, Kind::Documentation);
    for name in ["prometheus/rules.yml", "grafana/dashboard.json"] {
        let example = read(&format!("packaging/{name}"))?;
        add(format!("{doc}/examples/{name}"), example, Kind::Documentation);
    }
    for (page, content) in manual()? {
        match page.rsplit('.').next().unwrap_or_default() {
            "1" => add(format!("/usr/share/man/man1/{page}.gz"), gzip(&content)?, Kind::Manual),
            "bash" => {
                add(format!("/usr/share/bash-completion/completions/{NAME}"), content, Kind::Completion);
            }
            "fish" => add(format!("/usr/share/fish/vendor_completions.d/{page}"), content, Kind::Completion),
            _ => add(format!("/usr/share/zsh/site-functions/{page}"), content, Kind::Completion),
        }
    }
    for name in ["README.md", "README.zh-CN.md"] {
        add(format!("{doc}/{name}"), read(name)?, Kind::Documentation);
    }
    for name in listed(&root().join("docs"))? {
        add(format!("{doc}/docs/{name}"), read(&format!("docs/{name}"))?, Kind::Documentation);
    }
    add(format!("{doc}/sbom.cdx.json"), bill.to_vec(), Kind::Documentation);
    add(format!("{doc}/changelog.gz"), gzip(&read("CHANGELOG.md")?)?, Kind::Documentation);
    for name in ["LICENSE-MIT", "LICENSE-APACHE"] {
        add(format!("{doc}/{name}"), read(name)?, Kind::Licence);
    }
    add(format!("{doc}/third-party-notices.txt"), notices::text(dependencies)?.into_bytes(), Kind::Licence);
    add(format!("{doc}/copyright"), copyright().into_bytes(), Kind::Debian);
    add(
        format!("{doc}/changelog.Debian.gz"),
        gzip(debian_changelog(dependencies, time)?.as_bytes())?,
        Kind::Debian,
    );
    add(
        format!("/usr/share/lintian/overrides/{NAME}"),
        read("packaging/deb/lintian-overrides")?,
        Kind::Debian,
    );
    files.sort_by(|a, b| a.path.cmp(&b.path));
    Ok(files)
}

/// The manual pages and completions, by their names.
fn manual() -> Result<Vec<(String, Vec<u8>)>> {
    let program = debug_build::manual()?;
    let folder = target().join("manual");
    let _ = fs::remove_dir_all(&folder); // of another version
    Run::new(program).args([&folder]).run()?;
    let names = listed(&folder)?;
    ensure!(names.iter().any(|name| name == &format!("{NAME}.1")), "no manual page in {}", folder.display());
    names.into_iter().map(|name| Ok((name.clone(), fs::read(folder.join(&name))?))).collect()
}

/// The names of the files in a folder, sorted.
fn listed(folder: &Path) -> Result<Vec<String>> {
    let mut names = Vec::new();
    for entry in fs::read_dir(folder).with_context(|| folder.display().to_string())? {
        let entry = entry?;
        if entry.file_type()?.is_file() {
            names.push(entry.file_name().to_string_lossy().into_owned());
        }
    }
    names.sort();
    Ok(names)
}

/// Compressed, without a time.
pub(super) fn gzip(bytes: &[u8]) -> Result<Vec<u8>> {
    use std::io::Write;
    let mut compressed = GzBuilder::new().mtime(0).write(Vec::new(), Compression::best());
    compressed.write_all(bytes)?;
    Ok(compressed.finish()?)
}

/// In Debian's format (DEP 5).
fn copyright() -> String {
    format!(
        "Format: https://www.debian.org/doc/packaging-manuals/copyright-format/1.0/\n\
         Upstream-Name: {NAME}\n\
         Comment: The executable contains the crates and libraries that third-party-notices.txt names, each with its\n \
         copyright and licence.\n\n\
         Files: *\n\
         Copyright: 2026 The cmiot engineers\n\
         License: MIT or Apache-2.0\n \
         At your option: LICENSE-MIT in this folder has the MIT licence; on Debian systems the Apache licence is in\n \
         /usr/share/common-licenses/Apache-2.0.\n"
    )
}

fn debian_changelog(dependencies: &Dependencies, time: u64) -> Result<String> {
    let date = Run::new("date").args(["-u", "-R", "-d", &format!("@{time}")]).env("LC_ALL", "C").output()?;
    Ok(format!(
        "{NAME} ({}-1) unstable; urgency=medium\n\n  * Release {0}; changelog.gz has the changes ({LICENCE}).\n\n \
         -- {MAINTAINER}  {}\n",
        dependencies.version,
        date.trim()
    ))
}

/// A text in lines, each after an indent.
pub(super) fn folded(text: &str, indent: &str) -> String {
    const WIDTH: usize = 78;
    let (mut folded, mut line) = (String::new(), String::new());
    for word in text.split(' ') {
        if !line.is_empty() && line.len() + 1 + word.len() > WIDTH {
            folded.push_str(&format!("{indent}{line}\n"));
            line.clear();
        }
        if !line.is_empty() {
            line.push(' ');
        }
        line.push_str(word);
    }
    folded + indent + &line + "\n"
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_text_is_folded_into_lines_with_an_indent() {
        let text = "word ".repeat(40);
        for line in folded(text.trim_end(), " ").lines() {
            assert!(line.starts_with(" w") && line.len() <= 79, "{line:?}");
        }
        assert_eq!(folded("a b", ""), "a b\n");
    }
}
