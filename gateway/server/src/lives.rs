// SPDX-License-Identifier: Apache-2.0
//! Live console sessions of this node: who is at which screen, and the leash that cuts them.
//!
//! A live stream is as revocable as a request: once a second, and at once when a session, grant or policy changes,
//! every permit is asked for again. What the answer no longer allows is cut with the reason.

use crate::{
    reply::{self, Refusal},
    state::{House, chain},
};
use portcullis_domain::{Actor, ConsoleMode, Ending, MachineRef, RecordingId, SessionId, UserId};
use portcullis_policy::Permit;
use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
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

/// How long the store may take to say who is still signed in.
const PATIENCE: Duration = Duration::from_secs(3);
/// And how long to say why somebody is not.
const WORDS: Duration = Duration::from_secs(1);

/// What a person reads whose session is gone.
const SIGNED_OUT: &str = "you were signed out";

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
    /// What lets clipboard texts pass.
    clipboard: Vec<Permit>,
    leash: watch::Sender<Option<Ending>>,
    /// Key and pointer events so far.
    inputs: Arc<AtomicU64>,
    typed: Mutex<Typed>,
}

/// What is known of somebody's input.
struct Typed {
    /// How many events there were at the last look.
    inputs: u64,
    /// The look that last found more of them.
    at: OffsetDateTime,
    /// When the session last heard of it.
    told_at: OffsetDateTime,
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
    /// Where the relay counts key and pointer events.
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
    /// What lets clipboard texts pass, beside the permit for the screen.
    pub(crate) clipboard: Vec<Permit>,
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
        let Opening { user, user_name, session, machine, mode, place, ends_at, recording, clipboard } = opening;
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
            clipboard,
            leash: sender,
            inputs: Arc::clone(&inputs),
            typed: Mutex::new(Typed { inputs: 0, at: started_at, told_at: started_at }),
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
        let lives = house.lives.list();
        if lives.is_empty() {
            continue;
        }
        let sessions: BTreeSet<SessionId> = lives.iter().map(|l| l.session).collect();
        // A store that is slow must not stretch the five seconds in which a revocation counts.
        let actors =
            tokio::time::timeout(PATIENCE, house.identity.actors_of(&sessions)).await.ok().and_then(Result::ok);
        let ended = why_ended(&house, &sessions, actors.as_ref()).await;
        for live in lives {
            match lost(&house, &live, actors.as_ref(), &ended) {
                Some(reason) => drop(live.leash.send_replace(Some(Ending::Cut(reason)))),
                None => live.keep_signed_in(&house),
            }
        }
    }
}

/// Why those sessions ended that did. Whoever waits for the words is cut all the same: they may take a second together.
async fn why_ended(
    house: &House,
    sessions: &BTreeSet<SessionId>,
    actors: Option<&HashMap<SessionId, Actor>>,
) -> HashMap<SessionId, String> {
    let mut ended = HashMap::new();
    let Some(actors) = actors else { return ended };
    let ask = async {
        for session in sessions.iter().filter(|s| !actors.contains_key(s)) {
            if let Ok(Some(why)) = house.identity.why_ended(*session).await {
                ended.insert(*session, why);
            }
        }
    };
    drop(tokio::time::timeout(WORDS, ask).await);
    ended
}

/// Why a live session may not go on, if so. Step-up is asked when a console opens, not while it is open.
fn lost(
    house: &House,
    live: &Live,
    actors: Option<&HashMap<SessionId, Actor>>,
    ended: &HashMap<SessionId, String>,
) -> Option<String> {
    let Some(actors) = actors else { return Some("your sign-in could not be checked".into()) };
    let Some(actor) = actors.get(&live.session) else {
        return Some(ended.get(&live.session).cloned().unwrap_or_else(|| SIGNED_OUT.into()));
    };
    // The relay keeps to what was allowed when it began: when less is allowed than that, it ends.
    [&*live.permit].into_iter().chain(&live.clipboard).find_map(|permit| house.pulled(permit, actor))
}

impl Live {
    /// Whoever types or points is there, though their browser asks for nothing: once a minute their session hears of
    /// it, and of when it was. What the machine shows by itself keeps nobody signed in.
    fn keep_signed_in(self: &Arc<Self>, house: &Arc<House>) {
        let (inputs, now) = (self.inputs.load(Ordering::Relaxed), house.clock.now());
        let at = {
            let mut typed = self.typed.lock().unwrap_or_else(PoisonError::into_inner);
            if inputs != typed.inputs {
                (typed.inputs, typed.at) = (inputs, now);
            }
            if typed.at <= typed.told_at || now - typed.told_at < time::Duration::MINUTE {
                return;
            }
            typed.told_at = now;
            typed.at
        };
        let (session, house) = (self.session, Arc::clone(house));
        // On its own: a write that waits must not hold up the next look.
        house.tasks.clone().spawn(async move {
            if let Err(error) = house.identity.keep_alive(session, at).await {
                tracing::warn!(error = %chain(&error), "a session in use could not be kept alive");
            }
        });
    }
}
