//! Keys that had another name: the old name is accepted with a warning, and refused together with the new one.
//!
//! The table below is all there is to an old name. 0.3.0 removes it.

use std::path::Path;

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::error::{ConfigError, Location};
use crate::language::{Text, text};

/// A key that was renamed.
#[derive(Clone, Copy, Debug)]
pub(super) struct Renamed {
    /// The table, or the array of tables, that holds it.
    pub(super) section: &'static str,
    pub(super) old: &'static str,
    pub(super) new: &'static str,
}

const fn row(section: &'static str, old: &'static str, new: &'static str) -> Renamed {
    Renamed { section, old, new }
}

/// The keys that 0.2.0 renamed.
pub(super) const RENAMED: &[Renamed] = &[
    row("gateway", "replay_entries", "max_transids"),
    row("gateway", "replay_share", "max_transids_per_client"),
    row("gateway", "replay_group_share", "max_transids_per_group"),
    row("gateway", "first_byte", "first_byte_timeout"),
    row("gateway", "header", "header_timeout"),
    row("gateway", "body", "body_timeout"),
    row("gateway", "idle", "idle_timeout"),
    row("gateway", "grace", "drain_timeout"),
    row("breaker", "open_longest", "max_open"),
    row("breaker", "cool_down_longest", "max_cool_down"),
    row("breaker", "credentials", "credentials_open"),
    row("breaker", "credentials_longest", "max_credentials_open"),
    row("carrier", "stale_wait", "stale_timeout"),
    row("carrier", "queue", "max_queued_calls"),
    row("carrier", "queue_wait", "queue_timeout"),
    row("account", "calls_at_once", "max_concurrent_calls"),
    row("derive", "rights", "permissions"),
];

/// The old names that a document uses.
#[derive(Default)]
pub(super) struct Found {
    pub(super) warnings: Vec<Text>,
    /// Keys that are written under both names.
    pub(super) conflicts: Vec<ConfigError>,
}

/// Gives each key of a document its new name.
pub(super) fn rename(document: &mut DeTable<'_>, renamed: &[Renamed], path: &Path, text: &str) -> Found {
    let mut found = Found::default();
    for row in renamed {
        match document.get_mut(row.section).map(Spanned::get_mut) {
            Some(DeValue::Table(table)) => {
                rename_in(table, row, &format!("[{}]", row.section), path, text, &mut found);
            }
            Some(DeValue::Array(tables)) => {
                for table in tables.iter_mut() {
                    if let DeValue::Table(table) = table.get_mut() {
                        rename_in(table, row, &format!("[[{}]]", row.section), path, text, &mut found);
                    }
                }
            }
            _ => {}
        }
    }
    found
}

fn rename_in(
    table: &mut DeTable<'_>,
    row: &Renamed,
    section: &str,
    path: &Path,
    text: &str,
    found: &mut Found,
) {
    let Some((mut key, value)) = table.remove_entry(row.old) else { return };
    let location = Location::byte(path, text, key.span().start);
    let (old, new) = (row.old, row.new);
    if table.contains_key(new) {
        let both = text!(
            "{old} is the old name of {new}, which is set too",
            "{old} 是 {new} 的旧名，而 {new} 也已设置"
        );
        let remedy = text!("remove {old}", "请删除 {old}");
        found.conflicts.push(ConfigError::new(section, both).remedy(remedy).at(location));
        return;
    }
    found.warnings.push(text!(
        "{location}: {section} {old} is now called {new}: 0.3.0 will not accept the old name",
        "{location}：{section} {old} 已改名为 {new}：0.3.0 不再接受旧名"
    ));
    *key.get_mut() = new.into();
    table.insert(key, value);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{Config, ConfigFile};

    const ACCOUNT: &str = "[[account]]\nname = 'a'\nappid = 'A1'\nebid = '0001000000009'\npassword = 'pw'\n";

    /// A configuration that sets one key.
    fn text(section: &str, keys: &[&str]) -> String {
        let lines: String = keys.iter().map(|key| format!("{key} = {}\n", value(key))).collect();
        match section {
            "account" => format!("{ACCOUNT}{lines}"),
            "derive" => {
                let derive = "group = 'a'\nappid_prefix = 'G'\nkey_file = 'k'\nepoch = 1\n";
                format!("{ACCOUNT}[[derive]]\n{derive}{lines}")
            }
            _ => format!("{ACCOUNT}[{section}]\n{lines}"),
        }
    }

    fn value(key: &str) -> &'static str {
        match key {
            "rights" | "permissions" => "{ rate = 7 }",
            key if key.contains("transids")
                || key.contains("calls")
                || key.contains("replay")
                || key == "queue" =>
            {
                "7"
            }
            _ => "'7m'",
        }
    }

    fn printed(section: &str, key: &str) -> (String, Vec<String>) {
        let file = ConfigFile::parse(Path::new("p.toml"), &text(section, &[key])).unwrap();
        (
            toml::to_string(&file).unwrap(),
            file.warnings.into_iter().map(|text| text.english).collect::<Vec<_>>(),
        )
    }

    #[test]
    fn an_old_name_is_the_new_one_with_a_warning() {
        for row in RENAMED {
            let Renamed { section, old, new } = row;
            let (from_old, warnings) = printed(section, old);
            let (from_new, none) = printed(section, new);
            assert_eq!(from_old, from_new, "{row:?}");
            assert_eq!(none, [] as [String; 0], "{row:?}");
            let [warning] = warnings.as_slice() else { panic!("{row:?}: {warnings:?}") };
            assert!(warning.starts_with("p.toml:") && warning.contains(section), "{warning}");
            assert!(warning.contains(&format!("{old} is now called {new}")), "{warning}");
            let set = from_new.contains(&format!("{new} = ")) || from_new.contains(&format!(".{new}]"));
            assert!(set, "{row:?}: {from_new}");
        }
    }

    #[test]
    fn an_old_name_and_the_new_one_together_are_an_error() {
        for row in RENAMED {
            let text = text(row.section, &[row.old, row.new]);
            let error = ConfigFile::parse(Path::new("p.toml"), &text).unwrap_err().to_string();
            assert!(
                error.starts_with("p.toml:") && error.contains(&format!("remove {}", row.old)),
                "{error}"
            );
        }
    }

    #[test]
    fn the_warning_of_an_old_name_is_one_of_the_configuration() {
        let text = format!("{ACCOUNT}[gateway]\ngrace = '7s'\n");
        let file = ConfigFile::parse(Path::new("p.toml"), &text).unwrap();
        let config = Config::check(&file, Path::new(".")).unwrap();
        assert_eq!(config.gateway.drain_timeout.as_secs(), 7);
        let location =
            format!("p.toml:{}:1: [gateway] grace is now called drain_timeout", ACCOUNT.lines().count() + 2);
        assert!(
            config.warnings.iter().any(|warning| warning.english.starts_with(&location)),
            "{:?}",
            config.warnings
        );
    }
}
