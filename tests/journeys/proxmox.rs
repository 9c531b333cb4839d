// SPDX-License-Identifier: Apache-2.0
//! Proxmox VE through the gateway: an unchanged proxmoxer with a token of ours, lists that show one's own machines only,
//! power from the pages, a screen whose ticket stays here, and no credential anywhere.

use crate::support::{
    FakePve, Person, TestGateway,
    fake_pve::{CANARIES, TOKEN},
    gateway::{files, free_port, letters},
    lab::ticket_for,
    page,
    peers::Peer,
    screen::{Screen, refused},
};
use reqwest::{Client, Method, StatusCode, header};
use serde_json::{Value, json};
use std::{collections::BTreeMap, time::Duration};

async fn sees(person: &Person<'_>, id: &str, state: &str) {
    for _ in 0..120 {
        let list: Value = person.get("/api/v1/machines").await.json().await.expect("JSON");
        if list["machines"].as_array().is_some_and(|all| all.iter().any(|m| m["id"] == id && m["state"] == state)) {
            return;
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    panic!("{} does not see that {id} is {state}", person.name);
}

/// What a step of the client came to, by the step's name.
fn steps(said: &str) -> BTreeMap<String, Value> {
    let lines = said.lines().map(|l| serde_json::from_str::<Value>(l).expect("JSON"));
    lines.map(|l| (l["step"].as_str().expect("a step").to_owned(), l["value"].clone())).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_unchanged_proxmoxer_does_what_its_owner_may_and_sees_nothing_else() {
    let pve = Peer::proxmox();
    let port = free_port();
    let gateway = TestGateway::start(&format!(
        "[[hypervisors]]\nname = \"pve\"\nkind = \"proxmox\"\naddress = {:?}\ntoken_file = {:?}\n\
         [hypervisors.tls]\nca_file = {:?}\n[hypervisors.api]\nport = {port}\n",
        pve.get("ADDRESS"),
        pve.get("TOKEN_FILE"),
        pve.get("CA_FILE"),
    ))
    .await;
    let ada = Person::first_administrator(&gateway, "ada").await;
    let bob = ada.invite("bob").await;
    ada.grant("bob", "operator", "pool", "pve/blue").await;
    sees(&bob, "100", "running").await;
    sees(&bob, "101", "running").await;
    let token = bob.token("pve").await;
    let ca = gateway.dir.path().join("tls/ca.pem").display().to_string();
    let mut log = String::new();
    for way in ["token", "ticket"] {
        let said = pve.client(&[&format!("localhost:{port}"), &ca, "bob@portcullis", &token, way]);
        assert!(!said.contains(pve.get("TOKEN")), "the credential came out: {said}");
        let mut step = steps(&said);
        let mut take = |name: &str| step.remove(name).unwrap_or_else(|| panic!("no step {name}: {said}"));
        assert_ne!(take("wrong"), "taken");
        assert!(take("version").is_string(), "{said}");
        assert_eq!(take("nodes"), json!(["pve1"]));
        assert_eq!(take("resources"), json!([100, 101]), "of the other tenant nothing is listed");
        assert_eq!(take("qemu"), json!([100]));
        assert_eq!(take("pools"), json!(["blue"]));
        assert_eq!(take("config"), "web-1");
        let absent = take("absent");
        assert_eq!(absent["status"], 404, "{said}");
        for hidden in ["foreign", "foreign power", "bulk"] {
            assert_eq!(take(hidden), absent, "{hidden} is answered like what does not exist");
        }
        let screen = take("screen");
        assert_eq!(screen["status"], 403);
        assert!(screen.to_string().contains("portal"), "it says where a screen opens: {screen}");
        assert_eq!(take("stop"), json!([["qmstop", "100"], "qmstop"]), "with the task's state");
        assert_eq!(take("start"), json!([["qmstart", "100"], "qmstart"]));
        assert_eq!(take("settings")["status"], 403, "an operator changes no settings");
        assert_eq!(take("all")["status"], 403);
        assert!(step.is_empty(), "{step:?}");
        log = std::fs::read_to_string(pve.get("LOG")).expect("the log");
    }
    for never in ["/qemu/200/", "/qemu/999/", "vncproxy", "startall", "stopall", "PUT", &token, "access/ticket"] {
        assert!(!log.contains(never), "{never} came through:\n{log}");
    }

    // From the pages: the same machine, and the container.
    for (at, verb, state) in [("pve/101", "stop", "off"), ("pve/101", "start", "running"), ("pve/100", "stop", "off")] {
        let answer = bob.submit(&format!("/machines/{at}/power"), &[("verb", verb), ("next", "/")]).await;
        assert_eq!(answer.status(), StatusCode::SEE_OTHER, "{at} {verb}");
        sees(&bob, &at[4..], state).await;
    }
    let answer = bob.submit("/machines/pve/200/power", &[("verb", "stop"), ("next", "/")]).await;
    assert_eq!(answer.status(), StatusCode::NOT_FOUND);
    let by_bob = |e: &Value| e["what"] == "power" && e["on"] == "pve/100" && e["outcome"] == "done";
    gateway.find_event(&["--kind", "api", "--user", "bob"], by_bob).await;
    gateway.stop().await;
}

struct Tool<'a> {
    client: Client,
    port: u16,
    name: &'a str,
    token: String,
}

impl<'a> Tool<'a> {
    fn new(gateway: &TestGateway, port: u16, name: &'a str, token: String) -> Self {
        let client = Client::builder().tls_certs_only([gateway.ca()]).build().expect("a client");
        Self { client, port, name, token }
    }

    fn bare(&self, method: Method, path: &str) -> reqwest::RequestBuilder {
        self.client.request(method, format!("https://localhost:{}/api2/json{path}", self.port))
    }

    fn request(&self, method: Method, path: &str) -> reqwest::RequestBuilder {
        let shown = format!("PVEAPIToken={}@portcullis!tool={}", self.name, self.token);
        self.bare(method, path).header(header::AUTHORIZATION, shown)
    }

    async fn call(&self, method: Method, path: &str, form: &str) -> (StatusCode, Value) {
        let mut request = self.request(method, path);
        if !form.is_empty() {
            request = request.header(header::CONTENT_TYPE, "application/x-www-form-urlencoded").body(form.to_owned());
        }
        told(request).await
    }
}

async fn told(request: reqwest::RequestBuilder) -> (StatusCode, Value) {
    let answer = request.send().await.expect("an answer");
    assert!(!answer.headers().contains_key(header::SET_COOKIE), "a cookie of the hypervisor's own came out");
    let status = answer.status();
    (status, answer.json().await.expect("JSON"))
}

/// Time has jumped: a node that has not heard from its store for so long takes nobody's word for a moment.
async fn counts_again(request: impl Fn() -> reqwest::RequestBuilder) {
    for _ in 0..50 {
        if told(request()).await.0 == StatusCode::OK {
            return;
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    panic!("it does not count any more");
}

struct Lab {
    guest: Peer,
    pve: FakePve,
    port: u16,
    gateway: TestGateway,
}

async fn lab() -> Lab {
    let guest = Peer::qemu("web-1", "password");
    let pve = FakePve::start(Some(&guest)).await;
    let port = free_port();
    let gateway = TestGateway::start(&pve.config("pve", port)).await;
    Lab { guest, pve, port, gateway }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_screen_opens_in_the_portal_and_its_ticket_stays_here() {
    let Lab { guest, pve, gateway, .. } = lab().await;
    let ada = Person::first_administrator(&gateway, "ada").await;
    sees(&ada, "100", "running").await;
    let mut screen = Screen::open(&ada, "pve/100", "control", &ticket_for(&ada, "pve/100", "control").await).await;
    screen.handshake().await;
    assert!(screen.picture().await > 10_000, "the first picture arrives");
    screen.press("typed-by-hand").await;
    guest.wait_for_text("typed-by-hand").await;
    assert_eq!(ada.submit("/sign-out", &[]).await.status(), StatusCode::SEE_OTHER);
    assert_eq!(screen.ended(Duration::from_secs(5)).await.0, 4000);

    // A machine that is off, and a screen that is gone when it is fetched, say so and show nothing of the ticket.
    let ada = ada.another_browser().await;
    let mut off = Screen::open(&ada, "pve/200", "view", &ticket_for(&ada, "pve/200", "view").await).await;
    let (_, why) = off.ended(Duration::from_secs(10)).await;
    assert!(why.contains("switched off"), "{why}");
    pve.close_screens_early();
    let mut late = Screen::open(&ada, "pve/100", "view", &ticket_for(&ada, "pve/100", "view").await).await;
    let (_, why) = late.ended(Duration::from_secs(10)).await;
    assert!(why.contains("401") && !why.contains("canary"), "{why}");
    let bob = ada.invite("bob").await;
    assert_eq!(refused(&bob, "pve/100", "view", "pck_nothing").await, StatusCode::NOT_FOUND);
    assert_eq!(pve.wrongs(), ["invalid PVEVNC ticket"]);

    let events = gateway.search(&["--limit", "1000"]);
    let shown = serde_json::to_string(&events).expect("JSON");
    let password = std::fs::read_to_string(guest.get("PASSWORD_FILE")).expect("a password");
    for secret in CANARIES.into_iter().chain([password.trim()]) {
        assert!(!shown.contains(secret), "{secret} is in the trail");
    }
    // Nor in anything that the gateway keeps.
    let dir = gateway.stop().await;
    let mut kept = Vec::new();
    files(dir.path(), &mut kept);
    for (place, bytes) in kept {
        let bytes = letters(&bytes);
        for secret in CANARIES.into_iter().chain([password.trim()]) {
            assert!(!bytes.contains(secret), "{secret} is in {place}");
        }
    }
}

// SEC-050, SEC-055, SEC-060
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_credential_is_lent_and_nothing_of_the_client_goes_along() {
    let Lab { guest: _guest, pve, port, gateway } = lab().await;
    let ada = Person::first_administrator(&gateway, "ada").await;
    sees(&ada, "100", "running").await;
    let tool = Tool::new(&gateway, port, "ada", ada.token("pve").await);

    let start = "/nodes/pve1/qemu/100/status/start";
    let request = tool.request(Method::POST, start).header(header::COOKIE, "PVEAuthCookie=PVE:root@pam:x");
    let request = request.header("CSRFPreventionToken", "x").header("PVEClientIP", "10.0.0.1");
    assert_eq!(told(request).await.0, StatusCode::OK);
    let came = pve.came("POST /api2/json/nodes/pve1/qemu/100/status/start").pop().expect("it came");
    assert_eq!(came.headers[header::AUTHORIZATION], format!("PVEAPIToken={TOKEN}"));
    for name in ["cookie", "csrfpreventiontoken", "pveclientip"] {
        assert!(!came.headers.contains_key(name), "{name}");
    }
    // A body arrives as it was decided on.
    let settings = "description=a%0Ab&cores=2";
    assert_eq!(tool.call(Method::PUT, "/nodes/pve1/qemu/100/config", settings).await.0, StatusCode::OK);
    let came = pve.came("PUT /api2/json/nodes/pve1/qemu/100/config").pop().expect("it came");
    assert_eq!(came.body, settings.as_bytes());

    // What the hypervisor's answers hold of secrets is taken out.
    let (status, config) = tool.call(Method::GET, "/nodes/pve1/qemu/100/config", "").await;
    assert_eq!((status, &config["data"]["name"]), (StatusCode::OK, &json!("web-1")));
    let (_, storage) = tool.call(Method::GET, "/storage/backup", "").await;
    assert_eq!(storage["data"], json!({"storage": "backup"}));
    for canary in CANARIES {
        assert!(!config.to_string().contains(canary), "{canary}");
    }

    // A file goes up as a stream, with its length.
    let upload =
        |request: reqwest::RequestBuilder| request.header(header::CONTENT_TYPE, "multipart/form-data; boundary=x");
    let file = vec![7; 3 << 20];
    let request = upload(tool.request(Method::POST, "/nodes/pve1/storage/local/upload")).body(file.clone());
    assert_eq!(told(request).await.0, StatusCode::OK);
    assert_eq!(pve.came("POST /api2/json/nodes/pve1/storage/local/upload")[0].body.len(), file.len());
    let parts = futures_util::stream::iter([Ok::<_, std::io::Error>(vec![7; 1024])]);
    let request = upload(tool.request(Method::POST, "/nodes/pve1/storage/local/upload"));
    let (status, why) = told(request.body(reqwest::Body::wrap_stream(parts))).await;
    assert_eq!(status, StatusCode::BAD_REQUEST);
    assert!(why["message"].as_str().is_some_and(|m| m.contains("Content-Length")), "{why}");
    // A volume's name may be written in either way, and arrives as it was decided on.
    for volume in ["local:iso/x.iso", "local:iso%2Fx.iso"] {
        let path = format!("/nodes/pve1/storage/local/content/{volume}");
        assert_eq!(tool.call(Method::DELETE, &path, "").await.0, StatusCode::OK, "{volume}");
    }
    assert_eq!(pve.came("DELETE /api2/json/nodes/pve1/storage/local/content/local:iso/x.iso").len(), 2);
    // Parameters in chunks are read here, and sent on whole.
    let parts = futures_util::stream::iter([Ok::<_, std::io::Error>("timeout="), Ok("5")]);
    let request = tool.request(Method::POST, "/nodes/pve1/qemu/100/status/stop");
    let request = request.header(header::CONTENT_TYPE, "application/x-www-form-urlencoded");
    assert_eq!(told(request.body(reqwest::Body::wrap_stream(parts))).await.0, StatusCode::OK);
    assert_eq!(pve.came("POST /api2/json/nodes/pve1/qemu/100/status/stop")[0].body, b"timeout=5");
    // What cannot be read is not passed on, and stands in the trail.
    for (media_type, body) in [
        ("application/yaml", "timeout: 5"),
        ("application/json", r#"{"timeout":1,"timeout":2}"#),
        ("application/x-www-form-urlencoded", "timeout=1&timeout=2"),
        ("application/x-www-form-urlencoded; charset=utf-16", "timeout=1"),
    ] {
        let request = tool.request(Method::POST, "/nodes/pve1/qemu/100/status/reset");
        let (status, _) = told(request.header(header::CONTENT_TYPE, media_type).body(body)).await;
        assert_eq!(status, StatusCode::FORBIDDEN, "{media_type} {body}");
    }
    let request = tool.request(Method::POST, "/nodes/pve1/qemu/100/status/reset").body(vec![b'x'; 65 * 1024]);
    assert_eq!(told(request).await.0, StatusCode::PAYLOAD_TOO_LARGE);
    assert!(pve.came("POST /api2/json/nodes/pve1/qemu/100/status/reset").is_empty());
    assert_eq!(pve.wrongs(), [""; 0]);
    gateway.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_parameters_reach_is_decided_like_what_the_path_names() {
    let Lab { guest: _guest, pve, port, gateway } = lab().await;
    let ada = Person::first_administrator(&gateway, "ada").await;
    sees(&ada, "100", "running").await;
    let bob = ada.invite("bob").await;
    // Everything on one machine, nothing on the other.
    ada.grant("bob", "administrator", "machine", "pve/100").await;
    let tool = Tool::new(&gateway, port, "bob", bob.token("pve").await);
    let config = "/nodes/pve1/qemu/100/config";
    for (method, path, form, status) in [
        (Method::PUT, config, "cores=2", 200),
        (Method::PUT, config, "net0=virtio,bridge=vmbr0", 200),
        (Method::PUT, config, "scsi1=local-lvm:8", 200),
        // Another one's disk, as a disk, to copy from, or to move one to.
        (Method::PUT, config, "scsi1=local-lvm:vm-200-disk-0", 404),
        (Method::PUT, config, "scsi1=local-lvm:vm-999-disk-0", 404),
        (Method::PUT, config, "scsi1=local-lvm:0,import-from=local-lvm:vm-200-disk-0", 404),
        (Method::POST, "/nodes/pve1/qemu/100/move_disk", "disk=scsi1&target-vmid=200", 404),
        // The host, and the tags that access is given on.
        (Method::PUT, config, "args=-S", 403),
        (Method::PUT, config, "tags=production", 403),
        (Method::PUT, config, "scsi1=/dev/sda", 403),
        // Several at once: all of them or none.
        (Method::POST, "/nodes/pve1/stopall", "vms=100", 200),
        (Method::POST, "/nodes/pve1/stopall", "vms=100,200", 404),
        (Method::POST, "/nodes/pve1/stopall", "vms=100,999", 404),
        (Method::POST, "/nodes/pve1/stopall", "", 403),
        (Method::POST, "/nodes/pve1/vzdump", "all=1", 403),
        // Of another one: like one that does not exist.
        (Method::DELETE, "/nodes/pve1/qemu/200", "", 404),
        (Method::DELETE, "/nodes/pve1/qemu/999", "", 404),
        (Method::GET, "/nodes/pve1/tasks/UPID:pve1:0000F0F0:00AABBCC:65000000:qmstart:200:u@pam:/log", "", 404),
        (Method::GET, "/nodes/pve1/tasks/UPID:pve1:0000F0F0:00AABBCC:65000000:qmstart:100:u@pam:/log", "", 200),
        (Method::POST, "/nodes/pve1/qemu/100/clone", "newid=300", 403),
        (Method::POST, "/pools", "poolid=x", 403),
        (Method::POST, "/access/users", "userid=eve@pve", 403),
    ] {
        let (found, body) = tool.call(method.clone(), path, form).await;
        assert_eq!(found.as_u16(), status, "{method} {path} {form}: {body}");
    }
    // Whoever only takes snapshots goes back to one that brings nothing back, and hears why to no other.
    let carl = ada.invite("carl").await;
    ada.grant("carl", "operator", "machine", "pve/100").await;
    let careful = Tool::new(&gateway, port, "carl", carl.token("pve").await);
    for (snapshot, status) in [("same", 200), ("tagged", 403), ("with-card", 403)] {
        let path = format!("/nodes/pve1/qemu/100/snapshot/{snapshot}/rollback");
        let (found, body) = careful.call(Method::POST, &path, "").await;
        assert_eq!(found.as_u16(), status, "{path}: {body}");
        assert_eq!(body.to_string().contains("brings back settings"), status == 403, "{body}");
        // Who may change everything of one machine gives it no tags and no card of the host.
        assert_eq!(tool.call(Method::POST, &path, "").await.0.as_u16(), status, "{path}");
    }
    assert_eq!(pve.came("POST /api2/json/nodes/pve1/qemu/100/snapshot").len(), 2);
    for came in pve.came("") {
        let said = format!("{} {}", came.line, String::from_utf8_lossy(&came.body));
        assert!(!said.contains("200-disk") && !said.contains("vmid=200") && !said.contains("/qemu/200"), "{said}");
    }
    let (_, foreign) = tool.call(Method::GET, "/nodes/pve1/qemu/200/config", "").await;
    let (_, absent) = tool.call(Method::GET, "/nodes/pve1/qemu/999/config", "").await;
    assert_eq!(foreign.to_string(), absent.to_string());
    // What was asked beside the path stands in the event.
    let words = "network on pve/100";
    let mut also = 0;
    for _ in 0..50 {
        also = 0;
        for event in gateway.search(&["--kind", "api", "--user", "bob", "--limit", "100"]) {
            if event["what"] == "configure" {
                let at = format!("/trail/{}/{}", event["node"].as_str().expect("a node"), event["seq"]);
                also += usize::from(ada.page(&at).await.contains(words));
            }
        }
        if also == 2 {
            break;
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    assert_eq!(also, 2, "when it was opened, and when it was closed");
    gateway.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_task_is_followed_by_who_began_it_when_its_machine_is_not_there_yet_or_any_more() {
    let Lab { guest: _guest, port, gateway, .. } = lab().await;
    let ada = Person::first_administrator(&gateway, "ada").await;
    sees(&ada, "200", "off").await;
    let (bob, carol) = (ada.invite("bob").await, ada.invite("carol").await);
    ada.grant("bob", "administrator", "machine", "pve/200").await;
    ada.grant("bob", "viewer", "machine", "pve/100").await;
    ada.grant("carol", "administrator", "machine", "pve/100").await;
    let of_ada = Tool::new(&gateway, port, "ada", ada.token("pve").await);
    let of_bob = Tool::new(&gateway, port, "bob", bob.token("pve").await);
    let of_carol = Tool::new(&gateway, port, "carol", carol.token("pve").await);
    let begin = async |tool: &Tool<'_>, method: Method, path: &str, form: &str| {
        let (status, answer) = tool.call(method, path, form).await;
        assert_eq!(status, StatusCode::OK, "{answer}");
        format!("/nodes/pve1/tasks/{}/status", answer["data"].as_str().expect("a task"))
    };
    let created = begin(&of_ada, Method::POST, "/nodes/pve1/qemu", "vmid=300&memory=512").await;
    assert_eq!(of_ada.call(Method::GET, &created, "").await.0, StatusCode::OK, "it is not in the list yet");
    assert_eq!(of_carol.call(Method::GET, &created, "").await.0, StatusCode::NOT_FOUND);
    let destroyed = begin(&of_bob, Method::DELETE, "/nodes/pve1/qemu/200", "").await;
    for _ in 0..100 {
        if of_bob.call(Method::GET, "/nodes/pve1/qemu/200/config", "").await.0 == StatusCode::NOT_FOUND {
            break;
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    assert_eq!(of_bob.call(Method::GET, &destroyed, "").await.0, StatusCode::OK, "it is in no list any more");
    assert_eq!(of_bob.call(Method::DELETE, destroyed.trim_end_matches("/status"), "").await.0, StatusCode::NOT_FOUND);
    assert_eq!(of_carol.call(Method::GET, &destroyed, "").await.0, StatusCode::NOT_FOUND);
    gateway.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_ticket_stands_for_its_token_for_two_hours_and_changes_nothing_without_its_guard() {
    let pve = FakePve::start(None).await;
    let (port, other) = (free_port(), free_port());
    let gateway = TestGateway::start(&format!("{}{}", pve.config("pve", port), pve.config("twin", other))).await;
    let ada = Person::first_administrator(&gateway, "ada").await;
    sees(&ada, "100", "running").await;
    let token = ada.token("").await;
    let tool = Tool::new(&gateway, port, "ada", token.clone());
    let sign_in = async |name: &str, password: &str| {
        let fields = serde_json::json!({ "username": name, "password": password });
        told(tool.bare(Method::POST, "/access/ticket").json(&fields)).await
    };
    for (name, password) in
        [("ada@portcullis", "wrong"), ("bob@portcullis", token.as_str()), ("", ""), ("root@pam", "x")]
    {
        assert_eq!(sign_in(name, password).await.0, StatusCode::UNAUTHORIZED, "{name}");
    }
    let (status, signed_in) = sign_in("ada@portcullis", &token).await;
    assert_eq!(status, StatusCode::OK, "{signed_in}");
    let text = |key: &str| signed_in["data"][key].as_str().expect("a text").to_owned();
    let (ticket, guard) = (text("ticket"), text("CSRFPreventionToken"));
    assert!(!ticket.contains(&token), "a ticket holds no token");
    let cookie = format!("PVEAuthCookie={ticket}");
    let read = || tool.bare(Method::GET, "/nodes/pve1/qemu/100/config").header(header::COOKIE, &cookie);
    let change = || tool.bare(Method::POST, "/nodes/pve1/qemu/100/status/start").header(header::COOKIE, &cookie);
    assert_eq!(told(read()).await.0, StatusCode::OK);
    assert_eq!(told(change()).await.0, StatusCode::UNAUTHORIZED, "a change needs its guard");
    assert_eq!(told(change().header("CSRFPreventionToken", &ticket)).await.0, StatusCode::UNAUTHORIZED);
    assert_eq!(told(change().header("CSRFPreventionToken", &guard)).await.0, StatusCode::OK);
    // A page of somebody else cannot ride on it, and no letter of it may differ.
    assert_eq!(told(read().header(header::ORIGIN, "https://evil.example")).await.0, StatusCode::UNAUTHORIZED);
    for wrong in [ticket.replace("PVE:ada", "PVE:bob"), format!("{ticket}x"), ticket.replacen(':', ":0", 2)] {
        let request = tool.bare(Method::GET, "/version").header(header::COOKIE, format!("PVEAuthCookie={wrong}"));
        assert_eq!(told(request).await.0, StatusCode::UNAUTHORIZED, "{wrong}");
    }
    // It is for one hypervisor, and goes with its token.
    let twin = Tool::new(&gateway, other, "ada", token.clone());
    assert_eq!(twin.call(Method::GET, "/version", "").await.0, StatusCode::OK, "the token is for both");
    let request = twin.bare(Method::GET, "/version").header(header::COOKIE, &cookie);
    assert_eq!(told(request).await.0, StatusCode::UNAUTHORIZED);
    let bob = ada.invite("bob").await;
    ada.grant("bob", "viewer", "machine", "pve/100").await;
    let (status, of_bob) = sign_in("bob@portcullis", &bob.token("pve").await).await;
    assert_eq!(status, StatusCode::OK, "{of_bob}");
    let of_bob = format!("PVEAuthCookie={}", of_bob["data"]["ticket"].as_str().expect("a ticket"));
    let as_bob = || tool.bare(Method::GET, "/version").header(header::COOKIE, &of_bob);
    assert_eq!(told(as_bob()).await.0, StatusCode::OK);
    let html = bob.page("/me").await;
    let at = html.find("action=\"/me/tokens/revoke\"").expect("it is listed");
    let id = page::field(&html[at..], "id").expect("an id");
    assert_eq!(bob.submit("/me/tokens/revoke", &[("id", &id)]).await.status(), StatusCode::SEE_OTHER);
    assert_eq!(told(as_bob()).await.0, StatusCode::UNAUTHORIZED);
    // It is renewed by itself, and ends after two hours.
    gateway.clock.advance(time::Duration::minutes(119));
    counts_again(read).await;
    let (status, again) = sign_in("ada@portcullis", &ticket).await;
    assert_eq!(status, StatusCode::OK, "{again}");
    gateway.clock.advance(time::Duration::minutes(2));
    let cookie = format!("PVEAuthCookie={}", again["data"]["ticket"].as_str().expect("a ticket"));
    counts_again(|| tool.bare(Method::GET, "/version").header(header::COOKIE, &cookie)).await;
    assert_eq!(told(read()).await.0, StatusCode::UNAUTHORIZED, "it is over");
    assert_eq!(sign_in("ada@portcullis", &ticket).await.0, StatusCode::UNAUTHORIZED);
    assert!(pve.came("POST /api2/json/access").is_empty(), "the gateway signs people in by itself");
    gateway.stop().await;
}
