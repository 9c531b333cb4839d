// SPDX-License-Identifier: Apache-2.0
//! What this node tells policy of who holds what: each change, before anybody acts at the epoch that brought it.

use crate::{Error, Identity};
use portcullis_domain::{GrantChange, GroupId};
use portcullis_store::GrantRows;
use std::{
    collections::HashSet,
    sync::{Arc, Mutex, PoisonError},
};

/// More changes than this are taken over on a thread of their own.
const MANY: usize = 1_000;
/// How often rows are read again because something changed meanwhile.
const TRIES: usize = 5;

/// Whether what policy hears is all that there is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Scope {
    /// It is: what was known before is forgotten.
    Whole,
    /// It is what has changed.
    Changes,
}

/// What policy hears.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Feed {
    /// Whether it is all that there is.
    pub scope: Scope,
    /// Who holds what now.
    pub changes: Vec<GrantChange>,
    /// What could not be read, in words: reason for an alarm. Whom it concerns is shut out by one of the changes.
    pub unread: Vec<String>,
}

impl Feed {
    fn groups(&self) -> impl Iterator<Item = GroupId> {
        self.changes.iter().filter_map(|c| match c {
            GrantChange::Members(group, _) => Some(*group),
            GrantChange::Put(..) | GrantChange::Take(..) | GrantChange::Shut(_) | GrantChange::ShutAll => None,
        })
    }
}

type Listener = Arc<dyn Fn(Feed) + Send + Sync>;

/// Who listens, and what they know.
#[derive(Default)]
pub(crate) struct Told(Mutex<State>);

#[derive(Default)]
struct State {
    listener: Option<Listener>,
    /// The epoch up to which they heard what there is to hear; none: nothing.
    heard: Option<u64>,
    /// The epoch after which changes are enough; none: they must hear everything.
    known: Option<u64>,
    groups: HashSet<GroupId>,
}

impl Told {
    fn lock(&self) -> std::sync::MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Identity {
    /// Tells somebody who holds what: at once everything with the next refresh, then each change. What they were told
    /// counts before anybody is known at the epoch that brought it, so that a revoked grant opens nothing once
    /// [`Identity::refresh`] has come back.
    pub fn tell_changes(&self, listener: impl Fn(Feed) + Send + Sync + 'static) {
        *self.0.told.lock() = State { listener: Some(Arc::new(listener)), ..State::default() };
    }

    /// Whether the listener, if there is one, has not heard everything up to an epoch.
    pub(crate) fn is_behind(&self, epoch: u64) -> bool {
        let state = self.0.told.lock();
        state.listener.is_some() && state.heard != Some(epoch)
    }

    /// Reads what is new up to an epoch and tells it. When it cannot be read, policy hears that it knows nothing.
    pub(crate) async fn tell(&self, epoch: u64) -> Result<(), Error> {
        let (listener, known) = {
            let state = self.0.told.lock();
            let Some(listener) = state.listener.clone() else { return Ok(()) };
            (listener, state.known)
        };
        let found = self.read_changes(known, epoch).await;
        let feed = found.as_ref().map_or_else(
            // Something changed, and nobody knows what.
            |error| Feed {
                scope: Scope::Changes,
                changes: vec![GrantChange::ShutAll],
                unread: vec![error.to_string()],
            },
            Feed::clone,
        );
        {
            let mut state = self.0.told.lock();
            if feed.scope == Scope::Whole {
                state.groups.clear();
            }
            state.groups.extend(feed.groups());
            // While something is shut, everything is read again with each change.
            state.known = feed.unread.is_empty().then_some(epoch);
            state.heard = found.is_ok().then_some(epoch);
        }
        if feed.changes.len() > MANY {
            if tokio::task::spawn_blocking(move || listener(feed)).await.is_err() {
                let mut state = self.0.told.lock();
                (state.known, state.heard) = (None, None);
            }
        } else {
            listener(feed);
        }
        found.map(drop)
    }

    /// What is new after `known`; everything where that does not lead there.
    async fn read_changes(&self, known: Option<u64>, mut epoch: u64) -> Result<Feed, Error> {
        let store = &self.0.store;
        let since = known.filter(|k| *k <= epoch).and_then(|k| i64::try_from(k).ok());
        if since.is_some() {
            for turn in 1..=TRIES {
                let GrantRows { changes, unread, groups } = store.grant_changes(since).await.map_err(Error::store)?;
                let feed = Feed { scope: Scope::Changes, changes, unread };
                let mut known = self.0.told.lock().groups.clone();
                known.extend(feed.groups());
                // A group that was deleted leaves no row behind. And what is unreadable is read with everything else.
                if known.len() != groups || !feed.unread.is_empty() {
                    break;
                }
                // The rows are of one instant only if nothing changed while they were read. Where it never stands
                // still, what changed meanwhile comes with the next reading.
                let now = store.epoch().await.map_err(Error::store)?.unsigned_abs();
                if now == epoch || turn == TRIES {
                    return Ok(feed);
                }
                epoch = now;
            }
        }
        let GrantRows { changes, unread, .. } = store.grant_changes(None).await.map_err(Error::store)?;
        Ok(Feed { scope: Scope::Whole, changes, unread })
    }
}

#[cfg(test)]
mod tests;
