//! A clients file: TOML (`[[client]]` tables) or CSV with a header line. CSV columns are named as the keys are; several values
//! of one column are separated by blanks; an empty cell means absent.

use std::path::Path;

use crate::config::document::Document;
use crate::config::error::{self, ConfigError, ConfigErrors, Location};
use crate::config::file::{self, ClientsFile};
use crate::config::text::Csv;
use crate::language::{Text, text};

/// The clients of a clients file; the extension of `path` decides the format.
///
/// # Errors
/// All lines that are wrong. None repeats the text of a line.
pub(crate) fn parse(path: &Path, text: &str) -> Result<Vec<file::Client>, ConfigErrors> {
    let extension = path.extension().map(std::ffi::OsStr::to_ascii_lowercase);
    match extension.as_ref().and_then(|extension| extension.to_str()) {
        Some("toml") => {
            let read = Document::<ClientsFile>::read(path, text);
            ConfigErrors::check(read.errors)?;
            Ok(read.value.unwrap_or_default().clients)
        }
        Some("csv") => parse_csv(path, text),
        _ => {
            let problem = text!("is neither CSV nor TOML by its name", "从名称看既不是 CSV 也不是 TOML");
            let remedy = text!(
                "end the name of a clients file in .csv or .toml",
                "客户端文件的名称请以 .csv 或 .toml 结尾"
            );
            Err(ConfigError::of_file(path, problem).remedy(remedy).into())
        }
    }
}

fn parse_csv(path: &Path, text: &str) -> Result<Vec<file::Client>, ConfigErrors> {
    let list = Csv::read(path, text)?;
    let has = |name: &str| list.heading.iter().any(|column| column == name);
    if !has("group") || !has("appid") {
        let problem = text!("the header needs the columns group and appid", "标题行需要 group 和 appid 两列");
        return Err(ConfigError::new("", problem).at(Location::line(path, list.line)).into());
    }
    let (mut clients, mut errors) = (Vec::with_capacity(list.rows.len()), Vec::new());
    for (line, row) in &list.rows {
        match from_record(&list.heading, row) {
            Ok(client) => clients.push(client),
            Err(problem) => errors.push(ConfigError::new("", problem).at(Location::line(path, *line))),
        }
    }
    ConfigErrors::check(errors)?;
    Ok(clients)
}

/// A client from one line of CSV: as if its cells were the values of a TOML table.
fn from_record(header: &csv::StringRecord, record: &csv::StringRecord) -> Result<file::Client, Text> {
    let mut table = toml::Table::new();
    for (column, cell) in header.iter().zip(record).filter(|(_, cell)| !cell.is_empty()) {
        let value = match column {
            "peers" | "operations" | "cards" => {
                cell.split_whitespace().map(toml::Value::from).collect::<Vec<_>>().into()
            }
            "rate" | "burst" => toml::Value::Integer(cell.parse().map_err(|_| error::whole_number(column))?),
            _ => toml::Value::from(cell),
        };
        table.insert(column.to_owned(), value);
    }
    table.try_into().map_err(|e: toml::de::Error| match e.message() {
        // These name a column alone; other texts would repeat a cell, which may be a password in the wrong column.
        named if named.starts_with("unknown field") || named.starts_with("missing field") => {
            Text::untranslated(named)
        }
        _ => text!("a cell does not fit its column", "有单元格与其列不符"),
    })
}
