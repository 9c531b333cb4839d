// SPDX-License-Identifier: Apache-2.0
//! A grant: who, may, on what, until when, with what. The sentence that policy is made of.

use crate::{
    action::Action,
    hours::Hours,
    id::{GrantId, GroupId, HypervisorName, MachineId, ParseIdError, UserId},
    machine::{Machine, MachineKind},
    network::Network,
    resource::{MachineRef, OwnObject},
};
use serde::{Deserialize, Serialize};
use std::{fmt, str::FromStr, sync::Arc};
use time::{Duration, OffsetDateTime};

/// What a grant gives: the name of a role as in the policy file (1 to 63 of `a-z 0-9 -`), or one right by itself, as
/// `machine/power`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(transparent)]
pub struct RoleName(Arc<str>);

impl RoleName {
    /// The name as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The kind of thing and the action, where it is one right by itself.
    pub fn right(&self) -> Option<(&str, Action)> {
        let (kind, action) = self.0.split_once('/')?;
        Some((kind, action.parse().ok()?))
    }
}

/// Whether a word is a kind of thing that a right speaks about.
fn is_kind(word: &str) -> bool {
    matches!(word, "machine" | "hypervisor") || OwnObject::ALL.iter().any(|o| o.word() == word)
}

impl fmt::Display for RoleName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl FromStr for RoleName {
    type Err = ParseIdError;
    fn from_str(text: &str) -> Result<Self, ParseIdError> {
        if let Some((kind, action)) = text.split_once('/') {
            let good = is_kind(kind) && action.parse::<Action>().is_ok_and(Action::is_grantable);
            return if good { Ok(Self(Arc::from(text))) } else { Err(ParseIdError::new(text, "right")) };
        }
        // The same alphabet as a hypervisor's name: nothing that a policy line could mistake for structure.
        text.parse::<HypervisorName>().map(|n| Self(Arc::from(n.as_str())))
    }
}

impl<'de> Deserialize<'de> for RoleName {
    fn deserialize<D: serde::Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        String::deserialize(d)?.parse().map_err(serde::de::Error::custom)
    }
}

/// Who holds a grant.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Holder {
    /// One person.
    Person(UserId),
    /// Everybody in a group, as long as they are in it.
    Group(GroupId),
}

impl From<UserId> for Holder {
    fn from(user: UserId) -> Self {
        Self::Person(user)
    }
}

impl From<GroupId> for Holder {
    fn from(group: GroupId) -> Self {
        Self::Group(group)
    }
}

impl Holder {
    /// The person, where it is one.
    pub const fn person(self) -> Option<UserId> {
        match self {
            Self::Person(user) => Some(user),
            Self::Group(_) => None,
        }
    }
}

/// Whether a grant gives or forbids.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum GrantEffect {
    /// It gives what the role allows.
    #[default]
    Allow,
    /// It forbids what the role allows, whatever other grants give.
    Deny,
}

impl GrantEffect {
    /// The word of Casbin's last column.
    pub const fn word(self) -> &'static str {
        match self {
            Self::Allow => "allow",
            Self::Deny => "deny",
        }
    }
}

/// One segment of a [`Pattern`]: a name, or `*` for every one.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Segment<T> {
    /// Every one.
    Any,
    /// This one, whole.
    Is(T),
}

impl<T: PartialEq> Segment<T> {
    /// Whether a name is meant.
    pub fn matches(&self, name: &T) -> bool {
        match self {
            Self::Any => true,
            Self::Is(own) => own == name,
        }
    }
}

impl<T: fmt::Display> fmt::Display for Segment<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Any => f.write_str("*"),
            Self::Is(own) => own.fmt(f),
        }
    }
}

/// Machines by a path with wildcards: `hypervisor/pool/machine`, where each segment is a name or `*`. A machine
/// without a pool is only met by `*`. It never covers a hypervisor itself.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Pattern {
    /// On which hypervisor.
    pub hypervisor: Segment<HypervisorName>,
    /// In which pool or project.
    pub pool: Segment<String>,
    /// Which machine.
    pub machine: Segment<MachineId>,
}

impl Pattern {
    /// Whether it covers a machine.
    pub fn matches(&self, machine: &Machine) -> bool {
        self.hypervisor.matches(&machine.at.hypervisor)
            && self.machine.matches(&machine.at.machine)
            && match &self.pool {
                Segment::Any => true,
                Segment::Is(pool) => machine.pool.as_deref() == Some(pool.as_str()),
            }
    }
}

impl fmt::Display for Pattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}/{}", self.hypervisor, self.pool, self.machine)
    }
}

impl FromStr for Pattern {
    type Err = ParseIdError;
    fn from_str(text: &str) -> Result<Self, ParseIdError> {
        fn segment<T>(
            text: &str,
            parse: impl FnOnce(&str) -> Result<T, ParseIdError>,
        ) -> Result<Segment<T>, ParseIdError> {
            if text == "*" { Ok(Segment::Any) } else { parse(text).map(Segment::Is) }
        }
        let wrong = || ParseIdError::new(text, "pattern: use HYPERVISOR/POOL/MACHINE, each a name or *");
        // A pool may hold a slash; a hypervisor and a machine cannot.
        let (hypervisor, rest) = text.split_once('/').ok_or_else(wrong)?;
        let (pool, machine) = rest.rsplit_once('/').ok_or_else(wrong)?;
        Ok(Self {
            hypervisor: segment(hypervisor, str::parse)?,
            pool: segment(pool, label)?,
            machine: segment(machine, str::parse)?,
        })
    }
}

/// The text of a tag or a pool: 1 to 128 bytes without control characters.
fn label(text: &str) -> Result<String, ParseIdError> {
    if text.is_empty() || text.len() > 128 || text == "*" || text.chars().any(char::is_control) {
        Err(ParseIdError::new(text, "tag or pool"))
    } else {
        Ok(text.to_owned())
    }
}

/// What a grant covers.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Selector {
    /// Every hypervisor, every machine, and the gateway's own things.
    Everything,
    /// One hypervisor and its machines.
    Hypervisor(HypervisorName),
    /// The machines of one pool or project of one hypervisor.
    Pool(HypervisorName, String),
    /// The machines with a tag, on any hypervisor.
    Tag(String),
    /// One machine.
    Machine(MachineRef),
    /// The machines that a path with wildcards meets.
    Pattern(Pattern),
}

impl Selector {
    /// Its kind and value as two columns: `("tag", "web")`.
    pub fn columns(&self) -> (&'static str, String) {
        match self {
            Self::Everything => ("everything", String::new()),
            Self::Hypervisor(h) => ("hypervisor", h.to_string()),
            Self::Pool(h, p) => ("pool", format!("{h}/{p}")),
            Self::Tag(t) => ("tag", t.clone()),
            Self::Machine(m) => ("machine", m.to_string()),
            Self::Pattern(p) => ("pattern", p.to_string()),
        }
    }

    /// Reads what [`Selector::columns`] wrote.
    pub fn parse(kind: &str, value: &str) -> Result<Self, ParseIdError> {
        match kind {
            "everything" if value.is_empty() => Ok(Self::Everything),
            "hypervisor" => Ok(Self::Hypervisor(value.parse()?)),
            "pool" => {
                let (h, p) = value.split_once('/').unwrap_or((value, ""));
                Ok(Self::Pool(h.parse()?, label(p)?))
            }
            "tag" => Ok(Self::Tag(label(value)?)),
            "machine" => Ok(Self::Machine(value.parse()?)),
            "pattern" => Ok(Self::Pattern(value.parse()?)),
            _ => Err(ParseIdError::new(kind, "selector: use everything, hypervisor, pool, tag, machine or pattern")),
        }
    }

    /// Whether it covers a machine.
    pub fn covers(&self, machine: &Machine) -> bool {
        match self {
            Self::Everything => true,
            Self::Hypervisor(h) => *h == machine.at.hypervisor,
            Self::Pool(h, pool) => machine.pool.as_deref() == Some(pool.as_str()) && *h == machine.at.hypervisor,
            Self::Tag(tag) => machine.tags.iter().any(|t| t == tag),
            Self::Machine(at) => *at == machine.at,
            Self::Pattern(pattern) => pattern.matches(machine),
        }
    }
}

/// One column: `everything`, `hypervisor:lab`, `pool:lab/prod`, `tag:web`, `machine:lab/101`, `pattern:*/prod/*`.
impl fmt::Display for Selector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Everything => f.write_str("everything"),
            Self::Hypervisor(h) => write!(f, "hypervisor {h}"),
            Self::Pool(h, p) => write!(f, "pool {p} of {h}"),
            Self::Tag(t) => write!(f, "tag {t}"),
            Self::Machine(m) => write!(f, "machine {m}"),
            Self::Pattern(p) => write!(f, "machines {p}"),
        }
    }
}

/// What must hold while a grant is used. Those that say where and when decide whether it counts; the others are
/// asked of whoever uses it. A grant that forbids counts whatever they say but the hours and the networks.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Conditions {
    /// How old the last strong factor may be, in seconds, where the action asks for step-up. 0 to 86,400.
    pub step_up_seconds: u32,
    /// Whether that factor counts for one action on one object only.
    #[serde(skip_serializing_if = "is_false")]
    pub step_up_each: bool,
    /// Whether a console under this grant must be recorded.
    pub record: bool,
    /// The hours in which it counts; none means always.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub hours: Option<Hours>,
    /// The networks from which it counts; empty means from anywhere.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub networks: Vec<Network>,
    /// Whether a passkey must be among what was proven.
    #[serde(skip_serializing_if = "is_false")]
    pub passkey: bool,
    /// The kinds of machines that it covers; empty means all, and hypervisors too.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub kinds: Vec<MachineKind>,
    /// Most bytes of text into the guest's clipboard at once, where the role allows that; none means the protocol's
    /// own limit.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub clipboard_in: Option<u32>,
    /// The same out of the guest.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub clipboard_out: Option<u32>,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde calls it with a reference")]
const fn is_false(value: &bool) -> bool {
    !*value
}

impl Default for Conditions {
    fn default() -> Self {
        Self {
            step_up_seconds: 300,
            step_up_each: false,
            record: true,
            hours: None,
            networks: Vec::new(),
            passkey: false,
            kinds: Vec::new(),
            clipboard_in: None,
            clipboard_out: None,
        }
    }
}

impl Conditions {
    /// Whether a grant with them counts at all hours, from everywhere, for every kind of machine and every way to
    /// sign in.
    pub const fn is_plain(&self) -> bool {
        self.hours.is_none() && self.networks.is_empty() && !self.passkey && self.kinds.is_empty()
    }

    /// The step-up window.
    pub fn step_up(&self) -> Duration {
        Duration::seconds(i64::from(self.step_up_seconds))
    }
}

/// Where a grant came from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum GrantSource {
    /// An administrator made it.
    Administrator,
    /// The set-up of this installation made it.
    Setup,
    /// A policy file says so.
    PolicyFile,
    /// An access request was approved.
    AccessRequest,
    /// An identity provider's group says so.
    IdentityProvider,
}

/// A role on a selector, for a time. Whose it is stands beside it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Grant {
    /// Its id.
    pub id: GrantId,
    /// The role.
    pub role: RoleName,
    /// What it covers.
    pub selector: Selector,
    /// Whether it gives or forbids.
    pub effect: GrantEffect,
    /// First instant at which it counts.
    pub from: OffsetDateTime,
    /// First instant at which it no longer counts; none means until revoked.
    pub until: Option<OffsetDateTime>,
    /// What must hold while it is used.
    pub conditions: Conditions,
    /// Where it came from.
    pub source: GrantSource,
}

impl Grant {
    /// Whether it counts at an instant, as far as its beginning and end go.
    pub fn is_active(&self, now: OffsetDateTime) -> bool {
        self.from <= now && self.until.is_none_or(|u| now < u)
    }
}

/// A change of who holds what, as the store tells it and policy takes it.
#[derive(Debug, Clone, PartialEq, Eq)]
#[expect(clippy::large_enum_variant, reason = "nearly all of them are the large one")]
pub enum GrantChange {
    /// A grant that is new or has changed.
    Put(Holder, Grant),
    /// A grant that was taken back.
    Take(Holder, GrantId),
    /// Everybody who is in a group now; nobody when it is gone.
    Members(GroupId, Vec<UserId>),
    /// Something of a holder could not be read: whoever depends on it is denied everything until all is read again.
    Shut(Holder),
    /// Something could not be read, and nobody knows whose it is: everybody is denied everything until all is read again.
    ShutAll,
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::machine::{ConsoleKind, PowerState};

    fn machine(at: &str, pool: Option<&str>) -> Machine {
        Machine {
            at: at.parse().unwrap(),
            name: "web".into(),
            kind: MachineKind::Guest,
            state: PowerState::Running,
            pool: pool.map(Into::into),
            tags: vec!["web".into()],
            node: None,
            console: ConsoleKind::Vnc,
        }
    }

    #[test]
    fn a_selector_survives_its_columns() {
        for (kind, value) in [
            ("everything", ""),
            ("hypervisor", "lab"),
            ("pool", "lab/web/tier"),
            ("tag", "web tier"),
            ("machine", "lab/101"),
            ("pattern", "*/prod/*"),
            ("pattern", "lab/a/b/101"),
            ("pattern", "*/*/*"),
        ] {
            let selector = Selector::parse(kind, value).unwrap();
            assert_eq!(selector.columns(), (kind, value.to_owned()));
        }
        for (kind, value) in [
            ("everything", "x"),
            ("pattern", "lab"),
            ("pattern", "lab/101"),
            ("pattern", "lab//101"),
            ("pattern", "l*/prod/101"),
            ("pattern", "lab/prod/10*"),
            ("pattern", "lab/pr\nod/1"),
            ("pool", "lab/*"),
            ("tag", "*"),
            ("tag", "a\u{7}"),
            ("machine", "*/101"),
            ("anything", ""),
        ] {
            assert!(Selector::parse(kind, value).is_err(), "{kind} {value}");
        }
    }

    #[test]
    fn a_wildcard_stands_for_one_whole_segment() {
        let (pooled, bare) = (machine("lab/101", Some("prod")), machine("lab/102", None));
        for (pattern, first, second) in [
            ("*/*/*", true, true),
            ("lab/*/*", true, true),
            ("*/prod/*", true, false),
            ("*/pro/*", false, false),
            ("lab/*/101", true, false),
            ("la/*/*", false, false),
            ("*/*/10", false, false),
        ] {
            let pattern: Pattern = pattern.parse().unwrap();
            assert_eq!((pattern.matches(&pooled), pattern.matches(&bare)), (first, second), "{pattern}");
        }
    }

    #[test]
    fn conditions_that_an_older_program_wrote_mean_the_same() {
        let old: Conditions = serde_json::from_str(r#"{"step_up_seconds":60,"record":false}"#).unwrap();
        assert_eq!(old, Conditions { step_up_seconds: 60, record: false, ..Conditions::default() });
        assert_eq!(serde_json::to_string(&old).unwrap(), r#"{"step_up_seconds":60,"record":false}"#);
        assert!(serde_json::from_str::<Conditions>(r#"{"record":true,"recrod":false}"#).is_err());
    }
}
