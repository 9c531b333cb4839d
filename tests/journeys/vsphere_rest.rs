// SPDX-License-Identifier: Apache-2.0
//! vSphere's Automation API through the gateway, in both of its forms: a tool signs in by name and token, sees its owner's
//! machines and no others, changes what its owner may change, is told no in the API's own form, and is out when its session
//! or its token is. govmomi runs unchanged, as govc uses it.

use crate::support::{
    Person, TestGateway,
    gateway::{files, free_port, letters},
    page,
    peers::Peer,
};
use reqwest::{Client, Method, StatusCode, header};
use serde_json::{Value, json};
use std::{collections::BTreeMap, time::Duration};

const SESSION: &str = "vmware-api-session-id";
/// The two forms: where a session is made, what stands before everything else, and the status of what says nothing.
const NEW: Form = Form { session: "/api/session", base: "/api", nothing: 204 };
const OLD: Form = Form { session: "/rest/com/vmware/cis/session", base: "/rest", nothing: 200 };

#[derive(Clone, Copy)]
struct Form {
    session: &'static str,
    base: &'static str,
    nothing: u16,
}

impl Form {
    /// What an answer holds.
    fn value(self, answer: &Value) -> Value {
        if self.base == "/api" { answer.clone() } else { answer["value"].clone() }
    }

    /// What a refusal is called, and its words.
    fn refusal(self, answer: &Value) -> (String, String) {
        let (kind, messages) = if self.base == "/api" {
            (answer["error_type"].as_str().map(str::to_lowercase), &answer["messages"])
        } else {
            let kind = answer["type"].as_str().and_then(|t| t.strip_prefix("com.vmware.vapi.std.errors."));
            (kind.map(str::to_owned), &answer["value"]["messages"])
        };
        let words = messages[0]["default_message"].as_str().unwrap_or_default().to_owned();
        (kind.unwrap_or_else(|| panic!("of another form: {answer}")), words)
    }

    /// A body as this form wants it.
    fn body(self, body: &Value) -> Value {
        if self.base == "/api" { body.clone() } else { json!({ "spec": body }) }
    }
}

struct Tool {
    client: Client,
    port: u16,
}

impl Tool {
    fn new(gateway: &TestGateway, port: u16) -> Self {
        Self { client: Client::builder().tls_certs_only([gateway.ca()]).build().expect("a client"), port }
    }

    fn ask(&self, session: &str, method: &str, target: &str) -> reqwest::RequestBuilder {
        let method: Method = method.parse().expect("a method");
        let request = self.client.request(method, format!("https://localhost:{}{target}", self.port));
        if session.is_empty() { request } else { request.header(SESSION, session) }
    }

    /// The status, and what was answered.
    async fn told(&self, session: &str, method: &str, target: &str) -> (u16, Value) {
        told(self.ask(session, method, target)).await
    }

    async fn say(&self, session: &str, method: &str, target: &str, body: &Value) -> (u16, Value) {
        told(self.ask(session, method, target).json(body)).await
    }

    async fn sign_in(&self, form: Form, name: &str, token: &str) -> String {
        let answer = self.ask("", "POST", form.session).basic_auth(name, Some(token)).send().await.expect("told");
        assert_eq!(answer.status().as_u16(), if form.base == "/api" { 201 } else { 200 });
        let shown = answer.headers()[SESSION].to_str().expect("text").to_owned();
        let cookie = answer.headers().get(header::SET_COOKIE).map(|c| c.to_str().expect("text").to_owned());
        assert_eq!(cookie.is_some(), form.base == "/rest", "{cookie:?}");
        for part in ["Secure", "HttpOnly", "Path=/rest", &format!("{SESSION}={shown};")] {
            assert!(cookie.as_ref().is_none_or(|c| c.contains(part)), "{cookie:?}");
        }
        let value: Value = answer.json().await.expect("JSON");
        assert_eq!(form.value(&value), shown);
        assert!(!shown.contains(token));
        shown
    }
}

async fn told(request: reqwest::RequestBuilder) -> (u16, Value) {
    let answer = request.send().await.expect("an answer");
    assert!(!answer.headers().contains_key(header::SET_COOKIE), "a cookie of the hypervisor's own came out");
    let status = answer.status().as_u16();
    let text = answer.text().await.expect("text");
    let value = if text.is_empty() { Value::Null } else { serde_json::from_str(&text).unwrap_or(Value::String(text)) };
    (status, value)
}

async fn machines(person: &Person<'_>) -> BTreeMap<String, Value> {
    let list: Value = person.get("/api/v1/machines").await.json().await.expect("JSON");
    let all = list["machines"].as_array().expect("a list").clone();
    all.into_iter().map(|m| (m["name"].as_str().expect("a name").to_owned(), m)).collect()
}

async fn sees(person: &Person<'_>, name: &str, state: &str) -> String {
    for _ in 0..120 {
        if let Some(machine) = machines(person).await.get(name).filter(|m| m["state"] == state) {
            return machine["id"].as_str().expect("an id").to_owned();
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    panic!("{} does not see that {name} is {state}: {:?}", person.name, machines(person).await);
}

fn config(vc: &Peer, port: u16) -> String {
    format!(
        "[[hypervisors]]\nname = \"vc\"\nkind = \"vsphere\"\naddress = {:?}\nusername = \"gateway@vsphere.local\"\n\
         password_file = {:?}\n[hypervisors.tls]\nca_file = {:?}\n[hypervisors.api]\nport = {port}\n",
        vc.get("ADDRESS"),
        vc.get("PASSWORD_FILE"),
        vc.get("CA_FILE"),
    )
}

fn password(vc: &Peer) -> String {
    std::fs::read_to_string(vc.get("PASSWORD_FILE")).expect("the password").trim().to_owned()
}

fn log(vc: &Peer) -> String {
    std::fs::read_to_string(vc.get("LOG")).expect("the log")
}

/// The sessions that the hypervisor made.
fn sessions(vc: &Peer) -> Vec<String> {
    log(vc).lines().filter_map(|l| l.split(" session ").nth(1)).map(str::to_owned).collect()
}

/// What came there, beside sessions.
fn came(vc: &Peer, what: &str) -> usize {
    log(vc).lines().filter(|l| l.contains(&format!(" asked {what}"))).count()
}

/// Neither the credential nor what sessions are known by is in the trail, or in anything else that is kept.
async fn nothing_is_kept(gateway: TestGateway, vc: &Peer) {
    let mut hidden = sessions(vc);
    assert!(!hidden.is_empty(), "there was a session");
    hidden.extend([password(vc), "canary-of-a-machine".to_owned()]);
    let events = serde_json::to_string(&gateway.search(&["--limit", "1000"])).expect("JSON");
    for hidden in &hidden {
        assert!(!events.contains(hidden), "{hidden} is in the trail");
    }
    let dir = gateway.stop().await;
    let mut kept = Vec::new();
    files(dir.path(), &mut kept);
    for (place, bytes) in kept {
        let bytes = letters(&bytes);
        for hidden in &hidden {
            assert!(!bytes.contains(hidden.as_str()), "{hidden} is in {place}");
        }
    }
    assert!(!log(vc).contains("wrong:"), "{}", log(vc));
}

fn names(list: &Value) -> Vec<String> {
    let mut names: Vec<String> = list
        .as_array()
        .unwrap_or_else(|| panic!("no list: {list}"))
        .iter()
        .map(|row| row["name"].as_str().expect("a name").to_owned())
        .collect();
    names.sort_unstable();
    names
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_tool_sees_its_owners_machines_and_is_told_no_in_the_apis_own_form() {
    let vc = Peer::vsphere(&[]);
    let port = free_port();
    let gateway = TestGateway::start(&config(&vc, port)).await;
    let ada = Person::first_administrator(&gateway, "ada").await;
    let payroll = sees(&ada, "payroll", "running").await;
    let web = sees(&ada, "web-1", "running").await;
    let bob = ada.invite("bob").await;
    ada.grant("bob", "operator", "pool", "vc/DC0/blue").await;
    sees(&bob, "web-1", "running").await;
    let token = bob.token("vc").await;
    let of_ada = ada.token("vc").await;
    let tool = Tool::new(&gateway, port);
    let mut seen = String::new();
    for form in [NEW, OLD] {
        let at = |path: &str| format!("{}{path}", form.base);
        // Nobody is let in, and hears it in the form that clients know.
        for (name, secret) in [
            ("bob", "wrong"),
            ("ada", token.as_str()),
            ("gateway@vsphere.local", &password(&vc)),
            ("", ""),
            ("bob", ""),
        ] {
            let (status, said) = told(tool.ask("", "POST", form.session).basic_auth(name, Some(secret))).await;
            assert_eq!((status, form.refusal(&said).0.as_str()), (401, "unauthenticated"), "{name}: {said}");
        }
        for (method, target) in
            [("POST", form.session.to_owned()), ("GET", at("/vcenter/vm")), ("DELETE", form.session.to_owned())]
        {
            let (status, said) = tool.told("", method, &target).await;
            assert_eq!((status, form.refusal(&said).0.as_str()), (401, "unauthenticated"), "{method} {target}: {said}");
        }
        let session = tool.sign_in(form, "bob@portcullis", &token).await;
        let list = async |path: &str| {
            let (status, said) = tool.told(&session, "GET", &at(path)).await;
            assert_eq!(status, 200, "{path}: {said}");
            form.value(&said)
        };
        assert_eq!(names(&list("/vcenter/vm").await), ["web-1", "web-2"]);
        let filter = if form.base == "/api" { "names" } else { "filter.names" };
        assert_eq!(names(&list(&format!("/vcenter/vm?{filter}=web-2&{filter}=payroll")).await), ["web-2"]);
        assert_eq!(list(&format!("/vcenter/vm?{filter}=payroll")).await, json!([]));
        // What they stand in and run on, and nothing else of it.
        let folders = names(&list("/vcenter/folder").await);
        assert!(folders.contains(&"blue".to_owned()) && !folders.contains(&"red".to_owned()), "{folders:?}");
        assert_eq!(names(&list("/vcenter/resource-pool").await), ["Resources", "blue"]);
        let hosts = list("/vcenter/host").await;
        assert!((1..=2).contains(&hosts.as_array().expect("a list").len()), "the hosts of two machines, out of three");
        assert_eq!(names(&list("/vcenter/datacenter").await), ["DC0"]);
        // A machine, without what is secret of it.
        let machine = list(&format!("/vcenter/vm/{web}")).await;
        let (verb, state, before) =
            if form.base == "/api" { ("stop", "off", "POWERED_ON") } else { ("start", "running", "POWERED_OFF") };
        assert_eq!(machine, json!({"name": "web-1", "power_state": before}));
        // Power, and what is not theirs to do.
        let (status, said) = tool.told(&session, "POST", &at(&format!("/vcenter/vm/{web}/power?action={verb}"))).await;
        assert_eq!((status, said), (form.nothing, Value::Null));
        sees(&bob, "web-1", state).await;
        let (status, said) = tool.told(&session, "DELETE", &at(&format!("/vcenter/vm/{web}"))).await;
        let (kind, words) = form.refusal(&said);
        assert_eq!((status, kind.as_str()), (403, "unauthorized"), "{said}");
        assert!(words.contains("You need the role"), "{words}");
        let copy = form.body(&json!({"source": web, "name": "mine"}));
        assert_eq!(tool.say(&session, "POST", &at("/vcenter/vm?action=clone"), &copy).await.0, 403);
        let (status, said) = tool
            .say(
                &session,
                "POST",
                &at(&format!("/vcenter/vm/{web}/console/tickets")),
                &form.body(&json!({"type": "WEBMKS"})),
            )
            .await;
        assert!(status == 403 && form.refusal(&said).1.contains("console page"), "{said}");
        for closed in [
            "/vcenter/datastore/datastore-1",
            "/appliance/access/ssh",
            "/vcenter/guest/customization-specs/x",
            "/cis/tasks",
        ] {
            assert_eq!(tool.told(&session, "GET", &at(closed)).await.0, 403, "{closed}");
        }
        // What is hidden and what is not there are answered alike.
        for (method, path) in [
            ("GET", "/vcenter/vm/ID"),
            ("DELETE", "/vcenter/vm/ID"),
            ("POST", "/vcenter/vm/ID/power?action=stop"),
            ("GET", "/vcenter/vm/ID/power"),
            ("POST", "/vcenter/vm/ID?action=unregister"),
        ] {
            let asked = came(&vc, &format!("{method} {}/vcenter/vm/", form.base));
            let hidden = tool.told(&session, method, &at(&path.replace("ID", &payroll))).await;
            let absent = tool.told(&session, method, &at(&path.replace("ID", "vm-9999"))).await;
            assert_eq!(hidden, absent, "{method} {path}");
            assert_eq!((hidden.0, form.refusal(&hidden.1).0.as_str()), (404, "not_found"), "{path}");
            assert_eq!(came(&vc, &format!("{method} {}/vcenter/vm/", form.base)), asked, "nothing came there");
        }
        for target in
            ["/cis/tagging/tag-association/t?action=attach-tag-to-multiple-objects", "/vcenter/iso/image?action=mount"]
        {
            let both = json!({"object_ids": [{"type": "VirtualMachine", "id": web}, {"type": "VirtualMachine", "id": payroll}]});
            let body = if target.contains("iso") {
                json!({"library_item": "l", "vm": format!("{web},{payroll}")})
            } else {
                both
            };
            let (status, said) = tool.say(&session, "POST", &at(target), &body).await;
            assert!(status == 403 || status == 404, "all of them or none: {target} {status} {said}");
        }
        // Whose session it is, and its end.
        let tell = if form.base == "/api" {
            ("GET", form.session.to_owned())
        } else {
            ("POST", format!("{}?~action=get", form.session))
        };
        let (status, said) = tool.told(&session, tell.0, &tell.1).await;
        assert_eq!((status, &form.value(&said)["user"]), (200, &json!("bob")), "{said}");
        seen.push_str(&said.to_string());
        assert_eq!(tool.told(&session, "DELETE", form.session).await, (form.nothing, Value::Null));
        for (method, target) in [("GET", at("/vcenter/vm")), (tell.0, tell.1), ("DELETE", form.session.to_owned())] {
            let (status, said) = tool.told(&session, method, &target).await;
            assert_eq!((status, form.refusal(&said).0.as_str()), (401, "unauthenticated"), "{method} {target}: {said}");
        }
        // Whoever keeps an ended session, and shows it beside the name, is let in again: as often as that happens.
        let mut kept = session;
        for _ in 0..3 {
            let request = tool.ask(&kept, "POST", form.session).basic_auth("bob", Some(&token));
            let request = request.header(header::COOKIE, format!("{SESSION}={kept}"));
            let answer = request.send().await.expect("told");
            assert!(answer.status().is_success(), "{}", answer.status());
            let fresh = answer.headers()[SESSION].to_str().expect("text").to_owned();
            assert_ne!(fresh, kept);
            assert_eq!(tool.told(&fresh, "GET", &at("/vcenter/vm")).await.0, 200);
            assert_eq!(tool.told(&fresh, "DELETE", form.session).await.0, form.nothing);
            kept = fresh;
        }
        // An administrator sees the rest, copies it, and takes the copy away.
        let session = tool.sign_in(form, "ada", &of_ada).await;
        let (_, all) = tool.told(&session, "GET", &at("/vcenter/vm")).await;
        assert_eq!(names(&form.value(&all)), ["ledger", "payroll", "web-1", "web-2"]);
        let copy = form.body(&json!({"source": payroll, "name": "copy"}));
        let (status, made) = tool.say(&session, "POST", &at("/vcenter/vm?action=clone"), &copy).await;
        assert_eq!(status, 200, "{made}");
        let copy = sees(&ada, "copy", "off").await;
        assert_eq!(form.value(&made), copy);
        assert_eq!(tool.told(&session, "DELETE", &at(&format!("/vcenter/vm/{copy}"))).await.0, form.nothing);
        for _ in 0..50 {
            if !machines(&ada).await.contains_key("copy") {
                break;
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        assert_eq!(tool.told(&session, "DELETE", form.session).await.0, form.nothing);
    }
    for hidden in sessions(&vc) {
        assert!(!seen.contains(&hidden), "{hidden} was shown");
    }
    let by_bob = |e: &Value| e["what"] == "power" && e["on"] == format!("vc/{web}") && e["outcome"] == "done";
    gateway.find_event(&["--kind", "api", "--user", "bob"], by_bob).await;
    let hidden = |e: &Value| e["what"] == "destroy" && e["on"] == format!("vc/{payroll}") && e["outcome"] == "denied";
    gateway.find_event(&["--kind", "api", "--user", "bob"], hidden).await;
    let out = |e: &Value| e["outcome"] == "done" && e["reason"] == "signed out of the API";
    gateway.find_event(&["--kind", "api", "--user", "bob"], out).await;
    nothing_is_kept(gateway, &vc).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_session_is_its_tokens_and_no_request_means_two_things() {
    let vc = Peer::vsphere(&[]);
    let port = free_port();
    let gateway = TestGateway::start(&config(&vc, port)).await;
    let ada = Person::first_administrator(&gateway, "ada").await;
    let payroll = sees(&ada, "payroll", "running").await;
    let web = sees(&ada, "web-1", "running").await;
    let bob = ada.invite("bob").await;
    ada.grant("bob", "operator", "pool", "vc/DC0/blue").await;
    sees(&bob, "web-1", "running").await;
    let token = bob.token("vc").await;
    let tool = Tool::new(&gateway, port);
    let session = tool.sign_in(NEW, "bob", &token).await;
    // No letter of it may differ, and a page of somebody else cannot ride on it.
    let mine = || tool.ask("", "GET", "/api/vcenter/vm");
    assert_eq!(told(mine().header(header::COOKIE, format!("{SESSION}={session}"))).await.0, 200, "as a cookie");
    for wrong in [format!("{session}x"), session[1..].to_owned(), session.to_uppercase(), "x".to_owned()] {
        assert_eq!(told(mine().header(SESSION, &wrong)).await.0, 401, "{wrong}");
    }
    let other = tool.sign_in(NEW, "ada", &ada.token("vc").await).await;
    assert_eq!(
        told(mine().header(SESSION, &session).header(header::COOKIE, format!("{SESSION}={other}"))).await.0,
        401
    );
    assert_eq!(told(mine().header(SESSION, &session).header(SESSION, &other)).await.0, 401);
    assert_eq!(told(mine().header(SESSION, &session).header(header::ORIGIN, "https://evil.example")).await.0, 401);
    let ridden = tool
        .ask("", "POST", NEW.session)
        .basic_auth("bob", Some(&token))
        .header(header::ORIGIN, "https://evil.example");
    assert_eq!(told(ridden).await.0, 401, "a page rides on what a browser remembers");
    for beside in [token.as_str(), "x"] {
        assert_eq!(told(mine().bearer_auth(beside)).await.0, 401, "a token alone is no session");
        assert_eq!(told(mine().basic_auth("bob", Some(beside))).await.0, 401);
    }
    assert_eq!(
        told(mine().header(header::COOKIE, ada.cookie())).await.0,
        401,
        "the portal's cookie is worth nothing here"
    );
    // What the client says of itself goes no further.
    let smuggled =
        tool.ask(&session, "GET", "/api/vcenter/vm").header("vmware-cis-session-id", "x").basic_auth("x", Some("y"));
    assert_eq!(told(smuggled.header(header::COOKIE, "other=1")).await.0, 200);

    // What could be read in two ways is not passed on, and what it would have done was not done.
    let before = log(&vc).matches("/vcenter/vm/").count();
    for (method, target) in [
        ("POST", format!("/api/vcenter/vm/{web}%2f..%2f{payroll}/power?action=stop")),
        ("POST", format!("/api/vcenter/vm/{web}%252f..%252f{payroll}/power?action=stop")),
        ("POST", format!("/api/vcenter/vm/{web};{payroll}/power?action=stop")),
        ("POST", format!("/api/vcenter/vm/{web},{payroll}/power?action=stop")),
        ("POST", format!("/api/vcenter/vm/{}/power?action=stop", payroll.to_uppercase())),
        ("POST", format!("/api/vcenter/vm/id:{payroll}/power?action=stop")),
        ("POST", format!("/API/vcenter/vm/{payroll}/power?action=stop")),
        ("POST", format!("/rest/com/vmware/vcenter/vm/id:{payroll}/power?~action=stop")),
        ("POST", format!("/rest/com/vmware/vcenter/vm/{web}/power?~action=stop")),
        ("POST", format!("/api/vcenter/vm/{web}/power?action=start&action=stop")),
        ("POST", format!("/api/vcenter/vm/{web}/power?action=start&~action=stop")),
        ("POST", format!("/rest/vcenter/vm/{web}/power?~action=stop")),
        ("POST", format!("/api/vcenter/vm/{web}/power?action=stop&vm={payroll}")),
        ("POST", format!("/api/vcenter/vm/{web}/power?action=STOP")),
        ("POST", format!("/api/vcenter/vm/{web}/power?ACTION=stop")),
        ("POST", format!("/api/vcenter/vm/{web}/power")),
        ("POST", "/api/vcenter/vm?~action=clone".to_owned()),
        ("POST", "/api/vcenter/vm?action=clone&~action=register".to_owned()),
        ("GET", "/api/vcenter/vm?action=clone".to_owned()),
    ] {
        let (status, said) = tool.told(&session, method, &target).await;
        assert!([400, 403, 404].contains(&status), "{method} {target}: {status} {said}");
    }
    // A body where none is expected, one that names another machine, and one in another form.
    let off = format!("/api/vcenter/vm/{web}/power?action=stop");
    for body in [r#"{"vm": "vm-1"}"#, r#"{"spec": {"vm": "vm-1"}}"#, "[1]", "{", r#"{"a": 1, "a": 2}"#] {
        let request = tool.ask(&session, "POST", &off).header(header::CONTENT_TYPE, "application/json").body(body);
        let (status, said) = told(request).await;
        assert!([400, 403].contains(&status), "{body}: {status} {said}");
    }
    let form = tool.ask(&session, "POST", &off).form(&[("action", "start")]);
    assert!([400, 403].contains(&told(form).await.0));
    let read = tool.ask(&session, "GET", "/api/vcenter/vm").body("{}");
    assert_eq!(told(read).await.0, 400, "a read has no body");
    let large = tool.ask("", "POST", NEW.session).basic_auth("bob", Some(&token)).body("x".repeat(100 * 1024));
    assert_eq!(told(large).await.0, 413);
    assert_eq!(log(&vc).matches("/vcenter/vm/").count(), before, "nothing of it came there");
    for name in ["web-1", "payroll"] {
        sees(&ada, name, "running").await;
    }

    // Five sessions of a token are there; the sixth takes the place of its oldest, which is made anew where it is used.
    let mut more = Vec::new();
    for _ in 0..6 {
        let session = tool.sign_in(NEW, "bob", &token).await;
        assert_eq!(tool.told(&session, "GET", "/api/vcenter/vm").await.0, 200);
        more.push(session);
    }
    assert_eq!(tool.told(&session, "GET", "/api/vcenter/vm").await.0, 200, "nobody is signed out by it");
    // A token that is revoked takes all of them with it.
    let html = bob.page("/me").await;
    let at = html.find("action=\"/me/tokens/revoke\"").expect("it is listed");
    let id = page::field(&html[at..], "id").expect("an id");
    assert_eq!(bob.submit("/me/tokens/revoke", &[("id", &id)]).await.status(), StatusCode::SEE_OTHER);
    for session in more.iter().chain([&session]) {
        let (status, said) = tool.told(session, "GET", "/api/vcenter/vm").await;
        assert_eq!((status, NEW.refusal(&said).0.as_str()), (401, "unauthenticated"), "{said}");
    }
    let again = tool.ask(&session, "POST", NEW.session).basic_auth("bob", Some(&token));
    assert_eq!(told(again).await.0, 401);
    // A session is over with two hours.
    gateway.clock.advance(time::Duration::minutes(121));
    let mut status = 0;
    for _ in 0..50 {
        status = tool.told(&other, "GET", "/api/vcenter/vm").await.0;
        if status == 401 {
            break;
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    assert_eq!(status, 401);
    // And all that the hypervisor was asked to keep was ended there.
    let mut ended = 0;
    for _ in 0..50 {
        ended = log(&vc).matches(" asked DELETE /").count();
        if ended >= sessions(&vc).len() {
            break;
        }
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
    assert!(ended >= sessions(&vc).len(), "{ended} of {}", sessions(&vc).len());
    nothing_is_kept(gateway, &vc).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sessions_that_the_hypervisor_ends_are_made_anew_in_either_form() {
    for only in ["/api", "/rest"] {
        let marks = tempfile::tempdir().expect("a folder");
        let mark = marks.path().join("ended").display().to_string();
        let vc = Peer::vsphere(&["-ended", &mark, "-only", only]);
        let port = free_port();
        let gateway = TestGateway::start(&config(&vc, port)).await;
        let ada = Person::first_administrator(&gateway, "ada").await;
        let web = sees(&ada, "web-1", "running").await;
        let tool = Tool::new(&gateway, port);
        let session = tool.sign_in(NEW, "ada", &ada.token("vc").await).await;
        assert_eq!(tool.told(&session, "GET", "/api/vcenter/vm").await.0, 200);
        assert_eq!(sessions(&vc).len(), 1, "one for the tool: {}", log(&vc));
        std::fs::write(&mark, "").expect("written");
        tokio::time::sleep(Duration::from_millis(50)).await;
        // A change as well as a read: nothing of it was done the first time.
        assert_eq!(tool.told(&session, "POST", &format!("/api/vcenter/vm/{web}/power?action=stop")).await.0, 204);
        sees(&ada, "web-1", "off").await;
        assert_eq!(sessions(&vc).len(), 2, "a tool does not notice: {}", log(&vc));
        assert_eq!(tool.told(&session, "GET", "/api/vcenter/vm").await.0, 200);
        assert_eq!(sessions(&vc).len(), 2, "and it is used from then on");
        nothing_is_kept(gateway, &vc).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_password_that_is_wrong_there_is_tried_once_a_minute() {
    let vc = Peer::vsphere(&[]);
    std::fs::write(vc.get("PASSWORD_FILE"), "another\n").expect("written");
    let port = free_port();
    let gateway = TestGateway::start(&config(&vc, port)).await;
    let ada = Person::first_administrator(&gateway, "ada").await;
    let tool = Tool::new(&gateway, port);
    let session = tool.sign_in(OLD, "ada", &ada.token("vc").await).await;
    for _ in 0..5 {
        let (status, said) = tool.told(&session, "GET", "/rest/appliance/health/system").await;
        assert_eq!((status, OLD.refusal(&said).0.as_str()), (502, "service_unavailable"), "{said}");
    }
    assert!(came(&vc, "POST /rest/com/vmware/cis/session") <= 1, "{}", log(&vc));
    gateway.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_host_has_no_such_api_and_says_so() {
    let vc = Peer::vsphere(&["-esx"]);
    let port = free_port();
    let gateway = TestGateway::start(&config(&vc, port)).await;
    let ada = Person::first_administrator(&gateway, "ada").await;
    sees(&ada, "ha-host_VM0", "running").await;
    let tool = Tool::new(&gateway, port);
    let session = tool.sign_in(NEW, "ada", &ada.token("vc").await).await;
    let (status, said) = tool.told(&session, "GET", "/api/vcenter/vm").await;
    assert!(status == 409 && NEW.refusal(&said).1.contains("ESXi host has none"), "{status} {said}");
    gateway.stop().await;
}

/// What govc's calls say, by a person and with what it keeps between runs.
struct Govc<'a> {
    vc: &'a Peer,
    home: tempfile::TempDir,
    arguments: [String; 4],
}

impl<'a> Govc<'a> {
    fn new(vc: &'a Peer, gateway: &TestGateway, port: u16, name: &str, token: &str) -> Self {
        let ca = gateway.dir.path().join("tls/ca.pem").display().to_string();
        let arguments = [format!("https://localhost:{port}/sdk"), ca, name.to_owned(), token.to_owned()];
        Self { vc, home: tempfile::tempdir().expect("a folder"), arguments }
    }

    #[expect(clippy::disallowed_methods, reason = "tests run clients")]
    fn run(&self, verb: &[&str]) -> Result<Value, String> {
        let mut govc = std::process::Command::new(self.vc.get("GOVC"));
        govc.args(&self.arguments).args(verb).env_clear();
        govc.env("HOME", self.home.path()).env("GOVMOMI_HOME", self.home.path());
        let out = govc.output().expect("it runs");
        let text = String::from_utf8_lossy(&[&out.stdout[..], &out.stderr[..]].concat()).into_owned();
        assert!(!text.contains(&password(self.vc)) && !text.contains("canary"), "a secret came out: {text}");
        for session in sessions(self.vc) {
            assert!(!text.contains(&session), "{session} came out: {text}");
        }
        if out.status.success() { Ok(serde_json::from_slice(&out.stdout).expect("JSON")) } else { Err(text) }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn govmomi_as_govc_uses_it_runs_unchanged_and_keeps_its_sessions() {
    let vc = Peer::vsphere(&[]);
    let port = free_port();
    let gateway = TestGateway::start(&config(&vc, port)).await;
    let ada = Person::first_administrator(&gateway, "ada").await;
    let web = sees(&ada, "web-1", "running").await;
    let bob = ada.invite("bob").await;
    ada.grant("bob", "operator", "pool", "vc/DC0/blue").await;
    sees(&bob, "web-1", "running").await;
    let own = Govc::new(&vc, &gateway, port, "bob", &bob.token("vc").await);
    let admin = Govc::new(&vc, &gateway, port, "ada", &ada.token("vc").await);
    assert_eq!(own.run(&["ls"]), Ok(json!(["web-1", "web-2"])));
    assert_eq!(own.run(&["vm.info", "web-1"]), Ok(json!({"id": web, "name": "web-1", "state": "poweredOn"})));
    assert!(own.run(&["vm.info", "payroll"]).unwrap_err().contains("not found"));
    assert_eq!(own.run(&["vm.power", "off", "web-1"]), Ok(json!("success")));
    sees(&bob, "web-1", "off").await;
    assert_eq!(own.run(&["vm.power", "on", "web-1"]), Ok(json!("success")));
    sees(&bob, "web-1", "running").await;
    assert!(own.run(&["vm.clone", "web-1", "mine"]).is_err());
    // Runs share one sign-in of each kind.
    let signed_in = |gateway: &TestGateway| {
        let all = gateway.search(&["--kind", "api", "--user", "bob", "--limit", "500"]);
        all.iter().filter(|e| e["reason"] == "signed in to the API").count()
    };
    assert_eq!(own.run(&["session.ls"]), Ok(json!({"soap": "true", "rest": "false"})));
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert_eq!(signed_in(&gateway), 1, "seven runs");

    // Tags and libraries.
    assert!(own.run(&["tags.ls"]).unwrap_err().contains("403"));
    assert_eq!(admin.run(&["tags.create", "stage", "production"]), Ok(json!("success")));
    assert_eq!(admin.run(&["tags.ls"]), Ok(json!(["production"])));
    assert_eq!(admin.run(&["tags.attach", "production", "web-1"]), Ok(json!("success")));
    assert_eq!(admin.run(&["tags.attach", "production", "payroll"]), Ok(json!("success")));
    assert_eq!(admin.run(&["tags.attached.ls", "-r", "web-1"]), Ok(json!(["production"])));
    let both = admin.run(&["tags.attached.ls", "production"]).expect("told");
    assert_eq!(both.as_array().expect("a list").len(), 2, "{both}");
    assert!(own.run(&["tags.attach", "production", "web-2"]).is_err());
    assert_eq!(admin.run(&["library.create", "images"]), Ok(json!("success")));
    assert_eq!(admin.run(&["library.ls"]), Ok(json!(["images"])));
    assert_eq!(admin.run(&["vm.clone", "web-1", "copy"]), Ok(json!("success")));
    sees(&ada, "copy", "off").await;

    // Sessions that it kept and that were ended: it signs in again, as often as that happens.
    for _ in 0..3 {
        assert_eq!(admin.run(&["session.ls"]), Ok(json!({"soap": "true", "rest": "true"})));
        assert_eq!(admin.run(&["session.logout"]), Ok(json!("success")));
        assert_eq!(admin.run(&["session.ls"]), Ok(json!({"soap": "false", "rest": "false"})));
        assert_eq!(admin.run(&["tags.ls"]), Ok(json!(["production"])));
        assert_eq!(admin.run(&["ls"]).map(|all| all.as_array().map(Vec::len)), Ok(Some(5)));
    }
    nothing_is_kept(gateway, &vc).await;
}
