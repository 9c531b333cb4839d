// SPDX-License-Identifier: Apache-2.0
//! A button that somebody may not press says why: what of their own grants decided, what would open it, where to ask.

use crate::support::{
    Person, TestGateway,
    lab::{lab, ready},
    page,
    peers::Peer,
};
use reqwest::StatusCode;

/// What stands behind each greyed button of a page, in its order.
fn greyed(html: &str) -> Vec<String> {
    let plain = |part: &str| {
        let mut text = String::new();
        let mut inside = false;
        for letter in part.chars() {
            match letter {
                '<' => inside = true,
                '>' => inside = false,
                other if !inside => text.push(other),
                _ => {}
            }
        }
        page::unescape(&text.split_whitespace().collect::<Vec<_>>().join(" "))
    };
    let all = html.split("<details class=\"menu no\">").skip(1);
    all.map(|part| plain(part.split("</details>").next().unwrap_or_default())).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_greyed_button_says_what_of_ones_own_grants_decided_and_what_would_open_it() {
    let guest = Peer::qemu("web-1", "none");
    let gateway = TestGateway::start(&lab(&guest)).await;
    let ada = Person::first_administrator(&gateway, "ada").await;
    ready(&gateway, &ada).await;
    let (zoe, bob) = (ada.invite("zoe").await, ada.invite("bob").await);
    let users = [gateway.user_id("zoe").await, gateway.user_id("bob").await];
    let give = async |user: &str, role: &str, more: &[(&str, &str)]| {
        let fields = [("user", user), ("role", role), ("on", "tag:web"), ("hours", "24"), ("step_up_seconds", "300")];
        ada.step_up().await;
        let answer = ada.submit("/grants", &[&fields, more].concat()).await;
        assert_eq!(answer.status(), StatusCode::SEE_OTHER, "{}", answer.text().await.unwrap_or_default());
    };
    let [zoe_id, bob_id] = &users;
    give(zoe_id, "viewer", &[]).await;
    // What bob holds is nothing to zoe.
    give(bob_id, "operator", &[("networks", "203.0.113.0/24")]).await;
    let told = greyed(&zoe.page("/").await);
    let [power, console] = told.as_slice() else { panic!("{told:?}") };
    assert!(
        power.contains("You may not switch its power. None of your grants lets you switch its power here."),
        "{power}"
    );
    assert!(power.contains("You need the role operator (or administrator") && power.contains("Ask for it"), "{power}");
    assert!(console.contains("None of your grants lets you watch its screen here."), "{console}");
    assert!(
        console.contains("You need the role console-user") && console.contains("A fresh code or passkey"),
        "{console}"
    );
    assert!(!told.concat().contains("203.0.113") && !told.concat().contains("Decided by"), "{told:?}");
    let list: serde_json::Value = zoe.get("/api/v1/machines").await.json().await.expect("JSON");
    assert_eq!(list["machines"][0]["closed"], "None of your grants lets you watch its screen here.", "{list}");
    // Its link is the form, filled in.
    let html = page::unescape(&zoe.page("/").await);
    let at = html.find("/requests/new?on=machine%3Alab%2Fweb-1&role=console-user").expect("a link");
    let link = html[at..].split('"').next().expect("its end");
    let form = zoe.page(link).await;
    assert_eq!(page::field(&form, "on").as_deref(), Some("machine:lab/web-1"));

    // One's own grants that would open it but for one thing are named with that thing.
    give(zoe_id, "operator", &[("networks", "10.0.0.0/8")]).await;
    let told = greyed(&zoe.page("/").await).concat();
    assert!(told.contains("Your role operator on tag web counts from these networks only: 10.0.0.0/8."), "{told}");
    give(zoe_id, "console-user", &[("passkey", "on")]).await;
    let told = greyed(&zoe.page("/").await).concat();
    assert!(told.contains("Your role console-user on tag web counts once you have shown a passkey."), "{told}");
    assert!(told.contains("Confirm with a passkey: Open console"), "{told}");
    // What forbids is named, and nothing is to be asked for.
    give(zoe_id, "machine/console.view", &[("forbid", "on")]).await;
    let told = greyed(&zoe.page("/").await);
    let console = told.iter().find(|t| t.contains("Open console")).unwrap_or_else(|| panic!("{told:?}"));
    let forbids = "Your right machine/console.view on tag web forbids it, whatever another one allows.";
    assert!(console.contains(forbids), "{console}");
    assert!(!console.contains("Ask for it") && console.contains("no request overrides it"), "{console}");

    // On the console's bar, whoever may only watch reads why keys are not sent.
    let kim = ada.invite("kim").await;
    let kim_id = gateway.user_id("kim").await;
    give(&kim_id, "viewer", &[]).await;
    give(&kim_id, "machine/console.view", &[]).await;
    kim.step_up().await;
    let told = greyed(&kim.page("/c/lab/web-1").await);
    assert_eq!(told.len(), 2, "{told:?}");
    assert!(told[1].starts_with("Keyboard and mouse of web-1 is not open to you. Why?"), "{told:?}");
    assert!(told[1].contains("None of your grants lets you use its keyboard and mouse here."), "{told:?}");

    // Who may read the policy also reads which grants decided.
    let give_all = [("user", bob_id.as_str()), ("role", "security-lead"), ("on", "everything"), ("hours", "24")];
    assert_eq!(
        ada.submit("/grants", &[&give_all[..], &[("step_up_seconds", "300")]].concat()).await.status(),
        StatusCode::SEE_OTHER
    );
    let grants = gateway.grants_of("bob").await;
    let told = greyed(&bob.page("/").await).concat();
    assert!(grants.iter().any(|g| told.contains(&format!("Decided by grant {g}"))), "{grants:?} {told}");

    // A lock says so itself; there is nothing to ask for.
    let (code, text) = gateway.shell(&["lock", "add", "machine:lab/web-1", "--reason", "evidence", "--for", "1h"]);
    assert_eq!(code, Some(0), "{text}");
    tokio::time::sleep(std::time::Duration::from_millis(2500)).await;
    let told = greyed(&ada.page("/").await);
    assert_eq!(told.len(), 2, "power and console: {told:?}");
    assert!(told.iter().all(|t| t.contains("evidence") && !t.contains("Ask for it")), "{told:?}");
    gateway.stop().await;
}
