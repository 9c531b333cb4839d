// SPDX-License-Identifier: Apache-2.0
//! An LXD that is none, on a unix socket: it lists containers, says events when told to, and swallows what is sent.
//! For what a real one cannot tell: how many bytes arrived, and what a person must not have asked for.

use futures_util::{SinkExt as _, StreamExt as _};
use http::{HeaderValue, Method, Request, Response, StatusCode, header};
use http_body_util::{BodyExt as _, Full};
use hyper::{body::Incoming, service::service_fn};
use hyper_util::rt::{TokioExecutor, TokioIo};
use serde_json::json;
use std::sync::{
    Arc, Mutex,
    atomic::{AtomicU64, Ordering},
};
use tempfile::TempDir;
use tokio::{net::UnixListener, sync::broadcast};
use tokio_tungstenite::{
    WebSocketStream,
    tungstenite::{Message, handshake::derive_accept_key, protocol::Role},
};

/// What it calls the settings of each instance.
pub(crate) const MARK: &str = "\"e1\"";

/// An answer's body.
type AnyBody = http_body_util::combinators::UnsyncBoxBody<bytes::Bytes, std::convert::Infallible>;

fn whole(text: String) -> AnyBody {
    Full::from(text).boxed_unsync()
}

/// A body that goes on for a minute, a little at a time.
fn slow() -> AnyBody {
    let parts = futures_util::stream::unfold(0, |n| async move {
        tokio::time::sleep(std::time::Duration::from_millis(100)).await;
        (n < 600).then(|| (Ok(hyper::body::Frame::data(bytes::Bytes::from_static(b"line\n"))), n + 1))
    });
    http_body_util::StreamBody::new(parts).boxed_unsync()
}

/// A text that begins at once and ends after three seconds.
fn late(text: String) -> AnyBody {
    let parts = futures_util::stream::unfold(0, move |n| {
        let text = text.clone();
        async move {
            tokio::time::sleep(std::time::Duration::from_millis(100)).await;
            let part = if n < 30 { " ".to_owned() } else { text };
            (n < 31).then(|| (Ok(hyper::body::Frame::data(bytes::Bytes::from(part))), n + 1))
        }
    });
    http_body_util::StreamBody::new(parts).boxed_unsync()
}

/// It runs until the test ends.
pub(crate) struct FakeLxd {
    dir: TempDir,
    inside: Arc<Inside>,
}

struct Inside {
    containers: Vec<String>,
    swallowed: AtomicU64,
    asked: Mutex<Vec<String>>,
    bodies: Mutex<Vec<String>>,
    marks: Mutex<Vec<String>>,
    events: broadcast::Sender<String>,
}

impl FakeLxd {
    /// Starts one with these containers, all running.
    #[expect(clippy::disallowed_methods, reason = "ends with the test's runtime")]
    pub(crate) fn start(containers: &[&str]) -> Self {
        let dir = tempfile::Builder::new().prefix("pc").tempdir_in("/tmp").expect("a folder");
        let listener = UnixListener::bind(dir.path().join("s")).expect("bound");
        let inside = Arc::new(Inside {
            containers: containers.iter().map(ToString::to_string).collect(),
            swallowed: AtomicU64::new(0),
            asked: Mutex::default(),
            bodies: Mutex::default(),
            marks: Mutex::default(),
            events: broadcast::channel(64).0,
        });
        let shared = Arc::clone(&inside);
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let inside = Arc::clone(&shared);
                let service = service_fn(move |request| {
                    let inside = Arc::clone(&inside);
                    async move { Ok::<_, hyper::Error>(inside.answer(request).await) }
                });
                tokio::spawn(async move {
                    let builder = hyper_util::server::conn::auto::Builder::new(TokioExecutor::new());
                    builder.serve_connection_with_upgrades(TokioIo::new(stream), service).await.ok();
                });
            }
        });
        Self { dir, inside }
    }

    /// What the configuration says about it; more lines go into `[hypervisors.api]`.
    pub(crate) fn config(&self, name: &str, api: &str) -> String {
        let socket = self.dir.path().join("s").display().to_string();
        format!("[[hypervisors]]\nname = {name:?}\nkind = \"lxd\"\nsocket = {socket:?}\n[hypervisors.api]\n{api}\n")
    }

    /// The same as an Incus, whose API differs in nothing that it plays.
    pub(crate) fn config_of_incus(&self, name: &str, api: &str) -> String {
        self.config(name, api).replace("\"lxd\"", "\"incus\"")
    }

    /// Bytes of bodies that arrived.
    pub(crate) fn swallowed(&self) -> u64 {
        self.inside.swallowed.load(Ordering::SeqCst)
    }

    /// How often somebody asked for an address that begins like this, as `METHOD /path`.
    pub(crate) fn asked(&self, beginning: &str) -> usize {
        self.inside.asked.lock().expect("whole").iter().filter(|a| a.starts_with(beginning)).count()
    }

    /// The small bodies that arrived, in their order.
    pub(crate) fn bodies(&self) -> Vec<String> {
        self.inside.bodies.lock().expect("whole").clone()
    }

    /// What changes were made on the condition of.
    pub(crate) fn marks(&self) -> Vec<String> {
        self.inside.marks.lock().expect("whole").clone()
    }

    /// Says an event to everybody who listens.
    pub(crate) fn say(&self, event: &serde_json::Value) {
        self.inside.events.send(event.to_string()).ok();
    }
}

impl Inside {
    async fn answer(&self, mut request: Request<Incoming>) -> Response<AnyBody> {
        let path = request.uri().path().to_owned();
        let is_late = request.uri().query().is_some_and(|q| q.contains("filter=late"));
        self.asked.lock().expect("whole").push(format!("{} {path}", request.method()));
        if path == "/1.0/events" {
            return self.listen(&mut request);
        }
        if let Some(mark) = request.headers().get(header::IF_MATCH) {
            self.marks.lock().expect("whole").push(mark.to_str().expect("text").to_owned());
        }
        let body = request.body_mut();
        let mut small = Vec::new();
        while let Some(Ok(frame)) = body.frame().await {
            if let Some(data) = frame.data_ref() {
                small.extend_from_slice(
                    data.get(..1024.min(data.len())).filter(|_| small.len() < 1024).unwrap_or_default(),
                );
                self.swallowed.fetch_add(data.len() as u64, Ordering::SeqCst);
            }
        }
        if !small.is_empty() {
            self.bodies.lock().expect("whole").push(String::from_utf8_lossy(&small).into_owned());
        }
        let metadata = if path == "/1.0/instances" && request.method() == Method::GET {
            let rows = self.containers.iter().map(|name| {
                json!({ "name": name, "project": "default", "type": "container", "status": "Running",
                    "config": { "user.tags": "web" } })
            });
            rows.collect()
        } else if path == "/1.0/projects" && request.method() == Method::GET {
            json!(["/1.0/projects/default"])
        } else if path == "/1.0" {
            json!({ "api_extensions": ["instances"], "auth": "trusted", "auth_methods": ["tls"],
                "config": { "core.https_address": ":8443" } })
        } else if request.method() == Method::GET {
            self.settings(&path)
        } else {
            json!({})
        };
        let answer = json!({ "type": "sync", "status": "Success", "status_code": 200, "metadata": metadata });
        if path.ends_with("/metadata/templates") {
            return Response::new(slow());
        }
        let body = if is_late { late(answer.to_string()) } else { whole(answer.to_string()) };
        let mut answer = Response::new(body);
        answer.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
        answer.headers_mut().insert(header::ETAG, HeaderValue::from_static(MARK));
        answer
    }

    /// What an instance is, and what it was in its snapshots: `same`, `tagged` and `mapped`. One that is called `gpu` has
    /// one of the host's.
    fn settings(&self, path: &str) -> serde_json::Value {
        let mut parts = path.trim_start_matches("/1.0/instances/").split('/');
        let name = parts.next().unwrap_or_default();
        if !self.containers.iter().any(|c| c == name) {
            return json!({});
        }
        let (tags, map) = match (parts.next(), parts.next()) {
            (Some("snapshots"), Some("tagged")) => ("web,pay", "[a]"),
            (Some("snapshots"), Some("mapped")) => ("web", "[]"),
            _ => ("web", "[a]"),
        };
        let devices = if name == "gpu" { json!({ "g": { "type": "gpu" } }) } else { json!({}) };
        json!({
            "name": name, "architecture": "x86_64", "ephemeral": false, "profiles": ["default"], "devices": devices,
            "config": { "user.tags": tags, "volatile.last_state.idmap": map, "volatile.last_state.power": "RUNNING" },
            "expanded_config": { "raw.lxc": "what profiles give is not the instance's own" },
        })
    }

    #[expect(clippy::disallowed_methods, reason = "ends with the test's runtime")]
    fn listen(&self, request: &mut Request<Incoming>) -> Response<AnyBody> {
        let key = request.headers().get(header::SEC_WEBSOCKET_KEY).map(|k| derive_accept_key(k.as_bytes()));
        let accept = key.expect("a WebSocket's key").parse().expect("a value");
        let (upgrade, mut events) = (hyper::upgrade::on(request), self.events.subscribe());
        tokio::spawn(async move {
            let Ok(upgraded) = upgrade.await else { return };
            let mut socket = WebSocketStream::from_raw_socket(TokioIo::new(upgraded), Role::Server, None).await;
            loop {
                tokio::select! {
                    event = events.recv() => match event {
                        Ok(event) if socket.send(Message::text(event.as_str())).await.is_ok() => {}
                        _ => return,
                    },
                    // Pings are answered by reading.
                    message = socket.next() => if !matches!(message, Some(Ok(_))) { return },
                }
            }
        });
        let mut answer = Response::new(whole(String::new()));
        *answer.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
        for (name, value) in [
            (header::UPGRADE, HeaderValue::from_static("websocket")),
            (header::CONNECTION, HeaderValue::from_static("Upgrade")),
            (header::SEC_WEBSOCKET_ACCEPT, accept),
        ] {
            answer.headers_mut().insert(name, value);
        }
        answer
    }
}
