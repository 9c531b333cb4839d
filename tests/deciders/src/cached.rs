// SPDX-License-Identifier: Apache-2.0
//! Casbin's cached enforcer: it keeps 200 answers, by a hash of the question, until any rule changes.
//!
//! Two figures. The best that it can do: the same 64 questions again and again, nothing changing. And what a question
//! costs that it has no answer for: the first one after each change, and each one where more than 200 are asked in turn.
//! The two functions are cheaper than the gateway's real ones (conditions always hold), which favours Casbin.

use crate::{Ask, World, say, time_of};
use anyhow::{Context as _, Result, bail};
use casbin::{CachedEnforcer, CoreApi as _, DefaultModel, MgmtApi as _, function_map::OperatorFunction};
use std::hint::black_box;

/// Questions that all fit into the cache, half of them allowed.
const FEW: usize = 64;

/// A question as Casbin is asked: who, right, on, at.
struct Words(String, String, String);

fn words(world: &World, ask: &Ask) -> Result<Words> {
    let m = world.machine(ask)?;
    let mut facts = format!("machine\n{h}\n{id}\n{h}/{id}", h = m.hypervisor, id = m.id);
    for more in m.pool.iter().map(|p| format!("{}/{p}", m.hypervisor)).chain(m.tags.iter().cloned()) {
        facts.push_str(&format!("\n{more}"));
    }
    Ok(Words(ask.who.clone(), ask.right.clone(), facts))
}

async fn load(world: &World) -> Result<CachedEnforcer> {
    let mut casbin = CachedEnforcer::new(DefaultModel::from_str(&world.model).await?, ()).await?;
    casbin.add_function(
        "covers",
        OperatorFunction::Arg2(|on, facts| {
            let (on, facts) = (on.to_string(), facts.to_string());
            on.split_once(':').is_some_and(|(_, value)| facts.split('\n').any(|f| f == value)).into()
        }),
    );
    casbin.add_function("holds", OperatorFunction::Arg4(|_, _, _, _| true.into()));
    let (roles, members) = (&world.roles, &world.members);
    // All or nothing: false means that a row stands twice, and then none was taken.
    anyhow::ensure!(
        casbin.add_named_grouping_policies("g2", roles.iter().map(|r| r.to_vec()).collect()).await?
            && casbin.add_policies(world.grants.iter().map(|r| r.to_vec()).collect()).await?
            && casbin.add_named_grouping_policies("g", members.iter().map(|r| r.to_vec()).collect()).await?,
        "Casbin did not take the rows"
    );
    Ok(casbin)
}

fn drop_answer(answer: bool) {
    black_box(answer);
}

pub async fn measure(rules: usize, world: &World, seconds: f64) -> Result<()> {
    let casbin = load(world).await?;
    let enforce =
        |w: &Words| casbin.enforce((w.0.as_str(), w.1.as_str(), w.2.as_str(), "1\n\n")).context("Casbin failed");
    let all: Vec<Words> = world
        .asks(true)
        .zip(world.asks(false))
        .flat_map(|(y, n)| [y, n])
        .map(|a| words(world, a))
        .collect::<Result<_>>()?;
    let (few, rest) = all.split_at_checked(FEW).filter(|(_, rest)| rest.len() > 200).context("too few questions")?;
    let answers: Vec<bool> = few.iter().map(&enforce).collect::<Result<_>>()?;
    if answers.iter().all(|a| *a) || !answers.iter().any(|a| *a) {
        bail!("Casbin answers all of {FEW} questions alike: it does not decide on these rules");
    }
    let hit = time_of(few, seconds, |w| enforce(w).map(drop_answer))?;
    say(rules, "casbin cached, the same 64 again and again", hit);
    let miss = time_of(rest, seconds, |w| enforce(w).map(drop_answer))?;
    say(rules, "casbin cached, each question new", miss);
    // The time says that nothing was evaluated; this, that what was kept is what was answered.
    if answers != few.iter().map(&enforce).collect::<Result<Vec<_>>>()? {
        bail!("Casbin's cache answers differently from Casbin");
    }
    Ok(())
}
