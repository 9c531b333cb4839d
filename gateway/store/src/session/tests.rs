// SPDX-License-Identifier: Apache-2.0
use super::*;
use crate::testing::{NOON, digest, on_both, person, session};
use time::Duration;
use uuid::Uuid;

fn step(from: u8, to: u8, session: SessionId, user: Option<UserId>) -> Rotation {
    Rotation {
        from: digest(from),
        to: digest(to),
        session,
        user,
        data: format!("{{\"to\":{to}}}"),
        created_at: NOON,
        now: NOON,
        expires_at: NOON + Duration::HOUR,
        peer: Some("192.0.2.1".parse().unwrap()),
        signed_in_at: Some(NOON),
    }
}

#[tokio::test]
async fn a_saved_session_never_revives_an_ended_one() {
    on_both(async |b| {
        let store = b.open().await;
        let ada = person(&store, "ada").await;
        let live = session(&store, ada, 1).await;
        assert!(store.update_session(&digest(1), "{\"n\":1}", NOON).await.unwrap());
        assert_eq!(store.load_session(&digest(1), NOON).await.unwrap().unwrap().data, "{\"n\":1}");
        let before = store.epoch().await.unwrap();
        assert!(store.end_session(live, NOON, "signed out").await.unwrap());
        assert!(store.epoch().await.unwrap() > before);
        assert!(!store.end_session(live, NOON, "again").await.unwrap());

        let later = NOON + Duration::HOUR * 2;
        assert!(!store.update_session(&digest(1), "{\"n\":2}", NOON).await.unwrap());
        assert!(!store.rotate_session(&step(1, 2, live, Some(ada))).await.unwrap());
        assert!(!store.touch_session(live, NOON, later).await.unwrap());
        for n in [1, 2] {
            assert_eq!(store.load_session(&digest(n), NOON).await.unwrap(), None);
        }
        assert_eq!(store.live_session(live, NOON).await.unwrap(), None);
        let again = NewSession {
            id_hash: digest(1),
            session: SessionId::new(Uuid::now_v7()),
            data: "{}".into(),
            created_at: NOON,
            expires_at: later,
        };
        assert!(matches!(store.insert_session(&again).await, Err(Error::Conflict(_))), "the old id is not reused");
    })
    .await;
}

#[tokio::test]
async fn an_expired_session_counts_for_nothing_and_is_forgotten() {
    on_both(async |b| {
        let store = b.open().await;
        let ada = person(&store, "ada").await;
        let live = session(&store, ada, 1).await;
        let end = NOON + Duration::HOUR;
        assert!(store.load_session(&digest(1), end - Duration::MICROSECOND).await.unwrap().is_some());
        assert!(store.load_session(&digest(1), end).await.unwrap().is_none());
        assert!(!store.update_session(&digest(1), "{}", end).await.unwrap());
        assert!(!store.touch_session(live, end, end + Duration::HOUR).await.unwrap());
        assert!(store.touch_session(live, NOON + Duration::MINUTE, end + Duration::HOUR).await.unwrap());
        let found = store.load_session(&digest(1), end).await.unwrap().unwrap();
        assert_eq!((found.seen_at, found.expires_at), (NOON + Duration::MINUTE, end + Duration::HOUR));
        assert_eq!(store.drop_expired(end).await.unwrap(), 0);
        assert_eq!(store.drop_expired(end + Duration::HOUR).await.unwrap(), 1);
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn of_many_steps_at_once_one_moves_the_session() {
    on_both(async |b| {
        let (one, two) = (b.open().await, b.open().await);
        let ada = person(&one, "ada").await;
        let live = session(&one, ada, 1).await;
        let mut moving = tokio::task::JoinSet::new();
        for n in 0..32 {
            let store = if n % 2 == 0 { one.clone() } else { two.clone() };
            moving.spawn(async move { store.rotate_session(&step(1, 10 + n, live, Some(ada))).await.unwrap() });
        }
        assert_eq!(moving.join_all().await.into_iter().filter(|won| *won).count(), 1);
        assert_eq!(one.load_session(&digest(1), NOON).await.unwrap(), None, "the old id is worth nothing");
        let rows = one.sessions_of(ada, NOON).await.unwrap();
        assert_eq!(rows.len(), 1);
        assert_eq!(rows[0].peer, Some("192.0.2.1".parse().unwrap()));
    })
    .await;
}

#[tokio::test]
async fn the_oldest_sessions_beyond_the_limit_end_and_others_of_a_person_end_on_demand() {
    on_both(async |b| {
        let store = b.open().await;
        let ada = person(&store, "ada").await;
        let bob = person(&store, "bob").await;
        let mut all = Vec::new();
        for n in 1..=7 {
            all.push(session(&store, ada, n).await);
        }
        let theirs = session(&store, bob, 50).await;
        assert_eq!(store.limit_sessions_of(ada, 5, NOON, "too many").await.unwrap(), 2);
        let live: Vec<_> = store.sessions_of(ada, NOON).await.unwrap().into_iter().map(|s| s.session).collect();
        assert_eq!(live, all[2..].iter().rev().copied().collect::<Vec<_>>());
        assert_eq!(store.end_sessions_of(ada, Some(all[6]), NOON, "others").await.unwrap(), 4);
        store.describe_session(all[6], "Browser\n1").await.unwrap();
        let left = store.sessions_of(ada, NOON).await.unwrap();
        assert_eq!((left.len(), left[0].session, left[0].agent.as_deref()), (1, all[6], Some("Browser1")));
        assert_eq!(store.sessions(NOON).await.unwrap().len(), 2);
        assert_eq!(store.live_session(theirs, NOON).await.unwrap().unwrap().user, Some(bob));
        assert_eq!(store.end_sessions_of(ada, None, NOON, "all").await.unwrap(), 1);
        assert!(store.end_session_by_hash(&digest(50), NOON, "signed out").await.unwrap());
        assert!(!store.end_session_by_hash(&digest(50), NOON, "signed out").await.unwrap());
        assert!(store.sessions(NOON).await.unwrap().is_empty());
    })
    .await;
}

#[tokio::test]
async fn a_half_done_sign_in_is_in_no_list_and_ends_with_the_others() {
    on_both(async |b| {
        let store = b.open().await;
        let ada = person(&store, "ada").await;
        for n in 1..=3 {
            session(&store, ada, n).await;
        }
        let half = session(&store, ada, 9).await;
        let step = Rotation { signed_in_at: None, ..step(9, 10, half, Some(ada)) };
        assert!(store.rotate_session(&step).await.unwrap());
        assert_eq!(store.limit_sessions_of(ada, 3, NOON, "too many").await.unwrap(), 0);
        assert_eq!(store.sessions_of(ada, NOON).await.unwrap().len(), 3);
        assert_eq!(store.sessions(NOON).await.unwrap().len(), 3);
        assert_eq!(store.load_session(&digest(10), NOON).await.unwrap().unwrap().user, Some(ada));
        assert_eq!(store.end_sessions_of(ada, None, NOON, "all").await.unwrap(), 4);
        assert_eq!(store.load_session(&digest(10), NOON).await.unwrap(), None);
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn nodes_that_limit_one_person_at_once_wait_for_each_other() {
    on_both(async |b| {
        let (one, two) = (b.open().await, b.open().await);
        let ada = person(&one, "ada").await;
        let mut arriving = tokio::task::JoinSet::new();
        for n in 0..40 {
            let store = if n % 2 == 0 { one.clone() } else { two.clone() };
            arriving.spawn(async move {
                session(&store, ada, n).await;
                store.limit_sessions_of(ada, 2, NOON, "too many").await.expect("it waits, and does not fail")
            });
        }
        let ended: u64 = arriving.join_all().await.into_iter().sum();
        assert_eq!(ended, 38, "each session beyond two ended once");
        assert_eq!(one.sessions_of(ada, NOON).await.unwrap().len(), 2);
    })
    .await;
}

#[tokio::test]
async fn many_sessions_are_asked_for_at_once_and_only_those_that_count_are_given() {
    on_both(async |b| {
        let store = b.open().await;
        let ada = person(&store, "ada").await;
        let (one, two) = (session(&store, ada, 1).await, session(&store, ada, 2).await);
        let gone = session(&store, ada, 3).await;
        store.end_session(gone, NOON, "signed out").await.unwrap();
        let mut ids: Vec<SessionId> = (0..1200).map(|_| SessionId::new(Uuid::now_v7())).collect();
        ids.extend([one, gone, two]);
        let mut live: Vec<_> = store.live_sessions(&ids, NOON).await.unwrap().into_iter().map(|l| l.session).collect();
        live.sort();
        assert_eq!(live, [one, two]);
        assert_eq!(store.live_sessions(&[], NOON).await.unwrap(), []);
        assert_eq!(store.live_sessions(&ids, NOON + Duration::HOUR).await.unwrap(), []);
    })
    .await;
}
