// SPDX-License-Identifier: Apache-2.0
use super::*;
use crate::testing::{NOON, digest, on_both, person, session};
use time::Duration;

fn ticket(session: SessionId, user: UserId) -> Ticket {
    Ticket {
        session,
        user,
        machine: "lab/vm-1".parse().unwrap(),
        mode: ConsoleMode::Control,
        expires_at: NOON + Duration::seconds(30),
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn of_32_who_take_a_ticket_at_once_one_gets_it() {
    on_both(async |b| {
        let (one, two) = (b.open().await, b.open().await);
        let ada = person(&one, "ada").await;
        let s = session(&one, ada, 1).await;
        for round in 0..30 {
            one.add_ticket(&digest(round), &ticket(s, ada), NOON).await.unwrap();
            let mut taking = tokio::task::JoinSet::new();
            for n in 0..32 {
                let store = if n % 2 == 0 { one.clone() } else { two.clone() };
                taking.spawn(async move { store.take_ticket(&digest(round), NOON).await.unwrap() });
            }
            let taken: Vec<_> = taking.join_all().await.into_iter().flatten().collect();
            assert_eq!(taken, [ticket(s, ada)], "round {round}");
        }
    })
    .await;
}

#[tokio::test]
async fn a_ticket_dies_with_its_time_its_session_and_its_person() {
    on_both(async |b| {
        let store = b.open().await;
        let ada = person(&store, "ada").await;
        let s = session(&store, ada, 1).await;
        let t = ticket(s, ada);
        store.add_ticket(&digest(1), &t, NOON).await.unwrap();
        assert!(matches!(store.add_ticket(&digest(1), &t, NOON).await, Err(Error::Conflict(_))));
        assert_eq!(store.take_ticket(&digest(1), t.expires_at).await.unwrap(), None);
        assert_eq!(store.drop_tickets(NOON).await.unwrap(), 0);
        assert_eq!(store.drop_tickets(t.expires_at).await.unwrap(), 1);
        assert_eq!(store.take_ticket(&digest(1), NOON).await.unwrap(), None);

        store.add_ticket(&digest(2), &t, NOON).await.unwrap();
        store.end_session(s, NOON, "signed out").await.unwrap();
        assert_eq!(store.take_ticket(&digest(2), NOON).await.unwrap(), None);

        let s = session(&store, ada, 2).await;
        let bob = person(&store, "bob").await;
        store.add_ticket(&digest(3), &ticket(s, bob), NOON).await.unwrap();
        assert_eq!(store.take_ticket(&digest(3), NOON).await.unwrap(), None, "the session is somebody else's");
        store.add_ticket(&digest(4), &ticket(s, ada), NOON).await.unwrap();
        store.set_disabled(ada, Some(NOON)).await.unwrap();
        assert_eq!(store.take_ticket(&digest(4), NOON).await.unwrap(), None);
    })
    .await;
}
