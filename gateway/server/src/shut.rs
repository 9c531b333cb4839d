// SPDX-License-Identifier: Apache-2.0
//! Why a button is greyed, for whoever may not press it: what of their own grants decided, what would open it, and where
//! to ask. Which grants those are by their ids is told to those only who may read the policy.

use crate::{pages::encode, state::House, view::Shut};
use portcullis_domain::{Action, Actor, Effect, Machine, Operation, OwnObject, Resource};
use portcullis_policy::{But, Decision, Mine, Near, Reason};
use time::OffsetDateTime;

/// What one person holds, for all buttons of a page.
pub(crate) struct Asker<'a> {
    house: &'a House,
    actor: &'a Actor,
    mine: Mine,
    reads_policy: bool,
    now: OffsetDateTime,
}

impl House {
    /// For all buttons of one page.
    pub(crate) fn asker<'a>(&'a self, actor: &'a Actor) -> Asker<'a> {
        let now = self.clock.now();
        let reads_policy = self.may(actor, Action::Read, Resource::Own(OwnObject::Policy));
        Asker { house: self, actor, mine: self.engine.mine(actor, now), reads_policy, now }
    }
}

impl Asker<'_> {
    /// Why they may not do something to a machine that they see; none when they may, fresh code or not.
    pub(crate) fn shut(&self, machine: &Machine, action: Action) -> Option<Shut> {
        let resource = Resource::Machine(machine.at.clone());
        let what = action.deed();
        if let Some(words) = self.house.locks.against(self.actor.via, &resource, self.now) {
            return Some(Shut { what, why: words, ..Shut::default() });
        }
        let operation = Operation { action, resource, effect: Effect::Safe };
        let Decision::Deny(reason) =
            self.house.engine.decide(self.actor, &operation, &self.house.fleet.inventory(), self.now)
        else {
            return None;
        };
        let near = self.mine.near(machine, action);
        let rules = if self.reads_policy { near.iter().map(|n| n.grant.to_string()).collect() } else { vec![] };
        let mut shut = Shut { what, rules, ..self.told(&reason, &near, machine, action) };
        shut.fresh = action.is_console() && shut.ask.is_some();
        Some(shut)
    }

    fn told(&self, reason: &Reason, near: &[Near], machine: &Machine, action: Action) -> Shut {
        let ask = || self.house.ask_link(&machine.at, action).map(|link| (link, "Ask for it"));
        let words = |near: &[Near]| near.iter().map(ToString::to_string).collect::<Vec<_>>();
        match reason {
            // No request overrides what forbids.
            Reason::Forbidden { .. } => {
                let forbids = near.iter().filter(|n| n.but == But::Forbids).cloned().collect::<Vec<_>>();
                let why = words(&forbids).into_iter().next().unwrap_or_else(|| reason.to_string());
                let needs = vec!["Somebody who gives roles must lift that; no request overrides it.".to_owned()];
                Shut { why, needs, ..Shut::default() }
            }
            Reason::Passkey => {
                let why = words(near).into_iter().next().unwrap_or_else(|| reason.to_string());
                let back = format!("/step-up?next={}", encode(&format!("/c/{}", machine.at)));
                let needs =
                    vec!["Confirm with a passkey. If you have none, add one on the page of your account.".to_owned()];
                Shut { why, needs, ask: Some((back, "Confirm with a passkey")), ..Shut::default() }
            }
            Reason::Role(doors) => {
                let mut all = words(near).into_iter();
                let none = || format!("None of your grants lets you {} here.", action.deed());
                let why = all.next().unwrap_or_else(none);
                let needs = all.chain([doors.to_string()]).collect();
                Shut { why, needs, ask: ask(), ..Shut::default() }
            }
            // A token's limits, a fault, what the gateway never passes on: nothing to ask for.
            other => Shut { why: other.to_string(), ..Shut::default() },
        }
    }
}
