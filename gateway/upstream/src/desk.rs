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
mod seats;
mod session;
pub(crate) mod tree;

use crate::{driver::Automation, error::Fault};
pub use answer::{Part, Sight};
use arc_swap::ArcSwapOption;
use futures_util::future::join_all;
use portcullis_domain::{Pass, UserId};
use portcullis_policy::classify::soap::{Call, Element, Reference, envelope};
pub(crate) use seats::{Placed, Seats};
pub(crate) use session::{Center, Session};
use std::{
    sync::{Arc, RwLock},
    time::Duration,
};
use tree::Tree;

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

/// Sessions that nobody has any more, and that are still to be ended there.
#[derive(Default)]
pub(crate) struct Over {
    calls: Vec<Arc<Session>>,
    automation: Vec<Arc<Automation>>,
}

impl Over {
    pub(crate) fn is_empty(&self) -> bool {
        self.calls.is_empty() && self.automation.is_empty()
    }
}

/// The sessions of one hypervisor, and what is known of its objects.
pub(crate) struct Desk {
    pub(crate) center: Center,
    pub(crate) tree: RwLock<Tree>,
    pub(crate) face: ArcSwapOption<Face>,
    /// Of calls, and of the Automation API beside them: there these are sessions of another kind.
    seats: Seats<Session>,
    pub(crate) automation: Seats<Automation>,
}

impl Desk {
    pub(crate) fn new(center: Center, most: usize) -> Self {
        let (tree, face) = (RwLock::default(), ArcSwapOption::empty());
        Self { center, tree, face, seats: Seats::new(most), automation: Seats::new(most) }
    }

    /// Asks in somebody's session.
    pub(crate) async fn ask(&self, seat: Seat, call: &Call, release: &str, wait: Wait) -> Result<Reply, Fault> {
        let patience = if wait == Wait::Updates { UPDATES } else { ANSWER };
        let mut is_new = false;
        loop {
            let session = if let Some(session) = self.seats.seated(&seat) {
                session
            } else {
                is_new = true;
                self.sit(seat).await?
            };
            let real = unmasked(call.clone(), &session.key);
            let (answer, is_fault) = self.center.ask(&session, &real, release, patience).await?;
            // Nothing was done: the hypervisor ended the session, or began anew.
            if is_fault && answer::says(&answer, UNKNOWN) && !is_new {
                self.seats.leave(&seat, &session);
                continue;
            }
            let hidden = [session.key.clone(), session.cookie_text().to_owned()];
            return Ok(Reply { answer, is_fault, hidden });
        }
    }

    /// Takes out the sessions of those whose sign-in no longer counts: what is left is to end them there.
    pub(crate) fn take(&self, counts: impl Fn(&Pass) -> bool) -> Over {
        Over { calls: self.seats.take(&counts), automation: self.automation.take(&counts) }
    }

    /// Ends there what nobody has any more.
    pub(crate) async fn end(&self, over: &Over) {
        join_all(over.calls.iter().map(|session| self.center.sign_out(session))).await;
        join_all(over.automation.iter().map(|session| self.center.close(session))).await;
    }

    /// Ends what has been idle too long; called now and then.
    pub(crate) async fn tidy(&self) {
        self.end(&Over { calls: self.seats.take_idle(), automation: self.automation.take_idle() }).await;
    }

    async fn sit(&self, seat: Seat) -> Result<Arc<Session>, Fault> {
        let session = Arc::new(self.center.sign_in().await?);
        match self.seats.place(seat, &session) {
            Placed::Here(given_up) => {
                if let Some(given_up) = given_up {
                    self.center.sign_out(&given_up).await;
                }
                Ok(session)
            }
            Placed::Taken(first) => {
                self.center.sign_out(&session).await;
                Ok(first)
            }
            Placed::Full => {
                self.center.sign_out(&session).await;
                Err(full())
            }
        }
    }
}

/// Nobody's place is free.
pub(crate) fn full() -> Fault {
    Fault::Refused("all sessions that the gateway may have with it are in use".to_owned())
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
