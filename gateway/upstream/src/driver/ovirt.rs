// SPDX-License-Identifier: Apache-2.0
//! oVirt Engine by its REST API 4: machines in pages with their tags, hosts and clusters (a cluster is a pool), changes by
//! the engine's events, power by actions, screens by a ticket and VNC at the host that runs the machine.
//!
//! The engine's address stands in the configuration, and so do the hosts whose screens may be dialled: a host that the
//! engine names beside them is refused, so that no answer can point the gateway somewhere else (SEC-150).

mod account;
mod rows;
mod shape;

use super::{
    Built, Driver, LIST, PowerVerb, REFRESH, Screen, ScreenLogin, UNVERIFIED, clean_text,
    rest::{Call, Rows, encoded},
};
use crate::{
    api::{Api, Dialect, Length},
    badge::{Badge, Renewed},
    config::{OvirtConfig, Verify},
    error::{Error, Fault},
    fleet::{Board, MAX_MACHINES},
    rotate::{KnownAs, Rotation},
    secret::{Site, is_text},
    tls::{Tls, TlsUpgrade},
    wire::{Address, Dialer, Https},
};
use account::Account;
use async_trait::async_trait;
use http::{
    HeaderName, HeaderValue, Method,
    header::{ACCEPT, AUTHORIZATION},
};
use portcullis_domain::{ConsoleKind, HypervisorName, Machine, MachineId, MachineKind, MachineRef, PowerState, Secret};
use serde::de::DeserializeOwned;
use serde_json::json;
use shape::{Clusters, Consoles, Events, Hosts, Link, Machines, Named, Number, Offer, Row, state, words};
use std::{
    collections::{HashMap, HashSet},
    sync::Arc,
    time::Duration,
};
use tokio::{sync::Notify, time::Instant};

/// What every address of the API begins with.
const BASE: &str = "/ovirt-engine/api";
/// How often the engine is asked for new events.
const POLL: Duration = Duration::from_secs(3);
/// How long a token is used.
const TOKEN: Duration = Duration::from_mins(30);
/// How often the gateway signs in at most.
const SIGN_IN: Duration = Duration::from_secs(5);
/// How long a change of power is waited for; after that it goes on by itself.
const POWER: Duration = Duration::from_secs(20);
/// How often the machine is looked at meanwhile.
const LOOK: Duration = Duration::from_millis(300);
/// Machines of a page.
const PAGE: usize = 500;
/// How long a ticket counts, seconds: it is used at once.
const TICKET: u16 = 120;

struct Ovirt {
    account: Account,
    dialer: Arc<Dialer>,
    host: HeaderValue,
    hypervisor: HypervisorName,
    screens: Screens,
    /// Something was changed: the machines are read at once.
    changed: Notify,
}

/// The hosts whose screens may be dialled.
struct Screens {
    /// By name or address, as the engine names them, in small letters.
    hosts: HashMap<String, Option<TlsUpgrade>>,
    ports: [u16; 2],
}

pub(crate) fn build(site: &mut Site<'_>, config: OvirtConfig) -> Result<Built, Error> {
    let key = site.common.key();
    let Https { address, host, origin } = Https::parse(&site.common.key_of("address"), &config.address, Some(443))?;
    if !config.username.contains('@') {
        return Err(Error::config(site.common.key_of("username"), "is name@profile, such as admin@internal"));
    }
    let password = site.hold("password", config.password.clone(), is_text)?;
    let common = &site.common;
    let screens = Screens::read(&key, &config)?;
    let mut warnings = common.warnings();
    if warnings.is_empty() && config.screen_tls.as_ref().is_some_and(|t| t.verify == Verify::None) {
        warnings.push(UNVERIFIED.to_owned());
    }
    let tls = TlsUpgrade::new(&key, &common.tls, address.host(), None)?;
    // What the engine does is tied to who asked by its own header: it stands in its events.
    let tie = (HeaderName::from_static("correlation-id"), "");
    let token = Arc::new(Renewed::new(AUTHORIZATION, Some(tie)));
    let badge = Badge::Renewed(Arc::clone(&token));
    let dialer = |authorization| Dialer { address: address.clone(), tls: Some(Tls::Fixed(tls.clone())), authorization };
    let account = Account { dialer: dialer(None), host: host.clone(), username: config.username, password, token };
    let dialer = Arc::new(dialer(Some(badge)));
    let api = Api {
        dialer: Arc::clone(&dialer),
        host: host.clone(),
        origins: vec![origin],
        connections: common.connections,
        dialect: &DIALECT,
        pool: None,
    };
    let (hypervisor, address) = (common.name.clone(), address.to_string());
    let driver = Ovirt { account, dialer, host, hypervisor, screens, changed: Notify::new() };
    Ok(Built { driver: Box::new(driver), api: Some(api), warnings, address })
}

static DIALECT: Dialect = Dialect {
    channel: |_, _| None,
    channel_address: |_, _| String::new(),
    is_long_poll: |_| false,
    length: Length::Any,
    rows: Some(rows::keep),
    strip: rows::strip,
    task: |_| None,
};

impl Screens {
    fn read(key: &str, config: &OvirtConfig) -> Result<Self, Error> {
        let [first, last] = config.screen_ports;
        if first == 0 || first > last {
            return Err(Error::config(format!("{key}.screen_ports"), "is [first, last], from 1 to 65535"));
        }
        let key_of = format!("{key}.screen_hosts");
        let hosts = config.screen_hosts.iter().map(|host| {
            let name = Address::parse(&key_of, &format!("{host}:{first}"))?;
            let name = name.host().ok_or_else(|| Error::config(&key_of, "is no host"))?.to_ascii_lowercase();
            let tls = config.screen_tls.as_ref();
            let tls = tls.map(|t| TlsUpgrade::new(&format!("{key}.screen_tls"), t, Some(&name), None)).transpose()?;
            Ok((name, tls))
        });
        Ok(Self { hosts: hosts.collect::<Result<_, Error>>()?, ports: config.screen_ports })
    }

    /// Where a screen is, and its TLS, if it may be dialled.
    fn place(&self, host: &str, port: u16) -> Result<(Address, Option<TlsUpgrade>), Fault> {
        let name = host.to_ascii_lowercase();
        let [first, last] = self.ports;
        match self.hosts.get(&name) {
            Some(tls) if (first..=last).contains(&port) => Ok((Address::Tcp(name, port), tls.clone())),
            Some(_) => Err(Fault::NoScreen(format!(
                "it is at port {port}, which is not one of screen_ports in the configuration"
            ))),
            None => {
                let shown = clean_text(host);
                let why = format!("it is at {shown}, which screen_hosts in the configuration does not list");
                Err(Fault::NoScreen(why))
            }
        }
    }
}

/// What is known of the engine's own things.
#[derive(Default)]
struct Names {
    clusters: HashMap<String, String>,
    hosts: HashMap<String, String>,
}

impl Ovirt {
    async fn ask<T: DeserializeOwned>(&self, method: Method, target: &str, body: Option<String>) -> Result<T, Fault> {
        let call = Call { method, target, body: body.map(|b| ("application/json", b)), patience: LIST };
        let headers = [(ACCEPT.as_str(), "application/json"), ("version", "4")];
        let (told, _) = call.send_with(&self.dialer, &self.host, &headers).await?;
        if !told.status.is_success() {
            return Err(Fault::Refused(words(told.status, &told.text)));
        }
        // The place of what is wrong and not its text: an answer may hold a ticket.
        let wrong =
            |e: serde_json::Error| Fault::Protocol(format!("an answer of another shape, at column {}", e.column()));
        serde_json::from_slice(&told.text).map_err(wrong)
    }

    async fn get<T: DeserializeOwned>(&self, rest: &str) -> Result<T, Fault> {
        self.ask(Method::GET, &format!("{BASE}{rest}"), None).await
    }

    async fn names(&self, notes: &mut Vec<String>) -> Result<Names, Fault> {
        let clusters: Clusters = self.get("/clusters").await?;
        let hosts: Hosts = self.get("/hosts").await?;
        let mut by_id = |rows: Option<Rows<Named>>, one: &str, many: &str| -> HashMap<String, String> {
            let Some(rows) = rows else { return HashMap::new() };
            notes.extend(rows.notes(one, many));
            rows.good.into_iter().filter(|n| !n.id.is_empty()).map(|n| (n.id, n.name)).collect()
        };
        let clusters = by_id(clusters.cluster, "cluster", "clusters");
        Ok(Names { clusters, hosts: by_id(hosts.host, "host", "hosts") })
    }

    async fn list(&self) -> Result<(Vec<Machine>, Vec<String>), Fault> {
        let mut notes = Vec::new();
        let names = self.names(&mut notes).await?;
        let (mut machines, mut known) = (Vec::new(), HashSet::new());
        for page in 1.. {
            let search = encoded(&format!("sortby name asc page {page}"));
            let found: Machines = self.get(&format!("/vms?search={search}&max={PAGE}&follow=tags")).await?;
            let Some(rows) = found.vm else { break };
            notes.extend(rows.notes("machine", "machines"));
            let (count, before) = (rows.good.len(), known.len());
            for row in rows.good {
                // A machine that was renamed meanwhile may come twice.
                if !known.insert(row.id.clone()) {
                    continue;
                }
                match self.machine(row, &names) {
                    Ok(machine) => machines.push(machine),
                    Err(note) => notes.push(note),
                }
            }
            // An engine that goes on for ever ends here, too: pages bring new machines, and there is a most of them.
            if count < PAGE || known.len() == before || known.len() > MAX_MACHINES {
                break;
            }
        }
        Ok((machines, notes))
    }

    fn machine(&self, row: Row, names: &Names) -> Result<Machine, String> {
        let Row { id, name, status, cluster, host, tags } = row;
        let machine: Option<MachineId> = Some(&id).filter(|id| is_id(id)).and_then(|id| id.parse().ok());
        let machine = machine.ok_or_else(|| format!("a machine was left out: {:?} is no id", clean_text(&id)))?;
        let state = state(&status);
        let has_screen = !self.screens.hosts.is_empty();
        let named = |link: Option<Link>, all: &HashMap<String, String>| link.and_then(|l| all.get(&l.id).cloned());
        Ok(Machine {
            at: MachineRef { hypervisor: self.hypervisor.clone(), machine },
            name,
            kind: MachineKind::Guest,
            state,
            pool: named(cluster, &names.clusters).filter(|p| !p.is_empty()),
            tags: tags.tag.into_iter().map(|t| t.name).collect(),
            node: named(host, &names.hosts),
            // Whether it has one for VNC is known to its consoles, which would be one more question a machine.
            console: if has_screen { ConsoleKind::Vnc } else { ConsoleKind::None },
        })
    }

    async fn status(&self, machine: &MachineId) -> Result<String, Fault> {
        self.get::<Row>(&format!("/vms/{}", id_of(machine)?)).await.map(|row| row.status)
    }

    /// The number of the newest event, if there is one after another one.
    async fn newest(&self, after: Option<u64>) -> Result<Option<u64>, Fault> {
        let from = after.map(|a| format!("&from={a}")).unwrap_or_default();
        let events: Events = self.get(&format!("/events?max=1{from}")).await?;
        let all = events.event.map(|rows| rows.good).unwrap_or_default();
        Ok(all.iter().filter_map(|e| e.id.parse().ok()).max().filter(|n| after.is_none_or(|a| *n > a)))
    }

    async fn run(&self, board: &Board) -> Result<std::convert::Infallible, Fault> {
        loop {
            self.account.sign_in().await?;
            let (began, until) = (Instant::now(), Instant::now() + TOKEN);
            let mut seen = None;
            let mut read_at: Option<Instant> = None;
            while Instant::now() < until {
                // What happens while machines are read is an event after this one.
                let (newest, note) = match self.newest(seen).await {
                    Ok(newest) => (newest, None),
                    Err(Fault::Refused(why)) => {
                        (None, Some(format!("its events are not told ({why}): changes show late")))
                    }
                    Err(fault) => return Err(fault),
                };
                if newest.is_some() || read_at.is_none_or(|at| at.elapsed() > REFRESH) {
                    seen = newest.or(seen);
                    read_at = Some(Instant::now());
                    let (machines, mut notes) = self.list().await?;
                    notes.extend(note);
                    board.publish(machines, notes);
                }
                tokio::select! {
                    () = tokio::time::sleep_until((Instant::now() + POLL).min(until)) => {}
                    () = self.changed.notified() => read_at = None,
                    () = self.account.password.changed.notified() => break,
                    () = self.account.token.wanted.notified() => {
                        tokio::time::sleep_until(began + SIGN_IN).await;
                        break;
                    }
                }
            }
        }
    }
}

#[async_trait]
impl Driver for Ovirt {
    fn dialer(&self) -> Option<&Dialer> {
        Some(&self.dialer)
    }

    async fn stay(&self) -> Fault {
        loop {
            if let Err(fault) = self.account.sign_in().await {
                return fault;
            }
            let began = Instant::now();
            tokio::select! {
                () = tokio::time::sleep(TOKEN) => {}
                () = self.account.password.changed.notified() => {}
                () = self.account.token.wanted.notified() => tokio::time::sleep_until(began + SIGN_IN).await,
            }
        }
    }

    async fn known_as(&self) -> Result<KnownAs, Fault> {
        self.own_standing().await
    }

    async fn rotation(&self) -> Result<Rotation, Fault> {
        Ok(Rotation::ByHand(account::BY_HAND))
    }

    fn nudge(&self) {
        self.changed.notify_one();
    }

    async fn follow(&self, board: &Board) -> Fault {
        match self.run(board).await {
            Ok(never) => match never {},
            Err(fault) => fault,
        }
    }

    async fn power(&self, machine: &MachineId, verb: PowerVerb) -> Result<(), Fault> {
        // Suspending keeps the memory, on a disk; starting goes on from there.
        let (action, wanted) = match verb {
            PowerVerb::Start | PowerVerb::Resume => ("start", PowerState::Running),
            PowerVerb::Shutdown => ("shutdown", PowerState::Off),
            PowerVerb::Stop => ("stop", PowerState::Off),
            PowerVerb::Reset => ("reset", PowerState::Running),
            PowerVerb::Pause => ("suspend", PowerState::Paused),
        };
        let target = format!("{BASE}/vms/{}/{action}", id_of(machine)?);
        let _: serde_json::Value = self.ask(Method::POST, &target, Some(json!({}).to_string())).await?;
        let until = Instant::now() + POWER;
        while Instant::now() < until {
            if state(&self.status(machine).await?) == wanted {
                break;
            }
            tokio::time::sleep(LOOK).await;
        }
        self.changed.notify_one();
        Ok(())
    }

    async fn open_screen(&self, machine: &MachineId) -> Result<Screen, Fault> {
        let base = format!("/vms/{}/graphicsconsoles", id_of(machine)?);
        // Without `current` the engine tells neither host nor port.
        let consoles: Consoles = self.get(&format!("{base}?current=true")).await?;
        let all = consoles.graphics_console.map(|rows| rows.good).unwrap_or_default();
        let none = |why: &str| Fault::NoScreen(why.to_owned());
        let console = all.into_iter().find(|c| c.protocol == "vnc");
        let console = console.ok_or_else(|| none("the machine has no VNC console (SPICE is not opened here)"))?;
        let (Some(host), Some(port)) = (&console.address, console.port.as_ref().and_then(Number::port)) else {
            return Err(none("the machine is not running"));
        };
        let (address, tls) = self.screens.place(host, port)?;
        // The id goes into an address.
        let id = Some(&console.id)
            .filter(|id| is_id(id))
            .ok_or_else(|| Fault::Protocol("a console without an id".to_owned()))?;
        let body = json!({ "ticket": { "expiry": TICKET } }).to_string();
        let offer: Offer = self.ask(Method::POST, &format!("{BASE}{base}/{id}/ticket"), Some(body)).await?;
        if offer.ticket.value.is_empty() {
            return Err(Fault::Protocol("a ticket without a value".to_owned()));
        }
        let login = ScreenLogin { username: None, password: Some(Secret::from(offer.ticket.value)) };
        Ok(Screen { stream: address.dial().await?, login, tls })
    }
}

/// Whether a text is an id: it goes into addresses as it is.
fn is_id(text: &str) -> bool {
    (1..=64).contains(&text.len()) && text.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-')
}

fn id_of(machine: &MachineId) -> Result<&str, Fault> {
    let id = machine.as_str();
    if is_id(id) { Ok(id) } else { Err(Fault::Refused(format!("{machine} is no machine's id"))) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::secret::{DEFAULT, Kept};
    use crate::{config::HypervisorConfig, kind};

    #[test]
    fn only_hosts_and_ports_of_the_configuration_are_dialled() {
        let hosts = ["kvm1.example".to_owned(), "10.0.0.5".to_owned(), "2001:db8::1".to_owned()];
        let hosts = hosts.map(|h| (h, None)).into();
        let screens = Screens { hosts, ports: [5900, 6923] };
        for (host, port, shown) in [
            ("kvm1.example", 5900, "kvm1.example:5900"),
            ("KVM1.example", 6923, "kvm1.example:6923"),
            ("2001:db8::1", 5901, "[2001:db8::1]:5901"),
        ] {
            assert_eq!(screens.place(host, port).map(|(a, _)| a.to_string()).unwrap(), shown);
        }
        for (host, port) in
            [("kvm2.example", 5900), ("127.0.0.1", 5900), ("kvm1.example", 22), ("kvm1.example", 6924), ("", 5900)]
        {
            assert!(screens.place(host, port).is_err(), "{host} {port}");
        }
    }

    #[test]
    fn a_configuration_that_cannot_work_is_refused_with_its_key() {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), "secret").unwrap();
        let built = |key: &str, value: serde_json::Value| {
            let mut all = json!({
                "kind": "ovirt", "name": "rhv", "address": "https://engine.example", "username": "a@internal",
                "password_file": file.path(), "tls": { "verify": "none" },
            });
            all[key] = value;
            let config: HypervisorConfig = serde_json::from_value(all).map_err(|e| e.to_string())?;
            let HypervisorConfig { common, own, .. } = config;
            let kept = Kept::new();
            let mut site = Site { common, credential: DEFAULT, kept: &kept, held: Vec::new() };
            kind::build(&mut site, own).map(|built| built.warnings).map_err(|e| e.to_string())
        };
        assert_eq!(built("screen_hosts", json!(["kvm1.example", "[2001:db8::1]"])), Ok(vec![UNVERIFIED.to_owned()]));
        assert!(built("address", json!("https://engine.example:8443/")).is_ok());
        for (key, value, word) in [
            ("address", json!("http://engine.example"), "https://"),
            ("address", json!("https://"), "address"),
            ("address", json!("https://engine.example/api"), "address"),
            ("username", json!("admin"), "name@profile"),
            ("password_file", json!("/does/not/exist"), "/does/not/exist"),
            ("screen_ports", json!([6923, 5900]), "screen_ports"),
            ("screen_ports", json!([0, 5900]), "screen_ports"),
            ("screen_hosts", json!(["kvm1:5900"]), "screen_hosts"),
            ("screen_hosts", json!([""]), "screen_hosts"),
            ("connections", json!(0), "connections"),
            ("colour", json!(1), "colour"),
        ] {
            assert!(built(key, value.clone()).is_err_and(|e| e.contains(word)), "{key} {value}");
        }
    }
}
