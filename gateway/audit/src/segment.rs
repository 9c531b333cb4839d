// SPDX-License-Identifier: Apache-2.0
//! Segment files, and the thread that fills them with zeros before they are needed: a commit into bytes that are there
//! already changes no metadata, which doubles the rate of batched commits on ext4.

use crate::error::Error;
use std::{
    fs::{self, File, OpenOptions},
    io,
    os::unix::fs::{FileExt, OpenOptionsExt},
    path::{Path, PathBuf},
    sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError},
    thread,
    time::Duration,
};

/// The file that will be the next segment.
const SPARE: &str = "spare";
/// Zeros written in one go while the writer may be waiting for the same file.
const CHUNK: usize = 256 * 1024;
/// How long the filler rests between two chunks, so that commits find the disk free.
const REST: Duration = Duration::from_millis(1);

static ZEROS: [u8; CHUNK] = [0; CHUNK];

/// A poisoned lock is taken as it is: what these locks guard is whole after every statement.
pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The name of a segment's file.
pub(crate) fn file_name(segment: u64) -> String {
    format!("{segment:08}.seg")
}

/// The numbers of the segments in a folder, in order.
pub(crate) fn list(dir: &Path) -> Result<Vec<u64>, Error> {
    let mut numbers = Vec::new();
    for entry in fs::read_dir(dir).map_err(Error::io("list", dir))? {
        let name = entry.map_err(Error::io("list", dir))?.file_name();
        let number = name.to_str().and_then(|n| n.strip_suffix(".seg")).and_then(|n| n.parse::<u64>().ok());
        if let Some(number) = number.filter(|n| file_name(*n).as_str() == name) {
            numbers.push(number);
        }
    }
    numbers.sort_unstable();
    Ok(numbers)
}

/// Makes the names in a folder durable.
pub(crate) fn sync_dir(dir: &Path) -> io::Result<()> {
    File::open(dir)?.sync_all()
}

/// Opens a file of the log for reading and writing, making it readable to its owner only.
pub(crate) fn open(path: &Path, options: &mut OpenOptions) -> io::Result<File> {
    options.read(true).write(true).mode(0o600).open(path)
}

/// A segment's file with zeros up to some length, which grows in the background.
pub(crate) struct Area {
    file: File,
    // held while zeros are written, so that they never land on what the writer wrote
    filled: Mutex<u64>,
    goal: u64,
}

impl Area {
    /// A file that exists, of which all bytes count as filled.
    pub(crate) fn new(file: File, goal: u64) -> io::Result<Self> {
        let filled = file.metadata()?.len();
        Ok(Self { file, filled: Mutex::new(filled), goal })
    }

    /// A new file with its first zeros.
    pub(crate) fn create(path: &Path, first: u64, goal: u64) -> io::Result<Self> {
        let area = Self::new(open(path, OpenOptions::new().create_new(true))?, goal)?;
        while !area.extend(first.min(goal))? {}
        area.file.sync_all()?;
        Ok(area)
    }

    /// Writes a chunk of zeros at the end; says whether the file is that large now.
    fn extend(&self, goal: u64) -> io::Result<bool> {
        let mut filled = lock(&self.filled);
        let left = usize::try_from(goal.saturating_sub(*filled)).unwrap_or(CHUNK).min(CHUNK);
        let zeros = ZEROS.get(..left).unwrap_or(&ZEROS);
        self.file.write_all_at(zeros, *filled)?;
        *filled += left as u64;
        Ok(*filled >= goal)
    }

    /// Writes the bytes of a commit.
    pub(crate) fn write(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        let end = offset + bytes.len() as u64;
        let mut filled = lock(&self.filled);
        if end <= *filled {
            drop(filled);
            return self.file.write_all_at(bytes, offset);
        }
        self.file.write_all_at(bytes, offset)?;
        *filled = end;
        Ok(())
    }

    /// Makes what was written durable.
    pub(crate) fn sync(&self) -> io::Result<()> {
        Ok(rustix::fs::fdatasync(&self.file)?)
    }
}

#[derive(Default)]
struct Jobs {
    extend: Vec<Arc<Area>>,
    wanted: bool,
    spare: Option<Arc<Area>>,
    stop: bool,
}

struct Board {
    jobs: Mutex<Jobs>,
    news: Condvar,
    path: PathBuf,
    first: u64,
    goal: u64,
}

/// The thread that fills files with zeros.
pub(crate) struct Filler {
    board: Arc<Board>,
    thread: Option<thread::JoinHandle<()>>,
}

impl Filler {
    /// Starts it for a folder; new files begin with `first` bytes and grow to `goal`.
    pub(crate) fn start(dir: &Path, first: u64, goal: u64) -> Result<Self, Error> {
        let path = dir.join(SPARE);
        match fs::remove_file(&path) {
            Err(e) if e.kind() != io::ErrorKind::NotFound => return Err(Error::io("remove", path)(e)),
            _ => {}
        }
        let board = Arc::new(Board { jobs: Mutex::default(), news: Condvar::new(), path, first, goal });
        let shown = Arc::clone(&board);
        let thread = thread::Builder::new()
            .name("trail-filler".to_owned())
            .spawn(move || fill(&shown))
            .map_err(Error::io("start a thread for", dir))?;
        Ok(Self { board, thread: Some(thread) })
    }

    /// Lets a file grow to its full size.
    pub(crate) fn extend(&self, area: &Arc<Area>) {
        lock(&self.board.jobs).extend.push(Arc::clone(area));
        self.board.news.notify_one();
    }

    /// Asks for the next file; asking again changes nothing.
    pub(crate) fn prepare(&self) {
        lock(&self.board.jobs).wanted = true;
        self.board.news.notify_one();
    }

    /// The next file under its name for a segment: prepared if there was time, else made now.
    pub(crate) fn take(&self) -> io::Result<Arc<Area>> {
        let mut jobs = lock(&self.board.jobs);
        // taken under the lock, so that the thread cannot be making the same file
        let area = match jobs.spare.take() {
            Some(area) => area,
            None => Arc::new(Area::create(&self.board.path, self.board.first, self.board.goal)?),
        };
        jobs.wanted = false;
        Ok(area)
    }

    /// Gives the file that was taken its place in the log, durably.
    pub(crate) fn place(&self, dir: &Path, segment: u64) -> io::Result<()> {
        fs::rename(&self.board.path, dir.join(file_name(segment)))?;
        sync_dir(dir)
    }
}

impl Drop for Filler {
    fn drop(&mut self) {
        lock(&self.board.jobs).stop = true;
        self.board.news.notify_one();
        if let Some(thread) = self.thread.take() {
            let _ended = thread.join();
        }
        // a spare holds nothing, and is made again when it is needed
        let _gone = fs::remove_file(&self.board.path);
    }
}

fn fill(board: &Board) {
    loop {
        let mut jobs = lock(&board.jobs);
        let area = loop {
            if jobs.stop {
                return;
            }
            if let Some(area) = jobs.extend.pop() {
                break area;
            }
            if jobs.wanted && jobs.spare.is_none() {
                jobs.wanted = false;
                match Area::create(&board.path, board.first, board.goal) {
                    Ok(area) => {
                        let area = Arc::new(area);
                        jobs.spare = Some(Arc::clone(&area));
                        break area;
                    }
                    Err(e) => {
                        // the writer tries again itself when it needs the file, and fails for good if that fails
                        tracing::warn!(error = %e, "the next segment of the trail cannot be prepared");
                        let _gone = fs::remove_file(&board.path);
                    }
                }
            }
            jobs = board.news.wait(jobs).unwrap_or_else(PoisonError::into_inner);
        };
        drop(jobs);
        loop {
            if lock(&board.jobs).stop || Arc::strong_count(&area) == 1 {
                break;
            }
            match area.extend(area.goal).and_then(|done| area.sync().map(|()| done)) {
                Ok(true) => break,
                Ok(false) => thread::sleep(REST),
                Err(e) => {
                    tracing::warn!(error = %e, "a segment of the trail cannot be filled ahead");
                    break;
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn zeros_never_land_on_what_was_written() {
        let dir = tempfile::tempdir().unwrap();
        let filler = Filler::start(dir.path(), 4096, 4 << 20).unwrap();
        let area = filler.take().unwrap();
        filler.extend(&area);
        let mut at = 0_u64;
        while at < 4 << 20 {
            area.write(&[0xaa; 10_000], at).unwrap();
            at += 10_000;
        }
        filler.place(dir.path(), 3).unwrap();
        drop(filler);
        let bytes = fs::read(dir.path().join(file_name(3))).unwrap();
        assert!(bytes.iter().take(4 << 20).all(|b| *b == 0xaa));
        assert_eq!(list(dir.path()).unwrap(), [3]);
    }
}
