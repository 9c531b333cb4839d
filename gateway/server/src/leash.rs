// SPDX-License-Identifier: Apache-2.0
//! What holds everything at a hypervisor's API that lasts: streams, long answers, uploads, lists of many pages. It asks for
//! the permit again every second and whenever a session, grant or policy changes, and cuts what would not be let through
//! now.

use crate::{locks, passage::end, reply::Refusal, state::House};
use portcullis_audit::OpenEntry;
use portcullis_domain::{Actor, Outcome, Via};
use portcullis_policy::Permit;
use std::{sync::Arc, time::Duration};
use uuid::Uuid;

/// What holds a stream or a long answer: it goes on for as long as its permit would be given again.
pub(crate) struct Leash {
    house: Arc<House>,
    permit: Permit,
    actor: Arc<Actor>,
    /// Which adding the hypervisor was when it began.
    adding: Option<Uuid>,
}

impl Leash {
    pub(crate) fn new(house: &Arc<House>, permit: Permit, actor: Arc<Actor>) -> Self {
        let adding = adding(house, &permit);
        Self { house: Arc::clone(house), permit, actor, adding }
    }

    /// Whether another hypervisor has the name by now: whoever did not ask in between learns it here.
    pub(crate) fn is_anothers(&self) -> bool {
        adding(&self.house, &self.permit) != self.adding
    }

    pub(crate) const fn permit(&self) -> &Permit {
        &self.permit
    }

    pub(crate) const fn actor(&self) -> &Arc<Actor> {
        &self.actor
    }

    pub(crate) const fn house(&self) -> &Arc<House> {
        &self.house
    }

    /// Why it may not go on, if so: the token was revoked, the person disabled, the grant ended, the policy changed.
    pub(crate) fn pulled(&self) -> Option<String> {
        let Via::Token(token) = self.actor.via else { return Some("the token no longer counts".into()) };
        let Some(now) = self.house.identity.token_owner(token) else {
            return Some("the token no longer counts".into());
        };
        if self.actor.pass.is_some_and(|pass| self.house.identity.is_pass_ended(&pass)) {
            return Some("the session of this API was ended".into());
        }
        if self.is_anothers() {
            return Some(locks::REMOVED.to_owned());
        }
        self.house.pulled(&self.permit, &now)
    }

    /// Does something that may take long, an upload or a wait, for as long as it may go on.
    pub(crate) async fn hold<T>(&self, work: impl Future<Output = T>) -> Result<T, Cut> {
        tokio::select! {
            biased;
            done = work => Ok(done),
            reason = self.lost() => Err(Cut::Pulled(reason)),
            () = self.house.closing.cancelled() => Err(Cut::Closing),
        }
    }

    /// Waits until it may not go on.
    pub(crate) async fn lost(&self) -> String {
        let mut changes = self.house.identity.changes();
        loop {
            tokio::select! {
                changed = changes.changed() => if changed.is_err() { return "the gateway is shutting down".into() },
                () = tokio::time::sleep(Duration::from_secs(1)) => {}
            }
            if let Some(reason) = self.pulled() {
                return reason;
            }
        }
    }
}

/// Which adding the hypervisor of a permit is.
fn adding(house: &House, permit: &Permit) -> Option<Uuid> {
    permit.operation().resource.hypervisor().and_then(|name| house.adding(name))
}

/// Why something was not brought to its end.
pub(crate) enum Cut {
    /// Its permit would not be given again.
    Pulled(String),
    /// The gateway shuts down.
    Closing,
}

impl Cut {
    /// Closes its event, and says to the person why.
    pub(crate) fn close(self, open: OpenEntry) -> Refusal {
        let (reason, refusal) = match self {
            Self::Pulled(why) => {
                (format!("access ended: {why}"), Refusal::Forbidden(format!("Your access ended: {why}")))
            }
            Self::Closing => ("the gateway is shutting down".into(), Refusal::Unavailable("It shuts down.".into())),
        };
        end(open, Outcome::Failed, &reason, &[]);
        refusal
    }
}
