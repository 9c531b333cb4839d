// SPDX-License-Identifier: Apache-2.0
//! Who has a session of one kind, and whose is given up.

use super::Seat;
use portcullis_domain::Pass;
use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};
use tokio::time::Instant;

/// How long a session may be idle.
const IDLE: Duration = Duration::from_mins(30);
/// How long one must have been idle before somebody else may take its place.
pub(super) const GIVEN_UP: Duration = Duration::from_mins(1);
/// The most sessions of one token, and of one person: one more takes the place of their oldest. The hypervisor's own limit
/// is for all of them together.
pub(super) const OF_TOKEN: usize = 5;
pub(super) const OF_ONE: usize = 20;

struct Seated<S> {
    session: Arc<S>,
    used_at: Instant,
}

/// What came of looking for a place.
pub(crate) enum Placed<S> {
    /// It has one, and somebody else's was given up.
    Here(Option<Arc<S>>),
    /// There was one already.
    Taken(Arc<S>),
    /// There is none.
    Full,
}

/// The sessions of one kind with one hypervisor.
pub(crate) struct Seats<S> {
    all: Mutex<HashMap<Seat, Seated<S>>>,
    most: usize,
}

impl<S> Seats<S> {
    pub(super) fn new(most: usize) -> Self {
        Self { all: Mutex::default(), most }
    }

    /// Somebody's session, which is used now.
    pub(crate) fn seated(&self, seat: &Seat) -> Option<Arc<S>> {
        let mut all = self.all.lock().unwrap_or_else(PoisonError::into_inner);
        let found = all.get_mut(seat)?;
        found.used_at = Instant::now();
        Some(Arc::clone(&found.session))
    }

    pub(crate) fn place(&self, seat: Seat, session: &Arc<S>) -> Placed<S> {
        let mut all = self.all.lock().unwrap_or_else(PoisonError::into_inner);
        // Whoever came twice at once keeps the first.
        if let Some(first) = all.get(&seat) {
            return Placed::Taken(Arc::clone(&first.session));
        }
        // The one that was used longest ago, where there are so many of a kind.
        let crowded = |is_one: &dyn Fn(&Seat) -> bool, most: usize| {
            let ones = || all.iter().filter(|(k, _)| is_one(k));
            let oldest = ones().min_by_key(|(_, s)| s.used_at).map(|(k, _)| *k);
            oldest.filter(|_| ones().count() >= most)
        };
        let own = crowded(&|k| k.pass.token == seat.pass.token, OF_TOKEN)
            .or_else(|| crowded(&|k| k.user == seat.user, OF_ONE));
        let given_up = if own.is_some() {
            own
        } else if all.len() >= self.most {
            let oldest = all.iter().min_by_key(|(_, s)| s.used_at);
            let Some((oldest, _)) = oldest.filter(|(_, s)| s.used_at.elapsed() > GIVEN_UP) else { return Placed::Full };
            Some(*oldest)
        } else {
            None
        };
        let given_up = given_up.and_then(|old| all.remove(&old)).map(|s| s.session);
        all.insert(seat, Seated { session: Arc::clone(session), used_at: Instant::now() });
        Placed::Here(given_up)
    }

    /// Takes out one that turned out to be over.
    pub(crate) fn leave(&self, seat: &Seat, session: &Arc<S>) {
        let mut all = self.all.lock().unwrap_or_else(PoisonError::into_inner);
        if all.get(seat).is_some_and(|s| Arc::ptr_eq(&s.session, session)) {
            all.remove(seat);
        }
    }

    /// Takes out the sessions of those whose sign-in no longer counts.
    pub(super) fn take(&self, counts: impl Fn(&Pass) -> bool) -> Vec<Arc<S>> {
        let mut all = self.all.lock().unwrap_or_else(PoisonError::into_inner);
        all.extract_if(|seat, _| !counts(&seat.pass)).map(|(_, seated)| seated.session).collect()
    }

    /// Takes out what has been idle too long.
    pub(super) fn take_idle(&self) -> Vec<Arc<S>> {
        let mut all = self.all.lock().unwrap_or_else(PoisonError::into_inner);
        all.extract_if(|_, seated| seated.used_at.elapsed() > IDLE).map(|(_, seated)| seated.session).collect()
    }
}
