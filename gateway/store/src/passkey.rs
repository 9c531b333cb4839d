// SPDX-License-Identifier: Apache-2.0
//! Passkeys, and what browsers were asked to sign with them. What was asked is taken once, a counter never goes back,
//! and somebody's last second factor stays, whatever number of nodes tries otherwise.

use crate::{
    Digest, Error, FactorId, Others, Store, from_micros,
    tx::{Tx, execute, fetch, parse, read},
};
use portcullis_domain::{UserId, micros};
use time::OffsetDateTime;

/// A passkey or security key of one person.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Passkey {
    /// Its id: the row in the place that its credential is sealed to (table `passkeys`, column `credential`).
    pub id: FactorId,
    /// Whose.
    pub user: UserId,
    /// What its owner calls it: 1 to 64 characters.
    pub name: String,
    /// What it calls itself: 1 to 1,023 bytes, unique over all people.
    pub credential_id: Vec<u8>,
    /// The sealed credential.
    pub sealed: Vec<u8>,
    /// How often it had signed when it was last used; 0 for those that do not count.
    pub sign_count: u32,
    /// When it was added.
    pub created_at: OffsetDateTime,
    /// When it was last used.
    pub used_at: Option<OffsetDateTime>,
}

/// A passkey to be.
#[derive(Debug, Clone)]
pub struct NewPasskey {
    /// Its id.
    pub id: FactorId,
    /// Whose.
    pub user: UserId,
    /// What its owner calls it.
    pub name: String,
    /// What it calls itself.
    pub credential_id: Vec<u8>,
    /// The sealed credential.
    pub sealed: Vec<u8>,
    /// Its first counter.
    pub sign_count: u32,
}

/// What became of a factor that was to be removed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Removal {
    /// It is gone.
    Gone,
    /// It is the only one, and stays.
    Last,
    /// This person has no such factor.
    Unknown,
}

#[derive(sqlx::FromRow)]
struct Row {
    id: String,
    user_id: String,
    name: String,
    credential_id: Vec<u8>,
    credential: Vec<u8>,
    sign_count: i64,
    created_at: i64,
    used_at: Option<i64>,
}

// Columns by name: with `*`, a column that a newer node adds breaks PostgreSQL's prepared statements on the older ones.
macro_rules! columns {
    () => {
        "id, user_id, name, credential_id, credential, sign_count, created_at, used_at"
    };
}

impl TryFrom<Row> for Passkey {
    type Error = Error;
    fn try_from(row: Row) -> Result<Self, Error> {
        Ok(Self {
            id: parse("passkeys", "id", &row.id)?,
            user: parse("passkeys", "user_id", &row.user_id)?,
            name: row.name,
            credential_id: row.credential_id,
            sealed: row.credential,
            sign_count: u32::try_from(row.sign_count).map_err(|e| Error::corrupt("passkeys", "sign_count", e))?,
            created_at: from_micros(row.created_at),
            used_at: row.used_at.map(from_micros),
        })
    }
}

/// Holds the person's row, so that what is counted inside the transaction stays true until its end.
async fn hold(tx: &mut Tx, user: &str) -> Result<(), Error> {
    execute!(*tx, "update users set name = name where id = $1", user).map(drop)
}

/// How many second factors a person has that count.
async fn count(tx: &mut Tx, user: &str) -> Result<i64, Error> {
    let rows = fetch!(
        *tx,
        (i64,),
        "select (select count(*) from totp_factors where user_id = $1 and confirmed_at is not null) \
         + (select count(*) from passkeys where user_id = $1)",
        user
    )?;
    Ok(rows.first().map_or(0, |r| r.0))
}

impl Store {
    /// Adds a passkey; false when a second factor is there and [`Others::None`] was asked for. With [`Others::Remove`]
    /// every other second factor of the person goes in the same transaction. [`Error::Conflict`] when somebody has it.
    pub async fn add_passkey(&self, new: &NewPasskey, others: Others, now: OffsetDateTime) -> Result<bool, Error> {
        let mut tx = self.begin().await?;
        let user = new.user.to_string();
        hold(&mut tx, &user).await?;
        match others {
            Others::None if count(&mut tx, &user).await? > 0 => return Ok(false),
            Others::Remove => {
                execute!(tx, "delete from totp_factors where user_id = $1", &user)?;
                execute!(tx, "delete from passkeys where user_id = $1", &user)?;
            }
            Others::None | Others::Keep => {}
        }
        execute!(
            tx,
            "insert into passkeys (id, user_id, name, credential_id, credential, sign_count, created_at) \
             values ($1, $2, $3, $4, $5, $6, $7)",
            new.id.to_string(),
            &user,
            &new.name,
            new.credential_id.as_slice(),
            new.sealed.as_slice(),
            i64::from(new.sign_count),
            micros(now)
        )
        .map_err(|e| e.or_conflict("this passkey").or_missing("this person"))?;
        tx.bump().await?;
        tx.commit().await?;
        Ok(true)
    }

    /// The passkeys of a person, oldest first.
    pub async fn passkeys(&self, user: UserId) -> Result<Vec<Passkey>, Error> {
        let rows = read!(
            self,
            Row,
            concat!("select ", columns!(), " from passkeys where user_id = $1 order by created_at, id"),
            user.to_string()
        )?;
        rows.into_iter().map(Passkey::try_from).collect()
    }

    /// The passkey that calls itself so.
    pub async fn passkey_by_credential(&self, credential_id: &[u8]) -> Result<Option<Passkey>, Error> {
        let rows =
            read!(self, Row, concat!("select ", columns!(), " from passkeys where credential_id = $1"), credential_id)?;
        rows.into_iter().next().map(Passkey::try_from).transpose()
    }

    /// The passkey that calls itself so or, where nobody has it, the next one in its place: what is read and done with it
    /// costs the same either way. None only where there are no passkeys.
    pub async fn passkey_or_another(&self, credential_id: &[u8]) -> Result<Option<Passkey>, Error> {
        let rows = read!(
            self,
            Row,
            concat!(
                "select ",
                columns!(),
                " from passkeys where credential_id = coalesce(\
                 (select credential_id from passkeys where credential_id >= $1 order by credential_id limit 1), \
                 (select credential_id from passkeys order by credential_id limit 1))"
            ),
            credential_id
        )?;
        rows.into_iter().next().map(Passkey::try_from).transpose()
    }

    /// Writes down that a passkey was used, and how often it has signed. False, and nothing written, when it is gone or
    /// its counter did not go up (WebAuthn Level 3, 7.2 step 22): one that counts nothing stays at 0.
    pub async fn use_passkey(&self, id: FactorId, sign_count: u32, now: OffsetDateTime) -> Result<bool, Error> {
        let mut tx = self.begin().await?;
        let used = execute!(
            tx,
            "update passkeys set sign_count = $2, used_at = $3 \
             where id = $1 and (sign_count < $2 or (sign_count = 0 and $2 = 0))",
            id.to_string(),
            i64::from(sign_count),
            micros(now)
        )?;
        tx.commit().await?;
        Ok(used == 1)
    }

    /// Removes a second factor of a person, authenticator app or passkey, unless it is the only one that counts.
    pub async fn remove_factor(&self, user: UserId, id: FactorId) -> Result<Removal, Error> {
        let mut tx = self.begin().await?;
        let (user, id) = (user.to_string(), id.to_string());
        hold(&mut tx, &user).await?;
        let gone = execute!(
            tx,
            "delete from totp_factors where id = $1 and user_id = $2 and confirmed_at is not null",
            &id,
            &user
        )? + execute!(tx, "delete from passkeys where id = $1 and user_id = $2", &id, &user)?;
        if gone == 0 {
            return Ok(Removal::Unknown);
        }
        if count(&mut tx, &user).await? == 0 {
            return Ok(Removal::Last);
        }
        tx.bump().await?;
        tx.commit().await?;
        Ok(Removal::Gone)
    }

    /// Keeps what a session was asked to sign for a purpose; what it was asked before for the same is forgotten.
    pub async fn begin_ceremony(
        &self,
        session_hash: &Digest,
        purpose: &str,
        state: &str,
        expires_at: OffsetDateTime,
    ) -> Result<(), Error> {
        let mut tx = self.begin().await?;
        execute!(
            tx,
            "insert into passkey_ceremonies (session_hash, purpose, state, expires_at) values ($1, $2, $3, $4) \
             on conflict (session_hash, purpose) do update \
             set state = excluded.state, expires_at = excluded.expires_at",
            session_hash.as_slice(),
            purpose,
            state,
            micros(expires_at)
        )?;
        tx.commit().await
    }

    /// Takes what a session was asked to sign for a purpose: whoever gets it is the only one, over all nodes. None when
    /// it was taken, has expired, or was asked of another session or for something else.
    pub async fn take_ceremony(
        &self,
        session_hash: &Digest,
        purpose: &str,
        now: OffsetDateTime,
    ) -> Result<Option<String>, Error> {
        let mut tx = self.begin().await?;
        let rows = fetch!(
            tx,
            (String,),
            "delete from passkey_ceremonies where session_hash = $1 and purpose = $2 and expires_at > $3 returning state",
            session_hash.as_slice(),
            purpose,
            micros(now)
        )?;
        tx.commit().await?;
        Ok(rows.into_iter().next().map(|r| r.0))
    }

    /// Forgets what was asked and not answered before an instant; gives how many there were.
    pub async fn drop_ceremonies(&self, before: OffsetDateTime) -> Result<u64, Error> {
        let mut tx = self.begin().await?;
        let gone = execute!(tx, "delete from passkey_ceremonies where expires_at <= $1", micros(before))?;
        tx.commit().await?;
        Ok(gone)
    }
}

#[cfg(test)]
mod tests;
