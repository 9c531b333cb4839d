// SPDX-License-Identifier: Apache-2.0
use super::*;
use crate::{
    Stage,
    testing::{Bench, Person, is_in, text},
};
use tower_sessions::Session;

async fn id(b: &Bench, session: &Session) -> SessionId {
    match b.id.stage(session).await.unwrap() {
        Stage::SignedIn { session, .. } => session,
        other => panic!("{other:?}"),
    }
}

fn machine(n: u32) -> MachineRef {
    format!("lab/vm-{n}").parse().unwrap()
}

#[tokio::test]
async fn a_ticket_opens_one_console_once_within_thirty_seconds() {
    let b = Bench::new().await;
    let (ada, session) = b.person("ada").await;
    let s = id(&b, &session).await;
    let mint = async || {
        let t = b.id.mint_ticket(s, ada.user, machine(1), ConsoleMode::View).await.unwrap();
        text(&t)
    };
    let ticket = mint().await;
    assert!(!is_in(&b.dump(), &ticket));
    let made_at = b.other.take_ticket(&ticket, s, &machine(1), ConsoleMode::View).await.unwrap();
    assert_eq!(made_at, portcullis_domain::Clock::now(&*b.clock));
    let again = b.id.take_ticket(&ticket, s, &machine(1), ConsoleMode::View).await;
    assert!(matches!(again, Err(Error::Refused(r)) if r.noted == Why::WrongTicket));
    let ticket = mint().await;
    b.clock.advance(Duration::seconds(30));
    assert!(b.id.take_ticket(&ticket, s, &machine(1), ConsoleMode::View).await.is_err());
}

#[tokio::test]
async fn a_ticket_presented_for_something_else_is_refused_and_used_up() {
    let b = Bench::new().await;
    let (ada, session): (Person, _) = b.person("ada").await;
    let elsewhere = b.signed_in(&ada).await;
    let (s, other) = (id(&b, &session).await, id(&b, &elsewhere).await);
    for (session, m, mode) in [
        (other, machine(1), ConsoleMode::View),
        (s, machine(2), ConsoleMode::View),
        (s, machine(1), ConsoleMode::Control),
    ] {
        let t = text(&b.id.mint_ticket(s, ada.user, machine(1), ConsoleMode::View).await.unwrap());
        assert!(matches!(b.id.take_ticket(&t, session, &m, mode).await, Err(Error::Refused(_))));
        assert!(b.id.take_ticket(&t, s, &machine(1), ConsoleMode::View).await.is_err(), "used up");
    }
    let t = text(&b.id.mint_ticket(s, ada.user, machine(1), ConsoleMode::View).await.unwrap());
    b.id.sign_out(&session).await.unwrap();
    assert!(b.id.take_ticket(&t, s, &machine(1), ConsoleMode::View).await.is_err(), "its session ended");
}

#[tokio::test]
async fn thirty_tickets_a_minute_are_enough() {
    let b = Bench::new().await;
    let (ada, session) = b.person("ada").await;
    let s = id(&b, &session).await;
    for _ in 0..30 {
        b.id.mint_ticket(s, ada.user, machine(1), ConsoleMode::View).await.unwrap();
    }
    let more = b.id.mint_ticket(s, ada.user, machine(1), ConsoleMode::View).await;
    assert!(matches!(more, Err(Error::Locked { .. })));
    b.clock.advance(Duration::MINUTE);
    b.id.mint_ticket(s, ada.user, machine(1), ConsoleMode::View).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn of_32_upgrades_with_one_ticket_on_two_nodes_one_succeeds() {
    let b = Bench::new().await;
    let (ada, session) = b.person("ada").await;
    let s = id(&b, &session).await;
    for round in 0..20 {
        let t = text(&b.id.mint_ticket(s, ada.user, machine(1), ConsoleMode::Control).await.unwrap());
        let mut taking = tokio::task::JoinSet::new();
        for n in 0..32 {
            let (node, t) = (if n % 2 == 0 { b.id.clone() } else { b.other.clone() }, t.clone());
            taking.spawn(async move { node.take_ticket(&t, s, &machine(1), ConsoleMode::Control).await.is_ok() });
        }
        assert_eq!(taking.join_all().await.into_iter().filter(|won| *won).count(), 1, "round {round}");
    }
}
