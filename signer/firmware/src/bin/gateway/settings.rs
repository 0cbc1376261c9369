//! The gateway's settings, which QEMU passes as `NAME=VALUE` words. A real firmware has them in its flash.
//!
//! | word | value |
//! | --- | --- |
//! | `appid`, `ebid`, `password` | the credentials |
//! | `host` | the value of the `Host` header |
//! | `msisdn` | the card |
//! | `node` | its node, of two digits |
//! | `clock` | Unix seconds at start; without it the clock is unset |
//! | `built` | Unix seconds of the firmware's build, before which no `Date` sets the clock; default [`BUILT`] |
//! | `lookups` | the number of lookups; default 1; formerly `look-ups` |
//! | `timeout` | milliseconds to wait for the next byte; default 10,000; formerly `patience` |
//! | `reset` | `1`: reset after the lookups, once, and repeat them |

use cmiot_signer::{AppId, Card, CardKind, Ebid, Node, Password, Stamp};
use cmiot_signer_firmware::clock::Clock;
use cmiot_signer_firmware::console;

/// 2026-01-01. A real firmware takes the time of its build.
const BUILT: u32 = 1_767_225_600;

pub(crate) struct Settings<'a> {
    pub(crate) appid: AppId,
    pub(crate) ebid: Ebid,
    pub(crate) password: Password,
    pub(crate) host: &'a str,
    pub(crate) card: Card,
    pub(crate) node: Node,
    /// Unix seconds at start, if known.
    clock: Option<u64>,
    pub(crate) built: Stamp,
    pub(crate) lookups: u32,
    /// Milliseconds.
    pub(crate) timeout: u32,
    pub(crate) reset: bool,
}

impl<'a> Settings<'a> {
    /// Reads QEMU's arguments; `None` if one is missing or invalid.
    pub(crate) fn read(line: &'a mut [u8]) -> Option<Self> {
        let line = console::arguments(line);
        let value = |name: &str| {
            line.split(' ').find_map(|word| word.strip_prefix(name).and_then(|rest| rest.strip_prefix('=')))
        };
        let number = |name: &str, default: u32| value(name).map_or(Some(default), |text| text.parse().ok());
        Some(Self {
            appid: AppId::parse(value("appid")?).ok()?,
            ebid: Ebid::parse(value("ebid")?).ok()?,
            password: Password::new(value("password")?.as_bytes()).ok()?,
            host: value("host")?,
            card: Card::parse(CardKind::Msisdn, value("msisdn")?).ok()?,
            node: Node::new(2, number("node", 0)?).ok()?,
            clock: match value("clock") {
                Some(text) => Some(text.parse().ok()?),
                None => None,
            },
            built: Stamp::from_unix(number("built", BUILT)?.into()).ok()?,
            lookups: number("lookups", number("look-ups", 1)?)?,
            timeout: number("timeout", number("patience", 10_000)?)?,
            reset: value("reset") == Some("1"),
        })
    }

    /// The clock at start.
    pub(crate) fn clock(&self) -> Clock {
        let mut clock = Clock::UNSET;
        if let Some(unix) = self.clock {
            clock.set(unix);
        }
        clock
    }
}
