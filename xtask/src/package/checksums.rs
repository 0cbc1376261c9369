//! SHA256SUMS of the files in a folder, as `sha256sum --check` reads it, and its signature by minisign.

use std::fs;
use std::io::Cursor;
use std::path::Path;

use anyhow::{Context, Result, anyhow};
use minisign::{PublicKey, SecretKey, SecretKeyBox};
use sha2::{Digest, Sha256};

const SUMS: &str = "SHA256SUMS";

/// Sums all files, and signs the sums with the key in this file.
pub(super) fn write(folder: &Path, key: Option<&Path>) -> Result<()> {
    let mut sums = String::new();
    for file in super::files(folder)? {
        let name = file.file_name().context("a file's name")?.to_string_lossy().into_owned();
        if name.starts_with(SUMS) {
            continue;
        }
        let bytes = fs::read(&file).with_context(|| file.display().to_string())?;
        let hex: String = Sha256::digest(&bytes).iter().map(|byte| format!("{byte:02x}")).collect();
        sums.push_str(&format!("{hex}  {name}\n"));
    }
    let path = folder.join(SUMS);
    fs::write(&path, &sums).with_context(|| path.display().to_string())?;
    let Some(key) = key else {
        println!("{SUMS} is not signed: --sign-key names a secret key of minisign");
        return Ok(());
    };
    let text = fs::read_to_string(key).with_context(|| key.display().to_string())?;
    let signature = sign(&secret_key(&text).with_context(|| key.display().to_string())?, &sums)?;
    fs::write(folder.join(format!("{SUMS}.minisig")), signature)?;
    println!("{SUMS}.minisig is the signature by {}", key.display());
    Ok(())
}

/// The key of a file; asks for its password on the terminal if it has one.
fn secret_key(text: &str) -> Result<SecretKey> {
    let boxed =
        || SecretKeyBox::from_string(text).map_err(|error| anyhow!("no secret key of minisign: {error}"));
    match boxed()?.into_unencrypted_secret_key() {
        Ok(key) => Ok(key),
        Err(_) => boxed()?.into_secret_key(None).map_err(|error| anyhow!("{error}")),
    }
}

fn sign(key: &SecretKey, sums: &str) -> Result<String> {
    let public = PublicKey::from_secret_key(key).map_err(|error| anyhow!("{error}"))?;
    let signed = minisign::sign(Some(&public), key, Cursor::new(sums), Some(SUMS), None);
    Ok(signed.map_err(|error| anyhow!("cannot sign: {error}"))?.into_string())
}

#[cfg(test)]
mod tests {
    use minisign::{KeyPair, SignatureBox};

    use super::*;

    #[test]
    fn a_signature_is_verified_by_the_public_key_and_by_no_other_text() {
        let pair = KeyPair::generate_unencrypted_keypair().unwrap();
        let text = pair.sk.to_box(None).unwrap().to_string();
        let signature =
            SignatureBox::from_string(&sign(&secret_key(&text).unwrap(), "sums\n").unwrap()).unwrap();
        let verify =
            |text: &str| minisign::verify(&pair.pk, &signature, Cursor::new(text), true, false, false);
        verify("sums\n").unwrap();
        verify("other\n").unwrap_err();
    }
}
