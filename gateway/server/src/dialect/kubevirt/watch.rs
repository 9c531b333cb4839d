// SPDX-License-Identifier: Apache-2.0
//! A watch on its way to one person: each event is cut to what they may see at that instant, and it goes on for as long as
//! they may see anything of the cluster with the token that they showed.

use super::{AGAIN, Eyes, PATIENCE, request::asks, status};
use crate::{
    body::{Body, Response, Sent},
    passage::end,
    state::House,
};
use bytes::{Bytes, BytesMut};
use http::header;
use http_body_util::BodyExt as _;
use portcullis_audit::OpenEntry;
use portcullis_domain::{Actor, HypervisorName, MachineId, Outcome, Resource, Via};
use portcullis_policy::classify::Canonical;
use portcullis_upstream::{ResponseBody, Step, Watched};
use serde_json::{Value, json};
use std::{collections::HashSet, convert::Infallible, sync::Arc, time::Duration};
use tokio::time::{Instant, MissedTickBehavior};
use uuid::Uuid;

/// The largest event, in bytes.
const MAX_EVENT: usize = 4 * 1024 * 1024;
/// How often it is asked whether it may go on.
const LOOK: Duration = Duration::from_secs(1);
/// How long nothing is waited for after something was waited for in vain.
const VAIN: Duration = Duration::from_secs(10);
/// At each how many of these it is looked for what left or entered the view without an event.
const SWEEP: u32 = 3;

/// What a client wants of a watch.
pub(super) struct Asks {
    bookmarks: bool,
    /// It goes on from a list.
    goes_on: bool,
    /// It is about all that is at its address.
    everything: bool,
}

impl Asks {
    pub(super) fn new(pairs: &[(String, String)]) -> Self {
        let value = |key: &str| pairs.iter().find(|(k, _)| k == key).map(|(_, v)| v.as_str());
        Self {
            bookmarks: asks(pairs, "allowWatchBookmarks").unwrap_or(true),
            goes_on: !matches!(value("resourceVersion"), None | Some("" | "0")),
            everything: ["labelSelector", "fieldSelector"].iter().all(|key| value(key).is_none_or(str::is_empty)),
        }
    }
}

/// Everything that one watch needs.
struct Watching {
    house: Arc<House>,
    actor: Arc<Actor>,
    hypervisor: HypervisorName,
    /// Which adding it was when this began.
    adding: Option<Uuid>,
    body: ResponseBody<Sent>,
    watched: Watched,
    early: BytesMut,
    /// How much of it has no end of a line.
    looked_at: usize,
    open: Option<OpenEntry>,
    look: tokio::time::Interval,
    looks: u32,
    /// When it was last asked whether it may go on.
    asked_at: Instant,
    /// Until when no event is waited for: one before it waited in vain, and many may be like it.
    vain_until: Instant,
    bytes: u64,
    over: bool,
}

impl Drop for Watching {
    fn drop(&mut self) {
        // The client went away: what it got is known.
        self.close(Outcome::Done, "closed");
    }
}

/// Begins to answer with the events of a watch.
pub(super) fn begin(
    house: &Arc<House>,
    actor: Arc<Actor>,
    hypervisor: &HypervisorName,
    path: &Canonical,
    asks: &Asks,
    got: http::Response<ResponseBody<Sent>>,
    open: OpenEntry,
) -> Response {
    let (mut parts, body) = got.into_parts();
    let (at_first, hidden) =
        if asks.goes_on { listed(house, &actor, hypervisor, path, asks) } else { Default::default() };
    let mut look = tokio::time::interval(LOOK);
    look.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let watching = Watching {
        house: Arc::clone(house),
        actor,
        hypervisor: hypervisor.clone(),
        adding: house.adding(hypervisor),
        body,
        watched: Watched::new(path.as_str(), asks.bookmarks, at_first, hidden),
        early: BytesMut::new(),
        looked_at: 0,
        open: Some(open),
        look,
        looks: 0,
        asked_at: Instant::now(),
        vain_until: Instant::now(),
        bytes: 0,
        over: false,
    };
    let stream = futures_util::stream::unfold(watching, |mut watching| async move {
        let part = watching.next().await?;
        Some((Ok::<Bytes, Infallible>(part), watching))
    });
    for name in [header::CONTENT_LENGTH, header::CONTENT_ENCODING] {
        parts.headers.remove(name);
    }
    Response::from_parts(parts, Body::Page(axum::body::Body::from_stream(stream)))
}

/// The machines at a path that somebody may see now, and those that they may not.
fn listed(
    house: &House,
    actor: &Actor,
    hypervisor: &HypervisorName,
    path: &Canonical,
    asks: &Asks,
) -> (HashSet<MachineId>, HashSet<MachineId>) {
    let mut segments = path.segments().skip(3);
    let namespace = segments.next().filter(|s| *s == "namespaces").and_then(|_| segments.next());
    let eyes = Eyes::new(house, actor, hypervisor);
    let here = eyes.inventory.iter().filter(|m| m.at.hypervisor == *hypervisor);
    let here = here.filter(|m| namespace.is_none_or(|n| m.pool.as_deref() == Some(n)));
    let (seen, hidden): (HashSet<MachineId>, HashSet<MachineId>) =
        here.map(|m| m.at.machine.clone()).partition(|id| eyes.known(id));
    // With a selector, one that comes into view need not be one that it finds.
    (seen, if asks.everything { hidden } else { HashSet::new() })
}

impl Watching {
    fn close(&mut self, outcome: Outcome, reason: &str) {
        if let Some(open) = self.open.take() {
            end(open, outcome, reason, &[("bytes", &self.bytes.to_string())]);
        }
    }

    /// What goes out next; none at the end.
    async fn next(&mut self) -> Option<Bytes> {
        if self.over {
            return None;
        }
        loop {
            while let Some(line) = self.line() {
                // Many may have come at once.
                if self.asked_at.elapsed() >= LOOK
                    && let Some(why) = self.pulled()
                {
                    return Some(self.last(403, &format!("Access ended: {why}"), Outcome::Failed));
                }
                match self.event(&line).await {
                    Ok(None) => {}
                    Ok(Some(event)) => return Some(self.sent(&[event])),
                    Err(why) => return Some(self.last(502, &why, Outcome::Failed)),
                }
            }
            if self.early.len() > MAX_EVENT {
                return Some(self.last(502, "The cluster sent an event that is too long.", Outcome::Failed));
            }
            tokio::select! {
                frame = self.body.frame() => match frame {
                    Some(Ok(frame)) => self.early.extend_from_slice(frame.data_ref().map_or(&[][..], |d| d)),
                    Some(Err(error)) => return Some(self.last(502, &error.to_string(), Outcome::Failed)),
                    None => {
                        self.close(Outcome::Done, "the cluster ended the watch");
                        return None;
                    }
                },
                _ = self.look.tick() => {
                    if let Some(part) = self.look_again() {
                        return Some(part);
                    }
                }
                () = self.house.closing.cancelled() => {
                    self.close(Outcome::Done, "the gateway is shutting down");
                    return None;
                }
            }
        }
    }

    /// Whether it may go on, and what left or entered the view without an event.
    fn look_again(&mut self) -> Option<Bytes> {
        if let Some(why) = self.pulled() {
            return Some(self.last(403, &format!("Access ended: {why}"), Outcome::Failed));
        }
        self.looks = self.looks.wrapping_add(1);
        if !self.looks.is_multiple_of(SWEEP) {
            return None;
        }
        let eyes = Eyes::new(&self.house, &self.actor, &self.hypervisor);
        match eyes.look(|sight| self.watched.look(sight)) {
            None => Some(self.last(410, "What you may see has become more: list again.", Outcome::Done)),
            Some(left) if left.is_empty() => None,
            Some(left) => Some(self.sent(&left)),
        }
    }

    /// A whole line, if one has come.
    fn line(&mut self) -> Option<BytesMut> {
        let fresh = self.early.get(self.looked_at..).unwrap_or_default();
        let Some(at) = fresh.iter().position(|b| *b == b'\n') else {
            self.looked_at = self.early.len();
            return None;
        };
        let at = self.looked_at + at;
        let mut line = self.early.split_to(at + 1);
        line.truncate(at);
        self.looked_at = 0;
        Some(line)
    }

    async fn event(&mut self, line: &[u8]) -> Result<Option<Value>, String> {
        if line.iter().all(u8::is_ascii_whitespace) {
            return Ok(None);
        }
        let (began, waits) = (Instant::now(), Instant::now() >= self.vain_until);
        loop {
            let is_patient = waits && began.elapsed() < PATIENCE;
            let step = self.step(line, is_patient)?;
            if waits && !is_patient {
                self.vain_until = Instant::now() + VAIN;
            }
            match step {
                Step::Send(event) => return Ok(Some(event)),
                Step::Skip => return Ok(None),
                Step::Wait => tokio::time::sleep(AGAIN).await,
            }
        }
    }

    fn step(&mut self, line: &[u8], patient: bool) -> Result<Step, String> {
        let eyes = Eyes::new(&self.house, &self.actor, &self.hypervisor);
        let cutter = self.house.fleet.cutter(&self.hypervisor).ok_or("The cluster is gone.")?;
        let is_known = |machine: &MachineId| !patient || eyes.has(machine);
        let watched = &mut self.watched;
        eyes.look(|sight| watched.event(&cutter, line, sight, &is_known)).map_err(|fault| fault.to_string())
    }

    fn sent(&mut self, events: &[Value]) -> Bytes {
        let mut text = Vec::new();
        for event in events {
            text.extend_from_slice(event.to_string().as_bytes());
            text.push(b'\n');
        }
        self.bytes += text.len() as u64;
        Bytes::from(text)
    }

    /// The last event, which says why it ends.
    fn last(&mut self, code: u16, why: &str, outcome: Outcome) -> Bytes {
        let event = json!({"type": "ERROR", "object": status(code, why)});
        let part = self.sent(&[event]);
        self.over = true;
        self.close(outcome, why);
        part
    }

    /// Why it may not go on, if so: the token was revoked, the person disabled, nothing of it may be seen any more.
    fn pulled(&mut self) -> Option<String> {
        self.asked_at = Instant::now();
        let lost = || Some("the token no longer counts".to_owned());
        let (Via::Token(token), Some(from)) = (self.actor.via, self.actor.from) else { return lost() };
        let Some(mut now) = self.house.identity.token_from(token, from) else { return lost() };
        if now.from != Some(from) {
            Arc::make_mut(&mut now).from = Some(from);
        }
        self.actor = now;
        if !self.house.roster.load().has(&self.hypervisor) || self.house.adding(&self.hypervisor) != self.adding {
            return Some(crate::locks::REMOVED.to_owned());
        }
        let (at, cluster) = (self.house.clock.now(), Resource::Hypervisor(self.hypervisor.clone()));
        if let Some(words) = self.house.locks.against(self.actor.via, &cluster, at) {
            return Some(words);
        }
        let sees = self.house.engine.may_see(&self.actor, &cluster, &self.house.fleet.inventory(), at);
        (!sees).then(|| "nothing of it may be seen any more".to_owned())
    }
}
