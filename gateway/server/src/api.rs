// SPDX-License-Identifier: Apache-2.0
//! A hypervisor's management API, proxied: classified by its table, authorized, forwarded with a credential that the
//! sender never sees. A tool presents a token of ours in the API's own dialect; cookies of the portal are worth nothing
//! here, so that no web page can ride on a signed-in browser.

use crate::{
    body::{Body, Passing, Response, Sent, done},
    dialect::{self, Settled, Way},
    events,
    layers::{self, Peer},
    leash::{Cut, Leash},
    passage::{self, Asked, Caller, Passed, Trailed, Visit, end},
    reply::{self, Refusal},
    state::{House, Shard, chain},
};
use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Method, Request, header};
use http_body::Body as _;
use http_body_util::{BodyExt as _, Full, LengthLimitError, Limited};
use hyper::body::Incoming;
use hyper_util::rt::TokioIo;
use portcullis_audit::OpenEntry;
use portcullis_domain::{Actor, Effect, HypervisorName, Outcome, Resource};
use portcullis_policy::{
    Permit,
    classify::{self, Answer, ApiKind, Canonical, Content, Table, Upgrade, Verdict},
};
use portcullis_store::Digest;
use portcullis_upstream::{Answer as Got, MAX_ANSWER, MAX_STRIPPED, RequestContext, ResponseBody, Seen, Tunnel};
use std::{pin::pin, sync::Arc, time::Duration};
use tokio::io::copy_bidirectional_with_sizes;

/// How long a body that is read first may take.
const BODY: Duration = Duration::from_secs(10);
/// The largest body of somebody who signs in, in bytes.
const SIGN_IN: usize = 4 * 1024;
/// The largest list of which rows are left out, in bytes.
const MAX_ROWS: usize = 16 * 1024 * 1024;

/// Answers one request to a hypervisor's API.
pub(crate) async fn proxy(
    house: &Arc<House>,
    shard: &Arc<Shard>,
    name: &HypervisorName,
    (peer, key): (Peer, Option<&Digest>),
    request: Request<Incoming>,
) -> Response {
    let roll = house.roster.load();
    let kind = roll.api(name).map_or(ApiKind::Lxd, |api| api.kind);
    let written = dialect::Written::of(kind, request.uri().path(), request.headers());
    let key = key.filter(|_| dialect::takes_keys(kind));
    let way = Way { house, hypervisor: name, kind, peer, key, written };
    if let Some(methods) = roll.api(name).and_then(|api| api.methods.clone()) {
        drop(roll);
        return Box::pin(dialect::xapi::proxy(way, shard, &methods, request)).await;
    }
    drop(roll);
    // Its calls stand in bodies, and go through sessions of people's own.
    let request = match kind {
        ApiKind::Vsphere if dialect::vsphere::is_call(&request) => {
            return Box::pin(dialect::vsphere::answer(way, request)).await;
        }
        ApiKind::Vsphere if dialect::vsphere::rest::is_session(&request) => {
            let told = Box::pin(dialect::vsphere::rest::session(way, request)).await;
            return told.unwrap_or_else(|refusal| way.refuse(&refusal));
        }
        _ => request,
    };
    if way.is_sign_out(request.method(), request.uri().path()) {
        return Box::pin(way.leave(request.headers())).await.unwrap_or_else(|refusal| way.refuse(&refusal));
    }
    let walked = match read(way, shard, request.map(Sent::Stream)) {
        Ok(Read::Whole(visit, caller, call)) => go(house, visit, caller, call).await,
        // Boxed: it waits for a body, which most requests have not.
        Ok(Read::Unread(request)) => Box::pin(read_with_body(way, shard, request)).await,
        Err(refusal) => Err(refusal),
    };
    walked.unwrap_or_else(|refusal| way.refuse(&refusal))
}

async fn go(house: &Arc<House>, visit: Visit, caller: Caller, call: Box<Call<'_>>) -> Result<Response, Refusal> {
    let caller = std::future::ready(Ok(caller));
    passage::walk(house, visit, caller, || std::future::ready(Ok(None)), |passed| call.forward(passed)).await
}

/// A request as far as it is understood.
#[expect(clippy::large_enum_variant, reason = "it is taken apart where it arrives; a box would cost each request")]
enum Read<'a> {
    /// What it asks, and who sends it.
    Whole(Visit, Caller, Box<Call<'a>>),
    /// What it asks stands in its body.
    Unread(Box<Request<Sent>>),
}

/// What a request asks and who sends it, without waiting for anything: a future is moved as a whole, so the walk's is
/// the only one.
fn read<'a>(way: Way<'a>, shard: &'a Arc<Shard>, request: Request<Sent>) -> Result<Read<'a>, Refusal> {
    let Way { house, hypervisor: name, .. } = way;
    let roll = house.roster.load();
    let table = &roll.api(name).ok_or(Refusal::Misdirected)?.table;
    let upgrade = wish(request.headers())?;
    let path = way.path(request.uri().path())?;
    let is_read = matches!(*request.method(), Method::GET | Method::HEAD);
    if is_read && table.reads_bodies() && !request.body().is_end_stream() {
        return Err(Refusal::Bad("A read has no body here.".into()));
    }
    if way.is_sign_in(request.method(), request.headers(), path.as_str()) {
        return Ok(Read::Unread(Box::new(request)));
    }
    way.check(request.headers())?;
    let (method, query) = (request.method().as_str(), request.uri().query());
    let asked = classify::Asked { method, path: &path, query, upgrade, body: classify::Body::Unread };
    let verdict = table.classify(name, &asked);
    if verdict == Verdict::Unread {
        return Ok(Read::Unread(Box::new(request)));
    }
    let caller = caller(way, &request)?;
    let (visit, caller, call) = whole(way, shard, caller, verdict, (path, upgrade), request);
    Ok(Read::Whole(visit, caller, call))
}

/// Who sends it. Before the bracket: whoever knocks too often may not fill the trail either.
fn caller(way: Way<'_>, request: &Request<Sent>) -> Result<Caller, Refusal> {
    let caller = way.caller(request.method(), request.headers())?;
    if let Caller::Known(actor) = &caller {
        way.house.pace_call(actor, way.hypervisor, way.peer)?;
    }
    Ok(caller)
}

/// A request whose body is read first: as much as its table reads, and of nobody but those who are known.
async fn read_with_body(way: Way<'_>, shard: &Arc<Shard>, request: Box<Request<Sent>>) -> Result<Response, Refusal> {
    let Way { house, hypervisor: name, peer, .. } = way;
    let path = way.path(request.uri().path())?;
    let table = house.roster.load().api(name).ok_or(Refusal::Misdirected)?.table.clone();
    let table = &table;
    if way.is_sign_in(request.method(), request.headers(), path.as_str()) {
        // Whoever signs in is not known yet: the strangers' pace counts, and the body is small.
        if !house.strangers.check(peer.ip) {
            house.strangers.refused(peer.ip);
            return Err(Refusal::TooMany(5));
        }
        let (request, said) = content(*request, table, SIGN_IN).await?;
        let said = said.map_err(|why| Refusal::Bad(why.to_owned()))?;
        let authority = layers::host(&request)?.to_owned();
        return way.sign_in(path.as_str(), &authority, &said).await;
    }
    let caller = caller(way, &request)?;
    let upgrade = wish(request.headers())?;
    let (mut request, said) = match &caller {
        Caller::Known(_) => {
            let (request, said) = content(*request, table, table.max_body()).await?;
            (request, Some(said))
        }
        // Nobody waits for what a stranger sends.
        Caller::Stranger | Caller::Barred(..) => (*request, None),
    };
    let (method, query) = (request.method().as_str(), request.uri().query());
    let Settled { verdict, mark, why } = match (&said, &caller) {
        (Some(Ok(said)), Caller::Known(actor)) => {
            let asked = classify::Asked { method, path: &path, query, upgrade, body: said.said() };
            way.settle(actor, table, &asked, request.headers()).await
        }
        (Some(Err(why)), _) => Verdict::Denied((*why).into()).into(),
        (_, Caller::Stranger | Caller::Barred(..)) | (None, _) => Verdict::Unread.into(),
    };
    if let Some(mark) = mark {
        request.headers_mut().insert(header::IF_MATCH, mark);
    }
    let (visit, caller, call) = whole(way, shard, caller, verdict, (path, upgrade), request);
    go(house, visit, caller, call).await.map_err(|refusal| refusal.because(why))
}

/// What a request's body says; it goes on with the body that was read.
async fn content(
    request: Request<Sent>,
    table: &Table,
    most: usize,
) -> Result<(Request<Sent>, Result<Content, &'static str>), Refusal> {
    let (head, body) = request.into_parts();
    let read = tokio::time::timeout(BODY, Limited::new(body, most).collect()).await;
    let bytes = match read {
        Ok(Ok(all)) => all.to_bytes(),
        Ok(Err(error)) if error.is::<LengthLimitError>() => return Err(Refusal::TooLarge(most)),
        Ok(Err(_)) | Err(_) => return Err(Refusal::Bad("The request's body broke off.".into())),
    };
    let mut types = head.headers.get_all(header::CONTENT_TYPE).iter();
    let said = match (types.next(), types.next(), head.headers.contains_key(header::CONTENT_ENCODING)) {
        (_, _, true) => Err("The body is packed, so the gateway cannot tell what it asks."),
        (_, Some(_), _) => Err("The body's type is said twice."),
        // A type that is no text is none that is read.
        (media_type, None, false) => table.read_body(media_type.map(|t| t.to_str().unwrap_or_default()), &bytes),
    };
    Ok((Request::from_parts(head, Sent::Whole(Full::new(bytes))), said))
}

fn whole<'a>(
    way: Way<'a>,
    shard: &'a Arc<Shard>,
    caller: Caller,
    verdict: Verdict,
    (path, upgrade): (Canonical, Upgrade),
    request: Request<Sent>,
) -> (Visit, Caller, Box<Call<'a>>) {
    let Way { house, kind, peer, .. } = way;
    let (asked, answer) = match verdict {
        Verdict::Operation { operation, also, answer } => (Asked::Operation(operation, also), answer),
        Verdict::Visible { hypervisor, answer } => (Asked::Visible(hypervisor), answer),
        Verdict::Task { task, answer } => (Asked::Task(task), answer),
        Verdict::Denied(reason) => (Asked::Denied(reason.into_owned()), Answer::Pass),
        // Of somebody who is not known: that is all that has to be said.
        Verdict::Unread => (Asked::Presence, Answer::Pass),
    };
    let visit = Visit { kind: "api", peer, asked, trailed: Trailed::Yes, at: peer.at };
    // Boxed: what is handed through the passage is moved in each of its rooms.
    (visit, caller, Box::new(Call { house, shard, kind, peer, path, answer, upgrade, request }))
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

/// One call that was let through.
struct Call<'a> {
    house: &'a Arc<House>,
    shard: &'a Arc<Shard>,
    kind: ApiKind,
    peer: Peer,
    path: Canonical,
    answer: Answer,
    upgrade: Upgrade,
    request: Request<Sent>,
}

impl Call<'_> {
    async fn forward(self: Box<Self>, passed: Passed) -> Result<Response, Refusal> {
        let Self { house, shard, kind, peer, path, answer, upgrade, mut request } = *self;
        let Passed { actor: Some(actor), permit: Some(permit), open: Some(open) } = passed else {
            return Err(Refusal::Unavailable("The request lost its permit on the way.".into()));
        };
        let refuse = |open: OpenEntry, outcome: Outcome, refusal: Refusal| {
            end(open, outcome, &refusal.words().1, &[]);
            refusal
        };
        if let Err(refusal) = unrecorded(house, &permit, &actor).await {
            return Err(refuse(open, Outcome::Denied, refusal));
        }
        let leash = Leash::new(house, permit, actor);
        if answer == Answer::Objects {
            let going = Going { shard, peer, path, request };
            return Box::pin(dialect::kubevirt::forward(going, &leash, open)).await;
        }
        if kind == ApiKind::Vsphere {
            let going = Going { shard, peer, path, request };
            return Box::pin(dialect::vsphere::rest::forward(going, answer, &leash, open)).await;
        }
        // What has to be read cannot come packed.
        if answer != Answer::Pass {
            request.headers_mut().remove(header::ACCEPT_ENCODING);
        }
        let client = (upgrade == Upgrade::WebSocket).then(|| hyper::upgrade::on(&mut request));
        let context = RequestContext { request: peer.request, upgrade };
        let forwarder = shard.forwarder();
        let may_last = !request.body().is_end_stream() || forwarder.waits(leash.permit(), &path);
        let got = {
            let mut sent = pin!(forwarder.forward(leash.permit(), &path, request, context));
            if may_last { Box::pin(leash.hold(sent.as_mut())).await } else { Ok(sent.await) }
        };
        let got = match got {
            Ok(Ok(got)) => got,
            Ok(Err(error)) => return Err(refuse(open, Outcome::Failed, reply::upstream(&error))),
            Err(cut) => return Err(cut.close(open)),
        };
        // Whoever may see the whole of it needs no row left out.
        let whole = matches!(leash.permit().operation().resource, Resource::Hypervisor(_));
        let answer = match answer {
            Answer::Rows if whole => Answer::Pass,
            Answer::CleanRows if whole => Answer::StripSecrets,
            answer => answer,
        };
        match (got, answer, client) {
            (Got::Response(got), Answer::Pass, _) => {
                let status = got.status().as_u16();
                Ok(got.map(|body| Body::Upstream(Box::new(Passing::new(body, open, leash, status)))))
            }
            // Only the stream is filtered: whatever else comes in its place stays here.
            (Got::Response(_), Answer::Events, _) => {
                let why = "It did not open its stream of events.";
                Err(refuse(open, Outcome::Failed, Refusal::Upstream(why.into())))
            }
            (Got::Response(got), answer, _) => Box::pin(answered(&leash, open, answer, got)).await,
            (Got::Upgraded(head, tunnel), answer, Some(client)) => {
                let stream = Stream { leash, open, answer };
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

/// A call that a dialect sends on by itself.
pub(crate) struct Going<'a> {
    pub(crate) shard: &'a Arc<Shard>,
    pub(crate) peer: Peer,
    pub(crate) path: Canonical,
    pub(crate) request: Request<Sent>,
}

/// Whether somebody may have a console over an API, where it is not recorded; yes for everything that is no console.
pub(crate) async fn unrecorded(house: &House, permit: &Permit, actor: &Actor) -> Result<(), Refusal> {
    if !permit.operation().action.is_console() {
        return Ok(());
    }
    if permit.must_record() {
        let why = "Your access asks for a recording, and a console over this API cannot be recorded. Open it in the \
                   browser, or ask for access without a recording.";
        return Err(Refusal::Forbidden(why.into()));
    }
    Box::pin(house.trained(actor.user)).await.map(drop)
}

/// An answer that is read whole and cleaned before it goes out.
pub(crate) async fn answered(
    leash: &Leash,
    open: OpenEntry,
    answer: Answer,
    got: http::Response<ResponseBody<Sent>>,
) -> Result<Response, Refusal> {
    let (house, permit, actor) = (leash.house(), leash.permit(), leash.actor());
    let status = got.status();
    let most = match answer {
        Answer::ConsoleSecrets => MAX_ANSWER,
        Answer::Rows | Answer::CleanRows => MAX_ROWS,
        Answer::Pass | Answer::StripSecrets | Answer::Events | Answer::Objects => MAX_STRIPPED,
    };
    // Without the hypervisor's secrets: exchanged for ours where it opens channels, removed everywhere else.
    let clean = |text: &[u8]| match answer {
        // Some refusals say everything in their status.
        _ if text.is_empty() => Ok(Vec::new()),
        Answer::ConsoleSecrets if status.is_success() => house.fleet.exchange(permit, text),
        Answer::Rows | Answer::CleanRows => {
            let inventory = house.fleet.inventory();
            let machines = house.engine.visible(actor, &inventory, house.clock.now());
            let here = permit.operation().resource.hypervisor();
            let machines: Vec<_> = machines.into_iter().filter(|m| Some(&m.at.hypervisor) == here).collect();
            house.fleet.keep_rows(permit, text, &Seen::of(&machines))
        }
        _ => house.fleet.strip(permit, text),
    };
    kept_of(leash, open, got, most, clean).await
}

/// A list that is read whole, and of which `keep` leaves what somebody sees.
pub(crate) async fn kept(
    leash: &Leash,
    open: OpenEntry,
    got: http::Response<ResponseBody<Sent>>,
    keep: impl FnOnce(&[u8]) -> Result<Vec<u8>, portcullis_upstream::Error>,
) -> Result<Response, Refusal> {
    kept_of(leash, open, got, MAX_ROWS, keep).await
}

async fn kept_of(
    leash: &Leash,
    open: OpenEntry,
    got: http::Response<ResponseBody<Sent>>,
    most: usize,
    clean: impl FnOnce(&[u8]) -> Result<Vec<u8>, portcullis_upstream::Error>,
) -> Result<Response, Refusal> {
    let (house, permit) = (leash.house(), leash.permit());
    let status = got.status();
    let (mut parts, text) = match leash.hold(collect(got, most)).await {
        Ok(Ok(read)) => read,
        Ok(Err(why)) => {
            end(open, Outcome::Failed, why, &[]);
            return Err(Refusal::Upstream(why.to_owned()));
        }
        Err(cut) => return Err(cut.close(open)),
    };
    // It may have taken long: what may not be read now is not shown. A change is done, and says so.
    // Nothing of it is noted for another one that has the name by now.
    let pulled = leash.pulled().filter(|_| leash.is_anothers() || permit.operation().effect == Effect::Safe);
    if let Some(why) = pulled {
        return Err(Cut::Pulled(why).close(open));
    }
    match clean(&text) {
        Ok(clean) => {
            parts.headers.remove(header::CONTENT_LENGTH);
            parts.headers.remove(header::ETAG);
            if status.is_success() && permit.operation().effect == Effect::Unsafe {
                house.fleet.note_task(permit, &clean);
            }
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

/// Reads an answer whole; the error is for the person.
pub(crate) async fn collect(
    got: http::Response<ResponseBody<Sent>>,
    most: usize,
) -> Result<(http::response::Parts, Bytes), &'static str> {
    let (parts, body) = got.into_parts();
    let read = Limited::new(body, most).collect();
    match tokio::time::timeout(Duration::from_hours(1), read).await {
        Ok(Ok(all)) => Ok((parts, all.to_bytes())),
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
                Answer::Events => events::copy(leash.house(), leash.actor(), leash.permit(), client, tunnel).await,
                _ => copy_bidirectional_with_sizes(&mut client, &mut tunnel, 16 * 1024, 16 * 1024).await,
            }
        };
        let (outcome, reason, (up, down)) = tokio::select! {
            copied = copied => match copied {
                Ok(bytes) => (Outcome::Done, "closed".to_owned(), bytes),
                Err(error) => (Outcome::Failed, error.to_string(), (0, 0)),
            },
            reason = leash.lost() => (Outcome::Failed, format!("access ended: {reason}"), (0, 0)),
            () = leash.house().closing.cancelled() => (Outcome::Done, "the gateway is shutting down".to_owned(), (0, 0)),
        };
        end(open, outcome, &reason, &[("bytes up", &up.to_string()), ("bytes down", &down.to_string())]);
    }
}
