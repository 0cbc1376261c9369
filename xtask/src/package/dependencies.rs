//! The crates that an executable contains: those that `cargo metadata` resolves from `cmiot-proxy` by normal dependencies.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fs;
use std::path::PathBuf;

use anyhow::{Context, Result};
use serde::Deserialize;

use super::NAME;
use crate::run::{Run, root};

/// The crates of the executable.
pub(super) struct Dependencies {
    /// Version of the proxy.
    pub(super) version: String,
    /// Identifier of the proxy's own crate.
    pub(super) proxy: String,
    /// All crates, the proxy included, by their identifiers.
    pub(super) crates: BTreeMap<String, Crate>,
}

/// A crate.
pub(super) struct Crate {
    pub(super) name: String,
    pub(super) version: String,
    pub(super) license: Option<String>,
    pub(super) authors: Vec<String>,
    pub(super) repository: Option<String>,
    pub(super) folder: PathBuf,
    /// Whether it comes from the registry; otherwise it is this project's.
    pub(super) foreign: bool,
    /// SHA-256 of its archive, from Cargo.lock.
    pub(super) checksum: Option<String>,
    /// Identifiers of the crates that it uses.
    pub(super) uses: BTreeSet<String>,
}

#[derive(Deserialize)]
struct Metadata {
    packages: Vec<Described>,
    resolve: Resolve,
}

#[derive(Deserialize)]
struct Described {
    id: String,
    name: String,
    version: String,
    license: Option<String>,
    authors: Vec<String>,
    repository: Option<String>,
    manifest_path: PathBuf,
    source: Option<String>,
}

#[derive(Deserialize)]
struct Resolve {
    nodes: Vec<Node>,
}

#[derive(Deserialize)]
struct Node {
    id: String,
    deps: Vec<Edge>,
}

#[derive(Deserialize)]
struct Edge {
    pkg: String,
    dep_kinds: Vec<EdgeKind>,
}

#[derive(Deserialize)]
struct EdgeKind {
    /// Null for a normal dependency.
    kind: Option<String>,
}

#[derive(Deserialize)]
struct Lock {
    package: Vec<Locked>,
}

#[derive(Deserialize)]
struct Locked {
    name: String,
    version: String,
    checksum: Option<String>,
}

impl Dependencies {
    /// Those of an executable for this target.
    ///
    /// # Errors
    /// When cargo fails, or the workspace has no such crate.
    pub(super) fn of(triple: &str) -> Result<Self> {
        let metadata = Run::cargo("metadata --format-version 1 --locked --filter-platform").args([triple]);
        let metadata: Metadata = serde_json::from_str(&metadata.output()?).context("cargo metadata")?;
        let lock: Lock =
            toml::from_str(&fs::read_to_string(root().join("Cargo.lock"))?).context("Cargo.lock")?;
        let checksums: HashMap<_, _> = lock
            .package
            .into_iter()
            .filter_map(|locked| Some(((locked.name, locked.version), locked.checksum?)))
            .collect();
        let uses: HashMap<_, BTreeSet<_>> = metadata
            .resolve
            .nodes
            .into_iter()
            .map(|node| {
                let normal = node
                    .deps
                    .into_iter()
                    .filter(|edge| edge.dep_kinds.iter().any(|kind| kind.kind.is_none()));
                (node.id, normal.map(|edge| edge.pkg).collect())
            })
            .collect();
        let mut described: HashMap<_, _> =
            metadata.packages.into_iter().map(|package| (package.id.clone(), package)).collect();
        let proxy = described.values().find(|package| package.name == NAME);
        let proxy = proxy.with_context(|| format!("the workspace has no crate {NAME}"))?.id.clone();
        let mut crates = BTreeMap::new();
        let mut waiting = vec![proxy.clone()];
        while let Some(id) = waiting.pop() {
            let Some(package) = described.remove(&id) else { continue };
            let uses = uses.get(&id).cloned().unwrap_or_default();
            waiting.extend(uses.iter().cloned());
            let checksum = checksums.get(&(package.name.clone(), package.version.clone())).cloned();
            let folder = package.manifest_path.parent().context("the folder of a manifest")?.to_owned();
            crates.insert(
                id,
                Crate {
                    name: package.name,
                    version: package.version,
                    license: package.license,
                    authors: package.authors,
                    repository: package.repository,
                    folder,
                    foreign: package.source.is_some(),
                    checksum,
                    uses,
                },
            );
        }
        let version = crates.get(&proxy).context("the crate that was found")?.version.clone();
        Ok(Self { version, proxy, crates })
    }
}
