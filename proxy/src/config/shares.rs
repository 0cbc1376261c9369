//! Shares: a part of a table that one client, or one group, may hold.
//!
//! A share is smaller than the table; otherwise one client or group could fill the table and leave no room for the others.
//! A configured share that is not smaller is lowered, with a warning.

use crate::language::{Text, text};

/// The default share of a client, as a fraction of its group's share.
const OF_CLIENT: (usize, usize) = (1, 2);

/// The default share of a group, as a fraction of the total.
const OF_GROUP: (usize, usize) = (3, 4);

/// The share of a group: all when there is no other group.
pub(super) fn of_group(
    key: &str,
    written: Option<usize>,
    total_key: &str,
    total: usize,
    groups: usize,
    warnings: &mut Vec<Text>,
) -> usize {
    if groups <= 1 {
        return total.min(written.unwrap_or(total));
    }
    lower(key, written, total_key, total, OF_GROUP, warnings)
}

/// The share of a client of a group that may hold `total`.
pub(super) fn of_client(
    key: &str,
    written: usize,
    total_key: &str,
    total: usize,
    warnings: &mut Vec<Text>,
) -> usize {
    lower(key, Some(written), total_key, total, OF_CLIENT, warnings)
}

/// The configured share if it is below the total, otherwise this fraction of the total. No share is zero, so a total of
/// one is not divided.
fn lower(
    key: &str,
    written: Option<usize>,
    total_key: &str,
    total: usize,
    (part, of): (usize, usize),
    warnings: &mut Vec<Text>,
) -> usize {
    let most = (total / of * part + total % of * part / of).max(1);
    match written {
        None => most,
        Some(written) if written < total.max(2) => written,
        Some(written) => {
            warnings.push(text!(
                "{key} = {written}: not below {total_key} ({total}), so that one could take all: {most} is used",
                "{key} = {written}：不低于 {total_key}（{total}），会被一个占满：改用 {most}"
            ));
            most
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_share_that_is_not_below_its_total_is_lowered_with_a_warning() {
        for (written, total, share, warns) in [
            (99, 100, 99, false),
            (100, 100, 50, true),
            (1_000_000, 101, 50, true),
            (1, 1, 1, false),
            (2, 1, 1, true),
            (2, 2, 1, true),
            (usize::MAX, usize::MAX, usize::MAX / 2, true),
        ] {
            let mut warnings = Vec::new();
            assert_eq!(
                of_client("share", written, "total", total, &mut warnings),
                share,
                "{written} of {total}"
            );
            assert_eq!(warnings.len(), usize::from(warns), "{written} of {total}: {warnings:?}");
        }
    }

    #[test]
    fn a_group_has_three_quarters_unless_it_is_alone() {
        let mut warnings = Vec::new();
        let mut share = |written, groups| of_group("share", written, "total", 100, groups, &mut warnings);
        assert_eq!(
            [share(None, 1), share(None, 2), share(Some(10), 2), share(Some(10), 1)],
            [100, 75, 10, 10]
        );
        assert_eq!(share(Some(100), 2), 75);
        let [warning] = warnings.as_slice() else { panic!("{warnings:?}") };
        assert_eq!(
            warning.english,
            "share = 100: not below total (100), so that one could take all: 75 is used"
        );
    }
}
