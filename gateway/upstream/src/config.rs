// SPDX-License-Identifier: Apache-2.0
//! What the configuration says about each hypervisor, and the reading of the secret files that it names.

use crate::error::Error;
use portcullis_domain::{HypervisorName, MachineId, Secret};
use serde::Deserialize;
use std::{
    fs::File,
    io::Read,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
};
use zeroize::Zeroizing;

/// The largest secret, key or certificate file, bytes.
const MAX_FILE: u64 = 256 * 1024;

/// Kinds of hypervisor.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Kind {
    /// QEMU guests named one by one.
    Qemu,
    /// A libvirt daemon.
    Libvirt,
    /// An LXD server.
    Lxd,
    /// An Incus server.
    Incus,
    /// A Proxmox VE cluster.
    Proxmox,
    /// An OpenStack cloud.
    OpenStack,
    /// A pool of XCP-ng or XenServer.
    Xapi,
    /// A vCenter, or one ESXi host.
    Vsphere,
    /// A Cloud Hypervisor process.
    CloudHypervisor,
    /// A Firecracker process.
    Firecracker,
}

impl Kind {
    /// The word in the configuration.
    pub const fn word(self) -> &'static str {
        match self {
            Self::Qemu => "qemu",
            Self::Libvirt => "libvirt",
            Self::Lxd => "lxd",
            Self::Incus => "incus",
            Self::Proxmox => "proxmox",
            Self::OpenStack => "openstack",
            Self::Xapi => "xapi",
            Self::Vsphere => "vsphere",
            Self::CloudHypervisor => "cloud-hypervisor",
            Self::Firecracker => "firecracker",
        }
    }
}

/// One configured hypervisor.
#[derive(Debug, Clone, Deserialize)]
#[serde(tag = "kind", rename_all = "lowercase")]
pub enum HypervisorConfig {
    /// `kind = "qemu"`.
    Qemu(QemuConfig),
    /// `kind = "libvirt"`.
    Libvirt(LibvirtConfig),
    /// `kind = "lxd"`.
    Lxd(LxdConfig),
    /// `kind = "incus"`: the same keys.
    Incus(LxdConfig),
    /// `kind = "proxmox"`.
    Proxmox(ProxmoxConfig),
    /// `kind = "openstack"`.
    OpenStack(OpenStackConfig),
    /// `kind = "xapi"`.
    Xapi(XapiConfig),
    /// `kind = "vsphere"`.
    Vsphere(VsphereConfig),
    /// `kind = "cloud-hypervisor"`.
    #[serde(rename = "cloud-hypervisor")]
    CloudHypervisor(VmmConfig),
    /// `kind = "firecracker"`.
    Firecracker(VmmConfig),
}

impl HypervisorConfig {
    /// Its name.
    pub const fn name(&self) -> &HypervisorName {
        match self {
            Self::Qemu(c) => &c.name,
            Self::Libvirt(c) => &c.name,
            Self::Lxd(c) | Self::Incus(c) => &c.name,
            Self::Proxmox(c) => &c.name,
            Self::OpenStack(c) => &c.name,
            Self::Xapi(c) => &c.name,
            Self::Vsphere(c) => &c.name,
            Self::CloudHypervisor(c) | Self::Firecracker(c) => &c.name,
        }
    }

    /// Its kind.
    pub const fn kind(&self) -> Kind {
        match self {
            Self::Qemu(_) => Kind::Qemu,
            Self::Libvirt(_) => Kind::Libvirt,
            Self::Lxd(_) => Kind::Lxd,
            Self::Incus(_) => Kind::Incus,
            Self::Proxmox(_) => Kind::Proxmox,
            Self::OpenStack(_) => Kind::OpenStack,
            Self::Xapi(_) => Kind::Xapi,
            Self::Vsphere(_) => Kind::Vsphere,
            Self::CloudHypervisor(_) => Kind::CloudHypervisor,
            Self::Firecracker(_) => Kind::Firecracker,
        }
    }

    /// Where clients of its own API reach it through the gateway; none where its API is no HTTP.
    pub const fn api(&self) -> Option<&ApiDoor> {
        match self {
            Self::Lxd(c) | Self::Incus(c) => c.api.as_ref(),
            Self::Proxmox(c) => c.api.as_ref(),
            Self::OpenStack(c) => c.api.as_ref(),
            Self::Xapi(c) => c.api.as_ref(),
            Self::Vsphere(c) => c.api.as_ref(),
            Self::CloudHypervisor(c) | Self::Firecracker(c) => c.api.as_ref(),
            Self::Qemu(_) | Self::Libvirt(_) => None,
        }
    }

    /// Where clients of its RPC reach it through the gateway; none where it has no RPC.
    pub const fn rpc(&self) -> Option<&RpcDoor> {
        match self {
            Self::Libvirt(c) => c.rpc.as_ref(),
            Self::Qemu(_)
            | Self::Lxd(_)
            | Self::Incus(_)
            | Self::Proxmox(_)
            | Self::OpenStack(_)
            | Self::Xapi(_)
            | Self::Vsphere(_)
            | Self::CloudHypervisor(_)
            | Self::Firecracker(_) => None,
        }
    }

    /// Makes relative paths count from a folder: the one of the configuration file.
    pub fn rebase(&mut self, folder: &Path) {
        let rebase = |path: &mut PathBuf| {
            if path.is_relative() {
                *path = folder.join(&*path);
            }
        };
        let mut optional: Vec<&mut Option<PathBuf>> = Vec::new();
        match self {
            Self::Qemu(c) => {
                for g in &mut c.guests {
                    optional.extend([&mut g.password_file, &mut g.qmp]);
                    optional.extend(g.tls.as_mut().map(|t| &mut t.ca_file));
                }
            }
            Self::Libvirt(c) => {
                optional.extend([&mut c.socket, &mut c.cert_file, &mut c.key_file, &mut c.tls.ca_file]);
                optional.extend(c.console.tls.as_mut().map(|t| &mut t.ca_file));
                c.console.socket_folders.iter_mut().for_each(rebase);
            }
            Self::Lxd(c) | Self::Incus(c) => {
                optional.extend([&mut c.socket, &mut c.cert_file, &mut c.key_file, &mut c.tls.ca_file]);
            }
            Self::Proxmox(c) => {
                rebase(&mut c.token_file);
                optional.push(&mut c.tls.ca_file);
            }
            Self::CloudHypervisor(c) | Self::Firecracker(c) => rebase(&mut c.socket),
            Self::OpenStack(c) => {
                rebase(&mut c.secret_file);
                optional.push(&mut c.tls.ca_file);
            }
            Self::Xapi(XapiConfig { password_file, tls, .. })
            | Self::Vsphere(VsphereConfig { password_file, tls, .. }) => {
                rebase(password_file);
                optional.push(&mut tls.ca_file);
            }
        }
        optional.into_iter().flatten().for_each(rebase);
    }
}

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

/// Where clients of a hypervisor's API reach it through the gateway.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct ApiDoor {
    /// A port of its own.
    pub port: Option<u16>,
    /// A host name of its own; missing: `<name>.<api domain>`.
    pub host: Option<String>,
}

/// How a peer's certificate is checked. With nothing said: the system's roots.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Trust {
    /// PEM file with the CA certificates that may have signed it.
    pub ca_file: Option<PathBuf>,
    /// SHA-256 of the certificates that it may present, 64 hex digits each, colons allowed. Without `ca_file` the pin
    /// alone decides: chain and name are not looked at; the handshake's signature always is.
    pub pin: Vec<String>,
    /// The name in its certificate, where it is not the one in the address.
    pub server_name: Option<String>,
    /// `none` switches the check off. Loud: health shows it as long as it is there.
    pub verify: Verify,
}

/// Whether certificates are checked.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Verify {
    /// They are.
    #[default]
    Full,
    /// They are not: anybody on the way can read and change everything.
    None,
}

/// Reads a secret file. Refused when group or others may read it; one trailing line end is dropped.
pub(crate) fn read_secret(key: &str, path: &Path) -> Result<Secret, Error> {
    let mut bytes = read_file(key, path, Readers::Owner)?;
    if bytes.ends_with(b"\n") {
        bytes.pop();
        if bytes.ends_with(b"\r") {
            bytes.pop();
        }
    }
    if bytes.is_empty() {
        return Err(Error::config(key, format!("{} is empty", path.display())));
    }
    Ok(Secret::new(std::mem::take(&mut *bytes)))
}

/// Who may read a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Readers {
    /// Its owner only.
    Owner,
    /// Anybody.
    Anyone,
}

/// Reads a small file whole.
pub(crate) fn read_file(key: &str, path: &Path, readers: Readers) -> Result<Zeroizing<Vec<u8>>, Error> {
    let cannot = |e: std::io::Error| Error::config(key, format!("{} cannot be read: {e}", path.display()));
    let file = File::open(path).map_err(cannot)?;
    // Asked of the open file, not of the path: the two could differ.
    let meta = file.metadata().map_err(cannot)?;
    if !meta.is_file() {
        return Err(Error::config(key, format!("{} is not a file", path.display())));
    }
    let mode = meta.permissions().mode() & 0o777;
    if readers == Readers::Owner && mode & 0o077 != 0 {
        let path = path.display();
        return Err(Error::config(
            key,
            format!("{path} can be read by others (mode {mode:04o}); make it private: chmod 600 {path}"),
        ));
    }
    if meta.len() > MAX_FILE {
        return Err(Error::config(key, format!("{} is larger than {MAX_FILE} bytes", path.display())));
    }
    let mut bytes = Zeroizing::new(Vec::with_capacity(usize::try_from(meta.len()).unwrap_or(0) + 1));
    file.take(MAX_FILE).read_to_end(&mut bytes).map_err(cannot)?;
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;

    fn parse(text: &str) -> Result<Vec<HypervisorConfig>, String> {
        #[derive(Deserialize)]
        struct Whole {
            hypervisors: Vec<HypervisorConfig>,
        }
        serde_json::from_str::<Whole>(text).map(|w| w.hypervisors).map_err(|e| e.to_string())
    }

    #[test]
    fn an_unknown_key_is_refused_and_named() {
        for (text, word) in [
            (r#"{"hypervisors":[{"kind":"lxd","name":"a","socket":"/s","colour":1}]}"#, "colour"),
            (r#"{"hypervisors":[{"kind":"qemu","name":"a","guests":[{"id":"g","vnk":"x"}]}]}"#, "vnk"),
            (r#"{"hypervisors":[{"kind":"libvirt","name":"a","tls":{"insecure":true}}]}"#, "insecure"),
            (r#"{"hypervisors":[{"kind":"esx","name":"a"}]}"#, "esx"),
            (r#"{"hypervisors":[{"kind":"lxd","name":"A.b","socket":"/s"}]}"#, "hypervisor name"),
        ] {
            let error = parse(text).unwrap_err();
            assert!(error.contains(word), "{error}");
        }
    }

    #[test]
    fn relative_paths_count_from_the_folder_of_the_file() {
        let mut all = parse(r#"{"hypervisors":[{"kind":"lxd","name":"a","socket":"s","cert_file":"/c"}]}"#).unwrap();
        all[0].rebase(Path::new("/etc/portcullis"));
        let HypervisorConfig::Lxd(c) = &all[0] else { panic!() };
        assert_eq!(c.socket.as_deref(), Some(Path::new("/etc/portcullis/s")));
        assert_eq!(c.cert_file.as_deref(), Some(Path::new("/c")));
    }

    #[test]
    fn a_secret_file_that_others_can_read_is_refused_with_key_and_file() {
        let mut file = tempfile::NamedTempFile::new().unwrap();
        file.write_all(b"secret12\n").unwrap();
        let set = |mode| std::fs::set_permissions(file.path(), std::fs::Permissions::from_mode(mode)).unwrap();
        set(0o600);
        assert_eq!(read_secret("k", file.path()).unwrap().expose(), b"secret12");
        for mode in [0o640, 0o604, 0o644] {
            set(mode);
            let error = read_secret("hypervisors.lab.password_file", file.path()).map(|_| ()).unwrap_err().to_string();
            assert!(error.contains("hypervisors.lab.password_file"), "{error}");
            assert!(error.contains(file.path().to_str().unwrap()) && error.contains("chmod 600"), "{error}");
            assert!(!error.contains("secret12"), "{error}");
        }
        let error = read_secret("k", Path::new("/does/not/exist")).map(|_| ()).unwrap_err().to_string();
        assert!(error.contains("/does/not/exist"), "{error}");
    }
}
