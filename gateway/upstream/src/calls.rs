// SPDX-License-Identifier: Apache-2.0
//! Calls of people's clients to an API that has sessions: each with a permit, in the person's own session.

use crate::{
    broker::TaskOwner,
    credential::Injected,
    desk::{Desk, Face, Part, Reply, Seat, Wait},
    error::Error,
    fleet::{Fleet, Work},
};
use portcullis_domain::{Effect, HypervisorName, MachineId, MachineRef, Pass, Resource, UserId};
use portcullis_policy::{
    Permit,
    classify::soap::{Call, Owners, Way},
};
use std::{
    collections::HashSet,
    sync::{Arc, PoisonError},
};

/// One call, whose session it goes through, and how.
#[derive(Debug, Clone, Copy)]
pub struct Calling<'a> {
    /// What is called.
    pub call: &'a Call,
    /// Whose session it is.
    pub seat: Seat,
    /// The release that the client speaks.
    pub release: &'a str,
    /// How long its answer may take.
    pub wait: Wait,
}

impl Fleet {
    /// Sends one call with the hypervisor's credential. The permit is for that hypervisor, or something of it.
    pub async fn call(&self, permit: &Permit, calling: Calling<'_>) -> Result<Reply, Error> {
        let operation = permit.operation();
        let name = operation.resource.hypervisor().ok_or_else(|| Error::WrongPermit(operation.to_string()))?;
        let desk = self.desk_for(name, operation.action).ok_or_else(|| Error::UnknownHypervisor(name.clone()))?;
        // Lent for this one call: whoever has no permit for this hypervisor gets no further.
        let _lent = Injected::lend(permit, name, &desk.center.dialer, self.clock().now())?;
        let reply =
            desk.ask(calling.seat, calling.call, calling.release, calling.wait).await.map_err(|f| f.at(name))?;
        if operation.effect == Effect::Unsafe
            && let Some(task) = reply.task()
        {
            let owner = TaskOwner { user: permit.user(), operation: operation.clone() };
            self.broker().remember(name, &format!("{TASK}{task}"), owner);
        }
        Ok(reply)
    }

    /// Takes out the sessions of people whose sign-in no longer counts; gives the work of ending them there, if any.
    pub fn end_seats(&self, counts: impl Fn(&Pass) -> bool) -> Option<Work> {
        end_at(self.desks(), counts)
    }

    /// What a hypervisor says of itself to those who are not known yet; none before it was asked.
    pub fn face(&self, hypervisor: &HypervisorName) -> Option<Arc<Face>> {
        self.desk(hypervisor).ok()?.face.load_full()
    }

    /// What references mean on a hypervisor.
    pub fn owners(&self, hypervisor: &HypervisorName) -> Objects {
        Objects(self.desk(hypervisor).ok())
    }

    /// What somebody makes out of a hypervisor who sees these machines, and what they began there.
    pub fn part(&self, hypervisor: &HypervisorName, machines: &[&MachineRef], user: UserId) -> Part {
        let ids: Vec<&MachineId> = machines.iter().map(|m| &m.machine).collect();
        let places = match self.desk(hypervisor) {
            Ok(desk) => desk.tree.read().unwrap_or_else(PoisonError::into_inner).places(&ids),
            Err(_) => HashSet::new(),
        };
        let tasks = self.broker().tasks(hypervisor, user);
        let tasks = tasks.into_iter().filter_map(|t| t.strip_prefix(TASK).map(str::to_owned)).collect();
        Part { machines: ids.iter().map(ToString::to_string).collect(), places, tasks }
    }

    /// Whether somebody began a task that is an object, and what that was about.
    pub fn began_object(&self, hypervisor: &HypervisorName, task: &str, user: UserId) -> Option<Resource> {
        self.began(hypervisor, &format!("{TASK}{task}"), user).map(|o| o.resource)
    }

    fn desk(&self, name: &HypervisorName) -> Result<Arc<Desk>, Error> {
        self.desk_of(name).ok_or_else(|| Error::UnknownHypervisor(name.clone()))
    }
}

/// Takes out the sessions at some desks of those whose sign-in does not count; the work is to end them there.
pub(crate) fn end_at(desks: Vec<Arc<Desk>>, counts: impl Fn(&Pass) -> bool) -> Option<Work> {
    let taken = desks.into_iter().map(|desk| (desk.take(&counts), desk));
    let ended: Vec<_> = taken.filter(|(over, _)| !over.is_empty()).collect();
    if ended.is_empty() {
        return None;
    }
    Some(Box::pin(async move {
        for (over, desk) in ended {
            desk.end(&over).await;
        }
    }))
}

/// What stands before the id of a task that is an object.
const TASK: &str = "task:";

/// What references mean on one hypervisor.
#[derive(Clone)]
pub struct Objects(Option<Arc<Desk>>);

impl Owners for Objects {
    fn find(&self, id: &str) -> Option<Way> {
        self.0.as_ref()?.tree.read().unwrap_or_else(PoisonError::into_inner).find(id)
    }
}
