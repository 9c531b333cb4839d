// SPDX-License-Identifier: Apache-2.0
//! Adding a hypervisor while the gateway runs: what is asked for of each kind, who answers at its address, and what its
//! credential is.
//!
//! ```text
//! draft --meet: TLS alone, nothing is said--> certificates, for somebody to agree to --try: only with these--> tried
//! ```
//!
//! What must never happen here: a credential that is shown to whoever holds another certificate than the one that was
//! agreed to; an address of this machine that somebody reaches by adding it; the text of an answer in an error.

use crate::{
    config::HypervisorConfig,
    driver::clean_text,
    error::{Error, Fault},
    fleet::{Fleet, HealthState},
    inspect::{Met, meet},
    kind::Kind,
    secret::{DEFAULT, Kept, SecretName},
    wire::{Address, is_inner_host},
};
use portcullis_domain::{Clock, HypervisorName, Machine, Secret};
use rustls::pki_types::ServerName;
use serde_json::{Map, Value};
use std::{collections::BTreeMap, sync::Arc};
use time::OffsetDateTime;

/// One thing that is asked of whoever adds a hypervisor.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ask {
    /// The key, as the configuration writes it.
    pub key: &'static str,
    /// What people read in front of it.
    pub label: &'static str,
    /// What it looks like.
    pub hint: &'static str,
    /// What it is.
    pub form: Form,
}

/// What an answer is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Form {
    /// `https://host:port`, at the port where none is said; none where a port has to be said.
    Https(Option<u16>),
    /// The same with a path behind, which may be missing altogether.
    Place {
        /// Whether it may be missing.
        is_needed: bool,
    },
    /// `host:port`.
    HostPort,
    /// A text that has to be there.
    Text,
    /// A text that may be missing.
    Optional,
    /// Texts with commas between, that may be missing.
    List,
    /// A secret in one line.
    Secret,
    /// A certificate and its key, as PEM.
    Pem,
}

impl Form {
    /// Whether it names a place that is met.
    pub const fn is_address(self) -> bool {
        matches!(self, Self::Https(_) | Self::Place { .. } | Self::HostPort)
    }

    /// Whether it may be missing.
    pub const fn is_optional(self) -> bool {
        matches!(self, Self::Optional | Self::List | Self::Place { is_needed: false })
    }
}

/// What is asked for of one kind.
#[derive(Debug)]
pub struct Addable {
    /// The kind.
    pub kind: Kind,
    /// What people call it.
    pub title: &'static str,
    /// Where it is.
    pub places: &'static [Ask],
    /// As whom the gateway is known there, and what else it takes.
    pub more: &'static [Ask],
    /// What it shows.
    pub secret: Ask,
}

const fn ask(key: &'static str, label: &'static str, hint: &'static str, form: Form) -> Ask {
    Ask { key, label, hint, form }
}

const USERNAME: &str = "User name";
const PASSWORD: Ask = ask("password", "Password", "The gateway keeps it sealed and shows it to nobody.", Form::Secret);
const PEM: Ask = ask(
    "key",
    "Certificate and key",
    "The client certificate that it trusts, and its key, both as PEM. The gateway keeps them sealed.",
    Form::Pem,
);
const SCREENS: Ask =
    ask("screen_hosts", "Hosts of screens", "With commas between. Screens elsewhere are not opened.", Form::List);

/// The kinds that can be added while the gateway runs.
static ADDABLE: [Addable; 9] = [
    Addable {
        kind: Kind::Proxmox,
        title: "Proxmox VE",
        places: &[ask("address", "Address", "https://host:8006", Form::Https(None))],
        more: &[],
        secret: ask("token", "API token", "user@realm!name=secret", Form::Secret),
    },
    Addable {
        kind: Kind::Lxd,
        title: "LXD",
        places: &[ask("address", "Address", "https://host:8443", Form::Https(None))],
        more: &[],
        secret: PEM,
    },
    Addable {
        kind: Kind::Incus,
        title: "Incus",
        places: &[ask("address", "Address", "https://host:8443", Form::Https(None))],
        more: &[],
        secret: PEM,
    },
    Addable {
        kind: Kind::Xapi,
        title: "XCP-ng or XenServer",
        places: &[ask("address", "Address", "https://host of the pool’s master", Form::Https(Some(443)))],
        more: &[ask("username", USERNAME, "root, or another one of the pool", Form::Text)],
        secret: PASSWORD,
    },
    Addable {
        kind: Kind::Vsphere,
        title: "vCenter or ESXi",
        places: &[ask("address", "Address", "https://host", Form::Https(Some(443)))],
        more: &[ask("username", USERNAME, "portcullis@vsphere.local", Form::Text), SCREENS],
        secret: PASSWORD,
    },
    Addable {
        kind: Kind::OpenStack,
        title: "OpenStack",
        places: &[
            ask("identity", "Keystone", "https://host:5000/v3", Form::Place { is_needed: true }),
            ask("compute", "Nova", "https://host:8774/v2.1", Form::Place { is_needed: true }),
            ask("console", "Screens", "https://host:6080; without it there are none", Form::Place { is_needed: false }),
        ],
        more: &[
            ask("user", USERNAME, "With a project; or an application credential below.", Form::Optional),
            ask("user_domain", "Domain of the user", "Default where it is empty.", Form::Optional),
            ask("project", "Project", "What it signs in to.", Form::Optional),
            ask("project_domain", "Domain of the project", "Default where it is empty.", Form::Optional),
            ask(
                "application_credential",
                "Application credential",
                "Its id, in place of user and project.",
                Form::Optional,
            ),
        ],
        secret: ask("secret", "Password or secret", "Of the user, or of the application credential.", Form::Secret),
    },
    Addable {
        kind: Kind::Ovirt,
        title: "oVirt",
        places: &[ask("address", "Address", "https://host of the engine", Form::Https(Some(443)))],
        more: &[ask("username", USERNAME, "portcullis@internal", Form::Text), SCREENS],
        secret: PASSWORD,
    },
    Addable {
        kind: Kind::Kubevirt,
        title: "KubeVirt",
        places: &[ask("address", "Address", "https://host:6443 of the API server", Form::Https(None))],
        more: &[],
        secret: ask("token", "Token", "Of a service account of the gateway’s own.", Form::Secret),
    },
    Addable {
        kind: Kind::Libvirt,
        title: "libvirt over TLS",
        places: &[ask("address", "Address", "host:16514", Form::HostPort)],
        more: &[],
        secret: PEM,
    },
];

impl Addable {
    /// All of them.
    pub fn all() -> impl Iterator<Item = &'static Self> {
        ADDABLE.iter()
    }

    /// What is asked for of a kind, by its word in the configuration; or why it is for the configuration file only.
    pub fn of(word: &str) -> Result<&'static Self, String> {
        let all = || ADDABLE.iter().map(|a| a.kind.word()).collect::<Vec<_>>().join(", ");
        let Some(kind) = Kind::named(word) else {
            return Err(format!("{:?} is no kind of hypervisor: use {}", clean_text(word), all()));
        };
        ADDABLE.iter().find(|a| a.kind == kind).ok_or_else(|| {
            format!(
                "{word} is reached by files or sockets of the gateway’s own machine: write its section in the \
                 configuration file; every key is in portcullis.example.toml"
            )
        })
    }
}

/// Which addresses may be dialled.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Dial {
    /// Also those of this machine and of a link.
    Anywhere,
    /// Those only that are neither this machine's nor a link's own.
    Outside,
}

/// What is wrong with an answer: the key, and words on what to do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Wrong {
    /// The key.
    pub key: &'static str,
    /// What to do.
    pub why: String,
}

/// A hypervisor that is to be added, without its secret.
#[derive(Debug, Clone)]
pub struct Draft {
    /// Its name.
    pub name: HypervisorName,
    /// What its kind asks for.
    pub of: &'static Addable,
    /// Its keys, without a secret.
    pub settings: Map<String, Value>,
}

/// A certificate that was shown at an address.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Shown {
    /// The address.
    pub address: String,
    /// The certificate.
    pub met: Met,
}

/// What came of trying a credential.
#[derive(Debug, Clone)]
pub struct Tried {
    /// As whom the gateway is known there.
    pub who: String,
    /// What the credential may do that it need not.
    pub beyond: Vec<String>,
    /// Why that is not known, or not all of it.
    pub untold: Option<String>,
    /// When it ends by itself, where it does.
    pub ends_at: Option<OffsetDateTime>,
    /// How many machines there are.
    pub machines: usize,
    /// The first of them.
    pub first: Vec<Machine>,
}

/// How many machines are shown.
const SHOWN: usize = 20;
/// The longest answer to anything but a secret.
const LONGEST: usize = 1024;
/// The most texts of a list.
const MOST: usize = 64;

impl Draft {
    /// Reads what somebody answered. Nothing is dialled. What was not asked for is refused.
    pub fn read(
        name: HypervisorName,
        of: &'static Addable,
        given: &BTreeMap<String, String>,
        dial: Dial,
    ) -> Result<Self, Wrong> {
        let is_asked = |key: &str| of.places.iter().chain(of.more).any(|a| a.key == key);
        if let Some((key, _)) = given.iter().find(|(key, value)| !is_asked(key) && !value.trim().is_empty()) {
            return Err(Wrong { key: "", why: format!("{} has no {}.", of.title, clean_text(key)) });
        }
        let mut settings = Map::new();
        for ask in of.places.iter().chain(of.more) {
            let wrong = |why: &str| Wrong { key: ask.key, why: why.to_owned() };
            let text = given.get(ask.key).map_or("", |t| t.trim());
            if text.len() > LONGEST || text.chars().any(char::is_control) {
                return Err(wrong("Write it in one line, at most 1,024 letters."));
            }
            if text.is_empty() {
                if ask.form.is_optional() {
                    continue;
                }
                return Err(wrong(&format!("This is needed: {}.", ask.hint)));
            }
            let value = match ask.form {
                Form::List => {
                    let all: Vec<&str> = text.split(',').map(str::trim).filter(|t| !t.is_empty()).collect();
                    if all.len() > MOST {
                        return Err(wrong("That is too many."));
                    }
                    all.into()
                }
                form if form.is_address() => {
                    let at = place(ask, text).map_err(|why| wrong(&why))?;
                    let host = at.host().unwrap_or_default();
                    if dial == Dial::Outside && is_inner_host(host) {
                        return Err(wrong(
                            "That address is the gateway’s own machine, or one that only counts on its link. Whoever runs \
                             the gateway may allow it: [adding] loopback = true, or a section in the \
                 configuration file.",
                        ));
                    }
                    text.strip_suffix('/').unwrap_or(text).into()
                }
                _ => text.into(),
            };
            settings.insert(ask.key.to_owned(), value);
        }
        let draft = Self { name, of, settings };
        if of.kind == Kind::OpenStack {
            draft.check_login()?;
        }
        Ok(draft)
    }

    /// One that was added before: its keys as they were kept. What was not asked for is refused.
    pub fn kept(name: HypervisorName, kind: &str, settings: &str) -> Result<Self, Error> {
        let wrong = |why: String| Error::config(format!("hypervisors.{name}"), why);
        let of = Addable::of(kind).map_err(wrong)?;
        let settings: Map<String, Value> = serde_json::from_str(settings).map_err(|e| wrong(e.to_string()))?;
        let is_asked = |key: &str| key == "api" || of.places.iter().chain(of.more).any(|a| a.key == key);
        if let Some(key) = settings.keys().find(|key| !is_asked(key)) {
            return Err(wrong(format!("{} is not asked for", clean_text(key))));
        }
        Ok(Self { name, of, settings })
    }

    /// OpenStack knows the gateway by one of two things.
    fn check_login(&self) -> Result<(), Wrong> {
        let has = |key: &str| self.settings.contains_key(key);
        match (has("user"), has("project"), has("application_credential")) {
            (true, true, false) | (false, false, true) => Ok(()),
            _ => Err(Wrong { key: "user", why: "Write a user and a project, or an application credential.".into() }),
        }
    }

    /// Has clients of its API reach it through the gateway, under a host name of its own where one is said. False: its
    /// API is no HTTP.
    pub fn open_api(&mut self, host: Option<&str>) -> bool {
        if self.of.kind.api().is_none() {
            return false;
        }
        let door = host.map_or_else(|| serde_json::json!({}), |host| serde_json::json!({ "host": host }));
        self.settings.insert("api".to_owned(), door);
        true
    }

    /// Where it is, for people.
    pub fn address(&self) -> &str {
        let first = self.of.places.first().and_then(|a| self.settings.get(a.key));
        first.and_then(Value::as_str).unwrap_or_default()
    }

    /// Who answers at each of its addresses: the handshake alone, and no credential.
    pub async fn meet(&self) -> Result<Vec<Shown>, Error> {
        let mut all: Vec<Shown> = Vec::new();
        for ask in self.of.places {
            let Some(text) = self.settings.get(ask.key).and_then(Value::as_str) else { continue };
            let at = place(ask, text).map_err(|why| Error::config(ask.key, why))?;
            let host = at.host().unwrap_or_default().to_owned();
            let name = ServerName::try_from(host).map_err(|e| Error::config(ask.key, e.to_string()))?;
            let met = meet(&at, name).await.map_err(|f| f.at(&self.name))?;
            all.push(Shown { address: text.to_owned(), met });
        }
        Ok(all)
    }

    /// Its configuration, with the certificates that it may show and its secret.
    pub fn config(&self, pins: &[String], secret: Secret) -> Result<HypervisorConfig, Error> {
        let mut settings = self.settings.clone();
        if self.of.kind == Kind::Libvirt {
            // Folders of sockets are for daemons of the gateway's own machine.
            settings.insert("console".to_owned(), serde_json::json!({ "socket_folders": [] }));
        }
        HypervisorConfig::added(&self.name, self.of.kind, &settings, pins, (self.of.secret.key, secret))
    }

    /// Whether this is a secret as its kind shows one.
    pub fn check_secret(&self, secret: &Secret) -> Result<(), Wrong> {
        let is_pem = self.of.secret.form == Form::Pem;
        let why = match secret.expose_text() {
            Some(text) if text.trim().is_empty() => "This is needed.",
            Some(text) if !is_pem && text.chars().any(char::is_control) => "It is one line.",
            Some(text) if is_pem && !(text.contains("BEGIN CERTIFICATE") && text.contains("PRIVATE KEY")) => {
                "It holds a certificate and a key, both as PEM: -----BEGIN CERTIFICATE----- and -----BEGIN PRIVATE KEY-----."
            }
            Some(_) => return Ok(()),
            None => "It is a text.",
        };
        Err(Wrong { key: "secret", why: why.to_owned() })
    }

    /// Shows the credential to whoever holds one of these certificates and to nobody else, and lists the machines. At most
    /// a minute and a half.
    pub async fn try_out(&self, pins: &[String], secret: Secret, clock: Arc<dyn Clock>) -> Result<Tried, Error> {
        let fleet = Fleet::with(vec![self.config(pins, secret)?], &Kept::default(), clock)?;
        let known = fleet.known_as(&SecretName::default_of(self.name.clone())).await?;
        fleet.refresh_once().await;
        if let Some(HealthState::Down { why, .. }) = fleet.health().first().map(|h| h.state.clone()) {
            return Err(Fault::Protocol(why).at(&self.name));
        }
        let inventory = fleet.inventory();
        let beyond = known.beyond(DEFAULT).into_iter().map(str::to_owned).collect();
        Ok(Tried {
            who: clean_text(&known.who),
            beyond,
            untold: known.untold,
            ends_at: known.ends_at,
            machines: inventory.iter().count(),
            first: inventory.iter().take(SHOWN).cloned().collect(),
        })
    }
}

/// The host and port of an answer that names a place.
fn place(ask: &Ask, text: &str) -> Result<Address, String> {
    let bad = || format!("That is no address. It looks like {}.", ask.hint);
    let (authority, port) = match ask.form {
        Form::Https(port) => {
            let rest = text.strip_prefix("https://").ok_or_else(bad)?;
            (rest.strip_suffix('/').unwrap_or(rest), port)
        }
        Form::Place { .. } => {
            let rest = text.strip_prefix("https://").ok_or_else(bad)?;
            (rest.split('/').next().unwrap_or_default(), Some(443))
        }
        _ => (text, None),
    };
    let bare = authority.rsplit_once(']').map_or(authority, |(_, after)| after);
    let whole = match port {
        Some(port) if !bare.contains(':') => format!("{authority}:{port}"),
        _ => authority.to_owned(),
    };
    let at = Address::parse(ask.key, &whole).map_err(|_| bad())?;
    // Neither a socket nor letters that another reader takes for another host.
    if at.host().is_none() { Err(bad()) } else { Ok(at) }
}

/// What may be said of a hypervisor that did not do as it should, to somebody who chose its address: what it is, and
/// nothing of what it answered.
pub fn briefly(error: &Error, title: &str) -> String {
    match error {
        Error::Config { why, .. } => format!("That cannot be used: {why}."),
        Error::Upstream { fault, .. } => match fault {
            Fault::Unreachable { why, .. } => format!("It cannot be reached: {why}."),
            Fault::Untrusted(_) => {
                "It failed the TLS check: it shows another certificate than the one that was agreed to, \
                                    or did not accept the gateway’s."
                    .to_owned()
            }
            Fault::TooSlow(what) => format!("It took too long {what}."),
            Fault::Refused(_) | Fault::Unauthenticated | Fault::NoSecret => {
                "It did not accept the credential.".to_owned()
            }
            Fault::Protocol(_) | Fault::Unsupported(_) | Fault::NoScreen(_) => {
                format!("It does not answer as {title} does. The gateway’s log says more.")
            }
        },
        other => format!("It cannot be used: {other}."),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn given(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
        pairs.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect()
    }

    fn read(kind: &str, pairs: &[(&str, &str)], dial: Dial) -> Result<Draft, Wrong> {
        Draft::read("lab".parse().unwrap(), Addable::of(kind).unwrap(), &given(pairs), dial)
    }

    #[test]
    fn every_kind_can_be_added_or_says_that_it_is_for_the_file() {
        for (kind, can) in [
            ("proxmox", true),
            ("lxd", true),
            ("incus", true),
            ("xapi", true),
            ("vsphere", true),
            ("openstack", true),
            ("ovirt", true),
            ("kubevirt", true),
            ("libvirt", true),
            ("qemu", false),
            ("cloud-hypervisor", false),
            ("firecracker", false),
        ] {
            match Addable::of(kind) {
                Ok(of) => assert!(can && of.kind.word() == kind, "{kind}"),
                Err(why) => assert!(!can && why.contains("configuration file"), "{kind}: {why}"),
            }
        }
        assert!(Addable::of("hyper-v").unwrap_err().contains("use proxmox, lxd"));
    }

    #[test]
    fn what_a_kind_asks_for_is_what_its_keys_are() {
        let pem = "-----BEGIN CERTIFICATE-----\nx\n-----BEGIN PRIVATE KEY-----";
        for of in Addable::all() {
            let mut pairs: Vec<(&str, String)> = Vec::new();
            for ask in of.places.iter().chain(of.more) {
                let value = match (ask.key, ask.form) {
                    ("identity", _) => "https://hv.example:5000/v3".to_owned(),
                    ("compute", _) => "https://hv.example:8774/v2.1".to_owned(),
                    (_, Form::HostPort) => "hv.example:16514".to_owned(),
                    (_, form) if form.is_address() => "https://hv.example:8443".to_owned(),
                    ("application_credential", _) => continue,
                    _ => "x".to_owned(),
                };
                pairs.push((ask.key, value));
            }
            let pairs: Vec<(&str, &str)> = pairs.iter().map(|(k, v)| (*k, v.as_str())).collect();
            let mut draft = read(of.kind.word(), &pairs, Dial::Outside).unwrap();
            assert_eq!(draft.open_api(None), of.kind.api().is_some());
            let secret = Secret::from(if of.secret.form == Form::Pem { pem.to_owned() } else { "s".to_owned() });
            draft.check_secret(&secret).unwrap();
            let config = draft.config(&["ab".repeat(32)], secret).unwrap();
            assert_eq!((config.kind(), config.trust().pin.len()), (of.kind, 1), "{}", of.title);
            assert_eq!(config.api().is_some(), of.kind.api().is_some());
            let text = serde_json::to_string(&draft.settings).unwrap();
            let again = Draft::kept(draft.name.clone(), of.kind.word(), &text).unwrap();
            assert_eq!(again.settings, draft.settings);
            assert!(!format!("{config:?}").contains("PRIVATE KEY"), "a secret is not printed");
        }
    }

    #[test]
    fn what_was_not_asked_for_is_refused_when_it_is_read_back() {
        for (settings, word) in [
            (r#"{"address":"https://a:1","token_file":"/etc/shadow"}"#, "token_file"),
            (r#"{"address":"https://a:1","token":{"file":"/etc/shadow"}}"#, "token"),
            (r#"{"address":"https://a:1","tls":{"verify":"none"}}"#, "tls"),
            (r#"{"address":"https://a:1","credentials":[]}"#, "credentials"),
        ] {
            let error = Draft::kept("lab".parse().unwrap(), "proxmox", settings).unwrap_err().to_string();
            assert!(error.contains(word), "{error}");
        }
        let port = Draft::kept("lab".parse().unwrap(), "proxmox", r#"{"address":"https://a:1","api":{"prt":1}}"#);
        assert!(port.unwrap().config(&[], Secret::from("s".to_owned())).is_err());
    }

    #[test]
    fn an_address_of_this_machine_or_of_a_link_is_not_added_unless_that_is_allowed() {
        for host in [
            "localhost",
            "127.0.0.1",
            "127.9.9.9",
            "[::1]",
            "0.0.0.0",
            "[::]",
            "169.254.169.254",
            "[fe80::1]",
            "[::ffff:127.0.0.1]",
            "[::ffff:169.254.169.254]",
            "[fd00:ec2::254]",
            "224.0.0.1",
        ] {
            let address = format!("https://{host}:8006");
            let wrong = read("proxmox", &[("address", &address)], Dial::Outside).unwrap_err();
            assert!(wrong.key == "address" && wrong.why.contains("[adding]"), "{host}: {wrong:?}");
            assert!(read("proxmox", &[("address", &address)], Dial::Anywhere).is_ok(), "{host}");
            let cloud = [("identity", "https://hv.example:5000/v3"), ("compute", &*format!("{address}/v2.1"))];
            assert_eq!(read("openstack", &cloud, Dial::Outside).unwrap_err().key, "compute", "{host}");
        }
        assert!(read("proxmox", &[("address", "https://10.0.0.1:8006")], Dial::Outside).is_ok());
    }

    #[test]
    fn what_is_no_address_is_refused_in_words() {
        for address in [
            "",
            "hv.example",
            "http://hv.example:8006",
            "https://",
            "https://hv.example",
            "https://a@hv.example:8006",
            "https://hv.example:8006/api",
            "https://hv.example:8006#x",
            "https://hv.example:0",
            "https://unix:/run/x",
            "unix:/run/x",
            "https://[::1:8006",
            "https://hv example:8006",
            "https://hv.example:8006\nx",
        ] {
            let wrong = read("proxmox", &[("address", address)], Dial::Anywhere).unwrap_err();
            assert!(wrong.key == "address" && !wrong.why.is_empty(), "{address:?}: {wrong:?}");
        }
        assert!(read("libvirt", &[("address", "unix:/run/libvirt")], Dial::Anywhere).is_err());
        assert!(read("xapi", &[("address", "https://hv.example"), ("username", "root")], Dial::Outside).is_ok());
        assert_eq!(read("xapi", &[("address", "https://hv.example")], Dial::Outside).unwrap_err().key, "username");
        let cloud = [("identity", "https://a/v3"), ("compute", "https://a/v2.1"), ("user", "x")];
        assert_eq!(read("openstack", &cloud, Dial::Outside).unwrap_err().key, "user");
    }

    #[test]
    fn nothing_that_a_hypervisor_answered_is_in_what_is_said_of_it() {
        let name: HypervisorName = "lab".parse().unwrap();
        for fault in [
            Fault::Refused("<html>inner</html>".into()),
            Fault::Protocol("inner".into()),
            Fault::Unsupported("inner".into()),
            Fault::Untrusted("inner".into()),
        ] {
            assert!(!briefly(&fault.at(&name), "LXD").contains("inner"));
        }
    }
}
