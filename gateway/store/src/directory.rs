// SPDX-License-Identifier: Apache-2.0
//! Groups of a directory, who is in them, and the grants that were given for it.

use crate::{
    Error, Store, from_micros,
    tx::{execute, parse, read},
};
use portcullis_domain::{GrantId, GroupId, UserId, micros};
use std::collections::BTreeSet;
use time::OffsetDateTime;

/// A group.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DirectoryGroup {
    /// Its id.
    pub id: GroupId,
    /// What the directory calls it: 1 to 128 characters, unique.
    pub name: String,
    /// The directory's own id of it.
    pub external_id: Option<String>,
    /// When it was made.
    pub created_at: OffsetDateTime,
    /// Who is in it.
    pub members: BTreeSet<UserId>,
}

/// A grant that somebody holds because of a group.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DirectoryGrant {
    /// The grant.
    pub grant: GrantId,
    /// Because of which group.
    pub group: GroupId,
    /// Who holds it.
    pub user: UserId,
    /// Which line of the configuration gave it, in words.
    pub what: String,
}

impl Store {
    /// Puts a group in its place: made, or named anew, with exactly these members. [`Error::Conflict`] when another one
    /// has its name.
    pub async fn put_group(&self, group: &DirectoryGroup) -> Result<(), Error> {
        let mut tx = self.begin().await?;
        tx.bump_rights().await?;
        let id = group.id.to_string();
        execute!(
            tx,
            "insert into groups (id, name, external_id, created_at, source, version) \
             values ($1, $2, $3, $4, 'directory', (select value from epoch where only_row = 1)) \
             on conflict (id) do update set name = excluded.name, external_id = excluded.external_id, \
             version = excluded.version",
            &id,
            &group.name,
            group.external_id.as_deref(),
            micros(group.created_at)
        )
        .map_err(|e| e.or_conflict("a group with this name"))?;
        execute!(tx, "delete from group_members where group_id = $1", &id)?;
        for member in &group.members {
            execute!(tx, "insert into group_members (group_id, user_id) values ($1, $2)", &id, member.to_string())
                .map_err(|e| e.or_missing("a member"))?;
        }
        tx.commit().await
    }

    /// Removes a group; its grants are for the caller to take back.
    pub async fn remove_group(&self, id: GroupId) -> Result<(), Error> {
        let mut tx = self.begin().await?;
        tx.bump_rights().await?;
        execute!(tx, "delete from groups where id = $1", id.to_string())?;
        tx.commit().await
    }

    /// Every group of the directory, by name.
    pub async fn groups(&self) -> Result<Vec<DirectoryGroup>, Error> {
        let rows = read!(
            self,
            (String, String, Option<String>, i64),
            "select id, name, external_id, created_at from groups where source = 'directory' order by name"
        )?;
        let members = read!(self, (String, String), "select group_id, user_id from group_members")?;
        let mut all = Vec::with_capacity(rows.len());
        for (id, name, external_id, created_at) in rows {
            let own = members.iter().filter(|m| m.0 == id).map(|m| parse("group_members", "user_id", &m.1));
            all.push(DirectoryGroup {
                members: own.collect::<Result<_, _>>()?,
                id: parse("groups", "id", &id)?,
                name,
                external_id,
                created_at: from_micros(created_at),
            });
        }
        Ok(all)
    }

    /// Notes that a grant was given because of a group.
    pub async fn note_group_grant(&self, given: &DirectoryGrant) -> Result<(), Error> {
        let mut tx = self.begin().await?;
        execute!(
            tx,
            "insert into scim_grants (grant_id, group_id, user_id, what) values ($1, $2, $3, $4)",
            given.grant.to_string(),
            given.group.to_string(),
            given.user.to_string(),
            &given.what
        )?;
        tx.commit().await
    }

    /// Forgets why a grant was given, once it was taken back.
    pub async fn forget_group_grant(&self, grant: GrantId) -> Result<(), Error> {
        let mut tx = self.begin().await?;
        execute!(tx, "delete from scim_grants where grant_id = $1", grant.to_string())?;
        tx.commit().await
    }

    /// The grants that were given because of groups and not taken back.
    pub async fn group_grants(&self) -> Result<Vec<DirectoryGrant>, Error> {
        let rows = read!(
            self,
            (String, String, String, String),
            "select s.grant_id, s.group_id, s.user_id, s.what from scim_grants s join grants g on g.id = s.grant_id \
             where g.revoked_at is null order by s.grant_id"
        )?;
        rows.into_iter()
            .map(|(grant, group, user, what)| {
                Ok(DirectoryGrant {
                    grant: parse("scim_grants", "grant_id", &grant)?,
                    group: parse("scim_grants", "group_id", &group)?,
                    user: parse("scim_grants", "user_id", &user)?,
                    what,
                })
            })
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{NOON, on_both, person};
    use uuid::Uuid;

    #[tokio::test]
    async fn a_group_has_exactly_the_members_that_were_last_put_into_it() {
        on_both(async |b| {
            let store = b.open().await;
            let (ada, bob) = (person(&store, "ada").await, person(&store, "bob").await);
            let group = |n: u128, name: &str, members: &[UserId]| DirectoryGroup {
                id: GroupId::new(Uuid::from_u128(n)),
                name: name.into(),
                external_id: Some("x".into()),
                created_at: NOON,
                members: members.iter().copied().collect(),
            };
            store.put_group(&group(1, "ops", &[ada])).await.unwrap();
            store.put_group(&group(1, "operators", &[ada, bob])).await.unwrap();
            assert!(matches!(store.put_group(&group(2, "operators", &[])).await, Err(Error::Conflict(_))));
            let stranger = UserId::new(Uuid::from_u128(99));
            assert!(matches!(store.put_group(&group(3, "others", &[stranger])).await, Err(Error::NotFound(_))));
            assert_eq!(store.groups().await.unwrap(), [group(1, "operators", &[ada, bob])]);
            store.remove_group(group(1, "", &[]).id).await.unwrap();
            assert!(store.groups().await.unwrap().is_empty());
        })
        .await;
    }
}
