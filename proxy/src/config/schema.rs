//! The JSON Schema (draft 7) of a configuration, from the structs that read it.
//!
//! It describes each key alone: what two keys say about each other, and whether a file exists, is left to `check`. Old
//! names of keys are not in it.

use schemars::generate::SchemaSettings;
use serde_json::{Map, Value};

use super::ConfigFile;

/// The schema as JSON.
pub fn json_schema() -> Value {
    let schema = SchemaSettings::draft07().into_generator().into_root_schema_for::<ConfigFile>();
    let mut schema = schema.to_value();
    simplify(&mut schema);
    schema["title"] = "Configuration of cmiot-proxy".into();
    schema
}

/// Removes null, which TOML does not have, and the names of Rust integers.
fn simplify(value: &mut Value) {
    match value {
        Value::Array(values) => values.iter_mut().for_each(simplify),
        Value::Object(object) => {
            object.retain(|key, value| {
                !(key == "format" && value.is_string() || key == "default" && value.is_null())
            });
            if let Some(Value::String(text)) = object.get_mut("description") {
                *text = text.split_whitespace().collect::<Vec<_>>().join(" ");
            }
            without_null(object);
            // The defaults of a whole table are those of its keys.
            if object.contains_key("allOf") && object.get("default").is_some_and(Value::is_object) {
                let is_lifetime = object["default"].get("stale_if_error").is_some();
                object.retain(|key, _| key != "default" || is_lifetime);
            }
            object.values_mut().for_each(simplify);
        }
        _ => {}
    }
}

/// The schema of an optional value without null.
fn without_null(object: &mut Map<String, Value>) {
    if let Some(Value::Array(types)) = object.get_mut("type") {
        types.retain(|name| name != "null");
        if let [name] = types.as_slice() {
            let name = name.clone();
            object.insert("type".to_owned(), name);
        }
    }
    let Some(Value::Array(any)) = object.get_mut("anyOf") else { return };
    let before = any.len();
    any.retain(|one| one.get("type").is_none_or(|name| name != "null"));
    if any.len() == before || any.len() != 1 {
        return;
    }
    let Some(one) = any.pop() else { return };
    object.remove("anyOf");
    match one {
        // Draft 7 ignores what is next to a $ref.
        reference if reference.get("$ref").is_some() => {
            object.insert("allOf".to_owned(), Value::Array(vec![reference]));
        }
        Value::Object(inner) => {
            for (key, value) in inner {
                object.entry(key).or_insert(value);
            }
        }
        _ => {}
    }
}
