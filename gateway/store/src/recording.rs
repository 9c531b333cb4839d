// SPDX-License-Identifier: Apache-2.0
//! What recordings there are. Their content is elsewhere, sealed under the key that this row holds sealed.

use crate::{
    Digest, Error, Store, from_micros,
    tx::{execute, parse, read},
};
use portcullis_domain::{MachineRef, NodeId, RecordingId, SessionId, UserId, micros};
use time::OffsetDateTime;

/// A recording that begins.
#[derive(Debug, Clone)]
pub struct NewRecording {
    /// Its id: the row in the place that its key is sealed to (table `recordings`, column `sealed_key`).
    pub id: RecordingId,
    /// Whose screen.
    pub machine: MachineRef,
    /// Who looked at it.
    pub user: UserId,
    /// The name they signed in with.
    pub user_name: String,
    /// In which session.
    pub session: SessionId,
    /// Which node writes it.
    pub node: NodeId,
    /// When it begins.
    pub started_at: OffsetDateTime,
    /// The key that its chunks are sealed under, itself sealed.
    pub sealed_key: Vec<u8>,
}

/// How a recording ended.
#[derive(Debug, Clone)]
pub struct RecordingEnd {
    /// When.
    pub at: OffsetDateTime,
    /// Bytes of all chunks.
    pub bytes: u64,
    /// How many chunks.
    pub chunks: u64,
    /// The digest at the head of the chain of chunks.
    pub head: Option<Digest>,
    /// Why, in words.
    pub ending: String,
}

/// A recording.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Recording {
    /// Its id.
    pub id: RecordingId,
    /// Whose screen.
    pub machine: MachineRef,
    /// Who looked at it.
    pub user: UserId,
    /// The name they signed in with.
    pub user_name: String,
    /// In which session.
    pub session: SessionId,
    /// Which node wrote it.
    pub node: NodeId,
    /// When it began.
    pub started_at: OffsetDateTime,
    /// When it ended; none while it runs.
    pub ended_at: Option<OffsetDateTime>,
    /// The sealed key.
    pub sealed_key: Vec<u8>,
    /// Bytes of all chunks; 0 while it runs.
    pub bytes: u64,
    /// How many chunks; 0 while it runs.
    pub chunks: u64,
    /// The digest at the head of the chain of chunks.
    pub head: Option<Digest>,
    /// Why it ended, in words.
    pub ending: Option<String>,
}

/// Which recordings to list; what is none matches everything.
#[derive(Debug, Clone, Default)]
pub struct RecordingFilter {
    /// Only of this machine.
    pub machine: Option<MachineRef>,
    /// Only this person's.
    pub user: Option<UserId>,
    /// Only those that began before.
    pub before: Option<OffsetDateTime>,
}

#[derive(sqlx::FromRow)]
struct Row {
    id: String,
    machine: String,
    user_id: String,
    user_name: String,
    session_id: String,
    node: String,
    started_at: i64,
    ended_at: Option<i64>,
    sealed_key: Vec<u8>,
    bytes: i64,
    chunks: i64,
    head: Option<Vec<u8>>,
    ending: Option<String>,
}

// Columns by name: with `*`, a column that a newer node adds breaks PostgreSQL's prepared statements on the older ones.
macro_rules! columns {
    () => {
        "id, machine, user_id, user_name, session_id, node, started_at, ended_at, sealed_key, bytes, chunks, head, ending"
    };
}

const T: &str = "recordings";

impl TryFrom<Row> for Recording {
    type Error = Error;
    fn try_from(row: Row) -> Result<Self, Error> {
        let head =
            row.head.map(|h| Digest::try_from(h).map_err(|_| Error::corrupt(T, &row.id, "head is not 32 bytes")));
        Ok(Self {
            machine: parse(T, "machine", &row.machine)?,
            user: parse(T, "user_id", &row.user_id)?,
            user_name: row.user_name,
            session: parse(T, "session_id", &row.session_id)?,
            node: parse(T, "node", &row.node)?,
            started_at: from_micros(row.started_at),
            ended_at: row.ended_at.map(from_micros),
            sealed_key: row.sealed_key,
            bytes: row.bytes.unsigned_abs(),
            chunks: row.chunks.unsigned_abs(),
            head: head.transpose()?,
            ending: row.ending,
            id: parse(T, "id", &row.id)?,
        })
    }
}

impl Store {
    /// Adds a recording that begins. Without this row its chunks cannot be read: add it before the first chunk.
    pub async fn add_recording(&self, new: &NewRecording) -> Result<(), Error> {
        let mut tx = self.begin().await?;
        execute!(
            tx,
            "insert into recordings (id, machine, user_id, user_name, session_id, node, started_at, sealed_key) \
             values ($1, $2, $3, $4, $5, $6, $7, $8)",
            new.id.to_string(),
            new.machine.to_string(),
            new.user.to_string(),
            &new.user_name,
            new.session.to_string(),
            new.node.to_string(),
            micros(new.started_at),
            new.sealed_key.as_slice()
        )
        .map_err(|e| e.or_conflict("this recording"))?;
        tx.commit().await
    }

    /// Writes how a recording ended; false when that was written before.
    pub async fn end_recording(&self, id: RecordingId, end: &RecordingEnd) -> Result<bool, Error> {
        let mut tx = self.begin().await?;
        let changed = execute!(
            tx,
            "update recordings set ended_at = $2, bytes = $3, chunks = $4, head = $5, ending = $6 \
             where id = $1 and ended_at is null",
            id.to_string(),
            micros(end.at),
            i64::try_from(end.bytes).unwrap_or(i64::MAX),
            i64::try_from(end.chunks).unwrap_or(i64::MAX),
            end.head.as_ref().map(Digest::as_slice),
            &end.ending
        )?;
        tx.commit().await?;
        Ok(changed == 1)
    }

    /// The recording with an id.
    pub async fn recording(&self, id: RecordingId) -> Result<Option<Recording>, Error> {
        let rows = read!(self, Row, concat!("select ", columns!(), " from recordings where id = $1"), id.to_string())?;
        rows.into_iter().next().map(Recording::try_from).transpose()
    }

    /// The newest matching recordings, at most `limit`.
    pub async fn recordings(&self, filter: &RecordingFilter, limit: u32) -> Result<Vec<Recording>, Error> {
        let rows = read!(
            self,
            Row,
            concat!(
                "select ",
                columns!(),
                " from recordings where (machine = $1 or $1 = '') and (user_id = $2 or $2 = '') \
             and started_at < $3 order by started_at desc, id desc limit $4"
            ),
            filter.machine.as_ref().map(ToString::to_string).unwrap_or_default(),
            filter.user.map(|u| u.to_string()).unwrap_or_default(),
            filter.before.map_or(i64::MAX, micros),
            i64::from(limit)
        )?;
        rows.into_iter().map(Recording::try_from).collect()
    }

    /// The recordings of a node that have no ending: at its start, what a crash cut off.
    pub async fn open_recordings(&self, node: NodeId) -> Result<Vec<Recording>, Error> {
        let rows = read!(
            self,
            Row,
            concat!(
                "select ",
                columns!(),
                " from recordings where node = $1 and ended_at is null order by started_at, id"
            ),
            node.to_string()
        )?;
        rows.into_iter().map(Recording::try_from).collect()
    }
}

#[cfg(test)]
mod tests;
