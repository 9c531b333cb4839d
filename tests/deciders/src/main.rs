// SPDX-License-Identifier: Apache-2.0
//! Other policy engines on the grants and questions that the example `decisions` of the policy room leaves in a folder.
//!
//! `deciders FOLDER [SECONDS a step]` prints one JSON line a figure, as `decisions` does. What an engine answers is held
//! against our own answer wherever the engine evaluates all of a grant; a difference ends the run.

mod cached;
mod cedar;

use anyhow::{Context as _, Result, bail};
use serde::Deserialize;
use std::{env, fs::File, io::BufReader, path::Path, time::Instant};

/// Sizes that end in bounded time: among a million grants either engine takes seconds a decision.
const SIZES: [usize; 3] = [100, 10_000, 100_000];

/// Grants and questions.
#[derive(Deserialize)]
struct World {
    model: String,
    /// Rows `g2`: a right or a role, and the role that has it.
    roles: Vec<[String; 2]>,
    /// Rows `g`: a person and a group.
    members: Vec<[String; 2]>,
    /// Rows `p`: who, role, on, when, allow or deny.
    grants: Vec<[String; 5]>,
    machines: Vec<Machine>,
    /// When everything is asked, in seconds since 1970.
    now: i64,
    /// From where.
    from: String,
    /// Whether a passkey was proven.
    passkey: bool,
    asks: Vec<Ask>,
}

#[derive(Deserialize)]
struct Machine {
    hypervisor: String,
    id: String,
    pool: Option<String>,
    tags: Vec<String>,
}

#[derive(Deserialize)]
struct Ask {
    /// A person, as rows name them.
    who: String,
    /// The kind of thing and the action.
    right: String,
    /// Which of the machines.
    machine: usize,
    /// What we answer.
    allowed: bool,
}

impl World {
    fn read(path: &Path) -> Result<Self> {
        let file = File::open(path).with_context(|| format!("{}: run `decisions` first", path.display()))?;
        let world: Self = serde_json::from_reader(BufReader::new(file))?;
        if !world.asks.iter().any(|a| a.allowed) || !world.asks.iter().any(|a| !a.allowed) {
            bail!("{}: it needs questions of both answers", path.display());
        }
        Ok(world)
    }

    fn asks(&self, allowed: bool) -> impl Iterator<Item = &Ask> {
        self.asks.iter().filter(move |a| a.allowed == allowed)
    }

    fn machine(&self, ask: &Ask) -> Result<&Machine> {
        self.machines.get(ask.machine).context("a question names a machine that is not there")
    }
}

/// Nanoseconds a question, of as many as fit into some seconds, at least one. They are made ready beforehand.
fn time_of<Q>(questions: &[Q], seconds: f64, mut ask: impl FnMut(&Q) -> Result<()>) -> Result<f64> {
    let (begun, mut done) = (Instant::now(), 0u32);
    for some in questions.chunks(8).cycle() {
        for one in some {
            ask(one)?;
            done += 1;
        }
        if begun.elapsed().as_secs_f64() > seconds {
            break;
        }
    }
    Ok(begun.elapsed().as_secs_f64() * 1e9 / f64::from(done))
}

fn say(rules: usize, what: &str, value: f64) {
    println!(r#"{{"rules":{rules},"what":"{what}","value":{value:.1},"unit":"ns"}}"#);
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<()> {
    let mut args = env::args().skip(1);
    let folder = args.next().context("usage: deciders FOLDER [SECONDS]")?;
    let seconds: f64 = args.next().map_or(Ok(1.0), |a| a.parse())?;
    for rules in SIZES {
        let world = World::read(&Path::new(&folder).join(format!("{rules}.json")))?;
        cached::measure(rules, &world, seconds).await?;
        cedar::measure(rules, &world, seconds)?;
    }
    Ok(())
}
