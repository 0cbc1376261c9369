//! The manifests for other build systems, against what these formats allow: ESP-IDF's `idf_component.yml`
//! (docs.espressif.com, component manager, "Manifest File"), Zephyr's `module.yml` (the schema in its
//! `scripts/zephyr_module.py`), Kconfig, and pkg-config's `.pc` (pc(5)). None of these programs is installed for it.
#![allow(clippy::unwrap_used)] // In a test, to panic is to fail.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use yaml_rust2::{Yaml, YamlLoader};

#[test]
fn the_esp_idf_manifest_has_keys_of_its_format() {
    let folder = root("packaging/esp-idf/cmiot_signer");
    let manifest = yaml(&folder.join("idf_component.yml"));
    let known = [
        "version",
        "maintainers",
        "description",
        "license",
        "tags",
        "targets",
        "dependencies",
        "files",
        "examples",
        "url",
        "repository",
        "repository_info",
        "documentation",
        "issues",
        "discussion",
    ];
    for key in keys(&manifest) {
        assert!(known.contains(&key), "{key} is no key of a manifest");
    }
    assert_eq!(manifest["version"].as_str(), Some(env!("CARGO_PKG_VERSION")), "quoted, and of the crate");
    assert_eq!(manifest["license"].as_str(), Some(env!("CARGO_PKG_LICENSE")));
    assert!(manifest["description"].as_str().is_some_and(|text| !text.is_empty()));
    assert_eq!(manifest["dependencies"]["idf"].as_str(), Some(">=5.0"));

    // Each target is one for which the component chooses a target of rustc, and the other way.
    let cmake = fs::read_to_string(folder.join("CMakeLists.txt")).unwrap();
    let targets: BTreeSet<_> = strings(&manifest["targets"]).collect();
    assert!(!targets.is_empty());
    let chosen = BTreeSet::from(["esp32c2", "esp32c3", "esp32c5", "esp32c6", "esp32h2", "esp32p4"]);
    assert_eq!(targets, chosen);
    for pattern in ["\"^esp32c[23]$\"", "\"^esp32(c5|c6|h2)$\"", "\"esp32p4\""] {
        assert!(cmake.contains(pattern), "the list above is of these patterns: {pattern}");
    }
}

#[test]
fn the_zephyr_manifest_has_keys_of_its_format_and_names_its_files() {
    // The module is the folder above `zephyr`.
    let module = root("packaging/zephyr");
    let manifest = yaml(&module.join("zephyr/module.yml"));
    let known = ["name", "build", "tests", "samples", "boards", "blobs", "security", "package-managers"];
    for key in keys(&manifest) {
        assert!(known.contains(&key), "{key} is no key of a module");
    }
    let known = [
        "cmake",
        "kconfig",
        "cmake-ext",
        "kconfig-ext",
        "sysbuild-cmake",
        "sysbuild-kconfig",
        "sysbuild-cmake-ext",
        "sysbuild-kconfig-ext",
        "depends",
        "settings",
    ];
    for key in keys(&manifest["build"]) {
        assert!(known.contains(&key), "{key} is no key of build");
    }
    assert_eq!(manifest["name"].as_str(), Some("cmiot_signer"));
    let cmake = module.join(manifest["build"]["cmake"].as_str().unwrap());
    assert!(cmake.join("CMakeLists.txt").is_file(), "{}", cmake.display());
    let kconfig = module.join(manifest["build"]["kconfig"].as_str().unwrap());
    assert!(kconfig.is_file(), "{}", kconfig.display());
}

#[test]
fn each_symbol_of_kconfig_is_read_by_cmake_and_the_other_way() {
    for folder in ["packaging/esp-idf/cmiot_signer", "packaging/zephyr/zephyr"] {
        let kconfig = fs::read_to_string(root(folder).join("Kconfig")).unwrap();
        let cmake = fs::read_to_string(root(folder).join("CMakeLists.txt")).unwrap();
        let declared = symbols_of(&kconfig);
        let read: BTreeSet<_> =
            words(&cmake).filter_map(|word| word.strip_prefix("CONFIG_")).filter(|one| is_own(one)).collect();
        assert_eq!(declared, read, "{folder}");
        for line in kconfig.lines().filter_map(|line| line.trim().strip_prefix("depends on ")) {
            for symbol in words(line).filter(|one| is_own(one)) {
                assert!(declared.contains(symbol), "{folder}: {symbol}");
            }
        }
    }
}

/// The symbols that a Kconfig file declares; each has a type, and a prompt with it.
fn symbols_of(kconfig: &str) -> BTreeSet<&str> {
    let mut symbols = BTreeSet::new();
    let mut open = 0;
    let mut lines = kconfig.lines().map(str::trim).filter(|line| !line.is_empty()).peekable();
    while let Some(line) = lines.next() {
        match line.split_once(' ').unwrap_or((line, "")) {
            ("menu", title) => {
                assert!(title.starts_with('"') && title.ends_with('"'), "{line}");
                open += 1;
            }
            ("endmenu", _) => open -= 1,
            ("config", symbol) => {
                assert!(symbols.insert(symbol), "{symbol} is declared twice");
                let typed = lines.peek().copied().unwrap_or_default();
                let prompt =
                    ["bool ", "string ", "int ", "hex "].iter().find_map(|of| typed.strip_prefix(of));
                assert!(
                    prompt.is_some_and(|text| text.starts_with('"') && text.ends_with('"')),
                    "{symbol}: {typed}"
                );
            }
            _ => {}
        }
    }
    assert_eq!(open, 0, "a menu has no end");
    symbols
}

/// Whether a symbol of Kconfig is one of these files', and not of the build system.
fn is_own(symbol: &str) -> bool {
    symbol.starts_with("CMIOT_")
}

#[test]
fn the_pkg_config_file_has_what_pkg_config_validates() {
    let text = fs::read_to_string(root("packaging/signer/cmiot_signer.pc")).unwrap();
    let text = text.replace("@VERSION@", env!("CARGO_PKG_VERSION"));
    let folder = "/opt/cmiot/lib/pkgconfig";
    let mut variables = vec![("pcfiledir", folder.to_owned())];
    let mut fields = Vec::new();
    let expand = |variables: &[(&str, String)], value: &str| {
        let expanded = variables
            .iter()
            .fold(value.to_owned(), |value, (name, text)| value.replace(&format!("${{{name}}}"), text));
        assert!(!expanded.contains("${") && !expanded.contains('@'), "{value} has an undefined variable");
        expanded
    };
    for line in text.lines().filter(|line| !line.is_empty() && !line.starts_with('#')) {
        // A variable is written with `=`, a field with `: `.
        let end = line.find([':', '=']).unwrap();
        let (name, value) = (&line[..end], expand(&variables, line[end + 1..].trim()));
        match line.as_bytes()[end] {
            b'=' => variables.push((name, value)),
            _ => fields.push((name, value)),
        }
    }
    let field = |name: &str| {
        let mut of = fields.iter().filter(|(one, _)| *one == name).map(|(_, value)| value.as_str());
        let value = of.next().unwrap_or_else(|| panic!("{name} is missing"));
        assert!(!value.is_empty() && of.next().is_none(), "{name}");
        value
    };
    field("Name");
    field("Description");
    assert_eq!(field("Version"), env!("CARGO_PKG_VERSION"));
    // Relative to the file's place in an archive, lib/pkgconfig.
    assert_eq!(field("Cflags"), format!("-I{folder}/../../include"));
    assert_eq!(field("Libs"), format!("-L{folder}/../../lib -lcmiot_signer"));
    let known =
        ["Name", "Description", "Version", "URL", "Requires", "Conflicts", "Cflags", "Libs", "Libs.private"];
    for (name, _) in &fields {
        assert!(known.contains(name), "{name} is no field of a .pc file");
    }
}

fn yaml(path: &Path) -> Yaml {
    let text = fs::read_to_string(path).unwrap();
    let mut documents = YamlLoader::load_from_str(&text).unwrap();
    assert_eq!(documents.len(), 1, "{}", path.display());
    documents.remove(0)
}

/// The keys of a mapping.
fn keys(yaml: &Yaml) -> impl Iterator<Item = &str> {
    yaml.as_hash().unwrap().keys().map(|key| key.as_str().unwrap())
}

/// The entries of a list of texts.
fn strings(yaml: &Yaml) -> impl Iterator<Item = &str> {
    yaml.as_vec().unwrap().iter().map(|entry| entry.as_str().unwrap())
}

/// The words of letters, digits and underscores.
fn words(text: &str) -> impl Iterator<Item = &str> {
    text.split(|of: char| !of.is_ascii_alphanumeric() && of != '_').filter(|word| !word.is_empty())
}

fn root(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..").join(path)
}
