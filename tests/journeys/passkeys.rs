// SPDX-License-Identifier: Apache-2.0
//! Passkeys over HTTP, with an authenticator in software: the first factor, signing in without a name, confirming for a
//! console, and what a stranger and the trail hear of it. What a real browser does is looked at by `deploy/demo --check`.

use crate::support::{
    Person, TestGateway,
    authenticator::Authenticator,
    page,
    person::{PASSWORD, location},
};
use portcullis_domain::SystemClock;
use portcullis_server::{Config, Running, Transport};
use reqwest::{Response, StatusCode, header};
use serde_json::Value;
use std::sync::Arc;

const LAB: &str = "[[hypervisors]]\nname = \"lab\"\nkind = \"qemu\"\n[[hypervisors.guests]]\nid = \"web-1\"\n\
                   vnc = \"127.0.0.1:9\"\n";

/// Everything that somebody can see of an answer, but for what is never the same twice.
async fn seen(answer: Response) -> (StatusCode, usize, String) {
    let (status, cookies) = (answer.status(), answer.headers().get_all(header::SET_COOKIE).iter().count());
    (status, cookies, answer.text().await.expect("a page"))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_invited_person_needs_nothing_but_a_passkey_from_then_on() {
    let gateway = TestGateway::start(LAB).await;
    let ada = Person::first_administrator(&gateway, "ada").await;
    let html = ada.submit("/users", &[("name", "bob"), ("display_name", "Bob")]).await.text().await.expect("a page");
    let at = html.find(&format!("{}/invitation#", gateway.url())).expect("a one-time link is shown");
    let link: String = html[at..].chars().take_while(|c| !matches!(c, '"' | '<' | '\'' | ' ')).collect();
    let bob = Person::stranger(&gateway, "bob");
    bob.set_password(&page::unescape(&link)).await;
    let form = bob.page("/enrol").await;
    assert!(form.contains("Create a passkey"), "{form}");
    let csrf = page::csrf(&form).expect("a form");
    let (mut key, made) = bob.answer_of_new_passkey().await;
    let answer = bob.post("/enrol/passkey", &[("csrf", &*csrf), ("passkey", &made), ("name", "Bob's laptop")]).await;
    let html = answer.text().await.expect("a page");
    assert_eq!(html.matches("<li><code>").count(), 10, "recovery codes: {html}");
    assert!(bob.page("/me").await.contains("Passkey: Bob&#39;s laptop"));
    assert!(ada.page(&format!("/users/{}", gateway.user_id("bob").await)).await.contains("Passkey: Bob&#39;s laptop"));

    // Another browser, and no name.
    let again = Person::stranger(&gateway, "bob");
    let answer = again.sign_in_with(&mut key).await;
    assert_eq!(location(&answer), "/me", "{}", answer.text().await.unwrap_or_default());
    assert!(again.page("/me").await.contains("Signed in as <strong><bdi>Bob"));
    // After a password, the page asks for what bob has.
    let half = Person::stranger(&gateway, "bob");
    half.post("/sign-in", &[("name", "bob"), ("password", PASSWORD), ("next", "/")]).await;
    let form = half.page("/sign-in/code").await;
    assert!(form.contains("Use your passkey") && !form.contains("Six-digit code\n"), "{form}");
    let csrf = page::csrf(&form).expect("a form");
    let answer = half.answer_of(&mut key, "/api/v1/passkeys/sign-in").await;
    let answer = half.post("/sign-in/code", &[("csrf", &*csrf), ("code", &answer), ("next", "/me")]).await;
    assert_eq!(location(&answer), "/me");

    let signed_in = |e: &Value| e["reason"] == "passkey accepted; signed in" && e["what"] == "sign-in";
    gateway.find_event(&["--kind", "sign-in", "--user", "bob"], signed_in).await;
    let added = |e: &Value| e["reason"] == "a passkey was added; new recovery codes were made";
    gateway.find_event(&["--kind", "factor"], added).await;
    gateway.stop().await;
}

// SEC-120, SEC-123
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_passkey_confirms_wherever_a_code_does() {
    let gateway = TestGateway::start(LAB).await;
    let ada = Person::first_administrator(&gateway, "ada").await;
    let mut key = ada.add_passkey().await;
    let stale = || gateway.clock.advance(time::Duration::minutes(6));
    let csrf = async || page::csrf(&ada.page("/me").await).expect("a token");

    // The page.
    stale();
    let form = ada.page("/step-up?next=%2Fme").await;
    assert!(form.contains("Use a passkey") && form.contains("Six-digit code"), "{form}");
    let code = ada.answer_of(&mut key, "/api/v1/passkeys/step-up").await;
    let answer = ada.submit("/step-up", &[("code", &code), ("next", "/me")]).await;
    assert_eq!(location(&answer), "/me");
    assert_eq!(ada.submit("/me/recovery-codes", &[]).await.status(), StatusCode::OK);
    // A form.
    stale();
    assert_eq!(ada.submit("/users", &[("name", "noa")]).await.status(), StatusCode::FORBIDDEN);
    let code = ada.answer_of(&mut key, "/api/v1/passkeys/step-up").await;
    let answer = ada.submit("/users", &[("name", "noa"), ("step_up_code", &code)]).await;
    assert_eq!(answer.status(), StatusCode::OK, "{}", answer.text().await.unwrap_or_default());
    // A console's ticket, by its header.
    stale();
    let ticket = async |code: &str| {
        let url = format!("{}/api/v1/consoles/lab/web-1/ticket/control", gateway.url());
        let request =
            ada.browser.post(url).header(header::ORIGIN, gateway.url()).header("sec-fetch-site", "same-origin");
        let request = request.header("x-csrf-token", csrf().await).header("x-step-up-code", code);
        request.send().await.expect("an answer").status()
    };
    // What would sign in does not confirm; nor does an answer that was given before.
    let other = ada.answer_of(&mut key, "/api/v1/passkeys/sign-in").await;
    assert_eq!(ticket(&other).await, StatusCode::BAD_REQUEST);
    let code = ada.answer_of(&mut key, "/api/v1/passkeys/step-up").await;
    assert_eq!(ticket(&code).await, StatusCode::OK);
    stale();
    assert_eq!(ticket(&code).await, StatusCode::BAD_REQUEST);

    let confirmed = |e: &Value| e["reason"] == "confirmed anew by passkey";
    gateway.find_event(&["--kind", "step-up", "--user", "ada"], confirmed).await;
    gateway.stop().await;
}

// SEC-131
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_passkey_that_nobody_has_looks_like_one_that_was_wrongly_signed() {
    let gateway = TestGateway::start("").await;
    let ada = Person::first_administrator(&gateway, "ada").await;
    let mut key = ada.add_passkey().await;
    let (mut nobodys, _) = ada.answer_of_new_passkey().await;
    let mut looks = Vec::new();
    for key in [&mut key, &mut nobodys] {
        let eve = Person::stranger(&gateway, "eve");
        let options = eve.page("/api/v1/passkeys/sign-in").await;
        let answer = key.get_with(&options, |d| d.challenge = "AAAA".into()).to_string();
        looks.push(seen(eve.post("/sign-in/passkey", &[("passkey", &*answer), ("next", "/")]).await).await);
    }
    assert_eq!(looks[0], looks[1]);
    assert_eq!(looks[0].0, StatusCode::UNPROCESSABLE_ENTITY);
    assert!(looks[0].2.contains("That passkey was not accepted"));
    // The trail tells them apart.
    let wrong = |e: &Value| e["reason"] == "the passkey's answer does not hold" && e["on"] == "ada";
    gateway.find_event(&["--kind", "sign-in", "--outcome", "denied"], wrong).await;
    let unknown = |e: &Value| e["reason"] == "nobody has this passkey";
    gateway.find_event(&["--kind", "sign-in", "--outcome", "denied"], unknown).await;
    gateway.stop().await;
}

// SEC-119
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_copied_passkey_is_refused_and_the_trail_says_why() {
    let gateway = TestGateway::start("").await;
    let ada = Person::first_administrator(&gateway, "ada").await;
    let mut key = ada.add_passkey().await;
    key.counter = Some(40);
    assert_eq!(location(&Person::stranger(&gateway, "ada").sign_in_with(&mut key).await), "/me");
    key.counter = Some(7);
    let answer = Person::stranger(&gateway, "ada").sign_in_with(&mut key).await;
    assert_eq!(answer.status(), StatusCode::UNPROCESSABLE_ENTITY);
    assert!(!answer.text().await.expect("a page").contains("counter"), "a stranger hears nothing of it");
    let copied = |e: &Value| e["reason"].as_str().is_some_and(|r| r.contains("counter went back")) && e["on"] == "ada";
    gateway.find_event(&["--kind", "sign-in", "--outcome", "denied"], copied).await;
    gateway.stop().await;
}

// SEC-133
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_passkey_signs_in_while_the_password_is_locked() {
    let gateway = TestGateway::start("[limits]\nsign_in_per_minute = 5\nstranger_burst = 600\n").await;
    let ada = Person::first_administrator(&gateway, "ada").await;
    let mut key = ada.add_passkey().await;
    let mut last = StatusCode::OK;
    for _ in 0..100 {
        let eve = Person::stranger(&gateway, "eve");
        last =
            eve.post("/sign-in", &[("name", "ada"), ("password", "wrong wrong wrong"), ("next", "/")]).await.status();
    }
    assert_eq!(last, StatusCode::TOO_MANY_REQUESTS);
    assert_eq!(location(&Person::stranger(&gateway, "ada").sign_in_with(&mut key).await), "/me");
    gateway.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn asking_for_a_passkey_has_a_limit_of_its_own() {
    let gateway = TestGateway::start("[limits]\npasskey_per_minute = 3\n").await;
    Person::first_administrator(&gateway, "ada").await;
    let ask = async || Person::stranger(&gateway, "eve").get("/api/v1/passkeys/sign-in").await.status();
    let asked = [ask().await, ask().await, ask().await, ask().await];
    assert_eq!(asked[..3], [StatusCode::OK; 3]);
    assert_eq!(asked[3], StatusCode::TOO_MANY_REQUESTS);
    gateway
        .find_event(&["--kind", "sign-in"], |e| e["reason"].as_str().is_some_and(|r| r.contains("passkey was asked")))
        .await;
    gateway.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_administrator_at_the_shell_sees_and_removes_a_passkey() {
    let gateway = TestGateway::start("").await;
    let ada = Person::first_administrator(&gateway, "ada").await;
    let mut key = ada.add_passkey().await;
    let (code, text) = gateway.shell(&["user", "factors", "ada", "--json"]);
    assert_eq!(code, Some(0), "{text}");
    let lines: Vec<Value> = text.lines().map(|l| serde_json::from_str(l).expect("JSON")).collect();
    let kinds: Vec<_> = lines.iter().map(|l| (l["kind"].as_str(), l["name"].as_str())).collect();
    assert_eq!(kinds, [(Some("Authenticator app"), Some("Authenticator")), (Some("Passkey"), Some("laptop"))]);
    let id = lines[1]["id"].as_str().expect("an id");
    let (code, text) = gateway.shell(&["user", "remove-factor", "ada", id]);
    assert_eq!(code, Some(0), "{text}");
    let answer = Person::stranger(&gateway, "ada").sign_in_with(&mut key).await;
    assert_eq!(answer.status(), StatusCode::UNPROCESSABLE_ENTITY);
    assert!(location(&ada.get("/me").await).starts_with("/sign-in"), "what was signed in by it has ended");
    // The last one stays: resetting is the way to begin anew.
    let (code, text) = gateway.shell(&["user", "remove-factor", "ada", lines[0]["id"].as_str().expect("an id")]);
    assert!(code == Some(2) && text.contains("last second factor"), "{code:?} {text}");
    let (code, text) = gateway.shell(&["user", "remove-factor", "ada", "nonsense"]);
    assert!(code == Some(2) && text.contains("nonsense"), "{code:?} {text}");
    gateway.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_portal_without_a_name_says_that_passkeys_are_off_and_takes_codes() {
    let dir = tempfile::tempdir().expect("a folder");
    let at = std::net::SocketAddr::from(([127, 0, 0, 1], crate::support::gateway::free_port()));
    portcullis_server::init(dir.path(), "127.0.0.1", at, &SystemClock).expect("init");
    let config = Config::read(&dir.path().join("portcullis.toml"), std::iter::empty()).expect("a good configuration");
    let running = Running::start(config, Arc::new(SystemClock), Transport::Tls).await.expect("it starts");
    let ca = std::fs::read(dir.path().join("tls/ca.pem")).expect("ca.pem");
    let ca = reqwest::Certificate::from_pem(&ca).expect("a certificate");
    let browser = reqwest::Client::builder().tls_certs_only([ca]).cookie_store(true).build().expect("a browser");
    let url = |path: &str| format!("https://{at}{path}");
    let html = browser.get(url("/sign-in")).send().await.expect("an answer").text().await.expect("a page");
    assert!(html.contains("Password") && !html.contains("passkey\""), "{html}");
    let refused = browser.get(url("/api/v1/passkeys/sign-in")).send().await.expect("an answer");
    assert_eq!(refused.status(), StatusCode::BAD_REQUEST);
    let problem: Value = refused.json().await.expect("a problem");
    assert!(problem["detail"].as_str().is_some_and(|d| d.contains("IP address")), "{problem}");
    let link = running.set_up.clone().expect("a set-up link");
    let token = link.split_once('#').expect("a token").1;
    let form = [("token", token), ("name", "ada"), ("display_name", "Ada"), ("password", PASSWORD)];
    let request = browser.post(url("/set-up")).header(header::ORIGIN, url("")).header("sec-fetch-site", "same-origin");
    let html = request.form(&form).send().await.expect("an answer").text().await.expect("a page");
    assert!(html.contains("Passkeys are off here: they need a name"), "{html}");
    assert!(page::text_of(&html, "key").is_some(), "an authenticator app can be added");
    running.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_page_may_make_and_use_passkeys_and_a_foreign_one_may_not_ask_in_its_name() {
    let gateway = TestGateway::start("").await;
    let eve = Person::stranger(&gateway, "eve");
    let answer = eve.get("/sign-in").await;
    let policy = answer.headers()["permissions-policy"].to_str().expect("text").to_owned();
    for word in ["publickey-credentials-create=(self)", "publickey-credentials-get=(self)"] {
        assert!(policy.contains(word), "{policy}");
    }
    let mut key = Authenticator::new(&gateway.url());
    let options = eve.page("/api/v1/passkeys/sign-in").await;
    let answer = key.get(&options).to_string();
    let form = [("passkey", answer.as_str()), ("next", "/")];
    let request = eve.browser.post(format!("{}/sign-in/passkey", gateway.url())).form(&form);
    let answer = request.header(header::ORIGIN, "https://evil.example").send().await.expect("an answer");
    assert_eq!(answer.status(), StatusCode::FORBIDDEN);
    gateway.stop().await;
}
