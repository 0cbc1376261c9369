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
//! `marks` has these rules without the flash, for a blocking driver and for an async one.
//!
//! Wear: a page holds `ERASE_SIZE / slot` marks, and the pages alternate, so both last for
//! 2 × endurance × marks × block numbers. With 4 KiB pages, slots of 8 bytes, blocks of 64 and 10,000 erasures
//! that is 655 million. Each reset costs one mark.

mod asynchronous;
mod marks;

use core::error::Error;
use core::fmt;
use core::mem::MaybeUninit;

use embedded_storage::nor_flash::NorFlash;

use super::{Node, Sequence, SequenceSource};
use marks::{Layout, Marks, RECORD, Search, Slot};

pub use asynchronous::LeasedAsync;

/// A counter whose high-water mark is stored in two pages of flash.
#[derive(Debug)]
pub struct Leased<F> {
    flash: F,
    marks: Marks,
}

/// The reason why there is no next number.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
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

/// The write and read unit, in bytes, up to which a slot takes little stack, and the largest one supported.
const SMALL_UNIT: usize = 32;
const LARGEST_UNIT: usize = 512;

impl<F: NorFlash> Leased<F> {
    const LAYOUT: Layout = Layout::new(F::READ_SIZE, F::WRITE_SIZE, F::ERASE_SIZE, LARGEST_UNIT);

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
        let marks = Marks::new(Self::LAYOUT, flash.capacity(), start, node, block)?;
        Ok(Self { flash, marks })
    }

    /// Finds the highest mark.
    fn find(&mut self) -> Result<(), LeaseError<F::Error>> {
        let mut search = Search::new();
        for page in 0..2 {
            for slot in 0..Self::LAYOUT.slots {
                search.take(slot, self.read(self.marks.offset(Self::LAYOUT, page, slot)));
            }
            search.end_page(page, &mut self.marks);
        }
        search.end(&mut self.marks)
    }

    /// Returns the flash.
    pub fn unmount(self) -> F {
        self.flash
    }

    /// Writes the mark of the next block.
    fn lease(&mut self) -> Result<(), LeaseError<F::Error>> {
        let mark = self.marks.upcoming()?;
        if let Some(page) = self.marks.page_to_erase(Self::LAYOUT) {
            let from = self.marks.offset(Self::LAYOUT, page, 0);
            self.flash.erase(from, from + Self::LAYOUT.page).map_err(LeaseError::Flash)?;
            self.marks.erased(page);
        }
        let offset = self.marks.use_slot(Self::LAYOUT);
        self.write(offset, mark).map_err(LeaseError::Flash)?;
        let read = self.read(offset).map_err(LeaseError::Flash)?;
        self.marks.written(mark, &read)
    }

    fn read(&mut self, offset: u32) -> Result<Slot, F::Error> {
        // The sizes are constants, so an image contains one of these only.
        if Self::LAYOUT.read <= RECORD {
            self.read_with::<RECORD>(offset)
        } else if Self::LAYOUT.read <= SMALL_UNIT {
            self.read_with::<SMALL_UNIT>(offset)
        } else {
            self.read_with::<LARGEST_UNIT>(offset)
        }
    }

    fn read_with<const BUFFER: usize>(&mut self, offset: u32) -> Result<Slot, F::Error> {
        let mut bytes = [0; BUFFER];
        let read = bytes.get_mut(..Self::LAYOUT.read).unwrap_or_default();
        self.flash.read(offset, read)?;
        Ok(Slot::decode(read))
    }

    fn write(&mut self, offset: u32, mark: u32) -> Result<(), F::Error> {
        if Self::LAYOUT.slot <= RECORD {
            self.write_with::<RECORD>(offset, mark)
        } else if Self::LAYOUT.slot <= SMALL_UNIT {
            self.write_with::<SMALL_UNIT>(offset, mark)
        } else {
            self.write_with::<LARGEST_UNIT>(offset, mark)
        }
    }

    fn write_with<const BUFFER: usize>(&mut self, offset: u32, mark: u32) -> Result<(), F::Error> {
        let bytes = Slot::encode::<BUFFER>(mark);
        self.flash.write(offset, bytes.get(..Self::LAYOUT.slot).unwrap_or_default())
    }
}

impl<F: NorFlash> SequenceSource for Leased<F> {
    type Error = LeaseError<F::Error>;

    fn next_sequence(&mut self) -> Result<Sequence, Self::Error> {
        if self.marks.are_used_up() {
            self.lease()?;
        }
        Ok(self.marks.next())
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
