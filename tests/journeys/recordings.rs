// SPDX-License-Identifier: Apache-2.0
//! Recordings after a stop that nobody planned: their rows are ended, and what is not whole never looks whole.

use crate::support::{
    Person, TestGateway,
    lab::{lab, ready, ticket},
    peers::{self, Peer},
    screen::Screen,
};
use reqwest::StatusCode;
use serde_json::Value;
use std::{path::Path, time::Duration};

/// `portcullis recording verify`: its exit code, and its answers by id.
fn verify(dir: &Path, ids: &[&str]) -> (Option<i32>, Vec<Value>) {
    let config = dir.join("portcullis.toml").display().to_string();
    let all = [&["recording", "verify", "--json", "--config", &config][..], ids].concat();
    let out = peers::try_program(&all);
    let text = String::from_utf8_lossy(&out.stdout).into_owned();
    (out.status.code(), text.lines().map(|l| serde_json::from_str(l).expect("JSON")).collect())
}

fn of<'a>(rows: &'a [Value], id: &str) -> &'a Value {
    rows.iter().find(|r| r["id"] == id).unwrap_or_else(|| panic!("{id}: {rows:#?}"))
}

fn found<'a>(rows: &'a [Value], id: &str) -> &'a str {
    of(rows, id)["found"].as_str().expect("words")
}

/// Makes a recording's row look as a stop of the gateway leaves it.
fn forget_end(dir: &Path, id: &str) {
    let file = dir.join("portcullis.db").display().to_string();
    let out = peers::python(&format!(
        "import sqlite3; d = sqlite3.connect({file:?}); d.execute(\"update recordings set ended_at = null, bytes = 0, \
         chunks = 0, head = null, ending = null where id = '{id}'\"); d.commit()"
    ));
    assert!(out.is_empty(), "{out}");
}

async fn watch(person: &Person<'_>) {
    let mut screen = Screen::open(person, "lab/web-1", "control", &ticket(person, "control").await).await;
    screen.handshake().await;
    screen.picture().await;
    drop(screen);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_stop_cut_is_ended_at_the_next_start_and_never_looks_whole() {
    let guest = Peer::qemu("web-1", "none");
    let gateway = TestGateway::start(&lab(&guest)).await;
    let ada = Person::first_administrator(&gateway, "ada").await;
    let bob = ada.invite("bob").await;
    ada.grant("bob", "console-user", "tag", "web").await;
    ready(&gateway, &bob).await;
    for _ in 0..4 {
        watch(&bob).await;
    }
    let mut screen = Screen::open(&bob, "lab/web-1", "control", &ticket(&bob, "control").await).await;
    screen.handshake().await;
    screen.picture().await;
    gateway.settled_recordings(1).await;
    let (code, rows) = verify(gateway.dir.path(), &[]);
    assert_eq!((code, rows.len()), (Some(0), 5), "{rows:#?}");
    let live = rows.iter().find(|r| r["whole"].is_null()).expect("the one that is being written");
    let live_id = live["id"].as_str().expect("an id").to_owned();
    assert_eq!(verify(gateway.dir.path(), &[&live_id]).0, Some(1), "named, it has to be whole");
    let mut ids: Vec<String> = rows.iter().map(|r| r["id"].as_str().expect("an id").to_owned()).collect();
    ids.retain(|id| *id != live_id);
    let (ada, bob) = (ada.into_key(), bob.into_key());
    let dir = gateway.stop().await;
    drop(bob);

    // cut: its end is missing. altered: a byte of it, too. closed: only the row was lost. good: nothing happened to it.
    let [cut, altered, closed, good] = ids.as_slice() else { panic!("{ids:?}") };
    let file = |id: &str| dir.path().join("recordings").join(format!("{id}.pcr"));
    let shorten = |id: &str, change: fn(&mut Vec<u8>)| {
        let mut bytes = std::fs::read(file(id)).expect("the file");
        change(&mut bytes);
        std::fs::write(file(id), bytes).expect("written");
        forget_end(dir.path(), id);
    };
    shorten(cut, |bytes| bytes.truncate(bytes.len() - 10));
    shorten(altered, |bytes| bytes[200] ^= 1);
    forget_end(dir.path(), closed);
    // Nothing runs: everything is looked at, and what is open was left open.
    let (code, rows) = verify(dir.path(), &[]);
    assert_eq!((code, rows.len()), (Some(1), 5), "{rows:#?}");
    assert!(found(&rows, cut).contains("without having been closed; as they were sealed: "), "{rows:#?}");
    assert!(found(&rows, altered).contains("altered"), "{rows:#?}");
    assert!(found(&rows, closed).contains("the store knows no end"), "{rows:#?}");
    assert_eq!(of(&rows, good)["whole"], true);

    let gateway = TestGateway::start_in(dir, &lab(&guest)).await;
    gateway.settled_recordings(0).await;
    let ends = gateway.recording_ends().await;
    let end = |id: &str| ends.iter().find(|r| r.id.to_string() == id).expect("a row");
    let why = |id: &str| end(id).ending.clone().unwrap_or_default();
    assert_eq!((why(cut).as_str(), end(cut).head), ("the gateway stopped before it ended", None));
    assert!(end(cut).chunks > 0 && end(cut).bytes > 0, "what is left is counted");
    assert!(why(altered).contains("before it ended; chunk 0: altered"), "{}", why(altered));
    assert!(end(closed).head.is_some(), "what was closed is whole");
    let (code, rows) = verify(gateway.dir.path(), &[]);
    assert_eq!(code, Some(1));
    for (id, whole) in [(cut, false), (altered, false), (closed, true), (good, true), (&live_id, true)] {
        assert_eq!(of(&rows, id)["whole"], whole, "{id} {rows:#?}");
    }
    let mut ada = Person::with_key(&gateway, "ada", ada);
    ada.sign_in().await;
    let html = ada.page("/recordings").await;
    assert_eq!((html.matches(">not whole<").count(), html.matches(">whole<").count()), (2, 3));
    std::fs::remove_file(gateway.dir.path().join("recordings").join(format!("{good}.pcr"))).expect("removed");
    let html = ada.page("/recordings").await;
    assert_eq!(html.matches(">not whole<").count(), 3, "a file that is gone is seen at once");
    gateway.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_recording_that_never_began_is_not_whole() {
    let guest = Peer::qemu("web-1", "none");
    let gateway = TestGateway::start(&lab(&guest)).await;
    let ada = Person::first_administrator(&gateway, "ada").await;
    let bob = ada.invite("bob").await;
    ada.grant("bob", "console-user", "tag", "web").await;
    ready(&gateway, &bob).await;
    let folder = gateway.dir.path().join("recordings");
    std::fs::remove_dir_all(&folder).expect("removed");
    std::fs::write(&folder, "in the way").expect("written");
    let mut screen = Screen::open(&bob, "lab/web-1", "control", &ticket(&bob, "control").await).await;
    assert_eq!(screen.ended(Duration::from_secs(5)).await.0, 4003);
    gateway.settled_recordings(0).await;
    assert!(ada.page("/recordings").await.contains(">not whole<"));
    assert_eq!(verify(gateway.dir.path(), &[]).0, Some(1));
    gateway.stop().await;
}

// SEC-004
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn recordings_are_told_to_those_alone_who_may_read_them() {
    let gateway = TestGateway::start("").await;
    let ada = Person::first_administrator(&gateway, "ada").await;
    let (bob, olga) = (ada.invite("bob").await, ada.invite("olga").await);
    ada.grant("bob", "console-user", "everything", "").await;
    ada.grant("olga", "auditor", "everything", "").await;
    let stranger = Person::stranger(&gateway, "nobody");
    assert_eq!(stranger.get("/recordings").await.status(), StatusCode::SEE_OTHER);
    assert_eq!(bob.get("/recordings").await.status(), StatusCode::FORBIDDEN);
    assert_eq!(olga.get("/recordings").await.status(), StatusCode::OK);
    // Their files have no address at all, for anybody.
    for person in [&stranger, &bob, &olga, &ada] {
        for path in ["/recordings/01935d0a00007000800000000000000a", "/media/replay/x.cast"] {
            assert_eq!(person.get(path).await.status(), StatusCode::NOT_FOUND, "{path}");
        }
    }
    gateway.stop().await;
}
