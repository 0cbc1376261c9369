//! `[freshness]`: the lifetimes of responses, with one key per STATUS and per storable error class.
//!
//! A key is written as `"60s"` (the freshness lifetime; the rest keeps its default) or as a table of any of `fresh`,
//! `stale_while_revalidate` and `stale_if_error`. The last two count from the end of `fresh` (RFC 5861).

use std::borrow::Cow;
use std::fmt;
use std::time::Duration;

use cmiot_signer::Status;
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::de::{self, Deserializer, MapAccess, Visitor};
use serde::{Deserialize, Serialize};

use crate::units::HumanDuration;

/// The lifetime of one kind of response.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize)]
pub struct Lifetime {
    /// The time for which it is served without a call (RFC 9111 4.2). Zero: not stored.
    pub fresh: HumanDuration,
    /// After `fresh`, the time for which it is served stale during a refresh (RFC 5861 3).
    pub stale_while_revalidate: HumanDuration,
    /// After `fresh`, the time for which it is served stale if the carrier fails or is slow (RFC 5861 4).
    pub stale_if_error: HumanDuration,
}

impl Lifetime {
    /// The time from the carrier's response until the entry can no longer be served.
    pub fn usable_for(&self) -> Duration {
        self.fresh.0.saturating_add(self.stale_while_revalidate.0.max(self.stale_if_error.0))
    }
}

/// Declares the keys once: the field, its meaning, its defaults in seconds.
macro_rules! lifetimes {
    ($($(#[$doc:meta])* $key:ident = $fresh:literal, $revalidate:literal, $error:literal;)*) => {
        /// The lifetimes in force, every key filled in.
        #[derive(Clone, Debug, Serialize)]
        pub struct Lifetimes {
            $($(#[$doc])* pub $key: Lifetime,)*
        }

        impl Default for Lifetimes {
            fn default() -> Self {
                Self {
                    $($key: Lifetime {
                        fresh: HumanDuration::secs($fresh),
                        stale_while_revalidate: HumanDuration::secs($revalidate),
                        stale_if_error: HumanDuration::secs($error),
                    },)*
                }
            }
        }

        /// The keys as written: those that are absent keep their defaults.
        #[derive(Deserialize, JsonSchema)]
        #[serde(deny_unknown_fields)]
        struct RawLifetimes {
            $($(#[$doc])* $key: Option<RawLifetime>,)*
        }

        impl<'de> Deserialize<'de> for Lifetimes {
            fn deserialize<D: Deserializer<'de>>(de: D) -> Result<Self, D::Error> {
                let raw = RawLifetimes::deserialize(de)?;
                let mut lifetimes = Self::default();
                $(if let Some(lifetime) = raw.$key {
                    lifetime.apply(&mut lifetimes.$key);
                })*
                Ok(lifetimes)
            }
        }
    };
}

impl JsonSchema for Lifetimes {
    fn schema_name() -> Cow<'static, str> {
        "Lifetimes".into()
    }

    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        let mut schema = RawLifetimes::json_schema(generator);
        let defaults = serde_json::to_value(Self::default()).unwrap_or_default();
        let keys = schema.get_mut("properties").and_then(serde_json::Value::as_object_mut);
        for (key, property) in keys.into_iter().flatten() {
            property["default"] = defaults[key].clone();
        }
        schema
    }
}

impl JsonSchema for RawLifetime {
    fn schema_name() -> Cow<'static, str> {
        "Lifetime".into()
    }

    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        let fresh = HumanDuration::json_schema(generator);
        let table = Table::json_schema(generator);
        json_schema!({ "title": "duration or table", "anyOf": [fresh, table] })
    }
}

/// The table form of a key.
#[derive(JsonSchema)]
#[serde(deny_unknown_fields)]
#[expect(dead_code, reason = "its schema alone is used")]
struct Table {
    /// Time for which a response is served from the cache without a call; zero: it is not stored.
    fresh: Option<HumanDuration>,
    /// After `fresh`, how long a response is served stale at once while the proxy revalidates it.
    stale_while_revalidate: Option<HumanDuration>,
    /// After `fresh`, how long a response is served stale if the carrier fails or is slow.
    stale_if_error: Option<HumanDuration>,
}

lifetimes! {
    /// STATUS 00.
    normal = 60, 300, 86_400;
    /// STATUS 01: about to change.
    one_way_barred = 15, 60, 86_400;
    /// STATUS 02: about to change.
    barred = 15, 60, 86_400;
    /// STATUS 03.
    pre_cancelled = 60, 300, 86_400;
    /// STATUS 04: rarely changes again.
    cancelled = 3_600, 3_600, 86_400;
    /// STATUS 05.
    transferred = 60, 300, 86_400;
    /// STATUS 06: about to change.
    dormant = 15, 60, 86_400;
    /// STATUS 07: about to change.
    awaiting_activation = 15, 60, 86_400;
    /// STATUS 99.
    no_such_number = 60, 0, 0;
    /// A STATUS that the carrier's page does not list, or a success without one.
    unknown_status = 15, 60, 86_400;
    /// Codes of the class "not found, not owned".
    not_found = 60, 0, 0;
}

impl Lifetimes {
    /// The lifetime of a success with this STATUS.
    pub fn of_status(&self, status: Option<&Status>) -> &Lifetime {
        match status {
            Some(Status::Normal) => &self.normal,
            Some(Status::OneWayBarred) => &self.one_way_barred,
            Some(Status::Barred) => &self.barred,
            Some(Status::PreCancelled) => &self.pre_cancelled,
            Some(Status::Cancelled) => &self.cancelled,
            Some(Status::Transferred) => &self.transferred,
            Some(Status::Dormant) => &self.dormant,
            Some(Status::AwaitingActivation) => &self.awaiting_activation,
            Some(Status::NoSuchNumber) => &self.no_such_number,
            _ => &self.unknown_status,
        }
    }
}

/// The settings of one key in the file.
#[derive(Clone, Copy, Default)]
struct RawLifetime {
    fresh: Option<HumanDuration>,
    stale_while_revalidate: Option<HumanDuration>,
    stale_if_error: Option<HumanDuration>,
}

impl RawLifetime {
    fn apply(self, to: &mut Lifetime) {
        to.fresh = self.fresh.unwrap_or(to.fresh);
        to.stale_while_revalidate = self.stale_while_revalidate.unwrap_or(to.stale_while_revalidate);
        to.stale_if_error = self.stale_if_error.unwrap_or(to.stale_if_error);
    }
}

impl<'de> Deserialize<'de> for RawLifetime {
    fn deserialize<D: Deserializer<'de>>(de: D) -> Result<Self, D::Error> {
        struct TextOrTable;
        impl<'de> Visitor<'de> for TextOrTable {
            type Value = RawLifetime;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a duration such as \"60s\", or a table of fresh, stale_while_revalidate and stale_if_error")
            }
            fn visit_str<E: de::Error>(self, text: &str) -> Result<RawLifetime, E> {
                let fresh = HumanDuration::deserialize(de::value::StrDeserializer::new(text))?;
                Ok(RawLifetime { fresh: Some(fresh), ..RawLifetime::default() })
            }
            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<RawLifetime, A::Error> {
                let mut raw = RawLifetime::default();
                while let Some(key) = map.next_key::<String>()? {
                    let slot = match key.as_str() {
                        "fresh" => &mut raw.fresh,
                        "stale_while_revalidate" => &mut raw.stale_while_revalidate,
                        "stale_if_error" => &mut raw.stale_if_error,
                        other => {
                            let known = &["fresh", "stale_while_revalidate", "stale_if_error"];
                            return Err(de::Error::unknown_field(other, known));
                        }
                    };
                    *slot = Some(map.next_value()?);
                }
                Ok(raw)
            }
        }
        de.deserialize_any(TextOrTable)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_changes_only_what_it_names() {
        let read: Lifetimes =
            toml::from_str("normal = \"30s\"\nbarred = { stale_if_error = \"1h\" }").unwrap();
        let default = Lifetimes::default();
        assert_eq!(read.normal, Lifetime { fresh: HumanDuration::secs(30), ..default.normal });
        assert_eq!(read.barred, Lifetime { stale_if_error: HumanDuration::secs(3_600), ..default.barred });
        assert_eq!(read.cancelled, default.cancelled);
    }

    #[test]
    fn unknown_keys_are_refused_by_name() {
        assert!(toml::from_str::<Lifetimes>("norml = \"30s\"").unwrap_err().message().contains("norml"));
        assert!(
            toml::from_str::<Lifetimes>("normal = { frsh = \"1s\" }").unwrap_err().message().contains("frsh")
        );
    }
}
