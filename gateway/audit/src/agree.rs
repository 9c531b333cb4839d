// SPDX-License-Identifier: Apache-2.0
//! Whether the index says of an event what the log holds: a row in a database is changed more easily than the log.

use crate::read::Placed;
use portcullis_store::TrailRow;

/// Whether every column of a row is what the log says about the event at its place.
pub fn agrees(row: &TrailRow, placed: &Placed) -> bool {
    let Placed { seq, segment, offset, event } = placed;
    let subject = event.subject.as_ref();
    (row.seq, row.segment, row.offset) == (*seq, *segment, *offset)
        && (row.at, row.request, row.phase) == (event.at(), event.request, event.phase)
        && row.kind == *event.kind
        && row.user == subject.map(|s| s.user)
        && row.user_name.as_deref() == subject.map(|s| &*s.name)
        && (row.peer, row.action, row.outcome) == (event.peer, event.action, event.outcome)
        && row.resource == *event.resource
        && row.reason == *event.reason
}
