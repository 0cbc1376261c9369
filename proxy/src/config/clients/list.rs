//! A clients file: TOML (`[[client]]` tables) or CSV with a header line. CSV columns are named as the keys are; several values
//! of one column are separated by blanks; an empty cell means absent.

use std::path::Path;

use crate::config::document::Document;
use crate::config::error::{ConfigError, ConfigErrors, Location};
use crate::config::file::{self, ClientsFile};
use crate::config::text::Csv;

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
            let error = ConfigError::of_file(path, "is neither CSV nor TOML by its name");
            Err(error.remedy("end the name of a clients file in .csv or .toml").into())
        }
    }
}

fn parse_csv(path: &Path, text: &str) -> Result<Vec<file::Client>, ConfigErrors> {
    let list = Csv::read(path, text)?;
    let has = |name: &str| list.heading.iter().any(|column| column == name);
    if !has("group") || !has("appid") {
        let problem = "the header needs the columns group and appid";
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
fn from_record(header: &csv::StringRecord, record: &csv::StringRecord) -> Result<file::Client, String> {
    let mut table = toml::Table::new();
    for (column, cell) in header.iter().zip(record).filter(|(_, cell)| !cell.is_empty()) {
        let value = match column {
            "peers" | "operations" | "cards" => {
                cell.split_whitespace().map(toml::Value::from).collect::<Vec<_>>().into()
            }
            "rate" | "burst" => {
                toml::Value::Integer(cell.parse().map_err(|_| format!("{column}: must be a whole number"))?)
            }
            _ => toml::Value::from(cell),
        };
        table.insert(column.to_owned(), value);
    }
    table.try_into().map_err(|e: toml::de::Error| match e.message() {
        // These name a column alone; other texts would repeat a cell, which may be a password in the wrong column.
        named if named.starts_with("unknown field") || named.starts_with("missing field") => named.to_owned(),
        _ => "a cell does not fit its column".to_owned(),
    })
}
