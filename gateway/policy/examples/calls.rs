// SPDX-License-Identifier: Apache-2.0
//! What a call by method name costs on its way: reading and classifying it among all methods of the largest table,
//! deciding on it among ten thousand grants and ten thousand machines, and filling in a session. `calls [SECONDS a step]
//! [ROUNDS]` prints one JSON line a figure, medians of the rounds.

use anyhow::{Context as _, Result, ensure};
use portcullis_domain::{
    Actor, Assurance, ConsoleKind, Factor, GrantChange, GrantId, HypervisorName, Inventory, Machine, MachineId,
    MachineKind, MachineRef, PowerState, Selector, TokenId, UserId, Via,
};
use portcullis_policy::{
    Decision, Engine, Given,
    classify::{
        Methods, MethodsKind, Objects, Owner, Told, Verdict,
        rpc::{Call, Value, Wire, own_call},
    },
};
use std::{
    collections::HashMap,
    env,
    hint::black_box,
    time::{Duration, Instant},
};
use time::{OffsetDateTime, macros::datetime};
use uuid::Uuid;

const NOW: OffsetDateTime = datetime!(2026-11-27 12:00 UTC);
const MACHINES: usize = 10_000;
const GRANTS: usize = 10_000;
const PEOPLE: usize = 200;
/// Calls that are asked in turn.
const CALLS: usize = 4096;
/// Parts of a machine: disks, interfaces, a screen.
const PARTS: [&str; 5] = ["VBD", "VDI", "VIF", "console", "VM_metrics"];

/// What belongs to what, as a driver keeps it.
struct Known(HashMap<Uuid, (&'static str, MachineId)>);

impl Objects for Known {
    fn owner(&self, class: &str, object: Uuid) -> Option<Owner<'_>> {
        let (of, machine) = self.0.get(&object)?;
        (*of == class).then_some(Owner::Machines(std::slice::from_ref(machine)))
    }
}

fn id(class: usize, machine: usize) -> Uuid {
    // Spread like random ones.
    Uuid::from_u128(((class * MACHINES + machine) as u128 + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15_f39c_c060_5ced_c835))
}

fn text(class: usize, machine: usize) -> Value<'static> {
    Value::from_text(format!("OpaqueRef:{}", id(class, machine)))
}

/// A call that people send, of a machine.
fn call(kind: usize, wire: Wire, machine: usize) -> Result<Vec<u8>> {
    let fields = vec![
        ("VM".into(), text(0, machine)),
        ("VDI".into(), text(2, machine)),
        ("userdevice".into(), Value::from_text("1")),
    ];
    let (method, args) = match kind % 6 {
        0 => ("VM.get_record", vec![text(0, machine)]),
        1 => ("Async.VM.start", vec![text(0, machine), Value::Bool(false), Value::Bool(false)]),
        2 => ("VBD.create", vec![Value::Map(fields)]),
        3 => ("VDI.get_virtual_size", vec![text(2, machine)]),
        4 => ("VM.add_tags", vec![text(0, machine), Value::from_text("production")]),
        _ => ("VIF.plug", vec![text(3, machine)]),
    };
    own_call(wire, method, &args).filled("OpaqueRef:01234567.0192a1b2c3d4e5f60718293a4b5c6d7e.proof").context("a call")
}

fn median(mut all: Vec<f64>) -> f64 {
    all.sort_by(f64::total_cmp);
    all.get(all.len() / 2).copied().unwrap_or(f64::NAN)
}

/// Nanoseconds a turn.
fn time_of(seconds: f64, all: &[Vec<u8>], mut turn: impl FnMut(&[u8]) -> Result<()>) -> Result<f64> {
    let (begun, mut wall, mut done) = (Instant::now(), Duration::ZERO, 0u32);
    while begun.elapsed().as_secs_f64() < seconds {
        let one = Instant::now();
        for body in all {
            turn(body)?;
        }
        wall += one.elapsed();
        done += u32::try_from(all.len())?;
    }
    Ok(wall.as_secs_f64() * 1e9 / f64::from(done))
}

struct World {
    engine: Engine,
    inventory: Inventory,
    known: Known,
    hypervisor: HypervisorName,
}

async fn world() -> Result<World> {
    let hypervisor: HypervisorName = "xen".parse()?;
    let engine = Engine::builtin().await?;
    let (mut machines, mut known) = (Vec::new(), HashMap::new());
    for n in 0..MACHINES {
        let machine: MachineId = id(9, n).to_string().parse()?;
        known.insert(id(0, n), ("VM", machine.clone()));
        for (class, name) in PARTS.iter().enumerate() {
            known.insert(id(class + 1, n), (*name, machine.clone()));
        }
        machines.push(Machine {
            at: MachineRef { hypervisor: hypervisor.clone(), machine },
            name: String::new(),
            kind: MachineKind::Guest,
            state: PowerState::Running,
            pool: None,
            tags: vec![format!("tag-{}", n % 500)],
            node: None,
            console: ConsoleKind::Vnc,
        });
    }
    let grants = (0..GRANTS).map(|n| -> Result<GrantChange> {
        let given = Given::read("administrator", "everything", "", "allow").map_err(anyhow::Error::msg)?;
        let at = machines.get(n * 7 % MACHINES).context("a machine")?.at.clone();
        let selector = if n % 10 == 0 { Selector::Tag(format!("tag-{}", n % 500)) } else { Selector::Machine(at) };
        let id = GrantId::new(Uuid::from_u128(n as u128 + 1));
        let grant = portcullis_domain::Grant { selector, ..given.grant(id, NOW) };
        Ok(GrantChange::Put(UserId::new(Uuid::from_u128((n % PEOPLE) as u128 + 1)).into(), grant))
    });
    engine.reset(grants.collect::<Result<Vec<_>>>()?);
    Ok(World { engine, inventory: Inventory::new(machines), known: Known(known), hypervisor })
}

fn actor(n: usize) -> Actor {
    let mut assurance = Assurance::default();
    assurance.prove(Factor::Password, NOW);
    assurance.prove(Factor::Totp, NOW);
    Actor {
        user: UserId::new(Uuid::from_u128((n % PEOPLE) as u128 + 1)),
        name: "somebody".into(),
        via: Via::Token(TokenId::new(Uuid::from_u128(7))),
        assurance,
        scope: None,
        pass: None,
        from: None,
    }
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<()> {
    let mut words = env::args().skip(1);
    let seconds: f64 = words.next().map_or(Ok(0.5), |w| w.parse())?;
    let rounds: usize = words.next().map_or(Ok(3), |w| w.parse())?;
    let World { engine, inventory, known, hypervisor } = world().await?;
    let table = Methods::builtin(MethodsKind::Xapi);
    let people: Vec<Actor> = (0..PEOPLE).map(actor).collect();
    let say = |what: &str, value: f64| println!("{}", serde_json::json!({ "what": what, "value": value }));
    say("methods", f64::from(u32::try_from(table.entries().count())?));
    for (name, wire) in [("XML-RPC", Wire::Xml), ("JSON-RPC", Wire::Json)] {
        let calls = (0..CALLS).map(|n| call(n, wire, n * 7 % MACHINES)).collect::<Result<Vec<_>>>()?;
        let bytes: usize = calls.iter().map(Vec::len).sum();
        say(&format!("{name}: bytes of a call"), f64::from(u32::try_from(bytes / CALLS)?));
        let classify = |body: &[u8]| -> Result<_> {
            let call = Call::read(wire, Some(wire.media_type()), body).map_err(anyhow::Error::msg)?;
            let told = table.classify(&hypervisor, &call, &known).map_err(|e| anyhow::anyhow!(e))?;
            Ok((told, call.hollow()))
        };
        let (mut told, mut whole, mut permitted) = (Vec::new(), Vec::new(), 0usize);
        for _ in 0..rounds {
            told.push(time_of(seconds, &calls, |body| classify(body).map(|t| drop(black_box(t))))?);
            let mut n = 0;
            whole.push(time_of(seconds, &calls, |body| {
                let turn = n % CALLS;
                n += 1;
                let (told, hollow) = classify(body)?;
                let Told::Asked(Verdict::Operation { operation, also, .. }, _) = told else {
                    anyhow::bail!("another verdict")
                };
                // Calls go round as grants do; every other pair is asked by somebody else.
                let actor = people.get((turn + turn / 2 % 2) % PEOPLE).context("a person")?;
                let mut all = std::iter::once(&operation).chain(&also);
                if all.all(|o| !matches!(engine.decide(actor, o, &inventory, NOW), Decision::Deny(_))) {
                    permitted += 1;
                }
                drop(black_box(hollow.filled("OpaqueRef:01234567-89ab-cdef-0123-456789abcdef")));
                Ok(())
            })?);
        }
        ensure!(permitted > 0, "nothing was allowed: that is no measurement");
        say(&format!("{name}: read and classified"), median(told));
        say(&format!("{name}: read, classified, decided and filled"), median(whole));
    }
    Ok(())
}
