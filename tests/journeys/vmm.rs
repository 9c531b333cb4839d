// SPDX-License-Identifier: Apache-2.0
//! Cloud Hypervisor and Firecracker through the gateway: one machine a socket, its power from the pages and by the API, and
//! nothing of the host for whoever may only run it.

use crate::support::{FakeVmm, Person, TestGateway, fake_vmm::Vmm, gateway::free_port};
use reqwest::{Client, Method, StatusCode, header};
use serde_json::Value;
use std::time::Duration;

async fn sees(person: &Person<'_>, on: &str, state: &str) {
    for _ in 0..120 {
        let list: Value = person.get("/api/v1/machines").await.json().await.expect("JSON");
        let is_it = |m: &Value| m["hypervisor"] == on && m["id"] == "vm" && m["name"] == "web-1" && m["state"] == state;
        if list["machines"].as_array().is_some_and(|all| all.iter().any(is_it)) {
            return;
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    panic!("{} does not see that {on} is {state}", person.name);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_machine_a_socket_runs_and_its_host_stays_out_of_reach() {
    let (ch, fc) = (FakeVmm::start(Vmm::CloudHypervisor), FakeVmm::start(Vmm::Firecracker));
    let (of_ch, of_fc) = (free_port(), free_port());
    let gateway = TestGateway::start(&format!("{}{}", ch.config("ch", of_ch), fc.config("fc", of_fc))).await;
    let ada = Person::first_administrator(&gateway, "ada").await;
    let bob = ada.invite("bob").await;
    ada.grant("bob", "operator", "tag", "web").await;
    sees(&bob, "ch", "off").await;
    sees(&bob, "fc", "off").await;
    for (on, verb, state) in [
        ("ch", "start", "running"),
        ("ch", "pause", "paused"),
        ("ch", "resume", "running"),
        ("ch", "reset", "running"),
        ("ch", "stop", "off"),
        ("fc", "start", "running"),
        ("fc", "pause", "paused"),
        ("fc", "resume", "running"),
        ("fc", "shutdown", "running"),
    ] {
        let answer = bob.submit(&format!("/machines/{on}/vm/power"), &[("verb", verb), ("next", "/")]).await;
        assert_eq!(answer.status(), StatusCode::SEE_OTHER, "{on} {verb}");
        sees(&bob, on, state).await;
    }
    let answer = bob.submit("/machines/fc/vm/power", &[("verb", "stop"), ("next", "/")]).await;
    assert_ne!(answer.status(), StatusCode::SEE_OTHER, "Firecracker stops by its guest alone");

    let token = bob.token("").await;
    let client = Client::builder().tls_certs_only([gateway.ca()]).build().expect("a client");
    for (port, method, path, body, status) in [
        (of_ch, Method::GET, "/api/v1/vm.info", "", 200),
        (of_ch, Method::PUT, "/api/v1/vm.boot", "", 204),
        (of_ch, Method::PUT, "/api/v1/vm.resize", r#"{"desired_vcpus": 2}"#, 403),
        (of_ch, Method::PUT, "/api/v1/vm.add-disk", r#"{"path": "/etc/shadow"}"#, 403),
        (of_ch, Method::PUT, "/api/v1/vmm.shutdown", "", 403),
        (of_fc, Method::GET, "/", "", 200),
        (of_fc, Method::PATCH, "/vm", r#"{"state": "Paused"}"#, 204),
        (of_fc, Method::PUT, "/actions", r#"{"action_type": "InstanceStart", "action_type": "FlushMetrics"}"#, 403),
        (of_fc, Method::PUT, "/drives/d", r#"{"drive_id": "d", "path_on_host": "/dev/sda"}"#, 403),
        (of_fc, Method::GET, "/unheard-of", "", 403),
    ] {
        let request = client.request(method, format!("https://localhost:{port}{path}"));
        let mut request = request.header(header::AUTHORIZATION, format!("Bearer {token}"));
        if !body.is_empty() {
            request = request.header(header::CONTENT_TYPE, "application/json").body(body);
        }
        let answer = request.send().await.expect("an answer");
        assert_eq!(answer.status().as_u16(), status, "{path} {body}");
        if status == 403 {
            let said: Value = answer.json().await.expect("JSON");
            assert!(said["fault_message"].is_string(), "{said}");
        }
    }
    let nobody = client.get(format!("https://localhost:{of_fc}/")).send().await.expect("an answer");
    assert_eq!(nobody.status(), StatusCode::UNAUTHORIZED);
    let last = |all: Vec<(String, String)>| all.last().cloned().expect("a change");
    assert_eq!(last(ch.changes()), ("PUT /api/v1/vm.boot".to_owned(), String::new()));
    assert_eq!(last(fc.changes()), ("PATCH /vm".to_owned(), r#"{"state": "Paused"}"#.to_owned()));
    assert_eq!((ch.wrongs(), fc.wrongs()), (Vec::new(), Vec::new()));
    gateway.stop().await;
}
