// SPDX-License-Identifier: Apache-2.0
//! Screens that do not open: the person reads why in a close frame, the trail says why, other consoles live on.

use crate::support::{
    Person, TestGateway,
    gateway::free_port,
    lab::ready,
    peers::Peer,
    screen::{Screen, refused},
};
use reqwest::StatusCode;
use serde_json::Value;
use std::time::Duration;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpListener, TcpStream},
};

const SOON: Duration = Duration::from_secs(5);

/// How a fake screen behaves towards whoever connects.
#[derive(Clone, Copy)]
enum Act {
    /// Says nothing, for ever.
    Silent,
    /// Says these bytes and nothing more.
    Says(&'static [u8]),
    /// Begins to tell why it refuses, one byte a second, for ever.
    Drips,
}

/// A screen that is no QEMU; gives its port.
#[expect(clippy::disallowed_methods, reason = "the test ends with what it started")]
async fn fake(act: Act) -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("bound");
    let port = listener.local_addr().expect("an address").port();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            tokio::spawn(play(stream, act));
        }
    });
    port
}

async fn play(mut stream: TcpStream, act: Act) {
    match act {
        Act::Silent => {}
        Act::Says(bytes) => stream.write_all(bytes).await.unwrap_or_default(),
        Act::Drips => {
            // no security types, and a reason that never ends
            let _ = stream.write_all(b"RFB 003.008\n\x00\x00\x00\x04\x00").await;
            while stream.write_all(b"a").await.is_ok() {
                tokio::time::sleep(Duration::from_secs(1)).await;
            }
        }
    }
    // held open until the gateway gives up
    let mut rest = Vec::new();
    let _ = stream.read_to_end(&mut rest).await;
}

/// The hypervisor `lab`: the real guest `web-1`, and guests at these addresses.
fn lab(guest: &Peer, others: &[(&str, String)]) -> String {
    let others = others.iter().map(|(id, more)| format!("\n[[hypervisors.guests]]\nid = {id:?}\n{more}\n"));
    std::iter::once(crate::support::lab::lab(guest)).chain(others).collect()
}

fn at(port: u16) -> String {
    format!("vnc = \"127.0.0.1:{port}\"")
}

async fn ticket(person: &Person<'_>, machine: &str) -> String {
    // A ticket is counted against its person, 30 a minute.
    person.gateway.clock.advance(time::Duration::seconds(3));
    let answer = person.post_json(&format!("/api/v1/consoles/lab/{machine}/ticket/control")).await;
    let body: Value = answer.json().await.expect("JSON");
    body["ticket"].as_str().unwrap_or_else(|| panic!("{body}")).to_owned()
}

async fn open(person: &Person<'_>, machine: &str) -> Screen {
    Screen::open(person, &format!("lab/{machine}"), "control", &ticket(person, machine).await).await
}

/// The event of the console of a machine that came out like this.
async fn event(gateway: &TestGateway, machine: &str, outcome: &str) -> Value {
    let on = format!("lab/{machine}");
    let test = |e: &Value| e["on"] == on.as_str() && e["outcome"] == outcome;
    gateway.find_event(&["--kind", "console"], test).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_person_reads_why_a_screen_did_not_open_and_others_live_on() {
    let guest = Peer::qemu("web-1", "none");
    let locked = Peer::qemu("locked", "password");
    let strange = Peer::qemu("strange", "x509-password");
    let own_ca = Peer::qemu("own", "x509");
    let wrong = guest.dir().join("wrong-password");
    std::fs::write(&wrong, "not-it\n").expect("written");
    std::fs::set_permissions(&wrong, std::os::unix::fs::PermissionsExt::from_mode(0o600)).expect("chmod");
    let with_ca = format!(
        "vnc = {:?}\npassword_file = {:?}\n[hypervisors.guests.tls]\nca_file = {:?}\nserver_name = \"localhost\"",
        strange.get("VNC"),
        strange.get("PASSWORD_FILE"),
        own_ca.get("CA_FILE")
    );
    let guests = [
        ("refused", at(free_port()), "cannot be reached"),
        ("http", at(fake(Act::Says(b"HTTP/1.1 400 Bad Request\r\n\r\n")).await), "is not a VNC server"),
        ("odd", at(fake(Act::Says(b"RFB 003.008\n\x02\x10\x1e")).await), "does not speak"),
        ("liar", at(fake(Act::Says(b"RFB 003.008\n\x00\x00\x00\x00\x04gone")).await), "refused the connection: gone"),
        ("locked", format!("vnc = {:?}\npassword_file = {wrong:?}", locked.get("VNC")), "configured password"),
        ("bare", format!("vnc = {:?}", locked.get("VNC")), "asks for a password"),
        ("strange", with_ca, "TLS to the screen failed"),
    ];
    let others: Vec<_> = guests.iter().map(|(id, more, _)| (*id, more.clone())).collect();
    let gateway = TestGateway::start(&lab(&guest, &others)).await;
    let ada = Person::first_administrator(&gateway, "ada").await;
    ready_web(&gateway, &ada).await;
    let mut living = open(&ada, "web-1").await;
    living.handshake().await;
    living.picture().await;
    let recorded = gateway.count_recordings();
    for (id, _, why) in &guests {
        let (code, reason) = open(&ada, id).await.ended(SOON).await;
        assert_eq!(code, 4004, "{id}: {reason}");
        assert!(reason.contains(why) && reason.len() <= 120, "{id}: {reason}");
        let event = event(&gateway, id, "failed").await;
        let full = event["reason"].as_str().expect("a reason");
        assert!(full.starts_with(reason.trim_end_matches('…')), "{id}: {full}");
    }
    assert_eq!(gateway.count_recordings(), recorded, "nothing was shown, nothing is recorded");
    assert!(living.picture().await > 10_000, "it is not touched by the others");
    gateway.stop().await;
}

/// `web-1` runs; the other guests have no QMP socket and tell nothing.
async fn ready_web(gateway: &TestGateway, person: &Person<'_>) {
    for _ in 0..100 {
        let list: Value = person.get("/api/v1/machines").await.json().await.expect("JSON");
        let all = list["machines"].as_array().expect("machines");
        if all.iter().any(|m| m["id"] == "web-1" && m["state"] == "running") {
            return;
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    panic!("the machine of {} is not running", gateway.url());
}

// SEC-164
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_screen_that_says_nothing_or_never_stops_is_given_up_after_half_a_minute() {
    let guest = Peer::qemu("web-1", "none");
    let others = [("silent", at(fake(Act::Silent).await)), ("endless", at(fake(Act::Drips).await))];
    let gateway = TestGateway::start(&lab(&guest, &others)).await;
    let ada = Person::first_administrator(&gateway, "ada").await;
    ready_web(&gateway, &ada).await;
    let (mut silent, mut endless) = (open(&ada, "silent").await, open(&ada, "endless").await);
    let limit = Duration::from_secs(35);
    let ((code, reason), (other, other_reason)) = tokio::join!(silent.ended(limit), endless.ended(limit));
    assert_eq!((code, other), (4004, 4004), "{reason} {other_reason}");
    assert!(reason.contains("in time (at: protocol version)"), "{reason}");
    assert!(other_reason.contains("in time (at: security type)"), "{other_reason}");
    assert!(event(&gateway, "silent", "failed").await["reason"].as_str().expect("a reason").contains("in time"));
    gateway.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_being_opened_is_counted_cut_and_left_like_a_screen() {
    let guest = Peer::qemu("web-1", "none");
    let others = [("silent", at(fake(Act::Silent).await))];
    let gateway = TestGateway::start(&lab(&guest, &others)).await;
    let ada = Person::first_administrator(&gateway, "ada").await;
    ready_web(&gateway, &ada).await;
    // The browser leaves: its place is free again long before the hypervisor is given up.
    let leaving = open(&ada, "silent").await;
    drop(leaving);
    let left = event(&gateway, "silent", "abandoned").await;
    assert!(left["reason"].as_str().expect("a reason").contains("left before"), "{left}");
    // Ten at once is what one person may have, those that are still being opened included.
    let mut all = Vec::new();
    for _ in 0..10 {
        all.push(open(&ada, "silent").await);
    }
    let (code, reason) = open(&ada, "web-1").await.ended(SOON).await;
    assert_eq!((code, reason.as_str()), (1008, "You have too many consoles open. Close one first."));
    event(&gateway, "web-1", "failed").await;
    // Signing out cuts those, too.
    assert_eq!(ada.submit("/sign-out", &[]).await.status(), StatusCode::SEE_OTHER);
    for mut one in all {
        let (code, reason) = one.ended(SOON).await;
        assert_eq!((code, reason.as_str()), (4000, "access ended: you signed out"));
    }
    let cut = event(&gateway, "silent", "failed").await;
    assert!(cut["reason"].as_str().expect("a reason").contains("not open yet"), "{cut}");
    gateway.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_console_whose_recording_cannot_start_does_not_open() {
    let guest = Peer::qemu("web-1", "none");
    let gateway = TestGateway::start(&lab(&guest, &[])).await;
    let ada = Person::first_administrator(&gateway, "ada").await;
    let bob = ada.invite("bob").await;
    ada.grant("bob", "console-user", "tag", "web").await;
    ready(&gateway, &bob).await;
    let folder = gateway.dir.path().join("recordings");
    std::fs::remove_dir_all(&folder).expect("removed");
    std::fs::write(&folder, "in the way").expect("written");
    let (code, reason) = open(&bob, "web-1").await.ended(SOON).await;
    assert_eq!((code, reason.as_str()), (4003, "The recording could not be started. Tell an administrator."));
    event(&gateway, "web-1", "failed").await;
    // No row is left without an end.
    gateway.settled_recordings(0).await;
    // A ticket that was taken is spent, whatever came of it.
    let spent = ticket(&bob, "web-1").await;
    Screen::open(&bob, "lab/web-1", "control", &spent).await.ended(SOON).await;
    assert_eq!(refused(&bob, "lab/web-1", "control", &spent).await, StatusCode::FORBIDDEN);
    gateway.stop().await;
}
