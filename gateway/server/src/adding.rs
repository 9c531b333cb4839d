// SPDX-License-Identifier: Apache-2.0
//! Adding a hypervisor to the store, the same way for the page, for scripts and for a shell.
//!
//! ```text
//! wish --read--> draft --meet: nothing is said--> certificates --somebody agrees--> met again: the same? --try--> kept
//! ```
//!
//! The credential comes with the last step only, and is shown to whoever holds a certificate that was agreed to.

use crate::{
    config::Config,
    roster::{Agreed, Found, Roll},
    state::chain,
};
use portcullis_domain::{Clock, HypervisorName, Secret};
use portcullis_store::{AddedHypervisor, Changed, Keys, NewHypervisor, Store};
use portcullis_upstream::{Addable, Dial, Draft, Shown, Tried, Wrong, briefly};
use std::{collections::BTreeMap, sync::Arc};
use time::{OffsetDateTime, format_description::well_known::Rfc3339};
use uuid::Uuid;

/// What somebody asks for, as it was written.
#[derive(Debug, Clone, Default)]
pub(crate) struct Wish {
    pub(crate) name: String,
    pub(crate) kind: String,
    /// What the kind asks for, by key.
    pub(crate) given: BTreeMap<String, String>,
    pub(crate) api: ApiWish,
    /// In whose place it is to come: the adding that somebody looked at.
    pub(crate) replaces: Option<Uuid>,
}

/// Whether clients of its API reach it through the gateway.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) enum ApiWish {
    /// They do not.
    #[default]
    Closed,
    /// At `<name>.<api domain>`.
    ByName,
    /// At a host name of its own.
    ByHost(String),
}

/// What is known of the gateway that one is added to.
pub(crate) struct Ground<'a> {
    pub(crate) config: &'a Config,
    pub(crate) dial: Dial,
    /// The hypervisors in use.
    pub(crate) roll: &'a Roll,
}

fn wrong(key: &'static str, why: impl Into<String>) -> Wrong {
    Wrong { key, why: why.into() }
}

impl Wish {
    /// Reads it. Nothing is dialled.
    pub(crate) fn read(&self, ground: &Ground<'_>) -> Result<Draft, Wrong> {
        let of = Addable::of(self.kind.trim()).map_err(|why| wrong("kind", why))?;
        let name: HypervisorName = self.name.trim().parse().map_err(|_| {
            wrong("name", "A name is small letters, digits and dashes, at most 63, and begins with a letter or digit.")
        })?;
        if ground.config.hypervisors.iter().any(|h| *h.name() == name) {
            return Err(wrong("name", "That name stands in the configuration file already."));
        }
        if self.replaces.is_none() && (ground.roll.has(&name) || ground.roll.added(&name).is_some()) {
            return Err(wrong("name", "There is a hypervisor of that name already."));
        }
        let mut draft = Draft::read(name, of, &self.given, ground.dial)?;
        let host = match &self.api {
            ApiWish::Closed => return Ok(draft),
            ApiWish::ByName if ground.config.portal.api_domain.is_empty() => {
                let why = "The gateway has no domain for APIs ([portal] api_domain): write a host name of its own.";
                return Err(wrong("api_host", why));
            }
            ApiWish::ByName => None,
            ApiWish::ByHost(host) => Some(own_host(host, &draft.name, ground)?),
        };
        if !draft.open_api(host.as_deref()) {
            return Err(wrong(
                "api_host",
                "Its API is no HTTP, and passes on a port of its own only: that is for the configuration file.",
            ));
        }
        Ok(draft)
    }
}

/// A host name of its own: nobody else's.
fn own_host(text: &str, name: &HypervisorName, ground: &Ground<'_>) -> Result<String, Wrong> {
    let host = text.trim().to_ascii_lowercase();
    let is_label = |l: &str| {
        (1..=63).contains(&l.len())
            && l.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-')
            && !l.starts_with('-')
            && !l.ends_with('-')
    };
    if host.len() > 253 || !host.split('.').all(is_label) || host.split('.').count() < 2 {
        return Err(wrong("api_host", "That is no host name. It looks like pve.example.org."));
    }
    let portal = ground.config.portal.host().unwrap_or_default();
    let domain = &ground.config.portal.api_domain;
    let of_domain = host.strip_suffix(domain.as_str()).and_then(|rest| rest.strip_suffix('.'));
    let is_others = !domain.is_empty() && of_domain.is_some_and(|label| label != name.as_str());
    if host == portal || ground.roll.by_host(&host).is_some_and(|owner| owner != name) || is_others {
        return Err(wrong("api_host", "That host name is another one’s already."));
    }
    Ok(host)
}

/// What was met, as it is kept.
pub(crate) fn agreed(shown: &[Shown]) -> Vec<Agreed> {
    let day = |at: OffsetDateTime| at.format(&Rfc3339).unwrap_or_default();
    let of = |s: &Shown| Agreed {
        address: s.address.clone(),
        subject: s.met.subject.clone(),
        issuer: s.met.issuer.clone(),
        from: day(s.met.from),
        until: day(s.met.until),
        sha256: s.met.sha256.clone(),
    };
    shown.iter().map(of).collect()
}

/// SHA-256 in the one form that is compared.
pub(crate) fn plain(pin: &str) -> String {
    pin.chars().filter(|c| *c != ':').collect::<String>().to_ascii_lowercase()
}

/// The certificates of several addresses, each once, in one text: what somebody agrees to.
pub(crate) fn prints(agreed: &[Agreed]) -> String {
    let mut all: Vec<&str> = agreed.iter().map(|a| a.sha256.as_str()).collect();
    all.sort_unstable();
    all.dedup();
    all.join(" ")
}

/// Whether somebody agreed to just these.
pub(crate) fn is_agreed(said: &str, agreed: &[Agreed]) -> bool {
    let mut all: Vec<String> = said.split([' ', ',']).filter(|t| !t.is_empty()).map(plain).collect();
    all.sort_unstable();
    all.dedup();
    !all.is_empty() && all.join(" ") == prints(agreed)
}

/// What the trail says of one that was met, tried, added or removed.
pub(crate) fn words(draft: &Draft, agreed: &[Agreed]) -> String {
    format!("{} at {}, SHA-256 {}", draft.of.kind.word(), draft.address(), prints(agreed))
}

/// The same of one that comes in the place of another: which one goes.
pub(crate) fn in_place_of(row: &AddedHypervisor) -> String {
    let agreed: Vec<Agreed> = serde_json::from_str(&row.trust).unwrap_or_default();
    let at = agreed.first().map_or("", |a| a.address.as_str());
    format!("put in the place of the one at {at}, SHA-256 {}, whose credential is forgotten", prints(&agreed))
}

/// Why one was not added.
#[derive(Debug)]
pub(crate) enum NotAdded {
    /// Something that was written.
    Wrong(Wrong),
    /// It shows other certificates than those that were agreed to.
    Other(Vec<Agreed>),
    /// It could not be used: in words for whoever chose its address, and all that is known, for a shell.
    Unusable(String, String),
    /// There is one of that name by now, or somebody is at it.
    Conflict(String),
    /// The store failed.
    Store(portcullis_store::Error),
}

/// One that was added.
pub(crate) struct Done {
    pub(crate) agreed: Vec<Agreed>,
    pub(crate) tried: Tried,
}

/// Meets it: who answers at its addresses.
pub(crate) async fn meet(draft: &Draft) -> Result<Vec<Agreed>, NotAdded> {
    let shown = draft.meet().await.map_err(|error| unusable(draft, &error))?;
    Ok(agreed(&shown))
}

fn unusable(draft: &Draft, error: &portcullis_upstream::Error) -> NotAdded {
    let detail = chain(error);
    tracing::info!(error = %detail, "a hypervisor that is to be added cannot be used");
    NotAdded::Unusable(briefly(error, draft.of.title), detail)
}

/// Where one is kept, and by whom it is added.
pub(crate) struct Keeper<'a> {
    pub(crate) store: &'a Store,
    pub(crate) keys: &'a Keys,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) by: &'a str,
}

impl Keeper<'_> {
    /// Tries the credential with whoever holds the certificates that were agreed to, and keeps the hypervisor when all went
    /// well. Nothing is kept otherwise, and one whose place it was to take stays. The credential is given anew in any case:
    /// whoever could have the kept one shown to another address or certificate would have it.
    pub(crate) async fn add(
        &self,
        draft: &Draft,
        said: &str,
        secret: Secret,
        replaces: Option<Uuid>,
    ) -> Result<Done, NotAdded> {
        draft.check_secret(&secret).map_err(NotAdded::Wrong)?;
        let agreed = meet(draft).await?;
        if !is_agreed(said, &agreed) {
            return Err(NotAdded::Other(agreed));
        }
        let pins: Vec<String> = prints(&agreed).split(' ').map(str::to_owned).collect();
        let tried = draft.try_out(&pins, secret.clone(), Arc::clone(&self.clock)).await;
        let tried = tried.map_err(|error| unusable(draft, &error))?;
        let found = Found { who: tried.who.clone(), beyond: tried.beyond.clone(), untold: tried.untold.clone() };
        let text = |value: serde_json::Result<String>| {
            value.map_err(|e| NotAdded::Unusable("It cannot be written down.".to_owned(), e.to_string()))
        };
        let new = NewHypervisor {
            name: &draft.name,
            kind: draft.of.kind.word(),
            settings: &text(serde_json::to_string(&draft.settings))?,
            trust: &text(serde_json::to_string(&agreed))?,
            tried: &text(serde_json::to_string(&short(found)))?,
            by: self.by,
            at: self.clock.now(),
            replaces,
        };
        // Another node may have added one a moment ago, or one has the name that is let go at the moment.
        let host = host_of(new.settings);
        let rows = self.store.added_hypervisors().await.map_err(NotAdded::Store)?;
        if host.is_some() && rows.iter().any(|row| row.name != draft.name && host_of(&row.settings) == host) {
            return Err(NotAdded::Conflict("That host name is another one’s by now.".to_owned()));
        }
        match self.store.add_hypervisor(self.keys, &new, &secret).await.map_err(NotAdded::Store)? {
            Changed::Done => Ok(Done { agreed, tried }),
            other => Err(NotAdded::Conflict(refused(&draft.name, &other))),
        }
    }
}

/// The host name of its own that settings give to its API.
fn host_of(settings: &str) -> Option<String> {
    let settings: serde_json::Value = serde_json::from_str(settings).ok()?;
    settings.pointer("/api/host").and_then(serde_json::Value::as_str).map(str::to_owned)
}

/// A hypervisor may tell of thousands of rights: the row has room for some, and says how many there are.
fn short(mut found: Found) -> Found {
    const MOST: usize = 100;
    let more = found.beyond.len().saturating_sub(MOST);
    if more > 0 {
        found.beyond.truncate(MOST);
        found.beyond.push(format!("and {more} more"));
    }
    found
}

/// Why a row was not changed.
pub(crate) fn refused(name: &HypervisorName, changed: &Changed) -> String {
    match changed {
        Changed::Done => String::new(),
        Changed::Nothing => {
            format!("There is a hypervisor called {name} already, or it was changed or removed meanwhile. Look again.")
        }
        Changed::Claimed(by) => format!(
            "{} changes the secret of {name} since {} UTC. Try again when that is done.",
            by.by,
            by.since.time()
        ),
        Changed::InUse => format!(
            "A gateway shows a rotated secret to a hypervisor called {name}, which stands in its configuration file. Take \
             another name; if no file has it any more, try again in a few minutes."
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::roster::Roster;

    fn config(more: &str) -> Config {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("p.toml");
        let text = format!(
            "portal = {{ external_url = \"https://console.example.org\", listen = [\"127.0.0.1:8443\"], \
             api_domain = \"hv.example.org\" }}\ntls = {{ cert_file = \"c\", key_file = \"k\" }}\nkeys = {{ file = \"f\" }}\n\
             store = {{ url = \"sqlite://p.db\" }}\ntrail = {{ dir = \"t\" }}\nrecordings = {{ dir = \"r\" }}\n{more}\
             [[hypervisors]]\nname = \"lab\"\nkind = \"lxd\"\nsocket = \"/run/lxd\"\napi = {{ host = \"lab.example.org\" }}\n"
        );
        std::fs::write(&file, text).unwrap();
        Config::read(&file, std::iter::empty()).unwrap()
    }

    fn wish(name: &str, api: ApiWish) -> Wish {
        let given = [("address".to_owned(), "https://pve.example.org:8006".to_owned())].into();
        Wish { name: name.to_owned(), kind: "proxmox".to_owned(), given, api, replaces: None }
    }

    #[test]
    fn a_name_and_a_host_name_are_taken_once() {
        let config = config("");
        let roster = Roster::of_file(&config);
        let ground = Ground { config: &config, dial: config.adding.dial(), roll: &roster.load() };
        let key = |wish: Wish| wish.read(&ground).map(|_| ()).map_err(|w| w.key);
        assert_eq!(key(wish("pve", ApiWish::Closed)), Ok(()));
        assert_eq!(key(wish("pve", ApiWish::ByName)), Ok(()));
        for name in ["lab", "", "P", "a b", "../x", &"a".repeat(200)] {
            assert_eq!(key(wish(name, ApiWish::Closed)), Err("name"), "{name:?}");
        }
        for host in ["pve.example.org", "pve.hv.example.org", "PVE.example.org"] {
            assert_eq!(key(wish("pve", ApiWish::ByHost(host.to_owned()))), Ok(()), "{host}");
        }
        for host in [
            "console.example.org",
            "Console.Example.org",
            "lab.example.org",
            "other.hv.example.org",
            "a.b.hv.example.org",
            "localhost",
            "",
            "a..b",
            "-a.b",
            "a.b:8443",
            "a.b/",
            "a b.c",
        ] {
            assert_eq!(key(wish("pve", ApiWish::ByHost(host.to_owned()))), Err("api_host"), "{host}");
        }
        assert_eq!(key(Wish { kind: "qemu".into(), ..wish("pve", ApiWish::Closed) }), Err("kind"));
    }

    #[test]
    fn addresses_of_this_machine_are_added_where_that_is_allowed() {
        let mut local = wish("pve", ApiWish::Closed);
        local.given.insert("address".to_owned(), "https://127.0.0.1:8006".to_owned());
        for (more, key) in [("", Err("address")), ("[adding]\nloopback = true\n", Ok(()))] {
            let config = config(more);
            let roster = Roster::of_file(&config);
            let ground = Ground { config: &config, dial: config.adding.dial(), roll: &roster.load() };
            assert_eq!(local.read(&ground).map(|_| ()).map_err(|w| w.key), key);
        }
    }

    #[test]
    fn what_is_agreed_to_is_all_that_is_shown_and_nothing_else() {
        let of = |sha256: &str| Agreed {
            address: String::new(),
            subject: String::new(),
            issuer: String::new(),
            from: String::new(),
            until: String::new(),
            sha256: sha256.to_owned(),
        };
        let two = [of("bb"), of("aa"), of("bb")];
        assert_eq!(prints(&two), "aa bb");
        for (said, is) in [("aa bb", true), ("BB,a:a", true), ("aa", false), ("", false), ("aa bb cc", false)] {
            assert_eq!(is_agreed(said, &two), is, "{said}");
        }
        assert!(!is_agreed("", &[]));
    }
}
