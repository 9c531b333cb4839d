// SPDX-License-Identifier: Apache-2.0
//! APIs that are called by method names, with a session of the gateway's own in each call: permit in, the call filled
//! with the session, the answer back without it.

use crate::{
    credential::Injected,
    driver::{Keeping, MethodApi, Session, is_over, keep_objects, task_of},
    error::{Error, Fault},
    fleet::{Fleet, Seen},
    forward::{Answer, Forwarder, RequestContext, Signed, Target},
};
use bytes::{Bytes, BytesMut};
use http::{
    HeaderValue, Method, Request,
    header::{CONTENT_LENGTH, CONTENT_TYPE},
};
use http_body_util::{BodyExt as _, Limited};
use hyper::body::Body;
use portcullis_domain::{HypervisorName, Operation, Resource, UserId};
use portcullis_policy::{
    Permit,
    classify::{
        Back, Canonical, Methods, Owner, Upgrade,
        rpc::{Caller, Hollow, Reply},
    },
};
use std::{error::Error as StdError, sync::Arc, time::Duration};
use uuid::Uuid;

/// The largest answer to a call, bytes.
const MAX_ANSWER: usize = 128 * 1024 * 1024;
/// What says that a session is over is no longer than this.
const SHORT: usize = 4096;
/// How long something that is not known yet is waited for.
const SETTLE: Duration = Duration::from_secs(2);

/// What is known of a hypervisor's objects, at one instant. Cheap to clone.
#[derive(Clone)]
pub struct Objects(Arc<crate::driver::Index>);

impl portcullis_policy::classify::Objects for Objects {
    fn owner(&self, class: &str, object: Uuid) -> Option<Owner<'_>> {
        self.0.owner(class, object)
    }
}

/// One call that was permitted.
pub struct Called<'a> {
    /// Its body, without a session.
    pub hollow: &'a Hollow,
    /// Where it goes.
    pub path: &'a Canonical,
    /// What comes back.
    pub back: Back,
    /// What it looks for, where it looks for something by what that is called.
    pub by: Option<&'a str>,
    /// Whom the answer goes to.
    pub to: &'a Caller,
}

impl Fleet {
    /// What is known of the objects of a hypervisor whose API is called by method names.
    pub fn objects(&self, hypervisor: &HypervisorName) -> Option<Objects> {
        self.method_api(hypervisor).map(|api| Objects(api.index()))
    }

    /// Waits until something new is known of them, at most two seconds.
    pub async fn settle(&self, hypervisor: &HypervisorName) {
        if let Some(api) = self.method_api(hypervisor) {
            api.settle(SETTLE).await;
        }
    }

    /// Whether a person began a task through this gateway, and by what.
    pub fn began(&self, hypervisor: &HypervisorName, task: &str, user: UserId) -> Option<Operation> {
        self.broker().owner(hypervisor, task).filter(|o| o.user == user).map(|o| o.operation)
    }

    /// Cuts an answer down to what somebody may see: `seen`, or everything where that is none. What the answer names and
    /// nobody knows yet is waited for once; and so is something that was looked for and is not there, or hidden: how long
    /// the answer takes tells no more than what it says.
    pub async fn keep_objects(
        &self,
        permit: &Permit,
        answer: Vec<u8>,
        called: &Called<'_>,
        methods: &Methods,
        seen: Option<&Seen<'_>>,
    ) -> Result<Vec<u8>, Error> {
        let operation = permit.operation();
        let name = operation.resource.hypervisor().ok_or_else(|| Error::WrongPermit(operation.to_string()))?;
        let api = self.method_api(name).ok_or_else(|| Error::UnknownHypervisor(name.clone()))?;
        if called.back == Back::Task {
            if let Some(task) = task_of(&answer, called.to) {
                let owner = crate::broker::TaskOwner { user: permit.user(), operation: operation.clone() };
                self.broker().remember(name, &task, owner);
            }
            return Ok(answer);
        }
        // Events are looked at for everybody: some of them tell sessions.
        if called.back == Back::Whole || seen.is_none() && called.back != Back::Events {
            return Ok(answer);
        }
        let began = |task: &str| self.began(name, task, permit.user()).is_some();
        let mut again = true;
        loop {
            let index = api.index();
            let keeping = Keeping { index: &index, methods, seen, by: called.by, began: &began };
            let kept = keep_objects(&answer, called.to, called.back, &keeping).map_err(|f| f.at(name))?;
            if !kept.may_change || !again {
                return Ok(kept.body);
            }
            again = false;
            api.settle(SETTLE).await;
        }
    }

    fn method_api(&self, hypervisor: &HypervisorName) -> Option<Arc<MethodApi>> {
        self.api(hypervisor)?.pool.clone()
    }
}

impl<B> Forwarder<B>
where
    B: Body<Data = Bytes> + Unpin + Send + 'static,
    B::Error: Into<Box<dyn StdError + Send + Sync>>,
{
    /// Sends one call with the gateway's own session and waits for the whole of its answer, at most 128 MiB. A session
    /// that is over is begun anew, once: what is called with one was not done.
    pub async fn call_method(
        &self,
        permit: &Permit,
        called: &Called<'_>,
        context: RequestContext,
        make: impl Fn(Bytes) -> B + Send + Sync,
    ) -> Result<Vec<u8>, Error> {
        let (name, target) = self.target(permit)?;
        let api = target.api().ok_or_else(|| Error::UnknownHypervisor(name.clone()))?;
        let mut again = true;
        loop {
            let session = api.session().await.map_err(|f| f.at(name))?;
            let body = self.filled(permit, name, target, &session, called.hollow)?;
            let request = Request::builder()
                .method(Method::POST)
                .uri(called.path.as_str())
                .header(CONTENT_TYPE, called.hollow.wire.media_type())
                .header(CONTENT_LENGTH, body.len())
                .body(make(body))
                .map_err(|e| Error::Request(e.to_string()))?;
            let context = RequestContext { upgrade: Upgrade::None, ..context };
            let Answer::Response(response) =
                self.forward_signed(permit, called.path, request, context, Signed::Pool(&session)).await?
            else {
                return Err(Fault::Protocol("it switched protocols without being asked".to_owned()).at(name));
            };
            if response.status().as_u16() != 200 {
                return Err(Fault::Refused(format!("a call answers with status {}", response.status())).at(name));
            }
            let mut text = collect(response.into_body()).await.map_err(|f| f.at(name))?;
            let reply = if text.len() <= SHORT { Reply::read(called.to.wire, &text) } else { None };
            if again && reply.is_some_and(|r| is_over(&r)) {
                again = false;
                api.forget(&session);
                continue;
            }
            session.scrub(&mut text);
            return Ok(text);
        }
    }

    /// Sends one request beside the calls, with the gateway's own session.
    pub async fn forward_beside(
        &self,
        permit: &Permit,
        path: &Canonical,
        request: Request<B>,
        context: RequestContext,
    ) -> Result<Answer<B>, Error> {
        let (name, target) = self.target(permit)?;
        let api = target.api().ok_or_else(|| Error::UnknownHypervisor(name.clone()))?;
        let session = api.session().await.map_err(|f| f.at(name))?;
        self.forward_signed(permit, path, request, context, Signed::Pool(&session)).await
    }

    fn filled(
        &self,
        permit: &Permit,
        name: &HypervisorName,
        target: &Target<B>,
        session: &Session,
        hollow: &Hollow,
    ) -> Result<Bytes, Error> {
        let at = target.member(session.member).ok_or_else(|| Error::UnknownHypervisor(name.clone()))?;
        let injected = Injected::lend(permit, name, at.dialer(), self.clock.now())?;
        let none = || Fault::Protocol("a session that is none".to_owned()).at(name);
        injected.filled(session, hollow).map(Bytes::from).ok_or_else(none)
    }

    fn target<'p>(&self, permit: &'p Permit) -> Result<(&'p HypervisorName, &Target<B>), Error> {
        let operation = permit.operation();
        let is_known = |r: &'p Resource| r.hypervisor().ok_or_else(|| Error::WrongPermit(operation.to_string()));
        let name = is_known(&operation.resource)?;
        let lent = self.targets.get(name).ok_or_else(|| Error::UnknownHypervisor(name.clone()))?;
        Ok((name, lent.targets.of(operation.action)))
    }
}

async fn collect<B>(body: crate::body::ResponseBody<B>) -> Result<Vec<u8>, Fault>
where
    B: Body<Data = Bytes> + Unpin + Send + 'static,
    B::Error: Into<Box<dyn StdError + Send + Sync>>,
{
    let mut body = Limited::new(body, MAX_ANSWER);
    let mut all = BytesMut::new();
    while let Some(frame) = body.frame().await {
        let frame = frame.map_err(|e| Fault::hung_up(format!("its answer was too long or broke off: {e}")))?;
        if let Some(data) = frame.data_ref() {
            all.extend_from_slice(data);
        }
    }
    Ok(all.into())
}

/// The cookie that shows a session beside the calls.
pub(crate) fn cookie(session: &Session) -> Option<HeaderValue> {
    let mut value = HeaderValue::from_str(&format!("session_id={}", session.reference())).ok()?;
    value.set_sensitive(true);
    Some(value)
}
