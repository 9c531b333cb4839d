// SPDX-License-Identifier: Apache-2.0
use crate::support::{Running, config, on, permit, qemu::Qemu};
use portcullis_domain::{Action, ConsoleKind, PowerState};
use portcullis_upstream::{Error, Fault, HealthState, PowerVerb};
use std::{os::unix::fs::PermissionsExt, time::Duration};
use tokio::io::AsyncReadExt;

const SECOND: Duration = Duration::from_secs(1);

#[tokio::test]
async fn a_guest_is_seen_paused_reset_shown_and_stopped() {
    let folder = tempfile::tempdir().unwrap();
    let mut qemu = Qemu::start(folder.path(), "g");
    let password = folder.path().join("pw");
    std::fs::write(&password, "secret12\n").unwrap();
    std::fs::set_permissions(&password, std::fs::Permissions::from_mode(0o600)).unwrap();
    let running = Running::start(vec![config(serde_json::json!({
        "kind": "qemu", "name": "desk", "guests": [
            { "id": "g1", "name": "Guest one", "tags": ["lab"], "pool": "blue", "vnc": format!("unix:{}", qemu.vnc.display()),
              "password_file": password, "qmp": qemu.qmp },
            { "id": "gone", "qmp": folder.path().join("nothing") },
        ]
    }))]);
    running.until("desk/g1", 5 * SECOND, |m| m.is_some_and(|m| m.state == PowerState::Running)).await;
    let machine = running.machine("desk/g1").unwrap();
    assert_eq!((machine.name.as_str(), machine.console), ("Guest one", ConsoleKind::Vnc));
    assert_eq!((machine.tags.as_slice(), machine.pool.as_deref()), (&["lab".to_owned()][..], Some("blue")));
    running.until("desk/gone", SECOND, |m| m.is_some_and(|m| m.state == PowerState::Off)).await;

    let power = permit(&running.fleet, Action::Power, on("desk/g1")).await;
    for (verb, state) in [(PowerVerb::Pause, PowerState::Paused), (PowerVerb::Resume, PowerState::Running)] {
        running.fleet.power(&power, verb).await.unwrap();
        running.until("desk/g1", SECOND, |m| m.is_some_and(|m| m.state == state)).await;
    }
    running.fleet.power(&power, PowerVerb::Reset).await.unwrap();
    running.fleet.power(&power, PowerVerb::Shutdown).await.unwrap();
    let refused = running.fleet.power(&power, PowerVerb::Start).await.unwrap_err();
    assert!(matches!(&refused, Error::Upstream { fault: Fault::Unsupported(_), .. }), "{refused}");

    let console = permit(&running.fleet, Action::ConsoleControl, on("desk/g1")).await;
    let mut screen = running.fleet.open_screen(&console).await.unwrap();
    let mut greeting = [0; 12];
    screen.stream.read_exact(&mut greeting).await.unwrap();
    assert_eq!(&greeting, b"RFB 003.008\n");
    assert_eq!(screen.login.password.unwrap().expose(), b"secret12");

    let wrong = running.fleet.power(&console, PowerVerb::Stop).await.unwrap_err();
    assert!(matches!(wrong, Error::WrongPermit(_)), "a console permit is no power permit: {wrong}");
    let wrong = running.fleet.open_screen(&power).await.map(|_| ()).unwrap_err();
    assert!(matches!(wrong, Error::WrongPermit(_)), "{wrong}");

    running.fleet.power(&power, PowerVerb::Stop).await.unwrap();
    running.until("desk/g1", SECOND, |m| m.is_some_and(|m| m.state == PowerState::Off)).await;
    let began = std::time::Instant::now();
    while !qemu.has_ended() {
        assert!(began.elapsed() < 5 * SECOND, "QEMU still runs");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    let off = running.fleet.power(&power, PowerVerb::Pause).await.unwrap_err();
    assert!(matches!(&off, Error::Upstream { fault: Fault::Unreachable { .. }, .. }), "{off}");
    let off = running.fleet.open_screen(&console).await.map(|_| ()).unwrap_err();
    assert!(matches!(&off, Error::Upstream { fault: Fault::Unreachable { .. }, .. }), "{off}");

    // Started again on its own host, it is found again.
    let _again = Qemu::start(folder.path(), "g");
    running.until("desk/g1", 2 * SECOND, |m| m.is_some_and(|m| m.state == PowerState::Running)).await;
}

#[tokio::test]
async fn a_permit_that_has_run_out_opens_nothing() {
    use portcullis_domain::{Clock, ManualClock, SystemClock};
    use portcullis_upstream::Fleet;
    use std::sync::Arc;
    let clock = Arc::new(ManualClock::new(SystemClock.now()));
    let guest = serde_json::json!({ "kind": "qemu", "name": "desk", "guests": [{ "id": "g1", "vnc": "127.0.0.1:1" }] });
    let fleet = Fleet::new(vec![config(guest)], Arc::clone(&clock) as Arc<dyn Clock>).unwrap();
    let (_stop, stopped) = tokio::sync::watch::channel(false);
    for work in fleet.run(&stopped) {
        crate::support::spawn(work);
    }
    while fleet.inventory().is_empty() {
        tokio::task::yield_now().await;
    }
    let permit = permit(&fleet, Action::ConsoleView, on("desk/g1")).await;
    let tried = fleet.open_screen(&permit).await.map(|_| ()).unwrap_err();
    assert!(matches!(tried, Error::Upstream { .. }), "it was dialled: {tried}");
    clock.advance(time::Duration::minutes(6));
    let expired = fleet.open_screen(&permit).await.map(|_| ()).unwrap_err();
    assert!(matches!(expired, Error::PermitExpired), "{expired}");
}

#[tokio::test]
async fn a_command_that_looks_once_sees_every_hypervisor() {
    let folder = tempfile::tempdir().unwrap();
    let qemu = Qemu::start(folder.path(), "g");
    let silent = crate::support::fake::Fake::start(|_, stream| async move {
        let _open = stream;
        std::future::pending::<()>().await;
    });
    let fleet = crate::support::fleet(vec![
        config(
            serde_json::json!({ "kind": "qemu", "name": "desk", "guests": [{ "id": "g1", "qmp": qemu.qmp }, { "id": "g2" }] }),
        ),
        config(
            serde_json::json!({ "kind": "qemu", "name": "slow", "guests": [{ "id": "g1", "qmp": silent.socket() }] }),
        ),
        config(serde_json::json!({ "kind": "lxd", "name": "gone", "socket": folder.path().join("none") })),
    ]);
    let began = std::time::Instant::now();
    fleet.refresh_once().await;
    assert!(began.elapsed() < 5 * SECOND);
    let state = |at: &str| fleet.inventory().find(&at.parse().unwrap()).unwrap().state;
    assert_eq!(state("desk/g1"), PowerState::Running);
    assert_eq!((state("desk/g2"), state("slow/g1")), (PowerState::Unknown, PowerState::Unknown));
    let states: Vec<bool> = fleet.health().iter().map(|h| h.state == HealthState::Ok).collect();
    assert_eq!(states, [true, true, false]);
    let desk = "desk".parse().unwrap();
    assert!(fleet.can(&desk, PowerVerb::Stop) && !fleet.can(&desk, PowerVerb::Start));
}

#[tokio::test]
async fn one_that_is_taken_in_is_served_and_one_that_is_let_go_is_forgotten_and_leaves_the_others_alone() {
    use portcullis_upstream::Kept;
    let guest = |name: &str, id: &str| {
        config(serde_json::json!({ "kind": "qemu", "name": name, "guests": [{ "id": id, "vnc": "127.0.0.1:1" }] }))
    };
    let fleet = crate::support::fleet(vec![guest("desk", "g1")]);
    let (_stop, stopped) = tokio::sync::watch::channel(false);
    for work in fleet.run(&stopped) {
        crate::support::spawn(work);
    }
    let names = |fleet: &portcullis_upstream::Fleet| -> Vec<String> {
        fleet.health().iter().map(|h| h.name.to_string()).collect()
    };
    let has = |at: &str| fleet.inventory().find(&at.parse().unwrap()).is_some();
    let lab: portcullis_domain::HypervisorName = "lab".parse().unwrap();
    for id in ["g2", "g3"] {
        fleet.take_in(guest("lab", id), &Kept::default()).unwrap();
        assert!(fleet.take_in(guest("lab", id), &Kept::default()).is_err(), "a name is one hypervisor's");
        let work = crate::support::spawn(fleet.work_of(&lab, &stopped).unwrap());
        while !has(&format!("lab/{id}")) || !has("desk/g1") {
            tokio::task::yield_now().await;
        }
        assert_eq!(names(&fleet), ["desk", "lab"]);
        let screen = permit(&fleet, Action::ConsoleView, on(&format!("lab/{id}"))).await;
        assert!(matches!(fleet.open_screen(&screen).await.map(|_| ()).unwrap_err(), Error::Upstream { .. }));
        let (was, ending) = fleet.let_go(&lab);
        assert!(was && ending.is_none());
        // Its work ends by itself, and what a permit of before names is not there.
        tokio::time::timeout(SECOND, work).await.unwrap().unwrap();
        assert!(!has(&format!("lab/{id}")) && has("desk/g1"));
        assert_eq!(names(&fleet), ["desk"]);
        let gone = fleet.open_screen(&screen).await.map(|_| ()).unwrap_err();
        assert!(matches!(gone, Error::UnknownHypervisor(_)), "{gone}");
        assert!(fleet.work_of(&lab, &stopped).is_none() && !fleet.let_go(&lab).0);
    }
}
