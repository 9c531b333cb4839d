// SPDX-License-Identifier: Apache-2.0
//! A hypervisor's management API, proxied: classified by its table, authorized, forwarded with a credential that the
//! sender never sees. A tool presents a token of ours as `Authorization: Bearer`; cookies are worth nothing here, so
//! that no web page can ride on a signed-in browser.

use crate::{
    body::{Body, Passing, Response, done},
    events,
    layers::Peer,
    passage::{self, Asked, Caller, Passed, Trailed, Visit, end},
    reply::{self, Refusal},
    state::{House, Shard, chain},
};
use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Request, header};
use http_body_util::{BodyExt as _, Limited};
use hyper::body::Incoming;
use hyper_util::rt::TokioIo;
use portcullis_audit::OpenEntry;
use portcullis_domain::{Actor, HypervisorName, Outcome, Via};
use portcullis_policy::{
    Permit,
    classify::{self, Answer, Canonical, Upgrade, Verdict},
};
use portcullis_upstream::{Answer as Got, MAX_ANSWER, RequestContext, ResponseBody, Tunnel};
use std::{sync::Arc, time::Duration};
use tokio::io::copy_bidirectional_with_sizes;

/// Answers one request to a hypervisor's API.
pub(crate) async fn proxy(
    house: &Arc<House>,
    shard: &Arc<Shard>,
    name: &HypervisorName,
    peer: Peer,
    request: Request<Incoming>,
) -> Response {
    let walked = match read(house, shard, name, peer, request) {
        Ok((visit, caller, call)) => {
            let caller = std::future::ready(Ok(caller));
            passage::walk(house, visit, caller, || std::future::ready(Ok(None)), |passed| call.forward(passed)).await
        }
        Err(refusal) => Err(refusal),
    };
    walked.unwrap_or_else(|refusal| dialect(&refusal, peer))
}

/// What a request asks and who sends it, without waiting for anything: a future is moved as a whole, so the walk's is
/// the only one.
fn read<'a>(
    house: &'a Arc<House>,
    shard: &'a Arc<Shard>,
    name: &HypervisorName,
    peer: Peer,
    request: Request<Incoming>,
) -> Result<(Visit, Caller, Box<Call<'a>>), Refusal> {
    let table = house.tables.get(name).ok_or(Refusal::Misdirected)?;
    let upgrade = wish(request.headers())?;
    let path = classify::canonical(request.uri().path()).map_err(|e| Refusal::Bad(e.to_string()))?;
    let asked =
        classify::Asked { method: request.method().as_str(), path: &path, query: request.uri().query(), upgrade };
    let (asked, answer) = match table.classify(name, &asked) {
        Verdict::Operation { operation, answer } => (Asked::Operation(operation), answer),
        Verdict::Task { task, answer } => (Asked::Task(task), answer),
        Verdict::Denied(reason) => (Asked::Denied(reason.into_owned()), Answer::Pass),
    };
    // Before the bracket: whoever knocks too often may not fill the trail either.
    let caller = caller(house, name, peer, request.headers())?;
    if let Caller::Known(actor) = &caller {
        house.pace_call(actor, name, peer)?;
    }
    let visit = Visit { kind: "api", peer, asked, trailed: Trailed::Yes, at: peer.at };
    // Boxed: what is handed through the passage is moved in each of its rooms.
    Ok((visit, caller, Box::new(Call { house, shard, peer, path, answer, upgrade, request })))
}

/// What a request wants to become: a WebSocket (RFC 6455 section 4.1) or nothing.
fn wish(headers: &HeaderMap) -> Result<Upgrade, Refusal> {
    let mut all = headers.get_all(header::UPGRADE).iter();
    match (all.next(), all.next()) {
        (None, _) => Ok(Upgrade::None),
        (Some(one), None) if one.as_bytes().eq_ignore_ascii_case(b"websocket") => Ok(Upgrade::WebSocket),
        _ => Err(Refusal::Bad("A request here becomes a WebSocket, or nothing else.".into())),
    }
}

/// The token of a tool. No second chance by another header, a cookie or a query.
fn caller(house: &House, name: &HypervisorName, peer: Peer, headers: &HeaderMap) -> Result<Caller, Refusal> {
    let mut all = headers.get_all(header::AUTHORIZATION).iter();
    let token = match (all.next(), all.next()) {
        (Some(one), None) => one.to_str().ok().and_then(|v| v.strip_prefix("Bearer ")),
        _ => None,
    };
    let actor = token.and_then(|t| house.identity.token_actor(t, peer.ip));
    match actor {
        Some(actor) if actor.scope.as_ref().is_none_or(|scope| scope == name) => Ok(Caller::Known(actor)),
        _ if house.strangers.check(peer.ip) => {
            let elsewhere = token.and_then(|t| house.identity.token_elsewhere(t, peer.ip));
            Ok(elsewhere
                .map_or(Caller::Stranger, |owner| Caller::Barred(owner, "the token is bound to other networks")))
        }
        _ => {
            house.strangers.refused(peer.ip);
            Err(Refusal::TooMany(5))
        }
    }
}

/// One call that was let through.
struct Call<'a> {
    house: &'a Arc<House>,
    shard: &'a Arc<Shard>,
    peer: Peer,
    path: Canonical,
    answer: Answer,
    upgrade: Upgrade,
    request: Request<Incoming>,
}

impl Call<'_> {
    async fn forward(self: Box<Self>, passed: Passed) -> Result<Response, Refusal> {
        let Self { house, shard, peer, path, answer, upgrade, mut request } = *self;
        let Passed { actor: Some(actor), permit: Some(permit), open: Some(open) } = passed else {
            return Err(Refusal::Unavailable("The request lost its permit on the way.".into()));
        };
        let refuse = |open: OpenEntry, outcome: Outcome, refusal: Refusal| {
            end(open, outcome, &refusal.words().1, &[]);
            refusal
        };
        if permit.must_record() && permit.operation().action.is_console() {
            let why = "Your access asks for a recording, and a console over this API cannot be recorded. Open it in the \
                       browser, or ask for access without a recording.";
            return Err(refuse(open, Outcome::Denied, Refusal::Forbidden(why.into())));
        }
        if permit.operation().action.is_console()
            && let Err(refusal) = house.trained(actor.user).await
        {
            return Err(refuse(open, Outcome::Denied, refusal));
        }
        let client = (upgrade == Upgrade::WebSocket).then(|| hyper::upgrade::on(&mut request));
        let context = RequestContext { request: peer.request, upgrade };
        let got = match shard.forwarder.forward(&permit, &path, request, context).await {
            Ok(got) => got,
            Err(error) => return Err(refuse(open, Outcome::Failed, reply::upstream(&error))),
        };
        match (got, answer, client) {
            (Got::Response(got), Answer::Pass, _) => {
                let leash = Leash { house: Arc::clone(house), permit, actor };
                let status = got.status().as_u16();
                Ok(got.map(|body| Body::Upstream(Box::new(Passing::new(body, open, leash, status)))))
            }
            // Only the stream is filtered: whatever else comes in its place stays here.
            (Got::Response(_), Answer::Events, _) => {
                let why = "It did not open its stream of events.";
                Err(refuse(open, Outcome::Failed, Refusal::Upstream(why.into())))
            }
            (Got::Response(got), answer, _) => Box::pin(answered(house, &permit, open, answer, got)).await,
            (Got::Upgraded(head, tunnel), answer, Some(client)) => {
                let stream = Stream { leash: Leash { house: Arc::clone(house), permit, actor }, open, answer };
                house.tasks.spawn(stream.run(client, tunnel));
                let mut answer = head.map(|()| Body::empty());
                // Both are a hop's own: the hypervisor's were taken off, these are ours.
                answer.headers_mut().insert(header::UPGRADE, HeaderValue::from_static("websocket"));
                answer.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("Upgrade"));
                Ok(answer)
            }
            (Got::Upgraded(..), _, None) => {
                let why = "It switched protocols without being asked.";
                Err(refuse(open, Outcome::Failed, Refusal::Upstream(why.into())))
            }
        }
    }
}

/// An answer that is read whole and cleaned before it goes out.
async fn answered(
    house: &House,
    permit: &Permit,
    open: OpenEntry,
    answer: Answer,
    got: http::Response<ResponseBody>,
) -> Result<Response, Refusal> {
    let status = got.status();
    let (mut parts, body) = got.into_parts();
    let text = match whole(body).await {
        Ok(text) => text,
        Err(why) => {
            end(open, Outcome::Failed, why, &[]);
            return Err(Refusal::Upstream(why.to_owned()));
        }
    };
    // Without the hypervisor's secrets: exchanged for ours where it opens channels, removed everywhere else.
    let clean = match answer {
        Answer::ConsoleSecrets if status.is_success() => house.fleet.exchange(permit, &text),
        _ => house.fleet.broker().strip(permit, &text),
    };
    match clean {
        Ok(clean) => {
            parts.headers.remove(header::CONTENT_LENGTH);
            parts.headers.remove(header::ETAG);
            let outcome = if status.as_u16() >= 400 { Outcome::Failed } else { Outcome::Done };
            done(open, outcome, status.as_u16(), clean.len() as u64);
            Ok(Response::from_parts(parts, Body::Whole(Some(Bytes::from(clean)))))
        }
        Err(error) => {
            tracing::warn!(error = %chain(&error), "an answer with secrets was withheld");
            end(open, Outcome::Failed, "the answer could not be read, so its secrets could not be taken out", &[]);
            Err(Refusal::Upstream("Its answer could not be read.".into()))
        }
    }
}

async fn whole(body: ResponseBody) -> Result<Bytes, &'static str> {
    let read = Limited::new(body, MAX_ANSWER).collect();
    match tokio::time::timeout(Duration::from_hours(1), read).await {
        Ok(Ok(all)) => Ok(all.to_bytes()),
        Ok(Err(_)) => Err("Its answer was too long or broke off."),
        Err(_) => Err("Its answer did not arrive in time."),
    }
}

/// An upgraded stream: copied both ways until one side ends it, the house closes, or the permit is no longer renewed.
struct Stream {
    leash: Leash,
    open: OpenEntry,
    answer: Answer,
}

impl Stream {
    async fn run(self, client: hyper::upgrade::OnUpgrade, tunnel: Tunnel) {
        let Self { leash, open, answer } = self;
        let Ok(Ok(client)) = tokio::time::timeout(Duration::from_secs(10), client).await else {
            return end(open, Outcome::Failed, "the client did not take the stream", &[]);
        };
        let (mut client, mut tunnel) = (TokioIo::new(client), tunnel);
        let copied = async {
            match answer {
                Answer::Events => events::copy(&leash.house, &leash.actor, &leash.permit, client, tunnel).await,
                _ => copy_bidirectional_with_sizes(&mut client, &mut tunnel, 16 * 1024, 16 * 1024).await,
            }
        };
        let (outcome, reason, (up, down)) = tokio::select! {
            copied = copied => match copied {
                Ok(bytes) => (Outcome::Done, "closed".to_owned(), bytes),
                Err(error) => (Outcome::Failed, error.to_string(), (0, 0)),
            },
            reason = leash.lost() => (Outcome::Failed, format!("access ended: {reason}"), (0, 0)),
            () = leash.house.closing.cancelled() => (Outcome::Done, "the gateway is shutting down".to_owned(), (0, 0)),
        };
        end(open, outcome, &reason, &[("bytes up", &up.to_string()), ("bytes down", &down.to_string())]);
    }
}

/// What holds a stream or a long answer: it goes on for as long as its permit would be given again.
pub(crate) struct Leash {
    house: Arc<House>,
    permit: Permit,
    actor: Arc<Actor>,
}

impl Leash {
    /// Why it may not go on, if so: the token was revoked, the person disabled, the grant ended, the policy changed.
    pub(crate) fn pulled(&self) -> Option<String> {
        let Via::Token(token) = self.actor.via else { return Some("the token no longer counts".into()) };
        let Some(now) = self.house.identity.token_owner(token) else {
            return Some("the token no longer counts".into());
        };
        self.house.pulled(&self.permit, &now)
    }

    /// Waits until it may not go on.
    async fn lost(&self) -> String {
        let mut changes = self.house.identity.changes();
        loop {
            tokio::select! {
                changed = changes.changed() => if changed.is_err() { return "the gateway is shutting down".into() },
                () = tokio::time::sleep(Duration::from_secs(1)) => {}
            }
            if let Some(reason) = self.pulled() {
                return reason;
            }
        }
    }
}

/// A refusal as LXD's own clients read it: `{"type":"error","error":…,"error_code":…}` beside the fields of RFC 9457.
fn dialect(refusal: &Refusal, peer: Peer) -> Response {
    let (title, detail) = refusal.words();
    let code = refusal.status().as_u16();
    let body = serde_json::json!({
        "type": "error", "error": format!("{title}: {detail}"), "error_code": code, "metadata": null,
        "title": title, "detail": detail, "status": code, "request": peer.request.to_string(),
    });
    let mut answer = refusal.problem(peer.request).map(|_| Body::from(body.to_string()));
    answer.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    answer
}
