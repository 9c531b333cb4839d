// SPDX-License-Identifier: Apache-2.0
//! The session store of tower-sessions, on our own rows.

use crate::{
    Settings, chance,
    live::{Live, Sessions},
    stage::{BANNER, STAGE, Stage},
};
use arc_swap::ArcSwap;
use async_trait::async_trait;
use portcullis_domain::{Clock, SessionId, UserId, assurance::EMERGENCY};
use portcullis_store::{Digest, NewSession, Rotation, Store};
use std::{
    collections::{HashMap, HashSet},
    fmt,
    net::IpAddr,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};
use time::{Duration, OffsetDateTime};
use tokio::sync::watch;
use tower_sessions::{
    SessionStore,
    session::{Id, Record},
    session_store::{Error, Result},
};

/// How often a session that is in use is written down as such.
const TOUCH: Duration = Duration::MINUTE;

/// How long a browser counts that nobody signed in with: what it begins anybody can begin, any number of times.
const STRANGER: Duration = Duration::minutes(10);

tokio::task_local! {
    /// The step that is being taken: tower-sessions gives it no way through its interface.
    static STEP: Step;
}

/// One step of sign-in: which row moves, and what it becomes.
#[derive(Debug, Clone)]
pub(crate) struct Step {
    from: Id,
    session: SessionId,
    user: Option<UserId>,
    created_at: OffsetDateTime,
    signed_in: bool,
    peer: Option<IpAddr>,
    lost: Arc<AtomicBool>,
}

impl Step {
    pub(crate) fn new(
        from: Id,
        session: SessionId,
        to: &Stage,
        created_at: OffsetDateTime,
        peer: Option<IpAddr>,
    ) -> Self {
        let signed_in = matches!(to, Stage::SignedIn { .. });
        Self { from, session, user: to.user(), created_at, signed_in, peer, lost: Arc::default() }
    }

    /// Runs `cycle_id` and `save` as this step.
    pub(crate) async fn run<F: Future>(self, work: F) -> F::Output {
        STEP.scope(self, work).await
    }

    /// Whether the row had ended or moved before the step could be taken.
    pub(crate) fn was_lost(&self) -> bool {
        self.lost.load(Ordering::Relaxed)
    }
}

/// Sessions in the store: ids hashed, saving only updates, an ended one never comes back.
#[derive(Clone)]
pub struct SessionRows {
    store: Store,
    clock: Arc<dyn Clock>,
    idle: Duration,
    strict_idle: Duration,
    absolute: Duration,
    /// Whose sessions end sooner. Read again when somebody's rights change; a use of the session then takes effect.
    strict: Arc<ArcSwap<HashSet<UserId>>>,
    /// Whose sessions last an hour at most: accounts for emergencies.
    brief: Arc<ArcSwap<HashSet<UserId>>>,
    live: Arc<Sessions>,
}

impl fmt::Debug for SessionRows {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SessionRows")
            .field("idle", &self.idle)
            .field("absolute", &self.absolute)
            .finish_non_exhaustive()
    }
}

pub(crate) fn hash(id: Id) -> Digest {
    chance::sha256(&id.0.to_le_bytes())
}

fn backend(error: &portcullis_store::Error) -> Error {
    Error::Backend(error.to_string())
}

fn encode(record: &Record) -> Result<String> {
    serde_json::to_string(&record.data).map_err(|e| Error::Encode(e.to_string()))
}

/// Whether something is other than before.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Moved {
    No,
    Yes,
}

/// A text inside a row's data.
fn text_of(data: &HashMap<String, serde_json::Value>, key: &str) -> Option<String> {
    data.get(key).and_then(serde_json::Value::as_str).map(str::to_owned)
}

/// The stage inside a row's data.
pub(crate) fn stage_of(data: &str) -> Option<Stage> {
    let mut data: HashMap<String, serde_json::Value> = serde_json::from_str(data).ok()?;
    serde_json::from_value(data.remove(STAGE)?).ok()
}

impl SessionRows {
    pub(crate) fn new(store: Store, clock: Arc<dyn Clock>, settings: &Settings, epoch: watch::Receiver<u64>) -> Self {
        let live = Arc::new(Sessions::new(epoch));
        let (idle, strict_idle, absolute) = (settings.idle(), settings.strict_idle(), settings.absolute());
        Self { store, clock, idle, strict_idle, absolute, strict: Arc::default(), brief: Arc::default(), live }
    }

    /// A signed-in session that counts, as far as that is known without the store.
    pub(crate) fn find(&self, id: Id, now: OffsetDateTime) -> Option<Arc<Live>> {
        self.live.find(hash(id), self.store.moves(), now)
    }

    /// Whether a session counts, as far as that is known without the store.
    pub fn remembers(&self, id: Id) -> bool {
        self.find(id, self.clock.now()).is_some()
    }

    /// The store did not tell its epoch: sessions are asked of it until it does.
    pub(crate) fn unheard(&self) {
        self.live.unheard();
    }

    /// The store told its epoch; another one than before when what was kept may not count any more.
    pub(crate) fn heard(&self, at: OffsetDateTime, moved: Moved) {
        if moved == Moved::Yes {
            self.live.clear();
        }
        self.live.heard(at);
    }

    /// Whose sessions end sooner from now on.
    pub(crate) fn be_strict_with(&self, people: HashSet<UserId>) {
        self.strict.store(Arc::new(people));
    }

    /// Whose sessions last an hour at most from now on.
    pub(crate) fn be_brief_with(&self, accounts: HashSet<UserId>) {
        self.brief.store(Arc::new(accounts));
    }

    /// Until when a session counts that began at one instant and was heard of at another.
    pub(crate) fn expiry(
        &self,
        user: Option<UserId>,
        created_at: OffsetDateTime,
        seen_at: OffsetDateTime,
    ) -> OffsetDateTime {
        let strict = user.is_some_and(|user| self.strict.load().contains(&user));
        let idle = match user {
            None => STRANGER.min(self.idle),
            Some(_) if strict => self.strict_idle,
            Some(_) => self.idle,
        };
        (seen_at + idle).min(self.last_instant(user, created_at))
    }

    /// When a person's session ends that began at an instant, whatever happens.
    pub(crate) fn last_instant(&self, user: Option<UserId>, created_at: OffsetDateTime) -> OffsetDateTime {
        let brief = user.is_some_and(|user| self.brief.load().contains(&user));
        created_at + if brief { self.absolute.min(EMERGENCY) } else { self.absolute }
    }

    /// Notes that a session is in use, at most once a minute. When it was last heard of and until when it counts; none
    /// where it ended meanwhile.
    pub(crate) async fn touch(
        &self,
        live: &portcullis_store::LiveSession,
        now: OffsetDateTime,
    ) -> std::result::Result<Option<(OffsetDateTime, OffsetDateTime)>, portcullis_store::Error> {
        if now - live.seen_at < TOUCH {
            return Ok(Some((live.seen_at, live.expires_at)));
        }
        let expires_at = self.expiry(live.user, live.created_at, now);
        let touched = self.store.touch_session(live.session, now, expires_at).await?;
        Ok(touched.then_some((now, expires_at)))
    }

    async fn take_step(&self, record: &mut Record, step: &Step) -> Result<()> {
        let now = self.clock.now();
        for _ in 0..3 {
            record.id = new_id()?;
            let rotation = Rotation {
                from: hash(step.from),
                to: hash(record.id),
                session: step.session,
                user: step.user,
                data: encode(record)?,
                created_at: step.created_at,
                now,
                expires_at: self.expiry(step.user, step.created_at, now),
                peer: step.peer,
                signed_in_at: step.signed_in.then_some(step.created_at),
            };
            match self.store.rotate_session(&rotation).await {
                Ok(true) => return Ok(()),
                Ok(false) => {
                    step.lost.store(true, Ordering::Relaxed);
                    return Err(Error::Backend("the session ended before its next step".to_owned()));
                }
                Err(portcullis_store::Error::Conflict(_)) => {}
                Err(error) => return Err(backend(&error)),
            }
        }
        Err(Error::Backend("no free session id was found".to_owned()))
    }
}

fn new_id() -> Result<Id> {
    let bytes = chance::bytes::<16>().map_err(|e| Error::Backend(e.to_string()))?;
    Ok(Id(i128::from_le_bytes(*bytes)))
}

#[async_trait]
impl SessionStore for SessionRows {
    async fn create(&self, record: &mut Record) -> Result<()> {
        if let Ok(step) = STEP.try_with(Step::clone) {
            return self.take_step(record, &step).await;
        }
        // Only a step makes somebody out of a stranger.
        if record.data.contains_key(STAGE) {
            return Err(Error::Backend("a session that has ended was not made anew".to_owned()));
        }
        let now = self.clock.now();
        for _ in 0..3 {
            record.id = new_id()?;
            let session = chance::id(now).map_err(|e| Error::Backend(e.to_string()))?;
            let new = NewSession {
                id_hash: hash(record.id),
                session: SessionId::new(session),
                data: encode(record)?,
                created_at: now,
                expires_at: self.expiry(None, now, now),
            };
            match self.store.insert_session(&new).await {
                Ok(()) => return Ok(()),
                Err(portcullis_store::Error::Conflict(_)) => {}
                Err(error) => return Err(backend(&error)),
            }
        }
        Err(Error::Backend("no free session id was found".to_owned()))
    }

    async fn save(&self, record: &Record) -> Result<()> {
        let key = hash(record.id);
        // Whether anything was written does not matter: what has ended stays ended.
        let saved = self.store.update_session(&key, &encode(record)?, self.clock.now()).await;
        self.live.forget(&key);
        saved.map(drop).map_err(|e| backend(&e))
    }

    async fn load(&self, id: &Id) -> Result<Option<Record>> {
        let (now, key) = (self.clock.now(), hash(*id));
        let then = self.live.now(self.store.moves());
        let Some(live) = self.store.load_session(&key, now).await.map_err(|e| backend(&e))? else {
            return Ok(None);
        };
        let data: HashMap<_, _> = serde_json::from_str(&live.data).map_err(|e| Error::Decode(e.to_string()))?;
        // The row says whose it is as well: data that says otherwise was not written by a step.
        let stage = stage_of(&live.data).unwrap_or(Stage::Stranger);
        let session_fits = !matches!(stage, Stage::SignedIn { session, .. } if session != live.session);
        if stage.user() != live.user || !session_fits {
            return Err(Error::Decode("the session's row and its content name different people".to_owned()));
        }
        let seen = self.touch(&live, now).await.map_err(|e| backend(&e))?;
        if let (Stage::SignedIn { .. }, Some((seen_at, expires_at))) = (&stage, seen) {
            let touch_at = seen_at + TOUCH;
            self.live.keep(key, then, Live { stage, banner: text_of(&data, BANNER), touch_at, expires_at });
        }
        Ok(Some(Record { id: *id, data, expiry_date: live.expires_at }))
    }

    async fn delete(&self, id: &Id) -> Result<()> {
        // The row of a step is moved by its `create`, not ended.
        if STEP.try_with(|step| step.from == *id).unwrap_or(false) {
            return Ok(());
        }
        self.store
            .end_session_by_hash(&hash(*id), self.clock.now(), "you signed out")
            .await
            .map_err(|e| backend(&e))?;
        Ok(())
    }
}

#[cfg(test)]
mod tests;
