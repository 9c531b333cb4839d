// SPDX-License-Identifier: Apache-2.0
//! `portcullis lock`: cut off a person, a machine, a hypervisor or a token at once, for a time.

use super::{Answer, At, Desk};
use anyhow::{Context as _, bail};
use clap::Subcommand;
use portcullis_domain::{Clock as _, LockId, SystemClock};
use portcullis_governance::{By, LONGEST_LOCK, Locks};
use portcullis_store::LockOf;
use serde::Serialize;
use serde_json::json;
use std::sync::Arc;
use time::{Duration, OffsetDateTime, format_description::well_known::Rfc3339};

#[derive(Debug, Subcommand)]
pub(super) enum Lock {
    /// List what is locked
    List {
        #[command(flatten)]
        at: At,
    },
    /// Lock something: what is open of it is cut within seconds
    Add {
        /// What: person:NAME, machine:HYPERVISOR/ID, hypervisor:NAME or token:ID
        what: String,
        /// For how long, such as 30m, 2h or 7d
        #[arg(long = "for", default_value = "24h", value_parser = length)]
        lasts: Duration,
        /// Why
        #[arg(long)]
        reason: String,
        #[command(flatten)]
        at: At,
    },
    /// End a lock before its time
    End {
        /// Its id as listed, or person:NAME
        what: String,
        #[command(flatten)]
        at: At,
    },
}

#[derive(Serialize)]
struct Line {
    what: String,
    reason: String,
    by: String,
    since: String,
    until: String,
    id: String,
}

/// A length of time: a number, and m, h or d.
fn length(text: &str) -> Result<Duration, String> {
    let wrong = || format!("{text}: write a time such as 30m, 2h or 7d, at most 30d");
    let (number, unit) = text.split_at_checked(text.len().saturating_sub(1)).ok_or_else(wrong)?;
    let number: i64 = number.parse().map_err(|_| wrong())?;
    let one = match unit {
        "m" => Duration::MINUTE,
        "h" => Duration::HOUR,
        "d" => Duration::DAY,
        _ => return Err(wrong()),
    };
    let number = i32::try_from(number).ok().filter(|n| (1..=43_200).contains(n)).ok_or_else(wrong)?;
    let lasts = one * number;
    if lasts <= LONGEST_LOCK { Ok(lasts) } else { Err(wrong()) }
}

fn when(at: OffsetDateTime) -> String {
    at.format(&Rfc3339).unwrap_or_default()
}

impl Desk {
    fn locks(&self) -> Locks {
        Locks::new(self.store.clone(), Arc::new(SystemClock))
    }
}

impl Lock {
    pub(super) async fn run(self) -> anyhow::Result<Answer> {
        match self {
            Self::List { at } => {
                let desk = at.open().await?;
                let people = desk.store.users().await?.into_iter().filter_map(|user| {
                    let locked = user.locked?;
                    Some(Line {
                        what: format!("person {}", user.name),
                        reason: locked.why,
                        by: String::new(),
                        since: when(locked.at),
                        until: locked.until.map(when).unwrap_or_default(),
                        id: format!("person:{}", user.name),
                    })
                });
                let locks = desk.locks().list().await?.into_iter().map(|lock| Line {
                    what: lock.of.to_string(),
                    reason: lock.reason,
                    by: lock.by_name,
                    since: when(lock.from),
                    until: when(lock.until),
                    id: lock.id.to_string(),
                });
                let rows: Vec<Line> = locks.chain(people).collect();
                at.print(&rows, &["what", "reason", "by", "since", "until", "id"])?;
            }
            Self::Add { what, lasts, reason, at } => {
                if reason.trim().is_empty() {
                    bail!("--reason: say why");
                }
                let desk = at.open().await?;
                let until = SystemClock.now() + lasts;
                let words = format!("is locked until {}: {}", when(until), reason.trim());
                let id = Box::pin(add(&desk, &what, lasts, until, (&reason, &words))).await?;
                at.out.tell(&json!({ "what": what, "until": when(until), "id": id }), &format!("{what} {words}"));
            }
            Self::End { what, at } => {
                let desk = at.open().await?;
                if let Some(name) = what.strip_prefix("person:") {
                    let user = desk.find(name).await?;
                    let identity = desk.identity()?;
                    let unlock = async { Ok(identity.unlock_user(user.id).await?) };
                    Box::pin(desk.act("user", &user.name, "is unlocked", unlock)).await?;
                } else {
                    let id: LockId = what.parse().with_context(|| "see: portcullis lock list")?;
                    let locks = desk.locks();
                    let Ok(lock) = locks.find(id).await else {
                        at.out.tell(&json!({ "id": what, "ended": false }), "There is no such lock, or it is over.");
                        return Ok(Answer::No);
                    };
                    let end = async { Ok(locks.end(By::Shell, id).await?) };
                    Box::pin(desk.act("lock", &lock.of.to_string(), "its lock is ended", end)).await?;
                }
                at.out.tell(&json!({ "id": what, "ended": true }), "It is no longer locked.");
            }
        }
        Ok(Answer::Yes)
    }
}

async fn add(
    desk: &Desk,
    what: &str,
    lasts: Duration,
    until: OffsetDateTime,
    (reason, words): (&str, &str),
) -> anyhow::Result<String> {
    let (kind, value) = what.split_once(':').unwrap_or((what, ""));
    if kind == "person" {
        let user = desk.find(value).await?;
        let engine = desk.engine().await?;
        let (identity, grants) = (desk.identity()?, desk.grants(&engine)?);
        let deed = identity.lock_user(user.id, reason, Some(until));
        let lock = async { Ok(Box::pin(grants.change_account(&engine, By::Shell, user.id, deed)).await??) };
        Box::pin(desk.act("user", &user.name, words, lock)).await?;
        return Ok(what.to_owned());
    }
    let of = LockOf::parse(kind, value)
        .with_context(|| format!("{what}: use person:NAME, machine:HYPERVISOR/ID, hypervisor:NAME or token:ID"))?;
    let locks = desk.locks();
    let about = of.to_string();
    let lock = async { Ok(locks.add(By::Shell, of, reason, lasts).await?) };
    Ok(Box::pin(desk.act("lock", &about, words, lock)).await?.id.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_length_of_time_is_read_or_refused() {
        assert_eq!(length("30m"), Ok(Duration::minutes(30)));
        assert_eq!(length("30d"), Ok(LONGEST_LOCK));
        for bad in ["", "2", "h", "-1h", "0h", "31d", "2 h", "2w", "99999999999h", "ä"] {
            assert!(length(bad).is_err(), "{bad}");
        }
    }
}
