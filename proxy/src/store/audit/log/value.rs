//! A value of a row, as it is hashed and bound.

use std::time::Duration;

use cmiot_signer::CardKind;

/// A value of a row.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Value<'a> {
    Null,
    Int(i64),
    /// UTF-8, as bytes: it came from a `str`, and SQLite needs no second proof.
    Text(&'a [u8]),
    /// Stored once in the table `name`.
    Name(&'a str),
    /// Bytes.
    Blob(&'a [u8]),
}

impl PartialEq for Value<'_> {
    fn eq(&self, other: &Self) -> bool {
        match (*self, *other) {
            (Self::Null, Self::Null) => true,
            (Self::Int(one), Self::Int(other)) => one == other,
            (Self::Text(one), Self::Text(other)) => is_equal(one, other),
            (Self::Blob(one), Self::Blob(other)) => one == other,
            (Self::Name(one), Self::Name(other)) => is_equal(one.as_bytes(), other.as_bytes()),
            _ => false,
        }
    }
}

/// Compares eight bytes at once: these texts are short and have long common prefixes. musl compares byte by byte.
fn is_equal(one: &[u8], other: &[u8]) -> bool {
    let ((words, rest), (others, others_rest)) = (one.as_chunks::<8>(), other.as_chunks::<8>());
    one.len() == other.len()
        && words.iter().zip(others).all(|(one, other)| one == other)
        && rest.iter().zip(others_rest).all(|(one, other)| one == other)
}

pub(super) fn text<T: AsRef<[u8]> + ?Sized>(text: Option<&T>) -> Value<'_> {
    text.map_or(Value::Null, |text| Value::Text(text.as_ref()))
}

pub(super) fn name(text: Option<&str>) -> Value<'_> {
    text.map_or(Value::Null, Value::Name)
}

pub(super) fn blob(bytes: Option<&[u8]>) -> Value<'_> {
    bytes.map_or(Value::Null, Value::Blob)
}

pub(super) fn int(number: Option<i64>) -> Value<'static> {
    number.map_or(Value::Null, Value::Int)
}

pub(super) fn micros(duration: Duration) -> i64 {
    i64::try_from(duration.as_micros()).unwrap_or(i64::MAX)
}

pub(super) fn count(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

/// The number of a card kind, as in the views.
pub(crate) fn kind_number(kind: CardKind) -> i64 {
    match kind {
        CardKind::Msisdn => 1,
        CardKind::Iccid => 2,
        CardKind::Imsi => 3,
    }
}

/// The card kind of a number, if there is one.
pub(crate) fn kind_of_number(number: i64) -> Option<CardKind> {
    match number {
        1 => Some(CardKind::Msisdn),
        2 => Some(CardKind::Iccid),
        3 => Some(CardKind::Imsi),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_are_alike_only_where_every_byte_is() {
        let whole = "0123456789abcdef0123456789abc";
        for length in 0..=whole.len() {
            let one = &whole.as_bytes()[..length];
            let copy = one.to_vec();
            assert_eq!(Value::Text(one), Value::Text(&copy));
            for at in 0..length {
                let mut other = one.to_vec();
                other[at] ^= 1;
                assert_ne!(Value::Text(one), Value::Text(&other), "{length} {at}");
                assert_ne!(Value::Text(one), Value::Text(&one[..at]), "{length} {at}");
                assert_ne!(Value::Name(&whole[..at]), Value::Name(&whole[..length]), "{length} {at}");
            }
        }
        assert_ne!(Value::Text(b"1"), Value::Name("1"));
        assert_ne!(Value::Text(b""), Value::Null);
        assert_ne!(Value::Int(0), Value::Null);
    }
}
