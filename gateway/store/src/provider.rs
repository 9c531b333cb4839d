// SPDX-License-Identifier: Apache-2.0
//! The providers behind people, and the sign-ins that they may end.

use crate::{
    Error, Store, from_micros,
    session::end_one,
    tx::{execute, fetch, parse, read},
};
use portcullis_domain::{SessionId, UserId, micros};
use std::{collections::HashSet, fmt, str::FromStr};
use time::OffsetDateTime;
use uuid::Uuid;

/// One sign-in through a provider.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, serde::Serialize, serde::Deserialize)]
#[serde(transparent)]
pub struct ProviderSessionId(Uuid);

impl ProviderSessionId {
    /// Wraps a UUID that was made for it.
    pub const fn new(uuid: Uuid) -> Self {
        Self(uuid)
    }
}

impl fmt::Display for ProviderSessionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.as_simple().fmt(f)
    }
}

impl FromStr for ProviderSessionId {
    type Err = uuid::Error;
    fn from_str(text: &str) -> Result<Self, uuid::Error> {
        Uuid::try_parse(text).map(Self)
    }
}

/// A sign-in through a provider.
#[derive(Debug, Clone)]
pub struct ProviderSession {
    /// Its id: the row in the place that its tokens are sealed to (table `provider_sessions`).
    pub id: ProviderSessionId,
    /// What the configuration calls the provider.
    pub provider: String,
    /// The provider's identifier.
    pub issuer: String,
    /// Its word for the person.
    pub subject: String,
    /// Its word for the session there.
    pub sid: Option<String>,
    /// Who.
    pub user: UserId,
    /// The session here; none until both factors were proven.
    pub session: Option<SessionId>,
    /// The sealed ID token (column `id_token`).
    pub id_token: Vec<u8>,
    /// The sealed refresh token, where there is one (column `refresh_token`).
    pub refresh_token: Option<Vec<u8>>,
    /// When the provider answered last.
    pub renewed_at: OffsetDateTime,
}

/// Whose sign-ins end.
#[derive(Debug, Clone, Copy)]
pub struct LoggedOut<'a> {
    /// The provider's identifier.
    pub issuer: &'a str,
    /// Its word for the person, if it named one.
    pub subject: Option<&'a str>,
    /// Its word for the session there, if it named one.
    pub sid: Option<&'a str>,
    /// The id of the message: each counts once.
    pub jti: &'a str,
    /// From when on the id need not be remembered.
    pub forget_at: OffsetDateTime,
}

/// The provider that stands behind a person.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ProviderPerson {
    /// What the configuration calls the provider.
    pub provider: String,
    /// The provider's identifier.
    pub issuer: String,
    /// Its word for the person.
    pub subject: String,
    /// When it vouched for them last.
    pub seen_at: OffsetDateTime,
}

#[derive(sqlx::FromRow)]
struct Row {
    id: String,
    provider: String,
    issuer: String,
    subject: String,
    sid: Option<String>,
    user_id: String,
    session_id: Option<String>,
    id_token: Vec<u8>,
    refresh_token: Option<Vec<u8>>,
    renewed_at: i64,
}

const T: &str = "provider_sessions";

// Columns by name: with `*`, a column that a newer node adds breaks PostgreSQL's prepared statements on the older ones.
macro_rules! columns {
    () => {
        "p.id, p.provider, p.issuer, p.subject, p.sid, p.user_id, p.session_id, p.id_token, p.refresh_token, p.renewed_at"
    };
}

impl TryFrom<Row> for ProviderSession {
    type Error = Error;
    fn try_from(row: Row) -> Result<Self, Error> {
        Ok(Self {
            id: parse(T, "id", &row.id)?,
            provider: row.provider,
            issuer: row.issuer,
            subject: row.subject,
            sid: row.sid,
            user: parse(T, "user_id", &row.user_id)?,
            session: row.session_id.map(|s| parse(T, "session_id", &s)).transpose()?,
            id_token: row.id_token,
            refresh_token: row.refresh_token,
            renewed_at: from_micros(row.renewed_at),
        })
    }
}

impl Store {
    /// The provider behind a person, if there is one.
    pub async fn provider_of(&self, user: UserId) -> Result<Option<ProviderPerson>, Error> {
        let rows = read!(
            self,
            (String, String, String, i64),
            "select provider, issuer, subject, seen_at from provider_people where user_id = $1",
            user.to_string()
        )?;
        Ok(rows.into_iter().next().map(|(provider, issuer, subject, seen_at)| ProviderPerson {
            provider,
            issuer,
            subject,
            seen_at: from_micros(seen_at),
        }))
    }

    /// Everybody behind whom a provider stands.
    pub async fn provider_people(&self) -> Result<HashSet<UserId>, Error> {
        let rows = read!(self, (String,), "select user_id from provider_people")?;
        rows.into_iter().map(|(user,)| parse("provider_people", "user_id", &user)).collect()
    }

    /// Writes down a sign-in that a provider answered.
    pub async fn add_provider_session(&self, new: &ProviderSession) -> Result<(), Error> {
        let mut tx = self.begin().await?;
        execute!(
            tx,
            "insert into provider_sessions (id, provider, issuer, subject, sid, user_id, session_id, id_token, \
             refresh_token, created_at, renewed_at) values ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $10)",
            new.id.to_string(),
            &new.provider,
            &new.issuer,
            &new.subject,
            new.sid.as_deref(),
            new.user.to_string(),
            new.session.map(|s| s.to_string()),
            new.id_token.as_slice(),
            new.refresh_token.as_deref(),
            micros(new.renewed_at)
        )
        .map_err(|e| e.or_missing("this person"))?;
        tx.commit().await
    }

    /// Says which session here a sign-in became; false when the provider ended it meanwhile.
    pub async fn attach_provider_session(&self, id: ProviderSessionId, session: SessionId) -> Result<bool, Error> {
        let mut tx = self.begin().await?;
        let changed = execute!(
            tx,
            "update provider_sessions set session_id = $2 where id = $1 and ended_at is null",
            id.to_string(),
            session.to_string()
        )?;
        tx.commit().await?;
        Ok(changed == 1)
    }

    /// A sign-in through a provider, unless it ended.
    pub async fn provider_session(&self, id: ProviderSessionId) -> Result<Option<ProviderSession>, Error> {
        let rows = read!(
            self,
            Row,
            concat!("select ", columns!(), " from provider_sessions p where p.id = $1 and p.ended_at is null"),
            id.to_string()
        )?;
        rows.into_iter().next().map(ProviderSession::try_from).transpose()
    }

    /// Ends the sign-ins that a provider's logout message names, and their sessions here; gives those sessions, or none
    /// when the message was used before.
    pub async fn log_out(
        &self,
        out: &LoggedOut<'_>,
        now: OffsetDateTime,
        why: &str,
    ) -> Result<Option<Vec<SessionId>>, Error> {
        let mut tx = self.begin().await?;
        let used = execute!(
            tx,
            "insert into provider_logouts (issuer, jti, expires_at) values ($1, $2, $3)",
            out.issuer,
            out.jti,
            micros(out.forget_at)
        );
        match used {
            Ok(_) => {}
            Err(Error::Conflict(_)) => return Ok(None),
            Err(error) => return Err(error),
        }
        let (subject, sid) = (out.subject, out.sid);
        // A parameter that is null has no type of its own on PostgreSQL.
        let named = fetch!(
            tx,
            (String, Option<String>),
            "select id, session_id from provider_sessions where issuer = $1 and ended_at is null \
             and (cast($2 as text) is null or subject = $2) and (cast($3 as text) is null or sid = $3)",
            out.issuer,
            subject,
            sid
        )?;
        let mut ended = Vec::new();
        for (id, session) in named {
            execute!(tx, "update provider_sessions set ended_at = $2 where id = $1", &id, micros(now))?;
            if let Some(session) = session
                && end_one(&mut tx, &session, now, why).await?
            {
                ended.push(parse(T, "session_id", &session)?);
            }
        }
        tx.bump().await?;
        tx.commit().await?;
        Ok(Some(ended))
    }

    /// Sign-ins whose sessions count, that have a refresh token, and that the provider was last asked about before an
    /// instant; the longest wait first.
    pub async fn provider_sessions_due(
        &self,
        before: OffsetDateTime,
        now: OffsetDateTime,
    ) -> Result<Vec<ProviderSession>, Error> {
        let rows = read!(
            self,
            Row,
            concat!(
                "select ",
                columns!(),
                " from provider_sessions p join sessions s on s.session_id = p.session_id \
                 where p.ended_at is null and p.refresh_token is not null and p.renewed_at <= $1 \
                 and s.ended_at is null and s.expires_at > $2 order by p.renewed_at, p.id limit 200"
            ),
            micros(before),
            micros(now)
        )?;
        rows.into_iter().map(ProviderSession::try_from).collect()
    }

    /// Takes the turn of asking the provider about a sign-in: of several nodes one gets true.
    pub async fn claim_renewal(
        &self,
        id: ProviderSessionId,
        seen: OffsetDateTime,
        now: OffsetDateTime,
    ) -> Result<bool, Error> {
        let mut tx = self.begin().await?;
        let changed = execute!(
            tx,
            "update provider_sessions set renewed_at = $3 where id = $1 and renewed_at = $2 and ended_at is null",
            id.to_string(),
            micros(seen),
            micros(now)
        )?;
        tx.commit().await?;
        Ok(changed == 1)
    }

    /// Keeps the tokens that a provider gave anew; none leaves what there is.
    pub async fn keep_renewed(
        &self,
        id: ProviderSessionId,
        id_token: Option<&[u8]>,
        refresh_token: Option<&[u8]>,
    ) -> Result<(), Error> {
        let mut tx = self.begin().await?;
        execute!(
            tx,
            "update provider_sessions set id_token = coalesce($2, id_token), \
             refresh_token = coalesce($3, refresh_token) where id = $1 and ended_at is null",
            id.to_string(),
            id_token,
            refresh_token
        )?;
        tx.commit().await
    }

    /// Ends a sign-in through a provider and its session here.
    pub async fn end_provider_session(
        &self,
        id: ProviderSessionId,
        now: OffsetDateTime,
        why: &str,
    ) -> Result<(), Error> {
        let mut tx = self.begin().await?;
        let rows = fetch!(
            tx,
            (Option<String>,),
            "update provider_sessions set ended_at = $2 where id = $1 and ended_at is null returning session_id",
            id.to_string(),
            micros(now)
        )?;
        if let Some((Some(session),)) = rows.into_iter().next()
            && end_one(&mut tx, &session, now, why).await?
        {
            tx.bump().await?;
        }
        tx.commit().await
    }

    /// Notes that a provider no longer vouches for somebody who has no other sign-in there: their tokens do not count
    /// until it does again.
    pub async fn refuse_person(&self, issuer: &str, subject: &str, now: OffsetDateTime) -> Result<(), Error> {
        let mut tx = self.begin().await?;
        let refused = execute!(
            tx,
            "update provider_people set refused_at = $3 where issuer = $1 and subject = $2 and not exists \
             (select 1 from provider_sessions p join sessions s on s.session_id = p.session_id \
              where p.issuer = $1 and p.subject = $2 and p.ended_at is null \
              and s.ended_at is null and s.expires_at > $3)",
            issuer,
            subject,
            micros(now)
        )?;
        if refused > 0 {
            tx.bump().await?;
        }
        tx.commit().await
    }

    /// Forgets sign-ins through providers whose session is gone, and logout messages that nobody would accept again.
    pub async fn drop_provider_sessions(&self, before: OffsetDateTime, now: OffsetDateTime) -> Result<(), Error> {
        let mut tx = self.begin().await?;
        execute!(
            tx,
            "delete from provider_sessions where created_at <= $1 and (session_id is null \
             or session_id not in (select session_id from sessions))",
            micros(before)
        )?;
        execute!(tx, "delete from provider_logouts where expires_at <= $1", micros(now))?;
        tx.commit().await
    }
}

#[cfg(test)]
mod tests;
