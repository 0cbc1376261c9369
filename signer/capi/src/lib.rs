//! The signer for C: caller-owned memory, integer results, no global state.
//!
//! The head of `include/cmiot_signer.h`, which is generated from these files and committed, states the contract with C;
//! each function adds its own part. On the Rust side, every pointer is checked for NULL and otherwise trusted. The
//! content of an opaque struct is valid for every bit pattern or guarded by a mark, so that a missing initialisation
//! causes an error code or a wrong result; only an invalid *pointer* is undefined behaviour, as always in C.
//!
//! | file | its one job |
//! | --- | --- |
//! | `code` | the result codes |
//! | `account` | appid, ebid and password, checked once |
//! | `sign` | a lookup as a query; numbers of a node |
//! | `lease` | sequences that survive a reset, in the caller's flash |
//! | `reply` | reading the carrier's reply |
//! | `http` | a lookup over a modem or socket: the request as a whole, the response in pieces |
//! | `date` | setting a clock from a `Date` header |
//! | `v5` | requests and replies of the carrier's API v5, with feature `v5` |
//! | `memory` | C pointers as slices: most of the `unsafe` code |
#![no_std]
// On a host, the static library takes panicking and unwinding from the standard library, which it otherwise does not use.
#[cfg(not(target_os = "none"))]
extern crate std;

mod account;
mod code;
mod date;
mod http;
mod lease;
mod memory;
mod reply;
mod sign;
#[cfg(feature = "v5")]
mod v5;

pub use account::{CmiotAccount, CmiotCompress, cmiot_account_compress, cmiot_account_init};
pub use code::*;
pub use date::{cmiot_date_check, cmiot_date_to_unix};
pub use http::{
    CmiotEndpoint, CmiotHttp, cmiot_http_begin, cmiot_http_body_len, cmiot_http_close, cmiot_http_date,
    cmiot_http_feed, cmiot_http_named, cmiot_http_request, cmiot_http_reusable, cmiot_http_status,
};
pub use lease::{CmiotFlash, CmiotLease, cmiot_lease_mount, cmiot_lease_next};
pub use memory::CmiotText;
pub use reply::{
    CMIOT_STATUS_UNKNOWN, CmiotReply, cmiot_reply_code, cmiot_reply_message, cmiot_reply_results,
    cmiot_reply_scan, cmiot_reply_status, cmiot_reply_status_text,
};
pub use sign::{
    CMIOT_ICCID, CMIOT_IMSI, CMIOT_MSISDN, CMIOT_QUERY_SIZE, CmiotCard, cmiot_sequence_next, cmiot_sign,
};
#[cfg(feature = "v5")]
pub use v5::{
    CMIOT_V5_BODY, CMIOT_V5_CT, CMIOT_V5_QUERY, CMIOT_V5_TOKEN_SIZE, cmiot_v5_field, cmiot_v5_query,
    cmiot_v5_status, cmiot_v5_status_as_v2, cmiot_v5_token, cmiot_v5_token_request,
};

/// This library's version: major x 65536 + minor x 256 + patch.
pub const CMIOT_SIGNER_VERSION: u32 = 0x00_01_00;

const _: () = {
    const fn number(digits: &str) -> u32 {
        let (mut number, mut at) = (0, 0);
        while at < digits.len() {
            number = number * 10 + (digits.as_bytes()[at] - b'0') as u32;
            at += 1;
        }
        number
    }
    let (major, minor) = (number(env!("CARGO_PKG_VERSION_MAJOR")), number(env!("CARGO_PKG_VERSION_MINOR")));
    let version = major << 16 | minor << 8 | number(env!("CARGO_PKG_VERSION_PATCH"));
    assert!(version == CMIOT_SIGNER_VERSION, "the constant follows the package's version");
};

/// The version of the library that is linked. It should be CMIOT_SIGNER_VERSION, the version of this header.
#[unsafe(no_mangle)]
pub extern "C" fn cmiot_version() -> u32 {
    CMIOT_SIGNER_VERSION
}

/// Loops until the watchdog resets the chip. Nothing here panics, and a firmware without panics does not link this.
#[cfg(all(target_os = "none", feature = "panic-handler"))]
#[panic_handler]
fn panic(_: &core::panic::PanicInfo<'_>) -> ! {
    loop {
        core::hint::spin_loop();
    }
}
