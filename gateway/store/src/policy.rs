// SPDX-License-Identifier: Apache-2.0
//! Versions of the policy files. What a version changes happens with it, in one transaction, or not at all.

use crate::{
    Error, Store, from_micros, grant,
    tx::{execute, fetch, read},
};
use portcullis_domain::{Grant, GrantId, GroupId, Holder, UserId, micros};
use time::OffsetDateTime;

/// One set of policy files that was taken over.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PolicyVersion {
    /// 1, 2, 3 …; the newest is in effect.
    pub number: u32,
    /// The files as a JSON object of names and texts.
    pub files: String,
    /// SHA-256 of that, in hexadecimal.
    pub hash: String,
    /// When.
    pub applied_at: OffsetDateTime,
    /// Who, in words.
    pub applied_by: String,
    /// Why, in words; may be empty.
    pub why: String,
}

/// What changes with a version.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct PolicyChange {
    /// Grants that go.
    pub revoke: Vec<GrantId>,
    /// Grants that come.
    pub add: Vec<(Holder, Grant)>,
    /// Groups that are made, and how they are called.
    pub groups: Vec<(GroupId, String)>,
    /// Who comes into a group.
    pub join: Vec<(GroupId, UserId)>,
    /// Who goes.
    pub leave: Vec<(GroupId, UserId)>,
}

type Row = (i64, String, String, i64, String, String);

macro_rules! columns {
    () => {
        "number, files, hash, applied_at, applied_by, why"
    };
}

fn version((number, files, hash, applied_at, applied_by, why): Row) -> Result<PolicyVersion, Error> {
    let number = u32::try_from(number).map_err(|e| Error::corrupt("policy_versions", number, e))?;
    Ok(PolicyVersion { number, files, hash, applied_at: from_micros(applied_at), applied_by, why })
}

impl Store {
    /// Takes a version over with everything that it changes. [`Error::Conflict`] when another one has its number.
    pub async fn apply_policy(&self, new: &PolicyVersion, change: &PolicyChange) -> Result<(), Error> {
        let now = new.applied_at;
        let mut tx = self.begin().await?;
        tx.bump_rights().await?;
        execute!(
            tx,
            "insert into policy_versions (number, files, hash, applied_at, applied_by, why) \
             values ($1, $2, $3, $4, $5, $6)",
            i64::from(new.number),
            &new.files,
            &new.hash,
            micros(now),
            &new.applied_by,
            &new.why
        )
        .map_err(|e| e.or_conflict("this version of the policy"))?;
        for (id, name) in &change.groups {
            execute!(
                tx,
                "insert into groups (id, name, created_at, source, version) \
                 values ($1, $2, $3, 'local', (select value from epoch where only_row = 1))",
                id.to_string(),
                name,
                micros(now)
            )
            .map_err(|e| e.or_conflict("a group with this name"))?;
        }
        for (id, user) in &change.join {
            let sql = "insert into group_members (group_id, user_id) values ($1, $2) \
                       on conflict (group_id, user_id) do nothing";
            execute!(tx, sql, id.to_string(), user.to_string()).map_err(|e| e.or_missing("this person or group"))?;
        }
        for (id, user) in &change.leave {
            let sql = "delete from group_members where group_id = $1 and user_id = $2";
            execute!(tx, sql, id.to_string(), user.to_string())?;
        }
        for (id, _) in change.join.iter().chain(&change.leave) {
            let sql = "update groups set version = (select value from epoch where only_row = 1) where id = $1";
            execute!(tx, sql, id.to_string())?;
        }
        for id in &change.revoke {
            grant::revoke(&mut tx, *id, None, now).await?;
        }
        for (holder, new) in &change.add {
            grant::insert_grant(&mut tx, *holder, new, None, now).await?;
        }
        let newest = fetch!(tx, (i64,), "select max(number) from policy_versions")?;
        if newest.first().is_none_or(|n| n.0 != i64::from(new.number)) {
            return Err(Error::Conflict("a newer version of the policy"));
        }
        tx.commit().await
    }

    /// The version in effect; none where the policy that comes with the gateway is.
    pub async fn policy_version(&self) -> Result<Option<PolicyVersion>, Error> {
        let sql = concat!("select ", columns!(), " from policy_versions order by number desc limit 1");
        read!(self, Row, sql)?.into_iter().next().map(version).transpose()
    }

    /// The number of the version in effect; 0 where there is none. Cheap: asked each second.
    pub async fn policy_number(&self) -> Result<u32, Error> {
        let rows = read!(self, (i64,), "select number from policy_versions order by number desc limit 1")?;
        let number = rows.first().map_or(0, |n| n.0);
        u32::try_from(number).map_err(|e| Error::corrupt("policy_versions", number, e))
    }

    /// Every version, newest first.
    pub async fn policy_versions(&self) -> Result<Vec<PolicyVersion>, Error> {
        let sql = concat!("select ", columns!(), " from policy_versions order by number desc");
        read!(self, Row, sql)?.into_iter().map(version).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{NOON, grant, on_both, person};
    use uuid::Uuid;

    fn version(number: u32) -> PolicyVersion {
        let (files, hash) = ("{}".to_owned(), "0".repeat(64));
        PolicyVersion { number, files, hash, applied_at: NOON, applied_by: "a shell".into(), why: "because".into() }
    }

    #[tokio::test]
    async fn a_version_comes_with_all_that_it_changes_or_not_at_all() {
        on_both(async |b| {
            let store = b.open().await;
            let (ada, bob) = (person(&store, "ada").await, person(&store, "bob").await);
            let group = GroupId::new(Uuid::from_u128(7));
            assert_eq!((store.policy_version().await.unwrap(), store.policy_number().await.unwrap()), (None, 0));
            let change = PolicyChange {
                add: vec![(ada.into(), grant(1)), (group.into(), grant(2))],
                groups: vec![(group, "ops".into())],
                join: vec![(group, bob)],
                ..PolicyChange::default()
            };
            let before = store.epoch().await.unwrap();
            store.apply_policy(&version(1), &change).await.unwrap();
            assert!(store.epoch().await.unwrap() > before);
            assert_eq!(store.grants_of(bob).await.unwrap(), [grant(2)]);
            assert_eq!(store.policy_version().await.unwrap(), Some(version(1)));
            // The second grant stands there already: nothing of it happens.
            let wrong = PolicyChange {
                revoke: vec![grant(1).id],
                add: vec![(ada.into(), grant(2))],
                leave: vec![(group, bob)],
                ..PolicyChange::default()
            };
            let before = store.epoch().await.unwrap();
            assert!(store.apply_policy(&version(2), &wrong).await.is_err());
            assert_eq!(store.epoch().await.unwrap(), before);
            assert_eq!(
                (store.grants_of(ada).await.unwrap(), store.policy_number().await.unwrap()),
                (vec![grant(1)], 1)
            );
            assert_eq!(store.grants_of(bob).await.unwrap(), [grant(2)]);
            let taken = store.apply_policy(&version(1), &PolicyChange::default()).await;
            assert!(matches!(taken, Err(Error::Conflict(_))));
            let change =
                PolicyChange { revoke: vec![grant(1).id], leave: vec![(group, bob)], ..PolicyChange::default() };
            store.apply_policy(&version(2), &change).await.unwrap();
            assert_eq!((store.grants_of(ada).await.unwrap(), store.grants_of(bob).await.unwrap()), (vec![], vec![]));
            assert_eq!(store.policy_versions().await.unwrap(), [version(2), version(1)]);
        })
        .await;
    }
}
