//! Text files as editors and spreadsheets write them: a byte-order mark is no part of the text, and errors name the line.

use std::path::Path;

use super::error::{ConfigError, Location};
use crate::language::{Text, text};

/// The text without the byte-order mark that some programs begin a file with.
pub fn without_mark(text: &str) -> &str {
    text.strip_prefix('\u{feff}').unwrap_or(text)
}

/// One entry of a list: its line, counted from 1, and its text.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Entry {
    pub(super) line: usize,
    pub(super) text: String,
}

/// The entries of a list, one per line; blanks, and text after a `#`, are ignored.
pub(super) fn entries(text: &str) -> Vec<Entry> {
    let lines = without_mark(text).lines().map(|line| line.split('#').next().unwrap_or_default().trim());
    let numbered = lines.enumerate().filter(|(_, text)| !text.is_empty());
    numbered.map(|(index, text)| Entry { line: index + 1, text: text.to_owned() }).collect()
}

/// A CSV list with a heading, read whole.
pub(super) struct Csv {
    pub(super) heading: csv::StringRecord,
    /// The line of the heading.
    pub(super) line: usize,
    /// Each with its line.
    pub(super) rows: Vec<(usize, csv::StringRecord)>,
}

impl Csv {
    /// Reads it; blank lines and lines that begin with a `#` are ignored.
    ///
    /// # Errors
    /// A sentence with file and line. It does not repeat the text, which might be a password.
    pub(super) fn read(path: &Path, text: &str) -> Result<Self, ConfigError> {
        let text = without_mark(text);
        let wrong = |line: usize, problem: Text| ConfigError::new("", problem).at(Location::line(path, line));
        let mut lines = Lines { text, at: 0, line: 1 };
        let mut reader =
            csv::ReaderBuilder::new().trim(csv::Trim::All).comment(Some(b'#')).from_reader(text.as_bytes());
        let heading =
            reader.headers().map_err(|_| wrong(1, text!("is no header line", "不是标题行")))?.clone();
        let line = lines.of(0);
        for (at, name) in heading.iter().enumerate() {
            if !name.is_empty() && heading.iter().take(at).any(|before| before == name) {
                return Err(wrong(
                    line,
                    text!(
                        "two columns have the heading {name}: keep one",
                        "有两列的标题都是 {name}：请只保留一列"
                    ),
                ));
            }
        }
        let mut rows = Vec::new();
        for record in reader.records() {
            let record = record.map_err(|error| {
                wrong(
                    lines.at(error.position()),
                    text!("has not as many columns as the header", "列数与标题行不一致"),
                )
            })?;
            let line = lines.at(record.position());
            let unnamed =
                heading.iter().zip(&record).position(|(name, cell)| name.is_empty() && !cell.is_empty());
            if let Some(column) = unnamed {
                return Err(wrong(
                    line,
                    text!(
                        "column {number} has a value and no heading",
                        "第 {number} 列有值但没有标题",
                        number = column + 1
                    ),
                ));
            }
            rows.push((line, record));
        }
        Ok(Self { heading, line, rows })
    }
}

/// Counts lines up to records that follow each other.
struct Lines<'a> {
    text: &'a str,
    at: usize,
    line: usize,
}

impl Lines<'_> {
    fn at(&mut self, position: Option<&csv::Position>) -> usize {
        self.of(position.map_or(self.at, |at| usize::try_from(at.byte()).unwrap_or(usize::MAX)))
    }

    /// The line of the record that begins at this byte, or behind the rest of a line end, blank lines and comments there.
    fn of(&mut self, byte: usize) -> usize {
        let bytes = self.text.as_bytes();
        let mut start = byte.min(bytes.len());
        while let Some(&byte) = bytes.get(start) {
            if byte == b'#' {
                start += bytes[start..].iter().take_while(|&&byte| byte != b'\n').count();
            } else if byte.is_ascii_whitespace() {
                start += 1;
            } else {
                break;
            }
        }
        if start > self.at {
            self.line += bytes[self.at..start].iter().filter(|&&byte| byte == b'\n').count();
            self.at = start;
        }
        self.line
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_list_is_read_with_a_mark_and_either_end_of_line() {
        let read = entries("\u{feff}GW1\r\n\r\n# no\r\nGW2 # why\r\n");
        let entry = |line, text: &str| Entry { line, text: text.to_owned() };
        assert_eq!(read, [entry(1, "GW1"), entry(4, "GW2")]);
    }

    #[test]
    fn a_csv_list_is_read_with_a_mark_and_refused_with_its_line() {
        let read = |text: &str| Csv::read(Path::new("c.csv"), text);
        let csv =
            read("\u{feff}# depot\r\n\r\nappid,group,\r\n# x\r\nA,g,\r\n").unwrap_or_else(|e| panic!("{e}"));
        assert_eq!((&csv.heading[0], csv.line, csv.rows[0].0, &csv.rows[0].1[0]), ("appid", 3, 5, "A"));
        let error = |text: &str| read(text).err().unwrap().to_string();
        assert_eq!(error("a,b\n# x\n1,2\n\n1\n"), "c.csv:5: has not as many columns as the header");
        assert_eq!(error("# x\na,a\n1,2\n"), "c.csv:2: two columns have the heading a: keep one");
        assert_eq!(error("a,\n1,secret\n"), "c.csv:2: column 2 has a value and no heading");
    }
}
