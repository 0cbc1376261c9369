//! The container archive: an OCI image layout in a tar archive (image-spec 1.1), `FROM scratch`, with one layer.
//!
//! `docker load` and `podman load` read it. The image has the executable, an empty configuration folder and the folder of
//! the databases, and runs as a user without a name. `Healthcheck` is Docker's addition to the configuration.

use std::fs;
use std::path::Path;

use anyhow::{Context, Result};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use super::contents::{Kind, gzip};
use super::tarball::Tar;
use super::{LICENCE, NAME, Package, SUMMARY};
use crate::run::Run;

/// The user and the group of the process; images without users have this number by convention.
const USER: u64 = 65_532;

const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
const CONFIG: &str = "application/vnd.oci.image.config.v1+json";
const LAYER: &str = "application/vnd.oci.image.layer.v1.tar+gzip";

pub(super) fn write(package: &Package, out: &Path) -> Result<()> {
    let layer = layer(package)?;
    let diff = digest(&layer);
    let layer = gzip(&layer)?;
    let created =
        Run::new("date").args(["-u", "+%Y-%m-%dT%H:%M:%SZ", "-d", &format!("@{}", package.time)]).output()?;
    let config_file = format!("/etc/{NAME}/{NAME}.toml");
    let config = json!({
        "created": created.trim(),
        "architecture": package.executable.arch.container(),
        "os": "linux",
        "config": {
            "User": format!("{USER}:{USER}"),
            "Entrypoint": [format!("/{NAME}")],
            "Cmd": ["serve", "--config", config_file],
            "WorkingDir": format!("/var/lib/{NAME}"),
            "Volumes": { format!("/var/lib/{NAME}"): {} },
            "ExposedPorts": { "8080/tcp": {} },
            "StopSignal": "SIGTERM",
            "Healthcheck": {
                "Test": ["CMD", format!("/{NAME}"), "health", "--config", config_file],
                // Nanoseconds.
                "Interval": 30_000_000_000_u64,
                "Timeout": 5_000_000_000_u64,
                "StartPeriod": 60_000_000_000_u64,
                "Retries": 3,
            },
            "Labels": {
                "org.opencontainers.image.title": NAME,
                "org.opencontainers.image.version": package.version,
                "org.opencontainers.image.description": SUMMARY,
                "org.opencontainers.image.licenses": LICENCE,
            },
        },
        "rootfs": { "type": "layers", "diff_ids": [diff] },
        "history": [{ "created": created.trim(), "created_by": "cargo xtask package" }],
    });
    let config = config.to_string().into_bytes();
    let manifest = json!({
        "schemaVersion": 2,
        "mediaType": MANIFEST,
        "config": descriptor(CONFIG, &config),
        "layers": [descriptor(LAYER, &layer)],
    });
    let manifest = manifest.to_string().into_bytes();
    let mut named = descriptor(MANIFEST, &manifest);
    named["platform"] = json!({ "architecture": package.executable.arch.container(), "os": "linux" });
    named["annotations"] = json!({
        "io.containerd.image.name": format!("localhost/{NAME}:{}", package.version),
        "org.opencontainers.image.ref.name": package.version,
    });
    let index = json!({
        "schemaVersion": 2,
        "mediaType": "application/vnd.oci.image.index.v1+json",
        "manifests": [named],
    });
    let mut tar = Tar::new(package.time);
    for blob in [&config, &manifest, &layer] {
        tar.file(&format!("blobs/sha256/{}", hex(blob)), 0o644, blob)?;
    }
    tar.file("index.json", 0o644, index.to_string().as_bytes())?;
    tar.file("oci-layout", 0o644, br#"{"imageLayoutVersion":"1.0.0"}"#)?;
    fs::write(out, tar.finish()?).with_context(|| out.display().to_string())
}

fn layer(package: &Package) -> Result<Vec<u8>> {
    let mut tar = Tar::new(package.time);
    for file in &package.files {
        match file.kind {
            Kind::Program => tar.file(NAME, file.mode, &file.content)?,
            Kind::Licence => tar.file(file.path.trim_start_matches('/'), file.mode, &file.content)?,
            _ => {}
        }
    }
    for folder in ["etc/", "var/", "var/lib/"] {
        tar.folder(folder, 0o755, 0)?;
    }
    tar.folder(&format!("etc/{NAME}/"), 0o755, 0)?;
    tar.folder(&format!("var/lib/{NAME}/"), 0o700, USER)?;
    tar.finish()
}

fn descriptor(kind: &str, bytes: &[u8]) -> Value {
    json!({ "mediaType": kind, "digest": digest(bytes), "size": bytes.len() })
}

fn digest(bytes: &[u8]) -> String {
    format!("sha256:{}", hex(bytes))
}

fn hex(bytes: &[u8]) -> String {
    Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::io::Read;

    use super::super::contents::Entry;
    use super::super::elf::{Arch, Executable};
    use super::*;

    /// The files of an archive.
    fn unpacked(bytes: &[u8]) -> BTreeMap<String, (Vec<u8>, u64, u32)> {
        let mut archive = tar::Archive::new(bytes);
        let entries = archive.entries().unwrap().map(|entry| {
            let mut entry = entry.unwrap();
            let mut content = Vec::new();
            entry.read_to_end(&mut content).unwrap();
            let header = entry.header();
            let path = entry.path().unwrap().display().to_string();
            (path, (content, header.uid().unwrap(), header.mode().unwrap()))
        });
        entries.collect()
    }

    #[test]
    fn every_digest_of_the_image_is_that_of_a_file_in_the_archive() {
        let entry = Entry {
            path: format!("/usr/bin/{NAME}"),
            mode: 0o755,
            content: b"program".to_vec(),
            kind: Kind::Program,
        };
        let package = Package {
            version: "1.2.3".to_owned(),
            time: 1_000_000_000,
            executable: Executable { arch: Arch::Aarch64, glibc: None },
            files: vec![entry],
            revision: 1,
        };
        let path = std::env::temp_dir().join(format!("cmiot-container-{}.tar", std::process::id()));
        write(&package, &path).unwrap();
        let files = unpacked(&fs::read(&path).unwrap());
        fs::remove_file(&path).unwrap();
        let blob = |descriptor: &Value| {
            let digest = descriptor["digest"].as_str().unwrap().strip_prefix("sha256:").unwrap();
            let (content, ..) = &files[&format!("blobs/sha256/{digest}")];
            assert_eq!((hex(content).as_str(), json!(content.len())), (digest, descriptor["size"].clone()));
            content.clone()
        };
        let json = |bytes: &[u8]| serde_json::from_slice::<Value>(bytes).unwrap();
        let manifest = json(&blob(&json(&files["index.json"].0)["manifests"][0]));
        let config = json(&blob(&manifest["config"]));
        assert_eq!(config["architecture"], "arm64");
        assert_eq!(config["config"]["User"], "65532:65532");
        let health = &config["config"]["Healthcheck"]["Test"];
        let command = ["CMD", "/cmiot-proxy", "health", "--config", "/etc/cmiot-proxy/cmiot-proxy.toml"];
        assert_eq!(*health, json!(command));
        let mut layer = Vec::new();
        let compressed = blob(&manifest["layers"][0]);
        flate2::read::GzDecoder::new(&*compressed).read_to_end(&mut layer).unwrap();
        assert_eq!(config["rootfs"]["diff_ids"][0], digest(&layer));
        let layer = unpacked(&layer);
        assert_eq!(layer[NAME], (b"program".to_vec(), 0, 0o755));
        assert_eq!(layer[&format!("var/lib/{NAME}/")], (Vec::new(), USER, 0o700));
    }
}
