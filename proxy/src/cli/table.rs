//! Tables for people: at most 100 columns wide unless the operator asks for more; only columns of free text are wrapped.

use comfy_table::presets::UTF8_FULL_CONDENSED;
use comfy_table::{ColumnConstraint, ContentArrangement, LineStyle, Table, TableStyle};

/// The width that a table has without `--wide`.
const WIDTH: u16 = 100;

/// Without vertical lines, which take a tenth of the width.
const STYLE: TableStyle = TableStyle::new().header_separator(LineStyle::none().fill('─').junction('─'));

/// An empty table; `wide` gives it the width of its content.
pub(super) fn new(wide: bool) -> Table {
    let mut table = Table::new();
    table.load_style(STYLE).set_content_arrangement(ContentArrangement::Dynamic);
    if !wide {
        table.set_width(WIDTH);
    }
    table
}

/// An empty table for the names and values of one row.
pub(super) fn of_one_row() -> Table {
    let mut table = new(false);
    table.load_style(UTF8_FULL_CONDENSED);
    table
}

/// Prepares a table that has its header: the columns of these names may be wrapped, all others may not.
pub(super) fn wrap_only(table: &mut Table, names: &[&str]) {
    let header: Vec<String> = table
        .header()
        .map(|header| header.cell_iter().map(comfy_table::Cell::content).collect())
        .unwrap_or_default();
    for (column, name) in table.column_iter_mut().zip(header) {
        column.set_padding((0, 1));
        if !names.contains(&name.as_str()) {
            column.set_constraint(ColumnConstraint::ContentWidth);
        }
    }
}
