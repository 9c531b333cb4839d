// SPDX-License-Identifier: Apache-2.0
//! The machines that people keep at the top of their list.

use crate::{
    Error, Store,
    tx::{execute, parse, read},
};
use portcullis_domain::{MachineRef, UserId, micros};
use time::OffsetDateTime;

/// Whether a machine is a favourite.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Favourite {
    /// It is.
    Yes,
    /// It is not.
    No,
}

impl Store {
    /// Makes a machine a favourite of a person, or no longer one.
    pub async fn set_favourite(
        &self,
        user: UserId,
        machine: &MachineRef,
        favourite: Favourite,
        now: OffsetDateTime,
    ) -> Result<(), Error> {
        let (user, machine) = (user.to_string(), machine.to_string());
        let mut tx = self.begin().await?;
        match favourite {
            Favourite::Yes => execute!(
                tx,
                "insert into favourites (user_id, machine, added_at) values ($1, $2, $3) on conflict do nothing",
                user,
                machine,
                micros(now)
            )
            .map_err(|e| e.or_missing("this person"))?,
            Favourite::No => execute!(tx, "delete from favourites where user_id = $1 and machine = $2", user, machine)?,
        };
        tx.commit().await
    }

    /// A person's favourites, first added first.
    pub async fn favourites(&self, user: UserId) -> Result<Vec<MachineRef>, Error> {
        let rows = read!(
            self,
            (String,),
            "select machine from favourites where user_id = $1 order by added_at, machine",
            user.to_string()
        )?;
        rows.iter().map(|(m,)| parse("favourites", "machine", m)).collect()
    }
}

#[cfg(test)]
mod tests;
