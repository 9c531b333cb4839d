// SPDX-License-Identifier: Apache-2.0
//! Valid hypervisor streams, made up from a seed straight from the tables of RFC 6143 and rfbproto.
#![expect(clippy::cast_possible_truncation, reason = "test data is made of small numbers")]

use crate::rfb::encoding::Encoding;
use std::ops::Range;

/// The screen of every scene.
pub(crate) const SIZE: (u16, u16) = (200, 150);

/// Chance with a seed (xorshift).
pub(crate) struct Dice(pub(crate) u64);

impl Dice {
    pub(crate) fn roll(&mut self, below: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 11) % below
    }

    fn bytes(&mut self, count: u64, into: &mut Vec<u8>) {
        for _ in 0..count {
            into.push(self.roll(256) as u8);
        }
    }
}

/// What a message of a scene is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    Update,
    Text,
    Other,
}

/// A stream and where its messages are.
pub(crate) struct Scene {
    pub(crate) bytes: Vec<u8>,
    pub(crate) messages: Vec<(Range<usize>, Kind)>,
}

impl Scene {
    /// The stream without the clipboard texts.
    pub(crate) fn without_texts(&self) -> Vec<u8> {
        let kept = self.messages.iter().filter(|(_, kind)| *kind != Kind::Text);
        kept.flat_map(|(range, _)| self.bytes[range.clone()].to_vec()).collect()
    }
}

/// A scene of `count` messages.
pub(crate) fn scene(seed: u64, count: u64) -> Scene {
    let mut dice = Dice(seed | 1);
    let (mut bytes, mut messages) = (Vec::new(), Vec::new());
    for _ in 0..count {
        let start = bytes.len();
        let kind = match dice.roll(10) {
            0 => {
                bytes.extend_from_slice(&[3, 0, 0, 0]);
                let length = dice.roll(40);
                bytes.extend_from_slice(&(length as u32).to_be_bytes());
                dice.bytes(length, &mut bytes);
                Kind::Text
            }
            1 => {
                bytes.push(2);
                Kind::Other
            }
            2 => {
                let colours = dice.roll(20);
                bytes.extend_from_slice(&[1, 0, 0, 0]);
                bytes.extend_from_slice(&(colours as u16).to_be_bytes());
                dice.bytes(6 * colours, &mut bytes);
                Kind::Other
            }
            3 => {
                bytes.push(150);
                Kind::Other
            }
            4 => {
                let length = dice.roll(65);
                bytes.extend_from_slice(&[248, 0, 0, 0, 128, 0, 0, 3, length as u8]);
                dice.bytes(length, &mut bytes);
                Kind::Other
            }
            _ => {
                update(&mut dice, &mut bytes);
                Kind::Update
            }
        };
        messages.push((start..bytes.len(), kind));
    }
    Scene { bytes, messages }
}

fn update(dice: &mut Dice, out: &mut Vec<u8>) {
    let count = dice.roll(5) as u16;
    let open_ended = dice.roll(3) == 0;
    out.extend_from_slice(&[0, 0]);
    out.extend_from_slice(&if open_ended { u16::MAX } else { count }.to_be_bytes());
    for _ in 0..count {
        rect(dice, out);
    }
    if open_ended {
        head(out, [0; 4], Encoding::LastRect);
    }
}

fn head(out: &mut Vec<u8>, rect: [u16; 4], encoding: Encoding) {
    use crate::rfb::WireNumber as _;
    for number in rect {
        out.extend_from_slice(&number.to_be_bytes());
    }
    out.extend_from_slice(&encoding.number().to_be_bytes());
}

/// One rectangle.
fn rect(dice: &mut Dice, out: &mut Vec<u8>) {
    let (w, h) = (dice.roll(40) as u16, dice.roll(40) as u16);
    let place = [dice.roll(u64::from(SIZE.0 - w)) as u16, dice.roll(u64::from(SIZE.1 - h)) as u16, w, h];
    let area = u64::from(w) * u64::from(h);
    let kinds: Vec<Encoding> = Encoding::ALL
        .iter()
        .copied()
        .filter(|one| !matches!(one, Encoding::LastRect | Encoding::Fence | Encoding::ContinuousUpdates))
        .collect();
    let encoding = kinds[dice.roll(kinds.len() as u64) as usize];
    head(out, if encoding == Encoding::DesktopSize { [0, 0, SIZE.0, SIZE.1] } else { place }, encoding);
    match encoding {
        Encoding::Raw => dice.bytes(area * 4, out),
        Encoding::CopyRect => {
            for number in [dice.roll(u64::from(SIZE.0 - w)), dice.roll(u64::from(SIZE.1 - h))] {
                out.extend_from_slice(&(number as u16).to_be_bytes());
            }
        }
        Encoding::Rre => {
            let parts = if area == 0 { 0 } else { dice.roll(area.min(9)) };
            out.extend_from_slice(&(parts as u32).to_be_bytes());
            dice.bytes(4 + 12 * parts, out);
        }
        Encoding::Hextile => {
            for y in (0..h).step_by(16) {
                for x in (0..w).step_by(16) {
                    let tile = u64::from((w - x).min(16)) * u64::from((h - y).min(16));
                    hextile(dice, out, tile);
                }
            }
        }
        Encoding::Zlib | Encoding::Zrle => {
            let length = dice.roll(900);
            out.extend_from_slice(&(length as u32).to_be_bytes());
            dice.bytes(length, out);
        }
        Encoding::Tight => tight(dice, out, w, h),
        Encoding::TightPng => match dice.roll(3) {
            0 => {
                out.push(0x80);
                dice.bytes(3, out);
            }
            kind => {
                out.push(if kind == 1 { 0x90 } else { 0xa0 });
                compact(dice, out);
            }
        },
        Encoding::Cursor => dice.bytes(area * 4 + u64::from(w.div_ceil(8)) * u64::from(h), out),
        Encoding::VmwareCursor => {
            let kind = dice.roll(2);
            out.extend_from_slice(&[kind as u8, 0]);
            dice.bytes(area * if kind == 0 { 8 } else { 4 }, out);
        }
        Encoding::LedState => dice.bytes(1, out),
        Encoding::DesktopName => {
            let length = dice.roll(50);
            out.extend_from_slice(&(length as u32).to_be_bytes());
            dice.bytes(length, out);
        }
        Encoding::ExtendedDesktopSize => {
            // the answer to a refused request: the screen stays as it is
            let start = out.len() - 12;
            out[start..start + 4].copy_from_slice(&[0, 1, 0, 3]);
            let screens = dice.roll(3);
            out.extend_from_slice(&[screens as u8, 0, 0, 0]);
            dice.bytes(16 * screens, out);
        }
        Encoding::DesktopSize
        | Encoding::ExtendedKey
        | Encoding::ExtendedMouse
        | Encoding::LastRect
        | Encoding::Fence
        | Encoding::ContinuousUpdates => {}
    }
}

fn hextile(dice: &mut Dice, out: &mut Vec<u8>, tile: u64) {
    let mask = dice.roll(32) as u8;
    out.push(mask);
    if mask & 1 != 0 {
        dice.bytes(tile * 4, out);
        return;
    }
    if mask & 2 != 0 {
        dice.bytes(4, out);
    }
    if mask & 4 != 0 {
        dice.bytes(4, out);
    }
    if mask & 8 != 0 {
        let parts = dice.roll(6);
        out.push(parts as u8);
        dice.bytes(parts * if mask & 16 != 0 { 6 } else { 2 }, out);
    }
}

fn tight(dice: &mut Dice, out: &mut Vec<u8>, w: u16, h: u16) {
    let resets = dice.roll(16) as u8;
    let stream = (dice.roll(4) as u8) << 4;
    let area = u64::from(w) * u64::from(h);
    let plain = match dice.roll(6) {
        0 => {
            out.push(0x80 | resets);
            return dice.bytes(3, out);
        }
        1 => {
            out.push(0x90 | resets);
            return compact(dice, out);
        }
        2 => {
            out.push(stream | resets);
            area * 3
        }
        3 => {
            out.extend_from_slice(&[0x40 | stream | resets, 0]);
            area * 3
        }
        4 => {
            out.extend_from_slice(&[0x40 | stream | resets, 2]);
            area * 3
        }
        _ => {
            let most = if dice.roll(2) == 0 { 2 } else { 256 };
            let colours = 1 + dice.roll(most);
            out.extend_from_slice(&[0x40 | stream | resets, 1, (colours - 1) as u8]);
            dice.bytes(colours * 3, out);
            u64::from(h) * if colours <= 2 { u64::from(w.div_ceil(8)) } else { u64::from(w) }
        }
    };
    if plain < 12 {
        dice.bytes(plain, out);
    } else {
        compact(dice, out);
    }
}

fn compact(dice: &mut Dice, out: &mut Vec<u8>) {
    let limit = [100, 1000, 20_000][dice.roll(3) as usize];
    let length = dice.roll(limit);
    match length {
        0..128 => out.push(length as u8),
        128..16_384 => out.extend_from_slice(&[(length & 0x7f | 0x80) as u8, (length >> 7) as u8]),
        _ => out.extend_from_slice(&[
            (length & 0x7f | 0x80) as u8,
            (length >> 7 & 0x7f | 0x80) as u8,
            (length >> 14) as u8,
        ]),
    }
    dice.bytes(length, out);
}
