// SPDX-License-Identifier: Apache-2.0
//! The policy in use, and how it changes: readers take no lock, changes are made one at a time and published whole.

use crate::{
    Error,
    index::Part,
    snapshot::{Snapshot, rules_of},
};
use arc_swap::ArcSwap;
use portcullis_domain::{Grant, GrantChange, UserId};
use std::sync::{
    Arc, Mutex, PoisonError,
    atomic::{AtomicU64, Ordering},
};

/// Decides. Shared by all threads.
pub struct Engine {
    pub(crate) current: ArcSwap<Snapshot>,
    generation: AtomicU64,
    /// Changes are made one at a time, each on what the one before it left.
    turn: Mutex<()>,
}

impl Engine {
    /// Reads a set of rules. Refuses the whole of it when anything in it is wrong. Nobody holds anything yet.
    pub async fn load(csv: &str) -> Result<Self, Error> {
        let first = Snapshot::new(rules_of(csv).await?);
        Ok(Self { current: ArcSwap::from_pointee(first), generation: AtomicU64::new(0), turn: Mutex::default() })
    }

    /// The roles that come with the gateway.
    pub async fn builtin() -> Result<Self, Error> {
        Self::load(crate::RULES).await
    }

    /// Tries a set of rules and changes nothing.
    pub async fn check(&self, csv: &str) -> Result<(), Error> {
        rules_of(csv).await.map(drop)
    }

    /// Takes a new set of rules, whole; when it is refused, the last good one stays. Live streams must be renewed.
    pub async fn replace(&self, csv: &str) -> Result<(), Error> {
        let rules = rules_of(csv).await?;
        self.publish(|now| now.ruled_by(rules));
        Ok(())
    }

    /// Takes changes of who holds what. Each decision from now on is made with all of them.
    pub fn apply(&self, changes: impl IntoIterator<Item = GrantChange>) {
        self.publish(|now| now.changed(changes, Part::Some));
    }

    /// Forgets who holds what and takes this instead. Decisions go on meanwhile, with what was known.
    pub fn reset(&self, all: impl IntoIterator<Item = GrantChange>) {
        self.publish(|now| now.changed(all, Part::Whole));
    }

    fn publish(&self, next: impl FnOnce(&Snapshot) -> Snapshot) {
        let _turn = self.turn.lock().unwrap_or_else(PoisonError::into_inner);
        let next = next(&self.current.load_full());
        self.current.store(Arc::new(next));
        self.generation.fetch_add(1, Ordering::Release);
    }

    /// How many times the policy changed: a number that moved means that live streams must be renewed.
    pub fn generation(&self) -> u64 {
        self.generation.load(Ordering::Acquire)
    }

    /// The policy as it is now, for one decision: it is let go of at once.
    pub fn snapshot_now(&self) -> impl std::ops::Deref<Target = Arc<Snapshot>> {
        self.current.load()
    }

    /// The policy as it is now, to keep.
    pub fn snapshot(&self) -> Arc<Snapshot> {
        self.current.load_full()
    }

    /// The grants of a person and of their groups, the oldest first.
    pub fn grants_of(&self, user: UserId) -> Vec<Grant> {
        self.current.load().grants_of(user)
    }
}
