//! `[cache] alias_file`: cards that have several numbers, one card per line.

use std::collections::HashMap;
use std::path::Path;

use cmiot_signer::{Card, CardKind};

use super::error::{self, ConfigError, Location};
use super::reader::SourceFiles;
use super::text::Entry;
use crate::language::{Text, text};

const KEY: &str = "[cache] alias_file";

/// Each number of a line, with the first number of that line.
pub(super) fn check(path: Option<&Path>, reader: &mut SourceFiles<'_>) -> HashMap<Card, Card> {
    let mut aliases = HashMap::new();
    let Some(path) = path else { return aliases };
    for entry in reader.list(KEY, path).unwrap_or_default() {
        let added = add(&mut aliases, &entry)
            .map_err(|problem| ConfigError::new(KEY, problem).at(Location::line(path, entry.line)));
        reader.keep(added);
    }
    aliases
}

fn add(aliases: &mut HashMap<Card, Card>, entry: &Entry) -> Result<(), Text> {
    let mut first = None;
    for column in entry.text.split(',').map(str::trim).filter(|column| !column.is_empty()) {
        let kinds = [CardKind::Msisdn, CardKind::Iccid, CardKind::Imsi];
        let (kind, number) = column
            .split_once(':')
            .and_then(|(kind, number)| Some((kinds.into_iter().find(|one| one.as_str() == kind)?, number)))
            .ok_or_else(|| {
                text!(
                    "a number must begin with msisdn:, iccid: or imsi:",
                    "号码必须以 msisdn:、iccid: 或 imsi: 开头"
                )
            })?;
        // The number itself is not repeated: it would appear in a log.
        let card = Card::parse(kind, number).map_err(|e| error::card(e).about(kind.as_str()))?;
        let canonical = *first.get_or_insert(card);
        if aliases.insert(card, canonical).is_some_and(|known| known != canonical) {
            return Err(text!("{card} is in two lines", "{card} 出现在两行中", card = card.masked()));
        }
    }
    Ok(())
}
