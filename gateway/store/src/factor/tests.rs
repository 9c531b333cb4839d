// SPDX-License-Identifier: Apache-2.0
use super::*;
use crate::Removal;
use crate::testing::{NOON, digest, on_both, person};

const FROM: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(192, 0, 2, 10));

fn id(n: u128) -> FactorId {
    FactorId::new(Uuid::from_u128(n))
}

#[tokio::test]
async fn an_authenticator_counts_from_its_first_code_on() {
    on_both(async |b| {
        let store = b.open().await;
        let ada = person(&store, "ada").await;
        let bob = person(&store, "bob").await;
        store.add_totp(id(1), ada, "phone", b"sealed 1", NOON).await.unwrap();
        assert!(!store.use_totp_step(id(1), 5).await.unwrap(), "an unconfirmed one has no steps to use");
        // starting again forgets the attempt before
        store.add_totp(id(2), ada, "phone", b"sealed 2", NOON).await.unwrap();
        assert_eq!(store.totp_factors(ada).await.unwrap().len(), 1);
        assert!(store.confirm_totp(id(2), 100, Others::None, NOON).await.unwrap());
        assert!(!store.confirm_totp(id(2), 101, Others::Keep, NOON).await.unwrap());
        let factor = store.totp_factors(ada).await.unwrap().remove(0);
        assert_eq!((factor.sealed.as_slice(), factor.last_step), (b"sealed 2".as_slice(), 100));
        assert_eq!(factor.confirmed_at, Some(NOON));
        assert!(!store.use_totp_step(id(2), 100).await.unwrap(), "the confirming code was used");

        store.add_totp(id(3), ada, "tablet", b"sealed 3", NOON).await.unwrap();
        assert!(!store.confirm_totp(id(3), 7, Others::None, NOON).await.unwrap(), "it is not the first");
        store.add_totp(id(4), bob, "phone", b"sealed 4", NOON).await.unwrap();
        assert!(store.confirm_totp(id(4), 1, Others::Keep, NOON).await.unwrap());
        assert!(store.confirm_totp(id(3), 7, Others::Remove, NOON).await.unwrap());
        let left: Vec<_> = store.totp_factors(ada).await.unwrap().into_iter().map(|f| f.id).collect();
        assert_eq!(left, [id(3)]);
        assert_eq!(store.totp_factors(bob).await.unwrap().len(), 1, "other people keep theirs");

        assert_eq!(store.remove_factor(bob, id(3)).await.unwrap(), Removal::Unknown, "not theirs");
        store.add_totp(id(5), ada, "tablet", b"sealed 5", NOON).await.unwrap();
        assert!(store.confirm_totp(id(5), 8, Others::Keep, NOON).await.unwrap());
        let before = store.epoch().await.unwrap();
        assert_eq!(store.remove_factor(ada, id(3)).await.unwrap(), Removal::Gone);
        assert!(store.epoch().await.unwrap() > before);
        assert_eq!(store.remove_factor(ada, id(5)).await.unwrap(), Removal::Last);
        assert_eq!(store.totp_factors(ada).await.unwrap().len(), 1);
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_step_is_used_once_over_all_nodes_and_never_backwards() {
    on_both(async |b| {
        let (one, two) = (b.open().await, b.open().await);
        let ada = person(&one, "ada").await;
        one.add_totp(id(1), ada, "phone", b"sealed", NOON).await.unwrap();
        one.confirm_totp(id(1), 0, Others::Keep, NOON).await.unwrap();
        for step in 1..=5 {
            let mut using = tokio::task::JoinSet::new();
            for n in 0..32 {
                let store = if n % 2 == 0 { one.clone() } else { two.clone() };
                using.spawn(async move { store.use_totp_step(id(1), step).await.unwrap() });
            }
            assert_eq!(using.join_all().await.into_iter().filter(|won| *won).count(), 1, "step {step}");
        }
        assert!(!one.use_totp_step(id(1), 4).await.unwrap());
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_recovery_code_is_used_once_and_dies_with_its_set() {
    on_both(async |b| {
        let (one, two) = (b.open().await, b.open().await);
        let ada = person(&one, "ada").await;
        let bob = person(&one, "bob").await;
        one.replace_recovery_codes(ada, &[digest(1), digest(2), digest(3)], NOON).await.unwrap();
        assert_eq!(one.recovery_codes_left(ada).await.unwrap(), 3);
        assert!(!one.use_recovery_code(bob, &digest(1), FROM, NOON).await.unwrap(), "somebody else's code");
        let mut using = tokio::task::JoinSet::new();
        for n in 0..50 {
            let store = if n % 2 == 0 { one.clone() } else { two.clone() };
            using.spawn(async move { store.use_recovery_code(ada, &digest(1), FROM, NOON).await.unwrap() });
        }
        assert_eq!(using.join_all().await.into_iter().filter(|won| *won).count(), 1);
        assert_eq!(one.recovery_codes_left(ada).await.unwrap(), 2);
        assert_eq!(one.recovery_code_used(ada).await.unwrap(), Some((NOON, Some(FROM))));
        assert_eq!(one.recovery_code_used(bob).await.unwrap(), None);
        one.replace_recovery_codes(ada, &[digest(4)], NOON).await.unwrap();
        assert!(!one.use_recovery_code(ada, &digest(2), FROM, NOON).await.unwrap(), "a code of the old set");
        assert_eq!(one.recovery_codes_left(ada).await.unwrap(), 1);
        assert_eq!(one.recovery_code_used(ada).await.unwrap(), None, "told until there are new ones");
    })
    .await;
}
