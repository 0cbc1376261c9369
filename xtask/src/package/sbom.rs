//! The software bill of materials: CycloneDX 1.5 in JSON, from the crates that cargo resolved.

use anyhow::Result;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use super::NAME;
use super::dependencies::{Crate, Dependencies};
use crate::run::Run;

/// The whole document.
///
/// # Errors
/// When the date cannot be written.
pub(super) fn write(dependencies: &Dependencies, time: u64) -> Result<Vec<u8>> {
    let stamp = Run::new("date").args(["-u", "+%Y-%m-%dT%H:%M:%SZ", "-d", &format!("@{time}")]).output()?;
    let own = &dependencies.crates[&dependencies.proxy];
    let components: Vec<_> = dependencies
        .crates
        .iter()
        .filter(|(id, _)| **id != dependencies.proxy)
        .map(|(_, one)| component(one))
        .collect();
    let graph: Vec<_> = dependencies
        .crates
        .values()
        .map(|one| {
            let uses: Vec<_> = one.uses.iter().map(|id| reference(&dependencies.crates[id])).collect();
            json!({ "ref": reference(one), "dependsOn": uses })
        })
        .collect();
    let mut subject = component(own);
    subject["type"] = json!("application");
    let mut document = json!({
        "$schema": "http://cyclonedx.org/schema/bom-1.5.schema.json",
        "bomFormat": "CycloneDX",
        "specVersion": "1.5",
        "version": 1,
        "metadata": {
            "timestamp": stamp.trim(),
            "tools": { "components": [{ "type": "application", "name": "cargo xtask package" }] },
            "component": subject,
        },
        "components": components,
        "dependencies": graph,
    });
    // The same contents have the same number, so that a build can be repeated.
    let number = Sha256::digest(serde_json::to_vec(&document)?);
    document["serialNumber"] = json!(format!("urn:uuid:{}", uuid(&number)));
    Ok(format!("{document:#}\n").into_bytes())
}

fn component(one: &Crate) -> Value {
    let mut component = json!({
        "type": "library",
        "bom-ref": reference(one),
        "name": one.name,
        "version": one.version,
    });
    if let Some(license) = &one.license {
        // Older manifests separate alternatives by a slash.
        component["licenses"] = json!([{ "expression": license.replace('/', " OR ") }]);
    }
    if one.foreign {
        component["purl"] = json!(reference(one));
    }
    if let Some(checksum) = &one.checksum {
        component["hashes"] = json!([{ "alg": "SHA-256", "content": checksum }]);
    }
    if let Some(repository) = &one.repository {
        component["externalReferences"] = json!([{ "type": "vcs", "url": repository }]);
    }
    component
}

/// A package URL.
fn reference(one: &Crate) -> String {
    let kind = if one.foreign { "cargo" } else { NAME };
    format!("pkg:{kind}/{}@{}", one.name, one.version.replace('+', "%2B"))
}

/// A UUID of version 8 (RFC 9562): its bits are those of a hash.
fn uuid(hash: &[u8]) -> String {
    let hex: String = hash.iter().take(16).map(|byte| format!("{byte:02x}")).collect();
    format!("{}-{}-8{}-8{}-{}", &hex[..8], &hex[8..12], &hex[13..16], &hex[17..20], &hex[20..32])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_serial_number_has_the_form_of_a_uuid() {
        assert_eq!(uuid(&[0xab; 32]), "abababab-abab-8bab-8bab-abababababab");
    }
}
