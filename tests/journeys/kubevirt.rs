// SPDX-License-Identifier: Apache-2.0
//! KubeVirt through the gateway: an unchanged kubectl with a token of ours, lists and watches that show one's own machines
//! only, power and screens as virtctl asks for them, and a cluster that lies. The cluster is simulated; kubectl and
//! Kubernetes's client for Python are real.
//!
//! virtctl itself is in no package archive. Its calls are made here as KubeVirt's own client makes them:
//! `staging/src/kubevirt.io/client-go/kubecli/vm.go` (PUT of a subresource, options as JSON) and `.../async.go` (a
//! WebSocket of the subprotocol plain.kubevirt.io with the token as a header).

use crate::support::{
    Person, TestGateway,
    gateway::{files, free_port, letters},
    lab::ticket_for,
    page,
    peers::Peer,
    screen::Screen,
};
use futures_util::{SinkExt as _, StreamExt as _};
use reqwest::{Client, Method, StatusCode, header};
use serde_json::{Value, json};
use std::{collections::BTreeMap, path::Path, process::Output, sync::Arc, time::Duration};
use tokio::net::TcpStream;
use tokio_rustls::{TlsConnector, client::TlsStream};
use tokio_tungstenite::{
    WebSocketStream, client_async,
    tungstenite::{Error, Message, client::IntoClientRequest as _},
};

const KV: &str = "/apis/kubevirt.io/v1";
const SUB: &str = "/apis/subresources.kubevirt.io/v1";
/// What stands in objects and may come out nowhere; the gateway's own token begins with the first.
const CANARY: &str = "canary-";

struct Lab {
    guest: Peer,
    cluster: Peer,
    port: u16,
    gateway: TestGateway,
}

async fn lab() -> Lab {
    let guest = Peer::qemu("web-1", "none");
    let cluster = Peer::kubevirt(guest.get("VNC"));
    let port = free_port();
    let gateway = TestGateway::start(&format!(
        "[[hypervisors]]\nname = \"kv\"\nkind = \"kubevirt\"\naddress = {:?}\ntoken_file = {:?}\n\
         [hypervisors.tls]\nca_file = {:?}\n[hypervisors.api]\nport = {port}\n",
        cluster.get("ADDRESS"),
        cluster.get("TOKEN_FILE"),
        cluster.get("CA_FILE"),
    ))
    .await;
    Lab { guest, cluster, port, gateway }
}

async fn sees(person: &Person<'_>, id: &str, state: &str) {
    for _ in 0..150 {
        let list: Value = person.get("/api/v1/machines").await.json().await.expect("JSON");
        if list["machines"].as_array().is_some_and(|all| all.iter().any(|m| m["id"] == id && m["state"] == state)) {
            return;
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    panic!("{} does not see that {id} is {state}", person.name);
}

fn happens(cluster: &Peer, what: &str, is: bool) {
    let file = Path::new(cluster.get("DIR")).join(what);
    if is { std::fs::write(file, "").expect("written") } else { std::fs::remove_file(file).expect("removed") }
}

fn log(cluster: &Peer) -> String {
    std::fs::read_to_string(cluster.get("LOG")).expect("the log")
}

/// kubectl with a configuration of its own.
struct Kubectl<'a> {
    cluster: &'a Peer,
    program: &'a str,
    config: String,
}

impl<'a> Kubectl<'a> {
    fn new(lab: &'a Lab, name: &str, token: &str) -> Self {
        Self::of(lab, lab.cluster.get("KUBECTL"), name, token)
    }

    fn of(lab: &'a Lab, program: &'a str, name: &str, token: &str) -> Self {
        let file = lab.cluster.dir().join(format!("{name}.kubeconfig"));
        let config = json!({
            "apiVersion": "v1", "kind": "Config", "current-context": "gateway",
            "clusters": [{"name": "kv", "cluster": {
                "server": format!("https://localhost:{}", lab.port),
                "certificate-authority": lab.gateway.dir.path().join("tls/ca.pem"),
            }}],
            "users": [{"name": name, "user": {"token": token}}],
            "contexts": [{"name": "gateway", "context": {"cluster": "kv", "user": name, "namespace": "blue"}}],
        });
        std::fs::write(&file, config.to_string()).expect("written");
        Self { cluster: &lab.cluster, program, config: file.display().to_string() }
    }

    #[expect(clippy::disallowed_methods, reason = "tests run clients")]
    fn run(&self, arguments: &[&str]) -> Output {
        let mut kubectl = std::process::Command::new(self.program);
        kubectl.args(arguments).env_clear().env("HOME", self.cluster.dir()).env("KUBECONFIG", &self.config);
        kubectl.output().expect("kubectl runs")
    }

    /// What it says; it must succeed.
    fn said(&self, arguments: &[&str]) -> String {
        let out = self.run(arguments);
        let why = String::from_utf8_lossy(&out.stderr);
        assert!(out.status.success(), "{arguments:?}: {why}");
        String::from_utf8(out.stdout).expect("text")
    }

    /// Lets it go on, with what it says in a file.
    #[expect(clippy::disallowed_methods, reason = "tests run clients")]
    fn follow(&self, arguments: &[&str]) -> Following {
        let file = self.cluster.dir().join("followed");
        let mut kubectl = std::process::Command::new(self.program);
        kubectl.args(arguments).env_clear().env("HOME", self.cluster.dir()).env("KUBECONFIG", &self.config);
        let out = std::fs::File::create(&file).expect("a file");
        Following { kubectl: kubectl.stdout(out).spawn().expect("kubectl runs"), file }
    }

    /// Why it does not do it.
    fn refused(&self, arguments: &[&str]) -> String {
        let out = self.run(arguments);
        assert!(!out.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&out.stdout));
        String::from_utf8(out.stderr).expect("text")
    }
}

/// A kubectl that goes on until it is dropped.
struct Following {
    kubectl: std::process::Child,
    file: std::path::PathBuf,
}

impl Following {
    /// The names of its lines, as soon as there are so many.
    async fn names(&self, count: usize) -> Vec<String> {
        for _ in 0..100 {
            let said = std::fs::read_to_string(&self.file).expect("text");
            let names: Vec<String> =
                said.lines().filter_map(|l| Some(l.split_whitespace().nth(1)?.to_owned())).collect();
            if names.len() >= count {
                return names;
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        panic!("{:?}", std::fs::read_to_string(&self.file));
    }
}

impl Drop for Following {
    fn drop(&mut self) {
        self.kubectl.kill().ok();
        self.kubectl.wait().ok();
    }
}

/// Requests with a token.
struct Tool {
    client: Client,
    port: u16,
    token: String,
}

impl Tool {
    fn new(lab: &Lab, token: &str) -> Self {
        let client = Client::builder().tls_certs_only([lab.gateway.ca()]).build().expect("a client");
        Self { client, port: lab.port, token: token.to_owned() }
    }

    fn request(&self, method: Method, target: &str) -> reqwest::RequestBuilder {
        let url = format!("https://localhost:{}{target}", self.port);
        self.client.request(method, url).bearer_auth(&self.token)
    }

    async fn call(&self, method: Method, target: &str, media: &str, body: &str) -> (StatusCode, Value) {
        let mut request = self.request(method, target);
        if !body.is_empty() {
            request = request.header(header::CONTENT_TYPE, media).body(body.to_owned());
        }
        let answer = request.send().await.expect("an answer");
        let (status, text) = (answer.status(), answer.text().await.expect("a body"));
        assert!(!text.contains(CANARY), "a secret came out: {text}");
        (status, serde_json::from_str(&text).unwrap_or(Value::Null))
    }

    async fn get(&self, target: &str) -> (StatusCode, Value) {
        self.call(Method::GET, target, "", "").await
    }

    async fn patch(&self, target: &str, body: &Value) -> (StatusCode, Value) {
        self.call(Method::PATCH, target, "application/merge-patch+json", &body.to_string()).await
    }

    async fn watch(&self, target: &str) -> Watch {
        let answer = self.request(Method::GET, target).send().await.expect("an answer");
        assert_eq!(answer.status(), StatusCode::OK, "{target}");
        Watch { answer, early: Vec::new() }
    }

    /// Opens a stream as virtctl does.
    async fn stream(&self, lab: &Lab, target: &str, protocol: &str) -> Result<Stream, u16> {
        let mut request = format!("wss://localhost:{}{target}", self.port).into_client_request().expect("a request");
        let headers = request.headers_mut();
        headers.insert(header::AUTHORIZATION, format!("Bearer {}", self.token).parse().expect("a value"));
        headers.insert(header::SEC_WEBSOCKET_PROTOCOL, protocol.parse().expect("a value"));
        let tcp = TcpStream::connect(("localhost", self.port)).await.expect("a connection");
        let name = rustls::pki_types::ServerName::try_from("localhost").expect("a name");
        let tls = TlsConnector::from(Arc::new(lab.gateway.tls())).connect(name, tcp).await.expect("TLS");
        match client_async(request, tls).await {
            Ok((stream, head)) => {
                assert_eq!(head.headers()[header::SEC_WEBSOCKET_PROTOCOL], "plain.kubevirt.io");
                Ok(stream)
            }
            Err(Error::Http(answer)) => Err(answer.status().as_u16()),
            Err(error) => panic!("{target}: {error}"),
        }
    }
}

type Stream = WebSocketStream<TlsStream<TcpStream>>;

/// A watch that goes on.
struct Watch {
    answer: reqwest::Response,
    early: Vec<u8>,
}

impl Watch {
    /// The next event that is no bookmark; none when it has ended.
    async fn event(&mut self) -> Option<Value> {
        loop {
            if let Some(at) = self.early.iter().position(|b| *b == b'\n') {
                let line: Vec<u8> = self.early.drain(..=at).collect();
                let event: Value = serde_json::from_slice(&line).expect("JSON");
                assert!(!event.to_string().contains(CANARY), "a secret came out: {event}");
                if event["type"] != "BOOKMARK" {
                    return Some(event);
                }
                continue;
            }
            let part = tokio::time::timeout(Duration::from_secs(10), self.answer.chunk()).await.expect("in time");
            self.early.extend_from_slice(&part.expect("a part")?);
        }
    }

    /// The next event as its type and what it is about.
    async fn told(&mut self) -> (String, String) {
        let event = self.event().await.expect("it goes on");
        let name = event.pointer("/object/metadata/name").and_then(Value::as_str).unwrap_or_default();
        (event["type"].as_str().expect("a type").to_owned(), name.to_owned())
    }

    /// That nothing comes for a while.
    async fn is_silent(&mut self) {
        let more = tokio::time::timeout(Duration::from_millis(1500), self.event()).await;
        assert!(more.is_err(), "{more:?}");
    }
}

fn names(list: &Value) -> Vec<&str> {
    let items = list["items"].as_array().expect("items");
    items.iter().filter_map(|i| i["metadata"]["name"].as_str()).collect()
}

/// What a step of the client came to, by the step's name.
fn steps(said: &str) -> BTreeMap<String, Value> {
    let lines = said.lines().map(|l| serde_json::from_str::<Value>(l).expect("JSON"));
    lines.map(|l| (l["step"].as_str().expect("a step").to_owned(), l["value"].clone())).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_unchanged_kubectl_does_what_its_owner_may_and_sees_nothing_else() {
    let lab = lab().await;
    let ada = Person::first_administrator(&lab.gateway, "ada").await;
    let bob = ada.invite("bob").await;
    ada.grant("bob", "operator", "tag", "web").await;
    sees(&bob, "blue:web-1", "running").await;
    sees(&bob, "blue:dns-1", "off").await;
    sees(&ada, "red:payroll", "running").await;
    sees(&ada, "red:alone", "running").await;
    let (of_bob, of_ada) = (bob.token("kv").await, ada.token("kv").await);
    let kubectl = Kubectl::new(&lab, "bob", &of_bob);

    assert_eq!(
        kubectl.said(&["get", "vms", "-A", "-o", "name"]).lines().collect::<Vec<_>>(),
        ["virtualmachine.kubevirt.io/dns-1", "virtualmachine.kubevirt.io/web-1"]
    );
    let table = kubectl.said(&["get", "vms"]);
    assert!(table.contains("web-1") && table.contains("Running") && table.contains("NAME"), "{table}");
    let all = kubectl.said(&["get", "vms,vmis,vmsnapshot", "-A"]);
    for (hidden, seen) in [("payroll", "before-web-1"), ("red", "blue"), ("alone", "web-1")] {
        assert!(!all.contains(hidden) && all.contains(seen), "{all}");
    }
    assert_eq!(kubectl.said(&["get", "vms", "-n", "red", "-o", "name"]), "");
    let yaml = kubectl.said(&["get", "vm", "web-1", "-o", "yaml"]);
    assert!(yaml.contains("runStrategy: Manual") && yaml.contains("[not shown by the gateway]"), "{yaml}");
    assert!(!yaml.contains(CANARY), "{yaml}");
    let absent = kubectl.refused(&["get", "vm", "nobody", "-n", "red"]);
    assert!(absent.contains("NotFound"), "{absent}");
    assert_eq!(kubectl.refused(&["get", "vm", "payroll", "-n", "red"]), absent, "what is hidden is not there");
    let resources = kubectl.said(&["api-resources", "-o", "name"]);
    assert!(resources.contains("virtualmachines.kubevirt.io"), "{resources}");
    for foreign in ["deployments", "secrets", "datavolumes", "pods"] {
        assert!(!resources.contains(foreign), "{resources}");
    }
    let none = kubectl.refused(&["get", "secrets"]);
    assert!(none.contains("doesn't have a resource type"), "{none}");
    assert!(kubectl.said(&["version"]).contains("v1.32.4"));
    for (arguments, why) in [
        (&["patch", "vm", "web-1", "--type", "merge", "-p", r#"{"spec":{"template":{}}}"#][..], "does not know"),
        (&["annotate", "vm", "web-1", "note=x"], "Forbidden"),
        (&["label", "vm", "web-1", "tag.portcullis/red="], "Forbidden"),
        (&["delete", "vm", "web-1"], "Forbidden"),
        (&["delete", "vm", "payroll", "-n", "red"], "NotFound"),
        (&["delete", "vms", "--all"], "Forbidden"),
    ] {
        let said = kubectl.refused(arguments);
        assert!(said.contains(why), "{arguments:?}: {said}");
    }

    // An administrator changes and removes them.
    let kubectl = Kubectl::new(&lab, "ada", &of_ada);
    let patched =
        kubectl.said(&["patch", "vm", "dns-1", "--type", "merge", "-p", r#"{"metadata":{"annotations":{"n":"v"}}}"#]);
    assert!(patched.contains("patched"), "{patched}");
    let steps_of = r#"[{"op":"add","path":"/metadata/annotations/m","value":"w"}]"#;
    kubectl.said(&["patch", "vm", "dns-1", "--type", "json", "-p", steps_of]);
    let made = kubectl.said(&["get", "vm", "dns-1", "-o", "jsonpath={.metadata.annotations}"]);
    assert_eq!(serde_json::from_str::<Value>(&made).expect("JSON"), json!({"n": "v", "m": "w"}));
    let strategic = kubectl.refused(&["patch", "vm", "dns-1", "--type", "strategic", "-p", "{}"]);
    assert!(!strategic.is_empty());
    assert!(kubectl.said(&["delete", "vm", "dns-1", "--timeout", "20s"]).contains("deleted"));
    assert!(kubectl.refused(&["get", "vm", "dns-1"]).contains("NotFound"));

    // A second client.
    let ca = lab.gateway.dir.path().join("tls/ca.pem").display().to_string();
    ada.grant("bob", "administrator", "machine", "kv/blue:web-1").await;
    let said = lab.cluster.client(&[&format!("https://localhost:{}", lab.port), &ca, &of_bob]);
    assert!(!said.contains(CANARY), "{said}");
    let mut step = steps(&said);
    let mut take = |name: &str| step.remove(name).unwrap_or_else(|| panic!("no step {name}: {said}"));
    assert_eq!(take("wrong")["status"], 401);
    assert_eq!(take("machines"), json!(["web-1"]), "a page of one tells not how many there are");
    assert_eq!(take("list"), json!(["resourceVersion"]));
    let absent = take("absent");
    assert_eq!(absent, json!({"status": 404, "kind": "Status", "reason": "NotFound"}));
    assert_eq!(take("foreign"), absent);
    assert_eq!(take("foreign snapshot"), absent);
    assert_eq!(take("told apart"), false, "what is hidden is refused in the words for what is not there");
    assert_eq!(take("secrets")["status"], 403);
    assert_eq!(take("snapshots"), json!(["before-web-1"]));
    assert_eq!(take("stale")["status"], 403, "what stands for a secret is not written back");
    assert_eq!(take("conflict"), json!({"status": 409, "kind": "Status", "reason": "Conflict"}));
    assert_eq!(take("followed"), json!([["ADDED", "web-1"]]));
    assert!(step.is_empty(), "{step:?}");

    let log = log(&lab.cluster);
    assert!(!log.contains("wrong") && !log.contains(&of_bob), "{log}");
    for never in ["/secrets", "continue", "GET /apis/apps", "/namespaces/red/virtualmachines/payroll "] {
        assert!(!log.contains(never), "{never} came through:\n{log}");
    }
    let shown = serde_json::to_string(&lab.gateway.search(&["--limit", "1000"])).expect("JSON");
    let dir = lab.gateway.stop().await;
    let mut kept = Vec::new();
    files(dir.path(), &mut kept);
    for secret in [CANARY, &of_bob, &of_ada] {
        assert!(!shown.contains(secret), "{secret} is in the trail");
        for (place, bytes) in &kept {
            assert!(!letters(bytes).contains(secret), "{secret} is in {place}");
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_kubectl_applies_changes_and_deletes_and_says_why_it_may_not() {
    let lab = lab().await;
    let ada = Person::first_administrator(&lab.gateway, "ada").await;
    let bob = ada.invite("bob").await;
    ada.grant("bob", "operator", "tag", "web").await;
    sees(&bob, "blue:web-1", "running").await;
    sees(&ada, "red:payroll", "running").await;
    let (of_bob, of_ada) = (bob.token("kv").await, ada.token("kv").await);
    // Debian's is of 2021, and asks for other things than the one that is installed, where that is newer.
    let mut programs = vec![lab.cluster.get("KUBECTL"), lab.cluster.get("DEBIANS")];
    programs.dedup();
    for (n, program) in programs.into_iter().enumerate() {
        let (root, own) = (Kubectl::of(&lab, program, "ada", &of_ada), Kubectl::of(&lab, program, "bob", &of_bob));
        let file = lab.cluster.dir().join("machine.json").display().to_string();
        let write = |namespace: &str, name: &str, memory: &str| {
            let machine = json!({
                "apiVersion": "kubevirt.io/v1", "kind": "VirtualMachine",
                "metadata": {"name": name, "namespace": namespace, "labels": {"tag.portcullis/web": ""}},
                "spec": {"runStrategy": "Manual", "template": {"spec": {"domain": {
                    "devices": {}, "resources": {"requests": {"memory": memory}}}}}},
            });
            std::fs::write(&file, machine.to_string()).expect("written");
        };
        let name = format!("made-{n}");
        write("blue", &name, "128Mi");
        for arguments in
            [&["create", "-f", &file][..], &["apply", "-f", &file], &["create", "--save-config", "-f", &file]]
        {
            let why = own.refused(arguments);
            assert!(
                why.contains("(Forbidden)") && why.contains("You may not do this"),
                "{program} {arguments:?}: {why}"
            );
        }
        assert!(root.said(&["apply", "-f", &file]).contains("created"), "{program}");
        sees(&bob, &format!("blue:{name}"), "off").await;
        assert!(root.said(&["apply", "-f", &file]).contains("unchanged"), "{program}");
        write("blue", &name, "256Mi");
        for verb in ["apply", "replace"] {
            let why = own.refused(&[verb, "-f", &file]);
            assert!(why.contains("(Forbidden)") && why.contains("You may not do this"), "{program} {verb}: {why}");
        }
        assert!(root.said(&["apply", "-f", &file]).contains("configured"), "{program}");
        let at = "jsonpath={.spec.template.spec.domain.resources.requests.memory}";
        assert_eq!(own.said(&["get", "vm", &name, "-o", at]), "256Mi", "{program}");
        let yaml = own.said(&["get", "vm", &name, "-o", "yaml"]);
        assert!(yaml.contains("memory: 256Mi") && yaml.contains("last-applied-configuration"), "{program}: {yaml}");
        let told = own.said(&["describe", "vm", &name]);
        assert!(told.contains(&name) && told.contains("Manual"), "{program}: {told}");
        assert!(root.said(&["label", "vm", &name, "app=db"]).contains("labeled"), "{program}");
        assert!(own.said(&["get", "vms", "-l", "app=db", "-o", "name"]).contains(&name), "{program}");
        for (arguments, why) in [
            (&["scale", "vm", &name, "--replicas", "2"][..], "(Forbidden)"),
            (&["delete", "vm", &name], "(Forbidden)"),
            (&["delete", "-f", &file], "(Forbidden)"),
            (
                &["patch", "vm", &name, "--type", "merge", "-p", r#"{"metadata":{"labels":{"app":null}}}"#],
                "(Forbidden)",
            ),
            (&["get", "vm", "payroll", "-n", "red", "-o", "yaml"], "(NotFound)"),
            (&["describe", "vm", "payroll", "-n", "red"], "(NotFound)"),
            (&["get", "pods"], "doesn't have a resource type"),
            (&["get", "--raw", "/api/v1/namespaces/blue/secrets"], "(Forbidden)"),
        ] {
            let said = own.refused(arguments);
            assert!(said.contains(why), "{program} {arguments:?}: {said}");
        }
        // What is hidden is not there, and may not be made in its place.
        write("red", "payroll", "1Gi");
        let why = own.refused(&["apply", "-f", &file]);
        assert!(why.contains("(Forbidden)") && !why.contains("exists"), "{program}: {why}");
        assert!(root.said(&["delete", "vm", &name, "--timeout", "20s"]).contains("deleted"), "{program}");
        assert!(own.refused(&["get", "vm", &name]).contains("(NotFound)"), "{program}");
    }
    let log = log(&lab.cluster);
    assert!(!log.contains("wrong") && !log.contains("/openapi/v2"), "{log}");
    lab.gateway.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_watch_tells_of_what_enters_and_leaves_ones_view_and_of_nothing_else() {
    let lab = lab().await;
    let ada = Person::first_administrator(&lab.gateway, "ada").await;
    let bob = ada.invite("bob").await;
    ada.grant("bob", "viewer", "tag", "web").await;
    sees(&bob, "blue:web-1", "running").await;
    sees(&ada, "red:payroll", "running").await;
    let of_bob = bob.token("kv").await;
    let (tool, root) = (Tool::new(&lab, &of_bob), Tool::new(&lab, &ada.token("kv").await));
    let machines = format!("{KV}/virtualmachines");
    let following = Kubectl::new(&lab, "bob", &of_bob).follow(&["get", "vms", "-A", "--watch", "--no-headers"]);
    assert_eq!(following.names(2).await, ["dns-1", "web-1"]);
    let at = |namespace: &str, name: &str| format!("{KV}/namespaces/{namespace}/virtualmachines/{name}");
    let annotate = |text: &str| json!({"metadata": {"annotations": {"note": text}}});
    let label = |key: &str, value: Value| json!({"metadata": {"labels": {key: value}}});

    // From the beginning.
    let mut watch = tool.watch(&format!("{machines}?watch=1&allowWatchBookmarks=true")).await;
    let mut first = [watch.told().await, watch.told().await];
    first.sort();
    assert_eq!(first, [("ADDED", "dns-1"), ("ADDED", "web-1")].map(|(t, n)| (t.to_owned(), n.to_owned())));
    // From a list.
    let (status, list) = tool.get(&format!("{machines}?limit=1")).await;
    assert_eq!((status, names(&list)), (StatusCode::OK, vec!["dns-1", "web-1"]));
    assert_eq!(
        list["metadata"].as_object().map(|m| m.keys().collect::<Vec<_>>()),
        Some(vec![&"resourceVersion".to_owned()])
    );
    let version = list["metadata"]["resourceVersion"].as_str().expect("a version").to_owned();
    let mut later = tool.watch(&format!("{machines}?watch=true&resourceVersion={version}")).await;
    let mut instances =
        tool.watch(&format!("{KV}/namespaces/blue/virtualmachineinstances?watch=true&resourceVersion={version}")).await;
    let is = |kind: &str, name: &str| (kind.to_owned(), name.to_owned());

    for (namespace, name) in [("red", "payroll"), ("blue", "web-1")] {
        assert_eq!(root.patch(&at(namespace, name), &annotate("x")).await.0, StatusCode::OK);
    }
    assert_eq!((watch.told().await, later.told().await), (is("MODIFIED", "web-1"), is("MODIFIED", "web-1")));
    // One that comes into view by its own label, and leaves again: with its name alone.
    assert_eq!(root.patch(&at("red", "payroll"), &label("tag.portcullis/web", json!(""))).await.0, StatusCode::OK);
    assert_eq!((watch.told().await, later.told().await), (is("ADDED", "payroll"), is("ADDED", "payroll")));
    assert_eq!(root.patch(&at("red", "payroll"), &label("tag.portcullis/web", Value::Null)).await.0, StatusCode::OK);
    for of in [&mut watch, &mut later] {
        let gone = of.event().await.expect("it goes on");
        assert_eq!((&gone["type"], &gone["object"]["metadata"]["name"]), (&json!("DELETED"), &json!("payroll")));
        let said = gone.to_string();
        assert!(gone["object"].get("spec").is_none() && !said.contains("labels"), "{said}");
    }
    // One that is new is told of though nobody knew it before.
    let mut body = root.get(&at("blue", "dns-1")).await.1;
    body["metadata"] = json!({"name": "new-1", "labels": {"tag.portcullis/web": "true"}});
    body["spec"]["template"]["spec"]["volumes"] = json!([]);
    let made = root
        .call(Method::POST, &format!("{KV}/namespaces/blue/virtualmachines"), "application/json", &body.to_string())
        .await;
    assert_eq!(made.0, StatusCode::CREATED, "{}", made.1);
    assert_eq!(tool.get(&at("blue", "new-1")).await.0, StatusCode::OK, "who made it finds it at once");
    assert_eq!((watch.told().await, later.told().await), (is("ADDED", "new-1"), is("ADDED", "new-1")));
    // The instance has no labels of its own: the machine's count.
    let start = format!("{SUB}/namespaces/blue/virtualmachines/new-1/start");
    assert_eq!(root.call(Method::PUT, &start, "application/json", "{}").await.0, StatusCode::ACCEPTED);
    assert_eq!(instances.told().await, is("ADDED", "new-1"));
    assert_eq!((watch.told().await, later.told().await), (is("MODIFIED", "new-1"), is("MODIFIED", "new-1")));
    let gone = root.call(Method::DELETE, &at("blue", "new-1"), "", "").await;
    assert_eq!(gone.0, StatusCode::OK);
    assert_eq!((watch.told().await, later.told().await), (is("DELETED", "new-1"), is("DELETED", "new-1")));
    assert_eq!(instances.told().await, is("DELETED", "new-1"));
    watch.is_silent().await;
    let told = ["dns-1", "web-1", "web-1", "payroll", "payroll", "new-1", "new-1", "new-1"];
    assert_eq!(following.names(told.len()).await, told, "kubectl shows what came, in its order");
    drop(following);

    // What a version that is forgotten is answered with.
    happens(&lab.cluster, "expire", true);
    let ended = watch.event().await.expect("an event");
    assert_eq!((&ended["type"], &ended["object"]["code"]), (&json!("ERROR"), &json!(410)));
    let (status, old) = tool.get(&format!("{machines}?watch=true&resourceVersion={version}")).await;
    assert_eq!((status, &old["reason"]), (StatusCode::GONE, &json!("Expired")));
    sees(&ada, "blue:web-1", "running").await;

    // Access that is given makes the client list anew; access that ends, ends the watch.
    let (_, list) = tool.get(&machines).await;
    let version = list["metadata"]["resourceVersion"].as_str().expect("a version").to_owned();
    let mut watch = tool.watch(&format!("{machines}?watch=true&resourceVersion={version}")).await;
    ada.grant("bob", "viewer", "machine", "kv/red:payroll").await;
    let more = watch.event().await.expect("an event");
    assert_eq!((&more["type"], &more["object"]["code"]), (&json!("ERROR"), &json!(410)), "{more}");
    assert!(watch.event().await.is_none());
    let mut watch = tool.watch(&format!("{machines}?watch=true")).await;
    for _ in 0..3 {
        assert_eq!(watch.told().await.0, "ADDED");
    }
    ada.revoke_grants("bob").await;
    let last = loop {
        let event = watch.event().await.expect("an event");
        if event["type"] == "ERROR" {
            break event;
        }
        assert_eq!(event["type"], "DELETED");
    };
    assert_eq!(last["object"]["code"], 403);
    assert!(watch.event().await.is_none());
    let log = log(&lab.cluster);
    assert!(!log.contains("wrong"), "{log}");
    lab.gateway.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn power_and_screens_open_as_pages_and_as_virtctl_ask_for_them() {
    let lab = lab().await;
    let ada = Person::first_administrator(&lab.gateway, "ada").await;
    let bob = ada.invite("bob").await;
    ada.grant("bob", "operator", "pool", "kv/blue").await;
    sees(&bob, "blue:web-1", "running").await;
    let mut screen =
        Screen::open(&bob, "kv/blue:web-1", "control", &ticket_for(&bob, "kv/blue:web-1", "control").await).await;
    screen.handshake().await;
    assert!(screen.picture().await > 10_000, "the first picture arrives");
    screen.press("typed-by-hand").await;
    lab.guest.wait_for_text("typed-by-hand").await;
    // Nobody's screen is taken away.
    let mut second =
        Screen::open(&ada, "kv/blue:web-1", "view", &ticket_for(&ada, "kv/blue:web-1", "view").await).await;
    let (_, why) = second.ended(Duration::from_secs(10)).await;
    assert!(why.contains("409"), "{why}");
    let mut off = Screen::open(&bob, "kv/blue:dns-1", "view", &ticket_for(&bob, "kv/blue:dns-1", "view").await).await;
    let (_, why) = off.ended(Duration::from_secs(10)).await;
    assert!(why.contains("switched off"), "{why}");

    for (verb, state) in [("pause", "paused"), ("resume", "running"), ("reset", "running")] {
        let answer = bob.submit("/machines/kv/blue:web-1/power", &[("verb", verb), ("next", "/")]).await;
        assert_eq!(answer.status(), StatusCode::SEE_OTHER, "{verb}");
        sees(&bob, "blue:web-1", state).await;
    }
    let tool = Tool::new(&lab, &bob.token("kv").await);
    let put = async |target: &str, body: &str| {
        tool.call(Method::PUT, &format!("{SUB}/namespaces/{target}"), "application/json", body).await
    };
    assert_eq!(put("blue/virtualmachines/dns-1/start", "{}").await.0, StatusCode::ACCEPTED);
    sees(&bob, "blue:dns-1", "running").await;
    let (status, why) = put("blue/virtualmachines/dns-1/start", r#"{"paused":true}"#).await;
    assert_eq!((status, &why["reason"]), (StatusCode::CONFLICT, &json!("Conflict")), "the cluster's own word");
    assert_eq!(put("blue/virtualmachines/dns-1/stop", r#"{"gracePeriod":0}"#).await.0, StatusCode::ACCEPTED);
    sees(&bob, "blue:dns-1", "off").await;
    for (target, body, status) in [
        ("red/virtualmachines/payroll/stop", "{}", 404),
        ("red/virtualmachines/nobody/stop", "{}", 404),
        ("blue/virtualmachines/web-1/migrate", "{}", 403),
        ("blue/virtualmachines/web-1/memorydump", r#"{"claimName":"c"}"#, 403),
        ("blue/virtualmachines/web-1/unheard-of", "{}", 403),
    ] {
        assert_eq!(put(target, body).await.0.as_u16(), status, "{target}");
    }

    // A screen over the API is not recorded: only who may have it so gets it.
    let vnc = format!("{SUB}/namespaces/blue/virtualmachineinstances/web-1/vnc");
    let serial = format!("{SUB}/namespaces/blue/virtualmachineinstances/web-1/console");
    let preserved = format!("{vnc}?preserveSession=true");
    for target in [&preserved, &serial] {
        assert_eq!(tool.stream(&lab, target, "plain.kubevirt.io").await.err(), Some(403), "{target}");
    }
    ada.revoke_grants("bob").await;
    ada.grant_unrecorded("bob", "operator", "pool", "kv/blue").await;
    let opens = async |target: &str| {
        for _ in 0..50 {
            if let Ok(stream) = tool.stream(&lab, target, "plain.kubevirt.io").await {
                return stream;
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        panic!("{target} does not open");
    };
    drop(screen);
    let mut shown = opens(&preserved).await;
    assert_eq!(shown.next().await.expect("a message").expect("a message").into_data(), "RFB 003.008\n");
    // Taking a screen or a serial console away from somebody is another right.
    for target in [&vnc, &serial] {
        assert_eq!(tool.stream(&lab, target, "plain.kubevirt.io").await.err(), Some(403), "{target}");
    }
    let before = lab.gateway.grants_of("bob").await;
    ada.grant_unrecorded("bob", "administrator", "machine", "kv/blue:web-1").await;
    let mut text = opens(&serial).await;
    assert_eq!(text.next().await.expect("a message").expect("a message").into_data(), "login: ");
    text.send(Message::binary("root\n")).await.expect("sent");
    assert_eq!(text.next().await.expect("a message").expect("a message").into_data(), "root\n");
    // A token in a subprotocol is none, and stays here.
    let bearer = format!("plain.kubevirt.io, base64url.bearer.authorization.k8s.io.{CANARY}");
    assert_eq!(tool.stream(&lab, &serial, &bearer).await.err(), Some(400));
    // Each ends with any of the rights to it: the serial console with the one to take it over, though it is a console still.
    let gone = |mut stream: Stream| async move {
        tokio::time::timeout(Duration::from_secs(5), async { while let Some(Ok(_)) = stream.next().await {} }).await
    };
    let given = lab.gateway.grants_of("bob").await.into_iter().find(|g| !before.contains(g)).expect("one more");
    let answer = ada.submit("/grants/revoke", &[("grant", &given), ("next", "/grants")]).await;
    assert_eq!(answer.status(), StatusCode::SEE_OTHER);
    gone(text).await.expect("it is cut");
    shown.send(Message::binary("RFB 003.008\n")).await.expect("sent");
    assert!(shown.next().await.expect("a message").is_ok(), "the screen goes on");
    ada.revoke_grants("bob").await;
    gone(shown).await.expect("it is cut");
    let log = log(&lab.cluster);
    assert!(!log.contains("wrong") && !log.contains("taken"), "{log}");
    lab.gateway.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_body_brings_and_a_label_gives_is_decided_on() {
    let lab = lab().await;
    let ada = Person::first_administrator(&lab.gateway, "ada").await;
    let bob = ada.invite("bob").await;
    // Everything on one machine, nothing on the other.
    ada.grant("bob", "administrator", "machine", "kv/blue:web-1").await;
    sees(&bob, "blue:web-1", "running").await;
    let tool = Tool::new(&lab, &bob.token("kv").await);
    let own = format!("{KV}/namespaces/blue/virtualmachines/web-1");
    let volume = |source: Value| json!({"spec": {"template": {"spec": {"volumes": [source]}}}});
    for (body, status) in [
        (json!({"metadata": {"annotations": {"note": "x"}}}), 200),
        // A label that is no tag, and one that it has.
        (json!({"metadata": {"labels": {"app": "db", "tag.portcullis/web": ""}}}), 200),
        (json!({"metadata": {"labels": {"tag.portcullis/red": ""}}}), 403),
        (json!({"metadata": {"labels": {"tag.portcullis/web": null}}}), 403),
        (json!({"metadata": {"labels": null}}), 403),
        (volume(json!({"name": "v", "hostDisk": {"path": "/etc", "type": "Disk"}})), 403),
        (volume(json!({"name": "v", "persistentVolumeClaim": {"claimName": "payroll"}})), 403),
        (volume(json!({"name": "v", "emptyDisk": {"capacity": "1Gi"}})), 200),
        (json!({"spec": {"template": {"metadata": {"annotations": {"hooks.kubevirt.io/hookSidecars": "[]"}}}}}), 403),
        (json!({"spec": {"instancetype": {"name": "gpu"}}}), 403),
        (json!({"spec": {"Template": {}}}), 403),
        (json!({"metadata": {"resourceVersion": "1"}}), 409),
    ] {
        let (got, why) = tool.patch(&own, &body).await;
        assert_eq!(got.as_u16(), status, "{body}: {why}");
    }
    // The whole of it, with its labels and without, and as an applied configuration.
    let (_, mut whole) = tool.get(&own).await;
    let put = async |whole: &Value| tool.call(Method::PUT, &own, "application/json", &whole.to_string()).await;
    let (status, why) = put(&whole).await;
    assert_eq!(status, StatusCode::FORBIDDEN, "an annotation holds what stands for a secret: {why}");
    whole["spec"]["template"]["spec"]["volumes"] = json!([{"name": "v", "emptyDisk": {"capacity": "2Gi"}}]);
    if let Some(annotations) = whole["metadata"]["annotations"].as_object_mut() {
        annotations.retain(|key, _| key == "note");
    }
    let (status, why) = put(&whole).await;
    assert_eq!(status, StatusCode::FORBIDDEN, "what it leaves out would go away: {why}");
    let (_, mut fresh) = tool.get(&own).await;
    fresh["metadata"].as_object_mut().expect("metadata").remove("labels");
    assert_eq!(put(&fresh).await.0, StatusCode::FORBIDDEN, "it would take its tag away");
    let apply = async |body: Value| {
        let target = format!("{own}?fieldManager=tests&force=true");
        tool.call(Method::PATCH, &target, "application/apply-patch+yaml", &body.to_string()).await.0.as_u16()
    };
    let applied = |labels: Value| {
        json!({"apiVersion": "kubevirt.io/v1", "kind": "VirtualMachine",
            "metadata": {"name": "web-1", "labels": labels, "annotations": {"note": "y"}}})
    };
    for labels in [json!({"tag.portcullis/web": ""}), json!({})] {
        assert_eq!(apply(applied(labels)).await, 403, "what its manager applied before would go away");
    }
    // What cannot be read is not passed on.
    for (media, body) in [
        ("application/yaml", "spec: {}"),
        ("application/vnd.kubernetes.protobuf", "k8s"),
        ("application/strategic-merge-patch+json", "{}"),
        ("application/apply-patch+yaml", "spec: {}"),
        ("application/merge-patch+json", r#"{"spec":{"running":true,"running":false}}"#),
        ("application/json-patch+json", r#"[{"op":"copy","from":"/spec","path":"/status"}]"#),
    ] {
        let (status, why) = tool.call(Method::PATCH, &own, media, body).await;
        assert_eq!((status, &why["kind"]), (StatusCode::FORBIDDEN, &json!("Status")), "{media}");
    }
    for (target, status) in [
        (format!("{KV}/virtualmachines?watch=maybe"), 400),
        (format!("{KV}/virtualmachines?limit=1&limit=2"), 403),
        (format!("{KV}/virtualmachines?continue=eyJ9"), 403),
        (format!("{KV}/namespaces/blue/virtualmachines/"), 200),
        ("/api/v1/namespaces/blue/secrets".to_owned(), 403),
        ("/apis/apps/v1/deployments".to_owned(), 403),
        ("/apis/kubevirt.io/v1/namespaces/blue%2F..%2Fred/virtualmachines".to_owned(), 400),
    ] {
        assert_eq!(tool.get(&target).await.0.as_u16(), status, "{target}");
    }
    // Who the cluster should take it for is never the client's to say.
    let request = tool.request(Method::GET, &own).header("Impersonate-User", "admin").header("X-Remote-User", "admin");
    assert_eq!(request.send().await.expect("an answer").status(), StatusCode::OK);
    let log = log(&lab.cluster);
    assert!(!log.contains("wrong") && !log.contains("maybe"), "{log}");
    lab.gateway.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_cluster_that_lies_shows_nothing_and_stops_nothing() {
    let lab = lab().await;
    let ada = Person::first_administrator(&lab.gateway, "ada").await;
    let bob = ada.invite("bob").await;
    ada.grant("bob", "viewer", "pool", "kv/blue").await;
    sees(&bob, "blue:web-1", "running").await;
    let (tool, root) = (Tool::new(&lab, &bob.token("kv").await), Tool::new(&lab, &ada.token("kv").await));
    let machines = format!("{KV}/virtualmachines");

    happens(&lab.cluster, "odd", true);
    let (status, list) = tool.get(&machines).await;
    assert_eq!((status, names(&list)), (StatusCode::OK, vec!["dns-1", "web-1"]));
    assert!(!list.to_string().contains("secret-project"), "{list}");
    // The gateway's own list, too: what is odd hides nothing else.
    happens(&lab.cluster, "expire", true);
    for _ in 0..100 {
        let page = ada.page("/hypervisors").await;
        if page.contains("left out") {
            break;
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    assert!(ada.page("/hypervisors").await.contains("left out"));
    sees(&bob, "blue:web-1", "running").await;
    happens(&lab.cluster, "odd", false);

    happens(&lab.cluster, "nothing", true);
    for tool in [&tool, &root] {
        assert_eq!(tool.get(&machines).await.0, StatusCode::BAD_GATEWAY);
    }
    happens(&lab.cluster, "nothing", false);

    happens(&lab.cluster, "loop", true);
    let (status, why) = tool.get(&machines).await;
    assert_eq!(status, StatusCode::BAD_GATEWAY, "{why}");
    happens(&lab.cluster, "expire", true);
    for _ in 0..300 {
        if ada.page("/hypervisors").await.contains("does not end") {
            break;
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    assert!(ada.page("/hypervisors").await.contains("does not end"));
    happens(&lab.cluster, "loop", false);
    sees(&bob, "blue:web-1", "running").await;

    // The token is renewed in its file: the gateway takes the new one as soon as the old one is refused.
    let fresh = format!("{CANARY}renewed");
    let file = lab.cluster.get("TOKEN_FILE");
    std::fs::write(file, &fresh).expect("written");
    std::fs::write(Path::new(lab.cluster.get("DIR")).join("token"), &fresh).expect("written");
    assert_eq!(
        tool.get(&machines).await.0,
        StatusCode::BAD_GATEWAY,
        "what the cluster refuses the gateway is no refusal of ours"
    );
    let mut status = StatusCode::BAD_GATEWAY;
    for _ in 0..50 {
        status = tool.get(&machines).await.0;
        if status == StatusCode::OK {
            break;
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    assert_eq!(status, StatusCode::OK);

    happens(&lab.cluster, "closed", true);
    let (status, why) = tool.get(&machines).await;
    assert_eq!((status, &why["kind"]), (StatusCode::FORBIDDEN, &json!("Status")));
    lab.gateway.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_list_of_many_pages_ends_with_the_access_to_it() {
    let lab = lab().await;
    let ada = Person::first_administrator(&lab.gateway, "ada").await;
    let bob = ada.invite("bob").await;
    ada.grant("bob", "viewer", "hypervisor", "kv").await;
    sees(&bob, "red:payroll", "running").await;
    let tool = Tool::new(&lab, &bob.token("kv").await);
    let machines = format!("{KV}/virtualmachines");
    let later =
        || log(&lab.cluster).lines().filter(|l| l.contains("/virtualmachines?") && l.contains("continue=")).count();

    happens(&lab.cluster, "slow", true);
    let (status, list) = tool.get(&machines).await;
    assert_eq!(
        (status, names(&list), later()),
        (StatusCode::OK, vec!["dns-1", "web-1", "payroll"], 2),
        "whole as ever"
    );
    // It is taken away while the second page is on its way: the third is not asked for any more.
    let began = std::time::Instant::now();
    let (got, ()) = tokio::join!(tool.get(&machines), async {
        while later() < 3 {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        ada.revoke_grants("bob").await;
    });
    let (status, why) = got;
    assert_eq!((status, &why["reason"]), (StatusCode::FORBIDDEN, &json!("Forbidden")), "{why}");
    assert!(why["message"].as_str().is_some_and(|m| m.contains("access ended")), "{why}");
    assert!(began.elapsed() < Duration::from_millis(3500), "it was not waited for to its end");
    tokio::time::sleep(Duration::from_secs(3)).await;
    assert_eq!(later(), 3, "no page more was asked for");
    let cut = |e: &Value| e["reason"].as_str().is_some_and(|r| r.starts_with("access ended"));
    lab.gateway.find_event(&["--kind", "api", "--user", "bob", "--outcome", "failed"], cut).await;
    lab.gateway.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn events_that_wait_behind_one_another_end_with_the_token() {
    let lab = lab().await;
    let ada = Person::first_administrator(&lab.gateway, "ada").await;
    let bob = ada.invite("bob").await;
    ada.grant("bob", "viewer", "tag", "web").await;
    sees(&bob, "blue:web-1", "running").await;
    let tool = Tool::new(&lab, &bob.token("kv").await);
    let html = bob.page("/me").await;
    let at = html.find("action=\"/me/tokens/revoke\"").expect("it is listed");
    let id = page::field(&html[at..], "id").expect("an id");
    let mut watch = tool.watch(&format!("{KV}/virtualmachineinstances?watch=true&timeoutSeconds=77")).await;
    assert_eq!(watch.told().await.0, "ADDED");
    // The first of many events is about a machine that nobody has heard of: it is waited for, and all the others with it.
    let burst = || log(&lab.cluster).lines().filter(|l| *l == "burst").count();
    let send = async |count: usize| {
        happens(&lab.cluster, "burst", true);
        while burst() < count {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    send(1).await;
    for _ in 0..50 {
        assert_eq!(watch.told().await, ("MODIFIED".to_owned(), "web-1".to_owned()));
    }
    // For a while nothing is waited for again.
    tokio::time::sleep(Duration::from_secs(11)).await;
    send(2).await;
    assert_eq!(bob.submit("/me/tokens/revoke", &[("id", &id)]).await.status(), StatusCode::SEE_OTHER);
    let last = watch.event().await.expect("an event");
    assert_eq!((&last["type"], &last["object"]["code"]), (&json!("ERROR"), &json!(403)), "{last}");
    assert!(watch.event().await.is_none());
    lab.gateway.stop().await;
}
