//! The digits of a stop reason.

use super::tables::{self, NO_STOP, STOP, STOP_DIGITS};
use crate::carrier::dialect::StopReason;

/// The digits that are not `0`, from the left. `None` if the text does not have the length of a stop reason.
pub(in crate::carrier) fn stop_reasons(digits: &str) -> Option<Vec<StopReason>> {
    if digits.chars().count() != STOP_DIGITS {
        return None;
    }
    let others = digits.chars().zip(1..).filter(|(digit, _)| *digit != NO_STOP);
    let reason = |(digit, position)| StopReason {
        position,
        digit,
        meaning: if digit == STOP { tables::stop_meaning(position) } else { None },
    };
    Some(others.map(reason).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The positions, each with the English meaning.
    fn read(digits: &str) -> Option<Vec<(usize, Option<String>)>> {
        let all = stop_reasons(digits)?;
        Some(all.into_iter().map(|one| (one.position, one.meaning.map(|text| text.english))).collect())
    }

    #[test]
    fn each_digit_has_the_meaning_of_its_position() {
        for (digits, position, meaning) in [
            ("200000000000", 1, "product has expired"),
            ("020000000000", 2, "another device"),
            ("000200000000", 4, "M2M"),
            ("000020000000", 5, "credit control"),
            ("000000002000", 9, "own wish"),
            ("000000000200", 10, "region"),
            ("000000000020", 11, "forced"),
        ] {
            let all = read(digits).unwrap();
            let [(found, Some(text))] = all.as_slice() else { panic!("{digits}: {all:?}") };
            assert_eq!(*found, position);
            assert!(text.contains(meaning), "{text}");
        }
        assert_eq!(read("000000000000"), Some(Vec::new()));
        assert_eq!(read("000020002000").unwrap().len(), 2, "they are combinable");
    }

    #[test]
    fn other_digits_and_positions_are_unknown() {
        assert_eq!(read("001000000002"), Some(vec![(3, None), (12, None)]));
        assert_eq!(read("000010000000"), Some(vec![(5, None)]), "neither 0 nor 2");
        assert_eq!(read("00000000000密"), Some(vec![(12, None)]));
        for digits in ["", "0", "20", "00000000000", "0000000000000"] {
            assert_eq!(read(digits), None, "{digits}");
        }
    }
}
