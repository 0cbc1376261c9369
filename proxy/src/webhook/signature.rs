//! The signatures of a message (Standard Webhooks 1.0.0): `v1,` and the Base64 of HMAC-SHA256 over id, timestamp and body,
//! with each key of the webhook, separated by a space.

use data_encoding::BASE64;
use ring::hmac;

use crate::config::webhook::SigningKey;

/// The value of `webhook-signature`. `timestamp` is in seconds since 1970.
pub(super) fn sign_with_all(keys: &[SigningKey], id: &str, timestamp: u64, body: &[u8]) -> String {
    let signatures: Vec<_> = keys.iter().map(|key| sign(key, id, timestamp, body)).collect();
    signatures.join(" ")
}

fn sign(key: &SigningKey, id: &str, timestamp: u64, body: &[u8]) -> String {
    let mut signing = hmac::Context::with_key(&hmac::Key::new(hmac::HMAC_SHA256, key.expose()));
    signing.update(format!("{id}.{timestamp}.").as_bytes());
    signing.update(body);
    format!("v1,{}", BASE64.encode(signing.sign().as_ref()))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The example of the specification's own libraries.
    #[test]
    fn it_is_that_of_the_specification() {
        let key = SigningKey::parse(b"whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw").unwrap();
        let signature = sign(&key, "msg_p5jXN8AQM9LWM0D4loKWxJek", 1_614_265_330, br#"{"test": 2432232314}"#);
        assert_eq!(signature, "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=");
    }
}
