// SPDX-License-Identifier: Apache-2.0
//! A real LXD's API through the gateway: with a token of ours, an unchanged API, and no secret of LXD's on this side.

use crate::support::{Person, TestGateway, gateway::free_port, peers::Peer};
use futures_util::{SinkExt as _, StreamExt as _};
use reqwest::{Client, Method, StatusCode, header};
use serde_json::{Value, json};
use std::{sync::Arc, time::Duration};
use tokio::net::TcpStream;
use tokio_rustls::{TlsConnector, client::TlsStream, rustls};
use tokio_tungstenite::{
    WebSocketStream, client_async,
    tungstenite::{Error, Message, client::IntoClientRequest as _},
};

struct Lab {
    lxd: Peer,
    port: u16,
    gateway: TestGateway,
}

async fn lab() -> Lab {
    let lxd = Peer::lxd();
    let port = free_port();
    let hypervisors = format!(
        "[[hypervisors]]\nname = \"lxd\"\nkind = \"lxd\"\naddress = {:?}\ncert_file = {:?}\nkey_file = {:?}\n\
         [hypervisors.tls]\nca_file = {:?}\n[hypervisors.api]\nport = {port}\n",
        lxd.get("ADDRESS"),
        lxd.get("CLIENT_CERT"),
        lxd.get("CLIENT_KEY"),
        lxd.get("SERVER_CERT"),
    );
    let gateway = TestGateway::start(&hypervisors).await;
    Lab { lxd, port, gateway }
}

struct Tool<'a> {
    lab: &'a Lab,
    client: Client,
    token: String,
}

impl<'a> Tool<'a> {
    fn new(lab: &'a Lab, token: String) -> Self {
        let client = Client::builder().tls_certs_only([lab.gateway.ca()]).build().expect("a client");
        Self { lab, client, token }
    }

    fn request(&self, method: Method, path: &str) -> reqwest::RequestBuilder {
        let url = format!("https://localhost:{}{path}", self.lab.port);
        self.client.request(method, url).header(header::AUTHORIZATION, format!("Bearer {}", self.token))
    }

    async fn call(&self, method: Method, path: &str, body: Option<Value>) -> (StatusCode, Value) {
        let mut request = self.request(method, path);
        if let Some(body) = body {
            request = request.json(&body);
        }
        let answer = request.send().await.expect("an answer");
        let status = answer.status();
        (status, answer.json().await.expect("JSON"))
    }

    async fn stream(&self, path: &str) -> Result<WebSocketStream<TlsStream<TcpStream>>, StatusCode> {
        let mut request = format!("wss://localhost:{}{path}", self.lab.port).into_client_request().expect("a request");
        request.headers_mut().insert(header::AUTHORIZATION, format!("Bearer {}", self.token).parse().expect("a value"));
        let tcp = TcpStream::connect(("127.0.0.1", self.lab.port)).await.expect("a connection");
        let name = rustls::pki_types::ServerName::try_from("localhost").expect("a name");
        let tls = TlsConnector::from(Arc::new(self.lab.gateway.tls())).connect(name, tcp).await.expect("TLS");
        match client_async(request, tls).await {
            Ok((socket, _)) => Ok(socket),
            Err(Error::Http(answer)) => Err(answer.status()),
            Err(error) => panic!("{error}"),
        }
    }

    fn authorization(&self) -> String {
        format!("Authorization: Bearer {}\r\n", self.token)
    }

    /// Bytes as they stand, and everything that comes back.
    async fn raw(&self, request: &str) -> String {
        use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
        let tcp = TcpStream::connect(("127.0.0.1", self.lab.port)).await.expect("a connection");
        let name = rustls::pki_types::ServerName::try_from("localhost").expect("a name");
        let mut tls = TlsConnector::from(Arc::new(self.lab.gateway.tls())).connect(name, tcp).await.expect("TLS");
        tls.write_all(request.as_bytes()).await.expect("sent");
        let mut answer = Vec::new();
        let mut part = [0; 4096];
        while let Ok(Ok(n)) = tokio::time::timeout(Duration::from_secs(2), tls.read(&mut part)).await {
            answer.extend_from_slice(&part[..n]);
            if n == 0 || answer.windows(4).any(|w| w == b"\r\n\r\n") {
                break;
            }
        }
        String::from_utf8_lossy(&answer).into_owned()
    }

    async fn wait(&self, operation: &str) -> Value {
        let (status, done) = self.call(Method::GET, &format!("{operation}/wait?timeout=20"), None).await;
        assert_eq!(status, StatusCode::OK, "{done}");
        done
    }
}

async fn inventory_has(lab: &Lab, person: &Person<'_>, state: &str) {
    for _ in 0..100 {
        let list: Value = person.get("/api/v1/machines").await.json().await.expect("JSON");
        if list["machines"].as_array().is_some_and(|m| m.iter().any(|m| m["id"] == "default:c1" && m["state"] == state))
        {
            return;
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    panic!("c1 of {} is not {state}", lab.lxd.get("ADDRESS"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_real_lxd_is_driven_through_the_gateway() {
    let lab = lab().await;
    let ada = Person::first_administrator(&lab.gateway, "ada").await;
    inventory_has(&lab, &ada, "running").await;
    let tool = Tool::new(&lab, ada.token("lxd").await);

    // Inventory, over HTTP/2 in front.
    let (status, list) = tool.call(Method::GET, "/1.0/instances", None).await;
    assert_eq!((status, &list["metadata"][0]), (StatusCode::OK, &json!("/1.0/instances/c1")));

    // State: the events' WebSocket tells it, and so does the gateway's own inventory.
    let mut events = tool.stream("/1.0/events?type=lifecycle").await.expect("the stream opens");
    let stop = json!({"action": "stop", "force": true, "timeout": 20});
    let (status, answer) = tool.call(Method::PUT, "/1.0/instances/c1/state", Some(stop)).await;
    assert_eq!(status, StatusCode::ACCEPTED, "{answer}");
    tool.wait(answer["operation"].as_str().expect("an operation")).await;
    let seen = async {
        loop {
            if let Message::Text(text) = events.next().await.expect("open").expect("a frame")
                && text.contains("instance-stopped")
            {
                return;
            }
        }
    };
    tokio::time::timeout(Duration::from_secs(10), seen).await.expect("the event arrives");
    inventory_has(&lab, &ada, "off").await;
    let (_, answer) =
        tool.call(Method::PUT, "/1.0/instances/c1/state", Some(json!({"action": "start", "timeout": 20}))).await;
    tool.wait(answer["operation"].as_str().expect("an operation")).await;
    inventory_has(&lab, &ada, "running").await;

    // A console that must be recorded does not open where it cannot be.
    let wish = json!({"type": "console", "width": 80, "height": 24});
    let (status, answer) = tool.call(Method::POST, "/1.0/instances/c1/console", Some(wish.clone())).await;
    assert_eq!(status, StatusCode::FORBIDDEN, "{answer}");
    assert!(answer["error"].as_str().is_some_and(|e| e.contains("recording")), "{answer}");
    let bob = ada.invite("bob").await;
    ada.grant_unrecorded("bob", "console-user", "machine", "lxd/default:c1").await;
    let bobs = Tool::new(&lab, bob.token("lxd").await);

    // Its text console: the client's secrets are the gateway's, the shell is the container's.
    let (status, answer) = bobs.call(Method::POST, "/1.0/instances/c1/console", Some(wish)).await;
    assert_eq!(status, StatusCode::ACCEPTED, "{answer}");
    let operation = answer["operation"].as_str().expect("an operation").to_owned();
    let fds = answer["metadata"]["metadata"]["fds"].clone();
    let (_, shown) = bobs.call(Method::GET, &operation, None).await;
    assert!(!shown.to_string().contains("fds\":{\""), "an operation shows no secret: {shown}");
    let address = |fd: &str| format!("{operation}/websocket?secret={}", fds[fd].as_str().expect("a secret"));
    let mut control = bobs.stream(&address("control")).await.expect("the control channel opens");
    let mut shell = bobs.stream(&address("0")).await.expect("the shell opens");
    assert_eq!(bobs.stream(&address("0")).await.err(), Some(StatusCode::NOT_FOUND), "a secret counts once");
    tokio::time::sleep(Duration::from_millis(500)).await;
    shell.send(Message::binary(b"\recho through-$((40+2))\r".to_vec())).await.expect("sent");
    let read = async {
        let mut text = String::new();
        while !text.contains("through-42") {
            if let Message::Binary(bytes) = shell.next().await.expect("open").expect("a frame") {
                text.push_str(&String::from_utf8_lossy(&bytes));
            }
        }
    };
    tokio::time::timeout(Duration::from_secs(10), read).await.expect("the shell answers");
    control.close(None).await.ok();

    // An image goes up as a stream.
    let image = std::fs::read(lab.lxd.dir().join("busybox.tar.gz")).expect("the image");
    let mut image = image;
    image.extend_from_slice(&[0; 512]);
    let body = reqwest::Body::wrap_stream(futures_util::stream::iter(
        image.chunks(64 * 1024).map(|c| Ok::<_, std::io::Error>(c.to_vec())).collect::<Vec<_>>(),
    ));
    let upload =
        tool.request(Method::POST, "/1.0/images").header(header::CONTENT_TYPE, "application/octet-stream").body(body);
    let answer = upload.send().await.expect("an answer");
    assert_eq!(answer.status(), StatusCode::ACCEPTED);
    let answer: Value = answer.json().await.expect("JSON");
    let done = tool.wait(answer["operation"].as_str().expect("an operation")).await;
    assert_eq!(done["metadata"]["status"], "Success", "{done}");

    let denied = |e: &Value| e["what"] == "power" && e["outcome"] == "done";
    lab.gateway.find_event(&["--kind", "api", "--user", "ada"], denied).await;
    drop((tool, bobs));
    lab.gateway.stop().await;
}

/// Every text in an answer, at any depth.
fn texts(value: &Value) -> Vec<&str> {
    match value {
        Value::String(text) => vec![text],
        Value::Array(all) => all.iter().flat_map(texts).collect(),
        Value::Object(map) => map.values().flat_map(texts).collect(),
        _ => vec![],
    }
}

// SEC-153: in pull mode LXD answers with the secrets of the channels over which the disk is fetched.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_snapshot_leaves_only_by_migrate_and_no_channel_secret_comes_back() {
    let lab = lab().await;
    let ada = Person::first_administrator(&lab.gateway, "ada").await;
    inventory_has(&lab, &ada, "running").await;
    let tool = Tool::new(&lab, ada.token("lxd").await);
    let (status, answer) =
        tool.call(Method::POST, "/1.0/instances/c1/snapshots", Some(json!({"name": "s0", "stateful": false}))).await;
    assert_eq!(status, StatusCode::ACCEPTED, "{answer}");
    tool.wait(answer["operation"].as_str().expect("an operation")).await;

    let bob = ada.invite("bob").await;
    ada.grant("bob", "operator", "machine", "lxd/default:c1").await;
    let operator = Tool::new(&lab, bob.token("lxd").await);
    let pull = json!({"name": "s0", "migration": true});
    let push = json!({"name": "s0", "migration": true, "target": {
        "operation": "https://127.0.0.1:1/1.0/operations/x", "websockets": {"control": "a", "fs": "b"}}});
    for wish in [&pull, &push] {
        let (status, answer) = operator.call(Method::POST, "/1.0/instances/c1/snapshots/s0", Some(wish.clone())).await;
        assert_eq!(status, StatusCode::FORBIDDEN, "{answer}");
        assert!(answer["error"].as_str().is_some_and(|e| e.contains("administrator")), "{answer}");
    }
    // An operator still takes snapshots and removes them.
    let (status, answer) =
        operator.call(Method::POST, "/1.0/instances/c1/snapshots", Some(json!({"name": "s1"}))).await;
    assert_eq!(status, StatusCode::ACCEPTED, "{answer}");

    let (status, answer) = tool.call(Method::POST, "/1.0/instances/c1/snapshots/s0", Some(pull)).await;
    assert_eq!(status, StatusCode::ACCEPTED, "{answer}");
    assert_eq!(answer["metadata"]["class"], "websocket", "it would have had channels: {answer}");
    let is_secret = |t: &&str| t.len() >= 32 && t.bytes().all(|b| b.is_ascii_hexdigit());
    assert_eq!(texts(&answer).into_iter().find(is_secret), None, "{answer}");
    let (_, shown) = tool.call(Method::GET, answer["operation"].as_str().expect("an operation"), None).await;
    assert_eq!(texts(&shown).into_iter().find(is_secret), None, "{shown}");
    drop((tool, operator));
    lab.gateway.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_written_back_or_brought_back_is_decided_by_what_it_changes() {
    let lab = lab().await;
    let ada = Person::first_administrator(&lab.gateway, "ada").await;
    inventory_has(&lab, &ada, "running").await;
    let one = "/1.0/instances/c1";
    let (bob, carol) = (ada.invite("bob").await, ada.invite("carol").await);
    ada.grant("bob", "operator", "machine", "lxd/default:c1").await;
    ada.grant("carol", "administrator", "machine", "lxd/default:c1").await;
    let tool = Tool::new(&lab, ada.token("lxd").await);
    let (operator, editor) = (Tool::new(&lab, bob.token("lxd").await), Tool::new(&lab, carol.token("lxd").await));

    // As an editor of settings does: all of it is read, one thing is changed, all of it is written.
    let (_, shown) = editor.call(Method::GET, one, None).await;
    let whole = |change: &dyn Fn(&mut serde_json::Map<String, Value>)| {
        let mut all = serde_json::Map::new();
        for key in ["architecture", "config", "description", "devices", "ephemeral", "profiles"] {
            all.insert(key.into(), shown["metadata"][key].clone());
        }
        change(all["config"].as_object_mut().expect("settings"));
        Value::Object(all)
    };
    let map = shown["metadata"]["config"]["volatile.last_state.idmap"].as_str().expect("a map of users").to_owned();
    for forbidden in [
        whole(&|config| drop(config.insert("volatile.idmap.next".into(), "[0]".into()))),
        whole(&|config| drop(config.insert("volatile.last_state.idmap".into(), "[0]".into()))),
        whole(&|config| drop(config.remove("volatile.last_state.idmap"))),
        whole(&|config| drop(config.insert("user.tags".into(), "pay".into()))),
    ] {
        let (status, answer) = editor.call(Method::PUT, one, Some(forbidden)).await;
        assert_eq!(status, StatusCode::FORBIDDEN, "{answer}");
    }
    let noted = whole(&|config| drop(config.insert("user.note".into(), "x".into())));
    let (status, answer) = editor.call(Method::PUT, one, Some(noted)).await;
    assert_eq!(status, StatusCode::ACCEPTED, "{answer}");
    editor.wait(answer["operation"].as_str().expect("an operation")).await;
    let (_, now) = editor.call(Method::GET, one, None).await;
    assert_eq!(now["metadata"]["config"]["user.note"], "x");
    assert_eq!(now["metadata"]["config"]["volatile.last_state.idmap"], map);

    // Back to a snapshot: what stays within the machine comes back, its tags do not.
    let snapshots = "/1.0/instances/c1/snapshots";
    let (status, answer) = operator.call(Method::POST, snapshots, Some(json!({"name": "b0"}))).await;
    assert_eq!(status, StatusCode::ACCEPTED, "{answer}");
    operator.wait(answer["operation"].as_str().expect("an operation")).await;
    editor.call(Method::PATCH, one, Some(json!({"config": {"user.note": "y"}}))).await;
    let back = json!({"restore": "b0"});
    let (status, answer) = operator.call(Method::PUT, one, Some(back.clone())).await;
    assert_eq!(status, StatusCode::ACCEPTED, "{answer}");
    operator.wait(answer["operation"].as_str().expect("an operation")).await;
    let (_, now) = editor.call(Method::GET, one, None).await;
    assert_eq!(now["metadata"]["config"]["user.note"], "x", "it went back");
    let (status, answer) = tool.call(Method::PATCH, one, Some(json!({"config": {"user.tags": "pay"}}))).await;
    assert!(status.is_success(), "{answer}");
    let (status, answer) = operator.call(Method::PUT, one, Some(back)).await;
    assert_eq!(status, StatusCode::FORBIDDEN, "{answer}");
    assert!(answer["error"].as_str().is_some_and(|e| e.contains("brings back settings")), "{answer}");
    drop((tool, operator, editor));
    lab.gateway.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_not_granted_known_or_ours_is_refused() {
    let lab = lab().await;
    let ada = Person::first_administrator(&lab.gateway, "ada").await;
    inventory_has(&lab, &ada, "running").await;
    let bob = ada.invite("bob").await;
    ada.grant("bob", "viewer", "machine", "lxd/default:c1").await;
    let tool = Tool::new(&lab, bob.token("lxd").await);
    assert_eq!(tool.call(Method::GET, "/1.0/instances/c1", None).await.0, StatusCode::OK);
    for (method, path, status) in [
        // Known to bob, and not allowed.
        (Method::PUT, "/1.0/instances/c1/state", StatusCode::FORBIDDEN),
        (Method::DELETE, "/1.0/instances/c1", StatusCode::FORBIDDEN),
        (Method::POST, "/1.0/instances/c1/console", StatusCode::FORBIDDEN),
        (Method::POST, "/1.0/instances/c1/exec", StatusCode::FORBIDDEN),
        // Not to be known about.
        (Method::GET, "/1.0/instances/c2", StatusCode::NOT_FOUND),
        // Never passed on.
        (Method::GET, "/1.0/unheard-of", StatusCode::FORBIDDEN),
        (Method::GET, "/internal/shutdown", StatusCode::FORBIDDEN),
        (Method::PUT, "/1.0/instances", StatusCode::FORBIDDEN),
    ] {
        let (found, body) = tool.call(method.clone(), path, None).await;
        assert_eq!(found, status, "{method} {path}: {body}");
        assert_eq!(body["type"], "error", "in LXD's own dialect: {body}");
    }
    // Readable in two ways, sent as they stand: no client library tidies them up.
    for target in [
        "/1.0/instances/%2e%2e/certificates",
        "/1.0/instances/../certificates",
        "/1.0/instances/./c1",
        "/1.0/instances/c1%2f..%2fc2",
        "/1.0/instances/c1%5c..%5cc2",
        "/1.0/instances//c1",
        "/1.0/instances/c1%00",
        "/1.0/instances/c1%252f",
        "/1.0/instances/c1;x=y",
        "/1.0/instances/c1%c0%ae",
        "https://localhost/1.0/instances/c1",
    ] {
        let answer =
            tool.raw(&format!("GET {target} HTTP/1.1\r\nHost: localhost\r\n{}\r\n", tool.authorization())).await;
        assert!(answer.starts_with("HTTP/1.1 400"), "{target}: {}", answer.lines().next().unwrap_or_default());
    }
    for (head, body) in [
        ("Content-Length: 5\r\nContent-Length: 6\r\n", "hello"),
        ("Content-Length: 5\r\nTransfer-Encoding: chunked\r\n", "0\r\n\r\n"),
        ("Transfer-Encoding: chunked\r\nContent-Length: 5\r\n", "0\r\n\r\n"),
        ("Content-Length: +5\r\n", "hello"),
        ("Content-Length: 0x5\r\n", "hello"),
        ("Transfer-Encoding: chunked, identity\r\n", "0\r\n\r\n"),
        ("Transfer-Encoding: xchunked\r\n", "0\r\n\r\n"),
        ("Transfer-Encoding : chunked\r\n", "0\r\n\r\n"),
        ("X: a\r\n b\r\n", ""),
        ("Host: other\r\n", ""),
        ("X\0Y: z\r\n", ""),
    ] {
        let answer = tool
            .raw(&format!(
                "PUT /1.0/instances/c1/state HTTP/1.1\r\nHost: localhost\r\n{}{head}\r\n{body}",
                tool.authorization()
            ))
            .await;
        // RFC 9112 6.1: a body framed in two ways may also be read as chunked, if the connection is closed after it.
        let closed = head.contains("Content-Length: 5") && answer.contains("connection: close");
        assert!(answer.starts_with("HTTP/1.1 400") || closed, "{head:?}: {answer}");
    }
    // Nobody, a wrong token, a cookie instead of a token, two tokens.
    let url = format!("https://localhost:{}/1.0/instances/c1", lab.port);
    let get = || Client::builder().tls_certs_only([lab.gateway.ca()]).build().expect("a client").get(&url);
    for request in [
        get(),
        get().header(header::AUTHORIZATION, "Bearer pct_wrong"),
        get().header(header::COOKIE, ada.cookie()),
        get().header("X-LXD-token", &tool.token),
        get().header(header::AUTHORIZATION, format!("Bearer {}", tool.token)).header(header::AUTHORIZATION, "Bearer x"),
    ] {
        assert_eq!(request.send().await.expect("an answer").status(), StatusCode::UNAUTHORIZED);
    }
    // Revoked: at once.
    ada.revoke_grants("bob").await;
    assert_eq!(tool.call(Method::GET, "/1.0/instances/c1", None).await.0, StatusCode::NOT_FOUND);
    drop(tool);
    lab.gateway.stop().await;
}

// SEC-049, SEC-180: what was let through and what was refused, each exactly once.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_call_has_exactly_one_bracket_or_one_refusal_whatever_its_body_is() {
    let lab = lab().await;
    let ada = Person::first_administrator(&lab.gateway, "ada").await;
    inventory_has(&lab, &ada, "running").await;
    let tool = Tool::new(&lab, ada.token("lxd").await);
    let utf16: Vec<u8> = "{\"description\":\"x\"}".encode_utf16().flat_map(u16::to_le_bytes).collect();
    let (mut passed, mut refused) = (0, 0);
    for round in 0..4 {
        for (method, path, kind, body) in [
            (Method::GET, "/1.0/instances/c1", "", vec![]),
            (Method::GET, "/1.0", "", vec![]),
            (Method::PATCH, "/1.0/instances/c1", "application/json", b"{\"description\":\"a\"}".to_vec()),
            (Method::PATCH, "/1.0/instances/c1", "application/yaml", b"description: x".to_vec()),
            (Method::PATCH, "/1.0/instances/c1", "application/json; charset=utf-16", utf16.clone()),
            (
                Method::PATCH,
                "/1.0/instances/c1",
                "application/json",
                b"{\"description\":\"a\",\"description\":\"b\"}".to_vec(),
            ),
            (Method::PATCH, "/1.0/instances/c1", "multipart/form-data; boundary=x", b"--x\r\n\r\n{}\r\n--x--".to_vec()),
            (Method::PATCH, "/1.0/instances/c1", "text/plain", b"no JSON at all".to_vec()),
            (Method::PATCH, "/1.0/instances/nothing", "application/json", b"{}".to_vec()),
            (Method::PUT, "/1.0/instances", "application/json", b"{}".to_vec()),
            (Method::GET, "/1.0/unheard-of", "", vec![]),
            (Method::GET, "/internal/ready", "", vec![]),
        ] {
            let mut request = tool.request(method.clone(), path);
            if !kind.is_empty() {
                request = request.header(header::CONTENT_TYPE, kind).body(body);
                if round == 1 {
                    request = request.header(header::CONTENT_ENCODING, "gzip");
                }
            }
            let answer = request.send().await.expect("an answer");
            // The gateway's own refusals have a title beside LXD's fields.
            let json: Value = answer.json().await.expect("JSON");
            if json["title"].is_string() { refused += 1 } else { passed += 1 }
        }
    }
    // What cannot be read in one way only is refused; so is everything with a body in the round where it is packed.
    assert_eq!((passed, refused), (11, 37));
    // The index follows the log within a tenth of a second.
    tokio::time::sleep(Duration::from_secs(1)).await;
    let events = lab.gateway.search(&["--kind", "api", "--limit", "10000"]);
    let mut requests = std::collections::BTreeMap::<&str, Vec<&str>>::new();
    for event in &events {
        let phase = event["phase"].as_str().expect("a phase").split(' ').next().expect("a word");
        requests.entry(event["request"].as_str().expect("a request")).or_default().push(phase);
    }
    let brackets = requests.values().filter(|p| **p == ["opened", "closed"]).count();
    let noted = requests.values().filter(|p| **p == ["noted"]).count();
    assert_eq!((brackets, noted, requests.len()), (passed, refused, passed + refused), "{requests:#?}");
    drop(tool);
    lab.gateway.stop().await;
}
