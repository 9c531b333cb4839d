// SPDX-License-Identifier: Apache-2.0
//! How far a browser has come, and the one function that moves it on.

use crate::{Error, Identity, Inner, Why, chance, live::Live, rows::Step};
use aws_lc_rs::hmac;
use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use portcullis_domain::{Assurance, Factor, SessionId, UserId};
use serde::{Deserialize, Serialize};
use std::{net::IpAddr, sync::Arc};
use time::{Duration, OffsetDateTime};
use tower_sessions::Session;

pub(crate) const STAGE: &str = "stage";
/// What a session holds that was begun for a form alone.
const FORM: &str = "form";
/// Where a session keeps which banner was confirmed in it.
pub(crate) const BANNER: &str = "banner";
pub(crate) const PENDING: &str = "pending";

/// How long a half-done sign-in may take.
const HALF_DONE: Duration = Duration::minutes(10);
/// How long enrolling may take: an app may have to be installed first.
const ENROLLING: Duration = Duration::minutes(30);
/// How far the clocks of two nodes may be apart.
const SKEW: Duration = Duration::MINUTE;

/// How far a browser has come.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Stage {
    /// Nothing was proven.
    Stranger,
    /// The password was right; a second factor is next. Ten minutes.
    NeedsSecond {
        /// Who.
        user: UserId,
        /// When the password was proven.
        since: OffsetDateTime,
    },
    /// The password was right and there is no second factor yet: enrol, or leave. Thirty minutes.
    MustEnrol {
        /// Who.
        user: UserId,
        /// When the password was proven.
        since: OffsetDateTime,
    },
    /// Password and recovery code were right: enrol a new authenticator, or leave. Thirty minutes.
    RecoveryOnly {
        /// Who.
        user: UserId,
        /// When the recovery code was proven.
        since: OffsetDateTime,
    },
    /// Both factors were proven.
    SignedIn {
        /// Who.
        user: UserId,
        /// The session's id towards people and other rows.
        session: SessionId,
        /// What was proven, and when.
        assurance: Assurance,
    },
}

/// What a browser does next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Next {
    /// Ask for an authenticator code or a recovery code.
    SecondFactor,
    /// Enrol an authenticator.
    Enrol,
    /// Go on: signed in.
    Done,
}

impl Stage {
    /// Whose it is.
    pub const fn user(&self) -> Option<UserId> {
        match self {
            Self::Stranger => None,
            Self::NeedsSecond { user, .. }
            | Self::MustEnrol { user, .. }
            | Self::RecoveryOnly { user, .. }
            | Self::SignedIn { user, .. } => Some(*user),
        }
    }

    /// What its browser does next; none for a stranger.
    pub const fn next(&self) -> Option<Next> {
        match self {
            Self::Stranger => None,
            Self::NeedsSecond { .. } => Some(Next::SecondFactor),
            Self::MustEnrol { .. } | Self::RecoveryOnly { .. } => Some(Next::Enrol),
            Self::SignedIn { .. } => Some(Next::Done),
        }
    }

    /// The same, or a stranger where a half-done sign-in took too long or is from the future.
    pub(crate) fn at(self, now: OffsetDateTime) -> Self {
        let within = |since: &OffsetDateTime, long: Duration| *since <= now + SKEW && now < *since + long;
        let in_time = match &self {
            Self::Stranger | Self::SignedIn { .. } => true,
            Self::NeedsSecond { since, .. } => within(since, HALF_DONE),
            Self::MustEnrol { since, .. } | Self::RecoveryOnly { since, .. } => within(since, ENROLLING),
        };
        if in_time { self } else { Self::Stranger }
    }
}

/// Which session the row is after a step.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Keep {
    /// The same one: a step-up, a changed password.
    Same(SessionId),
    /// Another one: a person arrives.
    New(SessionId),
}

impl Inner {
    /// What is known without the store of a session that this request has not changed.
    pub(crate) fn remembered(&self, session: &Session, now: OffsetDateTime) -> Option<Arc<Live>> {
        let id = session.id().filter(|_| !session.is_modified())?;
        self.rows.find(id, now)
    }

    pub(crate) async fn stage(&self, session: &Session) -> Result<Stage, Error> {
        match self.remembered(session, self.clock.now()) {
            Some(live) => Ok(live.stage.clone()),
            None => self.stored_stage(session).await,
        }
    }

    async fn stored_stage(&self, session: &Session) -> Result<Stage, Error> {
        let stage = session.get::<Stage>(STAGE).await.map_err(Error::Session)?;
        Ok(stage.unwrap_or(Stage::Stranger).at(self.clock.now()))
    }

    /// Who is signed in as the store says, or [`Error::Expired`].
    pub(crate) async fn signed_in(&self, session: &Session) -> Result<(UserId, SessionId, Assurance), Error> {
        match self.stored_stage(session).await? {
            Stage::SignedIn { user, session, assurance } => Ok((user, session, assurance)),
            _ => Err(Error::Expired),
        }
    }

    /// Who is signed in with a second factor of the last five minutes, or [`Error::NotFresh`]. Never in an emergency:
    /// what a sealed code opens for an hour must not be a way to stay.
    pub(crate) async fn signed_in_fresh(&self, session: &Session) -> Result<(UserId, SessionId, Assurance), Error> {
        let found = self.signed_in(session).await?;
        if found.2.has(Factor::BreakGlass) {
            return Err(Error::Invalid("an emergency session changes no way to sign in".to_owned()));
        }
        if found.2.is_fresh(Duration::minutes(5), self.clock.now()) { Ok(found) } else { Err(Error::NotFresh) }
    }

    /// Signs a person in: both factors were proven. The oldest of too many sessions end.
    pub(crate) async fn enter(
        &self,
        session: &Session,
        user: UserId,
        assurance: Assurance,
        peer: Option<IpAddr>,
    ) -> Result<SessionId, Error> {
        let now = self.clock.now();
        // Whatever way led here: a closed account is entered by none.
        let found = self.store.user(user).await.map_err(Error::store)?;
        if !found.is_some_and(|u| u.is_open()) {
            return Err(Error::refused(Why::Disabled, Some(user)));
        }
        let id = SessionId::new(chance::id(now)?);
        // Before the step, so that the provider can end what comes of it; and again after it, in case it just did.
        if !self.attach(session, id).await? {
            return Err(Error::Expired);
        }
        self.advance(session, Stage::SignedIn { user, session: id, assurance }, Keep::New(id), peer).await?;
        if !self.attach(session, id).await? {
            let why = "the identity provider ended it during sign-in";
            self.store.end_session(id, now, why).await.map_err(Error::store)?;
            return Err(Error::Expired);
        }
        let keep = self.settings.sessions_per_user;
        let why = "there were too many sessions of this person";
        self.store.limit_sessions_of(user, keep, now, why).await.map_err(Error::store)?;
        Ok(id)
    }

    /// What the forms of a session carry; none where the store has no such session.
    async fn form(&self, session: &Session) -> Result<Option<String>, Error> {
        // An id that the store does not have is taken from the session as it is looked for.
        self.stage(session).await?;
        let id = session.id();
        Ok(id.map(|id| URL_SAFE_NO_PAD.encode(hmac::sign(&self.forms, &id.0.to_le_bytes()))))
    }

    /// Moves a browser to a stage under a new id. [`Error::Expired`] when its session was ended meanwhile.
    pub(crate) async fn advance(
        &self,
        session: &Session,
        to: Stage,
        keep: Keep,
        peer: Option<IpAddr>,
    ) -> Result<(), Error> {
        let now = self.clock.now();
        let (id, created_at) = match keep {
            Keep::New(id) => (id, now),
            Keep::Same(id) => {
                let live = self.store.live_session(id, now).await.map_err(Error::store)?.ok_or(Error::Expired)?;
                (id, live.created_at)
            }
        };
        // What another person left in this browser stays with that person.
        let before = session.get::<Stage>(STAGE).await.map_err(Error::Session)?.unwrap_or(Stage::Stranger);
        if before.user().is_some() && before.user() != to.user() {
            session.clear().await;
        }
        if session.id().is_none() {
            session.save().await.map_err(Error::Session)?;
        }
        let from = session.id().ok_or(Error::Expired)?;
        session.remove_value(PENDING).await.map_err(Error::Session)?;
        session.insert(STAGE, &to).await.map_err(Error::Session)?;
        let step = Step::new(from, id, &to, created_at, peer);
        let moved = step.clone().run(async {
            session.cycle_id().await?;
            session.save().await
        });
        let moved = moved.await;
        if moved.is_err() {
            // The record in memory already says what did not happen: the layer must not save it.
            session.clear().await;
        }
        match moved {
            Err(_) if step.was_lost() => Err(Error::Expired),
            other => other.map_err(Error::Session),
        }
    }
}

impl Identity {
    /// How far this browser has come.
    pub async fn stage(&self, session: &Session) -> Result<Stage, Error> {
        self.0.stage(session).await
    }

    /// The text that every form of this session carries; another one after each step.
    pub async fn csrf(&self, session: &Session) -> Result<String, Error> {
        if let Some(text) = self.0.form(session).await? {
            return Ok(text);
        }
        // So that it has an id, and its browser a cookie.
        session.insert(FORM, true).await.map_err(Error::Session)?;
        session.save().await.map_err(Error::Session)?;
        self.0.form(session).await?.ok_or(Error::Expired)
    }

    /// Refuses a form that was not made for this session.
    pub async fn check_csrf(&self, session: &Session, text: &str) -> Result<(), Error> {
        match self.0.form(session).await? {
            Some(form) if chance::equal(form.as_bytes(), text.as_bytes()) => Ok(()),
            _ => Err(Error::refused(Why::WrongForm, self.0.stage(session).await?.user())),
        }
    }
}

#[cfg(test)]
mod tests;
