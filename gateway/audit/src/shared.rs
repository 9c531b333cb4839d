// SPDX-License-Identifier: Apache-2.0
//! What those who append, those who wait and the writer share.

use crate::{
    checkpoint::Head,
    error::Error,
    frame::{self, Line, MAX_BATCH},
    segment::lock,
    tree::{self, Frontier},
    turns,
    wait::Waiters,
};
use portcullis_domain::{Phase, Seq};
use serde::Serialize;
use std::{
    cell::Cell,
    sync::{
        Arc, Condvar, Mutex, OnceLock, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

/// Whether someone holds a request back until an event is durable.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Hurry {
    /// Yes: commit as soon as the disk is free.
    Now,
    /// No: within a few milliseconds.
    Lazy,
}

/// What an event does to the list of open operations.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Bracket {
    Opens(u64),
    Closes(u64),
}

/// Events that wait for the disk.
#[derive(Default)]
pub(crate) struct Batch {
    pub(crate) frames: Vec<u8>,
    pub(crate) first: u64,
    pub(crate) count: u32,
    pub(crate) brackets: Vec<Bracket>,
    urgent: bool,
    /// How many wait for one of them.
    waiting: u32,
}

impl Batch {
    /// Empties it and keeps its memory, unless that is much.
    pub(crate) fn clear(&mut self) {
        self.frames.clear();
        self.frames.shrink_to(1024 * 1024);
        self.brackets.clear();
        (self.count, self.waiting, self.urgent) = (0, 0, false);
    }
}

/// What the writer sleeps for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Sleep {
    /// Nothing: it is at work and will look.
    Awake,
    /// Any event.
    Idle,
    /// An event that someone waits for.
    Lingering,
    /// This many who wait.
    Gathering(u32),
}

struct Gate {
    batch: Batch,
    next: u64,
    frontier: Frontier,
    sleep: Sleep,
    stop: bool,
}

impl Gate {
    fn wakes_writer(&mut self) -> bool {
        let due = match self.sleep {
            Sleep::Awake => false,
            Sleep::Idle => true,
            Sleep::Lingering => self.batch.urgent,
            Sleep::Gathering(crowd) => self.batch.waiting >= crowd,
        };
        if due {
            self.sleep = Sleep::Awake;
        }
        due
    }
}

/// What the writer gets to do.
pub(crate) enum Work {
    /// Write what was swapped in.
    Commit,
    /// Only a checkpoint is due.
    Checkpoint,
    /// Write what was swapped in, then end.
    Stop,
}

/// Until when the writer waits, and for what.
pub(crate) struct Patience {
    /// Look for the next event so long without sleeping.
    pub(crate) watch: Duration,
    /// Let this many waiters gather, at most until then.
    pub(crate) gather: Option<(u32, Instant)>,
    /// Events that nobody waits for may rest until then.
    pub(crate) linger: Instant,
    /// How long they may rest when they end a silence.
    pub(crate) rest: Duration,
    /// A checkpoint is due then.
    pub(crate) checkpoint: Option<Instant>,
}

pub(crate) struct Shared {
    pub(crate) id: u64,
    gate: Mutex<Gate>,
    work: Condvar,
    /// Whether the batch holds anything: a hint for who looks without the lock.
    news: AtomicBool,
    /// How many events are durable: the one number that is published.
    durable: AtomicU64,
    /// Why no more will be, once that is so.
    ended: OnceLock<Error>,
    lists: Mutex<Vec<Arc<Waiters>>>,
    head: Mutex<Head>,
}

thread_local! {
    static SCRATCH: Cell<Vec<u8>> = const { Cell::new(Vec::new()) };
}

static IDS: AtomicU64 = AtomicU64::new(0);

impl Shared {
    /// The state of a log that holds what its frontier says.
    pub(crate) fn new(frontier: Frontier) -> Self {
        let head = Head { size: frontier.size(), root: frontier.root() };
        Self {
            id: IDS.fetch_add(1, Ordering::Relaxed),
            durable: AtomicU64::new(head.size),
            gate: Mutex::new(Gate {
                batch: Batch { first: head.size, ..Batch::default() },
                next: head.size,
                frontier,
                sleep: Sleep::Awake,
                stop: false,
            }),
            work: Condvar::new(),
            news: AtomicBool::new(false),
            ended: OnceLock::new(),
            lists: Mutex::default(),
            head: Mutex::new(head),
        }
    }

    /// Takes an event in and gives its number.
    pub(crate) fn append<D: Serialize>(&self, event: &Line<'_, D>) -> Result<Seq, Error> {
        if let Some(why) = self.ended.get() {
            return Err(why.clone());
        }
        // a thread that is ending has no scratch any more, and takes a new one
        let mut scratch = SCRATCH.try_with(Cell::take).unwrap_or_default();
        let seq = self.append_with(event, &mut scratch);
        let _kept = SCRATCH.try_with(|s| s.set(scratch));
        seq
    }

    fn append_with<D: Serialize>(&self, event: &Line<'_, D>, scratch: &mut Vec<u8>) -> Result<Seq, Error> {
        // encoded and hashed before the lock: what is left under it is a copy and one inner node
        let leaf = tree::sha256(frame::write_event(scratch, event)?);
        let mut gate = lock(&self.gate);
        if gate.stop {
            return Err(self.ended().unwrap_or(Error::Closed));
        }
        if gate.batch.frames.len() + scratch.len() > MAX_BATCH {
            return Err(Error::Behind(gate.batch.frames.len()));
        }
        let seq = gate.next;
        gate.next += 1;
        gate.frontier.push(leaf);
        gate.batch.frames.extend_from_slice(scratch);
        gate.batch.count += 1;
        self.news.store(true, Ordering::Relaxed);
        match event.phase {
            Phase::Opened => {
                gate.batch.brackets.push(Bracket::Opens(seq));
                gate.batch.urgent = true;
            }
            Phase::Closed(opened) => gate.batch.brackets.push(Bracket::Closes(opened.0)),
            Phase::Noted => {}
        }
        let sleeps = gate.sleep != Sleep::Awake;
        drop(gate);
        if sleeps && !turns::ask(self, 0) {
            self.nudge(0);
        }
        Ok(Seq(seq))
    }

    /// Someone waits for an event: the writer must not let it rest.
    pub(crate) fn urge(&self, seq: u64, hurry: Hurry) {
        if hurry == Hurry::Lazy {
            return;
        }
        {
            let mut gate = lock(&self.gate);
            if gate.batch.count == 0 || seq < gate.batch.first {
                return;
            }
            gate.batch.urgent = true;
        }
        if !turns::ask(self, 1) {
            self.nudge(1);
        }
    }

    /// Wakes the writer if it sleeps and what waits, with this many more waiters, is what it sleeps for.
    pub(crate) fn nudge(&self, waiters: u32) {
        let mut gate = lock(&self.gate);
        gate.batch.waiting += waiters;
        let wakes = gate.batch.count > 0 && gate.wakes_writer();
        drop(gate);
        if wakes {
            self.work.notify_one();
        }
    }

    /// Swaps the waiting events into `batch` (which is empty) and the tree over them into `frontier`, when it is time.
    pub(crate) fn take(&self, batch: &mut Batch, frontier: &mut Frontier, patience: &Patience) -> Work {
        let watched = Instant::now();
        while watched.elapsed() < patience.watch && !self.news.load(Ordering::Relaxed) {
            std::hint::spin_loop();
        }
        let mut gate = lock(&self.gate);
        if let Some((crowd, until)) = patience.gather {
            while gate.batch.waiting < crowd && !gate.stop {
                let left = until.saturating_duration_since(Instant::now());
                if left.is_zero() {
                    break;
                }
                gate.sleep = Sleep::Gathering(crowd);
                gate = self.work.wait_timeout(gate, left).unwrap_or_else(PoisonError::into_inner).0;
            }
        }
        let mut linger = patience.linger;
        let mut swept = false;
        let work = loop {
            gate.sleep = Sleep::Awake;
            let now = Instant::now();
            if gate.stop {
                break Work::Stop;
            }
            if gate.batch.urgent || gate.batch.count > 0 && now >= linger {
                break Work::Commit;
            }
            if patience.checkpoint.is_some_and(|at| now >= at) {
                break if gate.batch.count > 0 { Work::Commit } else { Work::Checkpoint };
            }
            let idle = gate.batch.count == 0 && now >= linger;
            if idle && !swept {
                // those whose leader was not polled
                swept = true;
                drop(gate);
                self.wake_all(self.reach());
                gate = lock(&self.gate);
                continue;
            }
            gate.sleep = if idle { Sleep::Idle } else { Sleep::Lingering };
            let until = match (idle, patience.checkpoint) {
                (true, at) => at,
                (false, at) => Some(at.map_or(linger, |at| at.min(linger))),
            };
            gate = match until {
                None => self.work.wait(gate).unwrap_or_else(PoisonError::into_inner),
                Some(at) => {
                    let left = at.saturating_duration_since(now);
                    self.work.wait_timeout(gate, left).unwrap_or_else(PoisonError::into_inner).0
                }
            };
            if idle {
                linger = Instant::now() + patience.rest;
            }
        };
        gate.sleep = Sleep::Awake;
        std::mem::swap(&mut gate.batch, batch);
        self.news.store(false, Ordering::Relaxed);
        gate.batch.first = gate.next;
        frontier.copy_from(&gate.frontier);
        work
    }

    /// How many events are durable, or everything when there will be no more: nobody need wait for less.
    pub(crate) fn reach(&self) -> u64 {
        if self.ended.get().is_some() { u64::MAX } else { self.durable.load(Ordering::Acquire) }
    }

    /// How many events are durable.
    pub(crate) fn durable(&self) -> u64 {
        self.durable.load(Ordering::Acquire)
    }

    /// What became of an event, if that is known.
    pub(crate) fn outcome(&self, seq: u64) -> Option<Result<(), Error>> {
        if seq < self.durable.load(Ordering::Acquire) {
            return Some(Ok(()));
        }
        self.ended.get().map(|why| Err(why.clone()))
    }

    /// Publishes what is durable and wakes one of each thread; gives how many waited for it.
    pub(crate) fn publish(&self, head: Head) -> usize {
        *lock(&self.head) = head;
        self.durable.store(head.size, Ordering::Release);
        let mut waited = 0;
        let mut lists = lock(&self.lists);
        lists.retain(|list| !list.is_forsaken());
        for list in lists.iter() {
            waited += list.lead(head.size);
        }
        waited
    }

    /// Wakes each of those whose event is among the first `durable` ones.
    pub(crate) fn wake_all(&self, durable: u64) {
        let lists = lock(&self.lists).clone();
        for list in lists {
            list.wake(durable);
        }
    }

    /// No event will become durable any more.
    pub(crate) fn end(&self, why: Error) {
        let _first = self.ended.set(why);
        lock(&self.gate).stop = true;
        self.wake_all(u64::MAX);
    }

    /// Asks the writer to write what waits and to end.
    pub(crate) fn stop(&self) {
        lock(&self.gate).stop = true;
        self.work.notify_one();
    }

    pub(crate) fn ended(&self) -> Option<Error> {
        self.ended.get().cloned()
    }

    pub(crate) fn head(&self) -> Head {
        *lock(&self.head)
    }

    pub(crate) fn enlist(&self, list: &Arc<Waiters>) {
        lock(&self.lists).push(Arc::clone(list));
    }
}
