// SPDX-License-Identifier: Apache-2.0
#![expect(clippy::cast_possible_truncation, reason = "test data is made of small numbers")]
use super::*;
use std::{fs, future::poll_fn, os::unix::fs::PermissionsExt};
use uuid::Uuid;

fn key(seed: u8) -> Secret {
    Secret::new(vec![seed; 32])
}

fn id(seed: u128) -> RecordingId {
    RecordingId::new(Uuid::from_u128(0x0193_0000_0000_7000_8000_0000_0000_0000 + seed))
}

fn at() -> OffsetDateTime {
    OffsetDateTime::UNIX_EPOCH + time::Duration::days(20_000)
}

async fn ready(recorder: &Recorder) -> Result<(), Error> {
    poll_fn(|cx| recorder.poll_ready(cx)).await
}

fn random(seed: u64, count: usize) -> Vec<u8> {
    let mut dice = crate::testing::scene::Dice(seed | 1);
    (0..count).map(|_| dice.roll(256) as u8).collect()
}

/// A finished recording of several chunks; gives its summary.
async fn sample(pool: &RecorderPool, id: RecordingId, key: &Secret) -> Summary {
    let recorder = pool.begin(id, key, at()).await.expect("begun");
    for turn in 0..12 {
        ready(&recorder).await.expect("ready");
        recorder.put(EntryKind::Down, Instant::now(), &random(turn, 60_000), 0).expect("accepted");
        recorder.put(EntryKind::UpRedacted, Instant::now(), &[4, 1, 0, 0], 4).expect("accepted");
    }
    recorder.finish(&Ending::Idle).await.expect("finished")
}

#[tokio::test]
async fn what_was_put_is_read_back() {
    let folder = tempfile::tempdir().expect("a folder");
    let sub = folder.path().join("recordings");
    let pool = RecorderPool::start(&sub, Settings::default()).expect("started");
    let summary = sample(&pool, id(1), &key(1)).await;
    let path = path_of(&sub, id(1));
    assert_eq!(path.file_name().expect("a name").to_str(), Some(format!("{}.pcr", id(1)).as_str()));
    let meta = fs::metadata(&path).expect("there");
    assert_eq!(meta.permissions().mode() & 0o777, 0o600);
    assert_eq!(fs::metadata(&sub).expect("there").permissions().mode() & 0o777, 0o700);
    assert_eq!(meta.len(), summary.bytes);
    assert_eq!(summary.entries, 24);
    assert!(summary.chunks >= 4, "{summary:?}");
    assert_eq!(verify(&path, id(1), &key(1)), Ok(summary));
    let mut reader = Reader::open(&path, id(1), &key(1)).expect("opened");
    assert_eq!(reader.started_at(), at());
    let mut last = Duration::ZERO;
    for (index, entry) in (&mut reader).enumerate() {
        let entry = entry.expect("whole");
        assert!(entry.since >= last);
        last = entry.since;
        if index % 2 == 0 {
            assert_eq!(entry.kind, EntryKind::Down);
            assert!(entry.bytes == random(index as u64 / 2, 60_000));
        } else {
            assert_eq!((entry.kind, &entry.bytes[..]), (EntryKind::UpRedacted, &[4, 1, 0, 0, 0, 0, 0, 0][..]));
        }
    }
    assert_eq!(reader.ending(), Some("no input for the allowed time"));
    let sealed = fs::read(&path).expect("read");
    let plain = random(3, 60_000);
    assert!(!sealed.windows(64).any(|window| window == &plain[1000..1064]), "content lies in the clear");
}

#[tokio::test]
async fn every_mutation_is_found_and_its_chunk_named() {
    let folder = tempfile::tempdir().expect("a folder");
    let pool = RecorderPool::start(folder.path(), Settings::default()).expect("started");
    let summary = sample(&pool, id(1), &key(1)).await;
    sample(&pool, id(2), &key(1)).await;
    let whole = fs::read(path_of(folder.path(), id(1))).expect("read");
    let other = fs::read(path_of(folder.path(), id(2))).expect("read");
    let chunks = chunks_of(&whole);
    let others = chunks_of(&other);
    assert_eq!(chunks.len() as u64, summary.chunks);
    let path = folder.path().join("mutant");
    let mut dice = crate::testing::scene::Dice(99);
    let mut found = 0;
    for round in 0..1000 {
        let mut bytes = whole.clone();
        let first = dice.roll(chunks.len() as u64) as usize;
        let second = (first + 1 + dice.roll(chunks.len() as u64 - 1) as usize) % chunks.len();
        let (a, b) = (chunks[first].clone(), chunks[second].clone());
        let expected = match round % 7 {
            0 | 1 => {
                let at = dice.roll(bytes.len() as u64) as usize;
                bytes[at] ^= 1 << dice.roll(8);
                chunks.iter().position(|chunk| chunk.contains(&at))
            }
            2 => {
                let at = dice.roll(bytes.len() as u64) as usize;
                bytes.truncate(at);
                chunks.iter().position(|chunk| chunk.contains(&at))
            }
            3 => {
                bytes.drain(a.clone());
                // without its end a recording lacks the chunk; otherwise the next one stands in its place
                Some(first)
            }
            4 => {
                let (low, high) = if first < second { (a, b) } else { (b, a) };
                let parts = [
                    &whole[..low.start],
                    &whole[high.clone()],
                    &whole[low.end..high.start],
                    &whole[low.clone()],
                    &whole[high.end..],
                ];
                bytes = parts.concat();
                Some(first.min(second))
            }
            5 => {
                bytes = [&whole[..a.start], &other[others[first].clone()], &whole[a.end..]].concat();
                Some(first)
            }
            _ => {
                bytes = [&whole[..a.end], &whole[a.clone()], &whole[a.end..]].concat();
                Some(first + 1)
            }
        };
        if bytes == whole {
            continue;
        }
        fs::write(&path, &bytes).expect("written");
        let finding = verify(&path, id(1), &key(1)).expect_err("a change must be found");
        assert_eq!(finding.chunk, expected.map(|index| index as u64), "round {round}: {finding}");
        found += 1;
    }
    assert_eq!(found, 1000);
    // another session's whole file, another key
    fs::write(&path, &other).expect("written");
    assert_eq!(verify(&path, id(1), &key(1)), Err(Finding { chunk: None, wrong: Wrong::Another }));
    fs::write(&path, &whole).expect("written");
    assert_eq!(verify(&path, id(1), &key(2)), Err(Finding { chunk: Some(0), wrong: Wrong::Altered }));
    assert_eq!(verify(&path, id(1), &key(1)), Ok(summary));
}

/// Where the chunks of a file are.
fn chunks_of(bytes: &[u8]) -> Vec<std::ops::Range<usize>> {
    let mut chunks = Vec::new();
    let mut at = format::FILE_HEAD;
    while at < bytes.len() {
        let end = at + CHUNK_HEAD + crate::rfb::be32(bytes, at) as usize;
        chunks.push(at..end);
        at = end;
    }
    chunks
}

#[tokio::test]
async fn a_recording_that_was_left_open_is_closed_as_abandoned() {
    let folder = tempfile::tempdir().expect("a folder");
    let pool = RecorderPool::start(folder.path(), Settings::default()).expect("started");
    let recorder = pool.begin(id(1), &key(1), at()).await.expect("begun");
    recorder.put(EntryKind::Down, Instant::now(), b"screen", 0).expect("accepted");
    drop(recorder);
    drop(pool);
    let mut reader = Reader::open(&path_of(folder.path(), id(1)), id(1), &key(1)).expect("opened");
    assert_eq!(reader.next().expect("an entry").expect("whole").bytes, b"screen");
    assert!(reader.next().is_none());
    assert_eq!(reader.ending(), Some("abandoned"));
}

#[tokio::test]
async fn what_was_accepted_is_on_disk_within_two_seconds() {
    let folder = tempfile::tempdir().expect("a folder");
    let pool = RecorderPool::start(folder.path(), Settings::default()).expect("started");
    let recorder = pool.begin(id(1), &key(1), at()).await.expect("begun");
    ready(&recorder).await.expect("ready");
    recorder.put(EntryKind::Down, Instant::now(), b"screen", 0).expect("accepted");
    tokio::time::sleep(Duration::from_secs(2)).await;
    // what a crash would leave
    let path = path_of(folder.path(), id(1));
    let mut reader = Reader::open(&path, id(1), &key(1)).expect("opened");
    assert_eq!(reader.next().expect("an entry").expect("whole").bytes, b"screen");
    assert_eq!(reader.next(), Some(Err(Finding { chunk: Some(1), wrong: Wrong::Cut })));
    // and an idle recording holds no buffer
    assert_eq!(lock(&recorder.slot.shared).filling.capacity(), 0);
    recorder.finish(&Ending::Closed).await.expect("finished");
    verify(&path, id(1), &key(1)).expect("whole");
}

#[tokio::test]
async fn a_recording_that_may_not_grow_fails_for_good() {
    let folder = tempfile::tempdir().expect("a folder");
    let settings = Settings { max_recording_mib: 1, ..Settings::default() };
    let pool = RecorderPool::start(folder.path(), settings).expect("started");
    let recorder = pool.begin(id(1), &key(1), at()).await.expect("begun");
    let mut accepted = 0;
    let screen = random(1, 60_000);
    let error = loop {
        if let Err(error) = ready(&recorder).await {
            break error;
        }
        // It may have failed meanwhile: what was accepted before is being written beside this.
        if let Err(error) = recorder.put(EntryKind::Down, Instant::now(), &screen, 0) {
            break error;
        }
        accepted += 60_000;
        assert!(accepted <= 1 << 20, "more was accepted than there is room for");
    };
    assert!(matches!(error, Error::RecordingFailed));
    assert!(recorder.put(EntryKind::Down, Instant::now(), b"x", 0).is_err());
    assert_eq!(recorder.depot.waiting.load(Ordering::Relaxed), 0);
    assert!(matches!(recorder.finish(&Ending::Closed).await, Err(Error::RecordingFailed)));
}

#[tokio::test]
async fn admission_wants_space_a_fresh_file_and_a_whole_key() {
    let folder = tempfile::tempdir().expect("a folder");
    let pool =
        RecorderPool::start(folder.path(), Settings { min_free_mib: 1 << 40, ..Settings::default() }).expect("started");
    let disk = rustix::fs::statvfs(folder.path()).expect("a disk");
    let outcome = pool.begin(id(1), &key(1), at()).await.err();
    let refused = matches!(outcome, Some(Error::NoSpace { .. })) && !path_of(folder.path(), id(1)).exists();
    // on a small disk 5 % are enough, however much the setting wants
    assert_eq!(refused, disk.f_bavail * disk.f_frsize < writer::floor(1 << 60, disk.f_blocks * disk.f_frsize));
    let pool = RecorderPool::start(folder.path(), Settings::default()).expect("started");
    let outcome = pool.begin(id(2), &Secret::new(vec![1; 16]), at()).await.err();
    assert!(matches!(outcome, Some(Error::RecordingKey)), "{outcome:?}");
    let target = folder.path().join("target");
    fs::write(&target, b"precious").expect("written");
    std::os::unix::fs::symlink(&target, path_of(folder.path(), id(3))).expect("planted");
    let outcome = pool.begin(id(3), &key(1), at()).await.err();
    assert!(matches!(outcome, Some(Error::Folder { .. })), "{outcome:?}");
    assert_eq!(fs::read(&target).expect("read"), b"precious");
    assert!(matches!(
        verify(&path_of(folder.path(), id(3)), id(3), &key(1)),
        Err(Finding { wrong: Wrong::Unreadable(_), .. })
    ));
    let file = folder.path().join("file");
    fs::write(&file, b"").expect("written");
    assert!(matches!(RecorderPool::start(&file, Settings::default()), Err(Error::Folder { .. })));
}

#[tokio::test]
async fn without_its_pool_a_recording_accepts_nothing() {
    let folder = tempfile::tempdir().expect("a folder");
    let pool = RecorderPool::start(folder.path(), Settings::default()).expect("started");
    let recorder = pool.begin(id(1), &key(1), at()).await.expect("begun");
    drop(pool);
    assert!(recorder.put(EntryKind::Down, Instant::now(), b"x", 0).is_err());
}

#[test]
fn settings_refuse_what_they_do_not_know() {
    let parse = |text: &str| serde_json::from_str::<Settings>(text);
    assert_eq!(parse("{}").expect("defaults"), Settings::default());
    assert_eq!(parse(r#"{"keys":"full"}"#).expect("known").keys, KeyPolicy::Full);
    assert!(parse(r#"{"key":"full"}"#).is_err());
}

#[test]
fn large_disks_need_what_is_set_and_small_ones_five_percent() {
    let gib = |count: u64| count << 30;
    assert_eq!(writer::floor(gib(2), gib(1000)), gib(2));
    assert_eq!(writer::floor(gib(2), gib(40)), gib(2));
    assert_eq!(writer::floor(gib(2), gib(20)), gib(1));
    assert_eq!(writer::floor(gib(0), gib(20)), 0);
}
