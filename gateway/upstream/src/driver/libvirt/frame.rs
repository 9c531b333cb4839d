// SPDX-License-Identifier: Apache-2.0
//! One message of libvirt's RPC on the wire (`virnetprotocol.x`), for both of its ends.
//!
//! ```text
//! u32 length (with itself) | u32 program | u32 version | u32 procedure | u32 type | u32 serial | u32 status | payload
//! ```

use bytes::{Buf as _, BufMut as _, Bytes, BytesMut};
use std::{io, sync::Arc};
use tokio::{
    io::{AsyncRead, AsyncReadExt as _},
    sync::{OwnedSemaphorePermit, Semaphore},
};

/// Bytes before the payload.
const HEADER: usize = 28;
/// The one version of every program.
const VERSION: u32 = 1;
/// Bytes that one permit of a budget stands for.
const UNIT: usize = 1024;

/// `virNetMessageType`. What carries open files does not travel over a network and is no kind here.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FrameKind {
    /// A call.
    Call,
    /// The answer to a call.
    Reply,
    /// An event, or a sign of life.
    Message,
    /// Bytes of a stream, or its end.
    Stream,
    /// A hole in a stream's bytes.
    Hole,
}

impl FrameKind {
    const ALL: [(Self, u32); 5] =
        [(Self::Call, 0), (Self::Reply, 1), (Self::Message, 2), (Self::Stream, 3), (Self::Hole, 6)];
}

/// `virNetMessageStatus`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FrameStatus {
    /// It is well, or a stream's end.
    Ok,
    /// The payload is an error.
    Error,
    /// More of a stream follows.
    Continue,
}

impl FrameStatus {
    const ALL: [(Self, u32); 3] = [(Self::Ok, 0), (Self::Error, 1), (Self::Continue, 2)];
}

/// One message.
#[derive(Debug)]
pub struct Frame {
    /// The program.
    pub program: u32,
    /// The procedure in it.
    pub procedure: u32,
    /// What it is.
    pub kind: FrameKind,
    /// Which call it belongs to.
    pub serial: u32,
    /// How it went.
    pub status: FrameStatus,
    /// What it holds.
    pub payload: Bytes,
    /// Its share of the reader's budget, for as long as it is held.
    pub held: Option<OwnedSemaphorePermit>,
}

impl Frame {
    /// A sign of life: procedure 1 asks, 2 answers.
    pub(crate) const fn keepalive(procedure: u32) -> Self {
        Self {
            program: KEEPALIVE,
            procedure,
            kind: FrameKind::Message,
            serial: 0,
            status: FrameStatus::Ok,
            payload: Bytes::new(),
            held: None,
        }
    }

    /// The answer to a sign of life, if this asks for one.
    pub fn pong(&self) -> Option<Self> {
        (self.is_keepalive() && self.procedure == PING).then(|| Self::keepalive(PONG))
    }

    /// Whether it is a sign of life.
    pub fn is_keepalive(&self) -> bool {
        self.program == KEEPALIVE && self.kind == FrameKind::Message
    }

    /// The bytes on the wire; none for what is longer than a length can say.
    pub fn bytes(&self) -> Option<Bytes> {
        let length = u32::try_from(HEADER + self.payload.len()).ok()?;
        let kind = FrameKind::ALL.iter().find(|(k, _)| *k == self.kind)?.1;
        let status = FrameStatus::ALL.iter().find(|(s, _)| *s == self.status)?.1;
        let mut bytes = BytesMut::with_capacity(HEADER + self.payload.len());
        for word in [length, self.program, VERSION, self.procedure, kind, self.serial, status] {
            bytes.put_u32(word);
        }
        bytes.put_slice(&self.payload);
        Some(bytes.freeze())
    }
}

/// The program of signs of life.
const KEEPALIVE: u32 = 0x6b65_6570;
pub(super) const PING: u32 = 1;
const PONG: u32 = 2;

/// The length that the next message announces, with its head; none before that is there.
pub(super) fn announced(input: &[u8], most: usize) -> Result<Option<usize>, &'static str> {
    let Some(head) = input.first_chunk::<4>() else { return Ok(None) };
    let length = usize::try_from(u32::from_be_bytes(*head)).unwrap_or(usize::MAX);
    if !(HEADER..=most).contains(&length) {
        return Err("a message that is too short or too long");
    }
    Ok(Some(length))
}

/// Takes one message off the front, once all of it is there.
pub(super) fn split(input: &mut BytesMut, most: usize) -> Result<Option<Frame>, &'static str> {
    let Some(length) = announced(input, most)? else { return Ok(None) };
    if input.len() < length {
        // Room for what is announced comes as it arrives: an announcement alone costs no memory.
        input.reserve((length - input.len()).min(64 * 1024));
        return Ok(None);
    }
    // What is held is what a budget counts: a slice would keep the whole read buffer alive, which may have been made for
    // a message many times as long.
    let mut bytes = if input.capacity() / 2 > length {
        let own = Bytes::copy_from_slice(input.get(..length).unwrap_or_default());
        input.advance(length);
        own
    } else {
        input.split_to(length).freeze()
    };
    bytes.advance(4);
    let mut word = || bytes.get_u32();
    let (program, version, procedure, kind, serial, status) = (word(), word(), word(), word(), word(), word());
    if version != VERSION {
        return Err("another version of a program");
    }
    let kind = FrameKind::ALL.iter().find(|(_, n)| *n == kind).ok_or("a message of another type")?.0;
    let status = FrameStatus::ALL.iter().find(|(_, n)| *n == status).ok_or("a message with another status")?.0;
    Ok(Some(Frame { program, procedure, kind, serial, status, payload: bytes, held: None }))
}

/// Reads one message after the other, and no more of them than a budget allows.
pub struct Frames<R> {
    from: R,
    input: BytesMut,
    most: usize,
    budget: Arc<Semaphore>,
}

impl<R: AsyncRead + Unpin> Frames<R> {
    /// Messages of at most `most` bytes; those that are held at a time are at most `budget` bytes together, and `most`
    /// must fit into that.
    pub fn new(from: R, most: usize, budget: usize) -> Self {
        Self::begun(from, BytesMut::with_capacity(16 * 1024), most, budget)
    }

    pub(super) fn begun(from: R, input: BytesMut, most: usize, budget: usize) -> Self {
        Self { from, input, most, budget: Arc::new(Semaphore::new(budget.max(most).div_ceil(UNIT) + 1)) }
    }

    /// Lets longer messages through from now on.
    pub fn allow(&mut self, most: usize, budget: usize) {
        self.most = most;
        self.budget = Arc::new(Semaphore::new(budget.max(most).div_ceil(UNIT) + 1));
    }

    /// The next one; none at a clean end. May be dropped at any time.
    pub async fn next(&mut self) -> io::Result<Option<Frame>> {
        let wrong = |why: &'static str| io::Error::new(io::ErrorKind::InvalidData, why);
        loop {
            if let Some(length) = announced(&self.input, self.most).map_err(wrong)? {
                // Before its body is read: whoever holds many messages waits.
                let share = u32::try_from(length.div_ceil(UNIT)).unwrap_or(u32::MAX);
                let held = Arc::clone(&self.budget).acquire_many_owned(share).await;
                let held = held.map_err(|_| wrong("a budget that is gone"))?;
                while self.input.len() < length {
                    self.input.reserve((length - self.input.len()).min(64 * 1024));
                    if self.from.read_buf(&mut self.input).await? == 0 {
                        return Err(io::ErrorKind::UnexpectedEof.into());
                    }
                }
                let frame = split(&mut self.input, self.most).map_err(wrong)?;
                return Ok(frame.map(|frame| Frame { held: Some(held), ..frame }));
            }
            if self.from.read_buf(&mut self.input).await? == 0 {
                return if self.input.is_empty() { Ok(None) } else { Err(io::ErrorKind::UnexpectedEof.into()) };
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frame(kind: FrameKind, payload: &'static [u8]) -> Frame {
        Frame {
            program: 1,
            procedure: 2,
            kind,
            serial: 3,
            status: FrameStatus::Continue,
            payload: Bytes::from_static(payload),
            held: None,
        }
    }

    #[tokio::test]
    async fn every_kind_reads_back() {
        for (kind, _) in FrameKind::ALL {
            let bytes = frame(kind, b"abcd").bytes().unwrap();
            let mut frames = Frames::new(&bytes[..], 1024, 1024);
            let back = frames.next().await.unwrap().unwrap();
            let all = (back.program, back.procedure, back.kind, back.serial, back.status, &back.payload[..]);
            assert_eq!(all, (1, 2, kind, 3, FrameStatus::Continue, &b"abcd"[..]));
            assert!(frames.next().await.unwrap().is_none());
        }
    }

    #[tokio::test]
    async fn what_is_no_message_is_refused() {
        let good = frame(FrameKind::Call, b"").bytes().unwrap();
        let with = |at: usize, byte: u8| {
            let mut bytes = good.to_vec();
            bytes[at] = byte;
            bytes
        };
        for bad in [with(3, 27), with(0, 1), with(11, 2), with(19, 4), with(19, 5), with(19, 7), with(27, 3)] {
            assert!(Frames::new(&bad[..], 1024, 1024).next().await.is_err(), "{bad:?}");
        }
        assert!(Frames::new(&good[..27], 1024, 1024).next().await.is_err(), "cut");
        assert!(Frames::new(&[][..], 1024, 1024).next().await.unwrap().is_none());
    }

    #[tokio::test(start_paused = true)]
    async fn whoever_holds_many_messages_waits() {
        let one = frame(FrameKind::Reply, &[7; 2000]).bytes().unwrap();
        let all = [&one[..], &one[..], &one[..]].concat();
        let mut frames = Frames::new(&all[..], 2048, 4096);
        let (first, _second) = (frames.next().await.unwrap(), frames.next().await.unwrap());
        let wait = std::time::Duration::from_mins(1);
        assert!(tokio::time::timeout(wait, frames.next()).await.is_err());
        drop(first);
        assert!(tokio::time::timeout(wait, frames.next()).await.unwrap().unwrap().is_some());
    }

    #[tokio::test]
    async fn a_short_message_that_is_held_holds_no_long_buffer() {
        static LONG: [u8; 60_000] = [7; 60_000];
        let long = frame(FrameKind::Reply, &LONG).bytes().unwrap();
        let short = frame(FrameKind::Reply, b"abcd").bytes().unwrap();
        let all = [&long[..], &short[..], &short[..], &long[..]].concat();
        let mut frames = Frames::new(&all[..], 64 * 1024, 1024 * 1024);
        for wanted in [60_000, 4, 4, 60_000] {
            let payload = frames.next().await.unwrap().unwrap().payload;
            assert_eq!(payload.len(), wanted);
            // Nobody else holds the memory that it stands in, so it is not the reader's.
            assert!(wanted > 4 || payload.is_unique(), "{wanted}");
        }
    }

    proptest::proptest! {
        #[test]
        fn no_bytes_make_the_reader_panic(bytes: Vec<u8>) {
            let mut input = BytesMut::from(&bytes[..]);
            while let Ok(Some(_)) = split(&mut input, 1024) {}
        }
    }
}
