// SPDX-License-Identifier: Apache-2.0
//! Emergency locks of machines, hypervisors and tokens. That of a person stands with the person.

use crate::{
    Error, Store, from_micros,
    tx::{execute, fetch, parse, read},
};
use portcullis_domain::{HypervisorName, LockId, MachineRef, TokenId, UserId, micros};
use std::fmt;
use time::OffsetDateTime;

/// What is locked.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum LockOf {
    /// One machine.
    Machine(MachineRef),
    /// A hypervisor with all its machines.
    Hypervisor(HypervisorName),
    /// A token.
    Token(TokenId),
}

impl LockOf {
    /// Its kind and value as two columns.
    pub fn columns(&self) -> (&'static str, String) {
        match self {
            Self::Machine(at) => ("machine", at.to_string()),
            Self::Hypervisor(name) => ("hypervisor", name.to_string()),
            Self::Token(id) => ("token", id.to_string()),
        }
    }

    /// Reads what [`LockOf::columns`] wrote; none for anything else.
    pub fn parse(kind: &str, value: &str) -> Option<Self> {
        match kind {
            "machine" => value.parse().ok().map(Self::Machine),
            "hypervisor" => value.parse().ok().map(Self::Hypervisor),
            "token" => value.parse().ok().map(Self::Token),
            _ => None,
        }
    }
}

impl fmt::Display for LockOf {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (kind, value) = self.columns();
        write!(f, "{kind} {value}")
    }
}

/// A lock.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Lock {
    /// Its id.
    pub id: LockId,
    /// What it locks.
    pub of: LockOf,
    /// Why: 1 to 128 characters.
    pub reason: String,
    /// Since when.
    pub from: OffsetDateTime,
    /// First instant at which it no longer counts.
    pub until: OffsetDateTime,
    /// Who locked it; none: from a shell.
    pub by: Option<UserId>,
    /// The name of who locked it.
    pub by_name: String,
}

#[derive(sqlx::FromRow)]
struct Row {
    id: String,
    kind: String,
    value: String,
    reason: String,
    from_at: i64,
    until_at: i64,
    by_user: Option<String>,
    by_name: String,
}

const T: &str = "locks";

impl TryFrom<Row> for Lock {
    type Error = Error;
    fn try_from(row: Row) -> Result<Self, Error> {
        Ok(Self {
            of: LockOf::parse(&row.kind, &row.value).ok_or_else(|| Error::corrupt(T, &row.id, "what it locks"))?,
            id: parse(T, "id", &row.id)?,
            reason: row.reason,
            from: from_micros(row.from_at),
            until: from_micros(row.until_at),
            by: row.by_user.map(|u| parse(T, "by_user", &u)).transpose()?,
            by_name: row.by_name,
        })
    }
}

impl Store {
    /// Adds a lock.
    pub async fn add_lock(&self, lock: &Lock) -> Result<(), Error> {
        let (kind, value) = lock.of.columns();
        let mut tx = self.begin().await?;
        tx.bump().await?;
        execute!(
            tx,
            "insert into locks (id, kind, value, reason, from_at, until_at, by_user, by_name) \
             values ($1, $2, $3, $4, $5, $6, $7, $8)",
            lock.id.to_string(),
            kind,
            value,
            &lock.reason,
            micros(lock.from),
            micros(lock.until),
            lock.by.map(|u| u.to_string()),
            &lock.by_name
        )
        .map_err(|e| e.or_conflict("this lock"))?;
        tx.commit().await
    }

    /// Ends a lock before its time; false when it is over already.
    pub async fn end_lock(&self, id: LockId, by: &str, now: OffsetDateTime) -> Result<bool, Error> {
        let mut tx = self.begin().await?;
        tx.bump().await?;
        let ended = execute!(
            tx,
            "update locks set ended_at = $2, ended_by = $3 where id = $1 and ended_at is null and until_at > $2",
            id.to_string(),
            micros(now),
            by
        )?;
        tx.commit().await?;
        Ok(ended == 1)
    }

    /// The locks that count at an instant, newest first.
    pub async fn locks(&self, now: OffsetDateTime) -> Result<Vec<Lock>, Error> {
        let rows = read!(
            self,
            Row,
            "select id, kind, value, reason, from_at, until_at, by_user, by_name from locks \
             where ended_at is null and until_at > $1 order by from_at desc, id",
            micros(now)
        )?;
        rows.into_iter().map(Lock::try_from).collect()
    }

    /// The people whose lock ends by itself and is over, by name.
    pub async fn locks_over(&self, now: OffsetDateTime) -> Result<Vec<(UserId, String)>, Error> {
        let rows = read!(
            self,
            (String, String),
            "select id, name from users where locked_at is not null and locked_until <= $1 order by name_key",
            micros(now)
        )?;
        rows.into_iter().map(|(id, name)| Ok((parse("users", "id", &id)?, name))).collect()
    }

    /// Lifts the lock of a person that ends by itself, once it is over; false when it is not, or was lifted.
    pub async fn lift_lock(&self, user: UserId, now: OffsetDateTime) -> Result<bool, Error> {
        let mut tx = self.begin().await?;
        let lifted = fetch!(
            tx,
            (String,),
            "update users set locked_at = null, locked_why = null, locked_until = null \
             where id = $1 and locked_at is not null and locked_until <= $2 returning id",
            user.to_string(),
            micros(now)
        )?;
        tx.bump().await?;
        tx.commit().await?;
        Ok(!lifted.is_empty())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{NOON, on_both, person};
    use time::Duration;
    use uuid::Uuid;

    #[tokio::test]
    async fn a_lock_counts_until_it_ends_or_is_ended() {
        on_both(async |b| {
            let store = b.open().await;
            let lock = |n: u128, of: LockOf| Lock {
                id: LockId::new(Uuid::from_u128(n)),
                of,
                reason: "stolen".into(),
                from: NOON,
                until: NOON + Duration::HOUR,
                by: None,
                by_name: "a shell".into(),
            };
            let all = [
                LockOf::Machine("lab/web-1".parse().unwrap()),
                LockOf::Hypervisor("lab".parse().unwrap()),
                LockOf::Token(TokenId::new(Uuid::from_u128(9))),
            ];
            let epoch = store.epoch().await.unwrap();
            for (n, of) in all.iter().enumerate() {
                store.add_lock(&lock(n as u128, of.clone())).await.unwrap();
            }
            assert_eq!(store.epoch().await.unwrap(), epoch + 3, "every node is told");
            let of = |locks: Vec<Lock>| locks.into_iter().map(|l| l.of).collect::<Vec<_>>();
            assert_eq!(of(store.locks(NOON).await.unwrap()), all);
            let first = LockId::new(Uuid::from_u128(0));
            assert!(store.end_lock(first, "ada", NOON).await.unwrap());
            assert!(!store.end_lock(first, "ada", NOON).await.unwrap());
            assert_eq!(of(store.locks(NOON).await.unwrap()), all[1..]);
            assert!(store.locks(NOON + Duration::HOUR).await.unwrap().is_empty());
        })
        .await;
    }

    #[tokio::test]
    async fn the_lock_of_a_person_is_lifted_when_it_is_over_and_not_before() {
        on_both(async |b| {
            let store = b.open().await;
            let (ada, bob) = (person(&store, "ada").await, person(&store, "bob").await);
            let until = NOON + Duration::HOUR;
            store.set_locked(ada, Some(("stolen", Some(until))), NOON).await.unwrap();
            store.set_locked(bob, Some(("stolen", None)), NOON).await.unwrap();
            assert!(!store.lift_lock(ada, NOON).await.unwrap());
            assert!(store.locks_over(NOON).await.unwrap().is_empty());
            let later = NOON + 400 * Duration::DAY;
            assert_eq!(store.locks_over(later).await.unwrap(), [(ada, "ada".to_owned())]);
            assert!(store.lift_lock(ada, until).await.unwrap() && !store.lift_lock(bob, later).await.unwrap());
            assert!(store.user(ada).await.unwrap().unwrap().is_open());
            assert!(!store.user(bob).await.unwrap().unwrap().is_open());
        })
        .await;
    }
}
