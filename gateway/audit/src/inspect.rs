// SPDX-License-Identifier: Apache-2.0
//! The verifier's look at one segment: every checksum, seal and signature, and the tree over its events.

use crate::{
    checkpoint::{Checkpoint, Head},
    error::Error,
    frame::{self, CHECKPOINT, COMMIT, Commit, EVENT, Frame, HEADER, Header, Mark, Seal},
    keys::{Ring, Spot},
    scan::{Scan, Step, find_commit, find_mark, last_set, part},
    segment::file_name,
    tree::{Frontier, Hash, sha256},
    verify::{End, Finding, Grade},
};
use portcullis_domain::{Phase, Seq};
use std::{fs::File, path::Path, sync::Arc, thread, time::Duration};

/// How far a time may lie before an earlier event's without being odd: threads append side by side.
pub(crate) const SLACK_US: i64 = 5_000_000;
/// How often and how long the end of a log that is being written is given time to become whole.
const TRIES: u32 = 200;
const PAUSE: Duration = Duration::from_millis(5);

/// What all segments are checked against.
pub(crate) struct Context<'a> {
    pub(crate) dir: &'a Path,
    pub(crate) ring: Option<Arc<Ring>>,
    pub(crate) public: [u8; 32],
    pub(crate) head: Option<Head>,
    pub(crate) last: Option<u64>,
}

/// A checkpoint that holds.
pub(crate) struct Marked {
    pub(crate) size: u64,
    pub(crate) segment: u64,
    pub(crate) offset: u64,
    pub(crate) note: Hash,
}

/// What one segment showed.
pub(crate) struct Inspected {
    pub(crate) number: u64,
    pub(crate) header: Option<Header>,
    /// Events up to its last commit.
    pub(crate) size: u64,
    pub(crate) marks: Vec<Marked>,
    /// Where it ends, when everything up to there holds or was found again.
    pub(crate) end: Option<End>,
    pub(crate) times: Option<(i64, i64)>,
    pub(crate) saw_known_head: bool,
    pub(crate) findings: Vec<Finding>,
}

struct Run<'a> {
    context: &'a Context<'a>,
    spot: Spot,
    done: Inspected,
    /// The tree and the open operations after the last commit, and after the events since.
    sure: End,
    now: End,
    /// Where the events since the last commit begin.
    since: u64,
    /// Whether the tree is lost until the next checkpoint.
    lost: bool,
    latest: i64,
}

/// Checks one segment.
pub(crate) fn inspect(context: &Context<'_>, number: u64) -> Result<Inspected, Error> {
    let path = context.dir.join(file_name(number));
    let mut done = Inspected {
        number,
        header: None,
        size: 0,
        marks: Vec::new(),
        end: None,
        times: None,
        saw_known_head: false,
        findings: Vec::new(),
    };
    let mut headless = |offset, what: &str| {
        done.findings.push(Finding {
            grade: Grade::Broken,
            file: file_name(number),
            offset,
            length: 0,
            seq: Seq(0),
            what: what.to_owned(),
        });
    };
    let file = File::open(&path).map_err(Error::io("open", path.as_path()))?;
    let Some(mut scan) = Scan::after_magic(file).map_err(Error::io("read", path.as_path()))? else {
        headless(0, "this is no segment: its first bytes are gone");
        return Ok(done);
    };
    let (header, seal) = match scan.next().map_err(Error::io("read", path.as_path()))? {
        Step::Frame(at, f) if f.kind == HEADER => match Header::read(f.payload, context.ring.as_deref()) {
            Ok(read) => read,
            Err(what) => {
                headless(at, what);
                return Ok(done);
            }
        },
        Step::Frame(at, _) | Step::End(at) | Step::Bad(at, _) => {
            headless(at, "the header of the segment is gone");
            return Ok(done);
        }
    };
    if seal == Seal::Broken {
        headless(8, "the header was not sealed with this key: it was changed, or the segment is another log's");
        return Ok(done);
    }
    let Some(frontier) = header.frontier() else {
        headless(8, "the header does not agree with itself");
        return Ok(done);
    };
    if header.segment != number {
        headless(8, &format!("this is segment {} under another name", header.segment));
    }
    let spot = Spot { log: header.log(), segment: header.segment, offset: 0 };
    let sure = End { frontier, open: header.open.iter().copied().collect() };
    done.header = Some(header);
    let since = scan.offset();
    let now = sure.clone();
    let mut run = Run { context, spot, done, sure, now, since, lost: false, latest: i64::MIN };
    run.note_head();
    let seen = run.go(&mut scan).map_err(Error::io("read", path))?;
    let Run { mut done, sure, lost, .. } = run;
    done.size = done.size.max(sure.frontier.size());
    done.end = (!lost && seen).then_some(sure);
    Ok(done)
}

impl Run<'_> {
    fn say(&mut self, grade: Grade, offset: u64, length: u64, what: impl Into<String>) {
        let seq = Seq(if grade == Grade::Warning { self.now.frontier.size() } else { self.sure.frontier.size() });
        let file = file_name(self.done.number);
        self.done.findings.push(Finding { grade, file, offset, length, seq, what: what.into() });
    }

    fn note_head(&mut self) {
        let size = self.sure.frontier.size();
        if self.context.head.is_some_and(|h| h.size == size && h.root == self.sure.frontier.root()) {
            self.done.saw_known_head = true;
        }
    }

    fn ring(&self) -> Option<&Ring> {
        self.context.ring.as_deref()
    }

    /// Runs through all frames; gives whether the end was reached.
    fn go(&mut self, scan: &mut Scan) -> std::io::Result<bool> {
        let is_last = self.context.last == Some(self.done.number);
        let mut tries = 0;
        loop {
            let (at, why) = match scan.next()? {
                Step::Frame(at, frame) => {
                    self.frame(at, &frame);
                    continue;
                }
                Step::End(at) => (at, None),
                Step::Bad(at, why) => (at, Some(why)),
            };
            let live = is_last && crate::trail::is_live(self.context.dir);
            if live && (why.is_none() || tries < TRIES) {
                if why.is_none() {
                    // what comes after the last commit is in the air
                    return Ok(true);
                }
                tries += 1;
                thread::sleep(PAUSE);
                scan.go(at);
                continue;
            }
            let length = scan.file().metadata()?.len();
            let set = last_set(scan.file(), at, length)?;
            if why.is_none() && set.is_none() {
                if self.since < at && self.sure != self.now {
                    let what = "events without a commit: never acknowledged, or their commit is gone";
                    self.say(Grade::Broken, self.since, at - self.since, what);
                }
                if !is_last && self.done.marks.last().is_none_or(|m| m.size != self.sure.frontier.size()) {
                    self.say(Grade::Broken, at, 0, "the segment ends without its last checkpoint: its end was cut");
                }
                return Ok(true);
            }
            let bytes = part(scan.file(), at, set.map_or(at, |s| s + 1))?;
            let from = Spot { offset: at, ..self.spot };
            let next = self.sure.frontier.size();
            // a commit further on holds only if the batch before it was whole once
            let again = find_mark(&bytes, &from, self.ring());
            let whole = find_commit(&bytes, &from, self.ring(), next).is_some() || again.is_some();
            let why = why.unwrap_or("zeros where a frame should begin");
            let (begin, end) = (self.since.min(at), again.as_ref().map_or(at + bytes.len() as u64, |(o, _)| *o));
            self.say(Grade::Broken, begin, end - begin, match (whole, is_last) {
                (true, _) => format!("{why} at byte {at}: the bytes were changed after they were sealed"),
                (false, true) => format!(
                    "{why} at byte {at}, and no commit after it: a write that a crash tore (the next start cuts it), or \
                     an end that was changed"
                ),
                (false, false) => format!("{why} at byte {at}, and no commit after it: the end was changed"),
            });
            let Some((offset, _)) = again else {
                self.lost |= whole || !is_last;
                return Ok(false);
            };
            self.lost = true;
            scan.go(offset);
        }
    }

    fn frame(&mut self, at: u64, frame: &Frame<'_>) {
        match frame.kind {
            EVENT => self.event(at, frame),
            COMMIT => self.commit(at, frame),
            CHECKPOINT => self.checkpoint(at, frame),
            _ => self.say(Grade::Broken, at, frame.length as u64, "a frame of a kind that does not belong here"),
        }
    }

    fn event(&mut self, at: u64, frame: &Frame<'_>) {
        if self.lost {
            return;
        }
        let seq = self.now.frontier.size();
        self.now.frontier.push(sha256(frame.hashed));
        let Some((at_us, phase)) = frame::peek(frame.payload) else {
            self.say(Grade::Broken, at, frame.length as u64, "an event that cannot be read");
            return;
        };
        if at_us.saturating_add(SLACK_US) < self.latest {
            self.say(Grade::Warning, at, 0, "the clock was set back before this event");
            self.latest = at_us;
        }
        self.latest = self.latest.max(at_us);
        self.done.times = Some((self.done.times.map_or(at_us, |(first, _)| first), self.latest));
        match phase {
            Phase::Opened => drop(self.now.open.insert(seq)),
            Phase::Closed(opened) => {
                if !self.now.open.remove(&opened.0) {
                    self.say(Grade::Broken, at, 0, format!("it closes event {opened}, which is not open"));
                }
            }
            Phase::Noted => {}
        }
    }

    fn commit(&mut self, at: u64, frame: &Frame<'_>) {
        let end = at + frame.length as u64;
        let read = Commit::read(frame.payload, self.ring(), &Spot { offset: at, ..self.spot });
        let (first, since) = (self.sure.frontier.size(), std::mem::replace(&mut self.since, end));
        let what = match read {
            None => "a commit that cannot be read".to_owned(),
            Some((_, Seal::Broken)) => {
                "a commit that was not sealed here with this key: it or the events before it were changed or moved"
                    .to_owned()
            }
            // after a break the tree is found again at the next checkpoint
            Some((c, _)) if self.lost => {
                self.done.size = self.done.size.max(c.size());
                return;
            }
            Some((c, _)) if c.first != first || c.size() != self.now.frontier.size() => format!(
                "this commit sealed events {} to {}, but {first} to {} stand before it: some were left out, added or \
                 moved",
                c.first,
                c.size(),
                self.now.frontier.size()
            ),
            Some((c, _)) if c.root != self.now.frontier.root() => {
                "the events before this commit are not those that it sealed".to_owned()
            }
            Some(_) => {
                self.sure.frontier.copy_from(&self.now.frontier);
                self.sure.open.clone_from(&self.now.open);
                self.note_head();
                return;
            }
        };
        if !self.lost {
            self.say(Grade::Broken, since, end - since, what);
        }
        self.lost = true;
    }

    fn checkpoint(&mut self, at: u64, frame: &Frame<'_>) {
        let end = at + frame.length as u64;
        self.since = end;
        let read = Mark::read(frame.payload, self.ring(), &Spot { offset: at, ..self.spot });
        let Some((mark, seal)) = read else {
            self.say(Grade::Broken, at, end - at, "a checkpoint that cannot be read");
            return;
        };
        let what = match (Checkpoint::read(&mark.note, &self.context.public), mark.frontier()) {
            _ if seal == Seal::Broken => "a checkpoint that was not sealed here with this key",
            (Err(_), _) => "a checkpoint whose signature does not hold",
            (_, None) => "a checkpoint that does not agree with itself",
            (Ok(c), _) if c.origin != self.spot.log.origin() => "a checkpoint of another log",
            (Ok(c), Some(f)) if c.head != (Head { size: f.size(), root: f.root() }) => {
                "a checkpoint that does not agree with itself"
            }
            (Ok(_), Some(f)) if !self.lost && (f != self.now.frontier || self.sure.frontier != f) => {
                "a checkpoint of another history than the events before it"
            }
            (Ok(_), Some(_)) if !self.lost && !mark.open.iter().eq(self.sure.open.iter()) => {
                "a checkpoint that lists other open operations than the events before it"
            }
            (Ok(c), Some(f)) => {
                let note = sha256(mark.note.as_bytes());
                let (size, segment) = (c.head.size, self.done.number);
                self.done.marks.push(Marked { size, segment, offset: at, note });
                if self.lost {
                    self.resume(f, mark.open);
                }
                return;
            }
        };
        self.say(Grade::Broken, at, end - at, what);
    }

    /// Goes on from a checkpoint after a break.
    fn resume(&mut self, frontier: Frontier, open: Vec<u64>) {
        self.sure = End { frontier, open: open.into_iter().collect() };
        self.now.clone_from(&self.sure);
        self.lost = false;
        self.note_head();
    }
}
