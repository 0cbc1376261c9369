//! Signs SIM-card lookups for China Mobile's IoT platform (operation CMIOT_API2002 and similar ones) and reads the
//! replies. The crate is for firmware and servers: no `std`, no heap, no `unsafe`, no panic. It reads no clock, draws
//! no randomness and does no I/O; the caller supplies all three.
//!
//! ```
//! use cmiot_signer::{AppId, Card, CardKind, Ebid, Password, Reply, Sequence, Signer, Stamp, Status};
//!
//! // The credentials that the carrier issued.
//! let appid = AppId::parse("100001")?;
//! let ebid = Ebid::parse("2300000000000001")?;
//! let password = Password::new(b"example-password")?;
//!
//! // The card, the time (Unix seconds from your clock), and a number not yet used in that second.
//! let card = Card::parse(CardKind::Msisdn, "14765004176")?;
//! let stamp = Stamp::from_unix(1_413_444_630)?;
//! let sequence = Sequence::new(80_000_001)?;
//!
//! let request = Signer::new(&appid, &ebid, &password).sign(stamp, sequence, &card);
//! assert_eq!(request.transid().as_str(), "1000012014101615303080000001");
//! assert!(request.query().ends_with("&msisdn=14765004176"));
//!
//! // The carrier's reply.
//! let body = r#"{"status":"0","message":"正确","result":[{"STATUS":"00"}]}"#;
//! assert_eq!(Reply::parse(body.as_bytes())?.into_status(), Ok(Status::Normal));
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! # The layers of a signed request
//!
//! One file per layer, lowest first. Raw text becomes a checked type once, at the point of entry; every layer above
//! takes the checked type and cannot fail.
//!
//! ## `credentials`: [`AppId`], [`Ebid`], [`Password`]
//! The credentials that the carrier issues. The password is wiped on drop and never printed. Constant credentials of
//! a firmware are checked at compile time and stay in flash.
//!
//! ## `card`: [`Card`], [`Msisdn`], [`Iccid`], [`Imsi`]
//! Exactly one number that identifies a card. `Debug` masks it.
//!
//! ## `stamp`: [`Stamp`], [`DateLimits`]
//! Civil time at UTC+8 from Unix seconds, or from the `Date` of an HTTP response, which may set a clock within limits. An
//! unset clock is an error, not the year 1970.
//!
//! ## `sequence`: [`Sequence`], [`Node`], [`Counter`]
//! Eight digits that distinguish lookups of the same second: counted in RAM or leased from flash, within the
//! device's [`Node`].
//!
//! ## `transid`: [`Transid`]
//! The concatenation of appid, stamp and sequence, and its parser. The parser is strict, because the token alone does
//! not protect the end of a transid (length extension).
//!
//! ## `token`: [`Token`]
//! SHA-256 over appid, password and transid. Verified in constant time.
//!
//! ## `sha256`: [`CompressionFunction`]
//! The hash, and its compression function: sha2's, [`SmallCompression`], or the chip's hardware.
//!
//! ## `request`: [`Signer`], [`SignedRequest`]
//! The signed lookup as a query, a request target or a URL, written to any [`core::fmt::Write`], a `heapless::String`
//! or bytes.
//!
//! ## `reply`: [`Reply`], [`Status`]
//! The carrier's JSON. `reply/json.rs` reads it with serde-json-core, `reply/scan.rs` without; both use the strict,
//! recursion-free parser in `reply/walk.rs`.
//!
//! ## `http`
//! Feature `http`: the lookup as HTTP/1.1 over any byte stream.
//!
//! ## `v5`
//! Feature `v5`: the carrier's newer API, whose calls are authorized by a token instead of signed.
//!
//! ## `error`
//! Small `Copy` enums without payload, so that an error cannot leak a secret. Each text says what to do. [`Error`] is
//! all of them, for a firmware with one result type.
//!
//! # Features
//! A feature adds functions and changes no result of the others.
//!
//! | feature | adds |
//! | --- | --- |
//! | `serde` (default) | `Reply::parse` |
//! | `scan` | `Reply::scan`: the same replies and errors in less flash |
//! | `small` | on a chip, [`SmallCompression`] in place of sha2: less flash, stack and time; no effect on a host |
//! | `flash` | `Leased`, `LeasedAsync`: sequences that survive a reset, over the `NorFlash` of embedded-storage(-async) |
//! | `defmt` | `defmt::Format` for the errors and the status, for logs over defmt |
//! | `http` | `http`: whole requests and responses over embedded-io, blocking and async |
//! | `v5` | `v5`: requests and replies of API v5, with `scan` |
//!
//! # Panics
//! No function panics on any input. Property tests check this, and an optimised build of the signing half and of
//! `Reply::scan` links without a panic handler. serde-json-core contains panics; the strict parser in front of it
//! keeps them unreachable.
//!
//! # Size
//! sha2 unrolls SHA-256 even at `opt-level = "z"`, which takes 9 KB of flash. A firmware that counts bytes enables
//! feature `small`.
#![no_std]
#![forbid(unsafe_code)]
#![warn(missing_docs)]

// The README's example is a test, too.
#[cfg(all(doctest, feature = "serde"))]
#[doc = include_str!("../README.md")]
struct Readme;

mod card;
mod credentials;
mod error;
#[cfg(feature = "http")]
pub mod http;
#[cfg(any(feature = "serde", feature = "scan"))]
mod reply;
mod request;
mod sequence;
mod sha256;
mod stamp;
mod text;
mod token;
mod transid;
#[cfg(feature = "v5")]
pub mod v5;

pub use card::{Card, CardKind, Iccid, Imsi, Masked, Msisdn};
pub use credentials::{AppId, Ebid, Password};
pub use error::{BufferTooSmall, CardError, CredentialError, Error, SequenceError, StampError, TransidError};
#[cfg(any(feature = "serde", feature = "scan"))]
pub use reply::{Code, Message, Refusal, Reply, ReplyError, Status, UnknownStatus};
pub use request::{PATH, QUERY_MAX, SignedRequest, Signer, TARGET_MAX};
pub use sequence::{Counter, Node, Sequence, SequenceSource};
#[cfg(feature = "flash")]
pub use sequence::{LeaseError, Leased, LeasedAsync};
pub use sha256::{CompressionFunction, DefaultCompression, SmallCompression};
pub use stamp::{DateError, DateLimits, Stamp};
pub use token::Token;
pub use transid::Transid;
