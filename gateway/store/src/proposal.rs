// SPDX-License-Identifier: Apache-2.0
//! Changes of rights that wait for a second person. The one who approves makes the change: what becomes of the proposal
//! is written in the same transaction, so that it is made once or not at all.
//!
//! ```text
//! waiting ──approved, with the change──▶ done
//!   └──refused, withdrawn, expired, void (it could no longer be made)
//! ```

use crate::{
    Error, Store, from_micros,
    tx::{Deed, execute, from_word, parse, read, word},
};
use portcullis_domain::{ProposalId, UserId, micros};
use serde::{Deserialize, Serialize};
use time::OffsetDateTime;

/// A change that is proposed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewProposal {
    /// Its id.
    pub id: ProposalId,
    /// The change, for whoever makes it.
    pub body: String,
    /// The change, for people.
    pub words: String,
    /// Why: at most 512 characters.
    pub why: String,
    /// Who proposes it; none: a shell.
    pub by: Option<UserId>,
    /// The name of who proposes it.
    pub by_name: String,
    /// First instant at which it no longer waits.
    pub expires: OffsetDateTime,
}

/// How a proposal stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ProposalState {
    /// Nobody decided on it yet.
    Waiting,
    /// It was approved and made.
    Done,
    /// Somebody refused it.
    Refused,
    /// Whoever proposed it took it back.
    Withdrawn,
    /// Nobody decided in time.
    Expired,
    /// It could no longer be made.
    Void,
}

impl ProposalState {
    /// The word shown to people.
    pub const fn word(self) -> &'static str {
        match self {
            Self::Waiting => "waiting",
            Self::Done => "done",
            Self::Refused => "refused",
            Self::Withdrawn => "withdrawn",
            Self::Expired => "expired",
            Self::Void => "no longer possible",
        }
    }
}

/// A proposal as it stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Proposal {
    /// What was proposed.
    pub new: NewProposal,
    /// When.
    pub proposed: OffsetDateTime,
    /// How it stands.
    pub state: ProposalState,
    /// Who decided, when somebody did.
    pub decided: Option<Ended>,
}

/// How a proposal came to its end.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ended {
    /// When.
    pub at: OffsetDateTime,
    /// By whom; none: the clock, or a shell.
    pub by: Option<UserId>,
    /// The name of who decided.
    pub by_name: String,
    /// What they said, or why it could not be made.
    pub said: String,
}

#[derive(sqlx::FromRow)]
struct Row {
    id: String,
    body: String,
    words: String,
    why: String,
    by_user: Option<String>,
    by_name: String,
    proposed_at: i64,
    expires_at: i64,
    state: String,
    decided_at: Option<i64>,
    decided_by: Option<String>,
    decided_name: Option<String>,
    said: Option<String>,
}

macro_rules! columns {
    () => {
        "id, body, words, why, by_user, by_name, proposed_at, expires_at, state, decided_at, decided_by, decided_name, said"
    };
}

const T: &str = "proposals";

impl TryFrom<Row> for Proposal {
    type Error = Error;
    fn try_from(row: Row) -> Result<Self, Error> {
        let user = |column, text: Option<String>| text.map(|u| parse(T, column, &u)).transpose();
        let decided = match row.decided_at {
            Some(at) => Some(Ended {
                at: from_micros(at),
                by: user("decided_by", row.decided_by)?,
                by_name: row.decided_name.unwrap_or_default(),
                said: row.said.unwrap_or_default(),
            }),
            None => None,
        };
        Ok(Self {
            new: NewProposal {
                id: parse(T, "id", &row.id)?,
                body: row.body,
                words: row.words,
                why: row.why,
                by: user("by_user", row.by_user)?,
                by_name: row.by_name,
                expires: from_micros(row.expires_at),
            },
            proposed: from_micros(row.proposed_at),
            state: from_word(T, "state", row.state)?,
            decided,
        })
    }
}

impl Store {
    /// Keeps a proposal.
    pub async fn add_proposal(&self, new: &NewProposal, now: OffsetDateTime) -> Result<(), Error> {
        let mut tx = self.begin().await?;
        execute!(
            tx,
            "insert into proposals (id, body, words, why, by_user, by_name, proposed_at, expires_at, state) \
             values ($1, $2, $3, $4, $5, $6, $7, $8, 'waiting')",
            new.id.to_string(),
            &new.body,
            &new.words,
            &new.why,
            new.by.map(|u| u.to_string()),
            &new.by_name,
            micros(now),
            micros(new.expires)
        )
        .map_err(|e| e.or_conflict("this proposal"))?;
        tx.commit().await
    }

    /// One proposal.
    pub async fn proposal(&self, id: ProposalId) -> Result<Option<Proposal>, Error> {
        let sql = concat!("select ", columns!(), " from proposals where id = $1");
        read!(self, Row, sql, id.to_string())?.into_iter().next().map(Proposal::try_from).transpose()
    }

    /// The newest proposals, those that wait first.
    pub async fn proposals(&self, most: u32) -> Result<Vec<Proposal>, Error> {
        let sql = concat!(
            "select ",
            columns!(),
            " from proposals order by case when state = 'waiting' then 0 else 1 end, proposed_at desc, id limit $1"
        );
        read!(self, Row, sql, i64::from(most))?.into_iter().map(Proposal::try_from).collect()
    }

    /// Those that wait, oldest first.
    pub async fn waiting_proposals(&self) -> Result<Vec<Proposal>, Error> {
        let sql = concat!("select ", columns!(), " from proposals where state = 'waiting' order by proposed_at, id");
        read!(self, Row, sql)?.into_iter().map(Proposal::try_from).collect()
    }

    /// Ends a proposal that waits, without its change; false when it does not wait any more.
    pub async fn end_proposal(&self, id: ProposalId, state: ProposalState, end: &Ended) -> Result<bool, Error> {
        let mut tx = self.begin().await?;
        let changed = execute!(
            tx,
            "update proposals set state = $2, decided_at = $3, decided_by = $4, decided_name = $5, said = $6 \
             where id = $1 and state = 'waiting'",
            id.to_string(),
            word(&state),
            micros(end.at),
            end.by.map(|u| u.to_string()),
            &end.by_name,
            &end.said
        )?;
        tx.commit().await?;
        Ok(changed == 1)
    }

    /// Does a change of rights that a proposal asks for: the first transaction in it that moves the epoch also ends the
    /// proposal, and fails with [`Error::NotFound`] when it does not wait any more.
    pub async fn carrying_out<T>(&self, id: ProposalId, end: Ended, change: impl Future<Output = T>) -> T {
        Deed { id, end }.scope(change).await
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{NOON, grant, on_both, person};
    use portcullis_domain::Holder;
    use time::Duration;
    use uuid::Uuid;

    fn new(n: u128, by: Option<UserId>) -> NewProposal {
        NewProposal {
            id: ProposalId::new(Uuid::from_u128(n)),
            body: "{}".into(),
            words: "operator on tag prod".into(),
            why: "it burns".into(),
            by,
            by_name: "ada".into(),
            expires: NOON + Duration::HOUR,
        }
    }

    #[tokio::test]
    async fn a_change_and_the_end_of_its_proposal_are_written_together_once() {
        on_both(async |b| {
            let store = b.open().await;
            let (ada, bob) = (person(&store, "ada").await, person(&store, "bob").await);
            let one = new(1, Some(ada));
            store.add_proposal(&one, NOON).await.unwrap();
            assert!(matches!(store.add_proposal(&one, NOON).await, Err(Error::Conflict(_))));
            let end =
                |by| Ended { at: NOON + Duration::MINUTE, by: Some(by), by_name: "bob".into(), said: "yes".into() };
            let give = async |n| store.add_grants(Holder::Person(bob), &[grant(n)], Some(bob), NOON).await;
            // The same person twice is refused by the database itself, with the change.
            let by_oneself = Box::pin(store.carrying_out(one.id, end(ada), give(1)));
            assert!(by_oneself.await.is_err());
            assert_eq!(store.grants_of(bob).await.unwrap(), []);
            assert_eq!(store.proposal(one.id).await.unwrap().unwrap().state, ProposalState::Waiting);
            // A change that fails leaves it waiting.
            let twice = vec![grant(2), grant(2)];
            let failing = store.add_grants(Holder::Person(bob), &twice, Some(bob), NOON);
            assert!(Box::pin(store.carrying_out(one.id, end(bob), failing)).await.is_err());
            assert_eq!(store.waiting_proposals().await.unwrap().len(), 1);
            Box::pin(store.carrying_out(one.id, end(bob), give(3))).await.unwrap();
            assert_eq!(store.grants_of(bob).await.unwrap(), [grant(3)]);
            let told = store.proposal(one.id).await.unwrap().unwrap();
            assert_eq!((told.state, told.decided, told.new), (ProposalState::Done, Some(end(bob)), one.clone()));
            let again = Box::pin(store.carrying_out(one.id, end(bob), give(4))).await;
            assert!(matches!(again, Err(Error::NotFound(_))), "{again:?}");
            assert_eq!(store.grants_of(bob).await.unwrap(), [grant(3)]);
            // Without its change it ends once, too; and one that is over is not made.
            let late = NewProposal { expires: NOON + Duration::SECOND, ..new(2, None) };
            store.add_proposal(&late, NOON).await.unwrap();
            assert!(Box::pin(store.carrying_out(late.id, end(bob), give(5))).await.is_err());
            assert!(store.end_proposal(late.id, ProposalState::Expired, &end(bob)).await.unwrap());
            assert!(!store.end_proposal(late.id, ProposalState::Refused, &end(bob)).await.unwrap());
            let states: Vec<_> = store.proposals(5).await.unwrap().iter().map(|p| p.state).collect();
            assert_eq!(states.len(), 2);
            assert!(store.waiting_proposals().await.unwrap().is_empty());
        })
        .await;
    }
}
