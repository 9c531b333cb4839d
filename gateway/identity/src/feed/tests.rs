// SPDX-License-Identifier: Apache-2.0
use super::*;
use crate::testing::Bench;
use portcullis_domain::{Clock, Conditions, Grant, GrantEffect, GrantId, GrantSource, Holder, Selector, UserId};
use portcullis_store::DirectoryGroup;
use uuid::Uuid;

type Heard = Arc<Mutex<Vec<Feed>>>;

fn listen(b: &Bench) -> Heard {
    listen_to(&b.other)
}

fn listen_to(node: &Identity) -> Heard {
    let heard = Heard::default();
    let into = Arc::clone(&heard);
    node.tell_changes(move |feed| into.lock().unwrap().push(feed));
    heard
}

fn grant(b: &Bench) -> Grant {
    Grant {
        id: GrantId::new(Uuid::new_v4()),
        role: "operator".parse().unwrap(),
        selector: Selector::Everything,
        from: b.clock.now(),
        until: None,
        conditions: Conditions::default(),
        source: GrantSource::Administrator,
        effect: GrantEffect::Allow,
    }
}

/// What came since the last look.
async fn next(b: &Bench, heard: &Heard) -> Vec<Feed> {
    b.other.refresh().await.unwrap();
    std::mem::take(&mut *heard.lock().unwrap())
}

fn one(mut feeds: Vec<Feed>, scope: Scope) -> Vec<GrantChange> {
    assert_eq!(feeds.len(), 1, "{feeds:?}");
    let feed = feeds.remove(0);
    assert_eq!((feed.scope, feed.unread), (scope, vec![]));
    feed.changes
}

fn group(n: u128, members: &[UserId]) -> DirectoryGroup {
    DirectoryGroup {
        id: GroupId::new(Uuid::from_u128(n)),
        name: format!("g{n}"),
        external_id: None,
        created_at: time::OffsetDateTime::UNIX_EPOCH,
        members: members.iter().copied().collect(),
    }
}

#[tokio::test]
async fn a_listener_hears_everything_once_and_then_what_changes() {
    let b = Bench::new().await;
    let (ada, _) = b.person("ada").await;
    let (first, second) = (grant(&b), grant(&b));
    b.store.add_grant(ada.user, &first, None, b.clock.now()).await.unwrap();
    let heard = listen(&b);
    let ada = Holder::Person(ada.user);
    assert_eq!(one(next(&b, &heard).await, Scope::Whole), [GrantChange::Put(ada, first.clone())]);
    assert!(next(&b, &heard).await.is_empty(), "nothing has changed");
    b.store.add_grant(ada, &second, None, b.clock.now()).await.unwrap();
    assert_eq!(one(next(&b, &heard).await, Scope::Changes), [GrantChange::Put(ada, second)]);
    b.store.revoke_grant(first.id, None, b.clock.now()).await.unwrap();
    assert_eq!(one(next(&b, &heard).await, Scope::Changes), [GrantChange::Take(ada, first.id)]);
}

#[tokio::test]
async fn a_group_is_heard_with_its_members_and_one_that_was_deleted_makes_all_be_told_again() {
    let b = Bench::new().await;
    let (ada, _) = b.person("ada").await;
    let (eve, _) = b.person("eve").await;
    let heard = listen(&b);
    assert!(one(next(&b, &heard).await, Scope::Whole).is_empty());
    b.store.put_group(&group(1, &[ada.user, eve.user])).await.unwrap();
    let [GrantChange::Members(id, members)] = &one(next(&b, &heard).await, Scope::Changes)[..] else { panic!() };
    assert_eq!((*id, members.len()), (group(1, &[]).id, 2));
    b.store.put_group(&group(1, &[])).await.unwrap();
    assert_eq!(one(next(&b, &heard).await, Scope::Changes), [GrantChange::Members(*id, vec![])]);
    b.store.remove_group(*id).await.unwrap();
    assert!(one(next(&b, &heard).await, Scope::Whole).is_empty());
    // Another one in its place between two looks.
    b.store.put_group(&group(2, &[ada.user])).await.unwrap();
    one(next(&b, &heard).await, Scope::Changes);
    b.store.remove_group(group(2, &[]).id).await.unwrap();
    b.store.put_group(&group(3, &[])).await.unwrap();
    assert_eq!(one(next(&b, &heard).await, Scope::Whole), [GrantChange::Members(group(3, &[]).id, vec![])]);
}

// SEC-010
#[tokio::test]
async fn a_store_that_cannot_be_read_shuts_everybody_out_until_it_can() {
    let b = Bench::new().await;
    let heard = listen_to(&b.id);
    b.id.refresh().await.unwrap();
    heard.lock().unwrap().clear();
    let epoch = b.store.epoch().await.unwrap().unsigned_abs();
    b.store.close().await;
    assert!(b.id.tell(epoch + 1).await.is_err());
    let told = std::mem::take(&mut *heard.lock().unwrap());
    assert_eq!(told.iter().map(|f| &f.changes[..]).collect::<Vec<_>>(), [[GrantChange::ShutAll]]);
    assert!(!told[0].unread.is_empty());
    assert!(b.id.is_behind(epoch + 1) && b.id.0.told.lock().known.is_none(), "everything is told again");
}
