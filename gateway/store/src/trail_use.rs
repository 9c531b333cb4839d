// SPDX-License-Identifier: Apache-2.0
//! What the trail's index says of decisions: what was asked and how it was decided, and when it was last done.

use crate::{
    Error, Store, from_micros,
    tx::{parse, read},
};
use portcullis_domain::{Action, UserId, micros};
use std::net::IpAddr;
use time::OffsetDateTime;

const T: &str = "trail_events";

/// One operation that somebody asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Decided {
    /// When.
    pub at: OffsetDateTime,
    /// Who.
    pub user: UserId,
    /// The name they signed in with.
    pub user_name: String,
    /// From where.
    pub peer: Option<IpAddr>,
    /// What was asked.
    pub action: Action,
    /// On what, as the trail writes it.
    pub resource: String,
    /// Whether it was let through, if need be after a fresh factor.
    pub allowed: bool,
}

/// When an action was last let through.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LastUse {
    /// Whose.
    pub user: UserId,
    /// What was done.
    pub action: Action,
    /// To what, as the trail writes it.
    pub resource: String,
    /// When.
    pub at: OffsetDateTime,
}

type DecidedRow = (i64, String, Option<String>, Option<String>, String, String, String);

impl Store {
    /// What known people asked for since an instant, newest first, and how it was decided: at most `most`.
    pub async fn decided_since(&self, from: OffsetDateTime, most: u32) -> Result<Vec<Decided>, Error> {
        let rows = read!(
            self,
            DecidedRow,
            "select at, user_id, user_name, peer, action, resource, outcome from trail_events \
             where at >= $1 and action is not null and user_id is not null \
             and (phase = 'opened' or (phase = 'noted' and outcome in ('denied', 'step-up'))) \
             order by at desc limit $2",
            micros(from),
            i64::from(most)
        )?;
        let decided = |(at, user, name, peer, action, resource, outcome): DecidedRow| {
            Ok(Decided {
                at: from_micros(at),
                user: parse(T, "user_id", &user)?,
                user_name: name.unwrap_or_default(),
                peer: peer.map(|p| parse(T, "peer", &p)).transpose()?,
                action: parse(T, "action", &action)?,
                resource,
                allowed: outcome != "denied",
            })
        };
        rows.into_iter().map(decided).collect()
    }

    /// When each action of a person, on each thing, was last let through.
    pub async fn last_uses_of(&self, user: UserId) -> Result<Vec<LastUse>, Error> {
        let rows = read!(
            self,
            (String, String, String, i64),
            "select user_id, action, resource, max(at) from trail_events \
             where user_id = $1 and phase = 'opened' and action is not null group by user_id, action, resource",
            user.to_string()
        )?;
        last_uses(rows)
    }

    /// When each person's action on one thing was last let through.
    pub async fn last_uses_on(&self, resource: &str) -> Result<Vec<LastUse>, Error> {
        let rows = read!(
            self,
            (String, String, String, i64),
            "select user_id, action, resource, max(at) from trail_events \
             where resource = $1 and phase = 'opened' and action is not null and user_id is not null \
             group by user_id, action, resource",
            resource
        )?;
        last_uses(rows)
    }
}

fn last_uses(rows: Vec<(String, String, String, i64)>) -> Result<Vec<LastUse>, Error> {
    let last = |(user, action, resource, at): (String, String, String, i64)| {
        let (user, action) = (parse(T, "user_id", &user)?, parse(T, "action", &action)?);
        Ok(LastUse { user, action, resource, at: from_micros(at) })
    };
    rows.into_iter().map(last).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        TrailRow,
        testing::{NOON, on_both},
    };
    use portcullis_domain::{NodeId, Outcome, Phase, RequestId, Seq};
    use time::Duration;
    use uuid::Uuid;

    #[tokio::test]
    async fn an_operation_counts_once_by_how_it_was_decided() {
        on_both(async |b| {
            let store = b.open().await;
            let ada = UserId::new(Uuid::from_u128(1));
            let row = |seq: u64, phase, outcome, action, user| TrailRow {
                node: NodeId::new(Uuid::from_u128(9)),
                seq: Seq(seq),
                at: NOON + Duration::minutes(i64::try_from(seq).unwrap()),
                request: RequestId::new(Uuid::from_u128(u128::from(seq))),
                phase,
                kind: "console".into(),
                user,
                user_name: Some("ada".into()),
                peer: Some([10, 0, 0, 1].into()),
                action,
                resource: "lab/web-1".into(),
                outcome,
                reason: String::new(),
                segment: 0,
                offset: 0,
            };
            let view = Some(Action::ConsoleView);
            let rows = [
                row(1, Phase::Opened, Outcome::Pending, view, Some(ada)),
                row(2, Phase::Closed(Seq(1)), Outcome::Done, view, Some(ada)),
                row(3, Phase::Noted, Outcome::StepUp, view, Some(ada)),
                row(4, Phase::Noted, Outcome::Denied, Some(Action::Power), Some(ada)),
                row(5, Phase::Noted, Outcome::Denied, view, None),
                row(6, Phase::Noted, Outcome::Done, None, Some(ada)),
                row(7, Phase::Opened, Outcome::Pending, view, Some(ada)),
            ];
            store.add_trail(&rows).await.unwrap();
            let decided = store.decided_since(NOON, 100).await.unwrap();
            let told: Vec<_> = decided.iter().map(|d| (d.action, d.allowed)).collect();
            let view = Action::ConsoleView;
            assert_eq!(told, [(view, true), (Action::Power, false), (view, true), (view, true)]);
            assert_eq!(store.decided_since(NOON + Duration::minutes(7), 100).await.unwrap().len(), 1);
            assert_eq!(store.decided_since(NOON, 2).await.unwrap().len(), 2);
            let last =
                LastUse { user: ada, action: view, resource: "lab/web-1".into(), at: NOON + Duration::minutes(7) };
            assert_eq!(store.last_uses_of(ada).await.unwrap(), std::slice::from_ref(&last));
            assert_eq!(store.last_uses_on("lab/web-1").await.unwrap(), [last]);
            assert_eq!(store.last_uses_on("lab/web-2").await.unwrap(), []);
        })
        .await;
    }
}
