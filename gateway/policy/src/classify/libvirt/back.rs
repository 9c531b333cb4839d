// SPDX-License-Identifier: Apache-2.0
//! Going back to a snapshot, or on with memory that was saved: what of the machine that it describes is not there now, and
//! what that would ask.
//!
//! A description is taken apart into the elements of the domain and its devices, each in one form. One that the machine
//! has now, as it runs or as it is defined, asks nothing; any other asks what it would in a definition of the machine.

use super::{
    Place,
    document::{Read, Wish},
    file::Document,
};
use crate::classify::Verdict;
use portcullis_domain::{Action, MachineId, Operation, Resource};
use quick_xml::{
    XmlVersion,
    escape::escape,
    events::{BytesStart, Event},
    reader::Reader,
};
use std::collections::{BTreeMap, BTreeSet};

/// The largest description, in bytes, and how deep its elements may nest.
const MAX: usize = 2 * 1024 * 1024;
const MAX_DEPTH: usize = 64;

/// What the daemon writes into what runs, and so into what it saves, where a definition says nothing: that a disk's image
/// stands on no other one, and where all machines are.
const NO_BACKING: &str = "<backingStore>";
const PARTITION: &str = "<resource><partition>/machine</partition></resource>";

/// A domain as a description says it.
#[derive(Default)]
struct Described {
    /// The namespaces that its root declares.
    spaces: String,
    parts: BTreeSet<Part>,
}

/// An element of a domain or of its devices, in one form.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
struct Part {
    spaces: String,
    is_device: bool,
    text: String,
}

impl Described {
    /// The document of a domain that has nothing but some parts.
    fn document<'p>(&self, parts: impl Iterator<Item = &'p Part>) -> String {
        let (mut domain, mut devices) = (String::new(), String::new());
        for part in parts {
            if part.is_device { &mut devices } else { &mut domain }.push_str(&part.text);
        }
        format!("<domain{}>{domain}<devices>{devices}</devices></domain>", self.spaces)
    }
}

/// What going back to a snapshot of a machine asks, where `verdict` is what it asks if nothing is known of it, `now` holds
/// descriptions of the machine, and `snapshot` that of the snapshot. None where they cannot be compared.
pub fn going_back(place: Place<'_>, verdict: &Verdict, now: &[String], snapshot: &str) -> Option<Verdict> {
    asking(place, verdict, |id| news(id, place.labels, now, snapshot, 1))
}

/// What starting a machine asks, where `verdict` is what it asks if nothing is known of it, and `saved` describes with what
/// it goes on; none where its memory was not saved. None where they cannot be compared.
pub fn going_on(place: Place<'_>, verdict: &Verdict, now: &[String], saved: Option<&str>) -> Option<Verdict> {
    asking(place, verdict, |id| {
        saved.map_or_else(|| Some(BTreeSet::new()), |saved| news(id, place.labels, now, saved, 0))
    })
}

/// Whether a machine that goes on with what was saved has nothing that it has not now; no where that cannot be told.
/// `labels` is the namespace of the labels that grants speak of.
pub fn is_same(machine: &MachineId, labels: &str, now: &[String], saved: &str) -> bool {
    news(machine, labels, now, saved, 0).is_some_and(|wishes| wishes.is_empty())
}

/// A call with what is new about a machine asked for, too.
fn asking(
    place: Place<'_>,
    verdict: &Verdict,
    news: impl FnOnce(&MachineId) -> Option<BTreeSet<Wish>>,
) -> Option<Verdict> {
    let Verdict::Operation { operation, also, answer } = verdict else { return None };
    let Resource::Machine(at) = &operation.resource else { return None };
    let wishes = news(&at.machine)?;
    // What its flags ask of the machine stays; of the hypervisor it asked what could not be told.
    let mut also: Vec<_> = also.iter().filter(|o| matches!(o.resource, Resource::Machine(_))).cloned().collect();
    let configure = Operation { action: Action::Configure, ..operation.clone() };
    if !wishes.is_empty() && !also.contains(&configure) {
        also.push(configure);
    }
    let host = || Resource::Hypervisor(place.hypervisor.clone());
    let of = |wish: Wish| Operation { action: wish.action(), resource: host(), effect: operation.effect };
    also.extend(wishes.into_iter().map(of));
    Some(Verdict::Operation { operation: operation.clone(), also, answer: *answer })
}

/// What a description asks for, at a depth of a document, that a machine has not now; none where that cannot be told.
fn news(machine: &MachineId, labels: &str, now: &[String], text: &str, depth: usize) -> Option<BTreeSet<Wish>> {
    // What it says of this machine as a whole; another machine's says nothing.
    let whole = |domain: &Described| {
        let read = Read::of(Document::Domain, &domain.document(domain.parts.iter()), labels).ok()?;
        (read.uuid?.to_string() == machine.as_str()).then_some(read)
    };
    let (mut here, mut labelled) = (BTreeSet::new(), Vec::new());
    for text in now {
        for domain in read(text, 0)? {
            labelled.push(whole(&domain)?);
            here.extend(domain.parts);
        }
    }
    let then = read(text, depth)?;
    if then.is_empty() || labelled.is_empty() {
        return None;
    }
    let mut wishes = BTreeSet::new();
    for domain in &then {
        let read = whole(domain)?;
        if labelled.iter().any(|now| now.labels() != read.labels()) {
            wishes.insert(Wish::Labels);
        }
        let news = domain.document(domain.parts.difference(&here));
        wishes.extend(Read::of(Document::Domain, &news, labels).ok()?.asks);
    }
    Some(wishes)
}

/// The domains that stand at a depth of a document, taken apart; none where it cannot be read in one way.
fn read(text: &str, depth: usize) -> Option<Vec<Described>> {
    if text.len() > MAX {
        return None;
    }
    let mut reader = Reader::from_str(text);
    let (mut all, mut path) = (Vec::<Described>::new(), Vec::<String>::new());
    // Since which depth a part is written, and since which one nothing is.
    let (mut part, mut left): (Option<usize>, Option<usize>) = (None, None);
    let mut out = String::new();
    loop {
        let event = reader.read_event().ok()?;
        let is_empty = matches!(event, Event::Empty(_));
        match event {
            Event::Start(element) | Event::Empty(element) => {
                let name: String = element.name().as_ref().to_owned();
                let (at, attributes) = (path.len(), attributes(&element)?);
                if at >= MAX_DEPTH {
                    return None;
                }
                let is_inside = path.get(depth).is_some_and(|domain| is_domain(domain));
                if at == depth && is_domain(&name) {
                    all.push(Described { spaces: spaces(&attributes), parts: BTreeSet::new() });
                } else if at < depth && !spaces(&attributes).is_empty() {
                    // A prefix of a domain's own elements could be declared here.
                    return None;
                }
                let is_device = path.get(depth + 1).is_some_and(|name| name == "devices");
                let begins = at == depth + 1 && name != "devices" || at == depth + 2 && is_device;
                if is_inside && begins {
                    part = Some(at);
                    out.clear();
                }
                // The daemon numbers these itself.
                if part.is_some() && left.is_none() && name == "alias" {
                    left = Some(at);
                }
                if part.is_some() && left.is_none() {
                    begin(&mut out, &name, &attributes);
                }
                path.push(name);
                if is_empty {
                    end(&mut path, &mut out, &mut part, &mut left, &mut all, depth)?;
                }
            }
            Event::End(_) => end(&mut path, &mut out, &mut part, &mut left, &mut all, depth)?,
            Event::Text(text) => {
                let text = text.xml10_content();
                // What only moves elements to lines of their own.
                if !(text.trim().is_empty() && text.contains('\n')) {
                    note(&mut out, part, left, &text);
                }
            }
            Event::CData(text) => note(&mut out, part, left, &text.xml10_content()),
            Event::GeneralRef(name) => {
                let c = name.resolve_char_ref().ok()?.or(match &*name {
                    "amp" => Some('&'),
                    "lt" => Some('<'),
                    "gt" => Some('>'),
                    "quot" => Some('"'),
                    "apos" => Some('\''),
                    _ => None,
                })?;
                note(&mut out, part, left, c.encode_utf8(&mut [0; 4]));
            }
            Event::Comment(_) | Event::Decl(_) => {}
            Event::DocType(_) | Event::PI(_) => return None,
            Event::Eof => break,
        }
    }
    path.is_empty().then_some(all)
}

fn is_domain(name: &str) -> bool {
    ["domain", "inactiveDomain"].contains(&name)
}

fn end(
    path: &mut Vec<String>,
    out: &mut String,
    part: &mut Option<usize>,
    left: &mut Option<usize>,
    all: &mut [Described],
    depth: usize,
) -> Option<()> {
    let name = path.pop()?;
    let at = path.len();
    if part.is_some() && left.is_none() {
        if out.ends_with(NO_BACKING) && name == "backingStore" {
            out.truncate(out.len() - NO_BACKING.len());
        } else {
            out.push_str("</");
            out.push_str(&name);
            out.push('>');
        }
    }
    if *left == Some(at) {
        *left = None;
    }
    if *part == Some(at) {
        let domain = all.last_mut()?;
        let (spaces, text) = (domain.spaces.clone(), std::mem::take(out));
        if text != PARTITION {
            domain.parts.insert(Part { spaces, is_device: at == depth + 2, text });
        }
        *part = None;
    }
    Some(())
}

fn note(out: &mut String, part: Option<usize>, left: Option<usize>, text: &str) {
    if part.is_some() && left.is_none() {
        out.push_str(&escape(text));
    }
}

fn begin(out: &mut String, name: &str, attributes: &BTreeMap<String, String>) {
    out.push('<');
    out.push_str(name);
    for (key, value) in attributes {
        // A disk's images are numbered, and a terminal is chosen, as the machine starts.
        let is_own =
            name == "source" && key == "index" || ["path", "tty"].contains(&key.as_str()) && is_terminal(value);
        if !is_own {
            attribute(out, key, value);
        }
    }
    out.push('>');
}

fn attribute(out: &mut String, key: &str, value: &str) {
    out.push(' ');
    out.push_str(key);
    out.push_str("=\"");
    out.push_str(&escape(value));
    out.push('"');
}

fn is_terminal(path: &str) -> bool {
    path.strip_prefix("/dev/pts/").is_some_and(|n| !n.is_empty() && n.bytes().all(|b| b.is_ascii_digit()))
}

fn attributes(element: &BytesStart<'_>) -> Option<BTreeMap<String, String>> {
    let mut all = BTreeMap::new();
    for attribute in element.attributes() {
        let attribute = attribute.ok()?;
        let value = attribute.normalized_value(XmlVersion::Implicit1_0).ok()?.into_owned();
        if all.insert(attribute.key.as_ref().to_owned(), value).is_some() {
            return None;
        }
    }
    Some(all)
}

/// The namespaces that an element declares, as they are written.
fn spaces(attributes: &BTreeMap<String, String>) -> String {
    let mut out = String::new();
    for (key, value) in attributes.iter().filter(|(key, _)| *key == "xmlns" || key.starts_with("xmlns:")) {
        attribute(&mut out, key, value);
    }
    out
}

#[cfg(test)]
mod tests {
    use super::{super::Procedures, *};
    use crate::classify::xdr::Writer;
    use portcullis_domain::{HypervisorName, Inventory};
    use uuid::Uuid;

    const LABELS: &str = "urn:l";
    const ID: &str = "00000000-0000-0000-0000-000000000001";

    /// What the machine is now, with some devices and more of the domain.
    fn domain(root: &str, labels: &str, devices: &str, more: &str) -> String {
        format!(
            "<{root} type='kvm' id='3'>\n  <name>web</name><uuid>{ID}</uuid>\n  <memory unit='KiB'>1024</memory>\
             <metadata><l:tags xmlns:l='{LABELS}'>{labels}</l:tags></metadata>{more}<devices>\n    {devices}</devices></{root}>"
        )
    }

    const DISK: &str = "<disk type='file' device='disk'><driver name='qemu' type='qcow2'/><source file='/v/a' index='1'/>\
                        <target dev='vda'/><alias name='virtio-disk0'/></disk>";
    const NET: &str = "<interface type='network'><source network='default'/><target dev='vnet3'/></interface>";

    /// What going back to a snapshot with these documents asks.
    fn back(now: &[String], snapshot: &str) -> String {
        let hypervisor: HypervisorName = "kvm".parse().unwrap();
        let inventory = Inventory::default();
        let place = Place { hypervisor: &hypervisor, inventory: &inventory, labels: LABELS };
        let id = Uuid::try_parse(ID).unwrap();
        let arguments = Writer::default().opaque(b"s0").opaque(b"web").raw(id.as_bytes()).word(0).word(0).done();
        let all = Procedures::builtin();
        let number = all.known().find(|k| k.name == "DOMAIN_REVERT_TO_SNAPSHOT").unwrap().number;
        let call = all.classify(place, number.0, number.1, &arguments);
        assert_eq!((call.way, call.text.as_deref()), (super::super::Way::Back, Some("s0")));
        match going_back(place, &call.verdict, now, snapshot).unwrap_or(call.verdict) {
            Verdict::Operation { operation, also, .. } => {
                let all = std::iter::once(&operation).chain(&also).map(ToString::to_string);
                all.collect::<Vec<_>>().join(", ").replace(ID, "web")
            }
            other => format!("{other:?}"),
        }
    }

    fn snapshot(inside: &str) -> String {
        format!("<domainsnapshot><name>s0</name><state>running</state>{inside}</domainsnapshot>")
    }

    const PLAIN: &str = "snapshot on kvm/web";
    const STRICT: &str = "snapshot on kvm/web, access-admin on kvm, node-admin on kvm";

    #[test]
    fn going_back_to_what_is_there_asks_for_the_snapshot_alone() {
        let now = [domain("domain", "web", &format!("{DISK}{NET}"), "")];
        assert_eq!(back(&now, &snapshot(&domain("domain", "web", &format!("{DISK}{NET}"), ""))), PLAIN);
        // What the daemon numbers itself, what stays within the machine, and what is gone.
        let other = DISK.replace("index='1'", "index='4'").replace("virtio-disk0", "virtio-disk7");
        let less = domain("domain", "web", &other, "").replace("1024", "2048").replace("id='3'", "id='9'");
        assert_eq!(back(&now, &snapshot(&less)), PLAIN);
        let terminal = |n: u8| format!("<serial type='pty'><source path='/dev/pts/{n}'/><target port='0'/></serial>");
        let lines = DISK.replace('>', ">\n      ").replace("<source", "  <source");
        assert_eq!(back(&now, &snapshot(&domain("domain", "web", &lines, ""))), PLAIN);
        let now = [domain("domain", "web", &terminal(3), "")];
        assert_eq!(back(&now, &snapshot(&domain("domain", "web", &terminal(4), ""))), PLAIN);
    }

    #[test]
    fn what_is_not_there_now_is_asked_for() {
        let now = [domain("domain", "web", &format!("{DISK}{NET}"), "")];
        let to =
            |labels: &str, devices: &str, more: &str| back(&now, &snapshot(&domain("domain", labels, devices, more)));
        let asks = |what: &str| format!("{PLAIN}, configure on kvm/web, {what}");
        assert_eq!(to("web,pay", DISK, ""), asks("access-admin on kvm"));
        assert_eq!(to("", DISK, ""), asks("access-admin on kvm"));
        assert_eq!(to("web", "<hostdev mode='subsystem' type='pci'/>", ""), asks("node-admin on kvm"));
        assert_eq!(to("web", &DISK.replace("/v/a", "/etc/shadow"), ""), asks("node-admin on kvm"));
        // The same file, but to be written: a device is compared whole.
        let written = [domain("domain", "web", &DISK.replace("<target", "<readonly/><target"), "")];
        assert_eq!(back(&written, &snapshot(&domain("domain", "web", DISK, ""))), asks("node-admin on kvm"));
        assert_eq!(to("web", &NET.replace("default", "dmz"), ""), asks("network on kvm"));
        assert_eq!(to("web", DISK, "<seclabel type='none'/>"), asks("node-admin on kvm"));
        // What it is when it starts anew counts as well.
        let both = [domain("domain", "web", DISK, ""), domain("inactiveDomain", "web", "<hostdev/>", "")].concat();
        assert_eq!(back(&now, &snapshot(&both)), asks("node-admin on kvm"));
        let both = [domain("domain", "web", DISK, ""), domain("inactiveDomain", "pay", DISK, "")].concat();
        assert_eq!(back(&now, &snapshot(&both)), asks("access-admin on kvm"));
        // Labels that are changed and not in effect yet are changed.
        let now = [now[0].clone(), domain("domain", "web,new", DISK, "")];
        assert_eq!(back(&now, &snapshot(&domain("domain", "web", DISK, ""))), asks("access-admin on kvm"));
    }

    #[test]
    fn what_cannot_be_compared_asks_for_everything() {
        let same = domain("domain", "web", DISK, "");
        let now = [same.clone()];
        for wrong in [
            String::new(),
            "<domainsnapshot".to_owned(),
            snapshot(""),
            same.clone(),
            snapshot(&same.replace(ID, "00000000-0000-0000-0000-000000000002")),
            snapshot(&same.replace("<memory", "<uuid>00000000-0000-0000-0000-000000000002</uuid><memory")),
            snapshot(&same.replace("<memory", "<!DOCTYPE x><memory")),
            snapshot(&same.replace("<memory", "&unknown;<memory")),
            snapshot(&same).replace("<domainsnapshot", "<domainsnapshot xmlns:l='urn:l'"),
            snapshot(&format!("{same}{}{}", "<a>".repeat(100), "</a>".repeat(100))),
        ] {
            assert_eq!(back(&now, &wrong), STRICT, "{wrong}");
        }
        assert_eq!(back(&["<domain".to_owned()], &snapshot(&same)), STRICT);
        assert_eq!(back(&[same.replace(ID, "00000000-0000-0000-0000-000000000002")], &snapshot(&same)), STRICT);
        assert_eq!(back(&[], &snapshot(&same)), STRICT);
    }

    /// What starting the machine asks with these flags.
    fn on(flags: u32, now: &[String], saved: Option<&str>) -> String {
        let hypervisor: HypervisorName = "kvm".parse().unwrap();
        let inventory = Inventory::default();
        let place = Place { hypervisor: &hypervisor, inventory: &inventory, labels: LABELS };
        let id = Uuid::try_parse(ID).unwrap();
        let arguments = Writer::default().opaque(b"web").raw(id.as_bytes()).word(u32::MAX).word(flags).done();
        let all = Procedures::builtin();
        let number = all.known().find(|k| k.name == "DOMAIN_CREATE_WITH_FLAGS").unwrap().number;
        let call = all.classify(place, number.0, number.1, &arguments);
        assert_eq!((call.way, call.number), (super::super::Way::On, flags));
        match going_on(place, &call.verdict, now, saved).unwrap_or(call.verdict) {
            Verdict::Operation { operation, also, .. } => {
                let all = std::iter::once(&operation).chain(&also).map(ToString::to_string);
                all.collect::<Vec<_>>().join(", ").replace(ID, "web")
            }
            other => format!("{other:?}"),
        }
    }

    #[test]
    fn going_on_with_saved_memory_asks_for_what_was_taken_away_since() {
        let same = domain("domain", "web", &format!("{DISK}{NET}"), "");
        let now = [same.clone(), same.clone()];
        let plain = "power on kvm/web";
        assert_eq!(on(0, &now, None), plain, "nothing was saved");
        assert_eq!(on(0, &now, Some(&same)), plain);
        assert_eq!(on(0, &now, Some(&domain("domain", "web", DISK, "").replace("1024", "2048"))), plain, "less");
        // What the daemon adds itself to what runs.
        let disk = DISK.replace("<alias", "<backingStore/><alias");
        let added = "<resource>\n    <partition>/machine</partition>\n  </resource>";
        assert_eq!(on(0, &now, Some(&domain("domain", "web", &disk, added))), plain);
        let asks = |what: &str| format!("{plain}, configure on kvm/web, {what}");
        let chain = "<backingStore type='file'><source file='/etc/shadow'/><backingStore/></backingStore><alias";
        for (saved, what) in [
            (domain("domain", "web", &DISK.replace("<alias", chain), ""), "node-admin on kvm"),
            (domain("domain", "web", DISK, &added.replace("/machine", "/other")), "node-admin on kvm"),
            (domain("domain", "web,pay", DISK, ""), "access-admin on kvm"),
            (domain("domain", "web", "<hostdev mode='subsystem' type='usb'/>", ""), "node-admin on kvm"),
            (domain("domain", "web", &DISK.replace("/v/a", "/dev/sdb"), ""), "node-admin on kvm"),
            (domain("domain", "web", &NET.replace("default", "dmz"), ""), "network on kvm"),
            (domain("domain", "web", DISK, "<os><kernel>/k</kernel></os>"), "node-admin on kvm"),
        ] {
            assert_eq!(on(0, &now, Some(&saved)), asks(what), "{saved}");
            // A flag that asks for more of the machine still does, once.
            assert_eq!(on(32, &now, Some(&saved)), asks(what), "{saved}");
        }
        assert_eq!(on(32, &now, None), format!("{plain}, configure on kvm/web"));
        let strict = format!("{plain}, access-admin on kvm, node-admin on kvm");
        for wrong in [String::new(), "<domain".to_owned(), same.replace(ID, "00000000-0000-0000-0000-000000000002")] {
            assert_eq!(on(0, &now, Some(&wrong)), strict, "{wrong}");
        }
        assert_eq!(on(0, &[], Some(&same)), strict);
        let id: MachineId = ID.parse().unwrap();
        assert!(is_same(&id, LABELS, &now, &same));
        for other in [domain("domain", "pay", DISK, ""), String::new()] {
            assert!(!is_same(&id, LABELS, &now, &other), "{other}");
        }
    }

    proptest::proptest! {
        #[test]
        fn no_text_makes_it_panic(text in "\\PC*", depth in 0usize..2) {
            let _ = read(&text, depth);
        }
    }
}
