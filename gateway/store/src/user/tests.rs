// SPDX-License-Identifier: Apache-2.0
use super::*;
use crate::{
    NewToken,
    testing::{NOON, digest, on_both, person, session},
};
use portcullis_domain::{Conditions, GrantEffect, GrantId, GrantSource, Selector, TokenId};
use time::Duration;
use uuid::Uuid;

fn hash(n: u32) -> String {
    format!("$argon2id$v=19$m=19456,t=2,p=1$c2FsdA$hash{n}")
}

fn first(name: &str) -> FirstUser {
    FirstUser {
        user: NewUser {
            id: UserId::new(Uuid::now_v7()),
            name: name.into(),
            name_key: name.to_lowercase(),
            display_name: String::new(),
        },
        grants: vec![Grant {
            id: GrantId::new(Uuid::now_v7()),
            role: "administrator".parse().unwrap(),
            selector: Selector::Everything,
            from: NOON,
            until: None,
            conditions: Conditions::default(),
            source: GrantSource::Setup,
            effect: GrantEffect::Allow,
        }],
    }
}

#[tokio::test]
async fn people_are_found_by_id_and_folded_name() {
    on_both(async |b| {
        let store = b.open().await;
        let ada = person(&store, "Ada").await;
        let bob = person(&store, "bob").await;
        assert_eq!(store.user(ada).await.unwrap().unwrap().name, "Ada");
        assert_eq!(store.user_by_name("ada").await.unwrap().unwrap().id, ada);
        assert_eq!(store.user_by_name("Ada").await.unwrap(), None);
        let all: Vec<_> = store.users().await.unwrap().into_iter().map(|u| u.id).collect();
        assert_eq!(all, [ada, bob]);
        let twin = NewUser {
            id: UserId::new(Uuid::now_v7()),
            name: "ADA".into(),
            name_key: "ada".into(),
            display_name: String::new(),
        };
        assert!(matches!(store.create_user(&twin, NOON).await, Err(Error::Conflict(_))));
        let long = NewUser { name: "x".repeat(65), name_key: "x".repeat(65), ..twin };
        assert!(matches!(store.create_user(&long, NOON).await, Err(Error::Refused(_))));
    })
    .await;
}

#[tokio::test]
async fn the_last_five_password_hashes_are_kept() {
    on_both(async |b| {
        let store = b.open().await;
        let ada = person(&store, "ada").await;
        for n in 0..7 {
            store.set_password_hash(ada, &hash(n), NOON + Duration::seconds(n.into())).await.unwrap();
        }
        assert_eq!(store.user(ada).await.unwrap().unwrap().password_hash, Some(hash(6)));
        assert_eq!(store.password_history(ada).await.unwrap(), [6, 5, 4, 3, 2].map(hash));
        let plain = store.set_password_hash(ada, "secret", NOON).await;
        assert!(matches!(plain, Err(Error::Refused(_))), "{plain:?}");
        let nobody = UserId::new(Uuid::now_v7());
        assert!(matches!(store.set_password_hash(nobody, &hash(0), NOON).await, Err(Error::NotFound(_))));
    })
    .await;
}

#[tokio::test]
async fn disabling_and_resetting_end_every_session_and_move_the_epoch() {
    on_both(async |b| {
        let store = b.open().await;
        let ada = person(&store, "ada").await;
        for (n, reset) in [(1, false), (2, true)] {
            session(&store, ada, n).await;
            store.set_password_hash(ada, &hash(n.into()), NOON).await.unwrap();
            let before = store.epoch().await.unwrap();
            if reset {
                store.reset_user(ada, NOON).await.unwrap();
                assert_eq!(store.user(ada).await.unwrap().unwrap().password_hash, None);
            } else {
                store.set_disabled(ada, Some(NOON)).await.unwrap();
                assert_eq!(store.user(ada).await.unwrap().unwrap().disabled_at, Some(NOON));
                store.set_disabled(ada, None).await.unwrap();
                assert_eq!(store.user(ada).await.unwrap().unwrap().disabled_at, None);
            }
            assert!(store.epoch().await.unwrap() > before);
            assert_eq!(store.load_session(&digest(n), NOON).await.unwrap(), None);
            assert!(store.sessions_of(ada, NOON).await.unwrap().is_empty());
        }
        let nobody = UserId::new(Uuid::now_v7());
        assert!(matches!(store.set_disabled(nobody, None).await, Err(Error::NotFound(_))));
        assert!(matches!(store.reset_user(nobody, NOON).await, Err(Error::NotFound(_))));
    })
    .await;
}

#[tokio::test]
async fn a_token_outlives_neither_a_reset_nor_a_new_password_nor_a_disabled_account() {
    on_both(async |b| {
        let store = b.open().await;
        let ada = person(&store, "ada").await;
        let bob = person(&store, "bob").await;
        let end = NOON + Duration::DAY;
        let add = async |n: u8, user| {
            let id = TokenId::new(Uuid::from_u128(n.into()));
            let new = NewToken {
                id,
                hash: digest(n),
                user,
                name: "tool".into(),
                hypervisor: None,
                networks: vec![],
                expires_at: end,
                made_by: None,
            };
            store.add_token(&new, NOON).await.unwrap();
        };
        let live =
            async || -> Vec<_> { store.live_tokens(NOON).await.unwrap().into_iter().map(|t| t.token.user).collect() };
        add(1, bob).await;
        add(2, ada).await;
        store.set_disabled(ada, Some(NOON)).await.unwrap();
        store.set_disabled(ada, None).await.unwrap();
        assert_eq!(live().await, [bob], "enabling revives nothing");
        add(3, ada).await;
        store.reset_user(ada, NOON).await.unwrap();
        assert_eq!(live().await, [bob], "a reset");
        add(4, ada).await;
        store.set_password_hash(ada, &hash(1), NOON).await.unwrap();
        assert_eq!(live().await, [bob], "a changed password");
        add(5, ada).await;
        store.create_invitation(&digest(1), Some(ada), NOON, end).await.unwrap();
        store.redeem_invitation(&digest(1), NOON, &hash(2), None).await.unwrap();
        assert_eq!(live().await, [bob], "a new password by invitation");
        // they stay in the list, with the time, so that their owner sees what happened
        let tokens = store.tokens_of(ada).await.unwrap();
        assert!(tokens.len() == 4 && tokens.iter().all(|t| t.revoked_at == Some(NOON)), "{tokens:?}");
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn an_invitation_is_taken_once() {
    on_both(async |b| {
        let (one, two) = (b.open().await, b.open().await);
        let ada = person(&one, "ada").await;
        let until = NOON + Duration::minutes(15);
        one.create_invitation(&digest(1), Some(ada), NOON, until).await.unwrap();
        assert_eq!(one.invitation(&digest(1), until).await.unwrap(), None);
        assert_eq!(one.take_invitation(&digest(1), until).await.unwrap(), None);
        assert_eq!(one.invitation(&digest(1), NOON).await.unwrap().unwrap().user, Some(ada));
        let mut taking = tokio::task::JoinSet::new();
        for n in 0..32 {
            let store = if n % 2 == 0 { one.clone() } else { two.clone() };
            taking.spawn(async move { store.take_invitation(&digest(1), NOON).await.unwrap() });
        }
        assert_eq!(taking.join_all().await.into_iter().flatten().count(), 1);

        // a second invitation replaces the first
        one.create_invitation(&digest(2), Some(ada), NOON, until).await.unwrap();
        one.create_invitation(&digest(3), Some(ada), NOON, until).await.unwrap();
        assert_eq!(one.invitation(&digest(2), NOON).await.unwrap(), None);
        assert_eq!(one.drop_invitations(ada).await.unwrap(), 1);
        assert_eq!(one.invitation(&digest(3), NOON).await.unwrap(), None);
    })
    .await;
}

#[tokio::test]
async fn redeeming_sets_the_password_once_and_only_for_those_who_may_sign_in() {
    on_both(async |b| {
        let store = b.open().await;
        let ada = person(&store, "ada").await;
        let until = NOON + Duration::minutes(15);
        store.create_invitation(&digest(1), Some(ada), NOON, until).await.unwrap();
        assert_eq!(store.redeem_invitation(&digest(9), NOON, &hash(1), None).await.unwrap(), None);
        session(&store, ada, 50).await;
        assert_eq!(store.redeem_invitation(&digest(1), NOON, &hash(1), None).await.unwrap(), Some(ada));
        assert_eq!(store.redeem_invitation(&digest(1), NOON, &hash(2), None).await.unwrap(), None);
        assert_eq!(store.user(ada).await.unwrap().unwrap().password_hash, Some(hash(1)));
        assert_eq!(store.load_session(&digest(50), NOON).await.unwrap(), None);

        store.create_invitation(&digest(2), Some(ada), NOON, until).await.unwrap();
        store.set_disabled(ada, Some(NOON)).await.unwrap();
        assert_eq!(store.redeem_invitation(&digest(2), NOON, &hash(3), None).await.unwrap(), None);
        assert_eq!(store.user(ada).await.unwrap().unwrap().password_hash, Some(hash(1)));
    })
    .await;
}

#[tokio::test]
async fn the_first_administrator_is_made_once_and_only_while_nobody_exists() {
    on_both(async |b| {
        let store = b.open().await;
        let until = NOON + Duration::minutes(30);
        store.create_invitation(&digest(1), None, NOON, until).await.unwrap();
        let nameless = store.redeem_invitation(&digest(1), NOON, &hash(1), None).await;
        assert!(matches!(nameless, Err(Error::NotFound(_))), "{nameless:?}");
        let root = first("Root");
        let made = store.redeem_invitation(&digest(1), NOON, &hash(1), Some(&root)).await.unwrap();
        assert_eq!(made, Some(root.user.id));
        assert_eq!(store.grants_of(root.user.id).await.unwrap(), root.grants);
        store.create_invitation(&digest(2), None, NOON, until).await.unwrap();
        let second = store.redeem_invitation(&digest(2), NOON, &hash(2), Some(&first("Eve"))).await.unwrap();
        assert_eq!(second, None);
        assert_eq!(store.users().await.unwrap().len(), 1);
    })
    .await;
}
