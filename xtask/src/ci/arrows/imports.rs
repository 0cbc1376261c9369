//! The imports of one source file, read from its tokens: a comment or a string is never one.
//!
//! Code under `#[cfg(test)]` is passed over. The bodies of macros are read like any other code.

use anyhow::{Result, anyhow};
use proc_macro2::{Delimiter, Group, TokenStream, TokenTree};

/// A source file as a module of its crate.
pub(super) struct Module {
    /// Path of the file, from the root of the workspace.
    pub(super) file: String,
    /// The names from the root of the crate to the module.
    pub(super) path: Vec<String>,
    pub(super) imports: Vec<Import>,
    /// Modules declared under `#[cfg(test)]`.
    pub(super) test_modules: Vec<String>,
}

/// A path to another item of the crate.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Import {
    pub(super) line: usize,
    /// From the root of the crate.
    pub(super) path: Vec<String>,
    /// The name under which a `use` makes it known in this module.
    pub(super) alias: Option<String>,
}

/// The module that a file holds, by the path of the file from the folder of sources.
///
/// `lib.rs` is the root; `main.rs` is a module of its own, since its crate imports the library.
pub(super) fn module_path(file: &str) -> Vec<String> {
    let path = file.trim_start_matches('/').trim_end_matches(".rs");
    if path == "lib" { Vec::new() } else { path.split('/').map(str::to_owned).collect() }
}

impl Module {
    /// Reads the imports of a file.
    ///
    /// # Errors
    /// When its text is not Rust.
    pub(super) fn parse(file: &str, path: Vec<String>, text: &str, crate_name: &str) -> Result<Self> {
        let tokens: TokenStream = text.parse().map_err(|error| anyhow!("cannot be read as Rust: {error}"))?;
        let mut found = Self { file: file.to_owned(), path, imports: Vec::new(), test_modules: Vec::new() };
        // What `super` and plain names refer to; in `main.rs` they refer to the root.
        let here = if found.path == ["main"] { Vec::new() } else { found.path.clone() };
        Reader { found: &mut found, crate_name }.code(&tokens.into_iter().collect::<Vec<_>>(), &here);
        Ok(found)
    }

    /// Whether it is a test: in a file or a folder `tests`.
    pub(super) fn is_test(&self) -> bool {
        self.path.iter().any(|name| name == "tests")
    }
}

struct Reader<'a> {
    found: &'a mut Module,
    crate_name: &'a str,
}

impl Reader<'_> {
    /// Reads the tokens of a file, a block, or the body of a macro, which belong to the module `here`.
    fn code(&mut self, tokens: &[TokenTree], here: &[String]) {
        let mut at = 0;
        while let Some(token) = tokens.get(at) {
            at += match token {
                TokenTree::Punct(punct) if punct.as_char() == '#' => match attribute(&tokens[at..]) {
                    Some((group, length)) if is_test_only(group) => {
                        let item = &tokens[at + length..];
                        let skipped = item_length(item);
                        self.found.test_modules.extend(declared_module(&item[..skipped]));
                        length + skipped
                    }
                    Some((_, length)) => length,
                    None => 1,
                },
                TokenTree::Ident(ident) if ident == "use" => {
                    let length = tokens[at..].iter().position(is_semicolon).unwrap_or(tokens.len() - at);
                    let line = ident.span().start().line;
                    self.used(&tokens[at + 1..at + length], &[], here, line);
                    length
                }
                TokenTree::Ident(ident) if ident == "mod" => {
                    if let [_, TokenTree::Ident(name), TokenTree::Group(body), ..] = &tokens[at..] {
                        let mut inner = here.to_vec();
                        inner.push(name.to_string());
                        self.code(&body.stream().into_iter().collect::<Vec<_>>(), &inner);
                        3
                    } else {
                        1
                    }
                }
                TokenTree::Ident(ident) if self.is_root(&ident.to_string()) => {
                    let (path, length) = plain_path(&tokens[at..]);
                    if path.len() > 1 {
                        self.import(&path, here, ident.span().start().line, None);
                    }
                    length
                }
                TokenTree::Group(group) => {
                    self.code(&group.stream().into_iter().collect::<Vec<_>>(), here);
                    1
                }
                _ => 1,
            };
        }
    }

    /// Reads what follows `use`, or one part of a group in it, after `prefix`.
    fn used(&mut self, tokens: &[TokenTree], prefix: &[String], here: &[String], line: usize) {
        let (mut path, length) = plain_path(tokens);
        path.splice(0..0, prefix.iter().cloned());
        match tokens[length..].iter().find(|token| !is_colon(token)) {
            Some(TokenTree::Group(group)) => {
                let inner: Vec<TokenTree> = group.stream().into_iter().collect();
                for part in inner.split(is_comma).filter(|part| !part.is_empty()) {
                    let line = part[0].span().start().line;
                    self.used(part, &path, here, line);
                }
            }
            Some(TokenTree::Ident(word)) if word == "as" => {
                let alias = tokens.last().map(ToString::to_string);
                self.import(&path, here, line, alias);
            }
            _ => {
                if path.last().is_some_and(|name| name == "self") {
                    path.pop();
                }
                let alias = path.last().cloned();
                self.import(&path, here, line, alias);
            }
        }
    }

    /// Notes a path, made one from the root.
    fn import(&mut self, path: &[String], here: &[String], line: usize, alias: Option<String>) {
        let Some(first) = path.first() else { return };
        let mut absolute = if first == "self" || first == "super" || !self.is_root(first) {
            here.to_vec()
        } else {
            Vec::new()
        };
        for name in path {
            match name.as_str() {
                "super" => {
                    absolute.pop();
                }
                name if name == "self" || (absolute.is_empty() && self.is_root(name)) => {}
                name => absolute.push(name.to_owned()),
            }
        }
        self.found.imports.push(Import { line, path: absolute, alias });
    }

    /// Whether a path that begins so stays within the crate.
    fn is_root(&self, name: &str) -> bool {
        matches!(name, "crate" | "self" | "super") || name == self.crate_name
    }
}

/// The attribute at the front, and how many tokens it takes.
fn attribute(tokens: &[TokenTree]) -> Option<(&Group, usize)> {
    let bracketed = |token: &TokenTree| matches!(token, TokenTree::Group(group) if group.delimiter() == Delimiter::Bracket);
    match tokens {
        [_, TokenTree::Group(group), ..] if bracketed(&tokens[1]) => Some((group, 2)),
        // `#![…]`
        [_, TokenTree::Punct(_), TokenTree::Group(group), ..] if bracketed(&tokens[2]) => Some((group, 3)),
        _ => None,
    }
}

fn is_test_only(attribute: &Group) -> bool {
    let text: String = attribute.stream().to_string().split_whitespace().collect();
    text.starts_with("cfg(test") || text.starts_with("cfg(all(test")
}

/// Words that begin an item or a statement; a field and an arm of a match end with a comma.
const ITEMS: &[&str] = &[
    "async",
    "const",
    "enum",
    "extern",
    "fn",
    "impl",
    "let",
    "macro_rules",
    "mod",
    "static",
    "struct",
    "trait",
    "type",
    "unsafe",
    "use",
];

/// Number of tokens of the item, field or arm at the front.
fn item_length(tokens: &[TokenTree]) -> usize {
    let mut at = 0;
    while let Some((_, length)) = matches!(&tokens.get(at), Some(TokenTree::Punct(p)) if p.as_char() == '#')
        .then(|| attribute(&tokens[at..]))
        .flatten()
    {
        at += length;
    }
    let keyword = tokens[at..].iter().find_map(|token| match token {
        TokenTree::Ident(ident) if ident != "pub" => Some(ident.to_string()),
        _ => None,
    });
    let keyword = keyword.unwrap_or_default();
    let is_item = ITEMS.contains(&keyword.as_str());
    let ends_with_body = keyword != "use" && keyword != "let";
    let is_end = |token: &TokenTree| match token {
        TokenTree::Punct(punct) => punct.as_char() == ';' || (!is_item && punct.as_char() == ','),
        TokenTree::Group(group) => ends_with_body && group.delimiter() == Delimiter::Brace,
        _ => false,
    };
    tokens[at..].iter().position(is_end).map_or(tokens.len(), |end| at + end + 1)
}

/// The module that an item `mod name;` declares.
fn declared_module(item: &[TokenTree]) -> Option<String> {
    let at = item.iter().position(|token| matches!(token, TokenTree::Ident(ident) if ident == "mod"))?;
    match &item[at + 1..] {
        [TokenTree::Ident(name), end] if is_semicolon(end) => Some(name.to_string()),
        _ => None,
    }
}

/// The names at the front that `::` joins, and how many tokens they take.
fn plain_path(tokens: &[TokenTree]) -> (Vec<String>, usize) {
    let mut names = Vec::new();
    let mut at = 0;
    while let Some(TokenTree::Ident(ident)) = tokens.get(at) {
        names.push(ident.to_string());
        at += 1;
        match &tokens[at..] {
            [first, second, TokenTree::Ident(_), ..] if is_colon(first) && is_colon(second) => at += 2,
            _ => break,
        }
    }
    (names, at.max(1).min(tokens.len()))
}

fn is_colon(token: &TokenTree) -> bool {
    matches!(token, TokenTree::Punct(punct) if punct.as_char() == ':')
}

fn is_comma(token: &TokenTree) -> bool {
    matches!(token, TokenTree::Punct(punct) if punct.as_char() == ',')
}

fn is_semicolon(token: &TokenTree) -> bool {
    matches!(token, TokenTree::Punct(punct) if punct.as_char() == ';')
}
