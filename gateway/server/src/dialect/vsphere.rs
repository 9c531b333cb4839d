// SPDX-License-Identifier: Apache-2.0
//! vSphere's own ways: SOAP at `POST /sdk`, and REST beside it ([`rest`]). Clients ask what the server is, sign in with `Login`, which the gateway answers
//! itself, and show a cookie of ours from then on. Each has a session of its own with the hypervisor. A refusal is a fault
//! that clients know: `NotAuthenticated`, `InvalidLogin`, `NoPermission`, `ManagedObjectNotFound`.

pub(crate) mod rest;

use super::{Shown, Way};
use crate::{
    body::{Body, Response},
    leash::Leash,
    passage::{self, Asked, Caller, Passed, Trailed, Visit, end},
    reply::{self, Refusal},
    state::House,
};
use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Method, Request, StatusCode, header};
use http_body_util::{BodyExt as _, LengthLimitError, Limited};
use hyper::body::Incoming;
use portcullis_domain::{Action, Actor, Effect, HypervisorName, Operation, Outcome, Resource};
use portcullis_policy::{
    Decision,
    classify::soap::{self, ABSENT, Call, Element, MAX_CALL, Methods, Reference, Space, Told},
};
use portcullis_upstream::{Calling, Seat, Sight, Wait};
use std::{sync::Arc, time::Duration};
use time::{OffsetDateTime, format_description::well_known::Rfc3339};

/// Where calls go, and where it stands which releases are spoken.
const CALLS: [&str; 2] = ["/sdk", "/sdk/"];
const RELEASES: &str = "/sdk/vimServiceVersions.xml";
/// The cookie of a session.
const COOKIE: &str = "vmware_soap_session";
/// What a session's own objects are named after, and what it is called.
const KEY: &str = "portcullis";
/// How long a call may take to arrive.
const BODY: Duration = Duration::from_secs(10);
/// The largest call of somebody who is not known, in bytes.
const OF_STRANGER: usize = 16 * 1024;

/// Whether a request is answered here: a call, or the list of releases. Everything else is no SOAP.
pub(crate) fn is_call<B>(request: &Request<B>) -> bool {
    match *request.method() {
        Method::POST => CALLS.contains(&request.uri().path()),
        Method::GET => request.uri().path() == RELEASES,
        _ => false,
    }
}

/// The pass in the one cookie that counts. A browser is not believed: it sends cookies by itself.
pub(super) fn shown(headers: &HeaderMap) -> Option<&str> {
    if headers.contains_key(header::ORIGIN) || headers.contains_key("sec-fetch-site") {
        return None;
    }
    let cookies = headers.get_all(header::COOKIE).iter().filter_map(|v| v.to_str().ok());
    let mut ours = cookies.flat_map(|v| v.split(';')).filter_map(|pair| {
        let (name, value) = pair.trim().split_once('=')?;
        (name == COOKIE).then(|| value.trim_matches('"'))
    });
    let (Some(pass), None) = (ours.next(), ours.next()) else { return None };
    Some(pass)
}

/// Answers a call, or the list of releases.
pub(crate) async fn answer(way: Way<'_>, request: Request<Incoming>) -> Response {
    if *request.method() == Method::GET {
        return releases(way).unwrap_or_else(|refusal| way.refuse(&refusal));
    }
    match call(way, request).await {
        Ok(answer) => answer,
        Err(Refused { refusal, this }) => fault(&refusal, this.as_ref()),
    }
}

/// A refusal, and what the call was called on.
struct Refused {
    refusal: Refusal,
    this: Option<Reference>,
}

impl From<Refusal> for Refused {
    fn from(refusal: Refusal) -> Self {
        Self { refusal, this: None }
    }
}

async fn call(way: Way<'_>, request: Request<Incoming>) -> Result<Response, Refused> {
    let Way { house, hypervisor, peer, .. } = way;
    let (head, body) = request.into_parts();
    if head.uri.query().is_some() || head.headers.contains_key(header::UPGRADE) {
        return Err(Refusal::Bad("A call has neither a query nor another protocol.".into()).into());
    }
    let shown = shown(&head.headers);
    let caller = way.known(shown.map(Shown::Pass).as_ref(), None)?;
    let most = if matches!(caller, Caller::Known(_)) { MAX_CALL } else { OF_STRANGER };
    let bytes = read(body, most).await?;
    let action = one(&head.headers, "soapaction")?;
    let is_packed = head.headers.contains_key(header::CONTENT_ENCODING);
    let read = if is_packed { Err("The call is packed, so it cannot be read.") } else { Call::read(&bytes, action) };
    let release = action.and_then(soap::version).unwrap_or_default();
    match (caller, read) {
        (Caller::Known(actor), Ok(call)) => {
            house.pace_call_patiently(&actor, hypervisor, peer).await?;
            let this = call.this.clone();
            let done = match (call.method.as_str(), actor.pass) {
                ("Login", _) => sign_in(way, &call).await,
                ("Logout", _) => way.sign_out(actor).await.map(|()| left()),
                // Of the gateway's session there, which may be another one by now, nothing is told.
                (_, Some(pass)) if asks_session(&call) => {
                    Ok(session_of(&call, &own_session(house, &actor, pass.made_at)))
                }
                (_, Some(pass)) => {
                    let seat = Seat { user: actor.user, pass };
                    forward(way, actor, &call, seat, release).await
                }
                (_, None) => Err(Refusal::Unknown),
            };
            done.map_err(|refusal| Refused { refusal, this: Some(this) })
        }
        (Caller::Known(actor), Err(why)) => {
            house.pace_call_patiently(&actor, hypervisor, peer).await?;
            let asked = Asked::Denied(why.to_owned());
            Err(walk_nowhere(way, Caller::Known(actor), asked).await.into())
        }
        // The least that a client needs to sign in.
        (_, Ok(call)) if call.method == "RetrieveServiceContent" => Ok(content(way)?),
        // Those that keep a session ask whether it counts still: of one that does not there is nothing to say.
        (_, Ok(call)) if asks_session(&call) => Ok(session_of(&call, &[])),
        (_, Ok(call)) if call.method == "Login" => {
            let this = Some(call.this.clone());
            sign_in(way, &call).await.map_err(|refusal| Refused { refusal, this })
        }
        (caller, Ok(call)) => {
            let this = Some(call.this);
            Err(Refused { refusal: walk_nowhere(way, caller, Asked::Presence).await, this })
        }
        (caller, Err(_)) => Err(walk_nowhere(way, caller, Asked::Presence).await.into()),
    }
}

/// Whether a call asks for the session that it is in, and for nothing else.
fn asks_session(call: &Call) -> bool {
    const OF: &str = "SessionManager";
    const WHAT: &str = "currentSession";
    let only = |element: &Element, name: &str, text: &str| {
        let mut all = element.all(name);
        all.next().is_some_and(|e| e.text == text && e.children.is_empty()) && all.next().is_none()
    };
    match call.method.as_str() {
        "Fetch" => call.this.of == OF && call.argument("prop").is_some_and(|p| p.text == WHAT),
        "RetrieveProperties" | "RetrievePropertiesEx" => {
            let Some(set) = call.argument("specSet") else { return false };
            let [wanted, of] = ["propSet", "objectSet"].map(|name| set.child(name));
            let (Some(wanted), Some(of)) = (wanted, of) else { return false };
            let object = of.child("obj").and_then(Element::as_reference);
            let is_alone = set.children.len() == 2 && of.all("selectSet").next().is_none();
            is_alone
                && only(wanted, "type", OF)
                && only(wanted, "pathSet", WHAT)
                && object.is_some_and(|object| object.of == OF)
        }
        _ => false,
    }
}

/// What somebody is told of their own session: nothing of the gateway's with the hypervisor.
fn own_session(house: &House, actor: &Actor, since: OffsetDateTime) -> Vec<Element> {
    let written = |at: OffsetDateTime| at.format(&Rfc3339).unwrap_or_default();
    let (since, now) = (written(since), written(house.clock.now()));
    let said = [
        ("key", KEY),
        ("userName", &*actor.name),
        ("fullName", &*actor.name),
        ("loginTime", &since),
        ("lastActiveTime", &now),
        ("locale", "en"),
        ("messageLocale", "en"),
    ];
    said.iter().map(|(name, text)| Element::text(name, text)).collect()
}

/// The answer to whoever asks for the session that they are in; nothing is the session of whoever has none.
fn session_of(call: &Call, session: &[Element]) -> Response {
    let value = |name: &str| {
        let value = || Element::of_children(name, session.to_vec()).typed("UserSession");
        (!session.is_empty()).then(value)
    };
    let object = || {
        let of = call.argument("specSet")?.child("objectSet")?.child("obj")?.as_reference()?;
        let property = value("val").map(|value| vec![Element::text("name", "currentSession"), value]);
        let property = property.map(|parts| Element::of_children("propSet", parts));
        Some([Element::reference("obj", &of.of, &of.id)].into_iter().chain(property).collect())
    };
    let returned = match (call.method.as_str(), object()) {
        ("Fetch", _) => value("returnval").into_iter().collect(),
        ("RetrieveProperties", Some(object)) => vec![Element::of_children("returnval", object)],
        ("RetrievePropertiesEx", Some(object)) => {
            vec![Element::of_children("returnval", vec![Element::of_children("objects", object)])]
        }
        _ => Vec::new(),
    };
    envelope(StatusCode::OK, Element::of_children(&format!("{}Response", call.method), returned))
}

/// The one value of a header.
fn one<'h>(headers: &'h HeaderMap, name: &str) -> Result<Option<&'h str>, Refusal> {
    let mut all = headers.get_all(name).iter();
    match (all.next(), all.next()) {
        (None, _) => Ok(None),
        (Some(value), None) => {
            value.to_str().map(Some).map_err(|_| Refusal::Bad(format!("The header {name} cannot be read.")))
        }
        (Some(_), Some(_)) => Err(Refusal::Bad(format!("The header {name} comes twice."))),
    }
}

async fn read(body: Incoming, most: usize) -> Result<Bytes, Refusal> {
    match tokio::time::timeout(BODY, Limited::new(body, most).collect()).await {
        Ok(Ok(all)) => Ok(all.to_bytes()),
        Ok(Err(error)) if error.is::<LengthLimitError>() => Err(Refusal::TooLarge(most)),
        Ok(Err(_)) | Err(_) => Err(Refusal::Bad("The call broke off.".into())),
    }
}

/// A visit that ends in a refusal, which stands in the trail.
async fn walk_nowhere(way: Way<'_>, caller: Caller, asked: Asked) -> Refusal {
    let visit = Visit { kind: "api", peer: way.peer, asked, trailed: Trailed::Yes, at: way.peer.at };
    let nowhere = |passed: Passed| {
        if let Some(open) = passed.open {
            end(open, Outcome::Denied, "nothing was asked", &[]);
        }
        std::future::ready(Err::<Response, _>(Refusal::Unknown))
    };
    let walked =
        passage::walk(way.house, visit, std::future::ready(Ok(caller)), || std::future::ready(Ok(None)), nowhere).await;
    walked.err().unwrap_or(Refusal::Unknown)
}

/// Signs in by name and token.
async fn sign_in(way: Way<'_>, call: &Call) -> Result<Response, Refusal> {
    let Way { house, hypervisor, .. } = way;
    let text = |name: &str| call.argument(name).map(|a| a.text.as_str()).unwrap_or_default();
    let (name, token) = (text("userName"), text("password"));
    way.walk(&Shown::Token(token, Some(name)), |passed| std::future::ready(signed_in(house, hypervisor, passed))).await
}

fn signed_in(house: &House, hypervisor: &HypervisorName, passed: Passed) -> Result<Response, Refusal> {
    let (actor, pass, open) = super::signed_in(house, hypervisor, passed)?;
    let pass = pass.expose_text().unwrap_or_default();
    let returned = Element::of_children("returnval", own_session(house, &actor, house.clock.now()));
    end(open, Outcome::Done, "signed in to the API", &[]);
    let mut answer = envelope(StatusCode::OK, Element::of_children("LoginResponse", vec![returned]));
    let cookie = format!("{COOKIE}=\"{pass}\"; Path=/; HttpOnly; Secure");
    let mut cookie = HeaderValue::from_str(&cookie).map_err(|_| Refusal::Unknown)?;
    cookie.set_sensitive(true);
    answer.headers_mut().insert(header::SET_COOKIE, cookie);
    Ok(answer)
}

fn left() -> Response {
    envelope(StatusCode::OK, Element::of_children("LogoutResponse", Vec::new()))
}

/// What somebody sees of a hypervisor. A machine that is forbidden to them is hidden whatever else they hold.
fn sight(house: &House, hypervisor: &HypervisorName, actor: &Actor) -> Sight {
    let (inventory, now) = (house.fleet.inventory(), house.clock.now());
    let holds = |action: &Action| {
        let resource = Resource::Hypervisor(hypervisor.clone());
        let asked = Operation { action: *action, resource, effect: Effect::Safe };
        matches!(house.engine.decide(actor, &asked, &inventory, now), Decision::Permit(_))
    };
    let holds: Vec<Action> = Action::ALL.iter().copied().filter(holds).collect();
    if holds.contains(&Action::View) && house.engine.sees_every(actor, hypervisor, now) {
        return Sight { holds, part: None };
    }
    let machines = house.engine.visible(actor, &inventory, now);
    let here: Vec<_> = machines.iter().map(|m| &m.at).filter(|at| at.hypervisor == *hypervisor).collect();
    Sight { holds, part: Some(house.fleet.part(hypervisor, &here, actor.user)) }
}

/// What a call asks of somebody.
fn asked(way: Way<'_>, actor: &Actor, call: &Call) -> Asked {
    let Way { house, hypervisor, peer, .. } = way;
    let told = Methods::builtin().classify(hypervisor, call, &house.fleet.owners(hypervisor));
    match told {
        Told::Operation { operation, also } => Asked::Operation(operation, also),
        Told::Visible { named, also } => {
            let seen = sight(house, hypervisor, actor);
            // What is named and not seen does not exist.
            if named.iter().all(|r| seen.has(r)) {
                Asked::Operation(house.visible(hypervisor, actor, peer.at), also)
            } else {
                Asked::Denied(ABSENT.to_owned())
            }
        }
        Told::Task { id, other } => match house.fleet.began_object(hypervisor, &id, actor.user) {
            Some(resource) => {
                Asked::Operation(Operation { action: Action::View, resource, effect: Effect::Unsafe }, Vec::new())
            }
            None => Asked::Operation(other, Vec::new()),
        },
        Told::Denied(why) => Asked::Denied(why.into_owned()),
    }
}

async fn forward(way: Way<'_>, actor: Arc<Actor>, call: &Call, seat: Seat, release: &str) -> Result<Response, Refusal> {
    let Way { house, hypervisor, peer, .. } = way;
    // Decided as whoever asks from there: grants may count from some networks only.
    let mut from = Arc::clone(&actor);
    Arc::make_mut(&mut from).from = Some(peer.ip);
    let visit = Visit { kind: "api", peer, asked: asked(way, &from, call), trailed: Trailed::Yes, at: peer.at };
    let caller = std::future::ready(Ok(Caller::Known(actor)));
    let exit = async |passed: Passed| {
        let Passed { actor: Some(actor), permit: Some(permit), open: Some(open) } = passed else {
            return Err(Refusal::Unavailable("The request lost its permit on the way.".into()));
        };
        let is_long = matches!(call.method.as_str(), "WaitForUpdatesEx" | "WaitForUpdates");
        let wait = if is_long { Wait::Updates } else { Wait::Usual };
        let leash = Leash::new(house, permit, Arc::clone(&actor));
        let method = [("method", call.method.as_str())];
        let told = tokio::select! {
            told = house.fleet.call(leash.permit(), Calling { call, seat, release, wait }) => told,
            reason = leash.lost() => {
                end(open, Outcome::Failed, &format!("access ended: {reason}"), &method);
                return Err(Refusal::Unknown);
            }
            () = house.closing.cancelled() => {
                end(open, Outcome::Failed, "the gateway is shutting down", &method);
                return Err(Refusal::Unavailable("The gateway is shutting down.".into()));
            }
        };
        let reply = match told {
            Ok(reply) => reply,
            Err(error) => {
                let refusal = reply::upstream(&error);
                end(open, Outcome::Failed, &refusal.words().1, &method);
                return Err(refusal);
            }
        };
        // Whoever waited for an hour may see something else by now.
        if let Some(reason) = leash.pulled() {
            end(open, Outcome::Failed, &format!("access ended: {reason}"), &method);
            return Err(Refusal::Unknown);
        }
        // In the one way that what is hidden is answered, too.
        if reply.is_absent() {
            end(open, Outcome::Failed, ABSENT, &method);
            return Err(Refusal::NotFound);
        }
        let is_fault = reply.is_fault();
        let status = if is_fault { StatusCode::INTERNAL_SERVER_ERROR } else { StatusCode::OK };
        let text = reply.shown(call, &sight(house, hypervisor, &actor));
        let outcome = if is_fault { Outcome::Failed } else { Outcome::Done };
        let bytes = text.len().to_string();
        end(open, outcome, "", &[("method", &call.method), ("status", status.as_str()), ("bytes", &bytes)]);
        Ok(xml(status, text))
    };
    passage::walk(house, visit, caller, || std::future::ready(Ok(None)), exit).await
}

/// What the server is, for those who are not known yet. From memory: nobody reaches the hypervisor by it.
fn content(way: Way<'_>) -> Result<Response, Refusal> {
    let face = way.house.fleet.face(way.hypervisor);
    let face = face.ok_or_else(|| Refusal::Unavailable("The hypervisor does not answer.".into()))?;
    let service = |name: &str| face.services.iter().find(|(n, _)| n == name).map(|(_, r)| r);
    let reference = |name: &str| service(name).map(|r| Element::reference(name, &r.of, &r.id));
    let about = face.about.iter().map(|(name, text)| Element::text(name, text)).collect();
    let mut parts: Vec<Element> =
        ["rootFolder", "propertyCollector", "viewManager"].iter().filter_map(|n| reference(n)).collect();
    parts.push(Element::of_children("about", about));
    parts.extend(["sessionManager", "searchIndex"].iter().filter_map(|n| reference(n)));
    let returned = Element::of_children("returnval", parts);
    Ok(envelope(StatusCode::OK, Element::of_children("RetrieveServiceContentResponse", vec![returned])))
}

/// Which releases are spoken, for clients that choose one before they sign in.
fn releases(way: Way<'_>) -> Result<Response, Refusal> {
    let Way { house, hypervisor, peer, .. } = way;
    if !house.strangers.check(peer.ip) {
        house.strangers.refused(peer.ip);
        return Err(Refusal::TooMany(5));
    }
    let face = house.fleet.face(hypervisor);
    let face = face.ok_or_else(|| Refusal::Unavailable("The hypervisor does not answer.".into()))?;
    // Releases are letters, digits and dots.
    let mut text = format!(
        "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<namespaces version=\"1.0\"><namespace><name>urn:vim25</name>\
         <version>{}</version><priorVersions>",
        face.release
    );
    for release in &face.older {
        text.push_str("<version>");
        text.push_str(release);
        text.push_str("</version>");
    }
    text.push_str("</priorVersions></namespace></namespaces>");
    Ok(xml(StatusCode::OK, text))
}

/// A refusal as clients of this API know it.
fn fault(refusal: &Refusal, this: Option<&Reference>) -> Response {
    let (title, detail) = refusal.words();
    let root = Reference { of: "ServiceInstance".to_owned(), id: "ServiceInstance".to_owned() };
    let this = this.unwrap_or(&root);
    let object = |name: &str| Element::reference(name, &this.of, &this.id);
    let no_permission = || vec![object("object"), Element::text("privilegeId", "System.View")];
    let is_absent = matches!(refusal, Refusal::NotFound) || matches!(refusal, Refusal::Forbidden(w) if w == ABSENT);
    let is_login = this.of == "SessionManager";
    let (kind, parts) = match refusal {
        _ if is_absent => ("ManagedObjectNotFound", vec![object("obj")]),
        Refusal::Unknown if is_login => ("InvalidLogin", Vec::new()),
        Refusal::Unknown => ("NotAuthenticated", no_permission()),
        Refusal::Forbidden(_) | Refusal::Locked(_) | Refusal::StepUp | Refusal::Banner | Refusal::Foreign => {
            ("NoPermission", no_permission())
        }
        Refusal::Bad(_) | Refusal::TooLarge(_) | Refusal::HeadTooLarge | Refusal::Method => {
            ("InvalidRequest", Vec::new())
        }
        Refusal::NotFound
        | Refusal::TooMany(_)
        | Refusal::Misdirected
        | Refusal::Unavailable(_)
        | Refusal::Upstream(_)
        | Refusal::UpstreamSlow(_)
        | Refusal::Conflict(_) => ("HostCommunication", Vec::new()),
    };
    // What is hidden is answered in the one way that what is absent is.
    let words = if is_absent { ABSENT.to_owned() } else { format!("{title}: {detail}") };
    let bare = |name: &str, text: &str| Element { text: text.to_owned(), ..Element::new(Space::Bare, name) };
    let detail = Element::of_children(&format!("{kind}Fault"), parts).typed(kind);
    let detail = Element { children: vec![detail], ..Element::new(Space::Bare, "detail") };
    let parts = vec![bare("faultcode", "ServerFaultCode"), bare("faultstring", &words), detail];
    // Clients look for a fault in nothing else than a 500 (SOAP 1.1, section 6.2).
    let fault = Element { children: parts, ..Element::new(Space::Envelope, "Fault") };
    envelope(StatusCode::INTERNAL_SERVER_ERROR, fault)
}

fn envelope(status: StatusCode, inner: Element) -> Response {
    xml(status, soap::envelope(inner).document())
}

fn xml(status: StatusCode, text: String) -> Response {
    let mut answer = Response::new(Body::from(text));
    *answer.status_mut() = status;
    let headers = answer.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("text/xml; charset=utf-8"));
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    answer
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cookie(pairs: &[(&'static str, &str)]) -> Option<String> {
        let mut headers = HeaderMap::new();
        for (name, value) in pairs {
            headers.append(*name, value.parse().expect("a value"));
        }
        shown(&headers).map(str::to_owned)
    }

    #[test]
    fn one_cookie_counts_as_clients_send_it_and_none_of_a_browser() {
        let good = Some("p.q.r");
        for value in [
            "vmware_soap_session=p.q.r",
            "vmware_soap_session=\"p.q.r\"",
            // pyvmomi sends back the whole of what it was given.
            "vmware_soap_session=\"p.q.r\"; Path=/; HttpOnly; Secure",
            "other=x; vmware_soap_session=p.q.r",
        ] {
            assert_eq!(cookie(&[("cookie", value)]).as_deref(), good, "{value}");
        }
        let one = ("cookie", "vmware_soap_session=p.q.r");
        for none in [
            &[][..],
            &[one, one],
            &[("cookie", "vmware_soap_session=p.q.r; vmware_soap_session=p.q.s")],
            &[("cookie", "__Host-portcullis=p.q.r")],
            &[one, ("origin", "https://evil.example")],
            &[one, ("sec-fetch-site", "same-origin")],
        ] {
            assert_eq!(cookie(none), None, "{none:?}");
        }
    }

    #[test]
    fn a_refusal_is_the_fault_that_clients_know() {
        let machine = Reference { of: "VirtualMachine".to_owned(), id: "vm-1".to_owned() };
        let sessions = Reference { of: "SessionManager".to_owned(), id: "s".to_owned() };
        let kind = |refusal: &Refusal, this: &Reference| {
            let answer = fault(refusal, Some(this));
            assert_eq!(answer.status(), StatusCode::INTERNAL_SERVER_ERROR);
            let Body::Whole(Some(bytes)) = answer.into_body() else { panic!("a whole answer") };
            String::from_utf8(bytes.to_vec()).expect("text")
        };
        for (refusal, this, wanted) in [
            (Refusal::Unknown, &sessions, "InvalidLogin"),
            (Refusal::Unknown, &machine, "NotAuthenticated"),
            (Refusal::Forbidden("no".into()), &machine, "NoPermission"),
            (Refusal::StepUp, &machine, "NoPermission"),
            (Refusal::Locked("locked".into()), &machine, "NoPermission"),
            (Refusal::Bad("bad".into()), &machine, "InvalidRequest"),
            (Refusal::Upstream("broken".into()), &machine, "HostCommunication"),
        ] {
            let text = kind(&refusal, this);
            assert!(text.contains(&format!("xsi:type=\"vim25:{wanted}\"")), "{wanted}: {text}");
        }
        // Hidden and absent are one answer.
        assert_eq!(kind(&Refusal::NotFound, &machine), kind(&Refusal::Forbidden(ABSENT.into()), &machine));
        assert!(kind(&Refusal::NotFound, &machine).contains("vim25:ManagedObjectNotFound"));
    }

    #[test]
    fn whoever_has_no_session_hears_that_and_nothing_else() {
        let call = |method: &str, this: &str, arguments: &str| {
            let text = format!(
                "<e:Envelope xmlns:e='http://schemas.xmlsoap.org/soap/envelope/'><e:Body><{method} xmlns='urn:vim25'>
                 <_this type='{this}'>x</_this>{arguments}</{method}></e:Body></e:Envelope>"
            );
            Call::read(text.replace("\n                 ", "").as_bytes(), None).expect("a call")
        };
        let spec = |of: &str, path: &str, object: &str, more: &str| {
            format!(
                "<specSet><propSet><type>{of}</type><pathSet>{path}</pathSet>{more}</propSet><objectSet>\
                 <obj type='{object}'>SessionManager</obj><skip>false</skip></objectSet></specSet>"
            )
        };
        let whole = spec("SessionManager", "currentSession", "SessionManager", "");
        for asked in [
            call("Fetch", "SessionManager", "<prop>currentSession</prop>"),
            call("RetrieveProperties", "PropertyCollector", &whole),
            call("RetrievePropertiesEx", "PropertyCollector", &whole),
        ] {
            assert!(asks_session(&asked), "{asked:?}");
            let text = |session: &[Element]| {
                let Body::Whole(Some(bytes)) = session_of(&asked, session).into_body() else {
                    panic!("a whole answer")
                };
                String::from_utf8(bytes.to_vec()).expect("text")
            };
            let (none, one) = (text(&[]), text(&[Element::text("userName", "ada")]));
            assert!(none.contains(&format!("{}Response", asked.method)) && !none.contains("UserSession"), "{none}");
            let value = "xsi:type=\"vim25:UserSession\"><userName>ada</userName></";
            assert!(
                one.contains(value) && one.contains("<name>currentSession</name>") != (asked.method == "Fetch"),
                "{one}"
            );
        }
        for other in [
            call("Fetch", "SessionManager", "<prop>sessionList</prop>"),
            call("Fetch", "VirtualMachine", "<prop>currentSession</prop>"),
            call(
                "RetrieveProperties",
                "PropertyCollector",
                &spec("SessionManager", "sessionList", "SessionManager", ""),
            ),
            call("RetrieveProperties", "PropertyCollector", &spec("SessionManager", "currentSession", "Folder", "")),
            call("RetrieveProperties", "PropertyCollector", &spec("Folder", "currentSession", "SessionManager", "")),
            call(
                "RetrieveProperties",
                "PropertyCollector",
                &spec("SessionManager", "currentSession", "SessionManager", "<pathSet>sessionList</pathSet>"),
            ),
            call("RetrieveProperties", "PropertyCollector", &format!("{whole}{whole}")),
        ] {
            assert!(!asks_session(&other), "{other:?}");
        }
    }

    #[test]
    fn only_calls_and_the_list_of_releases_are_answered_here() {
        let is = |method: &str, path: &str| {
            is_call(&Request::builder().method(method).uri(path).body(()).expect("a request"))
        };
        assert!(is("POST", "/sdk") && is("POST", "/sdk/") && is("GET", "/sdk/vimServiceVersions.xml"));
        for (method, path) in
            [("GET", "/sdk"), ("PUT", "/sdk"), ("POST", "/sdk/vim25/8.0/x"), ("POST", "/pbm"), ("POST", "//sdk")]
        {
            assert!(!is(method, path), "{method} {path}");
        }
    }
}
