// SPDX-License-Identifier: Apache-2.0
//! The secrets that the gateway shows to hypervisors: from a vault, several of them by what they are for, and rotated
//! while people work. Nobody ever sees one.

use crate::support::{
    FakeOpenStack, FakePve, FakeVault, Person, TestGateway,
    fake::secret_file,
    fake_openstack::{self, WEB},
    fake_pve::{self, CONSOLE_TOKEN, Makes, POWER_TOKEN, TOKEN},
    fake_vault,
    gateway::{files, free_port},
    lab::ticket_for,
    peers::Peer,
    screen::Screen,
};
use reqwest::{StatusCode, header};
use serde_json::Value;
use std::time::Duration;

async fn sees(person: &Person<'_>, id: &str, state: &str) {
    for _ in 0..150 {
        let list: Value = person.get("/api/v1/machines").await.json().await.expect("JSON");
        if list["machines"].as_array().is_some_and(|all| all.iter().any(|m| m["id"] == id && m["state"] == state)) {
            return;
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    panic!("{} does not see that {id} is {state}", person.name);
}

/// Nothing that the gateway wrote holds one of these. It is stopped first: whoever closes a file of SQLite's drops the locks
/// that the whole process has on it.
async fn holds_none(gateway: TestGateway, secrets: &[&str]) {
    let dir = gateway.stop().await;
    let mut all = Vec::new();
    files(dir.path(), &mut all);
    for secret in secrets {
        let found = all.iter().find(|(_, bytes)| bytes.windows(secret.len()).any(|w| w == secret.as_bytes()));
        assert!(found.is_none(), "{secret} stands in {}", found.map(|(f, _)| f.as_str()).unwrap_or_default());
    }
}

/// With which tokens requests that begin so came.
fn shown(pve: &FakePve, beginning: &str) -> Vec<String> {
    let of = |came: crate::support::fake::Came| {
        let shown = came.headers[header::AUTHORIZATION].to_str().expect("text").to_owned();
        shown.strip_prefix("PVEAPIToken=").expect("a token").to_owned()
    };
    let mut all: Vec<_> = pve.came(beginning).into_iter().map(of).collect();
    all.sort();
    all.dedup();
    all
}

const LIST: &str = "GET /api2/json/cluster/resources";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_secret_of_a_vault_stays_in_use_while_it_is_sealed_and_a_new_version_is_taken_over() {
    for by in ["token", "approle"] {
        let (pve, vault) = (FakePve::start(None).await, FakeVault::start().await);
        vault.put("gateway/pve", &[("token", TOKEN), ("other", "canary-other")]);
        let pve_config = pve.config_with("pve", free_port(), "token = { vault = \"gateway/pve\", key = \"token\" }");
        let gateway = TestGateway::start(&format!("{}{pve_config}", vault.config(by))).await;
        let ada = Person::first_administrator(&gateway, "ada").await;
        sees(&ada, "100", "running").await;
        tokio::time::sleep(Duration::from_secs(9)).await;
        let (logins, renewals) = (vault.came("POST /v1/auth/approle/login"), vault.came("POST /v1/auth/token/renew"));
        assert_eq!(logins, usize::from(by == "approle"), "what can be renewed is renewed");
        assert_eq!(renewals > 0, by == "approle", "two of its lives went by");

        vault.seal(true);
        let told = |e: &Value, word: &str| e.to_string().contains(word);
        gateway.find_event(&["--kind", "alarm"], |e| told(e, "pve/default") && told(e, "sealed")).await;
        let before = pve.came(LIST).len();
        sees(&ada, "100", "running").await;
        // Two more readings of the list.
        tokio::time::sleep(Duration::from_secs(11)).await;
        assert!(pve.came(LIST).len() > before, "the last good one goes on");

        // A new version, while every token of the gateway's at the vault was revoked.
        let next = "gateway@pve!second=canary-second-token";
        pve.add(next, false);
        vault.put("gateway/pve", &[("token", next)]);
        vault.revoke();
        vault.seal(false);
        gateway.find_event(&["--kind", "secret"], |e| told(e, "changed at its source")).await;
        pve.remove(TOKEN);
        let before = pve.came(LIST).len();
        for _ in 0..100 {
            if pve.came(LIST).len() > before + 1 {
                break;
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        assert!(shown(&pve, LIST).contains(&next.to_owned()));
        sees(&ada, "100", "running").await;

        // What is deleted, or has another shape, is no secret: the last good one stays.
        vault.delete("gateway/pve");
        gateway.find_event(&["--kind", "alarm"], |e| told(e, "nothing at")).await;
        vault.put("gateway/pve", &[("token", "no token of Proxmox")]);
        gateway.find_event(&["--kind", "alarm"], |e| told(e, "holds no API token")).await;
        sees(&ada, "100", "running").await;
        assert_eq!((vault.wrongs(), pve.wrongs()), (vec![], vec![]));
        let (code, out) = gateway.shell(&["secrets", "list", "--json"]);
        assert_eq!(code, Some(1), "its source has trouble: {out}");
        assert!(out.contains("vault gateway/pve token") && !out.contains("canary"), "{out}");
        let more = ["canary-other", "canary-second-token", "canary-0f3a7781-token"];
        holds_none(gateway, &[&fake_vault::CANARIES[..], &more].concat()).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_action_is_done_with_the_credential_that_is_for_it_and_no_stronger_one_stands_in() {
    let guest = Peer::qemu("web-1", "password");
    let pve = FakePve::start(Some(&guest)).await;
    let dir = tempfile::tempdir().expect("a folder");
    let (console, power) = (dir.path().join("console"), dir.path().join("power"));
    secret_file(&console, CONSOLE_TOKEN);
    secret_file(&power, POWER_TOKEN);
    let credential = format!(
        "token_file = {:?}\n[[hypervisors.credentials]]\nfor = [\"console\"]\ntoken_file = {console:?}\n\
         [[hypervisors.credentials]]\nfor = [\"power\"]\ntoken_file = {power:?}",
        pve.token_file()
    );
    let port = free_port();
    let gateway = TestGateway::start(&pve.config_with("pve", port, &credential)).await;
    let ada = Person::first_administrator(&gateway, "ada").await;
    sees(&ada, "100", "running").await;
    let mut screen = Screen::open(&ada, "pve/100", "control", &ticket_for(&ada, "pve/100", "control").await).await;
    screen.handshake().await;
    assert!(screen.picture().await > 10_000, "the first picture arrives");
    assert_eq!(shown(&pve, "POST /api2/json/nodes/pve1/qemu/100/vncproxy"), [CONSOLE_TOKEN]);
    assert_eq!(shown(&pve, "GET /api2/json/nodes/pve1/qemu/100/vncwebsocket"), [CONSOLE_TOKEN]);

    // By a client of the API, too: what is read with one, and what is done with another.
    let token = ada.token("pve").await;
    let client = reqwest::Client::builder().tls_certs_only([gateway.ca()]).build().expect("a client");
    let ask = |method: reqwest::Method, path: &str| {
        let request = client.request(method, format!("https://localhost:{port}/api2/json{path}"));
        request.header(header::AUTHORIZATION, format!("PVEAPIToken=ada@portcullis!tool={token}"))
    };
    let (view, start) = ("/nodes/pve1/qemu/100/config", "/nodes/pve1/qemu/100/status/start");
    let status = async |request: reqwest::RequestBuilder| request.send().await.expect("an answer").status();
    assert_eq!(status(ask(reqwest::Method::GET, view)).await, StatusCode::OK);
    assert_eq!(status(ask(reqwest::Method::POST, start).body("")).await, StatusCode::OK);
    assert_eq!(shown(&pve, &format!("GET /api2/json{view}")), [TOKEN]);
    assert_eq!(shown(&pve, &format!("POST /api2/json{start}")), [POWER_TOKEN]);

    // A credential that counts no more is not replaced by another one.
    pve.remove(POWER_TOKEN);
    pve.remove(CONSOLE_TOKEN);
    let before = pve.came("POST ").len();
    let answer = ask(reqwest::Method::POST, start).body("").send().await.expect("an answer");
    assert!(!answer.status().is_success(), "{}", answer.status());
    let mut none = Screen::open(&ada, "pve/100", "view", &ticket_for(&ada, "pve/100", "view").await).await;
    let (_, why) = none.ended(Duration::from_secs(10)).await;
    assert!(why.contains("invalid token"), "{why}");
    let after: Vec<_> = pve.came("POST ").split_off(before);
    assert!(after.iter().all(|c| !c.headers[header::AUTHORIZATION].to_str().expect("text").contains(TOKEN)));
    let (_, out) = gateway.shell(&["secrets", "list", "--json"]);
    for name in ["\"default\"", "\"console\"", "\"power\""] {
        assert!(out.contains(name), "{out}");
    }
    holds_none(gateway, &["canary-1b2c3d44-console", "canary-5e6f7a88-power", "canary-0f3a7781-token"]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_token_is_rotated_under_an_open_screen_and_survives_a_restart() {
    let guest = Peer::qemu("web-1", "password");
    let pve = FakePve::start(Some(&guest)).await;
    let gateway = TestGateway::start(&pve.config("pve", free_port())).await;
    let ada = Person::first_administrator(&gateway, "ada").await;
    sees(&ada, "100", "running").await;
    let mut screen = Screen::open(&ada, "pve/100", "control", &ticket_for(&ada, "pve/100", "control").await).await;
    screen.handshake().await;
    assert!(screen.picture().await > 10_000, "the first picture arrives");
    let (code, out) = gateway.shell(&["secrets", "rotate", "pve"]);
    assert_eq!(code, Some(0), "{out}");
    assert!(out.contains("is in use") && out.contains("counts no more") && !out.contains("canary"), "{out}");
    let ids = pve.tokens();
    assert!(!ids.contains(&"gateway@pve!portcullis".to_owned()), "the old one is gone: {ids:?}");
    assert!(ids.iter().any(|id| id.starts_with("gateway@pve!portcullis-")), "{ids:?}");
    screen.press("still-here").await;
    guest.wait_for_text("still-here").await;
    // New work with the new one: the list is read, and another screen opens.
    let before = pve.came(LIST).len();
    for _ in 0..100 {
        if pve.came(LIST).len() > before + 1 {
            break;
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    sees(&ada, "100", "running").await;
    assert_eq!(pve.wrongs(), Vec::<String>::new(), "the old one was not shown after it was gone");
    let event = gateway.find_event(&["--kind", "secret"], |e| e.to_string().contains("a new secret is in use")).await;
    assert!(!event.to_string().contains("canary"), "{event}");
    let (code, out) = gateway.shell(&["secrets", "list"]);
    assert_eq!(code, Some(0), "{out}");
    assert!(out.contains("store") && out.contains("uid"), "{out}");
    // The sealed one is what a start uses; the file's counts no more.
    gateway.restart().await;
    let ada = ada.another_browser().await;
    sees(&ada, "100", "running").await;
    assert_eq!(pve.wrongs(), Vec::<String>::new());
    // A second time, from the rotated one; and a token with rights of its own keeps them.
    assert_eq!(gateway.shell(&["secrets", "rotate", "pve"]).0, Some(0));
    sees(&ada, "100", "running").await;
    let secrets = pve.secrets();
    // Back to the file: it counts again once somebody puts it back there.
    pve.add(TOKEN, false);
    assert_eq!(gateway.shell(&["secrets", "forget", "pve"]).0, Some(0));
    gateway.find_event(&["--kind", "secret"], |e| e.to_string().contains("from the configuration again")).await;
    assert_eq!(gateway.shell(&["secrets", "forget", "pve"]).0, Some(1));
    holds_none(gateway, &secrets.iter().map(String::as_str).collect::<Vec<_>>()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_rotation_that_fails_anywhere_leaves_the_old_secret_in_use() {
    let pve = FakePve::start(None).await;
    let gateway = TestGateway::start(&pve.config("pve", free_port())).await;
    let ada = Person::first_administrator(&gateway, "ada").await;
    sees(&ada, "100", "running").await;
    let ids = pve.tokens();
    for (what, word) in [(Makes::None, "Permission check failed"), (Makes::Dead, "the old one stays in use")] {
        pve.make(what);
        let (code, out) = gateway.shell(&["secrets", "rotate", "pve"]);
        assert_eq!(code, Some(2), "{what:?}: {out}");
        assert!(out.contains(word) && !out.contains("canary"), "{what:?}: {out}");
        assert_eq!(pve.tokens(), ids, "{what:?}: nothing is left there");
        let (code, out) = gateway.shell(&["secrets", "list", "--json"]);
        assert!(code == Some(0) && out.contains("\"in_use\":\"source\""), "{what:?}: {out}");
        gateway.find_event(&["--kind", "secret"], |e| e["outcome"] == "failed").await;
    }
    // One that is brought, and does not count.
    let file = gateway.dir.path().join("brought");
    secret_file(&file, "gateway@pve!brought=canary-wrong");
    let brought = file.display().to_string();
    let (code, out) = gateway.shell(&["secrets", "rotate", "pve", "--from", &brought]);
    assert!(code == Some(2) && out.contains("the old one stays in use") && !out.contains("canary"), "{out}");
    secret_file(&file, "what is this");
    let (code, out) = gateway.shell(&["secrets", "rotate", "pve", "--from", &brought]);
    assert!(code == Some(2) && out.contains("no API token of Proxmox") && !out.contains("what is this"), "{out}");
    for wrong in [["secrets", "rotate", "nothing"], ["secrets", "forget", "pve"]] {
        assert_ne!(gateway.shell(&wrong).0, Some(0));
    }
    assert_eq!(gateway.shell(&["secrets", "rotate", "pve", "--for", "console"]).0, Some(2));
    // The new one counts and the old one cannot be taken away: that is said, and the new one is in use.
    pve.make(Makes::Stuck);
    let (code, out) = gateway.shell(&["secrets", "rotate", "pve"]);
    assert!(code == Some(0) && out.contains("take it away there"), "{out}");
    pve.remove(TOKEN);
    sees(&ada, "100", "running").await;
    // What works again, and a token with rights of its own.
    pve.make(Makes::Good);
    pve.add("gateway@pve!apart=canary-apart", true);
    secret_file(&file, "gateway@pve!apart=canary-apart");
    let (code, out) = gateway.shell(&["secrets", "rotate", "pve", "--from", &brought]);
    assert_eq!(code, Some(0), "{out}");
    let (code, out) = gateway.shell(&["secrets", "rotate", "pve"]);
    assert_eq!(code, Some(0), "{out}");
    let rights = pve.came("PUT /api2/json/access/acl");
    assert!(rights.len() == 1 && String::from_utf8_lossy(&rights[0].body).contains("roles=PVEVMUser"), "{rights:?}");
    assert!(!pve.tokens().contains(&"gateway@pve!apart".to_owned()));
    std::fs::remove_file(file).expect("removed");
    holds_none(gateway, &["canary-made", "canary-apart"]).await;
    assert!(fake_pve::CANARIES.iter().all(|c| !out.contains(c)));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_password_of_a_pool_is_rotated_and_put_back_when_it_is_refused() {
    let guest = Peer::qemu("web-1", "none");
    let pool = Peer::xapi(guest.get("VNC"));
    let gateway = TestGateway::start(&format!(
        "[[hypervisors]]\nname = \"xen\"\nkind = \"xapi\"\naddress = {:?}\nusername = \"gateway\"\npassword_file = {:?}\n\
         [hypervisors.tls]\nca_file = {:?}\n",
        pool.get("ADDRESS"),
        pool.get("PASSWORD_FILE"),
        pool.get("CA_FILE"),
    ))
    .await;
    let ada = Person::first_administrator(&gateway, "ada").await;
    let is_seen = async || {
        for _ in 0..150 {
            let list: Value = ada.get("/api/v1/machines").await.json().await.expect("JSON");
            let is_up = |m: &Value| m["name"] == "web-1" && m["state"] == "running";
            if list["machines"].as_array().is_some_and(|all| all.iter().any(is_up)) {
                return;
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        panic!("web-1 is not seen");
    };
    is_seen().await;
    let dir = std::path::Path::new(pool.get("DIR")).to_owned();
    std::fs::write(dir.join("keep"), "").expect("written");
    // It is root's, everywhere: nobody is there to ask, so nothing is done.
    let (code, out) = gateway.shell(&["secrets", "rotate", "xen"]);
    assert!(code == Some(2) && out.contains("root changes on every host") && out.contains("--yes"), "{out}");
    let (code, out) = gateway.shell(&["secrets", "rotate", "xen", "--yes"]);
    assert!(code == Some(2) && out.contains("CHANGE_PASSWORD_REJECTED") && out.contains("stays in use"), "{out}");
    std::fs::remove_file(dir.join("keep")).expect("removed");
    let (code, out) = gateway.shell(&["secrets", "rotate", "xen", "--yes"]);
    assert_eq!(code, Some(0), "{out}");
    // Every session ends: only who knows the new password signs in again.
    std::fs::write(dir.join("expire"), "").expect("written");
    tokio::time::sleep(Duration::from_secs(3)).await;
    is_seen().await;
    assert_eq!(gateway.shell(&["hypervisor", "list"]).0, Some(0));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_certificate_that_a_real_lxd_trusts_is_rotated() {
    let lxd = Peer::lxd();
    let gateway = TestGateway::start(&format!(
        "[[hypervisors]]\nname = \"lxd\"\nkind = \"lxd\"\naddress = {:?}\ncert_file = {:?}\nkey_file = {:?}\n\
         tls = {{ ca_file = {:?} }}\n",
        lxd.get("ADDRESS"),
        lxd.get("CLIENT_CERT"),
        lxd.get("CLIENT_KEY"),
        lxd.get("SERVER_CERT"),
    ))
    .await;
    let ada = Person::first_administrator(&gateway, "ada").await;
    sees(&ada, "default:c1", "running").await;
    let (code, out) = gateway.shell(&["secrets", "rotate", "lxd"]);
    assert_eq!(code, Some(0), "{out}");
    assert!(out.contains("is in use") && out.contains("counts no more"), "{out}");
    gateway.restart().await;
    let ada = ada.another_browser().await;
    sees(&ada, "default:c1", "running").await;
    let (code, out) = gateway.shell(&["secrets", "rotate", "lxd"]);
    assert_eq!(code, Some(0), "{out}");
    assert_eq!(gateway.shell(&["hypervisor", "list"]).0, Some(0));
    // The old one counts no more.
    assert_eq!(gateway.shell(&["secrets", "forget", "lxd"]).0, Some(0));
    assert_eq!(gateway.shell(&["hypervisor", "list"]).0, Some(1));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_password_of_a_cloud_is_rotated() {
    let cloud = FakeOpenStack::start(None).await;
    let own = cloud.config("cloud", free_port(), "password");
    let twice = format!("{own}{}", cloud.config("twin", free_port(), "password"));
    let gateway = TestGateway::start(&twice).await;
    let was = cloud.password();
    // Where another one shows the same secret, it would be locked out.
    let (code, out) = gateway.shell(&["secrets", "rotate", "cloud"]);
    assert!(code == Some(2) && out.contains("twin/default") && cloud.password() == was, "{out}");
    let gateway = TestGateway::start_in(gateway.stop().await, &own).await;
    let ada = Person::first_administrator(&gateway, "ada").await;
    sees(&ada, WEB, "running").await;
    let (code, out) = gateway.shell(&["secrets", "rotate", "cloud"]);
    assert_eq!(code, Some(0), "{out}");
    let now = cloud.password();
    assert_ne!(now, was);
    // Every token is gone with the old password: only who knows the new one lists servers.
    let list = "GET /v2.1/servers/detail";
    let before = cloud.came(list).len();
    for _ in 0..150 {
        if cloud.came(list).len() > before + 2 {
            break;
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    assert_eq!(gateway.shell(&["hypervisor", "list"]).0, Some(0));
    sees(&ada, WEB, "running").await;
    holds_none(gateway, &[&now, &was]).await;
    assert!(fake_openstack::CANARIES.iter().all(|c| !out.contains(c)), "{out}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn power_of_a_cloud_is_done_with_the_credential_for_power_and_nothing_else_is() {
    let cloud = FakeOpenStack::start(None).await;
    cloud.add_application("acpower", "canary-power-only");
    let dir = tempfile::tempdir().expect("a folder");
    let file = dir.path().join("power");
    secret_file(&file, "canary-power-only");
    let more = format!(
        "[[hypervisors.credentials]]\nfor = [\"power\"]\napplication_credential = \"acpower\"\nsecret_file = {file:?}\n"
    );
    let port = free_port();
    let gateway = TestGateway::start(&cloud.config_with("cloud", port, "password", &more)).await;
    let ada = Person::first_administrator(&gateway, "ada").await;
    sees(&ada, WEB, "running").await;
    // By the page, and by a client of the API.
    let power = async |verb: &str| {
        let answer = ada.submit(&format!("/machines/cloud/{WEB}/power"), &[("verb", verb), ("next", "/")]).await;
        answer.status()
    };
    assert!(power("pause").await.is_redirection());
    sees(&ada, WEB, "paused").await;
    let token = ada.token("").await;
    let client = reqwest::Client::builder().tls_certs_only([gateway.ca()]).build().expect("a client");
    let auth = serde_json::json!({ "auth": { "identity": { "methods": ["application_credential"],
        "application_credential": { "id": "x", "secret": token } } } });
    let signed =
        client.post(format!("https://localhost:{port}/v3/auth/tokens")).json(&auth).send().await.expect("told");
    assert_eq!(signed.status(), StatusCode::CREATED);
    let pass = signed.headers()["x-subject-token"].to_str().expect("text").to_owned();
    let call = async |method: reqwest::Method, path: &str, body: &str| {
        let request = client.request(method, format!("https://localhost:{port}/v2.1{path}"));
        let request = request.header("x-auth-token", &pass).header(header::CONTENT_TYPE, "application/json");
        request.body(body.to_owned()).send().await.expect("an answer").status()
    };
    let action = format!("/servers/{WEB}/action");
    assert!(call(reqwest::Method::POST, &action, r#"{"unpause": null}"#).await.is_success());
    sees(&ada, WEB, "running").await;
    assert!(call(reqwest::Method::GET, "/servers/detail", "").await.is_success());
    let rename = r#"{"server": {"name": "web-1"}}"#;
    assert!(call(reqwest::Method::PUT, &format!("/servers/{WEB}"), rename).await.is_success());
    let actions = format!("POST /v2.1{action}");
    assert_eq!(cloud.came(&actions).len(), 2);
    assert_eq!(cloud.came_as(&actions), ["acpower"]);
    assert_eq!(cloud.came_as("GET /v2.1/servers/detail"), ["password"]);
    assert_eq!(cloud.came_as(&format!("PUT /v2.1/servers/{WEB}")), ["password"]);
    assert_eq!(cloud.came_as("GET /v3/projects"), ["password"]);

    // When it counts no more, nothing is done in its place, and everything else goes on.
    cloud.remove_application("acpower");
    assert!(!power("pause").await.is_success());
    assert!(!call(reqwest::Method::POST, &action, r#"{"pause": null}"#).await.is_success());
    assert!(cloud.came_as(&actions).iter().all(|holder| holder != "password"), "{:?}", cloud.came_as(&actions));
    sees(&ada, WEB, "running").await;
    assert!(call(reqwest::Method::GET, "/servers/detail", "").await.is_success());
    let (code, out) = gateway.shell(&["doctor", "--json"]);
    let line = out.lines().find(|l| l.contains("cloud: credential power")).expect("a line");
    assert!(code == Some(1) && line.contains("\"wrong\""), "{line}");
    holds_none(gateway, &["canary-power-only", "canary-0f3a7781-password"]).await;
}
