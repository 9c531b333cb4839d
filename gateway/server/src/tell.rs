// SPDX-License-Identifier: Apache-2.0
//! Tells people by mail, and a service of the house's choosing as signed JSON, what happens to access requests.
//!
//! ```text
//! a step is taken ──▶ outbox (in the store) ──▶ each way on its own: tried, tried again, taken
//!                                                                     └── refused for good, or a day old: an alarm
//! ```
//!
//! Nobody waits for it: a step is taken whether or not anybody hears of it, and a server that stays away holds up nothing
//! but its own messages. What is in the outbox outlives a restart; it may be delivered twice, and its id goes with it.

mod hook;
mod letter;

use crate::{
    config::{Config, ConfigError},
    state::{House, chain},
};
use hook::Hook;
use letter::Post;
use portcullis_domain::{Clock, UserId};
use portcullis_store::{AccessRequest, Message, Room, StepWhat, Trouble, Way};
use std::{
    collections::HashMap,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};
use time::OffsetDateTime;
use uuid::Uuid;

/// Messages that wait at most, each way: all of them, and those that are one person's doing.
pub(crate) const ROOM: Room = Room { all: 10_000, each: 500 };
/// How often it is said that messages are not posted: while a server stays away, each step would say so.
const SAID: time::Duration = time::Duration::HOUR;
/// How often it is looked what is due.
const LOOK: Duration = Duration::from_secs(1);
/// How long a message belongs to the node that tries it: longer than any try takes.
const LEASE: time::Duration = time::Duration::minutes(2);
/// When a message is tried again, by how often it was; the last one holds for all that follow.
const AGAIN: [time::Duration; 6] = [
    time::Duration::SECOND,
    time::Duration::seconds(10),
    time::Duration::MINUTE,
    time::Duration::minutes(5),
    time::Duration::minutes(15),
    time::Duration::HOUR,
];
/// How old a message is when it is given up.
const OLD: time::Duration = time::Duration::DAY;

/// What happens to a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Happens {
    /// A step of its history.
    Step(StepWhat),
    /// Its access ends soon.
    Ending,
}

/// One step of one request.
pub(crate) struct News {
    pub(crate) at: OffsetDateTime,
    pub(crate) request: AccessRequest,
    pub(crate) what: Happens,
    pub(crate) asker: String,
    pub(crate) by: String,
    pub(crate) words: String,
    pub(crate) link: String,
}

/// Why a message was not delivered.
pub(crate) enum Undelivered {
    /// It may be later.
    Later(String),
    /// It never will be.
    Never(String),
}

/// The ways on which the house tells others.
pub(crate) struct Tell {
    hook: Option<Hook>,
    post: Option<Post>,
    /// Messages that were not posted since the start.
    unposted: AtomicU64,
    /// When it was last said that there is no room: for anybody's messages, or for those of one person.
    said: Mutex<HashMap<Option<UserId>, OffsetDateTime>>,
}

impl Tell {
    /// What the configuration names.
    pub(crate) fn new(config: &Config) -> Result<Self, ConfigError> {
        let (hook, post) = (Hook::new(config)?, Post::new(config)?);
        Ok(Self { hook, post, unposted: AtomicU64::default(), said: Mutex::default() })
    }

    /// How many messages were not posted since the start, because too many were waiting.
    pub(crate) fn unposted(&self) -> u64 {
        self.unposted.load(Ordering::Relaxed)
    }

    /// Whether it is to be said now that there is no room for somebody's messages.
    fn is_news(&self, whose: Option<UserId>, now: OffsetDateTime) -> bool {
        let mut said = self.said.lock().unwrap_or_else(PoisonError::into_inner);
        // What is older is said again, and need not be kept.
        said.retain(|_, at| now - *at < SAID);
        !said.contains_key(&whose) && said.insert(whose, now).is_none()
    }

    /// Whether there is anybody to tell.
    pub(crate) const fn has_ears(&self) -> bool {
        self.hook.is_some() || self.post.is_some()
    }

    const fn goes(&self, way: Way) -> bool {
        match way {
            Way::Mail => self.post.is_some(),
            Way::Webhook => self.hook.is_some(),
        }
    }

    async fn deliver(&self, message: &Message, now: OffsetDateTime) -> Result<(), Undelivered> {
        match (message.way, &self.hook, &self.post) {
            (Way::Webhook, Some(hook), _) => hook.deliver(message, now).await,
            (Way::Mail, _, Some(post)) => post.deliver(message).await,
            _ => Err(Undelivered::Never("nothing is told this way any more".to_owned())),
        }
    }
}

/// A message that is to go out.
fn message(way: Way, whom: &str, body: String, news: &News) -> Message {
    // Whatever others do about a request, it is who asks that has them do it.
    let cause = Some(news.request.user);
    Message { id: Uuid::now_v7(), way, whom: whom.to_owned(), cause, body, made: news.at, tries: 0 }
}

impl House {
    /// Tells others of a step, without waiting for them. A step that cannot be told is taken all the same.
    pub(crate) async fn news(&self, request: &AccessRequest, what: Happens, by: &str, words: &str) {
        if !self.tell.has_ears() {
            return;
        }
        if let Err(why) = self.post_news(request, what, by, words).await {
            tracing::error!(%why, "a step of an access request is not told");
        }
    }

    async fn post_news(&self, request: &AccessRequest, what: Happens, by: &str, words: &str) -> Result<(), String> {
        let failed = |e: portcullis_store::Error| chain(&e);
        let asker = self.store.user(request.user).await.map_err(failed)?.map(|u| u.name).unwrap_or_default();
        let news = News {
            at: self.clock.now(),
            request: request.clone(),
            what,
            asker,
            by: by.to_owned(),
            words: words.to_owned(),
            link: format!("{}/requests/{}", self.origin, request.id),
        };
        let mut messages = Vec::new();
        if self.tell.hook.is_some() {
            messages.push(message(Way::Webhook, &request.id.to_string(), hook::body(&news), &news));
        }
        if self.tell.post.is_some() {
            messages.extend(letter::letters(self, &news).await?);
        }
        let left = self.store.post_messages(&messages, ROOM).await.map_err(failed)?;
        let count = left.full + left.one;
        if count == 0 {
            return Ok(());
        }
        self.tell.unposted.fetch_add(count as u64, Ordering::Relaxed);
        let (whose, words) = if left.full > 0 {
            let all = ROOM.all;
            (None, format!("{all} messages wait to be delivered: nobody is told of steps of access requests any more"))
        } else {
            let each = ROOM.each;
            let words =
                format!("{each} messages wait that are this person's doing: of their requests nobody is told any more");
            (Some(request.user), words)
        };
        if self.tell.is_news(whose, news.at) {
            let about = if whose.is_some() { news.asker.as_str() } else { "outbox" };
            // It cannot be written down either: that is said where the trail fails.
            let _ = self.note_about("alarm", about, &words).await;
        }
        Err(format!("{words}: {count} were not posted"))
    }
}

/// Delivers what is in the outbox, for ever.
pub(crate) async fn keep(house: Arc<House>) {
    tokio::join!(run(&house, Way::Webhook), run(&house, Way::Mail));
}

async fn run(house: &House, way: Way) {
    if !house.tell.goes(way) {
        match house.store.drop_messages(way).await {
            Ok(0) => {}
            Ok(gone) => tracing::warn!(gone, ?way, "messages are dropped: nothing is told this way any more"),
            Err(error) => tracing::error!(error = %chain(&error), "messages could not be dropped"),
        }
        return;
    }
    loop {
        match next(house, way).await {
            Ok(true) => {}
            Ok(false) => tokio::time::sleep(LOOK).await,
            Err(error) => {
                tracing::error!(error = %chain(&error), "the outbox could not be looked at");
                tokio::time::sleep(LOOK).await;
            }
        }
    }
}

/// Tries the message that has been due longest; false when none is.
async fn next(house: &House, way: Way) -> Result<bool, portcullis_store::Error> {
    let now = house.clock.now();
    let Some(message) = house.store.claim_message(way, now, LEASE).await? else { return Ok(false) };
    let (why, never) = match house.tell.deliver(&message, now).await {
        Ok(()) => {
            house.store.drop_message(message.id).await?;
            return Ok(true);
        }
        Err(Undelivered::Later(why)) => (why, now - message.made >= OLD),
        Err(Undelivered::Never(why)) => (why, true),
    };
    tracing::warn!(%why, tries = message.tries, ?way, "a message was not delivered");
    let trouble = Trouble { at: now, whom: message.whom.clone(), why: why.clone() };
    house.store.note_trouble(way, &trouble).await?;
    let name = match way {
        Way::Mail => "a mail",
        Way::Webhook => "a message to the webhook",
    };
    let words = format!("{name} could not be delivered and was given up: {why}");
    // Where that cannot be written down, it is not given up either.
    if never && house.note_about("alarm", &message.whom, &words).await {
        house.store.drop_message(message.id).await?;
    } else {
        house.store.postpone_message(message.id, again(&*house.clock, message.tries)).await?;
    }
    Ok(true)
}

/// When a message that was tried so often is tried again.
fn again(clock: &dyn Clock, tries: u32) -> OffsetDateTime {
    let place = usize::try_from(tries.saturating_sub(1)).unwrap_or(usize::MAX);
    clock.now() + AGAIN.get(place).or(AGAIN.last()).copied().unwrap_or(time::Duration::HOUR)
}

#[cfg(test)]
mod tests {
    use super::*;
    use portcullis_domain::ManualClock;
    use time::macros::datetime;

    #[test]
    fn a_message_is_tried_again_later_and_later() {
        let clock = ManualClock::new(datetime!(2026-11-28 12:00 UTC));
        let waits: Vec<i64> = [0, 1, 2, 3, 4, 5, 6, 7, u32::MAX]
            .into_iter()
            .map(|tries| (again(&clock, tries) - clock.now()).whole_seconds())
            .collect();
        assert_eq!(waits, [1, 1, 10, 60, 300, 900, 3600, 3600, 3600]);
    }
}
