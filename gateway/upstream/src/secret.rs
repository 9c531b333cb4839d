// SPDX-License-Identifier: Apache-2.0
//! The hypervisors' secrets as they are in use: where each comes from, and how it changes without a restart.
//!
//! ```text
//! source (file, environment, vault) --read--> in use --rotated: sealed in the store--> in use, the source is not asked
//!                                              |   ^--another one at the source, and it fits--'
//!                                              '--the source fails--> in use still, with a word about it
//! ```
//!
//! A secret that was never there is a fault of whatever needs it, told in words; it never becomes another credential.

mod source;

use crate::{
    config::{Common, read_secret},
    error::{Error, Fault},
    vault::{Failed, Vault},
};
use arc_swap::{ArcSwap, ArcSwapOption};
use portcullis_domain::{Action, Clock, HypervisorName, Secret};
use serde::Deserialize;
pub(crate) use source::{Given, Source};
use std::{
    collections::HashMap,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
};
use time::OffsetDateTime;
use tokio::sync::Notify;

/// The name of the credential that is lent where no other one is for the action.
pub(crate) const DEFAULT: &str = "default";

/// Where a value in use came from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Origin {
    /// Its source, by the configuration.
    Source,
    /// The store, sealed: it was rotated.
    Store,
}

/// Which secret: of which hypervisor, and which of its credentials.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct SecretName {
    /// The hypervisor.
    pub hypervisor: HypervisorName,
    /// `default`, or what the credential is for, such as `console` or `console+power`.
    pub credential: String,
}

impl std::fmt::Display for SecretName {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}/{}", self.hypervisor, self.credential)
    }
}

/// What is known of a secret in use, without the secret.
#[derive(Debug, Clone)]
pub struct SecretState {
    /// Which it is.
    pub name: SecretName,
    /// Where the configuration says that it comes from.
    pub source: String,
    /// Where it does come from.
    pub origin: Origin,
    /// Since when this one is in use; for a file, since when the file is what it is.
    pub since: Option<OffsetDateTime>,
    /// What is wrong with its source, while the last good one stays in use; or why there is none.
    pub trouble: Option<String>,
    /// Whether there is one.
    pub is_there: bool,
}

/// What secrets were rotated, from the store.
pub type Kept = HashMap<SecretName, Secret>;

type Check = Box<dyn Fn(&Secret) -> Result<(), String> + Send + Sync>;

struct State {
    origin: Origin,
    since: Option<OffsetDateTime>,
    trouble: Option<String>,
}

/// A secret in use. No `Debug`, and no way to print it.
pub(crate) struct Held {
    pub(crate) name: SecretName,
    /// Its TOML key, for messages.
    key: String,
    source: Source,
    check: Check,
    value: ArcSwapOption<Secret>,
    state: Mutex<State>,
    /// Whether it was used since somebody asked.
    used: AtomicBool,
    /// Another one is in use: whoever keeps something that was got with it gets it anew.
    pub(crate) changed: Notify,
}

impl Held {
    /// The secret. A fault where there is none, in words.
    pub(crate) fn value(&self) -> Result<Arc<Secret>, Fault> {
        if !self.used.load(Ordering::Relaxed) {
            self.used.store(true, Ordering::Relaxed);
        }
        self.value.load_full().ok_or_else(|| {
            let state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
            let why = state.trouble.clone().unwrap_or_else(|| "it was not read yet".to_owned());
            tracing::warn!(secret = %self.name, source = %self.source, why, "a hypervisor's secret is not there");
            Fault::NoSecret
        })
    }

    /// The same, read anew where that is at hand: a changed file needs no restart.
    pub(crate) fn fresh(&self) -> Result<Arc<Secret>, Fault> {
        if self.origin() == Origin::Source
            && let Some(read) = self.read()
        {
            let unusable = |why: String| {
                tracing::warn!(secret = %self.name, why, "a hypervisor's secret could not be read again");
                Fault::NoSecret
            };
            let (secret, since) = read.map_err(|e| unusable(e.to_string()))?;
            self.replace(secret, Origin::Source, since).map_err(unusable)?;
        }
        self.value()
    }

    /// Takes another one; false where it is the same. Refused, with the old one kept, where it does not fit.
    pub(crate) fn replace(&self, new: Secret, origin: Origin, since: Option<OffsetDateTime>) -> Result<bool, String> {
        if let Err(why) = (self.check)(&new) {
            self.trouble(Some(why.clone()));
            return Err(why);
        }
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        // It was rotated while its source was read.
        if origin == Origin::Source && state.origin == Origin::Store {
            return Ok(false);
        }
        let is_same = self.value.load().as_ref().is_some_and(|old| old.expose() == new.expose());
        *state = State { origin, since, trouble: None };
        if is_same {
            return Ok(false);
        }
        self.value.store(Some(Arc::new(new)));
        drop(state);
        self.changed.notify_one();
        Ok(true)
    }

    fn trouble(&self, why: Option<String>) {
        self.state.lock().unwrap_or_else(PoisonError::into_inner).trouble = why;
    }

    fn origin(&self) -> Origin {
        self.state.lock().unwrap_or_else(PoisonError::into_inner).origin
    }

    fn shown(&self) -> SecretState {
        let state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        SecretState {
            name: self.name.clone(),
            source: self.source.to_string(),
            origin: state.origin,
            since: state.since,
            trouble: state.trouble.clone(),
            is_there: self.value.load().is_some(),
        }
    }

    /// Reads it from where it comes from, if that is at hand. `None`: it has to be fetched.
    fn read(&self) -> Option<Result<(Secret, Option<OffsetDateTime>), Error>> {
        match &self.source {
            Source::File(path) => Some(read_secret(&self.key, path).map(|secret| {
                let changed = std::fs::metadata(path).and_then(|m| m.modified()).ok();
                (secret, changed.map(OffsetDateTime::from))
            })),
            Source::Environment(name) => Some(match std::env::var_os(name).filter(|v| !v.is_empty()) {
                Some(value) => Ok((Secret::new(std::os::unix::ffi::OsStringExt::into_vec(value)), None)),
                None => Err(Error::config(&self.key, format!("the environment has no {name}, or it is empty"))),
            }),
            Source::Given(Given(secret)) => Some(Ok((Secret::clone(secret), None))),
            Source::Vault { .. } => None,
        }
    }
}

#[cfg(test)]
impl Held {
    pub(crate) fn for_tests(value: &str) -> Arc<Self> {
        let name = SecretName { hypervisor: "lab".parse().unwrap(), credential: DEFAULT.to_owned() };
        let value = ArcSwapOption::from_pointee(Secret::from(value.to_owned()));
        let state = Mutex::new(State { origin: Origin::Source, since: None, trouble: None });
        let (source, check) = (Source::Environment("NONE".to_owned()), Box::new(|_: &Secret| Ok(())));
        let (used, changed) = (AtomicBool::new(false), Notify::new());
        Arc::new(Self { name, key: String::new(), source, check, value, state, used, changed })
    }
}

/// That a secret is a text, for those that stand in texts.
pub(crate) fn is_text(secret: &Secret) -> Result<(), String> {
    secret.expose_text().map(drop).ok_or_else(|| "holds no text in UTF-8".to_owned())
}

type Make<T> = Box<dyn Fn(&Secret) -> Result<T, Fault> + Send + Sync>;

/// Something that is made of a secret, and made anew when the secret changes.
pub(crate) struct Derived<T> {
    held: Arc<Held>,
    made: ArcSwapOption<(Arc<Secret>, T)>,
    make: Make<T>,
}

impl<T> Derived<T> {
    pub(crate) fn new(held: Arc<Held>, make: impl Fn(&Secret) -> Result<T, Fault> + Send + Sync + 'static) -> Self {
        Self { held, made: ArcSwapOption::empty(), make: Box::new(make) }
    }

    /// What it is now.
    pub(crate) fn now(&self) -> Result<Arc<(Arc<Secret>, T)>, Fault> {
        let secret = self.held.value()?;
        if let Some(made) = self.made.load_full().filter(|made| Arc::ptr_eq(&made.0, &secret)) {
            return Ok(made);
        }
        let made = (self.make)(&secret)?;
        let made = Arc::new((secret, made));
        self.made.store(Some(Arc::clone(&made)));
        Ok(made)
    }
}

/// What a driver is made at: the common keys, one of the hypervisor's credentials, and the secrets that were rotated.
pub(crate) struct Site<'a> {
    pub(crate) common: Common,
    pub(crate) credential: &'a str,
    pub(crate) kept: &'a Kept,
    pub(crate) held: Vec<Arc<Held>>,
}

impl Site<'_> {
    /// Takes a secret into use: the one from the store where it was rotated, else that of its source. One that a vault
    /// holds is fetched later. `check` says what is wrong with one that does not fit.
    pub(crate) fn hold(
        &mut self,
        word: &str,
        source: Source,
        check: impl Fn(&Secret) -> Result<(), String> + Send + Sync + 'static,
    ) -> Result<Arc<Held>, Error> {
        let key = match self.credential {
            DEFAULT => self.common.key(),
            credential => self.common.key_of(&format!("credentials.{credential}")),
        };
        self.hold_as(self.credential, &key, word, source, check)
    }

    /// The same under a name of its own; `key` is the TOML key of the table that it stands in.
    pub(crate) fn hold_as(
        &mut self,
        credential: &str,
        key: &str,
        word: &str,
        source: Source,
        check: impl Fn(&Secret) -> Result<(), String> + Send + Sync + 'static,
    ) -> Result<Arc<Held>, Error> {
        let key = format!("{key}.{word}{}", if matches!(source, Source::File(_)) { "_file" } else { "" });
        let name = SecretName { hypervisor: self.common.name.clone(), credential: credential.to_owned() };
        let kept = self.kept.get(&name).cloned();
        let state = Mutex::new(State { origin: Origin::Source, since: None, trouble: None });
        let (value, used, changed) = (ArcSwapOption::empty(), AtomicBool::new(false), Notify::new());
        let check = Box::new(check);
        let held = Arc::new(Held { name, key, source, check, value, state, used, changed });
        let wrong = |why: String| Error::config(&held.key, format!("{} {why}", held.source));
        match (kept, held.read()) {
            (Some(kept), _) => held.replace(kept, Origin::Store, None).map_err(wrong).map(drop)?,
            (None, Some(read)) => {
                let (secret, since) = read?;
                held.replace(secret, Origin::Source, since).map_err(wrong).map(drop)?;
            }
            (None, None) => {}
        }
        self.held.push(Arc::clone(&held));
        Ok(held)
    }
}

/// One thing a credential, and which is for which action.
pub(crate) struct Choice<T> {
    pub(crate) default: T,
    pub(crate) others: Vec<(Vec<Duty>, T)>,
}

impl<T> Choice<T> {
    /// The one for an action. Never another one because this one fails.
    pub(crate) fn of(&self, action: Action) -> &T {
        let fits = |duties: &[Duty]| duties.iter().any(|d| d.covers(action));
        self.others.iter().find(|(duties, _)| fits(duties)).map_or(&self.default, |(_, one)| one)
    }

    pub(crate) fn all(&self) -> impl Iterator<Item = &T> {
        std::iter::once(&self.default).chain(self.others.iter().map(|(_, one)| one))
    }
}

/// What a credential is for: an action on hypervisors and machines, or `console` with all its parts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Duty {
    Console,
    Action(Action),
}

impl Duty {
    pub(crate) fn covers(self, action: Action) -> bool {
        match self {
            Self::Console => action.is_console(),
            Self::Action(own) => own == action,
        }
    }

    /// Reads what [`Duty::word`] says.
    pub(crate) fn parse(word: &str) -> Option<Self> {
        if word == "console" {
            return Some(Self::Console);
        }
        let action = word.parse::<Action>().ok().filter(|a| a.is_grantable() && !a.is_own() && !a.is_console());
        action.map(Self::Action)
    }

    pub(crate) const fn word(self) -> &'static str {
        match self {
            Self::Console => "console",
            Self::Action(action) => action.word(),
        }
    }
}

impl<'de> Deserialize<'de> for Duty {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let word = String::deserialize(deserializer)?;
        Self::parse(&word).ok_or_else(|| {
            serde::de::Error::custom(format!(
                "for: {word:?} is no action on a hypervisor: write console, power, configure, snapshot or another one"
            ))
        })
    }
}

/// All secrets in use.
#[derive(Clone, Default)]
pub struct Secrets {
    all: Arc<ArcSwap<Vec<Arc<Held>>>>,
}

impl Secrets {
    /// Those of one more hypervisor. One at a time: the fleet sees to it.
    pub(crate) fn take_in(&self, more: Vec<Arc<Held>>) {
        let now = self.all.load();
        self.all.store(Arc::new(now.iter().cloned().chain(more).collect()));
    }

    /// Forgets those of one that was let go.
    pub(crate) fn let_go(&self, hypervisor: &HypervisorName) {
        let now = self.all.load();
        self.all.store(Arc::new(now.iter().filter(|h| h.name.hypervisor != *hypervisor).cloned().collect()));
    }

    /// What is known of each, without the secrets.
    pub fn states(&self) -> Vec<SecretState> {
        self.all.load().iter().map(|h| h.shown()).collect()
    }

    /// Those that were used since this was asked last.
    pub fn used(&self) -> Vec<SecretName> {
        let all = self.all.load();
        let used = all.iter().filter(|h| h.used.swap(false, Ordering::Relaxed));
        used.map(|h| h.name.clone()).collect()
    }

    /// Takes one that was rotated into use: true where it is another one than before. None of that name: false.
    pub fn take(&self, name: &SecretName, secret: &Secret, since: OffsetDateTime) -> Result<bool, String> {
        let mut is_new = false;
        for held in self.all.load().iter().filter(|h| h.name == *name) {
            is_new |= held.replace(secret.clone(), Origin::Store, Some(since))?;
        }
        Ok(is_new)
    }

    pub(crate) fn value(&self, name: &SecretName) -> Option<Result<Arc<Secret>, Fault>> {
        self.all.load().iter().find(|h| h.name == *name).map(|h| h.value())
    }

    /// Whether one of them comes from a vault.
    pub fn need_vault(&self) -> bool {
        self.all.load().iter().any(|h| matches!(h.source, Source::Vault { .. }))
    }

    /// What was rotated is the configuration's again, from the next reading on. None of that name: false.
    pub fn release(&self, name: &SecretName) -> bool {
        let mut is_known = false;
        for held in self.all.load().iter().filter(|h| h.name == *name) {
            held.state.lock().unwrap_or_else(PoisonError::into_inner).origin = Origin::Source;
            is_known = true;
        }
        is_known
    }

    /// Reads everything that is at hand, or everything in the vault, anew at its source, but what was rotated: the names
    /// of those that are others now, and what went wrong. Whatever fails keeps what it had.
    pub async fn refresh(&self, vault: Option<&Vault>, clock: &dyn Clock) -> Refreshed {
        let mut done = Refreshed::default();
        let mut away: Option<String> = None;
        let all = self.all.load_full();
        for held in all.iter().filter(|h| h.origin() == Origin::Source) {
            let read = match (&held.source, vault, &away) {
                (Source::Vault { .. }, Some(_), Some(why)) => Err(why.clone()),
                (Source::Vault { path, key }, Some(vault), None) => {
                    let read = vault.read(path, key).await;
                    read.map(|s| (s, None)).map_err(|failed| {
                        let is_away = matches!(failed, Failed::Away(_));
                        let why = format!("the vault {}", String::from(failed));
                        away = is_away.then(|| why.clone());
                        why
                    })
                }
                (Source::Vault { .. }, None, _) | (_, Some(_), _) => continue,
                (_, None, _) => match held.read() {
                    Some(read) => read.map_err(|e| e.to_string()),
                    None => continue,
                },
            };
            // It may have been rotated while the vault was asked.
            if held.origin() != Origin::Source {
                continue;
            }
            let before = held.shown();
            let since = |read: Option<OffsetDateTime>| read.or(before.since).or_else(|| Some(clock.now()));
            let taken = read.and_then(|(secret, changed)| {
                let is_changed = held.value.load().as_ref().is_none_or(|old| old.expose() != secret.expose());
                let since = if is_changed { changed.or_else(|| Some(clock.now())) } else { since(changed) };
                held.replace(secret, Origin::Source, since)
            });
            match taken {
                Ok(true) => done.changed.push(held.name.clone()),
                Ok(false) => {}
                Err(why) => {
                    held.trouble(Some(why.clone()));
                    done.failed.push((held.name.clone(), why));
                }
            }
        }
        done
    }
}

/// What came of reading secrets anew.
#[derive(Debug, Default)]
pub struct Refreshed {
    /// Those that are others now.
    pub changed: Vec<SecretName>,
    /// Those that could not be read, and why.
    pub failed: Vec<(SecretName, String)>,
}

#[cfg(test)]
mod tests;
