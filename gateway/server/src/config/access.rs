// SPDX-License-Identifier: Apache-2.0
//! Access requests and roles that are kept apart, as the configuration names them.

use portcullis_domain::{Conditions, Hours, Network, RoleName, Selector};
use portcullis_governance::{Auto, Conflict, Duties, FourEyes, Guard, Owner, Rule};
use portcullis_policy::Engine;
use serde::Deserialize;
use std::path::PathBuf;
use time::Duration;

/// `[policy]`
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PolicySection {
    /// Sets of roles of which nobody may hold more than one.
    #[serde(default)]
    pub conflict: Vec<ConflictSection>,
    /// Whether pages and shells say who may do what, beside files.
    #[serde(default)]
    pub source: PolicySource,
    /// The folder of the files, where they are the only source.
    pub directory: Option<PathBuf>,
    /// What takes two people.
    pub four_eyes: Option<FourEyesSection>,
}

/// What says who may do what.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum PolicySource {
    /// Pages, shells and files.
    #[default]
    Any,
    /// The files of one folder alone.
    Files,
}

/// `[policy.four_eyes]`
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FourEyesSection {
    /// Grants on these take two people.
    #[serde(default)]
    pub on: Vec<String>,
    /// Grants of what holds one of these rights do.
    #[serde(default)]
    pub rights: Vec<RoleName>,
    /// Whether every set of files does.
    #[serde(default)]
    pub files: bool,
    /// How long a proposal waits, in hours.
    #[serde(default = "three_days")]
    pub hours: u32,
}

const fn three_days() -> u32 {
    72
}

fn selector(on: &str) -> Result<Selector, String> {
    let (kind, value) = on.split_once(':').unwrap_or((on, ""));
    Selector::parse(kind, value).map_err(|e| format!("on: {e}"))
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
    /// What is changed in files only, and what takes two people.
    pub fn guard(&self) -> Result<Guard, String> {
        let only = match (self.source, &self.directory) {
            (PolicySource::Any, None) => None,
            (PolicySource::Files, Some(folder)) => Some(folder.display().to_string()),
            (PolicySource::Files, None) => return Err("directory: name the folder of the files".to_owned()),
            (PolicySource::Any, Some(_)) => {
                return Err("directory: it is read where source = \"files\" only".to_owned());
            }
        };
        let Some(eyes) = &self.four_eyes else { return Ok(Guard::new(only, None)) };
        let wrong = |why: String| format!("four_eyes: {why}");
        if eyes.on.is_empty() && eyes.rights.is_empty() && !eyes.files {
            return Err(wrong("name what takes two people in on, rights or files".to_owned()));
        }
        if !(1..=30 * 24).contains(&eyes.hours) {
            return Err(wrong("hours: a proposal waits from 1 hour to 30 days".to_owned()));
        }
        if let Some(role) = eyes.rights.iter().find(|right| right.right().is_none()) {
            return Err(wrong(format!("rights: {role} is a role; name rights such as hypervisor/access-admin")));
        }
        let eyes = FourEyes {
            on: eyes.on.iter().map(|on| selector(on)).collect::<Result<_, _>>().map_err(wrong)?,
            rights: eyes.rights.clone(),
            files: eyes.files,
            lasts: Duration::hours(i64::from(eyes.hours)),
        };
        Ok(Guard::new(only, Some(eyes)))
    }

    /// What is kept apart, under a policy.
    pub fn duties(&self, engine: &Engine) -> Result<Duties, String> {
        let sets = self.conflict.iter().map(|c| Conflict { roles: c.roles.clone(), words: c.words.clone() });
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
    pub rule: Vec<RuleSection>,
}

impl Default for Requests {
    fn default() -> Self {
        let (webhook, webhook_secret_file, webhook_ca_file) = (None, None, None);
        Self { approvals: 1, longest_hours: 14 * 24, webhook, webhook_secret_file, webhook_ca_file, rule: Vec::new() }
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
    /// The hours in which it does.
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
        self.rule.iter().map(|rule| rule.read().map_err(|why| format!("rule {:?}: {why}", rule.name))).collect()
    }
}

impl RuleSection {
    fn read(&self) -> Result<Rule, String> {
        let named = (1..=64).contains(&self.name.chars().count()) && !self.name.chars().any(char::is_control);
        if !named {
            return Err("a name is 1 to 64 characters on one line".to_owned());
        }
        let owner = |name: &String| match name.split_once(':') {
            Some(("group", group)) if !group.is_empty() => Ok(Owner::Group(group.to_owned())),
            None if !name.is_empty() => Ok(Owner::Person(name.clone())),
            _ => Err(format!("owners: {name:?} is neither the name of a person nor group:NAME")),
        };
        let hours = self.auto_hours.as_ref().map(|text| text.parse::<Hours>().map_err(|e| format!("auto_hours: {e}")));
        let hours = hours.transpose()?;
        if let Some(hours) = hours.as_ref().filter(|hours| !portcullis_policy::knows_zone(hours)) {
            return Err(format!("auto_hours: {:?} is no time zone that this machine knows", hours.zone()));
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
            on: self.on.iter().map(|on| selector(on)).collect::<Result<_, _>>()?,
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
    fn what_guards_changes_is_read_whole_or_refused_by_its_key() {
        let read = |text: &str| {
            let section = toml::from_str::<PolicySection>(text).map_err(|e| e.to_string())?;
            section.guard().map(|guard| guard.has_four_eyes())
        };
        assert_eq!(read(""), Ok(false));
        assert_eq!(read("source = \"files\"\ndirectory = \"policy\""), Ok(false));
        let eyes = "[four_eyes]\non = [\"tag:prod\"]\nrights = [\"hypervisor/access-admin\"]\nhours = 8\n";
        assert_eq!(read(eyes), Ok(true));
        for (text, word) in [
            ("source = \"files\"", "directory"),
            ("directory = \"policy\"", "source"),
            ("source = \"pages\"", "pages"),
            ("[four_eyes]\n", "four_eyes"),
            ("[four_eyes]\non = [\"prod\"]", "on"),
            ("[four_eyes]\nfiles = true\nhours = 0", "hours"),
            ("[four_eyes]\nrights = [\"administrator\"]", "administrator is a role"),
            ("[four_eyes]\nrights = [\"machine/session\"]", "right"),
            ("[four_eyes]\nroles = [\"x\"]", "roles"),
        ] {
            assert!(read(text).unwrap_err().contains(word), "{text}");
        }
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
            ("auto_approve = \"x\"\nauto_hours = \"mon 08:00-09:00 Europe/Nowhere\"", "Europe/Nowhere"),
            ("owner = [\"x\"]", "owner"),
        ] {
            let why = read(&format!("[[rule]]\nname = \"web\"\n{line}\n")).unwrap_err();
            assert!(why.contains(word), "{line}: {why}");
        }
        assert!(read("webhook = \"https://x\"").unwrap_err().contains("webhook_secret_file"));
        assert!(read("webhook = \"http://x\"\nwebhook_secret_file = \"x\"").unwrap_err().contains("https"));
    }
}
