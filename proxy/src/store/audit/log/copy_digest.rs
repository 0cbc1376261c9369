//! The digest over the rows of a chain that are copied to a central database.
//!
//! The chain of the audit covers each batch as a whole, so it cannot be computed where some of its rows are not copied. This
//! digest covers exactly what is copied, in its order; the store signs it with the key of its anchors.
//!
//! ```text
//! base    = SHA-256("cmiot-audit-copy-1" 00, 32 zero bytes, "o", base, base head)
//! segment = SHA-256("cmiot-audit-copy-1" 00, digest before, "s", before, seed)
//! missing = SHA-256("cmiot-audit-copy-1" 00, digest before, "m", first, last, head)
//! batch   = SHA-256("cmiot-audit-copy-1" 00, digest before, "h", previous, hash, copied rows, "b", version, first, last,
//!                   begins, horizon)
//! signed  = "cmiot-audit-copy-signature-1" 00, last, head, digest
//! ```
//!
//! Rows are as in [`chain`](super::chain), integers are big-endian.

use super::chain::{Digest, Hash};

const DOMAIN: &[u8] = b"cmiot-audit-copy-1\0";

/// The digest of a chain of which nothing is copied yet: its first row follows row `base`, whose head is `head`.
pub(crate) fn base(base: i64, head: &Hash) -> Hash {
    step(&Hash::NONE, b'o', &[base], head)
}

/// The digest after the entry of a segment, whose first row follows row `before`.
pub(crate) fn segment(digest: &Hash, before: i64, seed: &Hash) -> Hash {
    step(digest, b's', &[before], seed)
}

/// The digest after rows that are no longer in the audit. `head` is the one that the next segment follows.
pub(crate) fn missing(digest: &Hash, first: i64, last: i64, head: &Hash) -> Hash {
    step(digest, b'm', &[first, last], head)
}

/// Begins a batch of this hash, which follows `previous`; its copied rows follow, and its limits at the end.
pub(crate) fn batch(digest: &Hash, previous: &Hash, hash: &Hash) -> Digest {
    let mut next = Digest::new(DOMAIN);
    next.bare(digest.as_bytes());
    next.bare(b"h");
    next.bare(previous.as_bytes());
    next.bare(hash.as_bytes());
    next
}

/// The bytes that a store signs: its chain up to row `last` has this head, and what is copied of it has this digest.
pub(crate) fn signed(last: i64, head: &Hash, digest: &Hash) -> Vec<u8> {
    let mut message = b"cmiot-audit-copy-signature-1\0".to_vec();
    message.extend_from_slice(&last.to_be_bytes());
    message.extend_from_slice(head.as_bytes());
    message.extend_from_slice(digest.as_bytes());
    message
}

fn step(before: &Hash, letter: u8, numbers: &[i64], head: &Hash) -> Hash {
    let mut digest = Digest::new(DOMAIN);
    digest.bare(before.as_bytes());
    digest.bare(&[letter]);
    numbers.iter().for_each(|number| digest.bare(&number.to_be_bytes()));
    digest.bare(head.as_bytes());
    digest.finish()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_digests_are_those_that_another_program_computes() {
        // Python: h = lambda *parts: hashlib.sha256(b"cmiot-audit-copy-1\0" + b"".join(parts)).digest(),
        // q = struct.Struct(">q").pack, z = 32 * b"\0"
        let first = base(7, &Hash::NONE);
        // h(z, b"o", q(7), z)
        assert_eq!(first.to_string(), BASE);
        // h(base, b"s", q(7), z)
        assert_eq!(segment(&first, 7, &Hash::NONE).to_string(), SEGMENT);
        // h(base, b"m", q(8), q(9), z)
        assert_eq!(missing(&first, 8, 9, &Hash::NONE).to_string(), MISSING);
    }

    const BASE: &str = "6034b80b2daed086a28f1635097a92739d31427c5cb0f33195231349c56a70c3";
    const SEGMENT: &str = "622d8474de46287a8921656120570a209de89002fdbabceb6d4e1fd64494fe83";
    const MISSING: &str = "c98b0bdbd092a833c720af69aa1d0668d071b76166082d72357ad8d6ee7f55c5";
}
