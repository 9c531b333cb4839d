// SPDX-License-Identifier: Apache-2.0
//! What an API's door owes while an answer is on its way, and to those who may not enter at all.

use crate::support::{FakeLxd, Person, TestGateway, gateway::free_port};
use reqwest::{Client, StatusCode, header};
use std::time::{Duration, Instant};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_long_answer_is_cut_when_access_ends() {
    let (lxd, port) = (FakeLxd::start(&["c1"]), free_port());
    let gateway = TestGateway::start(&lxd.config("lxd", &format!("port = {port}"))).await;
    let ada = Person::first_administrator(&gateway, "ada").await;
    let bob = ada.invite("bob").await;
    ada.grant("bob", "administrator", "everything", "").await;
    let token = bob.token("lxd").await;
    let client = Client::builder().tls_certs_only([gateway.ca()]).build().expect("a client");
    let address = format!("https://localhost:{port}/1.0/instances/c1/metadata/templates");
    let mut answer = client.get(&address).bearer_auth(&token).send().await.expect("an answer");
    for _ in 0..100 {
        if answer.status() != StatusCode::NOT_FOUND {
            break;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
        answer = client.get(&address).bearer_auth(&token).send().await.expect("an answer");
    }
    assert_eq!(answer.status(), StatusCode::OK);
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
