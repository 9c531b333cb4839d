// SPDX-License-Identifier: Apache-2.0
//! What is locked in an emergency stops within five seconds, stays shut with words that say until when, and opens by
//! itself.

use crate::support::{
    FakeLxd, Person, TestGateway,
    gateway::free_port,
    lab::{lab, ready, ticket},
    page,
    peers::Peer,
    screen::Screen,
};
use reqwest::{Client, StatusCode};
use std::time::{Duration, Instant};

const SOON: Duration = Duration::from_secs(5);

/// The status of a page, as soon as it is the expected one (5 s at most).
async fn becomes(person: &Person<'_>, path: &str, expected: StatusCode) {
    let begun = Instant::now();
    loop {
        let status = person.get(path).await.status();
        if status == expected {
            return;
        }
        assert!(begun.elapsed() < SOON, "{path}: {status}");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

// SEC-140
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_locked_machine_and_a_locked_hypervisor_are_cut_and_opened_again() {
    let guest = Peer::qemu("web-1", "none");
    let gateway = TestGateway::start(&lab(&guest)).await;
    let ada = Person::first_administrator(&gateway, "ada").await;
    ready(&gateway, &ada).await;
    let (bob, eve) = (ada.invite("bob").await, ada.invite("eve").await);
    ada.step_up().await;
    ada.grant("bob", "console-user", "tag", "web").await;
    let mut screen = Screen::open(&bob, "lab/web-1", "control", &ticket(&bob, "control").await).await;
    screen.handshake().await;
    ada.step_up().await;
    // Who may open screens may not lock, and a lock says why.
    let lock = [("kind", "machine"), ("value", "lab/web-1"), ("reason", "a stolen laptop"), ("hours", "4")];
    assert_eq!(bob.submit("/locks", &lock).await.status(), StatusCode::FORBIDDEN);
    let nothing = [("kind", "machine"), ("value", "lab/web-1"), ("reason", " ")];
    assert_eq!(ada.submit("/locks", &nothing).await.status(), StatusCode::UNPROCESSABLE_ENTITY);
    assert_eq!(ada.submit("/locks", &lock).await.status(), StatusCode::SEE_OTHER);
    let (code, reason) = screen.ended(SOON).await;
    assert!(code == 4000 && reason.contains("This machine is locked until"), "{code} {reason}");
    let answer = bob.get("/c/lab/web-1").await;
    let status = answer.status();
    let html = answer.text().await.expect("a page");
    assert!(status == StatusCode::FORBIDDEN && html.contains("by ada: a stolen laptop"), "{status} {html}");
    assert!(!html.contains("/requests/new"), "a lock is no matter of asking");
    // Whoever may not see the machine hears nothing of it.
    let hidden = eve.get("/c/lab/web-1").await;
    assert_eq!(hidden.status(), StatusCode::NOT_FOUND);
    assert!(!hidden.text().await.expect("a page").contains("locked"));
    // It stays in the lists, with the reason beside what cannot be done.
    assert!(bob.page("/").await.contains("This machine is locked until"));
    gateway
        .find_event(&["--kind", "intent"], |e| e["reason"].as_str().is_some_and(|r| r.contains("locked for 4 hours")))
        .await;
    let refused = |e: &serde_json::Value| e["reason"].as_str().is_some_and(|r| r.contains("This machine is locked"));
    gateway.find_event(&["--kind", "console", "--user", "bob", "--outcome", "denied"], refused).await;
    let id = page::field(&ada.page("/locks").await, "id").expect("a lock to end");
    assert_eq!(ada.submit("/locks/end", &[("id", &id)]).await.status(), StatusCode::SEE_OTHER);
    bob.step_up().await;
    becomes(&bob, "/c/lab/web-1", StatusCode::OK).await;

    // From a shell: the whole hypervisor, for two hours.
    let mut screen = Screen::open(&bob, "lab/web-1", "control", &ticket(&bob, "control").await).await;
    screen.handshake().await;
    let (code, text) = gateway.shell(&["lock", "add", "hypervisor:lab", "--for", "2h", "--reason", "an intruder"]);
    assert_eq!(code, Some(0), "{text}");
    let (code, reason) = screen.ended(SOON).await;
    assert!(code == 4000 && reason.contains("This hypervisor is locked until"), "{code} {reason}");
    let (_, listed) = gateway.shell(&["lock", "list", "--json"]);
    assert!(listed.contains("\"what\":\"hypervisor lab\"") && listed.contains("an intruder"), "{listed}");
    // It ends by itself. Who is only watched by the clock is signed out by then.
    gateway.clock.advance(time::Duration::hours(3));
    let mut bob = Person::with_key(&gateway, "bob", bob.key());
    bob.sign_in().await;
    becomes(&bob, "/c/lab/web-1", StatusCode::OK).await;
    gateway.stop().await;
}

// SEC-140
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_locked_token_stops_in_the_middle_of_an_answer_and_counts_again_later() {
    let (lxd, port) = (FakeLxd::start(&["c1"]), free_port());
    let gateway = TestGateway::start(&lxd.config("lxd", &format!("port = {port}"))).await;
    let ada = Person::first_administrator(&gateway, "ada").await;
    let bob = ada.invite("bob").await;
    ada.grant("bob", "administrator", "everything", "").await;
    let token = bob.token("lxd").await;
    let client = Client::builder().tls_certs_only([gateway.ca()]).build().expect("a client");
    let ask = async |path: &str| {
        let address = format!("https://localhost:{port}/1.0/instances/c1{path}");
        client.get(&address).bearer_auth(&token).send().await.expect("an answer")
    };
    let begun = Instant::now();
    while ask("").await.status() != StatusCode::OK {
        assert!(begun.elapsed() < SOON, "the container is not there");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    let mut answer = ask("/metadata/templates").await;
    assert!(answer.chunk().await.expect("it flows").is_some());
    let person = ada.page(&format!("/users/{}", gateway.user_id("bob").await)).await;
    let at = person.find("name=\"kind\" value=\"token\"").expect("a token can be locked on its owner's page");
    let id = page::field(&person[at..], "value").expect("its id");
    let lock = [("kind", "token"), ("value", &*id), ("reason", "found in a log")];
    assert_eq!(ada.submit("/locks", &lock).await.status(), StatusCode::SEE_OTHER);
    let begun = Instant::now();
    while let Ok(Some(_)) = answer.chunk().await {
        assert!(begun.elapsed() < SOON, "it flows on");
    }
    assert_eq!(ask("").await.status(), StatusCode::FORBIDDEN);
    let id = page::field(&ada.page("/locks").await, "id").expect("a lock to end");
    assert_eq!(ada.submit("/locks/end", &[("id", &id)]).await.status(), StatusCode::SEE_OTHER);
    assert_eq!(ask("").await.status(), StatusCode::OK);
    gateway.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_lock_of_a_person_may_end_by_itself_and_the_last_one_is_not_locked() {
    let gateway = TestGateway::start("").await;
    let ada = Person::first_administrator(&gateway, "ada").await;
    let bob = ada.invite("bob").await;
    let user = gateway.user_id("bob").await;
    let lock = [("reason", "a lost telephone"), ("hours", "1")];
    assert_eq!(ada.submit(&format!("/users/{user}/lock"), &lock).await.status(), StatusCode::SEE_OTHER);
    becomes(&bob, "/me", StatusCode::SEE_OTHER).await;
    assert!(ada.page("/locks").await.contains("person bob"));
    let hers = gateway.user_id("ada").await;
    assert_eq!(ada.submit(&format!("/users/{hers}/lock"), &lock).await.status(), StatusCode::CONFLICT);
    let (code, text) = gateway.shell(&["lock", "add", "person:ada", "--reason", "x"]);
    assert!(code == Some(2) && text.contains("the last one"), "{code:?} {text}");
    gateway.clock.advance(time::Duration::minutes(61));
    gateway.find_event(&["--kind", "user"], |e| e["reason"] == "the lock of the account is over").await;
    let mut bob = Person::with_key(&gateway, "bob", bob.key());
    bob.sign_in().await;
    becomes(&bob, "/me", StatusCode::OK).await;
    gateway.stop().await;
}
