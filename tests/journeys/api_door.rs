// SPDX-License-Identifier: Apache-2.0
//! What an API's door does whatever stands behind it: host names of its own, HTTP/2, events that only those see who may
//! see what they are about, and bodies that are larger than the gateway's memory.

use crate::support::{FakeLxd, Person, TestGateway, full_length, gateway::free_port};
use futures_util::StreamExt as _;
use portcullis_domain::SystemClock;
use reqwest::{Body, Client, ClientBuilder, StatusCode, Version, header};
use serde_json::{Value, json};
use std::{net::SocketAddr, sync::Arc, time::Duration};
use tokio::net::TcpStream;
use tokio_rustls::{TlsConnector, client::TlsStream, rustls};
use tokio_tungstenite::{
    WebSocketStream, client_async,
    tungstenite::{Error, Message, client::IntoClientRequest as _},
};

const NAMES: [&str; 3] = ["lxd.portal.test", "containers.portal.test", "nobody.portal.test"];

const ASKED: &str = "GET /1.0/instances/c1";

/// The same gateway with a certificate for `*.portal.test`, where its APIs answer: no client takes one for `*.localhost`.
async fn with_domain(gateway: TestGateway, hypervisors: &str) -> TestGateway {
    let (dir, made) = (gateway.stop().await, tempfile::tempdir().expect("a folder"));
    let at = SocketAddr::from(([127, 0, 0, 1], 1));
    portcullis_server::init(made.path(), "portal.test", at, &SystemClock).expect("init");
    for file in ["ca.pem", "cert.pem", "key.pem"] {
        std::fs::rename(made.path().join("tls").join(file), dir.path().join("tls").join(file)).expect("moved");
    }
    let file = dir.path().join("portcullis.toml");
    let text = std::fs::read_to_string(&file).expect("the configuration");
    std::fs::write(&file, text.replace("[portal]\n", "[portal]\napi_domain = \"portal.test\"\n")).expect("written");
    TestGateway::start_in(dir, hypervisors).await
}

fn client(gateway: &TestGateway, more: impl FnOnce(ClientBuilder) -> ClientBuilder) -> Client {
    let builder = Client::builder().tls_certs_only([gateway.ca()]);
    more(NAMES.iter().fold(builder, |b, name| b.resolve(name, gateway.portal))).build().expect("a client")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_api_answers_under_a_name_of_its_own() {
    let (one, two) = (FakeLxd::start(&["c1"]), FakeLxd::start(&["c1"]));
    let hypervisors = [one.config("lxd", ""), two.config("other", "host = \"containers.portal.test\"")].concat();
    let gateway = TestGateway::start(&hypervisors).await;
    let ada = Person::first_administrator(&gateway, "ada").await;
    let (to_one, to_two, to_both) = (ada.token("lxd").await, ada.token("other").await, ada.token("").await);
    let cookie = ada.cookie();
    drop(ada);
    let gateway = with_domain(gateway, &hypervisors).await;
    let port = gateway.portal.port();
    let modern = client(&gateway, |b| b);
    let plain = client(&gateway, ClientBuilder::http1_only);
    // The inventory is there when a container of it is.
    for (name, token) in [("lxd.portal.test", &to_one), ("containers.portal.test", &to_two)] {
        let get = || plain.get(format!("https://{name}:{port}/1.0/instances/c1")).bearer_auth(token).send();
        while get().await.expect("an answer").status() == StatusCode::NOT_FOUND {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }
    let (asked_one, asked_two) = (one.asked(ASKED), two.asked(ASKED));
    for (name, token, status) in [
        ("lxd.portal.test", &to_one, StatusCode::OK),
        ("LXD.portal.test", &to_one, StatusCode::OK),
        ("lxd.portal.test", &to_both, StatusCode::OK),
        ("containers.portal.test", &to_two, StatusCode::OK),
        ("containers.portal.test", &to_both, StatusCode::OK),
        // A token counts for its own hypervisor, whatever name it is sent to.
        ("lxd.portal.test", &to_two, StatusCode::UNAUTHORIZED),
        ("containers.portal.test", &to_one, StatusCode::UNAUTHORIZED),
        ("nobody.portal.test", &to_both, StatusCode::MISDIRECTED_REQUEST),
    ] {
        for (client, version) in [(&modern, Version::HTTP_2), (&plain, Version::HTTP_11)] {
            let request = client.get(format!("https://{name}:{port}/1.0/instances/c1"));
            let answer =
                request.header(header::AUTHORIZATION, format!("Bearer {token}")).send().await.expect("an answer");
            assert_eq!((answer.status(), answer.version()), (status, version), "{name}");
        }
    }
    assert_eq!((one.asked(ASKED) - asked_one, two.asked(ASKED) - asked_two), (6, 4));
    // A name of the API is no portal: no cookie counts there, and no page of ours is shown.
    for path in ["/", "/sign-in", "/users", "/assets/x.js"] {
        let request = modern.get(format!("https://lxd.portal.test:{port}{path}")).header(header::COOKIE, &cookie);
        let answer = request.send().await.expect("an answer");
        assert!(
            matches!(answer.status(), StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN),
            "{path} {}",
            answer.status()
        );
        assert_eq!(answer.headers()[header::CONTENT_TYPE], "application/json", "{path}");
    }
    gateway.stop().await;
}

type Socket = WebSocketStream<TlsStream<TcpStream>>;

async fn events(gateway: &TestGateway, port: u16, token: &str) -> Result<Socket, StatusCode> {
    let address = format!("wss://localhost:{port}/1.0/events");
    let mut request = address.into_client_request().expect("a request");
    request.headers_mut().insert(header::AUTHORIZATION, format!("Bearer {token}").parse().expect("a value"));
    let tcp = TcpStream::connect(("127.0.0.1", port)).await.expect("a connection");
    let name = rustls::pki_types::ServerName::try_from("localhost").expect("a name");
    let tls = TlsConnector::from(Arc::new(gateway.tls())).connect(name, tcp).await.expect("TLS");
    match client_async(request, tls).await {
        Ok((socket, _)) => Ok(socket),
        Err(Error::Http(answer)) => Err(answer.status()),
        Err(error) => panic!("{error}"),
    }
}

async fn next(socket: &mut Socket) -> Value {
    loop {
        let message = tokio::time::timeout(Duration::from_secs(10), socket.next()).await.expect("in time");
        if let Message::Text(text) = message.expect("open").expect("a frame") {
            return serde_json::from_str(&text).expect("JSON");
        }
    }
}

fn event(source: &str) -> Value {
    json!({ "type": "lifecycle", "project": "default", "metadata": { "action": "seen", "source": source } })
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn events_reach_only_who_may_see_what_they_are_about() {
    let lxd = FakeLxd::start(&["c1", "c2"]);
    let port = free_port();
    let gateway = TestGateway::start(&lxd.config("lxd", &format!("port = {port}"))).await;
    let ada = Person::first_administrator(&gateway, "ada").await;
    let (bob, carol) = (ada.invite("bob").await, ada.invite("carol").await);
    ada.grant("bob", "viewer", "machine", "lxd/default:c1").await;
    ada.grant("carol", "viewer", "hypervisor", "lxd").await;
    // Somebody who may see one container hears of that one alone, and who may see none gets no stream.
    let dave = ada.invite("dave").await;
    assert!(events(&gateway, port, &dave.token("lxd").await).await.is_err());
    let mut own = events(&gateway, port, &bob.token("lxd").await).await.expect("the stream opens");
    let mut socket = events(&gateway, port, &carol.token("lxd").await).await.expect("the stream opens");
    let secret = json!({
        "type": "operation", "project": "default",
        "metadata": {
            "resources": { "instances": ["/1.0/instances/c2"] },
            "metadata": { "fds": { "0": "a-secret-of-a-shell", "control": "another-secret" } },
        },
    });
    lxd.say(&event("/1.0/instances/c1"));
    lxd.say(&secret);
    // A name that is none could not be decided on.
    lxd.say(&event("/1.0/instances/..%2f..%2fc1"));
    lxd.say(&event("/1.0/instances/c2"));
    assert_eq!(next(&mut socket).await["metadata"]["source"], "/1.0/instances/c1");
    let cleaned = next(&mut socket).await;
    assert_eq!(cleaned["type"], "operation");
    assert!(!cleaned.to_string().contains("secret"), "{cleaned}");
    assert_eq!(next(&mut socket).await["metadata"]["source"], "/1.0/instances/c2");
    for other in [
        event("/1.0/networks/pay"),
        event("/1.0/instances/c1?project=pay"),
        // Logs say anything, and an event without a kind may be one.
        json!({ "type": "logging", "project": "default", "metadata": { "source": "/1.0/instances/c1" } }),
        json!({ "metadata": { "source": "/1.0/instances/c1" } }),
        json!({ "type": "operation", "metadata": { "resources": { "images": ["/1.0/images/x"] } } }),
        json!({ "type": "operation", "metadata": { "resources": {
            "instances": ["/1.0/instances/c1", "/1.0/instances/c2"] } } }),
    ] {
        lxd.say(&other);
    }
    lxd.say(&json!({ "type": "operation", "metadata": { "resources": { "instances": ["/1.0/instances/c1"] } } }));
    assert_eq!(next(&mut own).await, event("/1.0/instances/c1"));
    assert_eq!(next(&mut own).await["metadata"]["resources"]["instances"], json!(["/1.0/instances/c1"]));
    // What was given is taken back: the stream ends, though nothing is said on it.
    ada.revoke_grants("carol").await;
    let end = async { while let Some(Ok(_)) = socket.next().await {} };
    tokio::time::timeout(Duration::from_secs(5), end).await.expect("the stream is cut");
    gateway.stop().await;
}

/// A value of `/proc/PID/status`, in KiB.
fn memory(process: u32, key: &str) -> u64 {
    let text = std::fs::read_to_string(format!("/proc/{process}/status")).expect("it runs");
    let line = text.lines().find_map(|l| l.strip_prefix(key)).expect("a line");
    line.trim_start_matches(':').trim().trim_end_matches(" kB").parse().expect("a number")
}

const MIB: u64 = 1 << 20;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_upload_larger_than_memory_passes_through() {
    let lxd = FakeLxd::start(&["c1"]);
    let port = free_port();
    let gateway = TestGateway::start(&lxd.config("lxd", &format!("port = {port}"))).await;
    let ada = Person::first_administrator(&gateway, "ada").await;
    let token = ada.token("lxd").await;
    gateway.move_out().await;
    let client = client(&gateway, |b| b);
    let upload = async |mib: u64| {
        let before = lxd.swallowed();
        let part = bytes::Bytes::from(vec![0x5a; 64 * 1024]);
        let parts = (0..mib * MIB / part.len() as u64).map(move |_| Ok::<_, std::io::Error>(part.clone()));
        let request = client
            .post(format!("https://localhost:{port}/1.0/images"))
            .header(header::AUTHORIZATION, format!("Bearer {token}"))
            .header(header::CONTENT_TYPE, "application/octet-stream")
            .body(Body::wrap_stream(futures_util::stream::iter(parts)));
        let answer = request.send().await.expect("an answer");
        assert_eq!(answer.status(), StatusCode::OK);
        assert_eq!(lxd.swallowed() - before, mib * MIB, "every byte, once");
    };
    // Buffers that every upload needs are there afterwards.
    upload(32).await;
    let process = gateway.process().await;
    let before = memory(process, "VmRSS");
    // From here on the highest counts, not what is left at the end.
    std::fs::write(format!("/proc/{process}/clear_refs"), "5").expect("reset");
    upload(if full_length() { 10 * 1024 } else { 1024 }).await;
    let most = memory(process, "VmHWM");
    assert!(most <= before + 8 * 1024, "from {before} KiB to {most} KiB");
    gateway.stop().await;
}
