// SPDX-License-Identifier: Apache-2.0
//! The recorder's thread: seals chunks, writes them into reserved space, and syncs once a second.

use super::{
    Depot, KEPT_BUFFERS, RESERVE, Settings, Shared, Slot, Summary,
    format::{CHUNK_HEAD, ChunkKey, ChunkKind, ENTRY_HEAD, FILE_HEAD, Hash, TAG, closing, file_head, hash},
    lock, path_of,
};
use crate::Error;
use portcullis_domain::{RecordingId, Secret};
use rustix::fs::{FallocateFlags, OFlags};
use std::{
    fs::{DirBuilder, File, OpenOptions},
    io,
    os::unix::fs::{DirBuilderExt, FileExt, OpenOptionsExt},
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::Ordering,
        mpsc::{Receiver, RecvTimeoutError},
    },
    time::{Duration, Instant},
};
use time::OffsetDateTime;
use tokio::sync::oneshot;

/// How much later than accepted something may be on disk.
const FLUSH_EVERY: Duration = Duration::from_secs(1);
/// Bytes that are reserved at first.
const FIRST_RESERVE: u64 = 512 * 1024;
/// Bytes that are reserved at a time at most.
const MAX_STEP: u64 = 16 << 20;
/// Disks smaller than this need only 5 % free.
const SMALL_DISK: u64 = 40 << 30;

/// What a begun recording answers: itself and the bytes that may be promised.
type Begun = Result<(Arc<Slot>, u64), Error>;

/// What a thread is asked to do.
pub(super) enum Job {
    /// Make the file.
    Begin(Box<Writer>, oneshot::Sender<Begun>),
    /// Write the full chunks now.
    Write(Arc<Slot>),
    /// Write everything within a second.
    Flush(Arc<Slot>),
    /// Reserve more space.
    Reserve(Arc<Slot>),
    /// Write everything and the closing chunk with this text.
    Close(Arc<Slot>, String, Option<oneshot::Sender<Result<Summary, Error>>>),
    /// Flush and go.
    Stop,
}

/// Bytes that must be free on a disk of this size.
pub(super) fn floor(min_free: u64, size: u64) -> u64 {
    if size < SMALL_DISK { min_free.min(size / 20) } else { min_free }
}

/// Makes the folder if it is missing.
pub(super) fn prepare(folder: &Path) -> io::Result<()> {
    DirBuilder::new().recursive(true).mode(0o700).create(folder)?;
    // A folder that takes no file is found out now, and not by the first console that must be recorded.
    let probe = folder.join(".probe");
    drop(File::create(&probe)?);
    std::fs::remove_file(&probe)
}

/// The side of a recording that only its thread touches.
pub(super) struct Writer {
    folder: PathBuf,
    path: PathBuf,
    id: RecordingId,
    key: ChunkKey,
    started_at_micros: i64,
    min_free: u64,
    max_bytes: u64,
    file: Option<File>,
    /// Where the next chunk goes, and up to where space is reserved.
    at: u64,
    reserved: u64,
    number: u64,
    previous: Hash,
    entries: u64,
    entry_bytes: u64,
    began: Instant,
}

impl Writer {
    /// Nothing is touched yet.
    pub(super) fn new(
        folder: &Path,
        settings: &Settings,
        id: RecordingId,
        key: &Secret,
        at: OffsetDateTime,
    ) -> Result<Self, Error> {
        Ok(Self {
            folder: folder.to_owned(),
            path: path_of(folder, id),
            id,
            key: ChunkKey::new(id, key).ok_or(Error::RecordingKey)?,
            started_at_micros: i64::try_from(at.unix_timestamp_nanos() / 1000).unwrap_or(0),
            min_free: settings.min_free_mib << 20,
            max_bytes: settings.max_recording_mib << 20,
            file: None,
            at: 0,
            reserved: 0,
            number: 0,
            previous: [0; 32],
            entries: 0,
            entry_bytes: 0,
            began: Instant::now(),
        })
    }

    /// Makes the file; gives the bytes that may be promised.
    fn begin(&mut self) -> Result<u64, Error> {
        let broken = |source| Error::Folder { path: self.folder.clone(), source };
        let disk = rustix::fs::statvfs(&self.folder).map_err(|errno| broken(errno.into()))?;
        let (free, size) = (disk.f_bavail * disk.f_frsize, disk.f_blocks * disk.f_frsize);
        let floor = floor(self.min_free, size);
        if free < floor {
            return Err(Error::NoSpace { folder: self.folder.clone(), free_mib: free >> 20, floor_mib: floor >> 20 });
        }
        self.create().map_err(|source| Error::Folder { path: self.path.clone(), source })?;
        Ok(self.reserved - self.at)
    }

    fn create(&mut self) -> io::Result<()> {
        // exclusive: neither an earlier recording nor a planted link is ever written to
        let file = OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(0o600)
            .custom_flags(OFlags::NOFOLLOW.bits().cast_signed())
            .open(&self.path)?;
        self.file = Some(file);
        let step = self.extend(FIRST_RESERVE)?;
        let head = file_head(self.id, self.started_at_micros);
        self.previous = hash(&head);
        self.write(&head)?;
        debug_assert!(step > FILE_HEAD as u64);
        self.sync()?;
        rustix::fs::fsync(File::open(&self.folder)?)?;
        Ok(())
    }

    fn file(&self) -> io::Result<&File> {
        self.file.as_ref().ok_or_else(|| io::ErrorKind::NotConnected.into())
    }

    /// Reserves more; gives how much.
    fn extend(&mut self, step: u64) -> io::Result<u64> {
        if self.reserved + step > self.max_bytes {
            return Err(io::Error::new(io::ErrorKind::FileTooLarge, "recording.max_recording_mib is reached"));
        }
        rustix::fs::fallocate(self.file()?, FallocateFlags::empty(), self.reserved, step)?;
        self.reserved += step;
        Ok(step)
    }

    fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        let end = self.at + bytes.len() as u64;
        if end > self.reserved {
            return Err(io::Error::new(io::ErrorKind::StorageFull, "more was accepted than was reserved"));
        }
        self.file()?.write_all_at(bytes, self.at)?;
        self.at = end;
        Ok(())
    }

    fn sync(&self) -> io::Result<()> {
        Ok(rustix::fs::fdatasync(self.file()?)?)
    }

    fn seal(&mut self, chunk: &mut Vec<u8>, kind: ChunkKind) -> io::Result<()> {
        self.previous = self
            .key
            .seal(chunk, self.number, kind, &self.previous)
            .ok_or_else(|| io::Error::other("a chunk could not be sealed"))?;
        self.number += 1;
        self.write(chunk)
    }

    fn add(&mut self, chunk: &mut Vec<u8>) -> io::Result<()> {
        let mut rest = chunk.get(CHUNK_HEAD..).unwrap_or_default();
        while let Some((head, more)) = rest.split_at_checked(ENTRY_HEAD) {
            let length = crate::rfb::be32(head, ENTRY_HEAD - 4) as usize;
            self.entries += 1;
            self.entry_bytes += length as u64;
            rest = more.get(length..).unwrap_or_default();
        }
        self.seal(chunk, ChunkKind::Data)
    }

    fn close(&mut self, ending: &str) -> io::Result<Summary> {
        let micros = u64::try_from(self.began.elapsed().as_micros()).unwrap_or(u64::MAX);
        let mut chunk = closing([self.number, self.entries, self.entry_bytes, micros], ending);
        self.seal(&mut chunk, ChunkKind::Closing)?;
        rustix::fs::ftruncate(self.file()?, self.at)?;
        rustix::fs::fsync(self.file()?)?;
        self.file = None;
        Ok(Summary { chunks: self.number, entries: self.entries, bytes: self.at, head: self.previous })
    }
}

/// Runs until told to stop, or until nobody can ask for anything any more.
pub(super) fn run(jobs: &Receiver<Job>, depot: &Depot) {
    let mut dirty: Vec<Arc<Slot>> = Vec::new();
    let mut flush_at = Instant::now();
    loop {
        let job = if dirty.is_empty() {
            jobs.recv().map_err(|_| RecvTimeoutError::Disconnected)
        } else {
            jobs.recv_timeout(flush_at.saturating_duration_since(Instant::now()))
        };
        match job {
            Ok(Job::Begin(writer, reply)) => {
                let begun = begin(*writer);
                // whoever asked may be gone; an empty recording then stays, and says so
                if let Err(Ok((slot, _))) = reply.send(begun) {
                    let _ = close(&slot, depot, "abandoned");
                }
            }
            Ok(Job::Write(slot)) => {
                guard(&slot, depot, "write", || write(&slot, depot, Extent::FullChunks));
            }
            Ok(Job::Flush(slot)) => {
                if dirty.is_empty() {
                    flush_at = Instant::now() + FLUSH_EVERY;
                }
                dirty.push(slot);
            }
            Ok(Job::Reserve(slot)) => {
                guard(&slot, depot, "reserve space", || reserve(&slot));
            }
            Ok(Job::Close(slot, ending, reply)) => {
                dirty.retain(|other| !Arc::ptr_eq(other, &slot));
                let outcome = close(&slot, depot, &ending);
                if let Some(reply) = reply {
                    // the relay may have stopped waiting
                    let _ = reply.send(outcome);
                }
            }
            Ok(Job::Stop) | Err(RecvTimeoutError::Disconnected) => {
                flush(&mut dirty, depot);
                return;
            }
            Err(RecvTimeoutError::Timeout) => {}
        }
        if !dirty.is_empty() && Instant::now() >= flush_at {
            flush(&mut dirty, depot);
        }
    }
}

fn begin(mut writer: Writer) -> Begun {
    let room = writer.begin()?;
    let slot = Slot { shared: std::sync::Mutex::new(Shared::default()), writer: std::sync::Mutex::new(writer) };
    Ok((Arc::new(slot), room))
}

fn flush(dirty: &mut Vec<Arc<Slot>>, depot: &Depot) {
    for slot in dirty.drain(..) {
        lock(&slot.shared).flush_asked = false;
        guard(&slot, depot, "write", || {
            write(&slot, depot, Extent::Everything)?;
            lock(&slot.writer).sync()
        });
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Extent {
    FullChunks,
    Everything,
}

fn write(slot: &Slot, depot: &Depot, extent: Extent) -> io::Result<()> {
    loop {
        let (mut chunk, waker) = {
            let mut shared = lock(&slot.shared);
            if shared.failed {
                return Ok(());
            }
            let chunk = match (shared.full.pop_front(), extent) {
                (Some(chunk), _) => chunk,
                (None, Extent::Everything) => std::mem::take(&mut shared.filling),
                (None, Extent::FullChunks) => return Ok(()),
            };
            (chunk, shared.waker.take())
        };
        if chunk.is_empty() {
            return Ok(());
        }
        if let Some(waker) = waker {
            waker.wake();
        }
        let accepted = (chunk.len() + TAG) as u64;
        let outcome = lock(&slot.writer).add(&mut chunk);
        depot.settle(accepted);
        chunk.clear();
        let mut kept = lock(&depot.buffers);
        if kept.len() < KEPT_BUFFERS {
            kept.push(chunk);
        }
        drop(kept);
        outcome?;
    }
}

fn reserve(slot: &Slot) -> io::Result<()> {
    let more = {
        let mut writer = lock(&slot.writer);
        // a busy recording reserves as much as it has written, so that it asks seldom; an idle one keeps little
        let step = writer.at.next_power_of_two().clamp(FIRST_RESERVE, MAX_STEP);
        writer.extend(step)?
    };
    let mut shared = lock(&slot.shared);
    shared.room += more;
    shared.reserve_asked = false;
    if let Some(waker) = shared.waker.take() {
        waker.wake();
    }
    Ok(())
}

fn close(slot: &Slot, depot: &Depot, ending: &str) -> Result<Summary, Error> {
    let mut summary = Err(Error::RecordingFailed);
    guard(slot, depot, "close", || {
        if lock(&slot.shared).failed {
            return Ok(());
        }
        write(slot, depot, Extent::Everything)?;
        summary = Ok(lock(&slot.writer).close(ending)?);
        Ok(())
    });
    summary
}

/// A recording that failed once has failed for good: a gap must not be papered over.
fn guard(slot: &Slot, depot: &Depot, what: &str, work: impl FnOnce() -> io::Result<()>) {
    let Err(error) = work() else { return };
    tracing::error!(recording = %lock(&slot.writer).path.display(), %error, "cannot {what} this recording");
    let mut shared = lock(&slot.shared);
    shared.failed = true;
    let lost = std::mem::take(&mut shared.full).into_iter().chain([std::mem::take(&mut shared.filling)]);
    let lost = lost.filter(|chunk| !chunk.is_empty()).map(|chunk| (chunk.len() + TAG) as u64).sum();
    let waker = shared.waker.take();
    drop(shared);
    depot.settle(lost);
    if let Some(waker) = waker {
        waker.wake();
    }
}

impl Depot {
    /// These bytes wait no longer.
    fn settle(&self, bytes: u64) {
        self.waiting.fetch_sub(bytes, Ordering::Relaxed);
        for waker in lock(&self.wakers).drain(..) {
            waker.wake();
        }
    }
}

/// What [`RESERVE`] relies on.
const _: () = assert!(FIRST_RESERVE > 4 * RESERVE + FILE_HEAD as u64);
