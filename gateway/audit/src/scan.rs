// SPDX-License-Identifier: Apache-2.0
//! Reading segment files: frame after frame through a window, and the searches that tell a torn end from a damaged
//! middle.

use crate::{
    frame::{self, AROUND, COMMIT, COMMIT_LENGTH, Commit, Frame, MAGIC, MAX_PAYLOAD, Mark, Parsed, Seal},
    keys::{Ring, Spot},
};
use std::{fs::File, io, os::unix::fs::FileExt};

const WINDOW: usize = 256 * 1024;

/// Fills a buffer from an offset as far as the file goes; gives how much that was.
pub(crate) fn read_at(file: &File, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
    let mut got = 0;
    while let Some(rest) = buffer.get_mut(got..).filter(|r| !r.is_empty()) {
        match file.read_at(rest, offset + got as u64) {
            Ok(0) => break,
            Ok(n) => got += n,
            Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
            Err(e) => return Err(e),
        }
    }
    Ok(got)
}

/// A run through the frames of one file.
pub(crate) struct Scan {
    file: File,
    window: Vec<u8>,
    base: u64,
    at: usize,
    filled: usize,
}

/// What came next.
pub(crate) enum Step<'a> {
    Frame(u64, Frame<'a>),
    /// Nothing more was written.
    End(u64),
    /// No frame stands here, with the reason.
    Bad(u64, &'static str),
}

impl Scan {
    pub(crate) fn new(file: File, offset: u64) -> Self {
        Self { file, window: Vec::new(), base: offset, at: 0, filled: 0 }
    }

    /// After the first bytes of a segment; none when they are not those of one.
    pub(crate) fn after_magic(file: File) -> io::Result<Option<Self>> {
        let mut magic = [0; MAGIC.len()];
        let got = read_at(&file, &mut magic, 0)?;
        Ok((got == magic.len() && magic == *MAGIC).then(|| Self::new(file, MAGIC.len() as u64)))
    }

    /// Where the next frame begins.
    pub(crate) fn offset(&self) -> u64 {
        self.base + self.at as u64
    }

    pub(crate) fn file(&self) -> &File {
        &self.file
    }

    /// Goes on from another place, with fresh bytes.
    pub(crate) fn go(&mut self, offset: u64) {
        (self.base, self.at, self.filled) = (offset, 0, 0);
    }

    fn ensure(&mut self, need: usize) -> io::Result<usize> {
        let have = self.filled - self.at;
        if have >= need {
            return Ok(have);
        }
        self.window.copy_within(self.at..self.filled, 0);
        self.base += self.at as u64;
        (self.at, self.filled) = (0, have);
        // memory that was never touched costs more than reading: no more than there is to read
        let rest = usize::try_from(self.file.metadata()?.len().saturating_sub(self.base)).unwrap_or(WINDOW);
        let room = need.max(WINDOW.min(rest));
        if self.window.len() < room {
            self.window.resize(room, 0);
        }
        let rest = self.window.get_mut(have..).unwrap_or_default();
        self.filled += read_at(&self.file, rest, self.base + have as u64)?;
        Ok(self.filled)
    }

    /// The next frame.
    pub(crate) fn next(&mut self) -> io::Result<Step<'_>> {
        if self.ensure(4)? >= 4 {
            let head = self.window.get(self.at..).and_then(|w| w.first_chunk::<4>()).copied().unwrap_or_default();
            let length = u32::from_le_bytes(head) as usize;
            if (1..=MAX_PAYLOAD).contains(&length) {
                self.ensure(length + AROUND)?;
            }
        }
        let offset = self.offset();
        let bytes = self.window.get(self.at..self.filled).unwrap_or_default();
        Ok(match frame::parse(bytes) {
            Parsed::Frame(frame) => {
                self.at += frame.length;
                Step::Frame(offset, frame)
            }
            Parsed::End => Step::End(offset),
            Parsed::Short => Step::Bad(offset, "a frame that is cut off"),
            Parsed::Bad(why) => Step::Bad(offset, why),
        })
    }
}

/// The offset of the last byte that is not zero in a part of a file, if there is one.
pub(crate) fn last_set(file: &File, from: u64, to: u64) -> io::Result<Option<u64>> {
    let to = to.min(file.metadata()?.len());
    let room = usize::try_from(to.saturating_sub(from)).unwrap_or(WINDOW).min(WINDOW);
    let (mut at, mut found, mut buffer) = (from, None, vec![0; room]);
    while at < to {
        let want = usize::try_from(to - at).unwrap_or(WINDOW).min(WINDOW);
        let got = read_at(file, buffer.get_mut(..want).unwrap_or_default(), at)?;
        if got == 0 {
            break;
        }
        if let Some(last) = buffer.get(..got).and_then(|b| b.iter().rposition(|b| *b != 0)) {
            found = Some(at + last as u64);
        }
        at += got as u64;
    }
    Ok(found)
}

/// Reads a part of a file that is looked through for what still holds in it.
pub(crate) fn part(file: &File, from: u64, to: u64) -> io::Result<Vec<u8>> {
    let mut bytes = vec![0; usize::try_from(to.saturating_sub(from)).unwrap_or(usize::MAX)];
    let got = read_at(file, &mut bytes, from)?;
    bytes.truncate(got);
    Ok(bytes)
}

/// The first commit in some bytes that holds and begins at event `least` or later. Without the key the checksum alone
/// must do.
pub(crate) fn find_commit(bytes: &[u8], spot: &Spot, ring: Option<&Ring>, least: u64) -> Option<(u64, Commit)> {
    let mut sign = u32::try_from(COMMIT_LENGTH - AROUND).unwrap_or_default().to_le_bytes().to_vec();
    sign.push(COMMIT);
    let places = bytes.windows(sign.len()).enumerate().filter(|(_, w)| *w == sign.as_slice());
    for (at, _) in places {
        let Parsed::Frame(frame) = frame::parse(bytes.get(at..).unwrap_or_default()) else { continue };
        let offset = spot.offset + at as u64;
        match Commit::read(frame.payload, ring, &Spot { offset, ..*spot }) {
            Some((commit, seal)) if seal != Seal::Broken && commit.first >= least => return Some((offset, commit)),
            _ => {}
        }
    }
    None
}

/// The first checkpoint in some bytes whose seal holds.
pub(crate) fn find_mark(bytes: &[u8], spot: &Spot, ring: Option<&Ring>) -> Option<(u64, Mark)> {
    let places = bytes.windows(5).enumerate().filter(|(_, w)| {
        matches!(w, [a, b, c, d, frame::CHECKPOINT]
            if (128..=MAX_PAYLOAD).contains(&(u32::from_le_bytes([*a, *b, *c, *d]) as usize)))
    });
    for (at, _) in places {
        let Parsed::Frame(frame) = frame::parse(bytes.get(at..).unwrap_or_default()) else { continue };
        let offset = spot.offset + at as u64;
        match Mark::read(frame.payload, ring, &Spot { offset, ..*spot }) {
            Some((mark, seal)) if seal != Seal::Broken => return Some((offset, mark)),
            _ => {}
        }
    }
    None
}
