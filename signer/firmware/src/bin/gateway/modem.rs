//! A modem in transparent mode behind the UART: what goes in comes out at the proxy, and the other way round.
//!
//! It says nothing about its connection, as such modems do: that nothing more comes is known by waiting.

use core::fmt;

use cmiot_signer_firmware::clock::milliseconds;
use cmiot_signer_firmware::uart::Uart;
use embedded_io::{Error, ErrorKind, ErrorType, Read, Write};

pub(crate) struct Modem {
    uart: Uart,
    /// Milliseconds to wait for a byte.
    patience: u32,
}

/// Nothing came for as long as one waits.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Silence;

impl Modem {
    pub(crate) fn new(patience: u32) -> Self {
        Self { uart: Uart::new(), patience }
    }

    /// Throws away what is left of an earlier answer.
    pub(crate) fn discard(&mut self) {
        while self.uart.receive().is_some() {}
    }
}

impl ErrorType for Modem {
    type Error = Silence;
}

impl Error for Silence {
    fn kind(&self) -> ErrorKind {
        ErrorKind::TimedOut
    }
}

impl fmt::Display for Silence {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("nothing came")
    }
}

impl core::error::Error for Silence {}

impl Read for Modem {
    fn read(&mut self, bytes: &mut [u8]) -> Result<usize, Silence> {
        let since = milliseconds();
        let first = loop {
            if let Some(byte) = self.uart.receive() {
                break byte;
            }
            if milliseconds().wrapping_sub(since) > self.patience {
                return Err(Silence);
            }
        };
        let mut len = 0;
        let mut next = Some(first);
        while let (Some(slot), Some(byte)) = (bytes.get_mut(len), next) {
            *slot = byte;
            len += 1;
            // Never take what there is no room for.
            next = if len < bytes.len() { self.uart.receive() } else { None };
        }
        Ok(len)
    }
}

impl Write for Modem {
    fn write(&mut self, bytes: &[u8]) -> Result<usize, Silence> {
        bytes.iter().for_each(|&byte| self.uart.send(byte));
        Ok(bytes.len())
    }

    fn flush(&mut self) -> Result<(), Silence> {
        Ok(())
    }
}
