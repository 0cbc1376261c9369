//! Result codes: 0 is success, negative is a failure. -1 to -9 are about the call itself; ten follow per kind of input.

use cmiot_signer::{CredentialError, ReplyError, StampError};

/// Success.
pub const CMIOT_OK: i32 = 0;
/// A pointer is NULL.
pub const CMIOT_E_NULL: i32 = -1;
/// The text and its NUL do not fit into the buffer; nothing was written.
pub const CMIOT_E_BUFFER: i32 = -2;
/// The struct was not filled by its function: cmiot_account_init, cmiot_http_begin, cmiot_lease_mount or
/// cmiot_reply_scan was not called, or failed; or the response is not complete yet.
pub const CMIOT_E_UNFILLED: i32 = -3;
/// The appid is not 1 to 26 of 0-9A-Za-z.
pub const CMIOT_E_APPID: i32 = -10;
/// The ebid is not 1 to 32 of 0-9A-Za-z.
pub const CMIOT_E_EBID: i32 = -11;
/// The password is not 1 to 256 bytes.
pub const CMIOT_E_PASSWORD: i32 = -12;
/// The token of API v5 is not 1 to 512 printable ASCII characters without blanks.
pub const CMIOT_E_TOKEN: i32 = -13;
/// The card's kind is unknown, or its number is invalid for that kind.
pub const CMIOT_E_CARD: i32 = -20;
/// The clock was never set: it reads a time before the year 2000.
pub const CMIOT_E_CLOCK_UNSET: i32 = -30;
/// The clock reads a time after the year 2099: milliseconds, perhaps.
pub const CMIOT_E_CLOCK_LATE: i32 = -31;
/// The date is not in the format of an HTTP Date header, or not of the years 2000 to 2099.
pub const CMIOT_E_DATE: i32 = -32;
/// The date may not set this clock: it is before the firmware's build or decades after it, or the step is too large.
pub const CMIOT_E_DATE_LIMITS: i32 = -33;
/// The sequence is not 1 to 99999999, or a node has more than 7 digits.
pub const CMIOT_E_SEQUENCE: i32 = -40;
/// One of the flash functions failed. cmiot_lease_mount: nothing could be read.
pub const CMIOT_E_FLASH: i32 = -41;
/// The flash's pages are too small, its write unit is not one of those listed, or a block is 0.
pub const CMIOT_E_FLASH_LAYOUT: i32 = -42;
/// Written bytes do not read back: call again; if that fails each time, the flash page is worn.
pub const CMIOT_E_FLASH_WORN: i32 = -43;
/// Four billion numbers were leased: erase both pages and restart.
pub const CMIOT_E_SEQUENCE_SPENT: i32 = -44;
/// The reply ends too early: read on, or retry.
pub const CMIOT_E_TRUNCATED: i32 = -50;
/// The reply is not valid JSON.
pub const CMIOT_E_MALFORMED: i32 = -51;
/// The reply is not JSON at all: a web page, perhaps.
pub const CMIOT_E_NOT_JSON: i32 = -52;
/// The reply is longer than 64 KiB.
pub const CMIOT_E_TOO_LONG: i32 = -53;
/// The reply is nested deeper than 16.
pub const CMIOT_E_TOO_DEEP: i32 = -54;
/// The reply has a duplicate key.
pub const CMIOT_E_DUPLICATE: i32 = -55;
/// The reply is JSON, but not the carrier's envelope.
pub const CMIOT_E_NOT_ENVELOPE: i32 = -56;
/// The carrier refused the lookup: see code and message.
pub const CMIOT_E_REFUSED: i32 = -60;
/// The carrier accepted the lookup, but sent no result.
pub const CMIOT_E_NO_RESULT: i32 = -61;
/// The result has no STATUS: it belongs to another operation.
pub const CMIOT_E_NO_STATUS: i32 = -62;
/// The token of API v5 is expired or unknown (12021): fetch one, and repeat the query once.
pub const CMIOT_E_TOKEN_EXPIRED: i32 = -63;
/// The result has no valid token of API v5.
pub const CMIOT_E_NO_TOKEN: i32 = -64;
/// The result has no text or number of this name.
pub const CMIOT_E_NO_FIELD: i32 = -65;
/// The host is not a name or address with an optional port, or the path does not begin with /.
pub const CMIOT_E_URL: i32 = -70;
/// The response is not valid HTTP/1: bytes were lost, or the modem put a message between them.
pub const CMIOT_E_HTTP: i32 = -71;
/// The response's head is longer than 8 KiB, or its body is longer than the buffer.
pub const CMIOT_E_HTTP_LONG: i32 = -72;
/// The connection was closed within the response.
pub const CMIOT_E_HTTP_CLOSED: i32 = -73;
/// The first line is not one of HTTP: the modem echoes the request (ATE0 ends that) or reports something (RING, CONNECT,
/// +CREG: switch its messages off), or host and port are wrong.
pub const CMIOT_E_NOT_HTTP: i32 = -74;
/// The response answers an earlier request, which was given up.
pub const CMIOT_E_OTHER_REQUEST: i32 = -75;

/// Maps every fault of a credential to that credential's code.
pub(crate) fn credential(code: i32) -> impl Fn(CredentialError) -> i32 {
    move |_| code
}

pub(crate) fn stamp(error: StampError) -> i32 {
    match error {
        StampError::Unset => CMIOT_E_CLOCK_UNSET,
        StampError::TooLate => CMIOT_E_CLOCK_LATE,
        StampError::Malformed => CMIOT_E_DATE,
    }
}

pub(crate) fn reply(error: ReplyError) -> i32 {
    match error {
        ReplyError::Truncated => CMIOT_E_TRUNCATED,
        ReplyError::Malformed => CMIOT_E_MALFORMED,
        ReplyError::NotJson => CMIOT_E_NOT_JSON,
        ReplyError::TooLong => CMIOT_E_TOO_LONG,
        ReplyError::TooDeep => CMIOT_E_TOO_DEEP,
        ReplyError::DuplicateKey => CMIOT_E_DUPLICATE,
        ReplyError::NotEnvelope => CMIOT_E_NOT_ENVELOPE,
    }
}

/// The return value of a C function.
pub(crate) fn result(result: Result<i32, i32>) -> i32 {
    match result {
        Ok(value) | Err(value) => value,
    }
}
