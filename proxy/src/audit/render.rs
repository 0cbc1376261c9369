//! Rows as text: JSON lines and CSV (RFC 4180), for the command line, exports and the admin API.

use crate::store::audit::query::Field;

/// One JSON object, without a line break.
pub fn json_line(columns: &[&str], row: &[Field]) -> String {
    let object = columns.iter().zip(row).map(|(column, field)| {
        let value = match field {
            Field::Null => serde_json::Value::Null,
            Field::Int(number) => (*number).into(),
            Field::Real(number) => (*number).into(),
            Field::Text(text) => text.as_str().into(),
        };
        ((*column).to_owned(), value)
    });
    serde_json::Value::Object(object.collect()).to_string()
}

/// The columns' names as a line of CSV, without a line break.
pub fn csv_head(columns: &[&str]) -> String {
    columns.join(",")
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
        // A spreadsheet would take a text that begins so for a formula; a gateway chooses its transid.
        Field::Text(text) if text.starts_with(['=', '+', '-', '@']) => quoted(&format!("'{text}")),
        Field::Text(text) if text.contains([',', '"', '\n', '\r']) => quoted(text),
        Field::Text(text) => text.clone(),
    }
}

fn quoted(text: &str) -> String {
    format!("\"{}\"", text.replace('"', "\"\""))
}

/// For people: nothing for nothing.
pub fn cell(field: &Field) -> String {
    match field {
        Field::Null => String::new(),
        Field::Int(number) => number.to_string(),
        Field::Real(number) => number.to_string(),
        Field::Text(text) => text.clone(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

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
        let columns = ["a", "b", "c", "d", "e", "f"];
        assert_eq!(
            json_line(&columns, &row),
            r#"{"a":7,"b":null,"c":1.25,"d":"a,\"b\"","e":"=1+1","f":"0010"}"#
        );
        assert_eq!(csv_head(&columns), "a,b,c,d,e,f");
    }
}
