//! The marks of a lease, without the flash: where they are, which one counts, and where the next one goes.

use super::{LeaseError, Node, Sequence};

/// Bytes of a mark and its complement.
pub(super) const RECORD: usize = 8;

/// Sizes of a flash, all constant.
#[derive(Clone, Copy)]
pub(super) struct Layout {
    /// Bytes that are read of a slot, from its beginning.
    pub(super) read: usize,
    /// Bytes per slot.
    pub(super) slot: usize,
    /// Slots per page.
    pub(super) slots: u32,
    /// Bytes per page.
    pub(super) page: u32,
}

impl Layout {
    /// The layout for a driver's units, `largest` bytes each at most. A flash that cannot be used does not compile.
    pub(super) const fn new(read: usize, write: usize, erase: usize, largest: usize) -> Self {
        assert!(
            read.is_power_of_two() && read <= largest,
            "a read unit is a power of two, and no larger than the buffer"
        );
        assert!(
            write.is_power_of_two() && write <= largest,
            "a write unit is a power of two, and no larger than the buffer"
        );
        let read = if read > RECORD { read } else { RECORD };
        let slot = if write > read { write } else { read };
        assert!(erase >= slot, "a page holds a slot");
        Self { read, slot, slots: (erase / slot) as u32, page: erase as u32 }
    }
}

/// Content of a slot.
pub(super) enum Slot {
    /// Erased, or never used.
    Free,
    Mark(u32),
    /// Anything else: a mark that power failed at.
    Torn,
}

impl Slot {
    #[inline(always)]
    pub(super) fn decode(read: &[u8]) -> Self {
        let Some(&[a, b, c, d, na, nb, nc, nd]) = read.first_chunk() else { return Self::Torn };
        if read.iter().all(|&byte| byte == a) {
            return Self::Free;
        }
        let (mark, complement) = (u32::from_le_bytes([a, b, c, d]), u32::from_le_bytes([na, nb, nc, nd]));
        if mark == !complement { Self::Mark(mark) } else { Self::Torn }
    }

    /// The bytes of a slot with this mark.
    #[inline(always)]
    pub(super) fn encode<const BUFFER: usize>(mark: u32) -> [u8; BUFFER] {
        let mut bytes = [0xFF; BUFFER];
        let record = mark.to_le_bytes().into_iter().chain((!mark).to_le_bytes());
        for (byte, value) in bytes.iter_mut().zip(record) {
            *byte = value;
        }
        bytes
    }
}

/// The state of a counter.
#[derive(Debug)]
pub(super) struct Marks {
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

impl Marks {
    #[inline(always)]
    pub(super) fn new<E>(
        layout: Layout,
        capacity: usize,
        start: u32,
        node: Node,
        block: u32,
    ) -> Result<Self, LeaseError<E>> {
        let end = u64::from(start) + 2 * u64::from(layout.page);
        if block == 0 || !start.is_multiple_of(layout.page) || end > capacity as u64 {
            return Err(LeaseError::Layout);
        }
        // Treated as a full page 1: the first mark erases page 0.
        Ok(Self { start, node, block, next: 0, mark: 0, home: None, page: 1, slot: layout.slots })
    }

    /// Whether the next number must be leased first.
    #[inline(always)]
    pub(super) fn are_used_up(&self) -> bool {
        self.next >= self.mark
    }

    /// The next number, which is leased.
    #[inline(always)]
    pub(super) fn next(&mut self) -> Sequence {
        let sequence = self.node.nth(self.next);
        self.next += 1;
        sequence
    }

    /// The mark of the next block.
    #[inline(always)]
    pub(super) fn upcoming<E>(&self) -> Result<u32, LeaseError<E>> {
        self.mark.checked_add(self.block).ok_or(LeaseError::Exhausted)
    }

    /// The page to erase before the next mark, if the current one is full.
    #[inline(always)]
    pub(super) fn page_to_erase(&self, layout: Layout) -> Option<u32> {
        (self.slot >= layout.slots).then(|| 1 - self.home.unwrap_or(self.page))
    }

    /// A page was erased.
    #[inline(always)]
    pub(super) fn erased(&mut self, page: u32) {
        (self.page, self.slot) = (page, 0);
    }

    /// The offset of the next mark. Its slot is used even if the write fails.
    #[inline(always)]
    pub(super) fn use_slot(&mut self, layout: Layout) -> u32 {
        let offset = self.offset(layout, self.page, self.slot);
        self.slot += 1;
        offset
    }

    /// A mark was written and read back.
    #[inline(always)]
    pub(super) fn written<E>(&mut self, mark: u32, read: &Slot) -> Result<(), LeaseError<E>> {
        match *read {
            Slot::Mark(written) if written == mark => {}
            _ => return Err(LeaseError::Worn),
        }
        self.mark = mark;
        self.home = Some(self.page);
        Ok(())
    }

    #[inline(always)]
    pub(super) fn offset(&self, layout: Layout, page: u32, slot: u32) -> u32 {
        self.start + page * layout.page + slot * layout.slot as u32
    }
}

/// The search for the highest mark, over every slot of both pages in order.
pub(super) struct Search<E> {
    /// Slots behind the highest mark of their page that cannot be read.
    lost: u32,
    readable: bool,
    error: Option<E>,
    /// Slots of the current page up to the last used one.
    used: u32,
    /// Slots of the current page that cannot be read, behind its highest mark.
    lost_here: u32,
    /// The highest mark of the current page.
    highest: Option<u32>,
}

impl<E> Search<E> {
    #[inline(always)]
    pub(super) fn new() -> Self {
        Self { lost: 0, readable: false, error: None, used: 0, lost_here: 0, highest: None }
    }

    /// Takes what was read of a slot.
    #[inline(always)]
    pub(super) fn take(&mut self, slot: u32, read: Result<Slot, E>) {
        match read {
            Ok(Slot::Free) => {
                self.readable = true;
                return;
            }
            Ok(Slot::Torn) => self.readable = true,
            Ok(Slot::Mark(mark)) => {
                self.readable = true;
                if self.highest < Some(mark) {
                    (self.highest, self.lost_here) = (Some(mark), 0);
                }
            }
            Err(fault) => {
                self.error = Some(fault);
                self.lost_here += 1;
            }
        }
        self.used = slot + 1;
    }

    #[inline(always)]
    pub(super) fn end_page(&mut self, page: u32, marks: &mut Marks) {
        self.lost += self.lost_here;
        if let Some(mark) = self.highest
            && (marks.home.is_none() || mark > marks.mark)
        {
            (marks.mark, marks.home, marks.page, marks.slot) = (mark, Some(page), page, self.used);
        }
        (self.used, self.lost_here, self.highest) = (0, 0, None);
    }

    #[inline(always)]
    pub(super) fn end(self, marks: &mut Marks) -> Result<(), LeaseError<E>> {
        if let (Some(fault), false) = (self.error, self.readable) {
            return Err(LeaseError::Flash(fault));
        }
        // Not a product, which would link a 64-bit multiplication on a Cortex-M0.
        for _ in 0..self.lost {
            marks.mark = marks.mark.saturating_add(marks.block);
        }
        marks.next = marks.mark;
        Ok(())
    }
}
