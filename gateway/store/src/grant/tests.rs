// SPDX-License-Identifier: Apache-2.0
use super::*;
use crate::testing::{NOON, on_both, person};
use portcullis_domain::{Conditions, GrantEffect, GrantSource};
use time::Duration;
use uuid::Uuid;

fn grant(n: u128, selector: Selector, source: GrantSource) -> Grant {
    Grant {
        id: GrantId::new(Uuid::from_u128(n)),
        role: "operator".parse().unwrap(),
        selector,
        from: NOON,
        until: Some(NOON + Duration::DAY),
        conditions: Conditions { step_up_seconds: 60, record: false, ..Conditions::default() },
        source,
        effect: GrantEffect::Allow,
    }
}

#[tokio::test]
async fn every_kind_of_grant_survives_the_store_and_a_revoked_one_is_gone() {
    on_both(async |b| {
        let store = b.open().await;
        let ada = person(&store, "ada").await;
        let bob = person(&store, "bob").await;
        let h = "lab".parse().unwrap();
        let all = [
            grant(1, Selector::Everything, GrantSource::Administrator),
            grant(2, Selector::Hypervisor("lab".parse().unwrap()), GrantSource::Setup),
            grant(3, Selector::Pool(h, "web tier".into()), GrantSource::PolicyFile),
            grant(4, Selector::Tag("prod".into()), GrantSource::AccessRequest),
            grant(5, Selector::Machine("lab/default:c1".parse().unwrap()), GrantSource::IdentityProvider),
        ];
        for g in &all {
            let before = store.epoch().await.unwrap();
            store.add_grant(ada, g, Some(bob), NOON).await.unwrap();
            assert!(store.epoch().await.unwrap() > before);
        }
        assert_eq!(store.grants_of(ada).await.unwrap(), all);
        let holdings = store.grants().await.unwrap();
        assert_eq!(holdings.len(), 5);
        assert!(holdings.iter().all(|h| h.holder == ada.into() && h.created_by == Some(bob) && h.created_at == NOON));
        assert!(matches!(store.add_grant(ada, &all[0], None, NOON).await, Err(Error::Conflict(_))));

        let before = store.epoch().await.unwrap();
        assert!(store.revoke_grant(all[0].id, Some(bob), NOON).await.unwrap());
        assert!(store.epoch().await.unwrap() > before);
        assert!(!store.revoke_grant(all[0].id, None, NOON).await.unwrap());
        let unknown = GrantId::new(Uuid::from_u128(99));
        assert!(matches!(store.revoke_grant(unknown, None, NOON).await, Err(Error::NotFound(_))));
        assert_eq!(store.grants_of(ada).await.unwrap(), all[1..]);
        assert!(store.grants_of(bob).await.unwrap().is_empty());
    })
    .await;
}

#[tokio::test]
async fn a_grant_that_cannot_be_read_is_an_error_and_not_nothing() {
    on_both(async |b| {
        let store = b.open().await;
        let ada = person(&store, "ada").await;
        store.add_grant(ada, &grant(1, Selector::Everything, GrantSource::Setup), None, NOON).await.unwrap();
        let mut tx = store.begin().await.unwrap();
        execute!(tx, "update grants set conditions = '{\"allow\":1}'").unwrap();
        tx.commit().await.unwrap();
        assert!(matches!(store.grants_of(ada).await, Err(Error::Corrupt { table: "grants", .. })));
        let backwards =
            Grant { until: Some(NOON - Duration::SECOND), ..grant(2, Selector::Everything, GrantSource::Setup) };
        assert!(matches!(store.add_grant(ada, &backwards, None, NOON).await, Err(Error::Refused(_))));
    })
    .await;
}

#[tokio::test]
async fn a_grant_of_a_group_is_held_by_whoever_is_in_it_now() {
    on_both(async |b| {
        let store = b.open().await;
        let (ada, bob) = (person(&store, "ada").await, person(&store, "bob").await);
        let group = |members: &[UserId]| crate::DirectoryGroup {
            id: GroupId::new(Uuid::from_u128(7)),
            name: "ops".into(),
            external_id: None,
            created_at: NOON,
            members: members.iter().copied().collect(),
        };
        store.put_group(&group(&[ada])).await.unwrap();
        let before = store.epoch().await.unwrap();
        let given = Grant { effect: GrantEffect::Deny, ..grant(1, Selector::Everything, GrantSource::Administrator) };
        store.add_grant(group(&[]).id, &given, None, NOON).await.unwrap();
        assert!(store.epoch().await.unwrap() > before);
        assert_eq!(store.grants_of(ada).await.unwrap(), std::slice::from_ref(&given));
        assert_eq!(store.grants_of(bob).await.unwrap(), []);
        assert_eq!(store.grants_by_person().await.unwrap().get(&ada), Some(&vec![given.clone()]));
        assert_eq!(store.holder_names().await.unwrap().get(&group(&[]).id.into()).unwrap(), "group ops");
        let before = store.epoch().await.unwrap();
        store.put_group(&group(&[bob])).await.unwrap();
        assert!(store.epoch().await.unwrap() > before, "every node must read again");
        assert_eq!(store.grants_of(ada).await.unwrap(), []);
        assert_eq!(store.grants_of(bob).await.unwrap(), [given]);
        let before = store.epoch().await.unwrap();
        store.remove_group(group(&[]).id).await.unwrap();
        assert!(store.epoch().await.unwrap() > before);
        assert_eq!(store.grants_of(bob).await.unwrap(), []);
        assert_eq!(store.grants().await.unwrap(), [], "a group's grants go with it");
    })
    .await;
}

#[tokio::test]
async fn what_changed_after_an_epoch_is_told_once_and_nothing_else() {
    on_both(async |b| {
        let store = b.open().await;
        let ada = person(&store, "ada").await;
        let all = [1, 2].map(|n| grant(n, Selector::Everything, GrantSource::Administrator));
        store.add_grant(ada, &all[0], None, NOON).await.unwrap();
        let whole = store.grant_changes(None).await.unwrap();
        assert_eq!(whole.changes, [GrantChange::Put(ada.into(), all[0].clone())]);
        let epoch = store.epoch().await.unwrap();
        assert_eq!(store.grant_changes(Some(epoch)).await.unwrap().changes, []);
        store.add_grant(ada, &all[1], None, NOON).await.unwrap();
        store.revoke_grant(all[0].id, None, NOON).await.unwrap();
        let group = GroupId::new(Uuid::from_u128(7));
        let ops = crate::DirectoryGroup {
            id: group,
            name: "ops".into(),
            external_id: None,
            created_at: NOON,
            members: [ada].into(),
        };
        store.put_group(&ops).await.unwrap();
        let rows = store.grant_changes(Some(epoch)).await.unwrap();
        let want = [
            GrantChange::Put(ada.into(), all[1].clone()),
            GrantChange::Take(ada.into(), all[0].id),
            GrantChange::Members(group, vec![ada]),
        ];
        assert_eq!((rows.changes, rows.unread, rows.groups), (want.to_vec(), vec![], 1));
        let whole = store.grant_changes(None).await.unwrap().changes;
        assert_eq!(whole, [want[0].clone(), want[2].clone()]);
        assert_eq!(store.holders_of("operator", NOON).await.unwrap(), [ada]);
        assert_eq!(store.holders_of("operator", NOON + Duration::DAY).await.unwrap(), []);
        assert_eq!(store.holders_of("viewer", NOON).await.unwrap(), []);
        store
            .add_grant(
                group,
                &Grant { role: "viewer".parse().unwrap(), ..grant(3, Selector::Everything, GrantSource::Setup) },
                None,
                NOON,
            )
            .await
            .unwrap();
        assert_eq!(store.holders_of("viewer", NOON).await.unwrap(), [ada]);
    })
    .await;
}

// SEC-010
#[tokio::test]
async fn a_row_that_cannot_be_read_shuts_its_holder_and_no_other() {
    on_both(async |b| {
        let store = b.open().await;
        let (ada, bob) = (person(&store, "ada").await, person(&store, "bob").await);
        for (user, n) in [(ada, 1), (bob, 2)] {
            store.add_grant(user, &grant(n, Selector::Everything, GrantSource::Setup), None, NOON).await.unwrap();
        }
        let mut tx = store.begin().await.unwrap();
        execute!(tx, "update grants set conditions = '{\"allow\":1}' where user_id = $1", ada.to_string()).unwrap();
        tx.commit().await.unwrap();
        let rows = store.grant_changes(None).await.unwrap();
        assert_eq!(rows.unread.len(), 1);
        assert!(rows.changes.contains(&GrantChange::Shut(ada.into())));
        assert!(rows.changes.iter().any(|c| matches!(c, GrantChange::Put(holder, _) if *holder == bob.into())));
    })
    .await;
}
