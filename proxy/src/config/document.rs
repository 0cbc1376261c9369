//! Reads a TOML document with all of its errors: an entry that is wrong is reported and left out, and the rest is read
//! again.

use std::collections::HashSet;
use std::mem;
use std::ops::Range;
use std::path::Path;

use serde::de::DeserializeOwned;
use toml::Spanned;
use toml::de::{DeTable, DeValue, Deserializer};

use super::error::{ConfigError, Location};
use super::renamed::{self, RENAMED};
use super::text::without_mark;
use crate::language::Text;

/// Errors of one document that are reported; a file with more is probably not meant as one.
const MAX_ERRORS: usize = 100;

/// The result of reading a document.
pub(super) struct Document<T> {
    /// The document without its wrong entries; none if nothing can be made of it.
    pub(super) value: Option<T>,
    pub(super) errors: Vec<ConfigError>,
    /// The top-level keys that are incomplete, since something under them was wrong.
    pub(super) incomplete: HashSet<String>,
    /// Old names of keys that were found, one sentence for each.
    pub(super) warnings: Vec<Text>,
    /// Whether `client` or `derive` is among the top-level keys, be it empty.
    pub(super) names_clients: bool,
}

impl<T: DeserializeOwned> Document<T> {
    /// Reads a file's text.
    pub(super) fn read(path: &Path, text: &str) -> Self {
        let text = without_mark(text);
        let mut read = Self {
            value: None,
            errors: Vec::new(),
            incomplete: HashSet::new(),
            warnings: Vec::new(),
            names_clients: false,
        };
        let (table, errors) = DeTable::parse_recoverable(text);
        if !errors.is_empty() {
            let error = |e: &toml::de::Error| error(path, text, e);
            read.errors = errors.iter().take(MAX_ERRORS).map(error).collect();
            return read;
        }
        read.names_clients = ["client", "derive"].iter().any(|key| table.get_ref().contains_key(*key));
        let mut wrong = WrongEntries::default();
        loop {
            // Parsed again after each error, instead of copied before each: a document mostly has none.
            let (mut document, _) = DeTable::parse_recoverable(text);
            let renamed = renamed::rename(document.get_mut(), RENAMED, path, text);
            if wrong.entries.is_empty() {
                read.errors = renamed.conflicts;
                read.warnings = renamed.warnings;
            }
            wrong.remove_from(document.get_mut(), &mut read);
            let failed = match T::deserialize(Deserializer::from(document)) {
                Ok(value) => {
                    read.value = Some(value);
                    break;
                }
                Err(failed) => failed,
            };
            let index = if wrong.cause(&failed) {
                None
            } else {
                read.errors.push(error(path, text, &failed));
                Some(read.errors.len() - 1)
            };
            if !wrong.add(failed.span(), index) {
                break;
            }
        }
        read.errors.sort_by_key(|error| (error.location.line, error.location.column));
        read
    }
}

/// The entries that were found wrong so far.
#[derive(Default)]
struct WrongEntries {
    entries: Vec<WrongEntry>,
    /// The keys that were removed with them, each with the span of the table that needs it.
    removed: HashSet<(String, Range<usize>)>,
}

struct WrongEntry {
    span: Range<usize>,
    /// The index of its error; none if it is wrong only because of another one.
    error: Option<usize>,
}

impl WrongEntries {
    /// Removes them from a document, and completes their errors with their keys.
    fn remove_from<T>(&mut self, document: &mut DeTable<'_>, read: &mut Document<T>) {
        for WrongEntry { span, error } in &self.entries {
            let Some(removed) = remove(document, span.start) else { continue };
            if let Some(error) = error {
                read.errors[*error].key = removed.shown();
            }
            read.incomplete.extend(removed.path.into_iter().next());
            self.removed.extend(removed.key);
        }
    }

    /// Whether an error only says that a removed key is missing.
    fn cause(&self, error: &toml::de::Error) -> bool {
        let missing = error.message().strip_prefix("missing field `").and_then(|rest| rest.strip_suffix('`'));
        missing.zip(error.span()).is_some_and(|(key, span)| self.removed.contains(&(key.to_owned(), span)))
    }

    /// Adds the entry at this span. Returns whether reading the document again can find more.
    fn add(&mut self, span: Option<Range<usize>>, error: Option<usize>) -> bool {
        let Some(span) = span else { return false };
        if self.entries.len() >= MAX_ERRORS || self.entries.iter().any(|before| before.span == span) {
            return false;
        }
        self.entries.push(WrongEntry { span, error });
        true
    }
}

fn error(path: &Path, text: &str, error: &toml::de::Error) -> ConfigError {
    let location = match error.span() {
        Some(span) => Location::byte(path, text, span.start),
        None => Location::file(path),
    };
    ConfigError::new("", Text::untranslated(error.message())).at(location)
}

/// An entry that was removed.
struct Removed {
    /// The names of the tables that it was in, from the top.
    path: Vec<String>,
    /// Its key, and the span of the table that needs it; none for a whole table.
    key: Option<(String, Range<usize>)>,
}

impl Removed {
    /// As in the documentation: `[gateway] deadline`.
    fn shown(&self) -> String {
        let table = format!("[{}]", self.path.join("."));
        match &self.key {
            Some((key, _)) => format!("{table} {key}"),
            None => table,
        }
    }
}

/// Removes the innermost entry whose key or value contains this byte.
fn remove(document: &mut DeTable<'_>, at: usize) -> Option<Removed> {
    if let Some(inside) = remove_in_tables(document, at) {
        return Some(inside);
    }
    Some(Removed { path: vec![remove_here(document, at)?], key: None })
}

fn remove_in_tables(table: &mut DeTable<'_>, at: usize) -> Option<Removed> {
    table.iter_mut().find_map(|(name, value)| {
        let mut removed = remove_inside(value, at)?;
        removed.path.insert(0, name.get_ref().to_string());
        Some(removed)
    })
}

/// Removes an entry below a value: a key of a table, or a whole table of an array.
fn remove_inside(value: &mut Spanned<DeValue<'_>>, at: usize) -> Option<Removed> {
    let span = value.span();
    match value.get_mut() {
        DeValue::Table(table) => remove_in_tables(table, at).or_else(|| {
            let key = remove_here(table, at)?;
            Some(Removed { path: Vec::new(), key: Some((key, span)) })
        }),
        DeValue::Array(array) if array.iter().any(|element| element.get_ref().is_table()) => {
            if let Some(inside) = array.iter_mut().find_map(|element| remove_inside(element, at)) {
                return Some(inside);
            }
            let wrong = array.iter().position(|element| element.span().contains(&at))?;
            let elements = mem::replace(array, std::iter::empty().collect()).into_iter().enumerate();
            *array = elements.filter(|(index, _)| *index != wrong).map(|(_, element)| element).collect();
            Some(Removed { path: Vec::new(), key: None })
        }
        _ => None,
    }
}

fn remove_here(table: &mut DeTable<'_>, at: usize) -> Option<String> {
    let found = table.iter().find(|(key, value)| key.span().contains(&at) || value.span().contains(&at));
    let key = found?.0.get_ref().to_string();
    table.remove(key.as_str());
    Some(key)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::ConfigFile;

    fn read(text: &str) -> Document<ConfigFile> {
        Document::read(Path::new("p.toml"), text)
    }

    fn lines(text: &str) -> Vec<String> {
        read(text).errors.iter().map(ToString::to_string).collect()
    }

    #[test]
    fn every_wrong_entry_is_reported_at_its_position() {
        let text = "[gateway]\ndeadline = 20\nlisten = \"x\"\ngrase = \"1s\"\n[cash]\n[store]\ndir = \"d\"\n\
                    [[account]]\nname = \"a\"\nappid = 1\nebid = \"e\"\n[[client]]\ngroup = \"a\"\n";
        let errors = lines(text);
        for (position, text) in [
            ("p.toml:2:12: [gateway] deadline:", "a duration"),
            ("p.toml:3:10:", "is not an address"),
            ("p.toml:4:1:", "grase"),
            ("p.toml:5:2:", "cash"),
            ("p.toml:10:9:", "invalid type"),
            ("p.toml:12:1:", "missing field `appid`"),
        ] {
            let found = errors.iter().any(|error| error.starts_with(position) && error.contains(text));
            assert!(found, "{position} {text}: {errors:#?}");
        }
        assert_eq!(errors.len(), 6, "{errors:#?}");
        let file = read(text).value.unwrap();
        assert_eq!(file.store.dir, Path::new("d"), "the rest is read");
    }

    #[test]
    fn every_syntax_error_is_reported() {
        let errors = lines("[gateway\ndeadline = \"20s\"\n[store]\ndir = \n");
        assert!(errors.len() >= 2 && errors[0].starts_with("p.toml:1:"), "{errors:#?}");
        assert!(errors.iter().any(|error| error.starts_with("p.toml:4:")), "{errors:#?}");
    }
}
