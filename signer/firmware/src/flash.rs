//! Storage that survives a reset: the board's flash as embedded-storage's `NorFlash`, or RAM in its place.
//!
//! | board | storage | erase unit |
//! | --- | --- | --- |
//! | microbit | the last 2 KiB of flash, through the nRF51's NVMC, which QEMU models: words, written after an erasure | 1 KiB |
//! | lm3s6965evb, mps2-an386, virt | the last KiB of RAM, which no startup code clears: QEMU ignores writes to their flash. It survives a reset, not a power cut | 512 B |

use core::convert::Infallible;

use embedded_storage::nor_flash::{ErrorType, NorFlash, ReadNorFlash};

use crate::register;

/// Two erase units.
pub struct FlashRegion(());

impl FlashRegion {
    /// The only region: a second value accesses the same memory.
    #[must_use]
    pub const fn new() -> Self {
        Self(())
    }
}

impl Default for FlashRegion {
    fn default() -> Self {
        Self::new()
    }
}

impl ErrorType for FlashRegion {
    /// Flash in QEMU never fails; the lease reads each write back.
    type Error = Infallible;
}

impl ReadNorFlash for FlashRegion {
    const READ_SIZE: usize = 4;

    fn read(&mut self, offset: u32, bytes: &mut [u8]) -> Result<(), Infallible> {
        for (word, at) in bytes.chunks_exact_mut(4).zip((board::START + offset as usize..).step_by(4)) {
            word.copy_from_slice(&register::read(at).to_le_bytes());
        }
        Ok(())
    }

    fn capacity(&self) -> usize {
        2 * Self::ERASE_SIZE
    }
}

impl NorFlash for FlashRegion {
    const WRITE_SIZE: usize = 4;
    const ERASE_SIZE: usize = board::ERASE_SIZE;

    fn erase(&mut self, from: u32, to: u32) -> Result<(), Infallible> {
        for page in (from..to).step_by(Self::ERASE_SIZE) {
            board::erase(board::START + page as usize);
        }
        Ok(())
    }

    fn write(&mut self, offset: u32, bytes: &[u8]) -> Result<(), Infallible> {
        for (word, at) in bytes.chunks_exact(4).zip((board::START + offset as usize..).step_by(4)) {
            let mut value = [0; 4];
            value.copy_from_slice(word);
            board::write(at, u32::from_le_bytes(value));
        }
        Ok(())
    }
}

/// nRF51 NVMC (Series Reference Manual, chapter 6).
#[cfg(machine = "microbit")]
mod board {
    use crate::register;

    pub(super) const START: usize = 254 * 1024;
    pub(super) const ERASE_SIZE: usize = 1024;
    const BASE: usize = 0x4001_E000;
    const READY: usize = BASE + 0x400;
    const CONFIG: usize = BASE + 0x504;
    const ERASE_PAGE: usize = BASE + 0x508;

    pub(super) fn erase(page: usize) {
        within(2, || register::write(ERASE_PAGE, page as u32));
    }

    pub(super) fn write(at: usize, value: u32) {
        within(1, || register::write(at, value));
    }

    /// Runs `change` with the controller in the mode to write (1) or to erase (2).
    fn within(mode: u32, change: impl FnOnce()) {
        register::write(CONFIG, mode);
        change();
        while register::read(READY) & 1 == 0 {}
        register::write(CONFIG, 0);
    }
}

#[cfg(not(machine = "microbit"))]
mod board {
    use crate::register;

    pub(super) const START: usize = if cfg!(machine = "lm3s6965evb") {
        0x2000_0000 + 63 * 1024
    } else if cfg!(machine = "mps2-an386") {
        0x2000_0000 + 4095 * 1024
    } else {
        0x8004_0000 + 63 * 1024
    };
    pub(super) const ERASE_SIZE: usize = 512;

    pub(super) fn erase(page: usize) {
        for at in (page..page + ERASE_SIZE).step_by(4) {
            register::write(at, u32::MAX);
        }
    }

    /// Like flash: a bit that was not erased stays zero.
    pub(super) fn write(at: usize, value: u32) {
        register::write(at, register::read(at) & value);
    }
}
