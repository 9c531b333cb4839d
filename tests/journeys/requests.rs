// SPDX-License-Identifier: Apache-2.0
//! A door that is closed becomes a request; its owner decides; what comes of it ends by itself.

use crate::support::{
    Person, TestGateway,
    lab::{lab, ready, ticket},
    page,
    peers::{Peer, python},
    person::location,
    screen::Screen,
};
use reqwest::StatusCode;
use serde_json::Value;
use std::{
    os::unix::fs::PermissionsExt as _,
    sync::{Arc, Mutex},
    time::Duration,
};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio_rustls::{
    TlsAcceptor,
    rustls::{
        ServerConfig,
        pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject as _},
    },
};

const RULE: &str = "[[requests.rule]]\nname = \"web\"\non = [\"tag:web\"]\nowners = [\"olga\"]\nlongest_hours = 1\n";

/// The link of the button that asks for what is closed.
fn ask_link(html: &str) -> String {
    let at = html.find("/requests/new?").unwrap_or_else(|| panic!("nothing to ask with: {html}"));
    page::unescape(&html[at..at + html[at..].find('"').expect("an end")])
}

// SEC-124, SEC-140
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_closed_door_becomes_a_request_and_the_end_of_its_grant_cuts_the_console() {
    let guest = Peer::qemu("web-1", "none");
    let gateway = TestGateway::start(&format!("{RULE}{}", lab(&guest))).await;
    let ada = Person::first_administrator(&gateway, "ada").await;
    ready(&gateway, &ada).await;
    let (kim, olga, bob) = (ada.invite("kim").await, ada.invite("olga").await, ada.invite("bob").await);

    // The same words and the same way out, whether there is such a machine or not.
    let closed = kim.get("/c/lab/web-1").await;
    assert_eq!(closed.status(), StatusCode::NOT_FOUND);
    let link = ask_link(&closed.text().await.expect("a page"));
    let nowhere = kim.get("/c/lab/none").await;
    assert_eq!(nowhere.status(), StatusCode::NOT_FOUND);
    assert_eq!(ask_link(&nowhere.text().await.expect("a page")), link.replace("web-1", "none"));
    let form = kim.page(&link).await;
    assert_eq!(page::field(&form, "on").as_deref(), Some("machine:lab/web-1"));
    assert!(form.contains("value=\"console-user\" selected"), "{form}");

    let wish = [("role", "console-user"), ("on", "machine:lab/web-1"), ("reason", "INC-7: it hangs"), ("hours", "4")];
    let asked = location(&kim.submit("/requests", &wish).await);
    assert!(asked.starts_with("/requests/"), "{asked}");
    assert_eq!(kim.submit("/requests", &wish).await.status(), StatusCode::UNPROCESSABLE_ENTITY, "it waits already");
    // Its owner is told on every page; nobody else knows of it, and who asked does not decide.
    assert!(olga.page("/me").await.contains("wait for your decision"));
    assert!(!bob.page("/me").await.contains("wait for your decision"));
    assert_eq!(bob.get(&asked).await.status(), StatusCode::NOT_FOUND);
    kim.step_up().await;
    for step in ["approve", "refuse"] {
        let own = kim.submit(&format!("{asked}/{step}"), &[]).await.status();
        assert_eq!(own, StatusCode::FORBIDDEN, "{step}");
        let stranger = bob.submit(&format!("{asked}/{step}"), &[]).await.status();
        assert_eq!(stranger, StatusCode::NOT_FOUND, "{step}");
    }
    assert_eq!(kim.submit(&format!("{asked}/begin"), &[]).await.status(), StatusCode::CONFLICT, "it is not approved");
    gateway.clock.advance(time::Duration::minutes(6));
    let stale = olga.submit(&format!("{asked}/approve"), &[]).await;
    assert!(stale.text().await.expect("a page").contains("Confirm that it is you"));
    olga.step_up().await;
    let approved = olga.submit(&format!("{asked}/approve"), &[("reason", "go ahead")]).await;
    assert_eq!(location(&approved), asked);
    assert!(gateway.grants_of("kim").await.is_empty(), "the clock starts when she begins");
    assert_eq!(location(&kim.submit(&format!("{asked}/begin"), &[]).await), asked);
    assert_eq!(kim.submit(&format!("{asked}/begin"), &[]).await.status(), StatusCode::CONFLICT, "once");

    ready(&gateway, &kim).await;
    kim.step_up().await;
    let mut screen = Screen::open(&kim, "lab/web-1", "control", &ticket(&kim, "control").await).await;
    screen.handshake().await;
    assert!(screen.picture().await > 10_000, "it is open");
    // The request's page lists what was done under it.
    let mut html = String::new();
    for _ in 0..50 {
        html = olga.page(&asked).await;
        if html.contains("use its keyboard and mouse") && html.contains("not over yet") {
            break;
        }
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
    assert!(html.contains("use its keyboard and mouse") && html.contains("go ahead"), "{html}");
    // The rule gives an hour, not four.
    for _ in 0..5 {
        gateway.clock.advance(time::Duration::minutes(11));
        kim.page("/requests").await;
        olga.page("/requests").await;
    }
    assert!(screen.picture().await > 10_000, "55 minutes later");
    gateway.clock.advance(time::Duration::minutes(6));
    let (code, reason) = screen.ended(Duration::from_secs(5)).await;
    assert!(code == 4000 && reason.starts_with("access ended: "), "{code} {reason}");
    assert_eq!(kim.get("/c/lab/web-1").await.status(), StatusCode::NOT_FOUND);
    let id = asked.trim_start_matches("/requests/");
    gateway.find_event(&["--kind", "request"], |e| e["reason"] == "the access is over" && e["on"] == id).await;
    let shown: Value = kim.get("/api/v1/requests").await.json().await.expect("JSON");
    assert_eq!((&shown["requests"][0]["id"], &shown["requests"][0]["state"]), (&id.into(), &"over".into()), "{shown}");
    gateway.stop().await;
}

// SEC-124
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn approving_takes_as_many_as_the_rule_says_with_a_passkey_where_there_is_one() {
    let rule = RULE.replace("[\"olga\"]", "[\"olga\", \"otto\"]\napprovals = 2");
    let gateway = TestGateway::start(&rule.replace("tag:web", "tag:web\", \"hypervisor:lab")).await;
    let ada = Person::first_administrator(&gateway, "ada").await;
    let (kim, olga, otto) = (ada.invite("kim").await, ada.invite("olga").await, ada.invite("otto").await);
    let mut key = olga.add_passkey().await;
    let wish = [("role", "viewer"), ("on", "hypervisor:lab"), ("reason", "to look at it"), ("hours", "1")];
    let asked = location(&kim.submit("/requests", &wish).await);
    gateway.clock.advance(time::Duration::minutes(6));
    // A fresh code is not enough for whoever has a passkey.
    olga.step_up().await;
    let coded = olga.submit(&format!("{asked}/approve"), &[]).await;
    assert!(coded.text().await.expect("a page").contains("Confirm that it is you"));
    let answer = olga.answer_of(&mut key, "/api/v1/passkeys/step-up").await;
    assert_eq!(location(&olga.submit("/step-up", &[("code", &answer), ("next", "/me")]).await), "/me");
    assert_eq!(location(&olga.submit(&format!("{asked}/approve"), &[]).await), asked);
    assert_eq!(olga.submit(&format!("{asked}/approve"), &[]).await.status(), StatusCode::FORBIDDEN, "once each");
    assert!(olga.page(&asked).await.contains("1 of 2"));
    assert_eq!(kim.submit(&format!("{asked}/begin"), &[]).await.status(), StatusCode::CONFLICT);
    otto.step_up().await;
    assert_eq!(location(&otto.submit(&format!("{asked}/approve"), &[]).await), asked);
    // Who refuses wins until it has begun.
    assert_eq!(location(&olga.submit(&format!("{asked}/refuse"), &[("reason", "no")]).await), asked);
    assert_eq!(kim.submit(&format!("{asked}/begin"), &[]).await.status(), StatusCode::CONFLICT);
    assert!(gateway.grants_of("kim").await.is_empty());
    // From a shell, by its id.
    let wish = [("role", "viewer"), ("on", "tag:x"), ("reason", "to look at it"), ("hours", "1")];
    let asked = location(&kim.submit("/requests", &wish).await);
    let id = asked.trim_start_matches("/requests/");
    // It knows no machines, and one rule asks for two people: it approves nothing.
    let (code, text) = gateway.shell(&["request", "approve", id, "--reason", "by telephone"]);
    assert_eq!(code, Some(2), "{text}");
    ada.step_up().await;
    assert_eq!(location(&ada.submit(&format!("{asked}/approve"), &[]).await), asked);
    let (code, text) = gateway.shell(&["request", "refuse", "00000000000000000000000000000007"]);
    assert_eq!(code, Some(1), "{text}");
    assert_eq!(location(&kim.submit(&format!("{asked}/begin"), &[]).await), asked);
    assert_eq!(gateway.grants_of("kim").await.len(), 1);
    // Given back early.
    assert_eq!(location(&kim.submit(&format!("{asked}/end"), &[]).await), asked);
    assert!(gateway.grants_of("kim").await.is_empty());
    let (_, text) = gateway.shell(&["request", "show", id, "--json"]);
    assert!(text.contains("\"state\":\"ended\""), "{text}");
    gateway.stop().await;
}

/// A service that takes what it is told: the heads and bodies of requests. It fails the first.
async fn sink(dir: &std::path::Path) -> (u16, Arc<Mutex<Vec<(String, String)>>>) {
    let certs = CertificateDer::pem_file_iter(dir.join("tls/cert.pem")).expect("a certificate");
    let key = PrivateKeyDer::from_pem_file(dir.join("tls/key.pem")).expect("a key");
    let provider = Arc::new(tokio_rustls::rustls::crypto::aws_lc_rs::default_provider());
    let config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .expect("versions")
        .with_no_client_auth()
        .with_single_cert(certs.map(|c| c.expect("whole")).collect(), key)
        .expect("a server");
    let acceptor = TlsAcceptor::from(Arc::new(config));
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("bound");
    let port = listener.local_addr().expect("an address").port();
    let heard: Arc<Mutex<Vec<(String, String)>>> = Arc::default();
    let told = Arc::clone(&heard);
    #[expect(clippy::disallowed_methods, reason = "a peer of a test")]
    tokio::spawn(async move {
        let mut first = true;
        while let Ok((stream, _)) = listener.accept().await {
            let Ok(mut stream) = acceptor.accept(stream).await else { continue };
            let mut text = String::new();
            loop {
                let mut some = [0; 4096];
                let n = stream.read(&mut some).await.unwrap_or(0);
                text.push_str(&String::from_utf8_lossy(&some[..n]));
                let whole = text.split_once("\r\n\r\n").is_some_and(|(_, body)| body.ends_with('}'));
                if n == 0 || whole {
                    break;
                }
            }
            let (status, failed) = if first { ("503 Not now", true) } else { ("204 Taken", false) };
            first = false;
            if let Some((head, body)) = text.split_once("\r\n\r\n").filter(|_| !failed) {
                told.lock().expect("whole").push((head.to_owned(), body.to_owned()));
            }
            let _ = stream.write_all(format!("HTTP/1.1 {status}\r\nContent-Length: 0\r\n\r\n").as_bytes()).await;
            let _ = stream.shutdown().await;
        }
    });
    (port, heard)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_step_is_told_to_a_service_signed_and_again_when_it_failed() {
    let dir = tempfile::tempdir().expect("a temporary folder");
    let at = std::net::SocketAddr::from(([127, 0, 0, 1], crate::support::gateway::free_port()));
    portcullis_server::init(dir.path(), "localhost", at, &portcullis_domain::SystemClock).expect("init");
    let (port, heard) = sink(dir.path()).await;
    let secret = "0123456789abcdef0123456789abcdef";
    let file = dir.path().join("webhook.secret");
    std::fs::write(&file, secret).expect("written");
    std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o600)).expect("private");
    let hook = format!(
        "[requests]\nwebhook = \"https://localhost:{port}/hook\"\nwebhook_secret_file = \"webhook.secret\"\n\
         webhook_ca_file = \"tls/ca.pem\"\n"
    );
    let gateway = TestGateway::start_in(dir, &hook).await;
    let ada = Person::first_administrator(&gateway, "ada").await;
    let kim = ada.invite("kim").await;
    let wish = [("role", "viewer"), ("on", "tag:web"), ("reason", "to look at it"), ("hours", "1")];
    let asked = location(&kim.submit("/requests", &wish).await);
    ada.step_up().await;
    assert_eq!(location(&ada.submit(&format!("{asked}/refuse"), &[("reason", "no")]).await), asked);
    for _ in 0..100 {
        if heard.lock().expect("whole").len() >= 2 {
            break;
        }
        // The first one was not taken: it is tried again a second later.
        gateway.clock.advance(time::Duration::SECOND);
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    let heard = heard.lock().expect("whole").clone();
    let mut events: Vec<Value> = heard.iter().map(|(_, body)| serde_json::from_str(body).expect("JSON")).collect();
    // What is tried again holds nothing up, so that they may come in another order: each says when it was.
    events.sort_by_key(|event| event["event"].to_string());
    assert!(events[0]["at"].as_str() <= events[1]["at"].as_str());
    assert_eq!(events.iter().map(|e| e["event"].as_str().expect("a word")).collect::<Vec<_>>(), ["asked", "refused"]);
    assert_eq!(
        (&events[1]["who"], &events[1]["by"], &events[1]["words"]),
        (&"kim".into(), &"ada".into(), &"no".into())
    );
    assert_eq!(events[0]["link"], format!("{}{asked}", gateway.url()));
    for (head, body) in &heard {
        let line = head.lines().find_map(|l| l.strip_prefix("x-portcullis-signature: ")).expect("signed");
        let (at, tag) = line.split_once(",v1=").expect("a time and a signature");
        let at = at.strip_prefix("t=").expect("a time");
        let right = python(&format!(
            "import hmac; print(hmac.new({secret:?}.encode(), ({at:?} + '.' + {body:?}).encode(), 'sha256').hexdigest())"
        ));
        assert_eq!(right.trim(), tag);
    }
    gateway.stop().await;
}
