// SPDX-License-Identifier: Apache-2.0
//! virsh and libvirt's Python module, unchanged, through the gateway to a real libvirtd.

use crate::support::{
    Person, TestGateway,
    peers::Peer,
    virsh::{Client, Door},
};
use std::time::{Duration, Instant};

/// Waits until virsh says something: machines come into the inventory by the daemon's events.
async fn until(client: &Client, arguments: &[&str], wanted: &str) -> String {
    let mut said = String::new();
    for _ in 0..100 {
        said = client.try_virsh(arguments).await.1;
        if said.contains(wanted) {
            return said;
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    panic!("virsh {arguments:?} never said {wanted:?}: {said}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn machines_are_listed_looked_at_and_driven_with_a_token() {
    let libvirt = Peer::libvirt();
    let domain = libvirt.ask("domain", &["web-1", "--security", "password"]);
    let (uuid, password) = (&domain["UUID"], &domain["PASSWORD"]);
    libvirt.ask("domain", &["db-1", "--define"]);
    let door = Door::new(&libvirt);
    let gateway = TestGateway::start(&door.config(&libvirt)).await;
    let ada = Person::first_administrator(&gateway, "ada").await;
    let client = door.client(&gateway, "ada", &ada.token("kvm").await);
    until(&client, &["domstate", "db-1"], "shut off").await;
    let said = client.virsh(&["list", "--all"]).await;
    assert!(said.contains("web-1") && said.contains("db-1"), "{said}");
    assert!(client.virsh(&["dominfo", "web-1"]).await.contains("running"));

    let xml = client.virsh(&["dumpxml", "web-1"]).await;
    assert!(xml.contains(uuid.as_str()) && xml.contains("<graphics") && !xml.contains("passwd"), "{xml}");
    for arguments in [&["dumpxml", "web-1", "--security-info"][..], &["dumpxml", "web-1", "--migratable"]] {
        let said = client.refused(arguments).await;
        assert!(said.contains("gives no passwords of machines") && !said.contains(password.as_str()), "{said}");
    }

    // Without one, an editor takes the whole of it and brings it back.
    libvirt.ask("domain", &["plain", "--security", "none", "--define"]);
    until(&client, &["domstate", "plain"], "shut off").await;
    assert!(client.virsh(&["dumpxml", "plain", "--security-info"]).await.contains("<graphics"));
    client.virsh(&["edit", "plain"]).await;
    assert!(client.virsh(&["dumpxml", "plain"]).await.contains("131073"), "the editor's change is there");
    let said = client.refused(&["edit", "web-1"]).await;
    assert!(said.contains("gives no passwords of machines"), "{said}");

    client.virsh(&["suspend", "web-1"]).await;
    assert!(client.virsh(&["domstate", "web-1"]).await.contains("paused"));
    client.virsh(&["resume", "web-1"]).await;
    assert!(client.virsh(&["domstate", "web-1"]).await.contains("running"));
    client.virsh(&["destroy", "web-1"]).await;
    until(&client, &["domstate", "web-1"], "failed to get domain").await;

    let said = client.refused(&["qemu-monitor-command", "db-1", "--hmp", "info status"]).await;
    assert!(said.contains("QEMU's monitor can do anything"), "{said}");
    let call = |name: &'static str| move |e: &serde_json::Value| e.to_string().contains(name);
    let of = |more: &[&'static str]| [&["--kind", "api", "--user", "ada"][..], more].concat();
    gateway.find_event(&of(&["--outcome", "denied"]), call("qemu:DOMAIN_MONITOR_COMMAND")).await;
    let event = gateway.find_event(&of(&["--outcome", "done"]), call("DOMAIN_DESTROY")).await;
    assert_eq!((&event["what"], &event["on"]), (&"power".into(), &format!("kvm/{uuid}").into()), "{event}");
    gateway.find_event(&of(&["--outcome", "done"]), call("signed in to the API")).await;
    gateway.find_event(&of(&["--outcome", "done"]), |e| e["reason"] == "closed" && e["on"] == "kvm").await;
    gateway.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_person_sees_their_own_machines_and_no_trace_of_others() {
    let libvirt = Peer::libvirt();
    let own = libvirt.ask("domain", &["own", "--security", "none"]);
    let other = libvirt.ask("domain", &["other", "--security", "none"]);
    let off = libvirt.ask("domain", &["off", "--define"]);
    let door = Door::new(&libvirt);
    let gateway = TestGateway::start(&door.config(&libvirt)).await;
    let ada = Person::first_administrator(&gateway, "ada").await;
    let bob = ada.invite("bob").await;
    let all = door.client(&gateway, "ada", &ada.token("kvm").await);
    until(&all, &["list", "--all", "--name"], "off").await;
    ada.grant("bob", "operator", "machine", &format!("kvm/{}", own["UUID"])).await;
    let client = door.client(&gateway, "bob", &bob.token("kvm").await);
    until(&client, &["list", "--all"], "own").await;
    let said = client.python(LOOK).await;
    let (id, uuid, off) = (libvirt.ask("virsh", &["domid", "other"]), &other["UUID"], &off["UUID"]);
    drop(id);
    for hidden in ["other", "off\n", "'off'", uuid.as_str(), off.as_str()] {
        assert!(!said.contains(hidden), "{hidden}: {said}");
    }
    let wanted = "all ['own']\nnumber 1\nids 1 own\ndefined 0 []\nstats ['own']\nnone 1\n";
    assert_eq!(said, wanted);

    // What is hidden is not there, word for word.
    for (hidden, missing) in [("other", "nothing"), (uuid.as_str(), "11111111-2222-4333-8444-555555555555")] {
        for verb in ["domstate", "destroy", "dumpxml", "domblklist", "undefine"] {
            let (one, two) = (client.refused(&[verb, hidden]).await, client.refused(&[verb, missing]).await);
            assert_eq!(one.replace(hidden, "X"), two.replace(missing, "X"), "{verb}");
        }
    }
    let ids = |text: String| text.lines().find_map(|l| l.strip_prefix("raw ").map(str::to_owned)).expect("an error");
    let raw = |what: &str| format!("{RAW}\nlook(lambda c: {what})");
    let other_id = libvirt_id(&all, "other").await;
    let hidden = ids(client.python(&raw(&format!("c.lookupByID({other_id})"))).await);
    let missing = ids(client.python(&raw("c.lookupByID(99999)")).await);
    assert_eq!(hidden.replace(&format!("id {other_id}'"), "id X'"), missing.replace("id 99999'", "id X'"));
    let hidden = ids(client.python(&raw("c.lookupByName('other')")).await);
    let missing = ids(client.python(&raw("c.lookupByName('nothing')")).await);
    assert_eq!(hidden.replace("other", "X"), missing.replace("nothing", "X"), "from the daemon itself");

    // What is the hypervisor's is for those who may see the hypervisor.
    for verb in [&["nodeinfo"][..], &["pool-list"], &["net-list"], &["capabilities"], &["secret-list"], &["hostname"]] {
        let said = client.refused(verb).await;
        assert!(said.contains("You may not do this") || said.contains("not found"), "{verb:?}: {said}");
        all.virsh(verb).await;
    }
    // An operator starts and stops, and changes nothing.
    client.virsh(&["suspend", "own"]).await;
    client.virsh(&["resume", "own"]).await;
    for verb in [&["setmem", "own", "65536"][..], &["autostart", "own"], &["desc", "own", "x"], &["undefine", "own"]] {
        let said = client.refused(verb).await;
        assert!(said.contains("You may not do this") && said.contains("administrator"), "{verb:?}: {said}");
    }
    gateway.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whoever_takes_snapshots_goes_back_to_none_that_brings_something_back() {
    let libvirt = Peer::libvirt();
    let tags = "<p:tags xmlns:p=\"urn:portcullis:1\">web</p:tags>";
    let domain = libvirt.ask("domain", &["off", "--security", "none", "--metadata", tags, "--disk", "--define"]);
    let door = Door::new(&libvirt);
    let gateway = TestGateway::start(&door.config(&libvirt)).await;
    let ada = Person::first_administrator(&gateway, "ada").await;
    let bob = ada.invite("bob").await;
    let all = door.client(&gateway, "ada", &ada.token("kvm").await);
    until(&all, &["list", "--all", "--name"], "off").await;
    ada.grant("bob", "operator", "machine", &format!("kvm/{}", domain["UUID"])).await;
    let client = door.client(&gateway, "bob", &bob.token("kvm").await);
    until(&client, &["list", "--all"], "off").await;
    client.virsh(&["snapshot-create-as", "off", "s0"]).await;
    client.virsh(&["snapshot-revert", "off", "s0"]).await;
    // Memory stays within the machine; labels and files of the host do not.
    libvirt.ask("virsh", &["setmem", "off", "65536", "--config"]);
    client.virsh(&["snapshot-revert", "off", "s0"]).await;
    let set = ["metadata", "off", "urn:portcullis:1", "--key", "p", "--config", "--set"];
    libvirt.ask("virsh", &[&set[..], &["<tags>pay</tags>"][..]].concat());
    let said = client.refused(&["snapshot-revert", "off", "s0"]).await;
    assert!(said.contains("brings back settings"), "{said}");
    all.virsh(&["snapshot-revert", "off", "s0"]).await;
    client.virsh(&["snapshot-revert", "off", "s0"]).await;
    libvirt.ask("virsh", &["detach-disk", "off", "vda", "--config"]);
    let said = client.refused(&["snapshot-revert", "off", "s0"]).await;
    assert!(said.contains("brings back settings"), "{said}");
    gateway.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn memory_that_was_saved_brings_nothing_back_that_was_taken_away() {
    let libvirt = Peer::libvirt();
    let tags = "<p:tags xmlns:p=\"urn:portcullis:1\">web</p:tags>";
    let domain = libvirt.ask("domain", &["vm", "--security", "none", "--metadata", tags, "--disk", "--define"]);
    let door = Door::new(&libvirt);
    let gateway = TestGateway::start(&door.config(&libvirt)).await;
    let ada = Person::first_administrator(&gateway, "ada").await;
    let bob = ada.invite("bob").await;
    let all = door.client(&gateway, "ada", &ada.token("kvm").await);
    until(&all, &["list", "--all", "--name"], "vm").await;
    ada.grant("bob", "operator", "machine", &format!("kvm/{}", domain["UUID"])).await;
    let client = door.client(&gateway, "bob", &bob.token("kvm").await);
    until(&client, &["list", "--all"], "vm").await;
    // Nothing was saved; and what was saved is what it is.
    client.virsh(&["start", "vm"]).await;
    client.virsh(&["managedsave", "vm"]).await;
    client.virsh(&["start", "vm"]).await;
    client.virsh(&["managedsave", "vm"]).await;
    // Meanwhile somebody takes its disk away.
    libvirt.ask("virsh", &["detach-disk", "vm", "vda", "--config"]);
    let said = client.refused(&["start", "vm"]).await;
    assert!(said.contains("when its memory was saved"), "{said}");
    let press = async || {
        let target = format!("/machines/kvm/{}/power", domain["UUID"]);
        let answer = bob.submit(&target, &[("verb", "start"), ("next", "/")]).await;
        answer.text().await.expect("a page")
    };
    let said = press().await;
    assert!(said.contains("its memory was saved when it had other settings"), "nor by a page: {said}");
    assert!(client.virsh(&["domstate", "vm"]).await.contains("shut off"));
    // Whoever may do more starts it so, and an operator without what was saved.
    all.virsh(&["start", "vm"]).await;
    assert!(libvirt_disks(&all).await.contains("vda"), "that is what comes back");
    client.virsh(&["managedsave", "vm"]).await;
    client.virsh(&["start", "vm", "--force-boot"]).await;
    assert!(!libvirt_disks(&all).await.contains("vda"));
    client.virsh(&["destroy", "vm"]).await;
    press().await;
    until(&client, &["domstate", "vm"], "running").await;
    client.virsh(&["destroy", "vm"]).await;
    gateway.stop().await;
}

async fn libvirt_disks(client: &Client) -> String {
    client.virsh(&["domblklist", "vm"]).await
}

async fn libvirt_id(client: &Client, name: &str) -> String {
    client.virsh(&["domid", name]).await.trim().to_owned()
}

/// What a person finds in every way of asking for lists.
const LOOK: &str = "
import libvirt, sys
libvirt.registerErrorHandler(lambda c, e: None, None)
c = libvirt.openAuth(sys.argv[1], [[libvirt.VIR_CRED_AUTHNAME, libvirt.VIR_CRED_PASSPHRASE], lambda cr, d: -1, None], 0)
names = lambda ds: sorted(d.name() for d in ds)
print('all', names(c.listAllDomains()))
print('number', c.numOfDomains())
ids = c.listDomainsID()
print('ids', len(ids), c.lookupByID(ids[0]).name())
print('defined', c.numOfDefinedDomains(), c.listDefinedDomains())
print('stats', sorted(d.name() for d, s in c.getAllDomainStats()))
print('none', len(c.listAllDomains(0)))
";

/// An error as it came over the wire, in all of its parts.
const RAW: &str = "
import libvirt, sys
libvirt.registerErrorHandler(lambda c, e: None, None)
def look(what):
    cred = [[libvirt.VIR_CRED_AUTHNAME, libvirt.VIR_CRED_PASSPHRASE], lambda cr, d: -1, None]
    c = libvirt.openAuth(sys.argv[1], cred, 0)
    try:
        what(c)
        print('found')
    except libvirt.libvirtError as e:
        print('raw', e.err)
";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn pythons_libvirt_drives_machines() {
    let libvirt = Peer::libvirt();
    libvirt.ask("domain", &["db-1", "--define"]);
    let door = Door::new(&libvirt);
    let gateway = TestGateway::start(&door.config(&libvirt)).await;
    let ada = Person::first_administrator(&gateway, "ada").await;
    let client = door.client(&gateway, "ada", &ada.token("kvm").await);
    until(&client, &["list", "--all"], "db-1").await;
    let said = client
        .python(&format!(
            "{RAW}
c = libvirt.openAuth(sys.argv[1], [[libvirt.VIR_CRED_AUTHNAME, libvirt.VIR_CRED_PASSPHRASE], lambda cr, d: -1, None], 0)
d = c.lookupByName('db-1')
print(d.isActive(), c.getType(), c.isSecure(), c.getURI().split('?')[0].split(':')[0])
d.create()
print(d.isActive(), d.state()[0])
d.suspend()
print(d.state()[0])
d.resume()
d.destroy()
print(d.isActive())
cred = [[libvirt.VIR_CRED_AUTHNAME, libvirt.VIR_CRED_PASSPHRASE], lambda cr, d: -1, None]
r = libvirt.openAuth(sys.argv[1], cred, libvirt.VIR_CONNECT_RO)
try:
    r.lookupByName('db-1').create()
except libvirt.libvirtError as e:
    print('read-only', e.get_error_code() == libvirt.VIR_ERR_OPERATION_DENIED)
c.close()
"
        ))
        .await;
    assert_eq!(said, "0 QEMU 1 qemu+tls\n1 1\n3\n0\nread-only True\n");
    gateway.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn events_are_of_ones_own_machines_and_end_with_access() {
    let libvirt = Peer::libvirt();
    let own = libvirt.ask("domain", &["own", "--security", "none"]);
    libvirt.ask("domain", &["other", "--security", "none"]);
    let door = Door::new(&libvirt);
    let gateway = TestGateway::start(&door.config(&libvirt)).await;
    let ada = Person::first_administrator(&gateway, "ada").await;
    let all = door.client(&gateway, "ada", &ada.token("kvm").await);
    until(&all, &["list"], "other").await;
    let bob = ada.invite("bob").await;
    ada.grant("bob", "operator", "machine", &format!("kvm/{}", own["UUID"])).await;
    let client = door.client(&gateway, "bob", &bob.token("kvm").await);
    until(&client, &["list"], "own").await;
    let (mut watching, out) = client.begin(&["event", "--all", "--loop"]);
    let said = || std::fs::read_to_string(&out).unwrap_or_default();
    // Both change; one is told of.
    for _ in 0..100 {
        all.virsh(&["suspend", "other"]).await;
        all.virsh(&["suspend", "own"]).await;
        all.virsh(&["resume", "own"]).await;
        all.virsh(&["resume", "other"]).await;
        if said().contains("own") {
            break;
        }
    }
    assert!(said().contains("own") && said().contains("Suspended") && !said().contains("other"), "{}", said());
    assert!(watching.try_wait().expect("it runs").is_none());

    let begun = Instant::now();
    ada.revoke_grants("bob").await;
    let ended =
        tokio::time::timeout(Duration::from_secs(10), watching.wait()).await.expect("it is cut").expect("ended");
    let took = begun.elapsed();
    assert!(took < Duration::from_secs(5), "{took:?}: {ended:?} {}", said());
    let cut = |e: &serde_json::Value| e["reason"].as_str().is_some_and(|r| r.starts_with("access ended"));
    gateway.find_event(&["--kind", "api", "--user", "bob", "--outcome", "failed"], cut).await;
    gateway.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_token_that_is_none_opens_nothing() {
    let libvirt = Peer::libvirt();
    libvirt.ask("domain", &["web-1", "--security", "none"]);
    let door = Door::new(&libvirt);
    let gateway = TestGateway::start(&door.config(&libvirt)).await;
    let ada = Person::first_administrator(&gateway, "ada").await;
    let token = ada.token("kvm").await;
    let good = door.client(&gateway, "ada", &token);
    until(&good, &["list"], "web-1").await;
    let bob = ada.invite("bob").await;
    let bobs = bob.token("kvm").await;
    for (name, token) in
        [("ada", "pct_wrong"), ("eve", token.as_str()), ("ada", bobs.as_str()), ("ada", ""), ("ada", "x\u{e9}y")]
    {
        let said = door.client(&gateway, name, token).refused(&["list"]).await;
        assert!(said.contains("authentication failed") || said.contains("Sign in first"), "{name} {token}: {said}");
        assert!(!said.contains("web-1"));
    }
    // Bob is known and was given nothing.
    let said = door.client(&gateway, "bob", &bobs).refused(&["list"]).await;
    assert!(said.contains("not found") || said.contains("may not"), "{said}");
    gateway.find_event(&["--kind", "api", "--outcome", "denied"], |e| e["user"].is_null()).await;

    // Another driver of the daemon, or another daemon, is not what this door leads to.
    for more in ["&name=test:///default", "&name=qemu:///embed?root=/tmp/x", "&name=lxc:///system"] {
        let client = door.client(&gateway, "ada", &token);
        let there = Client { uri: format!("{}{more}", client.uri), dir: client.dir };
        let said = there.refused(&["list"]).await;
        assert!(said.contains("Through this gateway qemu:///"), "{more}: {said}");
    }
    gateway.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_picture_of_the_screen_and_a_volumes_bytes_are_streams() {
    let libvirt = Peer::libvirt();
    libvirt.ask("domain", &["web-1", "--security", "none"]);
    let door = Door::new(&libvirt);
    let gateway = TestGateway::start(&door.config(&libvirt)).await;
    let ada = Person::first_administrator(&gateway, "ada").await;
    let bob = ada.invite("bob").await;
    ada.grant("bob", "administrator", "everything", "").await;
    let token = bob.token("kvm").await;
    let client = door.client(&gateway, "bob", &token);
    until(&client, &["list"], "web-1").await;
    let file = |name: &str| client.dir.path().join(name).display().to_string();
    let picture = file("screen.ppm");
    let said = client.refused(&["screenshot", "web-1", &picture]).await;
    assert!(said.contains("asks for a recording"), "{said}");
    ada.revoke_grants("bob").await;
    ada.grant_unrecorded("bob", "administrator", "everything", "").await;
    client.virsh(&["screenshot", "web-1", &picture]).await;
    let bytes = std::fs::read(&picture).expect("a picture");
    assert!(bytes.starts_with(b"P6") || bytes.starts_with(b"\x89PNG"), "{:?}", bytes.first_chunk::<8>());
    assert!(bytes.len() > 1000, "{}", bytes.len());

    let pool = libvirt.dir().join("pool");
    std::fs::create_dir(&pool).expect("a folder");
    client.virsh(&["pool-create-as", "p", "dir", "--target", &pool.display().to_string()]).await;
    client.virsh(&["vol-create-as", "p", "v", "4M"]).await;
    let sent: Vec<u8> = (0..4 << 20).map(|n: u32| n.to_le_bytes()[(n % 3) as usize] ^ 0x5a).collect();
    std::fs::write(file("up"), &sent).expect("written");
    client.virsh(&["vol-upload", "v", &file("up"), "--pool", "p"]).await;
    client.virsh(&["vol-download", "v", &file("down"), "--pool", "p"]).await;
    assert!(std::fs::read(file("down")).expect("read") == sent, "what went up came down");
    let call = |name: &'static str| move |e: &serde_json::Value| e.to_string().contains(name);
    for name in ["STORAGE_VOL_UPLOAD: closed", "STORAGE_VOL_DOWNLOAD: closed", "DOMAIN_SCREENSHOT: closed"] {
        gateway.find_event(&["--kind", "api", "--outcome", "done"], call(name)).await;
    }
    gateway.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_serial_console_is_relayed_and_cut_with_access() {
    let libvirt = Peer::libvirt();
    let door = Door::new(&libvirt);
    let gateway = TestGateway::start(&door.config(&libvirt)).await;
    let ada = Person::first_administrator(&gateway, "ada").await;
    let all = door.client(&gateway, "ada", &ada.token("kvm").await);
    // A machine that never starts an operating system has a serial line all the same.
    let xml = all.dir.path().join("vm.xml");
    std::fs::write(
        &xml,
        "<domain type='qemu'><name>line</name><uuid>5b0e0ac4-1111-4222-8333-944455566677</uuid>\
         <memory unit='MiB'>64</memory><vcpu>1</vcpu><os><type arch='x86_64' machine='pc'>hvm</type></os>\
         <devices><emulator>/usr/bin/qemu-system-x86_64</emulator><serial type='pty'/><console type='pty'/>\
         <memballoon model='none'/></devices></domain>",
    )
    .expect("written");
    all.virsh(&["create", &xml.display().to_string()]).await;
    let bob = ada.invite("bob").await;
    ada.grant_unrecorded("bob", "console-user", "hypervisor", "kvm").await;
    let client = door.client(&gateway, "bob", &bob.token("kvm").await);
    until(&client, &["list"], "line").await;
    let begun = tempfile::NamedTempFile::new().expect("a file");
    let text = format!(
        "{RAW}
import time
c = libvirt.openAuth(sys.argv[1], [[libvirt.VIR_CRED_AUTHNAME, libvirt.VIR_CRED_PASSPHRASE], lambda cr, d: -1, None], 0)
s = c.newStream(0)
c.lookupByName('line').openConsole(None, s, 0)
s.send(b'hello')
open({:?}, 'w').write('open')
try:
    while True:
        got = s.recv(1024)
        if not got: break
except libvirt.libvirtError as e:
    print('cut:', e)
",
        begun.path().display().to_string()
    );
    let (said, took) = tokio::join!(client.python(&text), async {
        while std::fs::read_to_string(begun.path()).unwrap_or_default() != "open" {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        ada.revoke_grants("bob").await;
        Instant::now()
    });
    assert!(took.elapsed() < Duration::from_secs(5), "{:?}", took.elapsed());
    assert!(said.contains("cut:"), "{said}");
    let cut = |e: &serde_json::Value| e["reason"].as_str().is_some_and(|r| r.starts_with("access ended"));
    let event = gateway.find_event(&["--kind", "api", "--user", "bob", "--outcome", "failed"], cut).await;
    assert!(event.to_string().contains("kvm"), "{event}");
    gateway.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_needs_a_fresh_code_says_where_to_do_it_and_a_lock_ends_everything() {
    let libvirt = Peer::libvirt();
    let domain = libvirt.ask("domain", &["web-1", "--security", "password"]);
    let door = Door::new(&libvirt);
    let gateway = TestGateway::start(&door.config(&libvirt)).await;
    let ada = Person::first_administrator(&gateway, "ada").await;
    let bob = ada.invite("bob").await;
    ada.grant_unrecorded("bob", "administrator", "hypervisor", "kvm").await;
    let client = door.client(&gateway, "bob", &bob.token("kvm").await);
    until(&client, &["list"], "web-1").await;
    client.virsh(&["send-key", "web-1", "KEY_A"]).await;
    gateway.ask_each("bob").await;
    let said = until_refused(&client, &["send-key", "web-1", "KEY_A"]).await;
    assert!(said.contains("needs a fresh code, which a token cannot give. Do it in the portal"), "{said}");
    client.virsh(&["suspend", "web-1"]).await;
    client.virsh(&["resume", "web-1"]).await;

    let (mut watching, out) = client.begin(&["event", "--all", "--loop"]);
    tokio::time::sleep(Duration::from_secs(1)).await;
    let begun = Instant::now();
    let (code, text) = gateway.shell(&["lock", "add", "hypervisor:kvm", "--for", "2h", "--reason", "an intruder"]);
    assert_eq!(code, Some(0), "{text}");
    let ended = tokio::time::timeout(Duration::from_secs(10), watching.wait()).await;
    let said = std::fs::read_to_string(&out).unwrap_or_default();
    assert!(ended.is_ok() && begun.elapsed() < Duration::from_secs(6), "{:?} {said}", begun.elapsed());
    let said = client.refused(&["list"]).await;
    assert!(said.contains("locked until"), "{said}");
    // What the daemon keeps for itself was never told to anybody.
    let trail = format!("{:?}", gateway.search(&["--limit", "1000"]));
    let key = std::fs::read_to_string(libvirt.get("CLIENT_KEY")).expect("the gateway's own key");
    let secret = key.lines().nth(1).expect("a line of it");
    for hidden in [domain["PASSWORD"].as_str(), secret] {
        assert!(!trail.contains(hidden) && !said.contains(hidden));
    }
    gateway.stop().await;
}

/// Runs virsh until it is refused.
async fn until_refused(client: &Client, arguments: &[&str]) -> String {
    for _ in 0..100 {
        let (is_well, said) = client.try_virsh(arguments).await;
        if !is_well {
            return said;
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    panic!("virsh {arguments:?} is never refused");
}
