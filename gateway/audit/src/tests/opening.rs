// SPDX-License-Identifier: Apache-2.0
//! Opening, closing, and what a crash leaves.

use super::{event, fill, keys, node, open, small, sound};
use crate::{Entry, Error, Known, Settings, Trail, verify, verify_offline};
use portcullis_domain::{
    Action, Actor, Assurance, Clock, Effect, NodeId, Operation, Outcome, OwnObject, Phase, RequestId, Resource, Secret,
    Seq, SystemClock, UserId, Via,
};
use std::{
    fs::{self, OpenOptions},
    os::unix::fs::{FileExt, PermissionsExt},
    path::Path,
    sync::Arc,
    thread,
    time::{Duration, Instant},
};
use uuid::Uuid;

#[test]
fn what_was_appended_is_there_after_closing_and_opening_again() {
    let dir = tempfile::tempdir().unwrap();
    for round in 0..3_u64 {
        let (trail, found) = open(dir.path()).unwrap();
        assert_eq!((found.events, found.torn_bytes), (round * 300, 0));
        assert_eq!(trail.head().size, round * 300);
        fill(&trail, 300);
        trail.close().unwrap();
        assert!(matches!(trail.append(&event(0, Phase::Noted)), Err(Error::Closed)));
        let events = trail.reader().tail(300).unwrap();
        assert_eq!(events.len(), 300);
        for (n, placed) in (0..).zip(&events) {
            assert_eq!((placed.seq, placed.event.request), (Seq(round * 300 + n), event(n, Phase::Noted).request));
            assert_eq!(trail.reader().event(placed.segment, placed.offset).unwrap().as_ref(), Some(&placed.event));
        }
        assert_eq!(sound(dir.path()), (round + 1) * 300);
    }
    let report = verify(dir.path(), &keys(), &Known::default()).unwrap();
    assert!(report.segments > 3 && report.checkpoints >= 900 / 40 && report.covered == 900);
    assert_eq!(fs::metadata(dir.path()).unwrap().permissions().mode() & 0o077, 0o055, "a folder that exists stays");
    for file in fs::read_dir(dir.path()).unwrap() {
        assert_eq!(file.unwrap().metadata().unwrap().permissions().mode() & 0o077, 0, "only its owner reads a trail");
    }
}

#[test]
fn a_log_has_one_writer_one_node_and_one_pair_of_keys() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("made");
    let (trail, _) = open(&path).unwrap();
    assert!(matches!(open(&path), Err(Error::InUse(_))));
    fill(&trail, 10);
    drop(trail);
    let clock = Arc::new(SystemClock);
    let other = NodeId::new(Uuid::from_u128(0xb));
    assert!(matches!(Trail::open_with(&path, &keys(), other, clock.clone(), small()), Err(Error::WrongNode { .. })));
    let mut wrong = keys();
    wrong.mac = Secret::new(vec![8; 32]);
    assert!(matches!(Trail::open_with(&path, &wrong, node(), clock.clone(), small()), Err(Error::Damaged { .. })));
    wrong.mac = Secret::new(vec![8; 31]);
    assert!(matches!(Trail::open_with(&path, &wrong, node(), clock.clone(), small()), Err(Error::Keys(_))));
    let greedy = Settings { reserve_bytes: u64::MAX, ..small() };
    assert!(matches!(Trail::open_with(&path, &keys(), node(), clock, greedy), Err(Error::NoSpace { .. })));
    assert_eq!(sound(&path), 10);
    assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o700);
}

/// The file and the offset after the last byte that was written to it.
fn end(dir: &Path) -> (fs::File, u64) {
    let last = *crate::segment::list(dir).unwrap().last().unwrap();
    let path = dir.join(crate::segment::file_name(last));
    let bytes = fs::read(&path).unwrap();
    let written = bytes.iter().rposition(|b| *b != 0).unwrap() as u64 + 1;
    (OpenOptions::new().read(true).write(true).open(path).unwrap(), written)
}

/// A copy of a log as a process that was killed now would leave it.
fn crashed(dir: &Path, to: &Path) {
    fs::create_dir(to).unwrap();
    for file in fs::read_dir(dir).unwrap() {
        let file = file.unwrap();
        fs::copy(file.path(), to.join(file.file_name())).unwrap();
    }
}

#[test]
fn a_torn_end_is_cut_and_reported() {
    let dir = tempfile::tempdir().unwrap();
    let (trail, _) = open(dir.path()).unwrap();
    fill(&trail, 25);
    for torn in [1, 4, 9, 700] {
        let copy = dir.path().with_extension(torn.to_string());
        crashed(dir.path(), &copy);
        let (file, written) = end(&copy);
        let mut bytes = Vec::new();
        crate::frame::push(&mut bytes, crate::frame::EVENT, &[1; 2000]);
        file.write_all_at(&bytes[..torn], written).unwrap();
        let report = verify(&copy, &keys(), &Known::default()).unwrap();
        assert!(!report.is_sound() && report.findings[0].offset == written, "{:?}", report.findings);
        let (again, found) = open(&copy).unwrap();
        // the copy was made while the operation of event 24 was open
        assert_eq!((found.events, found.abandoned.as_slice()), (25, [Seq(24)].as_slice()));
        let set = bytes[..torn].iter().rposition(|b| *b != 0).unwrap() as u64 + 1;
        assert_eq!(found.torn_bytes, set);
        drop(again);
        assert_eq!(sound(&copy), 26);
        fs::remove_dir_all(copy).unwrap();
    }
}

/// Every sector of the file that changed in the last commit is taken from before or from after it.
#[test]
fn a_power_cut_in_the_middle_of_a_commit_leaves_all_of_it_or_nothing() {
    // a thread that lost its CPU for milliseconds between two events makes two commits of them: then once more
    let (dir, before, after) = (0..100).find_map(|_| one_commit()).expect("no commit held all events");
    let (old, name) = (dir.path().join("before"), crate::segment::file_name(0));
    let changed: Vec<usize> =
        (0..before.len() / 512).filter(|s| before[s * 512..][..512] != after[s * 512..][..512]).collect();
    assert!((4..=12).contains(&changed.len()), "{changed:?}");
    let mut whole = 0;
    for mask in 0..1_u32 << changed.len().min(8) {
        let mut mixed = before.clone();
        for (bit, sector) in changed.iter().enumerate() {
            // beyond eight sectors the last ones go together
            if mask >> bit.min(7) & 1 == 1 {
                mixed[sector * 512..][..512].copy_from_slice(&after[sector * 512..][..512]);
            }
        }
        fs::write(old.join(&name), &mixed).unwrap();
        let _reset = fs::write(old.join("checkpoints"), b"");
        let (again, found) = open(&old).unwrap();
        assert!(found.events == 1 || found.events == 30 && mixed == after, "{mask:b}: {found:?}");
        whole += u32::from(found.events == 30);
        trail_goes_on(&again, found.events);
        drop(again);
        assert_eq!(sound(&old), found.events + 1);
    }
    assert_eq!(whole, 1);
}

/// A log before and after a commit of 29 events, if it was one commit: the folder, with a copy, and both files.
fn one_commit() -> Option<(tempfile::TempDir, Vec<u8>, Vec<u8>)> {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("trail");
    let (trail, _) = open(&path).unwrap();
    trail.wait(trail.append(&event(0, Phase::Noted)).unwrap()).unwrap();
    crashed(&path, &dir.path().join("before"));
    let segment = path.join(crate::segment::file_name(0));
    let mut before = fs::read(&segment).unwrap();
    let last = (1..30).fold(Seq(0), |_, n| trail.append(&event(n, Phase::Noted)).unwrap());
    trail.wait(last).unwrap();
    let after = fs::read(&segment).unwrap();
    drop(trail);
    let start = before.iter().rposition(|b| *b != 0).unwrap() + 1;
    let (mut at, mut commits) = (start, 0);
    while let crate::frame::Parsed::Frame(f) = crate::frame::parse(&after[at..]) {
        commits += u32::from(f.kind == crate::frame::COMMIT);
        at += f.length;
    }
    // zeros that were filled in meanwhile
    before.resize(after.len(), 0);
    (commits == 1).then_some((dir, before, after))
}

fn trail_goes_on(trail: &Trail, next: u64) {
    let seq = trail.append(&event(next, Phase::Noted)).unwrap();
    assert_eq!(seq, Seq(next));
    trail.wait(seq).unwrap();
}

#[test]
fn damage_before_an_acknowledged_commit_is_no_torn_end() {
    let dir = tempfile::tempdir().unwrap();
    let (trail, _) = open(dir.path()).unwrap();
    let copy = dir.path().with_extension("damaged");
    for n in 0..20 {
        trail.wait(trail.append(&event(n, Phase::Noted)).unwrap()).unwrap();
    }
    let places = trail.reader().tail(20).unwrap();
    crashed(dir.path(), &copy);
    let (file, _) = end(&copy);
    file.write_all_at(&[0xff], places[10].offset + 30).unwrap();
    match open(&copy) {
        Err(Error::Damaged { offset, .. }) => assert_eq!(offset, places[10].offset),
        other => panic!("{:?}", other.map(|o| o.1)),
    }
    // zeros in place of a frame are no end either, while a later commit is there
    file.write_all_at(&[0; 300], places[10].offset).unwrap();
    assert!(matches!(open(&copy), Err(Error::Damaged { .. })));
    fs::remove_dir_all(copy).unwrap();
}

#[test]
fn an_end_that_was_cut_behind_a_checkpoint_is_not_opened() {
    let dir = tempfile::tempdir().unwrap();
    let (trail, _) = open(dir.path()).unwrap();
    fill(&trail, 20);
    let old = dir.path().with_extension("old");
    crashed(dir.path(), &old);
    fill(&trail, 100);
    drop(trail);
    fs::copy(dir.path().join("checkpoints"), old.join("checkpoints")).unwrap();
    match open(&old) {
        Err(Error::Cut { known: 120, found: 20 }) => {}
        other => panic!("{:?}", other.map(|o| o.1)),
    }
    for number in crate::segment::list(&old).unwrap() {
        fs::remove_file(old.join(crate::segment::file_name(number))).unwrap();
    }
    assert!(matches!(open(&old), Err(Error::Cut { known: 120, found: 0 })));
    fs::remove_dir_all(old).unwrap();
}

fn actor() -> Actor {
    Actor {
        user: UserId::new(Uuid::from_u128(5)),
        name: "ada".into(),
        via: Via::CommandLine,
        assurance: Assurance::default(),
        scope: None,
        pass: None,
        from: None,
    }
}

fn asked(trail: &Trail) -> Entry {
    let request = RequestId::new(Uuid::from_u128(77));
    let mut entry = Entry::begin(trail, "page", request, "192.0.2.1".parse().ok(), SystemClock.now());
    entry.learn(&actor());
    entry.ask(&Operation { action: Action::Write, resource: Resource::Own(OwnObject::Users), effect: Effect::Unsafe });
    entry
}

#[test]
fn every_way_out_of_the_bracket_leaves_its_event() {
    let dir = tempfile::tempdir().unwrap();
    let (trail, _) = open(dir.path()).unwrap();
    let done = asked(&trail).open(&[]).unwrap();
    done.close(Outcome::Done, "", &[("status", "200")]).unwrap();
    drop(asked(&trail).open(&[]).unwrap());
    asked(&trail).refuse(Outcome::Denied, &"ä".repeat(600), &[]).unwrap();
    drop(asked(&trail));
    let left = asked(&trail).open(&[]).unwrap();
    trail.wait(left.seq()).unwrap();
    let copy = dir.path().with_extension("killed");
    crashed(dir.path(), &copy);
    let events = trail.reader().tail(99).unwrap();
    let seen: Vec<_> = events.iter().map(|p| (p.event.phase, p.event.outcome)).collect();
    assert_eq!(
        seen,
        [
            (Phase::Opened, Outcome::Pending),
            (Phase::Closed(Seq(0)), Outcome::Done),
            (Phase::Opened, Outcome::Pending),
            (Phase::Closed(Seq(2)), Outcome::Abandoned),
            (Phase::Noted, Outcome::Denied),
            (Phase::Noted, Outcome::Abandoned),
            (Phase::Opened, Outcome::Pending),
        ]
    );
    assert!(events.iter().all(|p| &*p.event.resource == "gateway:users" && p.event.action == Some(Action::Write)));
    assert_eq!(events[4].event.reason.len(), 1024, "a reason is cut where a character ends");

    let (again, found) = open(&copy).unwrap();
    assert_eq!(found.abandoned, [Seq(6)]);
    let last = again.reader().tail(1).unwrap().remove(0).event;
    assert_eq!((last.phase, last.outcome), (Phase::Closed(Seq(6)), Outcome::Abandoned));
    assert_eq!((last.request, last.subject), (events[6].event.request, events[6].event.subject.clone()));
    drop(again);
    assert_eq!(sound(&copy), 8);
    let (_again, found) = open(&copy).unwrap();
    assert!(found.abandoned.is_empty(), "what was closed stays closed");
    fs::remove_dir_all(copy).unwrap();
}

#[test]
fn a_checkpoint_comes_by_itself_and_the_public_key_proves_what_it_covers() {
    let dir = tempfile::tempdir().unwrap();
    let settings = Settings { checkpoint_every: Duration::from_millis(60), ..small() };
    let (trail, _) = Trail::open_with(dir.path(), &keys(), node(), Arc::new(SystemClock), settings).unwrap();
    trail.wait(trail.append(&event(1, Phase::Noted)).unwrap()).unwrap();
    let public = keys().verifying_key().unwrap();
    let until = Instant::now() + Duration::from_secs(10);
    let report = loop {
        let report = verify_offline(dir.path(), &public, &Known::default()).unwrap();
        if report.covered == 1 || Instant::now() > until {
            break report;
        }
        thread::sleep(Duration::from_millis(10));
    };
    assert_eq!((report.covered, report.events, report.live), (1, 1, true));
    assert!(report.is_sound(), "{:?}", report.findings);
    // it is published after the flush
    let read = || fs::read_to_string(dir.path().join("checkpoints")).unwrap();
    while read().is_empty() && Instant::now() < until {
        thread::sleep(Duration::from_millis(1));
    }
    let text = read();
    let note = crate::Checkpoint::read(text.strip_suffix('\n').unwrap(), &public).unwrap();
    assert_eq!(note.head, trail.head());
    let mut other = keys();
    other.sign = Secret::new(vec![1; 32]);
    let report = verify_offline(dir.path(), &other.verifying_key().unwrap(), &Known::default()).unwrap();
    assert!(!report.is_sound() && report.covered == 0);
}

#[test]
fn a_log_is_verified_while_a_writer_appends() {
    let dir = tempfile::tempdir().unwrap();
    let (trail, _) = open(dir.path()).unwrap();
    fill(&trail, 200);
    let writing = trail.clone();
    let writer = thread::spawn(move || {
        for n in 0..6000 {
            let seq = writing.append(&event(n, Phase::Noted)).unwrap();
            if n % 5 == 0 {
                writing.wait(seq).unwrap();
            }
        }
    });
    let mut seen = 0;
    while !writer.is_finished() {
        let known = Known { node: Some(node()), indexed: None, head: Some(trail.head()) };
        let report = verify(dir.path(), &keys(), &known).unwrap();
        assert!(report.is_sound() && report.live, "{:#?}", report.findings);
        assert!(report.events >= known.head.unwrap().size && report.events >= seen);
        seen = report.events;
    }
    writer.join().unwrap();
    drop(trail);
    assert_eq!(sound(dir.path()), 6200);
}
