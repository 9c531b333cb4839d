// SPDX-License-Identifier: Apache-2.0
//! The kernel refuses more bytes in the middle of a session. In a program of its own, because the limit that plays the
//! full disk holds for the whole process.

use portcullis_console::{
    Error,
    record::{RecorderPool, Settings},
    relay::{Clipboard, Options, Viewer, run},
    rfb::{Login, connect},
};
use portcullis_domain::{ConsoleMode, Ending, RecordingId, Secret};
use std::time::Duration;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt, duplex},
    signal::unix::{SignalKind, signal},
};

/// Linux's number of SIGXFSZ, which would end the process at the limit.
const FILE_TOO_LARGE: i32 = 25;

fn frame(payload: &[u8]) -> Vec<u8> {
    let length = u8::try_from(payload.len()).unwrap_or(0);
    [&[0x82, 0x80 | length, 0, 0, 0, 0], payload].concat()
}

#[tokio::test]
async fn a_disk_that_takes_no_more_ends_the_console() {
    let _handled = signal(SignalKind::from_raw(FILE_TOO_LARGE)).expect("handled");
    let folder = tempfile::tempdir().expect("a folder");
    let pool = RecorderPool::start(folder.path(), Settings::default()).expect("started");
    let id = RecordingId::new(uuid::Uuid::from_u128(1));
    let key = Secret::new(vec![1; 32]);
    let recorder = pool.begin(id, &key, time::OffsetDateTime::UNIX_EPOCH).await.expect("begun");
    let limit = rustix::process::Rlimit { current: Some(1 << 20), maximum: None };
    rustix::process::setrlimit(rustix::process::Resource::Fsize, limit).expect("limited");

    let (ours, mut machine) = duplex(1 << 16);
    machine.write_all(b"RFB 003.008\n\x01\x01\0\0\0\0\x02\0\x02\0").await.expect("written");
    machine.write_all(b"\x20\x18\0\x01\0\xff\0\xff\0\xff\0\x08\x10\0\0\0\0\0\0\0").await.expect("written");
    let upstream = connect(ours, &Login::default(), None, Duration::from_secs(9)).await.expect("open");
    let (viewer, mut browser) = duplex(1 << 16);
    let (_leash, leash) = tokio::sync::watch::channel(None);
    let options = Options {
        mode: ConsoleMode::View,
        clipboard: Clipboard::default(),
        idle: Duration::from_hours(1),
        until: None,
        leash,
        inputs: std::sync::Arc::default(),
        recorder: Some(recorder),
    };
    let flood = async {
        let mut screen = [&[0, 0, 0, 1, 0, 0, 0, 0, 2, 0, 2, 0][..], &[0; 4]].concat();
        screen.resize(16 + 512 * 512 * 4, 7);
        while machine.write_all(&screen).await.is_ok() {}
    };
    let watch = async {
        browser.write_all(&[frame(b"RFB 003.008\n"), frame(&[1]), frame(&[1])].concat()).await.expect("written");
        let mut shown = Vec::new();
        browser.read_to_end(&mut shown).await.expect("closed");
        shown
    };
    let (report, (), shown) = tokio::join!(run(Viewer::new(viewer), upstream, options), flood, watch);
    assert_eq!(report.ending, Ending::RecordingFailed);
    assert!(matches!(report.recording, Some(Err(Error::RecordingFailed))));
    assert!(report.bytes_down < 1 << 20, "{} bytes were shown that cannot be recorded", report.bytes_down);
    let goodbye = [&[0x88, 36, 0x0f, 0xa3][..], b"the recording could not be written"].concat();
    assert!(shown.ends_with(&goodbye), "the person is not told");
}
