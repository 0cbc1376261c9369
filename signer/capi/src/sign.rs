//! A lookup as a query, to be appended to `/v2/userstatusrealsingle?`.

use core::ffi::c_char;
use core::mem::MaybeUninit;

use cmiot_signer::{Card, CardKind, Node, QUERY_MAX, Sequence, Stamp};

use crate::account::{CmiotAccount, signer};
use crate::code::{CMIOT_E_BUFFER, CMIOT_E_CARD, CMIOT_E_SEQUENCE, result, stamp};
use crate::memory::{CmiotText, Output, text_bytes};

/// A card identified by its telephone number: 1 to 13 digits.
pub const CMIOT_MSISDN: i32 = 0;
/// A card identified by its serial number: 20 of 0-9A-Fa-f.
pub const CMIOT_ICCID: i32 = 1;
/// A card identified by its subscriber identity: 1 to 15 digits.
pub const CMIOT_IMSI: i32 = 2;

/// Buffer size that is enough for every query with its NUL.
pub const CMIOT_QUERY_SIZE: usize = 226;

const _: () = assert!(CMIOT_QUERY_SIZE == QUERY_MAX + 1);

/// A card, identified by one of its numbers.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct CmiotCard {
    /// CMIOT_MSISDN, CMIOT_ICCID or CMIOT_IMSI.
    pub kind: i32,
    /// The number.
    pub number: CmiotText,
}

/// Signs a lookup of a card and writes its query, `appid=...&transid=...&ebid=...&token=...&msisdn=...`.
///
/// `unix_seconds` is the time in seconds since 1970, UTC; `sequence` (1 to 99999999) is a number that no device of the
/// appid has used in the same second: see cmiot_sequence_next.
///
/// Returns the query's length, or CMIOT_E_NULL, CMIOT_E_UNFILLED, CMIOT_E_BUFFER, CMIOT_E_CLOCK_UNSET,
/// CMIOT_E_CLOCK_LATE, CMIOT_E_SEQUENCE, CMIOT_E_CARD; then nothing was written.
///
/// # Safety
/// Pointers are NULL or as described.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn cmiot_sign(
    account: *const CmiotAccount,
    unix_seconds: u64,
    sequence: u32,
    card: CmiotCard,
    query: *mut c_char,
    capacity: usize,
) -> i32 {
    // SAFETY: the C caller's promise.
    let (signer, number, query) =
        unsafe { (signer(account), text_bytes(card.number), Output::new(query, capacity)) };
    let mut place = MaybeUninit::uninit();
    result((|| {
        let signer = signer?;
        let (stamp, sequence) = moment(unix_seconds, sequence)?;
        let card = parse_card(card.kind, number?, &mut place)?;
        let mut query = query?;
        let room = query.room(signer.query_len(card))?;
        let len = signer.sign_into(stamp, sequence, card, room).map_err(|_| CMIOT_E_BUFFER)?;
        Ok(len as i32)
    })())
}

/// The number after `previous` within the device's node: the numbers that begin with `node`, written in `node_digits`
/// digits (0 to 7; 0 digits and node 0 mean all numbers). The first number follows the last one, and every `previous`
/// that does not belong to the node, such as 0.
///
/// Devices that share an appid never collide if they have different nodes of the same width. Store `previous` over
/// resets, or begin at another number each time.
///
/// Returns the number, or CMIOT_E_SEQUENCE.
#[unsafe(no_mangle)]
pub extern "C" fn cmiot_sequence_next(previous: u32, node_digits: u32, node: u32) -> i32 {
    let Ok(node) = Node::new(node_digits, node) else { return CMIOT_E_SEQUENCE };
    let next = match Sequence::new(previous) {
        Ok(previous) if node.contains(previous) => node.after(previous),
        _ => node.first(),
    };
    // Eight digits fit.
    next.get() as i32
}

/// Checks the time and the sequence of a lookup.
pub(crate) fn moment(unix_seconds: u64, sequence: u32) -> Result<(Stamp, Sequence), i32> {
    let stamp = Stamp::from_unix(unix_seconds).map_err(stamp)?;
    Ok((stamp, Sequence::new(sequence).map_err(|_| CMIOT_E_SEQUENCE)?))
}

/// Checks the card of a lookup and stores it in `place`.
pub(crate) fn parse_card<'p>(
    kind: i32,
    number: &[u8],
    place: &'p mut MaybeUninit<Card>,
) -> Result<&'p Card, i32> {
    let kind = match kind {
        CMIOT_MSISDN => CardKind::Msisdn,
        CMIOT_ICCID => CardKind::Iccid,
        CMIOT_IMSI => CardKind::Imsi,
        _ => return Err(CMIOT_E_CARD),
    };
    Card::parse_into(kind, number, place).map_err(|_| CMIOT_E_CARD)
}
