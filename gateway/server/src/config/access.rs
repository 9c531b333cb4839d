// SPDX-License-Identifier: Apache-2.0
//! Access requests and roles that are kept apart, as the configuration names them.

use portcullis_domain::{Conditions, Hours, Network, RoleName, Selector};
use portcullis_governance::{Auto, Conflict, Duties, Owner, Rule};
use portcullis_policy::Engine;
use serde::Deserialize;
use std::path::PathBuf;
use time::Duration;

/// `[policy]`
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PolicySection {
    /// Sets of roles of which nobody may hold more than one.
    #[serde(default, rename = "conflict")]
    pub conflicts: Vec<ConflictSection>,
}

/// `[[policy.conflict]]`
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ConflictSection {
    /// The roles.
    pub roles: Vec<RoleName>,
    /// Why, for people.
    #[serde(default)]
    pub words: String,
}

impl PolicySection {
    /// What is kept apart, under a policy.
    pub fn duties(&self, engine: &Engine) -> Result<Duties, String> {
        let sets = self.conflicts.iter().map(|c| Conflict { roles: c.roles.clone(), words: c.words.clone() });
        Duties::new(engine, sets.collect())
    }
}

/// `[requests]`
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Requests {
    /// How many people must approve what no rule speaks of.
    pub approvals: u32,
    /// The longest time for which it gives access, in hours.
    pub longest_hours: u32,
    /// Where each step is told as signed JSON: an `https` address.
    pub webhook: Option<String>,
    /// A file with the secret that signs it: 32 bytes or more.
    pub webhook_secret_file: Option<PathBuf>,
    /// The authorities of its certificate; those of the system where this is not there.
    pub webhook_ca_file: Option<PathBuf>,
    /// The rules; the first that speaks of a request counts.
    #[serde(rename = "rule")]
    pub rules: Vec<RuleSection>,
}

impl Default for Requests {
    fn default() -> Self {
        let (webhook, webhook_secret_file, webhook_ca_file) = (None, None, None);
        Self { approvals: 1, longest_hours: 14 * 24, webhook, webhook_secret_file, webhook_ca_file, rules: Vec::new() }
    }
}

/// `[[requests.rule]]`
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RuleSection {
    /// What people call it.
    pub name: String,
    /// The roles that it speaks of; all where none is named.
    #[serde(default)]
    pub roles: Vec<RoleName>,
    /// What it speaks of; everything where nothing is named.
    #[serde(default)]
    pub on: Vec<String>,
    /// Who decides: names of people, and `group:NAME`.
    #[serde(default)]
    pub owners: Vec<String>,
    /// How many must approve.
    #[serde(default = "one")]
    pub approvals: u32,
    /// The longest time for which it gives access, in hours.
    #[serde(default = "day")]
    pub longest_hours: u32,
    /// The group whose requests it approves by itself.
    pub auto_approve: Option<String>,
    /// The hours in which it does, in UTC.
    pub auto_hours: Option<String>,
    /// Whether consoles must be recorded.
    #[serde(default = "yes")]
    pub record: bool,
    /// How old a fresh factor may be, in seconds.
    #[serde(default = "window")]
    pub step_up_seconds: u32,
    /// The networks from which the access counts; empty: from everywhere.
    #[serde(default)]
    pub networks: Vec<Network>,
}

const fn one() -> u32 {
    1
}

const fn day() -> u32 {
    24
}

const fn yes() -> bool {
    true
}

const fn window() -> u32 {
    300
}

/// The longest time that access can be given for, in hours: a year.
const LONGEST_HOURS: u32 = 366 * 24;

fn approvals(n: u32) -> Result<u32, String> {
    if (1..=10).contains(&n) { Ok(n) } else { Err("approvals: 1 to 10 people can be asked".to_owned()) }
}

fn longest(hours: u32) -> Result<Duration, String> {
    let fits = (1..=LONGEST_HOURS).contains(&hours);
    let wrong = || format!("longest_hours: access lasts from 1 to {LONGEST_HOURS} hours");
    if fits { Ok(Duration::hours(i64::from(hours))) } else { Err(wrong()) }
}

impl Requests {
    /// What holds where no rule speaks.
    pub fn otherwise(&self) -> Result<Rule, String> {
        let (approvals, longest) = (approvals(self.approvals)?, longest(self.longest_hours)?);
        Ok(Rule { approvals, longest, ..Rule::default() })
    }

    /// The rules, read.
    pub fn read(&self) -> Result<Vec<Rule>, String> {
        match (&self.webhook, &self.webhook_secret_file) {
            (Some(at), Some(_)) if at.starts_with("https://") => {}
            (Some(_), Some(_)) => return Err("webhook: use an https address".to_owned()),
            (Some(_), None) => return Err("webhook: name webhook_secret_file too, so that it can be signed".to_owned()),
            (None, _) => {}
        }
        self.rules.iter().map(|rule| rule.read().map_err(|why| format!("rule {:?}: {why}", rule.name))).collect()
    }
}

impl RuleSection {
    fn read(&self) -> Result<Rule, String> {
        let named = (1..=64).contains(&self.name.chars().count()) && !self.name.chars().any(char::is_control);
        if !named {
            return Err("a name is 1 to 64 characters on one line".to_owned());
        }
        let selector = |on: &String| {
            let (kind, value) = on.split_once(':').unwrap_or((on, ""));
            Selector::parse(kind, value).map_err(|e| format!("on: {e}"))
        };
        let owner = |name: &String| match name.split_once(':') {
            Some(("group", group)) if !group.is_empty() => Ok(Owner::Group(group.to_owned())),
            None if !name.is_empty() => Ok(Owner::Person(name.clone())),
            _ => Err(format!("owners: {name:?} is neither the name of a person nor group:NAME")),
        };
        let hours = self.auto_hours.as_ref().map(|text| text.parse::<Hours>().map_err(|e| format!("auto_hours: {e}")));
        let hours = hours.transpose()?;
        if hours.as_ref().is_some_and(|hours| hours.zone() != "UTC") {
            return Err("auto_hours: write them in UTC".to_owned());
        }
        if hours.is_some() && self.auto_approve.is_none() {
            return Err("auto_hours: name the group in auto_approve".to_owned());
        }
        if self.step_up_seconds > 86_400 {
            return Err("step_up_seconds: at most a day".to_owned());
        }
        Ok(Rule {
            name: self.name.clone(),
            roles: self.roles.clone(),
            on: self.on.iter().map(selector).collect::<Result<_, _>>()?,
            owners: self.owners.iter().map(owner).collect::<Result<_, _>>()?,
            approvals: approvals(self.approvals)?,
            longest: longest(self.longest_hours)?,
            auto: self.auto_approve.clone().map(|group| Auto { group, hours }),
            conditions: Conditions {
                step_up_seconds: self.step_up_seconds,
                record: self.record,
                networks: self.networks.clone(),
                ..Conditions::default()
            },
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Result<Vec<Rule>, String> {
        toml::from_str::<Requests>(text).map_err(|e| e.to_string())?.read()
    }

    #[test]
    fn a_rule_is_read_whole() {
        let rules = read(
            "[[rule]]\nname = \"web\"\nroles = [\"operator\"]\non = [\"tag:web\", \"pool:lab/prod\"]\n\
             owners = [\"ada\", \"group:web owners\"]\napprovals = 2\nlongest_hours = 8\nauto_approve = \"on-call\"\n\
             auto_hours = \"mon-fri 18:00-06:00 UTC\"\nrecord = false\n",
        )
        .unwrap();
        assert_eq!(rules[0].owners, [Owner::Person("ada".into()), Owner::Group("web owners".into())]);
        assert_eq!(rules[0].on, [Selector::Tag("web".into()), Selector::Pool("lab".parse().unwrap(), "prod".into())]);
        assert_eq!((rules[0].approvals, rules[0].longest), (2, Duration::hours(8)));
        assert!(!rules[0].conditions.record && rules[0].auto.as_ref().unwrap().hours.is_some());
    }

    #[test]
    fn a_rule_that_makes_no_sense_is_refused_by_its_name() {
        for (line, word) in [
            ("on = [\"web\"]", "selector"),
            ("owners = [\"groups:x\"]", "owners"),
            ("owners = [\"\"]", "owners"),
            ("approvals = 0", "approvals"),
            ("longest_hours = 0", "longest_hours"),
            ("longest_hours = 9000", "longest_hours"),
            ("auto_hours = \"mon 08:00-09:00 UTC\"", "auto_approve"),
            ("auto_approve = \"x\"\nauto_hours = \"mon 08:00-09:00 Europe/Berlin\"", "UTC"),
            ("owner = [\"x\"]", "owner"),
        ] {
            let why = read(&format!("[[rule]]\nname = \"web\"\n{line}\n")).unwrap_err();
            assert!(why.contains(word), "{line}: {why}");
        }
        assert!(read("webhook = \"https://x\"").unwrap_err().contains("webhook_secret_file"));
        assert!(read("webhook = \"http://x\"\nwebhook_secret_file = \"x\"").unwrap_err().contains("https"));
    }
}
