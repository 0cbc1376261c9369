//! Rows as text: JSON lines and CSV (RFC 4180), for the command line, exports and the admin API.

use crate::printable;
use crate::store::audit::query::{Field, ViewColumn};

/// One JSON object, without a line break.
pub fn json_line(columns: &[ViewColumn], row: &[Field]) -> String {
    let object = columns.iter().zip(row).map(|(column, field)| {
        let value = match field {
            Field::Null => serde_json::Value::Null,
            Field::Int(number) => (*number).into(),
            Field::Real(number) => (*number).into(),
            Field::Text(text) => text.as_str().into(),
        };
        (column.name.to_owned(), value)
    });
    printable::escape_json(&serde_json::Value::Object(object.collect()).to_string()).into_owned()
}

/// The header line of CSV, without a line break.
pub fn csv_head(columns: &[ViewColumn]) -> String {
    columns.iter().map(|column| column.name).collect::<Vec<_>>().join(",")
}

/// One line of CSV, without a line break.
pub fn csv_line(row: &[Field]) -> String {
    row.iter().map(csv_field).collect::<Vec<_>>().join(",")
}

fn csv_field(field: &Field) -> String {
    match field {
        Field::Null => String::new(),
        Field::Int(number) => number.to_string(),
        Field::Real(number) => number.to_string(),
        Field::Text(text) => {
            let shown = printable::escape(text);
            match is_formula(text) {
                true => quoted(&format!("'{shown}")),
                false if shown.contains([',', '"']) => quoted(&shown),
                false => shown.into_owned(),
            }
        }
    }
}

/// Whether a spreadsheet would run a text: it begins with a sign of a formula, also a full-width or small one, after the characters
/// that a spreadsheet drops: blanks, control and format characters.
fn is_formula(text: &str) -> bool {
    let dropped = |character: char| {
        character.is_whitespace() || character == '\'' || !printable::is_printable(character)
    };
    text.trim_start_matches(dropped)
        .starts_with(['=', '+', '-', '@', '＝', '＋', '－', '＠', '﹦', '﹢', '﹣', '﹫', '−'])
}

fn quoted(text: &str) -> String {
    format!("\"{}\"", text.replace('"', "\"\""))
}

/// A cell of a table for people: null is empty, and control characters are escaped.
pub fn cell(field: &Field) -> String {
    match field {
        Field::Null => String::new(),
        Field::Int(number) => number.to_string(),
        Field::Real(number) => number.to_string(),
        Field::Text(text) => printable::escape(text).into_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::audit::query::ViewKind;

    fn columns<const N: usize>(names: [&'static str; N]) -> [ViewColumn; N] {
        names.map(|name| ViewColumn { name, kind: ViewKind::Text, narrow: false })
    }

    #[test]
    fn a_formula_is_text_whatever_stands_before_it() {
        for text in [
            "=1+1",
            " =1",
            "\t=1",
            "\r\n@x",
            "\u{3000}=1",
            "＝1",
            "﹢1",
            "﹣1",
            "﹦1",
            " ﹫x",
            "\u{feff}-1",
            "\u{200b}＠x",
            "'=1",
            "\x1b+1",
        ] {
            let cell = csv_line(&[Field::Text(text.into())]);
            assert!(cell.starts_with("\"'"), "{cell}");
        }
        for text in ["20260101", "GW0001", "正确", "a=b", ""] {
            assert_eq!(csv_line(&[Field::Text(text.into())]), text);
        }
    }

    #[test]
    fn no_output_steers_a_terminal() {
        let hostile = [Field::Text("\x1b[2K\u{9b}31m\u{202e}\r\nx".into())];
        for shown in [csv_line(&hostile), cell(&hostile[0]), json_line(&columns(["a"]), &hostile)] {
            assert!(shown.chars().all(printable::is_printable), "{shown}");
        }
        let read: serde_json::Value = serde_json::from_str(&json_line(&columns(["a"]), &hostile)).unwrap();
        assert_eq!(read["a"], "\x1b[2K\u{9b}31m\u{202e}\r\nx", "JSON reads as it was");
    }

    #[test]
    fn what_is_text_stays_text() {
        let row = [
            Field::Int(7),
            Field::Null,
            Field::Real(1.25),
            Field::Text("a,\"b\"".into()),
            Field::Text("=1+1".into()),
            Field::Text("0010".into()),
        ];
        assert_eq!(csv_line(&row), "7,,1.25,\"a,\"\"b\"\"\",\"'=1+1\",0010");
        let columns = columns(["a", "b", "c", "d", "e", "f"]);
        assert_eq!(
            json_line(&columns, &row),
            r#"{"a":7,"b":null,"c":1.25,"d":"a,\"b\"","e":"=1+1","f":"0010"}"#
        );
        assert_eq!(csv_head(&columns), "a,b,c,d,e,f");
    }
}
