//! Registers and other words at fixed addresses.

/// Reads a word.
///
/// `address` is a register of the board, or a word of memory that the linker script leaves alone.
pub(crate) fn read(address: usize) -> u32 {
    // SAFETY: the addresses are this crate's own constants, aligned, and no Rust object has them.
    unsafe { (address as *const u32).read_volatile() }
}

/// Writes a word, as [`read`] reads one.
pub(crate) fn write(address: usize, value: u32) {
    // SAFETY: as in `read`; the effect of a register is the caller's intent.
    unsafe { (address as *mut u32).write_volatile(value) };
}
