//! The same four values, read by serde-json-core after a strict check.
//!
//! serde-json-core 0.7 recurses over unknown fields without bound, accepts what is not JSON (`[,x]`, raw
//! newlines, scalars of any shape), cannot tell `0` from `"0"`, and fails as a whole on a string that is not
//! UTF-8. Therefore [`walk`] first checks the whole document and its depth; strings are taken escaped, without its
//! unescaping; the text of a number is found after its key, whose slice gives the position in the body; and
//! [`scan`](super::scan), which returns the same values, reads a body that is not JSON in UTF-8.

use core::fmt;

use serde::de::{DeserializeSeed, Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor};

use super::ReplyError;
use super::cursor::Encoding;
use super::scan::{self, Field, Fields};
use super::walk::{Nesting, Value, Visit, walk};

/// Reads a trimmed body.
pub(super) fn collect(body: &[u8]) -> Result<Fields<'_>, ReplyError> {
    if core::str::from_utf8(body).is_err() || walk(body, Encoding::Utf8First, &mut Guard).is_err() {
        return scan::collect(body);
    }
    // `walk` accepts a stricter grammar than serde-json-core, so this does not fail.
    Envelope { body }
        .deserialize(&mut serde_json_core::de::Deserializer::new(body, None))
        .map_err(|_| ReplyError::Malformed)
}

/// A visitor that ignores all values: the walk itself is the check.
struct Guard;

impl<'a> Visit<'a> for Guard {
    fn key(&mut self, _: Nesting, _: &'a [u8]) {}
    fn value(&mut self, _: Nesting, _: Value<'a>) {}
}

/// The document as a whole.
struct Envelope<'a> {
    body: &'a [u8],
}

impl<'a> DeserializeSeed<'a> for Envelope<'a> {
    type Value = Fields<'a>;

    fn deserialize<D: Deserializer<'a>>(self, deserializer: D) -> Result<Self::Value, D::Error> {
        deserializer.deserialize_map(self)
    }
}

impl<'a> Visitor<'a> for Envelope<'a> {
    type Value = Fields<'a>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the carrier's envelope")
    }

    fn visit_map<A: MapAccess<'a>>(self, mut map: A) -> Result<Self::Value, A::Error> {
        let mut fields = Fields::default();
        while let Some(key) = map.next_key::<&'a str>()? {
            let key = key.as_bytes();
            match Field::of_envelope(key) {
                Some(Field::Result) => {
                    map.next_value_seed(Results { body: self.body, fields: &mut fields })?;
                }
                Some(field) => fields.set(field, map.next_value_seed(Leaf { body: self.body, key })?),
                None => map.next_value::<IgnoredAny>().map(drop)?,
            }
        }
        Ok(fields)
    }
}

/// `result`, of any type.
struct Results<'f, 'a> {
    body: &'a [u8],
    fields: &'f mut Fields<'a>,
}

impl<'a> DeserializeSeed<'a> for Results<'_, 'a> {
    type Value = ();

    fn deserialize<D: Deserializer<'a>>(self, deserializer: D) -> Result<(), D::Error> {
        // Not because it is ignored: in serde-json-core, only this method accepts every type of value.
        deserializer.deserialize_ignored_any(self)
    }
}

impl<'a> Visitor<'a> for Results<'_, 'a> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("any result")
    }

    fn visit_borrowed_str<E>(self, text: &'a str) -> Result<(), E> {
        self.fields.set(Field::Result, Value::Text(text.as_bytes()));
        Ok(())
    }

    fn visit_unit<E>(self) -> Result<(), E> {
        self.fields.set(Field::Result, Value::Literal);
        Ok(())
    }

    fn visit_map<A: MapAccess<'a>>(self, map: A) -> Result<(), A::Error> {
        self.fields.set(Field::Result, Value::Object);
        IgnoredAny.visit_map(map).map(drop)
    }

    fn visit_seq<A: SeqAccess<'a>>(self, mut elements: A) -> Result<(), A::Error> {
        let Self { body, fields } = self;
        fields.set(Field::Result, Value::Array);
        if elements.next_element_seed(First { body, fields: &mut *fields })?.is_none() {
            return Ok(());
        }
        fields.results += 1;
        while elements.next_element::<IgnoredAny>()?.is_some() {
            fields.results += 1;
        }
        Ok(())
    }
}

/// The first result, of any type.
struct First<'f, 'a> {
    body: &'a [u8],
    fields: &'f mut Fields<'a>,
}

impl<'a> DeserializeSeed<'a> for First<'_, 'a> {
    type Value = ();

    fn deserialize<D: Deserializer<'a>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_ignored_any(self)
    }
}

impl<'a> Visitor<'a> for First<'_, 'a> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("any element")
    }

    fn visit_borrowed_str<E>(self, _: &'a str) -> Result<(), E> {
        Ok(())
    }

    fn visit_unit<E>(self) -> Result<(), E> {
        Ok(())
    }

    fn visit_seq<A: SeqAccess<'a>>(self, elements: A) -> Result<(), A::Error> {
        IgnoredAny.visit_seq(elements).map(drop)
    }

    fn visit_map<A: MapAccess<'a>>(self, mut map: A) -> Result<(), A::Error> {
        while let Some(key) = map.next_key::<&'a str>()? {
            let key = key.as_bytes();
            match Field::of_result(key) {
                Some(field) => self.fields.set(field, map.next_value_seed(Leaf { body: self.body, key })?),
                None => map.next_value::<IgnoredAny>().map(drop)?,
            }
        }
        Ok(())
    }
}

/// The value of a member.
struct Leaf<'a> {
    body: &'a [u8],
    /// The member's key, a slice of `body`.
    key: &'a [u8],
}

impl<'a> Leaf<'a> {
    /// The number or literal after the key; serde-json-core skips both without a value.
    fn scalar(&self) -> Value<'a> {
        let end = self.key.as_ptr_range().end.addr().wrapping_sub(self.body.as_ptr().addr());
        let after = self.body.get(end..).unwrap_or_default();
        // The key's closing quote, a colon, and white space around it.
        let lead = after.iter().take_while(|byte| b"\": \t\r\n".contains(byte)).count();
        let value = after.get(lead..).unwrap_or_default();
        let len = value.iter().take_while(|byte| !b",} \t\r\n".contains(byte)).count();
        match value.get(..len) {
            Some(number @ [b'-' | b'0'..=b'9', ..]) => Value::Number(number),
            _ => Value::Literal,
        }
    }
}

impl<'a> DeserializeSeed<'a> for Leaf<'a> {
    type Value = Value<'a>;

    fn deserialize<D: Deserializer<'a>>(self, deserializer: D) -> Result<Self::Value, D::Error> {
        deserializer.deserialize_ignored_any(self)
    }
}

impl<'a> Visitor<'a> for Leaf<'a> {
    type Value = Value<'a>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("any value")
    }

    fn visit_borrowed_str<E>(self, text: &'a str) -> Result<Self::Value, E> {
        Ok(Value::Text(text.as_bytes()))
    }

    fn visit_unit<E>(self) -> Result<Self::Value, E> {
        Ok(self.scalar())
    }

    fn visit_seq<A: SeqAccess<'a>>(self, elements: A) -> Result<Self::Value, A::Error> {
        IgnoredAny.visit_seq(elements)?;
        Ok(Value::Array)
    }

    fn visit_map<A: MapAccess<'a>>(self, map: A) -> Result<Self::Value, A::Error> {
        IgnoredAny.visit_map(map)?;
        Ok(Value::Object)
    }
}
