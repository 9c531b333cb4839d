// SPDX-License-Identifier: Apache-2.0
//! Proxmox VE clusters: inventory and power by REST, screens by `vncproxy` and a WebSocket.
//!
//! The gateway is known by an API token, one header of each request. Any node answers for the whole cluster; a screen's
//! listener is on the node that was asked for it, which is always the configured one. Where a machine runs is asked anew
//! for each change and each screen, so that one that moved is not mistaken for another (SEC-030). A screen's ticket and
//! password are used once, here, within the ten seconds that the listener waits.

mod rows;
mod token;

use super::{
    Beside, Built, Driver, LIST, PowerVerb, Screen, ScreenLogin, Settings, Standing, clean_text,
    rest::{Call, Rows, Told, encoded, screen},
};
use crate::{
    api::{Api, Dialect, Length},
    badge::Badge,
    broker::strip_secrets,
    config::ProxmoxConfig,
    error::{Error, Fault},
    fleet::Board,
    rotate::{KnownAs, Rotation},
    secret::{Derived, Held, Site},
    tls::{Tls, TlsUpgrade},
    wire::{Dialer, Https},
};
use async_trait::async_trait;
use http::{HeaderValue, Method};
use portcullis_domain::{ConsoleKind, HypervisorName, Machine, MachineId, MachineKind, MachineRef, PowerState, Secret};
use portcullis_policy::classify::Form;
use serde::{Deserialize, de::DeserializeOwned};
use std::{sync::Arc, time::Duration};
use tokio::{sync::Notify, time::Instant};

/// What is said of an answer that holds nothing.
const NOTHING: &str = "an answer without content";
const MACHINES: &str = "/api2/json/cluster/resources?type=vm";
/// How often machines are read. The nodes tell each other every 10 s.
const POLL: Duration = Duration::from_secs(5);
/// How long a change of power is waited for; after that it goes on by itself.
const POWER: Duration = Duration::from_secs(20);
/// How often a task is looked at meanwhile.
const LOOK: Duration = Duration::from_millis(300);
/// Ports that Proxmox opens screens at.
const PORTS: std::ops::RangeInclusive<u16> = 5900..=5999;

struct Proxmox {
    held: Arc<Held>,
    dialer: Arc<Dialer>,
    host: HeaderValue,
    hypervisor: HypervisorName,
    /// Something was changed: the machines are read at once.
    changed: Notify,
}

pub(crate) fn build(site: &mut Site<'_>, config: ProxmoxConfig) -> Result<Built, Error> {
    let ProxmoxConfig { address, token } = config;
    let held = site.hold("token", token, |token| match authorization(token) {
        Some(_) => Ok(()),
        None => Err("holds no API token of Proxmox: it is one line, user@realm!name=secret".to_owned()),
    })?;
    let common = &site.common;
    let Https { address, host, origin } = Https::parse(&common.key_of("address"), &address, None)?;
    let tls = Tls::Fixed(TlsUpgrade::new(&common.key(), &common.tls, address.host(), None)?);
    let header = Derived::new(Arc::clone(&held), |token| {
        authorization(token).ok_or_else(|| Fault::Refused("the gateway's token is none".to_owned()))
    });
    let warnings = common.warnings();
    let shown = address.to_string();
    let dialer = Arc::new(Dialer { address, tls: Some(tls), authorization: Some(Badge::Made(Arc::new(header))) });
    let api = Api {
        dialer: Arc::clone(&dialer),
        host: host.clone(),
        origins: vec![origin],
        connections: common.connections,
        dialect: &DIALECT,
        pool: None,
    };
    let driver = Box::new(Proxmox { held, dialer, host, hypervisor: common.name.clone(), changed: Notify::new() });
    Ok(Built { driver, api: Some(api), warnings, address: shown })
}

/// The header that shows the token, if it is one.
fn authorization(token: &Secret) -> Option<HeaderValue> {
    let text = token.expose_text()?;
    let (id, secret) = text.split_once('=')?;
    let (user, name) = id.split_once('!')?;
    let is_plain = |t: &str| !t.is_empty() && t.bytes().all(|b| b.is_ascii_graphic() && !b"=!,;\"".contains(&b));
    if !user.contains('@') || ![user, name, secret].into_iter().all(is_plain) {
        return None;
    }
    let mut value = HeaderValue::from_str(&format!("PVEAPIToken={text}")).ok()?;
    value.set_sensitive(true);
    Some(value)
}

static DIALECT: Dialect = Dialect {
    channel: |_, _| None,
    channel_address: |_, _| String::new(),
    is_long_poll: |_| false,
    length: Length::Needed,
    rows: Some(rows::keep),
    strip: strip_secrets,
    task,
};

/// `{"data":"UPID:…"}`, and nothing longer.
fn task(answer: &[u8]) -> Option<String> {
    if answer.len() > 1024 {
        return None;
    }
    let envelope: Envelope<String> = serde_json::from_slice(answer).ok()?;
    envelope.data.filter(|task| is_task(task))
}

fn is_task(text: &str) -> bool {
    text.starts_with("UPID:")
        && text.len() <= 256
        && text.bytes().all(|b| b.is_ascii_alphanumeric() || b":@.!_-".contains(&b))
}

#[derive(Deserialize)]
#[serde(bound = "T: DeserializeOwned")]
struct Envelope<T> {
    data: Option<T>,
}

#[derive(Deserialize)]
struct Refusal {
    message: String,
}

/// One machine of the list; what else stands in it is not looked at.
#[derive(Deserialize)]
struct Row {
    vmid: u32,
    #[serde(rename = "type")]
    kind: RowKind,
    node: String,
    #[serde(default)]
    name: String,
    #[serde(default)]
    status: String,
    #[serde(default)]
    pool: String,
    #[serde(default)]
    tags: String,
    #[serde(default)]
    template: u8,
}

#[derive(Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
enum RowKind {
    Qemu,
    Lxc,
}

impl RowKind {
    const fn word(self) -> &'static str {
        match self {
            Self::Qemu => "qemu",
            Self::Lxc => "lxc",
        }
    }
}

#[derive(Deserialize)]
struct TaskState {
    status: String,
    #[serde(default)]
    exitstatus: String,
}

/// What `vncproxy` answers. No `Debug`: ticket and password stay here.
#[derive(Deserialize)]
struct Offer {
    #[serde(deserialize_with = "port")]
    port: u16,
    ticket: String,
    #[serde(default)]
    password: Option<String>,
}

/// A number, or a text that is one.
fn port<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<u16, D::Error> {
    #[derive(Deserialize)]
    #[serde(untagged)]
    enum Either {
        Number(u16),
        Text(String),
    }
    match Either::deserialize(deserializer)? {
        Either::Number(port) => Ok(port),
        Either::Text(text) => text.parse().map_err(serde::de::Error::custom),
    }
}

impl Proxmox {
    async fn ask<T: DeserializeOwned>(&self, method: Method, target: &str, form: Option<&str>) -> Result<T, Fault> {
        let body = form.map(|f| ("application/x-www-form-urlencoded", f.to_owned()));
        let call = Call { method, target, body, patience: LIST };
        let Told { status, reason, text } = call.send(&self.dialer, &self.host).await?;
        if !status.is_success() {
            let said = serde_json::from_slice::<Refusal>(&text).ok().map(|r| clean_text(&r.message));
            let why = said.filter(|s| !s.is_empty()).or(reason).filter(|s| !s.is_empty());
            return Err(Fault::Refused(why.unwrap_or_else(|| format!("status {status}"))));
        }
        // The place of what is wrong and not its text: an answer may hold a ticket.
        let wrong =
            |e: serde_json::Error| Fault::Protocol(format!("an answer of another shape, at column {}", e.column()));
        let envelope: Envelope<T> = serde_json::from_slice(&text).map_err(wrong)?;
        envelope.data.ok_or_else(|| Fault::Protocol(NOTHING.to_owned()))
    }

    async fn list(&self) -> Result<Rows<Row>, Fault> {
        self.ask(Method::GET, MACHINES, None).await
    }

    fn machine(&self, row: Row) -> Result<Machine, String> {
        let Row { vmid, kind, node, name, status, pool, tags, template } = row;
        let machine = vmid.to_string().parse().map_err(|_| format!("machine {vmid} was left out: no id"))?;
        let is_template = template != 0;
        Ok(Machine {
            at: MachineRef { hypervisor: self.hypervisor.clone(), machine },
            name,
            kind: match kind {
                _ if is_template => MachineKind::Template,
                RowKind::Qemu => MachineKind::Guest,
                RowKind::Lxc => MachineKind::Container,
            },
            state: match status.as_str() {
                "running" => PowerState::Running,
                "paused" | "suspended" | "prelaunch" => PowerState::Paused,
                "stopped" => PowerState::Off,
                _ => PowerState::Unknown,
            },
            pool: Some(pool).filter(|p| !p.is_empty()),
            tags: tags.split([';', ',', ' ']).filter(|t| !t.is_empty()).map(str::to_owned).collect(),
            node: Some(node),
            console: if is_template { ConsoleKind::None } else { ConsoleKind::Vnc },
        })
    }

    /// Where a machine is now, as the beginning of its addresses.
    async fn find(&self, machine: &MachineId) -> Result<(String, Row), Fault> {
        let gone = || Fault::Refused(format!("there is no machine {machine}"));
        let row = self.list().await?.good.into_iter().find(|r| r.vmid.to_string() == machine.as_str());
        let row = row.ok_or_else(gone)?;
        let is_name = |n: &str| n.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-') && !n.is_empty();
        if !is_name(&row.node) {
            return Err(Fault::Protocol("a node without a proper name".to_owned()));
        }
        Ok((format!("/api2/json/nodes/{}/{}/{}", row.node, row.kind.word(), row.vmid), row))
    }

    /// The settings at an address. Whatever is no flat object (raw lines of a container) cannot be compared, and fails.
    async fn settings(&self, target: &str) -> Result<Settings, Fault> {
        let form: Form = self.ask(Method::GET, target, None).await?;
        Ok(Settings::Params(form))
    }

    /// Waits a while for a task, and says how it failed.
    async fn wait(&self, node: &str, task: &str) -> Result<(), Fault> {
        if !is_task(task) {
            return Err(Fault::Protocol("a task without an id".to_owned()));
        }
        let target = format!("/api2/json/nodes/{node}/tasks/{}/status", encoded(task));
        let until = Instant::now() + POWER;
        while Instant::now() < until {
            let state: TaskState = self.ask(Method::GET, &target, None).await?;
            if state.status == "stopped" {
                let is_well = state.exitstatus == "OK" || state.exitstatus.starts_with("WARNINGS");
                return if is_well { Ok(()) } else { Err(Fault::Refused(clean_text(&state.exitstatus))) };
            }
            tokio::time::sleep(LOOK).await;
        }
        Ok(())
    }
}

#[async_trait]
impl Driver for Proxmox {
    fn dialer(&self) -> Option<&Dialer> {
        Some(&self.dialer)
    }

    async fn follow(&self, board: &Board) -> Fault {
        loop {
            let rows = match self.list().await {
                Ok(rows) => rows,
                Err(fault) => return fault,
            };
            let mut notes = rows.notes("machine", "machines");
            let mut machines = Vec::with_capacity(rows.good.len());
            for row in rows.good {
                match self.machine(row) {
                    Ok(machine) => machines.push(machine),
                    Err(note) => notes.push(note),
                }
            }
            board.publish(machines, notes);
            tokio::select! {
                () = tokio::time::sleep(POLL) => {}
                () = self.changed.notified() => {}
            }
        }
    }

    async fn known_as(&self) -> Result<KnownAs, Fault> {
        self.own_standing().await
    }

    async fn rotation(&self) -> Result<Rotation, Fault> {
        Ok(Rotation::Made)
    }

    fn label(&self, secret: &Secret) -> Option<String> {
        token::parts(secret).ok().map(|(user, name)| token::label(&user, &name))
    }

    async fn others(&self) -> Result<Vec<String>, Fault> {
        self.other_tokens().await
    }

    async fn make_secret(&self) -> Result<Secret, Fault> {
        self.make_token().await
    }

    async fn retire_secret(&self, old: &Secret) -> Result<(), Fault> {
        self.retire_token(old).await
    }

    fn nudge(&self) {
        self.changed.notify_one();
    }

    async fn power(&self, machine: &MachineId, verb: PowerVerb) -> Result<(), Fault> {
        let (at, row) = self.find(machine).await?;
        let word = match (verb, row.kind) {
            (PowerVerb::Start, _) => "start",
            (PowerVerb::Shutdown, _) => "shutdown",
            (PowerVerb::Stop, _) => "stop",
            (PowerVerb::Reset, RowKind::Qemu) => "reset",
            (PowerVerb::Pause, RowKind::Qemu) => "suspend",
            (PowerVerb::Resume, RowKind::Qemu) => "resume",
            (PowerVerb::Reset | PowerVerb::Pause | PowerVerb::Resume, RowKind::Lxc) => {
                let why = "a container is started, shut down and stopped; for a reset, stop and start it";
                return Err(Fault::Unsupported(why.to_owned()));
            }
        };
        let task: String = self.ask(Method::POST, &format!("{at}/status/{word}"), Some("")).await?;
        let done = self.wait(&row.node, &task).await;
        self.changed.notify_one();
        done
    }

    async fn standing(&self, machine: &MachineId, beside: &Beside) -> Result<Standing, Fault> {
        let (at, _) = self.find(machine).await?;
        // Without `current`: what an administrator took away and is not gone yet counts as gone.
        let now = self.settings(&format!("{at}/config")).await?;
        let then = match beside {
            Beside::Nothing => None,
            Beside::Effective => Some(self.settings(&format!("{at}/config?current=1")).await?),
            Beside::Snapshot(name) => Some(self.settings(&format!("{at}/config?snapshot={}", encoded(name))).await?),
            Beside::Saved => return Err(Fault::Unsupported("it has no such settings".to_owned())),
        };
        Ok(Standing { now, then, mark: None })
    }

    async fn open_screen(&self, machine: &MachineId) -> Result<Screen, Fault> {
        let (at, row) = self.find(machine).await?;
        if row.status != "running" {
            return Err(Fault::NoScreen("it is switched off".to_owned()));
        }
        let form = match row.kind {
            RowKind::Qemu => "websocket=1&generate-password=1",
            RowKind::Lxc => "websocket=1",
        };
        let offer: Offer = self.ask(Method::POST, &format!("{at}/vncproxy"), Some(form)).await?;
        if !PORTS.contains(&offer.port) {
            return Err(Fault::Protocol("a screen at a port that no screen has".to_owned()));
        }
        let address = format!("{at}/vncwebsocket?port={}&vncticket={}", offer.port, encoded(&offer.ticket));
        let stream = screen(&self.dialer, &self.host, &address, "binary").await?;
        // Where it names no password, the ticket is the one.
        let password = Secret::from(offer.password.unwrap_or(offer.ticket));
        Ok(Screen { stream, login: ScreenLogin { username: None, password: Some(password) }, tls: None })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_is_sent_whole_or_not_taken() {
        let value = authorization(&Secret::from("gateway@pve!main=0f3a-77".to_owned())).unwrap();
        assert_eq!(value, "PVEAPIToken=gateway@pve!main=0f3a-77");
        assert!(value.is_sensitive() && !format!("{value:?}").contains("0f3a"));
        for bad in
            ["", "x", "gateway!main=1", "gateway@pve=1", "gateway@pve!main", "gateway@pve!main=", "a@b!c=d e", "a@b!=x"]
        {
            assert!(authorization(&Secret::from(bad.to_owned())).is_none(), "{bad}");
        }
    }

    #[test]
    fn a_ticket_keeps_its_meaning_in_an_address() {
        assert_eq!(encoded("pw:PVEVNC:6A::b+/c=="), "pw%3APVEVNC%3A6A%3A%3Ab%2B%2Fc%3D%3D");
    }

    #[test]
    fn a_port_is_a_number_in_either_spelling() {
        for text in [r#"{"port":5900,"ticket":"t"}"#, r#"{"port":"5900","ticket":"t","password":null}"#] {
            assert_eq!(serde_json::from_str::<Offer>(text).map(|o| o.port).unwrap(), 5900);
        }
        assert!(serde_json::from_str::<Offer>(r#"{"port":"5900/..","ticket":"t"}"#).is_err());
    }
}
