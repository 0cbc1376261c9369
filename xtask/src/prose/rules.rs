//! The rules of `xtask/prose.toml`, and the one that is built in.

use anyhow::{Context, Result, ensure};
use regex::{Regex, RegexSet};
use serde::Deserialize;

use super::text::Paragraph;

/// Name of the built-in rule.
const HEADLESS: &str = "headless";
/// Words that begin a headless paragraph.
const QUESTION_WORDS: &[&str] = &["What", "Whom", "Whose", "Who", "How", "Where", "Why"];

/// The file as written.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawRules {
    headless_percent: usize,
    #[serde(default)]
    word: Vec<Word>,
    #[serde(default)]
    pattern: Vec<Pattern>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Word {
    text: String,
    reason: String,
    instead: String,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Pattern {
    name: String,
    regex: String,
    reason: String,
    instead: String,
    #[serde(default)]
    chinese: bool,
}

pub(super) struct Rule {
    /// Name in the exceptions file.
    pub(super) name: String,
    reason: String,
    instead: String,
    chinese: bool,
    regex: Option<Regex>,
}

impl Rule {
    /// The text after a hit.
    pub(super) fn advice(&self) -> String {
        format!("{} ({})", self.instead, self.reason)
    }
}

pub(super) struct Rules {
    rules: Vec<Rule>,
    headless: Rule,
    /// The largest share of headless paragraphs.
    pub(super) headless_percent: usize,
    /// Which of the rules match at all.
    any: RegexSet,
}

impl Rules {
    /// Reads the file.
    ///
    /// # Errors
    /// When it is not as [`RawRules`], a regex is wrong, or two rules have one name.
    pub(super) fn parse(text: &str) -> Result<Self> {
        let RawRules { headless_percent, word, pattern } = toml::from_str(text)?;
        let words = word.into_iter().map(|Word { text, reason, instead }| {
            let words: Vec<String> = text.split(' ').map(regex::escape).collect();
            Pattern {
                regex: format!(r"\b{}\b", words.join(r"\s+")),
                name: text,
                reason,
                instead,
                chinese: false,
            }
        });
        let mut rules: Vec<Rule> = Vec::new();
        let mut all = Vec::new();
        for Pattern { name, regex, reason, instead, chinese } in words.chain(pattern) {
            ensure!(!name.contains(',') && name != HEADLESS, "{name}: not a name of a rule");
            ensure!(rules.iter().all(|rule| rule.name != name), "{name}: named twice");
            let regex = if name.starts_with("fragment") {
                regex
            } else {
                format!("(?i){}", regex.replace(' ', r"\s+"))
            };
            all.push(regex.clone());
            let regex = Some(Regex::new(&regex).with_context(|| name.clone())?);
            rules.push(Rule { name, reason, instead, chinese, regex });
        }
        let headless = Rule {
            name: HEADLESS.to_owned(),
            reason: "a paragraph begins with its noun".to_owned(),
            instead: "name the thing".to_owned(),
            chinese: false,
            regex: None,
        };
        Ok(Self { rules, headless, headless_percent, any: RegexSet::new(all)? })
    }

    /// Every match in a paragraph: the rule, the offset, and the words.
    pub(super) fn matches<'a>(
        &'a self,
        paragraph: &'a Paragraph,
        chinese: bool,
    ) -> Vec<(&'a Rule, usize, &'a str)> {
        let text = paragraph.text.as_str();
        let mut found = Vec::new();
        if paragraph.is_doc && is_headless(text) {
            found.push((&self.headless, 0, text.split_whitespace().next().unwrap_or("")));
        }
        for at in self.any.matches(text) {
            let rule = &self.rules[at];
            if let Some(regex) = rule.regex.as_ref().filter(|_| rule.chinese == chinese) {
                found.extend(regex.find_iter(text).map(|hit| (rule, hit.start(), hit.as_str())));
            }
        }
        found
    }
}

/// Whether the first line opens with a question word and asks nothing.
pub(super) fn is_headless(text: &str) -> bool {
    let line = text.lines().next().unwrap_or("");
    let word = line.split(|c: char| !c.is_alphanumeric() && c != '_').next().unwrap_or("");
    QUESTION_WORDS.contains(&word) && !line.contains('?')
}
