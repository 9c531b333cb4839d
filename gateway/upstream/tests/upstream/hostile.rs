// SPDX-License-Identifier: Apache-2.0
//! Hypervisors that lie, stall and flood: each costs itself only.

use crate::support::{
    Running, config,
    fake::{Fake, head},
    peak_memory,
};
use portcullis_domain::PowerState;
use portcullis_upstream::HealthState;
use std::time::Duration;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream, UnixStream},
    time::Instant,
};

const SECOND: Duration = Duration::from_secs(1);

async fn reason(running: &Running, index: usize, limit: Duration) -> String {
    let began = Instant::now();
    loop {
        let health = running.fleet.health().swap_remove(index);
        if let HealthState::Down { why, .. } = &health.state
            && why != "was not asked yet"
        {
            return why.clone();
        }
        assert!(began.elapsed() < limit, "{health:?}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

/// Serves the events WebSocket (which then says nothing) and the list.
fn lxd(list: &'static str) -> Fake {
    Fake::start(move |_, mut stream| async move {
        let mut rest = Vec::new();
        while let Some(text) = head(&mut stream, &mut rest).await {
            if text.starts_with("GET /1.0/events") {
                return accept(&mut stream, &text).await;
            }
            let answer = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{list}", list.len());
            stream.write_all(answer.as_bytes()).await.unwrap();
        }
    })
}

async fn accept(stream: &mut UnixStream, text: &str) {
    let key = crate::support::fake::field(text, "sec-websocket-key").unwrap();
    let accept = tokio_tungstenite::tungstenite::handshake::derive_accept_key(key.as_bytes());
    let answer = format!(
        "HTTP/1.1 101 X\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Accept: {accept}\r\n\r\n"
    );
    stream.write_all(answer.as_bytes()).await.unwrap();
    let _ = stream.read_to_end(&mut Vec::new()).await;
}

const GOOD: &str =
    r#"{"metadata":[{"name":"c1","project":"p","type":"container","status":"Running","config":{"user.tags":"a"}}]}"#;

#[tokio::test]
async fn an_endless_list_is_cut_at_its_cap_and_costs_no_other() {
    let good = lxd(GOOD);
    let endless = Fake::start(|_, mut stream| async move {
        let mut rest = Vec::new();
        while let Some(text) = head(&mut stream, &mut rest).await {
            if text.starts_with("GET /1.0/events") {
                return accept(&mut stream, &text).await;
            }
            let _ = stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 1073741824\r\n\r\n{\"metadata\":[").await;
            while stream.write_all(&vec![b' '; 65536]).await.is_ok() {}
        }
    });
    let before = peak_memory();
    let running = Running::start(vec![config(endless.lxd("bad")), config(good.lxd("good"))]);
    running.until("good/p:c1", 5 * SECOND, |m| m.is_some_and(|m| m.state == PowerState::Running)).await;
    let why = reason(&running, 0, 10 * SECOND).await;
    assert!(why.contains("32 MiB"), "{why}");
    assert!(peak_memory() - before < 128 * 1024 * 1024);
    assert_eq!(running.fleet.health()[1].state, HealthState::Ok);
}

#[tokio::test]
async fn millions_of_small_rows_take_little_memory() {
    let rows: &'static str = Box::leak(format!("{{\"metadata\":[{}7]}}", "7,".repeat(15_000_000)).into_boxed_str());
    let config_only = format!(
        "{{\"name\":\"c1\",\"project\":\"p\",\"config\":{{{}\"user.tags\":\"a\"}}}}",
        "\"a\":\"\",".repeat(3_000_000)
    );
    let wide: &'static str = Box::leak(format!("{{\"metadata\":[{config_only}]}}").into_boxed_str());
    drop(config_only);
    let (many, wide) = (lxd(rows), lxd(wide));
    let before = peak_memory();
    let running = Running::start(vec![config(many.lxd("many")), config(wide.lxd("wide"))]);
    running.until("wide/p:c1", 30 * SECOND, |m| m.is_some_and(|m| m.tags == ["a"])).await;
    let began = Instant::now();
    while running.fleet.health()[0].notes.is_empty() {
        assert!(began.elapsed() < 30 * SECOND);
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    assert!(running.fleet.health()[0].notes[0].starts_with("15000001 instances"));
    let grown = (peak_memory() - before) / (1024 * 1024);
    // The text itself, as it arrives and as it grows, and the fake's own copy of it.
    assert!(grown < 256, "{grown} MiB");
}

#[tokio::test]
async fn wrong_shapes_are_reported_and_bad_rows_hide_no_good_ones() {
    let number = lxd(r#"{"metadata":5}"#);
    let nothing = lxd("hello");
    let mixed = lxd(
        r#"{"metadata":[7,{"name":5},{"name":"../x","project":"p","status":"Running"},{"name":"a:b","project":"p"},
        {"name":"c1","project":"p","status":"Running","config":{"user.tags":"a,\u0001b"}},{"name":"c2","project":"p","status":"Odd"}]}"#,
    );
    let running =
        Running::start(vec![config(number.lxd("number")), config(nothing.lxd("nothing")), config(mixed.lxd("mixed"))]);
    running.until("mixed/p:c1", 5 * SECOND, |m| m.is_some_and(|m| m.tags == ["a"])).await;
    assert_eq!(running.machine("mixed/p:c2").unwrap().state, PowerState::Unknown);
    let health = running.fleet.health().swap_remove(2);
    assert_eq!((health.machines, health.notes.len()), (2, 4), "{:?}", health.notes);
    assert!(reason(&running, 0, 5 * SECOND).await.contains("another shape"));
    assert!(reason(&running, 1, 5 * SECOND).await.contains("another shape"));
}

#[tokio::test(start_paused = true)]
async fn a_hypervisor_that_never_answers_is_down_after_its_deadline() {
    let silent = || {
        Fake::start(|_, mut stream| async move {
            let _ = stream.read_to_end(&mut Vec::new()).await;
        })
    };
    let (lxd, libvirt, qmp) = (silent(), silent(), silent());
    let began = Instant::now();
    let running = Running::start(vec![
        config(lxd.lxd("lxd")),
        config(serde_json::json!({ "kind": "libvirt", "name": "virt", "socket": libvirt.socket() })),
        config(serde_json::json!({ "kind": "qemu", "name": "qemu", "guests": [{ "id": "g", "qmp": qmp.socket() }] })),
    ]);
    assert!(reason(&running, 0, 40 * SECOND).await.contains("too long"));
    assert!(reason(&running, 1, 40 * SECOND).await.contains("too long"));
    assert!(began.elapsed() >= 29 * SECOND);
    let notes = running.fleet.health().swap_remove(2).notes;
    assert!(notes[0].contains("one client at a time"), "{notes:?}");
    assert_eq!(running.machine("qemu/g").unwrap().state, PowerState::Unknown);
}

fn libvirt(bytes: Vec<u8>) -> Fake {
    Fake::start(move |_, mut stream| {
        let bytes = bytes.clone();
        async move {
            let mut call = [0; 28];
            if stream.read_exact(&mut call).await.is_ok() {
                let _ = stream.write_all(&bytes).await;
                let _ = stream.read_to_end(&mut Vec::new()).await;
            }
        }
    })
}

fn words(words: &[u32]) -> Vec<u8> {
    words.iter().flat_map(|w| w.to_be_bytes()).collect()
}

#[tokio::test]
async fn broken_rpc_is_told_from_a_daemon_that_wants_sasl() {
    const REMOTE: u32 = 0x2000_8086;
    let cases = [
        (words(&[0xffff_fff0, REMOTE, 1, 66, 1, 1, 0]), "too short or too long"),
        (words(&[3]), "too short or too long"),
        (words(&[28, REMOTE, 2, 66, 1, 1, 0]), "version"),
        (words(&[28, REMOTE, 1, 66, 1, 99, 0]), "not made"),
        (words(&[28, REMOTE, 1, 67, 1, 1, 0]), "another call"),
        (words(&[28, REMOTE, 1, 66, 1, 1, 0]), "too early"),
        (words(&[32, REMOTE, 1, 66, 1, 1, 0, 0xffff_ffff]), "entries"),
        (words(&[28, REMOTE, 1, 66, 1, 1, 7]), "status"),
        (words(&[36, REMOTE, 1, 66, 1, 1, 0, 1, 1]), "SASL"),
    ];
    for (bytes, word) in cases {
        let fake = libvirt(bytes);
        let running = Running::start(vec![config(
            serde_json::json!({ "kind": "libvirt", "name": "v", "socket": fake.socket() }),
        )]);
        let why = reason(&running, 0, 5 * SECOND).await;
        assert!(why.contains(word), "{why:?} instead of {word:?}");
    }
}

#[tokio::test]
async fn a_flood_of_events_costs_bounded_memory() {
    let fake = Fake::start(|_, mut stream| async move {
        // Events of 16 KiB each, and never the answer.
        let mut event = words(&[1 << 14, 0x2000_8086, 1, 318, 2, 0, 0]);
        event.resize(1 << 14, 0);
        while stream.write_all(&event).await.is_ok() {}
    });
    let running =
        Running::start(vec![config(serde_json::json!({ "kind": "libvirt", "name": "v", "socket": fake.socket() }))]);
    tokio::time::sleep(3 * SECOND).await;
    let used = peak_memory();
    assert!(used < 64 * 1024 * 1024, "{used}");
    assert!(running.fleet.inventory().is_empty());
}

#[tokio::test]
async fn a_qmp_socket_that_floods_or_lies_is_unknown() {
    let flood = Fake::start(|_, mut stream| async move { while stream.write_all(&vec![b'a'; 65536]).await.is_ok() {} });
    let liar = Fake::start(|_, mut stream| async move {
        let _ = stream.write_all(b"{\"QMP\":{}}\n{\"return\":{}}\n{\"return\":5}\n").await;
        let _ = stream.read_to_end(&mut Vec::new()).await;
    });
    let running = Running::start(vec![config(serde_json::json!({ "kind": "qemu", "name": "q", "guests": [
        { "id": "flood", "qmp": flood.socket() }, { "id": "liar", "qmp": liar.socket() },
    ] }))]);
    let began = Instant::now();
    loop {
        let notes = running.fleet.health().swap_remove(0).notes;
        if notes.len() == 2 {
            assert!(notes[0].contains("1 MiB") && notes[1].contains("status"), "{notes:?}");
            break;
        }
        assert!(began.elapsed() < 5 * SECOND, "{notes:?}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

/// Answers one request of the driver for OpenStack: pages that name each other, and nothing that is a server.
async fn go_round(mut stream: TcpStream) {
    let mut came = Vec::new();
    let head = loop {
        if let Some(end) = came.windows(4).position(|w| w == b"\r\n\r\n") {
            break String::from_utf8(came.drain(..end + 4).collect()).unwrap();
        }
        if stream.read_buf(&mut came).await.unwrap() == 0 {
            return;
        }
    };
    let length: usize = crate::support::fake::field(&head, "content-length").map_or(0, |n| n.parse().unwrap());
    while came.len() < length {
        stream.read_buf(&mut came).await.unwrap();
    }
    let (status, body) = if head.starts_with("POST /v3/auth/tokens") {
        let token = r#"{"token": {"issued_at": "2026-11-28T18:00:00Z", "expires_at": "2026-11-28T19:00:00Z",
            "project": {"id": "p", "name": "p"}}}"#;
        ("201 Created\r\nX-Subject-Token: t", token.to_owned())
    } else if head.starts_with("GET /v3/projects") {
        ("200 OK", r#"{"projects": []}"#.to_owned())
    } else {
        let last = if head.contains("marker=page%20a") { "page b" } else { "page a" };
        let rows = "{\"id\": \"no id\"},".repeat(499);
        ("200 OK", format!("{{\"servers\": [{rows}{{\"id\": {last:?}}}], \"servers_links\": [{{\"rel\": \"next\"}}]}}"))
    };
    let answer = format!("HTTP/1.1 {status}\r\nContent-Length: {}\r\n\r\n{body}", body.len());
    stream.write_all(answer.as_bytes()).await.unwrap();
}

#[tokio::test]
async fn pages_that_name_each_other_and_no_server_come_to_an_end() {
    use std::os::unix::fs::PermissionsExt as _;
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    crate::support::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            crate::support::spawn(go_round(stream));
        }
    });
    let secret = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(secret.path(), "s").unwrap();
    std::fs::set_permissions(secret.path(), std::fs::Permissions::from_mode(0o600)).unwrap();
    let running = Running::start(vec![config(serde_json::json!({
        "kind": "openstack", "name": "cloud", "user": "u", "project": "p", "secret_file": secret.path(),
        "identity": format!("http://127.0.0.1:{port}/v3"), "compute": format!("http://127.0.0.1:{port}/v2.1"),
    }))]);
    let began = Instant::now();
    loop {
        let health = running.fleet.health().swap_remove(0);
        if let HealthState::Down { why, .. } = &health.state
            && why != "was not asked yet"
        {
            assert!(why.contains("does not end"), "{health:?}");
            assert_eq!(health.machines, 0, "nothing of such a list is believed");
            break;
        }
        assert!(began.elapsed() < 30 * SECOND, "{health:?}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}
