// SPDX-License-Identifier: Apache-2.0
//! Reads what a viewer sends, message by message across any reads, and lets pass what policy allows.
//!
//! The gateway is the viewer's RFB 3.8 server and offers exactly "None": the WebSocket around it is authenticated.
//! Every byte belongs to a message that was parsed to its end; what has no known length ends the session, because
//! one byte out of step would turn the rest of the stream into keystrokes nobody typed.

use super::{
    PINNED_FORMAT, ScreenInfo, WireNumber as _, be16, be32, byte,
    encoding::{ALLOWED_COUNT, Encoding, SecurityType, ViewerMessage, allowed},
    stream::{Fault, MAX_ANNOUNCED_TEXT, MAX_FENCE, TextLimit, Walker},
};
use portcullis_domain::ConsoleMode;

/// Encodings that a viewer may list; noVNC lists 27.
const MAX_LISTED: u16 = 1024;
/// Screens that a viewer may lay out.
const MAX_SCREENS: u8 = 16;
/// The longest message head: a fence with its payload.
const MAX_HEAD: usize = 9 + MAX_FENCE as usize;

/// What a piece of viewer input is, for the recording.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Part {
    /// A whole message, or the beginning of one.
    Message,
    /// A key event: where its key numbers begin.
    Key(usize),
    /// Clipboard text: continues the message before it.
    Text,
    /// Continues the message before it.
    More,
}

/// Takes what the filter lets through.
pub(crate) trait Sink {
    /// Bytes for the hypervisor.
    fn forward(&mut self, part: Part, bytes: &[u8]);
    /// Bytes for the viewer (handshake only).
    fn reply(&mut self, bytes: &[u8]);
    /// Something was dropped by policy.
    fn note_dropped(&mut self);
    /// A person touched a key or the pointer, whether or not it was let through.
    fn note_input(&mut self, kind: Touch);
}

/// What a person touched.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Touch {
    /// A key.
    Key,
    /// The pointer.
    Pointer,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stage {
    Version,
    Security,
    Init,
    Running,
}

/// What is left of a message behind its head.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Body {
    None,
    Pass(Part, u32),
    Drop(u32),
    Encodings(u32),
}

/// The state of one viewer's stream.
#[derive(Debug)]
pub(crate) struct Filter {
    stage: Stage,
    mode: ConsoleMode,
    clipboard_in: TextLimit,
    info: Option<ScreenInfo>,
    part: [u8; MAX_HEAD],
    have: usize,
    body: Body,
    listed: [i32; ALLOWED_COUNT],
    listed_count: usize,
    /// Clipboard texts that were passed on.
    pub(crate) texts_passed: u64,
}

impl Filter {
    /// For a viewer that has said nothing yet and will be shown `info`.
    pub(crate) fn new(mode: ConsoleMode, clipboard_in: TextLimit, info: ScreenInfo) -> Self {
        Self {
            stage: Stage::Version,
            mode,
            clipboard_in,
            info: Some(info),
            part: [0; MAX_HEAD],
            have: 0,
            body: Body::None,
            listed: [0; ALLOWED_COUNT],
            listed_count: 0,
            texts_passed: 0,
        }
    }

    /// What the gateway says first.
    pub(crate) const HELLO: &[u8] = b"RFB 003.008\n";

    /// Whether the viewer has finished its handshake.
    pub(crate) fn is_running(&self) -> bool {
        self.stage == Stage::Running
    }

    /// Takes the next bytes of the viewer.
    pub(crate) fn feed(&mut self, mut input: &[u8], walker: &mut Walker, sink: &mut impl Sink) -> Result<(), Fault> {
        while !input.is_empty() {
            if self.body != Body::None {
                input = self.feed_body(input, walker, sink);
                continue;
            }
            if self.have == 0 {
                let need = self.head_length(input, walker)?;
                if let Some((head, rest)) = input.split_at_checked(need) {
                    // a longer look may need more bytes than the first one said
                    if self.head_length(head, walker)? == need {
                        self.take_head(head, walker, sink)?;
                        input = rest;
                        continue;
                    }
                }
            }
            let part = self.part;
            let seen = part.get(..self.have).unwrap_or_default();
            let need = self.head_length(seen, walker)?;
            let (now, rest) = input.split_at(need.saturating_sub(self.have).min(input.len()));
            if let Some(slot) = self.part.get_mut(self.have..self.have + now.len()) {
                slot.copy_from_slice(now);
            }
            self.have += now.len();
            input = rest;
            let part = self.part;
            let seen = part.get(..self.have).unwrap_or_default();
            if self.have > 0 && self.head_length(seen, walker)? == self.have {
                self.have = 0;
                self.take_head(seen, walker, sink)?;
            }
        }
        Ok(())
    }

    /// How many bytes the head has, as far as the bytes seen can tell: never fewer than it really has once that many
    /// are seen, and never more than [`MAX_HEAD`].
    fn head_length(&self, seen: &[u8], walker: &Walker) -> Result<usize, Fault> {
        match self.stage {
            Stage::Version => return Ok(12),
            Stage::Security | Stage::Init => return Ok(1),
            Stage::Running => {}
        }
        let Some(number) = seen.first().copied() else { return Ok(1) };
        let Some(message) = ViewerMessage::from_number(number) else {
            return Err(Fault(format!("message type {number}, which the gateway does not pass")));
        };
        Ok(match message {
            ViewerMessage::SetPixelFormat => 20,
            ViewerMessage::SetEncodings => 4,
            ViewerMessage::UpdateRequest | ViewerMessage::ContinuousUpdates => 10,
            ViewerMessage::Key | ViewerMessage::CutText | ViewerMessage::SetDesktopSize => 8,
            ViewerMessage::Pointer if !walker.has_confirmed(Encoding::ExtendedMouse) => 6,
            ViewerMessage::Pointer | ViewerMessage::Qemu if seen.len() < 2 => 2,
            ViewerMessage::Pointer => 6 + usize::from(byte(seen, 1) >> 7),
            ViewerMessage::Fence if seen.len() < 9 => 9,
            ViewerMessage::Fence => {
                let length = byte(seen, 8);
                if length > MAX_FENCE {
                    return Err(Fault(format!("a fence of {length} bytes")));
                }
                9 + usize::from(length)
            }
            ViewerMessage::Power => {
                return Err(Fault("a power command: use the machine's power buttons instead".to_owned()));
            }
            ViewerMessage::Qemu if byte(seen, 1) == 0 => 12,
            ViewerMessage::Qemu => {
                return Err(Fault(format!("QEMU message {}, which the gateway does not pass", byte(seen, 1))));
            }
        })
    }

    fn take_head(&mut self, head: &[u8], walker: &mut Walker, sink: &mut impl Sink) -> Result<(), Fault> {
        match self.stage {
            Stage::Running => return self.take_message(head, walker, sink),
            Stage::Version => {
                if head != Self::HELLO {
                    return Err(Fault("another version than RFB 3.8".to_owned()));
                }
                self.stage = Stage::Security;
                sink.reply(&[1, SecurityType::None.number()]);
            }
            Stage::Security => {
                if byte(head, 0) != SecurityType::None.number() {
                    return Err(Fault("a security type that was not offered".to_owned()));
                }
                self.stage = Stage::Init;
                sink.reply(&[0; 4]);
            }
            Stage::Init => {
                // whether it wants the screen for itself does not matter: the gateway shares
                self.stage = Stage::Running;
                if let Some(info) = self.info.take() {
                    sink.reply(&info.server_init());
                }
            }
        }
        Ok(())
    }

    fn take_message(&mut self, head: &[u8], walker: &mut Walker, sink: &mut impl Sink) -> Result<(), Fault> {
        let Some(message) = ViewerMessage::from_number(byte(head, 0)) else { return Ok(()) };
        match message {
            ViewerMessage::SetPixelFormat => {
                // the padding at the end carries nothing
                let asked = head.get(4..17);
                if asked != PINNED_FORMAT.get(..13) {
                    return Err(Fault("another pixel format than 32 bits, depth 24, little-endian".to_owned()));
                }
            }
            ViewerMessage::SetEncodings => {
                let count = be16(head, 2);
                if count > MAX_LISTED {
                    return Err(Fault(format!("a list of {count} encodings")));
                }
                self.listed_count = 0;
                self.body = Body::Encodings(u32::from(count));
                if count == 0 {
                    self.end_encodings(sink);
                }
            }
            ViewerMessage::UpdateRequest => sink.forward(Part::Message, head),
            ViewerMessage::ContinuousUpdates => {
                require(walker, Encoding::ContinuousUpdates)?;
                sink.forward(Part::Message, head);
            }
            ViewerMessage::Fence => {
                require(walker, Encoding::Fence)?;
                sink.forward(Part::Message, head);
            }
            ViewerMessage::Key => self.take_input(Touch::Key, Part::Key(4), head, sink),
            ViewerMessage::Qemu => {
                require(walker, Encoding::ExtendedKey)?;
                self.take_input(Touch::Key, Part::Key(4), head, sink);
            }
            ViewerMessage::Pointer => self.take_input(Touch::Pointer, Part::Message, head, sink),
            ViewerMessage::CutText => self.take_text(head, sink)?,
            ViewerMessage::SetDesktopSize => {
                require(walker, Encoding::ExtendedDesktopSize)?;
                let screens = byte(head, 6);
                if screens > MAX_SCREENS {
                    return Err(Fault(format!("a layout of {screens} screens")));
                }
                let length = 16 * u32::from(screens);
                if self.mode == ConsoleMode::View {
                    sink.note_dropped();
                    self.body = left(Body::Drop(length));
                } else {
                    sink.forward(Part::Message, head);
                    self.body = left(Body::Pass(Part::More, length));
                }
            }
            // refused by `head_length`
            ViewerMessage::Power => {}
        }
        Ok(())
    }

    fn take_input(&self, kind: Touch, part: Part, head: &[u8], sink: &mut impl Sink) {
        sink.note_input(kind);
        match self.mode {
            ConsoleMode::Control => sink.forward(part, head),
            ConsoleMode::View => sink.note_dropped(),
        }
    }

    fn take_text(&mut self, head: &[u8], sink: &mut impl Sink) -> Result<(), Fault> {
        let length = be32(head, 4);
        if length > MAX_ANNOUNCED_TEXT {
            // negative lengths are the extended clipboard, which is never offered
            return Err(Fault(format!("a clipboard text of {length} bytes")));
        }
        if self.mode == ConsoleMode::View || self.clipboard_in.is_none_or(|limit| length > limit) {
            sink.note_dropped();
            self.body = left(Body::Drop(length));
        } else {
            self.texts_passed += 1;
            sink.forward(Part::Message, head);
            self.body = left(Body::Pass(Part::Text, length));
        }
        Ok(())
    }

    fn feed_body<'a>(&mut self, input: &'a [u8], walker: &mut Walker, sink: &mut impl Sink) -> &'a [u8] {
        match self.body {
            Body::None => input,
            Body::Pass(part, count) => {
                let (now, rest) = input.split_at(input.len().min(count as usize));
                sink.forward(part, now);
                self.body = left(Body::Pass(part, count.saturating_sub(count_of(now))));
                rest
            }
            Body::Drop(count) => {
                let (now, rest) = input.split_at(input.len().min(count as usize));
                self.body = left(Body::Drop(count.saturating_sub(count_of(now))));
                rest
            }
            Body::Encodings(count) => {
                let (now, rest) = input.split_at(input.len().min(4 - self.have.min(3)));
                if let Some(slot) = self.part.get_mut(self.have..self.have + now.len()) {
                    slot.copy_from_slice(now);
                }
                self.have += now.len();
                if self.have == 4 {
                    self.have = 0;
                    self.list(be32(&self.part, 0).cast_signed(), walker);
                    self.body = Body::Encodings(count - 1);
                    if count == 1 {
                        self.end_encodings(sink);
                    }
                }
                rest
            }
        }
    }

    /// Keeps an encoding of the viewer's list if it may be asked for, once, in the viewer's order.
    fn list(&mut self, number: i32, walker: &mut Walker) {
        let known = self.listed.get(..self.listed_count).unwrap_or_default();
        if !allowed(number) || known.contains(&number) {
            return;
        }
        if let Some(slot) = self.listed.get_mut(self.listed_count) {
            *slot = number;
            self.listed_count += 1;
        }
        if let Some(encoding) = Encoding::from_number(number) {
            walker.ask(encoding);
        }
    }

    fn end_encodings(&mut self, sink: &mut impl Sink) {
        self.body = Body::None;
        let mut message = [0; 4 + 4 * ALLOWED_COUNT];
        let count = u16::try_from(self.listed_count).unwrap_or(0);
        let [high, low] = count.to_be_bytes();
        let head = [ViewerMessage::SetEncodings.number(), 0, high, low];
        let numbers = self.listed.iter().take(self.listed_count).flat_map(|number| number.to_be_bytes());
        let mut length = 0;
        for (slot, byte) in message.iter_mut().zip(head.into_iter().chain(numbers)) {
            *slot = byte;
            length += 1;
        }
        sink.forward(Part::Message, message.get(..length).unwrap_or_default());
    }
}

/// A body with nothing left is none.
fn left(body: Body) -> Body {
    match body {
        Body::Pass(_, 0) | Body::Drop(0) => Body::None,
        other => other,
    }
}

fn count_of(bytes: &[u8]) -> u32 {
    u32::try_from(bytes.len()).unwrap_or(u32::MAX)
}

/// A message that a hypervisor without the extension would misread, with all that follows, must not reach it.
fn require(walker: &Walker, encoding: Encoding) -> Result<(), Fault> {
    if walker.has_confirmed(encoding) {
        Ok(())
    } else {
        Err(Fault(format!("a message of {encoding:?}, which this screen has not confirmed")))
    }
}

#[cfg(test)]
mod tests;
