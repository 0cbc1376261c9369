//! An account's credentials, checked once and passed to every signing function.

use core::mem::MaybeUninit;

use cmiot_signer::{AppId, CompressionFunction, DefaultCompression, Ebid, Signer};

use crate::code::{
    CMIOT_E_APPID, CMIOT_E_EBID, CMIOT_E_NULL, CMIOT_E_PASSWORD, CMIOT_E_UNFILLED, CMIOT_OK, credential,
    result,
};
use crate::memory::{CmiotText, bytes, text_bytes};

/// An account: appid, ebid and a pointer to the password. Its fields are private to the library.
#[repr(C)]
pub struct CmiotAccount {
    #[doc(hidden)]
    pub words: [usize; 19],
}

/// SHA-256's compression function (FIPS 180-4, 6.2.2): replaces the eight words of `state` by the next ones. `block` has
/// the sixteen words of the message, each with its first byte in the most significant position, and may be overwritten.
/// All blocks of a token are passed in their order, and the first with the initial state: hardware that cannot load a
/// state can keep it.
pub type CmiotCompress = Option<unsafe extern "C" fn(state: *mut u32, block: *mut u32)>;

/// Content of the words. Every bit pattern is valid, except for the password's pointer.
struct Stored {
    /// [`FILLED`]; with any other value the credentials are not initialised.
    mark: u32,
    password: *const u8,
    password_len: usize,
    compress: CmiotCompress,
    appid: MaybeUninit<AppId>,
    ebid: MaybeUninit<Ebid>,
}

/// A value that uninitialised memory is unlikely to contain.
const FILLED: u32 = 0xC310_ACC0;

const _: () = assert!(size_of::<Stored>() <= size_of::<CmiotAccount>());
const _: () = assert!(align_of::<Stored>() <= align_of::<CmiotAccount>());

/// Checks an account's credentials and stores them in `account`.
///
/// The password is not copied: it must stay in its place, unchanged, as long as the account is used. A constant in
/// flash is suitable; the caller wipes a password in RAM. A password is any sequence of bytes. Nothing is trimmed: a
/// newline is part of it.
///
/// Returns CMIOT_OK, or CMIOT_E_NULL, CMIOT_E_APPID, CMIOT_E_EBID, CMIOT_E_PASSWORD; then the account cannot be used.
///
/// # Safety
/// Pointers are NULL or as described.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn cmiot_account_init(
    account: *mut CmiotAccount,
    appid: CmiotText,
    ebid: CmiotText,
    password: CmiotText,
) -> i32 {
    let (password, password_len) = (password.ptr.cast(), password.len);
    // SAFETY: the C caller's promise; large and aligned enough, as asserted above.
    let stored = unsafe { account.cast::<Stored>().as_mut() };
    // SAFETY: the C caller's promise.
    let (appid, ebid, secret) =
        unsafe { (text_bytes(appid), text_bytes(ebid), bytes(password, password_len)) };
    result((|| {
        let stored = stored.ok_or(CMIOT_E_NULL)?;
        stored.mark = 0;
        let secret = secret?;
        let appid = AppId::parse_into(appid?, &mut stored.appid).map_err(credential(CMIOT_E_APPID))?;
        let ebid = Ebid::parse_into(ebid?, &mut stored.ebid).map_err(credential(CMIOT_E_EBID))?;
        Signer::with_static_password(appid, ebid, secret).map_err(credential(CMIOT_E_PASSWORD))?;
        (stored.password, stored.password_len, stored.compress) = (password, password_len, None);
        stored.mark = FILLED;
        Ok(CMIOT_OK)
    })())
}

/// Has this account's tokens computed by another compression function, such as the chip's hardware; with NULL, by the
/// library's own. cmiot_account_init sets the library's own.
///
/// Returns CMIOT_OK, or CMIOT_E_NULL, CMIOT_E_UNFILLED.
///
/// # Safety
/// Pointers are NULL or as described.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn cmiot_account_compress(account: *mut CmiotAccount, compress: CmiotCompress) -> i32 {
    // SAFETY: the C caller's promise; large and aligned enough, as asserted above.
    let stored = unsafe { account.cast::<Stored>().as_mut() };
    result((|| {
        let stored = stored.ok_or(CMIOT_E_NULL)?;
        if stored.mark != FILLED {
            return Err(CMIOT_E_UNFILLED);
        }
        stored.compress = compress;
        Ok(CMIOT_OK)
    })())
}

/// The compression function of an account.
#[derive(Clone, Copy)]
pub(crate) struct Compression(CmiotCompress);

impl CompressionFunction for Compression {
    fn compress(&self, state: &mut [u32; 8], block: &mut [u32; 16]) {
        match self.0 {
            // SAFETY: the C caller's function; both arrays are valid for the call.
            Some(compress) => unsafe { compress(state.as_mut_ptr(), block.as_mut_ptr()) },
            None => DefaultCompression.compress(state, block),
        }
    }
}

/// The signer of an account.
///
/// # Safety
/// `account` is NULL, was never filled, or was initialised with a password that is still in its place.
pub(crate) unsafe fn signer<'a>(account: *const CmiotAccount) -> Result<Signer<'a, Compression>, i32> {
    // SAFETY: the caller's promise; the fields are valid for every bit pattern.
    let stored = unsafe { account.cast::<Stored>().as_ref() }.ok_or(CMIOT_E_NULL)?;
    if stored.mark != FILLED {
        return Err(CMIOT_E_UNFILLED);
    }
    // SAFETY: the mark is written after the credentials, and the password is in its place.
    let (appid, ebid, password) = unsafe {
        (
            stored.appid.assume_init_ref(),
            stored.ebid.assume_init_ref(),
            bytes(stored.password, stored.password_len)?,
        )
    };
    let signer = Signer::with_static_password(appid, ebid, password).map_err(credential(CMIOT_E_PASSWORD))?;
    Ok(signer.with_compression(Compression(stored.compress)))
}
