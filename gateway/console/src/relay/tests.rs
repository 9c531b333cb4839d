// SPDX-License-Identifier: Apache-2.0
#![expect(clippy::cast_possible_truncation, reason = "test data is made of small numbers")]
use super::*;
use crate::{
    record::{EntryKind, Reader, RecorderPool, Settings, path_of, verify},
    rfb::{Login, ScreenInfo, Security, connect},
    testing::{
        browser::{Browser, NOVNC, NOVNC_KEPT, client_frame, encodings},
        qemu::{Guest, Lock},
        scene::{Dice, SIZE, scene},
    },
};
use portcullis_domain::{RecordingId, Secret};
use std::sync::atomic::Ordering;
use time::OffsetDateTime;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, DuplexStream, duplex};
use uuid::Uuid;

const HOUR: Duration = Duration::from_hours(1);

/// A session between a browser and a scripted hypervisor.
struct Session {
    browser: Browser<DuplexStream>,
    machine: DuplexStream,
    leash: watch::Sender<Option<Ending>>,
    run: tokio::task::JoinHandle<Report>,
}

fn options(mode: ConsoleMode) -> (Options, watch::Sender<Option<Ending>>) {
    let (leash, held) = watch::channel(None);
    let options = Options {
        mode,
        clipboard: Clipboard::default(),
        idle: HOUR,
        until: None,
        leash: held,
        inputs: Arc::default(),
        recorder: None,
    };
    (options, leash)
}

#[expect(clippy::disallowed_methods, reason = "the test is the one that waits for it")]
fn spawn<F: Future<Output: Send + 'static> + Send + 'static>(future: F) -> tokio::task::JoinHandle<F::Output> {
    tokio::task::spawn(future)
}

fn start(mode: ConsoleMode, adjust: impl FnOnce(&mut Options)) -> Session {
    let (viewer, browser) = duplex(64 * 1024);
    let (upstream, machine) = duplex(64 * 1024);
    let (mut options, leash) = options(mode);
    adjust(&mut options);
    let info = ScreenInfo { width: SIZE.0, height: SIZE.1, name: "vm".into() };
    let upstream = Upstream { stream: Box::new(upstream), info, security: Security::None };
    Session { browser: Browser::new(browser), machine, leash, run: spawn(run(Viewer::new(viewer), upstream, options)) }
}

/// The same, past the handshake and with noVNC's encodings asked for.
async fn start_running(mode: ConsoleMode, adjust: impl FnOnce(&mut Options)) -> Session {
    let mut session = start(mode, adjust);
    assert_eq!(session.browser.shake_hands().await, (SIZE.0, SIZE.1, "vm".to_owned()));
    session.browser.set_up().await;
    assert_eq!(session.heard(4 + 4 * NOVNC_KEPT.len()).await, encodings(&NOVNC_KEPT));
    session
}

impl Session {
    /// The next bytes that the machine gets.
    async fn heard(&mut self, count: usize) -> Vec<u8> {
        let mut bytes = vec![0; count];
        self.machine.read_exact(&mut bytes).await.expect("the relay sends");
        bytes
    }

    async fn end(self) -> Report {
        let Self { mut browser, machine, run, leash } = self;
        // it may have ended by itself
        let _ = browser.wire.write_all(&client_frame(0x88, &1000u16.to_be_bytes(), [3; 4])).await;
        drop(browser);
        drop(machine);
        let report = run.await.expect("no panic");
        drop(leash);
        report
    }
}

const KEY: [u8; 8] = [4, 1, 0, 0, 0, 0, 0, 65];
const POINTER: [u8; 6] = [5, 1, 0, 9, 0, 9];
const REQUEST: [u8; 10] = [3, 1, 0, 0, 0, 0, 0, 200, 0, 150];

#[tokio::test]
async fn view_only_lets_no_input_reach_the_machine() {
    let mut session = start_running(ConsoleMode::View, |_| {}).await;
    session.browser.send(&[&KEY[..], &POINTER, &[6, 0, 0, 0, 0, 0, 0, 2, b'h', b'i'], &REQUEST].concat()).await;
    assert_eq!(session.heard(10).await, REQUEST);
    let report = session.end().await;
    assert_eq!((report.keys, report.pointers, report.dropped), (1, 1, 3));
    assert_eq!(report.bytes_up, (4 + 4 * NOVNC_KEPT.len() + 10) as u64);
    assert_eq!(report.ending, Ending::Closed);
}

#[tokio::test]
async fn control_passes_keys_and_pointer_as_they_are() {
    let inputs = Arc::new(AtomicU64::new(0));
    let mut session = start_running(ConsoleMode::Control, |options| options.inputs = Arc::clone(&inputs)).await;
    session.browser.send(&[&KEY[..], &POINTER, &[6, 0, 0, 0, 0, 0, 0, 2, b'h', b'i'], &REQUEST].concat()).await;
    assert_eq!(session.heard(24).await, [&KEY[..], &POINTER, &REQUEST].concat());
    assert_eq!(inputs.load(std::sync::atomic::Ordering::Relaxed), 2, "others see the input while it comes");
    let report = session.end().await;
    assert_eq!((report.keys, report.pointers, report.dropped, report.texts_in), (1, 1, 1, 0));
    assert!(report.first_input.is_some());
}

// SEC-144: what keeps somebody signed in is what they do, not what their machine shows.
#[tokio::test]
async fn keys_and_pointer_are_counted_and_nothing_else() {
    let input = Arc::new(AtomicU64::new(0));
    let shared = Arc::clone(&input);
    let mut session = start_running(ConsoleMode::View, |options| options.inputs = shared).await;
    session.browser.send(&REQUEST).await;
    assert_eq!(session.heard(10).await, REQUEST);
    session.machine.write_all(&[2]).await.unwrap();
    session.browser.send(&REQUEST).await;
    assert_eq!(session.heard(10).await, REQUEST);
    assert_eq!(input.load(Ordering::Relaxed), 0);
    session.browser.send(&[&KEY[..], &POINTER, &REQUEST].concat()).await;
    assert_eq!(session.heard(10).await, REQUEST);
    assert_eq!(input.load(Ordering::Relaxed), 2, "watching only, they are there all the same");
    session.end().await;
}

#[tokio::test]
async fn clipboard_passes_where_it_is_allowed() {
    let clipboard = Clipboard { inward: Some(CLIPBOARD_LIMIT), outward: Some(CLIPBOARD_LIMIT) };
    let mut session = start_running(ConsoleMode::Control, |options| options.clipboard = clipboard).await;
    let text = [&[6, 0, 0, 0, 0, 0, 0, 2][..], b"hi"].concat();
    session.browser.send(&text).await;
    assert_eq!(session.heard(10).await, text);
    session.machine.write_all(&[2, 3, 0, 0, 0, 0]).await.expect("written");
    session.machine.write_all(&[0, 0, 2, b'h', b'o', 2]).await.expect("written");
    assert_eq!(session.browser.take(12).await, [2, 3, 0, 0, 0, 0, 0, 0, 2, b'h', b'o', 2]);
    let report = session.end().await;
    assert_eq!((report.texts_in, report.texts_out, report.texts_dropped), (1, 1, 0));
}

#[tokio::test]
async fn any_split_of_a_valid_stream_arrives_whole_without_texts() {
    for seed in 1..40u64 {
        let mut session = start_running(ConsoleMode::View, |_| {}).await;
        let scene = scene(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15), 20);
        let expected = scene.without_texts();
        let mut dice = Dice(seed);
        let Session { machine, browser, .. } = &mut session;
        let feed = async {
            let mut rest = &scene.bytes[..];
            while !rest.is_empty() {
                let widest = [2, 40, 90_000][dice.roll(3) as usize];
                let (now, later) = rest.split_at((1 + dice.roll(widest) as usize).min(rest.len()));
                machine.write_all(now).await.expect("the relay reads");
                tokio::task::yield_now().await;
                rest = later;
            }
        };
        let (taken, ()) = tokio::join!(browser.take(expected.len()), feed);
        assert!(taken == expected, "seed {seed}");
        let report = session.end().await;
        assert_eq!(report.bytes_down, expected.len() as u64);
    }
}

#[tokio::test]
async fn hostile_screens_cost_their_own_session_only() {
    let mut neighbour = start_running(ConsoleMode::Control, |_| {}).await;
    let rect = |numbers: [u16; 4], encoding: i32| {
        let mut bytes = vec![0, 0, 255, 255];
        for number in numbers {
            bytes.extend_from_slice(&number.to_be_bytes());
        }
        bytes.extend_from_slice(&encoding.to_be_bytes());
        bytes
    };
    let storm: Vec<u8> = [&[0, 0, 255, 255][..], &rect([0, 0, 9, 9], -223)[4..].repeat(1000)].concat();
    let cases = [
        (rect([0, 0, 65535, 65535], -223), "a screen of"),
        (rect([199, 0, 2, 1], 0), "outside"),
        (rect([0, 0, 1, 1], 50), "encoding 50"),
        (vec![3, 0, 0, 0, 255, 255, 255, 255], "clipboard"),
        ([&rect([0; 4], -307)[..], &[255; 4]].concat(), "a name of 4294967295"),
        (storm, "too many changes"),
        (vec![255, 1, 0, 1], "message type 255"),
    ];
    for (bytes, what) in cases {
        let before = resident();
        let mut session = start_running(ConsoleMode::Control, |_| {}).await;
        session.machine.write_all(&bytes).await.expect("written");
        let started = std::time::Instant::now();
        let closed = session.browser.closed().await;
        assert!(started.elapsed() < Duration::from_secs(1));
        assert_eq!(closed.code, 4004);
        assert!(closed.text.contains(what), "{what}: {closed:?}");
        let report = session.end().await;
        assert!(matches!(&report.ending, Ending::UpstreamFault(why) if why.contains(what)), "{:?}", report.ending);
        assert!(resident() < before + (32 << 20));
        neighbour.browser.send(&KEY).await;
        assert_eq!(neighbour.heard(8).await, KEY);
    }
    assert_eq!(neighbour.end().await.ending, Ending::Closed);
}

/// Bytes of this process in memory.
fn resident() -> u64 {
    let text = std::fs::read_to_string("/proc/self/statm").expect("Linux");
    text.split(' ').nth(1).expect("resident").parse::<u64>().expect("a number") * 4096
}

#[tokio::test]
async fn a_browser_that_breaks_the_rules_is_told_which() {
    let cases: [(Vec<u8>, u16, &str); 7] = [
        (vec![0x82, 0x01, 0], 1002, "mask"),
        (client_frame(0x81, b"hello", [1; 4]), 1003, "text"),
        (vec![0x82, 0xff, 128, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0], 1002, "length"),
        (vec![0x82, 0xff, 0, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0], 1009, "256 KiB"),
        (client_frame(0x82, &[250, 0, 1, 2], [1; 4]), 1002, "power"),
        (client_frame(0x82, &[77], [1; 4]), 1002, "message type 77"),
        (client_frame(0x89, b"x", [1; 4]).repeat(500), 1008, "control frames"),
    ];
    for (bytes, code, what) in cases {
        let mut session = start_running(ConsoleMode::Control, |_| {}).await;
        session.browser.wire.write_all(&bytes).await.expect("written");
        let closed = session.browser.closed().await;
        assert_eq!(closed.code, code, "{closed:?}");
        assert!(closed.text.contains(what), "{closed:?}");
        let mut rest = Vec::new();
        session.machine.read_to_end(&mut rest).await.expect("closed");
        assert!(rest.is_empty(), "{what}");
        assert!(matches!(session.end().await.ending, Ending::ViewerFault(_)));
    }
}

#[tokio::test(start_paused = true)]
async fn the_leash_cuts_at_once_with_its_reason() {
    let mut session = start_running(ConsoleMode::Control, |_| {}).await;
    let started = Instant::now();
    session.leash.send(Some(Ending::Cut("signed out".into()))).expect("held");
    let closed = session.browser.closed().await;
    assert_eq!((closed.code, closed.text.as_str()), (4000, "access ended: signed out"));
    assert_eq!(session.machine.read(&mut [0; 9]).await.expect("dropped"), 0);
    let report = session.end().await;
    assert!(started.elapsed() < Duration::from_millis(100));
    assert_eq!(report.ending, Ending::Cut("signed out".into()));
}

#[tokio::test(start_paused = true)]
async fn a_cut_does_not_wait_for_a_browser_that_does_not_read() {
    let mut session = start_running(ConsoleMode::Control, |_| {}).await;
    let flood = spawn({
        let (mut machine, _other) = duplex(1);
        std::mem::swap(&mut machine, &mut session.machine);
        async move {
            let bells = vec![2; 64 * 1024];
            while machine.write_all(&bells).await.is_ok() {}
        }
    });
    tokio::time::sleep(Duration::from_secs(1)).await;
    let started = Instant::now();
    session.leash.send(Some(Ending::Cut("locked".into()))).expect("held");
    flood.await.expect("the machine's stream is dropped");
    assert!(started.elapsed() < Duration::from_millis(100));
    let report = session.run.await.expect("no panic");
    assert!(started.elapsed() <= Duration::from_millis(1100));
    assert_eq!(report.ending, Ending::Cut("locked".into()));
}

#[tokio::test(start_paused = true)]
async fn a_lost_leash_cuts_too() {
    let session = start_running(ConsoleMode::View, |_| {}).await;
    let Session { mut browser, machine, leash, run } = session;
    drop(leash);
    assert_eq!(browser.closed().await.code, 4000);
    assert!(matches!(run.await.expect("no panic").ending, Ending::Cut(_)));
    drop(machine);
}

#[tokio::test(start_paused = true)]
async fn idle_means_no_key_and_no_pointer() {
    let minute = Duration::from_mins(1);
    let mut session = start_running(ConsoleMode::Control, |options| options.idle = minute).await;
    let started = Instant::now();
    let Session { machine, browser, .. } = &mut session;
    let busy_screen = async {
        loop {
            if machine.write_all(&[2]).await.is_err() {
                break;
            }
            tokio::time::sleep(Duration::from_secs(1)).await;
        }
    };
    let person = async {
        for _ in 0..50 {
            browser.frame().await;
        }
        browser.send(&KEY).await;
        browser.closed().await
    };
    let closed = tokio::select! { closed = person => closed, () = busy_screen => panic!("dropped early") };
    assert_eq!(closed.code, 4001);
    let lasted = started.elapsed();
    assert!(lasted > Duration::from_secs(100) && lasted < Duration::from_secs(112), "{lasted:?}");
    assert!(browser.pings >= 5);
    assert_eq!(session.end().await.ending, Ending::Idle);
}

#[tokio::test(start_paused = true)]
async fn time_is_up_when_it_was_said() {
    let until = Instant::now() + Duration::from_secs(90);
    let mut session = start_running(ConsoleMode::View, |options| options.until = Some(until)).await;
    assert_eq!(session.browser.closed().await.code, 4002);
    assert!(Instant::now() >= until && Instant::now() < until + Duration::from_millis(50));
    assert_eq!(session.end().await.ending, Ending::TimeUp);
}

#[tokio::test(start_paused = true)]
async fn a_browser_that_answers_no_ping_has_vanished() {
    let started = Instant::now();
    let session = start_running(ConsoleMode::View, |_| {}).await;
    let Session { browser, machine, leash, run } = session;
    assert_eq!(run.await.expect("no panic").ending, Ending::Vanished);
    assert!(started.elapsed() >= Duration::from_secs(45) && started.elapsed() <= Duration::from_secs(46));
    drop((browser, machine, leash));
}

#[tokio::test(start_paused = true)]
async fn a_browser_that_never_finishes_its_handshake_ends() {
    let mut session = start(ConsoleMode::View, |_| {});
    session.browser.send(b"RFB").await;
    let closed = session.browser.closed().await;
    assert_eq!(closed.code, 1002);
    assert!(closed.text.contains("30 seconds"), "{closed:?}");
    session.end().await;
}

#[tokio::test]
async fn pings_are_answered_and_a_close_is_echoed() {
    let mut session = start_running(ConsoleMode::View, |_| {}).await;
    session.browser.wire.write_all(&client_frame(0x89, b"hey", [9; 4])).await.expect("written");
    while session.browser.pongs.is_empty() {
        assert!(session.browser.frame().await.is_none());
    }
    assert_eq!(session.browser.pongs, [b"hey".to_vec()]);
    session.browser.wire.write_all(&client_frame(0x88, &1001u16.to_be_bytes(), [9; 4])).await.expect("written");
    let closed = session.browser.closed().await;
    assert_eq!((closed.code, closed.text.as_str()), (1001, ""));
    assert_eq!(session.end().await.ending, Ending::Closed);
}

#[tokio::test]
async fn a_machine_that_closes_ends_the_session() {
    let session = start_running(ConsoleMode::View, |_| {}).await;
    let Session { mut browser, machine, leash, run } = session;
    drop(machine);
    assert_eq!(browser.closed().await.code, 4004);
    assert_eq!(run.await.expect("no panic").ending, Ending::UpstreamClosed);
    drop(leash);
}

#[tokio::test]
async fn a_browser_that_does_not_read_stops_the_machine_and_not_the_memory() {
    let mut session = start_running(ConsoleMode::View, |_| {}).await;
    let before = resident();
    let bells = vec![2; 64 * 1024];
    let mut taken = 0;
    while let Ok(count) = tokio::time::timeout(Duration::from_millis(200), session.machine.write(&bells)).await {
        taken += count.expect("open");
        assert!(taken < 4 << 20, "the relay swallows what nobody reads");
    }
    assert!(resident() < before + (4 << 20));
    // and nothing is lost when it reads again
    assert!(session.browser.take(taken).await.iter().all(|byte| *byte == 2));
    let report = session.end().await;
    assert_eq!(report.bytes_down, taken as u64);
}

#[tokio::test(start_paused = true)]
async fn a_machine_that_takes_no_input_ends_the_session() {
    let mut session = start_running(ConsoleMode::Control, |_| {}).await;
    let keys = KEY.repeat(1000);
    let Session { browser, run, .. } = &mut session;
    let typing = async {
        for _ in 0..40 {
            browser.wire.write_all(&client_frame(0x82, &keys, [0; 4])).await.expect("open");
        }
        std::future::pending::<()>().await;
    };
    let report = tokio::select! { report = run => report.expect("no panic"), () = typing => unreachable!() };
    assert!(matches!(&report.ending, Ending::UpstreamFault(why) if why.contains("no input")), "{:?}", report.ending);
}

fn key() -> Secret {
    Secret::new(vec![5; 32])
}

fn id() -> RecordingId {
    RecordingId::new(Uuid::from_u128(77))
}

#[tokio::test]
async fn everything_forwarded_is_recorded_and_keys_are_hidden() {
    let folder = tempfile::tempdir().expect("a folder");
    let pool = RecorderPool::start(folder.path(), Settings::default()).expect("started");
    let recorder = pool.begin(id(), &key(), OffsetDateTime::UNIX_EPOCH).await.expect("begun");
    let mut session = start_running(ConsoleMode::Control, |options| options.recorder = Some(recorder)).await;
    let scene = scene(4711, 300);
    let expected = scene.without_texts();
    {
        let Session { machine, browser, .. } = &mut session;
        let feed = async { machine.write_all(&scene.bytes).await.expect("the relay reads") };
        let (taken, ()) = tokio::join!(browser.take(expected.len()), feed);
        assert!(taken == expected);
    }
    let password = [4, 1, 0, 0, 0x12, 0x34, 0x56, 0x78];
    session.browser.send(&[&password[..], &REQUEST].concat()).await;
    // the scene confirmed the extensions and may have left fences to answer; only these two were sent
    assert_eq!(session.heard(18).await, [&password[..], &REQUEST].concat());
    let report = session.end().await;
    let summary = report.recording.expect("recorded").expect("written");
    let path = path_of(folder.path(), id());
    assert_eq!(verify(&path, id(), &key()), Ok(summary));
    let (mut down, mut up, mut starts) = (Vec::new(), Vec::new(), 0);
    let mut reader = Reader::open(&path, id(), &key()).expect("opened");
    for entry in &mut reader {
        let entry = entry.expect("whole");
        match entry.kind {
            EntryKind::Init => assert_eq!(entry.bytes.len(), 26),
            EntryKind::Down => {
                starts += 1;
                down.extend(entry.bytes);
            }
            EntryKind::DownMore => down.extend(entry.bytes),
            EntryKind::UpRedacted => {
                assert_eq!(entry.bytes, [4, 1, 0, 0, 0, 0, 0, 0]);
                up.extend(entry.bytes);
            }
            EntryKind::Up | EntryKind::UpMore => up.extend(entry.bytes),
        }
    }
    assert!(down == expected, "what was shown is not what was recorded");
    assert_eq!((down.len() as u64, up.len() as u64), (report.bytes_down, report.bytes_up));
    assert!(starts > 50, "message boundaries are kept");
    assert_eq!(reader.ending(), Some("closed"));
}

#[tokio::test]
async fn a_recording_that_fails_ends_the_console_and_nothing_unrecorded_is_shown() {
    let folder = tempfile::tempdir().expect("a folder");
    let settings = Settings { max_recording_mib: 2, ..Settings::default() };
    let pool = RecorderPool::start(folder.path(), settings).expect("started");
    let recorder = pool.begin(id(), &key(), OffsetDateTime::UNIX_EPOCH).await.expect("begun");
    let mut session = start_running(ConsoleMode::View, |options| options.recorder = Some(recorder)).await;
    let Session { machine, browser, .. } = &mut session;
    let screen = {
        let mut bytes = vec![0, 0, 0, 1, 0, 0, 0, 0, 0, 200, 0, 150, 0, 0, 0, 0];
        bytes.resize(16 + 200 * 150 * 4, 9);
        bytes
    };
    let flood = async { while machine.write_all(&screen).await.is_ok() {} };
    let (closed, ()) = tokio::join!(browser.closed(), flood);
    assert_eq!((closed.code, closed.text.as_str()), (4003, "the recording could not be written"));
    let shown = browser.stream.len();
    let report = session.run.await.expect("no panic");
    assert_eq!(report.ending, Ending::RecordingFailed);
    assert!(matches!(report.recording, Some(Err(Error::RecordingFailed))));
    let path = path_of(folder.path(), id());
    let reader = Reader::open(&path, id(), &key()).expect("opened");
    let recorded: usize = reader
        .map_while(Result::ok)
        .filter(|entry| matches!(entry.kind, EntryKind::Down | EntryKind::DownMore))
        .map(|entry| entry.bytes.len())
        .sum();
    assert!(shown > 1 << 20, "{shown}");
    // what waited in memory when the disk failed is lost; no more than two chunks and a turn may
    assert!(shown <= recorded + 3 * 256 * 1024, "{shown} shown, {recorded} recorded");
    assert!(shown <= 2 << 20, "more was shown than there was room to record");
}

#[tokio::test]
async fn an_idle_console_is_small() {
    let (viewer, _browser) = duplex(16);
    let (upstream, _machine) = duplex(16);
    let info = ScreenInfo { width: 1, height: 1, name: String::new() };
    let upstream = Upstream { stream: Box::new(upstream), info, security: Security::None };
    let (options, _leash) = options(ConsoleMode::View);
    let engine = size_of::<Engine<tokio::net::TcpStream>>();
    let future = run(Viewer::new(viewer), upstream, options);
    let total = engine + size_of_val(&future);
    assert!(total <= 3 * 1024, "{total} bytes, {engine} of them state");
}

/// A browser whose screen is still being opened.
fn waiting() -> (Viewer<DuplexStream>, Browser<DuplexStream>) {
    let (viewer, browser) = duplex(1024);
    (Viewer::new(viewer), Browser::new(browser))
}

#[tokio::test]
async fn a_browser_without_a_screen_is_told_why() {
    for (ending, code) in [
        (Ending::Unopened("Lab cannot be reached.".into()), 4004),
        (Ending::Unrecorded("There is too little space left for a recording.".into()), 4003),
        (Ending::Crowded("You have too many consoles open.".into()), 1008),
        (Ending::Cut("you were signed out".into()), 4000),
    ] {
        let (viewer, mut browser) = waiting();
        let text = ending.to_string();
        let ((), closed) = tokio::join!(viewer.say_farewell(ending), browser.closed());
        assert_eq!((closed.code, closed.text), (code, text));
    }
    let (viewer, mut browser) = waiting();
    let long = "ä".repeat(100);
    let ((), closed) = tokio::join!(viewer.say_farewell(Ending::Unopened(long)), browser.closed());
    assert_eq!(closed.text, format!("{}…", "ä".repeat(58)));
    assert!(closed.text.len() <= 120);
}

#[tokio::test(start_paused = true)]
async fn what_a_browser_says_before_its_screen_is_there_ends_it_or_is_kept() {
    let (mut viewer, mut browser) = waiting();
    let ping = client_frame(0x89, b"here", [1; 4]);
    let (first, rest) = ping.split_at(5);
    browser.wire.write_all(first).await.expect("written");
    let quiet = tokio::time::timeout(Duration::from_secs(9), viewer.left()).await;
    assert!(quiet.is_err(), "half a ping ends nothing");
    browser.wire.write_all(rest).await.expect("written");
    let (upstream, _machine) = duplex(64);
    let info = ScreenInfo { width: 1, height: 1, name: String::new() };
    let upstream = Upstream { stream: Box::new(upstream), info, security: Security::None };
    let (options, _leash) = options(ConsoleMode::View);
    let run = spawn(run(viewer, upstream, options));
    while browser.pongs.is_empty() {
        assert_eq!(browser.frame().await, None);
    }
    assert_eq!(browser.pongs, [b"here"]);
    run.abort();

    let (mut viewer, mut browser) = waiting();
    browser.send(b"RFB 003.008\n").await;
    assert_eq!(viewer.left().await, Ending::ViewerFault("it spoke before the screen did".into()));
    let (mut viewer, mut browser) = waiting();
    browser.wire.write_all(&client_frame(0x89, b"x", [1; 4]).repeat(110)).await.expect("written");
    assert_eq!(viewer.left().await, Ending::ViewerFault("too many control frames".into()));
    let (mut viewer, mut browser) = waiting();
    browser.wire.write_all(&client_frame(0x88, &1001u16.to_be_bytes(), [1; 4])).await.expect("written");
    assert_eq!(viewer.left().await, Ending::Closed);
    let ((), closed) = tokio::join!(viewer.say_farewell(Ending::Closed), browser.frame());
    assert_eq!(closed.map(|c| c.code), Some(1001), "its own code comes back");
    let (mut viewer, browser) = waiting();
    drop(browser);
    assert_eq!(viewer.left().await, Ending::Closed);
}

/// A session between a test browser and a real guest.
async fn with_guest(guest: &Guest, mode: ConsoleMode) -> Session {
    let (viewer, browser) = duplex(1 << 20);
    let (options, leash) = options(mode);
    let upstream =
        connect(guest.connect().await, &Login::default(), None, Duration::from_secs(20)).await.expect("open");
    let mut browser = Browser::new(browser);
    let run = spawn(run(Viewer::new(viewer), upstream, options));
    let (width, height, _) = browser.shake_hands().await;
    browser.set_up().await;
    let mut request = vec![3, 0, 0, 0, 0, 0];
    request.extend_from_slice(&width.to_be_bytes());
    request.extend_from_slice(&height.to_be_bytes());
    browser.send(&request).await;
    Session { browser, machine: duplex(1).0, leash, run }
}

const ESCAPE: [u8; 16] = [4, 1, 0, 0, 0, 0, 0xff, 0x1b, 4, 0, 0, 0, 0, 0, 0xff, 0x1b];

#[tokio::test]
async fn a_real_guest_shows_its_screen_and_takes_keys_only_in_control() {
    let guest = Guest::start(Lock::Open);
    assert!(guest.shows("Press ESC for boot menu", Duration::from_secs(20)).await, "{}", guest.text());
    let mut viewing = with_guest(&guest, ConsoleMode::View).await;
    viewing.browser.take(100).await;
    viewing.browser.send(&ESCAPE).await;
    assert!(!guest.shows("Select boot device", Duration::from_secs(2)).await, "a key got through");
    let mut controlling = with_guest(&guest, ConsoleMode::Control).await;
    controlling.browser.take(100).await;
    controlling.browser.send(&ESCAPE).await;
    assert!(guest.shows("Select boot device", Duration::from_secs(10)).await, "{}", guest.text());
    let report = viewing.end().await;
    assert_eq!((report.ending, report.keys, report.dropped), (Ending::Closed, 2, 2));
    let report = controlling.end().await;
    assert_eq!((report.ending, report.keys, report.dropped), (Ending::Closed, 2, 0));
    assert!(report.updates > 0);
}

#[tokio::test]
async fn every_encoding_of_a_real_guest_is_followed() {
    let guest = Guest::start(Lock::Open);
    assert!(guest.shows("boot menu", Duration::from_secs(20)).await);
    for encoding in [0, 1, 5, 6, 7, 16, -260] {
        let mut session = with_guest(&guest, ConsoleMode::Control).await;
        let list = [encoding, -23, -32, -254, -223, -224, -239, -258, -261, -307, -308, -312, -313, -316];
        session.browser.send(&encodings(&list)).await;
        let everything = [3, 0, 0, 0, 0, 0, 0x02, 0xd0, 0x01, 0x90];
        for _ in 0..5 {
            session.browser.send(&everything).await;
            session.browser.take(1).await;
            tokio::time::sleep(Duration::from_millis(60)).await;
        }
        // what it sent in between was followed to its end, or the session would be over
        session.browser.wire.write_all(&client_frame(0x89, b"alive", [0; 4])).await.expect("open");
        while session.browser.pongs.is_empty() {
            assert!(session.browser.frame().await.is_none(), "encoding {encoding}");
        }
        let report = session.end().await;
        assert_eq!(report.ending, Ending::Closed, "encoding {encoding}");
        assert!(report.updates >= 3, "encoding {encoding}: {} updates", report.updates);
    }
    assert_eq!(NOVNC.len(), NOVNC_KEPT.len() + 4);
}
