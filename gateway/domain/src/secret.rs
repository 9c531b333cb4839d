// SPDX-License-Identifier: Apache-2.0
//! Secrets: wiped when dropped, never printed, never serialised.

use zeroize::Zeroizing;

/// Bytes that must not be seen. It has neither `Debug` nor `Display` nor `Serialize`, and no equality:
/// compare what is derived from it, in constant time.
#[derive(Clone)]
pub struct Secret(Zeroizing<Vec<u8>>);

impl Secret {
    /// Takes the bytes over.
    pub fn new(bytes: Vec<u8>) -> Self {
        Self(Zeroizing::new(bytes))
    }

    /// The bytes. Call it where they are used and nowhere else.
    pub fn expose(&self) -> &[u8] {
        &self.0
    }

    /// The bytes as text, if they are UTF-8.
    pub fn expose_text(&self) -> Option<&str> {
        std::str::from_utf8(&self.0).ok()
    }
}

impl From<String> for Secret {
    fn from(text: String) -> Self {
        Self::new(text.into_bytes())
    }
}
