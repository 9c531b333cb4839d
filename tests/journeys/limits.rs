// SPDX-License-Identifier: Apache-2.0
//! How fast somebody may go (security defaults): what is too much waits, is told once, and stops nobody else.

use crate::support::{FakeLxd, Person, TestGateway, gateway::free_port, person::PASSWORD};
use reqwest::{Client, StatusCode, header};
use serde_json::Value;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_token_that_goes_too_fast_waits_and_is_one_event() {
    let (lxd, port) = (FakeLxd::start(&["c1"]), free_port());
    let gateway = TestGateway::start(&lxd.config("lxd", &format!("port = {port}"))).await;
    let ada = Person::first_administrator(&gateway, "ada").await;
    let (fast, slow) = (ada.token("lxd").await, ada.token("lxd").await);
    let client = Client::builder().tls_certs_only([gateway.ca()]).build().expect("a client");
    let call = |token: &str| client.get(format!("https://localhost:{port}/1.0")).bearer_auth(token).send();
    let answers = futures_util::future::join_all((0..400).map(|_| call(&fast))).await;
    let (mut let_through, mut turned_away) = (0, 0);
    for answer in answers {
        let answer = answer.expect("an answer");
        match answer.status() {
            StatusCode::OK => let_through += 1,
            StatusCode::TOO_MANY_REQUESTS => {
                turned_away += 1;
                assert_eq!(answer.headers()[header::RETRY_AFTER], "1");
                let body: Value = answer.json().await.expect("JSON");
                assert_eq!((&body["type"], &body["error_code"]), (&"error".into(), &429.into()), "LXD's own dialect");
            }
            other => panic!("{other}"),
        }
    }
    assert!(let_through >= 100 && turned_away > 0, "{let_through} {turned_away}");
    // Another token is not slowed, and the same one goes on when it has waited.
    assert_eq!(call(&slow).await.expect("an answer").status(), StatusCode::OK);
    tokio::time::sleep(std::time::Duration::from_secs(1)).await;
    assert_eq!(call(&fast).await.expect("an answer").status(), StatusCode::OK);
    let search = ["--kind", "api", "--outcome", "denied", "--limit", "1000"];
    let event = gateway.find_event(&search, |_| true).await;
    assert_eq!((event["who"].as_str(), event["on"].as_str()), (Some("ada"), Some("lxd")));
    assert!(event["reason"].as_str().is_some_and(|r| r.contains("50 requests a second")), "{event}");
    assert_eq!(gateway.search(&search).len(), 1, "one event, whatever was turned away");
    gateway.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn passwords_are_tried_ten_times_a_minute_from_one_network() {
    let gateway = TestGateway::start("[limits]\nsign_in_per_minute = 10\n").await;
    let ada = Person::first_administrator(&gateway, "ada").await;
    let stranger = Person::stranger(&gateway, "nobody");
    for n in 0..10 {
        // Another name each time: it is not the account that is locked.
        let name = format!("nobody-{n}");
        let answer = stranger.post("/sign-in", &[("name", &name), ("password", "x")]).await;
        assert_eq!(answer.status(), StatusCode::UNPROCESSABLE_ENTITY, "{n}");
    }
    for _ in 0..3 {
        // The right password is not tried either: every try costs the same.
        let answer = stranger.post("/sign-in", &[("name", "ada"), ("password", PASSWORD)]).await;
        assert_eq!(answer.status(), StatusCode::TOO_MANY_REQUESTS);
        let after = answer.headers()[header::RETRY_AFTER].to_str().expect("a number").to_owned();
        assert!((1..=7).contains(&after.parse::<u32>().expect("a number")), "{after}");
    }
    // Who is in stays in.
    assert_eq!(ada.get("/me").await.status(), StatusCode::OK);
    let told = |e: &Value| e["reason"].as_str().is_some_and(|r| r.contains("10 tries a minute"));
    let search = ["--kind", "sign-in", "--outcome", "denied", "--limit", "100"];
    gateway.find_event(&search, told).await;
    assert_eq!(gateway.search(&search).iter().filter(|e| told(e)).count(), 1);
    gateway.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_administrator_resets_five_people_an_hour() {
    let gateway = TestGateway::start("").await;
    let ada = Person::first_administrator(&gateway, "ada").await;
    ada.invite("mia").await;
    let address = format!("/users/{}/reset", gateway.user_id("mia").await);
    for n in 0..5 {
        assert_eq!(ada.submit(&address, &[]).await.status(), StatusCode::OK, "{n}");
    }
    let answer = ada.submit(&address, &[]).await;
    assert_eq!(answer.status(), StatusCode::TOO_MANY_REQUESTS);
    assert!(answer.headers().contains_key(header::RETRY_AFTER));
    gateway.stop().await;
}
