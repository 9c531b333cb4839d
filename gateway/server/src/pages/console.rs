// SPDX-License-Identifier: Apache-2.0
//! A machine's screen: the page, the one-use ticket, and the stream.
//!
//! The ticket rides in the WebSocket's subprotocol list: never in an address, a log or a Referer. The stream is an
//! operation of its own: it walks the passage, opens its own event, and that event closes with how the session ended.

use super::{
    Answer, again,
    machines::{console_door, find, power_verbs},
    page,
};
use crate::{
    guest::Guest,
    layers::Peer,
    lives::{Full, Opening, Registered},
    passage::end,
    reply::{self, Refusal},
    state::{House, chain},
    view::{ConsoleDoor, ConsolePage, Problems, Recorded},
};
use axum::{
    Json,
    body::Body,
    extract::{Path, Query, Request, State},
    response::{IntoResponse as _, Response},
};
use http::{HeaderMap, HeaderValue, StatusCode, header};
use hyper_util::rt::TokioIo;
use portcullis_audit::OpenEntry;
use portcullis_console::{
    record::Recorder,
    relay::{self, Report},
    rfb, ws,
};
use portcullis_domain::{ConsoleMode, Ending, MachineRef, Outcome, RecordingId, Secret, SessionId, Via};
use portcullis_identity::Error;
use portcullis_policy::Permit;
use portcullis_store::{NewRecording, Place, RecordingEnd};
use rand::RngExt as _;
use serde::Deserialize;
use std::{sync::Arc, time::Duration};
use time::format_description::well_known::Rfc3339;

/// The subprotocol that noVNC and every RFB-over-WebSocket viewer knows.
const BINARY: &str = "binary";
/// How a ticket is spelled in the subprotocol list.
const TICKET: &str = "portcullis.ticket.";
/// Longest time from dialling to the first picture.
const HANDSHAKE: Duration = Duration::from_secs(30);

#[derive(Deserialize)]
pub(crate) struct Wish {
    mode: Option<String>,
}

/// The page around the screen.
pub(crate) async fn show(
    State(house): State<Arc<House>>,
    guest: Guest,
    Path((hypervisor, machine)): Path<(String, String)>,
    Query(wish): Query<Wish>,
) -> Answer {
    let actor = Arc::clone(guest.actor()?);
    let machine = find(&house, &actor, &hypervisor, &machine)?;
    let door = console_door(&house, &actor, &machine);
    let wants_view = wish.mode.as_deref() == Some("view");
    let (mode, closed) = match &door {
        ConsoleDoor::Control if !wants_view => (ConsoleMode::Control, None),
        ConsoleDoor::Control | ConsoleDoor::View => (ConsoleMode::View, None),
        ConsoleDoor::Closed(why) => (ConsoleMode::View, Some(why.clone())),
    };
    let shown = ConsolePage {
        shell: house.shell(&guest).await,
        hypervisor: machine.at.hypervisor.to_string(),
        id: machine.at.machine.to_string(),
        name: machine.name.clone(),
        state: machine.state,
        mode,
        may_control: matches!(door, ConsoleDoor::Control),
        recorded: if guest.must_record() {
            Recorded::Yes("The screen, mouse movements and the times of key presses are recorded; which keys were pressed is not.".into())
        } else {
            Recorded::No("Your access to this machine does not ask for a recording.".into())
        },
        power: power_verbs(&house, &actor, &machine),
        closed,
        problems: Problems::none(),
    };
    if shown.closed.is_some() { again(&shown) } else { page(&shown) }
}

/// Mints a ticket: 256 bit, 30 s, one use, bound to this session, machine and mode.
pub(crate) async fn ticket(
    State(house): State<Arc<House>>,
    guest: Guest,
    Path((hypervisor, machine, mode)): Path<(String, String, String)>,
) -> Answer {
    let actor = Arc::clone(guest.actor()?);
    let mode: ConsoleMode = mode.parse().map_err(|_| Refusal::NotFound)?;
    let machine = find(&house, &actor, &hypervisor, &machine)?;
    let session = session_of(&actor.via)?;
    let ticket = house
        .identity
        .mint_ticket(session, actor.user, machine.at.clone(), mode)
        .await
        .map_err(|e| reply::identity(&e, house.clock.now()))?;
    let until = house.clock.now() + time::Duration::seconds(i64::from(house.config.consoles.longest_seconds));
    let body = serde_json::json!({
        "ticket": ticket.expose_text().unwrap_or_default(),
        "mode": mode.word(),
        "recorded": guest.must_record(),
        "until": until.format(&Rfc3339).unwrap_or_default(),
        "idle_seconds": house.config.consoles.idle_seconds,
    });
    Ok(Json(body).into_response())
}

fn session_of(via: &Via) -> Result<SessionId, Refusal> {
    match via {
        Via::Session(session) => Ok(*session),
        Via::Token(_) | Via::CommandLine => {
            Err(Refusal::Forbidden("A console is opened from a signed-in browser.".into()))
        }
    }
}

/// The stream: one use of a ticket, one session at the screen.
pub(crate) async fn stream(
    State(house): State<Arc<House>>,
    guest: Guest,
    Path((hypervisor, machine, mode)): Path<(String, String, String)>,
    mut request: Request,
) -> Answer {
    let actor = Arc::clone(guest.actor()?);
    let mode: ConsoleMode = mode.parse().map_err(|_| Refusal::NotFound)?;
    let machine = find(&house, &actor, &hypervisor, &machine)?;
    let offer = read_offer(request.headers())?;
    let session = session_of(&actor.via)?;
    house.identity.take_ticket(&offer.ticket, session, &machine.at, mode).await.map_err(|e| match e {
        Error::Refused(_) => {
            Refusal::Forbidden("That ticket does not count: it was used, is too old, or is for something else.".into())
        }
        other => reply::identity(&other, house.clock.now()),
    })?;
    let (permit, open) = guest.take().ok_or(Refusal::Unknown)?;
    let recording = permit.must_record().then(|| RecordingId::new(house.request_id().uuid()));
    let opening = Opening {
        user: actor.user,
        user_name: Arc::clone(&actor.name),
        session,
        machine: machine.at.clone(),
        mode,
        place: guest.peer.ip,
        recording,
    };
    let prepared = prepare(&house, &permit, recording, &machine.at, &actor, session).await;
    let (upstream, recorder) = match prepared {
        Ok(both) => both,
        Err(refusal) => {
            end(open, Outcome::Failed, &refusal.words().1, &[]);
            return Err(refusal);
        }
    };
    let registered = match house.lives.register(&house, opening, permit) {
        Ok(registered) => registered,
        Err(full) => {
            let why = match full {
                Full::Person => "You have too many consoles open. Close one first.",
                Full::Hypervisor => "Too many consoles of this hypervisor are open. Try again later.",
            };
            end(open, Outcome::Failed, why, &[]);
            return Err(Refusal::Forbidden(why.into()));
        }
    };
    let upgraded = hyper::upgrade::on(&mut request);
    let session =
        Session { house: Arc::clone(&house), upstream, recorder, registered, open, mode, recording, peer: guest.peer };
    house.tasks.spawn(session.run(upgraded));
    switching(&offer.accept)
}

struct Offer {
    accept: String,
    ticket: String,
}

/// The WebSocket handshake of RFC 6455 section 4.2.1, and the ticket in its subprotocols.
fn read_offer(headers: &HeaderMap) -> Result<Offer, Refusal> {
    let bad =
        || Refusal::Bad("This address takes WebSocket version 13 with subprotocol \"binary\" and a ticket.".into());
    let one = |name| {
        let mut all = headers.get_all(name).iter();
        match (all.next(), all.next()) {
            (Some(v), None) => v.to_str().map_err(|_| bad()),
            _ => Err(bad()),
        }
    };
    if !one(header::UPGRADE)?.eq_ignore_ascii_case("websocket") || one(header::SEC_WEBSOCKET_VERSION)? != "13" {
        return Err(bad());
    }
    let accept = ws::accept_key(one(header::SEC_WEBSOCKET_KEY)?);
    let offered: Vec<&str> = one(header::SEC_WEBSOCKET_PROTOCOL)?.split(',').map(str::trim).collect();
    let mut tickets = offered.iter().filter_map(|p| p.strip_prefix(TICKET));
    match (tickets.next(), tickets.next(), offered.contains(&BINARY)) {
        (Some(ticket), None, true) => Ok(Offer { accept, ticket: ticket.to_owned() }),
        _ => Err(bad()),
    }
}

fn switching(accept: &str) -> Answer {
    let mut answer = Response::new(Body::empty());
    *answer.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
    let headers = answer.headers_mut();
    headers.insert(header::UPGRADE, HeaderValue::from_static("websocket"));
    headers.insert(header::CONNECTION, HeaderValue::from_static("Upgrade"));
    headers.insert(header::SEC_WEBSOCKET_PROTOCOL, HeaderValue::from_static(BINARY));
    let accept = HeaderValue::from_str(accept).map_err(|_| Refusal::Bad("Sec-WebSocket-Key is not one.".into()))?;
    headers.insert(header::SEC_WEBSOCKET_ACCEPT, accept);
    Ok(answer)
}

/// The upstream leg up to its first picture, and the recording: both stand before the browser hears 101.
async fn prepare(
    house: &Arc<House>,
    permit: &Permit,
    recording: Option<RecordingId>,
    machine: &MachineRef,
    actor: &portcullis_domain::Actor,
    session: SessionId,
) -> Result<(rfb::Upstream, Option<Recorder>), Refusal> {
    let screen = house.fleet.open_screen(permit).await.map_err(|e| reply::upstream(&e))?;
    let login = rfb::Login { username: screen.login.username, password: screen.login.password };
    let tls = screen.tls.map(tls_upgrade);
    let opened = rfb::connect(screen.stream, &login, tls, HANDSHAKE).await.map_err(|e| {
        let words = format!("Its screen could not be opened: {}.", chain(&e));
        if matches!(e, portcullis_console::Error::TimedOut(_)) {
            Refusal::UpstreamSlow(words)
        } else {
            Refusal::Upstream(words)
        }
    })?;
    let Some(recording) = recording else { return Ok((opened, None)) };
    let unrecorded = |why: String| {
        tracing::error!(%why, "a recording could not be started");
        Refusal::Unavailable(
            "The recording could not be started, so the console does not open. Tell an administrator.".into(),
        )
    };
    // 256 bits from the process's generator, reseeded by the system: one key a recording, never used twice.
    let key = Secret::new(rand::rng().random::<[u8; 32]>().to_vec());
    let row = recording.to_string();
    let place = Place { table: "recordings", row: &row, column: "sealed_key" };
    let sealed = house.keys.seal(&place, &key).map_err(|e| unrecorded(chain(&e)))?;
    let row = NewRecording {
        id: recording,
        machine: machine.clone(),
        user: actor.user,
        user_name: actor.name.to_string(),
        session,
        node: house.trail.node(),
        started_at: house.clock.now(),
        sealed_key: sealed,
    };
    house.store.add_recording(&row).await.map_err(|e| unrecorded(chain(&e)))?;
    let recorder = house.recorders.begin(recording, &key, house.clock.now()).await.map_err(|e| match e {
        portcullis_console::Error::NoSpace { .. } => Refusal::Unavailable(
            "There is too little space left for a recording, so the console does not open. Tell an administrator."
                .into(),
        ),
        other => unrecorded(chain(&other)),
    })?;
    Ok((opened, Some(recorder)))
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

/// One person at one screen, from 101 to the ending.
struct Session {
    house: Arc<House>,
    upstream: rfb::Upstream,
    recorder: Option<Recorder>,
    registered: Registered,
    open: OpenEntry,
    mode: ConsoleMode,
    recording: Option<RecordingId>,
    peer: Peer,
}

impl Session {
    async fn run(self, upgraded: hyper::upgrade::OnUpgrade) {
        let Self { house, upstream, recorder, registered, open, mode, recording, peer } = self;
        let now = house.clock.now();
        let consoles = &house.config.consoles;
        let Ok(Ok(upgraded)) = tokio::time::timeout(Duration::from_secs(10), upgraded).await else {
            return end(open, Outcome::Failed, "the browser did not take the stream", &[]);
        };
        let viewer = TokioIo::new(upgraded);
        let options = relay::Options {
            mode,
            clipboard: relay::Clipboard::default(),
            idle: Duration::from_secs(u64::from(consoles.idle_seconds)),
            until: Some(tokio::time::Instant::now() + Duration::from_secs(u64::from(consoles.longest_seconds))),
            leash: registered.leash.clone(),
            recorder,
            input: Arc::clone(&registered.input),
        };
        tracing::info!(request = %peer.request, recorded = recording.is_some(), "console opened");
        let report = relay::run(viewer, upstream, options).await;
        close(&house, open, recording, &report, now).await;
        drop(registered);
    }
}

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
    if let Some(recording) = recording
        && let Err(error) = house.store.end_recording(recording, &row).await
    {
        tracing::error!(error = %chain(&error), %recording, "the end of a recording could not be stored");
    }
    let outcome = match report.ending {
        Ending::Closed
        | Ending::UpstreamClosed
        | Ending::Idle
        | Ending::TimeUp
        | Ending::Shutdown
        | Ending::Cut(_)
        | Ending::Vanished => Outcome::Done,
        Ending::RecordingFailed | Ending::ViewerFault(_) | Ending::UpstreamFault(_) => Outcome::Failed,
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
