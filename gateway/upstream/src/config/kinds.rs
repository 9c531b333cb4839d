// SPDX-License-Identifier: Apache-2.0
//! The keys of each kind of hypervisor, as the configuration writes them.

use super::{ApiDoor, Trust};
use portcullis_domain::{HypervisorName, MachineId};
use serde::Deserialize;
use std::path::PathBuf;

/// QEMU guests named one by one.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct QemuConfig {
    /// Name of the group of guests: the hypervisor's name.
    pub name: HypervisorName,
    /// The guests, at most 1,000.
    #[serde(default)]
    pub guests: Vec<GuestConfig>,
}

/// One QEMU guest.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct GuestConfig {
    /// Stable id.
    pub id: MachineId,
    /// Name shown to people; the id where missing.
    #[serde(default)]
    pub name: Option<String>,
    /// Tags.
    #[serde(default)]
    pub tags: Vec<String>,
    /// Pool.
    #[serde(default)]
    pub pool: Option<String>,
    /// Where its VNC server listens: `host:port` or `unix:/path`.
    #[serde(default)]
    pub vnc: Option<String>,
    /// File with the VNC password.
    #[serde(default)]
    pub password_file: Option<PathBuf>,
    /// User name for VeNCrypt's Plain types.
    #[serde(default)]
    pub username: Option<String>,
    /// TLS of its VNC server; when present, a session without TLS is refused.
    #[serde(default)]
    pub tls: Option<Trust>,
    /// Its QMP socket: state, events and power. Without it the state is unknown and power is not possible.
    #[serde(default)]
    pub qmp: Option<PathBuf>,
}

/// A libvirt daemon, by a unix socket or by TLS.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LibvirtConfig {
    /// The hypervisor's name.
    pub name: HypervisorName,
    /// Its unix socket; this or `address`.
    #[serde(default)]
    pub socket: Option<PathBuf>,
    /// `host:port` of its TLS listener, usually port 16514; this or `socket`.
    #[serde(default)]
    pub address: Option<String>,
    /// How its certificate is checked.
    #[serde(default)]
    pub tls: Trust,
    /// The gateway's client certificate.
    #[serde(default)]
    pub cert_file: Option<PathBuf>,
    /// Its key.
    #[serde(default)]
    pub key_file: Option<PathBuf>,
    /// The connection URI that the daemon opens.
    #[serde(default = "system_uri")]
    pub uri: String,
    /// The XML namespace of the `tags` and `pool` elements in a domain's metadata.
    #[serde(default = "metadata_namespace")]
    pub metadata_namespace: String,
    /// How screens are reached.
    #[serde(default)]
    pub console: ConsoleConfig,
    /// Where clients of its RPC reach it through the gateway.
    #[serde(default)]
    pub rpc: Option<RpcDoor>,
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
pub struct ConsoleConfig {
    /// The host to dial for every screen. Missing: the daemon's own host. What a domain's XML names as its listening
    /// address is never dialled, so that a hypervisor cannot point the gateway somewhere else.
    pub host: Option<String>,
    /// TLS of the screens (`vnc_tls = 1` in qemu.conf); when present, a session without TLS is refused.
    pub tls: Option<Trust>,
    /// Folders in which a screen's unix socket may lie, for daemons reached by a unix socket.
    pub socket_folders: Vec<PathBuf>,
}

impl Default for ConsoleConfig {
    fn default() -> Self {
        Self { host: None, tls: None, socket_folders: vec!["/var/lib/libvirt/qemu".into(), "/run/libvirt/qemu".into()] }
    }
}

/// An LXD server, by a unix socket or by TLS.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LxdConfig {
    /// The hypervisor's name.
    pub name: HypervisorName,
    /// `https://host:port`, usually port 8443; this or `socket`.
    #[serde(default)]
    pub address: Option<String>,
    /// Its unix socket; this or `address`.
    #[serde(default)]
    pub socket: Option<PathBuf>,
    /// How its certificate is checked.
    #[serde(default)]
    pub tls: Trust,
    /// The gateway's client certificate, trusted by the server.
    #[serde(default)]
    pub cert_file: Option<PathBuf>,
    /// Its key.
    #[serde(default)]
    pub key_file: Option<PathBuf>,
    /// Where clients of its API reach it through the gateway.
    #[serde(default)]
    pub api: Option<ApiDoor>,
    /// How many requests one shard may have with it at a time, 1 to 65,536.
    #[serde(default = "connections")]
    pub connections: usize,
}

const fn connections() -> usize {
    512
}

/// A Proxmox VE cluster, by any of its nodes.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ProxmoxConfig {
    /// The hypervisor's name.
    pub name: HypervisorName,
    /// `https://host:port`, usually port 8006.
    pub address: String,
    /// How its certificate is checked.
    #[serde(default)]
    pub tls: Trust,
    /// File with the gateway's API token, `user@realm!name=secret`.
    pub token_file: PathBuf,
    /// Where clients of its API reach it through the gateway.
    #[serde(default)]
    pub api: Option<ApiDoor>,
    /// How many requests one shard may have with it at a time, 1 to 65,536.
    #[serde(default = "connections")]
    pub connections: usize,
}

/// An OpenStack cloud: Keystone, Nova and its console proxy.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct OpenStackConfig {
    /// The hypervisor's name.
    pub name: HypervisorName,
    /// Keystone: `https://host:5000/v3`.
    pub identity: String,
    /// Nova: `https://host:8774/v2.1`. What the catalog says is compared with it, and never followed.
    pub compute: String,
    /// nova-novncproxy: `https://host:6080`. Without it there are no screens.
    #[serde(default)]
    pub console: Option<String>,
    /// How the certificates of all three are checked.
    #[serde(default)]
    pub tls: Trust,
    /// The gateway's user, with `project`; or `application_credential`.
    #[serde(default)]
    pub user: Option<String>,
    /// The name of its domain.
    #[serde(default = "default_domain")]
    pub user_domain: String,
    /// The project that it signs in to, and that servers which are made through the gateway belong to.
    #[serde(default)]
    pub project: Option<String>,
    /// The name of its domain.
    #[serde(default = "default_domain")]
    pub project_domain: String,
    /// The id of an application credential.
    #[serde(default)]
    pub application_credential: Option<String>,
    /// File with the user's password, or the application credential's secret.
    pub secret_file: PathBuf,
    /// Where clients of its API reach it through the gateway.
    #[serde(default)]
    pub api: Option<ApiDoor>,
    /// How many requests one shard may have with it at a time, 1 to 65,536.
    #[serde(default = "connections")]
    pub connections: usize,
}

/// A pool of XCP-ng or XenServer, by its master.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct XapiConfig {
    /// The hypervisor's name.
    pub name: HypervisorName,
    /// `https://host` of the pool's master.
    pub address: String,
    /// `https://host` of the pool's other hosts, by the address that the pool knows them by: where one becomes the
    /// master it is followed, and the screens of machines are where these run.
    #[serde(default)]
    pub members: Vec<String>,
    /// How their certificates are checked.
    #[serde(default)]
    pub tls: Trust,
    /// The gateway's user there.
    pub username: String,
    /// File with its password.
    pub password_file: PathBuf,
    /// Where clients of its API reach it through the gateway.
    #[serde(default)]
    pub api: Option<ApiDoor>,
    /// How many requests one shard may have with it at a time, 1 to 65,536.
    #[serde(default = "connections")]
    pub connections: usize,
}

/// One process that is one machine: Cloud Hypervisor or Firecracker.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct VmmConfig {
    /// The hypervisor's name.
    pub name: HypervisorName,
    /// The unix socket of its API.
    pub socket: PathBuf,
    /// The machine's name shown to people; the hypervisor's where missing. Its id is `vm`.
    #[serde(default)]
    pub machine: Option<String>,
    /// Tags.
    #[serde(default)]
    pub tags: Vec<String>,
    /// Pool.
    #[serde(default)]
    pub pool: Option<String>,
    /// Where clients of its API reach it through the gateway.
    #[serde(default)]
    pub api: Option<ApiDoor>,
    /// How many requests one shard may have with it at a time, 1 to 65,536.
    #[serde(default = "connections")]
    pub connections: usize,
}

fn default_domain() -> String {
    "Default".to_owned()
}

/// A vCenter, or one ESXi host.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct VsphereConfig {
    /// The hypervisor's name.
    pub name: HypervisorName,
    /// `https://host:port`; the port is 443 where none is said.
    pub address: String,
    /// How its certificate is checked.
    #[serde(default)]
    pub tls: Trust,
    /// Whom the gateway signs in as.
    pub username: String,
    /// File with the password.
    pub password_file: PathBuf,
    /// What of it is a pool.
    #[serde(default)]
    pub pools: PoolsOf,
    /// The custom attribute that holds a machine's tags, with commas between them.
    #[serde(default = "tags_attribute")]
    pub tags_attribute: String,
    /// Hosts whose screens may be dialled: names or addresses, `:port` where it is not 443. A ticket that names another
    /// one is refused, so that a hypervisor cannot point the gateway somewhere else.
    #[serde(default)]
    pub screen_hosts: Vec<String>,
    /// Where clients of its API reach it through the gateway.
    #[serde(default)]
    pub api: Option<ApiDoor>,
    /// How many sessions the gateway may have with it for people's clients, 1 to 1,000.
    #[serde(default = "sessions")]
    pub sessions: usize,
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
pub enum PoolsOf {
    /// The folder that a machine is in.
    #[default]
    Folders,
    /// The resource pool that it runs in.
    ResourcePools,
}
