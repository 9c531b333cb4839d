// SPDX-License-Identifier: Apache-2.0
//! How clients of oVirt's API 4 sign in, show who they are and read a refusal. For them the gateway is the engine's single
//! sign-on: the password is a token of ours, and the access token that they get is a pass, which signing out ends.

use super::{Shown, Written, bearer};
use crate::{
    body::{Body, Response},
    passage::{self, Passed},
    reply::Refusal,
    state::House,
};
use http::{HeaderMap, HeaderValue, Method, StatusCode, header};
use portcullis_domain::{HypervisorName, Outcome, RequestId};
use portcullis_identity::PASS_LIFE;
use portcullis_policy::classify::{Form, Node};
use serde_json::{Value, json};
use std::borrow::Cow;

const API: &str = "/ovirt-engine/api";
const SIGN_IN: &str = "/ovirt-engine/sso/oauth/token";
/// Where the engine's SDKs of different ages end a token.
const SIGN_OUT: [&str; 2] = ["/ovirt-engine/services/sso-logout", "/ovirt-engine/sso/oauth/revoke"];
/// What every scope that is asked for begins with.
const SCOPE: &str = "ovirt-app-api";
/// What tokens of ours begin with; everything else that is shown is a pass.
const TOKEN: &str = "pct_";

/// A path without the slash at its end that some clients write. Its parameters stand in the query: the engine would take
/// those of a part of the path as well (RFC 3986 section 3.3), and only where it is the last one.
pub(super) fn path(raw: &str) -> Result<Cow<'_, str>, Refusal> {
    if raw.contains(';') {
        let why = "Parameters stand in the query here: write ?max=10 and not ;max=10.";
        return Err(Refusal::Bad(why.into()));
    }
    Ok(super::openstack::path(raw))
}

/// `Authorization: Bearer`, with a pass or a token.
pub(super) fn shown(headers: &HeaderMap) -> Option<Shown<'_>> {
    bearer(headers).map(token_or_pass)
}

fn token_or_pass(text: &str) -> Shown<'_> {
    if text.starts_with(TOKEN) { Shown::Token(text, None) } else { Shown::Pass(text) }
}

/// Whether what a request means can be known: in another version the same words mean something else.
pub(super) fn check(headers: &HeaderMap) -> Result<(), Refusal> {
    if headers.get_all("version").iter().all(|v| v.as_bytes() == b"4") {
        return Ok(());
    }
    Err(Refusal::Bad(
        "The gateway knows version 4 of this API and no other: send Version: 4, or no such header.".into(),
    ))
}

/// Whether the gateway answers a request itself, as the single sign-on.
pub(super) fn is_own(method: &Method, path: &str) -> bool {
    *method == Method::POST && (path == SIGN_IN || SIGN_OUT.contains(&path))
}

/// Whether a request is about signing out.
pub(super) fn is_sign_out(path: &str) -> bool {
    SIGN_OUT.contains(&path)
}

/// What somebody shows who signs in, or out.
pub(super) fn signing<'f>(path: &str, form: &'f Form) -> Result<Shown<'f>, Refusal> {
    let bad = |why: &str| Refusal::Bad(why.into());
    if is_sign_out(path) {
        return form.value("token").map(token_or_pass).ok_or_else(|| bad("Say which token ends."));
    }
    match (form.value("grant_type"), form.value("username"), form.value("password")) {
        (Some("password"), Some(name), Some(token)) => Ok(Shown::Token(token, Some(name))),
        _ => Err(bad("Sign in with grant_type=password, your name, and a token of this gateway as the password.")),
    }
}

/// The answer to a sign-in: a pass.
pub(super) fn signed_in(house: &House, hypervisor: &HypervisorName, passed: Passed) -> Result<Response, Refusal> {
    let (_, pass, open) = super::signed_in(house, hypervisor, passed)?;
    // Milliseconds, as a text.
    let end = (house.clock.now() + PASS_LIFE).unix_timestamp().saturating_mul(1000);
    let pass = pass.expose_text().unwrap_or_default();
    let body = json!({ "access_token": pass, "scope": SCOPE, "exp": end.to_string(), "token_type": "bearer" });
    passage::end(open, Outcome::Done, "signed in to the API", &[]);
    Ok(answer(&body))
}

/// The answer to a sign-out.
pub(super) fn signed_out() -> Response {
    answer(&json!({}))
}

fn answer(body: &Value) -> Response {
    let mut answer = Response::new(Body::from(body.to_string()));
    *answer.status_mut() = StatusCode::OK;
    let headers = answer.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    answer
}

/// What a client reads: the API speaks XML where nothing is said, and the single sign-on has only JSON.
pub(super) fn written(path: &str, headers: &HeaderMap) -> Written {
    let is_json = |v: &HeaderValue| v.to_str().is_ok_and(|v| v.to_ascii_lowercase().contains("json"));
    let reads_xml = path.starts_with(API) && !headers.get_all(header::ACCEPT).iter().any(is_json);
    if reads_xml { Written::Xml } else { Written::Json }
}

/// A refusal as clients of the API (a fault) and of the single sign-on read it, beside the fields of RFC 9457.
pub(super) fn refusal(refusal: &Refusal, said: &str, request: RequestId) -> Value {
    let (title, detail) = refusal.words();
    let status = refusal.status().as_u16();
    json!({
        "reason": title, "detail": detail, "error": said, "error_code": "access_denied",
        "title": title, "status": status, "request": request.to_string(),
    })
}

/// The same in XML.
pub(super) fn fault(refusal: &Refusal, request: RequestId) -> String {
    let (title, detail) = refusal.words();
    let said = format!("{detail} (request {request})");
    Node::of_children("fault", vec![Node::of_text("reason", title), Node::of_text("detail", &said)]).document()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(pairs: &[(&'static str, &str)]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for (name, value) in pairs {
            headers.append(*name, value.parse().expect("a value"));
        }
        headers
    }

    #[test]
    fn another_version_of_the_api_is_refused() {
        for good in [&[][..], &[("version", "4")], &[("version", "4"), ("version", "4")]] {
            assert!(check(&headers(good)).is_ok(), "{good:?}");
        }
        for bad in
            [&[("version", "3")][..], &[("version", "4"), ("version", "3")], &[("version", "4, 3")], &[("version", "")]]
        {
            assert!(check(&headers(bad)).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn one_way_to_sign_in_counts() {
        let shown = |path: &str, form: &str| {
            let form = Form::read(Some("application/x-www-form-urlencoded"), form.as_bytes()).expect("a form");
            signing(path, &form).ok().map(|shown| match shown {
                Shown::Token(token, name) => format!("{} {token}", name.unwrap_or("-")),
                Shown::Pass(pass) => format!("pass {pass}"),
                Shown::Ticket(..) | Shown::Key(_) => String::new(),
            })
        };
        let good = "grant_type=password&scope=ovirt-app-api&username=ada%40internal&password=pct_x";
        assert_eq!(shown(SIGN_IN, good).as_deref(), Some("ada@internal pct_x"));
        assert_eq!(shown(SIGN_OUT[0], "scope=ovirt-app-api&token=p.q").as_deref(), Some("pass p.q"));
        assert_eq!(shown(SIGN_OUT[1], "token=pct_x").as_deref(), Some("- pct_x"));
        for bad in [
            "",
            "username=ada&password=pct_x",
            "grant_type=password&password=pct_x",
            "grant_type=password&username=ada",
            "grant_type=urn:ovirt:params:oauth:grant-type:http&username=ada&password=pct_x",
            "grant_type=authorization_code&code=x",
        ] {
            assert_eq!(shown(SIGN_IN, bad), None, "{bad}");
        }
        assert_eq!(shown(SIGN_OUT[0], "scope=x"), None);
    }

    #[test]
    fn a_pass_and_a_token_are_told_apart_and_nothing_else_counts() {
        let kind = |pairs: &[(&'static str, &str)]| shown(&headers(pairs)).map(|s| matches!(s, Shown::Token(_, None)));
        assert_eq!(kind(&[("authorization", "Bearer pct_x")]), Some(true));
        assert_eq!(kind(&[("authorization", "Bearer p.q")]), Some(false));
        for bad in [
            &[][..],
            &[("authorization", "Basic eDp5")],
            &[("authorization", "Bearer a"), ("authorization", "Bearer b")],
            &[("cookie", "JSESSIONID=x")],
        ] {
            assert_eq!(kind(bad), None, "{bad:?}");
        }
    }

    #[test]
    fn parameters_in_the_path_are_refused_and_a_slash_at_the_end_is_none() {
        assert_eq!(path("/ovirt-engine/api/").expect("a path"), "/ovirt-engine/api");
        for bad in ["/ovirt-engine/api/vms;max=1", "/ovirt-engine/api/vms;current", "/ovirt-engine/api/vms/1;x/start"] {
            assert!(path(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_fault_comes_in_the_form_that_is_read() {
        let of = |path: &str, accept: &[(&'static str, &str)]| written(path, &headers(accept)) == Written::Xml;
        assert!(of("/ovirt-engine/api/vms", &[]) && of("/ovirt-engine/api", &[("accept", "application/xml")]));
        assert!(!of("/ovirt-engine/api/vms", &[("accept", "application/json")]));
        assert!(!of(SIGN_IN, &[("accept", "application/xml")]), "the single sign-on has only JSON");
        let text =
            fault(&Refusal::Forbidden("a < b".into()), "00000000000000000000000000000000".parse().expect("an id"));
        assert!(text.contains("<reason>You may not do this</reason><detail>a &lt; b (request "), "{text}");
    }
}
