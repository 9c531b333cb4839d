// SPDX-License-Identifier: Apache-2.0
//! RFB (RFC 6143 and the community's rfbproto): the handshake towards the hypervisor, and the framing of both streams.

pub(crate) mod auth;
pub(crate) mod encoding;
mod handshake;
pub(crate) mod input;
mod rect;
pub(crate) mod stream;

pub use handshake::{Login, Security, Step, TlsUpgrade, Upstream, connect};

use tokio::io::{AsyncRead, AsyncWrite};

/// Anything that bytes can be read from and written to.
pub trait Wire: AsyncRead + AsyncWrite + Unpin + Send {}
impl<T: AsyncRead + AsyncWrite + Unpin + Send> Wire for T {}

/// A [`Wire`] whose type does not matter any more.
pub type BoxWire = Box<dyn Wire>;

/// Width and height, each, in pixels, that a screen may have at most.
pub const MAX_SIDE: u16 = 16_384;
/// Pixels that a screen may have at most: 256 MiB at 4 bytes each in the browser.
pub const MAX_AREA: u32 = 64 << 20;
/// Bytes of a screen's name that are kept for the browser.
const MAX_SHOWN_NAME: usize = 256;

/// The one pixel format on both legs (RFC 6143 section 7.4): 32 bits a pixel, depth 24, little-endian, true colour,
/// 255 each, shifts 0, 8, 16. It is what noVNC asks for, so pinning it costs no viewer anything.
pub(crate) const PINNED_FORMAT: [u8; 16] = [32, 24, 0, 1, 0, 255, 0, 255, 0, 255, 0, 8, 16, 0, 0, 0];
/// Bytes of one pixel in [`PINNED_FORMAT`].
pub(crate) const PIXEL_BYTES: u64 = 4;

/// What the hypervisor said of its screen when the session began.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ScreenInfo {
    /// Pixels, 0 to [`MAX_SIDE`].
    pub width: u16,
    /// Pixels, 0 to [`MAX_SIDE`].
    pub height: u16,
    /// The screen's name without control or direction characters, at most 256 bytes.
    pub name: String,
}

impl ScreenInfo {
    /// The ServerInit message for the browser (RFC 6143 section 7.3.2), with the pinned pixel format.
    pub(crate) fn server_init(&self) -> Vec<u8> {
        let mut message = Vec::with_capacity(24 + self.name.len());
        message.extend_from_slice(&self.width.to_be_bytes());
        message.extend_from_slice(&self.height.to_be_bytes());
        message.extend_from_slice(&PINNED_FORMAT);
        message.extend_from_slice(&u32::try_from(self.name.len()).unwrap_or(0).to_be_bytes());
        message.extend_from_slice(self.name.as_bytes());
        message
    }
}

/// Whether a screen of this size is within [`MAX_SIDE`] and [`MAX_AREA`].
pub(crate) fn fits(width: u16, height: u16) -> bool {
    width <= MAX_SIDE && height <= MAX_SIDE && u32::from(width) * u32::from(height) <= MAX_AREA
}

/// Text from a stranger as it may be shown: control and direction characters removed, cut at `limit` bytes.
pub(crate) fn showable(bytes: &[u8], limit: usize) -> String {
    let mut text = String::new();
    for c in String::from_utf8_lossy(bytes).chars() {
        let hidden = c.is_control()
            || matches!(c, '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}' | '\u{feff}');
        if !hidden {
            if text.len() + c.len_utf8() > limit {
                break;
            }
            text.push(c);
        }
    }
    text
}

/// A 16-bit number in network order at an offset; 0 past the end (callers have checked the length).
pub(crate) fn be16(bytes: &[u8], at: usize) -> u16 {
    bytes.get(at..at + 2).and_then(|b| b.try_into().ok()).map_or(0, u16::from_be_bytes)
}

/// A 32-bit number in network order at an offset; 0 past the end (callers have checked the length).
pub(crate) fn be32(bytes: &[u8], at: usize) -> u32 {
    bytes.get(at..at + 4).and_then(|b| b.try_into().ok()).map_or(0, u32::from_be_bytes)
}

/// One byte at an offset; 0 past the end (callers have checked the length).
pub(crate) fn byte(bytes: &[u8], at: usize) -> u8 {
    bytes.get(at).copied().unwrap_or(0)
}

/// A word that has a number on the wire.
pub(crate) trait WireNumber<N>: Sized {
    /// The number on the wire.
    fn number(self) -> N;
    /// What a number on the wire means, if it is in the table.
    fn from_number(number: N) -> Option<Self>;
}

/// Makes a wire enum from one table, so that reading and writing cannot disagree.
macro_rules! wire_enum {
    ($(#[$meta:meta])* $vis:vis enum $name:ident: $number:ty { $($(#[$doc:meta])* $variant:ident = $value:literal,)* }) => {
        $(#[$meta])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        $vis enum $name { $($(#[$doc])* $variant,)* }

        #[cfg(test)]
        impl $name {
            /// Every row of the table.
            pub(crate) const ALL: &[Self] = &[$(Self::$variant,)*];
        }

        impl $crate::rfb::WireNumber<$number> for $name {
            fn number(self) -> $number {
                match self { $(Self::$variant => $value,)* }
            }

            fn from_number(number: $number) -> Option<Self> {
                match number { $($value => Some(Self::$variant),)* _ => None }
            }
        }
    };
}
pub(crate) use wire_enum;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_lose_what_could_deceive_and_are_cut_at_a_character() {
        assert_eq!(showable("a\u{202e}b\n\x1b[31mc\u{200b}".as_bytes(), 256), "ab[31mc");
        let long = "é".repeat(300);
        assert_eq!(showable(long.as_bytes(), MAX_SHOWN_NAME).len(), 256);
        assert_eq!(showable(&[0xff, b'x'], 9), "\u{fffd}x");
    }

    #[test]
    fn screens_beyond_the_limits_do_not_fit() {
        assert!(fits(16_384, 4096) && fits(0, 0) && fits(1920, 1080));
        assert!(!fits(16_385, 1) && !fits(1, 16_385) && !fits(65_535, 65_535) && !fits(16_384, 4097));
    }
}
