// SPDX-License-Identifier: Apache-2.0
//! XCP-ng through the gateway: an unchanged XenAPI with a token of ours, lists and events that show one's own machines
//! only, power from the pages, a screen by the pool's own tunnel, and a session of the pool that nobody else ever sees.

use crate::support::{
    Person, TestGateway,
    gateway::{files, free_port, letters},
    lab::ticket_for,
    peers::Peer,
    screen::Screen,
};
use portcullis_domain::{Clock as _, Conditions, Grant, GrantEffect, GrantId, GrantSource, Selector};
use reqwest::{Client, StatusCode, header};
use serde_json::{Value, json};
use std::{collections::BTreeMap, path::Path, time::Duration};

/// What every session of the simulated pool begins with.
const SESSION: &str = "ca9a41e5";

struct Lab {
    guest: Peer,
    pool: Peer,
    port: u16,
    gateway: TestGateway,
}

async fn lab() -> Lab {
    let guest = Peer::qemu("web-1", "none");
    let pool = Peer::xapi(guest.get("VNC"));
    let port = free_port();
    let gateway = TestGateway::start(&format!(
        "[[hypervisors]]\nname = \"xen\"\nkind = \"xapi\"\naddress = {:?}\nusername = \"gateway\"\npassword_file = {:?}\n\
         [hypervisors.tls]\nca_file = {:?}\n[hypervisors.api]\nport = {port}\n",
        pool.get("ADDRESS"),
        pool.get("PASSWORD_FILE"),
        pool.get("CA_FILE"),
    ))
    .await;
    Lab { guest, pool, port, gateway }
}

/// The id of a machine, once somebody sees it in a state.
async fn sees(person: &Person<'_>, name: &str, state: &str) -> String {
    for _ in 0..150 {
        let list: Value = person.get("/api/v1/machines").await.json().await.expect("JSON");
        let found =
            list["machines"].as_array().and_then(|all| all.iter().find(|m| m["name"] == name && m["state"] == state));
        if let Some(found) = found {
            return found["id"].as_str().expect("an id").to_owned();
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    panic!("{} does not see that {name} is {state}", person.name);
}

/// What a step of the client came to, by the step's name.
fn steps(said: &str) -> BTreeMap<String, Value> {
    let lines = said.lines().map(|l| serde_json::from_str::<Value>(l).expect("JSON"));
    lines.map(|l| (l["step"].as_str().expect("a step").to_owned(), l["value"].clone())).collect()
}

/// Calls of JSON-RPC with a token.
struct Tool {
    client: Client,
    url: String,
    session: String,
}

impl Tool {
    async fn new(gateway: &TestGateway, port: u16, name: &str, token: &str) -> Self {
        let client = Client::builder().tls_certs_only([gateway.ca()]).build().expect("a client");
        let mut tool = Self { client, url: format!("https://localhost:{port}/jsonrpc"), session: String::new() };
        let answer = tool
            .send(&json!({"jsonrpc": "2.0", "id": 1, "method": "session.login_with_password",
            "params": [name, token, "2.21", "tests"]}))
            .await;
        answer["result"].as_str().expect("a session").clone_into(&mut tool.session);
        tool
    }

    async fn send(&self, body: &Value) -> Value {
        let answer = self.client.post(&self.url).json(body).send().await.expect("an answer");
        assert!(!answer.headers().contains_key(header::SET_COOKIE));
        answer.json().await.expect("JSON")
    }

    /// What a call gives; its code and what belongs to it when it fails.
    async fn call(&self, method: &str, args: Value) -> Result<Value, Vec<Value>> {
        let Value::Array(args) = args else { panic!("parameters") };
        let params: Vec<Value> = [vec![json!(self.session)], args].concat();
        let answer = self.send(&json!({"jsonrpc": "2.0", "id": "x", "method": method, "params": params})).await;
        assert_eq!((&answer["jsonrpc"], &answer["id"]), (&json!("2.0"), &json!("x")), "{answer}");
        assert!(!answer.to_string().contains(SESSION), "a session of the pool came out: {answer}");
        match answer.get("error") {
            None => Ok(answer["result"].clone()),
            Some(error) => {
                Err([vec![error["message"].clone()], error["data"].as_array().cloned().expect("data")].concat())
            }
        }
    }

    async fn named(&self, class: &str, name: &str) -> String {
        let all = self.call(&format!("{class}.get_by_name_label"), json!([name])).await.expect("a list");
        all[0].as_str().unwrap_or_else(|| panic!("no {class} {name}")).to_owned()
    }
}

fn log(pool: &Peer) -> String {
    std::fs::read_to_string(pool.get("LOG")).expect("the log")
}

fn happens(pool: &Peer, what: &str) {
    std::fs::write(Path::new(pool.get("DIR")).join(what), "").expect("written");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_unchanged_xenapi_does_what_its_owner_may_and_sees_nothing_else() {
    let Lab { guest: _guest, pool, port, gateway } = lab().await;
    let ada = Person::first_administrator(&gateway, "ada").await;
    let bob = ada.invite("bob").await;
    ada.grant("bob", "operator", "tag", "web").await;
    sees(&bob, "web-1", "running").await;
    sees(&bob, "dns-1", "off").await;
    sees(&ada, "our template", "off").await;
    let list = ada.get("/api/v1/machines").await.text().await.expect("a list");
    for left_out in ["Control domain", "Debian Bookworm"] {
        assert!(!list.contains(left_out), "{left_out} is no machine of anybody");
    }
    let payroll = sees(&ada, "payroll", "running").await;
    let of_ada = Tool::new(&gateway, port, "ada", &ada.token("xen").await).await;
    let foreign = of_ada.named("VM", "payroll").await;
    let (disk, free) = (of_ada.named("VDI", "payroll disk").await, of_ada.named("VDI", "free disk").await);
    let task = of_ada.call("Async.VM.snapshot", json!([foreign, "before"])).await.expect("a task");
    let task = task.as_str().expect("a task");
    let token = bob.token("xen").await;
    let ca = gateway.dir.path().join("tls/ca.pem").display().to_string();
    let url = format!("https://localhost:{port}");
    let said = pool.client(&[&url, &ca, "bob", &token, &payroll, &foreign, &disk, &free, task]);
    assert!(!said.contains(SESSION) && !said.contains(pool.get("PASSWORD")), "the credential came out: {said}");
    let mut step = steps(&said);
    let mut take = |name: &str| step.remove(name).unwrap_or_else(|| panic!("no step {name}: {said}"));
    assert_eq!(take("wrong")["failure"][0], "SESSION_AUTHENTICATION_FAILED");
    let handle = take("handle").as_str().expect("a session").to_owned();
    assert!(handle.starts_with("OpaqueRef:") && !handle.contains(&token));
    assert_eq!(take("version"), "2.21");
    assert_eq!(take("machines"), json!(["dns-1", "web-1"]), "of the other tenant nothing is listed");
    assert_eq!(take("disks"), json!(["dns-1 disk", "web-1 disk"]));
    let hosts = take("hosts");
    assert_eq!(
        (&hosts[0]["name_label"], hosts[0].get("license_params"), hosts[1].is_null()),
        (&json!("xs1"), None, true)
    );
    let pools = take("pools");
    assert_eq!((&pools[0]["name_label"], pools[0].get("other_config")), (&json!("lab"), Some(&json!({}))));
    let networks = take("networks");
    assert_eq!(networks["failure"][0], "RBAC_PERMISSION_DENIED", "what is the pool's is not for who has machines only");
    assert_eq!(take("named"), 0);
    assert_eq!(take("record"), json!(["web-1", ["web", "production"], {"note": "a < b & \"c\""}]));
    assert_eq!(take("foreign uuid")["failure"][0], "UUID_INVALID");
    assert_eq!(take("absent")["failure"][0], "HANDLE_INVALID");
    for hidden in ["foreign", "foreign power", "no reference"] {
        assert_eq!(take(hidden)["failure"][0], "HANDLE_INVALID", "{hidden} is answered like what does not exist");
    }
    assert_eq!(take("foreign task"), take("absent task"), "whether somebody else began one is not told");
    for closed in ["foreign disk", "attach"] {
        let why = take(closed);
        assert!(
            ["HANDLE_INVALID", "RBAC_PERMISSION_DENIED"].contains(&why["failure"][0].as_str().expect("a code")),
            "{why}"
        );
    }
    assert_eq!(take("wrong state")["failure"][0], "VM_BAD_POWER_STATE", "the pool's own word");
    for refused in ["arity", "unknown", "denied", "settings"] {
        let why = take(refused);
        assert_eq!(why["failure"][0], "RBAC_PERMISSION_DENIED", "{refused}: {why}");
        assert!(why["failure"][2].as_str().is_some_and(|w| w.contains("You may not do this")), "{why}");
    }
    assert_eq!(take("screen"), "rfb");
    assert_eq!(take("events"), json!(["dns-1", "lab", "vbd", "web-1", "xs1"]));
    assert_eq!(take("counts"), json!({}));
    assert_eq!(take("stop"), "");
    assert_eq!(take("followed"), json!([["vm", "Halted"]]));
    assert_eq!(take("start"), json!(["Async.VM.start", "success", true]));
    assert_eq!(take("after"), Value::Null);
    assert!(step.is_empty(), "{step:?}");
    let log = log(&pool);
    assert!(!log.contains("wrong") && !log.contains(&token), "{log}");
    for never in ["unheard_of", "secret.get_all_records", "set_name_description", "VBD.create", "VDI.destroy"] {
        assert!(!log.contains(never), "{never} came through:\n{log}");
    }

    // From the pages.
    let id = sees(&bob, "web-1", "running").await;
    for (verb, state) in
        [("pause", "paused"), ("resume", "running"), ("reset", "running"), ("stop", "off"), ("start", "running")]
    {
        let answer = bob.submit(&format!("/machines/xen/{id}/power"), &[("verb", verb), ("next", "/")]).await;
        assert_eq!(answer.status(), StatusCode::SEE_OTHER, "{verb}");
        sees(&bob, "web-1", state).await;
    }
    let answer = bob.submit(&format!("/machines/xen/{payroll}/power"), &[("verb", "stop"), ("next", "/")]).await;
    assert_eq!(answer.status(), StatusCode::NOT_FOUND);
    let by_bob = |e: &Value| e["what"] == "power" && e["on"] == format!("xen/{id}") && e["outcome"] == "done";
    gateway.find_event(&["--kind", "api", "--user", "bob"], by_bob).await;
    let shown = serde_json::to_string(&gateway.search(&["--limit", "1000"])).expect("JSON");
    let dir = gateway.stop().await;
    let mut kept = Vec::new();
    files(dir.path(), &mut kept);
    for secret in [SESSION, pool.get("PASSWORD"), &token] {
        assert!(!shown.contains(secret), "{secret} is in the trail");
        for (place, bytes) in &kept {
            assert!(!letters(bytes).contains(secret), "{secret} is in {place}");
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn xen_orchestras_client_follows_the_pool_and_does_what_its_owner_may() {
    let Lab { guest: _guest, pool, port, gateway } = lab().await;
    let ada = Person::first_administrator(&gateway, "ada").await;
    let bob = ada.invite("bob").await;
    ada.grant("bob", "operator", "tag", "web").await;
    sees(&bob, "web-1", "running").await;
    sees(&ada, "our template", "off").await;
    let of_ada = Tool::new(&gateway, port, "ada", &ada.token("xen").await).await;
    let foreign = of_ada.named("VM", "payroll").await;
    let task = of_ada.call("Async.VM.snapshot", json!([foreign, "before"])).await.expect("a task");
    let task = task.as_str().expect("a task");
    let (url, ca) = (format!("https://localhost:{port}"), gateway.dir.path().join("tls/ca.pem").display().to_string());
    let run = |name: &str, token: &str| {
        let said = pool.tool(
            "NODE",
            &[pool.get("ORCHESTRA"), &url, name, token, &foreign, task],
            &[("NODE_EXTRA_CA_CERTS", &ca), ("NODE_NO_WARNINGS", "1")],
        );
        assert!(!said.contains(SESSION) && !said.contains(pool.get("PASSWORD")), "the credential came out: {said}");
        steps(&said)
    };
    let all =
        ["Control domain on host: xs1", "Debian Bookworm 12", "before", "dns-1", "our template", "payroll", "web-1"];
    let own = ["dns-1", "web-1"];
    let token = bob.token("xen").await;
    let mut step = run("bob", &token);
    let mut take = |name: &str| step.remove(name).unwrap_or_else(|| panic!("no step {name}"));
    assert_eq!(take("wrong")["failure"][0], "SESSION_AUTHENTICATION_FAILED");
    let session = take("session").as_str().expect("a session").to_owned();
    assert!(session.starts_with("OpaqueRef:") && !session.contains(&token));
    assert_eq!(take("pool"), json!(["lab", {}, "xs1"]), "of the pool no more than its name");
    assert_eq!((take("machines"), take("records")), (json!(own), json!(own)));
    assert_eq!(take("disks"), json!(["dns-1 disk", "web-1 disk"]));
    assert_eq!(take("others"), json!(["VBD", "VDI", "VIF", "VM", "VM_metrics", "console", "host", "pool"]));
    assert_eq!(take("networks")["failure"][0], "RBAC_PERMISSION_DENIED");
    assert_eq!(take("linked"), json!([["web-1 disk"], "xs1"]));
    for hidden in ["foreign", "foreign power", "absent"] {
        assert_eq!(take(hidden)["failure"][0], "HANDLE_INVALID", "{hidden}");
    }
    for refused in ["settings", "injected"] {
        assert_eq!(take(refused)["failure"][0], "RBAC_PERMISSION_DENIED", "{refused}");
    }
    assert_eq!(take("foreign export")["failure"][0], "unexpected 403");
    assert_eq!((take("stop"), take("stopped")), (json!(""), json!("Halted")));
    assert_eq!((take("start"), take("started")), (json!(""), json!("Running")), "it follows its task to the end");
    assert_eq!(
        take("export")["failure"][0],
        "RBAC_PERMISSION_DENIED",
        "it makes a task first, which an operator may not"
    );
    assert_eq!((take("trouble"), take("left")), (Value::Null, json!("disconnected")));
    assert!(step.is_empty(), "{step:?}");

    // Whoever may see everything follows all of it.
    let mut step = run("ada", &ada.token("xen").await);
    let mut take = |name: &str| step.remove(name).unwrap_or_else(|| panic!("no step {name}"));
    assert_eq!((take("machines"), take("records")), (json!(all), json!(all)));
    assert!(take("others").as_array().expect("classes").contains(&json!("SR")));
    assert_eq!(take("export").as_str().map(|t| t.starts_with("machine OpaqueRef:")), Some(true));
    assert_eq!((take("stopped"), take("started")), (json!("Halted"), json!("Running")));
    let log = log(&pool);
    assert!(
        !log.contains("asked VM.set_name_description \"") || log.matches("asked VM.set_name_description").count() == 1
    );
    for never in ["secret.get_all_records", "listMethods", "wrong"] {
        assert!(!log.contains(never), "{never} came through:\n{log}");
    }
    // In a task that somebody else began, or in two, nothing is told how far it is.
    let id = sees(&ada, "web-1", "running").await;
    let own = of_ada.call("task.create", json!(["export", ""])).await.expect("a task");
    let own = own.as_str().expect("a task");
    let export = async |tasks: &[&str]| {
        let asked = format!("{url}/export?uuid={id}&session_id={}", of_ada.session);
        let asked = tasks.iter().fold(asked, |asked, task| asked + "&task_id=" + *task);
        of_ada.client.get(asked).send().await.expect("an answer").status()
    };
    let absent = "OpaqueRef:00000000-0000-4000-8000-0000000000ff";
    assert_eq!(export(&[own]).await, StatusCode::OK);
    for (tasks, why) in [(&[absent][..], "nobody's"), (&[own, own], "two"), (&["x"], "none")] {
        assert_eq!(export(tasks).await, StatusCode::FORBIDDEN, "{why}");
    }
    // Which methods there are is told to anybody, and no more.
    let anybody = |body: Value| of_ada.client.post(&of_ada.url).json(&body).send();
    let asked = |params: Value| json!({"jsonrpc": "2.0", "id": 0, "method": "system.listMethods", "params": params});
    let said: Value = anybody(asked(json!([]))).await.expect("an answer").json().await.expect("JSON");
    let methods = said["result"].as_array().expect("methods");
    assert!(methods.contains(&json!("VM.start")) && !methods.contains(&json!("secret.get_all_records")));
    let said = anybody(asked(json!(["x"]))).await.expect("an answer").text().await.expect("text");
    assert!(said.contains("takes no parameters"), "{said}");
    gateway.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_screen_opens_by_the_pools_tunnel() {
    let Lab { guest, pool, gateway, .. } = lab().await;
    let ada = Person::first_administrator(&gateway, "ada").await;
    let id = sees(&ada, "web-1", "running").await;
    let at = format!("xen/{id}");
    let mut screen = Screen::open(&ada, &at, "control", &ticket_for(&ada, &at, "control").await).await;
    screen.handshake().await;
    assert!(screen.picture().await > 10_000, "the first picture arrives");
    screen.press("typed-by-hand").await;
    guest.wait_for_text("typed-by-hand").await;
    assert_eq!(ada.submit("/sign-out", &[]).await.status(), StatusCode::SEE_OTHER);
    assert_eq!(screen.ended(Duration::from_secs(5)).await.0, 4000);

    // A session that is over is begun anew; a machine that is off and a pool that shows no more say so.
    let ada = ada.another_browser().await;
    happens(&pool, "expire");
    let mut again = Screen::open(&ada, &at, "view", &ticket_for(&ada, &at, "view").await).await;
    again.handshake().await;
    let off = format!("xen/{}", sees(&ada, "dns-1", "off").await);
    let mut none = Screen::open(&ada, &off, "view", &ticket_for(&ada, &off, "view").await).await;
    let (_, why) = none.ended(Duration::from_secs(10)).await;
    assert!(why.contains("switched off"), "{why}");
    happens(&pool, "full");
    let mut full = Screen::open(&ada, &at, "view", &ticket_for(&ada, &at, "view").await).await;
    let (_, why) = full.ended(Duration::from_secs(10)).await;
    assert!(why.contains("as many people"), "{why}");
    gateway.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_session_is_the_gateways_own_and_ends_with_its_token() {
    let Lab { guest: _guest, pool, port, gateway } = lab().await;
    let ada = Person::first_administrator(&gateway, "ada").await;
    sees(&ada, "web-1", "running").await;
    let tool = Tool::new(&gateway, port, "ada", &ada.token("xen").await).await;
    // Whoever may see everything sees no session all the same, by events or by what somebody wrote down.
    let record = tool.call("pool.get_all_records", json!([])).await.expect("pools");
    assert!(record.to_string().contains("xxxxxxxx"), "what was there is crossed out: {record}");
    let batch = tool.call("event.from", json!([["*"], "", 1.0])).await.expect("events");
    let classes: Vec<&str> =
        batch["events"].as_array().expect("events").iter().filter_map(|e| e["class"].as_str()).collect();
    assert!(classes.contains(&"sr") && !classes.contains(&"session"), "{classes:?}");
    assert!(batch["valid_ref_counts"]["vm"].is_number());
    // Something that was made a moment ago can be used at once.
    let template = tool.named("VM", "our template").await;
    let made = tool.call("VM.clone", json!([template, "fresh"])).await.expect("a machine");
    let answer = tool.call("VM.set_name_description", json!([made, "new"])).await;
    assert_eq!(answer, Ok(json!("")));
    // The pool forgets its sessions: nobody notices.
    happens(&pool, "expire");
    assert!(tool.call("VM.get_all", json!([])).await.is_ok());
    happens(&pool, "lost");
    sees(&ada, "fresh", "off").await;
    assert_eq!(tool.call("VM.destroy", json!([made])).await, Ok(json!("")));
    // A machine with its disks, by a session in the address, in a cookie, or by name and token.
    let id = sees(&ada, "web-1", "running").await;
    let export = format!("https://localhost:{port}/export?uuid={id}");
    let get = |url: &str| tool.client.get(url);
    let token = ada.token("xen").await;
    for request in [
        get(&format!("{export}&session_id={}", tool.session)),
        get(&export).header(header::COOKIE, format!("session_id={}", tool.session)),
        get(&export).basic_auth("ada", Some(&token)),
    ] {
        let answer = request.send().await.expect("an answer");
        assert_eq!(answer.status(), StatusCode::OK);
        assert_eq!(answer.text().await.expect("text"), format!("machine {id}"));
    }
    for (request, status) in [
        (get(&export), StatusCode::UNAUTHORIZED),
        (get(&export).basic_auth("bob", Some(&token)), StatusCode::UNAUTHORIZED),
        (get(&format!("{export}&host=x&session_id={}", tool.session)), StatusCode::FORBIDDEN),
        (get(&format!("https://localhost:{port}/host_backup?session_id={}", tool.session)), StatusCode::FORBIDDEN),
        (get(&format!("https://localhost:{port}/console?session_id={}", tool.session)), StatusCode::FORBIDDEN),
    ] {
        assert_eq!(request.send().await.expect("an answer").status(), status);
    }
    // What could be read in two ways, or shows no session of ours, goes no further.
    let before = log(&pool).matches("asked VM.hard_shutdown").count();
    let call =
        |session: &str| json!({"jsonrpc": "2.0", "id": 1, "method": "VM.hard_shutdown", "params": [session, made]});
    for body in [
        json!([call(&tool.session)]).to_string(),
        call(&tool.session).to_string().replace("\"id\":1", "\"id\":1,\"id\":2"),
        call(&tool.session).to_string().replace("2.0", "1.0"),
        call("OpaqueRef:NULL").to_string(),
        call("").to_string(),
        call(&format!("{}x", tool.session)).to_string(),
        call(&token).to_string(),
    ] {
        let answer = tool.client.post(&tool.url).header(header::CONTENT_TYPE, "application/json").body(body.clone());
        let text = answer.send().await.expect("an answer").text().await.expect("text");
        assert!(text.contains("\"error\"") && !text.contains(SESSION), "{body}: {text}");
    }
    assert_eq!(log(&pool).matches("asked VM.hard_shutdown").count(), before);
    let html = ada.page("/me").await;
    for part in html.split("action=\"/me/tokens/revoke\"").skip(1) {
        let id = part.split("name=\"id\" value=\"").nth(1).and_then(|p| p.split('"').next()).expect("an id");
        assert_eq!(ada.submit("/me/tokens/revoke", &[("id", id)]).await.status(), StatusCode::SEE_OTHER);
    }
    let mut answer = tool.call("VM.get_all", json!([])).await;
    for _ in 0..50 {
        if answer.is_err() {
            break;
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
        answer = tool.call("VM.get_all", json!([])).await;
    }
    assert_eq!(answer.expect_err("its token was taken back")[0], "SESSION_INVALID");
    assert!(!log(&pool).contains("wrong arity"));
    gateway.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn another_master_is_followed_only_where_the_configuration_names_it() {
    let pools = [Peer::xapi("unix:/nowhere"), Peer::xapi("unix:/nowhere")];
    let [first, second] = &pools;
    std::fs::write(Path::new(first.get("DIR")).join("slave"), "127.0.0.1").expect("written");
    let trust = tempfile::tempdir().expect("a folder");
    let ca = trust.path().join("both.pem");
    let both = pools.each_ref().map(|p| std::fs::read_to_string(p.get("CA_FILE")).expect("PEM")).concat();
    std::fs::write(&ca, both).expect("written");
    // Both know the same password.
    let password = second.get("PASSWORD_FILE");
    let member = second.get("ADDRESS").replace("localhost", "127.0.0.1");
    let config = |name: &str, members: &str| {
        format!(
            "[[hypervisors]]\nname = {name:?}\nkind = \"xapi\"\naddress = {:?}\n{members}username = \"gateway\"\n\
             password_file = {password:?}\n[hypervisors.tls]\nca_file = {:?}\n",
            first.get("ADDRESS"),
            ca.display().to_string(),
        )
    };
    let all = [config("named", &format!("members = [{member:?}]\n")), config("other", "")].concat();
    let gateway = TestGateway::start(&all).await;
    let ada = Person::first_administrator(&gateway, "ada").await;
    sees(&ada, "web-1", "running").await;
    let list: Value = ada.get("/api/v1/machines").await.json().await.expect("JSON");
    assert!(list["machines"].as_array().expect("a list").iter().all(|m| m["hypervisor"] == "named"), "{list}");
    let page = ada.page("/hypervisors").await;
    assert!(page.contains("127.0.0.1 is, which"), "the other one says whom it would have to follow: {page}");
    gateway.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nobody_learns_what_there_is_by_how_and_when_they_are_refused() {
    let Lab { guest: _guest, pool, port, gateway } = lab().await;
    let ada = Person::first_administrator(&gateway, "ada").await;
    let payroll = sees(&ada, "payroll", "running").await;
    let bob = ada.invite("bob").await;
    ada.grant("bob", "operator", "tag", "web").await;
    sees(&bob, "web-1", "running").await;
    let foreign = Tool::new(&gateway, port, "ada", &ada.token("xen").await).await.named("VM", "payroll").await;
    let tool = Tool::new(&gateway, port, "bob", &bob.token("xen").await).await;
    let absent = "OpaqueRef:00000000-0000-4000-8000-0000000000ff";
    let nothing = "00000000-0000-4000-8000-0000000000ff";
    let asked = async |method: &str, args: Value| {
        let began = tokio::time::Instant::now();
        (tool.call(method, args).await, began.elapsed())
    };
    let mut took = Vec::new();
    for (method, hidden, none) in [
        ("VM.get_record", foreign.as_str(), absent),
        ("VM.hard_shutdown", &foreign, absent),
        ("VM.get_by_uuid", &payroll, nothing),
    ] {
        let (of_hidden, first) = asked(method, json!([hidden])).await;
        let (of_none, second) = asked(method, json!([none])).await;
        let words = |answer: Result<Value, Vec<Value>>, named: &str| {
            json!(answer.expect_err("refused")).to_string().replace(named, "it")
        };
        assert_eq!(words(of_hidden, hidden), words(of_none, none), "{method}");
        took.extend([(method, first), (method, second)]);
    }
    let (of_hidden, first) = asked("VM.get_by_name_label", json!(["payroll"])).await;
    let (of_none, second) = asked("VM.get_by_name_label", json!(["nothing"])).await;
    assert_eq!((of_hidden, of_none), (Ok(json!([])), Ok(json!([]))));
    took.extend([("label", first), ("label", second)]);
    // Nothing happens in this pool, so each is waited for as long as anything is.
    for (what, took) in took {
        assert!((1_900..4_000).contains(&took.as_millis()), "{what}: {took:?}");
    }
    let began = tokio::time::Instant::now();
    assert!(tool.call("VM.get_by_name_label", json!(["web-1"])).await.is_ok_and(|all| all != json!([])));
    assert!(began.elapsed() < Duration::from_secs(1), "what is there is told at once");
    // Beside the calls as well.
    let beside = async |path: &str, id: &str| {
        let url = format!("https://localhost:{port}{path}?uuid={id}&session_id={}", tool.session);
        let answer = tool.client.get(url).send().await.expect("an answer");
        (answer.status(), answer.text().await.expect("text").replace(id, "it"))
    };
    for path in ["/export", "/vm_rrds", "/vncsnapshot"] {
        let (hidden, none) = (beside(path, &payroll).await, beside(path, nothing).await);
        let plain = |(status, text): (StatusCode, String)| {
            let mut said: Value = serde_json::from_str(&text).expect("JSON");
            // Each request has an id of its own.
            let fields = said.as_object_mut().expect("an object");
            fields.retain(|name, _| !name.contains("request") && name != "metadata");
            (status, said)
        };
        assert_eq!(plain(hidden.clone()), plain(none), "{path}");
        assert_eq!(hidden.0, StatusCode::NOT_FOUND, "{path}");
    }
    // Whoever asks for one name after the other is slowed down.
    let body = json!({"jsonrpc": "2.0", "id": 1, "method": "VM.get_record", "params": [tool.session, absent]});
    let all = (0..250).map(|_| async { tool.client.post(&tool.url).json(&body).send().await.expect("told").status() });
    let all = futures_util::future::join_all(all).await;
    assert!(all.contains(&StatusCode::TOO_MANY_REQUESTS), "{all:?}");
    assert_eq!(log(&pool).matches("asked VM.get_record").count(), 0, "none of it reached the pool");
    gateway.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_call_that_waits_is_cut_with_its_right_and_waits_for_a_minute_at_most() {
    let Lab { guest: _guest, pool, port, gateway } = lab().await;
    let ada = Person::first_administrator(&gateway, "ada").await;
    sees(&ada, "web-1", "running").await;
    let token = ada.token("xen").await;
    let wait = async |tool: &Tool| {
        let batch = tool.call("event.from", json!([["vm"], "", 1.0])).await.expect("events");
        let began = tokio::time::Instant::now();
        let answer = tool.call("event.from", json!([["vm"], batch["token"], 3_600])).await;
        (answer, began.elapsed())
    };
    // Its session ends.
    let [first, second] =
        [Tool::new(&gateway, port, "ada", &token).await, Tool::new(&gateway, port, "ada", &token).await];
    assert_ne!(first.session, second.session, "each sign-in is another");
    let ((answer, took), ()) = tokio::join!(wait(&first), async {
        tokio::time::sleep(Duration::from_secs(2)).await;
        assert_eq!(first.call("session.logout", json!([])).await, Ok(json!("")));
        let answer = first.call("VM.get_all", json!([])).await;
        assert_eq!(answer.expect_err("it ended")[0], "SESSION_INVALID", "at once");
    });
    let why = json!(answer.expect_err("cut")).to_string();
    assert!(why.contains("Your access ended") && why.contains("was ended"), "{why}");
    assert!(took < Duration::from_secs(7), "{took:?}");
    assert_eq!(first.call("session.logout", json!([])).await.expect_err("once")[0], "SESSION_INVALID");
    assert!(second.call("VM.get_all", json!([])).await.is_ok(), "the other goes on");
    let out = |e: &Value| e["outcome"] == "done" && e["reason"] == "signed out of the API";
    gateway.find_event(&["--kind", "api", "--user", "ada"], out).await;
    // Its right ends.
    let bob = ada.invite("bob").await;
    ada.grant("bob", "operator", "tag", "web").await;
    sees(&bob, "web-1", "running").await;
    let of_bob = Tool::new(&gateway, port, "bob", &bob.token("xen").await).await;
    let ((answer, took), ()) = tokio::join!(wait(&of_bob), async {
        tokio::time::sleep(Duration::from_secs(2)).await;
        ada.revoke_grants("bob").await;
    });
    assert!(json!(answer.expect_err("cut")).to_string().contains("Your access ended"));
    assert!(took < Duration::from_secs(7), "{took:?}");
    let log = log(&pool);
    assert!(log.contains("waits 60.0") && !log.contains("waits 3600"), "{log}");
    gateway.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_machine_that_is_forbidden_is_in_no_list_of_who_sees_the_rest() {
    let Lab { guest: _guest, pool: _pool, port, gateway } = lab().await;
    let ada = Person::first_administrator(&gateway, "ada").await;
    let payroll = sees(&ada, "payroll", "running").await;
    let kim = ada.invite("kim").await;
    ada.grant("kim", "viewer", "hypervisor", "xen").await;
    sees(&kim, "payroll", "running").await;
    let tool = Tool::new(&gateway, port, "kim", &kim.token("xen").await).await;
    let list = async || tool.call("VM.get_all_records", json!([])).await.expect("a list").to_string();
    assert!(list().await.contains("payroll"));
    let forbidden = Grant {
        id: GrantId::new(uuid::Uuid::now_v7()),
        role: "viewer".parse().expect("a role"),
        selector: Selector::Machine(format!("xen/{payroll}").parse().expect("a machine")),
        effect: GrantEffect::Deny,
        from: gateway.clock.now(),
        until: None,
        conditions: Conditions::default(),
        source: GrantSource::Administrator,
    };
    gateway.add_grant("kim", &forbidden).await;
    let mut shown = String::new();
    for _ in 0..50 {
        shown = list().await;
        if !shown.contains("payroll") {
            break;
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    assert!(shown.contains("web-1") && !shown.contains("payroll") && !shown.contains(&payroll), "{shown}");
    let batch = tool.call("event.from", json!([["*"], "", 1.0])).await.expect("events").to_string();
    assert!(batch.contains("web-1") && !batch.contains("payroll"), "{batch}");
    gateway.stop().await;
}
