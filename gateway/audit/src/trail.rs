// SPDX-License-Identifier: Apache-2.0
//! The handle on a log that is being written.

use crate::{
    checkpoint::Head,
    error::Error,
    frame::Line,
    keys::{Ring, TrailKeys},
    read::Reader,
    recover::{Opening, recover},
    segment::{self, Filler, lock},
    shared::{Hurry, Shared},
    sidecar::Sidecar,
    turns::Turns,
    wait::Durable,
    writer::Writer,
};
use portcullis_domain::{Clock, Event, NodeId, Outcome, Phase, Seq, micros};
use rustix::fs::FlockOperation;
use std::{
    fs::{self, DirBuilder, File, OpenOptions},
    os::unix::fs::DirBuilderExt,
    path::{Path, PathBuf},
    pin::pin,
    sync::{Arc, Mutex},
    task::{Context, Poll, Wake, Waker},
    thread::{self, JoinHandle, Thread},
    time::Duration,
};

/// The file whose lock says that a log has its writer.
const LOCK: &str = "lock";

/// Sizes and times of a log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Settings {
    /// Size of a segment file in bytes, at least 4,096. Two are on the disk at most times, besides those that are full.
    pub segment_bytes: u64,
    /// How much of a new file is filled before it is used, in bytes; the rest follows in the background.
    pub first_bytes: u64,
    /// Free space without which a log is not opened, in bytes.
    pub reserve_bytes: u64,
    /// At most so many events between two checkpoints. At least 1.
    pub checkpoint_events: u64,
    /// At most so long between two checkpoints, if anything was written.
    pub checkpoint_every: Duration,
    /// With several operations at once a commit begins this after the one before, or sooner, once all of them wait for
    /// it: they share it then. Less than hypervisors take to answer, so that most answers find their event durable.
    pub gather: Duration,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            segment_bytes: 64 * 1024 * 1024,
            first_bytes: 1024 * 1024,
            reserve_bytes: 64 * 1024 * 1024,
            checkpoint_events: 1000,
            checkpoint_every: Duration::from_mins(1),
            gather: Duration::from_millis(1),
        }
    }
}

/// What was found when a log was opened.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Recovered {
    /// Events in the log, before those that close what was abandoned.
    pub events: u64,
    /// Bytes after the last commit that a crash had left half written; none of them was acknowledged.
    pub torn_bytes: u64,
    /// Operations that were open, each closed now by an event with the outcome `Abandoned`.
    pub abandoned: Vec<Seq>,
}

struct Handle {
    shared: Arc<Shared>,
    writer: Mutex<Option<JoinHandle<()>>>,
    node: NodeId,
    clock: Arc<dyn Clock>,
    dir: PathBuf,
    // the lock goes with its descriptor, after the writer ended
    _lock: File,
}

/// A node's log, open for writing. Copies are handles on the same log; the last one that goes closes it.
#[derive(Clone)]
pub struct Trail(Arc<Handle>);

impl Trail {
    /// Opens a log, or begins one in an empty or missing folder, with default settings. It blocks on the disk.
    pub fn open(dir: &Path, keys: &TrailKeys, node: NodeId, clock: Arc<dyn Clock>) -> Result<(Self, Recovered), Error> {
        Self::open_with(dir, keys, node, clock, Settings::default())
    }

    /// Opens a log with settings. It blocks on the disk.
    pub fn open_with(
        dir: &Path,
        keys: &TrailKeys,
        node: NodeId,
        clock: Arc<dyn Clock>,
        settings: Settings,
    ) -> Result<(Self, Recovered), Error> {
        if settings.segment_bytes < 4096 {
            return Err(Error::Settings("segments must have 4,096 bytes or more"));
        }
        if settings.checkpoint_events == 0 {
            return Err(Error::Settings("checkpoints cannot be 0 events apart"));
        }
        let ring = Ring::new(keys)?;
        DirBuilder::new().recursive(true).mode(0o700).create(dir).map_err(Error::io("create", dir))?;
        let held = take_lock(dir)?;
        let space = rustix::fs::statvfs(dir).map_err(|e| Error::io("measure the space of", dir)(e.into()))?;
        let free = space.f_bavail.saturating_mul(space.f_frsize);
        if free < settings.reserve_bytes {
            return Err(Error::NoSpace { dir: dir.to_path_buf(), free, needed: settings.reserve_bytes });
        }
        let filler = Filler::start(dir, settings.first_bytes, settings.segment_bytes)?;
        let (mut sidecar, published) = Sidecar::open(dir, &ring.public)?;
        let opening = Opening { dir, node, ring: &ring, settings: &settings, filler: &filler };
        let (state, torn_bytes) = recover(&opening, &mut sidecar, published)?;
        filler.extend(&state.area);
        if state.offset >= settings.segment_bytes / 4 {
            filler.prepare();
        }
        let shared = Arc::new(Shared::new(state.frontier.clone()));
        let (events, open) = (state.frontier.size(), state.open.clone());
        let writer = Writer {
            before: events,
            shared: Arc::clone(&shared),
            state,
            dir: dir.to_path_buf(),
            ring,
            filler,
            sidecar,
            clock: Arc::clone(&clock),
            settings,
        };
        let thread = thread::Builder::new()
            .name("trail-writer".to_owned())
            .spawn(move || writer.run())
            .map_err(Error::io("start a thread for", dir))?;
        let trail = Self(Arc::new(Handle {
            shared,
            writer: Mutex::new(Some(thread)),
            node,
            clock,
            dir: dir.to_path_buf(),
            _lock: held,
        }));
        let abandoned = trail.abandon(open.iter().copied(), events)?;
        Ok((trail, Recovered { events, torn_bytes, abandoned }))
    }

    /// Closes what a crash left open, and waits until that is durable.
    fn abandon(&self, open: impl Iterator<Item = u64>, events: u64) -> Result<Vec<Seq>, Error> {
        let (mut follow, mut abandoned, mut last) = (None, Vec::new(), None);
        for seq in open {
            let run = match &mut follow {
                Some(run) => run,
                None => follow.insert(self.reader().follow(Seq(seq))?),
            };
            run.skip_to(seq);
            let opened = run.next(events)?.filter(|p| p.seq.0 == seq).ok_or(Error::Misplaced(Seq(seq)))?;
            last = Some(self.append(&Event {
                at_us: micros(self.0.clock.now()),
                phase: Phase::Closed(Seq(seq)),
                outcome: Outcome::Abandoned,
                reason: "the gateway ended while this was open".into(),
                details: Vec::new(),
                ..opened.event
            })?);
            abandoned.push(Seq(seq));
        }
        if let Some(last) = last {
            self.wait(last)?;
        }
        Ok(abandoned)
    }

    /// Takes an event in and gives its number. It does not block: durability is waited for with [`Trail::durable`].
    /// An event that opens an operation starts a commit at once; any other within 2 ms, or as soon as it is waited for.
    pub fn append(&self, event: &Event) -> Result<Seq, Error> {
        self.0.shared.append(&Line::of(event))
    }

    /// The same for an event whose parts are lent.
    pub(crate) fn append_line(&self, event: &Line<'_, &[(&str, &str)]>) -> Result<Seq, Error> {
        self.0.shared.append(event)
    }

    /// Resolves when an event is on the disk; an error when it will never be. The future needs no particular runtime.
    pub fn durable(&self, seq: Seq) -> Durable {
        Durable::new(Arc::clone(&self.0.shared), seq, Hurry::Now)
    }

    /// What makes a thread ask the writer once for all that its tasks append and wait for in one turn of its runtime,
    /// instead of once an event. Without it everything works the same, with more switches between threads.
    pub fn turns(&self) -> Turns {
        Turns::new(Arc::clone(&self.0.shared))
    }

    /// Like [`Trail::durable`], but without starting a commit: for whoever follows the log.
    pub(crate) fn settled(&self, seq: Seq) -> Durable {
        Durable::new(Arc::clone(&self.0.shared), seq, Hurry::Lazy)
    }

    /// Like [`Trail::durable`], blocking the thread: for the command line and for start and end.
    pub fn wait(&self, seq: Seq) -> Result<(), Error> {
        struct Unpark(Thread);
        impl Wake for Unpark {
            fn wake(self: Arc<Self>) {
                self.0.unpark();
            }
        }
        let waker = Waker::from(Arc::new(Unpark(thread::current())));
        let (mut future, mut context) = (pin!(self.durable(seq)), Context::from_waker(&waker));
        loop {
            match future.as_mut().poll(&mut context) {
                Poll::Ready(outcome) => return outcome,
                Poll::Pending => thread::park(),
            }
        }
    }

    /// How many events are durable, and the root over them.
    pub fn head(&self) -> Head {
        self.0.shared.head()
    }

    /// Why nothing is accepted any more; none while the trail works. Once there is a reason it stays.
    pub fn failure(&self) -> Option<Error> {
        self.0.shared.ended()
    }

    /// Whose log it is.
    pub fn node(&self) -> NodeId {
        self.0.node
    }

    /// Reads its events back.
    pub fn reader(&self) -> Reader {
        Reader::new(&self.0.dir)
    }

    pub(crate) fn clock(&self) -> &dyn Clock {
        self.0.clock.as_ref()
    }

    pub(crate) fn durable_count(&self) -> u64 {
        self.0.shared.durable()
    }

    /// Writes what waits, signs a last checkpoint and ends the writer; blocks for about one commit. Nothing is accepted
    /// afterwards. Closing again changes nothing.
    pub fn close(&self) -> Result<(), Error> {
        self.0.close();
        match self.failure() {
            Some(Error::Closed) | None => Ok(()),
            Some(why) => Err(why),
        }
    }
}

impl Handle {
    fn close(&self) {
        self.shared.stop();
        if let Some(thread) = lock(&self.writer).take()
            && thread.join().is_err()
        {
            self.shared.end(Error::Closed);
        }
    }
}

impl Drop for Handle {
    fn drop(&mut self) {
        self.close();
    }
}

fn take_lock(dir: &Path) -> Result<File, Error> {
    let path = dir.join(LOCK);
    let file = segment::open(&path, OpenOptions::new().create(true).truncate(false))
        .map_err(Error::io("open", path.as_path()))?;
    // a verifier that asks whether someone writes holds it for a moment
    for _ in 0..20 {
        match rustix::fs::flock(&file, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => return Ok(file),
            Err(rustix::io::Errno::WOULDBLOCK) => thread::sleep(Duration::from_millis(2)),
            Err(e) => return Err(Error::io("lock", path)(e.into())),
        }
    }
    Err(Error::InUse(dir.to_path_buf()))
}

/// Whether a process writes the log in a folder now.
pub fn is_live(dir: &Path) -> bool {
    let Ok(file) = fs::File::open(dir.join(LOCK)) else { return false };
    rustix::fs::flock(&file, FlockOperation::NonBlockingLockShared) == Err(rustix::io::Errno::WOULDBLOCK)
}
