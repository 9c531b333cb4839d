// SPDX-License-Identifier: Apache-2.0
//! Console tickets: taken once, over all nodes.

use crate::{
    Digest, Error, Store, from_micros,
    tx::{execute, fetch, parse},
};
use portcullis_domain::{ConsoleMode, MachineRef, SessionId, UserId, micros};
use time::OffsetDateTime;

/// The right to open one console once, bound to everything that it was asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ticket {
    /// The browser session that asked.
    pub session: SessionId,
    /// Whose.
    pub user: UserId,
    /// Which machine.
    pub machine: MachineRef,
    /// To watch or to use.
    pub mode: ConsoleMode,
    /// First instant at which it no longer counts.
    pub expires_at: OffsetDateTime,
}

#[derive(sqlx::FromRow)]
struct Row {
    session_id: String,
    user_id: String,
    machine: String,
    mode: String,
    expires_at: i64,
}

const T: &str = "tickets";

impl Store {
    /// Adds a ticket under the digest of its text.
    pub async fn add_ticket(&self, hash: &Digest, ticket: &Ticket, now: OffsetDateTime) -> Result<(), Error> {
        let mut tx = self.begin().await?;
        execute!(
            tx,
            "insert into tickets (hash, session_id, user_id, machine, mode, created_at, expires_at) \
             values ($1, $2, $3, $4, $5, $6, $7)",
            hash.as_slice(),
            ticket.session.to_string(),
            ticket.user.to_string(),
            ticket.machine.to_string(),
            ticket.mode.word(),
            micros(now),
            micros(ticket.expires_at)
        )
        .map_err(|e| e.or_conflict("this ticket").or_missing("this person"))?;
        tx.commit().await
    }

    /// Takes a ticket: whoever gets it is the only one, over all nodes. None when it was taken, has expired, or its
    /// session ended or its person was disabled meanwhile.
    pub async fn take_ticket(&self, hash: &Digest, now: OffsetDateTime) -> Result<Option<Ticket>, Error> {
        let mut tx = self.begin().await?;
        let rows = fetch!(
            tx,
            Row,
            "delete from tickets where hash = $1 and expires_at > $2 \
             and exists (select 1 from sessions s join users u on u.id = s.user_id \
                 where s.session_id = tickets.session_id and s.user_id = tickets.user_id \
                 and s.ended_at is null and s.expires_at > $2 and u.disabled_at is null) \
             returning session_id, user_id, machine, mode, expires_at",
            hash.as_slice(),
            micros(now)
        )?;
        tx.commit().await?;
        rows.into_iter()
            .next()
            .map(|row| {
                Ok(Ticket {
                    session: parse(T, "session_id", &row.session_id)?,
                    user: parse(T, "user_id", &row.user_id)?,
                    machine: parse(T, "machine", &row.machine)?,
                    mode: parse(T, "mode", &row.mode)?,
                    expires_at: from_micros(row.expires_at),
                })
            })
            .transpose()
    }

    /// Forgets the tickets that expired before an instant; gives how many there were.
    pub async fn drop_tickets(&self, before: OffsetDateTime) -> Result<u64, Error> {
        let mut tx = self.begin().await?;
        let gone = execute!(tx, "delete from tickets where expires_at <= $1", micros(before))?;
        tx.commit().await?;
        Ok(gone)
    }
}

#[cfg(test)]
mod tests;
