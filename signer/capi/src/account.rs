//! An account's credentials, checked once and handed to every signing.

use core::ffi::c_char;
use core::ptr;

use cmiot_signer::{AppId, Ebid, Signer};

use crate::code::{
    CMIOT_E_APPID, CMIOT_E_EBID, CMIOT_E_NULL, CMIOT_E_PASSWORD, CMIOT_OK, credential, result,
};
use crate::memory::{bytes, text};

/// An account: appid, ebid and a pointer to the password. Its fields are the library's own.
/// All zeros is an account that was not initialised.
#[repr(C)]
pub struct CmiotAccount {
    #[doc(hidden)]
    pub words: [usize; 18],
}

/// What is in the words. Any bit pattern is one, but for the password's pointer.
struct Stored {
    appid: AppId,
    ebid: Ebid,
    password: *const u8,
    password_len: usize,
}

const _: () = assert!(size_of::<Stored>() <= size_of::<CmiotAccount>());
const _: () = assert!(align_of::<Stored>() <= align_of::<CmiotAccount>());

/// Checks an account's credentials and puts them into `account`.
///
/// The password is not copied: it must stay where it is, unchanged, as long as the account is used. A constant in
/// flash is a good place; whoever keeps it in RAM wipes it. Nothing is trimmed: a newline is part of a password.
///
/// Returns CMIOT_OK, or CMIOT_E_NULL, CMIOT_E_APPID, CMIOT_E_EBID, CMIOT_E_PASSWORD.
///
/// # Safety
/// Pointers are NULL or as described.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn cmiot_account_init(
    account: *mut CmiotAccount,
    appid: *const c_char,
    appid_len: usize,
    ebid: *const c_char,
    ebid_len: usize,
    password: *const u8,
    password_len: usize,
) -> i32 {
    // SAFETY: the C caller's promise.
    let (appid, ebid, secret) =
        unsafe { (text(appid, appid_len), text(ebid, ebid_len), bytes(password, password_len)) };
    result((|| {
        let appid = AppId::parse(appid?).map_err(credential(CMIOT_E_APPID))?;
        let ebid = Ebid::parse(ebid?).map_err(credential(CMIOT_E_EBID))?;
        Signer::with_static_password(&appid, &ebid, secret?).map_err(credential(CMIOT_E_PASSWORD))?;
        if account.is_null() {
            return Err(CMIOT_E_NULL);
        }
        // SAFETY: not NULL, the caller's own, and large and aligned enough, as asserted above.
        unsafe { ptr::write(account.cast(), Stored { appid, ebid, password, password_len }) };
        Ok(CMIOT_OK)
    })())
}

/// Signs for an account.
///
/// # Safety
/// `account` is NULL, all zeros, or was initialised with a password that is still there.
pub(crate) unsafe fn signer<'a>(account: *const CmiotAccount) -> Result<Signer<'a>, i32> {
    // SAFETY: the caller's promise; the fields are valid whatever they hold.
    let stored = unsafe { account.cast::<Stored>().as_ref() }.ok_or(CMIOT_E_NULL)?;
    // SAFETY: NULL when all is zero, else as it was handed in.
    let password = unsafe { bytes(stored.password, stored.password_len) }?;
    Signer::with_static_password(&stored.appid, &stored.ebid, password).map_err(credential(CMIOT_E_PASSWORD))
}
