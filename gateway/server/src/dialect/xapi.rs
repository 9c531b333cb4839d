// SPDX-License-Identifier: Apache-2.0
//! The dialect of XCP-ng and XenServer (XAPI): calls in bodies, each with a session as its first parameter. Sessions of
//! clients are the gateway's own: a user's name and token begin one, and it stands for that token until it ends. Refusals
//! are failures of a call, which is what clients show.

use super::{Shown, Way};
use crate::{
    body::{Body, Passing, Response, Sent},
    leash::Leash,
    passage::{self, Asked, Caller, Passed, Trailed, Visit, end},
    reply::{self, Refusal},
    state::Shard,
};
use base64::{Engine as _, engine::general_purpose::STANDARD};
use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Method, Request, Uri, header, request::Parts, uri::PathAndQuery};
use http_body_util::{BodyExt as _, Full, LengthLimitError, Limited};
use hyper::body::Incoming;
use portcullis_domain::{Action, Actor, Effect, Operation, Outcome, Resource};
use portcullis_policy::classify::{
    self, Back, Canonical, Entrance, Methods, Told, Upgrade, Verdict,
    rpc::{self, Call, Hollow, MAX_CALL, Reply, Value, Wire},
};
use portcullis_upstream::{Answer, Called, RequestContext, Seen};
use std::{borrow::Cow, sync::Arc, time::Duration};

/// How long a body may take.
const BODY: Duration = Duration::from_secs(10);
/// What stands before a pass, so that it looks like a session.
const SESSION: &str = "OpaqueRef:";

/// What is said of a call that was refused.
#[derive(Default)]
struct About {
    method: String,
    /// The first parameter, and the one after it.
    session: String,
    object: String,
}

/// How calls are written at an address.
fn wire(method: &Method, path: &str) -> Option<Wire> {
    match (method, path) {
        (&Method::POST, "/" | "/RPC2") => Some(Wire::Xml),
        (&Method::POST, "/jsonrpc") => Some(Wire::Json),
        _ => None,
    }
}

/// Answers one request to the API.
pub(crate) async fn proxy(way: Way<'_>, shard: &Shard, methods: &Methods, request: Request<Incoming>) -> Response {
    let path = match classify::canonical(request.uri().path()) {
        Ok(path) => path,
        Err(e) => return way.refuse(&Refusal::Bad(e.to_string())),
    };
    match wire(request.method(), path.as_str()) {
        Some(wire) => {
            let (mut to, mut about) = (rpc::Caller::of(wire), About::default());
            let at = At { way, shard, methods, path: &path };
            match at.called(request, &mut to, &mut about).await {
                Ok(answer) => answer,
                Err(refusal) => refuse(way, &refusal, &to, about),
            }
        }
        None => Box::pin(beside(way, shard, methods, path, request)).await.unwrap_or_else(|r| way.refuse(&r)),
    }
}

/// A refusal as a failure of the call. What is about the request and not the call is HTTP's.
fn refuse(way: Way<'_>, refusal: &Refusal, to: &rpc::Caller, about: About) -> Response {
    let (title, detail) = refusal.words();
    let About { method, session, object } = about;
    let words = format!("{title}: {detail}");
    let why: Vec<Cow<'_, str>> = match refusal {
        Refusal::TooMany(_) | Refusal::TooLarge(_) | Refusal::Misdirected => return way.refuse(refusal),
        Refusal::Unknown if session.is_empty() => {
            vec!["SESSION_AUTHENTICATION_FAILED".into(), "".into(), words.into()]
        }
        Refusal::Unknown => vec!["SESSION_INVALID".into(), session.into()],
        Refusal::NotFound => {
            let class = method.trim_start_matches("Async.").split('.').next().unwrap_or_default().to_owned();
            vec!["HANDLE_INVALID".into(), class.into(), object.into()]
        }
        Refusal::Forbidden(_) | Refusal::Locked(_) | Refusal::StepUp | Refusal::Banner | Refusal::Foreign => {
            vec!["RBAC_PERMISSION_DENIED".into(), method.into(), words.into()]
        }
        _ => vec!["INTERNAL_ERROR".into(), words.into()],
    };
    whole(to, Reply::Failed(why).write(to))
}

fn whole(to: &rpc::Caller, body: Vec<u8>) -> Response {
    let mut answer = Response::new(Body::Whole(Some(Bytes::from(body))));
    let headers = answer.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(to.wire.media_type()));
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    answer
}

/// Where a call arrived.
#[derive(Clone, Copy)]
struct At<'a> {
    way: Way<'a>,
    shard: &'a Shard,
    methods: &'a Methods,
    path: &'a Canonical,
}

/// A call that is understood, without what was borrowed from its body.
struct Meant {
    asked: Asked,
    hollow: Hollow,
    back: Back,
    /// Its answer shows each person their own.
    is_part: bool,
}

impl At<'_> {
    async fn called(
        self,
        request: Request<Incoming>,
        to: &mut rpc::Caller,
        about: &mut About,
    ) -> Result<Response, Refusal> {
        let Way { house, hypervisor, peer, .. } = self.way;
        let (head, body) = request.into_parts();
        let bytes = whole_body(body).await?;
        let mut call = read(&head, &bytes, to.wire).map_err(|why| Refusal::Bad(why.to_owned()))?;
        self.methods.shorten(&mut call);
        *to = call.caller();
        about.method = call.method.clone().into_owned();
        match self.methods.without_session(&call) {
            Some(Entrance::Login) => return self.sign_in(&call, to).await,
            Some(Entrance::Listing) => return self.list(&call, to).await,
            Some(Entrance::Logout) | None => {}
        }
        let shown = call.session().unwrap_or_default();
        (about.session, about.object) =
            (shown.to_owned(), call.args().first().and_then(Value::text).unwrap_or_default().to_owned());
        if about.session.is_empty() {
            // It would pass for one who signs in.
            "OpaqueRef:NULL".clone_into(&mut about.session);
        }
        let caller = self.way.by_pass(shown.strip_prefix(SESSION))?;
        let actor = match &caller {
            Caller::Known(actor) => Arc::clone(actor),
            Caller::Stranger | Caller::Barred(..) => {
                let visit = Visit { kind: "api", peer, asked: Asked::Presence, trailed: Trailed::Yes, at: peer.at };
                let never = |_: Passed| std::future::ready(Err(Refusal::Unknown));
                return passage::walk(house, visit, ready(caller), ready_none, never).await;
            }
        };
        house.pace_call(&actor, hypervisor, peer)?;
        let mut told = self.tell(&call, &actor);
        let is_known = told.is_some();
        if !is_known {
            // Something that was made a moment ago: it is told soon.
            house.fleet.settle(hypervisor).await;
            told = self.tell(&call, &actor);
        }
        let meant = match told {
            Some(Next::Leave) => {
                self.way.sign_out(actor).await?;
                return Ok(whole(to, Reply::Done(Value::from_text("")).write(to)));
            }
            Some(Next::Ask(meant)) => *meant,
            // What is not known does not exist.
            None => return self.absent(caller, about).await,
        };
        let visit = Visit { kind: "api", peer, asked: meant.asked, trailed: Trailed::Yes, at: peer.at };
        let (hollow, back, is_part) = (meant.hollow, meant.back, meant.is_part);
        let by = about.method.contains(".get_by_").then_some(about.object.as_str());
        let called = Called { hollow: &hollow, path: self.path, back, by, to };
        let exit = |passed| self.forward(passed, called, is_part, &about.method);
        let answer = passage::walk(house, visit, ready(caller), ready_none, exit).await;
        if is_known && matches!(answer, Err(Refusal::NotFound)) {
            // What is hidden takes as long as what is not there: nobody can tell them apart.
            house.fleet.settle(hypervisor).await;
        }
        answer
    }

    /// What a call asks of somebody; none when it names what is not known (yet).
    fn tell(self, call: &Call<'_>, actor: &Actor) -> Option<Next> {
        let Way { house, hypervisor, peer, .. } = self.way;
        let Some(objects) = house.fleet.objects(hypervisor) else {
            return Some(Next::denied(call, "It has no such API."));
        };
        let (asked, back, is_part) = match self.methods.classify(hypervisor, call, &objects) {
            Err(why) => (Asked::Denied(why.into_owned()), Back::Whole, false),
            Ok(Told::Unknown(..)) => return None,
            Ok(Told::Session(Entrance::Logout)) => return Some(Next::Leave),
            Ok(Told::Session(_)) => return Some(Next::denied(call, "It takes no session.")),
            Ok(Told::TaskChange(task, otherwise)) => {
                let own = house.fleet.began(hypervisor, &task, actor.user);
                let operation = own.map_or(otherwise, |own| {
                    let is_gone =
                        matches!(&own.resource, Resource::Machine(at) if house.fleet.inventory().find(at).is_none());
                    // Nothing is left that could be asked for: the task's own record is all that changes.
                    let own = if is_gone { house.visible(hypervisor, actor, peer.at) } else { own };
                    Operation { effect: Effect::Unsafe, ..own }
                });
                (Asked::Operation(operation, Vec::new()), Back::Whole, false)
            }
            Ok(Told::Asked(verdict, back)) => match verdict {
                Verdict::Operation { operation, also, .. } => (Asked::Operation(operation, also), back, false),
                Verdict::Visible { hypervisor, .. } => (Asked::Visible(hypervisor), back, true),
                Verdict::Task { task, .. } => (Asked::Task(task), back, false),
                Verdict::Denied(why) => (Asked::Denied(why.into_owned()), Back::Whole, false),
                Verdict::Unread => (Asked::Denied("It cannot be told what this asks.".into()), Back::Whole, false),
            },
        };
        Some(Next::Ask(Box::new(Meant { asked, hollow: call.hollow(), back, is_part })))
    }

    /// A call that names something unknown: refused and written down like what somebody may not see.
    async fn absent(self, caller: Caller, about: &About) -> Result<Response, Refusal> {
        let Way { house, peer, .. } = self.way;
        let why = format!("{} names something that is not known", about.method);
        let visit = Visit { kind: "api", peer, asked: Asked::Denied(why), trailed: Trailed::Yes, at: peer.at };
        let never = |_: Passed| std::future::ready(Err(Refusal::NotFound));
        match passage::walk(house, visit, ready(caller), ready_none, never).await {
            Err(Refusal::Forbidden(_)) => Err(Refusal::NotFound),
            other => other,
        }
    }

    async fn forward(
        self,
        passed: Passed,
        called: Called<'_>,
        is_part: bool,
        method: &str,
    ) -> Result<Response, Refusal> {
        let Way { house, hypervisor, peer, .. } = self.way;
        let Passed { actor: Some(actor), permit: Some(permit), open: Some(open) } = passed else {
            return Err(Refusal::Unavailable("The request lost its permit on the way.".into()));
        };
        let context = RequestContext { request: peer.request, upgrade: Upgrade::None };
        let make = |bytes| Sent::Whole(Full::new(bytes));
        let refuse = |open, outcome, refusal: Refusal| {
            end(open, outcome, &refusal.words().1, &[("method", method)]);
            refusal
        };
        let leash = Leash::new(house, permit, Arc::clone(&actor));
        let forwarder = self.shard.forwarder();
        let told = tokio::select! {
            told = forwarder.call_method(leash.permit(), &called, context, make) => told,
            reason = leash.lost() => {
                let why = format!("Your access ended: {reason}");
                return Err(refuse(open, Outcome::Failed, Refusal::Forbidden(why)));
            }
            () = house.closing.cancelled() => {
                let why = "The gateway is shutting down.";
                return Err(refuse(open, Outcome::Failed, Refusal::Unavailable(why.into())));
            }
        };
        let text = match told {
            Ok(text) => text,
            Err(error) => return Err(refuse(open, Outcome::Failed, reply::upstream(&error))),
        };
        let permit = leash.permit();
        // It may have waited for long: what may not be seen now is not shown. A change is done, and says so.
        let reads = permit.operation().effect == Effect::Safe;
        if let Some(why) = leash.pulled().filter(|_| reads) {
            return Err(refuse(open, Outcome::Failed, Refusal::Forbidden(format!("Your access ended: {why}"))));
        }
        let (permit, inventory) = (leash.permit(), house.fleet.inventory());
        let is_whole = !is_part || matches!(permit.operation().resource, Resource::Hypervisor(_));
        let machines = if is_whole { Vec::new() } else { house.engine.visible(&actor, &inventory, house.clock.now()) };
        let machines: Vec<_> = machines.into_iter().filter(|m| m.at.hypervisor == *hypervisor).collect();
        let seen = (!is_whole).then(|| Seen::of(&machines));
        let is_short = text.len() <= 4096;
        let failed = is_short && matches!(Reply::read(called.to.wire, &text), Some(Reply::Failed(_)));
        match house.fleet.keep_objects(permit, text, &called, self.methods, seen.as_ref()).await {
            Ok(body) => {
                let outcome = if failed { Outcome::Failed } else { Outcome::Done };
                end(open, outcome, "", &[("method", method), ("bytes", &body.len().to_string())]);
                Ok(whole(called.to, body))
            }
            Err(error) => Err(refuse(open, Outcome::Failed, reply::upstream(&error))),
        }
    }

    /// Tells the names of the methods. Clients ask for them without a session, so it is told to anybody: it stands in the
    /// gateway's own table, and nothing of the pool does.
    async fn list(self, call: &Call<'_>, to: &rpc::Caller) -> Result<Response, Refusal> {
        let Way { house, peer, .. } = self.way;
        if !call.params.is_empty() {
            return Err(Refusal::Bad("It takes no parameters.".into()));
        }
        // Strangers count against their network's pace.
        let caller = self.way.known(None, None)?;
        let names = self.methods.listing().into_iter().map(Value::from_text).collect();
        let answer = whole(to, Reply::Done(Value::List(names)).write(to));
        let visit = Visit { kind: "api", peer, asked: Asked::Nothing, trailed: Trailed::No, at: peer.at };
        passage::walk(house, visit, ready(caller), ready_none, |_| std::future::ready(Ok(answer))).await
    }

    /// Signs in by name and token: the answer is a session of ours.
    async fn sign_in(self, call: &Call<'_>, to: &rpc::Caller) -> Result<Response, Refusal> {
        let Way { house, hypervisor, .. } = self.way;
        let texts: Option<Vec<&str>> = call.params.iter().map(Value::text).collect();
        let Some([name, token, ..]) = texts.as_deref().filter(|t| t.len() <= 4) else {
            return Err(Refusal::Bad("Sign in with a name and a token.".into()));
        };
        let shown = Shown::Token(token, Some(name));
        let answer = |passed: Passed| {
            let (_, pass, open) = super::signed_in(house, hypervisor, passed)?;
            let pass = pass.expose_text().unwrap_or_default();
            end(open, Outcome::Done, "signed in to the API", &[]);
            Ok(whole(to, Reply::Done(Value::from_text(format!("{SESSION}{pass}"))).write(to)))
        };
        self.way.walk(&shown, |passed| std::future::ready(answer(passed))).await
    }
}

enum Next {
    Ask(Box<Meant>),
    /// The session ends.
    Leave,
}

impl Next {
    fn denied(call: &Call<'_>, why: &str) -> Self {
        let asked = Asked::Denied(why.to_owned());
        Self::Ask(Box::new(Meant { asked, hollow: call.hollow(), back: Back::Whole, is_part: false }))
    }
}

fn ready(caller: Caller) -> std::future::Ready<Result<Caller, Refusal>> {
    std::future::ready(Ok(caller))
}

fn ready_none() -> std::future::Ready<Result<Option<Arc<Actor>>, Refusal>> {
    std::future::ready(Ok(None))
}

async fn whole_body(body: Incoming) -> Result<Bytes, Refusal> {
    match tokio::time::timeout(BODY, Limited::new(body, MAX_CALL).collect()).await {
        Ok(Ok(all)) => Ok(all.to_bytes()),
        Ok(Err(error)) if error.is::<LengthLimitError>() => Err(Refusal::TooLarge(MAX_CALL)),
        Ok(Err(_)) | Err(_) => Err(Refusal::Bad("The request's body broke off.".into())),
    }
}

fn read<'b>(head: &Parts, bytes: &'b [u8], wire: Wire) -> Result<Call<'b>, &'static str> {
    let mut types = head.headers.get_all(header::CONTENT_TYPE).iter();
    let (media_type, None) = (types.next(), types.next()) else { return Err("The body's type is said twice.") };
    if head.headers.contains_key(header::CONTENT_ENCODING) {
        return Err("The body is packed, so the gateway cannot tell what it asks.");
    }
    if head.headers.contains_key(header::UPGRADE) || head.uri.query().is_some() {
        return Err("A call is all in its body.");
    }
    Call::read(wire, media_type.and_then(|t| t.to_str().ok()), bytes)
}

impl Way<'_> {
    /// Who calls by a session of ours.
    fn by_pass(self, pass: Option<&str>) -> Result<Caller, Refusal> {
        let Self { house, hypervisor, peer, .. } = self;
        let actor = pass.and_then(|pass| house.identity.pass_actor(pass, hypervisor, peer.ip));
        match actor.filter(|actor| actor.scope.as_ref().is_none_or(|scope| scope == hypervisor)) {
            Some(actor) => Ok(Caller::Known(actor)),
            None => self.known(None, None),
        }
    }

    /// `task_id=…` of an address as it is sent, where it names a task that somebody began here.
    fn own_task(self, pair: &str, actor: &Actor) -> Option<String> {
        let Self { house, hypervisor, .. } = self;
        let named = pair.strip_prefix("task_id=")?.replace("%3A", ":").replace("%3a", ":");
        let task = classify::reference(&named)?.to_string();
        house.fleet.began(hypervisor, &task, actor.user).map(|_| format!("task_id={SESSION}{task}"))
    }

    /// Who sends a request beside the calls: by name and token, or by a session in the cookie or the address.
    fn beside(self, headers: &HeaderMap, query: Option<&str>) -> Result<Caller, Refusal> {
        let mut all = headers.get_all(header::AUTHORIZATION).iter();
        match (all.next().map(HeaderValue::to_str), all.next()) {
            (Some(Ok(one)), None) => {
                let text = one.strip_prefix("Basic ").and_then(|b| STANDARD.decode(b).ok());
                let text = text.and_then(|t| String::from_utf8(t).ok());
                let shown = text.as_deref().and_then(|t| t.split_once(':'));
                self.known(shown.map(|(name, token)| Shown::Token(token, Some(name))).as_ref(), None)
            }
            (None, None) => {
                // A browser sends no cookie of ours here, and one that it was made to send has an origin.
                let foreign = headers.contains_key(header::ORIGIN) || headers.contains_key("sec-fetch-site");
                let cookies =
                    headers.get_all(header::COOKIE).iter().filter(|_| !foreign).filter_map(|v| v.to_str().ok());
                let cookies = cookies.flat_map(|v| v.split(';')).map(str::trim);
                let pairs = query.unwrap_or_default().split('&');
                let mut shown = cookies.chain(pairs).filter_map(|pair| pair.strip_prefix("session_id="));
                let (Some(one), None) = (shown.next(), shown.next()) else { return self.known(None, None) };
                let one = one.replace("%3A", ":").replace("%3a", ":");
                self.by_pass(one.strip_prefix(SESSION))
            }
            _ => self.known(None, None),
        }
    }
}

/// A request that is no call: a machine that is fetched or brought, statistics, a picture.
async fn beside(
    way: Way<'_>,
    shard: &Shard,
    methods: &Methods,
    path: Canonical,
    request: Request<Incoming>,
) -> Result<Response, Refusal> {
    let Way { house, hypervisor, peer, .. } = way;
    let query = request.uri().query();
    let caller = way.beside(request.headers(), query)?;
    // What the sender shows goes no further: the hypervisor is shown the gateway's own.
    let all = query.unwrap_or_default().split('&').filter(|p| !p.starts_with("session_id="));
    let (of_task, rest): (Vec<&str>, Vec<&str>) = all.partition(|p| p.starts_with("task_id="));
    let rest = Some(rest.join("&")).filter(|r| !r.is_empty());
    if request.headers().contains_key(header::UPGRADE) {
        return Err(Refusal::Bad("Nothing here becomes another protocol.".into()));
    }
    let verdict = match house.fleet.objects(hypervisor) {
        Some(objects) => {
            methods.classify_web(hypervisor, (request.method().as_str(), path.as_str(), rest.as_deref()), &objects)
        }
        None => Verdict::Denied("It has no such API.".into()),
    };
    // A task is told how far it is: one of theirs.
    let task = match &caller {
        Caller::Known(actor) => of_task.first().and_then(|pair| way.own_task(pair, actor)),
        Caller::Stranger | Caller::Barred(..) => None,
    };
    let asked = match (&caller, verdict) {
        (Caller::Stranger | Caller::Barred(..), _) => Asked::Presence,
        (Caller::Known(_), _) if of_task.len() != usize::from(task.is_some()) => {
            Asked::Denied("It names a task that you did not begin here.".into())
        }
        (_, Verdict::Operation { operation, also, .. }) => Asked::Operation(operation, also),
        (_, Verdict::Denied(why)) => Asked::Denied(why.into_owned()),
        (_, Verdict::Visible { .. } | Verdict::Unread | Verdict::Task { .. }) => {
            Asked::Denied("It cannot be told what this asks.".into())
        }
    };
    if let Caller::Known(actor) = &caller {
        house.pace_call(actor, hypervisor, peer)?;
    }
    let visit = Visit { kind: "api", peer, asked, trailed: Trailed::Yes, at: peer.at };
    let exit = |passed: Passed| async move {
        let Passed { actor: Some(actor), permit: Some(permit), open: Some(open) } = passed else {
            return Err(Refusal::Unavailable("The request lost its permit on the way.".into()));
        };
        let refuse = |open, outcome, refusal: Refusal| {
            end(open, outcome, &refusal.words().1, &[]);
            refusal
        };
        if permit.operation().action == Action::ConsoleScreenshot {
            if permit.must_record() {
                let why = "Your access asks for a recording: open the screen in the browser.";
                return Err(refuse(open, Outcome::Denied, Refusal::Forbidden(why.into())));
            }
            if let Err(refusal) = house.trained(actor.user).await {
                return Err(refuse(open, Outcome::Denied, refusal));
            }
        }
        let (mut head, body) = request.into_parts();
        let query: Vec<&str> = rest.as_deref().into_iter().chain(task.as_deref()).collect();
        let target = if query.is_empty() { String::new() } else { format!("?{}", query.join("&")) };
        let target = format!("{}{target}", path.as_str());
        let Ok(target) = PathAndQuery::try_from(target) else {
            return Err(refuse(open, Outcome::Failed, Refusal::Bad("Its address cannot be sent.".into())));
        };
        head.uri = Uri::from(target);
        let request = Request::from_parts(head, Sent::Stream(body));
        let context = RequestContext { request: peer.request, upgrade: Upgrade::None };
        let leash = Leash::new(house, permit, actor);
        // It may be the whole of a disk, in either direction.
        let forwarder = shard.forwarder();
        let sent = forwarder.forward_beside(leash.permit(), &path, request, context);
        let sent = match leash.hold(sent).await {
            Ok(sent) => sent,
            Err(cut) => return Err(cut.close(open)),
        };
        match sent {
            Ok(Answer::Response(got)) => {
                let status = got.status().as_u16();
                Ok(got.map(|body| Body::Upstream(Box::new(Passing::new(body, open, leash, status)))))
            }
            Ok(Answer::Upgraded(..)) => {
                let why = "It switched protocols without being asked.";
                Err(refuse(open, Outcome::Failed, Refusal::Upstream(why.into())))
            }
            Err(error) => Err(refuse(open, Outcome::Failed, reply::upstream(&error))),
        }
    };
    passage::walk(house, visit, ready(caller), ready_none, exit).await
}
