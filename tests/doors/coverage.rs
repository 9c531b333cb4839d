// SPDX-License-Identifier: Apache-2.0
//! Every route × {nobody, wrong role, stale factor, right role}. The list is the live one: a route that is added is
//! tried without anybody thinking of it.

use crate::support::{Person, TestGateway, page, person::location};
use portcullis_domain::Action;
use portcullis_policy::classify::own::{Door, OwnRoute, ROUTES};
use reqwest::{Method, Response, StatusCode, header};
use serde_json::Value;

/// A machine that exists in the inventory and answers nothing: doors are decided before anybody dials.
const LAB: &str = "[[hypervisors]]\nname = \"lab\"\nkind = \"qemu\"\n[[hypervisors.guests]]\nid = \"web-1\"\n\
                   vnc = \"127.0.0.1:9\"\n";

fn path(route: &OwnRoute) -> String {
    route
        .pattern
        .replace("{hypervisor}/{machine}", "lab/web-1")
        .replace("{mode}", "control")
        .replace("{id}", "00000000000000000000000000000007")
        .replace("{node}/{number}", "00000000000000000000000000000007/1")
        .replace("{*path}", "x/y.js")
}

async fn knock(person: &Person<'_>, route: &OwnRoute, csrf: &str) -> Response {
    let url = format!("{}{}", person.gateway.url(), path(route));
    let method: Method = route.method.parse().expect("a method");
    let mut request = person.browser.request(method, url).header("sec-fetch-site", "same-origin");
    if route.method == "POST" {
        request =
            request.header(header::ORIGIN, person.gateway.url()).form(&[("csrf", csrf), ("id", "x"), ("grant", "x")]);
    }
    request.send().await.expect("an answer")
}

/// What a route asks of a person, as the passage should see it.
#[derive(PartialEq)]
enum Needs {
    Nothing,
    Presence,
    Right { fresh: bool },
}

fn needs(route: &OwnRoute) -> Needs {
    match route.door {
        Door::Public | Door::Stranger => Needs::Nothing,
        Door::Enrolling | Door::SignedIn => Needs::Presence,
        Door::Own(action, _) => Needs::Right { fresh: action != Action::Read },
        Door::Machine(action) => Needs::Right { fresh: action.is_console() },
    }
}

fn is_let_in(answer: &Response) -> bool {
    let turned_away = matches!(answer.status(), StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN);
    let to = location(answer);
    !turned_away && !to.starts_with("/sign-in") && !to.starts_with("/step-up") && !to.starts_with("/enrol")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nobody_passes_a_door_that_asks_for_somebody() {
    let gateway = TestGateway::start(LAB).await;
    Person::first_administrator(&gateway, "ada").await;
    for route in ROUTES.iter().filter(|r| needs(r) != Needs::Nothing) {
        // A fresh stranger each time, so that the limit on strangers is not what turns them away.
        gateway.clock.advance(time::Duration::seconds(1));
        let nobody = Person::stranger(&gateway, "nobody");
        let answer = knock(&nobody, route, "").await;
        let is_tool = route.pattern.starts_with("/api/");
        if is_tool {
            assert!(!is_let_in(&answer), "{} {} -> {}", route.method, route.pattern, answer.status());
        } else {
            assert_eq!(answer.status(), StatusCode::SEE_OTHER, "{} {}", route.method, route.pattern);
            assert!(location(&answer).starts_with("/sign-in"), "{} {}", route.method, route.pattern);
        }
        tokio::time::sleep(std::time::Duration::from_millis(30)).await;
    }
    gateway.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_wrong_role_passes_no_door_and_each_try_is_an_event() {
    let gateway = TestGateway::start(LAB).await;
    let ada = Person::first_administrator(&gateway, "ada").await;
    let bob = ada.invite("bob").await;
    let mut tried = 0;
    for route in ROUTES.iter().filter(|r| matches!(needs(r), Needs::Right { .. })) {
        let csrf = page::csrf(&bob.page("/me").await).expect("a token");
        let answer = knock(&bob, route, &csrf).await;
        let expected = match route.door {
            // What somebody may not see does not exist for them.
            Door::Machine(_) if route.pattern.ends_with("stream/{mode}") => StatusCode::NOT_FOUND,
            Door::Machine(_) => StatusCode::NOT_FOUND,
            _ => StatusCode::FORBIDDEN,
        };
        assert_eq!(answer.status(), expected, "{} {}", route.method, route.pattern);
        tried += usize::from(route.trailed);
    }
    assert!(tried > 20, "{tried}");
    let all = ["--user", "bob", "--outcome", "denied", "--limit", "1000"];
    gateway.find_event(&all, |_| true).await;
    for _ in 0..50 {
        if gateway.search(&all).len() >= tried {
            break;
        }
        tokio::time::sleep(std::time::Duration::from_millis(200)).await;
    }
    let events: Vec<Value> = gateway.search(&all);
    assert_eq!(events.len(), tried, "one event a denial");
    gateway.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stale_factor_is_asked_for_where_policy_says_so_and_nowhere_else() {
    let gateway = TestGateway::start(LAB).await;
    let ada = Person::first_administrator(&gateway, "ada").await;
    gateway.clock.advance(time::Duration::seconds(301));
    for route in ROUTES.iter().filter(|r| matches!(needs(r), Needs::Right { .. })) {
        let csrf = page::csrf(&ada.page("/me").await).expect("a token");
        let answer = knock(&ada, route, &csrf).await;
        let (status, to) = (answer.status(), location(&answer));
        let html = answer.text().await.unwrap_or_default();
        let asked = to.starts_with("/step-up") || status == StatusCode::FORBIDDEN && html.contains("fresh code");
        let Needs::Right { fresh } = needs(route) else { continue };
        assert_eq!(asked, fresh, "{} {} -> {status} {to} {html}", route.method, route.pattern);
    }
    gateway.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_right_role_passes_every_door() {
    let gateway = TestGateway::start(LAB).await;
    let mut ada = Person::first_administrator(&gateway, "ada").await;
    for route in ROUTES {
        let ended = matches!(route.pattern, "/sign-out" | "/sign-in");
        let csrf = page::csrf(&ada.page("/me").await).expect("a token");
        let answer = knock(&ada, route, &csrf).await;
        let status = answer.status();
        if route.pattern.ends_with("stream/{mode}") {
            assert_eq!(status, StatusCode::BAD_REQUEST, "no WebSocket: {}", route.pattern);
        } else if !ended {
            assert!(
                is_let_in(&answer) || route.pattern.starts_with("/sign-in"),
                "{} {} -> {status} {}",
                route.method,
                route.pattern,
                location(&answer)
            );
        }
        assert!(
            !status.is_server_error() || status == StatusCode::BAD_GATEWAY,
            "{} {} -> {status}",
            route.method,
            route.pattern
        );
        if route.pattern == "/sign-out" {
            ada.sign_in().await;
        }
        if route.pattern == "/step-up" {
            ada.step_up().await;
        }
    }
    gateway.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_answer_wears_the_standing_headers() {
    let gateway = TestGateway::start(LAB).await;
    let ada = Person::first_administrator(&gateway, "ada").await;
    let nobody = Person::stranger(&gateway, "nobody");
    for path in
        ["/", "/me", "/nothing", "/assets/x/y.js", "/api/v1/machines", "/c/lab/web-1", "/users", "/..%2f", "/trail/x/1"]
    {
        for person in [&ada, &nobody] {
            let answer = person.get(path).await;
            for (name, word) in [
                ("content-security-policy", "frame-ancestors 'none'"),
                ("x-content-type-options", "nosniff"),
                ("referrer-policy", "no-referrer"),
                ("cross-origin-opener-policy", "same-origin"),
                ("cross-origin-resource-policy", "same-origin"),
                ("permissions-policy", "camera=()"),
                ("cache-control", "no-store"),
            ] {
                let value = answer.headers().get(name).and_then(|v| v.to_str().ok()).unwrap_or_default();
                assert!(value.contains(word), "{path} {}: {name}: {value:?}", answer.status());
            }
            assert!(!answer.headers().contains_key("strict-transport-security"), "localhost is not ours alone");
        }
    }
    let plain = reqwest::Client::builder().tls_certs_only([gateway.ca()]).http1_only().build().expect("a client");
    let other = plain.get(gateway.url()).header(header::HOST, "evil.example").send().await.expect("an answer");
    assert_eq!(other.status(), StatusCode::MISDIRECTED_REQUEST);
    for method in ["OPTIONS", "TRACE", "CONNECT", "PROPFIND"] {
        let request = nobody.browser.request(method.parse().expect("a method"), gateway.url());
        if let Ok(answer) = request.send().await {
            assert_eq!(answer.status(), StatusCode::METHOD_NOT_ALLOWED, "{method}");
        }
    }
    gateway.stop().await;
}
