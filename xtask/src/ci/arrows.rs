//! Imports of the proxy point down: no cycle between modules, no import against the order of ARCHITECTURE.md.
//!
//! The order is the block ```` ```text order ```` of ARCHITECTURE.md: one level per line, the highest first, and
//! a module imports from lower lines only. Every top-level module of `proxy/src` has its place there. Modules of one
//! folder have no written order, but may not import each other in a cycle. A module and the modules inside it count
//! as one: what a parent and its child import from each other is no cycle.
//!
//! An import is a path that begins with `crate`, `super`, `self` or the crate's name, in a `use` or in the code.
//! Tests import what they like.

mod graph;
mod imports;
mod report;

use std::collections::BTreeMap;
use std::fs;

use anyhow::{Context, Result, bail, ensure};

use crate::run::{Run, root};

use self::graph::Graph;
use self::imports::Module;

/// The document that states the order, and the sources that it is about.
const DOCUMENT: &str = "ARCHITECTURE.md";
const SOURCES: &str = "proxy/src";
/// Name of the library in the binary.
const CRATE: &str = "cmiot_proxy";
/// First and last line of the block with the order.
const BEGIN: &str = "```text order";
const END: &str = "```";

/// Checks the imports of the proxy.
///
/// # Errors
/// When there is a cycle, an import against the order, or a module without a level.
pub(super) fn stage() -> Result<()> {
    let document = fs::read_to_string(root().join(DOCUMENT)).context(DOCUMENT)?;
    let levels = levels(&document)?;
    let listed = Run::new("git")
        .args(["ls-files", "--cached", "--others", "--exclude-standard", "--", SOURCES])
        .output()?;
    let mut modules = Vec::new();
    for file in listed.lines().filter(|file| file.ends_with(".rs")) {
        let Ok(text) = fs::read_to_string(root().join(file)) else { continue }; // deleted, and not yet committed
        let path = imports::module_path(file.strip_prefix(SOURCES).unwrap_or(file));
        modules.push(Module::parse(file, path, &text, CRATE).with_context(|| file.to_owned())?);
    }
    let findings = Findings::of(&modules, &levels);
    print!("{}", report::text(&findings));
    ensure!(findings.is_empty(), "{}", report::summary(&findings));
    println!("{} modules, {} levels: every import points down", findings.modules, levels.len());
    Ok(())
}

/// The levels of the order, the highest first, each with its modules.
fn levels(document: &str) -> Result<Vec<Vec<String>>> {
    let mut lines = document.lines().skip_while(|line| line.trim_end() != BEGIN).skip(1);
    let mut levels: Vec<Vec<String>> = Vec::new();
    for line in lines.by_ref() {
        if line.trim_end() == END {
            ensure!(!levels.is_empty(), "{DOCUMENT}: the order is empty");
            return Ok(levels);
        }
        let level: Vec<String> =
            line.split([' ', ',']).filter(|name| !name.is_empty()).map(str::to_owned).collect();
        for name in &level {
            ensure!(
                !levels.iter().flatten().any(|other| other == name),
                "{DOCUMENT}: the order names {name} twice"
            );
        }
        levels.extend((!level.is_empty()).then_some(level));
    }
    bail!("{DOCUMENT} has no whole block that begins with {BEGIN}")
}

/// Everything that is wrong with the imports.
#[derive(Default)]
struct Findings {
    /// The number of top-level modules.
    modules: usize,
    /// Top-level modules that the order does not name.
    without_level: Vec<String>,
    /// Names in the order that are no module.
    unknown: Vec<String>,
    /// (a) Cycles between top-level modules.
    cycles: Vec<graph::Cycle>,
    /// (b) Cycles between the modules of one folder.
    inner_cycles: Vec<graph::Cycle>,
    /// (c) Imports against the order: from, to, and the places.
    upward: BTreeMap<(String, String), Vec<graph::Site>>,
}

impl Findings {
    fn of(modules: &[Module], levels: &[Vec<String>]) -> Self {
        let graphs = Graph::all(modules);
        let Some(top) = graphs.get("") else { return Self::default() };
        let level = |name: &str| levels.iter().position(|level| level.iter().any(|other| other == name));
        let upward = top
            .edges()
            .filter(
                |((from, to), _)| matches!((level(from), level(to)), (Some(from), Some(to)) if to <= from),
            )
            .map(|(edge, sites)| (edge.clone(), sites.clone()))
            .collect();
        Self {
            modules: top.nodes().count(),
            without_level: top.nodes().filter(|name| level(name).is_none()).cloned().collect(),
            unknown: levels.iter().flatten().filter(|name| !top.has(name)).cloned().collect(),
            cycles: top.cycles(),
            inner_cycles: graphs
                .iter()
                .filter(|(parent, _)| !parent.is_empty())
                .flat_map(|(_, graph)| graph.cycles())
                .collect(),
            upward,
        }
    }

    fn is_empty(&self) -> bool {
        self.without_level.is_empty()
            && self.unknown.is_empty()
            && self.cycles.is_empty()
            && self.inner_cycles.is_empty()
            && self.upward.is_empty()
    }
}

#[cfg(test)]
mod tests;
