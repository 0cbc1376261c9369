//! Tables for people: at most 100 columns wide unless the operator asks for more; longer cells are wrapped.

use comfy_table::presets::UTF8_FULL_CONDENSED;
use comfy_table::{ContentArrangement, Table};

/// The width that a table has without `--wide`.
const WIDTH: u16 = 100;

/// An empty table; `wide` gives it the width of its content.
pub(super) fn new(wide: bool) -> Table {
    let mut table = Table::new();
    table.load_style(UTF8_FULL_CONDENSED).set_content_arrangement(ContentArrangement::Dynamic);
    if !wide {
        table.set_width(WIDTH);
    }
    table
}
