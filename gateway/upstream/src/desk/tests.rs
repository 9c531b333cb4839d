// SPDX-License-Identifier: Apache-2.0
//! Who gets a session, and whose is given up.

use super::{
    seats::{GIVEN_UP, OF_ONE, OF_TOKEN},
    *,
};
use crate::wire::{Address, Dialer};
use http::HeaderValue;
use portcullis_domain::{PassId, TokenId};
use time::OffsetDateTime;
use uuid::Uuid;

fn desk(most: usize) -> Desk {
    let address = Address::Tcp("localhost".to_owned(), 9);
    let dialer = Arc::new(Dialer { address, tls: None, authorization: None });
    let host = HeaderValue::from_static("localhost");
    Desk::new(Center::new(dialer, host, "gateway".to_owned(), crate::secret::Held::for_tests("x")), most)
}

fn seat(user: u128, which: u8) -> Seat {
    let id = PassId::new(Uuid::from_u128(which.into()));
    let pass = Pass { id, token: TokenId::new(Uuid::from_u128(user)), made_at: OffsetDateTime::UNIX_EPOCH };
    Seat { user: UserId::new(Uuid::from_u128(user)), pass }
}

/// The same by another token.
fn by(seat: Seat, token: u128) -> Seat {
    Seat { pass: Pass { token: TokenId::new(Uuid::from_u128(token)), ..seat.pass }, ..seat }
}

fn placed(desk: &Desk, seat: Seat) -> &'static str {
    match desk.seats.place(seat, &Arc::new(Session::sample("key-12345678"))) {
        Placed::Here(None) => "here",
        Placed::Here(Some(_)) => "instead of another",
        Placed::Taken(_) => "taken",
        Placed::Full => "full",
    }
}

#[tokio::test(start_paused = true)]
async fn nobody_takes_the_place_of_somebody_who_is_busy() {
    let desk = desk(3);
    assert_eq!([0, 1, 2].map(|n| placed(&desk, seat(n, 0))), ["here"; 3]);
    assert_eq!(placed(&desk, seat(2, 0)), "taken");
    assert_eq!(placed(&desk, seat(3, 0)), "full");
    tokio::time::advance(GIVEN_UP + Duration::from_secs(1)).await;
    assert!(desk.seats.seated(&seat(0, 0)).is_some(), "used just now");
    assert_eq!(placed(&desk, seat(3, 0)), "instead of another");
    assert!(desk.seats.seated(&seat(0, 0)).is_some());
    assert_eq!(placed(&desk, seat(4, 0)), "instead of another");
    assert_eq!(placed(&desk, seat(5, 0)), "full");
}

#[tokio::test(start_paused = true)]
async fn one_person_cannot_take_every_place() {
    let desk = desk(1_000);
    // Each with a token of its own.
    let of = |n: u8| by(seat(1, n), 100 + u128::from(n));
    for n in 0..u8::try_from(OF_ONE).unwrap() {
        assert_eq!(placed(&desk, of(n)), "here");
        tokio::time::advance(Duration::from_millis(1)).await;
    }
    assert_eq!(placed(&desk, of(200)), "instead of another");
    assert!(desk.seats.seated(&of(0)).is_none(), "their own oldest");
    assert!(desk.seats.seated(&of(1)).is_some());
    assert_eq!(placed(&desk, seat(2, 0)), "here");
}

#[tokio::test(start_paused = true)]
async fn one_token_has_no_more_than_a_few() {
    let desk = desk(1_000);
    let other = by(seat(1, 100), 7);
    assert_eq!(placed(&desk, other), "here");
    for n in 0..u8::try_from(OF_TOKEN).unwrap() {
        assert_eq!(placed(&desk, seat(1, n)), "here");
        tokio::time::advance(Duration::from_millis(1)).await;
    }
    assert!(desk.seats.seated(&seat(1, 0)).is_some(), "used just now");
    assert_eq!(placed(&desk, seat(1, 200)), "instead of another");
    assert!(desk.seats.seated(&seat(1, 1)).is_none(), "the one of its own that was used longest ago");
    for kept in [seat(1, 0), seat(1, 2), other] {
        assert!(desk.seats.seated(&kept).is_some(), "{kept:?}");
    }
    // Other tokens of the same person have as many.
    for n in 101..100 + u8::try_from(OF_TOKEN).unwrap() {
        assert_eq!(placed(&desk, by(seat(1, n), 7)), "here");
    }
    assert_eq!(placed(&desk, by(seat(1, 201), 7)), "instead of another");
}

#[tokio::test(start_paused = true)]
async fn whoever_signed_out_has_no_session_left_and_nobody_else_loses_theirs() {
    let desk = desk(10);
    assert_eq!([(1, 1), (1, 2), (2, 3)].map(|(user, which)| placed(&desk, seat(user, which))), ["here"; 3]);
    let ended = seat(1, 2).pass;
    assert_eq!(desk.take(|pass| *pass != ended).calls.len(), 1);
    assert!(desk.seats.seated(&seat(1, 2)).is_none());
    assert!(desk.seats.seated(&seat(1, 1)).is_some() && desk.seats.seated(&seat(2, 3)).is_some());
    assert!(desk.take(|pass| *pass != ended).is_empty(), "once");
}

#[test]
fn the_real_key_goes_into_references_and_into_nothing_else() {
    let this = Reference { of: "ContainerView".to_owned(), id: "session[portcullis]5-6".to_owned() };
    let arguments = vec![
        Element::reference("obj", "ContainerView", "session[portcullis]7"),
        Element::text("annotation", "session[portcullis]"),
    ];
    let call = Call { method: "x".to_owned(), this, arguments };
    let real = unmasked(call, "52a1-key");
    assert_eq!(real.this.id, "session[52a1-key]5-6");
    assert_eq!(real.arguments[0].text, "session[52a1-key]7");
    assert_eq!(real.arguments[1].text, "session[portcullis]");
}
