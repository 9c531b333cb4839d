// SPDX-License-Identifier: Apache-2.0
use crate::support::{Client, Feed, Running, config, decide, lxd, on, permit, pki::Pki, somebody, whole};
use bytes::Bytes;
use futures_util::{SinkExt, StreamExt};
use http::Request;
use http_body_util::{BodyExt, StreamBody};
use hyper::body::Frame;
use portcullis_domain::{Action, ConsoleKind, Effect, MachineKind, Operation, PowerState, Resource};
use portcullis_policy::{
    Permit,
    classify::{Task, Upgrade},
};
use portcullis_upstream::{Answer, Error, Fault, HealthState, PowerVerb, Tunnel};
use serde_json::{Value, json};
use std::time::Duration;
use tokio::io::AsyncReadExt;
use tokio_tungstenite::{
    WebSocketStream,
    tungstenite::{Message, protocol::Role},
};

const SECOND: Duration = Duration::from_secs(1);
const C1: &str = "lab/default:c1";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn instances_are_seen_changed_started_and_stopped() {
    let folder = tempfile::tempdir().unwrap();
    let pki = Pki::new(folder.path(), &["localhost"]);
    let mut lxd = lxd::Lxd::start(&pki);
    let running = Running::start(vec![config(lxd.config(&pki))]);
    running.until(C1, 10 * SECOND, |m| m.is_some_and(|m| m.state == PowerState::Running)).await;
    let machine = running.machine(C1).unwrap();
    assert_eq!(
        (machine.kind, machine.console, machine.pool.as_deref()),
        (MachineKind::Container, ConsoleKind::Text, Some("default"))
    );

    lxd.lxc(&["config", "set", "c1", "user.tags=web, db"]);
    running.until(C1, SECOND, |m| m.is_some_and(|m| m.tags == ["db", "web"])).await;
    lxd.lxc(&["init", "bb", "c2"]);
    running.until("lab/default:c2", SECOND, |m| m.is_some_and(|m| m.state == PowerState::Off)).await;
    lxd.lxc(&["delete", "c2"]);
    running.until("lab/default:c2", SECOND, |m| m.is_none()).await;

    let power = permit(&running.fleet, Action::Power, on(C1)).await;
    for (verb, state) in [
        (PowerVerb::Stop, PowerState::Off),
        (PowerVerb::Start, PowerState::Running),
        (PowerVerb::Reset, PowerState::Running),
    ] {
        running.fleet.power(&power, verb).await.unwrap();
        running.until(C1, SECOND, |m| m.is_some_and(|m| m.state == state)).await;
    }
    let refused = running.fleet.power(&power, PowerVerb::Start).await.unwrap_err();
    assert!(matches!(&refused, Error::Upstream { fault: Fault::Refused(_), .. }), "it runs already: {refused}");
    let console = permit(&running.fleet, Action::ConsoleControl, on(C1)).await;
    let text = running.fleet.open_screen(&console).await.map(|_| ()).unwrap_err();
    assert!(matches!(&text, Error::Upstream { fault: Fault::Unsupported(_), .. }), "{text}");

    lxd.stop();
    running.until(C1, SECOND, |m| m.is_some_and(|m| m.state == PowerState::Unknown)).await;
    assert!(matches!(running.fleet.health()[0].state, HealthState::Down { .. }));
}

fn upgrade(target: &str) -> Request<Feed> {
    Request::get(target)
        .header("connection", "Upgrade")
        .header("upgrade", "websocket")
        .header("sec-websocket-version", "13")
        .header("sec-websocket-key", "dGhlIHNhbXBsZSBub25jZQ==")
        .body(whole(""))
        .unwrap()
}

async fn websocket(client: &Client, permit: &Permit, target: &str) -> WebSocketStream<Tunnel> {
    match client.send_with(permit, upgrade(target), Upgrade::WebSocket).await.unwrap() {
        Answer::Upgraded(response, tunnel) => {
            assert_eq!(response.headers()["sec-websocket-accept"], "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=");
            WebSocketStream::from_raw_socket(tunnel, Role::Client, None).await
        }
        Answer::Response(response) => panic!("{} instead of 101", response.status()),
    }
}

fn post(target: &str, body: &Value) -> Request<Feed> {
    Request::post(target).header("content-type", "application/json").body(whole(body.to_string())).unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_api_passes_with_upload_events_and_a_console_whose_secrets_stay_here() {
    let folder = tempfile::tempdir().unwrap();
    let pki = Pki::new(folder.path(), &["localhost"]);
    let lxd = lxd::Lxd::start(&pki);
    let running = Running::start(vec![config(lxd.config(&pki))]);
    running.until(C1, 10 * SECOND, |m| m.is_some()).await;
    let client = Client::new(&running.fleet, "lab").await;

    // A client's own credential does not matter; the gateway's does.
    let request =
        Request::get("/1.0").header("authorization", "Bearer x").header("cookie", "oidc_id=x").body(whole("")).unwrap();
    let (head, body) = client.ask(request).await.unwrap();
    assert_eq!(head.status, 200);
    let answer: Value = serde_json::from_slice(&body).unwrap();
    assert_eq!(answer["metadata"]["auth"], "trusted");

    // Events reach the client as they happen.
    let mut events = websocket(&client, &client.permit, "/1.0/events?type=lifecycle&all-projects=true").await;
    lxd.lxc(&["config", "set", "c1", "user.note=x"]);
    loop {
        let event = tokio::time::timeout(5 * SECOND, events.next()).await.unwrap().unwrap().unwrap();
        if event.to_text().unwrap().contains("instance-updated") {
            break;
        }
    }

    // A console: the client gets minted secrets, the hypervisor its own.
    let broker = running.fleet.broker();
    let (owner, stranger) = (somebody(), somebody());
    let control = |effect| Operation { action: Action::ConsoleControl, resource: on(C1), effect };
    let mine = decide(&running.fleet, &owner, control(Effect::Unsafe)).await;
    let asked = json!({ "type": "console", "width": 80, "height": 24 });
    let request = post("/1.0/instances/c1/console", &asked);
    let Answer::Response(response) = client.send_with(&mine, request, Upgrade::None).await.unwrap() else { panic!() };
    assert_eq!(response.status(), 202);
    let body = response.into_body().collect().await.unwrap().to_bytes();
    let answer: Value = serde_json::from_slice(&body).unwrap();
    let real = answer["metadata"]["metadata"]["fds"].clone();
    let task = answer["metadata"]["id"].as_str().unwrap().to_owned();
    let text = String::from_utf8(running.fleet.exchange(&mine, &body).unwrap()).unwrap();
    for channel in ["0", "control"] {
        assert!(!text.contains(real[channel].as_str().unwrap()), "the real secret of {channel} left the gateway");
    }
    let minted: Value = serde_json::from_str(&text).unwrap();
    let minted = minted["metadata"]["metadata"]["fds"].clone();
    let asked = |secret: Option<&Value>| Task {
        hypervisor: "lab".parse().unwrap(),
        action: Action::View,
        effect: Effect::Unsafe,
        id: task.clone(),
        about: None,
        secret: secret.map(|s| s.as_str().unwrap().to_owned()),
    };
    assert_eq!(broker.resolve(&asked(Some(&minted["0"])), &owner), Some(control(Effect::Unsafe)));
    assert_eq!(
        broker.resolve(&asked(None), &owner).unwrap().resource,
        on(C1),
        "the forwarder remembers whose task it is"
    );
    for (secret, who) in [(Some(&minted["0"]), &stranger), (Some(&real["0"]), &owner), (None, &stranger)] {
        assert_eq!(broker.resolve(&asked(secret), who), None);
    }
    // Neither the real secret, nor somebody else's permit, nor a permit for something else opens a channel.
    let address = |secret: &Value| format!("/1.0/operations/{task}/websocket?secret={}", secret.as_str().unwrap());
    let theirs = decide(&running.fleet, &stranger, control(Effect::Unsafe)).await;
    let other = Operation {
        action: Action::View,
        resource: Resource::Hypervisor("lab".parse().unwrap()),
        effect: Effect::Safe,
    };
    let other = decide(&running.fleet, &owner, other).await;
    for (permit, secret) in [(&mine, &real["0"]), (&theirs, &minted["0"]), (&other, &minted["0"])] {
        let refused = client.send_with(permit, upgrade(&address(secret)), Upgrade::WebSocket).await;
        assert!(matches!(refused, Err(Error::Request(_) | Error::WrongPermit(_))));
    }
    let open = async |channel: &str| websocket(&client, &mine, &address(&minted[channel])).await;
    let _control = open("control").await;
    let mut data = open("0").await;
    // What is typed before the shell is attached is lost, as at any terminal: type until it answers.
    let mut screen = String::new();
    let began = tokio::time::Instant::now();
    while !screen.contains("lxd-console-42") {
        assert!(began.elapsed() < 20 * SECOND, "no echo: {screen:?}");
        data.send(Message::Binary(Bytes::from_static(b"\recho lxd-console-$((40+2))\r"))).await.unwrap();
        while let Ok(message) = tokio::time::timeout(SECOND, data.next()).await {
            screen.push_str(&String::from_utf8_lossy(&message.unwrap().unwrap().into_data()));
        }
    }
    let spent = client.send_with(&mine, upgrade(&address(&minted["0"])), Upgrade::WebSocket).await;
    assert!(matches!(spent, Err(Error::Request(_))), "a minted secret is good once");
    // Operations tell the secrets to whoever may read them: they are stripped.
    let (_, body) = client.get("/1.0/operations?recursion=1").await.unwrap();
    let real = real["0"].as_str().unwrap();
    assert!(String::from_utf8_lossy(&body).contains(real), "LXD still tells them");
    assert!(!String::from_utf8_lossy(&broker.strip(&client.permit, &body).unwrap()).contains(real));

    // An upload goes through as a stream, without its length known.
    let image = lxd::image(folder.path(), 40);
    let file = tokio::fs::File::open(image).await.unwrap();
    let parts = futures_util::stream::unfold(file, |mut file| async move {
        let mut part = vec![0; 64 * 1024];
        match file.read(&mut part).await.unwrap() {
            0 => None,
            n => {
                part.truncate(n);
                Some((Ok(Frame::data(Bytes::from(part))), file))
            }
        }
    });
    let request = Request::post("/1.0/images")
        .header("content-type", "application/octet-stream")
        .header("x-lxd-filename", "sent.tar")
        .body(StreamBody::new(parts).boxed_unsync())
        .unwrap();
    let (head, body) = client.ask(request).await.unwrap();
    assert_eq!(head.status, 202, "{}", String::from_utf8_lossy(&body));
    let location = head.headers["location"].to_str().unwrap().to_owned();
    let (_, body) = client.get(&format!("{location}/wait?timeout=30")).await.unwrap();
    let answer: Value = serde_json::from_slice(&body).unwrap();
    assert_eq!(answer["metadata"]["status"], "Success", "{answer}");
    assert_eq!(lxd.lxc(&["image", "list", "-f", "csv"]).lines().count(), 2);
}
