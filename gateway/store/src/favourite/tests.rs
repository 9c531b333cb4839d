// SPDX-License-Identifier: Apache-2.0
use super::*;
use crate::testing::{NOON, on_both, person};
use uuid::Uuid;

#[tokio::test]
async fn favourites_are_set_and_unset_as_often_as_one_likes() {
    on_both(async |b| {
        let store = b.open().await;
        let ada = person(&store, "ada").await;
        let (one, two) = ("lab/vm-1".parse().unwrap(), "lab/vm-2".parse().unwrap());
        for m in [&two, &one, &one] {
            store.set_favourite(ada, m, Favourite::Yes, NOON).await.unwrap();
        }
        assert_eq!(store.favourites(ada).await.unwrap(), [one.clone(), two.clone()]);
        for _ in 0..2 {
            store.set_favourite(ada, &one, Favourite::No, NOON).await.unwrap();
        }
        assert_eq!(store.favourites(ada).await.unwrap(), [two]);
        let nobody = UserId::new(Uuid::now_v7());
        assert!(matches!(store.set_favourite(nobody, &one, Favourite::Yes, NOON).await, Err(Error::NotFound(_))));
    })
    .await;
}
