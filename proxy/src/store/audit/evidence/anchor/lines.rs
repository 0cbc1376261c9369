//! Reads anchors from `anchors.log` and from logs that carry them.
//!
//! An anchor's own JSON has no backslash and no inner brace, so all backslashes of a line are removed before it is
//! read, however often it was quoted: as a field of the text or the JSON log, and again by `journalctl -o json`. The
//! text before and after it (a prefix of journald or syslog, colours) is skipped.

use std::fs::File;
use std::io::{BufRead, BufReader, Read, Seek, SeekFrom};
use std::path::Path;

use super::Anchor;
use crate::store::{Fault, StoreError};

/// The bytes at the end of `anchors.log` that are read for the last anchors: some two hundred of them.
pub(super) const TAIL: u64 = 64 << 10;

/// The content of a file.
#[derive(Debug, Default)]
pub struct Lines {
    /// Its anchors, in its order.
    pub anchors: Vec<Anchor>,
    /// Lines that were skipped although they begin like an anchor.
    pub warnings: Vec<String>,
}

/// The begin of an anchor without its backslashes.
const BEGINS: &str = "{\"at\":";
/// A text that only a line with an anchor has.
const SIGNED: &str = "\"signature\":\"";

enum Line {
    Anchors(Vec<Anchor>),
    /// It claims to have an anchor, which cannot be read.
    Broken,
}

/// Reads a file of anchors: `anchors.log`, a text or JSON log of the proxy, or an export of journald.
///
/// # Errors
/// When it cannot be read, or a line before the last claims to have an anchor and cannot be read as one.
pub fn read(path: &Path) -> Result<Lines, StoreError> {
    let io = StoreError::io(path);
    let mut file = BufReader::new(File::open(path).map_err(io)?);
    let (mut found, mut line, mut number) = (Lines::default(), Vec::new(), 0);
    loop {
        line.clear();
        if file.read_until(b'\n', &mut line).map_err(io)? == 0 {
            return Ok(found);
        }
        number += 1;
        let whole = line.ends_with(b"\n");
        match read_line(&String::from_utf8_lossy(&line), whole) {
            Line::Anchors(anchors) => found.anchors.extend(anchors),
            Line::Broken if whole => {
                return Err(StoreError::new(path, Fault::Line { number, content: "anchor" }));
            }
            Line::Broken => found
                .warnings
                .push(format!("{}: line {number}, the last one, is torn and passed over", path.display())),
        }
    }
}

/// The last anchors of `anchors.log`, as far as they can be read; none when there is no such file.
pub(crate) fn tail(log: &Path) -> Vec<Anchor> {
    let read = || -> std::io::Result<Vec<u8>> {
        let mut file = File::open(log)?;
        let start = file.metadata()?.len().saturating_sub(TAIL);
        file.seek(SeekFrom::Start(start))?;
        let mut bytes = Vec::new();
        file.read_to_end(&mut bytes)?;
        Ok(bytes)
    };
    let bytes = read().unwrap_or_default();
    let text = String::from_utf8_lossy(&bytes);
    let anchors = text.lines().filter_map(|line| serde_json::from_str::<Anchor>(line).ok());
    anchors.filter(Anchor::is_well_formed).collect()
}

fn read_line(line: &str, whole: bool) -> Line {
    if !line.contains("\"at") && !line.contains("signature") && !line.contains("\"MESSAGE\"") {
        return Line::Anchors(Vec::new());
    }
    if let Some(message) = message_of_bytes(line) {
        return read_line(&message, whole);
    }
    // Spaces and another order of keys, as other programs write JSON.
    if let Ok(anchor) = serde_json::from_str::<Anchor>(line) {
        return if anchor.is_well_formed() { Line::Anchors(vec![anchor]) } else { Line::Broken };
    }
    let plain = line.replace('\\', "");
    let (mut anchors, mut broken) = (Vec::new(), false);
    for (at, _) in plain.match_indices(BEGINS) {
        let rest = &plain[at..];
        let text = rest.find('}').map_or(rest, |end| &rest[..=end]);
        match serde_json::from_str::<Anchor>(text).ok().filter(Anchor::is_well_formed) {
            Some(anchor) => anchors.push(anchor),
            // Other programs' lines may begin so. A line that a crash has torn is directly followed by a whole one.
            None => broken |= text.contains(SIGNED) && !text[1..].contains(BEGINS),
        }
    }
    let is_begin = plain.contains(BEGINS) && (!whole || plain.contains("audit anchor"));
    let bare = plain.starts_with(BEGINS) && plain.contains(",\"time\":");
    let claims = plain.contains(SIGNED) || bare || is_begin;
    if broken || (anchors.is_empty() && claims) { Line::Broken } else { Line::Anchors(anchors) }
}

/// The message of a line of `journalctl -o json` if it is a list of bytes: journald writes messages with colours so.
fn message_of_bytes(line: &str) -> Option<String> {
    let field = line.find("\"MESSAGE\"")?;
    line[field..].split_once(':')?.1.trim_start().strip_prefix('[')?;
    let object: serde_json::Value = serde_json::from_str(line).ok()?;
    let bytes: Option<Vec<u8>> = object["MESSAGE"]
        .as_array()?
        .iter()
        .map(|byte| byte.as_u64().and_then(|byte| u8::try_from(byte).ok()))
        .collect();
    bytes.map(|bytes| String::from_utf8_lossy(&bytes).into_owned())
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    fn anchor(last: i64) -> Anchor {
        Anchor {
            at: 1_768_449_600_000_000,
            time: "2026-01-15T12:00:00.000+08:00".into(),
            segment: "2026-01".into(),
            last,
            head: "0".repeat(64),
            signature: "a".repeat(128),
        }
    }

    fn json(last: i64) -> String {
        serde_json::to_string(&anchor(last)).unwrap()
    }

    fn rows(text: &[u8]) -> Result<(Vec<i64>, usize), StoreError> {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("log");
        fs::write(&path, text).unwrap();
        let found = read(&path)?;
        Ok((found.anchors.iter().map(|anchor| anchor.last).collect(), found.warnings.len()))
    }

    /// As `tracing_subscriber` writes a field of text.
    fn text_line(last: i64) -> String {
        format!("2026-01-15T04:00:00.000000Z  INFO audit anchor anchor={:?}", json(last))
    }

    fn coloured_line(last: i64) -> String {
        format!(
            "\x1b[2m2026-01-15T04:00:00Z\x1b[0m \x1b[32m INFO\x1b[0m audit anchor \x1b[3manchor\x1b[0m\x1b[2m=\x1b[0m{:?}",
            json(last)
        )
    }

    fn json_line(last: i64) -> String {
        serde_json::json!({ "level": "INFO", "message": "audit anchor", "anchor": json(last) }).to_string()
    }

    #[test]
    fn anchors_are_read_from_every_form_of_our_logs() {
        let journal = |message: &str| serde_json::json!({ "PRIORITY": "6", "MESSAGE": message }).to_string();
        let bytes =
            |message: &str| serde_json::json!({ "MESSAGE": message.as_bytes(), "PRIORITY": "6" }).to_string();
        let forms: Vec<(&str, String)> = vec![
            ("anchors.log", json(7)),
            ("text", text_line(7)),
            ("text with colours", coloured_line(7)),
            ("JSON", json_line(7)),
            ("journalctl, text", format!("Jan 15 12:00:00 edge cmiot-proxy[7]: {}", text_line(7))),
            ("journalctl, JSON", format!("Jan 15 12:00:00 edge cmiot-proxy[7]: {}", json_line(7))),
            ("journalctl -o export", format!("__CURSOR=x\nPRIORITY=6\nMESSAGE={}\n", text_line(7))),
            ("journalctl -o json, text", journal(&text_line(7))),
            ("journalctl -o json, JSON", journal(&json_line(7))),
            ("journalctl -o json, bytes", bytes(&coloured_line(7))),
            (
                "docker",
                serde_json::json!({ "log": format!("{}\n", json_line(7)), "stream": "stderr" }).to_string(),
            ),
            ("another order", serde_json::to_string_pretty(&anchor(7)).unwrap().replace('\n', " ")),
        ];
        for (form, text) in forms {
            let around = format!("2026-01-15 INFO serving\n{text}\n{{\"at\":7,\"other\":\"program\"}}\n");
            assert_eq!(rows(around.as_bytes()).unwrap(), (vec![7], 0), "{form}");
        }
        // The export's binary form of a message: its length before it, whose bytes are no text.
        let line = coloured_line(7);
        let mut export = b"__CURSOR=x\nMESSAGE\n".to_vec();
        export.extend_from_slice(&0x10a_u64.to_le_bytes());
        export.extend_from_slice(line.as_bytes());
        export.extend_from_slice(b"\nPRIORITY=6\n\n\xff\xfe\n");
        assert_eq!(rows(&export).unwrap(), (vec![7], 0));
    }

    #[test]
    fn a_torn_last_line_is_passed_over_with_a_warning_and_any_other_is_an_error_that_names_it() {
        for line in [json(8), text_line(8), json_line(8)] {
            let begins = line.find("{\"at").or_else(|| line.find("{\\\"at")).unwrap() + 8;
            for end in begins..line.len() - 3 {
                let torn = format!("{}\n{}", json(7), &line[..end]);
                let (found, warnings) = rows(torn.as_bytes()).unwrap();
                assert_eq!((found, warnings), (vec![7], 1), "{torn}");
            }
            let whole = format!("{}\n{line}", json(7));
            assert_eq!(rows(whole.as_bytes()).unwrap(), (vec![7, 8], 0), "whole without its newline");
        }
        for broken in [
            json(8)[..60].to_owned(),
            json(8).replace("2026-01\"", "2026-13\""),
            json(8).replace("aaaa", "aaa"),
            json(8).replace("\"last\":8", "\"last\":\"8\""),
            text_line(8).replace("aaaa", "xx"),
            json(8)[90..].to_owned(),
            text_line(8)[..90].to_owned(),
        ] {
            let text = format!("{}\n{broken}\n{}\n", json(7), json(9));
            let error = rows(text.as_bytes()).unwrap_err();
            assert_eq!(error.fault(), &Fault::Line { number: 2, content: "anchor" }, "{broken}");
            assert!(error.to_string().contains("line 2"), "{error}");
        }
    }

    #[test]
    fn an_anchor_behind_a_torn_one_is_read() {
        let text = format!("{}{}\n{}\n", &json(7)[..70], json(8), json(9));
        assert_eq!(rows(text.as_bytes()).unwrap(), (vec![8, 9], 0));
    }
}
