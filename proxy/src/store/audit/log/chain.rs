//! The hash chain: one SHA-256 per batch, over the batch and the hash before.
//!
//! ```text
//! seed  = SHA-256("cmiot-audit-segment-1" 00, month, previous, before, manifest rows)
//! batch = SHA-256("cmiot-audit-batch-1" 00, hash before, rows, "b", version, first, last, begins, horizon)
//! row   = letter of its table, number, its values in the order of `columns`
//! value = 00 | 01 i64 | 02 u32 text | 03 u32 bytes          (lengths and integers big-endian)
//! ```
//!
//! The hash before is that of the previous batch, or the segment's seed. Every value has its type and length and every
//! table its letter, so different contents never have the same bytes. Names are hashed as their text.

use std::fmt;

use ring::digest::{Context, SHA256};

use super::value::Value;

/// The hash of a batch, or the seed of a segment.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Hash([u8; 32]);

impl Hash {
    /// The hash that the very first segment follows.
    pub const NONE: Self = Self([0; 32]);

    /// From bytes as stored.
    pub fn from_slice(bytes: &[u8]) -> Option<Self> {
        bytes.try_into().ok().map(Self)
    }

    /// Its bytes.
    pub fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }
}

impl fmt::Display for Hash {
    /// Lower-case hex.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for Hash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// The limits of a batch, as its row has them.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Limits {
    pub(crate) version: i64,
    pub(crate) first: i64,
    pub(crate) last: i64,
    pub(crate) begins: i64,
    pub(crate) horizon: i64,
}

/// One earlier segment, as the manifest has it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Manifest {
    /// `2026-01`.
    pub month: String,
    /// Its first row's number.
    pub first: i64,
    /// Its last row's number.
    pub last: i64,
    /// The number of its rows.
    pub count: i64,
    /// The least time in it, in microseconds since 1970.
    pub since: i64,
    /// The greatest time in it.
    pub until: i64,
    /// Its last batch's hash.
    pub head: Hash,
}

/// Receives the rows of a batch in their order, each with its values.
pub(crate) trait RowSink {
    /// Begins a row.
    fn row(&mut self, letter: u8, id: i64);
    /// Adds a value; a name is its text.
    fn value(&mut self, value: Value<'_>);
}

/// Two digests of the same rows; the second one may be absent.
impl RowSink for (Digest, Option<Digest>) {
    fn row(&mut self, letter: u8, id: i64) {
        self.0.row(letter, id);
        self.1.iter_mut().for_each(|digest| digest.row(letter, id));
    }

    fn value(&mut self, value: Value<'_>) {
        self.0.value(value);
        self.1.iter_mut().for_each(|digest| digest.value(value));
    }
}

/// A hash under construction.
pub(crate) struct Digest {
    context: Context,
    buffer: Vec<u8>,
}

/// The size of a piece: large enough that the calls do not count.
const PIECE: usize = 4 << 10;

impl Digest {
    /// Begins a hash with its domain.
    pub(super) fn new(domain: &[u8]) -> Self {
        let mut digest = Self { context: Context::new(&SHA256), buffer: Vec::with_capacity(2 * PIECE) };
        digest.buffer.extend_from_slice(domain);
        digest
    }

    /// Begins a batch; its rows follow in order, its limits at the end.
    pub(crate) fn batch(before: &Hash) -> Self {
        let mut digest = Self::new(b"cmiot-audit-batch-1\0");
        digest.buffer.extend_from_slice(&before.0);
        digest
    }

    /// Adds bytes of a fixed length.
    pub(super) fn bare(&mut self, bytes: &[u8]) {
        self.buffer.extend_from_slice(bytes);
    }

    /// Begins a row.
    pub(crate) fn row(&mut self, letter: u8, id: i64) {
        if self.buffer.len() >= PIECE {
            self.context.update(&self.buffer);
            self.buffer.clear();
        }
        self.buffer.push(letter);
        self.buffer.extend_from_slice(&id.to_be_bytes());
    }

    /// Adds a value; a name is its text.
    pub(crate) fn value(&mut self, value: Value<'_>) {
        match value {
            Value::Null => self.buffer.push(0),
            Value::Int(number) => {
                self.buffer.push(1);
                self.buffer.extend_from_slice(&number.to_be_bytes());
            }
            Value::Text(text) => self.sized(2, text),
            Value::Name(text) => self.sized(2, text.as_bytes()),
            Value::Blob(bytes) => self.bytes(bytes),
        }
    }

    /// Adds a value of bytes.
    fn bytes(&mut self, bytes: &[u8]) {
        self.sized(3, bytes);
    }

    fn sized(&mut self, kind: u8, bytes: &[u8]) {
        // SQLite's own limit for a value is below 2^31.
        let len = u32::try_from(bytes.len()).unwrap_or(u32::MAX);
        self.buffer.push(kind);
        self.buffer.extend_from_slice(&len.to_be_bytes());
        self.buffer.extend_from_slice(bytes);
    }

    /// The batch's hash. Its limits come last: only the end knows them.
    pub(crate) fn finish_batch(mut self, limits: Limits) -> Hash {
        let Limits { version, first, last, begins, horizon } = limits;
        self.buffer.push(b'b');
        for number in [version, first, last, begins, horizon] {
            self.buffer.extend_from_slice(&number.to_be_bytes());
        }
        self.finish()
    }

    /// The hash of everything that was added.
    pub(super) fn finish(mut self) -> Hash {
        self.context.update(&self.buffer);
        let mut hash = [0; 32];
        hash.copy_from_slice(self.context.finish().as_ref());
        Hash(hash)
    }
}

impl RowSink for Digest {
    fn row(&mut self, letter: u8, id: i64) {
        Self::row(self, letter, id);
    }

    fn value(&mut self, value: Value<'_>) {
        Self::value(self, value);
    }
}

/// The hash that the first batch of a segment follows.
pub(crate) fn seed(month: &str, previous: &Hash, before: i64, manifest: &[Manifest]) -> Hash {
    let mut digest = Digest::new(b"cmiot-audit-segment-1\0");
    digest.value(Value::Text(month.as_bytes()));
    digest.bytes(&previous.0);
    digest.value(Value::Int(before));
    for Manifest { month, first, last, count, since, until, head } in manifest {
        digest.value(Value::Text(month.as_bytes()));
        for number in [first, last, count, since, until] {
            digest.value(Value::Int(*number));
        }
        digest.bytes(&head.0);
    }
    digest.finish()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hash(values: &[Value<'_>]) -> Hash {
        let mut digest = Digest::batch(&Hash::NONE);
        digest.row(b'r', 1);
        values.iter().for_each(|value| digest.value(*value));
        digest.finish_batch(Limits { version: 1, first: 1, last: 1, begins: 5, horizon: 5 })
    }

    #[test]
    fn a_batch_hashes_to_what_another_program_computes() {
        // Python: hashlib.sha256(b"cmiot-audit-batch-1\0" + 32 * b"\0" + b"r" + q(1) + b"\1" + q(5) + b"\2\0\0\0\1a\0b"
        // + q(1) + q(1) + q(1) + q(5) + q(5)), q = struct.Struct(">q").pack
        assert_eq!(
            hash(&[Value::Int(5), Value::Text(b"a"), Value::Null]).to_string(),
            "1bc5f858416ddcd28da2241be75c855da0f84b0c7155bbd10578b3777d034829"
        );
    }

    #[test]
    fn what_differs_hashes_differently() {
        let all = [
            hash(&[Value::Text(b"ab"), Value::Text(b"c")]),
            hash(&[Value::Text(b"a"), Value::Text(b"bc")]),
            hash(&[Value::Text(b""), Value::Null]),
            hash(&[Value::Null, Value::Text(b"")]),
            hash(&[Value::Int(0), Value::Null]),
            hash(&[Value::Text(b"0"), Value::Null]),
            hash(&[Value::Blob(b"0"), Value::Null]),
        ];
        for (n, one) in all.iter().enumerate() {
            assert!(all[..n].iter().all(|other| other != one));
        }
        assert_eq!(hash(&[Value::Name("hit")]), hash(&[Value::Text(b"hit")]), "a name is its text");
    }
}
