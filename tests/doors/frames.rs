// SPDX-License-Identifier: Apache-2.0
//! HTTP/2 that no library would send: requests written frame by frame to an API's door, which become other requests when
//! somebody writes them as HTTP/1.1 for the hypervisor. The tool behind them is allowed everything.

use super::wire::{Door, FIRST, NEXT, OPEN, SMUGGLED};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

/// RFC 9113 section 3.4, and an empty SETTINGS frame.
const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0";
/// Kinds of frames and their flags, RFC 9113 section 6.
const DATA: u8 = 0;
const HEADERS: u8 = 1;
const END_STREAM: u8 = 1;
const END_HEADERS: u8 = 4;
/// `:status: 200` of HPACK's own table, RFC 7541 appendix A.
const STATUS_200: u8 = 0x88;

type Field = (&'static str, String);

fn frame(kind: u8, flags: u8, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).expect("short").to_be_bytes();
    [&length[1..], &[kind, flags, 0, 0, 0, 1], payload].concat()
}

/// A length of HPACK with a prefix of seven bits, RFC 7541 section 5.1.
fn text(of: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    if let Some(mut rest) = of.len().checked_sub(127) {
        out.push(127);
        while rest >= 128 {
            out.push(u8::try_from(rest % 128).expect("seven bits") | 128);
            rest /= 128;
        }
        out.push(u8::try_from(rest).expect("seven bits"));
    } else {
        out.push(u8::try_from(of.len()).expect("seven bits"));
    }
    out.extend_from_slice(of);
    out
}

/// A request on the first stream: each field as a literal that no table learns.
fn request(fields: &[Field], body: Option<&str>) -> Vec<u8> {
    let block: Vec<u8> = fields
        .iter()
        .flat_map(|(name, value)| [vec![0], text(name.as_bytes()), text(value.as_bytes())].concat())
        .collect();
    let end = if body.is_some() { 0 } else { END_STREAM };
    let mut bytes = [PREFACE, &frame(HEADERS, END_HEADERS | end, &block)].concat();
    if let Some(body) = body {
        bytes.extend(frame(DATA, END_STREAM, body.as_bytes()));
    }
    bytes
}

/// What came of it.
#[derive(Debug, PartialEq)]
enum Came {
    Ok,
    /// Answered with another status.
    Refused,
    /// The stream or the connection was ended without an answer.
    Ended,
}

/// The frames that come back, by kind.
async fn frames(door: &Door, bytes: &[u8]) -> Vec<(u8, Vec<u8>)> {
    let mut stream = door.connect(b"h2").await;
    stream.write_all(bytes).await.ok();
    let (mut got, mut part, mut patience) = (Vec::new(), [0; 4096], FIRST);
    while let Ok(Ok(read @ 1..)) = tokio::time::timeout(patience, stream.read(&mut part)).await {
        got.extend_from_slice(&part[..read]);
        patience = NEXT;
    }
    let (mut all, mut rest) = (Vec::new(), &got[..]);
    while let [a, b, c, kind, _, _, _, _, _, more @ ..] = rest {
        let length = usize::try_from(u32::from_be_bytes([0, *a, *b, *c])).expect("a length");
        let (payload, after) = more.split_at(length.min(more.len()));
        all.push((*kind, payload.to_vec()));
        rest = after;
    }
    all
}

async fn send(door: &Door, bytes: &[u8]) -> Came {
    let all = frames(door, bytes).await;
    let Some((_, answer)) = all.iter().find(|(kind, _)| *kind == HEADERS) else { return Came::Ended };
    // What changes the size of the table may come before it.
    let status = answer.iter().find(|b| **b & 0xe0 != 0x20);
    if status == Some(&STATUS_200) { Came::Ok } else { Came::Refused }
}

/// A client that is sent a body with an answer to HEAD closes its connection, and whatever else it asked over it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn head_is_answered_without_a_body() {
    let door = Door::open().await;
    let (host, bearer) = (format!("localhost:{}", door.port), format!("Bearer {}", door.token));
    for (path, host) in [(OPEN, &*host), ("/1.0/unheard-of", &*host), ("/..", &*host), (OPEN, "a@b")] {
        let fields = [(":method", "HEAD"), (":scheme", "https"), (":authority", host), (":path", path)];
        let mut fields: Vec<Field> = fields.map(|(name, value)| (name, value.to_owned())).to_vec();
        fields.push(("authorization", bearer.clone()));
        let all = frames(&door, &request(&fields, None)).await;
        assert!(all.iter().any(|(kind, _)| *kind == HEADERS), "{path}: {all:?}");
        assert!(all.iter().all(|(kind, payload)| *kind != DATA || payload.is_empty()), "{path}: {all:?}");
    }
    door.gateway.stop().await;
}

/// SEC-069: whatever an HTTP/2 request says, the hypervisor hears of one request that was decided on, or of none.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_frame_becomes_another_request_behind_the_gateway() {
    let door = Door::open().await;
    let (host, bearer) = (format!("localhost:{}", door.port), format!("Bearer {}", door.token));
    let plain = |method: &str, path: &str| -> Vec<Field> {
        vec![
            (":method", method.to_owned()),
            (":scheme", "https".to_owned()),
            (":authority", host.clone()),
            (":path", path.to_owned()),
            ("authorization", bearer.clone()),
        ]
    };
    let with = |name: &'static str, value: &str| {
        let mut fields = plain("GET", OPEN);
        fields.push((name, value.to_owned()));
        fields
    };
    let instead = |at: &str, value: &str| {
        let mut fields = plain("GET", OPEN);
        for (name, old) in &mut fields {
            if *name == at {
                value.clone_into(old);
            }
        }
        fields
    };
    let without = |at: &str| plain("GET", OPEN).into_iter().filter(|(name, _)| *name != at).collect::<Vec<_>>();
    assert_eq!(send(&door, &request(&plain("GET", OPEN), None)).await, Came::Ok, "what is right is answered");
    assert_eq!(send(&door, &request(&with("te", "trailers"), None)).await, Came::Ok, "the one that is allowed");

    let inner = format!("GET {SMUGGLED} HTTP/1.1\r\nHost: {host}\r\nAuthorization: {bearer}\r\n\r\n");
    let rides = format!("x\r\n\r\n{inner}");
    let mut vectors: Vec<(Vec<Field>, Option<&str>)> = vec![
        // What belongs to a connection of HTTP/1.1 (RFC 9113 section 8.2.2).
        (with("transfer-encoding", "chunked"), None),
        (with("transfer-encoding", "chunked"), Some(&inner)),
        (with("connection", "close"), None),
        (with("connection", "authorization"), None),
        (with("keep-alive", "timeout=5"), None),
        (with("proxy-connection", "keep-alive"), None),
        (with("upgrade", "h2c"), None),
        (with("upgrade", "websocket"), None),
        (with("te", "gzip"), None),
        (with("te", "trailers, chunked"), None),
        // Lines within names and values (section 8.2.1).
        (with("x", &rides), None),
        (with("x", "a\nb: c"), None),
        (with("x", "a\rb: c"), None),
        (with("x", "a\0b"), None),
        (with("x\r\ny", "z"), None),
        (with("x: y\r\ntransfer-encoding", "chunked"), None),
        (with("X", "y"), None),
        (with("x y", "z"), None),
        (with("", "z"), None),
        (with("x:", "z"), None),
        (instead(":method", "GET / HTTP/1.1\r\nX: y"), None),
        (instead(":method", ""), None),
        (instead(":method", "GET "), None),
        (instead(":path", &format!("{OPEN} HTTP/1.1\r\nHost: {host}\r\n\r\n{inner}")), None),
        (instead(":path", &format!("{OPEN} HTTP/1.1")), None),
        (instead(":path", ""), None),
        (instead(":path", "*"), None),
        (instead(":path", "1.0/profiles/smuggled"), None),
        (instead(":path", "http://evil.example/1.0/profiles/smuggled"), None),
        (instead(":path", "//evil.example/1.0/profiles/smuggled"), None),
        (instead(":path", "/1.0/profiles/open/../smuggled"), None),
        (instead(":path", "/1.0/profiles/open/%2e%2e/smuggled"), None),
        (instead(":scheme", "https://evil.example/1.0/profiles/smuggled?"), None),
        (instead(":scheme", ""), None),
        (instead(":scheme", "http"), None),
        (instead(":scheme", "ftp"), None),
        // Whom it is for, in two ways (section 8.3.1).
        (instead(":authority", "evil.example\r\nX: y"), None),
        (instead(":authority", "user@localhost"), None),
        (instead(":authority", "localhost/1.0/profiles/smuggled"), None),
        (instead(":authority", ""), None),
        (with("host", "evil.example"), None),
        (with("host", ""), None),
        // Fields of the request line twice, too late, missing, or of an answer.
        (with(":path", SMUGGLED), None),
        (with(":method", "DELETE"), None),
        (with(":authority", "evil.example"), None),
        (with(":status", "200"), None),
        (with(":unheard-of", "x"), None),
        (without(":path"), None),
        (without(":method"), None),
        (without(":scheme"), None),
        (without(":authority"), None),
        // Ends that are not where they are said to be.
        (with("content-length", "0"), Some(&inner)),
        (with("content-length", "1"), Some(&inner)),
        (with("content-length", "100000"), Some(&inner)),
        (with("content-length", "+1"), Some("x")),
        (with("content-length", "1, 1"), Some("x")),
        (with("content-length", "5"), None),
    ];
    let mut lengths = with("content-length", "0");
    lengths.push(("content-length", inner.len().to_string()));
    vectors.push((lengths, Some(&inner)));
    // A tunnel, and one that says what it becomes (RFC 8441), which was not offered.
    let tunnel = |more: &[(&'static str, &str)]| -> Vec<Field> {
        let ends = [(":method", "CONNECT"), (":authority", "127.0.0.1:22")];
        let fields = ends.iter().chain(more).map(|(name, value)| (*name, (*value).to_owned()));
        fields.chain([("authorization", bearer.clone())]).collect()
    };
    vectors.push((tunnel(&[]), Some(&inner)));
    let becomes = [(":protocol", "websocket"), (":scheme", "https"), (":path", "/1.0/events")];
    vectors.push((tunnel(&becomes), Some(&inner)));
    assert!(vectors.len() >= 55, "{}", vectors.len());

    let mut let_through = Vec::new();
    for (fields, body) in &vectors {
        let mut sent = vec![fields.clone()];
        // The same with a method that has a body, where the vector leaves the method alone.
        let mut change = fields.clone();
        if let Some((_, method)) = change.iter_mut().find(|(name, value)| *name == ":method" && value == "GET") {
            "POST".clone_into(method);
            sent.push(change);
        }
        for fields in sent {
            let shown: Vec<_> = fields.iter().filter(|(name, _)| *name != "authorization").collect();
            let came = send(&door, &request(&fields, *body)).await;
            assert_eq!(door.smuggled(), 0, "{shown:?}: it was asked for; {came:?}");
            if came == Came::Ok {
                let_through.push(format!("{shown:?}"));
            }
        }
    }
    assert_eq!(let_through, Vec::<String>::new());
    assert_eq!(door.lxd.asked("POST"), 0);
    assert_eq!(send(&door, &request(&plain("GET", OPEN), None)).await, Came::Ok, "the door is as it was");
    door.gateway.stop().await;
}
