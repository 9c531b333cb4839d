// SPDX-License-Identifier: Apache-2.0
//! People's own sessions with a hypervisor whose API is SOAP: whoever signs in at the gateway gets one session there, with
//! the gateway's credential, and nobody else's calls go through it. What a session makes (filters, views, collectors) is
//! found by nobody else, because its id holds the session's key, which never leaves this side.
//!
//! ```text
//! (nobody) --first call: sign in--> seated --NotAuthenticated: sign in again, once--> seated
//!                                     |--signed out or over, 30 minutes idle, room needed--> (signed out there)
//! ```

mod answer;
mod session;
pub(crate) mod tree;

use crate::error::Fault;
pub use answer::{Part, Sight};
use arc_swap::ArcSwapOption;
use portcullis_domain::{Pass, UserId};
use portcullis_policy::classify::soap::{Call, Element, Reference, envelope};
pub(crate) use session::{Center, Session};
use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError, RwLock},
    time::Duration,
};
use tokio::time::Instant;
use tree::Tree;

/// How long a session may be idle.
const IDLE: Duration = Duration::from_mins(30);
/// How long one must have been idle before somebody else may take its place.
const GIVEN_UP: Duration = Duration::from_mins(1);
/// The most sessions of one token, and of one person: one more takes the place of their oldest. The hypervisor's own limit
/// is for all of them together.
const OF_TOKEN: usize = 5;
const OF_ONE: usize = 20;
/// How long an answer may take.
const ANSWER: Duration = Duration::from_mins(1);
/// How long an answer may take that comes when something has happened.
const UPDATES: Duration = Duration::from_hours(1);

/// Whose session it is, and by which sign-in of theirs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Seat {
    /// Whose.
    pub user: UserId,
    /// Which.
    pub pass: Pass,
}

/// Whether a call's answer comes only when something has happened.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Wait {
    /// It comes at once.
    Usual,
    /// It may take an hour.
    Updates,
}

/// What a hypervisor says of itself, for those who are not known yet.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Face {
    /// What it is, by the API's own names.
    pub about: Vec<(String, String)>,
    /// The services that a client begins with: the field, the type and the id.
    pub services: Vec<(String, Reference)>,
    /// The release of its API.
    pub release: String,
    /// Older releases that it speaks, too.
    pub older: Vec<String>,
}

/// An answer as it came, its secrets included: only [`Reply::shown`] lets it out.
pub struct Reply {
    answer: Element,
    is_fault: bool,
    hidden: [String; 2],
}

impl std::fmt::Debug for Reply {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Reply")
    }
}

/// What a hypervisor says that does not know the session.
const UNKNOWN: &str = "NotAuthenticated";
/// What stands in the place of a session's key.
const MASK: &str = "portcullis";

impl Reply {
    /// Whether it is a refusal.
    pub fn is_fault(&self) -> bool {
        self.is_fault
    }

    /// Whether it says that an object is not there.
    pub fn is_absent(&self) -> bool {
        self.is_fault && answer::says(&self.answer, "ManagedObjectNotFound")
    }

    /// The task that it names, if it does.
    pub fn task(&self) -> Option<String> {
        let [one] = self.answer.children.as_slice() else { return None };
        let task = one.as_reference().filter(|r| one.name == "returnval" && r.of == "Task");
        task.map(|r| r.id)
    }

    /// What somebody may see of it, as it goes out. `call` is what it answers.
    pub fn shown(mut self, call: &Call, sight: &Sight) -> String {
        answer::keep(&mut self.answer, call, sight);
        let mut text = envelope(self.answer).document();
        for hidden in self.hidden.iter().filter(|h| h.len() >= 8) {
            text = text.replace(hidden.as_str(), MASK);
        }
        text
    }
}

struct Seated {
    session: Arc<Session>,
    used_at: Instant,
}

/// What came of looking for a place.
enum Placed {
    /// It has one, and somebody else's was given up.
    Here(Option<Seated>),
    /// There was one already.
    Taken(Arc<Session>),
    /// There is none.
    Full,
}

/// The sessions of one hypervisor, and what is known of its objects.
pub(crate) struct Desk {
    pub(crate) center: Center,
    pub(crate) tree: RwLock<Tree>,
    pub(crate) face: ArcSwapOption<Face>,
    seats: Mutex<HashMap<Seat, Seated>>,
    most: usize,
}

impl Desk {
    pub(crate) fn new(center: Center, most: usize) -> Self {
        let (tree, face) = (RwLock::default(), ArcSwapOption::empty());
        Self { center, tree, face, seats: Mutex::default(), most }
    }

    /// Asks in somebody's session.
    pub(crate) async fn ask(&self, seat: Seat, call: &Call, release: &str, wait: Wait) -> Result<Reply, Fault> {
        let patience = if wait == Wait::Updates { UPDATES } else { ANSWER };
        let mut is_new = false;
        loop {
            let session = if let Some(session) = self.seated(&seat) {
                session
            } else {
                is_new = true;
                self.sit(seat).await?
            };
            let real = unmasked(call.clone(), &session.key);
            let (answer, is_fault) = self.center.ask(&session, &real, release, patience).await?;
            // Nothing was done: the hypervisor ended the session, or began anew.
            if is_fault && answer::says(&answer, UNKNOWN) && !is_new {
                self.leave(&seat, &session);
                continue;
            }
            let hidden = [session.key.clone(), session.cookie_text().to_owned()];
            return Ok(Reply { answer, is_fault, hidden });
        }
    }

    /// Takes out the sessions of those whose sign-in no longer counts: what is left is to end them there.
    pub(crate) fn take(&self, counts: impl Fn(&Pass) -> bool) -> Vec<Arc<Session>> {
        let mut seats = self.seats.lock().unwrap_or_else(PoisonError::into_inner);
        seats.extract_if(|seat, _| !counts(&seat.pass)).map(|(_, seated)| seated.session).collect()
    }

    /// Ends what has been idle too long; called now and then.
    pub(crate) async fn tidy(&self) {
        let over = {
            let mut seats = self.seats.lock().unwrap_or_else(PoisonError::into_inner);
            let old: Vec<Seat> = seats.iter().filter(|(_, s)| s.used_at.elapsed() > IDLE).map(|(k, _)| *k).collect();
            old.iter().filter_map(|k| seats.remove(k)).collect::<Vec<_>>()
        };
        for seated in over {
            self.center.sign_out(&seated.session).await;
        }
    }

    fn seated(&self, seat: &Seat) -> Option<Arc<Session>> {
        let mut seats = self.seats.lock().unwrap_or_else(PoisonError::into_inner);
        let found = seats.get_mut(seat)?;
        found.used_at = Instant::now();
        Some(Arc::clone(&found.session))
    }

    async fn sit(&self, seat: Seat) -> Result<Arc<Session>, Fault> {
        let session = Arc::new(self.center.sign_in().await?);
        match self.place(seat, &session) {
            Placed::Here(given_up) => {
                if let Some(given_up) = given_up {
                    self.center.sign_out(&given_up.session).await;
                }
                Ok(session)
            }
            Placed::Taken(first) => {
                self.center.sign_out(&session).await;
                Ok(first)
            }
            Placed::Full => {
                self.center.sign_out(&session).await;
                Err(Fault::Refused("all sessions that the gateway may have with it are in use".to_owned()))
            }
        }
    }

    fn place(&self, seat: Seat, session: &Arc<Session>) -> Placed {
        let mut seats = self.seats.lock().unwrap_or_else(PoisonError::into_inner);
        // Whoever came twice at once keeps the first.
        if let Some(first) = seats.get(&seat) {
            return Placed::Taken(Arc::clone(&first.session));
        }
        // The one that was used longest ago, where there are so many of a kind.
        let crowded = |is_one: &dyn Fn(&Seat) -> bool, most: usize| {
            let all = || seats.iter().filter(|(k, _)| is_one(k));
            let oldest = all().min_by_key(|(_, s)| s.used_at).map(|(k, _)| *k);
            oldest.filter(|_| all().count() >= most)
        };
        let own = crowded(&|k| k.pass.token == seat.pass.token, OF_TOKEN)
            .or_else(|| crowded(&|k| k.user == seat.user, OF_ONE));
        let given_up = if own.is_some() {
            own
        } else if seats.len() >= self.most {
            let oldest = seats.iter().min_by_key(|(_, s)| s.used_at);
            let Some((oldest, _)) = oldest.filter(|(_, s)| s.used_at.elapsed() > GIVEN_UP) else { return Placed::Full };
            Some(*oldest)
        } else {
            None
        };
        let given_up = given_up.and_then(|old| seats.remove(&old));
        seats.insert(seat, Seated { session: Arc::clone(session), used_at: Instant::now() });
        Placed::Here(given_up)
    }

    fn leave(&self, seat: &Seat, session: &Arc<Session>) {
        let mut seats = self.seats.lock().unwrap_or_else(PoisonError::into_inner);
        if seats.get(seat).is_some_and(|s| Arc::ptr_eq(&s.session, session)) {
            seats.remove(seat);
        }
    }
}

/// The call with the session's real key in the ids of what the session made. In references only: whatever else a client
/// writes stays as it is.
fn unmasked(mut call: Call, key: &str) -> Call {
    fn inside(element: &mut Element, from: &str, to: &str) {
        if element.of.is_some() {
            element.text = element.text.replace(from, to);
        }
        element.children.iter_mut().for_each(|c| inside(c, from, to));
    }
    let (from, to) = (format!("session[{MASK}]"), format!("session[{key}]"));
    call.this.id = call.this.id.replace(&from, &to);
    call.arguments.iter_mut().for_each(|a| inside(a, &from, &to));
    call
}

#[cfg(test)]
mod tests;
