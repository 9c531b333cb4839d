// SPDX-License-Identifier: Apache-2.0
//! Groups as people see them: those of a directory, and those that are made and kept here.

use crate::{
    Error, Store, from_micros,
    tx::{Tx, execute, fetch, from_word, parse, read},
};
use portcullis_domain::{GroupId, UserId, micros};
use serde::{Deserialize, Serialize};
use std::collections::BTreeSet;
use time::OffsetDateTime;

const T: &str = "groups";

/// Who says who is in a group.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum GroupSource {
    /// The company's directory.
    Directory,
    /// Administrators of this gateway.
    Local,
}

/// A group.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Group {
    /// Its id.
    pub id: GroupId,
    /// What people call it: 1 to 128 characters, unique.
    pub name: String,
    /// What it is for, at most 512 characters; empty where nobody said.
    pub words: String,
    /// Who says who is in it.
    pub source: GroupSource,
    /// When it was made.
    pub created_at: OffsetDateTime,
    /// Who is in it.
    pub members: BTreeSet<UserId>,
}

/// Marks a group as changed at the epoch that this change moved.
async fn touch(tx: &mut Tx, id: GroupId) -> Result<(), Error> {
    tx.bump_rights().await?;
    let sql = "update groups set version = (select value from epoch where only_row = 1) where id = $1";
    execute!(*tx, sql, id.to_string()).map(drop)
}

impl Store {
    /// Every group with its members, by name.
    pub async fn all_groups(&self) -> Result<Vec<Group>, Error> {
        let rows = read!(
            self,
            (String, String, String, String, i64),
            "select id, name, words, source, created_at from groups order by name"
        )?;
        let members = read!(self, (String, String), "select group_id, user_id from group_members")?;
        let mut all = Vec::with_capacity(rows.len());
        for (id, name, words, source, created_at) in rows {
            let own = members.iter().filter(|m| m.0 == id).map(|m| parse("group_members", "user_id", &m.1));
            all.push(Group {
                members: own.collect::<Result<_, _>>()?,
                id: parse(T, "id", &id)?,
                source: from_word(T, "source", source)?,
                created_at: from_micros(created_at),
                name,
                words,
            });
        }
        Ok(all)
    }

    /// One group with its members.
    pub async fn group(&self, id: GroupId) -> Result<Option<Group>, Error> {
        Ok(self.all_groups().await?.into_iter().find(|g| g.id == id))
    }

    /// Makes a group that is kept here, without members. [`Error::Conflict`] when another one has its name.
    pub async fn add_group(&self, id: GroupId, name: &str, words: &str, now: OffsetDateTime) -> Result<(), Error> {
        let mut tx = self.begin().await?;
        tx.bump().await?;
        execute!(
            tx,
            "insert into groups (id, name, words, created_at, source, version) \
             values ($1, $2, $3, $4, 'local', (select value from epoch where only_row = 1))",
            id.to_string(),
            name,
            words,
            micros(now)
        )
        .map_err(|e| e.or_conflict("a group with this name"))?;
        tx.commit().await
    }

    /// Puts somebody into a group; false when they were in it. `by` is who did it.
    pub async fn join_group(&self, id: GroupId, user: UserId, by: Option<UserId>) -> Result<bool, Error> {
        let mut tx = self.begin().await?;
        touch(&mut tx, id).await?;
        let changed = execute!(
            tx,
            "insert into group_members (group_id, user_id, added_by) values ($1, $2, $3) \
             on conflict (group_id, user_id) do nothing",
            id.to_string(),
            user.to_string(),
            by.map(|u| u.to_string())
        )
        .map_err(|e| e.or_missing("this person or group"))?;
        tx.commit().await?;
        Ok(changed == 1)
    }

    /// Takes somebody out of a group; false when they were not in it.
    pub async fn leave_group(&self, id: GroupId, user: UserId) -> Result<bool, Error> {
        let mut tx = self.begin().await?;
        touch(&mut tx, id).await?;
        let sql = "delete from group_members where group_id = $1 and user_id = $2";
        let changed = execute!(tx, sql, id.to_string(), user.to_string())?;
        tx.commit().await?;
        Ok(changed == 1)
    }

    /// Removes a group that is kept here and holds no grant any more; false when it holds one, or is not kept here.
    pub async fn remove_local_group(&self, id: GroupId) -> Result<bool, Error> {
        let mut tx = self.begin().await?;
        tx.bump().await?;
        let sql = "select id from grants where group_id = $1 and revoked_at is null";
        if !fetch!(tx, (String,), sql, id.to_string())?.is_empty() {
            return Ok(false);
        }
        let sql = "delete from groups where id = $1 and source = 'local'";
        let changed = execute!(tx, sql, id.to_string())?;
        tx.commit().await?;
        Ok(changed == 1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{NOON, on_both, person};
    use portcullis_domain::{Conditions, Grant, GrantEffect, GrantId, GrantSource, Selector};
    use uuid::Uuid;

    #[tokio::test]
    async fn each_change_of_a_group_moves_the_epoch_and_its_grants_keep_it() {
        on_both(async |b| {
            let store = b.open().await;
            let (ada, bob) = (person(&store, "ada").await, person(&store, "bob").await);
            let id = GroupId::new(Uuid::from_u128(1));
            let mut last = store.epoch().await.unwrap();
            let mut moved = async || {
                let now = store.epoch().await.unwrap();
                assert!(now > last);
                last = now;
            };
            store.add_group(id, "ops", "who keep it running", NOON).await.unwrap();
            moved().await;
            let taken = store.add_group(GroupId::new(Uuid::from_u128(2)), "ops", "", NOON).await;
            assert!(matches!(taken, Err(Error::Conflict(_))));
            assert!(store.join_group(id, ada, Some(bob)).await.unwrap());
            moved().await;
            assert!(!store.join_group(id, ada, None).await.unwrap());
            let stranger = UserId::new(Uuid::from_u128(99));
            assert!(matches!(store.join_group(id, stranger, None).await, Err(Error::NotFound(_))));
            assert!(store.join_group(id, bob, None).await.unwrap());
            assert!(store.leave_group(id, bob).await.unwrap());
            moved().await;
            assert!(!store.leave_group(id, bob).await.unwrap());
            let group = store.group(id).await.unwrap().unwrap();
            assert_eq!((group.name.as_str(), group.words.as_str()), ("ops", "who keep it running"));
            assert_eq!((group.source, group.members), (GroupSource::Local, BTreeSet::from([ada])));
            assert!(store.groups().await.unwrap().is_empty(), "a directory sees only its own");
            let grant = Grant {
                id: GrantId::new(Uuid::from_u128(3)),
                role: "viewer".parse().unwrap(),
                selector: Selector::Everything,
                effect: GrantEffect::Allow,
                from: NOON,
                until: None,
                conditions: Conditions::default(),
                source: GrantSource::Administrator,
            };
            store.add_grant(id, &grant, None, NOON).await.unwrap();
            assert!(!store.remove_local_group(id).await.unwrap());
            store.revoke_grant(grant.id, None, NOON).await.unwrap();
            assert!(store.remove_local_group(id).await.unwrap());
            moved().await;
            assert_eq!(store.group(id).await.unwrap(), None);
        })
        .await;
    }
}
