// SPDX-License-Identifier: Apache-2.0
//! Answers about many machines: each is looked at, and what the person may not see is not there. A list that only says
//! how many there are, or only names or numbers, is made from the one list that says which machine each is.

use super::{
    REMOTE,
    call::{Answer, LIST_ALL_DOMAINS, ask},
    error::no_machine,
    session::Session,
};
use crate::reply::Refusal;
use bytes::Bytes;
use portcullis_domain::{Action, Actor, Effect, MachineRef, Operation, Resource};
use portcullis_policy::{
    Decision, Permit,
    classify::{
        libvirt::{Call, Left, Procedures, Way},
        xdr::{Broken, Reader, Writer},
    },
};
use portcullis_upstream::{Frame, FrameStatus};
use std::sync::Arc;
use uuid::Uuid;

/// `VIR_CONNECT_LIST_DOMAINS_ACTIVE` and `…_INACTIVE`.
const ACTIVE: u32 = 1;
const INACTIVE: u32 = 2;
/// `REMOTE_DOMAIN_LIST_MAX`, and the longest name.
const MOST: usize = 16_384;
const LONGEST: usize = 4 * 1024 * 1024;

/// Which machines of a hypervisor somebody may see, now.
pub(super) struct Sight<'a> {
    session: &'a Session,
    actor: &'a Actor,
    /// Whether they may see all of it: then a machine that is too new to be known, too.
    is_whole: bool,
}

impl<'a> Sight<'a> {
    pub(super) fn of(session: &'a Session, actor: &'a Actor) -> Self {
        let house = &session.house;
        let resource = Resource::Hypervisor(session.hypervisor.clone());
        let whole = Operation { action: Action::View, resource, effect: Effect::Safe };
        let decision = house.engine.decide(actor, &whole, &house.fleet.inventory(), house.clock.now());
        Self { session, actor, is_whole: matches!(decision, Decision::Permit(_)) }
    }

    /// Whether they may see all of it.
    pub(super) const fn whole(&self) -> bool {
        self.is_whole
    }

    /// Whether they may see one machine.
    pub(super) fn sees(&self, at: &MachineRef) -> bool {
        let house = &self.session.house;
        let inventory = house.fleet.inventory();
        let resource = Resource::Machine(at.clone());
        house.engine.may_see(self.actor, &resource, &inventory, house.clock.now())
            || self.is_whole && inventory.find(at).is_none()
    }

    fn sees_uuid(&self, uuid: &Uuid) -> bool {
        let machine = uuid.to_string().parse();
        machine.is_ok_and(|machine| self.sees(&MachineRef { hypervisor: self.session.hypervisor.clone(), machine }))
    }
}

/// Answers a call about what somebody may see.
pub(super) async fn rows(
    session: &Arc<Session>,
    frame: &Frame,
    call: &Call,
    permit: &Permit,
    actor: &Actor,
) -> Result<Answer, Refusal> {
    let unread = |_: Broken| Refusal::Upstream("Its answer could not be read.".into());
    let list = |flags: u32| Bytes::from(Writer::default().word(1).word(flags).done());
    let (number, payload) = match call.way {
        Way::ActiveIds | Way::CountActive => (LIST_ALL_DOMAINS, list(ACTIVE)),
        Way::InactiveNames | Way::CountInactive => (LIST_ALL_DOMAINS, list(INACTIVE)),
        // How many there are is counted here, so they are asked for.
        Way::List => {
            let mut reader = Reader::new(&frame.payload);
            reader.word().map_err(unread)?;
            (LIST_ALL_DOMAINS, list(reader.word().map_err(unread)?))
        }
        _ => (frame.procedure, frame.payload.clone()),
    };
    let got = ask(session, permit, (REMOTE, number), payload).await?;
    if got.status == FrameStatus::Error {
        return Ok(Answer::Error(got.payload));
    }
    let sight = Sight::of(session, actor);
    let left = Procedures::builtin().keep((REMOTE, number), &got.payload, |uuid| sight.sees_uuid(uuid));
    let Left::Bytes(left) = left.map_err(unread)? else { return Ok(Answer::Error(no_machine(&missing(frame)))) };
    let made = match call.way {
        Way::Rows => Ok(left),
        Way::List if call.number != 0 => Ok(left),
        _ => remade(call, &left),
    };
    made.map(|bytes| Answer::Result(bytes.into())).map_err(unread)
}

/// Answers a call that asks for a description with its passwords: where it has none it is what it is without them, and
/// goes out. Where it has some it does not: a description without them that is saved again would take them off.
pub(super) async fn description(
    session: &Arc<Session>,
    frame: &Frame,
    call: &Call,
    permit: &Permit,
) -> Result<Answer, Refusal> {
    let key = (frame.program, frame.procedure);
    // The flags are the last argument.
    let (begin, flags) = frame.payload.split_at_checked(frame.payload.len().saturating_sub(4)).unwrap_or_default();
    let flags = Reader::new(flags).word().unwrap_or(0) & !call.secrets;
    let plain = Writer::default().raw(begin).word(flags).done();
    let got = ask(session, permit, key, frame.payload.clone()).await?;
    if got.status == FrameStatus::Error {
        return Ok(Answer::Frame(got));
    }
    let without = ask(session, permit, key, plain.into()).await?;
    if without.status == FrameStatus::Error || without.payload == got.payload {
        return Ok(Answer::Frame(without));
    }
    let why = "The gateway gives no passwords of machines to anybody. Ask without them; change such a machine with calls \
               that do not carry its whole description.";
    Err(Refusal::Forbidden(why.into()))
}

/// A list in another form.
fn remade(call: &Call, list: &[u8]) -> Result<Vec<u8>, Broken> {
    let mut reader = Reader::new(list);
    let count = reader.count(MOST)?;
    let many = |n: usize| u32::try_from(n).unwrap_or(u32::MAX);
    let mut machines = Vec::new();
    for _ in 0..count {
        let name = reader.opaque(LONGEST)?;
        reader.take(16)?;
        machines.push((name, reader.word()?));
    }
    // As many as were asked for; the rest is not there.
    machines.truncate(match call.way {
        Way::ActiveIds | Way::InactiveNames => usize::try_from(call.number).unwrap_or(0),
        _ => MOST,
    });
    let begun = Writer::default().word(many(machines.len()));
    Ok(match call.way {
        Way::ActiveIds => machines.iter().fold(begun, |all, (_, id)| all.word(*id)),
        Way::InactiveNames => machines.iter().fold(begun, |all, (name, _)| all.opaque(name)),
        Way::CountActive | Way::CountInactive => begun,
        // Only how many there are.
        _ => Writer::default().word(0).word(many(count)),
    }
    .done())
}

/// What the daemon says of a machine that is not there, by the way it was looked for.
fn missing(frame: &Frame) -> String {
    let mut reader = Reader::new(&frame.payload);
    match frame.procedure {
        22 => reader.word().map(|id| format!("no domain with matching id {}", id.cast_signed())),
        23 => reader.opaque(LONGEST).map(|n| format!("no domain with matching name '{}'", String::from_utf8_lossy(n))),
        _ => reader.take(16).map(|uuid| {
            let uuid = Uuid::from_slice(uuid).unwrap_or_default();
            format!("no domain with matching uuid '{uuid}'")
        }),
    }
    .unwrap_or_default()
}
