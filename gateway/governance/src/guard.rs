// SPDX-License-Identifier: Apache-2.0
//! Changes of rights that are not one person's to make on a page: those that are made in files only, and those that take
//! two people.
//!
//! More rights on what is named take a second person: a grant, coming into a group that holds one, taking back what
//! forbids, files that do any of it. Less never waits: who takes access away is not held up by anybody.
//!
//! A machine that is named stays so whatever its tags and its pool become. So a grant waits too when a tag, a pool or a
//! pattern could come to cover such a machine, although it does not now: whoever may configure machines could put the
//! tag on it, alone.

use crate::{code::Plan, grant::Error, group::Membership, sentence::Sentence};
use portcullis_domain::{
    Grant, GrantEffect, GrantSource, HypervisorName, Inventory, Machine, MachineRef, RoleName, Segment, Selector,
};
use portcullis_policy::{Engine, single_rights};
use std::sync::{Arc, OnceLock};
use time::Duration;

/// What takes two people.
#[derive(Debug, Clone, Default)]
pub struct FourEyes {
    /// Grants on these.
    pub on: Vec<Selector>,
    /// Grants of what holds one of these rights, wherever they are.
    pub rights: Vec<RoleName>,
    /// Every set of policy files, whatever it says.
    pub files: bool,
    /// How long a proposal waits.
    pub lasts: Duration,
}

/// Whose hands a change is in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Hands {
    /// One person's: what takes two waits.
    One,
    /// Those of a second person, who approved it.
    Two,
}

impl Hands {
    /// Asks the guard where there is only one. It is asked where the change is made, in its turn: what holds there is
    /// what is changed.
    pub(crate) fn hold(self, guarded: impl FnOnce() -> Result<(), Error>) -> Result<(), Error> {
        match self {
            Self::One => guarded(),
            Self::Two => Ok(()),
        }
    }
}

/// Where the machines are looked up that a grant would cover.
type Look = Box<dyn Fn() -> Arc<Inventory> + Send + Sync>;

/// What guards changes of rights.
#[derive(Default)]
pub struct Guard {
    /// The folder that alone says who may do what, where it is so.
    only: Option<String>,
    eyes: Option<FourEyes>,
    look: OnceLock<Look>,
}

impl Guard {
    /// Where a folder of files is the only source of rights, and what takes two people.
    pub fn new(only: Option<String>, eyes: Option<FourEyes>) -> Self {
        Self { only, eyes, look: OnceLock::new() }
    }

    /// Looks machines up from now on. Until then a machine that is not known counts as one that is named.
    pub fn look_up(&self, look: impl Fn() -> Arc<Inventory> + Send + Sync + 'static) {
        // Set twice, the first one stays: both are the same inventory.
        drop(self.look.set(Box::new(look)));
    }

    /// Whether anything takes two people.
    pub const fn has_four_eyes(&self) -> bool {
        self.eyes.is_some()
    }

    pub(crate) const fn is_only_files(&self) -> bool {
        self.only.is_some()
    }

    pub(crate) fn lasts(&self) -> Duration {
        self.eyes.as_ref().map_or(Duration::DAY, |eyes| eyes.lasts)
    }

    /// Whether files say which grants of a source there are.
    pub(crate) fn files_own(&self, source: GrantSource) -> bool {
        source == GrantSource::PolicyFile
            || self.only.is_some() && matches!(source, GrantSource::Administrator | GrantSource::Setup)
    }

    /// Why nothing is changed here but in files.
    pub fn only_files(&self) -> Result<(), Error> {
        let Some(folder) = &self.only else { return Ok(()) };
        Err(Error::Kept(format!(
            "Who may do what is kept in files here: change them in {folder} on the gateway, then take them over with: \
             portcullis policy apply"
        )))
    }

    fn inventory(&self) -> Arc<Inventory> {
        self.look.get().map_or_else(Arc::default, |look| look())
    }

    pub(crate) fn saying(&self, engine: &Engine, sentence: &Sentence) -> Result<(), Error> {
        // What forbids takes away; taking that back is what waits.
        if sentence.effect == GrantEffect::Deny {
            return Ok(());
        }
        let why = sentence.on.iter().find_map(|on| self.named(engine, &sentence.role, on));
        why.map_or(Ok(()), |why| Err(Error::Waits(why)))
    }

    pub(crate) fn revoking(&self, engine: &Engine, grant: &Grant) -> Result<(), Error> {
        if grant.effect == GrantEffect::Allow {
            return Ok(());
        }
        self.named(engine, &grant.role, &grant.selector).map_or(Ok(()), |why| Err(Error::Waits(why)))
    }

    pub(crate) fn moving(&self, engine: &Engine, held: &[Grant], change: Membership) -> Result<(), Error> {
        let gives = if change == Membership::Join { GrantEffect::Allow } else { GrantEffect::Deny };
        let mut more = held.iter().filter(|g| g.effect == gives);
        let why = more.find_map(|g| self.named(engine, &g.role, &g.selector));
        why.map_or(Ok(()), |why| Err(Error::Waits(why)))
    }

    pub(crate) fn taking_over(&self, engine: &Engine, plan: &Plan) -> Result<(), Error> {
        let Some(eyes) = &self.eyes else { return Ok(()) };
        if eyes.files {
            return Err(Error::Waits("files of the policy are taken over by two people.".to_owned()));
        }
        // Also what nobody holds yet, because its group is empty: a directory may fill it.
        let mut given = plan.change.add.iter().map(|(_, grant)| grant).filter(|g| g.effect == GrantEffect::Allow);
        if let Some(why) = given.find_map(|g| self.named(&plan.engine, &g.role, &g.selector)) {
            return Err(Error::Waits(why));
        }
        // What a role means may be taken away in the same files.
        let either = |g: &Grant| {
            self.named(&plan.engine, &g.role, &g.selector).or_else(|| self.named(engine, &g.role, &g.selector))
        };
        // What forbids and goes gives to whoever comes into its group later, though nobody is in it now.
        let forbidden = plan.revoke.iter().map(|held| &held.grant).filter(|g| g.effect == GrantEffect::Deny);
        if let Some(why) = forbidden.into_iter().find_map(either) {
            return Err(Error::Waits(why));
        }
        let none = Vec::new();
        let more = plan.before.keys().chain(plan.after.keys()).find_map(|user| {
            let (before, after) = (plan.before.get(user).unwrap_or(&none), plan.after.get(user).unwrap_or(&none));
            let comes = after.iter().filter(|g| g.effect == GrantEffect::Allow && !before.iter().any(|b| b.id == g.id));
            let goes = before.iter().filter(|g| g.effect == GrantEffect::Deny && !after.iter().any(|a| a.id == g.id));
            comes.chain(goes).find_map(either)
        });
        // A role that means more than before reaches whoever holds it, and whoever comes into a group that does.
        let wider = plan.all.iter().find_map(|g| {
            let grows = single_rights().any(|(kind, action, _)| {
                let (was, is) =
                    (engine.role_allows(&g.role, kind, action), plan.engine.role_allows(&g.role, kind, action));
                if g.effect == GrantEffect::Allow { is && !was } else { was && !is }
            });
            grows.then(|| either(g)).flatten()
        });
        more.or(wider).map_or(Ok(()), |why| Err(Error::Waits(why)))
    }

    /// Why a role on something takes two people, if it does.
    pub(crate) fn named(&self, engine: &Engine, role: &RoleName, on: &Selector) -> Option<String> {
        let eyes = self.eyes.as_ref()?;
        let holds = |right: &&RoleName| {
            let asked = right.right().and_then(|(kind, action)| Some((kind.parse().ok()?, action)));
            asked.is_some_and(|(kind, action)| engine.role_allows(role, kind, action))
        };
        if let Some(right) = eyes.rights.iter().find(holds) {
            return Some(format!("{role} holds {right}."));
        }
        let inventory = self.inventory();
        let guarded = eyes.on.iter().find(|guarded| touches(on, guarded, &inventory))?;
        Some(format!("{role} on {on} reaches {guarded}."))
    }
}

/// Whether what a grant covers holds, or could come to hold, what is guarded. A machine or a hypervisor of which nothing
/// is known counts, and a tag always does: any machine can be given it.
fn touches(on: &Selector, guarded: &Selector, inventory: &Inventory) -> bool {
    if on == guarded || matches!(on, Selector::Everything | Selector::Tag(_)) || *guarded == Selector::Everything {
        return true;
    }
    // What is guarded need not be there now: it may come back, or be made.
    if let Some(meets) = meets(on, guarded) {
        return meets;
    }
    let named = |m: &&Machine| guarded.covers(m);
    let mut there = inventory.iter().filter(named).peekable();
    // A tag that nothing has yet, or a pool with nothing in it: it may come to be on anything.
    if there.peek().is_none() || there.any(|m| reaches(on, m)) {
        return true;
    }
    let known = |at: &MachineRef| inventory.find(at).is_some();
    let any_of = |name: &HypervisorName| inventory.iter().any(|m| m.at.hypervisor == *name);
    match on {
        Selector::Machine(at) => !known(at),
        Selector::Hypervisor(name) | Selector::Pool(name, _) => !any_of(name),
        Selector::Pattern(pattern) => match &pattern.hypervisor {
            Segment::Any => inventory.iter().next().is_none(),
            Segment::Is(name) => !any_of(name),
        },
        Selector::Everything | Selector::Tag(_) => true,
    }
}

/// Whether the words of a grant and of what is guarded leave room for a machine that both are about, whatever is there now;
/// none where only what is there can tell.
fn meets(on: &Selector, guarded: &Selector) -> Option<bool> {
    let at = |s: &Selector| match s {
        Selector::Hypervisor(name) | Selector::Pool(name, _) => Some(Segment::Is(name.clone())),
        Selector::Machine(at) => Some(Segment::Is(at.hypervisor.clone())),
        Selector::Pattern(p) => Some(p.hypervisor.clone()),
        Selector::Everything | Selector::Tag(_) => None,
    };
    let (one, other) = (at(on)?, at(guarded)?);
    if let (Segment::Is(one), Segment::Is(other)) = (&one, &other)
        && one != other
    {
        return Some(false);
    }
    let machine = |s: &Selector| match s {
        Selector::Machine(at) => Some(Segment::Is(at.machine.clone())),
        Selector::Pattern(p) => Some(p.machine.clone()),
        _ => Some(Segment::Any),
    };
    match (on, guarded) {
        // A pool is where a machine is today.
        (Selector::Machine(_), Selector::Pool(..)) => None,
        _ => match (machine(on)?, machine(guarded)?) {
            (Segment::Is(one), Segment::Is(other)) => Some(one == other),
            _ => Some(true),
        },
    }
}

/// Whether a selector covers a machine, or would if its tags and its pool were others. Its hypervisor and its id stay.
fn reaches(on: &Selector, machine: &Machine) -> bool {
    match on {
        Selector::Everything | Selector::Tag(_) => true,
        Selector::Hypervisor(name) | Selector::Pool(name, _) => *name == machine.at.hypervisor,
        Selector::Machine(at) => *at == machine.at,
        Selector::Pattern(p) => p.hypervisor.matches(&machine.at.hypervisor) && p.machine.matches(&machine.at.machine),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use portcullis_domain::{ConsoleKind, MachineKind, PowerState};

    fn machine(at: &str, tag: &str) -> Machine {
        Machine {
            at: at.parse().unwrap(),
            name: "m".into(),
            kind: MachineKind::Guest,
            state: PowerState::Running,
            pool: Some("p".into()),
            tags: vec![tag.to_owned()],
            node: None,
            console: ConsoleKind::Vnc,
        }
    }

    fn selector(text: &str) -> Selector {
        let (kind, value) = text.split_once(':').unwrap_or((text, ""));
        Selector::parse(kind, value).unwrap()
    }

    #[test]
    fn whatever_may_hold_what_is_guarded_touches_it() {
        let known = Inventory::new([machine("lab/1", "prod"), machine("lab/2", "test"), machine("dev/1", "test")]);
        let guarded = selector("tag:prod");
        for (on, expected) in [
            ("tag:prod", true),
            ("everything", true),
            ("machine:lab/1", true),
            ("machine:lab/2", false),
            ("machine:lab/9", true),
            ("hypervisor:lab", true),
            ("hypervisor:dev", false),
            ("hypervisor:new", true),
            ("pool:lab/p", true),
            ("pool:dev/p", false),
            // Its machine can be moved into another pool, and be given another tag.
            ("pool:lab/other", true),
            ("pattern:*/p/1", true),
            ("pattern:lab/other/1", true),
            ("pattern:lab/*/2", false),
            ("pattern:dev/*/*", false),
            ("pattern:new/*/*", true),
            ("tag:test", true),
            ("tag:nobody-has-it", true),
        ] {
            assert_eq!(touches(&selector(on), &guarded, &known), expected, "{on}");
            // Of what nothing is known, everything may be guarded.
            assert!(touches(&selector(on), &guarded, &Inventory::default()), "{on}");
        }
        assert!(touches(&selector("machine:lab/2"), &selector("hypervisor:lab"), &known));
        assert!(!touches(&selector("machine:dev/1"), &selector("hypervisor:lab"), &known));
    }

    #[test]
    fn what_is_guarded_and_not_there_now_may_come_back() {
        // Both hypervisors are known, with other machines; nothing that is guarded below is there.
        let known = Inventory::new([machine("lab/2", "test"), machine("dev/1", "test")]);
        for (guarded, on, expected) in [
            ("machine:lab/9", "machine:lab/9", true),
            ("machine:lab/9", "machine:lab/2", false),
            ("machine:lab/9", "hypervisor:lab", true),
            ("machine:lab/9", "hypervisor:dev", false),
            ("machine:lab/9", "pool:lab/p", true),
            ("machine:lab/9", "pool:dev/p", false),
            ("machine:lab/9", "pattern:*/*/9", true),
            ("machine:lab/9", "pattern:lab/p/*", true),
            ("machine:lab/9", "pattern:lab/*/2", false),
            ("machine:lab/9", "pattern:dev/*/*", false),
            ("machine:lab/9", "tag:anything", true),
            ("pool:lab/gone", "machine:lab/2", true),
            ("pool:lab/gone", "machine:lab/9", true),
            ("pool:lab/gone", "machine:dev/1", false),
            ("pool:lab/gone", "pool:lab/p", true),
            ("pool:lab/gone", "pool:dev/gone", false),
            ("pool:lab/gone", "hypervisor:lab", true),
            ("pattern:lab/gone/*", "machine:lab/2", true),
            ("pattern:*/gone/9", "machine:lab/9", true),
            ("pattern:*/gone/9", "machine:lab/2", false),
            ("pattern:*/gone/9", "hypervisor:dev", true),
            ("hypervisor:new", "machine:new/1", true),
            ("hypervisor:new", "hypervisor:lab", false),
            ("hypervisor:new", "pattern:*/*/2", true),
            // A tag that nothing has now: anything may be given it.
            ("tag:pay", "machine:lab/2", true),
            ("tag:pay", "hypervisor:dev", true),
            ("tag:pay", "pattern:lab/*/2", true),
            ("tag:pay", "pool:dev/p", true),
            // One that something else has.
            ("tag:test", "hypervisor:new", true),
            ("tag:test", "pattern:lab/*/2", true),
            ("tag:test", "pattern:lab/*/9", false),
        ] {
            assert_eq!(touches(&selector(on), &selector(guarded), &known), expected, "{on} against {guarded}");
        }
    }
}
