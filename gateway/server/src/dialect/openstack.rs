// SPDX-License-Identifier: Apache-2.0
//! How clients of OpenStack sign in, show who they are and read a refusal. For them the gateway is Keystone (Identity API
//! v3): a password or the secret of an application credential is a token of ours, the token that they get is a pass, and
//! the catalog names nothing but the gateway.

use super::Shown;
use crate::{
    body::{Body, Response},
    passage::{self, Passed},
    reply::Refusal,
    state::House,
};
use http::{HeaderMap, HeaderValue, Method, StatusCode, header};
use portcullis_domain::{HypervisorName, Outcome, RequestId};
use portcullis_identity::PASS_LIFE;
use portcullis_policy::classify::Json;
use portcullis_upstream::Account;
use serde_json::{Value, json};
use std::borrow::Cow;
use time::{OffsetDateTime, format_description::well_known::Rfc3339};

const TOKEN: &str = "x-auth-token";
pub(super) const SIGN_IN: &str = "/v3/auth/tokens";
/// The token that a request is about, where it is not the sender's own.
const SUBJECT: &str = "x-subject-token";
/// The two headers that say which microversion a request means, and how.
const VERSIONS: [&str; 2] = ["openstack-api-version", "x-openstack-nova-api-version"];
/// The last microversion whose effects were reviewed.
const REVIEWED: u32 = 100;

/// A path without the slash that some clients write at its end.
pub(super) fn path(raw: &str) -> Cow<'_, str> {
    match raw.strip_suffix('/') {
        Some(rest) if !rest.is_empty() && !rest.ends_with('/') => Cow::Borrowed(rest),
        _ => Cow::Borrowed(raw),
    }
}

/// What a request shows: one `X-Auth-Token`.
pub(super) fn shown(headers: &HeaderMap) -> Option<Shown<'_>> {
    let mut all = headers.get_all(TOKEN).iter();
    match (all.next(), all.next()) {
        (Some(one), None) => one.to_str().ok().map(Shown::Pass),
        _ => None,
    }
}

/// Whether what a request means can be known: a microversion changes what the same words do.
pub(super) fn check(headers: &HeaderMap) -> Result<(), Refusal> {
    let bad = |said: &str| {
        let said: String = said.chars().filter(|c| !c.is_control()).take(64).collect();
        Refusal::Bad(format!("The microversion {said:?} is not one up to 2.{REVIEWED}, which the gateway knows."))
    };
    for name in VERSIONS {
        let mut all = headers.get_all(name).iter();
        let Some(value) = all.next() else { continue };
        let text = value.to_str().map_err(|_| bad("?"))?;
        let version = match text.trim().rsplit_once(' ') {
            Some((service, version)) if service.trim().eq_ignore_ascii_case("compute") => version,
            None if name == VERSIONS[1] => text.trim(),
            _ => return Err(bad(text)),
        };
        let minor = version.strip_prefix("2.").filter(|m| !m.starts_with('0') || *m == "0");
        let minor = minor.filter(|m| m.bytes().all(|b| b.is_ascii_digit())).and_then(|m| m.parse::<u32>().ok());
        if all.next().is_some() || minor.is_none_or(|m| m > REVIEWED) {
            return Err(bad(text));
        }
    }
    Ok(())
}

/// Whether the gateway answers a request itself, as Keystone.
pub(super) fn is_own(method: &Method, path: &str) -> bool {
    match path {
        SIGN_IN => *method == Method::POST,
        "/" | "/v3" => *method == Method::GET,
        _ => false,
    }
}

/// The versions of Keystone, which clients look for before they sign in.
pub(super) fn versions(path: &str, authority: &str) -> Option<Response> {
    let version = json!({
        "id": "v3.14", "status": "stable", "updated": "2020-04-07T00:00:00Z",
        "links": [{ "rel": "self", "href": format!("https://{authority}/v3/") }],
        "media-types": [{ "base": "application/json", "type": "application/vnd.openstack.identity-v3+json" }],
    });
    let (status, body) = match path {
        "/v3" => (StatusCode::OK, json!({ "version": version })),
        "/" => (StatusCode::MULTIPLE_CHOICES, json!({ "versions": { "values": [version] } })),
        _ => return None,
    };
    Some(answer(status, &body))
}

/// What somebody shows who signs in.
pub(super) fn signing_in(said: &Json) -> Result<Shown<'_>, Refusal> {
    let at = |rest: &str| said.value(&format!("/auth/identity/{rest}"));
    let password = at("password/user/password");
    let (secret, pass) = (at("application_credential/secret"), at("token/id"));
    match (password, secret, pass) {
        (Some(token), None, None) => {
            let name = at("password/user/name").or_else(|| at("password/user/id"));
            Ok(Shown::Token(token, Some(name.unwrap_or_default())))
        }
        (None, Some(token), None) => Ok(Shown::Token(token, None)),
        (None, None, Some(pass)) => Ok(Shown::Pass(pass)),
        _ => Err(Refusal::Bad(
            "Sign in with a password or an application credential's secret: a token of this gateway.".into(),
        )),
    }
}

/// The answer to a sign-in: a pass, and a catalog that names the gateway.
pub(super) fn signed_in(
    house: &House,
    hypervisor: &HypervisorName,
    said: &Json,
    authority: &str,
    passed: Passed,
) -> Result<Response, Refusal> {
    let Some(account) = house.fleet.account(hypervisor) else {
        passed.fail(Outcome::Failed, "the gateway itself is not signed in there");
        return Err(Refusal::Upstream("The gateway itself is not signed in there at the moment.".into()));
    };
    if !fits(said, &account) {
        passed.fail(Outcome::Denied, "another project was asked for");
        let why = format!("The gateway works in the project {:?} there, and in no other.", account.project_name);
        return Err(Refusal::Forbidden(why));
    }
    let (actor, pass, open) = super::signed_in(house, hypervisor, passed)?;
    let pass = pass.expose_text().unwrap_or_default();
    let Ok(value) = HeaderValue::from_str(pass) else {
        passage::end(open, Outcome::Failed, "the pass is no header", &[]);
        return Err(Refusal::Unknown);
    };
    let now = house.clock.now();
    let body = token(&actor.name, &account, authority, (now, now + PASS_LIFE));
    passage::end(open, Outcome::Done, "signed in to the API", &[]);
    let mut answer = answer(StatusCode::CREATED, &body);
    answer.headers_mut().insert("x-subject-token", value);
    Ok(answer)
}

/// The pass that is to be ended: one `X-Subject-Token`.
pub(super) fn subject(headers: &HeaderMap) -> Option<&str> {
    let mut all = headers.get_all(SUBJECT).iter();
    match (all.next(), all.next()) {
        (Some(one), None) => one.to_str().ok(),
        _ => None,
    }
}

/// The answer to the end of a pass.
pub(super) fn left() -> Response {
    let mut answer = Response::new(Body::empty());
    *answer.status_mut() = StatusCode::NO_CONTENT;
    answer
}

/// Whether what is asked for is the project that the gateway works in, or nothing particular.
fn fits(said: &Json, account: &Account) -> bool {
    let at = |rest: &str| said.value(&format!("/auth/scope/{rest}"));
    let elsewhere = ["system/all", "domain/id", "domain/name", "OS-TRUST:trust/id"];
    at("project/id").is_none_or(|id| id == account.project)
        && at("project/name").is_none_or(|name| name == account.project_name)
        && elsewhere.iter().all(|other| at(other).is_none())
}

fn token(name: &str, account: &Account, authority: &str, (from, to): (OffsetDateTime, OffsetDateTime)) -> Value {
    let domain = json!({ "id": "default", "name": "Default" });
    let time = |at: OffsetDateTime| at.format(&Rfc3339).unwrap_or_default();
    let service = |kind: &str, name: &str, path: &str| {
        let endpoint = |interface: &str| {
            json!({
                "id": format!("{name}-{interface}"), "interface": interface, "region": account.region,
                "region_id": account.region, "url": format!("https://{authority}{path}"),
            })
        };
        let all: Vec<Value> = ["public", "internal", "admin"].into_iter().map(endpoint).collect();
        json!({ "id": name, "type": kind, "name": name, "endpoints": all })
    };
    json!({ "token": {
        "methods": ["password"], "audit_ids": [], "is_domain": false,
        "issued_at": time(from), "expires_at": time(to),
        "user": { "id": name, "name": name, "domain": domain, "password_expires_at": null },
        "project": { "id": account.project, "name": account.project_name, "domain": domain },
        "roles": [{ "id": "portcullis", "name": "portcullis" }],
        "catalog": [service("identity", "keystone", "/v3"), service("compute", "nova", &account.base)],
    }})
}

fn answer(status: StatusCode, body: &Value) -> Response {
    let mut answer = Response::new(Body::from(body.to_string()));
    *answer.status_mut() = status;
    let headers = answer.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    answer
}

/// A refusal as Keystone's and Nova's clients read it, with the fields of RFC 9457 beside it.
pub(super) fn refusal(refusal: &Refusal, said: &str, request: RequestId) -> Value {
    let (title, detail) = refusal.words();
    let code = refusal.status().as_u16();
    json!({
        "error": { "code": code, "title": title, "message": said },
        "title": title, "detail": detail, "status": code, "request": request.to_string(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_microversion_that_nobody_reviewed_is_refused() {
        let check = |pairs: &[(&'static str, &str)]| {
            let mut headers = HeaderMap::new();
            for (name, value) in pairs {
                headers.append(*name, value.parse().expect("a value"));
            }
            check(&headers).is_ok()
        };
        let (new, old) = (VERSIONS[0], VERSIONS[1]);
        assert!(check(&[]) && check(&[(new, "compute 2.1")]) && check(&[(new, "compute 2.100"), (old, "2.100")]));
        for bad in ["latest", "2.101", "2.1.1", "3.1", "2.", "2.01", "2.+1", "", "2.99999999999"] {
            assert!(!check(&[(old, bad)]), "{bad}");
            assert!(!check(&[(new, &format!("compute {bad}"))]), "{bad}");
        }
        for bad in ["2.1", "compute 2.1, compute 2.999", "placement 1.2", "compute 2.999, placement 1.2"] {
            assert!(!check(&[(new, bad)]), "{bad}");
        }
        assert!(!check(&[(old, "2.1"), (old, "2.2")]) && !check(&[(new, "compute 2.1"), (old, "2.101")]));
    }

    #[test]
    fn one_way_to_sign_in_counts() {
        let shown = |body: &str| {
            let said = Json::read(None, body.as_bytes()).expect("JSON");
            signing_in(&said).ok().map(|shown| match shown {
                Shown::Token(token, name) => format!("{} {token}", name.unwrap_or("-")),
                Shown::Pass(pass) => format!("pass {pass}"),
                Shown::Ticket(..) | Shown::Key(_) => String::new(),
            })
        };
        let of = |identity: &str| shown(&format!(r#"{{"auth":{{"identity":{identity}}}}}"#));
        let user = r#""password":{"user":{"name":"ada","domain":{"id":"default"},"password":"pct_x"}}"#;
        let secret = r#""application_credential":{"id":"i","secret":"pct_y"}"#;
        assert_eq!(of(&format!("{{{user}}}")).as_deref(), Some("ada pct_x"));
        assert_eq!(of(&format!("{{{secret}}}")).as_deref(), Some("- pct_y"));
        assert_eq!(of(r#"{"token":{"id":"p.q"}}"#).as_deref(), Some("pass p.q"));
        assert_eq!(of(r#"{"password":{"user":{"password":"pct_x"}}}"#).as_deref(), Some(" pct_x"));
        for bad in [format!("{{{user},{secret}}}"), r#"{"totp":{"user":{"passcode":"1"}}}"#.into(), "{}".into()] {
            assert_eq!(of(&bad), None, "{bad}");
        }
    }

    #[test]
    fn no_other_project_is_worked_in() {
        let account = Account {
            project: "p1".into(),
            project_name: "admin".into(),
            base: "/v2.1".into(),
            region: "RegionOne".into(),
        };
        let fits = |scope: &str| {
            let body = format!(r#"{{"auth":{{"scope":{scope}}}}}"#);
            fits(&Json::read(None, body.as_bytes()).expect("JSON"), &account)
        };
        for good in ["{}", r#"{"project":{"id":"p1"}}"#, r#"{"project":{"name":"admin","domain":{"id":"default"}}}"#] {
            assert!(fits(good), "{good}");
        }
        for bad in [
            r#"{"project":{"id":"p2"}}"#,
            r#"{"project":{"id":"p1","name":"other"}}"#,
            r#"{"system":{"all":true}}"#,
            r#"{"domain":{"id":"default"}}"#,
        ] {
            assert!(!fits(bad), "{bad}");
        }
    }
}
