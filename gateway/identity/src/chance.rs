// SPDX-License-Identifier: Apache-2.0
//! Chance and digests.

use crate::Error;
use aws_lc_rs::{
    constant_time, digest,
    rand::{SecureRandom, SystemRandom},
};
use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use portcullis_domain::Secret;
use portcullis_store::Digest;
use uuid::{Builder, Uuid};
use zeroize::Zeroizing;

/// Fresh random bytes.
pub(crate) fn bytes<const N: usize>() -> Result<Zeroizing<[u8; N]>, Error> {
    let mut bytes = Zeroizing::new([0; N]);
    SystemRandom::new().fill(bytes.as_mut_slice()).map_err(|_| Error::Crypto("no random bytes"))?;
    Ok(bytes)
}

/// 256 random bits as URL-safe base64 behind a prefix, and the digest that is stored.
pub(crate) fn secret_text(prefix: &str) -> Result<(Secret, Digest), Error> {
    let mut text = String::from(prefix);
    URL_SAFE_NO_PAD.encode_string(bytes::<32>()?, &mut text);
    let hash = sha256(text.as_bytes());
    Ok((Secret::from(text), hash))
}

/// SHA-256.
pub(crate) fn sha256(bytes: &[u8]) -> Digest {
    let mut hash = Digest::default();
    hash.copy_from_slice(digest::digest(&digest::SHA256, bytes).as_ref());
    hash
}

/// Equality whose time does not depend on where two texts differ.
pub(crate) fn equal(a: &[u8], b: &[u8]) -> bool {
    constant_time::verify_slices_are_equal(a, b).is_ok()
}

/// A new id that sorts by the given time (RFC 9562 version 7).
pub(crate) fn id(now: time::OffsetDateTime) -> Result<Uuid, Error> {
    let millis = u64::try_from(now.unix_timestamp_nanos() / 1_000_000).unwrap_or(0);
    Ok(Builder::from_unix_timestamp_millis(millis, &*bytes::<10>()?).into_uuid())
}
