// SPDX-License-Identifier: Apache-2.0
//! One hypervisor `lab` with the one guest `web-1`, and the way to its screen.

use super::{Person, TestGateway, peers::Peer};
use reqwest::StatusCode;
use serde_json::Value;
use std::time::Duration;

/// The guest as the configuration names it.
pub(crate) fn lab(guest: &Peer) -> String {
    let password = guest.maybe("PASSWORD_FILE").map(|f| format!("password_file = {f:?}\n")).unwrap_or_default();
    let tls = guest
        .maybe("CA_FILE")
        .map(|f| format!("[hypervisors.guests.tls]\nca_file = {f:?}\nserver_name = \"localhost\"\n"))
        .unwrap_or_default();
    format!(
        "[[hypervisors]]\nname = \"lab\"\nkind = \"qemu\"\n[[hypervisors.guests]]\nid = \"web-1\"\ntags = [\"web\"]\n\
         vnc = {:?}\nqmp = {:?}\n{password}{tls}",
        guest.get("VNC"),
        guest.get("QMP")
    )
}

/// Waits until somebody sees that it runs.
pub(crate) async fn ready(gateway: &TestGateway, person: &Person<'_>) {
    for _ in 0..100 {
        let list: Value = person.get("/api/v1/machines").await.json().await.expect("JSON");
        if list["machines"][0]["state"] == "running" {
            return;
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    panic!("the machine of {} is not running", gateway.url());
}

/// A ticket for its screen.
pub(crate) async fn ticket(person: &Person<'_>, mode: &str) -> String {
    ticket_for(person, "lab/web-1", mode).await
}

/// A ticket for the screen of a machine.
pub(crate) async fn ticket_for(person: &Person<'_>, machine: &str, mode: &str) -> String {
    let answer = person.post_json(&format!("/api/v1/consoles/{machine}/ticket/{mode}")).await;
    let status = answer.status();
    let body: Value = answer.json().await.expect("JSON");
    assert_eq!(status, StatusCode::OK, "{body}");
    body["ticket"].as_str().expect("a ticket").to_owned()
}
