// SPDX-License-Identifier: Apache-2.0
//! The same house on PostgreSQL: set-up, sign-in, a console, the trail and its index, the command line, a restart.

use crate::support::{
    Person, TestGateway,
    lab::{lab, ready, ticket},
    peers::Peer,
    screen::Screen,
};
use std::time::Duration;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_whole_house_stands_on_postgresql_too() {
    let (database, guest) = (Peer::postgres(), Peer::qemu("web-1", "password"));
    let gateway = TestGateway::start_on(database.get("URL"), &lab(&guest)).await;
    let ada = Person::first_administrator(&gateway, "ada").await;
    let bob = ada.invite("bob").await;
    ada.grant("bob", "console-user", "tag", "web").await;
    ready(&gateway, &bob).await;
    let mut screen = Screen::open(&bob, "lab/web-1", "control", &ticket(&bob, "control").await).await;
    screen.handshake().await;
    screen.picture().await;
    screen.press("on-postgres").await;
    guest.wait_for_text("on-postgres").await;
    // The command line revokes from another process: the console hears of it within seconds all the same.
    let grant = gateway.grants_of("bob").await.remove(0);
    assert_eq!(gateway.shell(&["grant", "revoke", &grant]), (Some(0), "Revoked.\n".to_owned()));
    let (code, reason) = screen.ended(Duration::from_secs(5)).await;
    assert_eq!(code, 4000, "{reason}");
    let opened = |e: &serde_json::Value| e["what"] == "console.control";
    let opened = gateway.find_event(&["--user", "bob", "--kind", "console"], opened).await;
    assert_eq!(opened["on"], "lab/web-1");
    // The index is made anew from the log, and says the same.
    let (code, text) = gateway.shell(&["audit", "rebuild"]);
    assert_eq!(code, Some(0), "{text}");
    assert!(gateway.search(&["--user", "bob", "--kind", "console"]).contains(&opened));
    let (key, name) = (ada.into_key(), "ada");

    let dir = gateway.stop().await;
    let gateway = TestGateway::start_in(dir, &lab(&guest)).await;
    assert!(gateway.set_up.is_none(), "somebody has an account already");
    gateway.clock.advance(time::Duration::minutes(1));
    let mut ada = Person::with_key(&gateway, name, key);
    ada.sign_in().await;
    assert!(ada.page("/trail").await.contains("console.control"));
    let (code, text) = gateway.shell(&["audit", "verify"]);
    assert_eq!(code, Some(0), "{text}");
    assert!(text.contains("The trail is whole"), "{text}");
    gateway.stop().await;
}
