// SPDX-License-Identifier: Apache-2.0
//! A trail that was deleted, cut or put back from an older copy is noticed, and goes on only after somebody said so in
//! the trail itself; and an index that was edited is never shown as the truth.

use crate::support::{Person, TestGateway, gateway, peers::Peer, person::location};
use reqwest::StatusCode;
use std::{
    fs,
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
};
use tempfile::TempDir;

const REASON: &str = "the disk of the old machine broke";

fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).expect("a folder");
    for entry in fs::read_dir(from).expect("a folder").map(|e| e.expect("an entry")) {
        let target = to.join(entry.file_name());
        if entry.path().is_dir() { copy(&entry.path(), &target) } else { drop(fs::copy(entry.path(), &target)) }
    }
}

/// A gateway with a past: events of the server and of the command line.
async fn with_a_past(store: Option<&str>) -> TempDir {
    let gateway = match store {
        Some(url) => TestGateway::start_on(url, "").await,
        None => TestGateway::start("").await,
    };
    let ada = Person::first_administrator(&gateway, "ada").await;
    assert_eq!(gateway.shell(&["user", "invite", "zoe"]).0, Some(0));
    // What the server wrote last is in the index.
    assert_eq!(ada.submit("/users", &[("name", "bea"), ("display_name", "")]).await.status(), StatusCode::OK);
    gateway.find_event(&["--user", "ada"], |e| e["reason"].to_string().contains("bea")).await;
    drop(ada);
    gateway.stop().await
}

/// Every verb that would go on as if nothing had happened is refused, and `verify` says no.
fn is_missed(dir: &TempDir, words: &str) {
    crate::journeys::refused_starts::refused(dir, &["trail.dir", words, "audit acknowledge"]);
    let (code, text) = gateway::shell(dir.path(), &["audit", "verify"]);
    assert!(code == Some(1) && text.contains("broken"), "{code:?} {text}");
    for verb in [&["audit", "rebuild"][..], &["user", "invite", "eve"]] {
        let (code, text) = gateway::shell(dir.path(), verb);
        assert!(code == Some(2) && text.contains("audit acknowledge"), "{verb:?} {code:?} {text}");
    }
}

/// Acknowledged, it goes on, and the loss stands in the trail.
async fn goes_on(dir: TempDir, words: &str) -> TempDir {
    for bad in ["", "two\nlines"] {
        assert_eq!(gateway::shell(dir.path(), &["audit", "acknowledge", "--reason", bad]).0, Some(2));
    }
    let (code, text) = gateway::shell(dir.path(), &["audit", "acknowledge", "--reason", REASON]);
    assert_eq!(code, Some(0), "{text}");
    assert_eq!(gateway::shell(dir.path(), &["audit", "acknowledge", "--reason", REASON]).0, Some(1), "nothing is left");
    let gateway = TestGateway::start_in(dir, "").await;
    let said = |e: &serde_json::Value| {
        e["source"] == "log" && e["reason"].as_str().is_some_and(|r| r.contains(REASON) && r.contains(words))
    };
    gateway.find_event(&["--kind", "audit"], said).await;
    gateway.find_event(&["--kind", "system"], |e| e["source"] == "log").await;
    let (code, text) = gateway.shell(&["audit", "verify"]);
    assert!(code == Some(0) && text.contains("The trail is whole"), "{text}");
    let dir = gateway.stop().await;
    // It is remembered: the next start asks no more.
    TestGateway::start_in(dir, "").await.stop().await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_deleted_log_of_the_server_stops_the_start_until_it_is_acknowledged() {
    let dir = with_a_past(None).await;
    fs::remove_dir_all(dir.path().join("trail/server")).expect("deleted");
    is_missed(&dir, "is missing");
    let dir = goes_on(dir, "is missing").await;
    // The same again, with the whole trail.
    fs::remove_dir_all(dir.path().join("trail")).expect("deleted");
    is_missed(&dir, "is missing");
    goes_on(dir, "is missing").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_deleted_log_of_the_command_line_stops_the_start_until_it_is_acknowledged() {
    let dir = with_a_past(None).await;
    fs::remove_dir_all(dir.path().join("trail/command-line")).expect("deleted");
    is_missed(&dir, "is missing");
    goes_on(dir, "is missing").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_older_copy_of_a_log_stops_the_start_until_it_is_acknowledged() {
    for log in ["server", "command-line"] {
        let dir = with_a_past(None).await;
        let (at, old) = (dir.path().join("trail").join(log), dir.path().join("old"));
        copy(&at, &old);
        // It is whole in itself, checkpoints and all, and ends too early.
        let gateway = TestGateway::start_in(dir, "").await;
        assert_eq!(gateway.shell(&["user", "invite", "bob"]).0, Some(0));
        let stranger = Person::stranger(&gateway, "ada");
        let fields = [("name", "ada"), ("password", "not the one"), ("next", "/")];
        stranger.post("/sign-in", &fields).await;
        gateway.find_event(&["--kind", "sign-in"], |e| e["outcome"] == "denied").await;
        let dir = gateway.stop().await;
        fs::remove_dir_all(&at).expect("deleted");
        fs::rename(&old, &at).expect("put back");
        is_missed(&dir, " of its ");
        let dir = goes_on(dir, " of its ").await;
        let aside: Vec<PathBuf> = fs::read_dir(dir.path().join("trail/set-aside"))
            .expect("a folder")
            .map(|e| e.expect("one").path())
            .collect();
        assert_eq!(aside.len(), 1, "what is left of it is kept");
        // And missed when it goes as well.
        fs::remove_dir_all(&aside[0]).expect("deleted");
        is_missed(&dir, "is missing");
        goes_on(dir, "is missing").await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_two_installations_on_one_postgresql_each_misses_its_own_logs_only() {
    let database = Peer::postgres();
    let one = with_a_past(Some(database.get("URL"))).await;
    let other = TestGateway::start_on(database.get("URL"), "").await;
    let (code, text) = other.shell(&["audit", "verify"]);
    assert!(code == Some(0) && text.contains("not here"), "{text}");
    let other = other.stop().await;
    fs::remove_dir_all(one.path().join("trail")).expect("deleted");
    is_missed(&one, "is missing");
    TestGateway::start_in(other, "").await.stop().await;
    goes_on(one, "is missing").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nobody_else_may_look_into_the_trail() {
    let dir = with_a_past(None).await;
    for log in ["", "server", "command-line"] {
        let mode = fs::metadata(dir.path().join("trail").join(log)).expect("a folder").permissions().mode();
        assert_eq!(mode & 0o777, 0o700, "trail/{log}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_edited_index_is_never_shown_as_the_truth() {
    let gateway = TestGateway::start("").await;
    let ada = Person::first_administrator(&gateway, "ada").await;
    let stranger = Person::stranger(&gateway, "ada");
    let fields = [("name", "ada"), ("password", "not the one"), ("next", "/")];
    assert_eq!(stranger.post("/sign-in", &fields).await.status(), StatusCode::UNPROCESSABLE_ENTITY);
    let denied = gateway.find_event(&["--kind", "sign-in"], |e| e["outcome"] == "denied").await;
    let page = format!("/trail/{}/{}", denied["node"].as_str().expect("a node"), denied["seq"]);
    assert!(ada.page(&page).await.contains("denied"));

    // Whoever can write the database makes it a good sign-in of somebody else.
    gateway::sql(
        &gateway.dir.path().join("portcullis.db"),
        &format!(
            "update trail_events set outcome = 'done', user_name = 'mallory', reason = '' where seq = {}",
            denied["seq"]
        ),
    );
    let answer = ada.get(&page).await;
    assert_eq!(answer.status(), StatusCode::SERVICE_UNAVAILABLE, "{}", location(&answer));
    let html = answer.text().await.expect("a page");
    assert!(!html.contains("mallory") && html.contains("segment") && html.contains("audit verify"), "{html}");
    let list = ada.page("/trail").await;
    assert!(!list.contains("mallory") && list.contains("not proven"), "{list}");
    let (code, text) = gateway.shell(&["audit", "tail", "-n", "1000"]);
    assert!(code == Some(1) && text.contains("mismatch") && !text.contains("mallory"), "{text}");
    // The index can be made anew from the log, which says what it always said.
    assert_eq!(gateway.shell(&["audit", "rebuild"]).0, Some(0));
    assert!(ada.page(&page).await.contains("denied"));
    gateway.stop().await;
}
