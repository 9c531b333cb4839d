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
        let new = |n: u8, user| NewToken {
            id: TokenId::new(Uuid::from_u128(n.into())),
            hash: digest(n),
            user,
            name: format!("tool {n}"),
            hypervisor: (n == 1).then(|| "lab".parse().unwrap()),
            expires_at: end,
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

        let id = new(1, ada).id;
        let before = store.epoch().await.unwrap();
        store.touch_token(id, NOON + Duration::MINUTE).await.unwrap();
        assert_eq!(store.epoch().await.unwrap(), before, "use changes no rights");
        assert!(!store.revoke_token(bob, id, NOON).await.unwrap(), "not theirs");
        assert!(store.revoke_token(ada, id, NOON).await.unwrap());
        assert!(!store.revoke_token(ada, id, NOON).await.unwrap());
        let rows = store.tokens_of(ada).await.unwrap();
        let row = rows.iter().find(|t| t.id == id).unwrap();
        assert_eq!((rows.len(), row.revoked_at, row.last_used_at), (2, Some(NOON), Some(NOON + Duration::MINUTE)));
        store.set_disabled(bob, Some(NOON)).await.unwrap();
        let live: Vec<_> = store.live_tokens(NOON).await.unwrap().into_iter().map(|t| t.hash).collect();
        assert_eq!(live, [digest(2)]);
    })
    .await;
}
