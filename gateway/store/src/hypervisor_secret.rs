// SPDX-License-Identifier: Apache-2.0
//! Secrets of hypervisors that were rotated, sealed, and when each secret was used last.
//!
//! ```text
//! claim --keep_next--> next is kept --keep--> sealed is in use, former is the one before --drop_former--> release
//!   |                       '--fence--> nothing more is put in use under this claim: what the row says now holds
//!   '--its end is over--> somebody else's
//! ```
//!
//! Only who holds a claim changes a secret: each change is one statement on the condition that the claim is still there, so
//! the database decides, whatever clocks say. The end of a claim only says when somebody else may have it.
//!
//! A secret is sealed to its hypervisor's name and, where that was added, to the adding: whoever still works with one adding
//! makes nothing that another one of the same name shows, and shows nothing that was made for another.

use crate::{
    Error, Store, from_micros,
    seal::{Keys, Place},
    tx::{execute, fetch, parse, read},
};
use portcullis_domain::{HypervisorName, Secret, micros};
use time::OffsetDateTime;
use uuid::Uuid;

/// What the store knows of one secret.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HypervisorSecret {
    /// Whose.
    pub hypervisor: HypervisorName,
    /// Which of its credentials.
    pub credential: String,
    sealed: Option<Vec<u8>>,
    next: Option<Vec<u8>>,
    former: Option<Vec<u8>>,
    /// How often it was replaced.
    pub version: i64,
    /// Since when it is what it is, and by whom; none where it was never rotated, or is the configuration's again.
    pub made: Option<(OffsetDateTime, String)>,
    /// When a gateway used the secret last, to a minute.
    pub used_at: Option<OffsetDateTime>,
    /// Who is changing it, or was when they broke off.
    pub claimant: Option<Claimant>,
}

/// Who changes a secret now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Claimant {
    /// Their name, for people.
    pub by: String,
    /// Since when.
    pub since: OffsetDateTime,
    /// When somebody else may.
    pub until: OffsetDateTime,
}

/// The right to change one secret, until somebody else has it.
#[derive(Debug)]
pub struct Claim {
    hypervisor: HypervisorName,
    credential: String,
    /// Which adding the hypervisor is, if it was added.
    adding: Option<Uuid>,
    id: String,
    /// What the claim is called when it is fenced: nothing is put in use under that name.
    fenced: String,
}

/// What came of asking for a claim.
#[derive(Debug)]
pub enum Claimed {
    /// It is ours.
    Ours(Claim),
    /// Somebody else changes the secret.
    By(Claimant),
}

#[derive(sqlx::FromRow)]
struct Row {
    hypervisor: String,
    credential: String,
    sealed: Option<Vec<u8>>,
    next: Option<Vec<u8>>,
    former: Option<Vec<u8>>,
    version: i64,
    made_at: Option<i64>,
    made_by: Option<String>,
    used_at: Option<i64>,
    claimed_by: Option<String>,
    claimed_at: Option<i64>,
    claim_ends_at: Option<i64>,
}

const T: &str = "hypervisor_secrets";

/// What somebody reads whose claim is gone.
const LOST: Error = Error::NotFound("the claim of this rotation");

impl TryFrom<Row> for HypervisorSecret {
    type Error = Error;
    fn try_from(row: Row) -> Result<Self, Error> {
        let claimant = match (row.claimed_by, row.claimed_at, row.claim_ends_at) {
            (Some(by), Some(since), Some(until)) => {
                Some(Claimant { by, since: from_micros(since), until: from_micros(until) })
            }
            _ => None,
        };
        Ok(Self {
            hypervisor: parse(T, "hypervisor", &row.hypervisor)?,
            credential: row.credential,
            sealed: row.sealed,
            next: row.next,
            former: row.former,
            version: row.version,
            made: row.made_at.map(|at| (from_micros(at), row.made_by.unwrap_or_default())),
            used_at: row.used_at.map(from_micros),
            claimant,
        })
    }
}

/// A name holds neither slash nor colon, so no two secrets are sealed to one place.
fn row_of(hypervisor: &HypervisorName, adding: Option<Uuid>, credential: &str) -> String {
    let adding = adding.map(|id| format!(":{}", id.simple())).unwrap_or_default();
    format!("{hypervisor}{adding}/{credential}")
}

impl HypervisorSecret {
    /// The secret in use, if it was rotated. An error where it was sealed for another place, for another adding of that name
    /// or under other keys.
    pub fn open(&self, keys: &Keys, adding: Option<Uuid>) -> Result<Option<Secret>, Error> {
        self.open_column(keys, adding, "sealed", self.sealed.as_deref())
    }

    /// One that a rotation was about to put in place and did not finish.
    pub fn open_next(&self, keys: &Keys, adding: Option<Uuid>) -> Result<Option<Secret>, Error> {
        self.open_column(keys, adding, "next", self.next.as_deref())
    }

    /// The one before, which counts at the hypervisor until it is taken away there.
    pub fn open_former(&self, keys: &Keys, adding: Option<Uuid>) -> Result<Option<Secret>, Error> {
        self.open_column(keys, adding, "former", self.former.as_deref())
    }

    /// Whether the one before may count at the hypervisor still.
    pub const fn has_former(&self) -> bool {
        self.former.is_some()
    }

    /// Whether a rotation did not finish.
    pub const fn has_next(&self) -> bool {
        self.next.is_some()
    }

    fn open_column(
        &self,
        keys: &Keys,
        adding: Option<Uuid>,
        column: &str,
        sealed: Option<&[u8]>,
    ) -> Result<Option<Secret>, Error> {
        let row = row_of(&self.hypervisor, adding, &self.credential);
        sealed.map(|sealed| keys.open(&Place { table: T, row: &row, column }, sealed)).transpose()
    }
}

impl Claim {
    fn seal(&self, keys: &Keys, column: &str, secret: &Secret) -> Result<Vec<u8>, Error> {
        let row = row_of(&self.hypervisor, self.adding, &self.credential);
        keys.seal(&Place { table: T, row: &row, column }, secret)
    }
}

impl Store {
    /// What is known of every secret.
    pub async fn hypervisor_secrets(&self) -> Result<Vec<HypervisorSecret>, Error> {
        let rows = read!(
            self,
            Row,
            "select hypervisor, credential, sealed, next, former, version, made_at, made_by, used_at, \
             claimed_by, claimed_at, claim_ends_at from hypervisor_secrets order by hypervisor, credential"
        )?;
        rows.into_iter().map(HypervisorSecret::try_from).collect()
    }

    /// What is known of one secret; none where nothing is.
    pub async fn hypervisor_secret(
        &self,
        hypervisor: &HypervisorName,
        credential: &str,
    ) -> Result<Option<HypervisorSecret>, Error> {
        let all = self.hypervisor_secrets().await?;
        Ok(all.into_iter().find(|row| row.hypervisor == *hypervisor && row.credential == credential))
    }

    /// Asks for the right to change a secret until a time; the end is moved by [`Store::renew_claim`]. Who had it and let
    /// its end go by has it no more.
    pub async fn claim_secret(
        &self,
        (hypervisor, adding): (&HypervisorName, Option<Uuid>),
        credential: &str,
        by: &str,
        (now, until): (OffsetDateTime, OffsetDateTime),
    ) -> Result<Claimed, Error> {
        let [id, fenced] = [0; 2].map(|_| Uuid::new_v4().simple().to_string());
        let claim = Claim { hypervisor: hypervisor.clone(), credential: credential.to_owned(), adding, id, fenced };
        // Who held it may let it go between the two statements.
        for _ in 0..3 {
            let mut tx = self.begin().await?;
            let changed = execute!(
                tx,
                "insert into hypervisor_secrets \
                 (hypervisor, credential, version, taken_version, claim, claimed_by, claimed_at, claim_ends_at) \
                 values ($1, $2, 0, 0, $3, $4, $5, $6) on conflict (hypervisor, credential) do update set \
                 claim = excluded.claim, claimed_by = excluded.claimed_by, claimed_at = excluded.claimed_at, \
                 claim_ends_at = excluded.claim_ends_at \
                 where hypervisor_secrets.claim is null or hypervisor_secrets.claim_ends_at <= $5",
                hypervisor.as_str(),
                credential,
                &claim.id,
                by,
                micros(now),
                micros(until)
            )?;
            tx.commit().await?;
            if changed == 1 {
                return Ok(Claimed::Ours(claim));
            }
            let row = self.hypervisor_secret(hypervisor, credential).await?;
            if let Some(claimant) = row.and_then(|row| row.claimant) {
                return Ok(Claimed::By(claimant));
            }
        }
        Err(Error::Overtaken)
    }

    /// Moves the end of a claim; false where it is somebody else's by now.
    pub async fn renew_claim(&self, claim: &Claim, until: OffsetDateTime) -> Result<bool, Error> {
        let mut tx = self.begin().await?;
        let changed = execute!(
            tx,
            "update hypervisor_secrets set claim_ends_at = $5 \
             where hypervisor = $1 and credential = $2 and claim in ($3, $4)",
            claim.hypervisor.as_str(),
            &claim.credential,
            &claim.id,
            &claim.fenced,
            micros(until)
        )?;
        tx.commit().await?;
        Ok(changed == 1)
    }

    /// Says what holds after a change whose outcome is not known: from here on nothing is put in use under this claim, not
    /// even by a statement that is still on its way. None where the claim is somebody else's: what holds is theirs to say.
    pub async fn fence_claim(&self, claim: &Claim) -> Result<Option<HypervisorSecret>, Error> {
        let mut tx = self.begin().await?;
        let rows = fetch!(
            tx,
            Row,
            "update hypervisor_secrets set claim = $4 where hypervisor = $1 and credential = $2 and claim in ($3, $4) \
             returning hypervisor, credential, sealed, next, former, version, made_at, made_by, used_at, \
             claimed_by, claimed_at, claim_ends_at",
            claim.hypervisor.as_str(),
            &claim.credential,
            &claim.id,
            &claim.fenced
        )?;
        tx.commit().await?;
        rows.into_iter().next().map(HypervisorSecret::try_from).transpose()
    }

    /// Lets somebody else have it.
    pub async fn release_claim(&self, claim: Claim) -> Result<(), Error> {
        let mut tx = self.begin().await?;
        execute!(
            tx,
            "update hypervisor_secrets set claim = null, claimed_by = null, claimed_at = null, claim_ends_at = null \
             where hypervisor = $1 and credential = $2 and claim in ($3, $4)",
            claim.hypervisor.as_str(),
            &claim.credential,
            &claim.id,
            &claim.fenced
        )?;
        tx.commit().await
    }

    /// Keeps a secret that is about to be put in place; the one in use stays.
    pub async fn keep_next_secret(&self, keys: &Keys, claim: &Claim, secret: &Secret) -> Result<(), Error> {
        let sealed = claim.seal(keys, "next", secret)?;
        let mut tx = self.begin().await?;
        let changed = execute!(
            tx,
            "update hypervisor_secrets set next = $4 where hypervisor = $1 and credential = $2 and claim = $3",
            claim.hypervisor.as_str(),
            &claim.credential,
            &claim.id,
            sealed
        )?;
        tx.commit().await?;
        if changed == 1 { Ok(()) } else { Err(LOST) }
    }

    /// Forgets a secret that was about to be put in place, and was not.
    pub async fn drop_next_secret(&self, claim: &Claim) -> Result<(), Error> {
        let mut tx = self.begin().await?;
        let changed = execute!(
            tx,
            "update hypervisor_secrets set next = null \
             where hypervisor = $1 and credential = $2 and claim in ($3, $4)",
            claim.hypervisor.as_str(),
            &claim.credential,
            &claim.id,
            &claim.fenced
        )?;
        tx.commit().await?;
        if changed == 1 { Ok(()) } else { Err(LOST) }
    }

    /// Puts a secret in place of the one in use; gives its version. What was kept for it is forgotten; `former` is the one
    /// before, where it counts at the hypervisor until it is taken away there.
    pub async fn keep_secret(
        &self,
        keys: &Keys,
        claim: &Claim,
        secret: &Secret,
        former: Option<&Secret>,
        (by, at): (&str, OffsetDateTime),
    ) -> Result<i64, Error> {
        let sealed = claim.seal(keys, "sealed", secret)?;
        let former = former.map(|former| claim.seal(keys, "former", former)).transpose()?;
        let mut tx = self.begin().await?;
        let rows = fetch!(
            tx,
            (i64,),
            "update hypervisor_secrets set sealed = $4, next = null, former = $5, version = version + 1, \
             made_at = $6, made_by = $7 where hypervisor = $1 and credential = $2 and claim = $3 returning version",
            claim.hypervisor.as_str(),
            &claim.credential,
            &claim.id,
            sealed,
            former,
            micros(at),
            by
        )?;
        tx.commit().await?;
        rows.first().map(|(version,)| *version).ok_or(LOST)
    }

    /// The one before counts no more at the hypervisor.
    pub async fn drop_former_secret(&self, claim: &Claim) -> Result<(), Error> {
        let mut tx = self.begin().await?;
        let changed = execute!(
            tx,
            "update hypervisor_secrets set former = null \
             where hypervisor = $1 and credential = $2 and claim in ($3, $4)",
            claim.hypervisor.as_str(),
            &claim.credential,
            &claim.id,
            &claim.fenced
        )?;
        tx.commit().await?;
        if changed == 1 { Ok(()) } else { Err(LOST) }
    }

    /// Goes back to what the configuration names; false where that was so already.
    pub async fn forget_secret(&self, claim: &Claim) -> Result<bool, Error> {
        let mut tx = self.begin().await?;
        let changed = execute!(
            tx,
            "update hypervisor_secrets set sealed = null, next = null, former = null, made_at = null, made_by = null, \
             version = version + 1 where hypervisor = $1 and credential = $2 and claim = $3 and sealed is not null",
            claim.hypervisor.as_str(),
            &claim.credential,
            &claim.id
        )?;
        tx.commit().await?;
        Ok(changed == 1)
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

    fn secret(text: &str) -> Secret {
        Secret::from(text.to_owned())
    }

    async fn claim(store: &Store, hypervisor: &HypervisorName, credential: &str) -> Claim {
        let for_a_minute = (NOON, NOON + Duration::MINUTE);
        match store.claim_secret((hypervisor, None), credential, "ada", for_a_minute).await.unwrap() {
            Claimed::Ours(claim) => claim,
            Claimed::By(other) => panic!("{other:?}"),
        }
    }

    #[tokio::test]
    async fn a_rotated_secret_is_sealed_to_its_row_and_the_one_that_was_begun_is_kept_beside_it() {
        on_both(async |b| {
            let (store, keys) = (b.open().await, Keys::for_tests());
            let (lab, pve): (HypervisorName, HypervisorName) = ("lab".parse().unwrap(), "pve".parse().unwrap());
            let own = claim(&store, &lab, "default").await;
            store.keep_next_secret(&keys, &own, &secret("begun")).await.unwrap();
            let all = store.hypervisor_secrets().await.unwrap();
            assert_eq!((all.len(), all[0].version, all[0].made.clone()), (1, 0, None));
            assert_eq!(text(all[0].open(&keys, None).unwrap()), None, "it is not in use");
            assert_eq!(text(all[0].open_next(&keys, None).unwrap()).as_deref(), Some("begun"));
            assert_eq!(store.keep_secret(&keys, &own, &secret("one"), None, ("ada", NOON)).await.unwrap(), 1);
            let later = NOON + Duration::HOUR;
            let (before, two) = (secret("one"), secret("two"));
            let kept = store.keep_secret(&keys, &own, &two, Some(&before), ("bob", later)).await;
            assert_eq!(kept.unwrap(), 2);
            let other = claim(&store, &pve, "console").await;
            store.keep_secret(&keys, &other, &secret("other"), None, ("bob", later)).await.unwrap();
            let all = store.hypervisor_secrets().await.unwrap();
            assert_eq!(text(all[0].open(&keys, None).unwrap()).as_deref(), Some("two"));
            assert_eq!(text(all[0].open_next(&keys, None).unwrap()), None, "what was begun is done");
            assert_eq!(text(all[0].open_former(&keys, None).unwrap()).as_deref(), Some("one"));
            assert_eq!(all[0].made, Some((later, "bob".to_owned())));
            // Moved to another row, or read with other keys, it does not open.
            let mut moved = all[0].clone();
            moved.hypervisor = pve.clone();
            assert!(moved.open(&keys, None).is_err() && all[0].open(&Keys::for_tests(), None).is_err());
            moved = all[0].clone();
            moved.next = moved.sealed.clone();
            assert!(moved.open_next(&keys, None).is_err(), "nor in another column");
            // Nor for a hypervisor of the same name that was added.
            assert!(all[0].open(&keys, Some(Uuid::new_v4())).is_err());
            let bytes = all[0].sealed.clone().unwrap();
            assert!(!bytes.windows(3).any(|w| w == b"two"), "it is sealed");
            store.drop_former_secret(&own).await.unwrap();
            assert!(!store.hypervisor_secret(&lab, "default").await.unwrap().unwrap().has_former());
        })
        .await;
    }

    #[tokio::test]
    async fn what_was_used_is_known_and_going_back_counts_as_a_version() {
        on_both(async |b| {
            let (store, keys) = (b.open().await, Keys::for_tests());
            let lab: HypervisorName = "lab".parse().unwrap();
            store.secrets_used(&[(&lab, "default"), (&lab, "console")], NOON).await.unwrap();
            let own = claim(&store, &lab, "default").await;
            assert!(!store.forget_secret(&own).await.unwrap());
            let before = secret("file");
            let version = store.keep_secret(&keys, &own, &secret("one"), Some(&before), ("ada", NOON)).await.unwrap();
            let of = async |credential: &str| store.hypervisor_secret(&lab, credential).await.unwrap().unwrap();
            assert_eq!((of("default").await.version, of("default").await.used_at), (version, Some(NOON)));
            assert!(store.forget_secret(&own).await.unwrap());
            let back = of("default").await;
            assert_eq!((back.version, back.made.clone(), back.has_former()), (version + 1, None, false));
            assert!(back.open(&keys, None).unwrap().is_none());
            assert_eq!(of("console").await.used_at, Some(NOON));
        })
        .await;
    }

    #[tokio::test]
    async fn one_at_a_time_changes_a_secret_and_who_broke_off_does_not_hold_it_for_ever() {
        on_both(async |b| {
            let (store, other, keys) = (b.open().await, b.open().await, Keys::for_tests());
            let lab: HypervisorName = "lab".parse().unwrap();
            let ask = async |store: &Store, by: &str, now: OffsetDateTime| {
                store.claim_secret((&lab, None), "default", by, (now, now + Duration::MINUTE)).await.unwrap()
            };
            // Both at the same moment, ten times: one of them has it, and the other one reads who.
            for _ in 0..10 {
                let both = tokio::join!(ask(&store, "ada", NOON), ask(&other, "bob", NOON));
                let (ours, said) = match both {
                    (Claimed::Ours(ours), Claimed::By(said)) => (ours, (said, "ada")),
                    (Claimed::By(said), Claimed::Ours(ours)) => (ours, (said, "bob")),
                    other => panic!("{other:?}"),
                };
                let (said, who) = said;
                assert_eq!((said.by.as_str(), said.since, said.until), (who, NOON, NOON + Duration::MINUTE));
                store.release_claim(ours).await.unwrap();
            }
            let Claimed::Ours(first) = ask(&store, "ada", NOON).await else { panic!("nobody has it") };
            store.keep_next_secret(&keys, &first, &secret("of-ada")).await.unwrap();
            let nearly = NOON + Duration::seconds(59);
            assert!(matches!(ask(&other, "bob", nearly).await, Claimed::By(_)));
            assert!(store.renew_claim(&first, nearly + Duration::MINUTE).await.unwrap());
            assert!(matches!(ask(&other, "bob", NOON + Duration::MINUTE).await, Claimed::By(_)), "it was renewed");
            // Ada broke off, or sleeps.
            let Claimed::Ours(second) = ask(&other, "bob", NOON + Duration::HOUR).await else { panic!("it is over") };
            assert!(!store.renew_claim(&first, NOON + Duration::DAY).await.unwrap());
            let made = ("ada", NOON);
            assert!(store.keep_secret(&keys, &first, &secret("late"), None, made).await.is_err());
            assert!(store.keep_next_secret(&keys, &first, &secret("late")).await.is_err());
            assert!(store.drop_next_secret(&first).await.is_err());
            assert!(store.drop_former_secret(&first).await.is_err());
            assert!(!store.forget_secret(&first).await.unwrap());
            assert_eq!(store.fence_claim(&first).await.unwrap(), None);
            store.release_claim(first).await.unwrap();
            let row = store.hypervisor_secret(&lab, "default").await.unwrap().unwrap();
            assert_eq!(text(row.open_next(&keys, None).unwrap()).as_deref(), Some("of-ada"), "bob finds it");
            assert_eq!(row.claimant.map(|c| c.by).as_deref(), Some("bob"));
            store.keep_secret(&keys, &second, &secret("of-bob"), None, ("bob", NOON)).await.unwrap();
        })
        .await;
    }

    #[tokio::test]
    async fn what_holds_after_a_fence_holds_whatever_is_still_on_its_way() {
        on_both(async |b| {
            let (store, keys) = (b.open().await, Keys::for_tests());
            let lab: HypervisorName = "lab".parse().unwrap();
            let own = claim(&store, &lab, "default").await;
            store.keep_secret(&keys, &own, &secret("one"), None, ("ada", NOON)).await.unwrap();
            store.keep_next_secret(&keys, &own, &secret("two")).await.unwrap();
            for _ in 0..2 {
                let row = store.fence_claim(&own).await.unwrap().unwrap();
                assert_eq!(text(row.open(&keys, None).unwrap()).as_deref(), Some("one"));
            }
            let late = store.keep_secret(&keys, &own, &secret("two"), None, ("ada", NOON)).await;
            assert!(late.is_err(), "a statement that comes late changes nothing");
            assert!(store.keep_next_secret(&keys, &own, &secret("two")).await.is_err());
            store.drop_next_secret(&own).await.unwrap();
            assert!(store.renew_claim(&own, NOON + Duration::HOUR).await.unwrap());
            store.release_claim(own).await.unwrap();
            let row = store.hypervisor_secret(&lab, "default").await.unwrap().unwrap();
            assert_eq!((text(row.open_next(&keys, None).unwrap()), row.claimant), (None, None));
        })
        .await;
    }
}
