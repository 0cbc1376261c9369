//! Sequences that survive a reset: leased from the caller's flash through three functions.
//!
//! `signer/src/sequence/lease.rs` describes the format, and why a power cut repeats no number. A board's geometry is
//! known at run time only, but [`NorFlash`] has constants; so each of the two pages is 64 slots here, of 8 bytes or of
//! one write unit, whichever is more, and the rest of a page is unused.

use core::ffi::c_void;
use core::mem::MaybeUninit;

use cmiot_signer::{LeaseError, Leased, Node, SequenceSource};
use embedded_storage::nor_flash::{ErrorType, NorFlash, NorFlashError, NorFlashErrorKind, ReadNorFlash};

use crate::code::{
    CMIOT_E_FLASH, CMIOT_E_FLASH_LAYOUT, CMIOT_E_FLASH_WORN, CMIOT_E_NULL, CMIOT_E_SEQUENCE,
    CMIOT_E_SEQUENCE_SPENT, CMIOT_E_UNFILLED, CMIOT_OK, result,
};

/// The caller's flash: two pages that are used for nothing else, and three functions, which return 0 on success.
///
/// Offsets count from the first page, which begins at 0; the second begins at `page_size`.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct CmiotFlash {
    /// Passed to the functions unchanged.
    pub context: *mut c_void,
    /// Reads `len` bytes: always 8. Bytes that cannot be read, as after a power cut in a flash with error correction, are
    /// a failure; they count as used.
    pub read:
        Option<unsafe extern "C" fn(context: *mut c_void, offset: u32, bytes: *mut u8, len: usize) -> i32>,
    /// Writes `len` bytes: 8, or `write_size` if that is more, at a multiple of `len`.
    pub write:
        Option<unsafe extern "C" fn(context: *mut c_void, offset: u32, bytes: *const u8, len: usize) -> i32>,
    /// Erases a page, to 0xFF, 0x00 or another value: the one at 0 or the one at `page_size`.
    pub erase: Option<unsafe extern "C" fn(context: *mut c_void, offset: u32) -> i32>,
    /// Bytes per page: one or more erase units, and at least 512 or 64 times `write_size`, whichever is more.
    pub page_size: u32,
    /// Bytes per write unit: a power of two from 1 to 512.
    pub write_size: u32,
}

/// A counter in flash. Its fields are private to the library.
#[repr(C)]
pub struct CmiotLease {
    #[doc(hidden)]
    pub words: [usize; 22],
}

/// Content of the words.
struct Stored {
    /// [`MOUNTED`]; with any other value the rest is not initialised.
    mark: u32,
    leased: MaybeUninit<Leased<Pages>>,
}

/// A value that uninitialised memory is unlikely to contain.
const MOUNTED: u32 = 0xC310_1EA5;

const _: () = assert!(size_of::<Stored>() <= size_of::<CmiotLease>());
const _: () = assert!(align_of::<Stored>() <= align_of::<CmiotLease>());

/// Finds the highest number that was ever leased in the flash, and prepares to continue from it. Nothing is written
/// yet. Pages that were never used may contain anything. The page with the highest number is never erased.
///
/// The numbers are those of the device's node, as in cmiot_sequence_next, and `block` of them are leased per write: a
/// power cut or a reset loses the rest of a block, and repeats none. A page is erased once per 128 blocks, so that the
/// two last for 128 x endurance x `block` numbers. `flash` is copied; its functions must stay valid.
///
/// Returns CMIOT_OK, or CMIOT_E_NULL, CMIOT_E_SEQUENCE for the node, CMIOT_E_FLASH, CMIOT_E_FLASH_LAYOUT; then the lease
/// cannot be used.
///
/// # Safety
/// Pointers and functions are NULL or as described.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn cmiot_lease_mount(
    lease: *mut CmiotLease,
    flash: *const CmiotFlash,
    node_digits: u32,
    node: u32,
    block: u32,
) -> i32 {
    // SAFETY: the C caller's promise; large and aligned enough, as asserted above.
    let (stored, flash) = unsafe { (lease.cast::<Stored>().as_mut(), flash.as_ref()) };
    result((|| {
        let stored = stored.ok_or(CMIOT_E_NULL)?;
        stored.mark = 0;
        let pages = Pages::of(flash.ok_or(CMIOT_E_NULL)?)?;
        let node = Node::new(node_digits, node).map_err(|_| CMIOT_E_SEQUENCE)?;
        Leased::mount_into(&mut stored.leased, pages, 0, node, block).map_err(code)?;
        stored.mark = MOUNTED;
        Ok(CMIOT_OK)
    })())
}

/// The next number, for one lookup. It writes to the flash once per `block` numbers, before it returns the first.
///
/// Returns the number, or CMIOT_E_NULL, CMIOT_E_UNFILLED, CMIOT_E_FLASH, CMIOT_E_FLASH_WORN, CMIOT_E_SEQUENCE_SPENT.
///
/// # Safety
/// `lease` is NULL or as described.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn cmiot_lease_next(lease: *mut CmiotLease) -> i32 {
    // SAFETY: the C caller's promise; the mark is valid for every bit pattern.
    let stored = unsafe { lease.cast::<Stored>().as_mut() };
    result((|| {
        let stored = stored.ok_or(CMIOT_E_NULL)?;
        if stored.mark != MOUNTED {
            return Err(CMIOT_E_UNFILLED);
        }
        // SAFETY: the mark is written after the counter.
        let leased = unsafe { stored.leased.assume_init_mut() };
        // Eight digits fit.
        leased.next_sequence().map(|sequence| sequence.get() as i32).map_err(code)
    })())
}

/// The caller's two pages, as 64 slots of 8 bytes each.
struct Pages(CmiotFlash);

/// A function of the caller returned a value other than 0.
#[derive(Clone, Copy, Debug)]
struct Failed;

impl Pages {
    const SLOT: u32 = 8;
    const SLOTS: u32 = 64;
    const SMALL_WRITE: usize = 32;
    const LARGEST_WRITE: usize = 512;

    /// Checks the geometry.
    fn of(flash: &CmiotFlash) -> Result<Self, i32> {
        if flash.read.is_none() || flash.write.is_none() || flash.erase.is_none() {
            return Err(CMIOT_E_NULL);
        }
        let fits = flash.write_size.is_power_of_two()
            && flash.write_size <= Self::LARGEST_WRITE as u32
            && flash.page_size >= Self::SLOTS * flash.write_size.max(Self::SLOT)
            && flash.page_size <= u32::MAX / 2;
        if fits { Ok(Self(*flash)) } else { Err(CMIOT_E_FLASH_LAYOUT) }
    }

    /// Writes a slot through a buffer of `BUFFER` bytes.
    // Not inlined, so that only large write units take the stack of a large buffer.
    #[inline(never)]
    fn write_unit<const BUFFER: usize>(&self, offset: u32, bytes: &[u8]) -> Result<(), Failed> {
        let write = self.0.write.ok_or(Failed)?;
        let mut unit = [0xFF; BUFFER];
        crate::memory::copy(&mut unit, bytes);
        // SAFETY: the C caller's promise about its function; a slot is no longer than the array.
        check(unsafe { write(self.0.context, self.address(offset), unit.as_ptr(), self.stride() as usize) })
    }

    /// Bytes per slot in the caller's flash.
    fn stride(&self) -> u32 {
        self.0.write_size.max(Self::SLOT)
    }

    /// The address of a slot in the caller's flash. Only whole slots are accessed.
    fn address(&self, offset: u32) -> u32 {
        let slot = offset / Self::SLOT;
        (slot / Self::SLOTS) * self.0.page_size + (slot % Self::SLOTS) * self.stride()
    }
}

impl ErrorType for Pages {
    type Error = Failed;
}

impl NorFlashError for Failed {
    fn kind(&self) -> NorFlashErrorKind {
        NorFlashErrorKind::Other
    }
}

impl ReadNorFlash for Pages {
    const READ_SIZE: usize = Self::SLOT as usize;

    fn read(&mut self, offset: u32, bytes: &mut [u8]) -> Result<(), Failed> {
        let read = self.0.read.ok_or(Failed)?;
        // SAFETY: the C caller's promise about its function, and the slice has this length.
        check(unsafe { read(self.0.context, self.address(offset), bytes.as_mut_ptr(), bytes.len()) })
    }

    fn capacity(&self) -> usize {
        2 * Self::ERASE_SIZE
    }
}

impl NorFlash for Pages {
    const WRITE_SIZE: usize = Self::SLOT as usize;
    const ERASE_SIZE: usize = (Self::SLOTS * Self::SLOT) as usize;

    fn erase(&mut self, from: u32, _: u32) -> Result<(), Failed> {
        let erase = self.0.erase.ok_or(Failed)?;
        // SAFETY: the C caller's promise about its function.
        check(unsafe { erase(self.0.context, self.address(from)) })
    }

    fn write(&mut self, offset: u32, bytes: &[u8]) -> Result<(), Failed> {
        if self.stride() as usize <= Self::SMALL_WRITE {
            self.write_unit::<{ Self::SMALL_WRITE }>(offset, bytes)
        } else {
            self.write_unit::<{ Self::LARGEST_WRITE }>(offset, bytes)
        }
    }
}

fn check(result: i32) -> Result<(), Failed> {
    if result == 0 { Ok(()) } else { Err(Failed) }
}

fn code(error: LeaseError<Failed>) -> i32 {
    match error {
        LeaseError::Flash(Failed) => CMIOT_E_FLASH,
        LeaseError::Layout => CMIOT_E_FLASH_LAYOUT,
        LeaseError::Worn => CMIOT_E_FLASH_WORN,
        LeaseError::Exhausted => CMIOT_E_SEQUENCE_SPENT,
    }
}
