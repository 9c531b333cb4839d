// SPDX-License-Identifier: Apache-2.0
//! The framing of rectangles (RFC 6143 section 7.7 and rfbproto): how many bytes follow, for every encoding that may
//! be asked for.

use super::{
    PIXEL_BYTES, WireNumber as _, be16, be32, byte,
    encoding::Encoding,
    stream::{Fault, State, Walker},
};
use std::time::Duration;

/// Cursor pixels that are accepted: 1024 by 1024.
const MAX_CURSOR: u64 = 1 << 20;
/// Bytes of a screen's new name that are accepted.
const MAX_NAME: u32 = 4096;
/// Bytes of Tight data that are sent as they are, without a length.
const TIGHT_PLAIN: u64 = 12;
/// Bytes of a pixel in Tight with the pinned format.
const TIGHT_PIXEL: u64 = 3;

/// A rectangle's place and encoding.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Rect {
    pub(super) x: u16,
    pub(super) y: u16,
    pub(super) w: u16,
    pub(super) h: u16,
    /// Hextile's current tile, counted along the rows.
    tile: u32,
    /// Whether Tight may carry PNG instead of zlib.
    png: Flavour,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
enum Flavour {
    #[default]
    Zlib,
    Png,
}

impl Rect {
    fn area(self) -> u64 {
        u64::from(self.w) * u64::from(self.h)
    }

    /// Bytes that compressed data of this rectangle may have: beyond its raw size only what zlib's stored blocks add.
    fn compressed_limit(self) -> u64 {
        let raw = self.area() * PIXEL_BYTES;
        raw + raw / 64 + 64 * 1024
    }

    fn tiles(self) -> u32 {
        u32::from(self.w).div_ceil(16) * u32::from(self.h).div_ceil(16)
    }

    /// Pixels of the current tile.
    fn tile_area(self) -> u64 {
        let columns = u32::from(self.w).div_ceil(16).max(1);
        let (x, y) = (self.tile % columns * 16, self.tile / columns * 16);
        u64::from(u32::from(self.w).saturating_sub(x).min(16)) * u64::from(u32::from(self.h).saturating_sub(y).min(16))
    }
}

/// Where inside a rectangle the stream stands, when its length is not known from its head.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Body {
    /// Where a copy comes from.
    CopySource,
    /// A 4-byte length, then that many bytes (zlib, ZRLE).
    Length,
    /// A 4-byte count of subrectangles, then the background and them.
    RreCount,
    /// A 4-byte length of a name.
    Name,
    /// A byte that counts screens, and padding.
    Screens,
    /// The kind of a VMware cursor, and padding.
    VmwareKind,
    /// A tile's mask.
    HextileMask,
    /// A tile's count of subrectangles, each of that many bytes.
    HextileCount(u8),
    /// Behind a tile.
    HextileNext,
    /// The compression control byte.
    TightControl,
    /// The filter byte.
    TightFilter,
    /// The palette's size less one.
    TightPalette,
    /// In front of data that have this many bytes when unpacked.
    TightData(u64),
    /// A byte of a compact length: which, and what the ones before said.
    TightLength(u8, u32),
}

impl Walker {
    /// The 12 bytes in front of a rectangle are there.
    pub(super) fn begin_rect(&mut self, head: &[u8; 12], since: Duration) -> Result<(), Fault> {
        let rect = Rect { x: be16(head, 0), y: be16(head, 2), w: be16(head, 4), h: be16(head, 6), ..Rect::default() };
        let number = be32(head, 8).cast_signed();
        let Some(encoding) = Encoding::from_number(number) else {
            return Err(Fault(format!("encoding {number}, which nobody asked for")));
        };
        if encoding != Encoding::Raw {
            self.confirm(encoding)?;
        }
        self.rect = rect;
        let place = |walker: &Self| {
            if walker.is_on_screen(rect) {
                Ok(())
            } else {
                Err(Fault(format!(
                    "a rectangle outside of the screen ({}×{} at {},{})",
                    rect.w, rect.h, rect.x, rect.y
                )))
            }
        };
        match encoding {
            Encoding::Raw => {
                place(self)?;
                self.skip_to(rect.area() * PIXEL_BYTES, State::RectEnd);
            }
            Encoding::CopyRect => {
                place(self)?;
                self.expect(State::Body(Body::CopySource), 4);
            }
            Encoding::Rre => {
                place(self)?;
                self.expect(State::Body(Body::RreCount), 4);
            }
            Encoding::Zlib | Encoding::Zrle => {
                place(self)?;
                self.expect(State::Body(Body::Length), 4);
            }
            Encoding::Hextile => {
                place(self)?;
                self.begin_tile();
            }
            Encoding::Tight => {
                place(self)?;
                self.expect(State::Body(Body::TightControl), 1);
            }
            Encoding::TightPng => {
                place(self)?;
                self.rect.png = Flavour::Png;
                self.expect(State::Body(Body::TightControl), 1);
            }
            Encoding::Cursor => {
                check_cursor(rect)?;
                let mask = u64::from(rect.w.div_ceil(8)) * u64::from(rect.h);
                self.skip_to(rect.area() * PIXEL_BYTES + mask, State::RectEnd);
            }
            Encoding::VmwareCursor => {
                check_cursor(rect)?;
                self.expect(State::Body(Body::VmwareKind), 2);
            }
            Encoding::DesktopSize => {
                self.resize(rect.w, rect.h, since)?;
                self.expect(State::RectEnd, 0);
            }
            Encoding::ExtendedDesktopSize => {
                // x is the reason (1: this viewer asked), y the status (not 0: refused, the size is the old one)
                if rect.x != 1 || rect.y == 0 {
                    self.resize(rect.w, rect.h, since)?;
                }
                self.expect(State::Body(Body::Screens), 4);
            }
            Encoding::LastRect => {
                self.end_rects();
                self.expect(State::RectEnd, 0);
            }
            Encoding::ExtendedKey | Encoding::ExtendedMouse => self.expect(State::RectEnd, 0),
            Encoding::LedState => self.skip_to(1, State::RectEnd),
            Encoding::DesktopName => self.expect(State::Body(Body::Name), 4),
            Encoding::Fence | Encoding::ContinuousUpdates => {
                return Err(Fault(format!("{encoding:?} as a rectangle")));
            }
        }
        Ok(())
    }

    /// The bytes that the body's state needs are there.
    pub(super) fn walk_body(&mut self, body: Body, head: &[u8; 12]) -> Result<(), Fault> {
        let rect = self.rect;
        match body {
            Body::CopySource => {
                if !self.is_on_screen(Rect { x: be16(head, 0), y: be16(head, 2), ..rect }) {
                    return Err(Fault("a copy from outside of the screen".to_owned()));
                }
                self.expect(State::RectEnd, 0);
            }
            Body::Length => {
                let length = u64::from(be32(head, 0));
                if length > rect.compressed_limit() {
                    return Err(Fault(format!("{length} bytes for a rectangle of {}×{}", rect.w, rect.h)));
                }
                self.skip_to(length, State::RectEnd);
            }
            Body::RreCount => {
                let count = u64::from(be32(head, 0));
                if count > rect.area() {
                    return Err(Fault(format!("{count} parts in a rectangle of {}×{}", rect.w, rect.h)));
                }
                self.skip_to(PIXEL_BYTES + count * (PIXEL_BYTES + 8), State::RectEnd);
            }
            Body::Name => {
                let length = be32(head, 0);
                if length > MAX_NAME {
                    return Err(Fault(format!("a name of {length} bytes")));
                }
                self.skip_to(u64::from(length), State::RectEnd);
            }
            Body::Screens => self.skip_to(16 * u64::from(byte(head, 0)), State::RectEnd),
            Body::VmwareKind => match byte(head, 0) {
                0 => self.skip_to(2 * rect.area() * PIXEL_BYTES, State::RectEnd),
                1 => self.skip_to(4 * rect.area(), State::RectEnd),
                kind => return Err(Fault(format!("a cursor of kind {kind}"))),
            },
            Body::HextileMask => self.read_tile(byte(head, 0)),
            Body::HextileCount(each) => {
                self.skip_to(u64::from(byte(head, 0)) * u64::from(each), State::Body(Body::HextileNext));
            }
            Body::HextileNext => {
                self.rect.tile += 1;
                self.begin_tile();
            }
            Body::TightControl => self.read_tight_control(byte(head, 0))?,
            Body::TightFilter => match byte(head, 0) {
                0 | 2 => self.expect(State::Body(Body::TightData(rect.area() * TIGHT_PIXEL)), 0),
                1 => self.expect(State::Body(Body::TightPalette), 1),
                filter => return Err(Fault(format!("Tight filter {filter}"))),
            },
            Body::TightPalette => {
                let colours = u64::from(byte(head, 0)) + 1;
                let row = if colours <= 2 { u64::from(rect.w.div_ceil(8)) } else { u64::from(rect.w) };
                self.skip_to(colours * TIGHT_PIXEL, State::Body(Body::TightData(row * u64::from(rect.h))));
            }
            Body::TightData(0) => self.expect(State::RectEnd, 0),
            Body::TightData(plain) if plain < TIGHT_PLAIN => self.skip_to(plain, State::RectEnd),
            Body::TightData(_) => self.expect(State::Body(Body::TightLength(0, 0)), 1),
            Body::TightLength(index, before) => {
                let byte = u32::from(byte(head, 0));
                // 7 + 7 + 8 bits, lowest first
                let value = if index < 2 { byte & 0x7f } else { byte };
                let length = before | value << (7 * u32::from(index));
                if index < 2 && byte & 0x80 != 0 {
                    self.expect(State::Body(Body::TightLength(index + 1, length)), 1);
                } else {
                    self.skip_to(u64::from(length), State::RectEnd);
                }
            }
        }
        Ok(())
    }

    fn begin_tile(&mut self) {
        if self.rect.tile >= self.rect.tiles() {
            self.expect(State::RectEnd, 0);
        } else {
            self.expect(State::Body(Body::HextileMask), 1);
        }
    }

    /// RFC 6143 section 7.7.4: 1 raw, 2 background, 4 foreground, 8 subrectangles, 16 each with its colour.
    fn read_tile(&mut self, mask: u8) {
        if mask & 1 != 0 {
            self.skip_to(self.rect.tile_area() * PIXEL_BYTES, State::Body(Body::HextileNext));
            return;
        }
        let colours = u64::from((mask >> 1 & 1) + (mask >> 2 & 1)) * PIXEL_BYTES;
        if mask & 8 == 0 {
            self.skip_to(colours, State::Body(Body::HextileNext));
        } else {
            let each = if mask & 16 == 0 { 2 } else { 6 };
            self.expect(State::Body(Body::HextileCount(each)), 1);
            self.skip = colours;
        }
    }

    fn read_tight_control(&mut self, control: u8) -> Result<(), Fault> {
        // the low nibble resets zlib streams; bit 6 announces a filter byte
        match (control >> 4, self.rect.png) {
            (0b1000, _) => self.skip_to(TIGHT_PIXEL, State::RectEnd),
            (0b1001, _) | (0b1010, Flavour::Png) => self.expect(State::Body(Body::TightLength(0, 0)), 1),
            (kind, Flavour::Zlib) if kind & 0b1000 == 0 => {
                if kind & 0b0100 == 0 {
                    self.expect(State::Body(Body::TightData(self.rect.area() * TIGHT_PIXEL)), 0);
                } else {
                    self.expect(State::Body(Body::TightFilter), 1);
                }
            }
            _ => return Err(Fault(format!("Tight control byte {control:#04x}"))),
        }
        Ok(())
    }
}

fn check_cursor(rect: Rect) -> Result<(), Fault> {
    if rect.area() > MAX_CURSOR {
        return Err(Fault(format!("a cursor of {}×{}", rect.w, rect.h)));
    }
    Ok(())
}
