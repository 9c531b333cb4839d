// SPDX-License-Identifier: Apache-2.0
//! A machine's screen: the page, the one-use ticket, and the stream.
//!
//! The ticket rides in the WebSocket's subprotocol list: never in an address, a log or a Referer. The stream is an
//! operation of its own: it walks the passage, opens its own event, and that event closes with how the session ended
//! ([`crate::screen`]).

use super::{
    Answer, again,
    machines::{console_door, find, power_verbs},
    page,
};
use crate::{
    guest::Guest,
    lives::{self, Opening},
    reply::{self, Refusal},
    screen::{self, Sitting},
    state::House,
    view::{ConsoleDoor, ConsolePage, Problems, Recorded},
};
use axum::{
    Json,
    body::Body,
    extract::{Path, Query, Request, State},
    response::{IntoResponse as _, Response},
};
use http::{HeaderMap, HeaderValue, StatusCode, header};
use portcullis_console::ws;
use portcullis_domain::{Action, ConsoleMode, OwnObject, RecordingId, Resource, SessionId, Via};
use portcullis_identity::Error;
use portcullis_policy::Permit;
use serde::Deserialize;
use std::sync::Arc;
use time::format_description::well_known::Rfc3339;

/// The subprotocol that noVNC and every RFB-over-WebSocket viewer knows.
const BINARY: &str = "binary";
/// How a ticket is spelled in the subprotocol list.
const TICKET: &str = "portcullis.ticket.";

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
    let asker = house.asker(&actor);
    let door = console_door(&asker, &machine);
    let wants_view = wish.mode.as_deref() == Some("view");
    let (mode, closed) = match &door {
        ConsoleDoor::Control if !wants_view => (ConsoleMode::Control, None),
        ConsoleDoor::Control | ConsoleDoor::View => (ConsoleMode::View, None),
        ConsoleDoor::Closed(why) => (ConsoleMode::View, Some(why.clone())),
        ConsoleDoor::Shut(shut) => (ConsoleMode::View, Some(shut.why.clone())),
    };
    let closed = match (closed, house.trained(actor.user).await) {
        (None, Err(Refusal::Forbidden(why))) => Some(why),
        (None, Err(other)) => return Err(other),
        (closed, _) => closed,
    };
    let (power, no_power) = power_verbs(&house, &asker, &machine);
    let no_keys = asker.shut(&machine, Action::ConsoleControl);
    let shown = ConsolePage {
        shell: house.shell(&guest).await,
        hypervisor: machine.at.hypervisor.to_string(),
        id: machine.at.machine.to_string(),
        name: machine.name.clone(),
        state: machine.state,
        mode,
        may_control: matches!(door, ConsoleDoor::Control),
        recorded: if guest.must_record() { Recorded::Yes } else { Recorded::No },
        power,
        no_power,
        closed,
        no_keys,
        may_lock: house.may(&actor, Action::Lock, Resource::Own(OwnObject::Sessions)),
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
    let trained_until = house.trained(actor.user).await?;
    let made_at = house.clock.now();
    let ticket = house
        .identity
        .mint_ticket(session, actor.user, machine.at.clone(), mode)
        .await
        .map_err(|e| reply::identity(&e, house.clock.now()))?;
    let lasts_until = guest.lasts_until().ok_or(Refusal::Unknown)?;
    let lasts_until = trained_until.map_or(lasts_until, |until| until.min(lasts_until));
    let until = lives::ends_at(&house, session, lasts_until, made_at).await?;
    let (_, texts) = screen::clipboard(&house, &actor, &machine.at, mode);
    let body = serde_json::json!({
        "ticket": ticket.expose_text().unwrap_or_default(),
        "mode": mode.word(),
        "recorded": guest.must_record() || texts.iter().any(Permit::must_record),
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
    let trained_until = house.trained(actor.user).await?;
    let taken = house.identity.take_ticket(&offer.ticket, session, &machine.at, mode).await;
    let made_at = taken.map_err(|e| match e {
        Error::Refused(_) => {
            Refusal::Forbidden("That ticket does not count: it was used, is too old, or is for something else.".into())
        }
        other => reply::identity(&other, house.clock.now()),
    })?;
    let answer = switching(&offer.accept)?;
    let lasts_until = guest.lasts_until().ok_or(Refusal::Unknown)?;
    let lasts_until = trained_until.map_or(lasts_until, |until| until.min(lasts_until));
    let ends_at = lives::ends_at(&house, session, lasts_until, made_at).await?;
    let (permit, open) = guest.take().ok_or(Refusal::Unknown)?;
    let permit = Arc::new(permit);
    let (clipboard, texts) = screen::clipboard(&house, &actor, &machine.at, mode);
    let recorded = permit.must_record() || texts.iter().any(Permit::must_record);
    let recording = recorded.then(|| RecordingId::new(house.request_id().uuid()));
    let opening = Opening {
        user: actor.user,
        user_name: Arc::clone(&actor.name),
        session,
        machine: machine.at.clone(),
        mode,
        place: guest.peer.ip,
        ends_at,
        recording,
        clipboard: texts,
    };
    let place = house.lives.register(&house, opening, Arc::clone(&permit));
    let upgraded = hyper::upgrade::on(&mut request);
    let (house, machine, peer) = (Arc::clone(&house), machine.at, guest.peer);
    let tasks = house.tasks.clone();
    let sitting =
        Sitting { house, actor, session, machine, mode, permit, clipboard, place, ends_at, recording, open, peer };
    tasks.spawn(sitting.run(upgraded));
    Ok(answer)
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
