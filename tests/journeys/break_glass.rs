// SPDX-License-Identifier: Apache-2.0
//! The drill: nobody can give a second factor, somebody opens an envelope, works for an hour, and has to answer for it.

use crate::support::{Person, TestGateway, page, person::location};
use reqwest::{Client, Response, StatusCode, header};
use serde_json::Value;

/// A browser that comes from an address of this machine.
fn from(gateway: &TestGateway, address: &str) -> Client {
    let address: std::net::IpAddr = address.parse().expect("an address");
    let policy = reqwest::redirect::Policy::none();
    let builder = Client::builder().tls_certs_only([gateway.ca()]).cookie_store(true).redirect(policy);
    builder.local_address(address).build().expect("a browser")
}

async fn post(gateway: &TestGateway, browser: &Client, path: &str, fields: &[(&str, &str)]) -> Response {
    let request = browser.post(format!("{}{path}", gateway.url())).header(header::ORIGIN, gateway.url());
    request.header("sec-fetch-site", "same-origin").form(fields).send().await.expect("an answer")
}

async fn get(gateway: &TestGateway, browser: &Client, path: &str) -> (StatusCode, String) {
    let answer = browser.get(format!("{}{path}", gateway.url())).send().await.expect("an answer");
    (answer.status(), answer.text().await.expect("a page"))
}

fn codes(gateway: &TestGateway) -> Vec<String> {
    let (code, text) = gateway.shell(&["user", "break-glass", "--json"]);
    assert_eq!(code, Some(0), "{text}");
    // The shell has the machine's clock; the gateway's stands still here, and is behind it.
    gateway.clock.advance(time::Duration::MINUTE);
    let made: Value = serde_json::from_str(text.trim()).expect("JSON");
    let codes = made["codes"].as_array().expect("codes");
    codes.iter().map(|c| c.as_str().expect("text").to_owned()).collect()
}

const ALARM: &str = "A sealed emergency code was used";

// SEC-133
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_drill_of_an_emergency() {
    let zones = "[zones]\n\"the vault\" = [\"127.0.0.3\"]\n[identity.break_glass]\nnetworks = [\"127.0.0.3\"]\n";
    let gateway = TestGateway::start(zones).await;
    let ada = Person::first_administrator(&gateway, "ada").await;
    let bob = ada.invite("bob").await;
    let codes = codes(&gateway);
    let database = std::fs::read(gateway.dir.path().join("portcullis.db")).expect("the database");
    for code in &codes {
        let bare = code.replace('-', "");
        assert!(!database.windows(bare.len()).any(|w| w == bare.as_bytes()), "hashed at rest");
    }
    // Everybody's second factor is gone, and the administrator is locked out by somebody's wrong passwords.
    for _ in 0..6 {
        bob.post("/sign-in", &[("name", "ada"), ("password", "wrong wrong wrong"), ("next", "/")]).await;
    }
    let (vault, elsewhere) = (from(&gateway, "127.0.0.3"), from(&gateway, "127.0.0.4"));
    let page = get(&gateway, &elsewhere, "/sign-in").await.1;
    assert!(page.contains("href=\"/break-glass\""));
    // From another network the right code is answered like a wrong one, and is not spent by it.
    let outside = post(&gateway, &elsewhere, "/break-glass", &[("code", &codes[0])]).await;
    let wrong = post(&gateway, &vault, "/break-glass", &[("code", "AAAA-AAAA")]).await;
    assert_eq!(
        (outside.status(), wrong.status()),
        (StatusCode::UNPROCESSABLE_ENTITY, StatusCode::UNPROCESSABLE_ENTITY)
    );
    assert_eq!(outside.text().await.expect("a page"), wrong.text().await.expect("a page"));
    let refused = |e: &Value| e["reason"].as_str().is_some_and(|r| r.contains("not count from this network"));
    let event = gateway.find_event(&["--kind", "break-glass", "--outcome", "denied"], refused).await;
    assert_eq!(event["from"], "127.0.0.4", "{event}");
    assert!(!ada.page("/me").await.contains(ALARM), "nothing was used yet");

    let opened = post(&gateway, &vault, "/break-glass", &[("code", &codes[0].to_lowercase())]).await;
    assert_eq!((opened.status(), location(&opened).as_str()), (StatusCode::SEE_OTHER, "/"));
    let used = |e: &Value| e["reason"].as_str().is_some_and(|r| r.contains("sealed code 1 was used"));
    let event = gateway.find_event(&["--kind", "break-glass", "--outcome", "done"], used).await;
    assert_eq!((event["from"].as_str(), event["who"].as_str()), (Some("127.0.0.3"), Some("break-glass")), "{event}");
    // It does what the emergency needs, without a second factor...
    let (status, html) = get(&gateway, &vault, "/me").await;
    assert_eq!(status, StatusCode::OK);
    let csrf = page::csrf(&html).expect("a token");
    let unlock = format!("/users/{}/sign-out", gateway.user_id("bob").await);
    assert_eq!(post(&gateway, &vault, &unlock, &[("csrf", &csrf)]).await.status(), StatusCode::SEE_OTHER);
    // ...and leaves no way to stay.
    let fields = [("csrf", csrf.as_str()), ("name", "stay"), ("days", "300")];
    let kept = post(&gateway, &vault, "/me/tokens", &fields).await.status();
    assert_eq!(kept, StatusCode::UNPROCESSABLE_ENTITY);
    assert_eq!(gateway.count_tokens("break-glass").await, 0);
    assert!(get(&gateway, &vault, "/enrol").await.0.is_client_error());
    let again = post(&gateway, &from(&gateway, "127.0.0.3"), "/break-glass", &[("code", &codes[0])]).await;
    assert_eq!(again.status(), StatusCode::UNPROCESSABLE_ENTITY, "it is spent");

    // Everybody who manages people sees it on every page, and nobody else does.
    for path in ["/me", "/users", "/machines"] {
        assert!(ada.page(path).await.contains(ALARM), "{path}");
    }
    let mut bob = bob;
    bob.sign_in().await;
    assert!(!bob.page("/me").await.contains(ALARM));
    let html = ada.page("/break-glass/uses").await;
    assert!(html.contains("the vault (127.0.0.3)") && html.contains("1 sealed code is ready"), "{html}");
    let id = page::field(&html, "id").expect("an id");
    // The emergency session does not write about itself.
    let fields = [("csrf", csrf.as_str()), ("id", &id), ("who", "nobody"), ("why", "nothing")];
    let own = post(&gateway, &vault, "/break-glass/review", &fields).await.status();
    assert_eq!(own, StatusCode::UNPROCESSABLE_ENTITY);
    ada.step_up().await;
    let fields = [("id", id.as_str()), ("who", "Bob, with the red envelope"), ("why", "the provider was down")];
    assert_eq!(ada.submit("/break-glass/review", &fields).await.status(), StatusCode::SEE_OTHER);
    let html = ada.page("/break-glass/uses").await;
    assert!(html.contains("Bob, with the red envelope") && !html.contains(ALARM), "{html}");
    let written = |e: &Value| e["reason"].as_str().is_some_and(|r| r.contains("Bob, with the red envelope"));
    gateway.find_event(&["--user", "ada"], written).await;

    // The hour is over.
    gateway.clock.advance(time::Duration::minutes(12));
    assert_eq!(get(&gateway, &vault, "/me").await.0, StatusCode::OK);
    for _ in 0..5 {
        gateway.clock.advance(time::Duration::minutes(10));
        get(&gateway, &vault, "/me").await;
    }
    assert_eq!(get(&gateway, &vault, "/me").await.0, StatusCode::SEE_OTHER);
    gateway.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn new_codes_end_old_ones_and_without_a_network_there_is_no_emergency() {
    let gateway = TestGateway::start("[identity.break_glass]\nnetworks = []\n").await;
    Person::first_administrator(&gateway, "ada").await;
    let old = codes(&gateway);
    let new = codes(&gateway);
    let here = from(&gateway, "127.0.0.1");
    for code in old.iter().chain(&new) {
        let answer = post(&gateway, &here, "/break-glass", &[("code", code)]).await;
        assert_eq!(answer.status(), StatusCode::UNPROCESSABLE_ENTITY);
    }
    // The machine itself is allowed where nothing else is said.
    let dir = gateway.stop().await;
    let gateway = TestGateway::start_in(dir, "").await;
    let here = from(&gateway, "127.0.0.1");
    assert_eq!(
        post(&gateway, &here, "/break-glass", &[("code", &old[1])]).await.status(),
        StatusCode::UNPROCESSABLE_ENTITY
    );
    assert_eq!(post(&gateway, &here, "/break-glass", &[("code", &new[1])]).await.status(), StatusCode::SEE_OTHER);
    let (code, text) = gateway.shell(&["user", "break-glass", "--name", "ada"]);
    assert!(code == Some(2) && text.contains("another kind"), "{text}");
    gateway.stop().await;
}
