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
    secret::{Duty, Given, Source},
};
use portcullis_domain::{HypervisorName, Secret};
use serde::Deserialize;
use serde_json::{Map, Value};
use std::{
    fs::File,
    io::Read,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    sync::Arc,
};
use uuid::Uuid;
use zeroize::Zeroizing;

/// The largest secret, key or certificate file, bytes.
const MAX_FILE: u64 = 256 * 1024;

/// One configured hypervisor: what every kind has, and the keys of its own.
#[derive(Debug, Clone)]
pub struct HypervisorConfig {
    pub(crate) common: Common,
    pub(crate) own: Own,
    /// The same with another credential, and what that is for. What is in none of them is for the first.
    pub(crate) others: Vec<(Vec<Duty>, Own)>,
    /// Which adding it is; none where a file names it.
    adding: Option<Uuid>,
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
    /// Where its first secret comes from; none where its secrets are its guests'.
    fn secret(&mut self) -> Option<&mut Source> {
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
        let credentials = keys.remove("credentials");
        fold_files(&mut keys).map_err(D::Error::custom)?;
        // What a kind does not take stays among its own keys, where it is unknown.
        for key in std::iter::once(&"name").chain(kind.common()) {
            common.extend(keys.remove_entry(*key));
        }
        let common: Common = serde_json::from_value(common.into()).map_err(D::Error::custom)?;
        let wrong = |why: String| D::Error::custom(format!("hypervisor {}: {why}", common.name));
        let read = |keys: Map<String, Value>| {
            Own::read(kind, keys.into()).map_err(|e| {
                let beside = ["kind", "name"].iter().chain(kind.common()).copied().collect::<Vec<_>>().join("`, `");
                wrong(format!("{}; beside these: `{beside}`", of_files(&e.to_string())))
            })
        };
        let own = read(keys.clone())?;
        let mut others: Vec<(Vec<Duty>, Own)> = Vec::new();
        for entry in entries(credentials).map_err(wrong)? {
            let (duties, login) = credential(kind, entry).map_err(wrong)?;
            if let Some(twice) = duties.iter().find(|d| others.iter().any(|(all, _)| all.contains(d))) {
                return Err(wrong(format!("credentials: two are for {}", twice.word())));
            }
            let mut keys = keys.clone();
            for key in kind.login() {
                keys.remove(*key);
            }
            keys.extend(login);
            others.push((duties, read(keys)?));
        }
        Ok(Self { common, own, others, adding: None })
    }
}

/// The keys under which a secret stands: by itself with its source, or with `_file` behind and a path.
const SECRETS: [&str; 4] = ["token", "password", "secret", "key"];

/// Writes what stands as `password_file = "…"` as `password = { file = "…" }`, here and in everything below.
fn fold_files(keys: &mut Map<String, Value>) -> Result<(), String> {
    for word in SECRETS {
        let Some(file) = keys.remove(&format!("{word}_file")).filter(|f| !f.is_null()) else { continue };
        if keys.insert(word.to_owned(), serde_json::json!({ "file": file })).is_some() {
            return Err(format!("{word} and {word}_file: keep one of the two"));
        }
    }
    for value in keys.values_mut() {
        match value {
            Value::Array(all) => all.iter_mut().filter_map(Value::as_object_mut).try_for_each(fold_files)?,
            Value::Object(below) => fold_files(below)?,
            _ => {}
        }
    }
    Ok(())
}

/// What serde says of a key that is missing or unknown, with the names that people write.
fn of_files(said: &str) -> String {
    let mut said = said.to_owned();
    for word in SECRETS {
        said = said.replace(&format!("missing field `{word}`"), &format!("missing field `{word}_file` or `{word}`"));
    }
    said
}

fn entries(credentials: Option<Value>) -> Result<Vec<Map<String, Value>>, String> {
    let wrong = || "credentials: write [[hypervisors.credentials]] for each".to_owned();
    let Some(credentials) = credentials else { return Ok(Vec::new()) };
    let Value::Array(all) = credentials else { return Err(wrong()) };
    let of = |value| if let Value::Object(entry) = value { Ok(entry) } else { Err(wrong()) };
    all.into_iter().map(of).collect()
}

/// What one more credential is for, and its keys.
fn credential(kind: Kind, mut entry: Map<String, Value>) -> Result<(Vec<Duty>, Map<String, Value>), String> {
    let known = kind.login();
    if known.is_empty() {
        return Err(format!("credentials: {} takes one credential only", kind.word()));
    }
    let duties = entry.remove("for").ok_or("credentials: say what each is for, such as for = [\"console\"]")?;
    let duties: Vec<Duty> = serde_json::from_value(duties).map_err(|e| format!("credentials: {e}"))?;
    if duties.is_empty() {
        return Err("credentials: one is for nothing".to_owned());
    }
    fold_files(&mut entry).map_err(|why| format!("credentials: {why}"))?;
    if let Some(key) = entry.keys().find(|k| !known.contains(&k.as_str())) {
        return Err(format!("credentials: unknown field `{key}`, expected `for` and `{}`", known.join("`, `")));
    }
    Ok((duties, entry))
}

impl HypervisorConfig {
    /// Its name.
    pub const fn name(&self) -> &HypervisorName {
        &self.common.name
    }

    /// Which adding it is; none where a file names it. Nothing that is kept for one adding counts for another of the name.
    pub const fn adding(&self) -> Option<Uuid> {
        self.adding
    }

    /// The same as that adding.
    #[must_use]
    pub fn as_adding(mut self, id: Uuid) -> Self {
        self.adding = Some(id);
        self
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

    /// One that was added while the gateway runs: its keys without a secret, the certificates that it may show, and its
    /// secret. What names a file is refused.
    pub(crate) fn added(
        name: &HypervisorName,
        kind: Kind,
        settings: &Map<String, Value>,
        pins: &[String],
        (word, secret): (&str, Secret),
    ) -> Result<Self, Error> {
        let wrong = |why: String| Error::config(format!("hypervisors.{name}"), why);
        let mut keys = settings.clone();
        keys.insert("name".to_owned(), name.as_str().into());
        keys.insert("kind".to_owned(), kind.word().into());
        keys.insert("tls".to_owned(), serde_json::json!({ "pin": pins }));
        // In its place, until the secret itself stands there: no secret is ever part of a JSON value.
        keys.insert(word.to_owned(), serde_json::json!({ "env": "ADDED" }));
        let mut read = Self::deserialize(Value::Object(keys)).map_err(|e| wrong(e.to_string()))?;
        let place = read.own.settings_mut().secret();
        *place.ok_or_else(|| wrong("it takes no secret".to_owned()))? = Source::Given(Given(Arc::new(secret)));
        if !read.own.settings_mut().paths().is_empty() || !read.others.is_empty() {
            return Err(wrong("what names files stands in the configuration file".to_owned()));
        }
        Ok(read)
    }

    /// Makes relative paths count from a folder: the one of the configuration file.
    pub fn rebase(&mut self, folder: &Path) {
        let others = self.others.iter_mut().map(|(_, own)| own);
        let own = std::iter::once(&mut self.own).chain(others).flat_map(|own| own.settings_mut().paths());
        for path in own.chain(&mut self.common.tls.ca_file) {
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
            (r#"{"hypervisors":[{"kind":"proxmox","name":"a","address":"https://a:1"}]}"#, "`token_file` or `token`"),
            (r#"{"hypervisors":[{"kind":"lxd","name":"A.b","socket":"/s"}]}"#, "hypervisor name"),
        ] {
            let error = parse(text).unwrap_err();
            assert!(error.contains(word), "{error}");
        }
    }

    const PVE: &str = r#""kind":"proxmox","name":"pve","address":"https://a:1","token_file":"t""#;

    #[test]
    fn a_secret_comes_from_a_file_the_environment_or_a_vault_and_from_one_of_them() {
        for (written, shown) in [
            (r#""token_file":"/a/b""#, "file /a/b"),
            (r#""token":{"env":"PVE"}"#, "environment PVE"),
            (r#""token":{"vault":"gateway/pve","key":"token"}"#, "vault gateway/pve token"),
        ] {
            let text =
                format!(r#"{{"hypervisors":[{{"kind":"proxmox","name":"pve","address":"https://a:1",{written}}}]}}"#);
            let all = parse(&text).unwrap();
            let Own::Proxmox(c) = &all[0].own else { panic!() };
            assert_eq!(c.token.to_string(), shown);
        }
        for wrong in [
            r#""token":{"env":"PVE","vault":"a","key":"b"}"#,
            r#""token":{"vault":"gateway/pve"}"#,
            r#""token":{"vault":"../sys/seal","key":"a"}"#,
            r#""token":{"vault":"a?version=1","key":"a"}"#,
            r#""token":{"env":""}"#,
            r#""token":"user@realm!name=secret""#,
            r#""token_file":"/a","token":{"env":"PVE"}"#,
            r#""token":{"value":"x"}"#,
        ] {
            let text =
                format!(r#"{{"hypervisors":[{{"kind":"proxmox","name":"pve","address":"https://a:1",{wrong}}}]}}"#);
            assert!(parse(&text).is_err(), "{wrong}");
        }
    }

    #[test]
    fn more_credentials_have_each_their_use_and_only_the_keys_of_a_credential() {
        let of = |credentials: &str| parse(&format!(r#"{{"hypervisors":[{{{PVE},"credentials":{credentials}}}]}}"#));
        let all = of(r#"[{"for":["console","power"],"token_file":"c"},{"for":["view"],"token":{"env":"V"}}]"#).unwrap();
        let words = |n: usize| all[0].others[n].0.iter().map(|d| d.word()).collect::<Vec<_>>().join("+");
        assert_eq!((words(0).as_str(), words(1).as_str()), ("console+power", "view"));
        for (wrong, word) in [
            (r#"[{"token_file":"c"}]"#, "for"),
            (r#"[{"for":[],"token_file":"c"}]"#, "nothing"),
            (r#"[{"for":["console"]}]"#, "token_file"),
            (r#"[{"for":["read"],"token_file":"c"}]"#, "read"),
            (r#"[{"for":["session"],"token_file":"c"}]"#, "session"),
            (r#"[{"for":["power"],"token_file":"c","address":"https://b:1"}]"#, "address"),
            (r#"[{"for":["power"],"token_file":"c"},{"for":["power"],"token_file":"d"}]"#, "two are for power"),
            (r#"{"for":["power"]}"#, "[[hypervisors.credentials]]"),
        ] {
            let error = of(wrong).unwrap_err();
            assert!(error.contains(word), "{wrong}: {error}");
        }
        let none = r#"{"hypervisors":[{"kind":"qemu","name":"a","credentials":[{"for":["power"],"token_file":"c"}]}]}"#;
        assert!(parse(none).unwrap_err().contains("one credential only"));
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
