//! Signs SIM-card look-ups for China Mobile's IoT platform (operation CMIOT_API2002 and its sisters), and reads
//! the answers. For firmware and servers alike: no `std`, no heap, no `unsafe`, no panic. The crate reads no
//! clock, draws no randomness and does no I/O; all of it is handed in.
//!
//! ```
//! use cmiot_signer::{AppId, Card, CardKind, Ebid, Password, Reply, Sequence, Signer, Stamp, Status};
//!
//! // What the carrier issued.
//! let appid = AppId::parse("100001")?;
//! let ebid = Ebid::parse("2300000000000001")?;
//! let password = Password::new(b"example-password")?;
//!
//! // Which card, when (Unix seconds from your clock), and a number not used in that second before.
//! let card = Card::parse(CardKind::Msisdn, "14765004176")?;
//! let stamp = Stamp::from_unix(1_413_444_630)?;
//! let sequence = Sequence::new(80_000_001)?;
//!
//! let request = Signer::new(&appid, &ebid, &password).sign(stamp, sequence, &card);
//! assert_eq!(request.transid().as_str(), "1000012014101615303080000001");
//! assert!(request.query().ends_with("&msisdn=14765004176"));
//!
//! // What comes back.
//! let body = r#"{"status":"0","message":"正确","result":[{"STATUS":"00"}]}"#;
//! assert_eq!(Reply::parse(body.as_bytes())?.into_status(), Ok(Status::Normal));
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! # The layers of a signed request
//!
//! One file each, lowest first. Raw text becomes a checked type once, where it comes in; everything above
//! takes the checked type and cannot fail.
//!
//! ## `credentials`: [`AppId`], [`Ebid`], [`Password`]
//! What the carrier issues. The password is wiped on drop and never printed. A firmware's constant credentials
//! are checked when it is compiled and stay in flash.
//!
//! ## `card`: [`Card`], [`Msisdn`], [`Iccid`], [`Imsi`]
//! Exactly one number that names a card. `Debug` masks it.
//!
//! ## `stamp`: [`Stamp`]
//! Civil time at UTC+8 from Unix seconds, or from an HTTP answer's `Date`. An unset clock is an error, not the
//! year 1970.
//!
//! ## `sequence`: [`Sequence`], [`Node`], [`Counter`]
//! Eight digits that keep look-ups of one second apart: counted in RAM or leased from flash, within a
//! device's [`Node`].
//!
//! ## `transid`: [`Transid`]
//! Appid, stamp and sequence in a row, and back. Reading is strict, because the token alone does not protect a
//! transid's end (length extension).
//!
//! ## `token`: [`Token`]
//! SHA-256 over appid, password and transid. Verified in constant time.
//!
//! ## `request`: [`Signer`], [`SignedRequest`]
//! All of it as a query, a request target or a URL, into any [`core::fmt::Write`], a `heapless::String` or
//! bytes.
//!
//! ## `reply`: [`Reply`], [`Status`]
//! The answer. `reply/json.rs` reads it with serde-json-core, `reply/scan.rs` without; `reply/walk.rs` is the
//! strict, recursion-free walk under both.
//!
//! ## `http`
//! Feature `http`: the look-up as HTTP/1.1 over whatever carries bytes.
//!
//! ## `error`
//! Small `Copy` enums without payload, so that no secret can leave in one. Each text says what to do.
//!
//! # Features
//! A feature adds functions and changes none.
//!
//! | feature | adds |
//! | --- | --- |
//! | `serde` (default) | `Reply::parse` |
//! | `scan` | `Reply::scan`: the same replies and errors in less flash |
//! | `flash` | `Leased`: sequences that survive a reset, over embedded-storage's `NorFlash` |
//! | `http` | `http`: whole requests and answers over embedded-io, blocking and async |
//!
//! # Panics
//! No function panics on any input. That is tested by properties here, and for an optimised build of the signing
//! half and of `Reply::scan` by linking without a panic handler; serde-json-core's code holds panics that the
//! guard keeps from being reached.
//!
//! # Size
//! sha2 unrolls SHA-256 even at `opt-level = "z"`. A firmware that counts bytes builds with
//! `--cfg sha2_backend="soft" --cfg sha2_backend_soft="compact"` in its own `rustflags`, for its own target
//! only: on a host it costs a factor of five. And with `[profile.release.package.sha2] opt-level = "s"`, since at
//! `z` sha2 copies each block with `memcpy`.
#![no_std]
#![forbid(unsafe_code)]

mod card;
mod credentials;
mod error;
#[cfg(feature = "http")]
pub mod http;
#[cfg(any(feature = "serde", feature = "scan"))]
mod reply;
mod request;
mod sequence;
mod stamp;
mod text;
mod token;
mod transid;

pub use card::{Card, CardKind, Iccid, Imsi, Masked, Msisdn};
pub use credentials::{AppId, Ebid, Password};
pub use error::{BufferTooSmall, CardError, CredentialError, SequenceError, StampError, TransidError};
#[cfg(any(feature = "serde", feature = "scan"))]
pub use reply::{Code, Message, Refusal, Reply, ReplyError, Status, UnknownStatus};
pub use request::{PATH, QUERY_MAX, SignedRequest, Signer, TARGET_MAX};
pub use sequence::{Counter, Node, Sequence, SequenceSource};
#[cfg(feature = "flash")]
pub use sequence::{LeaseError, Leased};
pub use stamp::Stamp;
pub use token::Token;
pub use transid::Transid;
