// SPDX-License-Identifier: Apache-2.0
//! The calls that the driver makes, with their numbers in libvirt's `remote_protocol.x`.

use super::rpc::{Event, Outcome, Reader, Rpc, Writer};
use crate::{driver::PowerVerb, error::Fault, wire::Wire};
use portcullis_domain::PowerState;
use uuid::Uuid;

const CONNECT_OPEN: u32 = 1;
const CONNECT_CLOSE: u32 = 2;
const DOMAIN_CREATE: u32 = 9;
const DOMAIN_DESTROY: u32 = 12;
const DOMAIN_GET_XML_DESC: u32 = 14;
const DOMAIN_LOOKUP_BY_UUID: u32 = 24;
const DOMAIN_RESUME: u32 = 28;
const DOMAIN_SHUTDOWN: u32 = 33;
const DOMAIN_SUSPEND: u32 = 34;
const SUPPORTS_FEATURE: u32 = 60;
const AUTH_LIST: u32 = 66;
const AUTH_POLKIT: u32 = 70;
const HAS_MANAGED_SAVE_IMAGE: u32 = 183;
const SNAPSHOT_GET_XML_DESC: u32 = 186;
const SNAPSHOT_LOOKUP_BY_NAME: u32 = 189;
const DOMAIN_GET_STATE: u32 = 212;
const DOMAIN_RESET: u32 = 245;
const LIST_ALL_DOMAINS: u32 = 273;
const EVENT_REGISTER: u32 = 316;
const EVENT_LIFECYCLE: u32 = 318;
const EVENT_METADATA: u32 = 379;
const MANAGED_SAVE_GET_XML_DESC: u32 = 388;

/// `VIR_DOMAIN_EVENT_ID_LIFECYCLE` and `…_METADATA_CHANGE`.
const WATCHED: [i32; 2] = [0, 23];
/// `VIR_DRV_FEATURE_PROGRAM_KEEPALIVE`.
const FEATURE_KEEPALIVE: i32 = 10;
/// `VIR_DOMAIN_XML_SECURE`.
const XML_SECURE: u32 = 1;
/// `VIR_DOMAIN_XML_INACTIVE`.
const XML_INACTIVE: u32 = 2;
/// `REMOTE_DOMAIN_LIST_MAX`.
const MAX_DOMAINS: usize = 16_384;
const MAX_AUTH: usize = 20;
/// Domains described with one round trip.
const WINDOW: usize = 32;

/// `remote_nonnull_domain`.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct Domain {
    pub(super) name: String,
    pub(super) uuid: Uuid,
    id: i32,
}

impl Domain {
    fn read(reader: &mut Reader) -> Result<Self, Fault> {
        let name = reader.text()?;
        Ok(Self { name, uuid: Uuid::from_bytes(reader.array()?), id: reader.i32()? })
    }

    fn write(&self) -> Writer {
        Writer::default().text(&self.name).fixed(self.uuid.as_bytes()).i32(self.id)
    }
}

/// An authenticated connection to one driver of the daemon.
pub(super) struct Libvirt {
    rpc: Rpc,
}

impl Libvirt {
    /// Authenticates and opens a driver.
    pub(super) async fn open(wire: Wire, uri: &str, flags: u32) -> Result<Self, Fault> {
        let mut rpc = Rpc::new(wire);
        let mut offered = rpc.call(AUTH_LIST, Writer::default()).await?;
        let ways = (0..offered.count(MAX_AUTH)?).map(|_| offered.u32()).collect::<Result<Vec<_>, _>>()?;
        // 0 none, 1 SASL, 2 polkit.
        match ways.as_slice() {
            [] => {}
            ways if ways.contains(&0) => {}
            ways if ways.contains(&2) => {
                rpc.call(AUTH_POLKIT, Writer::default()).await?;
            }
            _ => {
                let why = "the daemon asks for SASL; let it accept client certificates (auth_tls = \"none\") or the socket's owner";
                return Err(Fault::Unsupported(why.to_owned()));
            }
        }
        rpc.call(CONNECT_OPEN, Writer::default().optional_text(Some(uri)).u32(flags)).await?;
        Ok(Self { rpc })
    }

    /// Hands the connection on, with the daemon's signs of life on.
    pub(super) async fn into_rpc(mut self) -> Result<Rpc, Fault> {
        self.rpc.call(SUPPORTS_FEATURE, Writer::default().i32(FEATURE_KEEPALIVE)).await?.i32()?;
        Ok(self.rpc)
    }

    /// Asks for lifecycle and metadata events of every domain, and for the daemon's signs of life on the way: it then
    /// finds out by itself when the gateway is gone.
    pub(super) async fn register_events(&mut self) -> Result<(), Fault> {
        self.rpc.call(SUPPORTS_FEATURE, Writer::default().i32(FEATURE_KEEPALIVE)).await?.i32()?;
        for event in WATCHED {
            // The second word says that no single domain is meant.
            self.rpc.call(EVENT_REGISTER, Writer::default().i32(event).u32(0)).await?.i32()?;
        }
        Ok(())
    }

    /// Every domain, running or not.
    pub(super) async fn domains(&mut self) -> Result<Vec<Domain>, Fault> {
        let mut reader = self.rpc.call(LIST_ALL_DOMAINS, Writer::default().i32(1).u32(0)).await?;
        (0..reader.count(MAX_DOMAINS)?).map(|_| Domain::read(&mut reader)).collect()
    }

    /// Hands state and public XML of each to `take`, or why the daemon gave none; nothing for one that is gone. No more
    /// than one round trip's worth of XML is held at a time.
    pub(super) async fn describe(
        &mut self,
        domains: &[Domain],
        mut take: impl FnMut(&Domain, Result<(PowerState, String), String>) + Send,
    ) -> Result<(), Fault> {
        for some in domains.chunks(WINDOW) {
            let calls: Vec<_> = some
                .iter()
                .flat_map(|d| [(DOMAIN_GET_STATE, d.write().u32(0)), (DOMAIN_GET_XML_DESC, d.write().u32(0))])
                .collect();
            let mut results = self.rpc.call_each(&calls).await?.into_iter();
            for domain in some {
                match (results.next(), results.next()) {
                    (Some(Outcome::Done(mut state)), Some(Outcome::Done(mut xml))) => {
                        take(domain, Ok((state_of(state.i32()?), xml.text()?)));
                    }
                    (Some(Outcome::Refused(why)), _) | (_, Some(Outcome::Refused(why))) => take(domain, Err(why)),
                    _ => {}
                }
            }
        }
        Ok(())
    }

    /// The domain with an id.
    pub(super) async fn look_up(&mut self, id: Uuid) -> Result<Domain, Fault> {
        let mut reader = self.rpc.call(DOMAIN_LOOKUP_BY_UUID, Writer::default().fixed(id.as_bytes())).await?;
        let domain = Domain::read(&mut reader)?;
        if domain.uuid != id {
            return Err(Fault::Protocol("another domain than the one asked for".to_owned()));
        }
        Ok(domain)
    }

    /// The live XML with its passwords. Only while a screen is being opened.
    pub(super) async fn describe_with_secrets(&mut self, domain: &Domain) -> Result<String, Fault> {
        self.rpc.call(DOMAIN_GET_XML_DESC, domain.write().u32(XML_SECURE)).await?.text()
    }

    /// The public XML of a domain as it is, and as it is defined.
    pub(super) async fn described(&mut self, domain: &Domain) -> Result<Vec<String>, Fault> {
        let mut all = Vec::with_capacity(2);
        for flags in [0, XML_INACTIVE] {
            all.push(self.rpc.call(DOMAIN_GET_XML_DESC, domain.write().u32(flags)).await?.text()?);
        }
        Ok(all)
    }

    /// The public XML of a snapshot, with what the domain was.
    pub(super) async fn snapshot(&mut self, domain: &Domain, name: &str) -> Result<String, Fault> {
        let asked = domain.write().text(name).u32(0);
        let mut found = self.rpc.call(SNAPSHOT_LOOKUP_BY_NAME, asked).await?;
        let (found, of) = (found.text()?, Domain::read(&mut found)?);
        if found != name || of.uuid != domain.uuid {
            return Err(Fault::Protocol("another snapshot than the one asked for".to_owned()));
        }
        let Writer(of) = domain.write();
        let asked = Writer::default().text(name).fixed(&of).u32(0);
        self.rpc.call(SNAPSHOT_GET_XML_DESC, asked).await?.text()
    }

    /// The public XML with which a domain goes on when it starts, where the daemon saved it itself.
    pub(super) async fn saved(&mut self, domain: &Domain) -> Result<Option<String>, Fault> {
        if self.rpc.call(HAS_MANAGED_SAVE_IMAGE, domain.write().u32(0)).await?.i32()? == 0 {
            return Ok(None);
        }
        self.rpc.call(MANAGED_SAVE_GET_XML_DESC, domain.write().u32(0)).await?.text().map(Some)
    }

    /// Whether a domain runs.
    pub(super) async fn state(&mut self, domain: &Domain) -> Result<PowerState, Fault> {
        Ok(state_of(self.rpc.call(DOMAIN_GET_STATE, domain.write().u32(0)).await?.i32()?))
    }

    pub(super) async fn power(&mut self, domain: &Domain, verb: PowerVerb) -> Result<(), Fault> {
        let (procedure, arguments) = match verb {
            PowerVerb::Start => (DOMAIN_CREATE, domain.write()),
            PowerVerb::Shutdown => (DOMAIN_SHUTDOWN, domain.write()),
            PowerVerb::Stop => (DOMAIN_DESTROY, domain.write()),
            PowerVerb::Reset => (DOMAIN_RESET, domain.write().u32(0)),
            PowerVerb::Pause => (DOMAIN_SUSPEND, domain.write()),
            PowerVerb::Resume => (DOMAIN_RESUME, domain.write()),
        };
        self.rpc.call(procedure, arguments).await.map(|_| ())
    }

    /// The next domain that changed; none means that events were lost.
    pub(super) async fn event(&mut self) -> Result<Option<Domain>, Fault> {
        loop {
            let Some(Event { procedure, mut payload }) = self.rpc.event().await? else { return Ok(None) };
            if matches!(procedure, EVENT_LIFECYCLE | EVENT_METADATA) {
                // The number of the callback comes first.
                payload.i32()?;
                return Domain::read(&mut payload).map(Some);
            }
        }
    }

    /// Says goodbye; a daemon that does not answer is left alone.
    pub(super) async fn close(mut self) {
        let bye = self.rpc.call(CONNECT_CLOSE, Writer::default());
        let _ = tokio::time::timeout(std::time::Duration::from_secs(1), bye).await;
    }
}

/// `virDomainState`.
const fn state_of(state: i32) -> PowerState {
    match state {
        // 4 is on its way down: it still runs.
        1 | 2 | 4 => PowerState::Running,
        3 | 7 => PowerState::Paused,
        5 => PowerState::Off,
        6 => PowerState::Crashed,
        _ => PowerState::Unknown,
    }
}
