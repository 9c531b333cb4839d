// SPDX-License-Identifier: Apache-2.0
//! The table of a SOAP API as its file writes it. Every key that is not here is refused.

use portcullis_domain::Effect;
use serde::Deserialize;
use std::collections::HashMap;

/// A table as the file writes it.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct File {
    pub(super) rule: Vec<Row>,
    #[serde(default)]
    pub(super) fields: Vec<FieldRow>,
    #[serde(default)]
    pub(super) device: Vec<KindRow>,
    #[serde(default)]
    pub(super) backing: Vec<KindRow>,
    #[serde(default)]
    pub(super) property: Vec<PropertyRow>,
}

/// Properties of types that are told to the same people.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct PropertyRow {
    pub(super) of: Vec<String>,
    pub(super) names: Vec<String>,
    /// Held on the hypervisor.
    pub(super) action: Option<String>,
    /// By whoever sees the object.
    #[serde(default)]
    pub(super) seen: bool,
    /// By nobody.
    #[serde(default)]
    pub(super) never: bool,
    /// It speaks of any machine.
    #[serde(default)]
    pub(super) machines: bool,
}

/// One row.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Row {
    pub(super) methods: Vec<String>,
    pub(super) object: Option<Object>,
    pub(super) action: Option<String>,
    pub(super) effect: Option<RowEffect>,
    /// Asked of the hypervisor, too.
    #[serde(default)]
    pub(super) hypervisor: Several,
    /// Asked of the hypervisor where it is called on no machine.
    pub(super) other: Option<String>,
    /// Asked of each machine that an argument names.
    pub(super) references: Option<String>,
    /// Sets of fields, by the argument that has them.
    #[serde(default)]
    pub(super) fields: HashMap<String, String>,
    /// Never passed on, and why.
    pub(super) deny: Option<String>,
}

/// One action, or a list of them.
#[derive(Debug, Clone, Deserialize)]
#[serde(untagged)]
pub(super) enum Several {
    One(String),
    All(Vec<String>),
}

impl Default for Several {
    fn default() -> Self {
        Self::All(Vec::new())
    }
}

impl Several {
    pub(super) fn iter(&self) -> impl Iterator<Item = &String> {
        match self {
            Self::One(one) => std::slice::from_ref(one).iter(),
            Self::All(all) => all.iter(),
        }
    }
}

/// What a row's methods are done to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(super) enum Object {
    /// The machine that it is called on, or that what it is called on is part of.
    Machine,
    /// The same; where it is called on something else, that counts for the hypervisor.
    Entity,
    /// The machines that its arguments name; the hypervisor, where they name something else.
    Named,
    Hypervisor,
    Task,
    /// What the person may see of the hypervisor.
    Visible,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(super) enum RowEffect {
    Safe,
    Unsafe,
}

impl From<RowEffect> for Effect {
    fn from(effect: RowEffect) -> Self {
        match effect {
            RowEffect::Safe => Self::Safe,
            RowEffect::Unsafe => Self::Unsafe,
        }
    }
}

/// Fields of one set that mean the same.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct FieldRow {
    pub(super) set: String,
    pub(super) keys: Vec<String>,
    /// Asked of the machine.
    pub(super) machine: Option<String>,
    /// Asked of the hypervisor.
    pub(super) hypervisor: Option<String>,
    /// Its own fields are those of another set.
    pub(super) inside: Option<String>,
    /// What else is looked at in it.
    pub(super) usage: Option<Usage>,
    pub(super) deny: Option<String>,
}

/// What a field's content means.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(super) enum Usage {
    /// A change of one device.
    Device,
    /// A key and a value of the settings file.
    Option,
    /// Names of files.
    Paths,
}

/// Types of devices, or of what stands behind one, that ask the same.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct KindRow {
    pub(super) kinds: Vec<String>,
    pub(super) machine: Option<String>,
    pub(super) hypervisor: Option<String>,
}
