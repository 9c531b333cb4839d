// SPDX-License-Identifier: Apache-2.0
//! Cloud Hypervisor and Firecracker: one process on one unix socket is one machine. Both speak HTTP there to whoever may
//! open the socket; how they differ stands in [`Flavour`]. Neither has a screen.

use super::{
    Built, Driver, LIST, PowerVerb, Screen, clean_text,
    rest::{Call, Told},
};
use crate::{
    api::{Api, Dialect, Length},
    broker::strip_secrets,
    config::VmmConfig,
    error::{Error, Fault},
    fleet::Board,
    secret::Site,
    wire::{Address, Dialer},
};
use async_trait::async_trait;
use http::{HeaderValue, Method};
use portcullis_domain::{ConsoleKind, HypervisorName, Machine, MachineKind, MachineRef, PowerState};
use serde_json::Value;
use std::{sync::Arc, time::Duration};
use tokio::sync::Notify;

/// The id of the one machine: the tables name it so, too.
const ID: &str = "vm";
/// How often it is looked at.
const POLL: Duration = Duration::from_secs(2);

/// What is said to change the power: method, path and body.
type Said = (Method, &'static str, Option<&'static str>);

/// How one of them speaks.
pub(crate) struct Flavour {
    /// What answers with the state.
    info: &'static str,
    /// What a state's word means.
    state: fn(&str) -> PowerState,
    /// What a refusal of `info` means, where it means that there is no machine yet.
    is_absent: fn(&str) -> bool,
    power: fn(PowerVerb) -> Option<Said>,
}

/// By vmm/src/api/openapi of Cloud Hypervisor.
pub(crate) static CLOUD_HYPERVISOR: Flavour = Flavour {
    info: "/api/v1/vm.info",
    state: |word| match word {
        "Running" => PowerState::Running,
        "Paused" | "BreakPoint" => PowerState::Paused,
        "Created" | "Shutdown" => PowerState::Off,
        _ => PowerState::Unknown,
    },
    is_absent: |said| said.contains("VmNotCreated") || said.contains("not created"),
    power: |verb| {
        let path = match verb {
            PowerVerb::Start => "/api/v1/vm.boot",
            PowerVerb::Shutdown => "/api/v1/vm.power-button",
            PowerVerb::Stop => "/api/v1/vm.shutdown",
            PowerVerb::Reset => "/api/v1/vm.reboot",
            PowerVerb::Pause => "/api/v1/vm.pause",
            PowerVerb::Resume => "/api/v1/vm.resume",
        };
        Some((Method::PUT, path, None))
    },
};

/// By src/firecracker/swagger of Firecracker. A machine that has ended takes its process with it.
pub(crate) static FIRECRACKER: Flavour = Flavour {
    info: "/",
    state: |word| match word {
        "Running" => PowerState::Running,
        "Paused" => PowerState::Paused,
        "Not started" => PowerState::Off,
        _ => PowerState::Unknown,
    },
    is_absent: |_| false,
    power: |verb| match verb {
        PowerVerb::Start => Some((Method::PUT, "/actions", Some(r#"{"action_type":"InstanceStart"}"#))),
        PowerVerb::Shutdown => Some((Method::PUT, "/actions", Some(r#"{"action_type":"SendCtrlAltDel"}"#))),
        PowerVerb::Pause => Some((Method::PATCH, "/vm", Some(r#"{"state":"Paused"}"#))),
        PowerVerb::Resume => Some((Method::PATCH, "/vm", Some(r#"{"state":"Resumed"}"#))),
        PowerVerb::Stop | PowerVerb::Reset => None,
    },
};

struct Vmm {
    flavour: &'static Flavour,
    dialer: Arc<Dialer>,
    host: HeaderValue,
    machine: Machine,
    changed: Notify,
}

pub(crate) fn build(site: &mut Site<'_>, config: VmmConfig, flavour: &'static Flavour) -> Result<Built, Error> {
    let common = &site.common;
    let machine = ID.parse().map_err(|_| Error::config(common.key(), "has no machine"))?;
    let name: HypervisorName = common.name.clone();
    let machine = Machine {
        at: MachineRef { hypervisor: name.clone(), machine },
        name: config.machine.unwrap_or_else(|| name.to_string()),
        kind: MachineKind::Guest,
        state: PowerState::Unknown,
        pool: config.pool,
        tags: config.tags,
        node: None,
        console: ConsoleKind::None,
    };
    let address = Address::Unix(config.socket);
    let shown = address.to_string();
    let dialer = Arc::new(Dialer { address, tls: None, authorization: None });
    let host = HeaderValue::from_static("localhost");
    let api = Api {
        dialer: Arc::clone(&dialer),
        host: host.clone(),
        origins: Vec::new(),
        connections: common.connections,
        dialect: &DIALECT,
        pool: None,
    };
    let driver = Vmm { flavour, dialer, host, machine, changed: Notify::new() };
    Ok(Built { driver: Box::new(driver), api: Some(api), warnings: Vec::new(), address: shown })
}

// Their HTTP servers are small: neither takes chunks.
static DIALECT: Dialect = Dialect {
    channel: |_, _| None,
    channel_address: |_, _| String::new(),
    is_long_poll: |_| false,
    length: Length::Needed,
    rows: None,
    strip: strip_secrets,
    task: |_| None,
};

impl Vmm {
    async fn call(&self, (method, target, body): Said) -> Result<Told, Fault> {
        let body = body.map(|b| ("application/json", b.to_owned()));
        let call = Call { method, target, body, patience: LIST };
        let told = call.send(&self.dialer, &self.host).await?;
        if told.status.is_success() { Ok(told) } else { Err(Fault::Refused(words(&told))) }
    }

    async fn state(&self) -> Result<PowerState, Fault> {
        let told = match self.call((Method::GET, self.flavour.info, None)).await {
            Err(Fault::Refused(why)) if (self.flavour.is_absent)(&why) => return Ok(PowerState::Off),
            told => told?,
        };
        let said: Value =
            serde_json::from_slice(&told.text).map_err(|_| Fault::Protocol("a machine that is no JSON".to_owned()))?;
        let word = said.get("state").and_then(Value::as_str);
        word.map(self.flavour.state).ok_or_else(|| Fault::Protocol("a machine without a state".to_owned()))
    }
}

/// `{"fault_message": "…"}`, a list of reasons, or a text.
fn words(told: &Told) -> String {
    let said = match serde_json::from_slice(&told.text) {
        Ok(Value::Object(all)) => all.get("fault_message").and_then(Value::as_str).map(clean_text),
        Ok(Value::Array(all)) => Some(clean_text(&all.iter().filter_map(Value::as_str).collect::<Vec<_>>().join(": "))),
        _ => str::from_utf8(&told.text).ok().map(clean_text),
    };
    said.filter(|s| !s.is_empty()).unwrap_or_else(|| format!("status {}", told.status))
}

#[async_trait]
impl Driver for Vmm {
    fn dialer(&self) -> Option<&Dialer> {
        Some(&self.dialer)
    }

    async fn follow(&self, board: &Board) -> Fault {
        loop {
            match self.state().await {
                Ok(state) => board.publish(vec![Machine { state, ..self.machine.clone() }], Vec::new()),
                Err(fault) => return fault,
            }
            tokio::select! {
                () = tokio::time::sleep(POLL) => {}
                () = self.changed.notified() => {}
            }
        }
    }

    fn can(&self, verb: PowerVerb) -> bool {
        (self.flavour.power)(verb).is_some()
    }

    async fn power(&self, _: &portcullis_domain::MachineId, verb: PowerVerb) -> Result<(), Fault> {
        let said = (self.flavour.power)(verb).ok_or_else(|| {
            Fault::Unsupported("it starts, shuts down, pauses and resumes, and nothing else".to_owned())
        })?;
        self.call(said).await?;
        self.changed.notify_one();
        Ok(())
    }

    async fn open_screen(&self, _: &portcullis_domain::MachineId) -> Result<Screen, Fault> {
        Err(Fault::Unsupported("it has no screen, only a serial port".to_owned()))
    }
}
