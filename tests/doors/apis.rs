// SPDX-License-Identifier: Apache-2.0
//! The other doors: hypervisors' APIs, and health.

use crate::support::{
    FakeLxd, FakePve, Person, TestGateway,
    gateway::free_port,
    peers::Peer,
    trail::{Left, Log},
};
use reqwest::{Client, Method, StatusCode, header};

/// What one row of an API's table answers to nobody, to the wrong role, and to the right one. Tools send no fresh code:
/// a token is as fresh as the moment it was made.
type Call = (&'static str, &'static str, u16, u16, u16);

const LXD: [Call; 12] = [
    // Everybody who sees a machine sees a part of these.
    ("GET", "/1.0", 401, 200, 200),
    ("GET", "/1.0/instances", 401, 200, 200),
    ("GET", "/1.0/projects", 401, 200, 200),
    ("GET", "/1.0/projects/default", 401, 403, 200),
    ("GET", "/1.0/instances/c1", 401, 200, 200),
    // Not to be known about.
    ("GET", "/1.0/instances/c2", 401, 404, 200),
    ("PUT", "/1.0/instances/c1/state", 401, 403, 200),
    ("DELETE", "/1.0/instances/c2", 401, 404, 200),
    ("POST", "/1.0/images", 401, 403, 200),
    ("GET", "/1.0/certificates", 401, 403, 200),
    // The sign-in is for certificates alone.
    ("POST", "/1.0/certificates", 401, 403, 200),
    // Never passed on, whoever asks.
    ("GET", "/1.0/unheard-of", 403, 403, 403),
];

const INCUS: [Call; 7] = [
    ("GET", "/1.0/instances/c1/nvram", 401, 200, 200),
    ("GET", "/1.0/instances/c2/nvram", 401, 404, 200),
    // Reads that are more than a view.
    ("GET", "/1.0/instances/c1/debug/memory", 401, 403, 200),
    ("GET", "/1.0/instances/c1/access", 401, 403, 200),
    ("GET", "/1.0/storage-pools/p/buckets/b/keys", 401, 403, 200),
    ("POST", "/1.0/instances/c1/port-forward", 401, 403, 200),
    ("GET", "/1.0/unheard-of", 403, 403, 403),
];

const PROXMOX: [Call; 12] = [
    // Everybody who sees a machine sees a part of these.
    ("GET", "/api2/json/version", 401, 200, 200),
    ("GET", "/api2/json/nodes", 401, 200, 200),
    ("GET", "/api2/json/nodes/pve1/qemu/100/status/current", 401, 200, 200),
    // Not to be known about.
    ("GET", "/api2/json/nodes/pve1/qemu/200/status/current", 401, 404, 200),
    ("POST", "/api2/json/nodes/pve1/qemu/100/status/start", 401, 403, 200),
    ("DELETE", "/api2/json/nodes/pve1/qemu/200", 401, 404, 200),
    ("POST", "/api2/json/nodes/pve1/storage/local/upload", 401, 403, 200),
    ("GET", "/api2/json/access/users", 401, 403, 200),
    // Never passed on, whoever asks; signing in is the gateway's own.
    ("POST", "/api2/json/nodes/pve1/qemu/100/vncproxy", 403, 403, 403),
    ("POST", "/api2/json/nodes/pve1/execute", 403, 403, 403),
    ("GET", "/api2/json/unheard-of", 403, 403, 403),
    ("POST", "/api2/json/access/ticket", 401, 401, 401),
];

const KUBEVIRT: [Call; 12] = [
    // Everybody who sees a machine sees a part of these.
    ("GET", "/apis", 401, 200, 200),
    ("GET", "/apis/kubevirt.io/v1/virtualmachines", 401, 200, 200),
    ("GET", "/apis/kubevirt.io/v1/namespaces/blue/virtualmachines/web-1", 401, 200, 200),
    // Not to be known about.
    ("GET", "/apis/kubevirt.io/v1/namespaces/red/virtualmachines/payroll", 401, 404, 200),
    ("PUT", "/apis/subresources.kubevirt.io/v1/namespaces/blue/virtualmachineinstances/web-1/reset", 401, 403, 200),
    (
        "GET",
        "/apis/subresources.kubevirt.io/v1/namespaces/blue/virtualmachineinstances/web-1/guestosinfo",
        401,
        200,
        200,
    ),
    ("DELETE", "/apis/kubevirt.io/v1/namespaces/blue/virtualmachines", 401, 403, 200),
    ("DELETE", "/apis/kubevirt.io/v1/namespaces/red/virtualmachines/payroll", 401, 404, 200),
    // Never passed on, whoever asks.
    ("GET", "/api/v1/namespaces/blue/secrets", 403, 403, 403),
    ("GET", "/apis/apps/v1/deployments", 403, 403, 403),
    ("GET", "/apis/kubevirt.io/v1/watch/virtualmachines", 403, 403, 403),
    ("GET", "/metrics", 403, 403, 403),
];

const OVIRT: [Call; 11] = [
    // Everybody who sees a machine sees a part of these.
    ("GET", "/ovirt-engine/api", 401, 200, 200),
    ("GET", "/ovirt-engine/api/vms", 401, 200, 200),
    ("GET", "/ovirt-engine/api/hosts", 401, 200, 200),
    ("GET", "/ovirt-engine/api/vms/f550508b-90f5-5cbd-a5f6-620f6389b1c3", 401, 200, 200),
    // Not to be known about.
    ("GET", "/ovirt-engine/api/vms/fc927644-8a85-5fa6-aea5-6f0d2c0c8a6e", 401, 404, 200),
    ("POST", "/ovirt-engine/api/vms/fc927644-8a85-5fa6-aea5-6f0d2c0c8a6e/reboot", 401, 404, 200),
    ("POST", "/ovirt-engine/api/vms/f550508b-90f5-5cbd-a5f6-620f6389b1c3/reboot", 401, 403, 200),
    ("GET", "/ovirt-engine/api/tags", 401, 403, 200),
    // Never passed on, whoever asks.
    ("POST", "/ovirt-engine/api/vms/f550508b-90f5-5cbd-a5f6-620f6389b1c3/ticket", 403, 403, 403),
    ("GET", "/ovirt-engine/api/imagetransfers", 403, 403, 403),
    ("GET", "/ovirt-engine/api/unheard-of", 403, 403, 403),
];

/// One API behind a gateway, and how to look at what came there.
struct Api<'a> {
    gateway: &'a TestGateway,
    port: u16,
    /// The header that shows somebody's token.
    shown: fn(&str, &str) -> String,
    asked: &'a dyn Fn(&str) -> usize,
    swallowed: &'a dyn Fn() -> u64,
    /// Paths with one of these the gateway itself does not ask for: only what it does not can be counted.
    counted: &'a [&'a str],
}

impl Api<'_> {
    async fn is_closed(&self, calls: &[Call], machine: &str) {
        let gateway = self.gateway;
        let ada = Person::first_administrator(gateway, "ada").await;
        let bob = ada.invite("bob").await;
        ada.grant("bob", "viewer", "machine", machine).await;
        for _ in 0..100 {
            let list: serde_json::Value = bob.get("/api/v1/machines").await.json().await.expect("JSON");
            if list["machines"].as_array().is_some_and(|m| !m.is_empty()) {
                break;
            }
            tokio::time::sleep(std::time::Duration::from_millis(100)).await;
        }
        let hypervisor = machine.split('/').next().expect("a name");
        let (right, wrong) = (ada.token(hypervisor).await, bob.token(hypervisor).await);
        let client = Client::builder().tls_certs_only([gateway.ca()]).build().expect("a client");
        let mut log = Log::of(gateway);
        for &(method, path, to_nobody, to_wrong, to_right) in calls {
            for (who, name, token, status) in [
                ("nobody", "", "", to_nobody),
                ("wrong", "bob", &*wrong, to_wrong),
                ("right", "ada", &*right, to_right),
            ] {
                let method: Method = method.parse().expect("a method");
                let mut request = client.request(method.clone(), format!("https://localhost:{}{path}", self.port));
                if !token.is_empty() {
                    request = request.header(header::AUTHORIZATION, (self.shown)(name, token));
                }
                if ["/images", "/upload"].iter().any(|e| path.ends_with(e)) {
                    request = request.body(vec![7; 4096]);
                }
                log.settle().await;
                let swallowed = (self.swallowed)();
                let before = (self.asked)(&format!("{method} {path}"));
                let answer = request.send().await.expect("an answer");
                assert_eq!(answer.status().as_u16(), status, "{method} {path} to {who}");
                answer.bytes().await.expect("an answer");
                let through = status == 200;
                let kind = "api".to_owned();
                let expected = if through { Left::Bracket { kind } } else { Left::Denial { kind } };
                assert_eq!(log.left(&expected).await, expected, "{method} {path} to {who}");
                let asked = (self.asked)(&format!("{method} {path}")) > before;
                assert!(asked || !through, "{method} {path} to {who}: it never came there");
                assert!(through || (self.swallowed)() == swallowed, "{method} {path} to {who}: bytes came through");
                if self.counted.iter().any(|part| path.contains(part)) {
                    assert_eq!(asked, through, "{method} {path} to {who}");
                }
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_api_is_closed_without_a_token_and_to_the_wrong_role() {
    let lxd = FakeLxd::start(&["c1", "c2"]);
    let port = free_port();
    let gateway = TestGateway::start(&lxd.config("lxd", &format!("port = {port}"))).await;
    let api = Api {
        gateway: &gateway,
        port,
        shown: |_, token| format!("Bearer {token}"),
        asked: &|beginning| lxd.asked(beginning),
        swallowed: &|| lxd.swallowed(),
        counted: &["c1", "c2", "un"],
    };
    api.is_closed(&LXD, "lxd/default:c1").await;
    gateway.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_api_of_incus_is_closed_without_a_token_and_to_the_wrong_role() {
    let incus = FakeLxd::start(&["c1", "c2"]);
    let port = free_port();
    let gateway = TestGateway::start(&incus.config_of_incus("incus", &format!("port = {port}"))).await;
    let api = Api {
        gateway: &gateway,
        port,
        shown: |_, token| format!("Bearer {token}"),
        asked: &|beginning| incus.asked(beginning),
        swallowed: &|| incus.swallowed(),
        counted: &["c1", "c2", "un"],
    };
    api.is_closed(&INCUS, "incus/default:c1").await;
    gateway.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_api_of_proxmox_is_closed_without_a_token_and_to_the_wrong_role() {
    let pve = FakePve::start(None).await;
    let port = free_port();
    let gateway = TestGateway::start(&pve.config("pve", port)).await;
    let api = Api {
        gateway: &gateway,
        port,
        shown: |name, token| format!("PVEAPIToken={name}@portcullis!tool={token}"),
        asked: &|beginning| pve.came(beginning).len(),
        swallowed: &|| pve.came("").iter().map(|c| c.body.len() as u64).sum(),
        counted: &["/api2/"],
    };
    api.is_closed(&PROXMOX, "pve/100").await;
    assert_eq!(pve.wrongs(), [""; 0]);
    gateway.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_api_of_ovirt_is_closed_without_a_token_and_to_the_wrong_role() {
    let ticket = tempfile::NamedTempFile::new().expect("a file");
    std::fs::write(ticket.path(), "unused").expect("written");
    let engine = Peer::ovirt("127.0.0.1:5900", &ticket.path().display().to_string());
    let port = free_port();
    let gateway = TestGateway::start(&format!(
        "[[hypervisors]]\nname = \"rhv\"\nkind = \"ovirt\"\naddress = {:?}\nusername = \"gateway@internal\"\n\
         password_file = {:?}\n[hypervisors.tls]\nca_file = {:?}\n[hypervisors.api]\nport = {port}\n",
        engine.get("ADDRESS"),
        engine.get("PASSWORD_FILE"),
        engine.get("CA_FILE"),
    ))
    .await;
    let log = || std::fs::read_to_string(engine.get("LOG")).expect("the log");
    let api = Api {
        gateway: &gateway,
        port,
        shown: |_, token| format!("Bearer {token}"),
        asked: &|beginning| log().matches(&format!("\nasked {} ", beginning.replace("/ovirt-engine/api", ""))).count(),
        swallowed: &|| log().matches("\nasked POST").count() as u64,
        counted: &["/ovirt-engine/"],
    };
    api.is_closed(&OVIRT, "rhv/f550508b-90f5-5cbd-a5f6-620f6389b1c3").await;
    assert!(!log().contains("wrong"), "{}", log());
    gateway.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn health_tells_everybody_only_that_it_is_well() {
    let at = format!("127.0.0.1:{}", free_port());
    let gateway = TestGateway::start(&format!("[health]\nlisten = \"{at}\"\n")).await;
    Person::first_administrator(&gateway, "ada").await;
    let client = Client::new();
    for (method, path, status) in [
        ("GET", "/healthz", 200),
        ("GET", "/readyz", 200),
        ("GET", "/metrics", 200),
        ("POST", "/metrics", 405),
        ("POST", "/healthz", 405),
        // Nothing of the portal stands there.
        ("GET", "/", 404),
        ("GET", "/users", 404),
        ("GET", "/sign-in", 404),
        ("GET", "/api/v1/machines", 404),
        ("GET", "/1.0", 404),
    ] {
        let method: Method = method.parse().expect("a method");
        let answer = client.request(method.clone(), format!("http://{at}{path}")).send().await.expect("an answer");
        assert_eq!(answer.status().as_u16(), status, "{method} {path}");
        let text = answer.text().await.expect("text");
        // As a word: the number of a request may hold these letters.
        let mut words = text.split(|c: char| !c.is_alphanumeric());
        assert!(words.all(|word| word != "ada"), "{method} {path} names a person: {text}");
    }
    // And nothing of it on the portal.
    let ada = Person::stranger(&gateway, "nobody");
    for path in ["/healthz", "/readyz", "/metrics"] {
        assert_eq!(ada.get(path).await.status(), StatusCode::NOT_FOUND, "{path}");
    }
    gateway.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_api_of_kubevirt_is_closed_without_a_token_and_to_the_wrong_role() {
    let cluster = Peer::kubevirt("127.0.0.1:1");
    let port = free_port();
    let gateway = TestGateway::start(&format!(
        "[[hypervisors]]\nname = \"kv\"\nkind = \"kubevirt\"\naddress = {:?}\ntoken_file = {:?}\n\
         [hypervisors.tls]\nca_file = {:?}\n[hypervisors.api]\nport = {port}\n",
        cluster.get("ADDRESS"),
        cluster.get("TOKEN_FILE"),
        cluster.get("CA_FILE"),
    ))
    .await;
    let asked = |beginning: &str| {
        let log = std::fs::read_to_string(cluster.get("LOG")).expect("the log");
        log.lines().filter(|l| l.strip_prefix("asked ").is_some_and(|l| l.starts_with(beginning))).count()
    };
    let api = Api {
        gateway: &gateway,
        port,
        shown: |_, token| format!("Bearer {token}"),
        asked: &asked,
        swallowed: &|| 0,
        counted: &["/namespaces/", "/apps/", "/metrics", "/watch/"],
    };
    api.is_closed(&KUBEVIRT, "kv/blue:web-1").await;
    gateway.stop().await;
}
