// SPDX-License-Identifier: Apache-2.0
//! The verifier: reads a log's folder and names every place that is not what was sealed.
//!
//! Each segment begins with the tree that it continues, so segments are checked side by side and then chained. A log
//! that was cut at a commit is whole in itself: only what is known from outside finds that, be it the published
//! checkpoints beside the segments, the index in the store, or a checkpoint that was shipped away.

use crate::{
    checkpoint::{Checkpoint, Head, list},
    error::Error,
    frame::Header,
    inspect::{Context, Inspected, inspect},
    keys::{LogId, Ring, TrailKeys},
    segment::{self, file_name},
    sidecar::{CHECKPOINTS, read_notes},
    tree::sha256,
};
use portcullis_domain::{NodeId, Seq};
use std::{
    collections::BTreeMap,
    fmt,
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    thread,
};

/// How bad a finding is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Grade {
    /// Odd, but no event was changed or lost: a clock that was set back, a checkpoint that was not published.
    Warning,
    /// The log is not what was written.
    Broken,
}

/// One place where a log is not what it should be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finding {
    /// How bad.
    pub grade: Grade,
    /// The file's name in the log's folder.
    pub file: String,
    /// Where in the file it begins, in bytes.
    pub offset: u64,
    /// How far it may reach, in bytes; 0 when it is one point.
    pub length: u64,
    /// The number of the event that stands there, or of the first that would follow.
    pub seq: Seq,
    /// What is wrong, in plain words.
    pub what: String,
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { file, offset, length, seq, what, .. } = self;
        match length {
            0 => write!(f, "{file}, byte {offset}, event {seq}: {what}"),
            _ => write!(f, "{file}, bytes {offset} to {}, from event {seq}: {what}", offset + length),
        }
    }
}

/// What is known of a log from outside; what is none is not compared.
#[derive(Debug, Clone, Default)]
pub struct Known {
    /// The node that it must belong to.
    pub node: Option<NodeId>,
    /// The newest event that the index in the store holds.
    pub indexed: Option<Seq>,
    /// Size and root at one time, such as from a checkpoint that was shipped away.
    pub head: Option<Head>,
}

/// What a verification saw.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Report {
    /// Committed events.
    pub events: u64,
    /// Segment files.
    pub segments: u64,
    /// Checkpoints that hold.
    pub checkpoints: u64,
    /// Events that the newest of them covers: without the node's keys only these are proven.
    pub covered: u64,
    /// Operations that are open at the end.
    pub open: Vec<Seq>,
    /// Size and root at the end, as far as the segments hold.
    pub head: Option<Head>,
    /// Whether a writer was at work.
    pub live: bool,
    /// Everything that is odd or broken, in the order of the files.
    pub findings: Vec<Finding>,
}

impl Report {
    /// Whether nothing is broken; warnings may be there.
    pub fn is_sound(&self) -> bool {
        self.findings.iter().all(|f| f.grade == Grade::Warning)
    }
}

/// Verifies a log with the node's keys. A writer may be at work beside: everything up to a commit that it made is
/// covered. An error only when files cannot be read.
pub fn verify(dir: &Path, keys: &TrailKeys, known: &Known) -> Result<Report, Error> {
    let ring = Ring::new(keys)?;
    let public = ring.public;
    check(dir, Some(Arc::new(ring)), public, known)
}

/// Verifies a log with the public key of its checkpoints alone: proven is what [`Report::covered`] says.
pub fn verify_offline(dir: &Path, verifying_key: &[u8; 32], known: &Known) -> Result<Report, Error> {
    check(dir, None, *verifying_key, known)
}

fn check(dir: &Path, ring: Option<Arc<Ring>>, public: [u8; 32], known: &Known) -> Result<Report, Error> {
    let live = crate::trail::is_live(dir);
    // before the segments: what a writer published until now is in them
    let text = read_notes(dir)?;
    let numbers = segment::list(dir)?;
    let context = Context { dir, ring, public, head: known.head, last: numbers.last().copied() };
    let parts = inspect_all(&context, &numbers)?;
    let log = prevailing(&parts);
    let mut chain = Chain { findings: Vec::new(), log, end: Some(End::default()), last_at: i64::MIN };
    let mut notes = BTreeMap::new();
    let mut report = Report {
        events: 0,
        segments: numbers.len() as u64,
        checkpoints: 0,
        covered: 0,
        open: Vec::new(),
        head: Some(Head { size: 0, root: sha256(&[]) }),
        live,
        findings: Vec::new(),
    };
    let mut seen = known.head.is_none_or(|h| h == Head { size: 0, root: sha256(&[]) });
    for (expected, part) in (0..).zip(parts) {
        chain.join(expected, &part, known.node);
        report.events = report.events.max(part.size);
        report.checkpoints += part.marks.len() as u64;
        for mark in part.marks {
            report.covered = report.covered.max(mark.size);
            notes.insert(mark.size, mark);
        }
        seen |= part.saw_known_head;
        chain.findings.extend(part.findings);
        report.head = part.end.as_ref().map(|f| Head { size: f.frontier.size(), root: f.frontier.root() });
        report.open = part.end.iter().flat_map(|f| f.open.iter().map(|s| Seq(*s))).collect();
        chain.end = part.end;
    }
    let mut findings = chain.findings;
    let tail = |what: String| {
        let file = numbers.last().map_or_else(|| CHECKPOINTS.to_owned(), |n| file_name(*n));
        let seq = Seq(report.events);
        Finding { grade: Grade::Broken, file, offset: 0, length: 0, seq, what }
    };
    if let Some(indexed) = known.indexed.filter(|s| s.0 >= report.events) {
        findings.push(tail(format!(
            "the index knows event {indexed}, but the log ends before event {}: its end was cut",
            report.events
        )));
    }
    if let (false, Some(head)) = (seen, known.head) {
        findings.push(tail(if head.size > report.events {
            format!("a checkpoint covers {} events, but the log holds {}: its end was cut", head.size, report.events)
        } else {
            format!("the log does not have the known root at {} events: it is another history", head.size)
        }));
    }
    published(&text, &public, chain.log, live, &report, &mut notes, &mut findings);
    report.findings = findings;
    Ok(report)
}

/// The log that most segments belong to: the others are the ones that do not belong here.
fn prevailing(parts: &[Inspected]) -> Option<LogId> {
    let logs = || parts.iter().filter_map(|p| p.header.as_ref()).map(Header::log);
    logs().rev().max_by_key(|log| logs().filter(|l| l == log).count())
}

/// Inspects every segment, as many side by side as there are cores.
fn inspect_all(context: &Context<'_>, numbers: &[u64]) -> Result<Vec<Inspected>, Error> {
    let workers = thread::available_parallelism().map_or(1, usize::from).min(numbers.len());
    let next = AtomicUsize::new(0);
    let work = || {
        let mut done = Vec::new();
        while let Some(number) = numbers.get(next.fetch_add(1, Ordering::Relaxed)) {
            done.push(inspect(context, *number)?);
        }
        Ok(done)
    };
    let mut parts = thread::scope(|scope| {
        let others: Vec<_> = (1..workers).map(|_| scope.spawn(work)).collect();
        let mut parts: Vec<Inspected> = work()?;
        for other in others {
            let lost = |_| Error::Settings("verifier lost a thread; run it again");
            parts.extend(other.join().map_err(lost)??);
        }
        Ok::<_, Error>(parts)
    })?;
    parts.sort_by_key(|p| p.number);
    Ok(parts)
}

/// Where a segment ends, when that is certain.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct End {
    pub(crate) frontier: crate::tree::Frontier,
    pub(crate) open: std::collections::BTreeSet<u64>,
}

/// What joins one segment to the next.
struct Chain {
    findings: Vec<Finding>,
    log: Option<LogId>,
    end: Option<End>,
    last_at: i64,
}

impl Chain {
    fn join(&mut self, expected: u64, part: &Inspected, node: Option<NodeId>) {
        let mut say = |what: String| {
            let (file, seq) = (file_name(part.number), Seq(part.header.as_ref().map_or(0, |h| h.size)));
            self.findings.push(Finding { grade: Grade::Broken, file, offset: 8, length: 0, seq, what });
        };
        if part.number != expected && self.end.is_some() {
            say(format!("segment {expected} is missing before this one"));
        }
        let Some(header) = &part.header else { return };
        let log = header.log();
        if let Some(node) = node.filter(|n| *n != log.node) {
            say(format!("this segment belongs to node {}, not to {node}", log.node));
        }
        if self.log != Some(log) {
            say("this segment belongs to another log".to_owned());
        }
        if let Some(end) = &self.end
            && (end.frontier.size() != header.size
                || end.frontier.root() != header.root
                || !end.open.iter().eq(header.open.iter()))
        {
            say(format!(
                "this segment continues after {} events, but the one before ends after {} or with another history",
                header.size,
                end.frontier.size()
            ));
        }
        if let Some((first, last)) = part.times {
            if first.saturating_add(crate::inspect::SLACK_US) < self.last_at {
                let (file, seq) = (file_name(part.number), Seq(header.size));
                let what = "the clock was set back before this segment".to_owned();
                self.findings.push(Finding { grade: Grade::Warning, file, offset: 8, length: 0, seq, what });
            }
            self.last_at = last;
        }
    }
}

/// Compares the published notes with the checkpoints in the log.
fn published(
    text: &str,
    public: &[u8; 32],
    log: Option<LogId>,
    live: bool,
    report: &Report,
    notes: &mut BTreeMap<u64, crate::inspect::Marked>,
    findings: &mut Vec<Finding>,
) {
    let (mut last, origin) = (0, log.map(|l| l.origin()));
    for note in list(text) {
        let mut say = |grade, seq, what: String| {
            let (file, length) = (CHECKPOINTS.to_owned(), note.text.len() as u64);
            findings.push(Finding { grade, file, offset: note.offset, length, seq: Seq(seq), what });
        };
        if !note.whole {
            say(if live { Grade::Warning } else { Grade::Broken }, last, "a checkpoint that is cut off".to_owned());
            break;
        }
        // one that stands in the log word for word was checked there
        let hash = sha256(note.text.as_bytes());
        let stated = note.text.lines().nth(1).and_then(|size| size.parse::<u64>().ok());
        let size = if let Some(size) = stated.filter(|s| notes.get(s).is_some_and(|mark| mark.note == hash)) {
            notes.remove(&size);
            size
        } else {
            let checkpoint = match Checkpoint::read(note.text, public) {
                Ok(checkpoint) => checkpoint,
                Err(why) => {
                    say(Grade::Broken, last, why.to_string());
                    continue;
                }
            };
            let (size, events) = (checkpoint.head.size, report.events);
            let what = if origin.as_ref().is_some_and(|o| *o != checkpoint.origin) {
                "this checkpoint belongs to another log".to_owned()
            } else if size > events {
                format!("a checkpoint covers {size} events, but the log holds {events}: its end was cut")
            } else {
                format!("the log does not hold this checkpoint of {size} events")
            };
            say(Grade::Broken, size, what);
            size
        };
        if size <= last && last > 0 {
            say(Grade::Broken, size, format!("this checkpoint of {size} events stands after one of {last}"));
        }
        last = size;
    }
    for (size, mark) in notes {
        // a writer publishes after the flush: its newest one may still be on its way
        if !live || *size < last {
            let what = format!("the checkpoint of {size} events was not published");
            let file = file_name(mark.segment);
            let seq = Seq(*size);
            findings.push(Finding { grade: Grade::Warning, file, offset: mark.offset, length: 0, seq, what });
        }
    }
}
