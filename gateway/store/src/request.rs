// SPDX-License-Identifier: Apache-2.0
//! Access requests. Each step is one conditional statement: what comes too late changes nothing.
//!
//! ```text
//! asked ──approved (n of m)──▶ approved ──activated──▶ active ──its end──▶ over
//!   ├──refused, withdrawn, expired──┤                    └──given back, taken──▶ ended
//! ```

use crate::{
    Error, Store, from_micros,
    grant::{insert_grant, revoke},
    tx::{Tx, execute, fetch, from_word, parse, read, word},
};
use portcullis_domain::{AccessId, Grant, GrantId, RoleName, Selector, UserId, micros};
use serde::{Deserialize, Serialize};
use time::OffsetDateTime;

/// A wish for access.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewAccess {
    /// Its id.
    pub id: AccessId,
    /// Who asks.
    pub user: UserId,
    /// For which role.
    pub role: RoleName,
    /// On what.
    pub selector: Selector,
    /// Why: 1 to 512 characters.
    pub reason: String,
    /// For how many seconds.
    pub seconds: i64,
    /// When it should begin by itself; none: when whoever asked begins it.
    pub start: Option<OffsetDateTime>,
    /// First instant at which nobody can approve it any more.
    pub expires: OffsetDateTime,
}

/// How a request stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AccessState {
    /// It waits for approval until an instant.
    Asked(OffsetDateTime),
    /// It was approved and can begin until an instant.
    Approved(OffsetDateTime),
    /// Its grant counts until an instant.
    Active(GrantId, OffsetDateTime),
    /// Its grant ended by itself.
    Over(GrantId),
    /// Its grant was given back or taken.
    Ended(GrantId),
    /// It was refused.
    Refused,
    /// Whoever asked took it back.
    Withdrawn,
    /// Nobody decided, or began it, in time.
    Expired,
}

impl AccessState {
    /// The word shown to people.
    pub const fn word(self) -> &'static str {
        match self {
            Self::Asked(_) => "asked",
            Self::Approved(_) => "approved",
            Self::Active(..) => "active",
            Self::Over(_) => "over",
            Self::Ended(_) => "ended",
            Self::Refused => "refused",
            Self::Withdrawn => "withdrawn",
            Self::Expired => "expired",
        }
    }

    /// Whether anything can still come of it.
    pub const fn is_open(self) -> bool {
        matches!(self, Self::Asked(_) | Self::Approved(_) | Self::Active(..))
    }

    /// The grant that came of it.
    pub const fn grant(self) -> Option<GrantId> {
        match self {
            Self::Active(grant, _) | Self::Over(grant) | Self::Ended(grant) => Some(grant),
            Self::Asked(_) | Self::Approved(_) | Self::Refused | Self::Withdrawn | Self::Expired => None,
        }
    }
}

/// A request as it stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AccessRequest {
    /// Its id.
    pub id: AccessId,
    /// Who asked.
    pub user: UserId,
    /// For which role.
    pub role: RoleName,
    /// On what.
    pub selector: Selector,
    /// Why.
    pub reason: String,
    /// For how many seconds.
    pub seconds: i64,
    /// When it should begin by itself, if not by hand.
    pub start: Option<OffsetDateTime>,
    /// When it was asked.
    pub asked: OffsetDateTime,
    /// How it stands.
    pub state: AccessState,
    /// Since when it stands so.
    pub changed: OffsetDateTime,
}

/// What happened to a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum StepWhat {
    /// It was asked.
    Asked,
    /// Somebody approved it.
    Approved,
    /// Its grant began.
    Active,
    /// Its grant ended by itself.
    Over,
    /// Somebody refused it.
    Refused,
    /// Whoever asked took it back.
    Withdrawn,
    /// Its time to be approved or begun was over.
    Expired,
    /// Its grant was given back or taken.
    Ended,
}

/// One step in the history of a request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AccessStep {
    /// What happened.
    pub what: StepWhat,
    /// When.
    pub at: OffsetDateTime,
    /// Who did it; none: a rule, the clock, or a shell.
    pub by: Option<UserId>,
    /// The name of who did it.
    pub by_name: String,
    /// What they said: at most 512 characters.
    pub words: String,
}

/// What an approval comes to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Approval {
    /// How many people must approve.
    pub needed: i64,
    /// For how many seconds it is approved.
    pub seconds: i64,
    /// Until when it can begin, once approved.
    pub expires: OffsetDateTime,
}

/// What became of a step.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stepped {
    /// It was taken, and the request stands as the step says.
    Done,
    /// The approval counts, and more of them are needed: so many were given.
    Counted(i64),
    /// They approved it before.
    Again,
    /// It came too late: the request stands otherwise.
    Late,
}

#[derive(sqlx::FromRow)]
struct Row {
    id: String,
    user_id: String,
    role: String,
    selector_kind: String,
    selector_value: String,
    reason: String,
    seconds: i64,
    start_at: Option<i64>,
    asked_at: i64,
    expires_at: i64,
    state: String,
    changed_at: i64,
    grant_id: Option<String>,
    ends_at: Option<i64>,
}

macro_rules! columns {
    () => {
        "id, user_id, role, selector_kind, selector_value, reason, seconds, start_at, asked_at, expires_at, state, \
         changed_at, grant_id, ends_at"
    };
}

const T: &str = "requests";

impl TryFrom<Row> for AccessRequest {
    type Error = Error;
    fn try_from(row: Row) -> Result<Self, Error> {
        let grant = row.grant_id.as_deref().map(|g| parse(T, "grant_id", g)).transpose()?;
        let ends = row.ends_at.map(from_micros);
        let expires = from_micros(row.expires_at);
        let state = match (from_word::<StepWhat>(T, "state", row.state)?, grant, ends) {
            (StepWhat::Asked, None, _) => AccessState::Asked(expires),
            (StepWhat::Approved, None, _) => AccessState::Approved(expires),
            (StepWhat::Active, Some(grant), Some(ends)) => AccessState::Active(grant, ends),
            (StepWhat::Over, Some(grant), _) => AccessState::Over(grant),
            (StepWhat::Ended, Some(grant), _) => AccessState::Ended(grant),
            (StepWhat::Refused, None, _) => AccessState::Refused,
            (StepWhat::Withdrawn, None, _) => AccessState::Withdrawn,
            (StepWhat::Expired, None, _) => AccessState::Expired,
            _ => return Err(Error::corrupt(T, &row.id, "its state and its grant do not fit")),
        };
        Ok(Self {
            user: parse(T, "user_id", &row.user_id)?,
            role: parse(T, "role", &row.role)?,
            selector: Selector::parse(&row.selector_kind, &row.selector_value)
                .map_err(|e| Error::corrupt(T, &row.id, e))?,
            id: parse(T, "id", &row.id)?,
            reason: row.reason,
            seconds: row.seconds,
            start: row.start_at.map(from_micros),
            asked: from_micros(row.asked_at),
            state,
            changed: from_micros(row.changed_at),
        })
    }
}

async fn note(tx: &mut Tx, id: AccessId, step: &AccessStep) -> Result<(), Error> {
    execute!(
        *tx,
        "insert into request_steps (request_id, number, at, what, user_id, user_name, words) \
         values ($1, (select coalesce(max(number), 0) + 1 from request_steps where request_id = $1), \
         $2, $3, $4, $5, $6)",
        id.to_string(),
        micros(step.at),
        word(&step.what),
        step.by.map(|u| u.to_string()),
        &step.by_name,
        &step.words
    )
    .map(drop)
}

/// Moves a request on, from one of two states; false when it stands otherwise.
async fn move_on(tx: &mut Tx, id: AccessId, from: [StepWhat; 2], step: &AccessStep) -> Result<bool, Error> {
    let [one, other] = from;
    let moved = execute!(
        *tx,
        "update requests set state = $2, changed_at = $3 where id = $1 and state in ($4, $5)",
        id.to_string(),
        word(&step.what),
        micros(step.at),
        word(&one),
        word(&other)
    )?;
    if moved == 1 {
        note(tx, id, step).await?;
    }
    Ok(moved == 1)
}

impl Store {
    /// Adds a request, unless so many of the same person wait already, or one for the same is open.
    pub async fn add_access(&self, new: &NewAccess, step: &AccessStep, most: i64) -> Result<Stepped, Error> {
        let (kind, value) = new.selector.columns();
        let mut tx = self.begin().await?;
        // Takes the person's row first, so that several requests at once are counted one after the other.
        execute!(tx, "update users set kind = kind where id = $1", new.user.to_string())?;
        let stands = fetch!(
            tx,
            (i64, i64),
            "select (select count(*) from requests where user_id = $1 and state = 'asked'), \
             (select count(*) from requests where user_id = $1 and state in ('asked', 'approved', 'active') \
             and role = $2 and selector_kind = $3 and selector_value = $4)",
            new.user.to_string(),
            new.role.as_str(),
            kind,
            &value
        )?;
        if stands.first().is_some_and(|(waiting, same)| *waiting >= most || *same > 0) {
            return Ok(Stepped::Late);
        }
        execute!(
            tx,
            "insert into requests (id, user_id, role, selector_kind, selector_value, reason, seconds, start_at, asked_at, \
             expires_at, state, changed_at) values ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, 'asked', $9)",
            new.id.to_string(),
            new.user.to_string(),
            new.role.as_str(),
            kind,
            value,
            &new.reason,
            new.seconds,
            new.start.map(micros),
            micros(step.at),
            micros(new.expires)
        )
        .map_err(|e| e.or_conflict("this request").or_missing("this person"))?;
        note(&mut tx, new.id, step).await?;
        tx.commit().await?;
        Ok(Stepped::Done)
    }

    /// Counts somebody's approval. The request is approved with the last one that is needed, unless it was refused,
    /// withdrawn or expired before. `step.by` is none where a rule approves by itself: that is enough.
    pub async fn approve_access(&self, id: AccessId, step: &AccessStep, approval: Approval) -> Result<Stepped, Error> {
        let mut tx = self.begin().await?;
        // Takes the row first: whoever refuses at the same moment waits, and then refuses what was approved.
        let open = execute!(
            tx,
            "update requests set changed_at = changed_at where id = $1 and state = 'asked' and expires_at > $2",
            id.to_string(),
            micros(step.at)
        )?;
        if open == 0 {
            return Ok(Stepped::Late);
        }
        match note(&mut tx, id, step).await {
            Err(Error::Conflict(_)) => return Ok(Stepped::Again),
            other => other?,
        }
        let given = fetch!(
            tx,
            (i64,),
            "select count(*) from request_steps where request_id = $1 and what = 'approved'",
            id.to_string()
        )?;
        let given = given.first().map_or(0, |row| row.0);
        if step.by.is_some() && given < approval.needed {
            tx.commit().await?;
            return Ok(Stepped::Counted(given));
        }
        execute!(
            tx,
            "update requests set state = 'approved', changed_at = $2, seconds = $3, expires_at = $4 where id = $1",
            id.to_string(),
            micros(step.at),
            approval.seconds,
            micros(approval.expires)
        )?;
        tx.commit().await?;
        Ok(Stepped::Done)
    }

    /// Refuses, withdraws or expires a request that is asked or approved and has not begun.
    pub async fn close_access(&self, id: AccessId, step: &AccessStep) -> Result<Stepped, Error> {
        let mut tx = self.begin().await?;
        if !move_on(&mut tx, id, [StepWhat::Asked, StepWhat::Approved], step).await? {
            return Ok(Stepped::Late);
        }
        tx.commit().await?;
        Ok(Stepped::Done)
    }

    /// Begins an approved request: its grant is an ordinary one that names it.
    pub async fn begin_access(
        &self,
        id: AccessId,
        user: UserId,
        grant: &Grant,
        step: &AccessStep,
    ) -> Result<Stepped, Error> {
        let mut tx = self.begin().await?;
        let ends = grant.until.ok_or(Error::NotFound("the end of what a request gives"))?;
        let begun = execute!(
            tx,
            "update requests set state = 'active', changed_at = $2, grant_id = $3, ends_at = $4 \
             where id = $1 and state = 'approved' and expires_at > $2 and user_id = $5",
            id.to_string(),
            micros(step.at),
            grant.id.to_string(),
            micros(ends),
            user.to_string()
        )?;
        if begun == 0 {
            return Ok(Stepped::Late);
        }
        insert_grant(&mut tx, user.into(), grant, None, step.at).await?;
        execute!(tx, "update grants set request_id = $2 where id = $1", grant.id.to_string(), id.to_string())?;
        note(&mut tx, id, step).await?;
        tx.commit().await?;
        Ok(Stepped::Done)
    }

    /// Ends an active request: its grant is taken back with it, where that did not end by itself.
    pub async fn end_access(&self, id: AccessId, grant: GrantId, step: &AccessStep) -> Result<Stepped, Error> {
        let mut tx = self.begin().await?;
        if !move_on(&mut tx, id, [StepWhat::Active; 2], step).await? {
            return Ok(Stepped::Late);
        }
        if step.what == StepWhat::Ended {
            revoke(&mut tx, grant, step.by, step.at).await?;
        }
        tx.commit().await?;
        Ok(Stepped::Done)
    }

    /// Notes that whoever asked is told that their access ends soon; false when they were, or it is over.
    pub async fn warn_access(&self, id: AccessId, now: OffsetDateTime) -> Result<bool, Error> {
        let mut tx = self.begin().await?;
        let sql = "update requests set warned_at = $2 where id = $1 and state = 'active' and warned_at is null";
        let changed = execute!(tx, sql, id.to_string(), micros(now))?;
        tx.commit().await?;
        Ok(changed == 1)
    }

    /// One request.
    pub async fn access(&self, id: AccessId) -> Result<Option<AccessRequest>, Error> {
        let rows = read!(self, Row, concat!("select ", columns!(), " from requests where id = $1"), id.to_string())?;
        rows.into_iter().next().map(AccessRequest::try_from).transpose()
    }

    /// The newest requests, of one person or of all.
    pub async fn accesses(&self, user: Option<UserId>, most: u32) -> Result<Vec<AccessRequest>, Error> {
        let rows = read!(
            self,
            Row,
            concat!(
                "select ",
                columns!(),
                " from requests where ($1 = '' or user_id = $1) order by asked_at desc, id desc limit $2"
            ),
            user.map(|u| u.to_string()).unwrap_or_default(),
            i64::from(most)
        )?;
        rows.into_iter().map(AccessRequest::try_from).collect()
    }

    /// The requests of which something can still come, oldest first.
    pub async fn open_accesses(&self) -> Result<Vec<AccessRequest>, Error> {
        let rows = read!(
            self,
            Row,
            concat!(
                "select ",
                columns!(),
                " from requests where state in ('asked', 'approved', 'active') order by asked_at, id"
            )
        )?;
        rows.into_iter().map(AccessRequest::try_from).collect()
    }

    /// The history of a request, oldest first.
    pub async fn access_steps(&self, id: AccessId) -> Result<Vec<AccessStep>, Error> {
        let rows = read!(
            self,
            (String, i64, Option<String>, String, String),
            "select what, at, user_id, user_name, words from request_steps where request_id = $1 order by number",
            id.to_string()
        )?;
        rows.into_iter()
            .map(|(what, at, by, by_name, words)| {
                Ok(AccessStep {
                    what: from_word("request_steps", "what", what)?,
                    at: from_micros(at),
                    by: by.map(|u| parse("request_steps", "user_id", &u)).transpose()?,
                    by_name,
                    words,
                })
            })
            .collect()
    }

    /// The names of the groups that a person is in.
    pub async fn groups_of(&self, user: UserId) -> Result<Vec<String>, Error> {
        let rows = read!(
            self,
            (String,),
            "select g.name from groups g join group_members m on m.group_id = g.id where m.user_id = $1 order by g.name",
            user.to_string()
        )?;
        Ok(rows.into_iter().map(|row| row.0).collect())
    }
}

#[cfg(test)]
mod tests;
