// SPDX-License-Identifier: Apache-2.0
//! Grants: who holds which role, on what, for how long.

use crate::{
    Error, Store, from_micros,
    tx::{Tx, execute, fetch, from_word, parse, read, word},
};
use portcullis_domain::{Grant, GrantId, GrantSource, Selector, UserId, micros};
use time::OffsetDateTime;

/// A grant and whose it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Holding {
    /// Who holds it.
    pub user: UserId,
    /// What they hold.
    pub grant: Grant,
    /// Who made it, if that was a person.
    pub created_by: Option<UserId>,
    /// When it was made.
    pub created_at: OffsetDateTime,
}

#[derive(sqlx::FromRow)]
struct Row {
    id: String,
    user_id: String,
    role: String,
    selector_kind: String,
    selector_value: String,
    from_at: i64,
    until_at: Option<i64>,
    conditions: String,
    source: String,
    created_by: Option<String>,
    created_at: i64,
}

// Columns by name: with `*`, a column that a newer node adds breaks PostgreSQL's prepared statements on the older ones.
macro_rules! columns {
    () => {
        "id, user_id, role, selector_kind, selector_value, from_at, until_at, conditions, source, created_by, created_at"
    };
}

const T: &str = "grants";

impl TryFrom<Row> for Holding {
    type Error = Error;
    fn try_from(row: Row) -> Result<Self, Error> {
        Ok(Self {
            user: parse(T, "user_id", &row.user_id)?,
            grant: Grant {
                role: parse(T, "role", &row.role)?,
                selector: Selector::parse(&row.selector_kind, &row.selector_value)
                    .map_err(|e| Error::corrupt(T, &row.id, e))?,
                from: from_micros(row.from_at),
                until: row.until_at.map(from_micros),
                conditions: serde_json::from_str(&row.conditions).map_err(|e| Error::corrupt(T, &row.id, e))?,
                source: from_word(T, "source", row.source)?,
                id: parse(T, "id", &row.id)?,
            },
            created_by: row.created_by.map(|u| parse(T, "created_by", &u)).transpose()?,
            created_at: from_micros(row.created_at),
        })
    }
}

pub(crate) async fn insert_grant(
    tx: &mut Tx,
    user: UserId,
    grant: &Grant,
    by: Option<UserId>,
    now: OffsetDateTime,
) -> Result<(), Error> {
    let (kind, value) = grant.selector.columns();
    let conditions = serde_json::to_string(&grant.conditions).map_err(|e| Error::corrupt(T, grant.id, e))?;
    execute!(
        *tx,
        "insert into grants (id, user_id, role, selector_kind, selector_value, from_at, until_at, conditions, source, \
         created_by, created_at) values ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11)",
        grant.id.to_string(),
        user.to_string(),
        grant.role.as_str(),
        kind,
        value,
        micros(grant.from),
        grant.until.map(micros),
        conditions,
        word(&grant.source),
        by.map(|u| u.to_string()),
        micros(now)
    )
    .map(drop)
    .map_err(|e| e.or_conflict("this grant").or_missing("this person"))
}

/// Takes a grant back; false when it was not there or that was done before.
pub(crate) async fn revoke(tx: &mut Tx, id: GrantId, by: Option<UserId>, now: OffsetDateTime) -> Result<bool, Error> {
    let changed = execute!(
        *tx,
        "update grants set revoked_at = $2, revoked_by = $3 where id = $1 and revoked_at is null",
        id.to_string(),
        micros(now),
        by.map(|u| u.to_string())
    )?;
    Ok(changed == 1)
}

/// What a person holds from one source, as the transaction sees it.
pub(crate) async fn grants_from(tx: &mut Tx, user: UserId, source: GrantSource) -> Result<Vec<Grant>, Error> {
    let rows = fetch!(
        *tx,
        Row,
        concat!(
            "select ",
            columns!(),
            " from grants where user_id = $1 and source = $2 and revoked_at is null order by created_at, id"
        ),
        user.to_string(),
        word(&source)
    )?;
    rows.into_iter().map(|r| Holding::try_from(r).map(|h| h.grant)).collect()
}

impl Store {
    /// Gives a person a role. `by` is who did it.
    pub async fn add_grant(
        &self,
        user: UserId,
        grant: &Grant,
        by: Option<UserId>,
        now: OffsetDateTime,
    ) -> Result<(), Error> {
        let mut tx = self.begin().await?;
        insert_grant(&mut tx, user, grant, by, now).await?;
        tx.bump().await?;
        tx.commit().await
    }

    /// Takes a grant back; false when that was done before. [`Error::NotFound`] when there never was one.
    pub async fn revoke_grant(&self, id: GrantId, by: Option<UserId>, now: OffsetDateTime) -> Result<bool, Error> {
        let mut tx = self.begin().await?;
        if !revoke(&mut tx, id, by, now).await? {
            let known = fetch!(tx, (String,), "select id from grants where id = $1", id.to_string())?;
            return if known.is_empty() { Err(Error::NotFound("this grant")) } else { Ok(false) };
        }
        tx.bump().await?;
        tx.commit().await?;
        Ok(true)
    }

    /// Every grant that was not taken back, those that are over or yet to begin among them, oldest first.
    pub async fn grants(&self) -> Result<Vec<Holding>, Error> {
        let rows = read!(
            self,
            Row,
            concat!("select ", columns!(), " from grants where revoked_at is null order by created_at, id")
        )?;
        rows.into_iter().map(Holding::try_from).collect()
    }

    /// The grants of a person that were not taken back, oldest first.
    pub async fn grants_of(&self, user: UserId) -> Result<Vec<Grant>, Error> {
        let rows = read!(
            self,
            Row,
            concat!(
                "select ",
                columns!(),
                " from grants where user_id = $1 and revoked_at is null order by created_at, id"
            ),
            user.to_string()
        )?;
        rows.into_iter().map(|r| Holding::try_from(r).map(|h| h.grant)).collect()
    }
}

#[cfg(test)]
mod tests;
