// SPDX-License-Identifier: Apache-2.0
//! Forwarding of one API request: permit in, one canonical request out, answer back as it arrives.
//!
//! One [`Forwarder`] a shard, with idle connections of its own, so no lock is ever waited for. The credential is the
//! connection's client certificate, or the one header that is set after the client's were stripped.

mod target;

use crate::{
    api::{Api, Dialect, Length},
    body::ResponseBody,
    broker::{Broker, TaskOwner},
    credential::Injected,
    driver::{Automation, SESSION, Session},
    error::{Error, Fault},
    exchange::{Broken, Live, Progress, Sending},
    fleet::Fleet,
    headers::{self, Asked, Payload},
    secret::Choice,
    wire::Tunnel,
};
use bytes::Bytes;
use http::{
    HeaderValue, Method, Request, Response, Uri, Version,
    header::{COOKIE, LOCATION, UPGRADE},
    uri::PathAndQuery,
};
use hyper::body::{Body, Incoming};
use portcullis_domain::{Clock, HypervisorName, Operation, RequestId, Resource, UserId};
use portcullis_policy::{
    Permit,
    classify::{Canonical, Upgrade},
};
use std::{collections::HashMap, error::Error as StdError, sync::Arc, time::Duration};
use target::Lent;
pub(crate) use target::{Pool, Target};

/// How often [`Forwarder::sweep`] is to be called: idle connections are as old as the sweeps that they have seen, so
/// that no request has to read a clock for them.
pub const SWEEP: Duration = Duration::from_secs(5);
/// How long the head of an answer may take.
const HEAD: Duration = Duration::from_mins(1);
/// How long a body may stand still.
const BODY: Duration = Duration::from_mins(5);

/// How long to wait for an answer.
#[derive(Clone, Copy)]
struct Patience {
    /// For its head, after the last byte sent.
    head: Option<Duration>,
    /// Between two parts of its body.
    body: Option<Duration>,
}

impl Patience {
    const USUAL: Self = Self { head: Some(HEAD), body: Some(BODY) };
    /// As long as it takes: long polls and streams.
    const ENDLESS: Self = Self { head: None, body: None };
}

/// What the server knows about one request beside its permit.
#[derive(Debug, Clone, Copy)]
pub struct RequestContext {
    /// Goes upstream as `X-Request-Id`.
    pub request: RequestId,
    /// Whether it may become a WebSocket: what it was classified with.
    pub upgrade: Upgrade,
}

/// What came back.
pub enum Answer<B = Incoming>
where
    B: Body<Data = Bytes> + Unpin + Send + 'static,
    B::Error: Into<Box<dyn StdError + Send + Sync>>,
{
    /// An answer, cleaned.
    Response(Response<ResponseBody<B>>),
    /// The hypervisor said 101: its head, cleaned, and its side of the connection.
    Upgraded(Response<()>, Tunnel),
}

/// The session that a request is sent in.
#[derive(Clone, Copy)]
pub(crate) enum Signed<'s> {
    /// None: the way to the hypervisor says who asks.
    No,
    /// One of a pool's hosts, shown as a cookie where it does not stand in the body.
    Pool(&'s Session),
    /// Of whoever asks, shown as a header.
    Own(&'s Automation),
}

impl Signed<'_> {
    const fn member(self) -> usize {
        if let Self::Pool(session) = self { session.member } else { 0 }
    }
}

/// Sends permitted requests to hypervisors. One a shard; cheap to clone, clones share the pool.
pub struct Forwarder<B = Incoming>
where
    B: Body<Data = Bytes> + Unpin + Send + 'static,
{
    pub(crate) targets: Arc<HashMap<HypervisorName, Arc<Lent<B>>>>,
    broker: Broker,
    pub(crate) clock: Arc<dyn Clock>,
}

impl<B> Clone for Forwarder<B>
where
    B: Body<Data = Bytes> + Unpin + Send + 'static,
{
    fn clone(&self) -> Self {
        Self { targets: Arc::clone(&self.targets), broker: self.broker.clone(), clock: Arc::clone(&self.clock) }
    }
}

impl<B> Forwarder<B>
where
    B: Body<Data = Bytes> + Unpin + Send + 'static,
    B::Error: Into<Box<dyn StdError + Send + Sync>>,
{
    /// A forwarder for every hypervisor of the fleet that has an HTTP API.
    pub fn new(fleet: &Fleet) -> Self {
        let targets = fleet.apis().into_iter().map(|(name, lent)| (name, Arc::new(Lent::new(lent)))).collect();
        Self { targets: Arc::new(targets), broker: fleet.broker().clone(), clock: fleet.clock() }
    }

    /// The same for the fleet as it is now. What is still there keeps its connections.
    #[must_use]
    pub fn anew(&self, fleet: &Fleet) -> Self {
        let of = |(name, lent): (HypervisorName, Arc<Choice<Arc<Api>>>)| {
            let same = self.targets.get(&name).filter(|t| Arc::ptr_eq(&t.api, &lent)).cloned();
            (name, same.unwrap_or_else(|| Arc::new(Lent::new(lent))))
        };
        let targets = fleet.apis().into_iter().map(of).collect();
        Self { targets: Arc::new(targets), broker: self.broker.clone(), clock: Arc::clone(&self.clock) }
    }

    /// Closes connections that have been idle for ten sweeps; call it every [`SWEEP`].
    pub fn sweep(&self) {
        for target in
            self.targets.values().flat_map(|t| t.targets.all()).flat_map(|t| std::iter::once(t).chain(&t.others))
        {
            target.pool.sweep();
        }
    }

    /// Sends one request with the hypervisor's credential and waits for the head of its answer. It goes to the
    /// hypervisor of the permit, with the path that was decided on and the query that came with the request. The body
    /// goes out as it comes in, and the answer's body is read as it is asked for: memory does not grow with either.
    ///
    /// A minted channel secret in the query is exchanged for the real one here, and a task that the answer names is
    /// remembered with its owner.
    pub fn forward<'a>(
        &'a self,
        permit: &'a Permit,
        path: &Canonical,
        request: Request<B>,
        context: RequestContext,
    ) -> impl Future<Output = Result<Answer<B>, Error>> + Send + use<'a, B> {
        self.forward_signed(permit, path, request, context, Signed::No)
    }

    /// Whether the answer to a request that needs no upgrade may take as long as it likes.
    pub fn waits(&self, permit: &Permit, path: &Canonical) -> bool {
        let target = permit.operation().resource.hypervisor().and_then(|name| self.targets.get(name));
        target.is_some_and(|t| (t.targets.default.dialect.is_long_poll)(path.as_str()))
    }

    /// The same in a session, to the host that gave it.
    pub(crate) fn forward_signed<'a>(
        &'a self,
        permit: &'a Permit,
        path: &Canonical,
        request: Request<B>,
        context: RequestContext,
        signed: Signed<'_>,
    ) -> impl Future<Output = Result<Answer<B>, Error>> + Send + use<'a, B> {
        // Not in the future itself, which would hold what it was given beside what became of it, and is moved whole.
        let call = self.call(permit, path, request, context, signed);
        async move { self.send_call(call?, permit.operation(), permit.user()).await }
    }

    /// What goes to which hypervisor, with which credential.
    fn call<'a>(
        &'a self,
        permit: &'a Permit,
        path: &Canonical,
        request: Request<B>,
        context: RequestContext,
        signed: Signed<'_>,
    ) -> Result<Call<'a, B>, Error> {
        let operation = permit.operation();
        let name = operation.resource.hypervisor().ok_or_else(|| Error::WrongPermit(operation.to_string()))?;
        let target = self.targets.get(name).map(|lent| lent.targets.of(operation.action));
        let target = target.and_then(|t| t.member(signed.member()));
        let target = target.ok_or_else(|| Error::UnknownHypervisor(name.clone()))?;
        let injected = Injected::lend(permit, name, &target.dialer, self.clock.now())?;
        let (address, patience) = self.address(permit, name, target.dialect, path, &request, context.upgrade)?;
        let (mut request, asked, progress) = canonical(request, address, context, &target.host)?;
        if target.dialect.length == Length::Needed && request.body().size_hint().exact().is_none() {
            let why = "this hypervisor takes a body only with its Content-Length";
            return Err(Error::Request(why.to_owned()));
        }
        // Strip, then set: what the client said went away in `canonical`.
        if let Some(badge) = injected.badge() {
            let (header, value) = badge.show().map_err(|f| f.at(name))?;
            request.headers_mut().insert(header, value);
            if let Some((header, value)) = badge.tie(context.request.uuid()) {
                request.headers_mut().insert(header, value);
            }
        }
        match signed {
            Signed::Pool(session) if *request.method() != Method::POST => {
                if let Some(cookie) = injected.cookie(session) {
                    request.headers_mut().insert(COOKIE, cookie);
                }
            }
            Signed::Own(session) => drop(request.headers_mut().insert(SESSION, injected.shown(session))),
            Signed::Pool(_) | Signed::No => {}
        }
        Ok(Call { name, target, injected, request: Box::new(request), asked, progress, patience })
    }

    async fn send_call(&self, call: Call<'_, B>, operation: &Operation, user: UserId) -> Result<Answer<B>, Error> {
        let Call { name, target, injected, request, asked, progress, patience } = call;
        let slot = target.pool.slot(name).await?;
        let (live, response) = self.send(target, name, &injected, request, progress.as_deref(), patience.head).await?;
        let (mut head, body) = response.into_parts();
        if head.status.as_u16() == 401
            && let Some(badge) = injected.badge()
        {
            badge.refused();
        }
        let cleaned = headers::check_answer(&head.headers).and_then(|()| {
            let upgrade = head.headers.get(UPGRADE).cloned();
            headers::clean(&mut head.headers, &target.origins).map(|()| upgrade)
        });
        let upgrade = cleaned.map_err(|f| f.at(name))?;
        // A hop's reason phrase is its own.
        head.extensions.clear();
        // A task that was started belongs to whoever started it.
        if head.status.as_u16() == 202
            && let Some(task) = head.headers.get(LOCATION).and_then(|l| l.to_str().ok())
        {
            self.broker.remember(name, task, TaskOwner { user, operation: operation.clone() });
        }
        if head.status.as_u16() != 101 {
            return Ok(Answer::Response(Response::from_parts(
                head,
                ResponseBody::new(body, live, Arc::clone(&target.pool), slot, progress, patience.body),
            )));
        }
        let is_websocket = upgrade.is_some_and(|u| u.as_bytes().eq_ignore_ascii_case(b"websocket"));
        if asked != Asked::WebSocket || !is_websocket {
            return Err(Fault::Protocol("switched to a protocol that nobody asked for".to_owned()).at(name));
        }
        let ended = || Fault::hung_up("the connection ended while it became a WebSocket").at(name);
        let (wire, early) = Box::pin(live.into_wire()).await.ok_or_else(ended)?;
        Ok(Answer::Upgraded(Response::from_parts(head, ()), Tunnel::new(wire, early, slot)))
    }

    /// The address to ask for, and how long its answer may take.
    fn address(
        &self,
        permit: &Permit,
        name: &HypervisorName,
        dialect: &Dialect,
        path: &Canonical,
        request: &Request<B>,
        upgrade: Upgrade,
    ) -> Result<(PathAndQuery, Patience), Error> {
        let query = request.uri().query();
        let bad = || Error::Request("its address cannot be sent".to_owned());
        if let Some(channel) = (dialect.channel)(path.as_str(), query) {
            let unknown =
                || Error::Request("this secret is unknown, was used before, or is older than 30 seconds".to_owned());
            let minted = channel.secret.ok_or_else(unknown)?;
            let (machine, _) = self.broker.look(permit.user(), name, channel.task, minted).ok_or_else(unknown)?;
            if permit.operation().resource != Resource::Machine(machine) {
                return Err(Error::WrongPermit(permit.operation().to_string()));
            }
            let found = self.broker.redeem(permit.user(), name, channel.task, minted).ok_or_else(unknown)?;
            let real = found.secret.expose_text().filter(|s| s.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-'));
            let real = real.ok_or_else(|| Fault::Protocol("a channel secret that is none".to_owned()).at(name))?;
            let address = (dialect.channel_address)(channel.task, real);
            return Ok((address.parse().map_err(|_| bad())?, Patience::ENDLESS));
        }
        let is_long = upgrade == Upgrade::WebSocket || (dialect.is_long_poll)(path.as_str());
        let patience = if is_long { Patience::ENDLESS } else { Patience::USUAL };
        let same = request.uri().path_and_query().filter(|p| p.path() == path.as_str());
        let address = match (same, query) {
            (Some(same), _) => same.clone(),
            (None, Some(query)) => PathAndQuery::try_from(format!("{}?{query}", path.as_str())).map_err(|_| bad())?,
            (None, None) => path.as_str().parse().map_err(|_| bad())?,
        };
        Ok((address, patience))
    }

    async fn send(
        &self,
        target: &Target<B>,
        name: &HypervisorName,
        injected: &Injected<'_>,
        mut request: Box<Request<Sending<B>>>,
        progress: Option<&Progress>,
        patience: Option<Duration>,
    ) -> Result<(Box<Live<B>>, Response<Incoming>), Error> {
        let mut idle = target.pool.take();
        loop {
            let is_reused = idle.is_some();
            let mut live = if let Some(live) = idle.take() {
                live
            } else {
                // Boxed: it is rare, and a request's future is moved with room for all that it could become.
                Box::pin(async {
                    let wire = injected.dialer().dial().await.map_err(|f| f.at(name))?;
                    Live::open(wire).await.map_err(|e| explain(e, name))
                })
                .await?
            };
            // A connection that was idle may die just as it is used; a safe request without a body is asked again.
            let spare = if is_reused { copy(&request) } else { None };
            let broken = match live.exchange(request, progress, patience).await {
                Ok(response) => return Ok((live, response)),
                Err(broken) => broken,
            };
            request = match (broken, spare) {
                (Broken::Unsent(request), _) if is_reused => request,
                (Broken::Failed(e), Some(spare)) if !e.is_parse() => spare,
                (Broken::Failed(e), _) => return Err(explain(e, name)),
                (Broken::Unsent(_), _) => return Err(Fault::hung_up("closed the connection at once").at(name)),
                (Broken::TooSlow, _) => return Err(Fault::TooSlow("to answer").at(name)),
            };
        }
    }
}

/// One request that was permitted, ready to go.
struct Call<'a, B>
where
    B: Body<Data = Bytes> + Unpin + Send + 'static,
{
    name: &'a HypervisorName,
    target: &'a Target<B>,
    injected: Injected<'a>,
    request: Box<Request<Sending<B>>>,
    asked: Asked,
    progress: Option<Arc<Progress>>,
    patience: Patience,
}

/// A request as it goes upstream, what it wants to become, and how far its body has come.
type Outgoing<B> = (Request<Sending<B>>, Asked, Option<Arc<Progress>>);

/// The request as it goes upstream.
fn canonical<B: Body<Data = Bytes> + Unpin>(
    request: Request<B>,
    address: PathAndQuery,
    context: RequestContext,
    host: &HeaderValue,
) -> Result<Outgoing<B>, Error> {
    let (mut head, body) = request.into_parts();
    let payload = if body.is_end_stream() {
        Payload::None
    } else {
        body.size_hint().exact().map_or(Payload::Unknown, Payload::Exact)
    };
    let mut id = [0; uuid::fmt::Simple::LENGTH];
    let id = context.request.uuid().as_simple().encode_lower(&mut id);
    let id = HeaderValue::from_str(id).map_err(|e| Error::Request(e.to_string()))?;
    let asked = headers::prepare(&head.method, &mut head.headers, payload, context.upgrade, host, id)?;
    head.uri = Uri::from(address);
    head.version = Version::HTTP_11;
    head.extensions.clear();
    let (body, progress) = Sending::new(body);
    Ok((Request::from_parts(head, body), asked, progress))
}

/// A second copy of a request that may be asked twice.
fn copy<B: Body<Data = Bytes> + Unpin>(request: &Request<Sending<B>>) -> Option<Box<Request<Sending<B>>>> {
    if !matches!(*request.method(), Method::GET | Method::HEAD) || !request.body().is_end_stream() {
        return None;
    }
    let mut again = Request::new(Sending::empty());
    *again.method_mut() = request.method().clone();
    *again.uri_mut() = request.uri().clone();
    *again.headers_mut() = request.headers().clone();
    Some(Box::new(again))
}

/// What hyper's error means.
pub(crate) fn explain(error: hyper::Error, name: &HypervisorName) -> Error {
    if error.is_user() {
        return Error::ClientGone(error);
    }
    fault(&error).at(name)
}

/// The same without a name.
pub(crate) fn fault(error: &hyper::Error) -> Fault {
    if error.is_parse() {
        return Fault::Protocol(format!("an answer that is no HTTP: {error}"));
    }
    if error.is_incomplete_message() || error.is_canceled() || error.is_closed() {
        return Fault::hung_up("closed the connection before it had answered");
    }
    let cause = error.source().map(|s| format!(": {s}")).unwrap_or_default();
    Fault::hung_up(format!("the connection broke{cause}"))
}
