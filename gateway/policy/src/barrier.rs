// SPDX-License-Identifier: Apache-2.0
//! What stands between a person and something that they may not do: which of their own grants forbid it, and which would
//! allow it but for one thing. Nothing of anybody else's grants is in it.

use crate::{Counts, Engine, Kind, Moment, Passkey, Snapshot, Target};
use portcullis_domain::{
    Action, Actor, Factor, Grant, GrantId, GroupId, Hours, Machine, MachineKind, Network, RoleName,
};
use std::{fmt, sync::Arc};
use time::OffsetDateTime;

/// What one person holds, read once for a page with many machines.
pub struct Mine {
    snapshot: Arc<Snapshot>,
    grants: Vec<(Option<GroupId>, Grant)>,
    at: Moment,
}

/// One grant of the person that speaks of what they want, and why it does not open it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Near {
    /// The grant.
    pub grant: GrantId,
    /// The group that it comes through; none for a grant of the person's own.
    pub through: Option<GroupId>,
    /// Its role.
    pub role: RoleName,
    /// What it covers, in words.
    pub on: String,
    /// What stands in the way.
    pub but: But,
}

/// What stands in the way of a grant that speaks of something.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum But {
    /// It forbids it.
    Forbids,
    /// It begins later.
    Begins(OffsetDateTime),
    /// It is over.
    Ended(OffsetDateTime),
    /// It counts at these hours.
    Hours(Hours),
    /// It counts from these networks.
    Networks(Vec<Network>),
    /// It counts for these kinds of machines.
    Kinds(Vec<MachineKind>),
    /// It counts for somebody who proved a passkey.
    Passkey,
}

impl fmt::Display for Near {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let list = |all: Vec<String>| all.join(", ");
        let what = if self.role.right().is_some() { "right" } else { "role" };
        write!(f, "Your {what} {} on {} ", self.role, self.on)?;
        match &self.but {
            But::Forbids => f.write_str("forbids it, whatever another one allows."),
            But::Begins(at) => write!(f, "begins at {}.", minute(*at)),
            But::Ended(at) => write!(f, "ended at {}.", minute(*at)),
            But::Hours(hours) => write!(f, "counts at these hours only: {hours}."),
            But::Networks(all) => {
                write!(f, "counts from these networks only: {}.", list(all.iter().map(ToString::to_string).collect()))
            }
            But::Kinds(all) => {
                let kinds = all.iter().map(|k| k.plural().to_owned());
                write!(f, "counts for {} only.", list(kinds.collect()))
            }
            But::Passkey => f.write_str("counts once you have shown a passkey."),
        }
    }
}

/// An instant in a sentence.
fn minute(at: OffsetDateTime) -> String {
    let at = at.to_offset(time::UtcOffset::UTC);
    let month = u8::from(at.month());
    format!("{:04}-{month:02}-{:02} {:02}:{:02} UTC", at.year(), at.day(), at.hour(), at.minute())
}

impl Engine {
    /// What a person holds, by themselves and through groups, to be asked about many things.
    pub fn mine(&self, actor: &Actor, now: OffsetDateTime) -> Mine {
        let snapshot = self.snapshot();
        let own = snapshot.grants_held(actor.user).into_iter().map(|g| (None, g));
        let groups = snapshot.groups_of(actor.user);
        let others = groups.iter().flat_map(|id| snapshot.grants_held(*id).into_iter().map(|g| (Some(*id), g)));
        let grants = own.chain(others).collect();
        let passkey = if actor.assurance.has(Factor::Passkey) { Passkey::Proven } else { Passkey::Missing };
        Mine { at: Moment::new(now, actor.from, passkey), snapshot, grants }
    }
}

impl Mine {
    /// The person's grants that speak of an action on a machine and do not open it: those that forbid it first, then what
    /// is nearest to opening it.
    pub fn near(&self, machine: &Machine, action: Action) -> Vec<Near> {
        let target = Target::Machine(machine);
        let mut near: Vec<(u8, Near)> = Vec::new();
        for (through, grant) in &self.grants {
            if !self.snapshot.speaks(&grant.role, Kind::Machine, action) {
                continue;
            }
            let counts = self.snapshot.counts(grant, target, Kind::Machine, action, &self.at);
            let Some((rank, but)) = obstacle(grant, counts) else { continue };
            let on = grant.selector.to_string();
            near.push((rank, Near { grant: grant.id, through: *through, role: grant.role.clone(), on, but }));
        }
        near.sort_by(|(a, one), (b, other)| a.cmp(b).then_with(|| one.grant.cmp(&other.grant)));
        near.into_iter().map(|(_, near)| near).collect()
    }
}

/// What is in the way of a grant that covers a thing; none where nothing is, or where it covers other things.
fn obstacle(grant: &Grant, counts: Counts) -> Option<(u8, But)> {
    let conditions = &grant.conditions;
    let forbids = grant.effect == portcullis_domain::GrantEffect::Deny;
    match counts {
        Counts::Forbids => Some((0, But::Forbids)),
        // What does not forbid now is nothing to wait for.
        _ if forbids => None,
        Counts::NeedsPasskey => Some((1, But::Passkey)),
        Counts::OtherHours => conditions.hours.clone().map(|hours| (2, But::Hours(hours))),
        Counts::OtherNetworks => Some((3, But::Networks(conditions.networks.clone()))),
        Counts::NotYet => Some((4, But::Begins(grant.from))),
        Counts::OtherKinds => Some((5, But::Kinds(conditions.kinds.clone()))),
        Counts::Over => grant.until.map(|until| (6, But::Ended(until))),
        Counts::Yes | Counts::OtherRights | Counts::Elsewhere | Counts::NoSuchRole => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use portcullis_domain::{
        Assurance, Conditions, ConsoleKind, GrantChange, GrantEffect, GrantSource, Holder, PowerState, Selector,
        UserId, Via,
    };
    use time::{Duration, macros::datetime};
    use uuid::Uuid;

    /// A Saturday.
    const NOW: OffsetDateTime = datetime!(2026-11-28 12:00 UTC);

    fn machine() -> Machine {
        Machine {
            at: "lab/1".parse().unwrap(),
            name: "web".into(),
            kind: MachineKind::Guest,
            state: PowerState::Running,
            pool: None,
            tags: vec!["web".into()],
            node: None,
            console: ConsoleKind::Vnc,
        }
    }

    fn grant(n: u128, role: &str, change: impl FnOnce(&mut Grant)) -> Grant {
        let mut grant = Grant {
            id: GrantId::new(Uuid::from_u128(n)),
            role: role.parse().unwrap(),
            selector: Selector::Tag("web".into()),
            effect: GrantEffect::Allow,
            from: NOW - Duration::DAY,
            until: None,
            conditions: Conditions::default(),
            source: GrantSource::Administrator,
        };
        change(&mut grant);
        grant
    }

    fn actor(n: u128) -> Actor {
        Actor {
            user: UserId::new(Uuid::from_u128(n)),
            name: "zoe".into(),
            via: Via::CommandLine,
            assurance: Assurance::default(),
            scope: None,
            pass: None,
            from: "192.0.2.7".parse().ok(),
        }
    }

    async fn near(grants: Vec<(Holder, Grant)>, action: Action) -> Vec<Near> {
        let engine = Engine::builtin().await.unwrap();
        engine.reset(grants.into_iter().map(|(holder, grant)| GrantChange::Put(holder, grant)));
        engine.mine(&actor(1), NOW).near(&machine(), action)
    }

    #[tokio::test]
    async fn each_obstacle_of_ones_own_grants_is_named_the_nearest_first() {
        let me = || Holder::Person(actor(1).user);
        let grants = vec![
            grant(1, "operator", |g| g.until = Some(NOW - Duration::HOUR)),
            grant(2, "operator", |g| g.from = NOW + Duration::HOUR),
            grant(3, "operator", |g| g.conditions.networks = vec!["10.0.0.0/8".parse().unwrap()]),
            grant(4, "operator", |g| g.conditions.hours = Some("mon-fri 08:00-18:00 Europe/Berlin".parse().unwrap())),
            grant(5, "operator", |g| g.conditions.passkey = true),
            grant(6, "operator", |g| g.conditions.kinds = vec![MachineKind::Container]),
            grant(7, "operator", |g| g.effect = GrantEffect::Deny),
            // Says nothing of power; covers something else; forbids at another time; has no such role.
            grant(8, "viewer", |_| {}),
            grant(9, "operator", |g| g.selector = Selector::Tag("db".into())),
            grant(10, "operator", |g| (g.effect, g.from) = (GrantEffect::Deny, NOW + Duration::HOUR)),
            grant(11, "nobody", |_| {}),
        ];
        let told = near(grants.into_iter().map(|g| (me(), g)).collect(), Action::Power).await;
        let words: Vec<String> = told.iter().map(ToString::to_string).collect();
        assert_eq!(
            words,
            [
                "Your role operator on tag web forbids it, whatever another one allows.",
                "Your role operator on tag web counts once you have shown a passkey.",
                "Your role operator on tag web counts at these hours only: mon-fri 08:00-18:00 Europe/Berlin.",
                "Your role operator on tag web counts from these networks only: 10.0.0.0/8.",
                "Your role operator on tag web begins at 2026-11-28 13:00 UTC.",
                "Your role operator on tag web counts for containers only.",
                "Your role operator on tag web ended at 2026-11-28 11:00 UTC.",
            ]
        );
    }

    #[tokio::test]
    async fn what_others_hold_is_not_in_it_and_what_a_group_gives_names_the_group() {
        let (other, group) = (actor(2).user, GroupId::new(Uuid::from_u128(77)));
        let late = |n| grant(n, "operator", |g| g.from = NOW + Duration::HOUR);
        let engine = Engine::builtin().await.unwrap();
        engine.reset([
            GrantChange::Put(other.into(), late(1)),
            GrantChange::Put(group.into(), late(2)),
            GrantChange::Put(GroupId::new(Uuid::from_u128(78)).into(), late(3)),
            GrantChange::Members(group, vec![actor(1).user]),
        ]);
        let told = engine.mine(&actor(1), NOW).near(&machine(), Action::Power);
        assert_eq!(told.iter().map(|n| (n.grant, n.through)).collect::<Vec<_>>(), [(late(2).id, Some(group))]);
        // What opens the door is no obstacle.
        assert!(near(vec![(actor(1).user.into(), grant(1, "operator", |_| {}))], Action::Power).await.is_empty());
    }
}
