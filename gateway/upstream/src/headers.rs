// SPDX-License-Identifier: Apache-2.0
//! Header hygiene, both ways. Strip, then set: whatever the client sent is removed before ours is added.
//!
//! Names are compared after folding `_`, `.` and `-` into one (header names are already lower case), because servers
//! behind us fold them too: an alias of a reserved name is refused, not forwarded (SEC-056). Sources: RFC 9110 7.6.1
//! for hop-by-hop fields, RFC 9112 6.3 for framing.

use crate::error::{Error, Fault};
use http::{
    HeaderMap, HeaderName, HeaderValue, Method,
    header::{CONNECTION, CONTENT_LENGTH, CONTENT_LOCATION, EXPECT, HOST, LOCATION, TRANSFER_ENCODING, UPGRADE},
};
use portcullis_policy::classify::Upgrade;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fate {
    Keep,
    Strip,
}

/// Names of a request that never go upstream, apart from prefixes.
const REQUEST_NAMES: &[&str] = &[
    // hop-by-hop
    "connection",
    "keep-alive",
    "te",
    "trailer",
    "trailers",
    "transfer-encoding",
    "upgrade",
    "expect",
    "http2-settings",
    // set by us
    "host",
    "x-request-id",
    // credentials, and what a server may take for one
    "authorization",
    "authentication",
    "cookie",
    "cookie2",
    "pveauthcookie",
    "csrfpreventiontoken",
    "pveclientip",
    "pvedisableproxy",
    "x-api-key",
    "api-key",
    "apikey",
    "x-csrf-token",
    "x-openstack-request-id",
    "x-role",
    "x-roles",
    "openstack-system-scope",
    "x-xsrf-token",
    "x-service-token",
    "x-subject-token",
    // parameters that oVirt also takes from headers, and its way to tie what it does to who asked
    "filter",
    "all-content",
    "correlation-id",
    "prefer",
    "session-ttl",
    "jsessionid",
    "vmware-api-session-id",
    "vmware-cis-session-id",
    "x-vmware-vcloud-access-token",
    "client-cert",
    "client-cert-chain",
    // who the client is
    "forwarded",
    "via",
    "x-real-ip",
    "x-client-ip",
    "client-ip",
    "true-client-ip",
    "cf-connecting-ip",
    "x-cluster-client-ip",
    "fastly-client-ip",
    "x-host",
    "x-user",
    "x-username",
    "x-email",
    "x-groups",
    "front-end-https",
    "x-original-url",
    "x-rewrite-url",
    "x-original-method",
    "x-original-uri",
    // another method or address than the one that was decided on
    "x-http-method",
    "x-http-method-override",
    "x-method-override",
    "x-http-path-override",
    // extensions would change frames that the gateway reads
    "sec-websocket-extensions",
];

const REQUEST_PREFIXES: &[&str] = &[
    "proxy-",
    "x-forwarded-",
    "x-forward-",
    "x-remote-",
    "remote-",
    "impersonate-",
    "x-auth-",
    "x-authenticated-",
    "x-identity-",
    "x-project-",
    "x-domain-",
    "x-tenant-",
    "x-user-",
    "x-service-",
    "x-ssl-",
    "ssl-client-",
    "x-client-cert",
    "x-envoy-",
    "x-accel-",
    "x-ntnx-",
    "x-oidc-",
    "x-webauth-",
    "x-goog-authenticated-",
    "x-amzn-oidc-",
];

/// LXD and Incus take parameters of uploads from headers of their own; the rest of those names say who the caller is.
const VENDOR_PREFIXES: &[&str] = &["x-lxd-", "x-incus-"];
const VENDOR_KEPT: &[&str] = &[
    "aliases",
    "devices",
    "filename",
    "fingerprint",
    "gid",
    "mode",
    "modified",
    "name",
    "pool",
    "profiles",
    "properties",
    "public",
    "type",
    "uid",
    "write",
];

fn fate_of_request(name: &str) -> Fate {
    // The names that most requests consist of, first.
    match name {
        "accept" | "accept-encoding" | "accept-language" | "content-length" | "content-type" | "user-agent"
        | "if-match" | "if-none-match" | "if-modified-since" | "range" => return Fate::Keep,
        _ => {}
    }
    for prefix in VENDOR_PREFIXES {
        if let Some(rest) = name.strip_prefix(prefix) {
            return if VENDOR_KEPT.contains(&rest) { Fate::Keep } else { Fate::Strip };
        }
    }
    if REQUEST_NAMES.contains(&name) || REQUEST_PREFIXES.iter().any(|p| name.starts_with(p)) {
        Fate::Strip
    } else {
        Fate::Keep
    }
}

/// What a request may bring that its body must agree with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Payload {
    /// No body.
    None,
    /// So many bytes.
    Exact(u64),
    /// Until it ends.
    Unknown,
}

/// Turns the client's headers into the ones of the canonical request: strips in place, then sets.
pub(crate) fn prepare(
    method: &Method,
    headers: &mut HeaderMap,
    payload: Payload,
    upgrade: Upgrade,
    host: &HeaderValue,
    request_id: HeaderValue,
) -> Result<Asked, Error> {
    check_framing(method, headers, payload)?;
    let asked = wants_websocket(headers);
    let mut strip: Vec<HeaderName> = Vec::new();
    for name in headers.keys() {
        let text = name.as_str();
        if text.bytes().any(|b| matches!(b, b'_' | b'.')) {
            let folded = text.replace(['_', '.'], "-");
            // `content-length` is kept under its own name, and means framing under any other.
            if fate_of_request(&folded) == Fate::Strip || folded == "content-length" {
                return Err(Error::Request(format!(
                    "the header {} is another spelling of a reserved one",
                    shown(text)
                )));
            }
        } else if fate_of_request(text) == Fate::Strip {
            strip.push(name.clone());
        }
    }
    for value in headers.get_all(CONNECTION) {
        named_by_connection(value, &mut strip)?;
    }
    for name in strip {
        headers.remove(name);
    }
    headers.insert(HOST, host.clone());
    headers.insert(HeaderName::from_static("x-request-id"), request_id);
    if asked == Asked::WebSocket {
        if upgrade != Upgrade::WebSocket {
            return Err(Error::Request("this address cannot become a WebSocket".to_owned()));
        }
        if *method != Method::GET || payload != Payload::None {
            return Err(Error::Request("a WebSocket begins with a GET without a body".to_owned()));
        }
        headers.insert(CONNECTION, HeaderValue::from_static("Upgrade"));
        headers.insert(UPGRADE, HeaderValue::from_static("websocket"));
    }
    Ok(asked)
}

/// What a request wants to become.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Asked {
    /// An answer.
    Answer,
    /// A WebSocket.
    WebSocket,
}

fn wants_websocket(headers: &HeaderMap) -> Asked {
    let upgrades = headers.get_all(UPGRADE).iter().any(|v| v.as_bytes().eq_ignore_ascii_case(b"websocket"));
    let named = || {
        let tokens = headers.get_all(CONNECTION).iter().filter_map(|v| v.to_str().ok()).flat_map(|v| v.split(','));
        tokens.map(str::trim).any(|t| t.eq_ignore_ascii_case("upgrade"))
    };
    if upgrades && named() { Asked::WebSocket } else { Asked::Answer }
}

/// RFC 9112 6.3: one way to say where the body ends, or the request is refused.
fn check_framing(method: &Method, headers: &HeaderMap, payload: Payload) -> Result<(), Error> {
    let bad = |why: &str| Err(Error::Request(why.to_owned()));
    let mut lengths = headers.get_all(CONTENT_LENGTH).iter();
    let first = lengths.next();
    if lengths.next().is_some() {
        return bad("more than one Content-Length");
    }
    if first.is_some() && headers.contains_key(TRANSFER_ENCODING) {
        return bad("both Content-Length and Transfer-Encoding");
    }
    if let Some(value) = first {
        let digits = value.as_bytes();
        let number = if digits.iter().all(u8::is_ascii_digit) { std::str::from_utf8(digits).ok() } else { None };
        let Some(length) = number.and_then(|n| n.parse::<u64>().ok()) else {
            return bad("Content-Length is no number");
        };
        let fits = match payload {
            Payload::None => length == 0,
            Payload::Exact(found) => found == length,
            Payload::Unknown => true,
        };
        if !fits {
            return bad("Content-Length differs from the body");
        }
    } else if payload == Payload::Unknown && matches!(*method, Method::GET | Method::HEAD) {
        return bad("a GET or HEAD with a body of unknown length");
    }
    if matches!(*method, Method::CONNECT | Method::TRACE) {
        return bad("the methods CONNECT and TRACE are not forwarded");
    }
    // The body is asked for at once, so the front says 100 (Continue) by itself; anything else cannot be met.
    if headers.get(EXPECT).is_some_and(|v| !v.as_bytes().eq_ignore_ascii_case(b"100-continue")) {
        return bad("Expect asks for something other than 100-continue");
    }
    Ok(())
}

/// Adds the names that a `Connection` value lists as meant for this hop only.
fn named_by_connection(value: &HeaderValue, strip: &mut Vec<HeaderName>) -> Result<(), Error> {
    let bad = || Error::Request("Connection names something that is no header name".to_owned());
    for token in value.to_str().map_err(|_| bad())?.split(',').map(str::trim).filter(|t| !t.is_empty()) {
        let name = HeaderName::from_bytes(token.as_bytes()).map_err(|_| bad())?;
        // Dropping these would change what the request means to the next hop.
        if matches!(name.as_str(), "host" | "content-length" | "content-type" | "content-encoding" | "if-match") {
            return Err(Error::Request(format!("Connection may not name {name}")));
        }
        strip.push(name);
    }
    Ok(())
}

/// Names of an answer that never reach the client.
const ANSWER_NAMES: &[&str] = &[
    "connection",
    "keep-alive",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
    "set-cookie",
    "set-cookie2",
    "www-authenticate",
    "authentication-info",
    "server",
    "via",
    "x-powered-by",
    "alt-svc",
    "strict-transport-security",
    "public-key-pins",
    "public-key-pins-report-only",
    "expect-ct",
    "refresh",
    "clear-site-data",
    "link",
    "x-sendfile",
    "x-reproxy-url",
    "service-worker-allowed",
    "sourcemap",
    "report-to",
    "nel",
    "x-lighttpd-send-file",
    "timing-allow-origin",
    "sec-websocket-extensions",
];
const ANSWER_PREFIXES: &[&str] = &["proxy-", "x-accel-", "access-control-"];

fn fate_of_answer(name: &str) -> Fate {
    match name {
        "content-type" | "content-length" | "date" | "etag" | "last-modified" | "cache-control" => return Fate::Keep,
        _ => {}
    }
    if ANSWER_NAMES.contains(&name) || ANSWER_PREFIXES.iter().any(|p| name.starts_with(p)) {
        Fate::Strip
    } else {
        Fate::Keep
    }
}

/// Checks the framing of an answer (RFC 9112 6.3): hyper would take `Transfer-Encoding` over `Content-Length`, another
/// hop might not, so both together end the connection.
pub(crate) fn check_answer(headers: &HeaderMap) -> Result<(), Fault> {
    let bad = |why: &str| Err(Fault::Protocol(why.to_owned()));
    let mut codings = headers.get_all(TRANSFER_ENCODING).iter();
    let Some(coding) = codings.next() else { return Ok(()) };
    if headers.contains_key(CONTENT_LENGTH) {
        return bad("both Content-Length and Transfer-Encoding");
    }
    if codings.next().is_some() || !coding.as_bytes().eq_ignore_ascii_case(b"chunked") {
        return bad("a Transfer-Encoding other than chunked");
    }
    Ok(())
}

/// Strips an answer in place and makes its addresses relative to the gateway's own host. `origins` are the spellings
/// of the hypervisor's own origin, such as `https://10.0.0.5:8443`.
pub(crate) fn clean(headers: &mut HeaderMap, origins: &[String]) -> Result<(), Fault> {
    let mut strip: Vec<HeaderName> = Vec::new();
    for name in headers.keys() {
        if fate_of_answer(name.as_str()) == Fate::Strip {
            strip.push(name.clone());
        }
    }
    for value in headers.get_all(CONNECTION) {
        let tokens = value.to_str().unwrap_or_default().split(',').map(str::trim);
        let names = tokens.filter_map(|t| HeaderName::from_bytes(t.as_bytes()).ok());
        strip.extend(names.filter(|n| *n != CONTENT_LENGTH));
    }
    for name in strip {
        headers.remove(name);
    }
    for name in [LOCATION, CONTENT_LOCATION] {
        let Some(value) = headers.get(&name) else { continue };
        let relative = relative(value, origins)?;
        headers.insert(name, relative);
    }
    Ok(())
}

fn relative(value: &HeaderValue, origins: &[String]) -> Result<HeaderValue, Fault> {
    let foreign = || Fault::Protocol("an answer that leads to another host".to_owned());
    let text = value.to_str().map_err(|_| foreign())?;
    let own = origins.iter().find_map(|o| {
        let rest = text.get(o.len()..)?;
        text.get(..o.len()).filter(|head| head.eq_ignore_ascii_case(o)).map(|_| rest)
    });
    let path = match own {
        Some("") => "/",
        Some(rest) => rest,
        None => text,
    };
    // `//host` and `/\host` are other hosts to a browser.
    let mut bytes = path.bytes();
    let is_local = bytes.next() == Some(b'/') && !matches!(bytes.next(), Some(b'/' | b'\\'));
    if !is_local {
        return Err(foreign());
    }
    HeaderValue::from_str(path).map_err(|_| foreign())
}

fn shown(name: &str) -> String {
    name.chars().take(64).collect()
}

#[cfg(test)]
mod tests;
