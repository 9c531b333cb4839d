// SPDX-License-Identifier: Apache-2.0
//! The bracket around an operation, one type a state.

use crate::{error::Error, frame::Line, trail::Trail, wait::Durable};
use portcullis_domain::{Action, Actor, Operation, Outcome, Phase, RequestId, Seq, Subject, micros};
use std::{fmt::Write as _, net::IpAddr, sync::Arc};
use time::OffsetDateTime;

/// The greatest length of a reason, in bytes.
const MAX_REASON: usize = 1024;
/// The greatest length of a resource's text and of a detail's value, in bytes.
const MAX_VALUE: usize = 4096;

/// The longest beginning of a text that has at most so many bytes.
fn cut(text: &str, most: usize) -> &str {
    text.get(..text.floor_char_boundary(most)).unwrap_or_default()
}

/// What is known of an operation.
struct Known {
    kind: &'static str,
    request: RequestId,
    peer: Option<IpAddr>,
    subject: Option<Subject>,
    action: Option<Action>,
    resource: String,
}

impl Known {
    fn append(
        &self,
        trail: &Trail,
        at: OffsetDateTime,
        phase: Phase,
        outcome: Outcome,
        reason: &str,
        details: &[(&str, &str)],
    ) -> Result<Seq, Error> {
        // Nearly every detail is short; a list that has to be cut is made anew.
        let fits = details.iter().all(|(n, v)| n.len() <= MAX_REASON && v.len() <= MAX_VALUE);
        let shorter: Vec<(&str, &str)> = if fits {
            Vec::new()
        } else {
            details.iter().map(|(n, v)| (cut(n, MAX_REASON), cut(v, MAX_VALUE))).collect()
        };
        trail.append_line(&Line {
            at_us: micros(at),
            request: self.request,
            phase,
            kind: self.kind,
            subject: self.subject.as_ref(),
            peer: self.peer,
            action: self.action,
            resource: &self.resource,
            outcome,
            reason: cut(reason, MAX_REASON),
            details: if fits { details } else { &shorter },
        })
    }
}

/// An operation that was asked for and is not decided yet. One that is dropped undecided leaves an event too.
#[must_use = "an operation leaves an event: open it or refuse it"]
pub struct Entry {
    trail: Trail,
    known: Option<Known>,
    at: OffsetDateTime,
}

impl Entry {
    /// Begins the bracket for a request that came at an instant.
    pub fn begin(
        trail: &Trail,
        kind: &'static str,
        request: RequestId,
        peer: Option<IpAddr>,
        at: OffsetDateTime,
    ) -> Self {
        let known = Known { kind, request, peer, subject: None, action: None, resource: String::new() };
        Self { trail: trail.clone(), known: Some(known), at }
    }

    /// Learns who asks.
    pub fn learn(&mut self, actor: &Actor) {
        if let Some(known) = &mut self.known {
            known.subject = Some(Subject { user: actor.user, name: Arc::clone(&actor.name), via: actor.via });
        }
    }

    /// Learns what is asked.
    pub fn ask(&mut self, operation: &Operation) {
        if let Some(known) = &mut self.known {
            known.action = Some(operation.action);
            known.resource.clear();
            // Writing to a string cannot fail.
            let _ = write!(known.resource, "{}", operation.resource);
            known.resource.truncate(known.resource.floor_char_boundary(MAX_VALUE));
        }
    }

    /// Ends it without the operation: `Denied`, `StepUp` or `Failed`. Gives the number of its one event.
    pub fn refuse(mut self, outcome: Outcome, reason: &str, details: &[(&str, &str)]) -> Result<Seq, Error> {
        match self.known.take() {
            Some(known) => known.append(&self.trail, self.at, Phase::Noted, outcome, reason, details),
            None => Err(Error::Closed),
        }
    }

    /// Opens the operation: appends its first event, which must be durable before anything with an effect happens.
    pub fn open(mut self, details: &[(&str, &str)]) -> Result<OpenEntry, Error> {
        let known = self.known.take().ok_or(Error::Closed)?;
        let seq = known.append(&self.trail, self.at, Phase::Opened, Outcome::Pending, "", details)?;
        Ok(OpenEntry { trail: self.trail.clone(), known: Some(known), seq })
    }
}

impl Drop for Entry {
    fn drop(&mut self) {
        if let Some(known) = self.known.take() {
            let reason = "the request ended before it was decided";
            if let Err(why) = known.append(&self.trail, self.at, Phase::Noted, Outcome::Abandoned, reason, &[]) {
                tracing::error!(request = %known.request, error = %why, "an undecided request left no event");
            }
        }
    }
}

/// An operation that was allowed and has begun. One that is dropped is closed as abandoned.
#[must_use = "an open operation is closed with its outcome"]
pub struct OpenEntry {
    trail: Trail,
    known: Option<Known>,
    seq: Seq,
}

impl OpenEntry {
    /// The number of the event that opened it.
    pub fn seq(&self) -> Seq {
        self.seq
    }

    /// Learns for the closing event who it was, where that was not known when it was opened: signing in.
    pub fn learn(&mut self, subject: Subject) {
        if let Some(known) = &mut self.known
            && known.subject.is_none()
        {
            known.subject = Some(subject);
        }
    }

    /// Names for the closing event what it was about, where the opening named no resource. Gives whether it took it.
    pub fn name(&mut self, resource: &str) -> bool {
        match &mut self.known {
            Some(known) if known.resource.is_empty() => {
                cut(resource, MAX_VALUE).clone_into(&mut known.resource);
                true
            }
            _ => false,
        }
    }

    /// Resolves when the event that opened it is on the disk. The future does not borrow the entry.
    pub fn durable(&self) -> Durable {
        self.trail.durable(self.seq)
    }

    /// Closes it with its outcome; gives the number of the closing event.
    pub fn close(mut self, outcome: Outcome, reason: &str, details: &[(&str, &str)]) -> Result<Seq, Error> {
        match self.known.take() {
            Some(known) => end(&self.trail, &known, self.seq, outcome, reason, details),
            None => Err(Error::Closed),
        }
    }
}

impl Drop for OpenEntry {
    fn drop(&mut self) {
        if let Some(known) = self.known.take()
            && let Err(why) = end(&self.trail, &known, self.seq, Outcome::Abandoned, "it ended without an outcome", &[])
        {
            // the next start closes it, because it is open in the log
            tracing::error!(seq = %self.seq, error = %why, "an operation could not be closed");
        }
    }
}

fn end(
    trail: &Trail,
    known: &Known,
    seq: Seq,
    outcome: Outcome,
    reason: &str,
    details: &[(&str, &str)],
) -> Result<Seq, Error> {
    known.append(trail, trail.clock().now(), Phase::Closed(seq), outcome, reason, details)
}
