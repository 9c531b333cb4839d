// SPDX-License-Identifier: Apache-2.0
//! vSphere through the gateway: an unchanged pyvmomi with a token of ours sees its owner's machines and no others, changes
//! what its owner may change, is told no in its own words, and is cut when its token is; the credential stays here.

use crate::support::{
    Person, TestGateway,
    gateway::{files, free_port, letters},
    page,
    peers::Peer,
};
use reqwest::{Client, StatusCode, header};
use serde_json::{Value, json};
use std::{collections::BTreeMap, time::Duration};

/// The machines that somebody sees in the portal, by name.
async fn machines(person: &Person<'_>) -> BTreeMap<String, Value> {
    let list: Value = person.get("/api/v1/machines").await.json().await.expect("JSON");
    let all = list["machines"].as_array().expect("a list").clone();
    all.into_iter().map(|m| (m["name"].as_str().expect("a name").to_owned(), m)).collect()
}

/// Waits until somebody sees a machine in a state; gives its id.
async fn sees(person: &Person<'_>, name: &str, state: &str) -> String {
    for _ in 0..120 {
        if let Some(machine) = machines(person).await.get(name).filter(|m| m["state"] == state) {
            return machine["id"].as_str().expect("an id").to_owned();
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    panic!("{} does not see that {name} is {state}: {:?}", person.name, machines(person).await);
}

fn config(vc: &Peer, port: u16, more: &str) -> String {
    format!(
        "[[hypervisors]]\nname = \"vc\"\nkind = \"vsphere\"\naddress = {:?}\nusername = \"gateway@vsphere.local\"\n\
         password_file = {:?}\n{more}[hypervisors.tls]\nca_file = {:?}\n[hypervisors.api]\nport = {port}\n",
        vc.get("ADDRESS"),
        vc.get("PASSWORD_FILE"),
        vc.get("CA_FILE"),
    )
}

/// What the steps of the client came to, by the step's name.
fn steps(said: &str) -> BTreeMap<String, Value> {
    let lines = said.lines().map(|l| serde_json::from_str::<Value>(l).expect("JSON"));
    lines.map(|l| (l["step"].as_str().expect("a step").to_owned(), l["value"].clone())).collect()
}

fn password(vc: &Peer) -> String {
    std::fs::read_to_string(vc.get("PASSWORD_FILE")).expect("a password").trim().to_owned()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_unchanged_pyvmomi_does_what_its_owner_may_and_sees_nothing_else() {
    let vc = Peer::vsphere(&[]);
    let port = free_port();
    let gateway = TestGateway::start(&config(&vc, port, "")).await;
    let ada = Person::first_administrator(&gateway, "ada").await;
    let payroll = sees(&ada, "payroll", "running").await;
    assert_eq!(machines(&ada).await.into_keys().collect::<Vec<_>>(), ["ledger", "payroll", "web-1", "web-2"]);
    let bob = ada.invite("bob").await;
    ada.grant("bob", "operator", "pool", "vc/DC0/blue").await;
    sees(&bob, "web-1", "running").await;
    assert_eq!(machines(&bob).await.into_keys().collect::<Vec<_>>(), ["web-1", "web-2"]);
    let token = bob.token("vc").await;
    let ca = gateway.dir.path().join("tls/ca.pem").display().to_string();
    let said = vc.client(&["localhost", &port.to_string(), &ca, "bob@portcullis", &token, &format!("all:{payroll}")]);
    println!("{said}");
    assert!(!said.contains(&password(&vc)), "the credential came out: {said}");
    let mut step = steps(&said);
    let mut take = |name: &str| step.remove(name).unwrap_or_else(|| panic!("no step {name}: {said}"));
    assert_eq!(take("wrong"), "vim.fault.InvalidLogin");
    assert_eq!(take("about"), "VirtualCenter");
    assert_eq!(take("names"), json!(["web-1", "web-2"]), "of the other tenant nothing is listed");
    gateway.stop().await;
}
