// SPDX-License-Identifier: Apache-2.0
//! Follows the framing of what a hypervisor sends, byte by byte across any reads, without looking at pixels.
//!
//! Nothing is buffered but one header of at most 12 bytes, and nothing is allocated by a number from the wire. Payloads
//! are skipped by count, so that the cost is one comparison a payload and not one a byte. One unparsed byte would
//! make everything after it meaningless: what is unknown, not asked for, or outside the screen is a [`Fault`].
//!
//! ```text
//! Type → header → (rectangle head → rectangle body)* → Type
//! ```

use super::{
    WireNumber as _, be16, be32, byte,
    encoding::{Asked, Encoding, ServerMessage},
    fits,
};
use std::time::Duration;

/// What a peer did wrong, in words for people.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Fault(pub(crate) String);

/// Bytes of a cut text that either side may announce; QEMU closes beyond it too.
pub(crate) const MAX_ANNOUNCED_TEXT: u32 = 1 << 20;
/// Payload bytes of a fence (rfbproto).
pub(crate) const MAX_FENCE: u8 = 64;
/// Screen sizes that may follow each other at once; refilled by [`RESIZES_PER_SECOND`].
const RESIZE_BURST: u32 = 60;
/// A guest that boots changes its size a few times; a storm is an attack on the viewer.
const RESIZES_PER_SECOND: u32 = 6;

/// What happens to the bytes of one step.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fate {
    /// They go on to the viewer.
    Pass,
    /// They go nowhere. If [`Walker::take_held`] has something then, it goes on instead.
    Drop,
}

/// One step through the stream: never beyond the end of a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Walked {
    /// Bytes of the input.
    pub(crate) taken: usize,
    /// What happens to them.
    pub(crate) fate: Fate,
    /// Whether they begin a message.
    pub(crate) first: bool,
}

/// How many bytes of clipboard text may pass in one direction at once.
pub(crate) type TextLimit = Option<u32>;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum State {
    /// The type byte of a message.
    Type,
    /// The rest of a message's header.
    Header(ServerMessage),
    /// The payload of a message that has no rectangles.
    Tail,
    /// The 12 bytes in front of a rectangle.
    RectHead,
    /// Behind a rectangle.
    RectEnd,
    /// Inside a rectangle; see [`super::rect`].
    Body(super::rect::Body),
}

/// The state of one hypervisor's stream.
#[derive(Debug)]
pub(crate) struct Walker {
    pub(super) state: State,
    head: [u8; 12],
    have: usize,
    need: usize,
    pub(super) skip: u64,
    fate: Fate,
    held: Option<[u8; 8]>,
    rects: u32,
    pub(super) rect: super::rect::Rect,
    size: (u16, u16),
    asked: Asked,
    confirmed: Asked,
    clipboard_out: TextLimit,
    resizes: (u32, Duration),
    /// Screen updates so far.
    pub(crate) updates: u64,
    /// Clipboard texts that were not passed on.
    pub(crate) texts_dropped: u64,
    /// Clipboard texts that were passed on.
    pub(crate) texts_passed: u64,
}

impl Walker {
    /// For a stream that stands behind ServerInit.
    pub(crate) fn new(width: u16, height: u16, clipboard_out: TextLimit) -> Self {
        Self {
            state: State::Type,
            head: [0; 12],
            have: 0,
            need: 1,
            skip: 0,
            fate: Fate::Pass,
            held: None,
            rects: 0,
            rect: super::rect::Rect::default(),
            size: (width, height),
            asked: Asked::default(),
            confirmed: Asked::default(),
            clipboard_out,
            resizes: (RESIZE_BURST, Duration::ZERO),
            updates: 0,
            texts_dropped: 0,
            texts_passed: 0,
        }
    }

    /// Remembers that the viewer asked for an encoding.
    pub(crate) fn ask(&mut self, encoding: Encoding) {
        self.asked.add(encoding);
    }

    /// Whether the hypervisor has shown that it understands an extension.
    pub(crate) fn has_confirmed(&self, encoding: Encoding) -> bool {
        self.confirmed.has(encoding)
    }

    /// The screen's size now.
    #[cfg(test)]
    pub(crate) fn size(&self) -> (u16, u16) {
        self.size
    }

    /// The 8 bytes that were held back until it was clear that their message may pass.
    pub(crate) fn take_held(&mut self) -> Option<[u8; 8]> {
        self.held.take()
    }

    /// Walks to the end of the message or of `data`, whichever comes first. `since` is the time since the session began.
    pub(crate) fn step(&mut self, data: &[u8], since: Duration) -> Result<Walked, Fault> {
        let first = self.state == State::Type;
        let mut rest = data;
        loop {
            if self.skip > 0 {
                let here = usize::try_from(self.skip).unwrap_or(usize::MAX).min(rest.len());
                rest = rest.get(here..).unwrap_or_default();
                self.skip -= here as u64;
                if self.skip > 0 {
                    break;
                }
            }
            if self.have < self.need {
                let (now, later) = rest.split_at((self.need - self.have).min(rest.len()));
                if let Some(slot) = self.head.get_mut(self.have..self.have + now.len()) {
                    slot.copy_from_slice(now);
                }
                rest = later;
                self.have += now.len();
                if self.have < self.need {
                    break;
                }
            }
            let taken = data.len() - rest.len();
            match self.advance(since)? {
                Next::More => {}
                Next::Ended => {
                    let fate = std::mem::replace(&mut self.fate, Fate::Pass);
                    return Ok(Walked { taken, fate, first });
                }
                Next::Released => {
                    self.fate = Fate::Pass;
                    return Ok(Walked { taken, fate: Fate::Drop, first });
                }
            }
        }
        Ok(Walked { taken: data.len() - rest.len(), fate: self.fate, first })
    }

    /// The header is complete (or none was needed): decides what comes next.
    fn advance(&mut self, since: Duration) -> Result<Next, Fault> {
        let head = self.head;
        match self.state {
            State::Type => self.begin_message(byte(&head, 0)),
            State::Header(message) => self.read_header(message, &head),
            State::Tail => Ok(self.end_message()),
            State::RectHead => {
                self.begin_rect(&head, since)?;
                Ok(Next::More)
            }
            State::RectEnd => {
                self.rects = self.rects.saturating_sub(1);
                if self.rects == 0 {
                    return Ok(self.end_message());
                }
                self.expect(State::RectHead, 12);
                Ok(Next::More)
            }
            State::Body(body) => {
                self.walk_body(body, &head)?;
                Ok(Next::More)
            }
        }
    }

    /// What is read next: a state and the bytes that it needs.
    pub(super) fn expect(&mut self, state: State, need: usize) {
        self.state = state;
        self.need = need;
        self.have = 0;
    }

    /// Skips a payload and then goes to a state that needs no bytes.
    pub(super) fn skip_to(&mut self, count: u64, state: State) {
        self.skip = count;
        self.expect(state, 0);
    }

    fn end_message(&mut self) -> Next {
        self.expect(State::Type, 1);
        Next::Ended
    }

    fn begin_message(&mut self, number: u8) -> Result<Next, Fault> {
        let Some(message) = ServerMessage::from_number(number) else {
            return Err(Fault(format!("message type {number}, which nobody asked for")));
        };
        let header = match message {
            ServerMessage::Update => 4,
            ServerMessage::ColourMap => 6,
            ServerMessage::Bell => return Ok(self.end_message()),
            ServerMessage::CutText => {
                // what is held here is released by the header, if the text may pass
                self.fate = Fate::Drop;
                8
            }
            ServerMessage::EndOfContinuousUpdates => {
                self.confirm(Encoding::ContinuousUpdates)?;
                return Ok(self.end_message());
            }
            ServerMessage::Fence => {
                self.confirm(Encoding::Fence)?;
                9
            }
        };
        self.state = State::Header(message);
        self.need = header;
        Ok(Next::More)
    }

    fn read_header(&mut self, message: ServerMessage, head: &[u8; 12]) -> Result<Next, Fault> {
        match message {
            ServerMessage::Update => {
                self.updates += 1;
                self.rects = u32::from(be16(head, 2));
                if self.rects == 0 {
                    return Ok(self.end_message());
                }
                self.expect(State::RectHead, 12);
            }
            ServerMessage::ColourMap => self.skip_to(6 * u64::from(be16(head, 4)), State::Tail),
            ServerMessage::CutText => return self.read_text(head),
            ServerMessage::Fence => {
                let length = byte(head, 8);
                if length > MAX_FENCE {
                    return Err(Fault(format!("a fence of {length} bytes")));
                }
                self.skip_to(u64::from(length), State::Tail);
            }
            ServerMessage::Bell | ServerMessage::EndOfContinuousUpdates => return Ok(self.end_message()),
        }
        Ok(Next::More)
    }

    fn read_text(&mut self, head: &[u8; 12]) -> Result<Next, Fault> {
        let length = be32(head, 4);
        if length > MAX_ANNOUNCED_TEXT {
            return Err(Fault(format!("a clipboard text of {length} bytes")));
        }
        if self.clipboard_out.is_none_or(|limit| length > limit) {
            self.texts_dropped += 1;
            self.skip_to(u64::from(length), State::Tail);
            return Ok(Next::More);
        }
        self.texts_passed += 1;
        self.held = head.first_chunk().copied();
        if length == 0 {
            self.expect(State::Type, 1);
        } else {
            self.skip_to(u64::from(length), State::Tail);
        }
        Ok(Next::Released)
    }

    /// Notes that the hypervisor speaks an extension; it may only if the viewer asked.
    pub(super) fn confirm(&mut self, encoding: Encoding) -> Result<(), Fault> {
        if !self.asked.has(encoding) {
            return Err(Fault(format!("{encoding:?}, which nobody asked for")));
        }
        self.confirmed.add(encoding);
        Ok(())
    }

    /// Whether a rectangle lies on the screen.
    pub(super) fn is_on_screen(&self, rect: super::rect::Rect) -> bool {
        u32::from(rect.x) + u32::from(rect.w) <= u32::from(self.size.0)
            && u32::from(rect.y) + u32::from(rect.h) <= u32::from(self.size.1)
    }

    /// This rectangle is the update's last one.
    pub(super) fn end_rects(&mut self) {
        self.rects = 1;
    }

    /// Takes over another screen size.
    pub(super) fn resize(&mut self, width: u16, height: u16, since: Duration) -> Result<(), Fault> {
        if !fits(width, height) {
            return Err(Fault(format!("a screen of {width}×{height}")));
        }
        let (left, at) = self.resizes;
        let seconds = u32::try_from(since.saturating_sub(at).as_secs()).unwrap_or(u32::MAX);
        let left = left.saturating_add(seconds.saturating_mul(RESIZES_PER_SECOND)).min(RESIZE_BURST);
        if left == 0 {
            return Err(Fault("too many changes of the screen's size".to_owned()));
        }
        self.resizes = (left - 1, if seconds > 0 { since } else { at });
        self.size = (width, height);
        Ok(())
    }
}

/// What [`Walker::advance`] came to.
enum Next {
    /// The message goes on.
    More,
    /// The message is complete.
    Ended,
    /// The header was held back and may go on, and so may the rest.
    Released,
}

#[cfg(test)]
mod tests;
