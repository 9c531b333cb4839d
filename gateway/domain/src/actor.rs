// SPDX-License-Identifier: Apache-2.0
//! Who is asking, and what was granted to them. Loaded by `identity`, read by `policy`.

use crate::{
    assurance::Assurance,
    id::{GrantId, HypervisorName, ParseIdError, SessionId, TokenId, UserId},
    resource::MachineRef,
};
use serde::{Deserialize, Serialize};
use std::{fmt, str::FromStr, sync::Arc};
use time::{Duration, OffsetDateTime};

/// The name of a role as in the policy file: 1 to 63 of `a-z 0-9 -`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(transparent)]
pub struct RoleName(Arc<str>);

impl RoleName {
    /// The name as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for RoleName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl FromStr for RoleName {
    type Err = ParseIdError;
    fn from_str(text: &str) -> Result<Self, ParseIdError> {
        // The same alphabet as a hypervisor's name: nothing that a policy line could mistake for structure.
        text.parse::<HypervisorName>().map(|n| Self(Arc::from(n.as_str())))
    }
}

impl<'de> Deserialize<'de> for RoleName {
    fn deserialize<D: serde::Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        String::deserialize(d)?.parse().map_err(serde::de::Error::custom)
    }
}

/// What a grant covers.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
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
        }
    }

    /// Reads what [`Selector::columns`] wrote.
    pub fn parse(kind: &str, value: &str) -> Result<Self, ParseIdError> {
        let label = |text: &str| -> Result<String, ParseIdError> {
            if text.is_empty() || text.len() > 128 || text.chars().any(char::is_control) {
                Err(ParseIdError::new(text, "tag or pool"))
            } else {
                Ok(text.to_owned())
            }
        };
        match kind {
            "everything" if value.is_empty() => Ok(Self::Everything),
            "hypervisor" => Ok(Self::Hypervisor(value.parse()?)),
            "pool" => {
                let (h, p) = value.split_once('/').unwrap_or((value, ""));
                Ok(Self::Pool(h.parse()?, label(p)?))
            }
            "tag" => Ok(Self::Tag(label(value)?)),
            "machine" => Ok(Self::Machine(value.parse()?)),
            _ => Err(ParseIdError::new(kind, "selector: use everything, hypervisor, pool, tag or machine")),
        }
    }
}

impl fmt::Display for Selector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Everything => f.write_str("everything"),
            Self::Hypervisor(h) => write!(f, "hypervisor {h}"),
            Self::Pool(h, p) => write!(f, "pool {p} of {h}"),
            Self::Tag(t) => write!(f, "tag {t}"),
            Self::Machine(m) => write!(f, "machine {m}"),
        }
    }
}

/// What must hold while a grant is used.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Conditions {
    /// How old the last strong factor may be, in seconds, where the action asks for step-up. 0 to 86,400.
    pub step_up_seconds: u32,
    /// Whether a console under this grant must be recorded.
    pub record: bool,
}

impl Default for Conditions {
    fn default() -> Self {
        Self { step_up_seconds: 300, record: true }
    }
}

impl Conditions {
    /// The step-up window.
    pub fn step_up(&self) -> Duration {
        Duration::seconds(i64::from(self.step_up_seconds))
    }
}

/// Where a grant came from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
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

/// A role for a person on a selector, for a time.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Grant {
    /// Its id.
    pub id: GrantId,
    /// The role.
    pub role: RoleName,
    /// What it covers.
    pub selector: Selector,
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
    /// Whether it counts at an instant.
    pub fn is_active(&self, now: OffsetDateTime) -> bool {
        self.from <= now && self.until.is_none_or(|u| now < u)
    }
}

/// What a person presented.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Via {
    /// A browser's session.
    Session(SessionId),
    /// A token.
    Token(TokenId),
    /// The command line on the gateway's own machine.
    CommandLine,
}

/// A person who asks, with everything that a decision needs.
#[derive(Debug, Clone)]
pub struct Actor {
    /// The person.
    pub user: UserId,
    /// The name they sign in with.
    pub name: Arc<str>,
    /// What they presented.
    pub via: Via,
    /// Every grant of theirs, active or not.
    pub grants: Arc<[Grant]>,
    /// What they proved, and when.
    pub assurance: Assurance,
    /// What the credential itself is limited to: a token made for one hypervisor reaches only that one.
    pub scope: Option<HypervisorName>,
}
