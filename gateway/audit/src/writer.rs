// SPDX-License-Identifier: Apache-2.0
//! The one thread that writes a log: it swaps the batch, seals it with a commit, writes, flushes, publishes.
//! A write or a flush that failed is never tried again: what the kernel then says about the file means nothing.

use crate::{
    checkpoint::{Checkpoint, Head},
    error::Error,
    frame::{Commit, Header, Mark},
    keys::{LogId, Ring, Spot},
    segment::{Area, Filler},
    shared::{Batch, Bracket, Patience, Shared, Work},
    sidecar::Sidecar,
    trail::Settings,
    tree::Frontier,
};
use portcullis_domain::{Clock, micros};
use std::{
    collections::BTreeSet,
    io,
    path::PathBuf,
    sync::Arc,
    time::{Duration, Instant},
};

/// How long an event that nobody waits for may rest: it then mostly shares the commit of one that is waited for.
const REST: Duration = Duration::from_millis(2);
/// How long after a commit the writer looks for waiters whose leader did not come.
const SWEEP: Duration = Duration::from_millis(5);
/// From this many operations at once on, the next commit waits for all of them to wait for it.
const CROWD: usize = 3;
/// How long the writer watches for the answer of one or a few waiters instead of sleeping: going to sleep and being woken
/// takes about as long, and more CPU.
const WATCH: Duration = Duration::from_micros(15);
/// The room that a segment keeps for its last checkpoint, in bytes, without the list of open operations.
const CLOSING_ROOM: usize = 2048;

/// Where a log stands: what the writer goes on from.
pub(crate) struct State {
    pub(crate) log: LogId,
    pub(crate) segment: u64,
    pub(crate) area: Arc<Area>,
    /// Where the first frame of the segment after its header goes.
    pub(crate) start: u64,
    /// Where the next frame goes.
    pub(crate) offset: u64,
    pub(crate) frontier: Frontier,
    pub(crate) open: BTreeSet<u64>,
    /// Events that the newest checkpoint covers.
    pub(crate) marked: u64,
}

pub(crate) struct Writer {
    /// The first event of the batch before.
    pub(crate) before: u64,
    pub(crate) shared: Arc<Shared>,
    pub(crate) state: State,
    pub(crate) dir: PathBuf,
    pub(crate) ring: Ring,
    pub(crate) filler: Filler,
    pub(crate) sidecar: Sidecar,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) settings: Settings,
}

type Failure = (&'static str, io::Error);

fn failing(doing: &'static str) -> impl FnOnce(io::Error) -> Failure {
    move |e| (doing, e)
}

/// Asks for real-time scheduling: beside other load an ordinary writer waits longer for a CPU than for the disk.
fn hasten() {
    use thread_priority::{
        RealtimeThreadSchedulePolicy, ThreadPriority, ThreadPriorityValue, ThreadSchedulePolicy,
        set_thread_priority_and_policy, thread_native_id,
    };
    let Ok(lowest) = ThreadPriorityValue::try_from(1) else { return };
    let fifo = ThreadSchedulePolicy::Realtime(RealtimeThreadSchedulePolicy::Fifo);
    let asked = set_thread_priority_and_policy(thread_native_id(), ThreadPriority::Crossplatform(lowest), fifo);
    if let Err(why) = asked {
        tracing::debug!(?why, "the trail's writer runs without real-time priority");
    }
}

impl Writer {
    /// Works until the trail is closed or fails.
    pub(crate) fn run(mut self) {
        hasten();
        let why = match self.work() {
            Ok(()) => Error::Closed,
            Err((doing, source)) => {
                tracing::error!(%doing, error = %source, "the trail failed; no operation is accepted any more");
                Error::Failed { doing, source: Arc::new(source) }
            }
        };
        self.shared.end(why);
    }

    fn work(&mut self) -> Result<(), Failure> {
        let (mut batch, mut frontier) = (Batch::default(), Frontier::default());
        let (mut crowd, mut started) = (0_usize, Instant::now());
        let mut marked_at = started;
        // With one CPU whoever would bring the next event cannot run while it is watched for.
        let alone = std::thread::available_parallelism().map_or(true, |n| n.get() == 1);
        let mut swept = (started, self.state.frontier.size());
        loop {
            let now = Instant::now();
            let patience = Patience {
                watch: if !alone && (1..CROWD).contains(&crowd) { WATCH } else { Duration::ZERO },
                gather: (crowd >= CROWD)
                    .then(|| (u32::try_from(crowd).unwrap_or(u32::MAX), started + self.settings.gather)),
                linger: now + REST,
                rest: REST,
                checkpoint: (self.state.frontier.size() > self.state.marked)
                    .then(|| marked_at + self.settings.checkpoint_every),
            };
            batch.clear();
            let work = self.shared.take(&mut batch, &mut frontier, &patience);
            started = Instant::now();
            if let Work::Stop = work {
                self.commit(&mut batch, &frontier, Due::Anyway)?;
                return self.sidecar.sync().map_err(failing("flush the checkpoints of the trail"));
            }
            let late = started.duration_since(marked_at) >= self.settings.checkpoint_every;
            let due = if late || matches!(work, Work::Checkpoint) { Due::Anyway } else { Due::ByCount };
            let before = self.state.marked;
            crowd = self.commit(&mut batch, &frontier, due)?;
            if self.state.marked != before {
                marked_at = started;
            }
            if started.duration_since(swept.0) >= SWEEP {
                // under steady load there is no silence in which to look for waiters whose leader did not come
                self.shared.wake_all(swept.1);
                swept = (started, self.state.frontier.size());
            }
        }
    }

    /// Writes a batch; gives how many may come back for the next one: who waited for it, or has an operation that was
    /// opened in it or just before and goes on.
    fn commit(&mut self, batch: &mut Batch, frontier: &Frontier, due: Due) -> Result<usize, Failure> {
        let room = self.settings.segment_bytes.saturating_sub(self.state.offset);
        let wanted = batch.frames.len() + CLOSING_ROOM + self.state.open.len() * 10;
        if batch.count > 0 && room < wanted as u64 && self.state.offset > self.state.start {
            self.rotate()?;
        }
        for bracket in &batch.brackets {
            match bracket {
                Bracket::Opens(seq) => self.state.open.insert(*seq),
                Bracket::Closes(seq) => self.state.open.remove(seq),
            };
        }
        let head = Head { size: frontier.size(), root: frontier.root() };
        if batch.count > 0 {
            let offset = self.state.offset + batch.frames.len() as u64;
            let commit = Commit { first: batch.first, count: batch.count, root: head.root };
            commit.write(&mut batch.frames, &self.ring, &self.spot(offset));
            self.state.frontier.copy_from(frontier);
        }
        let fresh = head.size - self.state.marked;
        let note = match due {
            Due::Anyway if fresh > 0 => Some(self.mark(&mut batch.frames, head)?),
            Due::ByCount if fresh >= self.settings.checkpoint_events => Some(self.mark(&mut batch.frames, head)?),
            _ => None,
        };
        if batch.frames.is_empty() {
            return Ok(0);
        }
        self.state.area.write(&batch.frames, self.state.offset).map_err(failing("write the trail"))?;
        self.state.area.sync().map_err(failing("flush the trail"))?;
        let written = batch.frames.len() as u64;
        self.state.offset += written;
        let waited = if batch.count > 0 { self.shared.publish(head) } else { 0 };
        if let Some((note, offset)) = note {
            self.sidecar.publish(&note).map_err(failing("write the checkpoints of the trail"))?;
            self.sidecar.point(self.state.segment, offset).map_err(failing("write the hint of the trail"))?;
            self.state.marked = head.size;
        }
        let quarter = self.settings.segment_bytes / 4;
        if self.state.offset >= quarter && self.state.offset - written < quarter {
            self.filler.prepare();
        }
        // Who has not waited yet (a hypervisor is still at work) counts too, and so do those of the batch before: two
        // crowds that take turns become one, and share its commits.
        let lately = self.state.open.range(self.before..).count();
        self.before = batch.first;
        Ok(lately.max(waited))
    }

    fn spot(&self, offset: u64) -> Spot {
        Spot { log: self.state.log, segment: self.state.segment, offset }
    }

    /// Appends a checkpoint of the state to what is about to be written.
    fn mark(&self, frames: &mut Vec<u8>, head: Head) -> Result<(String, u64), Failure> {
        let note = Checkpoint::sign(&self.state.log, head, micros(self.clock.now()), &self.ring);
        let offset = self.state.offset + frames.len() as u64;
        let open = self.state.open.iter().copied().collect();
        Mark::new(note.clone(), &self.state.frontier, open)
            .write(frames, &self.ring, &self.spot(offset))
            .map_err(|e| ("write a checkpoint of the trail", io::Error::other(e)))?;
        Ok((note, offset))
    }

    /// Ends this segment with a checkpoint and begins the next one. Its header is durable before the file gets its
    /// name, so a segment without a whole header is a damaged one.
    fn rotate(&mut self) -> Result<(), Failure> {
        let mut last = Batch::default();
        let frontier = self.state.frontier.clone();
        self.commit(&mut last, &frontier, Due::Anyway)?;
        let segment = self.state.segment + 1;
        let open = self.state.open.iter().copied().collect();
        let header = Header::new(self.state.log, segment, &self.state.frontier, open)
            .write(&self.ring)
            .map_err(|e| ("write the head of a segment of the trail", io::Error::other(e)))?;
        let area = self.filler.take().map_err(failing("make the next segment of the trail"))?;
        area.write(&header, 0).map_err(failing("write the head of a segment of the trail"))?;
        area.sync().map_err(failing("flush the head of a segment of the trail"))?;
        self.filler.place(&self.dir, segment).map_err(failing("name the next segment of the trail"))?;
        self.filler.extend(&area);
        (self.state.segment, self.state.area) = (segment, area);
        (self.state.start, self.state.offset) = (header.len() as u64, header.len() as u64);
        Ok(())
    }
}

impl Drop for Writer {
    // whatever ends the thread, nobody waits for it for ever
    fn drop(&mut self) {
        self.shared.end(Error::Closed);
    }
}

/// Whether a checkpoint is due.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Due {
    /// If anything is new.
    Anyway,
    /// If enough events are new.
    ByCount,
}
