// SPDX-License-Identifier: Apache-2.0
//! virsh and libvirt's Python module, unchanged, through the gateway to a real libvirtd.

use crate::support::{
    Person, TestGateway,
    peers::Peer,
    virsh::{Client, Door},
};
use std::time::Duration;

/// Waits until virsh says something: machines come into the inventory by the daemon's events.
async fn until(client: &Client, arguments: &[&str], wanted: &str) -> String {
    let mut said = String::new();
    for _ in 0..100 {
        said = client.try_virsh(arguments).await.1;
        if said.contains(wanted) {
            return said;
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    panic!("virsh {arguments:?} never said {wanted:?}: {said}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn machines_are_listed_looked_at_and_driven_with_a_token() {
    let libvirt = Peer::libvirt();
    libvirt.ask("domain", &["web-1", "--security", "password"]);
    let door = Door::new(&libvirt);
    let gateway = TestGateway::start(&door.config(&libvirt)).await;
    let ada = Person::first_administrator(&gateway, "ada").await;
    let client = door.client(&gateway, "ada", &ada.token("kvm").await);
    let said = until(&client, &["list", "--all"], "web-1").await;
    assert!(said.contains("running"), "{said}");
    gateway.stop().await;
}
