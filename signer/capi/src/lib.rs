//! The signer for C: caller-owned memory, integers for results, nothing kept in between.
//!
//! The contract with C stands at the head of `include/cmiot_signer.h`, which is generated from these files and
//! committed, and at each function. Rust's part of it: every pointer is checked for NULL and otherwise believed; what
//! an opaque struct holds is valid for any bit pattern, or behind a mark, so that a forgotten initialisation is an error
//! code or a wrong answer, and only a garbage *pointer* is what it is in C.
//!
//! | file | its one job |
//! | --- | --- |
//! | `code` | the result codes |
//! | `account` | appid, ebid and password, checked once |
//! | `sign` | a look-up as a query; numbers of a node |
//! | `lease` | numbers that survive a reset, in the caller's flash |
//! | `reply` | reading an answer |
//! | `http` | a look-up over a modem or socket: the request whole, the answer as it comes |
//! | `date` | setting a clock from a `Date` header |
//! | `memory` | C's pointers as slices: where the `unsafe` is |
#![no_std]
// A host's static library takes panicking and unwinding from the standard library, which it otherwise does not use.
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

pub use account::{CmiotAccount, cmiot_account_init};
pub use code::*;
pub use date::cmiot_date_to_unix;
pub use http::{
    CmiotHttp, cmiot_http_begin, cmiot_http_body_len, cmiot_http_close, cmiot_http_date, cmiot_http_feed,
    cmiot_http_request, cmiot_http_reusable, cmiot_http_status,
};
pub use lease::{CmiotFlash, CmiotLease, cmiot_lease_mount, cmiot_lease_next};
pub use reply::{
    CMIOT_STATUS_UNKNOWN, CmiotReply, cmiot_reply_code, cmiot_reply_message, cmiot_reply_results,
    cmiot_reply_scan, cmiot_reply_status, cmiot_reply_status_text,
};
pub use sign::{CMIOT_ICCID, CMIOT_IMSI, CMIOT_MSISDN, CMIOT_QUERY_SIZE, cmiot_sequence_next, cmiot_sign};

/// Stands still, for the watchdog to bite: nothing here panics, and a firmware in which nothing does never links this.
#[cfg(all(target_os = "none", feature = "panic-handler"))]
#[panic_handler]
fn panic(_: &core::panic::PanicInfo<'_>) -> ! {
    loop {
        core::hint::spin_loop();
    }
}
