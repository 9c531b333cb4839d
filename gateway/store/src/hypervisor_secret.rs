// SPDX-License-Identifier: Apache-2.0
//! Secrets of hypervisors that were rotated, sealed, and when each secret was used last.

use crate::{
    Error, Store, from_micros,
    seal::{Keys, Place},
    tx::{execute, fetch, parse, read},
};
use portcullis_domain::{HypervisorName, Secret, micros};
use time::OffsetDateTime;

/// What the store knows of one secret.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HypervisorSecret {
    /// Whose.
    pub hypervisor: HypervisorName,
    /// Which of its credentials.
    pub credential: String,
    sealed: Option<Vec<u8>>,
    next: Option<Vec<u8>>,
    /// How often it was replaced.
    pub version: i64,
    /// Since when it is what it is, and by whom; none where it was never rotated, or is the configuration's again.
    pub made: Option<(OffsetDateTime, String)>,
    /// The last version that a running gateway took into use.
    pub taken_version: i64,
    /// When a gateway used the secret last, to a minute.
    pub used_at: Option<OffsetDateTime>,
}

#[derive(sqlx::FromRow)]
struct Row {
    hypervisor: String,
    credential: String,
    sealed: Option<Vec<u8>>,
    next: Option<Vec<u8>>,
    version: i64,
    made_at: Option<i64>,
    made_by: Option<String>,
    taken_version: i64,
    used_at: Option<i64>,
}

const T: &str = "hypervisor_secrets";

impl TryFrom<Row> for HypervisorSecret {
    type Error = Error;
    fn try_from(row: Row) -> Result<Self, Error> {
        Ok(Self {
            hypervisor: parse(T, "hypervisor", &row.hypervisor)?,
            credential: row.credential,
            sealed: row.sealed,
            next: row.next,
            version: row.version,
            made: row.made_at.map(|at| (from_micros(at), row.made_by.unwrap_or_default())),
            taken_version: row.taken_version,
            used_at: row.used_at.map(from_micros),
        })
    }
}

/// A name holds no slash, so no two secrets are sealed to one place.
fn row_of(hypervisor: &HypervisorName, credential: &str) -> String {
    format!("{hypervisor}/{credential}")
}

impl HypervisorSecret {
    /// The secret in use, if it was rotated. An error where it was sealed for another place or under other keys.
    pub fn open(&self, keys: &Keys) -> Result<Option<Secret>, Error> {
        self.open_column(keys, "sealed", self.sealed.as_deref())
    }

    /// One that a rotation was about to put in place and did not finish.
    pub fn open_next(&self, keys: &Keys) -> Result<Option<Secret>, Error> {
        self.open_column(keys, "next", self.next.as_deref())
    }

    fn open_column(&self, keys: &Keys, column: &str, sealed: Option<&[u8]>) -> Result<Option<Secret>, Error> {
        let row = row_of(&self.hypervisor, &self.credential);
        sealed.map(|sealed| keys.open(&Place { table: T, row: &row, column }, sealed)).transpose()
    }
}

impl Store {
    /// What is known of every secret.
    pub async fn hypervisor_secrets(&self) -> Result<Vec<HypervisorSecret>, Error> {
        let rows = read!(
            self,
            Row,
            "select hypervisor, credential, sealed, next, version, made_at, made_by, taken_version, used_at \
             from hypervisor_secrets order by hypervisor, credential"
        )?;
        rows.into_iter().map(HypervisorSecret::try_from).collect()
    }

    /// Keeps a secret that is about to be put in place; the one in use stays.
    pub async fn keep_next_secret(
        &self,
        keys: &Keys,
        hypervisor: &HypervisorName,
        credential: &str,
        secret: &Secret,
    ) -> Result<(), Error> {
        let row = row_of(hypervisor, credential);
        let sealed = keys.seal(&Place { table: T, row: &row, column: "next" }, secret)?;
        let mut tx = self.begin().await?;
        execute!(
            tx,
            "insert into hypervisor_secrets (hypervisor, credential, next, version, taken_version) \
             values ($1, $2, $3, 0, 0) on conflict (hypervisor, credential) do update set next = excluded.next",
            hypervisor.as_str(),
            credential,
            sealed
        )?;
        tx.commit().await
    }

    /// Forgets a secret that was about to be put in place, and was not.
    pub async fn drop_next_secret(&self, hypervisor: &HypervisorName, credential: &str) -> Result<(), Error> {
        let mut tx = self.begin().await?;
        execute!(
            tx,
            "update hypervisor_secrets set next = null where hypervisor = $1 and credential = $2",
            hypervisor.as_str(),
            credential
        )?;
        tx.commit().await
    }

    /// Puts a secret in place of the one in use; gives its version. What was kept for it is forgotten.
    pub async fn keep_secret(
        &self,
        keys: &Keys,
        hypervisor: &HypervisorName,
        credential: &str,
        secret: &Secret,
        (by, at): (&str, OffsetDateTime),
    ) -> Result<i64, Error> {
        let row = row_of(hypervisor, credential);
        let sealed = keys.seal(&Place { table: T, row: &row, column: "sealed" }, secret)?;
        let mut tx = self.begin().await?;
        let rows = fetch!(
            tx,
            (i64,),
            "insert into hypervisor_secrets (hypervisor, credential, sealed, version, made_at, made_by, taken_version) \
             values ($1, $2, $3, 1, $4, $5, 0) on conflict (hypervisor, credential) do update set \
             sealed = excluded.sealed, next = null, version = hypervisor_secrets.version + 1, \
             made_at = excluded.made_at, made_by = excluded.made_by returning version",
            hypervisor.as_str(),
            credential,
            sealed,
            micros(at),
            by
        )?;
        tx.commit().await?;
        Ok(rows.first().map_or(0, |(version,)| *version))
    }

    /// Goes back to what the configuration names; false where that was so already.
    pub async fn forget_secret(&self, hypervisor: &HypervisorName, credential: &str) -> Result<bool, Error> {
        let mut tx = self.begin().await?;
        let changed = execute!(
            tx,
            "update hypervisor_secrets set sealed = null, next = null, made_at = null, made_by = null, \
             version = version + 1 where hypervisor = $1 and credential = $2 and sealed is not null",
            hypervisor.as_str(),
            credential
        )?;
        tx.commit().await?;
        Ok(changed == 1)
    }

    /// A running gateway has taken a version into use.
    pub async fn secret_taken(&self, hypervisor: &HypervisorName, credential: &str, version: i64) -> Result<(), Error> {
        let mut tx = self.begin().await?;
        execute!(
            tx,
            "update hypervisor_secrets set taken_version = $3 \
             where hypervisor = $1 and credential = $2 and taken_version < $3",
            hypervisor.as_str(),
            credential,
            version
        )?;
        tx.commit().await
    }

    /// A gateway has used these.
    pub async fn secrets_used(&self, used: &[(&HypervisorName, &str)], at: OffsetDateTime) -> Result<(), Error> {
        let mut tx = self.begin().await?;
        for (hypervisor, credential) in used {
            execute!(
                tx,
                "insert into hypervisor_secrets (hypervisor, credential, version, taken_version, used_at) \
                 values ($1, $2, 0, 0, $3) on conflict (hypervisor, credential) do update set used_at = excluded.used_at",
                hypervisor.as_str(),
                *credential,
                micros(at)
            )?;
        }
        tx.commit().await
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{NOON, on_both};
    use time::Duration;

    fn text(secret: Option<Secret>) -> Option<String> {
        secret.and_then(|s| s.expose_text().map(str::to_owned))
    }

    #[tokio::test]
    async fn a_rotated_secret_is_sealed_to_its_row_and_the_one_that_was_begun_is_kept_beside_it() {
        on_both(async |b| {
            let (store, keys) = (b.open().await, Keys::for_tests());
            let (lab, pve): (HypervisorName, HypervisorName) = ("lab".parse().unwrap(), "pve".parse().unwrap());
            let secret = |text: &str| Secret::from(text.to_owned());
            store.keep_next_secret(&keys, &lab, "default", &secret("begun")).await.unwrap();
            let all = store.hypervisor_secrets().await.unwrap();
            assert_eq!((all.len(), all[0].version, all[0].made.clone()), (1, 0, None));
            assert_eq!(text(all[0].open(&keys).unwrap()), None, "it is not in use");
            assert_eq!(text(all[0].open_next(&keys).unwrap()).as_deref(), Some("begun"));
            assert_eq!(store.keep_secret(&keys, &lab, "default", &secret("one"), ("ada", NOON)).await.unwrap(), 1);
            let later = NOON + Duration::HOUR;
            assert_eq!(store.keep_secret(&keys, &lab, "default", &secret("two"), ("bob", later)).await.unwrap(), 2);
            store.keep_secret(&keys, &pve, "console", &secret("other"), ("bob", later)).await.unwrap();
            let all = store.hypervisor_secrets().await.unwrap();
            assert_eq!(text(all[0].open(&keys).unwrap()).as_deref(), Some("two"));
            assert_eq!(text(all[0].open_next(&keys).unwrap()), None, "what was begun is done");
            assert_eq!(all[0].made, Some((later, "bob".to_owned())));
            // Moved to another row, or read with other keys, it does not open.
            let mut moved = all[0].clone();
            moved.hypervisor = pve.clone();
            assert!(moved.open(&keys).is_err() && all[0].open(&Keys::for_tests()).is_err());
            moved = all[0].clone();
            moved.next = moved.sealed.clone();
            assert!(moved.open_next(&keys).is_err(), "nor in another column");
            let bytes = all[0].sealed.clone().unwrap();
            assert!(!bytes.windows(3).any(|w| w == b"two"), "it is sealed");
        })
        .await;
    }

    #[tokio::test]
    async fn what_was_taken_and_used_is_known_and_going_back_counts_as_a_version() {
        on_both(async |b| {
            let (store, keys) = (b.open().await, Keys::for_tests());
            let lab: HypervisorName = "lab".parse().unwrap();
            assert!(!store.forget_secret(&lab, "default").await.unwrap());
            store.secrets_used(&[(&lab, "default"), (&lab, "console")], NOON).await.unwrap();
            let version = store
                .keep_secret(&keys, &lab, "default", &Secret::from("one".to_owned()), ("ada", NOON))
                .await
                .unwrap();
            store.secret_taken(&lab, "default", version).await.unwrap();
            store.secret_taken(&lab, "default", version - 1).await.unwrap();
            let of = async |credential: &str| {
                let all = store.hypervisor_secrets().await.unwrap();
                all.into_iter().find(|s| s.credential == credential).unwrap()
            };
            assert_eq!((of("default").await.taken_version, of("default").await.used_at), (version, Some(NOON)));
            assert!(store.forget_secret(&lab, "default").await.unwrap());
            let back = of("default").await;
            assert_eq!((back.version, back.made.clone()), (version + 1, None));
            assert!(back.open(&keys).unwrap().is_none());
            assert_eq!(of("console").await.used_at, Some(NOON));
        })
        .await;
    }
}
