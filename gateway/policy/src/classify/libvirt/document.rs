// SPDX-License-Identifier: Apache-2.0
//! The XML that calls carry, and what of it reaches further than the machine that it describes: files, devices, networks
//! and programs of the host, and the labels that grants speak of.
//!
//! What is known to stay inside of the machine is listed here; everything else asks for `node-admin`. A document that
//! cannot be read in one way is refused: a document type, an entity that is not one of XML's own five, an attribute
//! twice, more than one root.

use super::file::Document;
use portcullis_domain::{Action, Machine};
use quick_xml::{
    XmlVersion,
    events::{BytesStart, Event},
    name::{Namespace, ResolveResult},
    reader::NsReader,
};
use std::collections::{BTreeMap, BTreeSet};
use uuid::Uuid;

/// The largest document, in bytes.
const MAX: usize = 1024 * 1024;
/// How deep elements may nest.
const MAX_DEPTH: usize = 64;
/// How many elements there may be.
const MAX_ELEMENTS: usize = 20_000;

/// Parts of a machine that stay inside of it, with everything below them.
const INSIDE: [&str; 31] = [
    "name",
    "uuid",
    "genid",
    "title",
    "description",
    "metadata",
    "memory",
    "currentMemory",
    "maxMemory",
    "vcpu",
    "vcpus",
    "iothreads",
    "iothreadids",
    "defaultiothread",
    "cpu",
    "clock",
    "on_poweroff",
    "on_reboot",
    "on_crash",
    "on_lockfailure",
    "pm",
    "perf",
    "features",
    "cputune",
    "memtune",
    "os/type",
    "os/boot",
    "os/bootmenu",
    "os/smbios",
    "os/bios",
    "os/firmware",
];
/// Devices that are made of nothing but what they say here.
const PLAIN: [&str; 9] =
    ["controller", "video", "sound", "memballoon", "watchdog", "panic", "hub", "vsock", "redirfilter"];
/// Attributes that name something of the host wherever they stand in a device.
const HOST: [&str; 8] = ["file", "path", "socket", "rendernode", "dir", "tapfd", "passwd", "keyfile"];

/// Parts of devices that say nothing of the host, but for the attributes above.
const PARTS: [(&[&str], &[&str]); 6] = [
    (
        &["disk"],
        &[
            "driver",
            "target",
            "readonly",
            "shareable",
            "transient",
            "serial",
            "wwn",
            "vendor",
            "product",
            "alias",
            "address",
            "boot",
            "backingStore",
            "iotune",
            "blockio",
            "geometry",
            "mirror",
            "throttlefilters",
        ],
    ),
    (
        &["interface"],
        &[
            "mac",
            "model",
            "target",
            "alias",
            "address",
            "boot",
            "bandwidth",
            "link",
            "mtu",
            "filterref",
            "virtualport",
            "vlan",
            "driver",
            "guest",
            "port",
            "rom",
            "coalesce",
        ],
    ),
    (
        &["graphics"],
        &["image", "jpeg", "zlib", "playback", "streaming", "clipboard", "mouse", "filetransfer", "channel"],
    ),
    (&["serial", "parallel", "console", "channel", "redirdev"], &["target", "alias", "address", "boot", "protocol"]),
    (&["input", "rng", "tpm"], &["alias", "address", "driver", "rate"]),
    (&["memory"], &["target", "alias", "address"]),
];
/// What a disk says of a volume.
const VOLUME: [&str; 5] = ["pool", "volume", "mode", "index", "startupPolicy"];
/// What an emulated TPM says of its banks.
const BANKS: [&str; 5] = ["active_pcr_banks", "sha1", "sha256", "sha384", "sha512"];

/// What a document says that must be decided on.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Read {
    /// What it asks of the hypervisor beside the call itself.
    pub(super) asks: BTreeSet<Wish>,
    /// The machine that it says it is.
    pub(super) uuid: Option<Uuid>,
    tags: String,
    pool: String,
}

/// Something that a document asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Wish {
    /// Something of the host: a file, a device, a program, an address.
    Host,
    /// A volume of a pool.
    Storage,
    /// A network or bridge.
    Network,
    /// Other labels than it has: they say who may see it.
    Labels,
}

impl Wish {
    pub(super) const fn action(self) -> Action {
        match self {
            Self::Host => Action::NodeAdmin,
            Self::Storage => Action::Storage,
            Self::Network => Action::Network,
            Self::Labels => Action::AccessAdmin,
        }
    }
}

/// One element that is open.
struct Open {
    name: String,
    attributes: BTreeMap<String, String>,
    is_ours: bool,
    text: String,
}

impl Open {
    fn get(&self, name: &str) -> &str {
        self.attributes.get(name).map_or("", String::as_str)
    }
}

impl Read {
    /// Reads one. `namespace` is the one of the labels.
    pub(super) fn of(kind: Document, text: &str, namespace: &str) -> Result<Self, &'static str> {
        if text.len() > MAX {
            return Err("A description is larger than 1 MiB.");
        }
        let mut read = Self::default();
        let mut reader = NsReader::from_str(text);
        let (mut path, mut elements, mut roots): (Vec<Open>, usize, usize) = (Vec::new(), 0, 0);
        loop {
            let (resolved, event) = reader.read_resolved_event().map_err(|_| BROKEN)?;
            let space = match resolved {
                ResolveResult::Bound(Namespace(n)) if n == namespace => Space::Ours,
                ResolveResult::Unbound => Space::None,
                ResolveResult::Bound(_) | ResolveResult::Unknown(_) => Space::Foreign,
            };
            match event {
                Event::Start(ref element) | Event::Empty(ref element) => {
                    elements += 1;
                    roots += usize::from(path.is_empty());
                    if elements > MAX_ELEMENTS || path.len() >= MAX_DEPTH || roots > 1 {
                        return Err("A description is too deep or too long.");
                    }
                    let is_free = path.iter().any(|o| o.name == "metadata");
                    path.push(open(element, space == Space::Ours, is_free)?);
                    if path.len() == 1 && path.first().is_some_and(|root| !is_root(kind, &root.name)) {
                        return Err("A description is of something else than the call is about.");
                    }
                    read.begin(kind, &path, space);
                    if matches!(event, Event::Empty(_)) {
                        read.end(kind, &path)?;
                        path.pop();
                    }
                }
                Event::End(_) => {
                    read.end(kind, &path)?;
                    path.pop();
                }
                Event::Text(text) => note(&mut path, &text.xml10_content())?,
                Event::CData(text) => note(&mut path, &text.xml10_content())?,
                Event::GeneralRef(name) => {
                    let c = name.resolve_char_ref().map_err(|_| BROKEN)?.or(match &*name {
                        "amp" => Some('&'),
                        "lt" => Some('<'),
                        "gt" => Some('>'),
                        "quot" => Some('"'),
                        "apos" => Some('\''),
                        _ => None,
                    });
                    note(&mut path, c.ok_or("A description uses an unknown entity.")?.encode_utf8(&mut [0; 4]))?;
                }
                Event::DocType(_) => return Err("A description has a document type."),
                Event::Eof => break,
                // The daemon would read the text in that encoding, and another text than this one.
                Event::Decl(declaration) => {
                    let encoding = declaration.encoding().transpose().map_err(|_| BROKEN)?;
                    if encoding.is_some_and(|e| !e.eq_ignore_ascii_case("utf-8")) {
                        return Err("A description says another encoding than UTF-8.");
                    }
                }
                Event::PI(_) => return Err("A description holds an instruction for programs."),
                Event::Comment(_) => {}
            }
        }
        if path.is_empty() && roots == 1 { Ok(read) } else { Err(BROKEN) }
    }

    /// The labels that it says: tags, each once, and the pool.
    pub(super) fn labels(&self) -> (BTreeSet<&str>, Option<&str>) {
        let tags = self.tags.split(',').map(str::trim).filter(|t| !t.is_empty());
        (tags.collect(), Some(self.pool.trim()).filter(|p| !p.is_empty()))
    }

    /// Holds the labels that it says against those that the machine has.
    pub(super) fn hold_against(&mut self, machine: Option<&Machine>) {
        let has = machine.map_or((BTreeSet::new(), None), |machine| {
            (machine.tags.iter().map(String::as_str).collect(), machine.pool.as_deref())
        });
        if self.labels() != has {
            self.asks.insert(Wish::Labels);
        }
    }

    fn ask(&mut self, wish: Wish) {
        self.asks.insert(wish);
    }

    fn begin(&mut self, kind: Document, path: &[Open], space: Space) {
        let names: Vec<&str> = path.iter().map(|o| o.name.as_str()).collect();
        let is_known = match kind {
            Document::Machine | Document::Start | Document::Domain => {
                let below = names.get(1..).unwrap_or_default();
                match below {
                    // Whatever stands in the metadata is data to the daemon.
                    [] | ["os" | "devices"] | ["metadata", ..] => true,
                    ["devices", ..] => space == Space::None && self.device(path.get(2..).unwrap_or_default()),
                    ["sysinfo", rest @ ..] => {
                        let kind = path.get(1).map_or("", |o| o.get("type"));
                        kind == "smbios" && (rest.is_empty() || path.iter().all(|o| o.get("file").is_empty()))
                    }
                    below => {
                        let of = |depth: usize| below.get(..depth).map(|b| b.join("/")).unwrap_or_default();
                        space == Space::None && (INSIDE.contains(&&*of(1)) || INSIDE.contains(&&*of(2)))
                    }
                }
            }
            Document::Device | Document::Disk => space == Space::None && self.device(path),
            Document::Snapshot => match names.get(1..).unwrap_or_default() {
                [] | ["name" | "description" | "disks"] | ["disks", "disk"] | ["disks", "disk", "driver"] => true,
                ["memory"] => path.last().is_some_and(|o| o.get("file").is_empty()),
                _ => false,
            },
            Document::Checkpoint => {
                matches!(
                    names.get(1..).unwrap_or_default(),
                    [] | ["name" | "description" | "disks"] | ["disks", "disk"]
                )
            }
            Document::Volume => matches!(
                names.get(1..).unwrap_or_default(),
                [] | ["name" | "key" | "capacity" | "allocation" | "physical" | "target"]
                    | [
                        "target",
                        "format" | "compat" | "features" | "nocow" | "clusterSize" | "path" | "timestamps",
                        ..
                    ]
            ),
        };
        if !is_known || path.last().is_some_and(|o| o.name == "passwd") {
            self.ask(Wish::Host);
        }
    }

    /// Whether an element of a device is known to reach nothing but what it asks for here.
    fn device(&mut self, path: &[Open]) -> bool {
        let (Some(device), Some(last)) = (path.first(), path.last()) else { return true };
        let names: Vec<&str> = path.iter().map(|o| o.name.as_str()).collect();
        let inner = names.get(1..).unwrap_or_default();
        let of = device.get("type");
        let names_host = HOST.iter().any(|a| last.attributes.contains_key(*a));
        let has_only = |known: &[&str]| last.attributes.keys().all(|k| known.contains(&&**k));
        match (device.name.as_str(), inner) {
            ("disk", [.., "source"]) => {
                let is_volume = !last.get("pool").is_empty();
                if is_volume {
                    self.ask(Wish::Storage);
                }
                // Without a volume it is an empty drive.
                has_only(if is_volume { &VOLUME } else { &["index", "startupPolicy"] })
            }
            (name, [part, ..]) if is_part(name, part) => {
                !names_host && last.name != "source" && !names.contains(&"encryption")
            }
            ("interface", []) if ["network", "bridge", "user"].contains(&of) => {
                self.ask(Wish::Network);
                true
            }
            ("interface", ["source"]) => has_only(&["network", "portgroup", "portid", "bridge"]),
            // A screen that listens to others, or has a password of its own, is a way around the gateway.
            ("graphics", []) => ["vnc", "spice"].contains(&of) && !names_host && is_here(last.get("listen")),
            ("graphics", ["listen"]) => {
                let is_quiet = match last.get("type") {
                    "address" => is_here(last.get("address")),
                    kind => kind == "none",
                };
                is_quiet && !names_host
            }
            ("serial" | "parallel" | "console" | "channel" | "redirdev", []) => {
                let is_quiet = ["pty", "null", "vc", "spicevmc", "spiceport", "qemu-vdagent"].contains(&of);
                is_quiet || device.name == "channel" && of == "unix"
            }
            // A pty's path is told, not chosen.
            ("serial" | "parallel" | "console" | "channel", ["source"]) => match of {
                "pty" => has_only(&["path"]),
                "unix" => has_only(&["mode"]),
                "spiceport" => has_only(&["channel"]),
                kind => kind == "qemu-vdagent",
            },
            ("input", []) => ["mouse", "tablet", "keyboard"].contains(&of),
            ("audio", []) => ["none", "spice"].contains(&of),
            ("rng", ["backend"]) => ["random", "builtin"].contains(&last.get("model")),
            ("tpm", ["backend", rest @ ..]) => {
                let is_bank = rest.iter().all(|n| BANKS.contains(n));
                is_bank && (!rest.is_empty() || last.get("type") == "emulator")
            }
            ("memory", []) => ["dimm", "virtio-mem"].contains(&device.get("model")) && !names_host,
            ("disk" | "rng" | "tpm" | "emulator", []) | ("channel", ["source", "clipboard" | "mouse"]) => !names_host,
            (name, _) => PLAIN.contains(&name) && !names_host && !inner.contains(&"source"),
        }
    }

    fn end(&mut self, kind: Document, path: &[Open]) -> Result<(), &'static str> {
        let names: Vec<&str> = path.iter().map(|o| o.name.as_str()).collect();
        let Some(last) = path.last() else { return Err(BROKEN) };
        let text = last.text.trim();
        let is_machine = matches!(kind, Document::Machine | Document::Start | Document::Domain);
        match names.as_slice() {
            ["domain", "uuid"] if is_machine => {
                let uuid = Uuid::try_parse(text).map_err(|_| "A machine's id cannot be read.")?;
                if self.uuid.replace(uuid).is_some() {
                    return Err("A machine has two ids.");
                }
            }
            ["domain", "devices", "emulator"] if is_machine && !is_emulator(text) => self.ask(Wish::Host),
            [.., "rng", "backend"] if !["", "/dev/urandom", "/dev/random"].contains(&text) => self.ask(Wish::Host),
            ["domain", "metadata", "tags"] if is_machine && last.is_ours => self.label(Label::Tags, text),
            ["domain", "metadata", "tags", _] if is_machine && path.get(2).is_some_and(|o| o.is_ours) => {
                self.label(Label::Tags, text);
            }
            ["domain", "metadata", "pool"] if is_machine && last.is_ours => self.label(Label::Pool, text),
            _ => {}
        }
        Ok(())
    }

    fn label(&mut self, which: Label, text: &str) {
        match which {
            Label::Tags => {
                self.tags.push(',');
                self.tags.push_str(text);
            }
            Label::Pool => self.pool.push_str(text),
        }
    }
}

const BROKEN: &str = "A description is no XML that the gateway can read.";

#[derive(Clone, Copy, PartialEq, Eq)]
enum Space {
    None,
    Ours,
    Foreign,
}

#[derive(Clone, Copy)]
enum Label {
    Tags,
    Pool,
}

fn is_part(device: &str, part: &str) -> bool {
    PARTS.iter().any(|(devices, parts)| devices.contains(&device) && parts.contains(&part))
}

fn is_root(kind: Document, name: &str) -> bool {
    match kind {
        Document::Machine | Document::Start | Document::Domain => name == "domain",
        Document::Device => true,
        Document::Disk => name == "disk",
        Document::Snapshot => name == "domainsnapshot",
        Document::Checkpoint => name == "domaincheckpoint",
        Document::Volume => name == "volume",
    }
}

/// The emulators that distributions install, by their full names.
fn is_emulator(path: &str) -> bool {
    let name = path.strip_prefix("/usr/bin/qemu-system-");
    let is_word = |n: &str| !n.is_empty() && n.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_');
    name.is_some_and(is_word) || ["/usr/bin/kvm", "/usr/bin/qemu-kvm", "/usr/libexec/qemu-kvm"].contains(&path)
}

/// Whether a screen listens to this host only.
fn is_here(address: &str) -> bool {
    ["", "127.0.0.1", "::1", "localhost"].contains(&address)
}

/// An element that begins. The daemon looks attributes up by their names without prefixes, and resolves references in
/// namespaces: where either could make it read something else than is read here, nothing is. What stands in `metadata`
/// (`is_free`) it keeps and does not read.
fn open(element: &BytesStart<'_>, is_ours: bool, is_free: bool) -> Result<Open, &'static str> {
    let mut attributes = BTreeMap::new();
    for attribute in element.attributes() {
        let attribute = attribute.map_err(|_| BROKEN)?;
        let name = attribute.key.as_ref().to_owned();
        let is_space = name == "xmlns" || name.starts_with("xmlns:");
        if is_space && attribute.value.contains('&') {
            return Err("A description writes a namespace with references.");
        }
        if name.contains(':') && !is_space && !is_free {
            return Err("A description has an attribute with a prefix.");
        }
        let value = attribute.normalized_value(XmlVersion::Implicit1_0).map_err(|_| BROKEN)?.into_owned();
        if attributes.insert(name, value).is_some() {
            return Err("A description has an attribute twice.");
        }
    }
    Ok(Open { name: element.local_name().as_ref().to_owned(), attributes, is_ours, text: String::new() })
}

/// Whether a namespace is read again as it was written: the daemon writes it into its files without escapes.
pub(super) fn is_plain_uri(uri: &str) -> bool {
    !uri.chars().any(|c| c.is_control() || c.is_whitespace() || matches!(c, '&' | '<' | '>' | '"' | '\''))
}

fn note(path: &mut [Open], text: &str) -> Result<(), &'static str> {
    match path.last_mut() {
        Some(open) => {
            open.text.push_str(text);
            Ok(())
        }
        None if text.trim().is_empty() => Ok(()),
        None => Err(BROKEN),
    }
}
