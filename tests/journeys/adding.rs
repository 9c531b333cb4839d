// SPDX-License-Identifier: Apache-2.0
//! Hypervisors that are added while gateways run: by pages, by a script, by a shell; seen by every node; and removed, with
//! everything that was open of them.

use super::scripts::as_described;
use crate::support::{
    FakePve, Person, TestGateway,
    fake::{Answer, listen_tls, secret_file},
    fake_pve::{CANARIES, TOKEN},
    gateway::{files, free_port, letters, sql},
    lab::ticket_for,
    page,
    peers::{self, Peer},
    person::location,
    screen::{Screen, refused},
};
use http::{Request, Response, StatusCode, header};
use http_body_util::Full;
use hyper::body::Incoming;
use portcullis_domain::Clock as _;
use serde_json::{Value, json};
use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

/// Peers of tests are on this machine.
const LOCAL: &str = "[limits]\nsign_in_per_minute = 600\n[adding]\nloopback = true\nper_minute = 100\n";

/// The field of a page's form.
fn field(html: &str, name: &str) -> String {
    page::field(html, name).unwrap_or_else(|| panic!("no {name}: {html}"))
}

/// A script of a signed-in browser.
async fn send(person: &Person<'_>, path: &str, body: &Value) -> (StatusCode, Value) {
    let csrf = page::csrf(&person.page("/me").await).expect("a token");
    let request = person.browser.post(format!("{}{path}", person.gateway.url()));
    let request = request.header(header::ORIGIN, person.gateway.url()).header("sec-fetch-site", "same-origin");
    let answer = request.header("x-csrf-token", csrf).json(body).send().await.expect("an answer");
    let status = StatusCode::from_u16(answer.status().as_u16()).expect("a status");
    (status, answer.json().await.expect("JSON"))
}

/// What a script says of one.
async fn told(person: &Person<'_>, name: &str) -> Option<Value> {
    let answer = person.get(&format!("/api/v1/hypervisors/{name}")).await;
    if answer.status().as_u16() == 200 { Some(answer.json().await.expect("JSON")) } else { None }
}

/// Waits until it answers, or is gone.
async fn until(person: &Person<'_>, name: &str, is: impl Fn(Option<&Value>) -> bool) -> Duration {
    let began = Instant::now();
    loop {
        let now = told(person, name).await;
        if is(now.as_ref()) {
            return began.elapsed();
        }
        assert!(began.elapsed() < Duration::from_secs(15), "{name}: {now:?}");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

fn answers(now: Option<&Value>) -> bool {
    now.is_some_and(|n| n["state"] == "answers")
}

/// Adds one by a script, with whatever certificate it shows.
async fn add(person: &Person<'_>, name: &str, address: &str) {
    let mut wish = json!({ "kind": "proxmox", "name": name, "address": address, "api": true, "api_host": format!("{name}.test.example") });
    let document: Value = person.get("/api/v1/openapi.json").await.json().await.expect("JSON");
    let (status, met) = send(person, "/api/v1/new-hypervisor", &wish).await;
    assert_eq!(status, StatusCode::OK, "{met}");
    as_described(&document, "post", "/api/v1/new-hypervisor", &met);
    wish["sha256"] = met["sha256"].clone();
    wish["secret"] = TOKEN.into();
    let (status, done) = send(person, "/api/v1/hypervisors", &wish).await;
    assert_eq!(status, StatusCode::OK, "{done}");
    as_described(&document, "post", "/api/v1/hypervisors", &done);
    until(person, name, answers).await;
    let now = told(person, name).await.expect("it is there");
    as_described(&document, "get", "/api/v1/hypervisors/{name}", &now);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_is_added_by_pages_after_its_certificate_was_agreed_to_and_its_credential_tried() {
    let pve = FakePve::start(None).await;
    let gateway = TestGateway::start(LOCAL).await;
    let ada = Person::first_administrator(&gateway, "ada").await;
    assert!(ada.page("/hypervisors").await.contains("href=\"/new-hypervisor\""));
    let kinds = ada.page("/new-hypervisor").await;
    for kind in ["proxmox", "lxd", "incus", "xapi", "vsphere", "openstack", "ovirt", "kubevirt", "libvirt"] {
        assert!(kinds.contains(&format!("/new-hypervisor?kind={kind}\"")), "{kind}");
        assert!(ada.page(&format!("/new-hypervisor?kind={kind}")).await.contains("See who answers there"), "{kind}");
    }
    for kind in ["qemu", "firecracker", "cloud-hypervisor"] {
        let said = ada.get(&format!("/new-hypervisor?kind={kind}")).await.text().await.expect("a page");
        assert!(said.contains("write its section in the configuration file"), "{kind}");
    }
    // Who answers: nothing is said, and nothing kept.
    let address = pve.address();
    let place = [("kind", "proxmox"), ("name", "pve"), ("address", address.as_str())];
    let met = ada.submit("/new-hypervisor", &place).await;
    assert_eq!(met.status().as_u16(), 200);
    let html = met.text().await.expect("a page");
    let sha = field(&html, "sha256");
    assert!(sha.len() == 64 && html.contains("Signed by") && html.contains("localhost"), "{html}");
    let grouped: Vec<&str> = sha.as_bytes().chunks(4).map(|c| std::str::from_utf8(c).expect("hex")).collect();
    assert!(html.contains(&grouped.join(" ")));
    assert_eq!(pve.came("").len(), 0, "nothing was said to it");
    // Nobody agreed; or to another certificate; or the credential does not count: it is not there afterwards.
    let other = "ab".repeat(32);
    let tries: [(&[(&str, &str)], &str); 4] = [
        (&[("sha256", &sha), ("secret", TOKEN)], "Compare the certificate"),
        (
            &[("sha256", &other), ("agree", "on"), ("secret", TOKEN)],
            "another certificate than the one that was agreed to",
        ),
        (&[("sha256", &sha), ("agree", "on"), ("secret", "")], "This is needed"),
        (
            &[("sha256", &sha), ("agree", "on"), ("secret", "gateway@pve!portcullis=wrong-canary-secret")],
            "did not accept",
        ),
    ];
    for (more, words) in tries {
        let before = pve.came("").len();
        let answer = ada.submit("/hypervisors", &[&place, more].concat()).await;
        assert_eq!(answer.status().as_u16(), 422, "{words}");
        let html = answer.text().await.expect("a page");
        assert!(html.contains(words), "{words}: {html}");
        assert!(!html.contains(TOKEN) && !html.contains("wrong-canary"), "a secret comes back: {html}");
        assert!(words == "did not accept" || pve.came("").len() == before, "{words}: the credential was shown");
        assert!(told(&ada, "pve").await.is_none(), "{words}");
    }
    let done = [("sha256", sha.as_str()), ("agree", "on"), ("secret", TOKEN)];
    let answer = ada.submit("/hypervisors", &[&place[..], &done].concat()).await;
    assert_eq!(location(&answer), "/hypervisors/pve", "{}", answer.text().await.unwrap_or_default());
    let took = until(&ada, "pve", answers).await;
    assert!(took < Duration::from_secs(6), "{took:?}");
    let html = ada.page("/hypervisors/pve").await;
    for word in [
        "Proxmox VE",
        "needs attention",
        "by <bdi>ada</bdi>",
        "Permissions.Modify",
        "web-1",
        &grouped.join(" "),
        "Remove",
    ] {
        assert!(html.contains(word), "{word}: {html}");
    }
    assert!(ada.page("/").await.contains("web-1"), "its machines are there");
    // A second one of that name, and what is no name.
    for (name, status) in [("pve", 422), ("P!", 422), ("", 422)] {
        let answer = ada.submit("/new-hypervisor", &[("kind", "proxmox"), ("name", name), ("address", &address)]).await;
        assert_eq!(answer.status().as_u16(), status, "{name:?}");
    }
    // Everything stands in the trail: who, what, where, and the certificate.
    let seen = gateway.find_event(&["--limit", "1000"], |e| e.to_string().contains("was met: proxmox at")).await;
    assert!(seen.to_string().contains(&sha) && seen.to_string().contains("ada"), "{seen}");
    for words in ["is to be met at", "is to be tried and added", "was tried and added", "it is in use here"] {
        gateway.find_event(&["--limit", "1000"], |e| e.to_string().contains(words)).await;
    }
    // Removed: its machines are gone within seconds.
    let answer = ada.submit("/hypervisors/pve/remove", &[]).await;
    assert_eq!(location(&answer), "/hypervisors");
    let took = until(&ada, "pve", |now| now.is_none()).await;
    assert!(took < Duration::from_secs(5), "{took:?}");
    assert!(!ada.page("/").await.contains("web-1"));
    assert_eq!(ada.submit("/hypervisors/pve/remove", &[]).await.status().as_u16(), 404);
    assert_eq!(ada.get("/hypervisors/pve").await.status().as_u16(), 404);
    gateway.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn its_api_passes_by_its_host_name_and_removing_it_cuts_what_is_open() {
    let guest = Peer::qemu("web-1", "password");
    let pve = FakePve::start(Some(&guest)).await;
    let gateway = TestGateway::start(LOCAL).await;
    let ada = Person::first_administrator(&gateway, "ada").await;
    add(&ada, "pve", &pve.address()).await;
    let token = ada.token("pve").await;
    let client = reqwest::Client::builder()
        .tls_certs_only([gateway.ca()])
        .tls_danger_accept_invalid_hostnames(true)
        .resolve("pve.test.example", gateway.portal)
        .build()
        .expect("a client");
    let at = |path: &str| format!("https://pve.test.example:{}{path}", gateway.portal.port());
    let call = async |path: &str| {
        let shown = format!("PVEAPIToken=ada@portcullis!t={token}");
        client.get(at(path)).header(header::AUTHORIZATION, shown).send().await.expect("an answer")
    };
    let answer = call("/api2/json/cluster/resources").await;
    let (status, text) = (answer.status().as_u16(), answer.text().await.expect("an answer"));
    assert!(status == 200 && text.contains("web-1"), "{status} {text}");
    assert!(CANARIES.iter().all(|c| !text.contains(c)), "{text}");
    // A screen, and its end.
    let machine = told_machine(&ada).await;
    let ticket = ticket_for(&ada, &machine, "control").await;
    let mut screen = Screen::open(&ada, &machine, "control", &ticket).await;
    screen.handshake().await;
    screen.picture().await;
    let began = Instant::now();
    let (status, said) = send(&ada, "/api/v1/hypervisors/pve/remove", &json!({})).await;
    assert_eq!(status, StatusCode::OK, "{said}");
    let (_, words) = screen.ended(Duration::from_secs(6)).await;
    assert!(began.elapsed() < Duration::from_secs(5), "{:?}", began.elapsed());
    assert!(words.contains("removed from this gateway"), "{words}");
    // Nothing of it is served: neither its API nor its machines.
    until(&ada, "pve", |now| now.is_none()).await;
    assert_eq!(call("/api2/json/cluster/resources").await.status().as_u16(), 421);
    assert!(refused(&ada, &machine, "control", "x").await.as_u16() >= 400);
    assert!(!gateway.grants_of("ada").await.is_empty(), "grants keep the name");
    // Another one under the same name: what was said of the first counts for nothing.
    let second = FakePve::start(None).await;
    add(&ada, "pve", &second.address()).await;
    assert!(
        second.wrongs().is_empty()
            && told(&ada, "pve").await.expect("there")["address"]
                .to_string()
                .contains(second.address().rsplit(':').next().expect("a port"))
    );
    gateway.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_is_moved_to_another_address_and_certificate_with_its_credential_said_anew_and_stays_until_then() {
    const NEXT: &str = "gateway@pve!next=canary-7c8d9e00-next";
    const BACK: &str = "gateway@pve!back=canary-2f3a4b5c-back";
    let (old, new) = (FakePve::start(None).await, FakePve::start(None).await);
    // Whatever of the one is shown to the other does not count there, and is told by it.
    new.remove(TOKEN);
    new.add(NEXT, false);
    let file = "[[hypervisors]]\nname = \"lab\"\nkind = \"qemu\"\n[[hypervisors.guests]]\nid = \"vm-1\"\nvnc = \"127.0.0.1:9\"\n";
    let gateway = TestGateway::start(&format!("{LOCAL}{file}")).await;
    let ada = Person::first_administrator(&gateway, "ada").await;
    let zoe = ada.invite("zoe").await;
    add(&ada, "pve", &old.address()).await;
    let before = told(&ada, "pve").await.expect("it is there");
    let id = before["id"].as_str().expect("an id").to_owned();
    // Whoever may not add one changes none, and the file's are the file's.
    for path in ["/new-hypervisor?change=pve", "/new-hypervisor?change=lab", "/new-hypervisor?change=nothing"] {
        let status = zoe.get(path).await.status().as_u16();
        assert_eq!(status, 403, "{path}");
    }
    assert_eq!(ada.get("/new-hypervisor?change=lab").await.status().as_u16(), 404);
    // What a rotation keeps is of the one before as well.
    let (code, words) = gateway.shell(&["secrets", "rotate", "pve"]);
    assert_eq!(code, Some(0), "{words}");
    let form = ada.page("/new-hypervisor?change=pve").await;
    assert_eq!(field(&form, "address"), old.address());
    assert_eq!((field(&form, "replaces"), field(&form, "api_host")), (id.clone(), "pve.test.example".to_owned()));
    // Who answers there now, and what goes wrong: the one before goes on, and is in use as it was.
    let moved = |name: &str, replaces: &str| json!({ "kind": "proxmox", "name": name, "address": new.address(), "api": true, "api_host": format!("{name}.test.example"), "replaces": replaces });
    let (status, met) = send(&ada, "/api/v1/new-hypervisor", &moved("pve", &id)).await;
    assert_eq!(status, StatusCode::OK, "{met}");
    let sha = met["sha256"].as_str().expect("a certificate").to_owned();
    assert_ne!(before["sha256"], met["sha256"]);
    let with = |mut wish: Value, sha256: &str, secret: Option<&str>| {
        wish["sha256"] = sha256.into();
        if let Some(secret) = secret {
            wish["secret"] = secret.into();
        }
        wish
    };
    let other = "0198c1a0-0000-7000-8000-000000000001";
    let old_sha = before["sha256"].as_str().expect("a certificate");
    let tries = [
        // The kept credential goes nowhere: neither to a new address nor to a new certificate.
        ("no credential", with(moved("pve", &id), &sha, None), 400),
        ("the certificate of before", with(moved("pve", &id), old_sha, Some(NEXT)), 409),
        ("nobody's name", with(moved("new", &id), &sha, Some(NEXT)), 409),
        ("the file's name", with(moved("lab", &id), &sha, Some(NEXT)), 400),
        ("another adding", with(moved("pve", other), &sha, Some(NEXT)), 409),
        ("no id", with(moved("pve", "first"), &sha, Some(NEXT)), 409),
        ("a wrong credential", with(moved("pve", &id), &sha, Some("gateway@pve!portcullis=wrong")), 502),
    ];
    for (what, wish, expected) in tries {
        let came = new.came("").len();
        let (status, said) = send(&ada, "/api/v1/hypervisors", &wish).await;
        assert_eq!(status.as_u16(), expected, "{what}: {said}");
        assert_eq!(new.came("").len() > came, expected == 502, "{what}: whether a credential was shown");
        // Longer than a node takes to look at the store.
        tokio::time::sleep(Duration::from_millis(1500)).await;
        let now = told(&ada, "pve").await.expect("it is there");
        assert_eq!(
            (&now["id"], &now["address"], &now["state"]),
            (&before["id"], &before["address"], &before["state"]),
            "{what}"
        );
        assert!(told(&ada, "new").await.is_none(), "{what}");
    }
    // By pages, to the end: under the same name and host name, and nothing of the one before is asked any more.
    let place = [
        ("kind", "proxmox"),
        ("name", "pve"),
        ("address", &new.address()),
        ("api", "on"),
        ("api_host", "pve.test.example"),
        ("replaces", &id),
    ];
    let html = ada.submit("/new-hypervisor", &place).await.text().await.expect("a page");
    assert_eq!((field(&html, "sha256"), field(&html, "replaces")), (sha.clone(), id.clone()));
    let done = [("sha256", sha.as_str()), ("agree", "on"), ("secret", NEXT)];
    let answer = ada.submit("/hypervisors", &[&place[..], &done].concat()).await;
    assert_eq!(location(&answer), "/hypervisors/pve", "{}", answer.text().await.unwrap_or_default());
    until(&ada, "pve", |now| answers(now) && now.is_some_and(|n| n["id"] != id.as_str())).await;
    let now = told(&ada, "pve").await.expect("it is there");
    assert_eq!((now["sha256"].as_str(), now["from"].as_str()), (Some(sha.as_str()), Some("store")));
    assert!(now["address"].as_str().is_some_and(|a| new.address().ends_with(a)), "{now}");
    let asked = old.came("").len();
    // Longer than a list takes to be asked for again.
    tokio::time::sleep(Duration::from_secs(7)).await;
    assert_eq!(old.came("").len(), asked, "the one before is asked no more");
    // Who looked at the one before changes nothing of the one that is there now.
    let (status, said) = send(&ada, "/api/v1/hypervisors", &with(moved("pve", &id), &sha, Some(NEXT))).await;
    assert_eq!(status, StatusCode::CONFLICT, "{said}");
    let said = |event: &Value, words: &str| event["reason"].as_str().is_some_and(|r| r.contains(words));
    gateway.find_event(&["--kind", "hypervisor"], |e| said(e, "another takes its place")).await;
    // And back by a shell.
    old.add(BACK, false);
    let file = tempfile::NamedTempFile::new().expect("a file");
    secret_file(file.path(), BACK);
    let secret = file.path().display().to_string();
    let address = old.address();
    let shell = |name: &'static str, pin: &str| {
        let all =
            ["hypervisor", "add", name, "--kind", "proxmox", "--address", &address, "--api-host", "pve.test.example"];
        gateway.shell(&[&all[..], &["--secret-file", &secret, "--pin", pin, "--replace"]].concat())
    };
    let (code, words) = shell("nothing", old_sha);
    assert_eq!(code, Some(2), "{words}");
    assert!(words.contains("no hypervisor called nothing was added"), "{words}");
    let (code, words) = shell("pve", &sha);
    assert_eq!(code, Some(2), "{words}");
    let (code, words) = shell("pve", old_sha);
    assert_eq!(code, Some(0), "{words}");
    assert!(words.contains("pve is changed"), "{words}");
    until(&ada, "pve", |n| answers(n) && n.is_some_and(|n| n["sha256"] == old_sha)).await;
    assert_eq!(old.wrongs(), Vec::<String>::new());
    assert_eq!(new.wrongs(), ["invalid token value!"], "the one wrong credential, and nothing else");
}

async fn told_machine(person: &Person<'_>) -> String {
    let all: Value = person.get("/api/v1/machines").await.json().await.expect("JSON");
    let of = |m: &Value| m["name"] == "web-1";
    let found = all["machines"].as_array().expect("a list").iter().find(|m| of(m)).expect("web-1").clone();
    format!("{}/{}", found["hypervisor"].as_str().expect("a name"), found["id"].as_str().expect("an id"))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_shell_adds_lists_and_removes_and_the_secret_is_nowhere_to_be_seen() {
    let pve = FakePve::start(None).await;
    let gateway = TestGateway::start(&format!("{LOCAL}{}", pve.config("old", free_port()))).await;
    let ada = Person::first_administrator(&gateway, "ada").await;
    let (address, token) = (pve.address(), pve.token_file());
    let shell = |name: &str, more: &[&str]| {
        let base = ["hypervisor", "add", name, "--kind", "proxmox", "--address", &address, "--secret-file", &token];
        gateway.shell(&[&base[..], more].concat())
    };
    let (code, out) = shell("pve", &[]);
    assert!(code == Some(2) && out.contains("--pin"), "{out}");
    let at = out.find("SHA-256 ").expect("a digest") + 8;
    let sha = out[at..at + 64].to_owned();
    for (name, more, words) in [
        ("pve", &["--pin", &*"ab".repeat(32)][..], "another certificate"),
        ("old", &["--pin", &sha], "stands in the configuration file"),
        ("pve", &["--pin", &sha, "--api-port", "9999"], "--file"),
        ("pve", &["--pin", &sha, "--set", "token_file=/etc/shadow"], "has no token_file"),
    ] {
        let (code, out) = shell(name, more);
        assert!(code == Some(2) && out.contains(words), "{words}: {out}");
    }
    let (code, out) = shell("pve", &["--pin", &sha, "--api-host", "pve.test.example"]);
    assert!(code == Some(0) && out.contains("Permissions.Modify") && out.contains("machines:"), "{out}");
    until(&ada, "pve", answers).await;
    let (code, out) = gateway.shell(&["hypervisor", "list", "--json"]);
    assert!(code == Some(0) && out.contains("\"from\":\"store\"") && out.contains("\"from\":\"file\""), "{out}");
    let (_, out) = gateway.shell(&["doctor", "--json"]);
    assert!(out.contains("pve: certificate") && out.contains("pve: credential default"), "{out}");
    let (code, out) = gateway.shell(&["secrets", "list", "--json"]);
    assert!(code == Some(0) && out.lines().any(|l| l.contains("\"pve\"") && l.contains("\"store\"")), "{out}");
    // It is rotated like any other, under the eyes of the gateway that runs; and what was rotated counts then.
    let (code, out) = gateway.shell(&["secrets", "rotate", "pve"]);
    assert!(code == Some(2) && out.contains("old/default"), "one secret of two hypervisors is not rotated: {out}");
    let (code, out) = shell("pve", &["--pin", &sha]);
    assert!(code == Some(2) && out.contains("already"), "{out}");

    // The secret is in no answer, no file of the database, no event.
    let mut shown = Vec::new();
    for path in ["/hypervisors", "/hypervisors/pve", "/api/v1/hypervisors", "/api/v1/hypervisors/pve", "/trail"] {
        shown.push((path.to_owned(), ada.get(path).await.bytes().await.expect("a body").to_vec()));
    }
    for verb in [&["hypervisor", "list"][..], &["secrets", "list"], &["audit", "search", "--limit", "1000", "--json"]] {
        shown.push((format!("{verb:?}"), gateway.shell(verb).1.into_bytes()));
    }
    let (code, out) = gateway.shell(&["hypervisor", "remove", "pve"]);
    assert!(code == Some(0) && out.contains("removed"), "{out}");
    until(&ada, "pve", |now| now.is_none()).await;
    for (name, code) in [("pve", 1), ("old", 2), ("nothing", 1)] {
        let (is, out) = gateway.shell(&["hypervisor", "remove", name]);
        assert_eq!(is, Some(code), "{name}: {out}");
    }
    let (code, _) = shell("pve", &["--pin", &sha]);
    assert_eq!(code, Some(0), "again under the same name");
    let dir = gateway.stop().await;
    files(&dir.path().join("trail"), &mut shown);
    for entry in std::fs::read_dir(dir.path()).expect("a folder").map(|e| e.expect("an entry").path()) {
        if entry.file_name().is_some_and(|n| n.to_string_lossy().starts_with("portcullis.db")) {
            shown.push((entry.display().to_string(), std::fs::read(&entry).expect("read")));
        }
    }
    let secret = TOKEN.split_once('=').expect("a token").1;
    for (place, bytes) in &shown {
        let text = letters(bytes);
        for spelled in [secret.to_owned(), hex::encode(secret), secret.chars().rev().collect()] {
            assert!(!text.contains(&spelled), "the secret is in {place}");
        }
    }
    // One in both places: the start is refused, and says what to do.
    let file = dir.path().join("portcullis.toml");
    let text = std::fs::read_to_string(&file).expect("the configuration");
    std::fs::write(&file, format!("{text}\n{}", pve.config("pve", free_port()))).expect("written");
    let (code, out) = crate::support::gateway::shell(dir.path(), &["serve"]);
    assert!(code == Some(2) && out.contains("portcullis hypervisor remove pve"), "{out}");
    let (_, out) = crate::support::gateway::shell(dir.path(), &["doctor", "--json"]);
    assert!(out.contains("pve: added") && out.contains("configuration file too"), "{out}");
    let (code, _) = crate::support::gateway::shell(dir.path(), &["hypervisor", "remove", "pve"]);
    assert_eq!(code, Some(0));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_node_takes_it_in_and_lets_it_go_and_a_row_that_was_changed_is_not_used() {
    let (database, pve) = (Peer::postgres(), FakePve::start(None).await);
    let gateway = TestGateway::start_on(database.get("URL"), LOCAL).await;
    let ada = Person::first_administrator(&gateway, "ada").await;
    let other = gateway.beside(LOCAL).await;
    add(&ada, "pve", &pve.address()).await;
    // Each code counts once over all nodes.
    other.clock.advance(gateway.clock.now() - other.clock.now());
    let mut there = Person::with_key(&other, "ada", ada.key());
    there.sign_in().await;
    let took = until(&there, "pve", answers).await;
    assert!(took < Duration::from_secs(6), "{took:?}");
    // A secret is rotated while both run: neither shows the old one afterwards.
    let (code, said) = gateway.shell(&["secrets", "rotate", "pve"]);
    assert!(code == Some(0) && said.contains("counts no more"), "{said}");
    tokio::time::sleep(Duration::from_secs(6)).await;
    assert_eq!(pve.wrongs(), Vec::<String>::new());
    assert!(answers(told(&there, "pve").await.as_ref()) && answers(told(&ada, "pve").await.as_ref()));
    let (status, said) = send(&there, "/api/v1/hypervisors/pve/remove", &json!({})).await;
    assert_eq!(status, StatusCode::OK, "{said}");
    until(&ada, "pve", |now| now.is_none()).await;
    until(&there, "pve", |now| now.is_none()).await;
    // Added again: the number of its secret goes on, and both nodes show the one that it was added with.
    let fresh = FakePve::start(None).await;
    add(&ada, "pve", &fresh.address()).await;
    until(&there, "pve", answers).await;
    let (code, said) = gateway.shell(&["secrets", "rotate", "pve"]);
    assert!(code == Some(0) && said.contains("counts no more"), "{said}");
    tokio::time::sleep(Duration::from_secs(6)).await;
    assert_eq!(fresh.wrongs(), Vec::<String>::new());
    other.stop().await;
    gateway.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_row_that_somebody_changed_in_the_database_is_not_used_and_says_so() {
    let (pve, evil) = (FakePve::start(None).await, FakePve::start(None).await);
    let gateway = TestGateway::start(LOCAL).await;
    let ada = Person::first_administrator(&gateway, "ada").await;
    add(&ada, "pve", &pve.address()).await;
    let database = gateway.dir.path().join("portcullis.db");
    let (from, to) = (pve.address(), evil.address());
    sql(&database, &format!("update hypervisors set settings = replace(settings, '{from}', '{to}')"));
    gateway.restart().await;
    let ada = ada.another_browser().await;
    let list: Value = ada.get("/api/v1/hypervisors").await.json().await.expect("JSON");
    assert_eq!(list["hypervisors"][0]["state"], "not used", "{list}");
    assert!(list["hypervisors"][0]["why"].to_string().contains("sealed"), "{list}");
    gateway.find_event(&["--kind", "alarm"], |e| e.to_string().contains("hypervisor pve")).await;
    tokio::time::sleep(Duration::from_secs(2)).await;
    assert_eq!(evil.came("").len(), 0, "the credential was shown to nobody else");
    let (code, out) = gateway.shell(&["doctor"]);
    assert!(code == Some(1) && out.contains("it is not used"), "{out}");
    let html = ada.page("/hypervisors/pve").await;
    assert!(html.contains("down") && html.contains("Remove"), "{html}");
    // Nor does a form lead there whoever changes it, and types the credential.
    let form = ada.page("/new-hypervisor?change=pve").await;
    assert!(form.contains("name=\"replaces\"") && !form.contains(&to), "{form}");
    let other = [("id", "0198c1a0-0000-7000-8000-000000000001")];
    assert_eq!(ada.submit("/hypervisors/pve/remove", &other).await.status().as_u16(), 409, "that is another one");
    let seen = field(&html, "id");
    assert_eq!(location(&ada.submit("/hypervisors/pve/remove", &[("id", &seen)]).await), "/hypervisors");
    gateway.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_may_not_add_is_denied_and_who_may_goes_no_faster_than_is_allowed_and_not_to_this_machine() {
    let pve = FakePve::start(None).await;
    let gateway = TestGateway::start("[limits]\nsign_in_per_minute = 600\n[adding]\nper_minute = 4\n").await;
    let ada = Person::first_administrator(&gateway, "ada").await;
    let zoe = ada.invite("zoe").await;
    ada.grant("zoe", "operator", "everything", "").await;
    let address = pve.address();
    let wish = json!({ "kind": "proxmox", "name": "pve", "address": address });
    for (path, body) in [
        ("/api/v1/new-hypervisor", wish.clone()),
        ("/api/v1/hypervisors", wish.clone()),
        ("/api/v1/hypervisors/pve/remove", json!({})),
    ] {
        assert_eq!(send(&zoe, path, &body).await.0, StatusCode::FORBIDDEN, "{path}");
    }
    for path in ["/new-hypervisor", "/hypervisors", "/hypervisors/pve", "/api/v1/hypervisors"] {
        assert_eq!(zoe.get(path).await.status().as_u16(), 403, "{path}");
    }
    // Addresses of this machine, however they are written.
    for host in ["localhost", "127.0.0.1", "[::1]", "[::ffff:127.0.0.1]"] {
        let wish = json!({ "kind": "proxmox", "name": "pve", "address": format!("https://{host}:{}", address.rsplit(':').next().expect("a port")) });
        let (status, said) = send(&ada, "/api/v1/new-hypervisor", &wish).await;
        assert!(status == StatusCode::BAD_REQUEST && said.to_string().contains("[adding] loopback"), "{host}: {said}");
    }
    // Five in a minute are too many.
    let (status, said) = send(&ada, "/api/v1/new-hypervisor", &wish).await;
    assert_eq!(status, StatusCode::TOO_MANY_REQUESTS, "{said}");
    assert_eq!(pve.came("").len(), 0);
    gateway.stop().await;
}

/// One that lies, by the path that it is asked for.
type Lie = fn(&str) -> Answer;

/// How a liar answers.
fn text(status: StatusCode, body: Vec<u8>) -> Answer {
    let mut answer = Response::new(Full::from(body));
    *answer.status_mut() = status;
    answer
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whoever_lies_is_not_added_and_tells_nothing_and_costs_little() {
    let gateway = TestGateway::start(LOCAL).await;
    let ada = Person::first_administrator(&gateway, "ada").await;
    let dir = tempfile::tempdir().expect("a folder");
    let tls = peers::certificates(&dir.path().join("certificates"));
    let other = peers::certificates(&dir.path().join("others"));
    let lies: [(&str, Lie); 5] = [
        ("endless", |_| text(StatusCode::OK, vec![b' '; 300 * 1024 * 1024])),
        ("typed", |_| text(StatusCode::OK, b"{\"data\":7,\"inner\":\"canary-inner\"}".to_vec())),
        ("html", |_| text(StatusCode::INTERNAL_SERVER_ERROR, b"<html>canary-inner</html>".to_vec())),
        ("refuses", |_| text(StatusCode::FORBIDDEN, b"{\"message\":\"canary-inner\"}".to_vec())),
        ("leads", |_| {
            let mut answer = text(StatusCode::FOUND, Vec::new());
            answer.headers_mut().insert(header::LOCATION, "https://localhost:1/canary-inner".parse().expect("a value"));
            answer
        }),
    ];
    for (name, lie) in lies {
        let port = listen_tls(&tls, move |request: Request<Incoming>| async move { lie(request.uri().path()) }).await;
        let mut wish = json!({ "kind": "proxmox", "name": name, "address": format!("https://localhost:{port}") });
        let (status, met) = send(&ada, "/api/v1/new-hypervisor", &wish).await;
        assert_eq!(status, StatusCode::OK, "{name}: {met}");
        wish["sha256"] = met["sha256"].clone();
        wish["secret"] = TOKEN.into();
        let began = Instant::now();
        let (status, said) = send(&ada, "/api/v1/hypervisors", &wish).await;
        assert!(status.is_server_error(), "{name}: {status} {said}");
        assert!(!said.to_string().contains("canary"), "{name}: {said}");
        assert!(began.elapsed() < Duration::from_mins(1), "{name}: {:?}", began.elapsed());
        assert!(told(&ada, name).await.is_none(), "{name}");
    }
    // Another certificate between the two steps: nothing is said to whoever holds it.
    let (turned, came) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicUsize::new(0)));
    let count = Arc::clone(&came);
    let answer = move |_: Request<Incoming>| {
        let count = Arc::clone(&count);
        async move {
            count.fetch_add(1, Ordering::Relaxed);
            text(StatusCode::OK, b"{}".to_vec())
        }
    };
    let (first, second) = (listen_tls(&tls, answer.clone()).await, listen_tls(&other, answer).await);
    let front = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("bound");
    let port = front.local_addr().expect("an address").port();
    let which = Arc::clone(&turned);
    #[expect(clippy::disallowed_methods, reason = "ends with the test's runtime")]
    tokio::spawn(async move {
        while let Ok((mut near, _)) = front.accept().await {
            let to = if which.load(Ordering::Relaxed) { second } else { first };
            tokio::spawn(async move {
                let mut far = tokio::net::TcpStream::connect(("127.0.0.1", to)).await.expect("connected");
                tokio::io::copy_bidirectional(&mut near, &mut far).await.ok();
            });
        }
    });
    let mut wish = json!({ "kind": "proxmox", "name": "turned", "address": format!("https://localhost:{port}") });
    let (_, met) = send(&ada, "/api/v1/new-hypervisor", &wish).await;
    wish["sha256"] = met["sha256"].clone();
    wish["secret"] = TOKEN.into();
    turned.store(true, Ordering::Relaxed);
    let (status, said) = send(&ada, "/api/v1/hypervisors", &wish).await;
    assert!(status == StatusCode::CONFLICT && said.to_string().contains("another certificate"), "{said}");
    assert_eq!(came.load(Ordering::Relaxed), 0, "nothing was said to it");
    // Nobody there, and no TLS.
    for (port, words) in [(free_port(), "cannot be reached"), (gateway_plain().await, "TLS")] {
        let wish = json!({ "kind": "proxmox", "name": "none", "address": format!("https://localhost:{port}") });
        let (status, said) = send(&ada, "/api/v1/new-hypervisor", &wish).await;
        assert!(status == StatusCode::BAD_GATEWAY && said.to_string().contains(words), "{said}");
        assert!(!said.to_string().contains("SSH-2.0"), "{said}");
    }
    assert!(ada.page("/hypervisors").await.contains("no hypervisor yet"));
    gateway.stop().await;
}

/// Something that speaks another protocol.
#[expect(clippy::disallowed_methods, reason = "ends with the test's runtime")]
async fn gateway_plain() -> u16 {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("bound");
    let port = listener.local_addr().expect("an address").port();
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            tokio::io::AsyncWriteExt::write_all(&mut stream, b"SSH-2.0-canary\r\n").await.ok();
        }
    });
    port
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_real_browser_adds_one_and_removes_it() {
    let pve = FakePve::start(None).await;
    let gateway = TestGateway::start(LOCAL).await;
    let link = gateway.set_up.clone().expect("a set-up link");
    let (url, address) = (gateway.url(), pve.address());
    let certificate = gateway.dir.path().join("tls/cert.pem").display().to_string();
    let pictures = std::env::var("PORTCULLIS_TEST_PICTURES").ok();
    let said = tokio::task::spawn_blocking(move || {
        let mut about = vec!["--url", &url, "--link", &link, "--certificate", &certificate, "--address", &address];
        about.extend(["--secret", TOKEN]);
        if let Some(pictures) = &pictures {
            about.extend(["--pictures", pictures]);
        }
        peers::browser("adding.mjs", &about)
    });
    let said = said.await.expect("it ran");
    assert_eq!(said.lines().filter(|l| l.starts_with('✓')).count(), 12, "{said}");
    gateway.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_real_lxd_is_added_by_its_certificate_and_its_stream_is_cut_when_it_is_removed() {
    use futures_util::StreamExt as _;
    use tokio_tungstenite::{client_async, tungstenite::client::IntoClientRequest as _};
    let lxd = Peer::lxd();
    let gateway = TestGateway::start(LOCAL).await;
    let ada = Person::first_administrator(&gateway, "ada").await;
    let read = |key: &str| std::fs::read_to_string(lxd.get(key)).expect("PEM");
    let (certificate, key) = (read("CLIENT_CERT"), read("CLIENT_KEY"));
    let mut wish = json!({
        "kind": "lxd", "name": "lxd", "address": lxd.get("ADDRESS"), "api": true, "api_host": "lxd.test.example",
    });
    let (status, met) = send(&ada, "/api/v1/new-hypervisor", &wish).await;
    assert_eq!(status, StatusCode::OK, "{met}");
    wish["sha256"] = met["sha256"].clone();
    for secret in [certificate.clone(), key.clone()] {
        wish["secret"] = secret.into();
        let (status, said) = send(&ada, "/api/v1/hypervisors", &wish).await;
        assert!(status == StatusCode::BAD_REQUEST && said.to_string().contains("both as PEM"), "{said}");
    }
    wish["secret"] = format!("{certificate}{key}").into();
    let (status, done) = send(&ada, "/api/v1/hypervisors", &wish).await;
    assert!(status == StatusCode::OK && done["machines"].to_string().contains("c1"), "{done}");
    until(&ada, "lxd", answers).await;
    assert!(ada.page("/").await.contains("c1"));
    let token = ada.token("lxd").await;
    let at = format!("wss://lxd.test.example:{}/1.0/events?type=lifecycle", gateway.portal.port());
    let open = async || {
        let mut request = at.as_str().into_client_request().expect("a request");
        request.headers_mut().insert(header::AUTHORIZATION, format!("Bearer {token}").parse().expect("a value"));
        let tcp = tokio::net::TcpStream::connect(gateway.portal).await.expect("a connection");
        let name = rustls::pki_types::ServerName::try_from("localhost").expect("a name");
        let tls = tokio_rustls::TlsConnector::from(Arc::new(gateway.tls())).connect(name, tcp).await.expect("TLS");
        client_async(request, tls).await
    };
    let (mut stream, _) = open().await.expect("the stream opens");
    let began = Instant::now();
    assert_eq!(location(&ada.submit("/hypervisors/lxd/remove", &[]).await), "/hypervisors");
    while let Ok(Some(Ok(_))) = tokio::time::timeout(Duration::from_secs(6), stream.next()).await {}
    assert!(began.elapsed() < Duration::from_secs(5), "{:?}", began.elapsed());
    assert!(open().await.is_err(), "it is not served any more");
    let cut = |e: &Value| e["reason"].as_str().is_some_and(|r| r.contains("removed from this gateway"));
    gateway.find_event(&["--kind", "api", "--outcome", "failed"], cut).await;
    gateway.stop().await;
}
