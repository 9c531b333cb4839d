// SPDX-License-Identifier: Apache-2.0
//! How long a console lasts: what the page says is what happens.

use crate::support::{
    Person, TestGateway,
    lab::{lab, ready, ticket},
    page,
    peers::Peer,
    screen::Screen,
};
use portcullis_domain::Clock as _;
use reqwest::StatusCode;
use serde_json::Value;
use std::time::Duration;
use time::{OffsetDateTime, format_description::well_known::Rfc3339};

async fn open(person: &Person<'_>) -> Screen {
    let mut screen = Screen::open(person, "lab/web-1", "control", &ticket(person, "control").await).await;
    screen.handshake().await;
    screen.picture().await;
    screen
}

/// What the page is told with a ticket.
async fn told(person: &Person<'_>) -> Value {
    person.post_json("/api/v1/consoles/lab/web-1/ticket/control").await.json().await.expect("JSON")
}

fn until(told: &Value) -> OffsetDateTime {
    OffsetDateTime::parse(told["until"].as_str().expect("an end"), &Rfc3339).expect("a time")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_end_that_is_shown_is_the_earliest_and_is_kept() {
    let guest = Peer::qemu("web-1", "none");
    let gateway = TestGateway::start(&lab(&guest)).await;
    let ada = Person::first_administrator(&gateway, "ada").await;
    let bob = ada.invite("bob").await;
    let html = ada.page("/grants").await;
    let label = html.find(">bob</option>").expect("bob can be chosen");
    let user = page::attribute(&html[html[..label].rfind('<').expect("a tag")..label], "value").expect("an id");
    let fields = [("user", &*user), ("role", "console-user"), ("on", "tag:web"), ("hours", "1")];
    let fields = [&fields[..], &[("step_up_seconds", "300")]].concat();
    assert_eq!(ada.submit("/grants", &fields).await.status(), StatusCode::SEE_OTHER);
    let ends = gateway.clock.now() + time::Duration::HOUR;
    ready(&gateway, &bob).await;
    // ada has no end of her own: her session ends 12 hours after she signed in, as the longest console does.
    let signed_in = gateway.clock.now();
    gateway.clock.advance(time::Duration::minutes(2));
    let told_ada = told(&ada).await;
    assert!((until(&told_ada) - signed_in - time::Duration::hours(12)).abs() < time::Duration::SECOND, "{told_ada}");
    // bob's grant ends first. Near its end he opens a console.
    for _ in 0..5 {
        gateway.clock.advance(time::Duration::minutes(10));
        tokio::join!(ada.get("/me"), bob.get("/me"));
    }
    gateway.clock.advance(ends - gateway.clock.now() - time::Duration::seconds(39));
    bob.step_up().await;
    let told_bob = told(&bob).await;
    assert!((until(&told_bob) - ends).abs() < time::Duration::SECOND, "{told_bob}");
    assert_eq!((&told_ada["recorded"], &told_bob["recorded"]), (&Value::Bool(true), &Value::Bool(false)));
    let mut screen = open(&bob).await;
    let live = ada.page("/sessions").await;
    assert!(live.contains(&format!("datetime=\"{}", &told_bob["until"].as_str().expect("an end")[..16])), "{live}");
    // The gateway's clock stands still in this test; what ends the console is the relay's own.
    let (code, reason) = screen.ended(Duration::from_secs(15)).await;
    assert_eq!((code, reason.as_str()), (4002, "the allowed time is over"));
    gateway.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whoever_types_into_a_screen_stays_signed_in_and_whoever_does_not_is_signed_out() {
    let guest = Peer::qemu("web-1", "none");
    let gateway = TestGateway::start(&lab(&guest)).await;
    let ada = Person::first_administrator(&gateway, "ada").await;
    ready(&gateway, &ada).await;
    let mut screen = open(&ada).await;
    for _ in 0..4 {
        gateway.clock.advance(time::Duration::minutes(10));
        screen.press("x").await;
        tokio::time::sleep(Duration::from_millis(2500)).await;
    }
    assert!(screen.picture().await > 10_000, "40 minutes without a request, and at work all the time");
    gateway.clock.advance(time::Duration::minutes(31));
    let (code, reason) = screen.ended(Duration::from_secs(5)).await;
    assert_eq!((code, reason.as_str()), (4000, "access ended: you did nothing for 15 minutes"));
    gateway.stop().await;
}
