// SPDX-License-Identifier: Apache-2.0
//! The forwarder against a scripted server: framing, reuse, early answers, upgrades, memory.

use crate::support::{
    Client, config,
    fake::{Fake, field, head},
    fleet, peak_memory, permit, whole,
};
use bytes::Bytes;
use http::{Method, Request};
use http_body_util::{BodyExt, StreamBody};
use hyper::body::Frame;
use portcullis_domain::{Action, Clock, ManualClock, OwnObject, Resource, SystemClock};
use portcullis_policy::classify::Upgrade;
use portcullis_upstream::{Answer, Error, Fault, Fleet};
use std::{
    sync::{Arc, Mutex},
    time::Duration,
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::UnixStream,
};

async fn client(fake: &Fake) -> Client {
    Client::new(&fleet(vec![config(fake.lxd("lab"))]), "lab").await
}

/// Answers every request on a connection with the same bytes; then closes where `Connection: close` says so.
fn always(answer: &'static [u8]) -> Fake {
    Fake::start(move |_, mut stream| async move {
        let mut rest = Vec::new();
        while head(&mut stream, &mut rest).await.is_some() {
            if stream.write_all(answer).await.is_err() {
                return;
            }
        }
    })
}

fn fault(error: Error) -> Fault {
    match error {
        Error::Upstream { fault, .. } => fault,
        other => panic!("{other}"),
    }
}

#[tokio::test]
async fn one_canonical_request_goes_upstream() {
    let seen = Arc::new(Mutex::new(String::new()));
    let copy = Arc::clone(&seen);
    let fake = Fake::start(move |_, mut stream| {
        let copy = Arc::clone(&copy);
        async move {
            let text = head(&mut stream, &mut Vec::new()).await.unwrap();
            *copy.lock().unwrap() = text;
            stream
                .write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nSet-Cookie: a=b\r\nServer: x\r\n\r\nok")
                .await
                .unwrap();
        }
    });
    let client = client(&fake).await;
    let request = Request::get("/1.0/instances?recursion=1")
        .header("host", "evil.example")
        .header("authorization", "Bearer pct_canary")
        .header("cookie", "__Host-sid=canary")
        .header("x-forwarded-for", "1.2.3.4")
        .header("x-lxd-forwarded-username", "root")
        .header("x-request-id", "theirs")
        .header("connection", "close, x-hop")
        .header("x-hop", "canary")
        .header("accept", "application/json")
        .body(whole(""))
        .unwrap();
    let (answer, body) = client.ask(request).await.unwrap();
    assert_eq!(&body[..], b"ok");
    assert!(!answer.headers.contains_key("set-cookie") && !answer.headers.contains_key("server"));
    let text = seen.lock().unwrap().clone();
    let mut lines: Vec<&str> = text.trim_end().lines().collect();
    assert_eq!(lines.remove(0), "GET /1.0/instances?recursion=1 HTTP/1.1");
    lines.retain(|l| !l.starts_with("x-request-id: "));
    lines.sort_unstable();
    assert_eq!(lines, ["accept: application/json", "host: lxd"]);
    let id = field(&text, "x-request-id").unwrap();
    assert!(id != "theirs" && id.len() == 32);
}

// SEC-008: a hypervisor's credential belongs to it alone; no other's permit draws it.
#[tokio::test]
async fn a_permit_for_another_hypervisor_reaches_nothing() {
    let fake = always(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n");
    let other = always(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n");
    let fleet = fleet(vec![config(fake.lxd("lab")), config(other.lxd("prod"))]);
    let client = Client::new(&fleet, "lab").await;
    let get = || Request::get("/1.0").body(whole("")).unwrap();
    let audit = permit(&fleet, Action::Read, Resource::Own(OwnObject::System)).await;
    let wrong = client.send_with(&audit, get(), Upgrade::None).await.map(|_| ()).unwrap_err();
    assert!(matches!(wrong, Error::WrongPermit(_)), "{wrong}");
    let elsewhere = crate::support::fleet(vec![config(serde_json::json!({ "kind": "qemu", "name": "desk" }))]);
    let desk = permit(&elsewhere, Action::View, Resource::Hypervisor("desk".parse().unwrap())).await;
    let unknown = client.send_with(&desk, get(), Upgrade::None).await.map(|_| ()).unwrap_err();
    assert!(matches!(unknown, Error::UnknownHypervisor(_)), "{unknown}");
    assert_eq!((fake.connections(), other.connections()), (0, 0));
    // The permit says where a request goes, whatever the client was made for.
    let prod = permit(&fleet, Action::View, Resource::Hypervisor("prod".parse().unwrap())).await;
    client.send_with(&prod, get(), Upgrade::None).await.unwrap();
    assert_eq!((fake.connections(), other.connections()), (0, 1));
    let clock = Arc::new(ManualClock::new(SystemClock.now() + time::Duration::minutes(6)));
    let later = Fleet::new(vec![config(other.lxd("prod"))], clock).unwrap();
    let late = Client::new(&later, "prod").await.send_with(&prod, get(), Upgrade::None).await.map(|_| ()).unwrap_err();
    assert!(matches!(late, Error::PermitExpired), "{late}");
}

#[tokio::test]
async fn a_clean_connection_is_used_again_and_a_doubtful_one_is_not() {
    let clean = always(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok");
    let extra =
        always(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nokHTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nevil");
    let closing = always(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: close\r\n\r\nok");
    for (fake, connections) in [(&clean, 1), (&extra, 5), (&closing, 5)] {
        let client = client(fake).await;
        for _ in 0..5 {
            assert_eq!(&client.get("/").await.unwrap().1[..], b"ok");
        }
        assert_eq!(fake.connections(), connections);
    }
    // An answer that is not read to its end closes its connection.
    let client = client(&clean).await;
    for _ in 0..3 {
        let _unread = client.send(Request::get("/").body(whole("")).unwrap(), Upgrade::None).await.unwrap();
    }
    assert_eq!(clean.connections(), 4);
}

#[tokio::test]
async fn answers_that_two_readers_would_read_differently_are_refused() {
    for bad in [
        &b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n"[..],
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nContent-Length: 3\r\n\r\nok!",
        b"HTTP/1.1 200 OK\r\nContent-Length: +2\r\n\r\nok",
        b"HTTP/1.1 200 OK\r\nX: a\0b\r\nContent-Length: 0\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nX: a\rb\r\nContent-Length: 0\r\n\r\n",
        b"HTTP/1.1 200 OK\r\n X: folded\r\nContent-Length: 0\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nLocation: https://evil.example/\r\nContent-Length: 0\r\n\r\n",
        b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n",
        b"HTTP/1.1 99 OK\r\n\r\n",
        b"RFB 003.008\n\r\n\r\n",
    ] {
        let fake = always(bad);
        let client = client(&fake).await;
        for _ in 0..2 {
            let error = fault(client.get("/").await.unwrap_err());
            assert!(matches!(error, Fault::Protocol(_)), "{error} for {:?}", String::from_utf8_lossy(bad));
        }
        assert_eq!(fake.connections(), 2, "the connection was used again after {:?}", String::from_utf8_lossy(bad));
    }
    let endless = Fake::start(|_, mut stream| async move {
        let _ = stream.write_all(b"HTTP/1.1 200 OK\r\nX: ").await;
        while stream.write_all(&[b'a'; 4096]).await.is_ok() {}
    });
    let error = fault(client(&endless).await.get("/").await.unwrap_err());
    assert!(matches!(error, Fault::Protocol(_)), "{error}");
}

#[tokio::test]
async fn chunk_tricks_end_the_answer_and_trailers_stay_behind() {
    for bad in ["2;a\rb\r\nok\r\n0\r\n\r\n", "ffffffffffffffffff\r\nok", "-1\r\nok", "2\r\nokay\r\n0\r\n\r\n"] {
        let text: &'static str =
            Box::leak(format!("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n{bad}").into_boxed_str());
        let fake = always(text.as_bytes());
        assert!(client(&fake).await.get("/").await.is_err(), "{bad:?}");
    }
    let fake = always(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nTrailer: Set-Cookie\r\n\r\n2\r\nok\r\n0\r\nSet-Cookie: a=b\r\n\r\n");
    let client = client(&fake).await;
    for _ in 0..2 {
        let Answer::Response(response) =
            client.send(Request::get("/").body(whole("")).unwrap(), Upgrade::None).await.unwrap()
        else {
            panic!()
        };
        let all = response.into_body().collect().await.unwrap();
        assert!(all.trailers().is_none());
        assert_eq!(&all.to_bytes()[..], b"ok");
    }
    assert_eq!(fake.connections(), 1);
}

#[tokio::test]
async fn a_safe_request_is_asked_again_when_an_idle_connection_dies_and_no_other_is() {
    // Every connection answers once; the second request on it meets silence and the end.
    let once = || {
        Fake::start(|_, mut stream| async move {
            let mut rest = Vec::new();
            if head(&mut stream, &mut rest).await.is_some() {
                stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok").await.unwrap();
                head(&mut stream, &mut rest).await;
            }
        })
    };
    let fake = once();
    let a = client(&fake).await;
    for _ in 0..4 {
        assert_eq!(&a.get("/").await.unwrap().1[..], b"ok");
    }
    assert_eq!(fake.connections(), 4);
    let fake = once();
    let b = client(&fake).await;
    b.get("/").await.unwrap();
    let post = Request::post("/").body(whole("x")).unwrap();
    let error = fault(b.ask(post).await.unwrap_err());
    assert!(matches!(error, Fault::Unreachable { .. }), "{error}");
    assert_eq!(fake.connections(), 1);
    // A fresh connection that dies is not tried again.
    let dead = Fake::start(|_, mut stream| async move {
        head(&mut stream, &mut Vec::new()).await;
    });
    let error = fault(client(&dead).await.get("/").await.unwrap_err());
    assert!(matches!(error, Fault::Unreachable { .. }), "{error}");
    assert_eq!(dead.connections(), 1);
}

/// A body of so many parts of 64 KiB, made as it goes.
fn parts(count: u64) -> crate::support::Feed {
    let part = Bytes::from(vec![7; 64 * 1024]);
    let parts = futures_util::stream::iter((0..count).map(move |_| Ok(Frame::data(part.clone()))));
    StreamBody::new(parts).boxed_unsync()
}

#[tokio::test]
async fn an_early_answer_is_delivered_and_its_connection_is_closed() {
    let fake = Fake::start(|_, mut stream| async move {
        let mut rest = Vec::new();
        while head(&mut stream, &mut rest).await.is_some() {
            if stream.write_all(b"HTTP/1.1 413 Too Large\r\nContent-Length: 3\r\n\r\nbig").await.is_err() {
                return;
            }
        }
    });
    let client = client(&fake).await;
    for n in 1..4 {
        let (answer, body) = client.ask(Request::post("/1.0/images").body(parts(1000)).unwrap()).await.unwrap();
        assert_eq!((answer.status.as_u16(), &body[..]), (413, &b"big"[..]));
        assert_eq!(fake.connections(), n);
    }
}

#[tokio::test]
async fn a_large_upload_and_a_large_answer_take_no_more_memory_than_small_ones() {
    const COUNT: u64 = 16 * 1024;
    let fake = Fake::start(|_, mut stream| async move {
        let mut rest = Vec::new();
        let asked = head(&mut stream, &mut rest).await.unwrap();
        let mut buffer = vec![0; 256 * 1024];
        if asked.starts_with("POST") {
            assert_eq!(field(&asked, "transfer-encoding"), Some("chunked"));
            assert_eq!(field(&asked, "content-length"), None);
            let mut tail = Vec::new();
            let mut total = 0;
            while !tail.ends_with(b"0\r\n\r\n") {
                let n = stream.read(&mut buffer).await.unwrap();
                total += n as u64;
                tail.extend_from_slice(&buffer[n.saturating_sub(5)..n]);
                tail.drain(..tail.len().saturating_sub(5));
            }
            assert!(total >= COUNT * 64 * 1024);
            stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n").await.unwrap();
        } else {
            let length = COUNT * 64 * 1024;
            stream.write_all(format!("HTTP/1.1 200 OK\r\nContent-Length: {length}\r\n\r\n").as_bytes()).await.unwrap();
            for _ in 0..COUNT / 4 {
                stream.write_all(&buffer).await.unwrap();
            }
        }
    });
    let client = client(&fake).await;
    let small = peak_memory();
    let (answer, _) = client.ask(Request::post("/1.0/images").body(parts(COUNT)).unwrap()).await.unwrap();
    assert_eq!(answer.status, 200);
    let Answer::Response(response) =
        client.send(Request::get("/").body(whole("")).unwrap(), Upgrade::None).await.unwrap()
    else {
        panic!()
    };
    let mut body = response.into_body();
    let mut total = 0;
    while let Some(frame) = body.frame().await {
        total += frame.unwrap().data_ref().map_or(0, Bytes::len) as u64;
    }
    assert_eq!(total, COUNT * 64 * 1024);
    let grown = peak_memory() - small;
    assert!(grown < 8 * 1024 * 1024, "1 GiB each way cost {grown} bytes");
}

#[tokio::test]
async fn nothing_of_the_client_follows_an_upgrade_that_was_not_granted() {
    let seen = Arc::new(Mutex::new(Vec::new()));
    let copy = Arc::clone(&seen);
    let fake = Fake::start(move |_, mut stream| {
        let copy = Arc::clone(&copy);
        async move {
            let mut rest = Vec::new();
            while let Some(text) = head(&mut stream, &mut rest).await {
                copy.lock().unwrap().push(text);
                stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nno").await.unwrap();
            }
        }
    });
    let client = client(&fake).await;
    let ask = |body: crate::support::Feed| {
        Request::get("/1.0/events").header("connection", "Upgrade").header("upgrade", "websocket").body(body).unwrap()
    };
    // What was smuggled behind the head is a body, and a WebSocket has none.
    let smuggled = client
        .send(ask(whole("GET /1.0/certificates HTTP/1.1\r\n\r\n")), Upgrade::WebSocket)
        .await
        .map(|_| ())
        .unwrap_err();
    assert!(matches!(smuggled, Error::Request(_)), "{smuggled}");
    let Answer::Response(response) = client.send(ask(whole("")), Upgrade::WebSocket).await.unwrap() else { panic!() };
    assert_eq!(&response.into_body().collect().await.unwrap().to_bytes()[..], b"no");
    client.get("/after").await.unwrap();
    let seen = seen.lock().unwrap();
    let lines: Vec<&str> = seen.iter().map(|t| t.lines().next().unwrap()).collect();
    assert_eq!(lines, ["GET /1.0/events HTTP/1.1", "GET /after HTTP/1.1"]);
}

#[tokio::test]
async fn an_upgrade_hands_over_both_directions_and_early_bytes() {
    let fake = Fake::start(|_, mut stream| async move {
        let text = head(&mut stream, &mut Vec::new()).await.unwrap();
        assert_eq!((field(&text, "upgrade"), field(&text, "connection")), (Some("websocket"), Some("Upgrade")));
        let early = b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSet-Cookie: a=b\r\n\r\nearly";
        stream.write_all(early).await.unwrap();
        let mut four = [0; 4];
        stream.read_exact(&mut four).await.unwrap();
        stream.write_all(&four).await.unwrap();
    });
    let client = client(&fake).await;
    let request = Request::get("/1.0/events")
        .header("connection", "Upgrade")
        .header("upgrade", "websocket")
        .body(whole(""))
        .unwrap();
    let Answer::Upgraded(response, mut tunnel) = client.send(request, Upgrade::WebSocket).await.unwrap() else {
        panic!()
    };
    assert!(!response.headers().contains_key("set-cookie"));
    let mut early = [0; 5];
    tunnel.read_exact(&mut early).await.unwrap();
    assert_eq!(&early, b"early");
    tunnel.write_all(b"ping").await.unwrap();
    let mut back = Vec::new();
    tunnel.read_to_end(&mut back).await.unwrap();
    assert_eq!(back, b"ping");
}

#[tokio::test(start_paused = true)]
async fn a_silent_hypervisor_is_given_up_and_a_slow_upload_is_not() {
    let silent =
        Fake::start(|_, mut stream| async move { while head(&mut stream, &mut Vec::new()).await.is_some() {} });
    let began = tokio::time::Instant::now();
    let error = fault(client(&silent).await.get("/").await.unwrap_err());
    assert!(matches!(error, Fault::TooSlow(_)), "{error}");
    assert_eq!(began.elapsed().as_secs(), 60);
    // Ten minutes of upload, a part each 30 seconds, and an answer at its end.
    let sink = Fake::start(|_, mut stream| async move {
        let mut rest = Vec::new();
        head(&mut stream, &mut rest).await.unwrap();
        while !rest.ends_with(b"0\r\n\r\n") {
            stream.read_buf(&mut rest).await.unwrap();
        }
        stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n").await.unwrap();
    });
    let drip = futures_util::stream::unfold(0, |n| async move {
        tokio::time::sleep(Duration::from_secs(30)).await;
        (n < 20).then(|| (Ok(Frame::data(Bytes::from_static(b"drip"))), n + 1))
    });
    let request = Request::post("/").body(StreamBody::new(drip).boxed_unsync()).unwrap();
    assert_eq!(client(&sink).await.ask(request).await.unwrap().0.status, 200);
}

/// A server that echoes a nonce in the ways that confuse a pool: chunked, late, early, closing, with the request's body
/// left unread.
async fn echo(mut stream: UnixStream) {
    let mut rest = Vec::new();
    while let Some(text) = head(&mut stream, &mut rest).await {
        let nonce = field(&text, "x-nonce").unwrap().to_owned();
        let way = field(&text, "x-way").unwrap().parse::<u32>().unwrap();
        let length = field(&text, "content-length").and_then(|l| l.parse::<usize>().ok()).unwrap_or(0);
        let body = format!("{nonce}{}", "x".repeat((way as usize * 997) % 9000));
        let plain = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{body}", body.len());
        let chunked =
            format!("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n{:x}\r\n{body}\r\n0\r\n\r\n", body.len());
        let is_early = way % 7 == 3 && length > 0;
        if !is_early {
            while rest.len() < length {
                if matches!(stream.read_buf(&mut rest).await, Ok(0) | Err(_)) {
                    return;
                }
            }
            rest.drain(..length);
        }
        let answer = match way % 7 {
            0 | 3 => plain,
            1 => chunked,
            2 => format!("HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\n{plain}"),
            4 => format!("HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n{body}"),
            5 => format!("{plain}HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nevil"),
            _ => {
                tokio::task::yield_now().await;
                plain
            }
        };
        // In two writes, so that heads and bodies are torn apart.
        let middle = answer.len() * (way as usize % 10) / 10;
        for part in [&answer.as_bytes()[..middle], &answer.as_bytes()[middle..]] {
            if stream.write_all(part).await.is_err() {
                return;
            }
            tokio::task::yield_now().await;
        }
        if way % 7 == 4 || is_early {
            return;
        }
    }
}

#[tokio::test]
async fn ten_thousand_mixed_requests_of_two_users_are_never_swapped() {
    let fake = Fake::start(|_, stream| echo(stream));
    let client = Arc::new(client(&fake).await);
    let mut workers = Vec::new();
    for worker in 0..20_u32 {
        let client = Arc::clone(&client);
        workers.push(crate::support::spawn(async move {
            let (mut right, mut failed) = (0, 0);
            for n in 0..500_u32 {
                let way = n.wrapping_mul(2_654_435_761).rotate_left(worker) % 1000;
                let nonce = format!("user{}-{worker}-{n}-", worker % 2);
                let (method, body) = if way % 3 == 0 {
                    (Method::POST, whole(vec![1; (way as usize * 31) % 40_000 + 1]))
                } else {
                    (Method::GET, whole(""))
                };
                let request = Request::builder()
                    .method(method)
                    .uri("/")
                    .header("x-nonce", &nonce)
                    .header("x-way", way)
                    .body(body)
                    .unwrap();
                match client.send(request, Upgrade::None).await {
                    Ok(Answer::Response(response)) => {
                        assert_eq!(response.status(), 200);
                        // Some people close the page in the middle of the answer.
                        if way % 11 == 5 {
                            continue;
                        }
                        match response.into_body().collect().await {
                            Ok(all) => {
                                assert!(all.to_bytes().starts_with(nonce.as_bytes()), "the answer of somebody else");
                                right += 1;
                            }
                            Err(_) => failed += 1,
                        }
                    }
                    Ok(Answer::Upgraded(..)) => panic!(),
                    Err(_) => failed += 1,
                }
            }
            (right, failed)
        }));
    }
    let (mut right, mut failed) = (0, 0);
    for worker in workers {
        let (r, f) = worker.await.unwrap();
        right += r;
        failed += f;
    }
    // Only a POST that meets a dying connection may fail; that is rare, and never a wrong answer.
    assert!(right > 8_500 && failed < 500, "{right} right, {failed} failed");
    assert!(fake.connections() > 100 && fake.connections() < 6_000, "{} connections", fake.connections());
}

#[tokio::test(start_paused = true)]
async fn one_request_too_many_waits_and_then_is_told_so() {
    let silent =
        Fake::start(|_, mut stream| async move { while head(&mut stream, &mut Vec::new()).await.is_some() {} });
    let mut json = silent.lxd("lab");
    json["connections"] = 1.into();
    let client = Arc::new(Client::new(&fleet(vec![config(json)]), "lab").await);
    let copy = Arc::clone(&client);
    let first = crate::support::spawn(async move { copy.get("/").await.map(|_| ()) });
    tokio::time::sleep(Duration::from_secs(1)).await;
    let busy = client.get("/").await.unwrap_err();
    assert!(matches!(&busy, Error::Busy(text) if text.contains("lab")), "{busy}");
    assert_eq!(silent.connections(), 1);
    first.abort();
}

#[tokio::test]
async fn a_forwarder_that_is_made_anew_keeps_its_connections_and_knows_those_of_now() {
    use portcullis_policy::classify::canonical;
    use portcullis_upstream::{Forwarder, Kept, RequestContext};
    let fake = always(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok");
    let other = always(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok");
    let third = always(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok");
    let fleet = fleet(vec![config(fake.lxd("lab"))]);
    let prod: portcullis_domain::HypervisorName = "prod".parse().unwrap();
    let first: Forwarder<_> = Forwarder::new(&fleet);
    let send = async |forwarder: &Forwarder<_>, name: &str| {
        let permit = permit(&fleet, Action::View, Resource::Hypervisor(name.parse().unwrap())).await;
        let request = Request::get("/1.0").body(whole("")).unwrap();
        let context =
            RequestContext { request: portcullis_domain::RequestId::new(uuid::Uuid::new_v4()), upgrade: Upgrade::None };
        match forwarder.forward(&permit, &canonical("/1.0").unwrap(), request, context).await {
            Ok(Answer::Response(answer)) => {
                answer.into_body().collect().await.unwrap();
                Ok(())
            }
            Ok(Answer::Upgraded(..)) => panic!("nobody asked for it"),
            Err(error) => Err(error),
        }
    };
    send(&first, "lab").await.unwrap();
    fleet.take_in(config(other.lxd("prod")), &Kept::default()).unwrap();
    assert!(matches!(send(&first, "prod").await, Err(Error::UnknownHypervisor(_))));
    let second = first.anew(&fleet);
    for name in ["prod", "lab"] {
        send(&second, name).await.unwrap();
    }
    assert_eq!((fake.connections(), other.connections()), (1, 1), "the connection goes on");
    // Another one under the same name is reached by connections of its own.
    assert!(fleet.let_go(&prod).0);
    fleet.take_in(config(third.lxd("prod")), &Kept::default()).unwrap();
    let later = second.anew(&fleet);
    send(&later, "prod").await.unwrap();
    assert_eq!((other.connections(), third.connections()), (1, 1));
}
