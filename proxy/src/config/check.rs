//! From [`ConfigFile`] to [`Config`]: every rule that one value alone cannot show. All problems are collected.

use std::path::Path;

use super::clients::Clients;
use super::error::{ConfigError, ConfigErrors};
use super::reader::SourceFiles;
use super::{
    AuditConfig, Config, ConfigFile, Dialect, account, admin, aliases, breaker, cache, carrier, effect,
    fleet, gateway, webhook,
};
use crate::operation::{self, Operations};

impl Config {
    /// Checks what was read; relative paths are relative to `folder`.
    ///
    /// # Errors
    /// Every rule that does not hold.
    pub fn check(file: &ConfigFile, folder: &Path) -> Result<Self, ConfigErrors> {
        Self::check_after(Vec::new(), file, folder)
    }

    /// Checks a file that had these problems when it was read.
    pub(super) fn check_after(
        problems: Vec<ConfigError>,
        file: &ConfigFile,
        folder: &Path,
    ) -> Result<Self, ConfigErrors> {
        let mut reader = SourceFiles::new(folder, file.process.allow_world_readable_secrets);
        reader.problems = problems;
        reader.warnings.clone_from(&file.warnings);
        let config = build(file, folder, &mut reader);
        let mut problems = reader.problems;
        for problem in problems.iter_mut().filter(|problem| problem.location.path.as_os_str().is_empty()) {
            problem.location.path.clone_from(&file.path);
        }
        ConfigErrors::check(problems)?;
        Ok(config.expect("a check that fails notes a problem"))
    }
}

/// None if a problem was noted.
fn build(file: &ConfigFile, folder: &Path, reader: &mut SourceFiles<'_>) -> Option<Config> {
    let mut operations = known_operations(file, reader);
    let accounts = account::check(file, &operations, reader);
    let all = || accounts.groups.values().flatten();
    let has_v5 = all().any(|account| account.dialect() == Dialect::V5);
    // Behind API v5, an operation of v2 without a twin is known and refused with code 3.
    operations.serve(|one| all().any(|account| account.serves(one)) || has_v5 && operation::is_built_in(one));
    let aliases = aliases::check(file.cache.alias_file.as_deref(), reader);
    let groups = accounts.groups.len();
    let gateway = gateway::check(&file.gateway, groups, reader);
    let clients = Clients::check(file, gateway.as_ref(), &accounts, &operations, reader);
    let carrier = carrier::check(&file.carrier, groups, reader);
    let breaker = breaker::check(&file.breaker, reader);
    let cache = cache::check(&file.cache, reader);
    let audit = AuditConfig::check(&file.audit, reader);
    let admin = admin::check(file, reader);
    let fleet = fleet::check(file.fleet.as_ref(), reader);
    let webhooks = webhook::check(file, &accounts, reader);
    if !reader.problems.is_empty() {
        return None;
    }
    let lists = reader.seen([&file.gateway.clients_file, &file.gateway.revoked_file]);
    let mut config = Config {
        gateway: gateway?,
        admin: admin?,
        store_dir: folder.join(&file.store.dir),
        carrier: carrier?,
        operations,
        aliases,
        breaker: breaker?,
        cache: cache?,
        lifetimes: file.freshness.clone(),
        audit: audit?,
        log: file.log.clone(),
        groups: accounts.groups,
        clients: clients.listed,
        derived: clients.derived,
        revoked: clients.revoked,
        process: file.process.clone(),
        fleet,
        webhooks,
        lists,
        files: std::mem::take(&mut reader.files),
        certificates: std::mem::take(&mut reader.certificates),
        warnings: std::mem::take(&mut reader.warnings),
    };
    config.warnings.extend(effect::warnings(file, &config));
    Some(config)
}

/// The operations that are known; those whose rows are wrong are not.
fn known_operations(file: &ConfigFile, reader: &mut SourceFiles<'_>) -> Operations {
    let rows: Vec<_> = file.operations.iter().filter_map(|row| row.check(reader)).collect();
    Operations::of(rows).unwrap_or_else(|conflicts| {
        let errors = conflicts.iter().map(|conflict| {
            ConfigError::new(format!("[[operation]] (name = \"{}\")", conflict.name()), conflict.text())
        });
        reader.problems.extend(errors);
        Operations::default()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_problems_are_reported_and_none_that_follows_from_another() {
        let text = "[gateway]\ndeadline = '0s'\nidle_timeout = '0s'\nmax_streams = 0\nproxy_protocol = true\n\
                    [carrier]\nnode = 100\nbase_url = 'x'\nmax_flights = 0\n\
                    [cache]\nttl_jitter_percent = 51\nfile_entries = 0\n[breaker]\nfailures = 0\n\
                    [audit]\nrefusal_period = '0s'\n[admin]\ntoken = 'none'\ntoken_file = 'x'\n\
                    [[operation]]\nname = 'new'\n\
                    [[account]]\nname = 'a'\nappid = 'A_'\nebid = '0001000000009'\npassword = 'pw'\n\
                    [[client]]\ngroup = 'a'\nappid = 'C1'\npassword = 'p'\noperations = ['new']\nrate = 0\n\
                    [[client]]\ngroup = 'b'\nappid = 'C_'\npassword = 'p'\noperations = ['other']\n";
        let file = ConfigFile::parse(Path::new("p.toml"), text).unwrap();
        let errors = Config::check(&file, Path::new(".")).unwrap_err();
        let keys: Vec<_> = errors.iter().map(|error| error.key.as_str()).collect();
        for key in [
            "[gateway] deadline",
            "[gateway] idle_timeout",
            "[gateway] max_streams",
            "[gateway] proxy_protocol",
            "[carrier] node = 100",
            "[carrier] base_url = \"x\"",
            "[carrier] max_flights",
            "[cache] ttl_jitter_percent",
            "[cache] file_entries",
            "[breaker] failures",
            "[audit] refusal_period",
            "[admin] token = \"none\"",
            "[[operation]] (name = \"new\"): verdict",
            "[[account]] 1 (name = \"a\"): appid",
            "[[client]] 1 (appid = \"C1\"): rate",
            "[[client]] 2 (appid = \"C_\"): appid",
            "[[client]] 2 (appid = \"C_\"): group = \"b\"",
            "[[client]] 2 (appid = \"C_\"): operations",
        ] {
            assert!(keys.contains(&key), "{key}: {keys:#?}");
        }
        assert_eq!(keys.len(), 18, "{keys:#?}");
        assert!(errors.to_string().starts_with("p.toml: ") && errors.to_string().ends_with("\n18 problems"));
    }
}
