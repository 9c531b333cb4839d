// SPDX-License-Identifier: Apache-2.0
//! What holds for every request before anybody is known: the head is sane, the host is ours, the request has an id;
//! and what every answer of ours carries.

use crate::{
    api,
    body::{Body, Response},
    listener::{Line, Purpose},
    reply::Refusal,
    state::{House, Shard, request_id},
};
use axum::response::IntoResponse as _;
use http::{HeaderMap, HeaderName, HeaderValue, Method, Request, header, uri::Scheme};
use hyper::body::Incoming;
use portcullis_domain::{HypervisorName, RequestId};
use std::{net::IpAddr, sync::Arc};
use time::OffsetDateTime;
use tower::ServiceExt as _;

/// Longest address of a request, in bytes (security defaults: 8 KiB).
const MAX_URI: usize = 8 * 1024;

/// From where, and under which number: put on every request.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Peer {
    pub(crate) ip: IpAddr,
    pub(crate) request: RequestId,
    /// When it came.
    pub(crate) at: OffsetDateTime,
}

/// Which of our names a request was sent to.
enum Host {
    Portal,
    Api(HypervisorName),
}

/// Answers one request.
pub(crate) async fn answer(
    house: Arc<House>,
    shard: Arc<Shard>,
    line: &Line,
    mut request: Request<Incoming>,
) -> Response {
    let at = house.clock.now();
    let peer = Peer { ip: line.ip, request: request_id(at), at };
    let is_head = request.method() == Method::HEAD;
    let host = match check(&house, &line.door.purpose, &request) {
        Ok(host) => host,
        Err(refusal) => {
            let mut answer = refusal.problem(peer.request).map(|b| Body::Whole(Some(b)));
            dress(&house, &mut answer, Dress::Portal);
            if is_head {
                answer.body_mut().leave_out();
            }
            // Whoever writes such a head may have meant another end of it, too: what follows is no request.
            if request.version() < http::Version::HTTP_2 {
                answer.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("close"));
            }
            return answer;
        }
    };
    match host {
        Host::Portal => {
            request.extensions_mut().insert(peer);
            let request = request.map(axum::body::Body::new);
            // Boxed, like everything that a proxied call does not do: a future is moved as a whole, with room for all
            // that it could become.
            let answer = match Box::pin(shard.portal.clone().oneshot(request)).await {
                Ok(answer) => answer,
                Err(never) => never.into_response(),
            };
            let mut answer = answer.map(Body::Page);
            dress(&house, &mut answer, Dress::Portal);
            answer
        }
        Host::Api(name) => {
            let mut answer = api::proxy(&house, &shard, &name, (peer, line.key.as_ref()), request).await;
            dress(&house, &mut answer, Dress::Api);
            if is_head {
                answer.body_mut().leave_out();
            }
            answer
        }
    }
}

/// The head of a request: one form, one host, a method that is answered at all.
fn check<B>(house: &House, purpose: &Purpose, request: &Request<B>) -> Result<Host, Refusal> {
    if !matches!(
        *request.method(),
        Method::GET | Method::HEAD | Method::POST | Method::PUT | Method::PATCH | Method::DELETE
    ) {
        return Err(Refusal::Method);
    }
    let uri = request.uri();
    if uri.path().len() + uri.query().map_or(0, str::len) > MAX_URI {
        return Err(Refusal::HeadTooLarge);
    }
    if request.headers().len() > crate::listener::MAX_HEADERS {
        return Err(Refusal::HeadTooLarge);
    }
    let mut encodings = request.headers().get_all(header::TRANSFER_ENCODING).iter();
    if encodings.next().is_some_and(|e| !e.as_bytes().eq_ignore_ascii_case(b"chunked")) || encodings.next().is_some() {
        return Err(Refusal::Bad("A body comes with its length or in chunks, in no other encoding.".into()));
    }
    let host = host(request)?;
    match purpose {
        Purpose::Api(name) => Ok(Host::Api(name.clone())),
        // Nothing of HTTP is spoken there.
        Purpose::Rpc(_) => Err(Refusal::Misdirected),
        Purpose::Portal if host.eq_ignore_ascii_case(&house.authority) => Ok(Host::Portal),
        Purpose::Portal => house.api_host(host).map(Host::Api).ok_or(Refusal::Misdirected),
    }
}

/// The one host that a request names. Absolute-form, two hosts, or a host that differs from `:authority` is refused.
pub(crate) fn host<B>(request: &Request<B>) -> Result<&str, Refusal> {
    let wrong = || Refusal::Bad("Send exactly one Host, and the path alone in the request line.".into());
    let mut hosts = request.headers().get_all(header::HOST).iter();
    let named = hosts.next().map(|h| h.to_str().map_err(|_| wrong())).transpose()?;
    if hosts.next().is_some() {
        return Err(wrong());
    }
    let uri = request.uri();
    let found = match (request.version(), uri.authority().map(http::uri::Authority::as_str), named) {
        // HTTP/2 is spoken within TLS alone, so there is one scheme (RFC 9113 section 8.3.1).
        (http::Version::HTTP_2, ..) if uri.scheme() != Some(&Scheme::HTTPS) => None,
        (http::Version::HTTP_2, Some(a), None) => Some(a),
        (http::Version::HTTP_2, Some(a), Some(h)) if a.eq_ignore_ascii_case(h) => Some(a),
        (http::Version::HTTP_11, None, Some(h)) => Some(h),
        _ => None,
    };
    found.filter(|host| is_host(host)).ok_or_else(wrong)
}

/// Whether a text can be a host and a port (RFC 9112 section 3.2: any other Host is answered with 400).
fn is_host(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|b| b.is_ascii_alphanumeric() || b"-._~:[]".contains(&b))
}

/// What an answer carries, by the part of the house that gives it.
#[derive(Clone, Copy)]
pub(crate) enum Dress {
    /// Our own pages: everything in section "secure defaults".
    Portal,
    /// A hypervisor's answer: nobody caches it, no browser shows it as a page of ours.
    Api,
}

const PORTAL: &[(&str, &str)] = &[
    (
        "content-security-policy",
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data: blob:; connect-src 'self'; \
         font-src 'self'; base-uri 'none'; object-src 'none'; form-action 'self'; frame-ancestors 'none'; \
         require-trusted-types-for 'script'",
    ),
    ("strict-transport-security", "max-age=63072000; includeSubDomains"),
    ("x-content-type-options", "nosniff"),
    ("x-frame-options", "DENY"),
    ("referrer-policy", "no-referrer"),
    ("cross-origin-opener-policy", "same-origin"),
    ("cross-origin-resource-policy", "same-origin"),
    ("cross-origin-embedder-policy", "require-corp"),
    (
        "permissions-policy",
        "accelerometer=(), autoplay=(), camera=(), clipboard-read=(), clipboard-write=(self), display-capture=(), \
         fullscreen=(self), geolocation=(), gyroscope=(), hid=(), magnetometer=(), microphone=(), midi=(), payment=(), \
         publickey-credentials-create=(self), publickey-credentials-get=(self), screen-wake-lock=(), serial=(), usb=(), xr-spatial-tracking=()",
    ),
    ("cache-control", "no-store"),
];
const API: &[(&str, &str)] = &[
    ("cache-control", "no-store"),
    ("x-content-type-options", "nosniff"),
    ("content-security-policy", "default-src 'none'; frame-ancestors 'none'; sandbox"),
    ("cross-origin-resource-policy", "same-origin"),
];

/// Puts the standing headers on an answer. A caching rule that an asset set stays; all others are ours.
pub(crate) fn dress(house: &House, answer: &mut Response, dress: Dress) {
    let headers: &mut HeaderMap = answer.headers_mut();
    let table = match dress {
        Dress::Portal => PORTAL,
        Dress::Api => API,
    };
    for (name, value) in table {
        let name = HeaderName::from_static(name);
        // A browser would turn every other program on localhost to HTTPS for two years.
        if name == header::STRICT_TRANSPORT_SECURITY && house.is_localhost() {
            continue;
        }
        let keep = matches!(dress, Dress::Portal) && name == header::CACHE_CONTROL && headers.contains_key(&name);
        if !keep {
            headers.insert(name, HeaderValue::from_static(value));
        }
    }
}
