//! PROXY protocol version 2: the client for which a layer-4 balancer connects (haproxy.org, proxy-protocol.txt, 2.2).
//!
//! ```text
//! 12 bytes  signature
//!  1 byte   version 2 in the upper half; command in the lower: 0 LOCAL (the balancer itself), 1 PROXY
//!  1 byte   address family in the upper half: 1 IPv4, 2 IPv6; transport in the lower
//!  2 bytes  length of the rest, big-endian
//!           source address, destination address, source port, destination port; then extensions, which are skipped
//! ```
//! Version 1, which is text, is not supported: both ends of a trusted link can use version 2.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use tokio::io::{AsyncRead, AsyncReadExt};

const SIGNATURE: &[u8; 12] = b"\r\n\r\n\0\r\nQUIT\n";

/// Two IPv6 addresses and extensions: no balancer sends more.
const MAX_LENGTH: usize = 1_024;

/// Reads the header. Returns the client's address, or `None` for a connection of the balancer itself.
pub(super) async fn read(stream: &mut (impl AsyncRead + Unpin)) -> io::Result<Option<IpAddr>> {
    let mut fixed = [0; 16];
    stream.read_exact(&mut fixed).await?;
    let (signature, [version_command, family, high, low]) = split(&fixed);
    if signature != SIGNATURE || version_command >> 4 != 2 {
        return Err(io::Error::new(io::ErrorKind::InvalidData, "no PROXY protocol version 2 header"));
    }
    let length = usize::from(u16::from_be_bytes([high, low]));
    if length > MAX_LENGTH {
        return Err(io::Error::new(io::ErrorKind::InvalidData, "a PROXY protocol header of over 1 KiB"));
    }
    let mut addresses = [0; MAX_LENGTH];
    let addresses = &mut addresses[..length];
    stream.read_exact(addresses).await?;
    match version_command & 0xF {
        0 => Ok(None),
        1 => source(family >> 4, addresses).map(Some),
        _ => Err(io::Error::new(io::ErrorKind::InvalidData, "an unknown PROXY protocol command")),
    }
}

fn split(fixed: &[u8; 16]) -> (&[u8], [u8; 4]) {
    let (signature, rest) = fixed.split_at(SIGNATURE.len());
    (signature, rest.try_into().expect("16 bytes less 12 are 4"))
}

fn source(family: u8, addresses: &[u8]) -> io::Result<IpAddr> {
    // Both addresses and both ports must be present, though only the source address is used.
    let address = match (family, addresses.len()) {
        (1, 12..) => addresses.first_chunk().map(|octets: &[u8; 4]| Ipv4Addr::from(*octets).into()),
        (2, 36..) => addresses.first_chunk().map(|octets: &[u8; 16]| Ipv6Addr::from(*octets).to_canonical()),
        _ => None,
    };
    address
        .ok_or_else(|| io::Error::new(io::ErrorKind::InvalidData, "no IP address in a PROXY protocol header"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn header(version_command: u8, family: u8, addresses: &[u8]) -> Vec<u8> {
        let length = u16::try_from(addresses.len()).unwrap().to_be_bytes();
        [SIGNATURE, [version_command, family].as_slice(), &length, addresses].concat()
    }

    fn read_all(bytes: &[u8]) -> io::Result<Option<IpAddr>> {
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        runtime.block_on(read(&mut &bytes[..]))
    }

    #[test]
    fn the_source_is_read_and_extensions_are_skipped() {
        let v4 = [10, 1, 2, 3, 192, 0, 2, 1, 0x30, 0x39, 0, 80];
        assert_eq!(read_all(&header(0x21, 0x11, &v4)).unwrap(), Some(IpAddr::from([10, 1, 2, 3])));
        let extended = [v4.as_slice(), &[4, 0, 1, 0]].concat();
        assert_eq!(read_all(&header(0x21, 0x11, &extended)).unwrap(), Some(IpAddr::from([10, 1, 2, 3])));
        let mut v6 = [0; 36];
        v6[15] = 1;
        assert_eq!(read_all(&header(0x21, 0x21, &v6)).unwrap(), Some(IpAddr::from(Ipv6Addr::LOCALHOST)));
        assert_eq!(read_all(&header(0x20, 0x00, &[])).unwrap(), None);
    }

    #[test]
    fn anything_else_is_refused() {
        for wrong in [
            b"GET / HTTP/1.1\r\nHost: x\r\n\r\n".to_vec(),
            b"PROXY TCP4 10.1.2.3 192.0.2.1 12345 80\r\n".to_vec(),
            header(0x11, 0x11, &[0; 12]),
            header(0x22, 0x11, &[0; 12]),
            header(0x21, 0x11, &[0; 11]),
            header(0x21, 0x31, &[0; 216]),
            header(0x21, 0x21, &[0; 35]),
            header(0x21, 0x11, &[0; 2_000]),
            header(0x21, 0x11, &[0; 12])[..20].to_vec(),
        ] {
            assert!(read_all(&wrong).is_err(), "{wrong:?}");
        }
    }

    proptest! {
        #[test]
        fn no_header_panics(rest in proptest::collection::vec(any::<u8>(), 0..60)) {
            let _ = read_all(&[SIGNATURE.as_slice(), &rest].concat());
        }
    }
}
