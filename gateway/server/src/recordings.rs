// SPDX-License-Identifier: Apache-2.0
//! Recordings between their file and their row: what a stop of the gateway left open is ended, and what is whole is
//! told from what is not.

use crate::{
    state::{House, chain},
    view::RecordingState,
};
use portcullis_console::record::{Finding, Reader, Summary, Wrong, path_of};
use portcullis_domain::{Ending, RecordingId};
use portcullis_store::{Error, Keys, Place, Recording, RecordingEnd};
use std::{collections::HashSet, path::Path, sync::Arc, time::Duration};

/// How a recording ended that has no ending of its own.
const CUT: &str = "the gateway stopped before it ended";
/// When to try again after the store failed.
const RETRY: Duration = Duration::from_mins(1);

/// What a recording's file holds.
pub(crate) struct Examined {
    /// What of it is as it was sealed; none when not even its beginning can be read.
    pub(crate) proved: Option<Summary>,
    /// How long that is.
    pub(crate) lasted: Duration,
    /// How the session ended, when the file was closed.
    pub(crate) ending: Option<String>,
    /// What is wrong with it, in words.
    pub(crate) wrong: Option<String>,
    /// Whether all that is wrong is that it was never closed.
    pub(crate) closed: Closed,
}

/// Whether a file came to its end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Closed {
    /// It did, or something worse is wrong with it.
    Yes,
    /// It stops, and what is there is as it was sealed.
    No,
}

/// Reads a recording's whole file; it blocks on the disk.
pub(crate) fn examine(folder: &Path, keys: &Keys, row: &Recording) -> Examined {
    let mut found = Examined { proved: None, lasted: Duration::ZERO, ending: None, wrong: None, closed: Closed::Yes };
    let id = row.id.to_string();
    let place = Place { table: "recordings", row: &id, column: "sealed_key" };
    let key = match keys.open(&place, &row.sealed_key) {
        Ok(key) => key,
        Err(error) => {
            found.wrong = Some(format!("its key cannot be opened: {}", chain(&error)));
            return found;
        }
    };
    let mut note = |finding: &Finding| {
        found.wrong = Some(finding.to_string());
        found.closed = if finding.wrong == Wrong::Cut { Closed::No } else { Closed::Yes };
    };
    let mut reader = match Reader::open(&path_of(folder, row.id), row.id, &key) {
        Ok(reader) => reader,
        Err(finding) => {
            note(&finding);
            return found;
        }
    };
    for entry in &mut reader {
        match entry {
            Ok(entry) => found.lasted = entry.since,
            Err(finding) => note(&finding),
        }
    }
    found.proved = Some(reader.proved());
    found.ending = reader.ending().map(ToOwned::to_owned);
    found
}

/// How a recording stands, for people. `live` are those that are being written now.
pub(crate) fn state_of(house: &House, row: &Recording, live: &HashSet<RecordingId>) -> RecordingState {
    let ending = row.ending.clone().unwrap_or_default();
    match (row.ended_at, row.head) {
        (None, _) if row.node == house.trail.node() && !live.contains(&row.id) => {
            RecordingState::Broken("it has no end yet; the gateway is looking at what is there".into())
        }
        (None, _) => RecordingState::Live,
        (Some(_), Some(_)) if ending != Ending::RecordingFailed.to_string() => match file_fault(house, row) {
            None => RecordingState::Whole(ending),
            Some(why) => RecordingState::Broken(why),
        },
        (Some(_), _) => RecordingState::Broken(ending),
    }
}

/// What a look at a file's size already tells. Reading all of it is `portcullis recording verify`.
fn file_fault(house: &House, row: &Recording) -> Option<String> {
    match std::fs::metadata(path_of(&house.config.recordings.dir, row.id)) {
        Ok(file) if file.len() == row.bytes => None,
        Ok(file) => Some(format!("its file has {} bytes and had {} at its end", file.len(), row.bytes)),
        Err(error) => Some(format!("its file cannot be looked at: {error}")),
    }
}

/// The recordings that are being written now.
pub(crate) fn live(house: &House) -> HashSet<RecordingId> {
    house.lives.list().iter().filter_map(|l| l.recording).collect()
}

/// Ends what a stop of this node left open, once; tries again while the store fails.
pub(crate) async fn end_what_was_cut(house: Arc<House>) {
    while let Err(error) = sweep(&house).await {
        tracing::error!(error = %chain(&error), "recordings that were left open could not be ended; trying again");
        tokio::time::sleep(RETRY).await;
    }
}

async fn sweep(house: &Arc<House>) -> Result<(), Error> {
    let rows = house.store.open_recordings(house.trail.node()).await?;
    // In this order: a row of this process that was open then is either still in the register or has its end by now.
    let live = live(house);
    for row in rows.into_iter().filter(|row| !live.contains(&row.id)) {
        let (id, started_at) = (row.id, row.started_at);
        let keeper = Arc::clone(house);
        let read = move || examine(&keeper.config.recordings.dir, &keeper.keys, &row);
        let Ok(found) = tokio::task::spawn_blocking(read).await else { continue };
        let end = end_of(&found, started_at);
        if house.store.end_recording(id, &end).await? {
            let what = format!("{id}: {}, {} chunks", end.ending, end.chunks);
            tracing::warn!(recording = %id, ending = %end.ending, "a recording that was left open was ended");
            house.note("recording", "a recording that was left open was ended", &what);
        }
    }
    Ok(())
}

/// The end that a row gets from what its file holds. Only a file that came to its end has a head to compare with.
fn end_of(found: &Examined, started_at: time::OffsetDateTime) -> RecordingEnd {
    let whole = found.wrong.is_none();
    let ending = match (&found.ending, &found.wrong) {
        (Some(ending), None) => ending.clone(),
        (_, Some(wrong)) if found.closed == Closed::Yes => format!("{CUT}; {wrong}"),
        _ => CUT.to_owned(),
    };
    RecordingEnd {
        at: started_at + found.lasted,
        bytes: found.proved.map_or(0, |p| p.bytes),
        chunks: found.proved.map_or(0, |p| p.chunks),
        head: found.proved.filter(|_| whole).map(|p| p.head),
        ending,
    }
}
