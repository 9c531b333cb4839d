// SPDX-License-Identifier: Apache-2.0
//! Signing in, and everything that must not sign anybody in.

use crate::support::{
    Person, TestGateway, page,
    person::{PASSWORD, location},
};
use reqwest::{StatusCode, header};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_wrong_name_and_a_wrong_password_look_the_same() {
    let gateway = TestGateway::start("").await;
    let ada = Person::first_administrator(&gateway, "ada").await;
    drop(ada);
    let eve = Person::stranger(&gateway, "eve");
    let mut seen = Vec::new();
    for name in ["ada", "zebulon"] {
        let fields = [("name", name), ("password", "not the password at all"), ("next", "/")];
        let answer = eve.post("/sign-in", &fields).await;
        let status = answer.status();
        let cookies = answer.headers().get_all(header::SET_COOKIE).iter().count();
        let html = answer.text().await.expect("a page").replace(name, "NAME");
        seen.push((status, cookies, html));
    }
    assert_eq!(seen[0], seen[1]);
    assert_eq!(seen[0].0, StatusCode::UNPROCESSABLE_ENTITY);
    gateway.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn five_wrong_passwords_lock_known_and_unknown_names_alike() {
    let gateway = TestGateway::start("").await;
    Person::first_administrator(&gateway, "ada").await;
    for name in ["ADA", "Nobody"] {
        let eve = Person::stranger(&gateway, "eve");
        for n in 0..5 {
            // Each with another spelling: all share one counter (SEC-130).
            let spelled = if n % 2 == 0 { name.to_uppercase() } else { name.to_lowercase() };
            eve.post("/sign-in", &[("name", &*spelled), ("password", "wrong wrong wrong"), ("next", "/")]).await;
        }
        let answer = eve.post("/sign-in", &[("name", name), ("password", PASSWORD), ("next", "/")]).await;
        assert!(answer.status().is_client_error(), "{name} {}", answer.status());
        assert!(answer.text().await.expect("a page").contains("Wait"), "{name}");
    }
    gateway.clock.advance(time::Duration::seconds(61));
    let eve = Person::stranger(&gateway, "eve");
    let answer = eve.post("/sign-in", &[("name", "ada"), ("password", PASSWORD), ("next", "/")]).await;
    assert_eq!(location(&answer), "/sign-in/code");
    gateway.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_password_alone_opens_nothing() {
    let gateway = TestGateway::start("").await;
    Person::first_administrator(&gateway, "ada").await;
    let half = Person::stranger(&gateway, "ada");
    let answer = half.post("/sign-in", &[("name", "ada"), ("password", PASSWORD), ("next", "/")]).await;
    assert_eq!(location(&answer), "/sign-in/code");
    for path in ["/", "/me", "/machines", "/users", "/trail", "/step-up", "/c/lab/web-1", "/enrol"] {
        let answer = half.get(path).await;
        assert_eq!(answer.status(), StatusCode::SEE_OTHER, "{path}");
        assert!(location(&answer).starts_with("/sign-in/code"), "{path} -> {}", location(&answer));
    }
    let answer = half.get("/api/v1/machines").await;
    assert_eq!(answer.status(), StatusCode::UNAUTHORIZED);
    // The second step without the first is no step.
    let stranger = Person::stranger(&gateway, "ada");
    let answer = stranger.post("/sign-in/code", &[("code", "123456"), ("next", "/")]).await;
    assert_eq!(location(&answer), "/sign-in");
    assert_eq!(stranger.get("/me").await.status(), StatusCode::SEE_OTHER);
    gateway.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_code_counts_once_in_whatever_spelling() {
    let gateway = TestGateway::start("").await;
    let mut ada = Person::first_administrator(&gateway, "ada").await;
    ada.submit("/sign-out", &[]).await;
    ada.sign_in().await;
    let used = ada.code();
    for spelled in [used.clone(), format!(" {used}"), format!("{} {}", &used[..3], &used[3..]), wide(&used)] {
        let again = Person::stranger(&gateway, "ada");
        again.post("/sign-in", &[("name", "ada"), ("password", PASSWORD), ("next", "/")]).await;
        let csrf = page::csrf(&again.page("/sign-in/code").await).unwrap_or_default();
        let answer = again.post("/sign-in/code", &[("csrf", &csrf), ("code", &spelled), ("next", "/")]).await;
        assert_eq!(answer.status(), StatusCode::UNPROCESSABLE_ENTITY, "{spelled:?}");
    }
    gateway.stop().await;
}

fn wide(digits: &str) -> String {
    digits.chars().filter_map(|c| char::from_u32(c as u32 - '0' as u32 + 0xff10)).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_recovery_code_leads_to_a_new_authenticator_and_nowhere_else() {
    let gateway = TestGateway::start("").await;
    let ada = Person::first_administrator(&gateway, "ada").await;
    let code = ada.recovery[0].clone();
    let mut lost = Person::stranger(&gateway, "ada");
    lost.post("/sign-in", &[("name", "ada"), ("password", PASSWORD), ("next", "/")]).await;
    let csrf = page::csrf(&lost.page("/sign-in/recovery").await).unwrap_or_default();
    let answer = lost.post("/sign-in/recovery", &[("csrf", &csrf), ("code", &code)]).await;
    assert_eq!(location(&answer), "/enrol");
    for path in ["/", "/me", "/users", "/trail"] {
        assert_eq!(location(&lost.get(path).await), "/enrol", "{path}");
    }
    // Whoever sits at another browser of theirs hears of it, until there are new codes.
    let told = "A recovery code of yours was used";
    let html = ada.page("/machines").await;
    assert!(html.contains(told) && html.contains("from 127.0.0.1"), "{html}");
    lost.enrol().await;
    assert!(!lost.page("/me").await.contains(told));
    // The code is spent.
    let again = Person::stranger(&gateway, "ada");
    again.post("/sign-in", &[("name", "ada"), ("password", PASSWORD), ("next", "/")]).await;
    let csrf = page::csrf(&again.page("/sign-in/recovery").await).unwrap_or_default();
    let answer = again.post("/sign-in/recovery", &[("csrf", &csrf), ("code", &code)]).await;
    assert_eq!(answer.status(), StatusCode::UNPROCESSABLE_ENTITY);
    gateway.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_step_gives_the_browser_a_new_session() {
    let gateway = TestGateway::start("").await;
    let mut ada = Person::first_administrator(&gateway, "ada").await;
    ada.submit("/sign-out", &[]).await;
    let before = ada.cookie();
    let answer = ada.post("/sign-in", &[("name", "ada"), ("password", PASSWORD), ("next", "/")]).await;
    let set: Vec<_> =
        answer.headers().get_all(header::SET_COOKIE).iter().map(|c| c.to_str().expect("text").to_owned()).collect();
    assert_eq!(set.len(), 1);
    for word in ["__Host-sid=", "Secure", "HttpOnly", "Path=/", "SameSite=Lax"] {
        assert!(set[0].contains(word), "{word} in {}", set[0].split('=').next().unwrap_or_default());
    }
    assert!(!set[0].contains("Domain"));
    let half = ada.cookie();
    assert_ne!(before, half);
    ada.sign_in().await;
    let whole = ada.cookie();
    assert_ne!(half, whole);
    // The half-way cookie is worth nothing afterwards, and neither is one that somebody planted.
    for planted in [half, "__Host-sid=AAAAAAAAAAAAAAAAAAAAAA".to_owned()] {
        let client = reqwest::Client::builder()
            .tls_certs_only([gateway.ca()])
            .redirect(reqwest::redirect::Policy::none())
            .build()
            .expect("client");
        let answer = client
            .get(format!("{}/me", gateway.url()))
            .header(header::COOKIE, planted)
            .send()
            .await
            .expect("an answer");
        assert_eq!(location(&answer), "/sign-in?next=%2Fme");
    }
    gateway.stop().await;
}

// SEC-077
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_form_from_another_page_changes_nothing() {
    let gateway = TestGateway::start("").await;
    let ada = Person::first_administrator(&gateway, "ada").await;
    let csrf = page::csrf(&ada.page("/me").await).expect("a token");
    let url = format!("{}/users", gateway.url());
    let own = gateway.url();
    let fields = [("csrf", csrf.as_str()), ("name", "mallory"), ("display_name", "")];
    for headers in [
        vec![],
        vec![("origin", "https://evil.example")],
        vec![("origin", "null")],
        vec![("origin", own.as_str()), ("sec-fetch-site", "cross-site")],
        vec![("sec-fetch-site", "same-site")],
        vec![("origin", "null"), ("sec-fetch-site", "none")],
    ] {
        let mut request = ada.browser.post(&url).form(&fields);
        for (name, value) in &headers {
            request = request.header(*name, *value);
        }
        assert_eq!(request.send().await.expect("an answer").status(), StatusCode::FORBIDDEN, "{headers:?}");
    }
    for token in ["", "wrong"] {
        let answer = ada.post("/users", &[("csrf", token), ("name", "mallory"), ("display_name", "")]).await;
        assert_eq!(answer.status(), StatusCode::FORBIDDEN);
    }
    assert!(!ada.page("/users").await.contains("mallory"));
    gateway.stop().await;
}

// SEC-192
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_body_that_is_too_large_is_refused_early() {
    let gateway = TestGateway::start("").await;
    let eve = Person::stranger(&gateway, "eve");
    let password = "x".repeat(70 * 1024);
    let answer = eve.post("/sign-in", &[("name", "ada"), ("password", &password), ("next", "/")]).await;
    assert_eq!(answer.status(), StatusCode::PAYLOAD_TOO_LARGE);
    gateway.stop().await;
}
