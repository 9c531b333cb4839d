// SPDX-License-Identifier: Apache-2.0
//! Hypervisors that were added while gateways run, beside those of the configuration.
//!
//! A credential is sealed to its row with all that says to whom it is shown: whoever can write to the database and not
//! read the keys cannot have it shown to another address, nor to another certificate. When one is added or removed, what
//! rotations kept under its name is forgotten in the same transaction, and the number of its secret goes on: what a node
//! said of an earlier one never counts for a later one.

use crate::{
    Claimant, Error, Store, from_micros,
    seal::{Keys, Place},
    tx::{Tx, execute, fetch, parse, read},
};
use portcullis_domain::{HypervisorName, Secret, micros};
use time::{Duration, OffsetDateTime};
use uuid::Uuid;

/// What is known of one that was added.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AddedHypervisor {
    /// Its name.
    pub name: HypervisorName,
    /// Which adding it was: another one under the same name has another.
    pub id: Uuid,
    /// Its kind: the word in the configuration.
    pub kind: String,
    /// Its keys as JSON, without a secret.
    pub settings: String,
    /// The certificates that it may show, as JSON.
    pub trust: String,
    /// What its credential was found to be, as JSON, for people.
    pub tried: String,
    /// Since when.
    pub at: OffsetDateTime,
    /// By whom, for people.
    pub by: String,
    sealed: Vec<u8>,
}

/// One that is to be added.
#[derive(Debug, Clone, Copy)]
pub struct NewHypervisor<'a> {
    /// Its name.
    pub name: &'a HypervisorName,
    /// Its kind: the word in the configuration.
    pub kind: &'a str,
    /// Its keys as JSON, without a secret.
    pub settings: &'a str,
    /// The certificates that it may show, as JSON.
    pub trust: &'a str,
    /// What its credential was found to be, as JSON, for people.
    pub tried: &'a str,
    /// By whom, for people.
    pub by: &'a str,
    /// When.
    pub at: OffsetDateTime,
    /// In whose place it comes: the adding that goes in the same transaction.
    pub replaces: Option<Uuid>,
}

/// What came of adding or removing one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Changed {
    /// It is done.
    Done,
    /// None of that name is there to be removed or replaced, or one is there already.
    Nothing,
    /// Somebody changes its secret at the moment.
    Claimed(Claimant),
    /// A gateway shows a rotated secret to a hypervisor of that name: it stands in the configuration of some node.
    InUse,
}

#[derive(sqlx::FromRow)]
struct Row {
    name: String,
    id: String,
    kind: String,
    settings: String,
    trust: String,
    tried: String,
    sealed: Vec<u8>,
    added_at: i64,
    added_by: String,
}

const T: &str = "hypervisors";

/// How long after its last use a rotated secret counts as in use: nodes write down once a minute what they used.
const LATELY: Duration = Duration::minutes(3);

impl TryFrom<Row> for AddedHypervisor {
    type Error = Error;
    fn try_from(row: Row) -> Result<Self, Error> {
        Ok(Self {
            name: parse(T, "name", &row.name)?,
            id: parse(T, "id", &row.id)?,
            kind: row.kind,
            settings: row.settings,
            trust: row.trust,
            tried: row.tried,
            at: from_micros(row.added_at),
            by: row.added_by,
            sealed: row.sealed,
        })
    }
}

/// Where a credential is sealed: all that says to whom it is shown.
fn row_of(name: &HypervisorName, id: &Uuid, kind: &str, settings: &str, trust: &str) -> String {
    // As JSON, so that no two rows are written the same way.
    serde_json::json!([name.as_str(), id.simple().to_string(), kind, settings, trust]).to_string()
}

impl AddedHypervisor {
    /// The credential that it was added with. An error where anything of the row was changed, or it was sealed under other
    /// keys.
    pub fn open(&self, keys: &Keys) -> Result<Secret, Error> {
        let row = row_of(&self.name, &self.id, &self.kind, &self.settings, &self.trust);
        keys.open(&Place { table: T, row: &row, column: "sealed" }, &self.sealed)
    }
}

#[derive(sqlx::FromRow)]
struct Held {
    credential: String,
    is_rotated: i64,
    used_at: Option<i64>,
    claimed_by: Option<String>,
    claimed_at: Option<i64>,
    claim_ends_at: Option<i64>,
}

/// Forgets what rotations kept under a name, unless somebody is at it.
async fn forget(tx: &mut Tx, name: &HypervisorName, now: OffsetDateTime) -> Result<Result<bool, Claimant>, Error> {
    // Forgotten first: whoever asks for a claim meanwhile waits for the end of this.
    execute!(tx, "update hypervisor_secrets set version = version + 1 where hypervisor = $1", name.as_str())?;
    let rows = fetch!(
        tx,
        Held,
        "select credential, cast(case when sealed is null then 0 else 1 end as bigint) as is_rotated, used_at, claimed_by, claimed_at, \
         claim_ends_at from hypervisor_secrets where hypervisor = $1",
        name.as_str()
    )?;
    let mut is_used = false;
    for row in rows {
        if let (Some(by), Some(since), Some(until)) = (row.claimed_by, row.claimed_at, row.claim_ends_at)
            && from_micros(until) > now
        {
            return Ok(Err(Claimant { by, since: from_micros(since), until: from_micros(until) }));
        }
        is_used |= row.is_rotated != 0 && row.used_at.is_some_and(|at| now - from_micros(at) < LATELY);
        execute!(
            tx,
            "update hypervisor_secrets set sealed = null, next = null, former = null, made_at = null, made_by = null, \
             used_at = null, claim = null, claimed_by = null, claimed_at = null, claim_ends_at = null \
             where hypervisor = $1 and credential = $2",
            name.as_str(),
            row.credential
        )?;
    }
    execute!(tx, "delete from taken_secrets where hypervisor = $1", name.as_str())?;
    Ok(Ok(is_used))
}

impl Store {
    /// Every one that was added, by name. A row that cannot be read is left to whoever asks for it by its name.
    pub async fn added_hypervisors(&self) -> Result<Vec<AddedHypervisor>, Error> {
        let rows = read!(
            self,
            Row,
            "select name, id, kind, settings, trust, tried, sealed, added_at, added_by from hypervisors order by name"
        )?;
        rows.into_iter().map(AddedHypervisor::try_from).collect()
    }

    /// Which there are: what a node looks at every second.
    pub async fn added_hypervisor_ids(&self) -> Result<Vec<(HypervisorName, Uuid)>, Error> {
        let rows = read!(self, (String, String), "select name, id from hypervisors order by name")?;
        rows.into_iter().map(|(name, id)| Ok((parse(T, "name", &name)?, parse(T, "id", &id)?))).collect()
    }

    /// Which adding has a name now; none where none was added under it.
    pub async fn added_hypervisor_id(&self, name: &HypervisorName) -> Result<Option<Uuid>, Error> {
        let ids = self.added_hypervisor_ids().await?;
        Ok(ids.into_iter().find(|(added, _)| added == name).map(|(_, id)| id))
    }

    /// Adds one with its credential. Where it comes in the place of another, that one goes with its credential and whatever
    /// rotations kept of it, or nothing is changed.
    pub async fn add_hypervisor(
        &self,
        keys: &Keys,
        new: &NewHypervisor<'_>,
        secret: &Secret,
    ) -> Result<Changed, Error> {
        let NewHypervisor { name, kind, settings, trust, tried, by, at, replaces } = *new;
        let id = Uuid::new_v4();
        let row = row_of(name, &id, kind, settings, trust);
        let sealed = keys.seal(&Place { table: T, row: &row, column: "sealed" }, secret)?;
        let mut tx = self.begin().await?;
        if let Some(was) = replaces {
            let was = was.simple().to_string();
            let gone = execute!(tx, "delete from hypervisors where name = $1 and id = $2", name.as_str(), was)?;
            if gone == 0 {
                return Ok(Changed::Nothing);
            }
        }
        let added = execute!(
            tx,
            "insert into hypervisors (name, id, kind, settings, trust, tried, sealed, added_at, added_by) \
             values ($1, $2, $3, $4, $5, $6, $7, $8, $9) on conflict (name) do nothing",
            name.as_str(),
            id.simple().to_string(),
            kind,
            settings,
            trust,
            tried,
            sealed,
            micros(at),
            by.chars().take(256).collect::<String>()
        )?;
        if added == 0 {
            return Ok(Changed::Nothing);
        }
        match forget(&mut tx, name, at).await? {
            Err(claimant) => return Ok(Changed::Claimed(claimant)),
            // That of the one whose place it takes is its own.
            Ok(true) if replaces.is_none() => return Ok(Changed::InUse),
            Ok(_) => {}
        }
        tx.commit().await?;
        Ok(Changed::Done)
    }

    /// Removes one, with its credential and whatever rotations kept of it; where it is said which adding is meant, that
    /// one only.
    pub async fn remove_hypervisor(
        &self,
        name: &HypervisorName,
        adding: Option<Uuid>,
        now: OffsetDateTime,
    ) -> Result<Changed, Error> {
        let mut tx = self.begin().await?;
        let removed = match adding.map(|id| id.simple().to_string()) {
            Some(id) => execute!(tx, "delete from hypervisors where name = $1 and id = $2", name.as_str(), id)?,
            None => execute!(tx, "delete from hypervisors where name = $1", name.as_str())?,
        };
        if removed == 0 {
            return Ok(Changed::Nothing);
        }
        if let Err(claimant) = forget(&mut tx, name, now).await? {
            return Ok(Changed::Claimed(claimant));
        }
        tx.commit().await?;
        Ok(Changed::Done)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        Claimed,
        testing::{NOON, on_both},
    };
    use portcullis_domain::NodeId;

    fn new<'a>(name: &'a HypervisorName, settings: &'a str) -> NewHypervisor<'a> {
        NewHypervisor { name, kind: "proxmox", settings, trust: "[]", tried: "{}", by: "ada", at: NOON, replaces: None }
    }

    fn secret(text: &str) -> Secret {
        Secret::from(text.to_owned())
    }

    #[tokio::test]
    async fn one_is_added_once_and_its_credential_opens_where_it_was_sealed_only() {
        on_both(async |b| {
            let (store, keys) = (b.open().await, Keys::for_tests());
            let lab: HypervisorName = "lab".parse().unwrap();
            let add = async |settings| store.add_hypervisor(&keys, &new(&lab, settings), &secret("s1")).await.unwrap();
            assert_eq!(add("{\"address\":\"https://a:1\"}").await, Changed::Done);
            assert_eq!(add("{\"address\":\"https://b:1\"}").await, Changed::Nothing);
            let all = store.added_hypervisors().await.unwrap();
            let [one] = all.as_slice() else { panic!("{all:?}") };
            assert_eq!((one.by.as_str(), one.at), ("ada", NOON));
            assert_eq!(one.open(&keys).unwrap().expose(), b"s1");
            assert_eq!(store.added_hypervisor_ids().await.unwrap(), [(lab.clone(), one.id)]);
            // Whoever changes the row does not get the credential shown elsewhere.
            let other: HypervisorName = "bal".parse().unwrap();
            for changed in [
                AddedHypervisor { settings: "{\"address\":\"https://evil:1\"}".into(), ..one.clone() },
                AddedHypervisor { trust: "[1]".into(), ..one.clone() },
                AddedHypervisor { kind: "xapi".into(), ..one.clone() },
                AddedHypervisor { name: other, ..one.clone() },
                AddedHypervisor { id: Uuid::new_v4(), ..one.clone() },
            ] {
                assert!(matches!(changed.open(&keys), Err(Error::Sealed)), "{changed:?}");
            }
            assert_eq!(store.remove_hypervisor(&lab, None, NOON).await.unwrap(), Changed::Done);
            assert_eq!(store.remove_hypervisor(&lab, None, NOON).await.unwrap(), Changed::Nothing);
            assert!(store.added_hypervisors().await.unwrap().is_empty());
        })
        .await;
    }

    #[tokio::test]
    async fn one_comes_in_the_place_of_the_one_that_was_looked_at_and_of_no_other() {
        on_both(async |b| {
            let (store, keys) = (b.open().await, Keys::for_tests());
            let lab: HypervisorName = "lab".parse().unwrap();
            let put = async |settings: &str, text: &str, replaces| {
                let new = NewHypervisor { replaces, ..new(&lab, settings) };
                store.add_hypervisor(&keys, &new, &secret(text)).await.unwrap()
            };
            let now = async || {
                let all = store.added_hypervisors().await.unwrap();
                all.into_iter().map(|a| (a.id, a.open(&keys).unwrap().expose().to_vec())).collect::<Vec<_>>()
            };
            assert_eq!(put("{}", "s0", Some(Uuid::new_v4())).await, Changed::Nothing, "there is none");
            assert_eq!(put("{}", "s1", None).await, Changed::Done);
            let first = now().await[0].0;
            assert_eq!(put("{}", "s2", Some(Uuid::new_v4())).await, Changed::Nothing, "that is another one");
            assert_eq!(now().await, [(first, b"s1".to_vec())], "nothing was changed");
            // What a rotation keeps under its name, and shows now, is forgotten with it; not while somebody is at it.
            let ends = NOON + Duration::MINUTE;
            let Claimed::Ours(claim) = store.claim_secret((&lab, None), "default", "ada", (NOON, ends)).await.unwrap()
            else {
                panic!("nobody has it")
            };
            store.keep_secret(&keys, &claim, &secret("r1"), None, ("ada", NOON)).await.unwrap();
            store.secrets_used(&[(&lab, "default")], NOON).await.unwrap();
            assert!(matches!(put("{}", "s2", Some(first)).await, Changed::Claimed(_)));
            assert_eq!(now().await, [(first, b"s1".to_vec())], "nothing was changed");
            store.release_claim(claim).await.unwrap();
            assert_eq!(put("{}", "s2", Some(first)).await, Changed::Done);
            let second = now().await;
            assert!(second[0].0 != first && second[0].1 == b"s2" && second.len() == 1, "{second:?}");
            let row = store.hypervisor_secret(&lab, "default").await.unwrap().unwrap();
            assert!(
                row.open(&keys, None).unwrap().is_none(),
                "the rotated secret of the one before is not shown by this one"
            );
            // Whoever began with the one before makes a secret that counts for that one only.
            let asked = store.claim_secret((&lab, Some(first)), "default", "ada", (NOON, ends)).await.unwrap();
            let Claimed::Ours(late) = asked else { panic!("nobody has it") };
            let [begun, made, left] = ["r2", "r3", "r4"].map(secret);
            store.keep_secret(&keys, &late, &made, Some(&left), ("ada", NOON)).await.unwrap();
            store.keep_next_secret(&keys, &late, &begun).await.unwrap();
            store.release_claim(late).await.unwrap();
            let row = store.hypervisor_secret(&lab, "default").await.unwrap().unwrap();
            let text = |opened: Result<Option<Secret>, Error>| opened.unwrap().map(|s| s.expose().to_vec());
            assert_eq!(text(row.open(&keys, Some(first))), Some(b"r3".to_vec()));
            for other in [None, Some(second[0].0)] {
                for opened in [row.open(&keys, other), row.open_next(&keys, other), row.open_former(&keys, other)] {
                    assert!(matches!(opened, Err(Error::Sealed)), "{other:?}");
                }
            }
            // Whoever looked at the one before does not remove this one either.
            assert_eq!(store.remove_hypervisor(&lab, Some(first), NOON).await.unwrap(), Changed::Nothing);
            assert_eq!(now().await, second);
            assert_eq!(put("{}", "s3", Some(first)).await, Changed::Nothing, "it was replaced meanwhile");
        })
        .await;
    }

    #[tokio::test]
    async fn what_was_said_of_an_earlier_one_does_not_count_for_a_later_one() {
        on_both(async |b| {
            let (store, keys) = (b.open().await, Keys::for_tests());
            let (lab, node): (HypervisorName, _) = ("lab".parse().unwrap(), NodeId::new(Uuid::from_u128(1)));
            store.node_began(node, "a", NOON).await.unwrap();
            assert_eq!(store.add_hypervisor(&keys, &new(&lab, "{}"), &secret("s1")).await.unwrap(), Changed::Done);
            let ends = NOON + Duration::MINUTE;
            let claim = async |now, until| match store.claim_secret((&lab, None), "default", "ada", (now, until)).await.unwrap()
            {
                Claimed::Ours(claim) => claim,
                Claimed::By(by) => panic!("{by:?}"),
            };
            let first = claim(NOON, ends).await;
            // Not under somebody's hands.
            assert!(
                matches!(store.remove_hypervisor(&lab, None, NOON).await.unwrap(), Changed::Claimed(by) if by.by == "ada")
            );
            assert_eq!(store.added_hypervisors().await.unwrap().len(), 1);
            let mut version = 0;
            for text in ["s2", "s3"] {
                version = store.keep_secret(&keys, &first, &secret(text), None, ("ada", NOON)).await.unwrap();
            }
            store.secret_taken(node, &lab, "default", version).await.unwrap();
            store.release_claim(first).await.unwrap();
            assert_eq!(store.remove_hypervisor(&lab, None, NOON).await.unwrap(), Changed::Done);
            // A node that has not heard yet says it once more.
            store.secret_taken(node, &lab, "default", version).await.unwrap();
            assert_eq!(store.add_hypervisor(&keys, &new(&lab, "{}"), &secret("s4")).await.unwrap(), Changed::Done);
            let row = store.hypervisor_secret(&lab, "default").await.unwrap().unwrap();
            assert!(row.open(&keys, None).unwrap().is_none(), "the earlier one's secret is not shown to the later one");
            assert!(row.version > version);
            let again = claim(NOON, ends).await;
            let now = store.keep_secret(&keys, &again, &secret("s5"), None, ("ada", NOON)).await.unwrap();
            let nodes = store.nodes_using(&lab, "default").await.unwrap();
            assert!(nodes.iter().all(|n| n.taken.is_none_or(|taken| taken < now)), "{nodes:?} {now}");
        })
        .await;
    }

    #[tokio::test]
    async fn a_name_whose_rotated_secret_some_node_shows_is_not_taken() {
        on_both(async |b| {
            let (store, keys) = (b.open().await, Keys::for_tests());
            let lab: HypervisorName = "lab".parse().unwrap();
            let Claimed::Ours(claim) =
                store.claim_secret((&lab, None), "default", "ada", (NOON, NOON + Duration::SECOND)).await.unwrap()
            else {
                panic!("nobody has it")
            };
            store.keep_secret(&keys, &claim, &secret("s1"), None, ("ada", NOON)).await.unwrap();
            store.release_claim(claim).await.unwrap();
            store.secrets_used(&[(&lab, "default")], NOON).await.unwrap();
            let add = async |at| {
                let new = NewHypervisor { at, ..new(&lab, "{}") };
                store.add_hypervisor(&keys, &new, &secret("s2")).await.unwrap()
            };
            assert_eq!(add(NOON + Duration::MINUTE).await, Changed::InUse);
            let row = store.hypervisor_secret(&lab, "default").await.unwrap().unwrap();
            assert_eq!(row.open(&keys, None).unwrap().unwrap().expose(), b"s1", "it goes on");
            // Nobody has used it for long: it is left from one that is gone.
            assert_eq!(add(NOON + Duration::HOUR).await, Changed::Done);
            let row = store.hypervisor_secret(&lab, "default").await.unwrap().unwrap();
            assert!(row.open(&keys, None).unwrap().is_none());
        })
        .await;
    }
}
