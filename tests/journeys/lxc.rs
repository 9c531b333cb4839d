// SPDX-License-Identifier: Apache-2.0
//! LXD's own client through the gateway: it shows a certificate, which stands for a token of ours.

use crate::support::{Person, TestGateway, gateway::free_port, lxc::Lxc, peers::Peer};
use serde_json::Value;
use std::time::Duration;

struct Lab {
    port: u16,
    gateway: TestGateway,
    lxd: Peer,
}

/// A real LXD with `c1`, which runs, and `c2`, which does not.
async fn lab() -> Lab {
    let lxd = Peer::lxd();
    lxd.ask("lxc", &["init", "busybox", "c2"]);
    let port = free_port();
    let hypervisors = format!(
        "[[hypervisors]]\nname = \"lxd\"\nkind = \"lxd\"\naddress = {:?}\ncert_file = {:?}\nkey_file = {:?}\n\
         [hypervisors.tls]\nca_file = {:?}\n[hypervisors.api]\nport = {port}\n",
        lxd.get("ADDRESS"),
        lxd.get("CLIENT_CERT"),
        lxd.get("CLIENT_KEY"),
        lxd.get("SERVER_CERT"),
    );
    let gateway = TestGateway::start(&hypervisors).await;
    Lab { port, gateway, lxd }
}

async fn lists(person: &Person<'_>, machines: usize) {
    for _ in 0..100 {
        let list: Value = person.get("/api/v1/machines").await.json().await.expect("JSON");
        if list["machines"].as_array().is_some_and(|m| m.len() == machines) {
            return;
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    panic!("{} does not see {machines} machines", person.name);
}

async fn says(file: &std::path::Path, word: &str) {
    for _ in 0..100 {
        if std::fs::read_to_string(file).is_ok_and(|text| text.contains(word)) {
            return;
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    panic!("{word:?} was not said: {}", std::fs::read_to_string(file).unwrap_or_default());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn lxc_works_unchanged_with_a_certificate_that_stands_for_a_token() {
    let lab = lab().await;
    let ada = Person::first_administrator(&lab.gateway, "ada").await;
    lists(&ada, 2).await;
    let (lxc, token) = (Lxc::new(), ada.token("lxd").await);
    let (is_well, said) = lxc.add(lab.port, "pct_wrong").await;
    assert!(!is_well && said.contains("no token that counts here"), "{said}");
    let (is_well, said) = lxc.add(lab.port, &token).await;
    assert!(is_well, "{said}");

    let list = lxc.run(&["list", "gw:", "-f", "csv", "-c", "ns"]).await;
    assert_eq!(list.lines().collect::<Vec<_>>(), ["c1,RUNNING", "c2,STOPPED"]);
    let info = lxc.run(&["info", "gw:"]).await;
    assert!(info.contains("auth: trusted") && info.contains("kernel"), "{info}");
    assert!(lxc.run(&["info", "gw:c1"]).await.contains("Status: RUNNING"));
    lxc.run(&["config", "set", "gw:c1", "limits.cpu", "1"]).await;
    assert_eq!(lxc.run(&["config", "get", "gw:c1", "limits.cpu"]).await.trim(), "1");
    assert_eq!(lxc.run(&["exec", "gw:c1", "--", "echo", "through-42"]).await.trim(), "through-42");
    assert_eq!(lxc.try_run(&["exec", "gw:c1", "--", "sh", "-c", "exit 7"]).await, (false, String::new()));
    let (mut monitor, out) = lxc.begin(&["monitor", "gw:"]);
    tokio::time::sleep(Duration::from_millis(500)).await;
    lxc.run(&["stop", "-f", "gw:c1"]).await;
    says(&out, "instance-stopped").await;
    lxc.run(&["start", "gw:c1"]).await;
    lxc.run(&["snapshot", "gw:c1", "s0"]).await;
    assert!(lxc.run(&["list", "gw:", "-f", "csv", "-c", "nsS"]).await.contains("c1,RUNNING,1"));
    // `lxc console` wants a terminal; this is what it asks for.
    let ask = ["query", "-X", "POST", "-d", r#"{"type": "console"}"#, "gw:/1.0/instances/c1/console"];
    let refused = lxc.refused(&ask).await;
    assert!(refused.contains("recording"), "what must be recorded does not open unrecorded: {refused}");

    // The page and the shell say which certificate it is; the trail says when it came to be one.
    let print = super::lxc_door::fingerprint_of(&std::fs::read(lxc.file("client.crt")).expect("a certificate"));
    let page = ada.page("/me").await;
    assert!(page.contains(&format!("{}…", &print[..12])), "{page}");
    let (code, listed) = lab.gateway.shell(&["token", "list", "--json"]);
    assert_eq!(code, Some(0), "{listed}");
    assert!(listed.contains(&format!("lxd {}", &print[..12])), "{listed}");
    let bound = |e: &Value| e["reason"].as_str().is_some_and(|r| r.contains("stands for the token"));
    let event = lab.gateway.find_event(&["--kind", "api", "--user", "ada"], bound).await;
    assert!(event.to_string().contains(&print), "{event}");

    // Revoked: at once for whoever asks, within seconds for what goes on.
    let id = page.split("/me/tokens/revoke").nth(1).and_then(|t| t.split("name=\"id\" value=\"").nth(1));
    let id = id.and_then(|t| t.split('"').next()).expect("the token's id").to_owned();
    ada.submit("/me/tokens/revoke", &[("id", &id)]).await;
    lxc.refused(&["list", "gw:"]).await;
    let ended = tokio::time::timeout(Duration::from_secs(5), monitor.wait()).await;
    assert!(ended.is_ok(), "the monitor goes on");
    // The same client comes back with another token.
    lxc.run(&["remote", "remove", "gw"]).await;
    let (is_well, said) = lxc.add(lab.port, &ada.token("lxd").await).await;
    assert!(is_well, "{said}");
    lxc.run(&["list", "gw:"]).await;
    lab.gateway.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn lxc_shows_each_person_their_own_machines_and_does_what_they_may() {
    let lab = lab().await;
    let ada = Person::first_administrator(&lab.gateway, "ada").await;
    lists(&ada, 2).await;
    let bob = ada.invite("bob").await;
    ada.grant("bob", "operator", "machine", "lxd/default:c1").await;
    ada.grant_unrecorded("bob", "console-user", "machine", "lxd/default:c1").await;
    lists(&bob, 1).await;
    let lxc = Lxc::new();
    let (is_well, said) = lxc.add(lab.port, &bob.token("lxd").await).await;
    assert!(is_well, "{said}");
    assert_eq!(lxc.run(&["list", "gw:", "-f", "csv", "-c", "ns"]).await.trim(), "c1,RUNNING");
    let info = lxc.run(&["info", "gw:"]).await;
    assert!(
        info.contains("auth: trusted") && info.contains("kernel_version: \"\"") && !info.contains("core.https_address"),
        "{info}"
    );
    let (mut monitor, out) = lxc.begin(&["monitor", "gw:"]);
    tokio::time::sleep(Duration::from_millis(500)).await;
    // What happens to the other one is not told.
    lab.lxd.ask("lxc", &["config", "set", "c2", "limits.cpu", "1"]);
    lxc.run(&["stop", "-f", "gw:c1"]).await;
    says(&out, "instance-stopped").await;
    let heard = std::fs::read_to_string(&out).expect("the events");
    assert!(!heard.contains("/c2") && !heard.contains("type: logging"), "{heard}");
    lxc.run(&["start", "gw:c1"]).await;
    monitor.kill().await.expect("killed");
    let (hidden, forbidden) = ("Not found", "You may not do this");
    for (arguments, why) in [
        (&["info", "gw:c2"][..], hidden),
        (&["start", "gw:c2"], hidden),
        (&["config", "trust", "list", "gw:"], forbidden),
        (&["query", "-X", "PATCH", "-d", r#"{"config": {"core.https_address": ":1"}}"#, "gw:/1.0"], forbidden),
        (&["profile", "list", "gw:"], forbidden),
        (&["config", "set", "gw:c1", "raw.lxc", "x"], forbidden),
        (&["delete", "-f", "gw:c1"], forbidden),
    ] {
        let said = lxc.refused(arguments).await;
        assert!(said.contains(why), "{arguments:?}: {said}");
    }
    lab.gateway.stop().await;
}
