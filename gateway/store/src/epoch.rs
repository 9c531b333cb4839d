// SPDX-License-Identifier: Apache-2.0
//! One counter that tells the nodes that somebody's rights may have changed.

use crate::{Error, Store, tx::read};
use std::sync::atomic::Ordering;

impl Store {
    /// The counter: it grows with every change to people, factors, grants, tokens and ended sessions.
    pub async fn epoch(&self) -> Result<i64, Error> {
        let rows = read!(self, (i64,), "select value from epoch where only_row = 1")?;
        rows.first().map(|r| r.0).ok_or_else(|| Error::corrupt("epoch", "1", "the row is missing"))
    }

    /// How often this process moved the counter itself. What was read at one number is not read again at another: so a
    /// change of our own counts at once, and not when the counter is asked for the next time.
    pub fn moves(&self) -> u64 {
        self.moves.load(Ordering::Acquire)
    }

    /// Moves the counter without another change, to make every node read again.
    pub async fn bump_epoch(&self) -> Result<i64, Error> {
        let mut tx = self.begin().await?;
        tx.bump().await?;
        tx.commit().await?;
        self.epoch().await
    }
}
