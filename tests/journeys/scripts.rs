// SPDX-License-Identifier: Apache-2.0
//! What pages do, done by a script that reads JSON.

use crate::support::{Person, TestGateway, page};
use reqwest::{StatusCode, header};
use serde_json::{Value, json};

const LAB: &str = "[[hypervisors]]\nname = \"lab\"\nkind = \"qemu\"\n[[hypervisors.guests]]\nid = \"vm-1\"\n\
                   tags = [\"web\"]\nvnc = \"127.0.0.1:9\"\n";

async fn send(person: &Person<'_>, path: &str, body: &Value) -> (StatusCode, Value) {
    let csrf = page::csrf(&person.page("/me").await).expect("a token");
    let request = person.browser.post(format!("{}{path}", person.gateway.url()));
    let request = request.header(header::ORIGIN, person.gateway.url()).header("sec-fetch-site", "same-origin");
    let answer = request.header("x-csrf-token", csrf).json(body).send().await.expect("an answer");
    (answer.status(), answer.json().await.expect("JSON"))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn requests_locks_and_effective_access_are_asked_and_answered_in_json() {
    let gateway = TestGateway::start(LAB).await;
    let ada = Person::first_administrator(&gateway, "ada").await;
    let zoe = ada.invite("zoe").await;
    let wish = json!({ "role": "viewer", "on": "machine:lab/vm-1", "reason": "to look at it", "hours": 1 });
    let (status, told) = send(&zoe, "/api/v1/requests", &wish).await;
    assert_eq!(status, StatusCode::OK, "{told}");
    let at = told["at"].as_str().expect("where it is").to_owned();
    assert!(at.starts_with("/requests/"), "{told}");
    let api = format!("/api/v1{at}");
    // What is wrong is a problem document, as everywhere.
    for (body, says) in [
        (json!({ "role": "viewer", "on": "machine:lab/vm-1", "reason": "to look at it", "hours": 1 }), "already"),
        (json!({ "role": "viewer", "on": "vm", "reason": "to look at it", "hours": 1 }), "Write what it is about"),
        (json!({ "role": "viewer", "on": "tag:web", "reason": "x", "hours": 1, "more": 1 }), "unknown"),
        (json!({ "role": ["viewer"], "on": "tag:web", "reason": "x", "hours": 1 }), "unknown"),
        (json!(7), "unknown"),
    ] {
        let (status, told) = send(&zoe, "/api/v1/requests", &body).await;
        assert!(
            status == StatusCode::BAD_REQUEST && told["detail"].as_str().is_some_and(|d| d.contains(says)),
            "{told}"
        );
    }
    let (status, _) = send(&zoe, &format!("{api}/approve"), &json!({})).await;
    assert_eq!(status, StatusCode::FORBIDDEN, "nobody decides on their own");
    ada.step_up().await;
    let (status, told) = send(&ada, &format!("{api}/approve"), &json!({ "reason": "yes" })).await;
    assert_eq!(status, StatusCode::OK, "{told}");
    let (status, told) = send(&zoe, &format!("{api}/begin"), &json!({})).await;
    assert_eq!((status, &told["told"]), (StatusCode::OK, &"You have access now.".into()), "{told}");

    let user = gateway.user_id("zoe").await;
    let told: Value = ada.get(&format!("/api/v1/access?user={user}")).await.json().await.expect("JSON");
    assert_eq!(told["access"], json!([{ "on": "lab/vm-1", "may": [{ "action": "view", "last": null }] }]), "{told}");
    let told: Value = ada.get("/api/v1/access?on=lab/vm-1").await.json().await.expect("JSON");
    let who: Vec<&str> = told["access"].as_array().expect("rows").iter().filter_map(|r| r["who"].as_str()).collect();
    assert_eq!(who, ["ada", "zoe"], "{told}");
    for query in ["", "?user=x", "?on=lab/nothing", &format!("?user={user}&on=lab")] {
        assert_eq!(ada.get(&format!("/api/v1/access{query}")).await.status(), StatusCode::BAD_REQUEST, "{query}");
    }

    let lock = json!({ "kind": "machine", "value": "lab/vm-1", "reason": "evidence", "hours": 2 });
    assert_eq!(send(&zoe, "/api/v1/locks", &lock).await.0, StatusCode::FORBIDDEN);
    let (status, told) = send(&ada, "/api/v1/locks", &lock).await;
    assert_eq!(status, StatusCode::OK, "{told}");
    let (status, _) = send(&ada, "/api/v1/locks", &json!({ "kind": "machine", "value": "lab", "reason": "x" })).await;
    assert_eq!(status, StatusCode::BAD_REQUEST);
    let list: Value = ada.get("/api/v1/locks").await.json().await.expect("JSON");
    let id = list["locks"][0]["id"].as_str().expect("an id");
    assert_eq!(send(&ada, "/api/v1/locks/end", &json!({ "id": id })).await.0, StatusCode::OK);
    let (status, told) = send(&zoe, &format!("{api}/end"), &json!({ "reason": "seen" })).await;
    assert_eq!(status, StatusCode::OK, "{told}");
    assert!(gateway.grants_of("zoe").await.is_empty());
    // Without the token of the session nothing is sent from anywhere.
    let bare =
        zoe.browser.post(format!("{}/api/v1/requests", gateway.url())).json(&wish).send().await.expect("an answer");
    assert_eq!(bare.status(), StatusCode::FORBIDDEN);
    gateway.stop().await;
}
