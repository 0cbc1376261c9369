//! Edits the clients file and the list of revoked appids: checked first, then replaced in one step.
//!
//! A new text is written beside the old one, readable for its owner alone, checked as part of the whole configuration,
//! synced, and renamed over it (rename(2) is atomic): a running proxy, or a crash, sees the old list or the new one.
//! Comments and the order of TOML stay; so do comment lines of CSV, whose records are one line each.

use std::fs::{self, OpenOptions};
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use cmiot_signer::AppId;
use toml_edit::{ArrayOfTables, DocumentMut, Item, Table, value};
use zeroize::Zeroizing;

use super::file;
use super::{Config, ConfigFile, clients};

/// The lists of one configuration, open for editing.
#[derive(Debug)]
pub struct Edit {
    file: ConfigFile,
    folder: PathBuf,
    /// The clients file, as the configuration names it.
    clients: PathBuf,
}

/// A column or key, and its new value; none removes it.
pub type Change<'a> = (&'a str, Option<String>);

impl Edit {
    /// Opens the lists of a configuration, which must be in order.
    ///
    /// # Errors
    /// A sentence with the remedy.
    pub fn open(config: &Path) -> Result<Self, String> {
        let (_, file) = Config::load(config).map_err(|e| e.to_string())?;
        let clients = file.gateway.clients_file.clone().ok_or_else(|| {
            format!("{}: [gateway] clients_file is not set: it names the list to edit", config.display())
        })?;
        let folder = config.parent().unwrap_or(Path::new(".")).to_owned();
        Ok(Self { file, folder, clients })
    }

    /// The clients of the clients file.
    ///
    /// # Errors
    /// When it cannot be read.
    pub fn clients(&self) -> Result<Vec<file::Client>, String> {
        clients::parse(&self.clients, &self.text()?)
    }

    /// Changes a client, or adds it where there is none of this appid.
    ///
    /// # Errors
    /// When the result would be no configuration; the file is as before then.
    pub fn set(&self, appid: &str, changes: &[Change<'_>]) -> Result<(), String> {
        let text = self.text()?;
        let changed = if is_csv(&self.clients) {
            set_csv(&text, appid, changes)?
        } else {
            set_toml(&text, appid, changes)?
        };
        self.replace_clients(&changed)
    }

    /// Adds the clients of another file, `.csv` or `.toml`; all of them or, when one is no good, none.
    ///
    /// # Errors
    /// As [`Edit::set`], and when an appid is there already.
    pub fn import(&self, from: &Path) -> Result<usize, String> {
        let text =
            fs::read_to_string(from).map_err(|e| format!("{}: cannot be read: {e}", from.display()))?;
        let text = Zeroizing::new(text);
        let known = self.clients()?;
        let new = clients::parse(from, &text)?;
        if let Some(twice) = new.iter().find(|client| known.iter().any(|one| one.appid == client.appid)) {
            return Err(format!("{}: appid \"{}\" is in the list already", from.display(), twice.appid));
        }
        let mut changed = self.text()?;
        for table in rows(from, &text)? {
            let appid = table.iter().find(|(key, _)| key == "appid").map(|(_, value)| value.clone());
            let changes: Vec<Change<'_>> =
                table.iter().map(|(key, value)| (key.as_str(), Some(value.clone()))).collect();
            let appid = appid.unwrap_or_default();
            changed = if is_csv(&self.clients) {
                set_csv(&changed, &appid, &changes)?
            } else {
                set_toml(&changed, &appid, &changes)?
            };
        }
        self.replace_clients(&changed)?;
        Ok(new.len())
    }

    /// Refuses an appid from now on, listed or derived.
    ///
    /// # Errors
    /// When the configuration names no `revoked_file`, or it cannot be written.
    pub fn revoke(&self, appid: &str) -> Result<(), String> {
        AppId::parse(appid).map_err(|e| format!("{appid}: {e}"))?;
        let revoked = self.file.gateway.revoked_file.as_ref().ok_or(
            "[gateway] revoked_file is not set: it names the list of revoked appids, and may begin empty",
        )?;
        let path = self.folder.join(revoked);
        let mut text = match fs::read_to_string(&path) {
            Ok(text) => text,
            Err(e) => return Err(format!("{}: cannot be read: {e}", path.display())),
        };
        if text.lines().any(|line| line.trim() == appid) {
            return Ok(());
        }
        if !text.is_empty() && !text.ends_with('\n') {
            text.push('\n');
        }
        let temporary = write_beside(&path, &format!("{text}{appid}\n"))?;
        fs::rename(&temporary, &path).map_err(|e| format!("{}: {e}", path.display()))
    }

    fn path(&self) -> PathBuf {
        self.folder.join(&self.clients)
    }

    fn text(&self) -> Result<Zeroizing<String>, String> {
        let path = self.path();
        fs::read_to_string(&path)
            .map(Zeroizing::new)
            .map_err(|e| format!("{}: cannot be read: {e}", path.display()))
    }

    fn replace_clients(&self, text: &str) -> Result<(), String> {
        let path = self.path();
        let temporary = write_beside(&path, text)?;
        let mut file = self.file.clone();
        file.gateway.clients_file = Some(fs::canonicalize(&temporary).map_err(|e| e.to_string())?);
        let replaced = Config::check(&file, &self.folder)
            .and_then(|_| fs::rename(&temporary, &path).map_err(|e| format!("{}: {e}", path.display())));
        if replaced.is_err() {
            let _ = fs::remove_file(&temporary); // what matters is told already
        }
        replaced
    }
}

/// Writes a file beside another one, of the same kind of name, and syncs it.
fn write_beside(path: &Path, text: &str) -> Result<PathBuf, String> {
    let extension = path.extension().and_then(|extension| extension.to_str()).unwrap_or("new");
    let temporary = path.with_extension(format!("{}.{extension}", std::process::id()));
    let written =
        OpenOptions::new().write(true).create_new(true).mode(0o600).open(&temporary).and_then(|mut file| {
            file.write_all(text.as_bytes())?;
            file.sync_all()
        });
    written
        .map(|()| temporary.clone())
        .map_err(|e| format!("{}: cannot be written: {e}", temporary.display()))
}

fn is_csv(path: &Path) -> bool {
    path.extension().is_some_and(|extension| extension == "csv")
}

/// The keys and values of each client, as one column would hold them.
fn rows(path: &Path, text: &str) -> Result<Vec<Vec<(String, String)>>, String> {
    if is_csv(path) {
        let mut lines =
            csv::ReaderBuilder::new().trim(csv::Trim::All).comment(Some(b'#')).from_reader(text.as_bytes());
        let header = lines.headers().map_err(|_| "no header line".to_owned())?.clone();
        let row = |record: csv::StringRecord| {
            let cells = header.iter().zip(&record).filter(|(_, cell)| !cell.is_empty());
            cells.map(|(key, cell)| (key.to_owned(), cell.to_owned())).collect()
        };
        return lines
            .records()
            .map(|record| record.map(row).map_err(|_| "a broken line".to_owned()))
            .collect();
    }
    let document: DocumentMut = text.parse().map_err(|_| format!("{}: is not TOML", path.display()))?;
    let tables = document.get("client").and_then(Item::as_array_of_tables);
    let row = |table: &Table| table.iter().map(|(key, item)| (key.to_owned(), as_cell(item))).collect();
    Ok(tables.into_iter().flatten().map(row).collect())
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

fn set_toml(text: &str, appid: &str, changes: &[Change<'_>]) -> Result<Zeroizing<String>, String> {
    let mut document: DocumentMut = text.parse().map_err(|_| "the clients file is not TOML".to_owned())?;
    let clients = document
        .entry("client")
        .or_insert(Item::ArrayOfTables(ArrayOfTables::new()))
        .as_array_of_tables_mut()
        .ok_or("`client` must be [[client]] tables")?;
    let same = |table: &Table| table.get("appid").and_then(Item::as_str) == Some(appid);
    let found = clients.iter().position(same);
    let index = match found {
        Some(index) => index,
        None => {
            let mut table = Table::new();
            table["appid"] = value(appid);
            clients.push(table);
            clients.len() - 1
        }
    };
    let table = clients.get_mut(index).ok_or("a table that was just found")?;
    for (key, new) in changes {
        match new {
            None => drop(table.remove(key)),
            Some(new) => {
                table[*key] = match *key {
                    "rate" | "burst" => {
                        value(new.parse::<i64>().map_err(|_| format!("{key}: must be a whole number"))?)
                    }
                    "peers" | "operations" | "cards" => {
                        value(new.split_whitespace().collect::<toml_edit::Array>())
                    }
                    _ => value(new.as_str()),
                };
            }
        }
    }
    Ok(Zeroizing::new(document.to_string()))
}

fn set_csv(text: &str, appid: &str, changes: &[Change<'_>]) -> Result<Zeroizing<String>, String> {
    let mut lines: Vec<String> = text.lines().map(str::to_owned).collect();
    let is_data = |line: &String| !line.trim().is_empty() && !line.starts_with('#');
    let first = lines.iter().position(is_data).ok_or("the clients file has no header line")?;
    let mut header = split(&lines[first])?;
    let before = header.len();
    for (key, new) in changes {
        if new.is_some() && !header.iter().any(|column| column == key) {
            header.push((*key).to_owned());
        }
    }
    let appid_at = header.iter().position(|column| column == "appid").ok_or("no column appid")?;
    let mut found = None;
    for (index, line) in lines.iter_mut().enumerate().skip(first + 1).filter(|(_, line)| is_data(line)) {
        let mut cells = split(line)?;
        if cells.get(appid_at).is_some_and(|cell| cell == appid) {
            found = Some(index);
        }
        if header.len() > before {
            cells.resize(header.len(), String::new());
            *line = join(&cells)?;
        }
    }
    lines[first] = join(&header)?;
    let mut cells = found.map_or(Ok(vec![String::new(); header.len()]), |index| split(&lines[index]))?;
    appid.clone_into(&mut cells[appid_at]);
    for (key, new) in changes {
        if let Some(at) = header.iter().position(|column| column == key) {
            cells[at] = new.clone().unwrap_or_default();
        }
    }
    match found {
        Some(index) => lines[index] = join(&cells)?,
        None => lines.push(join(&cells)?),
    }
    Ok(Zeroizing::new(lines.join("\n") + "\n"))
}

fn split(line: &str) -> Result<Vec<String>, String> {
    let mut reader =
        csv::ReaderBuilder::new().has_headers(false).trim(csv::Trim::All).from_reader(line.as_bytes());
    let record = reader.records().next().and_then(Result::ok).ok_or("a line is no CSV record")?;
    Ok(record.iter().map(str::to_owned).collect())
}

fn join(cells: &[String]) -> Result<String, String> {
    let mut writer = csv::Writer::from_writer(Vec::new());
    writer.write_record(cells).map_err(|e| e.to_string())?;
    let bytes = writer.into_inner().map_err(|e| e.to_string())?;
    let line = String::from_utf8(bytes).map_err(|e| e.to_string())?;
    Ok(line.trim_end().to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

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
        assert_eq!(clients::parse(Path::new("x.toml"), &added).unwrap().len(), 2);
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
}
