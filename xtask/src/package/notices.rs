//! The notices of everything that is linked into the executable: the crates, the C libraries in them, Rust's standard
//! library and musl, each with its licence and the text that its authors distribute.
//!
//! Equal texts are printed once, with the names of all that have them.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use anyhow::{Context, Result, ensure};

use super::dependencies::{Crate, Dependencies};
use crate::run::{Run, root};

/// Begins the names of files with a licence.
const NAMES: &[&str] = &["license", "licence", "copying", "copyright", "notice", "unlicense"];

/// The whole text.
///
/// # Errors
/// When a crate states no licence, or a file cannot be read.
pub(super) fn text(dependencies: &Dependencies) -> Result<String> {
    let mut texts: BTreeMap<String, Vec<String>> = BTreeMap::new();
    let mut list = String::new();
    for one in dependencies.crates.values().filter(|one| one.foreign) {
        let title = format!("{} {}", one.name, one.version);
        let license = one.license.as_deref().with_context(|| format!("{title} states no licence"))?;
        let found = licence_texts(&one.folder)?;
        list.push_str(&format!("{title}: {license}{}\n", origin(one, found.is_empty())));
        for text in found {
            texts.entry(text).or_default().push(title.clone());
        }
    }
    let sysroot = Run::new("rustc").args(["--print", "sysroot"]).output()?;
    let standard = Path::new(sysroot.trim()).join("share/doc/rust");
    let mut standard_texts = licence_texts(&standard)?;
    if standard_texts.is_empty() {
        // A toolchain without its documents: the texts are the same two.
        standard_texts = [root().join("LICENSE-MIT"), root().join("LICENSE-APACHE")]
            .iter()
            .map(|path| fs::read_to_string(path).with_context(|| path.display().to_string()))
            .collect::<Result<_>>()?;
    }
    list.push_str("Rust's standard library: MIT OR Apache-2.0, https://www.rust-lang.org\n");
    for text in standard_texts {
        texts.entry(text).or_default().push("Rust's standard library".to_owned());
    }
    let musl =
        fs::read_to_string(root().join("xtask/data/musl-copyright.txt")).context("musl-copyright.txt")?;
    list.push_str("musl (static executables): MIT, https://musl.libc.org\n");
    list.push_str("SQLite (in libsqlite3-sys): public domain, https://www.sqlite.org/copyright.html\n");
    texts.entry(musl).or_default().push("musl".to_owned());
    ensure!(!texts.is_empty(), "no licence was found");
    let mut all = format!(
        "cmiot-proxy {} contains the following software, each under its own licence.\n\n{list}",
        dependencies.version
    );
    for (text, names) in &texts {
        all.push_str(&format!("\n{}\n{}\n\n{}\n", "=".repeat(79), names.join(", "), text.trim_end()));
    }
    Ok(all)
}

/// The place of a crate's source; its authors, if its archive has no text.
fn origin(one: &Crate, without_text: bool) -> String {
    let mut origin = one.repository.as_ref().map(|url| format!(", {url}")).unwrap_or_default();
    if without_text && !one.authors.is_empty() {
        origin.push_str(&format!(" (copyright {}; its archive has no licence file)", one.authors.join(", ")));
    }
    origin
}

/// The texts in a folder, and in those of C libraries below it.
fn licence_texts(folder: &Path) -> Result<Vec<String>> {
    /// A C library is at most this far down: `c_src/mimalloc`.
    const DEPTH: usize = 2;
    let mut texts = Vec::new();
    gather(folder, DEPTH, &mut texts)?;
    texts.sort();
    texts.dedup();
    Ok(texts)
}

fn gather(folder: &Path, depth: usize, texts: &mut Vec<String>) -> Result<()> {
    let Ok(entries) = fs::read_dir(folder) else { return Ok(()) };
    for entry in entries {
        let entry = entry?;
        let path = entry.path();
        if entry.file_type()?.is_dir() {
            if depth > 0 {
                gather(&path, depth - 1, texts)?;
            }
            continue;
        }
        let name = entry.file_name().to_string_lossy().to_ascii_lowercase();
        let is_source = [".rs", ".html", ".toml", ".c", ".h", ".py"].iter().any(|end| name.ends_with(end));
        if NAMES.iter().any(|start| name.starts_with(start)) && !is_source {
            let bytes = fs::read(&path).with_context(|| path.display().to_string())?;
            texts.push(String::from_utf8_lossy(&bytes).replace("\r\n", "\n"));
        }
    }
    Ok(())
}
