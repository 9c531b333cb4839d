// SPDX-License-Identifier: Apache-2.0
//! What bodies ask on LXD and Incus: who may change one machine changes neither who may reach it nor its host.

use crate::support::{FakeLxd, Person, TestGateway, fake_lxd::MARK, gateway::free_port};
use reqwest::{Client, Method, StatusCode, header};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whoever_may_change_a_machine_changes_neither_its_tags_nor_its_host() {
    let incus = FakeLxd::start(&["c1", "c2"]);
    let port = free_port();
    let gateway = TestGateway::start(&incus.config_of_incus("incus", &format!("port = {port}"))).await;
    let ada = Person::first_administrator(&gateway, "ada").await;
    let bob = ada.invite("bob").await;
    // Everything on one machine, nothing on its host.
    ada.grant("bob", "administrator", "machine", "incus/default:c1").await;
    let token = bob.token("incus").await;
    for _ in 0..100 {
        let list: serde_json::Value = bob.get("/api/v1/machines").await.json().await.expect("JSON");
        if list["machines"].as_array().is_some_and(|m| !m.is_empty()) {
            break;
        }
        tokio::time::sleep(std::time::Duration::from_millis(100)).await;
    }
    let client = Client::builder().tls_certs_only([gateway.ca()]).build().expect("a client");
    let whole = |tags: &str, map: &str| {
        format!(
            r#"{{"architecture": "x86_64", "profiles": ["default"], "config": {{"limits.cpu": "2", "user.tags": "{tags}",
            "volatile.last_state.idmap": "{map}", "volatile.last_state.power": "RUNNING"}}}}"#
        )
    };
    let (same, tagged, mapped) = (whole("web", "[a]"), whole("web,pay", "[a]"), whole("web", "[]"));
    let mut passed = Vec::new();
    for (method, path, body, status) in [
        (Method::PATCH, "/1.0/instances/c1", r#"{"config": {"limits.cpu": "2"}}"#, 200),
        // All of it is written back, with what LXD remembers.
        (Method::PUT, "/1.0/instances/c1", &same, 200),
        (Method::PATCH, "/1.0/instances/c1", r#"{"config": {"volatile.last_state.idmap": "[a]"}}"#, 200),
        (Method::PUT, "/1.0/instances/c1/state", r#"{"action": "restart", "force": true}"#, 200),
        (Method::POST, "/1.0/instances/c1/snapshots/s0", r#"{"name": "s1", "migration": false}"#, 403),
        // Who reaches it: by its tags, by their absence, by its name.
        (Method::PATCH, "/1.0/instances/c1", r#"{"config": {"user.tags": "pay"}}"#, 403),
        (Method::PUT, "/1.0/instances/c1", &tagged, 403),
        (Method::PUT, "/1.0/instances/c1", r#"{"restore": "tagged"}"#, 403),
        (Method::PUT, "/1.0/instances/c1", r#"{"restore": "same"}"#, 200),
        (Method::PUT, "/1.0/instances/c1", r#"{"config": {}}"#, 403),
        (Method::PATCH, "/1.0/instances/c1", r#"{"CONFIG": {"user.tags": "pay"}}"#, 403),
        (Method::PATCH, "/1.0/instances/c1", r#"{"config": {"user.tags": "web", "user.tags": "pay"}}"#, 403),
        (Method::PATCH, "/1.0/instances/c1", r#"{"config": {"user.tags": "web", "user\u002etags": "pay"}}"#, 403),
        (Method::POST, "/1.0/instances/c1", r#"{"name": "c2"}"#, 403),
        // Its host: also by what LXD remembers of it, written, left out, or brought back.
        (Method::PUT, "/1.0/instances/c1", &mapped, 403),
        (Method::PUT, "/1.0/instances/c1", r#"{"config": {"limits.cpu": "2", "user.tags": "web"}}"#, 403),
        (Method::PATCH, "/1.0/instances/c1", r#"{"config": {"volatile.idmap.next": "[]"}}"#, 403),
        (Method::PUT, "/1.0/instances/c1", r#"{"restore": "mapped"}"#, 403),
        (Method::PUT, "/1.0/instances/c1", r#"{"restore": "c2/same"}"#, 403),
        (Method::PATCH, "/1.0/instances/c1", r#"{"config": {"raw.lxc": "lxc.mount.entry=/ x none bind"}}"#, 403),
        (Method::PATCH, "/1.0/instances/c1", r#"{"config": {"security.privileged": "true"}}"#, 403),
        (
            Method::PATCH,
            "/1.0/instances/c1",
            r#"{"devices": {"d": {"type": "disk", "source": "/", "path": "/h"}}}"#,
            403,
        ),
        (Method::PATCH, "/1.0/instances/c1", r#"{"profiles": ["privileged"]}"#, 403),
        (Method::PUT, "/1.0/instances/c1/state", r#"{"action": "restart", "Action": "stop"}"#, 403),
        (Method::PATCH, "/1.0/instances/c2", r#"{"config": {"limits.cpu": "2"}}"#, 404),
    ] {
        let request = client.request(method, format!("https://localhost:{port}{path}"));
        let request = request.header(header::AUTHORIZATION, format!("Bearer {token}"));
        let answer = request
            .header(header::CONTENT_TYPE, "application/json")
            .body(body.to_owned())
            .send()
            .await
            .expect("an answer");
        assert_eq!(answer.status(), StatusCode::from_u16(status).expect("a status"), "{path} {body}");
        if status == 200 {
            passed.push(body.to_owned());
        }
    }
    assert_eq!(incus.bodies(), passed, "what was decided on is what came, and nothing else came");
    assert_eq!(incus.marks(), [MARK; 3], "what was told by comparing is done only where it is still so");

    // Whoever only takes snapshots goes back to one that brings nothing back, and hears why to no other.
    let carl = ada.invite("carl").await;
    ada.grant("carl", "operator", "machine", "incus/default:c1").await;
    let token = carl.token("incus").await;
    for (snapshot, status) in [("same", 200), ("tagged", 403), ("mapped", 403)] {
        let request = client.put(format!("https://localhost:{port}/1.0/instances/c1"));
        let request = request.header(header::AUTHORIZATION, format!("Bearer {token}"));
        let answer = request.json(&serde_json::json!({ "restore": snapshot })).send().await.expect("an answer");
        assert_eq!(answer.status().as_u16(), status, "{snapshot}");
        let said = answer.text().await.expect("text");
        assert_eq!(said.contains("brings back settings"), status == 403, "{said}");
    }
    gateway.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_copy_takes_nothing_of_the_host_along_that_its_maker_could_not_give_it() {
    let lxd = FakeLxd::start(&["c1", "gpu"]);
    let port = free_port();
    let gateway = TestGateway::start(&lxd.config("lxd", &format!("port = {port}"))).await;
    let ada = Person::first_administrator(&gateway, "ada").await;
    let bob = ada.invite("bob").await;
    // Everything that copies take, and nothing of the host.
    ada.grant("bob", "administrator", "tag", "web").await;
    for right in ["hypervisor/create", "hypervisor/access-admin"] {
        ada.grant_unrecorded("bob", right, "hypervisor", "lxd").await;
    }
    let token = bob.token("lxd").await;
    let client = Client::builder().tls_certs_only([gateway.ca()]).build().expect("a client");
    let copy = async |source: &str, more: &str| {
        let body = format!(r#"{{"name": "new", "source": {{"type": "copy", "source": "{source}"}}{more}}}"#);
        let request = client.post(format!("https://localhost:{port}/1.0/instances")).bearer_auth(&token);
        let answer = request.header(header::CONTENT_TYPE, "application/json").body(body).send().await;
        let answer = answer.expect("an answer");
        (answer.status(), answer.text().await.expect("text"))
    };
    let mut made = copy("c1", "").await;
    for _ in 0..100 {
        if made.0 != StatusCode::NOT_FOUND {
            break;
        }
        tokio::time::sleep(std::time::Duration::from_millis(50)).await;
        made = copy("c1", "").await;
    }
    assert_eq!(made.0, StatusCode::OK, "{}", made.1);
    let came = lxd.asked("POST /1.0/instances");
    let (status, said) = copy("gpu", "").await;
    assert_eq!(status, StatusCode::FORBIDDEN, "{said}");
    assert!(said.contains("The copy would have what this machine has of its host"), "{said}");
    // With something else in its place it comes without.
    assert_eq!(lxd.asked("POST /1.0/instances"), came, "it did not come through");
    assert_eq!(copy("gpu", r#", "devices": {"g": {"type": "none"}}"#).await.0, StatusCode::OK);
    assert!(lxd.marks().is_empty(), "what is new is made on no condition");
    ada.grant_unrecorded("bob", "hypervisor/node-admin", "hypervisor", "lxd").await;
    assert_eq!(copy("gpu", "").await.0, StatusCode::OK);
    // A machine that nobody sees is none, whatever it has.
    assert_eq!(copy("hidden", "").await.0, StatusCode::NOT_FOUND);
    gateway.stop().await;
}
