// SPDX-License-Identifier: Apache-2.0
//! The keys of each kind of hypervisor, as the configuration writes them.

use super::{Reach, Settings, Trust};
use crate::secret::Source;
use portcullis_domain::MachineId;
use serde::Deserialize;
use std::path::PathBuf;

/// QEMU guests named one by one.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct QemuConfig {
    /// The guests, at most 1,000.
    #[serde(default)]
    pub(crate) guests: Vec<GuestConfig>,
}

/// One QEMU guest.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct GuestConfig {
    /// Stable id.
    pub(crate) id: MachineId,
    /// Name shown to people; the id where missing.
    #[serde(default)]
    pub(crate) name: Option<String>,
    /// Tags.
    #[serde(default)]
    pub(crate) tags: Vec<String>,
    /// Pool.
    #[serde(default)]
    pub(crate) pool: Option<String>,
    /// Where its VNC server listens: `host:port` or `unix:/path`.
    #[serde(default)]
    pub(crate) vnc: Option<String>,
    /// The VNC password.
    #[serde(default)]
    pub(crate) password: Option<Source>,
    /// User name for VeNCrypt's Plain types.
    #[serde(default)]
    pub(crate) username: Option<String>,
    /// TLS of its VNC server; when present, a session without TLS is refused.
    #[serde(default)]
    pub(crate) tls: Option<Trust>,
    /// Its QMP socket: state, events and power. Without it the state is unknown and power is not possible.
    #[serde(default)]
    pub(crate) qmp: Option<PathBuf>,
}

/// A libvirt daemon, by a unix socket or by TLS.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct LibvirtConfig {
    /// Its unix socket; this or `address`.
    #[serde(default)]
    pub(crate) socket: Option<PathBuf>,
    /// `host:port` of its TLS listener, usually port 16514; this or `socket`.
    #[serde(default)]
    pub(crate) address: Option<String>,
    /// The gateway's client certificate.
    #[serde(default)]
    pub(crate) cert_file: Option<PathBuf>,
    /// Its key.
    #[serde(default)]
    pub(crate) key: Option<Source>,
    /// The connection URI that the daemon opens.
    #[serde(default = "system_uri")]
    pub(crate) uri: String,
    /// The XML namespace of the `tags` and `pool` elements in a domain's metadata.
    #[serde(default = "metadata_namespace")]
    pub(crate) metadata_namespace: String,
    /// How screens are reached.
    #[serde(default)]
    pub(crate) console: ConsoleConfig,
    /// Where clients of its RPC reach it through the gateway.
    #[serde(default)]
    pub(crate) rpc: Option<RpcDoor>,
}

/// Where clients of a hypervisor's RPC reach it through the gateway: on a port of its own, always inside TLS.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RpcDoor {
    /// The port, usually 16514.
    pub port: u16,
}

fn system_uri() -> String {
    "qemu:///system".to_owned()
}

fn metadata_namespace() -> String {
    "urn:portcullis:1".to_owned()
}

/// How the screens of a libvirt daemon's domains are reached.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct ConsoleConfig {
    /// The host to dial for every screen. Missing: the daemon's own host. What a domain's XML names as its listening
    /// address is never dialled, so that a hypervisor cannot point the gateway somewhere else.
    pub(crate) host: Option<String>,
    /// TLS of the screens (`vnc_tls = 1` in qemu.conf); when present, a session without TLS is refused.
    pub(crate) tls: Option<Trust>,
    /// Folders in which a screen's unix socket may lie, for daemons reached by a unix socket.
    pub(crate) socket_folders: Vec<PathBuf>,
}

impl Default for ConsoleConfig {
    fn default() -> Self {
        Self { host: None, tls: None, socket_folders: vec!["/var/lib/libvirt/qemu".into(), "/run/libvirt/qemu".into()] }
    }
}

/// An LXD server, by a unix socket or by TLS.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct LxdConfig {
    /// `https://host:port`, usually port 8443; this or `socket`.
    #[serde(default)]
    pub(crate) address: Option<String>,
    /// Its unix socket; this or `address`.
    #[serde(default)]
    pub(crate) socket: Option<PathBuf>,
    /// The gateway's client certificate, trusted by the server.
    #[serde(default)]
    pub(crate) cert_file: Option<PathBuf>,
    /// Its key.
    #[serde(default)]
    pub(crate) key: Option<Source>,
}

/// A Proxmox VE cluster, by any of its nodes.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct ProxmoxConfig {
    /// `https://host:port`, usually port 8006.
    pub(crate) address: String,
    /// The gateway's API token, `user@realm!name=secret`.
    pub(crate) token: Source,
}

/// An OpenStack cloud: Keystone, Nova and its console proxy.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct OpenStackConfig {
    /// Keystone: `https://host:5000/v3`.
    pub(crate) identity: String,
    /// Nova: `https://host:8774/v2.1`. What the catalog says is compared with it, and never followed.
    pub(crate) compute: String,
    /// nova-novncproxy: `https://host:6080`. Without it there are no screens.
    #[serde(default)]
    pub(crate) console: Option<String>,
    /// The gateway's user, with `project`; or `application_credential`.
    #[serde(default)]
    pub(crate) user: Option<String>,
    /// The name of its domain.
    #[serde(default = "default_domain")]
    pub(crate) user_domain: String,
    /// The project that it signs in to, and that servers which are made through the gateway belong to.
    #[serde(default)]
    pub(crate) project: Option<String>,
    /// The name of its domain.
    #[serde(default = "default_domain")]
    pub(crate) project_domain: String,
    /// The id of an application credential.
    #[serde(default)]
    pub(crate) application_credential: Option<String>,
    /// The user's password, or the application credential's secret.
    pub(crate) secret: Source,
}

/// An oVirt engine.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct OvirtConfig {
    /// `https://host:port` of the engine; the port is 443 where none is said.
    pub(crate) address: String,
    /// Whom the gateway signs in as: `name@profile`.
    pub(crate) username: String,
    /// The password.
    pub(crate) password: Source,
    /// Hosts whose screens may be dialled: names or addresses, as the engine names them. One that it names beside them is
    /// refused, so that a hypervisor cannot point the gateway somewhere else.
    #[serde(default)]
    pub(crate) screen_hosts: Vec<String>,
    /// The first and the last port that screens may be at.
    #[serde(default = "screen_ports")]
    pub(crate) screen_ports: [u16; 2],
    /// TLS of the screens, where the clusters encrypt VNC; when present, a session without TLS is refused.
    #[serde(default)]
    pub(crate) screen_tls: Option<Trust>,
}

/// What VDSM takes for screens (`remote_display_port_min`, `remote_display_port_max`).
const fn screen_ports() -> [u16; 2] {
    [5900, 6923]
}

/// A pool of XCP-ng or XenServer, by its master.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct XapiConfig {
    /// `https://host` of the pool's master.
    pub(crate) address: String,
    /// `https://host` of the pool's other hosts, by the address that the pool knows them by: where one becomes the
    /// master it is followed, and the screens of machines are where these run.
    #[serde(default)]
    pub(crate) members: Vec<String>,
    /// The gateway's user there.
    pub(crate) username: String,
    /// Its password.
    pub(crate) password: Source,
}

/// One process that is one machine: Cloud Hypervisor or Firecracker.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct VmmConfig {
    /// The unix socket of its API.
    pub(crate) socket: PathBuf,
    /// The machine's name shown to people; the hypervisor's where missing. Its id is `vm`.
    #[serde(default)]
    pub(crate) machine: Option<String>,
    /// Tags.
    #[serde(default)]
    pub(crate) tags: Vec<String>,
    /// Pool.
    #[serde(default)]
    pub(crate) pool: Option<String>,
}

fn default_domain() -> String {
    "Default".to_owned()
}

/// A vCenter, or one ESXi host.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct VsphereConfig {
    /// `https://host:port`; the port is 443 where none is said.
    pub(crate) address: String,
    /// Whom the gateway signs in as.
    pub(crate) username: String,
    /// The password.
    pub(crate) password: Source,
    /// What of it is a pool.
    #[serde(default)]
    pub(crate) pools: PoolsOf,
    /// The custom attribute that holds a machine's tags, with commas between them.
    #[serde(default = "tags_attribute")]
    pub(crate) tags_attribute: String,
    /// Hosts whose screens may be dialled: names or addresses, `:port` where it is not 443. A ticket that names another
    /// one is refused, so that a hypervisor cannot point the gateway somewhere else.
    #[serde(default)]
    pub(crate) screen_hosts: Vec<String>,
    /// How many sessions the gateway may have with it for people's clients, 1 to 1,000.
    #[serde(default = "sessions")]
    pub(crate) sessions: usize,
}

fn tags_attribute() -> String {
    "tags".to_owned()
}

const fn sessions() -> usize {
    200
}

/// What of a vCenter is a pool. Its label is the path of names from the top, with `/` between them.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum PoolsOf {
    /// The folder that a machine is in.
    #[default]
    Folders,
    /// The resource pool that it runs in.
    ResourcePools,
}

/// A Kubernetes cluster with KubeVirt.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct KubevirtConfig {
    /// `https://host:port` of the cluster's API server, usually port 6443.
    pub(crate) address: String,
    /// The token of a service account, read again as it is renewed; this or a client certificate.
    #[serde(default)]
    pub(crate) token: Option<Source>,
    /// The gateway's client certificate.
    #[serde(default)]
    pub(crate) cert_file: Option<PathBuf>,
    /// Its key.
    #[serde(default)]
    pub(crate) key: Option<Source>,
    /// What the key of a label begins with that is a tag: `<prefix>web` with an empty value or `true` is the tag `web`,
    /// with another value `web=<value>`. Empty: every label is a tag.
    #[serde(default = "tags_prefix")]
    pub(crate) tags_prefix: String,
}

fn tags_prefix() -> String {
    "tag.portcullis/".to_owned()
}

/// The path that a secret is read from.
fn file(source: &mut Source) -> Vec<&mut PathBuf> {
    if let Source::File(path) = source { vec![path] } else { Vec::new() }
}

/// Those that are there.
fn named<const N: usize>(paths: [&mut Option<PathBuf>; N]) -> Vec<&mut PathBuf> {
    paths.into_iter().flatten().collect()
}

impl Settings for QemuConfig {
    fn reach(&self) -> Reach {
        Reach::Guests
    }
    fn paths(&mut self) -> Vec<&mut PathBuf> {
        let mut paths = Vec::new();
        for guest in &mut self.guests {
            let ca_file = guest.tls.as_mut().and_then(|t| t.ca_file.as_mut());
            paths.extend(guest.password.iter_mut().flat_map(file));
            paths.extend([guest.qmp.as_mut(), ca_file].into_iter().flatten());
        }
        paths
    }
}

impl Settings for LibvirtConfig {
    fn reach(&self) -> Reach {
        if self.address.is_some() { Reach::Network } else { Reach::Socket }
    }
    fn rpc(&self) -> Option<&RpcDoor> {
        self.rpc.as_ref()
    }
    fn secret(&mut self) -> Option<&mut Source> {
        self.key.as_mut()
    }
    fn paths(&mut self) -> Vec<&mut PathBuf> {
        let mut paths = named([&mut self.socket, &mut self.cert_file]);
        paths.extend(self.key.iter_mut().flat_map(file));
        paths.extend(self.console.tls.as_mut().and_then(|t| t.ca_file.as_mut()));
        paths.extend(&mut self.console.socket_folders);
        paths
    }
}

impl Settings for LxdConfig {
    fn reach(&self) -> Reach {
        if self.address.is_some() { Reach::Network } else { Reach::Socket }
    }
    fn secret(&mut self) -> Option<&mut Source> {
        self.key.as_mut()
    }
    fn paths(&mut self) -> Vec<&mut PathBuf> {
        let mut paths = named([&mut self.socket, &mut self.cert_file]);
        paths.extend(self.key.iter_mut().flat_map(file));
        paths
    }
}

impl Settings for ProxmoxConfig {
    fn reach(&self) -> Reach {
        Reach::Network
    }
    fn secret(&mut self) -> Option<&mut Source> {
        Some(&mut self.token)
    }
    fn paths(&mut self) -> Vec<&mut PathBuf> {
        file(&mut self.token)
    }
}

impl Settings for OpenStackConfig {
    fn reach(&self) -> Reach {
        Reach::Network
    }
    fn secret(&mut self) -> Option<&mut Source> {
        Some(&mut self.secret)
    }
    fn paths(&mut self) -> Vec<&mut PathBuf> {
        file(&mut self.secret)
    }
}

impl Settings for OvirtConfig {
    fn reach(&self) -> Reach {
        Reach::Network
    }
    fn secret(&mut self) -> Option<&mut Source> {
        Some(&mut self.password)
    }
    fn paths(&mut self) -> Vec<&mut PathBuf> {
        let ca = self.screen_tls.as_mut().and_then(|t| t.ca_file.as_mut());
        file(&mut self.password).into_iter().chain(ca).collect()
    }
}

impl Settings for XapiConfig {
    fn reach(&self) -> Reach {
        Reach::Network
    }
    fn secret(&mut self) -> Option<&mut Source> {
        Some(&mut self.password)
    }
    fn paths(&mut self) -> Vec<&mut PathBuf> {
        file(&mut self.password)
    }
}

impl Settings for KubevirtConfig {
    fn reach(&self) -> Reach {
        Reach::Network
    }
    fn secret(&mut self) -> Option<&mut Source> {
        self.token.as_mut()
    }
    fn paths(&mut self) -> Vec<&mut PathBuf> {
        let mut paths = named([&mut self.cert_file]);
        paths.extend([&mut self.token, &mut self.key].into_iter().flatten().flat_map(file));
        paths
    }
}

impl Settings for VmmConfig {
    fn reach(&self) -> Reach {
        Reach::Socket
    }
    fn paths(&mut self) -> Vec<&mut PathBuf> {
        vec![&mut self.socket]
    }
}

impl Settings for VsphereConfig {
    fn reach(&self) -> Reach {
        Reach::Network
    }
    fn secret(&mut self) -> Option<&mut Source> {
        Some(&mut self.password)
    }
    fn paths(&mut self) -> Vec<&mut PathBuf> {
        file(&mut self.password)
    }
}
