// SPDX-License-Identifier: Apache-2.0
//! What an API's door owes while an answer is on its way, and to those who may not enter at all.

use crate::support::{FakeLxd, Person, TestGateway, gateway::free_port};
use reqwest::{Client, StatusCode, header};
use std::time::{Duration, Instant};

/// An answer that takes a minute, as soon as the container is known.
async fn read_slowly(client: &Client, port: u16, token: &str) -> reqwest::Response {
    let address = format!("https://localhost:{port}/1.0/instances/c1/metadata/templates");
    for _ in 0..100 {
        let answer = client.get(&address).bearer_auth(token).send().await.expect("an answer");
        if answer.status() != StatusCode::NOT_FOUND {
            assert_eq!(answer.status(), StatusCode::OK);
            return answer;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    panic!("the container is not known");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_long_answer_is_cut_when_access_ends() {
    let (lxd, port) = (FakeLxd::start(&["c1"]), free_port());
    let gateway = TestGateway::start(&lxd.config("lxd", &format!("port = {port}"))).await;
    let ada = Person::first_administrator(&gateway, "ada").await;
    let bob = ada.invite("bob").await;
    ada.grant("bob", "administrator", "everything", "").await;
    let token = bob.token("lxd").await;
    let client = Client::builder().tls_certs_only([gateway.ca()]).build().expect("a client");
    let mut answer = read_slowly(&client, port, &token).await;
    assert!(answer.chunk().await.expect("it flows").is_some());
    ada.revoke_grants("bob").await;
    let begun = Instant::now();
    let broke = loop {
        match answer.chunk().await {
            Ok(Some(_)) => assert!(begun.elapsed() < Duration::from_secs(5), "it flows on without access"),
            other => break other,
        }
    };
    assert!(broke.is_err(), "it broke off, and does not look whole");
    let cut = |e: &serde_json::Value| e["reason"].as_str().is_some_and(|r| r.starts_with("access ended"));
    gateway.find_event(&["--kind", "api", "--user", "bob", "--outcome", "failed"], cut).await;
    gateway.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_answer_that_is_read_whole_is_not_shown_when_access_ended_meanwhile() {
    let (lxd, port) = (FakeLxd::start(&["c1"]), free_port());
    let gateway = TestGateway::start(&lxd.config("lxd", &format!("port = {port}"))).await;
    let ada = Person::first_administrator(&gateway, "ada").await;
    let bob = ada.invite("bob").await;
    // Who sees a part gets a list that is read whole and cut.
    ada.grant("bob", "administrator", "tag", "web").await;
    let token = bob.token("lxd").await;
    let client = Client::builder().tls_certs_only([gateway.ca()]).build().expect("a client");
    drop(read_slowly(&client, port, &token).await);
    let list = || {
        let address = format!("https://localhost:{port}/1.0/instances?recursion=1&filter=late");
        client.get(address).bearer_auth(&token).send()
    };
    let whole = list().await.expect("an answer");
    assert_eq!(whole.status(), StatusCode::OK);
    assert!(whole.text().await.expect("text").contains("c1"), "it is waited for");
    let before = lxd.asked("GET /1.0/instances");
    let begun = Instant::now();
    let (answer, ()) = tokio::join!(list(), async {
        while lxd.asked("GET /1.0/instances") == before {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        ada.revoke_grants("bob").await;
    });
    let answer = answer.expect("an answer");
    assert_eq!(answer.status(), StatusCode::FORBIDDEN);
    let said = answer.text().await.expect("text");
    // In quotes: the number of a request may hold these letters.
    assert!(said.contains("Your access ended") && !said.contains("\"c1\"") && !said.contains("instances"), "{said}");
    assert!(begun.elapsed() < Duration::from_millis(2900), "its end is not waited for: {:?}", begun.elapsed());
    let cut = |e: &serde_json::Value| e["reason"].as_str().is_some_and(|r| r.starts_with("access ended"));
    let event = gateway.find_event(&["--kind", "api", "--user", "bob", "--outcome", "failed"], cut).await;
    let presented = event["details"]["presented"].as_str().expect("a detail");
    assert!(presented.starts_with("token "), "{event}");
    // In words as well.
    let (_, said) = gateway.shell(&["audit", "search", "--kind", "api", "--user", "bob", "--outcome", "failed"]);
    assert!(said.contains(&format!("presented {presented}")), "{said}");
    gateway.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[expect(clippy::disallowed_methods, reason = "the test waits for it")]
async fn an_upload_is_cut_when_access_ends() {
    let (lxd, port) = (FakeLxd::start(&["c1"]), free_port());
    let gateway = TestGateway::start(&lxd.config("lxd", &format!("port = {port}"))).await;
    let ada = Person::first_administrator(&gateway, "ada").await;
    let bob = ada.invite("bob").await;
    ada.grant("bob", "administrator", "everything", "").await;
    let token = bob.token("lxd").await;
    let client = Client::builder().tls_certs_only([gateway.ca()]).http1_only().build().expect("a client");
    let endless = futures_util::stream::unfold((), |()| async {
        tokio::time::sleep(Duration::from_millis(50)).await;
        Some((Ok::<_, std::io::Error>(vec![b'x'; 1000]), ()))
    });
    let address = format!("https://localhost:{port}/1.0/instances/c1/files?path=/file");
    drop(read_slowly(&client, port, &token).await);
    let request = client.post(&address).bearer_auth(&token).header(header::CONTENT_TYPE, "application/octet-stream");
    let sending = tokio::spawn(request.body(reqwest::Body::wrap_stream(endless)).send());
    let begun = Instant::now();
    while lxd.swallowed() < 2000 {
        assert!(begun.elapsed() < Duration::from_secs(10) && !sending.is_finished(), "{:?}", lxd.swallowed());
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    ada.revoke_grants("bob").await;
    let begun = Instant::now();
    let answer = tokio::time::timeout(Duration::from_secs(5), sending).await.expect("it goes on without access");
    // Whoever still sends hears it, or finds the connection closed.
    assert!(answer.expect("joined").map_or(true, |a| a.status() == StatusCode::FORBIDDEN));
    assert!(begun.elapsed() < Duration::from_secs(5));
    let cut = |e: &serde_json::Value| e["reason"].as_str().is_some_and(|r| r.starts_with("access ended"));
    gateway.find_event(&["--kind", "api", "--user", "bob", "--outcome", "failed"], cut).await;
    let arrived = lxd.swallowed();
    tokio::time::sleep(Duration::from_millis(300)).await;
    assert_eq!(lxd.swallowed(), arrived, "nothing more arrives");
    gateway.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_flood_of_strangers_does_not_fill_the_trail() {
    let (lxd, port) = (FakeLxd::start(&["c1"]), free_port());
    let limits = "[limits]\nstranger_per_second = 1\nstranger_burst = 5\n";
    let gateway = TestGateway::start(&format!("{limits}{}", lxd.config("lxd", &format!("port = {port}")))).await;
    let client = Client::builder().tls_certs_only([gateway.ca()]).build().expect("a client");
    let begun = Instant::now();
    let mut turned_away = 0;
    for _ in 0..300 {
        let answer = client.get(format!("https://localhost:{port}/1.0")).send().await.expect("an answer");
        turned_away += usize::from(answer.status() == StatusCode::TOO_MANY_REQUESTS);
    }
    let let_in = 6 + usize::try_from(begun.elapsed().as_secs()).expect("short");
    assert!(turned_away >= 300 - let_in, "{turned_away}");
    gateway.find_event(&["--kind", "api"], |_| true).await;
    tokio::time::sleep(Duration::from_millis(500)).await;
    let events = gateway.search(&["--kind", "api", "--limit", "1000"]).len();
    assert!(events <= let_in, "{events} events of 300 that knocked");
    gateway.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_request_becomes_a_websocket_or_nothing() {
    let (lxd, port) = (FakeLxd::start(&["c1"]), free_port());
    let gateway = TestGateway::start(&lxd.config("lxd", &format!("port = {port}"))).await;
    let ada = Person::first_administrator(&gateway, "ada").await;
    let token = ada.token("lxd").await;
    let client = Client::builder().tls_certs_only([gateway.ca()]).http1_only().build().expect("a client");
    for upgrade in ["h2c", "websocket, h2c", "tcp", ""] {
        let request = client.get(format!("https://localhost:{port}/1.0/events")).bearer_auth(&token);
        let answer = request.header(header::CONNECTION, "Upgrade").header(header::UPGRADE, upgrade).send().await;
        assert_eq!(answer.expect("an answer").status(), StatusCode::BAD_REQUEST, "{upgrade:?}");
    }
    assert_eq!(lxd.asked("GET /1.0/events"), 1, "by the gateway's own inventory, and by nobody else");
    gateway.stop().await;
}
