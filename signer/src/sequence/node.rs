//! A device's own part of the eight digits, so that thousands of gateways can share an appid and never collide.
//!
//! With `k` node digits there are 10^k nodes of 10^(8-k) numbers each. The pair of second and number must be unique;
//! within a node, a number repeats only after all others were used. A device that makes `r` lookups per second, and
//! whose clock is wrong by less than 10^(8-k) / r seconds, therefore never repeats a pair:
//!
//! | k | devices | numbers per node | repeat at 1 per second | repeat at 1 per minute |
//! | --- | --- | --- | --- | --- |
//! | 2 | 100 | 1,000,000 | 11 days | 1.9 years |
//! | 3 | 1,000 | 100,000 | 27 hours | 69 days |
//! | 4 | 10,000 | 10,000 | 2.7 hours | 7 days |
//! | 5 | 100,000 | 1,000 | 16 minutes | 16 hours |
//!
//! All devices of an appid must use the same `k`.

use super::Sequence;
use crate::error::SequenceError;

/// The numbers that begin with a device's own digits.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Node {
    first: Sequence,
    /// The count of its numbers, at least 9.
    len: u32,
}

impl Node {
    /// All numbers, for the only device of an appid.
    pub const ONLY: Self = Self { first: Sequence::FIRST, len: Sequence::LAST.0 };

    /// The node whose numbers begin with `number`, written in `digits` digits (0 to 7).
    ///
    /// # Errors
    /// When there are more than 7 digits, or the number has more than that.
    pub const fn new(digits: u32, number: u32) -> Result<Self, SequenceError> {
        if digits > 7 || number >= 10u32.pow(digits) {
            return Err(SequenceError::OutOfRange);
        }
        let len = 10u32.pow(8 - digits);
        // 00000000 is no sequence: node 0 is one number short.
        let (first, len) = if number == 0 { (1, len - 1) } else { (number * len, len) };
        Ok(Self { first: Sequence(first), len })
    }

    /// Its lowest number.
    #[must_use]
    pub const fn first(self) -> Sequence {
        self.first
    }

    /// The count of its numbers.
    #[must_use]
    pub const fn count(self) -> u32 {
        self.len
    }

    /// Whether a number belongs to this node.
    #[must_use]
    pub const fn contains(self, sequence: Sequence) -> bool {
        sequence.0.wrapping_sub(self.first.0) < self.len
    }

    /// The number after `sequence`, which belongs to this node; after the last comes the first.
    #[must_use]
    pub const fn after(self, sequence: Sequence) -> Sequence {
        let next = Sequence(sequence.0 + 1);
        if self.contains(next) { next } else { self.first }
    }

    /// Its `nth` number, counted from 0; after the last comes the first.
    #[cfg(any(feature = "flash", test))]
    pub(super) const fn nth(self, nth: u32) -> Sequence {
        // A node is never empty, so the default is never used; it only avoids a panic.
        match nth.checked_rem(self.len) {
            Some(nth) => Sequence(self.first.0 + nth),
            None => self.first,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nodes_of_one_width_share_nothing_and_leave_nothing_out() {
        for digits in 1..=4 {
            let mut next = 1;
            for number in 0..10u32.pow(digits) {
                let node = Node::new(digits, number).unwrap();
                assert_eq!(node.first().get(), next, "node {number} of {digits} digits");
                next += node.count();
            }
            assert_eq!(next, 100_000_000);
        }
    }

    #[test]
    fn a_node_wraps_around() {
        for (digits, number) in [(7, 0), (7, 1), (7, 9_999_999), (6, 0)] {
            let node = Node::new(digits, number).unwrap();
            let mut sequence = node.first();
            for nth in 0..3 * node.count() {
                assert!(node.contains(sequence) && Sequence::new(sequence.get()) == Ok(sequence));
                assert_eq!(node.nth(nth), sequence);
                sequence = node.after(sequence);
            }
            assert_eq!(sequence, node.first());
        }
        assert_eq!(Node::ONLY.after(Sequence::LAST), Sequence::FIRST);
        assert_eq!(Node::new(0, 0), Ok(Node::ONLY));
    }

    #[test]
    fn impossible_nodes_are_refused() {
        for (digits, number) in [(8, 1), (u32::MAX, 0), (2, 100), (0, 1), (7, 10_000_000)] {
            assert_eq!(Node::new(digits, number), Err(SequenceError::OutOfRange));
        }
    }
}
