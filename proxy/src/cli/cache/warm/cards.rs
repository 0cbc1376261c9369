//! The file of cards: a card in the first column of each line, after `msisdn:`, `iccid:` or `imsi:` where its form does not
//! tell the kind.
//!
//! A heading (a first line without a digit), blank lines, `#` comments and a byte-order mark are skipped.

use std::io::{read_to_string, stdin};
use std::path::Path;

use anyhow::{Context, bail};
use cmiot_proxy::config::text::without_mark;
use cmiot_signer::Card;

use crate::cli::card;

/// A line with a card.
pub(super) struct Input {
    /// The first column.
    pub(super) text: String,
    pub(super) card: Card,
}

/// The lines of a file, or of standard input (`-`), a repeated card as often as it is there.
///
/// # Errors
/// A file that cannot be read; a line without a card, with its number.
pub(super) fn read(path: &Path) -> anyhow::Result<Vec<Input>> {
    let text = if path == Path::new("-") { read_to_string(stdin()) } else { std::fs::read_to_string(path) };
    let text = text.with_context(|| format!("{}: cannot be read as UTF-8 text", path.display()))?;
    let mut inputs = Vec::new();
    let mut is_first = true;
    for (index, line) in without_mark(&text).lines().enumerate() {
        let mut cells = line.split(',').map(|cell| cell.trim().trim_matches('"').trim());
        let first = cells.next().unwrap_or_default();
        let more = cells.any(|cell| !cell.is_empty());
        if first.starts_with('#') || first.is_empty() && !more {
            continue;
        }
        // Without a digit: a number with a typing error is no heading.
        let is_heading = std::mem::take(&mut is_first) && !line.bytes().any(|byte| byte.is_ascii_digit());
        let problem = match card::parse(first) {
            Ok(card) => {
                inputs.push(Input { text: first.to_owned(), card });
                continue;
            }
            Err(_) if is_heading => continue,
            Err(_) if first.is_empty() => "the first column is blank, and has to hold the card".to_owned(),
            Err(error) => error,
        };
        bail!("{}, line {}: {problem}", path.display(), index + 1);
    }
    Ok(inputs)
}

#[cfg(test)]
mod tests {
    use super::super::results::name;
    use super::*;

    #[test]
    fn a_file_of_cards_is_read_with_its_heading_comments_and_further_columns() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("cards.csv");
        std::fs::write(
            &path,
            "card,place\n\"14765004176\",here\n# no\n\niccid:898602b0011430000544\n14765004176\n",
        )
        .unwrap();
        let cards: Vec<_> = read(&path).unwrap().iter().map(|input| name(&input.card, "")).collect();
        let repeated = "msisdn:14765004176";
        assert_eq!(cards, [repeated, "iccid:898602B0011430000544", repeated]);
        std::fs::write(&path, "14765004176\nnot a card\n").unwrap();
        assert!(read(&path).err().unwrap().to_string().contains("line 2"));
    }

    #[test]
    fn no_line_of_a_file_of_cards_is_left_out_silently() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("cards.csv");
        let read = |text: &str| {
            std::fs::write(&path, text).unwrap();
            read(&path).map(|cards| cards.len()).map_err(|error| error.to_string())
        };
        for (text, count) in [
            ("\u{feff}14765000001\r\n14765000002\r\n", 2),
            ("\u{feff}card,place\r\n14765000001,here\r\n,\r\n", 1),
            ("# sweep\n\ncard\n14765000001\n", 1),
            (",place\n14765000001,here\n", 1),
        ] {
            assert_eq!(read(text), Ok(count), "{text:?}");
        }
        for (text, line) in [
            ("147650O0003\n14765000004\n", "line 1"),
            ("card\ncard\n14765000004\n", "line 2"),
            ("place,card\nhere,14765000004\n", "line 2"),
            ("card\n,14765000004\n", "line 2"),
            ("14765000004;here\n", "line 1"),
        ] {
            assert!(read(text).unwrap_err().contains(line), "{text:?}");
        }
    }
}
