// SPDX-License-Identifier: Apache-2.0
//! What is known of accounts and sessions beside signing in: service accounts, locks, the banner, trainings, and how
//! each session was proven.

use crate::{
    Error, Identity, chance, rows, rules,
    stage::{BANNER, Stage},
};
use portcullis_domain::{Factor, SessionId, UserId};
use portcullis_store::{Attestation, Attested, NewUser, SessionRow, UserKind};
use time::{Duration, OffsetDateTime};
use tower_sessions::Session;

/// The longest time for which a training counts.
const LONGEST_TRAINING: Duration = Duration::days(3 * 366);

/// A session as shown in a list.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SessionLine {
    /// Its row.
    pub row: SessionRow,
    /// What was proven in it, and when, oldest first.
    pub factors: Vec<(Factor, OffsetDateTime)>,
    /// When it ends, however much it is used.
    pub ends_at: OffsetDateTime,
}

impl Identity {
    /// The signed-in sessions of a person with what was proven in each, newest first.
    pub async fn session_lines(&self, user: UserId) -> Result<Vec<SessionLine>, Error> {
        let line = |row: SessionRow| {
            let factors = match rows::stage_of(&row.data) {
                Some(Stage::SignedIn { assurance, .. }) => assurance.proofs().to_vec(),
                _ => Vec::new(),
            };
            let ends_at = self.0.rows.last_instant(row.user, row.created_at);
            SessionLine { row, factors, ends_at }
        };
        Ok(self.sessions_of(user).await?.into_iter().map(line).collect())
    }

    /// Why a session was ended or which of its limits it reached, for whoever sat in it; none where it still counts.
    pub async fn why_ended(&self, session: SessionId) -> Result<Option<String>, Error> {
        if let Some(why) = self.0.store.why_ended(session).await.map_err(Error::store)? {
            return Ok(Some(why));
        }
        let now = self.0.clock.now();
        let row = self.0.store.unended_session(session).await.map_err(Error::store)?;
        Ok(row.filter(|row| row.expires_at <= now).map(|row| {
            let rows = &self.0.rows;
            let longest = rows.last_instant(row.user, row.created_at) - row.created_at;
            if row.expires_at - row.created_at >= longest {
                format!("you were signed in for {}, which is the longest", length(longest))
            } else {
                format!("you did nothing for {}", length(row.expires_at - row.seen_at))
            }
        }))
    }

    /// Adds a service account: it never signs in; what it may do is granted to it, and its tools present tokens.
    pub async fn create_service(&self, name: &str, display_name: &str) -> Result<UserId, Error> {
        self.create_account(name, display_name, UserKind::Service).await
    }

    pub(crate) async fn create_account(&self, name: &str, display: &str, kind: UserKind) -> Result<UserId, Error> {
        let now = self.0.clock.now();
        let (name, name_key) = rules::check_name(name)?;
        let display_name = rules::check_display(display, &name)?;
        let id = UserId::new(chance::id(now)?);
        let new = NewUser { id, name, name_key, display_name };
        self.0.store.create_account(&new, kind, now).await.map_err(Error::store)?;
        self.refresh().await?;
        Ok(id)
    }

    /// Locks an account, with a reason of at most 128 characters and until an instant, or until it is lifted: its sessions end, its tokens stop until the lock is
    /// lifted, and nobody signs in to it.
    pub async fn lock_user(&self, user: UserId, why: &str, until: Option<OffsetDateTime>) -> Result<(), Error> {
        let why: String = why.chars().filter(|c| !c.is_control()).take(128).collect();
        self.0.store.set_locked(user, Some((why.trim(), until)), self.0.clock.now()).await.map_err(Error::store)?;
        self.refresh().await
    }

    /// Lifts the lock of an account, and the locks after too many tries. What ended stays ended.
    pub async fn unlock_user(&self, user: UserId) -> Result<(), Error> {
        self.0.store.set_locked(user, None, self.0.clock.now()).await.map_err(Error::store)?;
        self.unlock(user).await?;
        self.refresh().await
    }

    /// The banner that this session has to confirm before it goes on; none where there is none or it did.
    pub async fn banner_to_confirm(&self, session: &Session) -> Result<Option<&str>, Error> {
        let text = self.0.settings.banner.trim();
        if text.is_empty() {
            return Ok(None);
        }
        let mark = mark(text);
        if self.0.remembered(session, self.0.clock.now()).is_some_and(|live| live.banner.as_ref() == Some(&mark)) {
            return Ok(None);
        }
        let kept = session.get::<String>(BANNER).await.map_err(Error::Session)?.unwrap_or_default();
        Ok((kept != mark).then_some(text))
    }

    /// Notes that the banner of now was confirmed in this session; a changed banner asks again.
    pub async fn confirm_banner(&self, session: &Session) -> Result<(), Error> {
        self.0.signed_in(session).await?;
        let text = mark(self.0.settings.banner.trim());
        session.insert(BANNER, text).await.map_err(Error::Session)?;
        session.save().await.map_err(Error::Session)
    }

    /// Notes that a person did the training, and until when that counts: within three years.
    pub async fn attest_training(&self, user: UserId, until: OffsetDateTime, by: Option<UserId>) -> Result<(), Error> {
        let now = self.0.clock.now();
        if until <= now || until > now + LONGEST_TRAINING {
            return Err(Error::Invalid("a training counts until a day within the next three years".to_owned()));
        }
        let said = Attestation { user, what: Attested::Training, said_at: now, until, said_by: by };
        self.0.store.attest(&said).await.map_err(Error::store)?;
        self.refresh().await
    }

    /// The last training of a person, over or not.
    pub async fn training_of(&self, user: UserId) -> Result<Option<Attestation>, Error> {
        self.0.store.attestation(user, Attested::Training).await.map_err(Error::store)
    }
}

/// A length of time in words: `15 minutes`, `12 hours`.
fn length(time: Duration) -> String {
    let (count, unit) = match time.whole_minutes() {
        minutes if minutes >= 60 && minutes % 60 == 0 => (minutes / 60, "hour"),
        minutes if minutes >= 1 => (minutes, "minute"),
        _ => (time.whole_seconds(), "second"),
    };
    format!("{count} {unit}{}", if count == 1 { "" } else { "s" })
}

/// What is kept of a banner that was confirmed.
fn mark(text: &str) -> String {
    hex::encode(chance::sha256(text.as_bytes()))
}

#[cfg(test)]
mod tests;
