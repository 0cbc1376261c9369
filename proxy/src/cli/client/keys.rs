//! The keys of a client that `client add` and `client set` write; each option has the name of its key.

use anyhow::bail;
use cmiot_proxy::config::edit::Change;

/// Keys that `--unset` removes, so that their defaults apply.
const OPTIONAL: [&str; 13] = [
    "ebid",
    "rate",
    "burst",
    "cards",
    "cards_file",
    "peers",
    "operations",
    "replay",
    "format",
    "clock_skew",
    "max_age_floor",
    "max_stale_ceiling",
    "certificate",
];

/// Limits and permissions of a client.
#[derive(clap::Args)]
pub(super) struct Keys {
    /// Limit its lookups per second, on average
    #[arg(long, value_name = "NUMBER")]
    rate: Option<u32>,
    /// Lookups that it may make at once; by default its rate
    #[arg(long, value_name = "NUMBER")]
    burst: Option<u32>,
    /// Restrict it to cards with this prefix; may be given several times
    #[arg(long, value_name = "PREFIX", value_parser = word)]
    cards: Vec<String>,
    /// Restrict it to the cards of this file, one number per line, in addition to --cards
    #[arg(long, value_name = "FILE", value_parser = text)]
    cards_file: Option<String>,
    /// Accept it only from this network; may be given several times
    #[arg(long, value_name = "NETWORK", value_parser = word)]
    peers: Vec<String>,
    /// Permit this operation, and no other that is not named; may be given several times
    #[arg(long, value_name = "NAME", value_parser = word)]
    operations: Vec<String>,
    /// The response to a transid that was used before
    #[arg(long, value_name = "MODE", value_parser = ["refuse", "same-answer", "observe"])]
    replay: Option<String>,
    /// The transids that are accepted
    #[arg(long, value_parser = ["strict", "lenient"])]
    format: Option<String>,
    /// The greatest distance of a transid's stamp from the clock, such as 5m, or any
    #[arg(long, value_name = "DURATION", value_parser = text)]
    clock_skew: Option<String>,
    /// The smallest max-age that it may demand
    #[arg(long, value_name = "DURATION", value_parser = text)]
    max_age_floor: Option<String>,
    /// The largest max-stale that it may send
    #[arg(long, value_name = "DURATION", value_parser = text)]
    max_stale_ceiling: Option<String>,
    /// The ebid that it sends; by default that of the group's first account
    #[arg(long, value_parser = word)]
    ebid: Option<String>,
    /// A DNS name of the client certificate that it must present
    #[arg(long, value_name = "NAME", value_parser = word)]
    certificate: Option<String>,
}

impl Keys {
    /// The keys that are given, as changes of a client.
    pub(super) fn changes(self) -> Vec<Change<'static>> {
        let number = |number: Option<u32>| number.map(|number| number.to_string());
        let list = |words: Vec<String>| (!words.is_empty()).then(|| words.join(" "));
        let all = [
            ("rate", number(self.rate)),
            ("burst", number(self.burst)),
            ("cards", list(self.cards)),
            ("cards_file", self.cards_file),
            ("peers", list(self.peers)),
            ("operations", list(self.operations)),
            ("replay", self.replay),
            ("format", self.format),
            ("clock_skew", self.clock_skew),
            ("max_age_floor", self.max_age_floor),
            ("max_stale_ceiling", self.max_stale_ceiling),
            ("ebid", self.ebid),
            ("certificate", self.certificate),
        ];
        all.into_iter().filter(|(_, value)| value.is_some()).collect()
    }
}

/// Changes of a client that exists.
#[derive(clap::Args)]
pub(super) struct Changes {
    /// Another appid for it to sign with; its password stays
    #[arg(long = "appid", value_name = "NEW", value_parser = word)]
    renamed: Option<String>,
    /// The group whose accounts answer it
    #[arg(long)]
    group: Option<String>,
    #[command(flatten)]
    keys: Keys,
    /// Remove this key, so that its default applies; may be given several times
    #[arg(long, value_name = "KEY", value_parser = OPTIONAL)]
    unset: Vec<String>,
}

impl Changes {
    /// The changes.
    ///
    /// # Errors
    /// When there is none, and when one key is both set and removed.
    pub(super) fn changes(self) -> anyhow::Result<Vec<Change<'static>>> {
        let named = [("appid", self.renamed), ("group", self.group)];
        let mut changes: Vec<_> = named.into_iter().filter(|(_, value)| value.is_some()).collect();
        changes.extend(self.keys.changes());
        for key in OPTIONAL.into_iter().filter(|key| self.unset.iter().any(|unset| unset == key)) {
            if changes.iter().any(|(set, _)| *set == key) {
                bail!("{key}: is set and removed by --unset at once: keep one");
            }
            changes.push((key, None));
        }
        if changes.is_empty() {
            bail!("no change is named: `client set --help` shows the options");
        }
        Ok(changes)
    }
}

/// A value without blanks: in a list blanks separate values, and an empty permission would permit everything.
fn word(value: &str) -> Result<String, String> {
    match value.is_empty() || value.contains(char::is_whitespace) {
        true => Err("must not be empty or contain blanks".to_owned()),
        false => Ok(value.to_owned()),
    }
}

/// A value that is not blank.
fn text(value: &str) -> Result<String, String> {
    match value.trim().is_empty() {
        true => Err("must not be empty".to_owned()),
        false => Ok(value.to_owned()),
    }
}
