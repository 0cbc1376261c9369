//! `include/cmiot_signer.h` must agree with the library.
//!
//! `UPDATE_HEADER=1 cargo test -p cmiot-signer-capi --test header` rewrites it.
#![allow(clippy::unwrap_used)] // In a test, to panic is to fail.

use std::path::Path;
use std::{env, fs};

#[test]
fn the_committed_header_is_current() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut made = Vec::new();
    let config = cbindgen::Config::from_file(root.join("cbindgen.toml")).unwrap();
    cbindgen::Builder::new().with_crate(root).with_config(config).generate().unwrap().write(&mut made);
    let made = for_c(&String::from_utf8(made).unwrap());

    let file = root.join("include/cmiot_signer.h");
    if env::var_os("UPDATE_HEADER").is_some() {
        fs::write(&file, &made).unwrap();
    }
    let committed = fs::read_to_string(&file).unwrap_or_default();
    assert!(committed == made, "the header is out of date: run this test with UPDATE_HEADER=1 and commit");
}

/// Removes the sections about safety, which rustdoc needs: the header's head states them for all functions.
fn for_c(header: &str) -> String {
    let mut text = String::new();
    let mut in_safety = false;
    for line in header.lines().map(str::trim_end) {
        if line == "// # Safety" {
            in_safety = true;
            // Remove the empty line before it, too.
            text.truncate(text.strip_suffix("//\n").unwrap_or(&text).len());
        }
        in_safety &= line.starts_with("//");
        if !in_safety {
            text.push_str(line);
            text.push('\n');
        }
    }
    text
}
