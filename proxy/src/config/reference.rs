//! `docs/configuration.md`: every key with its type, default, range and meaning, from the schema.

use std::fmt::Write as _;

use serde_json::{Map, Value};

use super::{restart, schema};

const HEAD: &str = "\
# Configuration: every key

`cmiot-proxy check --keys` prints this page, and `check --schema` the same as JSON Schema (draft 7), with which editors
complete and check a configuration. `check --config FILE` prints a configuration with all defaults filled in.

- Durations have units: `\"500ms\"`, `\"20s\"`, `\"5m\"`, `\"24h\"`, `\"1h 30m\"`. Sizes have `B`, `KiB`, `MiB` or `GiB`.
- Paths are relative to the folder of the configuration file.
- `-` as the default: the key is absent, and the last column says what that means.
- Reload: `yes` if a reload applies the key, `restart` if it takes effect at the next start. A reload is SIGHUP, a changed
  file, or `POST /config/reload`.
- An unknown key is an error.
- An account, and a client, has one of `password_file`, `password_env` and `password`.

[gateway.md](gateway.md) explains clients, permissions and connections, [carrier-side.md](carrier-side.md) lifetimes,
accounts and operations, [auditing.md](auditing.md) the audit.
";

/// A table of the configuration.
struct Section<'a> {
    /// As TOML writes it: `[gateway.tls]`, `[[account]]`.
    heading: String,
    description: &'a str,
    object: &'a Map<String, Value>,
}

/// The page, in Markdown.
pub fn markdown() -> String {
    let schema = schema::json_schema();
    let mut page = HEAD.to_owned();
    let mut sections = Vec::new();
    if let Some(root) = schema.as_object() {
        collect(&schema, root, "", &mut sections);
    }
    for section in sections {
        write_section(&schema, &section, &mut page);
    }
    page
}

/// The tables below an object, in the order of the structs.
fn collect<'a>(
    schema: &'a Value,
    object: &'a Map<String, Value>,
    path: &str,
    sections: &mut Vec<Section<'a>>,
) {
    for (key, property) in properties(object) {
        let Some((table, is_array)) = table_of(schema, property) else { continue };
        let path = if path.is_empty() { key.clone() } else { format!("{path}.{key}") };
        let heading = if is_array { format!("[[{path}]]") } else { format!("[{path}]") };
        sections.push(Section { heading, description: text(property, "description"), object: table });
        collect(schema, table, &path, sections);
    }
}

fn write_section(schema: &Value, section: &Section<'_>, page: &mut String) {
    let required: Vec<&str> = section
        .object
        .get("required")
        .and_then(Value::as_array)
        .into_iter()
        .flatten()
        .filter_map(Value::as_str)
        .collect();
    // Writing to a String cannot fail.
    let _ = write!(page, "\n## `{}`\n{}\n", section.heading, section.description);
    if section.heading == "[freshness]" {
        page.push_str(
            "Defaults: `fresh`, `stale_while_revalidate`, `stale_if_error`. A duration alone sets `fresh`; a table sets what it \
             names: `normal = { stale_if_error = \"1h\" }`.\n",
        );
    }
    page.push_str(
        "\n| key | type | default | range | reload | meaning |\n| --- | --- | --- | --- | --- | --- |\n",
    );
    for (key, property) in properties(section.object).filter(|(_, one)| table_of(schema, one).is_none()) {
        let value = resolve(schema, property);
        let full = format!("{} {key}", section.heading);
        let reload = if restart::keys().any(|key| key == full) { "restart" } else { "yes" };
        let default = match property.get("default") {
            Some(default) => literal(default),
            None if required.contains(&key.as_str()) => "required".to_owned(),
            None => "-".to_owned(),
        };
        let cells = [kind(schema, value), default, range(value), reload.to_owned(), meaning(property, value)];
        let cells = cells.map(|cell| cell.replace('|', "\\|")).join(" | ");
        let _ = writeln!(page, "| `{key}` | {cells} |");
    }
}

fn properties(object: &Map<String, Value>) -> impl Iterator<Item = (&String, &Value)> {
    object.get("properties").and_then(Value::as_object).into_iter().flatten()
}

/// The table that a property is, and whether it is an array of such tables.
fn table_of<'a>(schema: &'a Value, property: &'a Value) -> Option<(&'a Map<String, Value>, bool)> {
    let value = resolve(schema, property);
    let items = value.get("items").map(|items| resolve(schema, items));
    let (object, is_array) = items.map_or((value, false), |items| (items, true));
    object.get("properties")?;
    Some((object.as_object()?, is_array))
}

/// The schema that a property refers to, or its own.
fn resolve<'a>(schema: &'a Value, property: &'a Value) -> &'a Value {
    let inner = property.get("allOf").and_then(|all| all.get(0)).unwrap_or(property);
    let pointer = inner.get("$ref").and_then(Value::as_str).and_then(|reference| reference.strip_prefix('#'));
    pointer.and_then(|pointer| schema.pointer(pointer)).unwrap_or(inner)
}

fn text<'a>(value: &'a Value, key: &str) -> &'a str {
    value.get(key).and_then(Value::as_str).unwrap_or_default()
}

/// The type, with the unit of a number.
fn kind(schema: &Value, value: &Value) -> String {
    if let Some(title) = value.get("title").and_then(Value::as_str) {
        return title.to_owned();
    }
    match text(value, "type") {
        "array" => format!("list of {}s", kind(schema, resolve(schema, &value["items"]))),
        "object" => format!("table of {}s", kind(schema, resolve(schema, &value["additionalProperties"]))),
        "integer" => match text(value, "x-unit") {
            "" => "integer".to_owned(),
            unit => format!("integer: {unit}"),
        },
        // Texts with fixed values.
        "" => "string".to_owned(),
        name => name.to_owned(),
    }
}

/// The values that are accepted.
fn range(value: &Value) -> String {
    let values: Vec<String> = variants(value).map(|(value, _)| literal(value)).collect();
    if !values.is_empty() {
        return values.join(", ");
    }
    if text(value, "title").starts_with("duration") {
        return if value.get("not").is_some() { "> 0" } else { "≥ 0" }.to_owned();
    }
    if text(value, "title") == "size" {
        return if text(value, "pattern").contains("[1-9]") { "> 0" } else { "≥ 0" }.to_owned();
    }
    let bound = |key: &str| value.get(key).map(ToString::to_string);
    match (bound("minimum"), bound("maximum")) {
        (Some(least), Some(most)) => return format!("{least}–{most}"),
        (Some(least), None) => return format!("≥ {least}"),
        _ => {}
    }
    match (bound("minItems"), bound("maxItems")) {
        (Some(least), _) => return format!("at least {least}"),
        (None, Some(most)) => return format!("at most {most}"),
        _ => {}
    }
    match (text(value, "title"), text(value, "pattern")) {
        ("", pattern) | ("appid" | "ebid", pattern) if !pattern.is_empty() => format!("`{pattern}`"),
        _ => String::new(),
    }
}

/// The description of a property, and of each of its fixed values.
fn meaning(property: &Value, value: &Value) -> String {
    let mut meaning = text(property, "description").to_owned();
    for (value, description) in variants(value).filter(|(_, description)| !description.is_empty()) {
        let _ = write!(meaning, " {}: {description}", literal(value));
    }
    meaning
}

/// The fixed values of a text, with their descriptions.
fn variants(value: &Value) -> impl Iterator<Item = (&Value, &str)> {
    let plain = value.get("enum").and_then(Value::as_array).into_iter().flatten().map(|one| (one, ""));
    let described = value.get("oneOf").and_then(Value::as_array).into_iter().flatten();
    plain.chain(described.filter_map(|one| Some((one.get("const")?, text(one, "description")))))
}

/// A value as TOML writes it; a lifetime as its three durations.
fn literal(value: &Value) -> String {
    match value {
        Value::Object(lifetime) => lifetime.values().map(literal).collect::<Vec<_>>().join(", "),
        other => format!("`{other}`"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_key_has_a_meaning_and_every_number_a_unit() {
        let page = markdown();
        let rows: Vec<Vec<&str>> = page
            .lines()
            .filter(|line| line.starts_with("| `"))
            .map(|line| line.trim_matches('|').split(" | ").map(str::trim).collect())
            .collect();
        assert!(rows.len() > 120, "{page}");
        for row in rows {
            assert!(row.len() == 6 && row[5].ends_with('.') && row[1] != "integer", "{row:?}");
        }
    }

    #[test]
    fn the_keys_that_need_a_restart_are_keys() {
        let page = markdown();
        let marked = page.lines().filter(|line| line.contains(" | restart | ")).count();
        assert_eq!(marked, restart::keys().count());
    }
}
