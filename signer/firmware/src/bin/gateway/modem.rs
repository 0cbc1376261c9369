//! A modem in transparent mode at the UART: it forwards every byte to the proxy and back.
//!
//! Like real modems, it does not report the state of its connection: only a timeout shows that no more bytes come.

use core::fmt;

use cmiot_signer_firmware::clock::milliseconds;
use cmiot_signer_firmware::uart::Uart;
use embedded_io::{Error, ErrorKind, ErrorType, Read, Write};

pub(crate) struct Modem {
    uart: Uart,
    /// Milliseconds to wait for a byte.
    timeout: u32,
    /// A byte came since the last request.
    heard: bool,
}

/// No byte came within the timeout.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Timeout;

impl Modem {
    pub(crate) fn new(timeout: u32) -> Self {
        Self { uart: Uart::new(), timeout, heard: false }
    }

    /// Whether a byte came since the last request.
    pub(crate) fn heard(&self) -> bool {
        self.heard
    }

    /// Discards what comes until the line was silent for `silence` milliseconds, for four times as long at most; returns
    /// whether anything came.
    pub(crate) fn discard(&mut self, silence: u32) -> bool {
        let start = milliseconds();
        let mut last = start;
        let mut any = false;
        while milliseconds().wrapping_sub(last) <= silence
            && milliseconds().wrapping_sub(start) / 4 <= silence
        {
            if self.uart.receive().is_some() {
                last = milliseconds();
                any = true;
            } else {
                sleep();
            }
        }
        any
    }
}

/// Waits for an interrupt, until the next millisecond at the latest: an emulator whose processor polls without a pause may
/// never count one, and a real one saves power. With a short receiver FIFO, the UART's interrupt must be on.
fn sleep() {
    cortex_m::asm::wfi();
}

impl ErrorType for Modem {
    type Error = Timeout;
}

impl Error for Timeout {
    fn kind(&self) -> ErrorKind {
        ErrorKind::TimedOut
    }
}

impl fmt::Display for Timeout {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("no byte came within the timeout")
    }
}

impl core::error::Error for Timeout {}

impl Read for Modem {
    fn read(&mut self, bytes: &mut [u8]) -> Result<usize, Timeout> {
        let since = milliseconds();
        let first = loop {
            if let Some(byte) = self.uart.receive() {
                break byte;
            }
            if milliseconds().wrapping_sub(since) > self.timeout {
                return Err(Timeout);
            }
            sleep();
        };
        self.heard = true;
        let mut len = 0;
        let mut next = Some(first);
        while let (Some(slot), Some(byte)) = (bytes.get_mut(len), next) {
            *slot = byte;
            len += 1;
            // Never take a byte for which there is no room.
            next = if len < bytes.len() { self.uart.receive() } else { None };
        }
        Ok(len)
    }
}

impl Write for Modem {
    fn write(&mut self, bytes: &[u8]) -> Result<usize, Timeout> {
        self.heard = false;
        bytes.iter().for_each(|&byte| self.uart.send(byte));
        Ok(bytes.len())
    }

    fn flush(&mut self) -> Result<(), Timeout> {
        Ok(())
    }
}
