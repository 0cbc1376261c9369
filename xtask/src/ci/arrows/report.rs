//! Text of the findings.

use super::Findings;
use super::graph::{Cycle, Site};

/// Places that are printed per import of a cycle.
const SHOWN: usize = 3;

/// Everything that was found, an item per paragraph.
pub(super) fn text(findings: &Findings) -> String {
    let mut text = String::new();
    for name in &findings.without_level {
        text.push_str(&format!("{name}: the order of ARCHITECTURE.md does not name this module: add it\n"));
    }
    for name in &findings.unknown {
        text.push_str(&format!(
            "{name}: the order of ARCHITECTURE.md names this module, which does not exist\n"
        ));
    }
    cycles(&mut text, "(a) cycles between top-level modules", &findings.cycles);
    cycles(&mut text, "(b) cycles between modules of one folder", &findings.inner_cycles);
    if !findings.upward.is_empty() {
        text.push_str("\n(c) imports against the order\n");
    }
    for ((from, to), sites) in &findings.upward {
        text.push_str(&format!("  {from} -> {to}\n"));
        list_sites(&mut text, sites, usize::MAX);
    }
    text
}

/// The findings in one line.
pub(super) fn summary(findings: &Findings) -> String {
    format!(
        "{} cycles between modules, {} between modules of one folder, {} imports against the order, {} modules \
         without a level, {} levels without a module",
        findings.cycles.len(),
        findings.inner_cycles.len(),
        findings.upward.len(),
        findings.without_level.len(),
        findings.unknown.len()
    )
}

fn cycles(text: &mut String, title: &str, cycles: &[Cycle]) {
    if !cycles.is_empty() {
        text.push_str(&format!("\n{title}\n"));
    }
    for cycle in cycles {
        let folder = if cycle.parent.is_empty() { String::new() } else { format!("{}: ", cycle.parent) };
        let first = cycle.modules.first().map_or("", String::as_str);
        text.push_str(&format!("  {folder}{} -> {first}\n", cycle.modules.join(" -> ")));
        for sites in &cycle.imports {
            list_sites(text, sites, SHOWN);
        }
    }
}

fn list_sites(text: &mut String, sites: &[Site], most: usize) {
    for site in sites.iter().take(most) {
        text.push_str(&format!("      {}:{} {}\n", site.file, site.line, site.path));
    }
    if sites.len() > most {
        text.push_str(&format!("      and {} more\n", sites.len() - most));
    }
}
