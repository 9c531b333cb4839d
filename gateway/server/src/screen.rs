// SPDX-License-Identifier: Apache-2.0
//! One person at one screen, from 101 to the ending.
//!
//! ```text
//! 101 ─► dialling ─► recording begins ─► relay ─► ended
//!   └────────┴──────────────┴─► not opened: the browser reads why in a close frame
//! ```
//! The browser has its 101 before the hypervisor is dialled: a browser shows nothing of a handshake that is refused.
//! While a screen is being opened it is already counted, and cut like any other.

use crate::{
    layers::Peer,
    lives::{Full, Registered},
    passage::end,
    reply,
    state::{House, chain},
};
use hyper_util::rt::TokioIo;
use portcullis_audit::OpenEntry;
use portcullis_console::{
    record::Recorder,
    relay::{self, Report, Viewer},
    rfb,
};
use portcullis_domain::{
    Action, Actor, ConsoleMode, Effect, Ending, MachineRef, Operation, Outcome, RecordingId, Resource, Secret,
    SessionId,
};
use portcullis_policy::{Decision, Permit};
use portcullis_store::{Keys, NewRecording, Place, RecordingEnd};
use portcullis_upstream::Joined;
use std::{future::Future, sync::Arc, time::Duration};
use tokio::net::TcpStream;
use tokio_rustls::server::TlsStream;

/// Longest time from a connection to the first picture.
const HANDSHAKE: Duration = Duration::from_secs(30);
/// How long the browser may take to take the stream that it asked for.
const TAKE_OVER: Duration = Duration::from_secs(10);

/// One person at one screen.
pub(crate) struct Sitting {
    pub(crate) house: Arc<House>,
    pub(crate) actor: Arc<Actor>,
    pub(crate) session: SessionId,
    pub(crate) machine: MachineRef,
    pub(crate) mode: ConsoleMode,
    pub(crate) permit: Arc<Permit>,
    /// Which clipboard texts pass.
    pub(crate) clipboard: relay::Clipboard,
    /// The place in the register, or why there is none.
    pub(crate) place: Result<Registered, Full>,
    /// When it ends at the latest.
    pub(crate) ends_at: time::OffsetDateTime,
    pub(crate) recording: Option<RecordingId>,
    pub(crate) open: OpenEntry,
    pub(crate) peer: Peer,
}

/// Which clipboard texts may pass between somebody and a machine, and the permits that say so. Whoever only watches puts
/// nothing in.
pub(crate) fn clipboard(
    house: &House,
    actor: &Actor,
    machine: &MachineRef,
    mode: ConsoleMode,
) -> (relay::Clipboard, Vec<Permit>) {
    let (inventory, now) = (house.fleet.inventory(), house.clock.now());
    let ask = |action| {
        let operation = Operation { action, resource: Resource::Machine(machine.clone()), effect: Effect::Unsafe };
        match house.engine.decide(actor, &operation, &inventory, now) {
            Decision::Permit(permit) => Some(permit),
            Decision::StepUp(_) | Decision::Deny(_) => None,
        }
    };
    let most = |limit: Option<u32>| limit.map_or(relay::CLIPBOARD_LIMIT, |l| l.min(relay::CLIPBOARD_LIMIT));
    let inward = if mode == ConsoleMode::Control { ask(Action::ConsoleClipboardIn) } else { None };
    let outward = ask(Action::ConsoleClipboardOut);
    let clipboard = relay::Clipboard {
        inward: inward.as_ref().map(|p| most(p.clipboard_in())),
        outward: outward.as_ref().map(|p| most(p.clipboard_out())),
    };
    (clipboard, inward.into_iter().chain(outward).collect())
}

impl Sitting {
    pub(crate) async fn run(self, upgraded: hyper::upgrade::OnUpgrade) {
        let Self { house, actor, session, machine, mode, permit, clipboard, place, ends_at, recording, open, peer } =
            self;
        let Ok(Ok(upgraded)) = tokio::time::timeout(TAKE_OVER, upgraded).await else {
            return end(open, Outcome::Failed, "the browser did not take the stream", &[]);
        };
        let Some(wire) = bare(upgraded) else {
            return end(open, Outcome::Failed, "the browser spoke before the stream was open", &[]);
        };
        let mut viewer = Viewer::new(wire);
        let mut registered = match place {
            Ok(registered) => registered,
            Err(full) => return Box::pin(refuse(viewer, open, Ending::Crowded(full.words().to_owned()))).await,
        };
        let left = Duration::try_from(ends_at - house.clock.now()).unwrap_or(Duration::ZERO);
        let until = tokio::time::Instant::now() + left;
        let new = |id| NewScreen { house: &house, id, machine: &machine, actor: &actor, session };
        let opened = async {
            let mut held = Held { viewer: &mut viewer, registered: &mut registered, until };
            let upstream = held.wait_for(dial(&house, &permit)).await?;
            let recorder = match recording {
                Some(id) => Some(new(id).begin(&mut held).await?),
                None => None,
            };
            Ok((upstream, recorder))
        };
        // Boxed, like all that comes before and after: an idle console holds no room for it.
        let (upstream, recorder) = match Box::pin(opened).await {
            Ok(both) => both,
            Err(ending) => return Box::pin(refuse(viewer, open, ending)).await,
        };
        let options = relay::Options {
            mode,
            clipboard,
            idle: Duration::from_secs(u64::from(house.config.consoles.idle_seconds)),
            until: Some(until),
            leash: registered.leash.clone(),
            inputs: Arc::clone(&registered.inputs),
            recorder,
        };
        tracing::info!(request = %peer.request, recorded = recording.is_some(), "console opened");
        let now = house.clock.now();
        let report = relay::run(viewer, upstream, options).await;
        Box::pin(spend(&house, session, &permit)).await;
        Box::pin(close(&house, open, recording, &report, now)).await;
        drop(registered);
    }
}

/// What was confirmed for this console alone ends with it: another one asks again.
async fn spend(house: &House, session: SessionId, permit: &Permit) {
    let Some(proof) = permit.proof() else { return };
    if let Err(error) = house.identity.spend(session, &proof.intent, proof.at).await {
        tracing::error!(error = %chain(&error), "a confirmation could not be ended with its console");
    }
}

/// The connection itself, without the buffer that its requests were read into. None where something was sent before the
/// stream was open, which no browser does (RFC 6455 section 4.1).
fn bare(upgraded: hyper::upgrade::Upgraded) -> Option<rfb::BoxWire> {
    fn unpacked(read: &[u8], wire: impl rfb::Wire + 'static) -> Option<rfb::BoxWire> {
        read.is_empty().then(|| Box::new(wire) as rfb::BoxWire)
    }
    match upgraded.downcast::<TokioIo<TlsStream<TcpStream>>>() {
        Ok(parts) => unpacked(&parts.read_buf, parts.io.into_inner()),
        Err(upgraded) => match upgraded.downcast::<TokioIo<Joined<TcpStream>>>() {
            Ok(parts) => unpacked(&parts.read_buf, parts.io.into_inner().0),
            Err(upgraded) => Some(Box::new(TokioIo::new(upgraded))),
        },
    }
}

/// What can end a screen that is not there yet.
struct Held<'a, V> {
    viewer: &'a mut Viewer<V>,
    registered: &'a mut Registered,
    until: tokio::time::Instant,
}

impl<V: rfb::Wire> Held<'_, V> {
    /// Goes on with the work until it is done, access is cut, the browser leaves or time is up.
    async fn wait_for<T>(&mut self, work: impl Future<Output = Result<T, Ending>>) -> Result<T, Ending> {
        tokio::select! {
            biased;
            ending = relay::cut(&mut self.registered.leash) => Err(ending),
            ending = self.viewer.left() => Err(ending),
            () = tokio::time::sleep_until(self.until) => Err(Ending::TimeUp),
            done = work => done,
        }
    }
}

/// The upstream leg up to its first picture.
async fn dial(house: &House, permit: &Permit) -> Result<rfb::Upstream, Ending> {
    let screen = house.fleet.open_screen(permit).await.map_err(|e| Ending::Unopened(reply::upstream(&e).words().1))?;
    let login = rfb::Login { username: screen.login.username, password: screen.login.password };
    let tls = screen.tls.map(tls_upgrade);
    rfb::connect(screen.stream, &login, tls, HANDSHAKE).await.map_err(|e| {
        let words = chain(&e);
        tracing::info!(error = %words, "a screen could not be opened");
        Ending::Unopened(format!("Its screen could not be opened: {words}."))
    })
}

/// TLS on a screen's connection, as the upstream room made it ready.
fn tls_upgrade(tls: portcullis_upstream::TlsUpgrade) -> rfb::TlsUpgrade {
    Box::new(move |wire| {
        Box::pin(async move {
            let stream = tls.upgrade(wire).await.map_err(std::io::Error::other)?;
            Ok(Box::new(stream) as rfb::BoxWire)
        })
    })
}

/// A recording that is to begin.
struct NewScreen<'a> {
    house: &'a House,
    id: RecordingId,
    machine: &'a MachineRef,
    actor: &'a Actor,
    session: SessionId,
}

impl NewScreen<'_> {
    /// Its row, then its file. Where it does not come to a recording, the row says so.
    async fn begin<V: rfb::Wire>(&self, held: &mut Held<'_, V>) -> Result<Recorder, Ending> {
        // One key a recording, never used twice.
        let key = Keys::fresh().map_err(|e| unrecorded(&chain(&e)))?;
        let begun = async {
            // Not in the select: a row whose insert was given up may still arrive after its end was written.
            self.add_row(&key).await?;
            held.wait_for(self.begin_file(&key)).await
        };
        let begun = begun.await;
        if let Err(ending) = &begun {
            let end = RecordingEnd {
                at: self.house.clock.now(),
                bytes: 0,
                chunks: 0,
                head: None,
                ending: ending.to_string(),
            };
            end_row(self.house, self.id, &end).await;
        }
        begun
    }

    async fn add_row(&self, key: &Secret) -> Result<(), Ending> {
        let row = self.id.to_string();
        let place = Place { table: "recordings", row: &row, column: "sealed_key" };
        let row = NewRecording {
            id: self.id,
            machine: self.machine.clone(),
            user: self.actor.user,
            user_name: self.actor.name.to_string(),
            session: self.session,
            node: self.house.trail.node(),
            started_at: self.house.clock.now(),
            sealed_key: self.house.keys.seal(&place, key).map_err(|e| unrecorded(&chain(&e)))?,
        };
        self.house.store.add_recording(&row).await.map_err(|e| unrecorded(&chain(&e)))
    }

    async fn begin_file(&self, key: &Secret) -> Result<Recorder, Ending> {
        use portcullis_console::Error;
        self.house.recorders.begin(self.id, key, self.house.clock.now()).await.map_err(|e| match e {
            Error::NoSpace { .. } => {
                tracing::error!(error = %e, "a recording could not be started");
                Ending::Unrecorded("There is too little space left for a recording. Tell an administrator.".into())
            }
            other => unrecorded(&chain(&other)),
        })
    }
}

fn unrecorded(why: &str) -> Ending {
    tracing::error!(%why, "a recording could not be started");
    Ending::Unrecorded("The recording could not be started. Tell an administrator.".into())
}

async fn end_row(house: &House, recording: RecordingId, end: &RecordingEnd) {
    if let Err(error) = house.store.end_recording(recording, end).await {
        tracing::error!(error = %chain(&error), %recording, "the end of a recording could not be stored");
    }
}

/// Ends what never was a screen: the event says why in full, the browser as much as a close frame holds.
async fn refuse<V: rfb::Wire>(viewer: Viewer<V>, open: OpenEntry, ending: Ending) {
    let (outcome, reason) = match &ending {
        Ending::Unopened(_) | Ending::Unrecorded(_) | Ending::Crowded(_) => (Outcome::Failed, ending.to_string()),
        Ending::Closed | Ending::Vanished => {
            (Outcome::Abandoned, "the browser left before the screen was open".to_owned())
        }
        other => (Outcome::Failed, format!("{other}; the screen was not open yet")),
    };
    end(open, outcome, &reason, &[]);
    viewer.say_farewell(ending).await;
}

/// Writes down how a session ended: its recording's row, and its event.
async fn close(
    house: &House,
    open: OpenEntry,
    recording: Option<RecordingId>,
    report: &Report,
    started_at: time::OffsetDateTime,
) {
    let ending = report.ending.to_string();
    let now = house.clock.now();
    let kept = report.recording.as_ref().and_then(|r| r.as_ref().ok());
    let row = RecordingEnd {
        at: now,
        bytes: kept.map_or(0, |r| r.bytes),
        chunks: kept.map_or(0, |r| r.chunks),
        head: kept.map(|r| r.head),
        ending: ending.clone(),
    };
    if let Some(recording) = recording {
        end_row(house, recording, &row).await;
    }
    let outcome = match report.ending {
        Ending::Closed
        | Ending::UpstreamClosed
        | Ending::Idle
        | Ending::TimeUp
        | Ending::Shutdown
        | Ending::Cut(_)
        | Ending::Vanished => Outcome::Done,
        Ending::RecordingFailed
        | Ending::ViewerFault(_)
        | Ending::UpstreamFault(_)
        | Ending::Unopened(_)
        | Ending::Unrecorded(_)
        | Ending::Crowded(_) => Outcome::Failed,
    };
    let seconds = (now - started_at).whole_seconds().to_string();
    let head = kept.map(|r| hex::encode(r.head)).unwrap_or_default();
    let numbers =
        [report.bytes_up, report.bytes_down, report.keys, report.pointers, report.dropped].map(|n| n.to_string());
    let [up, down, keys, pointers, dropped] = &numbers;
    let details = [
        ("recording", recording.map_or_else(|| "none".to_owned(), |r| r.to_string())),
        ("recording head", head),
        ("seconds", seconds),
        ("bytes up", up.clone()),
        ("bytes down", down.clone()),
        ("keys", keys.clone()),
        ("pointer moves", pointers.clone()),
        ("inputs dropped", dropped.clone()),
    ];
    let details: Vec<(&str, &str)> = details.iter().map(|(k, v)| (*k, v.as_str())).collect();
    end(open, outcome, &ending, &details);
}
