// SPDX-License-Identifier: Apache-2.0
//! How clients of Kubernetes speak to KubeVirt's part of its API, and read a refusal.
//!
//! Every answer is made of objects, and is cut to what its reader may see. So a request is written anew for the cluster:
//! its query as it was decided on, JSON alone among what it accepts, nothing packed. A list is asked for page by page and
//! given whole, because the place to go on from names an object, and how many pages there are counts those that are
//! hidden.

mod request;
mod watch;

use self::request::{DESCRIPTION, Shape, asks, is_list, negotiate, packed_description, rewrite};
use super::{Shown, Way, bearer};
use crate::{
    api::{self, Going},
    body::{Body, Response, Sent, done},
    leash::{Cut as Pulled, Leash},
    passage::end,
    reply::{self, Refusal},
    state::{House, Shard},
};
use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Method, Request, StatusCode, header};
use http_body_util::Full;
use portcullis_audit::OpenEntry;
use portcullis_domain::{
    Action, Actor, Effect, HypervisorName, Inventory, Machine, MachineId, MachineRef, Operation, Outcome, RequestId,
    Resource,
};
use portcullis_policy::{
    Decision, Permit,
    classify::{self, Asked, Canonical, Json, Upgrade, Verdict, Written},
};
use portcullis_upstream::{Answer as Got, Basis, Cut, Cutter, Gaze, RequestContext, ResponseBody};
use serde_json::{Value, json};
use std::{sync::Arc, time::Duration};

/// How many objects one page has.
const PAGE: usize = 500;
/// Most pages of one list: a cluster that always names another one ends there.
const MAX_PAGES: usize = 400;
/// Most bytes of one page, and of all pages of a list.
const MAX_LIST: usize = 32 * 1024 * 1024;
const MAX_ALL: usize = 128 * 1024 * 1024;

/// How long the inventory may take to hear of a machine that an answer or event is about.
const PATIENCE: Duration = Duration::from_secs(2);
/// How often it is looked at meanwhile.
const AGAIN: Duration = Duration::from_millis(50);

/// `Authorization: Bearer`, and nothing else.
pub(super) fn shown(headers: &HeaderMap) -> Option<Shown<'_>> {
    bearer(headers).map(|token| Shown::Token(token, None))
}

/// Browsers show a token as the name of a subprotocol, which the cluster would take for one: it has no place here.
pub(super) fn check(headers: &HeaderMap) -> Result<(), Refusal> {
    let mut names = headers.get_all(header::SEC_WEBSOCKET_PROTOCOL).iter();
    let fits = |v: &HeaderValue| v.as_bytes() == b"plain.kubevirt.io";
    if names.all(fits) {
        Ok(())
    } else {
        Err(Refusal::Bad(
            "The subprotocol of a stream here is plain.kubevirt.io, and a token is shown by a header.".into(),
        ))
    }
}

/// What a body asks, where that depends on what the machine is now.
pub(super) fn settle_said(way: Way<'_>, verdict: Verdict, asked: &Asked<'_>) -> Verdict {
    let classify::Body::Json(said) = asked.body else { return verdict };
    match way.house.fleet.cutter(way.hypervisor) {
        Some(cutter) => settle(verdict, said, &cutter, &way.house.fleet.inventory()),
        None => Verdict::Denied("This hypervisor has no objects.".into()),
    }
}

/// What is asked, where that depends on what the machine is now. Labels can give and take away tags, on which access is
/// given; where the tags stay the same, they do neither.
fn settle(verdict: Verdict, said: &Json, cutter: &Cutter, inventory: &Inventory) -> Verdict {
    if said.texts().any(Cutter::is_cut) {
        let why = "The body holds the text that stands for a secret which is not shown, and would put it in the \
                   secret's place: send only what changes, or the whole with the secret.";
        return Verdict::Denied(why.into());
    }
    let Verdict::Operation { mut operation, mut also, answer } = verdict else { return verdict };
    let Some(hypervisor) = operation.resource.hypervisor().cloned() else {
        return Verdict::Operation { operation, also, answer };
    };
    let access =
        Operation { action: Action::AccessAdmin, resource: Resource::Hypervisor(hypervisor), effect: Effect::Unsafe };
    let labels = || said.below("/metadata/labels");
    let tags = || cutter.tags(labels().filter_map(|(k, v)| Some((k, v?))));
    let is_edit = |o: &&Operation| o.action == Action::Configure && matches!(o.resource, Resource::Machine(_));
    let edited = std::iter::once(&operation).chain(&also).find(is_edit).and_then(|o| match &o.resource {
        Resource::Machine(at) => inventory.find(at),
        _ => None,
    });
    // All of them put in other ones' place: what goes away is not said.
    let replaced = said.value("/metadata/labels").is_some();
    let same = match (said.written(), edited) {
        // What it leaves out goes away, and nobody says what that is.
        (Written::Whole, Some(_)) => false,
        (Written::Changes, Some(machine)) => {
            let changes = |(key, value): (&str, Option<&str>)| match value {
                _ if !cutter.is_tag(key) => false,
                Some(value) => !cutter.tags(std::iter::once((key, value))).iter().all(|t| machine.tags.contains(t)),
                None => true,
            };
            !replaced && !labels().any(changes)
        }
        (_, None) => match operation.action {
            // One that the inventory does not know.
            Action::Configure | Action::AccessAdmin => false,
            Action::Create => tags().is_empty(),
            // Labels of a snapshot and the like are no tags.
            _ => true,
        },
    };
    if same {
        also.retain(|o| *o != access);
        if operation == access
            && let Some(at) = also.iter().position(|o| o.action == Action::Configure)
        {
            operation = also.remove(at);
        }
    } else if edited.is_some() && said.written() == Written::Whole && operation != access && !also.contains(&access) {
        // An applied configuration takes back the labels that it does not name any more.
        also.push(access.clone());
    }
    // Applied under a name that no machine has, it makes one.
    let makes = edited.is_none() && std::iter::once(&operation).chain(&also).any(|o| is_edit(&o));
    if makes && said.written() == Written::Whole {
        also.push(Operation { action: Action::Create, ..access.clone() });
    }
    // So it is with places, devices and what cleans up after it.
    let strict = Operation { action: Action::NodeAdmin, ..access };
    if edited.is_some() && said.written() == Written::Whole && operation != strict && !also.contains(&strict) {
        also.push(strict);
    }
    Verdict::Operation { operation, also, answer }
}

/// A refusal as Kubernetes tells one, with the fields of RFC 9457 beside it.
pub(super) fn refusal(refusal: &Refusal, said: &str, request: RequestId) -> Value {
    let (title, detail) = refusal.words();
    let code = refusal.status().as_u16();
    let mut status = status(code, said);
    for (key, value) in [("title", title.into()), ("detail", detail.into()), ("request", request.to_string().into())] {
        if let Some(map) = status.as_object_mut() {
            map.insert(key.to_owned(), value);
        }
    }
    status
}

/// A Status object.
fn status(code: u16, said: &str) -> Value {
    let reason = match code {
        400 => "BadRequest",
        401 => "Unauthorized",
        403 => "Forbidden",
        404 => "NotFound",
        405 => "MethodNotAllowed",
        409 => "Conflict",
        410 => "Expired",
        413 => "RequestEntityTooLarge",
        429 => "TooManyRequests",
        503 => "ServiceUnavailable",
        504 => "Timeout",
        _ => "InternalError",
    };
    json!({
        "kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure", "message": said, "reason": reason,
        "code": code,
    })
}

/// What somebody may see of one hypervisor, at this instant.
struct Eyes<'a> {
    house: &'a House,
    actor: &'a Actor,
    hypervisor: &'a HypervisorName,
    inventory: Arc<Inventory>,
}

impl<'a> Eyes<'a> {
    fn new(house: &'a House, actor: &'a Actor, hypervisor: &'a HypervisorName) -> Self {
        Self { house, actor, hypervisor, inventory: house.fleet.inventory() }
    }

    fn at(&self, machine: &MachineId) -> MachineRef {
        MachineRef { hypervisor: self.hypervisor.clone(), machine: machine.clone() }
    }

    /// Whether the inventory knows a machine.
    fn has(&self, machine: &MachineId) -> bool {
        self.inventory.find(&self.at(machine)).is_some()
    }

    fn known(&self, machine: &MachineId) -> bool {
        let at = Resource::Machine(self.at(machine));
        self.house.engine.may_see(self.actor, &at, &self.inventory, self.house.clock.now())
    }

    /// A machine as it is told of, whatever the inventory knows of it.
    fn machine(&self, machine: &Machine) -> bool {
        let at = Resource::Machine(machine.at.clone());
        let alone = Inventory::new([machine.clone()]);
        self.house.engine.may_see(self.actor, &at, &alone, self.house.clock.now())
    }

    fn whole(&self) -> bool {
        let resource = Resource::Hypervisor(self.hypervisor.clone());
        let all = Operation { action: Action::View, resource, effect: Effect::Safe };
        let now = self.house.clock.now();
        matches!(self.house.engine.decide(self.actor, &all, &self.inventory, now), Decision::Permit(_))
    }

    fn look<T>(&self, then: impl FnOnce(&Gaze<'_>) -> T) -> T {
        let (machine, known) = (|m: &Machine| self.machine(m), |m: &MachineId| self.known(m));
        then(&Gaze { whole: self.whole(), machine: &machine, known: &known })
    }
}

/// Answers a request whose answer is made of objects.
pub(crate) async fn forward(going: Going<'_>, leash: &Leash, open: OpenEntry) -> Result<Response, Refusal> {
    let Going { shard, peer, path, request } = going;
    let (house, permit, actor) = (leash.house(), leash.permit(), leash.actor());
    if let Some(form) = packed_description(&path, request.headers()) {
        done(open, Outcome::Done, StatusCode::OK.as_u16(), DESCRIPTION.len() as u64);
        let mut answer = Response::new(Body::Whole(Some(Bytes::from_static(DESCRIPTION))));
        answer.headers_mut().insert(header::CONTENT_TYPE, form);
        return Ok(answer);
    }
    let name = permit.operation().resource.hypervisor().cloned();
    let found = name.as_ref().and_then(|name| Some((name, house.fleet.cutter(name)?)));
    let came = match found {
        Some((name, cutter)) => {
            let walk = Walk { house, shard, path: &path, name, cutter: &cutter, permit, actor, id: peer.request };
            // A list may have hundreds of pages, and a cluster all the time for each.
            match leash.hold(walk.go(request)).await {
                Ok(came) => came,
                Err(cut) => return Err(cut.close(open)),
            }
        }
        None => Err((Outcome::Failed, Refusal::Unavailable("This hypervisor has no objects.".into()))),
    };
    // What may not be read by now is not shown. A change is done, and says so.
    if let Some(why) = leash.pulled().filter(|_| permit.operation().effect == Effect::Safe) {
        return Err(Pulled::Pulled(why).close(open));
    }
    match (came, &name) {
        (Ok(Came::Watch(asks, got)), Some(name)) => {
            Ok(watch::begin(house, Arc::clone(actor), name, &path, &asks, got, open))
        }
        (Ok(Came::Whole(parts, cut)), _) => finish(open, parts, cut),
        (Err((outcome, refusal)), _) => {
            end(open, outcome, &refusal.words().1, &[]);
            Err(refusal)
        }
        (Ok(Came::Watch(..)), None) => Err(Refusal::Misdirected),
    }
}

/// What came of a request.
enum Came {
    /// Changes, for as long as they come.
    Watch(watch::Asks, http::Response<ResponseBody<Sent>>),
    /// An answer, and what of it may be shown, or why nothing can be told of it.
    Whole(http::response::Parts, Result<Cut, String>),
}

/// One request that was permitted, on its way.
struct Walk<'a> {
    house: &'a Arc<House>,
    shard: &'a Shard,
    path: &'a Canonical,
    name: &'a HypervisorName,
    cutter: &'a Cutter,
    permit: &'a Permit,
    actor: &'a Actor,
    id: RequestId,
}

impl Walk<'_> {
    async fn go(&self, mut request: Request<Sent>) -> Result<Came, (Outcome, Refusal)> {
        let pairs = classify::read_pairs(request.uri().query()).unwrap_or_default();
        let watches = asks(&pairs, "watch")
            .ok_or_else(|| (Outcome::Denied, Refusal::Bad("Write watch=true, or leave it out.".into())))?;
        let mut ours = Vec::new();
        if negotiate(request.headers_mut()) == Shape::Table {
            // To tell what an object is about takes the whole of it.
            ours.push(("includeObject", "Object"));
        }
        if !watches {
            return self.gather(request, &ours).await;
        }
        ours.extend([("watch", "true"), ("allowWatchBookmarks", "true")]);
        let got = self.send(request, &ours).await?;
        if got.status() == StatusCode::OK {
            return Ok(Came::Watch(watch::Asks::new(&pairs), got));
        }
        let (parts, text) = self.read(got).await?;
        Ok(Came::Whole(parts, self.cut(&text, Basis::Objects)))
    }

    /// A whole answer: of a list all its pages.
    async fn gather(&self, request: Request<Sent>, ours: &[(&str, &str)]) -> Result<Came, (Outcome, Refusal)> {
        let (method, headers, query) = (request.method().clone(), request.headers().clone(), request.uri().clone());
        let reads = method == Method::GET;
        // What a decision was made on may be shown: the one machine, or the answer to a change.
        let is_decided = matches!(self.permit.operation().resource, Resource::Machine(_)) || !reads;
        let basis = if is_decided { Basis::Decided } else { Basis::Objects };
        let (page, lists) = (PAGE.to_string(), reads && is_list(self.path));
        let (mut next, mut size, mut number) = (String::new(), 0, 0);
        let mut first = Some(request);
        let mut all: Option<(http::response::Parts, Value)> = None;
        loop {
            let request = first.take().unwrap_or_else(|| {
                let mut again = Request::new(Sent::Whole(Full::default()));
                *again.method_mut() = method.clone();
                *again.headers_mut() = headers.clone();
                *again.uri_mut() = query.clone();
                again
            });
            let mut more = ours.to_vec();
            if lists {
                more.push(("limit", &page));
            }
            if !next.is_empty() {
                more.push(("continue", &next));
            }
            let got = self.send(request, &more).await?;
            let (parts, text) = self.read(got).await?;
            // What is not there is told in the same words as what is hidden.
            if basis == Basis::Objects && !lists && parts.status == StatusCode::NOT_FOUND {
                return Ok(Came::Whole(parts, Ok(Cut::Hidden)));
            }
            if text.is_empty() {
                return Ok(Came::Whole(parts, Ok(Cut::Shown(Value::Null))));
            }
            let mut shown = match self.cut(&text, basis) {
                Ok(Cut::Shown(shown)) => shown,
                other => return Ok(Came::Whole(parts, other)),
            };
            size += text.len();
            number += 1;
            let following = Cutter::next(&mut shown).filter(|_| lists && parts.status == StatusCode::OK);
            let (head, whole) = match all {
                None => (parts, shown),
                Some((head, before)) => match joined(before, shown) {
                    Some(both) => (head, both),
                    None => return Ok(Came::Whole(parts, Err("a page of another shape than the first".to_owned()))),
                },
            };
            match following {
                None => {
                    if method == Method::POST && head.status == StatusCode::CREATED {
                        heard_of(self.house, self.name, &whole).await;
                    }
                    return Ok(Came::Whole(head, Ok(Cut::Shown(whole))));
                }
                Some(same) if same == next || number >= MAX_PAGES || size > MAX_ALL => {
                    let why = Refusal::Upstream("Its list does not end, or is too long.".into());
                    return Err((Outcome::Failed, why));
                }
                Some(following) => next = following,
            }
            all = Some((head, whole));
        }
    }

    fn cut(&self, text: &[u8], basis: Basis) -> Result<Cut, String> {
        let eyes = Eyes::new(self.house, self.actor, self.name);
        eyes.look(|gaze| self.cutter.answer(self.path.as_str(), text, basis, gaze)).map_err(|f| f.to_string())
    }

    async fn read(
        &self,
        got: http::Response<ResponseBody<Sent>>,
    ) -> Result<(http::response::Parts, Bytes), (Outcome, Refusal)> {
        api::collect(got, MAX_LIST).await.map_err(|why| (Outcome::Failed, Refusal::Upstream(why.to_owned())))
    }

    /// Sends one request on with these keys, and waits for the head of the answer.
    async fn send(
        &self,
        mut request: Request<Sent>,
        ours: &[(&str, &str)],
    ) -> Result<http::Response<ResponseBody<Sent>>, (Outcome, Refusal)> {
        rewrite(&mut request, self.path.as_str(), ours).map_err(|refusal| (Outcome::Denied, refusal))?;
        let context = RequestContext { request: self.id, upgrade: Upgrade::None };
        let refusal = match self.shard.forwarder().forward(self.permit, self.path, request, context).await {
            Ok(Got::Response(got)) if got.status() != StatusCode::UNAUTHORIZED => return Ok(got),
            // It is the gateway that it does not know: a client would take it for itself.
            Ok(Got::Response(_)) => {
                Refusal::Upstream("It does not take the gateway's own credential at the moment.".into())
            }
            Ok(Got::Upgraded(..)) => Refusal::Upstream("It switched protocols without being asked.".into()),
            Err(error) => reply::upstream(&error),
        };
        Err((Outcome::Failed, refusal))
    }
}

/// Waits a moment until the inventory has heard of a machine that was just made: its maker looks at it next.
async fn heard_of(house: &House, hypervisor: &HypervisorName, made: &Value) {
    let at = |key: &str| made.pointer(key).and_then(Value::as_str).unwrap_or_default();
    let id = format!("{}:{}", at("/metadata/namespace"), at("/metadata/name"));
    let (true, Ok(machine)) = (at("/kind") == "VirtualMachine", id.parse()) else { return };
    let at = MachineRef { hypervisor: hypervisor.clone(), machine };
    let known = async {
        while house.fleet.inventory().find(&at).is_none() {
            tokio::time::sleep(AGAIN).await;
        }
    };
    // One that it never hears of has no name of a machine.
    let _: Result<(), _> = tokio::time::timeout(PATIENCE, known).await;
}

/// Two pages as one.
fn joined(mut first: Value, mut second: Value) -> Option<Value> {
    for key in ["items", "rows"] {
        if let Some(Value::Array(more)) = second.get_mut(key) {
            let more = std::mem::take(more);
            first.get_mut(key)?.as_array_mut()?.extend(more);
            return Some(first);
        }
    }
    None
}

/// Closes the event with what came, and gives it to the client.
fn finish(open: OpenEntry, mut parts: http::response::Parts, cut: Result<Cut, String>) -> Result<Response, Refusal> {
    let (status, body) = match cut {
        Ok(Cut::Shown(Value::Null)) => (parts.status, String::new()),
        Ok(Cut::Shown(value)) => (parts.status, value.to_string()),
        Ok(Cut::Hidden) => {
            end(open, Outcome::Denied, "it is not there, or about what they may not see", &[]);
            return Err(Refusal::NotFound);
        }
        Err(why) => {
            tracing::warn!(why, "an answer of a cluster was withheld");
            end(open, Outcome::Failed, "the answer could not be read, so it was withheld", &[]);
            return Err(Refusal::Upstream("Its answer could not be read.".into()));
        }
    };
    for name in [header::CONTENT_LENGTH, header::ETAG, header::CONTENT_ENCODING] {
        parts.headers.remove(name);
    }
    let is_json = |v: &HeaderValue| v.to_str().is_ok_and(|t| t.starts_with("application/json"));
    if !body.is_empty() && !parts.headers.get(header::CONTENT_TYPE).is_some_and(is_json) {
        parts.headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    }
    let outcome = if status.as_u16() >= 400 { Outcome::Failed } else { Outcome::Done };
    done(open, outcome, status.as_u16(), body.len() as u64);
    let body = if body.is_empty() { Body::empty() } else { Body::Whole(Some(Bytes::from(body))) };
    Ok(Response::from_parts(parts, body))
}

#[cfg(test)]
mod tests;
