// SPDX-License-Identifier: Apache-2.0
//! Casbin, with its answers kept. The only file that knows the crate.
//!
//! Casbin evaluates every rule on every call: 40 microseconds for the rules that come with the gateway. Its answer
//! depends on nothing but (roles, kind, action) and the snapshot, so each is asked once a snapshot and kept.

use crate::{
    Error, Kind,
    rights::questions,
    roleset::RoleSet,
    rules::{Rule, Rules},
};
use ahash::RandomState;
use casbin::{CoreApi as _, DefaultModel, Enforcer, MgmtApi as _, Model, function_map::dynamic_to_str, rhai::Dynamic};
use portcullis_domain::Action;
use std::{
    collections::{HashMap, HashSet},
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{PoisonError, RwLock},
};

/// Casbin knows four effects by their exact spelling and panics on any other. This one is deny-overrides.
const EFFECT: &str = "some(where (p_eft == allow)) && !some(where (p_eft == deny))";
const REQUEST: [&str; 3] = ["r_roles", "r_kind", "r_act"];
const POLICY: [&str; 4] = ["p_role", "p_kind", "p_act", "p_eft"];

/// What Casbin said.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Verdict {
    Allow,
    Deny,
    /// It failed or panicked: whoever asks treats it as a denial.
    Fault,
}

/// A question in full. The map compares it in full too: a hash alone never decides.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
struct Question {
    roles: RoleSet,
    kind: Kind,
    action: Action,
}

const SHARDS: usize = 16;
/// Answers kept in one shard: with sixteen of them, 65,536 in all (about 4 MiB). A full shard is emptied.
const KEPT: usize = 4096;

/// One policy snapshot as Casbin holds it.
pub(crate) struct Judge {
    enforcer: Enforcer,
    answers: [RwLock<HashMap<Question, bool, RandomState>>; SHARDS],
    hasher: RandomState,
}

/// The matcher's function: whether `role` is one of the words of `roles`. Neither can be empty by accident: an empty
/// role matches nothing.
fn holds(roles: &Dynamic, role: &Dynamic) -> bool {
    let (roles, role) = (dynamic_to_str(roles), dynamic_to_str(role));
    !role.is_empty() && roles.split(' ').any(|r| r == role)
}

/// The model, if it is one whose answers depend on what [`Question`] holds and nothing else.
fn check(model: &DefaultModel) -> Result<(), Error> {
    let sections = model.get_model();
    let one = |section: &str| -> Result<_, Error> {
        let wrong = || Error::Model(format!("section {section} must hold exactly one definition, named {section}"));
        let all = sections.get(section).ok_or_else(wrong)?;
        if all.len() == 1 { all.get(section).ok_or_else(wrong) } else { Err(wrong()) }
    };
    if one("r")?.tokens != REQUEST {
        return Err(Error::Model("the request must be: r = roles, kind, act".to_owned()));
    }
    if one("p")?.tokens != POLICY {
        return Err(Error::Model("the policy must be: p = role, kind, act, eft".to_owned()));
    }
    if one("e")?.value != EFFECT {
        let right = EFFECT.replace("p_eft", "p.eft");
        return Err(Error::Model(format!("the effect must be, to the letter: e = {right}")));
    }
    one("m")?;
    if sections.contains_key("g") {
        return Err(Error::Model("no role_definition: inheritance is worked out before Casbin is asked".to_owned()));
    }
    Ok(())
}

/// A bare Casbin with these rows of a set.
async fn build(model: &str, rows: &[Rule], rules: &Rules) -> Result<Enforcer, Error> {
    let model = DefaultModel::from_str(model).await.map_err(Error::Casbin)?;
    check(&model)?;
    let mut enforcer = Enforcer::new(model, ()).await.map_err(Error::Casbin)?;
    enforcer
        .add_function("holds", casbin::function_map::OperatorFunction::Arg2(|roles, role| holds(&roles, &role).into()));
    let columns: Vec<Vec<String>> = rows
        .iter()
        .filter_map(|r| {
            let name = rules.role(r.role)?.name.to_string();
            Some(vec![name, r.kind.to_string(), r.action.to_string(), r.effect.word().to_owned()])
        })
        .collect();
    // All or nothing: false means that some row was there before, and then none was added.
    if !enforcer.add_policies(columns).await.map_err(Error::Casbin)? {
        return Err(Error::Set("two rows are the same".to_owned()));
    }
    Ok(enforcer)
}

impl Judge {
    /// Casbin with these rules, tried once: whoever holds no role must be denied everything.
    pub(crate) async fn new(model: &str, rules: &Rules) -> Result<Self, Error> {
        let judge = Self::over(build(model, &rules.rows, rules).await?);
        // One row of each sort and of each role stands for the rest: asking over all of 10,000 rows takes seconds.
        let (mut sorts, mut roles) = (HashSet::new(), HashSet::new());
        let sample: Vec<Rule> = rules
            .rows
            .iter()
            .filter(|r| sorts.insert((r.kind, r.action, r.effect)) | roles.insert(r.role.place()))
            .cloned()
            .collect();
        let sample = Self::over(build(model, &sample, rules).await?);
        for (kind, action) in questions() {
            if sample.ask("", kind, action) != Verdict::Deny {
                return Err(Error::Model(format!("it lets somebody without a role do {action} on a {kind}")));
            }
        }
        Ok(judge)
    }

    fn over(enforcer: Enforcer) -> Self {
        let answers = std::array::from_fn(|_| RwLock::new(HashMap::with_hasher(RandomState::new())));
        Self { enforcer, answers, hasher: RandomState::new() }
    }

    /// Casbin's own answer, not kept.
    pub(crate) fn ask(&self, roles: &str, kind: Kind, action: Action) -> Verdict {
        // Casbin and its script engine may panic; nothing of ours is left half-done by that.
        let asked = catch_unwind(AssertUnwindSafe(|| self.enforcer.enforce((roles, kind.word(), action.word()))));
        match asked {
            Ok(Ok(true)) => Verdict::Allow,
            Ok(Ok(false)) => Verdict::Deny,
            Ok(Err(error)) => {
                tracing::error!(%error, %kind, %action, "the policy could not be evaluated: denied");
                Verdict::Fault
            }
            Err(_) => {
                tracing::error!(%kind, %action, "the policy engine panicked: denied");
                Verdict::Fault
            }
        }
    }

    /// Casbin's answer, from memory if it was given before.
    pub(crate) fn verdict(&self, rules: &Rules, roles: RoleSet, kind: Kind, action: Action) -> Verdict {
        if roles.is_empty() {
            return Verdict::Deny;
        }
        let question = Question { roles, kind, action };
        let place = usize::try_from(self.hasher.hash_one(question) >> 60).unwrap_or(0);
        let Some(shard) = self.answers.get(place) else { return Verdict::Fault };
        // A poisoned lock is still whole: entries are inserted in one call.
        if let Some(allowed) = shard.read().unwrap_or_else(PoisonError::into_inner).get(&question) {
            return if *allowed { Verdict::Allow } else { Verdict::Deny };
        }
        let verdict = self.ask(&rules.names(roles), kind, action);
        if verdict != Verdict::Fault {
            let mut shard = shard.write().unwrap_or_else(PoisonError::into_inner);
            if shard.len() >= KEPT {
                shard.clear();
            }
            shard.insert(question, verdict == Verdict::Allow);
        }
        verdict
    }

    #[cfg(test)]
    pub(crate) fn kept(&self) -> usize {
        self.answers.iter().map(|s| s.read().unwrap().len()).sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{MODEL, roleset::RoleIndex};

    async fn refused(model: &str) -> String {
        let rules = Rules::read(crate::RULES).unwrap();
        match Judge::new(model, &rules).await {
            Err(e) => e.to_string(),
            Ok(_) => panic!("was taken: {model}"),
        }
    }

    #[tokio::test]
    async fn a_model_that_cannot_be_relied_on_is_refused() {
        for (from, to) in [
            ("p.eft == deny", "p.eft==deny"),
            ("some(where (p.eft == allow)) && !some(where (p.eft == deny))", "!some(where (p.eft == deny))"),
            ("some(where (p.eft == allow)) && !some(where (p.eft == deny))", "some(where (p.eft == allow))"),
            ("r = roles, kind, act", "r = roles, kind"),
            ("p = role, kind, act, eft", "p = role, kind, act"),
            ("[matchers]", "[role_definition]\ng = _, _\n[matchers]"),
            ("m = r.kind == p.kind && r.act == p.act && holds(r.roles, p.role)", "m = true"),
            ("m = r.kind == p.kind && r.act == p.act && holds(r.roles, p.role)", "m = nothing(r.roles)"),
            ("m = r.kind == p.kind && r.act == p.act && holds(r.roles, p.role)", "m = r.kind =="),
            ("[policy_effect]", "[nothing]"),
        ] {
            let model = MODEL.replace(from, to);
            assert_ne!(model, MODEL, "{from}");
            refused(&model).await;
        }
    }

    #[tokio::test]
    async fn a_panic_or_an_error_of_the_engine_is_no_permission() {
        let rules = Rules::read(crate::RULES).unwrap();
        // keyMatch slices the request at a byte offset: a letter of two bytes at the wrong place panics.
        let model = MODEL.replace("holds(r.roles, p.role)", "(holds(r.roles, p.role) || keyMatch(r.roles, \"é*\"))");
        let judge = Judge::over(build(&model, &rules.rows, &rules).await.unwrap());
        assert_ne!(judge.ask("xé", Kind::Machine, Action::View), Verdict::Allow);
        let model = MODEL.replace("holds(r.roles, p.role)", "nowhere(r.roles)");
        let judge = Judge::over(build(&model, &rules.rows, &rules).await.unwrap());
        assert_eq!(judge.ask("viewer", Kind::Machine, Action::View), Verdict::Fault);
    }

    #[tokio::test]
    async fn what_is_kept_is_bounded_and_never_a_fault() {
        let lines: Vec<String> = (0..20).map(|i| format!("p, r{i}, machine, view, allow")).collect();
        let rules = Rules::read(&lines.join("\n")).unwrap();
        let judge = Judge::new(MODEL, &rules).await.unwrap();
        // Fill by hand: asking Casbin 100,000 times would take a minute.
        for n in 0..100_000u32 {
            let mut roles = RoleSet::EMPTY;
            (0..20).filter(|b| n >> b & 1 == 1).for_each(|b| roles.insert(RoleIndex::new(b).unwrap()));
            let question = Question { roles, kind: Kind::Machine, action: Action::View };
            let place = usize::try_from(judge.hasher.hash_one(question) >> 60).unwrap();
            let mut shard = judge.answers[place].write().unwrap();
            if shard.len() < KEPT {
                shard.insert(question, false);
            }
        }
        assert_eq!(judge.kept(), SHARDS * KEPT);
        let mut roles = RoleSet::EMPTY;
        roles.insert(RoleIndex::new(0).unwrap());
        assert_eq!(judge.verdict(&rules, roles, Kind::Machine, Action::Power), Verdict::Deny);
        assert!(judge.kept() <= SHARDS * KEPT);
    }

    #[test]
    fn holding_is_being_a_whole_word_of_the_list() {
        let h = |roles: &str, role: &str| holds(&Dynamic::from(roles.to_owned()), &Dynamic::from(role.to_owned()));
        assert!(h("a b-c", "b-c"));
        for (roles, role) in
            [("a b-c", "b"), ("a b-c", "c"), ("a b-c", "a b-c"), ("a", ""), ("", ""), ("ab", "a"), ("a", "ab")]
        {
            assert!(!h(roles, role), "{roles:?} {role:?}");
        }
    }
}
