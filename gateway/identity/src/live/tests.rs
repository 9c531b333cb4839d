// SPDX-License-Identifier: Apache-2.0
use super::{Live, MOST, PARTS, Sessions};
use crate::{
    Settings, Stage, TokenWish, chance, rows,
    testing::{Bench, PASSWORD, Person, peer, secret},
    token::Maker,
};
use portcullis_domain::{Assurance, Clock, SessionId, UserId};
use time::{Duration, OffsetDateTime, macros::datetime};
use tokio::sync::watch;
use tower_sessions::Session;

const NOW: OffsetDateTime = datetime!(2026-11-28 12:00 UTC);

fn live(touch_at: OffsetDateTime, expires_at: OffsetDateTime) -> Live {
    let id = uuid::Uuid::new_v4();
    let stage = Stage::SignedIn { user: UserId::new(id), session: SessionId::new(id), assurance: Assurance::default() };
    Live { stage, banner: None, touch_at, expires_at }
}

fn key(n: u32) -> portcullis_store::Digest {
    chance::sha256(&n.to_le_bytes())
}

#[test]
fn an_entry_counts_only_at_what_was_known_before_its_row_was_read() {
    let epoch = watch::Sender::new(1);
    let all = Sessions::new(epoch.subscribe());
    all.heard(NOW);
    let then = all.now(7);
    all.keep(key(1), then, live(NOW + Duration::MINUTE, NOW + Duration::HOUR));
    assert!(all.find(key(1), 7, NOW).is_some());
    assert!(all.find(key(2), 7, NOW).is_none(), "another cookie");
    assert!(all.find(key(1), 8, NOW).is_none(), "this node has moved the epoch");
    epoch.send_replace(2);
    assert!(all.find(key(1), 7, NOW).is_none(), "another node has");
    // What was read while it moved is what was before.
    all.keep(key(1), then, live(NOW + Duration::MINUTE, NOW + Duration::HOUR));
    assert!(all.find(key(1), 7, NOW).is_none());
}

#[test]
fn an_entry_ends_at_its_instants_and_when_the_store_is_silent() {
    let epoch = watch::Sender::new(1);
    let all = Sessions::new(epoch.subscribe());
    all.keep(key(1), all.now(0), live(NOW + Duration::MINUTE, NOW + Duration::HOUR));
    all.keep(key(2), all.now(0), live(NOW + Duration::MINUTE, NOW + Duration::SECOND));
    assert!(all.find(key(1), 0, NOW).is_none(), "the store was never heard");
    all.heard(NOW);
    assert!(all.find(key(2), 0, NOW).is_some());
    assert!(all.find(key(2), 0, NOW + Duration::SECOND).is_none(), "it is over");
    assert!(all.find(key(1), 0, NOW + Duration::seconds(3)).is_some());
    assert!(all.find(key(1), 0, NOW + Duration::seconds(4)).is_none(), "the store was not heard for too long");
    assert!(all.find(key(1), 0, NOW - Duration::SECOND).is_none(), "the clock was set back");
    all.heard(NOW + Duration::MINUTE);
    assert!(all.find(key(1), 0, NOW + Duration::MINUTE).is_none(), "its use has to be written down");
}

#[test]
fn it_holds_no_more_than_its_bound_and_lets_the_stale_go_first() {
    let epoch = watch::Sender::new(1);
    let all = Sessions::new(epoch.subscribe());
    all.heard(NOW);
    let fill = |from: u32, to: u32| {
        for n in from..to {
            all.keep(key(n), all.now(0), live(NOW + Duration::MINUTE, NOW + Duration::HOUR));
        }
    };
    let most = MOST * PARTS;
    let many = u32::try_from(most).unwrap();
    fill(0, many);
    epoch.send_replace(2);
    fill(many, many + 1_000);
    fill(many + 1_000, 3 * many);
    assert!(all.len() <= most, "{}", all.len());
    epoch.send_replace(3);
    fill(0, 1_000);
    assert!((0..1_000).all(|n| all.find(key(n), 0, NOW).is_some()), "those of now stay");
}

/// A person whose session is in memory of one node, heard of just now.
async fn warm(b: &Bench, name: &str) -> (Person, Session) {
    let (person, _) = b.person(name).await;
    let session = b.signed_in(&person).await;
    heat(b, &session).await;
    (person, session)
}

async fn heat(b: &Bench, session: &Session) {
    b.id.refresh().await.unwrap();
    assert!(b.is_signed_in(&b.again(session)).await);
    assert!(b.id.session_rows().remembers(session.id().unwrap()));
}

async fn counts(b: &Bench, session: &Session) -> bool {
    b.id.actor(&b.again(session)).await.unwrap().is_some()
}

#[tokio::test]
async fn a_session_in_memory_is_not_asked_of_the_store() {
    let b = Bench::new().await;
    let (ada, session) = warm(&b, "ada").await;
    assert!(counts(&b, &session).await);
    b.store.close().await;
    assert_eq!(b.id.actor(&b.again(&session)).await.unwrap().map(|a| a.user), Some(ada.user));
    let form = b.id.csrf(&b.again(&session)).await.unwrap();
    b.id.check_csrf(&b.again(&session), &form).await.unwrap();
    // As long as the store is heard; then it fails closed: after a while, and at once when it was asked and said nothing.
    b.clock.advance(Duration::seconds(4));
    assert!(b.id.actor(&b.again(&session)).await.is_err());
    b.clock.advance(Duration::seconds(-4));
    assert!(b.id.actor(&b.again(&session)).await.is_ok());
    assert!(b.id.refresh().await.is_err());
    assert!(b.id.actor(&b.again(&session)).await.is_err());
}

#[tokio::test]
async fn whatever_ends_a_session_here_ends_it_at_once() {
    let b = Bench::new().await;
    for (n, end) in
        ["sign out", "own list", "others", "disable", "lock", "reset", "step", "store", "too many", "invitation"]
            .into_iter()
            .enumerate()
    {
        let (person, session) = warm(&b, &format!("person-{n}")).await;
        let now = b.clock.now();
        let Stage::SignedIn { session: id, .. } = b.id.stage(&session).await.unwrap() else { panic!("signed in") };
        match end {
            "sign out" => b.id.sign_out(&b.again(&session)).await.unwrap(),
            "own list" => {
                let other = b.signed_in(&person).await;
                heat(&b, &session).await;
                b.id.end_own_session(&other, id).await.unwrap();
            }
            "others" => {
                let other = b.signed_in(&person).await;
                heat(&b, &session).await;
                b.id.end_others(&other).await.unwrap();
            }
            "disable" => b.id.disable_user(person.user).await.unwrap(),
            "lock" => b.id.lock_user(person.user, "x", None).await.unwrap(),
            "reset" => drop(b.id.reset(person.user).await.unwrap()),
            "step" => {
                // The cookie of before the step is worth nothing after it.
                b.next_step();
                heat(&b, &session).await;
                let stepping = b.again(&session);
                b.id.step_up(&stepping, &b.code(&person.app), peer()).await.unwrap();
                assert!(counts(&b, &stepping).await);
            }
            // Without anybody who refreshes: as housekeeping and the command line's socket do.
            "store" => drop(b.store.end_session(id, now, "x").await.unwrap()),
            "too many" => drop(b.store.limit_sessions_of(person.user, 0, now, "x").await.unwrap()),
            _ => {
                let link = b.id.invite(person.user).await.unwrap();
                let link = crate::testing::text(&link);
                let password = secret("violet bicycle umbrella twelve");
                let redeem = crate::Redeem { token: &link, name: None, display_name: "", password };
                b.id.redeem_invitation(&b.browser(), redeem, peer()).await.unwrap();
            }
        }
        assert!(!counts(&b, &session).await, "{end}");
    }
}

#[tokio::test]
async fn whatever_another_node_ends_ends_here_when_the_epoch_is_read() {
    let b = Bench::new().await;
    for (n, end) in ["sign out", "disable", "lock", "step", "store"].into_iter().enumerate() {
        let (person, session) = warm(&b, &format!("person-{n}")).await;
        let there = || Session::new(session.id(), std::sync::Arc::new(b.other.session_rows()), None);
        let Stage::SignedIn { session: id, .. } = b.id.stage(&session).await.unwrap() else { panic!("signed in") };
        match end {
            "sign out" => b.other.sign_out(&there()).await.unwrap(),
            "disable" => b.other.disable_user(person.user).await.unwrap(),
            "lock" => b.other.lock_user(person.user, "x", None).await.unwrap(),
            "step" => {
                b.next_step();
                heat(&b, &session).await;
                b.other.step_up(&there(), &b.code(&person.app), peer()).await.unwrap();
            }
            _ => drop(b.other.0.store.end_session(id, b.clock.now(), "x").await.unwrap()),
        }
        b.id.refresh().await.unwrap();
        assert!(!counts(&b, &session).await, "{end}");
    }
}

#[tokio::test]
async fn what_changes_an_account_asks_the_store_and_not_the_memory() {
    let b = Bench::new().await;
    let (ada, session) = warm(&b, "ada").await;
    b.other.disable_user(ada.user).await.unwrap();
    // This node has not read the epoch again.
    assert!(b.id.session_rows().remembers(session.id().unwrap()));
    let codes = b.id.regenerate_recovery_codes(&b.again(&session)).await;
    assert!(matches!(codes, Err(crate::Error::Expired)), "{codes:?}");
}

#[tokio::test]
async fn a_session_in_memory_ends_when_idle_and_at_its_absolute_limit() {
    let b = Bench::with(Settings { idle_seconds: 300, absolute_seconds: 3_600, ..Settings::default() }).await;
    let (ada, session) = warm(&b, "ada").await;
    // In use each minute, and the store is heard each time.
    let mut seconds = 0;
    while counts(&b, &session).await {
        b.clock.advance(Duration::seconds(20));
        b.id.refresh().await.unwrap();
        seconds += 20;
    }
    assert_eq!(seconds, 3_600);
    let session = b.signed_in(&ada).await;
    heat(&b, &session).await;
    b.clock.advance(Duration::seconds(299));
    b.id.refresh().await.unwrap();
    assert!(counts(&b, &session).await);
    b.clock.advance(Duration::seconds(300));
    b.id.refresh().await.unwrap();
    assert!(!counts(&b, &session).await);
}

#[tokio::test]
async fn use_out_of_memory_is_written_down_once_a_minute() {
    let b = Bench::new().await;
    let (ada, session) = warm(&b, "ada").await;
    let seen = async || b.id.sessions_of(ada.user).await.unwrap()[0].seen_at;
    let begun = seen().await;
    for (after, then) in [(59, 0), (1, 60), (30, 60), (30, 120)] {
        b.clock.advance(Duration::seconds(after));
        b.id.refresh().await.unwrap();
        assert!(counts(&b, &session).await);
        assert_eq!(seen().await, begun + Duration::seconds(then));
    }
}

#[tokio::test]
async fn sessions_that_are_not_signed_in_are_not_kept() {
    let b = Bench::new().await;
    let (_, _) = b.person("ada").await;
    let half = b.browser();
    b.next_step();
    b.id.sign_in(&half, "ada", secret(PASSWORD), peer()).await.unwrap();
    b.id.refresh().await.unwrap();
    assert!(matches!(b.id.stage(&b.again(&half)).await.unwrap(), Stage::NeedsSecond { .. }));
    let stranger = b.browser();
    b.id.csrf(&stranger).await.unwrap();
    b.id.stage(&b.again(&stranger)).await.unwrap();
    for session in [half, stranger] {
        assert!(!b.id.session_rows().remembers(session.id().unwrap()));
    }
}

#[tokio::test]
async fn what_does_not_change_sessions_leaves_them_in_memory_or_has_them_read_again() {
    let b = Bench::new().await;
    let (ada, session) = warm(&b, "ada").await;
    // A message for the next page: the row is written, and read again.
    let writing = b.again(&session);
    writing.insert("note", 1).await.unwrap();
    writing.save().await.unwrap();
    assert!(!b.id.session_rows().remembers(session.id().unwrap()));
    assert_eq!(b.again(&session).get::<u8>("note").await.unwrap(), Some(1));
    // A right that moves: who it is is read again, and is still the same.
    let expires_at = b.clock.now() + Duration::HOUR;
    let wish =
        TokenWish { user: ada.user, name: "tool", hypervisor: None, networks: vec![], expires_at, by: Maker::Owner };
    b.id.mint_token(wish).await.unwrap();
    assert!(!b.id.session_rows().remembers(session.id().unwrap()));
    assert!(counts(&b, &session).await);
    let hash = rows::hash(session.id().unwrap());
    assert!(b.store.load_session(&hash, b.clock.now()).await.unwrap().is_some());
}
