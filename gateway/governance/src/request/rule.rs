// SPDX-License-Identifier: Apache-2.0
//! Who decides on which requests, and what the access comes with: the rules of the configuration.

use portcullis_domain::{Conditions, Hours, Inventory, RoleName, Selector};
use time::Duration;

/// Who decides on requests that a rule speaks of.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Owner {
    /// A person, by the name they sign in with.
    Person(String),
    /// Everybody in a group, by its name.
    Group(String),
}

impl Owner {
    pub(super) fn is(&self, name: &str, groups: &[String]) -> bool {
        match self {
            // Names that differ in case only belong to one account.
            Self::Person(own) => own.to_lowercase() == name.to_lowercase(),
            Self::Group(own) => groups.contains(own),
        }
    }
}

/// Whose requests are approved by the rule itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Auto {
    /// Everybody in this group, such as who is on call.
    pub group: String,
    /// At these hours; none means always.
    pub hours: Option<Hours>,
}

/// What holds for the requests that it speaks of.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rule {
    /// What people call it.
    pub name: String,
    /// The roles that it speaks of; empty means all.
    pub roles: Vec<RoleName>,
    /// What it speaks of; empty means everything.
    pub on: Vec<Selector>,
    /// Who decides, beside those who may by policy.
    pub owners: Vec<Owner>,
    /// How many people must approve.
    pub approvals: u32,
    /// The longest time for which it gives access.
    pub longest: Duration,
    /// Whose requests it approves by itself.
    pub auto: Option<Auto>,
    /// What must hold while the access is used.
    pub conditions: Conditions,
}

impl Default for Rule {
    fn default() -> Self {
        Self {
            name: "default".to_owned(),
            roles: Vec::new(),
            on: Vec::new(),
            owners: Vec::new(),
            approvals: 1,
            longest: Duration::days(14),
            auto: None,
            conditions: Conditions::default(),
        }
    }
}

impl Rule {
    pub(super) fn speaks_of(&self, role: &RoleName, on: &Selector, inventory: &Inventory) -> bool {
        (self.roles.is_empty() || self.roles.contains(role))
            && (self.on.is_empty() || self.on.iter().any(|own| covers(own, on, inventory)))
    }
}

/// Whether one selector covers all that another does now.
fn covers(outer: &Selector, inner: &Selector, inventory: &Inventory) -> bool {
    match (outer, inner) {
        (Selector::Everything, _) => true,
        (Selector::Hypervisor(a), Selector::Pool(b, _)) => a == b,
        (Selector::Hypervisor(a), Selector::Machine(at)) => *a == at.hypervisor,
        (outer, Selector::Machine(at)) => outer == inner || inventory.find(at).is_some_and(|m| outer.covers(m)),
        (outer, inner) => outer == inner,
    }
}
