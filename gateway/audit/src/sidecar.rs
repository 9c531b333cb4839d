// SPDX-License-Identifier: Apache-2.0
//! The files beside the segments: `checkpoints`, the signed notes for shipping outside, and `head`, a hint where the
//! newest checkpoint stands, so that a start need not read what is known already.

use crate::{
    checkpoint::{self, Checkpoint},
    error::Error,
    scan::{part, read_at},
    segment,
};
use std::{
    fs::{self, File, OpenOptions},
    io,
    os::unix::fs::FileExt,
    path::Path,
};

/// The file of signed notes.
pub(crate) const CHECKPOINTS: &str = "checkpoints";
/// The file with the hint.
const HEAD: &str = "head";
/// Bytes at the end of the notes that are looked at when a log is opened: many times one note.
const TAIL: u64 = 8 * 1024;

/// Both files, open for writing.
pub(crate) struct Sidecar {
    notes: File,
    length: u64,
    head: File,
}

impl Sidecar {
    /// Opens both, cuts a torn last note off, and gives the last whole one.
    pub(crate) fn open(dir: &Path, public: &[u8; 32]) -> Result<(Self, Option<Checkpoint>), Error> {
        let path = dir.join(CHECKPOINTS);
        let fail = |doing| Error::io(doing, path.clone());
        let notes = segment::open(&path, OpenOptions::new().create(true).truncate(false)).map_err(fail("open"))?;
        let length = notes.metadata().map_err(fail("read"))?.len();
        let from = length.saturating_sub(TAIL);
        let bytes = part(&notes, from, length).map_err(fail("read"))?;
        let tail = String::from_utf8_lossy(&bytes);
        let starts = tail.match_indices("\n\nportcullis-trail/").map(|(at, _)| at + 2);
        let mut starts: Vec<usize> = (from == 0 && length > 0).then_some(0).into_iter().chain(starts).collect();
        let mut last = None;
        let mut keep = length;
        while let Some(start) = starts.pop() {
            let listed = checkpoint::list(tail.get(start..).unwrap_or_default());
            if let Some(note) = listed.first().filter(|n| n.whole) {
                let damaged = |_| Error::Damaged {
                    file: CHECKPOINTS.to_owned(),
                    offset: from + start as u64,
                    what: "this checkpoint is not signed by this node",
                };
                last = Some(Checkpoint::read(note.text, public).map_err(damaged)?);
                break;
            }
            keep = from + start as u64;
        }
        if length > 0 && last.is_none() && from > 0 {
            let what = "these are no checkpoints";
            return Err(Error::Damaged { file: CHECKPOINTS.to_owned(), offset: from, what });
        }
        notes.set_len(keep).map_err(fail("cut"))?;
        let path = dir.join(HEAD);
        let head = segment::open(&path, OpenOptions::new().create(true).truncate(false))
            .map_err(Error::io("open", path.as_path()))?;
        Ok((Self { notes, length: keep, head }, last))
    }

    /// Adds a note.
    pub(crate) fn publish(&mut self, note: &str) -> io::Result<()> {
        let text = format!("{note}\n");
        self.notes.write_all_at(text.as_bytes(), self.length)?;
        self.length += text.len() as u64;
        Ok(())
    }

    /// Remembers where the newest checkpoint stands.
    pub(crate) fn point(&self, segment: u64, offset: u64) -> io::Result<()> {
        self.head.write_all_at(format!("{segment:020} {offset:020}\n").as_bytes(), 0)
    }

    /// Where the newest checkpoint stands, as far as the hint can be believed: whoever uses it checks the seal there.
    pub(crate) fn hint(&self) -> Option<(u64, u64)> {
        let mut bytes = [0; 42];
        let got = read_at(&self.head, &mut bytes, 0).ok()?;
        let text = std::str::from_utf8(bytes.get(..got)?).ok()?;
        let (segment, offset) = text.strip_suffix('\n')?.split_once(' ')?;
        Some((segment.parse().ok()?, offset.parse().ok()?))
    }

    /// Makes the notes durable.
    pub(crate) fn sync(&self) -> io::Result<()> {
        Ok(rustix::fs::fdatasync(&self.notes)?)
    }
}

/// All notes of a log's folder; empty when there is no such file.
pub(crate) fn read_notes(dir: &Path) -> Result<String, Error> {
    let path = dir.join(CHECKPOINTS);
    match fs::read(&path) {
        Ok(bytes) => Ok(String::from_utf8_lossy(&bytes).into_owned()),
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(String::new()),
        Err(e) => Err(Error::io("read", path)(e)),
    }
}
