// SPDX-License-Identifier: Apache-2.0
//! Answers for somebody who may see some of the machines: references, records and events of their own machines, and of
//! the pool and the hosts below them no more than the name. What names nothing known is left out.

use super::{objects::Index, text};
use crate::{error::Fault, fleet::Seen};
use portcullis_policy::classify::{
    Back, Methods, Objects as _, Owner, reference,
    rpc::{Caller, Reply, Value},
};
use std::borrow::Cow;
use uuid::Uuid;

/// Classes whose things nobody sees in events: they hold the pool's own secrets, or who may do what in it. Their own
/// calls ask for more than `view`.
const HIDDEN: [&str; 6] = ["session", "secret", "pbd", "subject", "user", "role"];

/// For whom an answer is cut down.
pub(crate) struct Keeping<'a> {
    pub(crate) index: &'a Index,
    pub(crate) methods: &'a Methods,
    /// The machines that they may see; none when they may see everything.
    pub(crate) seen: Option<&'a Seen<'a>>,
    /// What was looked for by what it is called.
    pub(crate) by: Option<&'a str>,
    /// Whether they began a task.
    pub(crate) began: &'a (dyn Fn(&str) -> bool + Sync),
}

/// What is left of an answer.
pub(crate) struct Kept {
    pub(crate) body: Vec<u8>,
    /// It may hold more in a moment: it named something that is not known yet, or what was looked for is not there.
    pub(crate) may_change: bool,
}

/// What the pool says where nothing has a uuid.
const ABSENT: &str = "UUID_INVALID";

/// Whether something is for the person.
enum Look {
    Yes,
    /// Its names are.
    Names,
    No,
    Unknown,
}

/// Cuts an answer down.
pub(crate) fn keep(answer: &[u8], to: &Caller, back: Back, keeping: &Keeping<'_>) -> Result<Kept, Fault> {
    let wrong = || Fault::Protocol("an answer of another shape".to_owned());
    let reply = Reply::read(to.wire, answer).ok_or_else(wrong)?;
    let mut has_unknown = false;
    // What is not there and what is hidden are one answer.
    let nothing = |class: &'static str| {
        Reply::Failed(vec![ABSENT.into(), class.into(), keeping.by.unwrap_or_default().to_owned().into()])
    };
    let mut is_found = true;
    let shown = match (back, reply) {
        (Back::Rows(class), Reply::Failed(why)) if why.first().is_some_and(|code| code == ABSENT) => {
            is_found = false;
            nothing(class)
        }
        (_, failed @ Reply::Failed(_)) => failed,
        (Back::Events, Reply::Done(batch)) => Reply::Done(keeping.events(batch, &mut has_unknown).ok_or_else(wrong)?),
        (Back::Rows(class), Reply::Done(Value::Text(one))) => match keeping.look(class, &one) {
            Look::Yes | Look::Names => Reply::Done(Value::Text(one)),
            Look::No | Look::Unknown => {
                is_found = false;
                nothing(class)
            }
        },
        (Back::Rows(class), Reply::Done(rows)) => {
            let rows = keeping.rows(class, rows, &mut has_unknown).ok_or_else(wrong)?;
            is_found = !matches!(&rows, Value::List(all) if all.is_empty());
            Reply::Done(rows)
        }
        (Back::Record(class), Reply::Done(mut record)) => {
            keeping.names_only(class, &mut record).ok_or_else(wrong)?;
            Reply::Done(record)
        }
        (Back::Whole | Back::Task, whole) => whole,
    };
    let may_change = if keeping.by.is_some() { !is_found } else { has_unknown };
    Ok(Kept { body: shown.write(to), may_change })
}

impl Keeping<'_> {
    fn look(&self, class: &str, named: &str) -> Look {
        let Some(seen) = self.seen else { return Look::Yes };
        let Some(id) = reference(named) else { return Look::No };
        let may = |machines: &[portcullis_domain::MachineId]| {
            !machines.is_empty() && machines.iter().all(|m| seen.machines.contains(m.as_str()))
        };
        match class {
            "task" if (self.began)(&id.to_string()) => Look::Yes,
            "pool" => Look::Names,
            "host" if self.index.on(id).iter().any(|m| seen.machines.contains(m.as_str())) => Look::Names,
            "task" | "host" => Look::No,
            _ => match self.index.owner(class, id) {
                Some(Owner::Machines(machines)) if may(machines) => Look::Yes,
                Some(_) => Look::No,
                None => Look::Unknown,
            },
        }
    }

    fn names_only(&self, class: &str, record: &mut Value<'_>) -> Option<()> {
        if self.seen.is_none() {
            return Some(());
        }
        let (Value::Map(members), Some(names)) = (record, self.methods.names(class)) else { return None };
        let emptied = self.methods.emptied(class);
        members.retain_mut(|(name, value)| {
            if let Value::Map(all) = value
                && emptied.iter().any(|n| n == name)
            {
                all.clear();
                return true;
            }
            names.iter().any(|n| n == name)
        });
        Some(())
    }

    fn rows<'v>(&self, class: &str, rows: Value<'v>, has_unknown: &mut bool) -> Option<Value<'v>> {
        let mut look = |named: &str| {
            let look = self.look(class, named);
            *has_unknown |= matches!(look, Look::Unknown);
            look
        };
        match rows {
            Value::List(all) => {
                let mut kept = Vec::with_capacity(all.len());
                for row in all {
                    if matches!(look(row.text()?), Look::Yes | Look::Names) {
                        kept.push(row);
                    }
                }
                Some(Value::List(kept))
            }
            Value::Map(all) => {
                let mut kept: Vec<(Cow<'v, str>, Value<'v>)> = Vec::new();
                for (named, mut record) in all {
                    match look(&named) {
                        Look::Yes => {}
                        Look::Names => self.names_only(class, &mut record)?,
                        Look::No | Look::Unknown => continue,
                    }
                    kept.push((named, record));
                }
                Some(Value::Map(kept))
            }
            _ => None,
        }
    }

    fn events<'v>(&self, batch: Value<'v>, has_unknown: &mut bool) -> Option<Value<'v>> {
        let Value::Map(members) = batch else { return None };
        let (mut token, mut events) = (None, None);
        let mut counts = None;
        for (name, value) in members {
            match (&*name, value) {
                ("token", value @ Value::Text(_)) => token = Some(value),
                ("events", Value::List(all)) => events = Some(all),
                ("valid_ref_counts", value) => counts = Some(value),
                _ => {}
            }
        }
        let mut kept = Vec::new();
        for event in events? {
            kept.extend(self.event(event, has_unknown));
        }
        // How much there is of everything is for those who may see everything.
        let counts = counts.filter(|_| self.seen.is_none()).unwrap_or(Value::Map(Vec::new()));
        let members = [("events", Value::List(kept)), ("valid_ref_counts", counts), ("token", token?)];
        Some(Value::Map(members.into_iter().map(|(name, value)| (name.into(), value)).collect()))
    }

    fn event<'v>(&self, mut event: Value<'v>, has_unknown: &mut bool) -> Option<Value<'v>> {
        let class = text(&event, "class")?.to_owned();
        if HIDDEN.iter().any(|h| class.eq_ignore_ascii_case(h)) {
            return None;
        }
        if self.seen.is_none() {
            return Some(event);
        }
        let id = text(&event, "ref")?;
        // Classes come in small letters here.
        let known = reference(id).and_then(|id| self.index.class_of(id)).filter(|c| c.eq_ignore_ascii_case(&class));
        let look = self.look(known.unwrap_or(&class), id);
        match look {
            Look::Yes => Some(event),
            Look::Names => {
                let Value::Map(members) = &mut event else { return None };
                if let Some((_, snapshot)) = members.iter_mut().find(|(name, _)| name == "snapshot") {
                    self.names_only(&class, snapshot)?;
                }
                Some(event)
            }
            Look::No => None,
            Look::Unknown => {
                // What is gone is not known any more; only what came may be known in a moment.
                *has_unknown |= text(&event, "operation") != Some("del") && self.index.is_followed(&class);
                None
            }
        }
    }
}

/// The task that an answer names.
pub(crate) fn task(answer: &[u8], to: &Caller) -> Option<String> {
    match Reply::read(to.wire, answer)? {
        Reply::Done(Value::Text(text)) => reference(&text).map(|id: Uuid| id.to_string()),
        _ => None,
    }
}
