//! The last eight digits of a transid, 00000001 to 99999999, which distinguish lookups of the same second.
//!
//! Carrier page, "transid": the caller chooses them, for example "from 00000001 upwards". The carrier accepts a number
//! again in another second, so only the pair of stamp and sequence must be unique.
//!
//! A [`SequenceSource`] supplies the numbers: a [`Counter`] in RAM, or a [`Leased`] counter in flash that survives a
//! reset, or [`LeasedAsync`] over an async driver. Each uses the numbers of one [`Node`], so that devices that share an
//! appid never collide.

#[cfg(feature = "flash")]
mod lease;
mod node;

use core::convert::Infallible;
use core::fmt;

use crate::error::SequenceError;
use crate::stamp::{div_rem, write_two_digits_each};

#[cfg(feature = "flash")]
pub use lease::{LeaseError, Leased, LeasedAsync};
pub use node::Node;

/// A number from 1 to 99,999,999.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Sequence(u32);

impl Sequence {
    /// `00000001`
    pub const FIRST: Self = Self(1);
    /// `99999999`
    pub const LAST: Self = Self(99_999_999);
    /// Digits of a written sequence.
    pub const LEN: usize = 8;

    /// Checks a number.
    ///
    /// # Errors
    /// When it is 0 or has more than eight digits.
    pub const fn new(number: u32) -> Result<Self, SequenceError> {
        if number < Self::FIRST.0 || number > Self::LAST.0 {
            return Err(SequenceError::OutOfRange);
        }
        Ok(Self(number))
    }

    /// The number.
    #[must_use]
    pub const fn get(self) -> u32 {
        self.0
    }

    /// The number after this one; after [`LAST`](Self::LAST) comes [`FIRST`](Self::FIRST).
    #[must_use]
    pub const fn next(self) -> Self {
        if self.0 >= Self::LAST.0 { Self::FIRST } else { Self(self.0 + 1) }
    }

    /// The sequence as written in a transid.
    #[must_use]
    pub fn digits(self) -> [u8; Self::LEN] {
        let mut digits = [0; Self::LEN];
        write_two_digits_each(&self.pairs(), &mut digits);
        digits
    }

    /// The digits as four two-digit numbers.
    pub(crate) fn pairs(self) -> [u32; 4] {
        let mut rest = self.0;
        [div_rem(&mut rest, 1_000_000), div_rem(&mut rest, 10_000), div_rem(&mut rest, 100), rest]
    }

    /// Parses eight digits.
    pub(crate) fn parse_bytes(digits: &[u8]) -> Result<Self, SequenceError> {
        let mut number = 0u32;
        for &digit in digits {
            if !digit.is_ascii_digit() || number > Self::LAST.0 {
                return Err(SequenceError::OutOfRange);
            }
            number = number * 10 + u32::from(digit - b'0');
        }
        Self::new(number)
    }
}

/// A supplier of sequences. A number is not repeated before all numbers of its [`Node`] were used.
pub trait SequenceSource {
    /// The reason why there is no next number.
    type Error;

    /// The next number, for one transid.
    ///
    /// # Errors
    /// When the storage fails; then no number was used.
    fn next_sequence(&mut self) -> Result<Sequence, Self::Error>;
}

/// A counter in RAM. After a reset it starts at the number given to [`new`](Self::new), so only the stamp then keeps
/// pairs of stamp and sequence unique: do not reset twice within a second, and do not set the clock back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Counter {
    node: Node,
    next: Sequence,
}

impl Counter {
    /// Counts within `node`, from `start`, or from the node's first number if `start` does not belong to it.
    /// A random start makes a repetition after a reset unlikely.
    #[must_use]
    pub fn new(node: Node, start: Sequence) -> Self {
        Self { node, next: if node.contains(start) { start } else { node.first() } }
    }
}

impl SequenceSource for Counter {
    type Error = Infallible;

    fn next_sequence(&mut self) -> Result<Sequence, Infallible> {
        let next = self.next;
        self.next = self.node.after(next);
        Ok(next)
    }
}

impl TryFrom<u32> for Sequence {
    type Error = SequenceError;

    fn try_from(number: u32) -> Result<Self, Self::Error> {
        Self::new(number)
    }
}

impl fmt::Display for Sequence {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(core::str::from_utf8(&self.digits()).map_err(|_| fmt::Error)?)
    }
}

impl fmt::Debug for Sequence {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Sequence({self})")
    }
}

#[cfg(test)]
mod tests {
    extern crate std;
    use std::string::ToString;

    use super::*;

    #[test]
    fn always_eight_digits() {
        for (number, text) in
            [(1, "00000001"), (80_000_001, "80000001"), (99_999_999, "99999999"), (1_024_300, "01024300")]
        {
            let sequence = Sequence::new(number).unwrap();
            assert_eq!(sequence.to_string(), text);
            assert_eq!(Sequence::parse_bytes(text.as_bytes()), Ok(sequence));
        }
    }

    #[test]
    fn the_range_is_checked_and_the_last_wraps_to_one() {
        assert_eq!(Sequence::new(0), Err(SequenceError::OutOfRange));
        assert_eq!(Sequence::new(100_000_000), Err(SequenceError::OutOfRange));
        assert_eq!(Sequence::FIRST.next().get(), 2);
        assert_eq!(Sequence::LAST.next(), Sequence::FIRST);
    }

    #[test]
    fn a_counter_begins_at_its_start_and_stays_in_its_node() {
        let node = Node::new(7, 1_234_567).unwrap();
        let numbers = |start| {
            let mut counter = Counter::new(node, Sequence::new(start).unwrap());
            core::array::from_fn::<u32, 4, _>(|_| {
                let Ok(sequence) = counter.next_sequence();
                sequence.get()
            })
        };
        assert_eq!(numbers(12_345_678), [12_345_678, 12_345_679, 12_345_670, 12_345_671]);
        assert_eq!(numbers(1), [12_345_670, 12_345_671, 12_345_672, 12_345_673]);
    }

    #[test]
    fn parsing_is_strict() {
        for bad in ["00000000", "0000000a", "+0000001", "99999999999999999999"] {
            assert_eq!(Sequence::parse_bytes(bad.as_bytes()), Err(SequenceError::OutOfRange), "{bad}");
        }
    }
}
