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
//! - The page with the highest mark is never erased. When it is full, the *other* page is erased, and erased again if
//!   no write to it succeeds. If that page is worn, there are no further numbers.
//! - A slot that cannot be read, as after a power cut in a flash with error correction, counts as used, and its mark as
//!   lost: behind the highest mark of its page, a block is skipped for it. A flash of which nothing can be read is an
//!   error.
//! - A slot is free if its bytes are equal: flash erases to 0xFF, 0x00 or another value. No mark has equal bytes.
//!
//! Wear: a page holds `ERASE_SIZE / slot` marks, and the pages alternate, so both last for
//! 2 × endurance × marks × block numbers. With 4 KiB pages, slots of 8 bytes, blocks of 64 and 10,000 erasures
//! that is 655 million. Each reset costs one mark.

use core::error::Error;
use core::fmt;
use core::mem::MaybeUninit;

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
    /// The page (0 or 1) of the highest mark, if there is one.
    home: Option<u32>,
    /// Page and slot of the next mark.
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

/// Content of a slot.
enum Slot {
    /// Erased, or never used.
    Free,
    Mark(u32),
    /// Anything else: a mark that power failed at.
    Torn,
}

/// Bytes of a mark and its complement.
const RECORD: usize = 8;
/// The write and read unit, in bytes, up to which a slot takes little stack, and the largest one supported.
const SMALL_UNIT: usize = 32;
const LARGEST_UNIT: usize = 512;

impl<F: NorFlash> Leased<F> {
    /// Bytes that are read of a slot, from its beginning.
    const READ: usize = {
        assert!(F::READ_SIZE.is_power_of_two() && F::READ_SIZE <= LARGEST_UNIT, "units of 1 to 512 B");
        if F::READ_SIZE > RECORD { F::READ_SIZE } else { RECORD }
    };
    /// Bytes per slot.
    const SLOT: usize = {
        assert!(F::WRITE_SIZE.is_power_of_two() && F::WRITE_SIZE <= LARGEST_UNIT, "units of 1 to 512 B");
        if F::WRITE_SIZE > Self::READ { F::WRITE_SIZE } else { Self::READ }
    };
    const SLOTS: u32 = {
        assert!(F::ERASE_SIZE >= Self::SLOT, "a page holds a slot");
        (F::ERASE_SIZE / Self::SLOT) as u32
    };

    /// Finds the highest mark in the two pages that begin at byte `start` of the flash. Pages that
    /// were never used may contain anything but marks. Nothing is written yet.
    ///
    /// `block` numbers are leased per write: a larger block wears the flash less, a smaller one loses fewer numbers at
    /// a reset. A smaller block than that of an earlier firmware skips too little for a mark that cannot be read.
    ///
    /// # Errors
    /// When nothing can be read or the pages are outside the flash.
    pub fn mount(flash: F, start: u32, node: Node, block: u32) -> Result<Self, LeaseError<F::Error>> {
        let mut this = Self::unmounted(flash, start, node, block)?;
        this.find()?;
        Ok(this)
    }

    /// [`mount`](Self::mount) in place, without a copy on the stack.
    ///
    /// # Errors
    /// As [`mount`](Self::mount); then `place` contains no usable counter.
    pub fn mount_into(
        place: &mut MaybeUninit<Self>,
        flash: F,
        start: u32,
        node: Node,
        block: u32,
    ) -> Result<&mut Self, LeaseError<F::Error>> {
        let this = place.write(Self::unmounted(flash, start, node, block)?);
        this.find()?;
        Ok(this)
    }

    #[inline(always)]
    fn unmounted(flash: F, start: u32, node: Node, block: u32) -> Result<Self, LeaseError<F::Error>> {
        let end = u64::from(start) + 2 * F::ERASE_SIZE as u64;
        if block == 0 || !(start as usize).is_multiple_of(F::ERASE_SIZE) || end > flash.capacity() as u64 {
            return Err(LeaseError::Layout);
        }
        // Treated as a full page 1: the first mark erases page 0.
        Ok(Self { flash, start, node, block, next: 0, mark: 0, home: None, page: 1, slot: Self::SLOTS })
    }

    /// Finds the highest mark.
    fn find(&mut self) -> Result<(), LeaseError<F::Error>> {
        let (mut lost, mut readable, mut error) = (0, false, None);
        for page in 0..2 {
            let (mut used, mut lost_here, mut highest) = (0, 0, None);
            for slot in 0..Self::SLOTS {
                match self.read(page, slot) {
                    Ok(Slot::Free) => {
                        readable = true;
                        continue;
                    }
                    Ok(Slot::Torn) => readable = true,
                    Ok(Slot::Mark(mark)) => {
                        readable = true;
                        if highest < Some(mark) {
                            (highest, lost_here) = (Some(mark), 0);
                        }
                    }
                    Err(fault) => {
                        error = Some(fault);
                        lost_here += 1;
                    }
                }
                used = slot + 1;
            }
            lost += lost_here;
            if let Some(mark) = highest
                && (self.home.is_none() || mark > self.mark)
            {
                (self.mark, self.home, self.page, self.slot) = (mark, Some(page), page, used);
            }
        }
        if let (Some(fault), false) = (error, readable) {
            return Err(LeaseError::Flash(fault));
        }
        // Not a product, which would link a 64-bit multiplication on a Cortex-M0.
        for _ in 0..lost {
            self.mark = self.mark.saturating_add(self.block);
        }
        self.next = self.mark;
        Ok(())
    }

    /// Returns the flash.
    pub fn unmount(self) -> F {
        self.flash
    }

    /// Writes the mark of the next block.
    fn lease(&mut self) -> Result<(), LeaseError<F::Error>> {
        let mark = self.mark.checked_add(self.block).ok_or(LeaseError::Exhausted)?;
        if self.slot >= Self::SLOTS {
            let page = 1 - self.home.unwrap_or(self.page);
            let from = self.offset(page, 0);
            self.flash.erase(from, from + F::ERASE_SIZE as u32).map_err(LeaseError::Flash)?;
            (self.page, self.slot) = (page, 0);
        }
        let slot = self.slot;
        // The slot is used even if the write fails.
        self.slot += 1;
        self.write(self.page, slot, mark).map_err(LeaseError::Flash)?;
        match self.read(self.page, slot).map_err(LeaseError::Flash)? {
            Slot::Mark(written) if written == mark => {}
            _ => return Err(LeaseError::Worn),
        }
        self.mark = mark;
        self.home = Some(self.page);
        Ok(())
    }

    fn read(&mut self, page: u32, slot: u32) -> Result<Slot, F::Error> {
        // The sizes are constants, so an image contains one of these only.
        if Self::READ <= RECORD {
            self.read_with::<RECORD>(page, slot)
        } else if Self::READ <= SMALL_UNIT {
            self.read_with::<SMALL_UNIT>(page, slot)
        } else {
            self.read_with::<LARGEST_UNIT>(page, slot)
        }
    }

    fn read_with<const BUFFER: usize>(&mut self, page: u32, slot: u32) -> Result<Slot, F::Error> {
        let mut bytes = [0; BUFFER];
        let read = bytes.get_mut(..Self::READ).unwrap_or_default();
        self.flash.read(self.offset(page, slot), read)?;
        let Some(&[a, b, c, d, na, nb, nc, nd]) = read.first_chunk() else { return Ok(Slot::Torn) };
        if read.iter().all(|&byte| byte == a) {
            return Ok(Slot::Free);
        }
        let (mark, complement) = (u32::from_le_bytes([a, b, c, d]), u32::from_le_bytes([na, nb, nc, nd]));
        Ok(if mark == !complement { Slot::Mark(mark) } else { Slot::Torn })
    }

    fn write(&mut self, page: u32, slot: u32, mark: u32) -> Result<(), F::Error> {
        if Self::SLOT <= RECORD {
            self.write_with::<RECORD>(page, slot, mark)
        } else if Self::SLOT <= SMALL_UNIT {
            self.write_with::<SMALL_UNIT>(page, slot, mark)
        } else {
            self.write_with::<LARGEST_UNIT>(page, slot, mark)
        }
    }

    fn write_with<const BUFFER: usize>(&mut self, page: u32, slot: u32, mark: u32) -> Result<(), F::Error> {
        let mut bytes = [0xFF; BUFFER];
        let record = mark.to_le_bytes().into_iter().chain((!mark).to_le_bytes());
        for (byte, value) in bytes.iter_mut().zip(record) {
            *byte = value;
        }
        self.flash.write(self.offset(page, slot), bytes.get(..Self::SLOT).unwrap_or_default())
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

impl<E: fmt::Debug> fmt::Display for LeaseError<E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Flash(error) => write!(f, "the flash failed ({error:?}): check its driver and wiring"),
            Self::Layout => f.write_str("the two pages must begin at an erase unit and be within the flash"),
            Self::Worn => f.write_str(
                "the mark does not read back: retry; if that fails each time, the pages are worn, use others",
            ),
            Self::Exhausted => f.write_str("four billion numbers were leased: erase both pages and restart"),
        }
    }
}

impl<E: fmt::Debug> Error for LeaseError<E> {}
