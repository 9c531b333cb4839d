// SPDX-License-Identifier: Apache-2.0
//! Signing in at a company's identity provider: a certified one, through the whole gateway.

use crate::support::{
    Person,
    lab::{lab, ready, ticket},
    peers::{Peer, browser},
    person::location,
    provider::{AtProvider, Company},
    screen::Screen,
};
use reqwest::StatusCode;
use serde_json::{Value, json};
use std::time::Duration;

fn roles(company: &Company, name: &str) -> Vec<String> {
    let (code, out) = company.gateway.shell(&["grant", "list", "--json"]);
    assert_eq!(code, Some(0), "{out}");
    let rows = out.lines().filter_map(|l| serde_json::from_str::<Value>(l).ok());
    let mine = rows.filter(|r| r["user"] == name);
    let word = |r: &Value, key: &str| r[key].as_str().unwrap_or_default().to_owned();
    let mut roles: Vec<String> = mine.map(|r| format!("{} {}", word(&r, "role"), word(&r, "on"))).collect();
    roles.sort();
    roles
}

fn says(event: &Value, words: &str) -> bool {
    event["reason"].as_str().is_some_and(|r| r.contains(words))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn somebody_of_the_company_signs_in_enrols_and_has_the_roles_of_their_groups() {
    let company = Company::start("", "", &[]).await;
    let gateway = &company.gateway;
    let ada = Person::first_administrator(gateway, "ada").await;
    let html = Person::stranger(gateway, "x").page("/sign-in").await;
    assert!(
        html.contains("/sign-in/with/corp") && html.contains("<span>Sign in with <bdi>Example Corp</bdi></span>"),
        "{html}"
    );

    let mut alice = Person::stranger(gateway, "alice");
    let at = AtProvider::new();
    let answer = alice.come_from(&at, "alice").await;
    assert_eq!((answer.status(), location(&answer).as_str()), (StatusCode::SEE_OTHER, "/enrol"));
    // The gateway's own second factor is not skipped.
    assert_eq!(location(&alice.get("/me").await), "/enrol");
    alice.enrol().await;
    let me = alice.page("/me").await;
    assert!(me.contains("operator"), "{me}");
    assert_eq!(roles(&company, "alice"), ["operator everything"]);
    let person = ada.page(&format!("/users/{}", gateway.user_id("alice").await)).await;
    assert!(person.contains("<bdi>Example Corp</bdi>, as <bdi class=\"mono\">alice</bdi>"), "{person}");
    let came =
        gateway.find_event(&[], |e| says(e, "Example Corp vouched for them; given: operator on everything")).await;
    assert!(says(&came, "the account was made"), "{came}");

    // Again, with the code of the app.
    let again = alice.another_browser_at(&at, "alice").await;
    assert!(again.page("/me").await.contains("operator"));
    // Another group: another role, and the old one is gone.
    company.set_people(&json!({"alice": {"name": "Alice", "preferred_username": "root", "groups": ["vm-users", "x"]}}));
    let moved = alice.another_browser_at(&AtProvider::new(), "alice").await;
    assert_eq!(roles(&company, "alice"), ["viewer tag web"]);
    drop(moved);
    // No group that the table knows: no way in, and nothing is left.
    company.set_people(&json!({"alice": {"name": "Alice", "groups": ["vm-admin", "VM-ADMINS", "x"]}}));
    let out = Person::stranger(gateway, "alice");
    let answer = out.come_from(&AtProvider::new(), "alice").await;
    assert_eq!(answer.status(), StatusCode::UNPROCESSABLE_ENTITY);
    assert!(answer.text().await.expect("a page").contains("no access here is given to you"));
    assert_eq!(roles(&company, "alice"), [""; 0]);
    gateway.find_event(&[], |e| says(e, "gives them a role; taken back: viewer on tag web")).await;
    assert_eq!(location(&out.get("/me").await), "/sign-in?next=%2Fme");
    company.gateway.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_has_no_group_gets_no_account_and_who_is_disabled_stays_out() {
    let company = Company::start("", "", &["--userinfo-only"]).await;
    let gateway = &company.gateway;
    Person::first_administrator(gateway, "ada").await;
    let nina = Person::stranger(gateway, "nina");
    let answer = nina.come_from(&AtProvider::new(), "nina").await;
    assert_eq!(answer.status(), StatusCode::UNPROCESSABLE_ENTITY);
    gateway.find_event(&[], |e| says(e, "nothing that the provider says gives them a role")).await;
    let (_, out) = gateway.shell(&["user", "list", "--json"]);
    assert!(!out.contains("nina"), "{out}");
    // A name that is taken is not taken over.
    company.set_people(&json!({"bob": {"preferred_username": "ada", "groups": ["vm-users"]}}));
    let mut bob = Person::stranger(gateway, "ada-2");
    assert_eq!(location(&bob.come_from(&AtProvider::new(), "bob").await), "/enrol");
    bob.enrol().await;
    assert_eq!(roles(&company, "ada-2"), ["viewer tag web"]);
    let (code, out) = gateway.shell(&["user", "disable", "ada-2"]);
    assert_eq!(code, Some(0), "{out}");
    let answer = Person::stranger(gateway, "ada-2").come_from(&AtProvider::new(), "bob").await;
    assert_eq!(answer.status(), StatusCode::UNPROCESSABLE_ENTITY);
    gateway.find_event(&[], |e| says(e, "the account is disabled")).await;
    company.gateway.stop().await;
}

// SEC-140
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn roles_follow_the_provider_while_somebody_is_signed_in_and_who_is_gone_there_is_gone_here() {
    let company = Company::start("", "", &[]).await;
    let gateway = &company.gateway;
    Person::first_administrator(gateway, "ada").await;
    let mut alice = Person::stranger(gateway, "alice");
    alice.come_from(&AtProvider::new(), "alice").await;
    alice.enrol().await;
    assert_eq!(roles(&company, "alice"), ["operator everything"]);
    company.set_people(&json!({"alice": {"name": "Alice", "groups": ["vm-users"]}}));
    gateway.clock.advance(time::Duration::seconds(61));
    let changed = gateway.find_event(&[], |e| says(e, "as Example Corp says now; given: viewer on tag web")).await;
    assert!(says(&changed, "taken back: operator on everything"), "{changed}");
    assert_eq!(roles(&company, "alice"), ["viewer tag web"]);
    assert_eq!(alice.get("/me").await.status(), StatusCode::OK);
    company.set_people(&json!({}));
    gateway.clock.advance(time::Duration::seconds(61));
    gateway.find_event(&[], |e| says(e, "they were signed out: the provider no longer renews it")).await;
    assert_eq!(location(&alice.get("/me").await), "/sign-in?next=%2Fme");
    company.gateway.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn signing_out_reaches_the_provider_and_signing_out_there_reaches_us() {
    let company = Company::start("", "", &[]).await;
    let gateway = &company.gateway;
    Person::first_administrator(gateway, "ada").await;
    let mut alice = Person::stranger(gateway, "alice");
    let at = AtProvider::new();
    alice.come_from(&at, "alice").await;
    alice.enrol().await;
    let other = alice.another_browser_at(&AtProvider::new(), "alice").await;
    // There: this browser's session ends, the other's does not.
    at.sign_out(&company).await;
    let mut ended = false;
    for _ in 0..25 {
        ended = location(&alice.get("/me").await) == "/sign-in?next=%2Fme";
        if ended {
            break;
        }
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
    assert!(ended, "the back channel ends it within five seconds");
    gateway.find_event(&[], |e| says(e, "Example Corp ended the sign-in; 1 session ended")).await;
    assert_eq!(other.get("/me").await.status(), StatusCode::OK);
    // Here: the browser is led to the provider's own place for it, with the token as a hint and a state.
    let there = other.sign_out_to().await;
    assert!(there.starts_with(&format!("{}/session/end?id_token_hint=", company.provider.get("ISSUER"))), "{there}");
    assert!(there.contains("&state=") && there.contains("post_logout_redirect_uri="), "{there}");
    assert_eq!(location(&other.get("/me").await), "/sign-in?next=%2Fme");
    let back = AtProvider::new().walk(&there, "", &gateway.url()).await.expect("the way back");
    assert_eq!(other.get(back.strip_prefix(&gateway.url()).expect("ours")).await.status(), StatusCode::OK);
    company.gateway.stop().await;
}

// FLT-21
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_provider_that_is_down_or_slow_costs_a_local_account_nothing() {
    let company = Company::start("", "", &[]).await;
    let gateway = &company.gateway;
    let mut ada = Person::first_administrator(gateway, "ada").await;
    let issuer = company.provider.get("ISSUER");
    let at: std::net::SocketAddr = issuer.replace("http://localhost", "127.0.0.1").parse().expect("an address");
    company.provider.halt();
    let nina = Person::stranger(gateway, "nina");
    for _ in 0..12 {
        let answer = nina.get("/sign-in/with/corp").await;
        assert_eq!(answer.status(), StatusCode::UNPROCESSABLE_ENTITY);
        assert!(answer.text().await.expect("a page").contains("Example Corp cannot be reached at the moment"));
    }
    gateway.find_event(&[], |e| says(e, "the provider cannot be asked: cannot be reached")).await;
    // Something takes the connection and says nothing.
    let _silent = tokio::net::TcpListener::bind(at).await.expect("its port");
    let began = std::time::Instant::now();
    let answer = nina.get("/sign-in/with/corp").await;
    assert_eq!(answer.status(), StatusCode::UNPROCESSABLE_ENTITY);
    assert!(began.elapsed() < Duration::from_secs(10), "{:?}", began.elapsed());
    ada.submit("/sign-out", &[]).await;
    ada.sign_in().await;
    company.gateway.stop().await;
}

// SEC-025, SEC-140
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_signs_out_at_the_provider_loses_the_console_within_five_seconds_with_the_reason() {
    let guest = Peer::qemu("web-1", "none");
    let company = Company::start(&lab(&guest), "", &[]).await;
    let gateway = &company.gateway;
    Person::first_administrator(gateway, "ada").await;
    let mut alice = Person::stranger(gateway, "alice");
    let at = AtProvider::new();
    alice.come_from(&at, "alice").await;
    alice.enrol().await;
    ready(gateway, &alice).await;
    let mut screen = Screen::open(&alice, "lab/web-1", "control", &ticket(&alice, "control").await).await;
    screen.handshake().await;
    at.sign_out(&company).await;
    let (code, reason) = screen.ended(Duration::from_secs(5)).await;
    assert_eq!((code, reason.as_str()), (4000, "access ended: Example Corp ended the sign-in"));
    company.gateway.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_command_line_shows_what_a_set_of_claims_gives() {
    let company = Company::start("", "", &[]).await;
    let file = company.gateway.dir.path().join("claims.json");
    let preview = |claims: &Value, more: &[&str]| {
        std::fs::write(&file, claims.to_string()).expect("written");
        let file = file.display().to_string();
        let verb = [&["user", "claims", "--provider", "corp", "--claims", &file], more].concat();
        company.gateway.shell(&verb)
    };
    let (code, out) = preview(&json!({"sub": "x", "groups": ["vm-admins", "vm-users", "y"]}), &[]);
    assert_eq!(code, Some(0), "{out}");
    assert!(out.contains("operator") && out.contains("tag web") && !out.contains(" y"), "{out}");
    let (code, out) = preview(&json!({"groups": ["vm-users"]}), &["--json"]);
    let row: Value = serde_json::from_str(out.trim()).expect("JSON");
    assert_eq!((code, row["role"].as_str(), row["value"].as_str()), (Some(0), Some("viewer"), Some("vm-users")));
    for (claims, words) in [
        (json!({"groups": ["y"]}), "gives them a role"),
        (json!({"groups": {"vm-admins": 1}}), "neither a text nor a list"),
        (json!({"_claim_names": {"groups": "a"}}), "left the list of groups out"),
    ] {
        let (code, out) = preview(&claims, &[]);
        assert_eq!(code, Some(1), "{out}");
        assert!(out.contains("Nobody with these claims comes in") && out.contains(words), "{out}");
    }
    assert_eq!(preview(&json!([]), &[]).0, Some(2));
    let (code, out) = company.gateway.shell(&["user", "claims", "--provider", "x", "--claims", "y"]);
    assert_eq!(code, Some(2));
    assert!(out.contains("no such provider"), "{out}");
    company.gateway.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_real_browser_goes_there_and_back_and_out_again() {
    let company = Company::start("", "", &[]).await;
    let gateway = &company.gateway;
    Person::first_administrator(gateway, "ada").await;
    let (url, certificate) = (gateway.url(), gateway.dir.path().join("tls/cert.pem").display().to_string());
    let said = tokio::task::spawn_blocking(move || {
        let about = ["--url", &url, "--certificate", &certificate, "--title", "Example Corp", "--login", "alice"];
        browser("provider.mjs", &about)
    });
    let said = said.await.expect("it ran");
    assert_eq!(said.lines().filter(|l| l.starts_with('✓')).count(), 8, "{said}");
    company.gateway.stop().await;
}
