// SPDX-License-Identifier: Apache-2.0
//! The gateways that run on this store, and which version of each hypervisor's secret each of them uses.
//!
//! A node says every few seconds that it runs. Whether one is gone is for whoever waits for it to see: its `seen_at` then
//! stands still, whatever the clocks of the two say.

use crate::{
    Error, Store, from_micros,
    tx::{execute, parse, read},
};
use portcullis_domain::{HypervisorName, NodeId, micros};
use time::OffsetDateTime;

/// How many characters of a place are kept.
const LONGEST: usize = 512;

/// A gateway that ran a while ago, as it looks to who waits until all use one version of a secret.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Node {
    /// The node of its log.
    pub id: NodeId,
    /// Where it runs, for people.
    pub place: String,
    /// When it said last that it runs, by its own clock.
    pub seen_at: OffsetDateTime,
    /// Which version of the secret it uses; none until it has looked.
    pub taken: Option<i64>,
}

#[derive(sqlx::FromRow)]
struct Row {
    id: String,
    place: String,
    seen_at: i64,
    version: Option<i64>,
}

const T: &str = "nodes";

impl Store {
    /// A gateway begins: what it used before it ended counts no more.
    pub async fn node_began(&self, node: NodeId, place: &str, now: OffsetDateTime) -> Result<(), Error> {
        let (id, place) = (node.to_string(), place.chars().take(LONGEST).collect::<String>());
        let mut tx = self.begin().await?;
        execute!(tx, "delete from taken_secrets where node = $1", &id)?;
        execute!(
            tx,
            "insert into nodes (id, place, began_at, seen_at) values ($1, $2, $3, $3) \
             on conflict (id) do update set place = excluded.place, began_at = excluded.began_at, seen_at = excluded.seen_at",
            id,
            place,
            micros(now)
        )?;
        tx.commit().await
    }

    /// A gateway runs still. False where its row is gone: it begins anew then.
    pub async fn node_runs(&self, node: NodeId, now: OffsetDateTime) -> Result<bool, Error> {
        let mut tx = self.begin().await?;
        let changed = execute!(tx, "update nodes set seen_at = $2 where id = $1", node.to_string(), micros(now))?;
        tx.commit().await?;
        Ok(changed == 1)
    }

    /// A gateway has ended.
    pub async fn node_ended(&self, node: NodeId) -> Result<(), Error> {
        let id = node.to_string();
        let mut tx = self.begin().await?;
        execute!(tx, "delete from taken_secrets where node = $1", &id)?;
        execute!(tx, "delete from nodes where id = $1", &id)?;
        tx.commit().await
    }

    /// Forgets those that were not seen since a time.
    pub async fn drop_nodes(&self, before: OffsetDateTime) -> Result<(), Error> {
        let mut tx = self.begin().await?;
        execute!(
            tx,
            "delete from taken_secrets where node in (select id from nodes where seen_at < $1)",
            micros(before)
        )?;
        execute!(tx, "delete from nodes where seen_at < $1", micros(before))?;
        tx.commit().await
    }

    /// A gateway has taken a version of a secret into use. A version is never taken back.
    pub async fn secret_taken(
        &self,
        node: NodeId,
        hypervisor: &HypervisorName,
        credential: &str,
        version: i64,
    ) -> Result<(), Error> {
        let mut tx = self.begin().await?;
        execute!(
            tx,
            "insert into taken_secrets (node, hypervisor, credential, version) values ($1, $2, $3, $4) \
             on conflict (node, hypervisor, credential) do update set version = excluded.version \
             where taken_secrets.version < excluded.version",
            node.to_string(),
            hypervisor.as_str(),
            credential,
            version
        )?;
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

    /// Every node, with the version of a secret that it uses.
    pub async fn nodes_using(&self, hypervisor: &HypervisorName, credential: &str) -> Result<Vec<Node>, Error> {
        let rows = read!(
            self,
            Row,
            "select nodes.id, nodes.place, nodes.seen_at, taken_secrets.version from nodes \
             left join taken_secrets on taken_secrets.node = nodes.id \
             and taken_secrets.hypervisor = $1 and taken_secrets.credential = $2 order by nodes.id",
            hypervisor.as_str(),
            credential
        )?;
        let read = |row: Row| {
            let id = parse(T, "id", &row.id)?;
            Ok(Node { id, place: row.place, seen_at: from_micros(row.seen_at), taken: row.version })
        };
        rows.into_iter().map(read).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{NOON, on_both};
    use time::Duration;
    use uuid::Uuid;

    #[tokio::test]
    async fn each_node_says_which_version_it_uses_and_one_that_begins_anew_uses_none() {
        on_both(async |b| {
            let store = b.open().await;
            let (one, two) = (NodeId::new(Uuid::from_u128(1)), NodeId::new(Uuid::from_u128(2)));
            let lab: HypervisorName = "lab".parse().unwrap();
            assert!(!store.node_runs(one, NOON).await.unwrap(), "nobody began");
            store.node_began(one, &"x".repeat(9000), NOON).await.unwrap();
            store.node_began(two, "b:/trail", NOON).await.unwrap();
            store.secret_taken(one, &lab, "default", 2).await.unwrap();
            store.secret_taken(one, &lab, "default", 1).await.unwrap();
            store.secret_taken(two, &lab, "console", 7).await.unwrap();
            let of = async |credential: &str| {
                let all = store.nodes_using(&lab, credential).await.unwrap();
                all.into_iter().map(|n| (n.id, n.taken)).collect::<Vec<_>>()
            };
            assert_eq!(of("default").await, [(one, Some(2)), (two, None)]);
            assert_eq!(of("console").await, [(one, None), (two, Some(7))]);
            assert!(store.node_runs(one, NOON + Duration::HOUR).await.unwrap());
            assert_eq!(store.nodes_using(&lab, "default").await.unwrap()[0].seen_at, NOON + Duration::HOUR);
            store.node_began(one, "a:/trail", NOON + Duration::HOUR).await.unwrap();
            assert_eq!(of("default").await, [(one, None), (two, None)], "it has not looked yet");
            store.drop_nodes(NOON + Duration::MINUTE).await.unwrap();
            assert_eq!(of("console").await, [(one, None)]);
            store.secret_taken(one, &lab, "default", 3).await.unwrap();
            store.node_ended(one).await.unwrap();
            assert_eq!(of("default").await, []);
            store.node_began(one, "a:/trail", NOON).await.unwrap();
            assert_eq!(of("default").await, [(one, None)], "nothing is left of before");
        })
        .await;
    }
}
