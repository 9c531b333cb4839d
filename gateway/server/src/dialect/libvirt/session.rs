// SPDX-License-Identifier: Apache-2.0
//! One client that signed in, and the daemon's connection that is opened for it.
//!
//! Three tasks share a session: one reads the client's messages (at most [`MOST_CALLS`] calls are answered at a time,
//! then it waits), one writes to the client, one reads the daemon's messages. Whoever does not read makes the other side
//! wait, and is cut after a minute. Everything ends together, with a reason for the trail.

use super::{
    call, error, event,
    stream::{self, Streams},
};
use crate::{
    passage,
    state::{House, chain},
};
use portcullis_audit::OpenEntry;
use portcullis_domain::{Actor, HypervisorName, Outcome, TokenId};
use portcullis_policy::Permit;
use portcullis_upstream::{Frame, FrameKind, FrameStatus, Frames, LinkReader, LinkWriter};
use std::{
    collections::HashMap,
    net::IpAddr,
    sync::{
        Arc, Mutex, MutexGuard, OnceLock, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Duration,
};
use tokio::{
    io::{AsyncRead, AsyncWrite, AsyncWriteExt as _},
    sync::{Semaphore, mpsc, oneshot},
};
use tokio_util::sync::CancellationToken;

/// Calls of one client that are answered at a time.
const MOST_CALLS: usize = 16;
/// Messages to the client that wait.
const QUEUE: usize = 4;
/// How long a client may take to read one message.
const SLOW: Duration = Duration::from_mins(1);
/// How long a client may send nothing, not even a sign of life.
const IDLE: Duration = Duration::from_hours(1);
/// How often the daemon is asked for a sign of life, and how long it may be quiet.
const LOOK: Duration = Duration::from_secs(20);
const QUIET: Duration = Duration::from_secs(90);
/// How long calls may take to say that it is over.
const LAST_WORDS: Duration = Duration::from_secs(1);

/// What holds the connection open: its event and its permit.
struct Held {
    open: OpenEntry,
    permit: Permit,
}

/// One client's session.
pub(super) struct Session {
    pub(super) house: Arc<House>,
    pub(super) hypervisor: HypervisorName,
    pub(super) token: TokenId,
    pub(super) ip: IpAddr,
    out: mpsc::Sender<Frame>,
    /// The daemon's side; none before the connection was opened.
    pub(super) link: tokio::sync::Mutex<Option<LinkWriter>>,
    pub(super) is_opening: AtomicBool,
    waiting: Mutex<HashMap<u32, oneshot::Sender<Frame>>>,
    pub(super) streams: Streams,
    held: Mutex<Option<Held>>,
    pub(super) ending: CancellationToken,
    why: OnceLock<(Outcome, String)>,
    bytes: (AtomicU64, AtomicU64),
}

/// Serves a client until it or the daemon ends the connection, or its access does.
pub(super) async fn run<R, W>(
    house: Arc<House>,
    hypervisor: HypervisorName,
    token: TokenId,
    ip: IpAddr,
    mut frames: Frames<R>,
    write: W,
) where
    R: AsyncRead + Unpin,
    W: AsyncWrite + Unpin + Send + 'static,
{
    let (out, queue) = mpsc::channel(QUEUE);
    let ending = CancellationToken::new();
    let session = Arc::new(Session {
        house: Arc::clone(&house),
        hypervisor,
        token,
        ip,
        out,
        link: tokio::sync::Mutex::new(None),
        is_opening: AtomicBool::new(false),
        waiting: Mutex::default(),
        streams: Streams::default(),
        held: Mutex::default(),
        ending: ending.clone(),
        why: OnceLock::new(),
        bytes: (AtomicU64::new(0), AtomicU64::new(0)),
    });
    let writer = house.tasks.spawn(write_out(Arc::clone(&session), queue, write));
    house.tasks.spawn(watch(Arc::clone(&session)));
    let calls = Arc::new(Semaphore::new(MOST_CALLS));
    let (outcome, why) = tokio::select! {
        why = read_in(&session, &calls, &mut frames) => why,
        () = ending.cancelled() => (Outcome::Failed, String::new()),
        () = house.closing.cancelled() => (Outcome::Done, "the gateway is shutting down".to_owned()),
    };
    session.end(outcome, &why);
    // Calls that are open say why they end; then nobody holds the way out.
    let all = u32::try_from(MOST_CALLS).unwrap_or(1);
    tokio::time::timeout(LAST_WORDS, calls.acquire_many(all)).await.ok();
    session.close();
    drop(session);
    tokio::time::timeout(LAST_WORDS, writer).await.ok();
}

/// Reads the client's messages; gives why it is over.
async fn read_in<R>(session: &Arc<Session>, calls: &Arc<Semaphore>, frames: &mut Frames<R>) -> (Outcome, String)
where
    R: AsyncRead + Unpin,
{
    let wrong = |why: &str| (Outcome::Failed, format!("the client sent {why}"));
    loop {
        let frame = match tokio::time::timeout(IDLE, frames.next()).await {
            Ok(Ok(Some(frame))) => frame,
            Ok(Ok(None)) => return (Outcome::Done, "closed".to_owned()),
            Ok(Err(error)) => return wrong(&error.to_string()),
            Err(_) => return (Outcome::Done, "nothing was asked for an hour".to_owned()),
        };
        session.bytes.0.fetch_add(frame.payload.len() as u64, Ordering::Relaxed);
        if frame.is_keepalive() {
            if let Some(pong) = frame.pong() {
                session.send(pong).await;
            }
            continue;
        }
        match (frame.kind, frame.status) {
            (FrameKind::Call, FrameStatus::Ok) => {
                if call::is_close(&frame) {
                    session.send(error::reply(&frame, FrameStatus::Ok, bytes::Bytes::new())).await;
                    return (Outcome::Done, "closed".to_owned());
                }
                let Ok(slot) = Arc::clone(calls).acquire_owned().await else { return wrong("too much") };
                let session = Arc::clone(session);
                session.house.tasks.clone().spawn(async move {
                    call::answer(&session, frame).await;
                    drop(slot);
                });
            }
            (FrameKind::Stream | FrameKind::Hole, _) => {
                if let Err(why) = stream::up(session, frame).await {
                    return wrong(why);
                }
            }
            _ => return wrong("a message that calls nothing"),
        }
    }
}

/// Writes to the client, one message at a time: libvirt does not look into a TLS record that it has already read before
/// its socket has more.
async fn write_out<W: AsyncWrite + Unpin>(session: Arc<Session>, mut queue: mpsc::Receiver<Frame>, mut write: W) {
    let ending = session.ending.clone();
    let weak = Arc::downgrade(&session);
    drop(session);
    loop {
        // What was queued before the end still goes out.
        let frame = tokio::select! {
            biased;
            frame = queue.recv() => frame,
            () = async { ending.cancelled().await; tokio::time::sleep(2 * LAST_WORDS).await } => None,
        };
        let Some(frame) = frame else { break };
        let Some(bytes) = frame.bytes() else { continue };
        let sent = tokio::time::timeout(SLOW, async {
            write.write_all(&bytes).await?;
            write.flush().await
        });
        let sent = tokio::select! {
            sent = sent => sent,
            () = async { ending.cancelled().await; tokio::time::sleep(2 * LAST_WORDS).await } => break,
        };
        let Some(session) = weak.upgrade() else { continue };
        session.bytes.1.fetch_add(frame.payload.len() as u64, Ordering::Relaxed);
        match sent {
            Ok(Ok(())) => {}
            Ok(Err(_)) => return session.end(Outcome::Done, "closed"),
            Err(_) => return session.end(Outcome::Failed, "the client does not read its answers"),
        }
    }
    tokio::time::timeout(LAST_WORDS, write.shutdown()).await.ok();
}

/// Asks again, each second and whenever rights change, whether the connection and its streams may go on.
async fn watch(session: Arc<Session>) {
    let mut changes = session.house.identity.changes();
    loop {
        tokio::select! {
            () = session.ending.cancelled() => return,
            changed = changes.changed() => if changed.is_err() { return },
            () = tokio::time::sleep(Duration::from_secs(1)) => {}
        }
        // Looking is no use of the token.
        let Some(actor) = session.house.identity.token_owner(session.token) else {
            return session.end(Outcome::Failed, "access ended: the token no longer counts");
        };
        let pulled = session.held().as_ref().and_then(|held| session.house.pulled(&held.permit, &actor));
        if let Some(reason) = pulled {
            return session.end(Outcome::Failed, &format!("access ended: {reason}"));
        }
        stream::watch(&session, &actor).await;
    }
}

/// Reads the daemon's messages until the session ends.
pub(super) async fn pump(session: Arc<Session>, mut link: LinkReader) {
    let mut heard = tokio::time::Instant::now();
    loop {
        let frame = tokio::select! {
            () = session.ending.cancelled() => return,
            frame = tokio::time::timeout(LOOK, link.next()) => frame,
        };
        let frame = match frame {
            Ok(Ok(frame)) => frame,
            Ok(Err(fault)) => return session.end(Outcome::Failed, &format!("the hypervisor {}", chain(&fault))),
            Err(_) if heard.elapsed() > QUIET => {
                return session.end(Outcome::Failed, "the hypervisor does not answer any more");
            }
            Err(_) => {
                session.keep_alive(None).await;
                continue;
            }
        };
        heard = tokio::time::Instant::now();
        if frame.is_keepalive() {
            if let Some(pong) = frame.pong() {
                session.keep_alive(Some(pong)).await;
            }
            continue;
        }
        match frame.kind {
            FrameKind::Reply => {
                let Some(frame) = stream::replied(&session, frame).await else { continue };
                let caller = session.waiting().remove(&frame.serial);
                // A call whose caller has gone.
                if let Some(caller) = caller {
                    caller.send(frame).ok();
                }
            }
            FrameKind::Message => event::pass(&session, frame).await,
            FrameKind::Stream | FrameKind::Hole => stream::down(&session, frame).await,
            FrameKind::Call => return session.end(Outcome::Failed, "the hypervisor sent a call"),
        }
    }
}

impl Session {
    /// Whoever signed in, as they are now; none when their token no longer counts.
    pub(super) fn actor(&self) -> Option<Arc<Actor>> {
        self.house.identity.token_from(self.token, self.ip)
    }

    fn held(&self) -> MutexGuard<'_, Option<Held>> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn waiting(&self) -> MutexGuard<'_, HashMap<u32, oneshot::Sender<Frame>>> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Queues a message for the client; waits while it does not read.
    pub(super) async fn send(&self, frame: Frame) {
        self.out.send(frame).await.ok();
    }

    /// What holds the connection from now on.
    pub(super) fn hold(&self, open: OpenEntry, permit: Permit) {
        *self.held() = Some(Held { open, permit });
    }

    /// Whether the connection was opened.
    pub(super) fn is_open(&self) -> bool {
        self.held().is_some()
    }

    /// Waits for the answer to a call with this serial.
    pub(super) fn expect(&self, serial: u32) -> oneshot::Receiver<Frame> {
        let (caller, answer) = oneshot::channel();
        self.waiting().insert(serial, caller);
        answer
    }

    async fn keep_alive(&self, pong: Option<Frame>) {
        let mut link = self.link.lock().await;
        let Some(writer) = link.as_mut() else { return };
        if let Err(fault) = writer.keep_alive(pong).await {
            self.end(Outcome::Failed, &format!("the hypervisor {}", chain(&fault)));
        }
    }

    /// Ends the session; the first reason counts.
    pub(super) fn end(&self, outcome: Outcome, why: &str) {
        self.why.set((outcome, why.to_owned())).ok();
        self.ending.cancel();
    }

    /// Why it ended, in words.
    pub(super) fn ended(&self) -> String {
        self.why.get().map_or_else(String::new, |(_, why)| why.clone())
    }

    /// Closes what is open, with the reason.
    fn close(&self) {
        let (outcome, why) = self.why.get().cloned().unwrap_or((Outcome::Done, "closed".to_owned()));
        self.streams.close(outcome, &why);
        if let Some(Held { open, .. }) = self.held().take() {
            let of = |bytes: &AtomicU64| bytes.load(Ordering::Relaxed).to_string();
            let details = [("bytes up", &*of(&self.bytes.0)), ("bytes down", &*of(&self.bytes.1))];
            passage::end(open, outcome, &why, &details);
        }
    }
}
