// SPDX-License-Identifier: Apache-2.0
//! The numbers of RFB, each table once: security types, messages, encodings.

use super::{WireNumber as _, wire_enum};
use std::ops::RangeInclusive;

wire_enum! {
    /// Security types that the gateway speaks towards hypervisors (RFC 6143 section 7.2; VeNCrypt: rfbproto).
    pub(crate) enum SecurityType: u8 {
        /// No authentication.
        None = 1,
        /// DES challenge and response.
        VncAuth = 2,
        /// TLS, then one of [`VencryptType`].
        Vencrypt = 19,
    }
}

wire_enum! {
    /// VeNCrypt 0.2 subtypes with a certificate. The anonymous ones (257 to 259) prove nothing and are not spoken.
    pub(crate) enum VencryptType: u32 {
        /// X509None: the certificate is all.
        Alone = 260,
        /// X509Vnc: the VNC password inside TLS.
        Password = 261,
        /// X509Plain: name and password inside TLS.
        Login = 262,
    }
}

wire_enum! {
    /// What a viewer may send (RFC 6143 section 7.5 and extensions).
    pub(crate) enum ViewerMessage: u8 {
        /// 20 bytes.
        SetPixelFormat = 0,
        /// 4 bytes and 4 for each encoding.
        SetEncodings = 2,
        /// 10 bytes.
        UpdateRequest = 3,
        /// 8 bytes.
        Key = 4,
        /// 6 bytes, or 7 with extended mouse buttons.
        Pointer = 5,
        /// 8 bytes and the text.
        CutText = 6,
        /// 10 bytes.
        ContinuousUpdates = 150,
        /// 9 bytes and at most 64.
        Fence = 248,
        /// 4 bytes: power commands. Known only to be refused by name.
        Power = 250,
        /// 8 bytes and 16 for each screen.
        SetDesktopSize = 251,
        /// QEMU's own; only the extended key (submessage 0, 12 bytes) is known.
        Qemu = 255,
    }
}

wire_enum! {
    /// What a hypervisor may send (RFC 6143 section 7.6 and extensions).
    pub(crate) enum ServerMessage: u8 {
        /// 4 bytes and the rectangles.
        Update = 0,
        /// 6 bytes and 6 for each colour.
        ColourMap = 1,
        /// 1 byte.
        Bell = 2,
        /// 8 bytes and the text.
        CutText = 3,
        /// 1 byte.
        EndOfContinuousUpdates = 150,
        /// 9 bytes and at most 64.
        Fence = 248,
    }
}

wire_enum! {
    /// Encodings that may be asked of a hypervisor: exactly those whose framing [`super::stream`] follows.
    /// Not here, so never asked: JPEG (21) and H.264 (50) have no length of their own that is safe to trust,
    /// XVP (-309) is power control, extended clipboard, audio and file transfer are ways around policy.
    pub(crate) enum Encoding: i32 {
        /// Pixels as they are.
        Raw = 0,
        /// From elsewhere on the screen.
        CopyRect = 1,
        /// Rectangles of one colour.
        Rre = 2,
        /// Tiles of 16 by 16.
        Hextile = 5,
        /// One zlib stream.
        Zlib = 6,
        /// Four zlib streams, or JPEG.
        Tight = 7,
        /// Tiles in one zlib stream.
        Zrle = 16,
        /// Tight with PNG instead of zlib.
        TightPng = -260,
        /// Cursor shape.
        Cursor = -239,
        /// The screen has another size.
        DesktopSize = -223,
        /// The update ends here, whatever its count said.
        LastRect = -224,
        /// Confirms key events with scan codes.
        ExtendedKey = -258,
        /// Keyboard lights.
        LedState = -261,
        /// The screen has another name.
        DesktopName = -307,
        /// Size and screens; confirms SetDesktopSize.
        ExtendedDesktopSize = -308,
        /// Only asked for, never a rectangle.
        Fence = -312,
        /// Only asked for, never a rectangle.
        ContinuousUpdates = -313,
        /// Confirms pointer events of 7 bytes.
        ExtendedMouse = -316,
        /// Cursor shape, VMware's.
        VmwareCursor = 0x574d_5664,
    }
}

/// JPEG quality hints 0 to 9.
const QUALITY_LEVELS: RangeInclusive<i32> = -32..=-23;
/// Compression hints 0 to 9.
const COMPRESS_LEVELS: RangeInclusive<i32> = -256..=-247;
/// How many numbers [`allowed`] lets pass: the table and both ranges of hints.
pub(crate) const ALLOWED_COUNT: usize = 19 + 10 + 10;

impl Encoding {
    /// This encoding as one bit of an [`Asked`] set.
    pub(crate) const fn bit(self) -> u32 {
        1 << (self as u32)
    }
}

/// Whether a viewer may ask for this encoding or hint.
pub(crate) fn allowed(number: i32) -> bool {
    Encoding::from_number(number).is_some() || QUALITY_LEVELS.contains(&number) || COMPRESS_LEVELS.contains(&number)
}

/// A set of encodings.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Asked(u32);

impl Asked {
    /// Adds one. Nothing is ever removed: what was asked for may still be on its way.
    pub(crate) fn add(&mut self, encoding: Encoding) {
        self.0 |= encoding.bit();
    }

    /// Whether it is in the set.
    pub(crate) fn has(self, encoding: Encoding) -> bool {
        self.0 & encoding.bit() != 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    macro_rules! round_trip {
        ($($table:ident),*) => {$(
            for one in $table::ALL {
                assert_eq!($table::from_number(one.number()), Some(*one));
            }
        )*};
    }

    #[test]
    fn every_table_reads_what_it_writes() {
        round_trip!(SecurityType, VencryptType, ViewerMessage, ServerMessage, Encoding);
    }

    #[test]
    fn encodings_that_cannot_be_followed_are_never_asked_for() {
        for refused in [21, 50, -309, 0xc0a1_e5ce_u32.cast_signed(), -259, -305, -314, 4, 8, 15, -33, -22, -246, -257] {
            assert!(!allowed(refused), "{refused}");
        }
        assert_eq!((-300..=300).filter(|n| allowed(*n)).count() + 6, ALLOWED_COUNT);
    }

    #[test]
    fn each_encoding_has_a_bit_of_its_own() {
        let mut all = Asked::default();
        for one in Encoding::ALL {
            assert!(!all.has(*one));
            all.add(*one);
            assert!(all.has(*one));
        }
    }
}
