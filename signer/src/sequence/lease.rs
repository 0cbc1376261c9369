//! Sequences that survive a reset: leased from flash in blocks, so that one write serves many lookups.
//!
//! Format: two pages (erase units) of slots. A slot holds a mark, as `u32` and as its complement, both
//! little-endian, and 0xFF up to a whole number of write units. The mark is the count of all
//! numbers leased so far; the n-th of them is the node's n-th, modulo the node's count.
//!
//! - A mark is written and read back *before* any number below it is returned. The highest valid mark counts; numbers
//!   continue from it, so that a reset loses the rest of a block and repeats nothing.
//! - Marks only grow, so the remains of a page whose erasure was interrupted cannot exceed the newest mark. A torn mark
//!   does not match its complement: it is skipped, and no number of its block was returned.
//! - A mark is written to the slot after the last used one of the page with the highest mark. When that page is full,
//!   the *other* page is erased first; the highest mark is therefore always in an intact page.
//!
//! Wear: a page holds `ERASE_SIZE / slot` marks, and the pages alternate, so both last for
//! 2 × endurance × marks × block numbers. With 4 KiB pages, slots of 8 bytes, blocks of 64 and 10,000 erasures
//! that is 655 million. Each reset costs one mark.

use core::error::Error;
use core::fmt;

use embedded_storage::nor_flash::NorFlash;

use super::{Node, Sequence, SequenceSource};

/// A counter whose high-water mark is stored in two pages of flash.
#[derive(Debug)]
pub struct Leased<F> {
    flash: F,
    /// Offset of the first of the two pages.
    start: u32,
    node: Node,
    /// Numbers per lease.
    block: u32,
    /// The next number to return, counted from the first ever.
    next: u32,
    /// The mark in flash: numbers from here on are not leased yet.
    mark: u32,
    /// Page (0 or 1) and slot of the next mark.
    page: u32,
    slot: u32,
}

/// The reason why there is no next number.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum LeaseError<E> {
    /// The flash failed.
    Flash(E),
    /// The two pages are outside the flash or do not begin at an erase unit, or a block is 0.
    Layout,
    /// A written mark does not read back.
    Worn,
    /// 4,294,967,295 numbers were leased.
    Exhausted,
}

/// Bytes of a mark and its complement.
const RECORD: usize = 8;
/// The largest read or write unit supported, in bytes.
const LARGEST_UNIT: usize = 32;

impl<F: NorFlash> Leased<F> {
    /// Bytes per slot.
    const SLOT: usize = {
        assert!(F::WRITE_SIZE <= LARGEST_UNIT && F::READ_SIZE <= LARGEST_UNIT, "units above 32 B");
        assert!(F::WRITE_SIZE.is_power_of_two() && F::READ_SIZE.is_power_of_two(), "units are powers of two");
        let unit = if F::WRITE_SIZE > F::READ_SIZE { F::WRITE_SIZE } else { F::READ_SIZE };
        if unit > RECORD { unit } else { RECORD }
    };
    const SLOTS: u32 = {
        assert!(F::ERASE_SIZE >= Self::SLOT, "a page holds a slot");
        (F::ERASE_SIZE / Self::SLOT) as u32
    };

    /// Finds the highest mark in the two pages that begin at byte `start` of the flash. Pages that
    /// were never used may contain anything but marks. Nothing is written yet.
    ///
    /// `block` numbers are leased per write: a larger block wears the flash less, a smaller one loses fewer numbers at
    /// a reset.
    ///
    /// # Errors
    /// When the flash fails or the pages are outside it.
    pub fn mount(flash: F, start: u32, node: Node, block: u32) -> Result<Self, LeaseError<F::Error>> {
        let end = u64::from(start) + 2 * F::ERASE_SIZE as u64;
        if block == 0 || !(start as usize).is_multiple_of(F::ERASE_SIZE) || end > flash.capacity() as u64 {
            return Err(LeaseError::Layout);
        }
        // Treated as a full page 1: the first mark erases page 0.
        let mut this = Self { flash, start, node, block, next: 0, mark: 0, page: 1, slot: Self::SLOTS };
        let mut bytes = [0xFF; LARGEST_UNIT];
        for page in 0..2 {
            let mut used = 0;
            let mut highest = None;
            for slot in 0..Self::SLOTS {
                this.read(page, slot, &mut bytes)?;
                if bytes.iter().any(|&byte| byte != 0xFF) {
                    used = slot + 1;
                }
                highest = highest.max(mark(&bytes));
            }
            if let Some(mark) = highest.filter(|&mark| mark > this.mark) {
                (this.mark, this.page, this.slot) = (mark, page, used);
            }
        }
        this.next = this.mark;
        Ok(this)
    }

    /// Returns the flash.
    pub fn unmount(self) -> F {
        self.flash
    }

    /// Writes the mark of the next block.
    fn lease(&mut self) -> Result<(), LeaseError<F::Error>> {
        let mark = self.mark.checked_add(self.block).ok_or(LeaseError::Exhausted)?;
        if self.slot >= Self::SLOTS {
            let page = 1 - self.page;
            let from = self.offset(page, 0);
            self.flash.erase(from, from + F::ERASE_SIZE as u32).map_err(LeaseError::Flash)?;
            (self.page, self.slot) = (page, 0);
        }
        let slot = self.slot;
        // The slot is used even if the write fails.
        self.slot += 1;
        let mut bytes = [0xFF; LARGEST_UNIT];
        let record = mark.to_le_bytes().into_iter().chain((!mark).to_le_bytes());
        for (byte, value) in bytes.iter_mut().zip(record) {
            *byte = value;
        }
        let at = self.offset(self.page, slot);
        let written = bytes.get(..Self::SLOT).unwrap_or_default();
        self.flash.write(at, written).map_err(LeaseError::Flash)?;
        let mut bytes = [0; LARGEST_UNIT];
        self.read(self.page, slot, &mut bytes)?;
        if self::mark(&bytes) != Some(mark) {
            return Err(LeaseError::Worn);
        }
        self.mark = mark;
        Ok(())
    }

    /// Reads a slot into the beginning of `bytes`.
    fn read(
        &mut self,
        page: u32,
        slot: u32,
        bytes: &mut [u8; LARGEST_UNIT],
    ) -> Result<(), LeaseError<F::Error>> {
        let at = self.offset(page, slot);
        self.flash.read(at, bytes.get_mut(..Self::SLOT).unwrap_or_default()).map_err(LeaseError::Flash)
    }

    fn offset(&self, page: u32, slot: u32) -> u32 {
        self.start + page * F::ERASE_SIZE as u32 + slot * Self::SLOT as u32
    }
}

impl<F: NorFlash> SequenceSource for Leased<F> {
    type Error = LeaseError<F::Error>;

    fn next_sequence(&mut self) -> Result<Sequence, Self::Error> {
        if self.next >= self.mark {
            self.lease()?;
        }
        let sequence = self.node.nth(self.next);
        self.next += 1;
        Ok(sequence)
    }
}

/// The mark in a slot, if it is valid.
fn mark(slot: &[u8; LARGEST_UNIT]) -> Option<u32> {
    let [a, b, c, d, na, nb, nc, nd, ..] = *slot;
    let (mark, complement) = (u32::from_le_bytes([a, b, c, d]), u32::from_le_bytes([na, nb, nc, nd]));
    (mark == !complement).then_some(mark)
}

impl<E: fmt::Debug> fmt::Display for LeaseError<E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Flash(error) => write!(f, "the flash failed ({error:?}): check its driver and wiring"),
            Self::Layout => f.write_str("the two pages must begin at an erase unit and be within the flash"),
            Self::Worn => f.write_str("the mark does not read back: the page is worn, use another"),
            Self::Exhausted => f.write_str("four billion numbers were leased: erase both pages and restart"),
        }
    }
}

impl<E: fmt::Debug> Error for LeaseError<E> {}
