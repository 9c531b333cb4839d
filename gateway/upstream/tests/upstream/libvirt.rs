// SPDX-License-Identifier: Apache-2.0
use crate::support::{Running, config, libvirtd::Libvirtd, on, permit, pki::Pki};
use portcullis_domain::{Action, ConsoleKind, PowerState};
use portcullis_upstream::{Error, Fault, HealthState, PowerVerb};
use std::time::Duration;
use tokio::io::AsyncReadExt;

const SECOND: Duration = Duration::from_secs(1);
const ONE: &str = "11111111-1111-4111-8111-111111111111";
const TWO: &str = "22222222-2222-4222-8222-222222222222";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn domains_are_seen_changed_and_shown_over_socket_and_tls() {
    let folder = tempfile::tempdir().unwrap();
    let pki = Pki::new(folder.path(), &["localhost"]);
    let mut libvirtd = Libvirtd::start(folder.path(), &pki);
    let vnc = "<graphics type='vnc' autoport='yes' passwd='secret12' listen='127.0.0.1'/>";
    let tags = "<metadata><p:tags xmlns:p='urn:portcullis:1'>web,<p:tag>blue</p:tag></p:tags></metadata>";
    libvirtd.define("one", ONE, vnc, tags);
    let running = Running::start(vec![
        config(serde_json::json!({ "kind": "libvirt", "name": "near", "socket": libvirtd.socket,
            "console": { "socket_folders": [folder.path()] } })),
        config(
            serde_json::json!({ "kind": "libvirt", "name": "far", "address": format!("localhost:{}", libvirtd.port),
            "tls": { "ca_file": pki.ca }, "cert_file": pki.client.0, "key_file": pki.client.1 }),
        ),
    ]);
    let near = format!("near/{ONE}");
    let far = format!("far/{ONE}");
    for at in [&near, &far] {
        running.until(at, 10 * SECOND, |m| m.is_some_and(|m| m.state == PowerState::Off)).await;
        let machine = running.machine(at).unwrap();
        assert_eq!((machine.name.as_str(), machine.console), ("one", ConsoleKind::Vnc));
        assert_eq!(machine.tags, ["blue", "web"]);
    }

    // A screen of a machine that is off says so.
    let console = permit(&running.fleet, Action::ConsoleControl, on(&near)).await;
    let off = running.fleet.open_screen(&console).await.map(|_| ()).unwrap_err();
    assert!(matches!(&off, Error::Upstream { fault: Fault::NoScreen(_), .. }), "{off}");

    // Power by one connection is seen by events on both within a second.
    let power = permit(&running.fleet, Action::Power, on(&far)).await;
    for (verb, state) in [
        (PowerVerb::Start, PowerState::Running),
        (PowerVerb::Pause, PowerState::Paused),
        (PowerVerb::Resume, PowerState::Running),
    ] {
        running.fleet.power(&power, verb).await.unwrap();
        for at in [&near, &far] {
            running.until(at, SECOND, |m| m.is_some_and(|m| m.state == state)).await;
        }
    }
    running.fleet.power(&power, PowerVerb::Reset).await.unwrap();
    running.fleet.power(&power, PowerVerb::Shutdown).await.unwrap();
    let refused = running.fleet.power(&power, PowerVerb::Start).await.unwrap_err();
    assert!(matches!(&refused, Error::Upstream { fault: Fault::Refused(_), .. }), "it runs already: {refused}");

    // Address and password are those of now, on both ways.
    for at in [&near, &far] {
        let console = permit(&running.fleet, Action::ConsoleView, on(at)).await;
        let mut screen = running.fleet.open_screen(&console).await.unwrap();
        let mut greeting = [0; 12];
        screen.stream.read_exact(&mut greeting).await.unwrap();
        assert_eq!(&greeting, b"RFB 003.008\n");
        assert_eq!(screen.login.password.unwrap().expose(), b"secret12");
    }
    let changed = folder.path().join("g.xml");
    std::fs::write(
        &changed,
        vnc.replace("secret12", "changed1").replace("autoport='yes'", "autoport='yes' port='22000'"),
    )
    .unwrap();
    let live = libvirtd.virsh(&["dumpxml", "one"]);
    let port = live.split("<graphics type='vnc' port='").nth(1).unwrap().split('\'').next().unwrap().to_owned();
    std::fs::write(
        &changed,
        vnc.replace("secret12", "changed1").replace("autoport='yes'", &format!("autoport='yes' port='{port}'")),
    )
    .unwrap();
    libvirtd.virsh(&["update-device", "one", changed.to_str().unwrap(), "--live"]);
    let screen = running.fleet.open_screen(&console).await.unwrap();
    assert_eq!(screen.login.password.unwrap().expose(), b"changed1");

    // New tags and new machines are seen by events.
    let set = ["metadata", "one", "urn:portcullis:1", "--live", "--config", "--key", "p", "--set", "<tags>db</tags>"];
    libvirtd.virsh(&set);
    running.until(&near, SECOND, |m| m.is_some_and(|m| m.tags == ["db"])).await;
    let socket = folder.path().join("two.vnc");
    let graphics = format!("<graphics type='vnc' socket='{}'/>", socket.display());
    libvirtd.define("two", TWO, &graphics, "");
    let two = format!("near/{TWO}");
    running.until(&two, SECOND, |m| m.is_some()).await;
    libvirtd.virsh(&["start", "two"]);
    running.until(&two, SECOND, |m| m.is_some_and(|m| m.state == PowerState::Running)).await;
    let console = permit(&running.fleet, Action::ConsoleView, on(&two)).await;
    let mut greeting = [0; 12];
    running.fleet.open_screen(&console).await.unwrap().stream.read_exact(&mut greeting).await.unwrap();
    assert_eq!(&greeting, b"RFB 003.008\n");
    // The same socket is nobody's business when the daemon is on another host.
    let remote = permit(&running.fleet, Action::ConsoleView, on(&format!("far/{TWO}"))).await;
    let refused = running.fleet.open_screen(&remote).await.map(|_| ()).unwrap_err();
    assert!(matches!(&refused, Error::Upstream { fault: Fault::NoScreen(_), .. }), "{refused}");
    libvirtd.virsh(&["destroy", "two"]);
    libvirtd.virsh(&["undefine", "two"]);
    running.until(&two, SECOND, |m| m.is_none()).await;

    running.fleet.power(&power, PowerVerb::Stop).await.unwrap();
    running.until(&near, SECOND, |m| m.is_some_and(|m| m.state == PowerState::Off)).await;

    // The daemon asks for a sign of life each second: longer than that, and the connection is still the same one.
    let until = tokio::time::Instant::now() + 8 * SECOND;
    while tokio::time::Instant::now() < until {
        assert!(running.fleet.health().iter().all(|h| h.state == HealthState::Ok), "{:?}", running.fleet.health());
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    assert!(running.fleet.health().iter().all(|h| h.state == HealthState::Ok), "{:?}", running.fleet.health());

    // Lost: the machine stays known, its state is unknown, and the reason stands in health.
    libvirtd.stop();
    running.until(&near, SECOND, |m| m.is_some_and(|m| m.state == PowerState::Unknown)).await;
    running.until(&far, SECOND, |m| m.is_some_and(|m| m.state == PowerState::Unknown)).await;
    assert!(running.fleet.health().iter().all(|h| matches!(h.state, HealthState::Down { .. })));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_daemon_and_a_gateway_that_do_not_trust_each_other_say_so() {
    let folder = tempfile::tempdir().unwrap();
    let pki = Pki::new(folder.path(), &["localhost"]);
    let other = tempfile::tempdir().unwrap();
    let strangers = Pki::new(other.path(), &["localhost"]);
    let libvirtd = Libvirtd::start(folder.path(), &pki);
    let address = format!("localhost:{}", libvirtd.port);
    let tls = |name: &str, ca: &Pki, own: &Pki| {
        config(serde_json::json!({ "kind": "libvirt", "name": name, "address": address, "tls": { "ca_file": ca.ca },
            "cert_file": own.client.0, "key_file": own.client.1 }))
    };
    let running = Running::start(vec![
        tls("unknown-us", &pki, &strangers),
        tls("unknown-them", &strangers, &pki),
        tls("good", &pki, &pki),
    ]);
    let began = tokio::time::Instant::now();
    loop {
        let health = running.fleet.health();
        let words: Vec<String> = health
            .iter()
            .map(|h| match &h.state {
                HealthState::Down { why, .. } => why.clone(),
                HealthState::Ok => "Ok".to_owned(),
            })
            .collect();
        if words[0].contains("TLS check") && words[1].contains("TLS check") && words[2] == "Ok" {
            break;
        }
        assert!(began.elapsed() < 10 * SECOND, "{words:?}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}
