// SPDX-License-Identifier: Apache-2.0
//! The real program, killed at any instant and started again on the same folder: what it acknowledged is in the trail,
//! the trail is whole, and sessions, tokens and consoles work without anybody mending anything.
#![expect(clippy::disallowed_methods, reason = "the instant of a kill is no key")]

use crate::support::{
    FakeLxd, Person, TestGateway, full_length,
    gateway::free_port,
    lab::{lab, ready, ticket},
    peers::Peer,
    screen::Screen,
};
use portcullis_domain::{Clock as _, SystemClock};
use rand::RngExt as _;
use reqwest::{Client, StatusCode, header};
use serde_json::Value;
use std::{
    collections::BTreeSet,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

/// Tools that call at once, each with a token of its own.
const TOOLS: usize = 3;
/// Containers that each of them calls about, one after the other: more than a round has time for.
const EACH: usize = 200;

/// What was answered, by the name that only this request had.
#[derive(Default)]
struct Acknowledged {
    calls: Mutex<BTreeSet<String>>,
    pages: Mutex<BTreeSet<String>>,
}

/// Calls the API until the gateway is gone. The name of the container is the name of the call.
async fn call(client: &Client, port: u16, token: &str, tool: usize, told: &Acknowledged, over: &AtomicBool) {
    for n in 0..EACH {
        let container = format!("k{tool}-{n}");
        let request = client
            .get(format!("https://localhost:{port}/1.0/instances/{container}"))
            .header(header::AUTHORIZATION, format!("Bearer {token}"));
        match request.send().await {
            Ok(answer) => {
                assert_eq!(answer.status(), StatusCode::OK, "{container}");
                told.calls.lock().expect("whole").insert(format!("lxd/default:{container}"));
            }
            Err(_) if over.load(Ordering::SeqCst) => return,
            // It was killed a moment ago, and that is not known here yet.
            Err(_) => tokio::time::sleep(Duration::from_millis(5)).await,
        }
        tokio::time::sleep(Duration::from_millis(25)).await;
    }
}

/// Waits until the inventory is there again: what is not in it does not exist.
async fn known(client: &Client, port: u16, token: &str) {
    for _ in 0..200 {
        let request = client.get(format!("https://localhost:{port}/1.0/instances/k0-0")).bearer_auth(token);
        match request.send().await.expect("an answer").status() {
            StatusCode::OK => return,
            other => assert_eq!(other, StatusCode::NOT_FOUND),
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    panic!("the inventory does not come back");
}

/// Changes something by a page until the gateway is gone: tokens, whose names are in the trail.
async fn change(person: &Person<'_>, csrf: &str, name: &str, told: &Acknowledged, over: &AtomicBool) {
    for n in 0.. {
        let token = format!("{name}-{n}");
        let fields = [("csrf", csrf), ("name", &token), ("hypervisor", "lxd"), ("days", "1")];
        match person.try_post("/me/tokens", &fields).await {
            Some(status) => {
                assert_eq!(status, StatusCode::OK, "{token}");
                told.pages.lock().expect("whole").insert(token);
            }
            None if over.load(Ordering::SeqCst) => return,
            None => {}
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// Everything that was acknowledged since the event `after` is in the index, once that has caught up. Gives the newest
/// event that was seen.
async fn look(gateway: &TestGateway, told: &Acknowledged, after: u64) -> u64 {
    let seq = |e: &Value| e["seq"].as_u64().expect("a number");
    let calls = std::mem::take(&mut *told.calls.lock().expect("whole"));
    let pages = std::mem::take(&mut *told.pages.lock().expect("whole"));
    let limit = (4 * (calls.len() + pages.len()) + 200).to_string();
    let mut missing = (BTreeSet::new(), BTreeSet::new());
    for _ in 0..50 {
        let mut found = gateway.search(&["--kind", "api", "--limit", &limit]);
        found.retain(|e| seq(e) > after);
        let newest = found.iter().map(seq).max().unwrap_or(after);
        let opened: BTreeSet<_> =
            found.iter().filter(|e| e["phase"] == "opened").filter_map(|e| e["on"].as_str()).collect();
        missing.0 = calls.iter().filter(|c| !opened.contains(c.as_str())).cloned().collect();
        // A page is answered when the end of its bracket is durable too; that names the token.
        let found = gateway.search(&["--kind", "token", "--limit", &limit]);
        let begun: BTreeSet<_> =
            found.iter().filter(|e| e["phase"] == "opened").map(|e| &e["request"]).map(ToString::to_string).collect();
        let done: BTreeSet<_> = found
            .iter()
            .filter(|e| e["outcome"] == "done" && begun.contains(&e["request"].to_string()))
            .filter_map(|e| e["on"].as_str())
            .collect();
        missing.1 = pages.iter().filter(|p| !done.contains(p.as_str())).cloned().collect();
        if missing.0.is_empty() && missing.1.is_empty() {
            return newest;
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    panic!("acknowledged and not in the trail: {missing:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_killed_program_loses_nothing_and_starts_again_by_itself() {
    let containers: Vec<_> = (0..TOOLS).flat_map(|tool| (0..EACH).map(move |n| format!("k{tool}-{n}"))).collect();
    let containers: Vec<_> = containers.iter().map(String::as_str).collect();
    let rounds = if full_length() { 200 } else { 20 };
    let (lxd, guest, port) = (FakeLxd::start(&containers), Peer::qemu("web-1", "none"), free_port());
    let gateway = TestGateway::start(&[lab(&guest), lxd.config("lxd", &format!("port = {port}"))].join("\n")).await;
    let ada = Person::first_administrator(&gateway, "ada").await;
    let mut tokens = Vec::new();
    for _ in 0..TOOLS {
        tokens.push(ada.token("lxd").await);
    }
    gateway.move_out().await;
    let mut stepped_up = Instant::now();
    let (told, mut slowest, mut acknowledged) = (Arc::new(Acknowledged::default()), Duration::ZERO, (0, 0));
    let mut newest = 0;
    for round in 0..rounds {
        let over = AtomicBool::new(false);
        let client = Client::builder().tls_certs_only([gateway.ca()]).build().expect("a client");
        let csrf = crate::support::page::csrf(&ada.page("/me").await).expect("a token");
        known(&client, port, &tokens[0]).await;
        let wait = Duration::from_millis(rand::rng().random_range(20..700));
        let calls = futures_util::future::join_all(
            tokens.iter().enumerate().map(|(tool, token)| call(&client, port, token, tool, &told, &over)),
        );
        let page = format!("p{round}");
        let end = async {
            tokio::time::sleep(wait).await;
            gateway.kill().await;
            over.store(true, Ordering::SeqCst);
        };
        tokio::join!(calls, change(&ada, &csrf, &page, &told, &over), end);
        // Every third time it is killed while it starts, too.
        if round % 3 == 0 {
            gateway.start_program(Duration::from_millis(rand::rng().random_range(1..120))).await;
            gateway.kill().await;
        }
        let took = gateway.start_program(Duration::from_secs(20)).await.expect("it starts again");
        slowest = slowest.max(took);
        acknowledged.0 += told.calls.lock().expect("whole").len();
        acknowledged.1 += told.pages.lock().expect("whole").len();
        newest = look(&gateway, &told, newest).await;
        let (code, text) = gateway.shell(&["audit", "verify"]);
        assert_eq!(code, Some(0), "round {round}: {text}");
        assert!(text.contains("The trail is whole"), "{text}");
        // The session of before is somebody still. A code counts five minutes.
        ada.page("/me").await;
        if stepped_up.elapsed() > Duration::from_secs(150) {
            gateway.clock.advance(SystemClock.now() - gateway.clock.now() - time::Duration::seconds(30));
            ada.step_up().await;
            stepped_up = Instant::now();
        }
        if round % 10 == 9 {
            ready(&gateway, &ada).await;
            let mut screen = Screen::open(&ada, "lab/web-1", "control", &ticket(&ada, "control").await).await;
            screen.handshake().await;
            assert!(screen.picture().await > 10_000, "the first picture arrives");
        }
    }
    println!("{acknowledged:?} acknowledged in {rounds} rounds; slowest start {slowest:?}");
    assert!(acknowledged.0 > rounds && acknowledged.1 > rounds / 2, "{acknowledged:?}: nothing was tried");
    assert!(slowest < Duration::from_secs(10), "{slowest:?}");
    gateway.stop().await;
}
