// SPDX-License-Identifier: Apache-2.0
//! Second factors: authenticator secrets (sealed) and recovery codes (digests). Both are used once, on all nodes.

use crate::{
    Digest, Error, Store, from_micros,
    tx::{execute, parse, read},
};
use portcullis_domain::{UserId, micros};
use std::{fmt, net::IpAddr, str::FromStr};
use time::OffsetDateTime;
use uuid::Uuid;

/// One authenticator of one person.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, serde::Serialize, serde::Deserialize)]
#[serde(transparent)]
pub struct FactorId(Uuid);

impl FactorId {
    /// Wraps a UUID that was made for a factor.
    pub const fn new(uuid: Uuid) -> Self {
        Self(uuid)
    }
}

impl fmt::Display for FactorId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.as_simple().fmt(f)
    }
}

impl FromStr for FactorId {
    type Err = uuid::Error;
    fn from_str(text: &str) -> Result<Self, uuid::Error> {
        Uuid::try_parse(text).map(Self)
    }
}

/// An authenticator app.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TotpFactor {
    /// Its id: the row in the place that its secret is sealed to (table `totp_factors`, column `secret`).
    pub id: FactorId,
    /// Whose.
    pub user: UserId,
    /// What its owner calls it: 1 to 64 characters.
    pub name: String,
    /// The sealed secret.
    pub sealed: Vec<u8>,
    /// When it was added.
    pub created_at: OffsetDateTime,
    /// When its first code was accepted; until then it counts for nothing.
    pub confirmed_at: Option<OffsetDateTime>,
    /// The last time step whose code was used; -1 before the first.
    pub last_step: i64,
}

#[derive(sqlx::FromRow)]
struct Row {
    id: String,
    user_id: String,
    name: String,
    secret: Vec<u8>,
    created_at: i64,
    confirmed_at: Option<i64>,
    last_step: i64,
}

// Columns by name: with `*`, a column that a newer node adds breaks PostgreSQL's prepared statements on the older ones.
macro_rules! columns {
    () => {
        "id, user_id, name, secret, created_at, confirmed_at, last_step"
    };
}

impl TryFrom<Row> for TotpFactor {
    type Error = Error;
    fn try_from(row: Row) -> Result<Self, Error> {
        Ok(Self {
            id: parse("totp_factors", "id", &row.id)?,
            user: parse("totp_factors", "user_id", &row.user_id)?,
            name: row.name,
            sealed: row.secret,
            created_at: from_micros(row.created_at),
            confirmed_at: row.confirmed_at.map(from_micros),
            last_step: row.last_step,
        })
    }
}

impl Store {
    /// Adds an authenticator that counts for nothing until it is confirmed; unconfirmed ones of this person go.
    pub async fn add_totp(
        &self,
        id: FactorId,
        user: UserId,
        name: &str,
        sealed: &[u8],
        now: OffsetDateTime,
    ) -> Result<(), Error> {
        let mut tx = self.begin().await?;
        let user = user.to_string();
        execute!(tx, "delete from totp_factors where user_id = $1 and confirmed_at is null", &user)?;
        execute!(
            tx,
            "insert into totp_factors (id, user_id, name, secret, created_at) values ($1, $2, $3, $4, $5)",
            id.to_string(),
            &user,
            name,
            sealed,
            micros(now)
        )
        .map_err(|e| e.or_conflict("this authenticator").or_missing("this person"))?;
        tx.commit().await
    }

    /// Confirms an authenticator by the step of its first code; false when that was done before, or another
    /// second factor is there and [`Others::None`] was asked for. With [`Others::Remove`]
    /// every other second factor of the person goes in the same transaction.
    pub async fn confirm_totp(
        &self,
        id: FactorId,
        step: i64,
        others: Others,
        now: OffsetDateTime,
    ) -> Result<bool, Error> {
        let mut tx = self.begin().await?;
        let id = id.to_string();
        // Holds the person's row, so that two first authenticators cannot be confirmed side by side.
        execute!(tx, "update users set name = name where id = (select user_id from totp_factors where id = $1)", &id)?;
        let confirmed = if matches!(others, Others::None) {
            execute!(
                tx,
                "update totp_factors set confirmed_at = $2, last_step = $3 where id = $1 and confirmed_at is null \
                 and not exists (select 1 from totp_factors o \
                     where o.user_id = totp_factors.user_id and o.confirmed_at is not null) \
                 and not exists (select 1 from passkeys p where p.user_id = totp_factors.user_id)",
                &id,
                micros(now),
                step
            )?
        } else {
            execute!(
                tx,
                "update totp_factors set confirmed_at = $2, last_step = $3 where id = $1 and confirmed_at is null",
                &id,
                micros(now),
                step
            )?
        };
        if confirmed == 0 {
            return Ok(false);
        }
        if matches!(others, Others::Remove) {
            execute!(
                tx,
                "delete from totp_factors where id <> $1 and user_id = (select user_id from totp_factors where id = $1)",
                &id
            )?;
            execute!(tx, "delete from passkeys where user_id = (select user_id from totp_factors where id = $1)", &id)?;
        }
        tx.bump().await?;
        tx.commit().await?;
        Ok(true)
    }

    /// The authenticators of a person, oldest first, unconfirmed ones among them.
    pub async fn totp_factors(&self, user: UserId) -> Result<Vec<TotpFactor>, Error> {
        let rows = read!(
            self,
            Row,
            concat!("select ", columns!(), " from totp_factors where user_id = $1 order by created_at, id"),
            user.to_string()
        )?;
        rows.into_iter().map(TotpFactor::try_from).collect()
    }

    /// Uses a time step (seconds since 1970 over 30) of a confirmed authenticator up. True for exactly one caller
    /// over all nodes, and never for a step that is not later than the last one used.
    pub async fn use_totp_step(&self, id: FactorId, step: i64) -> Result<bool, Error> {
        let mut tx = self.begin().await?;
        let won = execute!(
            tx,
            "update totp_factors set last_step = $2 where id = $1 and last_step < $2 and confirmed_at is not null",
            id.to_string(),
            step
        )?;
        tx.commit().await?;
        Ok(won == 1)
    }

    /// Replaces a person's recovery codes: the old set is worth nothing from here on.
    pub async fn replace_recovery_codes(
        &self,
        user: UserId,
        hashes: &[Digest],
        now: OffsetDateTime,
    ) -> Result<(), Error> {
        let mut tx = self.begin().await?;
        let user = user.to_string();
        execute!(tx, "delete from recovery_codes where user_id = $1", &user)?;
        for hash in hashes {
            execute!(
                tx,
                "insert into recovery_codes (user_id, hash, created_at) values ($1, $2, $3)",
                &user,
                hash.as_slice(),
                micros(now)
            )
            .map_err(|e| e.or_conflict("this recovery code").or_missing("this person"))?;
        }
        tx.bump().await?;
        tx.commit().await
    }

    /// Uses a recovery code up, from an address. True for exactly one caller over all nodes.
    pub async fn use_recovery_code(
        &self,
        user: UserId,
        hash: &Digest,
        from: IpAddr,
        now: OffsetDateTime,
    ) -> Result<bool, Error> {
        let mut tx = self.begin().await?;
        let won = execute!(
            tx,
            "update recovery_codes set used_at = $3, used_from = $4 where user_id = $1 and hash = $2 and used_at is null",
            user.to_string(),
            hash.as_slice(),
            micros(now),
            from.to_string()
        )?;
        if won == 1 {
            tx.bump().await?;
        }
        tx.commit().await?;
        Ok(won == 1)
    }

    /// When a recovery code of a person was last used, and from where; none since they got the codes of now.
    pub async fn recovery_code_used(&self, user: UserId) -> Result<Option<(OffsetDateTime, Option<IpAddr>)>, Error> {
        let rows = read!(
            self,
            (i64, Option<String>),
            "select used_at, used_from from recovery_codes where user_id = $1 and used_at is not null \
             order by used_at desc limit 1",
            user.to_string()
        )?;
        let read = |(at, from): (i64, Option<String>)| {
            let from = from.map(|from| parse("recovery_codes", "used_from", &from)).transpose()?;
            Ok((from_micros(at), from))
        };
        rows.into_iter().next().map(read).transpose()
    }

    /// How many recovery codes a person has left.
    pub async fn recovery_codes_left(&self, user: UserId) -> Result<u64, Error> {
        let rows = read!(
            self,
            (i64,),
            "select count(*) from recovery_codes where user_id = $1 and used_at is null",
            user.to_string()
        )?;
        Ok(rows.first().map_or(0, |r| r.0.unsigned_abs()))
    }
}

/// What becomes of a person's other second factors when one is added.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Others {
    /// There must be none that is confirmed, or the confirmation fails.
    None,
    /// They stay.
    Keep,
    /// They go.
    Remove,
}

#[cfg(test)]
mod tests;
