//! `cargo xtask prose` and `cargo xtask ci prose`: the words of comments, messages and documents.
//!
//! `xtask/prose.toml` lists words and patterns that the texts do without, each with its reason. One rule is built in:
//! a paragraph of a doc comment does not begin with "What", "Who", "How" and the like, unless it is a question.
//! `headless_percent` says how many of them may.
//!
//! `xtask/prose-exceptions.txt` has one line per file with the hits that are still allowed in it. Above such a count
//! the check fails. `--lower` writes the counts of today, and refuses when the sum for a rule would rise; text that
//! moves to another file is therefore no new hit. Code spans and code blocks are not read.

mod exceptions;
mod rules;
mod rust;
mod text;

use std::collections::BTreeMap;
use std::fs;

use anyhow::{Context, Result, bail, ensure};

use crate::run::{Run, root};

use self::exceptions::{Counts, Exceptions};
use self::rules::Rules;
use self::text::Paragraph;

const RULES: &str = "xtask/prose.toml";
const EXCEPTIONS: &str = "xtask/prose-exceptions.txt";

/// Folders of Rust code, each counted by itself.
const CODE: &[&str] = &["proxy/src", "signer", "simulator/src", "xtask/src", "tests", "bench"];
/// Documents.
const DOCUMENTS: &[&str] = &[
    "README.md",
    "README.zh-CN.md",
    "ARCHITECTURE.md",
    "CONTRIBUTING.md",
    "SECURITY.md",
    "CHANGELOG.md",
    ":(glob)docs/*.md",
];
/// The document in Chinese.
const CHINESE: &str = "README.zh-CN.md";

/// `cargo xtask prose`.
#[derive(clap::Args)]
pub(crate) struct Options {
    /// Write the counts of today into the exceptions file
    #[arg(long)]
    lower: bool,
}

/// Checks the texts, or lowers the exceptions.
///
/// # Errors
/// As [`stage`]; with `--lower`, when the sum for a rule would rise.
pub(crate) fn command(options: &Options) -> Result<()> {
    if !options.lower {
        return stage();
    }
    let found = Found::read()?;
    let counts = found.counts();
    Exceptions::read(EXCEPTIONS)?.lowered_to(&counts)?;
    exceptions::write(EXCEPTIONS, &counts)?;
    println!("{EXCEPTIONS}: {} hits in {} files", found.hits.len(), counts.len());
    Ok(())
}

/// Checks the texts.
///
/// # Errors
/// When a file has more hits of a rule than its exception allows, or too many paragraphs are headless.
pub(crate) fn stage() -> Result<()> {
    let found = Found::read()?;
    let new = Exceptions::read(EXCEPTIONS)?.exceeded_by(&found.counts());
    for hit in found.hits.iter().filter(|hit| new.contains(&(hit.file.clone(), hit.rule.clone()))) {
        println!("{}:{}: \"{}\": {}", hit.file, hit.line, hit.words, hit.advice);
    }
    let (headless, paragraphs) = found.print_measure();
    println!("{} hits of the rules in {RULES}, {headless} of them headless paragraphs", found.hits.len());
    ensure!(
        new.is_empty(),
        "{} counts are above {EXCEPTIONS}; every hit of these files is listed above",
        new.len()
    );
    ensure!(
        headless * 100 <= paragraphs * found.headless_percent,
        "{headless} of {paragraphs} paragraphs are headless, more than {} %",
        found.headless_percent
    );
    Ok(())
}

/// One place where a rule matches.
struct Hit {
    file: String,
    line: usize,
    rule: String,
    words: String,
    advice: String,
}

/// Everything that the rules find.
#[derive(Default)]
struct Found {
    hits: Vec<Hit>,
    /// Headless paragraphs and all paragraphs of doc comments, by folder.
    measure: BTreeMap<&'static str, (usize, usize)>,
    /// The largest share of headless paragraphs.
    headless_percent: usize,
}

impl Found {
    fn read() -> Result<Self> {
        let rules = Rules::parse(&fs::read_to_string(root().join(RULES)).context(RULES)?).context(RULES)?;
        let mut found = Self { headless_percent: rules.headless_percent, ..Self::default() };
        for folder in CODE {
            for file in tracked(&[folder])?.iter().filter(|file| file.ends_with(".rs")) {
                let Ok(text) = fs::read_to_string(root().join(file)) else { continue }; // deleted, not committed
                found.add(file, &rust::paragraphs(file, &text), &rules, Some(folder));
            }
        }
        for file in tracked(DOCUMENTS)? {
            let Ok(text) = fs::read_to_string(root().join(&file)) else { continue };
            found.add(&file, &text::markdown(&text), &rules, None);
        }
        if found.measure.is_empty() {
            bail!("no Rust file found");
        }
        Ok(found)
    }

    fn add(&mut self, file: &str, paragraphs: &[Paragraph], rules: &Rules, folder: Option<&'static str>) {
        for paragraph in paragraphs {
            for (rule, at, words) in rules.matches(paragraph, file == CHINESE) {
                let line = paragraph.line + paragraph.text[..at].matches('\n').count();
                let words = words.split_whitespace().collect::<Vec<_>>().join(" ");
                self.hits.push(Hit {
                    file: file.to_owned(),
                    line,
                    rule: rule.name.clone(),
                    words,
                    advice: rule.advice(),
                });
            }
        }
        if let Some(folder) = folder {
            let docs = || paragraphs.iter().filter(|paragraph| paragraph.is_doc);
            let counts = self.measure.entry(folder).or_default();
            counts.0 += docs().filter(|paragraph| rules::is_headless(&paragraph.text)).count();
            counts.1 += docs().count();
        }
    }

    /// Hits by file and rule.
    fn counts(&self) -> Counts {
        let mut counts = Counts::new();
        for hit in &self.hits {
            *counts.entry(hit.file.clone()).or_default().entry(hit.rule.clone()).or_default() += 1;
        }
        counts
    }

    /// Prints the headless paragraphs of each folder, and returns their sum and that of all paragraphs.
    fn print_measure(&self) -> (usize, usize) {
        let sum = self.measure.values().fold((0, 0), |sum, counts| (sum.0 + counts.0, sum.1 + counts.1));
        let rows = self.measure.iter().map(|(folder, counts)| (*folder, *counts)).chain([("all", sum)]);
        println!("{:<16}{:>10}{:>12}{:>8}", "headless in", "headless", "paragraphs", "share");
        for (folder, (headless, paragraphs)) in rows {
            let permille = (headless * 1000).checked_div(paragraphs).unwrap_or(0);
            println!("{folder:<16}{headless:>10}{paragraphs:>12}{:>6}.{} %", permille / 10, permille % 10);
        }
        sum
    }
}

/// The files that git tracks under these paths, and new ones that it does not ignore.
fn tracked(paths: &[&str]) -> Result<Vec<String>> {
    let listed = Run::new("git")
        .args(["ls-files", "--cached", "--others", "--exclude-standard", "--"])
        .args(paths)
        .output()?;
    Ok(listed.lines().map(str::to_owned).collect())
}

#[cfg(test)]
mod tests;
