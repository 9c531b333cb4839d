// SPDX-License-Identifier: Apache-2.0
//! Reads recordings back and finds whatever is not as it was sealed.

use super::{
    EntryKind, Summary,
    format::{
        CHUNK_HEAD, CLOSING_HEAD, ChunkKey, ChunkKind, ENTRY_HEAD, FILE_HEAD, Hash, MAGIC, MAX_CHUNK, TAG, file_head,
        hash,
    },
};
use crate::rfb::{WireNumber as _, be32, byte};
use portcullis_domain::{RecordingId, Secret};
use rustix::fs::OFlags;
use std::{
    fmt,
    fs::{File, OpenOptions},
    io::{self, BufReader, Read},
    os::unix::fs::OpenOptionsExt,
    path::Path,
    time::Duration,
};
use time::OffsetDateTime;

/// What is wrong with a recording.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Wrong {
    /// The file cannot be read; the text says why.
    Unreadable(String),
    /// The file is no recording, or of a version that this program does not know.
    NoRecording,
    /// The file is the recording of another session.
    Another,
    /// Bytes of this chunk were changed, moved, or come from elsewhere; or the key is another one.
    Altered,
    /// The file ends here although the recording had not ended: it was cut, or its gateway died.
    Cut,
    /// Something follows the closing chunk.
    Trailing,
    /// The totals of the closing chunk do not fit.
    Totals,
}

/// What is wrong, and where.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finding {
    /// The chunk, counted from 0; none for the file's header.
    pub chunk: Option<u64>,
    /// What.
    pub wrong: Wrong,
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.chunk {
            Some(chunk) => write!(f, "chunk {chunk}: ")?,
            None => f.write_str("header: ")?,
        }
        match &self.wrong {
            Wrong::Unreadable(why) => write!(f, "cannot be read: {why}"),
            Wrong::NoRecording => f.write_str("this is no recording of a known version"),
            Wrong::Another => f.write_str("this is the recording of another session"),
            Wrong::Altered => f.write_str("altered, moved, or sealed with another key"),
            Wrong::Cut => f.write_str("the recording ends here without having been closed"),
            Wrong::Trailing => f.write_str("something follows the end of the recording"),
            Wrong::Totals => f.write_str("the totals do not fit what is there"),
        }
    }
}

/// One entry of a recording.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// Time since the recording began, to the microsecond.
    pub since: Duration,
    /// What the bytes are.
    pub kind: EntryKind,
    /// The bytes.
    pub bytes: Vec<u8>,
}

/// Reads a whole recording and finds any change to it. Compare the summary with the one that was stored when the
/// recording ended: that finds a recording that was sealed anew by someone who has its key.
pub fn verify(path: &Path, id: RecordingId, key: &Secret) -> Result<Summary, Finding> {
    let mut reader = Reader::open(path, id, key)?;
    for entry in &mut reader {
        entry?;
    }
    reader.summary().ok_or(Finding { chunk: Some(reader.number), wrong: Wrong::Cut })
}

/// Iterates over the entries of a recording. A finding is the last thing that it gives.
pub struct Reader {
    file: BufReader<File>,
    key: ChunkKey,
    started_at: OffsetDateTime,
    number: u64,
    previous: Hash,
    bytes: u64,
    chunk: Vec<u8>,
    /// The plain bytes of `chunk` that were not given yet.
    plain: std::ops::Range<usize>,
    entries: u64,
    entry_bytes: u64,
    ending: Option<String>,
    done: bool,
}

impl Reader {
    /// Opens the recording of an id; links are not followed.
    pub fn open(path: &Path, id: RecordingId, key: &Secret) -> Result<Self, Finding> {
        let at_head = |wrong| Finding { chunk: None, wrong };
        let unreadable = |error: io::Error| at_head(Wrong::Unreadable(error.to_string()));
        let file = OpenOptions::new()
            .read(true)
            .custom_flags(OFlags::NOFOLLOW.bits().cast_signed())
            .open(path)
            .map_err(unreadable)?;
        if !file.metadata().map_err(unreadable)?.is_file() {
            return Err(at_head(Wrong::NoRecording));
        }
        let mut file = BufReader::with_capacity(64 * 1024, file);
        let mut head = [0; FILE_HEAD];
        if fill(&mut file, &mut head).map_err(unreadable)? < FILE_HEAD {
            return Err(at_head(Wrong::Cut));
        }
        let started = head.get(24..32).and_then(|b| b.try_into().ok()).map_or(0, i64::from_be_bytes);
        if !head.starts_with(&MAGIC) {
            return Err(at_head(Wrong::NoRecording));
        }
        if head.get(8..24) != Some(id.uuid().as_bytes().as_slice()) {
            return Err(at_head(Wrong::Another));
        }
        let started_at = OffsetDateTime::from_unix_timestamp_nanos(i128::from(started) * 1000);
        let (Ok(started_at), true) = (started_at, head == file_head(id, started)) else {
            return Err(at_head(Wrong::Altered));
        };
        Ok(Self {
            file,
            key: ChunkKey::new(id, key).ok_or(at_head(Wrong::Altered))?,
            started_at,
            number: 0,
            previous: hash(&head),
            bytes: FILE_HEAD as u64,
            chunk: Vec::new(),
            plain: 0..0,
            entries: 0,
            entry_bytes: 0,
            ending: None,
            done: false,
        })
    }

    /// When the recording began, by the gateway's clock. It is proved by the first chunk.
    pub fn started_at(&self) -> OffsetDateTime {
        self.started_at
    }

    /// How the session ended; known behind the last entry.
    pub fn ending(&self) -> Option<&str> {
        self.ending.as_deref()
    }

    /// What the recording is; known behind the last entry.
    pub fn summary(&self) -> Option<Summary> {
        self.ending.as_ref().map(|_| self.proved())
    }

    /// What was read and proved so far: behind a finding, all that is left of the recording.
    pub fn proved(&self) -> Summary {
        Summary { chunks: self.number, entries: self.entries, bytes: self.bytes, head: self.previous }
    }

    fn finding(&self, wrong: Wrong) -> Finding {
        Finding { chunk: Some(self.number), wrong }
    }

    fn fill(&mut self, into: &mut [u8]) -> Result<usize, Finding> {
        fill(&mut self.file, into).map_err(|error| self.finding(Wrong::Unreadable(error.to_string())))
    }

    fn next_entry(&mut self) -> Result<Option<Entry>, Finding> {
        while self.plain.is_empty() {
            if self.ending.is_some() {
                return Ok(None);
            }
            self.next_chunk()?;
        }
        // entries were sealed whole: anything else was written by another program that has the key
        let chunk = self.number.saturating_sub(1);
        let rest = self.chunk.get(self.plain.clone()).unwrap_or_default();
        let entry = rest.split_at_checked(ENTRY_HEAD).and_then(|(head, rest)| {
            let micros = head.get(1..9)?.try_into().ok().map(u64::from_be_bytes)?;
            let kind = EntryKind::from_number(byte(head, 0))?;
            let bytes = rest.get(..be32(head, ENTRY_HEAD - 4) as usize)?;
            Some(Entry { since: Duration::from_micros(micros), kind, bytes: bytes.to_vec() })
        });
        let Some(entry) = entry else {
            return Err(Finding { chunk: Some(chunk), wrong: Wrong::Altered });
        };
        self.plain.start += ENTRY_HEAD + entry.bytes.len();
        self.entries += 1;
        self.entry_bytes += entry.bytes.len() as u64;
        Ok(Some(entry))
    }

    fn next_chunk(&mut self) -> Result<(), Finding> {
        let mut head = [0; CHUNK_HEAD];
        if self.fill(&mut head)? < CHUNK_HEAD || head == [0; CHUNK_HEAD] {
            // zeros are space that was reserved and never used
            return Err(self.finding(Wrong::Cut));
        }
        let length = be32(&head, 0) as usize;
        let number = u64::from(be32(&head, 4)) << 32 | u64::from(be32(&head, 8));
        let kind = ChunkKind::from_number(byte(&head, 12));
        let (Some(kind), true, true) =
            (kind, number == self.number && head.ends_with(&[0; 3]), (TAG..=MAX_CHUNK + TAG).contains(&length))
        else {
            return Err(self.finding(Wrong::Altered));
        };
        let mut chunk = std::mem::take(&mut self.chunk);
        chunk.clear();
        chunk.extend_from_slice(&head);
        chunk.resize(CHUNK_HEAD + length, 0);
        if self.fill(chunk.get_mut(CHUNK_HEAD..).unwrap_or_default())? < length {
            return Err(self.finding(Wrong::Cut));
        }
        let this = hash(&chunk);
        let sealed = chunk.get_mut(CHUNK_HEAD..).unwrap_or_default();
        let opened = self.key.open(sealed, number, kind, &self.previous);
        let plain = opened.ok_or_else(|| self.finding(Wrong::Altered))?;
        match kind {
            ChunkKind::Data => self.plain = CHUNK_HEAD..CHUNK_HEAD + plain.len(),
            ChunkKind::Closing => {
                let total = |index: usize| {
                    plain.get(8 * index..8 * index + 8).and_then(|b| b.try_into().ok()).map_or(0, u64::from_be_bytes)
                };
                if (total(0), total(1), total(2)) != (self.number, self.entries, self.entry_bytes) {
                    return Err(self.finding(Wrong::Totals));
                }
                let text = plain.get(CLOSING_HEAD..).unwrap_or_default();
                self.ending = Some(String::from_utf8_lossy(text).into_owned());
            }
        }
        self.previous = this;
        self.number += 1;
        self.bytes += (CHUNK_HEAD + length) as u64;
        self.chunk = chunk;
        if self.ending.is_some() && self.fill(&mut [0])? != 0 {
            self.ending = None;
            return Err(self.finding(Wrong::Trailing));
        }
        Ok(())
    }
}

impl Iterator for Reader {
    type Item = Result<Entry, Finding>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.done {
            return None;
        }
        let next = self.next_entry().transpose();
        self.done = !matches!(next, Some(Ok(_)));
        next
    }
}

/// Reads until the slice is full or the file ends; gives how many bytes.
fn fill(file: &mut impl Read, into: &mut [u8]) -> io::Result<usize> {
    let mut have = 0;
    while let Some(rest) = into.get_mut(have..).filter(|rest| !rest.is_empty()) {
        match file.read(rest) {
            Ok(0) => break,
            Ok(count) => have += count,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(have)
}
