//! A bar of at most eight characters, drawn in eighths.

const WIDTH: u64 = 8;
const EIGHTHS: [&str; 8] = ["", "▏", "▎", "▍", "▌", "▋", "▊", "▉"];

/// A bar for `value` out of `most`; a value above zero is never empty.
pub(super) fn bar(value: u64, most: u64) -> String {
    if value == 0 || most == 0 {
        return String::new();
    }
    let eighths = (u128::from(value) * u128::from(8 * WIDTH)).div_ceil(u128::from(most));
    // At most 64.
    let eighths = usize::try_from(eighths).unwrap_or(0);
    "█".repeat(eighths / 8) + EIGHTHS[eighths % 8]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bar_is_as_long_as_its_value() {
        let shown =
            [(0, 10), (1, 1_000_000), (5, 10), (10, 10), (0, 0)].map(|(value, most)| bar(value, most));
        assert_eq!(shown, ["", "▏", "████", "████████", ""]);
    }
}
