//! The lease over an async driver. Its functions differ from the blocking ones only in `await`, and in the buffer: a future
//! holds one for every size that it may use, so its size is a parameter here.

use embedded_storage_async::nor_flash::NorFlash;

use super::marks::{Layout, Marks, Search, Slot};
use super::{LeaseError, Node, SMALL_UNIT, Sequence};

/// [`Leased`](super::Leased) over an async driver, as of Embassy. The format in flash is the same.
///
/// `UNIT` is the largest read or write unit of the driver that compiles, in bytes, and the buffer that a future holds:
/// at least 8; 32 without a choice. A future that is dropped before it has returned costs a slot at most, and no number
/// comes twice.
#[derive(Debug)]
pub struct LeasedAsync<F, const UNIT: usize = SMALL_UNIT> {
    flash: F,
    marks: Marks,
}

impl<F: NorFlash, const UNIT: usize> LeasedAsync<F, UNIT> {
    const LAYOUT: Layout = Layout::new(F::READ_SIZE, F::WRITE_SIZE, F::ERASE_SIZE, UNIT);

    /// As [`Leased::mount`](super::Leased::mount).
    ///
    /// # Errors
    /// When nothing can be read or the pages are outside the flash.
    pub async fn mount(flash: F, start: u32, node: Node, block: u32) -> Result<Self, LeaseError<F::Error>> {
        let marks = Marks::new(Self::LAYOUT, flash.capacity(), start, node, block)?;
        let mut this = Self { flash, marks };
        let mut search = Search::new();
        for page in 0..2 {
            for slot in 0..Self::LAYOUT.slots {
                let read = this.read(this.marks.offset(Self::LAYOUT, page, slot)).await;
                search.take(slot, read);
            }
            search.end_page(page, &mut this.marks);
        }
        search.end(&mut this.marks)?;
        Ok(this)
    }

    /// Returns the flash.
    pub fn unmount(self) -> F {
        self.flash
    }

    /// The next number, for one transid. Writes to the flash once per block, before it returns the block's first number.
    ///
    /// # Errors
    /// When the flash fails; then no number was used.
    pub async fn next_sequence(&mut self) -> Result<Sequence, LeaseError<F::Error>> {
        if self.marks.are_used_up() {
            self.lease().await?;
        }
        Ok(self.marks.next())
    }

    /// Writes the mark of the next block.
    async fn lease(&mut self) -> Result<(), LeaseError<F::Error>> {
        let mark = self.marks.upcoming()?;
        if let Some(page) = self.marks.page_to_erase(Self::LAYOUT) {
            let from = self.marks.offset(Self::LAYOUT, page, 0);
            self.flash.erase(from, from + Self::LAYOUT.page).await.map_err(LeaseError::Flash)?;
            self.marks.erased(page);
        }
        let offset = self.marks.use_slot(Self::LAYOUT);
        let bytes = Slot::encode::<UNIT>(mark);
        let slot = bytes.get(..Self::LAYOUT.slot).unwrap_or_default();
        self.flash.write(offset, slot).await.map_err(LeaseError::Flash)?;
        let read = self.read(offset).await.map_err(LeaseError::Flash)?;
        self.marks.written(mark, &read)
    }

    async fn read(&mut self, offset: u32) -> Result<Slot, F::Error> {
        let mut bytes = [0; UNIT];
        let read = bytes.get_mut(..Self::LAYOUT.read).unwrap_or_default();
        self.flash.read(offset, read).await?;
        Ok(Slot::decode(read))
    }
}
