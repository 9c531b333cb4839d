// SPDX-License-Identifier: Apache-2.0
//! A real libvirtd through the gateway: inventory with tags, power, changes by events, and a screen whose password is
//! read at the moment it opens.

use crate::support::{Person, TestGateway, peers::Peer, screen::Screen};
use serde_json::Value;
use std::time::Duration;

async fn machine(ada: &Person<'_>, test: impl Fn(&Value) -> bool) -> Value {
    for _ in 0..150 {
        let list: Value = ada.get("/api/v1/machines").await.json().await.expect("JSON");
        if let Some(found) = list["machines"].as_array().and_then(|all| all.iter().find(|m| test(m))) {
            return found.clone();
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    panic!("no such machine: {:?}", ada.get("/api/v1/machines").await.text().await);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_domain_is_listed_driven_and_shown_over_tls() {
    let libvirt = Peer::libvirt();
    let metadata = "<p:tags xmlns:p=\"urn:portcullis:1\">web,blue</p:tags>";
    let domain = libvirt.ask("domain", &["web-1", "--security", "password", "--metadata", metadata]);
    let uuid = domain["UUID"].clone();
    let hypervisors = format!(
        "[[hypervisors]]\nname = \"kvm\"\nkind = \"libvirt\"\naddress = {:?}\ncert_file = {:?}\nkey_file = {:?}\n\
         uri = \"{}\"\n[hypervisors.tls]\nca_file = {:?}\n[hypervisors.console]\nhost = \"127.0.0.1\"\n",
        libvirt.get("TLS"),
        libvirt.get("CLIENT_CERT"),
        libvirt.get("CLIENT_KEY"),
        if libvirt.get("URI").contains(":///session") { "qemu:///session" } else { "qemu:///system" },
        libvirt.get("CA_FILE"),
    );
    let gateway = TestGateway::start(&hypervisors).await;
    let ada = Person::first_administrator(&gateway, "ada").await;
    let found = machine(&ada, |m| m["id"] == uuid.as_str() && m["state"] == "running").await;
    assert_eq!((&found["name"], &found["hypervisor"]), (&"web-1".into(), &"kvm".into()));
    assert_eq!(found["tags"], serde_json::json!(["blue", "web"]), "{found}");

    let at = format!("kvm/{uuid}");
    let answer = ada.post_json(&format!("/api/v1/consoles/{at}/ticket/control")).await;
    let ticket: Value = answer.json().await.expect("JSON");
    let mut screen = Screen::open(&ada, &at, "control", ticket["ticket"].as_str().expect("a ticket")).await;
    screen.handshake().await;
    assert!(screen.picture().await > 1000);

    let answer = ada.submit(&format!("/machines/{at}/power"), &[("verb", "pause"), ("next", "/")]).await;
    assert!(answer.status().is_redirection(), "{}", answer.text().await.unwrap_or_default());
    machine(&ada, |m| m["id"] == uuid.as_str() && m["state"] == "paused").await;
    ada.submit(&format!("/machines/{at}/power"), &[("verb", "resume"), ("next", "/")]).await;
    machine(&ada, |m| m["id"] == uuid.as_str() && m["state"] == "running").await;
    // What changes behind our back is seen too: the domain ends, and so does its screen.
    libvirt.ask("virsh", &["destroy", "web-1"]);
    let (code, reason) = screen.ended(Duration::from_secs(10)).await;
    assert_eq!(code, 4004, "{reason}");
    gateway.stop().await;
}
