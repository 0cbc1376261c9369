//! The content of key files: hex text, and files that hold no key.

use std::fmt::Write as _;

use zeroize::Zeroizing;

/// Whether a key file holds no key: it is empty, its blocks were never written, or it was overwritten with zeros.
pub(super) fn is_blank(bytes: &[u8]) -> bool {
    bytes.iter().all(|byte| matches!(byte, 0 | b'0') || byte.is_ascii_whitespace())
}

/// Lower-case hex.
pub(super) fn hex(bytes: &[u8]) -> Zeroizing<String> {
    let mut text = Zeroizing::new(String::with_capacity(2 * bytes.len()));
    for byte in bytes {
        // Writing to a String does not fail.
        let _: std::fmt::Result = write!(text, "{byte:02x}");
    }
    text
}

/// Reads 32 bytes from hex of either case.
pub(super) fn unhex(text: &str) -> Option<Zeroizing<[u8; 32]>> {
    let mut bytes = Zeroizing::new([0; 32]);
    if text.len() != 64 || !text.is_ascii() {
        return None;
    }
    for (byte, digits) in bytes.iter_mut().zip(text.as_bytes().chunks(2)) {
        *byte = u8::from_str_radix(std::str::from_utf8(digits).ok()?, 16).ok()?;
    }
    Some(bytes)
}
