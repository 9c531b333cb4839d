// SPDX-License-Identifier: Apache-2.0
//! What locks mean for requests and for what is open, and the watch that keeps the table of locks new.

use crate::state::{House, chain};
use portcullis_domain::{Actor, OwnObject, Resource, Via};
use portcullis_policy::{Decision, Permit};
use std::{sync::Arc, time::Duration};
use time::OffsetDateTime;

/// How often the locks are read, and how long one look may take.
const LOOK: Duration = Duration::from_secs(1);
/// After so many looks that failed it is not known what is locked.
const LOST: u32 = 4;

/// What whoever has something open reads whose hypervisor was removed, or is another one now.
pub(crate) const REMOVED: &str = "the hypervisor was removed from this gateway, or changed";

impl House {
    /// Why something that is open may not go on, if so: a lock stands against any of what it asks, or the permit for that
    /// would not be given again. Step-up is asked when it opens, not while it is open.
    pub(crate) fn pulled(&self, permit: &Permit, actor: &Actor) -> Option<String> {
        std::iter::once(permit).chain(permit.also()).find_map(|one| self.pulled_alone(one, actor))
    }

    fn pulled_alone(&self, permit: &Permit, actor: &Actor) -> Option<String> {
        let now = self.clock.now();
        let hypervisor = permit.operation().resource.hypervisor();
        if hypervisor.is_some_and(|name| !self.roster.load().has(name)) {
            return Some(REMOVED.to_owned());
        }
        if let Some(words) = self.locks.against(actor.via, &permit.operation().resource, now) {
            return Some(words);
        }
        match self.engine.renew(permit, actor, &self.fleet.inventory(), now) {
            Decision::Deny(reason) => Some(reason.to_string()),
            Decision::Permit(_) | Decision::StepUp(_) => None,
        }
    }

    /// Whether a lock stands against the token itself, where no operation is decided on.
    pub(crate) fn token_locked(&self, actor: &Actor, now: OffsetDateTime) -> Option<String> {
        match actor.via {
            Via::Token(_) => self.locks.against(actor.via, &Resource::Own(OwnObject::System), now),
            Via::Session(_) | Via::CommandLine => None,
        }
    }
}

/// Reads what is locked, and lifts the locks of people that are over, for ever. Each is written down before it is lifted.
pub(crate) async fn keep(house: Arc<House>) {
    let mut failed = 0;
    loop {
        match tokio::time::timeout(LOOK, house.locks.refresh()).await {
            Ok(Ok(())) => failed = 0,
            other => {
                failed += 1;
                let why = match other {
                    Ok(Err(error)) => chain(&error),
                    _ => "the store did not answer in time".to_owned(),
                };
                tracing::error!(%why, "what is locked could not be read");
                if failed >= LOST {
                    house.locks.lose();
                }
            }
        }
        if let Err(error) = lift(&house).await {
            tracing::error!(error = %chain(&error), "a lock that is over could not be lifted");
        }
        tokio::time::sleep(LOOK).await;
    }
}

async fn lift(house: &House) -> Result<(), portcullis_store::Error> {
    for (user, name) in house.store.locks_over(house.clock.now()).await? {
        if !house.note_about("user", &name, "the lock of the account is over").await {
            return Ok(());
        }
        if house.store.lift_lock(user, house.clock.now()).await? {
            house.identity.refresh().await.ok();
        }
    }
    Ok(())
}
