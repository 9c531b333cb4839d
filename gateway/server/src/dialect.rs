// SPDX-License-Identifier: Apache-2.0
//! What native clients of a hypervisor's API say and expect that is not the API itself: how they show who they are, how
//! they sign in, and how they are refused. Everything that they show is a token of ours, or a pass that stands for one.

use crate::{
    body::{Body, Response},
    layers::Peer,
    passage::{self, Asked, Caller, Passed, Trailed, Visit},
    reply::Refusal,
    state::House,
};
use http::{HeaderMap, HeaderValue, Method, header};
use hyper::ext::ReasonPhrase;
use portcullis_domain::{Actor, HypervisorName, Outcome};
use portcullis_policy::classify::{self, ApiKind, Canonical, Form};
use std::{borrow::Cow, sync::Arc};

/// The cookie and the header of somebody who signed in at Proxmox VE.
const COOKIE: &str = "PVEAuthCookie";
const GUARD: &str = "csrfpreventiontoken";
/// What a pass stands behind in a ticket, beside the name.
const TICKET: &str = "PVE:";
/// The realm that people of the gateway are said to be of.
const REALM: &str = "portcullis";

/// What somebody shows.
enum Shown<'h> {
    /// A token of ours, and the name that it is said to be of.
    Token(&'h str, Option<&'h str>),
    /// A ticket of the dialect, and what a change has to bring.
    Ticket(String, Option<&'h str>),
}

/// Where a request goes, and from where.
#[derive(Clone, Copy)]
pub(crate) struct Way<'a> {
    pub(crate) house: &'a Arc<House>,
    pub(crate) hypervisor: &'a HypervisorName,
    pub(crate) kind: ApiKind,
    pub(crate) peer: Peer,
}

impl Way<'_> {
    /// Who calls, by what the head of the request shows. No second chance by another header, a cookie or a query.
    pub(crate) fn caller(self, method: &Method, headers: &HeaderMap) -> Result<Caller, Refusal> {
        let shown = match self.kind {
            ApiKind::Lxd => bearer(headers).map(|t| Shown::Token(t, None)),
            ApiKind::Proxmox => proxmox(headers),
        };
        self.known(shown.as_ref(), Some(method))
    }

    fn known(self, shown: Option<&Shown<'_>>, method: Option<&Method>) -> Result<Caller, Refusal> {
        let Self { house, hypervisor, peer, .. } = self;
        let actor = shown.and_then(|shown| self.actor(shown, method));
        match actor {
            Some(actor) if actor.scope.as_ref().is_none_or(|scope| scope == hypervisor) => Ok(Caller::Known(actor)),
            _ if house.strangers.check(peer.ip) => {
                let elsewhere = match shown {
                    Some(Shown::Token(token, _)) => house.identity.token_elsewhere(token, peer.ip),
                    Some(Shown::Ticket(..)) | None => None,
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
        let Self { house, hypervisor, peer, .. } = self;
        match shown {
            Shown::Token(token, name) => {
                let actor = house.identity.token_actor(token, peer.ip)?;
                name.is_none_or(|name| is_name(name, &actor)).then_some(actor)
            }
            Shown::Ticket(ticket, guard) => {
                let (name, pass) = ticket.strip_prefix(TICKET)?.rsplit_once(':')?;
                let actor = house.identity.pass_actor(pass, hypervisor, peer.ip)?;
                let reads = method.is_none_or(|m| *m == Method::GET);
                let is_guarded = reads || guard.is_some_and(|guard| house.identity.is_guard(guard, pass, hypervisor));
                (is_guarded && is_name(name, &actor)).then_some(actor)
            }
        }
    }

    /// The path of a request in the one form that is decided on and sent.
    pub(crate) fn path(self, raw: &str) -> Result<Canonical, Refusal> {
        let raw = match self.kind {
            ApiKind::Lxd => Cow::Borrowed(raw),
            ApiKind::Proxmox => volume_path(raw),
        };
        classify::canonical(&raw).map_err(|e| Refusal::Bad(e.to_string()))
    }

    /// Whether a request is the dialect's own sign-in, which the gateway answers itself.
    pub(crate) fn is_sign_in(self, method: &Method, path: &str) -> bool {
        let at = ["/api2/json/access/ticket", "/api2/extjs/access/ticket"];
        self.kind == ApiKind::Proxmox && *method == Method::POST && at.contains(&path)
    }

    /// Signs in by name and token, or by a ticket that is renewed: the answer holds a ticket of ours.
    pub(crate) async fn sign_in(self, form: &Form) -> Result<Response, Refusal> {
        let Self { house, hypervisor, peer, .. } = self;
        let one = |key: &str| form.value(key).unwrap_or_default().to_owned();
        let (name, password) = (one("username"), one("password"));
        // A second factor of Proxmox's own has no place here: the token was made with one.
        let shown = if password.starts_with(TICKET) {
            Shown::Ticket(password, None)
        } else {
            Shown::Token(&password, Some(&name))
        };
        let caller = self.known(Some(&shown), None)?;
        let visit = Visit { kind: "api", peer, asked: Asked::Presence, trailed: Trailed::Yes, at: peer.at };
        let answer = |passed: Passed| std::future::ready(signed_in(house, hypervisor, &name, passed));
        passage::walk(house, visit, std::future::ready(Ok(caller)), || std::future::ready(Ok(None)), answer).await
    }

    /// A refusal as the API's own clients read it, beside the fields of RFC 9457.
    pub(crate) fn refuse(self, refusal: &Refusal) -> Response {
        let (title, detail) = refusal.words();
        let code = refusal.status().as_u16();
        let said = format!("{title}: {detail}");
        let request = self.peer.request;
        let body = match self.kind {
            ApiKind::Lxd => serde_json::json!({
                "type": "error", "error": said, "error_code": code, "metadata": null,
                "title": title, "detail": detail, "status": code, "request": request.to_string(),
            }),
            ApiKind::Proxmox => serde_json::json!({
                "data": null, "message": said, "success": 0, "title": title, "detail": detail, "status": code,
            }),
        };
        let mut answer = refusal.problem(request).map(|_| Body::from(body.to_string()));
        answer.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
        // Clients of Proxmox read no further than the status line.
        if self.kind == ApiKind::Proxmox
            && let Ok(reason) = ReasonPhrase::try_from(in_a_line(&said))
        {
            answer.extensions_mut().insert(reason);
        }
        answer
    }
}

/// A volume's name holds slashes, which clients of Proxmox write as `%2F` in an address that ends with it. Proxmox decodes
/// an address before it looks at it, so both spellings are one there; here it is the one with slashes. Nowhere else.
fn volume_path(raw: &str) -> Cow<'_, str> {
    let place = raw.strip_prefix("/api2/").and_then(|rest| {
        let parts: Vec<&str> = rest.splitn(7, '/').collect();
        match parts.as_slice() {
            [_, "nodes", _, "storage", _, "content", volume] => Some(raw.len() - volume.len()),
            _ => None,
        }
    });
    match place.and_then(|at| raw.split_at_checked(at)) {
        Some((before, volume)) if volume.contains('%') => {
            Cow::Owned(format!("{before}{}", volume.replace("%2F", "/").replace("%2f", "/")))
        }
        _ => Cow::Borrowed(raw),
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

fn bearer(headers: &HeaderMap) -> Option<&str> {
    authorization(headers)?.strip_prefix("Bearer ")
}

/// `PVEAPIToken=name@realm!tool=token`, or the cookie of somebody who signed in. A browser sends no cookie of ours here,
/// and one that it was made to send is refused with its `Origin`.
fn proxmox(headers: &HeaderMap) -> Option<Shown<'_>> {
    if headers.contains_key(header::AUTHORIZATION) {
        let text = authorization(headers)?;
        if let Some(token) = text.strip_prefix("Bearer ") {
            return Some(Shown::Token(token, None));
        }
        let (id, token) = text.strip_prefix("PVEAPIToken=")?.rsplit_once('=')?;
        let (name, _) = id.split_once('!')?;
        return Some(Shown::Token(token, Some(name)));
    }
    if headers.contains_key(header::ORIGIN) || headers.contains_key("sec-fetch-site") {
        return None;
    }
    let cookies = headers.get_all(header::COOKIE).iter().filter_map(|v| v.to_str().ok());
    let mut tickets = cookies.flat_map(|v| v.split(';')).filter_map(|pair| {
        let (name, value) = pair.trim().split_once('=')?;
        (name == COOKIE).then_some(value)
    });
    let (Some(ticket), None) = (tickets.next(), tickets.next()) else { return None };
    let mut guards = headers.get_all(GUARD).iter();
    let guard = match (guards.next(), guards.next()) {
        (Some(one), None) => one.to_str().ok(),
        _ => None,
    };
    Some(Shown::Ticket(plain(ticket), guard))
}

/// A cookie's value without the codes that clients write for `:` and `@`. Whatever else is coded proves nothing.
fn plain(value: &str) -> String {
    value.trim_matches('"').replace("%3A", ":").replace("%3a", ":").replace("%40", "@")
}

/// Whether `name@realm`, or the bare name, is somebody's.
fn is_name(said: &str, actor: &Actor) -> bool {
    let bare = said.rsplit_once('@').map_or(said, |(name, _)| name);
    [said, bare].contains(&&*actor.name)
}

fn signed_in(house: &House, hypervisor: &HypervisorName, name: &str, passed: Passed) -> Result<Response, Refusal> {
    let (Some(actor), Some(open)) = (passed.actor, passed.open) else {
        return Err(Refusal::Unavailable("The request lost its event on the way.".into()));
    };
    let pass = house.identity.mint_pass(&actor, hypervisor);
    let Some(pass) = pass.as_ref().and_then(|p| p.expose_text()) else {
        passage::end(open, Outcome::Denied, "only a token for tools signs in here", &[]);
        return Err(Refusal::Unknown);
    };
    let user = if name.contains('@') { name.to_owned() } else { format!("{}@{REALM}", actor.name) };
    let body = serde_json::json!({ "data": {
        "username": user,
        "ticket": format!("{TICKET}{}:{pass}", actor.name),
        "CSRFPreventionToken": house.identity.guard_of(pass, hypervisor),
        "cap": {},
    }});
    passage::end(open, Outcome::Done, "signed in to the API", &[]);
    let mut answer = Response::new(Body::from(body.to_string()));
    let headers = answer.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    Ok(answer)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(pairs: &[(&'static str, &str)]) -> Option<String> {
        let mut headers = HeaderMap::new();
        for (name, value) in pairs {
            headers.append(*name, value.parse().expect("a value"));
        }
        proxmox(&headers).map(|shown| match shown {
            Shown::Token(token, name) => format!("{} {token}", name.unwrap_or("-")),
            Shown::Ticket(ticket, guard) => format!("{ticket} {}", guard.unwrap_or("-")),
        })
    }

    #[test]
    fn a_slash_may_be_written_as_a_code_in_a_volume_and_nowhere_else() {
        let path = |raw: &str| classify::canonical(&volume_path(raw)).map(|c| c.as_str().to_owned()).ok();
        let content = "/api2/json/nodes/pve1/storage/local/content";
        for volume in ["local:iso/x.iso", "local:iso%2Fx.iso", "local:iso%2fx.iso", "local%3Aiso%2Fx.iso"] {
            assert_eq!(path(&format!("{content}/{volume}")), Some(format!("{content}/local:iso/x.iso")), "{volume}");
        }
        for bad in [
            format!("{content}/local:iso%2F..%2F..%2Faccess"),
            format!("{content}/local:iso%2F%2Fx"),
            format!("{content}/local:iso%252Fx"),
            format!("{content}%2Fx"),
            "/api2/json/nodes/pve1%2Fqemu/100".to_owned(),
            "/api2/json/nodes/pve1/qemu%2F100/content/x".to_owned(),
            "/api2/json/nodes/a%2Fb/storage/local/content/x".to_owned(),
        ] {
            assert_eq!(path(&bad), None, "{bad}");
        }
    }

    #[test]
    fn one_credential_counts_and_a_header_wins_over_a_cookie() {
        let token = ("authorization", "PVEAPIToken=ada@portcullis!tool=pct_x");
        let cookie = ("cookie", "a=b; PVEAuthCookie=PVE%3Aada%3Ap.q; c=d");
        assert_eq!(shown(&[token]).as_deref(), Some("ada@portcullis pct_x"));
        assert_eq!(shown(&[token, cookie]).as_deref(), Some("ada@portcullis pct_x"));
        assert_eq!(shown(&[("authorization", "Bearer pct_x")]).as_deref(), Some("- pct_x"));
        assert_eq!(shown(&[cookie]).as_deref(), Some("PVE:ada:p.q -"));
        assert_eq!(shown(&[cookie, ("csrfpreventiontoken", "g")]).as_deref(), Some("PVE:ada:p.q g"));
        for none in [
            &[][..],
            &[token, token],
            &[("authorization", "Basic x"), cookie],
            &[("authorization", "PVEAPIToken=ada@portcullis")],
            &[("authorization", "PVEAPIToken=ada@portcullis=pct_x")],
            &[cookie, cookie],
            &[cookie, ("origin", "https://evil.example")],
            &[cookie, ("sec-fetch-site", "cross-site")],
        ] {
            assert_eq!(shown(none), None, "{none:?}");
        }
    }
}
