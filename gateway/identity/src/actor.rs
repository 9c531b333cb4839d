// SPDX-License-Identifier: Apache-2.0
//! Who acts: names are cached until the store's epoch moves.

use crate::{Error, Identity, Inner, Stage, rows};
use portcullis_domain::{Actor, SessionId, UserId, Via};
use portcullis_store::User;
use std::{
    collections::{BTreeSet, HashMap},
    sync::{Arc, PoisonError, RwLock},
};
use time::OffsetDateTime;
use tower_sessions::Session;

/// What is known of a person at one epoch; none: they may not act.
type Known = Option<Arc<str>>;

/// More people than this at once are looked up again now and then.
const MOST: usize = 10_000;

/// The cache. An entry counts only at the epoch that it was read at or before.
#[derive(Default)]
pub(crate) struct Actors(RwLock<HashMap<UserId, (u64, Known)>>);

impl Actors {
    fn find(&self, user: UserId, epoch: u64) -> Option<Known> {
        let map = self.0.read().unwrap_or_else(PoisonError::into_inner);
        map.get(&user).filter(|(at, _)| *at == epoch).map(|(_, known)| known.clone())
    }

    fn keep(&self, user: UserId, epoch: u64, known: Known) {
        let mut map = self.0.write().unwrap_or_else(PoisonError::into_inner);
        if map.len() >= MOST {
            map.clear();
        }
        map.insert(user, (epoch, known));
    }

    pub(crate) fn clear(&self) {
        self.0.write().unwrap_or_else(PoisonError::into_inner).clear();
    }
}

impl Inner {
    async fn known(&self, user: UserId) -> Result<Known, Error> {
        // Read before the rows: if the epoch moves meanwhile, what is kept counts for the older one, and not again.
        let epoch = *self.epoch.borrow();
        if let Some(known) = self.actors.find(user, epoch) {
            return Ok(known);
        }
        let found = self.store.user(user).await.map_err(Error::store)?;
        let known = found.filter(User::is_open).map(|u| Arc::from(u.name));
        self.actors.keep(user, epoch, known.clone());
        Ok(known)
    }

    /// Makes known many people at once: after a change of rights each would cost a question to the store.
    async fn know_all(&self, users: impl Iterator<Item = UserId>) -> Result<(), Error> {
        let epoch = *self.epoch.borrow();
        let missing: BTreeSet<UserId> = users.filter(|u| self.actors.find(*u, epoch).is_none()).collect();
        if missing.len() < 2 {
            return Ok(());
        }
        let people = self.store.users().await.map_err(Error::store)?;
        for user in people.into_iter().filter(|u| missing.contains(&u.id)) {
            let known = user.is_open().then(|| Arc::from(user.name));
            self.actors.keep(user.id, epoch, known);
        }
        Ok(())
    }

    async fn actor(&self, stage: Stage) -> Result<Option<Actor>, Error> {
        let Stage::SignedIn { user, session, assurance } = stage else { return Ok(None) };
        let Some(name) = self.known(user).await? else { return Ok(None) };
        Ok(Some(Actor { user, name, via: Via::Session(session), assurance, scope: None, from: None, pass: None }))
    }
}

impl Identity {
    /// Who this browser acts as; none unless both factors were proven and the account is enabled.
    pub async fn actor(&self, session: &Session) -> Result<Option<Actor>, Error> {
        self.0.actor(self.0.stage(session).await?).await
    }

    /// Who a session acts as now, found without its cookie: for what outlives its request, such as a console. None
    /// when the session was ended or has expired, or its account was disabled.
    pub async fn actor_of(&self, session: SessionId) -> Result<Option<Actor>, Error> {
        let now = self.0.clock.now();
        let Some(live) = self.0.store.live_session(session, now).await.map_err(Error::store)? else { return Ok(None) };
        self.0.actor(rows::stage_of(&live.data).unwrap_or(Stage::Stranger).at(now)).await
    }

    /// The same for many sessions with one question to the store; those that do not count are left out.
    pub async fn actors_of(&self, sessions: &BTreeSet<SessionId>) -> Result<HashMap<SessionId, Actor>, Error> {
        let now = self.0.clock.now();
        let sessions: Vec<SessionId> = sessions.iter().copied().collect();
        let live = self.0.store.live_sessions(&sessions, now).await.map_err(Error::store)?;
        self.0.know_all(live.iter().filter_map(|l| l.user)).await?;
        let mut actors = HashMap::with_capacity(live.len());
        for live in live {
            let stage = rows::stage_of(&live.data).unwrap_or(Stage::Stranger).at(now);
            if let Some(actor) = self.0.actor(stage).await? {
                actors.insert(live.session, actor);
            }
        }
        Ok(actors)
    }

    /// Notes that the person behind a session did something at an instant outside of requests (a key or a pointer in a
    /// console); false when the session no longer counts. Written at most once a minute.
    pub async fn keep_alive(&self, session: SessionId, at: OffsetDateTime) -> Result<bool, Error> {
        let now = self.0.clock.now();
        let Some(live) = self.0.store.live_session(session, now).await.map_err(Error::store)? else { return Ok(false) };
        self.0.rows.touch(&live, at).await.map_err(Error::store)?;
        Ok(true)
    }

    /// When a session ends whatever happens; none when it no longer counts.
    pub async fn session_ends_at(&self, session: SessionId) -> Result<Option<OffsetDateTime>, Error> {
        let live = self.0.store.live_session(session, self.0.clock.now()).await.map_err(Error::store)?;
        Ok(live.map(|live| self.0.rows.last_instant(live.user, live.created_at)))
    }
}
