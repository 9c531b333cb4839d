// SPDX-License-Identifier: Apache-2.0
//! VNC authentication (RFC 6143 section 7.2.2): DES, because nothing else will do.

use des::{
    Des,
    cipher::{BlockEncrypt, KeyInit, generic_array::GenericArray},
};
use portcullis_domain::Secret;

/// Bytes of the challenge and of its answer.
pub(crate) const CHALLENGE: usize = 16;

/// The answer to a challenge: both halves under DES, the key being the first 8 bytes of the password,
/// zero-padded, with the bits of each byte mirrored.
pub(crate) fn answer(password: &Secret, challenge: &[u8; CHALLENGE]) -> [u8; CHALLENGE] {
    let mut key = [0; 8];
    for (slot, byte) in key.iter_mut().zip(password.expose()) {
        *slot = byte.reverse_bits();
    }
    let cipher = Des::new(&GenericArray::from(key));
    let mut out = *challenge;
    for half in out.chunks_exact_mut(8) {
        cipher.encrypt_block(GenericArray::from_mut_slice(half));
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_answer_equals_a_known_one() {
        // FIPS 81's key 0123456789abcdef with "Now is t" gives 3fa40e8a984d4815; mirrored, because VNC mirrors
        let key: Vec<u8> = [0x01u8, 0x23, 0x45, 0x67, 0x89, 0xab, 0xcd, 0xef].map(u8::reverse_bits).to_vec();
        let answer = answer(&Secret::new(key), b"Now is tNow is t");
        assert_eq!(answer[..8], [0x3f, 0xa4, 0x0e, 0x8a, 0x98, 0x4d, 0x48, 0x15]);
        assert_eq!(answer[..8], answer[8..]);
    }

    #[test]
    fn only_eight_bytes_of_a_password_count() {
        let of = |text: &str| answer(&Secret::from(text.to_owned()), &[7; 16]);
        assert_eq!(of("12345678"), of("123456789"));
        assert_ne!(of("1234567"), of("12345678"));
    }
}
