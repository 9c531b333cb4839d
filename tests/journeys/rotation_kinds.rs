// SPDX-License-Identifier: Apache-2.0
//! Rotation by each kind's own API, and what to do by hand where there is none; and what the doctor says of what each kind's
//! credential may do.

use crate::support::{
    FakeOpenStack, Person, TestGateway, fake::secret_file, fake_openstack::WEB, gateway::free_port, peers::Peer,
};
use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use serde_json::{Value, json};
use std::{path::Path, time::Duration};

/// Waits until the machines of a hypervisor are read with the credential of now.
async fn sees(person: &Person<'_>, name: &str) {
    for _ in 0..150 {
        let list: Value = person.get("/api/v1/machines").await.json().await.expect("JSON");
        if list["machines"].as_array().is_some_and(|all| all.iter().any(|m| m["name"] == name || m["id"] == name)) {
            return;
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    panic!("{name} is not seen");
}

/// What the doctor says of a credential, and the worst of how it is.
fn standing(gateway: &TestGateway, what: &str) -> (&'static str, String) {
    let (_, out) = gateway.shell(&["doctor", "--json"]);
    let found: Vec<&str> = out.lines().filter(|l| l.contains(&format!("\"{what}\""))).collect();
    assert!(!found.is_empty(), "nothing about {what}: {out}");
    let is =
        ["wrong", "doubtful", "well"].into_iter().find(|is| found.iter().any(|l| l.contains(&format!("\"{is}\""))));
    (is.expect("one of three"), found.join("\n"))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_application_credential_is_replaced_by_another_one_with_the_same_roles() {
    let cloud = FakeOpenStack::start(None).await;
    let gateway = TestGateway::start(&cloud.config("cloud", free_port(), "secret")).await;
    let ada = Person::first_administrator(&gateway, "ada").await;
    sees(&ada, WEB).await;
    // A restricted one makes no other: what to do is said, and nothing is done.
    let rotate = ["secrets", "rotate", "cloud"];
    let (code, said) = gateway.shell(&rotate);
    assert!(code == Some(2) && said.contains("restricted") && said.contains("--from"), "{said}");
    assert!(said.contains("openstack application credential create"), "{said}");
    assert_eq!(cloud.applications().len(), 1);
    let (is, said) = standing(&gateway, "cloud: credential default");
    assert!(is == "doubtful" && said.contains("role admin") && !said.contains("unrestricted"), "{said}");

    // By hand: what the command prints is what --from takes.
    cloud.add_application("ac2", "canary-by-hand");
    let file = gateway.dir.path().join("brought");
    secret_file(&file, r#"{"id": "ac2", "name": "ac2", "secret": "canary-by-hand", "unrestricted": false}"#);
    let (code, said) = gateway.shell(&[&rotate[..], &["--from", &file.display().to_string()]].concat());
    assert!(code == Some(0) && said.contains("is in use") && said.contains("take it away there"), "{said}");
    std::fs::remove_file(&file).expect("removed");
    cloud.remove_application("ac1");
    sees(&ada, WEB).await;

    // An unrestricted one is replaced by the API: the same roles, rules and end, and the old one is deleted.
    cloud.unrestrict("ac2", true);
    let (is, said) = standing(&gateway, "cloud: credential default");
    assert!(is == "doubtful" && said.contains("unrestricted"), "{said}");
    let (code, said) = gateway.shell(&rotate);
    assert!(code == Some(0) && said.contains("counts no more") && !said.contains("canary"), "{said}");
    let left = cloud.applications();
    let (id, new) = left.iter().next().expect("one");
    assert!(left.len() == 1 && id != "ac2" && new.is_unrestricted, "{:?}", left.keys());
    assert_eq!(new.said["roles"], json!([{ "id": "r1" }, { "id": "r2" }]));
    assert_eq!(new.said["access_rules"], json!([{ "id": "rule1" }]));
    assert_eq!(new.said["expires_at"], "2027-02-13T12:12:12.000000");
    assert!(new.said["name"].as_str().is_some_and(|n| n.starts_with("ac2-")), "{}", new.said);
    let list = "GET /v2.1/servers/detail";
    let before = cloud.came(list).len();
    for _ in 0..150 {
        if cloud.came(list).len() > before + 1 {
            break;
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    assert!(cloud.came_as(list).contains(id), "{:?}", cloud.came_as(list));
    gateway.restart().await;
    let ada = ada.another_browser().await;
    sees(&ada, WEB).await;
    assert_eq!(gateway.shell(&rotate).0, Some(0), "and once more");
    assert_eq!(cloud.wrongs(), Vec::<String>::new());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_bound_token_of_a_service_account_is_replaced_and_its_secret_deleted() {
    let guest = Peer::qemu("web-1", "none");
    let cluster = Peer::kubevirt(guest.get("VNC"));
    let dir = Path::new(cluster.get("DIR")).to_owned();
    let token = |claims: &Value| format!("e30.{}.canary-first", URL_SAFE_NO_PAD.encode(claims.to_string()));
    let account = json!({ "name": "gateway" });
    let unbound = token(&json!({ "sub": "system:serviceaccount:infra:gateway",
        "kubernetes.io": { "namespace": "infra", "serviceaccount": account } }));
    let bound = token(&json!({ "sub": "system:serviceaccount:infra:gateway",
        "kubernetes.io": { "namespace": "infra", "serviceaccount": account, "secret": { "name": "gateway-token" } } }));
    let file = dir.join("own");
    let take = |text: &str| {
        std::fs::write(dir.join("token"), text).expect("written");
        secret_file(&file, text);
    };
    take(&unbound);
    let gateway = TestGateway::start(&format!(
        "[[hypervisors]]\nname = \"kv\"\nkind = \"kubevirt\"\naddress = {:?}\ntoken_file = {file:?}\n\
         [hypervisors.tls]\nca_file = {:?}\n[hypervisors.api]\nport = {}\n",
        cluster.get("ADDRESS"),
        cluster.get("CA_FILE"),
        free_port(),
    ))
    .await;
    let ada = Person::first_administrator(&gateway, "ada").await;
    sees(&ada, "web-1").await;
    // What it may do in each namespace where machines are.
    let (is, said) = standing(&gateway, "kv: credential default");
    assert!(is == "doubtful" && said.contains("create pods/exec") && said.contains("infra:gateway"), "{said}");
    assert!(!said.contains("virtualmachines"), "that is what it is for: {said}");
    let rotate = ["secrets", "rotate", "kv"];
    let (code, said) = gateway.shell(&rotate);
    assert!(code == Some(2) && said.contains("bound to nothing") && said.contains("--from"), "{said}");

    take(&bound);
    std::fs::write(dir.join("strict"), "").expect("written");
    tokio::time::sleep(Duration::from_secs(11)).await;
    let (code, said) = gateway.shell(&rotate);
    assert!(code == Some(2) && said.contains("cannot create resource"), "{said}");
    std::fs::remove_file(dir.join("strict")).expect("removed");
    let log = || std::fs::read_to_string(cluster.get("LOG")).expect("the log");
    assert!(log().contains("deleted infra gateway-token-"), "what was made for it is away again");
    let (code, said) = gateway.shell(&rotate);
    assert!(code == Some(0) && said.contains("counts no more") && !said.contains("canary"), "{said}");
    assert!(log().contains("deleted infra gateway-token\n"), "the old one's secret: {}", log());
    sees(&ada, "web-1").await;
    let (_, said) = standing(&gateway, "kv: credential default");
    assert!(said.contains("it ends by itself on"), "a week is soon: {said}");
    gateway.restart().await;
    let ada = ada.another_browser().await;
    sees(&ada, "web-1").await;
    let (code, said) = gateway.shell(&rotate);
    assert!(code == Some(0) && said.contains("counts no more"), "{said}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_user_of_a_host_changes_its_password_and_a_vcenters_is_changed_by_hand() {
    let (vc, host) = (Peer::vsphere(&[]), Peer::vsphere(&["-esx"]));
    let section = |name: &str, peer: &Peer| {
        format!(
            "[[hypervisors]]\nname = {name:?}\nkind = \"vsphere\"\naddress = {:?}\nusername = \"gateway@vsphere.local\"\n\
             password_file = {:?}\n[hypervisors.tls]\nca_file = {:?}\n[hypervisors.api]\nport = {}\n",
            peer.get("ADDRESS"),
            peer.get("PASSWORD_FILE"),
            peer.get("CA_FILE"),
            free_port()
        )
    };
    let gateway = TestGateway::start(&[section("vc", &vc), section("esx", &host)].concat()).await;
    let ada = Person::first_administrator(&gateway, "ada").await;
    sees(&ada, "web-1").await;
    // The simulator's user may do everything, and so far beyond what it is for.
    for name in ["vc", "esx"] {
        let (is, said) = standing(&gateway, &format!("{name}: credential default"));
        assert!(
            is == "doubtful" && said.contains("Authorization.ModifyRoles") && said.contains("Host.Config."),
            "{said}"
        );
        assert!(!said.contains("VirtualMachine.Interact.PowerOn"), "that is what it is for: {said}");
    }
    let (code, said) = gateway.shell(&["secrets", "rotate", "vc"]);
    assert!(code == Some(2) && said.contains("single sign-on") && said.contains("--from"), "{said}");
    let was = std::fs::read_to_string(host.get("PASSWORD_FILE")).expect("a password").trim().to_owned();
    let (code, said) = gateway.shell(&["secrets", "rotate", "esx"]);
    assert!(code == Some(0) && said.contains("is in use") && !said.contains(&was), "{said}");
    // With the old one nobody signs in: only who knows the new one goes on after a restart.
    gateway.restart().await;
    assert_eq!(standing(&gateway, "esx: credential default").0, "doubtful");
    assert_eq!(gateway.shell(&["secrets", "rotate", "esx"]).0, Some(0));
    assert_eq!(gateway.shell(&["secrets", "forget", "esx"]).0, Some(0));
    let (is, said) = standing(&gateway, "esx: credential default");
    assert!(is == "wrong" && !said.contains(&was), "{said}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_roles_of_an_ovirt_account_are_told_and_its_password_is_changed_by_hand() {
    let guest = Peer::qemu("web-1", "x509-password");
    let engine = Peer::ovirt(guest.get("VNC"), guest.get("PASSWORD_FILE"));
    let gateway = TestGateway::start(&format!(
        "[[hypervisors]]\nname = \"rhv\"\nkind = \"ovirt\"\naddress = {:?}\nusername = \"gateway@internal\"\n\
         password_file = {:?}\n[hypervisors.tls]\nca_file = {:?}\n",
        engine.get("ADDRESS"),
        engine.get("PASSWORD_FILE"),
        engine.get("CA_FILE"),
    ))
    .await;
    let (is, said) = standing(&gateway, "rhv: credential default");
    assert!(is == "doubtful" && said.contains("manipulate_permissions") && said.contains("configure_engine"), "{said}");
    assert!(!said.contains("run_vm") && !said.contains("login"), "that is what it is for: {said}");
    let (code, said) = gateway.shell(&["secrets", "rotate", "rhv"]);
    assert!(code == Some(2) && said.contains("ovirt-aaa-jdbc-tool") && said.contains("--from"), "{said}");
}
