//! A compression function for chips: small, and fast for its size.
//!
//! It works in the block that it is handed, so that it needs no copy of it: the message schedule (FIPS 180-4, 6.2.2,
//! step 1) replaces sixteen words by the next sixteen. Two rounds per turn of the loop halve the moves of the working
//! variables.

use core::hint::black_box;

use super::CompressionFunction;

/// SHA-256's compression function in safe Rust, for chips without hardware for it; feature `small` makes it their default.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SmallCompression;

impl CompressionFunction for SmallCompression {
    #[inline(never)]
    fn compress(&self, state: &mut [u32; 8], block: &mut [u32; 16]) {
        let [mut a, mut b, mut c, mut d, mut e, mut f, mut g, mut h] = *state;
        for (turn, constants) in K.as_chunks::<16>().0.iter().enumerate() {
            if turn > 0 {
                extend(block);
            }
            let mut at = 0;
            while at < 16 {
                let t = round(e, f, g, h, constants[at], block[at]);
                d = d.wrapping_add(t);
                h = t.wrapping_add(sum(a, b, c));
                let t = round(d, e, f, g, constants[at | 1], block[at | 1]);
                c = c.wrapping_add(t);
                g = t.wrapping_add(sum(h, a, b));
                (a, b, c, d, e, f, g, h) = (g, h, a, b, c, d, e, f);
                at += 2;
            }
        }
        // `black_box` has the state read again, instead of 32 bytes of stack that hold a copy.
        let [sa, sb, sc, sd, se, sf, sg, sh] = black_box(state);
        *sa = sa.wrapping_add(a);
        *sb = sb.wrapping_add(b);
        *sc = sc.wrapping_add(c);
        *sd = sd.wrapping_add(d);
        *se = se.wrapping_add(e);
        *sf = sf.wrapping_add(f);
        *sg = sg.wrapping_add(g);
        *sh = sh.wrapping_add(h);
    }
}

/// The part of a round that both new variables have: h + Σ1(e) + Ch(e, f, g) + k + w.
#[inline(always)]
fn round(e: u32, f: u32, g: u32, h: u32, k: u32, w: u32) -> u32 {
    let sigma = e.rotate_right(6) ^ e.rotate_right(11) ^ e.rotate_right(25);
    let choice = (f ^ g) & e ^ g;
    h.wrapping_add(k).wrapping_add(w).wrapping_add(choice).wrapping_add(sigma)
}

/// Σ0(a) + Maj(a, b, c).
#[inline(always)]
fn sum(a: u32, b: u32, c: u32) -> u32 {
    let sigma = a.rotate_right(2) ^ a.rotate_right(13) ^ a.rotate_right(22);
    let majority = (a ^ b) & (b ^ c) ^ b;
    sigma.wrapping_add(majority)
}

/// Replaces sixteen words of the message schedule by the next sixteen.
#[inline(always)]
fn extend(block: &mut [u32; 16]) {
    for t in 0..16 {
        let (w1, w14) = (block[(t + 1) % 16], block[(t + 14) % 16]);
        let s0 = w1.rotate_right(7) ^ w1.rotate_right(18) ^ w1 >> 3;
        let s1 = w14.rotate_right(17) ^ w14.rotate_right(19) ^ w14 >> 10;
        block[t] = block[t].wrapping_add(s0).wrapping_add(block[(t + 9) % 16]).wrapping_add(s1);
    }
}

/// FIPS 180-4, 4.2.2: the first 32 bits of the fractional parts of the cube roots of the first 64 primes.
static K: [u32; 64] = [
    0x428a_2f98,
    0x7137_4491,
    0xb5c0_fbcf,
    0xe9b5_dba5,
    0x3956_c25b,
    0x59f1_11f1,
    0x923f_82a4,
    0xab1c_5ed5,
    0xd807_aa98,
    0x1283_5b01,
    0x2431_85be,
    0x550c_7dc3,
    0x72be_5d74,
    0x80de_b1fe,
    0x9bdc_06a7,
    0xc19b_f174,
    0xe49b_69c1,
    0xefbe_4786,
    0x0fc1_9dc6,
    0x240c_a1cc,
    0x2de9_2c6f,
    0x4a74_84aa,
    0x5cb0_a9dc,
    0x76f9_88da,
    0x983e_5152,
    0xa831_c66d,
    0xb003_27c8,
    0xbf59_7fc7,
    0xc6e0_0bf3,
    0xd5a7_9147,
    0x06ca_6351,
    0x1429_2967,
    0x27b7_0a85,
    0x2e1b_2138,
    0x4d2c_6dfc,
    0x5338_0d13,
    0x650a_7354,
    0x766a_0abb,
    0x81c2_c92e,
    0x9272_2c85,
    0xa2bf_e8a1,
    0xa81a_664b,
    0xc24b_8b70,
    0xc76c_51a3,
    0xd192_e819,
    0xd699_0624,
    0xf40e_3585,
    0x106a_a070,
    0x19a4_c116,
    0x1e37_6c08,
    0x2748_774c,
    0x34b0_bcb5,
    0x391c_0cb3,
    0x4ed8_aa4a,
    0x5b9c_ca4f,
    0x682e_6ff3,
    0x748f_82ee,
    0x78a5_636f,
    0x84c8_7814,
    0x8cc7_0208,
    0x90be_fffa,
    0xa450_6ceb,
    0xbef9_a3f7,
    0xc671_78f2,
];
