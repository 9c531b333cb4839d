// SPDX-License-Identifier: Apache-2.0
//! The index in the store.

use super::{event, fill, open};
use crate::{Error, agrees, rebuild, search};
use portcullis_domain::{Outcome, Phase, Seq};
use portcullis_store::{Store, TrailFilter, TrailRow};
use std::time::{Duration, Instant};

async fn caught_up(trail: &crate::Trail, store: &Store, seq: u64) {
    let begun = Instant::now();
    while store.trail_head(trail.node()).await.unwrap() != Some(Seq(seq)) {
        assert!(begun.elapsed() < Duration::from_secs(20), "the index does not catch up");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_index_follows_the_log_finds_events_and_can_be_rebuilt() {
    let dir = tempfile::tempdir().unwrap();
    let url = format!("sqlite://{}", dir.path().join("store.db").display());
    let store = Store::open(&url).await.unwrap();
    let logs = dir.path().join("trail");
    let (trail, _) = open(&logs).unwrap();
    fill(&trail, 700);
    let mut set = tokio::task::JoinSet::new();
    set.spawn(trail.clone().index(store.clone()));
    caught_up(&trail, &store, 699).await;
    let mut denied = event(5000, Phase::Noted);
    denied.outcome = Outcome::Denied;
    let seq = trail.append(&denied).unwrap();
    trail.durable(seq).await.unwrap();
    caught_up(&trail, &store, 700).await;
    let filter = TrailFilter { outcome: Some(Outcome::Denied), ..TrailFilter::default() };
    let found = search(&trail.reader(), &store, &filter, 10, None).await.unwrap();
    assert_eq!(found.len(), 1);
    assert_eq!((found[0].row.seq, found[0].event.as_ref()), (seq, Some(&denied)));

    // what is shown comes from the log: an index that lies is found out, and mended from the log
    let all = search(&trail.reader(), &store, &TrailFilter::default(), 2000, None).await.unwrap();
    assert_eq!(all.len(), 701);
    let mut row = all[5].row.clone();
    store.clear_trail(trail.node()).await.unwrap();
    row.offset += 1;
    store.add_trail(&[row]).await.unwrap();
    let lied = search(&trail.reader(), &store, &TrailFilter::default(), 10, None).await;
    assert!(matches!(lied, Err(Error::Misplaced(_))));
    assert_eq!(rebuild(&trail.reader(), &store).await.unwrap(), 701);
    assert_eq!(search(&trail.reader(), &store, &TrailFilter::default(), 2000, None).await.unwrap(), all);

    trail.close().unwrap();
    assert!(set.join_next().await.unwrap().unwrap().is_ok(), "it ends with the trail");
    drop(trail);

    // an index that knows more than the log: the log was cut
    let mut row = all[0].row.clone();
    row.seq = Seq(9999);
    store.add_trail(&[row]).await.unwrap();
    let (trail, _) = open(&logs).unwrap();
    let ended = trail.clone().index(store).await;
    assert!(matches!(ended, Err(Error::Cut { known: 10_000, .. })), "{ended:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_row_agrees_with_its_event_and_no_changed_row_does() {
    let dir = tempfile::tempdir().unwrap();
    let url = format!("sqlite://{}", dir.path().join("store.db").display());
    let store = Store::open(&url).await.unwrap();
    let (trail, _) = open(&dir.path().join("trail")).unwrap();
    fill(&trail, 300);
    rebuild(&trail.reader(), &store).await.unwrap();
    let rows = store.search_trail(&TrailFilter::default(), 1000, None).await.unwrap();
    assert_eq!(rows.len(), 300);
    let placed = |row: &TrailRow| trail.reader().placed(row.segment, row.offset).unwrap();
    for row in &rows {
        assert!(placed(row).is_some_and(|p| agrees(row, &p)), "{row:?}");
    }
    let (row, other) = (rows[100].clone(), rows[101].clone());
    let changes: [fn(&mut TrailRow); 9] = [
        |r| r.outcome = Outcome::Denied,
        |r| r.reason = "nothing happened".into(),
        |r| r.resource = "elsewhere".into(),
        |r| r.user_name = Some("mallory".into()),
        |r| r.user = Some(portcullis_domain::UserId::new(uuid::Uuid::from_u128(1))),
        |r| r.action = Some(portcullis_domain::Action::View),
        |r| r.kind = "page".into(),
        |r| r.peer = Some([127, 0, 0, 1].into()),
        |r| r.at += time::Duration::SECOND,
    ];
    for change in changes {
        let mut changed = row.clone();
        change(&mut changed);
        assert!(placed(&changed).is_some_and(|p| !agrees(&changed, &p)), "{changed:?}");
    }
    // a true event under another one's number
    let moved = TrailRow { seq: row.seq, ..other };
    assert!(placed(&moved).is_some_and(|p| !agrees(&moved, &p)));
    assert_eq!(placed(&TrailRow { offset: row.offset + 1, ..row }), None);
}
