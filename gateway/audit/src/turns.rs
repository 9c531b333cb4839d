// SPDX-License-Identifier: Apache-2.0
//! Asking the writer once a turn of a thread, not once an event.
//!
//! Waking a thread costs more than an event does. A runtime polls every task that is ready before it sleeps; what those
//! tasks append and wait for is put to the writer together, by a task of its own that the first of them wakes: it stands
//! behind all that were ready, so nobody who is ready later can keep it from being polled.

use crate::{segment::lock, shared::Shared};
use std::{
    cell::RefCell,
    pin::Pin,
    sync::{
        Arc, Mutex,
        atomic::{AtomicU32, Ordering},
    },
    task::{Context, Poll, Waker},
};

/// In [`Turn::asked`]: the turn was asked for.
const ASKED: u32 = 1 << 31;

/// What one thread asks of the writer in one turn.
pub(crate) struct Turn {
    /// How many wait since the last turn ended, and [`ASKED`].
    asked: AtomicU32,
    /// Wakes the task that ends the turn; none while there is no such task.
    waker: Mutex<Option<Waker>>,
}

impl Turn {
    /// Leaves it to the end of the turn; false when nobody ends this thread's turns any more.
    fn ask(&self, waiters: u32) -> bool {
        if self.asked.fetch_add(waiters, Ordering::AcqRel) & ASKED != 0 {
            return true;
        }
        let waker = lock(&self.waker);
        let Some(waker) = &*waker else { return false };
        self.asked.fetch_or(ASKED, Ordering::AcqRel);
        waker.wake_by_ref();
        true
    }

    /// Puts to the writer what was asked for.
    fn end(&self, shared: &Shared) {
        let asked = self.asked.swap(0, Ordering::AcqRel);
        if asked != 0 {
            shared.nudge(asked & !ASKED);
        }
    }
}

thread_local! {
    // by the number of the trail's shared state
    static TURNS: RefCell<Vec<(u64, Arc<Turn>)>> = const { RefCell::new(Vec::new()) };
}

/// Leaves a question to the writer to the end of this thread's turn, if its turns are ended.
pub(crate) fn ask(shared: &Shared, waiters: u32) -> bool {
    let asked = TURNS.try_with(|turns| {
        let turns = turns.borrow();
        turns.iter().find(|(id, _)| *id == shared.id).map(|(_, turn)| turn.ask(waiters))
    });
    matches!(asked, Ok(Some(true)))
}

/// Ends the turns of the thread that polls it; resolves when the trail has ended. Spawn one on each thread whose tasks
/// append and wait.
#[must_use = "turns are ended only while this is polled"]
pub struct Turns {
    shared: Arc<Shared>,
    turn: Option<Arc<Turn>>,
}

impl Turns {
    pub(crate) fn new(shared: Arc<Shared>) -> Self {
        Self { shared, turn: None }
    }
}

impl Future for Turns {
    type Output = ();

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<()> {
        let this = self.get_mut();
        if this.shared.ended().is_some() {
            return Poll::Ready(());
        }
        let turn = this.turn.get_or_insert_with(|| {
            let turn = Arc::new(Turn { asked: AtomicU32::new(0), waker: Mutex::default() });
            // A thread that is ending has no list any more: its questions go to the writer one by one.
            let _kept = TURNS.try_with(|turns| turns.borrow_mut().push((this.shared.id, Arc::clone(&turn))));
            turn
        });
        {
            let mut waker = lock(&turn.waker);
            match &mut *waker {
                Some(waker) => waker.clone_from(context.waker()),
                None => *waker = Some(context.waker().clone()),
            }
        }
        turn.end(&this.shared);
        Poll::Pending
    }
}

impl Drop for Turns {
    fn drop(&mut self) {
        let Some(turn) = self.turn.take() else { return };
        *lock(&turn.waker) = None;
        let _gone = TURNS.try_with(|turns| turns.borrow_mut().retain(|(_, t)| !Arc::ptr_eq(t, &turn)));
        // whoever asked before the waker was taken away
        turn.end(&self.shared);
    }
}
