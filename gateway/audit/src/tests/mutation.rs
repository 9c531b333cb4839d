// SPDX-License-Identifier: Apache-2.0
//! Ten thousand ways to change a log: each is found, and the place is named.

use super::{event, fill, keys, node, small, sound};
use crate::{
    Grade, Head, Known, Recovered, Report, Settings, Trail,
    frame::{self, COMMIT, EVENT, Parsed},
    segment::{file_name, list},
    tree::Frontier,
    verify, verify_offline,
};
use portcullis_domain::{NodeId, Phase, Seq, SystemClock};
use std::{collections::BTreeMap, fs, ops::Range, path::Path, sync::Arc};

/// A small generator that gives the same numbers each time.
struct Dice(u64);

impl Dice {
    fn below(&mut self, n: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        usize::try_from(self.0 >> 11).unwrap() % n
    }

    fn of<'a, T>(&mut self, all: &'a [T]) -> &'a T {
        &all[self.below(all.len())]
    }
}

type Files = BTreeMap<String, Vec<u8>>;

fn load(dir: &Path) -> Files {
    let mut files = Files::new();
    for file in fs::read_dir(dir).unwrap() {
        let file = file.unwrap();
        files.insert(file.file_name().into_string().unwrap(), fs::read(file.path()).unwrap());
    }
    files
}

/// The frames of a segment: where each is, and its kind.
fn frames(bytes: &[u8]) -> Vec<(Range<usize>, u8)> {
    let (mut at, mut all) = (8, Vec::new());
    while let Parsed::Frame(f) = frame::parse(&bytes[at..]) {
        all.push((at..at + f.length, f.kind));
        at += f.length;
    }
    all
}

fn written(bytes: &[u8]) -> usize {
    bytes.iter().rposition(|b| *b != 0).unwrap() + 1
}

/// Puts a frame's checksum right again.
fn seal(bytes: &mut [u8], frame: &Range<usize>) {
    let crc = crc32fast::hash(&bytes[frame.start..frame.end - 4]);
    bytes[frame.end - 4..frame.end].copy_from_slice(&crc.to_le_bytes());
}

/// Replaces parts of a segment (in order) and keeps its length.
fn splice(bytes: &mut Vec<u8>, parts: &[(Range<usize>, Vec<u8>)]) {
    let length = bytes.len();
    for (range, with) in parts.iter().rev() {
        bytes.splice(range.clone(), with.iter().copied());
    }
    bytes.resize(length, 0);
}

/// What was changed: in which file, from where to where, and whether the public key alone must find it too.
struct Change {
    what: &'static str,
    file: String,
    range: Range<usize>,
    offline: bool,
    known: Known,
}

struct Bench {
    files: Files,
    segments: Vec<String>,
    /// A log of the same node and keys, and one of another node.
    twins: Vec<Files>,
    commits: Vec<(String, usize, Head)>,
    head: Head,
}

impl Bench {
    fn frames(&self, dice: &mut Dice, kinds: &[u8]) -> (String, Vec<Range<usize>>) {
        let file = dice.of(&self.segments).clone();
        let all = frames(&self.files[&file]).into_iter().filter(|f| kinds.contains(&f.1)).map(|f| f.0).collect();
        (file, all)
    }

    fn change(&self, dice: &mut Dice, files: &mut Files) -> Change {
        let known = Known { node: Some(node()), indexed: None, head: Some(self.head) };
        let change = |what, file: String, range: Range<usize>| Change {
            what,
            file,
            range,
            offline: false,
            known: known.clone(),
        };
        match dice.below(14) {
            0 | 1 => {
                let file = dice.of(&self.segments).clone();
                let bytes = files.get_mut(&file).unwrap();
                let most = if dice.below(8) == 0 { bytes.len() } else { written(bytes) };
                let at = dice.below(most);
                bytes[at] ^= 1 << dice.below(8);
                Change { offline: true, ..change("a flipped bit", file, at..at + 1) }
            }
            2 => {
                let file = dice.of(&self.segments).clone();
                let bytes = files.get_mut(&file).unwrap();
                let (end, at) = (written(bytes), dice.below(written(bytes)));
                bytes.truncate(at);
                change("a file that was cut", file, at..end)
            }
            3 => {
                let file = dice.of(&self.segments).clone();
                let bytes = files.get_mut(&file).unwrap();
                let end = written(bytes);
                let at = dice.below(end);
                let to = (at + 1 + dice.below(600)).min(end);
                // the last byte that was written is not zero, so something changes
                bytes[at..to].fill(0);
                bytes[at] ^= u8::from(at + 1 < end && self.files[&file][at..to].iter().all(|b| *b == 0));
                change("zeros over a part", file, at..to)
            }
            4 => {
                let (file, all) = self.frames(dice, &[EVENT]);
                let (a, b) = (dice.below(all.len()), dice.below(all.len()));
                let (a, b) = (all[a.min(b)].clone(), all[a.max(b)].clone());
                let bytes = files.get_mut(&file).unwrap();
                let (first, second) = (bytes[a.clone()].to_vec(), bytes[b.clone()].to_vec());
                if a == b || first == second {
                    return self.change(dice, files);
                }
                splice(bytes, &[(a.clone(), second), (b.clone(), first)]);
                Change { offline: true, ..change("two events in each other's place", file, a.start..b.end) }
            }
            5 => {
                let (file, all) = self.frames(dice, &[EVENT, COMMIT, frame::CHECKPOINT]);
                let (other, theirs) = self.frames(dice, &[EVENT, COMMIT, frame::CHECKPOINT]);
                let (to, from) = (dice.of(&all).clone(), dice.of(&theirs).clone());
                let bytes = self.files[&other][from].to_vec();
                if bytes == files[&file][to.clone()] {
                    return self.change(dice, files);
                }
                splice(files.get_mut(&file).unwrap(), &[(to.clone(), bytes)]);
                change("a frame from elsewhere", file, to)
            }
            6 => {
                let (a, b) = (dice.below(self.segments.len()), dice.below(self.segments.len()));
                if a == b {
                    return self.change(dice, files);
                }
                let (a, b) = (self.segments[a].clone(), self.segments[b].clone());
                files.insert(a.clone(), self.files[&b].clone());
                files.insert(b, self.files[&a].clone());
                Change { offline: true, ..change("two segments in each other's place", a, 8..9) }
            }
            7 => {
                let file = dice.of(&self.segments).clone();
                let Some(theirs) = dice.of(&self.twins).get(&file) else { return self.change(dice, files) };
                files.insert(file.clone(), theirs.clone());
                Change { offline: true, ..change("a segment of another log", file, 8..9) }
            }
            8 => {
                let (file, at, head) = dice.of(&self.commits).clone();
                if head.size == self.head.size {
                    return self.change(dice, files);
                }
                self.cut(files, &file, at, head);
                Change { offline: true, ..change("an end cut at a commit, with its checkpoints", file, 0..1) }
            }
            9 => {
                let (file, all) = self.frames(dice, &[EVENT]);
                let range = dice.of(&all).clone();
                let bytes = files.get_mut(&file).unwrap();
                let at = range.start + 5 + dice.below(range.len() - 9);
                bytes[at] ^= 1 << dice.below(8);
                seal(bytes, &range);
                if dice.below(2) == 0 {
                    forge(bytes, &self.files[&file]);
                }
                Change { offline: true, ..change("an event with its checksum and roots made right again", file, range) }
            }
            10 => {
                let (file, all) = self.frames(dice, &[COMMIT, frame::CHECKPOINT, frame::HEADER]);
                let range = dice.of(&all).clone();
                let bytes = files.get_mut(&file).unwrap();
                let at = range.start + 5 + dice.below(range.len() - 9);
                bytes[at] ^= 1 << dice.below(8);
                seal(bytes, &range);
                change("a seal with its checksum made right again", file, range)
            }
            11 => {
                let (file, all) = self.frames(dice, &[EVENT]);
                let range = dice.of(&all).clone();
                let bytes = files.get_mut(&file).unwrap();
                let own = bytes[range.clone()].to_vec();
                let mut forged = Vec::new();
                frame::write_event(&mut forged, &frame::Line::of(&event(dice.0 >> 20, Phase::Noted))).unwrap();
                let with = [Vec::new(), [own.clone(), own.clone()].concat(), [own, forged].concat()];
                splice(bytes, &[(range.clone(), dice.of(&with).clone())]);
                Change { offline: true, ..change("an event left out, doubled or added", file, range) }
            }
            12 => {
                let file = dice.of(&self.segments).clone();
                files.remove(&file);
                Change { offline: true, ..change("a segment that is gone", file, 0..1) }
            }
            _ => {
                let file = "checkpoints".to_owned();
                let bytes = files.get_mut(&file).unwrap();
                let at = dice.below(bytes.len());
                match dice.below(2) {
                    0 => bytes[at] ^= 1 << dice.below(8),
                    _ => bytes.truncate(at),
                }
                change("other published checkpoints", file, at..self.files["checkpoints"].len())
            }
        }
    }

    /// The log as it was after a commit.
    fn cut(&self, files: &mut Files, file: &str, at: usize, head: Head) {
        files.get_mut(file).unwrap()[at..].fill(0);
        for later in self.segments.iter().filter(|s| s.as_str() > file) {
            files.remove(later);
        }
        let text = String::from_utf8(self.files["checkpoints"].clone()).unwrap();
        let kept = crate::checkpoint::list(&text)
            .into_iter()
            .filter(|n| n.text.lines().nth(1).and_then(|s| s.parse::<u64>().ok()).is_some_and(|size| size < head.size));
        let kept: String = kept.flat_map(|n| [n.text, "\n"]).collect();
        files.insert("checkpoints".to_owned(), kept.into_bytes());
    }
}

/// Makes the roots of all commits of a segment right, as far as that goes without a key.
fn forge(bytes: &mut [u8], original: &[u8]) {
    let Parsed::Frame(header) = frame::parse(&original[8..]) else { panic!("no header") };
    let (header, _) = frame::Header::read(header.payload, None).unwrap();
    let mut frontier: Frontier = header.frontier().unwrap();
    for (range, kind) in frames(bytes) {
        match kind {
            EVENT => frontier.push(crate::tree::sha256(&bytes[range.start + 4..range.end - 4])),
            COMMIT => {
                bytes[range.start + 17..range.start + 49].copy_from_slice(&frontier.root());
                seal(bytes, &range);
            }
            _ => {}
        }
    }
}

fn named(report: &Report, change: &Change) -> bool {
    report.findings.iter().any(|f| {
        let reach = f.offset..=f.offset + f.length;
        let (from, to) = (change.range.start as u64, change.range.end as u64);
        f.file == change.file && (*reach.start() <= to && from <= *reach.end())
            // what is gone is told by what is left: the next segment, the last one, the published checkpoints
            || f.grade == Grade::Broken && (f.what.contains("missing before") || f.what.contains("end was cut"))
            || f.what.contains("the log does not hold this checkpoint")
            || f.what.contains("was not published") && change.file == "checkpoints"
    })
}

fn write(dir: &Path, now: &Files, before: &Files) {
    for name in before.keys().filter(|n| !now.contains_key(*n)) {
        fs::remove_file(dir.join(name)).unwrap();
    }
    for (name, bytes) in now {
        if before.get(name) != Some(bytes) {
            fs::write(dir.join(name), bytes).unwrap();
        }
    }
}

/// A log with segments so small that many fit into one look.
fn tiny(dir: &Path, node: NodeId) -> (Trail, Recovered) {
    let settings = Settings { segment_bytes: 8192, ..small() };
    Trail::open_with(dir, &keys(), node, Arc::new(SystemClock), settings).unwrap()
}

fn bench(dir: &Path) -> Bench {
    let (one, other) = (dir.join("one"), dir.join("other"));
    let (trail, _) = tiny(&one, node());
    let mut commits = Vec::new();
    for n in 0..50 {
        fill(&trail, 1 + n % 5);
        if n % 9 == 0 {
            trail.wait(trail.append(&event(n, Phase::Noted)).unwrap()).unwrap();
        }
    }
    let head = trail.head();
    drop(trail);
    sound(&one);
    let stranger = dir.join("stranger");
    fill(&tiny(&other, node()).0, 150);
    fill(&tiny(&stranger, NodeId::new(uuid::Uuid::from_u128(0xbad))).0, 150);
    let files: Files = load(&one).into_iter().filter(|(n, _)| n != "lock" && n != "head").collect();
    let segments: Vec<String> = list(&one).unwrap().into_iter().map(file_name).collect();
    for segment in &segments {
        let bytes = &files[segment];
        for (range, _) in frames(bytes).into_iter().filter(|f| f.1 == COMMIT) {
            let p = &bytes[range.start + 5..];
            let size = u64::from_le_bytes(p[..8].try_into().unwrap())
                + u64::from(u32::from_le_bytes(p[8..12].try_into().unwrap()));
            commits.push((segment.clone(), range.end, Head { size, root: p[12..44].try_into().unwrap() }));
        }
    }
    Bench { files, segments, twins: vec![load(&other), load(&stranger)], commits, head }
}

#[test]
fn every_change_is_found_and_its_place_named() {
    let dir = tempfile::tempdir().unwrap();
    let bench = bench(dir.path());
    assert!(bench.segments.len() >= 3 && bench.commits.len() > 50, "{} segments", bench.segments.len());
    let kinds = std::thread::scope(|scope| {
        let halves = [0, 1].map(|half| {
            let (bench, work) = (&bench, dir.path().join(format!("work-{half}")));
            scope.spawn(move || mutate(bench, &work, 0x5eed_2026_1121 + half))
        });
        halves.map(|half| half.join().unwrap())
    });
    let kinds = kinds.into_iter().flatten().fold(BTreeMap::new(), |mut sum, (what, n)| {
        *sum.entry(what).or_insert(0) += n;
        sum
    });
    assert!(kinds.len() == 13 && kinds.values().all(|n| *n > 200), "{kinds:?}");
    assert_eq!(kinds.values().sum::<u32>(), 10_000);
}

/// Five thousand changes, each to the log as it was written.
fn mutate(bench: &Bench, work: &Path, seed: u64) -> BTreeMap<&'static str, u32> {
    fs::create_dir(work).unwrap();
    write(work, &bench.files, &Files::new());
    let public = keys().verifying_key().unwrap();
    assert!(verify_offline(work, &public, &Known::default()).unwrap().findings.is_empty());
    let mut dice = Dice(seed);
    let mut before = bench.files.clone();
    let mut kinds = BTreeMap::new();
    for round in 0..5_000 {
        let mut files = bench.files.clone();
        let change = bench.change(&mut dice, &mut files);
        assert!(files != bench.files, "round {round}: {} changed nothing", change.what);
        write(work, &files, &before);
        let about = || format!("round {round}: {} in {} at {:?}", change.what, change.file, change.range);
        let report = verify(work, &keys(), &change.known).unwrap();
        let quiet = change.file == "checkpoints" && !report.findings.is_empty();
        assert!(!report.is_sound() || quiet, "{}: not found", about());
        assert!(named(&report, &change), "{}: not named in {:#?}", about(), report.findings);
        if change.offline {
            let report = verify_offline(work, &public, &change.known).unwrap();
            assert!(!report.is_sound(), "{}: not found with the public key", about());
        }
        *kinds.entry(change.what).or_insert(0) += 1;
        before = files;
    }
    kinds
}

#[test]
fn a_rollback_is_found_by_the_index_and_by_a_checkpoint_that_was_shipped() {
    let dir = tempfile::tempdir().unwrap();
    let bench = bench(dir.path());
    let work = dir.path().join("work");
    fs::create_dir(&work).unwrap();
    let (file, at, head) = bench.commits[bench.commits.len() / 2].clone();
    let mut files = bench.files.clone();
    bench.cut(&mut files, &file, at, head);
    write(&work, &files, &Files::new());
    // whole in itself
    assert!(verify(&work, &keys(), &Known::default()).unwrap().is_sound());
    let by_index = Known { indexed: Some(Seq(head.size)), ..Known::default() };
    assert!(!verify(&work, &keys(), &by_index).unwrap().is_sound());
    let held = Known { indexed: Some(Seq(head.size - 1)), head: Some(head), ..Known::default() };
    assert!(verify(&work, &keys(), &held).unwrap().is_sound());
    let fork = Head { root: [1; 32], ..head };
    assert!(!verify(&work, &keys(), &Known { head: Some(fork), ..Known::default() }).unwrap().is_sound());
}
