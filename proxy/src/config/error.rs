//! Configuration errors: the location, key, problem and remedy of each. All problems of a configuration are reported
//! together.

use std::fmt;
use std::path::{Path, PathBuf};

use crate::printable;

/// One problem of a configuration. No field repeats a line of the file: it might hold a secret.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ConfigError {
    /// The file, and the position in it where one is known.
    pub location: Location,
    /// The key as the documentation writes it, such as `[gateway] deadline`; empty if the file as a whole is wrong.
    pub key: String,
    /// The rule that does not hold.
    pub problem: String,
    /// The correction; empty if the problem states it already.
    pub remedy: String,
}

impl ConfigError {
    pub(super) fn new(key: impl Into<String>, problem: impl Into<String>) -> Self {
        Self {
            location: Location::default(),
            key: key.into(),
            problem: problem.into(),
            remedy: String::new(),
        }
    }

    /// A problem of a whole file.
    pub(super) fn of_file(path: &Path, problem: impl Into<String>) -> Self {
        Self::new("", problem).at(Location::file(path))
    }

    pub(super) fn remedy(self, remedy: impl Into<String>) -> Self {
        Self { remedy: remedy.into(), ..self }
    }

    pub(super) fn at(self, location: Location) -> Self {
        Self { location, ..self }
    }
}

impl std::error::Error for ConfigError {}

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let location = self.location.to_string();
        let parts = [location.as_str(), &self.key, &self.problem, &self.remedy];
        for (index, part) in parts.into_iter().filter(|part| !part.is_empty()).enumerate() {
            let separator = if index == 0 { "" } else { ": " };
            write!(f, "{separator}{part}")?;
        }
        Ok(())
    }
}

/// A file, and a line and column in it, both counted from 1.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Location {
    /// Empty for a configuration that was not read from a file.
    pub path: PathBuf,
    /// The line, where it is known.
    pub line: Option<u32>,
    /// The column, where it is known.
    pub column: Option<u32>,
}

impl Location {
    pub(super) fn file(path: &Path) -> Self {
        Self { path: path.to_owned(), line: None, column: None }
    }

    pub(super) fn line(path: &Path, line: usize) -> Self {
        Self { path: path.to_owned(), line: number(line), column: None }
    }

    /// The position of a byte of a file's text.
    pub(super) fn byte(path: &Path, text: &str, byte: usize) -> Self {
        let before = &text.as_bytes()[..byte.min(text.len())];
        let line_start = before.iter().rposition(|b| *b == b'\n').map_or(0, |i| i + 1);
        let line = before.iter().filter(|b| **b == b'\n').count() + 1;
        let column = String::from_utf8_lossy(&before[line_start..]).chars().count() + 1;
        Self { path: path.to_owned(), line: number(line), column: number(column) }
    }
}

fn number(count: usize) -> Option<u32> {
    u32::try_from(count).ok()
}

impl fmt::Display for Location {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.path.display())?;
        for number in [self.line, self.column].into_iter().flatten() {
            write!(f, ":{number}")?;
        }
        Ok(())
    }
}

/// All problems of a configuration, in the order of its checks; never empty.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ConfigErrors(Vec<ConfigError>);

impl ConfigErrors {
    /// The problems that [`Self::summary`] names.
    const IN_SUMMARY: usize = 10;

    /// Fails if there is any problem.
    pub(super) fn check(problems: Vec<ConfigError>) -> Result<(), Self> {
        if problems.is_empty() { Ok(()) } else { Err(Self(problems)) }
    }

    /// The problems.
    pub fn iter(&self) -> impl Iterator<Item = &ConfigError> {
        self.0.iter()
    }

    /// The problems in one line, for the log and for an alarm; the first ones if there are many.
    pub fn summary(&self) -> String {
        let named: Vec<_> = self.0.iter().take(Self::IN_SUMMARY).map(ToString::to_string).collect();
        let mut summary = named.join("; ");
        if self.0.len() > 1 {
            summary.push_str(&format!(" ({} problems)", self.0.len()));
        }
        summary
    }
}

impl IntoIterator for ConfigErrors {
    type Item = ConfigError;
    type IntoIter = std::vec::IntoIter<ConfigError>;

    fn into_iter(self) -> Self::IntoIter {
        self.0.into_iter()
    }
}

impl From<ConfigError> for ConfigErrors {
    fn from(error: ConfigError) -> Self {
        Self(vec![error])
    }
}

impl std::error::Error for ConfigErrors {}

/// One problem per line, with its control characters escaped, then their number if there are several.
impl fmt::Display for ConfigErrors {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let lines: Vec<_> =
            self.0.iter().map(|error| printable::escape(&error.to_string()).into_owned()).collect();
        f.write_str(&lines.join("\n"))?;
        match self.0.len() {
            1 => Ok(()),
            count => write!(f, "\n{count} problems"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_shows_the_parts_that_it_has() {
        let error = ConfigError::new("[gateway] deadline", "must be longer than zero");
        assert_eq!(error.to_string(), "[gateway] deadline: must be longer than zero");
        let error = error.remedy("write \"20s\"").at(Location::byte(Path::new("p.toml"), "a\nbc", 3));
        assert_eq!(
            error.to_string(),
            "p.toml:2:2: [gateway] deadline: must be longer than zero: write \"20s\""
        );
        let file = ConfigError::of_file(Path::new("p.toml"), "cannot be read");
        assert_eq!(file.to_string(), "p.toml: cannot be read");
    }

    #[test]
    fn several_problems_are_lines_and_a_count_or_one_line() {
        let errors = ConfigErrors(vec![ConfigError::new("a", "x"), ConfigError::new("b", "y")]);
        assert_eq!(errors.to_string(), "a: x\nb: y\n2 problems");
        assert_eq!(errors.summary(), "a: x; b: y (2 problems)");
        assert_eq!(ConfigErrors::from(ConfigError::new("a", "x")).to_string(), "a: x");
        assert_eq!(ConfigErrors::check(Vec::new()), Ok(()));
    }
}
