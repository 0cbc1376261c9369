//! A client's transid: its form is decided here, once.

use cmiot_signer::{AppId, Stamp, Transid};

/// A transid as a gateway sent it. In both forms it has only letters and digits, at most 48 of them: the padding of a hash,
/// by which a token could be extended, does not fit into that.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum SentTransid {
    /// Appid, stamp and sequence, with the appid of the request.
    Strict { transid: Transid, key: TransidKey },
    /// Any other text, which few clients may send.
    Lenient(String),
}

impl SentTransid {
    /// The transid `text`, which is `exact` if it has the exact form.
    pub(super) fn of(exact: Option<Transid>, text: &str, appid: &AppId) -> Option<Self> {
        if let Some(transid) = exact.filter(|transid| transid.appid() == *appid) {
            return Some(Self::Strict { key: TransidKey::of(&transid), transid });
        }
        let bounded = text.len() <= Transid::MAX_LEN && text.bytes().all(|byte| byte.is_ascii_alphanumeric());
        bounded.then(|| Self::Lenient(text.to_owned()))
    }

    /// Stamp and sequence; `None` for the lenient form.
    pub fn key(&self) -> Option<TransidKey> {
        match self {
            Self::Strict { key, .. } => Some(*key),
            Self::Lenient(_) => None,
        }
    }

    /// The text that was sent.
    pub fn as_bytes(&self) -> &[u8] {
        match self {
            Self::Strict { transid, .. } => transid.as_bytes(),
            Self::Lenient(text) => text.as_bytes(),
        }
    }
}

/// The transid in a request that was refused before its parameters were read: of exact form, and once in URL and body.
pub fn of_unread(query: &str, body: &[u8]) -> Option<Transid> {
    let body = std::str::from_utf8(body).unwrap_or_default();
    let mut sent = query.split('&').chain(body.split('&')).filter_map(|pair| pair.strip_prefix("transid="));
    let first = Transid::parse(sent.next()?).ok()?;
    sent.all(|other| other == first.as_str()).then_some(first)
}

/// Bits of a [`TransidKey`] that hold the sequence: 99,999,999 fits 27.
const SEQUENCE_BITS: u32 = 27;

/// A transid without its appid in 64 bits: its stamp, then its sequence. Its order is that of time.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Debug)]
pub struct TransidKey(u64);

impl TransidKey {
    pub fn of(transid: &Transid) -> Self {
        let seconds = transid.stamp().to_unix() - Stamp::FIRST.to_unix();
        Self(seconds << SEQUENCE_BITS | u64::from(transid.sequence().get()))
    }

    /// A key that is not above any of this Unix second's, and above all of the second before.
    pub fn first_of(unix: u64) -> Self {
        Self(unix.saturating_sub(Stamp::FIRST.to_unix()).min(u64::from(u32::MAX)) << SEQUENCE_BITS)
    }

    /// The stamp, in Unix seconds.
    pub fn unix(self) -> u64 {
        (self.0 >> SEQUENCE_BITS) + Stamp::FIRST.to_unix()
    }

    /// The packed stamp and sequence.
    pub fn bits(self) -> u64 {
        self.0
    }

    /// The packed stamp and sequence, in the same order, as a database stores them: they take 60 bits.
    pub fn number(self) -> i64 {
        i64::try_from(self.0).unwrap_or(i64::MAX)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use cmiot_signer::Sequence;

    #[test]
    fn a_transid_of_exact_form_is_found_once() {
        let transid = "1000012014101615303080000001";
        for (query, body) in [
            (format!("appid=100001&transid={transid}"), ""),
            (String::new(), &*format!("transid={transid}&x=y")),
            (format!("transid={transid}"), &*format!("transid={transid}")),
        ] {
            assert_eq!(of_unread(&query, body.as_bytes()).unwrap().as_str(), transid, "{query} {body}");
        }
        for query in [
            "".to_owned(),
            "transid=".to_owned(),
            "xtransid=1000012014101615303080000001".to_owned(),
            format!("transid={transid}&transid=1000012014101615303080000002"),
            format!("transid={transid}%0d%0a"),
            format!("transid={transid}é"),
        ] {
            assert_eq!(of_unread(&query, b"\xFF"), None, "{query}");
        }
    }

    #[test]
    fn numbers_have_the_order_of_time_and_fit_a_database() {
        let appid = AppId::parse("A1").unwrap();
        let number = |unix, sequence| {
            let stamp = Stamp::from_unix(unix).unwrap();
            TransidKey::of(&Transid::new(&appid, stamp, Sequence::new(sequence).unwrap()))
        };
        let first = Stamp::FIRST.to_unix();
        for unix in [first, 1_800_000_000, first + 3_155_673_599] {
            let [lowest, highest] = [number(unix, 1), number(unix, 99_999_999)];
            assert!(TransidKey::first_of(unix) <= lowest && lowest < highest);
            assert!(highest < TransidKey::first_of(unix + 1));
            assert_eq!(highest.number().cast_unsigned(), highest.bits());
        }
        assert_eq!(TransidKey::first_of(0).number(), 0);
    }
}
