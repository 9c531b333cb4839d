// SPDX-License-Identifier: Apache-2.0
//! Waiting: nobody is forgotten, however futures are polled, moved or dropped.
#![expect(clippy::disallowed_methods, reason = "these tests wait for what they spawn")]

use super::{event, open};
use crate::{
    Error, Trail,
    frame::Line,
    shared::{Hurry, Shared},
    tree::Frontier,
    wait::Durable,
};
use portcullis_domain::{Phase, Seq};
use std::{
    io,
    pin::pin,
    sync::Arc,
    task::{Context, Poll, Waker},
    time::Duration,
};
use tokio::runtime::Builder;

const LONG: Duration = Duration::from_secs(10);

fn poll(future: &mut Durable) -> Poll<Result<(), Error>> {
    pin!(future).poll(&mut Context::from_waker(Waker::noop()))
}

#[test]
fn one_that_is_not_polled_holds_up_no_other() {
    let dir = tempfile::tempdir().unwrap();
    let (trail, _) = open(dir.path()).unwrap();
    Builder::new_current_thread().enable_all().build().unwrap().block_on(async {
        for n in 0..20 {
            // the first in the list is led, and its task looks elsewhere
            let mut held = trail.durable(trail.append(&event(n, Phase::Opened)).unwrap());
            let _first = poll(&mut held);
            let seq = trail.append(&event(n, Phase::Opened)).unwrap();
            tokio::time::timeout(LONG, trail.durable(seq)).await.expect("forgotten").unwrap();
        }
    });
}

#[test]
fn what_one_turn_of_a_thread_asks_for_shares_a_commit() {
    let dir = tempfile::tempdir().unwrap();
    let (trail, _) = open(dir.path()).unwrap();
    Builder::new_current_thread().enable_all().build().unwrap().block_on(async {
        tokio::spawn(trail.turns());
        // the writer goes to sleep
        tokio::time::sleep(Duration::from_millis(50)).await;
        let tasks: Vec<_> = (0..64)
            .map(|n| {
                let trail = trail.clone();
                tokio::spawn(async move {
                    let seq = trail.append(&event(n, Phase::Opened)).unwrap();
                    tokio::time::timeout(LONG, trail.durable(seq)).await.expect("forgotten").unwrap();
                    trail.head().size
                })
            })
            .collect();
        for task in tasks {
            assert_eq!(task.await.unwrap(), 64, "the first to be durable is so with the last");
        }
        // what nobody waits for is written all the same
        let seq = trail.append(&event(64, Phase::Noted)).unwrap();
        tokio::time::timeout(LONG, trail.settled(seq)).await.expect("forgotten").unwrap();
    });
}

#[test]
fn a_crowd_is_served_while_turns_are_ended_and_when_they_no_longer_are() {
    let dir = tempfile::tempdir().unwrap();
    let (trail, _) = open(dir.path()).unwrap();
    Builder::new_current_thread().enable_all().build().unwrap().block_on(async {
        let turns = tokio::spawn(trail.turns());
        crowd(trail.clone(), 20, 40).await;
        // in the middle of a turn that was asked for
        let seq = trail.append(&event(0, Phase::Opened)).unwrap();
        let mut asked = trail.durable(seq);
        let _pending = poll(&mut asked);
        turns.abort();
        tokio::time::timeout(LONG, asked).await.expect("forgotten").unwrap();
        crowd(trail.clone(), 20, 40).await;
    });
    // on a runtime that moves its tasks from thread to thread
    Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap().block_on(async {
        let turns = [tokio::spawn(trail.turns()), tokio::spawn(trail.turns())];
        let crowds = [0, 1].map(|_| tokio::spawn(crowd(trail.clone(), 10, 40)));
        for crowd in crowds {
            crowd.await.unwrap();
        }
        trail.close().unwrap();
        assert!(matches!(trail.append(&event(0, Phase::Noted)), Err(Error::Closed)));
        drop(turns);
    });
}

async fn crowd(trail: Trail, tasks: u64, rounds: u64) {
    let work = (0..tasks).map(|task| {
        let trail = trail.clone();
        async move {
            for n in 0..rounds {
                let phase = if n % 3 == 0 { Phase::Noted } else { Phase::Opened };
                let seq = trail.append(&event(n, phase)).unwrap();
                let mut future = trail.durable(seq);
                if (n + task) % 5 == 0 {
                    // polled once and dropped
                    let _dropped = poll(&mut trail.durable(seq));
                    let _once = poll(&mut future);
                    tokio::task::yield_now().await;
                }
                tokio::time::timeout(LONG, future).await.expect("forgotten").unwrap();
                assert!(trail.head().size > seq.0);
            }
        }
    });
    futures(work).await;
}

/// Polls many futures as one task would, all of them at each wake.
async fn futures(work: impl Iterator<Item = impl Future<Output = ()>>) {
    let mut left: Vec<_> = work.map(Box::pin).collect();
    std::future::poll_fn(|context| {
        left.retain_mut(|f| f.as_mut().poll(context).is_pending());
        if left.is_empty() { Poll::Ready(()) } else { Poll::Pending }
    })
    .await;
}

#[test]
fn a_crowd_on_several_threads_is_served() {
    let dir = tempfile::tempdir().unwrap();
    let (trail, _) = open(dir.path()).unwrap();
    std::thread::scope(|scope| {
        for _ in 0..3 {
            scope.spawn(|| {
                let runtime = Builder::new_current_thread().enable_all().build().unwrap();
                runtime.block_on(crowd(trail.clone(), 20, 60));
            });
        }
    });
    // and on a runtime that moves tasks between threads
    Builder::new_multi_thread().worker_threads(3).enable_all().build().unwrap().block_on(crowd(trail.clone(), 20, 60));
    assert_eq!(trail.head().size, 4 * 20 * 60);
}

#[test]
fn an_event_that_nobody_waits_for_is_written_all_the_same() {
    let dir = tempfile::tempdir().unwrap();
    let (trail, _) = open(dir.path()).unwrap();
    for n in 0..5 {
        let seq = trail.append(&event(n, Phase::Noted)).unwrap();
        let begun = std::time::Instant::now();
        while trail.head().size <= seq.0 {
            assert!(begun.elapsed() < LONG, "never written");
            std::thread::sleep(Duration::from_millis(1));
        }
    }
}

#[test]
fn a_failure_reaches_all_and_stays() {
    let shared = Arc::new(Shared::new(Frontier::default()));
    let mut waiting: Vec<_> = (0..3)
        .map(|n| {
            let seq = shared.append(&Line::of(&event(n, Phase::Opened))).unwrap();
            Durable::new(Arc::clone(&shared), seq, Hurry::Now)
        })
        .collect();
    assert!(waiting.iter_mut().all(|w| poll(w).is_pending()));
    shared.end(Error::Failed { doing: "flush the trail", source: Arc::new(io::Error::other("gone")) });
    shared.end(Error::Closed);
    assert!(waiting.iter_mut().all(|w| matches!(poll(w), Poll::Ready(Err(Error::Failed { .. })))));
    assert!(matches!(shared.append(&Line::of(&event(9, Phase::Noted))), Err(Error::Failed { .. })));
}

#[test]
fn a_disk_that_does_not_keep_up_refuses_instead_of_filling_the_memory() {
    let shared = Shared::new(Frontier::default());
    let mut big = event(0, Phase::Noted);
    big.reason = "x".repeat(60_000).into();
    let taken = (0..1000).take_while(|_| shared.append(&Line::of(&big)).is_ok()).count();
    assert!((130..150).contains(&taken), "{taken}");
    assert!(matches!(shared.append(&Line::of(&big)), Err(Error::Behind(_))));
    assert_eq!(
        shared.append(&Line::of(&event(1, Phase::Noted))).ok(),
        Some(Seq(taken as u64)),
        "a small one still fits"
    );
}
