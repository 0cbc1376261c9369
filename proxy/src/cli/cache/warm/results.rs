//! The result file: CSV with the columns `card,outcome,code,status,reason,input`.
//!
//! While the command runs, a line is appended as each card is done, so that a second run goes on where the first was
//! interrupted, and tries failed cards again. At the end the file is replaced: one line per line of the cards' file, in its
//! order, with the first column of that line as `input`. `card` is the key: the kind and number, and the declared
//! parameters (`msisdn:14765004176?query_date=20260101`). Lines with other parameters stay in front.

use std::collections::{HashMap, HashSet};
use std::fs::{File, OpenOptions};
use std::io::{BufWriter, Write as _};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use anyhow::Context;
use cmiot_proxy::audit::render;
use cmiot_proxy::store::audit::query::Field;
use cmiot_signer::Card;

use super::cards::Input;

const HEADING: &str = "card,outcome,code,status,reason,input";

/// The key of a card with the suffix of the declared parameters.
pub(super) fn name(card: &Card, parameters: &str) -> String {
    format!("{}:{}{parameters}", card.kind().as_str(), card.as_str())
}

/// The key as a cell of the result file.
pub(super) fn key(card: &Card, parameters: &str) -> String {
    cell(name(card, parameters))
}

/// A line for a key and its outcome, code, status and reason; without the input.
pub(super) fn line(name: &str, result: &[String; 4]) -> String {
    let row: Vec<Field> = std::iter::once(name)
        .chain(result.iter().map(String::as_str))
        .chain([""])
        .map(|text| Field::Text(text.to_owned()))
        .collect();
    render::csv_line(&row)
}

/// The keys that need not be fetched again.
///
/// # Errors
/// A file that cannot be read.
pub(super) fn finished(path: &Path) -> anyhow::Result<HashSet<String>> {
    let rows = read(path)?;
    let done = rows.into_iter().filter(|row| matches!(row.get(1), Some("fetched" | "fresh")));
    Ok(done.filter_map(|row| row.get(0).map(str::to_owned)).collect())
}

/// Opens the file to append lines; a new one gets its heading.
///
/// # Errors
/// A file that cannot be written.
pub(super) fn open(path: &Path) -> anyhow::Result<File> {
    let mut file = OpenOptions::new()
        .create(true)
        .append(true)
        // Card numbers are in it: for its owner alone.
        .mode(0o600)
        .open(path)
        .with_context(|| path.display().to_string())?;
    let text = std::fs::read(path).with_context(|| path.display().to_string())?;
    if text.is_empty() {
        writeln!(file, "{HEADING}")?;
    } else if !text.ends_with(b"\n") {
        writeln!(file)?; // cut off in the middle of a line, which is not counted
    }
    Ok(file)
}

/// Replaces the file by one with a line per input, in the order of the inputs; the last outcome of a card counts.
///
/// # Errors
/// A file that cannot be read or replaced; the old one stays then.
pub(super) fn put_in_order(path: &Path, inputs: &[Input], parameters: &str) -> anyhow::Result<()> {
    let failed = || format!("{}: cannot be put in the order of the cards", path.display());
    let keys: HashSet<String> = inputs.iter().map(|input| key(&input.card, parameters)).collect();
    let mut others = Vec::new();
    let mut last = HashMap::new();
    for row in read(path)? {
        match row.get(0) {
            Some(key) if keys.contains(key) => drop(last.insert(key.to_owned(), row)),
            _ => others.push(row),
        }
    }
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    // With mode 0600.
    let mut file = tempfile::NamedTempFile::new_in(folder).with_context(failed)?;
    let mut writer = BufWriter::new(&mut file);
    writeln!(writer, "{HEADING}").with_context(failed)?;
    let mut csv = csv::WriterBuilder::new().flexible(true).from_writer(&mut writer);
    for row in &others {
        csv.write_record(row).with_context(failed)?;
    }
    for input in inputs {
        // A card without an outcome was not reached.
        let Some(row) = last.get(&key(&input.card, parameters)) else { continue };
        let input = cell(input.text.clone());
        csv.write_record(row.iter().take(5).chain([input.as_str()])).with_context(failed)?;
    }
    csv.flush().with_context(failed)?;
    drop(csv);
    writer.flush().with_context(failed)?;
    drop(writer);
    file.as_file().sync_all().with_context(failed)?;
    file.persist(path).with_context(failed)?;
    Ok(())
}

/// The rows below the heading. A last line without its end is left out.
fn read(path: &Path) -> anyhow::Result<Vec<csv::StringRecord>> {
    let text = match std::fs::read_to_string(path) {
        Ok(text) => text,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => String::new(),
        Err(error) => return Err(error).with_context(|| path.display().to_string()),
    };
    let whole = text.rfind('\n').map_or("", |end| &text[..end]);
    let rows = whole.lines().filter_map(|line| {
        // Line by line: a cut line with a quotation mark must not swallow the next.
        let mut reader = csv::ReaderBuilder::new().has_headers(false).from_reader(line.as_bytes());
        reader.records().next()?.ok()
    });
    Ok(rows.filter(|row| row.get(0) != Some("card")).collect())
}

/// The text of a cell.
fn cell(text: String) -> String {
    render::cell(&Field::Text(text))
}

#[cfg(test)]
mod tests {
    use cmiot_signer::CardKind;

    use super::*;

    #[test]
    fn what_failed_and_what_was_cut_off_is_tried_again() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("result.csv");
        assert!(finished(&path).unwrap().is_empty());
        std::fs::write(
            &path,
            "card,outcome\nmsisdn:1,fetched,0,00,\nmsisdn:2,failed,73,,connect\nmsisdn:3,fresh,0",
        )
        .unwrap();
        assert_eq!(finished(&path).unwrap(), HashSet::from(["msisdn:1".to_owned()]));
        let name = "msisdn:4?x=a,\"b\"\u{202e}".to_owned();
        let row = line(&name, &["fresh", "0", "00", ""].map(str::to_owned));
        std::fs::write(&path, format!("card,outcome\n{row}\n")).unwrap();
        assert_eq!(finished(&path).unwrap(), HashSet::from([cell(name)]));
        std::fs::write(&path, "card,outcome\nmsisdn:3,fresh,0").unwrap();
        drop(open(&path).unwrap());
        assert!(std::fs::read_to_string(&path).unwrap().ends_with("fresh,0\n"));
    }

    #[test]
    fn the_file_has_a_line_per_input_in_its_order_and_the_last_outcome_of_each() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("result.csv");
        let input =
            |text: &str| Input { text: text.to_owned(), card: Card::parse(CardKind::Msisdn, text).unwrap() };
        std::fs::write(
            &path,
            "card,outcome,code,status,reason\nmsisdn:2,failed,73,,\"a \"\"b\"\"\"\nmsisdn:9?x=1,fresh,0,00,\n\
             msisdn:1,fresh,0,00,\nmsisdn:2,fetched,0,02,,\n",
        )
        .unwrap();
        put_in_order(&path, &[input("1"), input("2"), input("3"), input("1")], "").unwrap();
        let written = std::fs::read_to_string(&path).unwrap();
        assert_eq!(
            written,
            "card,outcome,code,status,reason,input\nmsisdn:9?x=1,fresh,0,00,\nmsisdn:1,fresh,0,00,,1\n\
             msisdn:2,fetched,0,02,,2\nmsisdn:1,fresh,0,00,,1\n"
        );
        put_in_order(&path, &[input("1"), input("2"), input("3"), input("1")], "").unwrap();
        assert_eq!(std::fs::read_to_string(&path).unwrap(), written, "a second time nothing changes");
    }
}
