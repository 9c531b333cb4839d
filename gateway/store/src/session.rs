// SPDX-License-Identifier: Apache-2.0
//! Browsers, from first visit to sign-out: one row each, found by the digest of the id in the cookie.

use crate::{
    Digest, Error, Store, from_micros,
    tx::{Db, Tx, execute, fetch, parse, read},
};
use portcullis_domain::{SessionId, UserId, micros};
use sqlx::QueryBuilder;
use std::net::IpAddr;
use time::OffsetDateTime;

/// A browser that arrives.
#[derive(Debug, Clone)]
pub struct NewSession {
    /// SHA-256 of the id in its cookie.
    pub id_hash: Digest,
    /// Its id towards people and other rows; no secret.
    pub session: SessionId,
    /// What identity keeps about it, as JSON, at most 64 KiB.
    pub data: String,
    /// When it arrived.
    pub created_at: OffsetDateTime,
    /// First instant at which it no longer counts, if nothing is heard of it.
    pub expires_at: OffsetDateTime,
}

/// A step of sign-in or sign-out: the row moves to a new cookie id, so that the old id is worth nothing.
#[derive(Debug, Clone)]
pub struct Rotation {
    /// The digest that the row has; the step fails if it moved or ended meanwhile.
    pub from: Digest,
    /// The digest that it gets.
    pub to: Digest,
    /// The session that the row is from here on: a new one when the person changes.
    pub session: SessionId,
    /// Who it belongs to from here on.
    pub user: Option<UserId>,
    /// What identity keeps about it.
    pub data: String,
    /// When this session began: the absolute limit counts from here.
    pub created_at: OffsetDateTime,
    /// When the step happens.
    pub now: OffsetDateTime,
    /// First instant at which it no longer counts, if nothing is heard of it.
    pub expires_at: OffsetDateTime,
    /// From where; none leaves what was written before.
    pub peer: Option<IpAddr>,
    /// When both factors were proven; none while sign-in is half done. Such a session is in no list.
    pub signed_in_at: Option<OffsetDateTime>,
}

/// A session that counts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LiveSession {
    /// Its id.
    pub session: SessionId,
    /// Whose.
    pub user: Option<UserId>,
    /// What identity keeps about it.
    pub data: String,
    /// When it began.
    pub created_at: OffsetDateTime,
    /// When it was last heard of, to the minute.
    pub seen_at: OffsetDateTime,
    /// First instant at which it no longer counts.
    pub expires_at: OffsetDateTime,
}

/// A session as shown in a list.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SessionRow {
    /// Its id.
    pub session: SessionId,
    /// Whose.
    pub user: Option<UserId>,
    /// When it began.
    pub created_at: OffsetDateTime,
    /// When it was last heard of, to the minute.
    pub seen_at: OffsetDateTime,
    /// First instant at which it no longer counts.
    pub expires_at: OffsetDateTime,
    /// From where it signed in.
    pub peer: Option<IpAddr>,
    /// What the browser calls itself.
    pub agent: Option<String>,
    /// What identity keeps about it.
    pub data: String,
}

#[derive(sqlx::FromRow)]
struct Row {
    session_id: String,
    user_id: Option<String>,
    data: String,
    created_at: i64,
    seen_at: i64,
    expires_at: i64,
    peer: Option<String>,
    agent: Option<String>,
}

// Columns by name: with `*`, a column that a newer node adds breaks PostgreSQL's prepared statements on the older ones.
macro_rules! columns {
    () => {
        "session_id, user_id, data, created_at, seen_at, expires_at, peer, agent"
    };
}

const T: &str = "sessions";

/// Ids in one question: well below the limits on parameters of both databases.
const IDS: usize = 500;

impl TryFrom<Row> for LiveSession {
    type Error = Error;
    fn try_from(row: Row) -> Result<Self, Error> {
        Ok(Self {
            session: parse(T, "session_id", &row.session_id)?,
            user: row.user_id.map(|u| parse(T, "user_id", &u)).transpose()?,
            data: row.data,
            created_at: from_micros(row.created_at),
            seen_at: from_micros(row.seen_at),
            expires_at: from_micros(row.expires_at),
        })
    }
}

impl TryFrom<Row> for SessionRow {
    type Error = Error;
    fn try_from(row: Row) -> Result<Self, Error> {
        Ok(Self {
            session: parse(T, "session_id", &row.session_id)?,
            user: row.user_id.map(|u| parse(T, "user_id", &u)).transpose()?,
            created_at: from_micros(row.created_at),
            seen_at: from_micros(row.seen_at),
            expires_at: from_micros(row.expires_at),
            peer: row.peer.map(|p| parse(T, "peer", &p)).transpose()?,
            agent: row.agent,
            data: row.data,
        })
    }
}

/// Ends a session; false when it had ended before.
pub(crate) async fn end_one(tx: &mut Tx, session: &str, now: OffsetDateTime, why: &str) -> Result<bool, Error> {
    let ended = execute!(
        *tx,
        "update sessions set ended_at = $2, ended_why = $3 where session_id = $1 and ended_at is null",
        session,
        micros(now),
        why
    )?;
    Ok(ended == 1)
}

impl Store {
    /// Adds a browser. [`Error::Conflict`] when the digest is taken: draw another id.
    pub async fn insert_session(&self, new: &NewSession) -> Result<(), Error> {
        let mut tx = self.begin().await?;
        execute!(
            tx,
            "insert into sessions (id_hash, session_id, data, created_at, seen_at, expires_at) \
             values ($1, $2, $3, $4, $4, $5)",
            new.id_hash.as_slice(),
            new.session.to_string(),
            &new.data,
            micros(new.created_at),
            micros(new.expires_at)
        )
        .map_err(|e| e.or_conflict("this session id"))?;
        tx.commit().await
    }

    /// Writes what identity keeps about a session that counts. False, and nothing written, when it was ended,
    /// expired or moved to another id: a request in flight cannot bring a session back.
    pub async fn update_session(&self, id_hash: &Digest, data: &str, now: OffsetDateTime) -> Result<bool, Error> {
        let mut tx = self.begin().await?;
        let changed = execute!(
            tx,
            "update sessions set data = $2 where id_hash = $1 and ended_at is null and expires_at > $3",
            id_hash.as_slice(),
            data,
            micros(now)
        )?;
        tx.commit().await?;
        Ok(changed == 1)
    }

    /// Moves a session to a new id. False, and nothing changed, when it was ended, expired or moved meanwhile.
    pub async fn rotate_session(&self, step: &Rotation) -> Result<bool, Error> {
        let mut tx = self.begin().await?;
        let changed = execute!(
            tx,
            "update sessions set id_hash = $2, session_id = $3, user_id = $4, data = $5, created_at = $6, \
             seen_at = $7, expires_at = $8, peer = coalesce($9, peer), signed_in_at = $10 \
             where id_hash = $1 and ended_at is null and expires_at > $7",
            step.from.as_slice(),
            step.to.as_slice(),
            step.session.to_string(),
            step.user.map(|u| u.to_string()),
            &step.data,
            micros(step.created_at),
            micros(step.now),
            micros(step.expires_at),
            step.peer.map(|p| p.to_string()),
            step.signed_in_at.map(micros)
        )
        .map_err(|e| e.or_conflict("this session id").or_missing("this person"))?;
        if changed == 1 {
            tx.bump().await?;
        }
        tx.commit().await?;
        Ok(changed == 1)
    }

    /// Notes that a session was heard of, and until when it counts now. Ended and expired ones stay what they are.
    pub async fn touch_session(
        &self,
        session: SessionId,
        now: OffsetDateTime,
        expires_at: OffsetDateTime,
    ) -> Result<bool, Error> {
        let mut tx = self.begin().await?;
        let changed = execute!(
            tx,
            "update sessions set seen_at = $2, expires_at = $3 \
             where session_id = $1 and ended_at is null and expires_at > $2",
            session.to_string(),
            micros(now),
            micros(expires_at)
        )?;
        tx.commit().await?;
        Ok(changed == 1)
    }

    /// Notes what the browser calls itself; only the first 256 characters are kept.
    pub async fn describe_session(&self, session: SessionId, agent: &str) -> Result<(), Error> {
        let agent: String = agent.chars().filter(|c| !c.is_control()).take(256).collect();
        let mut tx = self.begin().await?;
        execute!(tx, "update sessions set agent = $2 where session_id = $1", session.to_string(), agent)?;
        tx.commit().await
    }

    /// The session behind a digest, if it counts.
    pub async fn load_session(&self, id_hash: &Digest, now: OffsetDateTime) -> Result<Option<LiveSession>, Error> {
        let rows = read!(
            self,
            Row,
            concat!(
                "select ",
                columns!(),
                " from sessions \
             where id_hash = $1 and ended_at is null and expires_at > $2"
            ),
            id_hash.as_slice(),
            micros(now)
        )?;
        rows.into_iter().next().map(LiveSession::try_from).transpose()
    }

    /// The session with an id, if it counts: for what lives on after its request, such as a console.
    pub async fn live_session(&self, session: SessionId, now: OffsetDateTime) -> Result<Option<LiveSession>, Error> {
        let rows = read!(
            self,
            Row,
            concat!(
                "select ",
                columns!(),
                " from sessions \
             where session_id = $1 and ended_at is null and expires_at > $2"
            ),
            session.to_string(),
            micros(now)
        )?;
        rows.into_iter().next().map(LiveSession::try_from).transpose()
    }

    /// Those of some sessions that count, with one question for every few hundred of them.
    pub async fn live_sessions(&self, ids: &[SessionId], now: OffsetDateTime) -> Result<Vec<LiveSession>, Error> {
        macro_rules! ask {
            ($ids:expr, $pool:expr) => {{
                let head = concat!("select ", columns!(), " from sessions where ended_at is null and expires_at > ");
                let mut b = QueryBuilder::new(head);
                b.push_bind(micros(now)).push(" and session_id in (");
                let mut list = b.separated(", ");
                for id in $ids {
                    list.push_bind(id.to_string());
                }
                b.push(")").build_query_as::<Row>().fetch_all($pool).await
            }};
        }
        let mut live = Vec::with_capacity(ids.len());
        for ids in ids.chunks(IDS) {
            let rows = match &self.db {
                Db::Sqlite { read, .. } => ask!(ids, read),
                Db::Postgres(pool) => ask!(ids, pool),
            };
            for row in rows.map_err(Error::sql)? {
                live.push(row.try_into()?);
            }
        }
        Ok(live)
    }

    /// Why a session was ended; none while it counts, when it ran out, and when it was forgotten.
    pub async fn why_ended(&self, session: SessionId) -> Result<Option<String>, Error> {
        let sql = "select ended_why from sessions where session_id = $1 and ended_why is not null";
        Ok(read!(self, (String,), sql, session.to_string())?.into_iter().next().map(|row| row.0))
    }

    /// The session with an id that was not ended, whether it counts or ran out.
    pub async fn unended_session(&self, session: SessionId) -> Result<Option<LiveSession>, Error> {
        let rows = read!(
            self,
            Row,
            concat!("select ", columns!(), " from sessions where session_id = $1 and ended_at is null"),
            session.to_string()
        )?;
        rows.into_iter().next().map(LiveSession::try_from).transpose()
    }

    /// Ends the session behind a digest; false when it had ended before.
    pub async fn end_session_by_hash(&self, id_hash: &Digest, now: OffsetDateTime, why: &str) -> Result<bool, Error> {
        let mut tx = self.begin().await?;
        let ended = execute!(
            tx,
            "update sessions set ended_at = $2, ended_why = $3 where id_hash = $1 and ended_at is null",
            id_hash.as_slice(),
            micros(now),
            why
        )?;
        if ended == 1 {
            tx.bump().await?;
        }
        tx.commit().await?;
        Ok(ended == 1)
    }

    /// Ends a session; false when it had ended before.
    pub async fn end_session(&self, session: SessionId, now: OffsetDateTime, why: &str) -> Result<bool, Error> {
        let mut tx = self.begin().await?;
        let ended = end_one(&mut tx, &session.to_string(), now, why).await?;
        if ended {
            tx.bump().await?;
        }
        tx.commit().await?;
        Ok(ended)
    }

    /// Ends every session of a person but one, half-done sign-ins among them; gives how many ended.
    pub async fn end_sessions_of(
        &self,
        user: UserId,
        except: Option<SessionId>,
        now: OffsetDateTime,
        why: &str,
    ) -> Result<u64, Error> {
        let mut tx = self.begin().await?;
        let ended = execute!(
            tx,
            "update sessions set ended_at = $3, ended_why = $4 \
             where user_id = $1 and session_id <> $2 and ended_at is null",
            user.to_string(),
            except.map(|s| s.to_string()).unwrap_or_default(),
            micros(now),
            why
        )?;
        if ended > 0 {
            tx.bump().await?;
        }
        tx.commit().await?;
        Ok(ended)
    }

    /// Ends the oldest signed-in sessions of a person beyond the newest `keep`; gives how many ended.
    pub async fn limit_sessions_of(
        &self,
        user: UserId,
        keep: u32,
        now: OffsetDateTime,
        why: &str,
    ) -> Result<u64, Error> {
        let mut tx = self.begin().await?;
        let user = user.to_string();
        let live = fetch!(
            tx,
            (String,),
            "select session_id from sessions \
             where user_id = $1 and signed_in_at is not null and ended_at is null and expires_at > $2 \
             order by created_at desc, session_id desc",
            &user,
            micros(now)
        )?;
        let mut ended = 0;
        for (session,) in live.iter().skip(usize::try_from(keep).unwrap_or(usize::MAX)) {
            ended += u64::from(end_one(&mut tx, session, now, why).await?);
        }
        if ended > 0 {
            tx.bump().await?;
        }
        tx.commit().await?;
        Ok(ended)
    }

    /// The signed-in sessions of a person that count, newest first.
    pub async fn sessions_of(&self, user: UserId, now: OffsetDateTime) -> Result<Vec<SessionRow>, Error> {
        let rows = read!(
            self,
            Row,
            concat!(
                "select ",
                columns!(),
                " from sessions \
             where user_id = $1 and signed_in_at is not null and ended_at is null and expires_at > $2 \
             order by created_at desc, session_id desc"
            ),
            user.to_string(),
            micros(now)
        )?;
        rows.into_iter().map(SessionRow::try_from).collect()
    }

    /// Every signed-in session that counts, newest first.
    pub async fn sessions(&self, now: OffsetDateTime) -> Result<Vec<SessionRow>, Error> {
        let rows = read!(
            self,
            Row,
            concat!(
                "select ",
                columns!(),
                " from sessions \
             where signed_in_at is not null and ended_at is null and expires_at > $1 \
             order by created_at desc, session_id desc"
            ),
            micros(now)
        )?;
        rows.into_iter().map(SessionRow::try_from).collect()
    }

    /// Forgets the browsers that nobody signed in with and that expired: there may be many, and nobody asks for them.
    pub async fn drop_strangers(&self, now: OffsetDateTime) -> Result<u64, Error> {
        let mut tx = self.begin().await?;
        let gone = execute!(tx, "delete from sessions where user_id is null and expires_at <= $1", micros(now))?;
        tx.commit().await?;
        Ok(gone)
    }

    /// Forgets the sessions that expired or ended before an instant; gives how many there were.
    pub async fn drop_expired(&self, before: OffsetDateTime) -> Result<u64, Error> {
        let mut tx = self.begin().await?;
        let gone = execute!(tx, "delete from sessions where expires_at <= $1 or ended_at <= $1", micros(before))?;
        tx.commit().await?;
        Ok(gone)
    }
}

#[cfg(test)]
mod tests;
