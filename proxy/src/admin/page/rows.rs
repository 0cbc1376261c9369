//! Rows of the audit as tables of a page and as CSV, with masked cards; each lookup leads to its carrier calls.

use super::heads;
use super::mask;
use super::view::encoded;
use crate::audit::render;
use crate::language::Language;
use crate::store::audit::query::{CALL, Field, LOOKUP, NOTE, ViewColumn};

/// A table, for its template.
pub(super) struct Table {
    pub(super) head: Vec<&'static str>,
    pub(super) rows: Vec<Vec<Cell>>,
}

/// A cell of a table.
pub(super) struct Cell {
    pub(super) text: String,
    pub(super) link: Option<String>,
    pub(super) is_number: bool,
    pub(super) is_long: bool,
}

/// The columns of a table for people, in their order.
const LOOKUPS: [&str; 12] = [
    "id",
    "time",
    "client",
    "peer",
    "kind",
    "card",
    "outcome",
    "reason",
    "code",
    "status",
    "account",
    "latency_ms",
];
const CALLS: [&str; 10] =
    ["id", "time", "account", "operation", "kind", "card", "code", "fault", "status", "latency_ms"];

/// The columns that a table of these rows has on a page.
pub(super) fn shown_columns(columns: &'static [ViewColumn]) -> Vec<&'static str> {
    match columns {
        _ if columns == LOOKUP => LOOKUPS.into(),
        _ if columns == CALL => CALLS.into(),
        _ => columns.iter().map(|column| column.name).collect(),
    }
}

/// The value of a column.
pub(super) fn value<'a>(columns: &[ViewColumn], row: &'a [Field], name: &str) -> &'a Field {
    let at = columns.iter().position(|column| column.name == name);
    at.and_then(|at| row.get(at)).unwrap_or(&Field::Null)
}

/// The text of a column; empty for a null.
pub(super) fn text(columns: &[ViewColumn], row: &[Field], name: &str) -> String {
    render::cell(value(columns, row, name))
}

/// A row with masked cards: a card or a hash of one, a note that names cards, the body of a reply.
pub(super) fn masked(columns: &[ViewColumn], row: &[Field]) -> Vec<Field> {
    let (kind, hidden) = (text(columns, row, "kind"), text(columns, row, "masked"));
    let cells = columns.iter().zip(row).map(|(column, field)| match (column.name, field) {
        ("card", Field::Text(number)) => Field::Text(mask::card(&kind, number, &hidden)),
        ("detail", Field::Text(detail)) if columns == NOTE => Field::Text(mask::detail(detail)),
        ("body", Field::Text(body)) => Field::Text(mask::body(body)),
        (_, field) => field.clone(),
    });
    cells.collect()
}

impl Table {
    /// Rows of one kind, with masked cards. The number of a row leads to the row.
    pub(super) fn of(columns: &'static [ViewColumn], rows: &[Vec<Field>], language: Language) -> Self {
        let names = shown_columns(columns);
        let rows = rows.iter().map(|row| {
            let row = masked(columns, row);
            names.iter().map(|name| Cell::of(columns, &row, name)).collect()
        });
        Self {
            rows: rows.collect(),
            head: names.iter().map(|name| heads::of_column(name, language)).collect(),
        }
    }
}

impl Cell {
    fn of(columns: &[ViewColumn], row: &[Field], name: &str) -> Self {
        let field = value(columns, row, name);
        let text = render::cell(field);
        let link = match name {
            "id" => Some(format!("/page/audit/row?id={text}")),
            "client" if !text.is_empty() => Some(format!("/page/audit?client={}", encoded(&text))),
            "transid" if !text.is_empty() => Some(format!("/page/audit?transid={}", encoded(&text))),
            _ => None,
        };
        Self {
            link,
            is_number: matches!(field, Field::Int(_) | Field::Real(_)),
            is_long: matches!(name, "detail" | "body"),
            text,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_table_has_a_whole_card() {
        let row = |columns: &[ViewColumn]| -> Vec<Field> {
            let field = |column: &ViewColumn| match column.name {
                "id" => Field::Int(7),
                "kind" => Field::Text("msisdn".into()),
                "masked" => Field::Null,
                "card" => Field::Text("14765004176".into()),
                "detail" => Field::Text("by=x msisdn=14765004176".into()),
                "body" => Field::Text("{\"MSISDN\":\"14765004176\"}".into()),
                _ => Field::Null,
            };
            columns.iter().map(field).collect()
        };
        for columns in [LOOKUP, CALL, NOTE] {
            let table = Table::of(columns, &[row(columns)], Language::English);
            let texts: Vec<_> = table.rows[0].iter().map(|cell| cell.text.clone()).collect();
            assert!(!texts.concat().contains("14765004176"), "{texts:?}");
            assert!(!format!("{:?}", masked(columns, &row(columns))).contains("14765004176"));
            assert_eq!(table.rows[0][0].link.as_deref(), Some("/page/audit/row?id=7"));
        }
    }
}
