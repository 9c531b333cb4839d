// SPDX-License-Identifier: Apache-2.0
//! Secrets that pass through the house, looked for in everything that it shows, keeps and writes down.

use crate::support::{
    Person, TestGateway,
    gateway::{files, letters},
    lab::{lab, ready, ticket},
    page,
    peers::Peer,
    person::PASSWORD,
    screen::{Screen, refused},
};
use base64::{
    Engine as _,
    engine::general_purpose::{STANDARD, STANDARD_NO_PAD, URL_SAFE_NO_PAD},
};
use reqwest::StatusCode;
use std::path::Path;

/// A secret and the ways in which it could be written.
fn spellings(secret: &str) -> Vec<Vec<u8>> {
    let bytes = secret.as_bytes();
    let percent = bytes.iter().map(|b| format!("%{b:02X}")).collect::<Vec<_>>().concat();
    let encoded = serde_json::to_string(secret).expect("JSON");
    vec![
        bytes.to_vec(),
        secret.to_lowercase().into_bytes(),
        secret.bytes().rev().collect(),
        secret.replace(' ', "+").into_bytes(),
        secret.replace(' ', "%20").into_bytes(),
        percent.into_bytes(),
        encoded.trim_matches('"').as_bytes().to_vec(),
        hex::encode(bytes).into_bytes(),
        hex::encode_upper(bytes).into_bytes(),
        STANDARD.encode(bytes).into_bytes(),
        STANDARD_NO_PAD.encode(bytes).into_bytes(),
        URL_SAFE_NO_PAD.encode(bytes).into_bytes(),
        secret.encode_utf16().flat_map(u16::to_le_bytes).collect(),
    ]
}

// SEC-009, SEC-013, SEC-153, SEC-177
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_secret_is_in_a_page_an_answer_the_trail_the_store_or_a_recording() {
    let (guest, lxd) = (Peer::qemu("web-1", "password"), Peer::lxd());
    let credential = std::fs::read_to_string(lxd.get("CLIENT_KEY")).expect("the key");
    let hypervisors = format!(
        "{}[[hypervisors]]\nname = \"lxd\"\nkind = \"lxd\"\naddress = {:?}\ncert_file = {:?}\nkey_file = {:?}\n\
         [hypervisors.tls]\nca_file = {:?}\n",
        lab(&guest),
        lxd.get("ADDRESS"),
        lxd.get("CLIENT_CERT"),
        lxd.get("CLIENT_KEY"),
        lxd.get("SERVER_CERT"),
    );
    let gateway = TestGateway::start(&hypervisors).await;
    let ada = Person::first_administrator(&gateway, "ada").await;
    ready(&gateway, &ada).await;
    let spent = ticket(&ada, "control").await;
    let mut screen = Screen::open(&ada, "lab/web-1", "control", &spent).await;
    screen.handshake().await;
    screen.picture().await;
    screen.press("typed").await;
    let unused = ticket(&ada, "view").await;
    let minted = ada.submit("/me/tokens", &[("name", "tool"), ("hypervisor", ""), ("days", "1")]).await;
    let html = minted.text().await.expect("a page");
    let token: String = html[html.find("pct_").expect("a token")..]
        .chars()
        .take_while(|c| c.is_ascii_alphanumeric() || matches!(c, '_' | '-'))
        .collect();
    // Slips: a password in the field of the name, a ticket and a token in an address.
    let eve = Person::stranger(&gateway, "eve");
    let slip = "my bank password 4711";
    eve.post("/sign-in", &[("name", slip), ("password", "x"), ("next", "/")]).await;
    for path in [format!("/?q={token}"), format!("/{token}"), format!("/api/v1/{spent}")] {
        ada.get(&path).await;
    }
    let denied = |e: &serde_json::Value| e["outcome"] == "denied" && e["on"].to_string().contains("unknown name #");
    let told = |e: &serde_json::Value| denied(e) || e["reason"].to_string().contains("unknown name #");
    gateway.find_event(&["--kind", "sign-in"], told).await;

    let cookie = ada.cookie().split_once('=').expect("a cookie").1.split(';').next().expect("a value").to_owned();
    let password = std::fs::read_to_string(guest.get("PASSWORD_FILE")).expect("a password").trim().to_owned();
    let key_line = credential.lines().nth(1).expect("a line of the key").to_owned();
    let mut secrets = vec![
        ("the hypervisor's credential", key_line),
        ("the console's password", password),
        ("a password", PASSWORD.to_owned()),
        ("a used ticket", spent),
        ("a ticket", unused),
        ("a token", token),
        ("the cookie", cookie),
        ("the authenticator's key", ada.key_text.clone()),
        ("a slip", slip.to_owned()),
    ];
    secrets.extend(ada.recovery.iter().map(|code| ("a recovery code", code.clone())));

    let mut shown = Vec::new();
    let mut paths: Vec<String> = [
        "/",
        "/me",
        "/users",
        "/roles",
        "/grants",
        "/sessions",
        "/hypervisors",
        "/recordings",
        "/trail",
        "/sign-in",
        "/c/lab/web-1",
        "/c/lab/nothing",
        "/api/v1/machines",
        "/nothing",
    ]
    .map(str::to_owned)
    .into();
    // The index follows the log within a tenth of a second.
    tokio::time::sleep(std::time::Duration::from_millis(500)).await;
    let events = gateway.search(&["--limit", "10000"]);
    paths.extend(events.iter().map(|e| format!("/trail/{}/{}", e["node"].as_str().expect("a node"), e["seq"])));
    for path in paths {
        let answer = ada.get(&path).await;
        let head = format!("{:?}", answer.headers().iter().filter(|(n, _)| *n != "set-cookie").collect::<Vec<_>>());
        shown.push((format!("head of {path}"), head.into_bytes()));
        shown.push((path, answer.bytes().await.expect("a body").to_vec()));
    }
    for verb in [
        &["audit", "tail", "--json", "-n", "10000"][..],
        &["recording", "list", "--json"],
        &["user", "list", "--json"],
        &["hypervisor", "list", "--json"],
        &["machine", "list", "--json"],
    ] {
        shown.push((format!("{verb:?}"), gateway.shell(verb).1.into_bytes()));
    }
    drop(screen);
    let dir = gateway.stop().await;
    files(&dir.path().join("trail"), &mut shown);
    files(&dir.path().join("recordings"), &mut shown);
    for entry in std::fs::read_dir(dir.path()).expect("a folder").map(|e| e.expect("an entry").path()) {
        if entry.file_name().is_some_and(|n| n.to_string_lossy().starts_with("portcullis.db")) {
            shown.push((entry.display().to_string(), std::fs::read(&entry).expect("read")));
        }
    }
    assert!(shown.len() > 30 && events.len() > 8, "{} {}", shown.len(), events.len());
    let shown: Vec<(String, String)> = shown.into_iter().map(|(place, bytes)| (place, letters(&bytes))).collect();
    for (what, secret) in &secrets {
        assert!(secret.len() >= 6, "{what} is too short to be looked for: {secret:?}");
        for spelled in spellings(secret) {
            let spelled = letters(&spelled);
            for (place, text) in &shown {
                assert!(!text.contains(&spelled), "{what} is in {place}, as {spelled:?}");
            }
        }
    }
    drop(lxd);
}

/// A machine that exists in the inventory and answers nothing.
const LAB: &str = "[[hypervisors]]\nname = \"lab\"\nkind = \"qemu\"\n[[hypervisors.guests]]\nid = \"web-1\"\n\
                   vnc = \"127.0.0.1:9\"\n";

// SEC-026
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn half_a_sign_in_opens_no_stream() {
    let gateway = TestGateway::start(LAB).await;
    let ada = Person::first_administrator(&gateway, "ada").await;
    let good = ticket(&ada, "control").await;
    let half = Person::stranger(&gateway, "ada");
    half.post("/sign-in", &[("name", "ada"), ("password", PASSWORD), ("next", "/")]).await;
    let stranger = Person::stranger(&gateway, "nobody");
    for person in [&half, &stranger] {
        for mode in ["view", "control"] {
            let status = refused(person, "lab/web-1", mode, &good).await;
            assert!(matches!(status, StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN), "{mode} {status}");
            let csrf = page::csrf(&person.page("/sign-in").await).unwrap_or_default();
            let url = format!("{}/api/v1/consoles/lab/web-1/ticket/{mode}", gateway.url());
            let asked = person.browser.post(url).header("origin", gateway.url()).header("x-csrf-token", csrf);
            let status = asked.send().await.expect("an answer").status();
            assert!(matches!(status, StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN), "{mode} {status}");
        }
    }
    gateway.stop().await;
}

// SEC-058, SEC-059
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_header_that_claims_another_address_changes_nothing() {
    let gateway = TestGateway::start("").await;
    let ada = Person::first_administrator(&gateway, "ada").await;
    let eve = Person::stranger(&gateway, "eve");
    let form = |name: String| [("name", name), ("password", "wrong wrong".to_owned()), ("next", "/".to_owned())];
    let mut statuses = Vec::new();
    for n in 0..60 {
        let fake = format!("203.0.{n}.7");
        let request = eve
            .browser
            .post(format!("{}/sign-in", gateway.url()))
            .header("origin", gateway.url())
            .header("x-forwarded-for", &fake)
            .header("x-real-ip", &fake)
            .header("cf-connecting-ip", &fake)
            .header("forwarded", format!("for={fake};host=evil.example;proto=http"))
            .header("x-forwarded-host", "evil.example")
            .header("x-forwarded-proto", "http")
            .header("x-forwarded-uri", "/assets/app.js")
            .header("x-original-url", "/assets/app.js")
            .form(&form(format!("somebody{n}")));
        let answer = request.send().await.expect("an answer");
        let status = answer.status();
        let html = answer.text().await.expect("a page");
        assert!(!html.contains("evil.example") && !html.contains("203.0."), "{html}");
        statuses.push(status == StatusCode::TOO_MANY_REQUESTS || html.contains("Wait"));
        tokio::time::sleep(std::time::Duration::from_millis(20)).await;
    }
    assert!(!statuses[0] && statuses[50..].iter().all(|limited| *limited), "{statuses:?}");
    let event = gateway.find_event(&["--kind", "sign-in"], |e| e["outcome"] == "denied").await;
    let html = ada.page(&format!("/trail/{}/{}", event["node"].as_str().expect("a node"), event["seq"])).await;
    assert!(html.contains("127.0.0.1") && !html.contains("203.0."), "{html}");
    gateway.stop().await;
}

// SEC-209
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_too_large_never_reaches_the_database() {
    let gateway = TestGateway::start("").await;
    let ada = Person::first_administrator(&gateway, "ada").await;
    let eve = Person::stranger(&gateway, "eve");
    for size in [1 << 10, 60 << 10, 1 << 20, 3 << 20] {
        let long = "x".repeat(size);
        let fields = [("name", long.as_str()), ("password", &long), ("next", &long)];
        let answer = eve.post("/sign-in", &fields).await;
        assert!(answer.status().is_client_error(), "sign-in, {size}: {}", answer.status());
        for (path, fields) in [
            ("/users", [("name", long.as_str()), ("display_name", &long)]),
            ("/favourites", [("machine", &long), ("set", "on")]),
            ("/grants/revoke", [("grant", &long), ("next", &long)]),
        ] {
            let status = ada.submit(path, &fields).await.status();
            assert!(status.is_client_error(), "{path}, {size}: {status}");
        }
    }
    for path in [format!("/?q={}", "x".repeat(7000)), format!("/trail?who={}", "%27".repeat(2000))] {
        assert_eq!(ada.get(&path).await.status(), StatusCode::OK);
    }
    assert_eq!(ada.get(&format!("/trail?who={}", "x".repeat(9000))).await.status().as_u16(), 431);
    gateway.stop().await;
}

// SEC-166
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_recording_is_found_by_its_id_and_by_nothing_else() {
    let guest = Peer::qemu("web-1", "none");
    let gateway = TestGateway::start(&lab(&guest)).await;
    let ada = Person::first_administrator(&gateway, "ada").await;
    ready(&gateway, &ada).await;
    for _ in 0..2 {
        let mut screen = Screen::open(&ada, "lab/web-1", "control", &ticket(&ada, "control").await).await;
        screen.handshake().await;
        screen.picture().await;
    }
    gateway.find_event(&["--kind", "console", "--outcome", "done"], |_| true).await;
    for path in ["..%2f..%2fportcullis.key", "../portcullis.key", "%2e%2e/portcullis.key", "x%00", "portcullis.key"] {
        let answer = ada.get(&format!("/recordings/{path}")).await;
        assert!(answer.status().is_client_error(), "{path}: {}", answer.status());
    }
    let dir = gateway.stop().await;
    for id in ["../portcullis.key", "/etc/passwd", "..", "%2e%2e", "x", "00000000000000000000000000000007/../x"] {
        let (code, text) = crate::support::gateway::shell(dir.path(), &["recording", "verify", id]);
        assert_eq!(code, Some(2), "{id}: {text}");
    }
    let verify = || crate::support::gateway::shell(dir.path(), &["recording", "verify"]);
    let (code, text) = verify();
    assert_eq!(code, Some(0), "{text}");
    // One file in the place of another: whole in itself, and not the one that was recorded.
    let mut found = Vec::new();
    files(&dir.path().join("recordings"), &mut found);
    let names: Vec<&str> = found
        .iter()
        .map(|(name, _)| name.as_str())
        .filter(|n| Path::new(n).extension() == Some("pcr".as_ref()))
        .collect();
    assert_eq!(names.len(), 2);
    for name in &names {
        let id = Path::new(name).file_stem().expect("a name").to_string_lossy();
        assert!(id.len() == 32 && id.bytes().all(|b| b.is_ascii_hexdigit()), "no name of anything is in {id}");
    }
    std::fs::remove_file(names[0]).expect("removed");
    std::os::unix::fs::symlink(names[1], names[0]).expect("a link");
    assert_eq!(verify().0, Some(1));
}
