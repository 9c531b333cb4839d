// SPDX-License-Identifier: Apache-2.0
//! The table of an API that is called by method names: which verdict each method of each class has, and which of its
//! parameters name objects. A parameter that names a part of a machine asks for the machine that it belongs to; one that
//! names something which is not known is never passed on.
//!
//! Two files make a table: the methods with their parameters as the API's own description publishes them, and the
//! reviewed verdicts. The verdicts' patterns are expanded when the table is read: a method that came later has none.

mod file;

use super::{
    Answer, Task, Verdict,
    query::Query,
    rpc::{Call, Value},
};
use crate::Error;
use ahash::AHashMap;
use file::{Arg, Meaning, Object, WebRow};
use portcullis_domain::{Action, Effect, HypervisorName, MachineId, MachineRef, Operation, Resource};
use std::{
    borrow::Cow,
    collections::BTreeMap,
    sync::{Arc, LazyLock},
};
use uuid::Uuid;

/// Most machines that one call may name.
const MAX_MACHINES: usize = 500;
/// The id of no machine.
const NOTHING: &str = "-";
/// What comes before a reference.
const REFERENCE: &str = "OpaqueRef:";

/// An API that is called by method names.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MethodsKind {
    /// The API of XCP-ng and XenServer.
    Xapi,
}

const XAPI: &str = include_str!("../../../../policies/classify/xapi.toml");
const XAPI_OPERATIONS: &str = include_str!("../../../../policies/classify/xapi-operations.txt");

static BUILTIN_XAPI: LazyLock<Methods> = LazyLock::new(|| {
    Methods::read(XAPI, XAPI_OPERATIONS).unwrap_or_else(|error| {
        // A test reads it, so this is a broken build. An empty table denies everything.
        tracing::error!(%error, "the table of an API is wrong: every request is denied");
        Methods(Arc::default())
    })
});

/// What an object belongs to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Owner<'a> {
    /// The hypervisor itself.
    Hypervisor,
    /// Machines; each must be allowed.
    Machines(&'a [MachineId]),
}

/// What is known of a hypervisor's objects.
pub trait Objects {
    /// What the object of a class belongs to; none where it is not known (yet).
    fn owner(&self, class: &str, object: Uuid) -> Option<Owner<'_>>;
}

/// A reference as it is written.
pub fn reference(text: &str) -> Option<Uuid> {
    text.strip_prefix(REFERENCE).and_then(|id| Uuid::try_parse(id).ok())
}

/// What a call asks, and what must be done with what comes back.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Told {
    /// Signing in or out: the gateway's own answer.
    Session(Entrance),
    /// Something that can be decided on.
    Asked(Verdict, Back),
    /// It changes a task: only for whoever began that, and otherwise this.
    TaskChange(String, Operation),
    /// It names an object that is not known. Class and text are for the refusal.
    Unknown(&'static str, String),
}

/// The calls that the gateway answers itself: what begins and ends a session, and what comes before one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Entrance {
    /// Begin one.
    Login,
    /// End one.
    Logout,
    /// None of both, and told without a session: the names of the methods.
    Listing,
}

/// What comes back.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Back {
    /// As it comes.
    Whole,
    /// References, or records by reference, of a class: those that are not for the person are left out.
    Rows(&'static str),
    /// One record of a class whose things are of no machine: cut down to its names.
    Record(&'static str),
    /// Events: the same for each of them.
    Events,
    /// It is a task.
    Task,
}

/// One method that the table knows, for tests and reviews.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MethodEntry<'a> {
    /// `class.message`.
    pub name: &'a str,
    /// What it asks; none when it is never passed on or answered here.
    pub action: Option<Action>,
    /// Whether it can change something.
    pub effect: Effect,
}

#[derive(Debug)]
struct Method {
    name: String,
    class: &'static str,
    args: Vec<Arg>,
    /// Of these, how many must be there.
    least: usize,
    meaning: Arc<Meaning>,
    /// What it means where its first parameter is one of these texts.
    exception: Option<(Vec<String>, Arc<Meaning>)>,
}

impl Method {
    fn meaning(&self, args: &[Value<'_>]) -> &Meaning {
        let first = args.first().and_then(Value::text);
        match &self.exception {
            Some((texts, meaning)) if first.is_some_and(|first| texts.iter().any(|t| t == first)) => meaning,
            _ => &self.meaning,
        }
    }
}

#[derive(Debug, Default)]
struct Inner {
    methods: AHashMap<String, Method>,
    web: BTreeMap<String, WebRow>,
    /// What stays of a record that is of no machine, by class.
    names: BTreeMap<String, Vec<String>>,
    /// What is there and empty in such a record.
    emptied: BTreeMap<String, Vec<String>>,
}

/// The table of one API. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Methods(Arc<Inner>);

/// What the parameters of one call name.
#[derive(Default)]
struct Named {
    /// The machines of the first object.
    first: Option<Vec<MachineId>>,
    also: Vec<Operation>,
}

impl Methods {
    /// The table that comes with the gateway.
    pub fn builtin(kind: MethodsKind) -> Self {
        match kind {
            MethodsKind::Xapi => BUILTIN_XAPI.clone(),
        }
    }

    /// Reads a table. Refuses the whole of it when anything is wrong.
    pub fn read(verdicts: &str, operations: &'static str) -> Result<Self, Error> {
        file::build(verdicts, operations).map(|inner| Self(Arc::new(inner))).map_err(Error::Table)
    }

    /// Every method that it knows.
    pub fn entries(&self) -> impl Iterator<Item = MethodEntry<'_>> {
        let exceptions = self.0.methods.values().filter_map(|m| Some((m, &*m.exception.as_ref()?.1)));
        self.0.methods.values().map(|m| (m, &*m.meaning)).chain(exceptions).map(|(m, meaning)| {
            let (action, effect) = match meaning {
                Meaning::Ask(ask) => (Some(ask.action), ask.effect),
                Meaning::Deny(_) | Meaning::Session(_) => (None, Effect::Unsafe),
            };
            MethodEntry { name: &m.name, action, effect }
        })
    }

    /// The names of the methods that are passed on for somebody, in order.
    pub fn listing(&self) -> Vec<&str> {
        let passed = self.0.methods.values().filter(|m| !matches!(*m.meaning, Meaning::Deny(_)));
        let mut names: Vec<&str> = passed.map(|m| m.name.as_str()).collect();
        names.sort_unstable();
        names
    }

    /// Every address beside the calls that it has a verdict for, as `METHOD /path`.
    pub fn addresses(&self) -> impl Iterator<Item = &str> {
        self.0.web.keys().map(String::as_str)
    }

    /// What stays of a record of a class whose things are of no machine; none where nothing does.
    pub fn names(&self, class: &str) -> Option<&[String]> {
        self.0.names.get(class).map(Vec::as_slice)
    }

    /// What of a record of such a class is there all the same, and empty.
    pub fn emptied(&self, class: &str) -> &[String] {
        self.0.emptied.get(class).map_or(&[], Vec::as_slice)
    }

    /// What a method that takes no session asks; none where it takes one.
    pub fn without_session(&self, call: &Call<'_>) -> Option<Entrance> {
        match *self.0.methods.get(&*call.method)?.meaning {
            Meaning::Session(entrance @ (Entrance::Login | Entrance::Listing)) => Some(entrance),
            _ => None,
        }
    }

    /// Shortens how long a call lets the hypervisor wait before it answers, where the table says how long it may: whoever
    /// waits holds a connection of the gateway's. What is no number is one that is too large.
    pub fn shorten(&self, call: &mut Call<'_>) {
        let method = self.0.methods.get(&*call.method);
        let Some((method, Meaning::Ask(ask))) = method.map(|m| (m, &*m.meaning)) else { return };
        let Some(longest) = ask.longest.map(f64::from) else { return };
        if let Some(value) = call.params.get_mut(method.args.len()) {
            let is_short = match value {
                Value::Int(seconds) => u32::try_from(*seconds).is_ok_and(|s| f64::from(s) <= longest),
                Value::Double(seconds) => (0.0..=longest).contains(seconds),
                _ => false,
            };
            if !is_short {
                *value = Value::Double(longest);
            }
        }
    }

    /// What a call asks of a hypervisor. What is not in the table is denied; the error is for the person.
    pub fn classify(
        &self,
        hypervisor: &HypervisorName,
        call: &Call<'_>,
        objects: &dyn Objects,
    ) -> Result<Told, Cow<'static, str>> {
        let (name, is_async) = call.method.strip_prefix("Async.").map_or((&*call.method, false), |name| (name, true));
        let unknown = "The gateway does not know this method of the API, so it is not passed on.";
        let method = self.0.methods.get(name).ok_or(unknown)?;
        let ask = match method.meaning(call.args()) {
            Meaning::Deny(reason) => return Err(reason.clone().into()),
            Meaning::Session(entrance) if !is_async => return Ok(Told::Session(*entrance)),
            Meaning::Session(_) => return Err(unknown.into()),
            Meaning::Ask(ask) => ask,
        };
        let args = call.args();
        if !(method.least..=method.args.len()).contains(&args.len()) {
            return Err(format!("{name} takes {} parameters.", method.args.len()).into());
        }
        let mut named = Named::default();
        let reader = ArgReader { hypervisor, objects, object: ask.object, others: ask.others, effect: ask.effect };
        for (arg, value) in method.args.iter().zip(args) {
            if let Some((class, text)) = reader.read(arg, value, &mut named)? {
                return Ok(Told::Unknown(class, text.chars().take(64).collect()));
            }
        }
        let whole = || Resource::Hypervisor(hypervisor.clone());
        let of_whole = |action: &Action| Operation { action: *action, resource: whole(), effect: ask.effect };
        named.also.extend(ask.hypervisor.iter().map(of_whole));
        let back = if is_async { Back::Task } else { ask.back(method.class) };
        let resource = match ask.object {
            Object::Visible | Object::Task if is_async => return Err(unknown.into()),
            Object::Visible => {
                let verdict = Verdict::Visible { hypervisor: hypervisor.clone(), answer: Answer::Pass };
                return Ok(Told::Asked(verdict, back));
            }
            Object::Task => return task(hypervisor, ask.effect, args),
            Object::Hypervisor => whole(),
            Object::Named => match named.first {
                None => whole(),
                Some(machines) => of_machines(hypervisor, machines)?,
            },
        };
        let operation = Operation { action: ask.action, resource, effect: ask.effect };
        let mut also = named.also;
        also.retain(|o| *o != operation);
        also.dedup();
        Ok(Told::Asked(Verdict::Operation { operation, also, answer: Answer::Pass }, back))
    }

    /// What a request beside the calls asks: `METHOD /path` and its query.
    pub fn classify_web(
        &self,
        hypervisor: &HypervisorName,
        (method, path, query): (&str, &str, Option<&str>),
        objects: &dyn Objects,
    ) -> Verdict {
        let told = || -> Result<Verdict, Cow<'static, str>> {
            let unknown = "The gateway does not know this part of the API, so it is not passed on.";
            let row = self.0.web.get(&format!("{method} {path}")).ok_or(unknown)?;
            let ask = match row {
                WebRow::Deny(reason) => return Err(reason.clone().into()),
                WebRow::Ask(ask) => ask,
            };
            let query = Query::read(query)?;
            let nothing = [NOTHING.parse().map_err(|_| unknown)?];
            let mut owner = None;
            for (key, value) in query.pairs() {
                let Some(class) = ask.named.get(key) else {
                    if ask.query.iter().any(|k| k == key) {
                        continue;
                    }
                    return Err(format!("The gateway does not know the key {key:?} here.").into());
                };
                let id = reference(value).or_else(|| Uuid::try_parse(value).ok());
                // What is not known is decided on like a machine that is not there: so it is answered like a hidden one.
                let found = id.and_then(|id| objects.owner(class, id)).unwrap_or(Owner::Machines(&nothing));
                if owner.replace(found).is_some() {
                    return Err("The address names two things.".into());
                }
            }
            let resource = match (owner, ask.named.is_empty()) {
                (None, true) | (Some(Owner::Hypervisor), _) => Resource::Hypervisor(hypervisor.clone()),
                (Some(Owner::Machines(all)), _) => of_machines(hypervisor, all.to_vec())?,
                (None, false) => return Err("The address does not name what it is about.".into()),
            };
            let operation = Operation { action: ask.action, resource, effect: ask.effect };
            Ok(Verdict::Operation { operation, also: Vec::new(), answer: Answer::Pass })
        };
        told().unwrap_or_else(Verdict::Denied)
    }
}

fn of_machines(hypervisor: &HypervisorName, mut machines: Vec<MachineId>) -> Result<Resource, Cow<'static, str>> {
    machines.sort_unstable();
    machines.dedup();
    if machines.len() > MAX_MACHINES {
        return Err(format!("That is of more than {MAX_MACHINES} machines at once.").into());
    }
    let of = |machine| Resource::Machine(MachineRef { hypervisor: hypervisor.clone(), machine });
    match <[MachineId; 1]>::try_from(machines) {
        Ok([one]) => Ok(of(one)),
        Err(none) if none.is_empty() => Ok(Resource::Hypervisor(hypervisor.clone())),
        Err(several) => Ok(Resource::Machines(hypervisor.clone(), several)),
    }
}

fn task(hypervisor: &HypervisorName, effect: Effect, args: &[Value<'_>]) -> Result<Told, Cow<'static, str>> {
    let id = args.first().and_then(Value::text).and_then(reference).ok_or("That is no reference of a task.")?;
    let of = |action| Operation { action, resource: Resource::Hypervisor(hypervisor.clone()), effect };
    if effect == Effect::Unsafe {
        return Ok(Told::TaskChange(id.to_string(), of(Action::NodeAdmin)));
    }
    let task = Task {
        hypervisor: hypervisor.clone(),
        action: Action::View,
        effect,
        id: id.to_string(),
        about: Some(of(Action::View)),
        secret: None,
    };
    Ok(Told::Asked(Verdict::Task { task, answer: Answer::Pass }, Back::Whole))
}

/// Reads the objects that parameters name.
struct ArgReader<'a> {
    hypervisor: &'a HypervisorName,
    objects: &'a dyn Objects,
    object: Object,
    /// What is asked of every object but the one that the call is about.
    others: Action,
    effect: Effect,
}

/// An object that is not known: its class, and what was named.
type Missing<'v> = (&'static str, &'v str);

impl ArgReader<'_> {
    fn read<'v>(
        &self,
        arg: &Arg,
        value: &'v Value<'_>,
        named: &mut Named,
    ) -> Result<Option<Missing<'v>>, Cow<'static, str>> {
        let wrong = || Cow::from("A parameter has another shape than the API says.");
        match (arg, value) {
            (Arg::Plain, _) | (Arg::Other, Value::Text(_)) => Ok(None),
            (Arg::Object(class), Value::Text(text)) => self.object(class, text, named),
            (Arg::Set(inner), Value::List(all)) => {
                for value in all {
                    if let Some(missing) = self.read(inner, value, named)? {
                        return Ok(Some(missing));
                    }
                }
                Ok(None)
            }
            (Arg::Table(keys, values), Value::Map(all)) => {
                for (key, value) in all {
                    if let Arg::Object(class) = &**keys
                        && let Some(missing) = self.object(class, key, named)?
                    {
                        return Ok(Some(missing));
                    }
                    if let Some(missing) = self.read(values, value, named)? {
                        return Ok(Some(missing));
                    }
                }
                Ok(None)
            }
            (Arg::Record(fields), Value::Map(all)) => {
                for (field, arg) in fields.iter() {
                    if let Some((_, value)) = all.iter().find(|(name, _)| name == field)
                        && let Some(missing) = self.read(arg, value, named)?
                    {
                        return Ok(Some(missing));
                    }
                }
                Ok(None)
            }
            _ => Err(wrong()),
        }
    }

    fn object<'v>(
        &self,
        class: &'static str,
        text: &'v str,
        named: &mut Named,
    ) -> Result<Option<Missing<'v>>, Cow<'static, str>> {
        // What names nothing reaches nothing.
        if text.is_empty() || text == "OpaqueRef:NULL" {
            return Ok(None);
        }
        let Some(owner) = reference(text).and_then(|id| self.objects.owner(class, id)) else {
            return Ok(Some((class, text)));
        };
        let machines = match owner {
            Owner::Hypervisor => &[][..],
            Owner::Machines(all) => all,
        };
        if self.object == Object::Named && named.first.is_none() {
            named.first = Some(machines.to_vec());
            return Ok(None);
        }
        let mut push = |resource| {
            let operation = Operation { action: self.others, resource, effect: self.effect };
            if !named.also.contains(&operation) {
                named.also.push(operation);
            }
        };
        if machines.is_empty() {
            push(Resource::Hypervisor(self.hypervisor.clone()));
        }
        for machine in machines {
            push(Resource::Machine(MachineRef { hypervisor: self.hypervisor.clone(), machine: machine.clone() }));
        }
        if named.also.len() > MAX_MACHINES { Err("That names too much at once.".into()) } else { Ok(None) }
    }
}

#[cfg(test)]
mod tests;
