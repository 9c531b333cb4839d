// SPDX-License-Identifier: Apache-2.0
//! How the log stands on the disk: frames of `u32 length LE | u8 kind | payload | u32 CRC-32`, the CRC over all before
//! it. A length of zero is the end of what was written. The kind of an event is 0, so that kind and payload together
//! are what RFC 6962 hashes as a leaf, without copying.

use crate::{
    error::Error,
    keys::{LogId, Piece, Ring, Spot},
    tree::{Frontier, Hash},
};
use portcullis_domain::{Action, Event, Outcome, Phase, RequestId, Subject};
use postcard::ser_flavors::Flavor;
use serde::{Deserialize, Serialize};
use std::{net::IpAddr, sync::Arc};

/// The first bytes of every segment file.
pub(crate) const MAGIC: &[u8; 8] = b"PCTRAIL1";
/// The version of the format, in the header.
pub(crate) const VERSION: u16 = 1;

pub(crate) const EVENT: u8 = 0;
pub(crate) const COMMIT: u8 = 1;
pub(crate) const CHECKPOINT: u8 = 2;
pub(crate) const HEADER: u8 = 3;

/// Bytes around a payload.
pub(crate) const AROUND: usize = 4 + 1 + 4;
/// The greatest payload of an event.
pub(crate) const MAX_EVENT: usize = 64 * 1024;
/// The greatest payload of any frame: a checkpoint lists what is open.
pub(crate) const MAX_PAYLOAD: usize = 4 * 1024 * 1024;
/// The most that one commit writes before its commit frame. What a crash can tear is not longer than this and a
/// checkpoint, so no more has to be looked through at the next start.
pub(crate) const MAX_BATCH: usize = 8 * 1024 * 1024;

/// Opens a frame at the end of a buffer; [`finish`] closes it.
fn begin(buffer: &mut Vec<u8>, kind: u8) -> usize {
    let start = buffer.len();
    buffer.extend_from_slice(&[0, 0, 0, 0, kind]);
    start
}

fn finish(buffer: &mut Vec<u8>, start: usize) {
    let length = u32::try_from(buffer.len() - start - 5).unwrap_or(u32::MAX);
    if let Some(field) = buffer.get_mut(start..start + 4) {
        field.copy_from_slice(&length.to_le_bytes());
    }
    let crc = crc32fast::hash(buffer.get(start..).unwrap_or_default());
    buffer.extend_from_slice(&crc.to_le_bytes());
}

/// Appends a whole frame.
pub(crate) fn push(buffer: &mut Vec<u8>, kind: u8, payload: &[u8]) {
    let start = begin(buffer, kind);
    buffer.extend_from_slice(payload);
    finish(buffer, start);
}

// postcard's own growing flavours take the vector by value or write byte by byte
struct Into<'a>(&'a mut Vec<u8>);

impl Flavor for Into<'_> {
    type Output = ();
    fn try_push(&mut self, byte: u8) -> postcard::Result<()> {
        self.0.push(byte);
        Ok(())
    }
    fn try_extend(&mut self, bytes: &[u8]) -> postcard::Result<()> {
        self.0.extend_from_slice(bytes);
        Ok(())
    }
    fn finalize(self) -> postcard::Result<()> {
        Ok(())
    }
}

/// An event whose parts are lent: field for field what [`Event`] is, so that both are written alike.
#[derive(Serialize)]
pub(crate) struct Line<'a, D> {
    pub(crate) at_us: i64,
    pub(crate) request: RequestId,
    pub(crate) phase: Phase,
    pub(crate) kind: &'a str,
    pub(crate) subject: Option<&'a Subject>,
    pub(crate) peer: Option<IpAddr>,
    pub(crate) action: Option<Action>,
    pub(crate) resource: &'a str,
    pub(crate) outcome: Outcome,
    pub(crate) reason: &'a str,
    /// A sequence of pairs of texts.
    pub(crate) details: D,
}

impl<'a> Line<'a, &'a [(Arc<str>, Arc<str>)]> {
    /// All of an event.
    pub(crate) fn of(event: &'a Event) -> Self {
        Self {
            at_us: event.at_us,
            request: event.request,
            phase: event.phase,
            kind: &event.kind,
            subject: event.subject.as_ref(),
            peer: event.peer,
            action: event.action,
            resource: &event.resource,
            outcome: event.outcome,
            reason: &event.reason,
            details: &event.details,
        }
    }
}

/// Replaces a buffer's content by the frame of an event, and gives what its leaf hash is made of.
pub(crate) fn write_event<'b, D: Serialize>(buffer: &'b mut Vec<u8>, event: &Line<'_, D>) -> Result<&'b [u8], Error> {
    buffer.clear();
    let start = begin(buffer, EVENT);
    postcard::serialize_with_flavor(event, Into(buffer)).map_err(Error::Encode)?;
    let bytes = buffer.len() - 5;
    if bytes > MAX_EVENT {
        return Err(Error::TooLarge { bytes, limit: MAX_EVENT });
    }
    finish(buffer, start);
    Ok(buffer.get(4..buffer.len() - 4).unwrap_or_default())
}

/// Reads an event's payload.
pub(crate) fn read_event(payload: &[u8]) -> Option<Event> {
    match postcard::take_from_bytes(payload) {
        Ok((event, [])) => Some(event),
        _ => None,
    }
}

/// The first fields of an event's payload, read without the rest and without an allocation.
pub(crate) fn peek(payload: &[u8]) -> Option<(i64, Phase)> {
    let ((at_us, _, phase), _) = postcard::take_from_bytes::<(i64, RequestId, Phase)>(payload).ok()?;
    Some((at_us, phase))
}

/// One frame as read.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Frame<'a> {
    pub(crate) kind: u8,
    pub(crate) payload: &'a [u8],
    /// Kind and payload: what a leaf hash is made of.
    pub(crate) hashed: &'a [u8],
    /// All its bytes.
    pub(crate) length: usize,
}

/// What stands at the beginning of some bytes.
pub(crate) enum Parsed<'a> {
    Frame(Frame<'a>),
    /// A length of zero, or no bytes at all.
    End,
    /// More bytes are needed to tell.
    Short,
    /// No frame, with the reason.
    Bad(&'static str),
}

/// Reads the frame at the beginning of some bytes.
pub(crate) fn parse(bytes: &[u8]) -> Parsed<'_> {
    if bytes.is_empty() {
        return Parsed::End;
    }
    let Some((head, rest)) = bytes.split_first_chunk::<4>() else { return Parsed::Short };
    let length = u32::from_le_bytes(*head) as usize;
    if length == 0 {
        return Parsed::End;
    }
    if length > MAX_PAYLOAD {
        return Parsed::Bad("a frame of impossible length");
    }
    let Some(hashed) = rest.get(..=length) else { return Parsed::Short };
    let Some(crc) = rest.get(length + 1..).and_then(|r| r.first_chunk::<4>()) else {
        return Parsed::Short;
    };
    if crc32fast::hash(bytes.get(..length + 5).unwrap_or_default()) != u32::from_le_bytes(*crc) {
        return Parsed::Bad("a frame whose checksum is wrong");
    }
    let Some((kind, payload)) = hashed.split_first() else { return Parsed::Bad("a frame without a kind") };
    Parsed::Frame(Frame { kind: *kind, payload, hashed, length: length + AROUND })
}

/// The payload of a commit frame: `first u64 LE | count u32 LE | root | MAC`. The tree's size is first + count, because
/// an event's number is its leaf's index.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Commit {
    pub(crate) first: u64,
    pub(crate) count: u32,
    pub(crate) root: Hash,
}

/// All bytes of a commit frame.
pub(crate) const COMMIT_LENGTH: usize = 8 + 4 + 32 + 32 + AROUND;

impl Commit {
    pub(crate) fn size(&self) -> u64 {
        self.first.saturating_add(u64::from(self.count))
    }

    fn body(&self) -> [u8; 44] {
        let mut body = [0; 44];
        let (first, rest) = body.split_at_mut(8);
        let (count, root) = rest.split_at_mut(4);
        first.copy_from_slice(&self.first.to_le_bytes());
        count.copy_from_slice(&self.count.to_le_bytes());
        root.copy_from_slice(&self.root);
        body
    }

    /// Appends its frame, sealed for a spot.
    pub(crate) fn write(&self, buffer: &mut Vec<u8>, ring: &Ring, spot: &Spot) {
        let body = self.body();
        let start = begin(buffer, COMMIT);
        buffer.extend_from_slice(&body);
        buffer.extend_from_slice(&ring.seal(Piece::Commit, spot, &body));
        finish(buffer, start);
    }

    /// Reads a payload; the second part says whether its seal holds, or was not checked for want of the key.
    pub(crate) fn read(payload: &[u8], ring: Option<&Ring>, spot: &Spot) -> Option<(Self, Seal)> {
        let (body, mac) = payload.split_first_chunk::<44>()?;
        if mac.len() != 32 {
            return None;
        }
        let (first, rest) = body.split_first_chunk::<8>()?;
        let (count, root) = rest.split_first_chunk::<4>()?;
        let commit =
            Self { first: u64::from_le_bytes(*first), count: u32::from_le_bytes(*count), root: root.try_into().ok()? };
        Some((commit, Seal::check(ring, Piece::Commit, spot, body, mac)))
    }
}

/// Whether a seal holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Seal {
    Holds,
    Broken,
    /// There is no key to check it with.
    Unchecked,
}

impl Seal {
    fn check(ring: Option<&Ring>, piece: Piece, spot: &Spot, body: &[u8], mac: &[u8]) -> Self {
        match ring {
            None => Self::Unchecked,
            Some(ring) if ring.is_sealed(piece, spot, body, mac) => Self::Holds,
            Some(_) => Self::Broken,
        }
    }
}

/// What stands at the beginning of a segment: which one it is, and the tree that it continues.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Header {
    version: u16,
    node: [u8; 16],
    log: [u8; 16],
    pub(crate) segment: u64,
    /// Events before this segment: the number of its first one.
    pub(crate) size: u64,
    pub(crate) root: Hash,
    peaks: Vec<Hash>,
    /// Operations that are open at its start.
    pub(crate) open: Vec<u64>,
}

impl Header {
    pub(crate) fn new(log: LogId, segment: u64, frontier: &Frontier, open: Vec<u64>) -> Self {
        Self {
            version: VERSION,
            node: *log.node.uuid().as_bytes(),
            log: log.log,
            segment,
            size: frontier.size(),
            root: frontier.root(),
            peaks: frontier.peaks().to_vec(),
            open,
        }
    }

    pub(crate) fn log(&self) -> LogId {
        LogId::from_bytes(self.node, self.log)
    }

    /// The tree that the segment continues, if the header agrees with itself.
    pub(crate) fn frontier(&self) -> Option<Frontier> {
        Frontier::new(self.size, self.peaks.clone()).filter(|f| f.root() == self.root)
    }

    fn spot(&self) -> Spot {
        Spot { log: self.log(), segment: self.segment, offset: MAGIC.len() as u64 }
    }

    /// The beginning of a segment file.
    pub(crate) fn write(&self, ring: &Ring) -> Result<Vec<u8>, Error> {
        let mut body = postcard::to_stdvec(self).map_err(Error::Encode)?;
        let mac = ring.seal(Piece::Header, &self.spot(), &body);
        body.extend_from_slice(&mac);
        let mut bytes = MAGIC.to_vec();
        push(&mut bytes, HEADER, &body);
        Ok(bytes)
    }

    /// Reads a payload.
    pub(crate) fn read(payload: &[u8], ring: Option<&Ring>) -> Result<(Self, Seal), &'static str> {
        let (body, mac) = payload.split_last_chunk::<32>().ok_or("the header is too short")?;
        let Ok((header, [])) = postcard::take_from_bytes::<Self>(body) else { return Err("the header is unreadable") };
        if header.version != VERSION {
            return Err("the header is of a version that this program does not know");
        }
        let seal = Seal::check(ring, Piece::Header, &header.spot(), body, mac);
        Ok((header, seal))
    }
}

/// The payload of a checkpoint frame: the signed note, and what is needed to go on from here.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Mark {
    pub(crate) note: String,
    pub(crate) size: u64,
    peaks: Vec<Hash>,
    /// Operations that are open here.
    pub(crate) open: Vec<u64>,
}

impl Mark {
    pub(crate) fn new(note: String, frontier: &Frontier, open: Vec<u64>) -> Self {
        Self { note, size: frontier.size(), peaks: frontier.peaks().to_vec(), open }
    }

    pub(crate) fn frontier(&self) -> Option<Frontier> {
        Frontier::new(self.size, self.peaks.clone())
    }

    pub(crate) fn write(&self, buffer: &mut Vec<u8>, ring: &Ring, spot: &Spot) -> Result<(), Error> {
        let body = postcard::to_stdvec(self).map_err(Error::Encode)?;
        let start = begin(buffer, CHECKPOINT);
        buffer.extend_from_slice(&body);
        buffer.extend_from_slice(&ring.seal(Piece::Checkpoint, spot, &body));
        let bytes = buffer.len() - start - 5;
        if bytes > MAX_PAYLOAD {
            buffer.truncate(start);
            return Err(Error::TooLarge { bytes, limit: MAX_PAYLOAD });
        }
        finish(buffer, start);
        Ok(())
    }

    pub(crate) fn read(payload: &[u8], ring: Option<&Ring>, spot: &Spot) -> Option<(Self, Seal)> {
        let (body, mac) = payload.split_last_chunk::<32>()?;
        let Ok((mark, [])) = postcard::take_from_bytes::<Self>(body) else { return None };
        Some((mark, Seal::check(ring, Piece::Checkpoint, spot, body, mac)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use portcullis_domain::{Action, Outcome, Seq, Subject, UserId, Via};
    use uuid::Uuid;

    fn event() -> Event {
        Event {
            at_us: -5,
            request: RequestId::new(Uuid::from_u128(9)),
            phase: Phase::Closed(Seq(300)),
            kind: "api".into(),
            subject: Some(Subject { user: UserId::new(Uuid::from_u128(1)), name: "ada".into(), via: Via::CommandLine }),
            peer: Some("2001:db8::1".parse().unwrap()),
            action: Some(Action::ConsoleView),
            resource: "qemu/a".into(),
            outcome: Outcome::Done,
            reason: "".into(),
            details: vec![("status".into(), "200".into())],
        }
    }

    #[test]
    fn an_event_survives_its_frame_and_its_first_fields_are_read_alone() {
        let mut buffer = Vec::new();
        let hashed = write_event(&mut buffer, &Line::of(&event())).unwrap().to_vec();
        let Parsed::Frame(frame) = parse(&buffer) else { panic!("no frame") };
        assert_eq!((frame.kind, frame.length), (EVENT, buffer.len()));
        assert_eq!(frame.hashed, hashed);
        assert_eq!(crate::tree::sha256(frame.hashed), crate::tree::leaf(frame.payload));
        assert_eq!(read_event(frame.payload), Some(event()));
        assert_eq!(peek(frame.payload), Some((-5, Phase::Closed(Seq(300)))));
        assert_eq!(postcard::to_stdvec(&event()).unwrap(), frame.payload, "lent and owned are written alike");
        let mut long = frame.payload.to_vec();
        long.push(0);
        assert!(read_event(&long).is_none());
    }

    #[test]
    fn an_event_that_is_too_large_is_refused() {
        let big = Event { reason: "x".repeat(MAX_EVENT).into(), ..event() };
        assert!(matches!(write_event(&mut Vec::new(), &Line::of(&big)), Err(Error::TooLarge { .. })));
    }

    #[test]
    fn every_flipped_bit_of_a_frame_is_seen() {
        let mut buffer = Vec::new();
        push(&mut buffer, COMMIT, b"payload");
        for bit in 0..buffer.len() * 8 {
            let mut other = buffer.clone();
            other[bit / 8] ^= 1 << (bit % 8);
            other.extend_from_slice(&[0; 64]);
            assert!(!matches!(parse(&other), Parsed::Frame(_)), "bit {bit}");
        }
    }
}
