// SPDX-License-Identifier: Apache-2.0
//! Which logs of the trail were ever written and where, so that one that is gone is missed.

use crate::{
    Error, Store,
    tx::{Db, execute, parse, read},
};
use portcullis_domain::{NodeId, micros};
use time::OffsetDateTime;

/// What the store knows of one node's log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TrailLog {
    /// Whose log.
    pub node: NodeId,
    /// Where it is written; none when it is in the index and nobody ever said that it is theirs.
    pub place: Option<String>,
    /// How many events the index says that it has had.
    pub known: u64,
    /// What was acknowledged about it.
    pub loss: Option<TrailLoss>,
}

/// That a log, or its end, is gone, as somebody acknowledged it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TrailLoss {
    /// Whose log.
    pub node: NodeId,
    /// How many events the index knew of then.
    pub known: u64,
    /// How many of them are still on the disk.
    pub kept: u64,
}

type Row = (String, Option<String>, Option<i64>, Option<i64>, Option<i64>);

fn number(value: u64) -> i64 {
    i64::try_from(value).unwrap_or(i64::MAX)
}

fn log((node, place, known, kept, head): Row) -> Result<TrailLog, Error> {
    let unsigned = |value: i64| u64::try_from(value).map_err(|e| Error::corrupt("trail_logs", &node, e));
    let node_id: NodeId = parse("trail_logs", "node", &node)?;
    let loss = match (known, kept) {
        (Some(known), Some(kept)) => Some(TrailLoss { node: node_id, known: unsigned(known)?, kept: unsigned(kept)? }),
        _ => None,
    };
    let known = head.map(unsigned).transpose()?.map_or(0, |head| head.saturating_add(1));
    Ok(TrailLog { node: node_id, place, known, loss })
}

impl Store {
    /// Whether several installations may share this database.
    pub fn is_shared(&self) -> bool {
        matches!(self.db, Db::Postgres(_))
    }

    /// Every log that was ever written or indexed.
    pub async fn trail_logs(&self) -> Result<Vec<TrailLog>, Error> {
        // The nodes of the index one after the other by its primary key: `distinct` would read every row.
        let rows = read!(
            self,
            Row,
            "with recursive indexed (node) as (select min(node) from trail_events union all \
             select (select min(node) from trail_events where node > indexed.node) from indexed where node is not null) \
             select l.node, l.place, l.known, l.kept, (select max(seq) from trail_events e where e.node = l.node) \
             from trail_logs l union all \
             select i.node, null, null, null, (select max(seq) from trail_events e where e.node = i.node) \
             from indexed i where i.node is not null and i.node not in (select node from trail_logs)"
        )?;
        let mut logs = rows.into_iter().map(log).collect::<Result<Vec<_>, _>>()?;
        logs.sort_by_key(|l| l.node);
        Ok(logs)
    }

    /// Remembers where a node's log is written. Said again, the newest place counts.
    pub async fn claim_trail(&self, node: NodeId, place: &str) -> Result<(), Error> {
        let mut tx = self.begin().await?;
        execute!(
            tx,
            "insert into trail_logs (node, place) values ($1, $2) on conflict (node) do update set place = $2",
            node.to_string(),
            place
        )?;
        tx.commit().await
    }

    /// Remembers that logs of a place, or their ends, are gone, and that somebody knows it.
    pub async fn acknowledge_trail(&self, losses: &[TrailLoss], place: &str, now: OffsetDateTime) -> Result<(), Error> {
        let mut tx = self.begin().await?;
        for loss in losses {
            execute!(
                tx,
                "insert into trail_logs (node, place, acknowledged_at, known, kept) values ($1, $2, $3, $4, $5) \
                 on conflict (node) do update set acknowledged_at = $3, known = $4, kept = $5",
                loss.node.to_string(),
                place,
                micros(now),
                number(loss.known),
                number(loss.kept)
            )?;
        }
        tx.commit().await
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        TrailRow,
        testing::{NOON, on_both},
    };
    use portcullis_domain::{Outcome, Phase, RequestId, Seq};
    use uuid::Uuid;

    fn node(n: u128) -> NodeId {
        NodeId::new(Uuid::from_u128(n))
    }

    fn event(n: u128, seq: u64) -> TrailRow {
        TrailRow {
            node: node(n),
            seq: Seq(seq),
            at: NOON,
            request: RequestId::new(Uuid::from_u128(1)),
            phase: Phase::Noted,
            kind: "system".into(),
            user: None,
            user_name: None,
            peer: None,
            action: None,
            resource: "gateway:system".into(),
            outcome: Outcome::Done,
            reason: String::new(),
            segment: 0,
            offset: 0,
        }
    }

    #[tokio::test]
    async fn a_log_that_was_claimed_or_indexed_is_remembered() {
        on_both(async |b| {
            let store = b.open().await;
            assert_eq!(store.trail_logs().await.unwrap(), []);
            store.claim_trail(node(2), "here:/a").await.unwrap();
            store.claim_trail(node(2), "here:/b").await.unwrap();
            store.add_trail(&[event(1, 0), event(1, 4), event(2, 1), event(3, 0)]).await.unwrap();
            let log = |n, place: Option<&str>, known, loss| TrailLog {
                node: node(n),
                place: place.map(str::to_owned),
                known,
                loss,
            };
            let all = store.trail_logs().await.unwrap();
            assert_eq!(all, [log(1, None, 5, None), log(2, Some("here:/b"), 2, None), log(3, None, 1, None)]);

            let loss = |n, known, kept| TrailLoss { node: node(n), known, kept };
            store.acknowledge_trail(&[loss(1, 5, 0), loss(2, 2, 1)], "here:/c", NOON).await.unwrap();
            let all = store.trail_logs().await.unwrap();
            assert_eq!(all[0], log(1, Some("here:/c"), 5, Some(loss(1, 5, 0))));
            assert_eq!(all[1], log(2, Some("here:/b"), 2, Some(loss(2, 2, 1))));
            // the claim outlives the index
            store.clear_trail(node(2)).await.unwrap();
            assert_eq!(store.trail_logs().await.unwrap()[1].known, 0);
        })
        .await;
    }
}
