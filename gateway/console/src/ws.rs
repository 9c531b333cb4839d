// SPDX-License-Identifier: Apache-2.0
//! WebSocket framing (RFC 6455), the server's side: binary messages as a stream of bytes.
//!
//! Own code, no library, because the data path writes a frame's header in front of bytes that already lie in the read
//! buffer, and unmasks in place. Frame boundaries carry no meaning for RFB, so payloads come out as one stream.

use crate::rfb::{WireNumber as _, be16, be32, byte};
use aws_lc_rs::digest;
use base64::Engine as _;

/// Payload bytes that one frame of a browser may have.
pub(crate) const MAX_FRAME: u64 = 256 * 1024;
/// Payload bytes that one message of a browser may have, over all its fragments.
pub(crate) const MAX_MESSAGE: u64 = 1 << 20;
/// Fragments that one message may have: empty ones cost nothing to send for ever.
const MAX_FRAGMENTS: u32 = 1024;
/// Payload bytes of a control frame (RFC 6455 section 5.5).
pub(crate) const MAX_CONTROL: usize = 125;
/// Bytes that a server's frame header has at most.
pub(crate) const HEADER: usize = 10;

/// The value of `Sec-WebSocket-Accept` for a `Sec-WebSocket-Key` (RFC 6455 section 4.2.2).
pub fn accept_key(key: &str) -> String {
    let mut context = digest::Context::new(&digest::SHA1_FOR_LEGACY_USE_ONLY);
    context.update(key.trim().as_bytes());
    context.update(b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11");
    base64::engine::general_purpose::STANDARD.encode(context.finish())
}

crate::rfb::wire_enum! {
    /// Frame types (RFC 6455 section 5.2).
    pub(crate) enum Opcode: u8 {
        /// The next fragment.
        Continuation = 0,
        /// Text, which RFB never is.
        Text = 1,
        /// Bytes.
        Binary = 2,
        /// The last frame.
        Close = 8,
        /// Asks for a pong.
        Ping = 9,
        /// Answers a ping.
        Pong = 10,
    }
}

crate::rfb::wire_enum! {
    /// Close codes: RFC 6455 section 7.4.1, and from 4000 on our own, which the console page explains.
    pub(crate) enum CloseCode: u16 {
        /// The purpose is fulfilled.
        Normal = 1000,
        /// The gateway goes away.
        GoingAway = 1001,
        /// Against the protocol.
        Protocol = 1002,
        /// Text.
        Unsupported = 1003,
        /// More than is allowed of something.
        Policy = 1008,
        /// A frame or message is too large.
        TooBig = 1009,
        /// Access was taken away.
        Cut = 4000,
        /// Nobody touched anything.
        Idle = 4001,
        /// The allowed time is over.
        TimeUp = 4002,
        /// The recording cannot be written.
        RecordingFailed = 4003,
        /// The hypervisor closed or broke the stream.
        Upstream = 4004,
    }
}

/// What a browser did wrong, and the code that it is told.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct WsFault {
    pub(crate) code: CloseCode,
    pub(crate) what: &'static str,
}

/// What control frames said since the last look.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Noticed {
    /// Control frames.
    pub(crate) controls: u32,
    /// A close frame came; the code to echo. Nothing behind it counts.
    pub(crate) closed: Option<u16>,
    /// Payload bytes of the last unanswered ping, in [`Decoder::ping`].
    pub(crate) ping: Option<usize>,
}

/// The state of the browser's frames.
#[derive(Debug)]
pub(crate) struct Decoder {
    head: [u8; 14],
    have: usize,
    left: u64,
    mask: [u8; 4],
    opcode: Opcode,
    fin: bool,
    /// Payload bytes and fragments of the message so far; none outside a message.
    message: Option<(u64, u32)>,
    control: [u8; MAX_CONTROL],
    control_have: usize,
    ping: [u8; MAX_CONTROL],
}

impl Default for Decoder {
    fn default() -> Self {
        Self {
            head: [0; 14],
            have: 0,
            left: 0,
            mask: [0; 4],
            opcode: Opcode::Binary,
            fin: true,
            message: None,
            control: [0; MAX_CONTROL],
            control_have: 0,
            ping: [0; MAX_CONTROL],
        }
    }
}

impl Decoder {
    /// Takes what was read, unmasks data in place, moves it to the front of `bytes`, and tells how many there are.
    pub(crate) fn decode(&mut self, bytes: &mut [u8], noticed: &mut Noticed) -> Result<usize, WsFault> {
        let (mut at, mut out) = (0, 0);
        while at < bytes.len() && noticed.closed.is_none() {
            if self.left == 0 {
                let Some(rest) = bytes.get(at..) else { break };
                at += self.read_head(rest)?;
                if self.have == 0 && self.left == 0 {
                    self.end_frame(noticed)?;
                }
                continue;
            }
            let here = usize::try_from(self.left).unwrap_or(usize::MAX).min(bytes.len() - at);
            let Some(piece) = bytes.get_mut(at..at + here) else { break };
            unmask(piece, self.mask);
            self.mask.rotate_left(here & 3);
            if matches!(self.opcode, Opcode::Close | Opcode::Ping | Opcode::Pong) {
                if let Some(slot) = self.control.get_mut(self.control_have..self.control_have + here) {
                    slot.copy_from_slice(piece);
                }
                self.control_have += here;
            } else {
                if out != at {
                    bytes.copy_within(at..at + here, out);
                }
                out += here;
            }
            at += here;
            self.left -= here as u64;
            if self.left == 0 {
                self.end_frame(noticed)?;
            }
        }
        Ok(out)
    }

    /// The payload of the last ping, of the length that [`Noticed::ping`] tells.
    pub(crate) fn ping(&self, length: usize) -> &[u8] {
        self.ping.get(..length).unwrap_or_default()
    }

    /// Reads header bytes; gives how many. `have` is 0 again once the header is complete.
    fn read_head(&mut self, bytes: &[u8]) -> Result<usize, WsFault> {
        let mut taken = 0;
        for next in bytes {
            if let Some(slot) = self.head.get_mut(self.have) {
                *slot = *next;
            }
            self.have += 1;
            taken += 1;
            if self.have == 2 {
                self.check_start()?;
            }
            if self.have >= head_need(&self.head, self.have) {
                self.end_head()?;
                self.have = 0;
                break;
            }
        }
        Ok(taken)
    }

    /// The first two bytes say nearly all that can be wrong.
    fn check_start(&mut self) -> Result<(), WsFault> {
        let [first, second, ..] = self.head;
        let fault = |what| Err(WsFault { code: CloseCode::Protocol, what });
        if first & 0x70 != 0 {
            return fault("a frame with reserved bits");
        }
        if second & 0x80 == 0 {
            return fault("a frame without a mask");
        }
        let Some(opcode) = Opcode::from_number(first & 0x0f) else {
            return fault("a frame of an unknown type");
        };
        self.opcode = opcode;
        self.fin = first & 0x80 != 0;
        match opcode {
            Opcode::Text => Err(WsFault { code: CloseCode::Unsupported, what: "a text message" }),
            Opcode::Continuation if self.message.is_none() => fault("a fragment of no message"),
            Opcode::Binary if self.message.is_some() => fault("a message inside a message"),
            Opcode::Close | Opcode::Ping | Opcode::Pong if !self.fin => fault("a fragmented control frame"),
            Opcode::Close | Opcode::Ping | Opcode::Pong if usize::from(second & 0x7f) > MAX_CONTROL => {
                fault("a control frame of more than 125 bytes")
            }
            _ => Ok(()),
        }
    }

    fn end_head(&mut self) -> Result<(), WsFault> {
        let second = byte(&self.head, 1);
        let (length, mask_at) = match second & 0x7f {
            126 => (u64::from(be16(&self.head, 2)), 4),
            127 => (u64::from(be32(&self.head, 2)) << 32 | u64::from(be32(&self.head, 6)), 10),
            short => (u64::from(short), 2),
        };
        let shortest = match second & 0x7f {
            126 => length > 125,
            127 => length > 0xffff && length >> 63 == 0,
            _ => true,
        };
        if !shortest {
            return Err(WsFault {
                code: CloseCode::Protocol,
                what: "a frame whose length is not written as it must be",
            });
        }
        if length > MAX_FRAME {
            return Err(WsFault { code: CloseCode::TooBig, what: "a frame of more than 256 KiB" });
        }
        self.left = length;
        self.mask = be32(&self.head, mask_at).to_be_bytes();
        if matches!(self.opcode, Opcode::Binary | Opcode::Continuation) {
            let (bytes, fragments) = self.message.unwrap_or_default();
            let (bytes, fragments) = (bytes + length, fragments + 1);
            if bytes > MAX_MESSAGE {
                return Err(WsFault { code: CloseCode::TooBig, what: "a message of more than 1 MiB" });
            }
            if fragments > MAX_FRAGMENTS {
                return Err(WsFault { code: CloseCode::Policy, what: "a message of more than 1024 fragments" });
            }
            self.message = Some((bytes, fragments));
        } else {
            self.control_have = 0;
        }
        Ok(())
    }

    fn end_frame(&mut self, noticed: &mut Noticed) -> Result<(), WsFault> {
        match self.opcode {
            Opcode::Binary | Opcode::Continuation | Opcode::Text => {
                if self.fin {
                    self.message = None;
                }
                return Ok(());
            }
            Opcode::Ping => {
                // a copy, because another control frame may come before the answer can go
                self.ping = self.control;
                noticed.ping = Some(self.control_have);
            }
            Opcode::Pong => {}
            Opcode::Close => {
                let code = match self.control.get(..self.control_have).unwrap_or_default() {
                    [] => CloseCode::Normal.number(),
                    [high, low, ..] => u16::from_be_bytes([*high, *low]),
                    [_] => return Err(WsFault { code: CloseCode::Protocol, what: "half a close code" }),
                };
                // 1005, 1006 and 1015 must not be sent
                let sendable = matches!(code, 1000..=1003 | 1007..=1014 | 3000..=4999);
                noticed.closed = Some(if sendable { code } else { CloseCode::Protocol.number() });
            }
        }
        noticed.controls += 1;
        Ok(())
    }
}

/// Bytes that a client's frame header needs, as far as `have` bytes can tell.
fn head_need(head: &[u8; 14], have: usize) -> usize {
    let [_, second, ..] = *head;
    match second & 0x7f {
        _ if have < 2 => 2,
        126 => 8,
        127 => 14,
        _ => 6,
    }
}

/// XOR with the frame's key, eight bytes a step; the compiler widens it.
pub(crate) fn unmask(bytes: &mut [u8], mask: [u8; 4]) {
    let [a, b, c, d] = mask;
    let wide = u64::from_ne_bytes([a, b, c, d, a, b, c, d]);
    let (words, rest) = bytes.as_chunks_mut::<8>();
    for word in words {
        *word = (u64::from_ne_bytes(*word) ^ wide).to_ne_bytes();
    }
    for (byte, key) in rest.iter_mut().zip(mask.iter().cycle()) {
        *byte ^= key;
    }
}

/// A server's frame header, right-aligned: the bytes that count are the last of the array.
pub(crate) fn header(opcode: Opcode, length: usize) -> ([u8; HEADER], usize) {
    let mut bytes = [0; HEADER];
    let first = 0x80 | opcode.number();
    let used: usize = match u16::try_from(length) {
        Ok(short) if length < 126 => {
            let [.., a, b] = &mut bytes;
            (*a, *b) = (first, short.to_be_bytes()[1]);
            2
        }
        Ok(medium) => {
            let [.., a, b, c, d] = &mut bytes;
            let [high, low] = medium.to_be_bytes();
            (*a, *b, *c, *d) = (first, 126, high, low);
            4
        }
        Err(_) => {
            let [a, b, rest @ ..] = &mut bytes;
            (*a, *b) = (first, 127);
            *rest = (length as u64).to_be_bytes();
            10
        }
    };
    (bytes, used)
}

/// Appends a whole frame.
pub(crate) fn append(queue: &mut Vec<u8>, opcode: Opcode, payload: &[u8]) {
    let (bytes, used) = header(opcode, payload.len());
    queue.extend_from_slice(bytes.get(HEADER - used..).unwrap_or_default());
    queue.extend_from_slice(payload);
}

#[cfg(test)]
mod tests;
