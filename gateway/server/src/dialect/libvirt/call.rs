// SPDX-License-Identifier: Apache-2.0
//! One call: what it asks, whether that is allowed, and what comes of it.

use super::{
    super::{BACK, SAVED, UNSEEN, Unseen, look_at, more},
    REMOTE, answer,
    error::{self, reply},
    session::{self, Session},
    stream,
};
use crate::{
    api::unrecorded,
    layers::Peer,
    passage::{self, Asked, Caller, Passed, Trailed, Visit, end},
    reply::{self as status, Refusal},
    state::{House, request_id},
};
use bytes::Bytes;
use portcullis_audit::OpenEntry;
use portcullis_domain::{Actor, Outcome, Resource};
use portcullis_policy::{
    Permit,
    classify::{
        Verdict,
        libvirt::{Call, Place, Procedures, Way, going_back, going_on},
        xdr::Writer,
    },
};
use portcullis_upstream::{Beside, Frame, FrameKind, FrameStatus, Settings};
use std::{
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

/// Numbers of `remote_protocol.x`.
const CONNECT_CLOSE: u32 = 2;
pub(super) const LIST_ALL_DOMAINS: u32 = 273;
/// `VIR_DRV_FEATURE_FD_PASSING` and `…_PROGRAM_KEEPALIVE`: one cannot be, the other is the gateway's.
const FD_PASSING: u32 = 8;
const KEEPALIVE: u32 = 10;

/// How long a call may wait for its turn, and how often it looks.
const PATIENCE: Duration = Duration::from_secs(10);
const PAUSE: Duration = Duration::from_millis(50);

/// Whether a call ends the connection.
pub(super) fn is_close(frame: &Frame) -> bool {
    (frame.program, frame.procedure) == (REMOTE, CONNECT_CLOSE)
}

/// What goes back to the client.
pub(super) enum Answer {
    /// A result.
    Result(Bytes),
    /// The daemon's own error, or one like it.
    Error(Bytes),
    /// The daemon's answer as it is.
    Frame(Frame),
    /// Somebody else passes the answer on.
    Later,
}

/// Answers one call.
pub(super) async fn answer(session: &Arc<Session>, frame: Frame) {
    let answer = walk(session, &frame).await.unwrap_or_else(|refusal| Answer::Error(error::refusal(&refusal)));
    let out = match answer {
        Answer::Result(payload) => reply(&frame, FrameStatus::Ok, payload),
        Answer::Error(payload) => reply(&frame, FrameStatus::Error, payload),
        Answer::Frame(got) => Frame { serial: frame.serial, ..got },
        Answer::Later => return,
    };
    session.send(out).await;
}

async fn walk(session: &Arc<Session>, frame: &Frame) -> Result<Answer, Refusal> {
    let Session { house, hypervisor, ip, .. } = &**session;
    let at = house.clock.now();
    let peer = Peer { ip: *ip, request: request_id(at), at };
    // The token is looked at anew for each call.
    let actor = session.actor().ok_or(Refusal::Unknown)?;
    pace(session, &actor, peer).await?;
    let face = house.fleet.rpc(hypervisor).ok_or(Refusal::Misdirected)?;
    let inventory = house.fleet.inventory();
    let place = Place { hypervisor, inventory: &inventory, labels: &face.labels };
    let mut call = Procedures::builtin().classify(place, frame.program, frame.procedure, &frame.payload);
    let why = better(house, passage::from(Arc::clone(&actor), peer), place, &mut call).await;
    let asked = match call.verdict.clone() {
        Verdict::Operation { operation, also, .. } => Asked::Operation(operation, also),
        Verdict::Visible { hypervisor, .. } => Asked::Visible(hypervisor),
        Verdict::Denied(why) => Asked::Denied(format!("{}: {why}", call.name)),
        // A step of signing in, from somebody who did.
        Verdict::Unread | Verdict::Task { .. } => Asked::Denied(format!("{}: You signed in already.", call.name)),
    };
    let visit = Visit { kind: "api", peer, asked, trailed: Trailed::Yes, at };
    let caller = std::future::ready(Ok(Caller::Known(actor)));
    let go = |passed: Passed| go(session, frame, call, passed);
    let walked = passage::walk(house, visit, caller, || std::future::ready(Ok(None)), go).await;
    walked.map_err(|refusal| refusal.because(why))
}

/// `VIR_DOMAIN_START_FORCE_BOOT`: memory that was saved is thrown away.
const FORCE_BOOT: u32 = 8;

/// Tells better what going back to a snapshot asks, and on with memory that was saved, for somebody who may see the machine;
/// and why it asks more than one may expect.
async fn better(house: &House, actor: Arc<Actor>, place: Place<'_>, call: &mut Call) -> Option<&'static str> {
    let (beside, why) = match (call.way, &call.text) {
        (Way::Back, Some(snapshot)) => (Beside::Snapshot(snapshot.clone()), BACK),
        (Way::On, _) if call.number & FORCE_BOOT != 0 => (Beside::Nothing, SAVED),
        (Way::On, _) => (Beside::Saved, SAVED),
        _ => return None,
    };
    let Verdict::Operation { operation, .. } = &call.verdict else { return None };
    let Resource::Machine(machine) = &operation.resource else { return None };
    let standing = match look_at(house, &actor, machine.clone(), &beside).await {
        Ok(standing) => standing?,
        Err(Unseen) => return Some(UNSEEN),
    };
    let Settings::Xml(now) = &standing.now else { return Some(UNSEEN) };
    let then = match &standing.then {
        Some(Settings::Xml(then)) => then.first().map(String::as_str),
        Some(_) => return Some(UNSEEN),
        None => None,
    };
    let told = match (call.way, then) {
        (Way::Back, Some(then)) => going_back(place, &call.verdict, now, then),
        (Way::On, then) => going_on(place, &call.verdict, now, then),
        _ => None,
    };
    let Some(verdict) = told else { return Some(UNSEEN) };
    call.verdict = verdict;
    more(&call.verdict).then_some(why)
}

/// Keeps to the pace of the token. These clients make many calls and repeat none: whoever is too fast waits for a while.
async fn pace(session: &Session, actor: &Actor, peer: Peer) -> Result<(), Refusal> {
    let until = tokio::time::Instant::now() + PATIENCE;
    loop {
        match session.house.pace_call(actor, &session.hypervisor, peer) {
            Err(Refusal::TooMany(_)) if tokio::time::Instant::now() < until => {
                tokio::select! {
                    () = tokio::time::sleep(PAUSE) => {}
                    () = session.ending.cancelled() => return Err(over(session)),
                }
            }
            paced => return paced,
        }
    }
}

/// A call that was let through.
async fn go(session: &Arc<Session>, frame: &Frame, call: Call, passed: Passed) -> Result<Answer, Refusal> {
    let Passed { actor: Some(actor), permit: Some(permit), open: Some(open) } = passed else {
        return Err(Refusal::Unavailable("The request lost its permit on the way.".into()));
    };
    if let Err(refusal) = unrecorded(&session.house, &permit, &actor).await {
        return Err(refuse(open, &call, Outcome::Denied, refusal));
    }
    if call.way == Way::Open {
        return connect(session, &call, permit, open).await.map(Answer::Result);
    }
    if !session.is_open() {
        return Err(refuse(open, &call, Outcome::Failed, Refusal::Bad("Open the connection first.".into())));
    }
    if call.way.is_stream() {
        return stream::open(session, frame, &call, permit, open).await;
    }
    let given = act(session, frame, &call, &permit, &actor).await;
    match &given {
        Ok(Answer::Error(payload) | Answer::Frame(Frame { status: FrameStatus::Error, payload, .. })) => {
            let code = error::code(payload).to_string();
            end(open, Outcome::Failed, &format!("{}: the hypervisor said no", call.name), &[("error", &code)]);
        }
        Ok(Answer::Result(payload) | Answer::Frame(Frame { payload, .. })) => {
            end(open, Outcome::Done, &call.name, &[("bytes", &payload.len().to_string())]);
        }
        Ok(Answer::Later) => end(open, Outcome::Done, &call.name, &[]),
        Err(refusal) => end(open, Outcome::Failed, &format!("{}: {}", call.name, refusal.words().1), &[]),
    }
    given
}

async fn act(
    session: &Arc<Session>,
    frame: &Frame,
    call: &Call,
    permit: &Permit,
    actor: &Actor,
) -> Result<Answer, Refusal> {
    let own = |value: u32| Ok(Answer::Result(Writer::default().word(value).done().into()));
    match call.way {
        Way::Feature if call.number == KEEPALIVE => own(1),
        Way::Feature if call.number == FD_PASSING => own(0),
        Way::Description if call.secrets != 0 => answer::description(session, frame, call, permit).await,
        Way::Pass | Way::Feature | Way::Description | Way::Back | Way::On => {
            let call = (frame.program, frame.procedure);
            ask(session, permit, call, frame.payload.clone()).await.map(Answer::Frame)
        }
        _ => answer::rows(session, frame, call, permit, actor).await,
    }
}

/// Calls the daemon, and waits for its answer.
pub(super) async fn ask(
    session: &Arc<Session>,
    permit: &Permit,
    (program, procedure): (u32, u32),
    payload: Bytes,
) -> Result<Frame, Refusal> {
    let gone = || Refusal::Upstream("The connection to it has ended.".into());
    let answer = {
        let mut link = session.link.lock().await;
        let writer = link.as_mut().ok_or_else(gone)?;
        let serial = writer.next_serial();
        let answer = session.expect(serial);
        let (kind, status) = (FrameKind::Call, FrameStatus::Ok);
        let call = Frame { program, procedure, kind, serial, status, payload, held: None };
        if let Err(error) = writer.call(permit, session.house.clock.now(), &call).await {
            // Half of it may have been sent.
            session.end(Outcome::Failed, "the hypervisor could not be asked");
            return Err(status::upstream(&error));
        }
        answer
    };
    let got = tokio::select! {
        got = answer => got.map_err(|_| gone())?,
        () = session.ending.cancelled() => return Err(over(session)),
    };
    if (got.program, got.procedure, got.status) == (program, procedure, FrameStatus::Continue)
        || (got.program, got.procedure) != (program, procedure)
    {
        session.end(Outcome::Failed, "the hypervisor answered another call");
        return Err(Refusal::Upstream("It answered something that was not asked.".into()));
    }
    Ok(got)
}

/// The session has ended: why.
pub(super) fn over(session: &Session) -> Refusal {
    let why = session.ended();
    if why.starts_with("access ended") {
        Refusal::Forbidden(why)
    } else {
        Refusal::Unavailable("The connection has ended.".into())
    }
}

/// Opens the daemon's connection for this client.
async fn connect(session: &Arc<Session>, call: &Call, permit: Permit, open: OpenEntry) -> Result<Bytes, Refusal> {
    let Session { house, hypervisor, .. } = &**session;
    let face = house.fleet.rpc(hypervisor).ok_or(Refusal::Misdirected)?;
    if let Some(other) = call.text.as_deref().filter(|uri| **uri != *face.uri) {
        let other: String = other.chars().filter(|c| !c.is_control()).take(128).collect();
        let why = format!("Through this gateway {} is opened, and not {other}.", face.uri);
        return Err(refuse(open, call, Outcome::Denied, Refusal::Forbidden(why)));
    }
    if session.is_opening.swap(true, Ordering::Relaxed) {
        return Err(refuse(open, call, Outcome::Failed, Refusal::Bad("The connection is open already.".into())));
    }
    let link = tokio::select! {
        link = house.fleet.open_rpc(&permit, call.number) => link,
        () = session.ending.cancelled() => return Err(refuse(open, call, Outcome::Failed, over(session))),
    };
    match link {
        Ok((reader, writer)) => {
            *session.link.lock().await = Some(writer);
            session.hold(open, permit);
            house.tasks.spawn(session::pump(Arc::clone(session), reader));
            Ok(Bytes::new())
        }
        Err(error) => {
            session.is_opening.store(false, Ordering::Relaxed);
            Err(refuse(open, call, Outcome::Failed, status::upstream(&error)))
        }
    }
}

pub(super) fn refuse(open: OpenEntry, call: &Call, outcome: Outcome, refusal: Refusal) -> Refusal {
    end(open, outcome, &format!("{}: {}", call.name, refusal.words().1), &[]);
    refusal
}
