// SPDX-License-Identifier: Apache-2.0
//! Secrets in a hypervisor's answers, kept here and exchanged for ones that the gateway minted.
//!
//! LXD answers a console or exec request with one secret a channel; whoever has it gets the screen. The client gets a
//! 256-bit value of ours instead, which is good for the same person, the same operation and the same channel, within
//! 30 seconds, once:
//!
//! ```text
//! answer of LXD --exchange--> minted, waiting --redeem--> spent (real secret goes upstream once)
//!                                     \--30 s--> forgotten
//! ```
//!
//! The table is in memory and bounded; only the SHA-256 of a minted value is kept.

use crate::error::{Error, Fault};
use aws_lc_rs::{
    digest,
    rand::{SecureRandom, SystemRandom},
};
use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use portcullis_domain::{Actor, Clock, HypervisorName, MachineRef, Operation, Resource, Secret, UserId};
use portcullis_policy::{Permit, classify::Task};
use serde_json::Value;
use std::{
    collections::{HashMap, VecDeque},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};
use time::{Duration, OffsetDateTime};
use uuid::Uuid;

/// The largest answer that may carry channel secrets, bytes.
pub const MAX_ANSWER: usize = 64 * 1024;
/// The largest JSON text that is searched for secrets, bytes.
pub const MAX_STRIPPED: usize = 4 * 1024 * 1024;
const MAX_CHANNELS: usize = 10_000;
const MAX_CHANNELS_OF_USER: usize = 200;
const MAX_CHANNELS_OF_ANSWER: usize = 16;
const MAX_TASKS: usize = 50_000;
const UNUSED: Duration = Duration::seconds(30);
const LIVE: Duration = Duration::hours(12);

/// How often a channel's secret may be used.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Reuse {
    /// Once: text consoles and exec.
    Once,
    /// Again and again for 12 hours after the first use, the control channel apart: each SPICE channel of a VGA console
    /// opens the same secret once more.
    WhileLive,
}

/// What a minted secret stands for.
pub(crate) struct Redeemed {
    /// The hypervisor's own secret. Only for the request upstream.
    pub(crate) secret: Secret,
}

/// A task of a hypervisor that was started through the gateway.
#[derive(Debug, Clone)]
pub struct TaskOwner {
    /// Who started it.
    pub user: UserId,
    /// By asking what.
    pub operation: Operation,
}

struct Channel {
    user: UserId,
    machine: MachineRef,
    began: Operation,
    task: Uuid,
    secret: Secret,
    reuse: Reuse,
    expires_at: OffsetDateTime,
}

impl Channel {
    fn is_good(&self, user: UserId, hypervisor: &HypervisorName, task: &str, now: OffsetDateTime) -> bool {
        let is_same_task = Uuid::try_parse(task).is_ok_and(|t| t == self.task);
        self.user == user && self.machine.hypervisor == *hypervisor && is_same_task && self.expires_at > now
    }
}

#[derive(Default)]
struct Tables {
    channels: HashMap<[u8; 32], Channel>,
    tasks: HashMap<(HypervisorName, String), TaskOwner>,
    order: VecDeque<(HypervisorName, String)>,
}

/// Keeps hypervisors' secrets on this side. Cheap to clone; clones share the tables.
#[derive(Clone)]
pub struct Broker {
    tables: Arc<Mutex<Tables>>,
    clock: Arc<dyn Clock>,
}

impl Broker {
    /// An empty broker.
    pub(crate) fn new(clock: Arc<dyn Clock>) -> Self {
        Self { tables: Arc::default(), clock }
    }

    fn tables(&self) -> MutexGuard<'_, Tables> {
        self.tables.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Replaces the channel secrets (`metadata.metadata.fds`) of an answer of at most 64 KiB by minted ones, for the
    /// permit's person and machine only, and removes every other secret from it. An answer without channels passes
    /// with its secrets removed.
    pub(crate) fn exchange(&self, permit: &Permit, reuse: Reuse, answer: &[u8]) -> Result<Vec<u8>, Error> {
        let (user, began) = (permit.user(), permit.operation());
        let Resource::Machine(machine) = &began.resource else { return Err(Error::WrongPermit(began.to_string())) };
        let wrong = |why: &str| Fault::Protocol(why.to_owned()).at(&machine.hypervisor);
        if answer.len() > MAX_ANSWER {
            return Err(wrong("an answer with channel secrets larger than 64 KiB"));
        }
        let mut json: Value = serde_json::from_slice(answer).map_err(|_| wrong("an answer that is no JSON"))?;
        let channels = json.pointer_mut("/metadata/metadata/fds").map(Value::take);
        let task = json.pointer("/metadata/id").and_then(Value::as_str).and_then(|t| Uuid::try_parse(t).ok());
        strip(&mut json);
        let Some(channels) = channels else {
            return Ok(json.to_string().into_bytes());
        };
        let Value::Object(mut channels) = channels else { return Err(wrong("channel secrets that are no table")) };
        let id = task.ok_or_else(|| wrong("channel secrets without an operation"))?;
        if channels.len() > MAX_CHANNELS_OF_ANSWER {
            return Err(wrong("too many channels"));
        }
        let now = self.clock.now();
        let mut tables = self.tables();
        tables.channels.retain(|_, c| c.expires_at > now);
        let of_user = tables.channels.values().filter(|c| c.user == user).count();
        if tables.channels.len() + channels.len() > MAX_CHANNELS || of_user + channels.len() > MAX_CHANNELS_OF_USER {
            return Err(Error::Busy("too many consoles are being opened; try again in half a minute".to_owned()));
        }
        for (name, value) in &mut channels {
            let Some(secret) = value.as_str() else { return Err(wrong("a channel secret that is no text")) };
            let (text, hash) = mint().ok_or_else(|| Error::Busy("the system gives no random numbers".to_owned()))?;
            let channel = Channel {
                user,
                machine: machine.clone(),
                began: began.clone(),
                task: id,
                secret: Secret::from(secret.to_owned()),
                reuse: if name == "control" { Reuse::Once } else { reuse },
                expires_at: now + UNUSED,
            };
            tables.channels.insert(hash, channel);
            *value = Value::String(text);
        }
        drop(tables);
        if let Some(Value::Object(inner)) = json.pointer_mut("/metadata/metadata") {
            inner.insert("fds".to_owned(), Value::Object(channels));
        }
        Ok(json.to_string().into_bytes())
    }

    /// The real secret for a minted one, if it is this user's, for this operation of this hypervisor, and neither spent
    /// nor older than 30 seconds. Which of these failed is not told.
    pub(crate) fn redeem(
        &self,
        user: UserId,
        hypervisor: &HypervisorName,
        task: &str,
        minted: &str,
    ) -> Option<Redeemed> {
        let hash = hash(minted.as_bytes())?;
        let now = self.clock.now();
        let mut tables = self.tables();
        let found = tables.channels.get_mut(&hash)?;
        if !found.is_good(user, hypervisor, task, now) {
            return None;
        }
        if found.reuse == Reuse::WhileLive {
            found.expires_at = now + LIVE;
            return Some(Redeemed { secret: found.secret.clone() });
        }
        tables.channels.remove(&hash).map(|found| Redeemed { secret: found.secret })
    }

    /// The machine that a minted secret is for, and the operation that began its task, without spending it.
    pub(crate) fn look(
        &self,
        user: UserId,
        hypervisor: &HypervisorName,
        task: &str,
        minted: &str,
    ) -> Option<(MachineRef, Operation)> {
        let hash = hash(minted.as_bytes())?;
        let now = self.clock.now();
        let tables = self.tables();
        let found = tables.channels.get(&hash).filter(|c| c.is_good(user, hypervisor, task, now))?;
        Some((found.machine.clone(), found.began.clone()))
    }

    /// What following a task is, for the person who started it through this gateway: the asked action on what the task
    /// touches; for one of its channels, the action that began it. None for everybody else, and for a task that is not
    /// known.
    pub fn resolve(&self, task: &Task, actor: &Actor) -> Option<Operation> {
        let (action, resource) = if let Some(minted) = &task.secret {
            let (machine, began) = self.look(actor.user, &task.hypervisor, &task.id, minted)?;
            (began.action, Resource::Machine(machine))
        } else {
            let owner = self.owner(&task.hypervisor, &task.id).filter(|o| o.user == actor.user)?;
            (task.action, owner.operation.resource)
        };
        Some(Operation { action, resource, effect: task.effect })
    }

    /// Removes the secrets from an answer; see [`strip_secrets`].
    pub fn strip(&self, permit: &Permit, answer: &[u8]) -> Result<Vec<u8>, Error> {
        let operation = permit.operation();
        let name = operation.resource.hypervisor().ok_or_else(|| Error::WrongPermit(operation.to_string()))?;
        strip_secrets(answer).map_err(|f| f.at(name))
    }

    /// Forgets every channel of a person: signed out, locked, disabled.
    pub fn forget(&self, user: UserId) {
        self.tables().channels.retain(|_, c| c.user != user);
    }

    /// Forgets everything of a hypervisor that was let go: another one may come under its name.
    pub(crate) fn forget_hypervisor(&self, hypervisor: &HypervisorName) {
        let mut tables = self.tables();
        tables.channels.retain(|_, c| c.machine.hypervisor != *hypervisor);
        tables.tasks.retain(|(h, _), _| h != hypervisor);
        tables.order.retain(|(h, _)| h != hypervisor);
    }

    /// Remembers who started a task, by the address that the hypervisor gave it (`/1.0/operations/<id>`, as in
    /// `Location`) or its bare id: a UUID, `UPID:…`, or `task:…`. Of 50,000 the oldest is dropped.
    pub fn remember(&self, hypervisor: &HypervisorName, task: &str, owner: TaskOwner) {
        let Some(id) = task_id(task) else { return };
        let mut tables = self.tables();
        let key = (hypervisor.clone(), id);
        if tables.tasks.insert(key.clone(), owner).is_none() {
            tables.order.push_back(key);
        }
        if tables.order.len() > MAX_TASKS
            && let Some(oldest) = tables.order.pop_front()
        {
            tables.tasks.remove(&oldest);
        }
    }

    /// The tasks that somebody started through this gateway.
    pub(crate) fn tasks(&self, hypervisor: &HypervisorName, user: UserId) -> Vec<String> {
        let tables = self.tables();
        let own = tables.tasks.iter().filter(|((h, _), owner)| h == hypervisor && owner.user == user);
        own.map(|((_, id), _)| id.clone()).collect()
    }

    /// Who started a task, if it was started through this gateway since it began to run.
    pub fn owner(&self, hypervisor: &HypervisorName, task: &str) -> Option<TaskOwner> {
        self.tables().tasks.get(&(hypervisor.clone(), task_id(task)?)).cloned()
    }
}

fn task_id(text: &str) -> Option<String> {
    if (text.starts_with("UPID:") || text.starts_with("task:")) && text.len() <= 256 {
        return Some(text.to_owned());
    }
    let path = text.split(['?', '#']).next()?;
    Uuid::try_parse(path.rsplit('/').next()?).ok().map(|id| id.to_string())
}

fn mint() -> Option<(String, [u8; 32])> {
    let mut bytes = [0; 32];
    SystemRandom::new().fill(&mut bytes).ok()?;
    let text = URL_SAFE_NO_PAD.encode(bytes);
    let hash = hash(text.as_bytes())?;
    Some((text, hash))
}

fn hash(bytes: &[u8]) -> Option<[u8; 32]> {
    digest::digest(&digest::SHA256, bytes).as_ref().try_into().ok()
}

/// Removes every channel secret, token and password from a JSON text of at most 4 MiB: operations and events carry
/// them for whoever may read them.
pub fn strip_secrets(json: &[u8]) -> Result<Vec<u8>, Fault> {
    if json.len() > MAX_STRIPPED {
        return Err(Fault::Protocol("an answer too large to be searched for secrets".to_owned()));
    }
    let mut value: Value =
        serde_json::from_slice(json).map_err(|_| Fault::Protocol("an answer that is no JSON".to_owned()))?;
    strip(&mut value);
    Ok(value.to_string().into_bytes())
}

pub(crate) fn is_secret_name(name: &str) -> bool {
    let name = name.to_ascii_lowercase();
    matches!(name.as_str(), "fds" | "secret" | "secrets" | "password" | "token" | "tokens" | "ticket")
        || [
            "secret",
            "_secrets",
            "password",
            "token",
            "ticket",
            "private-key",
            "private_key",
            "keyring",
            "adminpass",
            "user_data",
        ]
        .iter()
        .any(|end| name.ends_with(end))
        || name.contains("websocket") && name.contains("secret")
}

// Depth is bounded by serde_json's own limit of 128.
pub(crate) fn strip(value: &mut Value) {
    match value {
        Value::Array(all) => all.iter_mut().for_each(strip),
        Value::Object(map) => {
            map.retain(|name, _| !is_secret_name(name));
            // A migration's channels stand straight in the metadata of an operation of this class.
            if map.get("class").and_then(Value::as_str) == Some("websocket")
                && let Some(Value::Object(inner)) = map.get_mut("metadata")
            {
                inner.retain(|_, v| !v.as_str().is_some_and(looks_like_secret));
            }
            map.values_mut().for_each(strip);
        }
        _ => {}
    }
}

/// Makes the addresses of a hypervisor that an answer holds into ones that count from where it was asked: a client that
/// followed one as it stands would show its own token there.
pub(crate) fn relate(value: &mut Value, origins: &[String]) {
    match value {
        Value::Array(all) => all.iter_mut().for_each(|v| relate(v, origins)),
        Value::Object(map) => map.values_mut().for_each(|v| relate(v, origins)),
        Value::String(text) => {
            let rest = origins.iter().find_map(|o| text.strip_prefix(o.as_str()));
            if let Some(rest) = rest.filter(|r| r.is_empty() || r.starts_with('/')) {
                *text = if rest.is_empty() { "/".to_owned() } else { rest.to_owned() };
            }
        }
        _ => {}
    }
}

fn looks_like_secret(text: &str) -> bool {
    text.len() >= 32 && text.bytes().all(|b| b.is_ascii_hexdigit())
}

#[cfg(test)]
mod tests;
