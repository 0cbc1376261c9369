//! The board's first UART, polled. The other side is a modem in transparent mode, here QEMU's `-serial`.
//!
//! Each board has a table of its registers; QEMU's models need neither baud rate nor pins. QEMU waits until the receiver
//! has room, so polling loses nothing.

/// The one UART.
pub struct Uart(());

impl Uart {
    /// Enables the only UART: a second value accesses the same one.
    #[must_use]
    pub fn new() -> Self {
        board::start();
        Self(())
    }

    /// Waits for room and sends a byte.
    pub fn send(&mut self, byte: u8) {
        board::send(byte);
    }

    /// A received byte, if there is one.
    pub fn receive(&mut self) -> Option<u8> {
        board::receive()
    }
}

impl Default for Uart {
    fn default() -> Self {
        Self::new()
    }
}

/// ARM PL011 (DDI 0183): LM3S6965's UART0.
#[cfg(machine = "lm3s6965evb")]
mod board {
    use crate::register::{read, write};

    const BASE: usize = 0x4000_C000;
    const DATA: usize = BASE;
    const FLAGS: usize = BASE + 0x18;
    const LINE_CONTROL: usize = BASE + 0x2C;
    const CONTROL: usize = BASE + 0x30;
    const RECEIVER_EMPTY: u32 = 1 << 4;
    const SENDER_FULL: u32 = 1 << 5;

    pub(super) fn start() {
        // FIFOs on; UART, sender and receiver on.
        write(LINE_CONTROL, 1 << 4);
        write(CONTROL, 1 | 1 << 8 | 1 << 9);
    }

    pub(super) fn send(byte: u8) {
        while read(FLAGS) & SENDER_FULL != 0 {}
        write(DATA, u32::from(byte));
    }

    pub(super) fn receive() -> Option<u8> {
        (read(FLAGS) & RECEIVER_EMPTY == 0).then(|| read(DATA) as u8)
    }
}

/// nRF51 UART (Series Reference Manual, chapter 29): micro:bit's UART0.
#[cfg(machine = "microbit")]
mod board {
    use crate::register::{read, write};

    const BASE: usize = 0x4000_2000;
    const START_RECEIVER: usize = BASE;
    const START_SENDER: usize = BASE + 0x008;
    const RECEIVED: usize = BASE + 0x108;
    const SENT: usize = BASE + 0x11C;
    const ENABLE: usize = BASE + 0x500;
    const RECEIVER: usize = BASE + 0x518;
    const SENDER: usize = BASE + 0x51C;

    pub(super) fn start() {
        write(ENABLE, 4);
        write(START_RECEIVER, 1);
        write(START_SENDER, 1);
    }

    pub(super) fn send(byte: u8) {
        write(SENT, 0);
        write(SENDER, u32::from(byte));
        while read(SENT) == 0 {}
    }

    pub(super) fn receive() -> Option<u8> {
        if read(RECEIVED) == 0 {
            return None;
        }
        // In this order: reading takes the next byte out of the FIFO, which raises the event again.
        write(RECEIVED, 0);
        Some(read(RECEIVER) as u8)
    }
}

/// CMSDK APB UART (DDI 0479): MPS2's UART0.
#[cfg(machine = "mps2-an386")]
mod board {
    use crate::register::{read, write};

    const BASE: usize = 0x4000_4000;
    const DATA: usize = BASE;
    const STATE: usize = BASE + 0x04;
    const CONTROL: usize = BASE + 0x08;
    const DIVIDER: usize = BASE + 0x10;
    const SENDER_FULL: u32 = 1;
    const RECEIVER_FULL: u32 = 1 << 1;

    pub(super) fn start() {
        write(DIVIDER, 16);
        write(CONTROL, 0b11);
    }

    pub(super) fn send(byte: u8) {
        while read(STATE) & SENDER_FULL != 0 {}
        write(DATA, u32::from(byte));
    }

    pub(super) fn receive() -> Option<u8> {
        (read(STATE) & RECEIVER_FULL != 0).then(|| read(DATA) as u8)
    }
}
