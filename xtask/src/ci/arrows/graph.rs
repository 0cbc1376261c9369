//! Imports between modules: one graph of the top-level modules, and one per folder of the modules in it.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use super::imports::Module;

/// The modules of one folder, and the imports from one to another.
#[derive(Default)]
pub(super) struct Graph {
    /// Path of the folder.
    parent: String,
    nodes: BTreeSet<String>,
    edges: BTreeMap<(String, String), Vec<Site>>,
}

/// The place of an import.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Site {
    pub(super) file: String,
    pub(super) line: usize,
    /// The imported path, from the root of the crate.
    pub(super) path: String,
}

/// Modules of which each imports the next, and the last the first.
#[derive(Debug)]
pub(super) struct Cycle {
    /// Path of the folder; empty for top-level modules.
    pub(super) parent: String,
    pub(super) modules: Vec<String>,
    /// The places of each import, in the order of `modules`.
    pub(super) imports: Vec<Vec<Site>>,
}

/// Modules by path, and the names that their `use` items give to paths.
struct Index<'a> {
    known: BTreeSet<&'a [String]>,
    aliases: BTreeMap<(&'a [String], &'a str), &'a [String]>,
}

impl Graph {
    /// All graphs, by the path of the folder; that of the top-level modules is empty.
    pub(super) fn all(modules: &[Module]) -> BTreeMap<String, Self> {
        let tests: BTreeSet<Vec<String>> = modules
            .iter()
            .flat_map(|module| {
                module
                    .test_modules
                    .iter()
                    .map(|name| [module.path.as_slice(), std::slice::from_ref(name)].concat())
            })
            .collect();
        let is_test =
            |module: &Module| module.is_test() || tests.iter().any(|test| module.path.starts_with(test));
        let code: Vec<&Module> = modules.iter().filter(|module| !is_test(module)).collect();
        let index = Index::of(&code);
        let mut graphs: BTreeMap<String, Self> = BTreeMap::new();
        for path in &index.known {
            if let Some((name, parent)) = path.split_last() {
                graphs.entry(parent.join("::")).or_default().nodes.insert(name.clone());
            }
        }
        for module in code.iter().filter(|module| !module.path.is_empty()) {
            for import in &module.imports {
                let target = index.target(&module.path, &import.path);
                let shared = module.path.iter().zip(&target).take_while(|(a, b)| a == b).count();
                let (Some(from), Some(to)) = (module.path.get(shared), target.get(shared)) else { continue };
                let site =
                    Site { file: module.file.clone(), line: import.line, path: import.path.join("::") };
                let graph = graphs.entry(module.path[..shared].join("::")).or_default();
                graph.edges.entry((from.clone(), to.clone())).or_default().push(site);
            }
        }
        for (parent, graph) in &mut graphs {
            graph.parent.clone_from(parent);
        }
        graphs
    }

    pub(super) fn nodes(&self) -> impl Iterator<Item = &String> {
        self.nodes.iter()
    }

    pub(super) fn has(&self, name: &str) -> bool {
        self.nodes.contains(name)
    }

    pub(super) fn edges(&self) -> impl Iterator<Item = (&(String, String), &Vec<Site>)> {
        self.edges.iter()
    }

    /// For each import that is part of a cycle the shortest such cycle, each once, the shortest first.
    pub(super) fn cycles(&self) -> Vec<Cycle> {
        let mut found: BTreeSet<(usize, Vec<String>)> = BTreeSet::new();
        for (from, to) in self.edges.keys() {
            let Some(mut modules) = self.shortest(to, from) else { continue };
            let first = modules.iter().enumerate().min_by_key(|(_, name)| *name).map_or(0, |(at, _)| at);
            modules.rotate_left(first);
            found.insert((modules.len(), modules));
        }
        found.into_iter().map(|(_, modules)| self.cycle(modules)).collect()
    }

    fn cycle(&self, modules: Vec<String>) -> Cycle {
        let next = modules.iter().cycle().skip(1);
        let imports = modules
            .iter()
            .zip(next)
            .map(|(from, to)| self.edges.get(&(from.clone(), to.clone())).cloned().unwrap_or_default())
            .collect();
        Cycle { parent: self.parent.clone(), modules, imports }
    }

    /// The shortest way along imports from one module to another, both included.
    fn shortest(&self, from: &String, to: &String) -> Option<Vec<String>> {
        let mut before: BTreeMap<&String, &String> = BTreeMap::new();
        let mut queue = VecDeque::from([from]);
        while let Some(at) = queue.pop_front() {
            if at == to {
                let mut way = vec![at.clone()];
                let mut last = at;
                while last != from {
                    last = before[last];
                    way.push(last.clone());
                }
                way.reverse();
                return Some(way);
            }
            for (_, next) in self.edges.keys().filter(|(start, _)| start == at) {
                if next != from && !before.contains_key(next) {
                    before.insert(next, at);
                    queue.push_back(next);
                }
            }
        }
        None
    }
}

impl<'a> Index<'a> {
    fn of(modules: &[&'a Module]) -> Self {
        let mut index = Self { known: BTreeSet::new(), aliases: BTreeMap::new() };
        for module in modules {
            index.known.extend((0..=module.path.len()).map(|length| &module.path[..length]));
            for import in &module.imports {
                if let Some(alias) = &import.alias {
                    index.aliases.insert((&module.path, alias), &import.path);
                }
            }
        }
        index
    }

    /// The module that an import names. A name that a module above the importing one has only imported itself
    /// counts as an import of where it is from.
    fn target(&self, importer: &[String], path: &[String]) -> Vec<String> {
        /// Imports of imports that are followed; more would be a circle.
        const DEEPEST: usize = 8;
        let mut path = path.to_vec();
        for _ in 0..DEEPEST {
            let length =
                (0..=path.len()).rev().find(|length| self.known.contains(&path[..*length])).unwrap_or(0);
            let (module, rest) = path.split_at(length);
            let is_above = module.len() < importer.len() && importer.starts_with(module);
            let Some(origin) =
                rest.first().filter(|_| is_above).and_then(|name| self.aliases.get(&(module, name.as_str())))
            else {
                return module.to_vec();
            };
            path = [origin, &rest[1..]].concat();
        }
        path
    }
}
