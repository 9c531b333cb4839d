// SPDX-License-Identifier: Apache-2.0
//! Grants: who holds which role, on what, for how long.

use crate::{
    Error, Store, from_micros,
    tx::{Tx, execute, fetch, from_word, parse, read, word},
};
use portcullis_domain::{Grant, GrantChange, GrantId, GrantSource, GroupId, Holder, Selector, UserId, micros};
use std::collections::HashMap;
use time::OffsetDateTime;

/// A grant and whose it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Holding {
    /// Who holds it.
    pub holder: Holder,
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
    user_id: Option<String>,
    group_id: Option<String>,
    role: String,
    selector_kind: String,
    selector_value: String,
    effect: String,
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
        "id, user_id, group_id, role, selector_kind, selector_value, effect, from_at, until_at, conditions, source, created_by, created_at"
    };
}

const T: &str = "grants";

impl TryFrom<Row> for Holding {
    type Error = Error;
    fn try_from(row: Row) -> Result<Self, Error> {
        Ok(Self {
            holder: match (&row.user_id, &row.group_id) {
                (Some(user), None) => Holder::Person(parse(T, "user_id", user)?),
                (None, Some(group)) => Holder::Group(parse(T, "group_id", group)?),
                _ => return Err(Error::corrupt(T, &row.id, "it has no holder, or two")),
            },
            grant: Grant {
                role: parse(T, "role", &row.role)?,
                selector: Selector::parse(&row.selector_kind, &row.selector_value)
                    .map_err(|e| Error::corrupt(T, &row.id, e))?,
                effect: from_word(T, "effect", row.effect)?,
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

/// Writes a grant. Moves the epoch first: the row carries its new value.
pub(crate) async fn insert_grant(
    tx: &mut Tx,
    holder: Holder,
    grant: &Grant,
    by: Option<UserId>,
    now: OffsetDateTime,
) -> Result<(), Error> {
    let (kind, value) = grant.selector.columns();
    let conditions = serde_json::to_string(&grant.conditions).map_err(|e| Error::corrupt(T, grant.id, e))?;
    let (user, group) = match holder {
        Holder::Person(user) => (Some(user.to_string()), None),
        Holder::Group(group) => (None, Some(group.to_string())),
    };
    tx.bump_rights().await?;
    execute!(
        *tx,
        "insert into grants (id, user_id, group_id, role, selector_kind, selector_value, effect, from_at, until_at, \
         conditions, source, created_by, created_at, version) \
         values ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, (select value from epoch where only_row = 1))",
        grant.id.to_string(),
        user,
        group,
        grant.role.as_str(),
        kind,
        value,
        word(&grant.effect),
        micros(grant.from),
        grant.until.map(micros),
        conditions,
        word(&grant.source),
        by.map(|u| u.to_string()),
        micros(now)
    )
    .map(drop)
    .map_err(|e| e.or_conflict("this grant").or_missing("this person or group"))
}

/// Takes a grant back; false when it was not there or that was done before.
pub(crate) async fn revoke(tx: &mut Tx, id: GrantId, by: Option<UserId>, now: OffsetDateTime) -> Result<bool, Error> {
    tx.bump_rights().await?;
    let changed = execute!(
        *tx,
        "update grants set revoked_at = $2, revoked_by = $3, version = (select value from epoch where only_row = 1) \
         where id = $1 and revoked_at is null",
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

/// All that a person holds, by themselves and through groups, as the transaction sees it.
pub(crate) async fn grants_held(tx: &mut Tx, user: UserId) -> Result<Vec<Grant>, Error> {
    let rows = fetch!(
        *tx,
        Row,
        concat!(
            "select ",
            columns!(),
            " from grants where (user_id = $1 or group_id in (select group_id from group_members where user_id = $1)) \
             and revoked_at is null order by created_at, id"
        ),
        user.to_string()
    )?;
    rows.into_iter().map(|r| Holding::try_from(r).map(|h| h.grant)).collect()
}

/// Changes of who holds what.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GrantRows {
    /// What has changed, in no order that matters: each grant and each group stands in it at most once.
    pub changes: Vec<GrantChange>,
    /// What is wrong with the rows that could not be read: whoever they concern is shut out by a change.
    pub unread: Vec<String>,
    /// How many groups there are now: one that was deleted leaves no row that could have changed.
    pub groups: usize,
}

/// Whose a row is, if that can be told.
fn holder(user: Option<&str>, group: Option<&str>) -> Option<Holder> {
    match (user, group) {
        (Some(user), None) => user.parse().ok().map(Holder::Person),
        (None, Some(group)) => group.parse().ok().map(Holder::Group),
        _ => None,
    }
}

impl GrantRows {
    /// What stands in a row that cannot be read may be what forbids: whoever it concerns is shut out, not let off.
    fn shut(&mut self, error: &Error, holder: Option<Holder>) {
        self.unread.push(error.to_string());
        self.changes.push(holder.map_or(GrantChange::ShutAll, GrantChange::Shut));
    }
}

impl Store {
    /// Every grant and group that changed after the epoch had a value; with none, all that there are.
    pub async fn grant_changes(&self, since: Option<i64>) -> Result<GrantRows, Error> {
        let after = since.unwrap_or(-1);
        let live = read!(
            self,
            Row,
            concat!("select ", columns!(), " from grants where version > $1 and revoked_at is null"),
            after
        )?;
        let mut found = GrantRows { changes: Vec::with_capacity(live.len()), unread: Vec::new(), groups: 0 };
        for row in live {
            let whose = holder(row.user_id.as_deref(), row.group_id.as_deref());
            match Holding::try_from(row) {
                Ok(held) => found.changes.push(GrantChange::Put(held.holder, held.grant)),
                Err(error) => found.shut(&error, whose),
            }
        }
        if since.is_some() {
            let gone = read!(
                self,
                (String, Option<String>, Option<String>),
                "select id, user_id, group_id from grants where version > $1 and revoked_at is not null",
                after
            )?;
            for (id, user, group) in gone {
                let whose = holder(user.as_deref(), group.as_deref());
                match (parse(T, "id", &id), whose) {
                    (Ok(id), Some(whose)) => found.changes.push(GrantChange::Take(whose, id)),
                    (Err(error), _) => found.shut(&error, whose),
                    (Ok(_), None) => found.shut(&Error::corrupt(T, &id, "it has no holder, or two"), None),
                }
            }
        }
        let groups = read!(self, (String,), "select id from groups where version > $1", after)?;
        let rows = read!(
            self,
            (String, String),
            "select m.group_id, m.user_id from group_members m join groups g on g.id = m.group_id where g.version > $1",
            after
        )?;
        let mut members: HashMap<String, Vec<Result<UserId, Error>>> = HashMap::new();
        for (group, user) in rows {
            members.entry(group).or_default().push(parse("group_members", "user_id", &user));
        }
        for (id,) in groups {
            match parse::<GroupId>("groups", "id", &id) {
                Err(error) => found.shut(&error, None),
                Ok(group) => match members.remove(&id).unwrap_or_default().into_iter().collect() {
                    Ok(users) => found.changes.push(GrantChange::Members(group, users)),
                    Err(error) => found.shut(&error, Some(group.into())),
                },
            }
        }
        let count = read!(self, (i64,), "select count(*) from groups")?;
        found.groups = count.first().and_then(|c| usize::try_from(c.0).ok()).unwrap_or(0);
        Ok(found)
    }

    /// Who holds a role now or will, by themselves or through a group.
    pub async fn holders_of(&self, role: &str, now: OffsetDateTime) -> Result<Vec<UserId>, Error> {
        let rows = read!(
            self,
            (String,),
            "select user_id from grants where role = $1 and revoked_at is null and user_id is not null \
             and (until_at is null or until_at > $2) \
             union select m.user_id from grants g join group_members m on m.group_id = g.group_id \
             where g.role = $1 and g.revoked_at is null and (g.until_at is null or g.until_at > $2)",
            role,
            micros(now)
        )?;
        rows.iter().map(|(user,)| parse(T, "user_id", user)).collect()
    }

    /// Gives a person or a group a role. `by` is who did it.
    pub async fn add_grant(
        &self,
        holder: impl Into<Holder>,
        grant: &Grant,
        by: Option<UserId>,
        now: OffsetDateTime,
    ) -> Result<(), Error> {
        let mut tx = self.begin().await?;
        insert_grant(&mut tx, holder.into(), grant, by, now).await?;
        tx.commit().await
    }

    /// The same for several at once: all of them or none.
    pub async fn add_grants(
        &self,
        holder: impl Into<Holder>,
        grants: &[Grant],
        by: Option<UserId>,
        now: OffsetDateTime,
    ) -> Result<(), Error> {
        let holder = holder.into();
        let mut tx = self.begin().await?;
        for grant in grants {
            insert_grant(&mut tx, holder, grant, by, now).await?;
        }
        tx.commit().await
    }

    /// Takes a grant back; false when that was done before. [`Error::NotFound`] when there never was one.
    pub async fn revoke_grant(&self, id: GrantId, by: Option<UserId>, now: OffsetDateTime) -> Result<bool, Error> {
        let mut tx = self.begin().await?;
        if !revoke(&mut tx, id, by, now).await? {
            let known = fetch!(tx, (String,), "select id from grants where id = $1", id.to_string())?;
            return if known.is_empty() { Err(Error::NotFound("this grant")) } else { Ok(false) };
        }
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

    /// What people see as the name of a holder: a person's sign-in name, or the words `group` and its name.
    pub async fn holder_names(&self) -> Result<HashMap<Holder, String>, Error> {
        let people = read!(self, (String, String), "select id, name from users")?;
        let groups = read!(self, (String, String), "select id, name from groups")?;
        let person = |(id, name): (String, String)| Ok((Holder::Person(parse("users", "id", &id)?), name));
        let group =
            |(id, name): (String, String)| Ok((Holder::Group(parse("groups", "id", &id)?), format!("group {name}")));
        people.into_iter().map(person).chain(groups.into_iter().map(group)).collect()
    }

    /// The grants of a person and of the groups that they are in, without those that were taken back, oldest first.
    pub async fn grants_of(&self, user: UserId) -> Result<Vec<Grant>, Error> {
        let rows = read!(
            self,
            Row,
            concat!(
                "select ",
                columns!(),
                " from grants where (user_id = $1 or group_id in (select group_id from group_members where user_id = $1)) \
                 and revoked_at is null order by created_at, id"
            ),
            user.to_string()
        )?;
        rows.into_iter().map(|r| Holding::try_from(r).map(|h| h.grant)).collect()
    }

    /// The same for everybody at once: who holds what, by themselves or through a group.
    pub async fn grants_by_person(&self) -> Result<HashMap<UserId, Vec<Grant>>, Error> {
        let members = read!(self, (String, String), "select group_id, user_id from group_members")?;
        let mut groups: HashMap<GroupId, Vec<UserId>> = HashMap::new();
        for (group, user) in members {
            let (group, user) =
                (parse("group_members", "group_id", &group)?, parse("group_members", "user_id", &user)?);
            groups.entry(group).or_default().push(user);
        }
        let mut held: HashMap<UserId, Vec<Grant>> = HashMap::new();
        for Holding { holder, grant, .. } in self.grants().await? {
            match holder {
                Holder::Person(user) => held.entry(user).or_default().push(grant),
                Holder::Group(group) => {
                    for user in groups.get(&group).into_iter().flatten() {
                        held.entry(*user).or_default().push(grant.clone());
                    }
                }
            }
        }
        Ok(held)
    }
}

#[cfg(test)]
mod tests;
