// SPDX-License-Identifier: Apache-2.0
//! The index: rows in the store by which events are found. What is shown is read from the log.

use crate::{
    error::Error,
    read::{Follow, Placed, Reader},
    trail::Trail,
};
use portcullis_domain::{Event, NodeId, Seq, micros};
use portcullis_store::{Store, TrailFilter, TrailPlace, TrailRow};
use std::time::{Duration, Instant};

/// Events that go into the store in one transaction.
const BATCH: usize = 500;
/// How long the index lets events gather; a search may miss those that are younger.
const LAG: Duration = Duration::from_millis(50);
/// While events come faster than this, in events a second, the index takes its time: answering people comes first.
const STORM: u64 = 1_000;
/// How many times as long as it worked the index then rests, and how long at most.
const RESTS: u32 = 99;
const REST: Duration = Duration::from_secs(1);
/// How long the index rests when the store refuses.
const PAUSE: Duration = Duration::from_secs(1);

/// One event that a search found.
#[derive(Debug, Clone, PartialEq)]
pub struct Found {
    /// What the index says.
    pub row: TrailRow,
    /// The event itself from the log; none when it is in another node's log, and then the index is all there is.
    pub event: Option<Event>,
}

fn row(node: NodeId, placed: Placed) -> TrailRow {
    let Placed { seq, segment, offset, event } = placed;
    TrailRow {
        node,
        seq,
        at: event.at(),
        request: event.request,
        phase: event.phase,
        kind: event.kind.to_string(),
        user: event.subject.as_ref().map(|s| s.user),
        user_name: event.subject.as_ref().map(|s| s.name.to_string()),
        peer: event.peer,
        action: event.action,
        resource: event.resource.to_string(),
        outcome: event.outcome,
        reason: event.reason.to_string(),
        segment,
        offset,
    }
}

fn read_batch(run: &mut Follow, node: NodeId, count: u64) -> Result<Vec<TrailRow>, Error> {
    let mut rows = Vec::new();
    while rows.len() < BATCH
        && let Some(placed) = run.next(count)?
    {
        rows.push(row(node, placed));
    }
    Ok(rows)
}

impl Trail {
    /// Fills the index until the trail is closed; a store that refuses is tried again each second. Ends with an error
    /// when the trail fails, when the log cannot be read, or with [`Error::Cut`] when the index knows of events that
    /// the log does not hold.
    pub async fn index(self, store: Store) -> Result<(), Error> {
        let node = self.node();
        let indexed = loop {
            match store.trail_head(node).await {
                Ok(head) => break head.map_or(0, |seq| seq.0 + 1),
                Err(why) => pause(&why).await,
            }
        };
        let found = self.durable_count();
        if indexed > found {
            return Err(Error::Cut { known: indexed, found });
        }
        let mut next = indexed;
        let mut run = self.reader().follow(Seq(next))?;
        loop {
            let ended = self.settled(Seq(next)).await.err();
            if ended.is_none() {
                tokio::time::sleep(LAG).await;
            }
            let (mut looked, mut seen) = (Instant::now(), self.durable_count());
            loop {
                let rows = read_batch(&mut run, node, self.durable_count())?;
                let Some(last) = rows.last() else { break };
                next = last.seq.0 + 1;
                while let Err(why) = store.add_trail(&rows).await {
                    pause(&why).await;
                }
                let (worked, came) = (looked.elapsed(), self.durable_count() - seen);
                if ended.is_none() && came > STORM * u64::try_from(worked.as_millis()).unwrap_or(u64::MAX) / 1_000 {
                    tokio::time::sleep((worked * RESTS).min(REST)).await;
                }
                (looked, seen) = (Instant::now(), self.durable_count());
            }
            match ended {
                None => {}
                Some(Error::Closed) => return Ok(()),
                Some(why) => return Err(why),
            }
        }
    }
}

async fn pause(why: &portcullis_store::Error) {
    tracing::warn!(error = %why, "the index of the trail waits for the store");
    tokio::time::sleep(PAUSE).await;
}

/// Forgets a log's rows and indexes it again from its files; gives how many events that were. A writer may be beside.
pub async fn rebuild(reader: &Reader, store: &Store) -> Result<u64, Error> {
    let Some(node) = reader.node()? else { return Ok(0) };
    let count = reader.count()?;
    store.clear_trail(node).await.map_err(Error::index)?;
    let mut run = reader.follow(Seq(0))?;
    let mut done = 0;
    loop {
        let rows = read_batch(&mut run, node, count)?;
        if rows.is_empty() {
            return Ok(done);
        }
        store.add_trail(&rows).await.map_err(Error::index)?;
        done += rows.len() as u64;
    }
}

/// The newest events that match, newest first, at most `limit`, only those after `before` in that order. Those of the
/// reader's own log are read from it; one that is not where the index says is an error, not a guess.
pub async fn search(
    reader: &Reader,
    store: &Store,
    filter: &TrailFilter,
    limit: u32,
    before: Option<TrailPlace>,
) -> Result<Vec<Found>, Error> {
    let own = reader.node()?;
    let rows = store.search_trail(filter, limit, before).await.map_err(Error::index)?;
    rows.into_iter()
        .map(|row| {
            if own != Some(row.node) {
                return Ok(Found { row, event: None });
            }
            let event = reader.event(row.segment, row.offset)?;
            let event = event.filter(|e| e.at_us == micros(row.at) && e.request == row.request && e.phase == row.phase);
            match event {
                Some(event) => Ok(Found { row, event: Some(event) }),
                None => Err(Error::Misplaced(row.seq)),
            }
        })
        .collect()
}
