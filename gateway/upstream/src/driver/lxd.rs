// SPDX-License-Identifier: Apache-2.0
//! LXD and Incus servers, which differ in nothing that is asked here: inventory by REST, changes by the events WebSocket,
//! power by `PUT …/state`.
//!
//! The gateway is known by its client certificate, or by its process's user on the unix socket.

mod rows;

use super::{
    Beside, Built, Driver, LIST, PowerVerb, REFRESH, Screen, Settings, Standing,
    rest::{Call, Rows, ask, content, encoded, tell},
};
use crate::{
    api::{Api, ChannelRequest, Dialect, Length},
    broker::strip_secrets,
    config::LxdConfig,
    error::{Error, Fault},
    fleet::Board,
    rotate::{Form, KnownAs, Rotation, by_hand},
    secret::{Site, Source},
    tls::{Certificate, Tls},
    wire::{Address, Dialer, Https, Wire},
};
use async_trait::async_trait;
use base64::{Engine as _, engine::general_purpose::STANDARD};
use futures_util::{SinkExt, StreamExt};
use http::{HeaderValue, Method, header::ETAG};
use portcullis_domain::{
    Action, ConsoleKind, HypervisorName, Machine, MachineId, MachineKind, MachineRef, PowerState, Secret,
};
use portcullis_policy::classify::Json;
use serde::Deserialize;
use std::{sync::Arc, time::Duration};
use tokio::time::Instant;
use tokio_tungstenite::{
    WebSocketStream, client_async_with_config,
    tungstenite::{Error as WsError, Message, protocol::WebSocketConfig},
};

const INSTANCES: &str = "/1.0/instances?recursion=1&all-projects=true";
const EVENTS: &str = "/1.0/events?type=lifecycle&all-projects=true";
/// Changes that come close together are read together.
const GATHER: Duration = Duration::from_millis(100);
/// Lists are never closer together than this, however many events come.
const SPACING: Duration = Duration::from_millis(400);
/// A silent events connection is given up after this.
const SILENCE: Duration = Duration::from_secs(75);
/// What of an instance a request may write; a snapshot has no other settings.
const WRITABLE: [&str; 7] = ["architecture", "config", "description", "devices", "ephemeral", "profiles", "stateful"];
/// How long a change of power is waited for; after that it goes on by itself.
const POWER: u64 = 20;
const MAX_EVENT: usize = 1024 * 1024;

struct Lxd {
    /// What it shows, where it shows a certificate.
    shown: Option<Certificate>,
    dialer: Arc<Dialer>,
    host: HeaderValue,
    hypervisor: HypervisorName,
}

pub(crate) fn build(site: &mut Site<'_>, config: LxdConfig) -> Result<Built, Error> {
    let key = site.common.key();
    let has_identity = match (&config.cert_file, &config.key) {
        (Some(_), Some(_)) | (None, Some(Source::Given(_))) => true,
        (None, None) => false,
        _ => return Err(Error::config(format!("{key}.cert_file"), "cert_file and key_file belong together")),
    };
    let mut shown = None;
    let (dialer, host, origins) = match (config.socket, &config.address) {
        (Some(socket), None) => {
            if has_identity {
                let why = "a unix socket asks for no certificate: drop cert_file and key_file";
                return Err(Error::config(format!("{key}.cert_file"), why));
            }
            let host = HeaderValue::from_static("lxd");
            (Dialer { address: Address::Unix(socket), tls: None, authorization: None }, host, Vec::new())
        }
        (None, Some(text)) => {
            let Https { address, host, origin } = Https::parse(&site.common.key_of("address"), text, None)?;
            let missing = "the server knows the gateway by its client certificate: set cert_file and key_file";
            let (tls, own) = Tls::shown(site, config.cert_file.as_deref(), config.key, address.host(), missing)?;
            shown = Some(own);
            (Dialer { address, tls: Some(tls), authorization: None }, host, vec![origin])
        }
        _ => return Err(Error::config(key, "set either address or socket")),
    };
    let common = &site.common;
    let warnings = common.warnings();
    let address = dialer.address.to_string();
    let dialer = Arc::new(dialer);
    let api = Api {
        dialer: Arc::clone(&dialer),
        host: host.clone(),
        origins,
        connections: common.connections,
        dialect: &DIALECT,
        pool: None,
    };
    Ok(Built {
        driver: Box::new(Lxd { shown, dialer, host, hypervisor: common.name.clone() }),
        api: Some(api),
        warnings,
        address,
    })
}

const OPERATIONS: &str = "/1.0/operations/";

static DIALECT: Dialect = Dialect {
    channel,
    channel_address: |task, secret| format!("{OPERATIONS}{task}/websocket?secret={secret}"),
    is_long_poll: |path| path.starts_with(OPERATIONS) && path.ends_with("/wait"),
    length: Length::Any,
    rows: Some(rows::keep),
    strip: strip_secrets,
    task: |_| None,
};

fn channel<'a>(path: &'a str, query: Option<&'a str>) -> Option<ChannelRequest<'a>> {
    let task = path.strip_prefix(OPERATIONS)?.strip_suffix("/websocket")?;
    let mut secrets = query.unwrap_or_default().split('&').filter_map(|pair| pair.strip_prefix("secret="));
    let secret = secrets.next().filter(|_| secrets.next().is_none());
    Some(ChannelRequest { task, secret })
}

/// What the server says of itself to whoever asks.
#[derive(Deserialize)]
struct Server {
    #[serde(default)]
    auth: String,
}

/// A certificate that the server trusts.
#[derive(Deserialize)]
struct Trusted {
    #[serde(default)]
    name: String,
    #[serde(default)]
    restricted: bool,
    #[serde(default)]
    projects: Vec<String>,
    #[serde(default)]
    fingerprint: String,
}

/// One row of the list; what else stands in it is not looked at.
#[derive(Deserialize)]
struct Instance {
    name: String,
    #[serde(default = "default_project")]
    project: String,
    #[serde(rename = "type", default)]
    kind: String,
    #[serde(default)]
    status: String,
    #[serde(default)]
    location: String,
    #[serde(default)]
    config: InstanceConfig,
}

#[derive(Default, Deserialize)]
struct InstanceConfig {
    #[serde(rename = "user.tags", default)]
    tags: String,
}

fn default_project() -> String {
    "default".to_owned()
}

#[derive(Deserialize)]
struct Task {
    id: String,
    #[serde(default)]
    status_code: u16,
    #[serde(default)]
    err: String,
}

impl Lxd {
    async fn list(&self) -> Result<(Vec<Machine>, Vec<String>), Fault> {
        let rows: Rows<Instance> = ask(&self.dialer, &self.host, Method::GET, INSTANCES, None, LIST).await?;
        let mut notes = rows.notes("instance", "instances");
        let mut machines = Vec::with_capacity(rows.good.len());
        for instance in rows.good {
            match self.machine(instance) {
                Ok(machine) => machines.push(machine),
                Err(note) => notes.push(note),
            }
        }
        Ok((machines, notes))
    }

    fn machine(&self, instance: Instance) -> Result<Machine, String> {
        let Instance { name, project, kind, status, location, config } = instance;
        let id: Result<MachineId, _> = format!("{project}:{name}").parse();
        // A name with a colon could pass for an instance of another project.
        let machine = id.ok().filter(|_| !name.is_empty() && !name.contains(':') && !project.contains(':'));
        let machine = machine.ok_or_else(|| {
            format!("an instance was left out: {:?} cannot be an id", super::clean_text(&format!("{project}:{name}")))
        })?;
        Ok(Machine {
            at: MachineRef { hypervisor: self.hypervisor.clone(), machine },
            name,
            kind: if kind == "virtual-machine" { MachineKind::Guest } else { MachineKind::Container },
            state: state_of(&status),
            pool: Some(project),
            tags: split_tags(&config.tags),
            node: Some(location).filter(|l| !l.is_empty() && l != "none"),
            console: ConsoleKind::Text,
        })
    }

    /// What the server knows of a certificate that it trusts.
    async fn trusted(&self, print: &str) -> Result<Trusted, Fault> {
        ask(&self.dialer, &self.host, Method::GET, &format!("/1.0/certificates/{print}"), None, LIST).await
    }

    async fn listen(&self) -> Result<WebSocketStream<Wire>, Fault> {
        let wire = self.dialer.dial().await?;
        // The scheme only satisfies the library: TLS, where there is any, is already on the wire.
        let host = self.host.to_str().unwrap_or("lxd");
        let address = format!("ws://{host}{EVENTS}");
        let config = WebSocketConfig::default().max_message_size(Some(MAX_EVENT)).max_frame_size(Some(MAX_EVENT));
        let connect = client_async_with_config(address, wire, Some(config));
        match tokio::time::timeout(LIST, connect).await {
            Ok(Ok((socket, _))) => Ok(socket),
            Ok(Err(error)) => Err(explain(error)),
            Err(_) => Err(Fault::TooSlow("to open its events")),
        }
    }

    async fn watch(&self, board: &Board) -> Result<std::convert::Infallible, Fault> {
        // Events first: a change between the list and the first event would be missed the other way round.
        let mut events = self.listen().await?;
        let mut heard_at = Instant::now();
        loop {
            let listed_at = Instant::now();
            let (machines, notes) = self.list().await?;
            board.publish(machines, notes);
            let mut due = listed_at + REFRESH;
            loop {
                match tokio::time::timeout_at(due, events.next()).await {
                    Err(_) => break,
                    Ok(None) => return Err(Fault::hung_up("closed its events connection")),
                    Ok(Some(Err(error))) => return Err(explain(error)),
                    Ok(Some(Ok(message))) => {
                        heard_at = Instant::now();
                        if matches!(message, Message::Text(_) | Message::Binary(_)) {
                            due = due.min((heard_at + GATHER).max(listed_at + SPACING));
                        }
                    }
                }
            }
            if heard_at.elapsed() > SILENCE {
                return Err(Fault::TooSlow("to say anything on its events connection"));
            }
            events.send(Message::Ping(Vec::new().into())).await.map_err(explain)?;
        }
    }

    /// The settings at an address, and what LXD calls them. A body is read like one of a person's.
    async fn settings(&self, target: &str) -> Result<(Settings, Option<HeaderValue>), Fault> {
        let call = Call { method: Method::GET, target, body: None, patience: LIST };
        let (told, mut headers) = call.send_with(&self.dialer, &self.host, &[]).await?;
        let mut all: serde_json::Map<String, serde_json::Value> = content(&told)?;
        all.retain(|key, _| WRITABLE.contains(&key.as_str()));
        let text = serde_json::Value::Object(all).to_string();
        let said = Json::read(None, text.as_bytes());
        let said = said.map_err(|_| Fault::Protocol("settings that cannot be read".to_owned()))?;
        Ok((Settings::Json(said), headers.remove(ETAG)))
    }

    /// Starts a task and waits a while for it.
    async fn run(&self, target: &str, body: String) -> Result<(), Fault> {
        let task: Task = ask(&self.dialer, &self.host, Method::PUT, target, Some(body), LIST).await?;
        let id = uuid::Uuid::try_parse(&task.id).map_err(|_| Fault::Protocol("a task without an id".to_owned()))?;
        let wait = format!("/1.0/operations/{id}/wait?timeout={POWER}");
        let task: Task = ask(&self.dialer, &self.host, Method::GET, &wait, None, LIST).await?;
        // 400 failed, 401 cancelled; anything below is done or still under way.
        if task.status_code >= 400 { Err(Fault::Refused(super::clean_text(&task.err))) } else { Ok(()) }
    }
}

#[async_trait]
impl Driver for Lxd {
    fn dialer(&self) -> Option<&Dialer> {
        Some(&self.dialer)
    }

    async fn follow(&self, board: &Board) -> Fault {
        match self.watch(board).await {
            Ok(never) => match never {},
            Err(fault) => fault,
        }
    }

    async fn known_as(&self) -> Result<KnownAs, Fault> {
        let told: Server = ask(&self.dialer, &self.host, Method::GET, "/1.0", None, LIST).await?;
        if told.auth != "trusted" {
            return Err(Fault::Refused("it does not trust the gateway's certificate".to_owned()));
        }
        let (who, is_restricted) = match &self.shown {
            None => ("its unix socket".to_owned(), false),
            Some(shown) => {
                let own = self.trusted(&shown.print()?).await?;
                (own.name, own.restricted)
            }
        };
        let unrestricted = [Action::AccessAdmin, Action::NodeAdmin].map(|a| (a, "not restricted".to_owned()));
        Ok(KnownAs::new(who, if is_restricted { Vec::new() } else { unrestricted.into() }))
    }

    async fn rotation(&self) -> Result<Rotation, Fault> {
        let Some(shown) = &self.shown else {
            return Ok(Rotation::ByHand("on its unix socket the gateway needs no secret"));
        };
        let is_restricted = self.trusted(&shown.print()?).await?.restricted;
        Ok(if is_restricted {
            Rotation::ByHand(
                "the gateway's certificate is restricted, and a restricted one adds none: have an administrator add another \
                 one there for the same projects (config trust add --restricted)",
            )
        } else {
            Rotation::Given(Form::Certificate)
        })
    }

    fn label(&self, secret: &Secret) -> Option<String> {
        let print = self.shown.as_ref()?.print_of(secret).ok()?;
        Some(label(&print))
    }

    /// Certificates of the same name: a rotation gives a new one that of the old one.
    async fn others(&self) -> Result<Vec<String>, Fault> {
        let Some(shown) = &self.shown else { return Ok(Vec::new()) };
        let print = shown.print()?;
        let own = self.trusted(&print).await?;
        let target = "/1.0/certificates?recursion=1";
        let all: Vec<Trusted> = ask(&self.dialer, &self.host, Method::GET, target, None, LIST).await?;
        let others = all.iter().filter(|c| c.name == own.name && c.fingerprint != print);
        Ok(others.map(|c| super::clean_text(&label(&c.fingerprint))).collect())
    }

    async fn put_secret(&self, new: &Secret) -> Result<(), Fault> {
        let shown = self.shown.as_ref().ok_or_else(by_hand)?;
        let own = self.trusted(&shown.print()?).await?;
        let body = serde_json::json!({
            "type": "client", "name": own.name, "restricted": own.restricted, "projects": own.projects,
            "certificate": STANDARD.encode(shown.leaf(new)?),
        });
        tell(&self.dialer, &self.host, Method::POST, "/1.0/certificates", Some(body.to_string())).await
    }

    async fn retire_secret(&self, old: &Secret) -> Result<(), Fault> {
        let shown = self.shown.as_ref().ok_or_else(by_hand)?;
        let print = shown.print_of(old)?;
        if shown.print()? == print {
            return Err(Fault::Refused("it is the certificate in use".to_owned()));
        }
        tell(&self.dialer, &self.host, Method::DELETE, &format!("/1.0/certificates/{print}"), None).await
    }

    async fn power(&self, machine: &MachineId, verb: PowerVerb) -> Result<(), Fault> {
        let (project, name) = place(machine)?;
        let (action, is_forced) = match verb {
            PowerVerb::Start => ("start", false),
            PowerVerb::Shutdown => ("stop", false),
            PowerVerb::Stop => ("stop", true),
            PowerVerb::Reset => ("restart", true),
            PowerVerb::Pause => ("freeze", false),
            PowerVerb::Resume => ("unfreeze", false),
        };
        let body = serde_json::json!({ "action": action, "force": is_forced, "timeout": 30 });
        // An id holds only characters that need no escaping in a path or query.
        self.run(&format!("/1.0/instances/{name}/state?project={project}"), body.to_string()).await
    }

    async fn standing(&self, machine: &MachineId, beside: &Beside) -> Result<Standing, Fault> {
        let (project, name) = place(machine)?;
        let (now, mark) = self.settings(&format!("/1.0/instances/{name}?project={project}")).await?;
        let then = match beside {
            Beside::Snapshot(snapshot) => {
                let target = format!("/1.0/instances/{name}/snapshots/{}?project={project}", encoded(snapshot));
                Some(self.settings(&target).await?.0)
            }
            Beside::Nothing => None,
            Beside::Effective | Beside::Saved => return Err(Fault::Unsupported("it has no such settings".to_owned())),
        };
        Ok(Standing { now, then, mark })
    }

    async fn open_screen(&self, _: &MachineId) -> Result<Screen, Fault> {
        let why = "an LXD console is text; open it with lxc, or another client of its API, through the gateway";
        Err(Fault::Unsupported(why.to_owned()))
    }
}

/// What a certificate is called, for people.
fn label(print: &str) -> String {
    format!("the certificate {}", print.chars().take(12).collect::<String>())
}

/// The project and the name in an id.
fn place(machine: &MachineId) -> Result<(&str, &str), Fault> {
    machine.as_str().split_once(':').ok_or_else(|| Fault::Refused(format!("{machine} is no instance's id")))
}

/// Tags as a setting holds them: with commas between them.
fn split_tags(text: &str) -> Vec<String> {
    text.split(',').map(str::trim).filter(|t| !t.is_empty()).map(str::to_owned).collect()
}

fn state_of(status: &str) -> PowerState {
    match status {
        "Running" | "Ready" | "Starting" | "Thawed" | "Stopping" => PowerState::Running,
        "Frozen" | "Freezing" => PowerState::Paused,
        "Stopped" => PowerState::Off,
        "Error" => PowerState::Crashed,
        _ => PowerState::Unknown,
    }
}

fn explain(error: WsError) -> Fault {
    match error {
        WsError::Io(e) => Fault::unreachable("its events connection broke", e),
        WsError::ConnectionClosed | WsError::AlreadyClosed => Fault::hung_up("closed its events connection"),
        WsError::Http(response) => Fault::Refused(format!("its events answer with status {}", response.status())),
        other => Fault::Protocol(super::clean_text(&other.to_string())),
    }
}
