// SPDX-License-Identifier: Apache-2.0
//! Streams: a console, a channel, a picture, a volume's bytes. Each is one call that goes on: its event is open and its
//! permit is asked for again until it ends.

use super::{
    call::{Answer, refuse},
    error,
    session::Session,
};
use crate::{
    passage,
    reply::{self as status, Refusal},
};
use bytes::Bytes;
use portcullis_audit::OpenEntry;
use portcullis_domain::{Actor, Outcome};
use portcullis_policy::{
    Permit,
    classify::libvirt::{Call, Way},
};
use portcullis_upstream::{Frame, FrameKind, FrameStatus};
use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

/// Streams of one client that are open at a time.
const MOST: usize = 16;

/// One stream.
struct Stream {
    /// The client's number for it, and its procedure.
    client: u32,
    call: (u32, u32),
    way: Way,
    name: String,
    permit: Arc<Permit>,
    open: OpenEntry,
    up: u64,
    down: u64,
}

/// The streams of a session, by the daemon's number.
#[derive(Default)]
pub(super) struct Streams(Mutex<HashMap<u32, Stream>>);

impl Streams {
    fn lock(&self) -> MutexGuard<'_, HashMap<u32, Stream>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Closes the events of all of them.
    pub(super) fn close(&self, outcome: Outcome, why: &str) {
        let all: Vec<Stream> = self.lock().drain().map(|(_, stream)| stream).collect();
        for stream in all {
            stream.end(outcome, why);
        }
    }
}

impl Stream {
    fn end(self, outcome: Outcome, why: &str) {
        let (up, down) = (self.up.to_string(), self.down.to_string());
        let why = if why.starts_with("access ended") { why.to_owned() } else { format!("{}: {why}", self.name) };
        passage::end(self.open, outcome, &why, &[("call", &self.name), ("bytes up", &up), ("bytes down", &down)]);
    }

    fn frame(&self, serial: u32, status: FrameStatus, payload: Bytes) -> Frame {
        let (program, procedure) = self.call;
        Frame { program, procedure, kind: FrameKind::Stream, serial, status, payload, held: None }
    }
}

/// Opens one. Its answer and what follows come from whoever reads the daemon's messages, in their order.
pub(super) async fn open(
    session: &Arc<Session>,
    frame: &Frame,
    call: &Call,
    permit: Permit,
    open: OpenEntry,
) -> Result<Answer, Refusal> {
    let busy = {
        let all = session.streams.lock();
        all.len() >= MOST || all.values().any(|s| s.client == frame.serial)
    };
    if busy {
        let refusal = Refusal::Unavailable("Too many streams of this connection are open.".into());
        return Err(refuse(open, call, Outcome::Failed, refusal));
    }
    let key = (frame.program, frame.procedure);
    let permit = Arc::new(permit);
    let mut link = session.link.lock().await;
    let Some(writer) = link.as_mut() else {
        let refusal = Refusal::Upstream("The connection to it has ended.".into());
        return Err(refuse(open, call, Outcome::Failed, refusal));
    };
    let serial = writer.next_serial();
    let (way, name) = (call.way, call.name.clone());
    let stream =
        Stream { client: frame.serial, call: key, way, name, permit: Arc::clone(&permit), open, up: 0, down: 0 };
    // Before it is asked for: its answer and its first bytes may come at once.
    session.streams.lock().insert(serial, stream);
    let (kind, status, payload) = (FrameKind::Call, FrameStatus::Ok, frame.payload.clone());
    let call = Frame { program: key.0, procedure: key.1, kind, serial, status, payload, held: None };
    if let Err(error) = writer.call(&permit, session.house.clock.now(), &call).await {
        session.end(Outcome::Failed, "the hypervisor could not be asked");
        return Err(status::upstream(&error));
    }
    Ok(Answer::Later)
}

/// Passes on the answer to a call that opens a stream; gives back what is none.
pub(super) async fn replied(session: &Arc<Session>, frame: Frame) -> Option<Frame> {
    let (client, refused) = {
        let mut all = session.streams.lock();
        let Some(stream) = all.get(&frame.serial) else { return Some(frame) };
        if stream.call != (frame.program, frame.procedure) {
            session.end(Outcome::Failed, "the hypervisor answered another call");
            return None;
        }
        let client = stream.client;
        let is_refused = frame.status != FrameStatus::Ok;
        (client, if is_refused { all.remove(&frame.serial) } else { None })
    };
    if let Some(stream) = refused {
        stream.end(Outcome::Failed, "the hypervisor said no");
    }
    session.send(Frame { serial: client, ..frame }).await;
    None
}

/// Passes on what the client sends. The error is for the trail, and ends the connection.
pub(super) async fn up(session: &Arc<Session>, frame: Frame) -> Result<(), &'static str> {
    let passed = {
        let mut all = session.streams.lock();
        let found = all.iter_mut().find(|(_, s)| s.client == frame.serial);
        // One that ended a moment ago: the client does not know yet.
        let Some((serial, stream)) = found else { return Ok(()) };
        if stream.call != (frame.program, frame.procedure) {
            return Err("a piece of another stream");
        }
        let is_data = frame.status == FrameStatus::Continue;
        if is_data && stream.way == Way::StreamDown {
            return Err("bytes into a stream that only comes down");
        }
        stream.up += frame.payload.len() as u64;
        Frame { serial: *serial, ..frame }
    };
    let mut link = session.link.lock().await;
    let Some(writer) = link.as_mut() else { return Err("a stream before its connection") };
    if writer.stream(&passed).await.is_err() {
        session.end(Outcome::Failed, "the hypervisor does not take the stream");
    }
    Ok(())
}

/// Passes on what the daemon sends.
pub(super) async fn down(session: &Arc<Session>, frame: Frame) {
    let (client, ended) = {
        let mut all = session.streams.lock();
        let Some(stream) = all.get_mut(&frame.serial) else { return };
        if stream.call != (frame.program, frame.procedure) {
            return session.end(Outcome::Failed, "the hypervisor sent a piece of another stream");
        }
        stream.down += frame.payload.len() as u64;
        let client = stream.client;
        let ended = (frame.status != FrameStatus::Continue).then(|| all.remove(&frame.serial)).flatten();
        (client, ended)
    };
    if let Some(stream) = ended {
        let is_well = frame.status == FrameStatus::Ok;
        let (outcome, why) = if is_well { (Outcome::Done, "closed") } else { (Outcome::Failed, "it broke off") };
        stream.end(outcome, why);
    }
    session.send(Frame { serial: client, ..frame }).await;
}

/// Cuts the streams that may not go on: both sides hear of it, the client with the reason.
pub(super) async fn watch(session: &Arc<Session>, actor: &Actor) {
    let cut: Vec<(u32, Stream, String)> = {
        let mut all = session.streams.lock();
        let of = |(serial, stream): (&u32, &Stream)| Some((*serial, session.house.pulled(&stream.permit, actor)?));
        let pulled: Vec<(u32, String)> = all.iter().filter_map(of).collect();
        pulled.into_iter().filter_map(|(serial, why)| Some((serial, all.remove(&serial)?, why))).collect()
    };
    for (serial, stream, why) in cut {
        let abort = stream.frame(serial, FrameStatus::Error, Bytes::new());
        let why = format!("access ended: {why}");
        let payload = error::refusal(&Refusal::Forbidden(why.clone()));
        let told = stream.frame(stream.client, FrameStatus::Error, payload);
        stream.end(Outcome::Failed, &why);
        let sent = match session.link.lock().await.as_mut() {
            Some(writer) => writer.stream(&abort).await.is_ok(),
            None => false,
        };
        if !sent {
            return session.end(Outcome::Failed, &why);
        }
        // A client that does not read must not keep others' streams going.
        if tokio::time::timeout(std::time::Duration::from_secs(1), session.send(told)).await.is_err() {
            return session.end(Outcome::Failed, &why);
        }
    }
}
