// SPDX-License-Identifier: Apache-2.0
//! The first administrator's first day: set-up link, two factors, pages, sign-out.

use crate::support::{Person, TestGateway, page, person::location};
use reqwest::StatusCode;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_first_administrator_walks_through_the_house() {
    let gateway = TestGateway::start("").await;
    let mut ada = Person::first_administrator(&gateway, "ada").await;
    for path in ["/", "/me", "/users", "/roles", "/grants", "/sessions", "/hypervisors", "/recordings", "/trail"] {
        let answer = ada.get(path).await;
        assert_eq!(answer.status(), StatusCode::OK, "{path} -> {}", location(&answer));
        let html = answer.text().await.expect("a page");
        assert_eq!(html.matches("<h1").count(), 1, "{path}");
    }
    let answer = ada.submit("/sign-out", &[]).await;
    assert_eq!((answer.status(), location(&answer).as_str()), (StatusCode::SEE_OTHER, "/sign-in"));
    let answer = ada.get("/me").await;
    assert_eq!((answer.status(), location(&answer).as_str()), (StatusCode::SEE_OTHER, "/sign-in?next=%2Fme"));
    ada.sign_in().await;
    assert!(ada.page("/me").await.contains("ada"));
    gateway.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_set_up_link_works_once() {
    let gateway = TestGateway::start("").await;
    let link = gateway.set_up.clone().expect("a link");
    Person::first_administrator(&gateway, "ada").await;
    let eve = Person::stranger(&gateway, "eve");
    let (_, token) = link.split_once('#').expect("a token");
    let fields =
        [("token", token), ("name", "eve"), ("display_name", ""), ("password", crate::support::person::PASSWORD)];
    let answer = eve.post("/set-up", &fields).await;
    assert!(answer.status().is_client_error(), "{}", answer.status());
    assert_eq!(location(&eve.get("/me").await), "/sign-in?next=%2Fme");
    gateway.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_invited_person_sees_nothing_until_something_is_granted() {
    let gateway = TestGateway::start("").await;
    let ada = Person::first_administrator(&gateway, "ada").await;
    let answer = ada.submit("/users", &[("name", "bob"), ("display_name", "Bob")]).await;
    assert_eq!(answer.status(), StatusCode::OK);
    let html = answer.text().await.expect("a page");
    let at = html.find(&format!("{}/invitation#", gateway.url())).expect("a one-time link is shown");
    let link: String = html[at..].chars().take_while(|c| !matches!(c, '"' | '<' | '\'' | ' ')).collect();
    let mut bob = Person::stranger(&gateway, "bob");
    bob.redeem(&page::unescape(&link)).await;
    assert_eq!(bob.get("/").await.status(), StatusCode::OK);
    for path in ["/users", "/grants", "/trail", "/sessions", "/recordings", "/hypervisors"] {
        assert_eq!(bob.get(path).await.status(), StatusCode::FORBIDDEN, "{path}");
    }
    gateway.stop().await;
}
