// SPDX-License-Identifier: Apache-2.0
//! vSphere through the gateway: an unchanged pyvmomi with a token of ours sees its owner's machines and no others, changes
//! what its owner may change, is told no in its own words, and is cut when its token is; the credential stays here.

use crate::support::{
    FakeEsx, Person, TestGateway,
    gateway::{files, free_port, letters},
    lab::ticket_for,
    page,
    peers::Peer,
    screen::Screen,
};
use portcullis_domain::{Clock as _, Conditions, Grant, GrantEffect, GrantId, GrantSource, Selector};
use reqwest::{Client, StatusCode, header};
use serde_json::{Value, json};
use std::{collections::BTreeMap, time::Duration};
use tokio::io::AsyncBufReadExt as _;

/// The machines that somebody sees in the portal, by name.
async fn machines(person: &Person<'_>) -> BTreeMap<String, Value> {
    let list: Value = person.get("/api/v1/machines").await.json().await.expect("JSON");
    let all = list["machines"].as_array().expect("a list").clone();
    all.into_iter().map(|m| (m["name"].as_str().expect("a name").to_owned(), m)).collect()
}

/// Waits until somebody sees a machine in a state; gives its id.
async fn sees(person: &Person<'_>, name: &str, state: &str) -> String {
    for _ in 0..120 {
        if let Some(machine) = machines(person).await.get(name).filter(|m| m["state"] == state) {
            return machine["id"].as_str().expect("an id").to_owned();
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    panic!("{} does not see that {name} is {state}: {:?}", person.name, machines(person).await);
}

fn config(vc: &Peer, port: u16, more: &str) -> String {
    format!(
        "[[hypervisors]]\nname = \"vc\"\nkind = \"vsphere\"\naddress = {:?}\nusername = \"gateway@vsphere.local\"\n\
         password_file = {:?}\n{more}[hypervisors.tls]\nca_file = {:?}\n[hypervisors.api]\nport = {port}\n",
        vc.get("ADDRESS"),
        vc.get("PASSWORD_FILE"),
        vc.get("CA_FILE"),
    )
}

/// What the steps of the client came to, by the step's name.
fn steps(said: &str) -> BTreeMap<String, Value> {
    let lines = said.lines().map(|l| serde_json::from_str::<Value>(l).expect("JSON"));
    lines.map(|l| (l["step"].as_str().expect("a step").to_owned(), l["value"].clone())).collect()
}

fn password(vc: &Peer) -> String {
    std::fs::read_to_string(vc.get("PASSWORD_FILE")).expect("a password").trim().to_owned()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_unchanged_pyvmomi_does_what_its_owner_may_and_sees_nothing_else() {
    let vc = Peer::vsphere(&[]);
    let port = free_port();
    let gateway = TestGateway::start(&config(&vc, port, "")).await;
    let ada = Person::first_administrator(&gateway, "ada").await;
    let payroll = sees(&ada, "payroll", "running").await;
    assert_eq!(machines(&ada).await.into_keys().collect::<Vec<_>>(), ["ledger", "payroll", "web-1", "web-2"]);
    let bob = ada.invite("bob").await;
    ada.grant("bob", "operator", "pool", "vc/DC0/blue").await;
    sees(&bob, "web-1", "running").await;
    assert_eq!(machines(&bob).await.into_keys().collect::<Vec<_>>(), ["web-1", "web-2"]);
    let token = bob.token("vc").await;
    let ca = gateway.dir.path().join("tls/ca.pem").display().to_string();
    let said = vc.client(&["localhost", &port.to_string(), &ca, "bob@portcullis", &token, &format!("all:{payroll}")]);
    println!("{said}");
    assert!(!said.contains(&password(&vc)), "the credential came out: {said}");
    let mut step = steps(&said);
    let mut take = |name: &str| step.remove(name).unwrap_or_else(|| panic!("no step {name}: {said}"));
    assert_eq!(take("wrong"), "vim.fault.InvalidLogin");
    assert_eq!(take("about"), "VirtualCenter");
    assert_eq!(take("names"), json!(["web-1", "web-2"]), "of the other tenant nothing is listed");
    assert_eq!(take("folders"), json!(["blue", "datastore", "host", "network", "vm"]));
    assert_eq!(take("pools"), json!(["Resources", "blue"]));
    assert!(take("hosts").as_u64().is_some_and(|n| (1..=2).contains(&n)), "the hosts of two machines, out of three");
    assert_eq!(take("view"), json!(["web-1", "web-2"]));
    let view = take("view id");
    assert!(
        view.as_str().is_some_and(|v| v.starts_with("session[portcullis]")),
        "{view}: the session's key is not told"
    );
    assert_eq!(take("settings"), json!(["web-1", "blue", "blue", "poweredOn"]));
    assert_eq!(take("siblings"), json!([]), "the simulator's pools do not follow their machines");
    assert_eq!(take("by name"), true);
    assert_eq!(take("by hidden name"), "None");
    assert_eq!((take("off"), take("is off"), take("on")), (json!("success"), json!("poweredOff"), json!("success")));
    assert_eq!(take("snapshot"), "success");
    let screen = take("screen");
    assert_eq!(screen["fault"], "NoPermission");
    assert!(
        screen["message"].as_str().is_some_and(|m| m.contains("console page")),
        "it says where a screen opens: {screen}"
    );
    for closed in ["rename", "events"] {
        let told = take(closed);
        assert_eq!(told["fault"], "NoPermission", "{closed}: {told}");
        assert!(told["message"].as_str().is_some_and(|m| m.contains("You need the role")), "{told}");
    }
    assert_eq!((take("sessions"), take("exec"), take("mob")), (json!([]), Value::Null, Value::Null));
    // What is hidden and what is not there are answered alike, whatever it is called.
    for what in ["name", "off", "as folder"] {
        assert_eq!(take(&format!("hidden {what}")), take(&format!("absent {what}")), "{what}");
    }
    assert_eq!(take("after")["fault"], "NotAuthenticated", "whoever signed out has to sign in again");
    assert!(step.is_empty(), "{step:?}");
    sees(&ada, "payroll", "running").await;
    let web = sees(&bob, "web-1", "running").await;
    let by_bob = |e: &Value| e["what"] == "power" && e["on"] == format!("vc/{web}") && e["outcome"] == "done";
    gateway.find_event(&["--kind", "api", "--user", "bob"], by_bob).await;
    let hidden = |e: &Value| e["what"] == "power" && e["on"] == format!("vc/{payroll}") && e["outcome"] == "denied";
    gateway.find_event(&["--kind", "api", "--user", "bob"], hidden).await;

    // From the pages: the same machine, and not the other one.
    for (verb, state) in [("stop", "off"), ("start", "running"), ("pause", "paused"), ("resume", "running")] {
        let answer = bob.submit(&format!("/machines/vc/{web}/power"), &[("verb", verb), ("next", "/")]).await;
        assert_eq!(answer.status(), StatusCode::SEE_OTHER, "{verb}");
        sees(&bob, "web-1", state).await;
    }
    let answer = bob.submit(&format!("/machines/vc/{payroll}/power"), &[("verb", "stop"), ("next", "/")]).await;
    assert_eq!(answer.status(), StatusCode::NOT_FOUND);
    nothing_is_kept(gateway, &vc).await;
}

/// Neither the credential nor what its sessions are known by is in the trail, or in anything else that is kept.
async fn nothing_is_kept(gateway: TestGateway, vc: &Peer) {
    let secret = password(vc);
    let events = serde_json::to_string(&gateway.search(&["--limit", "1000"])).expect("JSON");
    for hidden in [secret.as_str(), "canaryticket", "canary-guest-secret", "vmware_soap_session"] {
        assert!(!events.contains(hidden), "{hidden} is in the trail");
    }
    let dir = gateway.stop().await;
    let mut kept = Vec::new();
    files(dir.path(), &mut kept);
    for (place, bytes) in kept {
        let bytes = letters(&bytes);
        for hidden in [secret.as_str(), "canaryticket", "canary-guest-secret"] {
            assert!(!bytes.contains(hidden), "{hidden} is in {place}");
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_administrator_does_everything_but_what_would_lead_around_the_gateway() {
    let vc = Peer::vsphere(&[]);
    let port = free_port();
    let gateway = TestGateway::start(&config(&vc, port, "")).await;
    let ada = Person::first_administrator(&gateway, "ada").await;
    sees(&ada, "web-1", "running").await;
    let token = ada.token("vc").await;
    let ca = gateway.dir.path().join("tls/ca.pem").display().to_string();
    let said = vc.client(&["localhost", &port.to_string(), &ca, "ada", &token, "admin"]);
    assert!(!said.contains(&password(&vc)) && !said.contains("canary"), "a secret came out: {said}");
    let mut step = steps(&said);
    let mut take = |name: &str| step.remove(name).unwrap_or_else(|| panic!("no step {name}: {said}"));
    assert_eq!(take("names"), json!(["ledger", "payroll", "web-1", "web-2"]));
    for done in ["snapshot", "remove snapshot", "annotate", "option", "disk", "clone"] {
        assert_eq!(take(done), "success", "{done}: {said}");
    }
    assert_eq!(take("annotation"), "a <b> & session[portcullis]", "what a client writes stays as it is");
    assert_eq!(take("options"), json!([]));
    assert_eq!(take("names after"), json!(["copy", "ledger", "payroll", "web-1", "web-2"]));
    assert_eq!(take("sessions"), json!([]), "whose sessions there are is not told");
    assert_eq!(take("events"), true);
    for never in ["ticket", "screen", "export"] {
        assert_eq!(take(never)["fault"], "NoPermission", "{never}");
    }
    assert!(step.is_empty(), "{step:?}");
    sees(&ada, "copy", "off").await;
    nothing_is_kept(gateway, &vc).await;
}

/// The client, running beside the test.
#[expect(clippy::disallowed_methods, reason = "tests start real peers")]
fn beside(vc: &Peer, arguments: &[&str]) -> tokio::process::Child {
    let mut command = tokio::process::Command::new(vc.get("PYTHON"));
    command.arg(vc.get("CLIENT")).args(arguments).stdout(std::process::Stdio::piped()).kill_on_drop(true);
    command.spawn().expect("it starts")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_client_that_waits_for_updates_hears_of_its_own_and_is_cut_with_its_token() {
    let vc = Peer::vsphere(&[]);
    let port = free_port();
    let gateway = TestGateway::start(&config(&vc, port, "")).await;
    let ada = Person::first_administrator(&gateway, "ada").await;
    let payroll = sees(&ada, "payroll", "running").await;
    let web = sees(&ada, "web-1", "running").await;
    let bob = ada.invite("bob").await;
    ada.grant("bob", "operator", "pool", "vc/DC0/blue").await;
    sees(&bob, "web-1", "running").await;
    let token = bob.token("vc").await;
    let ca = gateway.dir.path().join("tls/ca.pem").display().to_string();
    let mut child = beside(&vc, &["localhost", &port.to_string(), &ca, "bob", &token, "watch"]);
    let mut lines = tokio::io::BufReader::new(child.stdout.take().expect("piped")).lines();
    let mut next = async || {
        let line = tokio::time::timeout(Duration::from_secs(20), lines.next_line()).await.expect("in time");
        serde_json::from_str::<Value>(&line.expect("read").expect("a line")).expect("JSON")
    };
    let first = next().await;
    assert!(first.to_string().contains("web-1") && first.to_string().contains("web-2"), "{first}");
    assert!(!first.to_string().contains("payroll") && !first.to_string().contains(&payroll), "{first}");
    // Somebody else's machine changes, then one's own: only that is heard of.
    for id in [&payroll, &web] {
        let answer = ada.submit(&format!("/machines/vc/{id}/power"), &[("verb", "stop"), ("next", "/")]).await;
        assert_eq!(answer.status(), StatusCode::SEE_OTHER);
    }
    let mut heard = String::new();
    for _ in 0..20 {
        heard.push_str(&next().await.to_string());
        if heard.contains("poweredOff") {
            break;
        }
    }
    assert!(heard.contains(&web) && heard.contains("poweredOff") && !heard.contains(&payroll), "{heard}");
    let html = bob.page("/me").await;
    let at = html.find("action=\"/me/tokens/revoke\"").expect("it is listed");
    let id = page::field(&html[at..], "id").expect("an id");
    let before = tokio::time::Instant::now();
    assert_eq!(bob.submit("/me/tokens/revoke", &[("id", &id)]).await.status(), StatusCode::SEE_OTHER);
    loop {
        let line = next().await;
        if line["step"] == "cut" {
            assert_eq!(line["value"], "vim.fault.NotAuthenticated");
            break;
        }
    }
    assert!(before.elapsed() < Duration::from_secs(5), "{:?}", before.elapsed());
    let cut = |e: &Value| e["outcome"] == "failed" && e["reason"].as_str().is_some_and(|r| r.contains("access ended"));
    gateway.find_event(&["--kind", "api", "--user", "bob"], cut).await;
    assert!(child.wait().await.expect("it ends").success());
    gateway.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sessions_that_the_hypervisor_ends_are_made_anew() {
    let vc = Peer::vsphere(&[]);
    let port = free_port();
    let gateway = TestGateway::start(&config(&vc, port, "")).await;
    let ada = Person::first_administrator(&gateway, "ada").await;
    let web = sees(&ada, "web-1", "running").await;
    let tool = Tool::new(&gateway, port);
    let cookie = tool.sign_in("ada", &ada.token("vc").await).await;
    let read = || tool.call(&cookie, "Fetch", ("VirtualMachine", &web), "<prop>name</prop>");
    assert!(told(read()).await.contains(">web-1<"));
    let stop = [("verb", "stop"), ("next", "/")];
    let at = format!("/machines/vc/{web}/power");
    assert_eq!(ada.submit(&at, &stop).await.status(), StatusCode::SEE_OTHER);
    sees(&ada, "web-1", "off").await;
    // An administrator of the hypervisor ends all sessions there, the gateway's among them.
    let (address, ca) = (vc.get("ADDRESS").trim_start_matches("https://"), vc.get("CA_FILE"));
    let (host, direct) = address.split_once(':').expect("a port");
    let said = vc.client(&[host, direct, ca, "gateway@vsphere.local", &password(&vc), "end"]);
    let ended = steps(&said)["ended"].as_u64().expect("a number");
    assert!(ended >= 3, "of the inventory, of the portal's work, and of the tool: {said}");
    assert!(told(read()).await.contains(">web-1<"), "a tool does not notice");
    let start = [("verb", "start"), ("next", "/")];
    assert_eq!(ada.submit(&at, &start).await.status(), StatusCode::SEE_OTHER);
    sees(&ada, "web-1", "running").await;
    gateway.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_host_without_a_vcenter_is_driven_alike() {
    let vc = Peer::vsphere(&["-esx"]);
    let port = free_port();
    let gateway = TestGateway::start(&config(&vc, port, "")).await;
    let ada = Person::first_administrator(&gateway, "ada").await;
    let first = sees(&ada, "ha-host_VM0", "running").await;
    sees(&ada, "ha-host_VM1", "running").await;
    let bob = ada.invite("bob").await;
    ada.grant("bob", "operator", "machine", &format!("vc/{first}")).await;
    sees(&bob, "ha-host_VM0", "running").await;
    let token = bob.token("vc").await;
    let ca = gateway.dir.path().join("tls/ca.pem").display().to_string();
    let said = vc.client(&["localhost", &port.to_string(), &ca, "bob", &token, "names"]);
    assert_eq!(steps(&said)["names"], json!(["ha-host_VM0"]));
    let said = vc.client(&["localhost", &port.to_string(), &ca, "bob", &token, &format!("off:{first}")]);
    assert_eq!(steps(&said)["off"], "success");
    sees(&bob, "ha-host_VM0", "off").await;
    let answer = bob.submit(&format!("/machines/vc/{first}/power"), &[("verb", "start"), ("next", "/")]).await;
    assert_eq!(answer.status(), StatusCode::SEE_OTHER);
    sees(&bob, "ha-host_VM0", "running").await;
    gateway.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_wrong_password_is_tried_once_a_minute_and_said() {
    let vc = Peer::vsphere(&[]);
    std::fs::write(vc.get("PASSWORD_FILE"), "another\n").expect("written");
    let gateway = TestGateway::start(&config(&vc, free_port(), "")).await;
    let ada = Person::first_administrator(&gateway, "ada").await;
    let mut page = String::new();
    for _ in 0..50 {
        page = ada.page("/hypervisors").await;
        if page.contains("was wrong a moment ago") {
            break;
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    assert!(page.contains("was wrong a moment ago") && !page.contains("another"), "{page}");
    gateway.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_screen_opens_at_a_listed_host_with_the_certificate_of_its_ticket() {
    let guest = Peer::qemu("web-1", "none");
    let esx = FakeEsx::start(&guest).await;
    let vc = Peer::vsphere(&["-screen", &esx.place(), "-thumbprint", esx.thumbprint()]);
    let hosts = format!("screen_hosts = [{:?}]\n", esx.place());
    let gateway = TestGateway::start(&config(&vc, free_port(), &hosts)).await;
    let ada = Person::first_administrator(&gateway, "ada").await;
    let web = format!("vc/{}", sees(&ada, "web-1", "running").await);
    let mut screen = Screen::open(&ada, &web, "control", &ticket_for(&ada, &web, "control").await).await;
    screen.handshake().await;
    assert!(screen.picture().await > 10_000, "the first picture arrives");
    screen.press("typed-by-hand").await;
    guest.wait_for_text("typed-by-hand").await;
    assert_eq!(ada.submit("/sign-out", &[]).await.status(), StatusCode::SEE_OTHER);
    assert_eq!(screen.ended(Duration::from_secs(5)).await.0, 4000);
    assert!(esx.came().len() == 1 && esx.came()[0].starts_with("/ticket/canaryticket"), "{:?}", esx.came());
    // One that is off has none.
    let ada = ada.another_browser().await;
    let answer = ada.submit(&format!("/machines/{web}/power"), &[("verb", "stop"), ("next", "/")]).await;
    assert_eq!(answer.status(), StatusCode::SEE_OTHER);
    sees(&ada, "web-1", "off").await;
    let mut off = Screen::open(&ada, &web, "view", &ticket_for(&ada, &web, "view").await).await;
    let (_, why) = off.ended(Duration::from_secs(10)).await;
    assert!(why.contains("it is off"), "{why}");
    nothing_is_kept(gateway, &vc).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_ticket_that_leads_elsewhere_or_to_another_certificate_opens_nothing() {
    let guest = Peer::qemu("web-1", "none");
    let esx = FakeEsx::start(&guest).await;
    let wrong = "00:".repeat(19) + "00";
    for (thumbprint, listed, words) in [
        (wrong.as_str(), esx.place(), "TLS"),
        (esx.thumbprint(), "10.0.0.5".to_owned(), "screen_hosts"),
        ("", esx.place(), "thumbprint"),
    ] {
        let vc = Peer::vsphere(&["-screen", &esx.place(), "-thumbprint", thumbprint]);
        let gateway = TestGateway::start(&config(&vc, free_port(), &format!("screen_hosts = [{listed:?}]\n"))).await;
        let ada = Person::first_administrator(&gateway, "ada").await;
        let web = format!("vc/{}", sees(&ada, "web-1", "running").await);
        let mut screen = Screen::open(&ada, &web, "view", &ticket_for(&ada, &web, "view").await).await;
        let (_, why) = screen.ended(Duration::from_secs(10)).await;
        assert!(why.contains(words), "{thumbprint} {listed}: {why}");
        gateway.stop().await;
    }
    assert_eq!(esx.came(), [""; 0]);
}

/// Calls by hand: what a client sends who means harm.
struct Tool {
    client: Client,
    port: u16,
}

impl Tool {
    fn new(gateway: &TestGateway, port: u16) -> Self {
        Self { client: Client::builder().tls_certs_only([gateway.ca()]).build().expect("a client"), port }
    }

    fn post(&self, inner: &str) -> reqwest::RequestBuilder {
        let body = format!(
            "<e:Envelope xmlns:e='http://schemas.xmlsoap.org/soap/envelope/'
              xmlns:i='http://www.w3.org/2001/XMLSchema-instance'>{inner}</e:Envelope>"
        );
        let request = self.client.post(format!("https://localhost:{}/sdk", self.port));
        request.header("SOAPAction", "\"urn:vim25/6.5\"").header(header::CONTENT_TYPE, "text/xml").body(body)
    }

    fn call(&self, cookie: &str, method: &str, this: (&str, &str), arguments: &str) -> reqwest::RequestBuilder {
        let inner = format!(
            "<e:Body><{method} xmlns='urn:vim25'><_this type='{}'>{}</_this>{arguments}</{method}></e:Body>",
            this.0, this.1
        );
        self.post(&inner).header(header::COOKIE, cookie)
    }

    /// Signs in; gives the cookie.
    async fn sign_in(&self, name: &str, token: &str) -> String {
        let arguments = format!("<userName>{name}</userName><password>{token}</password>");
        let answer =
            self.call("", "Login", ("SessionManager", "SessionManager"), &arguments).send().await.expect("told");
        assert_eq!(answer.status(), StatusCode::OK);
        let cookie = answer.headers()[header::SET_COOKIE].to_str().expect("text").to_owned();
        assert!(cookie.contains("Secure") && cookie.contains("HttpOnly") && !cookie.contains(token), "{cookie}");
        cookie.split(';').next().expect("a cookie").to_owned()
    }
}

/// The type of the fault, or the answer.
async fn told(request: reqwest::RequestBuilder) -> String {
    let answer = request.send().await.expect("an answer");
    let (status, has_cookie) = (answer.status(), answer.headers().contains_key(header::SET_COOKIE));
    let text = answer.text().await.expect("text");
    assert!(!has_cookie, "a cookie of the hypervisor's own came out");
    let kind = text.split("xsi:type=\"vim25:").nth(1).and_then(|t| t.split('"').next()).unwrap_or_default();
    if status == StatusCode::OK { text } else { format!("{} {kind}", status.as_u16()) }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_session_is_its_tokens_and_no_call_means_two_things() {
    let vc = Peer::vsphere(&[]);
    let port = free_port();
    let gateway = TestGateway::start(&config(&vc, port, "")).await;
    let ada = Person::first_administrator(&gateway, "ada").await;
    let payroll = sees(&ada, "payroll", "running").await;
    let web = sees(&ada, "web-1", "running").await;
    let bob = ada.invite("bob").await;
    ada.grant("bob", "operator", "pool", "vc/DC0/blue").await;
    sees(&bob, "web-1", "running").await;
    let (token, of_ada) = (bob.token("vc").await, ada.token("vc").await);
    let tool = Tool::new(&gateway, port);
    let clock = |cookie: &str| tool.call(cookie, "CurrentTime", ("ServiceInstance", "ServiceInstance"), "");
    // Strangers learn what they need to sign in, and nothing else.
    let content = tool.call("", "RetrieveServiceContent", ("ServiceInstance", "ServiceInstance"), "");
    let content = told(content).await;
    assert!(
        content.contains("sessionManager") && !content.contains("instanceUuid") && !content.contains("eventManager")
    );
    assert_eq!(told(clock("")).await, "500 NotAuthenticated");
    let name = tool.call("", "Fetch", ("VirtualMachine", &web), "<prop>name</prop>");
    assert_eq!(told(name).await, "500 NotAuthenticated");
    for (name, password) in
        [("bob", "wrong"), ("ada", token.as_str()), ("gateway@vsphere.local", &password(&vc)), ("", "")]
    {
        let arguments = format!("<userName>{name}</userName><password>{password}</password>");
        let login = tool.call("", "Login", ("SessionManager", "SessionManager"), &arguments);
        assert_eq!(told(login).await, "500 InvalidLogin", "{name}");
    }
    let cookie = tool.sign_in("bob", &token).await;
    assert!(told(clock(&cookie)).await.contains("CurrentTimeResponse"));
    // No letter of it may differ, and a page of somebody else cannot ride on it.
    for wrong in [
        cookie.replace("=\"", "=\"0"),
        format!("{}~1\"", cookie.trim_end_matches('"')),
        format!("{cookie}; {cookie}"),
        "vmware_soap_session=x".to_owned(),
    ] {
        assert_eq!(told(clock(&wrong)).await, "500 NotAuthenticated", "{wrong}");
    }
    assert_eq!(told(clock(&cookie).header(header::ORIGIN, "https://evil.example")).await, "500 NotAuthenticated");
    let own = ada.cookie();
    assert_eq!(told(clock(&own)).await, "500 NotAuthenticated", "the portal's cookie is worth nothing here");

    // A view of one session is not there for another, whoever's it is.
    let arguments =
        "<container type='Folder'>group-d1</container><type>VirtualMachine</type><recursive>true</recursive>";
    let made = told(tool.call(&cookie, "CreateContainerView", ("ViewManager", "ViewManager"), arguments)).await;
    let view =
        made.split("type=\"ContainerView\">").nth(1).and_then(|t| t.split('<').next()).expect("a view").to_owned();
    let fetch = |cookie: &str| tool.call(cookie, "Fetch", ("ContainerView", &view), "<prop>view</prop>");
    let seen = told(fetch(&cookie)).await;
    assert!(seen.contains(&web) && !seen.contains(&payroll), "{seen}");
    let other = tool.sign_in("ada", &of_ada).await;
    assert_eq!(told(fetch(&other)).await, "500 ManagedObjectNotFound");
    let again = tool.sign_in("bob", &token).await;
    assert_eq!(told(fetch(&again)).await, "500 ManagedObjectNotFound");

    // What could be read in two ways is not passed on, and what it would have done was not done.
    let off = |id: &str| {
        format!("<PowerOffVM_Task xmlns='urn:vim25'><_this type='VirtualMachine'>{id}</_this></PowerOffVM_Task>")
    };
    for body in [
        format!("<e:Body>{}{}</e:Body>", off(&web), off(&payroll)),
        format!("<e:Body>{}</e:Body><e:Body>{}</e:Body>", off(&web), off(&payroll)),
        format!("<e:Body>{}</e:Body>", off(&web).replace(&web, &format!("{web}<!-- -->{payroll}"))),
        format!("<e:Body>{}</e:Body>", off(&web).replace(&web, &format!("<![CDATA[{payroll}]]>"))),
        format!("<e:Body>{}</e:Body>", off(&payroll).replace("VirtualMachine", "Folder")),
        format!("<e:Body>{}</e:Body>", off(&payroll).replace("urn:vim25", "urn:vim2")),
        format!("<e:Body>{}</e:Body>", off(&format!(" {payroll}"))),
    ] {
        let found = told(tool.post(&body).header(header::COOKIE, &cookie)).await;
        assert!(found.starts_with("500 "), "{body}: {found}");
    }
    let doctype = format!(
        "<!DOCTYPE x [<!ENTITY id '{payroll}'>]><e:Envelope xmlns:e='http://schemas.xmlsoap.org/soap/envelope/'><e:Body>{}</e:Body></e:Envelope>",
        off("&id;")
    );
    assert!(told(tool.post("").header(header::COOKIE, &cookie).body(doctype)).await.starts_with("500 "));
    let bulk = format!("<vm type='VirtualMachine'>{web}</vm><vm type='VirtualMachine'>{payroll}</vm>");
    let bulk = tool.call(&cookie, "PowerOnMultiVM_Task", ("Datacenter", "datacenter-2"), &bulk);
    assert_eq!(told(bulk).await, "500 ManagedObjectNotFound", "all of them or none");
    let bare =
        tool.call(&cookie, "PowerOnMultiVM_Task", ("Datacenter", "datacenter-2"), &format!("<vm>{payroll}</vm>"));
    assert_eq!(told(bare).await, "500 NoPermission");
    let pbm = tool.call(&cookie, "CurrentTime", ("ServiceInstance", "ServiceInstance"), "");
    assert_eq!(told(pbm.header("SOAPAction", "\"urn:pbm\"")).await, "500 InvalidRequest", "said twice");
    let large = tool.call(&cookie, "CurrentTime", ("ServiceInstance", "ServiceInstance"), &"x".repeat(300 * 1024));
    assert_eq!(told(large).await, "500 InvalidRequest");
    // Everything beside SOAP is closed.
    for path in ["/ui/", "/mob", "/folder/x?dcPath=a", "/api", "/sdk/vim25/8.0/x", "/pbm", "/guestFile?id=1"] {
        let request = tool.client.get(format!("https://localhost:{port}{path}")).header(header::COOKIE, &cookie);
        assert_eq!(request.send().await.expect("told").status(), StatusCode::FORBIDDEN, "{path}");
    }
    for name in ["web-1", "payroll"] {
        sees(&ada, name, "running").await;
    }

    // Whoever asks faster than a token may waits for a turn, and is not refused: clients ask for each property by itself.
    let began = tokio::time::Instant::now();
    for _ in 0..130 {
        assert!(told(clock(&cookie)).await.contains("CurrentTimeResponse"));
    }
    assert!(began.elapsed() > Duration::from_millis(300), "{:?}", began.elapsed());

    // Where a grant asks for a confirmation of its own, a tool cannot give one.
    ada.grant("bob", "administrator", "pool", "vc/DC0/blue").await;
    gateway.ask_each("bob").await;
    let mut asked = String::new();
    for _ in 0..50 {
        let request = tool.call(&cookie, "UnregisterVM", ("VirtualMachine", &web), "");
        asked = request.send().await.expect("told").text().await.expect("text");
        if asked.contains("needs a fresh code") {
            break;
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    assert!(asked.contains("needs a fresh code") && asked.contains("NoPermission"), "{asked}");

    // A session ends with two hours, and a token with its end.
    gateway.clock.advance(time::Duration::minutes(121));
    for _ in 0..50 {
        if told(clock(&cookie)).await == "500 NotAuthenticated" {
            break;
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    assert_eq!(told(clock(&cookie)).await, "500 NotAuthenticated");
    let arguments = format!("<userName>bob</userName><password>{token}</password>");
    let login = || tool.call("", "Login", ("SessionManager", "SessionManager"), &arguments);
    let mut counts = false;
    for _ in 0..50 {
        counts = login().send().await.expect("told").status() == StatusCode::OK;
        if counts {
            break;
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    assert!(counts, "its token counts still");
    gateway.clock.advance(time::Duration::days(2));
    assert_eq!(told(login()).await, "500 InvalidLogin", "the token is over");
    gateway.stop().await;
}

/// What everything of a type says: all properties of all objects in a view of a session's own, and of one service.
fn all_of(view: &str, of: &str, service: (&str, &str)) -> String {
    format!(
        "<specSet><propSet><type>{of}</type><all>true</all></propSet><propSet><type>{}</type><all>true</all></propSet>
         <objectSet><obj type='ContainerView'>{view}</obj><skip>true</skip><selectSet i:type='TraversalSpec'><name>all</name>
         <type>ContainerView</type><path>view</path><skip>false</skip></selectSet></objectSet>
         <objectSet><obj type='{}'>{}</obj></objectSet></specSet><options/>",
        service.0, service.0, service.1
    )
}

impl Tool {
    /// A view of everything of a type, of this session's own.
    async fn view(&self, cookie: &str, of: &str) -> String {
        let arguments =
            format!("<container type='Folder'>group-d1</container><type>{of}</type><recursive>true</recursive>");
        let made = told(self.call(cookie, "CreateContainerView", ("ViewManager", "ViewManager"), &arguments)).await;
        made.split("type=\"ContainerView\">").nth(1).and_then(|t| t.split('<').next()).expect("a view").to_owned()
    }

    async fn list(&self, cookie: &str, arguments: &str) -> String {
        told(self.call(cookie, "RetrievePropertiesEx", ("PropertyCollector", "propertyCollector"), arguments)).await
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_sees_everything_reads_no_settings_by_their_properties() {
    let vc = Peer::vsphere(&[]);
    let port = free_port();
    let gateway = TestGateway::start(&config(&vc, port, "")).await;
    let ada = Person::first_administrator(&gateway, "ada").await;
    sees(&ada, "payroll", "running").await;
    let kim = ada.invite("kim").await;
    ada.grant("kim", "viewer", "hypervisor", "vc").await;
    sees(&kim, "payroll", "running").await;
    let tool = Tool::new(&gateway, port);
    let viewer = tool.sign_in("kim", &kim.token("vc").await).await;
    let admin = tool.sign_in("ada", &ada.token("vc").await).await;
    let options = ("OptionManager", "VpxSettings");
    let roles = ("AuthorizationManager", "AuthorizationManager");
    // By their names: it is asked for, and written down.
    for (this, property) in [(options, "setting"), (roles, "roleList")] {
        let fetch = |cookie| tool.call(cookie, "Fetch", this, &format!("<prop>{property}</prop>"));
        assert_eq!(told(fetch(&viewer)).await, "500 NoPermission", "{this:?}");
        assert!(told(fetch(&admin)).await.contains("returnval"), "{this:?}");
        let spec = format!(
            "<specSet><propSet><type>{}</type><pathSet>{property}</pathSet></propSet>
             <objectSet><obj type='{}'>{}</obj></objectSet></specSet><options/>",
            this.0, this.0, this.1
        );
        assert_eq!(tool.list(&viewer, &spec).await, "500 NoPermission", "{this:?}");
        assert!(tool.list(&admin, &spec).await.contains(&format!("<name>{property}</name>")), "{this:?}");
    }
    let query = |cookie| tool.call(cookie, "QueryOptions", options, "");
    assert_eq!(told(query(&viewer)).await, "500 NoPermission", "the method that tells the same");
    let denied = |e: &Value| {
        e["outcome"] == "denied" && e["on"] == "vc" && e["reason"].as_str().is_some_and(|r| r.contains("administrator"))
    };
    gateway.find_event(&["--kind", "api", "--user", "kim"], denied).await;
    // Among everything at once, and by the way of something else: they are left out.
    for (cookie, is_admin) in [(&viewer, false), (&admin, true)] {
        let view = tool.view(cookie, "HostSystem").await;
        for service in [options, roles] {
            let all = tool.list(cookie, &all_of(&view, "HostSystem", service)).await;
            assert!(all.contains("<name>summary</name>") && all.contains("<name>name</name>"), "{all}");
            assert_eq!(all.contains("<name>config</name>"), is_admin);
            for hidden in ["permission", "effectiveRole", "setting", "roleList"] {
                assert!(is_admin || !all.contains(&format!("<name>{hidden}</name>")), "{hidden}");
            }
        }
        let filter = all_of(&view, "HostSystem", roles).replace("specSet>", "spec>").replace("<options/>", "");
        let filter = format!("{filter}<partialUpdates>false</partialUpdates>");
        let made = tool.call(cookie, "CreateFilter", ("PropertyCollector", "propertyCollector"), &filter);
        assert!(told(made).await.contains("CreateFilterResponse"));
        let wait = "<version></version><options><maxWaitSeconds>1</maxWaitSeconds></options>";
        let wait = tool.call(cookie, "WaitForUpdatesEx", ("PropertyCollector", "propertyCollector"), wait);
        let heard = told(wait).await;
        assert!(heard.contains("<name>summary</name>"), "{heard}");
        assert_eq!(heard.contains("<name>config</name>"), is_admin);
        assert!(is_admin || !heard.contains("<name>roleList</name>"));
    }
    // What is harmless is read as before.
    let about = tool.call(&viewer, "Fetch", ("ServiceInstance", "ServiceInstance"), "<prop>content</prop>");
    assert!(told(about).await.contains("VirtualCenter"));
    let unheard = tool.call(&admin, "Fetch", ("SmsStorageManager", "x"), "<prop>secrets</prop>");
    assert_eq!(told(unheard).await, "500 NoPermission", "what nobody reviewed is told to nobody");
    gateway.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_machine_that_is_forbidden_is_hidden_from_who_sees_the_rest() {
    let vc = Peer::vsphere(&[]);
    let port = free_port();
    let gateway = TestGateway::start(&config(&vc, port, "")).await;
    let ada = Person::first_administrator(&gateway, "ada").await;
    let payroll = sees(&ada, "payroll", "running").await;
    let kim = ada.invite("kim").await;
    ada.grant("kim", "viewer", "hypervisor", "vc").await;
    sees(&kim, "payroll", "running").await;
    let tool = Tool::new(&gateway, port);
    let cookie = tool.sign_in("kim", &kim.token("vc").await).await;
    let events = || {
        let filter = "<filter><disableFullMessage>false</disableFullMessage><eventTypeId>VmBeingCreatedEvent</eventTypeId></filter>";
        told(tool.call(&cookie, "QueryEvents", ("EventManager", "EventManager"), filter))
    };
    let before = events().await;
    assert!(before.contains(&payroll), "before it is forbidden: {before}");
    let view = tool.view(&cookie, "VirtualMachine").await;
    gateway
        .add_grant(
            "kim",
            &Grant {
                id: GrantId::new(uuid::Uuid::now_v7()),
                role: "viewer".parse().expect("a role"),
                selector: Selector::Machine(format!("vc/{payroll}").parse().expect("a machine")),
                effect: GrantEffect::Deny,
                from: gateway.clock.now(),
                until: None,
                conditions: Conditions::default(),
                source: GrantSource::Administrator,
            },
        )
        .await;
    for _ in 0..50 {
        if !machines(&kim).await.contains_key("payroll") {
            break;
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    assert_eq!(machines(&kim).await.into_keys().collect::<Vec<_>>(), ["ledger", "web-1", "web-2"]);
    let list = tool.list(&cookie, &all_of(&view, "VirtualMachine", ("TaskManager", "TaskManager"))).await;
    for seen in [">web-1<", ">ledger<"] {
        assert!(list.contains(seen), "{seen}: {list}");
    }
    assert!(!list.contains(&format!(">{payroll}<")) && !list.contains(">payroll<"), "{list}");
    let fetch = |of: &str, id: &str, property: &str| {
        told(tool.call(&cookie, "Fetch", (of, id), &format!("<prop>{property}</prop>")))
    };
    assert_eq!(fetch("VirtualMachine", &payroll, "name").await, "500 ManagedObjectNotFound");
    assert!(!fetch("ContainerView", &view, "view").await.contains(&payroll));
    let heard = events().await;
    assert!(
        heard.contains("QueryEventsResponse") && !heard.contains(&payroll) && !heard.contains("payroll"),
        "{heard}"
    );
    // Hosts and folders are seen as before: they are not forbidden.
    let hosts = tool.view(&cookie, "HostSystem").await;
    let hosts = tool.list(&cookie, &all_of(&hosts, "HostSystem", ("TaskManager", "TaskManager"))).await;
    assert!(hosts.matches("<name>summary</name>").count() >= 2 && !hosts.contains(&format!(">{payroll}<")), "{hosts}");
    gateway.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whoever_signs_out_is_out_at_once_and_leaves_no_session_behind() {
    let vc = Peer::vsphere(&[]);
    let port = free_port();
    let gateway = TestGateway::start(&config(&vc, port, "")).await;
    let ada = Person::first_administrator(&gateway, "ada").await;
    let web = sees(&ada, "web-1", "running").await;
    let token = ada.token("vc").await;
    let tool = Tool::new(&gateway, port);
    let name = |cookie: &str| told(tool.call(cookie, "Fetch", ("VirtualMachine", &web), "<prop>name</prop>"));
    let leave = |cookie: &str| told(tool.call(cookie, "Logout", ("SessionManager", "SessionManager"), ""));
    let mut cookies = Vec::new();
    for _ in 0..5 {
        let cookie = tool.sign_in("ada", &token).await;
        assert!(!cookies.contains(&cookie), "each sign-in is another");
        assert!(name(&cookie).await.contains(">web-1<"));
        cookies.push(cookie);
    }
    let [first, second, third, ..] = cookies.as_slice() else { panic!("five") };
    // One waits for something to happen while its session ends.
    let view = tool.view(first, "VirtualMachine").await;
    let filter = format!(
        "<spec><propSet><type>VirtualMachine</type><pathSet>name</pathSet></propSet><objectSet><obj type='ContainerView'>{view}
         </obj><skip>true</skip><selectSet i:type='TraversalSpec'><name>all</name><type>ContainerView</type><path>view</path>
         <skip>false</skip></selectSet></objectSet></spec><partialUpdates>false</partialUpdates>"
    )
    .replace("\n         </obj>", "</obj>");
    let collector = ("PropertyCollector", "propertyCollector");
    assert!(told(tool.call(first, "CreateFilter", collector, &filter)).await.contains("CreateFilterResponse"));
    let wait = |version: &str| {
        let wait = format!("<version>{version}</version><options><maxWaitSeconds>60</maxWaitSeconds></options>");
        told(tool.call(first, "WaitForUpdatesEx", collector, &wait))
    };
    let heard = wait("").await;
    let version = heard.split("<version>").nth(1).and_then(|v| v.split('<').next()).expect("a version").to_owned();
    let began = tokio::time::Instant::now();
    let (waited, ()) = tokio::join!(wait(&version), async {
        tokio::time::sleep(Duration::from_millis(500)).await;
        assert!(leave(first).await.contains("LogoutResponse"));
        assert_eq!(name(first).await, "500 NotAuthenticated", "at once");
    });
    assert_eq!(waited, "500 NotAuthenticated", "what waits is cut");
    assert!(began.elapsed() < Duration::from_secs(5), "{:?}", began.elapsed());
    // Nothing that is made out of it is another session.
    let bare = first.trim_end_matches('"');
    for more in ["~1", "~", "x", ".", " ", "=", "%00"] {
        assert_eq!(name(&format!("{bare}{more}\"")).await, "500 NotAuthenticated", "{more}");
    }
    assert_eq!(leave(first).await, "500 InvalidLogin", "once");
    assert!(name(second).await.contains(">web-1<"), "the others go on");
    let out = |e: &Value| e["outcome"] == "done" && e["reason"] == "signed out of the API";
    gateway.find_event(&["--kind", "api", "--user", "ada"], out).await;
    for cookie in [second, third, &cookies[3], &cookies[4]] {
        assert!(leave(cookie).await.contains("LogoutResponse"));
    }
    tokio::time::sleep(Duration::from_secs(2)).await;
    // Of six sessions there are the gateway's own left: the inventory's, and that of what is done from pages.
    let (address, ca) = (vc.get("ADDRESS").trim_start_matches("https://"), vc.get("CA_FILE"));
    let (host, direct) = address.split_once(':').expect("a port");
    let said = vc.client(&[host, direct, ca, "gateway@vsphere.local", &password(&vc), "end"]);
    let left = steps(&said)["ended"].as_u64().expect("a number");
    assert!((1..=2).contains(&left), "{said}");
    // A program that begins anew knows who signed out.
    let last = tool.sign_in("ada", &token).await;
    gateway.restart().await;
    let mut answer = String::new();
    for _ in 0..100 {
        answer = match tool.call(&last, "CurrentTime", ("ServiceInstance", "ServiceInstance"), "").send().await {
            Ok(answer) => answer.text().await.expect("text"),
            Err(_) => String::new(),
        };
        if answer.contains("CurrentTimeResponse") {
            break;
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    assert!(answer.contains("CurrentTimeResponse"), "a session outlives the program: {answer}");
    assert_eq!(name(second).await, "500 NotAuthenticated", "and so does its end");
    gateway.stop().await;
}
