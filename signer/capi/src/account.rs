//! An account's credentials, checked once and passed to every signing function.

use core::ptr;

use cmiot_signer::{AppId, Ebid, Signer};

use crate::code::{
    CMIOT_E_APPID, CMIOT_E_EBID, CMIOT_E_NULL, CMIOT_E_PASSWORD, CMIOT_OK, credential, result,
};
use crate::memory::{CmiotText, bytes, text};

/// An account: appid, ebid and a pointer to the password. Its fields are private to the library.
/// All zeros mean that it was not initialised.
#[repr(C)]
pub struct CmiotAccount {
    #[doc(hidden)]
    pub words: [usize; 18],
}

/// Content of the words. Every bit pattern is valid, except for the password's pointer.
struct Stored {
    appid: AppId,
    ebid: Ebid,
    password: *const u8,
    password_len: usize,
}

const _: () = assert!(size_of::<Stored>() <= size_of::<CmiotAccount>());
const _: () = assert!(align_of::<Stored>() <= align_of::<CmiotAccount>());

/// Checks an account's credentials and stores them in `account`.
///
/// The password is not copied: it must stay in its place, unchanged, as long as the account is used. A constant in
/// flash is suitable; the caller wipes a password in RAM. A password is any sequence of bytes. Nothing is trimmed: a
/// newline is part of it.
///
/// Returns CMIOT_OK, or CMIOT_E_NULL, CMIOT_E_APPID, CMIOT_E_EBID, CMIOT_E_PASSWORD.
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
    // SAFETY: the C caller's promise.
    let (appid, ebid, secret) = unsafe { (text(appid), text(ebid), bytes(password, password_len)) };
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

/// The signer of an account.
///
/// # Safety
/// `account` is NULL, all zeros, or was initialised with a password that is still in its place.
pub(crate) unsafe fn signer<'a>(account: *const CmiotAccount) -> Result<Signer<'a>, i32> {
    // SAFETY: the caller's promise; the fields are valid for every bit pattern.
    let stored = unsafe { account.cast::<Stored>().as_ref() }.ok_or(CMIOT_E_NULL)?;
    // SAFETY: NULL if all is zero, else the caller's pointer.
    let password = unsafe { bytes(stored.password, stored.password_len) }?;
    Signer::with_static_password(&stored.appid, &stored.ebid, password).map_err(credential(CMIOT_E_PASSWORD))
}
