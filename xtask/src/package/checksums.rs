//! SHA256SUMS of the files in a folder, as `sha256sum --check` reads it, and its signature by minisign.

use std::fs;
use std::io::Cursor;
use std::path::Path;

use anyhow::{Context, Result, anyhow};
use data_encoding::BASE64;
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
    if let Some(key) = without_checksum(text) {
        return Ok(key);
    }
    let boxed =
        || SecretKeyBox::from_string(text).map_err(|error| anyhow!("no secret key of minisign: {error}"));
    match boxed()?.into_unencrypted_secret_key() {
        Ok(key) => Ok(key),
        Err(_) => boxed()?.into_secret_key(None).map_err(|error| anyhow!("{error}")),
    }
}

/// A key that `minisign -G -W` has written: without a password, and with zeros for its checksum, which the library does not
/// accept.
fn without_checksum(text: &str) -> Option<SecretKey> {
    let bytes = BASE64.decode(text.lines().nth(1)?.trim().as_bytes()).ok()?;
    let is_so = bytes.get(2..4)? == [0; 2] && bytes.last_chunk::<CHECKSUM>()? == &[0; CHECKSUM];
    is_so.then(|| SecretKey::from_bytes(&bytes).ok())?
}

/// Bytes of the checksum at the end of a secret key.
const CHECKSUM: usize = 32;

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

    #[test]
    fn a_key_that_minisign_wrote_without_a_password_signs() {
        let pair = KeyPair::generate_unencrypted_keypair().unwrap();
        let mut bytes = pair.sk.to_bytes();
        let checksum = bytes.len() - CHECKSUM;
        bytes[checksum..].fill(0);
        let text = format!("untrusted comment: a key\n{}\n", BASE64.encode(&bytes));
        let signed = sign(&secret_key(&text).unwrap(), "sums\n").unwrap();
        let signature = SignatureBox::from_string(&signed).unwrap();
        minisign::verify(&pair.pk, &signature, Cursor::new("sums\n"), true, false, false).unwrap();
    }
}
