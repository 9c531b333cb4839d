// SPDX-License-Identifier: Apache-2.0
//! Limits on trying. A try is counted before the work it asks for, in one transaction that holds the row of its
//! subject: a hundred tries at once are counted one after the other, on all nodes.

use crate::{
    Error, Store, from_micros,
    tx::{Tx, execute, fetch, read},
};
use portcullis_domain::micros;
use time::{Duration, OffsetDateTime};
use uuid::Uuid;

/// At most `tries` in any `window`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limit {
    /// How many.
    pub tries: u32,
    /// In which time.
    pub window: Duration,
}

/// After `free` failures in a row each further one locks: `first` long, then twice as long, at most `longest`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Backoff {
    /// How many failures cost nothing.
    pub free: u32,
    /// The first lock.
    pub first: Duration,
    /// The longest lock.
    pub longest: Duration,
    /// Failures are forgotten when the last one is this old.
    pub forget: Duration,
}

/// The answer to a try.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Try {
    /// It may go ahead, and was counted; so many are counted now.
    Counted(u32),
    /// It may not, and was not counted; try again at this time.
    Locked(OffsetDateTime),
}

impl Backoff {
    fn locked_for(&self, failures: i64) -> Duration {
        let beyond = failures - i64::from(self.free);
        if beyond < 0 {
            return Duration::ZERO;
        }
        // 2^20 times the first lock is beyond any sensible longest one.
        let factor = 1_i32 << i32::try_from(beyond.min(20)).unwrap_or(20);
        self.first.checked_mul(factor).unwrap_or(self.longest).min(self.longest)
    }
}

/// Holds the row of a subject until the transaction ends, and gives what it says.
async fn hold(tx: &mut Tx, kind: &str, subject: &str) -> Result<(i64, i64), Error> {
    let rows = fetch!(
        *tx,
        (i64, i64),
        "insert into lockouts (kind, subject, failures, last_at) values ($1, $2, 0, 0) \
         on conflict (kind, subject) do update set kind = excluded.kind returning failures, last_at",
        kind,
        subject
    )?;
    rows.into_iter().next().ok_or_else(|| Error::corrupt("lockouts", kind, "the row did not stay"))
}

/// Until when one of the windows is full, given the tries inside the longest, newest first.
fn full_until(tries: &[(i64,)], limits: &[Limit], now: OffsetDateTime) -> Option<OffsetDateTime> {
    let until = limits.iter().filter_map(|limit| {
        let Some(n) = limit.tries.checked_sub(1) else { return Some(now + limit.window) };
        // Full when the try that would have to leave the window first is still inside it.
        let (at,) = tries.get(usize::try_from(n).unwrap_or(usize::MAX))?;
        (*at > micros(now - limit.window)).then(|| from_micros(*at) + limit.window)
    });
    until.max()
}

fn longest(limits: &[Limit]) -> Duration {
    limits.iter().map(|l| l.window).max().unwrap_or(Duration::ZERO)
}

impl Store {
    /// Counts a try against sliding windows, unless one of them is full.
    pub async fn strike(&self, kind: &str, subject: &str, limits: &[Limit], now: OffsetDateTime) -> Result<Try, Error> {
        let mut tx = self.begin().await?;
        hold(&mut tx, kind, subject).await?;
        let tries = fetch!(
            tx,
            (i64,),
            "select at from strikes where kind = $1 and subject = $2 and at > $3 order by at desc",
            kind,
            subject,
            micros(now - longest(limits))
        )?;
        if let Some(until) = full_until(&tries, limits, now) {
            return Ok(Try::Locked(until));
        }
        execute!(
            tx,
            "insert into strikes (kind, subject, id, at) values ($1, $2, $3, $4)",
            kind,
            subject,
            Uuid::new_v4().simple().to_string(),
            micros(now)
        )?;
        execute!(tx, "update lockouts set last_at = $3 where kind = $1 and subject = $2", kind, subject, micros(now))?;
        tx.commit().await?;
        Ok(Try::Counted(u32::try_from(tries.len()).unwrap_or(u32::MAX).saturating_add(1)))
    }

    /// Until when a try would be refused, without counting one.
    pub async fn struck_out(
        &self,
        kind: &str,
        subject: &str,
        limits: &[Limit],
        now: OffsetDateTime,
    ) -> Result<Option<OffsetDateTime>, Error> {
        let tries = read!(
            self,
            (i64,),
            "select at from strikes where kind = $1 and subject = $2 and at > $3 order by at desc",
            kind,
            subject,
            micros(now - longest(limits))
        )?;
        Ok(full_until(&tries, limits, now))
    }

    /// Takes back one try that was counted at an instant: it turned out to be none to be held against anybody.
    pub async fn forgive(&self, kind: &str, subject: &str, at: OffsetDateTime) -> Result<(), Error> {
        let mut tx = self.begin().await?;
        hold(&mut tx, kind, subject).await?;
        execute!(
            tx,
            "delete from strikes where kind = $1 and subject = $2 and id = \
             (select id from strikes where kind = $1 and subject = $2 and at = $3 limit 1)",
            kind,
            subject,
            micros(at)
        )?;
        tx.commit().await
    }

    /// How many tries were counted since an instant.
    pub async fn strikes(&self, kind: &str, subject: &str, since: OffsetDateTime) -> Result<u32, Error> {
        let rows = read!(
            self,
            (i64,),
            "select count(*) from strikes where kind = $1 and subject = $2 and at > $3",
            kind,
            subject,
            micros(since)
        )?;
        Ok(rows.first().map_or(0, |r| u32::try_from(r.0).unwrap_or(u32::MAX)))
    }

    /// Counts a try as a failure until [`Store::clear`] says that it was none, unless the subject is locked.
    pub async fn back_off(&self, kind: &str, subject: &str, rule: &Backoff, now: OffsetDateTime) -> Result<Try, Error> {
        let mut tx = self.begin().await?;
        let (mut failures, last_at) = hold(&mut tx, kind, subject).await?;
        let last_at = from_micros(last_at);
        if last_at + rule.forget <= now {
            failures = 0;
        }
        let lock = rule.locked_for(failures);
        // A lock from the future (a clock that was set back) holds no longer than the longest one.
        let until = last_at.min(now) + lock;
        if lock > Duration::ZERO && now < until {
            return Ok(Try::Locked(until));
        }
        execute!(
            tx,
            "update lockouts set failures = $3, last_at = $4 where kind = $1 and subject = $2",
            kind,
            subject,
            failures + 1,
            micros(now)
        )?;
        tx.commit().await?;
        Ok(Try::Counted(u32::try_from(failures + 1).unwrap_or(u32::MAX)))
    }

    /// Until when a subject is locked, without counting a try.
    pub async fn locked_until(
        &self,
        kind: &str,
        subject: &str,
        rule: &Backoff,
        now: OffsetDateTime,
    ) -> Result<Option<OffsetDateTime>, Error> {
        let rows = read!(
            self,
            (i64, i64),
            "select failures, last_at from lockouts where kind = $1 and subject = $2",
            kind,
            subject
        )?;
        let Some(&(failures, last_at)) = rows.first() else { return Ok(None) };
        let last_at = from_micros(last_at);
        let until = last_at.min(now) + rule.locked_for(failures);
        Ok((last_at + rule.forget > now && now < until).then_some(until))
    }

    /// Forgets the failures and tries of a subject.
    pub async fn clear(&self, kind: &str, subject: &str) -> Result<(), Error> {
        let mut tx = self.begin().await?;
        // The subject's row first, as everywhere: two transactions that take rows in another order would block.
        execute!(tx, "delete from lockouts where kind = $1 and subject = $2", kind, subject)?;
        execute!(tx, "delete from strikes where kind = $1 and subject = $2", kind, subject)?;
        tx.commit().await
    }

    /// Forgets the tries and failures of every subject that begins with a text.
    pub async fn clear_all(&self, kind: &str, begins: &str) -> Result<(), Error> {
        let mut tx = self.begin().await?;
        let (lockouts, strikes) = (
            "delete from lockouts where kind = $1 and substr(subject, 1, length($2)) = $2",
            "delete from strikes where kind = $1 and substr(subject, 1, length($2)) = $2",
        );
        execute!(tx, lockouts, kind, begins)?;
        execute!(tx, strikes, kind, begins)?;
        tx.commit().await
    }

    /// Forgets tries and failures from before an instant, at least two days ago, so that the tables stay small.
    pub async fn drop_strikes(&self, before: OffsetDateTime) -> Result<(), Error> {
        let mut tx = self.begin().await?;
        execute!(tx, "delete from lockouts where last_at < $1", micros(before))?;
        execute!(tx, "delete from strikes where at < $1", micros(before))?;
        tx.commit().await
    }
}

#[cfg(test)]
mod tests;
