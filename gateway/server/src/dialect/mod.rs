// SPDX-License-Identifier: Apache-2.0
//! What native clients of a hypervisor's API say and expect that is not the API itself: how they show who they are, how
//! they sign in, and how they are refused. Everything that they show is a token of ours, or a pass that stands for one.
//! One file a dialect; what counts as shown, and for how long, is the same for all and stands here.

pub(crate) mod kubevirt;
pub(crate) mod libvirt;
mod lxd;
mod openstack;
mod ovirt;
mod proxmox;
mod speech;
mod vmm;
pub(crate) mod vsphere;
pub(crate) mod xapi;

use crate::{
    body::{Body, Response},
    layers::Peer,
    passage::{self, Asked, Caller, Passed, Trailed, Visit},
    reply::Refusal,
    state::{House, chain},
};
use http::{HeaderMap, HeaderValue, Method, header};
use hyper::ext::ReasonPhrase;
use portcullis_audit::OpenEntry;
use portcullis_domain::{Action, Actor, HypervisorName, MachineRef, Operation, Outcome, Pass, Resource, Secret};
use portcullis_policy::classify::{self, ApiKind, Canonical, Content, Table, Verdict};
use portcullis_store::Digest;
use portcullis_upstream::{Beside, Standing};
pub(crate) use speech::Written;
use speech::{Reads, Speech, speech};
use std::{borrow::Cow, future::ready, sync::Arc};

/// What somebody shows.
enum Shown<'h> {
    /// A token of ours, and the name that it is said to be of.
    Token(&'h str, Option<&'h str>),
    /// A ticket of the dialect, and what a change has to bring.
    Ticket(String, Option<&'h str>),
    /// A pass alone.
    Pass(&'h str),
    /// A certificate whose key was proven when the connection was made: its fingerprint.
    Key(&'h Digest),
}

/// Whether the clients of an API show who they are by certificates.
pub(crate) const fn takes_keys(kind: ApiKind) -> bool {
    matches!(kind, ApiKind::Lxd | ApiKind::Incus)
}

/// What has to be known of a machine before it can be said what a request changes.
struct Look {
    machine: MachineRef,
    /// And what of it beside what it is now.
    beside: Beside,
    /// Why it may ask more than one may expect.
    why: Option<&'static str>,
}

/// What a request asks.
pub(crate) struct Settled {
    pub(crate) verdict: Verdict,
    /// What it was told by: the hypervisor does it only where that is still so.
    pub(crate) mark: Option<HeaderValue>,
    /// Why it asks more than one may expect, in words for whoever is denied.
    pub(crate) why: Option<&'static str>,
}

impl From<Verdict> for Settled {
    fn from(verdict: Verdict) -> Self {
        Self { verdict, mark: None, why: None }
    }
}

const UNSEEN: &str = "The gateway could not compare it with what the machine is now, so it asks as much as if everything \
    became another: try again, or ask an administrator of this hypervisor.";
const BACK: &str = "Going back to this snapshot brings back settings that the machine does not have now and that others \
    gave or took away: ask an administrator of this hypervisor.";

const SAVED: &str = "The machine would go on with settings that it had when its memory was saved and that others gave or \
    took away since: ask an administrator of this hypervisor, or throw the saved memory away (virsh start --force-boot).";
const COPIED: &str = "The copy would have what this machine has of its host, its networks or its tags: ask an \
    administrator of this hypervisor.";

/// What a machine is could not be read.
struct Unseen;

/// What a machine is, and what is asked for beside that; nothing for somebody who may not see it.
async fn look_at(
    house: &House,
    actor: &Actor,
    machine: MachineRef,
    beside: &Beside,
) -> Result<Option<Standing>, Unseen> {
    let resource = Resource::Machine(machine);
    let sees = house.engine.may_see(actor, &resource, &house.fleet.inventory(), house.clock.now());
    let (Resource::Machine(machine), true) = (&resource, sees) else { return Ok(None) };
    house.fleet.standing(machine, beside).await.map(Some).map_err(|error| {
        tracing::info!(error = %chain(&error), "what a machine is could not be read: more is asked");
        Unseen
    })
}

/// Whether a verdict asks something beside its operation.
fn more(verdict: &Verdict) -> bool {
    matches!(verdict, Verdict::Operation { also, .. } if !also.is_empty())
}

/// What a copy of a machine asks, where making one with all that this one has is `made`: that and what the request asks.
fn copy(asked: Verdict, made: Verdict) -> Option<Verdict> {
    let Verdict::Operation { operation, mut also, answer } = asked else { return None };
    let Verdict::Operation { operation: making, also: brought, .. } = made else { return None };
    for more in std::iter::once(making).chain(brought) {
        if more != operation && !also.contains(&more) {
            also.push(more);
        }
    }
    Some(Verdict::Operation { operation, also, answer })
}

/// What copying a machine asks where it cannot be seen what it brings, and the machine whose disks are asked for.
fn copying(verdict: &Verdict) -> Option<(Verdict, MachineRef)> {
    let Verdict::Operation { operation, also, answer } = verdict else { return None };
    let source = also.iter().find_map(|o| match (&o.resource, o.action) {
        (Resource::Machine(machine), Action::Storage) => Some(machine.clone()),
        _ => None,
    })?;
    let host = Operation {
        action: Action::NodeAdmin,
        resource: Resource::Hypervisor(source.hypervisor.clone()),
        effect: operation.effect,
    };
    let mut also = also.clone();
    if !also.contains(&host) {
        also.push(host);
    }
    Some((Verdict::Operation { operation: operation.clone(), also, answer: *answer }, source))
}

/// What going back to a snapshot asks, where writing what becomes another is `verdict`: `snapshot`, and where that asks
/// more than `configure`, all of it.
fn back(verdict: Verdict) -> Option<Verdict> {
    let Verdict::Operation { operation, mut also, answer } = verdict else { return None };
    let Resource::Machine(_) = operation.resource else { return None };
    let snapshot = Operation { action: Action::Snapshot, ..operation.clone() };
    also.retain(|o| *o != snapshot && *o != operation);
    if !also.is_empty() {
        also.insert(0, operation);
    }
    Some(Verdict::Operation { operation: snapshot, also, answer })
}

/// Where a request goes, and from where.
#[derive(Clone, Copy)]
pub(crate) struct Way<'a> {
    pub(crate) house: &'a Arc<House>,
    pub(crate) hypervisor: &'a HypervisorName,
    pub(crate) kind: ApiKind,
    pub(crate) peer: Peer,
    /// The certificate that was shown, by its fingerprint; only where the API's clients show who they are by one.
    pub(crate) key: Option<&'a Digest>,
    pub(crate) written: Written,
}

impl Way<'_> {
    const fn speech(self) -> Speech {
        speech(self.kind)
    }

    /// Who calls, by what the head of the request shows. No second chance by another header, a cookie or a query.
    pub(crate) fn caller(self, method: &Method, headers: &HeaderMap) -> Result<Caller, Refusal> {
        let shown = (self.speech().shown)(headers, self.key);
        self.known(shown.as_ref(), Some(method))
    }

    fn known(self, shown: Option<&Shown<'_>>, method: Option<&Method>) -> Result<Caller, Refusal> {
        let Self { house, hypervisor, peer, .. } = self;
        Knock { house, hypervisor, peer }.known(shown, method)
    }

    /// The path of a request in the one form that is decided on and sent.
    pub(crate) fn path(self, raw: &str) -> Result<Canonical, Refusal> {
        let raw = (self.speech().path)(raw)?;
        classify::canonical(&raw).map_err(|e| Refusal::Bad(e.to_string()))
    }

    /// Whether a request is the dialect's own sign-in, or what its clients ask before it, which the gateway answers itself.
    pub(crate) fn is_sign_in(self, method: &Method, headers: &HeaderMap, path: &str) -> bool {
        (self.speech().is_sign_in)(method, path) && (!takes_keys(self.kind) || self.is_new(headers))
    }

    /// Whether somebody shows a certificate alone that stands for nobody who counts here.
    fn is_new(self, headers: &HeaderMap) -> bool {
        let Self { house, hypervisor, peer, key, .. } = self;
        matches!(lxd::shown(headers, key), Some(Shown::Key(key))
            if house.identity.key_actor(key, hypervisor, peer.ip).is_none())
    }

    /// What a request asks. Where that depends on what the machine is now, or was in a snapshot, the gateway looks, for
    /// nobody but those who may see the machine; where it cannot, all is asked that there could be.
    pub(crate) async fn settle(
        self,
        actor: &Arc<Actor>,
        table: &Table,
        asked: &classify::Asked<'_>,
        headers: &HeaderMap,
    ) -> Settled {
        let Self { house, hypervisor, peer, .. } = self;
        let speech = self.speech();
        let verdict = (speech.settle)(self, table.classify(hypervisor, asked), asked);
        let (verdict, look) = (speech.look)(verdict, asked);
        let Some(Look { machine, beside, why }) = look else { return verdict.into() };
        let actor = passage::from(Arc::clone(actor), peer);
        let standing = match look_at(house, &actor, machine, &beside).await {
            Ok(Some(standing)) => standing,
            Ok(None) => return verdict.into(),
            Err(Unseen) => return Settled { verdict, mark: None, why: Some(UNSEEN) },
        };
        match (speech.changed)(table, hypervisor, asked, &standing, headers) {
            Some(changed) => {
                let why = why.filter(|_| more(&changed));
                // What is made anew is none that could have become another one.
                let mark = standing.mark.filter(|_| asked.method != "POST");
                Settled { verdict: changed, mark, why }
            }
            None => Settled { verdict, mark: None, why: Some(UNSEEN) },
        }
    }

    /// Whether the head of a request says something that changes what is asked, and that nobody reviewed.
    pub(crate) fn check(self, headers: &HeaderMap) -> Result<(), Refusal> {
        (self.speech().check)(headers)
    }

    /// Whether a request ends what a sign-in gave, which the gateway does itself.
    pub(crate) fn is_sign_out(self, method: &Method, raw: &str) -> bool {
        (self.speech().is_sign_out)(method, raw)
    }

    /// Ends what a sign-in gave, by the head of a request.
    pub(crate) async fn leave(self, headers: &HeaderMap) -> Result<Response, Refusal> {
        let caller = self.caller(&Method::DELETE, headers)?;
        let subject = match &caller {
            Caller::Known(actor) => {
                self.house.pace_call(actor, self.hypervisor, self.peer)?;
                openstack::subject(headers).and_then(|pass| self.own_pass(actor, pass))
            }
            Caller::Stranger | Caller::Barred(..) => None,
        };
        self.end(caller, subject).await.map(|()| openstack::left())
    }

    /// The pass of somebody that a text is; none where it is nobody's or another person's.
    fn own_pass(self, actor: &Actor, pass: &str) -> Option<Pass> {
        let found = self.house.identity.pass_actor(pass, self.hypervisor, self.peer.ip)?;
        if found.user == actor.user { found.pass } else { None }
    }

    /// Ends a pass of whoever calls: it opens nothing from now on, and what it has open is closed. Stands in the trail.
    async fn end(self, caller: Caller, pass: Option<Pass>) -> Result<(), Refusal> {
        let Self { house, peer, .. } = self;
        let visit = Visit { kind: "api", peer, asked: Asked::Presence, trailed: Trailed::Yes, at: peer.at };
        let exit = async |passed: Passed| {
            let Some(open) = passed.open else {
                return Err(Refusal::Unavailable("The request lost its event on the way.".into()));
            };
            let Some(pass) = pass else {
                passage::end(open, Outcome::Failed, "no session of this API was named", &[]);
                return Err(Refusal::NotFound);
            };
            if let Err(error) = house.identity.end_pass(&pass).await {
                passage::end(open, Outcome::Failed, "it could not be written down that the session ended", &[]);
                return Err(house.unavailable(&error));
            }
            house.end_seats();
            passage::end(open, Outcome::Done, "signed out of the API", &[("pass", &pass.id.to_string())]);
            Ok(())
        };
        passage::walk(house, visit, std::future::ready(Ok(caller)), || std::future::ready(Ok(None)), exit).await
    }

    /// Ends the pass that somebody came by.
    async fn sign_out(self, actor: Arc<Actor>) -> Result<(), Refusal> {
        let pass = actor.pass;
        self.end(Caller::Known(actor), pass).await
    }

    /// Signs in by name and token, or by a ticket that is renewed: the answer holds a ticket of ours. Some sign out so, too.
    pub(crate) async fn sign_in(self, path: &str, authority: &str, said: &Content) -> Result<Response, Refusal> {
        let Self { house, hypervisor, kind, .. } = self;
        match (kind, said) {
            (ApiKind::Lxd | ApiKind::Incus, Content::Json(said)) => lxd::sign_in(self, path, said).await,
            (ApiKind::Ovirt, Content::Params(form)) => {
                let shown = ovirt::signing(path, form)?;
                if !ovirt::is_sign_out(path) {
                    return self.walk(&shown, |passed| ready(ovirt::signed_in(house, hypervisor, passed))).await;
                }
                let caller = self.known(Some(&shown), None)?;
                let pass = if let Caller::Known(actor) = &caller { actor.pass } else { None };
                self.end(caller, pass).await.map(|()| ovirt::signed_out())
            }
            (ApiKind::Ovirt, Content::Json(_)) => {
                Err(Refusal::Bad("Sign in with a form: application/x-www-form-urlencoded.".into()))
            }
            (ApiKind::Proxmox, Content::Params(form)) => {
                let name = form.value("username").unwrap_or_default();
                let shown = proxmox::signing_in(name, form.value("password").unwrap_or_default());
                self.walk(&shown, |passed| ready(proxmox::signed_in(house, hypervisor, name, passed))).await
            }
            (ApiKind::OpenStack, Content::Json(said)) => {
                if let Some(versions) = openstack::versions(path, authority) {
                    return Ok(versions);
                }
                let shown = openstack::signing_in(said)?;
                self.walk(&shown, |passed| ready(openstack::signed_in(house, hypervisor, said, authority, passed)))
                    .await
            }
            _ => Err(Refusal::Unknown),
        }
    }

    async fn walk<X>(self, shown: &Shown<'_>, answer: impl FnOnce(Passed) -> X) -> Result<Response, Refusal>
    where
        X: Future<Output = Result<Response, Refusal>>,
    {
        let Self { house, hypervisor, peer, .. } = self;
        let caller = self.known(Some(shown), None)?;
        if let Caller::Known(actor) = &caller {
            house.pace_call(actor, hypervisor, peer)?;
        }
        let visit = Visit { kind: "api", peer, asked: Asked::Presence, trailed: Trailed::Yes, at: peer.at };
        passage::walk(house, visit, ready(Ok(caller)), || ready(Ok(None)), answer).await
    }

    /// A refusal as the API's own clients read it, beside the fields of RFC 9457.
    pub(crate) fn refuse(self, refusal: &Refusal) -> Response {
        let (title, detail) = refusal.words();
        let said = format!("{title}: {detail}");
        let speech = self.speech();
        let request = self.peer.request;
        let (body, media_type) = match self.written {
            Written::Json => ((speech.refusal)(refusal, &said, request).to_string(), "application/json"),
            Written::Xml => (ovirt::fault(refusal, request), "application/xml"),
            Written::Valued => {
                (vsphere::rest::refusal(refusal, vsphere::rest::Form::Old).to_string(), "application/json")
            }
        };
        let mut answer = refusal.problem(request).map(|_| Body::from(body));
        answer.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static(media_type));
        if speech.reads == Reads::StatusLine
            && let Ok(reason) = ReasonPhrase::try_from(in_a_line(&said))
        {
            answer.extensions_mut().insert(reason);
        }
        answer
    }
}

/// Somebody at a hypervisor's door, whatever is spoken behind it.
#[derive(Clone, Copy)]
struct Knock<'a> {
    house: &'a Arc<House>,
    hypervisor: &'a HypervisorName,
    peer: Peer,
}

impl Knock<'_> {
    /// Who shows this. Strangers, and whoever is turned away, count against their network's pace.
    fn known(self, shown: Option<&Shown<'_>>, method: Option<&Method>) -> Result<Caller, Refusal> {
        let Self { house, hypervisor, peer } = self;
        let actor = shown.and_then(|shown| self.actor(shown, method));
        match actor {
            Some(actor) if actor.scope.as_ref().is_none_or(|scope| scope == hypervisor) => Ok(Caller::Known(actor)),
            _ if house.strangers.check(peer.ip) => {
                let elsewhere = match shown {
                    Some(Shown::Token(token, _)) => house.identity.token_elsewhere(token, peer.ip),
                    Some(Shown::Key(key)) => house.identity.key_elsewhere(key, hypervisor, peer.ip),
                    Some(Shown::Ticket(..) | Shown::Pass(_)) | None => None,
                };
                Ok(elsewhere
                    .map_or(Caller::Stranger, |owner| Caller::Barred(owner, "the token is bound to other networks")))
            }
            _ => {
                house.strangers.refused(peer.ip);
                Err(Refusal::TooMany(5))
            }
        }
    }

    fn actor(self, shown: &Shown<'_>, method: Option<&Method>) -> Option<Arc<Actor>> {
        let Self { house, hypervisor, peer } = self;
        match shown {
            Shown::Token(token, name) => {
                let actor = house.identity.token_actor(token, peer.ip)?;
                name.is_none_or(|name| is_name(name, &actor)).then_some(actor)
            }
            Shown::Pass(pass) => house.identity.pass_actor(pass, hypervisor, peer.ip),
            Shown::Key(key) => house.identity.key_actor(key, hypervisor, peer.ip),
            Shown::Ticket(ticket, guard) => {
                let (name, pass) = proxmox::pass(ticket)?;
                let actor = house.identity.pass_actor(pass, hypervisor, peer.ip)?;
                let reads = method.is_none_or(|m| *m == Method::GET);
                let is_guarded = reads || guard.is_some_and(|guard| house.identity.is_guard(guard, pass, hypervisor));
                (is_guarded && is_name(name, &actor)).then_some(actor)
            }
        }
    }
}

/// A path without the slash that some clients write at its end.
fn without_slash(raw: &str) -> Cow<'_, str> {
    match raw.strip_suffix('/') {
        Some(rest) if !rest.is_empty() && !rest.ends_with('/') => Cow::Borrowed(rest),
        _ => Cow::Borrowed(raw),
    }
}

/// Somebody who signed in: who it is, the pass that stands for their token from now on, and the event, still open.
fn signed_in(
    house: &House,
    hypervisor: &HypervisorName,
    passed: Passed,
) -> Result<(Arc<Actor>, Secret, OpenEntry), Refusal> {
    let (Some(actor), Some(open)) = (passed.actor, passed.open) else {
        return Err(Refusal::Unavailable("The request lost its event on the way.".into()));
    };
    match house.identity.mint_pass(&actor, hypervisor) {
        Ok(Some(pass)) => Ok((actor, pass, open)),
        Ok(None) => {
            passage::end(open, Outcome::Denied, "only a token for tools signs in here", &[]);
            Err(Refusal::Unknown)
        }
        Err(error) => {
            passage::end(open, Outcome::Failed, "no pass could be made", &[]);
            Err(house.unavailable(&error))
        }
    }
}

/// Words as a status line takes them.
fn in_a_line(words: &str) -> String {
    words.chars().map(|c| if c.is_ascii_graphic() || c == ' ' { c } else { '?' }).take(500).collect()
}

/// The one `Authorization` there is.
fn authorization(headers: &HeaderMap) -> Option<&str> {
    let mut all = headers.get_all(header::AUTHORIZATION).iter();
    match (all.next(), all.next()) {
        (Some(one), None) => one.to_str().ok(),
        _ => None,
    }
}

/// Whether a page in a browser asks: what a browser shows by itself, it shows for any page that makes it ask.
fn is_of_page(headers: &HeaderMap) -> bool {
    headers.contains_key(header::ORIGIN) || headers.contains_key("sec-fetch-site")
}

fn bearer(headers: &HeaderMap) -> Option<&str> {
    authorization(headers)?.strip_prefix("Bearer ")
}

/// Whether `name@realm`, or the bare name, is somebody's.
fn is_name(said: &str, actor: &Actor) -> bool {
    let bare = said.rsplit_once('@').map_or(said, |(name, _)| name);
    [said, bare].contains(&&*actor.name)
}

#[cfg(test)]
mod tests {
    #[test]
    fn a_slash_at_the_end_is_none() {
        for (raw, path) in [("/v2.1/", "/v2.1"), ("/", "/"), ("/a//", "/a//"), ("/a", "/a"), ("//", "//")] {
            assert_eq!(super::without_slash(raw), path);
        }
    }
}
