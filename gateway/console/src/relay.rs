// SPDX-License-Identifier: Apache-2.0
//! One console session, from the browser's first byte to the close frame.

mod engine;
mod queue;
mod viewer;

use crate::{
    Error,
    record::{Recorder, Summary},
    rfb::{Upstream, Wire},
    ws::CloseCode,
};
use engine::Engine;
use portcullis_domain::{ConsoleMode, Ending};
use std::{
    future::{Future, poll_fn},
    pin::{Pin, pin},
    sync::{Arc, atomic::AtomicU64},
    task::{Context, Poll},
    time::Duration,
};
use tokio::{sync::watch, time::Instant};
use viewer::Parting;
pub use viewer::Viewer;

/// What clipboard policy allows at once by default, where it allows anything: 256 KiB.
pub const CLIPBOARD_LIMIT: u32 = 256 * 1024;

/// Which clipboard texts pass, by the bytes that one may have; none by default.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Clipboard {
    /// From the browser into the machine.
    pub inward: Option<u32>,
    /// Out of the machine to the browser.
    pub outward: Option<u32>,
}

/// What a session may do, and for how long.
pub struct Options {
    /// Watch only, or keyboard and pointer too.
    pub mode: ConsoleMode,
    /// Which clipboard texts pass.
    pub clipboard: Clipboard,
    /// How long it may stay without key or pointer input; screen updates do not count.
    pub idle: Duration,
    /// When it ends in any case.
    pub until: Option<Instant>,
    /// Ends the session as soon as it holds an ending, and when its sender is gone.
    pub leash: watch::Receiver<Option<Ending>>,
    /// Counts key and pointer events while they come, for whoever holds the other end.
    pub inputs: Arc<AtomicU64>,
    /// Records the session; without it nothing is recorded.
    pub recorder: Option<Recorder>,
}

/// What happened in a session.
#[derive(Debug)]
pub struct Report {
    /// Why it ended.
    pub ending: Ending,
    /// Bytes sent to the hypervisor.
    pub bytes_up: u64,
    /// RFB bytes sent to the browser.
    pub bytes_down: u64,
    /// Key events, dropped ones included.
    pub keys: u64,
    /// Pointer events, dropped ones included.
    pub pointers: u64,
    /// Messages of the viewer that policy dropped.
    pub dropped: u64,
    /// Clipboard texts that went into the machine.
    pub texts_in: u64,
    /// Clipboard texts that came out of the machine.
    pub texts_out: u64,
    /// Clipboard texts of the machine that policy dropped.
    pub texts_dropped: u64,
    /// Screen updates.
    pub updates: u64,
    /// When the first key or pointer event came, from the beginning.
    pub first_input: Option<Duration>,
    /// When the last one came.
    pub last_input: Option<Duration>,
    /// How long the session was.
    pub lasted: Duration,
    /// The recording, if there was one.
    pub recording: Option<Result<Summary, Error>>,
}

/// Relays between a browser's WebSocket and a hypervisor's screen until either ends, time is over, or
/// the leash is pulled. The hypervisor's stream is dropped before the browser is told why.
///
/// Dropping the future drops both streams, and closes the recording as abandoned.
pub fn run(viewer: Viewer<impl Wire>, upstream: Upstream, options: Options) -> impl Future<Output = Report> {
    let Options { mode, clipboard, idle, until, leash, inputs, recorder } = options;
    // made before the future, which would hold room for all of its parts
    let engine = Box::new(Engine::new(viewer, upstream, mode, clipboard, inputs, recorder));
    watch_over(engine, Limits { idle, until }, leash)
}

async fn watch_over(
    mut engine: Box<Engine<impl Wire>>,
    limits: Limits,
    mut leash: watch::Receiver<Option<Ending>>,
) -> Report {
    let stop = {
        let mut cut = pin!(cut(&mut leash));
        let mut timer = pin!(tokio::time::sleep_until(engine.started()));
        poll_fn(|cx| turn(&mut engine, &limits, cut.as_mut(), timer.as_mut(), cx)).await
    };
    let (mut report, parting, recorder) = (*engine).part(stop.ending.clone());
    let recording = async {
        match recorder {
            Some(recorder) => Some(recorder.finish(&stop.ending).await),
            None => None,
        }
    };
    // boxed: an idle console holds no room for its farewell
    let farewell = Box::pin(parting.say_farewell(&stop));
    let (recording, ()) = tokio::join!(recording, farewell);
    report.recording = recording;
    report
}

/// Waits until the leash is pulled, or its holder is gone.
pub async fn cut(leash: &mut watch::Receiver<Option<Ending>>) -> Ending {
    match leash.wait_for(Option::is_some).await {
        Ok(held) => held.clone().unwrap_or(Ending::Closed),
        Err(_) => Ending::Cut("the gateway lost its hold on this session".to_owned()),
    }
}

/// When a session ends by itself.
struct Limits {
    idle: Duration,
    until: Option<Instant>,
}

/// The end of a session.
#[derive(Debug)]
struct Stop {
    ending: Ending,
    code: CloseCode,
    /// What the browser's own close frame said.
    echo: Option<u16>,
}

impl From<Ending> for Stop {
    fn from(ending: Ending) -> Self {
        let code = match &ending {
            Ending::Closed | Ending::Vanished => CloseCode::Normal,
            Ending::Shutdown => CloseCode::GoingAway,
            Ending::ViewerFault(_) => CloseCode::Protocol,
            Ending::Cut(_) => CloseCode::Cut,
            Ending::Idle => CloseCode::Idle,
            Ending::TimeUp => CloseCode::TimeUp,
            Ending::RecordingFailed | Ending::Unrecorded(_) => CloseCode::RecordingFailed,
            Ending::UpstreamClosed | Ending::UpstreamFault(_) | Ending::Unopened(_) => CloseCode::Upstream,
            Ending::Crowded(_) => CloseCode::Policy,
        };
        Self { ending, code, echo: None }
    }
}

/// One wake-up: the leash first, then the clock, then both streams.
fn turn<V: Wire, C: Future<Output = Ending>>(
    engine: &mut Engine<V>,
    limits: &Limits,
    cut: Pin<&mut C>,
    mut timer: Pin<&mut tokio::time::Sleep>,
    cx: &mut Context<'_>,
) -> Poll<Stop> {
    if let Poll::Ready(ending) = cut.poll(cx) {
        return Poll::Ready(ending.into());
    }
    let now = Instant::now();
    while timer.as_mut().poll(cx).is_ready() {
        match engine.tick(limits, now) {
            Ok(next) => timer.as_mut().reset(next.max(now + Duration::from_millis(1))),
            Err(stop) => return Poll::Ready(stop),
        }
    }
    engine.poll(cx, now)
}

#[cfg(test)]
mod tests;
