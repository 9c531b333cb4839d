// SPDX-License-Identifier: Apache-2.0
//! The table of a SOAP API: what each method asks, of what it is called on, and of what its arguments name.
//!
//! A method that no row names is denied, and so is an argument that the API's own list does not know. What an object is
//! stands in the inventory ([`Owners`]): one that is called something else there than in the call is refused, and so is
//! a reference that does not say what it refers to, because the hypervisor may go by the id alone.

mod fields;
mod file;
mod properties;

use super::{Call, Element, Reference};
use crate::{Error, Kind};
use fields::Sets;
use file::{File, Object, Row};
use portcullis_domain::{Action, Effect, HypervisorName, MachineId, MachineRef, Operation, Resource};
use properties::Properties;
pub use properties::{Property, Reader};
use std::{
    borrow::Cow,
    cell::Cell,
    collections::{HashMap, HashSet},
    sync::{Arc, LazyLock},
};

const VSPHERE: &str = include_str!("../../../../../policies/classify/vsphere.toml");
const OPERATIONS: &str = include_str!("../../../../../policies/classify/vsphere-operations.txt");

/// The most machines that one call may name.
const MAX_MACHINES: usize = 500;
/// The id of no machine.
const NOTHING: &str = "-";
const UNKNOWN: &str = "The gateway does not know this method of the API, so it is not passed on.";
/// What is said of an object that is not there, or not to be known about.
pub const ABSENT: &str = "There is no such object.";

/// What the inventory knows of an object.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Way {
    /// Its type.
    pub of: String,
    /// The machine that it is, or is part of; none for everything else.
    pub machine: Option<MachineId>,
}

/// The inventory, as far as references need it.
pub trait Owners {
    /// What it knows of an id.
    fn find(&self, id: &str) -> Option<Way>;
}

/// What a call asks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Told {
    /// An operation, and what must be allowed as well.
    Operation {
        /// What is asked.
        operation: Operation,
        /// What must be allowed as well.
        also: Vec<Operation>,
    },
    /// A look at what the person may see. What is named must be among it, and what is asked of it allowed.
    Visible {
        /// What is named.
        named: Vec<Reference>,
        /// What reading the properties that are named asks.
        also: Vec<Operation>,
    },
    /// A task: whoever began it may do that; everybody else is asked for the operation.
    Task {
        /// Its id.
        id: String,
        /// What others are asked.
        other: Operation,
    },
    /// Never passed on. The reason is for the person.
    Denied(Cow<'static, str>),
}

#[derive(Debug)]
struct Ask {
    object: Object,
    action: Action,
    effect: Effect,
    /// Asked of the hypervisor, too.
    hypervisor: Vec<Action>,
    /// Asked of the hypervisor, where what it is called on is no machine.
    other: Option<Action>,
    /// Asked of each machine that an argument names.
    references: Option<Action>,
    /// Which reviewed fields an argument has.
    fields: HashMap<String, String>,
}

#[derive(Debug)]
enum Meaning {
    Deny(String),
    Ask(Box<Ask>),
}

/// A method's arguments by the API's list: the names, and whether each is a reference.
type Arguments = HashMap<String, bool>;

#[derive(Debug, Default)]
struct Inner {
    meanings: HashMap<String, Arc<Meaning>>,
    arguments: HashMap<String, Arguments>,
    /// Names of fields that hold references wherever they stand.
    names: HashSet<String>,
    sets: Sets,
    properties: Properties,
}

/// The table of one SOAP API. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Methods(Arc<Inner>);

static BUILTIN: LazyLock<Methods> = LazyLock::new(|| {
    Methods::read(VSPHERE, OPERATIONS).unwrap_or_else(|error| {
        // A test reads it, so this is a broken build. An empty table denies everything.
        tracing::error!(%error, "the table of a SOAP API is wrong: every call is denied");
        Methods(Arc::default())
    })
});

impl Methods {
    /// The table of vSphere's API that comes with the gateway.
    pub fn builtin() -> Self {
        BUILTIN.clone()
    }

    /// Reads a table, and the list of what the API has: a line `Type Method argument…` each, `*` behind one that is a
    /// reference, and `@references name…`. Refuses the whole of it when any row is wrong.
    pub fn read(text: &str, operations: &str) -> Result<Self, Error> {
        let file: File = toml::from_str(text).map_err(|e| Error::Table(e.to_string()))?;
        build(file, operations).map(|inner| Self(Arc::new(inner))).map_err(Error::Table)
    }

    /// What a call asks of a hypervisor.
    pub fn classify(&self, hypervisor: &HypervisorName, call: &Call, owners: &dyn Owners) -> Told {
        let asked = Asked { table: &self.0, hypervisor, owners, is_lying: Cell::new(false) };
        let mut told = asked.tell(call).unwrap_or_else(Told::Denied);
        if asked.is_lying.get() {
            asked.hide(&mut told);
        }
        told
    }

    /// Who is told of a property of a type; none where nobody knows it. `path` may lead into it.
    pub fn property(&self, of: &str, path: &str) -> Option<Property> {
        self.0.properties.find(of, path)
    }

    /// The parts of a property that are told to others than the whole of it, by their names.
    pub fn parts<'a>(&'a self, of: &'a str, path: &'a str) -> impl Iterator<Item = (&'a str, Property)> {
        self.0.properties.parts(of, path)
    }

    /// What a method asks without its arguments: the action, and whether it can change something; none where it is
    /// denied or not known. For tests and reviews.
    pub fn verdict(&self, method: &str) -> Option<Result<(Action, Effect), &str>> {
        self.0.meanings.get(method).map(|m| match &**m {
            Meaning::Deny(why) => Err(why.as_str()),
            Meaning::Ask(ask) => Ok((ask.action, ask.effect)),
        })
    }
}

fn build(file: File, operations: &str) -> Result<Inner, String> {
    let (mut arguments, mut names) = (HashMap::new(), HashSet::new());
    for line in operations.lines().filter(|l| !l.starts_with('#') && !l.starts_with("@type ")) {
        let mut words = line.split(' ');
        match (words.next(), words.next()) {
            (Some("@references"), Some(first)) => names.extend(std::iter::once(first).chain(words).map(str::to_owned)),
            (Some(_), Some(method)) => {
                let of = words.map(|w| (w.trim_end_matches('*').to_owned(), w.ends_with('*'))).collect();
                if arguments.insert(method.to_owned(), of).is_some() {
                    return Err(format!("{method} is listed twice"));
                }
            }
            _ => return Err(format!("{line:?} is no operation")),
        }
    }
    let sets = Sets::read(file.fields, file.device, file.backing)?;
    let mut meanings = HashMap::new();
    for (number, row) in file.rule.into_iter().enumerate() {
        let name = row.methods.first().cloned().unwrap_or_default();
        let wrong = |e: String| format!("row {} ({name}): {e}", number + 1);
        let meaning = Arc::new(row.meaning(&sets).map_err(wrong)?);
        for method in &row.methods {
            if !arguments.contains_key(method) {
                return Err(wrong(format!("{method} is no method of the API")));
            }
            if meanings.insert(method.clone(), Arc::clone(&meaning)).is_some() {
                return Err(wrong(format!("{method} has two rows")));
            }
        }
    }
    let properties = Properties::read(file.property, operations)?;
    Ok(Inner { meanings, arguments, names, sets, properties })
}

impl Row {
    fn meaning(&self, sets: &Sets) -> Result<Meaning, String> {
        if let Some(why) = &self.deny {
            let more = self.action.is_some() || self.object.is_some() || self.effect.is_some();
            let is_well = !more && !why.is_empty();
            return if is_well { Ok(Meaning::Deny(why.clone())) } else { Err("deny stands alone".to_owned()) };
        }
        let (Some(action), Some(object), Some(effect)) = (&self.action, self.object, self.effect) else {
            return Err("action, object and effect are needed".to_owned());
        };
        let read = |text: &String| text.parse::<Action>().map_err(|e| e.to_string());
        let action = read(action)?;
        let (other, references) = (&self.other, &self.references);
        let hypervisor = self.hypervisor.iter().map(read).collect::<Result<Vec<_>, _>>()?;
        let other = other.as_ref().map(read).transpose()?;
        let references = references.as_ref().map(read).transpose()?;
        let kind = match object {
            Object::Hypervisor => Kind::Hypervisor,
            Object::Machine | Object::Entity | Object::Named | Object::Visible | Object::Task => Kind::Machine,
        };
        if !kind.answers(action)
            || hypervisor.iter().chain(&other).any(|a| !Kind::Hypervisor.answers(*a))
            || references.is_some_and(|a| !Kind::Machine.answers(a))
        {
            return Err("an action that cannot be asked there".to_owned());
        }
        let effect = effect.into();
        if object == Object::Visible && (action != Action::View || effect != Effect::Safe) {
            return Err("what somebody may see is a safe view".to_owned());
        }
        if matches!(object, Object::Entity | Object::Task) != other.is_some() {
            return Err("an entity or a task says what others are asked, and nothing else does".to_owned());
        }
        if action == Action::View && effect == Effect::Unsafe {
            return Err("a view changes nothing".to_owned());
        }
        if let Some(missing) = self.fields.values().find(|set| !sets.has(set)) {
            return Err(format!("there are no fields called {missing}"));
        }
        let fields = self.fields.clone();
        Ok(Meaning::Ask(Box::new(Ask { object, action, effect, hypervisor, other, references, fields })))
    }
}

/// What a reference turned out to be.
enum Place {
    Machine(MachineId),
    /// A folder, a pool, a host, or something else of the inventory.
    Entity,
    /// A service of the API, or something of the session's own.
    Free,
}

/// One call on its way to a verdict.
struct Asked<'a> {
    table: &'a Inner,
    hypervisor: &'a HypervisorName,
    owners: &'a dyn Owners,
    /// A reference calls something what it is not.
    is_lying: Cell<bool>,
}

type Why = Cow<'static, str>;

impl Asked<'_> {
    fn tell(&self, call: &Call) -> Result<Told, Why> {
        let ask = match self.table.meanings.get(&call.method).map(|m| &**m) {
            Some(Meaning::Ask(ask)) => ask,
            Some(Meaning::Deny(why)) => return Err(why.clone().into()),
            None => return Err(UNKNOWN.into()),
        };
        let named = self.references(call)?;
        if ask.object == Object::Visible {
            let all = std::iter::once(call.this.clone()).chain(named);
            let mut seen = Vec::new();
            for reference in all {
                if !matches!(self.place(&reference)?, Place::Free) {
                    seen.push(reference);
                }
            }
            let is_free = self.owners.find(&call.this.id).is_none();
            let operation = |action| Operation {
                action,
                resource: Resource::Hypervisor(self.hypervisor.clone()),
                effect: Effect::Safe,
            };
            let also = self.table.properties.named(call, is_free)?.into_iter().map(operation).collect();
            return Ok(Told::Visible { named: seen, also });
        }
        let this = self.place(&call.this)?;
        let (effect, action) = (ask.effect, ask.action);
        let mut also = Vec::new();
        let mut push = |action: Action, resource: Resource| {
            let operation = Operation { action, resource, effect };
            if !also.contains(&operation) {
                also.push(operation);
            }
        };
        let mut machines = Vec::new();
        let mut is_elsewhere = false;
        for reference in &named {
            match self.place(reference)? {
                Place::Machine(machine) => machines.push(machine),
                // Access is given on these.
                Place::Entity | Place::Free => {
                    is_elsewhere |= matches!(reference.of.as_str(), "Folder" | "ResourcePool" | "VirtualApp");
                }
            }
        }
        machines.sort_unstable();
        machines.dedup();
        if machines.len() > MAX_MACHINES {
            return Err(format!("That names more than {MAX_MACHINES} machines at once.").into());
        }
        let here = || Resource::Hypervisor(self.hypervisor.clone());
        let (resource, own) = match (ask.object, this) {
            (Object::Machine | Object::Entity, Place::Machine(machine)) => (self.machine(&machine), Some(machine)),
            (Object::Entity, Place::Entity | Place::Free) => {
                let other = ask.other.ok_or(UNKNOWN)?;
                push(Action::NodeAdmin, here());
                return Ok(Told::Operation { operation: Operation { action: other, resource: here(), effect }, also });
            }
            (Object::Machine, _) | (Object::Named, Place::Machine(_)) => return Err(ABSENT.into()),
            (Object::Task, _) => {
                let other = Operation { action: ask.other.ok_or(UNKNOWN)?, resource: here(), effect };
                return Ok(Told::Task { id: call.this.id.clone(), other });
            }
            (Object::Named, _) => {
                let is_all = !machines.is_empty() && named.len() == self.count(&named)?;
                match machines.as_slice() {
                    [one] if is_all => (self.machine(one), Some(one.clone())),
                    _ if is_all => (Resource::Machines(self.hypervisor.clone(), std::mem::take(&mut machines)), None),
                    // Of hosts and the like, or of nothing: the hypervisor's, where it can be.
                    _ if Kind::Hypervisor.answers(action) && action == Action::View => (here(), None),
                    _ => return Err("That names no machine.".into()),
                }
            }
            (Object::Hypervisor | Object::Visible, Place::Machine(machine)) => {
                machines.push(machine);
                (here(), None)
            }
            (Object::Hypervisor | Object::Visible, _) => (here(), None),
        };
        for action in &ask.hypervisor {
            push(*action, here());
        }
        if is_elsewhere && own.is_some() {
            push(Action::AccessAdmin, here());
        }
        let of_others = ask.references.or(Kind::Machine.answers(action).then_some(action));
        let of_others = of_others.unwrap_or(if effect == Effect::Safe { Action::View } else { Action::Configure });
        for machine in machines.iter().filter(|m| own.as_ref() != Some(*m)) {
            push(of_others, self.machine(machine));
        }
        for (argument, set) in &ask.fields {
            for element in call.arguments.iter().filter(|a| a.name == *argument) {
                self.table.sets.ask(set, element, &mut |whose, action| match (&own, whose) {
                    (Some(own), fields::Whose::Machine) => push(action, self.machine(own)),
                    // Of a machine that is being made, what would be asked of it stands in its making.
                    (None, fields::Whose::Machine) => {}
                    (_, fields::Whose::Hypervisor) => push(action, here()),
                })?;
            }
        }
        let operation = Operation { action, resource, effect };
        also.retain(|o| *o != operation);
        Ok(Told::Operation { operation, also })
    }

    /// What is called something that it is not is answered like what is not there: whoever lacks a right on the
    /// hypervisor hears that, and everybody else that there is no such machine.
    fn hide(&self, told: &mut Told) {
        let (also, effect) = match told {
            Told::Operation { operation, also } => (also, operation.effect),
            Told::Visible { named, also } if !also.is_empty() => {
                named.clear();
                (also, Effect::Safe)
            }
            Told::Visible { .. } | Told::Task { .. } => return *told = Told::Denied(ABSENT.into()),
            Told::Denied(_) => return,
        };
        if let Ok(nothing) = NOTHING.parse() {
            also.push(Operation { action: Action::View, resource: self.machine(&nothing), effect });
        }
    }

    fn machine(&self, id: &MachineId) -> Resource {
        Resource::Machine(MachineRef { hypervisor: self.hypervisor.clone(), machine: id.clone() })
    }

    /// How many of some references are machines, or part of one.
    fn count(&self, references: &[Reference]) -> Result<usize, Why> {
        let mut count = 0;
        for reference in references {
            count += usize::from(matches!(self.place(reference)?, Place::Machine(_)));
        }
        Ok(count)
    }

    /// What a reference is, by the inventory. One that is called something else there is none.
    fn place(&self, reference: &Reference) -> Result<Place, Why> {
        if let Some(known) = self.owners.find(&reference.id) {
            if known.of == reference.of {
                return Ok(known.machine.map_or(Place::Entity, Place::Machine));
            }
            self.is_lying.set(true);
        }
        match reference.of.as_str() {
            // Not known is not there: policy denies it.
            "VirtualMachine" => reference.id.parse().map(Place::Machine).map_err(|_| ABSENT.into()),
            "VirtualMachineSnapshot" => Err(ABSENT.into()),
            of if ENTITIES.contains(&of) => Ok(Place::Entity),
            _ => Ok(Place::Free),
        }
    }

    /// Every reference among the arguments. What should be one says so, or the call is refused.
    fn references(&self, call: &Call) -> Result<Vec<Reference>, Why> {
        // What is not in the API's list (a read of one property) takes nothing but texts.
        let known = self.table.arguments.get(&call.method).ok_or(UNKNOWN)?;
        let mut found = Vec::new();
        for argument in &call.arguments {
            let is_reference = known.get(&argument.name);
            let is_reference = *is_reference.ok_or("The gateway does not know an argument of this call.")?;
            if is_reference && argument.as_reference().is_none() && !argument.is_nil {
                return Err("An argument that names an object does not say which type it has.".into());
            }
            self.check(argument)?;
            argument.references(&mut found);
        }
        Ok(found)
    }

    fn check(&self, element: &Element) -> Result<(), Why> {
        let is_leaf = element.children.is_empty() && !element.text.trim().is_empty();
        let says_so = element.kind() == Some("ManagedObjectReference") || self.table.names.contains(&element.name);
        if is_leaf && says_so && element.of.is_none() {
            return Err("Something that names an object does not say which type it has.".into());
        }
        element.children.iter().try_for_each(|c| self.check(c))
    }
}

/// Types of the inventory that are no machines.
pub const ENTITIES: [&str; 16] = [
    "Folder",
    "Datacenter",
    "ComputeResource",
    "ClusterComputeResource",
    "ResourcePool",
    "VirtualApp",
    "HostSystem",
    "Datastore",
    "StoragePod",
    "Network",
    "OpaqueNetwork",
    "DistributedVirtualPortgroup",
    "DistributedVirtualSwitch",
    "VmwareDistributedVirtualSwitch",
    "ManagedEntity",
    "EnvironmentBrowser",
];

#[cfg(test)]
mod tests;
