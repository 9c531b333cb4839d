// SPDX-License-Identifier: Apache-2.0
//! A console through the gateway: one-use tickets, view-only, recording, the trail, and the leash that cuts it.

use crate::support::{
    Person, TestGateway,
    lab::{lab, ready, ticket},
    peers::Peer,
    screen::{Screen, refused},
};
use reqwest::StatusCode;
use serde_json::Value;
use std::time::Duration;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_screen_over_vencrypt_opens_is_recorded_and_is_cut_when_the_grant_ends() {
    let guest = Peer::qemu("web-1", "x509-password");
    let gateway = TestGateway::start(&lab(&guest)).await;
    let ada = Person::first_administrator(&gateway, "ada").await;
    let bob = ada.invite("bob").await;
    // Nothing granted: bob cannot tell the machine from one that does not exist.
    for path in ["/c/lab/web-1", "/c/lab/nothing"] {
        assert_eq!(bob.get(path).await.status(), StatusCode::NOT_FOUND, "{path}");
    }
    ada.grant("bob", "console-user", "tag", "web").await;
    ready(&gateway, &bob).await;
    let before = gateway.count_recordings();
    let mut screen = Screen::open(&bob, "lab/web-1", "control", &ticket(&bob, "control").await).await;
    screen.handshake().await;
    assert!(screen.picture().await > 10_000, "the first picture arrives");
    assert_eq!(gateway.count_recordings(), before + 1);
    // Somebody else's browser cannot use a ticket of bob's, and bob's works once.
    let spent = ticket(&bob, "control").await;
    assert_eq!(refused(&ada, "lab/web-1", "control", &spent).await, StatusCode::FORBIDDEN);
    assert_eq!(refused(&bob, "lab/web-1", "view", &spent).await, StatusCode::FORBIDDEN);
    ada.revoke_grants("bob").await;
    let (code, reason) = screen.ended(Duration::from_secs(5)).await;
    assert_eq!(code, 4000, "{reason}");
    assert!(reason.contains("console-user"), "{reason}");
    let cut = |e: &Value| e["reason"].as_str().is_some_and(|r| r.starts_with("access ended"));
    let ended = gateway.find_event(&["--kind", "console", "--user", "bob"], cut).await;
    assert_eq!((ended["what"].as_str(), ended["on"].as_str()), (Some("console.control"), Some("lab/web-1")));
    gateway.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn view_only_is_enforced_in_the_gateway() {
    let guest = Peer::qemu("web-1", "password");
    let gateway = TestGateway::start(&lab(&guest)).await;
    let ada = Person::first_administrator(&gateway, "ada").await;
    ready(&gateway, &ada).await;
    let mut screen = Screen::open(&ada, "lab/web-1", "view", &ticket(&ada, "view").await).await;
    screen.handshake().await;
    screen.picture().await;
    screen.press("touch-nothing").await;
    // The same keys through a session that may: the guest's text memory tells the two apart.
    let mut other = Screen::open(&ada, "lab/web-1", "control", &ticket(&ada, "control").await).await;
    other.handshake().await;
    other.picture().await;
    other.press("typed-by-hand").await;
    guest.wait_for_text("typed-by-hand").await;
    assert!(!guest.text().contains("touch-nothing"), "{}", guest.text());
    gateway.stop().await;
}

// SEC-003
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_screen_that_somebody_else_has_open_is_no_way_in_for_who_may_not_open_it() {
    let guest = Peer::qemu("web-1", "none");
    let gateway = TestGateway::start(&lab(&guest)).await;
    let ada = Person::first_administrator(&gateway, "ada").await;
    ready(&gateway, &ada).await;
    let (bob, kim) = (ada.invite("bob").await, ada.invite("kim").await);
    ada.grant("kim", "viewer", "machine", "lab/web-1").await;
    ada.step_up().await;
    let mut screen = Screen::open(&ada, "lab/web-1", "control", &ticket(&ada, "control").await).await;
    screen.handshake().await;
    assert!(screen.picture().await > 10_000, "it is open");
    // With nothing, with a ticket of hers, and as somebody who sees the machine: refused before the stream begins.
    for (person, status) in [(&bob, StatusCode::NOT_FOUND), (&kim, StatusCode::FORBIDDEN)] {
        for mode in ["view", "control"] {
            let hers = ticket(&ada, mode).await;
            for text in ["", hers.as_str()] {
                assert_eq!(refused(person, "lab/web-1", mode, text).await, status, "{} {mode}", person.name);
            }
        }
        let denied = |e: &serde_json::Value| e["outcome"] == "denied" && e["on"] == "lab/web-1";
        gateway.find_event(&["--kind", "console", "--user", &person.name], denied).await;
    }
    // Whoever may watch needs a ticket of their own.
    ada.grant("kim", "machine/console.view", "machine", "lab/web-1").await;
    kim.step_up().await;
    let hers = ticket(&ada, "view").await;
    assert_eq!(refused(&kim, "lab/web-1", "view", &hers).await, StatusCode::FORBIDDEN);
    assert!(screen.picture().await > 10_000, "hers goes on");
    gateway.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_ticket_counts_once_for_one_session_machine_and_mode() {
    let guest = Peer::qemu("web-1", "none");
    let gateway = TestGateway::start(&lab(&guest)).await;
    let ada = Person::first_administrator(&gateway, "ada").await;
    ready(&gateway, &ada).await;
    let good = ticket(&ada, "control").await;
    for (path, mode, text) in
        [("lab/web-1", "control", "pck_nothing"), ("lab/web-1", "view", good.as_str()), ("lab/web-1", "control", "")]
    {
        let status = refused(&ada, path, mode, text).await;
        assert!(status == StatusCode::FORBIDDEN || status == StatusCode::BAD_REQUEST, "{mode} {status}");
    }
    // A wrong use spends it: whoever holds it has lost it.
    assert_eq!(refused(&ada, "lab/web-1", "control", &good).await, StatusCode::FORBIDDEN);
    let old = ticket(&ada, "control").await;
    gateway.clock.advance(time::Duration::seconds(31));
    assert_eq!(refused(&ada, "lab/web-1", "control", &old).await, StatusCode::FORBIDDEN);
    // 16 at once with one ticket: one screen.
    let one = ticket(&ada, "control").await;
    let all = (0..16).map(|_| Screen::attempt(&ada, "lab/web-1", "control", &one));
    let won = futures_util::future::join_all(all).await.into_iter().flatten().count();
    assert_eq!(won, 1);
    gateway.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stream_opens_for_our_own_origin_only() {
    let guest = Peer::qemu("web-1", "none");
    let gateway = TestGateway::start(&lab(&guest)).await;
    let ada = Person::first_administrator(&gateway, "ada").await;
    ready(&gateway, &ada).await;
    let port = gateway.portal.port();
    for origin in [
        "https://evil.example",
        "null",
        "",
        "http://localhost",
        "https://localhost",
        "https://localhost.evil.example",
        "https://evillocalhost",
        &format!("https://localhost:{}", port.wrapping_add(1)),
        &format!("HTTPS://LOCALHOST:{port}"),
    ] {
        let one = ticket(&ada, "control").await;
        let status = Screen::attempt_from(&ada, "lab/web-1", "control", &one, &[origin]).await.err();
        assert_eq!(status, Some(StatusCode::FORBIDDEN), "{origin:?}");
        if !origin.is_empty() {
            let own = gateway.url();
            let status = Screen::attempt_from(&ada, "lab/web-1", "control", &one, &[&own, origin]).await.err();
            assert_eq!(status, Some(StatusCode::FORBIDDEN), "two origins: {origin:?}");
        }
        gateway.clock.advance(time::Duration::seconds(10));
    }
    let one = ticket(&ada, "control").await;
    assert!(Screen::attempt(&ada, "lab/web-1", "control", &one).await.is_ok());
    gateway.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_console_asks_for_a_fresh_code_when_the_last_one_is_old() {
    let guest = Peer::qemu("web-1", "none");
    let gateway = TestGateway::start(&lab(&guest)).await;
    let ada = Person::first_administrator(&gateway, "ada").await;
    ready(&gateway, &ada).await;
    gateway.clock.advance(time::Duration::seconds(301));
    let answer = ada.post_json("/api/v1/consoles/lab/web-1/ticket/control").await;
    assert_eq!(answer.status(), StatusCode::FORBIDDEN);
    let place = "/step-up?for=POST+%2Fapi%2Fv1%2Fconsoles%2Flab%2Fweb-1%2Fticket%2Fcontrol";
    assert_eq!(answer.headers()["x-step-up"], place);
    let page = ada.get("/c/lab/web-1").await;
    assert_eq!(crate::support::person::location(&page), "/step-up?next=%2Fc%2Flab%2Fweb-1");
    ada.step_up().await;
    ticket(&ada, "control").await;
    gateway.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn signing_out_cuts_the_screen() {
    let guest = Peer::qemu("web-1", "password");
    let gateway = TestGateway::start(&lab(&guest)).await;
    let ada = Person::first_administrator(&gateway, "ada").await;
    ready(&gateway, &ada).await;
    let mut screen = Screen::open(&ada, "lab/web-1", "control", &ticket(&ada, "control").await).await;
    screen.handshake().await;
    screen.picture().await;
    assert_eq!(ada.submit("/sign-out", &[]).await.status(), StatusCode::SEE_OTHER);
    let (code, reason) = screen.ended(Duration::from_secs(5)).await;
    assert_eq!((code, reason.as_str()), (4000, "access ended: you signed out"));
    gateway.stop().await;
}
