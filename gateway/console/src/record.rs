// SPDX-License-Identifier: Apache-2.0
//! Recordings: what was on a screen and what was sent to it, sealed, in order, and nothing forwarded without it.
//!
//! One file a console session, written by a few shared threads. A console promises bytes to its recording before it
//! forwards them; it may promise only into space that is already reserved on disk, so that a full disk stops the
//! console and never the recording of what was shown. Buffers belong to the pool: an idle console holds none.
//! At most one second of a session is in memory only.
//!
//! ```text
//! begin → (ready → put)* → finish        any failure → failed for good, the relay ends
//! ```

mod format;
mod reader;
mod writer;

pub use format::EntryKind;
pub(crate) use format::cut_at_char;
pub use reader::{Entry, Finding, Reader, Wrong, verify};

use crate::{Error, rfb::WireNumber as _};
use format::{CHUNK_HEAD, CLOSING_HEAD, ENTRY_HEAD, MAX_CHUNK, MAX_CLOSING_TEXT, TAG};
use portcullis_domain::{Ending, RecordingId, Secret};
use serde::Deserialize;
use std::{
    collections::VecDeque,
    path::{Path, PathBuf},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
        mpsc,
    },
    task::{Context, Poll, Waker},
    thread::JoinHandle,
    time::{Duration, Instant},
};
use time::OffsetDateTime;
use tokio::sync::oneshot;
use writer::{Job, Writer};

/// Bytes, entries' heads included, that one turn of the relay may put after [`Recorder::poll_ready`].
pub(crate) const TURN: usize = 68 * 1024;
/// Space that a recording needs in reserve for one turn and its end.
const RESERVE: u64 = (TURN + 3 * (CHUNK_HEAD + TAG) + CLOSING_HEAD + MAX_CLOSING_TEXT) as u64;
/// Chunks of one recording that may wait for the disk.
const MAX_WAITING: usize = 2;
/// Empty buffers that the pool keeps for the next chunk.
const KEPT_BUFFERS: usize = 16;
/// How long the end of a recording may wait for the disk.
const FINISH_LIMIT: Duration = Duration::from_secs(10);

/// Whether recordings tell which keys were pressed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum KeyPolicy {
    /// That and when a key was pressed, or text pasted, but not which: people type passwords.
    #[default]
    Redacted,
    /// Everything.
    Full,
}

/// How recordings are written.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Settings {
    /// Threads that seal and write, at least 1.
    pub threads: usize,
    /// MiB that must be free for a new recording; on disks below 40 GiB 5 % are enough.
    pub min_free_mib: u64,
    /// MiB that one recording may have; reaching it ends the console.
    pub max_recording_mib: u64,
    /// MiB of all recordings together that may wait for the disk.
    pub max_waiting_mib: u64,
    /// Whether recordings tell which keys were pressed.
    pub keys: KeyPolicy,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            threads: 1,
            min_free_mib: 2048,
            max_recording_mib: 64 * 1024,
            max_waiting_mib: 128,
            keys: KeyPolicy::Redacted,
        }
    }
}

/// What a finished recording is, for the store and the trail.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Summary {
    /// Chunks, the closing one included.
    pub chunks: u64,
    /// Entries.
    pub entries: u64,
    /// Bytes of the file.
    pub bytes: u64,
    /// SHA-256 of the closing chunk, which stands for all before it.
    pub head: [u8; 32],
}

/// Where the recording of an id is: the random id is all that is in the name.
pub fn path_of(folder: &Path, id: RecordingId) -> PathBuf {
    folder.join(format!("{id}.pcr"))
}

/// The threads that write recordings. Dropping the last handle flushes what was accepted and waits for them.
#[derive(Clone)]
pub struct RecorderPool(Arc<Pool>);

struct Pool {
    folder: PathBuf,
    settings: Settings,
    threads: Vec<(mpsc::Sender<Job>, Option<JoinHandle<()>>)>,
    depot: Arc<Depot>,
}

/// What consoles and threads share.
struct Depot {
    buffers: Mutex<Vec<Vec<u8>>>,
    /// Bytes that were accepted and are not written.
    waiting: AtomicU64,
    max_waiting: u64,
    /// Consoles that wait until `waiting` shrinks.
    wakers: Mutex<Vec<Waker>>,
}

impl RecorderPool {
    /// Starts the threads; the folder is made, readable by its owner only, if it is missing.
    pub fn start(folder: &Path, settings: Settings) -> Result<Self, Error> {
        let broken = |source| Error::Folder { path: folder.to_owned(), source };
        writer::prepare(folder).map_err(broken)?;
        let depot = Arc::new(Depot {
            buffers: Mutex::default(),
            waiting: AtomicU64::new(0),
            max_waiting: settings.max_waiting_mib.max(1) << 20,
            wakers: Mutex::default(),
        });
        let mut threads = Vec::new();
        for number in 0..settings.threads.max(1) {
            let (jobs, queue) = mpsc::channel();
            let depot = Arc::clone(&depot);
            let thread = std::thread::Builder::new()
                .name(format!("recorder-{number}"))
                .spawn(move || writer::run(&queue, &depot))
                .map_err(broken)?;
            threads.push((jobs, Some(thread)));
        }
        Ok(Self(Arc::new(Pool { folder: folder.to_owned(), settings, threads, depot })))
    }

    /// The folder of the recordings.
    pub fn folder(&self) -> &Path {
        &self.0.folder
    }

    /// Begins a recording, if there is space for one. The key has 32 bytes and must never be used for another one.
    pub async fn begin(&self, id: RecordingId, key: &Secret, at: OffsetDateTime) -> Result<Recorder, Error> {
        let pool = &*self.0;
        let index = id.uuid().as_u128() % (pool.threads.len().max(1) as u128);
        let (jobs, _) =
            usize::try_from(index).ok().and_then(|index| pool.threads.get(index)).ok_or(Error::RecordingFailed)?;
        let writer = Writer::new(&pool.folder, &pool.settings, id, key, at)?;
        let (reply, answer) = oneshot::channel();
        jobs.send(Job::Begin(Box::new(writer), reply)).map_err(|_| Error::RecordingFailed)?;
        let (slot, room) = answer.await.map_err(|_| Error::RecordingFailed)??;
        lock(&slot.shared).room = room;
        Ok(Recorder {
            slot,
            jobs: jobs.clone(),
            depot: Arc::clone(&pool.depot),
            keys: pool.settings.keys,
            started: Instant::now(),
            id,
            finished: Finished::No,
        })
    }
}

impl Drop for Pool {
    fn drop(&mut self) {
        for (jobs, thread) in &mut self.threads {
            // a thread that is gone has nothing left to flush
            let _ = jobs.send(Job::Stop);
            if let Some(thread) = thread.take() {
                let _ = thread.join();
            }
        }
    }
}

/// One recording, as its console and its thread share it.
struct Slot {
    shared: Mutex<Shared>,
    /// Locked by the thread only.
    writer: Mutex<Writer>,
}

#[derive(Default)]
struct Shared {
    /// [`CHUNK_HEAD`] bytes and entries; without capacity while nothing flows.
    filling: Vec<u8>,
    full: VecDeque<Vec<u8>>,
    /// Bytes that are reserved on disk and not promised.
    room: u64,
    reserve_asked: bool,
    flush_asked: bool,
    failed: bool,
    waker: Option<Waker>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Finished {
    No,
    Yes,
}

/// The recording of one console session. Dropping it without [`Recorder::finish`] closes it as abandoned.
pub struct Recorder {
    slot: Arc<Slot>,
    jobs: mpsc::Sender<Job>,
    depot: Arc<Depot>,
    keys: KeyPolicy,
    started: Instant,
    id: RecordingId,
    finished: Finished,
}

impl Recorder {
    /// Which recording it is.
    pub fn id(&self) -> RecordingId {
        self.id
    }

    /// Whether it tells which keys were pressed.
    pub(crate) fn keys(&self) -> KeyPolicy {
        self.keys
    }

    /// Ready once [`TURN`] bytes can be put; an error once the recording has failed.
    pub(crate) fn poll_ready(&self, cx: &mut Context<'_>) -> Poll<Result<(), Error>> {
        let mut shared = lock(&self.slot.shared);
        if shared.failed {
            return Poll::Ready(Err(Error::RecordingFailed));
        }
        if shared.filling.len() + TURN > CHUNK_HEAD + MAX_CHUNK {
            if shared.full.len() >= MAX_WAITING {
                shared.waker = Some(cx.waker().clone());
                return Poll::Pending;
            }
            let chunk = std::mem::take(&mut shared.filling);
            shared.full.push_back(chunk);
            self.send(Job::Write(Arc::clone(&self.slot)))?;
        }
        // asked for early, so that a busy console does not wait
        if shared.room < 4 * RESERVE && !shared.reserve_asked {
            shared.reserve_asked = true;
            self.send(Job::Reserve(Arc::clone(&self.slot)))?;
        }
        if shared.room < RESERVE {
            shared.waker = Some(cx.waker().clone());
            return Poll::Pending;
        }
        if self.depot.waiting.load(Ordering::Relaxed) > self.depot.max_waiting {
            lock(&self.depot.wakers).push(cx.waker().clone());
            // the last bytes may have been written in between
            if self.depot.waiting.load(Ordering::Relaxed) > self.depot.max_waiting {
                return Poll::Pending;
            }
        }
        Poll::Ready(Ok(()))
    }

    /// Accepts an entry: `seen` as it is, then `hidden` bytes as zeros. An error means that it is not accepted, and
    /// then the bytes must not be forwarded.
    pub(crate) fn put(&self, kind: EntryKind, now: Instant, seen: &[u8], hidden: usize) -> Result<(), Error> {
        let mut shared = lock(&self.slot.shared);
        let length = seen.len() + hidden;
        let mut needed = ENTRY_HEAD + length;
        if shared.filling.is_empty() {
            needed += CHUNK_HEAD + TAG;
        }
        let fits = shared.filling.len() + needed <= CHUNK_HEAD + MAX_CHUNK + TAG;
        let room = shared.room.checked_sub(needed as u64);
        let (Some(room), true, false) = (room, fits, shared.failed) else {
            return Err(Error::RecordingFailed);
        };
        shared.room = room;
        if shared.filling.is_empty() {
            shared.filling = lock(&self.depot.buffers).pop().unwrap_or_default();
            shared.filling.resize(CHUNK_HEAD, 0);
        }
        let since = u64::try_from(now.saturating_duration_since(self.started).as_micros()).unwrap_or(u64::MAX);
        let mut head = [0; ENTRY_HEAD];
        let fields = [kind.number()].into_iter().chain(since.to_be_bytes());
        let length = u32::try_from(length).map_err(|_| Error::RecordingFailed)?.to_be_bytes();
        for (slot, byte) in head.iter_mut().zip(fields.chain(length)) {
            *slot = byte;
        }
        shared.filling.extend_from_slice(&head);
        shared.filling.extend_from_slice(seen);
        let padded = shared.filling.len() + hidden;
        shared.filling.resize(padded, 0);
        self.depot.waiting.fetch_add(needed as u64, Ordering::Relaxed);
        if !shared.flush_asked {
            shared.flush_asked = true;
            self.send(Job::Flush(Arc::clone(&self.slot)))?;
        }
        Ok(())
    }

    /// Writes everything and the closing chunk, and waits until they are on disk.
    pub async fn finish(mut self, ending: &Ending) -> Result<Summary, Error> {
        self.finished = Finished::Yes;
        let (reply, answer) = oneshot::channel();
        self.send(Job::Close(Arc::clone(&self.slot), ending.to_string(), Some(reply)))?;
        match tokio::time::timeout(FINISH_LIMIT, answer).await {
            Ok(Ok(outcome)) => outcome,
            Ok(Err(_)) | Err(_) => Err(Error::RecordingFailed),
        }
    }

    fn send(&self, job: Job) -> Result<(), Error> {
        self.jobs.send(job).map_err(|_| Error::RecordingFailed)
    }
}

impl Drop for Recorder {
    fn drop(&mut self) {
        if self.finished == Finished::No {
            // without a thread there is nobody to close it; the reader will say that it was cut
            let _ = self.send(Job::Close(Arc::clone(&self.slot), "abandoned".to_owned(), None));
        }
    }
}

/// A poisoned lock means that a holder panicked; what it guards is plain data and stays usable.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests;
