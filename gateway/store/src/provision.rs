// SPDX-License-Identifier: Apache-2.0
//! Accounts that a directory keeps (SCIM, RFC 7643): made by it, and closed when somebody leaves.

use crate::{
    Error, NewUser, Store, User, UserKind, from_micros,
    tx::{execute, parse, read},
    user::insert_user,
};
use portcullis_domain::{MailAddress, UserId, micros};
use time::OffsetDateTime;

/// An account as its directory knows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Provisioned {
    /// The account.
    pub user: User,
    /// The directory's own id of it.
    pub external_id: Option<String>,
    /// Since when the directory has taken it out.
    pub left_at: Option<OffsetDateTime>,
    /// Where mail reaches them, where that is the directory's word.
    pub mail: Option<MailAddress>,
}

#[derive(sqlx::FromRow)]
struct Row {
    id: String,
    external_id: Option<String>,
    left_at: Option<i64>,
    address: Option<String>,
}

impl Store {
    /// Adds a person whom a directory keeps. [`Error::Conflict`] when the name is taken.
    pub async fn provision(&self, user: &NewUser, external_id: Option<&str>, now: OffsetDateTime) -> Result<(), Error> {
        let mut tx = self.begin().await?;
        insert_user(&mut tx, user, UserKind::Person, now).await?;
        execute!(
            tx,
            "update users set provisioned_at = $2, external_id = $3 where id = $1",
            user.id.to_string(),
            micros(now),
            external_id
        )?;
        tx.bump().await?;
        tx.commit().await
    }

    /// Everybody whom a directory keeps, by name.
    pub async fn provisioned(&self) -> Result<Vec<Provisioned>, Error> {
        let rows = read!(
            self,
            Row,
            "select u.id, u.external_id, u.left_at, m.address from users u \
             left join mail_addresses m on m.user_id = u.id and m.said_by = 'directory' \
             where u.provisioned_at is not null order by u.name_key"
        )?;
        let mut users: std::collections::HashMap<UserId, User> =
            self.users().await?.into_iter().map(|u| (u.id, u)).collect();
        let mut all = Vec::with_capacity(rows.len());
        for row in rows {
            let id: UserId = parse("users", "id", &row.id)?;
            if let Some(user) = users.remove(&id) {
                all.push(Provisioned {
                    user,
                    external_id: row.external_id,
                    left_at: row.left_at.map(from_micros),
                    mail: row.address.map(|text| parse("mail_addresses", "address", &text)).transpose()?,
                });
            }
        }
        Ok(all)
    }

    /// Writes down what a directory calls somebody whom it keeps.
    pub async fn describe_provisioned(
        &self,
        id: UserId,
        display_name: &str,
        external_id: Option<&str>,
    ) -> Result<(), Error> {
        let mut tx = self.begin().await?;
        let changed = execute!(
            tx,
            "update users set display_name = $2, external_id = $3 where id = $1 and provisioned_at is not null",
            id.to_string(),
            display_name,
            external_id
        )?;
        tx.commit().await?;
        if changed == 1 { Ok(()) } else { Err(Error::NotFound("this person")) }
    }

    /// Notes that a directory has taken somebody out, or back in with `None`. It closes nothing by itself.
    pub async fn set_left(&self, id: UserId, left_at: Option<OffsetDateTime>) -> Result<(), Error> {
        let mut tx = self.begin().await?;
        execute!(tx, "update users set left_at = $2 where id = $1", id.to_string(), left_at.map(micros))?;
        tx.commit().await
    }

    /// Lets go of somebody whom a directory no longer keeps: the account stays as it is, and is not the directory's.
    pub async fn unprovision(&self, id: UserId) -> Result<(), Error> {
        let mut tx = self.begin().await?;
        let sql = "update users set provisioned_at = null, external_id = null where id = $1";
        execute!(tx, sql, id.to_string())?;
        tx.commit().await
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{NOON, on_both, person};
    use uuid::Uuid;

    #[tokio::test]
    async fn a_directory_keeps_its_own_people_and_no_others() {
        on_both(async |b| {
            let store = b.open().await;
            let ada = person(&store, "ada").await;
            let id = UserId::new(Uuid::now_v7());
            let new = NewUser { id, name: "Bob".into(), name_key: "bob".into(), display_name: "Bob".into() };
            store.provision(&new, Some("x-1"), NOON).await.unwrap();
            assert!(matches!(store.provision(&new, None, NOON).await, Err(Error::Conflict(_))));
            let kept = store.provisioned().await.unwrap();
            assert_eq!((kept.len(), kept[0].user.id, kept[0].external_id.as_deref()), (1, id, Some("x-1")));
            store.describe_provisioned(id, "Robert", Some("x-2")).await.unwrap();
            assert!(matches!(store.describe_provisioned(ada, "x", None).await, Err(Error::NotFound(_))));
            store.set_left(id, Some(NOON)).await.unwrap();
            let bob = store.provisioned().await.unwrap().remove(0);
            assert_eq!((&*bob.user.display_name, bob.left_at), ("Robert", Some(NOON)));
            store.unprovision(id).await.unwrap();
            assert!(store.provisioned().await.unwrap().is_empty() && store.user(id).await.unwrap().is_some());
        })
        .await;
    }
}
