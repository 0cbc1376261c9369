//! Clients as rows of keys and values, read from one list and merged into another, of CSV or TOML: each text is gone
//! through once, whatever the number of rows.

use std::collections::HashMap;
use std::path::Path;

use toml_edit::{ArrayOfTables, DocumentMut, Item, Table, value};
use zeroize::Zeroizing;

use super::super::error::{self, ConfigError, Location};
use super::super::text::{Csv, without_mark};
use crate::language::{Text, text};

/// A column or key, and its new value; none removes it.
pub type Change<'a> = (&'a str, Option<String>);

fn is_csv(path: &Path) -> bool {
    path.extension().is_some_and(|extension| extension.eq_ignore_ascii_case("csv"))
}

/// Each client's appid and its line.
pub(super) fn appids(path: &Path, text: &str) -> Result<Vec<(String, usize)>, ConfigError> {
    #[derive(serde::Deserialize)]
    struct List {
        #[serde(default)]
        client: Vec<Row>,
    }
    #[derive(serde::Deserialize)]
    struct Row {
        appid: toml::Spanned<String>,
    }
    if is_csv(path) {
        let list = Csv::read(path, text)?;
        let at = list.heading.iter().position(|column| column == "appid");
        let at = at.ok_or_else(|| {
            let problem = text!("the header needs the column appid", "标题行需要 appid 列");
            ConfigError::new("", problem).at(Location::line(path, list.line))
        })?;
        let row =
            |(line, row): &(usize, csv::StringRecord)| (row.get(at).unwrap_or_default().to_owned(), *line);
        return Ok(list.rows.iter().map(row).collect());
    }
    let text = without_mark(text);
    let list: List =
        toml::from_str(text).map_err(|e| ConfigError::of_file(path, Text::untranslated(e.message())))?;
    let (mut line, mut counted) = (1, 0);
    let rows = list.client.into_iter().map(|row| {
        let start = row.appid.span().start;
        line += text.as_bytes()[counted..start].iter().filter(|&&byte| byte == b'\n').count();
        counted = start;
        (row.appid.into_inner(), line)
    });
    Ok(rows.collect())
}

/// The keys and values of each client, as one column would hold them.
pub(super) fn read(path: &Path, text: &str) -> Result<Vec<Vec<(String, String)>>, ConfigError> {
    if is_csv(path) {
        let list = Csv::read(path, text)?;
        let row = |(_, row): &(usize, csv::StringRecord)| {
            let cells = list.heading.iter().zip(row).filter(|(_, cell)| !cell.is_empty());
            cells.map(|(key, cell)| (key.to_owned(), cell.to_owned())).collect()
        };
        return Ok(list.rows.iter().map(row).collect());
    }
    let text = without_mark(text);
    let document: DocumentMut =
        text.parse().map_err(|_| ConfigError::of_file(path, text!("is not TOML", "不是 TOML")))?;
    let tables = document.get("client").map(|clients| tables(clients.clone())).transpose();
    let tables = tables.map_err(|problem| ConfigError::of_file(path, problem))?;
    let row = |table: &Table| table.iter().map(|(key, item)| (key.to_owned(), as_cell(item))).collect();
    Ok(tables.iter().flatten().map(row).collect())
}

/// A list's text with these clients changed, or added where there is none of their appid.
pub(super) fn merge(
    path: &Path,
    text: &str,
    rows: &[(&str, Vec<Change<'_>>)],
) -> Result<Zeroizing<String>, ConfigError> {
    let text = without_mark(text);
    let merged = if is_csv(path) { merge_csv(text, rows) } else { merge_toml(text, rows) };
    merged.map_err(|problem| ConfigError::of_file(path, problem))
}

/// The appid of a client that [`read`] returned; empty if it has none.
pub(super) fn appid(row: &[(String, String)]) -> &str {
    row.iter().find(|(key, _)| key == "appid").map_or("", |(_, value)| value)
}

/// A list's text without the client of this appid; none if the list has no such client.
pub(super) fn remove(path: &Path, text: &str, appid: &str) -> Result<Option<Zeroizing<String>>, ConfigError> {
    let text = without_mark(text);
    let removed = if is_csv(path) { remove_csv(text, appid) } else { remove_toml(text, appid) };
    removed.map_err(|problem| ConfigError::of_file(path, problem))
}

/// A TOML value as a CSV cell: lists are separated by blanks.
fn as_cell(item: &Item) -> String {
    match (item.as_str(), item.as_array()) {
        (Some(text), _) => text.to_owned(),
        (_, Some(list)) => {
            let words: Vec<_> = list.iter().filter_map(toml_edit::Value::as_str).collect();
            words.join(" ")
        }
        _ => item.to_string().trim().to_owned(),
    }
}

/// The tables of `client`: `[[client]]`, or an array of inline tables.
fn tables(clients: Item) -> Result<ArrayOfTables, Text> {
    if clients.as_array().is_some_and(toml_edit::Array::is_empty) {
        return Ok(ArrayOfTables::new());
    }
    clients
        .into_array_of_tables()
        .map_err(|_| text!("`client` must be [[client]] tables", "`client` 必须是 [[client]] 表"))
}

fn is_no_toml() -> Text {
    text!("the clients file is not TOML", "客户端文件不是 TOML")
}

fn no_column() -> Text {
    text!("no column appid", "没有 appid 列")
}

fn merge_toml(text: &str, rows: &[(&str, Vec<Change<'_>>)]) -> Result<Zeroizing<String>, Text> {
    let mut document: DocumentMut = text.parse().map_err(|_| is_no_toml())?;
    let entry = document.entry("client").or_insert(Item::ArrayOfTables(ArrayOfTables::new()));
    *entry = Item::ArrayOfTables(tables(std::mem::take(entry))?);
    let clients = entry.as_array_of_tables_mut().ok_or_else(is_no_toml)?;
    let appid = |table: &Table| table.get("appid").and_then(Item::as_str).unwrap_or_default().to_owned();
    let known: HashMap<String, usize> =
        clients.iter().enumerate().map(|(at, table)| (appid(table), at)).collect();
    for (appid, changes) in rows {
        let index = known.get(*appid).copied().unwrap_or_else(|| {
            let mut table = Table::new();
            table["appid"] = value(*appid);
            clients.push(table);
            clients.len() - 1
        });
        let table = clients.get_mut(index).ok_or_else(is_no_toml)?;
        for (key, new) in changes {
            match new {
                None => drop(table.remove(key)),
                Some(new) => table[*key] = toml_value(key, new)?,
            }
        }
    }
    Ok(Zeroizing::new(document.to_string()))
}

/// Comments directly above the client belong to it and are removed with it; those above a blank line, and at the top of
/// the file, stay.
fn remove_toml(text: &str, appid: &str) -> Result<Option<Zeroizing<String>>, Text> {
    let mut document: DocumentMut = text.parse().map_err(|_| is_no_toml())?;
    let Some(entry) = document.get_mut("client") else { return Ok(None) };
    *entry = Item::ArrayOfTables(tables(std::mem::take(entry))?);
    let clients = entry.as_array_of_tables_mut().ok_or_else(is_no_toml)?;
    let is_it = |table: &Table| table.get("appid").and_then(Item::as_str) == Some(appid);
    let Some(at) = clients.iter().position(is_it) else { return Ok(None) };
    let prefix = |table: &Table| {
        let prefix = table.decor().prefix().and_then(toml_edit::RawString::as_str);
        prefix.unwrap_or_default().to_owned()
    };
    let own = clients.get(at).map(prefix).unwrap_or_default();
    clients.remove(at);
    let kept = match (own.rfind("\n\n"), at) {
        (Some(blank), _) => &own[..blank + 1],
        (None, 0) => own.as_str(),
        (None, _) => "",
    };
    if !kept.trim().is_empty() {
        let kept = format!("{}{}\n\n", if at == 0 { "" } else { "\n" }, kept.trim());
        match clients.get_mut(at) {
            Some(next) => {
                let prefix = format!("{kept}{}", prefix(next).trim_start_matches('\n'));
                next.decor_mut().set_prefix(prefix);
            }
            None => {
                let trailing = document.trailing().as_str().unwrap_or_default().to_owned();
                document.set_trailing(format!("{kept}{}", trailing.trim_start_matches('\n')));
            }
        }
    }
    Ok(Some(Zeroizing::new(document.to_string())))
}

fn toml_value(key: &str, new: &str) -> Result<Item, Text> {
    Ok(match key {
        "rate" | "burst" => value(new.parse::<i64>().map_err(|_| error::whole_number(key))?),
        "peers" | "operations" | "cards" => value(new.split_whitespace().collect::<toml_edit::Array>()),
        _ => value(new),
    })
}

fn merge_csv(text: &str, rows: &[(&str, Vec<Change<'_>>)]) -> Result<Zeroizing<String>, Text> {
    let mut lines: Vec<String> = text.lines().map(str::to_owned).collect();
    let is_data = |line: &String| !line.trim().is_empty() && !line.starts_with('#');
    let first = lines
        .iter()
        .position(is_data)
        .ok_or_else(|| text!("the clients file has no header line", "客户端文件没有标题行"))?;
    let mut header = split(&lines[first])?;
    let before = header.len();
    for (key, _) in rows.iter().flat_map(|(_, changes)| changes).filter(|(_, new)| new.is_some()) {
        if !header.iter().any(|column| column == key) {
            header.push((*key).to_owned());
        }
    }
    let appid_at = header.iter().position(|column| column == "appid").ok_or_else(no_column)?;
    let mut known = HashMap::new();
    for (index, line) in lines.iter_mut().enumerate().skip(first + 1).filter(|(_, line)| is_data(line)) {
        let mut cells = split(line)?;
        if let Some(appid) = cells.get(appid_at) {
            known.insert(appid.clone(), index);
        }
        if header.len() > before {
            cells.resize(header.len(), String::new());
            *line = join(&cells)?;
        }
    }
    lines[first] = join(&header)?;
    for (appid, changes) in rows {
        let found = known.get(*appid).copied();
        let mut cells = found.map_or(Ok(vec![String::new(); header.len()]), |index| split(&lines[index]))?;
        (*appid).clone_into(&mut cells[appid_at]);
        for (key, new) in changes {
            if let Some(at) = header.iter().position(|column| column == key) {
                cells[at] = new.clone().unwrap_or_default();
            }
        }
        match found {
            Some(index) => lines[index] = join(&cells)?,
            None => lines.push(join(&cells)?),
        }
    }
    Ok(Zeroizing::new(lines.join("\n") + "\n"))
}

fn remove_csv(text: &str, appid: &str) -> Result<Option<Zeroizing<String>>, Text> {
    let is_data = |line: &&str| !line.trim().is_empty() && !line.starts_with('#');
    let mut lines: Vec<&str> = text.lines().collect();
    let Some(first) = lines.iter().position(is_data) else { return Ok(None) };
    let header = split(lines[first])?;
    let appid_at = header.iter().position(|column| column == "appid").ok_or_else(no_column)?;
    let mut found = None;
    for (index, line) in lines.iter().enumerate().skip(first + 1).filter(|(_, line)| is_data(line)) {
        if split(line)?.get(appid_at).is_some_and(|cell| cell == appid) {
            found = Some(index);
        }
    }
    let Some(found) = found else { return Ok(None) };
    lines.remove(found);
    Ok(Some(Zeroizing::new(lines.join("\n") + "\n")))
}

fn split(line: &str) -> Result<Vec<String>, Text> {
    let mut reader =
        csv::ReaderBuilder::new().has_headers(false).trim(csv::Trim::All).from_reader(line.as_bytes());
    let record = reader
        .records()
        .next()
        .and_then(Result::ok)
        .ok_or_else(|| text!("a line is no CSV record", "有一行不是 CSV 记录"))?;
    Ok(record.iter().map(str::to_owned).collect())
}

fn join(cells: &[String]) -> Result<String, Text> {
    let mut writer = csv::Writer::from_writer(Vec::new());
    writer.write_record(cells).map_err(Text::untranslated)?;
    let bytes = writer.into_inner().map_err(Text::untranslated)?;
    let line = String::from_utf8(bytes).map_err(Text::untranslated)?;
    Ok(line.trim_end().to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn set_toml(text: &str, appid: &str, changes: &[Change<'_>]) -> Result<Zeroizing<String>, ConfigError> {
        merge(Path::new("x.toml"), text, &[(appid, changes.to_vec())])
    }

    fn set_csv(text: &str, appid: &str, changes: &[Change<'_>]) -> Result<Zeroizing<String>, ConfigError> {
        merge(Path::new("x.csv"), text, &[(appid, changes.to_vec())])
    }

    fn some(text: &str) -> Option<String> {
        Some(text.to_owned())
    }

    #[test]
    fn toml_keeps_its_comments_and_its_order() {
        let text = "# the depot\n[[client]]\nappid = \"A\" # first\ngroup = \"g\"\npassword = \"p\"\n";
        let changed =
            set_toml(text, "A", &[("previous_password", some("p")), ("password", some("q"))]).unwrap();
        assert!(changed.contains("# the depot") && changed.contains("# first"));
        assert!(changed.contains("password = \"q\"") && changed.contains("previous_password = \"p\""));
        let added = set_toml(&changed, "B", &[("group", some("g")), ("rate", some("5"))]).unwrap();
        assert_eq!(super::super::super::clients::parse(Path::new("x.toml"), &added).unwrap().len(), 2);
        assert!(added.contains("rate = 5"));
    }

    #[test]
    fn csv_gets_the_columns_that_it_needs() {
        let text = "# the depot\nappid,group,password\nA,g,p\nB,g,\"q,r\"\n";
        let changed =
            set_csv(text, "A", &[("previous_password", some("p")), ("password", some("s"))]).unwrap();
        assert_eq!(
            changed.as_str(),
            "# the depot\nappid,group,password,previous_password\nA,g,s,p\nB,g,\"q,r\",\n"
        );
        let added = set_csv(&changed, "C", &[("group", some("g")), ("password", some("t"))]).unwrap();
        assert!(added.ends_with("C,g,t,\n"));
        let dropped = set_csv(&added, "A", &[("previous_password", None)]).unwrap();
        assert!(dropped.contains("A,g,s,\n"));
    }

    #[test]
    fn a_client_is_removed_with_the_comments_that_belong_to_it() {
        let toml = "# depots\n[[client]]\nappid = \"A\"\n\n# of the north\n[[client]]\nappid = \"B\" # B\n\n\
                    # the south:\n\n# its first\n[[client]]\nappid = \"C\"\n";
        let removed = |text: &str, appid| remove(Path::new("x.toml"), text, appid).unwrap();
        let without = |appid| removed(toml, appid).unwrap().to_string();
        assert_eq!(without("B"), toml.replace("\n# of the north\n[[client]]\nappid = \"B\" # B\n", ""));
        assert_eq!(without("A"), toml.replace("[[client]]\nappid = \"A\"\n", ""));
        let last = without("C");
        assert!(
            last.contains("# the south:") && !last.contains("first") && last.contains("\"B\" # B"),
            "{last}"
        );
        assert_eq!(removed(toml, "D").map(|_| ()), None);
        assert_eq!(removed("", "A").map(|_| ()), None);
        let inline = removed("client = [{appid='A'},{appid='B'}]\n", "A").unwrap();
        assert_eq!(appids(Path::new("x.toml"), &inline).unwrap().len(), 1, "{}", *inline);

        let csv = "# A,g\nappid,group\nA,g\n\nB,\"g,h\"\nAA,g\n";
        let removed = |appid| remove(Path::new("x.csv"), csv, appid).unwrap();
        assert_eq!(removed("A").unwrap().as_str(), "# A,g\nappid,group\n\nB,\"g,h\"\nAA,g\n");
        assert_eq!(removed("B").unwrap().as_str(), "# A,g\nappid,group\nA,g\n\nAA,g\n");
        assert_eq!(removed("appid").map(|_| ()), None, "the header is no client");
    }

    #[test]
    fn inline_tables_are_read_and_merged() {
        let toml = "client = [{appid='A',group='g',cards=['1','2']},\n{appid='B',group='g'}]\n";
        let path = Path::new("x.toml");
        assert_eq!(appids(path, toml).unwrap(), [("A".to_owned(), 1), ("B".to_owned(), 2)]);
        assert_eq!(read(path, toml).unwrap()[0][2], ("cards".to_owned(), "1 2".to_owned()));
        for (text, count) in [(toml, 3), ("client = []\n", 1)] {
            let merged = set_toml(text, "C", &[("group", some("g")), ("password", some("p"))]).unwrap();
            assert_eq!(appids(path, &merged).unwrap().len(), count, "{}", *merged);
        }
        assert!(read(path, "client = ['A']\n").unwrap_err().to_string().contains("[[client]]"));
    }

    #[test]
    fn an_appid_has_its_line_and_rows_are_merged_in_one_pass() {
        let csv = "# depot\nappid,group,password\nA,g,p\n\nB,g,q\n";
        assert_eq!(appids(Path::new("x.csv"), csv).unwrap(), [("A".to_owned(), 3), ("B".to_owned(), 5)]);
        let toml = "# depot\n[[client]]\nappid = \"A\"\n\n[[client]]\ngroup = \"g\"\nappid = \"B\"\n";
        assert_eq!(appids(Path::new("x.toml"), toml).unwrap(), [("A".to_owned(), 3), ("B".to_owned(), 7)]);
        let rows = [("C", vec![("group", some("g"))]), ("A", vec![("rate", some("5"))])];
        for (name, text) in [("x.csv", csv), ("x.toml", toml)] {
            let merged = merge(Path::new(name), text, &rows).unwrap();
            let found = appids(Path::new(name), &merged).unwrap();
            assert_eq!(
                found.iter().map(|(appid, _)| appid.as_str()).collect::<Vec<_>>(),
                ["A", "B", "C"],
                "{name}"
            );
            assert!(merged.contains('5'), "{name}");
        }
    }
}
