// SPDX-License-Identifier: Apache-2.0
//! The verbs of `portcullis policy` that work on a folder of files: check, diff, apply, export, history, rollback,
//! simulate.

use super::{Answer, At, Desk, Out, machine::asked};
use crate::{files::read, files_tests};
use anyhow::{Context as _, bail};
use portcullis_domain::{Action, Clock as _, Holder, HypervisorName, SystemClock, counted};
use portcullis_governance::{
    By, Change, Files, Ground, Plan, Shift, Side, Turn, compare, replay, rights_of, take_rights,
};
use portcullis_policy::{Engine, Given, GrantRow, Line, MemberRow, Set, Who};
use portcullis_store::{Decided, GroupSource, PolicyVersion};
use serde::Serialize;
use serde_json::json;
use std::{collections::HashMap, path::Path};
use time::{Duration, format_description::well_known::Rfc3339};

/// Operations that a simulation asks again at most.
const MOST_ASKED: u32 = 1_000_000;
/// Things that one line names.
const NAMES: usize = 12;

/// Reads a set, has Casbin read its roles too, and runs its tests. Nothing is asked of the store.
pub(super) async fn check(path: &Path, out: &Out) -> anyhow::Result<Answer> {
    let files = read(path)?;
    let checked = async {
        let set = files.set()?;
        let engine = Engine::load(&rights_of(&set)).await?;
        anyhow::Ok(files_tests::run(&engine, &set, &files)?)
    };
    let (wrong, tests) = match checked.await {
        Ok(told) => (told.failed, told.passed),
        Err(error) => (vec![error.to_string()], 0),
    };
    let words = match (wrong.is_empty(), tests) {
        (true, 0) => format!("{}: good", path.display()),
        (true, n) => format!("{}: good, and {n} tests hold", path.display()),
        (false, _) => format!("{}: {}", path.display(), wrong.join("\n")),
    };
    let good = wrong.is_empty();
    let wrong = (!good).then(|| wrong.join("\n"));
    out.tell(&json!({ "file": path, "good": good, "wrong": wrong, "tests": tests }), &words);
    Ok(if good { Answer::Yes } else { Answer::No })
}

#[derive(Serialize)]
struct ShiftLine {
    who: String,
    turn: Turn,
    actions: Vec<Action>,
    on: Vec<String>,
}

impl Desk {
    /// The roles in effect: of the newest version of the files, or those that come with the gateway.
    pub(super) async fn engine(&self) -> anyhow::Result<Engine> {
        let engine = Engine::builtin().await?;
        take_rights(&engine, self.store.policy_version().await?.as_ref()).await?;
        Ok(engine)
    }

    async fn plan(&self, files: &Files) -> anyhow::Result<(Engine, Plan)> {
        let engine = self.engine().await?;
        let plan = self.grants(&engine)?.plan(&engine, files).await?;
        Ok((engine, plan))
    }

    fn hypervisors(&self) -> Vec<HypervisorName> {
        self.config.hypervisors.iter().map(|h| h.name().clone()).collect()
    }
}

fn line(shift: &Shift, names: &HashMap<Holder, String>) -> ShiftLine {
    ShiftLine {
        who: names.get(&shift.user.into()).cloned().unwrap_or_default(),
        turn: shift.turn,
        actions: shift.actions.clone(),
        on: shift.on.iter().map(ToString::to_string).collect(),
    }
}

fn say(line: &ShiftLine) -> String {
    let ShiftLine { who, turn, actions, on } = line;
    let more = if on.len() > NAMES { format!(" and {} more", on.len() - NAMES) } else { String::new() };
    let on: Vec<&str> = on.iter().take(NAMES).map(String::as_str).collect();
    format!("{who} {} on {}{more}: {}", turn.word(), on.join(", "), Action::deeds(actions))
}

/// Says who would gain and lose what.
pub(super) async fn diff(path: &Path, at: &At) -> anyhow::Result<Answer> {
    let (files, desk) = (read(path)?, at.open().await?);
    let (engine, plan) = desk.plan(&files).await?;
    let (inventory, hypervisors) = (asked(at).await?.inventory(), desk.hypervisors());
    let ground = Ground { inventory: &inventory, hypervisors: &hypervisors, now: SystemClock.now() };
    let before = Side { engine: &engine, held: &plan.before };
    let after = Side { engine: &plan.engine, held: &plan.after };
    let names = desk.store.holder_names().await?;
    for shift in compare(before, after, ground) {
        let line = line(&shift, &names);
        at.out.tell(&serde_json::to_value(&line)?, &say(&line));
    }
    let (come, go) = (plan.change.add.len(), plan.revoke.len());
    let words = format!(
        "version {}: {}, {}",
        plan.number,
        counted(come, "grant comes", "grants come"),
        counted(go, "goes", "go")
    );
    at.out.tell(&json!({ "version": plan.number, "sha256": plan.hash, "come": come, "go": go }), &words);
    Ok(if plan.is_empty() { Answer::No } else { Answer::Yes })
}

/// Takes a set over: its tests hold, its event is durable, then everything changes at once.
pub(super) async fn apply(path: Option<&Path>, why: &str, at: &At) -> anyhow::Result<Answer> {
    let desk = at.open().await?;
    let only = desk.config.policy.directory.as_deref();
    let path = match (path, only) {
        (None, None) => bail!("name the folder of the files"),
        (Some(path), None) => path,
        (None, Some(folder)) => folder,
        (Some(path), Some(folder)) if std::fs::canonicalize(path)? == std::fs::canonicalize(folder)? => folder,
        (Some(_), Some(folder)) => bail!("{} is the only source of the policy here", folder.display()),
    };
    let files = read(path)?;
    files.set()?;
    if let Err(wrong) = crate::files::try_tests(&files).await {
        at.out.tell(&json!({ "applied": false, "wrong": wrong.lines().collect::<Vec<_>>() }), &wrong);
        return Ok(Answer::No);
    }
    take_over(&desk, &files, why, at).await
}

async fn take_over(desk: &Desk, files: &Files, why: &str, at: &At) -> anyhow::Result<Answer> {
    let engine = desk.engine().await?;
    let grants = desk.seeing(at, &engine).await?;
    let plan = grants.plan(&engine, files).await?;
    let words = format!("version {} with SHA-256 {} is taken over: {why}", plan.number, plan.hash);
    let change = Change::Files(files.clone(), why.to_owned());
    if let Some(waits) = desk.wait(at, &grants, &engine, &change, &words, why).await? {
        return Ok(waits);
    }
    let take = async { Ok(grants.apply(&engine, By::Shell, files, why).await?) };
    let version = Box::pin(desk.act("policy", "gateway:policy", &words, take)).await?;
    let told = json!({ "applied": true, "version": version.number, "sha256": version.hash });
    at.out.tell(&told, &format!("Version {} is in effect. SHA-256 {}", version.number, version.hash));
    Ok(Answer::Yes)
}

/// Takes an older version over again, as a new one.
pub(super) async fn rollback(number: u32, why: &str, at: &At) -> anyhow::Result<Answer> {
    let desk = at.open().await?;
    if let Some(only) = desk.grants(&desk.engine().await?)?.only_files() {
        bail!("{only}");
    }
    let versions = desk.store.policy_versions().await?;
    let old = versions.iter().find(|v| v.number == number);
    let old = old.with_context(|| format!("there is no version {number}; see: portcullis policy history"))?;
    let why = if why.is_empty() { format!("back to version {number}") } else { why.to_owned() };
    take_over(&desk, &Files::of(old)?, &why, at).await
}

#[derive(Serialize)]
struct VersionLine {
    version: u32,
    applied: String,
    by: String,
    why: String,
    sha256: String,
}

/// Lists every version.
pub(super) async fn history(at: &At) -> anyhow::Result<Answer> {
    let versions = at.open().await?.store.policy_versions().await?.into_iter();
    let line = |v: PolicyVersion| VersionLine {
        version: v.number,
        applied: v.applied_at.format(&Rfc3339).unwrap_or_default(),
        by: v.applied_by,
        why: v.why,
        sha256: v.hash,
    };
    at.print(&versions.map(line).collect::<Vec<_>>(), &["version", "applied", "by", "why", "sha256"])?;
    Ok(Answer::Yes)
}

/// Writes what is in effect as files: roles, grants that count or will, and members of groups that are kept here.
pub(super) async fn export(folder: &Path, at: &At) -> anyhow::Result<Answer> {
    let desk = at.open().await?;
    let (now, store) = (SystemClock.now(), &desk.store);
    let mut files = match store.policy_version().await? {
        Some(version) => Files::of(&version)?,
        None => Files::default(),
    };
    let roles = if files.0.is_empty() { Set::read(portcullis_policy::RULES)? } else { files.set()? };
    let roles = rights_of(&roles);
    let people: HashMap<_, _> = store.users().await?.into_iter().map(|u| (u.id, u.name)).collect();
    let groups = store.all_groups().await?;
    let line = || Line { file: "".into(), number: 0 };
    let who = |holder: &Holder| match holder {
        Holder::Person(user) => people.get(user).cloned().map(Who::Person),
        Holder::Group(id) => groups.iter().find(|g| g.id == *id).map(|g| Who::Group(g.name.clone())),
    };
    let mut set = Set::default();
    for held in store.grants().await?.into_iter().filter(|h| h.grant.until.is_none_or(|u| now < u)) {
        if let Some(who) = who(&held.holder) {
            let row = GrantRow { line: line(), who, given: Given::of(&held.grant) };
            if !set.grants.iter().any(|g| g.who == row.who && g.given == row.given) {
                set.grants.push(row);
            }
        }
    }
    for group in groups.iter().filter(|g| g.source == GroupSource::Local) {
        for person in group.members.iter().filter_map(|u| people.get(u)) {
            set.members.push(MemberRow { line: line(), person: person.clone(), group: group.name.clone() });
        }
    }
    files.0.retain(|name, _| name.starts_with("tests/"));
    files.0.insert("roles.csv".to_owned(), roles);
    files.0.insert("grants.csv".to_owned(), set.to_string());
    std::fs::create_dir_all(folder.join("tests"))?;
    for (name, text) in &files.0 {
        use std::io::Write as _;
        let path = folder.join(name);
        let file = std::fs::File::options().write(true).create_new(true).open(&path);
        file.and_then(|mut f| f.write_all(text.as_bytes())).with_context(|| format!("{}", path.display()))?;
    }
    at.out.tell(&json!({ "files": files.0.keys().collect::<Vec<_>>() }), &format!("{} files.", files.0.len()));
    Ok(Answer::Yes)
}

/// Asks the operations of the last days again, as if the set had been in effect.
pub(super) async fn simulate(path: &Path, days: u32, at: &At) -> anyhow::Result<Answer> {
    let (files, desk) = (read(path)?, at.open().await?);
    let (engine, plan) = desk.plan(&files).await?;
    let now = SystemClock.now();
    let past = desk.store.decided_since(now - Duration::days(i64::from(days)), MOST_ASKED).await?;
    let (inventory, hypervisors) = (asked(at).await?.inventory(), desk.hypervisors());
    let ground = Ground { inventory: &inventory, hypervisors: &hypervisors, now };
    let before = Side { engine: &engine, held: &plan.before };
    let after = Side { engine: &plan.engine, held: &plan.after };
    let sum = replay(past, before, after, ground);
    for one in &sum.otherwise {
        let Decided { at: when, user_name, action, resource, .. } = &one.asked;
        let when = when.format(&Rfc3339).unwrap_or_default();
        let verdict = if one.turn == Turn::Gains { "let through" } else { "refused" };
        let told = json!({ "at": when, "who": user_name, "action": action.word(), "on": resource, "verdict": verdict });
        at.out.tell(&told, &format!("{when} {user_name}: {resource}: {} would be {verdict}", action.deed()));
    }
    let (asked, otherwise, unknown) = (sum.asked, sum.otherwise.len(), sum.unknown);
    let words = format!(
        "{} in {}: {otherwise} would be decided otherwise; {unknown} cannot be asked again: of people or on things that are \
         not known any more",
        counted(asked, "operation", "operations"),
        counted(days, "day", "days"),
    );
    at.out.tell(&json!({ "asked": asked, "otherwise": otherwise, "unknown": unknown }), &words);
    Ok(if otherwise == 0 { Answer::Yes } else { Answer::No })
}
