// SPDX-License-Identifier: Apache-2.0
//! vSphere's Automation API: `/api` since 7.0 U2, `/rest` before. Clients sign in by name and token, which the gateway
//! answers itself, and show the text that they are given from then on, in a header or a cookie. Each has a session of its
//! own with the hypervisor, which nobody is shown. A refusal is written as the form of the API writes it.

use super::{OF_STRANGER, read, sight};
use crate::{
    api::{self, Going},
    body::{Body, Response, Sent},
    dialect::{Shown, Way, authorization, is_of_page, signed_in},
    leash::Leash,
    passage::{self, Asked, Caller, Passed, Trailed, Visit, end},
    reply::{self, Refusal},
};
use base64::{Engine as _, engine::general_purpose::STANDARD};
use http::{HeaderMap, HeaderName, HeaderValue, Method, Request, StatusCode, header};
use http_body_util::Full;
use hyper::body::Incoming;
use portcullis_audit::OpenEntry;
use portcullis_domain::{Actor, Outcome};
use portcullis_policy::classify::{Answer, Upgrade};
use portcullis_upstream::{Answer as Got, RequestContext, Seat, Seated};
use serde_json::{Value, json};
use std::{future::ready, sync::Arc};
use time::format_description::well_known::Rfc3339;

/// What a session is shown as: a header, or a cookie of the same name.
const SESSION: HeaderName = HeaderName::from_static("vmware-api-session-id");
/// Said by clients that want no cookie.
const NO_COOKIE: &str = "vmware-use-header-authn";
const NEW: &str = "/api/session";
const OLD: &str = "/rest/com/vmware/cis/session";

/// The two forms of the API.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(in crate::dialect) enum Form {
    New,
    Old,
}

impl Form {
    /// The form that a path is of.
    pub(in crate::dialect) fn of(path: &str) -> Self {
        if path == "/rest" || path.starts_with("/rest/") { Self::Old } else { Self::New }
    }

    /// A value as this form answers it.
    fn value(self, value: Value) -> Value {
        if self == Self::New { value } else { json!({ "value": value }) }
    }
}

/// What is done with a session.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Verb {
    Begin,
    Tell,
    End,
}

/// What a request does with its session; none where it is about something else.
fn verb<B>(request: &Request<B>) -> Option<(Form, Verb)> {
    let uri = request.uri();
    let form = match uri.path().strip_suffix('/').unwrap_or(uri.path()) {
        NEW => Form::New,
        OLD => Form::Old,
        _ => return None,
    };
    let verb = match (form, request.method(), uri.query().filter(|q| !q.is_empty())) {
        (_, &Method::POST, None) => Verb::Begin,
        (_, &Method::DELETE, None) => Verb::End,
        (Form::New, &Method::GET, None)
        | (Form::Old, &Method::POST, Some("~action=get" | "%7Eaction=get" | "%7eaction=get")) => Verb::Tell,
        _ => return None,
    };
    Some((form, verb))
}

/// Whether a request is about its session, which the gateway answers itself.
pub(crate) fn is_session<B>(request: &Request<B>) -> bool {
    verb(request).is_some()
}

/// The pass that a request shows: in the one header, or the one cookie, that counts. Where both are there they have to be
/// the same.
pub(in crate::dialect) fn shown(headers: &HeaderMap) -> Option<&str> {
    if is_of_page(headers) {
        return None;
    }
    let mut all = headers.get_all(&SESSION).iter();
    let header = match (all.next(), all.next()) {
        (None, _) => None,
        (Some(one), None) => Some(one.to_str().ok()?),
        (Some(_), Some(_)) => return None,
    };
    let cookies = headers.get_all(header::COOKIE).iter().filter_map(|v| v.to_str().ok());
    let mut ours = cookies.flat_map(|v| v.split(';')).filter_map(|pair| {
        let (name, value) = pair.trim().split_once('=')?;
        (name == SESSION.as_str()).then(|| value.trim_matches('"'))
    });
    match (header, ours.next(), ours.next()) {
        (Some(header), None, _) => Some(header),
        (Some(header), Some(cookie), None) if header == cookie => Some(header),
        (None, Some(cookie), None) => Some(cookie),
        _ => None,
    }
}

/// Name and token, as `Basic` writes them (RFC 7617).
fn basic(headers: &HeaderMap) -> Option<(String, String)> {
    let (scheme, rest) = authorization(headers).filter(|_| !is_of_page(headers))?.split_once(' ')?;
    let text = STANDARD.decode(rest.trim()).ok().filter(|_| scheme.eq_ignore_ascii_case("basic"))?;
    let text = String::from_utf8(text).ok()?;
    let (name, token) = text.split_once(':')?;
    Some((name.to_owned(), token.to_owned()))
}

/// Begins, tells of or ends a session.
pub(crate) async fn session(way: Way<'_>, request: Request<Incoming>) -> Result<Response, Refusal> {
    let Some((form, verb)) = verb(&request) else { return Err(Refusal::NotFound) };
    let (head, body) = request.into_parts();
    if head.headers.contains_key(header::UPGRADE) {
        return Err(Refusal::Bad("A session is no stream.".into()));
    }
    let said = read(body, OF_STRANGER).await?;
    if !matches!(said.trim_ascii(), b"" | b"{}" | b"null") {
        return Err(Refusal::Bad("Sign in with Authorization: Basic, and without a body.".into()));
    }
    match verb {
        // A session that is shown beside the name counts for nothing: it may have ended.
        Verb::Begin => begin(way, form, &head.headers).await,
        Verb::Tell => match caller(way, &head.headers)? {
            Caller::Known(actor) => tell(way, form, actor).await,
            caller => Err(super::walk_nowhere(way, caller, Asked::Presence).await),
        },
        Verb::End => match caller(way, &head.headers)? {
            Caller::Known(actor) => way.sign_out(actor).await.map(|()| ended(form)),
            caller => Err(super::walk_nowhere(way, caller, Asked::Presence).await),
        },
    }
}

fn caller(way: Way<'_>, headers: &HeaderMap) -> Result<Caller, Refusal> {
    let caller = way.known(shown(headers).map(Shown::Pass).as_ref(), None)?;
    if let Caller::Known(actor) = &caller {
        way.house.pace_call(actor, way.hypervisor, way.peer)?;
    }
    Ok(caller)
}

async fn begin(way: Way<'_>, form: Form, headers: &HeaderMap) -> Result<Response, Refusal> {
    let Way { house, hypervisor, .. } = way;
    let (name, token) = basic(headers).unwrap_or_default();
    let wants_cookie = form == Form::Old && !headers.contains_key(NO_COOKIE);
    let answer = |passed| {
        let (_, pass, open) = signed_in(house, hypervisor, passed)?;
        let pass = pass.expose_text().unwrap_or_default();
        let sensitive = |text: &str| {
            let mut value = HeaderValue::from_str(text).map_err(|_| Refusal::Unknown)?;
            value.set_sensitive(true);
            Ok::<_, Refusal>(value)
        };
        let (status, cookie) = match form {
            Form::New => (StatusCode::CREATED, None),
            Form::Old if wants_cookie => {
                (StatusCode::OK, Some(format!("{SESSION}={pass}; Path=/rest; HttpOnly; Secure; SameSite=Strict")))
            }
            Form::Old => (StatusCode::OK, None),
        };
        let mut answer = written(status, &form.value(pass.into()));
        answer.headers_mut().insert(SESSION, sensitive(pass)?);
        if let Some(cookie) = cookie {
            answer.headers_mut().insert(header::SET_COOKIE, sensitive(&cookie)?);
        }
        end(open, Outcome::Done, "signed in to the API", &[]);
        Ok(answer)
    };
    way.walk(&Shown::Token(&token, Some(&name)), |passed| ready(answer(passed))).await
}

/// Whose session it is. Nothing of it reaches the hypervisor.
async fn tell(way: Way<'_>, form: Form, actor: Arc<Actor>) -> Result<Response, Refusal> {
    let now = way.house.clock.now();
    let made = actor.pass.map_or(now, |pass| pass.made_at);
    let said = json!({
        "user": &*actor.name,
        "created_time": made.format(&Rfc3339).unwrap_or_default(),
        "last_accessed_time": now.format(&Rfc3339).unwrap_or_default(),
    });
    let visit = Visit { kind: "api", peer: way.peer, asked: Asked::Presence, trailed: Trailed::No, at: way.peer.at };
    let answer = move |_: Passed| ready(Ok(written(StatusCode::OK, &form.value(said))));
    passage::walk(way.house, visit, ready(Ok(Caller::Known(actor))), || ready(Ok(None)), answer).await
}

fn ended(form: Form) -> Response {
    let mut answer = Response::new(Body::empty());
    if form == Form::New {
        *answer.status_mut() = StatusCode::NO_CONTENT;
    }
    answer
}

fn written(status: StatusCode, value: &Value) -> Response {
    let mut answer = Response::new(Body::from(value.to_string()));
    *answer.status_mut() = status;
    let headers = answer.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    answer
}

/// A refusal as the API writes it.
pub(in crate::dialect) fn refusal(refusal: &Refusal, form: Form) -> Value {
    let (title, detail) = refusal.words();
    let messages = json!([{ "id": "portcullis", "default_message": format!("{title}: {detail}"), "args": [] }]);
    let kind = match refusal {
        Refusal::Unknown => "unauthenticated",
        Refusal::Forbidden(_) | Refusal::Locked(_) | Refusal::StepUp | Refusal::Banner | Refusal::Foreign => {
            "unauthorized"
        }
        Refusal::NotFound => "not_found",
        Refusal::Bad(_) | Refusal::TooLarge(_) | Refusal::HeadTooLarge | Refusal::Method => "invalid_request",
        Refusal::Conflict(_) => "already_exists",
        Refusal::TooMany(_) => "resource_busy",
        Refusal::UpstreamSlow(_) => "timed_out",
        Refusal::Misdirected | Refusal::Unavailable(_) | Refusal::Upstream(_) => "service_unavailable",
    };
    match form {
        Form::New => json!({ "error_type": kind.to_ascii_uppercase(), "messages": messages }),
        Form::Old => {
            json!({ "type": format!("com.vmware.vapi.std.errors.{kind}"), "value": { "messages": messages } })
        }
    }
}

/// Sends a request that was let through, in the session of whoever asks.
pub(crate) async fn forward(
    going: Going<'_>,
    answer: Answer,
    leash: &Leash,
    open: OpenEntry,
) -> Result<Response, Refusal> {
    let Going { shard, peer, path, request } = going;
    let (house, permit, actor) = (leash.house(), leash.permit(), leash.actor());
    let refuse = |open: OpenEntry, refusal: Refusal| {
        end(open, Outcome::Failed, &refusal.words().1, &[]);
        refusal
    };
    let Some(pass) = actor.pass else { return Err(refuse(open, Refusal::Unknown)) };
    let (mut head, body) = request.into_parts();
    // What has to be read cannot come packed.
    head.headers.remove(header::ACCEPT_ENCODING);
    // A read has no body here, and every other one was read.
    let body = if let Sent::Whole(body) = body { body } else { Full::default() };
    let make = || Request::from_parts(head.clone(), Sent::Whole(body.clone()));
    let context = RequestContext { request: peer.request, upgrade: Upgrade::None };
    let seated = Seated { fleet: &house.fleet, seat: Seat { user: actor.user, pass } };
    let forwarder = shard.forwarder();
    let sent = forwarder.forward_seated(permit, seated, &path, context, make);
    let got = match Box::pin(leash.hold(sent)).await {
        Ok(Ok(Got::Response(got))) => got,
        Ok(Ok(Got::Upgraded(..))) => {
            let why = "It switched protocols without being asked.";
            return Err(refuse(open, Refusal::Upstream(why.into())));
        }
        Ok(Err(error)) => return Err(refuse(open, reply::upstream(&error))),
        Err(cut) => return Err(cut.close(open)),
    };
    let (is_success, name) = (got.status().is_success(), permit.operation().resource.hypervisor().cloned());
    let keep = |text: &[u8]| match name {
        Some(name) if is_success && answer == Answer::Rows => {
            house.fleet.keep_seen(permit, text, &sight(house, &name, actor))
        }
        _ if text.is_empty() => Ok(Vec::new()),
        // A refusal in words of another form says enough by its status.
        _ => house.fleet.strip(permit, text).or_else(|e| if is_success { Err(e) } else { Ok(Vec::new()) }),
    };
    Box::pin(api::kept(leash, open, got, keep)).await
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request(method: &str, target: &str) -> Request<()> {
        Request::builder().method(method).uri(target).body(()).expect("a request")
    }

    #[test]
    fn only_what_is_about_sessions_is_answered_here() {
        use {Form::*, Verb::*};
        for (method, target, wanted) in [
            ("POST", "/api/session", (New, Begin)),
            ("POST", "/api/session/", (New, Begin)),
            ("GET", "/api/session", (New, Tell)),
            ("DELETE", "/api/session", (New, End)),
            ("POST", "/rest/com/vmware/cis/session", (Old, Begin)),
            ("POST", "/rest/com/vmware/cis/session?~action=get", (Old, Tell)),
            ("POST", "/rest/com/vmware/cis/session?%7Eaction=get", (Old, Tell)),
            ("DELETE", "/rest/com/vmware/cis/session", (Old, End)),
        ] {
            let found = verb(&request(method, target)).unwrap_or_else(|| panic!("{method} {target}"));
            assert!(found == wanted, "{method} {target}: {:?}", found.1);
        }
        for (method, target) in [
            ("PUT", "/api/session"),
            ("POST", "/api/session?action=get"),
            ("GET", "/rest/com/vmware/cis/session"),
            ("POST", "/rest/com/vmware/cis/session?~action=get&x=1"),
            ("DELETE", "/rest/com/vmware/cis/session?~action=get"),
            ("POST", "/API/session"),
            ("POST", "/api/session/x"),
            ("POST", "//api/session"),
            ("GET", "/api/vcenter/vm"),
        ] {
            assert!(verb(&request(method, target)).is_none(), "{method} {target}");
        }
    }

    fn headers(pairs: &[(&'static str, &str)]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for (name, value) in pairs {
            headers.append(*name, value.parse().expect("a value"));
        }
        headers
    }

    #[test]
    fn one_header_or_one_cookie_counts_and_none_of_a_browser() {
        let session = SESSION;
        let name = session.as_str();
        let (one, cookie) = (("vmware-api-session-id", "p.q"), ("cookie", "vmware-api-session-id=p.q"));
        for good in [&[one][..], &[cookie], &[one, cookie], &[one, ("cookie", "other=x")]] {
            assert_eq!(shown(&headers(good)), Some("p.q"), "{good:?}");
        }
        let twice = format!("{name}=p.q; {name}=p.r");
        for none in [
            &[][..],
            &[one, one],
            &[one, ("cookie", "vmware-api-session-id=p.r")],
            &[("cookie", twice.as_str())],
            &[("cookie", "__Host-portcullis=p.q")],
            &[one, ("origin", "https://evil.example")],
            &[one, ("sec-fetch-site", "same-origin")],
        ] {
            assert_eq!(shown(&headers(none)), None, "{none:?}");
        }
    }

    #[test]
    fn a_name_and_a_token_are_read_in_the_one_way() {
        let of = |value: &str| basic(&headers(&[("authorization", value)]));
        let coded = |text: &str| format!("Basic {}", STANDARD.encode(text));
        assert_eq!(of(&coded("bob:pct_a:b")), Some(("bob".to_owned(), "pct_a:b".to_owned())));
        assert_eq!(of(&coded("bob@portcullis:t")), Some(("bob@portcullis".to_owned(), "t".to_owned())));
        for none in [coded("bob"), "Basic !".to_owned(), "Bearer pct_a".to_owned(), "Basic".to_owned(), String::new()] {
            assert_eq!(of(&none), None, "{none}");
        }
        let page = headers(&[("authorization", &coded("bob:t")), ("origin", "https://evil.example")]);
        assert_eq!(basic(&page), None, "a page rides on what a browser remembers");
    }

    #[test]
    fn a_refusal_has_the_form_of_what_was_asked() {
        assert!(Form::of("/rest/vcenter/vm") == Form::Old && Form::of("/restless") == Form::New);
        let new = refusal(&Refusal::Forbidden("no".into()), Form::New);
        assert_eq!(new["error_type"], "UNAUTHORIZED");
        assert_eq!(new["messages"][0]["default_message"], "You may not do this: no");
        let old = refusal(&Refusal::NotFound, Form::Old);
        assert_eq!(old["type"], "com.vmware.vapi.std.errors.not_found");
        assert!(old["value"]["messages"][0]["default_message"].as_str().is_some_and(|m| m.starts_with("Not found")));
        assert_eq!(refusal(&Refusal::Unknown, Form::New)["error_type"], "UNAUTHENTICATED");
    }
}
