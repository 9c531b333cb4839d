// SPDX-License-Identifier: Apache-2.0
use super::*;
use crate::testing::{NOON, on_both};
use time::Duration;
use uuid::Uuid;

fn node(n: u128) -> NodeId {
    NodeId::new(Uuid::from_u128(n))
}

fn event(n: u128, seq: u64) -> TrailRow {
    TrailRow {
        node: node(n),
        seq: Seq(seq),
        at: NOON + Duration::seconds(i64::try_from(seq / 2).unwrap()),
        request: RequestId::new(Uuid::from_u128(seq.into())),
        phase: match seq % 3 {
            0 => Phase::Opened,
            1 => Phase::Closed(Seq(seq - 1)),
            _ => Phase::Noted,
        },
        kind: "console".into(),
        user: (seq.is_multiple_of(2)).then(|| UserId::new(Uuid::from_u128(5))),
        user_name: (seq.is_multiple_of(2)).then(|| "Ada".into()),
        peer: (!seq.is_multiple_of(2)).then(|| "2001:db8::1".parse().unwrap()),
        action: Some(if seq.is_multiple_of(2) { Action::ConsoleView } else { Action::Power }),
        resource: format!("lab/vm_{seq}"),
        outcome: if seq.is_multiple_of(3) { Outcome::Pending } else { Outcome::Done },
        reason: "50% of\"it\"".into(),
        segment: 3,
        offset: seq * 100,
    }
}

#[tokio::test]
async fn the_index_gives_back_what_it_was_given_once_newest_first() {
    on_both(async |b| {
        let store = b.open().await;
        let rows: Vec<_> = (0..1_200).map(|s| event(1, s)).collect();
        store.add_trail(&rows).await.unwrap();
        store.add_trail(&[]).await.unwrap();
        let mut again = rows[..3].to_vec();
        again.push(event(2, 0));
        again[0].reason = "changed".into();
        store.add_trail(&again).await.unwrap();
        assert_eq!(store.trail_head(node(1)).await.unwrap(), Some(Seq(1_199)));
        assert_eq!(store.trail_head(node(3)).await.unwrap(), None);

        // pages of seven, put together, are the whole, in order, each once
        let mut found = Vec::new();
        let mut before = None;
        loop {
            let page = store.search_trail(&TrailFilter::default(), 7, before).await.unwrap();
            let Some(last) = page.last() else { break };
            before = Some(last.place());
            found.extend(page);
        }
        let mut all = rows.clone();
        all.push(event(2, 0));
        all.sort_by_key(|r| std::cmp::Reverse((r.at, r.node, r.seq)));
        assert_eq!(found, all);

        assert_eq!(store.clear_trail(node(1)).await.unwrap(), 1_200);
        assert_eq!(store.trail_head(node(1)).await.unwrap(), None);
        assert_eq!(store.trail_head(node(2)).await.unwrap(), Some(Seq(0)));
    })
    .await;
}

#[tokio::test]
async fn each_filter_finds_its_events_and_no_other() {
    on_both(async |b| {
        let store = b.open().await;
        let rows: Vec<_> = (0..12).map(|s| event(1, s)).chain([event(2, 4)]).collect();
        store.add_trail(&rows).await.unwrap();
        let seqs = async |f: TrailFilter| {
            let found = store.search_trail(&f, 100, None).await.unwrap();
            let mut seqs: Vec<_> = found.iter().map(|r| r.seq.0).collect();
            seqs.sort_unstable();
            seqs
        };
        let d = TrailFilter::default;
        assert_eq!(seqs(TrailFilter { node: Some(node(2)), ..d() }).await, [4]);
        assert_eq!(seqs(TrailFilter { from: Some(NOON + Duration::seconds(5)), ..d() }).await, [10, 11]);
        assert_eq!(seqs(TrailFilter { until: Some(NOON + Duration::SECOND), ..d() }).await, [0, 1]);
        let user = Some(UserId::new(Uuid::from_u128(5)));
        assert_eq!(seqs(TrailFilter { user, ..d() }).await, [0, 2, 4, 4, 6, 8, 10]);
        assert_eq!(seqs(TrailFilter { user_name: Some("Ada".into()), ..d() }).await.len(), 7);
        let request = Some(RequestId::new(Uuid::from_u128(4)));
        assert_eq!(seqs(TrailFilter { request, ..d() }).await, [4, 4]);
        assert_eq!(seqs(TrailFilter { kind: Some("api".into()), ..d() }).await, [0_u64; 0]);
        let power = Some(Action::Power);
        assert_eq!(seqs(TrailFilter { action: power, ..d() }).await, [1, 3, 5, 7, 9, 11]);
        let pending = Some(Outcome::Pending);
        assert_eq!(seqs(TrailFilter { outcome: pending, action: power, ..d() }).await, [3, 9]);
        assert_eq!(seqs(TrailFilter { resource: Some("Lab/VM_1".into()), ..d() }).await, [1, 10, 11]);
        assert_eq!(seqs(TrailFilter { resource: Some("vm_5".into()), ..d() }).await, [5]);
        assert_eq!(seqs(TrailFilter { text: Some("VM_1".into()), ..d() }).await, [1, 10, 11]);
        // wildcards and quotes are text
        assert_eq!(seqs(TrailFilter { text: Some("vmx1".into()), ..d() }).await, [0_u64; 0]);
        assert_eq!(seqs(TrailFilter { text: Some("50% of\"it\"".into()), ..d() }).await.len(), 13);
        assert_eq!(seqs(TrailFilter { text: Some("%'; drop table users; --".into()), ..d() }).await, [0_u64; 0]);
        assert_eq!(seqs(TrailFilter { text: Some("ada".into()), ..d() }).await.len(), 7);
        // 0, 3, 6 and 9 were opened and closed; 4 of the other node closes nothing that the index holds
        let once = TrailFilter { brackets: Brackets::Once, ..d() };
        assert_eq!(seqs(once.clone()).await, [1, 2, 4, 4, 5, 7, 8, 10, 11]);
        store.add_trail(&[event(1, 12), event(2, 3), event(3, 3)]).await.unwrap();
        assert_eq!(seqs(once.clone()).await, [1, 2, 3, 4, 4, 5, 7, 8, 10, 11, 12]);
        // what was intended, in a request that has come to its end and in one that has not
        let intent = |seq: u64, request: u128| TrailRow {
            request: RequestId::new(Uuid::from_u128(request)),
            outcome: Outcome::Pending,
            ..event(5, seq)
        };
        store.add_trail(&[intent(2, 7), intent(5, 900)]).await.unwrap();
        let of_node = TrailFilter { node: Some(node(5)), ..once };
        assert_eq!(seqs(of_node).await, [5]);
    })
    .await;
}

#[tokio::test]
async fn one_event_and_the_one_that_closed_it_are_found_by_number() {
    on_both(async |b| {
        let store = b.open().await;
        let rows: Vec<_> = (0..12).map(|s| event(1, s)).collect();
        store.add_trail(&rows).await.unwrap();
        assert_eq!(store.trail_row(node(1), Seq(4)).await.unwrap().as_ref(), Some(&rows[4]));
        // event 4 closes event 3
        assert_eq!(store.trail_closing(node(1), Seq(3)).await.unwrap(), Some(Seq(4)));
        assert_eq!(store.trail_closing(node(1), Seq(4)).await.unwrap(), None);
        for (n, seq) in [(2, 4), (1, 12), (1, u64::MAX)] {
            assert_eq!(store.trail_row(node(n), Seq(seq)).await.unwrap(), None);
            assert_eq!(store.trail_closing(node(n), Seq(seq)).await.unwrap(), None);
        }
    })
    .await;
}
