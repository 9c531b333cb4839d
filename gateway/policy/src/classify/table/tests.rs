// SPDX-License-Identifier: Apache-2.0
use super::*;
use crate::classify::canonical;
use proptest::prelude::*;

mod incus;
mod kubevirt;
mod nested;
mod openstack;
mod ovirt;
mod proxmox;
mod vmm;
mod vsphere;

fn lxd() -> Table {
    Table::read(LXD).unwrap()
}

fn ask(method: &str, target: &str, upgrade: Upgrade) -> Verdict {
    let (path, query) = target.split_once('?').map_or((target, None), |(p, q)| (p, Some(q)));
    let path = canonical(path).unwrap();
    let asked = Asked { method, path: &path, query, upgrade, body: Body::Unread };
    let moves = method == "POST" && (target.contains("target=") || target.ends_with("/s0"));
    settled(&lxd(), "lxd-1", &asked, if moves { r#"{"migration": true}"# } else { "{}" })
}

/// The verdict, once a body was read that has to be read.
fn settled(table: &Table, hypervisor: &str, asked: &Asked<'_>, body: &str) -> Verdict {
    let hypervisor = hypervisor.parse().unwrap();
    match table.classify(&hypervisor, asked) {
        Verdict::Unread => match table.read_body(None, body.as_bytes()) {
            Ok(content) => table.classify(&hypervisor, &Asked { body: content.said(), ..*asked }),
            Err(why) => Verdict::Denied(why.into()),
        },
        told => told,
    }
}

/// `action on resource`, `task action id`, or the reason.
fn told(method: &str, target: &str) -> String {
    match ask(method, target, Upgrade::None) {
        Verdict::Operation { operation, answer: Answer::Pass, .. } => operation.to_string(),
        Verdict::Operation { operation, answer, .. } => format!("{operation} ({answer:?})"),
        Verdict::Task { task, answer } => format!("task {} {} ({answer:?})", task.action, task.id),
        Verdict::Visible { hypervisor, answer } => format!("visible of {hypervisor} ({answer:?})"),
        Verdict::Denied(why) => format!("denied: {why}"),
        Verdict::Unread => "unread".to_owned(),
    }
}

#[test]
fn each_operation_asks_what_was_reviewed() {
    for (method, target, what) in [
        ("GET", "/", "view on lxd-1"),
        ("GET", "/1.0", "visible of lxd-1 (Rows)"),
        ("PATCH", "/1.0", "node-admin on lxd-1"),
        ("GET", "/1.0/instances?recursion=2&all-projects=true", "visible of lxd-1 (Rows)"),
        ("GET", "/1.0/projects", "visible of lxd-1 (Rows)"),
        ("GET", "/1.0/projects/p", "view on lxd-1"),
        ("POST", "/1.0/instances", "create on lxd-1 (StripSecrets)"),
        ("GET", "/1.0/instances/c1", "view on lxd-1/default:c1"),
        ("GET", "/1.0/instances/c1?project=", "view on lxd-1/default:c1"),
        ("GET", "/1.0/instances/c1?project", "view on lxd-1/default:c1"),
        ("GET", "/1.0/instances/c1?project=pay", "view on lxd-1/pay:c1"),
        ("GET", "/1.0/instances/c1?%70roject=p%61y", "view on lxd-1/pay:c1"),
        ("GET", "/1.0/instances/%631/state?project=pay", "view on lxd-1/pay:c1"),
        ("PUT", "/1.0/instances/c1/state", "power on lxd-1/default:c1 (StripSecrets)"),
        ("PUT", "/1.0/instances/c1", "access-admin on lxd-1 (StripSecrets)"),
        ("PATCH", "/1.0/instances/c1", "configure on lxd-1/default:c1 (StripSecrets)"),
        ("POST", "/1.0/instances/c1", "access-admin on lxd-1 (StripSecrets)"),
        ("POST", "/1.0/instances/c1?target=n2", "migrate on lxd-1/default:c1 (StripSecrets)"),
        ("DELETE", "/1.0/instances/c1", "destroy on lxd-1/default:c1 (StripSecrets)"),
        ("POST", "/1.0/instances/c1/rebuild", "destroy on lxd-1/default:c1 (StripSecrets)"),
        ("POST", "/1.0/instances/c1/snapshots", "snapshot on lxd-1/default:c1 (StripSecrets)"),
        ("POST", "/1.0/instances/c1/snapshots/s0", "migrate on lxd-1/default:c1 (StripSecrets)"),
        ("DELETE", "/1.0/instances/c1/snapshots/s0", "snapshot on lxd-1/default:c1 (StripSecrets)"),
        ("GET", "/1.0/instances/c1/backups/b0/export", "storage on lxd-1/default:c1"),
        ("GET", "/1.0/instances/c1/files?path=/etc/shadow", "guest-exec on lxd-1/default:c1"),
        ("HEAD", "/1.0/instances/c1/files?path=/etc/shadow", "guest-exec on lxd-1/default:c1"),
        ("GET", "/1.0/instances/c1/logs", "view on lxd-1/default:c1"),
        ("GET", "/1.0/instances/c1/logs/exec_1.stdout", "guest-exec on lxd-1/default:c1"),
        ("POST", "/1.0/instances/c1/exec", "guest-exec on lxd-1/default:c1 (ConsoleSecrets)"),
        ("POST", "/1.0/instances/c1/console", "console.control on lxd-1/default:c1 (ConsoleSecrets)"),
        ("GET", "/1.0/instances/c1/console", "console.view on lxd-1/default:c1"),
        ("GET", "/1.0/instances/c1/console?type=log", "console.view on lxd-1/default:c1"),
        ("GET", "/1.0/instances/c1/console?type=vga", "console.screenshot on lxd-1/default:c1"),
        ("DELETE", "/1.0/instances/c1/console", "configure on lxd-1/default:c1"),
        ("GET", "/1.0/operations/0-a-1", "task view 0-a-1 (StripSecrets)"),
        ("GET", "/1.0/operations/0-a-1/wait?timeout=5", "task view 0-a-1 (StripSecrets)"),
        ("DELETE", "/1.0/operations/0-a-1", "task power 0-a-1 (Pass)"),
        ("GET", "/1.0/operations?recursion=1", "view on lxd-1 (StripSecrets)"),
        ("POST", "/1.0/images", "storage on lxd-1 (StripSecrets)"),
        ("GET", "/1.0/images/aliases", "view on lxd-1"),
        ("GET", "/1.0/images/abc/export", "storage on lxd-1"),
        ("DELETE", "/1.0/storage-pools/local/volumes/container/c1", "storage on lxd-1 (StripSecrets)"),
        ("POST", "/1.0/networks", "network on lxd-1"),
        ("GET", "/1.0/certificates", "access-admin on lxd-1"),
        ("PUT", "/1.0/profiles/default", "configure on lxd-1"),
        ("DELETE", "/1.0/projects/p?force=1", "node-admin on lxd-1"),
        ("GET", "/1.0/cluster/members", "node-admin on lxd-1"),
    ] {
        assert_eq!(told(method, target), what, "{method} {target}");
    }
}

#[test]
fn what_is_not_known_or_could_be_read_in_two_ways_is_denied() {
    for (method, target, why) in [
        ("PUT", "/1.0/instances", "one by one"),
        ("GET", "/1.0/containers", "use /1.0/instances"),
        ("GET", "/1.0/containers/c1", "use /1.0/instances"),
        ("PUT", "/1.0/virtual-machines/v1/state", "use /1.0/instances"),
        ("GET", "/1.0/containersx", "does not know this operation"),
        ("GET", "/internal/ready", "own members"),
        ("GET", "/internal", "own members"),
        ("GET", "/2.0", "does not know this operation"),
        ("GET", "/1.0/", "does not know this operation"),
        ("GET", "/1.0/instances/", "does not know this operation"),
        ("GET", "/1.0/instances/c1/", "does not know this operation"),
        ("GET", "/1.0/Instances", "does not know this operation"),
        ("GET", "/1.0/instances/c1/unheard-of", "does not know this operation"),
        ("GET", "/1.0/images/aliases/export", "two things"),
        ("HEAD", "/1.0/instances/c1", "does not know this method"),
        ("get", "/1.0/instances/c1", "does not know this method"),
        ("CONNECT", "/1.0", "does not know this method"),
        ("TRACE", "/1.0", "does not know this method"),
        ("OPTIONS", "/1.0", "does not know this method"),
        ("DELETE", "/1.0/images/aliases", "does not know this method"),
        ("GET", "/1.0/instances/c1?project=a&project=b", "comes twice"),
        ("GET", "/1.0/instances/c1?project=a&%70roject=b", "comes twice"),
        ("GET", "/1.0/instances/c1?project=a;b", "differently"),
        ("GET", "/1.0/instances/c1?project=%zz", "begins no code"),
        ("GET", "/1.0/instances/c1?project=a:b", "no name of a machine"),
        ("GET", "/1.0/instances/b:c1", "no name of a machine"),
        ("GET", "/1.0/instances/c1?project=a/b", "no name of a machine"),
        ("GET", "/1.0/instances/c%20d", "no name of a machine"),
        ("GET", "/1.0/instances/%C3%A4", "no name of a machine"),
        ("GET", "/1.0/instances/c1?all-projects=true", "query key \"all-projects\""),
        ("GET", "/1.0/instances/c1?target=n2", "query key \"target\""),
        ("PUT", "/1.0/instances/c1/state?target=n2", "query key \"target\""),
        ("GET", "/1.0/instances?secret=x", "query key \"secret\""),
        ("GET", "/1.0/operations/x?secret=y", "query key \"secret\""),
        ("GET", "/1.0/operations/a_b", "no id of a task"),
        ("GET", "/1.0/operations/a%20b/wait", "no id of a task"),
        ("GET", "/1.0/events", "ask for a WebSocket"),
        ("GET", "/1.0/operations/x/websocket?secret=s", "ask for a WebSocket"),
        ("GET", "/1.0/instances/c1/sftp", "ask for a WebSocket"),
    ] {
        let told = told(method, target);
        assert!(told.starts_with("denied: ") && told.contains(why), "{method} {target}: {told}");
    }
    assert!(matches!(ask("GET", "/1.0/instances/c1", Upgrade::WebSocket), Verdict::Denied(_)));
    assert!(matches!(ask("POST", "/1.0/instances/c1/exec", Upgrade::WebSocket), Verdict::Denied(_)));
}

#[test]
fn streams_are_told_from_requests() {
    let hypervisor: HypervisorName = "lxd-1".parse().unwrap();
    let events = ask("GET", "/1.0/events?type=lifecycle&project=p", Upgrade::WebSocket);
    assert_eq!(events, Verdict::Visible { hypervisor: hypervisor.clone(), answer: Answer::Events });
    let socket = ask("GET", "/1.0/operations/0a-1/websocket?secret=s3cret", Upgrade::WebSocket);
    let Verdict::Task { task, answer } = &socket else { panic!("{socket:?}") };
    assert_eq!(*answer, Answer::Pass);
    assert_eq!((&task.hypervisor, &*task.id, task.secret.as_deref()), (&hypervisor, "0a-1", Some("s3cret")));
    assert_eq!(task.effect, Effect::Unsafe);
    assert!(!format!("{socket:?}").contains("s3cret"), "a secret is never printed");
    for bare in ["", "?secret=", "?secret"] {
        let socket = ask("GET", &format!("/1.0/operations/0a-1/websocket{bare}"), Upgrade::WebSocket);
        assert!(matches!(socket, Verdict::Denied(_)), "{bare}");
    }
    let sftp = ask("GET", "/1.0/instances/c1/sftp", Upgrade::WebSocket);
    assert!(
        matches!(sftp, Verdict::Operation { operation, .. } if operation.action == Action::GuestExec && operation.effect == Effect::Unsafe)
    );
}

// SEC-040, and what the table's reader enforces, seen from outside.
#[test]
fn nothing_that_changes_something_is_a_view_or_safe() {
    let table = lxd();
    assert!(table.entries().len() > 150);
    for entry in table.entries() {
        if !matches!(entry.method.as_str(), "GET" | "HEAD") {
            assert_ne!(entry.action, Some(Action::View), "{entry:?}");
            assert_eq!(entry.effect, Effect::Unsafe, "{entry:?}");
        }
        if let Some(action) = entry.action {
            assert!(action.is_grantable() && !action.is_own(), "{entry:?}");
        }
    }
    // The query never makes another path of it.
    assert!(told("DELETE", "/1.0/instances/c1?x=/1.0/instances").starts_with("denied"));
}

// SEC-153: LXD answers a POST with an operation, and an operation may carry the secrets of its channels.
#[test]
fn every_post_that_may_answer_with_an_operation_loses_its_secrets() {
    // These answer at once, without an operation, or with one that has no channels. A new POST belongs here only after
    // its answer was looked up.
    let plain = [
        "/1.0/instances/{name}/metadata/templates",
        "/1.0/instances/{name}/files",
        "/1.0/networks",
        "/1.0/networks/{network}",
        "/1.0/networks/{network}/forwards",
        "/1.0/networks/{network}/peers",
        "/1.0/network-acls",
        "/1.0/network-acls/{acl}",
        "/1.0/network-zones",
        "/1.0/network-zones/{zone}/records",
        "/1.0/profiles",
        "/1.0/profiles/{profile}",
        "/1.0/projects",
        "/1.0/projects/{named}",
    ];
    let mut unused: Vec<&str> = plain.to_vec();
    for entry in lxd().entries().iter().filter(|e| e.method == "POST") {
        let path = canonical(&entry.pattern.replace(['{', '}'], "")).unwrap();
        let asked = Asked { method: "POST", path: &path, query: None, upgrade: Upgrade::None, body: Body::Unread };
        let Verdict::Operation { answer, .. } = settled(&lxd(), "h", &asked, "{}") else { panic!("{entry:?}") };
        unused.retain(|p| *p != entry.pattern);
        assert_eq!(answer == Answer::Pass, plain.contains(&entry.pattern.as_str()), "{entry:?}");
    }
    assert_eq!(unused, [""; 0], "no longer in the table");
}

#[test]
fn every_entry_is_reached_by_its_own_pattern() {
    for entry in lxd().entries() {
        let path = canonical(&entry.pattern.replace(['{', '}'], "")).unwrap();
        let reached = [Upgrade::None, Upgrade::WebSocket].map(|upgrade| {
            let query = entry.pattern.ends_with("/websocket").then_some("secret=s");
            let asked = Asked { method: &entry.method, path: &path, query, upgrade, body: Body::Unread };
            // Of two rows of one operation, the one that moves a machine says so.
            let body = if entry.action == Some(Action::Migrate) { r#"{"migration": true}"# } else { "{}" };
            settled(&lxd(), "h", &asked, body)
        });
        let action = reached.iter().find_map(|v| match v {
            Verdict::Operation { operation, .. } => Some(operation.action),
            Verdict::Task { task, .. } => Some(task.action),
            Verdict::Visible { .. } => Some(Action::View),
            _ => None,
        });
        // The screenshot needs its query.
        if entry.action != Some(Action::ConsoleScreenshot) {
            assert_eq!(action, entry.action, "{entry:?}");
        }
    }
}

const HEAD: &str = "api = \"T\"\n[machine]\nname = \"name\"\nwithin = \"project\"\ndefault = \"default\"\n\
    [task]\nid = \"id\"\nsecret = \"secret\"\n[query]\neverywhere = []\n";

#[test]
fn a_table_with_a_wrong_row_is_refused() {
    let row = |text: &str| format!("[[rule]]\noperations = [{text}\n");
    let good = row("\"GET /a\"]\naction = \"view\"\nobject = \"hypervisor\"\neffect = \"safe\"");
    assert!(Table::read(&format!("{HEAD}{good}")).is_ok());
    let tail = "action = \"view\"\nobject = \"hypervisor\"\neffect = \"safe\"";
    for (bad, why) in [
        (good.clone(), "never match"),
        (row(&format!("]\n{tail}")), "no operation"),
        (row(&format!("\"GET a\"]\n{tail}")), "does not begin with /"),
        (row(&format!("\"GET /b/\"]\n{tail}")), "no part"),
        (row(&format!("\"GET\"]\n{tail}")), "METHOD /path"),
        (row(&format!("\"CONNECT /b\"]\n{tail}")), "no method"),
        (row(&format!("\"PUT /b\"]\n{tail}")), "changes something"),
        (row("\"PUT /b\"]\naction = \"view\"\nobject = \"hypervisor\"\neffect = \"unsafe\""), "changes something"),
        (row("\"PUT /b\"]\naction = \"storage\"\nobject = \"hypervisor\"\neffect = \"safe\""), "changes something"),
        (row("\"GET /b\"]\naction = \"viewx\"\nobject = \"hypervisor\"\neffect = \"safe\""), "not an action"),
        (row("\"GET /b\"]\naction = \"console\"\nobject = \"hypervisor\"\neffect = \"safe\""), "not an action"),
        (row("\"GET /b\"]\naction = \"deny\"\nobject = \"hypervisor\"\neffect = \"safe\""), "cannot be asked"),
        (row("\"GET /b\"]\naction = \"read\"\nobject = \"hypervisor\"\neffect = \"safe\""), "cannot be asked"),
        (row("\"GET /b\"]\naction = \"console.view\"\nobject = \"hypervisor\"\neffect = \"safe\""), "cannot be asked"),
        (row("\"GET /b\"]\naction = \"view\"\nobject = \"machine\"\neffect = \"safe\""), "names no machine"),
        (row("\"GET /b/{n}\"]\naction = \"view\"\nobject = \"task\"\neffect = \"safe\""), "names no task"),
        (row("\"GET /b\"]\naction = \"view\"\nobject = \"hypervisor\""), "needed"),
        (row("\"GET /b\"]\ndeny = \"\""), "says why"),
        (row(&format!("\"GET /b\"]\ndeny = \"no\"\n{tail}")), "nothing else"),
        (row(&format!("\"GET /b\"]\n{tail}\nanswer = \"events\"")), "events"),
        (row(&format!("\"GET /b\"]\n{tail}\nupgrade = \"always\"")), "not safe"),
        (row(&format!("\"GET /b\"]\n{tail}\nanswer = \"console-secrets\"")), "belong to a machine"),
        (row(&format!("\"GET /b\"]\n{tail}\nunheard = 1")), "unheard"),
        (row(&format!("\"GET /b\"]\n{tail}\nalso = [\"console.view\"]")), "cannot be asked here"),
        (row(&format!("\"GET /b\"]\n{tail}\nalso = [\"x\"]")), "not an action"),
        (
            format!("[[refuse]]\nunder = \"/b\"\nreason = \"x\"\n{}", row(&format!("\"GET /b/c\"]\n{tail}"))),
            "is refused",
        ),
        (
            format!(
                "{}{}",
                row(&format!("\"GET /b\"]\n{tail}")),
                row(&format!("\"GET /b\"]\nwhen = {{ a = \"1\" }}\n{tail}"))
            ),
            "never match",
        ),
    ] {
        match Table::read(&format!("{HEAD}{good}{bad}")) {
            Err(e) => assert!(e.to_string().contains(why), "{bad}: {e}"),
            Ok(_) => panic!("was taken: {bad}"),
        }
    }
}

// SEC-017: two pairs of project and name never make one machine.
proptest! {
    #[test]
    fn project_and_name_make_one_machine_and_no_other(
        a in ("[a-z:.-]{0,4}", "[a-z:.-]{1,4}"), b in ("[a-z:.-]{0,4}", "[a-z:.-]{1,4}"),
    ) {
        let machine = |(project, name): &(String, String)| {
            let path = canonical(&format!("/1.0/instances/{name}")).ok()?;
            let query = format!("project={project}");
            let asked = Asked { method: "GET", path: &path, query: Some(&query), upgrade: Upgrade::None, body: Body::Unread };
            match lxd().classify(&"h".parse().ok()?, &asked) {
                Verdict::Operation { operation, .. } => Some(operation.resource),
                _ => None,
            }
        };
        let of = |(project, name): &(String, String)| (if project.is_empty() { "default".to_owned() } else { project.clone() }, name.clone());
        if let (Some(x), Some(y)) = (machine(&a), machine(&b)) {
            prop_assert_eq!(x == y, of(&a) == of(&b));
        }
    }

    // SEC-042: what was decided is what is sent, and reads the same when it arrives.
    #[test]
    fn a_decision_is_the_same_for_the_path_that_is_sent(
        method in "GET|PUT|POST|DELETE",
        raw in "/1\\.0/(instances|images|operations|%69nstances|storage-pools)(/([a-z0-9.-]|%[0-7][0-9a-f]){1,6}){0,3}",
    ) {
        if let Ok(path) = canonical(&raw) {
            let sent = canonical(path.as_str()).unwrap();
            let h = "h".parse().unwrap();
            let ask = |path| lxd().classify(&h, &Asked { method: &method, path, query: None, upgrade: Upgrade::None, body: Body::Unread });
            prop_assert_eq!(ask(&path), ask(&sent));
        }
    }
}
