// SPDX-License-Identifier: Apache-2.0
//! Reading events back, with or without a writer beside: by place, or one after the other.

use crate::{
    error::Error,
    frame::{self, COMMIT, Commit, EVENT, HEADER, Header},
    keys::{LogId, Spot},
    scan::{Scan, Step},
    segment::{self, file_name},
};
use portcullis_domain::{Event, Seq};
use std::{
    fs::File,
    io,
    path::{Path, PathBuf},
};

/// An event and where it stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Placed {
    /// Its number.
    pub seq: Seq,
    /// The number of its segment file.
    pub segment: u64,
    /// Where its frame begins in that file, in bytes.
    pub offset: u64,
    /// The event.
    pub event: Event,
}

/// Reads the events of a log's folder. It needs no key and proves nothing: that is what `verify` is for.
#[derive(Debug, Clone)]
pub struct Reader {
    dir: PathBuf,
}

impl Reader {
    /// For a folder.
    pub fn new(dir: impl Into<PathBuf>) -> Self {
        Self { dir: dir.into() }
    }

    /// The event whose frame begins at a place; none when there is none.
    pub fn event(&self, segment: u64, offset: u64) -> Result<Option<Event>, Error> {
        let path = self.dir.join(file_name(segment));
        let file = match File::open(&path) {
            Ok(file) => file,
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(e) => return Err(Error::io("open", path)(e)),
        };
        match Scan::new(file, offset).next().map_err(Error::io("read", path))? {
            Step::Frame(_, f) if f.kind == EVENT => Ok(frame::read_event(f.payload)),
            _ => Ok(None),
        }
    }

    /// The event whose frame begins at a place, with the number that the commit after it gives it; none when there is
    /// no event, or none that was committed.
    pub fn placed(&self, segment: u64, offset: u64) -> Result<Option<Placed>, Error> {
        let path = self.dir.join(file_name(segment));
        let file = match File::open(&path) {
            Ok(file) => file,
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(e) => return Err(Error::io("open", path)(e)),
        };
        let (mut scan, mut events, mut event) = (Scan::new(file, offset), 0, None);
        loop {
            match scan.next().map_err(Error::io("read", path.as_path()))? {
                Step::Frame(_, f) if f.kind == EVENT => {
                    if events == 0 {
                        event = frame::read_event(f.payload);
                    }
                    events += 1;
                }
                Step::Frame(at, f) if f.kind == COMMIT => {
                    // Without a key no seal is checked, and the log's id is not looked at.
                    let spot = Spot { log: LogId::from_bytes([0; 16], [0; 16]), segment, offset: at };
                    let size = Commit::read(f.payload, None, &spot).map(|(commit, _)| commit.size());
                    let seq = size.and_then(|size| size.checked_sub(events)).map(Seq);
                    return Ok(event.zip(seq).map(|(event, seq)| Placed { seq, segment, offset, event }));
                }
                _ => return Ok(None),
            }
        }
    }

    /// The node that writes this log; none when nothing was written yet.
    pub fn node(&self) -> Result<Option<portcullis_domain::NodeId>, Error> {
        let Some(first) = segment::list(&self.dir)?.first().copied() else { return Ok(None) };
        Ok(Some(self.open(first)?.1.log().node))
    }

    /// Runs through the events from one on.
    pub fn follow(&self, from: Seq) -> Result<Follow, Error> {
        let mut found = None;
        // the last segment that begins at or before it
        for number in segment::list(&self.dir)?.into_iter().rev() {
            let (scan, header) = self.open(number)?;
            let (begins, size) = (header.size <= from.0, header.size);
            found = Some((number, scan, size));
            if begins {
                break;
            }
        }
        let Some((segment, scan, next)) = found else {
            return Ok(Follow { reader: self.clone(), segment: 0, scan: None, next: 0, from: from.0 });
        };
        Ok(Follow { reader: self.clone(), segment, scan: Some(scan), next, from: from.0 })
    }

    /// How many events are committed, as far as the last segment says.
    pub fn count(&self) -> Result<u64, Error> {
        let Some(last) = segment::list(&self.dir)?.last().copied() else { return Ok(0) };
        let (mut scan, header) = self.open(last)?;
        let log = header.log();
        let mut count = header.size;
        while let Step::Frame(offset, f) = scan.next().map_err(Error::io("read", self.dir.join(file_name(last))))? {
            if f.kind == COMMIT {
                let spot = Spot { log, segment: last, offset };
                count = Commit::read(f.payload, None, &spot).map_or(count, |(commit, _)| commit.size());
            }
        }
        Ok(count)
    }

    /// The last `most` committed events, oldest first.
    pub fn tail(&self, most: u64) -> Result<Vec<Placed>, Error> {
        let count = self.count()?;
        let mut run = self.follow(Seq(count.saturating_sub(most)))?;
        let mut placed = Vec::new();
        while let Some(next) = run.next(count)? {
            placed.push(next);
        }
        Ok(placed)
    }

    fn open(&self, segment: u64) -> Result<(Scan, Header), Error> {
        let name = file_name(segment);
        let path = self.dir.join(&name);
        let damaged = |what| Error::Damaged { file: name.clone(), offset: 0, what };
        let file = File::open(&path).map_err(Error::io("open", path.as_path()))?;
        let scan = Scan::after_magic(file).map_err(Error::io("read", path.as_path()))?;
        let mut scan = scan.ok_or_else(|| damaged("this is no segment"))?;
        let header = match scan.next().map_err(Error::io("read", path))? {
            Step::Frame(_, f) if f.kind == HEADER => Header::read(f.payload, None).map_err(damaged)?.0,
            _ => return Err(damaged("the header is gone")),
        };
        Ok((scan, header))
    }

    fn exists(&self, segment: u64) -> bool {
        self.dir.join(file_name(segment)).exists()
    }

    /// The folder.
    pub fn dir(&self) -> &Path {
        &self.dir
    }
}

/// A run through a log's events.
pub struct Follow {
    reader: Reader,
    segment: u64,
    scan: Option<Scan>,
    next: u64,
    from: u64,
}

impl Follow {
    /// The next event with a number below `durable`, which must not be more than the log holds.
    pub fn next(&mut self, durable: u64) -> Result<Option<Placed>, Error> {
        let mut fresh = false;
        loop {
            if self.next >= durable {
                return Ok(None);
            }
            let Some(scan) = &mut self.scan else {
                if self.segment == 0 && !self.reader.exists(0) {
                    return Ok(None);
                }
                let (scan, header) = self.reader.open(self.segment)?;
                (self.scan, self.next) = (Some(scan), header.size);
                continue;
            };
            let (segment, at) = (self.segment, scan.offset());
            match scan.next().map_err(Error::io("read", self.reader.dir.join(file_name(segment))))? {
                Step::Frame(offset, f) => {
                    fresh = false;
                    if f.kind != EVENT {
                        continue;
                    }
                    let seq = Seq(self.next);
                    self.next += 1;
                    if seq.0 < self.from {
                        continue;
                    }
                    let event = frame::read_event(f.payload).ok_or_else(|| Error::Damaged {
                        file: file_name(segment),
                        offset,
                        what: "an event is unreadable",
                    })?;
                    return Ok(Some(Placed { seq, segment, offset, event }));
                }
                // what was read ahead may be older than what is durable now
                Step::End(_) | Step::Bad(..) if !fresh => {
                    fresh = true;
                    scan.go(at);
                }
                Step::End(_) => {
                    if !self.reader.exists(segment + 1) {
                        return Ok(None);
                    }
                    self.segment += 1;
                    self.scan = None;
                }
                Step::Bad(offset, what) => return Err(Error::Damaged { file: file_name(segment), offset, what }),
            }
        }
    }

    /// Goes forward to an event: those before it are not given out.
    pub(crate) fn skip_to(&mut self, seq: u64) {
        self.from = self.from.max(seq);
    }
}
