// SPDX-License-Identifier: Apache-2.0
//! A folder of files as the only source of who may do what.

use crate::support::{Person, TestGateway, page, person::location};
use reqwest::StatusCode;

const LAB: &str = "[policy]\nsource = \"files\"\ndirectory = \"policy\"\n\
                   [[hypervisors]]\nname = \"lab\"\nkind = \"qemu\"\n[[hypervisors.guests]]\nid = \"vm-1\"\n\
                   tags = [\"web\"]\nvnc = \"127.0.0.1:9\"\n";
const OURS: &str =
    "p, person:ada, administrator, everything, , allow\np, person:ada, security-lead, everything, , allow\n";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn where_files_are_the_only_source_pages_and_shells_say_where_to_change_them() {
    let gateway = TestGateway::start(LAB).await;
    // There is no folder yet: what comes with the gateway is in effect, and an alarm says so.
    let alarm =
        |words: &'static str| move |e: &serde_json::Value| e["reason"].as_str().is_some_and(|r| r.contains(words));
    gateway.find_event(&["--kind", "alarm"], alarm("is not taken over")).await;
    let ada = Person::first_administrator(&gateway, "ada").await;
    let zoe = ada.invite("zoe").await;
    gateway.clock.advance(time::Duration::minutes(2));
    ada.step_up().await;
    let user = gateway.user_id("zoe").await;
    let says = "Who may do what is kept in files here: change them in ";
    let grant = [("user", &*user), ("role", "viewer"), ("on", "tag:web"), ("hours", "1"), ("step_up_seconds", "300")];
    for path in ["/grants", "/grants/preview"] {
        let answer = ada.submit(path, &grant).await;
        assert_eq!(answer.status(), StatusCode::UNPROCESSABLE_ENTITY, "{path}");
        assert!(page::unescape(&answer.text().await.expect("a page")).contains(says), "{path}");
    }
    let own = gateway.grants_of("ada").await.pop().expect("from the set-up");
    for (path, fields) in [("/groups", vec![("name", "night")]), ("/grants/revoke", vec![("grant", &*own)])] {
        let answer = ada.submit(path, &fields).await;
        assert_eq!(answer.status(), StatusCode::CONFLICT, "{path}");
        assert!(page::unescape(&answer.text().await.expect("a page")).contains(says), "{path}");
    }
    for verb in
        [&["grant", "add", "zoe", "viewer", "tag:web"][..], &["group", "add", "night"], &["policy", "rollback", "1"]]
    {
        let (code, text) = gateway.shell(verb);
        assert!(code == Some(2) && text.contains("kept in files"), "{verb:?} {code:?} {text}");
    }
    assert!(gateway.grants_of("zoe").await.is_empty());

    let folder = gateway.dir.path().join("policy");
    std::fs::create_dir_all(folder.join("tests")).expect("a folder");
    let write = |name: &str, text: &str| std::fs::write(folder.join(name), text).expect("written");
    // A set that leaves nobody who could run the gateway is none, since nothing else gives that any more.
    write("grants.csv", "p, person:zoe, viewer, tag:web, , allow\n");
    let (code, text) = gateway.shell(&["policy", "apply"]);
    assert!(code == Some(2) && text.contains("the last one who can manage people"), "{text}");
    write("grants.csv", &format!("{OURS}p, person:zoe, viewer, tag:web, , allow\n"));
    let (code, text) = gateway.shell(&["policy", "apply", "--why", "as reviewed"]);
    assert!(code == Some(0) && text.contains("Version 1 is in effect"), "{text}");
    let other = gateway.dir.path().join("other.csv");
    std::fs::write(&other, OURS).expect("written");
    let (code, text) = gateway.shell(&["policy", "apply", &other.display().to_string()]);
    assert!(code == Some(2) && text.contains("is the only source of the policy here"), "{text}");
    let mut status = StatusCode::NOT_FOUND;
    for _ in 0..50 {
        status = zoe.get("/c/lab/vm-1").await.status();
        if status != StatusCode::NOT_FOUND {
            break;
        }
        tokio::time::sleep(std::time::Duration::from_millis(100)).await;
    }
    assert_eq!(status, StatusCode::FORBIDDEN, "a viewer");
    // Access for a time is still asked for and approved: it ends by itself.
    let wish = [("role", "viewer"), ("on", "machine:lab/vm-1"), ("reason", "to look"), ("hours", "1")];
    assert!(location(&zoe.submit("/requests", &wish).await).starts_with("/requests/"));

    // The folder as it is when the gateway starts is in effect; a wrong one keeps what was, and says so.
    write("grants.csv", OURS);
    gateway.restart().await;
    let (_, text) = gateway.shell(&["policy", "history"]);
    assert!(text.contains("the folder, as the gateway started"), "{text}");
    assert!(gateway.grants_of("zoe").await.is_empty());
    let event = |e: &serde_json::Value| e["reason"].as_str().is_some_and(|r| r.starts_with("version 2 with SHA-256"));
    gateway.find_event(&["--kind", "policy"], event).await;
    write("grants.csv", &format!("{OURS}p, person:zoe, administrator, everything, , perhaps\n"));
    gateway.restart().await;
    gateway.find_event(&["--kind", "alarm"], alarm("grants.csv:3")).await;
    assert_eq!(gateway.grants_of("ada").await.len(), 2, "the last good version");
    assert!(gateway.grants_of("zoe").await.is_empty());
    write("grants.csv", OURS);
    write(
        "tests/zoe.toml",
        "[[test]]\nwho = \"person:zoe\"\naction = \"view\"\non = \"lab/vm-1\"\nat = \"2026-12-01T10:00:00Z\"\nverdict = \"permit\"\n",
    );
    gateway.restart().await;
    gateway.find_event(&["--kind", "alarm"], alarm("tests/zoe.toml")).await;
    let (_, text) = gateway.shell(&["policy", "history", "--json"]);
    assert_eq!(text.lines().count(), 2, "what stands there already is no new version: {text}");
    gateway.stop().await;
}
