// SPDX-License-Identifier: Apache-2.0
//! What a visit leaves in the trail, read from the log itself.

use super::TestGateway;
use portcullis_audit::Reader;
use portcullis_domain::{Event, Outcome, Phase, Seq};
use std::{collections::BTreeSet, time::Duration};

/// What one visit left.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Left {
    /// No event.
    Nothing,
    /// One event: turned away.
    Denial { kind: String },
    /// An event that it opened, and one that it closed; between them it may say what it is about to do.
    Bracket { kind: String },
    /// Anything else, in words.
    Other(String),
}

/// The server's log of a gateway, and how much of it was looked at.
pub(crate) struct Log {
    reader: Reader,
    seen: u64,
}

impl Log {
    pub(crate) fn of(gateway: &TestGateway) -> Self {
        Self { reader: Reader::new(gateway.dir.path().join("trail/server")), seen: 0 }
    }

    /// An address of an event: its log's node, and its number.
    pub(crate) fn place(&self) -> String {
        format!("{}/0", self.reader.node().expect("read").expect("a node"))
    }

    fn read(&self, from: u64) -> Vec<(Seq, Event)> {
        let mut run = self.reader.follow(Seq(from)).expect("a log");
        let count = self.reader.count().expect("a log");
        let mut events = Vec::new();
        while let Some(placed) = run.next(count).expect("readable") {
            events.push((placed.seq, placed.event));
        }
        events
    }

    /// Waits until nothing is open, and forgets what was there until now.
    pub(crate) async fn settle(&mut self) {
        for _ in 0..200 {
            let events = self.read(self.seen);
            if !is_open(&events) {
                self.seen += events.len() as u64;
                return;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        panic!("something stays open: {:#?}", self.read(self.seen));
    }

    /// The words of the last event since it was settled that came out like this; empty when there is none.
    pub(crate) fn last_words(&self, outcome: Outcome) -> String {
        let events = self.read(self.seen);
        events.iter().rev().find(|(_, e)| e.outcome == outcome).map(|(_, e)| e.reason.to_string()).unwrap_or_default()
    }

    /// What was left since it was settled, as soon as it is what is expected, or after two seconds.
    pub(crate) async fn left(&mut self, expected: &Left) -> Left {
        let mut left = Left::Nothing;
        for _ in 0..100 {
            tokio::time::sleep(Duration::from_millis(20)).await;
            left = read_as(&self.read(self.seen));
            if left == *expected {
                break;
            }
        }
        left
    }
}

fn is_open(events: &[(Seq, Event)]) -> bool {
    let mut open = BTreeSet::new();
    for (seq, event) in events {
        match event.phase {
            Phase::Opened => drop(open.insert(*seq)),
            Phase::Closed(opened) => drop(open.remove(&opened)),
            Phase::Noted => {}
        }
    }
    !open.is_empty()
}

fn read_as(events: &[(Seq, Event)]) -> Left {
    let request = events.first().map(|(_, first)| first.request);
    let is_intent = |e: &Event| e.phase == Phase::Noted && &*e.kind == "intent" && Some(e.request) == request;
    let kept: Vec<_> = events.iter().filter(|(_, e)| !is_intent(e)).cloned().collect();
    match &kept[..] {
        [] => Left::Nothing,
        [(_, one)] if one.phase == Phase::Noted && matches!(one.outcome, Outcome::Denied | Outcome::StepUp) => {
            Left::Denial { kind: one.kind.to_string() }
        }
        [(seq, one), (_, other)]
            if one.phase == Phase::Opened
                && one.outcome == Outcome::Pending
                && other.phase == Phase::Closed(*seq)
                && other.outcome != Outcome::Pending
                && one.kind == other.kind
                && one.request == other.request =>
        {
            Left::Bracket { kind: one.kind.to_string() }
        }
        other => Left::Other(format!("{other:#?}")),
    }
}
