//! Values as people write them: durations and sizes with units, secrets that never show themselves.
//!
//! Every type reads itself from TOML, so that a wrong value is reported at its line and column, and writes itself
//! back for `cmiot-proxy check`. No error text repeats a secret.

pub mod schema;

use std::fmt;
use std::net::IpAddr;
use std::time::Duration;

use ipnet::IpNet;
use jiff::SignedDuration;
use serde::de::{self, Deserializer, Visitor};
use serde::{Deserialize, Serialize, Serializer};
use zeroize::Zeroizing;

/// A length of time written with its unit: `"500ms"`, `"20s"`, `"5m"`, `"24h"`, `"1h 30m"`. Never negative.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct HumanDuration(pub Duration);

impl HumanDuration {
    /// A span of whole milliseconds, for defaults.
    pub const fn millis(millis: u64) -> Self {
        Self(Duration::from_millis(millis))
    }

    /// A span of whole seconds, for defaults.
    pub const fn secs(secs: u64) -> Self {
        Self(Duration::from_secs(secs))
    }
}

impl<'de> Deserialize<'de> for HumanDuration {
    fn deserialize<D: Deserializer<'de>>(de: D) -> Result<Self, D::Error> {
        struct Text;
        impl Visitor<'_> for Text {
            type Value = HumanDuration;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(
                    "a duration with its unit in quotes, such as \"500ms\", \"20s\", \"5m\" or \"24h\"",
                )
            }
            fn visit_str<E: de::Error>(self, text: &str) -> Result<HumanDuration, E> {
                let unreadable = || {
                    E::custom(format_args!(
                        "`{text}` is not a duration: write a number and a unit, such as \"500ms\", \"20s\", \"5m\" or \"24h\""
                    ))
                };
                if text.bytes().all(|b| b.is_ascii_digit()) && text != "0" {
                    return Err(unreadable());
                }
                let text = if text == "0" { "0s" } else { text };
                let span: SignedDuration = text.parse().map_err(|_| unreadable())?;
                span.try_into().map(HumanDuration).map_err(|_| E::custom("a duration cannot be negative"))
            }
        }
        de.deserialize_str(Text)
    }
}

impl Serialize for HumanDuration {
    fn serialize<S: Serializer>(&self, ser: S) -> Result<S::Ok, S::Error> {
        ser.collect_str(self)
    }
}

impl fmt::Display for HumanDuration {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match SignedDuration::try_from(self.0) {
            Ok(span) => write!(f, "{span:#}"),
            Err(_) => write!(f, "{}s", self.0.as_secs()),
        }
    }
}

/// The greatest distance between a transid's stamp and the clock: a length of time, or `"any"`.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Window {
    /// Stamps are not compared with the clock.
    Any,
    /// At most this far.
    Within(HumanDuration),
}

impl Window {
    /// A window of whole seconds, for defaults.
    pub const fn secs(secs: u64) -> Self {
        Self::Within(HumanDuration::secs(secs))
    }

    /// The distance, where there is one.
    pub const fn limit(self) -> Option<Duration> {
        match self {
            Self::Any => None,
            Self::Within(HumanDuration(limit)) => Some(limit),
        }
    }
}

impl<'de> Deserialize<'de> for Window {
    fn deserialize<D: Deserializer<'de>>(de: D) -> Result<Self, D::Error> {
        let text = String::deserialize(de)?;
        if text == "any" {
            return Ok(Self::Any);
        }
        HumanDuration::deserialize(de::value::StrDeserializer::new(&text)).map(Self::Within)
    }
}

impl Serialize for Window {
    fn serialize<S: Serializer>(&self, ser: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Any => ser.serialize_str("any"),
            Self::Within(span) => span.serialize(ser),
        }
    }
}

/// A number of bytes written with its unit: `"512B"`, `"4KiB"`, `"64MiB"`, `"1GiB"`.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct Size(pub u64);

const UNITS: [(&str, u64); 4] = [("GiB", 1 << 30), ("MiB", 1 << 20), ("KiB", 1 << 10), ("B", 1)];

impl<'de> Deserialize<'de> for Size {
    fn deserialize<D: Deserializer<'de>>(de: D) -> Result<Self, D::Error> {
        struct Text;
        impl Visitor<'_> for Text {
            type Value = Size;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a size with its unit in quotes, such as \"4KiB\" or \"64MiB\"")
            }
            fn visit_str<E: de::Error>(self, text: &str) -> Result<Size, E> {
                UNITS
                    .iter()
                    .find_map(|(unit, scale)| {
                        let number: u64 = text.strip_suffix(unit)?.trim_end().parse().ok()?;
                        number.checked_mul(*scale).map(Size)
                    })
                    .ok_or_else(|| {
                        E::custom(format_args!(
                            "`{text}` is not a size: write a whole number and B, KiB, MiB or GiB, such as \"64KiB\""
                        ))
                    })
            }
        }
        de.deserialize_str(Text)
    }
}

impl Serialize for Size {
    fn serialize<S: Serializer>(&self, ser: S) -> Result<S::Ok, S::Error> {
        ser.collect_str(self)
    }
}

impl fmt::Display for Size {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (unit, scale) =
            UNITS.iter().find(|(_, scale)| self.0.is_multiple_of(*scale)).unwrap_or(&UNITS[3]);
        write!(f, "{}{unit}", self.0 / scale)
    }
}

/// A secret written in the file itself: wiped when dropped, shown as `[redacted]`, never part of an error.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(Zeroizing<String>);

impl Secret {
    /// From text that is a secret from here on.
    pub fn new(text: &str) -> Self {
        Self(Zeroizing::new(text.to_owned()))
    }

    /// The secret's bytes. Mind where they go.
    pub fn expose(&self) -> &[u8] {
        self.0.as_bytes()
    }
}

impl<'de> Deserialize<'de> for Secret {
    fn deserialize<D: Deserializer<'de>>(de: D) -> Result<Self, D::Error> {
        struct Text;
        // Only strings are visited by name: serde's own message for another type would repeat the value.
        impl<'de> Visitor<'de> for Text {
            type Value = Secret;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a secret in quotes")
            }
            fn visit_str<E: de::Error>(self, text: &str) -> Result<Secret, E> {
                Ok(Secret(Zeroizing::new(text.to_owned())))
            }
            fn visit_bool<E: de::Error>(self, _: bool) -> Result<Secret, E> {
                Err(E::custom("a secret is written in quotes"))
            }
            fn visit_i64<E: de::Error>(self, _: i64) -> Result<Secret, E> {
                Err(E::custom("a secret is written in quotes, even one of digits only"))
            }
            fn visit_f64<E: de::Error>(self, _: f64) -> Result<Secret, E> {
                Err(E::custom("a secret is written in quotes, even one of digits only"))
            }
        }
        de.deserialize_any(Text)
    }
}

impl Serialize for Secret {
    fn serialize<S: Serializer>(&self, ser: S) -> Result<S::Ok, S::Error> {
        ser.serialize_str("[redacted]")
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("[redacted]")
    }
}

/// Reads the networks of a `peers` key: addresses with a prefix length, or bare addresses.
///
/// # Errors
/// Names the key, since the parser's own text would not, and the first entry that is invalid.
pub fn peers<'de, D: Deserializer<'de>>(de: D) -> Result<Vec<IpNet>, D::Error> {
    let read = |text: &String| {
        let bare = || text.parse::<IpAddr>().map(IpNet::from);
        text.parse::<IpNet>().or_else(|_| bare()).map_err(|_| {
            de::Error::custom(format_args!(
                "peers: `{text}` is not a network: write an address and a prefix length, such as \"10.0.0.0/8\""
            ))
        })
    };
    Vec::<String>::deserialize(de)?.iter().map(read).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Deserialize, Debug)]
    struct One<T> {
        x: T,
    }

    fn read<T: for<'de> Deserialize<'de>>(text: &str) -> Result<T, String> {
        toml::from_str::<One<T>>(text).map(|one| one.x).map_err(|e| e.message().to_owned())
    }

    #[test]
    fn durations_need_a_unit() {
        assert_eq!(read::<HumanDuration>("x = \"500ms\"").unwrap().0, Duration::from_millis(500));
        assert_eq!(read::<HumanDuration>("x = \"24h\"").unwrap().0, Duration::from_secs(86_400));
        assert_eq!(read::<HumanDuration>("x = \"1h 30m\"").unwrap().0, Duration::from_secs(5_400));
        assert_eq!(read::<HumanDuration>("x = \"0\"").unwrap().0, Duration::ZERO);
        for wrong in ["\"20\"", "20", "\"-5s\"", "\"soon\""] {
            let error = read::<HumanDuration>(&format!("x = {wrong}")).unwrap_err();
            assert!(error.contains("duration"), "{error}");
        }
    }

    #[test]
    fn durations_and_sizes_read_back_what_they_print() {
        for secs in [0, 1, 59, 60, 90, 3_600, 86_400, 86_401] {
            let span = HumanDuration::secs(secs);
            assert_eq!(read::<HumanDuration>(&format!("x = \"{span}\"")).unwrap(), span);
        }
        for bytes in [0, 1, 1_023, 4_096, 64 << 10, 3 << 20, 1 << 30] {
            assert_eq!(read::<Size>(&format!("x = \"{}\"", Size(bytes))).unwrap(), Size(bytes));
        }
        assert!(read::<Size>("x = \"4kb\"").unwrap_err().contains("KiB"));
    }

    #[test]
    fn a_secret_shows_itself_nowhere() {
        let secret: Secret = read("x = \"hunter2\"").unwrap();
        assert_eq!(secret.expose(), b"hunter2");
        assert_eq!(format!("{secret:?}"), "[redacted]");
        assert!(!read::<Secret>("x = 12345").unwrap_err().contains("12345"));
        assert!(!read::<Secret>("x = [\"hunter2\"]").unwrap_err().contains("hunter2"));
    }
}
