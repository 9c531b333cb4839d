// SPDX-License-Identifier: Apache-2.0
//! KubeVirt on Kubernetes clusters: inventory by lists and watches, power and screens by subresources.
//!
//! The gateway is known by the token of a service account, which is read again as it is renewed, or by a client
//! certificate. Lists come in pages, and a watch goes on from where they ended; where the cluster no longer knows that
//! place (410), all is listed anew. A screen is asked for with `preserveSession`, so that nobody's is taken away.

mod account;
mod objects;
mod rows;
mod watched;

pub use objects::{Basis, Cut, Cutter, Gaze};
pub use watched::{Step, Watched};

use super::{
    Built, Driver, LIST, PowerVerb, Screen, ScreenLogin, clean_text,
    rest::{Call, Lines, Rows, Told, encoded, screen},
};
use crate::{
    api::{Api, Dialect, Length},
    badge::{Badge, Renewed},
    broker::strip_secrets,
    config::KubevirtConfig,
    error::{Error, Fault},
    fleet::{Board, MAX_MACHINES},
    rotate::{KnownAs, Rotation},
    secret::Site,
    tls::{Tls, TlsUpgrade},
    wire::{Dialer, Https},
};
use account::{Token, authorization};
use async_trait::async_trait;
use http::{HeaderValue, Method, header::AUTHORIZATION};
use portcullis_domain::{Machine, MachineId, Secret};
use rows::{Page, Row, Vm, Vmi};
use serde::{Deserialize, de::DeserializeOwned};
use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::Duration,
};
use tokio::time::Instant;

const VMS: &str = "/apis/kubevirt.io/v1/virtualmachines";
const VMIS: &str = "/apis/kubevirt.io/v1/virtualmachineinstances";
/// Rows of one page.
const PAGE: usize = 500;
/// Most pages of one list: a server that always names another one ends there.
const MAX_PAGES: usize = 2 * MAX_MACHINES / PAGE;
/// How long the cluster keeps a watch, seconds. It ends each by itself; another one goes on from there.
const WATCH: u32 = 300;
/// How long a watch may be silent: the cluster sends a bookmark about each minute.
const SILENCE: Duration = Duration::from_mins(6);
/// Everything is listed anew so often, whatever the watches say.
const ANEW: Duration = Duration::from_mins(10);
/// Changes that come close together are published together.
const GATHER: Duration = Duration::from_millis(100);
/// How long to wait before a watch that ended at once is begun again.
const SPACING: Duration = Duration::from_secs(1);
/// How often the file with the token is read again.
const RENEW: Duration = Duration::from_mins(1);
/// The largest event, bytes: an object of etcd's has at most 1.5 MiB.
const MAX_EVENT: usize = 4 * 1024 * 1024;

struct Kubevirt {
    dialer: Arc<Dialer>,
    host: HeaderValue,
    cutter: Arc<Cutter>,
    token: Option<Token>,
}

pub(crate) fn build(site: &mut Site<'_>, config: KubevirtConfig) -> Result<Built, Error> {
    let key = site.common.key();
    let Https { address, host, origin } = Https::parse(&site.common.key_of("address"), &config.address, None)?;
    let missing =
        "the cluster knows the gateway by a token or by a certificate: set token_file, or cert_file and key_file";
    let (token, tls) = match (config.token, config.cert_file, config.key) {
        (Some(source), None, None) => {
            let is_token = |token: &Secret| match authorization(token) {
                Some(_) => Ok(()),
                None => Err("holds no token: it is one line of letters".to_owned()),
            };
            let token = Token {
                held: site.hold("token", source, is_token)?,
                badge: Arc::new(Renewed::new(AUTHORIZATION, None)),
            };
            (Some(token), Tls::Fixed(TlsUpgrade::new(&key, &site.common.tls, address.host(), None)?))
        }
        (None, Some(cert), Some(own)) => (None, Tls::shown(site, Some(&cert), Some(own), address.host(), missing)?.0),
        _ => return Err(Error::config(key, missing)),
    };
    let common = &site.common;
    let warnings = common.warnings();
    let shown = address.to_string();
    let authorization = token.as_ref().map(|t| Badge::Renewed(Arc::clone(&t.badge)));
    let dialer = Arc::new(Dialer { address, tls: Some(tls), authorization });
    let api = Api {
        dialer: Arc::clone(&dialer),
        host: host.clone(),
        origins: vec![origin],
        connections: common.connections,
        dialect: &DIALECT,
        pool: None,
    };
    let cutter = Arc::new(Cutter::new(common.name.clone(), config.tags_prefix));
    Ok(Built { driver: Box::new(Kubevirt { dialer, host, cutter, token }), api: Some(api), warnings, address: shown })
}

static DIALECT: Dialect = Dialect {
    channel: |_, _| None,
    channel_address: |_, _| String::new(),
    is_long_poll: |_| false,
    length: Length::Any,
    rows: None,
    strip: strip_secrets,
    task: |_| None,
};

/// A refusal: a Status object.
#[derive(Deserialize)]
struct Refusal {
    message: String,
}

fn refused(status: u16, text: &[u8]) -> Fault {
    let said = serde_json::from_slice::<Refusal>(text).map(|r| clean_text(&r.message)).unwrap_or_default();
    Fault::Refused(if said.is_empty() { format!("status {status}") } else { said })
}

/// One event of a watch.
#[derive(Deserialize)]
struct Event<'e> {
    #[serde(rename = "type")]
    kind: &'e str,
    #[serde(borrow)]
    object: &'e serde_json::value::RawValue,
}

/// Where an object of an event stands in time.
#[derive(Deserialize)]
struct Placed {
    metadata: PlacedMeta,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct PlacedMeta {
    resource_version: String,
}

#[derive(Deserialize)]
struct Ended {
    #[serde(default)]
    code: u16,
}

/// What one kind of object is known by, and from where its watch goes on.
struct Known<T> {
    path: &'static str,
    rows: BTreeMap<MachineId, T>,
    version: String,
    watch: Option<Lines>,
    /// When the watch was begun.
    begun_at: Instant,
    heard_at: Instant,
}

/// What an event came to.
enum Heard {
    Changed,
    Nothing,
    /// The place that the watch goes on from is forgotten.
    Forgotten,
}

impl<T: Row> Known<T> {
    fn hear(&mut self, line: &[u8]) -> Result<Heard, Fault> {
        let wrong = |_| Fault::Protocol("an event of another shape".to_owned());
        let event: Event<'_> = serde_json::from_slice(line).map_err(wrong)?;
        let text = event.object.get();
        if event.kind == "ERROR" {
            let ended: Ended = serde_json::from_str(text).map_err(wrong)?;
            return if ended.code == 410 { Ok(Heard::Forgotten) } else { Err(refused(ended.code, text.as_bytes())) };
        }
        let placed: Placed = serde_json::from_str(text).map_err(wrong)?;
        self.version = placed.metadata.resource_version;
        let read = || serde_json::from_str::<T>(text).ok().and_then(|row| Some((row.id()?, row)));
        match event.kind {
            "BOOKMARK" => Ok(Heard::Nothing),
            "ADDED" | "MODIFIED" => {
                let Some((id, row)) = read() else { return Ok(Heard::Nothing) };
                if self.rows.len() < MAX_MACHINES || self.rows.contains_key(&id) {
                    self.rows.insert(id, row);
                }
                Ok(Heard::Changed)
            }
            "DELETED" => {
                let Some((id, _)) = read() else { return Ok(Heard::Nothing) };
                self.rows.remove(&id);
                Ok(Heard::Changed)
            }
            other => Err(Fault::Protocol(format!("an event of the kind {:?}", clean_text(other)))),
        }
    }
}

impl Kubevirt {
    async fn ask(&self, method: Method, target: &str, body: Option<String>) -> Result<Told, Fault> {
        let call = Call { method, target, body: body.map(|b| ("application/json", b)), patience: LIST };
        call.send(&self.dialer, &self.host).await
    }

    async fn read<T: DeserializeOwned>(&self, target: &str) -> Result<T, Fault> {
        let Told { status, text, .. } = self.ask(Method::GET, target, None).await?;
        if !status.is_success() {
            return Err(refused(status.as_u16(), &text));
        }
        let wrong = |e: serde_json::Error| Fault::Protocol(format!("an answer of another shape: {e}"));
        serde_json::from_slice(&text).map_err(wrong)
    }

    /// All rows of a kind, page by page.
    async fn list<T: Row + DeserializeOwned>(
        &self,
        path: &'static str,
        notes: &mut BTreeSet<String>,
    ) -> Result<Known<T>, Fault> {
        let (mut rows, mut next, mut version) = (BTreeMap::new(), String::new(), String::new());
        for number in 0.. {
            let mut target = format!("{path}?limit={PAGE}");
            if !next.is_empty() {
                target.push_str("&continue=");
                target.push_str(&encoded(&next));
            }
            let page: Page<Rows<T>> = self.read(&target).await?;
            notes.extend(page.items.notes("machine", "machines"));
            for row in page.items.good {
                match row.id() {
                    Some(id) if rows.len() < MAX_MACHINES => {
                        rows.insert(id, row);
                    }
                    Some(_) => {
                        notes.insert(format!("only {MAX_MACHINES} machines are shown"));
                    }
                    None => {
                        notes.insert("machines were left out: their names cannot be an id".to_owned());
                    }
                }
            }
            if version.is_empty() {
                version = page.metadata.resource_version;
            }
            if page.metadata.next.is_empty() {
                break;
            }
            if page.metadata.next == next || number >= MAX_PAGES {
                return Err(Fault::Protocol("a list that does not end".to_owned()));
            }
            next = page.metadata.next;
        }
        let now = Instant::now();
        Ok(Known { path, rows, version, watch: None, begun_at: now, heard_at: now })
    }

    /// Begins a watch where there is none; tells whether the place to go on from is still known.
    async fn watch<T>(&self, known: &mut Known<T>) -> Result<bool, Fault> {
        if known.watch.is_some() {
            return Ok(true);
        }
        if known.version.is_empty() || encoded(&known.version) != known.version {
            return Err(Fault::Protocol("a list without a version".to_owned()));
        }
        let target = format!(
            "{}?watch=true&allowWatchBookmarks=true&timeoutSeconds={WATCH}&resourceVersion={}",
            known.path, known.version
        );
        let call = Call { method: Method::GET, target: &target, body: None, patience: LIST };
        let lines = call.follow(&self.dialer, &self.host, MAX_EVENT).await?;
        if lines.status.as_u16() == 410 {
            return Ok(false);
        }
        if !lines.status.is_success() {
            let status = lines.status;
            return Err(refused(status.as_u16(), &lines.whole().await?));
        }
        known.begun_at = Instant::now();
        known.heard_at = known.begun_at;
        known.watch = Some(lines);
        Ok(true)
    }

    fn publish(&self, board: &Board, vms: &Known<Vm>, vmis: &Known<Vmi>, notes: &BTreeSet<String>) {
        let mut machines: Vec<Machine> =
            vms.rows.iter().filter_map(|(id, vm)| self.cutter.machine(Some(vm), vmis.rows.get(id))).collect();
        // The instance of a VirtualMachine that was just deleted is no machine of its own.
        let alone = vmis.rows.iter().filter(|(id, vmi)| !vms.rows.contains_key(*id) && !vmi.is_owned());
        machines.extend(alone.filter_map(|(_, vmi)| self.cutter.machine(None, Some(vmi))));
        board.publish(machines, notes.iter().cloned().collect());
    }

    /// Waits until the token was refused somewhere, or is another one.
    async fn is_refused(&self) {
        match &self.token {
            Some(token) => tokio::select! {
                () = token.badge.wanted.notified() => {}
                () = token.held.changed.notified() => {}
            },
            None => std::future::pending().await,
        }
    }

    fn renew(&self) {
        if let Some(token) = &self.token
            && let Err(error) = token.read()
        {
            tracing::warn!(%error, "the token of a cluster could not be read again; the last one stays");
        }
    }

    async fn follow_all(&self, board: &Board) -> Result<std::convert::Infallible, Fault> {
        let mut renew = tokio::time::interval(RENEW);
        loop {
            self.renew();
            let mut notes = BTreeSet::new();
            let mut vms = self.list::<Vm>(VMS, &mut notes).await?;
            let mut vmis = self.list::<Vmi>(VMIS, &mut notes).await?;
            self.publish(board, &vms, &vmis, &notes);
            let anew = Instant::now() + ANEW;
            let mut due: Option<Instant> = None;
            while self.watch(&mut vms).await? && self.watch(&mut vmis).await? {
                let heard = tokio::select! {
                    line = next(&mut vms) => line.and_then(|line| take(&mut vms, line))?,
                    line = next(&mut vmis) => line.and_then(|line| take(&mut vmis, line))?,
                    () = until(due) => {
                        due = None;
                        self.publish(board, &vms, &vmis, &notes);
                        Heard::Nothing
                    }
                    () = tokio::time::sleep_until(anew) => Heard::Forgotten,
                    _ = renew.tick() => {
                        self.renew();
                        Heard::Nothing
                    }
                    () = self.is_refused() => {
                        self.renew();
                        Heard::Nothing
                    }
                };
                match heard {
                    Heard::Changed => due = due.or_else(|| Some(Instant::now() + GATHER)),
                    Heard::Nothing => {}
                    Heard::Forgotten => break,
                }
                for (begun, ended) in [(vms.begun_at, vms.watch.is_none()), (vmis.begun_at, vmis.watch.is_none())] {
                    if ended && begun.elapsed() < SPACING {
                        tokio::time::sleep(SPACING).await;
                    }
                }
            }
            // A cluster that forgets everything at once is not asked all the time.
            tokio::time::sleep(SPACING).await;
        }
    }

    /// Where a machine's subresources are: those of its VirtualMachine, or of its instance.
    fn place(kind: &str, machine: &MachineId) -> Result<String, Fault> {
        let (namespace, name) = machine.as_str().split_once(':').unwrap_or_default();
        if !rows::is_name(namespace) || !rows::is_name(name) {
            return Err(Fault::Refused(format!("{machine} is no machine's id")));
        }
        Ok(format!("/apis/subresources.kubevirt.io/v1/namespaces/{namespace}/{kind}/{name}"))
    }
}

async fn until(due: Option<Instant>) {
    match due {
        Some(due) => tokio::time::sleep_until(due).await,
        None => std::future::pending().await,
    }
}

/// The next line of a watch; none when it has ended, as each does after some minutes.
async fn next<T>(known: &mut Known<T>) -> Result<Option<bytes::BytesMut>, Fault> {
    let Some(lines) = &mut known.watch else { return Ok(None) };
    match tokio::time::timeout_at(known.heard_at + SILENCE, lines.next()).await {
        Ok(line) => line,
        Err(_) => Err(Fault::TooSlow("to say anything on its watch")),
    }
}

fn take<T: Row>(known: &mut Known<T>, line: Option<bytes::BytesMut>) -> Result<Heard, Fault> {
    known.heard_at = Instant::now();
    if let Some(line) = line {
        return known.hear(&line);
    }
    known.watch = None;
    Ok(Heard::Nothing)
}

#[async_trait]
impl Driver for Kubevirt {
    fn dialer(&self) -> Option<&Dialer> {
        Some(&self.dialer)
    }

    async fn stay(&self) -> Fault {
        loop {
            self.renew();
            tokio::select! {
                () = tokio::time::sleep(RENEW) => {}
                () = self.is_refused() => {}
            }
        }
    }

    async fn follow(&self, board: &Board) -> Fault {
        match self.follow_all(board).await {
            Ok(never) => match never {},
            Err(fault) => fault,
        }
    }

    async fn power(&self, machine: &MachineId, verb: PowerVerb) -> Result<(), Fault> {
        let (kind, word, body) = match verb {
            PowerVerb::Start => ("virtualmachines", "start", "{}"),
            PowerVerb::Shutdown => ("virtualmachines", "stop", "{}"),
            PowerVerb::Stop => ("virtualmachines", "stop", r#"{"gracePeriod":0}"#),
            PowerVerb::Reset => ("virtualmachineinstances", "reset", "{}"),
            PowerVerb::Pause => ("virtualmachineinstances", "pause", "{}"),
            PowerVerb::Resume => ("virtualmachineinstances", "unpause", "{}"),
        };
        let target = format!("{}/{word}", Self::place(kind, machine)?);
        let Told { status, text, .. } = self.ask(Method::PUT, &target, Some(body.to_owned())).await?;
        if status.is_success() { Ok(()) } else { Err(refused(status.as_u16(), &text)) }
    }

    async fn open_screen(&self, machine: &MachineId) -> Result<Screen, Fault> {
        let place = Self::place("virtualmachineinstances", machine)?;
        let (namespace, name) = machine.as_str().split_once(':').unwrap_or_default();
        let target = format!("/apis/kubevirt.io/v1/namespaces/{namespace}/virtualmachineinstances/{name}");
        let Told { status, text, .. } = self.ask(Method::GET, &target, None).await?;
        if status.as_u16() == 404 {
            return Err(Fault::NoScreen("it is switched off".to_owned()));
        }
        if !status.is_success() {
            return Err(refused(status.as_u16(), &text));
        }
        let wrong = |_| Fault::Protocol("an instance of another shape".to_owned());
        let vmi: Vmi = serde_json::from_slice(&text).map_err(wrong)?;
        if vmi.status.phase != "Running" {
            return Err(Fault::NoScreen("it is not running yet, or not any more".to_owned()));
        }
        let target = format!("{place}/vnc?preserveSession=true");
        let stream = screen(&self.dialer, &self.host, &target, "plain.kubevirt.io").await?;
        Ok(Screen { stream, login: ScreenLogin { username: None, password: None }, tls: None })
    }

    fn cutter(&self) -> Option<&Arc<Cutter>> {
        Some(&self.cutter)
    }

    async fn known_as(&self) -> Result<KnownAs, Fault> {
        self.own_standing().await
    }

    async fn rotation(&self) -> Result<Rotation, Fault> {
        self.own_rotation()
    }

    fn label(&self, secret: &Secret) -> Option<String> {
        Self::label_of(secret)
    }

    async fn make_secret(&self) -> Result<Secret, Fault> {
        self.make_token().await
    }

    async fn retire_secret(&self, old: &Secret) -> Result<(), Fault> {
        self.retire_token(old).await
    }
}

#[cfg(test)]
mod tests;
