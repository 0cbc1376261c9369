//! `include/cmiot_signer.h` must agree with the library.
//!
//! `UPDATE_HEADER=1 cargo test -p cmiot-signer-capi --test header` rewrites it.
#![allow(clippy::unwrap_used)] // In a test, to panic is to fail.

use std::path::Path;
use std::process::Command;
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

#[test]
fn the_header_compiles_as_c90_and_later_and_as_cpp() {
    let include = Path::new(env!("CARGO_MANIFEST_DIR")).join("include");
    let source = Path::new(env!("CARGO_TARGET_TMPDIR")).join("header.c");
    // Twice, and with each kind of declaration in use.
    let text = "#include \"cmiot_signer.h\"\n#include \"cmiot_signer.h\"\n\
        int use(const cmiot_account *account, cmiot_reply *reply);\n\
        int use(const cmiot_account *account, cmiot_reply *reply) {\n\
        return account == NULL || reply == NULL ? CMIOT_E_NULL : (int)cmiot_version();\n}\n";
    fs::write(&source, text).unwrap();
    for (compiler, language, standard) in [
        ("gcc", "c", "c90"),
        ("gcc", "c", "c99"),
        ("gcc", "c", "c11"),
        ("arm-none-eabi-gcc", "c", "c90"),
        ("g++", "c++", "c++98"),
        ("g++", "c++", "c++11"),
        ("g++", "c++", "c++20"),
    ] {
        let mut compile = Command::new(compiler);
        compile.arg(format!("-std={standard}")).args([
            "-pedantic",
            "-Wall",
            "-Wextra",
            "-Werror",
            "-x",
            language,
        ]);
        compile.arg("-I").arg(&include).arg("-fsyntax-only").arg(&source);
        let output = compile.output().unwrap_or_else(|error| panic!("{compile:?}: {error}"));
        assert!(output.status.success(), "{standard}: {}", String::from_utf8_lossy(&output.stderr));
    }
}

/// Adapts the generated text to C: no sections about safety, which rustdoc needs and the header's head states for all
/// functions; comments that C90 and C++ share; negative numbers in parentheses.
fn for_c(header: &str) -> String {
    let mut text = String::new();
    let mut comment: Vec<&str> = Vec::new();
    for line in header.lines().map(str::trim_end) {
        if let Some(words) = line.trim_start().strip_prefix("//") {
            comment.push(words.strip_prefix(' ').unwrap_or(words));
            continue;
        }
        // A comment has the indentation of the line after it.
        let indent = &line[..line.len() - line.trim_start().len()];
        text.push_str(&as_block(&comment, indent));
        comment.clear();
        match line.split_once(" // ") {
            Some((code, words)) => text.push_str(&format!("{} /* {words} */", code.trim_end())),
            None => text.push_str(&in_parentheses(line)),
        }
        text.push('\n');
    }
    text
}

/// The lines of a comment, up to its section about safety.
fn as_block(lines: &[&str], indent: &str) -> String {
    let end = lines.iter().position(|line| *line == "# Safety").unwrap_or(lines.len());
    let last = lines[..end].iter().rposition(|line| !line.is_empty());
    let Some(last) = last else { return String::new() };
    let mut block = String::new();
    for (at, line) in lines[..=last].iter().enumerate() {
        let start = if at == 0 { "/* " } else { " * " };
        let end = if at == last { " */" } else { "" };
        block.push_str(format!("{indent}{start}{line}").trim_end());
        block.push_str(end);
        block.push('\n');
    }
    block
}

/// `#define NAME (-1)` of `#define NAME -1`.
fn in_parentheses(line: &str) -> String {
    match line.rsplit_once(" -") {
        Some((name, number)) if name.starts_with("#define ") => format!("{name} (-{number})"),
        _ => line.to_owned(),
    }
}
