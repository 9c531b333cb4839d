// SPDX-License-Identifier: Apache-2.0
//! What the configuration says about each hypervisor, and the reading of the secret files that it names.

mod kinds;

pub use kinds::{
    ConsoleConfig, GuestConfig, LibvirtConfig, LxdConfig, OpenStackConfig, PoolsOf, ProxmoxConfig, QemuConfig, RpcDoor,
    VmmConfig, VsphereConfig, XapiConfig,
};

use crate::error::Error;
use portcullis_domain::{HypervisorName, Secret};
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
