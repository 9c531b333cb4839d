// SPDX-License-Identifier: Apache-2.0
//! The reviewed table of libvirt's procedures, documents that reach further than their machine, and hostile bytes.

use super::*;
use portcullis_domain::{ConsoleKind, Machine, MachineKind, PowerState};
use std::fmt::Write as _;

const REMOTE: u32 = 0x2000_8086;
const QEMU: u32 = 0x2000_8087;
const LABELS: &str = "urn:portcullis:1";
const ID: &str = "11111111-2222-4333-8444-555555555555";

fn own() -> MachineRef {
    format!("kvm/{ID}").parse().unwrap()
}

fn inventory() -> Inventory {
    Inventory::new([Machine {
        at: own(),
        name: "web-1".into(),
        kind: MachineKind::Guest,
        state: PowerState::Running,
        pool: Some("blue".into()),
        tags: vec!["db".into(), "web".into()],
        node: None,
        console: ConsoleKind::Vnc,
    }])
}

fn number(name: &str) -> (u32, u32) {
    Procedures::builtin().known().find(|k| k.name == name).unwrap_or_else(|| panic!("{name}")).number
}

/// What a call asks, in words: `action resource, …`, or why it is denied.
fn asks(name: &str, arguments: Writer) -> String {
    let (inventory, hypervisor) = (inventory(), "kvm".parse().unwrap());
    let place = Place { hypervisor: &hypervisor, inventory: &inventory, labels: LABELS };
    let (program, number) = number(name);
    match Procedures::builtin().classify(place, program, number, &arguments.done()).verdict {
        Verdict::Operation { operation, also, .. } => {
            let all: Vec<String> = std::iter::once(&operation).chain(&also).map(ToString::to_string).collect();
            all.join(", ").replace(ID, "web-1")
        }
        Verdict::Visible { .. } => "what is visible".to_owned(),
        Verdict::Denied(why) => format!("denied: {why}"),
        Verdict::Unread => "own".to_owned(),
        Verdict::Task { .. } => "a task".to_owned(),
    }
}

fn domain() -> Writer {
    domain_of(ID)
}

fn domain_of(id: &str) -> Writer {
    Writer::default().opaque(b"web-1").raw(Uuid::try_parse(id).unwrap().as_bytes()).number(7)
}

fn text(text: &str) -> Writer {
    Writer::default().opaque(text.as_bytes())
}

#[test]
fn every_procedure_has_a_verdict() {
    let procedures = Procedures::read(TABLE, LIST).expect("a good table");
    let mut counts: BTreeMap<String, usize> = BTreeMap::new();
    for known in procedures.known() {
        assert_ne!(known.verdict, "missing", "{}", known.name);
        let of = known.action.map_or_else(|| known.verdict.to_owned(), |a| a.to_string());
        *counts.entry(of).or_default() += 1;
    }
    let mut table = String::new();
    for (of, count) in &counts {
        writeln!(table, "{count:4} {of}").unwrap();
    }
    println!("{table}");
    assert_eq!(counts.values().sum::<usize>(), 461, "453 + 7 + 1 of libvirt 11.3.0");
    // One that stands in the list and not in the table is found.
    let more = format!("{LIST}remote 454 DOMAIN_DO_ANYTHING : dom:domain flags:u32 >\n");
    let error = Procedures::read(TABLE, &more).unwrap_err().to_string();
    assert!(error.contains("DOMAIN_DO_ANYTHING has no verdict"), "{error}");
}

#[test]
fn nothing_that_sets_is_a_view_and_nothing_that_shows_is_a_change() {
    let changes = [
        "SET_",
        "CREATE",
        "DEFINE",
        "DELETE",
        "DESTROY",
        "ATTACH",
        "DETACH",
        "UPDATE",
        "PIN_",
        "RESIZE",
        "REBOOT",
        "SHUTDOWN",
        "RESUME",
        "SUSPEND",
        "SAVE",
        "RESTORE",
        "MIGRATE_PERFORM",
        "REVERT",
        "UNDEFINE",
        "WIPE",
        "UPLOAD",
        "DOWNLOAD",
        "RENAME",
        "INJECT",
        "SEND_",
        "COMMIT",
        "PULL",
        "COPY",
        "REBASE",
        "ABORT",
        "BUILD",
        "REFRESH",
        "FSFREEZE",
        "FSTHAW",
        "FSTRIM",
        "PASSWORD",
        "PEEK",
        "DUMP",
        "OPEN_CONSOLE",
        "OPEN_CHANNEL",
        "SCREENSHOT",
        "ALLOC",
    ];
    // Names that only sound like it.
    let harmless = ["DOMAIN_HAS_MANAGED_SAVE_IMAGE", "DOMAIN_IS_UPDATED"];
    for known in Procedures::builtin().known().filter(|k| k.verdict == "asked") {
        let only_sounds = ["_GET_", "_LIST_", "_NUM_OF_"].iter().any(|word| known.name.contains(word));
        let sounds = changes.iter().any(|word| known.name.contains(word)) && !only_sounds;
        if sounds && !harmless.contains(&known.name.as_str()) {
            assert_eq!(known.effect, Effect::Unsafe, "{}", known.name);
            assert_ne!(known.action, Some(Action::View), "{}", known.name);
        }
        if known.action == Some(Action::View) {
            assert_eq!(known.effect, Effect::Safe, "{}", known.name);
        }
    }
    // The daemon labels it as a read.
    assert_eq!(asks("DOMAIN_SET_SCHEDULER_PARAMETERS", domain().word(0)), "configure on kvm/web-1");
}

#[test]
fn a_table_that_could_let_something_through_is_refused() {
    let row = |text: &str| {
        let table = format!("api = \"x\"\n[events]\nown = []\nnever = []\n[[rule]]\n{text}");
        Procedures::read(&table, LIST).unwrap_err().to_string()
    };
    for (text, wanted) in [
        (
            "calls = [\"DOMAIN_CREATE\"]\naction = \"power\"\nobject = \"hypervisor\"\neffect = \"unsafe\"",
            "names a machine",
        ),
        ("calls = [\"NODE_GET_INFO\"]\naction = \"view\"\nobject = \"machine\"\neffect = \"safe\"", "one machine"),
        ("calls = [\"DOMAIN_REBOOT\"]\naction = \"power\"\nobject = \"machine\"\neffect = \"unsafe\"", "flags"),
        (
            "calls = [\"DOMAIN_REBOOT\"]\naction = \"power\"\nobject = \"machine\"\neffect = \"unsafe\"\nflags = \"any\"",
            "flags are bits",
        ),
        ("calls = [\"DOMAIN_NONE\"]\ndeny = \"no\"", "is no procedure"),
        ("calls = [\"DOMAIN_EVENT_REBOOT\"]\ndeny = \"no\"", "is an event"),
        ("calls = [\"DOMAIN_CREATE\", \"DOMAIN_CREATE\"]\ndeny = \"no\"", "twice"),
        ("calls = [\"DOMAIN_CREATE\"]\ndeny = \"no\"\naction = \"view\"", "says why"),
        (
            "calls = [\"DOMAIN_CREATE\"]\naction = \"create\"\nobject = \"machine\"\neffect = \"unsafe\"",
            "cannot be asked",
        ),
        (
            "calls = [\"DOMAIN_SAVE\"]\naction = \"power\"\nobject = \"machine\"\neffect = \"unsafe\"\npaths = [\"x\"]",
            "no call",
        ),
        (
            "calls = [\"CONNECT_LIST_ALL_DOMAINS\"]\naction = \"view\"\nobject = \"hypervisor\"\neffect = \"safe\"\n\
             flags = \"any\"\nway = \"list\"",
            "left out",
        ),
        (
            "calls = [\"DOMAIN_OPEN_CONSOLE\"]\naction = \"console.view\"\nobject = \"machine\"\neffect = \"safe\"\n\
             flags = 0\nway = \"stream-both\"",
            "a stream is not safe",
        ),
        ("calls = [\"DOMAIN_CREATE\"]\ndeny = \"no\"\ncolour = 1", "colour"),
    ] {
        let error = row(text);
        assert!(error.contains(wanted), "{text}: {error}");
    }
}

#[test]
fn calls_ask_for_what_they_do() {
    let flags = |bits: u32| domain().word(bits);
    for (name, arguments, wanted) in [
        ("DOMAIN_GET_INFO", domain(), "view on kvm/web-1"),
        ("DOMAIN_GET_XML_DESC", flags(0), "view on kvm/web-1"),
        ("DOMAIN_GET_XML_DESC", flags(2), "view on kvm/web-1"),
        ("DOMAIN_GET_XML_DESC", flags(1), "view on kvm/web-1"),
        ("DOMAIN_GET_XML_DESC", flags(8), "denied: The gateway gives no passwords"),
        ("DOMAIN_GET_XML_DESC", flags(16), "denied: The gateway does not pass on a flag"),
        ("DOMAIN_GET_VCPUS_FLAGS", flags(1), "view on kvm/web-1"),
        ("DOMAIN_GET_VCPUS_FLAGS", flags(8), "view on kvm/web-1, configure on kvm/web-1"),
        // What comes back with memory that was saved is looked at.
        ("DOMAIN_CREATE", domain(), "power on kvm/web-1, access-admin on kvm, node-admin on kvm"),
        ("DOMAIN_CREATE_WITH_FLAGS", flags(1), "power on kvm/web-1, access-admin on kvm, node-admin on kvm"),
        ("DOMAIN_CREATE_WITH_FLAGS", flags(2), "denied"),
        (
            "DOMAIN_CREATE_WITH_FLAGS",
            flags(32),
            "power on kvm/web-1, access-admin on kvm, node-admin on kvm, configure on kvm/web-1",
        ),
        ("DOMAIN_RESTORE", text("/f"), "create on kvm, node-admin on kvm, access-admin on kvm"),
        ("DOMAIN_UNDEFINE_FLAGS", flags(4), "destroy on kvm/web-1"),
        ("DOMAIN_UNDEFINE_FLAGS", flags(128), "denied"),
        ("DOMAIN_SAVE", domain().opaque(b"/x"), "power on kvm/web-1, node-admin on kvm"),
        ("DOMAIN_CORE_DUMP", domain().opaque(b"/x").word(0), "guest-exec on kvm/web-1, node-admin on kvm"),
        (
            "DOMAIN_SET_METADATA",
            domain().word(1).optional(Some("x")).optional(None).optional(None).word(0),
            "configure on kvm/web-1",
        ),
        (
            "DOMAIN_SET_METADATA",
            domain().word(2).optional(Some("x")).optional(Some("k")).optional(Some(LABELS)).word(0),
            "configure on kvm/web-1, access-admin on kvm",
        ),
        ("CONNECT_LIST_ALL_DOMAINS", Writer::default().word(1).word(0), "what is visible"),
        ("CONNECT_GET_ALL_DOMAIN_STATS", Writer::default().word(0).word(0).word(0), "what is visible"),
        (
            "CONNECT_GET_ALL_DOMAIN_STATS",
            Writer::default().word(1).raw(&domain().done()).word(0).word(0),
            "view on kvm/web-1",
        ),
        ("CONNECT_DOMAIN_EVENT_CALLBACK_REGISTER_ANY", Writer::default().word(0).word(0), "what is visible"),
        (
            "CONNECT_DOMAIN_EVENT_CALLBACK_REGISTER_ANY",
            Writer::default().word(0).word(1).raw(&domain().done()),
            "view on kvm/web-1",
        ),
        (
            "DOMAIN_REVERT_TO_SNAPSHOT",
            text("s").raw(&domain().done()).word(0),
            "snapshot on kvm/web-1, access-admin on kvm, node-admin on kvm",
        ),
        ("DOMAIN_SNAPSHOT_DELETE", text("s").raw(&domain().done()).word(0), "snapshot on kvm/web-1"),
        ("DOMAIN_OPEN_CONSOLE", domain().optional(None).word(0), "console.control on kvm/web-1"),
        (
            "DOMAIN_OPEN_CONSOLE",
            domain().optional(None).word(1),
            "console.control on kvm/web-1, console.takeover on kvm/web-1",
        ),
        ("DOMAIN_OPEN_CHANNEL", domain().optional(None).word(1), "denied"),
        ("DOMAIN_SCREENSHOT", domain().word(0).word(0), "console.screenshot on kvm/web-1"),
        ("CONNECT_GET_DOMAIN_CAPABILITIES", four(None).word(0), "view on kvm"),
        ("CONNECT_GET_DOMAIN_CAPABILITIES", four(Some("/tmp/x")).word(0), "view on kvm, node-admin on kvm"),
        ("SECRET_GET_VALUE", Writer::default().raw(&[0; 16]).word(0).opaque(b"").word(0), "denied"),
        ("STORAGE_POOL_DEFINE_XML", text("<pool/>").word(0), "storage on kvm, node-admin on kvm"),
        ("AUTH_LIST", Writer::default(), "own"),
        ("CONNECT_CLOSE", Writer::default(), "own"),
        ("qemu:DOMAIN_MONITOR_COMMAND", domain().opaque(b"quit").word(0), "denied: QEMU's monitor"),
        ("qemu:DOMAIN_AGENT_COMMAND", domain().opaque(b"{}").word(5).word(0), "guest-exec on kvm/web-1"),
        ("DOMAIN_OPEN_GRAPHICS", domain().word(0).word(0), "denied"),
        ("DOMAIN_MIGRATE_BEGIN3_PARAMS", domain().word(0).word(0), "denied: Only a peer-to-peer"),
        (
            "DOMAIN_MIGRATE_PERFORM3_PARAMS",
            domain().optional(Some("x")).word(0).word(0).word(1),
            "denied: Only a peer-to-peer",
        ),
        (
            "DOMAIN_MIGRATE_PERFORM3_PARAMS",
            domain().optional(Some("x")).word(0).word(0).word(3),
            "migrate on kvm/web-1, node-admin on kvm",
        ),
    ] {
        let said = asks(name, arguments);
        let is_right = if wanted.starts_with("denied") { said.starts_with(wanted) } else { said == wanted };
        assert!(is_right, "{name}: {said}, and not {wanted}");
    }
}

fn four(first: Option<&str>) -> Writer {
    Writer::default().optional(first).optional(None).optional(None).optional(None)
}

#[test]
fn what_is_not_known_or_has_another_form_is_denied() {
    let (inventory, hypervisor) = (inventory(), "kvm".parse().unwrap());
    let place = Place { hypervisor: &hypervisor, inventory: &inventory, labels: LABELS };
    let denied = |program: u32, number: u32, bytes: &[u8]| {
        matches!(Procedures::builtin().classify(place, program, number, bytes).verdict, Verdict::Denied(_))
    };
    for (program, number) in [(REMOTE, 0), (REMOTE, 454), (REMOTE, u32::MAX), (QEMU, 8), (0x6b65_6570, 1), (1, 1)] {
        assert!(denied(program, number, &[]), "{program:x} {number}");
    }
    let good = domain().done();
    assert!(!denied(REMOTE, 9, &good));
    let more = [&good[..], &[0; 4]].concat();
    for bad in [&good[..good.len() - 1], &more, &[]] {
        assert!(denied(REMOTE, 9, bad), "{bad:?}");
    }
    let mut padded = good.clone();
    padded[9] = 1;
    assert!(denied(REMOTE, 9, &padded), "a byte in the padding");
    let ended = Writer::default().opaque(b"a\0b").raw(&[1; 16]).word(1).done();
    assert!(denied(REMOTE, 9, &ended), "a name that ends in its middle");
    assert!(denied(REMOTE, 107, &[]), "an event is no call");
}

proptest::proptest! {
    #![proptest_config(proptest::prelude::ProptestConfig::with_cases(2000))]
    #[test]
    fn no_bytes_make_it_panic(number in 0u32..460, bytes: Vec<u8>) {
        let (inventory, hypervisor) = (inventory(), "kvm".parse().unwrap());
        let place = Place { hypervisor: &hypervisor, inventory: &inventory, labels: LABELS };
        let _ = Procedures::builtin().classify(place, REMOTE, number, &bytes);
        let _ = Procedures::builtin().about(&hypervisor, REMOTE, number, &bytes);
        let _ = Procedures::builtin().keep((REMOTE, number), &bytes, |_| true);
    }

    #[test]
    fn no_text_makes_the_reader_of_documents_panic(text in "\\PC*") {
        for kind in [Document::Machine, Document::Device, Document::Snapshot, Document::Volume] {
            let _ = Read::of(kind, &text, LABELS);
        }
    }
}

/// What a definition of a machine asks.
fn defines(inner: &str) -> String {
    asks("DOMAIN_DEFINE_XML_FLAGS", text(&format!("<domain type='qemu'><name>x</name>{inner}</domain>")).word(0))
}

#[test]
fn a_machine_that_is_there_is_changed_and_a_new_one_is_made() {
    let labels = format!(
        "<metadata><p:pool xmlns:p='{LABELS}'>blue</p:pool><p:tags xmlns:p='{LABELS}'>web,<p:tag>db</p:tag></p:tags></metadata>"
    );
    assert_eq!(defines(""), "create on kvm");
    assert_eq!(defines(&format!("<uuid>{ID}</uuid>{labels}")), "configure on kvm/web-1");
    assert_eq!(defines("<uuid>22222222-2222-4333-8444-555555555555</uuid>"), "create on kvm");
    // Its labels say who may see it.
    assert_eq!(defines(&labels), "create on kvm, access-admin on kvm");
    assert_eq!(
        defines(&format!("<uuid>{ID}</uuid>")),
        "configure on kvm/web-1, access-admin on kvm",
        "they are taken off"
    );
    let other = labels.replace("web,", "web,red,");
    assert_eq!(defines(&format!("<uuid>{ID}</uuid>{other}")), "configure on kvm/web-1, access-admin on kvm");
    let said = "<?xml version='1.0' encoding='utf-8'?><domain type='qemu'><name>x</name></domain>";
    assert_eq!(asks("DOMAIN_DEFINE_XML_FLAGS", text(said).word(0)), "create on kvm");
    assert_eq!(
        defines("<metadata><o:a xmlns:o='urn:o' o:b='c'/></metadata>"),
        "create on kvm",
        "what others keep there is theirs"
    );
    for bad in ["<uuid>x</uuid>", &format!("<uuid>{ID}</uuid><uuid>{ID}</uuid>")] {
        assert!(defines(bad).starts_with("denied"), "{bad}");
    }
    let start = |inner: &str| asks("DOMAIN_CREATE_XML", text(&format!("<domain>{inner}{labels}</domain>")).word(0));
    assert_eq!(
        start(&format!("<uuid>{ID}</uuid>")),
        "create on kvm, configure on kvm/web-1, power on kvm/web-1",
        "what runs as another machine changes that one"
    );
}

#[test]
fn what_reaches_the_host_is_for_who_may_change_the_host() {
    let plain = "<memory>1</memory><vcpu>1</vcpu><os><type arch='x86_64'>hvm</type><boot dev='hd'/></os><features><acpi/></features>
        <cpu mode='host-model'/><clock offset='utc'/><on_reboot>restart</on_reboot><devices>
        <emulator>/usr/bin/qemu-system-x86_64</emulator><disk type='file' device='cdrom'><target dev='sda' bus='sata'/><readonly/></disk>
        <controller type='usb' model='qemu-xhci'><address type='pci'/></controller><serial type='pty'><target port='0'/></serial>
        <console type='pty'/><channel type='unix'><target type='virtio' name='org.qemu.guest_agent.0'/></channel>
        <input type='tablet' bus='usb'/><graphics type='vnc' autoport='yes' listen='127.0.0.1'><listen type='address' address='127.0.0.1'/></graphics>
        <video><model type='vga'/></video><memballoon model='virtio'/><rng model='virtio'><backend model='random'>/dev/urandom</backend></rng>
        <tpm model='tpm-crb'><backend type='emulator' version='2.0'/></tpm></devices>";
    assert_eq!(defines(plain), "create on kvm");
    for (inner, wanted) in [
        ("<devices><disk type='volume'><source pool='p' volume='v'/><target dev='vda'/></disk></devices>", "storage"),
        (
            "<devices><interface type='network'><source network='default'/><model type='virtio'/></interface></devices>",
            "network",
        ),
        ("<devices><interface type='bridge'><source bridge='br0'/></interface></devices>", "network"),
        ("<devices><disk type='file'><source file='/etc/shadow'/><target dev='vda'/></disk></devices>", "node-admin"),
        ("<devices><disk type='block'><source dev='/dev/sda'/></disk></devices>", "node-admin"),
        ("<devices><disk type='volume'><source pool='p' volume='v' file='/x'/></disk></devices>", "node-admin"),
        ("<devices><disk type='file'><backingStore><source file='/x'/></backingStore></disk></devices>", "node-admin"),
        (
            "<devices><disk type='network'><source protocol='nbd' name='x'><host name='h'/></source></disk></devices>",
            "node-admin",
        ),
        ("<devices><hostdev mode='subsystem' type='pci'><source/></hostdev></devices>", "node-admin"),
        ("<devices><filesystem type='mount'><source dir='/'/></filesystem></devices>", "node-admin"),
        ("<devices><emulator>/tmp/evil</emulator></devices>", "node-admin"),
        ("<devices><emulator>/usr/bin/qemu-system-../evil</emulator></devices>", "node-admin"),
        ("<devices><graphics type='vnc' listen='0.0.0.0'/></devices>", "node-admin"),
        ("<devices><graphics type='vnc' passwd='x'/></devices>", "node-admin"),
        ("<devices><graphics type='vnc' socket='/tmp/x'/></devices>", "node-admin"),
        (
            "<devices><graphics type='vnc'><listen type='address' address='10.0.0.1'/></graphics></devices>",
            "node-admin",
        ),
        ("<devices><graphics type='vnc'><listen type='network' network='default'/></graphics></devices>", "node-admin"),
        ("<devices><serial type='file'><source path='/etc/cron.d/x'/></serial></devices>", "node-admin"),
        (
            "<devices><serial type='tcp'><source mode='bind' host='0.0.0.0' service='1'/></serial></devices>",
            "node-admin",
        ),
        ("<devices><serial type='pty'><log file='/etc/x'/></serial></devices>", "node-admin"),
        ("<devices><channel type='unix'><source mode='bind' path='/tmp/x'/></channel></devices>", "node-admin"),
        (
            "<devices><interface type='network'><source network='n'/><script path='/x'/></interface></devices>",
            "node-admin",
        ),
        ("<devices><interface type='direct'><source dev='eth0'/></interface></devices>", "node-admin"),
        ("<devices><input type='evdev'><source dev='/dev/input/event0'/></input></devices>", "node-admin"),
        ("<devices><rng model='virtio'><backend model='random'>/etc/shadow</backend></rng></devices>", "node-admin"),
        (
            "<devices><rng model='virtio'><backend model='egd' type='tcp'><source mode='connect' host='h'/></backend></rng></devices>",
            "node-admin",
        ),
        (
            "<devices><tpm><backend type='passthrough'><device path='/dev/tpm0'/></backend></tpm></devices>",
            "node-admin",
        ),
        (
            "<devices><video><model type='virtio'><acceleration rendernode='/dev/dri/x'/></model></video></devices>",
            "node-admin",
        ),
        ("<devices><memory model='nvdimm'><source><path>/x</path></source></memory></devices>", "node-admin"),
        ("<devices><shmem name='x'/></devices>", "node-admin"),
        ("<devices><newdevice/></devices>", "node-admin"),
        ("<os><type>hvm</type><kernel>/etc/shadow</kernel></os>", "node-admin"),
        ("<os><loader>/x</loader></os>", "node-admin"),
        ("<sysinfo type='fwcfg'><entry name='opt/x' file='/etc/shadow'/></sysinfo>", "node-admin"),
        ("<seclabel type='none'/>", "node-admin"),
        ("<memoryBacking><source type='file'/></memoryBacking>", "node-admin"),
        (
            "<q:commandline xmlns:q='http://libvirt.org/schemas/domain/qemu/1.0'><q:arg value='-S'/></q:commandline>",
            "node-admin",
        ),
        ("<devices><q:disk xmlns:q='urn:x'/></devices>", "node-admin"),
        ("<launchSecurity type='sev'/>", "node-admin"),
    ] {
        let said = defines(inner);
        assert!(said.starts_with("create on kvm, ") && said.contains(&format!("{wanted} on kvm")), "{inner}: {said}");
    }
    let attach = |xml: &str| asks("DOMAIN_ATTACH_DEVICE_FLAGS", domain().opaque(xml.as_bytes()).word(1));
    assert_eq!(
        attach("<disk type='volume'><source pool='p' volume='v'/><target dev='vdb'/></disk>"),
        "configure on kvm/web-1, storage on kvm"
    );
    assert_eq!(attach("<hostdev/>"), "configure on kvm/web-1, node-admin on kvm");
    assert_eq!(attach("<q:disk xmlns:q='u'/>"), "configure on kvm/web-1, node-admin on kvm");
    let snapshot = |inner: &str, flags: u32| {
        asks(
            "DOMAIN_SNAPSHOT_CREATE_XML",
            domain().opaque(format!("<domainsnapshot>{inner}</domainsnapshot>").as_bytes()).word(flags),
        )
    };
    assert_eq!(snapshot("<name>s</name>", 0), "snapshot on kvm/web-1");
    assert_eq!(snapshot("<memory snapshot='external' file='/x'/>", 0), "snapshot on kvm/web-1, node-admin on kvm");
    assert_eq!(
        snapshot("<disks><disk name='vda'><source file='/x'/></disk></disks>", 0),
        "snapshot on kvm/web-1, node-admin on kvm"
    );
    assert_eq!(snapshot("", 0x20), "snapshot on kvm/web-1, storage on kvm/web-1");
    assert!(snapshot("", 1).starts_with("denied"), "REDEFINE");
}

#[test]
fn a_description_that_can_be_read_in_two_ways_is_refused() {
    let define = |xml: &str| asks("DOMAIN_DEFINE_XML", text(xml));
    let deep = format!("<domain>{}{}</domain>", "<a>".repeat(100), "</a>".repeat(100));
    let many = format!("<domain>{}</domain>", "<a/>".repeat(MAX_MACHINES * 50));
    for bad in [
        "",
        "x",
        "<domain>",
        "</domain>",
        "<domain/><domain/>",
        "<domain a='1' a='2'/>",
        "<domain>&boom;</domain>",
        "<!DOCTYPE d [<!ENTITY a 'b'>]><domain>&a;</domain>",
        "<network/>",
        "<domain></network>",
        // The daemon looks attributes up without their prefixes: this would be a file of the host.
        "<domain><devices><serial xmlns:p='u' p:type='file' type='pty'/></devices></domain>",
        "<domain><devices><graphics xmlns:p='u' type='vnc' p:listen='0.0.0.0'/></devices></domain>",
        // It resolves references in namespaces: these would be labels.
        "<domain><metadata><q:tags xmlns:q='https://portc&#x75;llis/'>prod</q:tags></metadata></domain>",
        "<domain xmlns='u&#x72;n'/>",
        // It would read another text in that encoding.
        "<?xml version='1.0' encoding='UTF-7'?><domain/>",
        "<?xml-stylesheet href='x'?><domain/>",
        &deep,
        &many,
        &format!("<domain>{}</domain>", " ".repeat(1024 * 1024)),
    ] {
        assert!(define(bad).starts_with("denied"), "{}", &bad[..bad.len().min(60)]);
    }
}

#[test]
fn machines_that_somebody_may_not_see_are_left_out() {
    let (one, two) = (domain_of(ID).done(), domain_of("22222222-2222-4333-8444-555555555555").done());
    let sees = |uuid: &Uuid| uuid.to_string() == ID;
    let keep = |name: &str, answer: Writer| Procedures::builtin().keep(number(name), &answer.done(), sees);
    let list = |all: &[&[u8]], count: u32| {
        let begun = Writer::default().word(u32::try_from(all.len()).unwrap());
        all.iter().fold(begun, |w, d| w.raw(d)).word(count)
    };
    let kept = keep("CONNECT_LIST_ALL_DOMAINS", list(&[&one, &two, &one], 3)).unwrap();
    assert_eq!(kept, Left::Bytes(list(&[&one, &one], 2).done()));
    assert_eq!(keep("CONNECT_LIST_ALL_DOMAINS", list(&[&two], 1)).unwrap(), Left::Bytes(list(&[], 0).done()));
    let stats = |of: &[u8]| Writer::default().raw(of).word(1).opaque(b"cpu").word(4).raw(&[0; 8]).done();
    let both = Writer::default().word(2).raw(&stats(&two)).raw(&stats(&one));
    let kept = keep("CONNECT_GET_ALL_DOMAIN_STATS", both).unwrap();
    assert_eq!(kept, Left::Bytes(Writer::default().word(1).raw(&stats(&one)).done()));
    assert_eq!(keep("DOMAIN_LOOKUP_BY_NAME", Writer::default().raw(&two)).unwrap(), Left::Nothing);
    assert_eq!(keep("DOMAIN_LOOKUP_BY_NAME", Writer::default().raw(&one)).unwrap(), Left::Bytes(one.clone()));
    assert!(keep("DOMAIN_LOOKUP_BY_NAME", Writer::default().raw(&one).word(0)).is_err(), "more than its form");
    assert!(keep("CONNECT_LIST_ALL_DOMAINS", list(&[&one], 1).word(0)).is_err());
    assert!(keep("CONNECT_LIST_ALL_DOMAINS", Writer::default().word(u32::MAX)).is_err());
}

#[test]
fn an_event_is_about_the_machine_that_it_names() {
    let hypervisor: HypervisorName = "kvm".parse().unwrap();
    let about = |name: &str, payload: Writer| {
        let (program, number) = number(name);
        Procedures::builtin().about(&hypervisor, program, number, &payload.done())
    };
    let machine = Some(About::Machine(own()));
    assert_eq!(about("DOMAIN_EVENT_LIFECYCLE", domain().word(1).word(2)), machine);
    assert_eq!(
        about("DOMAIN_EVENT_CALLBACK_LIFECYCLE", Writer::default().word(3).raw(&domain().word(1).word(2).done())),
        machine
    );
    assert_eq!(about("DOMAIN_EVENT_CALLBACK_LIFECYCLE", Writer::default().word(3)), None, "cut");
    assert_eq!(
        about("NETWORK_EVENT_LIFECYCLE", Writer::default().word(3).opaque(b"n").raw(&[0; 16]).word(0).word(0)),
        Some(About::Hypervisor)
    );
    assert_eq!(about("CONNECT_EVENT_CONNECTION_CLOSED", Writer::default().word(0)), Some(About::Connection));
    let monitor = Writer::default().word(0).raw(&domain().done()).opaque(b"X").raw(&[0; 8]).word(0).optional(None);
    assert_eq!(about("qemu:DOMAIN_MONITOR_EVENT", monitor), None);
    assert_eq!(about("DOMAIN_CREATE", domain()), None, "a call is no event");
    // Every event is one of those.
    let events = Procedures::builtin().known().filter(|k| k.verdict == "event").count();
    assert!(events > 50, "{events}");
}
