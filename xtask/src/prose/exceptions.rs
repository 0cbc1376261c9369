//! The hits that are still allowed: `path: rule count, rule count`, one line per file, sorted.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs;

use anyhow::{Context, Result, bail};

use crate::run::root;

/// Hits by file and rule.
pub(super) type Counts = BTreeMap<String, BTreeMap<String, usize>>;

pub(super) struct Exceptions(Counts);

impl Exceptions {
    /// Reads the file.
    ///
    /// # Errors
    /// When it cannot be read, or a line has another form.
    pub(super) fn read(file: &str) -> Result<Self> {
        Self::parse(&fs::read_to_string(root().join(file)).context(file.to_owned())?)
            .with_context(|| file.to_owned())
    }

    pub(super) fn parse(text: &str) -> Result<Self> {
        let mut counts = Counts::new();
        for line in text.lines().filter(|line| !line.starts_with('#') && !line.is_empty()) {
            let (path, rules) = line.split_once(": ").with_context(|| format!("no path: {line}"))?;
            for rule in rules.split(", ") {
                let (name, count) = rule.rsplit_once(' ').with_context(|| format!("no count: {line}"))?;
                let count = count.parse().with_context(|| format!("no count: {line}"))?;
                counts.entry(path.to_owned()).or_default().insert(name.to_owned(), count);
            }
        }
        Ok(Self(counts))
    }

    /// The files and rules of which there are more hits than allowed.
    pub(super) fn exceeded_by(&self, found: &Counts) -> Vec<(String, String)> {
        let allowed =
            |path: &String, rule: &String| self.0.get(path).and_then(|rules| rules.get(rule)).copied();
        found
            .iter()
            .flat_map(|(path, rules)| rules.iter().map(move |(rule, count)| (path, rule, *count)))
            .filter(|(path, rule, count)| *count > allowed(path, rule).unwrap_or(0))
            .map(|(path, rule, _)| (path.clone(), rule.clone()))
            .collect()
    }

    /// Checks that these counts may replace the file's.
    ///
    /// # Errors
    /// When there are more hits of a rule than the file allows in all.
    pub(super) fn lowered_to(&self, found: &Counts) -> Result<()> {
        let allowed = sums(&self.0);
        for (rule, count) in sums(found) {
            let most = allowed.get(rule).copied().unwrap_or(0);
            if count > most {
                bail!("{rule}: {count} hits in all, more than the {most} that are allowed");
            }
        }
        Ok(())
    }
}

/// Writes the counts.
///
/// # Errors
/// When the file cannot be written.
pub(super) fn write(file: &str, counts: &Counts) -> Result<()> {
    fs::write(root().join(file), text(counts)).context(file.to_owned())
}

/// The counts as the file has them.
pub(super) fn text(counts: &Counts) -> String {
    let mut text =
        "# Hits of xtask/prose.toml that are still allowed. `cargo xtask prose --lower` writes this file.\n"
            .to_owned();
    for (path, rules) in counts {
        let rules: Vec<String> = rules.iter().map(|(rule, count)| format!("{rule} {count}")).collect();
        let _ = writeln!(text, "{path}: {}", rules.join(", ")); // a String takes everything
    }
    text
}

fn sums(counts: &Counts) -> BTreeMap<&str, usize> {
    let mut sums = BTreeMap::new();
    for (rule, count) in counts.values().flatten() {
        *sums.entry(rule.as_str()).or_default() += count;
    }
    sums
}
