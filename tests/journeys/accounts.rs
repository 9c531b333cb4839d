// SPDX-License-Identifier: Apache-2.0
//! Tokens that are bound to networks, service accounts, and what may have to be confirmed before a console opens.

use crate::support::{
    FakeLxd, Person, TestGateway,
    gateway::free_port,
    lab::{lab, ready},
    page,
    peers::Peer,
    person::location,
};
use portcullis_domain::Clock as _;
use reqwest::{Client, Response, StatusCode};
use serde_json::Value;
use std::{net::IpAddr, time::Duration};

/// A client that comes from an address of this machine.
fn from(gateway: &TestGateway, address: &str) -> Client {
    let address: IpAddr = address.parse().expect("an address");
    Client::builder().tls_certs_only([gateway.ca()]).local_address(address).build().expect("a client")
}

/// A token that is shown on a page, once.
async fn shown(answer: Response) -> String {
    let html = answer.text().await.expect("a page");
    let at = html.find("pct_").unwrap_or_else(|| panic!("no token is shown: {html}"));
    html[at..].chars().take_while(|c| c.is_ascii_alphanumeric() || matches!(c, '_' | '-')).collect()
}

async fn ask(client: &Client, port: u16, token: &str) -> (StatusCode, Value) {
    let request = client.get(format!("https://localhost:{port}/1.0/instances/c1")).bearer_auth(token);
    let answer = request.send().await.expect("an answer");
    (answer.status(), answer.json().await.expect("JSON"))
}

/// Asks until the inventory is there.
async fn asked(client: &Client, port: u16, token: &str) -> StatusCode {
    for _ in 0..100 {
        let (status, _) = ask(client, port, token).await;
        if status != StatusCode::NOT_FOUND {
            return status;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    StatusCode::NOT_FOUND
}

// SEC-011
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_token_from_the_wrong_network_is_answered_like_an_unknown_one_and_told_in_the_trail() {
    let (lxd, port) = (FakeLxd::start(&["c1"]), free_port());
    let zones = "[zones]\n\"build hall\" = [\"127.0.0.1\"]\n";
    let gateway = TestGateway::start(&format!("{zones}{}", lxd.config("lxd", &format!("port = {port}")))).await;
    let ada = Person::first_administrator(&gateway, "ada").await;
    let bob = ada.invite("bob").await;
    ada.grant("bob", "viewer", "everything", "").await;
    // What was typed stays after a mistake.
    let fields = [("name", "tool"), ("hypervisor", "lxd"), ("networks", "10.0.0.0/99"), ("days", "7")];
    let html = bob.submit("/me/tokens", &fields).await.text().await.expect("a page");
    for kept in ["value=\"tool\"", "value=\"lxd\" selected", "value=\"10.0.0.0/99\"", "value=\"7\" selected"] {
        assert!(html.contains(kept), "{kept}: {html}");
    }
    let fields = [("name", "tool"), ("hypervisor", "lxd"), ("networks", "127.0.0.1 10.0.0.0/8"), ("days", "1")];
    let token = shown(bob.submit("/me/tokens", &fields).await).await;
    let (inside, outside) = (from(&gateway, "127.0.0.1"), from(&gateway, "127.0.0.2"));
    assert_eq!(asked(&inside, port, &token).await, StatusCode::OK);
    let (status, mut barred) = ask(&outside, port, &token).await;
    let (unknown, mut nobody) = ask(&outside, port, "pct_AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA").await;
    for body in [&mut barred, &mut nobody] {
        body.as_object_mut().expect("an object").remove("request");
    }
    assert_eq!((status, &barred), (unknown, &nobody), "the same answer");
    assert_eq!(status, StatusCode::UNAUTHORIZED);
    let told = |e: &Value| e["reason"] == "the token is bound to other networks";
    let event = gateway.find_event(&["--kind", "api", "--user", "bob", "--outcome", "denied"], told).await;
    assert_eq!(event["from"], "127.0.0.2", "{event}");
    assert_eq!(gateway.search(&["--kind", "api", "--user", "bob", "--outcome", "denied"]).len(), 1);
    // Where it was used is written down by the minute, and shown to its owner with the name of the place.
    gateway.clock.advance(time::Duration::minutes(2));
    let mut html = String::new();
    for _ in 0..50 {
        html = bob.page("/me").await;
        if html.contains("build hall (127.0.0.1)</bdi></span>") {
            break;
        }
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
    assert!(html.contains("build hall (127.0.0.1)</bdi></span>") && html.contains("127.0.0.1 10.0.0.0/8"), "{html}");
    // What is no network is said beside its field, and nothing is made.
    let fields = [("name", "tool"), ("networks", "10.1.2.3/8"), ("days", "1")];
    let answer = bob.submit("/me/tokens", &fields).await;
    assert_eq!(answer.status(), StatusCode::UNPROCESSABLE_ENTITY);
    assert!(answer.text().await.expect("a page").contains("networks-problem"));
    assert_eq!(gateway.count_tokens("bob").await, 1);
    gateway.stop().await;
}

// SEC-015
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_service_account_is_its_grants_and_its_tokens_and_never_signs_in() {
    let (lxd, port) = (FakeLxd::start(&["c1"]), free_port());
    let gateway = TestGateway::start(&lxd.config("lxd", &format!("port = {port}"))).await;
    let ada = Person::first_administrator(&gateway, "ada").await;
    let bob = ada.invite("bob").await;
    ada.grant("bob", "administrator", "everything", "").await;
    let made = bob.submit("/service-accounts", &[("name", "robot"), ("display_name", "robot")]).await;
    let robot = location(&made);
    assert!(robot.starts_with("/users/"), "{robot}");
    assert!(bob.page("/users").await.contains("service account"));
    let fields = [("name", "build"), ("hypervisor", "lxd"), ("networks", ""), ("days", "7")];
    let token = shown(bob.submit(&format!("{robot}/tokens"), &fields).await).await;
    let client = from(&gateway, "127.0.0.1");
    let (status, _) = ask(&client, port, &token).await;
    assert_eq!(status, StatusCode::NOT_FOUND, "it is granted nothing");
    ada.grant("robot", "viewer", "everything", "").await;
    assert_eq!(asked(&client, port, &token).await, StatusCode::OK);
    let sign_in = [("name", "robot"), ("password", crate::support::person::PASSWORD), ("next", "/")];
    let stranger = Person::stranger(&gateway, "robot");
    assert_eq!(stranger.post("/sign-in", &sign_in).await.status(), StatusCode::UNPROCESSABLE_ENTITY);
    // No link leads in, and nobody makes a token of a person, or one that is stronger than they are.
    assert_eq!(bob.submit(&format!("{robot}/reset"), &[]).await.status(), StatusCode::BAD_REQUEST);
    let own = format!("/users/{}/tokens", gateway.user_id("ada").await);
    let other = format!("/users/{}/tokens", gateway.user_id("bob").await);
    assert_eq!(bob.submit(&own, &fields).await.status(), StatusCode::CONFLICT);
    assert_eq!(ada.submit(&other, &fields).await.status(), StatusCode::BAD_REQUEST);
    ada.step_up().await;
    ada.grant("robot", "security-lead", "everything", "").await;
    assert_eq!(bob.submit(&format!("{robot}/tokens"), &fields).await.status(), StatusCode::CONFLICT);
    // Its grants end: so does its token, at the next call. And an administrator takes the token itself back.
    ada.revoke_grants("robot").await;
    let (status, _) = ask(&client, port, &token).await;
    assert_eq!(status, StatusCode::NOT_FOUND);
    let html = bob.page(&robot).await;
    let at = html.find(&format!("action=\"{robot}/tokens/revoke\"")).expect("it is listed");
    let id = page::field(&html[at..], "id").expect("an id");
    let (code, text) = gateway.shell(&["token", "list", "--user", "robot", "--json"]);
    let line: Value = serde_json::from_str(text.trim()).expect("one token");
    assert_eq!((code, line["state"].as_str(), line["id"].as_str()), (Some(0), Some("live"), Some(&*id)), "{text}");
    assert_eq!(bob.submit(&format!("{robot}/tokens/revoke"), &[("id", &id)]).await.status(), StatusCode::SEE_OTHER);
    assert_eq!(ask(&client, port, &token).await.0, StatusCode::UNAUTHORIZED);
    gateway.stop().await;
}

// SEC-146
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_shell_makes_renews_and_revokes_tokens_of_machines_only() {
    let (lxd, port) = (FakeLxd::start(&["c1"]), free_port());
    let gateway = TestGateway::start(&lxd.config("lxd", &format!("port = {port}"))).await;
    let ada = Person::first_administrator(&gateway, "ada").await;
    assert_eq!(gateway.shell(&["user", "service", "robot"]).0, Some(0));
    assert_eq!(gateway.shell(&["grant", "add", "robot", "viewer", "everything"]).0, Some(0));
    let (code, text) = gateway.shell(&["token", "mint", "ada", "mine"]);
    assert!(code == Some(2) && text.contains("people make their own"), "{text}");
    for bad in [["--from", "10.1.2.3/8"], ["--hypervisor", "nowhere"], ["--days", "400"]] {
        let (code, text) = gateway.shell(&[&["token", "mint", "robot", "x"][..], &bad].concat());
        assert_eq!(code, Some(2), "{bad:?} {text}");
    }
    let mint = ["token", "mint", "robot", "build", "--hypervisor", "lxd", "--from", "127.0.0.2", "--json"];
    let (code, text) = gateway.shell(&mint);
    let made: Value = serde_json::from_str(text.trim()).expect("JSON");
    assert_eq!(code, Some(0), "{text}");
    let (token, id) = (made["token"].as_str().expect("a token"), made["id"].as_str().expect("an id"));
    let (inside, outside) = (from(&gateway, "127.0.0.2"), from(&gateway, "127.0.0.1"));
    // The running gateway, whose clock stands still here, hears of it within a second or two.
    gateway.clock.advance(time::Duration::MINUTE);
    for _ in 0..100 {
        if ask(&inside, port, token).await.0 == StatusCode::OK {
            break;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    assert_eq!(asked(&inside, port, token).await, StatusCode::OK);
    assert_eq!(ask(&outside, port, token).await.0, StatusCode::UNAUTHORIZED);
    let (code, text) = gateway.shell(&["token", "renew", id, "--json"]);
    let renewed: Value = serde_json::from_str(text.trim()).expect("JSON");
    assert_eq!(code, Some(0), "{text}");
    let new = renewed["token"].as_str().expect("a token");
    for _ in 0..100 {
        if ask(&inside, port, new).await.0 == StatusCode::OK {
            break;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    assert_eq!(asked(&inside, port, new).await, StatusCode::OK);
    assert_eq!(ask(&outside, port, new).await.0, StatusCode::UNAUTHORIZED, "the new one is bound as the old one was");
    assert_eq!(ask(&inside, port, token).await.0, StatusCode::UNAUTHORIZED);
    let id = renewed["id"].as_str().expect("an id");
    assert_eq!(gateway.shell(&["token", "revoke", id]).0, Some(0));
    let (code, text) = gateway.shell(&["token", "revoke", id, "--json"]);
    assert!(code == Some(1) && text.contains("\"revoked\":false"), "{text}");
    drop(ada);
    gateway.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_opens_before_the_notice_is_confirmed() {
    let guest = Peer::qemu("web-1", "none");
    let banner = "[identity]\nbanner = \"Authorised use only.\\nWhat you do is written down.\"\n";
    let gateway = TestGateway::start(&format!("{banner}{}", lab(&guest))).await;
    let ada = Person::first_administrator(&gateway, "ada").await;
    for path in ["/", "/me", "/machines", "/users", "/c/lab/web-1", "/step-up"] {
        let answer = ada.get(path).await;
        assert!(location(&answer).starts_with("/banner?next="), "{path}: {} {}", answer.status(), location(&answer));
    }
    assert_eq!(ada.get("/api/v1/machines").await.status(), StatusCode::FORBIDDEN);
    let html = ada.page("/banner?next=%2Fme").await;
    assert!(html.contains("<p>Authorised use only.</p>\n<p>What you do is written down.</p>"), "{html}");
    let csrf = page::csrf(&html).expect("a form");
    // A change is refused as well, and stands in the trail.
    let answer = ada.post("/users", &[("csrf", &csrf), ("name", "eve"), ("display_name", "")]).await;
    assert_eq!(answer.status(), StatusCode::FORBIDDEN);
    let refused = |e: &Value| e["reason"].as_str().is_some_and(|r| r.starts_with("Confirm the notice"));
    gateway.find_event(&["--kind", "page"], refused).await;
    let answer = ada.post("/banner", &[("csrf", &csrf), ("next", "/me")]).await;
    assert_eq!(location(&answer), "/me");
    gateway.find_event(&["--kind", "banner", "--user", "ada"], |e| e["outcome"] == "done").await;
    ready(&gateway, &ada).await;
    assert_eq!(ada.get("/c/lab/web-1").await.status(), StatusCode::OK);
    // Another session is asked for itself, and can leave instead.
    let other = ada.another_browser().await;
    assert!(location(&other.get("/me").await).starts_with("/banner"));
    let csrf = page::csrf(&other.page("/banner").await).expect("a form");
    assert_eq!(location(&other.post("/sign-out", &[("csrf", &csrf)]).await), "/sign-in");
    gateway.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_console_waits_for_a_training_that_counts() {
    let guest = Peer::qemu("web-1", "none");
    let gateway = TestGateway::start(&format!("[consoles]\ntraining = true\n{}", lab(&guest))).await;
    let ada = Person::first_administrator(&gateway, "ada").await;
    let bob = ada.invite("bob").await;
    ada.grant("bob", "console-user", "tag", "web").await;
    ready(&gateway, &bob).await;
    let ticket = "/api/v1/consoles/lab/web-1/ticket/control";
    let answer = bob.post_json(ticket).await;
    assert_eq!(answer.status(), StatusCode::FORBIDDEN);
    assert!(answer.text().await.expect("words").contains("yours is not noted"));
    let html = bob.get("/c/lab/web-1").await.text().await.expect("a page");
    assert!(html.contains("yours is not noted"), "{html}");
    // Nobody notes their own.
    let tomorrow = (gateway.clock.now() + time::Duration::days(1)).date();
    let day = tomorrow.to_string();
    let own = format!("/users/{}/training", gateway.user_id("ada").await);
    assert_eq!(ada.submit(&own, &[("until", &day)]).await.status(), StatusCode::UNPROCESSABLE_ENTITY);
    let bobs = format!("/users/{}/training", gateway.user_id("bob").await);
    for bad in ["soon", "2020-01-01", "2090-01-01"] {
        assert_eq!(ada.submit(&bobs, &[("until", bad)]).await.status(), StatusCode::UNPROCESSABLE_ENTITY, "{bad}");
    }
    assert_eq!(ada.submit(&bobs, &[("until", &day)]).await.status(), StatusCode::SEE_OTHER);
    assert_eq!(bob.post_json(ticket).await.status(), StatusCode::OK);
    let noted = |e: &Value| e["reason"].as_str().is_some_and(|r| r.contains("a training is noted"));
    gateway.find_event(&["--user", "ada"], noted).await;
    // Its day comes.
    gateway.clock.advance(tomorrow.midnight().assume_utc() - gateway.clock.now());
    let mut bob = bob;
    bob.sign_in().await;
    let answer = bob.post_json(ticket).await;
    assert_eq!(answer.status(), StatusCode::FORBIDDEN);
    assert!(answer.text().await.expect("words").contains("yours ended on"));
    let day = (gateway.clock.now() + time::Duration::days(300)).date().to_string();
    assert_eq!(gateway.shell(&["user", "training", "bob", &day]).0, Some(0));
    bob.step_up().await;
    assert_eq!(bob.post_json(ticket).await.status(), StatusCode::OK);
    gateway.stop().await;
}

// SEC-134
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_list_of_stolen_passwords_is_made_from_the_shell_and_held_against_new_ones() {
    let dir = tempfile::tempdir().expect("a folder");
    let (words, list) = (dir.path().join("words.txt"), dir.path().join("stolen.sha1"));
    std::fs::write(&words, "eleven green lanterns sway\nletmein\n").expect("written");
    let gateway = TestGateway::start("").await;
    let made = crate::support::peers::try_program(&[
        "user",
        "blocklist",
        &words.display().to_string(),
        &list.display().to_string(),
        "--json",
    ]);
    assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
    let dir_of_gateway = gateway.stop().await;
    let setting = format!("[identity.passwords]\nshortest = 15\nblocklist = {:?}\n", list.display().to_string());
    let gateway = TestGateway::start_in(dir_of_gateway, &setting).await;
    let ada = Person::first_administrator(&gateway, "ada").await;
    for (new, says) in [("eleven green lanterns sway", "stolen elsewhere"), ("qz7w kx2v ua", "at least 15 characters")]
    {
        let fields = [("old", crate::support::person::PASSWORD), ("password", new)];
        let answer = ada.submit("/me/password", &fields).await;
        assert_eq!(answer.status(), StatusCode::UNPROCESSABLE_ENTITY);
        let html = answer.text().await.expect("a page");
        assert!(html.contains(says) && html.contains("15 to 256 characters"), "{html}");
    }
    gateway.stop().await;
}
