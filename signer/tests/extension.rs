//! Length extension: the attack on `SHA-256(secret ‖ chosen bytes)` succeeds against the bare hash, and the transid's
//! format prevents it.
#![allow(clippy::unwrap_used)] // In a test, to panic is to fail.

use cmiot_signer::{AppId, Password, Token, Transid, TransidError};
use sha2::block_api::compress256;

const TRANSID: &str = "1000012014101615303080000001";
const PASSWORD: &[u8] = b"example-password";

/// A forged transid and token, `transid ‖ padding ‖ suffix`, by an attacker who knows one transid, its token and the
/// password's length, but not the password.
fn forge(transid: &str, token: &str, secret_len: usize, suffix: &[u8]) -> (Vec<u8>, String) {
    let mut state: [u32; 8] =
        std::array::from_fn(|word| u32::from_str_radix(&token[8 * word..8 * word + 8], 16).unwrap());

    let hashed = secret_len + transid.len();
    let mut extended = transid.as_bytes().to_vec();
    extended.push(0x80);
    while (secret_len + extended.len()) % 64 != 56 {
        extended.push(0);
    }
    extended.extend((hashed as u64 * 8).to_be_bytes());
    extended.extend(suffix);

    assert!(suffix.len() < 56, "one more block is enough for the test");
    let mut block = [0; 64];
    block[..suffix.len()].copy_from_slice(suffix);
    block[suffix.len()] = 0x80;
    let bits = (secret_len + extended.len()) as u64 * 8;
    block[56..].copy_from_slice(&bits.to_be_bytes());
    compress256(&mut state, &[block]);

    (extended, state.iter().map(|word| format!("{word:08x}")).collect())
}

#[test]
fn an_extended_transid_has_a_valid_token_and_is_refused_before_hashing() {
    let appid: AppId = "100001".parse().unwrap();
    let password = Password::new(PASSWORD).unwrap();
    let seen = Token::sign(&appid, &password, &TRANSID.parse().unwrap());

    let secret_len = appid.as_bytes().len() + PASSWORD.len();
    let (extended, forged) = forge(TRANSID, seen.as_str(), secret_len, b"2014101615303080000002");

    // The forgery is real: without the format check it would be accepted.
    assert!(Token::sign_unchecked_transid(&appid, &password, &extended).verify(&forged));
    // `Token::sign` takes only a `Transid`, and this is not one.
    assert_eq!(Transid::parse_bytes(&extended), Err(TransidError::TooLong));
}

#[test]
fn padding_is_refused_wherever_it_would_fit_the_length() {
    // 23 of 48 characters leave room for the shortest padding, 9 bytes, and some of a suffix.
    let mut extended = b"A2014101615303080000001".to_vec();
    extended.extend([0x80, 0, 0, 0, 0, 0, 0, 1, 0xF8]);
    for end in 24..=extended.len() {
        assert_eq!(Transid::parse_bytes(&extended[..end]), Err(TransidError::BadCharacter));
    }
}
