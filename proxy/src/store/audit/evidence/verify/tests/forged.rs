//! A forger who knows the format: hashes the chain again, and edits the schema so that SQLite allows any change.

use std::collections::HashMap;

use rusqlite::types::Value as Stored;
use rusqlite::{Connection, params};

use super::*;
use crate::store::audit::log::chain::{Digest, Hash, Limits};
use crate::store::audit::log::columns::{Class, Table, VERSION};
use crate::store::audit::log::value::Value;

/// Hashes a segment again, with batches of these rows, or of those that exist.
fn rehash(connection: &Connection, spans: Option<Vec<(i64, i64)>>) {
    let pairs = |sql: &str| -> Vec<(i64, i64)> {
        let mut all = connection.prepare(sql).unwrap();
        all.query_map([], |row| Ok((row.get(0)?, row.get(1)?))).unwrap().map(Result::unwrap).collect()
    };
    let spans = spans.unwrap_or_else(|| pairs("SELECT first, last FROM batch ORDER BY last"));
    let names: HashMap<i64, String> = connection
        .prepare("SELECT id, text FROM name")
        .unwrap()
        .query_map([], |row| Ok((row.get(0)?, row.get(1)?)))
        .unwrap()
        .map(Result::unwrap)
        .collect();
    let mut rows: HashMap<i64, (Table, Vec<Stored>)> = HashMap::new();
    for table in Table::ALL {
        let mut all = connection.prepare(&table.select_sql(VERSION)).unwrap();
        let values = |row: &rusqlite::Row<'_>| {
            let values =
                (1..=table.columns(VERSION).len()).map(|place| row.get(place)).collect::<Result<_, _>>()?;
            Ok((row.get(0)?, (table, values)))
        };
        rows.extend(all.query_map([i64::MIN], values).unwrap().map(Result::unwrap));
    }
    let seed: Vec<u8> = connection.query_row("SELECT seed FROM segment", [], |row| row.get(0)).unwrap();
    let (mut head, mut horizon) = (Hash::from_slice(&seed).unwrap(), i64::MIN);
    connection.execute("DELETE FROM batch", []).unwrap();
    for (first, last) in spans {
        let (mut digest, mut begins) = (Digest::batch(&head), i64::MAX);
        for id in first..=last {
            let (table, values) = &rows[&id];
            digest.row(table.tag(), id);
            for (column, value) in table.columns(VERSION).iter().zip(values) {
                digest.value(match value {
                    Stored::Integer(number) => {
                        match names.get(number).filter(|_| column.class == Class::Name) {
                            Some(name) => Value::Name(name),
                            None => Value::Int(*number),
                        }
                    }
                    Stored::Text(text) => Value::Text(text.as_bytes()),
                    Stored::Blob(bytes) if column.class == Class::Blob => Value::Blob(bytes),
                    Stored::Blob(bytes) => Value::Text(bytes),
                    Stored::Null | Stored::Real(_) => Value::Null,
                });
            }
            let at = match *table {
                Table::Refused => &values[const { Table::Refused.position("last") } - 1],
                Table::Gap => &values[const { Table::Gap.position("last") } - 1],
                _ => &values[0],
            };
            if let Stored::Integer(at) = at {
                (begins, horizon) = (begins.min(*at), horizon.max(*at));
            }
        }
        head = digest.finish_batch(Limits { version: VERSION, first, last, begins, horizon });
        connection
            .execute(
                "INSERT INTO batch (last, first, version, begins, horizon, hash) VALUES (?1, ?2, ?3, ?4, ?5, ?6)",
                params![last, first, VERSION, begins, horizon, head.as_bytes()],
            )
            .unwrap();
    }
}

/// Writes another schema over the pages that there are.
fn put_schema(path: &Path, schema: &[SchemaRow]) {
    let connection = Connection::open(path).unwrap();
    connection
        .execute_batch(
            "PRAGMA synchronous = off; PRAGMA writable_schema = on; BEGIN; DELETE FROM sqlite_schema",
        )
        .unwrap();
    for row in schema {
        connection
            .execute(
                "INSERT INTO sqlite_schema (type, name, tbl_name, rootpage, sql) VALUES (?1, ?2, ?3, ?4, ?5)",
                params![row.0, row.1, row.2, row.3, row.4],
            )
            .unwrap();
    }
    connection.execute_batch("COMMIT").unwrap();
}

/// Acts under another schema, and puts that of the proxy back.
fn act_under(path: &Path, schema: &[SchemaRow], act: impl FnOnce(&Connection)) {
    let made = schema_of(path);
    put_schema(path, schema);
    let connection = Connection::open(path).unwrap();
    connection.execute_batch("PRAGMA synchronous = off").unwrap();
    act(&connection);
    drop(connection);
    put_schema(path, &made);
}

/// The proxy's schema without triggers, and its tables without types and constraints.
fn loosened(path: &Path) -> Vec<SchemaRow> {
    let connection = Connection::open(path).unwrap();
    let loosen = |row: SchemaRow| {
        let (kind, name, table, page, sql) = row;
        if kind != "table" {
            return (kind, name, table, page, sql);
        }
        let columns: Vec<String> =
            columns(&connection, &name).into_iter().map(|(column, _)| format!("\"{column}\"")).collect();
        let (first, rest) = columns.split_first().unwrap();
        let rest = rest.join(", ");
        let sql = match &*name {
            "segment" => format!("CREATE TABLE segment ({first}, {rest})"),
            "name" => "CREATE TABLE name (id INTEGER PRIMARY KEY, text UNIQUE)".to_owned(),
            "manifest" => format!("CREATE TABLE manifest ({first} PRIMARY KEY, {rest})"),
            "card_entry" | "card_block_entry" => {
                format!("CREATE TABLE {name} ({first}, {rest}, PRIMARY KEY ({first}, {rest})) WITHOUT ROWID")
            }
            _ => format!("CREATE TABLE {name} ({first} INTEGER PRIMARY KEY, {rest})"),
        };
        (kind, name, table, page, Some(sql))
    };
    schema_of(path).into_iter().filter(|row| row.0 != "trigger").map(loosen).collect()
}

/// The nearest values of every other type.
fn other_types(value: &Stored, name: Option<&str>) -> Vec<Stored> {
    match value {
        Stored::Null => {
            vec![Stored::Integer(0), Stored::Real(0.5), Stored::Text(String::new()), Stored::Blob(vec![])]
        }
        Stored::Integer(number) => {
            let text = name.map_or_else(|| number.to_string(), str::to_owned);
            let blob = Stored::Blob(text.as_bytes().to_vec());
            vec![Stored::Null, Stored::Real(*number as f64 + 0.5), Stored::Text(text), blob]
        }
        Stored::Text(text) => {
            let number = text.parse().unwrap_or(7);
            vec![
                Stored::Null,
                Stored::Integer(number),
                Stored::Real(0.5),
                Stored::Blob(text.as_bytes().to_vec()),
            ]
        }
        Stored::Blob(_) => {
            vec![Stored::Null, Stored::Integer(7), Stored::Real(0.5), Stored::Text("7".into())]
        }
        Stored::Real(_) => panic!("no column holds fractions"),
    }
}

/// The damage of the second segment by itself, without anchors.
fn damage_of_february(dir: &Path) -> Vec<Damage> {
    let scope = Scope { from: Month::parse("2026-02"), ..Scope::default() };
    verify(dir, &scope, |_, _| {}).unwrap().damage
}

/// Every cell of these tables to every other type; how many, all of them found without anchors. The chain is as it was,
/// and, for the first row of each table, hashed again too.
fn retype(tables: &[&str]) -> (usize, usize) {
    let dir = written();
    let of_file = february(dir.path());
    let loose = loosened(&of_file);
    let connection = Connection::open(&of_file).unwrap();
    let untouched = copy(dir.path());
    act_under(&february(untouched.path()), &loose, |_| {});
    assert_eq!(damage_of_february(untouched.path()), [], "the schema alone does nothing");
    let (mut plain, mut rehashed) = (0, 0);
    for &table in tables {
        let in_chain = Table::ALL.into_iter().find(|of| of.name() == table);
        for (row, key) in keys(&connection, table).iter().enumerate() {
            for (column, _) in columns(&connection, table) {
                // A rowid can be nothing but a number.
                if column == "id" && key.starts_with("rowid") || table == "batch" && column == "last" {
                    continue;
                }
                let sql = format!("SELECT \"{column}\" FROM {table} WHERE {key}");
                let value: Stored = connection.query_row(&sql, [], |row| row.get(0)).unwrap();
                let of_chain = in_chain
                    .and_then(|of| of.columns(VERSION).iter().find(|it| it.name.trim_matches('"') == column));
                let name = of_chain.filter(|it| it.class == Class::Name).and_then(|_| {
                    let sql = format!(
                        "SELECT text FROM name WHERE id = (SELECT \"{column}\" FROM {table} WHERE {key})"
                    );
                    connection.query_row(&sql, [], |row| row.get::<_, String>(0)).ok()
                });
                let set = format!("UPDATE {table} SET \"{column}\" = ?1 WHERE {key}");
                for other in other_types(&value, name.as_deref()) {
                    // Nor can the key of a table without rowids be NULL.
                    if other == Stored::Null && !key.starts_with("rowid") {
                        continue;
                    }
                    let copied = copy(dir.path());
                    act_under(&february(copied.path()), &loose, |open| {
                        assert_eq!(open.execute(&set, [&other]), Ok(1), "{set} {other:?}");
                    });
                    assert_ne!(damage_of_february(copied.path()), [], "{set} with {other:?}");
                    plain += 1;
                    // What his column may hold is an edit like any other once it is hashed: only anchors show it.
                    let allowed = of_chain.is_none_or(|it| {
                        let number = matches!(other, Stored::Integer(_)) && it.class == Class::Int;
                        let text = matches!(other, Stored::Text(_)) && it.class == Class::Text;
                        let blob = matches!(other, Stored::Blob(_)) && it.class == Class::Blob;
                        number || text || blob || (it.nullable && other == Stored::Null)
                    });
                    if row > 0 || allowed {
                        continue;
                    }
                    let copied = copy(dir.path());
                    act_under(&february(copied.path()), &loose, |open| {
                        open.execute(&set, [&other]).unwrap();
                        rehash(open, None);
                    });
                    assert_ne!(damage_of_february(copied.path()), [], "{set} with {other:?}, hashed again");
                    rehashed += 1;
                }
            }
        }
    }
    (plain, rehashed)
}

#[test]
fn every_cell_of_a_record_to_another_type_is_found() {
    assert_eq!(retype(&["record"]), (8 * 20 * 4, 68));
}

#[test]
fn every_cell_of_another_row_to_another_type_is_found() {
    assert_eq!(retype(&["call", "refused", "gap", "note"]), (4 * (15 + 5 + 4) * 4 + 12, 98));
}

#[test]
fn every_cell_of_what_holds_them_together_to_another_type_is_found() {
    let (plain, _) = retype(&["batch", "name", "segment", "manifest", "card_run", "card_block"]);
    assert!(plain > 100, "{plain}");
}

#[test]
fn every_cell_of_the_index_to_another_type_is_found() {
    let (plain, _) = retype(&["card_entry", "card_block_entry"]);
    assert!(plain > 100, "{plain}");
}

/// The first and last rows of the second segment's batches.
fn spans(dir: &Path) -> Vec<(i64, i64)> {
    let connection = Connection::open(february(dir)).unwrap();
    let mut all = connection.prepare("SELECT first, last FROM batch ORDER BY last").unwrap();
    all.query_map([], |row| Ok((row.get(0)?, row.get(1)?))).unwrap().map(Result::unwrap).collect()
}

#[test]
fn batches_merged_or_split_are_found_by_anchors_alone() {
    let dir = written();
    let anchors = anchors(dir.path());
    let there = spans(dir.path());
    let merged = (0..there.len() - 1).map(|at| {
        let mut merged = there.clone();
        let (_, last) = merged.remove(at + 1);
        merged[at].1 = last;
        merged
    });
    let split = there
        .iter()
        .enumerate()
        .flat_map(|(at, &(first, last))| (first..last).map(move |end| (at, first, end, last)));
    let split = split.map(|(at, first, end, last)| {
        let mut split = there.clone();
        split[at] = (end + 1, last);
        split.insert(at, (first, end));
        split
    });
    let all: Vec<Vec<(i64, i64)>> = merged.chain(split).collect();
    assert!(all.len() >= 20, "{}", all.len());
    for spans in all {
        let copied = copy(dir.path());
        assert!(tamper(copied.path(), |connection| {
            rehash(connection, Some(spans.clone()));
            Ok(1)
        }));
        assert_eq!(damage(copied.path(), &[]), [], "a chain without a key: {spans:?}");
        let found = damage(copied.path(), &anchors);
        assert!(found.iter().any(|damage| damage.what.contains("contradicts the anchor")), "{spans:?}");
    }
}

#[test]
fn a_rewritten_history_is_found_by_any_anchor_behind_its_first_change() {
    let dir = written();
    let all = anchors(dir.path());
    let rewrite = |spans: Option<Vec<(i64, i64)>>| {
        let copied = copy(dir.path());
        assert!(tamper(copied.path(), |connection| {
            let changed = connection.execute("UPDATE record SET status = '02', peer = '192.0.2.66'", [])?;
            if spans.is_some() {
                connection.execute("INSERT INTO gap SELECT max(last) + 1, 0, 0, 0, 0 FROM batch", [])?;
            }
            rehash(connection, spans.clone());
            Ok(changed)
        }));
        copied
    };
    let there = spans(dir.path());
    let one = (there[0].0, there[there.len() - 1].1 + 1);
    for spans in [None, Some(vec![one])] {
        let copied = rewrite(spans.clone());
        assert_eq!(damage(copied.path(), &[]), [], "a chain without a key");
        for anchor in all.iter().filter(|anchor| anchor.segment == "2026-02" && anchor.last > there[0].0) {
            assert_ne!(damage(copied.path(), std::slice::from_ref(anchor)), [], "{spans:?} {anchor:?}");
        }
    }
}

#[test]
fn a_rewritten_month_linked_anew_by_the_next_is_found_by_an_anchor_of_either() {
    let dir = written();
    let all = anchors(dir.path());
    let copied = copy(dir.path());
    let open = |path: &Path| {
        let connection = Connection::open(path).unwrap();
        let drop: String = connection
            .query_row(
                "SELECT group_concat('DROP TRIGGER ' || name, ';') FROM sqlite_schema WHERE type = 'trigger'",
                [],
                |row| row.get(0),
            )
            .unwrap();
        connection.execute_batch(&drop).unwrap();
        connection
    };
    let (first, second) = (january(copied.path()), february(copied.path()));
    let made = [schema_of(&first), schema_of(&second)];
    let connection = open(&first);
    assert_eq!(connection.execute("UPDATE record SET status = '02'", []), Ok(1));
    rehash(&connection, None);
    let head = link::head(&connection).unwrap().unwrap().hash;
    drop(connection);
    let connection = open(&second);
    connection.execute("UPDATE manifest SET head = ?1", [head.as_bytes()]).unwrap();
    let manifest = link::manifest(&connection).unwrap().unwrap();
    let before: i64 = connection.query_row("SELECT before FROM segment", [], |row| row.get(0)).unwrap();
    let seed = chain::seed("2026-02", &head, before, &manifest);
    let link = "UPDATE segment SET previous = ?1, seed = ?2";
    connection.execute(link, [head.as_bytes(), seed.as_bytes()]).unwrap();
    rehash(&connection, None);
    drop(connection);
    put_schema(&first, &made[0]);
    put_schema(&second, &made[1]);
    assert_eq!(damage(copied.path(), &[]), [], "a chain without a key");
    let is_later = |anchor: &&Anchor| anchor.segment == "2026-02" || anchor.last > 0;
    assert!(all.iter().filter(is_later).count() > 2);
    for anchor in all.iter().filter(is_later) {
        assert_ne!(damage(copied.path(), std::slice::from_ref(anchor)), [], "{anchor:?}");
    }
}

#[test]
fn what_is_added_to_the_schema_is_found_and_statistics_are_not_taken_for_it() {
    let dir = written();
    let anchors = anchors(dir.path());
    let added = [
        "CREATE INDEX other ON record (client)",
        "CREATE INDEX \"sqlite-stat\" ON record (client) WHERE id <> 2",
        "CREATE TABLE other (it)",
        "CREATE TABLE \"sqlite-stat1\" (tbl, idx, stat)",
        "CREATE VIEW other AS SELECT 1",
        "CREATE VIEW \"sqlite-stat4\" AS SELECT 1",
        "CREATE TRIGGER other BEFORE INSERT ON batch WHEN NEW.last > 99 BEGIN SELECT RAISE(ABORT, 'x'); END",
        "CREATE TRIGGER \"sqlite-stat-x\" BEFORE INSERT ON record BEGIN SELECT RAISE(IGNORE); END",
        "CREATE UNIQUE INDEX other ON record (id, client)",
    ];
    for sql in added {
        let copied = copy(dir.path());
        assert!(tamper(copied.path(), |connection| connection.execute_batch(sql).map(|()| 1)), "{sql}");
        for anchors in [&[][..], &anchors] {
            let found = damage(copied.path(), anchors);
            assert!(
                found.iter().any(|damage| damage.what.contains("added to the schema")),
                "{sql}: {found:?}"
            );
        }
    }
    // Reserved names, which only an edited schema can have.
    let made = schema_of(&february(dir.path()));
    for (kind, name, table, sql) in [
        ("table", "sqlite_stat1", "sqlite_stat1", Some("CREATE TABLE sqlite_stat1(tbl,idx,stat,more)")),
        ("table", "sqlite_stat2", "sqlite_stat2", Some("CREATE TABLE sqlite_stat2(tbl,idx,stat)")),
        ("table", "sqlite_sequence", "sqlite_sequence", Some("CREATE TABLE sqlite_sequence(name,seq)")),
        (
            "trigger",
            "sqlite_stat1",
            "record",
            Some("CREATE TRIGGER sqlite_stat1 AFTER INSERT ON record BEGIN SELECT 1; END"),
        ),
        ("view", "sqlite_stat4", "sqlite_stat4", Some("CREATE VIEW sqlite_stat4 AS SELECT 1")),
        (
            "index",
            "sqlite_autoindex_record_1",
            "record",
            Some("CREATE INDEX sqlite_autoindex_record_1 ON record(at)"),
        ),
    ] {
        let copied = copy(dir.path());
        let path = february(copied.path());
        let page = if kind == "table" || kind == "index" {
            let connection = Connection::open(&path).unwrap();
            connection.execute_batch("CREATE TABLE page_of_its_own (it)").unwrap();
            if kind == "index" {
                connection.execute_batch("CREATE INDEX i ON record (at)").unwrap();
            }
            schema_of(&path).pop().unwrap().3
        } else {
            0
        };
        let mut forged = made.clone();
        forged.push((kind.into(), name.into(), table.into(), page, sql.map(str::to_owned)));
        put_schema(&path, &forged);
        assert_ne!(damage(copied.path(), &[]), [], "{kind} {name}");
    }
    // Every object that is there, twice.
    for row in &made {
        let copied = copy(dir.path());
        let forged: Vec<SchemaRow> = made.iter().chain([row]).cloned().collect();
        put_schema(&february(copied.path()), &forged);
        let found = verify(copied.path(), &Scope::default(), |_, _| {});
        assert!(found.is_err() || found.is_ok_and(|report| !report.damage.is_empty()), "{} twice", row.1);
    }
    let copied = copy(dir.path());
    Connection::open(february(copied.path())).unwrap().execute_batch("ANALYZE").unwrap();
    assert_eq!(damage(copied.path(), &anchors), []);
}

#[test]
fn every_index_that_lies_is_found() {
    let dir = written();
    let anchors = anchors(dir.path());
    let path = february(dir.path());
    let made = schema_of(&path);
    let indexes: Vec<&SchemaRow> = made.iter().filter(|row| row.0 == "index").collect();
    assert_eq!(indexes.len(), 3, "{indexes:?}");
    for index in indexes {
        let (_, name, table, ..) = index;
        // Filled with other values, with some rows left out, and with a row too many.
        let key = columns(&Connection::open(&path).unwrap(), table)[0].0.clone();
        let key = if table == "manifest" { "first".to_owned() } else { key };
        let last: i64 = Connection::open(&path)
            .unwrap()
            .query_row(&format!("SELECT max(rowid) FROM {table}"), [], |row| row.get(0))
            .unwrap();
        let column = match table.as_str() {
            "call" => "transid",
            "name" => "text",
            _ => "month",
        };
        for lie in [
            format!("CREATE INDEX {name} ON {table}({key})"),
            format!("CREATE INDEX {name} ON {table}({column}) WHERE rowid <> {last}"),
            format!("CREATE INDEX {name} ON {table}({column} || 'x')"),
        ] {
            let copied = copy(dir.path());
            let forged: Vec<SchemaRow> = loosened(&path)
                .into_iter()
                .map(|(kind, of, on, page, sql)| {
                    let sql = match (&*kind, &*of) {
                        ("index", of) if of == name => Some(lie.clone()),
                        // Without the constraint that makes the index.
                        ("table", "name") => {
                            Some("CREATE TABLE name (id INTEGER PRIMARY KEY, text)".to_owned())
                        }
                        ("table", "manifest") => sql.map(|sql| sql.replace(" PRIMARY KEY", "")),
                        _ => sql,
                    };
                    // The constraint of the other table goes too, and so must its index.
                    (kind, of, on, page, sql)
                })
                .filter(|row| row.0 != "index" || row.1 == *name || row.1 == "call_transid")
                .collect();
            act_under(&february(copied.path()), &forged, |open| {
                open.execute_batch(&format!("REINDEX \"{name}\"")).unwrap();
            });
            for anchors in [&[][..], &anchors] {
                let found = damage(copied.path(), anchors);
                assert!(found.iter().any(|damage| damage.what.contains("own check")), "{lie}: {found:?}");
            }
        }
    }
}
