// SPDX-License-Identifier: Apache-2.0
//! The index of the trail: it answers searches, proves nothing, and can be rebuilt from the nodes' own logs.

use crate::{
    Error, Store, from_micros,
    tx::{Db, On, execute, parse, read},
};
use portcullis_domain::{Action, NodeId, Outcome, Phase, RequestId, Seq, UserId, micros};
use sqlx::QueryBuilder;
use std::net::IpAddr;
use time::OffsetDateTime;

/// Rows a statement: well below the limits on parameters of both databases.
const BATCH: usize = 500;

/// What the index holds of one event.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TrailRow {
    /// Whose log it is in.
    pub node: NodeId,
    /// Its number there.
    pub seq: Seq,
    /// When it happened; microseconds are kept.
    pub at: OffsetDateTime,
    /// The request it belongs to.
    pub request: RequestId,
    /// Opened, closed or noted.
    pub phase: Phase,
    /// What kind of event.
    pub kind: String,
    /// Who.
    pub user: Option<UserId>,
    /// The name they signed in with.
    pub user_name: Option<String>,
    /// From where.
    pub peer: Option<IpAddr>,
    /// What was asked.
    pub action: Option<Action>,
    /// On what.
    pub resource: String,
    /// How it came out.
    pub outcome: Outcome,
    /// Why.
    pub reason: String,
    /// The number of the segment file that holds it.
    pub segment: u64,
    /// Where its frame begins in that file, in bytes.
    pub offset: u64,
}

/// What to search for; what is none matches everything.
#[derive(Debug, Clone, Default)]
pub struct TrailFilter {
    /// Only this node's log.
    pub node: Option<NodeId>,
    /// Not before.
    pub from: Option<OffsetDateTime>,
    /// Before.
    pub until: Option<OffsetDateTime>,
    /// Only this person's.
    pub user: Option<UserId>,
    /// Only by this name, as typed at sign-in.
    pub user_name: Option<String>,
    /// Only this request.
    pub request: Option<RequestId>,
    /// Only this kind.
    pub kind: Option<String>,
    /// Only this action.
    pub action: Option<Action>,
    /// Only this outcome.
    pub outcome: Option<Outcome>,
    /// Only on a resource whose name contains this text; case of ASCII letters does not matter.
    pub resource: Option<String>,
    /// Only where resource, reason or name contain this text; case of ASCII letters does not matter.
    pub text: Option<String>,
    /// How often an operation that has ended appears.
    pub brackets: Brackets,
}

/// How often an operation that has ended appears in what a search finds.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Brackets {
    /// Twice: the event that opened it and the one that closed it.
    #[default]
    Both,
    /// Once, by the event that closed it, and without what was noted as intended in between. What is still open appears
    /// by the event that opened it.
    Once,
}

/// The place of one event in the order that [`Store::search_trail`] uses: by time, then node, then number.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TrailPlace {
    /// When it happened.
    pub at: OffsetDateTime,
    /// Whose log it is in.
    pub node: NodeId,
    /// Its number there.
    pub seq: Seq,
}

impl TrailRow {
    /// Its place, to continue a search after it.
    pub fn place(&self) -> TrailPlace {
        TrailPlace { at: self.at, node: self.node, seq: self.seq }
    }
}

#[derive(sqlx::FromRow)]
struct Row {
    node: String,
    seq: i64,
    at: i64,
    request: String,
    phase: String,
    closes: Option<i64>,
    kind: String,
    user_id: Option<String>,
    user_name: Option<String>,
    peer: Option<String>,
    action: Option<String>,
    resource: String,
    outcome: String,
    reason: String,
    segment: i64,
    position: i64,
}

const COLUMNS: &str = "node, seq, at, request, phase, closes, kind, user_id, user_name, peer, action, resource, outcome, \
     reason, segment, position";

fn number(value: u64) -> i64 {
    i64::try_from(value).unwrap_or(i64::MAX)
}

fn unsigned(column: &'static str, value: i64) -> Result<u64, Error> {
    u64::try_from(value).map_err(|e| Error::corrupt("trail_events", column, e))
}

fn outcome(text: &str) -> Result<Outcome, Error> {
    use Outcome::{Abandoned, Denied, Done, Failed, Pending, StepUp};
    [Pending, Done, Denied, StepUp, Failed, Abandoned]
        .into_iter()
        .find(|o| o.word() == text)
        .ok_or_else(|| Error::corrupt("trail_events", "outcome", text))
}

impl TryFrom<Row> for TrailRow {
    type Error = Error;
    fn try_from(row: Row) -> Result<Self, Error> {
        const T: &str = "trail_events";
        let phase = match (row.phase.as_str(), row.closes) {
            ("opened", None) => Phase::Opened,
            ("noted", None) => Phase::Noted,
            ("closed", Some(seq)) => Phase::Closed(Seq(unsigned("closes", seq)?)),
            (other, _) => return Err(Error::corrupt(T, "phase", other)),
        };
        Ok(Self {
            node: parse(T, "node", &row.node)?,
            seq: Seq(unsigned("seq", row.seq)?),
            at: from_micros(row.at),
            request: parse(T, "request", &row.request)?,
            phase,
            kind: row.kind,
            user: row.user_id.map(|u| parse(T, "user_id", &u)).transpose()?,
            user_name: row.user_name,
            peer: row.peer.map(|p| parse(T, "peer", &p)).transpose()?,
            action: row.action.map(|a| parse(T, "action", &a)).transpose()?,
            resource: row.resource,
            outcome: outcome(&row.outcome)?,
            reason: row.reason,
            segment: unsigned("segment", row.segment)?,
            offset: unsigned("position", row.position)?,
        })
    }
}

macro_rules! push_rows {
    ($builder:ident, $rows:expr) => {
        $builder.push_values($rows, |mut b, r: &TrailRow| {
            let (phase, closes) = match r.phase {
                Phase::Opened => ("opened", None),
                Phase::Noted => ("noted", None),
                Phase::Closed(seq) => ("closed", Some(number(seq.0))),
            };
            b.push_bind(r.node.to_string())
                .push_bind(number(r.seq.0))
                .push_bind(micros(r.at))
                .push_bind(r.request.to_string())
                .push_bind(phase)
                .push_bind(closes)
                .push_bind(r.kind.clone())
                .push_bind(r.user.map(|u| u.to_string()))
                .push_bind(r.user_name.clone())
                .push_bind(r.peer.map(|p| p.to_string()))
                .push_bind(r.action.map(Action::word))
                .push_bind(r.resource.clone())
                .push_bind(r.outcome.word())
                .push_bind(r.reason.clone())
                .push_bind(number(r.segment))
                .push_bind(number(r.offset));
        })
    };
}

macro_rules! push_filter {
    ($b:ident, $f:expr, $limit:expr, $before:expr) => {{
        let f = $f;
        $b.push(" where 1 = 1");
        if let Some(v) = f.node {
            $b.push(" and node = ").push_bind(v.to_string());
        }
        if let Some(v) = f.from {
            $b.push(" and at >= ").push_bind(micros(v));
        }
        if let Some(v) = f.until {
            $b.push(" and at < ").push_bind(micros(v));
        }
        if let Some(v) = f.user {
            $b.push(" and user_id = ").push_bind(v.to_string());
        }
        if let Some(v) = &f.user_name {
            $b.push(" and user_name = ").push_bind(v.clone());
        }
        if let Some(v) = f.request {
            $b.push(" and request = ").push_bind(v.to_string());
        }
        if let Some(v) = &f.kind {
            $b.push(" and kind = ").push_bind(v.clone());
        }
        if let Some(v) = f.action {
            $b.push(" and action = ").push_bind(v.word());
        }
        if let Some(v) = f.outcome {
            $b.push(" and outcome = ").push_bind(v.word());
        }
        if let Some(v) = &f.resource {
            $b.push(" and lower(resource) like ").push_bind(contains(v)).push(" escape '!'");
        }
        if let Some(v) = &f.text {
            let like = contains(v);
            $b.push(" and (lower(resource) like ").push_bind(like.clone()).push(" escape '!' or lower(reason) like ");
            $b.push_bind(like.clone()).push(" escape '!' or lower(coalesce(user_name, '')) like ");
            $b.push_bind(like).push(" escape '!')");
        }
        if f.brackets == Brackets::Once {
            $b.push(
                " and not (phase = 'opened' and exists (select 1 from trail_events as closing \
                 where closing.node = trail_events.node and closing.closes = trail_events.seq)) \
                 and not (phase = 'noted' and outcome = 'pending' and exists (select 1 from trail_events as closing \
                 where closing.request = trail_events.request and closing.phase = 'closed'))",
            );
        }
        if let Some(p) = $before {
            let (at, node) = (micros(p.at), p.node.to_string());
            $b.push(" and (at < ").push_bind(at).push(" or at = ").push_bind(at).push(" and (node < ");
            $b.push_bind(node.clone()).push(" or node = ").push_bind(node).push(" and seq < ");
            $b.push_bind(number(p.seq.0)).push("))");
        }
        $b.push(" order by at desc, node desc, seq desc limit ").push_bind(i64::from($limit));
    }};
}

/// A pattern for `like … escape '!'`: the text anywhere, its own wildcards taken literally.
fn contains(text: &str) -> String {
    let mut pattern = String::from("%");
    for c in text.chars() {
        if matches!(c, '%' | '_' | '!') {
            pattern.push('!');
        }
        pattern.push(c.to_ascii_lowercase());
    }
    pattern.push('%');
    pattern
}

impl Store {
    /// Indexes events; those that the index has already are left as they are.
    pub async fn add_trail(&self, rows: &[TrailRow]) -> Result<(), Error> {
        if rows.is_empty() {
            return Ok(());
        }
        let head = format!("insert into trail_events ({COLUMNS}) ");
        let mut tx = self.begin().await?;
        for batch in rows.chunks(BATCH) {
            match &mut tx.on {
                On::Sqlite(t) => {
                    let mut b = QueryBuilder::new(head.as_str());
                    push_rows!(b, batch);
                    b.push(" on conflict do nothing").build().execute(&mut **t).await.map(drop)
                }
                On::Postgres(t) => {
                    let mut b = QueryBuilder::new(head.as_str());
                    push_rows!(b, batch);
                    b.push(" on conflict do nothing").build().execute(&mut **t).await.map(drop)
                }
            }
            .map_err(Error::sql)?;
        }
        tx.commit().await
    }

    /// The newest matching events first, at most `limit`, only those that come after `before` in that order.
    pub async fn search_trail(
        &self,
        filter: &TrailFilter,
        limit: u32,
        before: Option<TrailPlace>,
    ) -> Result<Vec<TrailRow>, Error> {
        let head = format!("select {COLUMNS} from trail_events");
        let rows = match &self.db {
            Db::Sqlite { read, .. } => {
                let mut b = QueryBuilder::new(head);
                push_filter!(b, filter, limit, before);
                b.build_query_as::<Row>().fetch_all(read).await
            }
            Db::Postgres(pool) => {
                let mut b = QueryBuilder::new(head);
                push_filter!(b, filter, limit, before);
                b.build_query_as::<Row>().fetch_all(pool).await
            }
        };
        rows.map_err(Error::sql)?.into_iter().map(TrailRow::try_from).collect()
    }

    /// One event of a node's log.
    pub async fn trail_row(&self, node: NodeId, seq: Seq) -> Result<Option<TrailRow>, Error> {
        let Ok(number) = i64::try_from(seq.0) else { return Ok(None) };
        let rows = read!(
            self,
            Row,
            "select node, seq, at, request, phase, closes, kind, user_id, user_name, peer, action, resource, outcome, \
             reason, segment, position from trail_events where node = $1 and seq = $2",
            node.to_string(),
            number
        )?;
        rows.into_iter().next().map(TrailRow::try_from).transpose()
    }

    /// The number of the event that closed the operation which an event opened.
    pub async fn trail_closing(&self, node: NodeId, opened: Seq) -> Result<Option<Seq>, Error> {
        let Ok(number) = i64::try_from(opened.0) else { return Ok(None) };
        let rows = read!(
            self,
            (i64,),
            "select seq from trail_events where node = $1 and closes = $2 order by seq limit 1",
            node.to_string(),
            number
        )?;
        rows.first().map(|r| unsigned("seq", r.0).map(Seq)).transpose()
    }

    /// The greatest number of a node's log that the index holds.
    pub async fn trail_head(&self, node: NodeId) -> Result<Option<Seq>, Error> {
        let rows = read!(self, (Option<i64>,), "select max(seq) from trail_events where node = $1", node.to_string())?;
        rows.first().and_then(|r| r.0).map(|seq| unsigned("seq", seq).map(Seq)).transpose()
    }

    /// Forgets a node's events, to index its log again; gives how many there were.
    pub async fn clear_trail(&self, node: NodeId) -> Result<u64, Error> {
        let mut tx = self.begin().await?;
        let gone = execute!(tx, "delete from trail_events where node = $1", node.to_string())?;
        tx.commit().await?;
        Ok(gone)
    }
}

#[cfg(test)]
mod tests;
