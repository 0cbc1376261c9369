//! docs/quickstart-debian.md: its commands are run in a fresh root under systemd, and their output is compared with the page.
//!
//! A block of the language `sh` has commands, a block `text` after it their output; without one they print nothing. Times,
//! hashes, sizes and the numbers of rows differ from run to run, so both texts are compared with these masked.

use std::fs;
use std::path::Path;
use std::sync::LazyLock;

use anyhow::{Context, Result, bail, ensure};
use regex::Regex;

use crate::run::{root, target};

const PAGE: &str = "docs/quickstart-debian.md";

/// The line before the output of a block; its number follows.
const MARK: &str = "--- block ";

/// Commands of the page, and the output that it shows for them.
#[derive(Debug, PartialEq, Eq)]
struct Block {
    commands: String,
    output: String,
}

/// Runs the commands of the page with this package, and compares their output with the page.
///
/// # Errors
/// When a command fails, or prints something else than the page shows; a copy of the page with the output of this run is
/// then in the target folder.
pub(crate) fn run(deb: &Path) -> Result<()> {
    let path = root().join(PAGE);
    let page = fs::read_to_string(&path).with_context(|| path.display().to_string())?;
    let blocks = blocks(&page)?;
    let script = target().join("quickstart.sh");
    fs::write(&script, shell(&blocks)).with_context(|| script.display().to_string())?;
    let log = super::boot(&super::debian(super::SUITE)?, &script, &[deb])?;
    print!("{log}");
    super::passed(&log)?;
    let found = outputs(log.strip_suffix(super::PASSED).unwrap_or(&log));
    ensure!(found.len() == blocks.len(), "{} outputs of {} blocks", found.len(), blocks.len());
    let Some((block, found_output)) =
        blocks.iter().zip(&found).find(|(block, found)| masked(&block.output) != masked(found))
    else {
        return Ok(());
    };
    let copy = target().join("quickstart-debian.md");
    fs::write(&copy, with_outputs(&page, &found)).with_context(|| copy.display().to_string())?;
    let (shown, printed) = (masked(&block.output), masked(found_output));
    bail!(
        "{PAGE} shows another output of\n{}\nIt shows\n{shown}and the commands print\n{printed}{} is the page with the output of this run",
        block.commands,
        copy.display()
    )
}

/// The blocks of a page.
fn blocks(page: &str) -> Result<Vec<Block>> {
    let mut blocks: Vec<Block> = Vec::new();
    for (language, text) in fences(page) {
        match (language, blocks.last_mut()) {
            ("sh", _) => blocks.push(Block { commands: text.to_owned(), output: String::new() }),
            ("text", Some(block)) if block.output.is_empty() => block.output = text.to_owned(),
            _ => bail!("{PAGE}: a block `{language}` that follows no commands:\n{text}"),
        }
    }
    ensure!(!blocks.is_empty(), "{PAGE} has no block");
    Ok(blocks)
}

/// The fenced blocks of a page: language and text.
fn fences(page: &str) -> impl Iterator<Item = (&str, &str)> {
    let parts = page.split("\n```").collect::<Vec<_>>();
    let fences: Vec<_> = parts.into_iter().skip(1).step_by(2).collect();
    fences.into_iter().map(|fence| match fence.split_once('\n') {
        // The line break before the closing fence is one of the text.
        Some((language, text)) => (language, text),
        None => (fence, ""),
    })
}

/// The script that runs all blocks in one shell.
fn shell(blocks: &[Block]) -> String {
    let mut script = String::from("set -eu\nexec 2>&1\n");
    for (number, Block { commands, .. }) in (1..).zip(blocks) {
        script.push_str(&format!("echo '{MARK}{number}'\n{commands}\n"));
    }
    script.push_str(&format!("printf '{}'\n", super::PASSED.replace('\n', "\\n")));
    script
}

/// The output of each block.
fn outputs(log: &str) -> Vec<String> {
    // A carriage return begins the line again: progress of dpkg.
    let last = |line: &str| line.trim_end().rsplit('\r').next().unwrap_or_default().to_owned();
    let lines = |part: &str| part.lines().skip(1).map(last).collect::<Vec<_>>().join("\n");
    log.split(MARK).skip(1).map(|part| lines(part).trim_end().to_owned()).collect()
}

/// The page with these outputs in place of its own.
fn with_outputs(page: &str, found: &[String]) -> String {
    let mut rest = page;
    let mut new = String::new();
    let mut found = found.iter();
    while let Some(start) = rest.find("\n```sh\n") {
        let end =
            rest[start + 1..].find("\n```\n").map_or(rest.len(), |end| start + 1 + end + "\n```\n".len());
        new.push_str(&rest[..end]);
        rest = &rest[end..];
        if let Some(shown) = rest.strip_prefix("\n```text\n").or_else(|| rest.strip_prefix("```text\n")) {
            rest = shown.split_once("\n```\n").map_or("", |(_, rest)| rest);
        }
        if let Some(output) = found.next().filter(|output| !output.is_empty()) {
            new.push_str(&format!("```text\n{output}\n```\n"));
        }
    }
    new + rest
}

/// A text without what differs from run to run.
fn masked(text: &str) -> String {
    static MASKS: LazyLock<Vec<(Regex, &str)>> = LazyLock::new(|| {
        let mask = |pattern: &str, name| (Regex::new(pattern).expect("a pattern of ours"), name);
        vec![
            mask(r"\d{4}-\d{2}-\d{2}[ T]\d{2}:\d{2}:\d{2}(\.\d+)?(Z|[+-]\d{2}:\d{2})?", "TIME"),
            mask(r"\b[0-9a-f]{16,}\b", "HEX"),
            mask(r"\b\d{4}-\d{2}\b", "MONTH"),
            mask(r"\b\d[\d,.]* ?(B|kB|MB|ms|files|anchors|batches|rows)\b", "SIZE"),
            mask(r"\b(GID|UID|row|rows after|ttl=) ?\d+", "NUMBER"),
            // The first column, and the last one.
            mask(r"(?m)^\d+ |\b\d+(\.\d+)?$", "NUMBER"),
            mask(" {2,}", "  "),
            mask("─+", "─"),
        ]
    });
    MASKS.iter().fold(text.trim_end().to_owned(), |text, (pattern, name)| {
        pattern.replace_all(&text, *name).into_owned()
    }) + "\n"
}

#[cfg(test)]
mod tests {
    use super::*;

    const EXAMPLE: &str = "# Page\n\n```sh\nfirst \\\n    --option\n```\n\n```text\nat 2026-11-30 10:00:00 +08:00\n```\nWords.\n```sh\nsecond\n```\nEnd.\n";

    #[test]
    fn a_page_is_commands_each_with_its_output() {
        let blocks = blocks(EXAMPLE).unwrap();
        assert_eq!(blocks.len(), 2);
        assert_eq!(blocks[0].commands, "first \\\n    --option");
        assert_eq!(blocks[0].output, "at 2026-11-30 10:00:00 +08:00");
        assert_eq!((blocks[1].commands.as_str(), blocks[1].output.as_str()), ("second", ""));
        super::blocks("```text\nalone\n```\n").unwrap_err();
        super::blocks("no block").unwrap_err();
    }

    #[test]
    fn outputs_are_split_by_block_and_put_into_the_page() {
        let found = outputs("--- block 1\nnew\n--- block 2\n");
        assert_eq!(found, ["new", ""]);
        let page = with_outputs(EXAMPLE, &found);
        assert_eq!(page, EXAMPLE.replace("\n\n```text\nat 2026-11-30 10:00:00 +08:00", "\n```text\nnew"));
        assert_eq!(blocks(&page).unwrap()[0].output, "new");
    }

    #[test]
    fn times_hashes_and_sizes_are_masked_and_nothing_else() {
        let first = "2026-01-15T12:00:00.123+08:00 1000012026011512000000000001 7,531 kB  hit";
        let second = "2026-11-30 10:00:00Z 1000012026113010000000000007 8 MB   hit";
        assert_eq!(masked(first), masked(second));
        assert_eq!(masked("5  GW0001  00   0.021\nage: 0"), masked("7  GW0001  00  0\nage: 12"));
        assert_ne!(masked("STATUS 00 normal"), masked("STATUS 01 normal"));
        assert_ne!(masked("hit  00  0"), masked("hit  01  0"));
    }
}
