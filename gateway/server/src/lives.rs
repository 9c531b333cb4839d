// SPDX-License-Identifier: Apache-2.0
//! Live console sessions of this node: who is at which screen, and the leash that cuts them.
//!
//! A live stream is as revocable as a request: once a second, and at once when a session, grant or policy changes,
//! every permit is asked for again. What the answer no longer allows is cut with the reason.

use crate::{
    reply::{self, Refusal},
    state::{House, chain},
};
use portcullis_domain::{ConsoleMode, Ending, MachineRef, RecordingId, SessionId, UserId};
use portcullis_policy::{Decision, Permit};
use std::{
    collections::BTreeMap,
    net::IpAddr,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
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
    pub(crate) ends_at: OffsetDateTime,
    pub(crate) recording: Option<RecordingId>,
    permit: Arc<Permit>,
    leash: watch::Sender<Option<Ending>>,
    /// Keys and pointer events so far, and how many of them the session knows of.
    inputs: Arc<AtomicU64>,
    told: AtomicU64,
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
    pub(crate) inputs: Arc<AtomicU64>,
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
    pub(crate) ends_at: OffsetDateTime,
    pub(crate) recording: Option<RecordingId>,
}

/// When a console ends at the latest, as things stand when its ticket is made: the longest that is configured, the end
/// of what permits it, the end of the person's session. The page shows it and the relay keeps to it.
pub(crate) async fn ends_at(
    house: &House,
    session: SessionId,
    lasts_until: OffsetDateTime,
    made_at: OffsetDateTime,
) -> Result<OffsetDateTime, Refusal> {
    let longest = made_at + time::Duration::seconds(i64::from(house.config.consoles.longest_seconds));
    let signed_in = house.identity.session_ends_at(session).await;
    let signed_in = signed_in.map_err(|e| reply::identity(&e, house.clock.now()))?.ok_or(Refusal::Unknown)?;
    Ok(longest.min(lasts_until).min(signed_in))
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
        let Opening { user, user_name, session, machine, mode, place, ends_at, recording } = opening;
        let id = house.request_id().uuid();
        let started_at = house.clock.now();
        let inputs = Arc::new(AtomicU64::new(0));
        let live = Live {
            id,
            user,
            user_name,
            session,
            machine,
            mode,
            place,
            started_at,
            ends_at,
            recording,
            permit,
            leash: sender,
            inputs: Arc::clone(&inputs),
            told: AtomicU64::new(0),
        };
        map.insert(id, Arc::new(live));
        Ok(Registered { lives: Arc::clone(self), id, leash, inputs })
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
            } else {
                keep_session(&house, &live).await;
            }
        }
    }
}

/// Whoever types into a screen makes no requests, and is not away: their session hears of it.
async fn keep_session(house: &House, live: &Live) {
    let inputs = live.inputs.load(Ordering::Relaxed);
    if live.told.swap(inputs, Ordering::Relaxed) != inputs
        && let Err(error) = house.identity.keep_alive(live.session).await
    {
        tracing::warn!(error = %chain(&error), "a session could not be told that it is in use");
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
