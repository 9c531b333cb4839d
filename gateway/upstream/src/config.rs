// SPDX-License-Identifier: Apache-2.0
//! What the configuration says about each hypervisor, and the reading of the secret files that it names.

mod kinds;

pub use kinds::RpcDoor;
pub(crate) use kinds::{
    GuestConfig, KubevirtConfig, LibvirtConfig, LxdConfig, OpenStackConfig, OvirtConfig, PoolsOf, ProxmoxConfig,
    QemuConfig, VmmConfig, VsphereConfig, XapiConfig,
};

use crate::{
    error::Error,
    kind::{Kind, Own},
};
use portcullis_domain::{HypervisorName, Secret};
use serde::Deserialize;
use serde_json::Map;
use std::{
    fs::File,
    io::Read,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
};
use zeroize::Zeroizing;

/// The largest secret, key or certificate file, bytes.
const MAX_FILE: u64 = 256 * 1024;

/// One configured hypervisor: what every kind has, and the keys of its own.
#[derive(Debug, Clone)]
pub struct HypervisorConfig {
    pub(crate) common: Common,
    pub(crate) own: Own,
}

/// What hypervisors of several kinds have in common. Which of these keys a kind takes says its row in `kinds!`.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Common {
    /// The hypervisor's name.
    pub(crate) name: HypervisorName,
    /// How its certificate is checked.
    #[serde(default)]
    pub(crate) tls: Trust,
    /// Where clients of its API reach it through the gateway.
    #[serde(default)]
    pub(crate) api: Option<ApiDoor>,
    /// How many requests one shard may have with it at a time, 1 to 65,536.
    #[serde(default = "connections")]
    pub(crate) connections: usize,
}

const fn connections() -> usize {
    512
}

impl Common {
    /// The TOML key of the hypervisor, for messages.
    pub(crate) fn key(&self) -> String {
        format!("hypervisors.{}", self.name)
    }

    /// The same of one of its keys.
    pub(crate) fn key_of(&self, word: &str) -> String {
        format!("hypervisors.{}.{word}", self.name)
    }

    /// What people should know of how its certificate is checked.
    pub(crate) fn warnings(&self) -> Vec<String> {
        if self.tls.verify == Verify::None { vec![crate::driver::UNVERIFIED.to_owned()] } else { Vec::new() }
    }
}

/// How a hypervisor is reached.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reach {
    /// Each of its guests by itself.
    Guests,
    /// By a unix socket.
    Socket,
    /// Over a network.
    Network,
}

/// The keys of one kind.
pub(crate) trait Settings {
    /// How it is reached.
    fn reach(&self) -> Reach;
    /// Where clients of its RPC reach it through the gateway; none where it has no RPC.
    fn rpc(&self) -> Option<&RpcDoor> {
        None
    }
    /// Every path that its keys name.
    fn paths(&mut self) -> Vec<&mut PathBuf>;
}

impl<'de> Deserialize<'de> for HypervisorConfig {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        use serde::de::Error as _;
        let mut keys = Map::deserialize(deserializer)?;
        let kind = keys.remove("kind").ok_or_else(|| D::Error::missing_field("kind"))?;
        let kind = Kind::deserialize(kind).map_err(D::Error::custom)?;
        let mut common = Map::new();
        // What a kind does not take stays among its own keys, where it is unknown.
        for key in std::iter::once(&"name").chain(kind.common()) {
            common.extend(keys.remove_entry(*key));
        }
        let common: Common = serde_json::from_value(common.into()).map_err(D::Error::custom)?;
        let own = Own::read(kind, keys.into()).map_err(|e| {
            let beside = ["kind", "name"].iter().chain(kind.common()).copied().collect::<Vec<_>>().join("`, `");
            D::Error::custom(format!("hypervisor {}: {e}; beside these: `{beside}`", common.name))
        })?;
        Ok(Self { common, own })
    }
}

impl HypervisorConfig {
    /// Its name.
    pub const fn name(&self) -> &HypervisorName {
        &self.common.name
    }

    /// Its kind.
    pub fn kind(&self) -> Kind {
        self.own.kind()
    }

    /// How its certificate is checked.
    pub const fn trust(&self) -> &Trust {
        &self.common.tls
    }

    /// How it is reached.
    pub fn reach(&self) -> Reach {
        self.own.settings().reach()
    }

    /// Where clients of its own API reach it through the gateway; none where its API is no HTTP.
    pub const fn api(&self) -> Option<&ApiDoor> {
        self.common.api.as_ref()
    }

    /// Where clients of its RPC reach it through the gateway; none where it has no RPC.
    pub fn rpc(&self) -> Option<&RpcDoor> {
        self.own.settings().rpc()
    }

    /// Makes relative paths count from a folder: the one of the configuration file.
    pub fn rebase(&mut self, folder: &Path) {
        for path in self.own.settings_mut().paths().into_iter().chain(&mut self.common.tls.ca_file) {
            if path.is_relative() {
                *path = folder.join(&*path);
            }
        }
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
            (r#"{"hypervisors":[{"name":"a"}]}"#, "kind"),
            // What only other kinds take.
            (r#"{"hypervisors":[{"kind":"qemu","name":"a","connections":1}]}"#, "connections"),
            (r#"{"hypervisors":[{"kind":"firecracker","name":"a","socket":"/s","tls":{}}]}"#, "tls"),
            (r#"{"hypervisors":[{"kind":"vsphere","name":"a","conections":1}]}"#, "hypervisor a: unknown field"),
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
        let Own::Lxd(c) = &all[0].own else { panic!() };
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
