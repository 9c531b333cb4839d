// SPDX-License-Identifier: Apache-2.0
//! Live console sessions of this node: who is at which screen, and the leash that cuts them.
//!
//! A live stream is as revocable as a request: once a second, and at once when a session, grant or policy changes,
//! every permit is asked for again. What the answer no longer allows is cut with the reason.

use crate::state::House;
use portcullis_domain::{ConsoleMode, Ending, MachineRef, RecordingId, SessionId, UserId};
use portcullis_policy::{Decision, Permit};
use std::{
    collections::BTreeMap,
    net::IpAddr,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};
use time::OffsetDateTime;
use tokio::sync::watch;
use uuid::Uuid;

/// One person at one screen.
pub(crate) struct Live {
    pub(crate) id: Uuid,
    pub(crate) user: UserId,
    pub(crate) user_name: Arc<str>,
    pub(crate) session: SessionId,
    pub(crate) machine: MachineRef,
    pub(crate) mode: ConsoleMode,
    pub(crate) place: IpAddr,
    pub(crate) started_at: OffsetDateTime,
    pub(crate) recording: Option<RecordingId>,
    permit: Arc<Permit>,
    leash: watch::Sender<Option<Ending>>,
}

/// The register of them.
#[derive(Default)]
pub(crate) struct Lives(Mutex<BTreeMap<Uuid, Arc<Live>>>);

/// Why no further console may open.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Full {
    Person,
    Hypervisor,
}

impl Full {
    pub(crate) const fn words(self) -> &'static str {
        match self {
            Self::Person => "You have too many consoles open. Close one first.",
            Self::Hypervisor => "Too many consoles of this hypervisor are open. Try again later.",
        }
    }
}

/// Takes a session off the register when its relay is over, however that came about.
pub(crate) struct Registered {
    lives: Arc<Lives>,
    id: Uuid,
    pub(crate) leash: watch::Receiver<Option<Ending>>,
}

impl Drop for Registered {
    fn drop(&mut self) {
        self.lives.lock().remove(&self.id);
    }
}

/// A session that asks for its place.
pub(crate) struct Opening {
    pub(crate) user: UserId,
    pub(crate) user_name: Arc<str>,
    pub(crate) session: SessionId,
    pub(crate) machine: MachineRef,
    pub(crate) mode: ConsoleMode,
    pub(crate) place: IpAddr,
    pub(crate) recording: Option<RecordingId>,
}

impl Lives {
    fn lock(&self) -> MutexGuard<'_, BTreeMap<Uuid, Arc<Live>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Registers a session within the limits; one look and one insert under the same lock, so that two at once cannot
    /// both take the last place.
    pub(crate) fn register(
        self: &Arc<Self>,
        house: &House,
        opening: Opening,
        permit: Arc<Permit>,
    ) -> Result<Registered, Full> {
        let limits = &house.config.consoles;
        let mut map = self.lock();
        let count = |test: &dyn Fn(&Live) -> bool| map.values().filter(|l| test(l)).count();
        if count(&|l| l.user == opening.user) >= limits.per_person {
            return Err(Full::Person);
        }
        if count(&|l| l.machine.hypervisor == opening.machine.hypervisor) >= limits.per_hypervisor {
            return Err(Full::Hypervisor);
        }
        let (sender, leash) = watch::channel(None);
        let Opening { user, user_name, session, machine, mode, place, recording } = opening;
        let id = house.request_id().uuid();
        let started_at = house.clock.now();
        let live =
            Live { id, user, user_name, session, machine, mode, place, started_at, recording, permit, leash: sender };
        map.insert(id, Arc::new(live));
        Ok(Registered { lives: Arc::clone(self), id, leash })
    }

    /// All of them, oldest first.
    pub(crate) fn list(&self) -> Vec<Arc<Live>> {
        let mut all: Vec<_> = self.lock().values().cloned().collect();
        all.sort_by_key(|l| l.started_at);
        all
    }

    /// Cuts one; false when it is not there.
    pub(crate) fn cut(&self, id: Uuid, ending: Ending) -> bool {
        let live = self.lock().get(&id).cloned();
        live.is_some_and(|l| l.leash.send(Some(ending)).is_ok())
    }

    /// Cuts all of them.
    pub(crate) fn cut_all(&self, ending: &Ending) {
        for live in self.list() {
            live.leash.send_replace(Some(ending.clone()));
        }
    }
}

/// Asks for every permit again, for ever.
pub(crate) async fn keep(house: Arc<House>) {
    let mut changes = house.identity.changes();
    loop {
        tokio::select! {
            () = house.closing.cancelled() => return,
            changed = changes.changed() => if changed.is_err() { return },
            () = tokio::time::sleep(Duration::from_secs(1)) => {}
        }
        for live in house.lives.list() {
            if let Some(reason) = lost(&house, &live).await {
                live.leash.send_replace(Some(Ending::Cut(reason)));
            }
        }
    }
}

/// Why a live session may not go on, if so. Step-up is asked when a console opens, not while it is open.
async fn lost(house: &House, live: &Live) -> Option<String> {
    let actor = match house.identity.actor_of(live.session).await {
        Ok(Some(actor)) => actor,
        Ok(None) => return Some("you were signed out".into()),
        Err(_) => return Some("your sign-in could not be checked".into()),
    };
    match house.engine.renew(&live.permit, &actor, &house.fleet.inventory(), house.clock.now()) {
        Decision::Permit(_) | Decision::StepUp(_) => None,
        Decision::Deny(reason) => Some(reason.to_string()),
    }
}
