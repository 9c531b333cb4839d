// SPDX-License-Identifier: Apache-2.0
//! OpenStack clouds: inventory and power by Nova (Compute API 2.1, microversion 2.26 for tags), screens by
//! `remote-consoles` and nova-novncproxy's WebSocket, all with a token of Keystone that is renewed here.
//!
//! Keystone, Nova and the console proxy stand in the configuration. What a catalog or a console's address names is never
//! dialled (SEC-150): of the latter only its token is used, once, here, at the configured place.

mod account;
mod credential;
mod rows;

use super::{
    Built, Driver, LIST, PowerVerb, Screen, ScreenLogin, clean_text,
    rest::{Call, Rows, Told, encoded, screen},
};
use crate::{
    api::{Api, Dialect, Length},
    badge::{Badge, Renewed},
    broker::strip_secrets,
    config::OpenStackConfig,
    error::{Error, Fault},
    fleet::{Board, MAX_MACHINES},
    rotate::{Form, KnownAs, Rotation},
    secret::{Site, is_text},
    tls::{Tls, TlsUpgrade},
    wire::{Address, Dialer},
};
use account::{Keystone, Who};
use async_trait::async_trait;
use http::{HeaderName, HeaderValue, Method, StatusCode};
use portcullis_domain::{ConsoleKind, HypervisorName, Machine, MachineId, MachineKind, MachineRef, PowerState, Secret};
use serde::{Deserialize, de::DeserializeOwned, de::IgnoredAny};
use serde_json::{Value, json};
use std::{
    collections::{HashMap, HashSet},
    sync::Arc,
    time::Duration,
};
use tokio::{sync::Notify, time::Instant};

/// How often servers are read.
const POLL: Duration = Duration::from_secs(5);
/// How often projects' names are read.
const PROJECTS: Duration = Duration::from_mins(1);
/// How often the gateway signs in at most.
const SIGN_IN: Duration = Duration::from_secs(5);
/// How long a change of power is waited for; after that it goes on by itself.
const POWER: Duration = Duration::from_secs(20);
/// How often the server is looked at meanwhile.
const LOOK: Duration = Duration::from_millis(300);
/// Servers of a page.
const PAGE: usize = 500;
/// Tags came with 2.26, consoles in this form with 2.6.
const VERSION: (&str, &str) = ("openstack-api-version", "compute 2.26");
const UNENCRYPTED: &str = "an address begins with http://: anybody on the way can read the token and change everything";

/// An address of a service, from the configuration.
struct Place {
    address: Address,
    /// What `Host` says.
    host: HeaderValue,
    /// `http` or `https`.
    is_encrypted: bool,
    /// What every address there begins with; without a slash at the end.
    path: String,
}

struct OpenStack {
    keystone: Keystone,
    dialer: Arc<Dialer>,
    host: HeaderValue,
    base: String,
    console: Option<(Dialer, Place)>,
    hypervisor: HypervisorName,
    /// Something was changed: the servers are read at once.
    changed: Notify,
}

pub(crate) fn build(site: &mut Site<'_>, config: OpenStackConfig) -> Result<Built, Error> {
    let key = site.common.key();
    let identity = Place::read(&format!("{key}.identity"), &config.identity)?;
    if !identity.path.ends_with("/v3") {
        return Err(Error::config(format!("{key}.identity"), "does not end with /v3"));
    }
    let compute = Place::read(&format!("{key}.compute"), &config.compute)?;
    if compute.path != "/v2.1" && compute.path != "/compute/v2.1" {
        return Err(Error::config(format!("{key}.compute"), "does not end with /v2.1 or /compute/v2.1"));
    }
    let console = config.console.as_ref().map(|text| Place::read(&format!("{key}.console"), text)).transpose()?;
    let who = match (config.user, config.project, config.application_credential) {
        (Some(user), Some(project), None) => {
            Who::Password { user, project, user_domain: config.user_domain, project_domain: config.project_domain }
        }
        (None, None, Some(id)) => Who::Application { id },
        _ => return Err(Error::config(key, "set user and project, or application_credential")),
    };
    let secret = site.hold("secret", config.secret, is_text)?;
    let common = &site.common;
    let mut warnings = common.warnings();
    if ![&identity, &compute].into_iter().chain(&console).all(|p| p.is_encrypted) {
        warnings.push(UNENCRYPTED.to_owned());
    }
    let dialer = |place: &Place, authorization: Option<Badge>| {
        let tls = place.is_encrypted.then(|| TlsUpgrade::new(&key, &common.tls, place.address.host(), None));
        let tls = tls.transpose()?.map(Tls::Fixed);
        Ok::<_, Error>(Dialer { address: place.address.clone(), tls, authorization })
    };
    let tie = (HeaderName::from_static("x-openstack-request-id"), "req-");
    let token = Arc::new(Renewed::new(HeaderName::from_static("x-auth-token"), Some(tie)));
    let badge = Badge::Renewed(Arc::clone(&token));
    let shared = Arc::new(dialer(&compute, Some(badge))?);
    let console = console.map(|place| dialer(&place, None).map(|d| (d, place))).transpose()?;
    let host = compute.host.clone();
    let shown = host.to_str().unwrap_or_default();
    let api = Api {
        dialer: Arc::clone(&shared),
        host: host.clone(),
        origins: vec![format!("https://{shown}"), format!("http://{shown}")],
        connections: common.connections,
        dialect: &DIALECT,
        pool: None,
    };
    let address = compute.address.to_string();
    let keystone = Keystone { dialer: dialer(&identity, None)?, place: identity, who, secret, token };
    let (base, hypervisor) = (compute.path, common.name.clone());
    let driver = OpenStack { keystone, dialer: shared, host, base, console, hypervisor, changed: Notify::new() };
    Ok(Built { driver: Box::new(driver), api: Some(api), warnings, address })
}

static DIALECT: Dialect = Dialect {
    channel: |_, _| None,
    channel_address: |_, _| String::new(),
    is_long_poll: |_| false,
    length: Length::Any,
    rows: Some(rows::keep),
    strip: strip_secrets,
    task: |_| None,
};

impl Place {
    fn read(key: &str, text: &str) -> Result<Self, Error> {
        let bad = || Error::config(key, format!("{text:?} is no https://host:port/path"));
        let (scheme, rest) = text.split_once("://").ok_or_else(bad)?;
        let is_encrypted = match scheme {
            "https" => true,
            "http" => false,
            _ => return Err(bad()),
        };
        let (host, path) = rest.find('/').map_or((rest, ""), |at| rest.split_at(at));
        let is_plain = |b: u8| b.is_ascii_alphanumeric() || b"-_./".contains(&b);
        if !path.bytes().all(is_plain) || path.contains("//") || path.contains("..") {
            return Err(bad());
        }
        let bare = host.rsplit_once(']').map_or(host, |(_, after)| after);
        let port = if is_encrypted { 443 } else { 80 };
        let host = if bare.contains(':') { host.to_owned() } else { format!("{host}:{port}") };
        let address = Address::parse(key, &host)?;
        if address.host().is_none() {
            return Err(bad());
        }
        let host = HeaderValue::from_str(&host).map_err(|e| Error::config(key, e.to_string()))?;
        Ok(Self { address, host, is_encrypted, path: path.trim_end_matches('/').to_owned() })
    }

    /// Whether an address that the cloud names is at this place, and what stands behind it.
    fn rest_of<'u>(&self, url: &'u str) -> Option<&'u str> {
        let (scheme, rest) = url.split_once("://")?;
        let (host, rest) = rest.find(['/', '?']).map_or((rest, ""), |at| rest.split_at(at));
        let port = match scheme {
            "https" | "wss" => 443,
            "http" | "ws" => 80,
            _ => return None,
        };
        let bare = host.rsplit_once(']').map_or(host, |(_, after)| after);
        let host = if bare.contains(':') { host.to_owned() } else { format!("{host}:{port}") };
        self.host.as_bytes().eq_ignore_ascii_case(host.as_bytes()).then_some(rest)
    }
}

/// One server of the list; what else stands in it is not looked at.
#[derive(Deserialize)]
struct Row {
    id: String,
    #[serde(default)]
    name: String,
    #[serde(default)]
    status: String,
    #[serde(default)]
    tenant_id: String,
    #[serde(default)]
    tags: Vec<String>,
    #[serde(rename = "OS-EXT-SRV-ATTR:host", default)]
    host: Option<String>,
    #[serde(rename = "OS-EXT-STS:power_state", default)]
    power: u8,
    #[serde(rename = "OS-EXT-STS:task_state", default)]
    task: Option<String>,
}

#[derive(Deserialize)]
struct Page {
    servers: Rows<Row>,
    #[serde(default)]
    servers_links: Vec<IgnoredAny>,
}

#[derive(Deserialize)]
struct One {
    server: Row,
}

/// What `remote-consoles` answers. No `Debug`: the address holds a token.
#[derive(Deserialize)]
struct Offer {
    remote_console: RemoteConsole,
}

#[derive(Deserialize)]
struct RemoteConsole {
    url: String,
}

/// Why something was refused, in the service's own words: `{"itemNotFound": {"message": "…"}}`.
fn words(status: StatusCode, text: &[u8]) -> String {
    let said: Option<HashMap<String, Value>> = serde_json::from_slice(text).ok();
    let message = said.and_then(|all| {
        let one = all.into_values().next()?;
        one.get("message").and_then(Value::as_str).map(clean_text)
    });
    message.filter(|m| !m.is_empty()).unwrap_or_else(|| format!("status {status}"))
}

impl OpenStack {
    async fn call(&self, method: Method, target: &str, body: Option<&Value>) -> Result<Told, Fault> {
        let body = body.map(|b| ("application/json", b.to_string()));
        let call = Call { method, target, body, patience: LIST };
        let (told, _) = call.send_with(&self.dialer, &self.host, &[VERSION]).await?;
        if told.status.is_success() { Ok(told) } else { Err(Fault::Refused(words(told.status, &told.text))) }
    }

    async fn ask<T: DeserializeOwned>(&self, method: Method, target: &str, body: Option<&Value>) -> Result<T, Fault> {
        let told = self.call(method, target, body).await?;
        // The place of what is wrong and not its text: an answer may hold a token.
        let wrong =
            |e: serde_json::Error| Fault::Protocol(format!("an answer of another shape, at column {}", e.column()));
        serde_json::from_slice(&told.text).map_err(wrong)
    }

    async fn list(&self, projects: &HashMap<String, String>) -> Result<(Vec<Machine>, Vec<String>), Fault> {
        let (mut machines, mut notes) = (Vec::new(), Vec::new());
        let mut marker: Option<String> = None;
        let (mut rows, mut markers) = (0, HashSet::new());
        loop {
            let after = marker.as_ref().map(|m| format!("&marker={}", encoded(m))).unwrap_or_default();
            let target = format!("{}/servers/detail?all_tenants=1&limit={PAGE}{after}", self.base);
            let Page { servers, servers_links } = self.ask(Method::GET, &target, None).await?;
            notes.extend(servers.notes("server", "servers"));
            let last = servers.good.last().map(|r| r.id.clone());
            rows += servers.good.len();
            for row in servers.good {
                match self.machine(row, projects) {
                    Ok(machine) => machines.push(machine),
                    Err(note) => notes.push(note),
                }
            }
            let Some(last) = last.filter(|_| !servers_links.is_empty() && rows <= MAX_MACHINES) else {
                return Ok((machines, notes));
            };
            // Pages that name each other go round in a circle.
            if !markers.insert(last.clone()) {
                return Err(Fault::Protocol("its list of servers does not end".to_owned()));
            }
            marker = Some(last);
        }
    }

    fn machine(&self, row: Row, projects: &HashMap<String, String>) -> Result<Machine, String> {
        let Row { id, name, tenant_id, tags, host, power, status, .. } = row;
        let machine: Option<MachineId> = Some(&id).filter(|id| is_id(id)).and_then(|id| id.parse().ok());
        let machine = machine.ok_or_else(|| format!("a server was left out: {:?} is no id", clean_text(&id)))?;
        let has_screen = status != "SHELVED_OFFLOADED" && status != "BUILD";
        let console = if self.console.is_some() && has_screen { ConsoleKind::Vnc } else { ConsoleKind::None };
        Ok(Machine {
            at: MachineRef { hypervisor: self.hypervisor.clone(), machine },
            name,
            kind: MachineKind::Guest,
            // What Nova means it to be, and else its `power_state`, as in nova/compute/power_state.py.
            state: match (status.as_str(), power) {
                ("PAUSED" | "SUSPENDED", _) | (_, 3 | 7) => PowerState::Paused,
                ("SHUTOFF" | "SHELVED" | "SHELVED_OFFLOADED", _) | (_, 4) => PowerState::Off,
                (_, 1) => PowerState::Running,
                (_, 6) => PowerState::Crashed,
                _ => PowerState::Unknown,
            },
            pool: Some(projects.get(&tenant_id).cloned().unwrap_or(tenant_id)).filter(|p| !p.is_empty()),
            tags,
            node: host,
            console,
        })
    }

    async fn server(&self, machine: &MachineId) -> Result<Row, Fault> {
        let target = format!("{}/servers/{}", self.base, id_of(machine)?);
        self.ask::<One>(Method::GET, &target, None).await.map(|one| one.server)
    }

    async fn run(&self, board: &Board) -> Result<std::convert::Infallible, Fault> {
        let mut projects = HashMap::new();
        let mut note = None;
        loop {
            let signed_in = self.keystone.sign_in(&self.base).await?;
            let (began, until) = (Instant::now(), Instant::now() + signed_in.lasts);
            let mut named_at: Option<Instant> = None;
            let here = |url: &String| url.contains(self.host.to_str().unwrap_or_default());
            let elsewhere = !signed_in.compute.is_empty() && !signed_in.compute.iter().any(here);
            while Instant::now() < until {
                if named_at.is_none_or(|at| at.elapsed() > PROJECTS) {
                    note = match self.keystone.projects().await {
                        Ok(names) => {
                            projects = names;
                            None
                        }
                        Err(fault) => {
                            Some(format!("pools are projects' ids, because their names are not told: {fault}"))
                        }
                    };
                    named_at = Some(Instant::now());
                }
                let (machines, mut notes) = self.list(&projects).await?;
                notes.extend(note.clone());
                if elsewhere {
                    notes.push("the catalog names Nova at another address than the configuration".to_owned());
                }
                board.publish(machines, notes);
                tokio::select! {
                    () = tokio::time::sleep_until((Instant::now() + POLL).min(until)) => {}
                    () = self.changed.notified() => {}
                    () = self.keystone.secret.changed.notified() => break,
                    () = self.keystone.token.wanted.notified() => {
                        tokio::time::sleep_until(began + SIGN_IN).await;
                        break;
                    }
                }
            }
        }
    }
}

#[async_trait]
impl Driver for OpenStack {
    fn dialer(&self) -> Option<&Dialer> {
        Some(&self.dialer)
    }

    async fn follow(&self, board: &Board) -> Fault {
        match self.run(board).await {
            Ok(never) => match never {},
            Err(fault) => fault,
        }
    }

    async fn stay(&self) -> Fault {
        loop {
            let signed_in = match self.keystone.sign_in(&self.base).await {
                Ok(signed_in) => signed_in,
                Err(fault) => return fault,
            };
            let began = Instant::now();
            tokio::select! {
                () = tokio::time::sleep(signed_in.lasts) => {}
                () = self.keystone.secret.changed.notified() => {}
                () = self.keystone.token.wanted.notified() => tokio::time::sleep_until(began + SIGN_IN).await,
            }
        }
    }

    async fn known_as(&self) -> Result<KnownAs, Fault> {
        self.keystone.known_as(&self.base).await
    }

    async fn rotation(&self) -> Result<Rotation, Fault> {
        match self.keystone.who {
            Who::Password { .. } => Ok(Rotation::Given(Form::Password)),
            Who::Application { .. } => {
                let why = self.keystone.is_restricted(&self.base).await?;
                Ok(why.map_or(Rotation::Made, Rotation::ByHand))
            }
        }
    }

    fn label(&self, secret: &Secret) -> Option<String> {
        self.keystone.label(secret)
    }

    async fn others(&self) -> Result<Vec<String>, Fault> {
        match self.keystone.who {
            Who::Password { .. } => Ok(Vec::new()),
            Who::Application { .. } => self.keystone.other_credentials(&self.base).await,
        }
    }

    async fn make_secret(&self) -> Result<Secret, Fault> {
        self.keystone.make_credential(&self.base).await
    }

    async fn put_secret(&self, new: &Secret) -> Result<(), Fault> {
        self.keystone.change_password(&self.base, new).await
    }

    /// With a new password the old one counts no more.
    async fn retire_secret(&self, old: &Secret) -> Result<(), Fault> {
        match self.keystone.who {
            Who::Password { .. } => Ok(()),
            Who::Application { .. } => self.keystone.delete_credential(&self.base, old).await,
        }
    }

    fn nudge(&self) {
        self.changed.notify_one();
    }

    fn can(&self, verb: PowerVerb) -> bool {
        // Nova asks the guest before it cuts the power.
        verb != PowerVerb::Stop
    }

    async fn power(&self, machine: &MachineId, verb: PowerVerb) -> Result<(), Fault> {
        let before = self.server(machine).await?;
        let body = match (verb, before.status.as_str()) {
            (PowerVerb::Start, _) => json!({ "os-start": null }),
            (PowerVerb::Shutdown, _) => json!({ "os-stop": null }),
            (PowerVerb::Reset, _) => json!({ "reboot": { "type": "HARD" } }),
            (PowerVerb::Pause, _) => json!({ "pause": null }),
            (PowerVerb::Resume, "SUSPENDED") => json!({ "resume": null }),
            (PowerVerb::Resume, _) => json!({ "unpause": null }),
            (PowerVerb::Stop, _) => {
                return Err(Fault::Unsupported("Nova asks the guest to shut down first: use shutdown".to_owned()));
            }
        };
        self.call(Method::POST, &format!("{}/servers/{}/action", self.base, id_of(machine)?), Some(&body)).await?;
        let until = Instant::now() + POWER;
        while Instant::now() < until {
            let now = self.server(machine).await?;
            if now.task.is_none() {
                self.changed.notify_one();
                return if now.status == "ERROR" && before.status != "ERROR" {
                    Err(Fault::Refused("the server is in error now".to_owned()))
                } else {
                    Ok(())
                };
            }
            tokio::time::sleep(LOOK).await;
        }
        self.changed.notify_one();
        Ok(())
    }

    async fn open_screen(&self, machine: &MachineId) -> Result<Screen, Fault> {
        let Some((dialer, place)) = &self.console else {
            return Err(Fault::NoScreen("`console` of this hypervisor is not configured".to_owned()));
        };
        let target = format!("{}/servers/{}/remote-consoles", self.base, id_of(machine)?);
        let body = json!({ "remote_console": { "protocol": "vnc", "type": "novnc" } });
        let offer: Offer = self.ask(Method::POST, &target, Some(&body)).await?;
        let rest = place.rest_of(&offer.remote_console.url);
        let rest =
            rest.ok_or_else(|| Fault::Protocol("a console at another place than the configured one".to_owned()))?;
        let token = token_of(rest).ok_or_else(|| Fault::Protocol("a console without a token".to_owned()))?;
        let stream = screen(dialer, &place.host, &format!("{}/?token={token}", place.path), "binary").await?;
        Ok(Screen { stream, login: ScreenLogin { username: None, password: None }, tls: None })
    }
}

/// The token of a console's address, which may stand in an encoded `path`: `?path=%3Ftoken%3D…`.
fn token_of(rest: &str) -> Option<&str> {
    let (_, token) = rest.split_once("token=").or_else(|| rest.split_once("token%3D"))?;
    let is_token = |b: u8| b.is_ascii_alphanumeric() || b == b'-' || b == b'_';
    let end = token.bytes().position(|b| !is_token(b)).unwrap_or(token.len());
    token.get(..end).filter(|t| (16..=128).contains(&t.len()))
}

/// Whether a text is the id of a server: it goes into addresses as it is.
fn is_id(text: &str) -> bool {
    (1..=64).contains(&text.len()) && text.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-')
}

fn id_of(machine: &MachineId) -> Result<&str, Fault> {
    let id = machine.as_str();
    if is_id(id) { Ok(id) } else { Err(Fault::Refused(format!("{machine} is no server's id"))) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_that_the_cloud_names_counts_only_at_the_configured_place() {
        let place = Place::read("k", "https://vnc.example").unwrap();
        assert_eq!(place.host, "vnc.example:443");
        for url in ["https://vnc.example/x?token=1", "https://VNC.example:443/x?token=1", "wss://vnc.example/x?token=1"]
        {
            assert_eq!(place.rest_of(url), Some("/x?token=1"), "{url}");
        }
        for url in [
            "https://evil.example/x?token=1",
            "https://vnc.example.evil/x",
            "https://vnc.example@evil/x",
            "https://evil/https://vnc.example/",
            "http://vnc.example/x",
            "https://vnc.example:444/x",
            "//vnc.example/x",
            "",
        ] {
            assert_eq!(place.rest_of(url), None, "{url}");
        }
    }

    #[test]
    fn a_console_is_opened_by_its_token_and_nothing_else_of_its_address() {
        let token = "b5bcb3ef-9b52-4d30-8c8d-ba63a2e0a3c1";
        for rest in [
            format!("/vnc_auto.html?token={token}"),
            format!("/vnc_lite.html?path=?token={token}"),
            format!("/vnc_lite.html?path=%3Ftoken%3D{token}"),
            format!("/vnc_lite.html?path=%3Ftoken%3D{token}%26x%3D1&title=a"),
        ] {
            assert_eq!(token_of(&rest), Some(token), "{rest}");
        }
        for bad in ["", "/?token=", "/?token=short", "/?tok=b5bcb3ef-9b52-4d30-8c8d-ba63a2e0a3c1"] {
            assert_eq!(token_of(bad), None, "{bad}");
        }
    }

    #[test]
    fn an_address_is_whole_or_not_taken() {
        for bad in [
            "nova:8774",
            "ftp://nova/v2.1",
            "https:///v2.1",
            "https://nova/a/../v2.1",
            "https://nova/v2.1?x=1",
            "https://a b/",
        ] {
            assert!(Place::read("k", bad).is_err(), "{bad}");
        }
        let place = Place::read("k", "http://[::1]:8774/compute/v2.1/").unwrap();
        assert_eq!((place.path.as_str(), place.host.as_bytes()), ("/compute/v2.1", &b"[::1]:8774"[..]));
    }

    #[test]
    fn a_refusal_is_told_in_the_services_own_words() {
        assert_eq!(
            words(StatusCode::CONFLICT, br#"{"conflictingRequest": {"code": 409, "message": "locked"}}"#),
            "locked"
        );
        assert_eq!(words(StatusCode::BAD_GATEWAY, b"<html>"), "status 502 Bad Gateway");
    }
}
