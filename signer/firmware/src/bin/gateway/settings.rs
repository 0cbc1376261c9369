//! What the gateway is told when QEMU starts it: `NAME=VALUE` words. A firmware would have them in its flash.
//!
//! | word | value |
//! | --- | --- |
//! | `appid`, `ebid`, `password` | what it signs with |
//! | `host` | the proxy, as its `Host` header has it |
//! | `msisdn` | the card |
//! | `node` | its node, of two digits |
//! | `clock` | Unix seconds at start; without it the clock is unset |
//! | `look-ups` | how many; 1 if not said |
//! | `patience` | milliseconds to wait for more of an answer; 10,000 if not said |
//! | `reset` | `1`: reset after them, once, and do them again |

use cmiot_signer::{AppId, Card, CardKind, Ebid, Node, Password};
use cmiot_signer_firmware::clock::Clock;
use cmiot_signer_firmware::console;

pub(crate) struct Settings<'a> {
    pub(crate) appid: AppId,
    pub(crate) ebid: Ebid,
    pub(crate) password: Password,
    pub(crate) host: &'a str,
    pub(crate) card: Card,
    pub(crate) node: Node,
    /// Unix seconds at start, if known.
    clock: Option<u64>,
    pub(crate) look_ups: u32,
    /// Milliseconds.
    pub(crate) patience: u32,
    pub(crate) reset: bool,
}

impl<'a> Settings<'a> {
    /// Reads QEMU's arguments; `None` if one is missing or wrong.
    pub(crate) fn read(line: &'a mut [u8]) -> Option<Self> {
        let line = console::arguments(line);
        let value = |name: &str| {
            line.split(' ').find_map(|word| word.strip_prefix(name).and_then(|rest| rest.strip_prefix('=')))
        };
        let number =
            |name: &str, otherwise: u32| value(name).map_or(Some(otherwise), |text| text.parse().ok());
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
            look_ups: number("look-ups", 1)?,
            patience: number("patience", 10_000)?,
            reset: value("reset") == Some("1"),
        })
    }

    /// The clock as it stands at start.
    pub(crate) fn clock(&self) -> Clock {
        let mut clock = Clock::UNSET;
        if let Some(unix) = self.clock {
            clock.set(unix);
        }
        clock
    }
}
