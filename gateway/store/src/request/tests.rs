// SPDX-License-Identifier: Apache-2.0
use super::*;
use crate::testing::{Bench, NOON, on_both, person};
use portcullis_domain::{Conditions, GrantEffect, GrantSource};
use time::Duration;
use uuid::Uuid;

fn step(what: StepWhat, by: Option<UserId>) -> AccessStep {
    AccessStep { what, at: NOON, by, by_name: "x".into(), words: String::new() }
}

async fn asked(store: &Store, user: UserId) -> AccessId {
    let new = wish(user, "lab/web-1");
    let id = new.id;
    assert_eq!(store.add_access(&new, &step(StepWhat::Asked, Some(user)), 99).await.unwrap(), Stepped::Done);
    id
}

fn wish(user: UserId, at: &str) -> NewAccess {
    NewAccess {
        id: AccessId::new(Uuid::now_v7()),
        user,
        role: "operator".parse().unwrap(),
        selector: Selector::Machine(at.parse().unwrap()),
        reason: "the disk is full".into(),
        seconds: 3600,
        start: None,
        expires: NOON + Duration::DAY,
    }
}

fn grant() -> Grant {
    Grant {
        id: GrantId::new(Uuid::now_v7()),
        role: "operator".parse().unwrap(),
        selector: Selector::Machine("lab/web-1".parse().unwrap()),
        effect: GrantEffect::Allow,
        from: NOON,
        until: Some(NOON + Duration::HOUR),
        conditions: Conditions::default(),
        source: GrantSource::AccessRequest,
    }
}

const ONE: Approval = Approval { needed: 1, seconds: 1800, expires: NOON };

fn approval(needed: i64) -> Approval {
    Approval { needed, expires: NOON + Duration::DAY, ..ONE }
}

async fn state(store: &Store, id: AccessId) -> &'static str {
    store.access(id).await.unwrap().unwrap().state.word()
}

#[tokio::test]
async fn a_request_goes_its_way_once_and_its_grant_names_it() {
    on_both(async |b| {
        let store = b.open().await;
        let (ada, bob, eve) = (person(&store, "ada").await, person(&store, "bob").await, person(&store, "eve").await);
        let id = asked(&store, ada).await;
        let approve = |by| step(StepWhat::Approved, Some(by));
        assert_eq!(store.approve_access(id, &approve(bob), approval(2)).await.unwrap(), Stepped::Counted(1));
        assert_eq!(store.approve_access(id, &approve(bob), approval(2)).await.unwrap(), Stepped::Again);
        assert_eq!(state(&store, id).await, "asked");
        let early = store.begin_access(id, ada, &grant(), &step(StepWhat::Active, Some(ada))).await.unwrap();
        assert_eq!(early, Stepped::Late, "it is not approved");
        assert_eq!(store.approve_access(id, &approve(eve), approval(2)).await.unwrap(), Stepped::Done);
        let given = grant();
        let stranger = store.begin_access(id, bob, &given, &step(StepWhat::Active, Some(bob))).await.unwrap();
        assert_eq!(stranger, Stepped::Late, "it is ada's");
        let begun = store.begin_access(id, ada, &given, &step(StepWhat::Active, Some(ada))).await.unwrap();
        assert_eq!(begun, Stepped::Done);
        let again = store.begin_access(id, ada, &grant(), &step(StepWhat::Active, Some(ada))).await.unwrap();
        assert_eq!(again, Stepped::Late, "it gives one grant");
        assert_eq!(store.grants_of(ada).await.unwrap(), std::slice::from_ref(&given));
        let found = store.access(id).await.unwrap().unwrap();
        assert_eq!((found.seconds, found.state), (1800, AccessState::Active(given.id, NOON + Duration::HOUR)));
        for late in [StepWhat::Refused, StepWhat::Withdrawn, StepWhat::Expired] {
            assert_eq!(store.close_access(id, &step(late, None)).await.unwrap(), Stepped::Late);
        }
        assert_eq!(store.end_access(id, given.id, &step(StepWhat::Ended, Some(ada))).await.unwrap(), Stepped::Done);
        assert!(store.grants_of(ada).await.unwrap().is_empty(), "it was taken with the request");
        let what: Vec<StepWhat> = store.access_steps(id).await.unwrap().iter().map(|s| s.what).collect();
        assert_eq!(what, [StepWhat::Asked, StepWhat::Approved, StepWhat::Approved, StepWhat::Active, StepWhat::Ended]);
        assert!(store.open_accesses().await.unwrap().is_empty());
        assert_eq!(store.accesses(Some(ada), 9).await.unwrap().len(), 1);
        assert!(store.accesses(Some(bob), 9).await.unwrap().is_empty());
    })
    .await;
}

// SEC-124: approving and refusing at the same moment refuses.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_refuses_wins_over_who_approves_at_the_same_moment() {
    on_both(async |b: &Bench| {
        let (one, other) = (b.open().await, b.open().await);
        let (ada, bob, eve) = (person(&one, "ada").await, person(&one, "bob").await, person(&one, "eve").await);
        for _ in 0..20 {
            let id = asked(&one, ada).await;
            let (yes, no) = (step(StepWhat::Approved, Some(bob)), step(StepWhat::Refused, Some(eve)));
            let (_, refused) = tokio::join!(one.approve_access(id, &yes, approval(1)), other.close_access(id, &no));
            assert_eq!(refused.unwrap(), Stepped::Done);
            assert_eq!(state(&one, id).await, "refused");
            let begun = one.begin_access(id, ada, &grant(), &step(StepWhat::Active, Some(ada))).await.unwrap();
            assert_eq!(begun, Stepped::Late);
        }
        assert!(one.grants_of(ada).await.unwrap().is_empty());
    })
    .await;
}

#[tokio::test]
async fn what_nobody_approved_in_time_cannot_be_approved() {
    on_both(async |b| {
        let store = b.open().await;
        let (ada, bob) = (person(&store, "ada").await, person(&store, "bob").await);
        let id = asked(&store, ada).await;
        let late = AccessStep { at: NOON + Duration::DAY, ..step(StepWhat::Approved, Some(bob)) };
        assert_eq!(store.approve_access(id, &late, approval(1)).await.unwrap(), Stepped::Late);
        assert_eq!(store.close_access(id, &step(StepWhat::Expired, None)).await.unwrap(), Stepped::Done);
        assert_eq!(state(&store, id).await, "expired");
    })
    .await;
}

// SEC-124
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn requests_at_once_are_counted_one_after_the_other() {
    on_both(async |b: &Bench| {
        let store = b.open().await;
        let ada = person(&store, "ada").await;
        let mut asking = tokio::task::JoinSet::new();
        for n in 0..12 {
            let (store, new) = (store.clone(), wish(ada, &format!("lab/m-{}", n / 2)));
            asking.spawn(async move { store.add_access(&new, &step(StepWhat::Asked, Some(ada)), 4).await.unwrap() });
        }
        let done = asking.join_all().await.into_iter().filter(|stepped| *stepped == Stepped::Done).count();
        assert_eq!((done, store.open_accesses().await.unwrap().len()), (4, 4));
        let machines: std::collections::BTreeSet<_> =
            store.open_accesses().await.unwrap().into_iter().map(|r| r.selector).collect();
        assert_eq!(machines.len(), 4, "each for another one");
    })
    .await;
}
