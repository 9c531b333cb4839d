// SPDX-License-Identifier: Apache-2.0
//! libvirt daemons, spoken to in their own RPC: no library, no process.
//!
//! One connection is kept for inventory and events; power and screens open one of their own each, so that nothing of
//! them waits behind a long list. A screen's password is read with the SECURE flag at the moment a screen opens, and at
//! no other.

mod calls;
mod frame;
mod link;
mod rpc;
mod xml;

use super::{
    Beside, Built, Driver, LIST, PowerVerb, REFRESH, RpcFace, Screen, ScreenLogin, Settings, Standing, UNVERIFIED,
};
use crate::{
    config::{LibvirtConfig, Verify},
    error::{Error, Fault},
    fleet::Board,
    rotate::{KnownAs, Rotation},
    secret::Site,
    tls::{Tls, TlsUpgrade},
    wire::{Address, Dialer, Wire},
};
use async_trait::async_trait;
use calls::{Domain, Libvirt};
pub use frame::{Frame, FrameKind, FrameStatus, Frames};
pub use link::{LinkReader, LinkWriter};
use portcullis_domain::{ConsoleKind, HypervisorName, Machine, MachineId, MachineKind, MachineRef, PowerState, Secret};
use portcullis_policy::classify::libvirt::is_same;
use std::{
    collections::{BTreeMap, HashSet},
    path::PathBuf,
    sync::Arc,
    time::Duration,
};
use tokio::{io::AsyncReadExt, time::Instant};
use uuid::Uuid;
use xml::{Description, Graphics, GraphicsKind};

/// Changes that come close together are read together.
const GATHER: Duration = Duration::from_millis(100);

struct Driven {
    dialer: Dialer,
    uri: Arc<str>,
    namespace: Arc<str>,
    console_host: Option<String>,
    console_tls: Option<TlsUpgrade>,
    socket_folders: Vec<PathBuf>,
}

pub(crate) fn build(site: &mut Site<'_>, config: LibvirtConfig) -> Result<Built, Error> {
    let key = site.common.key();
    let mut warnings = site.common.warnings();
    if warnings.is_empty() && config.console.tls.as_ref().is_some_and(|t| t.verify == Verify::None) {
        warnings.push(UNVERIFIED.to_owned());
    }
    let dialer = match (config.socket, config.address) {
        (Some(socket), None) => {
            if config.cert_file.is_some() || config.key.is_some() {
                return Err(Error::config(
                    format!("{key}.cert_file"),
                    "a unix socket asks for no certificate: drop cert_file and key_file",
                ));
            }
            Dialer { address: Address::Unix(socket), tls: None, authorization: None }
        }
        (None, Some(text)) => {
            let address = Address::parse(&format!("{key}.address"), &text)?;
            let missing = "a daemon behind TLS asks for a client certificate: set cert_file and key_file";
            let (tls, _) = Tls::shown(site, config.cert_file.as_deref(), config.key, address.host(), missing)?;
            Dialer { address, tls: Some(tls), authorization: None }
        }
        _ => return Err(Error::config(key, "set either socket or address")),
    };
    let console_host = config.console.host.or_else(|| dialer.address.host().map(str::to_owned));
    let screen_host = console_host.as_deref().or(Some("localhost"));
    let console_key = format!("{key}.console");
    let console_tls = config.console.tls.as_ref();
    let console_tls = console_tls.map(|t| TlsUpgrade::new(&console_key, t, screen_host, None)).transpose()?;
    let address = dialer.address.to_string();
    let driver = Driven {
        dialer,
        uri: config.uri.into(),
        namespace: config.metadata_namespace.into(),
        console_host,
        console_tls,
        socket_folders: config.console.socket_folders,
    };
    Ok(Built { driver: Box::new(driver), api: None, warnings, address })
}

impl Driven {
    async fn connect(&self) -> Result<Libvirt, Fault> {
        self.connect_with(0).await
    }

    /// Opens a connection with flags of `virConnectFlags`.
    async fn connect_with(&self, flags: u32) -> Result<Libvirt, Fault> {
        let mut wire = self.dialer.dial().await?;
        if let Wire::Tls(stream) = &mut wire {
            // The daemon says with one byte whether it accepted the certificate.
            let verdict = tokio::time::timeout(crate::tls::HANDSHAKE, stream.read_u8()).await;
            match verdict.map_err(|_| Fault::TooSlow("to check the gateway's certificate"))? {
                Ok(1) => {}
                Ok(_) => return Err(Fault::Protocol("something else than its verdict on the certificate".to_owned())),
                Err(_) => return Err(Fault::Untrusted("it did not accept the gateway's certificate".to_owned())),
            }
        }
        Libvirt::open(wire, &self.uri, flags).await
    }

    async fn watch(&self, board: &Board) -> Result<std::convert::Infallible, Fault> {
        let mut libvirt = self.connect().await?;
        libvirt.register_events().await?;
        loop {
            let (mut known, notes) = self.list(&mut libvirt, board, None).await?;
            board.publish(known.values().cloned().collect(), notes.clone());
            let next = Instant::now() + REFRESH;
            loop {
                let Ok(first) = tokio::time::timeout_at(next, libvirt.event()).await else { break };
                let mut changed = HashSet::from([first?]);
                let gathered = Instant::now() + GATHER;
                while let Ok(more) = tokio::time::timeout_at(gathered, libvirt.event()).await {
                    changed.insert(more?);
                }
                if changed.iter().any(Option::is_none) {
                    // More events than are kept: read everything.
                    break;
                }
                let changed: Vec<Domain> = changed.into_iter().flatten().collect();
                let ids: Vec<Uuid> = changed.iter().map(|d| d.uuid).collect();
                let (fresh, _) = self.list(&mut libvirt, board, Some(changed)).await?;
                for id in ids {
                    match fresh.get(&id) {
                        Some(machine) => known.insert(id, machine.clone()),
                        None => known.remove(&id),
                    };
                }
                board.publish(known.values().cloned().collect(), notes.clone());
            }
        }
    }

    /// Reads the given domains, or all.
    async fn list(
        &self,
        libvirt: &mut Libvirt,
        board: &Board,
        some: Option<Vec<Domain>>,
    ) -> Result<(BTreeMap<Uuid, Machine>, Vec<String>), Fault> {
        let domains = match some {
            Some(domains) => domains,
            None => libvirt.domains().await?,
        };
        let mut machines = BTreeMap::new();
        let mut notes = Vec::new();
        let read = libvirt.describe(&domains, |domain, found| {
            match found.and_then(|(state, text)| self.machine(board, domain, state, &text)) {
                Ok(machine) => {
                    machines.insert(domain.uuid, machine);
                }
                Err(why) => notes.push(format!("{}: left out: {why}", domain.uuid)),
            }
        });
        match tokio::time::timeout(LIST, read).await {
            Ok(done) => done?,
            Err(_) => return Err(Fault::TooSlow("to describe its machines")),
        }
        Ok((machines, notes))
    }

    fn machine(&self, board: &Board, domain: &Domain, state: PowerState, text: &str) -> Result<Machine, String> {
        let described = Description::parse(text, &self.namespace)?;
        let machine: MachineId = domain.uuid.to_string().parse().map_err(|_| "its id cannot be used".to_owned())?;
        let console = match described.screen().map(|g| g.kind) {
            Some(GraphicsKind::Vnc) => ConsoleKind::Vnc,
            Some(GraphicsKind::Spice) => ConsoleKind::Spice,
            None => ConsoleKind::None,
        };
        Ok(Machine {
            at: MachineRef { hypervisor: board.hypervisor().clone(), machine },
            name: domain.name.clone(),
            kind: MachineKind::Guest,
            state,
            pool: described.pool,
            tags: described.tags,
            node: None,
            console,
        })
    }

    /// Where a screen is. The XML names port and socket; the host never comes from it.
    fn address(&self, graphics: &Graphics) -> Result<Address, Fault> {
        if let Some(path) = &graphics.socket {
            let is_local = matches!(self.dialer.address, Address::Unix(_));
            let is_plain =
                path.components().all(|c| !matches!(c, std::path::Component::ParentDir | std::path::Component::CurDir));
            let is_inside = self.socket_folders.iter().any(|folder| path.starts_with(folder));
            return if is_local && is_plain && is_inside && path.is_absolute() {
                Ok(Address::Unix(path.clone()))
            } else {
                Err(Fault::NoScreen(
                    "its unix socket lies outside console.socket_folders, or on another host".to_owned(),
                ))
            };
        }
        let port = graphics
            .port
            .ok_or_else(|| Fault::NoScreen("the machine is not running, or its screen has no port".to_owned()))?;
        match &self.console_host {
            Some(host) => Ok(Address::Tcp(host.clone(), port)),
            None => Ok(Address::Tcp("127.0.0.1".to_owned(), port)),
        }
    }

    /// Refuses to start what goes on with other settings than it has now: by a page nobody is asked for more than `power`.
    async fn check_saved(&self, libvirt: &mut Libvirt, domain: &Domain) -> Result<(), Fault> {
        let Some(saved) = libvirt.saved(domain).await? else { return Ok(()) };
        let now = libvirt.described(domain).await?;
        let is_same = domain.uuid.to_string().parse().is_ok_and(|id| is_same(&id, &self.namespace, &now, &saved));
        if is_same {
            return Ok(());
        }
        let why = "its memory was saved when it had other settings, and it would go on with those: start it with virsh, where \
                   that is decided on, or throw what was saved away (virsh managedsave-remove)";
        Err(Fault::Refused(why.to_owned()))
    }
}

#[async_trait]
impl Driver for Driven {
    fn dialer(&self) -> Option<&Dialer> {
        Some(&self.dialer)
    }

    async fn known_as(&self) -> Result<KnownAs, Fault> {
        self.connect().await?.close().await;
        let who = if self.dialer.tls.is_some() { "its client certificate" } else { "the gateway's user on its socket" };
        Ok(KnownAs::untold(who, "libvirt tells nobody; it is everything, unless its access_drivers say less"))
    }

    async fn rotation(&self) -> Result<Rotation, Fault> {
        Ok(Rotation::ByHand(if self.dialer.tls.is_some() {
            "whoever keeps the authority of the daemon's client certificates signs another one"
        } else {
            "on its unix socket the gateway needs no secret"
        }))
    }

    async fn follow(&self, board: &Board) -> Fault {
        match self.watch(board).await {
            Ok(never) => match never {},
            Err(fault) => fault,
        }
    }

    async fn power(&self, machine: &MachineId, verb: PowerVerb) -> Result<(), Fault> {
        let mut libvirt = self.connect().await?;
        let domain = libvirt.look_up(parse_id(machine)?).await?;
        if verb == PowerVerb::Start {
            self.check_saved(&mut libvirt, &domain).await?;
        }
        libvirt.power(&domain, verb).await?;
        libvirt.close().await;
        Ok(())
    }

    async fn standing(&self, machine: &MachineId, beside: &Beside) -> Result<Standing, Fault> {
        let mut libvirt = self.connect().await?;
        let domain = libvirt.look_up(parse_id(machine)?).await?;
        let now = Settings::Xml(libvirt.described(&domain).await?);
        let then = match beside {
            Beside::Nothing => None,
            Beside::Snapshot(name) => Some(libvirt.snapshot(&domain, name).await?),
            // While it runs, it may be saved at any moment.
            Beside::Saved if libvirt.state(&domain).await? != PowerState::Off => {
                return Err(Fault::Refused("it is not switched off".to_owned()));
            }
            Beside::Saved => libvirt.saved(&domain).await?,
            Beside::Effective => return Err(Fault::Unsupported("it has no such settings".to_owned())),
        };
        let then = then.map(|text| Settings::Xml(vec![text]));
        libvirt.close().await;
        Ok(Standing { now, then, mark: None })
    }

    fn rpc(&self) -> Option<RpcFace> {
        Some(RpcFace { uri: Arc::clone(&self.uri), labels: Arc::clone(&self.namespace) })
    }

    async fn open_rpc(&self, hypervisor: &HypervisorName, flags: u32) -> Result<(LinkReader, LinkWriter), Fault> {
        let rpc = self.connect_with(flags).await?.into_rpc().await?;
        Ok(link::link(rpc, hypervisor.clone()))
    }

    async fn open_screen(&self, machine: &MachineId) -> Result<Screen, Fault> {
        let mut libvirt = self.connect().await?;
        let domain = libvirt.look_up(parse_id(machine)?).await?;
        let text = libvirt.describe_with_secrets(&domain).await?;
        libvirt.close().await;
        let described = Description::parse(&text, &self.namespace).map_err(Fault::Protocol)?;
        let graphics = described.graphics.iter().find(|g| g.kind == GraphicsKind::Vnc);
        let graphics = graphics.ok_or_else(|| Fault::NoScreen("the machine has no VNC screen".to_owned()))?;
        let stream = self.address(graphics)?.dial().await?;
        let password = graphics.password.clone().map(Secret::from);
        Ok(Screen { stream, login: ScreenLogin { username: None, password }, tls: self.console_tls.clone() })
    }
}

fn parse_id(machine: &MachineId) -> Result<Uuid, Fault> {
    Uuid::try_parse(machine.as_str()).map_err(|_| Fault::Refused(format!("{machine} is no domain's id")))
}
