// SPDX-License-Identifier: Apache-2.0
//! Waiting for durability, without a wake across threads for each who waits.
//!
//! Each thread has a list of those who wait on it. After a commit the writer publishes one number and wakes the first
//! of each list that it satisfies; that one, on its own thread, wakes the others, which costs no system call there.
//! Should it not be polled (its task looks elsewhere), the writer wakes the others itself a few milliseconds later.

use crate::{
    error::Error,
    segment::lock,
    shared::{Hurry, Shared},
};
use portcullis_domain::Seq;
use std::{
    cell::RefCell,
    pin::Pin,
    sync::{Arc, Mutex},
    task::{Context, Poll, Waker},
};

/// One who waits.
struct Waiter {
    seq: u64,
    id: u64,
    waker: Waker,
}

#[derive(Default)]
struct Queue {
    waiters: Vec<Waiter>,
    next_id: u64,
    /// Nobody below this number is in the list any more.
    swept: u64,
}

/// Those who wait on one thread.
#[derive(Default)]
pub(crate) struct Waiters(Mutex<Queue>);

impl Queue {
    /// Takes out everyone whose event is among the first `durable` ones.
    fn take(&mut self, durable: u64) -> Vec<Waiter> {
        self.swept = self.swept.max(durable);
        if self.waiters.iter().all(|w| w.seq < durable) {
            let next = Vec::with_capacity(self.waiters.len());
            return std::mem::replace(&mut self.waiters, next);
        }
        self.waiters.extract_if(.., |w| w.seq < durable).collect()
    }
}

impl Waiters {
    /// Wakes everyone whose event is among the first `durable` ones.
    pub(crate) fn wake(&self, durable: u64) {
        let satisfied = lock(&self.0).take(durable);
        for waiter in satisfied {
            waiter.waker.wake();
        }
    }

    /// Wakes one of those, who wakes the others; gives how many there are.
    pub(crate) fn lead(&self, durable: u64) -> usize {
        let queue = lock(&self.0);
        let mut satisfied = queue.waiters.iter().filter(|w| w.seq < durable);
        let Some(leader) = satisfied.next().map(|w| w.waker.clone()) else { return 0 };
        let others = satisfied.count();
        drop(queue);
        leader.wake();
        others + 1
    }

    /// Whether nobody waits and no thread will come.
    pub(crate) fn is_forsaken(self: &Arc<Self>) -> bool {
        Arc::strong_count(self) == 1 && lock(&self.0).waiters.is_empty()
    }
}

thread_local! {
    // by the number of the trail's shared state; those of trails that ended are dropped when another is added
    static LISTS: RefCell<Vec<(u64, Arc<Waiters>)>> = const { RefCell::new(Vec::new()) };
}

/// This thread's list for a trail.
fn mine(shared: &Shared) -> Arc<Waiters> {
    let found = LISTS.try_with(|lists| {
        let lists = lists.borrow();
        lists.iter().find(|(id, _)| *id == shared.id).map(|(_, w)| Arc::clone(w))
    });
    if let Ok(Some(list)) = found {
        return list;
    }
    let list = Arc::new(Waiters::default());
    shared.enlist(&list);
    // while a thread ends it has no lists of its own any more; this one then serves once
    let _kept = LISTS.try_with(|lists| {
        let mut lists = lists.borrow_mut();
        lists.retain(|(_, w)| Arc::strong_count(w) > 1);
        lists.push((shared.id, Arc::clone(&list)));
    });
    list
}

/// Resolves when an event is on the disk, or when it is known that it will never be.
#[must_use = "nothing is durable before this resolved"]
pub struct Durable {
    shared: Arc<Shared>,
    seq: u64,
    hurry: Hurry,
    place: Option<(Arc<Waiters>, u64)>,
}

impl Durable {
    pub(crate) fn new(shared: Arc<Shared>, seq: Seq, hurry: Hurry) -> Self {
        Self { shared, seq: seq.0, hurry, place: None }
    }

    /// Leaves the list and wakes whoever in it need not wait any more: this one may have been woken to do that.
    fn leave(&mut self) {
        let Some((list, id)) = self.place.take() else { return };
        let reach = self.shared.reach();
        let mut queue = lock(&list.0);
        if self.seq < reach && queue.swept >= reach {
            return;
        }
        queue.waiters.retain(|w| w.id != id);
        let satisfied = queue.take(reach);
        drop(queue);
        for waiter in satisfied {
            waiter.waker.wake();
        }
    }
}

impl Future for Durable {
    type Output = Result<(), Error>;

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let this = self.get_mut();
        if let Some(outcome) = this.shared.outcome(this.seq) {
            this.leave();
            return Poll::Ready(outcome);
        }
        let (list, id) = if let Some((list, id)) = this.place.take() {
            (list, Some(id))
        } else {
            this.shared.urge(this.seq, this.hurry);
            (mine(&this.shared), None)
        };
        let mut queue = lock(&list.0);
        // asked again under the lock: the writer publishes first and looks through the lists then
        let outcome = this.shared.outcome(this.seq);
        let id = id.unwrap_or_else(|| {
            queue.next_id += 1;
            queue.next_id
        });
        if outcome.is_none() {
            match queue.waiters.iter_mut().rev().find(|w| w.id == id) {
                Some(waiter) => waiter.waker.clone_from(context.waker()),
                None => queue.waiters.push(Waiter { seq: this.seq, id, waker: context.waker().clone() }),
            }
        }
        drop(queue);
        this.place = Some((list, id));
        match outcome {
            Some(outcome) => {
                this.leave();
                Poll::Ready(outcome)
            }
            None => Poll::Pending,
        }
    }
}

impl Drop for Durable {
    fn drop(&mut self) {
        self.leave();
    }
}
