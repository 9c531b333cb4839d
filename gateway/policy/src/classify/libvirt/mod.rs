// SPDX-License-Identifier: Apache-2.0
//! libvirt's RPC: what a call asks, told from its procedure and its arguments, and what of an answer or an event somebody
//! may see. One reviewed table (`policies/classify/libvirt.toml`) over one list of procedures; what is in neither, and
//! whatever does not have its form to the last byte, is denied.

mod back;
mod document;
mod file;
mod shape;

use super::{
    Answer, Verdict,
    xdr::{Broken, Writer},
};
use crate::{Error, Kind};
pub use back::{going_back, going_on, is_same};
use document::{Read, Wish, is_plain_uri};
pub use file::Way;
use file::{Document, File, Flags, Object, Row, RowEffect};
use portcullis_domain::{Action, Effect, HypervisorName, Inventory, MachineId, MachineRef, Operation, Resource};
use shape::{Holds, Number, PROGRAMS, Piece, Said, Shapes};
use std::{collections::BTreeMap, sync::LazyLock};
use uuid::Uuid;

const TABLE: &str = include_str!("../../../../../policies/classify/libvirt.toml");
const LIST: &str = include_str!("../../../../../policies/classify/libvirt-procedures.txt");

/// Most machines that one call may name.
const MAX_MACHINES: usize = 500;

/// What is known where a call is classified.
#[derive(Debug, Clone, Copy)]
pub struct Place<'a> {
    /// The hypervisor.
    pub hypervisor: &'a HypervisorName,
    /// Its machines.
    pub inventory: &'a Inventory,
    /// The XML namespace of the labels that grants speak of.
    pub labels: &'a str,
}

/// What a call asks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Call {
    /// What must be decided.
    pub verdict: Verdict,
    /// How it is answered.
    pub way: Way,
    /// Its name.
    pub name: String,
    /// Its number argument that the gateway itself reads: a feature, or the most entries of a list.
    pub number: u32,
    /// Bits of its flags that ask for passwords: its answer goes out only where it is the same without them.
    pub secrets: u32,
    /// The text that the gateway itself reads: the address of what is to be opened, or the name of a snapshot.
    pub text: Option<String>,
}

/// What an event is about.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum About {
    /// A machine.
    Machine(MachineRef),
    /// The hypervisor, or something of it that is no machine.
    Hypervisor,
    /// The connection: nobody else learns anything by it.
    Connection,
}

/// What is left of an answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Left {
    /// The answer.
    Bytes(Vec<u8>),
    /// It is about a machine that the person may not see.
    Nothing,
}

/// What one rule says.
#[derive(Debug, Clone)]
enum Meaning {
    Deny(String),
    Own,
    Ask(Ask),
}

#[derive(Debug, Clone)]
struct Ask {
    action: Action,
    object: Object,
    effect: Effect,
    /// Bits that `flags` may have.
    flags: u32,
    raise: Vec<(u32, Action)>,
    secrets: u32,
    unless: u32,
    needs: u32,
    also: Vec<Action>,
    paths: Vec<String>,
    documents: Vec<(String, Document)>,
    labels: Option<String>,
}

/// One procedure for tests and reviews.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Known {
    /// Its name, with its program where that is not the usual one.
    pub name: String,
    /// The program and the number.
    pub number: (u32, u32),
    /// What it asks; none when it is never passed on, answered by the gateway itself, or an event.
    pub action: Option<Action>,
    /// Whether it can change something.
    pub effect: Effect,
    /// Its verdict in words.
    pub verdict: &'static str,
}

/// The table. Read once.
#[derive(Debug, Default)]
pub struct Procedures {
    shapes: Shapes,
    calls: BTreeMap<Number, (Meaning, Way)>,
    own_events: Vec<Number>,
    no_events: Vec<Number>,
}

static BUILTIN: LazyLock<Procedures> = LazyLock::new(|| {
    Procedures::read(TABLE, LIST).unwrap_or_else(|error| {
        // A test reads it, so this is a broken build. An empty table denies everything.
        tracing::error!(%error, "the table of libvirt's procedures is wrong: every call is denied");
        Procedures::default()
    })
});

impl Procedures {
    /// The table that comes with the gateway.
    pub fn builtin() -> &'static Self {
        &BUILTIN
    }

    /// Reads a table over a list of procedures. Refuses the whole of it when anything in it is wrong, or when a
    /// procedure has no verdict.
    pub fn read(table: &str, list: &str) -> Result<Self, Error> {
        let file: File = toml::from_str(table).map_err(|e| Error::Table(e.to_string()))?;
        let File { api, events, rule } = file;
        let wrong = |why: String| Error::Table(format!("{api}: {why}"));
        let shapes = Shapes::read(list).map_err(wrong)?;
        let mut all = Self { shapes, ..Self::default() };
        for row in &rule {
            all.add(row).map_err(|e| wrong(format!("{}: {e}", row.calls.first().map_or("", String::as_str))))?;
        }
        for (names, into) in [(&events.own, &mut all.own_events), (&events.never, &mut all.no_events)] {
            for name in names {
                let found = all.shapes.procedures.iter().find(|(_, p)| p.name == *name);
                let found = found.filter(|(_, p)| matches!(p.holds, Holds::Event(_)));
                into.push(*found.ok_or_else(|| wrong(format!("{name} is no event")))?.0);
            }
        }
        let missing = all.shapes.procedures.iter().find(|(number, procedure)| {
            matches!(procedure.holds, Holds::Call { .. }) && !all.calls.contains_key(number)
        });
        match missing {
            Some((_, procedure)) => Err(wrong(format!("{} has no verdict", procedure.name))),
            None => Ok(all),
        }
    }

    fn add(&mut self, row: &Row) -> Result<(), String> {
        let meaning = meaning(row)?;
        let mut unused: Vec<&str> = row.paths.iter().chain(row.document.keys()).map(String::as_str).collect();
        unused.extend(row.labels.as_deref());
        for name in &row.calls {
            let found = self.shapes.procedures.iter().find(|(_, p)| p.name == *name);
            let (number, procedure) = found.ok_or_else(|| format!("{name} is no procedure"))?;
            let Holds::Call { arguments, .. } = &procedure.holds else { return Err(format!("{name} is an event")) };
            let has = |argument: &str| arguments.iter().any(|(n, _)| n == argument);
            unused.retain(|argument| !has(argument));
            if let Meaning::Ask(ask) = &meaning {
                let machines = self.shapes.machines(arguments);
                match ask.object {
                    Object::Machine if machines != Some(1) => return Err(format!("{name} does not name one machine")),
                    Object::Hypervisor if machines != Some(0) => return Err(format!("{name} names a machine")),
                    _ => {}
                }
                if has("flags") && row.flags.is_none() {
                    return Err(format!("{name} has flags, and the rule says nothing about them"));
                }
            }
            if self.calls.insert(*number, (meaning.clone(), row.way)).is_some() {
                return Err(format!("{name} stands there twice"));
            }
        }
        if unused.is_empty() { Ok(()) } else { Err(format!("no call has an argument {unused:?}")) }
    }

    /// What a call asks. What has no verdict is denied.
    pub fn classify(&self, place: Place<'_>, program: u32, number: u32, arguments: &[u8]) -> Call {
        let key = (program, number);
        let denied = |why: String| Verdict::Denied(why.into());
        let (Some(procedure), Some((meaning, way))) = (self.shapes.procedures.get(&key), self.calls.get(&key)) else {
            let known = PROGRAMS.iter().any(|(_, p)| *p == program);
            let name = if known { format!("procedure {number}") } else { "a program of its own".to_owned() };
            let why = format!("The gateway does not know {name}, so it is not passed on.");
            return Call { verdict: denied(why), way: Way::Pass, name, number: 0, secrets: 0, text: None };
        };
        let mut call = Call {
            verdict: Verdict::Unread,
            way: *way,
            name: procedure.name.clone(),
            number: 0,
            secrets: 0,
            text: None,
        };
        let Holds::Call { arguments: fields, .. } = &procedure.holds else {
            call.verdict = denied("An event is no call.".into());
            return call;
        };
        let said = match self.shapes.say(fields, arguments) {
            Ok(said) => said,
            Err(broken) => {
                call.verdict = denied(format!("The call's arguments cannot be read: {broken}."));
                return call;
            }
        };
        if way.reads() {
            call.number = said.words.first().and_then(|(_, w)| u32::try_from(*w).ok()).unwrap_or(0);
            call.text = said.texts.first().and_then(|(_, t)| *t).or(said.name).map(str::to_owned);
        }
        if let Meaning::Ask(ask) = meaning {
            let flags = said.word("flags").and_then(|flags| u32::try_from(flags).ok()).unwrap_or(0);
            call.secrets = flags & ask.unless;
        }
        call.verdict = match meaning {
            Meaning::Deny(why) => denied(why.clone()),
            // Of the connection itself: nothing has to be decided.
            Meaning::Own => Verdict::Unread,
            Meaning::Ask(ask) => ask.verdict(place, &said).unwrap_or_else(|why| denied(why.to_owned())),
        };
        call
    }

    /// What an event is about; none when it is never passed on.
    pub fn about(&self, hypervisor: &HypervisorName, program: u32, number: u32, payload: &[u8]) -> Option<About> {
        let key = (program, number);
        let Holds::Event(fields) = &self.shapes.procedures.get(&key)?.holds else { return None };
        let said = self.shapes.say(fields, payload).ok()?;
        if self.no_events.contains(&key) {
            return None;
        }
        match (said.domains.as_slice(), self.own_events.contains(&key)) {
            ([], true) => Some(About::Connection),
            ([], false) => Some(About::Hypervisor),
            ([domain], false) => Some(About::Machine(machine(hypervisor, *domain)?)),
            _ => None,
        }
    }

    /// Leaves out of the answer to a call what somebody may not see.
    pub fn keep(
        &self,
        (program, number): (u32, u32),
        answer: &[u8],
        sees: impl Fn(&Uuid) -> bool,
    ) -> Result<Left, Broken> {
        let procedure = self.shapes.procedures.get(&(program, number)).ok_or(Broken("it answers nothing"))?;
        let Holds::Call { results, .. } = &procedure.holds else { return Err(Broken("it answers nothing")) };
        let sees = |domain: &Option<Uuid>| domain.as_ref().is_none_or(&sees);
        let (mut left, mut count) = (Writer::default(), None);
        for piece in self.shapes.pieces(results, answer)? {
            match piece {
                Piece::List(entries) => {
                    let kept: Vec<_> = entries.into_iter().filter(|(_, domain)| sees(domain)).collect();
                    let many = u32::try_from(kept.len()).unwrap_or(u32::MAX);
                    count = Some(many);
                    left = left.word(many);
                    for (range, _) in kept {
                        left = left.raw(answer.get(range).unwrap_or_default());
                    }
                }
                Piece::Count(range) => {
                    left = match count {
                        Some(many) => left.word(many),
                        None => left.raw(answer.get(range).unwrap_or_default()),
                    };
                }
                Piece::One(_, domain) if !sees(&domain) => return Ok(Left::Nothing),
                Piece::One(range, _) => left = left.raw(answer.get(range).unwrap_or_default()),
            }
        }
        Ok(Left::Bytes(left.done()))
    }

    /// Every procedure, with its verdict.
    pub fn known(&self) -> impl Iterator<Item = Known> {
        self.shapes.procedures.iter().map(|(number, procedure)| {
            let (action, effect, verdict) = match (&procedure.holds, self.calls.get(number)) {
                (Holds::Event(_), _) if self.no_events.contains(number) => (None, Effect::Safe, "never"),
                (Holds::Event(_), _) if self.own_events.contains(number) => (None, Effect::Safe, "connection"),
                (Holds::Event(_), _) => (None, Effect::Safe, "event"),
                (Holds::Call { .. }, Some((Meaning::Deny(_), _))) => (None, Effect::Unsafe, "denied"),
                (Holds::Call { .. }, Some((Meaning::Own, _))) => (None, Effect::Unsafe, "own"),
                (Holds::Call { .. }, Some((Meaning::Ask(ask), _))) => (Some(ask.action), ask.effect, "asked"),
                (Holds::Call { .. }, None) => (None, Effect::Unsafe, "missing"),
            };
            Known { name: procedure.name.clone(), number: *number, action, effect, verdict }
        })
    }
}

/// What a row says, if it says something sensible.
fn meaning(row: &Row) -> Result<Meaning, String> {
    let says = row.action.is_some() || row.object.is_some() || row.effect.is_some() || row.flags.is_some();
    if let Some(why) = &row.deny {
        return if says || why.is_empty() || row.way != Way::Pass {
            Err("a rule with deny says why, and nothing else".to_owned())
        } else {
            Ok(Meaning::Deny(why.clone()))
        };
    }
    if matches!(row.way, Way::SignIn | Way::Close) {
        return if says { Err("the gateway answers it, and nothing is asked".to_owned()) } else { Ok(Meaning::Own) };
    }
    let (Some(action), Some(object), Some(effect)) = (&row.action, row.object, row.effect) else {
        return Err("action, object and effect are needed".to_owned());
    };
    let parse = |text: &String| text.parse::<Action>().map_err(|e| e.to_string());
    let action = parse(action)?;
    let kind = if object == Object::Machine { Kind::Machine } else { Kind::Hypervisor };
    if !kind.answers(action) {
        return Err(format!("{action} cannot be asked of a {kind}"));
    }
    let effect = if effect == RowEffect::Safe { Effect::Safe } else { Effect::Unsafe };
    if object == Object::Visible && (action != Action::View || effect != Effect::Safe) {
        return Err("what somebody may see is a safe view".to_owned());
    }
    if row.way.is_stream() && effect == Effect::Safe {
        return Err("a stream is not safe".to_owned());
    }
    let filters = matches!(
        row.way,
        Way::Rows | Way::List | Way::ActiveIds | Way::InactiveNames | Way::CountActive | Way::CountInactive
    );
    if filters && object != Object::Visible {
        return Err("machines are left out for those who may see a part".to_owned());
    }
    let flags = match &row.flags {
        None => 0,
        Some(Flags::Bits(bits)) => *bits,
        Some(Flags::Word(word)) if word == "any" && effect == Effect::Safe => u32::MAX,
        Some(Flags::Word(_)) => return Err("flags are bits, or any where nothing changes".to_owned()),
    };
    if (row.secrets | row.unless) & flags != 0 || row.secrets & row.unless != 0 {
        return Err("what asks for passwords is no flag like others".to_owned());
    }
    if (row.unless != 0) != (row.way == Way::Description) {
        return Err("what is passed on where there are no passwords is a description".to_owned());
    }
    let raise: Vec<_> = row.raise.iter().map(|r| Ok((r.bits, parse(&r.action)?))).collect::<Result<_, String>>()?;
    if raise.iter().any(|(bits, action)| bits & flags != *bits || !Kind::Machine.answers(*action)) {
        return Err("what asks for more is a flag of the call, and is asked of its machine".to_owned());
    }
    let also: Vec<_> = row.also.iter().map(parse).collect::<Result<_, String>>()?;
    if also.iter().any(|action| !Kind::Hypervisor.answers(*action)) {
        return Err("what is asked as well is asked of the hypervisor".to_owned());
    }
    let documents: Vec<_> = row.document.iter().map(|(name, kind)| (name.clone(), *kind)).collect();
    let (raises, labels) = (!raise.is_empty(), row.labels.clone());
    if (raises || labels.is_some()) && object != Object::Machine {
        return Err("flags and labels that ask for more are a machine's".to_owned());
    }
    let (secrets, unless, needs, paths) = (row.secrets, row.unless, row.needs, row.paths.clone());
    Ok(Meaning::Ask(Ask {
        action,
        object,
        effect,
        flags,
        raise,
        secrets,
        unless,
        needs,
        also,
        paths,
        documents,
        labels,
    }))
}

impl Ask {
    fn verdict(&self, place: Place<'_>, said: &Said<'_>) -> Result<Verdict, &'static str> {
        let whole = || Resource::Hypervisor(place.hypervisor.clone());
        let mut also: Vec<(Action, Resource)> = self.also.iter().map(|action| (*action, whole())).collect();
        let mut action = self.action;
        let flags = said.word("flags").unwrap_or(0);
        let mut resource = match (self.object, said.domains.as_slice()) {
            (Object::Machine, [domain]) => {
                Resource::Machine(machine(place.hypervisor, *domain).ok_or("That is no machine.")?)
            }
            (Object::Hypervisor, []) => whole(),
            (Object::Visible, []) => {
                let answer = Answer::Pass;
                self.check(flags)?;
                self.paths(said, &mut also, &whole);
                return if also.is_empty() {
                    Ok(Verdict::Visible { hypervisor: place.hypervisor.clone(), answer })
                } else {
                    Err("The gateway does not know what that asks.")
                };
            }
            (Object::Visible, domains) if domains.len() <= MAX_MACHINES => {
                let of = |domain: &Uuid| machine(place.hypervisor, *domain).map(|at| at.machine);
                let all: Option<Vec<MachineId>> = domains.iter().map(of).collect();
                let mut all = all.ok_or("That is no machine.")?;
                all.sort();
                all.dedup();
                match all.as_slice() {
                    [one] => {
                        Resource::Machine(MachineRef { hypervisor: place.hypervisor.clone(), machine: one.clone() })
                    }
                    _ => Resource::Machines(place.hypervisor.clone(), all),
                }
            }
            _ => return Err("That names more machines than the gateway decides on at once."),
        };
        self.check(flags)?;
        for (bits, more) in &self.raise {
            if flags & u64::from(*bits) != 0 {
                also.push((*more, resource.clone()));
            }
        }
        self.paths(said, &mut also, &whole);
        if let Some(labels) = &self.labels
            && said.text(labels).is_some_and(|uri| uri == place.labels || !is_plain_uri(uri))
        {
            also.push((Action::AccessAdmin, whole()));
        }
        for (name, kind) in &self.documents {
            let Some(text) = said.text(name) else { continue };
            let mut read = Read::of(*kind, text, place.labels)?;
            if matches!(kind, Document::Machine | Document::Start | Document::Domain) {
                let at = match (&resource, read.uuid) {
                    (Resource::Machine(at), _) => Some(at.clone()),
                    (_, Some(uuid)) => machine(place.hypervisor, uuid),
                    (_, None) => None,
                };
                let known = at.as_ref().and_then(|at| place.inventory.find(at));
                read.hold_against(known);
                match (kind, at, known) {
                    // A machine that is there already is changed, not made.
                    (Document::Machine, Some(at), Some(_)) => {
                        (action, resource) = (Action::Configure, Resource::Machine(at));
                    }
                    // What runs in the place of one that is there changes it, too.
                    (Document::Start, Some(at), Some(_)) => {
                        let machine = || Resource::Machine(at.clone());
                        also.extend([(Action::Configure, machine()), (Action::Power, machine())]);
                    }
                    _ => {}
                }
            }
            let wishes = read.asks.iter().map(|wish: &Wish| (wish.action(), whole()));
            also.extend(wishes);
        }
        let of = |(action, resource)| Operation { action, resource, effect: self.effect };
        let mut others: Vec<Operation> = also.into_iter().map(of).collect();
        others.dedup();
        Ok(Verdict::Operation { operation: of((action, resource)), also: others, answer: Answer::Pass })
    }

    /// Flags are what the table says they may be, or it is not known what they do.
    fn check(&self, flags: u64) -> Result<(), &'static str> {
        if flags & u64::from(self.secrets) != 0 {
            return Err("The gateway gives no passwords of machines to anybody. Ask without them.");
        }
        if flags & !u64::from(self.flags | self.unless) != 0 {
            return Err("The gateway does not pass on a flag of this call.");
        }
        if flags & u64::from(self.needs) != u64::from(self.needs) {
            return Err("Only a peer-to-peer migration goes through the gateway: migrate with --p2p.");
        }
        Ok(())
    }

    /// What names something of the host is for who may change the host.
    fn paths(&self, said: &Said<'_>, also: &mut Vec<(Action, Resource)>, whole: &impl Fn() -> Resource) {
        if self.paths.iter().any(|name| said.text(name).is_some_and(|path| !path.is_empty())) {
            also.push((Action::NodeAdmin, whole()));
        }
    }
}

/// The machine of an id, as the inventory calls it.
fn machine(hypervisor: &HypervisorName, domain: Uuid) -> Option<MachineRef> {
    let machine = domain.to_string().parse().ok()?;
    Some(MachineRef { hypervisor: hypervisor.clone(), machine })
}

#[cfg(test)]
mod tests;
