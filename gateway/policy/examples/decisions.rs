// SPDX-License-Identifier: Apache-2.0
//! What a decision costs: time, memory and allocations at 100 to 1,000,000 grants, beside Casbin's own `enforce` on the
//! same rows. `decisions [SECONDS a step] [ROUNDS] [FOLDER]` prints one JSON line a figure, medians of the rounds, and
//! leaves the same grants and questions in the folder for other engines (`tests/deciders`).

use anyhow::{Context as _, Result};
use casbin::{CoreApi as _, DefaultModel, Enforcer, MgmtApi as _, function_map::OperatorFunction};
use portcullis_domain::{
    Action, Conditions, ConsoleKind, Grant, GrantChange, GrantEffect, GrantId, GrantSource, GroupId, Holder, Machine,
    MachineKind, PowerState, RoleName, Selector, UserId,
};
use portcullis_policy::{Engine, Given, Kind, MODEL, Moment, Passkey, RULES, Set, Snapshot, Target, Verdict};
use serde_json::json;
use stats_alloc::{INSTRUMENTED_SYSTEM, Region, StatsAlloc};
use std::{
    alloc::System,
    env,
    fs::File,
    hint::black_box,
    io::BufWriter,
    path::{Path, PathBuf},
    sync::atomic::{AtomicBool, Ordering},
    thread,
    time::{Duration, Instant},
};
use time::{OffsetDateTime, macros::datetime};
use uuid::Uuid;

#[global_allocator]
static ALLOCATED: &StatsAlloc<System> = &INSTRUMENTED_SYSTEM;

const SIZES: [usize; 4] = [100, 10_000, 100_000, 1_000_000];
const NOW: OffsetDateTime = datetime!(2026-11-27 12:00 UTC);
/// Grants of one person or one group.
const EACH: usize = 50;
/// Different questions that are asked in turn: more than fit into the processor's caches at the largest size.
const ASKS: usize = 1 << 16;
/// Questions that are measured together.
const BATCH: usize = 64;
const ACTIONS: [Action; 4] = [Action::View, Action::Power, Action::ConsoleControl, Action::Destroy];

/// The same numbers in every run.
struct Dice(u64);

impl Dice {
    fn below(&mut self, n: usize) -> usize {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        usize::try_from((self.0 >> 33) % u64::try_from(n.max(1)).unwrap_or(1)).unwrap_or(0)
    }
}

struct World {
    machines: Vec<Machine>,
    people: Vec<UserId>,
    changes: Vec<GrantChange>,
}

fn machine(n: usize) -> Result<Machine> {
    Ok(Machine {
        at: format!("hv{}/{n}", n % 40).parse()?,
        name: String::new(),
        kind: MachineKind::Guest,
        state: PowerState::Running,
        pool: Some(format!("pool-{}", n / 40 % 25)),
        tags: vec![format!("tag-{}", n % 500), format!("team-{}", n % 90)],
        node: None,
        console: ConsoleKind::Vnc,
    })
}

/// Half of the grants belong to people, half to groups; each person is in two groups.
fn world(rules: usize) -> Result<World> {
    let mut dice = Dice(7);
    let machines = (0..(rules / 20).max(40)).map(machine).collect::<Result<Vec<_>>>()?;
    let people: Vec<UserId> =
        (0..(rules / EACH / 2).max(1)).map(|n| UserId::new(Uuid::from_u128(n as u128 + 1))).collect();
    let groups: Vec<GroupId> =
        (0..(rules / EACH / 2).max(1)).map(|n| GroupId::new(Uuid::from_u128(n as u128 + 1))).collect();
    let roles = ["viewer", "console-user", "operator", "administrator"];
    let whens =
        ["", "unrecorded", "step-up=60", "until=2027-06-01T00:00Z", "from=10.0.0.0/8", "passkey", "kinds=guest"];
    let mut changes = Vec::with_capacity(rules + groups.len());
    for n in 0..rules {
        let holder: Holder = if n % 2 == 0 {
            people.get(n / 2 % people.len()).context("a person")?.to_owned().into()
        } else {
            groups.get(n / 2 % groups.len()).context("a group")?.to_owned().into()
        };
        let at = machines.get(dice.below(machines.len())).context("a machine")?;
        let (h, pool) = (&at.at.hypervisor, at.pool.clone().unwrap_or_default());
        let selector = match dice.below(20) {
            0 => Selector::parse("hypervisor", h.as_str())?,
            1 | 2 => Selector::Pool(h.clone(), pool),
            3 | 4 => Selector::Tag(format!("tag-{}", dice.below(500))),
            5 => Selector::parse("pattern", &format!("*/{pool}/*"))?,
            6 => Selector::parse("pattern", &format!("{h}/*/{}", at.at.machine))?,
            _ => Selector::Machine(at.at.clone()),
        };
        let when = whens.get(dice.below(whens.len())).context("a condition")?;
        let role = roles.get(dice.below(roles.len())).context("a role")?;
        let effect = if dice.below(50) == 0 { "deny" } else { "allow" };
        let given = Given::read(role, "everything", when, effect).map_err(anyhow::Error::msg)?;
        let grant = Grant { selector, ..given.grant(GrantId::new(Uuid::from_u128(n as u128)), NOW) };
        changes.push(GrantChange::Put(holder, grant));
    }
    for (n, group) in groups.iter().enumerate() {
        let members = [n, n + 13].into_iter().filter_map(|p| people.get(p % people.len())).copied().collect();
        changes.push(GrantChange::Members(*group, members));
    }
    Ok(World { machines, people, changes })
}

#[derive(Clone, Copy)]
struct Ask {
    user: UserId,
    machine: usize,
    action: Action,
}

fn moment() -> Moment {
    Moment::new(NOW, "10.1.2.3".parse().ok(), Passkey::Proven)
}

fn verdict(snapshot: &Snapshot, world: &World, ask: &Ask, at: &Moment) -> Option<Verdict> {
    let machine = world.machines.get(ask.machine)?;
    Some(snapshot.verdict(ask.user, Target::Machine(machine), Kind::Machine, ask.action, at))
}

/// Questions as a request brings them: the machine was just looked up, so it is at hand; the grants are not.
fn at_hand(world: &World, asks: &[Ask]) -> Vec<(UserId, Machine, Action)> {
    asks.iter().filter_map(|a| Some((a.user, world.machines.get(a.machine)?.clone(), a.action))).collect()
}

fn decide(engine: &Engine, (user, machine, action): &(UserId, Machine, Action), at: &Moment) {
    let snapshot = engine.snapshot_now();
    black_box(snapshot.verdict(*user, Target::Machine(machine), Kind::Machine, *action, at));
}

/// Questions whose answer is yes, and as many whose answer is no.
fn asks(snapshot: &Snapshot, world: &World) -> Result<(Vec<Ask>, Vec<Ask>)> {
    let mut dice = Dice(11);
    let (mut yes, mut no) = (Vec::new(), Vec::new());
    let mut tries = 0;
    while (yes.len() < ASKS || no.len() < ASKS) && tries < 40 * ASKS {
        tries += 1;
        let user = *world.people.get(dice.below(world.people.len())).context("a person")?;
        let mut place = dice.below(world.machines.len());
        // A machine that some grant of theirs names, as people ask for what they have.
        if tries % 2 == 0 {
            let grants = snapshot.grants_held(user);
            let Some(grant) = grants.get(dice.below(grants.len())) else { continue };
            if let Selector::Machine(at) = &grant.selector {
                place = at.machine.as_str().parse()?;
            }
        }
        let action = *ACTIONS.get(dice.below(ACTIONS.len())).context("an action")?;
        let ask = Ask { user, machine: place, action };
        match verdict(snapshot, world, &ask, &moment()) {
            Some(Verdict::Allow) if yes.len() < ASKS => yes.push(ask),
            Some(Verdict::Deny) if no.len() < ASKS => no.push(ask),
            _ => {}
        }
    }
    Ok((yes, no))
}

fn median(mut all: Vec<f64>) -> f64 {
    all.sort_by(f64::total_cmp);
    all.get(all.len() / 2).copied().unwrap_or(f64::NAN)
}

fn nanos(d: Duration) -> f64 {
    d.as_secs_f64() * 1e9
}

#[expect(clippy::cast_precision_loss, reason = "counts of a benchmark")]
fn float(n: usize) -> f64 {
    n as f64
}

/// Nanoseconds and allocations a decision.
fn time_of(engine: &Engine, world: &World, asks: &[Ask], seconds: f64) -> (f64, f64) {
    let at = moment();
    let (begun, mut wall, mut done, mut allocations) = (Instant::now(), Duration::ZERO, 0usize, 0usize);
    while begun.elapsed().as_secs_f64() < seconds {
        for some in asks.chunks(BATCH) {
            let some = at_hand(world, some);
            let (one, region) = (Instant::now(), Region::new(ALLOCATED));
            for ask in &some {
                decide(engine, ask, &at);
            }
            allocations += region.change().allocations;
            wall += one.elapsed();
            done += some.len();
        }
    }
    (nanos(wall) / float(done), float(allocations) / float(done))
}

/// The 99th of 100 decisions, by single measurements.
fn p99(engine: &Engine, world: &World, asks: &[Ask], seconds: f64) -> f64 {
    let at = moment();
    let (begun, mut seen) = (Instant::now(), Vec::with_capacity(4 << 20));
    while begun.elapsed().as_secs_f64() < seconds && seen.len() + asks.len() < seen.capacity() {
        for some in asks.chunks(BATCH) {
            for ask in at_hand(world, some) {
                let one = Instant::now();
                decide(engine, &ask, &at);
                seen.push(nanos(one.elapsed()));
            }
        }
    }
    seen.sort_by(f64::total_cmp);
    seen.get(seen.len() * 99 / 100).copied().unwrap_or(f64::NAN)
}

fn step() -> f64 {
    let record = [7u8; 256];
    let begun = Instant::now();
    let mut last = [0u8; 32];
    for _ in 0..200_000 {
        let mut context = aws_lc_rs::digest::Context::new(&aws_lc_rs::digest::SHA256);
        context.update(&last);
        context.update(&record);
        last.copy_from_slice(black_box(context.finish()).as_ref());
    }
    nanos(begun.elapsed()) / 200_000.0
}

async fn casbin(world: &World) -> Result<Enforcer> {
    let mut casbin = Enforcer::new(DefaultModel::from_str(MODEL).await?, ()).await?;
    // Cheaper than the real ones: what is compared is how Casbin goes through its rows.
    casbin.add_function(
        "covers",
        OperatorFunction::Arg2(|on, facts| {
            let (on, facts) = (on.to_string(), facts.to_string());
            on.split_once(':').is_some_and(|(_, value)| facts.split('\n').any(|f| f == value)).into()
        }),
    );
    casbin.add_function("holds", OperatorFunction::Arg4(|_, _, _, _| true.into()));
    let Rows { roles, members, grants } = rows(world)?;
    // All or nothing: false means that a row stands twice, and then none was taken.
    anyhow::ensure!(
        casbin.add_named_grouping_policies("g2", roles).await?
            && casbin.add_policies(grants).await?
            && casbin.add_named_grouping_policies("g", members).await?,
        "Casbin did not take the rows"
    );
    Ok(casbin)
}

/// The rules of a world as Casbin's rows.
struct Rows {
    /// `g2`
    roles: Vec<Vec<String>>,
    /// `g`
    members: Vec<Vec<String>>,
    /// `p`
    grants: Vec<Vec<String>>,
}

fn rows(world: &World) -> Result<Rows> {
    let set = Set::read(RULES)?;
    let rights = set.rights.iter().map(|r| vec![format!("{}/{}", r.kind, r.action), r.role.to_string()]);
    let includes = set.includes.iter().map(|i| vec![i.included.to_string(), i.role.to_string()]);
    let (mut grants, mut members) = (Vec::new(), Vec::new());
    for (n, change) in world.changes.iter().enumerate() {
        match change {
            GrantChange::Put(holder, grant) => {
                let who = match holder {
                    Holder::Person(user) => format!("person:{user}"),
                    Holder::Group(group) => format!("group:{group}"),
                };
                let [role, on, when, effect] = Given::of(grant).columns();
                // Casbin takes no row twice.
                grants.push(vec![who, role, on, format!("{when};{n}"), effect]);
            }
            GrantChange::Members(group, users) => {
                members.extend(users.iter().map(|u| vec![format!("person:{u}"), format!("group:{group}")]));
            }
            GrantChange::Take(..) | GrantChange::Shut(_) | GrantChange::ShutAll => {}
        }
    }
    // A small world's person may be in one group twice.
    members.sort();
    members.dedup();
    Ok(Rows { roles: rights.chain(includes).collect(), members, grants })
}

/// Leaves a world and its questions, each with our answer, for other engines.
fn hand_over(folder: &Path, world: &World, yes: &[Ask], no: &[Ask]) -> Result<()> {
    let Rows { roles, members, grants } = rows(world)?;
    let machine =
        |m: &Machine| json!({ "hypervisor": m.at.hypervisor, "id": m.at.machine, "pool": m.pool, "tags": m.tags });
    let ask = |allowed: bool| {
        move |a: &Ask| {
            let (who, right) = (format!("person:{}", a.user), format!("machine/{}", a.action));
            json!({ "who": who, "right": right, "machine": a.machine, "allowed": allowed })
        }
    };
    let world = json!({
        "model": MODEL, "roles": roles, "members": members, "grants": grants,
        "machines": world.machines.iter().map(machine).collect::<Vec<_>>(),
        // All machines are guests; every question is asked at one moment: see `moment`.
        "now": NOW.unix_timestamp(), "from": "10.1.2.3", "passkey": true,
        "asks": yes.iter().map(ask(true)).chain(no.iter().map(ask(false))).collect::<Vec<_>>(),
    });
    let rules = grants.len();
    serde_json::to_writer(BufWriter::new(File::create(folder.join(format!("{rules}.json")))?), &world)?;
    Ok(())
}

/// Nanoseconds a call of Casbin's own `enforce`.
fn casbin_time(casbin: &Enforcer, world: &World, asks: &[Ask], seconds: f64) -> Result<f64> {
    let (begun, mut done) = (Instant::now(), 0);
    for ask in asks.iter().cycle() {
        let at = &world.machines.get(ask.machine).context("a machine")?.at;
        let who = format!("person:{}", ask.user);
        let facts = format!("machine\n{}\n{}\n{at}", at.hypervisor, at.machine);
        black_box(casbin.enforce((who, format!("machine/{}", ask.action), facts, "1\n\n")))?;
        done += 1;
        if begun.elapsed().as_secs_f64() > seconds {
            break;
        }
    }
    Ok(nanos(begun.elapsed()) / float(done))
}

fn say(rules: usize, what: &str, value: f64, unit: &str) {
    println!(r#"{{"rules":{rules},"what":"{what}","value":{value:.4},"unit":"{unit}"}}"#);
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<()> {
    let mut args = env::args().skip(1);
    let seconds: f64 = args.next().map_or(Ok(1.0), |a| a.parse())?;
    let rounds: usize = args.next().map_or(Ok(3), |a| a.parse())?;
    let folder = args.next().map(PathBuf::from);
    say(0, "sha256", median((0..rounds).map(|_| step()).collect()), "ns");
    for rules in SIZES {
        let world = world(rules)?;
        let engine = Engine::builtin().await?;
        let mut builds = Vec::new();
        let mut bytes = Vec::new();
        for _ in 0..rounds {
            let changes = world.changes.clone();
            engine.reset([]);
            let region = Region::new(ALLOCATED);
            let before = region.change();
            let begun = Instant::now();
            // What is read from the store is given away, not kept.
            engine.reset(changes);
            builds.push(begun.elapsed().as_secs_f64() * 1e3);
            let after = region.change();
            let kept = |s: &stats_alloc::Stats| float(s.bytes_allocated) - float(s.bytes_deallocated);
            // The list itself was allocated before and freed inside.
            let list = changes_size(&world);
            bytes.push((kept(&after) - kept(&before) + list) / float(rules));
        }
        say(rules, "build", median(builds), "ms");
        say(rules, "memory a rule", median(bytes), "bytes");
        let (yes, no) = asks(&engine.snapshot(), &world)?;
        let (mut allowed, mut denied, mut allocations) = (Vec::new(), Vec::new(), 0.0f64);
        for _ in 0..rounds {
            for (asks, into) in [(&yes, &mut allowed), (&no, &mut denied)] {
                let (time, count) = time_of(&engine, &world, asks, seconds);
                into.push(time);
                allocations = allocations.max(count);
            }
        }
        say(rules, "allowed", median(allowed), "ns");
        say(rules, "denied", median(denied), "ns");
        say(rules, "allocations a decision", allocations, "");
        let few: Vec<Ask> = yes.iter().take(BATCH / 2).chain(no.iter().take(BATCH / 2)).copied().collect();
        let again = (0..rounds).map(|_| time_of(&engine, &world, &few, seconds).0).collect();
        say(rules, "the same 64 again and again", median(again), "ns");
        let viewer: RoleName = "viewer".parse()?;
        let grant = |n: u128| Grant {
            id: GrantId::new(Uuid::from_u128(u128::MAX - n)),
            role: viewer.clone(),
            selector: Selector::Everything,
            effect: GrantEffect::Allow,
            from: NOW,
            until: None,
            conditions: Conditions::default(),
            source: GrantSource::Setup,
        };
        let user = *world.people.first().context("a person")?;
        let mut changes: Vec<f64> = (0..200)
            .map(|n| {
                let change = GrantChange::Put(user.into(), grant(n));
                let begun = Instant::now();
                engine.apply([change]);
                begun.elapsed().as_secs_f64() * 1e3
            })
            .collect();
        changes.sort_by(f64::total_cmp);
        say(rules, "one change, the slowest of 200", changes.last().copied().unwrap_or(f64::NAN), "ms");
        if rules == 1_000_000 {
            let quiet = median((0..rounds).map(|_| p99(&engine, &world, &no, seconds)).collect());
            let stop = AtomicBool::new(false);
            let swapping = thread::scope(|s| {
                s.spawn(|| {
                    let mut n = 1_000;
                    while !stop.load(Ordering::Relaxed) {
                        engine.apply([GrantChange::Put(user.into(), grant(n % 1_200))]);
                        n += 1;
                        thread::sleep(Duration::from_millis(1));
                    }
                });
                let one = median((0..rounds).map(|_| p99(&engine, &world, &no, seconds)).collect());
                stop.store(true, Ordering::Relaxed);
                one
            });
            let building = thread::scope(|s| {
                let work = s.spawn(|| engine.reset(world.changes.clone()));
                let at = p99(&engine, &world, &no, seconds);
                work.join().map_or(f64::NAN, |()| at)
            });
            say(rules, "p99, quiet", quiet, "ns");
            say(rules, "p99, a change each millisecond", swapping, "ns");
            say(rules, "p99, while all is built anew", building, "ns");
        } else {
            if let Some(folder) = &folder {
                hand_over(folder, &world, &yes, &no)?;
            }
            let casbin = casbin(&world).await?;
            say(rules, "casbin, allowed", casbin_time(&casbin, &world, &yes, seconds)?, "ns");
            say(rules, "casbin, denied", casbin_time(&casbin, &world, &no, seconds)?, "ns");
        }
    }
    Ok(())
}

/// Bytes of the list of changes, as it was allocated: given away, it is freed while the index is made.
fn changes_size(world: &World) -> f64 {
    let region = Region::new(ALLOCATED);
    let copy = world.changes.clone();
    let size = region.change();
    drop(copy);
    float(size.bytes_allocated) - float(size.bytes_deallocated)
}
