// SPDX-License-Identifier: Apache-2.0
//! What somebody has confirmed about a person, and until when it counts.

use crate::{
    Error, Store, from_micros,
    tx::{execute, from_word, parse, read, word},
};
use portcullis_domain::{UserId, micros};
use serde::{Deserialize, Serialize};
use time::OffsetDateTime;

/// What can be confirmed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Attested {
    /// The person did the training that consoles ask for.
    Training,
}

/// One confirmation; a newer one of the same kind takes its place.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Attestation {
    /// About whom.
    pub user: UserId,
    /// What.
    pub what: Attested,
    /// Since when.
    pub said_at: OffsetDateTime,
    /// First instant at which it no longer counts.
    pub until: OffsetDateTime,
    /// Who said so; none for the command line.
    pub said_by: Option<UserId>,
}

#[derive(sqlx::FromRow)]
struct Row {
    user_id: String,
    what: String,
    said_at: i64,
    until_at: i64,
    said_by: Option<String>,
}

const T: &str = "attestations";

impl TryFrom<Row> for Attestation {
    type Error = Error;
    fn try_from(row: Row) -> Result<Self, Error> {
        Ok(Self {
            user: parse(T, "user_id", &row.user_id)?,
            what: from_word(T, "what", row.what)?,
            said_at: from_micros(row.said_at),
            until: from_micros(row.until_at),
            said_by: row.said_by.map(|u| parse(T, "said_by", &u)).transpose()?,
        })
    }
}

impl Store {
    /// Writes a confirmation down; an earlier one of the same kind is replaced.
    pub async fn attest(&self, said: &Attestation) -> Result<(), Error> {
        let mut tx = self.begin().await?;
        execute!(
            tx,
            "insert into attestations (user_id, what, said_at, until_at, said_by) values ($1, $2, $3, $4, $5) \
             on conflict (user_id, what) do update set said_at = excluded.said_at, until_at = excluded.until_at, \
             said_by = excluded.said_by",
            said.user.to_string(),
            word(&said.what),
            micros(said.said_at),
            micros(said.until),
            said.said_by.map(|u| u.to_string())
        )
        .map_err(|e| e.or_missing("this person"))?;
        tx.bump().await?;
        tx.commit().await
    }

    /// The last confirmation of a kind about a person, over or not.
    pub async fn attestation(&self, user: UserId, what: Attested) -> Result<Option<Attestation>, Error> {
        let rows = read!(
            self,
            Row,
            "select user_id, what, said_at, until_at, said_by from attestations where user_id = $1 and what = $2",
            user.to_string(),
            word(&what)
        )?;
        rows.into_iter().next().map(Attestation::try_from).transpose()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{NOON, on_both, person};
    use time::Duration;

    #[tokio::test]
    async fn the_last_word_about_a_person_counts() {
        on_both(async |b| {
            let store = b.open().await;
            let (ada, bob) = (person(&store, "Ada").await, person(&store, "bob").await);
            let said = |days| Attestation {
                user: ada,
                what: Attested::Training,
                said_at: NOON,
                until: NOON + Duration::days(days),
                said_by: Some(bob),
            };
            assert_eq!(store.attestation(ada, Attested::Training).await.unwrap(), None);
            for days in [365, 30] {
                let before = store.epoch().await.unwrap();
                store.attest(&said(days)).await.unwrap();
                assert!(store.epoch().await.unwrap() > before);
                assert_eq!(store.attestation(ada, Attested::Training).await.unwrap(), Some(said(days)));
            }
            assert_eq!(store.attestation(bob, Attested::Training).await.unwrap(), None);
            assert!(store.attest(&said(0)).await.is_err(), "it ends before it begins");
        })
        .await;
    }
}
