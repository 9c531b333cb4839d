// SPDX-License-Identifier: Apache-2.0
//! People, their password hashes, and the invitations that let somebody set one.

use crate::{
    Digest, Error, Store, from_micros,
    grant::insert_grant,
    tx::{Tx, execute, fetch, from_word, parse, read, word},
};
use portcullis_domain::{Grant, UserId, micros};
use serde::{Deserialize, Serialize};
use time::OffsetDateTime;

/// How many former password hashes are kept, so that none of them is chosen again.
const HISTORY: i64 = 5;

/// What an account is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum UserKind {
    /// A person, who signs in.
    Person,
    /// A machine: it never signs in, its tools present tokens that an administrator made.
    Service,
    /// An account for emergencies: entered with a sealed code only.
    BreakGlass,
}

/// A person.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct User {
    /// Their id.
    pub id: UserId,
    /// The name they sign in with, as it was typed when they were created.
    pub name: String,
    /// What every spelling of the name folds to; unique.
    pub name_key: String,
    /// The name shown to people.
    pub display_name: String,
    /// An Argon2id hash in PHC form; none until an invitation is redeemed.
    pub password_hash: Option<String>,
    /// When they were created.
    pub created_at: OffsetDateTime,
    /// Since when they may not sign in.
    pub disabled_at: Option<OffsetDateTime>,
    /// What the account is for.
    pub kind: UserKind,
    /// How the account is locked, if it is.
    pub locked: Option<Locked>,
}

/// How an account is locked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Locked {
    /// Since when.
    pub at: OffsetDateTime,
    /// Why.
    pub why: String,
    /// When it ends by itself; none means when somebody lifts it.
    pub until: Option<OffsetDateTime>,
}

impl User {
    /// Whether the account may be used at all: neither disabled nor locked.
    pub const fn is_open(&self) -> bool {
        self.disabled_at.is_none() && self.locked.is_none()
    }
}

/// A person to be.
#[derive(Debug, Clone)]
pub struct NewUser {
    /// Their id.
    pub id: UserId,
    /// The name they sign in with: 1 to 64 characters.
    pub name: String,
    /// What every spelling of the name folds to.
    pub name_key: String,
    /// The name shown to people: at most 128 characters.
    pub display_name: String,
}

/// A right to set a password, once.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Invitation {
    /// Whose password; none: its holder becomes the first administrator.
    pub user: Option<UserId>,
    /// First instant at which it no longer counts.
    pub expires_at: OffsetDateTime,
}

/// The first administrator, who names themselves.
#[derive(Debug, Clone)]
pub struct FirstUser {
    /// Who.
    pub user: NewUser,
    /// What they may do.
    pub grants: Vec<Grant>,
}

#[derive(sqlx::FromRow)]
struct Row {
    id: String,
    name: String,
    name_key: String,
    display_name: String,
    password_hash: Option<String>,
    created_at: i64,
    disabled_at: Option<i64>,
    kind: String,
    locked_at: Option<i64>,
    locked_why: Option<String>,
    locked_until: Option<i64>,
}

// Columns by name: with `*`, a column that a newer node adds breaks PostgreSQL's prepared statements on the older ones.
macro_rules! columns {
    () => {
        "id, name, name_key, display_name, password_hash, created_at, disabled_at, kind, locked_at, locked_why, locked_until"
    };
}

impl TryFrom<Row> for User {
    type Error = Error;
    fn try_from(row: Row) -> Result<Self, Error> {
        Ok(Self {
            id: parse("users", "id", &row.id)?,
            name: row.name,
            name_key: row.name_key,
            display_name: row.display_name,
            password_hash: row.password_hash,
            created_at: from_micros(row.created_at),
            disabled_at: row.disabled_at.map(from_micros),
            kind: from_word("users", "kind", row.kind)?,
            locked: row.locked_at.map(|at| Locked {
                at: from_micros(at),
                why: row.locked_why.unwrap_or_default(),
                until: row.locked_until.map(from_micros),
            }),
        })
    }
}

pub(crate) async fn insert_user(tx: &mut Tx, user: &NewUser, kind: UserKind, now: OffsetDateTime) -> Result<(), Error> {
    execute!(
        *tx,
        "insert into users (id, name, name_key, display_name, created_at, kind) values ($1, $2, $3, $4, $5, $6)",
        user.id.to_string(),
        &user.name,
        &user.name_key,
        &user.display_name,
        micros(now),
        word(&kind)
    )
    .map(drop)
    .map_err(|e| e.or_conflict("a person with this name"))
}

async fn write_password(tx: &mut Tx, id: UserId, hash: &str, now: OffsetDateTime) -> Result<(), Error> {
    let id = id.to_string();
    let changed = execute!(*tx, "update users set password_hash = $2 where id = $1", &id, hash)?;
    if changed == 0 {
        return Err(Error::NotFound("this person"));
    }
    execute!(*tx, "insert into password_history (user_id, hash, set_at) values ($1, $2, $3)", &id, hash, micros(now))?;
    execute!(
        *tx,
        "delete from password_history where user_id = $1 and hash not in \
         (select hash from password_history where user_id = $1 order by set_at desc, hash limit $2)",
        &id,
        HISTORY
    )?;
    revoke_tokens(tx, &id, now).await
}

/// Whoever takes an account back after a theft takes back what the thief made with it, too.
async fn revoke_tokens(tx: &mut Tx, id: &str, now: OffsetDateTime) -> Result<(), Error> {
    execute!(*tx, "update tokens set revoked_at = $2 where user_id = $1 and revoked_at is null", id, micros(now))
        .map(drop)
}

async fn end_sessions(tx: &mut Tx, id: UserId, now: OffsetDateTime, why: &str) -> Result<(), Error> {
    execute!(
        *tx,
        "update sessions set ended_at = $2, ended_why = $3 where user_id = $1 and ended_at is null",
        id.to_string(),
        micros(now),
        why
    )
    .map(drop)
}

impl Store {
    /// Adds a person, without a password. [`Error::Conflict`] when the name is taken.
    pub async fn create_user(&self, user: &NewUser, now: OffsetDateTime) -> Result<(), Error> {
        self.create_account(user, UserKind::Person, now).await
    }

    /// Adds an account of a kind, without a password. [`Error::Conflict`] when the name is taken.
    pub async fn create_account(&self, user: &NewUser, kind: UserKind, now: OffsetDateTime) -> Result<(), Error> {
        let mut tx = self.begin().await?;
        insert_user(&mut tx, user, kind, now).await?;
        tx.bump().await?;
        tx.commit().await
    }

    /// The person with an id.
    pub async fn user(&self, id: UserId) -> Result<Option<User>, Error> {
        let rows = read!(self, Row, concat!("select ", columns!(), " from users where id = $1"), id.to_string())?;
        rows.into_iter().next().map(User::try_from).transpose()
    }

    /// The person with a name, folded as at sign-in.
    pub async fn user_by_name(&self, name_key: &str) -> Result<Option<User>, Error> {
        let rows = read!(self, Row, concat!("select ", columns!(), " from users where name_key = $1"), name_key)?;
        rows.into_iter().next().map(User::try_from).transpose()
    }

    /// Every person, by name.
    pub async fn users(&self) -> Result<Vec<User>, Error> {
        read!(self, Row, concat!("select ", columns!(), " from users order by name_key"))?
            .into_iter()
            .map(User::try_from)
            .collect()
    }

    /// The ids of the accounts of a kind.
    pub async fn accounts_of(&self, kind: UserKind) -> Result<Vec<UserId>, Error> {
        let rows = read!(self, (String,), "select id from users where kind = $1 order by id", word(&kind))?;
        rows.iter().map(|row| parse("users", "id", &row.0)).collect()
    }

    /// Sets a password hash, remembers it among the last five, and takes every token of the person back.
    pub async fn set_password_hash(&self, id: UserId, hash: &str, now: OffsetDateTime) -> Result<(), Error> {
        let mut tx = self.begin().await?;
        write_password(&mut tx, id, hash, now).await?;
        tx.bump().await?;
        tx.commit().await
    }

    /// The last five password hashes, newest first, the current one among them.
    pub async fn password_history(&self, id: UserId) -> Result<Vec<String>, Error> {
        let rows = read!(
            self,
            (String,),
            "select hash from password_history where user_id = $1 order by set_at desc, hash",
            id.to_string()
        )?;
        Ok(rows.into_iter().map(|r| r.0).collect())
    }

    /// Takes a person's access away (and ends their sessions and tokens), or gives it back with `None`: what ended
    /// stays ended.
    pub async fn set_disabled(&self, id: UserId, disabled_at: Option<OffsetDateTime>) -> Result<(), Error> {
        let mut tx = self.begin().await?;
        let changed =
            execute!(tx, "update users set disabled_at = $2 where id = $1", id.to_string(), disabled_at.map(micros))?;
        if changed == 0 {
            return Err(Error::NotFound("this person"));
        }
        if let Some(at) = disabled_at {
            end_sessions(&mut tx, id, at, "the account was disabled").await?;
            revoke_tokens(&mut tx, &id.to_string(), at).await?;
        }
        tx.bump().await?;
        tx.commit().await
    }

    /// Locks an account with a reason (and until when, if that is known), which ends its sessions; or lifts the lock with
    /// `None`. Its tokens count again when the lock is lifted.
    pub async fn set_locked(
        &self,
        id: UserId,
        lock: Option<(&str, Option<OffsetDateTime>)>,
        now: OffsetDateTime,
    ) -> Result<(), Error> {
        let mut tx = self.begin().await?;
        let changed = execute!(
            tx,
            "update users set locked_at = $2, locked_why = $3, locked_until = $4 where id = $1",
            id.to_string(),
            lock.map(|_| micros(now)),
            lock.map(|(why, _)| why),
            lock.and_then(|(_, until)| until).map(micros)
        )?;
        if changed == 0 {
            return Err(Error::NotFound("this person"));
        }
        if lock.is_some() {
            end_sessions(&mut tx, id, now, "the account was locked").await?;
        }
        tx.bump().await?;
        tx.commit().await
    }

    /// Takes away every factor, the password, every session and token, so that only a new invitation leads back in.
    pub async fn reset_user(&self, id: UserId, now: OffsetDateTime) -> Result<(), Error> {
        let mut tx = self.begin().await?;
        let key = id.to_string();
        let changed = execute!(tx, "update users set password_hash = null where id = $1", &key)?;
        if changed == 0 {
            return Err(Error::NotFound("this person"));
        }
        execute!(tx, "delete from totp_factors where user_id = $1", &key)?;
        execute!(tx, "delete from passkeys where user_id = $1", &key)?;
        execute!(tx, "delete from recovery_codes where user_id = $1", &key)?;
        execute!(tx, "delete from invitations where user_id = $1", &key)?;
        revoke_tokens(&mut tx, &key, now).await?;
        end_sessions(&mut tx, id, now, "an administrator reset the account").await?;
        tx.bump().await?;
        tx.commit().await
    }

    /// Adds a right to set a password; `None` for the first administrator. Earlier ones for the same person end.
    pub async fn create_invitation(
        &self,
        hash: &Digest,
        user: Option<UserId>,
        now: OffsetDateTime,
        expires_at: OffsetDateTime,
    ) -> Result<(), Error> {
        let user = user.map(|u| u.to_string());
        let mut tx = self.begin().await?;
        match &user {
            Some(user) => execute!(tx, "delete from invitations where user_id = $1", user)?,
            None => execute!(tx, "delete from invitations where user_id is null")?,
        };
        execute!(
            tx,
            "insert into invitations (hash, user_id, created_at, expires_at) values ($1, $2, $3, $4)",
            hash.as_slice(),
            user,
            micros(now),
            micros(expires_at)
        )
        .map_err(|e| e.or_missing("this person"))?;
        tx.commit().await
    }

    /// The invitation behind a digest, if it still counts. It is not used up.
    pub async fn invitation(&self, hash: &Digest, now: OffsetDateTime) -> Result<Option<Invitation>, Error> {
        let rows = read!(
            self,
            (Option<String>, i64),
            "select user_id, expires_at from invitations where hash = $1 and expires_at > $2",
            hash.as_slice(),
            micros(now)
        )?;
        rows.into_iter().next().map(invitation).transpose()
    }

    /// Uses an invitation up: whoever gets it is the only one. What it allows is for the caller to do; a crash
    /// before that loses it.
    pub async fn take_invitation(&self, hash: &Digest, now: OffsetDateTime) -> Result<Option<Invitation>, Error> {
        let mut tx = self.begin().await?;
        let taken = take(&mut tx, hash, now).await?;
        tx.commit().await?;
        Ok(taken)
    }

    /// Uses an invitation up, sets the password and ends sessions and tokens in one transaction; gives whose it is, or
    /// none when the invitation does not count. An invitation for the first administrator also creates `first` (a
    /// [`Error::NotFound`] when there is none) and counts only while nobody exists.
    pub async fn redeem_invitation(
        &self,
        hash: &Digest,
        now: OffsetDateTime,
        password_hash: &str,
        first: Option<&FirstUser>,
    ) -> Result<Option<UserId>, Error> {
        let mut tx = self.begin().await?;
        let Some(taken) = take(&mut tx, hash, now).await? else { return Ok(None) };
        let user = if let Some(user) = taken.user {
            let rows = fetch!(
                tx,
                (i64,),
                "select created_at from users where id = $1 and disabled_at is null and locked_at is null and kind = 'person'",
                user.to_string()
            )?;
            if rows.is_empty() {
                return Ok(None);
            }
            user
        } else {
            let first = first.ok_or(Error::NotFound("the name of the first administrator"))?;
            if !fetch!(tx, (String,), "select id from users limit 1")?.is_empty() {
                return Ok(None);
            }
            insert_user(&mut tx, &first.user, UserKind::Person, now).await?;
            for grant in &first.grants {
                insert_grant(&mut tx, first.user.id.into(), grant, None, now).await?;
            }
            first.user.id
        };
        write_password(&mut tx, user, password_hash, now).await?;
        end_sessions(&mut tx, user, now, "the password was set anew").await?;
        tx.bump().await?;
        tx.commit().await?;
        Ok(Some(user))
    }

    /// Takes back the invitations of a person; gives how many there were.
    pub async fn drop_invitations(&self, user: UserId) -> Result<u64, Error> {
        let mut tx = self.begin().await?;
        let gone = execute!(tx, "delete from invitations where user_id = $1", user.to_string())?;
        tx.commit().await?;
        Ok(gone)
    }
}

fn invitation((user, expires_at): (Option<String>, i64)) -> Result<Invitation, Error> {
    Ok(Invitation {
        user: user.map(|u| parse("invitations", "user_id", &u)).transpose()?,
        expires_at: from_micros(expires_at),
    })
}

async fn take(tx: &mut Tx, hash: &Digest, now: OffsetDateTime) -> Result<Option<Invitation>, Error> {
    let rows = fetch!(
        *tx,
        (Option<String>, i64),
        "delete from invitations where hash = $1 and expires_at > $2 returning user_id, expires_at",
        hash.as_slice(),
        micros(now)
    )?;
    rows.into_iter().next().map(invitation).transpose()
}

#[cfg(test)]
mod tests;
