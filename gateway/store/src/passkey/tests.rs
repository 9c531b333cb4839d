// SPDX-License-Identifier: Apache-2.0
use super::*;
use crate::testing::{NOON, digest, on_both, person};
use time::Duration;
use uuid::Uuid;

fn id(n: u128) -> FactorId {
    FactorId::new(Uuid::from_u128(n))
}

fn key(n: u8, user: UserId) -> NewPasskey {
    NewPasskey {
        id: id(u128::from(n)),
        user,
        name: format!("key {n}"),
        credential_id: vec![n; 32],
        sealed: vec![n; 64],
        sign_count: 0,
    }
}

#[tokio::test]
async fn a_passkey_belongs_to_one_person_and_is_found_by_what_it_calls_itself() {
    on_both(async |b| {
        let store = b.open().await;
        let (ada, bob) = (person(&store, "ada").await, person(&store, "bob").await);
        let before = store.epoch().await.unwrap();
        assert!(store.add_passkey(&key(1, ada), Others::None, NOON).await.unwrap());
        assert!(store.epoch().await.unwrap() > before);
        assert!(store.add_passkey(&key(2, ada), Others::Keep, NOON + Duration::SECOND).await.unwrap());
        let same = NewPasskey { id: id(9), ..key(1, bob) };
        assert!(matches!(store.add_passkey(&same, Others::Keep, NOON).await, Err(Error::Conflict(_))));
        let names: Vec<_> = store.passkeys(ada).await.unwrap().into_iter().map(|p| p.name).collect();
        assert_eq!(names, ["key 1", "key 2"]);
        let found = store.passkey_by_credential(&[2; 32]).await.unwrap().unwrap();
        assert_eq!((found.user, found.sealed.as_slice(), found.sign_count), (ada, [2; 64].as_slice(), 0));
        assert_eq!((found.created_at, found.used_at), (NOON + Duration::SECOND, None));
        assert_eq!(store.passkey_by_credential(&[2; 31]).await.unwrap(), None);
        for asked in [&[2; 32][..], &[2; 31], &[0], &[255; 40], &[]] {
            let another = store.passkey_or_another(asked).await.unwrap().unwrap();
            assert_eq!(another.credential_id == asked, asked == [2; 32], "{asked:?}");
        }
        assert!(store.passkeys(bob).await.unwrap().is_empty());
    })
    .await;
}

#[tokio::test]
async fn a_first_factor_is_the_first_of_all_kinds_and_a_recovery_leaves_none_of_the_old() {
    on_both(async |b| {
        let store = b.open().await;
        let ada = person(&store, "ada").await;
        store.add_totp(id(10), ada, "phone", b"sealed", NOON).await.unwrap();
        assert!(store.add_passkey(&key(1, ada), Others::None, NOON).await.unwrap());
        assert!(!store.confirm_totp(id(10), 1, Others::None, NOON).await.unwrap(), "a passkey is there");
        assert!(!store.add_passkey(&key(2, ada), Others::None, NOON).await.unwrap());
        assert!(store.confirm_totp(id(10), 1, Others::Remove, NOON).await.unwrap());
        assert!(store.passkeys(ada).await.unwrap().is_empty(), "the recovery by an app leaves no passkey");
        assert!(!store.add_passkey(&key(2, ada), Others::None, NOON).await.unwrap(), "an app is there");
        assert!(store.add_passkey(&key(2, ada), Others::Keep, NOON).await.unwrap());
        assert!(store.add_passkey(&key(3, ada), Others::Remove, NOON).await.unwrap());
        assert!(store.totp_factors(ada).await.unwrap().is_empty(), "the recovery by a passkey leaves no app");
        let left: Vec<_> = store.passkeys(ada).await.unwrap().into_iter().map(|p| p.id).collect();
        assert_eq!(left, [id(3)]);
        store.reset_user(ada, NOON).await.unwrap();
        assert!(store.passkeys(ada).await.unwrap().is_empty(), "a reset takes passkeys too");
    })
    .await;
}

// SEC-119
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_counter_only_goes_up_over_all_nodes_and_one_that_counts_nothing_may_stay_at_nothing() {
    on_both(async |b| {
        let (one, two) = (b.open().await, b.open().await);
        let ada = person(&one, "ada").await;
        one.add_passkey(&key(1, ada), Others::None, NOON).await.unwrap();
        for _ in 0..2 {
            assert!(one.use_passkey(id(1), 0, NOON).await.unwrap());
        }
        for count in [1, 2, u32::MAX - 1] {
            let mut using = tokio::task::JoinSet::new();
            for n in 0..16 {
                let store = if n % 2 == 0 { one.clone() } else { two.clone() };
                using.spawn(async move { store.use_passkey(id(1), count, NOON).await.unwrap() });
            }
            assert_eq!(using.join_all().await.into_iter().filter(|won| *won).count(), 1, "{count}");
        }
        for back in [0, 1, u32::MAX - 1] {
            assert!(!two.use_passkey(id(1), back, NOON + Duration::SECOND).await.unwrap(), "{back}");
        }
        let kept = one.passkeys(ada).await.unwrap().remove(0);
        assert_eq!((kept.sign_count, kept.used_at), (u32::MAX - 1, Some(NOON)));
        assert!(!one.use_passkey(id(7), 5, NOON).await.unwrap(), "one that is not there");
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn the_last_second_factor_stays_whoever_removes_at_once() {
    on_both(async |b| {
        let (one, two) = (b.open().await, b.open().await);
        let (ada, bob) = (person(&one, "ada").await, person(&one, "bob").await);
        one.add_totp(id(10), ada, "phone", b"sealed", NOON).await.unwrap();
        one.confirm_totp(id(10), 1, Others::Keep, NOON).await.unwrap();
        one.add_passkey(&key(1, ada), Others::Keep, NOON).await.unwrap();
        // An app that was never confirmed is no other factor.
        one.add_totp(id(11), ada, "tablet", b"sealed", NOON).await.unwrap();
        assert_eq!(one.remove_factor(ada, id(11)).await.unwrap(), Removal::Unknown);
        assert_eq!(one.remove_factor(bob, id(1)).await.unwrap(), Removal::Unknown, "not theirs");
        let mut removing = tokio::task::JoinSet::new();
        for n in 0..16 {
            let store = if n % 2 == 0 { one.clone() } else { two.clone() };
            let which = if n % 4 < 2 { id(10) } else { id(1) };
            removing.spawn(async move { store.remove_factor(ada, which).await.unwrap() });
        }
        let all = removing.join_all().await;
        assert_eq!(all.iter().filter(|r| **r == Removal::Gone).count(), 1, "{all:?}");
        assert!(all.contains(&Removal::Last));
        let apps = one.totp_factors(ada).await.unwrap().iter().filter(|f| f.confirmed_at.is_some()).count();
        assert_eq!(apps + one.passkeys(ada).await.unwrap().len(), 1);
    })
    .await;
}

// SEC-120
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn what_was_asked_is_taken_once_by_its_session_for_its_purpose_in_its_time() {
    on_both(async |b| {
        let (one, two) = (b.open().await, b.open().await);
        let until = NOON + Duration::minutes(5);
        one.begin_ceremony(&digest(1), "sign-in", "first", until).await.unwrap();
        one.begin_ceremony(&digest(1), "sign-in", "second", until).await.unwrap();
        assert_eq!(one.take_ceremony(&digest(2), "sign-in", NOON).await.unwrap(), None, "another session");
        assert_eq!(one.take_ceremony(&digest(1), "step-up", NOON).await.unwrap(), None, "another purpose");
        assert_eq!(one.take_ceremony(&digest(1), "sign-in", until).await.unwrap(), None, "too late");
        let mut taking = tokio::task::JoinSet::new();
        for n in 0..32 {
            let store = if n % 2 == 0 { one.clone() } else { two.clone() };
            taking.spawn(async move { store.take_ceremony(&digest(1), "sign-in", NOON).await.unwrap() });
        }
        let taken: Vec<_> = taking.join_all().await.into_iter().flatten().collect();
        assert_eq!(taken, ["second"]);
        assert!(one.begin_ceremony(&digest(1), "anything", "x", until).await.is_err(), "a purpose that nobody knows");
        one.begin_ceremony(&digest(1), "register", "x", until).await.unwrap();
        assert_eq!(one.drop_ceremonies(until - Duration::SECOND).await.unwrap(), 0);
        assert_eq!(one.drop_ceremonies(until).await.unwrap(), 1);
    })
    .await;
}
