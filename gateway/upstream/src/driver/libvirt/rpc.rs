// SPDX-License-Identifier: Apache-2.0
//! libvirt's RPC as the gateway itself calls it, and XDR (RFC 4506), as in the daemon's protocol files
//! `virnetprotocol.x` and `remote_protocol.x`.

use super::frame::{self, Frame, FrameKind, FrameStatus};
use crate::{
    driver::{LIST, MAX_ANSWER, clean_text},
    error::Fault,
    wire::Wire,
};
use bytes::{Buf, Bytes, BytesMut};
use std::collections::VecDeque;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

const REMOTE: u32 = 0x2000_8086;
/// The longest text that libvirt sends (REMOTE_STRING_MAX), bytes.
const MAX_TEXT: usize = 4 * 1024 * 1024;
/// The most events kept while a list is being read, and the largest of them, bytes.
const MAX_EVENTS: usize = 1024;
const MAX_EVENT: usize = 8 * 1024;
/// `VIR_ERR_NO_DOMAIN`.
const NO_DOMAIN: i32 = 42;

/// An event as it came: its procedure number and payload.
pub(super) struct Event {
    pub(super) procedure: u32,
    pub(super) payload: Reader,
}

/// What a call gave.
pub(super) enum Outcome {
    /// Its result.
    Done(Reader),
    /// The domain does not exist any more.
    NoDomain,
    /// The daemon said no, in its own words.
    Refused(String),
}

/// One connection.
pub(super) struct Rpc {
    wire: Wire,
    input: BytesMut,
    /// One message each: libvirtd waits for its socket between two messages and does not look into the TLS record that
    /// it has already read, so two calls in one record would leave the second one lying until something else comes.
    output: VecDeque<Bytes>,
    serial: u32,
    events: VecDeque<Event>,
    has_lost_events: bool,
}

impl Rpc {
    pub(super) fn new(wire: Wire) -> Self {
        Self {
            wire,
            input: BytesMut::with_capacity(16 * 1024),
            output: VecDeque::new(),
            serial: 0,
            events: VecDeque::new(),
            has_lost_events: false,
        }
    }

    /// Calls one procedure, at most 30 seconds.
    pub(super) async fn call(&mut self, procedure: u32, arguments: Writer) -> Result<Reader, Fault> {
        match self.call_each(&[(procedure, arguments)]).await?.pop() {
            Some(Outcome::Done(reader)) => Ok(reader),
            Some(Outcome::Refused(why)) => Err(Fault::Refused(why)),
            Some(Outcome::NoDomain) | None => Err(Fault::Refused("the machine does not exist any more".to_owned())),
        }
    }

    /// Makes several calls with one round trip; results come in the order of the calls. At most 30 seconds.
    pub(super) async fn call_each(&mut self, calls: &[(u32, Writer)]) -> Result<Vec<Outcome>, Fault> {
        match tokio::time::timeout(LIST, self.run(calls)).await {
            Ok(done) => done,
            Err(_) => Err(Fault::TooSlow("to answer a call")),
        }
    }

    async fn run(&mut self, calls: &[(u32, Writer)]) -> Result<Vec<Outcome>, Fault> {
        let first = self.serial.wrapping_add(1);
        for (procedure, arguments) in calls {
            self.serial = self.serial.wrapping_add(1);
            let serial = self.serial;
            let payload = Bytes::copy_from_slice(&arguments.0);
            let (kind, status) = (FrameKind::Call, FrameStatus::Ok);
            self.put(&Frame { program: REMOTE, procedure: *procedure, kind, serial, status, payload, held: None })?;
        }
        let mut results: Vec<Option<Outcome>> = calls.iter().map(|_| None).collect();
        let mut missing = calls.len();
        let mut total = 0;
        while missing > 0 {
            let message = self.next().await?;
            if message.program != REMOTE || message.kind != FrameKind::Reply {
                return Err(Fault::Protocol("a message that answers nothing".to_owned()));
            }
            total += message.payload.len();
            if total > MAX_ANSWER {
                return Err(Fault::Protocol("answers larger than 32 MiB together".to_owned()));
            }
            let index = usize::try_from(message.serial.wrapping_sub(first)).unwrap_or(usize::MAX);
            let slot = results.get_mut(index).filter(|s| s.is_none());
            let slot = slot.ok_or_else(|| Fault::Protocol("an answer to a call that was not made".to_owned()))?;
            let expected = calls.get(index).map(|(p, _)| *p);
            if expected != Some(message.procedure) {
                return Err(Fault::Protocol("an answer to another call".to_owned()));
            }
            *slot = Some(match message.status {
                FrameStatus::Ok => Outcome::Done(Reader(message.payload)),
                FrameStatus::Error => match read_error(Reader(message.payload))? {
                    (NO_DOMAIN, _) => Outcome::NoDomain,
                    (_, text) => Outcome::Refused(text),
                },
                FrameStatus::Continue => return Err(Fault::Protocol("an answer with an unknown status".to_owned())),
            });
            missing -= 1;
        }
        Ok(results.into_iter().flatten().collect())
    }

    /// The next event, or none when events were lost because too many came at once. May be dropped at any time.
    pub(super) async fn event(&mut self) -> Result<Option<Event>, Fault> {
        loop {
            if std::mem::take(&mut self.has_lost_events) {
                self.events.clear();
                return Ok(None);
            }
            if let Some(event) = self.events.pop_front() {
                return Ok(Some(event));
            }
            self.flush().await?;
            if let Some(message) = self.split()? {
                self.sort(message)?
                    .map_or(Ok(()), |_| Err(Fault::Protocol("an answer that nobody waits for".to_owned())))?;
            } else {
                self.fill().await?;
            }
        }
    }

    async fn next(&mut self) -> Result<Frame, Fault> {
        loop {
            self.flush().await?;
            while let Some(message) = self.split()? {
                if let Some(reply) = self.sort(message)? {
                    return Ok(reply);
                }
            }
            // A ping that was just sorted must be answered before we wait.
            self.flush().await?;
            self.fill().await?;
        }
    }

    /// Answers pings, keeps events, hands back the rest.
    fn sort(&mut self, message: Frame) -> Result<Option<Frame>, Fault> {
        if message.is_keepalive() {
            message.pong().map_or(Ok(()), |pong| self.put(&pong))?;
            return Ok(None);
        }
        match (message.program, message.kind) {
            (REMOTE, FrameKind::Message) => {
                if self.events.len() >= MAX_EVENTS || message.payload.len() > MAX_EVENT {
                    self.has_lost_events = true;
                    self.events.clear();
                }
                if !self.has_lost_events {
                    // A copy: a slice would keep the whole read buffer alive.
                    let payload = Reader(Bytes::copy_from_slice(&message.payload));
                    self.events.push_back(Event { procedure: message.procedure, payload });
                }
                Ok(None)
            }
            _ => Ok(Some(message)),
        }
    }

    fn put(&mut self, frame: &Frame) -> Result<(), Fault> {
        let bytes = frame.bytes().ok_or_else(|| Fault::Protocol("a call too large to send".to_owned()))?;
        self.output.push_back(bytes);
        Ok(())
    }

    /// The connection, what was read of it already, and the last serial.
    pub(super) fn into_parts(self) -> (Wire, BytesMut, u32) {
        (self.wire, self.input, self.serial)
    }

    async fn flush(&mut self) -> Result<(), Fault> {
        let gone = |e| Fault::unreachable("the connection broke", e);
        if self.output.is_empty() {
            return Ok(());
        }
        while let Some(message) = self.output.front_mut() {
            if self.wire.write_buf(message).await.map_err(gone)? == 0 {
                return Err(Fault::hung_up("closed the connection"));
            }
            if message.is_empty() {
                self.output.pop_front();
            }
        }
        self.wire.flush().await.map_err(gone)
    }

    async fn fill(&mut self) -> Result<(), Fault> {
        match self.wire.read_buf(&mut self.input).await {
            Ok(0) => Err(Fault::hung_up("closed the connection")),
            Ok(_) => Ok(()),
            Err(e) => Err(Fault::unreachable("the connection broke", e)),
        }
    }

    fn split(&mut self) -> Result<Option<Frame>, Fault> {
        frame::split(&mut self.input, MAX_ANSWER).map_err(|why| Fault::Protocol(why.to_owned()))
    }
}

/// `remote_error`: code, domain, text; the rest is not read.
fn read_error(mut reader: Reader) -> Result<(i32, String), Fault> {
    let code = reader.i32()?;
    reader.i32()?;
    let text = reader.optional_text()?.unwrap_or_default();
    Ok((code, clean_text(&text)))
}

/// XDR out.
#[derive(Default, Clone)]
pub(super) struct Writer(pub(super) Vec<u8>);

impl Writer {
    pub(super) fn u32(mut self, value: u32) -> Self {
        self.0.extend_from_slice(&value.to_be_bytes());
        self
    }

    pub(super) fn i32(mut self, value: i32) -> Self {
        self.0.extend_from_slice(&value.to_be_bytes());
        self
    }

    /// Bytes of a length that both sides know.
    pub(super) fn fixed(mut self, bytes: &[u8]) -> Self {
        self.0.extend_from_slice(bytes);
        self.0.resize(self.0.len().next_multiple_of(4), 0);
        self
    }

    pub(super) fn text(self, text: &str) -> Self {
        // Texts are our own or came from the daemon within MAX_TEXT: the length always fits.
        let length = u32::try_from(text.len()).unwrap_or(u32::MAX);
        self.u32(length).fixed(text.as_bytes())
    }

    pub(super) fn optional_text(self, text: Option<&str>) -> Self {
        match text {
            Some(text) => self.u32(1).text(text),
            None => self.u32(0),
        }
    }
}

/// XDR in. Every length is checked against what is there before anything is taken.
pub(super) struct Reader(Bytes);

impl Reader {
    #[cfg(test)]
    pub(super) fn new(bytes: Vec<u8>) -> Self {
        Self(bytes.into())
    }

    pub(super) fn u32(&mut self) -> Result<u32, Fault> {
        if self.0.remaining() < 4 { Err(short()) } else { Ok(self.0.get_u32()) }
    }

    pub(super) fn i32(&mut self) -> Result<i32, Fault> {
        if self.0.remaining() < 4 { Err(short()) } else { Ok(self.0.get_i32()) }
    }

    /// A length or count, at most `max`.
    pub(super) fn count(&mut self, max: usize) -> Result<usize, Fault> {
        let count = usize::try_from(self.u32()?).unwrap_or(usize::MAX);
        if count > max { Err(Fault::Protocol(format!("a list or text of {count} entries"))) } else { Ok(count) }
    }

    pub(super) fn array<const N: usize>(&mut self) -> Result<[u8; N], Fault> {
        let found = *self.0.first_chunk::<N>().ok_or_else(short)?;
        self.0.advance(N);
        Ok(found)
    }

    pub(super) fn text(&mut self) -> Result<String, Fault> {
        let length = self.count(MAX_TEXT)?;
        let padded = length.next_multiple_of(4);
        if self.0.remaining() < padded {
            return Err(short());
        }
        let mut bytes = self.0.split_to(padded);
        bytes.truncate(length);
        String::from_utf8(bytes.into()).map_err(|_| Fault::Protocol("a text that is not UTF-8".to_owned()))
    }

    pub(super) fn optional_text(&mut self) -> Result<Option<String>, Fault> {
        match self.u32()? {
            0 => Ok(None),
            1 => self.text().map(Some),
            _ => Err(Fault::Protocol("an optional value that is neither there nor missing".to_owned())),
        }
    }
}

fn short() -> Fault {
    Fault::Protocol("a message that ends too early".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn xdr_reads_back_what_it_wrote() {
        let written =
            Writer::default().u32(7).i32(-1).text("abcde").optional_text(None).optional_text(Some("")).fixed(&[9; 16]);
        assert_eq!(written.0.len() % 4, 0);
        let mut reader = Reader::new(written.0);
        assert_eq!((reader.u32().unwrap(), reader.i32().unwrap()), (7, -1));
        assert_eq!(reader.text().unwrap(), "abcde");
        assert_eq!(reader.optional_text().unwrap(), None);
        assert_eq!(reader.optional_text().unwrap().as_deref(), Some(""));
        assert_eq!(reader.array::<16>().unwrap(), [9; 16]);
        assert!(reader.u32().is_err());
    }

    proptest::proptest! {
        #[test]
        fn no_bytes_make_the_reader_panic(bytes: Vec<u8>) {
            let mut reader = Reader::new(bytes.clone());
            let _ = (reader.text(), reader.optional_text(), reader.array::<16>(), reader.count(3), reader.i32());
            let _ = read_error(Reader::new(bytes));
        }
    }

    #[test]
    fn a_length_beyond_the_message_is_refused() {
        assert!(Reader::new(vec![0, 0, 0, 9, b'a', 0, 0, 0]).text().is_err());
        assert!(Reader::new(vec![0xff, 0xff, 0xff, 0xff]).text().is_err());
        assert!(Reader::new(vec![0, 0, 0, 2]).optional_text().is_err());
    }
}
