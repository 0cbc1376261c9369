//! JSON Schemas of the values in `units.rs`, and of texts that have no type of their own.
//!
//! A `title` is the type's name in docs/configuration.md.

use std::borrow::Cow;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};

use super::{HumanDuration, Secret, Size, Window};

/// Numbers with units, short or long, as jiff reads and prints them, or zero. Other forms that are read (ISO 8601) are not in
/// the schema.
const DURATION: &str = concat!(
    "^(0|(?:[0-9]+(?:[.][0-9]+)? *",
    "(?:h|hrs?|hours?|m|mins?|minutes?|s|secs?|seconds?|ms|msecs?|millis?|milliseconds?",
    "|us|µs|usecs?|µsecs?|micros?|microseconds?|ns|nsecs?|nanos?|nanoseconds?)(?: *, *| +|$|(?=[0-9])))+)$"
);

/// Declares the schema of a type that is written as a text.
macro_rules! text {
    ($type:ty, $name:literal, $schema:tt) => {
        impl JsonSchema for $type {
            fn inline_schema() -> bool {
                true
            }

            fn schema_name() -> Cow<'static, str> {
                $name.into()
            }

            fn json_schema(_: &mut SchemaGenerator) -> Schema {
                json_schema!($schema)
            }
        }
    };
}

text!(HumanDuration, "Duration", { "type": "string", "title": "duration", "pattern": DURATION });

/// A duration longer than zero.
pub struct Positive;

text!(Positive, "PositiveDuration", {
    "type": "string", "title": "duration", "pattern": DURATION, "not": { "pattern": "^[^1-9]*$" }
});

text!(Window, "Window", {
    "title": "duration or \"any\"",
    "anyOf": [{ "type": "string", "const": "any" }, { "type": "string", "pattern": DURATION }]
});

text!(Size, "Size", { "type": "string", "title": "size", "pattern": "^[0-9]+ *(GiB|MiB|KiB|B)$" });

/// A size of at least one byte.
pub struct PositiveSize;

text!(PositiveSize, "PositiveSize", {
    "type": "string", "title": "size", "pattern": "^[0-9]*[1-9][0-9]* *(GiB|MiB|KiB|B)$"
});

text!(Secret, "Secret", { "type": "string", "title": "secret" });

/// The path of a file or folder.
pub struct FilePath;

text!(FilePath, "FilePath", { "type": "string", "title": "path", "minLength": 1 });

/// A network: an address, with or without a prefix length.
pub struct Network;

text!(Network, "Network", { "type": "string", "title": "network", "pattern": "^[0-9A-Fa-f:.]+(/[0-9]{1,3})?$" });

/// An IP address.
pub struct Address;

text!(Address, "Address", { "type": "string", "title": "IP address", "pattern": "^[0-9A-Fa-f:.]+$" });

/// An appid.
pub struct AppId;

text!(AppId, "AppId", { "type": "string", "title": "appid", "pattern": "^[0-9A-Za-z]{1,26}$" });

/// An ebid.
pub struct Ebid;

text!(Ebid, "Ebid", { "type": "string", "title": "ebid", "pattern": "^[0-9A-Za-z]{1,32}$" });

/// A text that is not blank.
pub struct Name;

text!(Name, "Name", { "type": "string", "title": "string", "pattern": "[^ ]" });

#[cfg(test)]
mod tests {
    use super::*;
    use serde::Deserialize;

    /// Whether a text is accepted by the type and by its schema.
    fn accepted<T: JsonSchema + for<'de> Deserialize<'de>>(text: &str) -> (bool, bool) {
        let schema = T::json_schema(&mut SchemaGenerator::default()).to_value();
        let schema = jsonschema::draft7::new(&schema).unwrap();
        let value = serde_json::Value::from(text);
        (serde_json::from_value::<T>(value.clone()).is_ok(), schema.is_valid(&value))
    }

    #[test]
    fn a_schema_accepts_what_its_type_accepts() {
        for (text, good) in [
            ("500ms", true),
            ("20s", true),
            ("1h 30m", true),
            ("1h30m", true),
            ("720h", true),
            ("1.5s", true),
            ("2 hours, 5 minutes", true),
            ("0", true),
            ("5µs", true),
            ("20", false),
            ("soon", false),
            ("-5s", false),
            ("5 bananas", false),
            ("", false),
            ("5d", false),
        ] {
            assert_eq!(accepted::<HumanDuration>(text), (good, good), "{text}");
            assert_eq!(accepted::<Window>(text), (good, good), "{text}");
        }
        assert_eq!(accepted::<Window>("any"), (true, true));
        for (text, good) in [("64KiB", true), ("64 KiB", true), ("0B", true), ("64kb", false), ("KiB", false)]
        {
            assert_eq!(accepted::<Size>(text), (good, good), "{text}");
        }
        for secs in [1, 59, 60, 90, 3_600, 86_401] {
            let printed = HumanDuration::secs(secs).to_string();
            assert_eq!(accepted::<HumanDuration>(&printed), (true, true), "{printed}");
        }
    }

    #[test]
    fn the_lengths_of_identifiers_are_those_of_the_signer() {
        let longest = |schema: Schema| {
            let pattern = schema.to_value()["pattern"].as_str().unwrap_or_default().to_owned();
            pattern.trim_end_matches("}$").rsplit(',').next().unwrap_or_default().to_owned()
        };
        let mut generator = SchemaGenerator::default();
        assert_eq!(longest(AppId::json_schema(&mut generator)), cmiot_signer::AppId::MAX_LEN.to_string());
        assert_eq!(longest(Ebid::json_schema(&mut generator)), cmiot_signer::Ebid::MAX_LEN.to_string());
    }
}
