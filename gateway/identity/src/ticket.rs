// SPDX-License-Identifier: Apache-2.0
//! Console tickets: 256 bits, 30 seconds, one use, for one session, machine and mode.

use crate::{Error, Identity, Why, chance};
use portcullis_domain::{ConsoleMode, MachineRef, Secret, SessionId, UserId};
use portcullis_store::Ticket;
use time::{Duration, OffsetDateTime};

const LASTS: Duration = Duration::seconds(30);

impl Identity {
    /// Makes a ticket; at most 30 a minute for one person.
    pub async fn mint_ticket(
        &self,
        session: SessionId,
        user: UserId,
        machine: MachineRef,
        mode: ConsoleMode,
    ) -> Result<Secret, Error> {
        let now = self.0.clock.now();
        self.0.count_ticket(user, now).await?;
        let (text, hash) = chance::secret_text("pck_")?;
        let ticket = Ticket { session, user, machine, mode, expires_at: now + LASTS };
        self.0.store.add_ticket(&hash, &ticket, now).await.map_err(Error::store)?;
        Ok(text)
    }

    /// Takes a ticket: once over all nodes, and only for what it was made for. One that is presented for something
    /// else is used up all the same. Gives when it was made: what was promised with it counts from then.
    pub async fn take_ticket(
        &self,
        text: &str,
        session: SessionId,
        machine: &MachineRef,
        mode: ConsoleMode,
    ) -> Result<OffsetDateTime, Error> {
        let hash = chance::sha256(text.as_bytes());
        let taken = self.0.store.take_ticket(&hash, self.0.clock.now()).await.map_err(Error::store)?;
        match taken {
            Some(t) if t.session == session && t.machine == *machine && t.mode == mode => Ok(t.expires_at - LASTS),
            other => Err(Error::refused(Why::WrongTicket, other.map(|t| t.user))),
        }
    }
}

#[cfg(test)]
mod tests;
