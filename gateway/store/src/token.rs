// SPDX-License-Identifier: Apache-2.0
//! Tokens for tools: digests only, kept in memory by identity.

use crate::{
    Digest, Error, Store, from_micros,
    tx::{execute, parse, read},
};
use portcullis_domain::{HypervisorName, Network, TokenId, UserId, micros};
use std::net::IpAddr;
use time::OffsetDateTime;

/// A token to be.
#[derive(Debug, Clone)]
pub struct NewToken {
    /// Its id; no secret.
    pub id: TokenId,
    /// SHA-256 of its text.
    pub hash: Digest,
    /// Whose.
    pub user: UserId,
    /// What its owner calls it: 1 to 64 characters.
    pub name: String,
    /// The only hypervisor that it reaches, if it is limited to one.
    pub hypervisor: Option<HypervisorName>,
    /// The networks from which alone it counts; none means from everywhere.
    pub networks: Vec<Network>,
    /// First instant at which it no longer counts.
    pub expires_at: OffsetDateTime,
    /// Who made it, where that was not its owner.
    pub made_by: Option<UserId>,
}

/// A token as shown in a list.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TokenRow {
    /// Its id.
    pub id: TokenId,
    /// Whose.
    pub user: UserId,
    /// What its owner calls it.
    pub name: String,
    /// The only hypervisor that it reaches.
    pub hypervisor: Option<HypervisorName>,
    /// The networks from which alone it counts; none means from everywhere.
    pub networks: Vec<Network>,
    /// Who made it, where that was not its owner.
    pub made_by: Option<UserId>,
    /// When it was made.
    pub created_at: OffsetDateTime,
    /// First instant at which it no longer counts.
    pub expires_at: OffsetDateTime,
    /// When it was taken back.
    pub revoked_at: Option<OffsetDateTime>,
    /// When it was last used, to the minute.
    pub last_used_at: Option<OffsetDateTime>,
    /// From where it was last used.
    pub last_used_from: Option<IpAddr>,
}

/// A token that counts, with what a node needs to recognise it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LiveToken {
    /// SHA-256 of its text.
    pub hash: Digest,
    /// Its owner's sign-in name.
    pub user_name: String,
    /// The rest.
    pub token: TokenRow,
}

#[derive(sqlx::FromRow)]
struct Row {
    id: String,
    hash: Vec<u8>,
    user_id: String,
    user_name: String,
    name: String,
    hypervisor: Option<String>,
    created_at: i64,
    expires_at: i64,
    revoked_at: Option<i64>,
    last_used_at: Option<i64>,
    last_used_from: Option<String>,
    networks: String,
    made_by: Option<String>,
}

// Columns by name: with `*`, a column that a newer node adds breaks PostgreSQL's prepared statements on the older ones.
macro_rules! columns {
    () => {
        "t.id, t.hash, t.user_id, u.name as user_name, t.name, t.hypervisor, t.created_at, t.expires_at, t.revoked_at, \
         t.last_used_at, t.last_used_from, t.networks, t.made_by"
    };
}

const T: &str = "tokens";

impl TryFrom<Row> for LiveToken {
    type Error = Error;
    fn try_from(row: Row) -> Result<Self, Error> {
        Ok(Self {
            hash: row.hash.try_into().map_err(|_| Error::corrupt(T, &row.id, "the digest is not 32 bytes"))?,
            user_name: row.user_name,
            token: TokenRow {
                id: parse(T, "id", &row.id)?,
                user: parse(T, "user_id", &row.user_id)?,
                name: row.name,
                hypervisor: row.hypervisor.map(|h| parse(T, "hypervisor", &h)).transpose()?,
                created_at: from_micros(row.created_at),
                expires_at: from_micros(row.expires_at),
                revoked_at: row.revoked_at.map(from_micros),
                last_used_at: row.last_used_at.map(from_micros),
                last_used_from: row.last_used_from.map(|p| parse(T, "last_used_from", &p)).transpose()?,
                // One that cannot be read is corrupt, never a token without networks.
                networks: row.networks.split_whitespace().map(|n| parse(T, "networks", n)).collect::<Result<_, _>>()?,
                made_by: row.made_by.map(|u| parse(T, "made_by", &u)).transpose()?,
            },
        })
    }
}

impl Store {
    /// Adds a token.
    pub async fn add_token(&self, new: &NewToken, now: OffsetDateTime) -> Result<(), Error> {
        let mut tx = self.begin().await?;
        execute!(
            tx,
            "insert into tokens (id, hash, user_id, name, hypervisor, created_at, expires_at, networks, made_by) \
             values ($1, $2, $3, $4, $5, $6, $7, $8, $9)",
            new.id.to_string(),
            new.hash.as_slice(),
            new.user.to_string(),
            &new.name,
            new.hypervisor.as_ref().map(HypervisorName::as_str),
            micros(now),
            micros(new.expires_at),
            new.networks.iter().map(ToString::to_string).collect::<Vec<_>>().join(" "),
            new.made_by.map(|u| u.to_string())
        )
        .map_err(|e| e.or_conflict("this token").or_missing("this person"))?;
        tx.bump().await?;
        tx.commit().await
    }

    /// Takes a token of a person back; false when that was done before or it is not theirs.
    pub async fn revoke_token(&self, user: UserId, id: TokenId, now: OffsetDateTime) -> Result<bool, Error> {
        let mut tx = self.begin().await?;
        let changed = execute!(
            tx,
            "update tokens set revoked_at = $3 where id = $1 and user_id = $2 and revoked_at is null",
            id.to_string(),
            user.to_string(),
            micros(now)
        )?;
        if changed == 1 {
            tx.bump().await?;
        }
        tx.commit().await?;
        Ok(changed == 1)
    }

    /// The tokens of a person, newest first, those that no longer count among them.
    pub async fn tokens_of(&self, user: UserId) -> Result<Vec<TokenRow>, Error> {
        let rows = read!(
            self,
            Row,
            concat!(
                "select ",
                columns!(),
                " from tokens t join users u on u.id = t.user_id \
             where t.user_id = $1 order by t.created_at desc, t.id"
            ),
            user.to_string()
        )?;
        rows.into_iter().map(|r| LiveToken::try_from(r).map(|t| t.token)).collect()
    }

    /// Every token that counts and whose owner may sign in: what a node keeps in memory.
    pub async fn live_tokens(&self, now: OffsetDateTime) -> Result<Vec<LiveToken>, Error> {
        let rows = read!(
            self,
            Row,
            concat!(
                "select ",
                columns!(),
                " from tokens t join users u on u.id = t.user_id \
             where t.revoked_at is null and t.expires_at > $1 and u.disabled_at is null and u.locked_at is null \
             and not exists (select 1 from provider_people p where p.user_id = t.user_id and p.refused_at is not null)"
            ),
            micros(now)
        )?;
        rows.into_iter().map(LiveToken::try_from).collect()
    }

    /// Every token that was ever made, with its owner's name, newest first.
    pub async fn tokens(&self) -> Result<Vec<LiveToken>, Error> {
        let rows = read!(
            self,
            Row,
            concat!(
                "select ",
                columns!(),
                " from tokens t join users u on u.id = t.user_id order by t.created_at desc, t.id"
            )
        )?;
        rows.into_iter().map(LiveToken::try_from).collect()
    }

    /// Notes that a token was used, and from where. Not a change of rights: the epoch stays.
    pub async fn touch_token(&self, id: TokenId, now: OffsetDateTime, from: IpAddr) -> Result<(), Error> {
        let mut tx = self.begin().await?;
        execute!(
            tx,
            "update tokens set last_used_at = $2, last_used_from = $3 where id = $1",
            id.to_string(),
            micros(now),
            from.to_canonical().to_string()
        )?;
        tx.commit().await
    }
}

#[cfg(test)]
mod tests;
