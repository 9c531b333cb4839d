// SPDX-License-Identifier: Apache-2.0
//! Messages on their way out, by mail or to a webhook: kept until they are taken, or given up.
//!
//! ```text
//! posted ──due──▶ claimed by one node for a while ──taken──▶ gone
//!    ▲                     └── not taken ──▶ due again later, or given up
//!    └── the while is over (the node stopped) ──┘
//! ```
//!
//! A message may so be delivered twice, never lost: its id goes with it.

use crate::{
    Error, Store, from_micros,
    tx::{execute, fetch, from_word, parse, read, word},
};
use portcullis_domain::{UserId, micros};
use serde::{Deserialize, Serialize};
use time::{Duration, OffsetDateTime};
use uuid::Uuid;

/// How a message goes out.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Way {
    /// By mail.
    Mail,
    /// To the webhook of the configuration.
    Webhook,
}

/// A message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Message {
    /// Its id, which goes with it.
    pub id: Uuid,
    /// How it goes out.
    pub way: Way,
    /// Whom or what it is about, for whoever reads that it was given up.
    pub whom: String,
    /// Whose doing it is; none where it is nobody's.
    pub cause: Option<UserId>,
    /// What is delivered, as whoever delivers it wrote it: at most 16 KiB.
    pub body: String,
    /// When it was made.
    pub made: OffsetDateTime,
    /// How often it was tried, this time included.
    pub tries: u32,
}

#[derive(sqlx::FromRow)]
struct Row {
    id: String,
    way: String,
    whom: String,
    cause: String,
    body: String,
    made_at: i64,
    due_at: i64,
    tries: i64,
}

/// How much room there is for messages that go the same way.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Room {
    /// For all of them.
    pub all: i64,
    /// For those that are one person's doing.
    pub each: i64,
}

/// How many messages were not posted.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Unposted {
    /// Because there was no room for any.
    pub full: usize,
    /// Because too many wait that are the same person's doing.
    pub one: usize,
}

/// What waits on one way, and what went wrong there last.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Backlog {
    /// How many messages wait.
    pub waiting: i64,
    /// How many of them are one person's doing: of whoever has most.
    pub of_one: i64,
    /// When the oldest of them was made.
    pub oldest: Option<OffsetDateTime>,
    /// What was last not delivered, though it may have been since.
    pub trouble: Option<Trouble>,
}

/// A message that was not delivered at a time.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Trouble {
    /// When.
    pub at: OffsetDateTime,
    /// Whom or what it is about.
    pub whom: String,
    /// Why not.
    pub why: String,
}

const T: &str = "outbox";
/// The longest reason that is kept, in characters.
const WHY: usize = 1000;

impl Store {
    /// Posts messages, due now, all at once; gives how many there was no room for.
    pub async fn post_messages(&self, messages: &[Message], room: Room) -> Result<Unposted, Error> {
        let mut tx = self.begin().await?;
        let mut left = Unposted::default();
        for message in messages {
            let changed = execute!(
                tx,
                "insert into outbox (id, way, whom, body, made_at, due_at, tries, cause) \
                 select $1, $2, $3, $4, $5, $5, 0, $7 where (select count(*) from outbox where way = $2) < $6 \
                 and ($7 = '' or (select count(*) from outbox where way = $2 and cause = $7) < $8)",
                message.id.to_string(),
                word(&message.way),
                &message.whom,
                &message.body,
                micros(message.made),
                room.all,
                cause(message),
                room.each
            )
            .map_err(|e| e.or_conflict("this message"))?;
            if changed > 0 {
                continue;
            }
            let waiting = fetch!(tx, (i64,), "select count(*) from outbox where way = $1", word(&message.way))?;
            let is_full = waiting.first().is_some_and(|(n,)| *n >= room.all);
            if is_full { left.full += 1 } else { left.one += 1 }
        }
        tx.commit().await?;
        Ok(left)
    }

    /// Claims the message that has been due longest: nobody else gets it for `lease`.
    pub async fn claim_message(
        &self,
        way: Way,
        now: OffsetDateTime,
        lease: Duration,
    ) -> Result<Option<Message>, Error> {
        loop {
            let rows = read!(
                self,
                Row,
                "select id, way, whom, cause, body, made_at, due_at, tries from outbox where way = $1 and due_at <= $2 \
                 order by due_at, id limit 1",
                word(&way),
                micros(now)
            )?;
            let Some(row) = rows.into_iter().next() else { return Ok(None) };
            let mut tx = self.begin().await?;
            let mine = fetch!(
                tx,
                (i64,),
                "update outbox set due_at = $3, tries = tries + 1 where id = $1 and due_at = $2 and tries = $4 \
                 returning tries",
                &row.id,
                row.due_at,
                micros(now + lease),
                row.tries
            )?;
            tx.commit().await?;
            // Another node was faster: look for another one.
            let Some((tries,)) = mine.first() else { continue };
            return Ok(Some(Message {
                id: parse(T, "id", &row.id)?,
                way: from_word(T, "way", row.way)?,
                whom: row.whom,
                cause: if row.cause.is_empty() { None } else { Some(parse(T, "cause", &row.cause)?) },
                body: row.body,
                made: from_micros(row.made_at),
                tries: u32::try_from(*tries).map_err(|e| Error::corrupt(T, "tries", e))?,
            }));
        }
    }

    /// Tries a claimed message again, not before an instant.
    pub async fn postpone_message(&self, id: Uuid, due: OffsetDateTime) -> Result<(), Error> {
        let mut tx = self.begin().await?;
        execute!(tx, "update outbox set due_at = $2 where id = $1", id.to_string(), micros(due))?;
        tx.commit().await
    }

    /// Forgets a message that was taken, or given up.
    pub async fn drop_message(&self, id: Uuid) -> Result<(), Error> {
        let mut tx = self.begin().await?;
        execute!(tx, "delete from outbox where id = $1", id.to_string())?;
        tx.commit().await
    }

    /// Forgets every message that goes a way, because nobody takes them any more; gives how many there were.
    pub async fn drop_messages(&self, way: Way) -> Result<u64, Error> {
        let mut tx = self.begin().await?;
        let gone = execute!(tx, "delete from outbox where way = $1", word(&way))?;
        tx.commit().await?;
        Ok(gone)
    }

    /// Keeps why a message was not delivered, in the place of the one before it on its way.
    pub async fn note_trouble(&self, way: Way, trouble: &Trouble) -> Result<(), Error> {
        let mut tx = self.begin().await?;
        execute!(
            tx,
            "insert into outbox_troubles (way, failed_at, whom, why) values ($1, $2, $3, $4) on conflict (way) do update \
             set failed_at = excluded.failed_at, whom = excluded.whom, why = excluded.why",
            word(&way),
            micros(trouble.at),
            &trouble.whom,
            trouble.why.chars().filter(|c| !c.is_control()).take(WHY).collect::<String>()
        )?;
        tx.commit().await
    }

    /// What waits on one way, and what went wrong there last.
    pub async fn backlog(&self, way: Way) -> Result<Backlog, Error> {
        let all =
            read!(self, (i64, Option<i64>), "select count(*), min(made_at) from outbox where way = $1", word(&way))?;
        let one = read!(
            self,
            (i64,),
            "select count(*) from outbox where way = $1 and cause <> '' group by cause order by 1 desc limit 1",
            word(&way)
        )?;
        let failed = read!(
            self,
            (i64, String, String),
            "select failed_at, whom, why from outbox_troubles where way = $1",
            word(&way)
        )?;
        let (waiting, oldest) = all.into_iter().next().unwrap_or_default();
        Ok(Backlog {
            waiting,
            of_one: one.first().map_or(0, |row| row.0),
            oldest: oldest.map(from_micros),
            trouble: failed.into_iter().next().map(|(at, whom, why)| Trouble { at: from_micros(at), whom, why }),
        })
    }

    /// How many messages wait.
    pub async fn waiting_messages(&self) -> Result<i64, Error> {
        let rows = read!(self, (i64,), "select count(*) from outbox")?;
        Ok(rows.first().map_or(0, |row| row.0))
    }
}

/// Whose doing it is, as the table has it.
fn cause(message: &Message) -> String {
    message.cause.map(|user| user.to_string()).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{NOON, on_both};

    fn message(n: u128, way: Way) -> Message {
        let body = format!("text {n}");
        Message { id: Uuid::from_u128(n), way, whom: "ada".into(), cause: None, body, made: NOON, tries: 0 }
    }

    #[tokio::test]
    async fn a_message_is_claimed_by_one_and_comes_again_until_it_is_dropped() {
        on_both(async |b| {
            let (store, other) = (b.open().await, b.open().await);
            let lease = Duration::MINUTE;
            let mail = |n| message(n, Way::Mail);
            let room = |all| Room { all, each: 9 };
            let none = Unposted::default();
            assert_eq!(store.post_messages(&[mail(1)], room(2)).await.unwrap(), none);
            let twice = store.post_messages(&[mail(2), mail(1)], room(9)).await;
            assert!(matches!(twice, Err(Error::Conflict(_))), "all or none");
            assert_eq!(store.waiting_messages().await.unwrap(), 1);
            let some = [mail(2), mail(3), message(4, Way::Webhook)];
            let left = store.post_messages(&some, room(2)).await.unwrap();
            assert_eq!(left, Unposted { full: 1, one: 0 }, "too many mails wait; the other way has room");
            assert_eq!(store.waiting_messages().await.unwrap(), 3);
            assert_eq!(store.claim_message(Way::Mail, NOON - Duration::SECOND, lease).await.unwrap(), None);
            let (first, second) =
                tokio::join!(store.claim_message(Way::Mail, NOON, lease), other.claim_message(Way::Mail, NOON, lease));
            let mut both = [first.unwrap().unwrap(), second.unwrap().unwrap()];
            both.sort_by_key(|m| m.id);
            assert_eq!(both, [1, 2].map(|n| Message { tries: 1, ..message(n, Way::Mail) }));
            assert_eq!(store.claim_message(Way::Mail, NOON, lease).await.unwrap(), None, "both are claimed");
            // Whoever claimed the second one stopped: it is due again when the claim is over.
            store.postpone_message(both[0].id, NOON + Duration::HOUR).await.unwrap();
            let later = NOON + Duration::minutes(2);
            let again = other.claim_message(Way::Mail, later, lease).await.unwrap().unwrap();
            assert_eq!((again.id, again.tries), (both[1].id, 2));
            assert_eq!(store.claim_message(Way::Mail, later, lease).await.unwrap(), None);
            let first = store.claim_message(Way::Mail, NOON + Duration::HOUR, lease).await.unwrap();
            assert!(first.is_some_and(|m| m.id == both[0].id || m.id == both[1].id));
            store.drop_message(both[0].id).await.unwrap();
            store.drop_message(both[0].id).await.unwrap();
            assert_eq!(store.waiting_messages().await.unwrap(), 2);
            assert_eq!(store.drop_messages(Way::Mail).await.unwrap(), 1);
            assert_eq!(store.drop_messages(Way::Webhook).await.unwrap(), 1);
        })
        .await;
    }

    #[tokio::test]
    async fn nobody_fills_it_for_everybody_else() {
        on_both(async |b| {
            let store = b.open().await;
            let [kim, zoe] = [1, 2].map(|n| Some(UserId::new(Uuid::from_u128(n))));
            let of = |n, cause, way| Message { cause, ..message(n, way) };
            let room = Room { all: 6, each: 3 };
            let mine: Vec<Message> = (1..=5).map(|n| of(n, kim, Way::Mail)).collect();
            assert_eq!(store.post_messages(&mine, room).await.unwrap(), Unposted { full: 0, one: 2 });
            // The other way, somebody else, and what is nobody's doing has room.
            let others = [of(6, kim, Way::Webhook), of(7, zoe, Way::Mail), of(8, None, Way::Mail)];
            assert_eq!(store.post_messages(&others, room).await.unwrap(), Unposted::default());
            // For all of them there is so much.
            let more = [of(9, None, Way::Mail), of(10, None, Way::Mail), of(11, kim, Way::Mail)];
            assert_eq!(store.post_messages(&more, room).await.unwrap(), Unposted { full: 2, one: 0 });
            let first = store.claim_message(Way::Mail, NOON, Duration::MINUTE).await.unwrap().unwrap();
            assert_eq!((first.id, first.cause), (Uuid::from_u128(1), kim));
            // What was taken makes room again.
            store.drop_message(first.id).await.unwrap();
            assert_eq!(store.post_messages(&[of(11, kim, Way::Mail)], room).await.unwrap(), Unposted::default());
        })
        .await;
    }

    #[tokio::test]
    async fn it_tells_what_waits_and_what_was_last_not_delivered() {
        on_both(async |b| {
            let store = b.open().await;
            assert_eq!(store.backlog(Way::Mail).await.unwrap(), Backlog::default());
            let kim = Some(UserId::new(Uuid::from_u128(1)));
            let of =
                |n, cause, minute| Message { cause, made: NOON + Duration::minutes(minute), ..message(n, Way::Mail) };
            let some = [of(1, kim, 2), of(2, None, 1), of(3, kim, 3), message(4, Way::Webhook)];
            store.post_messages(&some, Room { all: 9, each: 9 }).await.unwrap();
            let told = |minute, why: &str| Trouble {
                at: NOON + Duration::minutes(minute),
                whom: "ada".into(),
                why: why.into(),
            };
            for (minute, why) in [(5, "refused"), (6, "it does not answer")] {
                store.note_trouble(Way::Mail, &told(minute, why)).await.unwrap();
            }
            let trouble = Some(told(6, "it does not answer"));
            let oldest = Some(NOON + Duration::MINUTE);
            assert_eq!(
                store.backlog(Way::Mail).await.unwrap(),
                Backlog { waiting: 3, of_one: 2, oldest, trouble: trouble.clone() }
            );
            let other = store.backlog(Way::Webhook).await.unwrap();
            assert_eq!(
                other,
                Backlog { waiting: 1, of_one: 0, oldest: Some(NOON), trouble: None },
                "each way for itself"
            );
            // It is told of what is given up, too, however long the reason is.
            store.drop_messages(Way::Mail).await.unwrap();
            assert_eq!(store.backlog(Way::Mail).await.unwrap(), Backlog { trouble, ..Backlog::default() });
            store.note_trouble(Way::Mail, &told(7, &"ü".repeat(2000))).await.unwrap();
            assert_eq!(store.backlog(Way::Mail).await.unwrap().trouble.unwrap().why.chars().count(), WHY);
        })
        .await;
    }
}
