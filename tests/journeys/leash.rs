// SPDX-License-Identifier: Apache-2.0
//! How long a console stays: as long as somebody is at it, and not when nobody can be asked whether they still may.

use crate::support::{
    Person, TestGateway,
    lab::{lab, ready, ticket},
    peers::Peer,
    screen::Screen,
};
use portcullis_domain::{Clock as _, Conditions, Grant, GrantEffect, GrantId, GrantSource, Selector};
use std::{
    process::{Child, Command, Stdio},
    time::Duration,
};
use time::{Duration as Span, OffsetDateTime};

/// The gateway looks once a second.
const LOOK: Duration = Duration::from_millis(2500);

// SEC-144
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whoever_types_stays_signed_in_and_whoever_only_watches_does_not() {
    let guest = Peer::qemu("web-1", "none");
    let gateway = TestGateway::start(&lab(&guest)).await;
    let ada = Person::first_administrator(&gateway, "ada").await;
    ready(&gateway, &ada).await;
    let mut screen = Screen::open(&ada, "lab/web-1", "control", &ticket(&ada, "control").await).await;
    screen.handshake().await;
    // 40 minutes at the keyboard, without one request of the page.
    for _ in 0..4 {
        gateway.clock.advance(Span::minutes(10));
        screen.press("x").await;
        tokio::time::sleep(LOOK).await;
    }
    assert!(screen.picture().await > 10_000, "it is still open");
    // 16 minutes of pictures without a key: an administrator has 15.
    gateway.clock.advance(Span::minutes(14));
    tokio::time::sleep(LOOK).await;
    screen.picture().await;
    gateway.clock.advance(Span::minutes(2));
    let (code, reason) = screen.ended(Duration::from_secs(5)).await;
    assert_eq!((code, reason.as_str()), (4000, "access ended: you did nothing for 15 minutes"));
    gateway.stop().await;
}

/// A table of a database that nobody can read for a while.
struct Locked(Child);

impl Locked {
    #[expect(clippy::disallowed_methods, reason = "tests drive real peers")]
    fn table(url: &str, name: &str) -> Self {
        let sql = format!("begin; lock table {name} in access exclusive mode; select pg_sleep(30)");
        let child = Command::new("psql").args(["-q", "-d", url, "-c", &sql]).stdout(Stdio::null()).spawn();
        Self(child.expect("psql"))
    }
}

impl Drop for Locked {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

// SEC-142
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_store_that_does_not_answer_cuts_every_console_in_time() {
    let (database, guest) = (Peer::postgres(), Peer::qemu("web-1", "none"));
    let gateway = TestGateway::start_on(database.get("URL"), &lab(&guest)).await;
    let ada = Person::first_administrator(&gateway, "ada").await;
    ready(&gateway, &ada).await;
    let mut screens = vec![];
    for _ in 0..3 {
        let mut screen = Screen::open(&ada, "lab/web-1", "control", &ticket(&ada, "control").await).await;
        screen.handshake().await;
        screens.push(screen);
    }
    let locked = Locked::table(database.get("URL"), "sessions");
    let ended = screens.iter_mut().map(|s| s.ended(Duration::from_secs(6)));
    for (code, reason) in futures_util::future::join_all(ended).await {
        assert_eq!((code, reason.as_str()), (4000, "access ended: your sign-in could not be checked"));
    }
    drop(locked);
    gateway.stop().await;
}

// SEC-142
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_store_that_is_gone_cuts_every_console_and_lets_nothing_new_through() {
    let (database, guest) = (Peer::postgres(), Peer::qemu("web-1", "none"));
    let gateway = TestGateway::start_on(database.get("URL"), &lab(&guest)).await;
    let ada = Person::first_administrator(&gateway, "ada").await;
    ready(&gateway, &ada).await;
    let mut screen = Screen::open(&ada, "lab/web-1", "control", &ticket(&ada, "control").await).await;
    screen.handshake().await;
    drop(database);
    let (code, reason) = screen.ended(Duration::from_secs(6)).await;
    assert_eq!((code, reason.as_str()), (4000, "access ended: your sign-in could not be checked"));
    // The gateway's own clock stands still in a test: what it had in memory counts for three seconds of it.
    gateway.clock.advance(Span::seconds(4));
    let status = ada.get("/c/lab/web-1").await.status();
    assert!(status.is_server_error(), "{status}");
    gateway.stop().await;
}

/// A grant that forbids the screen of `web-1`, with hours that begin and end so many minutes from now.
fn kept_from_it(now: OffsetDateTime, begins: i64, ends: i64) -> Grant {
    let clock = |minutes| {
        let at = now + Span::minutes(minutes);
        format!("{:02}:{:02}", at.hour(), at.minute())
    };
    let hours = format!("mon-sun {}-{} UTC", clock(begins), clock(ends));
    Grant {
        id: GrantId::new(uuid::Uuid::now_v7()),
        role: "console-user".parse().expect("a role"),
        selector: Selector::Machine("lab/web-1".parse().expect("a machine")),
        effect: GrantEffect::Deny,
        from: now,
        until: None,
        conditions: Conditions { hours: Some(hours.parse().expect("hours")), ..Conditions::default() },
        source: GrantSource::Administrator,
    }
}

// SEC-142
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn hours_that_end_cut_a_live_console() {
    let guest = Peer::qemu("web-1", "none");
    let gateway = TestGateway::start(&lab(&guest)).await;
    let ada = Person::first_administrator(&gateway, "ada").await;
    ready(&gateway, &ada).await;
    // What forbids begins where the hours in which she may end.
    gateway.add_grant("ada", &kept_from_it(gateway.clock.now(), 5, 60)).await;
    let mut screen = Screen::open(&ada, "lab/web-1", "control", &ticket(&ada, "control").await).await;
    screen.handshake().await;
    tokio::time::sleep(LOOK).await;
    assert!(screen.picture().await > 10_000, "it is still open");
    gateway.clock.advance(Span::minutes(6));
    let (code, reason) = screen.ended(Duration::from_secs(5)).await;
    assert_eq!(code, 4000, "{reason}");
    assert!(reason.starts_with("access ended: There is no such machine"), "{reason}");
    gateway.stop().await;
}
