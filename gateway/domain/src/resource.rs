// SPDX-License-Identifier: Apache-2.0
//! What an action is done to, and the operation that joins the two.

use crate::{
    action::Action,
    id::{HypervisorName, MachineId, ParseIdError},
};
use serde::{Deserialize, Serialize};
use std::{fmt, str::FromStr};

/// One machine of one hypervisor.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct MachineRef {
    /// The hypervisor that runs it.
    pub hypervisor: HypervisorName,
    /// Its id there.
    pub machine: MachineId,
}

impl fmt::Display for MachineRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.hypervisor, self.machine)
    }
}

impl FromStr for MachineRef {
    type Err = ParseIdError;
    fn from_str(text: &str) -> Result<Self, ParseIdError> {
        let (hypervisor, machine) = text.split_once('/').unwrap_or((text, ""));
        Ok(Self { hypervisor: hypervisor.parse()?, machine: machine.parse()? })
    }
}

/// The gateway's own things.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum OwnObject {
    /// People, their factors and groups.
    Users,
    /// Roles and grants.
    Policy,
    /// Configured hypervisors and their credentials.
    Hypervisors,
    /// Signed-in browsers and live consoles.
    Sessions,
    /// Recordings.
    Recordings,
    /// The trail.
    Audit,
    /// Access reviews.
    Reviews,
    /// Access requests.
    Requests,
    /// The program itself: backup, reload, health.
    System,
}

impl OwnObject {
    /// Every object.
    pub const ALL: &[Self] = &[
        Self::Users,
        Self::Policy,
        Self::Hypervisors,
        Self::Sessions,
        Self::Recordings,
        Self::Audit,
        Self::Reviews,
        Self::Requests,
        Self::System,
    ];

    /// The word used in policies: `gateway:users` and so on.
    pub const fn word(self) -> &'static str {
        match self {
            Self::Users => "gateway:users",
            Self::Policy => "gateway:policy",
            Self::Hypervisors => "gateway:hypervisors",
            Self::Sessions => "gateway:sessions",
            Self::Recordings => "gateway:recordings",
            Self::Audit => "gateway:audit",
            Self::Reviews => "gateway:reviews",
            Self::Requests => "gateway:requests",
            Self::System => "gateway:system",
        }
    }
}

/// What an operation is done to.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Resource {
    /// The hypervisor itself, or things of it that are no machine.
    Hypervisor(HypervisorName),
    /// One machine.
    Machine(MachineRef),
    /// Several machines of one hypervisor, named by one request: each must be allowed.
    Machines(HypervisorName, Vec<MachineId>),
    /// One of the gateway's own things.
    Own(OwnObject),
}

impl Resource {
    /// The hypervisor it belongs to, if any.
    pub fn hypervisor(&self) -> Option<&HypervisorName> {
        match self {
            Self::Hypervisor(h) | Self::Machines(h, _) => Some(h),
            Self::Machine(m) => Some(&m.hypervisor),
            Self::Own(_) => None,
        }
    }
}

impl fmt::Display for Resource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Hypervisor(h) => write!(f, "{h}"),
            Self::Machine(m) => write!(f, "{m}"),
            Self::Machines(h, ms) => {
                write!(f, "{h}/")?;
                for (i, m) in ms.iter().enumerate() {
                    write!(f, "{}{m}", if i == 0 { "" } else { "," })?;
                }
                Ok(())
            }
            Self::Own(o) => f.write_str(o.word()),
        }
    }
}

/// Whether forwarding an operation can change something.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Effect {
    /// A read: it may be forwarded while its event is being written; its answer waits.
    Safe,
    /// Anything else: its event is durable before it is forwarded.
    Unsafe,
}

/// What one request asks: an action on a resource.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Operation {
    /// What is done.
    pub action: Action,
    /// To what.
    pub resource: Resource,
    /// Whether it can change something.
    pub effect: Effect,
}

impl fmt::Display for Operation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} on {}", self.action, self.resource)
    }
}
