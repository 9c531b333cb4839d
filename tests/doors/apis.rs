// SPDX-License-Identifier: Apache-2.0
//! The other doors: hypervisors' APIs, and health.

use crate::support::{
    FakeLxd, Person, TestGateway,
    gateway::free_port,
    trail::{Left, Log},
};
use reqwest::{Client, Method, StatusCode, header};

/// What one row of an API's table answers to nobody, to the wrong role, and to the right one. Tools send no fresh code:
/// a token is as fresh as the moment it was made.
const CALLS: [(&str, &str, u16, u16, u16); 9] = [
    ("GET", "/1.0", 401, 403, 200),
    ("GET", "/1.0/instances", 401, 403, 200),
    ("GET", "/1.0/instances/c1", 401, 200, 200),
    // Not to be known about.
    ("GET", "/1.0/instances/c2", 401, 404, 200),
    ("PUT", "/1.0/instances/c1/state", 401, 403, 200),
    ("DELETE", "/1.0/instances/c2", 401, 404, 200),
    ("POST", "/1.0/images", 401, 403, 200),
    ("GET", "/1.0/certificates", 401, 403, 200),
    // Never passed on, whoever asks.
    ("GET", "/1.0/unheard-of", 403, 403, 403),
];

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_api_is_closed_without_a_token_and_to_the_wrong_role() {
    let lxd = FakeLxd::start(&["c1", "c2"]);
    let port = free_port();
    let gateway = TestGateway::start(&lxd.config("lxd", &format!("port = {port}"))).await;
    let ada = Person::first_administrator(&gateway, "ada").await;
    let bob = ada.invite("bob").await;
    ada.grant("bob", "viewer", "machine", "lxd/default:c1").await;
    let (right, wrong) = (ada.token("lxd").await, bob.token("lxd").await);
    let client = Client::builder().tls_certs_only([gateway.ca()]).build().expect("a client");
    let mut log = Log::of(&gateway);
    for (method, path, to_nobody, to_wrong, to_right) in CALLS {
        for (who, token, status) in
            [("nobody", "", to_nobody), ("wrong", &wrong, to_wrong), ("right", &right, to_right)]
        {
            let method: Method = method.parse().expect("a method");
            let mut request = client.request(method.clone(), format!("https://localhost:{port}{path}"));
            if !token.is_empty() {
                request = request.header(header::AUTHORIZATION, format!("Bearer {token}"));
            }
            if method == Method::POST {
                request = request.body(vec![7; 4096]);
            }
            log.settle().await;
            let swallowed = lxd.swallowed();
            let before = lxd.asked(&format!("{method} {path}"));
            let answer = request.send().await.expect("an answer");
            assert_eq!(answer.status().as_u16(), status, "{method} {path} to {who}");
            answer.bytes().await.expect("an answer");
            let through = status == 200;
            let kind = "api".to_owned();
            let expected = if through { Left::Bracket { kind } } else { Left::Denial { kind } };
            assert_eq!(log.left(&expected).await, expected, "{method} {path} to {who}");
            let asked = lxd.asked(&format!("{method} {path}")) > before;
            assert!(asked || !through, "{method} {path} to {who}: it never came there");
            assert!(through || lxd.swallowed() == swallowed, "{method} {path} to {who}: bytes came through");
            // The gateway itself lists and listens: only what it does not ask for can be counted.
            if path.contains("c1") || path.contains("c2") || path.contains("un") {
                assert_eq!(asked, through, "{method} {path} to {who}");
            }
        }
    }
    gateway.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn health_tells_everybody_only_that_it_is_well() {
    let at = format!("127.0.0.1:{}", free_port());
    let gateway = TestGateway::start(&format!("[health]\nlisten = \"{at}\"\n")).await;
    Person::first_administrator(&gateway, "ada").await;
    let client = Client::new();
    for (method, path, status) in [
        ("GET", "/healthz", 200),
        ("GET", "/readyz", 200),
        ("GET", "/metrics", 200),
        ("POST", "/metrics", 405),
        ("POST", "/healthz", 405),
        // Nothing of the portal stands there.
        ("GET", "/", 404),
        ("GET", "/users", 404),
        ("GET", "/sign-in", 404),
        ("GET", "/api/v1/machines", 404),
        ("GET", "/1.0", 404),
    ] {
        let method: Method = method.parse().expect("a method");
        let answer = client.request(method.clone(), format!("http://{at}{path}")).send().await.expect("an answer");
        assert_eq!(answer.status().as_u16(), status, "{method} {path}");
        let text = answer.text().await.expect("text");
        assert!(!text.contains("ada"), "{method} {path} names a person: {text}");
    }
    // And nothing of it on the portal.
    let ada = Person::stranger(&gateway, "nobody");
    for path in ["/healthz", "/readyz", "/metrics"] {
        assert_eq!(ada.get(path).await.status(), StatusCode::NOT_FOUND, "{path}");
    }
    gateway.stop().await;
}
