// SPDX-License-Identifier: Apache-2.0
//! The hot path: both directions of one console, polled in one place.
//!
//! Down: read behind spare bytes of the thread's scratch, follow the framing, tee into the recording, put the frame
//! header in front, write once. Up: read, unmask in place, filter, record, write once. Whatever a peer does not take is
//! queued, and the other side is not read until it has gone: that is all the buffering there is.

use super::{Clipboard, Limits, Parting, Report, Stop, Viewer, queue::Queue};
use crate::{
    Error,
    record::{EntryKind, KeyPolicy, Recorder},
    rfb::{
        BoxWire, Upstream, Wire,
        input::{Filter, Part, Sink, Touch},
        stream::{Fate, Fault, Walker},
    },
    ws::{self, CloseCode, Decoder, HEADER, Noticed, Opcode, WsFault},
};
use portcullis_domain::{ConsoleMode, Ending};
use std::{
    cell::RefCell,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    task::{Context, Poll},
    time::Duration,
};
use tokio::{
    io::{AsyncRead as _, ReadBuf},
    time::Instant,
};

/// Bytes of one read from the hypervisor.
const DOWN_READ: usize = 64 * 1024;
/// Spare bytes in front of it: a frame header and a held message head.
const FRONT: usize = 64;
/// Bytes of one read from the browser.
const UP_READ: usize = 16 * 1024;
/// Rounds before other consoles of the thread have their turn.
const ROUNDS: usize = 32;
/// Server messages of one read that get an entry each; the rest share one, so that [`crate::record::TURN`] holds.
const ENTRIES_PER_READ: usize = 64;
/// Control frames that a browser may send a second.
pub(super) const MAX_CONTROLS: u32 = 100;
/// Pings to the browser.
const PING_EVERY: Duration = Duration::from_secs(20);
/// A browser that said nothing for so long, pongs included, is gone.
const DEAD_AFTER: Duration = Duration::from_secs(45);
/// The browser's RFB handshake, and a hypervisor or a disk that takes nothing.
const STALL_LIMIT: Duration = Duration::from_secs(30);

thread_local! {
    static DOWN: RefCell<Box<[u8]>> = RefCell::new(vec![0; FRONT + DOWN_READ].into_boxed_slice());
    static UP: RefCell<(Box<[u8]>, Vec<u8>)> = RefCell::new((vec![0; UP_READ].into_boxed_slice(), Vec::new()));
}

#[derive(Default)]
struct Counts {
    bytes_up: u64,
    bytes_down: u64,
    keys: u64,
    pointers: u64,
    dropped: u64,
    /// Keys and pointers together, as others see them.
    inputs: Arc<AtomicU64>,
    first_input: Option<Duration>,
    last_input: Option<Duration>,
}

/// A session's state.
pub(super) struct Engine<V> {
    viewer: V,
    upstream: BoxWire,
    decoder: Decoder,
    noticed: Noticed,
    filter: Filter,
    walker: Walker,
    to_viewer: Queue,
    to_upstream: Queue,
    recorder: Option<Recorder>,
    counts: Counts,
    started: Instant,
    heard_at: Instant,
    ping_at: Instant,
    ping_due: bool,
    controls_since: Instant,
    /// Since when the hypervisor takes no input, and the disk no recording.
    upstream_stalled: Option<Instant>,
    recorder_stalled: Option<Instant>,
}

impl<V: Wire> Engine<V> {
    pub(super) fn new(
        viewer: Viewer<V>,
        upstream: Upstream,
        mode: ConsoleMode,
        clipboard: Clipboard,
        inputs: Arc<AtomicU64>,
        recorder: Option<Recorder>,
    ) -> Self {
        let now = Instant::now();
        let Viewer { wire, decoder, noticed } = viewer;
        let mut to_viewer = Queue::default();
        ws::append(&mut to_viewer.bytes, Opcode::Binary, Filter::HELLO);
        Self {
            viewer: wire,
            decoder,
            noticed,
            walker: Walker::new(upstream.info.width, upstream.info.height, clipboard.outward),
            filter: Filter::new(mode, clipboard.inward, upstream.info),
            upstream: upstream.stream,
            to_viewer,
            to_upstream: Queue::default(),
            recorder,
            counts: Counts { inputs, ..Counts::default() },
            started: now,
            heard_at: now,
            ping_at: now + PING_EVERY,
            ping_due: false,
            controls_since: now,
            upstream_stalled: None,
            recorder_stalled: None,
        }
    }

    pub(super) fn started(&self) -> Instant {
        self.started
    }

    /// Ends what time ends; gives when to look again.
    pub(super) fn tick(&mut self, limits: &Limits, now: Instant) -> Result<Instant, Stop> {
        let mut next = now + PING_EVERY;
        let mut due = |at: Option<Instant>, ending: fn() -> Ending| match at {
            Some(at) if at <= now => Err(Stop::from(ending())),
            Some(at) => {
                next = next.min(at);
                Ok(())
            }
            None => Ok(()),
        };
        let after = |at: Instant, span: Duration| at.checked_add(span);
        let input = self.started + self.counts.last_input.unwrap_or_default();
        due(limits.until, || Ending::TimeUp)?;
        due(after(input, limits.idle), || Ending::Idle)?;
        due(self.recorder_stalled.and_then(|at| after(at, STALL_LIMIT)), || Ending::RecordingFailed)?;
        due(self.upstream_stalled.and_then(|at| after(at, STALL_LIMIT)), || {
            Ending::UpstreamFault("it takes no input".to_owned())
        })?;
        if !self.filter.is_running() {
            due(after(self.started, STALL_LIMIT), || {
                Ending::ViewerFault("no complete RFB handshake in 30 seconds".to_owned())
            })?;
        }
        due(after(self.heard_at, DEAD_AFTER), || Ending::Vanished)?;
        if self.ping_at <= now {
            self.ping_due = true;
            self.ping_at = now + PING_EVERY;
        }
        Ok(next.min(self.ping_at))
    }

    /// Moves bytes until both sides wait.
    pub(super) fn poll(&mut self, cx: &mut Context<'_>, now: Instant) -> Poll<Stop> {
        for _ in 0..ROUNDS {
            let up = match self.poll_up(cx, now) {
                Ok(poll) => poll,
                Err(stop) => return Poll::Ready(stop),
            };
            let down = match self.poll_down(cx, now) {
                Ok(poll) => poll,
                Err(stop) => return Poll::Ready(stop),
            };
            if up.is_pending() && down.is_pending() {
                return Poll::Pending;
            }
        }
        cx.waker().wake_by_ref();
        Poll::Pending
    }

    /// Whether the recording, if there is one, accepts a turn's bytes.
    fn poll_recorder(&mut self, cx: &mut Context<'_>, now: Instant) -> Poll<Result<(), Stop>> {
        let Some(recorder) = &self.recorder else { return Poll::Ready(Ok(())) };
        match recorder.poll_ready(cx) {
            Poll::Ready(outcome) => {
                self.recorder_stalled = None;
                Poll::Ready(outcome.map_err(recording_failed))
            }
            Poll::Pending => {
                self.recorder_stalled.get_or_insert(now);
                Poll::Pending
            }
        }
    }

    /// One read from the browser. Ready if there may be more.
    fn poll_up(&mut self, cx: &mut Context<'_>, now: Instant) -> Result<Poll<()>, Stop> {
        match self.to_upstream.poll_drain(&mut *self.upstream, cx) {
            Poll::Ready(outcome) => {
                outcome.map_err(|_| Ending::UpstreamClosed)?;
                self.upstream_stalled = None;
            }
            Poll::Pending => {
                self.upstream_stalled.get_or_insert(now);
                return Ok(Poll::Pending);
            }
        }
        match self.poll_recorder(cx, now) {
            Poll::Ready(outcome) => outcome?,
            Poll::Pending => return Ok(Poll::Pending),
        }
        UP.with_borrow_mut(|(scratch, out)| {
            let mut read = ReadBuf::new(scratch);
            match Pin::new(&mut self.viewer).poll_read(cx, &mut read) {
                Poll::Ready(outcome) => outcome.map_err(|_| Ending::Vanished)?,
                Poll::Pending => return Ok(Poll::Pending),
            }
            if read.filled().is_empty() {
                return Err(Ending::Closed.into());
            }
            self.heard_at = now;
            let payload = self.decoder.decode(read.filled_mut(), &mut self.noticed).map_err(viewer_fault)?;
            self.limit_controls(now)?;
            out.clear();
            let mut sink = UpSink {
                out,
                to_viewer: &mut self.to_viewer,
                recorder: self.recorder.as_ref(),
                failed: None,
                counts: &mut self.counts,
                now,
                since: now.saturating_duration_since(self.started),
            };
            let payload = read.filled().get(..payload).unwrap_or_default();
            let fed = self.filter.feed(payload, &mut self.walker, &mut sink);
            let failed = sink.failed.take();
            fed.map_err(|Fault(what)| Ending::ViewerFault(what))?;
            if let Some(error) = failed {
                return Err(recording_failed(error));
            }
            self.counts.bytes_up += out.len() as u64;
            self.to_upstream.write(&mut *self.upstream, cx, out).map_err(|_| Ending::UpstreamClosed)?;
            if let Some(code) = self.noticed.closed {
                return Err(Stop { echo: Some(code), ..Ending::Closed.into() });
            }
            Ok(Poll::Ready(()))
        })
    }

    /// Pings cost the browser as little as an answer costs us; a flood of them is no use of a console.
    fn limit_controls(&mut self, now: Instant) -> Result<(), Stop> {
        if self.noticed.controls > 0 && now.saturating_duration_since(self.controls_since) >= Duration::from_secs(1) {
            self.controls_since = now;
            self.noticed.controls = self.noticed.controls.min(1);
        }
        if self.noticed.controls > MAX_CONTROLS {
            return Err(viewer_fault(WsFault { code: CloseCode::Policy, what: "too many control frames" }));
        }
        Ok(())
    }

    /// One read from the hypervisor. Ready if there may be more.
    fn poll_down(&mut self, cx: &mut Context<'_>, now: Instant) -> Result<Poll<()>, Stop> {
        if self.to_viewer.is_empty() {
            if let Some(length) = self.noticed.ping.take() {
                ws::append(&mut self.to_viewer.bytes, Opcode::Pong, self.decoder.ping(length));
            }
            if std::mem::take(&mut self.ping_due) {
                ws::append(&mut self.to_viewer.bytes, Opcode::Ping, &[]);
            }
        }
        match self.to_viewer.poll_drain(&mut self.viewer, cx) {
            Poll::Ready(outcome) => outcome.map_err(|_| Ending::Vanished)?,
            Poll::Pending => return Ok(Poll::Pending),
        }
        if !self.filter.is_running() {
            return Ok(Poll::Pending);
        }
        match self.poll_recorder(cx, now) {
            Poll::Ready(outcome) => outcome?,
            Poll::Pending => return Ok(Poll::Pending),
        }
        DOWN.with_borrow_mut(|scratch| {
            let mut read = ReadBuf::new(scratch.get_mut(FRONT..).unwrap_or_default());
            match Pin::new(&mut self.upstream).poll_read(cx, &mut read) {
                Poll::Ready(outcome) => outcome.map_err(|_| Ending::UpstreamClosed)?,
                Poll::Pending => return Ok(Poll::Pending),
            }
            let count = read.filled().len();
            if count == 0 {
                return Err(Ending::UpstreamClosed.into());
            }
            let (from, to) = self.follow(scratch, count, now)?;
            if from == to {
                return Ok(Poll::Ready(()));
            }
            self.counts.bytes_down += (to - from) as u64;
            let (header, used) = ws::header(Opcode::Binary, to - from);
            put(scratch, from - HEADER, &header);
            let frame = scratch.get(from - used..to).unwrap_or_default();
            self.to_viewer.write(&mut self.viewer, cx, frame).map_err(|_| Ending::Vanished)?;
            Ok(Poll::Ready(()))
        })
    }

    /// Follows `count` bytes behind [`FRONT`], records what passes, and gives where that lies.
    fn follow(&mut self, scratch: &mut [u8], count: usize, now: Instant) -> Result<(usize, usize), Stop> {
        let since = now.saturating_duration_since(self.started);
        let (mut from, mut to, mut at) = (FRONT, FRONT, FRONT);
        let end = FRONT + count;
        let mut entries = 0;
        // where the entry that collects the rest begins, and whether it begins a message
        let mut rest: Option<(usize, EntryKind)> = None;
        while let Some(data) = scratch.get(at..end).filter(|data| !data.is_empty()) {
            let walked = self.walker.step(data, since).map_err(|Fault(what)| Ending::UpstreamFault(what))?;
            let kind = if walked.first { EntryKind::Down } else { EntryKind::DownMore };
            let (begin, kind) = match (walked.fate, self.walker.take_held()) {
                (Fate::Pass, _) => {
                    if to != at {
                        scratch.copy_within(at..at + walked.taken, to);
                    }
                    to += walked.taken;
                    (to - walked.taken, kind)
                }
                (Fate::Drop, None) => (to, kind),
                (Fate::Drop, Some(head)) if to == FRONT => {
                    from = FRONT - head.len();
                    put(scratch, from, &head);
                    (from, EntryKind::Down)
                }
                (Fate::Drop, Some(head)) => {
                    // the whole head came with this read, so there is room in front of what follows it
                    put(scratch, to, &head);
                    to += head.len();
                    (to - head.len(), EntryKind::Down)
                }
            };
            at += walked.taken;
            if begin == to {
                continue;
            }
            match &self.recorder {
                Some(recorder) if entries < ENTRIES_PER_READ => {
                    let bytes = scratch.get(begin..to).unwrap_or_default();
                    recorder.put(kind, now.into_std(), bytes, 0).map_err(recording_failed)?;
                    entries += 1;
                }
                Some(_) => {
                    rest.get_or_insert((begin, kind));
                }
                None => {}
            }
        }
        if let (Some(recorder), Some((begin, kind))) = (&self.recorder, rest) {
            let bytes = scratch.get(begin..to).unwrap_or_default();
            recorder.put(kind, now.into_std(), bytes, 0).map_err(recording_failed)?;
        }
        Ok((from, to))
    }

    /// Drops the hypervisor's stream and takes the rest apart.
    pub(super) fn part(self, ending: Ending) -> (Report, Parting<V>, Option<Recorder>) {
        let lasted = self.started.elapsed();
        let Self { viewer, upstream, decoder, filter, walker, to_viewer, recorder, counts, .. } = self;
        drop(upstream);
        let report = Report {
            ending,
            bytes_up: counts.bytes_up,
            bytes_down: counts.bytes_down,
            keys: counts.keys,
            pointers: counts.pointers,
            dropped: counts.dropped,
            texts_in: filter.texts_passed,
            texts_out: walker.texts_passed,
            texts_dropped: walker.texts_dropped,
            updates: walker.updates,
            first_input: counts.first_input,
            last_input: counts.last_input,
            lasted,
            recording: None,
        };
        let queue = to_viewer.rest().to_vec();
        (report, Parting { viewer, queue, decoder }, recorder)
    }
}

/// Takes what the filter lets through: records it, then collects it for one write.
struct UpSink<'a> {
    out: &'a mut Vec<u8>,
    to_viewer: &'a mut Queue,
    recorder: Option<&'a Recorder>,
    failed: Option<Error>,
    counts: &'a mut Counts,
    now: Instant,
    since: Duration,
}

impl UpSink<'_> {
    fn record(&mut self, kind: EntryKind, seen: &[u8], hidden: usize) {
        if let Some(recorder) = self.recorder
            && let Err(error) = recorder.put(kind, self.now.into_std(), seen, hidden)
        {
            self.failed = Some(error);
        }
    }
}

impl Sink for UpSink<'_> {
    fn forward(&mut self, part: Part, bytes: &[u8]) {
        let redacts = self.recorder.is_some_and(|recorder| recorder.keys() == KeyPolicy::Redacted);
        match part {
            Part::Key(at) if redacts => {
                let (seen, hidden) = bytes.split_at_checked(at).unwrap_or((&[], bytes));
                self.record(EntryKind::UpRedacted, seen, hidden.len());
            }
            Part::Text if redacts => self.record(EntryKind::UpRedacted, &[], bytes.len()),
            Part::Message | Part::Key(_) => self.record(EntryKind::Up, bytes, 0),
            Part::More | Part::Text => self.record(EntryKind::UpMore, bytes, 0),
        }
        self.out.extend_from_slice(bytes);
    }

    fn reply(&mut self, bytes: &[u8]) {
        ws::append(&mut self.to_viewer.bytes, Opcode::Binary, bytes);
        if bytes.len() >= 24 {
            self.record(EntryKind::Init, bytes, 0);
        }
    }

    fn note_dropped(&mut self) {
        self.counts.dropped += 1;
    }

    fn note_input(&mut self, kind: Touch) {
        match kind {
            Touch::Key => self.counts.keys += 1,
            Touch::Pointer => self.counts.pointers += 1,
        }
        self.counts.inputs.fetch_add(1, Ordering::Relaxed);
        self.counts.first_input.get_or_insert(self.since);
        self.counts.last_input = Some(self.since);
    }
}

fn put(scratch: &mut [u8], at: usize, bytes: &[u8]) {
    if let Some(slot) = scratch.get_mut(at..at + bytes.len()) {
        slot.copy_from_slice(bytes);
    }
}

/// The thread has logged why.
fn recording_failed(_: Error) -> Stop {
    Ending::RecordingFailed.into()
}

fn viewer_fault(WsFault { code, what }: WsFault) -> Stop {
    Stop { code, ..Ending::ViewerFault(what.to_owned()).into() }
}
