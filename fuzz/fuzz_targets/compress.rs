//! The token's hash: the crate's own compression function and sha2's give the same token over any credentials.
#![no_main]

use cmiot_signer::{
    AppId, Card, CardKind, CompressionFunction, Ebid, Password, Sequence, Signer, SmallCompression, Stamp,
};
use libfuzzer_sys::fuzz_target;
use sha2::block_api::compress256;

fuzz_target!(|input: &[u8]| {
    blocks(input);
    tokens(input);
});

/// Any state and any blocks.
fn blocks(input: &[u8]) {
    let (words, _) = input.as_chunks::<4>();
    let mut words = words.iter().copied().map(u32::from_be_bytes);
    let mut state: [u32; 8] = std::array::from_fn(|_| words.next().unwrap_or(0x8000_0001));
    let mut reference = state;
    while words.len() > 0 {
        let mut block: [u32; 16] = std::array::from_fn(|at| words.next().unwrap_or(at as u32));
        let mut bytes = [0; 64];
        for (word, bytes) in block.iter().zip(bytes.as_chunks_mut().0) {
            *bytes = word.to_be_bytes();
        }
        compress256(&mut reference, &[bytes]);
        SmallCompression.compress(&mut state, &mut block);
        assert_eq!(state, reference);
    }
}

/// Any password: lengths and padding.
fn tokens(input: &[u8]) {
    let (Ok(appid), Ok(ebid)) = (AppId::parse("100001"), Ebid::parse("1")) else { return };
    let Ok(card) = Card::parse(CardKind::Imsi, "460079650004176") else { return };
    let Ok(password) = Password::new(input) else { return };
    let signer = Signer::new(&appid, &ebid, &password);
    let token = *signer.sign(Stamp::FIRST, Sequence::FIRST, &card).token().as_bytes();
    let own = signer.with_compression(SmallCompression).sign(Stamp::FIRST, Sequence::FIRST, &card);
    assert_eq!(own.token().as_bytes(), &token);
}
