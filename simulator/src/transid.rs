//! The form of a transid: an appid, 14 digits of time and 8 of sequence (carrier page, "transid").

/// The digits after the appid.
const TAIL: usize = 22;

/// Whether a transid is `appid`, 14 digits of time and 8 of sequence.
pub(crate) fn is_well_formed(transid: &str, appid: &str) -> bool {
    let tail = transid.strip_prefix(appid).unwrap_or_default();
    tail.len() == TAIL && tail.bytes().all(|byte| byte.is_ascii_digit())
}

/// Whether a transid has the form for some appid.
pub(crate) fn has_tail(transid: &str) -> bool {
    let tail = transid.len().checked_sub(TAIL).filter(|&appid| appid > 0).and_then(|at| transid.get(at..));
    tail.is_some_and(|tail| tail.bytes().all(|byte| byte.is_ascii_digit()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_well_formed_transid_is_appid_stamp_and_sequence() {
        assert!(is_well_formed("1000012014101615303080000001", "100001"));
        for wrong in ["2014101615303080000001", "10000120141016153030800000", "100001201410161530308000000x"]
        {
            assert!(!is_well_formed(wrong, "100001"), "{wrong}");
        }
    }

    #[test]
    fn a_tail_needs_an_appid_before_it() {
        assert!(has_tail("1000012014101615303080000001") && has_tail("A2014101615303080000001"));
        for wrong in
            ["", "2014101615303080000001", "1", "100001201410161530308000000x", "é014101615303080000001"]
        {
            assert!(!has_tail(wrong), "{wrong}");
        }
    }
}
