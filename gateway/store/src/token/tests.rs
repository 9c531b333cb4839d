// SPDX-License-Identifier: Apache-2.0
use super::*;
use crate::testing::{NOON, digest, on_both, person};
use time::Duration;
use uuid::Uuid;

#[tokio::test]
async fn a_token_counts_until_it_is_over_taken_back_or_its_owner_is_disabled() {
    on_both(async |b| {
        let store = b.open().await;
        let ada = person(&store, "Ada").await;
        let bob = person(&store, "bob").await;
        let end = NOON + Duration::DAY;
        let networks: Vec<Network> = vec!["10.1.0.0/16".parse().unwrap(), "2001:db8::/32".parse().unwrap()];
        let new = |n: u8, user| NewToken {
            id: TokenId::new(Uuid::from_u128(n.into())),
            hash: digest(n),
            user,
            name: format!("tool {n}"),
            hypervisor: (n == 1).then(|| "lab".parse().unwrap()),
            networks: if n == 1 { networks.clone() } else { vec![] },
            expires_at: end,
            made_by: (n == 1).then_some(bob),
        };
        for (n, user) in [(1, ada), (2, ada), (3, bob)] {
            let before = store.epoch().await.unwrap();
            store.add_token(&new(n, user), NOON).await.unwrap();
            assert!(store.epoch().await.unwrap() > before);
        }
        let twin = NewToken { id: TokenId::new(Uuid::from_u128(9)), ..new(1, ada) };
        assert!(matches!(store.add_token(&twin, NOON).await, Err(Error::Conflict(_))));
        assert!(store.live_tokens(end).await.unwrap().is_empty());
        let live = store.live_tokens(NOON).await.unwrap();
        let one = live.iter().find(|t| t.hash == digest(1)).unwrap();
        assert_eq!((live.len(), one.user_name.as_str()), (3, "Ada"));
        assert_eq!(one.token.hypervisor, Some("lab".parse().unwrap()));
        assert_eq!((&one.token.networks, one.token.made_by), (&networks, Some(bob)));

        let id = new(1, ada).id;
        let before = store.epoch().await.unwrap();
        let from: IpAddr = "::ffff:10.1.2.3".parse().unwrap();
        store.touch_token(id, NOON + Duration::MINUTE, from).await.unwrap();
        assert_eq!(store.epoch().await.unwrap(), before, "use changes no rights");
        assert!(!store.revoke_token(bob, id, NOON).await.unwrap(), "not theirs");
        assert!(store.revoke_token(ada, id, NOON).await.unwrap());
        assert!(!store.revoke_token(ada, id, NOON).await.unwrap());
        let rows = store.tokens_of(ada).await.unwrap();
        let row = rows.iter().find(|t| t.id == id).unwrap();
        assert_eq!((rows.len(), row.revoked_at, row.last_used_at), (2, Some(NOON), Some(NOON + Duration::MINUTE)));
        assert_eq!(row.last_used_from, Some("10.1.2.3".parse().unwrap()));
        store.set_disabled(bob, Some(NOON)).await.unwrap();
        let live: Vec<_> = store.live_tokens(NOON).await.unwrap().into_iter().map(|t| t.hash).collect();
        assert_eq!(live, [digest(2)]);
        assert_eq!(store.tokens().await.unwrap().len(), 3, "the list forgets none");
        // A lock takes nothing away: what it stopped counts again afterwards.
        store.set_locked(ada, Some(("stolen laptop", None)), NOON).await.unwrap();
        assert!(store.live_tokens(NOON).await.unwrap().is_empty());
        assert_eq!(
            store.user(ada).await.unwrap().unwrap().locked,
            Some(crate::Locked { at: NOON, why: "stolen laptop".into(), until: None })
        );
        store.set_locked(ada, None, NOON).await.unwrap();
        assert_eq!(store.live_tokens(NOON).await.unwrap().len(), 1);
    })
    .await;
}
