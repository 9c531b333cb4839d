// SPDX-License-Identifier: Apache-2.0
//! Roles that are kept apart are not held together, whatever way they would be got.

use super::scim::{Directory, bob};
use crate::support::{Person, TestGateway, person::location};
use reqwest::StatusCode;
use serde_json::json;

const APART: &str = "[[policy.conflict]]\nroles = [\"auditor\", \"operator\"]\nwords = \"Who acts does not audit.\"\n";
const SCIM: &str =
    "[scim]\naccount = \"directory\"\n[[scim.groups]]\nname = \"ops\"\nrole = \"operator\"\non = \"tag:web\"\n";

// SEC-006
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn roles_that_are_kept_apart_are_refused_however_they_come() {
    let gateway = TestGateway::start(&format!("{APART}{SCIM}")).await;
    let ada = Person::first_administrator(&gateway, "ada").await;
    let mia = ada.invite("mia").await;
    let user = gateway.user_id("mia").await;
    ada.grant("mia", "auditor", "everything", "").await;
    let give = async |role: &str| {
        let fields =
            [("user", &*user), ("role", role), ("on", "everything"), ("hours", "24"), ("step_up_seconds", "300")];
        let answer = ada.submit("/grants", &fields).await;
        (answer.status(), answer.text().await.expect("a page"))
    };
    for role in ["operator", "administrator"] {
        let (status, html) = give(role).await;
        assert!(
            status == StatusCode::UNPROCESSABLE_ENTITY && html.contains("Who acts does not audit."),
            "{role}: {status} {html}"
        );
    }
    assert_eq!(give("viewer").await.0, StatusCode::SEE_OTHER);
    let (code, text) = gateway.shell(&["grant", "add", "mia", "operator", "everything"]);
    assert!(code == Some(2) && text.contains("Who acts does not audit."), "{code:?} {text}");

    // By a request: whoever approves is told.
    let lead = ada.invite("lead").await;
    ada.grant("lead", "security-lead", "everything", "").await;
    let fields = [("role", "operator"), ("on", "tag:web"), ("reason", "the disk is full"), ("hours", "1")];
    let asked = location(&mia.submit("/requests", &fields).await);
    lead.step_up().await;
    let answer = lead.submit(&format!("{asked}/approve"), &[]).await;
    assert_eq!(answer.status(), StatusCode::CONFLICT);
    assert!(answer.text().await.expect("a page").contains("auditor"));

    // By a directory: the later one is not given, and an alarm says so.
    let directory = Directory::of(&gateway, "directory").await;
    let (_, made) = directory.ask("POST", "/Users", Some(&bob())).await;
    let id = made["id"].as_str().expect("an id").to_owned();
    let (code, text) = gateway.shell(&["grant", "add", "bob", "auditor", "everything"]);
    assert_eq!(code, Some(0), "{text}");
    let group = json!({
        "schemas": ["urn:ietf:params:scim:schemas:core:2.0:Group"], "displayName": "ops", "members": [{ "value": id }],
    });
    let (status, made) = directory.ask("POST", "/Groups", Some(&group)).await;
    assert_eq!(status, StatusCode::CREATED, "{made}");
    assert_eq!(gateway.grants_of("bob").await.len(), 1, "the operator's is not there");
    let alarm =
        |e: &serde_json::Value| e["reason"].as_str().is_some_and(|r| r.contains("operator is not given by ops"));
    gateway.find_event(&["--kind", "alarm"], alarm).await;
    gateway.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_set_that_makes_no_sense_is_refused_at_the_start() {
    let dir = tempfile::tempdir().expect("a temporary folder");
    let at = std::net::SocketAddr::from(([127, 0, 0, 1], crate::support::gateway::free_port()));
    portcullis_server::init(dir.path(), "localhost", at, &portcullis_domain::SystemClock).expect("init");
    let file = dir.path().join("portcullis.toml");
    let text = std::fs::read_to_string(&file).expect("the configuration");
    let set = "[[policy.conflict]]\nroles = [\"administrator\", \"viewer\"]\n";
    std::fs::write(&file, format!("{text}\n{set}")).expect("written");
    let (code, out) = crate::support::gateway::shell(dir.path(), &["serve"]);
    assert!(code == Some(2) && out.contains("policy.conflict: administrator includes viewer"), "{code:?} {out}");
}
