// SPDX-License-Identifier: Apache-2.0
use super::*;

fn map(pairs: &[(&str, &str)]) -> HeaderMap {
    let mut map = HeaderMap::new();
    for (n, v) in pairs {
        map.append(HeaderName::from_bytes(n.as_bytes()).unwrap(), HeaderValue::from_str(v).unwrap());
    }
    map
}

fn run(pairs: &[(&str, &str)]) -> Result<HeaderMap, Error> {
    let mut headers = map(pairs);
    let host = HeaderValue::from_static("hv:8443");
    let id = HeaderValue::from_static("rid");
    prepare(&Method::GET, &mut headers, Payload::None, Upgrade::None, &host, id)?;
    Ok(headers)
}

// SEC-055
#[test]
fn reserved_headers_of_the_client_never_go_upstream() {
    let mut pairs: Vec<(String, &str)> = Vec::new();
    for name in
        REQUEST_NAMES.iter().filter(|n| !matches!(**n, "expect" | "transfer-encoding" | "connection" | "upgrade"))
    {
        pairs.push(((*name).to_owned(), "evil"));
        pairs.push(((*name).to_owned(), "evil twice"));
        pairs.push((name.to_uppercase(), "evil thrice"));
    }
    for prefix in REQUEST_PREFIXES {
        pairs.push((format!("{prefix}user"), "evil"));
    }
    for vendor in VENDOR_PREFIXES {
        pairs.push((format!("{vendor}forwarded-username"), "evil"));
        pairs.push((format!("{vendor}authenticated"), "evil"));
    }
    pairs.push(("Accept".into(), "kept"));
    pairs.push(("X-LXD-filename".into(), "kept"));
    let borrowed: Vec<_> = pairs.iter().map(|(n, v)| (n.as_str(), *v)).collect();
    let out = run(&borrowed).unwrap();
    let left: Vec<_> = out.iter().map(|(n, v)| (n.as_str().to_owned(), v.to_str().unwrap().to_owned())).collect();
    assert!(left.iter().all(|(_, v)| !v.starts_with("evil")), "{left:?}");
    assert_eq!(out.get("host").unwrap(), "hv:8443");
    assert_eq!(out.get_all("x-request-id").iter().count(), 1);
    assert_eq!(out.get("accept").unwrap(), "kept");
    assert_eq!(out.get("x-lxd-filename").unwrap(), "kept");
}

#[test]
fn another_spelling_of_a_reserved_header_is_refused() {
    for name in [
        "X_Forwarded_User",
        "x-forwarded_for",
        "X.Forwarded.For",
        "authorization_",
        "Proxy_Authorization",
        "x_real_ip",
        "content_length",
        "Content.Length",
        "transfer_encoding",
        "X_Remote-User",
        "IMPERSONATE_USER",
        "x_lxd_authenticated",
        "host_",
    ] {
        let refused = run(&[(name, "x")]);
        let reserved_with_tail = matches!(name, "authorization_" | "host_");
        assert_eq!(refused.is_err(), !reserved_with_tail, "{name}");
    }
    assert!(run(&[("x_harmless", "x")]).unwrap().contains_key("x_harmless"));
}

#[test]
fn what_connection_names_stays_on_this_hop() {
    let out =
        run(&[("connection", "close, X-Secret-Hop"), ("x-secret-hop", "1"), ("keep-alive", "5"), ("te", "trailers")])
            .unwrap();
    assert!(!out.contains_key("x-secret-hop") && !out.contains_key("connection") && !out.contains_key("te"));
    for bad in ["content-length", "Host", "x, content-type", "a b", "\u{e9}"] {
        assert!(run(&[("connection", bad)]).is_err(), "{bad}");
    }
}

#[test]
fn a_request_says_once_where_its_body_ends() {
    let host = HeaderValue::from_static("h");
    let go = |method: Method, pairs: &[(&str, &str)], payload| {
        let id = HeaderValue::from_static("rid");
        prepare(&method, &mut map(pairs), payload, Upgrade::None, &host, id)
    };
    let post = |pairs: &[(&str, &str)], payload| go(Method::POST, pairs, payload);
    assert!(post(&[("content-length", "3")], Payload::Exact(3)).is_ok());
    assert!(post(&[], Payload::Unknown).is_ok());
    assert!(post(&[("content-length", "3")], Payload::Unknown).is_ok());
    assert!(post(&[("content-length", "0")], Payload::None).is_ok());
    for length in ["+3", "0x3", "3 ", "3,3", "", "-1", "99999999999999999999999"] {
        assert!(post(&[("content-length", length)], Payload::Exact(3)).is_err(), "{length:?}");
    }
    assert!(post(&[("content-length", "3"), ("content-length", "3")], Payload::Exact(3)).is_err());
    assert!(post(&[("content-length", "3"), ("transfer-encoding", "chunked")], Payload::Exact(3)).is_err());
    assert!(post(&[("content-length", "4")], Payload::Exact(3)).is_err());
    assert!(post(&[("content-length", "4")], Payload::None).is_err());
    assert!(go(Method::GET, &[], Payload::Unknown).is_err());
    assert!(go(Method::CONNECT, &[], Payload::None).is_err());
    assert!(go(Method::TRACE, &[], Payload::None).is_err());
    assert!(post(&[("expect", "100-continue")], Payload::Exact(3)).is_ok());
    assert!(post(&[("expect", "200-ok")], Payload::Exact(3)).is_err());
}

#[test]
fn a_websocket_is_asked_for_plainly_or_not_at_all() {
    let ws = [
        ("connection", "keep-alive, Upgrade"),
        ("upgrade", "WebSocket"),
        ("sec-websocket-extensions", "permessage-deflate"),
    ];
    let host = HeaderValue::from_static("h");
    let id = || HeaderValue::from_static("rid");
    let mut headers = map(&ws);
    let asked = prepare(&Method::GET, &mut headers, Payload::None, Upgrade::WebSocket, &host, id());
    assert_eq!(asked.unwrap(), Asked::WebSocket);
    assert_eq!(headers.get("upgrade").unwrap(), "websocket");
    assert!(!headers.contains_key("sec-websocket-extensions"));
    assert!(prepare(&Method::GET, &mut map(&ws), Payload::None, Upgrade::None, &host, id()).is_err());
    assert!(prepare(&Method::POST, &mut map(&ws), Payload::None, Upgrade::WebSocket, &host, id()).is_err());
    assert!(prepare(&Method::GET, &mut map(&ws), Payload::Exact(1), Upgrade::WebSocket, &host, id()).is_err());
    // Another protocol is no upgrade: the header just goes.
    let mut h2c = map(&[("connection", "Upgrade, HTTP2-Settings"), ("upgrade", "h2c"), ("http2-settings", "x")]);
    assert_eq!(prepare(&Method::GET, &mut h2c, Payload::None, Upgrade::WebSocket, &host, id()).unwrap(), Asked::Answer);
    assert!(!h2c.contains_key("upgrade") && !h2c.contains_key("http2-settings") && !h2c.contains_key("connection"));
}

// SEC-061
#[test]
fn an_answer_brings_no_cookie_and_no_way_to_another_host() {
    let origins = ["https://hv:8443".to_owned(), "https://hv".to_owned()];
    let mut headers = map(&[
        ("set-cookie", "a=b; Domain=gw"),
        ("set-cookie", "c=d"),
        ("www-authenticate", "Basic"),
        ("server", "x"),
        ("alt-svc", "h3"),
        ("strict-transport-security", "1"),
        ("connection", "x-hop"),
        ("x-hop", "1"),
        ("access-control-allow-origin", "*"),
        ("x-accel-redirect", "/etc/passwd"),
        ("content-type", "text/plain"),
        ("etag", "\"1\""),
        ("location", "https://hv:8443/1.0/x?y=1"),
    ]);
    clean(&mut headers, &origins).unwrap();
    let mut left: Vec<_> = headers.keys().map(HeaderName::as_str).collect();
    left.sort_unstable();
    assert_eq!(left, ["content-type", "etag", "location"]);
    assert_eq!(headers.get("location").unwrap(), "/1.0/x?y=1");
    for (given, expected) in [("/a", Some("/a")), ("https://HV:8443", Some("/")), ("https://hv/x", Some("/x"))] {
        let mut h = map(&[("location", given)]);
        clean(&mut h, &origins).unwrap();
        assert_eq!(h.get("location").map(|v| v.to_str().unwrap()), expected, "{given}");
    }
    for bad in [
        "https://evil/x",
        "//evil/x",
        "/\\evil",
        "http://hv:8443/x",
        "https://hv:8443.evil/x",
        "https://hv:8443@evil/",
        "javascript:1",
        "x",
    ] {
        assert!(clean(&mut map(&[("location", bad)]), &origins).is_err(), "{bad}");
    }
}

// SEC-070
#[test]
fn an_answer_with_two_lengths_is_refused() {
    assert!(check_answer(&map(&[("transfer-encoding", "chunked")])).is_ok());
    assert!(check_answer(&map(&[("content-length", "1")])).is_ok());
    assert!(check_answer(&map(&[("content-length", "1"), ("transfer-encoding", "chunked")])).is_err());
    assert!(check_answer(&map(&[("transfer-encoding", "gzip, chunked")])).is_err());
    assert!(check_answer(&map(&[("transfer-encoding", "chunked"), ("transfer-encoding", "identity")])).is_err());
}
