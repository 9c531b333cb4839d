// SPDX-License-Identifier: Apache-2.0
//! Machines, and the snapshot of all of them that decisions and pages read.

use crate::{id::HypervisorName, resource::MachineRef};
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, HashMap};

/// What kind of thing a machine is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum MachineKind {
    /// A virtual machine.
    Guest,
    /// A container.
    Container,
    /// A template that cannot run.
    Template,
}

impl MachineKind {
    /// Several of them, in a sentence.
    pub const fn plural(self) -> &'static str {
        match self {
            Self::Guest => "virtual machines",
            Self::Container => "containers",
            Self::Template => "templates",
        }
    }
}

/// Whether it runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum PowerState {
    /// Running.
    Running,
    /// Halted with its memory kept.
    Paused,
    /// Off.
    Off,
    /// Crashed.
    Crashed,
    /// The hypervisor did not say, or could not be asked.
    Unknown,
}

impl PowerState {
    /// The word shown to people.
    pub const fn word(self) -> &'static str {
        match self {
            Self::Running => "running",
            Self::Paused => "paused",
            Self::Off => "off",
            Self::Crashed => "crashed",
            Self::Unknown => "unknown",
        }
    }
}

/// Which screen it has.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ConsoleKind {
    /// RFB.
    Vnc,
    /// SPICE.
    Spice,
    /// A text terminal.
    Text,
    /// None that the gateway can open.
    None,
}

/// One guest, container or template.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Machine {
    /// Where it is and its stable id.
    pub at: MachineRef,
    /// The name its owners gave it; not unique, shown as text only.
    pub name: String,
    /// Guest, container or template.
    pub kind: MachineKind,
    /// Whether it runs.
    pub state: PowerState,
    /// Its pool or project.
    pub pool: Option<String>,
    /// Its tags.
    pub tags: Vec<String>,
    /// The node that runs it, where the hypervisor has several.
    pub node: Option<String>,
    /// Which screen it has.
    pub console: ConsoleKind,
}

/// Every known machine at one instant. A machine that is not here does not exist for policy: denied.
#[derive(Debug, Clone, Default)]
pub struct Inventory {
    /// By hypervisor, then id.
    machines: Vec<Machine>,
    /// Where each is. Every decision looks one up: a tree of texts costs more than the decision.
    places: HashMap<MachineRef, usize>,
}

impl Inventory {
    /// A snapshot of these machines.
    pub fn new(machines: impl IntoIterator<Item = Machine>) -> Self {
        // The last one of a reference counts.
        let all: BTreeMap<_, _> = machines.into_iter().map(|m| (m.at.clone(), m)).collect();
        let places = all.keys().enumerate().map(|(place, at)| (at.clone(), place)).collect();
        Self { machines: all.into_values().collect(), places }
    }

    /// The machine at a reference.
    pub fn find(&self, at: &MachineRef) -> Option<&Machine> {
        self.machines.get(*self.places.get(at)?)
    }

    /// All machines, by hypervisor, then id.
    pub fn iter(&self) -> impl Iterator<Item = &Machine> {
        self.machines.iter()
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.machines.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.machines.is_empty()
    }

    /// The same snapshot with one hypervisor's machines replaced.
    #[must_use]
    pub fn with(&self, hypervisor: &HypervisorName, machines: Vec<Machine>) -> Self {
        let others = self.iter().filter(|m| m.at.hypervisor != *hypervisor).cloned();
        Self::new(others.chain(machines.into_iter().filter(|m| m.at.hypervisor == *hypervisor)))
    }
}
