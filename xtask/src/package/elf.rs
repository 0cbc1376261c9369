//! The processor that an executable is for, and the version of glibc that it needs, from its ELF header and strings.

use anyhow::{Context, Result, bail, ensure};

/// A processor that releases are built for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Arch {
    X86_64,
    Aarch64,
}

/// An executable's requirements.
pub(super) struct Executable {
    pub(super) arch: Arch,
    /// The lowest version of glibc, such as (2, 34); none if the executable is static.
    pub(super) glibc: Option<(u32, u32)>,
}

impl Arch {
    pub(super) fn triple(self) -> &'static str {
        match self {
            Self::X86_64 => "x86_64-unknown-linux-musl",
            Self::Aarch64 => "aarch64-unknown-linux-musl",
        }
    }

    pub(super) fn debian(self) -> &'static str {
        match self {
            Self::X86_64 => "amd64",
            Self::Aarch64 => "arm64",
        }
    }

    pub(super) fn rpm(self) -> &'static str {
        match self {
            Self::X86_64 => "x86_64",
            Self::Aarch64 => "aarch64",
        }
    }

    /// As container images name it.
    pub(super) fn container(self) -> &'static str {
        self.debian()
    }
}

impl Executable {
    /// Reads the header of a 64-bit little-endian ELF file.
    ///
    /// # Errors
    /// When it is no such file, or for a processor that no release is built for.
    pub(super) fn read(name: &str, bytes: &[u8]) -> Result<Self> {
        ensure!(bytes.starts_with(b"\x7fELF\x02\x01"), "{name} is no executable of a 64-bit Linux");
        let arch = match bytes.get(18..20).context("an ELF header")? {
            [0x3e, 0] => Arch::X86_64,
            [0xb7, 0] => Arch::Aarch64,
            other => bail!("{name} is for a processor that no release is built for (e_machine {other:?})"),
        };
        Ok(Self { arch, glibc: glibc(bytes) })
    }
}

/// The highest version among the names of glibc's symbol versions; a static executable of musl has none.
fn glibc(bytes: &[u8]) -> Option<(u32, u32)> {
    const PREFIX: &[u8] = b"\0GLIBC_";
    let mut highest = None;
    let mut rest = bytes;
    while let Some(at) = rest.windows(PREFIX.len()).position(|window| window == PREFIX) {
        rest = &rest[at + PREFIX.len()..];
        let text = rest.split(|byte| *byte == 0).next().unwrap_or_default();
        let version = std::str::from_utf8(text).ok().and_then(|text| {
            let mut numbers = text.split('.').map(str::parse);
            Some((numbers.next()?.ok()?, numbers.next()?.ok()?))
        });
        highest = highest.max(version);
    }
    highest
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_highest_version_of_glibc_counts() {
        assert_eq!(glibc(b"x\0GLIBC_2.2.5\0GLIBC_2.34\0GLIBC_2.9\0GLIBC_PRIVATE\0"), Some((2, 34)));
        assert_eq!(glibc(b"musl"), None);
    }

    #[test]
    fn a_script_is_no_executable() {
        assert!(Executable::read("x", b"#!/bin/sh\n").is_err());
    }
}
